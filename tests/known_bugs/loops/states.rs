//! Loops that take an error for the end, or continue after the end; and the loop of the outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use epoll_acceptor::sim::{Action, Handle, Notifier, Requests, Wake};
use epoll_acceptor::socket::{Errno, ErrnoClass};

use super::races::Arming;
use crate::calls::{Calls, Stream};
use crate::hand_loop::{HandLoop, Pass};
use crate::loop_hooks::{LoopHooks, Next, Reference};
use crate::search::{Mutant, edge, fail, level, limit, once};

pub(crate) fn mutants() -> Vec<Mutant> {
    let errno = |errno| once(&[fail(errno)]);
    let stop = once(&[Action::Stop(0)]);
    vec![
        Mutant::of_loop::<OneBadConnection>(&["S31"], "P7", level(2), errno(libc::ECONNABORTED)),
        Mutant::of_loop::<AnyErrorIsFatal>(&["S32", "M30"], "P7", level(2), errno(libc::EINTR)),
        Mutant::of_loop::<EnfileIsFatal>(&["S33"], "P7", level(1), errno(libc::ENFILE)),
        Mutant::of_loop::<EmfileShutsDown>(&["S34"], "P7", level(1), once(&[Action::Exhaust])),
        Mutant::of_loop::<StartsEnabled>(&["S35"], "P9", level(2), once(&[Action::Pause(0)])),
        Mutant::of_loop::<StopWithoutWake>(&["L5"], "P9", limit(1, level(2)), stop.clone()),
        Mutant::of_loop::<GoesOnAfterPause>(&["F8"], "P9", level(3), once(&[Action::Pause(0)])),
        Mutant::of_loop::<ResumeRevives>(&["F10"], "P9", level(1), stop.clone()),
        Mutant::of_loop::<RevivedByAnotherThread>(&["F14"], "P9", limit(1, level(2)), stop),
        Mutant::of_loop::<IgnoresFatalErrors>(&["M48"], "P7", edge(1), once(&[Action::Shut(0)])),
    ]
}

/// Over the limit it closes the new connection, and returns instead of continuing.
#[derive(Default)]
pub(crate) struct Outage;

impl LoopHooks for Outage {
    fn shed(&mut self, pass: &mut Pass<'_>, stream: Stream) -> Next {
        pass.refuse(stream);
        Next::Leave
    }
}

/// One failed connection ends the listener.
#[derive(Default)]
struct OneBadConnection;

impl LoopHooks for OneBadConnection {
    fn class(&self, errno: Errno) -> ErrnoClass {
        match errno.class() {
            ErrnoClass::Consumed => ErrnoClass::Fatal,
            other => other,
        }
    }
}

/// Any error ends the loop.
#[derive(Default)]
struct AnyErrorIsFatal;

impl LoopHooks for AnyErrorIsFatal {
    fn failed(&mut self, pass: &mut Pass<'_>, errno: Errno) -> Next {
        if errno.class() == ErrnoClass::Empty { Reference.failed(pass, errno) } else { pass.close() }
    }
}

/// Knows one of the two errnos for "out of descriptors".
#[derive(Default)]
struct EnfileIsFatal;

impl LoopHooks for EnfileIsFatal {
    fn class(&self, errno: Errno) -> ErrnoClass {
        if errno.number() == libc::ENFILE { ErrnoClass::Fatal } else { errno.class() }
    }
}

/// Out of descriptors, it ends the server.
#[derive(Default)]
struct EmfileShutsDown;

impl LoopHooks for EmfileShutsDown {
    fn exhausted(&mut self, pass: &mut Pass<'_>) -> Next {
        pass.close()
    }
}

/// Created while all listeners are paused, it starts enabled.
#[derive(Default)]
struct StartsEnabled {
    started: bool,
}

impl LoopHooks for StartsEnabled {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if self.started { Reference.begin(pass, requests) } else { Next::Again }
    }

    fn may_accept(&mut self, pass: &mut Pass<'_>) -> Next {
        match self.started {
            true => Reference.may_accept(pass),
            false if pass.left == 0 => self.spent(pass),
            false => Next::Again,
        }
    }

    fn end(&mut self, _: &mut Pass<'_>) {
        self.started = true;
    }
}

/// Its handle sets a flag, and wakes no owner that waits for a permit.
#[derive(Default)]
struct StopWithoutWake {
    stopped: Arc<AtomicBool>,
}

struct QuietHandle(Arc<AtomicBool>, Arc<Notifier>);

impl LoopHooks for StopWithoutWake {
    fn begin(&mut self, pass: &mut Pass<'_>, requests: Requests) -> Next {
        if self.stopped.load(SeqCst) { pass.stop() } else { Reference.begin(pass, requests) }
    }

    fn may_accept(&mut self, pass: &mut Pass<'_>) -> Next {
        if self.stopped.load(SeqCst) { pass.stop() } else { Reference.may_accept(pass) }
    }

    fn handle(&self, hand_loop: &HandLoop) -> Arc<dyn Handle> {
        Arc::new(QuietHandle(Arc::clone(&self.stopped), Arc::clone(&hand_loop.notifier)))
    }
}

impl Handle for QuietHandle {
    fn pause(&self) {
        Handle::pause(&*self.1);
    }

    fn resume(&self) {
        Handle::resume(&*self.1);
    }

    fn stop(&self) {
        self.0.store(true, SeqCst);
    }
}

/// Paused from inside the loop, it finishes its pass.
#[derive(Default)]
struct GoesOnAfterPause;

impl LoopHooks for GoesOnAfterPause {
    fn may_accept(&mut self, pass: &mut Pass<'_>) -> Next {
        if pass.left == 0 { self.spent(pass) } else { Next::Again }
    }
}

/// Keeps one variable for the state: a resume ends whatever state it was.
#[derive(Default)]
struct ResumeRevives {
    silent: Arc<AtomicBool>,
}

struct OneStateHandle(Arc<AtomicBool>, Arc<Notifier>);

impl LoopHooks for ResumeRevives {
    fn begin(&mut self, pass: &mut Pass<'_>, _: Requests) -> Next {
        if self.silent.load(SeqCst) {
            pass.disarmed = true;
            pass.calls.remove();
            return Next::Leave;
        }
        pass.listen()
    }

    fn handle(&self, hand_loop: &HandLoop) -> Arc<dyn Handle> {
        Arc::new(OneStateHandle(Arc::clone(&self.silent), Arc::clone(&hand_loop.notifier)))
    }
}

impl Handle for OneStateHandle {
    fn pause(&self) {
        self.0.store(true, SeqCst);
        self.1.notify();
    }

    fn resume(&self) {
        self.0.store(false, SeqCst);
        self.1.notify();
    }

    fn stop(&self) {
        self.pause();
    }
}

/// The thread that wakes it changes the registration itself, also after the loop has left the epoll.
#[derive(Default)]
struct RevivedByAnotherThread;

impl LoopHooks for RevivedByAnotherThread {
    fn waker(&self, calls: &Arc<dyn Calls>) -> Box<dyn Wake> {
        Box::new(Arming(Arc::clone(calls)))
    }
}

/// Treats an error of the listener as any other error, and the event was an edge.
#[derive(Default)]
struct IgnoresFatalErrors;

impl LoopHooks for IgnoresFatalErrors {
    fn fatal(&mut self, _: &mut Pass<'_>) -> Next {
        Next::Leave
    }
}
