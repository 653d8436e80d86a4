//! The trap of an edge-triggered host on the real kernel: without the rule it strands connections, with it none.

use std::future::poll_fn;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::task::{Poll, ready};

use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Hosted, Progress, Trigger};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

const FLOOD: usize = 200;
/// As under load: a pass ends long before the queue is empty.
const BUDGET: u32 = 4;

/// An adapter that violates the rule: it sleeps after each pass.
async fn naive(fd: &mut AsyncFd<Hosted<TcpListener>>, kept: &mut Vec<TcpStream>) -> io::Result<()> {
    poll_fn(|cx| {
        loop {
            let mut readiness = ready!(fd.poll_read_ready_mut(cx))?;
            match readiness.get_inner_mut().poll_accept()? {
                Progress::Connection(connection) => kept.push(connection.into_parts().0),
                Progress::Yield | Progress::Idle => readiness.clear_ready(),
                Progress::ListenerClosed(closed) => return Poll::Ready(Err(closed.into())),
                Progress::Stopped => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// One edge for 200 connections: the pass serves 4, and the rest is stranded.
#[test]
#[allow(deprecated, reason = "the same call, without unsafe code")]
fn sleep_after_a_pass_strands_connections() {
    for trigger in [Trigger::Level, Trigger::Exclusive] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (listener, address) = listen();
        let _clients = connect_many(address, FLOOD);
        let observer = listener.try_clone().unwrap();
        let hosted = trigger.on(listener).budget(BUDGET).build_hosted().unwrap();
        let control = hosted.control();
        let mut kept = Vec::new();
        runtime.block_on(async {
            let mut fd = AsyncFd::with_interest(hosted, Interest::READABLE).unwrap();
            let task = naive(&mut fd, &mut kept);
            tokio::pin!(task);
            // The runtime has polled its epoll a hundred times: no edge is outstanding.
            for _ in 0..100 {
                tokio::select! { biased; ended = &mut task => ended.unwrap(), () = tokio::task::yield_now() => {} }
            }
        });
        let stranded = accept_queue(&observer).unwrap().depth;
        assert_eq!(kept.len(), BUDGET as usize, "{trigger:?}: {}", control.counters());
        assert_eq!(stranded as usize, FLOOD - BUDGET as usize, "no wakeup will deliver them");
    }
}

#[test]
fn accept_serves_all_on_one_edge() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            for budget in [1, BUDGET, 64] {
                let (listener, address) = listen();
                let clients = connect_many(address, FLOOD);
                let mut acceptor = trigger.on(listener).budget(budget).build_tokio().unwrap();
                for _ in 0..FLOOD {
                    serve(&acceptor.accept().await.unwrap().unwrap());
                }
                assert_all_served(&clients);
                let counters = acceptor.counters();
                assert_eq!(
                    (counters.delivered, counters.empty),
                    (FLOOD as u64, 0),
                    "{trigger:?}: {counters}"
                );
                // Connections are accepted one by one and share their passes.
                let passes = (FLOOD as u64).div_ceil(u64::from(budget));
                assert!(trigger != Trigger::Edge || counters.passes == passes, "{budget}: {counters}");
            }
        }
    });
}

#[test]
fn polls_are_counted() {
    let (listener, address) = listen();
    let mut hosted = Trigger::Level.on(listener).build_hosted().unwrap();
    let mut poll = |expected: &str| {
        let progress = format!("{:?}", hosted.poll_accept().unwrap());
        assert!(progress.starts_with(expected), "{progress}");
        (hosted.polls(), hosted.idle_polls())
    };
    assert_eq!(poll("Idle"), (1, 1));
    let _client = connect_many(address, 1);
    assert_eq!(poll("Connection"), (2, 1));
    assert_eq!(poll("Yield"), (2, 1));
    assert_eq!(poll("Idle"), (3, 2));
}

#[test]
fn lone_client_costs_one_wakeup() {
    const CLIENTS: u64 = 50;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).build_tokio().unwrap();
            let control = acceptor.control();
            let (sender, mut served) = tokio::sync::mpsc::channel(1);
            let task = tokio::spawn(async move {
                while let Some(connection) = acceptor.accept().await.unwrap() {
                    serve(&connection);
                    sender.send(()).await.unwrap();
                }
                (acceptor.counters(), acceptor.hosted().polls(), acceptor.hosted().idle_polls())
            });
            for _ in 0..CLIENTS {
                let clients = connect_many(address, 1);
                served.recv().await.unwrap();
                assert_all_served(&clients);
            }
            control.stop();
            let (counters, polls, idle_polls) = task.await.unwrap();
            assert_eq!((counters.delivered, counters.empty), (CLIENTS, 0), "{trigger:?}: {counters}");
            // One before the first connection, one after each, and one pass for the stop.
            assert!(idle_polls <= CLIENTS + 1, "{trigger:?}: {idle_polls} idle polls");
            assert!(polls <= 2 * CLIENTS + 2, "{trigger:?}: {polls} polls");
            assert!(counters.passes <= CLIENTS + 1, "{trigger:?}: {counters}");
        }
    });
}
