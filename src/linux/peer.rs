//! Who connected.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

/// The address of a peer, as the kernel gave it with the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerAddr {
    /// IPv4: address and port.
    V4(SocketAddrV4),
    /// IPv6: address, port, flow label and scope. May hold an IPv4 peer: see [`canonical`](Self::canonical).
    V6(SocketAddrV6),
    /// A Unix socket: a path, an abstract name, or, as for most clients, nothing at all.
    Unix(UnixAddr),
    /// Any other family, or an address that is shorter or longer than its family has it.
    Other {
        /// `AF_*`; `AF_UNSPEC` (0) if there are not even two bytes.
        family: u16,
        /// The whole address, family included.
        bytes: Vec<u8>,
    },
}

impl PeerAddr {
    /// Decodes a `struct sockaddr` of whatever family and length.
    ///
    /// Every slice has a decoding: what is not understood is kept as [`Other`](Self::Other).
    ///
    /// ```
    /// use epoll_acceptor::PeerAddr;
    ///
    /// let mut bytes = 2_u16.to_ne_bytes().to_vec(); // AF_INET
    /// bytes.extend([0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    /// let PeerAddr::V4(address) = PeerAddr::from_bytes(&bytes) else { panic!() };
    /// assert_eq!(address, "127.0.0.1:8080".parse().unwrap());
    /// ```
    #[doc(alias = "sockaddr")]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let family = array(bytes, 0).map_or(0, u16::from_ne_bytes);
        let known = match i32::from(family) {
            libc::AF_INET => v4(bytes).map(Self::V4),
            libc::AF_INET6 => v6(bytes).map(Self::V6),
            libc::AF_UNIX => bytes.get(2..).and_then(unix).map(Self::Unix),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other { family, bytes: bytes.to_vec() })
    }

    /// An IPv4 peer of a dual-stack listener (`::ffff:a.b.c.d`) as IPv4; everything else unchanged.
    ///
    /// Key on this, never on the bare address: else one peer has two names, depending on the listener.
    ///
    /// ```
    /// use std::net::{Ipv4Addr, SocketAddrV6};
    /// use epoll_acceptor::PeerAddr;
    ///
    /// let v4 = Ipv4Addr::new(192, 0, 2, 1);
    /// let peer = PeerAddr::V6(SocketAddrV6::new(v4.to_ipv6_mapped(), 80, 0, 0));
    /// assert_eq!(peer.canonical().ip(), Some(v4.into()));
    /// ```
    #[must_use]
    pub fn canonical(self) -> Self {
        match &self {
            Self::V6(address) => match address.ip().to_ipv4_mapped() {
                Some(ip) => Self::V4(SocketAddrV4::new(ip, address.port())),
                None => self,
            },
            _ => self,
        }
    }

    /// Address and port, where there are any.
    #[must_use]
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(address) => Some(SocketAddr::V4(*address)),
            Self::V6(address) => Some(SocketAddr::V6(*address)),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }

    /// The internet address, where there is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some(IpAddr::V4(*address.ip())),
            Self::V6(address) => Some(IpAddr::V6(*address.ip())),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }
}

/// `struct sockaddr_in` (ip(7)): family, port, address, and eight bytes of nothing.
fn v4(bytes: &[u8]) -> Option<SocketAddrV4> {
    let port = u16::from_be_bytes(array(bytes, 2)?);
    let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
    (bytes.len() == size_of::<libc::sockaddr_in>()).then(|| SocketAddrV4::new(ip, port))
}

/// `struct sockaddr_in6` (ipv6(7)): family, port, flow label, address, scope.
fn v6(bytes: &[u8]) -> Option<SocketAddrV6> {
    let port = u16::from_be_bytes(array(bytes, 2)?);
    // Of these two the standard library keeps the raw field.
    let flowinfo = u32::from_ne_bytes(array(bytes, 4)?);
    let scope_id = u32::from_ne_bytes(array(bytes, 24)?);
    let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
    (bytes.len() == size_of::<libc::sockaddr_in6>()).then(|| SocketAddrV6::new(ip, port, flowinfo, scope_id))
}

/// `sun_path` of a `struct sockaddr_un` (unix(7)): nothing, a NUL and an abstract name, or a path.
fn unix(path: &[u8]) -> Option<UnixAddr> {
    match path {
        // An empty path is how the standard library spells "unnamed".
        [] => UnixAddr::from_pathname("").ok(),
        [0, name @ ..] => UnixAddr::from_abstract_name(name).ok(),
        _ => {
            // The kernel counts the NUL that ends a path.
            let path = path.split(|byte| *byte == 0).next()?;
            UnixAddr::from_pathname(OsStr::from_bytes(path)).ok()
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
