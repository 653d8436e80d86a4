//! The model as a system under comparison.

use epoll_acceptor::sim::kernel::{Address, ConnId, ConnectError, Fd, Kernel, Rules, Shut};
use epoll_acceptor::socket::Errno;

use crate::parity::op::{Op, Outcome, POLL_MASK, Setup, System};

pub(crate) struct Model<R: Rules> {
    pub(crate) kernel: Kernel<R>,
    addresses: [Address; 2],
    peers: Vec<ConnId>,
    deferred: bool,
    /// Whether connections may inherit `Shut::WR`: a listener was shut down for writing while it did not listen.
    inherits_shutdown: bool,
}

impl<R: Rules> Model<R> {
    pub(crate) fn new(rules: R, setup: Setup) -> Self {
        let mut kernel = Kernel::with_rules(rules);
        let listeners = setup.families.map(|family| kernel.listener(family, setup.backlog).unwrap());
        let addresses = listeners.map(|listener| kernel.address(listener).unwrap());
        kernel.epoll().unwrap();
        kernel.epoll().unwrap();
        kernel.eventfd().unwrap();
        kernel.timerfd().unwrap();
        Self { kernel, addresses, peers: Vec::new(), deferred: setup.deferred, inherits_shutdown: false }
    }

    /// Returns whether the model predicts the result of this call. A connection that inherited `Shut::WR` sends a FIN,
    /// and wakes its registrations when the client acknowledges it, at a time that the model does not know.
    pub(crate) fn is_deterministic(&self, op: Op) -> bool {
        match op {
            Op::Add { fd, .. } => !self.inherits_shutdown || self.kernel.address(Fd(fd)).is_ok(),
            _ => true,
        }
    }

    fn shutdown(&mut self, fd: u32, how: Shut) -> Outcome {
        if self.kernel.address(Fd(fd)).is_err() {
            return Outcome::Absent;
        }
        let outcome = done(self.kernel.shutdown(Fd(fd), how));
        self.inherits_shutdown |= outcome == Outcome::Errno(libc::ENOTCONN) && how.contains(Shut::WR);
        outcome
    }

    fn with_peer(&mut self, back: usize, act: impl FnOnce(&mut Kernel<R>, ConnId) -> Outcome) -> Outcome {
        match self.peers.iter().rev().nth(back) {
            Some(peer) => act(&mut self.kernel, *peer),
            None => Outcome::Absent,
        }
    }

    fn connect(&mut self, listener: usize) -> Outcome {
        let to = self.addresses[listener];
        match if self.deferred { self.kernel.syn(to) } else { self.kernel.connect(to) } {
            Ok(peer) => {
                self.peers.push(peer);
                Outcome::Peer(self.peers.len() - 1)
            }
            Err(ConnectError::Refused) => Outcome::Refused,
            Err(ConnectError::Again) => Outcome::Again,
            Err(ConnectError::Dropped) => Outcome::Dropped,
        }
    }

    fn accept(&mut self, fd: u32) -> Outcome {
        match self.kernel.accept(Fd(fd)) {
            Ok(connection) => {
                let fd = self.kernel.descriptor(connection).unwrap().0;
                let peer = self.peers.iter().position(|peer| *peer == connection).unwrap();
                Outcome::Accepted { fd, peer }
            }
            Err(errno) => Outcome::Errno(errno.number()),
        }
    }
}

impl<R: Rules> System for Model<R> {
    fn apply(&mut self, step: u64, op: Op) -> Outcome {
        let kernel = &mut self.kernel;
        match op {
            Op::Connect { listener } => self.connect(listener),
            Op::Send { peer } => self.with_peer(peer, |kernel, peer| {
                kernel.send(peer, 3);
                Outcome::Done
            }),
            Op::Quit { peer } => self.with_peer(peer, |kernel, peer| {
                kernel.quit(peer);
                Outcome::Done
            }),
            Op::Reset { peer } => self.with_peer(peer, |kernel, peer| {
                kernel.reset(peer);
                Outcome::Done
            }),
            Op::Read { peer } => self.with_peer(peer, |kernel, peer| match kernel.descriptor(peer) {
                Some(_) => result(kernel.read(peer), Outcome::Bytes),
                None => Outcome::Absent,
            }),
            Op::Drop { peer } => self.with_peer(peer, |kernel, peer| {
                kernel.close_connection(peer);
                Outcome::Done
            }),
            Op::Accept { fd } => self.accept(fd),
            Op::AcceptWithFullTable { fd } => {
                kernel.set_descriptor_limit(0);
                let outcome = self.accept(fd);
                self.kernel.set_descriptor_limit(u32::MAX);
                outcome
            }
            Op::Wait { epoll, max } => result(kernel.wait(Fd(epoll), max), |events| {
                Outcome::Events(events.iter().map(|event| (event.data, event.events)).collect())
            }),
            Op::Add { epoll, fd, mask } => done(kernel.add(Fd(epoll), Fd(fd), mask, step)),
            Op::Modify { epoll, fd, mask } => done(kernel.modify(Fd(epoll), Fd(fd), mask, step)),
            Op::Delete { epoll, fd } => done(kernel.delete(Fd(epoll), Fd(fd))),
            Op::Listen { fd, backlog } => match kernel.address(Fd(fd)) {
                Ok(_) => done(kernel.listen(Fd(fd), backlog)),
                Err(_) => Outcome::Absent,
            },
            Op::Shutdown { fd, how } => self.shutdown(fd, how),
            Op::Dup { fd } => result(kernel.dup(Fd(fd)), |fd| Outcome::Descriptor(fd.0)),
            Op::Dup2 { fd, onto } => done(kernel.dup2(Fd(fd), Fd(onto))),
            Op::Close { fd } => done(kernel.close(Fd(fd))),
            Op::Poll { fd } => result(kernel.poll(Fd(fd), POLL_MASK), Outcome::Shown),
            Op::Depth { fd } => match kernel.address(Fd(fd)) {
                Ok(_) => Outcome::Depth(kernel.depth(Fd(fd))),
                Err(_) => Outcome::Absent,
            },
            Op::WriteEventfd { fd } => {
                kernel.write_eventfd(Fd(fd)).map_or(Outcome::Absent, |()| Outcome::Done)
            }
            Op::ExpireTimer { fd } => match kernel.set_timerfd(Fd(fd), 1) {
                Ok(()) => {
                    kernel.advance(1);
                    Outcome::Done
                }
                Err(_) => Outcome::Absent,
            },
        }
    }
}

fn done(result: Result<(), Errno>) -> Outcome {
    self::result(result, |()| Outcome::Done)
}

fn result<T>(result: Result<T, Errno>, outcome: impl FnOnce(T) -> Outcome) -> Outcome {
    result.map_or_else(|errno| Outcome::Errno(errno.number()), outcome)
}
