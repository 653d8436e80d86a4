//! The terminal while it is ours, and how it is given back: on every way out, a panic and a signal included.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::screen::{Line, Look};

/// Signals are looked for at least this often.
const LOOK: Duration = Duration::from_millis(100);

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Quit,
    Up,
    Down,
    /// The window has another size.
    Redraw,
}

/// The whole screen, in raw mode, until it is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    out: Stdout,
    ended: Arc<AtomicBool>,
}

impl Terminal {
    pub(crate) fn take() -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // The message should stand on the screen that remains.
            give_back();
            before(panic);
        }));
        TAKEN.store(true, Ordering::Relaxed);
        enable_raw_mode()?;
        let mut terminal = Self { out: io::stdout(), ended };
        execute!(terminal.out, EnterAlternateScreen, Hide)?;
        Ok(terminal)
    }

    /// Columns and rows. The last column stays free: what is written there may wrap, or be cleared with
    /// the rest.
    pub(crate) fn size(&self) -> (usize, usize) {
        match size() {
            // A serial line, or a terminal that nobody has told its size, has none.
            Ok((0, _) | (_, 0)) | Err(_) => (79, 24),
            Ok((columns, rows)) => (usize::from(columns) - 1, rows.into()),
        }
    }

    pub(crate) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        for (row, line) in lines.iter().enumerate() {
            queue!(self.out, MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)))?;
            for attribute in attributes(line.look) {
                queue!(self.out, SetAttribute(*attribute))?;
            }
            queue!(
                self.out,
                Print(&line.text),
                SetAttribute(Attribute::Reset),
                Clear(ClearType::UntilNewLine)
            )?;
        }
        if lines.len() < self.size().1 {
            let row = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            queue!(self.out, MoveTo(0, row), Clear(ClearType::FromCursorDown))?;
        }
        self.out.flush()
    }

    /// What the user wants within this time, if anything.
    pub(crate) fn wish(&self, within: Duration) -> io::Result<Option<Wish>> {
        let mut left = within;
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(Some(Wish::Quit));
            }
            let step = left.min(LOOK);
            match event::poll(step) {
                Ok(true) => return Ok(meaning(&event::read()?)),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            left = left.saturating_sub(step);
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the screen is ours. A panic gives it back before its message; what is dropped later must not
/// clear that.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn give_back() {
    if !TAKEN.swap(false, Ordering::Relaxed) {
        return;
    }
    // Cleared, because a terminal that was resized meanwhile may keep some lines of it. And nothing can be
    // done about a terminal that is gone.
    let reset = SetAttribute(Attribute::Reset);
    let _ = execute!(io::stdout(), reset, Clear(ClearType::All), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// No colours: weight alone is legible on every background.
fn attributes(look: Look) -> &'static [Attribute] {
    match look {
        Look::Plain => &[],
        Look::Heading => &[Attribute::Bold],
        Look::Selected => &[Attribute::Reverse],
        Look::Alarm => &[Attribute::Bold, Attribute::Underlined],
    }
}

fn meaning(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
            KeyCode::Up | KeyCode::Char('k') => Some(Wish::Up),
            KeyCode::Down | KeyCode::Char('j') => Some(Wish::Down),
            _ => None,
        },
        _ => None,
    }
}
