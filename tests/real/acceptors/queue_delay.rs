//! A limit on the time in the queue, as the kernel measures it. Here a client can be queued longer than necessary, never
//! shorter.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Gate, QueueDelay, Refusal};

use crate::support::{
    AnySocket, Client, Endpoint, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_balanced, serve,
    wait_until,
};

/// Far above the tick of any kernel's clock.
const TARGET: Duration = Duration::from_millis(50);

/// Runs one pass per event.
fn pass(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: AsFd>) {
    for _ in 0..owner.wait(LONG) {
        acceptor.drain(|connection| serve(&connection)).unwrap();
    }
}

/// Asserts that a client at an empty queue is served, even if this machine is sometimes too busy.
fn assert_recovers(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: AsFd>, endpoint: &Endpoint) {
    let begin = Instant::now();
    loop {
        let client = endpoint.connect();
        pass(owner, acceptor);
        if client.read_within(LONG) == Read::Served {
            return;
        }
        assert!(begin.elapsed() < LONG, "it does not recover: {}", acceptor.counters());
    }
}

fn reads(clients: &[Client]) -> Vec<Read> {
    clients.iter().map(|client| client.read_within(LONG)).collect()
}

#[test]
fn max_delay_refuses_connections_queued_longer() {
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let delay = QueueDelay::builder(TARGET).max_delay(2 * TARGET).refusal(Refusal::Close).build();
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnySocket(listener))
                .gate(&Gate::new(100))
                .filter(delay.clone())
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let late = endpoint.connect_many(3);
            sleep(3 * TARGET);
            while acceptor.counters().refused_delay < 3 {
                pass(&mut owner, &mut acceptor);
            }
            assert_eq!(reads(&late), [Read::End; 3]);
            assert_recovers(&mut owner, &mut acceptor, &endpoint);
            assert_eq!(delay.unmeasured(), 0);
            // 100 ms is in the bucket from 64 on.
            let times = delay.queue_times();
            assert!(times.iter().filter(|(from, _)| *from >= 64).map(|(_, count)| count).sum::<u64>() >= 3);
            let accepted = acceptor.counters().delivered + acceptor.counters().refused;
            assert_eq!(times.iter().map(|(_, count)| count).sum::<u64>(), accepted, "each is counted");
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn overload_refuses_late_connections_then_recovers() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, endpoint) = kind.listen();
            let delay = QueueDelay::builder(TARGET).interval(2 * TARGET).refusal(Refusal::Close).build();
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnySocket(listener))
                .filter(delay.clone())
                .budget(1)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let clients = endpoint.connect_many(4);
            sleep(3 * TARGET);
            pass(&mut owner, &mut acceptor);
            assert_eq!(acceptor.counters().delivered, 1, "one late connection is no overload");
            sleep(3 * TARGET);
            wait_until("all are accepted", || {
                pass(&mut owner, &mut acceptor);
                acceptor.counters().delivered + acceptor.counters().refused == 4
            });
            if kind.is_unix() {
                assert_eq!(reads(&clients), [Read::Served; 4]);
                assert_eq!((delay.unmeasured(), acceptor.counters().refused), (4, 0));
            } else {
                assert_eq!(reads(&clients), [Read::Served, Read::End, Read::End, Read::End]);
                assert_eq!((delay.unmeasured(), acceptor.counters().refused_delay), (0, 3));
            }
            assert_recovers(&mut owner, &mut acceptor, &endpoint);
            assert_balanced(&acceptor);
        }
    }
}
