//! Decorators that yield to the script before and after every call of a backend and a gate, and report each call to the
//! checker.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::checker::peers::Peer;
use super::script::{Call, Policy};
use super::world::{SimClock, World};
use crate::admission::clock::Clock;
use crate::admission::connection_info::Credentials;
use crate::admission::notifier::{Notifier, Wake};
use crate::admission::refusal::Refusal;
use crate::admission::semaphore::{Enqueued, Semaphore, WaitFor};
use crate::admission::sync;
use crate::drain::backend::{Backend, Peek};
use crate::drain::errno::Errno;
use crate::drain::shutdown::Intake;

/// A backend whose calls yield to the script, and fail when the script says so.
pub struct InstrumentedBackend<B> {
    backend: B,
    world: World,
    acceptor: usize,
    /// It has its reserve descriptor.
    reserve: AtomicBool,
}

/// A connection that the checker follows to its end.
pub struct Tracked<S> {
    stream: Option<S>,
    world: World,
    acceptor: usize,
    serial: u64,
    settled: AtomicBool,
}

struct InstrumentedWaker {
    waker: Box<dyn Wake>,
    world: World,
    acceptor: usize,
}

impl<B> InstrumentedBackend<B> {
    pub(super) fn new(backend: B, world: World, acceptor: usize) -> Self {
        Self { backend, world, acceptor, reserve: AtomicBool::new(false) }
    }

    fn yielding<T>(&self, call: impl FnOnce(&B) -> T) -> T {
        self.world.yield_point();
        let result = call(&self.backend);
        self.world.yield_point();
        result
    }

    /// As [`yielding`](Self::yielding), unless the script makes this call fail.
    fn fallible<T>(&self, call: Call, run: impl FnOnce(&B) -> Result<T, Errno>) -> Result<T, Errno> {
        self.yielding(|backend| match self.world.fails(call) {
            Some(errno) => Err(errno),
            None => run(backend),
        })
    }
}

impl<B: Backend> InstrumentedBackend<B> {
    fn track(&self, stream: B::Stream, peer: Option<SocketAddr>) -> Tracked<B::Stream> {
        let mut inner = self.world.lock();
        let serial = inner.checker.on_accept();
        if inner.checker.peers.watches() {
            let peer = Peer {
                address: peer.or_else(|| self.backend.peer(&stream)).map(|peer| peer.ip()),
                credentials: self.backend.credentials(&stream),
                in_group: self.backend.is_in_group(&stream, Policy::GROUP),
                queue_time: self.backend.queue_time(&stream),
            };
            inner.checker.peers.on_accept(self.acceptor, serial, peer);
        }
        drop(inner);
        let (world, acceptor) = (self.world.clone(), self.acceptor);
        Tracked { stream: Some(stream), world, acceptor, serial, settled: AtomicBool::new(false) }
    }
}

impl<S> Tracked<S> {
    /// Notes that the owner has it now.
    pub fn deliver(&self) {
        self.settled.store(true, Ordering::Relaxed);
        let mut inner = self.world.lock();
        inner.checker.on_delivery(self.acceptor, self.serial);
        inner.checker.peers.on_delivery(self.serial);
    }
}

impl<B: Backend> Backend for InstrumentedBackend<B> {
    type Stream = Tracked<B::Stream>;

    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<Self::Stream, Errno> {
        let mut address = None;
        self.world.yield_point();
        self.world.lock().checker.on_attempt(self.acceptor);
        let accepted = match self.world.fails_before_accept() {
            Some(errno) => Err(errno),
            None => self.backend.accept(peer.is_some().then_some(&mut address)),
        };
        let accepted = match accepted {
            Ok(stream) => match self.world.fails_after_accept() {
                Some(errno) => {
                    drop(stream);
                    Err(errno)
                }
                None => Ok(self.track(stream, address)),
            },
            Err(errno) => Err(errno),
        };
        if let Some(peer) = peer {
            *peer = address;
        }
        if let Err(errno) = &accepted {
            let mut inner = self.world.lock();
            let queued = inner.queued_at(self.acceptor);
            inner.checker.on_failure(self.acceptor, *errno, queued);
        }
        self.world.yield_point();
        accepted
    }

