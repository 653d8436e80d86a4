//! One wait: chooses between `epoll_wait`, `epoll_pwait` and `epoll_pwait2` by timeout and mask.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::sys::{self, KernelTimespec};
use crate::drain::errno::Errno;

/// Waits once and returns the kernel's errors unchanged, including EINTR.
#[inline]
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let Some(timeout) = timeout else { return wait_ms(epoll, buffer, NO_TIMEOUT, mask) };
    wait_timeout(epoll, buffer, timeout, mask)
}

/// epoll_wait(2): "Specifying a timeout of -1 causes epoll_wait() to block indefinitely".
const NO_TIMEOUT: c_int = -1;

fn wait_timeout(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: Duration,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let ms = match Timeout::new(timeout) {
        Timeout::Millis(ms) => ms,
        Timeout::Exact(exact, rounded_ms) => {
            if let Some(result) = wait_exact(epoll, buffer, exact, mask) {
                return result;
            }
            rounded_ms
        }
    };
    wait_ms(epoll, buffer, ms, mask)
}

#[inline]
fn wait_ms(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    ms: c_int,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    match mask {
        None => sys::epoll_wait(epoll, buffer, ms),
        Some(mask) => sys::epoll_pwait(epoll, buffer, ms, mask),
    }
}

/// Waits with `epoll_pwait2`; `None` if the kernel lacks it, which the process checks only once.
fn wait_exact(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: KernelTimespec,
    mask: Option<&libc::sigset_t>,
) -> Option<Result<usize, Errno>> {
    static MISSING: AtomicBool = AtomicBool::new(false);

    if MISSING.load(Ordering::Relaxed) {
        return None;
    }
    match sys::epoll_pwait2(epoll, buffer, timeout, mask) {
        // The call itself never returns EPERM: the seccomp filters of some containers do, for unknown calls.
        Err(errno) if matches!(errno.number(), libc::ENOSYS | libc::EPERM) => {
            MISSING.store(true, Ordering::Relaxed);
            None
        }
        result => Some(result),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Timeout {
    /// A timeout that `epoll_wait` can express.
    Millis(c_int),
    /// A finer or longer timeout, and the fallback in milliseconds: rounded up, at most `c_int::MAX`.
    Exact(KernelTimespec, c_int),
}

impl Timeout {
    fn new(timeout: Duration) -> Self {
        let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
        let ms = c_int::try_from(rounded_up).unwrap_or(c_int::MAX);
        if Duration::from_millis(u64::from(ms.unsigned_abs())) == timeout {
            return Self::Millis(ms);
        }
        let exact = KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        };
        Self::Exact(exact, ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_in_milliseconds_is_exact() {
        assert_eq!(Timeout::new(Duration::ZERO), Timeout::Millis(0));
        assert_eq!(Timeout::new(Duration::from_millis(7)), Timeout::Millis(7));
        let longest = u64::from(c_int::MAX.unsigned_abs());
        assert_eq!(Timeout::new(Duration::from_millis(longest)), Timeout::Millis(c_int::MAX));
    }

    #[test]
    fn timeout_fallback_rounds_up() {
        let table = [
            (Duration::from_nanos(1), (0, 1), 1),
            (Duration::from_nanos(999_999), (0, 999_999), 1),
            (Duration::from_nanos(1_000_001), (0, 1_000_001), 2),
            (Duration::new(3, 999_999_999), (3, 999_999_999), 4_000),
            (Duration::from_millis(1 << 31), (2_147_483, 648_000_000), c_int::MAX),
            (Duration::MAX, (i64::MAX, 999_999_999), c_int::MAX),
        ];
        for (timeout, (seconds, nanoseconds), ms) in table {
            let exact = KernelTimespec { seconds, nanoseconds };
            assert_eq!(Timeout::new(timeout), Timeout::Exact(exact, ms), "{timeout:?}");
        }
    }
}
