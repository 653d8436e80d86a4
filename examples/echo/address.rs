//! Where to listen: a TCP address or a path.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use socket2::{Domain, SockAddr, Socket, Type};

/// `127.0.0.1:0`, `[::1]:0` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A path that goes when the server does.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// Lowered by the kernel to net.core.somaxconn. While the server is full, this is its waiting room.
const BACKLOG: i32 = 4096;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "an address looks like 127.0.0.1:8080, [::1]:8080 or unix:/run/echo.socket".to_owned()
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(crate) fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The listener, and what removes its path when dropped.
pub(crate) fn listen_unix(path: PathBuf) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile(path);
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it before: then all is well.
        let _ = fs::remove_file(&self.0);
    }
}
