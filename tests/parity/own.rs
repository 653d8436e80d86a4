//! What no call can make the kernel show on demand: facts of the model alone.

use epoll_acceptor::Errno;
use epoll_acceptor::sim::kernel::{
    Address, ConnectError, Family, Fate, Fault, Fd, Kernel, Mask, Shut, Sleep, Thread,
};

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
fn a_connection_is_accepted_before_anybody_was_told() {
    let (mut kernel, listener, epoll, address) = listening(Family::Unix, Mask::IN | Mask::ET);
    let connection = kernel.connect_begin(address).unwrap();
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0);
    assert_eq!(kernel.accept(listener), Ok(connection));
    kernel.connect_finish(connection);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0, "the edge is looked at again and dropped");
}

#[test]
fn a_tcp_accept_does_not_return_before_everybody_was_told() {
    let (mut kernel, listener, epoll, address) = listening(Family::Tcp4, Mask::IN | Mask::ET);
    assert_eq!(kernel.sleep(epoll, A, 8, None), Ok(Sleep::Asleep));
    let connection = kernel.connect_begin(address).unwrap();
    assert_eq!(kernel.runnable().count(), 0);
    assert_eq!(kernel.accept(listener), Ok(connection));
    assert_eq!(kernel.runnable().count(), 1);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep), "and finds nothing");
}

#[test]
fn scripted_errors_come_in_order_and_take_their_connection_along() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let [enfile, aborted] = [libc::ENFILE, libc::ECONNABORTED].map(Errno::new);
    kernel.fail_accept(listener, Fault { errno: enfile, consumes: false }).unwrap();
    kernel.fail_accept(listener, Fault { errno: aborted, consumes: true }).unwrap();
    let (first, second) = (kernel.connect(address).unwrap(), kernel.connect(address).unwrap());
    assert_eq!(kernel.accept(listener), Err(enfile));
    assert_eq!(kernel.depth(listener), Some(2));
    assert_eq!(kernel.accept(listener), Err(aborted));
    assert_eq!(kernel.fate(first), Some(Fate::Closed));
    assert_eq!(kernel.accept(listener), Ok(second));
    kernel.fail_accept(listener, Fault { errno: aborted, consumes: true }).unwrap();
    assert_eq!(kernel.accept(listener), Err(EAGAIN), "nothing is there to be aborted");
}

#[test]
fn a_full_table_hides_an_empty_queue_and_a_closed_descriptor_mends_it() {
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
fn a_wait_ends_at_its_first_deadline_and_not_before() {
    let (mut kernel, listener, epoll, address) = listening(Family::Tcp4, Mask::IN);
    assert_eq!(kernel.sleep(epoll, A, 8, Some(100)), Ok(Sleep::Asleep));
    kernel.connect(address).unwrap();
    kernel.accept(listener).unwrap();
    kernel.advance(60);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep), "woken for nothing");
    kernel.advance(39);
    assert_eq!(kernel.run(A), Ok(Sleep::Asleep));
    kernel.advance(1);
    assert_eq!(kernel.run(A), Ok(Sleep::Returned(Vec::new())));
}

#[test]
fn alarms_go_off_in_their_order_and_only_once() {
    let mut kernel = Kernel::new();
    let (epoll, early, late) = (kernel.epoll().unwrap(), kernel.alarm().unwrap(), kernel.alarm().unwrap());
    for (alarm, after) in [(late, 20), (early, 10)] {
        kernel.add(epoll, alarm, Mask::IN | Mask::ET, after).unwrap();
        kernel.set_alarm(alarm, after).unwrap();
    }
    assert_eq!(kernel.next_alarm_at(), Some(10));
    kernel.advance(100);
    let order: Vec<u64> = kernel.wait(epoll, 8).unwrap().iter().map(|event| event.data).collect();
    assert_eq!(order, [10, 20]);
    kernel.advance(100);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0);
    kernel.set_alarm(early, 5).unwrap();
    kernel.set_alarm(early, 0).unwrap();
    kernel.advance(100);
    assert_eq!(kernel.wait(epoll, 8).unwrap().len(), 0, "cancelled");
}

#[test]
fn the_last_of_two_sleepers_wakes_and_an_edge_wakes_no_other() {
    let (mut kernel, _, epoll, address) = listening(Family::Tcp4, Mask::IN | Mask::ET);
    assert_eq!(kernel.sleep(epoll, A, 8, None), Ok(Sleep::Asleep));
    assert_eq!(kernel.sleep(epoll, B, 8, None), Ok(Sleep::Asleep));
    kernel.connect(address).unwrap();
    assert_eq!(kernel.runnable().collect::<Vec<_>>(), [B]);
    assert!(matches!(kernel.run(B), Ok(Sleep::Returned(events)) if events.len() == 1));
    assert_eq!(kernel.runnable().count(), 0);
}

#[test]
fn too_many_requests_are_answered_by_cookies_or_not_at_all() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let (first, _, third) = (kernel.syn(address), kernel.syn(address).unwrap(), kernel.syn(address).unwrap());
    kernel.set_syn_cookies(false);
    assert_eq!(kernel.syn(address), Err(ConnectError::Dropped));
    assert!(kernel.ack(third), "a cookie needs no room among the requests");
    assert!(kernel.ack(first.unwrap()));
    assert_eq!(kernel.depth(listener), Some(2));
    assert_eq!(kernel.syn(address), Err(ConnectError::Dropped), "the accept queue is full");
}

#[test]
fn a_request_waits_for_room_and_dies_with_the_listener() {
    let (mut kernel, listener, _, address) = listening(Family::Tcp4, Mask::IN);
    let request = kernel.syn(address).unwrap();
    kernel.connect(address).unwrap();
    kernel.connect(address).unwrap();
    assert!(!kernel.ack(request), "full");
    kernel.accept(listener).unwrap();
    kernel.shutdown(listener, Shut::RD).unwrap();
    assert_eq!(kernel.fate(request), Some(Fate::Reset));
    assert!(!kernel.ack(request));
}

#[test]
fn the_time_queued_counts_from_the_end_of_the_handshake() {
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
fn registrations_run_out() {
    let (mut kernel, listener, epoll, _) = listening(Family::Tcp4, Mask::IN);
    let ring = kernel.ring().unwrap();
    kernel.set_registration_limit(1);
    assert_eq!(kernel.add(epoll, ring, Mask::IN, 0), Err(Errno::new(libc::ENOSPC)));
    kernel.delete(epoll, listener).unwrap();
    assert_eq!(kernel.add(epoll, ring, Mask::IN, 0), Ok(()));
    assert_eq!(kernel.add(epoll, ring, Mask::IN, 0), Err(Errno::new(libc::EEXIST)), "which comes first");
}

#[test]
fn a_plain_file_cannot_be_watched() {
    let mut kernel = Kernel::new();
    let (plain, other) = (kernel.plain().unwrap(), kernel.plain().unwrap());
    assert_eq!(
        kernel.add(plain, other, Mask::IN, 0),
        Err(Errno::new(libc::EPERM)),
        "before no epoll is missed"
    );
}

#[test]
fn equal_histories_make_equal_states() {
    let play = || {
        let (mut kernel, listener, epoll, address) = listening(Family::Unix, Mask::IN);
        kernel.connect(address).unwrap();
        kernel.accept(listener).unwrap();
        kernel.wait(epoll, 8).unwrap();
        kernel
    };
    assert_eq!(play(), play());
}
