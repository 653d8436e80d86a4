//! Loops that lose places, connections or count.

use std::mem::forget;

use epoll_acceptor::drain::{Errno, ErrnoClass};
use epoll_acceptor::sim::Action;
use epoll_acceptor::{Counters, Reserve};

use crate::desk::{Desk, Logic, Next, Pass, Right};
use crate::hunt::{Mutant, fail, level, limit, none, once, shed};
use crate::world::{Place, Stream};

pub(crate) fn mutants() -> Vec<Mutant> {
    let errno = |errno| once(&[fail(errno)]);
    vec![
        Mutant::of_loop::<KeepsTheReservation>(&["L1"], "P4", limit(2, level(1)), none()),
        Mutant::of_loop::<LeaksOnAbort>(&["L3", "M16"], "P4", limit(2, level(1)), errno(libc::ECONNABORTED)),
        Mutant::of_loop::<CountedThenShort>(&["L13"], "P4", limit(2, level(1)), errno(libc::ENOMEM)),
        Mutant::of_loop::<InterruptedHandOff>(&["L14"], "P4", limit(2, level(1)), errno(libc::EINTR)),
        Mutant::of_loop::<ShedsWithTheirPlace>(&["L6"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<PickedAndHandedOver>(&["L8"], "P4", limit(1, level(1)), none()),
        Mutant::of_loop::<PostedToNobody>(&["L9"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<DropsTheHandle>(&["L15"], "P4", limit(3, level(2)), none()),
        Mutant::of_loop::<QueuedForNobody>(&["L16"], "P5", limit(3, level(1)), none()),
        Mutant::of_loop::<SetUpFails>(&["L17"], "P5", limit(3, level(2)), none()),
        Mutant::of_loop::<NobodysListener>(&["L19"], "P5", limit(3, level(1)), once(&[Action::Stop(0)])),
        Mutant::of_loop::<CancelledAfterAccept>(
            &["M36", "M37"],
            "P5",
            limit(3, level(1)),
            once(&[Action::Pause(0)]),
        ),
        Mutant::of_loop::<HandsToTheStopped>(&["F15"], "P5", level(1), once(&[Action::Stop(0)])),
        Mutant::of_loop::<WrongArm>(&["M38"], "P5", level(3), none()),
        Mutant::of_loop::<ChecksOncePerEvent>(&["M9"], "P4", limit(2, level(3)), none()),
        Mutant::of_loop::<NewestFirst>(&["M15"], "P12", level(2), none()),
        Mutant::of_loop::<CountsAllRejected>(&["L20"], "P8", shed(1, level(1)), none()),
        Mutant::of_loop::<LastOneUncounted>(&["L21"], "P8", limit(1, level(2)), none()),
    ]
}

/// The errors of one class cost the place that was reserved.
macro_rules! leaks {
    ($($(#[$doc:meta])* $name:ident on $class:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        struct $name;

        impl Logic for $name {
            fn given_up(&mut self, at: &mut Pass<'_>, place: Place, errno: Errno) {
                if errno.class() == ErrnoClass::$class { forget(place) } else { at.world.cancel(place) }
            }
        }
    )*};
}

leaks! {
    /// A place is reserved, nobody is there, and the place stays reserved.
    KeepsTheReservation on Empty;
    /// The connection went away, its place stays.
    LeaksOnAbort on Consumed;
    /// Counted first, and then no memory for it.
    CountedThenShort on Resource;
    /// A signal came, and what was counted up is not counted down.
    InterruptedHandOff on Interrupted;
}

/// A later check refuses every second connection, and keeps its place.
#[derive(Default)]
struct ShedsWithTheirPlace;

impl Logic for ShedsWithTheirPlace {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.taken % 2 == 1 {
            return Right.taken(at, stream, place);
        }
        forget(place);
        at.refuse(stream);
        Next::Again
    }
}

/// Counted up when the worker is chosen, down when it is given the connection: always none.
#[derive(Default)]
struct PickedAndHandedOver;

impl Logic for PickedAndHandedOver {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.hand_over(stream, None);
        at.world.cancel(place);
        Next::Again
    }
}

/// The worker that was chosen has gone: the connection is closed, and counts as its own for ever.
#[derive(Default)]
struct PostedToNobody {
    chosen: Vec<Place>,
}

impl Logic for PostedToNobody {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.taken % 2 == 1 {
            return Right.taken(at, stream, place);
        }
        self.chosen.push(place);
        at.refuse(stream);
        Next::Again
    }
}

/// Handed on to another worker, a connection loses what it was counted by.
#[derive(Default)]
struct DropsTheHandle;

impl Logic for DropsTheHandle {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        let handed_on = at.taken % 2 == 0;
        at.hand_over(stream, (!handed_on).then_some(place));
        Next::Again
    }
}

/// Put into the queue of a worker that will never look.
#[derive(Default)]
struct QueuedForNobody;

impl Logic for QueuedForNobody {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        forget(stream);
        at.world.cancel(place);
        Next::Again
    }
}

