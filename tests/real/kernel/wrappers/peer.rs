//! Peer addresses: of accepted connections, and decoded from arbitrary bytes.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::path::Path;

use epoll_acceptor::socket::{AcceptFlags, PeerAddr, accept_with_peer};
use proptest::prelude::*;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::wrappers::support::*;

fn accepted(server: &impl std::os::fd::AsFd) -> PeerAddr {
    accept_with_peer(server, AcceptFlags::default()).unwrap().1
}

#[test]
fn ipv4_peer_has_its_address() {
    let listener = listener();
    let client = connect(&listener);
    let PeerAddr::V4(address) = accepted(&listener) else { panic!("IPv4") };
    assert_eq!(SocketAddr::V4(address), client.local_addr().unwrap());
}

#[test]
fn ipv6_peer_has_its_address() {
    let Some(server) = Kind::Tcp6.listen(8) else { return };
    let client = server.connect();
    let peer = accepted(&server.socket);
    assert_eq!(peer.ip(), Some(Ipv6Addr::LOCALHOST.into()));
    let PeerAddr::V6(address) = peer else { panic!("IPv6") };
    assert_eq!(Some(address), client.local_addr().unwrap().as_socket_ipv6());
}

#[test]
fn mptcp_peer_has_its_address() {
    let Some(server) = Kind::Mptcp.listen(8) else { return };
    let client = server.connect();
    let PeerAddr::V4(address) = accepted(&server.socket) else { panic!("IPv4") };
    assert_eq!(Some(address), client.local_addr().unwrap().as_socket_ipv4());
}

#[test]
fn canonical_unmaps_ipv4_of_dual_stack_listener() {
    let Ok(socket) = Socket::new(Domain::IPV6, Type::STREAM, None) else {
        return eprintln!("SKIPPED: no IPv6");
    };
    socket.set_only_v6(false).unwrap();
    let any: SocketAddr = "[::]:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(8).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();

    let peer = accepted(&socket);
    let PeerAddr::V6(mapped) = &peer else { panic!("mapped into IPv6") };
    assert_eq!(mapped.ip().to_string(), "::ffff:127.0.0.1");
    let PeerAddr::V4(address) = peer.canonical() else { panic!("IPv4") };
    assert_eq!(SocketAddr::V4(address), client.local_addr().unwrap());
}

#[test]
fn canonical_keeps_other_addresses() {
    let v6: SocketAddrV6 = "[2001:db8::7f00:1]:9".parse().unwrap();
    assert!(matches!(PeerAddr::V6(v6).canonical(), PeerAddr::V6(address) if address == v6));
    let v4: SocketAddrV4 = "10.0.0.1:9".parse().unwrap();
    assert!(matches!(PeerAddr::V4(v4).canonical(), PeerAddr::V4(address) if address == v4));
    assert!(matches!(PeerAddr::from_bytes(b"").canonical(), PeerAddr::Other { family: 0, .. }));
}

#[test]
fn unbound_unix_peer_is_unnamed() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        let server = kind.listen(8).unwrap();
        let _client = server.connect();
        let peer = accepted(&server.socket);
        assert_eq!(peer.ip(), None);
        let PeerAddr::Unix(address) = peer else { panic!("Unix") };
        assert!(address.is_unnamed(), "{address:?}");
    }
}

#[test]
fn bound_unix_peer_has_its_abstract_name() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        let server = kind.listen(8).unwrap();
        let name = unique_name();
        let client = kind.socket().unwrap();
        client.bind(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        client.connect(&server.address).unwrap();
        let PeerAddr::Unix(address) = accepted(&server.socket) else { panic!("Unix") };
        assert_eq!(address.as_abstract_name(), Some(name.as_bytes()));
    }
}

#[test]
fn bound_unix_peer_has_its_path() {
    let path = std::env::temp_dir().join(unique_name());
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        let server = kind.listen(8).unwrap();
        let client = kind.socket().unwrap();
        client.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        client.connect(&server.address).unwrap();
        let peer = accepted(&server.socket);
        std::fs::remove_file(&path).unwrap();
        let PeerAddr::Unix(address) = peer else { panic!("Unix") };
        assert_eq!(address.as_pathname(), Some(path.as_path()));
    }
}

