//! What is printed: a story, a table and a cure for people, or a line of JSON an acceptor for programs.

use std::fmt;

use epoll_acceptor::Trigger;
use serde_json::{Value, json};

use crate::scene::{CROWD, Cast, NEWCOMERS, Outcome, STEP};

/// What to think of an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The place was free, and somebody who was connected got no word.
    Stranded,
    /// It burnt a processor for nothing while it was full.
    Spinning,
    /// Neither.
    Fine,
}

/// A server that can do nothing but wait uses next to nothing; one that spins, all that it gets.
const SPINNING_PERCENT: f64 = 5.0;

impl Outcome {
    pub(crate) fn verdict(&self) -> Verdict {
        let left = self.after.queued > 0 || self.after.close_wait_unowned > 0;
        if left || self.hanging() > 0 || self.newcomers_answered < NEWCOMERS {
            Verdict::Stranded
        } else if self.cpu_percent_while_full >= SPINNING_PERCENT {
            Verdict::Spinning
        } else {
            Verdict::Fine
        }
    }

    /// Whether it went as this example says it does: the faulty loop strands, this crate does not.
    pub(crate) fn is_as_told(&self) -> bool {
        match self.cast {
            Cast::FaultyEdge => self.verdict() == Verdict::Stranded,
            Cast::FaultyLevel => true,
            Cast::Pause(_) | Cast::Shed(_) => self.verdict() == Verdict::Fine,
        }
    }

    /// How many of those who stayed had neither an answer nor an end.
    fn hanging(&self) -> usize {
        CROWD / 2 - self.answered - self.refused
    }

    fn fate_of_the_patient(&self) -> String {
        match (self.hanging(), self.refused, self.answered) {
            (0, 0, answered) => format!("{answered} served"),
            (0, refused, 0) => format!("{refused} refused"),
            (0, refused, answered) => format!("{answered}+{refused} ref."),
            (hanging, ..) => format!("{hanging} hanging"),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "bench": "close_wait",
            "acceptor": self.cast.name(),
            "queued_while_full": self.full.queued,
            "close_wait_unowned_while_full": self.full.close_wait_unowned,
            "cpu_percent_while_full": self.cpu_percent_while_full,
            "stayed_answered": self.answered,
            "stayed_refused": self.refused,
            "stayed_hanging": self.hanging(),
            "newcomers_answered": self.newcomers_answered,
            "newcomers_asked": NEWCOMERS,
            "queued_after": self.after.queued,
            "close_wait_unowned": self.after.close_wait_unowned,
            "verdict": self.verdict().word(),
            "step_ms": STEP.as_millis(),
            "queued_over_time": self.depth,
        })
    }
}

impl Cast {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FaultyEdge => "faulty edge loop",
            Self::FaultyLevel => "faulty loop, level-triggered",
            Self::Pause(Trigger::Edge) => "EdgeTriggered pause",
            Self::Shed(Trigger::Edge) => "EdgeTriggered shed",
            Self::Pause(Trigger::Level) => "LevelTriggered pause",
            Self::Shed(Trigger::Level) => "LevelTriggered shed",
            Self::Pause(Trigger::Exclusive) => "Exclusive pause",
            Self::Shed(Trigger::Exclusive) => "Exclusive shed",
        }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Stranded => "stranded",
            Self::Spinning => "spinning",
            Self::Fine => "ok",
        }
    }
}

/// One row of the table.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict() {
            Verdict::Fine => "ok".to_owned(),
            bad => bad.word().to_uppercase(),
        };
        write!(
            f,
            "{:<28}{:>4} {:>5.1} {:>12}  {} of {} {:>10}  {verdict}",
            self.cast.name(),
            self.full.queued,
            self.cpu_percent_while_full,
            self.fate_of_the_patient(),
            self.newcomers_answered,
            NEWCOMERS,
            self.after.close_wait_unowned,
        )
    }
}

/// What stands above the table.
pub(crate) const STORY: &str = "\
THE OUTAGE THAT NOBODY OWNS

A server with room for one client has one. 200 more connect; 100 of them quit,
100 stay. Then the one leaves: the place is free, and the server has nothing to
do. 5 newcomers come, one after the other.

The faulty loop is edge-triggered: it is told of all the 200 at once, and never
again. Being full it closes the first of them, and there it says `return` where
it should say `continue`. The other 199 are still in the accept queue.
";

/// The head of the table.
pub(crate) const HEAD: &str = concat!(
    "                           while full      once the place is free\n",
    "                           -----------  -----------------------------\n",
    "                              in         the 100    new-   CLOSE_WAIT\n",
    "acceptor                   queue CPU %  who stayed  comers   no owner  verdict",
);

/// What stands below the table.
pub(crate) const CURE: &str = "\
TO BE QUEUED IS NOT TO BE STRANDED. With \"pause\" the crowd waits its turn in
the kernel's queue. As soon as the place is free all are served, and nobody new
has to come for that. Behind the faulty loop they hang beside a free place for
ever: each newcomer wakes the server for the oldest one or two, and joins the
end of the queue. Those who give up become CLOSE_WAIT sockets with inode 0 that
no process has: `lsof` shows nothing, `ss -lt` a Recv-Q that does not go down.

THE CURE is `continue` for `return`; or a level-triggered listener, of which the
server is told again as long as anybody is queued; or a loop that may be left at
any point, with either trigger, and at the limit neither strands nor spins:

    let gate = Gate::new(1).when_full(WhenFull::Pause);
    let mut acceptor = EdgeTriggered::on(listener)
        .gate(&gate)
        .register(&epoll, LISTENER)?;
    ...
    for connection in acceptor.ready() {
        serve(connection?)?; // `break`, `return` and `?` strand nobody
    }
";
