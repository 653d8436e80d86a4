//! A load of short connections, and the clients of a shutdown, for servers on 127.0.0.1. Only std: `rustc -O load.rs`.
//!
//! ```text
//! load short PORT COUNT CONCURRENCY http|redis     COUNT times: connect, one request, the answer, close
//! load end PORT PID SIGNAL http|redis              200 clients, and a signal among them
//! load end PORT PID SIGNAL http|redis busy         the same; the server is held (SIGSTOP) for the moment before
//! ```
//!
//! `short` prints nanoseconds of wall time per connection. `end` prints what became of the clients: half of them have
//! connected and sent their request just before the signal (with `busy` they are in the accept queue when it comes); the
//! other half were accepted, and send their first request 50 ms after it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(8);

fn request(protocol: &str) -> &'static [u8] {
    match protocol {
        "redis" => b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n",
        _ => b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    }
}

fn short(server: SocketAddr, count: usize, concurrency: usize, protocol: &str) {
    let begin = Instant::now();
    let request = request(protocol);
    let clients: Vec<_> = (0..concurrency)
        .map(|_| {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                for _ in 0..count / concurrency {
                    let mut client = TcpStream::connect(server).expect("connect");
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    client.write_all(request).expect("send");
                    assert!(client.read(&mut buffer).expect("the answer") > 0, "closed without an answer");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client failed");
    }
    println!("{}", begin.elapsed().as_nanos() as usize / count);
}

/// What became of a client.
fn outcome(mut client: TcpStream, request: Option<&[u8]>) -> &'static str {
    if request.is_some_and(|request| client.write_all(request).is_err()) {
        return "reset";
    }
    match client.read(&mut [0; 4096]) {
        Ok(0) => "closed without an answer",
        Ok(_) => "answered",
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => "no answer",
        Err(_) => "reset",
    }
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", signal, pid]).status().expect("kill").success());
}

fn end(server: SocketAddr, pid: &str, signal: &str, protocol: &str, busy: bool) {
    let connect = |_| {
        let client = TcpStream::connect(server).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    let request = request(protocol);
    let later: Vec<_> = (0..CLIENTS / 2).map(connect).collect();
    thread::sleep(Duration::from_millis(100));
    if busy {
        kill("STOP", pid);
    }
    let mut sent: Vec<_> = (0..CLIENTS / 2).map(connect).collect();
    for client in &mut sent {
        client.write_all(request).expect("send");
    }
    kill(signal, pid);
    if busy {
        kill("CONT", pid);
    }
    let waiting = thread::spawn(move || sent.into_iter().map(|client| outcome(client, None)).collect::<Vec<_>>());
    thread::sleep(Duration::from_millis(50));
    let later: Vec<_> = later.into_iter().map(|client| outcome(client, Some(request))).collect();
    for (what, outcomes) in [("sent before", waiting.join().unwrap()), ("sent after", later)] {
        print!("{what}:");
        for kind in ["answered", "closed without an answer", "reset", "no answer"] {
            let count = outcomes.iter().filter(|outcome| **outcome == kind).count();
            if count > 0 {
                print!(" {count} {kind}");
            }
        }
        print!("; ");
    }
    println!();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = |port: &str| SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    match arguments[..] {
        ["short", port, count, concurrency, protocol] => {
            short(server(port), count.parse().unwrap(), concurrency.parse().unwrap(), protocol);
        }
        ["end", port, pid, signal, protocol] => end(server(port), pid, signal, protocol, false),
        ["end", port, pid, signal, protocol, "busy"] => end(server(port), pid, signal, protocol, true),
        _ => eprintln!("see the head of the source"),
    }
}
