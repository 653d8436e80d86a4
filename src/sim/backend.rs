//! The simulated kernel, as the core's backend and as the stage on which a script plays.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::kernel::{ConnId, Family, Fd, Kernel, Mask, Shut, Sleep, Thread};
use super::script::{Policy, Setup};
use super::world::Stage;
use crate::admission::clock::Clock;
use crate::admission::connection_info::Credentials;
use crate::admission::notifier::Wake;
use crate::admission::refusal::Refusal;
use crate::drain::backend::{Backend, Peek};
use crate::drain::errno::Errno;
use crate::drain::shutdown::Intake;
use crate::drain::trigger::Trigger;

/// A simulated kernel with the listeners and epolls of one setup. Clones are the same.
#[derive(Clone)]
pub struct SimStage {
    world: Arc<Mutex<World>>,
}

struct World {
    kernel: Kernel,
    listeners: Vec<Fd>,
    /// One for each acceptor.
    epolls: Vec<Fd>,
    /// Clients that have gone.
    gone: BTreeSet<ConnId>,
    /// Connections that are queued and whose wakeup has not happened yet.
    untold: VecDeque<(usize, ConnId)>,
    /// Handshakes under way.
    half_open: VecDeque<(usize, ConnId)>,
}

/// One listener on one epoll of a simulated kernel.
pub struct SimBackend {
    world: Arc<Mutex<World>>,
    listener: Fd,
    epoll: Fd,
    eventfd: Fd,
    timer: Fd,
    armed: Mask,
    data: u64,
    registered: AtomicBool,
    keeps_min_ttl: bool,
}

/// An accepted connection of a simulated kernel; closed when dropped.
pub struct SimStream {
    world: Arc<Mutex<World>>,
    id: ConnId,
}

struct SimWaker {
    world: Arc<Mutex<World>>,
    eventfd: Fd,
}

/// Enough that no script fills the queue.
const BACKLOG: i32 = 4096;

impl SimStage {
    /// Creates the kernel of a setup.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let mut kernel = Kernel::new();
        kernel.set_tcp_info(setup.fills_tcp_info);
        let family = if setup.reports_length { Family::Tcp4 } else { Family::Unix };
        let listeners = if setup.one_listener { 1 } else { setup.acceptors };
        let listeners = (0..listeners).map(|_| opened(kernel.listener(family, BACKLOG))).collect();
        let epolls = (0..setup.acceptors).map(|_| opened(kernel.epoll())).collect();
        Self {
            world: Arc::new(Mutex::new(World {
                kernel,
                listeners,
                epolls,
                gone: BTreeSet::new(),
                untold: VecDeque::new(),
                half_open: VecDeque::new(),
            })),
        }
    }

    /// Calls its kernel, for a stage built around this one.
    pub fn kernel<T>(&self, call: impl FnOnce(&mut Kernel) -> T) -> T {
        call(&mut lock(&self.world).kernel)
    }

    /// Returns the epoll of an acceptor.
    #[must_use]
    pub fn epoll(&self, acceptor: usize) -> Fd {
        lock(&self.world).epolls[acceptor]
    }

    /// Begins a handshake with a TCP listener. Returns whether it was answered.
    pub fn begin_handshake(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        let fd = world.listeners[listener];
        let begun = world.kernel.address(fd).ok().and_then(|address| world.kernel.syn(address).ok());
        world.half_open.extend(begun.map(|id| (listener, id)));
        begun.is_some()
    }

    /// Ends the oldest handshake under way. Returns whether its connection is queued now.
    pub fn end_handshake(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        world.doze();
        let at = world.half_open.iter().position(|(of, _)| *of == listener);
        let Some((_, id)) = at.and_then(|at| world.half_open.remove(at)) else { return false };
        let queued = world.kernel.ack(id);
        world.kernel.connect_finish(id);
        queued
    }

    /// Creates a backend on a listener and an epoll, armed.
    #[must_use]
    pub fn backend(&self, listener: usize, acceptor: usize, trigger: Trigger) -> SimBackend {
        let mut world = lock(&self.world);
        let (listener, epoll) = (world.listeners[listener], world.epolls[acceptor]);
        let kernel = &mut world.kernel;
        let (eventfd, timer) = (opened(kernel.eventfd()), opened(kernel.timerfd()));
        let armed = match trigger {
            Trigger::Level => Mask::IN | Mask::RDHUP,
            Trigger::Edge => Mask::IN | Mask::RDHUP | Mask::ET,
            Trigger::Exclusive => Mask::IN | Mask::EXCLUSIVE,
        };
        let data = acceptor as u64;
        for (fd, mask) in [(eventfd, Mask::IN | Mask::ET), (timer, Mask::IN | Mask::ET), (listener, armed)] {
            opened(kernel.add(epoll, fd, mask, data));
        }
        drop(world);
        let (world, registered) = (Arc::clone(&self.world), AtomicBool::new(true));
        SimBackend { world, listener, epoll, eventfd, timer, armed, data, registered, keeps_min_ttl: false }
    }
}

