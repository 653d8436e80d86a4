//! The one word that a gate decides by, so that "full" and "somebody sleeps" cannot disagree.

/// Capacity in use, limit, and a bit for each kind of sleeper and for the latch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// What a word is read by.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// How many places have to be free before a gate that was full opens again.
    pub(super) low_water: u32,
    /// Capacity that only privileged handles may take.
    pub(super) reserved: u32,
}

impl Word {
    pub(super) const BITS: u32 = 30;
    pub(super) const LIMIT_MAX: u32 = (1 << Self::BITS) - 1;
    const MASK: u64 = (1 << Self::BITS) - 1;
    /// Somebody waits in line.
    pub(super) const WAITING: u64 = 1 << (2 * Self::BITS);
    /// Somebody waits until all permits are back.
    pub(super) const IDLING: u64 = 1 << (2 * Self::BITS + 1);
    /// It was full, and has not come down to the low-water mark yet.
    pub(super) const CLOSED: u64 = 1 << (2 * Self::BITS + 2);
    /// There are rules besides the limit.
    pub(super) const RULED: u64 = 1 << (2 * Self::BITS + 3);

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 30 bits")]
    pub(super) const fn in_use(self) -> u32 {
        (self.0 & Self::MASK) as u32
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 30 bits")]
    pub(super) const fn limit(self) -> u32 {
        ((self.0 >> Self::BITS) & Self::MASK) as u32
    }

    pub(super) fn with_limit(self, limit: u32) -> Self {
        let limit = u64::from(limit.min(Self::LIMIT_MAX));
        Self(self.0 & !(Self::MASK << Self::BITS) | limit << Self::BITS)
    }

    pub(super) const fn with_rules(self) -> Self {
        Self(self.0 | Self::RULED)
    }

    #[inline]
    pub(super) const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Whether to give back a place is more than to count it.
    #[inline]
    pub(super) const fn concerns_others(self) -> bool {
        self.has(Self::WAITING | Self::IDLING | Self::CLOSED)
    }

    /// How many places are free, for handles without privilege.
    #[inline]
    const fn free(self, rules: Rules) -> u32 {
        self.limit().saturating_sub(self.in_use()).saturating_sub(rules.reserved)
    }

    #[inline]
    pub(super) const fn has_room(self, rules: Rules, privileged: bool) -> bool {
        match privileged {
            true => self.in_use() < self.limit(),
            false => !self.has(Self::CLOSED) && self.free(rules) > 0,
        }
    }

    #[inline]
    pub(super) fn take(self, rules: Rules, privileged: bool) -> Option<Self> {
        if !self.has_room(rules, privileged) {
            return None;
        }
        let taken = Self(self.0 + 1);
        // Only the last place closes the latch, and only a low-water mark makes one. Who is privileged passes a closed one,
        // and so neither closes nor opens it.
        Some(if rules.low_water > 1 && !privileged { taken.latched(rules) } else { taken })
    }

    /// As [`take`](Self::take), in place.
    pub(super) fn take_from(&mut self, rules: Rules, privileged: bool) -> bool {
        self.take(rules, privileged).map(|left| *self = left).is_some()
    }

    #[inline]
    pub(super) fn give(self) -> Self {
        debug_assert!(self.in_use() > 0, "a permit was given back twice");
        Self(self.0 - 1)
    }

    /// As [`give`](Self::give), of a place that was reserved without privilege and not used. If the latch is closed it was taken
    /// before that fell, since none is taken behind it: so the gate was never full of those who came in.
    #[inline]
    pub(super) fn give_unused(self) -> Self {
        Self(self.give().0 & !Self::CLOSED)
    }

    /// With the latch of the low-water mark as the counts want it: it falls when the gate is full.
    #[inline]
    pub(super) fn latched(self, rules: Rules) -> Self {
        let free = self.free(rules);
        if rules.low_water > 1 && free == 0 {
            Self(self.0 | Self::CLOSED)
        } else if free >= rules.low_water || self.in_use() == 0 {
            Self(self.0 & !Self::CLOSED)
        } else {
            self
        }
    }
}
