//! What the user asks about: a port, an address, a path, an abstract name.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt;
use std::str::FromStr;

use super::diag::Diag;
use super::listener::{Address, Listener};

/// Which listeners are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All listeners on this port, whatever their addresses.
    Port(u16),
    /// The listeners bound to exactly this address.
    Address(SocketAddr),
    Abstract(String),
    Path(String),
}

impl FromStr for Target {
    type Err = Infallible;

    /// What is no number, no `address:port` and no `@name` is a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            return Ok(Self::Port(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let text = text.strip_prefix("unix:").unwrap_or(text);
        Ok(match text.strip_prefix('@') {
            Some(name) => Self::Abstract(name.into()),
            None => Self::Path(text.into()),
        })
    }
}

impl Target {
    /// The TCP port that is meant.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(*port),
            Self::Address(address) => Some(address.port()),
            Self::Abstract(_) | Self::Path(_) => None,
        }
    }

    /// The listeners that are meant, as they are now, and those on the same port that are not.
    pub(crate) fn listeners(&self, diag: &Diag) -> io::Result<(Vec<Listener>, Vec<Listener>)> {
        let found = match self.port() {
            Some(port) => Listener::inet(diag, Some(port))?,
            None => Listener::unix(diag)?,
        };
        let file = self.file();
        Ok(found.into_iter().partition(|listener| self.means(listener, file)))
    }

    fn means(&self, listener: &Listener, file: Option<(u32, u32)>) -> bool {
        match (self, &listener.address) {
            (Self::Port(_), Address::Inet(_)) => true,
            (Self::Address(wanted), Address::Inet(address)) => wanted == address,
            (Self::Abstract(wanted), Address::Abstract(name)) => wanted == name,
            // By the file, which a relative path or a link names as well. By the name where the file is gone.
            (Self::Path(wanted), Address::Path(path)) => match file {
                Some(_) => listener.file == file,
                None => wanted == path,
            },
            _ => false,
        }
    }

    /// Inode and device of the path, as the kernel shows those of a bound socket.
    fn file(&self) -> Option<(u32, u32)> {
        let Self::Path(path) = self else { return None };
        let metadata = fs::metadata(path).ok()?;
        let device = metadata.st_dev();
        let device = (nix::sys::stat::major(device) << 20) | nix::sys::stat::minor(device);
        // The kernel cuts both to 32 bits.
        Some((u32::try_from(metadata.st_ino() & 0xffff_ffff).ok()?, u32::try_from(device).ok()?))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Address(address) => address.fmt(f),
            Self::Abstract(name) => write!(f, "@{}", name.escape_debug()),
            Self::Path(path) => path.escape_debug().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_told_by_its_look() {
        let cases = [
            ("8080", Target::Port(8080)),
            (":8080", Target::Port(8080)),
            ("127.0.0.1:80", Target::Address("127.0.0.1:80".parse().expect("an address"))),
            ("[::1]:80", Target::Address("[::1]:80".parse().expect("an address"))),
            ("@name", Target::Abstract("name".into())),
            ("/run/x.sock", Target::Path("/run/x.sock".into())),
            ("unix:/run/x.sock", Target::Path("/run/x.sock".into())),
            ("x.sock", Target::Path("x.sock".into())),
            ("99999", Target::Path("99999".into())),
        ];
        for (text, target) in cases {
            assert_eq!(text.parse(), Ok(target), "{text}");
        }
    }
}
