//! Renders the screen as lines of text. Pure.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::chart::{self, Charset};
use super::history::History;
use crate::format::{duration, fill, fit, fit_end, plural};
use crate::probe::Listener;

/// The settings and the selection.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) interval: Duration,
    pub(crate) charset: Charset,
    /// The position of the listener that the chart shows.
    pub(crate) selected: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) style: LineStyle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineStyle {
    Plain,
    Heading,
    Selected,
    /// The queue is full.
    Alarm,
}

/// Returns the columns OWNER and WATCHED of a listener.
pub(crate) type Notes<'a> = &'a dyn Fn(&Listener) -> (String, String);

/// The lines below the table except the chart: the number of hidden listeners, the chart's heading, the
/// footer.
const BELOW: usize = 2 + FOOT;
/// The lines of the footer: rates and keys.
const FOOT: usize = 2;
/// The minimum height of the chart.
const CHART_MIN: usize = 6;

/// Renders at most `height` lines of at most `width` columns.
pub(crate) fn render(
    view: &View,
    history: &History,
    notes: Notes<'_>,
    width: usize,
    height: usize,
) -> Vec<Line> {
    let Some(now) = history.now() else { return Vec::new() };
    let line = |text: String, style| Line { text: fit(&text, width), style };
    let mut lines = Vec::new();
    let (interval, elapsed) = (duration(view.interval), duration(now.at));
    let count = plural(now.listeners.len(), "listener");
    lines.push(line(
        format!("acceptq watch   {}   {count}   every {interval}, for {elapsed}", view.title),
        LineStyle::Heading,
    ));
    lines.push(line(String::new(), LineStyle::Plain));
    lines.push(line(row_of(&HEADINGS.map(String::from), width), LineStyle::Heading));
    let room = height.saturating_sub(lines.len() + BELOW + CHART_MIN).max(1);
    // The selected listener is always visible.
    let first = (view.selected + 1).saturating_sub(room);
    for (number, listener) in now.listeners.iter().enumerate().skip(first).take(room) {
        let style = match number == view.selected {
            true => LineStyle::Selected,
            false if listener.queued >= listener.capacity() => LineStyle::Alarm,
            false => LineStyle::Plain,
        };
        lines.push(line(row(listener, history, notes, width), style));
    }
    let hidden = now.listeners.len().saturating_sub(room);
    let more =
        if hidden > 0 { format!("   {hidden} more (scroll with the arrow keys)") } else { String::new() };
    match now.listeners.get(view.selected) {
        Some(listener) => {
            let oldest = now.oldest.get(&listener.cookie);
            let oldest = oldest.map(|age| format!(", oldest {}", duration(*age))).unwrap_or_default();
            lines.push(line(more, LineStyle::Plain));
            let text = format!(
                "{} {}: {} of {} waiting{oldest}",
                listener.kind.name(),
                listener.address,
                listener.queued,
                listener.capacity()
            );
            lines.push(line(text, LineStyle::Heading));
            let rows = height.saturating_sub(lines.len() + FOOT).max(1);
            let drawn = chart::draw(&history.depths(listener), width, rows, view.charset);
            lines.extend(drawn.into_iter().map(|text| line(text, LineStyle::Plain)));
        }
        None => lines.push(line("nothing listens at the target".into(), LineStyle::Alarm)),
    }
    lines.push(line(rates(history), LineStyle::Plain));
    lines.push(line("q: quit   up/down: select".into(), LineStyle::Plain));
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

/// Formats a row with fixed column widths; address and owner share the remaining width.
fn row_of(cells: &[String; 8], width: usize) -> String {
    let [kind, address, queued, of, drops, dead, owner, watched] = cells;
    // The numbers and their blanks, and the longest of KIND and WATCHED.
    let left = width.saturating_sub(27 + 5 + "seqpacket".len() + "exclusive".len());
    let for_owner = (left * 2 / 5).min(30);
    let for_address = left.saturating_sub(for_owner).min(60);
    let address = fill(&fit_end(address, for_address), for_address);
    let numbers = format!("{queued:>6} {of:>6} {drops:>7} {dead:>5}");
    format!("{kind:<9} {address} {numbers}  {} {watched}", fill(owner, for_owner))
}

/// Formats the rates of all TCP listeners combined: the kernel has no counters per listener.
fn rates(history: &History) -> String {
    let rates = history.rates();
    format!(
        "all TCP listeners: {} arrivals/s, {} accepts/s, {} overflows/s",
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

    use super::super::history::tests::{listener, snapshot};
    use super::*;
    use crate::probe::Address;

    fn view(selected: usize) -> View {
        View {
            title: "port 8001".into(),
            interval: Duration::from_secs(1),
            charset: Charset::Blocks,
            selected,
        }
    }

    fn history(listeners: u8) -> History {
        let mut history = History::default();
        for second in 0..300 {
            let all = (0..listeners).map(|n| listener(n, u32::from(n) + second % 7)).collect();
            history.add(snapshot(second.into(), all, (second * 100).into()));
        }
        history
    }

    #[test]
    fn screen_fits_any_size() {
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
    fn screen_shows_selected_listener() {
        let notes = |_: &Listener| ("1 x".to_string(), "level".to_string());
        let history = history(100);
        for (width, height) in [(80, 24), (200, 50)] {
            for selected in [0, 50, 99] {
                let lines = render(&view(selected), &history, &notes, width, height);
                assert_eq!(lines.len(), height);
                let chosen: Vec<_> = lines.iter().filter(|line| line.style == LineStyle::Selected).collect();
                assert_eq!(chosen.len(), 1);
                assert!(chosen[0].text.contains(&format!(":{}", 8000 + selected)), "{chosen:?}");
            }
        }
    }

    #[test]
    fn wide_names_keep_columns_aligned() {
        let notes = |_: &Listener| ("1 サーバー".to_string(), "level".to_string());
        let mut history = History::default();
        let mut wide = listener(1, 3);
        wide.address = Address::Path("/run/日本語/日本語/日本語/日本語/日本語.sock".into());
        history.add(snapshot(0, vec![wide, listener(2, 3)], 0));
        let lines = render(&view(0), &history, &notes, 80, 24);
        assert!(lines.iter().all(|line| line.text.width() <= 80), "{lines:#?}");
        let columns = |line: &Line| line.text.split(" level").next().map(UnicodeWidthStr::width);
        assert_eq!(columns(&lines[3]), columns(&lines[4]), "{lines:#?}");
    }
}
