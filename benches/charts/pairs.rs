//! The bench `pairs`: ways to accept, compared.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Mark, Series};
use crate::rows::Row;
use crate::tables::table;

/// The reference against itself: its times are those of the reference.
const REFERENCE: &str = "libc/edge-until-eagain/again";

/// The engines in the charts, with name and colour.
const SHOWN: [(&str, &str, RGBColor); 7] = [
    ("crate/level", "this crate, level", RGBColor(0, 90, 170)),
    ("crate/edge", "this crate, edge", RGBColor(90, 170, 230)),
    ("io_uring", "io_uring", RGBColor(0, 150, 110)),
    (REFERENCE, "accept4 until EAGAIN", RGBColor(110, 110, 110)),
    ("mio", "mio", RGBColor(185, 185, 185)),
    ("polling", "polling", RGBColor(230, 160, 0)),
    ("tokio", "tokio", RGBColor(200, 80, 0)),
];

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages {
        charts: vec![
            ("pairs-time.svg", time(rows)),
            ("pairs-ratio.svg", ratio(rows)),
            ("pairs-by-hand.svg", by_hand(rows)),
            ("pairs-sequences.svg", sequences(rows)),
        ],
        tables: vec![
            ("pairs-machine", machine(rows)),
            ("pairs-ratio", matrix(rows, ratio_cell)),
            ("pairs-time", matrix(rows, |row| format!("{:.0}", row.number("ns_per_connection")))),
            ("pairs-direct", direct_table(rows)),
            ("pairs-sequences", sequence_table(rows)),
        ],
    }
}

fn machine(rows: &[Row]) -> String {
    let blocks = rows.iter().filter_map(|row| row.object["blocks"].as_u64()).min().unwrap_or(0);
    let machine = rows.iter().find_map(|row| row.text("machine")).unwrap_or("an unknown machine");
    format!("{machine}; at least {blocks} blocks per figure.\n")
}

/// Returns the rows of all engines against the reference.
fn of_the_table(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.text("against").is_none())
}

fn bursts(rows: &[Row]) -> Vec<u64> {
    let mut bursts: Vec<u64> = of_the_table(rows).map(Row::burst).collect();
    bursts.sort_unstable();
    bursts.dedup();
    bursts
}

fn find<'a>(rows: &'a [Row], engine: &str, burst: u64) -> Option<&'a Row> {
    of_the_table(rows).find(|row| row.engine == engine && row.burst() == burst)
}

fn time(rows: &[Row]) -> Bars {
    let bar = |row: &Row| Bar { height: row.number("ns_per_connection"), whiskers: None };
    Bars {
        title: "Time to accept a connection: less is better".to_owned(),
        across: "connections in the queue at wake-up",
        up: "ns per connection",
        groups: bursts(rows).iter().map(u64::to_string).collect(),
        series: shown(rows, bar),
        mark: None,
        notes: vec![],
        from: 0.0,
        form: Form::Bars,
        logarithmic: &[],
    }
}

fn ratio(rows: &[Row]) -> Bars {
    Bars {
        title: "Time to accept a connection, relative to accept4 until EAGAIN: less is better".to_owned(),
        across: "connections in the queue at wake-up",
        up: "ratio, 95 % interval",
        mark: Some(mark(1.0, "1.00")),
        series: shown(rows, multiple),
        ..time(rows)
    }
}

fn shown(rows: &[Row], bar: impl Fn(&Row) -> Bar) -> Vec<Series> {
    let bursts = bursts(rows);
    let shown =
        SHOWN.into_iter().filter(|(engine, ..)| bursts.iter().any(|k| find(rows, engine, *k).is_some()));
    let series = shown.map(|(engine, name, colour)| Series {
        name: name.to_owned(),
        colour,
        bars: bursts.iter().map(|burst| find(rows, engine, *burst).map(&bar)).collect(),
    });
    series.collect()
}

fn mark(height: f64, text: &str) -> Mark {
    Mark { height, text: text.to_owned(), group: None }
}

fn multiple(row: &Row) -> Bar {
    Bar { height: row.number("ratio"), whiskers: Some((row.number("low"), row.number("high"))) }
}

/// This crate's triggers against the same system calls, hand-written.
fn by_hand(rows: &[Row]) -> Bars {
    let engines = [
        ("crate/level", "level", RGBColor(0, 90, 170)),
        ("crate/level+gate", "level, with a gate", RGBColor(60, 130, 60)),
        ("crate/edge", "edge", RGBColor(90, 170, 230)),
        ("crate/edge+gate", "edge, with a gate", RGBColor(150, 200, 120)),
    ];
    let bursts = bursts(rows);
    // At two, both hand-written loops are candidates: the better one has the larger ratio.
    let worst = |engine: &str, burst: u64| {
        let of = direct(rows).filter(|row| row.engine == engine && row.burst() == burst);
        let by_hand = of.filter(|row| row.text("against").is_some_and(|name| name.starts_with("libc/")));
        by_hand.max_by(|a, b| a.number("ratio").total_cmp(&b.number("ratio"))).map(multiple)
    };
    Bars {
        title: "This crate, relative to the same system calls, hand-written: less is better".to_owned(),
        across: "connections in the queue at wake-up",
        up: "ratio, 95 % interval; not from 0",
        groups: bursts.iter().map(u64::to_string).collect(),
        series: engines
            .into_iter()
            .map(|(engine, name, colour)| Series {
                name: name.to_owned(),
                colour,
                bars: bursts.iter().map(|burst| worst(engine, *burst)).collect(),
            })
            .collect(),
        mark: Some(mark(1.05, "bound: 1.05")),
        notes: vec![],
        from: 0.8,
        form: Form::Points,
        logarithmic: &[],
    }
}

