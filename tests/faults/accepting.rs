//! Every errno of accept(2), at every call in turn.

use epoll_acceptor::{Acceptor, EmptyCheck, Errno, ErrnoClass, ListenerClosed, State, Trigger};

use crate::interpose::{Call, Cost, Plan, plan};
use crate::support::{
    Any, Client, Kind, LONG, Owner, PROOFS, Read, TRIGGERS, accept_on, assert_balanced, done_in_child,
    open_descriptors, serve,
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
const DEAD: [i32; 4] = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP];
/// Those of accept(2), those that its "may also" names, and some that nobody has heard of.
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
    512, // ERESTARTSYS, which no program should ever see.
    12_345,
];
/// The queue is as it was, and the next call is as good.
const PASSING: [i32; 2] = [libc::EAGAIN, libc::EINTR];

const KINDS: [Kind; 2] = [Kind::Tcp4, Kind::UnixStream];
const BURST: usize = 3;

struct Setup {
    owner: Owner,
    acceptor: Any,
    clients: Vec<Client>,
    told: Option<ListenerClosed>,
}

impl Setup {
    /// A burst is queued, and the acceptor's calls fail by plan.
    fn new(kind: Kind, trigger: Trigger, proof: Option<EmptyCheck>, plans: [Option<Plan>; 2]) -> Self {
        let (listener, door) = kind.listen();
        let owner = Owner::new();
        let acceptor = accept_on(&owner, listener, trigger, proof);
        let clients = door.connect_many(BURST);
        plan(plans);
        Self { owner, acceptor, clients, told: None }
    }

    /// Passes, for events only, until nothing more is due, and so many are served.
    fn run(&mut self, served: usize) {
        self.run_within(served, 30);
    }

    fn run_within(&mut self, served: usize, most_wakes: u64) {
        let begin = std::time::Instant::now();
        let wakes = self.owner.wakes;
        while self.told.is_none() && self.gone() < served {
            assert!(begin.elapsed() < LONG, "{} gone: {}", self.gone(), self.acceptor.counters());
            for _ in 0..self.owner.wait(std::time::Duration::from_millis(5)) {
                for connection in self.acceptor.ready() {
                    match connection {
                        Ok(connection) => serve(&connection),
                        Err(dead) => assert_eq!(self.told.replace(dead), None, "told once"),
                    }
                }
            }
        }
        let wakes = self.owner.wakes - wakes;
        assert!(wakes < most_wakes, "{wakes} wakes: {}", self.acceptor.counters());
        plan([None; 2]);
        if self.told.is_none() {
            self.owner.settle(&mut self.acceptor);
            assert_eq!(self.acceptor.state(), State::Listening);
        }
        assert_balanced(&self.acceptor);
    }

    /// How many have left the queue.
    fn gone(&self) -> usize {
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

/// Every kind under every trigger and proof; afterwards nothing more is open than before.
fn each(proofs: &[Option<EmptyCheck>], check: impl Fn(Kind, Trigger, Option<EmptyCheck>)) {
    let before = open_descriptors();
    for kind in KINDS {
        for trigger in TRIGGERS {
            for proof in proofs {
                check(kind, trigger, *proof);
            }
        }
    }
    assert_eq!(open_descriptors(), before);
}

fn class(errno: i32) -> ErrnoClass {
    Errno::new(errno).class()
}

#[test]
fn an_errno_that_costs_a_connection_costs_no_other() {
    if done_in_child("accepting::an_errno_that_costs_a_connection_costs_no_other") {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for errno in CONSUMED {
            assert_eq!(class(errno), ErrnoClass::Consumed);
            for nth in 1..=3 {
                let cost = Cost::OneConnection;
                let plan = Plan { call: Call::Accept, nth, times: 1, errno, cost };
                let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(1);
                let counters = case.acceptor.counters();
                assert_eq!(counters.aborted, 1);
                // It is known to be gone, and not looked for.
                assert!(counters.empty == 0 || proof == Some(EmptyCheck::UntilEagain), "{counters}");
            }
        }
    });
}

#[test]
fn an_errno_that_should_have_cost_a_connection_and_did_not_strands_nobody() {
    if done_in_child("accepting::an_errno_that_should_have_cost_a_connection_and_did_not_strands_nobody") {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for errno in CONSUMED {
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(0);
            }
        }
    });
}

