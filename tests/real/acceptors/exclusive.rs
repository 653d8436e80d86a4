//! Several epolls with exclusive registrations of one listener: the kernel wakes one of them, and an acceptor that was
//! woken and stops listening wakes the others.
#![allow(unsafe_code)]

use std::fs;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epoll_acceptor::acceptor::PauseGuard;
use epoll_acceptor::{Acceptor, Epoll, Events, Exclusive, Gate, Interest, Permit, State, Trigger};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe, read, write};
use socket2::Socket;

use crate::support::{
    Any, AnySocket, Client, Endpoint, Kind, LISTENER, LONG, NoDescriptors, Owner, Read, SHORT, accept_on,
    assert_all_served, assert_balanced, done_in_child, listeners, matrix, serve, wait_until,
};

fn gated(owner: &Owner, listener: &Socket, gate: &Gate) -> Any {
    let listener = AnySocket(listener.try_clone().unwrap());
    Exclusive::on(listener).gate(gate).register(&owner.epoll, LISTENER).unwrap()
}

/// A thread that sleeps in a wait on an epoll, for the kernel to wake.
struct Sleeper(JoinHandle<usize>);

impl Sleeper {
    fn on(epoll: &Epoll) -> Self {
        let (sender, id) = std::sync::mpsc::channel();
        let epoll = epoll.try_clone().unwrap();
        let thread = thread::spawn(move || {
            sender.send(nix::unistd::gettid()).unwrap();
            epoll.wait(&mut Events::with_capacity(4).unwrap(), Some(LONG)).unwrap().count()
        });
        let id = id.recv().unwrap();
        wait_until("the thread sleeps in its epoll", || is_asleep_in_epoll(id));
        Self(thread)
    }

    fn assert_woken(self) {
        assert_eq!(self.0.join().unwrap(), 1);
    }
}

/// Returns whether a thread of this process, or the only one of another process, sleeps in an epoll.
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

/// Connects a client for which the kernel wakes only the first of two.
fn connect_waking_one(first: &Owner, second: &mut Owner, endpoint: &Endpoint) -> Client {
    let sleeper = Sleeper::on(&first.epoll);
    let client = endpoint.connect();
    sleeper.assert_woken();
    assert_eq!(second.wait(SHORT), 0, "both were woken: the test shows nothing");
    client
}

/// The first of two acceptors: it was woken and has not begun a pass yet.
struct Woken {
    owner: Owner,
    acceptor: Any,
    permit: Option<Permit>,
    pause: Option<PauseGuard>,
    gate: Gate,
}

impl Woken {
    fn run_passes(&mut self) {
        for _ in 0..self.owner.wait(SHORT) {
            assert_eq!(self.acceptor.drain(drop).unwrap(), 0);
        }
    }
}

/// Nothing is shut down on a socket that does not listen: its connections would be born shut when it listens again (K24).
#[test]
fn closed_listener_can_listen_again() {
    for (listener, endpoint) in listeners().filter(|(_, endpoint)| !endpoint.kind.is_unix()) {
        let holder = listener.try_clone().unwrap();
        let mut owner = Owner::new();
        let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
        holder.shutdown(Shutdown::Read).unwrap();
        owner.until_closed(&mut acceptor);
        drop(acceptor);
        holder.listen(16).unwrap();
        // At a port of its own, again.
        let endpoint = Endpoint { address: holder.local_addr().unwrap(), ..endpoint };
        let mut acceptor = accept_on(&owner, holder, Trigger::Exclusive, None);
        let client = endpoint.connect();
        owner.serve(&mut acceptor, 1);
        client.assert_served();
    }
}

type Leave = fn(Woken) -> Option<Woken>;

