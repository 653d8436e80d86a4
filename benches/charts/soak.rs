//! The example `soak`: an acceptor under load and faults.

use plotters::style::RGBColor;
use serde_json::Value;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Mark, Series};
use crate::rows::Row;
use crate::tables::table;

pub(crate) fn pages(rows: &[Row]) -> Pages {
    let overload = scenario(rows, "overload");
    Pages {
        charts: overload.map(|row| ("overload.svg", waits(row))).into_iter().collect(),
        tables: vec![
            ("soak-machine", machine(rows)),
            ("soak-all", counts(rows)),
            ("soak-load", load(rows)),
            ("soak-attack", attack(rows)),
            ("soak-overload", delays(rows)),
            ("soak-skipped", skipped(rows)),
        ],
    }
}

fn scenario<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.text("scenario") == Some(name) && row.object["skipped"].as_str().is_none())
}

fn machine(rows: &[Row]) -> String {
    let all = scenario(rows, "all");
    let machine = all.and_then(|row| row.text("machine")).unwrap_or("An unknown machine");
    format!("{machine}; {:.0} seconds in all.\n", all.map_or(f64::NAN, |row| row.number("seconds")))
}

fn counts(rows: &[Row]) -> String {
    let columns = [
        "connected",
        "delivered",
        "refused",
        "unanswered",
        "stranded",
        "leaked_descriptors",
        "peak_in_service",
        "limit",
    ];
    let line = |row: &Row| {
        let name = format!("`{}`", row.text("scenario").unwrap_or_default());
        let numbers = columns.map(|column| row.object[column].to_string());
        let balanced = if row.object["balanced"] == true { "yes" } else { "**no**" };
        [&[name][..], &numbers, &[balanced.to_owned()]].concat()
    };
    let done = rows.iter().filter(|row| row.object["connected"].is_u64());
    let head = [
        "",
        "connected",
        "delivered",
        "refused",
        "unanswered",
        "stranded",
        "leaked",
        "peak",
        "limit",
        "balanced",
    ];
    table(&head, &done.map(line).collect::<Vec<_>>())
}

fn load(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let whole = |key: &str| format!("{:.0}", row.number(key));
        vec![
            whole("held_at_once"),
            whole("rounds"),
            whole("per_second"),
            whole("rss_kib_after_one_round"),
            whole("rss_kib_after_all"),
        ]
    };
    let head = ["held at once", "rounds", "connections/s", "KiB after round 1", "KiB at the end"];
    table(&head, &scenario(rows, "load").map(line).into_iter().collect::<Vec<_>>())
}

fn attack(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let without = &row.object["with_the_gate_alone"];
        let served = |of: &Value| format!("{} of {}", of["polite_served"], of["polite"]);
        let wait = |key: &str| milliseconds(&row.object["wait_ms"][key]);
        vec![
            format!("{:.0}", row.number("flood_per_second")),
            served(&row.object),
            wait("p50"),
            wait("p99"),
            wait("max"),
            served(without),
        ]
    };
    let head = ["flood/s", "others served", "p50 ms", "p99 ms", "max ms", "gate only"];
    table(&head, &scenario(rows, "attack").map(line).into_iter().collect::<Vec<_>>())
}

fn delays(rows: &[Row]) -> String {
    let line = |name: &str, object: &Value| {
        let wait = |key: &str| milliseconds(&object["wait_ms"][key]);
        let served = format!("{:.0}", object["served_per_second"].as_f64().unwrap_or(f64::NAN));
        let within = object["steps_within_bound"].as_f64();
        let within = within.map_or(String::new(), |within| format!("{:.0} %", 100.0 * within));
        vec![name.to_owned(), served, wait("p50"), wait("p99"), wait("max"), within]
    };
    let lines = scenario(rows, "overload").map(|row| {
        let target = format!("`QueueDelay`, target {:.0} ms", row.number("target_ms"));
        vec![line("gate that waits", &row.object["pausing"]), line(&target, &row.object)]
    });
    table(&["", "served/s", "p50 ms", "p99 ms", "max ms", "steps within bound"], &lines.unwrap_or_default())
}

fn milliseconds(value: &Value) -> String {
    value.as_f64().map_or(String::new(), |value| format!("{value:.1}"))
}

fn skipped(rows: &[Row]) -> String {
    let line = |row: &Row| Some(format!("- `{}`: {}\n", row.text("scenario")?, row.text("skipped")?));
    let lines: String = rows.iter().filter_map(line).collect();
    if lines.is_empty() { "None.\n".to_owned() } else { lines }
}

/// The p99 of each step.
fn waits(row: &Row) -> Bars {
    let bars = |steps: &Value| -> Vec<Option<Bar>> {
        let steps = steps.as_array().into_iter().flatten();
        steps.map(|step| step[3].as_f64().map(|height| Bar { height, whiskers: None })).collect()
    };
    let steps = row.object["over_time"].as_array().into_iter().flatten();
    // Steps at which a second begins are labelled.
    let seconds = steps.map(|step| step[0].as_f64().filter(|when| when.fract() == 0.0));
    let series = [
        ("Gate", RGBColor(110, 110, 110), &row.object["pausing"]["over_time"]),
        ("Gate and QueueDelay", RGBColor(0, 90, 170), &row.object["over_time"]),
    ];
    let series =
        series.map(|(name, colour, steps)| Series { name: name.to_owned(), colour, bars: bars(steps) });
    let target = row.number("target_ms");
    Bars {
        title: "Time in the accept queue of a server under twice the load that it can serve".to_owned(),
        across: "seconds",
        up: "ms, p99 of the served; logarithmic",
        groups: seconds.map(|second| second.map_or(String::new(), |second| second.to_string())).collect(),
        series: series.into(),
        mark: Some(Mark {
            height: 2.0 * target,
            text: format!("twice the target of {target:.0} ms"),
            group: None,
        }),
        notes: vec![],
        from: 20.0,
        form: Form::Steps,
        logarithmic: &[20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0],
    }
}
