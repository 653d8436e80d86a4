//! Opening, dividing, steering, and who is missing.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;

use epoll_acceptor::group::{MemberHealth, Steering};
use epoll_acceptor::{Acceptor, Group, State, accept_queue};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::support::{Worker, attended, connect_many, local, serve_all};

#[test]
fn all_members_listen_on_the_port_that_the_first_one_picked() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut group = Group::builder(local(address)).backlog(7).bind(5).unwrap();
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
fn what_cannot_be_opened_is_an_error_at_once() {
    let none = Group::builder(local("127.0.0.1:0")).bind(0).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput, "{none}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Group::builder(taken.local_addr().unwrap()).bind(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    let elsewhere = Group::builder(local("192.0.2.1:0")).bind(2).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable, "{elsewhere}");
}

#[test]
fn each_member_gets_its_share_and_all_are_served() {
    let (group, mut workers) = attended(4);
    let clients = connect_many(group.local_addr(), 400);
    let shares: Vec<u32> = workers.iter().map(Worker::depth).collect();
    assert_eq!(shares.iter().sum::<u32>(), 400);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    serve_all(&mut workers, clients);
    assert_eq!(group.unserved(), []);
}

#[test]
fn a_member_that_nobody_serves_is_reported() {
    let mut group = Group::builder(local("127.0.0.1:0")).bind(3).unwrap();
    let (mut one, two) = (Worker::on(group.take().unwrap()), Worker::on(group.take().unwrap()));
    group.set_control(one.acceptor.listener(), one.acceptor.control());
    let attendance =
        |group: &Group| -> Vec<_> { group.report().into_iter().map(|member| member.attendance).collect() };
    // The second has an acceptor of which the group was not told, the third was not even taken.
    let missing: Vec<_> = group.unserved().iter().map(|member| member.index).collect();
    assert_eq!(missing, [1, 2]);
    group.set_control(two.acceptor.listener(), two.acceptor.control());
    assert_eq!(attendance(&group)[1], MemberHealth::Served, "nobody waits there");
    drop(group.take());
    assert_eq!(attendance(&group)[2], MemberHealth::Closed);

    // Clients come, and only the first one's owner answers.
    let clients = connect_many(group.local_addr(), 100);
    assert_eq!(attendance(&group)[..2], [MemberHealth::Served; 2], "there was no time yet");
    while one.depth() > 0 {
        one.turn();
    }
    assert_eq!(attendance(&group)[..2], [MemberHealth::Served, MemberHealth::Stalled]);
    let stalled = group.unserved();
    assert_eq!(stalled.len(), 1);
    assert_eq!((stalled[0].index, stalled[0].queue.unwrap().depth), (1, two.depth()));

    let control = two.acceptor.control();
    let mut workers = [one, two];
    while workers[1].depth() > 0 {
        workers[1].turn();
    }
    drop(clients);
    assert_eq!(group.unserved(), []);
    control.pause();
    workers[1].turn();
    assert_eq!(attendance(&group)[1], MemberHealth::Asleep(State::Paused));
    control.stop();
    workers[1].turn();
    assert_eq!(attendance(&group)[1], MemberHealth::Abandoned(State::Stopped));
    assert_eq!(group.unserved().len(), 1, "it is open, and gets its share");
    let [one, two] = workers;
    drop(two);
    assert_eq!(attendance(&group)[1], MemberHealth::Closed);
    drop(one);
    assert_eq!(group.unserved(), []);
}

/// A client that connects on a CPU is sent to that CPU's member.
#[test]
fn by_cpu_each_goes_to_the_member_of_its_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect();
    if cpus.len() < 2 {
        eprintln!("SKIPPED by_cpu_each_goes_to_the_member_of_its_cpu: there is one CPU");
        return;
    }
    let members = 2;
    let mut group = Group::builder(local("127.0.0.1:0")).steer(Steering::ByCpu).bind(members).unwrap();
    let workers: Vec<_> = std::iter::from_fn(|| group.take()).map(Worker::on).collect();
    let address = group.local_addr();
    for (number, cpu) in cpus.into_iter().enumerate().take(4) {
        let before: Vec<_> = workers.iter().map(Worker::depth).collect();
        let bound = move || {
            let mut one = CpuSet::new();
            one.set(cpu).unwrap();
            sched_setaffinity(Pid::from_raw(0), &one).unwrap();
            connect_many(address, 20)
        };
        let clients = thread::spawn(bound).join().unwrap();
        for (index, worker) in workers.iter().enumerate() {
            let came = worker.depth() - before[index];
            assert_eq!(came, if index == cpu % members { 20 } else { 0 }, "on CPU {cpu}, the {number}th");
        }
        drop(clients);
    }
}

#[test]
#[should_panic(expected = "another group's")]
fn a_stranger_is_not_attended() {
    let (group, _workers) = attended(1);
    let (_other, strangers) = attended(1);
    group.set_control(strangers[0].acceptor.listener(), strangers[0].acceptor.control());
}
