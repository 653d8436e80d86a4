//! The example `close_wait`: the length of the accept queue over time, with the faulty loop and with this crate.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Note, Series};
use crate::rows::Row;

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages { charts: vec![("queue.svg", queue(rows))], tables: Vec::new() }
}

fn queue(rows: &[Row]) -> Bars {
    let variants = [
        ("faulty edge loop", "the faulty loop", RGBColor(190, 30, 45)),
        ("EdgeTriggered pause", "this crate, WhenFull::Wait", RGBColor(0, 90, 170)),
        ("EdgeTriggered shed", "this crate, WhenFull::Shed", RGBColor(120, 120, 120)),
    ];
    let mut series = variants.map(|(key, name, colour)| {
        let row = rows.iter().find(|row| row.text("acceptor") == Some(key));
        let seen = row.and_then(|row| row.object["queued_over_time"].as_array());
        let bars = seen
            .into_iter()
            .flatten()
            .map(|depth| depth.as_f64().map(|height| Bar { height, whiskers: None }));
        Series { name: name.to_owned(), colour, bars: bars.collect() }
    });
    // Each with the height at which it is written.
    let notes = [
        (0, 175.0, "the server is free, but each later client only has an older one accepted"),
        (1, 100.0, "the server is free: all are served, the queue is empty"),
        (2, 25.0, "refused: empty"),
    ];
    let notes = notes.map(|(number, height, text)| note(&series[number], height, text));
    let steps = series.iter().map(|series| series.bars.len()).max().unwrap_or(0);
    // A variant that ended earlier keeps its last length.
    for series in &mut series {
        let last = series.bars.last().copied().flatten();
        series.bars.resize(steps, last);
    }
    let step_ms = rows.iter().map(|row| row.number("step_ms")).next().unwrap_or(f64::NAN);
    #[expect(clippy::cast_precision_loss, reason = "some steps")]
    // The first sample is taken after a step.
    let second = |step: usize| (step + 1) as f64 * step_ms / 1000.0;
    Bars {
        title:
            "200 clients wait for a server with a limit of 1; half of them quit; then it is free, and 5 more connect"
                .to_owned(),
        across: "seconds",
        up: "connections in the accept queue",
        groups: (0..steps)
            .map(|step| if step % 5 == 4 { format!("{:.2}", second(step)) } else { String::new() })
            .collect(),
        series: series.into(),
        mark: None,
        notes: notes.into_iter().flatten().collect(),
        from: 0.0,
        form: Form::Steps,
        logarithmic: &[],
    }
}

/// Writes a note at the moment from which the queue becomes shorter.
fn note(series: &Series, height: f64, text: &str) -> Option<Note> {
    let mut seen = series.bars.iter().flatten().map(|bar| bar.height);
    let first = seen.next()?;
    // The faulty loop accepts one at the beginning.
    let at = 1 + seen.position(|depth| depth < first - 1.0)?;
    #[expect(clippy::cast_precision_loss, reason = "some steps")]
    let at = (at as f64, height);
    Some(Note { at, text: text.to_owned(), colour: series.colour })
}
