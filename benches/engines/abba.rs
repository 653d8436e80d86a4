//! Ratios that mean something on a shared machine: base, point, point, base, in one process, and the middle of many.

/// Which of the two is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Base,
    Point,
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

/// So many blocks of base, point, point, base.
pub fn abba(blocks: usize, mut cost: impl FnMut(Side) -> f64) -> Ratio {
    let (mut ratios, mut bases, mut points) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..blocks {
        let [a, b, c, d] = [Side::Base, Side::Point, Side::Point, Side::Base].map(&mut cost);
        ratios.push((b + c) / (a + d));
        bases.push(f64::midpoint(a, d));
        points.push(f64::midpoint(b, c));
    }
    let quarter = |values: &mut Vec<f64>, at: usize| {
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) * at / 4]
    };
    Ratio {
        median: quarter(&mut ratios, 2),
        low: quarter(&mut ratios, 1),
        high: quarter(&mut ratios, 3),
        base: quarter(&mut bases, 2),
        point: quarter(&mut points, 2),
    }
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
