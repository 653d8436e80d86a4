//! A registration that deletes itself.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;

use thiserror::Error;

use super::control::EpollCtlError;
use super::epoll;
use super::interest::Interest;
use super::sys;
use super::token::Token;

/// A descriptor that is watched by an epoll, and is not any more when this is dropped.
///
/// Owns the descriptor, or borrows it (`Registration<&TcpListener>`), or shares it
/// (`Registration<Arc<TcpListener>>`); in every case it is open for as long as it is registered. The epoll
/// lives on for as long as a registration does, even if the [`Epoll`](super::epoll::Epoll) is dropped first.
///
/// Dropping it deletes the registration first and the descriptor second, so that a duplicate of the
/// descriptor does not keep the registration alive.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
/// use epoll_acceptor::{Epoll, Events, Interest, Token};
///
/// let epoll = Epoll::new()?;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let duplicate = listener.try_clone()?;
/// let registration = epoll.register(listener, Token(1), Interest::IN)?;
/// let client = TcpStream::connect(duplicate.local_addr()?)?;
///
/// drop(registration);
/// let mut events = Events::with_capacity(1)?;
/// assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO))?.count(), 0);
/// # Ok(())
/// # }
/// ```
///
/// ## In a forked child
///
/// The child shares the epoll with its parent, so that a deletion by the child would deafen the parent.
/// Dropped in another process than it was made in, a registration closes its descriptor and deletes nothing.
/// [`modify`](Self::modify) has no such care.
#[must_use = "a registration that is dropped is deleted"]
#[derive(Debug)]
pub struct Registration<F: AsFd> {
    /// Invariant: `Some` until `into_inner`.
    fd: Option<F>,
    epoll: Arc<OwnedFd>,
    process: u32,
}

impl<F: AsFd> Registration<F> {
    pub(crate) fn new(
        epoll: &Arc<OwnedFd>,
        fd: F,
        add: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>) -> Result<(), EpollCtlError>,
    ) -> Result<Self, AddError<F>> {
        match add(epoll.as_fd(), fd.as_fd()) {
            Ok(()) => Ok(Self { fd: Some(fd), epoll: Arc::clone(epoll), process: process::id() }),
            Err(error) => Err(AddError { fd, error }),
        }
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`—Changes token and interest, and reports once more what is ready.
    ///
    /// # Errors
    ///
    /// As for [`Epoll::modify`](super::epoll::Epoll::modify): a registration that is exclusive cannot be
    /// modified.
    pub fn modify(&self, token: Token, interest: Interest) -> Result<(), EpollCtlError> {
        epoll::modify(self.epoll.as_fd(), self.as_fd(), token, interest)
    }

    /// Deletes the registration and gives the descriptor back.
    #[must_use = "what is dropped is closed"]
    pub fn into_inner(mut self) -> F {
        self.deregister();
        self.fd.take().expect(PRESENT)
    }

    /// What is registered.
    ///
    /// There is no way to its inside by `&mut`: it could be exchanged for another, and the registration with it would
    /// be nobody's. Sockets are read and written through a shared reference as well:
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io::Write;
    /// use std::net::{TcpListener, TcpStream};
    /// use epoll_acceptor::{Epoll, Interest, Token};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// let registration = Epoll::new()?.register(stream, Token(1), Interest::IN)?;
    /// let mut stream: &TcpStream = registration.get_ref();
    /// stream.write_all(b"hello")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_ref(&self) -> &F {
        self.fd.as_ref().expect(PRESENT)
    }

    fn deregister(&self) {
        match &self.fd {
            // Whatever the answer, it is not registered afterwards.
            Some(fd) if self.process == process::id() => {
                let _ = sys::epoll_ctl_del(self.epoll.as_fd(), fd.as_fd());
            }
            _ => {}
        }
    }
}

impl<F: AsFd> Drop for Registration<F> {
    fn drop(&mut self) {
        self.deregister();
    }
}

impl<F: AsFd> AsFd for Registration<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

/// A registration was refused; here is the descriptor back.
#[derive(Clone, Copy, Error)]
#[error("{error}")]
pub struct AddError<F> {
    fd: F,
    error: EpollCtlError,
}

impl<F> AddError<F> {
    /// Why.
    pub const fn error(&self) -> EpollCtlError {
        self.error
    }

    /// What was to be registered.
    #[must_use = "what is dropped is closed"]
    pub fn into_inner(self) -> F {
        self.fd
    }
}

// By hand: a descriptor need not be `Debug` for its error to be one.
impl<F> fmt::Debug for AddError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Drops the descriptor, and so closes it if it is owned.
impl<F> From<AddError<F>> for EpollCtlError {
    fn from(refused: AddError<F>) -> Self {
        refused.error
    }
}

/// Drops the descriptor, and so closes it if it is owned: `?` does. [`into_inner`](AddError::into_inner) gives
/// it back.
impl<F> From<AddError<F>> for io::Error {
    fn from(refused: AddError<F>) -> Self {
        refused.error.into()
    }
}

const PRESENT: &str = "only `into_inner` takes it, and ends the registration with it";
