//! Loops that lose permits, connections or a count.

use std::mem::forget;

use epoll_acceptor::Counters;
use epoll_acceptor::sim::Action;
use epoll_acceptor::socket::{Errno, ErrnoClass};

use crate::calls::{Permit, Stream};
use crate::hand_loop::{HandLoop, Pass};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, fail, level, limit, none, once, shed};

pub(crate) fn mutants() -> Vec<Mutant> {
    let errno = |errno| once(&[fail(errno)]);
    vec![
        Mutant::of_loop::<KeepsTheReservation>(&["L1"], "P4", limit(2, level(1)), none()),
        Mutant::of_loop::<LeaksOnAbort>(&["L3", "M16"], "P4", limit(2, level(1)), errno(libc::ECONNABORTED)),
        Mutant::of_loop::<CountedThenShort>(&["L13"], "P4", limit(2, level(1)), errno(libc::ENOMEM)),
        Mutant::of_loop::<InterruptedHandOff>(&["L14"], "P4", limit(2, level(1)), errno(libc::EINTR)),
        Mutant::of_loop::<KeepsPermitOfRejected>(&["L6"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<ReleasedByHandOver>(&["L8"], "P4", limit(1, level(1)), none()),
        Mutant::of_loop::<PostedToDeadWorker>(&["L9"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<DropsTheHandle>(&["L15"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<QueuedForDeadWorker>(&["L16"], "P5", limit(3, level(1)), none()),
        Mutant::of_loop::<LeaksFailedSetUp>(&["L17"], "P5", limit(3, level(2)), none()),
        Mutant::of_loop::<FreesListenerEarly>(&["L19"], "P5", limit(3, level(1)), once(&[Action::Stop(0)])),
        Mutant::of_loop::<CancelledAfterAccept>(
            &["M36", "M37"],
            "P5",
            limit(3, level(1)),
            once(&[Action::Pause(0)]),
        ),
        Mutant::of_loop::<HandsToStoppedWorker>(&["F15"], "P5", level(1), once(&[Action::Stop(0)])),
        Mutant::of_loop::<DroppedBySelect>(&["M38"], "P5", level(3), none()),
        Mutant::of_loop::<ChecksOncePerEvent>(&["M9"], "P4", limit(2, level(3)), none()),
        Mutant::of_loop::<NewestFirst>(&["M15"], "P12", level(2), none()),
        Mutant::of_loop::<CountsAllRejected>(&["L20"], "P8", shed(1, level(1)), none()),
        Mutant::of_loop::<LastOneUncounted>(&["L21"], "P8", limit(1, level(2)), none()),
    ]
}

/// Errors of one class cost the permit that was reserved.
macro_rules! leaks {
    ($($(#[$doc:meta])* $name:ident on $class:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        struct $name;

        impl LoopHooks for $name {
            fn unused(&mut self, pass: &mut Pass<'_>, permit: Permit, errno: Errno) {
                if errno.class() == ErrnoClass::$class { forget(permit) } else { pass.calls.cancel(permit) }
            }
        }
    )*};
}

leaks! {
    /// The queue is empty, and the permit stays reserved.
    KeepsTheReservation on Empty;
    /// The connection was aborted, and its permit stays reserved.
    LeaksOnAbort on Consumed;
    /// Counts a connection for which there is no memory.
    CountedThenShort on Resource;
    /// A signal interrupts the accept, and the count is not taken back.
    InterruptedHandOff on Interrupted;
}

/// A later check refuses every second connection, and keeps its permit.
#[derive(Default)]
struct KeepsPermitOfRejected;

impl LoopHooks for KeepsPermitOfRejected {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.taken % 2 == 1 {
            return Reference.accepted(pass, stream, permit);
        }
        forget(permit);
        pass.refuse(stream);
        Next::Again
    }
}

/// Counts up when the worker is chosen and down when the worker gets the connection: the count is always zero.
#[derive(Default)]
struct ReleasedByHandOver;

impl LoopHooks for ReleasedByHandOver {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.hand_over(stream, None);
        pass.calls.cancel(permit);
        Next::Again
    }
}

/// The chosen worker has ended: the connection is closed, and counts as the worker's forever.
#[derive(Default)]
struct PostedToDeadWorker {
    chosen: Vec<Permit>,
}

impl LoopHooks for PostedToDeadWorker {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.taken % 2 == 1 {
            return Reference.accepted(pass, stream, permit);
        }
        self.chosen.push(permit);
        pass.refuse(stream);
        Next::Again
    }
}

/// A connection that is handed to another worker loses its permit.
#[derive(Default)]
struct DropsTheHandle;

impl LoopHooks for DropsTheHandle {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        let handed_on = pass.taken % 2 == 0;
        pass.hand_over(stream, (!handed_on).then_some(permit));
        Next::Again
    }
}

/// Queues the connection for a worker that never looks.
#[derive(Default)]
struct QueuedForDeadWorker;

impl LoopHooks for QueuedForDeadWorker {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        forget(stream);
        pass.calls.cancel(permit);
        Next::Again
    }
}

/// A connection whose set-up fails is forgotten, its descriptor open.
#[derive(Default)]
struct LeaksFailedSetUp;

impl LoopHooks for LeaksFailedSetUp {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.taken % 2 == 1 {
            return Reference.accepted(pass, stream, permit);
        }
        forget(stream);
        pass.calls.cancel(permit);
        Next::Again
    }
}

/// The listener is freed while a connection is handed out: each side takes the other for the owner of the connection.
#[derive(Default)]
struct FreesListenerEarly;

impl LoopHooks for FreesListenerEarly {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.notifier.requests().stop() {
            pass.calls.cancel(permit);
            drop(stream);
            return pass.stop();
        }
        Reference.accepted(pass, stream, permit)
    }
}

