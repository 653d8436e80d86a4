//! As more and more acceptors share one gate, all on one epoll.

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
/// While there is room an acceptor costs the others nothing.
const CLAIM: f64 = 1.05;

/// The gate is never full: each connection comes to the next acceptor in turn. By comparison with as many acceptors
/// that have a gate each, so that it shows the gate; and with one acceptor, which shows the listeners as well.
pub(crate) fn with_room(report: &mut Report) {
    let axis = Axis { name: "one gate, with room", of: "acceptors", base: "a gate each", per: "connection" };
    each(report, axis, Some(CLAIM), Hall::lone, |acceptors| {
        [Hall::new(&Gate::new(ROOM), acceptors, true), Hall::new(&Gate::new(ROOM), acceptors, false)]
    });
    let axis = Axis { name: "listeners, one gate", of: "acceptors", base: "1 acceptor", per: "connection" };
    each(report, axis, None, Hall::lone, |acceptors| {
        [1, acceptors].map(|acceptors| Hall::new(&Gate::new(ROOM), acceptors, false))
    });
}

/// The gate has one place, and somebody waits at every acceptor: each place that is given back is handed to the first in
/// line, and nobody else is woken.
pub(crate) fn full(report: &mut Report) {
    let axis = Axis { name: "one gate, full", of: "acceptors", base: "1 acceptor", per: "connection" };
    each(report, axis, None, Hall::handed_over, |acceptors| {
        [1, acceptors].map(|acceptors| Hall::new(&Gate::new(1), acceptors, false))
    });
}

const ROOM: u32 = 1_000_000;

fn each(
    report: &mut Report,
    axis: Axis,
    claim: Option<f64>,
    once: fn(&mut Hall) -> f64,
    halls: impl Fn(usize) -> [Hall; 2],
) {
    report.axis(axis);
    let points = if report.args.quick { &POINTS[..4] } else { &POINTS[..] };
    for &point in points {
        let [mut base, mut other] = halls(point);
        let ratio = abba(report.blocks(), |side| {
            let hall = if side == Side::Base { &mut base } else { &mut other };
            let mut costs: Vec<f64> = (0..128).map(|_| once(hall)).collect();
            median(&mut costs)
        });
        report.point(axis, point, ratio, claim);
    }
}

/// Several listeners, one gate, one epoll, one thread.
struct Hall {
    epoll: Epoll,
    events: Events,
    acceptors: Vec<EpollAcceptor<TcpListener, LevelTriggered, Gate>>,
    addresses: Vec<SocketAddr>,
    waiting: Vec<Vec<TcpStream>>,
    inside: Vec<(usize, Connection<TcpStream>)>,
    next: usize,
}

impl Hall {
    fn new(gate: &Gate, acceptors: usize, apart: bool) -> Self {
        let epoll = Epoll::new().expect("an epoll");
        let listeners: Vec<TcpListener> = (0..acceptors).map(|_| net::listen()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect();
        let register = |(listener, token)| {
            let own = if apart { &Gate::new(ROOM) } else { gate };
            LevelTriggered::on(listener).gate(own).register(&epoll, Token(token)).expect("a registration")
        };
        let mut hall = Self {
            acceptors: listeners.into_iter().zip(0..).map(register).collect(),
            epoll,
            events: Events::with_capacity(128).expect("a buffer"),
            addresses,
            waiting: (0..acceptors).map(|_| Vec::new()).collect(),
            inside: Vec::with_capacity(4),
            next: 0,
        };
        if gate.limit() == 1 {
            hall.crowd();
        } else {
            for _ in 0..30 * acceptors {
                hall.lone();
            }
        }
        hall
    }

    /// One connection, at the next acceptor: nanoseconds from the wait until it is taken.
    fn lone(&mut self) -> f64 {
        self.next = (self.next + 1) % self.acceptors.len();
        let client = net::connect(&self.addresses[self.next]);
        let start = Instant::now();
        self.turn();
        let spent = start.elapsed();
        assert_eq!(self.inside.len(), 1);
        drop(client);
        self.inside.clear();
        spent.as_nanos() as f64
    }

    /// Somebody waits everywhere, one is inside, and every acceptor is asleep.
    fn crowd(&mut self) {
        for acceptor in 0..self.acceptors.len() {
            self.queue(acceptor);
            self.queue(acceptor);
        }
        while self.inside.is_empty() || self.acceptors.iter().any(|acceptor| acceptor.state() != State::Full)
        {
            self.turn();
        }
    }

    fn queue(&mut self, acceptor: usize) {
        let client = net::connect(&self.addresses[acceptor]);
        self.waiting[acceptor].push(client);
    }

    /// The one that is inside leaves: nanoseconds until the next one is in and every acceptor is asleep again.
    fn handed_over(&mut self) -> f64 {
        let (from, connection) = self.inside.pop().expect("one inside");
        self.waiting[from].remove(0);
        self.queue(from);
        let start = Instant::now();
        drop(connection);
        while self.inside.is_empty() || self.acceptors.iter().any(|acceptor| acceptor.state() != State::Full)
        {
            self.turn();
        }
        let spent = start.elapsed();
        assert_eq!(self.inside.len(), 1);
        spent.as_nanos() as f64
    }

    fn turn(&mut self) {
        self.epoll.wait(&mut self.events, None).expect("a wait");
        for event in &mut self.events {
            let at = usize::try_from(event.token().0).expect("a small number");
            for connection in self.acceptors[at].ready() {
                self.inside.push((at, connection.expect("a listener that listens")));
            }
        }
    }
}