#[test]
fn unix_path_without_nul_is_other() {
    let mut bytes = unix_bytes(&[b'a'; 108]);
    bytes.push(0);
    let PeerAddr::Other { family, bytes: kept } = PeerAddr::from_bytes(&bytes) else { panic!("too long") };
    assert_eq!((family, kept), (1, bytes));
}

#[test]
fn unix_path_ends_at_its_nul() {
    for path in [&b"/run/x"[..], b"/run/x\0", b"/run/x\0\0\0"] {
        let PeerAddr::Unix(address) = PeerAddr::from_bytes(&unix_bytes(path)) else { panic!("Unix") };
        assert_eq!(address.as_pathname(), Some(Path::new("/run/x")));
    }
}

#[test]
fn abstract_name_may_contain_nuls_or_be_empty() {
    for name in [&b""[..], b"a\0b\0", &[0; 107]] {
        let path: Vec<u8> = [&[0], name].concat();
        let PeerAddr::Unix(address) = PeerAddr::from_bytes(&unix_bytes(&path)) else { panic!("Unix") };
        assert_eq!(address.as_abstract_name(), Some(name));
    }
}

#[test]
fn unknown_family_is_other() {
    let mut bytes = 40_u16.to_ne_bytes().to_vec(); // AF_VSOCK
    bytes.extend([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let PeerAddr::Other { family, bytes: kept } = PeerAddr::from_bytes(&bytes) else { panic!("other") };
    assert_eq!((family, kept), (40, bytes));
}

#[test]
fn truncated_address_is_other() {
    let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let v6: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
    for address in [v4, v6] {
        let whole = raw(&address.into());
        for length in 0..whole.len() {
            let PeerAddr::Other { bytes, .. } = PeerAddr::from_bytes(&whole[..length]) else {
                panic!("{length} bytes are no {address}")
            };
            assert_eq!(bytes, whole[..length]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        family in 0_u16..12,
    ) {
        let mut with_family = family.to_ne_bytes().to_vec();
        with_family.extend(&bytes);
        for bytes in [bytes, with_family] {
            if let PeerAddr::Other { bytes: kept, .. } = PeerAddr::from_bytes(&bytes).canonical() {
                prop_assert_eq!(kept, bytes);
            }
        }
    }

    #[test]
    fn ipv4_addresses_round_trip(ip: [u8; 4], port: u16) {
        let address = SocketAddrV4::new(ip.into(), port);
        let PeerAddr::V4(decoded) = decoded(SocketAddr::V4(address)) else { panic!() };
        prop_assert_eq!(decoded, address);
    }

    #[test]
    fn ipv6_addresses_round_trip(ip: [u8; 16], port: u16, flowinfo: u32, scope: u32) {
        let address = SocketAddrV6::new(ip.into(), port, flowinfo, scope);
        let PeerAddr::V6(decoded) = decoded(SocketAddr::V6(address)) else { panic!() };
        prop_assert_eq!(decoded, address);
    }

    #[test]
    fn unix_paths_round_trip(path in "[a-z/.]{1,107}") {
        let PeerAddr::Unix(decoded) = decoded(SockAddr::unix(&path).unwrap()) else { panic!() };
        prop_assert_eq!(decoded.as_pathname(), Some(Path::new(&path)));
    }
}

fn decoded(address: impl Into<SockAddr>) -> PeerAddr {
    PeerAddr::from_bytes(&raw(&address.into()))
}

/// Returns the bytes that the kernel would read.
#[allow(unsafe_code)]
fn raw(address: &SockAddr) -> Vec<u8> {
    let length = usize::try_from(address.len()).unwrap();
    // SAFETY: `as_ptr` points to a `sockaddr` of `len` initialised bytes, which `address` owns.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length) }.to_vec()
}

fn unix_bytes(path: &[u8]) -> Vec<u8> {
    let mut bytes = 1_u16.to_ne_bytes().to_vec(); // AF_UNIX
    bytes.extend(path);
    bytes
}
