//! The output: a table, or one JSON object per scenario and one for all.

use std::io::{self, Write};
use std::time::Duration;

use epoll_acceptor::Trigger;
use serde_json::{Value, json};

use crate::harness::{End, Outcome, Scenario};
use crate::machine;

/// The results of all scenarios.
pub(crate) struct Report {
    pub(crate) trigger: Trigger,
    pub(crate) rows: Vec<(Scenario, Duration, End)>,
}

impl Report {
    pub(crate) fn is_balanced(&self) -> bool {
        self.done().all(|(_, _, outcome)| outcome.is_balanced())
    }

    fn done(&self) -> impl Iterator<Item = (&Scenario, Duration, &Outcome)> {
        self.rows.iter().filter_map(|(scenario, time, end)| match end {
            End::Done(outcome) => Some((scenario, *time, &**outcome)),
            End::Skipped(_) => None,
        })
    }

    fn skipped(&self) -> impl Iterator<Item = (&Scenario, &str)> {
        self.rows.iter().filter_map(|(scenario, _, end)| match end {
            End::Skipped(why) => Some((scenario, why.as_str())),
            End::Done(_) => None,
        })
    }

    pub(crate) fn print_json(&self) -> io::Result<()> {
        let mut out = io::stdout();
        let machine = machine::describe();
        for (scenario, time, end) in &self.rows {
            let mut object = match end {
                End::Done(outcome) => outcome.to_json(),
                End::Skipped(why) => json!({ "skipped": why }),
            };
            object["bench"] = "soak".into();
            object["scenario"] = scenario.name.into();
            object["about"] = scenario.about.into();
            object["seconds"] = time.as_secs_f64().into();
            object["trigger"] = self.trigger.to_string().into();
            object["machine"] = machine.clone().into();
            writeln!(out, "{object}")?;
        }
        let mut all = self.sum().to_json();
        all["bench"] = "soak".into();
        all["scenario"] = "all".into();
        all["trigger"] = self.trigger.to_string().into();
        all["machine"] = machine.into();
        all["seconds"] = self.rows.iter().map(|(_, time, _)| time.as_secs_f64()).sum::<f64>().into();
        all["skipped"] = self.skipped().map(|(scenario, _)| scenario.name).collect::<Value>();
        writeln!(out, "{all}")
    }

    pub(crate) fn print_table(&self) -> io::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{}; {}\n\n{HEAD}", machine::describe(), self.trigger)?;
        for (scenario, _, outcome) in self.done() {
            writeln!(out, "{}", row(scenario.name, outcome))?;
        }
        writeln!(out, "{}", row("all", &self.sum()))?;
        for (scenario, _, outcome) in self.done() {
            for broken in &outcome.broken {
                writeln!(out, "BROKEN {}: expected: {broken}", scenario.name)?;
            }
        }
        writeln!(out)?;
        for (scenario, _, outcome) in self.done() {
            let more = outcome.more.iter().filter(|(key, _)| *key != "over_time" && *key != "pausing");
            let more: Vec<_> = more.map(|(key, value)| format!("{key} {}", short(value))).collect();
            writeln!(out, "{}: {}", scenario.name, more.join(", "))?;
        }
        for (scenario, why) in self.skipped() {
            writeln!(out, "SKIPPED {}: {why}", scenario.name)?;
        }
        Ok(())
    }

    /// Adds up all scenarios; of the peaks, the largest stays with its limit.
    fn sum(&self) -> Outcome {
        let mut sum = Outcome::default();
        for (scenario, _, outcome) in self.done() {
            sum.connected += outcome.connected;
            sum.delivered += outcome.delivered;
            sum.refused += outcome.refused;
            sum.unanswered += outcome.unanswered;
            sum.stranded += outcome.stranded;
            sum.leaked_descriptors += outcome.leaked_descriptors;
            if outcome.peak_in_service >= sum.peak_in_service {
                (sum.peak_in_service, sum.limit) = (outcome.peak_in_service, outcome.limit);
            }
            sum.broken.extend(outcome.broken.iter().map(|broken| format!("{}: {broken}", scenario.name)));
        }
        sum
    }
}

impl Outcome {
    fn to_json(&self) -> Value {
        let mut object = json!({
            "connected": self.connected,
            "delivered": self.delivered,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "stranded": self.stranded,
            "leaked_descriptors": self.leaked_descriptors,
            "peak_in_service": self.peak_in_service,
            "limit": self.limit,
            "balanced": self.is_balanced(),
            "broken": self.broken,
        });
        for (key, value) in &self.more {
            object[key] = value.clone();
        }
        object
    }
}

const HEAD: &str = concat!(
    "            connected delivered  refused   un-   strand-  leaked  most in\n",
    "scenario                                answered   ed   descript. service   limit",
);

fn row(name: &str, outcome: &Outcome) -> String {
    format!(
        "{name:<12}{:>9} {:>9} {:>8} {:>7} {:>6} {:>9} {:>8} {:>7} {}",
        outcome.connected,
        outcome.delivered,
        outcome.refused,
        outcome.unanswered,
        outcome.stranded,
        outcome.leaked_descriptors,
        outcome.peak_in_service,
        outcome.limit,
        if outcome.is_balanced() { "ok" } else { "BROKEN" },
    )
}

fn short(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let parts = object.iter().map(|(key, value)| format!("{key} {}", short(value)));
            format!("({})", parts.collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
