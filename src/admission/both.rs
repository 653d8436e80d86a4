//! Two policies as one.

use std::time::Duration;

use super::bell::Bell;
use super::newcomer::ConnectionInfo;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::Rejection;
use super::sync::Arc;

/// Two policies that must both let a connection in: see [`Admission::and`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Both<A, B> {
    first: A,
    second: B,
}

impl<A, B> Both<A, B> {
    pub(super) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }

    /// The first.
    pub const fn first(&self) -> &A {
        &self.first
    }

    /// The second.
    pub const fn second(&self) -> &B {
        &self.second
    }
}

/// No place of one is ever held while the other is waited for: of two acceptors one would hold what the other waits
/// for, and both for ever.
impl<A: Admission, B: Admission> Admission for Both<A, B> {
    type Permit = (A::Permit, B::Permit);

    /// Waiting goes before refusing: as long as one has to be waited for, nothing is taken from the queue.
    #[inline]
    fn reserve(&self) -> Reserve<Self::Permit> {
        let first = match self.first.reserve() {
            Reserve::Room(first) => first,
            Reserve::Full => return Reserve::Full,
            Reserve::NotBefore(wait) => return Reserve::NotBefore(wait),
            Reserve::Shed(denied) => return self.second_waits().unwrap_or(Reserve::Shed(denied)),
        };
        let kept = match self.second.reserve() {
            Reserve::Room(second) => return Reserve::Room((first, second)),
            Reserve::Full => Reserve::Full,
            Reserve::NotBefore(wait) => Reserve::NotBefore(wait),
            Reserve::Shed(denied) => Reserve::Shed(denied),
        };
        self.first.cancel(first);
        kept
    }

    #[inline]
    fn never_waits(&self) -> bool {
        self.first.never_waits() && self.second.never_waits()
    }

    #[inline]
    fn admit(&self, newcomer: &dyn ConnectionInfo, permit: &mut Self::Permit) -> Result<(), Rejection> {
        self.first.admit(newcomer, &mut permit.0)?;
        self.second.admit(newcomer, &mut permit.1)
    }

    #[inline]
    fn wants_peer(&self) -> bool {
        self.first.wants_peer() || self.second.wants_peer()
    }

    fn cancel(&self, (first, second): Self::Permit) {
        self.first.cancel(first);
        self.second.cancel(second);
    }

    /// In one line for room: that of the first which has none. Who sheds is not waited for: its places may come back
    /// after hours, and meanwhile it would refuse.
    fn stand(&self, bell: &Arc<Bell>, until: Until) -> Line {
        match until {
            Until::Room => match stand_unless_it_sheds(&self.first, bell) {
                Line::Room => stand_unless_it_sheds(&self.second, bell),
                Line::Standing => {
                    forget(&self.second, bell);
                    Line::Standing
                }
                Line::Turn => Line::Turn,
            },
            Until::Release => match (self.first.stand(bell, until), self.second.stand(bell, until)) {
                (Line::Turn, _) | (_, Line::Turn) => Line::Turn,
                (Line::Standing, _) | (_, Line::Standing) => Line::Standing,
                (Line::Room, Line::Room) => Line::Room,
            },
        }
    }

    fn leave(&self, bell: &Arc<Bell>) -> Option<Self::Permit> {
        match (self.first.leave(bell), self.second.leave(bell)) {
            (Some(first), Some(second)) => Some((first, second)),
            (first, second) => {
                first.into_iter().for_each(|first| self.first.cancel(first));
                second.into_iter().for_each(|second| self.second.cancel(second));
                None
            }
        }
    }

    fn fetch(&self, bell: &Arc<Bell>) -> Option<Reserve<Self::Permit>> {
        let (first, second) = match (self.first.fetch(bell), self.second.fetch(bell)) {
            (None, None) => return None,
            (Some(first), Some(second)) => (first, second),
            (Some(Reserve::Room(first)), None) => (Reserve::Room(first), self.second.reserve()),
            (None, Some(Reserve::Room(second))) => (self.first.reserve(), Reserve::Room(second)),
            (Some(first), None) => return Some(without_permit(first)),
            (None, Some(second)) => return Some(without_permit(second)),
        };
        let answer = match (first, second) {
            (Reserve::Room(first), Reserve::Room(second)) => Reserve::Room((first, second)),
            (Reserve::Room(first), other) => {
                self.first.cancel(first);
                without_permit(other)
            }
            (other, Reserve::Room(second)) => {
                self.second.cancel(second);
                without_permit(other)
            }
            (other, _) => without_permit(other),
        };
        Some(answer)
    }
}

fn stand_unless_it_sheds<A: Admission>(policy: &A, bell: &Arc<Bell>) -> Line {
    if policy.never_waits() {
        forget(policy, bell);
        return Line::Room;
    }
    policy.stand(bell, Until::Room)
}

/// Leaves a line in which the bell may have stood before.
fn forget<A: Admission>(policy: &A, bell: &Arc<Bell>) {
    if let Some(permit) = policy.leave(bell) {
        policy.cancel(permit);
    }
}

/// What to do without a place. One that is full is waited for with a nap: whoever stood in its line at once would be
/// handed the other's place again by the next who cannot use that either.
fn without_permit<P, Q>(answer: Reserve<P>) -> Reserve<Q> {
    match answer {
        Reserve::NotBefore(wait) => Reserve::NotBefore(wait),
        Reserve::Shed(denied) => Reserve::Shed(denied),
        Reserve::Full | Reserve::Room(_) => Reserve::NotBefore(Duration::ZERO),
    }
}

impl<A: Admission, B: Admission> Both<A, B> {
    /// The answer of the second if it has to be waited for. A place that it has is not kept.
    fn second_waits<P>(&self) -> Option<Reserve<P>> {
        if self.second.never_waits() {
            return None;
        }
        match self.second.reserve() {
            Reserve::Full => Some(Reserve::Full),
            Reserve::NotBefore(wait) => Some(Reserve::NotBefore(wait)),
            Reserve::Shed(_) => None,
            Reserve::Room(second) => {
                self.second.cancel(second);
                None
            }
        }
    }
}
