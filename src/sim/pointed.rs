//! The decorators that put a point before and after every call through the seam and every operation of the gate.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::env::Env;
use super::script::Policy;
use super::visitors::Visitor;
use crate::admission::bell::{Bell, Ring};
use crate::admission::newcomer::{ConnectionInfo, Credentials};
use crate::admission::policy::{Admission, Line, Reserve, Until};
use crate::admission::refusal::{Refusal, Rejection};
use crate::admission::sync::Arc;
use crate::drain::backend::{Backend, Peek};
use crate::drain::errno::Errno;

/// A port around whose calls the environment acts, and whose failures it chooses.
pub struct InstrumentedBackend<P> {
    port: P,
    env: Env,
    acceptor: usize,
    /// It has its reserve descriptor.
    reserve: AtomicBool,
}

/// A connection that the books follow to its end.
pub struct Tracked<S> {
    stream: Option<S>,
    env: Env,
    acceptor: usize,
    serial: u64,
    settled: AtomicBool,
}

struct PointedRing {
    ring: Box<dyn Ring>,
    env: Env,
    acceptor: usize,
}

impl<P> InstrumentedBackend<P> {
    pub(super) fn new(port: P, env: Env, acceptor: usize) -> Self {
        Self { port, env, acceptor, reserve: AtomicBool::new(false) }
    }

    fn around<T>(&self, call: impl FnOnce(&P) -> T) -> T {
        self.env.point();
        let answer = call(&self.port);
        self.env.point();
        answer
    }
}

impl<P: Backend> InstrumentedBackend<P> {
    fn accept_by(
        &self,
        call: impl FnOnce(&P) -> Result<(P::Stream, Option<SocketAddr>), Errno>,
    ) -> Result<(Tracked<P::Stream>, Option<SocketAddr>), Errno> {
        self.env.point();
        self.env.lock().ledger.attempts(self.acceptor);
        let accepted = match self.env.fails_first() {
            Some(errno) => Err(errno),
            None => call(&self.port),
        };
        let accepted = match accepted {
            Ok((stream, peer)) => match self.env.fails_after() {
                Some(errno) => {
                    drop(stream);
                    Err(errno)
                }
                None => Ok((self.tracked(stream, peer), peer)),
            },
            Err(errno) => Err(errno),
        };
        if let Err(errno) = &accepted {
            let mut inner = self.env.lock();
            let queued = inner.queued_at(self.acceptor);
            inner.ledger.fails(self.acceptor, *errno, queued);
        }
        self.env.point();
        accepted
    }

    fn tracked(&self, stream: P::Stream, peer: Option<SocketAddr>) -> Tracked<P::Stream> {
        let mut inner = self.env.lock();
        let serial = inner.ledger.takes();
        if inner.visitors.watches() {
            let visitor = Visitor {
                peer: peer.or_else(|| self.port.peer(&stream)).map(|peer| peer.ip()),
                credentials: self.port.credentials(&stream),
                in_group: self.port.is_in_group(&stream, Policy::GROUP),
                queued: self.port.age(&stream),
            };
            inner.visitors.comes(self.acceptor, serial, visitor);
        }
        drop(inner);
        let (env, acceptor) = (self.env.clone(), self.acceptor);
        Tracked { stream: Some(stream), env, acceptor, serial, settled: AtomicBool::new(false) }
    }
}

impl<S> Tracked<S> {
    /// Notes that a user has it now.
    pub fn deliver(&self) {
        self.settled.store(true, Ordering::Relaxed);
        let mut inner = self.env.lock();
        inner.ledger.delivers(self.acceptor, self.serial);
        inner.visitors.delivers(self.serial);
    }
}

impl<P: Backend> Backend for InstrumentedBackend<P> {
    type Stream = Tracked<P::Stream>;

    fn accept(&self) -> Result<Self::Stream, Errno> {
        self.accept_by(|port| Ok((port.accept()?, None))).map(|(stream, _)| stream)
    }

    fn accept_with_peer(&self) -> Result<(Self::Stream, Option<SocketAddr>), Errno> {
        self.accept_by(P::accept_with_peer)
    }

