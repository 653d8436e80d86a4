//! The system calls per connection, as tables, and the comparison with a hand-written loop.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::{UnixListener, UnixStream};

use epoll_acceptor::Trigger;
use socket2::SockRef;

use crate::costs::trace::{self, Call, Marks};
use crate::engines::{self, Engine, LONE_PERIOD, Ours, Variant, net};

/// The system calls of a steady state, from the wait to the close of the accepted connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    /// `epoll_wait`
    pub(crate) wait: usize,
    /// `epoll_ctl`
    pub(crate) ctl: usize,
    /// `getsockopt(TCP_INFO)`, for the queue length
    pub(crate) queue_length: usize,
    /// `poll`, for an empty queue
    pub(crate) poll: usize,
    pub(crate) accept: usize,
    /// `accept4` from an empty queue; also counted in `accept`
    pub(crate) empty: usize,
    pub(crate) close: usize,
}

impl Calls {
    /// Returns the calls of the acceptor. Its owner makes the close.
    pub(crate) fn sum(self) -> usize {
        self.wait + self.ctl + self.queue_length + self.poll + self.accept
    }
}

/// `trigger burst x rounds: wait ctl queue_length poll`. No accept finds an empty queue, and every connection is closed.
macro_rules! table {
    ($($trigger:ident $burst:literal x $rounds:literal: $wait:literal $ctl:literal $count:literal $look:literal,)*) => {
        [$((
            Trigger::$trigger, $burst, $rounds,
            Calls {
                wait: $wait, ctl: $ctl, queue_length: $count, poll: $look,
                accept: $burst * $rounds, empty: 0, close: $burst * $rounds,
            },
        ),)*]
    };
}

type Row = (Trigger, usize, usize, Calls);

/// 1,023 lone connections are 33 periods of 31. A burst of 512 takes eight passes with the default budget of 64.
/// A new trigger adds its rows here.
const TCP: [Row; 12] = table! {
    //    burst   rounds    wait    ctl length poll
    Level     1 x 1_023: 1_023      0    33    0,
    Level     4 x    100:    100      0   100    0,
    Level    32 x     50:     50      0    50    0,
    Level   512 x      4:     32      0    32    0,
    Edge      1 x 1_023: 1_023 1_023    33    0,
    Edge      4 x    100:    100    100   100    0,
    Edge     32 x     50:     50     50    50    0,
    Edge    512 x      4:     32     32    32    0,
    Exclusive 1 x 1_023: 1_023      0    33    0,
    Exclusive 4 x    100:    100      0   100    0,
    Exclusive 32 x    50:     50      0    50    0,
    Exclusive 512 x    4:     32      0    32    0,
};

/// Unix sockets do not report the queue length: one poll after each connection, except where the budget ends.
const UNIX: [Row; 12] = table! {
    Level     1 x 1_023: 1_023      0     0   33,
    Level     4 x    100:    100      0     0  400,
    Level    32 x     50:     50      0     0 1600,
    Level   512 x      4:     32      0     0 2016,
    Edge      1 x 1_023: 1_023 1_023     0   33,
    Edge      4 x    100:    100    100     0  400,
    Edge     32 x     50:     50     50     0 1600,
    Edge    512 x      4:     32     32     0 2016,
    Exclusive 1 x 1_023: 1_023      0     0   33,
    Exclusive 4 x    100:    100      0     0  400,
    Exclusive 32 x    50:     50      0     0 1600,
    Exclusive 512 x    4:     32      0     0 2016,
};

#[test]
fn tcp_system_calls_match_the_table() {
    for (trigger, burst, rounds, expected) in TCP {
        for variant in [Variant::Ungated, Variant::Gated] {
            let Some(calls) = tcp(variant, trigger, burst, rounds) else { return };
            let found = Calls::of(&calls);
            assert_eq!(found, expected, "{} {} in bursts of {burst}", variant.name(), trigger);
        }
    }
}

#[test]
fn unix_system_calls_match_the_table() {
    for (trigger, burst, rounds, expected) in UNIX {
        let work = |marks: Marks| {
            let (listener, connect) = unix();
            let mut engine = Ours::new(trigger.on(listener), burst);
            bursts(marks, &mut engine, connect, burst, rounds);
        };
        let Some(calls) = traced(work) else { return };
        assert_eq!(Calls::of(&calls), expected, "{} in bursts of {burst}", trigger);
    }
}

#[test]
fn system_calls_stay_within_the_promised_bound() {
    for (trigger, burst, rounds, calls) in TCP {
        let per_connection = calls.sum() as f64 / (burst * rounds) as f64;
        let bound = match (trigger, burst) {
            (Trigger::Level | Trigger::Exclusive, 1) => 2.05,
            (Trigger::Edge, 1) => 3.05,
            (_, 32) => 1.1,
            _ => 2.0,
        };
        assert!(per_connection <= bound, "{} {burst}: {per_connection}", trigger);
    }
}

