//! The same loops by hand: what somebody would write who knows what comes.
#![allow(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "C's ints"
)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{BUDGET, Engine, LONE_PERIOD, Strategy};

/// No limit, no counters, no commands, no errors that are survived, no other thread: the calls and nothing else.
pub struct ByHand {
    epoll: OwnedFd,
    listener: TcpListener,
    events: Vec<libc::epoll_event>,
    mask: u32,
    /// One wake-up in so many counts what waits; the others take one.
    period: usize,
    wakes: usize,
    served: Vec<TcpStream>,
}

const LISTENER: u64 = 0;

impl ByHand {
    pub fn new(listener: TcpListener, strategy: Strategy, burst: usize) -> Self {
        listener.set_nonblocking(true).expect("a socket");
        let mask = match strategy {
            Strategy::Level => libc::EPOLLIN | libc::EPOLLRDHUP,
            Strategy::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
            // The kernel refuses EPOLLRDHUP with it.
            Strategy::Exclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
        };
        // SAFETY: epoll_create1(2) takes no pointer, and returns a new descriptor, which nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))) };
        let hand = Self {
            epoll,
            listener,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 64],
            mask: mask as u32,
            period: if burst == 1 { LONE_PERIOD } else { 1 },
            wakes: 0,
            served: Vec::with_capacity(burst),
        };
        hand.control(libc::EPOLL_CTL_ADD);
        hand
    }

    fn control(&self, operation: c_int) {
        let mut event = libc::epoll_event { events: self.mask, u64: LISTENER };
        // SAFETY: epoll_ctl(2) reads the event during the call; both descriptors are open.
        checked(unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), operation, self.listener.as_raw_fd(), &raw mut event)
        });
    }

    fn wait(&mut self) -> usize {
        let (events, most) = (self.events.as_mut_ptr(), self.events.len() as c_int);
        // SAFETY: epoll_wait(2) writes at most as many events as the buffer has.
        let count = checked(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, most, -1) });
        count as usize
    }

    fn pass(&mut self) {
        if self.mask & libc::EPOLLET as u32 != 0 {
            self.control(libc::EPOLL_CTL_MOD);
        }
        self.wakes += 1;
        let due = if self.wakes % self.period == 0 { self.depth().min(BUDGET) } else { 1 };
        for _ in 0..due {
            let stream = self.accept();
            self.served.push(stream);
        }
    }

    fn depth(&self) -> usize {
        const UNACKED: usize = 24;
        let mut info = MaybeUninit::<[u8; 48]>::uninit();
        let mut length: libc::socklen_t = 48;
        // SAFETY: getsockopt(2) writes at most `length` bytes into `info`, which has as many. The kernel's
        // `tcp_info` is longer than that, so all of them are written when the call succeeds.
        let info = unsafe {
            checked(libc::getsockopt(
                self.listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            ));
            info.assume_init()
        };
        u32::from_ne_bytes([info[UNACKED], info[UNACKED + 1], info[UNACKED + 2], info[UNACKED + 3]]) as usize
    }

    fn accept(&self) -> TcpStream {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: accept(2) writes no address where none is asked for, and returns a new descriptor, which
        // nobody else owns.
        unsafe {
            let fd = libc::accept4(self.listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags);
            TcpStream::from_raw_fd(checked(fd))
        }
    }
}

impl Engine for ByHand {
    fn take(&mut self, count: usize) {
        while self.served.len() < count {
            for at in 0..self.wait() {
                match self.events[at].u64 {
                    LISTENER => self.pass(),
                    other => unreachable!("{other}"),
                }
            }
        }
    }

    fn close(&mut self) {
        self.served.clear();
    }
}

fn checked(answer: c_int) -> c_int {
    assert!(answer != -1, "{}", std::io::Error::last_os_error());
    answer
}