    fn peer(&self, stream: &Self::Stream) -> Option<SocketAddr> {
        self.around(|port| port.peer(stream.stream.as_ref()?))
    }

    fn credentials(&self, stream: &Self::Stream) -> Option<Credentials> {
        self.around(|port| port.credentials(stream.stream.as_ref()?))
    }

    fn is_in_group(&self, stream: &Self::Stream, gid: u32) -> Option<bool> {
        self.around(|port| port.is_in_group(stream.stream.as_ref()?, gid))
    }

    fn give_up_reserve(&self) -> bool {
        self.around(|port| {
            port.give_up_reserve();
            let had = self.reserve.swap(false, Ordering::Relaxed);
            if had {
                self.env.lock().gives_reserve_up(self.acceptor);
            }
            had
        })
    }

    fn make_reserve(&self) -> bool {
        self.around(|port| {
            if !self.reserve.load(Ordering::Relaxed) {
                let made = self.env.lock().makes_reserve() && port.make_reserve();
                self.reserve.store(made, Ordering::Relaxed);
            }
            self.reserve.load(Ordering::Relaxed)
        })
    }

    fn refuse(&self, mut stream: Self::Stream, refusal: &Refusal) {
        self.env.point();
        self.env.lock().ledger.refuses(self.acceptor);
        stream.settled.store(true, Ordering::Relaxed);
        if let Some(inner) = stream.stream.take() {
            self.port.refuse(inner, refusal);
        }
        drop(stream);
        self.env.point();
    }

    fn depth(&self) -> Option<u32> {
        self.around(P::depth)
    }

    fn peek(&self) -> Peek {
        self.around(P::peek)
    }

    fn age(&self, stream: &Self::Stream) -> Option<Duration> {
        self.around(|port| port.age(stream.stream.as_ref()?))
    }

    fn arm(&self) -> Result<(), Errno> {
        self.around(|port| port.arm().inspect(|()| self.env.lock().ledger.registers(self.acceptor, true)))
    }

    fn disarm(&self) -> Result<(), Errno> {
        self.around(P::disarm)
    }

    fn detach(&self) {
        self.around(|port| {
            port.detach();
            self.env.lock().ledger.registers(self.acceptor, false);
        });
    }

    fn announce(&self) {
        self.around(P::announce);
    }

    fn is_ours(&self) -> bool {
        self.port.is_ours()
    }

    fn alarm(&self, after: Option<Duration>) {
        self.around(|port| {
            port.alarm(after);
            self.env.lock().ledger.set_alarm(self.acceptor, after);
        });
    }

    fn now(&self) -> Duration {
        self.env.lock().ledger.now()
    }

    fn ringer(&self) -> Box<dyn Ring> {
        Box::new(PointedRing { ring: self.port.ringer(), env: self.env.clone(), acceptor: self.acceptor })
    }
}

impl Ring for PointedRing {
    fn ring(&self) {
        // The bell has been rung before it pulls: whatever happens from here on finds it so.
        self.env.lock().ledger.rings(self.acceptor);
        self.env.point();
        self.ring.ring();
        self.env.point();
    }
}

impl<S> Drop for Tracked<S> {
    fn drop(&mut self) {
        self.env.point();
        drop(self.stream.take());
        let mut inner = self.env.lock();
        inner.ledger.closes(self.serial, self.settled.load(Ordering::Relaxed));
        inner.visitors.closes(self.serial);
        drop(inner);
        self.env.point();
    }
}

/// An admission around whose operations the environment acts, and whose places are counted.
#[derive(Clone)]
pub struct InstrumentedGate<A> {
    gate: A,
    env: Env,
    acceptor: usize,
    /// It is the policy that the case has besides its gate, as well.
    brings_extra: bool,
}

/// Excuses an acceptor whose policy panics just when it was about to back off.
struct Unwinding<'a>(&'a Env);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().ledger.excuse();
        }
    }
}

/// Whoever panics while it asks for a place loses its turn.
struct LosesTurn<'a>(&'a Env, usize);

impl Drop for LosesTurn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().ledger.stands(self.1, false);
        }
    }
}

