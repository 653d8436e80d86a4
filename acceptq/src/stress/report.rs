//! The report of the stress test: a line for each stage, the verdict, and JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Behavior;
use super::observer::DoctorSummary;
use super::stages::Config;
use super::verdict::{ClientCounts, Facts, Limit, StressVerdict};
use crate::doctor::SCHEMA;
use crate::doctor::diagnose::Verdict;
use crate::format::{duration, plural, wrap};

const INDENT: &str = "             ";

/// Formats the line of a stage.
pub(crate) fn line(name: &str, text: &str, width: usize) -> String {
    wrap(text, &format!("  {name:<11}"), INDENT, width)
}

pub(crate) fn first(facts: &Facts) -> String {
    match facts.behavior {
        Some(Behavior::Greets) => "sends data first",
        Some(Behavior::GreetsAndCloses) => "sends data first, then closes: connections cannot be held",
        Some(Behavior::Answers) => "answers the request",
        Some(Behavior::ClosesWhenAsked) => "closes on the request; use --send to set one that it understands",
        Some(Behavior::Silent) => "accepts but sends nothing; an accepted connection counts as answered",
        None => "no answer",
    }
    .into()
}

pub(crate) fn hold(facts: &Facts) -> String {
    let held = plural(facts.held, "connection");
    match facts.limit {
        Limit::NotMet => format!("{held} held; no limit reached"),
        Limit::Waits => format!("{held} held; the next one waits"),
        Limit::Refuses => format!("{held} held; the next one was refused"),
    }
}

pub(crate) fn flood(facts: &Facts) -> String {
    let bursts = match facts.bursts {
        1 => "at once".into(),
        bursts => format!("in {bursts} bursts"),
    };
    let text = format!("{} {bursts}: {}", facts.flood.connected, counts(&facts.flood, "wait"));
    format!("{text}; then {} disconnected", facts.quit)
}

pub(crate) fn watched(summary: &DoctorSummary) -> String {
    let mut text = Vec::new();
    if let Some(queued) = summary.queued {
        text.push(format!("{queued} queued"));
    }
    if let Some(dead) = summary.dead {
        let state = match summary.close_wait_unowned {
            None => String::new(),
            Some(all) if all == dead => " (CLOSE_WAIT, inode 0)".into(),
            Some(some) => format!(" ({some} in CLOSE_WAIT with inode 0, the rest reset)"),
        };
        text.push(format!("{dead} dead{state}"));
    }
    if let Some(trigger) = summary.trigger {
        text.push(format!("trigger: {trigger}"));
    }
    match summary.owner_asleep {
        Some(true) => text.push("threads asleep".into()),
        Some(false) => text.push("threads running".into()),
        None => text.push("threads not visible".into()),
    }
    if let Some(cpu) = summary.cpu_percent {
        text.push(format!("{cpu:.0} % of a CPU"));
    }
    if let Some(verdict) = summary.verdict {
        text.push(format!("doctor: {}", verdict.name()));
    }
    text.join("; ")
}

pub(crate) fn free(facts: &Facts, config: &Config) -> String {
    let freed = plural(facts.freed, "connection");
    let left = match facts.left_behind {
        Some(left) => format!("{left} left in the queue"),
        None => "the queue is not visible".into(),
    };
    let patience = duration(config.patience);
    match (facts.resumed_with, facts.freed) {
        _ if facts.stalled => format!("{freed} closed; none accepted for {patience}; {left}"),
        (_, 0) if facts.held > 0 => {
            format!("none: the server does not close connections after the client's FIN; {left}")
        }
        (Some(_), _) => format!("{freed} closed; of the waiting clients: {}", counts(&facts.stayed, "wait")),
        (None, _) => format!("{freed} closed; {left}"),
    }
}

pub(crate) fn new_connections(facts: &Facts, config: &Config) -> String {
    let without = format!("unanswered for {}", duration(config.patience));
    format!("{} connected: {}", facts.new_connections.connected, counts(&facts.new_connections, &without))
}

fn counts(counts: &ClientCounts, unanswered: &str) -> String {
    format!("{} answered, {} refused, {} {unanswered}", counts.answered, counts.refused, counts.unanswered)
}

pub(crate) fn verdict(verdict: StressVerdict, facts: &Facts, frozen: bool, width: usize) -> String {
    let name = verdict.name().replace('_', " ").to_uppercase();
    let mut out = wrap(&format!("{name}: {}.", verdict.meaning()), "", "  ", width);
    out.push_str(&line("cause", verdict.explanation(), width));
    if !verdict.advice().is_empty() {
        out.push_str(&line("advice", verdict.advice(), width));
    }
    let held_back = matches!(facts.full.verdict, Some(Verdict::Stranded | Verdict::NotAccepting));
    if verdict.exit_status() == 0 && held_back {
        out.push_str(&line("note", HELD_BACK, width));
    }
    if verdict.exit_status() == 0 && !frozen {
        out.push_str(&line("note", NOT_FROZEN, width));
    }
    out
}

const HELD_BACK: &str = "At the limit the doctor saw a fault: from outside, a server that holds back accept (a \
                         semaphore) looks like one that has stopped accepting. The server has resumed.";

const NOT_FROZEN: &str = "A fast server accepts the connections one by one. Whether it accepts all after \
                          one wakeup for many was not tested: use --freeze.";

pub(crate) fn json(
    verdict: StressVerdict,
    facts: &Facts,
    target: &str,
    config: &Config,
    took: Duration,
) -> Value {
    let mut all = serde_json::to_value(facts).unwrap_or_else(|_| json!({}));
    all["schema"] = json!(SCHEMA);
    all["verdict"] = json!(verdict.name());
    all["unseen"] = match verdict {
        StressVerdict::Undetermined(unseen) => json!(unseen),
        _ => Value::Null,
    };
    all["exit_status"] = json!(verdict.exit_status());
    all["meaning"] = json!(verdict.meaning());
    all["explanation"] = json!(verdict.explanation());
    all["advice"] = json!(verdict.advice());
    all["target"] = json!(target);
    all["frozen"] = json!(config.freeze);
    all["took_ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    all
}
