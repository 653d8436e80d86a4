//! `accept4` fails with every errno, at every call in turn.

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::socket::{Errno, ErrnoClass};
use epoll_acceptor::{Acceptor, ListenerClosed, State, Trigger};

use crate::faults::interpose::{Call, Cost, Plan, plan};
use crate::support::{
    Any, AnySocket, Client, EMPTY_CHECKS, Kind, LONG, Owner, Read, TRIGGERS, accept_on, assert_balanced,
    done_in_child, open_descriptors, serve,
};

const CONSUMED: [i32; 9] = [
    libc::ECONNABORTED,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ETIMEDOUT,
];
const FATAL: [i32; 4] = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP];
/// The errors of accept(2), including its "may also be returned", and some undocumented ones.
const RESOURCE: [i32; 13] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::EPERM,
    libc::EFAULT,
    libc::ENOSR,
    libc::ESOCKTNOSUPPORT,
    libc::EPROTONOSUPPORT,
    libc::EACCES,
    libc::ENOSYS,
    512, // ERESTARTSYS, which the kernel never returns to user space.
    12_345,
];
/// Errors that change nothing: the next call can succeed.
const TRANSIENT: [i32; 2] = [libc::EAGAIN, libc::EINTR];

const KINDS: [Kind; 2] = [Kind::Tcp4, Kind::UnixStream];
const BURST: usize = 3;

struct Setup {
    owner: Owner,
    acceptor: Any,
    clients: Vec<Client>,
    closed: Option<ListenerClosed>,
}

impl Setup {
    /// Queues a burst and makes the acceptor's calls fail by `plans`.
    fn new(kind: Kind, trigger: Trigger, check: Option<EmptyCheck>, plans: [Option<Plan>; 2]) -> Self {
        let (listener, endpoint) = kind.listen();
        let owner = Owner::new();
        let acceptor = accept_on(&owner, listener, trigger, check);
        let clients = endpoint.connect_many(BURST);
        plan(plans);
        Self { owner, acceptor, clients, closed: None }
    }

    /// Runs a pass per event until `dequeued` connections have left the queue.
    fn run(&mut self, dequeued: usize) {
        self.run_within(dequeued, 30);
    }

    fn run_within(&mut self, dequeued: usize, max_wakes: u64) {
        let begin = std::time::Instant::now();
        let wakes = self.owner.wakes;
        while self.closed.is_none() && self.dequeued() < dequeued {
            assert!(begin.elapsed() < LONG, "{} dequeued: {}", self.dequeued(), self.acceptor.counters());
            for _ in 0..self.owner.wait(std::time::Duration::from_millis(5)) {
                for connection in self.acceptor.ready() {
                    match connection {
                        Ok(connection) => serve(&connection),
                        Err(closed) => assert_eq!(self.closed.replace(closed), None, "reported once"),
                    }
                }
            }
        }
        let wakes = self.owner.wakes - wakes;
        assert!(wakes < max_wakes, "{wakes} wakes: {}", self.acceptor.counters());
        plan([None; 2]);
        if self.closed.is_none() {
            self.owner.settle(&mut self.acceptor);
            assert_eq!(self.acceptor.state(), State::Listening);
        }
        assert_balanced(&self.acceptor);
    }

    /// Returns the number of connections that have left the queue.
    fn dequeued(&self) -> usize {
        let counters = self.acceptor.counters();
        usize::try_from(counters.delivered).unwrap() + self.lost()
    }

    fn lost(&self) -> usize {
        self.clients
            .iter()
            .filter(|client| {
                client.0.set_nonblocking(true).unwrap();
                let mut byte = [std::mem::MaybeUninit::uninit(); 1];
                let end = matches!(client.0.peek(&mut byte), Ok(0));
                client.0.set_nonblocking(false).unwrap();
                end
            })
            .count()
    }

    fn assert_served(&self, lost: usize) {
        let seen: Vec<_> = self.clients.iter().map(|client| client.read_within(LONG)).collect();
        assert_eq!(seen.iter().filter(|read| **read == Read::Served).count(), BURST - lost, "{seen:?}");
        assert_eq!(seen.iter().filter(|read| **read == Read::End).count(), lost, "{seen:?}");
    }
}

/// Runs a test for every kind, trigger and empty check, and asserts that it leaks no descriptor.
fn each(checks: &[Option<EmptyCheck>], test: impl Fn(Kind, Trigger, Option<EmptyCheck>)) {
    let before = open_descriptors();
    for kind in KINDS {
        for trigger in TRIGGERS {
            for check in checks {
                test(kind, trigger, *check);
            }
        }
    }
    assert_eq!(open_descriptors(), before);
}

fn class(errno: i32) -> ErrnoClass {
    Errno::new(errno).class()
}

#[test]
fn consumed_errno_loses_only_its_connection() {
    if done_in_child("faults::accept4::consumed_errno_loses_only_its_connection") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for errno in CONSUMED {
            assert_eq!(class(errno), ErrnoClass::Consumed);
            for nth in 1..=3 {
                let cost = Cost::OneConnection;
                let plan = Plan { call: Call::Accept, nth, times: 1, errno, cost };
                let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(1);
                let counters = case.acceptor.counters();
                assert_eq!(counters.aborted, 1);
                // The acceptor counts the lost connection and does not call accept4 for it.
                assert!(counters.empty == 0 || check == Some(EmptyCheck::UntilEagain), "{counters}");
            }
        }
    });
}

#[test]
fn consumed_errno_without_loss_strands_nothing() {
    if done_in_child("faults::accept4::consumed_errno_without_loss_strands_nothing") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for errno in CONSUMED {
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(0);
            }
        }
    });
}

