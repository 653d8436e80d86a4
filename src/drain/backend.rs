//! The seam: one listener on one epoll, as the decisions see it.
//!
//! Everything the drain layer knows of the world passes here. `linux` and `sim` stand on the other side as
//! equals. Public for the sake of `sim`, and not covered by semantic versioning.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the seam is public behind `sim`"))]
#![cfg_attr(not(feature = "sim"), allow(dead_code, reason = "`sim` tries what no strategy asks for yet"))]

use std::net::SocketAddr;
use std::time::Duration;

use crate::admission::bell::Ring;
use crate::admission::newcomer::Credentials;
use crate::admission::refusal::Refusal;
use crate::drain::errno::Errno;

/// What a look at the accept queue shows, without taking anything (poll(2) with IN and RDHUP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peek {
    /// Nothing waits, and the listener listens.
    Empty,
    /// At least one connection waits.
    Waiting,
    /// The listener was shut down, but what it has queued may still be accepted (Unix).
    ShutQueued,
    /// The listener was shut down or closed: nothing will ever be accepted from it.
    Shut,
}

/// One listener, its registration on one epoll, and the two other sources under the same token: a ring and an
/// alarm.
///
/// An implementor MUST give these, and nothing of its own judgement; what has a default need not be there:
///
/// * the listener is registered for incoming connections and for its own end, by the trigger the strategy
///   names, and starts armed;
/// * a ring and an expired alarm each make the owner's wait return an event with the acceptor's token,
///   armed or not, detached or not;
/// * no method blocks, and none calls back into the acceptor.
pub trait Backend: Send + Sync {
    /// What a connection is: owned, non-blocking, close-on-exec.
    type Stream;

    /// Takes the oldest connection from the accept queue.
    fn accept(&self) -> Result<Self::Stream, Errno>;

    /// As [`accept`](Self::accept), with the peer's address where its family has one.
    fn accept_with_peer(&self) -> Result<(Self::Stream, Option<SocketAddr>), Errno> {
        self.accept().map(|stream| {
            let peer = self.peer(&stream);
            (stream, peer)
        })
    }

    /// The peer's address, if it can still be asked for.
    fn peer(&self, _stream: &Self::Stream) -> Option<SocketAddr> {
        None
    }

    /// Who connected, where the kernel can say.
    fn credentials(&self, _stream: &Self::Stream) -> Option<Credentials> {
        None
    }

    /// Whether the peer is in a group, where the kernel can say.
    fn is_in_group(&self, _stream: &Self::Stream, _gid: u32) -> Option<bool> {
        None
    }

    /// Gives the reserve descriptor up, so that one accept can have it. `false` if there is none.
    fn give_up_reserve(&self) -> bool {
        false
    }

    /// Makes a reserve descriptor, unless there is one. Whether there is one then.
    fn make_reserve(&self) -> bool {
        false
    }

    /// Ends a connection in the way that was asked for. Never blocks.
    fn refuse(&self, stream: Self::Stream, refusal: &Refusal);

    /// How many connections are queued; `None` where the kernel cannot say, or the socket listens no more.
    fn depth(&self) -> Option<u32>;

    /// Looks whether anything waits.
    fn peek(&self) -> Peek;

    /// How long a connection was queued before it was taken, where the kernel can say.
    fn age(&self, stream: &Self::Stream) -> Option<Duration>;

    /// Tells the kernel to report the listener from now on, and at once if its queue is not empty.
    fn arm(&self) -> Result<(), Errno>;

    /// Tells the kernel to keep silent about arrivals. The queue stays.
    fn disarm(&self) -> Result<(), Errno>;

    /// Takes the listener out of the epoll. The ring and the alarm stay; `arm` brings it back.
    fn detach(&self);

    /// Has every registration of this listener report it, on whichever epoll, if its queue is not empty.
    fn announce(&self);

    /// Whether the registration is this process's own, and no forked child's copy of its parent's.
    fn is_ours(&self) -> bool {
        true
    }

    /// Sets the one alarm to go off after this long, or cancels it.
    fn alarm(&self, after: Option<Duration>);

    /// The time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// The bell pull: what wakes the owner from any thread, also after the port is gone (then to no effect).
    fn ringer(&self) -> Box<dyn Ring>;
}
