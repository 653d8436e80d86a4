//! The gate, one operation at a time: who is rung for what, and what its one word holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::admission::Ring;
use epoll_acceptor::admission::bell::Bell;
use epoll_acceptor::{Admission, Gate, Line, Permit, Refusal, Reserve, Unlimited, Until, WhenFull};

/// An owner whose rings are counted.
struct Owner {
    bell: Arc<Bell>,
    rings: Arc<AtomicU32>,
}

struct Counted(Arc<AtomicU32>);

impl Ring for Counted {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Owner {
    fn new() -> Self {
        let rings = Arc::<AtomicU32>::default();
        Self { bell: Arc::new(Bell::new(Box::new(Counted(Arc::clone(&rings))))), rings }
    }

    fn standing(gate: &Gate, until: Until) -> Self {
        let owner = Self::new();
        assert_eq!(gate.stand(&owner.bell, until), Line::Standing);
        owner
    }

    /// How often it was rung since this was last asked.
    fn rings(&self) -> u32 {
        self.rings.swap(0, Ordering::SeqCst)
    }
}

fn reserved(gate: &Gate) -> Permit {
    match gate.reserve() {
        Reserve::Room(permit) => permit,
        other => panic!("there is room, and the answer is {other:?}"),
    }
}

#[test]
fn a_place_that_comes_back_rings_everyone_in_line_once() {
    let gate = Gate::new(1);
    let permit = reserved(&gate);
    let owners = [Until::Room, Until::Release, Until::Room].map(|until| Owner::standing(&gate, until));
    drop(permit);
    assert_eq!(owners.each_ref().map(Owner::rings), [1, 1, 1], "P11");
    drop(reserved(&gate));
    assert_eq!(owners.each_ref().map(Owner::rings), [0, 0, 0], "P2: they stand in line no more");
}

#[test]
fn a_reservation_that_comes_to_nothing_rings_those_who_wait_for_room() {
    let gate = Gate::new(1);
    let reservation = reserved(&gate);
    let [room, release] = [Until::Room, Until::Release].map(|until| Owner::standing(&gate, until));
    gate.cancel(reservation);
    assert_eq!((room.rings(), release.rings()), (1, 0), "P2: it frees no descriptor");
    drop(reserved(&gate));
    assert_eq!((room.rings(), release.rings()), (0, 1), "P11: who was not rung stands in line still");
}

#[test]
fn without_room_nobody_is_rung() {
    let gate = Gate::new(2);
    let (one, two) = (reserved(&gate), reserved(&gate));
    let owner = Owner::standing(&gate, Until::Room);
    gate.set_limit(1);
    assert_eq!(owner.rings(), 0, "P2: the limit was lowered");
    drop(one);
    assert_eq!(owner.rings(), 0, "P2: as many are in as the limit");
    gate.set_limit(0);
    drop(two);
    assert_eq!(owner.rings(), 0, "P2: the gate is closed");
    gate.set_limit(1);
    assert_eq!(owner.rings(), 1, "P11: the limit was raised");
}

#[test]
fn who_finds_room_when_standing_does_not_stand() {
    let gate = Gate::new(1);
    let owner = Owner::new();
    assert_eq!(gate.stand(&owner.bell, Until::Room), Line::Room);
    assert_eq!(gate.stand(&owner.bell, Until::Release), Line::Standing, "it waits for anything given back");
    let permit = reserved(&gate);
    assert_eq!(gate.stand(&owner.bell, Until::Room), Line::Standing);
    gate.leave(&owner.bell);
    drop(permit);
    assert_eq!(owner.rings(), 0, "it has left");
    let bell = &owner.bell;
    assert_eq!(Unlimited.stand(bell, Until::Room), Line::Room, "there is always room");
    assert_eq!(Unlimited.stand(bell, Until::Release), Line::Standing);
}

#[test]
fn standing_twice_is_standing_once() {
    let gate = Gate::new(1);
    let permit = reserved(&gate);
    let (owner, other) = (Owner::standing(&gate, Until::Release), Owner::standing(&gate, Until::Room));
    assert_eq!(gate.stand(&owner.bell, Until::Room), Line::Standing);
    gate.cancel(permit);
    assert_eq!((owner.rings(), other.rings()), (1, 1), "as it stood last");
}

/// The number of places, the limit and the two kinds of sleepers share a word.
#[test]
fn sleepers_change_neither_the_limit_nor_the_count() {
    for limit in [0, 1, 2, 3, 64, 1 << 29, Gate::LIMIT_MAX] {
        let gate = Gate::new(limit);
        let permits: Vec<_> = (0..2).filter_map(|_| gate.try_acquire()).collect();
        let count = u32::try_from(permits.len()).unwrap();
        let owner = Owner::standing(&gate, Until::Release);
        assert_eq!(gate.wait_idle(Some(Duration::ZERO)), count == 0);
        assert_eq!((gate.limit(), gate.in_use()), (limit, count), "P3");
        gate.set_limit(limit / 2);
        assert_eq!((gate.limit(), gate.in_use()), (limit / 2, count), "P3");
        gate.leave(&owner.bell);
        drop(permits);
        assert_eq!((gate.limit(), gate.in_use()), (limit / 2, 0), "P4");
    }
}

#[test]
fn the_highest_limit_is_as_documented() {
    assert_eq!(Gate::LIMIT_MAX, 1_073_741_823);
    assert_eq!(Gate::new(u32::MAX).limit(), Gate::LIMIT_MAX);
}

#[test]
fn who_waits_until_all_have_left_is_woken_whoever_joins_or_leaves_the_line_meanwhile() {
    for limit in [0, 1, 2] {
        let gate = Gate::new(1);
        let permit = reserved(&gate);
        gate.set_limit(limit);
        let waiter = {
            let gate = gate.clone();
            thread::spawn(move || gate.wait_idle(None))
        };
        // That it waits by now nothing tells; so again and again.
        for _ in 0..50 {
            let owner = Owner::standing(&gate, Until::Release);
            gate.leave(&owner.bell);
            thread::sleep(Duration::from_millis(1));
        }
        drop(permit);
        let begun = Instant::now();
        while !waiter.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(20), "all have left, and it waits: limit {limit}");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(waiter.join().unwrap());
    }
}

#[test]
fn a_gate_that_refuses_never_waits() {
    let gate = Gate::new(0);
    assert!(!gate.never_waits() && matches!(gate.reserve(), Reserve::Full));
    let gate = gate.when_full(WhenFull::Shed(Refusal::Reset));
    assert!(gate.never_waits() && matches!(gate.reserve(), Reserve::Shed(Refusal::Reset)));
    assert!(!Unlimited.never_waits() && matches!(Unlimited.reserve(), Reserve::Room(())));
}
