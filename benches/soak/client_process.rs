//! The clients' process: requests go to its standard input, results come from its standard output, a line of JSON each.

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

use crate::client_loop;
use crate::machine;
use crate::request::{Request, Stats};

/// The argument that makes this program the clients' process.
pub(crate) const ARGUMENT: &str = "--clients";

#[derive(Serialize, Deserialize)]
struct Message {
    id: u64,
    request: Request,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    id: u64,
    result: ClientResult,
}

/// Boxed: `Stats` is large, and an error small.
type ClientResult = Result<Box<Stats>, String>;

type Waiting = Arc<Mutex<BTreeMap<u64, Sender<ClientResult>>>>;

/// The other process, ended when this is dropped.
pub(crate) struct ClientProcess {
    process: Child,
    requests: Option<ChildStdin>,
    waiting: Waiting,
    sent: u64,
}

/// Clients at work.
pub(crate) struct Running {
    result: Receiver<ClientResult>,
    /// A result after this is an error.
    deadline: Instant,
}

impl ClientProcess {
    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = process.stdin.take();
        let stdout = process.stdout.take().expect("it is a pipe");
        let waiting = Waiting::default();
        thread::Builder::new().name("results".into()).spawn({
            let waiting = Arc::clone(&waiting);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let Ok(reply) = serde_json::from_str::<Reply>(&line) else { break };
                    let sender = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.id);
                    if let Some(sender) = sender {
                        // An error means that the receiver has given up.
                        let _ = sender.send(reply.result);
                    }
                }
                // Receivers that still wait get an error: there will be no result.
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        })?;
        Ok(Self { process, requests, waiting, sent: 0 })
    }

    /// Starts clients.
    pub(crate) fn send(&mut self, request: Request) -> io::Result<Running> {
        let (sender, result) = channel();
        self.sent += 1;
        let id = self.sent;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let bound = Duration::from_secs_f64(request.seconds + request.patience + 20.0);
        let line = serde_json::to_string(&Message { id, request })?;
        let requests = self.requests.as_mut().expect("it is open until the end");
        writeln!(requests, "{line}")?;
        Ok(Running { result, deadline: Instant::now() + bound })
    }
}

impl Running {
    /// Waits until all clients have closed.
    pub(crate) fn stats(self) -> Result<Stats, Box<dyn Error>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.result.recv_timeout(left) {
            Ok(result) => Ok(*result?),
            Err(RecvTimeoutError::Timeout) => Err("the clients did not end in time".into()),
            Err(RecvTimeoutError::Disconnected) => Err("the clients' process has ended".into()),
        }
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The main function of the other process: runs each request on a thread of its own, until standard input ends.
pub(crate) fn serve() -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    for line in io::stdin().lock().lines() {
        let Message { id, request } = serde_json::from_str(&line?)?;
        thread::spawn(move || {
            let result = client_loop::run(request).map(Box::new).map_err(|error| error.to_string());
            let line = serde_json::to_string(&Reply { id, result }).expect("numbers and text are JSON");
            // An error means that the parent has ended.
            let _ = writeln!(io::stdout(), "{line}");
        });
    }
    Ok(())
}
