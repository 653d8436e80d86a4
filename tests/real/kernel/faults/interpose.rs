//! Interposed libc functions: they count their calls and fail by plan; unplanned calls go to the kernel. Plans and
//! counts are thread-local.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};

/// An interposed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Accept,
    Add,
    Modify,
    Delete,
    Wait,
    Poll,
    Getsockopt,
    SetTimer,
}

const CALLS: usize = 8;

/// The effect of a planned accept failure on the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// The queue is unchanged.
    Nothing,
    /// The oldest connection is lost.
    OneConnection,
}

/// `times` calls fail with this errno, from the n-th call on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) call: Call,
    pub(crate) nth: u32,
    pub(crate) times: u32,
    pub(crate) errno: c_int,
    pub(crate) cost: Cost,
}

impl Plan {
    pub(crate) const fn once(call: Call, nth: u32, errno: c_int) -> Self {
        Self { call, nth, times: 1, errno, cost: Cost::Nothing }
    }
}

thread_local! {
    static BLANK_TCP_INFO: Cell<bool> = const { Cell::new(false) };
    static FROZEN: Cell<Option<libc::timespec>> = const { Cell::new(None) };
    static PLANS: Cell<[Option<Plan>; 2]> = const { Cell::new([None; 2]) };
    static COUNTS: Cell<[u64; CALLS]> = const { Cell::new([0; CALLS]) };
}

/// Sets the plans of this thread; `None` plans no failure.
pub(crate) fn plan(plans: [Option<Plan>; 2]) {
    PLANS.set(plans);
}

/// Returns the number of planned failures that have not happened yet.
pub(crate) fn outstanding() -> u32 {
    PLANS.get().iter().flatten().map(|plan| plan.times).sum()
}

/// Returns the number of these calls by this thread.
pub(crate) fn count(call: Call) -> u64 {
    COUNTS.get()[call as usize]
}

/// Stops the monotonic clock of this thread, or starts it again. The kernel's timers are not affected.
pub(crate) fn freeze_clock(frozen: bool) {
    FROZEN.set(None);
    if frozen {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime(2) writes `now`, which is live.
        assert_eq!(unsafe { clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) }, 0);
        FROZEN.set(Some(now));
    }
}

/// Has `TCP_INFO` report to this thread what gVisor fills in: the state, and of connections the retransmission timeout,
/// the round-trip time and the congestion window.
pub(crate) fn blank_tcp_info(blank: bool) {
    BLANK_TCP_INFO.set(blank);
}

/// Blanks a `struct tcp_info`.
fn blank(info: &mut [u8]) {
    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTEN: u8 = 10;
    let is_listener = info.first() == Some(&LISTEN);
    for (at, byte) in info.iter_mut().enumerate().skip(1) {
        // tcpi_rto; tcpi_rtt, tcpi_rttvar, tcpi_snd_ssthresh and tcpi_snd_cwnd.
        if is_listener || !matches!(at, 8..12 | 68..84) {
            *byte = 0;
        }
    }
}

/// Counts a call and returns its plan if it must fail.
fn enter(call: Call) -> Option<Plan> {
    let mut counts = COUNTS.get();
    counts[call as usize] += 1;
    COUNTS.set(counts);
    let mut plans = PLANS.get();
    let mut failing = None;
    for plan in plans.iter_mut().flatten().filter(|plan| plan.call == call && plan.times > 0) {
        plan.nth = plan.nth.saturating_sub(1);
        if plan.nth == 0 && failing.is_none() {
            plan.times -= 1;
            failing = Some(*plan);
        }
    }
    PLANS.set(plans);
    failing
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: errno(3): a thread-local `int` that may be assigned.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Converts the result of `syscall` to the C int of the wrapped call.
fn int(result: c_long) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}

