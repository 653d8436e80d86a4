//! The calls that only the registered listener uses; the others are tested from outside.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use super::*;

fn readable(fd: &impl AsFd) -> bool {
    poll(fd.as_fd(), libc::POLLIN).unwrap() & libc::POLLIN != 0
}

fn until_readable(fd: &impl AsFd) {
    let begin = Instant::now();
    while !readable(fd) {
        assert!(begin.elapsed() < Duration::from_secs(20), "never readable");
        std::thread::yield_now();
    }
}

#[test]
fn a_timer_of_zero_goes_off_and_none_disarms() {
    let timer = timerfd().unwrap();
    let set = |after| timerfd_set(timer.as_fd(), after).unwrap();
    assert!(!readable(&timer));
    set(Some(Duration::ZERO));
    until_readable(&timer);
    for after in [Some(Duration::MAX), Some(Duration::from_secs(3_600)), None] {
        set(after);
        assert!(!readable(&timer), "{after:?}");
    }
}

#[test]
fn an_eventfd_is_readable_from_the_first_write_on() {
    let event = eventfd().unwrap();
    assert!(!readable(&event));
    eventfd_write(event.as_fd()).unwrap();
    assert!(readable(&event));
}

#[test]
fn a_socket_says_whether_it_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(is_listening(listener.as_fd()));
    assert!(!is_listening(stream.as_fd()));
    assert!(!is_listening(eventfd().unwrap().as_fd()));
    assert_eq!(tcp_info(listener.as_fd()).unwrap().state, TCP_LISTEN);
}

#[test]
fn last_words_neither_block_nor_kill() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (client, server) = (client.as_fd(), server.as_fd());

    let nothing = recv_discard(server, &mut [0; 8]).unwrap_err();
    assert_eq!(nothing.number(), libc::EAGAIN, "although the socket blocks");
    assert_eq!(send(server, b"bye").unwrap(), 3);
    shutdown_write(server).unwrap();
    assert_eq!(send(server, b"more").unwrap_err().number(), libc::EPIPE);
    assert_eq!(recv_discard(client, &mut [0; 8]).unwrap(), 3);
    assert_eq!(recv_discard(client, &mut [0; 8]).unwrap(), 0);
}

#[test]
fn linger_of_zero_resets_and_none_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (seconds, answer) in [(Some(0), Err(libc::ECONNRESET)), (None, Ok(0))] {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        set_linger(server.as_fd(), Some(5)).unwrap();
        set_linger(server.as_fd(), seconds).unwrap();
        drop(server);
        until_readable(&client);
        assert_eq!(recv_discard(client.as_fd(), &mut [0; 8]).map_err(Errno::number), answer);
    }
}

#[test]
fn nonblocking_is_set_once_and_for_all() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..2 {
        set_nonblocking(listener.as_fd()).unwrap();
        assert_eq!(accept4(listener.as_fd(), 0).unwrap_err().number(), libc::EAGAIN);
    }
}
