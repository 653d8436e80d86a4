//! Ratios that mean something on a shared machine: base, point, point, base, in one process, and the middle of many.

use super::stats::quarter;

/// Which of the two is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Base,
    Point,
}

/// What both sides cost in one block of four, in the unit that was measured. A drift cancels.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub base: f64,
    pub point: f64,
}

impl Block {
    pub fn of(cost: impl FnMut(Side) -> f64) -> Self {
        let [a, b, c, d] = [Side::Base, Side::Point, Side::Point, Side::Base].map(cost);
        Self { base: f64::midpoint(a, d), point: f64::midpoint(b, c) }
    }

    pub fn ratio(self) -> f64 {
        self.point / self.base
    }
}

/// What a point costs by comparison.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub median: f64,
    /// A quarter of the ratios is below.
    pub low: f64,
    /// A quarter of the ratios is above.
    pub high: f64,
    /// The medians of both sides, in the unit that was measured.
    pub base: f64,
    pub point: f64,
}

/// So many blocks.
pub fn abba(blocks: usize, mut cost: impl FnMut(Side) -> f64) -> Ratio {
    let blocks: Vec<Block> = (0..blocks).map(|_| Block::of(&mut cost)).collect();
    let mut ratios: Vec<f64> = blocks.iter().map(|block| block.ratio()).collect();
    let mut bases: Vec<f64> = blocks.iter().map(|block| block.base).collect();
    let mut points: Vec<f64> = blocks.iter().map(|block| block.point).collect();
    Ratio {
        median: quarter(&mut ratios, 2),
        low: quarter(&mut ratios, 1),
        high: quarter(&mut ratios, 3),
        base: quarter(&mut bases, 2),
        point: quarter(&mut points, 2),
    }
}
