//! The real kernel behind the core: one listener on one epoll, with a waker and an alarm under its token.
#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "public behind `sim`"))]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::listener::Listener;
use super::min_ttl::MinTtl;
use super::peer::PeerAddr;
use super::sys::listen::timerfd_is_pending;
use super::sys::{RawAddress, TcpInfo, options};
use super::token::Token;
use super::{peer_info, sys};
use crate::admission::clock::{Clock, Monotonic};
use crate::admission::connection_info::Credentials;
use crate::admission::notifier::Wake;
use crate::admission::refusal::Refusal;
use crate::drain::backend::{Backend, Peek};
use crate::drain::errno::Errno;
use crate::drain::shutdown::Intake;
use crate::drain::trigger::Trigger;

/// A listener registered on an epoll.
///
/// The three descriptors besides the listener are opened when it is registered, so that they exist when descriptors run
/// out: a duplicate of the epoll, an eventfd as waker and a timerfd as alarm. The latter two are edge-triggered and
/// never read: every write and every expiry is an edge.
///
/// Public behind `sim`, to replay a script on the real kernel; not covered by semantic versioning.
#[derive(Debug)]
pub struct EpollBackend<L: Listener> {
    /// Invariant: present until the listener is taken out, after which only the destructor runs.
    listener: Option<L>,
    epoll: OwnedFd,
    waker: Arc<OwnedFd>,
    timer: OwnedFd,
    /// The reserve descriptor, for when descriptors run out; `None` unless configured.
    reserve: Mutex<Option<OwnedFd>>,
    /// The listener's minimum TTL when it was registered.
    min_ttl: Option<MinTtl>,
    /// Its minimum TTL before the intake was closed; accepted connections get it back.
    min_ttl_before: OnceLock<MinTtl>,
    accept_flags: i32,
    token: Token,
    armed: u32,
    registered: AtomicBool,
    /// The armed mask can be set by `EPOLL_CTL_MOD`.
    modifiable: AtomicBool,
    /// A forked child shares the epoll: if it deregistered, the parent would get no more events.
    process: u32,
}

/// The step at which a registration failed.
#[derive(Debug)]
pub enum NotRegistered {
    /// Opening the descriptors that go with it.
    Open(io::Error),
    /// Adding them and the listener to the epoll.
    Add(Errno),
}

/// The eventfd that wakes the owner.
#[derive(Debug)]
struct EventFdWaker(Arc<OwnedFd>);

#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;
/// A refusal reads and discards what the client has sent, so that the close does not reset: this many bytes at a time,
/// at most this many times.
const DISCARD_CHUNK: usize = 4096;
const DISCARDS_MAX: u32 = 16;

