//! Loops that leave somebody in the queue.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use epoll_acceptor::Reserve;
use epoll_acceptor::admission::Wishes;
use epoll_acceptor::drain::{Errno, ErrnoClass};
use epoll_acceptor::sim::Action;

use crate::desk::{Desk, Logic, Next, Pass, Right};
use crate::hunt::{Mutant, budget, edge, fail, level, limit, none, once, twice, two};
use crate::world::{Place, Stream};

pub(crate) fn mutants() -> Vec<Mutant> {
    let pause = [Action::Pause(0)];
    vec![
        Mutant::of_loop::<CutShort>(&["S1", "M34"], "P1", budget(2, edge(3)), none()),
        Mutant::of_loop::<OneEach>(&["S2", "M1", "M2"], "P1", edge(2), none()),
        Mutant::of_loop::<OneEach>(&["S3"], "P1", edge(0), twice(&[Action::Connect(0)])),
        Mutant::of_loop::<AskedForMore>(&["S6"], "P1", edge(2), none()),
        Mutant::of_loop::<DeafToResume>(&["S4", "M18"], "P1", edge(2), once(&pause)),
        Mutant::of_loop::<AbortIsEmpty>(&["S7"], "P1", edge(2), once(&[fail(libc::ECONNABORTED)])),
        Mutant::of_loop::<RepostAtBudget>(&["S8"], "P1", edge(2), once(&[fail(libc::ENOBUFS)])),
        Mutant::of_loop::<AbortReturns>(&["S9"], "P1", edge(2), once(&[fail(libc::ECONNABORTED)])),
        Mutant::of_loop::<GoneFromTheEpoll>(&["S10"], "P1", level(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<WaitsForAnEdge>(&["S11"], "P1", edge(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<RearmsOnSuccess>(&["S12"], "P1", level(2), once(&[fail(libc::EPROTO)])),
        Mutant::of_loop::<InnerQueue>(&["S16"], "P5", edge(3), none()),
        Mutant::of_loop::<NeverAgain>(&["S26"], "P1", limit(1, level(2)), none()),
        Mutant::of_loop::<OnlySuccessGoesOn>(&["S27"], "P1", level(1), once(&[fail(libc::EINTR)])),
        Mutant::of_loop::<SkipsTheRead>(&["S28"], "P1", limit(1, edge(2)), none()),
        Mutant::of_loop::<SkipsTheRead>(&["M13"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<ParksForEver>(&["S30", "M31"], "P1", level(1), once(&[fail(libc::ENFILE)])),
        Mutant::of_loop::<Unserved>(&["S36"], "P1", two(level(1)), none()),
        Mutant::of_loop::<ForgetsReadiness>(&["M4", "M33"], "P1", edge(2), once(&[fail(libc::EINTR)])),
        Mutant::of_loop::<TimerDoesNotDrain>(&["M5"], "P1", edge(1), once(&[fail(libc::EMFILE)])),
        Mutant::of_loop::<TakesFirst>(&["M14"], "P5", limit(1, level(2)), none()),
        Mutant::of_loop::<TrustsTheTimer>(
            &["M22"],
            "P1",
            level(1),
            vec![vec![fail(libc::ENOBUFS)], vec![Action::Pause(0)], vec![Action::Tick]],
        ),
        Mutant::of_loop::<WaitsForIdle>(&["F5"], "P1", budget(1, level(2)), none()),
        Mutant::of_loop::<WaitsForAByte>(&["F7"], "P1", edge(2), none()),
        Mutant::of_loop::<ClearsItsTimer>(&["F11"], "P1", level(1), once(&[Action::Exhaust])),
    ]
}

/// Back to the wait when the budget is used up, and nothing asked for.
#[derive(Default)]
struct CutShort;

impl Logic for CutShort {
    fn spent(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// One accept for each event.
#[derive(Default)]
struct OneEach;

impl Logic for OneEach {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        Next::Leave
    }
}

/// Goes on only while it got as much as it asked for, as one does with bytes.
#[derive(Default)]
struct AskedForMore;

impl Logic for AskedForMore {
    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        if at.taken == at.budget { Next::Again } else { Next::Leave }
    }
}

/// Whoever rings wants something else, so it does not accept.
#[derive(Default)]
struct DeafToResume;

impl Logic for DeafToResume {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if wishes.rung && !wishes.pause && !wishes.stop { Next::Leave } else { Right.begin(at, wishes) }
    }
}

/// One connection that went away stands for an empty queue.
#[derive(Default)]
struct AbortIsEmpty;

impl Logic for AbortIsEmpty {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.class() {
            ErrnoClass::Consumed => ErrnoClass::Empty,
            other => other,
        }
    }
}

/// Comes back by itself only if the budget was used up, also after an error.
#[derive(Default)]
struct RepostAtBudget;

impl Logic for RepostAtBudget {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        if at.taken >= at.budget {
            at.tell_me_again();
        }
        Next::Leave
    }
}

/// Returns when one connection went away.
#[derive(Default)]
struct AbortReturns;

impl Logic for AbortReturns {
    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Consumed { Next::Leave } else { Right.failed(at, errno) }
    }
}

/// Out of descriptors it takes its listener out of the epoll, and nothing puts it back.
#[derive(Default)]
struct GoneFromTheEpoll;

impl Logic for GoneFromTheEpoll {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.world.detach();
        Next::Leave
    }
}

/// Out of descriptors it waits for the next client.
#[derive(Default)]
struct WaitsForAnEdge;

impl Logic for WaitsForAnEdge {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Silent while it accepts one, and listening again only if that could be set up.
#[derive(Default)]
struct RearmsOnSuccess;

impl Logic for RearmsOnSuccess {
    fn begin(&mut self, at: &mut Pass<'_>, _: Wishes) -> Next {
        at.silence();
        Next::Again
    }

    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        at.wake();
        Next::Leave
    }

    fn failed(&mut self, at: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Consumed { Next::Leave } else { Right.failed(at, errno) }
    }
}

/// The same, and no error at all asks for the next one.
#[derive(Default)]
struct OnlySuccessGoesOn;

impl Logic for OnlySuccessGoesOn {
    fn begin(&mut self, at: &mut Pass<'_>, _: Wishes) -> Next {
        at.silence();
        Next::Again
    }

    fn taken(&mut self, at: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        at.deliver(stream, place);
        at.wake();
        Next::Leave
    }

    fn failed(&mut self, _: &mut Pass<'_>, _: Errno) -> Next {
        Next::Leave
    }
}

/// A queue of its own behind the kernel's: all are taken, two are served, and the event is used up.
#[derive(Default)]
struct InnerQueue {
    queue: VecDeque<(Stream, Place)>,
}

impl Logic for InnerQueue {
    fn taken(&mut self, _: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        self.queue.push_back((stream, place));
        Next::Again
    }

    fn leaves(&mut self, at: &mut Pass<'_>) {
        for _ in 0..2 {
            let Some((stream, place)) = self.queue.pop_front() else { return };
            at.deliver(stream, place);
        }
    }
}

/// Full once, closed for good.
#[derive(Default)]
struct NeverAgain;

impl Logic for NeverAgain {
    fn full(&mut self, at: &mut Pass<'_>) -> Next {
        at.over = true;
        at.world.detach();
        Next::Leave
    }
}

/// Over the limit it does not accept, and leaves it at that.
#[derive(Default)]
struct SkipsTheRead;

impl Logic for SkipsTheRead {
    fn full(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Any shortage ends it, and it tells nobody.
#[derive(Default)]
struct ParksForEver;

impl Logic for ParksForEver {
    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.stop()
    }
}

/// The second of two listeners is open, and nobody's.
#[derive(Default)]
struct Unserved;

thread_local! {
    static BUILT: Cell<u32> = const { Cell::new(0) };
}

impl Logic for Unserved {
    fn built(&mut self, desk: &mut Desk) {
        if BUILT.replace(BUILT.get() + 1) % 2 == 1 {
            desk.world.detach();
        }
    }
}

/// Any error means that the listener is not ready any more.
#[derive(Default)]
struct ForgetsReadiness;

impl Logic for ForgetsReadiness {
    fn failed(&mut self, _: &mut Pass<'_>, _: Errno) -> Next {
        Next::Leave
    }
}

/// Its timer ends the back-off, and does not look at the queue.
#[derive(Default)]
struct TimerDoesNotDrain;

impl Logic for TimerDoesNotDrain {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if at.alarm_at.is_some() && at.alarm_is_due() {
            at.cancel_alarm();
            return Next::Leave;
        }
        Right.begin(at, wishes)
    }

    fn exhausted(&mut self, at: &mut Pass<'_>) -> Next {
        at.set_alarm(Duration::from_millis(10));
        Next::Leave
    }
}

/// Takes everybody into a queue of its own, and asks for places afterwards.
#[derive(Default)]
struct TakesFirst {
    queue: VecDeque<Stream>,
}

impl Logic for TakesFirst {
    fn one(&mut self, at: &mut Pass<'_>) -> Next {
        at.left -= 1;
        match at.accept() {
            Ok(stream) => self.queue.push_back(stream),
            Err(errno) => return self.failed(at, errno),
        }
        Next::Again
    }

    fn leaves(&mut self, at: &mut Pass<'_>) {
        while let Some(stream) = self.queue.pop_front() {
            match at.world.reserve() {
                Reserve::Room(place) => at.deliver(stream, place),
                _ => return self.queue.push_front(stream),
            }
        }
    }
}

/// A timer that goes off while it is paused is ignored; resumed, it relies on that timer.
#[derive(Default)]
struct TrustsTheTimer;

impl Logic for TrustsTheTimer {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if wishes.stop {
            return at.stop();
        }
        if wishes.pause {
            return self.paused(at);
        }
        if at.alarm_at.is_some() && (wishes.rung || !at.alarm_is_due()) {
            return Next::Leave;
        }
        at.wake();
        Next::Again
    }

    fn paused(&mut self, at: &mut Pass<'_>) -> Next {
        at.silence();
        Next::Leave
    }
}

