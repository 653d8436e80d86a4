//! Several epolls on one listener, exclusively: the kernel tells one of them, and whoever was told and leaves
//! leaves the queue to the others.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, AnyListener, Epoll, EpollAcceptor, Events, Exclusive, Gate, Interest, Permit, State, Trigger,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};
use socket2::Socket;

use crate::support::{
    Client, Door, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT, TRIGGERS, accept_on,
    assert_all_served, assert_balanced, done_in_child, listeners, serve, until,
};

type Gated = EpollAcceptor<AnyListener<Socket>, Exclusive, Gate>;

fn gated(owner: &Owner, listener: &Socket, gate: &Gate) -> Gated {
    let listener = AnyListener(listener.try_clone().unwrap());
    Exclusive::on(listener).gate(gate).register(&owner.epoll, LISTENER).unwrap()
}

/// A thread that is asleep in a wait on somebody's epoll: the kernel counts it as told.
struct Sleeper(JoinHandle<usize>);

impl Sleeper {
    fn on(epoll: &Epoll) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let epoll = epoll.try_clone().unwrap();
        let thread = thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            epoll.wait(&mut Events::with_capacity(4).unwrap(), Some(LONG)).unwrap().count()
        });
        let id = told.recv().unwrap();
        until("a thread asleep in its epoll", || is_asleep_in_epoll(id));
        Self(thread)
    }

    fn assert_told(self) {
        assert_eq!(self.0.join().unwrap(), 1);
    }
}

