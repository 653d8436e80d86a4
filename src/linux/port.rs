//! The seam's real side: one listener on one epoll, with a ring and an alarm under the same token.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "the seam is public behind `sim`"))]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::hops::Hops;
use super::listener::Listener;
use super::peer::PeerAddr;
use super::token::Token;
use super::{sys, who};
use crate::admission::bell::Ring;
use crate::admission::newcomer::Credentials;
use crate::admission::refusal::Refusal;
use crate::drain::backend::{Backend, Peek};
use crate::drain::errno::Errno;
use crate::drain::strategy::Trigger;

/// A listener registered on an epoll.
///
/// The three descriptors besides the listener are made when it is registered, so that they exist when
/// descriptors have run out: a duplicate of the epoll, an eventfd to ring and a timerfd for the alarm. The latter
/// two are edge-triggered and never read: every write and every expiry is an edge.
///
/// Public behind `sim`, to replay a script on the real kernel; not covered by semantic versioning.
#[derive(Debug)]
pub struct EpollBackend<L: Listener> {
    /// Invariant: there until the listener is taken out, after which only the destructor runs.
    listener: Option<L>,
    epoll: OwnedFd,
    bell: Arc<OwnedFd>,
    timer: OwnedFd,
    /// The descriptor kept for when they run out, if one is wanted.
    reserve: Mutex<Option<OwnedFd>>,
    /// What an accepted connection is to ask for of its packets, if the listener has been barred and has it ask for more.
    barred: OnceLock<Hops>,
    token: Token,
    /// The mask while armed.
    armed: u32,
    registered: AtomicBool,
    /// Registered, and not exclusively.
    modifiable: AtomicBool,
    /// A forked child shares the epoll: its deregistering would deafen the parent.
    process: u32,
    started: Instant,
}

/// What a registration failed at.
#[derive(Debug)]
pub enum NotRegistered {
    /// Making the descriptors that go with it.
    Made(io::Error),
    /// Adding them and the listener to the epoll.
    Added(Errno),
}

/// The eventfd that wakes the owner.
#[derive(Debug)]
struct EventBell(Arc<OwnedFd>);

#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;
/// What a refusal reads of the client's bytes at a time, so that closing does not turn into a reset, and how often.
const POLITE_READ: usize = 4096;
const POLITE_READS_MAX: u32 = 16;

impl<L: Listener> EpollBackend<L> {
    /// Registers a listener; on failure it comes back, registered nowhere.
    ///
    /// # Errors
    ///
    /// Whatever the system refuses.
    pub fn register(
        epoll: BorrowedFd<'_>,
        listener: L,
        token: Token,
        trigger: Trigger,
    ) -> Result<Self, (NotRegistered, L)> {
        let made =
            (|| -> io::Result<_> { Ok((epoll.try_clone_to_owned()?, sys::eventfd()?, sys::timerfd()?)) })();
        let (epoll, bell, timer) = match made {
            Ok(made) => made,
            Err(error) => return Err((NotRegistered::Made(error), listener)),
        };
        let mut watched = Self {
            listener: Some(listener),
            epoll,
            bell: Arc::new(bell),
            timer,
            reserve: Mutex::new(None),
            barred: OnceLock::new(),
            token,
            armed: mask(trigger),
            registered: AtomicBool::new(false),
            modifiable: AtomicBool::new(false),
            process: std::process::id(),
            started: Instant::now(),
        };
        match watched.add_all() {
            Ok(()) => Ok(watched),
            Err(errno) => {
                let listener = watched.listener.take();
                drop(watched);
                // Invariant of the field: nobody has taken it before.
                Err((NotRegistered::Added(errno), listener.expect("the listener is still here")))
            }
        }
    }

    /// Takes the listener out, its queue intact. Nothing but the destructor may run after that.
    pub(super) fn take_listener(&mut self) -> Option<L> {
        self.listener.take()
    }