/// The accept has succeeded, and the task that awaited it is cancelled.
#[derive(Default)]
struct CancelledAfterAccept;

impl LoopHooks for CancelledAfterAccept {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.notifier.requests().paused() {
            drop(stream);
            pass.calls.cancel(permit);
            return self.paused(pass);
        }
        Reference.accepted(pass, stream, permit)
    }
}

/// During a stop, a connection goes to a worker that has stopped already.
#[derive(Default)]
struct HandsToStoppedWorker;

impl LoopHooks for HandsToStoppedWorker {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.notifier.requests().stop() {
            forget((stream, permit));
            return pass.stop();
        }
        Reference.accepted(pass, stream, permit)
    }
}

/// Two arms of a select accept, one for successes and one for errors; a success in the second is dropped.
#[derive(Default)]
struct DroppedBySelect;

impl LoopHooks for DroppedBySelect {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        if pass.taken % 3 != 0 {
            return Reference.accepted(pass, stream, permit);
        }
        drop((stream, permit));
        Next::Again
    }
}

/// Asks for one permit per event, and accepts the whole queue.
#[derive(Default)]
struct ChecksOncePerEvent {
    permit: Option<Permit>,
}

impl LoopHooks for ChecksOncePerEvent {
    fn drain(&mut self, pass: &mut Pass<'_>) -> Next {
        self.permit = pass.calls.try_acquire();
        if self.permit.is_none() {
            return self.full(pass);
        }
        loop {
            match pass.accept() {
                Ok(stream) => {
                    let permit = self.permit.take();
                    pass.hand_over(stream, permit);
                }
                Err(errno) => {
                    if let Some(permit) = self.permit.take() {
                        pass.calls.cancel(permit);
                    }
                    return self.failed(pass, errno);
                }
            }
        }
    }
}

/// Accepts the whole queue, and serves the newest first.
#[derive(Default)]
struct NewestFirst {
    stack: Vec<(Stream, Permit)>,
}

impl LoopHooks for NewestFirst {
    fn accepted(&mut self, _: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        self.stack.push((stream, permit));
        Next::Again
    }

    fn end(&mut self, pass: &mut Pass<'_>) {
        while let Some((stream, permit)) = self.stack.pop() {
            pass.deliver(stream, permit);
        }
    }
}

/// Counts each accepted connection as rejected, too.
#[derive(Default)]
struct CountsAllRejected;

impl LoopHooks for CountsAllRejected {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.count_refused();
        Reference.accepted(pass, stream, permit)
    }
}

/// Does not count the connection that reaches the limit.
#[derive(Default)]
struct LastOneUncounted {
    reached: bool,
}

impl LoopHooks for LastOneUncounted {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        self.reached = true;
        Reference.full(pass)
    }

    fn counters(&self, hand_loop: &HandLoop) -> Counters {
        let mut counters = hand_loop.counters.clone();
        counters.delivered -= u64::from(self.reached);
        counters
    }
}
