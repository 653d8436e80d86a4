//! The example `close_wait`: the accept queue over time, of the faulty loop and of this crate.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Series};
use crate::rows::Row;

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages { charts: vec![("queue.svg", queue(rows))], tables: Vec::new() }
}

fn queue(rows: &[Row]) -> Bars {
    let casts = [
        ("faulty edge loop", "the faulty loop", RGBColor(190, 30, 45)),
        ("EdgeTriggered pause", "this crate, newcomers wait", RGBColor(0, 90, 170)),
        ("EdgeTriggered shed", "this crate, newcomers are refused", RGBColor(120, 120, 120)),
    ];
    let series = casts.map(|(cast, name, colour)| {
        let row = rows.iter().find(|row| row.text("acceptor") == Some(cast));
        let seen = row.and_then(|row| row.object["queued_over_time"].as_array());
        let bars = seen
            .into_iter()
            .flatten()
            .map(|depth| depth.as_f64().map(|height| Bar { height, whiskers: None }));
        Series { name: name.to_owned(), colour, bars: bars.collect() }
    });
    let steps = series.iter().map(|series| series.bars.len()).max().unwrap_or(0);
    let step_ms = rows.iter().map(|row| row.number("step_ms")).next().unwrap_or(f64::NAN);
    #[expect(clippy::cast_precision_loss, reason = "some steps")]
    let second = |step: usize| step as f64 * step_ms / 1000.0;
    Bars {
        title: "200 clients for one place: half quit, then the place is free, and 5 newcomers come"
            .to_owned(),
        across: "seconds since it began",
        up: "connections in the accept queue",
        groups: (0..steps)
            .map(|step| if step % 10 == 0 { format!("{:.1}", second(step)) } else { String::new() })
            .collect(),
        series: series.into(),
        mark: None,
        from: 0.0,
    }
}
