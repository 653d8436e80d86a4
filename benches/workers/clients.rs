//! The clients, in a process of their own: each connects, sends a byte, waits for one, resets, and starts over.

use std::env;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::engines::net;

/// How many clients there are at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One: every connection wakes a sleeping worker.
    Lone,
    /// Many: the queue is rarely empty.
    Busy,
}

impl Load {
    pub(crate) const ALL: [Self; 2] = [Self::Lone, Self::Busy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lone => "lone",
            Self::Busy => "busy",
        }
    }

    pub(crate) const fn clients(self) -> usize {
        match self {
            Self::Lone => 1,
            Self::Busy => 16,
        }
    }
}

const CHILD: &str = "EPOLL_ACCEPTOR_BENCH_CLIENTS";

pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Returns the nanoseconds from the connect to the received byte, of every connection.
pub(crate) fn run(address: SocketAddr, load: Load, time: Duration) -> Vec<u64> {
    let mut child = Command::new(env::current_exe().expect("this program's own path"))
        .env(CHILD, format!("{address} {} {}", load.clients(), time.as_millis()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut bytes = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut bytes).expect("the clients' figures");
    assert!(child.wait().expect("a child that ends").success(), "the clients failed");
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes"))).collect()
}

/// The main function of the child.
pub(crate) fn run_child() {
    let spec = env::var(CHILD).expect("a specification");
    let words: Vec<&str> = spec.split(' ').collect();
    let [address, clients, millis] = words[..] else { panic!("{spec:?}: not a specification") };
    let address: SocketAddr = address.parse().expect("an address");
    let time = Duration::from_millis(millis.parse().expect("a time"));
    let clients: usize = clients.parse().expect("a number");
    let start = Instant::now();
    let running: Vec<_> = (0..clients)
        .map(|_| {
            thread::spawn(move || {
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    latencies.push(once(&address));
                }
                latencies
            })
        })
        .collect();
    let mut out = io::stdout().lock();
    for client in running {
        for latency in client.join().expect("a client that ends") {
            out.write_all(&latency.to_le_bytes()).expect("a parent that reads");
        }
    }
}

fn once(address: &SocketAddr) -> u64 {
    let start = Instant::now();
    let mut stream = net::connect(address);
    // A client that is not served fails the bench.
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(b"?").expect("a byte sent");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("a reply");
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
