//! The number of acceptors that share one gate, all on one epoll.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use epoll_acceptor::{
    Acceptor, Connection, Epoll, EpollAcceptor, Events, Gate, LevelTriggered, State, Token,
};

use crate::engines::abba::{Side, abba};
use crate::engines::net;
use crate::engines::stats::median;
use crate::report::{Axis, Report};

const POINTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// While the gate is not full, an acceptor costs the others nothing.
const BOUND: f64 = 1.05;

/// The gate is never full; each connection arrives at the next acceptor in turn. Compared with as many acceptors with a
/// gate each, which shows the cost of the gate; and with one acceptor, which includes the cost of the listeners.
pub(crate) fn not_full(report: &mut Report) {
    let axis = Axis { name: "one gate, with room", of: "acceptors", base: "a gate each", per: "connection" };
    each(report, axis, Some(BOUND), SharedGate::lone, |acceptors| {
        [
            SharedGate::new(&Gate::new(NEVER_FULL), acceptors, true),
            SharedGate::new(&Gate::new(NEVER_FULL), acceptors, false),
        ]
    });
    let axis = Axis { name: "listeners, one gate", of: "acceptors", base: "1 acceptor", per: "connection" };
    each(report, axis, None, SharedGate::lone, |acceptors| {
        [1, acceptors].map(|acceptors| SharedGate::new(&Gate::new(NEVER_FULL), acceptors, false))
    });
}

/// The gate has one permit, and connections are pending at every acceptor: a released permit is handed to the first
/// acceptor in the wait queue, and no other acceptor is woken.
pub(crate) fn full(report: &mut Report) {
    let axis = Axis { name: "one gate, full", of: "acceptors", base: "1 acceptor", per: "connection" };
    each(report, axis, None, SharedGate::handed_over, |acceptors| {
        [1, acceptors].map(|acceptors| SharedGate::new(&Gate::new(1), acceptors, false))
    });
}

const NEVER_FULL: u32 = 1_000_000;

fn each(
    report: &mut Report,
    axis: Axis,
    claim: Option<f64>,
    once: fn(&mut SharedGate) -> f64,
    pairs: impl Fn(usize) -> [SharedGate; 2],
) {
    report.axis(axis);
    let points = if report.args.quick { &POINTS[..4] } else { &POINTS[..] };
    for &point in points {
        let [mut base, mut other] = pairs(point);
        let ratio = abba(report.blocks(), |side| {
            let shared = if side == Side::Base { &mut base } else { &mut other };
            let mut costs: Vec<f64> = (0..128).map(|_| once(shared)).collect();
            median(&mut costs)
        });
        report.point(axis, point, ratio, claim);
    }
}

/// Several listeners, one gate, one epoll, one thread.
struct SharedGate {
    epoll: Epoll,
    events: Events,
    acceptors: Vec<EpollAcceptor<TcpListener>>,
    addresses: Vec<SocketAddr>,
    clients: Vec<Vec<TcpStream>>,
    in_service: Vec<(usize, Connection<TcpStream>)>,
    next: usize,
}

impl SharedGate {
    fn new(gate: &Gate, acceptors: usize, apart: bool) -> Self {
        let epoll = Epoll::new().expect("an epoll");
        let listeners: Vec<TcpListener> = (0..acceptors).map(|_| net::listen()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect();
        let register = |(listener, token)| {
            let own = if apart { &Gate::new(NEVER_FULL) } else { gate };
            LevelTriggered::on(listener).gate(own).register(&epoll, Token(token)).expect("a registration")
        };
        let mut shared = Self {
            acceptors: listeners.into_iter().zip(0..).map(register).collect(),
            epoll,
            events: Events::with_capacity(128).expect("a buffer"),
            addresses,
            clients: (0..acceptors).map(|_| Vec::new()).collect(),
            in_service: Vec::with_capacity(4),
            next: 0,
        };
        if gate.limit() == 1 {
            shared.fill();
        } else {
            for _ in 0..30 * acceptors {
                shared.lone();
            }
        }
        shared
    }

    /// Connects to the next acceptor. Returns the nanoseconds from the wait until the connection is accepted.
    fn lone(&mut self) -> f64 {
        self.next = (self.next + 1) % self.acceptors.len();
        let client = net::connect(&self.addresses[self.next]);
        let start = Instant::now();
        self.wait_and_pass();
        let spent = start.elapsed();
        assert_eq!(self.in_service.len(), 1);
        drop(client);
        self.in_service.clear();
        spent.as_nanos() as f64
    }

    /// Fills the gate: one connection is in service, connections are pending at every acceptor, and all of them are blocked.
    fn fill(&mut self) {
        for acceptor in 0..self.acceptors.len() {
            self.queue(acceptor);
            self.queue(acceptor);
        }
        while self.in_service.is_empty()
            || self.acceptors.iter().any(|acceptor| acceptor.state() != State::Full)
        {
            self.wait_and_pass();
        }
    }

    fn queue(&mut self, acceptor: usize) {
        let client = net::connect(&self.addresses[acceptor]);
        self.clients[acceptor].push(client);
    }

    /// Closes the connection in service. Returns the nanoseconds until the next one is accepted and every acceptor is blocked
    /// again.
    fn handed_over(&mut self) -> f64 {
        let (from, connection) = self.in_service.pop().expect("one connection in service");
        self.clients[from].remove(0);
        self.queue(from);
        let start = Instant::now();
        drop(connection);
        while self.in_service.is_empty()
            || self.acceptors.iter().any(|acceptor| acceptor.state() != State::Full)
        {
            self.wait_and_pass();
        }
        let spent = start.elapsed();
        assert_eq!(self.in_service.len(), 1);
        spent.as_nanos() as f64
    }

    fn wait_and_pass(&mut self) {
        self.epoll.wait(&mut self.events, None).expect("a wait");
        for event in &mut self.events {
            let at = usize::try_from(event.token().0).expect("a small number");
            for connection in self.acceptors[at].ready() {
                self.in_service.push((at, connection.expect("a listener that listens")));
            }
        }
    }
}
