//! The gate, one operation at a time: who is rung for what, and what its one word holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::admission::Bell;
use epoll_acceptor::admission::Ring;
use epoll_acceptor::{
    Admission, Cause, Gate, Line, Permit, Refusal, Rejection, Reserve, Unlimited, Until, WhenFull,
};

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

/// The place that is kept for an owner, if its turn has come.
fn fetch(gate: &Gate, owner: &Owner) -> Option<Permit> {
    (gate.stand(&owner.bell, Until::Room) == Line::Turn).then(|| gate.leave(&owner.bell).unwrap())
}

#[test]
fn a_place_that_comes_back_is_kept_for_the_first_in_line() {
    let gate = Gate::new(1);
    let permit = reserved(&gate);
    let [first, second] = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
    let hopeful = Owner::standing(&gate, Until::Release);
    drop(permit);
    assert_eq!([&first, &second, &hopeful].map(Owner::rings), [1, 0, 1], "P11");
    assert!(gate.try_acquire().is_none(), "P11: nobody who is awake comes between");
    assert_eq!(gate.in_use(), 1, "P3: it is counted while it is kept");
    assert!(fetch(&gate, &second).is_none(), "and it keeps its turn");
    drop(fetch(&gate, &first).expect("its turn"));
    assert_eq!([&first, &second, &hopeful].map(Owner::rings), [0, 1, 0], "P11: in line, and once");
    drop(fetch(&gate, &second));
    assert_eq!(gate.in_use(), 0, "P4");
}

#[test]
fn whoever_leaves_with_a_place_hands_it_on() {
    let gate = Gate::new(1);
    let permit = reserved(&gate);
    let [first, second] = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
    drop(permit);
    let place = gate.leave(&first.bell).expect("a place was kept");
    gate.cancel(place);
    assert_eq!([&first, &second].map(Owner::rings), [1, 1], "P11");
    assert!(gate.leave(&first.bell).is_none(), "P4: once");
    assert!(fetch(&gate, &second).is_some());
}

#[test]
fn who_was_told_to_pause_or_to_stop_is_offered_nothing() {
    for command in [Bell::pause, Bell::stop] {
        let gate = Gate::new(1);
        let permit = reserved(&gate);
        let [first, second] = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
        command(&first.bell);
        drop(permit);
        assert_eq!(
            [&first, &second].map(Owner::rings),
            [1, 1],
            "P11: rung by the command, and for the place"
        );
        assert!(fetch(&gate, &second).is_some());
    }
}

#[test]
fn a_lower_limit_takes_back_what_was_not_fetched() {
    for leaves in [false, true] {
        let gate = Gate::new(1);
        let permit = reserved(&gate);
        let [first, second] = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
        drop(permit);
        gate.set_limit(0);
        assert_eq!(gate.in_use(), 0, "P4: at once, whether it comes to fetch it or not");
        assert!(gate.wait_idle(Some(Duration::ZERO)));
        if leaves {
            assert!(gate.leave(&first.bell).is_none(), "P3");
        } else {
            assert_eq!(gate.stand(&first.bell, Until::Room), Line::Standing, "P3");
        }
        gate.set_limit(1);
        assert_eq!(
            [&first, &second].map(Owner::rings),
            if leaves { [1, 1] } else { [2, 0] },
            "its turn is kept"
        );
    }
}

/// Of those that are kept the latest go, and only as many as have to.
#[test]
fn a_lower_limit_takes_back_as_many_as_are_above_it() {
    let gate = Gate::new(3);
    let permits = [(); 3].map(|()| reserved(&gate));
    let owners = [(); 3].map(|()| Owner::standing(&gate, Until::Room));
    drop(permits);
    gate.set_limit(1);
    assert_eq!(gate.in_use(), 1, "P3");
    let fetched = owners.each_ref().map(|owner| fetch(&gate, owner));
    assert_eq!(fetched.each_ref().map(Option::is_some), [true, false, false]);
    gate.set_limit(2);
    assert_eq!(owners.each_ref().map(Owner::rings), [1, 2, 1], "P11: they stood in line still");
}

#[test]
fn who_waits_until_all_have_left_does_not_wait_for_who_was_told_to_pause_or_to_stop() {
    for command in [Bell::pause, Bell::stop] {
        let gate = Gate::new(1);
        let permit = reserved(&gate);
        let [first, second] = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
        drop(permit);
        command(&first.bell);
        assert!(!gate.wait_idle(Some(Duration::ZERO)), "the next in line has not been told");
        assert_eq!(second.rings(), 1, "P11");
        command(&second.bell);
        assert!(gate.wait_idle(Some(Duration::ZERO)), "P4");
        assert!(gate.leave(&first.bell).is_none() && gate.leave(&second.bell).is_none());
        assert_eq!(gate.in_use(), 0, "P4: once");
    }
}

