//! The target argument: a port, an address, a path or an abstract name.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::diag::Diag;
use super::listener::{Address, Listener};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All listeners on this port, on any address.
    Port(u16),
    /// The listeners bound to this address or, if there are none, the wildcard listeners that serve it.
    Address(SocketAddr),
    /// As `Address`, on any port.
    Host(IpAddr),
    Abstract(String),
    Path(String),
}

impl FromStr for Target {
    type Err = String;

    /// Parses a port, `address:port`, an IP address, a URL, the name of a service, or `@name`. Other text is
    /// a path if it has a slash or names a file.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Path(path.into()));
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Abstract(name.into()));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return by_url(text, scheme, rest);
        }
        if text.is_empty() {
            return Err("must not be empty".into());
        }
        let has_path = text.contains('/') || fs::symlink_metadata(text).is_ok_and(|file| !file.is_dir());
        if has_path && !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Path(text.into()));
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Host(ip));
        }
        match text.rsplit_once(':') {
            Some((host, port)) => by_host(text, host, Some(port)),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => parse_port(text, text).map(Self::Port),
            None => match (service(text), resolve(text)) {
                (Some(port), _) => Ok(Self::Port(port)),
                (None, Some(ip)) => Ok(Self::Host(ip)),
                (None, None) => Err(format!(
                    "neither a port, an address, a service in /etc/services nor a file; write a path as \
                     ./{text}"
                )),
            },
        }
    }
}

/// Parses `http://host:port/path`. The default port is that of the scheme.
fn by_url(text: &str, scheme: &str, rest: &str) -> Result<Target, String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => by_host(text, host, Some(port)),
        _ => {
            let port = service(scheme).ok_or_else(|| format!("no port is known for {scheme}://"))?;
            by_host(text, authority, Some(&port.to_string()))
        }
    }
}

/// Resolves `host:port`. An empty host and `*` mean all addresses; names come from /etc/hosts only.
fn by_host(text: &str, host: &str, port: Option<&str>) -> Result<Target, String> {
    let port = port.unwrap_or_default();
    let port = match service(port) {
        Some(port) => port,
        None => parse_port(port, text)?,
    };
    if host.is_empty() || host == "*" {
        return Ok(Target::Port(port));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse().ok().or_else(|| resolve(host)) {
        Some(ip) => Ok(Target::Address(SocketAddr::new(ip, port))),
        None => Err(format!(
            "{host} is not in /etc/hosts: write an IP address, such as 127.0.0.1:{port} or [::1]:{port}; \
             write a path as ./{text}"
        )),
    }
}

fn parse_port(port: &str, text: &str) -> Result<u16, String> {
    // To sock_diag, 0 means all ports.
    port.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("no port: must be 1 to 65535; write a path as ./{text}"))
}

/// Returns the TCP port of a service: the most common ones, then those of /etc/services.
fn service(name: &str) -> Option<u16> {
    let name = &name.to_ascii_lowercase();
    let known = [("http", 80), ("https", 443), ("ssh", 22), ("redis", 6379), ("postgresql", 5432)];
    if let Some((_, port)) = known.iter().find(|(known, _)| known == name) {
        return Some(*port);
    }
    let file = fs::read_to_string("/etc/services").ok()?;
    file.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// Looks a host up in /etc/hosts, without a query over the network.
fn resolve(host: &str) -> Option<IpAddr> {
    let file = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let listed = file.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    });
    listed.or_else(|| host.eq_ignore_ascii_case("localhost").then_some(Ipv4Addr::LOCALHOST.into()))
}

impl Target {
    /// Returns the TCP port, or `None` for a Unix socket.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(*port),
            Self::Address(address) => Some(address.port()),
            Self::Host(_) | Self::Abstract(_) | Self::Path(_) => None,
        }
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self, Self::Abstract(_) | Self::Path(_))
    }

    /// Lists the selected listeners, and the others on the same port.
    pub(crate) fn listeners(&self, diag: &Diag) -> io::Result<(Vec<Listener>, Vec<Listener>)> {
        let found = match self.is_unix() {
            false => Listener::inet(diag, self.port())?,
            true => Listener::unix(diag)?,
        };
        let file = self.file();
        let fit = found.iter().filter_map(|listener| self.fits(listener, file)).max();
        Ok(found.into_iter().partition(|listener| fit.is_some() && self.fits(listener, file) == fit))
    }

    /// Returns how well a listener matches; only the best matches are selected.
    fn fits(&self, listener: &Listener, file: Option<(u32, u32)>) -> Option<Fit> {
        let is_it = match (self, &listener.address) {
            (Self::Port(_), Address::Inet(_)) => true,
            // Java binds IPv4 addresses as IPv6 ones.
            (Self::Address(wanted), Address::Inet(address)) if canonical(*wanted) != canonical(*address) => {
                return serves(listener, *address, *wanted).then_some(Fit::Wildcard);
            }
            (Self::Address(_), Address::Inet(_)) => true,
            (Self::Host(ip), Address::Inet(address)) => {
                let wanted = SocketAddr::new(*ip, address.port());
                canonical(*address) == canonical(wanted) || serves(listener, *address, wanted)
            }
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
    /// The same name, but different numbers: on some file systems stat(2) and sock_diag disagree.
    Name,
    /// The same name and inode number, but another device.
    NameAndInode,
    Itself,
}

/// Converts an IPv4-mapped IPv6 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns whether a wildcard listener serves the wanted address. IPv6 serves IPv4 unless `IPV6_V6ONLY` is
/// set.
fn serves(listener: &Listener, address: SocketAddr, wanted: SocketAddr) -> bool {
    address.ip().is_unspecified()
        && address.port() == wanted.port()
        && (address.is_ipv4() == wanted.is_ipv4() || (address.is_ipv6() && !listener.is_v6_only))
}

/// Matches by file. On btrfs and others stat(2) and sock_diag show different devices, on some overlays different
/// inodes as well.
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
            Self::Host(ip) => ip.fmt(f),
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
        let localhost = Target::Address(SocketAddr::new(resolve("localhost").expect("an address"), 80));
        let cases = [
            ("8080", Target::Port(8080)),
            (":8080", Target::Port(8080)),
            ("*:8080", Target::Port(8080)),
            ("http", Target::Port(80)),
            ("HTTP", Target::Port(80)),
            (":https", Target::Port(443)),
            ("127.0.0.1", Target::Host(Ipv4Addr::LOCALHOST.into())),
            ("::1", Target::Host("::1".parse().expect("an address"))),
            ("localhost:80", localhost.clone()),
            ("LocalHost:80", localhost.clone()),
            ("http://localhost/path?x=1", localhost),
            ("https://user@127.0.0.1:8443/x", Target::Address("127.0.0.1:8443".parse().expect("an address"))),
            ("http://[::1]:81", Target::Address("[::1]:81".parse().expect("an address"))),
            ("http://[::1]/", Target::Address("[::1]:80".parse().expect("an address"))),
            ("127.0.0.1:80", Target::Address("127.0.0.1:80".parse().expect("an address"))),
            ("[::1]:80", Target::Address("[::1]:80".parse().expect("an address"))),
            ("@name", Target::Abstract("name".into())),
            ("/run/x.sock", Target::Path("/run/x.sock".into())),
            ("unix:/run/x.sock", Target::Path("/run/x.sock".into())),
            ("./x.sock", Target::Path("./x.sock".into())),
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
            ("no-such-host.invalid:8080", "127.0.0.1:8080"),
            ("x.sock", "./x.sock"),
            ("gopherx://localhost", "no port is known"),
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
