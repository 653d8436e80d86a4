//! Whole servers: axum on an acceptor of this crate and on tokio's listener, as ratios in one run.
//!
//! ```text
//! cargo bench -p servers --bench whole
//! ```
//!
//! Clients connect, ask, read the answer to its end, and leave. Measured are the CPU time of the server's thread per
//! connection (`/proc/self/task/TID/schedstat`) and the wall-clock time, which the clients share. Both servers
//! run in this process, each on a thread and a runtime of its own; the other one sleeps meanwhile. Blocks of four (tokio,
//! ours, ours, tokio: a drift cancels out); the figure is the median of their ratios with its 95 % confidence interval.

#[allow(dead_code, unreachable_pub, reason = "shared with other benches")]
#[path = "../../../benches/engines/abba.rs"]
mod abba;
#[allow(dead_code, unreachable_pub, reason = "shared with other benches")]
#[path = "../../../benches/engines/stats.rs"]
mod stats;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use abba::{Block, Side};
use axum::{Router, routing::get};
use epoll_acceptor::{Gate, LevelTriggered};
use nix::unistd::gettid;
use stats::Median;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
/// Clients at once.
const CLIENTS: [usize; 3] = [1, 4, 32];

/// A server on a thread of its own.
struct Server {
    address: SocketAddr,
    thread: i32,
}

impl Server {
    fn start(side: Side) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on loopback");
        socket2::SockRef::from(&listener).listen(4_096).expect("a longer backlog");
        let address = listener.local_addr().expect("an address");
        let (started, thread) = channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let app = Router::new().route("/", get(async || "hello\n"));
                started.send(gettid().as_raw()).expect("the bench waits for it");
                match side {
                    Side::Base => {
                        listener.set_nonblocking(true).expect("a listener that does not block");
                        let listener = tokio::net::TcpListener::from_std(listener).expect("a registration");
                        axum::serve(listener, app).await
                    }
                    Side::Point => {
                        let gate = Gate::new(10_000);
                        let acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio();
                        axum::serve(acceptor.expect("a registration"), app).await
                    }
                }
            })
        });
        Self { address, thread: thread.recv().expect("the server starts") }
    }

    /// Serves clients, `at_once` at a time. Returns the CPU time and the wall-clock time.
    fn serve(&self, connections: usize, at_once: usize) -> (Duration, Duration) {
        let (cpu, begin) = (self.cpu(), Instant::now());
        for _ in 0..connections / at_once {
            let clients: Vec<_> = (0..at_once).map(|_| self.ask()).collect();
            clients.into_iter().for_each(answered);
        }
        let wall = begin.elapsed();
        (self.cpu() - cpu, wall)
    }

    fn ask(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.address).expect("a connection");
        client.write_all(REQUEST).expect("a request");
        client
    }

    /// Returns the CPU time of its thread.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/self/task/{}/schedstat", self.thread);
        let text = std::fs::read_to_string(path).expect("the scheduler's figures");
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanoseconds.expect("a number"))
    }
}

fn answered(mut client: TcpStream) {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("an answer, and no reset");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello\n"), "{text}");
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let (blocks, connections) = if quick { (1, 64) } else { (40, 2_048) };
    let servers = [Server::start(Side::Base), Server::start(Side::Point)];
    for server in &servers {
        server.serve(64, 32);
    }
    println!("axum on this crate against axum on tokio's listener, per connection, {blocks} blocks");
    println!("{:>9} {:>27} {:>27}", "at once", "CPU time of the server", "wall-clock time");
    for at_once in CLIENTS {
        let (mut cpu, mut wall) = (Vec::new(), Vec::new());
        for _ in 0..blocks {
            let mut walls = Vec::new();
            let block = Block::of(|side| {
                let server = &servers[usize::from(side == Side::Point)];
                let (cpu, wall) = server.serve(connections, at_once);
                walls.push(wall.as_secs_f64());
                cpu.as_secs_f64()
            });
            cpu.push(block.ratio());
            wall.push((walls[1] + walls[2]) / (walls[0] + walls[3]));
        }
        let show = |ratios| {
            let Median { value, low, high } = Median::of(ratios);
            format!("{value:.3} [{low:.3}, {high:.3}]")
        };
        println!("{at_once:>9} {:>27} {:>27}", show(cpu), show(wall));
    }
}
