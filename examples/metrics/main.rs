//! A server that tells Prometheus what its acceptor does: counters by cause, state, places, accept queue, and the
//! histogram of its passes.
//!
//! ```text
//! cargo run --release --example metrics -- --listen 127.0.0.1:8080 --metrics 127.0.0.1:9100 --limit 100
//! curl http://127.0.0.1:9100/metrics
//! ```
//!
//! The metrics are answered from the same loop, by a second acceptor behind the same gate, which is privileged: an
//! administrator's connection is let in when everybody else finds it full.

mod export;

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, Connection, Epoll, Events, Gate, Interest, LevelTriggered, Refusal, Token, WhenFull,
};

use crate::export::Exporter;

const HELP: &str = "\
Usage: metrics [--listen ADDR] [--metrics ADDR] [--limit N]

  --listen ADDR   answer `hello` there and close when the client does (127.0.0.1:0)
  --metrics ADDR  serve Prometheus's text form there under any path (127.0.0.1:0)
  --limit N       connections at once, two more for --metrics (100)
";
const PUBLIC: Token = Token(u64::MAX);
const ADMIN: Token = Token(u64::MAX - 1);

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
    let gate = Gate::new(options.limit.saturating_add(2)).reserved(2);
    let busy = WhenFull::Shed(Refusal::message("busy\n"));
    let listener = TcpListener::bind(options.listen)?;
    let admin = TcpListener::bind(options.metrics)?;
    println!("listening on {}", listener.local_addr()?);
    println!("metrics on {}", admin.local_addr()?);
    let mut public =
        LevelTriggered::on(listener).gate(&gate.clone().when_full(busy)).register(&epoll, PUBLIC)?;
    let mut admin = LevelTriggered::on(admin).gate(&gate.clone().privileged()).register(&epoll, ADMIN)?;
    let exporter = Exporter::new(public.control(), gate, public.listener().try_clone()?);
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
                Token(number) => clients.hear(number),
            }
        }
    }
}

/// Connections by their token.
#[derive(Default)]
struct Clients {
    open: HashMap<u64, Connection<TcpStream>>,
    /// Never used twice: an event of who has left must not be taken for another's.
    next: u64,
}

impl Clients {
    /// Greets a client, and keeps it until it leaves; one that takes no greeting is none to wait for.
    fn greet(&mut self, epoll: &Epoll, mut connection: Connection<TcpStream>) {
        let number = self.next;
        let greeted = connection.write_all(b"hello\n").is_ok();
        if greeted && epoll.add(&connection, Token(number), Interest::IN | Interest::RDHUP).is_ok() {
            self.open.insert(number, connection);
            self.next += 1;
        }
    }

    /// Reads what a client has sent, to find out whether it has left.
    fn hear(&mut self, number: u64) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        let mut buffer = [0; 1024];
        let left = loop {
            match connection.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if left {
            self.open.remove(&number);
        }
    }
}

/// Answers one request, whatever it asks for, within a bound: an administrator's client is on the same machine.
fn answer(connection: Connection<TcpStream>, exporter: &Exporter) {
    let (mut stream, _place) = connection.into_parts();
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
        eprintln!("metrics: not answered: {error}");
    }
}