/// The ways to stop listening with a connection queued. Each returns what is left of the acceptor.
const WAYS: [(&str, Leave); 7] = [
    ("paused", |mut woken| {
        woken.pause = Some(woken.acceptor.control().pause());
        woken.run_passes();
        assert_eq!(woken.acceptor.state(), State::Paused);
        Some(woken)
    }),
    ("full", |mut woken| {
        woken.permit = woken.gate.try_acquire();
        woken.run_passes();
        assert_eq!(woken.acceptor.state(), State::Full);
        Some(woken)
    }),
    ("exhausted", |mut woken| {
        let none = NoDescriptors::now();
        woken.run_passes();
        assert_eq!(woken.acceptor.state(), State::Exhausted);
        drop(none);
        Some(woken)
    }),
    ("stopped", |mut woken| {
        woken.acceptor.control().stop();
        woken.run_passes();
        assert_eq!(woken.acceptor.state(), State::Stopped);
        Some(woken)
    }),
    ("taken apart", |woken| {
        drop(woken.acceptor.into_listener());
        None
    }),
    ("dropped", |woken| {
        drop(woken);
        None
    }),
    ("unwound", |woken| {
        let unwound = thread::spawn(move || {
            let _woken = woken;
            std::panic::resume_unwind(Box::new("injected panic"));
        });
        assert!(unwound.join().is_err());
        None
    }),
];

#[test]
fn woken_acceptor_that_leaves_wakes_the_other() {
    if done_in_child("exclusive::woken_acceptor_that_leaves_wakes_the_other") {
        return;
    }
    for (listener, endpoint, second) in matrix() {
        for (way, leave) in WAYS {
            let (gate, owner, mut other) = (Gate::new(1), Owner::new(), Owner::new());
            let acceptor = gated(&owner, &listener, &gate);
            let woken = Woken { owner, acceptor, permit: None, pause: None, gate };
            let mut next = accept_on(&other, listener.try_clone().unwrap(), second, None);
            let client = match second {
                Trigger::Exclusive => connect_waking_one(&woken.owner, &mut other, &endpoint),
                // The kernel wakes every registration that is not exclusive.
                _ => endpoint.connect(),
            };
            let left = leave(woken);
            other.serve(&mut next, 1);
            drop(left);
            assert_balanced(&next);
            assert_eq!(client.read_within(LONG), Read::Served, "{way}, {second:?}");
        }
    }
}

#[test]
fn rearmed_acceptor_is_woken_again() {
    for (listener, endpoint) in listeners() {
        let (gate, mut owner, mut other) = (Gate::new(1), Owner::new(), Owner::new());
        let mut first = gated(&owner, &listener, &gate);
        let mut second = accept_on(&other, listener, Trigger::Exclusive, None);
        let permit = gate.try_acquire();
        let client = connect_waking_one(&owner, &mut other, &endpoint);
        owner.settle(&mut first);
        other.serve(&mut second, 1);
        client.assert_served();
        assert_eq!((first.state(), first.counters().rewakes), (State::Full, 1));
        other.settle(&mut second);

        drop(permit);
        owner.settle(&mut first);
        assert_eq!(first.state(), State::Listening);
        // Added again, its registration is behind the second one now.
        let client = connect_waking_one(&other, &mut owner, &endpoint);
        let pause = second.control().pause();
        other.settle(&mut second);
        owner.serve(&mut first, 1);
        client.assert_served();
        drop(pause);
        other.settle(&mut second);
        let clients = endpoint.connect_many(5);
        wait_until("an empty queue", || {
            for _ in 0..owner.wait(Duration::ZERO) {
                first.drain(|connection| serve(&connection)).unwrap();
            }
            for _ in 0..other.wait(Duration::ZERO) {
                second.drain(|connection| serve(&connection)).unwrap();
            }
            !epoll_acceptor::socket::has_pending(first.listener()).unwrap()
        });
        assert_all_served(&clients);
    }
}

#[test]
fn listening_acceptor_never_rearms() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
    for _ in 0..20 {
        let clients = endpoint.connect_many(3);
        owner.serve(&mut acceptor, 3);
        assert_all_served(&clients);
    }
    let counters = acceptor.counters();
    assert_eq!((counters.rearms, counters.rewakes), (0, 0));
}

/// While both sleep, each connection wakes the first worker and not the second.
#[test]
fn arrival_wakes_one_worker() {
    for (listener, endpoint) in listeners() {
        let workers: Vec<_> = (0..2).map(|_| Worker::start(listener.try_clone().unwrap())).collect();
        let all_sleep = || workers.iter().all(|worker| is_asleep_in_epoll(worker.id));
        for _ in 0..10 {
            wait_until("all sleep", all_sleep);
            endpoint.connect().assert_served();
        }
        wait_until("all sleep", all_sleep);
        let passes: Vec<_> = workers.into_iter().map(Worker::end).collect();
        // The last pass of each carries out the stop.
        assert_eq!(passes, [11, 1], "{:?}", endpoint.kind);
    }
}

