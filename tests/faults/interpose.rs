//! libc's functions, defined anew: they count their calls, and fail by plan. What is not planned goes to the
//! kernel. Plans and counts belong to a thread.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};

/// The calls that are intercepted.
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

/// How a planned accept fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// The queue stays as it was.
    Nothing,
    /// The oldest connection is gone.
    OneConnection,
}

/// The n-th call from now fails with this errno, and the ones after it, `times` in all.
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
    static PLANS: Cell<[Option<Plan>; 2]> = const { Cell::new([None; 2]) };
    static COUNTS: Cell<[u64; CALLS]> = const { Cell::new([0; CALLS]) };
}

/// From now on this thread's calls fail by these plans; `None` is no failure.
pub(crate) fn plan(plans: [Option<Plan>; 2]) {
    PLANS.set(plans);
}

/// How many failures of the plans are still to come.
pub(crate) fn outstanding() -> u32 {
    PLANS.get().iter().flatten().map(|plan| plan.times).sum()
}

/// How often this thread has made this call.
pub(crate) fn count(call: Call) -> u64 {
    COUNTS.get()[call as usize]
}

/// Counts a call, and tells whether it is to fail, and how.
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
    // SAFETY: errno(3): a thread's own `int`, which may be assigned.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// What `syscall` returns, as the C int that the call returns.
fn int(answer: c_long) -> c_int {
    c_int::try_from(answer).unwrap_or(-1)
}

// The signatures are those of libc, whose contracts the callers keep, and the arguments go to the kernel as
// they came. The symbols are defined once, here.

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments are those that the system call asks for.
    let accept = || int(unsafe { libc::syscall(libc::SYS_accept4, fd, address, length, flags) });
    match enter(Call::Accept) {
        Some(Plan { errno, cost: Cost::Nothing, .. }) => fail(errno),
        Some(Plan { errno, cost: Cost::OneConnection, .. }) => match accept() {
            -1 => -1,
            lost => {
                // SAFETY: the descriptor is new, and nobody else's.
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
        // SAFETY: the caller's arguments are those that the system call asks for.
        None => int(unsafe { libc::syscall(libc::SYS_epoll_ctl, epoll, operation, fd, event) }),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    let no_mask = std::ptr::null::<c_void>();
    match enter(Call::Wait) {
        Some(plan) => fail(plan.errno),
        // Not every architecture has epoll_wait itself.
        None => int(
            // SAFETY: the caller's arguments, and no mask.
            unsafe { libc::syscall(libc::SYS_epoll_pwait, epoll, events, most, timeout, no_mask, 8_usize) },
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
        // SAFETY: the caller's arguments are those that the system call asks for.
        None => int(unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, option, value, length) }),
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
        // SAFETY: the caller's arguments are those that the system call asks for.
        None => int(unsafe { libc::syscall(libc::SYS_timerfd_settime, fd, flags, new, old) }),
    }
}

#[test]
fn the_library_calls_what_is_defined_here() {
    let (socket, door) = crate::support::Kind::Tcp4.listen();
    let mut owner = crate::support::Owner::new();
    let mut acceptor = crate::support::accept_on(&owner, socket, epoll_acceptor::Trigger::Edge, None);
    let _client = door.connect();
    owner.serve(&mut acceptor, 1);
    for call in [Call::Accept, Call::Add, Call::Modify, Call::Wait, Call::Getsockopt] {
        assert!(count(call) > 0, "{call:?}");
    }
    drop(acceptor.into_listener());
    assert!(count(Call::Delete) > 0);
}