    pub(super) fn listener(&self) -> &L {
        self.listener.as_ref().expect("the listener is here until it is taken out")
    }

    pub(super) fn barred(&self, before: Hops) {
        let _ = self.barred.set(before);
    }

    pub(super) fn bar_of_tcp(&self) -> Option<Hops> {
        self.barred.get().copied()
    }

    #[cfg(feature = "group")]
    pub(super) fn listener_mut(&mut self) -> &mut L {
        self.listener.as_mut().expect("the listener is here until it is taken out")
    }

    fn add_all(&self) -> Result<(), Errno> {
        // The listener last, and untouched until everything else is in: once it is, the owner may be told at once.
        sys::epoll_ctl_add(self.epoll.as_fd(), self.bell.as_fd(), EDGE, self.token.0)?;
        sys::epoll_ctl_add(self.epoll.as_fd(), self.timer.as_fd(), EDGE, self.token.0)?;
        sys::set_nonblocking(self.fd())?;
        self.arm()
    }

    fn reserve(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.listener().as_fd()
    }

    fn is_exclusive(&self) -> bool {
        self.armed & mask(Trigger::Exclusive) == mask(Trigger::Exclusive)
    }

    /// What cannot be modified is deleted and added again.
    #[cold]
    fn replace(&self, mask: u32) -> Result<(), Errno> {
        self.detach();
        sys::epoll_ctl_add(self.epoll.as_fd(), self.fd(), mask, self.token.0)?;
        self.modifiable.store(!self.is_exclusive(), Ordering::Relaxed);
        self.registered.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    fn modify(&self, mask: u32) -> Result<(), Errno> {
        sys::epoll_ctl_mod(self.epoll.as_fd(), self.fd(), mask, self.token.0)
    }
}

/// What an armed listener is registered for.
#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
const fn mask(trigger: Trigger) -> u32 {
    let events = match trigger {
        Trigger::Level => libc::EPOLLIN | libc::EPOLLRDHUP,
        Trigger::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
        // Nothing else may stand beside it. Whatever shuts a listener shows as EPOLLIN or EPOLLHUP as well.
        Trigger::Exclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
    };
    events as u32
}

impl<L: Listener> Backend for EpollBackend<L> {
    type Stream = OwnedFd;

