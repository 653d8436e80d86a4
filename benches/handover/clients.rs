//! The clients, in a process of their own: each connects, sends a request, and expects a reply.

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
/// A reply is the id of the server's process, and these bytes.
pub(crate) const ANSWER: &[u8; 4] = b"done";

/// A client without a reply by then is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// No client connects after this.
const BOUND: Duration = Duration::from_secs(240);

#[derive(Debug, Default)]
struct Stats {
    connections: AtomicU64,
    failed_connects: AtomicU64,
    resets: AtomicU64,
    unanswered: AtomicU64,
    slowest_us: AtomicU64,
}

/// Connects until the number is reached and the standard input is closed. Prints a line for every `step` connections, and
/// the result as JSON at the end.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    let mut next = || -> Result<_, lexopt::Error> { arguments.value() };
    let address: SocketAddr = next()?.parse()?;
    let (total, step, at_once): (u64, u64, usize) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    let (stats, servers) = (Stats::default(), Mutex::new(BTreeSet::new()));
    let closed = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Blocks until it is closed: nothing is written to it.
            let _ = io::stdin().read(&mut [0]);
            closed.store(true, Relaxed);
        });
        for _ in 0..at_once {
            scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while begun.elapsed() < BOUND
                    && !(closed.load(Relaxed) && stats.connections.load(Relaxed) >= total)
                {
                    seen.extend(stats.count(&ask(address)));
                    let number = stats.connections.fetch_add(1, Relaxed) + 1;
                    if number % step == 0 {
                        print_line("step");
                    }
                }
                servers.lock().expect("no thread panics").append(&mut seen);
            });
        }
    });
    let Stats { connections, failed_connects, resets, unanswered, slowest_us } = stats;
    let result = serde_json::json!({
        "connections": connections.into_inner(),
        "failed_connects": failed_connects.into_inner(),
        "resets": resets.into_inner(),
        "unanswered": unanswered.into_inner(),
        "slowest_ms": slowest_us.into_inner() as f64 / 1e3,
        "servers": servers.into_inner()?.len(),
        "seconds": begun.elapsed().as_secs_f64(),
    });
    print_line(&result.to_string());
    Ok(())
}

/// How a client was lost.
enum Lost {
    FailedConnect,
    Reset,
    Unanswered,
}

impl Stats {
    /// Counts one client. Returns the id of the process that replied.
    fn count(&self, reply: &Result<(u32, Duration), Lost>) -> Option<u32> {
        let counter = match reply {
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
        // Close by a reset: otherwise there would soon be more TIME_WAIT entries than ports.
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

/// Prints a line and flushes it; an error means that the reader is gone.
fn print_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
