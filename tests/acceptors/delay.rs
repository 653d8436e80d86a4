//! A limit for the time in the queue, as the kernel tells it. Here a client can only be queued longer than it has to be,
//! never shorter.

use std::thread::sleep;
use std::time::{Duration, Instant};

use epoll_acceptor::{Acceptor, Admission, AnyListener, Gate, QueueDelay, Refusal};

use crate::support::{
    Client, Door, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_balanced, serve, until,
};

/// Far above the ticks of any kernel's clock.
const TARGET: Duration = Duration::from_millis(50);

/// One pass, which takes one client at the most.
fn pass(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: std::os::fd::AsFd>) {
    for _ in 0..owner.wait(LONG) {
        acceptor.drain(|connection| serve(&connection)).unwrap();
    }
}

/// A client that comes when nobody waits is served, even if this machine is sometimes too busy for that.
fn assert_open(owner: &mut Owner, acceptor: &mut impl Acceptor<Stream: std::os::fd::AsFd>, door: &Door) {
    let begin = Instant::now();
    loop {
        let client = door.connect();
        pass(owner, acceptor);
        if client.read_within(LONG) == Read::Served {
            return;
        }
        assert!(begin.elapsed() < LONG, "never open again: {}", acceptor.counters());
    }
}

fn reads(clients: &[Client]) -> Vec<Read> {
    clients.iter().map(|client| client.read_within(LONG)).collect()
}

#[test]
fn whoever_was_queued_longer_than_the_cut_off_is_refused() {
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let policy = QueueDelay::new(TARGET).max_delay(2 * TARGET).refusal(Refusal::Close);
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener))
                .admission(Gate::new(100).and(policy.clone()))
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let late = door.connect_many(3);
            sleep(3 * TARGET);
            while acceptor.counters().refused_delay < 3 {
                pass(&mut owner, &mut acceptor);
            }
            assert_eq!(reads(&late), [Read::End; 3]);
            assert_open(&mut owner, &mut acceptor, &door);
            assert_eq!(policy.unmeasured(), 0);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn an_overloaded_server_refuses_whoever_waited_too_long_and_recovers() {
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        for trigger in TRIGGERS {
            let (listener, door) = kind.listen();
            let policy = QueueDelay::new(TARGET).interval(2 * TARGET).refusal(Refusal::Close);
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener))
                .admission(policy.clone())
                .budget(1)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let clients = door.connect_many(4);
            sleep(3 * TARGET);
            pass(&mut owner, &mut acceptor);
            assert_eq!(acceptor.counters().delivered, 1, "the first that waited too long is no overload");
            sleep(3 * TARGET);
            until("all taken", || {
                pass(&mut owner, &mut acceptor);
                acceptor.counters().delivered + acceptor.counters().refused == 4
            });
            if kind.is_unix() {
                assert_eq!(reads(&clients), [Read::Served; 4]);
                assert_eq!((policy.unmeasured(), acceptor.counters().refused), (4, 0));
            } else {
                assert_eq!(reads(&clients), [Read::Served, Read::End, Read::End, Read::End]);
                assert_eq!((policy.unmeasured(), acceptor.counters().refused_delay), (0, 3));
            }
            assert_open(&mut owner, &mut acceptor, &door);
            assert_balanced(&acceptor);
        }
    }
}
