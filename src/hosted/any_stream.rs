//! A tokio stream, TCP or Unix.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::into_tokio::IntoTokio;
use crate::linux::any::AnyStream;

/// A tokio stream, TCP or Unix: what a connection of an [`AnyListener`](crate::socket::AnyListener) becomes.
#[derive(Debug)]
pub enum AsyncAnyStream {
    /// TCP or MPTCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl IntoTokio for AnyStream {
    type Stream = AsyncAnyStream;

    fn into_tokio(self) -> io::Result<AsyncAnyStream> {
        match self {
            Self::Tcp(stream) => stream.into_tokio().map(AsyncAnyStream::Tcp),
            Self::Unix(stream) => stream.into_tokio().map(AsyncAnyStream::Unix),
        }
    }
}

impl AsFd for AsyncAnyStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

macro_rules! either {
    ($self:ident.$method:ident($($argument:ident),*)) => {
        match $self.get_mut() {
            AsyncAnyStream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            AsyncAnyStream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for AsyncAnyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for AsyncAnyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