impl World {
    /// Makes a client leave: of those that have not left, the one that has waited longest.
    fn leave(&mut self, listener: usize, how: impl FnOnce(&mut Kernel, ConnId)) {
        let Ok(address) = self.kernel.address(self.listeners[listener]) else { return };
        let oldest = self.kernel.queued(address).find(|id| !self.gone.contains(id));
        if let Some(id) = oldest {
            self.gone.insert(id);
            how(&mut self.kernel, id);
        }
    }

    /// Threads with a spurious wakeup go back to sleep: the worst case when a client connects.
    fn doze(&mut self) {
        for (n, epoll) in (0..).zip(&self.epolls) {
            let woken = self.kernel.runnable().any(|thread| thread == Thread(n));
            if woken && self.kernel.poll(*epoll, Mask::IN).is_ok_and(|shown| shown.is_empty()) {
                let _ = self.kernel.run(Thread(n));
            }
        }
    }
}

impl Stage for SimStage {
    fn connect(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        world.doze();
        let fd = world.listeners[listener];
        match world.kernel.address(fd) {
            Ok(address) => world.kernel.connect(address).is_ok(),
            Err(_) => false,
        }
    }

    fn insert(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        let fd = world.listeners[listener];
        let Ok(address) = world.kernel.address(fd) else { return false };
        match world.kernel.connect_begin(address) {
            Ok(id) => {
                world.untold.push_back((listener, id));
                true
            }
            Err(_) => false,
        }
    }

    fn tell(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        world.doze();
        let at = world.untold.iter().position(|(of, _)| *of == listener);
        match at.and_then(|at| world.untold.remove(at)) {
            Some((_, id)) => {
                world.kernel.connect_finish(id);
                true
            }
            None => false,
        }
    }

    fn quit(&mut self, listener: usize) {
        let mut world = lock(&self.world);
        world.leave(listener, Kernel::quit);
    }

    fn reset(&mut self, listener: usize) {
        let mut world = lock(&self.world);
        world.leave(listener, Kernel::reset);
    }

    fn steal(&mut self, listener: usize) -> bool {
        let mut world = lock(&self.world);
        let fd = world.listeners[listener];
        match world.kernel.accept(fd) {
            Ok(id) => {
                world.kernel.close_connection(id);
                true
            }
            Err(_) => false,
        }
    }

    fn shut(&mut self, listener: usize) {
        let mut world = lock(&self.world);
        let fd = world.listeners[listener];
        // A second shutdown of a closed listener is refused; it is shut all the same.
        let _ = world.kernel.shutdown(fd, Shut::RD);
    }

    fn queued(&self, listener: usize) -> u32 {
        let world = lock(&self.world);
        let queued =
            world.kernel.address(world.listeners[listener]).map(|at| world.kernel.queued(at).count());
        queued.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn wait(&mut self, acceptor: usize) -> usize {
        let mut world = lock(&self.world);
        let epoll = world.epolls[acceptor];
        // The thread sleeps between its turns, because exclusive registrations depend on sleeping threads.
        let thread = Thread(u32::try_from(acceptor).unwrap_or(u32::MAX));
        let slept = match world.kernel.is_waiting(thread) {
            true => world.kernel.run(thread),
            false => world.kernel.sleep(epoll, thread, 16, None),
        };
        match slept {
            Ok(Sleep::Returned(events)) => events.len(),
            Ok(Sleep::Asleep) | Err(_) => 0,
        }
    }

    fn advance(&mut self, by: Duration) {
        let nanoseconds = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        lock(&self.world).kernel.advance(nanoseconds);
    }
}

impl SimBackend {
    /// Makes the backend faulty, for tests of the checks: connections keep the minimum TTL of a listener whose intake
    /// is closed.
    #[must_use]
    pub fn keeping_min_ttl(mut self) -> Self {
        self.keeps_min_ttl = true;
        self
    }

    fn has_addresses(&self) -> bool {
        self.kernel(|kernel| kernel.has_addresses(self.listener))
    }

    fn kernel<T>(&self, call: impl FnOnce(&mut Kernel) -> T) -> T {
        call(&mut lock(&self.world).kernel)
    }