#[test]
fn who_waits_until_all_have_left_is_woken_by_a_place_that_is_taken_back() {
    let gate = Gate::new(1);
    let permit = reserved(&gate);
    let owner = Owner::standing(&gate, Until::Room);
    drop(permit);
    let waiter = {
        let gate = gate.clone();
        thread::spawn(move || {
            let begun = Instant::now();
            (gate.wait_idle(Some(Duration::from_secs(20))), begun.elapsed() < Duration::from_secs(10))
        })
    };
    thread::sleep(Duration::from_millis(20));
    gate.set_limit(0);
    assert_eq!(waiter.join().unwrap(), (true, true), "P4: woken, and not by its time");
    assert!(gate.leave(&owner.bell).is_none());
}

/// A ring that changes the limit: the places of those who have been called and not been rung yet are taken back.
#[test]
fn a_place_that_is_taken_back_before_its_ring_is_waited_for_again() {
    struct Lowers(Gate);
    impl Ring for Lowers {
        fn ring(&self) {
            self.0.set_limit(1);
        }
    }
    let gate = Gate::new(2);
    let permits = [reserved(&gate), reserved(&gate)];
    let first = Arc::new(Bell::new(Box::new(Lowers(gate.clone()))));
    assert_eq!(gate.stand(&first, Until::Room), Line::Standing);
    let second = Owner::standing(&gate, Until::Room);
    gate.set_limit(0);
    drop(permits);
    gate.set_limit(2);
    drop(gate.leave(&first).expect("its turn"));
    assert_eq!(second.rings(), 1, "P11: once it is its turn");
    assert!(fetch(&gate, &second).is_some());
}

#[test]
fn a_gate_with_a_low_water_mark_opens_when_it_is_crossed() {
    let gate = Gate::new(4).low_water(3);
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(permits.len(), 4, "P3");
    let owners = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
    permits.truncate(2);
    assert!(gate.try_acquire().is_none(), "two are free, and it opens at three");
    assert_eq!(owners.each_ref().map(Owner::rings), [0, 0], "P2");
    permits.truncate(1);
    assert_eq!(owners.each_ref().map(Owner::rings), [1, 1], "P11: the line first");
    permits.extend(std::iter::from_fn(|| gate.try_acquire()));
    permits.extend(owners.iter().filter_map(|owner| fetch(&gate, owner)));
    assert_eq!((permits.len(), gate.in_use()), (4, 4), "P3: and one for who is awake");
    permits.truncate(2);
    gate.set_limit(5);
    assert!(gate.try_acquire().is_some(), "P11: three are free, of five");
}

#[test]
fn a_limit_below_the_low_water_mark_opens_when_the_gate_is_empty() {
    let gate = Gate::new(2).low_water(10);
    let permits = [gate.try_acquire(), gate.try_acquire()];
    assert!(permits.iter().all(Option::is_some) && gate.try_acquire().is_none(), "P3");
    let owner = Owner::standing(&gate, Until::Room);
    drop(permits);
    assert_eq!(owner.rings(), 1, "P11");
}

#[test]
fn a_latch_that_has_fallen_stays_so_until_the_mark_is_crossed() {
    let gate = Gate::new(4).low_water(3);
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    gate.set_limit(4);
    permits.truncate(3);
    gate.set_limit(4);
    assert!(gate.try_acquire().is_none(), "one is free, and it opens at three");
    permits.truncate(1);
    assert!(gate.try_acquire().is_some(), "P11");
}

/// Whoever is refused after the accept, or has to wait for another policy, was never in.
#[test]
fn a_place_that_came_to_nothing_does_not_keep_the_gate_closed() {
    let gate = Gate::new(4).low_water(3);
    let mut permits: Vec<_> = (0..2).map(|_| reserved(&gate)).collect();
    let [denied, other] = [(); 2].map(|()| reserved(&gate));
    assert!(gate.try_acquire().is_none(), "P3");
    let owners = [(); 2].map(|()| Owner::standing(&gate, Until::Room));
    gate.cancel(denied);
    assert_eq!(owners.each_ref().map(Owner::rings), [1, 0], "P11: the first in line");
    permits.push(other);
    permits.push(fetch(&gate, &owners[0]).expect("its turn"));
    drop(permits.pop());
    assert_eq!(owners[1].rings(), 0, "and it closes again when it is full");
    permits.truncate(1);
    assert_eq!(owners[1].rings(), 1, "P11: the mark");
}

