//! In steady state nothing allocates, on whichever thread a permit is released.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use epoll_acceptor::filter::{Reservation, TestConnection};
use epoll_acceptor::{
    Acceptor, AllowedNetworks, AllowedUsers, Epoll, Events, Filter, Gate, PeerLimit, QueueDelay, RateLimit,
    Token, Trigger,
};

use crate::engines::{self, BUDGET, Engine, Ours, TRIGGERS, Variant, net};

const BURSTS: [usize; 4] = [1, 4, 32, 512];

#[test]
fn connection_costs_no_allocation() {
    for trigger in TRIGGERS {
        for variant in [Variant::Ungated, Variant::Gated] {
            for burst in BURSTS {
                let listener = net::listen();
                let address = listener.local_addr().unwrap();
                let mut engine = engines::boxed(variant, trigger, burst, listener);
                for round in 0..40.min(4_096 / burst) {
                    let clients: Vec<_> = (0..burst).map(|_| net::connect(&address)).collect();
                    let allocated = measure(|| {
                        engine.take(burst);
                        engine.close();
                    });
                    assert_none(&allocated, &format!("{} {} {burst} {round}", variant.name(), trigger));
                    drop(clients);
                }
            }
        }
    }
}

#[test]
fn permit_release_elsewhere_costs_no_allocation() {
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
                assert_none(&elsewhere.join().unwrap(), "released");
                assert_eq!(gate.in_use(), 0);
                drop(clients);
            }
        }
    }
}

/// Combines all filters and refuses half of each burst by the limit per peer.
#[test]
fn combined_filters_cost_no_allocation() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        for burst in BURSTS {
            let few = u32::try_from(burst.div_ceil(2)).unwrap();
            let (gate, peers) = (Gate::new(1_000_000), PeerLimit::builder(few).capacity(1000).build());
            let delay = QueueDelay::new(Duration::from_secs(1));
            let listener = net::listen();
            let address = listener.local_addr().unwrap();
            let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(16).unwrap());
            let mut acceptor = trigger
                .on(listener)
                .gate(&gate)
                .filter(peers.clone())
                .filter(RateLimit::per_second(4_000_000_000))
                .filter(delay.clone())
                .filter(AllowedUsers::new().user(0).allow_unknown())
                .filter(AllowedNetworks::new().allow("127.0.0.0/8").unwrap())
                .register(&epoll, Token(1))
                .unwrap();
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
                assert_none(&measure(|| served.clear()), "released");
                assert_eq!((gate.in_use(), peers.peers(), delay.unmeasured()), (0, 0, 0));
                drop(clients);
            }
        }
    }
}

/// Admits a million peers, more than the table holds: the table is allocated up front.
#[test]
fn peer_limit_costs_no_allocation() {
    const CAPACITY: usize = 1000;
    let peers = PeerLimit::builder(1).capacity(CAPACITY).build();
    let mut held = Vec::with_capacity(CAPACITY);
    let allocated = measure(|| {
        for n in 0..1_000_000 {
            let Reservation::Granted(mut permit) = peers.reserve() else {
                unreachable!("PeerLimit always grants")
            };
            let peer = Some((Ipv4Addr::from_bits(n), 1).into());
            let connection = TestConnection { peer, ..TestConnection::default() };
            match peers.admit(&connection.info(), &mut permit) {
                // Fills the table again with other peers after each `clear` below.
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

/// Disarms at a full gate and is woken by another thread, repeatedly. Only the first round may allocate.
#[test]
fn disarm_and_wake_cost_no_allocation() {
    const LIMIT: usize = 4;
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        let listener = net::listen();
        let address = listener.local_addr().unwrap();
        let gate = Gate::new(u32::try_from(LIMIT).unwrap());
        let mut engine = Ours::new(trigger.on(listener).gate(&gate), BUDGET);
        // Each round accepts four while more are queued, so it ends with a full gate and a disarmed listener.
        let clients: Vec<_> = (0..40 * LIMIT).map(|_| net::connect(&address)).collect();
        let (give, given) = mpsc::sync_channel::<()>(0);
        let finished = Arc::new(Mutex::new(Vec::with_capacity(LIMIT)));
        let other = thread::spawn({
            let finished = Arc::clone(&finished);
            move || {
                let mut total = AllocationInfo::default();
                while given.recv().is_ok() {
                    total += measure(|| finished.lock().unwrap().clear());
                }
                total
            }
        });
        for round in 0..39 {
            let allocated = measure(|| engine.take(LIMIT));
            assert!(round == 0 || allocated.count_total == 0, "round {round}: {allocated:?}");
            finished.lock().unwrap().append(&mut engine.served);
            give.send(()).unwrap();
        }
        drop(give);
        assert_none(&other.join().unwrap(), "waking");
        let full = engine.acceptor.counters().full;
        assert!(full >= 39, "the gate was full only {full} times");
        drop(clients);
    }
}

fn assert_none(allocated: &AllocationInfo, what: &str) {
    assert_eq!((allocated.count_total, allocated.bytes_total), (0, 0), "{what}");
}
