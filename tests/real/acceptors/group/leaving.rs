//! A member leaves its group, and it or the other members serve its queue.

use std::env;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;

use epoll_acceptor::group::{Group, LeaveOutcome, MemberHealth, Steering};
use epoll_acceptor::{Acceptor, Pending, Refusal};

use crate::group::support::{
    LONG, Worker, connect_many, local, retransmissions, serve, serve_all, served_group, served_group_by,
};
use crate::support::done_in_child;

const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

#[test]
fn leaving_member_serves_its_queue() {
    if done_where_queues_do_not_migrate("group::leaving::leaving_member_serves_its_queue") {
        return;
    }
    // Two members leave, in every order, so that the kernel's array changes in every way.
    for (first, second) in (0..4).flat_map(|first| (0..3).map(move |second| (first, second))) {
        let (group, mut workers) = served_group(4);
        for leaves in [first, second] {
            let worker = workers.remove(leaves);
            one_leaves(&group, worker, &mut workers);
        }
    }
}

/// Leaves the group; returns the worker if its acceptor shuts down.
fn leave(worker: Worker, pending: Pending) -> Option<Worker> {
    let Worker { epoll, events, acceptor } = worker;
    match acceptor.leave_group(pending, LONG) {
        LeaveOutcome::ShuttingDown(acceptor) => Some(Worker { epoll, events, acceptor }),
        LeaveOutcome::Migrated(_) => None,
    }
}

fn one_leaves(group: &Group, worker: Worker, others: &mut [Worker]) {
    let early = connect_many(group.local_addr(), 60);
    let own = worker.depth();
    let index = worker.acceptor.listener().index();
    let Some(mut leaving) = leave(worker, Pending::Serve(Refusal::Reset)) else {
        panic!("the queue must not migrate");
    };
    let late = connect_many(group.local_addr(), 60);
    assert_eq!(late.iter().map(retransmissions).sum::<u32>(), 0, "no SYN was dropped");
    let served = leaving.serve_to_the_end();
    let report = leaving.acceptor.shutdown_report().unwrap();
    assert_eq!((report.served, report.refused, report.abandoned), (own.into(), 0, Some(0)));
    drop(leaving);
    assert_eq!(group.report()[index].health, MemberHealth::Closed);
    serve(others, 120 - served);
    for mut client in early.into_iter().chain(late) {
        client.read_exact(&mut [0]).unwrap();
    }
    // The program is detached: the remaining members get even shares again. A share below the bound has a probability
    // of less than one in a million.
    let clients = connect_many(group.local_addr(), 400);
    let shares: Vec<u32> = others.iter().map(Worker::depth).collect();
    let bound = if others.len() == 3 { 85 } else { 150 };
    assert!(shares.iter().all(|share| *share > bound), "after {index} left: {shares:?}");
    serve_all(others, clients);
}

/// Members that leave at the same time get no new connections, also when one of them is closed before the others.
#[test]
fn members_that_leave_together_get_no_connections() {
    if done_where_queues_do_not_migrate("group::leaving::members_that_leave_together_get_no_connections") {
        return;
    }
    for steering in [Steering::ByHash, Steering::ByCpu] {
        for leaving in [[0, 1], [0, 3], [1, 2], [2, 3]] {
            let (group, workers) = served_group_by(steering, 4);
            let (mut leave_now, mut others) = (Vec::new(), Vec::new());
            for (index, worker) in (0..).zip(workers) {
                if leaving.contains(&index) { leave_now.push(worker) } else { others.push(worker) }
            }
            leave_together(&group, leave_now, &mut others);
        }
    }
}

fn leave_together(group: &Group, leaving: Vec<Worker>, others: &mut [Worker]) {
    let leave_one = |worker| leave(worker, Pending::Serve(Refusal::Reset)).unwrap();
    let mut leaving: Vec<_> = leaving.into_iter().map(leave_one).collect();
    while !leaving.is_empty() {
        let clients = connect_many(group.local_addr(), 40);
        let depths: Vec<_> = leaving.iter().map(Worker::depth).collect();
        assert!(depths.iter().all(|depth| *depth == 0), "{group:?}: {depths:?}");
        assert_eq!(clients.iter().map(retransmissions).sum::<u32>(), 0, "{group:?}: no SYN was dropped");
        serve_all(others, clients);
        leaving.remove(0).serve_to_the_end();
    }
    serve_all(others, connect_many(group.local_addr(), 40));
}

