//! The running kernel as a system under comparison, on loopback.
//!
//! The thread has its own descriptor table, so that the kernel allocates the same descriptor numbers as the model.
//! Descriptors of the clients and of the tests are moved to 500 and above.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};
use libc::c_int;

use crate::parity::op::{Op, Outcome, POLL_MASK, Setup, System};
use crate::parity::sys::{self, Address};
use crate::report;

/// The kernel's number of the model's descriptor 0.
const FIRST: c_int = 3;
const CLIENTS: c_int = 500;
const PORTS: c_int = 900;

/// The time limit for asynchronous effects on loopback (resets, retransmissions under load).
const TIMEOUT: Duration = Duration::from_secs(1);

/// What sequences in one thread share: a descriptor table and reserved ports.
pub(crate) struct Fixture {
    ports: BTreeMap<c_int, [Address; 2]>,
}

pub(crate) struct Real<'a> {
    fixture: &'a Fixture,
    setup: Setup,
    addresses: [Option<Address>; 2],
    kinds: BTreeMap<u32, Kind>,
    peers: Vec<Peer>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Listener(usize),
    Epoll,
    Eventfd,
    Timerfd,
    Peer(usize),
}

struct Peer {
    fd: c_int,
    listener: usize,
    /// Unique among the clients of one listener.
    address: Address,
    /// Whether the server has yet to read data, a FIN or a reset.
    unread: bool,
    /// Whether the client has closed its end; every read then returns at once.
    closed: bool,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        sys::unshare_descriptor_table();
        let reserve = |domain| {
            let socket = sys::move_up(sys::socket(domain, 0).unwrap(), PORTS);
            set_reuse_addr(socket);
            sys::bind(socket, &sys::any_address(domain)).unwrap();
            sys::local_address(socket)
        };
        let families = [(Family::Tcp4, libc::AF_INET), (Family::Tcp6, libc::AF_INET6)];
        let domains =
            families.into_iter().filter(|(family, _)| is_supported(*family)).map(|(_, domain)| domain);
        Self { ports: domains.map(|domain| (domain, [reserve(domain), reserve(domain)])).collect() }
    }
}

impl<'a> Real<'a> {
    pub(crate) fn new(fixture: &'a Fixture, setup: Setup) -> Self {
        let mut real =
            Self { fixture, setup, addresses: [None, None], kinds: BTreeMap::new(), peers: Vec::new() };
        for index in 0..2 {
            let fd = real.listener(index);
            real.insert_descriptor(fd, Kind::Listener(index));
        }
        for (open, kind) in [
            (sys::epoll_create as fn() -> c_int, Kind::Epoll),
            (sys::epoll_create, Kind::Epoll),
            (sys::eventfd, Kind::Eventfd),
            (sys::timerfd, Kind::Timerfd),
        ] {
            real.insert_descriptor(open(), kind);
        }
        real
    }

