//! The system calls of a lone connection in tokio: no more than those of tokio's own listener, but for the re-arm of an
//! edge-triggered acceptor and a look at each 31st connection.

use std::future::poll_fn;
use std::net::TcpListener;
use std::task::Poll;

use epoll_acceptor::Trigger;
use tokio::runtime::{Builder, Runtime};

use crate::costs::calls::{Calls, traced};
use crate::costs::trace::Marks;
use crate::engines::net;

/// Enough that the acceptor predicts a lone connection.
const WARM_UP: usize = 120;
/// Periods of 31: each looks once for a burst.
const ROUNDS: usize = 310;

#[test]
fn lone_connection_costs_no_more_calls_than_tokio() {
    let runtime = || Builder::new_current_thread().enable_io().build().unwrap();
    let by_tokio = |marks: Marks| {
        let (runtime, listener) = (runtime(), net::listen());
        listener.set_nonblocking(true).unwrap();
        let inside = runtime.enter();
        let mut of_tokio = tokio::net::TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        drop(inside);
        rounds(marks, &runtime, &listener, &mut of_tokio, |listener, context| {
            listener.poll_accept(context).map(|accepted| accepted.unwrap().0)
        });
    };
    let Some(theirs) = traced(by_tokio) else { return };
    let theirs = Calls::of(&theirs);
    assert_eq!((theirs.accept, theirs.wait), (2 * ROUNDS, ROUNDS), "{theirs:?}");
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        let by_us = |marks: Marks| {
            let (runtime, listener) = (runtime(), net::listen());
            let inside = runtime.enter();
            let mut acceptor = trigger.on(listener.try_clone().unwrap()).build_tokio().unwrap();
            drop(inside);
            rounds(marks, &runtime, &listener, &mut acceptor, |acceptor, context| {
                acceptor.poll_accept(context).map(|accepted| accepted.unwrap().unwrap())
            });
        };
        let ours = Calls::of(&traced(by_us).expect("traced above"));
        assert_eq!((ours.accept, ours.empty), (ROUNDS, 0), "{trigger}: {ours:?}");
        assert_eq!(ours.wait, 2 * ROUNDS, "{trigger}: the runtime's wait, and one look: {ours:?}");
        let arms = if trigger == Trigger::Edge { ROUNDS } else { 0 };
        assert_eq!(ours.ctl, theirs.ctl + arms, "{trigger}: {ours:?}, tokio {theirs:?}");
        assert!(ours.sum() <= theirs.sum() + arms + ROUNDS / 31, "{trigger}: {ours:?}, tokio {theirs:?}");
    }
}

/// Accepts lone connections. Traced is each from the runtime's wait until the acceptor would wait again.
fn rounds<A, C>(
    marks: Marks,
    runtime: &Runtime,
    listener: &TcpListener,
    acceptor: &mut A,
    poll: impl Fn(&mut A, &mut std::task::Context<'_>) -> Poll<C>,
) {
    let address = listener.local_addr().unwrap();
    for round in 0..WARM_UP + ROUNDS {
        let client = net::connect(&address);
        let mut accept = || {
            let connection = runtime.block_on(poll_fn(|context| poll(acceptor, context)));
            drop(connection);
            let next = runtime.block_on(poll_fn(|context| Poll::Ready(poll(acceptor, context))));
            assert!(next.is_pending(), "one was connected");
        };
        if round < WARM_UP {
            accept();
        } else {
            marks.around(accept);
        }
        drop(client);
    }
}
