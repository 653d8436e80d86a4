//! Leaving a pass in any way strands no connection: what is pending is served without a new client.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::{Acceptor, EdgeTriggered, LevelTriggered, ListenerClosed, Trigger};

use crate::support::{
    AnySocket, Client, EMPTY_CHECKS, Endpoint, Kind, LISTENER, Owner, SHORT, TRIGGERS, accept_on,
    assert_all_served, assert_balanced, listeners, matrix, serve,
};

/// A way to leave a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Break,
    Return,
    QuestionMark,
    Panic,
    Forget,
    /// Forgets two passes before their first step, then as `Forget`.
    ForgetUnbegun,
    PanicInDrain,
    /// Drops the iterator while the connections are held.
    DropIterator,
}

const EXITS: [Exit; 8] = [
    Exit::Break,
    Exit::Return,
    Exit::QuestionMark,
    Exit::Panic,
    Exit::Forget,
    Exit::ForgetUnbegun,
    Exit::PanicInDrain,
    Exit::DropIterator,
];

/// Runs a pass and leaves it after `after` connections, if there are that many. Returns the number of connections served.
fn leave<A: Acceptor<Stream: AsFd>>(acceptor: &mut A, exit: Exit, after: usize) -> usize {
    let mut served = 0;
    match exit {
        Exit::Break => {
            for connection in acceptor.ready() {
                serve(&connection.unwrap());
                served += 1;
                if served == after {
                    break;
                }
            }
        }
        Exit::Return => return leave_by_return(acceptor, after),
        Exit::QuestionMark => {
            let left = leave_by_question_mark(acceptor, after, &mut served);
            assert!(left.is_ok() || served == after);
        }
        Exit::Panic => {
            let left = catch_unwind(AssertUnwindSafe(|| {
                for connection in acceptor.ready() {
                    serve(&connection.unwrap());
                    served += 1;
                    if served == after {
                        resume_unwind(Box::new("injected panic"));
                    }
                }
            }));
            assert!(left.is_ok() || served == after);
        }
        Exit::Forget | Exit::ForgetUnbegun => {
            let mut ready = acceptor.ready();
            served = ready.by_ref().take(after).map(|connection| serve(&connection.unwrap())).count();
            std::mem::forget(ready);
        }
        Exit::PanicInDrain => {
            let left = catch_unwind(AssertUnwindSafe(|| {
                acceptor.drain(|connection| {
                    serve(&connection);
                    served += 1;
                    if served == after {
                        resume_unwind(Box::new("injected panic"));
                    }
                })
            }));
            assert!(left.is_ok() || served == after);
        }
        Exit::DropIterator => {
            let mut ready = acceptor.ready();
            let held: Vec<_> = ready.by_ref().take(after).map(Result::unwrap).collect();
            drop(ready);
            served = held.iter().map(serve).count();
        }
    }
    served
}

fn leave_by_return<A: Acceptor<Stream: AsFd>>(acceptor: &mut A, after: usize) -> usize {
    let mut served = 0;
    for connection in acceptor.ready() {
        serve(&connection.unwrap());
        served += 1;
        if served == after {
            return served;
        }
    }
    served
}

fn leave_by_question_mark<A: Acceptor<Stream: AsFd>>(
    acceptor: &mut A,
    after: usize,
    served: &mut usize,
) -> io::Result<()> {
    for connection in acceptor.ready() {
        serve(&connection?);
        *served += 1;
        let failing = if *served == after { Err(io::ErrorKind::Other) } else { Ok(()) };
        failing?;
    }
    Ok(())
}

/// Runs passes, each left by `exit` after `after` connections, until `count` were served.
fn serve_and_leave(
    owner: &mut Owner,
    acceptor: &mut impl Acceptor<Stream: AsFd>,
    (exit, after): (Exit, usize),
    count: usize,
) {
    let mut served = 0;
    let mut to_forget = if exit == Exit::ForgetUnbegun { 2 } else { 0 };
    let before = owner.wakes;
    let begin = std::time::Instant::now();
    while served < count {
        assert!(begin.elapsed() < crate::support::LONG, "{served} of {count}: {}", acceptor.counters());
        for _ in 0..owner.wait(SHORT) {
            if to_forget > 0 {
                to_forget -= 1;
                std::mem::forget(acceptor.ready());
            } else {
                served += leave(acceptor, exit, after);
            }
        }
    }
    let wakes = owner.wakes - before;
    assert!(wakes <= 2 * count as u64 + 4, "{wakes} wakes for {count} connections");
}

const BURST: usize = 4;

#[test]
fn every_exit_strands_nothing() {
    let mut cases = 0;
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let listener = listener.try_clone().unwrap();
            let mut acceptor = accept_on(&owner, listener, trigger, check);
            for exit in EXITS {
                for after in 1..=BURST {
                    let clients = endpoint.connect_many(BURST);
                    serve_and_leave(&mut owner, &mut acceptor, (exit, after), BURST);
                    assert_all_served(&clients);
                    cases += 1;
                }
            }
            owner.settle(&mut acceptor);
            assert_balanced(&acceptor);
        }
    }
    assert!(cases >= 4 * 2 * 4 * 8 * BURST, "{cases}");
}

