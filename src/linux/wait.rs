//! One wait, by whichever system call fits its timeout.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::sys::{self, KernelTimespec};
use crate::drain::errno::Errno;

/// Waits once; the errors are the kernel's, EINTR among them.
#[inline]
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: Option<Duration>,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let Some(timeout) = timeout else { return wait_ms(epoll, buffer, FOR_EVER, mask) };
    wait_at_most(epoll, buffer, timeout, mask)
}

/// The timeout of `epoll_wait` that never comes.
const FOR_EVER: c_int = -1;

fn wait_at_most(
    epoll: BorrowedFd<'_>,
    buffer: &mut [libc::epoll_event],
    timeout: Duration,
    mask: Option<&libc::sigset_t>,
) -> Result<usize, Errno> {
    let ms = match Timeout::new(timeout) {
        Timeout::Millis(ms) => ms,
        Timeout::Exact(exact, rounded_ms) => {
            if let Some(answer) = wait_exactly(epoll, buffer, exact, mask) {
                return answer;
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

/// `None` where the kernel has no `epoll_pwait2`; asked once in the life of a process.
fn wait_exactly(
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
        // EPERM is no answer of the call itself: it is how some containers filter what they do not know.
        Err(errno) if matches!(errno.number(), libc::ENOSYS | libc::EPERM) => {
            MISSING.store(true, Ordering::Relaxed);
            None
        }
        answer => Some(answer),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Timeout {
    /// What `epoll_wait` can say.
    Millis(c_int),
    /// What it cannot, and the nearest to it that it can, never shorter as long as a C int lasts.
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
    fn whole_milliseconds_need_no_newer_call() {
        assert_eq!(Timeout::new(Duration::ZERO), Timeout::Millis(0));
        assert_eq!(Timeout::new(Duration::from_millis(7)), Timeout::Millis(7));
        let longest = u64::from(c_int::MAX.unsigned_abs());
        assert_eq!(Timeout::new(Duration::from_millis(longest)), Timeout::Millis(c_int::MAX));
    }

    #[test]
    fn the_rest_is_exact_and_rounds_up_where_it_must() {
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
