//! Opening a group, balancing, steering, and unserved members.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;

use epoll_acceptor::group::{Group, MemberHealth, Steering};
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Acceptor, State};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::group::support::{Worker, connect_many, local, serve_all, served_group};

#[test]
fn members_share_the_port() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut group = Group::builder(local(address)).backlog(7).bind(2).unwrap();
        group.add(0).unwrap();
        group.add(3).unwrap();
        let at = group.local_addr();
        assert!(at.port() != 0 && at.ip() == local(address).ip(), "{at}");
        assert_eq!(group.report().len(), 5);
        for number in 0..5 {
            let member = group.take().unwrap();
            assert_eq!(member.index(), number);
            assert_eq!(accept_queue(&member).unwrap().backlog, 7);
            assert_eq!(member.into_listener().local_addr().unwrap(), at);
        }
        assert!(group.take().is_none());
    }
}

#[test]
fn bind_reports_errors() {
    let none = Group::builder(local("127.0.0.1:0")).bind(0).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput, "{none}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Group::builder(taken.local_addr().unwrap()).bind(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    let elsewhere = Group::builder(local("192.0.2.1:0")).bind(2).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable, "{elsewhere}");
}

#[test]
fn by_hash_assigns_connections_to_every_member() {
    let (group, mut workers) = served_group(4);
    let clients = connect_many(group.local_addr(), 400);
    let shares: Vec<u32> = workers.iter().map(Worker::depth).collect();
    assert_eq!(shares.iter().sum::<u32>(), 400);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    serve_all(&mut workers, clients);
    assert_eq!(group.unserved(), []);
}

#[test]
fn report_shows_unserved_members() {
    let mut group = Group::builder(local("127.0.0.1:0")).bind(3).unwrap();
    let (mut one, two) = (Worker::on(group.take().unwrap()), group.take().unwrap());
    let health =
        |group: &Group| -> Vec<_> { group.report().into_iter().map(|member| member.health).collect() };
    // The second member has no acceptor yet, and the third was not taken.
    let unserved: Vec<_> = group.unserved().iter().map(|member| member.index).collect();
    assert_eq!(unserved, [1, 2]);
    let two = Worker::on(two);
    assert_eq!(health(&group)[1], MemberHealth::Served, "its queue is empty");
    drop(group.take());
    assert_eq!(health(&group)[2], MemberHealth::Closed);

    // Clients connect, and only the owner of the first member runs a pass.
    let clients = connect_many(group.local_addr(), 100);
    assert_eq!(health(&group)[..2], [MemberHealth::Served; 2], "one report with a queue is not a stall");
    while one.depth() > 0 {
        one.run_pass();
    }
    assert_eq!(health(&group)[..2], [MemberHealth::Served, MemberHealth::Stalled]);
    let stalled = group.unserved();
    assert_eq!(stalled.len(), 1);
    assert_eq!((stalled[0].index, stalled[0].queue.unwrap().depth), (1, two.depth()));

    let control = two.acceptor.control();
    let mut workers = [one, two];
    while workers[1].depth() > 0 {
        workers[1].run_pass();
    }
    drop(clients);
    assert_eq!(group.unserved(), []);
    let _pause = control.pause();
    workers[1].run_pass();
    assert_eq!(health(&group)[1], MemberHealth::Blocked(State::Paused));
    control.stop();
    workers[1].run_pass();
    assert_eq!(health(&group)[1], MemberHealth::Abandoned(State::Stopped));
    assert_eq!(group.unserved().len(), 1, "the listener is open and gets its share");
    let [one, two] = workers;
    drop(two);
    assert_eq!(health(&group)[1], MemberHealth::Closed);
    drop(one);
    assert_eq!(group.unserved(), []);
}

/// The kernel assigns a client that connects on a CPU to the member of that CPU.
#[test]
fn by_cpu_assigns_to_the_member_of_the_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect();
    if cpus.len() < 2 {
        eprintln!("SKIPPED by_cpu_assigns_to_the_member_of_the_cpu: there is one CPU");
        return;
    }
    for (bound, added) in [(2, 0), (1, 1)] {
        let mut group = Group::builder(local("127.0.0.1:0")).steering(Steering::ByCpu).bind(bound).unwrap();
        group.add(added).unwrap();
        assert_assigned_by_cpu(group, &cpus);
    }
}

fn assert_assigned_by_cpu(mut group: Group, cpus: &[usize]) {
    let workers: Vec<_> = std::iter::from_fn(|| group.take()).map(Worker::on).collect();
    let address = group.local_addr();
    for (number, cpu) in cpus.iter().copied().enumerate().take(4) {
        let before: Vec<_> = workers.iter().map(Worker::depth).collect();
        let pinned = move || {
            let mut set = CpuSet::new();
            set.set(cpu).unwrap();
            sched_setaffinity(Pid::from_raw(0), &set).unwrap();
            connect_many(address, 20)
        };
        let clients = thread::spawn(pinned).join().unwrap();
        for (index, worker) in workers.iter().enumerate() {
            let arrived = worker.depth() - before[index];
            assert_eq!(
                arrived,
                if index == cpu % workers.len() { 20 } else { 0 },
                "on CPU {cpu}, number {number}"
            );
        }
        drop(clients);
    }
}
