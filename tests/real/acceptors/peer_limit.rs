//! A limit for each peer, over TCP and over Unix sockets, and the networks that may connect.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use epoll_acceptor::{Acceptor, AllowedNetworks, Connection, Gate, PeerLimit, Refusal};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{
    AnySocket, Client, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_balanced, matrix,
};

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Connects a client with this address.
fn connect_from(ip: [u8; 4], to: &SockAddr) -> Client {
    let socket = bound((Ipv4Addr::from(ip), 0).into());
    socket.connect(to).unwrap();
    Client(socket)
}

fn connect_from_v6(to: &SockAddr) -> Client {
    let socket = bound("[::1]:0".parse().unwrap());
    socket.connect(to).unwrap();
    Client(socket)
}

/// Opens a listener for IPv6 and IPv4, and returns its addresses for both; `None` if the machine has no IPv6.
fn dual_stack() -> Option<(Socket, SockAddr, SockAddr)> {
    let listen = || {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into())?;
        socket.listen(64)?;
        let port = socket.local_addr()?.as_socket().unwrap().port();
        let at = |ip: &str| SockAddr::from(SocketAddr::new(ip.parse().unwrap(), port));
        std::io::Result::Ok((socket, at("127.0.0.1"), at("::1")))
    };
    listen().inspect_err(|error| eprintln!("SKIPPED: a dual-stack listener: {error}")).ok()
}

fn served(clients: &[Client]) -> usize {
    clients.iter().filter(|client| client.read_within(LONG) == Read::Served).count()
}

#[test]
fn flood_from_one_address_spares_the_others() {
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let gate = Gate::new(100);
        let peers = PeerLimit::builder(3).refusal(Refusal::Reset).build();
        let mut owner = Owner::new();
        let mut acceptor = trigger
            .on(AnySocket(listener))
            .gate(&gate)
            .filter(peers.clone())
            .register(&owner.epoll, LISTENER)
            .unwrap();
        let mut flood = Vec::new();
        let mut others = Vec::new();
        for n in 2..12 {
            flood.extend((0..50).map(|_| connect_from([127, 0, 0, 1], &endpoint.address)));
            others.push(connect_from([127, 0, 0, n], &endpoint.address));
        }
        let mut kept = owner.take(&mut acceptor, 3 + 10);
        owner.settle(&mut acceptor);
        assert!(others.iter().all(|client| client.read_within(LONG) == Read::Served));
        let flood: Vec<_> = flood.into_iter().map(|client| (client.read_within(LONG), client)).collect();
        assert_eq!(flood.iter().filter(|(read, _)| *read == Read::Served).count(), 3);
        assert_eq!(flood.iter().filter(|(read, _)| *read == Read::Reset).count(), 497);
        assert_eq!((peers.peers(), gate.in_use(), peers.table_full_count()), (11, 13, 0));
        assert_eq!(acceptor.counters().refused_peer, 497);
        assert_balanced(&acceptor);
        // A connection that closes lets another one of its address in.
        kept.clear();
        assert_eq!((peers.peers(), gate.in_use()), (0, 0));
        let again = connect_from([127, 0, 0, 1], &endpoint.address);
        kept.extend(owner.take(&mut acceptor, 1));
        again.assert_served();
    }
}

#[test]
fn dual_stack_peers_are_counted_by_one_address() {
    let Some((socket, v4, v6)) = dual_stack() else { return };
    let peers = PeerLimit::builder(2).exempt([127, 0, 0, 9].into(), 32).build();
    let mut owner = Owner::new();
    let builder = TRIGGERS[0].on(AnySocket(socket)).filter(peers.clone());
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    // Two of each address, and all of the one that is exempt by its IPv4 address.
    let clients: Vec<_> = (0..5).map(|_| connect_from([127, 0, 0, 1], &v4)).collect();
    let exempt: Vec<_> = (0..5).map(|_| connect_from([127, 0, 0, 9], &v4)).collect();
    let others: Vec<_> = (0..5).map(|_| connect_from_v6(&v6)).collect();
    let kept = owner.take(&mut acceptor, 2 + 5 + 2);
    owner.settle(&mut acceptor);
    assert_eq!((served(&clients), served(&exempt), served(&others)), (2, 5, 2));
    assert_eq!((peers.peers(), acceptor.counters().refused_peer), (2, 6));
    drop(kept);
    assert_eq!(peers.peers(), 0);
}

/// After a reset getpeername(2) fails, but accept4(2) still returns the address.
#[test]
fn reset_connections_count_for_their_address() {
    for trigger in TRIGGERS {
        let (listener, endpoint) = Kind::Tcp4.listen();
        let peers = PeerLimit::new(2);
        let mut owner = Owner::new();
        let builder = trigger.on(AnySocket(listener)).filter(peers.clone());
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        for n in 1..=20 {
            connect_from([127, 0, 0, n], &endpoint.address).reset();
        }
        let kept = owner.take(&mut acceptor, 20);
        assert_eq!(peers.peers(), 20, "none is unknown");
        for _ in 0..3 {
            connect_from([127, 0, 0, 1], &endpoint.address).reset();
        }
        let more = owner.take(&mut acceptor, 1);
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.counters().refused_peer, 2);
        drop((kept, more));
        assert_eq!(peers.peers(), 0);
    }
}

