//! Ratios that are meaningful on a shared machine: blocks of base, point, point, base in one process, and their median.

use super::stats::quarter;

/// Which of the two is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Base,
    Point,
}

/// The cost of both sides in one block of four, in the unit of the measurement. A drift cancels out.
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

/// The cost of a point relative to its base.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub median: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
    /// The medians of both sides, in the unit of the measurement.
    pub base: f64,
    pub point: f64,
}

/// Measures `blocks` blocks.
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
