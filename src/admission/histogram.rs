//! Counts by powers of two.

use std::fmt;

use super::sync::{AtomicU64, Ordering};

/// A distribution of numbers: how many were 0, 1, 2 to 3, 4 to 7, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram([u64; Self::BUCKETS]);

/// A histogram that several threads may read while it is written.
#[derive(Debug)]
pub(crate) struct AtomicHistogram([AtomicU64; Histogram::BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; Self::BUCKETS])
    }
}

impl Histogram {
    /// One for 0, and one for each power of two that a `u32` has.
    const BUCKETS: usize = 33;

    #[inline]
    const fn bucket(number: u32) -> usize {
        (u32::BITS - number.leading_zeros()) as usize
    }

    /// Returns the buckets: the smallest number of each, and how often a number fell into it.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let lowest = |bucket: usize| if bucket == 0 { 0 } else { 1 << (bucket - 1) };
        self.0.iter().enumerate().map(move |(bucket, count)| (lowest(bucket), *count))
    }
}

impl Default for AtomicHistogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl AtomicHistogram {
    /// Adds a number, where only the calling thread writes: no locked instruction.
    #[inline]
    pub(crate) fn add_owned(&self, number: u32) {
        let count = &self.0[Histogram::bucket(number)];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Adds a number, where several threads write.
    pub(crate) fn add_shared(&self, number: u32) {
        self.0[Histogram::bucket(number)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram(std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed)))
    }
}

/// `1: 40, 2+: 7, 4+: 1`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (from, count) in self.iter().filter(|(_, count)| *count != 0) {
            write!(f, "{comma}{from}{}: {count}", if from > 1 { "+" } else { "" })?;
            comma = ", ";
        }
        Ok(())
    }
}