/// A thread of this process, or the only one of another.
fn is_asleep_in_epoll(thread: Pid) -> bool {
    let read = |what| fs::read_to_string(format!("/proc/{thread}/{what}")).unwrap_or_default();
    let sleeps = read("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'));
    let call = read("syscall").split(' ').next().and_then(|number| number.parse().ok());
    #[cfg(target_arch = "x86_64")]
    let waits = call == Some(libc::SYS_epoll_wait);
    #[cfg(not(target_arch = "x86_64"))]
    let waits = false;
    sleeps && (waits || call == Some(libc::SYS_epoll_pwait) || call == Some(libc::SYS_epoll_pwait2))
}

/// A client that only the first of two is told of.
fn told_to_one(first: &Owner, second: &mut Owner, door: &Door) -> Client {
    let sleeper = Sleeper::on(&first.epoll);
    let client = door.connect();
    sleeper.assert_told();
    assert_eq!(second.wait(SHORT), 0, "the second was told too, and this test shows nothing");
    client
}

/// The first of two, who was told and has not begun a pass yet.
struct Told {
    owner: Owner,
    acceptor: Gated,
    /// What is left of its only place.
    place: Option<Permit>,
    gate: Gate,
}

impl Told {
    fn answer(&mut self) {
        for _ in 0..self.owner.wait(SHORT) {
            assert_eq!(self.acceptor.drain(drop).unwrap(), 0);
        }
    }
}

type Leave = fn(Told) -> Option<Told>;

/// The ways to leave with a client queued; what is kept of the one that left.
const WAYS: [(&str, Leave); 7] = [
    ("paused", |mut told| {
        told.acceptor.control().pause();
        told.answer();
        assert_eq!(told.acceptor.state(), State::Paused);
        Some(told)
    }),
    ("full", |mut told| {
        told.place = told.gate.try_acquire();
        told.answer();
        assert_eq!(told.acceptor.state(), State::Full);
        Some(told)
    }),
    ("exhausted", |mut told| {
        let none = NoDescriptors::now();
        told.answer();
        assert_eq!(told.acceptor.state(), State::Exhausted);
        drop(none);
        Some(told)
    }),
    ("stopped", |mut told| {
        told.acceptor.control().stop();
        told.answer();
        assert_eq!(told.acceptor.state(), State::Stopped);
        Some(told)
    }),
    ("taken apart", |told| {
        drop(told.acceptor.into_listener());
        None
    }),
    ("dropped", |told| {
        drop(told);
        None
    }),
    ("unwound", |told| {
        let unwound = thread::spawn(move || {
            let _told = told;
            std::panic::resume_unwind(Box::new("the owner's own"));
        });
        assert!(unwound.join().is_err());
        None
    }),
];

#[test]
fn whoever_was_told_and_leaves_leaves_the_queue_to_the_other() {
    if done_in_child("exclusive::whoever_was_told_and_leaves_leaves_the_queue_to_the_other") {
        return;
    }
    for (listener, door) in listeners() {
        for second in TRIGGERS {
            for (way, leave) in WAYS {
                let (gate, owner, mut other) = (Gate::new(1), Owner::new(), Owner::new());
                let acceptor = gated(&owner, &listener, &gate);
                let told = Told { owner, acceptor, place: None, gate };
                let mut heir = accept_on(&other, listener.try_clone().unwrap(), second, None);
                let client = match second {
                    Trigger::Exclusive => told_to_one(&told.owner, &mut other, &door),
                    // Who is registered plainly hears everything.
                    _ => door.connect(),
                };
                let left = leave(told);
                other.serve(&mut heir, 1);
                drop(left);
                assert_balanced(&heir);
                assert_eq!(client.read_within(LONG), Read::Served, "{way}, {second:?}");
            }
        }
    }
}

#[test]
fn who_left_comes_back_and_is_told_again() {
    for (listener, door) in listeners() {
        let (gate, mut owner, mut other) = (Gate::new(1), Owner::new(), Owner::new());
        let mut first = gated(&owner, &listener, &gate);
        let mut second = accept_on(&other, listener, Trigger::Exclusive, None);
        let place = gate.try_acquire();
        let client = told_to_one(&owner, &mut other, &door);
        owner.settle(&mut first);
        other.serve(&mut second, 1);
        client.assert_served();
        assert_eq!((first.state(), first.counters().rewakes), (State::Full, 1));
        other.settle(&mut second);

        drop(place);
        owner.settle(&mut first);
        assert_eq!(first.state(), State::Listening);
        // Added anew it stands behind the second now.
        let client = told_to_one(&other, &mut owner, &door);
        second.control().pause();
        other.settle(&mut second);
        owner.serve(&mut first, 1);
        client.assert_served();
        second.control().resume();
        other.settle(&mut second);
        let clients = door.connect_many(5);
        until("an empty queue", || {
            for _ in 0..owner.wait(Duration::ZERO) {
                first.drain(|connection| serve(&connection)).unwrap();
            }
            for _ in 0..other.wait(Duration::ZERO) {
                second.drain(|connection| serve(&connection)).unwrap();
            }
            !epoll_acceptor::has_pending(first.listener()).unwrap()
        });
        assert_all_served(&clients);
    }
}

#[test]
fn an_acceptor_that_is_awake_makes_no_call_for_its_registration() {
    let (listener, door) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
    for _ in 0..20 {
        let clients = door.connect_many(3);
        owner.serve(&mut acceptor, 3);
        assert_all_served(&clients);
    }
    let counters = acceptor.counters();
    assert_eq!((counters.rearms, counters.rewakes), (0, 0));
}

/// Both asleep, one client at a time: the first of them is woken for each, and nobody in vain.
#[test]
fn an_arrival_wakes_one() {
    for (listener, door) in listeners() {
        let workers: Vec<_> = (0..2).map(|_| Worker::start(listener.try_clone().unwrap())).collect();
        let all_sleep = || workers.iter().all(|worker| is_asleep_in_epoll(worker.id));
        for _ in 0..10 {
            until("all asleep", all_sleep);
            door.connect().assert_served();
        }
        until("all asleep", all_sleep);
        let passes: Vec<_> = workers.into_iter().map(Worker::end).collect();
        // The last pass of each is the one that stops it.
        assert_eq!(passes, [11, 1], "{:?}", door.kind);
    }
}

/// A thread asleep in the epoll that watches another one is not asleep in that one.
#[test]
fn hosted_epolls_are_all_told() {
    let (listener, door) = Kind::Tcp4.listen();
    let host = |()| {
        let (inner, outer) = (Owner::new(), Epoll::new().unwrap());
        outer.add(&inner.epoll, LISTENER, Interest::IN).unwrap();
        let acceptor = accept_on(&inner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
        (Sleeper::on(&outer), (inner, acceptor))
    };
    let (sleepers, hosts): (Vec<_>, Vec<_>) = [(); 2].into_iter().map(host).unzip();
    let client = door.connect();
    sleepers.into_iter().for_each(Sleeper::assert_told);
    let mut served = 0;
    for (mut inner, mut acceptor) in hosts {
        for _ in 0..inner.wait(SHORT) {
            served += acceptor.drain(|connection| serve(&connection)).unwrap();
        }
    }
    assert_eq!(served, 1);
    client.assert_served();
}

struct Worker {
    id: Pid,
    control: epoll_acceptor::Control,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(listener: Socket) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
            tell.send((nix::unistd::gettid(), acceptor.control())).unwrap();
            while !acceptor.state().is_terminal() {
                for _ in 0..owner.wait(LONG) {
                    acceptor.drain(|connection| serve(&connection)).unwrap();
                }
            }
        });
        let (id, control) = told.recv().unwrap();
        Self { id, control, thread }
    }

    /// How many passes it has made.
    fn end(self) -> u64 {
        self.control.stop();
        self.thread.join().unwrap();
        self.control.counters().passes
    }
}

