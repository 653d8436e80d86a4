//! What is on the screen: lines of text, made to its size. Pure.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::chart::{self, Ink};
use super::history::History;
use crate::see::Listener;
use crate::words::{duration, fill, fit, fit_end, plural};

/// What the user asked for, and what is known of the owners.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) interval: Duration,
    pub(crate) ink: Ink,
    /// Which listener the chart shows, from the top.
    pub(crate) selected: usize,
}

/// A line, and whether it is the one that is selected, or a heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    Heading,
    Selected,
    /// Something is wrong there.
    Alarm,
}

/// The owner of a listener and how it watches it, in words.
pub(crate) type Notes<'a> = &'a dyn Fn(&Listener) -> (String, String);

/// Everything below the table but the chart: how many more, the chart's heading, and what is at the foot.
const BELOW: usize = 2 + FOOT;
/// The rates, the keys.
const FOOT: usize = 2;
/// A chart lower than this says nothing.
const CHART_MIN: usize = 6;

/// Renders at most `height` lines of at most `width` characters.
pub(crate) fn render(
    view: &View,
    history: &History,
    notes: Notes<'_>,
    width: usize,
    height: usize,
) -> Vec<Line> {
    let Some(now) = history.now() else { return Vec::new() };
    let line = |text: String, look| Line { text: fit(&text, width), look };
    let mut lines = Vec::new();
    let (every, since) = (duration(view.interval), duration(now.at));
    let count = plural(now.listeners.len(), "listener");
    lines.push(line(
        format!("acceptq watch   {}   {count}   every {every}, for {since}", view.title),
        Look::Heading,
    ));
    lines.push(line(String::new(), Look::Plain));
    lines.push(line(row_of(&HEADINGS.map(String::from), width), Look::Heading));
    let room = height.saturating_sub(lines.len() + BELOW + CHART_MIN).max(1);
    // The selected one is always among those that are shown.
    let first = (view.selected + 1).saturating_sub(room);
    for (number, listener) in now.listeners.iter().enumerate().skip(first).take(room) {
        let look = match number == view.selected {
            true => Look::Selected,
            false if listener.queued >= listener.capacity() => Look::Alarm,
            false => Look::Plain,
        };
        lines.push(line(row(listener, history, notes, width), look));
    }
    let hidden = now.listeners.len().saturating_sub(room);
    let more = if hidden > 0 { format!("   {hidden} more: arrows scroll") } else { String::new() };
    match now.listeners.get(view.selected) {
        Some(listener) => {
            let oldest = now.oldest.get(&listener.cookie);
            let oldest = oldest.map(|age| format!(", the oldest for {}", duration(*age))).unwrap_or_default();
            lines.push(line(more, Look::Plain));
            let text = format!(
                "{} {}: {} of {} waiting{oldest}",
                listener.kind.name(),
                listener.address,
                listener.queued,
                listener.capacity()
            );
            lines.push(line(text, Look::Heading));
            let rows = height.saturating_sub(lines.len() + FOOT).max(1);
            let drawn = chart::draw(&history.depths(listener), width, rows, view.ink);
            lines.extend(drawn.into_iter().map(|text| line(text, Look::Plain)));
        }
        None => lines.push(line("nothing listens there at the moment".into(), Look::Alarm)),
    }
    lines.push(line(rates(history), Look::Plain));
    lines.push(line("q quits   up and down select".into(), Look::Plain));
    lines.truncate(height);
    lines
}

const HEADINGS: [&str; 8] = ["KIND", "ADDRESS", "QUEUED", "OF", "DROPS/S", "DEAD", "OWNER", "WATCHED"];

fn row(listener: &Listener, history: &History, notes: Notes<'_>, width: usize) -> String {
    let (owner, watched) = notes(listener);
    let dead = history.now().and_then(|now| now.dead.get(&listener.cookie));
    let cells = [
        listener.kind.name().to_string(),
        listener.address.to_string(),
        listener.queued.to_string(),
        listener.capacity().to_string(),
        rate(history.drops_per_second(listener)),
        dead.map_or_else(|| "-".into(), ToString::to_string),
        owner,
        watched,
    ];
    row_of(&cells, width)
}