/// A group that has shrunk and grown knows the positions of its old and its new members.
#[test]
fn group_shrinks_and_grows() {
    if done_where_queues_do_not_migrate("group::leaving::group_shrinks_and_grows") {
        return;
    }
    for steering in [Steering::ByHash, Steering::ByCpu] {
        let (mut group, mut workers) = served_group_by(steering, 4);
        for stays in [0, 3, 1] {
            let mut others = vec![workers.remove(stays)];
            let last = workers.pop().unwrap();
            others.push(last);
            leave_together(&group, workers, &mut others);
            workers = others;
            let one = vec![workers.pop().unwrap()];
            leave_together(&group, one, &mut workers);
            group.add(3).unwrap();
            workers.extend(std::iter::from_fn(|| group.take()).map(Worker::on));
            let mut indices: Vec<_> =
                workers.iter().map(|worker| worker.acceptor.listener().index()).collect();
            indices.sort_unstable();
            assert_eq!((indices, group.report().len()), (vec![0, 1, 2, 3], 4), "{group:?}");
            assert_eq!(group.unserved(), []);
            let clients = connect_many(group.local_addr(), 200);
            let served: Vec<_> = workers.iter().filter(|worker| worker.depth() > 0).collect();
            // By CPU, this thread's clients may all get one member.
            assert!(steering == Steering::ByCpu || served.len() == 4, "{group:?}");
            serve_all(&mut workers, clients);
        }
        // All are closed: the new members have an array of their own.
        drop(workers);
        group.add(2).unwrap();
        let mut workers: Vec<_> = std::iter::from_fn(|| group.take()).map(Worker::on).collect();
        let one = vec![workers.remove(0)];
        leave_together(&group, one, &mut workers);
    }
}

#[test]
fn last_leaving_member_refuses_its_queue() {
    let (group, mut workers) = served_group(3);
    let clients = connect_many(group.local_addr(), 30);
    let mut refused = 0;
    while let Some(worker) = workers.pop() {
        refused += leave(worker, Pending::Refuse(Refusal::Close)).map_or(0, |mut leaving| {
            leaving.serve_to_the_end();
            leaving.acceptor.shutdown_report().unwrap().refused
        });
    }
    assert_eq!(refused, 30);
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "FIN, not RST");
    }
    assert!(group.report().iter().all(|member| member.health == MemberHealth::Closed));
}

/// Returns whether the kernel is Linux 5.14 or later. 5.10.188 and later have the sysctl without the migration.
fn kernel_can_migrate() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> =
        release.split(['.', '-']).map_while(|number| number.trim().parse().ok()).collect();
    numbers[..2] >= [5, 14][..]
}

/// Runs the test in a child process: a fork by another test would keep a member open that this one has closed. Returns
/// `true` in the parent, or where `tcp_migrate_req` is 1, and `false` in the child.
fn done_where_queues_do_not_migrate(test: &str) -> bool {
    if kernel_can_migrate() && fs::read_to_string(MIGRATE).is_ok_and(|value| value.trim() == "1") {
        eprintln!("SKIPPED {test}: {MIGRATE} is 1");
        return true;
    }
    done_in_child(test)
}

/// Runs the test in a network namespace of its own with `tcp_migrate_req` = 1, a setting of the namespace. Returns
/// `true` in the parent, also if that is not possible, and `false` in the child.
fn done_where_queues_migrate(test: &str) -> bool {
    const CHILD: &str = "EPOLL_ACCEPTOR_GROUP_CHILD";
    if env::var_os(CHILD).is_some() {
        return false;
    }
    if !kernel_can_migrate() {
        eprintln!("SKIPPED {test}: requires Linux 5.14");
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).stdin(Stdio::null());
        command
    };
    let setup = format!("ip link set lo up && echo 1 > {MIGRATE}");
    let available = unshare().args(["sh", "-c", &setup]).stderr(Stdio::null()).status();
    if !available.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED {test}: requires a network namespace, the command ip, and {MIGRATE}");
        return true;
    }
    let run = format!("{setup} && exec \"$0\" --exact {test} --nocapture --test-threads=1");
    let mut command = unshare();
    command.args(["sh", "-c", &run]).arg(env::current_exe().unwrap()).env(CHILD, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    true
}

