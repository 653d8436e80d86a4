//! How many system calls a connection costs, as a table; and that the loop by hand makes the same ones.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::{UnixListener, UnixStream};

use epoll_acceptor::{EdgeTriggered, Exclusive, LevelTriggered};
use socket2::SockRef;

use crate::engines::{self, Engine, LONE_PERIOD, Ours, Strategy, Who, net};
use crate::trace::{self, Call, Marks};

/// The calls of a steady state, from the wait to the close of what it brought.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Calls {
    /// `epoll_wait`
    wait: usize,
    /// `epoll_ctl`
    ctl: usize,
    /// `getsockopt`, for how many are queued
    count: usize,
    /// `poll`, for whether one is queued
    look: usize,
    accept: usize,
    /// `accept4` that found nothing; among `accept` as well
    empty: usize,
    close: usize,
}

impl Calls {
    /// All that the acceptor makes: the close is its owner's.
    fn sum(self) -> usize {
        self.wait + self.ctl + self.count + self.look + self.accept
    }
}

/// `$burst, $rounds: wait ctl count look accept`; nothing is accepted from an empty queue, and all is closed.
macro_rules! table {
    ($($strategy:ident $burst:literal x $rounds:literal: $wait:literal $ctl:literal $count:literal $look:literal,)*) => {
        [$((
            Strategy::$strategy, $burst, $rounds,
            Calls {
                wait: $wait, ctl: $ctl, count: $count, look: $look,
                accept: $burst * $rounds, empty: 0, close: $burst * $rounds,
            },
        ),)*]
    };
}

type Row = (Strategy, usize, usize, Calls);

/// 10,013 lone connections are 323 periods of 31; a burst of 512 takes eight passes with the default budget of 64.
/// A further strategy has its rows here.
const TCP: [Row; 12] = table! {
    //    burst   rounds    wait    ctl count look
    Level     1 x 10_013: 10_013      0   323    0,
    Level     4 x    100:    100      0   100    0,
    Level    32 x     50:     50      0    50    0,
    Level   512 x      4:     32      0    32    0,
    Edge      1 x 10_013: 10_013 10_013   323    0,
    Edge      4 x    100:    100    100   100    0,
    Edge     32 x     50:     50     50    50    0,
    Edge    512 x      4:     32     32    32    0,
    Exclusive 1 x 10_013: 10_013      0   323    0,
    Exclusive 4 x    100:    100      0   100    0,
    Exclusive 32 x    50:     50      0    50    0,
    Exclusive 512 x    4:     32      0    32    0,
};

/// Unix sockets do not tell how many are queued: a look after each connection, except where the budget ends.
const UNIX: [Row; 12] = table! {
    Level     1 x 10_013: 10_013      0     0  323,
    Level     4 x    100:    100      0     0  400,
    Level    32 x     50:     50      0     0 1600,
    Level   512 x      4:     32      0     0 2016,
    Edge      1 x 10_013: 10_013 10_013     0  323,
    Edge      4 x    100:    100    100     0  400,
    Edge     32 x     50:     50     50     0 1600,
    Edge    512 x      4:     32     32     0 2016,
    Exclusive 1 x 10_013: 10_013      0     0  323,
    Exclusive 4 x    100:    100      0     0  400,
    Exclusive 32 x    50:     50      0     0 1600,
    Exclusive 512 x    4:     32      0     0 2016,
};

#[test]
fn the_system_calls_of_tcp_are_those_of_the_table() {
    for (strategy, burst, rounds, expected) in TCP {
        for who in [Who::Free, Who::Gated] {
            let Some(calls) = tcp(who, strategy, burst, rounds) else { return };
            let found = Calls::of(&calls);
            assert_eq!(found, expected, "{} {} in bursts of {burst}", who.name(), strategy.name());
        }
    }
}

#[test]
fn the_system_calls_of_unix_sockets_are_those_of_the_table() {
    for (strategy, burst, rounds, expected) in UNIX {
        let play = |marks: Marks| {
            let (listener, connect) = unix();
            let mut engine: Box<dyn Engine> = match strategy {
                Strategy::Level => Box::new(Ours::new(LevelTriggered::on(listener), burst)),
                Strategy::Edge => Box::new(Ours::new(EdgeTriggered::on(listener), burst)),
                Strategy::Exclusive => Box::new(Ours::new(Exclusive::on(listener), burst)),
            };
            bursts(marks, &mut *engine, connect, burst, rounds);
        };
        let Some(calls) = traced(play) else { return };
        assert_eq!(Calls::of(&calls), expected, "{} in bursts of {burst}", strategy.name());
    }
}

