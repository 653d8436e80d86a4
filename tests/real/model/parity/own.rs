//! Tests of the model alone, for rules that no sequence of calls triggers on the kernel on demand.

use epoll_acceptor::sim::kernel::{
    Address, ConnState, ConnectError, Family, Fault, Fd, Kernel, Mask, Shut, Sleep, Thread,
};
use epoll_acceptor::socket::Errno;

const EMFILE: Errno = Errno::new(libc::EMFILE);
const EAGAIN: Errno = Errno::new(libc::EAGAIN);
const A: Thread = Thread(0);
const B: Thread = Thread(1);

fn listening(family: Family, mask: Mask) -> (Kernel, Fd, Fd, Address) {
    let mut kernel = Kernel::new();
    let listener = kernel.listener(family, 1).unwrap();
    let epoll = kernel.epoll().unwrap();
    kernel.add(epoll, listener, mask, 7).unwrap();
    let address = kernel.address(listener).unwrap();
    (kernel, listener, epoll, address)
}

#[test]
fn accept_may_precede_the_wakeup() {
    let (mut kernel, listener, epoll, address) = listening(Family::Unix, Mask::IN | Mask::ET);
    let connection = kernel.connect_begin(address).unwrap();
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0);
    assert_eq!(kernel.accept(listener), Ok(connection));
    kernel.connect_finish(connection);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0, "the second poll drops the edge");
}

#[test]
fn tcp_accept_returns_after_the_wakeup() {
    let (mut kernel, listener, epoll, address) = listening(Family::Tcp4, Mask::IN | Mask::ET);
    assert_eq!(kernel.sleep(epoll, A, 8, None), Ok(Sleep::Asleep));
    let connection = kernel.connect_begin(address).unwrap();
    assert_eq!(kernel.runnable().count(), 0);
    assert_eq!(kernel.accept(listener), Ok(connection));
    assert_eq!(kernel.runnable().count(), 1);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep), "the scan finds nothing");
}

#[test]
fn injected_errors_consume_connections_in_order() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let [enfile, aborted] = [libc::ENFILE, libc::ECONNABORTED].map(Errno::new);
    kernel.fail_accept(listener, Fault { errno: enfile, consumes: false }).unwrap();
    kernel.fail_accept(listener, Fault { errno: aborted, consumes: true }).unwrap();
    let (first, second) = (kernel.connect(address).unwrap(), kernel.connect(address).unwrap());
    assert_eq!(kernel.accept(listener), Err(enfile));
    assert_eq!(kernel.depth(listener), Some(2));
    assert_eq!(kernel.accept(listener), Err(aborted));
    assert_eq!(kernel.conn_state(first), Some(ConnState::Closed));
    assert_eq!(kernel.accept(listener), Ok(second));
    kernel.fail_accept(listener, Fault { errno: aborted, consumes: true }).unwrap();
    assert_eq!(kernel.accept(listener), Err(EAGAIN), "no connection to abort");
}

#[test]
fn emfile_hides_an_empty_queue_until_a_close() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    kernel.set_descriptor_limit(3);
    let first = kernel.connect(address).unwrap();
    kernel.accept(listener).unwrap();
    assert_eq!(kernel.accept(listener), Err(EMFILE));
    let second = kernel.connect(address).unwrap();
    assert_eq!(kernel.accept(listener), Err(EMFILE));
    kernel.close_connection(first);
    assert_eq!(kernel.accept(listener), Ok(second));
}

#[test]
fn wait_times_out_at_its_original_deadline() {
    let (mut kernel, listener, epoll, address) = listening(Family::Tcp4, Mask::IN);
    assert_eq!(kernel.sleep(epoll, A, 8, Some(100)), Ok(Sleep::Asleep));
    kernel.connect(address).unwrap();
    kernel.accept(listener).unwrap();
    kernel.advance(60);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep), "spurious wakeup");
    kernel.advance(39);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep));
    kernel.advance(1);
    assert_eq!(kernel.run(A), Ok(Sleep::Returned(Vec::new())));
}

