//! Cancelled futures: dropped between two polls, during a pass, and by other branches of a `select!`.

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

use epoll_acceptor::acceptor::IntoTokio;
use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Gate, Refusal, Trigger, WhenFull};
use tokio::runtime::Builder;
use tokio::task::unconstrained;

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

/// Polls a future once and drops it; reruns its output if it was ready.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
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
fn cancelled_accept_loses_no_connection() {
    const CLIENTS: usize = 300;
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            for budget in [1, 3, 64] {
                let (listener, address) = listen();
                let mut acceptor = trigger.on(listener).budget(budget).build_tokio().unwrap();
                let (mut clients, mut served, mut dropped) = (Vec::new(), 0, 0);
                while served < CLIENTS {
                    // Clients connect while futures are created, polled once and dropped.
                    if clients.len() < CLIENTS {
                        clients.extend(connect_many(address, 1 + clients.len() % 5));
                    }
                    match poll_once(acceptor.accept()).await {
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
                        // All are served: the next two polls find no connection.
                        assert!(poll_once(acceptor.accept()).await.is_none());
                        assert!(poll_once(acceptor.accept()).await.is_none());
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
fn select_loses_no_connection() {
    const CLIENTS: usize = 200;
    on_each(|| async {
        let (listener, address) = listen();
        let mut acceptor = Trigger::Level.on(listener).budget(2).build_tokio().unwrap();
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
        assert!(ticked > 0, "the other branch ran");
    });
}

#[test]
fn refused_flood_yields_to_other_tasks() {
    const CLIENTS: usize = 500;
    on_each(|| async {
        let (listener, address) = listen();
        let clients = connect_many(address, CLIENTS);
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        let gate = Gate::builder(0).when_full(WhenFull::Shed(Refusal::Close)).build();
        let mut acceptor = Trigger::Level.on(listener).budget(1).gate(&gate).build_tokio().unwrap();
        // In an executor without a budget. Only the poll itself wakes its task.
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
fn panic_costs_one_connection() {
    const CLIENTS: usize = 9;
    // The connections are numbered per thread.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let (listener, address) = listen();
            let clients = connect_many(address, CLIENTS);
            let gate = Gate::new(u32::try_from(CLIENTS).unwrap());
            let mut acceptor = trigger.on(PanickyListener(listener)).gate(&gate).build_tokio().unwrap();
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
            assert_eq!(gate.in_use(), 6, "the permits are released");
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

/// A listener; the conversion of every third connection panics.
#[derive(Debug)]
struct PanickyListener(TcpListener);

#[derive(Debug)]
struct PanickyStream(OwnedFd, u32);

impl AsFd for PanickyListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for PanickyStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for PanickyStream {
    fn from(fd: OwnedFd) -> Self {
        thread_local!(static NUMBER: Cell<u32> = const { Cell::new(0) });
        Self(fd, NUMBER.replace(NUMBER.get() + 1))
    }
}

impl Listener for PanickyListener {
    type Stream = PanickyStream;
}

impl IntoTokio for PanickyStream {
    type Stream = OwnedFd;

    fn into_tokio(self) -> io::Result<OwnedFd> {
        // Unlike `panic!`, prints no message.
        if self.1 % 3 == 2 {
            resume_unwind(Box::new("injected panic"));
        }
        Ok(self.0)
    }
}

#[test]
fn flood_yields_to_other_tasks() {
    const CLIENTS: usize = 2000;
    on_each(|| async {
        let (listener, address) = listen();
        let _clients = connect_many(address, CLIENTS);
        let gate = Gate::new(u32::MAX >> 8);
        let mut acceptor = Trigger::Level.on(listener).gate(&gate).build_tokio().unwrap();
        let runs = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&runs);
        let other = tokio::spawn(async move {
            loop {
                counting.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        // Only the acceptor yields in this loop.
        for _ in 0..CLIENTS {
            drop(acceptor.accept_std().await.unwrap().unwrap());
        }
        other.abort();
        let runs = runs.load(Ordering::Relaxed);
        assert!(runs >= 5, "another task ran {runs} times while {CLIENTS} were accepted");
    });
}