#[test]
fn concurrent_leaves_lose_no_connection() {
    if done_where_queues_migrate("group::leaving::concurrent_leaves_lose_no_connection") {
        return;
    }
    for round in 0..200 {
        let (group, workers) = served_group(2);
        let clients = connect_many(group.local_addr(), 16);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for worker in workers {
                scope.spawn(|| {
                    start.wait();
                    if let Some(mut leaving) = leave(worker, Pending::Refuse(Refusal::message("!"))) {
                        leaving.serve_to_the_end();
                        assert_eq!(leaving.acceptor.shutdown_report().unwrap().abandoned, Some(0));
                    }
                });
            }
        });
        for mut client in clients {
            let length = client.read(&mut [0; 2]);
            assert_eq!(length.expect("no connection is reset"), 1, "in round {round}");
        }
    }
}

#[test]
fn migrated_queue_is_served_by_the_others() {
    if done_where_queues_migrate("group::leaving::migrated_queue_is_served_by_the_others") {
        return;
    }
    for leaves in 0..3 {
        let (group, mut workers) = served_group(3);
        let clients = connect_many(group.local_addr(), 90);
        let left = workers.remove(leaves);
        let own = left.depth();
        match left.acceptor.leave_group(Pending::Serve(Refusal::Reset), LONG) {
            LeaveOutcome::Migrated(count) => assert_eq!(count, own),
            LeaveOutcome::ShuttingDown(_) => panic!("the queue must migrate"),
        }
        assert_eq!(workers.iter().map(Worker::depth).sum::<u32>(), 90, "no connection is lost");
        serve_all(&mut workers, clients);
        let clients = connect_many(group.local_addr(), 100);
        assert!(workers.iter().all(|worker| worker.depth() > 0), "after {leaves} left");
        serve_all(&mut workers, clients);
        // The last member has no other one to migrate its queue to.
        let last = workers.pop().unwrap();
        drop(workers);
        let clients = connect_many(group.local_addr(), 10);
        let Some(mut leaving) = leave(last, Pending::Refuse(Refusal::Close)) else {
            panic!("the last member must shut down");
        };
        leaving.serve_to_the_end();
        assert_eq!(leaving.acceptor.shutdown_report().unwrap().refused, 10);
        drop(clients);
    }
}

/// The kernel would give a part of the queue to a member that refuses it.
#[test]
fn queue_does_not_migrate_to_a_leaving_member() {
    if done_where_queues_migrate("group::leaving::queue_does_not_migrate_to_a_leaving_member") {
        return;
    }
    let (mut group, mut workers) = served_group(1);
    let first = leave(workers.remove(0), Pending::Refuse(Refusal::Reset)).expect("the last one shuts down");
    group.add(2).unwrap();
    workers.extend(std::iter::from_fn(|| group.take()).map(Worker::on));
    let clients = connect_many(group.local_addr(), 60);
    let mut second = leave(workers.remove(0), Pending::Serve(Refusal::Reset)).expect("no migration");
    let served = second.serve_to_the_end();
    drop((second, first));
    serve(&mut workers, 60 - served);
    for mut client in clients {
        client.read_exact(&mut [0]).unwrap();
    }
}

/// A listener that was shut down from outside has lost its position.
#[test]
fn group_forgets_a_member_that_was_shut_down() {
    if done_where_queues_do_not_migrate("group::leaving::group_forgets_a_member_that_was_shut_down") {
        return;
    }
    let (mut group, mut workers) = served_group(3);
    socket2::SockRef::from(workers[0].acceptor.listener()).shutdown(std::net::Shutdown::Read).unwrap();
    group.add(1).unwrap();
    let shut_down = workers.remove(0);
    workers.extend(group.take().map(Worker::on));
    assert_eq!(workers[2].acceptor.listener().index(), 3, "the old member has its index until it is dropped");
    drop(shut_down);
    let one = vec![workers.remove(1)];
    leave_together(&group, one, &mut workers);
}

/// A member that was released from its group may be closed: a queue must not migrate because of it.
#[test]
fn released_member_takes_no_queue() {
    if done_where_queues_migrate("group::leaving::released_member_takes_no_queue") {
        return;
    }
    let mut group = Group::builder(local("127.0.0.1:0")).bind(2).unwrap();
    drop(group.take().unwrap().into_listener());
    let worker = Worker::on(group.take().unwrap());
    let clients = connect_many(group.local_addr(), 5);
    let mut leaving =
        leave(worker, Pending::Serve(Refusal::Reset)).expect("no other member is known to be open");
    assert_eq!(leaving.serve_to_the_end(), 5);
    for mut client in clients {
        client.read_exact(&mut [0]).unwrap();
    }
}