/// Accepts only while nothing else is going on, and nobody tells it when that ends.
#[derive(Default)]
struct WaitsForIdle;

impl Logic for WaitsForIdle {
    fn begin(&mut self, at: &mut Pass<'_>, wishes: Wishes) -> Next {
        if at.counters.delivered > 0 {
            at.silence();
            return Next::Leave;
        }
        Right.begin(at, wishes)
    }
}

/// Waits inside the loop for the first bytes of the connection it has accepted.
#[derive(Default)]
struct WaitsForAByte {
    silent_client: Option<(Stream, Place)>,
}

impl Logic for WaitsForAByte {
    fn turn(&mut self, at: &mut Pass<'_>) -> bool {
        if self.silent_client.is_some() {
            return false;
        }
        (at.left, at.taken) = (at.budget, 0);
        self.drain(at) == Next::ListenerClosed
    }

    fn taken(&mut self, _: &mut Pass<'_>, stream: Stream, place: Place) -> Next {
        self.silent_client = Some((stream, place));
        Next::Leave
    }
}

/// The exit of the pass clears the timer that the pass has set.
#[derive(Default)]
struct ClearsItsTimer;

impl Logic for ClearsItsTimer {
    fn leaves(&mut self, at: &mut Pass<'_>) {
        at.cancel_alarm();
    }
}