#[test]
fn no_strategy_makes_more_calls_than_are_promised() {
    for (strategy, burst, rounds, calls) in TCP {
        let per_connection = calls.sum() as f64 / (burst * rounds) as f64;
        let bound = match (strategy, burst) {
            (Strategy::Level | Strategy::Exclusive, 1) => 2.05,
            (Strategy::Edge, 1) => 3.05,
            (_, 32) => 1.1,
            _ => 2.0,
        };
        assert!(per_connection <= bound, "{} {burst}: {per_connection}", strategy.name());
    }
}

#[test]
fn the_loop_by_hand_makes_the_same_calls_in_the_same_order() {
    for (strategy, burst, rounds, _) in TCP {
        let rounds = rounds.min(4 * LONE_PERIOD);
        let Some(ours) = tcp(Who::Gated, strategy, burst, rounds) else { return };
        let Some(by_hand) = tcp(Who::ByHand, strategy, burst, rounds) else { return };
        let (ours, by_hand) = (from_the_first_count(&ours), from_the_first_count(&by_hand));
        let both = ours.len().min(by_hand.len());
        assert!(both > rounds / 2, "{} {burst}: only {both} calls to compare", strategy.name());
        if let Some(at) = (0..both).find(|at| ours[*at] != by_hand[*at]) {
            let (ours, by_hand) = (&ours[at..both.min(at + 6)], &by_hand[at..both.min(at + 6)]);
            panic!("{} {burst}: call {at} is {ours:?}, and by hand {by_hand:?}", strategy.name());
        }
    }
}

/// The names of the calls from the first wake-up on that counts what waits, whose place in its period is chance.
fn from_the_first_count(calls: &[Call]) -> Vec<&'static str> {
    let names: Vec<&str> = calls.iter().map(|call| name(call.number)).collect();
    let first = names.iter().position(|name| *name == "getsockopt").expect("a count");
    names[first..].to_vec()
}

/// Steady bursts of one size at a TCP listener; `None` where calls cannot be traced.
fn tcp(who: Who, strategy: Strategy, burst: usize, rounds: usize) -> Option<Vec<Call>> {
    traced(|marks| {
        let listener = net::listen();
        let address = listener.local_addr().unwrap();
        let mut engine = engines::boxed(who, strategy, burst, listener);
        bursts(marks, &mut *engine, || net::connect(&address), burst, rounds);
    })
}

fn traced(play: impl FnOnce(Marks)) -> Option<Vec<Call>> {
    trace::of_child(play).inspect_err(|why| eprintln!("SKIPPED: no system call can be counted: {why}")).ok()
}

fn bursts<C>(marks: Marks, engine: &mut dyn Engine, connect: impl Fn() -> C, burst: usize, rounds: usize) {
    let warm_up = if burst == 1 { 120 } else { 8 };
    for round in 0..warm_up + rounds {
        let clients: Vec<C> = (0..burst).map(|_| connect()).collect();
        let mut turn = || {
            engine.take(burst);
            engine.close();
        };
        if round < warm_up {
            turn();
        } else {
            marks.around(turn);
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
    fn of(calls: &[Call]) -> Self {
        let mut counts = BTreeMap::new();
        for call in calls {
            *counts.entry(name(call.number)).or_insert(0) += 1;
        }
        let mut take = |name: &str| counts.remove(name).unwrap_or(0);
        let found = Self {
            wait: take("epoll_wait"),
            ctl: take("epoll_ctl"),
            count: take("getsockopt"),
            look: take("poll"),
            accept: take("accept4"),
            empty: calls.iter().filter(|call| name(call.number) == "accept4" && call.answer < 0).count(),
            close: take("close"),
        };
        // In a debug build std asks whether a descriptor is open before it closes it.
        if cfg!(debug_assertions) && counts.get("fcntl") == Some(&found.close) {
            counts.remove("fcntl");
        }
        assert!(counts.is_empty(), "calls that nobody expects: {counts:?}");
        found
    }
}

/// The function whose call it is; architectures differ in what is a system call of its own.
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
        let Self { wait, ctl, count, look, accept, empty, close } = self;
        write!(
            f,
            "wait {wait} ctl {ctl} count {count} look {look} accept {accept} empty {empty} close {close}"
        )
    }
}
