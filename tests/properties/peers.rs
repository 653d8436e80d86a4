//! `PeerLimit` and `AllowedUsers`, one newcomer at a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use epoll_acceptor::{
    Admission, AllowedUsers, Cause, ConnectionInfo, Credentials, Gate, PeerLimit, PeerPermit, RateLimit,
    Refusal, Reserve,
};

#[derive(Clone, Copy, Default)]
struct From {
    peer: Option<SocketAddr>,
    credentials: Option<Credentials>,
    group: Option<u32>,
}

impl ConnectionInfo for From {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    fn is_in_group(&self, gid: u32) -> Option<bool> {
        self.credentials.map(|credentials| credentials.gid == gid || self.group == Some(gid))
    }
}

fn from(address: &str) -> From {
    let ip: IpAddr = address.parse().unwrap();
    From { peer: Some((ip, 9).into()), ..From::default() }
}

fn user(uid: u32, gid: u32) -> From {
    From { credentials: Some(Credentials { uid, gid, pid: 1 }), ..From::default() }
}

fn enter(peers: &PeerLimit, newcomer: From) -> Option<PeerPermit> {
    let Reserve::Room(mut permit) = peers.reserve() else { panic!("nobody is made to wait") };
    match peers.admit(&newcomer, &mut permit) {
        Ok(()) => Some(permit),
        Err(denied) => {
            assert_eq!(denied.cause, Cause::Peer);
            peers.cancel(permit);
            None
        }
    }
}

#[track_caller]
fn assert_same(peers: &PeerLimit, one: From, other: From, same: bool) {
    assert_eq!(peers.limit(), 1);
    let first = enter(peers, one);
    assert!(first.is_some() && enter(peers, one).is_none());
    assert_eq!(enter(peers, other).is_none(), same);
    drop(first);
    assert_eq!(peers.peers(), 0);
    assert!(enter(peers, one).is_some());
}

#[test]
fn who_is_one_peer() {
    let one = || PeerLimit::new(1);
    assert_same(&one(), from("10.0.0.1"), from("10.0.0.1"), true);
    assert_same(&one(), from("10.0.0.1"), from("10.0.0.2"), false);
    assert_same(&one(), from("10.0.0.1"), from("::ffff:10.0.0.1"), true);
    assert_same(&one().v4_prefix(24), from("10.0.0.1"), from("10.0.0.2"), true);
    assert_same(&one().v4_prefix(24), from("10.0.0.1"), from("10.0.1.1"), false);
    assert_same(&one().v4_prefix(0), from("10.0.0.1"), from("200.0.0.1"), true);
    assert_same(&one().v4_prefix(0), from("10.0.0.1"), from("::1"), false);
    assert_same(&one(), from("2001:db8::1"), from("2001:db8::ffff:1"), true);
    assert_same(&one(), from("2001:db8::1"), from("2001:db8:0:1::1"), false);
    assert_same(&one().v6_prefix(128), from("2001:db8::1"), from("2001:db8::2"), false);
    assert_same(&one().v6_prefix(48), from("2001:db8::1"), from("2001:db8:0:1::1"), true);
    assert_same(&one().v6_prefix(0), from("::1"), from("2001:db8::1"), true);
    assert_same(&one(), user(1, 1), user(1, 2), true);
    assert_same(&one(), user(1, 1), user(2, 1), false);
    assert_same(&one(), From::default(), From::default(), true);
}

#[test]
fn who_is_exempt_is_not_counted() {
    let none = PeerLimit::new(0)
        .exempt(Ipv4Addr::LOCALHOST.into(), 8)
        .exempt("::ffff:192.0.2.0".parse().unwrap(), 120)
        .exempt("2001:db8::".parse().unwrap(), 32)
        .exempt(Ipv6Addr::LOCALHOST.into(), 128)
        .exempt_user(0);
    let exempt = ["127.9.9.9", "::ffff:127.0.0.1", "192.0.2.77", "2001:db8:ffff::1", "::1"].map(from);
    for newcomer in exempt.into_iter().chain([user(0, 5)]) {
        let permits = [(); 3].map(|()| enter(&none, newcomer));
        assert!(permits.iter().all(Option::is_some));
    }
    let others = ["128.0.0.1", "192.0.3.0", "2001:db9::", "::2", "::127.0.0.1"].map(from);
    for newcomer in others.into_iter().chain([user(1, 0), From::default()]) {
        assert!(enter(&none, newcomer).is_none());
    }
    assert!(enter(&none.clone().allow_unknown(), From::default()).is_some());
    assert!(enter(&none, From::default()).is_none(), "a builder leaves older handles as they are");
    assert!(enter(&PeerLimit::new(0).exempt(Ipv4Addr::UNSPECIFIED.into(), 0), from("9.9.9.9")).is_some());
}

