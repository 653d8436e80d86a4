//! The target argument: a port, an address, a path or an abstract name.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::diag::Diag;
use super::listener::{Address, Listener};

/// Selects listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All listeners on this port, on any address.
    Port(u16),
    /// The listeners bound to this address or, if there are none, the wildcard listeners that serve it.
    Address(SocketAddr),
    Abstract(String),
    Path(String),
}

impl FromStr for Target {
    type Err = String;

    /// Parses a port, `address:port` or `@name`. Other text is a path, unless it resembles one of these.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(':').unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            // sock_diag takes 0 for all ports.
            let port = digits.parse().ok().filter(|port| *port != 0);
            return port
                .map(Self::Port)
                .ok_or_else(|| format!("no port: must be 1 to 65535; write a path as ./{text}"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err("no port: must be 1 to 65535".into()),
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
                "host names are not resolved: write an IP address, such as 127.0.0.1:{port} or [::1]:{port}; \
                 write a path as ./{text}"
            )),
            _ if text.is_empty() => Err("must not be empty".into()),
            _ => Ok(Self::Path(text.into())),
        }
    }
}

impl Target {
    /// Returns the TCP port, or `None` for a Unix socket.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(*port),
            Self::Address(address) => Some(address.port()),
            Self::Abstract(_) | Self::Path(_) => None,
        }
    }

    /// Lists the selected listeners, and the others on the same port.
    pub(crate) fn listeners(&self, diag: &Diag) -> io::Result<(Vec<Listener>, Vec<Listener>)> {
        let found = match self.port() {
            Some(port) => Listener::inet(diag, Some(port))?,
            None => Listener::unix(diag)?,
        };
        let file = self.file();
        let fit = found.iter().filter_map(|listener| self.fits(listener, file)).max();
        Ok(found.into_iter().partition(|listener| fit.is_some() && self.fits(listener, file) == fit))
    }

    /// Returns how well a listener matches; only the best matches are selected.
    fn fits(&self, listener: &Listener, file: Option<(u32, u32)>) -> Option<Fit> {
        let is_it = match (self, &listener.address) {
            (Self::Port(_), Address::Inet(_)) => true,
            (Self::Address(wanted), Address::Inet(address)) if wanted != address => {
                return serves(listener, *address, *wanted).then_some(Fit::Wildcard);
            }
            (Self::Address(_), Address::Inet(_)) => true,
            (Self::Abstract(wanted), Address::Abstract(name)) => wanted == name,
            // Compares files, so that relative paths and links match; compares names if the file is gone.
            (Self::Path(wanted), Address::Path(path)) => match file {
                Some(file) => return by_file(wanted, path, file, listener.file),
                None => wanted == path,
            },
            _ => false,
        };
        is_it.then_some(Fit::Itself)
    }

    /// Returns inode and device of the path in the form in which sock_diag shows them.
    fn file(&self) -> Option<(u32, u32)> {
        let Self::Path(path) = self else { return None };
        let metadata = fs::metadata(path).ok()?;
        let device = metadata.st_dev();
        let device = (nix::sys::stat::major(device) << 20) | nix::sys::stat::minor(device);
        // sock_diag truncates both to 32 bits.
        Some((u32::try_from(metadata.st_ino() & 0xffff_ffff).ok()?, u32::try_from(device).ok()?))
    }
}

/// How well a listener matches the target, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// A wildcard listener that serves the address.
    Wildcard,
    /// The same name, but different numbers: some file systems show stat(2) other numbers than sock_diag.
    Name,
    /// The same name and inode number, but another device.
    NameAndInode,
    Itself,
}

/// Returns whether a wildcard listener serves the wanted address. IPv6 serves IPv4 unless `IPV6_V6ONLY` is
/// set.
fn serves(listener: &Listener, address: SocketAddr, wanted: SocketAddr) -> bool {
    address.ip().is_unspecified()
        && address.port() == wanted.port()
        && (address.is_ipv4() == wanted.is_ipv4() || (address.is_ipv6() && !listener.is_v6_only))
}

/// Matches by file. On btrfs and others stat(2) shows another device than sock_diag, on some overlays another
/// inode as well.
fn by_file(wanted: &str, bound: &str, file: (u32, u32), bound_file: Option<(u32, u32)>) -> Option<Fit> {
    if bound_file == Some(file) {
        return Some(Fit::Itself);
    }
    let same_name = match Path::new(bound).is_absolute() {
        true => fs::canonicalize(wanted).ok() == fs::canonicalize(bound).ok(),
        // Relative to an unknown directory.
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
    fn target_is_parsed_by_form() {
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
    fn ambiguous_target_is_rejected_with_remedy() {
        for (text, remedy) in [
            ("0", "./0"),
            (":0", "no port"),
            ("65536", "./65536"),
            ("127.0.0.1:0", "no port"),
            ("[::]:0", "no port"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("", "not be empty"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn path_matches_by_name_if_device_differs() {
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
