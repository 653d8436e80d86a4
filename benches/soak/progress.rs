//! The progress: a progress bar on a terminal, a line per scenario elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::harness::{End, Scenario};

pub(crate) struct Progress {
    line: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new(scenarios: usize) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let line = ProgressBar::with_draw_target(Some(scenarios as u64), target);
        let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:24} {pos} of {len}  {msg}");
        line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        // On a thread that needs no descriptor.
        line.enable_steady_tick(Duration::from_millis(100));
        Self { line, is_terminal }
    }

    pub(crate) fn begin(&self, scenario: &Scenario, time: Duration) {
        self.show(format!("{}: {} ({:.1} s)", scenario.name, scenario.about, time.as_secs_f64()));
    }

    pub(crate) fn end(&self, scenario: &Scenario, end: &End) {
        self.line.inc(1);
        match end {
            End::Skipped(why) => self.keep(&format!("SKIPPED {}: {why}", scenario.name)),
            End::Done(outcome) => {
                for broken in &outcome.broken {
                    self.keep(&format!("BROKEN {}: expected: {broken}", scenario.name));
                }
            }
        }
    }

    pub(crate) fn finish(&self) {
        self.line.finish_and_clear();
    }

    fn show(&self, text: String) {
        if self.is_terminal { self.line.set_message(text) } else { eprintln!("{text}") }
    }

    /// Prints a line that stays on the screen.
    fn keep(&self, text: &str) {
        if self.is_terminal { self.line.println(text) } else { eprintln!("{text}") }
    }
}
