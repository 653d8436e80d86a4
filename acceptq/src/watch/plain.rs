//! The output of `watch` without a terminal: lines of text. Pure.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::history::{History, Snapshot};
use super::screen::rate;
use crate::format::{duration, plural};
use crate::probe::Listener;

/// Formats one line per selected listener, or one line for all listeners.
pub(crate) fn lines(history: &History, is_chosen: bool) -> String {
    let Some(now) = history.now() else { return String::new() };
    let mut out = String::new();
    if now.listeners.is_empty() {
        let _ = writeln!(out, "{:>8}  nothing listens at the target", duration(now.at));
    } else if is_chosen {
        for listener in &now.listeners {
            one(&mut out, history, now, listener);
        }
    } else {
        all(&mut out, history, now);
    }
    out
}

fn one(out: &mut String, history: &History, now: &Snapshot, listener: &Listener) {
    let (at, kind) = (duration(now.at), listener.kind.name());
    let (queued, capacity) = (listener.queued, listener.capacity());
    let _ = write!(out, "{at:>8}  {kind} {}  queued {queued} of {capacity}", listener.address);
    if let Some(dead) = now.dead.get(&listener.cookie) {
        let _ = write!(out, "  dead {dead}");
    }
    if let Some(oldest) = now.oldest.get(&listener.cookie) {
        let _ = write!(out, "  oldest {}", duration(*oldest));
    }
    if !listener.kind.is_unix() {
        let rates = history.rates();
        let drops = rate(history.drops_per_second(listener));
        let _ = write!(out, "  drops/s {drops}  all TCP: accepts/s {}", rate(rates.accepts));
        let _ = write!(out, " overflows/s {}", rate(rates.overflows));
    }
    out.push('\n');
}

fn all(out: &mut String, history: &History, now: &Snapshot) {
    let queued: u64 = now.listeners.iter().map(|listener| u64::from(listener.queued)).sum();
    let dead: usize = now.dead.values().sum();
    let (at, count) = (duration(now.at), plural(now.listeners.len(), "listener"));
    let rates = history.rates();
    let _ = write!(out, "{at:>8}  {count}  queued {queued}  dead {dead}");
    let _ = write!(out, "  all TCP: accepts/s {}", rate(rates.accepts));
    let _ = write!(out, " overflows/s {}", rate(rates.overflows));
    let deepest = now.listeners.iter().max_by_key(|listener| listener.queued);
    if let Some(deepest) = deepest.filter(|deepest| deepest.queued > 0) {
        let _ = write!(out, "  longest {} of {} at {}", deepest.queued, deepest.capacity(), deepest.address);
    }
    out.push('\n');
}
