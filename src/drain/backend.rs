//! One listener on one epoll, as the sans-I/O core sees it: the core's boundary with a kernel.
//!
//! `linux` implements it with system calls, `sim` with a model of the kernel.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::errno::Errno;
use super::shutdown::Intake;
use crate::admission::clock::Clock;
use crate::admission::connection_info::Credentials;
use crate::admission::notifier::Wake;
use crate::admission::refusal::Refusal;

/// The accept queue as poll(2) with IN and RDHUP shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peek {
    /// The queue is empty, and the listener listens.
    Empty,
    /// At least one connection is pending, or poll(2) failed: accept to find out.
    Pending,
    /// The listener was shut down; what is pending may still be accepted (Unix).
    ClosedPending,
    /// The listener was shut down or closed: nothing will ever be accepted from it.
    Closed,
}

/// One listener, its registration on an epoll, and the two other event sources under the same token: the waker and the
/// alarm. Not covered by semantic versioning.
///
/// An implementation MUST provide these, and decide nothing:
///
/// * the listener is registered for incoming connections and for its own end, and starts armed;
/// * the waker and an expired alarm each make the owner's wait return an event with the acceptor's token, however
///   the listener is registered;
/// * no method blocks, and none calls back into the acceptor.
pub trait Backend: Send + Sync {
    /// A connection: owned, non-blocking, close-on-exec.
    type Stream;

    /// Accepts the oldest connection. Writes its peer's address to `peer`, or `None` if its family has none.
    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<Self::Stream, Errno>;

    /// Closes a connection as asked. Never blocks.
    fn refuse(&self, stream: Self::Stream, refusal: &Refusal);

    /// Returns the number of pending connections; `None` if the kernel does not report it or the socket does not
    /// listen.
    fn queue_length(&self) -> Option<u32>;

    /// Looks at the accept queue.
    fn peek(&self) -> Peek;

    /// Returns the peer's address, if it can still be read.
    fn peer(&self, stream: &Self::Stream) -> Option<SocketAddr>;

    /// Returns how long a connection was queued.
    fn queue_time(&self, stream: &Self::Stream) -> Option<Duration>;

    /// Returns the credentials of the peer.
    fn credentials(&self, stream: &Self::Stream) -> Option<Credentials>;

    /// Returns whether the peer is in a group.
    fn is_in_group(&self, stream: &Self::Stream, gid: u32) -> Option<bool>;

    /// Returns the descriptor of a connection, if it has one.
    fn stream_fd<'a>(&self, stream: &'a Self::Stream) -> Option<BorrowedFd<'a>>;

    /// Makes the kernel report the listener from now on, and at once if its queue is not empty.
    fn arm(&self) -> Result<(), Errno>;

    /// Makes the kernel report no arrivals. The queue stays.
    fn disarm(&self) -> Result<(), Errno>;

    /// Removes the listener from the epoll. The waker and the alarm stay; [`arm`](Self::arm) adds it again.
    fn remove(&self);

    /// Makes the kernel report the listener on every epoll that it is registered on, if its queue is not empty.
    fn rewake_other_epolls(&self);

    /// Returns whether this process made the registration, rather than inherited it across a fork.
    fn is_owned_by_this_process(&self) -> bool;

    /// Sets the one alarm to expire after this long, or cancels it.
    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno>;

    /// Returns whether the alarm is set and has not expired yet.
    fn is_alarm_pending(&self) -> bool;

    /// Closes the reserve descriptor, so that one accept can use it. Returns whether there was one.
    fn release_reserve(&self) -> bool;

    /// Opens a reserve descriptor, unless there is one. Returns whether there is one now.
    fn make_reserve(&self) -> bool;

    /// Keeps new connections out of the accept queue, for every holder of the socket. Pending connections can still be
    /// accepted; accepted connections get the earlier option values back.
    fn close_intake(&self) -> Intake;

    /// The clock of [`set_alarm`](Self::set_alarm).
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns a waker of the owner, for any thread; without effect when the backend is gone.
    fn waker(&self) -> Box<dyn Wake>;
}
