//! The owner of an acceptor, on a kernel that belongs to it alone.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use epoll_acceptor::acceptor::Intake;
use epoll_acceptor::filter::{Clock, Credentials};
use epoll_acceptor::sim::{AcceptCore, Backend, Config, Peek, Semaphore, Wake};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Acceptor, Connection, Control, Refusal, State, Trigger};
use loom::sync::{Arc, Condvar, Mutex};

/// An acceptor and the loop that drives it.
pub(crate) struct Owner<G: Semaphore> {
    acceptor: AcceptCore<FakeBackend, G, ()>,
    kernel: StdArc<Kernel>,
    eventfd: Arc<EventFd>,
    /// Connections taken.
    pub(crate) served: u32,
}

/// One listener on one epoll. Only the owner calls it, so loom need not see its atomics.
#[derive(Default)]
struct Kernel {
    queued: AtomicU32,
    edge: bool,
    armed: AtomicBool,
    /// Edge-triggered: an event is due.
    due: AtomicBool,
    now: AtomicU64,
}

struct FakeBackend {
    kernel: StdArc<Kernel>,
    eventfd: Arc<EventFd>,
}

struct KernelClock(StdArc<Kernel>);

/// What wakes the owner, from any thread: each write is an edge.
#[derive(Default)]
pub(crate) struct EventFd {
    written: Mutex<bool>,
    changed: Condvar,
    writes: AtomicU32,
}

pub(crate) struct EventFdWaker(pub(crate) Arc<EventFd>);

impl<G: Semaphore> Owner<G> {
    /// Creates an owner with `queued` pending connections. The gate is used as it is.
    pub(crate) fn new(trigger: Trigger, gate: G, queued: u32) -> Self {
        let kernel = StdArc::new(Kernel {
            queued: AtomicU32::new(queued),
            edge: trigger == Trigger::Edge,
            armed: AtomicBool::new(true),
            due: AtomicBool::new(queued > 0),
            now: AtomicU64::new(0),
        });
        let eventfd = Arc::new(EventFd::default());
        let backend = FakeBackend { kernel: StdArc::clone(&kernel), eventfd: Arc::clone(&eventfd) };
        let acceptor = AcceptCore::new(backend, gate, (), Config::new(trigger, 4));
        Self { acceptor, kernel, eventfd, served: 0 }
    }

    /// Blocks until the epoll has an event.
    pub(crate) fn wait(&self) {
        let kernel = &self.kernel;
        let due = if kernel.edge { kernel.due.swap(false, Ordering::Relaxed) } else { true };
        let reported =
            due && kernel.armed.load(Ordering::Relaxed) && kernel.queued.load(Ordering::Relaxed) > 0;
        if !reported {
            self.eventfd.wait();
        }
    }

    /// One pass.
    pub(crate) fn pass(&mut self) -> Vec<Connection<(), ((), G::Permit)>> {
        let accepted: Vec<_> =
            self.acceptor.ready().map(|accepted| accepted.expect("the listener listens")).collect();
        self.served += u32::try_from(accepted.len()).expect("a few");
        accepted
    }

    /// Waits and serves until it has served `connections`; those of each pass end with it.
    pub(crate) fn serve(&mut self, connections: u32) {
        while self.served < connections {
            self.wait();
            drop(self.pass());
        }
    }

    /// The first pass of an acceptor that finds the gate full.
    pub(crate) fn block(&mut self) {
        assert_eq!(self.pass().len(), 0);
        assert_eq!(self.acceptor.state(), State::Full);
    }

    pub(crate) fn control(&self) -> Control {
        self.acceptor.control()
    }

    pub(crate) fn state(&self) -> State {
        self.acceptor.state()
    }

    /// What wakes it.
    pub(crate) fn eventfd(&self) -> Arc<EventFd> {
        Arc::clone(&self.eventfd)
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.kernel.armed.load(Ordering::Relaxed)
    }
}

impl EventFd {
    /// Blocks until it was written to since the last wait.
    pub(crate) fn wait(&self) {
        let mut written = self.written.lock().expect("not poisoned");
        while !*written {
            written = self.changed.wait(written).expect("not poisoned");
        }
        *written = false;
    }

    /// Returns how often it was written to. Only for when no other thread is left.
    pub(crate) fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        *self.written.lock().expect("not poisoned") = true;
        self.changed.notify_one();
    }
}

impl Wake for EventFdWaker {
    fn wake(&self) {
        self.0.write();
    }
}

impl Clock for KernelClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now.load(Ordering::Relaxed))
    }
}

impl Backend for FakeBackend {
    type Stream = ();

    fn accept(&self, _: Option<&mut Option<SocketAddr>>) -> Result<(), Errno> {
        let queued = self.kernel.queued.load(Ordering::Relaxed);
        let left = queued.checked_sub(1).ok_or(Errno::new(libc::EAGAIN))?;
        self.kernel.queued.store(left, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&self, (): (), _: &Refusal) {}

    fn queue_length(&self) -> Option<u32> {
        Some(self.kernel.queued.load(Ordering::Relaxed))
    }

    fn peek(&self) -> Peek {
        if self.kernel.queued.load(Ordering::Relaxed) > 0 { Peek::Pending } else { Peek::Empty }
    }

    fn peer(&self, (): &()) -> Option<SocketAddr> {
        None
    }

    fn queue_time(&self, (): &()) -> Option<Duration> {
        None
    }

    fn credentials(&self, (): &()) -> Option<Credentials> {
        None
    }

    fn is_in_group(&self, (): &(), _: u32) -> Option<bool> {
        None
    }

    fn stream_fd<'a>(&self, (): &'a ()) -> Option<BorrowedFd<'a>> {
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

    fn remove(&self) {
        self.kernel.armed.store(false, Ordering::Relaxed);
    }

    fn rewake_other_epolls(&self) {}

    fn is_owned_by_this_process(&self) -> bool {
        true
    }

    /// Expires when the owner waits next. An acceptor in the wait queue sets none, so none is saved by it.
    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        if let Some(after) = after {
            let nanoseconds = u64::try_from(after.as_nanos()).expect("a while");
            self.kernel.now.fetch_add(nanoseconds, Ordering::Relaxed);
            *self.eventfd.written.lock().expect("not poisoned") = true;
            loom::thread::yield_now();
        }
        Ok(())
    }

    fn is_alarm_pending(&self) -> bool {
        false
    }

    fn release_reserve(&self) -> bool {
        false
    }

    fn make_reserve(&self) -> bool {
        false
    }

    fn close_intake(&self) -> Intake {
        Intake::Open
    }

    fn clock(&self) -> StdArc<dyn Clock> {
        StdArc::new(KernelClock(StdArc::clone(&self.kernel)))
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(EventFdWaker(Arc::clone(&self.eventfd)))
    }
}
