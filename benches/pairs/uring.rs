//! io_uring's multishot accept: armed once, it completes once per connection.
//!
//! ## Deferred work
//!
//! By default, a ring's pending work runs at the next system call of the thread that made the ring: here, while the clients
//! connect, outside the timed part. `IORING_SETUP_DEFER_TASKRUN` defers it until the thread waits on the ring.
#![allow(unsafe_code, reason = "a ring takes raw entries")]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::{IoUring, cqueue, opcode, types};

use crate::engines::Engine;
use crate::plans::LONGEST;

pub(crate) struct Uring {
    ring: IoUring,
    listener: TcpListener,
    taken: Vec<OwnedFd>,
}

impl Uring {
    pub(crate) fn boxed(listener: TcpListener) -> io::Result<Box<dyn Engine>> {
        let ring =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(8192).build(8)?;
        let mut uring = Self { ring, listener, taken: Vec::with_capacity(LONGEST) };
        uring.arm();
        uring.ring.submit()?;
        Ok(Box::new(uring))
    }

    fn arm(&mut self) {
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build();
        // SAFETY: the entry points to nothing, and the listener outlives the ring's use of it: the ring is dropped
        // first.
        unsafe { self.ring.submission().push(&accept) }.expect("room for one entry");
    }
}

impl Engine for Uring {
    fn take(&mut self, count: usize) {
        assert!(self.ring.completion().is_empty(), "nothing is accepted outside the timed part");
        while self.taken.len() < count {
            self.ring.submit_and_wait(1).expect("a wait");
            let mut armed = true;
            for completion in self.ring.completion() {
                assert!(completion.result() >= 0, "{}", io::Error::from_raw_os_error(-completion.result()));
                // SAFETY: the completion delivers this new descriptor, and nothing else owns it.
                self.taken.push(unsafe { OwnedFd::from_raw_fd(completion.result()) });
                armed &= cqueue::more(completion.flags());
            }
            if !armed {
                self.arm();
            }
        }
    }

    fn taken(&self) -> Vec<BorrowedFd<'_>> {
        self.taken.iter().map(AsFd::as_fd).collect()
    }

    fn close(&mut self) {
        self.taken.clear();
    }
}
