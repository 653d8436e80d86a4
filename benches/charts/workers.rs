//! The bench `workers`: ways in which several workers share one address.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Series};
use crate::rows::Row;
use crate::tables::{machine, table};

const COLOURS: [RGBColor; 4] =
    [RGBColor(90, 170, 230), RGBColor(0, 90, 170), RGBColor(0, 150, 110), RGBColor(230, 160, 0)];

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages {
        charts: vec![("workers-sleeps.svg", sleeps(rows))],
        tables: vec![("workers-machine", machine(rows)), ("workers", all(rows))],
    }
}

fn way(row: &Row) -> &str {
    row.text("way").unwrap_or_default()
}

fn workers(row: &Row) -> u64 {
    row.object["workers"].as_u64().unwrap_or(0)
}

fn load(row: &Row) -> &str {
    row.text("load").unwrap_or_default()
}

/// How often worker threads block per lone connection: each needless wake-up blocks once more.
fn sleeps(rows: &[Row]) -> Bars {
    let lone: Vec<&Row> = rows.iter().filter(|row| load(row) == "lone").collect();
    let mut numbers: Vec<u64> = lone.iter().map(|row| workers(row)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut ways: Vec<&str> = Vec::new();
    for row in &lone {
        if !ways.contains(&way(row)) {
            ways.push(way(row));
        }
    }
    let bar = |name: &str, number: u64| {
        let row = lone.iter().find(|row| way(row) == name && workers(row) == number)?;
        Some(Bar { height: row.number("sleeps"), whiskers: None })
    };
    let series = numbers.iter().zip(COLOURS).map(|(number, colour)| Series {
        name: format!("{number} workers"),
        colour,
        bars: ways.iter().map(|name| bar(name, *number)).collect(),
    });
    Bars {
        title: "Context switches of workers per lone connection: less is better".to_owned(),
        across: "how workers share an address",
        up: "voluntary context switches per connection",
        groups: ways.iter().map(|name| name.replace(", ", ",\n")).collect(),
        series: series.collect(),
        mark: None,
        notes: vec![],
        from: 0.0,
        form: Form::Bars,
        logarithmic: &[],
    }
}

fn all(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let number = |key: &str, digits: usize| format!("{:.digits$}", row.number(key));
        let head = [way(row).to_owned(), load(row).to_owned(), workers(row).to_string()];
        let figures = [
            ("per_second", 0),
            ("p50_us", 0),
            ("p99_us", 0),
            ("wakes", 2),
            ("wasted", 2),
            ("sleeps", 2),
            ("least", 2),
            ("most", 2),
            ("jain", 2),
            ("cpu_us", 1),
        ];
        head.into_iter().chain(figures.map(|(key, digits)| number(key, digits))).collect()
    };
    let head = [
        "way",
        "load",
        "workers",
        "connections/s",
        "µs to first byte, p50",
        "p99",
        "wakeups",
        "wasted",
        "sleeps",
        "smallest share",
        "largest share",
        "Jain",
        "CPU µs",
    ];
    table(&head, &rows.iter().map(line).collect::<Vec<_>>())
}
