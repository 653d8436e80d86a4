//! The classes of the errors of `accept4`: the only table of them.

use std::fmt;
use std::io;

/// An error number of the kernel.
///
/// A newtype over the number, so that an unknown number is still a value. See
/// [errno(3)](https://man7.org/linux/man-pages/man3/errno.3.html).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

/// The effect of a failed `accept4` on the accept queue.
///
/// See [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html), "Errors"; K50 to K52 of [the kernel's
/// rules](crate::guide::kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrnoClass {
    /// One connection is gone from the queue: accept the next.
    Consumed,
    /// The queue is empty.
    Empty,
    /// A signal arrived first: retry.
    Interrupted,
    /// The process or the system is out of descriptors or memory; the queue is untouched: back off.
    Resource,
    /// The socket does not accept any more, or never did: close it.
    Fatal,
}

impl Errno {
    /// Wraps an error number (positive).
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// Returns the number, as in `errno(3)`.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Returns the class of this error when `accept4` returns it (accept(2), "ERRORS").
    ///
    /// ```
    /// use epoll_acceptor::socket::{Errno, ErrnoClass};
    ///
    /// assert_eq!(Errno::new(libc::EMFILE).class(), ErrnoClass::Resource);
    /// assert_eq!(Errno::new(12_345).class(), ErrnoClass::Resource, "an unknown error backs off");
    /// ```
    #[inline]
    #[must_use]
    pub const fn class(self) -> ErrnoClass {
        match self.0 {
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT => ErrnoClass::Consumed,
            libc::EAGAIN => ErrnoClass::Empty,
            libc::EINTR => ErrnoClass::Interrupted,
            libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP => ErrnoClass::Fatal,
            // EMFILE ENFILE ENOBUFS ENOMEM EPERM, and every unknown one: never "go on", never "fatal".
            _ => ErrnoClass::Resource,
        }
    }
}

impl Errno {
    /// Returns whether the process or the system is out of descriptors.
    pub(super) const fn is_descriptors(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

/// The name and what it means: `EMFILE: Too many open files (os error 24)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", io::Error::from(*self))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EEXIST, "EEXIST"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EPIPE, "EPIPE"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENONET, "ENONET"),
    (libc::EPROTO, "EPROTO"),
    (libc::ENOTSOCK, "ENOTSOCK"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ECONNRESET, "ECONNRESET"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EHOSTDOWN, "EHOSTDOWN"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
];