/// A permit of a [`InstrumentedGate`].
pub struct InstrumentedPermit<P> {
    permit: Option<P>,
    env: Env,
    gate: usize,
    /// Whom it let in, if the case has a rule for that.
    visitor: Option<u64>,
}

impl<A> InstrumentedGate<A> {
    pub(super) fn new(gate: A, env: Env, acceptor: usize, brings_extra: bool) -> Self {
        Self { gate, env, acceptor, brings_extra }
    }

    /// Which of the gates it is.
    fn number(&self) -> usize {
        self.env.lock().ledger.gate_of(self.acceptor)
    }
}

impl<A: Admission> InstrumentedGate<A> {
    /// An answer as the books see it.
    fn noted(&self, answer: Reserve<A::Permit>) -> Reserve<InstrumentedPermit<A::Permit>> {
        match answer {
            Reserve::Room(permit) => Reserve::Room(self.counted(permit)),
            Reserve::Full => Reserve::Full,
            Reserve::NotBefore(wait) => {
                self.env.lock().ledger.throttles(self.acceptor, wait);
                Reserve::NotBefore(wait)
            }
            Reserve::Shed(denied) => Reserve::Shed(denied),
        }
    }

    /// A place as the books see it: taken when an acceptor has it.
    fn counted(&self, permit: A::Permit) -> InstrumentedPermit<A::Permit> {
        let gate = self.number();
        let mut inner = self.env.lock();
        inner.takes_place(gate);
        inner.ledger.stands(self.acceptor, false);
        InstrumentedPermit { permit: Some(permit), env: self.env.clone(), gate, visitor: None }
    }
}

impl<A: Admission> Admission for InstrumentedGate<A> {
    type Permit = InstrumentedPermit<A::Permit>;

    fn reserve(&self) -> Reserve<Self::Permit> {
        self.env.point();
        let answer = self.noted(self.gate.reserve());
        self.env.point();
        answer
    }

    fn never_waits(&self) -> bool {
        self.gate.never_waits()
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, permit: &mut Self::Permit) -> Result<(), Rejection> {
        let Some(place) = &mut permit.permit else { return Ok(()) };
        let answer = self.gate.admit(newcomer, place);
        if self.brings_extra {
            permit.visitor = self.env.lock().answers(self.acceptor, &answer);
        }
        answer
    }

    fn wants_peer(&self) -> bool {
        self.gate.wants_peer()
    }

    fn cancel(&self, mut permit: Self::Permit) {
        self.env.point();
        let gone = permit.visitor.take();
        if let Some(permit) = permit.permit.take() {
            let number = self.number();
            self.env.lock().ledger.gives_place(number);
            let unwinding = Unwinding(&self.env);
            self.gate.cancel(permit);
            drop(unwinding);
            let mut inner = self.env.lock();
            inner.looks_at_places(number, true);
            inner.visitor_goes(gone);
        }
        self.env.point();
    }

    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        self.env.point();
        let unwinding = LosesTurn(&self.env, self.acceptor);
        let answer = self.gate.stand(bell, until);
        drop(unwinding);
        if answer == Line::Standing {
            self.env.lock().ledger.stands(self.acceptor, until == Until::Room);
        }
        self.env.point();
        answer
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        self.env.point();
        self.env.lock().ledger.stands(self.acceptor, false);
        let handed = self.gate.leave(bell).map(|permit| self.counted(permit));
        self.env.point();
        handed
    }

    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        self.env.point();
        self.env.lock().ledger.stands(self.acceptor, false);
        let answer = self.gate.fetch(bell).map(|answer| self.noted(answer));
        self.env.point();
        answer
    }
}

impl<P> Drop for InstrumentedPermit<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.env.point();
            self.env.lock().place_comes_back(self.gate);
            drop(permit);
            let mut inner = self.env.lock();
            inner.looks_at_places(self.gate, false);
            inner.visitor_goes(self.visitor.take());
            drop(inner);
            self.env.point();
        }
    }
}

impl<P> fmt::Debug for InstrumentedBackend<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstrumentedBackend").field("acceptor", &self.acceptor).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Tracked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl<A: fmt::Debug> fmt::Debug for InstrumentedGate<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstrumentedGate").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for InstrumentedPermit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstrumentedPermit").finish_non_exhaustive()
    }
}
