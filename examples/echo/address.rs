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

/// The path of a Unix socket; removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// The kernel lowers it to net.core.somaxconn. While the server is full, connections wait in this queue.
const BACKLOG: i32 = 4096;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "an address must be like 127.0.0.1:8080, [::1]:8080 or unix:/run/echo.socket".to_owned()
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

/// Returns the listener, and a guard that removes its path.
pub(crate) fn listen_unix(path: PathBuf) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile(path);
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // An error means that it was removed already.
        let _ = fs::remove_file(&self.0);
    }
}