#[test]
fn eagain_and_eintr_strand_nothing() {
    if done_in_child("faults::accept4::eagain_and_eintr_strand_nothing") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for errno in TRANSIENT {
            for nth in 1..=3 {
                for times in [1, 2] {
                    let cost = Cost::Nothing;
                    let plan = Plan { call: Call::Accept, nth, times, errno, cost };
                    let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
                    case.run(BURST);
                    case.assert_served(0);
                    let counters = case.acceptor.counters();
                    assert_eq!(
                        if errno == libc::EINTR {
                            counters.interrupted
                        } else {
                            counters.empty.min(times.into())
                        },
                        u64::from(times)
                    );
                }
            }
        }
    });
}

#[test]
fn eintr_counts_against_the_budget() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = Trigger::Edge
        .on(AnySocket(listener))
        .budget(10)
        .register(&owner.epoll, crate::support::LISTENER)
        .unwrap();
    let client = endpoint.connect();
    let (errno, cost) = (libc::EINTR, Cost::Nothing);
    plan([Some(Plan { call: Call::Accept, nth: 1, times: 45, errno, cost }), None]);
    for pass in 1..=4 {
        assert_eq!(owner.wait(LONG), 1);
        assert_eq!(acceptor.ready().count(), 0);
        assert_eq!(acceptor.counters().interrupted, 10 * pass);
    }
    owner.serve(&mut acceptor, 1);
    client.assert_served();
    assert_eq!(acceptor.counters().interrupted, 45);
}

#[test]
fn repeated_retry_errors_end_in_backoff() {
    if done_in_child("faults::accept4::repeated_retry_errors_end_in_backoff") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for errno in [libc::EINTR, libc::ECONNABORTED] {
            let cost = Cost::Nothing;
            let plan = Plan { call: Call::Accept, nth: 2, times: 250, errno, cost };
            let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
            case.run_within(BURST, 280);
            case.assert_served(0);
            assert!(case.acceptor.counters().rearms >= 3, "no back-off: {}", case.acceptor.counters());
        }
    });
}

#[test]
fn resource_errno_backs_off_and_strands_nothing() {
    if done_in_child("faults::accept4::resource_errno_backs_off_and_strands_nothing") {
        return;
    }
    each(&[None, Some(EmptyCheck::UntilEagain), Some(EmptyCheck::Poll)], |kind, trigger, check| {
        for errno in RESOURCE {
            assert_eq!(class(errno), ErrnoClass::Resource);
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(0);
                assert_eq!(case.acceptor.counters().exhausted, 1);
            }
        }
    });
}

#[test]
fn resource_exhaustion_retries_once_per_timer() {
    if done_in_child("faults::accept4::resource_exhaustion_retries_once_per_timer") {
        return;
    }
    each(&[None], |kind, trigger, check| {
        for errno in [libc::ENFILE, libc::ENOBUFS] {
            let cost = Cost::Nothing;
            let plan = Plan { call: Call::Accept, nth: 2, times: 5, errno, cost };
            let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
            case.run(BURST);
            case.assert_served(0);
            assert_eq!(case.acceptor.counters().exhausted, 5);
        }
    });
}

#[test]
fn fatal_errno_is_reported_once_and_keeps_the_queue() {
    if done_in_child("faults::accept4::fatal_errno_is_reported_once_and_keeps_the_queue") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for errno in FATAL {
            assert_eq!(class(errno), ErrnoClass::Fatal);
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, check, [Some(plan), None]);
                case.run(BURST);
                let closed = case.closed.expect("the error is reported");
                assert_eq!(closed.errno(), Some(Errno::new(errno)));
                assert!(closed.to_string().contains(&format!("{:?}", Errno::new(errno))), "{closed}");
                assert_eq!(case.acceptor.state(), State::Closed);
                case.owner.settle(&mut case.acceptor);
                let before = usize::try_from(case.acceptor.counters().delivered).unwrap();
                assert_eq!(before + 1, usize::try_from(nth).unwrap());
                // The plan injected the error: the listener itself still works.
                let listener = case.acceptor.into_listener().0;
                let mut next = accept_on(&case.owner, listener, trigger, check);
                case.owner.serve(&mut next, BURST - before);
                for client in &case.clients {
                    client.assert_served();
                }
            }
        }
    });
}

#[test]
fn emfile_then_failing_mod_strands_nothing() {
    if done_in_child("faults::accept4::emfile_then_failing_mod_strands_nothing") {
        return;
    }
    each(&[None], |kind, trigger, check| {
        for errno in [libc::ENOMEM, libc::ENOENT, libc::EBADF] {
            for nth in 1..=2 {
                for nth_modify in 1..=4 {
                    let plans = [
                        Some(Plan::once(Call::Accept, nth, libc::EMFILE)),
                        Some(Plan::once(Call::Modify, nth_modify, errno)),
                    ];
                    let mut case = Setup::new(kind, trigger, check, plans);
                    case.run(BURST);
                    case.assert_served(0);
                }
            }
        }
    });
}

#[test]
fn failing_empty_check_strands_nothing() {
    if done_in_child("faults::accept4::failing_empty_check_strands_nothing") {
        return;
    }
    each(&EMPTY_CHECKS, |kind, trigger, check| {
        for call in [Call::Poll, Call::Getsockopt] {
            for errno in [libc::ENOMEM, libc::EINTR, libc::ENOBUFS] {
                for nth in 1..=3 {
                    let plans = [Some(Plan::once(call, nth, errno)), None];
                    let mut case = Setup::new(kind, trigger, check, plans);
                    case.run(BURST);
                    case.assert_served(0);
                }
            }
        }
    });
}
