//! The length of the accept queue.
//!
//! Both sides of a ratio accept the same number of connections, all open until the last is accepted; they differ in how many
//! are queued at a time. So only the queue grows, not the descriptor table nor the memory of the sockets. The clock is the
//! thread's CPU time (`CLOCK_THREAD_CPUTIME_ID`), which excludes other threads.

use std::net::{SocketAddr, TcpListener};

use epoll_acceptor::Trigger;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::engines::abba::{Side, abba};
use crate::engines::stats::median;
use crate::engines::{self, Engine, Variant, net};
use crate::report::{Axis, Report};

const BASE: usize = 64;
const POINTS: [usize; 6] = [1, 16, 64, 256, 1024, 4096];
/// The least number of connections per figure.
const ALL: usize = 1024;
/// The bound of the ratio at 4096.
const BOUND: (usize, f64) = (4096, 1.15);

pub(crate) fn run(report: &mut Report, descriptors: usize) {
    let rows = [
        ("queue, level", Trigger::Level, Variant::Gated),
        ("queue, edge", Trigger::Edge, Variant::Gated),
        ("queue, level by hand", Trigger::Level, Variant::ByHand),
    ];
    let most = if report.args.quick { 1024 } else { descriptors.saturating_sub(64) / 2 };
    let points: Vec<usize> = POINTS.into_iter().filter(|point| *point <= most).collect();
    let longest = *points.last().expect("a point");
    for (name, trigger, variant) in rows {
        let axis = Axis { name, of: "queued", base: "64 queued", per: "connection" };
        report.axis(axis);
        // For the hand-written loop the last point suffices: it shows whether the kernel's cost grows.
        for &point in points.iter().filter(|point| variant == Variant::Gated || **point == longest) {
            let all = point.max(ALL);
            let (mut base, mut other) =
                (Bursts::new(variant, trigger, BASE), Bursts::new(variant, trigger, point));
            let ratio = abba(report.blocks(), |side| match side {
                Side::Base => base.cost(all),
                Side::Point => other.cost(all),
            });
            let bound = (point == BOUND.0 && variant == Variant::Gated).then_some(BOUND.1);
            report.point(axis, point, ratio, bound);
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
    fn new(variant: Variant, trigger: Trigger, size: usize) -> Self {
        Self::of(size, |listener| engines::boxed(variant, trigger, size, listener))
    }

    pub(crate) fn of(size: usize, engine: impl FnOnce(TcpListener) -> Box<dyn Engine>) -> Self {
        let listener = net::listen();
        let address = listener.local_addr().expect("an address");
        let mut bursts = Self { engine: engine(listener), address, size };
        // So that its prediction settles.
        bursts.cost(size.max(120));
        bursts
    }

    /// Returns the nanoseconds per connection: the median of all bursts.
    pub(crate) fn cost(&mut self, all: usize) -> f64 {
        let mut clients = Vec::with_capacity(all);
        let mut costs = Vec::with_capacity(all / self.size + 1);
        while clients.len() < all {
            clients.extend((0..self.size).map(|_| net::connect(&self.address)));
            let start = cpu_time();
            self.engine.take(clients.len());
            costs.push((cpu_time() - start) as f64 / self.size as f64);
        }
        // The clients close first, by a reset.
        drop(clients);
        self.engine.close();
        median(&mut costs)
    }
}

/// Returns the CPU time of this thread in nanoseconds.
fn cpu_time() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.num_nanoseconds()
}
