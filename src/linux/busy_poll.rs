//! How long a wait looks at the network card itself before it sleeps.

use std::io;
use std::os::fd::BorrowedFd;

use super::sys;
use crate::drain::errno::Errno;

/// The busy-poll parameters of one epoll. All zero, the default, leaves it to the system's setting.
///
/// A wait that would sleep then polls the receive queues of the sockets it watches instead: lower latency for
/// a busy processor.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::ErrorKind;
/// use epoll_acceptor::{BusyPoll, Epoll};
///
/// let epoll = Epoll::new()?;
/// match epoll.set_busy_poll(BusyPoll { micros: 50, budget: 16, prefer: false }) {
///     Ok(()) => assert_eq!(epoll.busy_poll()?.micros, 50),
///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported), // before Linux 6.9
/// }
/// # Ok(())
/// # }
/// ```
///
/// # References
///
/// [ioctl_eventpoll(2)](https://man7.org/linux/man-pages/man2/ioctl_eventpoll.2.html)
#[doc(alias = "epoll_params")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long to poll, in microseconds; at most `i32::MAX`. 0: not at all.
    pub micros: u32,
    /// How many packets to take in one go. Above 64 it needs `CAP_NET_ADMIN`. 0: the kernel's own, 8.
    pub budget: u16,
    /// Keep the card's interrupts off for longer, in favour of polling.
    pub prefer: bool,
}

pub(crate) fn read(epoll: BorrowedFd<'_>) -> io::Result<BusyPoll> {
    let params = sys::epoll_params(epoll).map_err(explain)?;
    Ok(BusyPoll {
        micros: params.busy_poll_usecs,
        budget: params.busy_poll_budget,
        prefer: params.prefer_busy_poll != 0,
    })
}

pub(crate) fn write(epoll: BorrowedFd<'_>, parameters: BusyPoll) -> io::Result<()> {
    let params = libc::epoll_params {
        busy_poll_usecs: parameters.micros,
        busy_poll_budget: parameters.budget,
        prefer_busy_poll: u8::from(parameters.prefer),
        __pad: 0,
    };
    sys::set_epoll_params(epoll, &params).map_err(explain)
}

fn explain(errno: Errno) -> io::Error {
    let (kind, sentence) = match errno.number() {
        libc::ENOTTY | libc::EOPNOTSUPP => (
            io::ErrorKind::Unsupported,
            "this kernel has no busy-poll parameters for one epoll; they came with Linux 6.9, if it is \
             built with CONFIG_NET_RX_BUSY_POLL: use the system's setting, net.core.busy_poll",
        ),
        libc::EPERM => (
            io::ErrorKind::PermissionDenied,
            "a busy-poll budget above 64 needs CAP_NET_ADMIN: use a smaller one",
        ),
        libc::EINVAL => (
            io::ErrorKind::InvalidInput,
            "the kernel finds these busy-poll parameters invalid: poll for i32::MAX microseconds or less",
        ),
        _ => return errno.into(),
    };
    io::Error::new(kind, sentence)
}
