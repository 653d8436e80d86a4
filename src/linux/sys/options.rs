//! Socket options that nix does not have.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Errno, done};

/// `setsockopt` of an option that is an `int`.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> Result<(), Errno> {
    let size = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or(0);
    // SAFETY: setsockopt(2): "Most socket-level options utilize an int argument for optval"; so do those of ip(7) that
    // are asked for here. It is live, of the size that is told, and only read.
    done(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), size) })
}

/// `getsockopt` of an option that is an `int`.
pub(crate) fn int(fd: BorrowedFd<'_>, level: c_int, option: c_int) -> Result<c_int, Errno> {
    let mut bytes = [0; size_of::<c_int>()];
    super::getsockopt(fd, level, option, &mut bytes)?;
    Ok(c_int::from_ne_bytes(bytes))
}

/// `shutdown(SHUT_RD)`
pub(crate) fn shutdown_read(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    done(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) })
}
