//! The report of the diagnosis, as text and as JSON.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::collect::{Collected, Inspection};
use super::diagnose::{Cause, Verdict};
use super::facts::Owner;
use crate::format::{duration, plural, wrap};
use crate::probe::{Activity, Connection, Trigger};

/// The number of connections listed in the text and in JSON, oldest first.
const LISTED: usize = 3;
const LISTED_JSON: usize = 1000;
const INDENT: &str = "             ";

/// The observations of a listener and the cause derived from them.
pub(crate) type Diagnosis<'a> = (&'a Inspection, Cause);

#[derive(Serialize)]
struct Peer {
    peer: std::net::SocketAddr,
    state: &'static str,
    wait_ms: Option<u64>,
}

/// Formats JSON. What is not visible is null.
pub(crate) fn json(diagnoses: &[Diagnosis<'_>], collected: &Collected) -> Value {
    let inspections = diagnoses.iter().zip(lists(diagnoses));
    let listeners: Vec<Value> =
        inspections.map(|((inspection, cause), lists)| one(inspection, *cause, lists)).collect();
    // The fields of the worst listener are at the top level too, for monitoring.
    let mut all = listeners.first().cloned().unwrap_or_else(|| json!({}));
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

fn one(inspection: &Inspection, cause: Cause, lists: bool) -> Value {
    let owner = inspection.facts.owner.as_ref();
    let table = inspection.table.map(|(_, table)| table);
    let verdict = cause.verdict();
    json!({
        "verdict": verdict,
        "exit_status": verdict.exit_status(),
        "cause": cause,
        "meaning": verdict.meaning(),
        "explanation": cause.explanation(),
        "advice": advice(inspection, cause),
        "kind": inspection.listener.kind,
        "address": inspection.listener.address,
        "inode": inspection.listener.inode,
        "uid": inspection.listener.uid,
        "queued": inspection.listener.queued,
        "backlog": inspection.listener.backlog,
        "capacity": inspection.listener.capacity(),
        "drops": inspection.listener.drops,
        "drops_meanwhile": inspection.facts.dropped,
        "taken_meanwhile": inspection.facts.any_accepted,
        "close_wait_unowned": inspection.close_wait_unowned,
        "dead": inspection.dead,
        "oldest_wait_ms": inspection.oldest_wait().map(ms),
        "waiting": inspection.waiting.as_ref().filter(|_| lists).map(|all| peers_json(all)),
        "waiting_shared": inspection.shared,
        "trigger": inspection.trigger(),
        "registrations": owner.map(|_| &inspection.registrations),
        "pid": inspection.pid(),
        "command": inspection.command(),
        "holders": owner.map(|_| &inspection.holders),
        "owner_asleep": inspection.owner_asleep(),
        "doing": owner.map(activity_names),
        "cpu_percent": owner.map(|owner| (owner.cpu * 1000.0).round() / 10.0),
        "accepted_alive": owner.map(|owner| owner.accepted_alive),
        "descriptors": table.map(|table| table.used),
        "descriptors_limit": table.map(|table| table.limit),
    })
}

fn activity_names(owner: &Owner) -> Vec<String> {
    owner.activities.iter().map(Activity::name).collect()
}

fn peers_json(all: &[Connection]) -> Vec<Peer> {
    all.iter().take(LISTED_JSON).map(peer).collect()
}

fn peer(waiting: &Connection) -> Peer {
    Peer { peer: waiting.peer, state: state(waiting), wait_ms: waiting.age.map(ms) }
}

fn state(waiting: &Connection) -> &'static str {
    if waiting.close_wait { "CLOSE_WAIT" } else { "ESTABLISHED" }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Formats text.
pub(crate) fn text(diagnoses: &[Diagnosis<'_>], collected: &Collected, width: usize) -> String {
    let mut out = String::new();
    if diagnoses.len() > 1 {
        let worst = diagnoses.first().map_or(Verdict::Undetermined, |(_, cause)| cause.verdict());
        let _ = writeln!(
            out,
            "{} listeners; the worst verdict is {}\n",
            diagnoses.len(),
            worst.name().to_uppercase()
        );
    }
    for ((inspection, cause), lists) in diagnoses.iter().zip(lists(diagnoses)) {
        one_text(&mut out, inspection, *cause, collected, width, lists);
        out.push('\n');
    }
    out.push_str(&foot(diagnoses, collected, width));
    out
}

fn one_text(
    out: &mut String,
    inspection: &Inspection,
    cause: Cause,
    collected: &Collected,
    width: usize,
    lists: bool,
) {
    let verdict = cause.verdict();
    let (kind, address) = (inspection.listener.kind.name(), &inspection.listener.address);
    let headline = format!("{kind} {address}: {}: {}.", verdict.name().to_uppercase(), verdict.meaning());
    out.push_str(&wrap(&headline, "", "  ", width));
    for (name, fact) in facts(inspection, collected) {
        out.push_str(&wrap(&fact, &format!("  {name:<11}"), INDENT, width));
        if name == "waiting" && lists {
            peers(out, inspection);
        }
    }
    out.push_str(&wrap(cause.explanation(), "  cause      ", INDENT, width));
    if verdict != Verdict::Healthy {
        out.push_str(&wrap(&advice(inspection, cause), "  advice     ", INDENT, width));
    }
}

/// Lists the oldest connections.
fn peers(out: &mut String, inspection: &Inspection) {
    for waiting in inspection.waiting.iter().flat_map(|all| all.iter()).take(LISTED) {
        let age = waiting.age.map_or_else(|| "?".into(), duration);
        let _ = writeln!(out, "{INDENT}{:<11} {:>12}  {}", state(waiting), age, waiting.peer);
    }
    let more = inspection.waiting.as_ref().map_or(0, |all| all.len().saturating_sub(LISTED));
    if more > 0 {
        let _ = writeln!(out, "{INDENT}and {more} more");
    }
}

/// Returns the advice, with the process id inserted if it is known.
fn advice(inspection: &Inspection, cause: Cause) -> String {
    match inspection.pid() {
        Some(pid) => cause.advice().replace("PID", &pid.to_string()),
        None => cause.advice().into(),
    }
}

fn facts(inspection: &Inspection, collected: &Collected) -> Vec<(&'static str, String)> {
    let mut facts = vec![("queue", queue(inspection)), ("accepted", accepted(inspection, collected))];
    if let Some(waiting) = waiting(inspection) {
        facts.push(("waiting", waiting));
    }
    facts.push(("owner", owner(inspection)));
    if inspection.facts.owner.is_some() {
        facts.push(("threads", threads(inspection)));
        facts.push(("epoll", registrations(inspection)));
    }
    facts
}

fn queue(inspection: &Inspection) -> String {
    let listener = &inspection.listener;
    let mut text = format!("{} of {} waiting", listener.queued, listener.capacity());
    if let (Some(now), Some(ever)) = (inspection.facts.dropped, listener.drops) {
        let _ = write!(text, "; {now} dropped during the observation, {ever} since it was created");
    }
    text
}

fn accepted(inspection: &Inspection, collected: &Collected) -> String {
    let time = duration(collected.period);
    let lowest = inspection.facts.samples.iter().map(|sample| sample.queued).min();
    match inspection.facts.any_accepted {
        _ if lowest == Some(0) => format!("all in {time} (the queue was empty at least once)"),
        Some(true) => format!("some in {time}"),
        Some(false) => format!("none in {time}"),
        None => "not visible".into(),
    }
}

fn waiting(inspection: &Inspection) -> Option<String> {
    if inspection.listener.queued == 0 && inspection.dead.unwrap_or(0) == 0 {
        return None;
    }
    let mut text = Vec::new();
    match inspection.oldest_wait() {
        Some(oldest) => text.push(format!("oldest {}", duration(oldest))),
        None if inspection.listener.kind.is_unix() => {
            text.push("ages are not available for Unix sockets".into());
        }
        None => {}
    }
    match (inspection.dead, inspection.close_wait_unowned) {
        (None, _) => text.push("the queue is too long for the kernel to list dead connections".into()),
        (Some(dead), None) => text.push(format!("{dead} dead")),
        (Some(dead), Some(all)) if all == dead => {
            text.push(format!("{dead} dead (CLOSE_WAIT, inode 0)"));
        }
        (Some(dead), Some(some)) => {
            let reset = dead.saturating_sub(some);
            let kinds = format!("{some} in CLOSE_WAIT with inode 0, {reset} reset and not listed");
            text.push(format!("{dead} dead ({kinds})"));
        }
    }
    if inspection.shared {
        text.push("all listeners on this address together".into());
    }
    Some(text.join("; "))
}

fn owner(inspection: &Inspection) -> String {
    let (Some(pid), Some(command)) = (inspection.pid(), inspection.command()) else {
        let uid = inspection.listener.uid.map_or_else(|| "unknown".into(), |uid| uid.to_string());
        return format!("not visible; the socket was created by uid {uid}");
    };
    let mut text = format!("{command} (pid {pid})");
    let others = inspection.holders.iter().filter(|holder| holder.pid != pid).count();
    if others > 0 {
        let _ = write!(text, " and {}", plural(others, "other holder"));
    }
    if let Some((_, table)) = inspection.table {
        let _ = write!(text, "; {} of {} descriptors", table.used, table.limit);
    }
    let alive = inspection.facts.owner.as_ref().map_or(0, |owner| owner.accepted_alive);
    let _ = write!(text, "; {} open", plural(alive, "accepted connection"));
    text
}

fn threads(inspection: &Inspection) -> String {
    let Some(owner) = &inspection.facts.owner else { return String::new() };
    let asleep = match inspection.owner_asleep() {
        Some(true) => "asleep",
        Some(false) => "running at times",
        None => "not visible",
    };
    let mut activity = activity_names(owner);
    activity.dedup();
    let cpu = owner.cpu * 100.0;
    format!("{asleep}; seen in: {}; the busiest used {cpu:.0} % of a CPU", activity.join(", "))
}

fn registrations(inspection: &Inspection) -> String {
    if inspection.registrations.is_empty() {
        return match inspection.trigger() {
            Some("accept") => "not registered; a thread is blocked in accept".into(),
            Some(_) => "not registered".into(),
            None => "not registered; poll or io_uring may watch it, which is not visible".into(),
        };
    }
    let one = |registration: &crate::probe::Registration| {
        let trigger = match registration.trigger {
            Trigger::Edge => "edge-triggered",
            Trigger::Level => "level-triggered",
            Trigger::Oneshot => "one-shot",
            Trigger::Fired => "one-shot, fired, not rearmed",
            Trigger::Exclusive => "level-triggered, exclusive",
            Trigger::Disarmed => "disarmed (no EPOLLIN)",
        };
        let (epoll, pid, mask) = (registration.epoll, registration.pid, registration.mask);
        format!("{trigger}, mask {mask:#x}, in epoll fd {epoll} of pid {pid}")
    };
    let mut all: Vec<String> = inspection.registrations.iter().take(LISTED).map(one).collect();
    if inspection.registrations.len() > LISTED {
        all.push(format!("and {} more", inspection.registrations.len() - LISTED));
    }
    all.join("; ")
}

fn foot(diagnoses: &[Diagnosis<'_>], collected: &Collected, width: usize) -> String {
    let mut out = String::new();
    let counters = (collected.counters.listen_overflows, collected.overflows_meanwhile);
    if diagnoses.iter().any(|(inspection, _)| !inspection.listener.kind.is_unix())
        && let (Some(all), Some(now)) = counters
    {
        let text = format!(
            "All TCP listeners of this namespace: {now} overflows during the observation, {all} before \
             (ListenOverflows)."
        );
        out.push_str(&wrap(&text, "", "", width));
    }
    if collected.closed > 0 {
        let closed = plural(collected.closed, "listener");
        out.push_str(&wrap(&format!("{closed} closed during the observation."), "", "", width));
    }
    if collected.hidden > 0 && diagnoses.iter().any(|(_, cause)| cause.verdict() != Verdict::Healthy) {
        let hidden = plural(collected.hidden, "process");
        let text = format!("The descriptors of {hidden} are not visible. Run this as root.");
        out.push_str(&wrap(&text, "", "", width));
    }
    if collected.unlisted && diagnoses.iter().any(|(inspection, _)| inspection.facts.owner.is_none()) {
        out.push_str(&wrap(
            "/proc hides the processes of other users (hidepid). Run this as root.",
            "",
            "",
            width,
        ));
    }
    out
}
