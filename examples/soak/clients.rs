//! The clients' process: orders go in by its standard input, tallies come out, a line of JSON each.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::crowd;
use crate::machine;
use crate::order::{Order, Tally};

/// The argument that makes this program the clients' process.
pub(crate) const ARGUMENT: &str = "--clients";

#[derive(Serialize, Deserialize)]
struct Asked {
    id: u64,
    order: Order,
}

#[derive(Serialize, Deserialize)]
struct Told {
    id: u64,
    tally: Fate,
}

/// Boxed: a tally is large, and an error small.
type Fate = Result<Box<Tally>, String>;

type Waiting = Arc<Mutex<BTreeMap<u64, Sender<Fate>>>>;

/// The other process, ended when this is dropped.
pub(crate) struct Clients {
    process: Child,
    orders: Option<ChildStdin>,
    waiting: Waiting,
    made: u64,
}

/// A crowd at work.
pub(crate) struct Running {
    told: Receiver<Fate>,
    /// It is broken if it takes longer.
    until: Instant,
}

impl Clients {
    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take();
        let tallies = process.stdout.take().expect("it is a pipe");
        let waiting = Waiting::default();
        thread::Builder::new().name("tallies".into()).spawn({
            let waiting = Arc::clone(&waiting);
            move || {
                for line in BufReader::new(tallies).lines().map_while(Result::ok) {
                    let Ok(told) = serde_json::from_str::<Told>(&line) else { break };
                    let asked = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&told.id);
                    if let Some(asked) = asked {
                        // Whoever asked may have given up.
                        let _ = asked.send(told.tally);
                    }
                }
                // Those who still wait hear that nobody will tell.
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        })?;
        Ok(Self { process, orders, waiting, made: 0 })
    }

    /// Sends a crowd.
    pub(crate) fn send(&mut self, order: Order) -> io::Result<Running> {
        let (tell, told) = channel();
        self.made += 1;
        let id = self.made;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        let bound = Duration::from_secs_f64(order.seconds + order.patience + 20.0);
        let line = serde_json::to_string(&Asked { id, order })?;
        let orders = self.orders.as_mut().expect("it is open until the end");
        writeln!(orders, "{line}")?;
        Ok(Running { told, until: Instant::now() + bound })
    }
}

impl Running {
    /// Waits until all have gone.
    pub(crate) fn tally(self) -> Result<Tally, Box<dyn Error>> {
        let left = self.until.saturating_duration_since(Instant::now());
        match self.told.recv_timeout(left) {
            Ok(fate) => Ok(*fate?),
            Err(RecvTimeoutError::Timeout) => Err("the clients did not come to an end in time".into()),
            Err(RecvTimeoutError::Disconnected) => Err("the clients' process has ended".into()),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the other process does: each crowd on a thread of its own, until the orders end.
pub(crate) fn serve() -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    for line in io::stdin().lock().lines() {
        let Asked { id, order } = serde_json::from_str(&line?)?;
        thread::spawn(move || {
            let tally = crowd::run(order).map(Box::new).map_err(|error| error.to_string());
            let line = serde_json::to_string(&Told { id, tally }).expect("numbers and text are JSON");
            // A parent that has gone wants to know nothing.
            let _ = writeln!(io::stdout(), "{line}");
        });
    }
    Ok(())
}