#[test]
fn arrival_during_a_pass_is_served() {
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, check);
            for exit in [Exit::Break, Exit::Forget] {
                let mut clients = endpoint.connect_many(2);
                assert!(owner.wait(SHORT) > 0);
                let mut ready = acceptor.ready();
                serve(&ready.next().unwrap().unwrap());
                clients.extend(endpoint.connect_many(2));
                if exit == Exit::Forget {
                    std::mem::forget(ready);
                }
                serve_and_leave(&mut owner, &mut acceptor, (exit, 1), 3);
                assert_all_served(&clients);
            }
            owner.settle(&mut acceptor);
        }
    }
}

#[test]
fn wait_in_the_loop_body_needs_its_own_passes() {
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, check);
            let clients = endpoint.connect_many(5);
            assert_eq!(owner.wait(SHORT), 1);
            // Each pass serves one, and the wait in its body consumes the event for the rest.
            let mut due = 1;
            let mut served = 0;
            while due > 0 {
                if let Some(connection) = acceptor.ready().next() {
                    serve(&connection.unwrap());
                    served += 1;
                    due += owner.wait(std::time::Duration::ZERO);
                }
                due -= 1;
            }
            assert_eq!(served, 5, "{:?} {trigger:?} {check:?}", endpoint.kind);
            assert_all_served(&clients);
        }
    }
}

#[test]
fn spurious_passes_do_no_harm() {
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, check);
            assert_eq!(acceptor.ready().count(), 0, "before the first connection");
            let clients = endpoint.connect_many(3);
            let first = acceptor.drain(|connection| serve(&connection)).unwrap();
            assert_eq!(acceptor.ready().map(|connection| serve(&connection.unwrap())).count() + first, 3);
            assert_all_served(&clients);
            owner.settle(&mut acceptor);
            assert_eq!(acceptor.counters().delivered, 3);
            assert_balanced(&acceptor);
        }
    }
}

#[test]
fn budget_ends_a_pass_and_the_rest_is_reported() {
    for (listener, endpoint, trigger) in matrix() {
        for check in EMPTY_CHECKS {
            let mut owner = Owner::new();
            let mut builder = trigger.on(AnySocket(listener.try_clone().unwrap()));
            if let Some(check) = check {
                builder = builder.empty_check(check);
            }
            let mut acceptor = builder.budget(3).register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(10);
            let mut served = 0;
            while served < 10 {
                assert_eq!(owner.wait(SHORT), 1, "{served} served {:?} {trigger:?} {check:?}", endpoint.kind);
                let taken = acceptor.drain(|connection| serve(&connection)).unwrap();
                assert!(taken <= 3, "{taken}");
                served += taken;
            }
            assert_all_served(&clients);
            owner.settle(&mut acceptor);
        }
    }
}

#[test]
fn connections_are_delivered_in_queue_order() {
    for (listener, endpoint) in listeners().filter(|(_, endpoint)| !endpoint.kind.is_unix()) {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let clients = endpoint.connect_many(20);
            let kept = owner.take(&mut acceptor, 20);
            for (client, connection) in clients.iter().zip(&kept) {
                let peer = socket2::SockRef::from(connection).peer_addr().unwrap();
                assert_eq!(client.0.local_addr().unwrap().as_socket(), peer.as_socket());
            }
        }
    }
}

/// Code of a user, generic over acceptors.
fn serve_one<A: Acceptor>(acceptor: &mut A) -> Result<Option<A::Stream>, ListenerClosed> {
    acceptor.ready().next().transpose().map(|found| found.map(|connection| connection.into_parts().0))
}

fn assert_streams<A: Acceptor<Stream: AsFd>>(
    owner: &mut Owner,
    mut acceptor: A,
    endpoint: &Endpoint,
    check: impl Fn(&A::Stream),
) {
    let clients: Vec<Client> = endpoint.connect_many(3);
    let mut served = Vec::new();
    while served.len() < 3 {
        assert!(owner.wait(SHORT) > 0);
        served.extend(serve_one(&mut acceptor).unwrap());
    }
    for stream in &served {
        check(stream);
        serve(stream);
    }
    assert_all_served(&clients);
}

#[test]
fn streams_have_the_listeners_type_and_flags() {
    fn flags(stream: &impl AsFd) {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let status = OFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let descriptor = FdFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFD).unwrap());
        assert!(descriptor.contains(FdFlag::FD_CLOEXEC));
    }
    let mut owner = Owner::new();
    let (socket, endpoint) = Kind::Tcp4.listen();
    let tcp = LevelTriggered::on(TcpListener::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    assert_streams(&mut owner, tcp, &endpoint, |stream: &TcpStream| flags(stream));
    let (socket, endpoint) = Kind::Tcp6.listen();
    let tcp = EdgeTriggered::on(TcpListener::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    assert_streams(&mut owner, tcp, &endpoint, |stream: &TcpStream| flags(stream));
    let (socket, endpoint) = Kind::UnixStream.listen();
    let unix = UnixListener::from(OwnedFd::from(socket));
    let unix =
        EdgeTriggered::on(unix).empty_check(EmptyCheck::Poll).register(&owner.epoll, LISTENER).unwrap();
    assert_streams(&mut owner, unix, &endpoint, |stream: &UnixStream| flags(stream));
    let (socket, endpoint) = Kind::UnixSeqpacket.listen();
    let plain = Trigger::Level.on(OwnedFd::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    assert_streams(&mut owner, plain, &endpoint, |stream: &OwnedFd| flags(stream));
}
