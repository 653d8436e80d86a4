//! A limit for each peer, over TCP and over Unix sockets.

use std::net::{Ipv4Addr, SocketAddr};

use epoll_acceptor::{Acceptor, Admission, AnyListener, Gate, PeerLimit, Refusal};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{Client, Kind, LISTENER, LONG, Owner, Read, TRIGGERS, assert_balanced};

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// A client with this address.
fn from(ip: [u8; 4], to: &SockAddr) -> Client {
    let socket = bound((Ipv4Addr::from(ip), 0).into());
    socket.connect(to).unwrap();
    Client(socket)
}

#[test]
fn a_flood_from_one_address_leaves_room_for_the_others() {
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let (gate, peers) = (Gate::new(100), PeerLimit::new(3).refusal(Refusal::Reset));
        let policy = gate.clone().and(peers.clone());
        let mut owner = Owner::new();
        let mut acceptor =
            trigger.on(AnyListener(listener)).admission(policy).register(&owner.epoll, LISTENER).unwrap();
        let mut flood = Vec::new();
        let mut others = Vec::new();
        for n in 2..12 {
            flood.extend((0..50).map(|_| from([127, 0, 0, 1], &door.address)));
            others.push(from([127, 0, 0, n], &door.address));
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
        // Whoever leaves makes room for another of the same address.
        kept.clear();
        assert_eq!((peers.peers(), gate.in_use()), (0, 0));
        let again = from([127, 0, 0, 1], &door.address);
        kept.extend(owner.take(&mut acceptor, 1));
        again.assert_served();
    }
}

#[test]
fn clients_of_a_v6_listener_have_one_name_each() {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let any: SocketAddr = "[::]:0".parse().unwrap();
    if let Err(error) = socket.set_only_v6(false).and_then(|()| socket.bind(&any.into())) {
        eprintln!("SKIPPED: a dual-stack listener: {error}");
        return;
    }
    socket.listen(64).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let peers = PeerLimit::new(2).exempt([127, 0, 0, 9].into(), 32);
    let mut owner = Owner::new();
    let builder = TRIGGERS[0].on(AnyListener(socket)).admission(peers.clone());
    let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
    let v4 = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], port)));
    let v6 = SockAddr::from("[::1]:0".parse::<SocketAddr>().map(|mut v6| (v6.set_port(port), v6).1).unwrap());
    // Two of each, and as many as they like of the one that is exempt by its v4 name.
    let clients: Vec<_> = [[127, 0, 0, 1]; 5].iter().map(|ip| from(*ip, &v4)).collect();
    let exempt: Vec<_> = [[127, 0, 0, 9]; 5].iter().map(|ip| from(*ip, &v4)).collect();
    let others: Vec<_> = (0..5)
        .map(|_| {
            let socket = bound("[::1]:0".parse().unwrap());
            socket.connect(&v6).unwrap();
            Client(socket)
        })
        .collect();
    let kept = owner.take(&mut acceptor, 2 + 5 + 2);
    owner.settle(&mut acceptor);
    let served = |clients: &[Client]| {
        clients.iter().map(|client| client.read_within(LONG)).filter(|read| *read == Read::Served).count()
    };
    assert_eq!((served(&clients), served(&exempt), served(&others)), (2, 5, 2));
    assert_eq!((peers.peers(), acceptor.counters().refused_peer), (2, 6));
    drop(kept);
    assert_eq!(peers.peers(), 0);
}

/// The kernel forgets whose connection it was when it is reset; accept4 still tells.
#[test]
fn whoever_resets_is_counted_for_its_own_address() {
    for trigger in TRIGGERS {
        let (listener, door) = Kind::Tcp4.listen();
        let peers = PeerLimit::new(2);
        let mut owner = Owner::new();
        let builder = trigger.on(AnyListener(listener)).admission(peers.clone());
        let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
        for n in 1..=20 {
            from([127, 0, 0, n], &door.address).reset();
        }
        let kept = owner.take(&mut acceptor, 20);
        assert_eq!(peers.peers(), 20, "none of them is nobody");
        for _ in 0..3 {
            from([127, 0, 0, 1], &door.address).reset();
        }
        let more = owner.take(&mut acceptor, 1);
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.counters().refused_peer, 2);
        drop((kept, more));
        assert_eq!(peers.peers(), 0);
    }
}

#[test]
fn a_peer_of_a_unix_socket_is_a_user() {
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket] {
        for (limit, exempt) in [(2, false), (0, true)] {
            let (listener, door) = kind.listen();
            let own = nix::unistd::geteuid().as_raw();
            let peers = PeerLimit::new(limit);
            let peers = if exempt { peers.exempt_user(own) } else { peers };
            let mut owner = Owner::new();
            let builder = TRIGGERS[0].on(AnyListener(listener)).admission(peers.clone());
            let mut acceptor = builder.register(&owner.epoll, LISTENER).unwrap();
            let clients = door.connect_many(5);
            let served = if exempt { 5 } else { 2 };
            let kept = owner.take(&mut acceptor, served);
            owner.settle(&mut acceptor);
            let (first, last) = clients.split_at(served);
            assert!(first.iter().all(|client| client.read_within(LONG) == Read::Served));
            assert!(last.iter().all(|client| client.read_within(LONG) == Read::End));
            assert_eq!(peers.peers(), usize::from(!exempt), "{}", acceptor.counters());
            drop(kept);
            assert_eq!(peers.peers(), 0);
        }
    }
}
