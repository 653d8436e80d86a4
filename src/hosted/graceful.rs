//! The end of a service: its acceptor ends, and the clients that it has accepted may still send their first request.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::admission::connection::Connection;
use crate::admission::permit::Permit;
use crate::drain::control::Control;
use crate::drain::shutdown::Pending;

/// A connection that holds up the end of its service until it has been read from: what the
/// [`Stream`](crate::AsyncAcceptor#stream) of an acceptor yields, and what axum gets.
///
/// An HTTP server that shuts down closes each connection from which it has read nothing, although a first request may
/// be on its way. So [`AsyncAcceptor::end_on`](crate::AsyncAcceptor::end_on) lets it shut down only when each of these
/// connections has been read from once, by its `AsyncRead`, or dropped. This type dereferences to [`Connection`].
///
/// With TLS above it, the first bytes are those of the handshake, and the request comes later. Where the server speaks
/// first, or reads by `try_read`, [take it apart](Self::into_parts) and drop the guard when the client has sent
/// something.
#[must_use = "a connection that is dropped is closed"]
pub struct GracefulConnection<S, P = Permit> {
    // Dropped in this order.
    connection: Connection<S, P>,
    silent: Option<SilentGuard>,
}

/// Delays the end of a service until the client has sent something; see [`GracefulConnection::into_parts`].
#[derive(Debug)]
#[must_use = "once it is dropped, the service may end before the client has sent anything"]
pub struct SilentGuard(Arc<Service>);

/// What an acceptor shares with its connections and with the futures of `end_on`.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// The connections from which nothing was read yet.
    silent: AtomicUsize,
    /// The acceptor accepts no more.
    ended: AtomicBool,
    changed: Notify,
    /// The futures of `end_on` that are not over.
    ends: AtomicUsize,
    /// The task that waits for the end of the stream, which comes when all futures of `end_on` are over.
    stream: Mutex<Option<Waker>>,
}

/// A future of `end_on`, counted until it is over or dropped.
#[derive(Debug)]
struct Ending(Arc<Service>);

/// Marks the service as ended when the acceptor is dropped.
#[derive(Debug, Default)]
pub(super) struct ServiceOwner(Arc<Service>);

/// The time by which an acceptor may exceed the deadline, which it counts from its next pass.
const SLACK: Duration = Duration::from_secs(1);

impl Service {
    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            // Created before the check, so that no later change is missed.
            let changed = self.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    async fn end(
        &self,
        signal: impl Future<Output = ()>,
        control: Control,
        pending: Pending,
        within: Duration,
    ) {
        let mut signal = pin!(signal);
        let mut ended = pin!(self.until(Self::has_ended));
        let signalled = poll_fn(|cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => signal.as_mut().poll(cx).map(|()| true),
        });
        // An acceptor that was stopped keeps its queue, for the next owner of the listener.
        if signalled.await && !control.is_told_to_stop() {
            control.shutdown_gracefully(pending, within);
        }
        let begin = Instant::now();
        // Waits for the acceptor's own end, so that it refuses the rest before it is dropped.
        let _ = timeout(within.saturating_add(SLACK), self.until(Self::has_ended)).await;
        let all_heard = self.until(|service| service.silent.load(Ordering::Acquire) == 0);
        let _ = timeout(within.saturating_sub(begin.elapsed()), all_heard).await;
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn stream(&self) -> MutexGuard<'_, Option<Waker>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceOwner {
    /// See [`AsyncAcceptor::end_on`](crate::AsyncAcceptor::end_on).
    pub(super) fn end_on<S: Future<Output = ()>>(
        &self,
        signal: S,
        control: Control,
        pending: Pending,
        within: Duration,
    ) -> impl Future<Output = ()> + use<S> {
        self.0.ends.fetch_add(1, Ordering::AcqRel);
        let ending = Ending(Arc::clone(&self.0));
        async move { ending.0.end(signal, control, pending, within).await }
    }

    /// Waits until every future of `end_on` is over.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        // Stored before the check, so that no later end is missed. The previous waker is dropped outside the lock.
        let before = self.0.stream().replace(cx.waker().clone());
        drop(before);
        if self.0.ends.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        let unused = self.0.stream().take();
        drop(unused);
        Poll::Ready(())
    }

    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    pub(super) fn track<S, P>(&self, connection: Connection<S, P>) -> GracefulConnection<S, P> {
        self.0.silent.fetch_add(1, Ordering::AcqRel);
        GracefulConnection { connection, silent: Some(SilentGuard(Arc::clone(&self.0))) }
    }
}

impl Drop for ServiceOwner {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ends.fetch_sub(1, Ordering::AcqRel);
        let waker = self.0.stream().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for SilentGuard {
    fn drop(&mut self) {
        if self.0.silent.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<S, P> GracefulConnection<S, P> {
    /// Takes it apart, for a server with types of its own around the stream. Keep the guard until the first bytes are
    /// read: the end of the service waits for its drop. `None` if they were read already.
    ///
    /// ```
    /// # async fn serve(connection: epoll_acceptor::acceptor::GracefulConnection<tokio::net::TcpStream>) -> std::io::Result<()> {
    /// let (connection, silent) = connection.into_parts();
    /// connection.readable().await?;
    /// drop(silent);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a connection that is dropped is closed"]
    pub fn into_parts(self) -> (Connection<S, P>, Option<SilentGuard>) {
        (self.connection, self.silent)
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Connection<S, P>>
    where
        S: Unpin,
        P: Unpin,
    {
        Pin::new(&mut self.get_mut().connection)
    }
}

impl<S, P> Deref for GracefulConnection<S, P> {
    type Target = Connection<S, P>;

    fn deref(&self) -> &Connection<S, P> {
        &self.connection
    }
}

impl<S, P> DerefMut for GracefulConnection<S, P> {
    fn deref_mut(&mut self) -> &mut Connection<S, P> {
        &mut self.connection
    }
}

impl<S: AsFd, P> AsFd for GracefulConnection<S, P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl<S: AsRawFd, P> AsRawFd for GracefulConnection<S, P> {
    fn as_raw_fd(&self) -> RawFd {
        self.connection.as_raw_fd()
    }
}

/// Releases the permit and keeps the descriptor open.
impl<S: Into<Self>, P> From<GracefulConnection<S, P>> for OwnedFd {
    fn from(connection: GracefulConnection<S, P>) -> Self {
        connection.connection.into()
    }
}

impl<S: fmt::Debug, P> fmt::Debug for GracefulConnection<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for GracefulConnection<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.as_mut().stream().poll_read(cx, buf);
        if read.is_ready() {
            self.silent = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for GracefulConnection<S, P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}
