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
    for pending in [Pending::Serve(Refusal::Close), Pending::Refuse(Refusal::Close)] {
        let queue = Arc::new(Queue::default());
        queue.handshakes.store(true, Ordering::Relaxed);
        let mut passes: Passes =
            Passes::on(Arc::clone(&queue), None, (), Trigger::Level, EmptyCheck::QueueLength, 64);
        passes.acceptor.control().shutdown_gracefully(pending.clone(), WITHIN);
        // The grace is 250 ms.
        for (at, arrivals, state) in [
            (0, 0, State::Listening),
            (200, 1, State::Listening),
            (300, 0, State::Listening),
            (449, 0, State::Listening),
            (450, 0, State::Stopped),
        ] {
            queue.now.store(at, Ordering::Relaxed);
            passes.pass(arrivals);
            assert_eq!(passes.acceptor.state(), state, "{pending:?}, at {at} ms");
        }
        let report = passes.acceptor.shutdown_report().expect("it has ended");
        assert_eq!(report.served + report.refused, 1, "{pending:?}");
    }
}

/// The deadline is checked before each accept: the owner may serve the connections of a pass for long.
#[test]
fn deadline_ends_a_pass() {
    let mut passes = Passes::new(Trigger::Level, EmptyCheck::QueueLength, 64);
    passes.acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), WITHIN);
    passes.queue.pending.store(3, Ordering::Relaxed);
    let mut ready = passes.acceptor.ready();
    assert!(ready.next().is_some());
    passes.queue.now.store(10_000, Ordering::Relaxed);
    assert!(ready.next().is_none());
    let report = passes.acceptor.shutdown_report().expect("it has ended");
    assert_eq!((report.served, report.refused), (1, 2));
}