#[test]
fn timers_expire_once_and_in_order() {
    let mut kernel = Kernel::new();
    let (epoll, early, late) =
        (kernel.epoll().unwrap(), kernel.timerfd().unwrap(), kernel.timerfd().unwrap());
    for (timer, after) in [(late, 20), (early, 10)] {
        kernel.add(epoll, timer, Mask::IN | Mask::ET, after).unwrap();
        kernel.set_timerfd(timer, after).unwrap();
    }
    assert_eq!(kernel.next_expiration(), Some(10));
    kernel.advance(100);
    let order: Vec<u64> = kernel.wait(epoll, 8).unwrap().iter().map(|event| event.data).collect();
    assert_eq!(order, [10, 20]);
    kernel.advance(100);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0);
    kernel.set_timerfd(early, 5).unwrap();
    kernel.set_timerfd(early, 0).unwrap();
    kernel.advance(100);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0, "cancelled");
}

#[test]
fn edge_wakes_only_the_last_thread_to_block() {
    let (mut kernel, _, epoll, address) = listening(Family::Tcp4, Mask::IN | Mask::ET);
    assert_eq!(kernel.sleep(epoll, A, 8, None), Ok(Sleep::Asleep));
    assert_eq!(kernel.sleep(epoll, B, 8, None), Ok(Sleep::Asleep));
    kernel.connect(address).unwrap();
    assert_eq!(kernel.runnable().collect::<Vec<_>>(), [B]);
    assert!(matches!(kernel.run(B), Ok(Sleep::Returned(events)) if events.len() == 1));
    assert_eq!(kernel.runnable().count(), 0);
}

#[test]
fn full_syn_queue_sends_cookies_or_drops() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let (first, _, third) = (kernel.syn(address), kernel.syn(address).unwrap(), kernel.syn(address).unwrap());
    kernel.set_syn_cookies(false);
    assert_eq!(kernel.syn(address), Err(ConnectError::Dropped));
    assert!(kernel.ack(third), "a cookie takes no room in the SYN queue");
    assert!(kernel.ack(first.unwrap()));
    assert_eq!(kernel.depth(listener), Some(2));
    assert_eq!(kernel.syn(address), Err(ConnectError::Dropped), "the accept queue is full");
}

#[test]
fn half_open_request_is_reset_with_its_listener() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let request = kernel.syn(address).unwrap();
    kernel.connect(address).unwrap();
    kernel.connect(address).unwrap();
    assert!(!kernel.ack(request), "the accept queue is full");
    kernel.accept(listener).unwrap();
    kernel.shutdown(listener, Shut::RD).unwrap();
    assert_eq!(kernel.conn_state(request), Some(ConnState::Reset));
    assert!(!kernel.ack(request));
}

#[test]
fn time_queued_starts_at_the_last_ack() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let request = kernel.syn(address).unwrap();
    kernel.advance(5);
    assert!(kernel.ack(request));
    kernel.advance(7);
    assert_eq!(kernel.accept(listener), Ok(request));
    kernel.advance(9);
    assert_eq!(kernel.time_queued(request), Some(7));
}

#[test]
fn registration_limit_gives_enospc() {
    let (mut kernel, listener, epoll, _) = listening(Family::Tcp4, Mask::IN);
    let eventfd = kernel.eventfd().unwrap();
    kernel.set_registration_limit(1);
    assert_eq!(kernel.add(epoll, eventfd, Mask::IN, 0), Err(Errno::new(libc::ENOSPC)));
    kernel.delete(epoll, listener).unwrap();
    assert_eq!(kernel.add(epoll, eventfd, Mask::IN, 0), Ok(()));
    assert_eq!(
        kernel.add(epoll, eventfd, Mask::IN, 0),
        Err(Errno::new(libc::EEXIST)),
        "EEXIST precedes ENOSPC"
    );
}

#[test]
fn regular_file_gives_eperm() {
    let mut kernel = Kernel::new();
    let (file, other) = (kernel.regular_file().unwrap(), kernel.regular_file().unwrap());
    assert_eq!(kernel.add(file, other, Mask::IN, 0), Err(Errno::new(libc::EPERM)), "EPERM precedes EINVAL");
}

#[test]
fn equal_histories_give_equal_states() {
    let play = || {
        let (mut kernel, listener, epoll, address) = listening(Family::Unix, Mask::IN);
        kernel.connect(address).unwrap();
        kernel.accept(listener).unwrap();
        kernel.wait(epoll, 8).unwrap();
        kernel
    };
    assert_eq!(play(), play());
}