    fn listener(&mut self, index: usize) -> c_int {
        let family = self.setup.families[index];
        let fd = sys::socket(domain(family), protocol(family)).unwrap();
        match self.fixture.ports.get(&domain(family)) {
            Some(ports) => {
                set_reuse_addr(fd);
                sys::bind(fd, &ports[index]).unwrap();
            }
            None => sys::bind(fd, &sys::any_address(libc::AF_UNIX)).unwrap(),
        }
        if self.setup.deferred {
            sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &100 as &c_int);
        }
        sys::listen(fd, self.setup.backlog).unwrap();
        self.addresses[index] = Some(sys::local_address(fd));
        fd
    }

    fn insert_descriptor(&mut self, fd: c_int, kind: Kind) -> u32 {
        let number = u32::try_from(fd - FIRST).unwrap();
        self.kinds.insert(number, kind);
        number
    }

    fn descriptor_of(&self, kind: Kind) -> Option<c_int> {
        self.kinds.iter().find(|(_, other)| **other == kind).map(|(number, _)| real(*number))
    }

    fn kind(&self, number: u32) -> Option<Kind> {
        self.kinds.get(&number).copied()
    }

    fn is_listener(&self, number: u32) -> bool {
        matches!(self.kind(number), Some(Kind::Listener(_)))
    }

    fn connect(&mut self, index: usize) -> Outcome {
        let family = self.setup.families[index];
        let plain = family == Family::Mptcp && !(self.setup.mptcp_clients && self.peers.len() % 2 == 0);
        let protocol = if plain { 0 } else { protocol(family) };
        let fd = sys::move_up(sys::socket(domain(family), protocol).unwrap(), CLIENTS);
        if family == Family::Unix {
            sys::bind(fd, &sys::any_address(libc::AF_UNIX)).unwrap();
        } else {
            let reset_on_close = libc::linger { l_onoff: 1, l_linger: 0 };
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &reset_on_close);
            sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1 as &c_int);
        }
        let depth = self.depth_at(index);
        let outcome = match sys::connect(fd, self.addresses[index].as_ref().unwrap()) {
            Ok(()) => Outcome::Done,
            Err(libc::EINPROGRESS) => self.outcome_of_handshake(fd, index, depth),
            Err(libc::ECONNREFUSED) => Outcome::Refused,
            Err(libc::EAGAIN) => Outcome::Again,
            Err(errno) => Outcome::Errno(errno),
        };
        if outcome != Outcome::Done {
            sys::close(fd).unwrap();
            return outcome;
        }
        self.peers.push(Peer {
            fd,
            listener: index,
            address: sys::local_address(fd),
            unread: false,
            closed: false,
        });
        Outcome::Peer(self.peers.len() - 1)
    }

    /// Determines the outcome after `EINPROGRESS`. On loopback the handshake completes within connect, except under
    /// load.
    fn outcome_of_handshake(&self, fd: c_int, index: usize, before: Option<(u32, u32)>) -> Outcome {
        let full = before.is_some_and(|(depth, backlog)| depth > backlog);
        let decided = || match sys::take_error(fd) {
            libc::ECONNREFUSED => Some(Outcome::Refused),
            0 => {
                let queued = self.depth_at(index).map(|(depth, _)| depth) > before.map(|(depth, _)| depth);
                let established = || sys::tcp_info(fd).unwrap().0 == sys::ESTABLISHED;
                (queued || self.setup.deferred && established()).then_some(Outcome::Done)
            }
            errno => Some(Outcome::Errno(errno)),
        };
        if full {
            return decided().unwrap_or(Outcome::Dropped);
        }
        retry_for(TIMEOUT, decided).unwrap_or(Outcome::Dropped)
    }

    fn depth_at(&self, index: usize) -> Option<(u32, u32)> {
        let fd = self.descriptor_of(Kind::Listener(index))?;
        let (state, depth, backlog) = sys::tcp_info(fd).ok()?;
        (state == sys::LISTEN).then_some((depth, backlog))
    }

    fn accepted(&mut self, fd: u32, accepted: sys::Result<(c_int, Address)>) -> Outcome {
        let from = self.kind(fd);
        match accepted {
            Ok((fd, address)) => {
                let is_peer =
                    |peer: &Peer| Some(Kind::Listener(peer.listener)) == from && peer.address == address;
                let peer = self.peers.iter().rposition(is_peer).expect("a client of this listener");
                Outcome::Accepted { fd: self.insert_descriptor(fd, Kind::Peer(peer)), peer }
            }
            Err(errno) => Outcome::Errno(errno),
        }
    }

    fn with_client(&mut self, back: usize, ends: bool, act: impl FnOnce(&mut Peer)) -> Outcome {
        let Some(peer) = self.peers.iter_mut().rev().nth(back) else { return Outcome::Absent };
        act(peer);
        peer.unread = true;
        peer.closed |= ends;
        Outcome::Done
    }

    fn quit(&mut self, back: usize) -> Outcome {
        // A half-close: the client's later reset leaves no TIME_WAIT. Unix sockets have none, so close.
        let unix = self.peers.iter().rev().nth(back).is_some_and(|peer| peer.address.is_unix());
        if unix {
            return self.reset(back);
        }
        self.with_client(back, true, |peer| _ = sys::shutdown(peer.fd, libc::SHUT_WR))
    }

    fn reset(&mut self, back: usize) -> Outcome {
        self.with_client(back, true, |peer| {
            if peer.fd >= 0 {
                sys::close(peer.fd).unwrap();
                peer.fd = -1;
            }
        })
    }

    fn read(&mut self, back: usize) -> Outcome {
        let Some(peer) = self.peers.len().checked_sub(back + 1) else { return Outcome::Absent };
        let Some(fd) = self.descriptor_of(Kind::Peer(peer)) else { return Outcome::Absent };
        let result = || Some(sys::receive(fd)).filter(|read| *read != Err(libc::EAGAIN));
        let state = &mut self.peers[peer];
        let read = if state.unread {
            retry_for(TIMEOUT, result).unwrap_or(Err(libc::EAGAIN))
        } else {
            sys::receive(fd)
        };
        state.unread = state.closed;
        read.map_or_else(Outcome::Errno, Outcome::Bytes)
    }

    fn drop_accepted(&mut self, back: usize) -> Outcome {
        let Some(peer) = self.peers.len().checked_sub(back + 1) else { return Outcome::Absent };
        while let Some(fd) = self.descriptor_of(Kind::Peer(peer)) {
            sys::close(fd).unwrap();
            self.kinds.remove(&u32::try_from(fd - FIRST).unwrap());
        }
        Outcome::Done
    }

    fn close(&mut self, fd: u32) -> Outcome {
        self.kinds.remove(&fd);
        done(sys::close(real(fd)))
    }

    fn duplicate(&mut self, fd: u32) -> Outcome {
        match sys::dup(real(fd)) {
            Ok(new) => Outcome::Descriptor(self.insert_descriptor(new, self.kinds[&fd])),
            Err(errno) => Outcome::Errno(errno),
        }
    }

    fn duplicate_onto(&mut self, fd: u32, onto: u32) -> Outcome {
        let duplicated = sys::dup2(real(fd), real(onto));
        if duplicated.is_ok() {
            self.kinds.insert(onto, self.kinds[&fd]);
        }
        done(duplicated)
    }

    fn poll(&mut self, fd: u32) -> Outcome {
        match self.kind(fd) {
            None => Outcome::Errno(libc::EBADF),
            Some(Kind::Peer(peer)) if self.peers[peer].unread => {
                let expected = if self.peers[peer].closed { Mask::RDHUP } else { Mask::IN };
                let timeout = c_int::try_from(TIMEOUT.as_millis()).unwrap();
                sys::poll(real(fd), expected.bits(), timeout);
                Outcome::Shown(Mask::from_bits_retain(sys::poll(real(fd), POLL_MASK.bits(), 0)))
            }
            Some(_) => Outcome::Shown(Mask::from_bits_retain(sys::poll(real(fd), POLL_MASK.bits(), 0))),
        }
    }

    fn expire_timer(&mut self, fd: u32) -> Outcome {
        if self.kind(fd) != Some(Kind::Timerfd) {
            return Outcome::Absent;
        }
        sys::timerfd_set(real(fd));
        let expired =
            retry_for(TIMEOUT, || (sys::poll(real(fd), Mask::IN.bits(), 0) != 0).then_some(Outcome::Done));
        expired.expect("the timer expires")
    }
}

