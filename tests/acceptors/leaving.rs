//! However a pass is left, nobody is stranded: no new client is needed to serve those who wait.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use epoll_acceptor::{Acceptor, EdgeTriggered, EmptyCheck, LevelTriggered, ListenerClosed, Trigger};

use crate::support::{
    Client, Door, Kind, LISTENER, Owner, PROOFS, SHORT, TRIGGERS, accept_on, assert_all_served,
    assert_balanced, listeners, serve,
};

/// How the owner leaves a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Break,
    Return,
    QuestionMark,
    Panic,
    Forget,
    /// Twice in a row it begins a pass and forgets it, before its first step; then it forgets as above.
    ForgetUnbegun,
    PanicInDrain,
    /// The one after was asked for, but the pass is left in its name: two connections are out.
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

/// One pass that is left once `after` connections are served, if there are so many. How many were served.
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
                        resume_unwind(Box::new("left"));
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
                        resume_unwind(Box::new("left"));
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

/// Every pass is left by `exit` after `after` connections, until everyone is served.
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
fn everyone_is_served_however_and_whenever_every_pass_is_left() {
    let mut cases = 0;
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let listener = listener.try_clone().unwrap();
                let mut acceptor = accept_on(&owner, listener, trigger, proof);
                for exit in EXITS {
                    for after in 1..=BURST {
                        let clients = door.connect_many(BURST);
                        serve_and_leave(&mut owner, &mut acceptor, (exit, after), BURST);
                        assert_all_served(&clients);
                        cases += 1;
                    }
                }
                owner.settle(&mut acceptor);
                assert_balanced(&acceptor);
            }
        }
    }
    assert!(cases >= 4 * 2 * 4 * 8 * BURST, "{cases}");
}

#[test]
fn who_comes_while_the_body_runs_is_served_however_the_pass_is_left() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, proof);
                for exit in [Exit::Break, Exit::Forget] {
                    let mut clients = door.connect_many(2);
                    assert!(owner.wait(SHORT) > 0);
                    let mut ready = acceptor.ready();
                    serve(&ready.next().unwrap().unwrap());
                    clients.extend(door.connect_many(2));
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
}

#[test]
fn a_wait_inside_the_body_loses_nothing_if_its_events_get_a_pass() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, proof);
                let clients = door.connect_many(5);
                assert_eq!(owner.wait(SHORT), 1);
                // Each pass takes one, and the wait in its body takes the event that it was promised.
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
                assert_eq!(served, 5, "{:?} {trigger:?} {proof:?}", door.kind);
                assert_all_served(&clients);
            }
        }
    }
}

#[test]
fn a_needless_pass_and_a_second_one_do_no_harm() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, proof);
                assert_eq!(acceptor.ready().count(), 0, "before anything");
                let clients = door.connect_many(3);
                let unasked = acceptor.drain(|connection| serve(&connection)).unwrap();
                assert_eq!(
                    acceptor.ready().map(|connection| serve(&connection.unwrap())).count() + unasked,
                    3
                );
                assert_all_served(&clients);
                owner.settle(&mut acceptor);
                assert_eq!(acceptor.counters().delivered, 3);
                assert_balanced(&acceptor);
            }
        }
    }
}

#[test]
fn a_pass_ends_at_its_budget_and_the_next_wait_reports_the_rest() {
    for (listener, door) in listeners() {
        for trigger in TRIGGERS {
            for proof in PROOFS {
                let mut owner = Owner::new();
                let mut builder = trigger.on(epoll_acceptor::AnyListener(listener.try_clone().unwrap()));
                if let Some(proof) = proof {
                    builder = builder.empty_check(proof);
                }
                let mut acceptor = builder.budget(3).register(&owner.epoll, LISTENER).unwrap();
                let clients = door.connect_many(10);
                let mut served = 0;
                while served < 10 {
                    assert_eq!(owner.wait(SHORT), 1, "{served} served {:?} {trigger:?} {proof:?}", door.kind);
                    let taken = acceptor.drain(|connection| serve(&connection)).unwrap();
                    assert!(taken <= 3, "{taken}");
                    served += taken;
                }
                assert_all_served(&clients);
                owner.settle(&mut acceptor);
            }
        }
    }
}

#[test]
fn connections_come_in_the_order_of_the_queue() {
    for (listener, door) in listeners().filter(|(_, door)| !door.kind.is_unix()) {
        for trigger in TRIGGERS {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), trigger, None);
            let clients = door.connect_many(20);
            let kept = owner.take(&mut acceptor, 20);
            for (client, connection) in clients.iter().zip(&kept) {
                let peer = socket2::SockRef::from(connection).peer_addr().unwrap();
                assert_eq!(client.0.local_addr().unwrap().as_socket(), peer.as_socket());
            }
        }
    }
}

/// What a user writes: generic over the strategy.
fn serve_one<A: Acceptor>(acceptor: &mut A) -> Result<Option<A::Stream>, ListenerClosed>
where
    A::Permit: Into<()>,
{
    acceptor.ready().next().transpose().map(|found| found.map(|connection| connection.into_parts().0))
}

fn is_typed<A: Acceptor<Stream: AsFd, Permit = ()>>(
    owner: &mut Owner,
    mut acceptor: A,
    door: &Door,
    check: impl Fn(&A::Stream),
) {
    let clients: Vec<Client> = door.connect_many(3);
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
fn each_listener_of_std_gives_its_own_stream_which_is_non_blocking_and_close_on_exec() {
    fn flags(stream: &impl AsFd) {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let status = OFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let descriptor = FdFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFD).unwrap());
        assert!(descriptor.contains(FdFlag::FD_CLOEXEC));
    }
    let mut owner = Owner::new();
    let (socket, door) = Kind::Tcp4.listen();
    let tcp = LevelTriggered::on(TcpListener::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    is_typed(&mut owner, tcp, &door, |stream: &TcpStream| flags(stream));
    let (socket, door) = Kind::Tcp6.listen();
    let tcp = EdgeTriggered::on(TcpListener::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    is_typed(&mut owner, tcp, &door, |stream: &TcpStream| flags(stream));
    let (socket, door) = Kind::UnixStream.listen();
    let unix = UnixListener::from(OwnedFd::from(socket));
    let unix =
        EdgeTriggered::on(unix).empty_check(EmptyCheck::Poll).register(&owner.epoll, LISTENER).unwrap();
    is_typed(&mut owner, unix, &door, |stream: &UnixStream| flags(stream));
    let (socket, door) = Kind::UnixSeqpacket.listen();
    let plain = Trigger::Level.on(OwnedFd::from(socket)).register(&owner.epoll, LISTENER).unwrap();
    is_typed(&mut owner, plain, &door, |stream: &OwnedFd| flags(stream));
}
