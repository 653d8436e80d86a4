//! The trap of an edge-triggered host, on the real kernel: what strands without the rule does not with it.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use epoll_acceptor::{Acceptor, Hosted, Progress, Trigger, accept_queue};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

const FLOOD: usize = 200;
/// As of an echo server under load: a pass ends long before the queue does.
const BUDGET: u32 = 4;

/// As an adapter might be written that does not know the rule: an edge, a pass, sleep.
async fn naive<A: Acceptor>(fd: &mut AsyncFd<Hosted<A>>, kept: &mut Vec<A::Stream>) -> io::Result<()> {
    poll_fn(|cx| {
        loop {
            let mut told = ready!(fd.poll_read_ready_mut(cx))?;
            match told.get_inner_mut().turn()? {
                Progress::Connection(connection) => kept.push(connection.into_parts().0),
                Progress::Yield | Progress::Idle => told.clear_ready(),
                Progress::ListenerClosed(dead) => return Poll::Ready(Err(dead.into())),
                Progress::Stopped => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// The answers to one edge for a queue of two hundred: 4 of 200, and the rest sleeps with the host.
#[test]
#[allow(deprecated, reason = "the same call, without unsafe code")]
fn a_host_that_sleeps_after_its_pass_strands() {
    for trigger in [Trigger::Level, Trigger::Exclusive] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (listener, address) = listen();
        let _clients = connect_many(address, FLOOD);
        let eye = listener.try_clone().unwrap();
        let hosted = trigger.on(listener).budget(BUDGET).hosted().unwrap();
        let control = hosted.control();
        let mut kept = Vec::new();
        runtime.block_on(async {
            let mut fd = AsyncFd::with_interest(hosted, Interest::READABLE).unwrap();
            let task = naive(&mut fd, &mut kept);
            tokio::pin!(task);
            // Every edge that there was has been told by now: the runtime has had a hundred rounds to hear of
            // it.
            for _ in 0..100 {
                tokio::select! { biased; ended = &mut task => ended.unwrap(), () = tokio::task::yield_now() => {} }
            }
        });
        let stranded = accept_queue(&eye).unwrap().depth;
        assert_eq!(kept.len(), BUDGET as usize, "{trigger:?}: {}", control.counters());
        assert_eq!(stranded as usize, FLOOD - BUDGET as usize, "nobody will ever be told of them");
    }
}

#[test]
fn the_adapter_serves_all_on_one_edge() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            for budget in [1, BUDGET, 64] {
                let (listener, address) = listen();
                let clients = connect_many(address, FLOOD);
                let mut acceptor = trigger.on(listener).budget(budget).into_async().unwrap();
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
                // Connections are asked for one by one, and share their passes.
                let passes = (FLOOD as u64).div_ceil(u64::from(budget));
                assert!(trigger != Trigger::Edge || counters.passes == passes, "{budget}: {counters}");
            }
        }
    });
}

#[test]
fn a_lone_client_costs_one_wake_up() {
    const CLIENTS: u64 = 50;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).into_async().unwrap();
            let control = acceptor.control();
            let (told, mut served) = tokio::sync::mpsc::channel(1);
            let task = tokio::spawn(async move {
                while let Some(connection) = acceptor.accept().await.unwrap() {
                    serve(&connection);
                    told.send(()).await.unwrap();
                }
                (acceptor.counters(), acceptor.hosted().polls(), acceptor.hosted().idle_polls())
            });
            for _ in 0..CLIENTS {
                let clients = connect_many(address, 1);
                served.recv().await.unwrap();
                assert_all_served(&clients);
            }
            control.stop();
            let (counters, looks, sleeps) = task.await.unwrap();
            assert_eq!((counters.delivered, counters.empty), (CLIENTS, 0), "{trigger:?}: {counters}");
            // Before the first, after each, and one pass for the stop.
            assert!(sleeps <= CLIENTS + 1, "{trigger:?}: {sleeps} sleeps");
            assert!(looks <= 2 * CLIENTS + 2, "{trigger:?}: {looks} looks");
            assert!(counters.passes <= CLIENTS + 1, "{trigger:?}: {counters}");
        }
    });
}
