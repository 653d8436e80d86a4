//! The end of a listener as a future, on tokio.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::future::{AsyncAcceptor, IntoTokio};
use super::host::Hosted;
use crate::admission::connection::Connection;
use crate::admission::policy::Admission;
use crate::drain::closing::{Intake, Pending, ShutdownReport};
use crate::drain::strategy::Strategy;
use crate::linux::acceptor::EpollAcceptor;
use crate::linux::closing::WindingDown;
use crate::linux::listener::Listener;

/// An acceptor in a tokio runtime whose listener is to be closed without resetting anyone.
///
/// Made by [`AsyncAcceptor::wind_down`]. Ask it for connections as before, until there are no more; then
/// [`finish`](Self::finish).
///
/// ```
/// use std::time::Duration;
/// use epoll_acceptor::{LevelTriggered, Refusal, Pending};
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let acceptor = LevelTriggered::on(listener).into_async()?;
/// let mut last = tokio::net::TcpStream::connect(address).await?;
///
/// let mut ending = acceptor.wind_down(Pending::Serve(Refusal::Reset), Duration::from_secs(5));
/// while let Some(connection) = ending.accept().await? {
///     drop(connection); // or serve it
/// }
/// let farewell = ending.finish();
/// assert_eq!((farewell.served, farewell.refused, farewell.left), (1, 0, Some(0)));
/// assert_eq!(last.read(&mut [0]).await?, 0, "an orderly end, and no reset");
/// # Ok(())
/// # }
/// ```
///
/// ## Cancel safety
///
/// [`accept`](Self::accept) may be dropped at any point, and asked again.
#[must_use = "dropping it closes the listener at once, and resets whoever is queued"]
pub struct AsyncWindingDown<L: Listener, S: Strategy, A: Admission> {
    watched: Watched<L, S, A>,
    sleep: Pin<Box<Sleep>>,
}

enum Watched<L: Listener, S: Strategy, A: Admission> {
    ByTokio(AsyncAcceptor<WindingDown<L, S, A>>),
    /// Its epoll would not have it any more.
    ByNobody(Hosted<WindingDown<L, S, A>>),
}

/// No time that anybody waits for.
const FAR: Duration = Duration::from_secs(86_400);

impl<L: Listener, S: Strategy, A: Admission> AsyncAcceptor<EpollAcceptor<L, S, A>> {
    /// As [`EpollAcceptor::wind_down`]: keeps newcomers out, serves or refuses whoever is queued, and at last closes the
    /// listener. `within` bounds it; then whoever is still queued is refused.
    ///
    /// Should the runtime's epoll not have it any more (memory, `max_user_watches`, a runtime that shuts down), nobody is
    /// served any more, and the rest is refused.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one that was built without `enable_time` and `enable_io`.
    pub fn wind_down(self, rest: Pending, within: Duration) -> AsyncWindingDown<L, S, A> {
        let watched = match AsyncAcceptor::watch(self.into_hosted().wind_down(rest, within)) {
            Ok(acceptor) => Watched::ByTokio(acceptor),
            Err((hosted, _)) => Watched::ByNobody(hosted),
        };
        AsyncWindingDown { watched, sleep: Box::pin(sleep(Duration::ZERO)) }
    }
}

impl<L: Listener, S: Strategy, A: Admission> AsyncWindingDown<L, S, A> {
    /// The next of those who are served, as by [`AsyncAcceptor::accept`]; `None` when all are through, or the time is. Those
    /// who are to be refused at once are refused here.
    ///
    /// # Errors
    ///
    /// As for [`AsyncAcceptor::accept`]. Then it is over as well.
    pub async fn accept(
        &mut self,
    ) -> io::Result<Option<Connection<<L::Stream as IntoTokio>::Stream, A::Permit>>>
    where
        L::Stream: IntoTokio,
    {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), for futures written by hand. One waker is kept: that of the last call.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    #[allow(clippy::type_complexity, reason = "as `accept` has it")]
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Connection<<L::Stream as IntoTokio>::Stream, A::Permit>>>>
    where
        L::Stream: IntoTokio,
    {
        let Watched::ByTokio(acceptor) = &mut self.watched else { return Poll::Ready(Ok(None)) };
        loop {
            // The time may be over while connections are still to be had.
            let hosted = acceptor.hosted_mut();
            if hosted.timeout().is_zero() && hosted.is_over() {
                return Poll::Ready(Ok(None));
            }
            match acceptor.poll_accept(cx) {
                Poll::Ready(Ok(None)) | Poll::Pending => {}
                next => return next,
            }
            let hosted = acceptor.hosted_mut();
            if hosted.is_over() {
                return Poll::Ready(Ok(None));
            }
            // Over or not depends on the time as well.
            let until = Instant::now().checked_add(hosted.timeout());
            self.sleep.as_mut().reset(until.unwrap_or_else(|| Instant::now() + FAR));
            ready!(self.sleep.as_mut().poll(cx));
        }
    }

    /// As [`WindingDown::settle`].
    pub fn settle(mut self, settle: Duration) -> Self {
        match &mut self.watched {
            Watched::ByTokio(acceptor) => acceptor.hosted_mut().set_settle(settle),
            Watched::ByNobody(hosted) => hosted.set_settle(settle),
        }
        self
    }

    /// How far newcomers are kept out.
    #[must_use]
    pub fn barred(&self) -> Intake {
        self.hosted().barred()
    }

    /// What is hosted.
    pub fn hosted(&self) -> &Hosted<WindingDown<L, S, A>> {
        match &self.watched {
            Watched::ByTokio(acceptor) => acceptor.hosted(),
            Watched::ByNobody(hosted) => hosted,
        }
    }

    /// Refuses whoever is queued now, closes the listener, and tells what became of everyone. At any time: it need not be
    /// over.
    pub fn finish(self) -> ShutdownReport {
        match self.watched {
            Watched::ByTokio(acceptor) => acceptor.into_hosted().finish(),
            Watched::ByNobody(hosted) => hosted.finish(),
        }
    }
}

impl<L: Listener + fmt::Debug, S: Strategy, A: Admission> fmt::Debug for AsyncWindingDown<L, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncWindingDown").field("barred", &self.barred()).finish_non_exhaustive()
    }
}