#[test]
fn a_gate_that_a_lower_limit_has_filled_stays_closed_when_a_place_comes_to_nothing() {
    let gate = Gate::new(4).low_water(3);
    let [denied, first, second] = [(); 3].map(|()| reserved(&gate));
    gate.set_limit(2);
    gate.cancel(denied);
    drop(first);
    assert!(gate.try_acquire().is_none(), "the two that are left had filled it");
    drop(second);
    assert!(gate.try_acquire().is_some(), "P11");
}

/// Whoever is privileged passes a closed latch, and that says nothing of those who do not.
#[test]
fn a_privileged_place_neither_closes_the_latch_nor_opens_it() {
    let gate = Gate::new(10).reserved(1).low_water(5);
    let admin = gate.clone().privileged();
    let mut permits: Vec<_> = (0..8).map(|_| reserved(&gate)).collect();
    let last = reserved(&admin);
    assert!(gate.try_acquire().is_none(), "P3: the last one is reserved");
    admin.cancel(last);
    permits.push(gate.try_acquire().expect("P11: it was never full of others"));
    permits.truncate(7);
    admin.cancel(reserved(&admin));
    assert!(gate.try_acquire().is_none(), "two are free, and it opens at five");
    permits.truncate(4);
    assert!(gate.try_acquire().is_some(), "P11");
}

#[test]
fn both_rules_hold_together() {
    let gate = Gate::new(4).reserved(1).low_water(2);
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!(permits.len(), 3, "P3: one is reserved");
    permits.truncate(2);
    assert!(gate.try_acquire().is_none(), "one of those that are not is free, and it opens at two");
    permits.truncate(1);
    assert!(gate.try_acquire().is_some(), "P11");
}

#[test]
fn reserved_places_are_for_privileged_handles() {
    let gate = Gate::new(3).reserved(1);
    let admin = gate.clone().privileged();
    let mut permits: Vec<_> = std::iter::from_fn(|| gate.try_acquire()).collect();
    assert_eq!((permits.len(), gate.limit()), (2, 3), "P3");
    let owner = Owner::standing(&gate, Until::Room);
    let last = admin.try_acquire().expect("kept for it");
    assert!(admin.try_acquire().is_none(), "P3");
    let privileged = Owner::new();
    assert_eq!(admin.stand(&privileged.bell, Until::Room), Line::Standing);
    permits.truncate(1);
    assert_eq!([&owner, &privileged].map(Owner::rings), [0, 1], "P11: one is free, which is reserved");
    drop(last);
    assert_eq!(
        [&owner, &privileged].map(Owner::rings),
        [0, 0],
        "P3: two are taken, and the last is reserved"
    );
    drop(fetch(&admin, &privileged));
    assert_eq!([&owner, &privileged].map(Owner::rings), [1, 0], "P11");
}

#[test]
fn a_reservation_that_comes_to_nothing_rings_those_who_wait_for_room() {
    let gate = Gate::new(1);
    let reservation = reserved(&gate);
    let [room, release] = [Until::Room, Until::Release].map(|until| Owner::standing(&gate, until));
    gate.cancel(reservation);
    assert_eq!((room.rings(), release.rings()), (1, 0), "P2: it frees no descriptor");
    drop(fetch(&gate, &room));
    assert_eq!((room.rings(), release.rings()), (0, 1), "P11: who was not rung stands in line still");
}

#[test]
fn without_room_nobody_is_rung() {
    let gate = Gate::new(2);
    let (one, two) = (reserved(&gate), reserved(&gate));
    let owner = Owner::standing(&gate, Until::Room);
    gate.set_limit(1);
    assert_eq!(owner.rings(), 0, "P2: the limit was lowered");
    assert!(gate.try_acquire().is_none(), "P3: more are in than the limit");
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
    assert!(gate.leave(&owner.bell).is_none());
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
    assert_eq!((owner.rings(), other.rings()), (0, 1), "behind those who stood for room before");
    gate.cancel(fetch(&gate, &other).expect("its turn"));
    assert_eq!((owner.rings(), other.rings()), (1, 0), "as it stood last");
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
        assert!(gate.leave(&owner.bell).is_none());
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
            assert!(gate.leave(&owner.bell).is_none());
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
    assert!(
        gate.never_waits()
            && matches!(gate.reserve(), Reserve::Shed(denied) if denied == Rejection::new(Cause::Full, Refusal::Reset))
    );
    assert!(!Unlimited.never_waits() && matches!(Unlimited.reserve(), Reserve::Room(())));
}
