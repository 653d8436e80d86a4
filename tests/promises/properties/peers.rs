//! `PeerLimit`, `AllowedUsers` and `AllowedNetworks`, one connection at a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use epoll_acceptor::filter::{Cause, Credentials, PeerPermit, Reservation, TestConnection};
use epoll_acceptor::{
    AllowedNetworks, AllowedUsers, Filter, PeerLimit, QueueDelay, RateLimit, Refusal, filter_fn,
};

fn from(address: &str) -> TestConnection {
    let ip: IpAddr = address.parse().unwrap();
    TestConnection { peer: Some((ip, 9).into()), ..TestConnection::default() }
}

fn user(uid: u32, gid: u32) -> TestConnection {
    TestConnection { credentials: Some(Credentials { uid, gid, pid: 1 }), ..TestConnection::default() }
}

fn unknown() -> TestConnection {
    TestConnection::default()
}

fn granted<F: Filter>(filter: &F) -> F::Permit {
    match filter.reserve() {
        Reservation::Granted(permit) => permit,
        _ => panic!("a connection's peer is unknown before the accept"),
    }
}

fn enter(peers: &PeerLimit, connection: &TestConnection) -> Option<PeerPermit> {
    let mut permit = granted(peers);
    match peers.admit(&connection.info(), &mut permit) {
        Ok(()) => Some(permit),
        Err(rejection) => {
            assert_eq!((rejection.cause, rejection.refusal), (Cause::Peer, Refusal::Reset));
            peers.cancel(permit);
            None
        }
    }
}

#[track_caller]
fn assert_same(peers: &PeerLimit, one: &TestConnection, other: &TestConnection, same: bool) {
    assert_eq!(peers.limit(), 1);
    let first = enter(peers, one);
    assert!(first.is_some() && enter(peers, one).is_none());
    assert_eq!(enter(peers, other).is_none(), same);
    drop(first);
    assert_eq!(peers.peers(), 0);
    assert!(enter(peers, one).is_some());
}

#[test]
fn peers_are_networks_or_users() {
    let same = |limit: &PeerLimit, one: &str, other: &str, same: bool| {
        assert_same(limit, &from(one), &from(other), same);
    };
    let one = || PeerLimit::builder(1);
    same(&one().build(), "10.0.0.1", "10.0.0.1", true);
    same(&one().build(), "10.0.0.1", "10.0.0.2", false);
    same(&one().build(), "10.0.0.1", "::ffff:10.0.0.1", true);
    same(&one().v4_prefix(24).build(), "10.0.0.1", "10.0.0.2", true);
    same(&one().v4_prefix(24).build(), "10.0.0.1", "10.0.1.1", false);
    same(&one().v4_prefix(0).build(), "10.0.0.1", "200.0.0.1", true);
    same(&one().v4_prefix(0).build(), "10.0.0.1", "::1", false);
    same(&one().build(), "2001:db8::1", "2001:db8::ffff:1", true);
    same(&one().build(), "2001:db8::1", "2001:db8:0:1::1", false);
    same(&one().v6_prefix(128).build(), "2001:db8::1", "2001:db8::2", false);
    same(&one().v6_prefix(48).build(), "2001:db8::1", "2001:db8:0:1::1", true);
    same(&one().v6_prefix(0).build(), "::1", "2001:db8::1", true);
    assert_same(&PeerLimit::new(1), &user(1, 1), &user(1, 2), true);
    assert_same(&PeerLimit::new(1), &user(1, 1), &user(2, 1), false);
    assert_same(&PeerLimit::new(1), &unknown(), &unknown(), true);
}