/// A connection that cannot be set up is forgotten, its descriptor open.
#[derive(Default)]
struct SetUpFails;

impl Logic for SetUpFails {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.taken % 2 == 1 {
            return Right.taken(at, stream, place);
        }
        forget(stream);
        at.world.cancel(place);
        Next::Again
    }
}

/// The listener is freed while a connection is handed out: both sides think that the other one has it.
#[derive(Default)]
struct NobodysListener;

impl Logic for NobodysListener {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.bell.wishes().stop {
            at.world.cancel(place);
            drop(stream);
            return at.stop();
        }
        Right.taken(at, stream, place)
    }
}

/// The accept has succeeded, and whoever waited for it is told to do something else.
#[derive(Default)]
struct CancelledAfterAccept;

impl Logic for CancelledAfterAccept {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.bell.wishes().pause {
            drop(stream);
            at.world.cancel(place);
            return self.paused(at);
        }
        Right.taken(at, stream, place)
    }
}

/// While stopping, a connection goes to a worker that has stopped already.
#[derive(Default)]
struct HandsToTheStopped;

impl Logic for HandsToTheStopped {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.bell.wishes().stop {
            forget((stream, place));
            return at.stop();
        }
        Right.taken(at, stream, place)
    }
}

/// Two arms accept, one for successes and one for errors; the success that reaches the other one is dropped.
#[derive(Default)]
struct WrongArm;

impl Logic for WrongArm {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        if at.taken % 3 != 0 {
            return Right.taken(at, stream, place);
        }
        drop((stream, place));
        Next::Again
    }
}

/// Asks for a place once for each event, and takes all who wait.
#[derive(Default)]
struct ChecksOncePerEvent {
    place: Option<Place>,
}

impl Logic for ChecksOncePerEvent {
    fn drain(&mut self, at: &mut Pass<'_>) -> Next {
        self.place = match at.world.reserve() {
            Reserve::Room(place) => Some(place),
            _ => return self.full(at),
        };
        loop {
            match at.accept() {
                Ok(stream) => {
                    let place = self.place.take();
                    at.hand_over(stream, place);
                }
                Err(errno) => {
                    if let Some(place) = self.place.take() {
                        at.world.cancel(place);
                    }
                    return self.failed(at, errno);
                }
            }
        }
    }
}

/// Accepts all, and serves the one who came last.
#[derive(Default)]
struct NewestFirst {
    stack: Vec<(Stream, Place)>,
}

impl Logic for NewestFirst {
    fn taken(&mut self, _: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        self.stack.push((stream, place));
        Next::Again
    }

    fn leaves(&mut self, at: &mut Pass<'_>) {
        while let Some((stream, place)) = self.stack.pop() {
            at.deliver(stream, place);
        }
    }
}

/// Whoever is accepted is counted as rejected as well.
#[derive(Default)]
struct CountsAllRejected;

impl Logic for CountsAllRejected {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.counters.refused += 1;
        at.counters.refused_full += 1;
        Right.taken(at, stream, place)
    }
}

/// The connection that reaches the limit is in no count.
#[derive(Default)]
struct LastOneUncounted {
    reached: bool,
}

impl Logic for LastOneUncounted {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        self.reached = true;
        Right.full(at)
    }

    fn counters(&self, desk: &Desk) -> Counters {
        let mut counters = desk.counters.clone();
        counters.delivered -= u64::from(self.reached);
        counters
    }
}
