//! The report of the diagnosis as JSON. What is not visible is null.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::collect::Collected;
use super::diagnose::Rule;
use super::inspection::{Inspection, Process};
use super::report::{Diagnosis, next, state};
use crate::probe::{Activity, Connection};

/// The version of the fields. A change that breaks a reader increments it.
pub(crate) const SCHEMA: u32 = 1;
/// The number of connections listed, oldest first.
const LISTED: usize = 1000;

#[derive(Serialize)]
struct Peer {
    peer: std::net::SocketAddr,
    state: &'static str,
    wait_ms: Option<u64>,
}

pub(crate) fn json(diagnoses: &[Diagnosis<'_>], collected: &Collected) -> Value {
    let inspections = diagnoses.iter().zip(lists(diagnoses));
    let listeners: Vec<Value> =
        inspections.map(|((inspection, rule), lists)| one(inspection, rule, lists, collected)).collect();
    // The fields of the worst listener are at the top level too, for monitoring.
    let mut all = listeners.first().cloned().unwrap_or_else(|| json!({}));
    all["schema"] = json!(SCHEMA);
    all["watched_ms"] = json!(ms(collected.period));
    all["listen_overflows"] = json!(collected.counters.listen_overflows);
    all["listen_drops"] = json!(collected.counters.listen_drops);
    all["listen_overflows_meanwhile"] = json!(collected.overflows_meanwhile);
    all["processes_hidden"] = json!(collected.hidden);
    all["closed_meanwhile"] = json!(collected.closed);
    all["listeners"] = json!(listeners);
    all
}

/// Returns which listeners list their connections: of several that share them, only the first.
fn lists(diagnoses: &[Diagnosis<'_>]) -> Vec<bool> {
    let mut listed = HashSet::new();
    diagnoses
        .iter()
        .map(|(inspection, _)| !inspection.shared || listed.insert(&inspection.listener.address))
        .collect()
}

fn one(inspection: &Inspection, rule: &Rule, lists: bool, collected: &Collected) -> Value {
    let (facts, listener) = (&inspection.facts, &inspection.listener);
    let owner = facts.owner.as_ref();
    let table = inspection.table.map(|(_, table)| table);
    let (cause, verdict, clients) = (rule.cause, rule.verdict(), &facts.clients);
    let text = json!({
        "verdict": verdict,
        "confidence": rule.confidence,
        "exit_status": verdict.exit_status(),
        "cause": cause,
        "meaning": verdict.meaning(),
        "explanation": cause.explanation(),
        "otherwise": cause.otherwise(),
        "next": next(inspection, cause, collected.netns.as_deref()),
    });
    let queue = json!({
        "kind": listener.kind,
        "address": listener.address,
        "inode": listener.inode,
        "uid": listener.uid,
        "queued": listener.queued,
        "backlog": listener.backlog,
        "capacity": listener.capacity(),
        "drops": listener.drops,
        "drops_meanwhile": facts.dropped,
        "taken_meanwhile": facts.any_accepted,
        "accepts_per_second": facts.accept_rate.map(round),
        "arrived_meanwhile": facts.any_arrived(),
        "handshakes": clients.handshakes,
        "deferred": clients.deferred,
        "close_wait_unowned": inspection.close_wait_unowned,
        "dead": inspection.dead,
        "oldest_wait_ms": facts.oldest_wait.map(ms),
        "expected_wait_ms": facts.expected_wait().filter(|_| listener.queued > 0).map(ms),
        "waiting": inspection.waiting.as_ref().filter(|_| lists).map(|all| peers(all)),
        "waiting_shared": inspection.shared,
    });
    let process = json!({
        "trigger": inspection.trigger(),
        "registrations": owner.map(|_| &inspection.registrations),
        "pid": inspection.pid(),
        "command": inspection.command(),
        "unit": inspection.unit(),
        "holders": owner.map(|_| &inspection.holders),
        "processes": owner.map(|_| inspection.processes.iter().map(process_json).collect::<Vec<_>>()),
        "stopped": owner.map(|owner| &owner.stopped),
        "owner_asleep": inspection.owner_asleep(),
        "doing": owner.map(|owner| owner.activities.iter().map(Activity::name).collect::<BTreeSet<_>>()),
        "cpu_percent": owner.map(|owner| round(owner.cpu * 100.0)),
        "waits_per_second": owner.and_then(|owner| owner.calls).map(|calls| round(calls.waits)),
        "calls_per_second": owner.and_then(|owner| owner.calls).map(|calls| round(calls.all)),
        "accepted_alive": owner.map(|owner| owner.accepted_alive),
        "open": clients.open,
        "unread": clients.unread,
        "descriptors": table.map(|table| table.used),
        "descriptors_limit": table.map(|table| table.limit),
    });
    let mut all = serde_json::Map::new();
    for part in [text, queue, process] {
        if let Value::Object(fields) = part {
            all.extend(fields);
        }
    }
    Value::Object(all)
}

fn process_json(process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "doing": process.activities.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "cpu_percent": round(process.cpu * 100.0),
        "accepted_alive": process.accepted,
        "stopped": process.is_stopped,
    })
}

fn peers(all: &[Connection]) -> Vec<Peer> {
    let one = |waiting: &Connection| Peer {
        peer: waiting.peer,
        state: state(waiting),
        wait_ms: waiting.age.map(ms),
    };
    all.iter().take(LISTED).map(one).collect()
}

pub(crate) fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
