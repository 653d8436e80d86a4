//! Whether a member of a group is served, judged from two observations some time apart.

use crate::drain::state::State;

/// What a member of a group does for the clients that the kernel sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemberHealth {
    /// Its owner accepts.
    Served,
    /// Its acceptor listens, connections are pending, and its owner has begun no pass since the last look.
    Stalled,
    /// Its acceptor does not accept just now, and will again: throttled, exhausted, full or paused.
    Blocked(State),
    /// Its acceptor never accepts again (stopped or closed), and the listener is still open.
    Abandoned(State),
    /// No acceptor is known to serve it.
    Unserved,
    /// It is closed.
    Closed,
}

impl MemberHealth {
    /// Returns `true` if no acceptor will serve the pending clients.
    #[must_use]
    pub const fn is_unserved(self) -> bool {
        matches!(self, Self::Stalled | Self::Abandoned(_) | Self::Unserved)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) pending: u32,
    pub(super) passes: u64,
    pub(super) state: State,
}

/// Judges a member from `now` and `before`, the previous look if any.
pub(super) fn health(before: Option<Look>, now: Look) -> MemberHealth {
    match now.state {
        state if state.is_terminal() => MemberHealth::Abandoned(state),
        State::Listening => match before {
            // What was pending before has raised an event since, which no pass answered.
            Some(before) if before.pending > 0 && now.pending > 0 && before.passes == now.passes => {
                MemberHealth::Stalled
            }
            _ => MemberHealth::Served,
        },
        state => MemberHealth::Blocked(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn look(pending: u32, passes: u64) -> Look {
        Look { pending, passes, state: State::Listening }
    }

    #[test]
    fn owner_stalls_if_connections_stay_and_no_pass_begins() {
        let say = |before, now| health(before, now);
        assert_eq!(say(Some(look(1, 7)), look(3, 7)), MemberHealth::Stalled);
        for (before, now) in [
            (None, look(9, 0)),
            (Some(look(0, 7)), look(3, 7)),
            (Some(look(3, 7)), look(0, 7)),
            (Some(look(3, 7)), look(3, 8)),
        ] {
            assert_eq!(say(before, now), MemberHealth::Served, "{before:?} {now:?}");
        }
    }

    #[test]
    fn state_wins_over_pending_connections() {
        for (state, expected) in [
            (State::Full, MemberHealth::Blocked(State::Full)),
            (State::Paused, MemberHealth::Blocked(State::Paused)),
            (State::Stopped, MemberHealth::Abandoned(State::Stopped)),
            (State::Closed, MemberHealth::Abandoned(State::Closed)),
        ] {
            let now = Look { state, ..look(3, 7) };
            assert_eq!(health(Some(look(3, 7)), now), expected);
            assert_eq!(expected.is_unserved(), state.is_terminal());
        }
    }
}
