//! A limit for each peer, counted by several threads at once.

use epoll_acceptor::filter::{PeerPermit, Reservation, TestConnection};
use epoll_acceptor::{Filter, PeerLimit};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::model::explore;
use crate::scenarios::join;

fn enter(peers: &PeerLimit, peer: u8) -> Option<PeerPermit> {
    let Reservation::Granted(mut permit) = peers.reserve() else { panic!("nobody is made to wait") };
    let from = TestConnection { peer: Some(([10, 0, 0, peer], 1).into()), ..TestConnection::default() };
    match peers.admit(&from.info(), &mut permit) {
        Ok(()) => Some(permit),
        Err(_) => {
            peers.cancel(permit);
            None
        }
    }
}

/// One of a peer, and another peer beside it, come and go on two threads.
#[test]
fn no_interleaving_lets_one_more_of_a_peer_in() {
    explore("two of one peer, limit 1", || {
        let peers = PeerLimit::builder(1).capacity(2).build();
        let inside = Arc::new(AtomicU32::new(0));
        let come_and_go = |peers: &PeerLimit, inside: &AtomicU32| {
            if let Some(permit) = enter(peers, 1) {
                assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "P3: two of one peer are in");
                inside.fetch_sub(1, Ordering::AcqRel);
                drop(permit);
            }
        };
        let other = {
            let (peers, inside) = (peers.clone(), Arc::clone(&inside));
            thread::spawn(move || {
                come_and_go(&peers, &inside);
                assert!(enter(&peers, 2).is_some(), "P4: nobody else is this peer");
            })
        };
        come_and_go(&peers, &inside);
        join(other);
        assert_eq!(peers.peers(), 0, "P4");
        assert!(enter(&peers, 1).is_some(), "P4");
    });
}

/// A place that comes back on another thread is there for the next, and the table's one slot with it.
#[test]
fn a_place_that_comes_back_is_there() {
    explore("given back elsewhere", || {
        let peers = PeerLimit::builder(1).capacity(1).build();
        let permit = enter(&peers, 1).expect("the first");
        let release = thread::spawn(move || drop(permit));
        let next = enter(&peers, 2);
        assert_eq!(
            u64::from(next.is_none()),
            peers.table_full_count(),
            "refused only while the first is there"
        );
        join(release);
        drop(next);
        assert_eq!(peers.peers(), 0, "P4");
        assert!(enter(&peers, 2).is_some(), "P4");
    });
}
