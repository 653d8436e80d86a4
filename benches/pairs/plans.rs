//! The engines. The documentation of the bench says what is timed.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use epoll_acceptor::Trigger::{Edge, Exclusive, Level};

use crate::engines::Engine;
use crate::engines::by_hand::{ByHand, depth, one, predicting, until_eagain};
use crate::{ours, peers, uring};

/// The flags of the sockets that an engine delivers; asserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    NonblockingCloexec,
    Cloexec,
}

/// An engine, and how it is started on a non-blocking listener.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) flags: Flags,
    pub(crate) make: fn(TcpListener) -> io::Result<Box<dyn Engine>>,
}

/// The reference: accept until EAGAIN, with the peer's address, edge-triggered.
pub(crate) const REFERENCE: &str = "libc/edge-until-eagain";
/// The reference once more, on a listener of its own: its deviation from 1.00 is noise.
pub(crate) const AGAIN: &str = "libc/edge-until-eagain/again";
pub(crate) const URING: &str = "io_uring";

/// The longest burst.
pub(crate) const LONGEST: usize = 4096;

/// Returns every engine. To add one, add a line here, and its comparisons in `work.rs`.
pub(crate) fn all() -> Vec<Plan> {
    use Flags::{Cloexec, NonblockingCloexec as Both};
    let plan = |name, flags, make| Plan { name, flags, make };
    vec![
        plan(REFERENCE, Both, |on| edge(on, until_eagain, false)),
        plan(AGAIN, Both, |on| edge(on, until_eagain, false)),
        plan("libc/level-until-eagain", Both, |on| level(on, until_eagain)),
        plan("libc/level-one", Both, |on| level(on, one)),
        plan("libc/level-depth", Both, |on| level(on, depth)),
        plan("libc/level-guess", Both, |on| by_hand(on, libc::EPOLLIN, false, predicting())),
        plan("libc/edge-mod-one", Both, |on| edge(on, one, true)),
        plan("libc/edge-mod-depth", Both, |on| edge(on, depth, true)),
        plan("libc/edge-depth", Both, |on| edge(on, depth, false)),
        plan("crate/level", Both, |on| ours::ungated(Level, on)),
        plan("crate/level+gate", Both, |on| ours::gated(Level, on)),
        plan("crate/level+register", Both, |on| ours::registered(Level, on)),
        plan("crate/edge", Both, |on| ours::ungated(Edge, on)),
        plan("crate/edge+gate", Both, |on| ours::gated(Edge, on)),
        plan("crate/exclusive", Both, |on| ours::ungated(Exclusive, on)),
        plan("crate/exclusive+gate", Both, |on| ours::gated(Exclusive, on)),
        plan("crate/level/tokio", Both, |on| ours::in_tokio(Level, on)),
        plan("crate/edge/tokio", Both, |on| ours::in_tokio(Edge, on)),
        plan("crate/level/tokio/std", Both, |on| ours::in_tokio_std(Level, on)),
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
    Ok(Box::new(ByHand::new(listener, mask, modifies, LONGEST, pass)?))
}
