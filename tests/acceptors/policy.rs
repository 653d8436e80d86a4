//! A user's own policy that panics: the owner catches it, and nobody is stranded.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::{Acceptor, Admission, AnyListener, Gate, Line, Permit, Reserve, State, Until};

use crate::support::{
    Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT, TRIGGERS, assert_all_served, done_in_child,
    serve,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Reserve,
    Cancel,
    Stand,
    Leave,
}

/// A gate that panics at the n-th call of one kind, before or after its work.
#[derive(Clone)]
struct Fussy {
    gate: Gate,
    call: Call,
    after: bool,
    countdown: Arc<AtomicU32>,
}

impl Fussy {
    fn at<T>(&self, call: Call, work: impl FnOnce() -> T) -> T {
        let now = call == self.call && self.countdown.fetch_sub(1, Ordering::Relaxed) == 1;
        if now && !self.after {
            resume_unwind(Box::new("fussy"));
        }
        let done = work();
        if now && self.after {
            resume_unwind(Box::new("fussy"));
        }
        done
    }
}

impl Admission for Fussy {
    type Permit = Permit;

    fn reserve(&self) -> Reserve<Permit> {
        self.at(Call::Reserve, || self.gate.reserve())
    }

    fn cancel(&self, permit: Permit) {
        self.at(Call::Cancel, || self.gate.cancel(permit));
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.at(Call::Stand, || self.gate.stand(bell, until))
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        self.at(Call::Leave, || self.gate.leave(bell))
    }
}

/// Serves six behind a gate for two that panics at one call; whoever is in leaves when nothing happens.
fn run(kind: Kind, trigger: epoll_acceptor::Trigger, call: Call, nth: u32, after: bool, starved: bool) {
    let gate = Gate::new(2);
    let policy = Fussy { gate: gate.clone(), call, after, countdown: Arc::new(AtomicU32::new(nth)) };
    let (listener, door) = kind.listen();
    let mut owner = Owner::new();
    let mut acceptor =
        trigger.on(AnyListener(listener)).admission(policy).register(&owner.epoll, LISTENER).unwrap();
    let clients = door.connect_many(6);
    let mut none = starved.then(NoDescriptors::now);
    let kept = Mutex::new(Vec::new());
    let mut served = 0;
    let begin = Instant::now();
    while served < 6 {
        assert!(
            begin.elapsed() < LONG / 6,
            "{kind:?} {trigger:?} {call:?} {nth} after {after}: {served} of 6, {:?} {}",
            acceptor.state(),
            acceptor.counters()
        );
        let due = owner.wait(SHORT / 2);
        for _ in 0..due {
            let pass = AssertUnwindSafe(|| {
                for connection in acceptor.ready() {
                    let connection = connection.unwrap();
                    serve(&connection);
                    served += 1;
                    kept.lock().unwrap().push(connection);
                }
            });
            let _ = catch_unwind(pass);
        }
        if due == 0 {
            none = None;
            let leaves: Vec<_> = kept.lock().unwrap().drain(..).collect();
            drop(leaves);
        }
    }
    drop(none);
    assert_all_served(&clients);
    kept.lock().unwrap().clear();
    assert!(gate.wait_idle(Some(Duration::ZERO)), "a permit was lost: {gate:?}");
    for _ in 0..20 {
        if owner.wait(SHORT / 2) == 0 {
            break;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| acceptor.drain(drop)));
    }
    assert_eq!(acceptor.state(), State::Listening);
}

#[test]
fn a_policy_that_panics_at_any_call_strands_nobody() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for call in [Call::Reserve, Call::Stand, Call::Leave] {
                for nth in 1..=3 {
                    for after in [false, true] {
                        run(kind, trigger, call, nth, after, false);
                    }
                }
            }
        }
    }
}

#[test]
fn a_policy_that_panics_at_any_call_out_of_descriptors_strands_nobody() {
    if done_in_child("policy::a_policy_that_panics_at_any_call_out_of_descriptors_strands_nobody") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            for call in [Call::Cancel, Call::Stand, Call::Leave] {
                for after in [false, true] {
                    run(kind, trigger, call, 1, after, true);
                }
            }
        }
    }
}

/// Never waits, and panics once when it is asked.
struct Abrupt(AtomicU32);

impl Admission for Abrupt {
    type Permit = ();

    fn reserve(&self) -> Reserve<()> {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            resume_unwind(Box::new("abrupt"));
        }
        Reserve::Room(())
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn cancel(&self, (): ()) {}

    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        if until == Until::Room { Line::Room } else { Line::Standing }
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<Self::Permit> {
        None
    }
}

#[test]
fn a_policy_that_never_waits_and_panics_loses_no_count() {
    for trigger in TRIGGERS {
        for nth in 1..=3 {
            let (listener, door) = Kind::Tcp4.listen();
            let mut owner = Owner::new();
            let policy = Abrupt(AtomicU32::new(nth));
            let mut acceptor =
                trigger.on(AnyListener(listener)).admission(policy).register(&owner.epoll, LISTENER).unwrap();
            let clients = door.connect_many(3);
            let (mut served, mut panicked) = (0, 0);
            while served + panicked < 3 {
                assert_eq!(owner.wait(LONG), 1, "{served} served");
                let pass = AssertUnwindSafe(|| {
                    for connection in acceptor.ready() {
                        serve(&connection.unwrap());
                        served += 1;
                    }
                });
                panicked += u32::from(catch_unwind(pass).is_err());
            }
            assert_eq!((served, panicked), (2, 1));
            // The one that it was asked about is closed.
            let seen: Vec<_> = clients.iter().map(|client| client.read_within(LONG)).collect();
            assert_eq!(seen.iter().filter(|read| **read == Read::End).count(), 1, "{seen:?}");
            assert!(acceptor.counters().is_balanced(), "{}", acceptor.counters());
        }
    }
}
