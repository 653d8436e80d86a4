//! Socket options without a type in nix.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Errno, ret};

/// `setsockopt` of an `int` option.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> Result<(), Errno> {
    let size = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or(0);
    // SAFETY: setsockopt(2): "Most socket-level options utilize an int argument for optval". The kernel reads at most
    // `size` bytes of `value`, which is live and of that size.
    ret(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), size) })
}

/// `getsockopt` of an `int` option.
pub(crate) fn int(fd: BorrowedFd<'_>, level: c_int, option: c_int) -> Result<c_int, Errno> {
    let mut bytes = [0; size_of::<c_int>()];
    super::getsockopt(fd, level, option, &mut bytes)?;
    Ok(c_int::from_ne_bytes(bytes))
}

/// `shutdown(SHUT_RD)`
pub(crate) fn shutdown_read(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    ret(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) })
}