/// A thread that sleeps in an outer epoll does not sleep in the inner one.
#[test]
fn arrival_wakes_every_nested_epoll() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let host = |()| {
        let (inner, outer) = (Owner::new(), Epoll::new().unwrap());
        outer.add(&inner.epoll, LISTENER, Interest::IN).unwrap();
        let acceptor = accept_on(&inner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
        (Sleeper::on(&outer), (inner, acceptor))
    };
    let (sleepers, hosts): (Vec<_>, Vec<_>) = [(); 2].into_iter().map(host).unzip();
    let client = endpoint.connect();
    sleepers.into_iter().for_each(Sleeper::assert_woken);
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
        let (sender, started) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
            sender.send((nix::unistd::gettid(), acceptor.control())).unwrap();
            while !acceptor.state().is_terminal() {
                for _ in 0..owner.wait(LONG) {
                    acceptor.drain(|connection| serve(&connection)).unwrap();
                }
            }
        });
        let (id, control) = started.recv().unwrap();
        Self { id, control, thread }
    }

    /// Stops the worker and returns the number of its passes.
    fn end(self) -> u64 {
        self.control.stop();
        self.thread.join().unwrap();
        self.control.counters().passes
    }
}

/// Forks a child with its own epoll on the inherited listener. It registers on a byte from `go` and writes one to `done`.
fn child(listener: &Socket, serves: bool, go: BorrowedFd<'_>, done: BorrowedFd<'_>) -> Pid {
    // SAFETY: this process runs one test and has no other thread yet that could hold a lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // SAFETY: takes no pointer; ends the child if the parent does not.
            unsafe { libc::alarm(60) };
            read(go, &mut [0]).unwrap();
            let mut owner = Owner::new();
            let mut acceptor = accept_on(&owner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
            write(done, &[1]).unwrap();
            loop {
                let due = owner.wait(LONG);
                if due > 0 && !serves {
                    // It was woken and runs no pass.
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
fn leaving_acceptor_wakes_another_process() {
    if done_in_child("exclusive::leaving_acceptor_wakes_another_process") {
        return;
    }
    for kind in [Kind::Tcp4, Kind::UnixStream] {
        let (listener, endpoint) = kind.listen();
        let ((go_out, go), (done, done_in)) = (pipe().unwrap(), pipe().unwrap());
        let child = child(&listener, true, go_out.as_fd(), done_in.as_fd());
        let owner = Owner::new();
        let acceptor = accept_on(&owner, listener.try_clone().unwrap(), Trigger::Exclusive, None);
        write(&go, &[1]).unwrap();
        read(&done, &mut [0]).unwrap();
        let sleeper = Sleeper::on(&owner.epoll);
        let client = endpoint.connect();
        sleeper.assert_woken();
        client.assert_pending();
        drop(acceptor);
        client.assert_served();
        end(child);
    }
}

/// A documented limit: a killed process wakes no other. The next arrival does.
#[test]
fn next_arrival_wakes_after_a_kill() {
    if done_in_child("exclusive::next_arrival_wakes_after_a_kill") {
        return;
    }
    let (listener, endpoint) = Kind::Tcp4.listen();
    let ((go_out, go), (done, done_in)) = (pipe().unwrap(), pipe().unwrap());
    let child = child(&listener, false, go_out.as_fd(), done_in.as_fd());
    write(&go, &[1]).unwrap();
    read(&done, &mut [0]).unwrap();
    wait_until("the child sleeps in its epoll", || is_asleep_in_epoll(child));
    let mut owner = Owner::new();
    let mut acceptor = accept_on(&owner, listener, Trigger::Exclusive, None);
    let early = endpoint.connect();
    end(child);
    assert_eq!(owner.wait(Duration::from_millis(100)), 0, "no wakeup");
    early.assert_pending();
    let late = endpoint.connect();
    owner.serve(&mut acceptor, 2);
    assert_all_served(&[early, late]);
}
