//! What the user asks about: a port, an address, a path, an abstract name.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::diag::Diag;
use super::listener::{Address, Listener};

/// Which listeners are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All listeners on this port, whatever their addresses.
    Port(u16),
    /// The listeners bound to this address; if there are none, those on all addresses that serve it.
    Address(SocketAddr),
    Abstract(String),
    Path(String),
}

impl FromStr for Target {
    type Err = String;

    /// What is no number, no `address:port` and no `@name` is a path, unless it looks like one of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(':').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            // The kernel takes 0 for all ports.
            let port = digits.parse().ok().filter(|port| *port != 0);
            return port.map(Self::Port).ok_or_else(|| format!("no port; a path is ./{text}"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err("no port: 0 is none".into()),
                _ => Ok(Self::Address(address)),
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Path(path.into()));
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Abstract(name.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.contains('/') && port.parse::<u16>().is_ok() => Err(format!(
                "no address: it begins with a number, such as 127.0.0.1:{port} or [::1]:{port}; a path is ./{text}"
            )),
            _ if text.is_empty() => Err("nothing is named".into()),
            _ => Ok(Self::Path(text.into())),
        }
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
        let fit = found.iter().filter_map(|listener| self.fits(listener, file)).max();
        Ok(found.into_iter().partition(|listener| fit.is_some() && self.fits(listener, file) == fit))
    }

    /// How well this listener is what was meant: only the best are.
    fn fits(&self, listener: &Listener, file: Option<(u32, u32)>) -> Option<Fit> {
        let is_it = match (self, &listener.address) {
            (Self::Port(_), Address::Inet(_)) => true,
            (Self::Address(wanted), Address::Inet(address)) if wanted != address => {
                return serves(listener, *address, *wanted).then_some(Fit::Wildcard);
            }
            (Self::Address(_), Address::Inet(_)) => true,
            (Self::Abstract(wanted), Address::Abstract(name)) => wanted == name,
            // By the file, which a relative path or a link names as well. By the name where the file is gone.
            (Self::Path(wanted), Address::Path(path)) => match file {
                Some(file) => return by_file(wanted, path, file, listener.file),
                None => wanted == path,
            },
            _ => false,
        };
        is_it.then_some(Fit::Itself)
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

/// How a listener fits what was asked for; the best comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It listens on all addresses, this one among them.
    Wildcard,
    /// The same name, and on a file system that shows others other numbers than it has itself.
    Name,
    /// The same name and inode number.
    NameAndInode,
    Itself,
}

/// A wildcard of IPv6 serves IPv4 too, unless it was told not to.
fn serves(listener: &Listener, address: SocketAddr, wanted: SocketAddr) -> bool {
    address.ip().is_unspecified()
        && address.port() == wanted.port()
        && (address.is_ipv4() == wanted.is_ipv4() || (address.is_ipv6() && !listener.is_v6_only))
}

/// On btrfs and others `stat` tells another device than the kernel's list does, on some overlays another inode
/// as well.
fn by_file(wanted: &str, bound: &str, file: (u32, u32), bound_file: Option<(u32, u32)>) -> Option<Fit> {
    if bound_file == Some(file) {
        return Some(Fit::Itself);
    }
    let same_name = match Path::new(bound).is_absolute() {
        true => fs::canonicalize(wanted).ok() == fs::canonicalize(bound).ok(),
        // Relative to a folder that is not known.
        false => fs::canonicalize(wanted).is_ok_and(|path| path.file_name() == Path::new(bound).file_name()),
    };
    match bound_file.is_some_and(|(inode, _)| inode == file.0) {
        true if same_name => Some(Fit::NameAndInode),
        false if same_name && Path::new(bound).is_absolute() => Some(Fit::Name),
        _ => None,
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
            ("./99999", Target::Path("./99999".into())),
            ("./localhost:80", Target::Path("./localhost:80".into())),
            ("unix:8080", Target::Path("8080".into())),
        ];
        for (text, target) in cases {
            assert_eq!(text.parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_port_or_an_address_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("0", "./0"),
            (":0", "no port"),
            ("65536", "./65536"),
            ("127.0.0.1:0", "no port"),
            ("[::]:0", "no port"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("", "nothing"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_name_where_its_device_is_not() {
        let path = std::env::current_exe().expect("a file that is there");
        let path = path.to_str().expect("a plain path");
        let name = path.rsplit('/').next().expect("a name");
        let other = "/nowhere/at/all";
        for (bound, bound_file, fit) in [
            (other, Some((5, 7)), Some(Fit::Itself)),
            (path, Some((5, 8)), Some(Fit::NameAndInode)),
            (name, Some((5, 8)), Some(Fit::NameAndInode)),
            (path, Some((6, 8)), Some(Fit::Name)),
            (name, Some((6, 8)), None),
            (other, Some((5, 8)), None),
            (other, None, None),
        ] {
            assert_eq!(by_file(path, bound, (5, 7), bound_file), fit, "{bound} {bound_file:?}");
        }
    }
}
