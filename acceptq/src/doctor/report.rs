//! The report of the diagnosis as text: the verdict, what it is based on, and the next command. It fits on a
//! terminal of 80 x 24; `--verbose` adds the details.

use std::fmt::Write as _;

use super::collect::Collected;
use super::details;
use super::diagnose::{Cause, Rule, Verdict};
use super::inspection::{Inspection, Process};
use crate::format::{duration, fill, fit, fit_end, plural, quoted, wrap};
use crate::probe::{Address, Connection};
use crate::{is_root, remedy};

const INDENT: &str = "             ";
/// Up to this many listeners are all listed.
const LISTED: usize = 8;

/// The observations of a listener, and the rule of the table that decides.
pub(crate) type Diagnosis<'a> = (&'a Inspection, &'static Rule);

/// Formats text. With several listeners all are listed, and the worst is explained.
pub(crate) fn text(
    diagnoses: &[Diagnosis<'_>],
    collected: &Collected,
    width: usize,
    verbose: bool,
) -> String {
    let mut out = String::new();
    if diagnoses.len() > 1 {
        out.push_str(&summary(diagnoses, width, verbose));
        out.push('\n');
    }
    let explained = if verbose { diagnoses.len() } else { 1 };
    for (inspection, rule) in diagnoses.iter().take(explained) {
        one(&mut out, inspection, rule, collected, width, verbose);
    }
    let others = diagnoses.iter().skip(explained);
    let faults = others.filter(|(_, rule)| !matches!(rule.verdict().exit_status(), 0 | 4 | 5)).count();
    if faults > 0 {
        let have = if faults == 1 { "has" } else { "have" };
        let text =
            format!("{} {have} a fault, too: --verbose explains all.", plural(faults, "more listener"));
        out.push_str(&wrap(&text, "\n", "", width));
    }
    out.push_str(&foot(diagnoses, collected, width));
    out
}

/// Formats a line for each listener. Of many, those without a fault are only counted.
fn summary(diagnoses: &[Diagnosis<'_>], width: usize, verbose: bool) -> String {
    let has_fault = |(_, rule): &&Diagnosis<'_>| rule.verdict() > Verdict::Idle;
    let lists_all = verbose || diagnoses.len() <= LISTED;
    let listed = diagnoses.iter().filter(|diagnosis| lists_all || has_fault(diagnosis));
    let mut out: String = listed.map(|diagnosis| summary_line(diagnosis, width)).collect();
    let others = diagnoses.iter().filter(|diagnosis| !has_fault(diagnosis)).count();
    if !lists_all && others > 0 {
        let listeners = plural(others, "listener");
        out.push_str(&format!("no fault seen at {listeners} (--verbose lists them)\n"));
    }
    out
}

fn summary_line((inspection, rule): &Diagnosis<'_>, width: usize) -> String {
    let listener = &inspection.listener;
    let owner = match (inspection.pid(), inspection.command()) {
        (Some(pid), Some(command)) => format!("{command} {pid}"),
        _ => "?".into(),
    };
    let (kind, address) = (listener.kind.name(), listener.address.to_string());
    let verdict = match rule.verdict() {
        Verdict::AtLimit => "at its limit",
        verdict => verdict.name(),
    };
    let queued = format!("{}/{}", listener.queued, listener.capacity());
    // The others need 37 columns, and the owner 16.
    let for_address = width.saturating_sub(53 + kind.len()).max(21);
    let address = fill(&fit_end(&address, for_address), for_address);
    let line = format!("{}  {kind} {address} {queued:>9}  {owner}", fill(verdict, 22));
    format!("{}\n", fit(&line, width).trim_end())
}

fn one(
    out: &mut String,
    inspection: &Inspection,
    rule: &Rule,
    collected: &Collected,
    width: usize,
    verbose: bool,
) {
    let (cause, verdict) = (rule.cause, rule.verdict());
    let (kind, address) = (inspection.listener.kind.name(), &inspection.listener.address);
    let headline = format!("{kind} {address}: {}: {}.", verdict.name().to_uppercase(), verdict.meaning());
    out.push_str(&wrap(&headline, "", "  ", width));
    let mut line = |name: &str, text: &str| {
        out.push_str(&wrap(text, &format!("  {name:<11}"), INDENT, width));
    };
    line("queue", &queue(inspection, collected));
    line("process", &process(inspection));
    if verbose {
        for (name, text) in details::lines(inspection, collected) {
            line(name, &text);
        }
    }
    line("why", cause.explanation());
    if !cause.otherwise().is_empty() {
        line("or", cause.otherwise());
    }
    line("confidence", rule.confidence.name());
    if verbose {
        line("rule", &format!("{} of acceptq doctor --explain", rule.number()));
    }
    line("next", &next(inspection, cause, collected.netns.as_deref()));
}

/// Returns the next command, with the placeholders replaced. A name that a process has chosen is inserted last: it may
/// contain placeholders.
pub(crate) fn next(inspection: &Inspection, cause: Cause, netns: Option<&str>) -> String {
    let address = quoted(&inspection.listener.address.to_string());
    let (connect, connections) = match &inspection.listener.address {
        Address::Inet(socket) => {
            (format!("curl -m 5 {address}"), format!("ss -tnp sport = :{}", socket.port()))
        }
        Address::Abstract(_) => {
            let name = address.replacen('@', "", 1);
            (format!("curl -m 5 --abstract-unix-socket {name} http://localhost/"), "ss -xp".into())
        }
        Address::Path(_) | Address::Unnamed => {
            (format!("curl -m 5 --unix-socket {address} http://localhost/"), "ss -xp".into())
        }
    };
    let pid = inspection.pid().map_or_else(|| "PID".into(), |pid| pid.to_string());
    let owner = inspection.facts.owner.as_ref();
    let tid = owner.and_then(|owner| owner.tid).map_or_else(|| "TID".into(), |tid| tid.to_string());
    let stopped = owner.map(|owner| &owner.stopped[..]).unwrap_or_default();
    let stopped = stopped.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let text = match cause {
        Cause::OwnerHidden if is_root() => Cause::OwnerElsewhere.next(),
        cause => cause.next(),
    };
    let text = text.replace("STOPPED", &stopped).replace("PID", &pid).replace("TID", &tid);
    let mut text = text.replace("ss -tnp sport = :PORT", &connections);
    if let Some(netns) = netns {
        text = text.replace("acceptq ", &format!("acceptq --netns {} ", quoted(netns)));
        for command in ["curl -m", "ss -t", "ss -x"] {
            text = text.replace(command, &format!("nsenter -t {pid} -n {command}"));
        }
    }
    match text.contains("TARGET") {
        true => text.replace("TARGET", &address),
        false => text.replace("curl -m 5 localhost:PORT", &connect),
    }
}

fn queue(inspection: &Inspection, collected: &Collected) -> String {
    let (listener, facts) = (&inspection.listener, &inspection.facts);
    let mut text =
        format!("{} of {} queued; {}", listener.queued, listener.capacity(), accepted(inspection, collected));
    if listener.queued > 0 {
        if let Some(oldest) = facts.oldest_wait {
            let _ = write!(text, "; oldest {}", duration(oldest));
        }
        if facts.any_accepted == Some(true)
            && let Some(wait) = facts.expected_wait()
        {
            let _ = write!(text, "; a new connection waits about {}", duration(wait));
        }
    }
    if let Some(dead @ 1..) = inspection.dead {
        let _ = write!(text, "; {dead} dead");
    }
    if let Some(dropped @ 1..) = facts.dropped {
        let _ = write!(text, "; {dropped} dropped");
    }
    let deferred = facts.clients.deferred;
    if deferred > 0 {
        let _ = write!(text, "; {deferred} in SYN_RECV until they send data (TCP_DEFER_ACCEPT)");
    }
    if let others @ 1.. = facts.clients.handshakes.saturating_sub(deferred) {
        let _ = write!(text, "; {others} in SYN_RECV (handshake, or TCP_DEFER_ACCEPT)");
    }
    text
}

fn accepted(inspection: &Inspection, collected: &Collected) -> String {
    let (time, facts) = (duration(collected.period), &inspection.facts);
    let lowest = facts.samples.iter().map(|sample| sample.queued).min();
    match (facts.any_accepted, facts.accept_rate) {
        _ if lowest == Some(0) && facts.clients.new_open > 0 => {
            format!("{} new and open in {time}", facts.clients.new_open)
        }
        (Some(true), Some(rate)) if lowest > Some(0) && rate > 0.0 => format!("{rate:.0} accepted a second"),
        (Some(true), _) => format!("some accepted in {time}"),
        (Some(false), _) if lowest > Some(0) => format!("none accepted in {time}"),
        _ if facts.clients.arrived => format!("some arrived in {time}"),
        _ if lowest == Some(0) => format!("empty at least once in {time}"),
        _ => "accepts are not visible".into(),
    }
}

/// Describes the process to look at, and counts the others.
fn process(inspection: &Inspection) -> String {
    let (Some(pid), Some(command)) = (inspection.pid(), inspection.command()) else {
        let uid = inspection.listener.uid.map_or_else(|| "unknown".into(), |uid| uid.to_string());
        return format!("not visible; the socket was created by uid {uid}");
    };
    let unit = inspection.unit().map(|unit| format!(", {unit}")).unwrap_or_default();
    let mut text = format!("{command} (pid {pid}{unit})");
    if let Some(process) = inspection.processes.iter().find(|process| process.pid == pid) {
        let _ = write!(text, " {}", activity(process));
    }
    if inspection.processes.len() > 1 {
        let _ = write!(text, "; {} processes accept here", inspection.processes.len());
    }
    if let Some((_, table)) = inspection.table {
        let _ = write!(text, "; {} of {} descriptors", table.used, table.limit);
    }
    let clients = &inspection.facts.clients;
    let _ = write!(text, "; {} open", plural(clients.open, "accepted connection"));
    if clients.unread > 0 {
        let _ = write!(text, ", {} with unread data", clients.unread);
    }
    text
}

/// Describes what a process does.
pub(super) fn activity(process: &Process) -> String {
    if process.is_stopped {
        return "is stopped".into();
    }
    if process.activities.is_empty() {
        return "began during the observation".into();
    }
    let are_many = process.activities.iter().any(|(_, threads)| *threads > 1);
    let describe = |(name, threads): &(String, usize)| match are_many {
        true => format!("{name} ({})", plural(*threads, "thread")),
        false => name.clone(),
    };
    let all: Vec<_> = process.activities.iter().map(describe).collect();
    format!("in {}, {:.0} % CPU", all.join(", "), process.cpu * 100.0)
}

pub(super) fn state(waiting: &Connection) -> &'static str {
    if waiting.close_wait { "CLOSE_WAIT" } else { "ESTABLISHED" }
}

fn foot(diagnoses: &[Diagnosis<'_>], collected: &Collected, width: usize) -> String {
    let mut out = String::new();
    if collected.closed > 0 {
        let closed = plural(collected.closed, "listener");
        out.push_str(&wrap(&format!("{closed} closed during the observation."), "", "", width));
    }
    if collected.hidden > 0 && diagnoses.iter().any(|(_, rule)| rule.verdict() == Verdict::Undetermined) {
        let hidden = plural(collected.hidden, "process");
        let text = format!("The descriptors of {hidden} are not visible. {}", remedy());
        out.push_str(&wrap(&text, "", "", width));
    }
    if collected.unlisted && diagnoses.iter().any(|(inspection, _)| inspection.facts.owner.is_none()) {
        let text = format!("/proc hides the processes of other users (hidepid). {}", remedy());
        out.push_str(&wrap(&text, "", "", width));
    }
    out
}
