//! Refusals: what the client reads, and that none of them blocks.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use epoll_acceptor::{Acceptor, Gate, Refusal, State, Trigger, WhenFull};
use socket2::{SockRef, Socket};

use crate::support::{
    Any, AnySocket, Endpoint, Kind, LISTENER, LONG, Owner, Read, assert_all_served, assert_balanced,
    is_emulated, matrix, supported,
};

fn shedding(limit: u32, refusal: Refusal) -> Gate {
    Gate::builder(limit).when_full(WhenFull::Shed(refusal)).build()
}

fn each(limit: u32, refusal: &Refusal, test: impl Fn(&mut Owner, &mut Any, &Endpoint)) {
    for (listener, endpoint, trigger) in matrix() {
        let gate = shedding(limit, refusal.clone());
        let mut owner = Owner::new();
        let mut acceptor = trigger
            .on(AnySocket(listener.try_clone().unwrap()))
            .gate(&gate)
            .register(&owner.epoll, LISTENER)
            .unwrap();
        test(&mut owner, &mut acceptor, &endpoint);
        owner.settle(&mut acceptor);
        assert_balanced(&acceptor);
    }
}

/// Runs passes until `count` connections were refused.
fn refuse(owner: &mut Owner, acceptor: &mut Any, count: u64) {
    let control = acceptor.control();
    owner.until(
        "refusals",
        || assert_eq!(acceptor.drain(drop).unwrap(), 0),
        || control.counters().refused >= count,
    );
    assert_eq!(acceptor.counters().refused, count);
}

/// Returns what a client reads up to the end, and how the stream ends.
fn read_all(client: &Socket) -> (Vec<u8>, Read) {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match (&*client).read(&mut buffer) {
            Ok(0) => return (received, Read::End),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (received, Read::Reset);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn full_gate_refuses_then_serves_again() {
    each(2, &Refusal::Close, |owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(2);
        let kept = owner.take(acceptor, 2);
        assert_all_served(&clients);
        let late = endpoint.connect_many(5);
        refuse(owner, acceptor, 5);
        for client in &late {
            assert_eq!(client.read_within(LONG), Read::End);
        }
        assert_eq!(acceptor.state(), State::Listening);
        drop(kept);
        let later = endpoint.connect_many(1);
        owner.serve(acceptor, 1);
        assert_all_served(&later);
    });
}

#[test]
fn reset_is_read_as_a_reset() {
    each(0, &Refusal::Reset, |owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(5);
        refuse(owner, acceptor, 5);
        for client in &clients {
            let seen = client.read_within(LONG);
            match endpoint.kind {
                Kind::UnixStream | Kind::UnixSeqpacket => assert_eq!(seen, Read::End),
                // MPTCP may end its one subflow in both ways, TCP only by a reset.
                Kind::Mptcp => assert!(matches!(seen, Read::Reset | Read::End), "{seen:?}"),
                Kind::Tcp4 | Kind::Tcp6 => assert_eq!(seen, Read::Reset),
            }
        }
    });
}