#[test]
fn exempt_peers_are_not_counted() {
    let rules = || {
        PeerLimit::builder(0)
            .exempt(Ipv4Addr::LOCALHOST.into(), 8)
            .exempt("::ffff:192.0.2.0".parse().unwrap(), 120)
            .exempt("2001:db8::".parse().unwrap(), 32)
            .exempt(Ipv6Addr::LOCALHOST.into(), 128)
            .exempt_user(0)
    };
    let none = rules().build();
    let exempt = ["127.9.9.9", "::ffff:127.0.0.1", "192.0.2.77", "2001:db8:ffff::1", "::1"].map(from);
    for connection in exempt.into_iter().chain([user(0, 5)]) {
        let permits = [(); 3].map(|()| enter(&none, &connection));
        assert!(permits.iter().all(Option::is_some));
        assert_eq!(none.peers(), 0);
    }
    let others = ["128.0.0.1", "192.0.3.0", "2001:db9::", "::2", "::127.0.0.1"].map(from);
    for connection in others.into_iter().chain([user(1, 0), unknown()]) {
        assert!(enter(&none, &connection).is_none());
    }
    assert!(enter(&rules().allow_unknown().build(), &unknown()).is_some());
    assert!(enter(&none, &unknown()).is_none());
    // Not an IPv4 network, although it includes all of them.
    let low = PeerLimit::builder(0).exempt("::ffff:0:0".parse().unwrap(), 80).build();
    assert!(enter(&low, &from("::7:1")).is_some() && enter(&low, &from("2001::")).is_none());
    let all_exempt = PeerLimit::builder(0).exempt(Ipv4Addr::UNSPECIFIED.into(), 0).build();
    assert!(enter(&all_exempt, &from("9.9.9.9")).is_some());
}

#[test]
fn million_peers_take_no_further_memory() {
    const CAPACITY: usize = 1000;
    let peers = PeerLimit::builder(2).capacity(CAPACITY).build();
    let address = |n: u32| TestConnection { peer: Some((Ipv4Addr::from_bits(n), 1).into()), ..unknown() };
    let held: Vec<_> = (0..1_000_000).filter_map(|n| enter(&peers, &address(n))).collect();
    assert_eq!((held.len(), peers.peers()), (CAPACITY, CAPACITY));
    assert_eq!(peers.table_full_count(), 1_000_000 - CAPACITY as u64);
    assert!(enter(&peers, &address(5)).is_some(), "a peer in the table is counted as before");
    drop(held);
    assert_eq!(peers.peers(), 0);
    assert!((0..1_000_000).all(|n| enter(&peers, &address(n)).is_some()), "each leaves before the next");
    assert_eq!(peers.peers(), 0);
}

#[test]
fn full_table_may_admit_uncounted() {
    let peers = PeerLimit::builder(1).capacity(1).allow_when_table_full().build();
    let first = enter(&peers, &from("10.0.0.1"));
    let others = [(); 3].map(|()| enter(&peers, &from("10.0.0.2")));
    assert!(others.iter().all(Option::is_some) && enter(&peers, &from("10.0.0.1")).is_none());
    assert_eq!((peers.peers(), peers.table_full_count()), (1, 3));
    drop((first, others));
    assert_eq!(peers.peers(), 0);
}

#[test]
fn try_acquire_counts_with_the_filter() {
    let peers = PeerLimit::builder(1).exempt([10, 0, 0, 9].into(), 32).build();
    let ip = |address: &str| address.parse::<IpAddr>().unwrap();
    let permit = peers.try_acquire(ip("10.0.0.1"));
    assert!(permit.is_some());
    assert!(enter(&peers, &from("10.0.0.1")).is_none(), "counted together");
    assert!(peers.try_acquire(ip("::ffff:10.0.0.1")).is_none(), "an IPv4 peer has one name");
    let exempt = [(); 3].map(|()| peers.try_acquire(ip("10.0.0.9")));
    assert!(exempt.iter().all(Option::is_some));
    assert_eq!(peers.peers(), 1, "exempt peers are not counted");
    drop(permit);
    assert_eq!(peers.peers(), 0);
    let entered = enter(&peers, &from("10.0.0.1"));
    assert!(entered.is_some() && peers.try_acquire(ip("10.0.0.1")).is_none());
}

#[test]
fn set_limit_affects_new_connections_only() {
    let peers = PeerLimit::new(1);
    let other = peers.clone();
    let first = enter(&peers, &from("10.0.0.1"));
    assert!(enter(&peers, &from("10.0.0.1")).is_none());
    other.set_limit(2);
    assert_eq!(peers.limit(), 2);
    let second = enter(&peers, &from("10.0.0.1"));
    assert!(second.is_some() && enter(&peers, &from("10.0.0.1")).is_none());
    other.set_limit(1);
    drop(second);
    assert!(enter(&peers, &from("10.0.0.1")).is_none(), "the first is still in service");
    drop(first);
    assert!(enter(&peers, &from("10.0.0.1")).is_some());
    other.set_limit(0);
    assert!(enter(&peers, &from("10.0.0.2")).is_none());
}