impl System for Real<'_> {
    fn apply(&mut self, step: u64, op: Op) -> Outcome {
        let control =
            |op, epoll, fd, mask: Mask| done(sys::epoll_ctl(real(epoll), op, real(fd), mask.bits(), step));
        match op {
            Op::Connect { listener } => self.connect(listener),
            Op::Send { peer } => self.with_client(peer, false, |peer| sys::send(peer.fd)),
            Op::Quit { peer } => self.quit(peer),
            Op::Reset { peer } => self.reset(peer),
            Op::Read { peer } => self.read(peer),
            Op::Drop { peer } => self.drop_accepted(peer),
            Op::Accept { fd } => self.accepted(fd, sys::accept(real(fd))),
            Op::AcceptWithFullTable { fd } => self.accepted(fd, sys::accept_with_full_table(real(fd))),
            Op::Wait { epoll, max } => match sys::epoll_wait(real(epoll), max, 0) {
                Ok(events) => {
                    Outcome::Events(events.into_iter().map(|(d, e)| (d, Mask::from_bits_retain(e))).collect())
                }
                Err(errno) => Outcome::Errno(errno),
            },
            Op::Add { epoll, fd, mask } => control(libc::EPOLL_CTL_ADD, epoll, fd, mask),
            Op::Modify { epoll, fd, mask } => control(libc::EPOLL_CTL_MOD, epoll, fd, mask),
            Op::Delete { epoll, fd } => control(libc::EPOLL_CTL_DEL, epoll, fd, Mask::empty()),
            Op::Listen { fd, .. } | Op::Shutdown { fd, .. } | Op::Depth { fd } if !self.is_listener(fd) => {
                Outcome::Absent
            }
            Op::Listen { fd, backlog } => done(sys::listen(real(fd), backlog)),
            Op::Shutdown { fd, how } => done(sys::shutdown(real(fd), direction(how))),
            Op::Depth { fd } => {
                let listening = sys::tcp_info(real(fd)).ok().filter(|(state, ..)| *state == sys::LISTEN);
                Outcome::Depth(listening.map(|(_, depth, _)| depth))
            }
            Op::Dup { fd } => self.duplicate(fd),
            Op::Dup2 { fd, onto } => self.duplicate_onto(fd, onto),
            Op::Close { fd } => self.close(fd),
            Op::Poll { fd } => self.poll(fd),
            Op::WriteEventfd { fd } if self.kind(fd) == Some(Kind::Eventfd) => {
                sys::write_eventfd(real(fd));
                Outcome::Done
            }
            Op::WriteEventfd { .. } => Outcome::Absent,
            Op::ExpireTimer { fd } => self.expire_timer(fd),
        }
    }
}

