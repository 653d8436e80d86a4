//! The model's side.

use epoll_acceptor::Errno;
use epoll_acceptor::sim::kernel::{Address, ConnId, ConnectError, Fd, Kernel, Rules, Shut};

use crate::op::{ASKED, Op, Outcome, Setup, World};

pub(crate) struct Model<R: Rules> {
    pub(crate) kernel: Kernel<R>,
    addresses: [Address; 2],
    peers: Vec<ConnId>,
    deferred: bool,
    /// A listener was shut for writing while it did not listen, so its connections may be born shut.
    marked: bool,
}

impl<R: Rules> Model<R> {
    pub(crate) fn new(rules: R, setup: Setup) -> Self {
        let mut kernel = Kernel::with_rules(rules);
        let listeners = setup.families.map(|family| kernel.listener(family, setup.backlog).unwrap());
        let addresses = listeners.map(|listener| kernel.address(listener).unwrap());
        kernel.epoll().unwrap();
        kernel.epoll().unwrap();
        kernel.ring().unwrap();
        kernel.alarm().unwrap();
        Self { kernel, addresses, peers: Vec::new(), deferred: setup.deferred, marked: false }
    }

    /// Whether the model knows what comes of this call. A connection that was born shut for writing sends its
    /// end at once, and calls its registrations when the client acknowledges that, which is a matter of time.
    pub(crate) fn is_certain(&self, op: Op) -> bool {
        match op {
            Op::Add { fd, .. } => !self.marked || self.kernel.address(Fd(fd)).is_ok(),
            _ => true,
        }
    }

    fn shutdown(&mut self, fd: u32, how: Shut) -> Outcome {
        if self.kernel.address(Fd(fd)).is_err() {
            return Outcome::Absent;
        }
        let outcome = done(self.kernel.shutdown(Fd(fd), how));
        self.marked |= outcome == Outcome::Errno(libc::ENOTCONN) && how.contains(Shut::WR);
        outcome
    }

    fn of_peer(&mut self, back: usize, act: impl FnOnce(&mut Kernel<R>, ConnId) -> Outcome) -> Outcome {
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

impl<R: Rules> World for Model<R> {
    fn apply(&mut self, step: u64, op: Op) -> Outcome {
        let kernel = &mut self.kernel;
        match op {
            Op::Connect { listener } => self.connect(listener),
            Op::Send { peer } => self.of_peer(peer, |kernel, peer| {
                kernel.send(peer, 3);
                Outcome::Done
            }),
            Op::Quit { peer } => self.of_peer(peer, |kernel, peer| {
                kernel.quit(peer);
                Outcome::Done
            }),
            Op::Reset { peer } => self.of_peer(peer, |kernel, peer| {
                kernel.reset(peer);
                Outcome::Done
            }),
            Op::Read { peer } => self.of_peer(peer, |kernel, peer| match kernel.descriptor(peer) {
                Some(_) => result(kernel.read(peer), Outcome::Bytes),
                None => Outcome::Absent,
            }),
            Op::Drop { peer } => self.of_peer(peer, |kernel, peer| {
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
            Op::Poll { fd } => result(kernel.poll(Fd(fd), ASKED), Outcome::Shown),
            Op::Depth { fd } => match kernel.address(Fd(fd)) {
                Ok(_) => Outcome::Depth(kernel.depth(Fd(fd))),
                Err(_) => Outcome::Absent,
            },
            Op::Ring { fd } => kernel.write_ring(Fd(fd)).map_or(Outcome::Absent, |()| Outcome::Done),
            Op::Alarm { fd } => match kernel.set_alarm(Fd(fd), 1) {
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
