//! As the accept queue grows.
//!
//! Both sides of a ratio take the same number of connections, all open until the last is taken; they differ in how many
//! are queued at a time. So what grows is the queue, and not the table of descriptors nor the memory that sockets take.
//! The time is the thread's own (`CLOCK_THREAD_CPUTIME_ID`): whoever else runs meanwhile is not in it.

use std::net::{SocketAddr, TcpListener};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::engines::abba::{Side, abba};
use crate::engines::stats::median;
use crate::engines::{self, Engine, Strategy, Who, net};
use crate::report::{Axis, Report};

const BASE: usize = 64;
const POINTS: [usize; 6] = [1, 16, 64, 256, 1024, 4096];
/// How many connections one figure is of, at least.
const ALL: usize = 1024;
/// At 4096 a connection costs at most this much of what it does at 64.
const CLAIM: (usize, f64) = (4096, 1.15);

pub(crate) fn run(report: &mut Report, descriptors: usize) {
    let rows = [
        ("queue, level", Strategy::Level, Who::Gated),
        ("queue, edge", Strategy::Edge, Who::Gated),
        ("queue, level by hand", Strategy::Level, Who::ByHand),
    ];
    let most = if report.args.quick { 1024 } else { descriptors.saturating_sub(64) / 2 };
    let points: Vec<usize> = POINTS.into_iter().filter(|point| *point <= most).collect();
    let longest = *points.last().expect("a point");
    for (name, strategy, who) in rows {
        let axis = Axis { name, of: "queued", base: "64 queued", per: "connection" };
        report.axis(axis);
        // Of the loop by hand the end tells enough: whether it is the kernel that grows.
        for &point in points.iter().filter(|point| who == Who::Gated || **point == longest) {
            let all = point.max(ALL);
            let (mut base, mut other) = (Bursts::new(who, strategy, BASE), Bursts::new(who, strategy, point));
            let ratio = abba(report.blocks(), |side| match side {
                Side::Base => base.cost(all),
                Side::Point => other.cost(all),
            });
            let claim = (point == CLAIM.0 && who == Who::Gated).then_some(CLAIM.1);
            report.point(axis, point, ratio, claim);
        }
    }
}

/// An acceptor, and bursts of one size for it.
pub(crate) struct Bursts {
    engine: Box<dyn Engine>,
    address: SocketAddr,
    size: usize,
}

impl Bursts {
    fn new(who: Who, strategy: Strategy, size: usize) -> Self {
        Self::of(size, |listener| engines::boxed(who, strategy, size, listener))
    }

    pub(crate) fn of(size: usize, engine: impl FnOnce(TcpListener) -> Box<dyn Engine>) -> Self {
        let listener = net::listen();
        let address = listener.local_addr().expect("an address");
        let mut bursts = Self { engine: engine(listener), address, size };
        // So that it knows what to expect.
        bursts.cost(size.max(120));
        bursts
    }

    /// Nanoseconds for a connection: the middle of all bursts.
    pub(crate) fn cost(&mut self, all: usize) -> f64 {
        let mut clients = Vec::with_capacity(all);
        let mut costs = Vec::with_capacity(all / self.size + 1);
        while clients.len() < all {
            clients.extend((0..self.size).map(|_| net::connect(&self.address)));
            let start = own_time();
            self.engine.take(clients.len());
            costs.push((own_time() - start) as f64 / self.size as f64);
        }
        // The clients leave first, by a reset.
        drop(clients);
        self.engine.close();
        median(&mut costs)
    }
}

/// Nanoseconds that this thread has run.
fn own_time() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.num_nanoseconds()
}
