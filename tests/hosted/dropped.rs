//! Futures that are dropped: between two polls, mid-pass, and by other branches of a select.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use epoll_acceptor::{Gate, IntoTokio, Listener, Refusal, Trigger, WhenFull};
use tokio::runtime::Builder;
use tokio::task::unconstrained;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

/// Polls a new `accept` once and drops it; `Some` if it was ready.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn no_connection_is_lost_with_a_future() {
    const CLIENTS: usize = 300;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            for budget in [1, 3, 64] {
                let (listener, address) = listen();
                let mut acceptor = trigger.on(listener).budget(budget).into_async().unwrap();
                let (mut clients, mut served, mut dropped) = (Vec::new(), 0, 0);
                while served < CLIENTS {
                    // They come while futures are made, polled once and dropped.
                    if clients.len() < CLIENTS {
                        clients.extend(connect_many(address, 1 + clients.len() % 5));
                    }
                    match once(acceptor.accept()).await {
                        Some(connection) => {
                            serve(&connection.unwrap().unwrap());
                            served += 1;
                        }
                        None => {
                            dropped += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                    if served == clients.len() {
                        // Everyone is served, and the next to ask finds nobody, once and again.
                        assert!(once(acceptor.accept()).await.is_none());
                        assert!(once(acceptor.accept()).await.is_none());
                        dropped += 2;
                    }
                }
                for _ in served..clients.len() {
                    serve(&acceptor.accept().await.unwrap().unwrap());
                }
                assert_all_served(&clients);
                assert!(dropped > 0, "{trigger:?}: no future was dropped");
                assert_eq!(acceptor.counters().delivered, clients.len() as u64);
            }
        }
    });
}

#[test]
fn a_select_loses_nobody() {
    const CLIENTS: usize = 200;
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = Trigger::Level.on(listener).budget(2).into_async().unwrap();
        let (sender, mut ticks) = tokio::sync::mpsc::channel(1);
        let ticker = tokio::spawn(async move { while sender.send(()).await.is_ok() {} });
        let clients = connect_many(address, CLIENTS);
        let (mut served, mut ticked) = (0, 0);
        while served < CLIENTS {
            tokio::select! {
                connection = acceptor.accept() => {
                    serve(&connection.unwrap().unwrap());
                    served += 1;
                }
                Some(()) = ticks.recv() => ticked += 1,
            }
        }
        drop(ticks);
        ticker.await.unwrap();
        assert_all_served(&clients);
        assert!(ticked > 0, "the other branch had its turns");
    });
}

#[test]
fn a_flood_that_is_refused_leaves_other_tasks_their_turn() {
    const CLIENTS: usize = 500;
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, CLIENTS);
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let gate = Gate::new(0).when_full(WhenFull::Shed(Refusal::Close));
        let mut acceptor = Trigger::Level.on(listener).budget(1).gate(&gate).into_async().unwrap();
        // In an executor that does not count. Each poll wakes its task: nobody else does.
        let mut polls = 0;
        let mut accept = pin!(unconstrained(acceptor.accept_std()));
        poll_fn(|cx| {
            polls += 1;
            assert!(accept.as_mut().poll(cx).is_pending());
            let over = clients.iter().all(|client| client.peek(&mut [0]).is_ok());
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(polls >= CLIENTS / 64, "{CLIENTS} were refused in {polls} polls");
    });
}

#[test]
fn a_panic_costs_one_connection_and_no_more() {
    const CLIENTS: usize = 9;
    // On one thread, which numbers the connections.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let clients = connect_many(address, CLIENTS);
            let gate = Gate::new(u32::try_from(CLIENTS).unwrap());
            let mut acceptor = trigger.on(Fragile(listener)).gate(&gate).into_async().unwrap();
            let (mut served, mut panics) = (Vec::new(), 0);
            while served.len() + panics < CLIENTS {
                let polled =
                    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| acceptor.poll_accept(cx))) {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(connection)) => Poll::Ready(Some(connection)),
                        Err(_) => Poll::Ready(None),
                    });
                match polled.await {
                    Some(connection) => served.push(connection.unwrap().unwrap()),
                    None => panics += 1,
                }
            }
            assert_eq!((served.len(), panics), (6, 3), "every third");
            assert_eq!(gate.in_use(), 6, "their places came back");
            served.iter().for_each(serve);
            let still_there: Vec<_> = clients
                .into_iter()
                .enumerate()
                .filter(|(n, _)| n % 3 != 2)
                .map(|(_, client)| client)
                .collect();
            assert_all_served(&still_there);
        }
    });
}

/// A listener every third of whose connections makes its owner's code panic.
#[derive(Debug)]
struct Fragile(TcpListener);

#[derive(Debug)]
struct Touchy(OwnedFd, u32);

impl AsFd for Fragile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Touchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Touchy {
    fn from(fd: OwnedFd) -> Self {
        thread_local!(static NUMBER: Cell<u32> = const { Cell::new(0) });
        Self(fd, NUMBER.replace(NUMBER.get() + 1))
    }
}

impl Listener for Fragile {
    type Stream = Touchy;
}

impl IntoTokio for Touchy {
    type Stream = OwnedFd;

    fn into_tokio(self) -> io::Result<OwnedFd> {
        // Not a panic of the harness: nothing is printed.
        if self.1 % 3 == 2 {
            resume_unwind(Box::new("touched"));
        }
        Ok(self.0)
    }
}

#[test]
fn a_flood_leaves_other_tasks_their_turn() {
    const CLIENTS: usize = 2000;
    on_each(|| async {
        let (listener, address) = listen();
        let _clients = connect_many(address, CLIENTS);
        let gate = Gate::new(u32::MAX >> 8);
        let mut acceptor = Trigger::Level.on(listener).gate(&gate).into_async().unwrap();
        let turns = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counting.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        // Nothing in this loop gives way but the acceptor itself.
        for _ in 0..CLIENTS {
            drop(acceptor.accept_std().await.unwrap().unwrap());
        }
        other.abort();
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= 5, "another task had {turns} turns while {CLIENTS} were accepted");
    });
}