#[test]
fn hand_written_loop_makes_the_same_calls() {
    for (trigger, burst, rounds, _) in TCP {
        let rounds = rounds.min(4 * LONE_PERIOD);
        let Some(ours) = tcp(Variant::Gated, trigger, burst, rounds) else { return };
        let Some(by_hand) = tcp(Variant::ByHand, trigger, burst, rounds) else { return };
        let (ours, by_hand) = (from_first_count(&ours), from_first_count(&by_hand));
        let both = ours.len().min(by_hand.len());
        assert!(both > rounds / 2, "{} {burst}: only {both} calls to compare", trigger);
        if let Some(at) = (0..both).find(|at| ours[*at] != by_hand[*at]) {
            let (ours, by_hand) = (&ours[at..both.min(at + 6)], &by_hand[at..both.min(at + 6)]);
            panic!("{} {burst}: call {at} is {ours:?}, in the hand-written loop {by_hand:?}", trigger);
        }
    }
}

/// Returns the names of the calls from the first query of the queue length on; its position in the period varies.
fn from_first_count(calls: &[Call]) -> Vec<&'static str> {
    let names: Vec<&str> = calls.iter().map(|call| name(call.number)).collect();
    let first = names.iter().position(|name| *name == "getsockopt").expect("a query of the queue length");
    names[first..].to_vec()
}

/// Traces steady bursts of one size at a TCP listener; returns `None` where calls cannot be traced.
fn tcp(variant: Variant, trigger: Trigger, burst: usize, rounds: usize) -> Option<Vec<Call>> {
    traced(|marks| {
        let listener = net::listen();
        let address = listener.local_addr().unwrap();
        let mut engine = engines::boxed(variant, trigger, burst, listener);
        bursts(marks, &mut *engine, || net::connect(&address), burst, rounds);
    })
}

pub(crate) fn traced(work: impl FnOnce(Marks)) -> Option<Vec<Call>> {
    trace::child_calls(work)
        .inspect_err(|error| eprintln!("SKIPPED: system calls cannot be traced: {error}"))
        .ok()
}

fn bursts<C>(marks: Marks, engine: &mut dyn Engine, connect: impl Fn() -> C, burst: usize, rounds: usize) {
    let warm_up = if burst == 1 { 120 } else { 8 };
    for round in 0..warm_up + rounds {
        let clients: Vec<C> = (0..burst).map(|_| connect()).collect();
        let mut pass = || {
            engine.take(burst);
            engine.close();
        };
        if round < warm_up {
            pass();
        } else {
            marks.around(pass);
        }
        drop(clients);
    }
}

fn unix() -> (UnixListener, impl Fn() -> UnixStream) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("epoll-acceptor-costs-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    SockRef::from(&listener).listen(4096).unwrap();
    (listener, move || UnixStream::connect_addr(&address).unwrap())
}

impl Calls {
    pub(crate) fn of(calls: &[Call]) -> Self {
        let mut counts = BTreeMap::new();
        for call in calls {
            *counts.entry(name(call.number)).or_insert(0) += 1;
        }
        let mut take = |name: &str| counts.remove(name).unwrap_or(0);
        let found = Self {
            wait: take("epoll_wait"),
            ctl: take("epoll_ctl"),
            queue_length: take("getsockopt"),
            poll: take("poll"),
            accept: take("accept4"),
            empty: calls.iter().filter(|call| name(call.number) == "accept4" && call.result < 0).count(),
            close: take("close"),
        };
        // In a debug build std checks with fcntl that a descriptor is open before closing it, and tokio that a stream is
        // non-blocking before registering it.
        let checks = counts.get("fcntl").copied().unwrap_or(0);
        if cfg!(debug_assertions) && (checks == found.close || checks == 2 * found.close) {
            counts.remove("fcntl");
        }
        assert!(counts.is_empty(), "unexpected calls: {counts:?}");
        found
    }
}

/// Returns the name of the function that makes this system call; architectures differ in the call.
fn name(number: u64) -> &'static str {
    const UNKNOWN: &str = "another";
    let known = [
        (libc::SYS_epoll_pwait, "epoll_wait"),
        (libc::SYS_epoll_pwait2, "epoll_wait"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_getsockopt, "getsockopt"),
        (libc::SYS_ppoll, "poll"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_close, "close"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        (libc::SYS_write, "write"),
        (libc::SYS_read, "read"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_timerfd_settime, "timerfd_settime"),
    ];
    let found = known.into_iter().find(|(known, _)| u64::try_from(*known) == Ok(number));
    found.map_or(UNKNOWN, |(_, name)| name)
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wait, ctl, queue_length, poll, accept, empty, close } = self;
        write!(
            f,
            "wait {wait} ctl {ctl} queue_length {queue_length} poll {poll} accept {accept} empty {empty} close {close}"
        )
    }
}
