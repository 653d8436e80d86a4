//! An acceptor as a future, on tokio.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::runtime::Handle;

use super::graceful::{GracefulConnection, ServiceOwner};
use super::host::Hosted;
use super::into_tokio::IntoTokio;
use crate::admission::connection::Connection;
use crate::admission::filter::Filter;
use crate::admission::gate::Gate;
use crate::admission::permit::Permit;
use crate::drain::control::Control;
use crate::drain::counters::Counters;
use crate::drain::poller::Progress;
use crate::drain::shutdown::{Pending, ShutdownReport};
use crate::drain::state::State;
use crate::linux::builder::{BuildError, Builder};
use crate::linux::listener::Listener;

/// An acceptor in a tokio runtime: [`accept`](Self::accept) is a future.
///
/// Made by [`Builder::build_tokio`]. A task owns it and accepts connections one by one; while no `accept` is pending,
/// connections wait in the kernel's queue. It runs on current-thread and multi-thread runtimes, and belongs to the one
/// in which it was made.
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
///     let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio()?;
///     let control = acceptor.control();
///
///     let server = tokio::spawn(async move {
///         while let Some(mut connection) = acceptor.accept().await? {
///             println!("hello {:?}", connection.peer());
///             // The permit is released when the task drops the connection.
///             tokio::spawn(async move { connection.write_all(b"hello").await });
///         }
///         std::io::Result::Ok(acceptor.into_listener())
///     });
///
///     let mut reply = String::new();
///     tokio::net::TcpStream::connect(address).await?.read_to_string(&mut reply).await?;
///     assert_eq!(reply, "hello");
///
///     control.stop();
///     let _listener = server.await??; // its queue intact, to be handed on or closed
///     Ok(())
/// }
/// ```
///
/// ## Stream
///
/// It is a `futures_core::Stream` of connections, which ends where `accept` returns `None`: tonic's
/// `serve_with_incoming_shutdown` takes it (feature `tonic014`). With the feature `axum08` it is a listener for
/// `axum::serve`.
///
/// ## Graceful shutdown
///
/// [`end_on`](Self::end_on) ties the end of a service to a signal. Without it: after [`Control::shutdown_gracefully`]
/// go on accepting until `None`; then [`shutdown_report`](Self::shutdown_report) counts the pending connections that
/// were served, refused and lost.
///
/// ## Cancel safety
///
/// [`accept`](Self::accept) may be dropped at any point, in `select!` for example: a connection leaves the kernel's
/// queue in the very poll that returns it.
///
/// ## Keep one `accept` pending
///
/// While no `accept` is polled, a gate that sheds refuses no connection, and a permit that was handed to this acceptor
/// waits with it. If the task does not accept for long, drop the acceptor, or [stop](Control::stop) it and poll
/// `accept` once more, which returns `None` and hands the permit on.
///
/// ## Connections that tokio cannot watch
///
/// A connection is registered with the runtime's epoll. If that fails (memory, or `max_user_watches`), the connection
/// is closed, [counted](Self::unregistered), and the next one accepted: no client causes an error of the server.
/// [`accept_std`](Self::accept_std) leaves this step to the caller.
#[must_use = "dropping it closes the listener"]
pub struct AsyncAcceptor<L: Listener, F: Filter = ()> {
    fd: AsyncFd<Hosted<L, F>>,
    unregistered: u64,
    service: ServiceOwner,
    /// The end of the runtime was reported.
    out_of_runtime: bool,
}

/// Nothing in it is pinned.
impl<L: Listener, F: Filter> Unpin for AsyncAcceptor<L, F> {}

/// The number of passes without a connection, or of connections that tokio cannot watch, after which a poll yields.
const FUTILE_MAX: u32 = 16;

type TokioConnection<L, F> =
    Connection<<<L as Listener>::Stream as IntoTokio>::Stream, Permit<<F as Filter>::Permit>>;
type TokioGraceful<L, F> =
    GracefulConnection<<<L as Listener>::Stream as IntoTokio>::Stream, Permit<<F as Filter>::Permit>>;
type StdConnection<L, F> = Connection<<L as Listener>::Stream, Permit<<F as Filter>::Permit>>;

