//! Refusals: what the client sees, and that none of them blocks.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use epoll_acceptor::{Acceptor, AnyListener, EpollAcceptor, Gate, Refusal, State, Trigger, WhenFull};
use socket2::{SockRef, Socket};

use crate::support::{
    Door, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_all_served, assert_balanced, listeners,
};

type Gated = EpollAcceptor<AnyListener<Socket>, Trigger, Gate>;

fn each(limit: u32, refusal: &Refusal, check: impl Fn(&mut Owner, &mut Gated, &Door)) {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let gate = Gate::new(limit).when_full(WhenFull::Shed(refusal.clone()));
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener.try_clone().unwrap()))
                .gate(&gate)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            check(&mut owner, &mut acceptor, &door);
            owner.settle(&mut acceptor);
            assert_balanced(&acceptor);
        }
    }
}

/// Passes until so many have been refused.
fn refuse(owner: &mut Owner, acceptor: &mut Gated, count: u64) {
    let control = acceptor.control();
    owner.until(
        "refusals",
        || assert_eq!(acceptor.drain(drop).unwrap(), 0),
        || control.counters().refused >= count,
    );
    assert_eq!(acceptor.counters().refused, count);
}

/// All that a client is told before the end, and how that came.
fn hear(client: &Socket) -> (Vec<u8>, Read) {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match (&*client).read(&mut buffer) {
            Ok(0) => return (heard, Read::End),
            Ok(length) => heard.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (heard, Read::Reset),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn above_the_limit_clients_are_closed_and_below_it_served_again() {
    each(2, &Refusal::Close, |owner, acceptor, door| {
        let clients = door.connect_many(2);
        let kept = owner.take(acceptor, 2);
        assert_all_served(&clients);
        let late = door.connect_many(5);
        refuse(owner, acceptor, 5);
        for client in &late {
            assert_eq!(client.read_within(LONG), Read::End);
        }
        assert_eq!(acceptor.state(), State::Listening);
        drop(kept);
        let later = door.connect_many(1);
        owner.serve(acceptor, 1);
        assert_all_served(&later);
    });
}

#[test]
fn a_reset_is_a_reset() {
    each(0, &Refusal::Reset, |owner, acceptor, door| {
        let clients = door.connect_many(5);
        refuse(owner, acceptor, 5);
        for client in &clients {
            let seen = client.read_within(LONG);
            match door.kind {
                Kind::UnixStream | Kind::UnixSeqpacket => assert_eq!(seen, Read::End),
                // MPTCP may end its one subflow by either; plain TCP may not.
                Kind::Mptcp => assert!(matches!(seen, Read::Reset | Read::End), "{seen:?}"),
                Kind::Tcp4 | Kind::Tcp6 => assert_eq!(seen, Read::Reset),
            }
        }
    });
}

#[test]
fn a_last_word_is_read_whole_by_a_client_that_has_sent_its_request() {
    let word = "HTTP/1.1 503 Service Unavailable\r\n".repeat(20);
    each(0, &Refusal::message(&word), |owner, acceptor, door| {
        let clients = door.connect_many(5);
        for client in &clients {
            (&client.0).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        refuse(owner, acceptor, 5);
        for client in &clients {
            let (heard, end) = hear(&client.0);
            assert_eq!(heard, word.as_bytes(), "{:?}", door.kind);
            assert_eq!(end, Read::End, "{:?}", door.kind);
        }
    });
}

#[test]
fn a_last_word_is_read_whole_by_a_client_that_has_sent_more_than_anyone_reads() {
    let word = "-ERR max number of clients reached\r\n";
    each(0, &Refusal::message(word), |owner, acceptor, door| {
        if door.kind == Kind::UnixSeqpacket {
            return; // One message is one read.
        }
        let client = door.connect();
        (&client.0).write_all(&[b'x'; 100_000]).unwrap();
        refuse(owner, acceptor, 1);
        assert_eq!(hear(&client.0).0, word.as_bytes(), "{:?}", door.kind);
    });
}

#[test]
fn who_has_sent_something_reads_an_orderly_end() {
    for refusal in [Refusal::Close, Refusal::message("-ERR")] {
        each(0, &refusal, |owner, acceptor, door| {
            // Of a socket of messages each is a read.
            for (messages, size) in [(1, 1), (1, 4096), (3, 10), (2, 4096), (5, 4097)] {
                let client = door.connect();
                (0..messages).for_each(|_| (&client.0).write_all(&vec![b'x'; size]).unwrap());
                let refused = acceptor.counters().refused;
                refuse(owner, acceptor, refused + 1);
                assert_eq!(hear(&client.0).1, Read::End, "{refusal:?} {:?} {messages} {size}", door.kind);
            }
        });
    }
}

#[test]
fn no_refusal_waits_for_an_inherited_linger() {
    // More than a client takes that does not read.
    let huge = vec![b'!'; 4 << 20];
    for refusal in [Refusal::Close, Refusal::Reset, Refusal::message("-ERR"), Refusal::message(huge)] {
        for kind in [Kind::Tcp4, Kind::Mptcp] {
            let (listener, door) = kind.listen();
            SockRef::from(&listener).set_linger(Some(Duration::from_secs(10))).unwrap();
            listener.set_recv_buffer_size(1).unwrap();
            let gate = Gate::new(0).when_full(WhenFull::Shed(refusal.clone()));
            let mut owner = Owner::new();
            let mut acceptor = Trigger::Level
                .on(AnyListener(listener))
                .gate(&gate)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let clients = door.connect_many(50);
            for client in &clients {
                client.0.set_nonblocking(true).unwrap();
                let _ = (&client.0).write(&[0; 10_000]);
            }
            // Even one that lingered for each would take 500 s.
            refuse(&mut owner, &mut acceptor, 50);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn refusals_count_against_the_budget() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            let gate = Gate::new(0).when_full(WhenFull::Shed(Refusal::Close));
            let mut owner = Owner::new();
            let mut acceptor = trigger
                .on(AnyListener(listener.try_clone().unwrap()))
                .budget(3)
                .gate(&gate)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let _clients = door.connect_many(10);
            while acceptor.counters().refused < 10 {
                let before = acceptor.counters().attempts;
                assert_eq!(owner.wait(LONG), 1);
                assert_eq!(acceptor.ready().count(), 0);
                assert!(acceptor.counters().attempts - before <= 3);
            }
        }
    }
}

#[test]
fn one_gate_sheds_at_one_acceptor_and_pauses_another() {
    let gate = Gate::new(1);
    let permit = gate.try_acquire().unwrap();
    let mut owner = Owner::new();
    let mut other = Owner::new();
    let ((patient, patient_door), (strict, strict_door)) = (Kind::Tcp4.listen(), Kind::UnixStream.listen());
    let mut patient =
        Trigger::Level.on(AnyListener(patient)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
    let strict_gate = gate.clone().when_full(WhenFull::Shed(Refusal::Close));
    let mut strict =
        Trigger::Level.on(AnyListener(strict)).gate(&strict_gate).register(&other.epoll, LISTENER).unwrap();
    let (waits, leaves) = (patient_door.connect(), strict_door.connect());
    owner.settle(&mut patient);
    refuse(&mut other, &mut strict, 1);
    assert_eq!(leaves.read_within(LONG), Read::End);
    waits.assert_waits();
    drop(permit);
    owner.serve(&mut patient, 1);
    waits.assert_served();
}
