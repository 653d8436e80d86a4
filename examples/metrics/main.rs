//! A server that exports its acceptor's counters to Prometheus: refusals by cause, exhaustion by resource, the time in each
//! state, permits, the accept queue, and histograms of the passes and of the time in the queue.
//!
//! ```text
//! cargo run --release --example metrics -- --listen 127.0.0.1:8080 --metrics 127.0.0.1:9100 --limit 100
//! curl http://127.0.0.1:9100/metrics
//! ```
//!
//! The same loop serves the metrics, from a second acceptor with a privileged handle of the same gate: two permits are
//! reserved for it, so the metrics can be scraped while the server is full.

mod export;

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, Connection, Epoll, Events, Gate, Interest, LevelTriggered, Permit, QueueDelay, Refusal, Token,
    WhenFull,
};

use crate::export::{Exporter, Sources};

const HELP: &str = "\
Usage: metrics [--listen ADDR] [--metrics ADDR] [--limit N]

  --listen ADDR   greet clients here, and close when they do (127.0.0.1:0)
  --metrics ADDR  serve the OpenMetrics text format here, under any path (127.0.0.1:0)
  --limit N       connections at once, besides two for --metrics (100)
";
const PUBLIC: Token = Token(u64::MAX);
const ADMIN: Token = Token(u64::MAX - 1);
/// Connections that were queued for longer are refused while the server is overloaded.
const QUEUE_DELAY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    listen: SocketAddr,
    metrics: SocketAddr,
    limit: u32,
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::*;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = Options { listen: any, metrics: any, limit: 100 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => options.listen = parser.value()?.parse()?,
            Long("metrics") => options.metrics = parser.value()?.parse()?,
            Long("limit") => options.limit = parser.value()?.parse()?,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(options) = options()? else { return Ok(()) };
    let epoll = Epoll::new()?;
    let gate = Gate::builder(options.limit.saturating_add(2)).reserved(2).build();
    let busy = WhenFull::Shed(Refusal::message("busy\n"));
    let listener = TcpListener::bind(options.listen)?;
    let admin = TcpListener::bind(options.metrics)?;
    println!("listening on {}", listener.local_addr()?);
    println!("metrics on {}", admin.local_addr()?);
    let delay = QueueDelay::new(QUEUE_DELAY);
    let mut public = LevelTriggered::on(listener)
        .gate(&gate.with_when_full(busy))
        .filter(delay.clone())
        .register(&epoll, PUBLIC)?;
    let mut admin = LevelTriggered::on(admin).gate(&gate.privileged()).register(&epoll, ADMIN)?;
    let (control, listener) = (public.control(), public.listener().try_clone()?);
    let exporter = Exporter::new(Sources { control, gate, delay, listener });
    let mut clients = Clients::default();
    let mut events = Events::with_capacity(64)?;
    loop {
        epoll.wait(&mut events, None)?;
        for event in &mut events {
            match event.token() {
                PUBLIC => {
                    public.drain(|connection| clients.greet(&epoll, connection))?;
                }
                ADMIN => {
                    admin.drain(|connection| answer(connection, &exporter))?;
                }
                Token(number) => clients.read(number),
            }
        }
    }
}

/// Connections by their token.
#[derive(Default)]
struct Clients {
    open: HashMap<u64, PublicConnection>,
    /// Not reused: an event of a closed connection must not be taken for one of another connection.
    next: u64,
}

/// With the permits of the gate and of the filter.
type PublicConnection = Connection<TcpStream, Permit<((), ())>>;

impl Clients {
    /// Greets a client, and keeps its connection until the client closes it.
    fn greet(&mut self, epoll: &Epoll, mut connection: PublicConnection) {
        let number = self.next;
        let greeted = connection.write_all(b"hello\n").is_ok();
        if greeted && epoll.add(&connection, Token(number), Interest::IN | Interest::RDHUP).is_ok() {
            self.open.insert(number, connection);
            self.next += 1;
        }
    }

    /// Reads and discards what a client has sent, and closes when the client has.
    fn read(&mut self, number: u64) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        let mut buffer = [0; 1024];
        let closed = loop {
            match connection.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if closed {
            self.open.remove(&number);
        }
    }
}

/// Answers one request of any path. Blocks for at most 200 ms per call: the scraper is on the same machine or near it.
fn answer(connection: Connection<TcpStream>, exporter: &Exporter) {
    let (mut stream, _permit) = connection.into_parts();
    let result = (|| {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 16_384 {
            match stream.read(&mut buffer)? {
                0 => break,
                length => request.extend_from_slice(&buffer[..length]),
            }
        }
        let body = exporter.text().map_err(io::Error::other)?;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    })();
    if let Err(error) = result {
        eprintln!("metrics: a request was not answered: {error}");
    }
}