    fn accept(&self) -> Result<OwnedFd, Errno> {
        sys::accept4(self.fd(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
    }

    fn accept_with_peer(&self) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (stream, address) = sys::accept4_with_peer(self.fd(), flags)?;
        Ok((stream, PeerAddr::from_bytes(address.as_bytes()).canonical().socket_addr()))
    }

    fn peer(&self, stream: &OwnedFd) -> Option<SocketAddr> {
        who::address(stream.as_fd())
    }

    fn credentials(&self, stream: &OwnedFd) -> Option<Credentials> {
        who::credentials(stream.as_fd())
    }

    fn is_in_group(&self, stream: &OwnedFd, gid: u32) -> Option<bool> {
        who::is_in_group(stream.as_fd(), gid)
    }

    fn give_up_reserve(&self) -> bool {
        self.reserve().take().is_some()
    }

    fn make_reserve(&self) -> bool {
        let mut reserve = self.reserve();
        // A file of its own: a duplicate would be of no use when the system has run out of files.
        *reserve = reserve.take().or_else(|| sys::eventfd().ok());
        reserve.is_some()
    }

    fn refuse(&self, stream: OwnedFd, refusal: &Refusal) {
        let fd = stream.as_fd();
        // A failure of any of these leaves a plain close, which is a refusal as well.
        if let Some(before) = self.barred.get() {
            // A barred end would not hear that the client has heard.
            let _ = before.set(fd);
        }
        match refusal {
            Refusal::Reset => {
                let _ = sys::set_linger(fd, Some(0));
            }
            Refusal::Message(words) => {
                hear_out(fd);
                let _ = sys::send(fd, words);
                let _ = sys::set_linger(fd, None);
            }
            Refusal::Close => {
                hear_out(fd);
                // The listener's SO_LINGER is inherited, and would make this close wait for a silent peer.
                let _ = sys::set_linger(fd, None);
            }
        }
    }

    fn depth(&self) -> Option<u32> {
        sys::tcp_info(self.fd()).ok().filter(|info| info.state == sys::TCP_LISTEN).map(|info| info.unacked)
    }

    fn peek(&self) -> Peek {
        const GONE: i16 = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL | libc::POLLRDHUP;
        let seen = loop {
            match sys::poll(self.fd(), libc::POLLIN | libc::POLLRDHUP) {
                // Even a look that does not wait is interrupted by a signal, if it has nothing to show.
                Err(errno) if errno.number() == libc::EINTR => {}
                seen => break seen,
            }
        };
        match seen {
            // A look that fails for want of memory shows nothing: to accept will tell.
            Err(_) => Peek::Waiting,
            Ok(seen) if seen & GONE != 0 && seen & libc::POLLIN != 0 => Peek::ShutQueued,
            Ok(seen) if seen & GONE != 0 => Peek::Shut,
            Ok(seen) if seen & libc::POLLIN != 0 => Peek::Waiting,
            Ok(_) => Peek::Empty,
        }
    }

    fn age(&self, stream: &OwnedFd) -> Option<Duration> {
        let info = sys::tcp_info(stream.as_fd()).ok()?;
        Some(Duration::from_millis(u64::from(info.last_data_sent_ms)))
    }

    #[inline]
    fn arm(&self) -> Result<(), Errno> {
        if !self.modifiable.load(Ordering::Relaxed) {
            return self.replace(self.armed);
        }
        match self.modify(self.armed) {
            // Deleted by someone behind our back.
            Err(errno) if errno.number() == libc::ENOENT => self.replace(self.armed),
            other => other,
        }
    }

    fn disarm(&self) -> Result<(), Errno> {
        if self.is_exclusive() { self.replace(0) } else { self.modify(0) }
    }

    fn detach(&self) {
        // Whoever asks for this runs passes, and so owns the registration, in whichever process.
        self.modifiable.store(false, Ordering::Relaxed);
        if self.registered.swap(false, Ordering::Relaxed) {
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.fd());
        }
    }

    fn announce(&self) {
        // On a socket that does not listen it would leave a mark that its later children inherit.
        if sys::is_listening(self.fd()) {
            let _ = sys::shutdown_write(self.fd());
        }
    }

    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    fn alarm(&self, after: Option<Duration>) {
        // Fails for no value that a Duration of milliseconds can take.
        let _ = sys::timerfd_set(self.timer.as_fd(), after);
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn ringer(&self) -> Box<dyn Ring> {
        Box::new(EventBell(Arc::clone(&self.bell)))
    }
}

/// Reads what the client has sent, and throws it away: to close with bytes unread is to reset.
fn hear_out(fd: BorrowedFd<'_>) {
    let mut buffer = [0; POLITE_READ];
    for _ in 0..POLITE_READS_MAX {
        // Not before nothing is left: less than was asked for may be one message of several.
        if !matches!(sys::recv_discard(fd, &mut buffer), Ok(1..)) {
            break;
        }
    }
}

impl<L: Listener> Drop for EpollBackend<L> {
    fn drop(&mut self) {
        // Closing them would not do: a forked child, or a handle on another thread, keeps them open.
        if self.is_ours() {
            if self.listener.is_some() {
                self.detach();
            }
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.bell.as_fd());
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.timer.as_fd());
        }
    }
}

impl Ring for EventBell {
    fn ring(&self) {
        // Full after 2^64 - 2 rings, and nobody reads it: it cannot be full.
        let _ = sys::eventfd_write(self.0.as_fd());
    }
}
