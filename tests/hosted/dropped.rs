//! Futures that are dropped: between two polls, mid-pass, and by other branches of a select.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use epoll_acceptor::{Gate, Trigger};

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
fn a_flood_leaves_other_tasks_their_turn() {
    const CLIENTS: usize = 2000;
    on_each(|| async {
        let (listener, address) = listen();
        let _clients = connect_many(address, CLIENTS);
        let gate = Gate::new(u32::MAX >> 8);
        let mut acceptor = Trigger::Level.on(listener).gate(&gate).into_async().unwrap();
        let turns = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counting = std::sync::Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        // Nothing in this loop gives way but the acceptor itself.
        for _ in 0..CLIENTS {
            drop(acceptor.accept_std().await.unwrap().unwrap());
        }
        other.abort();
        let turns = turns.load(std::sync::atomic::Ordering::Relaxed);
        assert!(turns >= 5, "another task had {turns} turns while {CLIENTS} were accepted");
    });
}
