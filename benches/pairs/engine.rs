//! What is measured: something that takes connections from a listener of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use crate::{by_hand, ours, peers, uring};

/// One way to accept. See the head of the bench for the rule of what is timed.
pub(crate) trait Engine {
    /// Where to connect to.
    fn address(&self) -> SocketAddr;

    /// Timed. From asleep: wakes, takes exactly `burst` connections, and does everything else that comes before
    /// its next blocking wait.
    fn take(&mut self, burst: usize);

    /// What was taken since the last release.
    fn taken(&self) -> Vec<BorrowedFd<'_>>;

    /// Closes what was taken. Not timed.
    fn release(&mut self);
}

/// What an engine says of the sockets it hands out; asserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    NonblockingCloexec,
    Cloexec,
}

/// An engine that can be made.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) claim: Claim,
    pub(crate) make: fn() -> io::Result<Box<dyn Engine>>,
}

/// What everything is compared with: accept until EAGAIN, with the peer's address, edge-triggered.
pub(crate) const REFERENCE: &str = "libc/edge-until-eagain";
/// The reference once more, on a listener of its own: what it is off 1.00 is noise.
pub(crate) const AGAIN: &str = "libc/edge-until-eagain/again";
pub(crate) const URING: &str = "io_uring";

/// Every engine. A new one needs a line here; what it is compared with, besides, in `work.rs`.
pub(crate) fn all() -> Vec<Plan> {
    use Claim::{Cloexec, NonblockingCloexec as Both};
    let plan = |name, claim, make| Plan { name, claim, make };
    vec![
        plan(REFERENCE, Both, || by_hand::edge(by_hand::until_eagain, false)),
        plan(AGAIN, Both, || by_hand::edge(by_hand::until_eagain, false)),
        plan("libc/level-until-eagain", Both, || by_hand::level(by_hand::until_eagain)),
        plan("libc/level-one", Both, || by_hand::level(by_hand::one)),
        plan("libc/level-depth", Both, || by_hand::level(by_hand::depth)),
        plan("libc/level-guess", Both, by_hand::level_guessing),
        plan("libc/edge-mod-one", Both, || by_hand::edge(by_hand::one, true)),
        plan("libc/edge-mod-depth", Both, || by_hand::edge(by_hand::depth, true)),
        plan("libc/edge-depth", Both, || by_hand::edge(by_hand::depth, false)),
        plan("crate/level", Both, ours::level),
        plan("crate/level+gate", Both, ours::level_gated),
        plan("crate/level+register", Both, ours::level_registered),
        plan("crate/edge", Both, ours::edge),
        plan("crate/edge+gate", Both, ours::edge_gated),
        plan("crate/exclusive", Both, ours::exclusive),
        plan("crate/exclusive+gate", Both, ours::exclusive_gated),
        plan("crate/trigger-level", Both, ours::trigger_level),
        plan("crate/trigger-edge", Both, ours::trigger_edge),
        plan("std", Cloexec, peers::Std::boxed),
        plan("mio", Both, peers::Mio::boxed),
        plan("polling", Cloexec, peers::Polling::boxed),
        plan("polling/until-would-block", Cloexec, peers::Polling::draining),
        plan("tokio", Both, peers::Tokio::boxed),
        plan("tokio/async-fd", Cloexec, peers::TokioFd::boxed),
        plan(URING, Both, uring::Uring::boxed),
    ]
}

/// A listener with room for the longest burst, as far as the system allows it.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    SockRef::from(&listener).listen(8192)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
