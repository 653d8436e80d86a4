//! A member that leaves and keeps its queue. tests/real/acceptors/group has the other ways to leave.

use std::io::{ErrorKind, Read};
use std::time::Instant;

use super::super::epoll::Epoll;
use super::super::events::Events;
use super::super::token::Token;
use super::*;
use crate::drain::state::State;
use crate::drain::trigger::LevelTriggered;

#[test]
fn kept_queue_is_reset_by_the_drop() {
    if queues_migrate() {
        return eprintln!("SKIPPED kept_queue_is_reset_by_the_drop: queues migrate");
    }
    let mut group = Group::builder(([127, 0, 0, 1], 0).into()).bind(2).unwrap();
    let epoll = Epoll::new().unwrap();
    let mut events = Events::with_capacity(8).unwrap();
    let acceptor = LevelTriggered::on(group.take().unwrap()).register(&epoll, Token(0)).unwrap();
    let connect = |_| TcpStream::connect(group.local_addr()).unwrap();
    let mut clients: Vec<_> = (0..60).map(connect).collect();
    let LeaveOutcome::ShuttingDown(mut acceptor) = acceptor.leave_group(Pending::Keep, Duration::MAX) else {
        panic!("its queue does not migrate");
    };
    let depth = |acceptor: &EpollAcceptor<Member>| accept_queue(acceptor.listener()).unwrap().depth;
    let kept = depth(&acceptor);
    assert!(kept > 0, "less probable than 1 in 2^60");
    clients.extend((0..60).map(connect));

    assert!(epoll.wait(&mut events, Some(Duration::from_secs(30))).unwrap().count() > 0, "it is woken");
    assert_eq!(acceptor.drain(drop), Ok(0));
    assert_eq!((acceptor.state(), acceptor.shutdown_report()), (State::Stopped, None));
    assert_eq!(depth(&acceptor), kept, "none is served, and new ones get the other member");
    assert_eq!(group.report()[0].health, MemberHealth::Abandoned(State::Stopped));

    drop(acceptor);
    let is_reset = |mut client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    };
    let begin = Instant::now();
    let mut reset = 0;
    while reset < kept {
        assert!(begin.elapsed() < Duration::from_secs(30), "{reset} of {kept}");
        let before = clients.len();
        clients.retain(|client| !is_reset(client));
        reset += u32::try_from(before - clients.len()).unwrap();
    }
    assert_eq!((reset, group.report()[0].health), (kept, MemberHealth::Closed));
}