#[test]
fn refused_connections_release_their_count_once() {
    let peers = PeerLimit::new(1);
    let filter = (peers.clone(), AllowedUsers::new());
    for _ in 0..3 {
        let mut permit = granted(&filter);
        let rejection = filter.admit(&from("10.0.0.1").info(), &mut permit).unwrap_err();
        assert_eq!((rejection.cause, peers.peers()), (Cause::Credentials, 1));
        filter.cancel(permit);
        assert_eq!(peers.peers(), 0);
    }
    // Asked twice, a permit holds one count.
    let peers = PeerLimit::new(2);
    let mut permit = granted(&peers);
    assert!(peers.admit(&from("10.0.0.1").info(), &mut permit).is_ok());
    assert!(peers.admit(&from("10.0.0.2").info(), &mut permit).is_ok());
    assert_eq!(peers.peers(), 1);
    drop(permit);
    assert_eq!(peers.peers(), 0);
}

#[test]
fn filters_by_address_ask_for_it_with_the_accept() {
    let peers = PeerLimit::new(1);
    assert!(peers.needs_peer_addr());
    assert!(AllowedNetworks::new().needs_peer_addr());
    assert!(filter_fn(|_| Ok(())).needs_peer_addr());
    let allowed = AllowedUsers::new();
    assert!(!allowed.needs_peer_addr());
    assert!(!RateLimit::per_second(1).needs_peer_addr());
    assert!(!QueueDelay::new(std::time::Duration::from_millis(50)).needs_peer_addr());
    assert!(format!("{peers:?} {allowed:?}").contains("limit: 1"));
}

#[test]
fn only_allowed_users_may_connect() {
    let allowed = AllowedUsers::new().user(7).user(8).group(27);
    let may = |filter: &AllowedUsers, connection: TestConnection| {
        filter.admit(&connection.info(), &mut ()).map_err(|rejection| rejection.cause) == Ok(())
    };
    assert!(may(&allowed, user(7, 1)) && may(&allowed, user(8, 1)) && may(&allowed, user(9, 27)));
    assert!(may(&allowed, TestConnection { groups: vec![27], ..user(9, 1) }), "a supplementary group");
    let strangers = [user(0, 0), user(27, 7), TestConnection { groups: vec![28], ..user(9, 1) }];
    for stranger in strangers.into_iter().chain([from("127.0.0.1"), unknown()]) {
        let rejection = allowed.admit(&stranger.info(), &mut ()).unwrap_err();
        assert_eq!((rejection.cause, rejection.refusal), (Cause::Credentials, Refusal::Close));
    }
    assert!(may(&allowed.clone().allow_unknown(), from("127.0.0.1")));
    assert!(!may(&allowed.clone().allow_unknown(), user(0, 0)), "known, and not allowed");
    assert!(!may(&AllowedUsers::new(), user(0, 0)));
    let rejection = allowed.refusal(Refusal::message("no")).admit(&user(0, 0).info(), &mut ()).unwrap_err();
    assert_eq!(rejection.refusal, Refusal::message("no"));
}

/// The networks, an address, and whether it is admitted.
type Fact = (&'static [&'static str], &'static [&'static str], &'static str, bool);

