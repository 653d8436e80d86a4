//! Predicts bursts from what the last wakeups found.

/// Predicts whether to read the length of the queue or to accept one connection and wait again.
///
/// It is cheapest to accept a lone connection alone (wait, accept), and to count a burst first (wait, count, accept,
/// accept, ...). The prediction is a counter that bursts raise at once and lone connections lower slowly. A wrong
/// prediction costs one call, never a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct BurstPredictor {
    /// Invariant: `LOW <= bursts <= HIGH`.
    bursts: i32,
    /// The number of wakeups that accept one connection before the length is read again.
    lone: u32,
}

impl BurstPredictor {
    const LOW: i32 = -4;
    const HIGH: i32 = 8;
    /// With `bursts` at 0, -1, ... -4, every 1st, 3rd, 7th, 13th or 31st wakeup reads the length. Not powers of two:
    /// those fall in step with periodic bursts.
    const PERIODS: [u32; 5] = [1, 3, 7, 13, 31];

    #[inline]
    pub(super) fn counts(&mut self) -> bool {
        match self.lone.checked_sub(1) {
            None => true,
            Some(left) => {
                self.lone = left;
                false
            }
        }
    }

    /// Learns from the length that a count found.
    pub(super) fn learn(&mut self, found: u32) {
        let change = match found {
            0 | 2 => 0,
            1 => -1,
            many => i32::try_from(many - 2).unwrap_or(i32::MAX),
        };
        self.bursts = self.bursts.saturating_add(change).clamp(Self::LOW, Self::HIGH);
        self.lone = match usize::try_from(-self.bursts) {
            Ok(doubt) => Self::PERIODS[doubt] - 1,
            Err(_) => 0,
        };
    }
}
