//! The RAII guard of an epoll registration.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;

use thiserror::Error;

use super::epoll;
use super::epoll_ctl_error::EpollCtlError;
use super::interest::Interest;
use super::sys;
use super::token::Token;

/// A descriptor that is registered with an epoll until this guard is dropped.
///
/// Owns the descriptor, borrows it (`Registration<&TcpListener>`) or shares it (`Registration<Arc<TcpListener>>`), so
/// the descriptor stays open while it is registered. A registration also keeps the epoll open, even if the
/// [`Epoll`](super::epoll::Epoll) is dropped first.
///
/// Dropping the guard deletes the registration, then drops the descriptor: an open duplicate of the descriptor does
/// not keep the registration alive.
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
/// ## Forked child
///
/// The child shares the epoll with its parent: a deletion in the child would delete the parent's registration.
/// Therefore a guard that is dropped in a process other than the one that created it closes its descriptor and deletes
/// nothing. [`modify`](Self::modify) does not check this.
#[must_use = "dropping a registration deletes it"]
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

    /// `epoll_ctl(EPOLL_CTL_MOD)`—Changes the token and the interest, and makes the kernel check readiness again.
    ///
    /// # Errors
    ///
    /// As for [`Epoll::modify`](super::epoll::Epoll::modify).
    pub fn modify(&self, token: Token, interest: Interest) -> Result<(), EpollCtlError> {
        epoll::modify(self.epoll.as_fd(), self.as_fd(), token, interest)
    }

    /// Deletes the registration and returns the descriptor.
    #[must_use = "dropping an owned descriptor closes it"]
    pub fn into_inner(mut self) -> F {
        self.deregister();
        self.fd.take().expect(PRESENT)
    }

    /// Returns a reference to the registered descriptor.
    ///
    /// There is no `get_mut`: replacing the descriptor would leave its registration without an owner. Sockets can be
    /// read and written through a shared reference.
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
            // Whatever the result, the descriptor is not registered afterwards.
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

/// The error of [`Epoll::register`](super::epoll::Epoll::register), with the descriptor.
#[derive(Clone, Copy, Error)]
#[error("{error}")]
pub struct AddError<F> {
    fd: F,
    error: EpollCtlError,
}

impl<F> AddError<F> {
    /// Returns the error of the system call.
    pub const fn error(&self) -> EpollCtlError {
        self.error
    }

    /// Returns the descriptor, which is not registered.
    #[must_use = "dropping an owned descriptor closes it"]
    pub fn into_inner(self) -> F {
        self.fd
    }
}

// A manual impl, because a derive would require `F: Debug`.
impl<F> fmt::Debug for AddError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Drops the descriptor, which closes an owned one. [`into_inner`](AddError::into_inner) returns it.
impl<F> From<AddError<F>> for EpollCtlError {
    fn from(error: AddError<F>) -> Self {
        error.error
    }
}

/// Drops the descriptor, which closes an owned one; `?` does too. [`into_inner`](AddError::into_inner) returns it.
impl<F> From<AddError<F>> for io::Error {
    fn from(error: AddError<F>) -> Self {
        error.error.into()
    }
}

const PRESENT: &str = "only `into_inner` takes the descriptor, and it consumes the registration";
