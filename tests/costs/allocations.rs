//! In steady state nothing is allocated, whoever gives the permits back.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use allocation_counter::{AllocationInfo, measure};
use epoll_acceptor::{Acceptor, Gate, Trigger};

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
        let fulls = engine.acceptor.counters().fulls;
        assert!(fulls >= 39, "it fell asleep {fulls} times only");
        drop(clients);
    }
}

fn assert_none(allocated: &AllocationInfo, what: &str) {
    assert_eq!((allocated.count_total, allocated.bytes_total), (0, 0), "{what}");
}