#[test]
fn a_million_peers_take_no_more_memory_than_was_allocated() {
    const CAPACITY: usize = 1000;
    let peers = PeerLimit::new(2).capacity(CAPACITY);
    let address = |n: u32| From { peer: Some((Ipv4Addr::from_bits(n), 1).into()), ..From::default() };
    let held: Vec<_> = (0..1_000_000).filter_map(|n| enter(&peers, address(n))).collect();
    assert_eq!((held.len(), peers.peers()), (CAPACITY, CAPACITY));
    assert_eq!(peers.table_full_count(), 1_000_000 - CAPACITY as u64);
    assert!(enter(&peers, address(5)).is_some(), "who is in it may come as often as before");
    drop(held);
    assert_eq!(peers.peers(), 0);
    assert!((0..1_000_000).all(|n| enter(&peers, address(n)).is_some()), "each goes before the next comes");
    assert_eq!(peers.peers(), 0);
}

#[test]
fn who_is_crowded_out_may_be_let_in_uncounted() {
    let peers = PeerLimit::new(1).capacity(1).allow_when_table_full();
    let first = enter(&peers, from("10.0.0.1"));
    let others = [(); 3].map(|()| enter(&peers, from("10.0.0.2")));
    assert!(others.iter().all(Option::is_some) && enter(&peers, from("10.0.0.1")).is_none());
    assert_eq!((peers.peers(), peers.table_full_count()), (1, 3));
    drop((first, others));
    assert_eq!(peers.peers(), 0);
}

#[test]
fn a_place_is_given_back_once_whoever_refuses() {
    let peers = PeerLimit::new(1);
    let policy = Gate::new(9).and(peers.clone()).and(AllowedUsers::new());
    for _ in 0..3 {
        let Reserve::Room(mut permit) = policy.reserve() else { panic!("there is room") };
        let denied = policy.admit(&from("10.0.0.1"), &mut permit).unwrap_err();
        assert_eq!((denied.cause, peers.peers()), (Cause::Credentials, 1));
        policy.cancel(permit);
        assert_eq!(peers.peers(), 0);
    }
    // Asked twice, a permit holds one place.
    let Reserve::Room(mut permit) = PeerLimit::new(2).reserve() else { panic!("there is room") };
    let peers = PeerLimit::new(2);
    assert!(peers.admit(&from("10.0.0.1"), &mut permit).is_ok());
    assert!(peers.admit(&from("10.0.0.2"), &mut permit).is_ok());
    assert_eq!(peers.peers(), 1);
    drop(permit);
    assert_eq!(peers.peers(), 0);
}

#[test]
fn what_they_ask_of_an_acceptor() {
    let peers = PeerLimit::new(1);
    assert!(peers.wants_peer() && peers.never_waits());
    assert!(peers.clone().and(RateLimit::per_second(1)).wants_peer());
    let allowed = AllowedUsers::new();
    assert!(!allowed.wants_peer() && allowed.never_waits());
    assert!(format!("{peers:?} {allowed:?}").contains("limit: 1"));
}

#[test]
fn only_who_was_named_may_connect() {
    let allowed = AllowedUsers::new().user(7).user(8).group(27);
    let may = |policy: &AllowedUsers, newcomer: From| {
        policy.admit(&newcomer, &mut ()).map_err(|denied| denied.cause) == Ok(())
    };
    assert!(may(&allowed, user(7, 1)) && may(&allowed, user(8, 1)) && may(&allowed, user(9, 27)));
    assert!(may(&allowed, From { group: Some(27), ..user(9, 1) }), "a supplementary group");
    let strangers = [user(0, 0), user(27, 7), From { group: Some(28), ..user(9, 1) }];
    for stranger in strangers.into_iter().chain([from("127.0.0.1"), From::default()]) {
        let denied = allowed.admit(&stranger, &mut ()).unwrap_err();
        assert_eq!((denied.cause, denied.refusal), (Cause::Credentials, Refusal::Close));
    }
    assert!(may(&allowed.clone().allow_unknown(), from("127.0.0.1")));
    assert!(!may(&allowed.clone().allow_unknown(), user(0, 0)), "known, and nobody who may");
    assert!(!may(&AllowedUsers::new(), user(0, 0)));
    let denied = allowed.refusal(Refusal::message("no")).admit(&user(0, 0), &mut ()).unwrap_err();
    assert_eq!(denied.refusal, Refusal::message("no"));
}

#[test]
fn what_makes_no_sense_is_said_at_once() {
    let broken: [fn() -> PeerLimit; 6] = [
        || PeerLimit::new(1).v4_prefix(33),
        || PeerLimit::new(1).v6_prefix(129),
        || PeerLimit::new(1).capacity(0),
        || PeerLimit::new(1).capacity(usize::MAX),
        || PeerLimit::new(1).exempt(Ipv4Addr::LOCALHOST.into(), 33),
        || PeerLimit::new(1).exempt(Ipv6Addr::LOCALHOST.into(), 129),
    ];
    for (n, build) in broken.into_iter().enumerate() {
        assert!(std::panic::catch_unwind(build).is_err(), "{n}");
    }
}