impl Drop for Real<'_> {
    fn drop(&mut self) {
        // Clients first, by a reset, which leaves no TIME_WAIT.
        for peer in self.peers.iter().filter(|peer| peer.fd >= 0) {
            sys::close(peer.fd).unwrap();
        }
        sys::close_between(FIRST.unsigned_abs(), CLIENTS.unsigned_abs() - 1);
    }
}

/// Returns whether this machine supports a family; reports on stderr if not.
pub(crate) fn is_supported(family: Family) -> bool {
    let bound = sys::socket(domain(family), protocol(family)).and_then(|socket| {
        let bound = sys::bind(socket, &sys::any_address(domain(family)));
        sys::close(socket).unwrap();
        bound
    });
    if let Err(errno) = bound {
        report(&format!("parity: skipped {family:?}: not supported on this machine (error {errno})"));
    }
    bound.is_ok()
}

/// Repeats `attempt` until it returns a value or the time limit is over.
pub(crate) fn retry_for<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            None if start.elapsed() < limit => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
}

pub(crate) fn real(number: u32) -> c_int {
    FIRST + c_int::try_from(number).unwrap()
}

fn set_reuse_addr(fd: c_int) {
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1 as &c_int);
}

fn done(result: sys::Result<()>) -> Outcome {
    result.map_or_else(Outcome::Errno, |()| Outcome::Done)
}

fn domain(family: Family) -> c_int {
    match family {
        Family::Tcp4 | Family::Mptcp => libc::AF_INET,
        Family::Tcp6 => libc::AF_INET6,
        Family::Unix => libc::AF_UNIX,
    }
}

fn protocol(family: Family) -> c_int {
    if family == Family::Mptcp { libc::IPPROTO_MPTCP } else { 0 }
}

fn direction(how: Shut) -> c_int {
    match (how.contains(Shut::RD), how.contains(Shut::WR)) {
        (true, true) => libc::SHUT_RDWR,
        (true, false) => libc::SHUT_RD,
        _ => libc::SHUT_WR,
    }
}