    fn refuse(&self, mut stream: Self::Stream, refusal: &Refusal) {
        self.world.yield_point();
        self.world.lock().checker.on_refusal(self.acceptor);
        stream.settled.store(true, Ordering::Relaxed);
        if let Some(stream) = stream.stream.take() {
            self.backend.refuse(stream, refusal);
        }
        drop(stream);
        self.world.yield_point();
    }

    fn queue_length(&self) -> Option<u32> {
        self.yielding(B::queue_length)
    }

    fn peek(&self) -> Peek {
        self.yielding(|backend| match self.world.fails(Call::Poll) {
            Some(_) => Peek::Pending,
            None => backend.peek(),
        })
    }

    fn peer(&self, stream: &Self::Stream) -> Option<SocketAddr> {
        self.yielding(|backend| backend.peer(stream.stream.as_ref()?))
    }

    fn queue_time(&self, stream: &Self::Stream) -> Option<Duration> {
        self.yielding(|backend| backend.queue_time(stream.stream.as_ref()?))
    }

    fn credentials(&self, stream: &Self::Stream) -> Option<Credentials> {
        self.yielding(|backend| backend.credentials(stream.stream.as_ref()?))
    }

    fn is_in_group(&self, stream: &Self::Stream, gid: u32) -> Option<bool> {
        self.yielding(|backend| backend.is_in_group(stream.stream.as_ref()?, gid))
    }

    fn stream_fd<'a>(&self, stream: &'a Self::Stream) -> Option<BorrowedFd<'a>> {
        self.backend.stream_fd(stream.stream.as_ref()?)
    }

    fn arm(&self) -> Result<(), Errno> {
        self.fallible(Call::Arm, |backend| {
            backend.arm().inspect(|()| self.world.lock().checker.on_registered(self.acceptor, true))
        })
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.fallible(Call::Disarm, B::disarm)
    }

    fn remove(&self) {
        self.yielding(|backend| {
            backend.remove();
            self.world.lock().checker.on_registered(self.acceptor, false);
        });
    }

    fn rewake_other_epolls(&self) {
        self.yielding(B::rewake_other_epolls);
    }

    fn is_owned_by_this_process(&self) -> bool {
        self.backend.is_owned_by_this_process()
    }

    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        // An alarm that is due at once is set to 1 ns, as in the real backend.
        let after = after.map(|after| after.max(Duration::from_nanos(1)));
        self.fallible(Call::Alarm, |backend| {
            backend.set_alarm(after)?;
            self.world.lock().checker.on_alarm(self.acceptor, after);
            Ok(())
        })
    }

    fn is_alarm_pending(&self) -> bool {
        self.world.lock().checker.is_alarm_pending(self.acceptor)
    }

    fn release_reserve(&self) -> bool {
        self.yielding(|backend| {
            backend.release_reserve();
            let had = self.reserve.swap(false, Ordering::Relaxed);
            if had {
                self.world.lock().release_reserve(self.acceptor);
            }
            had
        })
    }

    fn make_reserve(&self) -> bool {
        self.yielding(|backend| {
            if !self.reserve.load(Ordering::Relaxed) {
                let made = self.world.lock().make_reserve() && backend.make_reserve();
                self.reserve.store(made, Ordering::Relaxed);
            }
            self.reserve.load(Ordering::Relaxed)
        })
    }

    fn close_intake(&self) -> Intake {
        self.yielding(B::close_intake)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SimClock::of(&self.world))
    }

    fn waker(&self) -> Box<dyn Wake> {
        let (world, acceptor) = (self.world.clone(), self.acceptor);
        Box::new(InstrumentedWaker { waker: self.backend.waker(), world, acceptor })
    }
}

impl Wake for InstrumentedWaker {
    fn wake(&self) {
        // The notifier has set its bits by now: what happens from here on finds them.
        self.world.lock().checker.on_wake(self.acceptor);
        self.world.yield_point();
        self.waker.wake();
        self.world.yield_point();
    }
}