/// A forked child with an epoll of its own on the inherited listener, which tells when it is registered.
fn child(listener: &Socket, serves: bool, go: BorrowedFd<'_>, done: BorrowedFd<'_>) -> Pid {
    // SAFETY: this process runs one test, and has no other thread yet that could hold a lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // SAFETY: takes a number; the child ends by itself if nobody ends it.
            unsafe { libc::alarm(60) };
            read(go, &mut [0]).unwrap();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
            write(done, &[1]).unwrap();
            loop {
                let due = owner.wait(LONG);
                if due > 0 && !serves {
                    // It was told, and does nothing about it.
                    thread::sleep(LONG);
                }
                (0..due).for_each(|_| _ = acceptor.drain(|connection| serve(&connection)).unwrap());
            }
        }
    }
}

fn end(child: Pid) {
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
}

#[test]
fn another_process_is_left_the_queue() {
    if done_in_child("exclusive::another_process_is_left_the_queue") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, door) = kind.listen();
        let ((go_out, go), (done, done_in)) = (pipe().unwrap(), pipe().unwrap());
        let child = child(&listener, true, go_out.as_fd(), done_in.as_fd());
        let owner = Owner::new();
        let acceptor = accept_on(&owner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
        write(&go, &[1]).unwrap();
        read(&done, &mut [0]).unwrap();
        let sleeper = Sleeper::on(&owner.epoll);
        let client = door.connect();
        sleeper.assert_told();
        client.assert_waits();
        drop(acceptor);
        client.assert_served();
        end(child);
    }
}

/// The limit that is documented: the dead announce nothing. The next client is the announcement.
#[test]
fn what_a_killed_process_was_told_of_waits_for_the_next_arrival() {
    if done_in_child("exclusive::what_a_killed_process_was_told_of_waits_for_the_next_arrival") {
        return;
    }
    let (listener, door) = Kind::Tcp4.listen();
    let ((go_out, go), (done, done_in)) = (pipe().unwrap(), pipe().unwrap());
    let child = child(&listener, false, go_out.as_fd(), done_in.as_fd());
    write(&go, &[1]).unwrap();
    read(&done, &mut [0]).unwrap();
    until("the child asleep in its epoll", || is_asleep_in_epoll(child));
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
    let early = door.connect();
    end(child);
    assert_eq!(owner.wait(Duration::from_millis(100)), 0, "nobody has told us");
    early.assert_waits();
    let late = door.connect();
    owner.serve(&mut acceptor, 2);
    assert_all_served(&[early, late]);
}
