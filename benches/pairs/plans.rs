//! What is measured. See the head of the bench for the rule of what is timed.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use epoll_acceptor::{EdgeTriggered, Exclusive, LevelTriggered, Trigger};

use crate::engines::Engine;
use crate::engines::by_hand::{ByHand, depth, guessing, one, until_eagain};
use crate::{ours, peers, uring};

/// What an engine says of the sockets it hands out; asserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    NonblockingCloexec,
    Cloexec,
}

/// An engine that can be made, on a listener that does not block.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) claim: Claim,
    pub(crate) make: fn(TcpListener) -> io::Result<Box<dyn Engine>>,
}

/// What everything is compared with: accept until EAGAIN, with the peer's address, edge-triggered.
pub(crate) const REFERENCE: &str = "libc/edge-until-eagain";
/// The reference once more, on a listener of its own: what it is off 1.00 is noise.
pub(crate) const AGAIN: &str = "libc/edge-until-eagain/again";
pub(crate) const URING: &str = "io_uring";

/// The longest burst.
pub(crate) const ROOM: usize = 4096;

/// Every engine. A new one needs a line here; what it is compared with, besides, in `work.rs`.
pub(crate) fn all() -> Vec<Plan> {
    use Claim::{Cloexec, NonblockingCloexec as Both};
    let plan = |name, claim, make| Plan { name, claim, make };
    vec![
        plan(REFERENCE, Both, |on| edge(on, until_eagain, false)),
        plan(AGAIN, Both, |on| edge(on, until_eagain, false)),
        plan("libc/level-until-eagain", Both, |on| level(on, until_eagain)),
        plan("libc/level-one", Both, |on| level(on, one)),
        plan("libc/level-depth", Both, |on| level(on, depth)),
        plan("libc/level-guess", Both, |on| by_hand(on, libc::EPOLLIN, false, guessing())),
        plan("libc/edge-mod-one", Both, |on| edge(on, one, true)),
        plan("libc/edge-mod-depth", Both, |on| edge(on, depth, true)),
        plan("libc/edge-depth", Both, |on| edge(on, depth, false)),
        plan("crate/level", Both, |on| ours::free(LevelTriggered::on(on))),
        plan("crate/level+gate", Both, |on| ours::gated(LevelTriggered::on(on))),
        plan("crate/level+register", Both, |on| ours::registered(LevelTriggered::on(on))),
        plan("crate/edge", Both, |on| ours::free(EdgeTriggered::on(on))),
        plan("crate/edge+gate", Both, |on| ours::gated(EdgeTriggered::on(on))),
        plan("crate/exclusive", Both, |on| ours::free(Exclusive::on(on))),
        plan("crate/exclusive+gate", Both, |on| ours::gated(Exclusive::on(on))),
        plan("crate/trigger-level", Both, |on| ours::free(Trigger::Level.on(on))),
        plan("crate/trigger-edge", Both, |on| ours::free(Trigger::Edge.on(on))),
        plan("std", Cloexec, peers::Std::boxed),
        plan("mio", Both, peers::Mio::boxed),
        plan("polling", Cloexec, peers::Polling::boxed),
        plan("polling/until-would-block", Cloexec, peers::Polling::draining),
        plan("tokio", Both, peers::Tokio::boxed),
        plan("tokio/async-fd", Cloexec, peers::TokioFd::boxed),
        plan(URING, Both, uring::Uring::boxed),
    ]
}

type Pass = fn(&TcpListener, &mut Vec<OwnedFd>);

fn level(listener: TcpListener, pass: Pass) -> io::Result<Box<dyn Engine>> {
    by_hand(listener, libc::EPOLLIN, false, pass)
}

/// With or without one `EPOLL_CTL_MOD` at the beginning of each pass.
fn edge(listener: TcpListener, pass: Pass, modifies: bool) -> io::Result<Box<dyn Engine>> {
    by_hand(listener, libc::EPOLLIN | libc::EPOLLET, modifies, pass)
}

fn by_hand<P>(listener: TcpListener, mask: c_int, modifies: bool, pass: P) -> io::Result<Box<dyn Engine>>
where
    P: FnMut(&TcpListener, &mut Vec<OwnedFd>) + 'static,
{
    Ok(Box::new(ByHand::new(listener, mask, modifies, ROOM, pass)?))
}
