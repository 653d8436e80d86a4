//! Clients in a process of their own: each connects, asks, and wants the answer.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use socket2::SockRef;

pub(crate) const REQUEST: &[u8; 8] = b"request\n";
/// The id of the process that answers, and this.
pub(crate) const ANSWER: &[u8; 4] = b"done";

/// Whoever is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody comes after this.
const BOUND: Duration = Duration::from_secs(240);

#[derive(Debug, Default)]
struct Tally {
    connections: AtomicU64,
    failed_connects: AtomicU64,
    resets: AtomicU64,
    unanswered: AtomicU64,
    slowest_us: AtomicU64,
}

/// Comes until there were enough, and whoever started it closes its standard input. Says a line on every step of the
/// way, and at last what became of all.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    let mut next = || -> Result<_, lexopt::Error> { arguments.value() };
    let address: SocketAddr = next()?.parse()?;
    let (enough, step, at_once): (u64, u64, usize) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    let (tally, servers) = (Tally::default(), Mutex::new(BTreeSet::new()));
    let released = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Nothing is ever written to it.
            let _ = io::stdin().read(&mut [0]);
            released.store(true, Relaxed);
        });
        for _ in 0..at_once {
            scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while begun.elapsed() < BOUND
                    && !(released.load(Relaxed) && tally.connections.load(Relaxed) >= enough)
                {
                    seen.extend(tally.count(&ask(address)));
                    let number = tally.connections.fetch_add(1, Relaxed) + 1;
                    if number % step == 0 {
                        say("step");
                    }
                }
                servers.lock().expect("nobody panics").append(&mut seen);
            });
        }
    });
    let Tally { connections, failed_connects, resets, unanswered, slowest_us } = tally;
    let result = serde_json::json!({
        "connections": connections.into_inner(),
        "failed_connects": failed_connects.into_inner(),
        "resets": resets.into_inner(),
        "unanswered": unanswered.into_inner(),
        "slowest_ms": slowest_us.into_inner() as f64 / 1e3,
        "servers": servers.into_inner()?.len(),
        "seconds": begun.elapsed().as_secs_f64(),
    });
    say(&result.to_string());
    Ok(())
}

/// How one client was lost.
enum Lost {
    FailedConnect,
    Reset,
    Unanswered,
}

impl Tally {
    /// Counts one client; the process that answered it, if one did.
    fn count(&self, answered: &Result<(u32, Duration), Lost>) -> Option<u32> {
        let counter = match answered {
            Ok((server, after)) => {
                self.slowest_us.fetch_max(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Relaxed);
                return Some(*server);
            }
            Err(Lost::FailedConnect) => &self.failed_connects,
            Err(Lost::Reset) => &self.resets,
            Err(Lost::Unanswered) => &self.unanswered,
        };
        counter.fetch_add(1, Relaxed);
        None
    }
}

fn ask(address: SocketAddr) -> Result<(u32, Duration), Lost> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|_| Lost::FailedConnect)?;
    let answer = (|| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        // It quits by a reset: so many connections would leave more TIME_WAIT than there are ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(answer)
    })();
    match answer {
        Ok([a, b, c, d, done @ ..]) if done == *ANSWER => {
            Ok((u32::from_le_bytes([a, b, c, d]), begun.elapsed()))
        }
        Err(error) if is_reset(&error) => Err(Lost::Reset),
        Ok(_) | Err(_) => Err(Lost::Unanswered),
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A line at once, if anybody reads it.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