#[test]
fn networks_admit_by_prefix() {
    let facts: &[Fact] = &[
        // Without an allowed network every peer that is not denied is admitted.
        (&[], &[], "192.0.2.1", true),
        (&[], &["192.0.2.0/24"], "192.0.2.1", false),
        (&[], &["192.0.2.0/24"], "192.0.3.1", true),
        // Version 4.
        (&["10.0.0.0/8"], &[], "10.255.255.255", true),
        (&["10.0.0.0/8"], &[], "11.0.0.0", false),
        (&["0.0.0.0/0"], &[], "203.0.113.9", true),
        (&["0.0.0.0/0"], &[], "2001:db8::1", false),
        (&["10.0.0.0/9", "192.0.2.0/31"], &[], "192.0.2.1", true),
        (&["10.0.0.0/9", "192.0.2.0/31"], &[], "192.0.2.2", false),
        // Version 6.
        (&["fd00::/8"], &[], "fdff::1", true),
        (&["fd00::/8"], &[], "fe00::1", false),
        (&["::/0"], &[], "2001:db8::1", true),
        (&["2001:db8::/33"], &[], "2001:db8:7fff::", true),
        (&["2001:db8::/33"], &[], "2001:db8:8000::", false),
        // Mapped: one peer has one name, and so has one network.
        (&["10.0.0.0/8"], &[], "::ffff:10.1.1.1", true),
        (&["::ffff:10.0.0.0/104"], &[], "10.1.1.1", true),
        (&["::ffff:10.0.0.0/104"], &[], "11.1.1.1", false),
        (&["::ffff:10.0.0.1"], &[], "10.0.0.1", true),
        (&["::/0"], &[], "::ffff:10.1.1.1", false),
        // An address alone, and bits beyond the prefix.
        (&["192.0.2.7"], &[], "192.0.2.7", true),
        (&["192.0.2.7"], &[], "192.0.2.6", false),
        (&["2001:db8::7"], &[], "2001:db8::7", true),
        (&["2001:db8::7"], &[], "2001:db8::8", false),
        (&["10.1.2.3/8"], &[], "10.9.9.9", true),
        // A denied network inside an allowed one, and an allowed one inside a denied one.
        (&["10.0.0.0/8"], &["10.66.0.0/16"], "10.66.1.1", false),
        (&["10.0.0.0/8"], &["10.66.0.0/16"], "10.67.1.1", true),
        (&["10.66.0.0/16"], &["10.0.0.0/8"], "10.66.1.1", false),
        (&["10.0.0.0/8"], &["::ffff:10.66.0.0/112"], "10.66.1.1", false),
    ];
    for (allowed, denied, address, admitted) in facts {
        let networks =
            allowed.iter().fold(AllowedNetworks::new(), |networks, network| networks.allow(network).unwrap());
        let networks = denied.iter().fold(networks, |networks, network| networks.deny(network).unwrap());
        let fact = format!("{allowed:?} but {denied:?}: {address}");
        assert_eq!(networks.contains(address.parse().unwrap()), *admitted, "{fact}");
        match networks.admit(&from(address).info(), &mut granted(&networks)) {
            Ok(()) => assert!(admitted, "{fact}"),
            Err(rejection) => {
                assert!(!admitted, "{fact}");
                assert_eq!((rejection.cause, rejection.refusal), (Cause::Network, Refusal::Reset));
            }
        }
    }
}

#[test]
fn networks_refuse_unknown_peers_unless_allowed() {
    let networks = AllowedNetworks::default().deny("10.0.0.0/8").unwrap().refusal(Refusal::Close);
    for connection in [unknown(), user(0, 0)] {
        let rejection = networks.admit(&connection.info(), &mut ()).unwrap_err();
        assert_eq!((rejection.cause, rejection.refusal), (Cause::Network, Refusal::Close));
        assert!(networks.clone().allow_unknown().admit(&connection.info(), &mut ()).is_ok());
    }
    assert!(networks.allow_unknown().admit(&from("10.0.0.1").info(), &mut ()).is_err());
}

#[test]
fn invalid_networks_name_the_text() {
    for text in
        ["", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "localhost", "10.0.0.0/", "10.0.0.0/-1", " ::1"]
    {
        let message = format!("`{text}` must be an address or a CIDR prefix, such as 10.0.0.0/8 or fd00::/8");
        let allowed = AllowedNetworks::new().allow(text).unwrap_err();
        assert_eq!(allowed.to_string(), message);
        assert_eq!(AllowedNetworks::new().deny(text).unwrap_err(), allowed);
    }
}

#[test]
fn invalid_peer_limits_panic_at_once() {
    let broken: [fn() -> PeerLimit; 6] = [
        || PeerLimit::builder(1).v4_prefix(33).build(),
        || PeerLimit::builder(1).v6_prefix(129).build(),
        || PeerLimit::builder(1).capacity(0).build(),
        || PeerLimit::builder(1).capacity(usize::MAX).build(),
        || PeerLimit::builder(1).exempt(Ipv4Addr::LOCALHOST.into(), 33).build(),
        || PeerLimit::builder(1).exempt(Ipv6Addr::LOCALHOST.into(), 129).build(),
    ];
    for (n, build) in broken.into_iter().enumerate() {
        assert!(std::panic::catch_unwind(build).is_err(), "{n}");
    }
}
