//! What went wrong with a registration, and what to do about it.

use std::fmt;
use std::io;

use thiserror::Error;

use super::interest::Interest;
use crate::drain::errno::Errno;

/// Why a registration was refused, as a sentence that names the remedy.
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
///     "cannot add the descriptor to the epoll: it cannot be polled (EPERM); \
///      a regular file or a directory is always ready, so use it without epoll"
/// );
/// # Ok(())
/// # }
/// ```
///
/// Becomes an [`io::Error`] of a fitting kind that keeps this error inside
/// ([`get_ref`](io::Error::get_ref)); its own `raw_os_error` is then `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cannot {tried}: {cause}; {}", self.remedy())]
pub struct EpollCtlError {
    tried: Tried,
    cause: Cause,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Add,
    AddExclusive,
    Modify,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The kernel's own answer.
    Kernel(Errno),
    /// `EPOLLEXCLUSIVE` came in through the wrong call.
    ExclusiveFlag,
    /// These flags may not stand beside `EPOLLEXCLUSIVE`.
    NotExclusive(Interest),
}

impl EpollCtlError {
    pub(crate) const fn kernel(tried: Tried, errno: Errno) -> Self {
        Self { tried, cause: Cause::Kernel(errno) }
    }

    pub(crate) const fn exclusive_flag(tried: Tried) -> Self {
        Self { tried, cause: Cause::ExclusiveFlag }
    }

    pub(crate) const fn not_exclusive(illegal: Interest) -> Self {
        Self { tried: Tried::AddExclusive, cause: Cause::NotExclusive(illegal) }
    }

    /// The kernel's error number; `None` if the call was refused before it reached the kernel.
    #[must_use]
    pub const fn raw_os_error(&self) -> Option<i32> {
        match self.cause {
            Cause::Kernel(errno) => Some(errno.number()),
            Cause::ExclusiveFlag | Cause::NotExclusive(_) => None,
        }
    }

    /// The kind that the [`io::Error`] will have.
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
        match self.cause {
            Cause::ExclusiveFlag if self.tried == Tried::Modify => {
                "delete the registration and add it again with `add_exclusive`"
            }
            Cause::ExclusiveFlag => "use `add_exclusive`",
            Cause::NotExclusive(_) => {
                "use EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLET and EPOLLWAKEUP only"
            }
            Cause::Kernel(errno) => remedy(self.tried, errno.number()),
        }
    }
}

impl From<EpollCtlError> for io::Error {
    fn from(error: EpollCtlError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn remedy(tried: Tried, number: i32) -> &'static str {
    match (number, tried) {
        (libc::EPERM, _) => "a regular file or a directory is always ready, so use it without epoll",
        (libc::EEXIST, _) => "use `modify`, or duplicate the descriptor for a second registration",
        (libc::ENOENT, Tried::Delete) => {
            "nothing is left to do, unless it was added by another descriptor number: then delete that one"
        }
        (libc::ENOENT, _) => "use `add` first",
        (libc::EBADF, _) => "keep both descriptors open for as long as they are registered",
        (libc::EINVAL, Tried::Add) => {
            "check that the epoll is one, is not added to itself, and is not watched by too many others"
        }
        (libc::EINVAL, Tried::AddExclusive) => {
            "check that the epoll is one; watch another epoll with `add`, never exclusively"
        }
        (libc::EINVAL, Tried::Modify) => {
            "check that the epoll is one; delete an exclusive registration and add it again instead"
        }
        (libc::EINVAL, Tried::Delete) => "check that the epoll is one",
        (libc::ELOOP, _) => "watch the inner descriptors directly, or through fewer epolls",
        (libc::ENOSPC, _) => "delete registrations, or raise /proc/sys/fs/epoll/max_user_watches",
        (libc::ENOMEM, _) => "close or delete what can be spared, and try again later",
        _ => "epoll_ctl(2) does not know this error: look at what filters the system calls of this process",
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add the descriptor to the epoll",
            Self::AddExclusive => "add the descriptor to the epoll exclusively",
            Self::Modify => "modify the descriptor's registration",
            Self::Delete => "delete the descriptor's registration",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = match self {
            Self::Kernel(errno) => errno,
            Self::ExclusiveFlag => return f.write_str("EPOLLEXCLUSIVE has a call of its own"),
            Self::NotExclusive(flags) => {
                return write!(f, "{flags:?} may not stand beside EPOLLEXCLUSIVE");
            }
        };
        let meaning = match errno.number() {
            libc::EPERM => "it cannot be polled",
            libc::EEXIST => "it is registered already",
            libc::ENOENT => "it is not registered with this epoll",
            libc::EBADF => "one of the two descriptors is not open",
            libc::EINVAL => "the kernel finds it invalid",
            libc::ELOOP => "epolls would watch each other in a circle or in too long a chain",
            libc::ENOSPC => "this user has as many registrations as are allowed",
            libc::ENOMEM => "the kernel is out of memory",
            _ => "the kernel refused",
        };
        write!(f, "{meaning} ({errno:?})")
    }
}