    /// Sets the mask of the listener. An exclusive registration is deleted and added again (K15).
    fn report(&self, mask: Mask) -> Result<(), Errno> {
        if self.armed.contains(Mask::EXCLUSIVE) {
            self.remove();
        }
        if self.registered.load(Ordering::Relaxed) {
            return self.kernel(|kernel| kernel.modify(self.epoll, self.listener, mask, self.data));
        }
        self.kernel(|kernel| kernel.add(self.epoll, self.listener, mask, self.data))?;
        self.registered.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The peer of a connection: one of two, which alternate after every two connections.
fn address(id: ConnId) -> SocketAddr {
    let number = u16::try_from(id.0 % 1000).unwrap_or(0);
    let peer = if id.0 / 2 % 2 == 0 { 1 } else { 2 };
    SocketAddr::from(([10, 0, 0, peer], 1024 + number))
}

/// The peer of a connection where there are no addresses: one of two users, which alternate in the same way.
fn credentials(id: ConnId) -> Credentials {
    let other = id.0 / 2 % 2;
    Credentials { uid: Policy::USER + other, gid: 100 + other, pid: 1 + id.0 }
}

impl Backend for SimBackend {
    type Stream = SimStream;

    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<SimStream, Errno> {
        let id = self.kernel(|kernel| kernel.accept(self.listener))?;
        if !self.keeps_min_ttl {
            self.kernel(|kernel| kernel.clear_min_ttl(id));
        }
        if let Some(peer) = peer {
            *peer = self.has_addresses().then(|| address(id));
        }
        Ok(SimStream { world: Arc::clone(&self.world), id })
    }

    fn peer(&self, stream: &SimStream) -> Option<SocketAddr> {
        let gone = self.kernel(|kernel| kernel.is_reset(stream.id));
        (self.has_addresses() && !gone).then(|| address(stream.id))
    }

    fn credentials(&self, stream: &SimStream) -> Option<Credentials> {
        (!self.has_addresses()).then(|| credentials(stream.id))
    }

    /// Every third peer is in the group.
    fn is_in_group(&self, stream: &SimStream, gid: u32) -> Option<bool> {
        let own = self.credentials(stream)?.gid;
        Some(gid == own || (gid == Policy::GROUP && stream.id.0 % 3 == 2))
    }

    fn make_reserve(&self) -> bool {
        true
    }

    fn refuse(&self, stream: SimStream, _: &Refusal) {
        drop(stream);
    }

    fn queue_length(&self) -> Option<u32> {
        self.kernel(|kernel| kernel.depth(self.listener))
    }

    fn peek(&self) -> Peek {
        let gone = Mask::HUP | Mask::ERR | Mask::RDHUP;
        match self.kernel(|kernel| kernel.poll(self.listener, Mask::IN | Mask::RDHUP | gone)) {
            Err(_) => Peek::Closed,
            Ok(seen) if seen.intersects(gone) && seen.contains(Mask::IN) => Peek::ClosedPending,
            Ok(seen) if seen.intersects(gone) => Peek::Closed,
            Ok(seen) if seen.contains(Mask::IN) => Peek::Pending,
            Ok(_) => Peek::Empty,
        }
    }

    fn queue_time(&self, stream: &SimStream) -> Option<Duration> {
        self.kernel(|kernel| kernel.time_queued(stream.id)).map(Duration::from_nanos)
    }

    fn arm(&self) -> Result<(), Errno> {
        self.report(self.armed)
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.report(Mask::empty())
    }

    fn remove(&self) {
        if self.registered.swap(false, Ordering::Relaxed) {
            opened(self.kernel(|kernel| kernel.delete(self.epoll, self.listener)));
        }
    }

    fn rewake_other_epolls(&self) {
        if self.queue_length().is_some() || self.peek() != Peek::Closed {
            let _ = self.kernel(|kernel| kernel.shutdown(self.listener, Shut::WR));
        }
    }

    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        let after = after.map_or(0, |after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.kernel(|kernel| kernel.set_timerfd(self.timer, after))
    }

    fn is_alarm_pending(&self) -> bool {
        self.kernel(|kernel| kernel.is_timerfd_pending(self.timer))
    }

    fn stream_fd<'a>(&self, _: &'a SimStream) -> Option<BorrowedFd<'a>> {
        None
    }

    fn release_reserve(&self) -> bool {
        false
    }

    fn is_owned_by_this_process(&self) -> bool {
        true
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(KernelClock(Arc::clone(&self.world)))
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(SimWaker { world: Arc::clone(&self.world), eventfd: self.eventfd })
    }

    fn close_intake(&self) -> Intake {
        if self.kernel(|kernel| kernel.set_min_ttl(self.listener)).is_ok() {
            return Intake::HandshakesOnly;
        }
        match self.kernel(|kernel| kernel.shutdown(self.listener, Shut::RD)) {
            Ok(()) => Intake::Closed,
            Err(_) => Intake::Open,
        }
    }
}

/// The kernel's virtual time.
struct KernelClock(Arc<Mutex<World>>);

impl Clock for KernelClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(lock(&self.0).kernel.now())
    }
}

impl SimStream {
    /// Returns whether packets of its client are dropped.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        lock(&self.world).kernel.has_min_ttl(self.id)
    }
}

impl Drop for SimBackend {
    fn drop(&mut self) {
        self.remove();
        for fd in [self.eventfd, self.timer] {
            let _ = self.kernel(|kernel| kernel.delete(self.epoll, fd));
        }
    }
}

impl Wake for SimWaker {
    fn wake(&self) {
        opened(lock(&self.world).kernel.write_eventfd(self.eventfd));
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        lock(&self.world).kernel.close_connection(self.id);
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For the calls that no script can make fail.
fn opened<T>(made: Result<T, Errno>) -> T {
    made.expect("the stage's own calls do not fail")
}

impl fmt::Debug for SimStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStage").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBackend").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream").field("id", &self.id).finish_non_exhaustive()
    }
}
