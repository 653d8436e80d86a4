//! Loops that strand a connection.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use epoll_acceptor::sim::{Action, Requests};
use epoll_acceptor::socket::{Errno, ErrnoClass};

use crate::calls::{Permit, Stream};
use crate::hand_loop::{HandLoop, Pass};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, budget, edge, fail, level, limit, none, once, twice, two};

pub(crate) fn mutants() -> Vec<Mutant> {
    let pause = [Action::Pause(0)];
    vec![
        Mutant::of_loop::<LeavesAtBudget>(&["S1", "M34"], "P1", budget(2, edge(3)), none()),
        Mutant::of_loop::<OneEach>(&["S2", "M1", "M2"], "P1", edge(2), none()),
        Mutant::of_loop::<OneEach>(&["S3"], "P1", edge(0), twice(&[Action::Connect(0)])),
        Mutant::of_loop::<AskedForMore>(&["S6"], "P1", edge(2), none()),
        Mutant::of_loop::<IgnoresResume>(&["S4", "M18"], "P1", edge(2), once(&pause)),
        Mutant::of_loop::<AbortIsEmpty>(&["S7"], "P1", edge(2), once(&[fail(libc::ECONNABORTED)])),
        Mutant::of_loop::<RepostAtBudget>(&["S8"], "P1", edge(2), once(&[fail(libc::ENOBUFS)])),
        Mutant::of_loop::<AbortReturns>(&["S9"], "P1", edge(2), once(&[fail(libc::ECONNABORTED)])),
        Mutant::of_loop::<RemovesItself>(&["S10"], "P1", level(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<WaitsForAnEdge>(&["S11"], "P1", edge(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<RearmsOnSuccess>(&["S12"], "P1", level(2), once(&[fail(libc::EPROTO)])),
        Mutant::of_loop::<InnerQueue>(&["S16"], "P5", edge(3), none()),
        Mutant::of_loop::<NeverAgain>(&["S26"], "P1", limit(1, level(2)), none()),
        Mutant::of_loop::<OnlySuccessGoesOn>(&["S27"], "P1", level(1), once(&[fail(libc::EINTR)])),
        Mutant::of_loop::<SkipsTheRead>(&["S28"], "P1", limit(1, edge(2)), none()),
        Mutant::of_loop::<SkipsTheRead>(&["M13"], "P2", limit(1, level(2)), none()),
        Mutant::of_loop::<ParksForever>(&["S30", "M31"], "P1", level(1), once(&[fail(libc::ENFILE)])),
        Mutant::of_loop::<Unserved>(&["S36"], "P1", two(level(1)), none()),
        Mutant::of_loop::<ForgetsReadiness>(&["M4", "M33"], "P1", edge(2), once(&[fail(libc::EINTR)])),
        Mutant::of_loop::<TimerDoesNotDrain>(&["M5"], "P1", edge(1), once(&[fail(libc::EMFILE)])),
        Mutant::of_loop::<AcceptsBeforePermit>(&["M14"], "P5", limit(1, level(2)), none()),
        Mutant::of_loop::<TrustsTheTimer>(
            &["M22"],
            "P1",
            level(1),
            vec![vec![fail(libc::ENOBUFS)], vec![Action::Pause(0)], vec![Action::Tick]],
        ),
        Mutant::of_loop::<WaitsForIdle>(&["F5"], "P1", budget(1, level(2)), none()).explained(),
        Mutant::of_loop::<WaitsForAByte>(&["F7"], "P1", edge(2), none()),
        Mutant::of_loop::<ClearsItsTimer>(&["F11"], "P1", level(1), once(&[Action::Exhaust])),
    ]
}

/// Returns to the wait when the budget is used up, without another wakeup.
#[derive(Default)]
struct LeavesAtBudget;

impl LoopHooks for LeavesAtBudget {
    fn spent(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// One accept per event.
#[derive(Default)]
struct OneEach;

impl LoopHooks for OneEach {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        Next::Leave
    }
}

/// Continues only after a full count, as one does when reading bytes.
#[derive(Default)]
struct AskedForMore;

impl LoopHooks for AskedForMore {
    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        if pass.taken == pass.budget { Next::Again } else { Next::Leave }
    }
}

/// Takes each wakeup by another thread for something else than a reason to accept.
#[derive(Default)]
struct IgnoresResume;

impl LoopHooks for IgnoresResume {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if requests.notified() && !requests.paused() && !requests.stop() {
            Next::Leave
        } else {
            Reference.begin(pass, requests)
        }
    }
}

/// Takes an aborted connection for an empty queue.
#[derive(Default)]
struct AbortIsEmpty;

impl LoopHooks for AbortIsEmpty {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.class() {
            ErrnoClass::Consumed => ErrnoClass::Empty,
            other => other,
        }
    }
}

/// Reschedules itself when the budget is used up, but not after an error.
#[derive(Default)]
struct RepostAtBudget;

impl LoopHooks for RepostAtBudget {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        if pass.taken >= pass.budget {
            pass.rearm();
        }
        Next::Leave
    }
}

/// Returns after an aborted connection.
#[derive(Default)]
struct AbortReturns;

impl LoopHooks for AbortReturns {
    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Consumed { Next::Leave } else { Reference.failed(pass, errno) }
    }
}

/// Out of descriptors, it removes its listener from the epoll, and nothing adds it again.
#[derive(Default)]
struct RemovesItself;

impl LoopHooks for RemovesItself {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.calls.remove();
        Next::Leave
    }
}

/// Out of descriptors, it waits for the next client.
#[derive(Default)]
struct WaitsForAnEdge;

