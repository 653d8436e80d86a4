//! The lines that `acceptq doctor --verbose` adds.

use super::collect::Collected;
use super::inspection::Inspection;
use super::report::{activity, state};
use crate::format::{duration, plural};
use crate::probe::Trigger;

/// The number of connections, registrations and processes listed.
const LISTED: usize = 4;

/// Returns the named details of one listener.
pub(super) fn lines(inspection: &Inspection, collected: &Collected) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(drops) = inspection.listener.drops {
        let meanwhile = inspection.facts.dropped.unwrap_or(0);
        lines.push(("drops", format!("{meanwhile} during the observation, {drops} since it was created")));
    }
    lines.extend(waiting(inspection).map(|text| ("waiting", text)));
    for one in inspection.waiting.iter().flat_map(|all| all.iter().take(LISTED)) {
        let age = one.age.map_or_else(|| "-".into(), duration);
        lines.push(("", format!("{} {age} {}", state(one), one.peer)));
    }
    if let Some(owner) = &inspection.facts.owner {
        for process in inspection.processes.iter().take(LISTED) {
            let connections = plural(process.accepted, "accepted connection");
            lines.push(("threads", format!("pid {}: {}; {connections}", process.pid, activity(process))));
        }
        let more = inspection.processes.len().saturating_sub(LISTED);
        if more > 0 {
            lines.push(("", format!("and {more} more")));
        }
        lines.extend(owner.calls.map(|calls| {
            ("calls", format!("{:.0} a second, {:.0} of them waits or accepts", calls.all, calls.waits))
        }));
        lines.push(("epoll", registrations(inspection)));
    }
    let counters = (collected.counters.listen_overflows, collected.overflows_meanwhile);
    if !inspection.listener.kind.is_unix()
        && let (Some(all), Some(now)) = counters
    {
        let text = format!("{now} meanwhile, {all} before: ListenOverflows of all TCP listeners");
        lines.push(("overflows", text));
    }
    lines
}

fn waiting(inspection: &Inspection) -> Option<String> {
    if inspection.listener.queued == 0 && inspection.dead.unwrap_or(0) == 0 {
        return None;
    }
    let mut text = Vec::new();
    match inspection.facts.oldest_wait {
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
