//! Whether anybody attends to a listener: what two looks at it, some time apart, say of its owner.

use super::state::State;

/// What a member of a group of listeners is worth to the clients that the kernel sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemberHealth {
    /// Its owner accepts.
    Served,
    /// Its acceptor is awake, connections wait, and its owner has begun no pass since the last look.
    Stalled,
    /// Its acceptor does not accept just now, and will again: throttled, exhausted, full or paused.
    Asleep(State),
    /// Its acceptor never accepts again (stopped or dead), and the listener is open still.
    Abandoned(State),
    /// No acceptor is known to serve it.
    Unserved,
    /// It is closed.
    Closed,
}

impl MemberHealth {
    /// Whether clients wait there for nobody.
    #[must_use]
    pub const fn is_unserved(self) -> bool {
        matches!(self, Self::Stalled | Self::Abandoned(_) | Self::Unserved)
    }
}

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Connections that wait to be accepted.
    pub(crate) waiting: u32,
    /// Passes that its owner has begun by now.
    pub(crate) passes: u64,
    pub(crate) state: State,
}

/// What `now` says after `before`, if there was a look before.
pub(crate) fn attendance(before: Option<Look>, now: Look) -> MemberHealth {
    match now.state {
        state if state.is_terminal() => MemberHealth::Abandoned(state),
        State::Listening => match before {
            // Whoever waited then has had an event since, and it was not answered.
            Some(before) if before.waiting > 0 && now.waiting > 0 && before.passes == now.passes => {
                MemberHealth::Stalled
            }
            _ => MemberHealth::Served,
        },
        state => MemberHealth::Asleep(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn look(waiting: u32, passes: u64) -> Look {
        Look { waiting, passes, state: State::Listening }
    }

    #[test]
    fn an_owner_stalls_only_if_somebody_waits_all_the_time_and_no_pass_begins() {
        let say = |before, now| attendance(before, now);
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
    fn a_state_goes_before_what_waits() {
        for (state, told) in [
            (State::Full, MemberHealth::Asleep(State::Full)),
            (State::Paused, MemberHealth::Asleep(State::Paused)),
            (State::Stopped, MemberHealth::Abandoned(State::Stopped)),
            (State::Closed, MemberHealth::Abandoned(State::Closed)),
        ] {
            let now = Look { state, ..look(3, 7) };
            assert_eq!(attendance(Some(look(3, 7)), now), told);
            assert_eq!(told.is_unserved(), state.is_terminal());
        }
    }
}