impl<S> Drop for Tracked<S> {
    fn drop(&mut self) {
        self.world.yield_point();
        drop(self.stream.take());
        let mut inner = self.world.lock();
        inner.checker.on_close(self.serial, self.settled.load(Ordering::Relaxed));
        inner.checker.peers.on_close(self.serial);
        drop(inner);
        self.world.yield_point();
    }
}

/// A gate whose operations yield to the script, and whose permits are counted.
#[derive(Clone)]
pub struct InstrumentedGate<G> {
    gate: G,
    world: World,
    acceptor: usize,
}

/// A permit of an [`InstrumentedGate`].
pub struct InstrumentedPermit<P> {
    permit: Option<P>,
    world: World,
    gate: usize,
}

/// Excuses an acceptor whose gate panics just when it was about to back off.
struct ExcuseOnPanic<'a>(&'a World);

impl Drop for ExcuseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().checker.excuse();
        }
    }
}

/// An acceptor whose gate panics while it is queued loses its turn.
struct LoseTurnOnPanic<'a>(&'a World, usize);

impl Drop for LoseTurnOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().checker.set_enqueued(self.1, false);
        }
    }
}

impl<G: Semaphore> InstrumentedGate<G> {
    pub(super) fn new(gate: G, world: World, acceptor: usize) -> Self {
        Self { gate, world, acceptor }
    }

    /// Returns the gate's number.
    fn number(&self) -> usize {
        self.world.lock().checker.gate_of(self.acceptor)
    }

    /// A permit as the checker sees it: in use when an acceptor has it.
    fn counted(&self, permit: G::Permit) -> InstrumentedPermit<G::Permit> {
        let gate = self.number();
        let mut inner = self.world.lock();
        inner.on_permit_taken(gate);
        inner.checker.set_enqueued(self.acceptor, false);
        InstrumentedPermit { permit: Some(permit), world: self.world.clone(), gate }
    }
}

impl<G: Semaphore> Semaphore for InstrumentedGate<G> {
    type Permit = InstrumentedPermit<G::Permit>;

    fn sheds(&self) -> Option<&Refusal> {
        self.gate.sheds()
    }

    fn try_acquire(&self) -> Option<Self::Permit> {
        self.world.yield_point();
        let permit = self.gate.try_acquire().map(|permit| self.counted(permit));
        self.world.yield_point();
        permit
    }

    fn cancel(&self, mut permit: Self::Permit) {
        self.world.yield_point();
        if let Some(permit) = permit.permit.take() {
            let number = self.number();
            self.world.lock().checker.on_permit_returned(number);
            let excuse = ExcuseOnPanic(&self.world);
            self.gate.cancel(permit);
            drop(excuse);
            self.world.lock().check_latch(number, true);
        }
        self.world.yield_point();
    }

    fn enqueue(&self, notifier: &sync::Arc<Notifier>, wait_for: WaitFor) -> Enqueued<Self::Permit> {
        self.world.yield_point();
        let lose_turn = LoseTurnOnPanic(&self.world, self.acceptor);
        let enqueued = self.gate.enqueue(notifier, wait_for);
        drop(lose_turn);
        let enqueued = match enqueued {
            Enqueued::Acquired(permit) => Enqueued::Acquired(self.counted(permit)),
            Enqueued::Waiting => {
                self.world.lock().checker.set_enqueued(self.acceptor, wait_for == WaitFor::Permit);
                Enqueued::Waiting
            }
        };
        self.world.yield_point();
        enqueued
    }

    fn dequeue(&self, notifier: &sync::Arc<Notifier>) -> Option<Self::Permit> {
        self.world.yield_point();
        self.world.lock().checker.set_enqueued(self.acceptor, false);
        let permit = self.gate.dequeue(notifier).map(|permit| self.counted(permit));
        self.world.yield_point();
        permit
    }
}

impl<P> Drop for InstrumentedPermit<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.world.yield_point();
            self.world.lock().on_permit_released(self.gate);
            drop(permit);
            self.world.lock().check_latch(self.gate, false);
            self.world.yield_point();
        }
    }
}

macro_rules! debug {
    ($($name:ident)*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

debug! {
    InstrumentedBackend Tracked InstrumentedGate InstrumentedPermit
}