impl LoopHooks for WaitsForAnEdge {
    fn exhausted(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Disarmed while it accepts one, and armed again only if its set-up succeeds.
#[derive(Default)]
struct RearmsOnSuccess;

impl LoopHooks for RearmsOnSuccess {
    fn begin(&mut self, pass: &mut Pass<'_>, _: Requests) -> Next {
        pass.disarm();
        Next::Again
    }

    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        pass.listen();
        Next::Leave
    }

    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Consumed { Next::Leave } else { Reference.failed(pass, errno) }
    }
}

/// As above, and no error issues the next accept.
#[derive(Default)]
struct OnlySuccessGoesOn;

impl LoopHooks for OnlySuccessGoesOn {
    fn begin(&mut self, pass: &mut Pass<'_>, _: Requests) -> Next {
        pass.disarm();
        Next::Again
    }

    fn accepted(&mut self, pass: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        pass.deliver(stream, permit);
        pass.listen();
        Next::Leave
    }

    fn failed(&mut self, _: &mut Pass<'_>, _: Errno) -> Next {
        Next::Leave
    }
}

/// Has a queue behind the kernel's: accepts all, serves two, and has used the event up.
#[derive(Default)]
struct InnerQueue {
    queue: VecDeque<(Stream, Permit)>,
}

impl LoopHooks for InnerQueue {
    fn accepted(&mut self, _: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        self.queue.push_back((stream, permit));
        Next::Again
    }

    fn end(&mut self, pass: &mut Pass<'_>) {
        for _ in 0..2 {
            let Some((stream, permit)) = self.queue.pop_front() else { return };
            pass.deliver(stream, permit);
        }
    }
}

/// Full once, it is closed for good.
#[derive(Default)]
struct NeverAgain;

impl LoopHooks for NeverAgain {
    fn full(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.over = true;
        pass.calls.remove();
        Next::Leave
    }
}

/// Over the limit it does not accept, and does nothing else.
#[derive(Default)]
struct SkipsTheRead;

impl LoopHooks for SkipsTheRead {
    fn full(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}

/// Ends when descriptors or memory run out, and does not report it.
#[derive(Default)]
struct ParksForever;

impl LoopHooks for ParksForever {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.stop()
    }
}

/// The second of two listeners is open and not registered.
#[derive(Default)]
struct Unserved;

thread_local! {
    static BUILT: Cell<u32> = const { Cell::new(0) };
}

impl LoopHooks for Unserved {
    fn built(&mut self, hand_loop: &mut HandLoop) {
        if BUILT.replace(BUILT.get() + 1) % 2 == 1 {
            hand_loop.calls.remove();
        }
    }
}

/// Clears the readiness of the listener on any error.
#[derive(Default)]
struct ForgetsReadiness;

impl LoopHooks for ForgetsReadiness {
    fn failed(&mut self, _: &mut Pass<'_>, _: Errno) -> Next {
        Next::Leave
    }
}

/// Its timer ends the back-off and does not check the queue.
#[derive(Default)]
struct TimerDoesNotDrain;

impl LoopHooks for TimerDoesNotDrain {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if pass.alarm_at.is_some() && pass.alarm_is_due() {
            pass.cancel_alarm();
            return Next::Leave;
        }
        Reference.begin(pass, requests)
    }

    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.set_alarm(Duration::from_millis(10));
        Next::Leave
    }
}

/// Accepts all connections into a queue of its own, and asks for permits afterwards.
#[derive(Default)]
struct AcceptsBeforePermit {
    queue: VecDeque<Stream>,
}

impl LoopHooks for AcceptsBeforePermit {
    fn accept_one(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.left -= 1;
        match pass.accept() {
            Ok(stream) => self.queue.push_back(stream),
            Err(errno) => return self.failed(pass, errno),
        }
        Next::Again
    }

    fn end(&mut self, pass: &mut Pass<'_>) {
        while let Some(stream) = self.queue.pop_front() {
            match pass.calls.try_acquire() {
                Some(permit) => pass.deliver(stream, permit),
                None => return self.queue.push_front(stream),
            }
        }
    }
}

/// Ignores a timer that expires while it is paused; resumed, it relies on that timer.
#[derive(Default)]
struct TrustsTheTimer;

impl LoopHooks for TrustsTheTimer {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if requests.stop() {
            return pass.stop();
        }
        if requests.paused() {
            return self.paused(pass);
        }
        if pass.alarm_at.is_some() && (requests.notified() || !pass.alarm_is_due()) {
            return Next::Leave;
        }
        pass.listen()
    }

    fn paused(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.disarm();
        Next::Leave
    }
}

/// Accepts only while it is idle, and is not woken when it is idle again.
#[derive(Default)]
struct WaitsForIdle;

impl LoopHooks for WaitsForIdle {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if pass.counters.delivered > 0 {
            pass.disarm();
            return Next::Leave;
        }
        Reference.begin(pass, requests)
    }
}

/// Waits inside the loop for the first bytes of the connection that it has accepted.
#[derive(Default)]
struct WaitsForAByte {
    silent_client: Option<(Stream, Permit)>,
}

impl LoopHooks for WaitsForAByte {
    fn run(&mut self, pass: &mut Pass<'_>) -> bool {
        if self.silent_client.is_some() {
            return false;
        }
        (pass.left, pass.taken) = (pass.budget, 0);
        self.drain(pass) == Next::ListenerClosed
    }

    fn accepted(&mut self, _: &mut Pass<'_>, stream: Stream, permit: Permit) -> Next {
        self.silent_client = Some((stream, permit));
        Next::Leave
    }
}

/// The exit of the pass clears the timer that the pass has set.
#[derive(Default)]
struct ClearsItsTimer;

impl LoopHooks for ClearsItsTimer {
    fn end(&mut self, pass: &mut Pass<'_>) {
        pass.cancel_alarm();
    }
}
