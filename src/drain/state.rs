//! The states of an acceptor, as other threads see them.

use std::fmt;
use std::io;

use super::errno::Errno;

/// The state of an acceptor.
///
/// If several of throttled, exhausted and full hold, the state is the one that the acceptor met first; when that ends,
/// it checks the others. Paused, stopped and closed take precedence.
///
/// [`Control`](super::control::Control) and [`ListenerClosed`] have examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// The kernel reports the listener.
    #[default]
    Listening,
    /// Connections come, or are refused, faster than allowed. Ends by the timer.
    Throttled,
    /// Out of descriptors or memory. Retries after 10 ms, doubling to 200 ms; sooner when a permit is released at its
    /// gate, at most every 5 ms.
    Exhausted,
    /// Connections are pending, and its gate has no permit. Ends when one is released, or the limit is raised.
    Full,
    /// It has noticed a [`Control::pause`](super::control::Control::pause). Ends when no guard is left.
    Paused,
    /// It has noticed a [`Control::stop`](super::control::Control::stop), or its graceful shutdown has ended: not
    /// registered any more.
    Stopped,
    /// Its listener was shut down or closed: not registered any more.
    Closed,
}

impl State {
    pub(super) const ALL: [Self; 7] = [
        Self::Listening,
        Self::Throttled,
        Self::Exhausted,
        Self::Full,
        Self::Paused,
        Self::Stopped,
        Self::Closed,
    ];

    /// Returns whether it will never accept again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Stopped | Self::Closed)
    }

    pub(super) fn from_code(code: u8) -> Self {
        Self::ALL[usize::from(code)]
    }

    pub(super) const fn code(self) -> u8 {
        self as u8
    }
}

/// `listening`, `full`, and so on.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listening => "listening",
            Self::Throttled => "throttled",
            Self::Exhausted => "exhausted",
            Self::Full => "full",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Closed => "closed",
        })
    }
}

/// The listener does not listen any more. Reported once.
///
/// Everything that could still be accepted has been delivered. Drop the acceptor, and open a new listener.
///
/// ```
/// use std::io;
/// use std::net::{Shutdown, TcpListener};
/// use epoll_acceptor::{Acceptor, Epoll, Events, LevelTriggered, State, Token};
/// use socket2::SockRef;
///
/// # fn main() -> io::Result<()> {
/// let epoll = Epoll::new()?;
/// let mut events = Events::with_capacity(8)?;
/// let mut acceptor = LevelTriggered::on(TcpListener::bind("127.0.0.1:0")?).register(&epoll, Token(0))?;
///
/// SockRef::from(acceptor.listener()).shutdown(Shutdown::Read)?;
/// epoll.wait(&mut events, None)?;
/// let closed = acceptor.drain(drop).unwrap_err();
/// assert_eq!(acceptor.state(), State::Closed);
/// assert_eq!(acceptor.drain(drop), Ok(0), "reported once");
/// assert_eq!(io::Error::from(closed).kind(), io::ErrorKind::NotConnected);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerClosed {
    errno: Option<Errno>,
}

impl ListenerClosed {
    pub(super) const fn new(errno: Option<Errno>) -> Self {
        Self { errno }
    }

    /// Returns the errno of the accept that found the listener closed; `None` if its hang-up showed that.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for ListenerClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the listener was shut down or closed")?;
        match self.errno {
            Some(errno) => write!(f, " ({errno:?}): open a new one"),
            None => f.write_str(": open a new one"),
        }
    }
}

impl std::error::Error for ListenerClosed {}

/// Of the kind [`NotConnected`](io::ErrorKind::NotConnected), with this error inside.
impl From<ListenerClosed> for io::Error {
    fn from(closed: ListenerClosed) -> Self {
        Self::new(io::ErrorKind::NotConnected, closed)
    }
}