/// Columns of fixed widths, so that nothing moves while it is watched; address and owner share what is left.
fn row_of(cells: &[String; 8], width: usize) -> String {
    let [kind, address, queued, of, drops, dead, owner, watched] = cells;
    let left = width.saturating_sub(9 + 7 + 6 + 8 + 6 + 10 + 3);
    let for_owner = (left * 2 / 5).min(30);
    let for_address = left.saturating_sub(for_owner).min(60);
    let address = fill(&fit_end(address, for_address), for_address);
    let numbers = format!("{queued:>6} {of:>6} {drops:>7} {dead:>5}");
    format!("{kind:<9} {address} {numbers}  {} {watched}", fill(owner, for_owner))
}

/// All TCP listeners together: the kernel does not count them one by one.
fn rates(history: &History) -> String {
    let rates = history.rates();
    format!(
        "all TCP listeners: {}/s arrive, {}/s accepted, {}/s overflow",
        rate(rates.arrivals),
        rate(rates.accepts),
        rate(rates.overflows)
    )
}

pub(crate) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".into(),
        Some(rate) if rate == 0.0 || rate >= 10.0 => format!("{rate:.0}"),
        Some(rate) => format!("{rate:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::super::history::tests::{listener, moment};
    use super::*;
    use crate::see::Address;

    fn view(selected: usize) -> View {
        View { title: "port 8001".into(), interval: Duration::from_secs(1), ink: Ink::Blocks, selected }
    }

    fn history(listeners: u8) -> History {
        let mut history = History::default();
        for second in 0..300 {
            let all = (0..listeners).map(|n| listener(n, u32::from(n) + second % 7)).collect();
            history.add(moment(second.into(), all, (second * 100).into()));
        }
        history
    }

    #[test]
    fn it_fits_whatever_the_size() {
        let notes = |_: &Listener| ("1234 a-server-with-a-long-name".to_string(), "edge".to_string());
        for listeners in [0, 1, 3, 100] {
            let history = history(listeners);
            for (width, height) in [(80, 24), (200, 50), (40, 10), (20, 5), (1, 1)] {
                let lines = render(&view(0), &history, &notes, width, height);
                assert!(lines.len() <= height, "{listeners} listeners at {width}x{height}");
                assert!(lines.iter().all(|line| line.text.chars().count() <= width));
            }
        }
    }

    #[test]
    fn a_screen_is_filled_and_the_selected_one_is_on_it() {
        let notes = |_: &Listener| ("1 x".to_string(), "level".to_string());
        let history = history(100);
        for (width, height) in [(80, 24), (200, 50)] {
            for selected in [0, 50, 99] {
                let lines = render(&view(selected), &history, &notes, width, height);
                assert_eq!(lines.len(), height);
                let chosen: Vec<_> = lines.iter().filter(|line| line.look == Look::Selected).collect();
                assert_eq!(chosen.len(), 1);
                assert!(chosen[0].text.contains(&format!(":{}", 8000 + selected)), "{chosen:?}");
            }
        }
    }

    #[test]
    fn wide_names_fit_and_shift_no_column() {
        let notes = |_: &Listener| ("1 サーバー".to_string(), "level".to_string());
        let mut history = History::default();
        let mut wide = listener(1, 3);
        wide.address = Address::Path("/run/日本語/日本語/日本語/日本語/日本語.sock".into());
        history.add(moment(0, vec![wide, listener(2, 3)], 0));
        let lines = render(&view(0), &history, &notes, 80, 24);
        assert!(lines.iter().all(|line| line.text.width() <= 80), "{lines:#?}");
        let columns = |line: &Line| line.text.split(" level").next().map(UnicodeWidthStr::width);
        assert_eq!(columns(&lines[3]), columns(&lines[4]), "{lines:#?}");
    }
}
