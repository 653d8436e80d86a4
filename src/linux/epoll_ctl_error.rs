//! The error of `epoll_ctl`, and its remedy.

use std::fmt;
use std::io;

use thiserror::Error;

use super::interest::Interest;
use crate::drain::errno::Errno;

/// The error of a failed `epoll_ctl`. Its message names the remedy.
///
/// Converts to an [`io::Error`] of the matching kind that contains this error
/// ([`get_ref`](io::Error::get_ref)); the `raw_os_error` of that `io::Error` is `None`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use epoll_acceptor::{Epoll, Interest, Token};
///
/// let epoll = Epoll::new()?;
/// let directory = std::fs::File::open("/")?;
/// let error = epoll.add(&directory, Token(0), Interest::IN).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "cannot add the descriptor to the epoll: it does not support epoll (EPERM); \
///      do not add a regular file or a directory: it is always ready"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cannot {operation}: {reason}; {}", self.remedy())]
pub struct EpollCtlError {
    operation: Operation,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    AddExclusive,
    Modify,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The kernel returned this errno.
    Errno(Errno),
    /// `EPOLLEXCLUSIVE` was passed to a call other than `add_exclusive`.
    ExclusiveFlag,
    /// The kernel does not allow these flags with `EPOLLEXCLUSIVE`.
    NotExclusive(Interest),
}

impl EpollCtlError {
    pub(crate) const fn kernel(operation: Operation, errno: Errno) -> Self {
        Self { operation, reason: Reason::Errno(errno) }
    }

    pub(crate) const fn exclusive_flag(operation: Operation) -> Self {
        Self { operation, reason: Reason::ExclusiveFlag }
    }

    pub(crate) const fn not_exclusive(illegal: Interest) -> Self {
        Self { operation: Operation::AddExclusive, reason: Reason::NotExclusive(illegal) }
    }

    /// Returns the kernel's error number; `None` if this crate rejected the flags before the system call.
    #[must_use]
    pub const fn raw_os_error(&self) -> Option<i32> {
        match self.reason {
            Reason::Errno(errno) => Some(errno.number()),
            Reason::ExclusiveFlag | Reason::NotExclusive(_) => None,
        }
    }

    /// Returns the kind of the [`io::Error`] that this error converts to.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self.raw_os_error() {
            None | Some(libc::EINVAL | libc::EBADF | libc::ELOOP) => io::ErrorKind::InvalidInput,
            Some(libc::EPERM) => io::ErrorKind::Unsupported,
            Some(libc::ENOSPC) => io::ErrorKind::QuotaExceeded,
            Some(number) => io::Error::from_raw_os_error(number).kind(),
        }
    }

    fn remedy(&self) -> &'static str {
        match self.reason {
            Reason::ExclusiveFlag if self.operation == Operation::Modify => {
                "delete the registration and add it again with `add_exclusive`"
            }
            Reason::ExclusiveFlag => "use `add_exclusive`",
            Reason::NotExclusive(_) => {
                "use EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLET and EPOLLWAKEUP only"
            }
            Reason::Errno(errno) => remedy(self.operation, errno.number()),
        }
    }
}

impl From<EpollCtlError> for io::Error {
    fn from(error: EpollCtlError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn remedy(operation: Operation, number: i32) -> &'static str {
    match (number, operation) {
        (libc::EPERM, _) => "do not add a regular file or a directory: it is always ready",
        (libc::EEXIST, _) => "use `modify`, or duplicate the descriptor for a second registration",
        (libc::ENOENT, Operation::Delete) => {
            "if it was added under another descriptor number, delete that one; otherwise ignore this error"
        }
        (libc::ENOENT, _) => "call `add` first",
        (libc::EBADF, _) => "keep both descriptors open while they are registered",
        (libc::EINVAL, Operation::Add) => {
            "pass an epoll, do not add it to itself, and do not add it to too many others"
        }
        (libc::EINVAL, Operation::AddExclusive) => "pass an epoll; add another epoll to it with `add` only",
        (libc::EINVAL, Operation::Modify) => {
            "pass an epoll; delete an exclusive registration and add it again instead"
        }
        (libc::EINVAL, Operation::Delete) => "pass an epoll",
        (libc::ELOOP, _) => "add the inner descriptors directly, or nest fewer epolls",
        (libc::ENOSPC, _) => "delete registrations, or raise /proc/sys/fs/epoll/max_user_watches",
        (libc::ENOMEM, _) => "free memory, then retry after a delay",
        _ => "epoll_ctl(2) does not document this error: check the seccomp filter of the process",
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add the descriptor to the epoll",
            Self::AddExclusive => "add the descriptor to the epoll exclusively",
            Self::Modify => "modify the descriptor's registration",
            Self::Delete => "delete the descriptor's registration",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = match self {
            Self::Errno(errno) => errno,
            Self::ExclusiveFlag => return f.write_str("only `add_exclusive` sets EPOLLEXCLUSIVE"),
            Self::NotExclusive(flags) => {
                return write!(f, "EPOLLEXCLUSIVE does not allow {flags:?}");
            }
        };
        let meaning = match errno.number() {
            libc::EPERM => "it does not support epoll",
            libc::EEXIST => "it is already registered",
            libc::ENOENT => "it is not registered with this epoll",
            libc::EBADF => "one of the two descriptors is not open",
            libc::EINVAL => "invalid argument",
            libc::ELOOP => "the epolls would form a loop or nest too deeply",
            libc::ENOSPC => "the user has reached the limit of registrations",
            libc::ENOMEM => "the kernel is out of memory",
            _ => "the system call failed",
        };
        write!(f, "{meaning} ({errno:?})")
    }
}
