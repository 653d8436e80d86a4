//! The gate, for one caller at a time.

/// A call, with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// `Gate::try_acquire`.
    Try { granted: bool },
    /// A permit is dropped.
    Release { handshaking: bool },
    /// `Permit::handshake_done`, for the first time or again.
    HandshakeDone { first: bool },
    /// `Gate::set_limit`.
    SetLimit(u32),
    /// A poll of the future with this number.
    Poll { id: u64, ready: bool },
    /// The future is dropped.
    Cancel { id: u64 },
}

/// The state of the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sequential {
    limit: u32,
    handshakes: Option<u32>,
    in_use: u32,
    handshaking: u32,
    /// The futures that wait, the first in front, and whether each was granted a permit.
    queue: Vec<(u64, bool)>,
}

impl Sequential {
    pub(crate) const fn new(limit: u32, handshakes: Option<u32>) -> Self {
        Self { limit, handshakes, in_use: 0, handshaking: 0, queue: Vec::new() }
    }

    /// Makes a call; returns whether the gate could have answered so.
    pub(crate) fn explains(&mut self, op: Op) -> bool {
        match op {
            Op::Try { granted } => return self.take() == granted,
            Op::Release { handshaking } => self.give(handshaking),
            Op::HandshakeDone { first } => self.handshaking -= u32::from(first),
            Op::SetLimit(limit) => self.limit = limit,
            Op::Poll { id, ready } => {
                let at = self.queue.iter().position(|(other, _)| *other == id);
                let granted = at.is_some_and(|at| self.queue[at].1) || self.take();
                match at {
                    Some(at) if granted => _ = self.queue.remove(at),
                    None if !granted => self.queue.push((id, false)),
                    _ => {}
                }
                return granted == ready;
            }
            Op::Cancel { id } => {
                if let Some(at) = self.queue.iter().position(|(other, _)| *other == id) {
                    let (_, granted) = self.queue.remove(at);
                    if granted {
                        self.give(true);
                    }
                }
            }
        }
        self.hand_out();
        true
    }

    fn take(&mut self) -> bool {
        let available = self.in_use < self.limit
            && self.handshakes.is_none_or(|handshakes| self.handshaking < handshakes);
        self.in_use += u32::from(available);
        self.handshaking += u32::from(available);
        available
    }

    fn give(&mut self, handshaking: bool) {
        self.in_use -= 1;
        self.handshaking -= u32::from(handshaking);
    }

    /// Grants what is available, the first in the queue first; takes grants back, the last first, above the limit.
    fn hand_out(&mut self) {
        for at in 0..self.queue.len() {
            if !self.queue[at].1 {
                self.queue[at].1 = self.take();
            }
        }
        while self.in_use > self.limit {
            let Some((_, granted)) = self.queue.iter_mut().rev().find(|(_, granted)| *granted) else { break };
            *granted = false;
            self.give(true);
        }
    }
}
