//! The states of an acceptor.

use std::fmt;
use std::io;

use super::errno::Errno;

/// Why an acceptor does not accept just now, or that it does.
///
/// One state is in charge at a time, the last of this list that holds. What stood behind it is looked at anew
/// when it ends, so that nothing stale is remembered: a paused acceptor that is resumed finds out for itself
/// whether it is full.
///
/// | in charge | why | who wakes it |
/// |---|---|---|
/// | open | it listens to the kernel | the kernel |
/// | throttled | connections come faster than they may, or are refused faster | its timer |
/// | exhausted | out of descriptors or memory | its timer, or a place given back to its gate |
/// | full | connections wait and no permit is left | a permit given back, or the limit raised |
/// | paused | [`Control::pause`](super::Control::pause) | [`Control::resume`](super::Control::resume) |
/// | stopped | [`Control::stop`](super::Control::stop) | nobody; the owner closes it or hands it on |
/// | dead | the listener was shut down or closed | nobody; the owner was told once |
///
/// Drawn in [the architecture](crate::guide::architecture#the-states); [`Control`](super::Control) and [`ListenerClosed`] have
/// examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// It listens.
    #[default]
    Listening,
    /// It has connections waiting that come faster than they may, and will try again.
    Throttled,
    /// It ran out of descriptors or memory and will try again: after 10 ms, then 20, and so on up to 200; sooner
    /// when a place comes back to its gate, but then no oftener than every 5 ms.
    Exhausted,
    /// It has connections waiting and no place for them.
    Full,
    /// It was paused, and has noticed.
    Paused,
    /// It was stopped, and has noticed: it is registered no more.
    Stopped,
    /// Its listener does not listen any more: it is registered no more.
    Closed,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Listening,
        Self::Throttled,
        Self::Exhausted,
        Self::Full,
        Self::Paused,
        Self::Stopped,
        Self::Closed,
    ];

    /// Whether it will never accept again.
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

/// `open`, `full`, and so on.
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

/// The listener does not listen any more; told once.
///
/// Everything that was still acceptable has been delivered, and the acceptor is registered no more. Take the
/// listener out, or drop the acceptor, and open a new one.
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
/// let dead = acceptor.drain(drop).unwrap_err();
/// assert_eq!(acceptor.state(), State::Closed);
/// assert_eq!(acceptor.drain(drop), Ok(0), "it is told once");
/// assert_eq!(io::Error::from(dead).kind(), io::ErrorKind::NotConnected);
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

    /// The errno of the accept that told, if one did; else it was the listener's own hang-up.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for ListenerClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the listener was shut down or closed and accepts no more")?;
        match self.errno {
            Some(errno) => write!(f, " ({errno:?}): open a new one"),
            None => f.write_str(": open a new one"),
        }
    }
}

impl std::error::Error for ListenerClosed {}

/// Of the kind [`NotConnected`](io::ErrorKind::NotConnected), with this error inside.
impl From<ListenerClosed> for io::Error {
    fn from(dead: ListenerClosed) -> Self {
        Self::new(io::ErrorKind::NotConnected, dead)
    }
}
