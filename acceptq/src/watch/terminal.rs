//! The terminal in raw mode. It is restored on every exit, even on a panic or a signal.

use std::fs::File;
use std::io::{self, IsTerminal, Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd};
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
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::screen::{Line, LineStyle};

/// How often signals are checked.
const SIGNAL_POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Quit,
    Up,
    Down,
    /// The window was resized.
    Redraw,
}

/// The alternate screen in raw mode. Dropping it restores the terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    out: Stdout,
    /// The terminal that crossterm reads.
    input: Input,
    ended: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Input {
    Stdin(Stdin),
    Controlling(File),
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdin(stdin) => stdin.as_fd(),
            Self::Controlling(file) => file.as_fd(),
        }
    }
}

impl Input {
    fn open() -> io::Result<Self> {
        match io::stdin() {
            stdin if stdin.is_terminal() => Ok(Self::Stdin(stdin)),
            _ => Ok(Self::Controlling(File::open("/dev/tty")?)),
        }
    }

    /// Waits for a key, or for the end of the terminal. Returns whether the terminal was closed.
    fn is_closed(&self, within: Duration) -> io::Result<bool> {
        let mut input = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut input, Some(&within.try_into().map_err(io::Error::other)?)) {
            Ok(_) => Ok(input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Terminal {
    pub(crate) fn enter() -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // The message must appear on the normal screen.
            restore();
            before(panic);
        }));
        let input = Input::open()?;
        ACTIVE.store(true, Ordering::Relaxed);
        enable_raw_mode()?;
        let mut terminal = Self { out: io::stdout(), input, ended };
        execute!(terminal.out, EnterAlternateScreen, Hide)?;
        Ok(terminal)
    }

    /// Returns columns and rows, without the last column: text there may wrap or be cleared.
    pub(crate) fn size(&self) -> (usize, usize) {
        match size() {
            // Serial lines and some ptys have no window size.
            Ok((0, _) | (_, 0)) | Err(_) => (79, 24),
            Ok((columns, rows)) => (usize::from(columns) - 1, rows.into()),
        }
    }

    pub(crate) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        for (row, line) in lines.iter().enumerate() {
            queue!(self.out, MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)))?;
            for attribute in attributes(line.style) {
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

    pub(crate) fn next_command(&self, within: Duration) -> io::Result<Option<Command>> {
        let mut left = within;
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(Some(Command::Quit));
            }
            // crossterm reads a closed terminal forever.
            if self.input.is_closed(Duration::ZERO)? {
                return Ok(Some(Command::Quit));
            }
            match event::poll(Duration::ZERO) {
                Ok(true) => return Ok(command(&event::read()?)),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let step = left.min(SIGNAL_POLL_INTERVAL);
            self.input.is_closed(step)?;
            left = left.saturating_sub(step);
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the alternate screen is active. A panic restores the terminal before it prints its message, which
/// the later drop must not clear.
static ACTIVE: AtomicBool = AtomicBool::new(false);

fn restore() {
    if !ACTIVE.swap(false, Ordering::Relaxed) {
        return;
    }
    // Clears first, because a terminal that was resized may keep some lines. Ignores errors of a closed
    // terminal.
    let reset = SetAttribute(Attribute::Reset);
    let _ = execute!(io::stdout(), reset, Clear(ClearType::All), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// Returns the attributes of a style. Without colours it is legible on every background.
fn attributes(style: LineStyle) -> &'static [Attribute] {
    match style {
        LineStyle::Plain => &[],
        LineStyle::Heading => &[Attribute::Bold],
        LineStyle::Selected => &[Attribute::Reverse],
        LineStyle::Alarm => &[Attribute::Bold, Attribute::Underlined],
    }
}

fn command(event: &Event) -> Option<Command> {
    match event {
        Event::Resize(..) => Some(Command::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Command::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Command::Quit),
            KeyCode::Up | KeyCode::Char('k') => Some(Command::Up),
            KeyCode::Down | KeyCode::Char('j') => Some(Command::Down),
            _ => None,
        },
        _ => None,
    }
}
