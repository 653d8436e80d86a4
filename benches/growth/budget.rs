//! The budget of a pass, with a queue that is longer than most budgets.

use epoll_acceptor::{Gate, LevelTriggered};

use crate::engines::abba::{Side, abba};
use crate::engines::{BUDGET, Ours};
use crate::queue::Bursts;
use crate::report::{Axis, Report};

const QUEUED: usize = 512;
const POINTS: [u32; 5] = [1, 8, 32, 64, 512];

pub(crate) fn run(report: &mut Report) {
    let axis = Axis { name: "budget", of: "budget", base: "a budget of 64", per: "connection" };
    report.axis(axis);
    for point in POINTS {
        let (mut base, mut other) = (bursts(u32::try_from(BUDGET).expect("a small number")), bursts(point));
        let ratio = abba(report.blocks(), |side| match side {
            Side::Base => base.cost(2 * QUEUED),
            Side::Point => other.cost(2 * QUEUED),
        });
        report.point(axis, usize::try_from(point).expect("a small number"), ratio, None);
    }
}

fn bursts(budget: u32) -> Bursts {
    Bursts::of(QUEUED, |listener| {
        let builder = LevelTriggered::on(listener).budget(budget).gate(&Gate::new(1_000_000));
        Box::new(Ours::new(builder, QUEUED))
    })
}
