//! Whether to ask how many wait, or to take one and sleep: a guess from what the last wake-ups found.
//!
//! A lone connection is cheapest taken alone (wait, accept); a burst is cheapest counted first (wait, count,
//! accept, accept, …). Which of the two comes is guessed from a counter that bursts raise at once and lone
//! connections lower slowly. A wrong guess costs one call, never a connection.

/// The counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Predict {
    /// How sure it is of bursts. Invariant: `LOW <= bursts <= HIGH`.
    bursts: i32,
    /// How many wake-ups take one connection unasked before the next one counts again.
    unasked: u32,
}

impl Predict {
    const LOW: i32 = -4;
    const HIGH: i32 = 8;
    /// With 0, -1, … -4 the 1st, 3rd, 7th, 13th, 31st wake-up counts. No powers of two: those fall in step with
    /// periodic bursts.
    const PERIODS: [u32; 5] = [1, 3, 7, 13, 31];

    /// Whether this wake-up should count.
    #[inline]
    pub(super) fn counts(&mut self) -> bool {
        match self.unasked.checked_sub(1) {
            None => true,
            Some(left) => {
                self.unasked = left;
                false
            }
        }
    }

    /// What a count found.
    pub(super) fn learn(&mut self, found: u32) {
        let change = match found {
            0 | 2 => 0,
            1 => -1,
            many => i32::try_from(many - 2).unwrap_or(i32::MAX),
        };
        self.bursts = self.bursts.saturating_add(change).clamp(Self::LOW, Self::HIGH);
        self.unasked = match usize::try_from(-self.bursts) {
            Ok(doubt) => Self::PERIODS[doubt] - 1,
            Err(_) => 0,
        };
    }
}