impl<L: Listener, F: Filter, G: Into<Option<Gate>>> Builder<L, F, G> {
    /// Registers the listener in the tokio runtime in which it is called. Connections come with their
    /// [peer's address](Connection::peer).
    ///
    /// # Errors
    ///
    /// As [`build_hosted`](Self::build_hosted); also when called outside a tokio runtime, or when the runtime's epoll
    /// refuses the descriptor. The error returns the listener.
    ///
    /// # Panics
    ///
    /// In a runtime that was built without `enable_io`.
    pub fn build_tokio(self) -> Result<AsyncAcceptor<L, F>, BuildError<L>> {
        if let Err(error) = Handle::try_current() {
            return Err(self.refused(io::Error::other(error)));
        }
        // This call's successor is unsafe: the watched object must own and keep its descriptor. `Hosted` does.
        #[allow(deprecated, reason = "the same call, without unsafe code")]
        match AsyncFd::try_with_interest(self.with_peer().build_hosted()?, Interest::READABLE) {
            Ok(fd) => Ok(AsyncAcceptor {
                fd,
                unregistered: 0,
                service: ServiceOwner::default(),
                out_of_runtime: false,
            }),
            Err(failed) => {
                let (hosted, error) = failed.into_parts();
                Err(BuildError::system(error, hosted.into_listener()))
            }
        }
    }
}