// The signatures are those of libc, the callers satisfy the contracts of libc, and the arguments go to the kernel
// unchanged. Each symbol is defined only here.

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments satisfy the contract of the system call.
    let accept = || int(unsafe { libc::syscall(libc::SYS_accept4, fd, address, length, flags) });
    match enter(Call::Accept) {
        Some(Plan { errno, cost: Cost::Nothing, .. }) => fail(errno),
        Some(Plan { errno, cost: Cost::OneConnection, .. }) => match accept() {
            -1 => -1,
            lost => {
                // SAFETY: the descriptor is new and has no other owner.
                unsafe { libc::close(lost) };
                fail(errno)
            }
        },
        None => accept(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    let call = match operation {
        libc::EPOLL_CTL_ADD => Call::Add,
        libc::EPOLL_CTL_MOD => Call::Modify,
        _ => Call::Delete,
    };
    match enter(call) {
        Some(plan) => fail(plan.errno),
        // SAFETY: the caller's arguments satisfy the contract of the system call.
        None => int(unsafe { libc::syscall(libc::SYS_epoll_ctl, epoll, operation, fd, event) }),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    let no_mask = std::ptr::null::<c_void>();
    match enter(Call::Wait) {
        Some(plan) => fail(plan.errno),
        // Not every architecture has an epoll_wait system call.
        None => int(
            // SAFETY: the caller's arguments, and no mask.
            unsafe {
                libc::syscall(libc::SYS_epoll_pwait, epoll, events, maxevents, timeout, no_mask, 8_usize)
            },
        ),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    let time = libc::timespec {
        tv_sec: libc::time_t::from(timeout / 1000),
        tv_nsec: c_long::from(timeout % 1000) * 1_000_000,
    };
    let time = if timeout < 0 { std::ptr::null() } else { &raw const time };
    let no_mask = std::ptr::null::<c_void>();
    match enter(Call::Poll) {
        Some(plan) => fail(plan.errno),
        // SAFETY: the caller's arguments, and no mask; the time lives until the call returns.
        None => int(unsafe { libc::syscall(libc::SYS_ppoll, fds, count, time, no_mask, 8_usize) }),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: *mut libc::socklen_t,
) -> c_int {
    match enter(Call::Getsockopt) {
        Some(plan) => fail(plan.errno),
        None => {
            // SAFETY: the caller's arguments satisfy the contract of the system call.
            let result =
                int(unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, value, length) });
            if result == 0 && (level, option) == (libc::IPPROTO_TCP, libc::TCP_INFO) && BLANK_TCP_INFO.get() {
                // SAFETY: the kernel has written `*length` bytes to `value`.
                blank(unsafe { std::slice::from_raw_parts_mut(value.cast(), *length as usize) });
            }
            result
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn timerfd_settime(
    fd: c_int,
    flags: c_int,
    new: *const libc::itimerspec,
    old: *mut libc::itimerspec,
) -> c_int {
    match enter(Call::SetTimer) {
        Some(plan) => fail(plan.errno),
        // SAFETY: the caller's arguments satisfy the contract of the system call.
        None => int(unsafe { libc::syscall(libc::SYS_timerfd_settime, fd, flags, new, old) }),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    match FROZEN.get() {
        Some(frozen) if clock == libc::CLOCK_MONOTONIC => {
            // SAFETY: the caller passes a pointer to a live `timespec`.
            unsafe { *time = frozen };
            0
        }
        // SAFETY: the caller's arguments satisfy the contract of the system call.
        _ => int(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) }),
    }
}

#[test]
fn interposed_functions_are_called_by_the_library() {
    let (socket, endpoint) = crate::support::Kind::Tcp4.listen();
    let mut owner = crate::support::Owner::new();
    let mut acceptor = crate::support::accept_on(&owner, socket, epoll_acceptor::Trigger::Edge, None);
    let _client = endpoint.connect();
    owner.serve(&mut acceptor, 1);
    for call in [Call::Accept, Call::Add, Call::Modify, Call::Wait, Call::Getsockopt] {
        assert!(count(call) > 0, "{call:?}");
    }
    drop(acceptor.into_listener());
    assert!(count(Call::Delete) > 0);
}
