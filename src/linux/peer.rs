//! The address of a peer.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

/// The address of a peer, as `accept4` or `getpeername` returned it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerAddr {
    /// IPv4: address and port.
    V4(SocketAddrV4),
    /// IPv6: address, port, flow label and scope. May be an IPv4-mapped address: see [`canonical`](Self::canonical).
    V6(SocketAddrV6),
    /// A Unix socket: a path, an abstract name, or unnamed, as most clients are.
    Unix(UnixAddr),
    /// Another family, or an address of the wrong length for its family.
    Other {
        /// `AF_*`; `AF_UNSPEC` (0) if the address has fewer than two bytes.
        family: u16,
        /// The whole address, including the family.
        bytes: Vec<u8>,
    },
}

impl PeerAddr {
    /// Decodes a `struct sockaddr` of any family and length.
    ///
    /// Never fails: an unknown family or length becomes [`Other`](Self::Other).
    ///
    /// ```
    /// use epoll_acceptor::socket::PeerAddr;
    ///
    /// let mut bytes = 2_u16.to_ne_bytes().to_vec(); // AF_INET
    /// bytes.extend([0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    /// let PeerAddr::V4(address) = PeerAddr::from_bytes(&bytes) else { panic!() };
    /// assert_eq!(address, "127.0.0.1:8080".parse().unwrap());
    /// ```
    #[doc(alias = "sockaddr")]
    #[inline]
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

    /// Converts an IPv4-mapped address (`::ffff:a.b.c.d`) of a dual-stack listener to IPv4; returns any other address
    /// unchanged.
    ///
    /// Use the canonical address as a key: otherwise one peer has two keys, depending on the listener.
    ///
    /// ```
    /// use std::net::{Ipv4Addr, SocketAddrV6};
    /// use epoll_acceptor::socket::PeerAddr;
    ///
    /// let v4 = Ipv4Addr::new(192, 0, 2, 1);
    /// let peer = PeerAddr::V6(SocketAddrV6::new(v4.to_ipv6_mapped(), 80, 0, 0));
    /// assert_eq!(peer.canonical().ip(), Some(v4.into()));
    /// ```
    #[inline]
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

    /// Returns address and port; `None` for families other than IPv4 and IPv6.
    #[inline]
    #[must_use]
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(address) => Some(SocketAddr::V4(*address)),
            Self::V6(address) => Some(SocketAddr::V6(*address)),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }

    /// Returns the IP address; `None` for families other than IPv4 and IPv6.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some(IpAddr::V4(*address.ip())),
            Self::V6(address) => Some(IpAddr::V6(*address.ip())),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }
}

/// Decodes a `struct sockaddr_in` (ip(7)): family, port, address, eight bytes of padding.
fn v4(bytes: &[u8]) -> Option<SocketAddrV4> {
    let port = u16::from_be_bytes(array(bytes, 2)?);
    let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
    (bytes.len() == size_of::<libc::sockaddr_in>()).then(|| SocketAddrV4::new(ip, port))
}

/// Decodes a `struct sockaddr_in6` (ipv6(7)): family, port, flow label, address, scope.
fn v6(bytes: &[u8]) -> Option<SocketAddrV6> {
    let port = u16::from_be_bytes(array(bytes, 2)?);
    // std keeps these two fields in their raw byte order.
    let flowinfo = u32::from_ne_bytes(array(bytes, 4)?);
    let scope_id = u32::from_ne_bytes(array(bytes, 24)?);
    let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
    (bytes.len() == size_of::<libc::sockaddr_in6>()).then(|| SocketAddrV6::new(ip, port, flowinfo, scope_id))
}

/// Decodes the `sun_path` of a `struct sockaddr_un` (unix(7)): empty, a NUL and an abstract name, or a path.
fn unix(path: &[u8]) -> Option<UnixAddr> {
    match path {
        // An empty path makes an unnamed address in std.
        [] => UnixAddr::from_pathname("").ok(),
        [0, name @ ..] => UnixAddr::from_abstract_name(name).ok(),
        _ => {
            // The length that the kernel returns includes the NUL that ends the path.
            let path = path.split(|byte| *byte == 0).next()?;
            UnixAddr::from_pathname(OsStr::from_bytes(path)).ok()
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
