//! An acceptor as a future, on tokio.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::runtime::Handle;

use super::host::Hosted;
use super::turns::Progress;
use crate::admission::connection::Connection;
use crate::admission::policy::Admission;
use crate::drain::acceptor::Acceptor;
use crate::drain::counters::Counters;
use crate::drain::shared::Control;
use crate::drain::state::State;
use crate::drain::strategy::Strategy;
use crate::linux::acceptor::{BuildError, Builder, EpollAcceptor};
use crate::linux::listener::Listener;

/// An acceptor in a tokio runtime: [`accept`](Self::accept) is a future.
///
/// Made by [`Builder::into_async`]. A task owns it and asks for connections one by one; while nobody asks,
/// whoever comes waits in the kernel's queue. It runs on current-thread and multi-thread runtimes, and
/// belongs to the one in which it was made.
///
/// ```
/// use epoll_acceptor::{Gate, LevelTriggered};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> std::io::Result<()> {
///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     let gate = Gate::new(10_000);
///     let mut acceptor = LevelTriggered::on(listener).gate(&gate).into_async()?;
///     let control = acceptor.control();
///
///     let server = tokio::spawn(async move {
///         while let Some(mut connection) = acceptor.accept().await? {
///             // The place is given back when the task drops the connection.
///             tokio::spawn(async move { connection.write_all(b"hello").await });
///         }
///         std::io::Result::Ok(acceptor.into_listener())
///     });
///
///     let mut heard = String::new();
///     tokio::net::TcpStream::connect(address).await?.read_to_string(&mut heard).await?;
///     assert_eq!(heard, "hello");
///
///     control.stop();
///     let _listener = server.await??; // its queue intact, to be handed on or closed
///     Ok(())
/// }
/// ```
///
/// ## Cancel safety
///
/// [`accept`](Self::accept) may be dropped at any point, in `select!` for example: a connection is taken from
/// the kernel in the very poll that returns it. What was not accepted is found by the next `accept`, of
/// whatever task.
///
/// ## An acceptor that nobody asks
///
/// Nothing is refused, handed over or noticed while no `accept` is polled: a gate that sheds refuses nobody,
/// a place that comes back to this acceptor in line waits with it. Keep one `accept` pending for as long as
/// it serves. When it does not, drop it, or [stop](Control::stop) it and poll `accept` once more, which yields
/// `None` and hands the place on.
///
/// ## A client that tokio cannot watch
///
/// To become a tokio stream, a connection is registered with the runtime's epoll. If that fails (memory, or
/// `max_user_watches`), the connection is closed, [counted](Self::unregistered), and the next one accepted:
/// no client causes an error of the server. [`accept_std`](Self::accept_std) leaves this step to the caller.
#[must_use = "dropping it closes the listener"]
pub struct AsyncAcceptor<A> {
    fd: AsyncFd<Hosted<A>>,
    unregistered: u64,
}

/// How many passes without a connection, or connections that tokio cannot watch, one poll goes through before
/// it lets others run.
const FRUITLESS_MAX: u32 = 16;

/// A stream that becomes one of tokio's. The caller is in the context of a runtime.
///
/// Implemented for std's. For the stream of a [`Listener`] of your own:
///
/// ```
/// use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
/// use epoll_acceptor::IntoTokio;
///
/// struct Stream(std::net::TcpStream);
///
/// impl From<OwnedFd> for Stream {
///     fn from(fd: OwnedFd) -> Self {
///         Self(fd.into())
///     }
/// }
///
/// impl AsFd for Stream {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl IntoTokio for Stream {
///     type Stream = tokio::net::TcpStream;
///
///     fn into_tokio(self) -> std::io::Result<Self::Stream> {
///         self.0.set_nodelay(true)?;
///         self.0.into_tokio()
///     }
/// }
/// ```
pub trait IntoTokio {
    /// What it becomes.
    type Stream;

    /// Registers it with the runtime. It is non-blocking already.
    ///
    /// # Errors
    ///
    /// Whatever the runtime's epoll refuses; then the stream is closed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime whose I/O is enabled.
    fn into_tokio(self) -> io::Result<Self::Stream>;
}

impl IntoTokio for TcpStream {
    type Stream = tokio::net::TcpStream;

    fn into_tokio(self) -> io::Result<Self::Stream> {
        Self::Stream::from_std(self)
    }
}

impl IntoTokio for UnixStream {
    type Stream = tokio::net::UnixStream;

    fn into_tokio(self) -> io::Result<Self::Stream> {
        Self::Stream::from_std(self)
    }
}

/// The stream of an acceptor as tokio has it.
type StreamOf<A> = <<A as crate::drain::acceptor::Steps>::Stream as IntoTokio>::Stream;
type PermitOf<A> = <A as crate::drain::acceptor::Steps>::Permit;
/// The next connection, or `None` from an acceptor that is over.
type Next<S, P> = io::Result<Option<Connection<S, P>>>;

