//! The calls without a public wrapper. tests/real/kernel/wrappers tests the others.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use super::*;

fn readable(fd: &impl AsFd) -> bool {
    poll(fd.as_fd(), libc::POLLIN).unwrap() & libc::POLLIN != 0
}

fn wait_until_readable(fd: &impl AsFd) {
    let begin = Instant::now();
    while !readable(fd) {
        assert!(begin.elapsed() < Duration::from_secs(20), "not readable after 20 s");
        std::thread::yield_now();
    }
}

/// epoll_pwait2 returns EINVAL for every other size of the signal set.
#[cfg(feature = "signals")]
#[test]
fn epoll_pwait2_takes_exactly_the_kernels_sigset() {
    let epoll = epoll_create1().unwrap();
    let mut buffer = [libc::epoll_event { events: 0, u64: 0 }];
    let timeout = KernelTimespec { seconds: 0, nanoseconds: 1 };
    let mask = sigset::full();
    match epoll_pwait2(epoll.as_fd(), &mut buffer, timeout, Some(&mask)) {
        Err(errno) if errno.number() == libc::ENOSYS => return eprintln!("SKIPPED: epoll_pwait2: {errno}"),
        result => assert_eq!(result, Ok(0)),
    }
    for size in [KERNEL_SIGSET_SIZE / 2, KERNEL_SIGSET_SIZE * 2] {
        // SAFETY: the buffer has one event, the timeout is null, and the mask has at least 16 bytes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                buffer.as_mut_ptr(),
                1,
                ptr::null::<KernelTimespec>(),
                &raw const mask,
                size,
            )
        };
        assert_eq!((result, last_errno().number()), (-1, libc::EINVAL), "{size} bytes");
    }
}

#[test]
fn eventfd_and_timerfd_close_on_exec() {
    for fd in [eventfd().unwrap(), timerfd().unwrap()] {
        assert_eq!(nix::fcntl::fcntl(&fd, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        assert_eq!(nix::fcntl::fcntl(&fd, FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK, libc::O_NONBLOCK);
    }
}

#[test]
fn timerfd_zero_expires_and_none_disarms() {
    let timer = timerfd().unwrap();
    let set = |after| timerfd_set(timer.as_fd(), after).unwrap();
    assert!(!readable(&timer));
    set(Some(Duration::ZERO));
    wait_until_readable(&timer);
    for after in [Some(Duration::MAX), Some(Duration::from_secs(3_600)), None] {
        set(after);
        assert!(!readable(&timer), "{after:?}");
    }
}

#[test]
fn eventfd_is_readable_after_the_first_write() {
    let event = eventfd().unwrap();
    assert!(!readable(&event));
    eventfd_write(event.as_fd()).unwrap();
    assert!(readable(&event));
}

#[test]
fn is_listening_is_true_for_listeners_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(is_listening(listener.as_fd()));
    assert!(!is_listening(stream.as_fd()));
    assert!(!is_listening(eventfd().unwrap().as_fd()));
    assert_eq!(tcp_info(listener.as_fd()).unwrap().state, TCP_LISTEN);
}

#[test]
fn send_and_recv_never_block_nor_raise_sigpipe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (client, server) = (client.as_fd(), server.as_fd());

    let empty = recv_discard(server, &mut [0; 8]).unwrap_err();
    assert_eq!(empty.number(), libc::EAGAIN, "on a blocking socket");
    assert_eq!(send(server, b"bye").unwrap(), 3);
    shutdown_write(server).unwrap();
    assert_eq!(send(server, b"more").unwrap_err().number(), libc::EPIPE);
    assert_eq!(recv_discard(client, &mut [0; 8]).unwrap(), 3);
    assert_eq!(recv_discard(client, &mut [0; 8]).unwrap(), 0);
}

#[test]
fn linger_zero_resets_and_none_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (seconds, expected) in [(Some(0), Err(libc::ECONNRESET)), (None, Ok(0))] {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        set_linger(server.as_fd(), Some(5)).unwrap();
        set_linger(server.as_fd(), seconds).unwrap();
        drop(server);
        wait_until_readable(&client);
        assert_eq!(recv_discard(client.as_fd(), &mut [0; 8]).map_err(Errno::number), expected);
    }
}

#[test]
fn set_nonblocking_is_idempotent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..2 {
        set_nonblocking(listener.as_fd()).unwrap();
        assert_eq!(accept4(listener.as_fd(), 0).unwrap_err().number(), libc::EAGAIN);
    }
}