impl<L: Listener, F: Filter> AsyncAcceptor<L, F> {
    /// Returns the next connection as a tokio stream; `None` when the acceptor was stopped or shut down, or after
    /// it has reported that the listener is closed. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ListenerClosed`](crate::ListenerClosed), once, or an error when the runtime shuts down. No client can cause
    /// one, nor can exhausted descriptors.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn accept(&mut self) -> io::Result<Option<TokioConnection<L, F>>>
    where
        L::Stream: IntoTokio,
    {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept), with the stream as the listener gives it: non-blocking, and not registered.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub async fn accept_std(&mut self) -> io::Result<Option<StdConnection<L, F>>> {
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
    /// let mut acceptor = LevelTriggered::on(listener).build_tokio()?;
    ///
    /// let connection = poll_fn(|cx| acceptor.poll_accept(cx)).await?;
    /// assert!(connection.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    #[allow(clippy::type_complexity, reason = "as `accept` returns it")]
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<TokioConnection<L, F>>>>
    where
        L::Stream: IntoTokio,
    {
        for _ in 0..FUTILE_MAX {
            let Some(connection) = ready!(self.poll_accept_std(cx))? else { return Poll::Ready(Ok(None)) };
            match connection.try_map(IntoTokio::into_tokio) {
                Ok(connection) => return Poll::Ready(Ok(Some(connection))),
                Err(_) => self.unregistered += 1,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`accept_std`](Self::accept_std), for futures written by hand. One waker is kept: that of the last call.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn poll_accept_std(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<StdConnection<L, F>>>> {
        if self.out_of_runtime {
            return Poll::Ready(Ok(None));
        }
        for _ in 0..FUTILE_MAX {
            // Asks before every call, although it mostly knows the answer: tokio counts this against the task's budget.
            let mut readiness = match ready!(self.fd.poll_read_ready_mut(cx)) {
                Ok(readiness) => readiness,
                Err(error) => {
                    self.service.end();
                    self.out_of_runtime = true;
                    return Poll::Ready(Err(error));
                }
            };
            match readiness.get_inner_mut().poll_accept()? {
                Progress::Connection(connection) => return Poll::Ready(Ok(Some(connection))),
                Progress::Yield => {}
                // Clears the readiness seen before the call; what came since stays.
                Progress::Idle => readiness.clear_ready(),
                Progress::Stopped => {
                    self.service.end();
                    return Poll::Ready(Ok(None));
                }
                Progress::ListenerClosed(closed) => {
                    self.service.end();
                    return Poll::Ready(Err(closed.into()));
                }
            }
        }
        // These passes refused every connection. Yields, because not every executor limits a task as tokio does.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`accept`](Self::accept), for a loop that shuts down by [`end_on`](Self::end_on). Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub async fn accept_graceful(&mut self) -> io::Result<Option<TokioGraceful<L, F>>>
    where
        L::Stream: IntoTokio,
    {
        poll_fn(|cx| self.poll_graceful(cx)).await
    }

    #[allow(clippy::type_complexity, reason = "as `poll_accept` returns it")]
    pub(super) fn poll_graceful(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<TokioGraceful<L, F>>>>
    where
        L::Stream: IntoTokio,
    {
        let accepted = ready!(self.poll_accept(cx))?;
        Poll::Ready(Ok(accepted.map(|connection| self.service.track(connection))))
    }

    /// Returns a future that ends the service at `signal`, for the graceful shutdown of axum, tonic or a loop of your
    /// own. The future completes when the server may close the connections that are idle:
    ///
    /// 1. At the signal it calls [`shutdown_gracefully`](Control::shutdown_gracefully): new connects are kept out, and
    ///    those that are pending are served or refused. With [`Pending::Keep`], or if the acceptor was
    ///    [stopped](Control::stop) before, it only stops, and the queue stays.
    /// 2. It waits until the acceptor has ended, and until each connection that the server got from this acceptor (by
    ///    axum's listener, the `Stream`, or [`accept_graceful`](Self::accept_graceful)) has sent something: a first
    ///    request that is on its way is answered, not reset.
    /// 3. It waits for silent clients for at most `within`. Browsers connect before they have a request, so expect that
    ///    the end takes all of this time.
    ///
    /// The server must go on accepting meanwhile, as axum and tonic do. [`Control::shutdown_report`] tells what became
    /// of the pending connections.
    ///
    /// ## What it does not cover
    ///
    /// * `within` does not limit requests in service: put a timeout around the server. tonic also waits for a client
    ///   that never sends its HTTP/2 preface.
    /// * A further request on a connection that is kept alive may race with the close, as it always may. An HTTP/2
    ///   client that has sent its preface, but no request yet, reads GOAWAY and retries elsewhere.
    /// * With TLS, the handshake counts as the first bytes.
    /// * At a gate that waits and is full of idle connections, pending clients are refused after `within`: the server
    ///   closes idle connections, and so frees their permits, only when it is told to shut down.
    ///
    /// In a loop of your own ([axum and tonic][loops] take the future):
    ///
    /// ```
    /// use std::time::Duration;
    /// use epoll_acceptor::{LevelTriggered, Pending, Refusal};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let mut acceptor = LevelTriggered::on(listener).build_tokio()?;
    /// # let signal = async {};
    /// let ended = acceptor.end_on(signal, Pending::Serve(Refusal::Close), Duration::from_secs(5));
    /// let ended = tokio::spawn(ended);
    ///
    /// while let Some(mut connection) = acceptor.accept_graceful().await? {
    ///     tokio::spawn(async move { connection.read(&mut [0; 1024]).await });
    /// }
    /// ended.await?; // now close the connections that are idle
    /// println!("{:?}", acceptor.shutdown_report());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [loops]: crate::guide::event_loops
    ///
    /// # Panics
    ///
    /// The future panics outside a tokio runtime with `enable_time`, at the signal.
    pub fn end_on<S>(
        &self,
        signal: S,
        pending: Pending,
        within: Duration,
    ) -> impl Future<Output = ()> + use<S, L, F>
    where
        S: Future<Output = ()>,
    {
        self.service.end_on(signal, self.control(), pending, within)
    }

    /// Returns how many connections were closed because tokio could not watch them.
    #[must_use]
    pub const fn unregistered(&self) -> u64 {
        self.unregistered
    }

    /// Returns the hosted acceptor, which counts its [polls](Hosted::polls) and [idle polls](Hosted::idle_polls).
    pub fn hosted(&self) -> &Hosted<L, F> {
        self.fd.get_ref()
    }

    /// Returns a handle to pause, stop, shut down and observe the acceptor from any thread.
    #[must_use]
    pub fn control(&self) -> Control {
        self.hosted().control()
    }

    /// Returns the state of the acceptor.
    #[must_use]
    pub fn state(&self) -> State {
        self.hosted().state()
    }

    /// Returns the counters of the acceptor.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.hosted().counters()
    }

    /// Returns the report of a graceful shutdown once it has ended.
    #[must_use]
    pub fn shutdown_report(&self) -> Option<ShutdownReport> {
        self.hosted().shutdown_report()
    }

    /// Returns the listener, to read its address for example.
    #[must_use]
    pub fn listener(&self) -> &L {
        self.hosted().listener()
    }

    /// Takes it out of the runtime and returns the listener, its queue intact.
    #[must_use = "dropping the listener closes it and resets the connections that are pending"]
    pub fn into_listener(self) -> L {
        self.fd.into_inner().into_listener()
    }
}

/// Yields the connections. Ends when [`accept`](AsyncAcceptor::accept) returns `None` and the futures of
/// [`end_on`](AsyncAcceptor::end_on) are over or dropped: at the end of the stream, tonic closes idle connections.
impl<L: Listener<Stream: IntoTokio>, F: Filter> Stream for AsyncAcceptor<L, F> {
    type Item = io::Result<TokioGraceful<L, F>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let acceptor = self.get_mut();
        match ready!(acceptor.poll_graceful(cx)).transpose() {
            None => acceptor.service.poll_over(cx).map(|()| None),
            connection => Poll::Ready(connection),
        }
    }
}

impl<L: Listener + fmt::Debug, F: Filter> fmt::Debug for AsyncAcceptor<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncAcceptor").field("listener", self.listener()).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Connection<S, P> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.get_mut()).poll_read(cx, buf)
    }
}

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
