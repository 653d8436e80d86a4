//! The output: an explanation and a table, or one JSON object per variant.

use std::fmt;

use epoll_acceptor::Trigger;
use serde_json::{Value, json};

use crate::scenario::{CLIENTS, LATER, Outcome, STEP, Variant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server was free, and connected clients got no reply.
    Stranded,
    /// It used a processor while it was full and had nothing to do.
    Spinning,
    Fine,
}

/// A server that sleeps uses almost no processor time; one that spins, all that it gets.
const SPINNING_PERCENT: f64 = 5.0;

impl Outcome {
    pub(crate) fn verdict(&self) -> Verdict {
        let left = self.after.queued > 0 || self.after.close_wait_unowned > 0;
        if left || self.hanging() > 0 || self.later_answered < LATER {
            Verdict::Stranded
        } else if self.cpu_percent_while_full >= SPINNING_PERCENT {
            Verdict::Spinning
        } else {
            Verdict::Fine
        }
    }

    /// Returns whether the outcome is what this example claims: the faulty loop strands, this crate does not.
    pub(crate) fn is_expected(&self) -> bool {
        match self.variant {
            Variant::FaultyEdge => self.verdict() == Verdict::Stranded,
            Variant::FaultyLevel => true,
            Variant::Wait(_) | Variant::Shed(_) => self.verdict() == Verdict::Fine,
        }
    }

    /// Returns how many of the waiting clients got neither a reply nor the end of the connection.
    fn hanging(&self) -> usize {
        CLIENTS / 2 - self.answered - self.refused
    }

    fn waiting_clients(&self) -> String {
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
            "acceptor": self.variant.key(),
            "queued_while_full": self.full.queued,
            "close_wait_unowned_while_full": self.full.close_wait_unowned,
            "cpu_percent_while_full": self.cpu_percent_while_full,
            "stayed_answered": self.answered,
            "stayed_refused": self.refused,
            "stayed_hanging": self.hanging(),
            "newcomers_answered": self.later_answered,
            "newcomers_asked": LATER,
            "queued_after": self.after.queued,
            "close_wait_unowned": self.after.close_wait_unowned,
            "verdict": self.verdict().word(),
            "step_ms": STEP.as_millis(),
            "queued_over_time": self.depth,
        })
    }
}

impl Variant {
    /// The name in JSON: that of the rows recorded before, so that they stay comparable.
    fn key(self) -> &'static str {
        match self {
            Self::FaultyEdge => "faulty edge loop",
            Self::FaultyLevel => "faulty loop, level-triggered",
            Self::Wait(Trigger::Edge) => "EdgeTriggered pause",
            Self::Shed(Trigger::Edge) => "EdgeTriggered shed",
            Self::Wait(Trigger::Level) => "LevelTriggered pause",
            Self::Shed(Trigger::Level) => "LevelTriggered shed",
            Self::Wait(Trigger::Exclusive) => "Exclusive pause",
            Self::Shed(Trigger::Exclusive) => "Exclusive shed",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FaultyEdge => "faulty loop, edge-triggered",
            Self::Wait(Trigger::Edge) => "EdgeTriggered, Wait",
            Self::Shed(Trigger::Edge) => "EdgeTriggered, Shed",
            Self::Wait(Trigger::Level) => "LevelTriggered, Wait",
            Self::Shed(Trigger::Level) => "LevelTriggered, Shed",
            other => other.key(),
        })
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

/// A row of the table.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict() {
            Verdict::Fine => "ok".to_owned(),
            bad => bad.word().to_uppercase(),
        };
        write!(
            f,
            "{:<28}{:>4} {:>5.1} {:>12}  {} of {} {:>10}  {verdict}",
            self.variant,
            self.full.queued,
            self.cpu_percent_while_full,
            self.waiting_clients(),
            self.later_answered,
            LATER,
            self.after.close_wait_unowned,
        )
    }
}

/// Printed above the table.
pub(crate) const INTRODUCTION: &str = "\
CONNECTIONS STRANDED IN THE ACCEPT QUEUE

A server that serves one client at a time is serving one. 200 more connect; 100
of them quit, 100 wait. Then the first client leaves, and the server has nothing
to do. 5 later clients connect, one after the other.

The faulty loop is edge-triggered: the kernel reports the 200 arrivals once. The
loop is full, so it closes the first of them, and there it says `return` where
it should say `continue`. The other 199 stay in the accept queue.
";

/// The head of the table.
pub(crate) const HEAD: &str = concat!(
    "                           while full     after the first client left\n",
    "                           -----------  -----------------------------\n",
    "                              in        the 100    later   CLOSE_WAIT\n",
    "acceptor                   queue CPU %  that wait  clients  no owner  verdict",
);

/// Printed below the table.
pub(crate) const FIX: &str = "\
A QUEUED CONNECTION IS NOT A STRANDED ONE. With `Wait`, the 200 stay in the
kernel's accept queue while the server is full. When the first client leaves,
all of them are served, without a further arrival. Behind the faulty loop they
hang although the server is free: each new connection wakes it for the oldest
one or two, and joins the end of the queue. The clients that give up become
CLOSE_WAIT sockets with inode 0, which no process owns: `lsof` shows nothing,
`ss -lt` a Recv-Q that does not go down.

THE FIX is `continue` instead of `return`; or a level-triggered listener, which
the kernel reports while its queue is not empty; or a loop that may be left at
any point, with either trigger, and that neither strands nor spins at the limit:

    let gate = Gate::new(1);
    let mut acceptor = EdgeTriggered::on(listener)
        .gate(&gate)
        .register(&epoll, LISTENER)?;
    ...
    for connection in acceptor.ready() {
        serve(connection?)?; // `break`, `return` and `?` strand no connection
    }
";
