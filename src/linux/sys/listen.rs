//! Calls on listeners and timers that nix lacks or restricts.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, ret};

/// `listen(fd, backlog)`; on a listening socket it changes the backlog alone (K32).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: u32) -> Result<(), Errno> {
    let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
    // SAFETY: the call takes no pointer.
    ret(unsafe { libc::listen(fd.as_raw_fd(), backlog) })
}

/// `timerfd_gettime`: whether the timer is set and has not expired yet.
pub(crate) fn timerfd_is_pending(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    const ZERO: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut setting = libc::itimerspec { it_interval: ZERO, it_value: ZERO };
    // SAFETY: timerfd_gettime(2): it "returns, in curr_value, an itimerspec structure"; `setting` is live and
    // exclusively borrowed.
    ret(unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &raw mut setting) })?;
    Ok(setting.it_value.tv_sec != 0 || setting.it_value.tv_nsec != 0)
}
