//! The example `close_wait`: the accept queue over time, of the faulty loop and of this crate.

use plotters::style::RGBColor;

use crate::Pages;
use crate::bars::{Bar, Bars, Form, Note, Series};
use crate::rows::Row;

pub(crate) fn pages(rows: &[Row]) -> Pages {
    Pages { charts: vec![("queue.svg", queue(rows))], tables: Vec::new() }
}

fn queue(rows: &[Row]) -> Bars {
    let casts = [
        ("faulty edge loop", "the faulty loop", RGBColor(190, 30, 45)),
        ("EdgeTriggered pause", "this crate, who is too many waits", RGBColor(0, 90, 170)),
        ("EdgeTriggered shed", "this crate, who is too many is refused", RGBColor(120, 120, 120)),
    ];
    let mut series = casts.map(|(cast, name, colour)| {
        let row = rows.iter().find(|row| row.text("acceptor") == Some(cast));
        let seen = row.and_then(|row| row.object["queued_over_time"].as_array());
        let bars = seen
            .into_iter()
            .flatten()
            .map(|depth| depth.as_f64().map(|height| Bar { height, whiskers: None }));
        Series { name: name.to_owned(), colour, bars: bars.collect() }
    });
    // At which height each is written, too.
    let notes = [
        (0, 175.0, "the place is free: each newcomer has one of the others taken, and hangs"),
        (1, 100.0, "the place is free: all are served, the queue is empty"),
        (2, 25.0, "refused: empty"),
    ];
    let notes = notes.map(|(number, height, text)| note(&series[number], height, text));
    let steps = series.iter().map(|series| series.bars.len()).max().unwrap_or(0);
    // Those that were through earlier have an empty queue since.
    for series in &mut series {
        let last = series.bars.last().copied().flatten();
        series.bars.resize(steps, last);
    }
    let step_ms = rows.iter().map(|row| row.number("step_ms")).next().unwrap_or(f64::NAN);
    #[expect(clippy::cast_precision_loss, reason = "some steps")]
    // The first look comes after a step.
    let second = |step: usize| (step + 1) as f64 * step_ms / 1000.0;
    Bars {
        title:
            "200 clients for one place, half of which have quit; then the place is free, and 5 newcomers come"
                .to_owned(),
        across: "seconds since it began",
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

/// Beside the moment from which the queue becomes shorter.
fn note(series: &Series, height: f64, text: &str) -> Option<Note> {
    let mut seen = series.bars.iter().flatten().map(|bar| bar.height);
    let first = seen.next()?;
    // The faulty loop takes one at the beginning.
    let at = 1 + seen.position(|depth| depth < first - 1.0)?;
    #[expect(clippy::cast_precision_loss, reason = "some steps")]
    let at = (at as f64, height);
    Some(Note { at, text: text.to_owned(), colour: series.colour })
}
