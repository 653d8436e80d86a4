//! In steady state nothing is allocated, whoever gives the permits back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use epoll_acceptor::{
    Acceptor, Admission, AllowedUsers, ConnectionInfo, Epoll, Events, Gate, PeerLimit, QueueDelay, RateLimit,
    Reserve, Token, Trigger,
};

use crate::engines::{self, BUDGET, Engine, Ours, Strategy, Who, net};

const BURSTS: [usize; 4] = [1, 4, 32, 512];

#[test]
fn a_connection_costs_no_allocation() {
    for strategy in Strategy::ALL {
        for who in [Who::Free, Who::Gated] {
            for burst in BURSTS {
                let listener = net::listen();
                let address = listener.local_addr().unwrap();
                let mut engine = engines::boxed(who, strategy, burst, listener);
                for round in 0..40 {
                    let clients: Vec<_> = (0..burst).map(|_| net::connect(&address)).collect();
                    let allocated = measure(|| {
                        engine.take(burst);
                        engine.close();
                    });
                    assert_none(&allocated, &format!("{} {} {burst} {round}", who.name(), strategy.name()));
                    drop(clients);
                }
            }
        }
    }
}

#[test]
fn a_permit_given_back_on_another_thread_costs_no_allocation() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        for burst in BURSTS {
            let listener = net::listen();
            let address = listener.local_addr().unwrap();
            let gate = Gate::new(1_000_000);
            let mut engine = Ours::new(trigger.on(listener).gate(&gate), burst);
            for _ in 0..10 {
                let clients: Vec<_> = (0..burst).map(|_| net::connect(&address)).collect();
                assert_none(&measure(|| engine.take(burst)), "taken");
                let served = std::mem::replace(&mut engine.served, Vec::with_capacity(burst));
                let elsewhere = thread::spawn(move || {
                    let mut served = served;
                    measure(|| served.clear())
                });
                assert_none(&elsewhere.join().unwrap(), "given back");
                assert_eq!(gate.in_use(), 0);
                drop(clients);
            }
        }
    }
}

/// Let in, refused for its peer, and refused without a place: none of it allocates.
#[test]
fn a_connection_that_several_policies_look_at_costs_no_allocation() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        for burst in BURSTS {
            let few = u32::try_from(burst.div_ceil(2)).unwrap();
            let (gate, peers) = (Gate::new(1_000_000), PeerLimit::new(few).capacity(1000));
            let policy = gate.clone().and(peers.clone()).and(RateLimit::per_second(4_000_000_000));
            let delay = QueueDelay::new(Duration::from_secs(1));
            let policy = policy.and(delay.clone()).and(AllowedUsers::new().user(0).allow_unknown());
            let listener = net::listen();
            let address = listener.local_addr().unwrap();
            let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(16).unwrap());
            let builder = trigger.on(listener).admission(policy);
            let mut acceptor = builder.register(&epoll, Token(1)).unwrap();
            let mut served = Vec::with_capacity(burst);
            for round in 1..=20 {
                let clients: Vec<_> = (0..burst).map(|_| net::connect(&address)).collect();
                let allocated = measure(|| {
                    while acceptor.counters().attempts - acceptor.counters().empty < round * burst as u64 {
                        epoll.wait(&mut events, None).unwrap();
                        for _ in &mut events {
                            served.extend(acceptor.ready().map(Result::unwrap));
                        }
                    }
                });
                assert_none(&allocated, &format!("{trigger:?} {burst} {round}"));
                assert_eq!((served.len(), gate.in_use(), peers.peers()), (burst.div_ceil(2), few, 1));
                assert_eq!(acceptor.counters().refused_peer, round * (burst / 2) as u64);
                assert_none(&measure(|| served.clear()), "given back");
                assert_eq!((gate.in_use(), peers.peers(), delay.unmeasured()), (0, 0, 0));
                drop(clients);
            }
        }
    }
}

/// As many peers as may be remembered, and further ones: the table was there before the first.
#[test]
fn a_million_peers_cost_no_allocation() {
    struct From(u32);

    impl ConnectionInfo for From {
        fn peer(&self) -> Option<SocketAddr> {
            Some((Ipv4Addr::from_bits(self.0), 1).into())
        }
    }

    const CAPACITY: usize = 1000;
    let peers = PeerLimit::new(1).capacity(CAPACITY);
    let mut held = Vec::with_capacity(CAPACITY);
    let allocated = measure(|| {
        for n in 0..1_000_000 {
            let Reserve::Room(mut permit) = peers.reserve() else { unreachable!("nobody is made to wait") };
            match peers.admit(&From(n), &mut permit) {
                // The table is filled three times over, from the beginning, by others each time.
                Ok(()) if held.len() < CAPACITY => held.push(permit),
                _ => peers.cancel(permit),
            }
            if n % 300_000 == 0 {
                held.clear();
            }
        }
    });
    assert_none(&allocated, "a million peers");
    assert_eq!((peers.peers(), peers.table_full_count() > 900_000), (CAPACITY, true));
}

/// The acceptor falls asleep at a full gate, and is rung for by the other thread, again and again.
#[test]
fn falling_asleep_and_being_woken_costs_no_allocation_after_the_first_time() {
    const LIMIT: usize = 4;
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        let listener = net::listen();
        let address = listener.local_addr().unwrap();
        let gate = Gate::new(u32::try_from(LIMIT).unwrap());
        let mut engine = Ours::new(trigger.on(listener).gate(&gate), BUDGET);
        // The acceptor's thread takes four, with more in the queue, so that it ends full and asleep.
        let clients: Vec<_> = (0..40 * LIMIT).map(|_| net::connect(&address)).collect();
        let (give, given) = mpsc::sync_channel::<()>(0);
        let shelf = Arc::new(Mutex::new(Vec::with_capacity(LIMIT)));
        let other = thread::spawn({
            let shelf = Arc::clone(&shelf);
            move || {
                let mut total = AllocationInfo::default();
                while given.recv().is_ok() {
                    total += measure(|| shelf.lock().unwrap().clear());
                }
                total
            }
        });
        for round in 0..39 {
            let took = measure(|| engine.take(LIMIT));
            assert!(round == 0 || took.count_total == 0, "round {round}: {took:?}");
            shelf.lock().unwrap().append(&mut engine.served);
            give.send(()).unwrap();
        }
        drop(give);
        assert_none(&other.join().unwrap(), "ringing");
        let full = engine.acceptor.counters().full;
        assert!(full >= 39, "it fell asleep {full} times only");
        drop(clients);
    }
}

fn assert_none(allocated: &AllocationInfo, what: &str) {
    assert_eq!((allocated.count_total, allocated.bytes_total), (0, 0), "{what}");
}