impl<L: Listener> EpollBackend<L> {
    /// Registers a listener. A failure returns it unregistered.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn register(
        epoll: BorrowedFd<'_>,
        listener: L,
        token: Token,
        trigger: Trigger,
    ) -> Result<Self, (NotRegistered, L)> {
        let opened =
            (|| -> io::Result<_> { Ok((epoll.try_clone_to_owned()?, sys::eventfd()?, sys::timerfd()?)) })();
        let (epoll, waker, timer) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err((NotRegistered::Open(error), listener)),
        };
        let mut backend = Self {
            min_ttl: MinTtl::of(listener.as_fd()),
            listener: Some(listener),
            epoll,
            waker: Arc::new(waker),
            timer,
            reserve: Mutex::new(None),
            min_ttl_before: OnceLock::new(),
            accept_flags: libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            token,
            armed: mask(trigger),
            registered: AtomicBool::new(false),
            modifiable: AtomicBool::new(false),
            process: std::process::id(),
        };
        match backend.add_all() {
            Ok(()) => Ok(backend),
            Err(errno) => {
                let listener = backend.listener.take();
                drop(backend);
                Err((
                    NotRegistered::Add(errno),
                    listener.expect("the listener is present until it is taken out"),
                ))
            }
        }
    }

    /// Takes the listener out, its queue intact. Only the destructor may run after that.
    pub(super) fn take_listener(&mut self) -> Option<L> {
        self.listener.take()
    }

    /// Accepts streams in blocking mode from now on.
    pub(crate) const fn accept_blocking(&mut self) {
        self.accept_flags = libc::SOCK_CLOEXEC;
    }

    pub(super) fn listener(&self) -> &L {
        self.listener.as_ref().expect("the listener is present until it is taken out")
    }

    #[cfg(feature = "group")]
    pub(super) fn listener_mut(&mut self) -> &mut L {
        self.listener.as_mut().expect("the listener is present until it is taken out")
    }

    fn add_all(&self) -> Result<(), Errno> {
        // The listener comes last and is unchanged until all else is added: once it is armed, the owner may be woken.
        sys::epoll_ctl_add(self.epoll.as_fd(), self.waker.as_fd(), EDGE, self.token.0)?;
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

    /// Deletes the registration and adds it again: an exclusive one cannot be modified (K15).
    #[cold]
    fn replace(&self, mask: u32) -> Result<(), Errno> {
        self.remove();
        sys::epoll_ctl_add(self.epoll.as_fd(), self.fd(), mask, self.token.0)?;
        self.modifiable.store(!self.is_exclusive(), Ordering::Relaxed);
        self.registered.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    fn modify(&self, mask: u32) -> Result<(), Errno> {
        sys::epoll_ctl_mod(self.epoll.as_fd(), self.fd(), mask, self.token.0)
    }

    /// Restores the minimum TTL of an accepted connection to what it was before the intake was closed.
    fn restore_min_ttl(&self, stream: BorrowedFd<'_>) {
        if let Some(before) = self.min_ttl_before.get() {
            let _ = before.set(stream);
        }
    }
}

#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
const fn mask(trigger: Trigger) -> u32 {
    let events = match trigger {
        Trigger::Level => libc::EPOLLIN | libc::EPOLLRDHUP,
        Trigger::Edge => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET,
        // EPOLLEXCLUSIVE excludes EPOLLRDHUP. A shutdown of the listener shows as EPOLLIN or EPOLLHUP, too.
        Trigger::Exclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
    };
    events as u32
}

impl<L: Listener> Backend for EpollBackend<L> {
    type Stream = OwnedFd;

    #[inline]
    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<OwnedFd, Errno> {
        let stream = match peer {
            None => sys::accept4(self.fd(), self.accept_flags)?,
            Some(peer) => {
                let mut address = RawAddress::new();
                let stream = sys::accept4_with_peer(self.fd(), self.accept_flags, &mut address)?;
                *peer = PeerAddr::from_bytes(address.as_bytes()).canonical().socket_addr();
                stream
            }
        };
        self.restore_min_ttl(stream.as_fd());
        Ok(stream)
    }

    fn refuse(&self, stream: OwnedFd, refusal: &Refusal) {
        let fd = stream.as_fd();
        // If any of these calls fails, a plain close remains, which refuses as well.
        match refusal {
            Refusal::Reset => {
                let _ = sys::set_linger(fd, Some(0));
            }
            Refusal::Message(bytes) => {
                discard_input(fd);
                let _ = sys::send(fd, bytes);
                let _ = sys::set_linger(fd, None);
            }
            Refusal::Close => {
                discard_input(fd);
                // The listener's SO_LINGER is inherited, and would make this close wait for a silent peer.
                let _ = sys::set_linger(fd, None);
            }
        }
    }

    fn queue_length(&self) -> Option<u32> {
        sys::tcp_info(self.fd()).ok().filter(TcpInfo::reports_queue).map(|info| info.unacked)
    }

    fn peek(&self) -> Peek {
        const CLOSED: i16 = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL | libc::POLLRDHUP;
        let events = loop {
            match sys::poll(self.fd(), libc::POLLIN | libc::POLLRDHUP) {
                // A signal interrupts even a poll that does not wait, if it has nothing to report.
                Err(errno) if errno.number() == libc::EINTR => {}
                events => break events,
            }
        };
        match events {
            Err(_) => Peek::Pending,
            Ok(events) if events & CLOSED != 0 && events & libc::POLLIN != 0 => Peek::ClosedPending,
            Ok(events) if events & CLOSED != 0 => Peek::Closed,
            Ok(events) if events & libc::POLLIN != 0 => Peek::Pending,
            Ok(_) => Peek::Empty,
        }
    }

    fn peer(&self, stream: &OwnedFd) -> Option<SocketAddr> {
        peer_info::address(stream.as_fd())
    }

    fn queue_time(&self, stream: &OwnedFd) -> Option<Duration> {
        let info = sys::tcp_info(stream.as_fd()).ok().filter(TcpInfo::reports_times)?;
        Some(Duration::from_millis(u64::from(info.last_data_sent_ms)))
    }

    fn credentials(&self, stream: &OwnedFd) -> Option<Credentials> {
        peer_info::credentials(stream.as_fd())
    }

    fn is_in_group(&self, stream: &OwnedFd, gid: u32) -> Option<bool> {
        peer_info::is_in_group(stream.as_fd(), gid)
    }

    fn stream_fd<'a>(&self, stream: &'a OwnedFd) -> Option<BorrowedFd<'a>> {
        Some(stream.as_fd())
    }

    #[inline]
    fn arm(&self) -> Result<(), Errno> {
        if self.modifiable.load(Ordering::Relaxed) {
            match self.modify(self.armed) {
                // Another owner of the epoll has deleted it.
                Err(errno) if errno.number() == libc::ENOENT => {}
                result => return result,
            }
        }
        self.replace(self.armed)
    }

    fn disarm(&self) -> Result<(), Errno> {
        if self.is_exclusive() { self.replace(0) } else { self.modify(0) }
    }

    fn remove(&self) {
        // The caller runs passes, and so owns the registration, whichever process it is.
        self.modifiable.store(false, Ordering::Relaxed);
        if self.registered.swap(false, Ordering::Relaxed) {
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.fd());
        }
    }

    fn rewake_other_epolls(&self) {
        // On a socket that stopped listening, this would shut down the connections of a later `listen` (K24).
        if sys::is_listening(self.fd()) {
            let _ = sys::shutdown_write(self.fd());
        }
    }

    fn is_owned_by_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        sys::timerfd_set(self.timer.as_fd(), after)
    }

    fn is_alarm_pending(&self) -> bool {
        timerfd_is_pending(self.timer.as_fd()).unwrap_or(false)
    }

    fn release_reserve(&self) -> bool {
        self.reserve().take().is_some()
    }

    fn make_reserve(&self) -> bool {
        let mut reserve = self.reserve();
        // A file of its own: a duplicate would not help when the system is out of files.
        *reserve = reserve.take().or_else(|| sys::eventfd().ok());
        reserve.is_some()
    }

    fn close_intake(&self) -> Intake {
        let fd = self.fd();
        let option = |option| options::int(fd, libc::SOL_SOCKET, option).unwrap_or(0);
        match (option(libc::SO_DOMAIN), option(libc::SO_PROTOCOL)) {
            _ if !sys::is_listening(fd) => Intake::Closed,
            (libc::AF_UNIX, _) if options::shutdown_read(fd).is_ok() => Intake::Closed,
            // Some other protocols accept a minimum TTL but ignore it.
            (libc::AF_INET | libc::AF_INET6, libc::IPPROTO_TCP) => {
                match self.min_ttl.and_then(|registered| MinTtl::raise(fd, registered)) {
                    Some(before) => {
                        let _ = self.min_ttl_before.set(before);
                        Intake::HandshakesOnly
                    }
                    None => Intake::Open,
                }
            }
            _ => Intake::Open,
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Monotonic)
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(EventFdWaker(Arc::clone(&self.waker)))
    }
}

/// Reads what the client has sent and discards it: a close with unread bytes would reset the connection.
fn discard_input(fd: BorrowedFd<'_>) {
    let mut buffer = [0; DISCARD_CHUNK];
    for _ in 0..DISCARDS_MAX {
        // Until nothing is left: a short read may be one message of several.
        if !matches!(sys::recv_discard(fd, &mut buffer), Ok(1..)) {
            break;
        }
    }
}

impl<L: Listener> Drop for EpollBackend<L> {
    fn drop(&mut self) {
        // Closing the descriptors is not enough: a forked child, or a handle on another thread, may keep them open.
        if self.is_owned_by_this_process() {
            if self.listener.is_some() {
                self.remove();
            }
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.waker.as_fd());
            let _ = sys::epoll_ctl_del(self.epoll.as_fd(), self.timer.as_fd());
        }
    }
}

impl Wake for EventFdWaker {
    fn wake(&self) {
        // An eventfd is full after 2^64 - 2 writes.
        let _ = sys::eventfd_write(self.0.as_fd());
    }
}