fn sequences(rows: &[Row]) -> Bars {
    let names = sequence_names(rows);
    let series = [
        ("crate/level", "libc/level-one", "relative to one per wake-up", RGBColor(90, 170, 230)),
        ("crate/level", "libc/level-depth", "relative to the whole queue per wake-up", RGBColor(0, 90, 170)),
    ];
    Bars {
        title: "Predicting the queue length, relative to the two loops without prediction: less is better"
            .to_owned(),
        across: "bursts, repeated",
        up: "ratio, 95 % interval; not from 0",
        groups: names.iter().map(|name| in_lines(name)).collect(),
        series: series
            .into_iter()
            .map(|(engine, against, name, colour)| Series {
                name: name.to_owned(),
                colour,
                bars: names
                    .iter()
                    .map(|name| in_sequence(rows, name, engine, against).map(multiple))
                    .collect(),
            })
            .collect(),
        mark: Some(mark(1.03, "bound: 1.03")),
        notes: vec![],
        from: 0.6,
        form: Form::Points,
        logarithmic: &[],
    }
}

/// Breaks a name into at most three short lines.
fn in_lines(name: &str) -> String {
    let mut lines = vec![String::new()];
    for part in name.split_inclusive([',', ' ']) {
        if lines.last().is_some_and(|line| line.len() + part.len() > 9) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(part);
        }
    }
    lines.join("\n")
}

fn direct(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.text("against").is_some() && row.text("sequence").is_none())
}

fn in_sequence<'a>(rows: &'a [Row], name: &str, engine: &str, against: &str) -> Option<&'a Row> {
    let of = rows.iter().filter(|row| row.text("sequence") == Some(name) && row.engine == engine);
    of.into_iter().find(|row| row.text("against") == Some(against))
}

fn sequence_names(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = rows.iter().filter_map(|row| row.text("sequence")).collect();
    names.dedup();
    names
}

fn matrix(rows: &[Row], cell: impl Fn(&Row) -> String) -> String {
    let bursts = bursts(rows);
    let mut engines: Vec<&str> = Vec::new();
    for row in of_the_table(rows) {
        if !engines.contains(&row.engine.as_str()) {
            engines.push(&row.engine);
        }
    }
    let line = |engine: &&str| {
        let cells = bursts.iter().map(|burst| find(rows, engine, *burst).map_or(String::new(), &cell));
        std::iter::once(format!("`{engine}`")).chain(cells).collect()
    };
    let columns: Vec<String> = bursts.iter().map(u64::to_string).collect();
    let head: Vec<&str> =
        std::iter::once("connections queued").chain(columns.iter().map(String::as_str)).collect();
    table(&head, &engines.iter().map(line).collect::<Vec<_>>())
}

fn ratio_cell(row: &Row) -> String {
    format!("{:.2} <sub>{}</sub>", row.number("ratio"), interval(row))
}

fn interval(row: &Row) -> String {
    format!("{:.2}–{:.2}", row.number("low"), row.number("high"))
}

fn direct_table(rows: &[Row]) -> String {
    let lines: Vec<Vec<String>> = direct(rows)
        .map(|row| {
            vec![
                format!("`{}`", row.engine),
                format!("`{}`", row.text("against").unwrap_or_default()),
                row.burst().to_string(),
                format!("{:.3}", row.number("ratio")),
                interval(row),
                row.object["bound"].as_f64().map_or(String::new(), |bound| format!("{bound:.2}")),
            ]
        })
        .collect();
    table(&["engine", "against", "queued", "ratio", "95 % interval", "bound"], &lines)
}

fn sequence_table(rows: &[Row]) -> String {
    let columns = ["crate/level", "libc/level-guess"]
        .into_iter()
        .flat_map(|engine| ["libc/level-one", "libc/level-depth"].map(|against| (engine, against)));
    let columns: Vec<(&str, &str)> = columns.collect();
    let cell = |name: &str, (engine, against): (&str, &str)| {
        in_sequence(rows, name, engine, against)
            .map_or(String::new(), |row| format!("{:.3} <sub>{}</sub>", row.number("ratio"), interval(row)))
    };
    let line = |name: &&str| -> Vec<String> {
        std::iter::once((*name).to_owned()).chain(columns.iter().map(|column| cell(name, *column))).collect()
    };
    let lines: Vec<Vec<String>> = sequence_names(rows).iter().map(line).collect();
    let heads: Vec<String> =
        columns.iter().map(|(engine, against)| format!("`{engine}` against `{against}`")).collect();
    let head: Vec<&str> =
        std::iter::once("bursts, repeated").chain(heads.iter().map(String::as_str)).collect();
    table(&head, &lines)
}
