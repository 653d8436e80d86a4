//! What the doctor says: for people, and as JSON.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::gather::{Case, Gathered};
use super::judge::{Cause, Verdict};
use crate::see::{How, Waiting};
use crate::words::{duration, plural, wrap};

/// The oldest that are listed for people, and for programs.
const LISTED: usize = 3;
const LISTED_JSON: usize = 1000;
const INDENT: &str = "             ";

/// A case with what the judge said.
pub(crate) type Judged<'a> = (&'a Case, Cause);

#[derive(Serialize)]
struct Peer {
    peer: std::net::SocketAddr,
    state: &'static str,
    wait_ms: Option<u64>,
}

/// For programs. What could not be seen is null.
pub(crate) fn json(judged: &[Judged<'_>], gathered: &Gathered) -> Value {
    let cases = judged.iter().zip(lists(judged));
    let listeners: Vec<Value> = cases.map(|((case, cause), lists)| one(case, *cause, lists)).collect();
    // The worst one's facts stand at the top, so that a monitor need not choose.
    let mut all = listeners.first().cloned().unwrap_or_else(|| json!({}));
    all["watched_ms"] = json!(ms(gathered.watched));
    all["listen_overflows"] = json!(gathered.counters.listen_overflows);
    all["listen_drops"] = json!(gathered.counters.listen_drops);
    all["listen_overflows_meanwhile"] = json!(gathered.overflows_meanwhile);
    all["processes_hidden"] = json!(gathered.hidden);
    all["closed_meanwhile"] = json!(gathered.closed);
    all["listeners"] = json!(listeners);
    all
}

/// Which of the cases name those who wait: of several on one address, who share them, only the first.
fn lists(judged: &[Judged<'_>]) -> Vec<bool> {
    let mut told = HashSet::new();
    judged.iter().map(|(case, _)| !case.shared || told.insert(&case.listener.address)).collect()
}

fn one(case: &Case, cause: Cause, lists: bool) -> Value {
    let owner = case.facts.owner.as_ref();
    let table = case.table.map(|(_, table)| table);
    let verdict = cause.verdict();
    json!({
        "verdict": verdict,
        "exit_status": verdict.exit_status(),
        "cause": cause,
        "meaning": verdict.meaning(),
        "explanation": cause.explanation(),
        "advice": advice(case, cause),
        "kind": case.listener.kind,
        "address": case.listener.address,
        "inode": case.listener.inode,
        "uid": case.listener.uid,
        "queued": case.listener.queued,
        "backlog": case.listener.backlog,
        "capacity": case.listener.capacity(),
        "drops": case.listener.drops,
        "drops_meanwhile": case.facts.dropped,
        "taken_meanwhile": case.facts.taken,
        "close_wait_unowned": case.close_wait_unowned,
        "dead": case.dead,
        "oldest_wait_ms": case.oldest_wait().map(ms),
        "waiting": case.waiting.as_ref().filter(|_| lists).map(|all| peers_json(all)),
        "waiting_shared": case.shared,
        "trigger": case.trigger(),
        "registrations": owner.map(|_| &case.registrations),
        "pid": case.pid(),
        "command": case.command(),
        "holders": owner.map(|_| &case.holders),
        "owner_asleep": case.owner_asleep(),
        "doing": owner.map(|owner| owner.doing.iter().map(crate::see::Doing::name).collect::<Vec<_>>()),
        "cpu_percent": owner.map(|owner| (owner.cpu * 1000.0).round() / 10.0),
        "accepted_alive": owner.map(|owner| owner.accepted_alive),
        "descriptors": table.map(|table| table.used),
        "descriptors_limit": table.map(|table| table.limit),
    })
}

fn peers_json(all: &[Waiting]) -> Vec<Peer> {
    all.iter().take(LISTED_JSON).map(peer).collect()
}

fn peer(waiting: &Waiting) -> Peer {
    Peer { peer: waiting.peer, state: state(waiting), wait_ms: waiting.age.map(ms) }
}

fn state(waiting: &Waiting) -> &'static str {
    if waiting.close_wait { "CLOSE_WAIT" } else { "ESTABLISHED" }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For people.
pub(crate) fn text(judged: &[Judged<'_>], gathered: &Gathered, width: usize) -> String {
    let mut out = String::new();
    if judged.len() > 1 {
        let worst = judged.first().map_or(Verdict::Undetermined, |(_, cause)| cause.verdict());
        let _ = writeln!(out, "{} listeners; the worst is: {}\n", judged.len(), worst.name().to_uppercase());
    }
    for ((case, cause), lists) in judged.iter().zip(lists(judged)) {
        one_text(&mut out, case, *cause, gathered, width, lists);
        out.push('\n');
    }
    out.push_str(&foot(judged, gathered, width));
    out
}

fn one_text(out: &mut String, case: &Case, cause: Cause, gathered: &Gathered, width: usize, lists: bool) {
    let verdict = cause.verdict();
    let (kind, address) = (case.listener.kind.name(), &case.listener.address);
    let headline = format!("{kind} {address}: {}: {}.", verdict.name().to_uppercase(), verdict.meaning());
    out.push_str(&wrap(&headline, "", "  ", width));
    for (name, fact) in facts(case, gathered) {
        out.push_str(&wrap(&fact, &format!("  {name:<11}"), INDENT, width));
        if name == "waiting" && lists {
            peers(out, case);
        }
    }
    out.push_str(&wrap(cause.explanation(), "  why        ", INDENT, width));
    if verdict != Verdict::Healthy {
        out.push_str(&wrap(&advice(case, cause), "  what to do ", INDENT, width));
    }
}

/// The oldest of those who wait.
fn peers(out: &mut String, case: &Case) {
    for waiting in case.waiting.iter().flat_map(|all| all.iter()).take(LISTED) {
        let age = waiting.age.map_or_else(|| "?".into(), duration);
        let _ = writeln!(out, "{INDENT}{:<11} {:>12}  {}", state(waiting), age, waiting.peer);
    }
    let more = case.waiting.as_ref().map_or(0, |all| all.len().saturating_sub(LISTED));
    if more > 0 {
        let _ = writeln!(out, "{INDENT}and {more} more");
    }
}

/// With the process's number in the commands, where it is known.
fn advice(case: &Case, cause: Cause) -> String {
    match case.pid() {
        Some(pid) => cause.advice().replace("PID", &pid.to_string()),
        None => cause.advice().into(),
    }
}

fn facts(case: &Case, gathered: &Gathered) -> Vec<(&'static str, String)> {
    let mut facts = vec![("queue", queue(case)), ("taken", taken(case, gathered))];
    if let Some(waiting) = waiting(case) {
        facts.push(("waiting", waiting));
    }
    facts.push(("owner", owner(case)));
    if case.facts.owner.is_some() {
        facts.push(("threads", threads(case)));
        facts.push(("watched", watched(case)));
    }
    facts
}

fn queue(case: &Case) -> String {
    let listener = &case.listener;
    let mut text = format!("{} of {} waiting", listener.queued, listener.capacity());
    if let (Some(now), Some(ever)) = (case.facts.dropped, listener.drops) {
        let _ = write!(text, "; {now} dropped meanwhile, {ever} since it was made");
    }
    text
}

fn taken(case: &Case, gathered: &Gathered) -> String {
    let time = duration(gathered.watched);
    let lowest = case.facts.samples.iter().map(|sample| sample.queued).min();
    match case.facts.taken {
        _ if lowest == Some(0) => format!("all, at some time within {time}"),
        Some(true) => format!("some, within {time}"),
        Some(false) => format!("nothing in {time}"),
        None => "not to be seen".into(),
    }
}

fn waiting(case: &Case) -> Option<String> {
    if case.listener.queued == 0 && case.dead.unwrap_or(0) == 0 {
        return None;
    }
    let mut text = Vec::new();
    match case.oldest_wait() {
        Some(oldest) => text.push(format!("the oldest for {}", duration(oldest))),
        None if case.listener.kind.is_unix() => text.push("for how long Unix sockets do not tell".into()),
        None => {}
    }
    match (case.dead, case.close_wait_unowned) {
        (None, _) => text.push("too many for the kernel to tell how many of them are dead".into()),
        (Some(dead), None) => text.push(format!("{dead} of them dead")),
        (Some(dead), Some(all)) if all == dead => {
            text.push(format!("{dead} of them dead (CLOSE_WAIT, inode 0)"));
        }
        (Some(dead), Some(some)) => {
            let reset = dead.saturating_sub(some);
            let kinds =
                format!("{some} in CLOSE_WAIT with inode 0, {reset} reset, which the kernel does not list");
            text.push(format!("{dead} of them dead ({kinds})"));
        }
    }
    if case.shared {
        text.push("those of all listeners on this address together".into());
    }
    Some(text.join("; "))
}

fn owner(case: &Case) -> String {
    let (Some(pid), Some(command)) = (case.pid(), case.command()) else {
        let uid = case.listener.uid.map_or_else(|| "unknown".into(), |uid| uid.to_string());
        return format!("not to be seen; the socket was made by uid {uid}");
    };
    let mut text = format!("{command} (pid {pid})");
    let others = case.holders.iter().filter(|holder| holder.pid != pid).count();
    if others > 0 {
        let _ = write!(text, " and {}", plural(others, "other holder"));
    }
    if let Some((_, table)) = case.table {
        let _ = write!(text, "; {} of {} descriptors", table.used, table.limit);
    }
    let alive = case.facts.owner.as_ref().map_or(0, |owner| owner.accepted_alive);
    let _ = write!(text, "; {} open", plural(alive, "accepted connection"));
    text
}

fn threads(case: &Case) -> String {
    let Some(owner) = &case.facts.owner else { return String::new() };
    let asleep = match case.owner_asleep() {
        Some(true) => "asleep",
        Some(false) => "awake at times",
        None => "not to be seen",
    };
    let mut doing: Vec<String> = owner.doing.iter().map(crate::see::Doing::name).collect();
    doing.dedup();
    let cpu = owner.cpu * 100.0;
    format!("{asleep}; seen in: {}; the busiest used {cpu:.0} % of a processor", doing.join(", "))
}

fn watched(case: &Case) -> String {
    if case.registrations.is_empty() {
        return match case.trigger() {
            Some("accept") => "by a thread that sleeps in accept".into(),
            Some(_) => "by no epoll".into(),
            None => "by no epoll; a poll or an io_uring may watch it, which cannot be seen".into(),
        };
    }
    let one = |registration: &crate::see::Registration| {
        let how = match registration.how {
            How::Edge => "edge-triggered",
            How::Level => "level-triggered",
            How::Oneshot => "one-shot",
            How::Fired => "one-shot, fired and not armed again",
            How::Exclusive => "level-triggered, exclusive",
            How::Silenced => "silenced (no EPOLLIN)",
        };
        let (epoll, pid, mask) = (registration.epoll, registration.pid, registration.mask);
        format!("{how}, mask {mask:#x}, in epoll {epoll} of pid {pid}")
    };
    let mut all: Vec<String> = case.registrations.iter().take(LISTED).map(one).collect();
    if case.registrations.len() > LISTED {
        all.push(format!("and {} more", case.registrations.len() - LISTED));
    }
    all.join("; ")
}

fn foot(judged: &[Judged<'_>], gathered: &Gathered, width: usize) -> String {
    let mut out = String::new();
    if judged.iter().any(|(case, _)| !case.listener.kind.is_unix()) {
        if let (Some(all), Some(now)) = (gathered.counters.listen_overflows, gathered.overflows_meanwhile) {
            let text =
                format!("All TCP listeners here: {now} overflows meanwhile, {all} before (ListenOverflows).");
            out.push_str(&wrap(&text, "", "", width));
        }
    }
    if gathered.closed > 0 {
        let closed = plural(gathered.closed, "listener");
        out.push_str(&wrap(&format!("{closed} there closed meanwhile."), "", "", width));
    }
    if gathered.hidden > 0 && judged.iter().any(|(_, cause)| cause.verdict() != Verdict::Healthy) {
        let hidden = plural(gathered.hidden, "process");
        let text = format!("The descriptors of {hidden} could not be seen; root sees all.");
        out.push_str(&wrap(&text, "", "", width));
    }
    if gathered.unlisted && judged.iter().any(|(case, _)| case.facts.owner.is_none()) {
        out.push_str(&wrap(
            "The processes of others are not even listed (hidepid); root sees all.",
            "",
            "",
            width,
        ));
    }
    out
}
