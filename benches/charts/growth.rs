//! The bench `growth`: how the cost of a connection scales.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Mark, Series};
use crate::rows::Row;
use crate::tables::{machine, table};

/// The axes: the bench's name, and the name in the tables.
const NAMES: [(&str, &str); 9] = [
    ("queue, level", "connections queued, level"),
    ("queue, edge", "connections queued, edge"),
    ("queue, level by hand", "connections queued, hand-written level loop"),
    ("registered, lone", "other descriptors on the epoll, lone"),
    ("registered, bursts of 32", "other descriptors on the epoll, bursts of 32"),
    ("one gate, with room", "acceptors sharing a gate with free permits"),
    ("listeners, one gate", "listeners on one epoll, one gate"),
    ("one gate, full", "acceptors sharing a full gate"),
    ("permits given back", "threads releasing permits; ns per permit"),
];
/// This axis has a table of its own.
const BUDGET: &str = "budget";

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages {
        charts: vec![("growth-queue.svg", queue(rows))],
        tables: vec![
            ("growth-machine", machine(rows)),
            ("growth-ends", lines(ends(rows))),
            ("growth-all", lines(rows.iter().filter(|row| axis(row) != BUDGET))),
            ("growth-budget", budget(rows)),
        ],
    }
}

fn axis(row: &Row) -> &str {
    row.text("axis").unwrap_or_default()
}

fn at(row: &Row) -> u64 {
    row.object["at"].as_u64().unwrap_or(0)
}

/// Returns the last point of each axis.
fn ends(rows: &[Row]) -> impl Iterator<Item = &Row> {
    let last = |row: &Row| rows.iter().rev().find(|other| axis(other) == axis(row)).map(at);
    rows.iter().filter(move |row| axis(row) != BUDGET && last(row) == Some(at(row)))
}

fn lines<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let line = |row: &Row| {
        let name = NAMES.iter().find(|(name, _)| *name == axis(row)).map(|(_, name)| *name);
        let name =
            name.map_or_else(|| format!("{}, {}", axis(row), row.text("of").unwrap_or("")), str::to_owned);
        vec![
            name,
            row.text("base").unwrap_or_default().to_owned(),
            at(row).to_string(),
            format!("{:.2}", row.number("ratio")),
            interval(row),
            format!("{:.0}", row.number("ns")),
            row.object["claim"].as_f64().map_or(String::new(), |claim| format!("{claim:.2}")),
        ]
    };
    let head = ["varied", "from", "to", "ratio", "IQR", "ns", "bound"];
    table(&head, &rows.map(line).collect::<Vec<_>>())
}

fn interval(row: &Row) -> String {
    format!("{:.2}–{:.2}", row.number("low"), row.number("high"))
}

/// Also shows how long one pass delays everything else in its loop.
fn budget(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let pass = at(row) as f64 * row.number("ns") / 1e3;
        vec![
            at(row).to_string(),
            format!("{:.0}", row.number("ns")),
            format!("{:.2}", row.number("ratio")),
            interval(row),
            format!("{pass:.0}"),
        ]
    };
    let lines: Vec<_> = rows.iter().filter(|row| axis(row) == BUDGET).map(line).collect();
    table(&["budget", "ns per connection", "ratio to 64", "IQR", "µs per pass"], &lines)
}

fn queue(rows: &[Row]) -> Bars {
    let shown = [
        ("queue, level", "this crate, level", RGBColor(0, 90, 170)),
        ("queue, edge", "this crate, edge", RGBColor(90, 170, 230)),
        ("queue, level by hand", "hand-written loop", RGBColor(110, 110, 110)),
    ];
    let mut points: Vec<u64> =
        rows.iter().filter(|row| shown.iter().any(|(name, ..)| *name == axis(row))).map(at).collect();
    points.sort_unstable();
    points.dedup();
    let bar = |name: &str, point: u64| {
        let row = rows.iter().find(|row| axis(row) == name && at(row) == point)?;
        Some(Bar { height: row.number("ratio"), whiskers: Some((row.number("low"), row.number("high"))) })
    };
    let series = shown.into_iter().map(|(axis, name, colour)| Series {
        name: name.to_owned(),
        colour,
        bars: points.iter().map(|point| bar(axis, *point)).collect(),
    });
    Bars {
        title: "Cost of accepting a connection from a longer queue, relative to a queue of 64".to_owned(),
        across: "connections in the queue at wake-up",
        up: "ratio; whiskers: quartiles",
        groups: points.iter().map(u64::to_string).collect(),
        series: series.collect(),
        mark: Some(Mark {
            height: 1.15,
            text: "bound at 4096: 1.15".to_owned(),
            group: points.iter().position(|point| *point == 4096),
        }),
        notes: vec![],
        from: 0.0,
        form: Form::Bars,
        logarithmic: &[],
    }
}
