//! The owner of an acceptor, on a kernel that is nobody's but its own.

use std::sync::Arc as Plain;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::admission::Ring;
use epoll_acceptor::drain::{Backend, Drain, Errno, Peek, Plan};
use epoll_acceptor::{Acceptor, Admission, Connection, Control, Refusal, State, Trigger};
use loom::sync::{Arc, Condvar, Mutex};

/// An acceptor and the loop that drives it.
pub(crate) struct Owner<A: Admission> {
    acceptor: Drain<FakePort, Trigger, A>,
    kernel: Plain<Kernel>,
    ring: Arc<EventFd>,
    /// Connections taken.
    pub(crate) served: u32,
}

/// One listener on one epoll. Only the owner calls in, so its words are none of loom's business.
#[derive(Default)]
struct Kernel {
    queued: AtomicU32,
    edge: bool,
    armed: AtomicBool,
    /// Edge-triggered: an event is due.
    due: AtomicBool,
    now: AtomicU64,
}

struct FakePort {
    kernel: Plain<Kernel>,
    ring: Arc<EventFd>,
}

/// What rings, from any thread: each write is an edge.
#[derive(Default)]
pub(crate) struct EventFd {
    rung: Mutex<bool>,
    waiter: Condvar,
    rings: AtomicU32,
}

pub(crate) struct Pull(pub(crate) Arc<EventFd>);

impl<A: Admission> Owner<A> {
    /// An owner with so many connections queued, which take the gate as they find it.
    pub(crate) fn new(trigger: Trigger, admission: A, queued: u32) -> Self {
        let kernel = Plain::new(Kernel {
            queued: AtomicU32::new(queued),
            edge: trigger == Trigger::Edge,
            armed: AtomicBool::new(true),
            due: AtomicBool::new(queued > 0),
            now: AtomicU64::new(0),
        });
        let ring = Arc::new(EventFd::default());
        let port = FakePort { kernel: Plain::clone(&kernel), ring: Arc::clone(&ring) };
        let plan = Plan::with_budget(4);
        Self { acceptor: Drain::new(port, trigger, admission, plan), kernel, ring, served: 0 }
    }

    /// Blocks until the epoll has an event.
    pub(crate) fn wait(&self) {
        let kernel = &self.kernel;
        let told = if kernel.edge { kernel.due.swap(false, Ordering::Relaxed) } else { true };
        let reported =
            told && kernel.armed.load(Ordering::Relaxed) && kernel.queued.load(Ordering::Relaxed) > 0;
        if !reported {
            self.ring.wait();
        }
    }

    /// One pass.
    pub(crate) fn pass(&mut self) -> Vec<Connection<(), A::Permit>> {
        let taken: Vec<_> =
            self.acceptor.ready().map(|taken| taken.expect("the listener does not die")).collect();
        self.served += u32::try_from(taken.len()).expect("a few");
        taken
    }

    /// Waits and serves until it has served so many; each pass's connections end with it.
    pub(crate) fn serve(&mut self, most: u32) {
        while self.served < most {
            self.wait();
            drop(self.pass());
        }
    }

    /// The first pass of an acceptor that finds the gate full.
    pub(crate) fn fall_asleep(&mut self) {
        assert_eq!(self.pass().len(), 0);
        assert_eq!(self.acceptor.state(), State::Full);
    }

    pub(crate) fn control(&self) -> Control {
        self.acceptor.control()
    }

    pub(crate) fn state(&self) -> State {
        self.acceptor.state()
    }

    /// What rings it.
    pub(crate) fn ring(&self) -> Arc<EventFd> {
        Arc::clone(&self.ring)
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.kernel.armed.load(Ordering::Relaxed)
    }
}

impl EventFd {
    /// Blocks until somebody has rung since the last wait.
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().expect("not poisoned");
        while !*rung {
            rung = self.waiter.wait(rung).expect("not poisoned");
        }
        *rung = false;
    }

    /// How often it was rung. Only for when no other thread is left.
    pub(crate) fn rings(&self) -> u32 {
        self.rings.load(Ordering::Relaxed)
    }
}

impl Ring for Pull {
    fn ring(&self) {
        self.0.rings.fetch_add(1, Ordering::Relaxed);
        *self.0.rung.lock().expect("not poisoned") = true;
        self.0.waiter.notify_one();
    }
}

impl Backend for FakePort {
    type Stream = ();

    fn accept(&self) -> Result<(), Errno> {
        let queued = self.kernel.queued.load(Ordering::Relaxed);
        let left = queued.checked_sub(1).ok_or(Errno::new(libc::EAGAIN))?;
        self.kernel.queued.store(left, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&self, (): (), _: &Refusal) {}

    fn depth(&self) -> Option<u32> {
        Some(self.kernel.queued.load(Ordering::Relaxed))
    }

    fn peek(&self) -> Peek {
        if self.kernel.queued.load(Ordering::Relaxed) > 0 { Peek::Waiting } else { Peek::Empty }
    }

    fn age(&self, (): &()) -> Option<Duration> {
        None
    }

    fn arm(&self) -> Result<(), Errno> {
        self.kernel.armed.store(true, Ordering::Relaxed);
        self.kernel.due.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.kernel.armed.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn detach(&self) {
        self.kernel.armed.store(false, Ordering::Relaxed);
    }

    fn announce(&self) {}

    /// Goes off when the owner next waits. Nobody who stands in line sets one, and so nobody is saved by it.
    fn alarm(&self, after: Option<Duration>) {
        if let Some(after) = after {
            let later = self.now() + after;
            self.kernel.now.store(u64::try_from(later.as_nanos()).expect("a while"), Ordering::Relaxed);
            *self.ring.rung.lock().expect("not poisoned") = true;
            loom::thread::yield_now();
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.kernel.now.load(Ordering::Relaxed))
    }

    fn ringer(&self) -> Box<dyn Ring> {
        Box::new(Pull(Arc::clone(&self.ring)))
    }
}
