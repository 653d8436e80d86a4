//! A limit per peer, counted by several threads at once.

use epoll_acceptor::filter::{PeerPermit, Reservation, TestConnection};
use epoll_acceptor::{Filter, PeerLimit};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::model::explore;
use crate::scenarios::join;

fn enter(peers: &PeerLimit, peer: u8) -> Option<PeerPermit> {
    let Reservation::Granted(mut permit) = peers.reserve() else {
        panic!("this filter decides after the accept")
    };
    let connection = TestConnection { peer: Some(([10, 0, 0, peer], 1).into()), ..TestConnection::default() };
    match peers.admit(&connection.info(), &mut permit) {
        Ok(()) => Some(permit),
        Err(_) => {
            peers.cancel(permit);
            None
        }
    }
}

/// Connections of one peer, and of another beside it, come and go on two threads.
#[test]
fn peer_limit_is_never_exceeded() {
    explore("two connections of one peer, limit 1", || {
        let peers = PeerLimit::builder(1).capacity(2).build();
        let inside = Arc::new(AtomicU32::new(0));
        let come_and_go = |peers: &PeerLimit, inside: &AtomicU32| {
            if let Some(permit) = enter(peers, 1) {
                assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0, "P3: two of one peer are in service");
                inside.fetch_sub(1, Ordering::AcqRel);
                drop(permit);
            }
        };
        let other = {
            let (peers, inside) = (peers.clone(), Arc::clone(&inside));
            thread::spawn(move || {
                come_and_go(&peers, &inside);
                assert!(enter(&peers, 2).is_some(), "P4: the other peer has no connection");
            })
        };
        come_and_go(&peers, &inside);
        join(other);
        assert_eq!(peers.peers(), 0, "P4");
        assert!(enter(&peers, 1).is_some(), "P4");
    });
}

/// A count that another thread releases is available to the next connection, and so is the table's one slot.
#[test]
fn released_peer_slot_is_available() {
    explore("released elsewhere", || {
        let peers = PeerLimit::builder(1).capacity(1).build();
        let permit = enter(&peers, 1).expect("the first");
        let release = thread::spawn(move || drop(permit));
        let next = enter(&peers, 2);
        let refused = u64::from(next.is_none());
        assert_eq!(refused, peers.table_full_count(), "refused only while the first is in service");
        join(release);
        drop(next);
        assert_eq!(peers.peers(), 0, "P4");
        assert!(enter(&peers, 2).is_some(), "P4");
    });
}
