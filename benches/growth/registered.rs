//! The number of other connections on the epoll, all of them idle.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use epoll_acceptor::{Epoll, Gate, Interest, LevelTriggered, Token};

use crate::engines::abba::{Side, abba};
use crate::engines::stats::median;
use crate::engines::{Engine, Ours, net};
use crate::report::{Axis, Report};

const POINTS: [usize; 4] = [0, 100, 1_000, 10_000];
const BURSTS: [(usize, &str); 2] = [(1, "registered, lone"), (32, "registered, bursts of 32")];
const BOUND: f64 = 1.05;
/// Descriptors for the bursts and everything else.
const SPARE: usize = 200;

pub(crate) fn run(report: &mut Report, descriptors: usize) {
    // Both ends of each connection are registered. The last point is the limit of this process.
    let most = descriptors.saturating_sub(SPARE) & !1;
    let quick = report.args.quick;
    let points = POINTS.into_iter().filter(|point| *point < most && (!quick || *point <= 1_000));
    let points: Vec<usize> = points.chain((!quick).then_some(most)).collect();
    for (burst, name) in BURSTS {
        let axis = Axis { name, of: "registered", base: "none", per: "connection" };
        report.axis(axis);
        for &point in &points {
            // They are open on both sides of the comparison, which so shows the cost of the epoll alone.
            let idle = idle(point);
            let (mut base, mut other) = (Loop::new(burst), Loop::new(burst));
            register(&other.ours.epoll, &idle);
            let ratio = abba(report.blocks(), |side| match side {
                Side::Base => base.cost(),
                Side::Point => other.cost(),
            });
            report.point(axis, point, ratio, Some(BOUND));
        }
    }
}

/// Returns `count` ends of idle connections.
fn idle(count: usize) -> Vec<TcpStream> {
    let listener = net::listen();
    let address = listener.local_addr().expect("an address");
    let pair = || [net::connect(&address), net::reset_on_close(listener.accept().expect("a connection").0)];
    (0..count / 2).flat_map(|_| pair()).collect()
}

fn register(epoll: &Epoll, streams: &[TcpStream]) {
    for (stream, token) in streams.iter().zip(1..) {
        epoll.add(stream, Token(token), Interest::IN | Interest::RDHUP).expect("a registration");
    }
}

struct Loop {
    ours: Ours<TcpListener>,
    address: SocketAddr,
    burst: usize,
}

impl Loop {
    fn new(burst: usize) -> Self {
        let listener = net::listen();
        let address = listener.local_addr().expect("an address");
        let builder = LevelTriggered::on(listener).gate(&Gate::new(1_000_000));
        let mut new = Self { ours: Ours::new(builder, burst), address, burst };
        for _ in 0..30 {
            new.once();
        }
        new
    }

    fn cost(&mut self) -> f64 {
        let mut costs: Vec<f64> = (0..1024 / self.burst.max(8)).map(|_| self.once()).collect();
        median(&mut costs)
    }

    fn once(&mut self) -> f64 {
        let clients: Vec<_> = (0..self.burst).map(|_| net::connect(&self.address)).collect();
        let start = Instant::now();
        self.ours.take(self.burst);
        let spent = start.elapsed();
        drop(clients);
        self.ours.close();
        spent.as_nanos() as f64 / self.burst as f64
    }
}