#[test]
fn an_errno_that_says_empty_or_interrupted_strands_nobody() {
    if done_in_child("accepting::an_errno_that_says_empty_or_interrupted_strands_nobody") {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for errno in PASSING {
            for nth in 1..=3 {
                for times in [1, 2] {
                    let cost = Cost::Nothing;
                    let plan = Plan { call: Call::Accept, nth, times, errno, cost };
                    let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
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
fn interruptions_count_against_the_budget() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = Trigger::Edge
        .on(epoll_acceptor::AnyListener(listener))
        .budget(10)
        .register(&owner.epoll, crate::support::LISTENER)
        .unwrap();
    let client = door.connect();
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
fn errors_that_say_go_on_for_ever_end_in_back_off_and_strand_nobody() {
    if done_in_child("accepting::errors_that_say_go_on_for_ever_end_in_back_off_and_strand_nobody") {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for errno in [libc::EINTR, libc::ECONNABORTED] {
            let cost = Cost::Nothing;
            let plan = Plan { call: Call::Accept, nth: 2, times: 250, errno, cost };
            let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
            case.run_within(BURST, 280);
            case.assert_served(0);
            assert!(case.acceptor.counters().rearms >= 3, "it slept: {}", case.acceptor.counters());
        }
    });
}

#[test]
fn an_errno_of_want_backs_off_and_strands_nobody() {
    if done_in_child("accepting::an_errno_of_want_backs_off_and_strands_nobody") {
        return;
    }
    each(&[None, Some(EmptyCheck::UntilEagain), Some(EmptyCheck::Poll)], |kind, trigger, proof| {
        for errno in RESOURCE {
            assert_eq!(class(errno), ErrnoClass::Resource);
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
                case.run(BURST);
                case.assert_served(0);
                assert_eq!(case.acceptor.counters().exhausted, 1);
            }
        }
    });
}

#[test]
fn lasting_want_costs_one_attempt_a_timer() {
    if done_in_child("accepting::lasting_want_costs_one_attempt_a_timer") {
        return;
    }
    each(&[None], |kind, trigger, proof| {
        for errno in [libc::ENFILE, libc::ENOBUFS] {
            let cost = Cost::Nothing;
            let plan = Plan { call: Call::Accept, nth: 2, times: 5, errno, cost };
            let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
            case.run(BURST);
            case.assert_served(0);
            assert_eq!(case.acceptor.counters().exhausted, 5);
        }
    });
}

#[test]
fn an_errno_of_a_dead_listener_is_told_once_and_the_queue_is_there_for_the_next() {
    if done_in_child(
        "accepting::an_errno_of_a_dead_listener_is_told_once_and_the_queue_is_there_for_the_next",
    ) {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for errno in DEAD {
            assert_eq!(class(errno), ErrnoClass::Fatal);
            for nth in 1..=3 {
                let plan = Plan::once(Call::Accept, nth, errno);
                let mut case = Setup::new(kind, trigger, proof, [Some(plan), None]);
                case.run(BURST);
                let dead = case.told.expect("told");
                assert_eq!(dead.errno(), Some(Errno::new(errno)));
                assert!(dead.to_string().contains(&format!("{:?}", Errno::new(errno))), "{dead}");
                assert_eq!(case.acceptor.state(), State::Closed);
                case.owner.settle(&mut case.acceptor);
                let before = usize::try_from(case.acceptor.counters().delivered).unwrap();
                assert_eq!(before + 1, usize::try_from(nth).unwrap());
                // It was the plan that killed it, so it listens still.
                let listener = case.acceptor.into_listener().0;
                let mut next = accept_on(&case.owner, listener, trigger, proof);
                case.owner.serve(&mut next, BURST - before);
                for client in &case.clients {
                    client.assert_served();
                }
            }
        }
    });
}

#[test]
fn want_and_then_a_failing_modification_strand_nobody() {
    if done_in_child("accepting::want_and_then_a_failing_modification_strand_nobody") {
        return;
    }
    each(&[None], |kind, trigger, proof| {
        for errno in [libc::ENOMEM, libc::ENOENT, libc::EBADF] {
            for nth in 1..=2 {
                for nth_modify in 1..=4 {
                    let plans = [
                        Some(Plan::once(Call::Accept, nth, libc::EMFILE)),
                        Some(Plan::once(Call::Modify, nth_modify, errno)),
                    ];
                    let mut case = Setup::new(kind, trigger, proof, plans);
                    case.run(BURST);
                    case.assert_served(0);
                }
            }
        }
    });
}

#[test]
fn a_look_that_fails_strands_nobody() {
    if done_in_child("accepting::a_look_that_fails_strands_nobody") {
        return;
    }
    each(&PROOFS, |kind, trigger, proof| {
        for call in [Call::Poll, Call::Getsockopt] {
            for errno in [libc::ENOMEM, libc::EINTR, libc::ENOBUFS] {
                for nth in 1..=3 {
                    let plans = [Some(Plan::once(call, nth, errno)), None];
                    let mut case = Setup::new(kind, trigger, proof, plans);
                    case.run(BURST);
                    case.assert_served(0);
                }
            }
        }
    });
}
