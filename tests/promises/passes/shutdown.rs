//! When a graceful shutdown ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::{Acceptor, Pending, Refusal, State, Trigger};

use crate::passes::{Passes, Queue};

const WITHIN: Duration = Duration::from_secs(10);

/// A handshake that ends within the grace shows that others may be under way.
#[test]
fn late_handshake_restarts_the_grace() {
    let each = [Pending::Serve(Refusal::Close), Pending::Refuse(Refusal::Close)];
    // It ends before a pass, or during one.
    for (pending, during) in each.iter().flat_map(|pending| [(pending, false), (pending, true)]) {
        let queue = Arc::new(Queue::default());
        queue.handshakes.store(true, Ordering::Relaxed);
        let mut passes: Passes =
            Passes::on(Arc::clone(&queue), None, (), Trigger::Level, EmptyCheck::QueueLength, 64);
        passes.acceptor.control().shutdown_gracefully(pending.clone(), WITHIN);
        // The grace is 250 ms.
        for (at, arrivals, state, alarm_at) in [
            (0, 0, State::Listening, 250),
            (200, 1, State::Listening, 450),
            (300, 0, State::Listening, 450),
            (449, 0, State::Listening, 450),
            (450, 0, State::Stopped, 0),
        ] {
            queue.now.store(at, Ordering::Relaxed);
            let before = if during { 0 } else { arrivals };
            queue.pending.fetch_add(before, Ordering::Relaxed);
            let ready = passes.acceptor.ready();
            queue.pending.fetch_add(arrivals - before, Ordering::Relaxed);
            assert!(ready.count() <= 1);
            assert_eq!(passes.acceptor.state(), state, "{pending:?}, at {at} ms");
            assert_eq!(queue.alarm_at.load(Ordering::Relaxed), alarm_at, "P2: {pending:?}, at {at} ms");
        }
        let report = passes.acceptor.shutdown_report().expect("it has ended");
        assert_eq!(report.served + report.refused, 1, "{pending:?}");
    }
}

/// One that is served and one that is aborted are two, not none.
#[test]
fn aborted_handshake_restarts_the_grace() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    passes.queue.handshakes.store(true, Ordering::Relaxed);
    passes.acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), WITHIN);
    passes.pass(0);
    passes.wait(200);
    let mut ready = passes.acceptor.ready();
    passes.queue.pending.store(2, Ordering::Relaxed);
    assert!(ready.next().is_some());
    passes.queue.errno.store(libc::ECONNABORTED, Ordering::Relaxed);
    passes.queue.pending.store(0, Ordering::Relaxed);
    assert!(ready.next().is_none());
    assert_eq!(passes.acceptor.counters().aborted, 1);
    assert_eq!(passes.queue.alarm_at.load(Ordering::Relaxed), 450);
}

/// The deadline is checked before each accept: the owner may serve the connections of a pass for long.
#[test]
fn deadline_ends_a_pass() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    // What came before is not counted.
    passes.pass(2);
    passes.fail(libc::ECONNABORTED);
    passes.pass(1);
    passes.fail(0);
    passes.acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), WITHIN);
    passes.queue.pending.store(3, Ordering::Relaxed);
    let mut ready = passes.acceptor.ready();
    assert!(ready.next().is_some());
    passes.queue.now.store(10_000, Ordering::Relaxed);
    assert!(ready.next().is_none());
    let report = passes.acceptor.shutdown_report().expect("it has ended");
    assert_eq!((report.served, report.refused, report.aborted), (1, 2, 0));
}

#[test]
fn deadline_before_the_grace_is_waited_for() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    passes.queue.handshakes.store(true, Ordering::Relaxed);
    let within = Duration::from_millis(100);
    passes.acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), within);
    for (at, state) in
        [(0, State::Listening), (50, State::Listening), (99, State::Listening), (100, State::Stopped)]
    {
        passes.queue.now.store(at, Ordering::Relaxed);
        passes.pass(0);
        assert_eq!(passes.acceptor.state(), state, "at {at} ms");
    }
}

/// Where new connections cannot be kept out, nothing else ends it.
#[test]
fn refusals_at_the_end_are_bounded() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    passes.acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), Duration::ZERO);
    passes.pass(70_000);
    let report = passes.acceptor.shutdown_report().expect("it has ended");
    assert_eq!((report.refused, report.abandoned), (1 << 16, Some(70_000 - (1 << 16))));
}