#[test]
fn unix_peers_are_counted_by_user() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for (limit, exempt) in [(2, false), (0, true)] {
            let (listener, endpoint) = kind.listen();
            let own = nix::unistd::geteuid().as_raw();
            let builder = PeerLimit::builder(limit);
            let peers = if exempt { builder.exempt_user(own) } else { builder }.build();
            let mut owner = Owner::new();
            let builder = TRIGGERS[0].on(AnySocket(listener)).filter(peers.clone());
            let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
            let clients = endpoint.connect_many(5);
            let admitted = if exempt { 5 } else { 2 };
            let kept = owner.take(&mut acceptor, admitted);
            owner.settle(&mut acceptor);
            let (first, last) = clients.split_at(admitted);
            assert!(first.iter().all(|client| client.read_within(LONG) == Read::Served));
            assert!(last.iter().all(|client| client.read_within(LONG) == Read::End));
            assert_eq!(peers.peers(), usize::from(!exempt), "{}", acceptor.counters());
            drop(kept);
            assert_eq!(peers.peers(), 0);
        }
    }
}

#[test]
fn set_limit_changes_the_limit_per_peer() {
    let (listener, endpoint) = Kind::Tcp4.listen();
    let peers = PeerLimit::new(1);
    let mut owner = Owner::new();
    let builder = TRIGGERS[1].on(AnySocket(listener)).filter(peers.clone());
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    let early = endpoint.connect_many(2);
    let mut kept = owner.take(&mut acceptor, 1);
    owner.settle(&mut acceptor);
    assert_eq!(served(&early), 1);
    peers.set_limit(3);
    assert_eq!(peers.limit(), 3);
    let late = endpoint.connect_many(3);
    kept.extend(owner.take(&mut acceptor, 2));
    owner.settle(&mut acceptor);
    assert_eq!((served(&late), acceptor.counters().refused_peer), (2, 2));
    // A count that is taken by hand, for a peer whose address became known later.
    assert!(peers.try_acquire([127, 0, 0, 1].into()).is_none());
    kept.pop();
    let counted = peers.try_acquire([127, 0, 0, 1].into()).unwrap();
    assert!(peers.try_acquire("::ffff:127.0.0.1".parse().unwrap()).is_none());
    let other = peers.try_acquire([192, 0, 2, 1].into());
    assert_eq!(peers.peers(), 2);
    drop((counted, other, kept));
    assert_eq!(peers.peers(), 0);
}

/// An address that accept4(2) returns is no reason for other flags.
#[test]
fn accept_with_peer_keeps_the_flags() {
    fn assert_flags<P>(connection: &Connection<OwnedFd, P>) {
        let status = OFlag::from_bits_retain(fcntl(connection, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let descriptor = FdFlag::from_bits_retain(fcntl(connection, FcntlArg::F_GETFD).unwrap());
        assert!(descriptor.contains(FdFlag::FD_CLOEXEC));
    }
    for (listener, endpoint, trigger) in matrix() {
        let mut owner = Owner::new();
        let builder = trigger.on(AnySocket(listener.try_clone().unwrap())).with_peer();
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        let clients = endpoint.connect_many(2);
        owner.take(&mut acceptor, 2).iter().for_each(assert_flags);
        drop((clients, acceptor));

        let builder = trigger.on(AnySocket(listener.try_clone().unwrap())).filter(PeerLimit::new(9));
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        let _clients = endpoint.connect_many(2);
        owner.take(&mut acceptor, 2).iter().for_each(assert_flags);
    }
}

/// Returns how many of three clients are served: two over IPv4, of which one has another address, and one over IPv6.
fn served_behind(networks: AllowedNetworks) -> Option<[usize; 3]> {
    let (socket, v4, v6) = dual_stack()?;
    let mut owner = Owner::new();
    let builder = TRIGGERS[0].on(AnySocket(socket)).filter(networks);
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    let clients =
        [connect_from([127, 0, 0, 1], &v4), connect_from([127, 9, 0, 1], &v4), connect_from_v6(&v6)];
    let control = acceptor.control();
    owner.until(
        "all are accepted",
        || _ = acceptor.drain(|connection| crate::support::serve(&connection)).unwrap(),
        || control.counters().delivered + control.counters().refused_network == 3,
    );
    assert_balanced(&acceptor);
    Some(clients.map(|client| served(&[client])))
}

#[test]
fn allowed_networks_match_real_peers() {
    let new = AllowedNetworks::new;
    let table = [
        (new(), [1, 1, 1]),
        (new().allow("127.0.0.0/16").unwrap(), [1, 0, 0]),
        (new().allow("::1").unwrap(), [0, 0, 1]),
        (new().allow("::ffff:127.0.0.0/104").unwrap(), [1, 1, 0]),
        (new().deny("127.9.0.0/16").unwrap(), [1, 0, 1]),
        (new().allow("127.0.0.0/8").unwrap().allow("::/0").unwrap().deny("127.0.0.1").unwrap(), [0, 1, 1]),
    ];
    for (networks, expected) in table {
        let shown = format!("{networks:?}");
        let Some(served) = served_behind(networks) else { return };
        assert_eq!(served, expected, "{shown}");
    }
    // Listeners of one family. A Unix socket has no address.
    for (kind, networks, read) in [
        (Kind::Tcp4, new().allow("127.0.0.0/8").unwrap(), Read::Served),
        (Kind::Tcp4, new().allow("::1").unwrap(), Read::Reset),
        (Kind::Tcp6, new().allow("127.0.0.0/8").unwrap(), Read::Reset),
        (Kind::Tcp6, new().allow("::1").unwrap(), Read::Served),
        (Kind::UnixStream, new(), Read::End),
        (Kind::UnixStream, new().allow_unknown(), Read::Served),
    ] {
        let (listener, endpoint) = kind.listen();
        let mut owner = Owner::new();
        let builder = TRIGGERS[0].on(AnySocket(listener)).filter(networks);
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        let client = endpoint.connect();
        owner.wait(LONG);
        acceptor.drain(|connection| crate::support::serve(&connection)).unwrap();
        assert_eq!(client.read_within(LONG), read);
    }
}