#[test]
fn message_reaches_a_client_with_a_request() {
    let message = "HTTP/1.1 503 Service Unavailable\r\n".repeat(20);
    each(0, &Refusal::message(&message), |owner, acceptor, endpoint| {
        let clients = endpoint.connect_many(5);
        for client in &clients {
            (&client.0).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        refuse(owner, acceptor, 5);
        for client in &clients {
            let (received, end) = read_all(&client.0);
            assert_eq!(received, message.as_bytes(), "{:?}", endpoint.kind);
            // MPTCP of an emulated Linux 6.1 was seen to reset its subflow behind the message.
            let reset = is_emulated() && endpoint.kind == Kind::Mptcp && end == Read::Reset;
            assert!(end == Read::End || reset, "{:?}: {end:?}", endpoint.kind);
        }
    });
}

#[test]
fn message_reaches_a_client_with_unread_data() {
    let message = "-ERR max number of clients reached\r\n";
    each(0, &Refusal::message(message), |owner, acceptor, endpoint| {
        if endpoint.kind == Kind::UnixSeqpacket {
            return; // The client would send one message of that size.
        }
        let client = endpoint.connect();
        (&client.0).write_all(&[b'x'; 100_000]).unwrap();
        refuse(owner, acceptor, 1);
        assert_eq!(read_all(&client.0).0, message.as_bytes(), "{:?}", endpoint.kind);
    });
}

#[test]
fn close_after_client_data_is_no_reset() {
    for refusal in [Refusal::Close, Refusal::message("-ERR")] {
        each(0, &refusal, |owner, acceptor, endpoint| {
            // A seqpacket socket needs one read per message.
            for (messages, size) in [(1, 1), (1, 4096), (3, 10), (2, 4096), (5, 4097)] {
                let client = endpoint.connect();
                (0..messages).for_each(|_| (&client.0).write_all(&vec![b'x'; size]).unwrap());
                let refused = acceptor.counters().refused;
                refuse(owner, acceptor, refused + 1);
                assert_eq!(
                    read_all(&client.0).1,
                    Read::End,
                    "{refusal:?} {:?} {messages} {size}",
                    endpoint.kind
                );
            }
        });
    }
}

#[test]
fn refusal_ignores_an_inherited_linger() {
    // More than the buffers of a client that does not read.
    let huge = vec![b'!'; 4 << 20];
    for refusal in [Refusal::Close, Refusal::Reset, Refusal::message("-ERR"), Refusal::message(huge)] {
        for kind in supported(&[Kind::Tcp4, Kind::Mptcp]) {
            let (listener, endpoint) = kind.listen();
            SockRef::from(&listener).set_linger(Some(Duration::from_secs(10))).unwrap();
            listener.set_recv_buffer_size(1).unwrap();
            let gate = shedding(0, refusal.clone());
            let mut owner = Owner::new();
            let mut acceptor =
                Trigger::Level.on(AnySocket(listener)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(50);
            for client in &clients {
                client.0.set_nonblocking(true).unwrap();
                let _ = (&client.0).write(&[0; 10_000]);
            }
            // With the linger, these would take 500 s.
            refuse(&mut owner, &mut acceptor, 50);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn refusals_count_against_the_budget() {
    for (listener, endpoint, trigger) in matrix() {
        let gate = shedding(0, Refusal::Close);
        let mut owner = Owner::new();
        let mut acceptor = trigger
            .on(AnySocket(listener.try_clone().unwrap()))
            .budget(3)
            .gate(&gate)
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let _clients = endpoint.connect_many(10);
        while acceptor.counters().refused < 10 {
            let before = acceptor.counters().attempts;
            assert_eq!(owner.wait(LONG), 1);
            assert_eq!(acceptor.ready().count(), 0);
            assert!(acceptor.counters().attempts - before <= 3);
        }
    }
}

#[test]
fn one_gate_sheds_here_and_waits_there() {
    let gate = Gate::new(1);
    let permit = gate.try_acquire().unwrap();
    let mut owner = Owner::new();
    let mut other = Owner::new();
    let ((waiting, waiting_endpoint), (refusing, refusing_endpoint)) =
        (Kind::Tcp4.listen(), Kind::UnixStream.listen());
    let mut waiting =
        Trigger::Level.on(AnySocket(waiting)).gate(&gate).register(&owner.epoll, LISTENER).unwrap();
    let shedding_gate = gate.with_when_full(WhenFull::Shed(Refusal::Close));
    let mut refusing =
        Trigger::Level.on(AnySocket(refusing)).gate(&shedding_gate).register(&other.epoll, LISTENER).unwrap();
    let (pending, refused) = (waiting_endpoint.connect(), refusing_endpoint.connect());
    owner.settle(&mut waiting);
    refuse(&mut other, &mut refusing, 1);
    assert_eq!(refused.read_within(LONG), Read::End);
    pending.assert_pending();
    drop(permit);
    owner.serve(&mut waiting, 1);
    pending.assert_served();
}