impl<L: Listener, S: Strategy, A: Admission> Builder<L, S, A> {
    /// Registers the listener for the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// Fails as [`hosted`](Self::hosted) does, when called outside a tokio runtime, or when the runtime's epoll refuses
    /// the descriptor. The listener comes back.
    ///
    /// # Panics
    ///
    /// In a runtime that was built without `enable_io`.
    pub fn into_async(self) -> Result<AsyncAcceptor<EpollAcceptor<L, S, A>>, BuildError<L>> {
        if let Err(error) = Handle::try_current() {
            return Err(self.refused(io::Error::other(error)));
        }
        let watched = AsyncAcceptor::watch(self.hosted()?);
        watched.map_err(|(hosted, error)| BuildError::system(error, hosted.into_listener()))
    }
}

impl<A: Acceptor> AsyncAcceptor<A> {
    pub(super) fn watch(hosted: Hosted<A>) -> Result<Self, (Hosted<A>, io::Error)> {
        // Its successor, of October 2026, is unsafe: it wants what is watched to own its descriptor and to
        // keep it for as long as it is watched. `Hosted` does.
        #[allow(deprecated, reason = "the same call, without unsafe code")]
        match AsyncFd::try_with_interest(hosted, Interest::READABLE) {
            Ok(fd) => Ok(Self { fd, unregistered: 0 }),
            Err(failed) => Err(failed.into_parts()),
        }
    }

    pub(super) fn into_hosted(self) -> Hosted<A> {
        self.fd.into_inner()
    }

    pub(super) fn hosted_mut(&mut self) -> &mut Hosted<A> {
        self.fd.get_mut()
    }

    /// The next connection as a stream of tokio's, with its permit; `None` when the acceptor was stopped, or
    /// after it was told to be dead. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ListenerClosed`](crate::drain::ListenerClosed), once, when the listener is gone, or an error when the runtime is shutting down. No
    /// client can cause one, nor can a want of descriptors.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime whose I/O is enabled.
    pub async fn accept(&mut self) -> Next<StreamOf<A>, PermitOf<A>>
    where
        A::Stream: IntoTokio,
    {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), with the stream as the listener gives it: non-blocking, and known to no
    /// runtime.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub async fn accept_std(&mut self) -> Next<A::Stream, A::Permit> {
        poll_fn(|cx| self.poll_accept_std(cx)).await
    }

    /// As [`accept`](Self::accept), for futures written by hand. One waker is kept: that of the last call.
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use epoll_acceptor::LevelTriggered;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let mut acceptor = LevelTriggered::on(listener).into_async()?;
    /// let connection = poll_fn(|cx| acceptor.poll_accept(cx)).await?;
    /// assert!(connection.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime whose I/O is enabled.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Next<StreamOf<A>, PermitOf<A>>>
    where
        A::Stream: IntoTokio,
    {
        for _ in 0..FRUITLESS_MAX {
            let Some(connection) = ready!(self.poll_accept_std(cx))? else { return Poll::Ready(Ok(None)) };
            match connection.try_map(IntoTokio::into_tokio) {
                Ok(connection) => return Poll::Ready(Ok(Some(connection))),
                Err(_) => self.unregistered += 1,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`accept_std`](Self::accept_std), for futures written by hand. One waker is kept: that of the last
    /// call.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept_std(&mut self, cx: &mut Context<'_>) -> Poll<Next<A::Stream, A::Permit>> {
        for _ in 0..FRUITLESS_MAX {
            // Asked before every turn, although it has mostly been told long ago: tokio counts it, and has
            // other tasks run in between.
            let mut told = ready!(self.fd.poll_read_ready_mut(cx))?;
            match told.get_inner_mut().turn()? {
                Progress::Connection(connection) => return Poll::Ready(Ok(Some(connection))),
                Progress::Yield => {}
                // Clears what was told before the turn. What has been told since stays.
                Progress::Idle => told.clear_ready(),
                Progress::ListenerClosed(dead) => return Poll::Ready(Err(dead.into())),
                Progress::Stopped => return Poll::Ready(Ok(None)),
            }
        }
        // Everyone is refused. Not every executor counts, as tokio does.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// How many connections were closed because tokio could not watch them.
    #[must_use]
    pub const fn unregistered(&self) -> u64 {
        self.unregistered
    }

    /// What is hosted: how often it [looked](Hosted::looks) at its epoll, and how often it
    /// [slept](Hosted::sleeps).
    pub fn hosted(&self) -> &Hosted<A> {
        self.fd.get_ref()
    }

    /// A handle to pause, resume, stop and observe the acceptor from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.hosted().control()
    }

    /// What the acceptor is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.hosted().state()
    }

    /// What the acceptor has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.hosted().counters()
    }
}

impl<L: Listener, S: Strategy, A: Admission> AsyncAcceptor<EpollAcceptor<L, S, A>> {
    /// The listener, to ask its address for example.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.hosted().listener()
    }

    /// Takes it out of the runtime and gives the listener back, with everything still queued that was.
    #[must_use = "dropping the listener closes it and resets whoever is queued"]
    pub fn into_listener(self) -> L {
        self.fd.into_inner().into_listener()
    }
}

impl<A: fmt::Debug> fmt::Debug for AsyncAcceptor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncAcceptor").field("hosted", self.fd.get_ref()).finish_non_exhaustive()
    }
}

/// Reads as the stream does.
impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Connection<S, P> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_read(cx, buf)
    }
}

/// Writes as the stream does.
impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Connection<S, P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.get_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        (**self).is_write_vectored()
    }
}
