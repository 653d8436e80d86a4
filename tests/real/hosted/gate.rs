//! A gate in async code: `acquire` and `idle` beside acceptors that wait at the same gate, and the handshake stage.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use epoll_acceptor::{Gate, LevelTriggered, State, Trigger};

use crate::support::{assert_all_served, connect_many, listen, on_each, serve};

/// Polls a future with a waker that does nothing.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn acquire_is_fifo_with_acceptors() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let gate = Gate::new(1);
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).gate(&gate).build_tokio().unwrap();
            let clients = connect_many(address, 1);
            let held = gate.acquire().await;
            assert!(!gate.has_waiters());
            // In the wait queue: a task, the acceptor, another task.
            let mut first = pin!(gate.acquire());
            assert!(poll(first.as_mut()).is_pending());
            let blocked = tokio::time::timeout(Duration::from_millis(5), acceptor.accept()).await;
            assert!(blocked.is_err() && acceptor.state() == State::Full);
            let mut last = pin!(gate.acquire());
            assert!(poll(last.as_mut()).is_pending());
            assert!(gate.has_waiters());

            drop(held);
            assert!(poll(last.as_mut()).is_pending(), "not before the others");
            let permit = first.await;
            assert_eq!(gate.in_use(), 1);
            drop(permit);
            assert!(poll(last.as_mut()).is_pending(), "the acceptor is next");
            let connection = acceptor.accept().await.unwrap().unwrap();
            serve(&connection);
            assert!(poll(last.as_mut()).is_pending());
            drop(connection);
            let permit = last.await;
            assert_all_served(&clients);
            assert!(!gate.has_waiters());
            drop(permit);
            assert_eq!(gate.in_use(), 0);
        }
    });
}

#[test]
fn cancelled_acquire_hands_its_permit_on() {
    on_each(|| async {
        let gate = Gate::new(1);
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio().unwrap();
        let clients = connect_many(address, 1);
        let control = acceptor.control();
        let held = gate.try_acquire().unwrap();
        let mut cancelled = Box::pin(gate.acquire());
        let mut waiting = Box::pin(gate.acquire());
        assert!(poll(cancelled.as_mut()).is_pending() && poll(waiting.as_mut()).is_pending());
        let accepting = tokio::spawn(async move {
            let connection = acceptor.accept().await.unwrap().unwrap();
            serve(&connection);
        });
        while control.state() != State::Full {
            tokio::task::yield_now().await;
        }
        drop(held);
        // Granted to the first and not collected: its cancellation hands the permit on, to a waiter that goes too.
        assert_eq!(gate.in_use(), 1);
        drop(cancelled);
        drop(waiting);
        accepting.await.unwrap();
        assert_all_served(&clients);
        gate.idle().await;
        assert_eq!((gate.in_use(), gate.has_waiters()), (0, false));
    });
}

#[test]
fn idle_resolves_with_the_last_release() {
    on_each(|| async {
        let gate = Gate::new(3);
        gate.idle().await;
        let (listener, address) = listen();
        let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio().unwrap();
        let _clients = connect_many(address, 3);
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(acceptor.accept().await.unwrap().unwrap());
        }
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.idle().await })
            })
            .collect();
        let mut cancelled = Box::pin(gate.idle());
        assert!(poll(cancelled.as_mut()).is_pending());
        drop(cancelled);
        while let Some(connection) = kept.pop() {
            assert!(waiting.iter().all(|task| !task.is_finished()));
            let releasing = std::thread::spawn(move || drop(connection.into_parts()));
            releasing.join().unwrap();
        }
        for task in waiting {
            task.await.unwrap();
        }
    });
}

#[test]
fn handshake_stage_blocks_until_handshake_done() {
    on_each(|| async {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            let gate = Gate::builder(10).handshakes(1).build();
            let (listener, address) = listen();
            let mut acceptor = trigger.on(listener).gate(&gate).build_tokio().unwrap();
            let clients = connect_many(address, 4);
            let mut kept = Vec::new();
            for served in 1..=3 {
                let connection = acceptor.accept().await.unwrap().unwrap();
                serve(&connection);
                assert_eq!((gate.in_use(), gate.handshakes_in_use()), (served, 1));
                let blocked = tokio::time::timeout(Duration::from_millis(5), acceptor.accept()).await;
                assert!(blocked.is_err() && acceptor.state() == State::Full);
                // On another thread, and any number of times.
                let connection = tokio::task::spawn_blocking(move || {
                    (0..3).for_each(|_| connection.permit().handshake_done());
                    connection
                });
                kept.push(connection.await.unwrap());
                // The stage is free, or kept for the acceptor, which waits for it.
                assert!(gate.handshakes_in_use() <= 1);
            }
            let last = acceptor.accept().await.unwrap().unwrap();
            serve(&last);
            kept[0].permit().handshake_done();
            assert_eq!((gate.in_use(), gate.handshakes_in_use()), (4, 1), "idempotent");
            assert!(gate.try_acquire().is_none());
            // A release ends the stage too.
            drop(last);
            assert_eq!((gate.in_use(), gate.handshakes_in_use()), (3, 0));
            drop(kept);
            assert_eq!(gate.in_use(), 0);
            assert_all_served(&clients);
        }
    });
}
