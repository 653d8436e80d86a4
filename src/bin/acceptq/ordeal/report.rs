//! What the ordeal says: a line for each stage, the verdict, and JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Manner;
use super::sight::Seen;
use super::stages::Plan;
use super::verdict::{Facts, Limit, Outcome, Tally};
use crate::words::{duration, plural, wrap};

const INDENT: &str = "             ";

/// A stage's name and what was seen in it.
pub(crate) fn line(name: &str, text: &str, width: usize) -> String {
    wrap(text, &format!("  {name:<11}"), INDENT, width)
}

pub(crate) fn first(facts: &Facts) -> String {
    match facts.manner {
        Some(Manner::Greets) => "it speaks first",
        Some(Manner::GreetsAndCloses) => "it speaks first, and closes: nobody can be held",
        Some(Manner::Answers) => "it answers what it is sent",
        Some(Manner::ClosesWhenAsked) => "it closes when it is sent this; --send may please it more",
        Some(Manner::Silent) => "it takes the connection and says nothing: who is taken counts as answered",
        None => "no answer",
    }
    .into()
}

pub(crate) fn hold(facts: &Facts) -> String {
    let held = plural(facts.held, "connection");
    match facts.limit {
        Limit::NotMet => format!("{held} held, and it has met no limit"),
        Limit::Waits => format!("{held} held; the next one waits"),
        Limit::Refuses => format!("{held} held; the next one was refused"),
    }
}

pub(crate) fn flood(facts: &Facts) -> String {
    let crowds = match facts.bursts {
        1 => "at once".into(),
        bursts => format!("in {bursts} crowds"),
    };
    let text = format!("{} {crowds}: {}", facts.flood.came, tally(&facts.flood, "wait"));
    format!("{text}; then {} quit", facts.quit)
}

pub(crate) fn watched(seen: &Seen) -> String {
    let mut text = Vec::new();
    if let Some(queued) = seen.queued {
        text.push(format!("{queued} in the queue"));
    }
    if let Some(dead) = seen.dead {
        let state = match seen.close_wait_unowned {
            None => String::new(),
            Some(all) if all == dead => " (CLOSE_WAIT, inode 0)".into(),
            Some(some) => format!(" ({some} in CLOSE_WAIT with inode 0, the others reset)"),
        };
        text.push(format!("{dead} of them dead{state}"));
    }
    if let Some(trigger) = seen.trigger {
        text.push(format!("trigger: {trigger}"));
    }
    match seen.owner_asleep {
        Some(true) => text.push("its threads sleep".into()),
        Some(false) => text.push("its threads are awake".into()),
        None => text.push("its threads cannot be seen".into()),
    }
    if let Some(cpu) = seen.cpu_percent {
        text.push(format!("{cpu:.0} % of a processor"));
    }
    if let Some(verdict) = seen.verdict {
        text.push(format!("the doctor says: {}", verdict.name()));
    }
    text.join("; ")
}

pub(crate) fn free(facts: &Facts, plan: &Plan) -> String {
    let freed = plural(facts.freed, "place");
    let left = match facts.left_behind {
        Some(left) => format!("{left} left in the queue"),
        None => "the queue cannot be seen".into(),
    };
    let patience = duration(plan.patience);
    match (facts.resumed_with, facts.freed) {
        _ if facts.stalled => format!("{freed} freed; nothing was taken for {patience}; {left}"),
        (_, 0) if facts.held > 0 => format!("no place: it does not close those who have left; {left}"),
        (Some(_), _) => format!("{freed} freed; of those who had stayed: {}", tally(&facts.stayed, "wait")),
        (None, _) => format!("{freed} freed; {left}"),
    }
}

pub(crate) fn newcomers(facts: &Facts, plan: &Plan) -> String {
    let without = format!("without an answer for {}", duration(plan.patience));
    format!("{} came: {}", facts.newcomers.came, tally(&facts.newcomers, &without))
}

fn tally(tally: &Tally, unanswered: &str) -> String {
    format!("{} answered, {} refused, {} {unanswered}", tally.answered, tally.refused, tally.unanswered)
}

/// The verdict, in the end.
pub(crate) fn verdict(outcome: Outcome, frozen: bool, width: usize) -> String {
    let name = outcome.word().replace('_', " ").to_uppercase();
    let mut out = wrap(&format!("{name}: {}.", outcome.meaning()), "", "  ", width);
    out.push_str(&line("why", outcome.explanation(), width));
    if !outcome.advice().is_empty() {
        out.push_str(&line("what to do", outcome.advice(), width));
    }
    if outcome.exit_status() == 0 && !frozen {
        out.push_str(&line("caution", NOT_FROZEN, width));
    }
    out
}

const NOT_FROZEN: &str = "A server quick enough to take them one by one has not met what strands others: \
                          many for one wake-up. --freeze makes sure of it.";

/// For programs.
pub(crate) fn json(outcome: Outcome, facts: &Facts, target: &str, plan: &Plan, took: Duration) -> Value {
    let mut all = serde_json::to_value(facts).unwrap_or_else(|_| json!({}));
    all["verdict"] = json!(outcome.word());
    all["unseen"] = match outcome {
        Outcome::Undetermined(unseen) => json!(unseen),
        _ => Value::Null,
    };
    all["exit_status"] = json!(outcome.exit_status());
    all["meaning"] = json!(outcome.meaning());
    all["explanation"] = json!(outcome.explanation());
    all["advice"] = json!(outcome.advice());
    all["target"] = json!(target);
    all["frozen"] = json!(plan.freeze);
    all["took_ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    all
}
