//! The listening socket of an acceptor, and the type of its connections.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::drain::control::Control;

/// A listening socket for an acceptor.
///
/// Implemented for the listeners of std, for [`AnyListener`](super::any::AnyListener) and for `OwnedFd`: sockets of
/// socket2 and listeners of mio and tokio convert into these. Implement it for your own type to choose the type of its
/// connections. `as_fd` must always return the same descriptor.
pub trait Listener: AsFd + Send + Sync {
    /// The type of an accepted connection.
    type Stream: From<OwnedFd> + AsFd;

    /// Called once by the acceptor that owns the listener.
    #[doc(hidden)]
    fn is_served_by(&self, control: Control) {
        drop(control);
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
}

impl Listener for OwnedFd {
    type Stream = Self;
}
