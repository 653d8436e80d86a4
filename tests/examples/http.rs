//! The HTTP server, with a client of this file and with curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Address;
use crate::flood::assert_few_passes;
use crate::server::Server;
use crate::{BOUND, eventually};

const LIMIT: usize = 4;
const CLIENTS: usize = 100;

/// A connection that is kept open between requests, as a browser's is.
struct Browser(TcpStream);

impl Browser {
    fn connect(server: &Server) -> Self {
        Self::connect_to(address(server))
    }

    fn connect_to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the accept queue has room");
        stream.set_read_timeout(Some(BOUND)).expect("an option");
        Self(stream)
    }

    fn send(&self, text: &str) {
        // Fails if the server has refused the connection already; the read reports it.
        let _ = (&self.0).write_all(text.as_bytes());
    }

    fn get(&self) -> (u16, String) {
        self.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        self.answer()
    }

    /// Returns status and body of one response, and reads no further.
    fn answer(&self) -> (u16, String) {
        let (mut head, mut byte) = (String::new(), [0]);
        while !head.ends_with("\r\n\r\n") {
            let read = (&self.0).read(&mut byte).unwrap_or_else(|error| panic!("{error} after {head:?}"));
            assert_eq!(read, 1, "the connection ended after {head:?}");
            head.push(char::from(byte[0]));
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        (&self.0).read_exact(&mut body).expect("a body of that length");
        (status, String::from_utf8(body).expect("text"))
    }
}

fn address(server: &Server) -> SocketAddr {
    let Address::Tcp(address) = server.address else { panic!("the HTTP server is on TCP") };
    address
}

fn start() -> Server {
    Server::start_example("http", "127.0.0.1:0", &["--limit", &LIMIT.to_string()])
}

/// Fills the server: each client gets one response and keeps its connection open.
fn fill(server: &Server) -> Vec<Browser> {
    let browsers: Vec<_> = (0..LIMIT).map(|_| Browser::connect(server)).collect();
    for browser in &browsers {
        assert_eq!(browser.get(), (200, "hello\n".to_owned()));
    }
    browsers
}

/// A permit is released a moment after its client has closed: until then a client reads 503, and tries again.
fn await_permit(server: &Server) -> (Browser, u64) {
    let (mut tries, mut answered) = (0, None);
    eventually("a later client is answered", || {
        tries += 1;
        let browser = Browser::connect(server);
        answered = (browser.get().0 == 200).then_some(browser);
        answered.is_some()
    });
    (answered.expect("answered"), tries)
}

#[test]
fn clients_read_503_at_the_limit() {
    let mut server = start();
    let mut served = fill(&server);
    let connect_clients: Vec<_> = (0..CLIENTS).map(|_| Browser::connect(&server)).collect();
    // Half of them send their request after the refusal, half of them send none.
    for (number, browser) in connect_clients.iter().enumerate() {
        let (status, _) = if number % 2 == 0 { browser.get() } else { browser.answer() };
        assert_eq!(status, 503);
    }
    server.assert_sleeps();
    // Connections in service are not affected.
    for browser in &served {
        assert_eq!(browser.get().0, 200);
    }

    drop(connect_clients);
    drop(served.pop());
    let mut all = (LIMIT + CLIENTS) as u64;
    let mut later = Vec::new();
    for _ in 0..5 {
        let (client, tries) = await_permit(&server);
        all += tries;
        later.push(client);
        drop(later.drain(..).next());
    }
    drop((served, later));
    server.await_idle();
    let totals = server.end();
    assert_eq!(totals.count("delivered") + totals.count("refused"), all);
    assert_eq!(totals.count("delivered"), LIMIT as u64 + 5);
    assert_few_passes(totals.count("passes"), all, 1);
    assert_eq!(totals.count("empty"), 0);
}

#[test]
fn service_ends_after_the_last_response() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = start();
        let (idle, busy) = (Browser::connect(&server), Browser::connect(&server));
        assert_eq!(idle.get().0, 200);
        // After 100 Continue, the request has been received for certain.
        busy.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
        assert_eq!(busy.answer().0, 100);
        busy.send("half ");
        let address = address(&server);
        server.signal(signal);
        eventually("it accepts no more", || TcpStream::connect(address).is_err());
        // The request in flight is answered.
        busy.send("and ..");
        assert_eq!(busy.answer(), (200, "half and ..".to_owned()));
        assert_eq!((&idle.0).read(&mut [0]).expect("end of file"), 0);
        // The probes above may have been accepted as well.
        assert!(server.await_end().count("delivered") >= 2);
    }
}

/// While SIGSTOP holds it, connections and its SIGTERM become pending together.
#[test]
fn queued_connections_are_served_at_the_end() {
    for _ in 0..3 {
        let server = Server::start_example("http", "127.0.0.1:0", &["--limit", "1000"]);
        server.signal(Signal::SIGSTOP);
        let connect_clients: Vec<_> = (0..CLIENTS).map(|_| Browser::connect(&server)).collect();
        for browser in &connect_clients {
            browser.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        }
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        for browser in &connect_clients {
            assert_eq!(browser.answer(), (200, "hello\n".to_owned()));
        }
        let totals = server.await_end();
        assert_eq!((totals.count("delivered"), totals.count("refused")), (CLIENTS as u64, 0));
    }
}

/// Several threads connect without pause, while one process replaces another.
#[test]
fn replacement_loses_no_client() {
    let server = Server::start_example("http", "127.0.0.1:0", &["--limit", "1000"]);
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut pids, address) = (Vec::new(), address(&server));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(Browser::connect_to(address).get(), (200, "hello\n".to_owned()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let served_since = |before: u64| {
            eventually("clients are answered", || answered.load(Ordering::Relaxed) >= before + 50);
        };
        let stop = StopOnDrop(&over);
        for generation in 0..3 {
            served_since(answered.load(Ordering::Relaxed));
            match pids.last() {
                None => server.signal(Signal::SIGHUP),
                Some(pid) => kill(*pid, Signal::SIGHUP).expect("the successor runs"),
            }
            // Lines of two processes, in any order.
            let lines = [(); 3].map(|()| server.next_line());
            let pid =
                lines.iter().find_map(|line| line.strip_prefix("replaced by ")).expect("the successor's pid");
            pids.push(Pid::from_raw(pid.parse().expect("a process id")));
            assert!(lines.iter().any(|line| line.starts_with("listening on ")), "{generation}: {lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("http: ")), "{generation}: {lines:?}");
        }
        served_since(answered.load(Ordering::Relaxed));
        drop(stop);
    });
    kill(pids[2], Signal::SIGTERM).expect("the last successor runs");
    assert!(server.await_end().count("delivered") > 0, "of the last process, whose lines are left");
}

/// Stops the clients, also when an assertion fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn curl_reads_503() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl on this machine");
        return;
    }
    let server = start();
    let url = format!("http://{}/", address(&server));
    let status = || {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}", &url])
            .output()
            .expect("curl runs");
        let (status, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        (String::from_utf8(status).expect("a number"), stderr)
    };
    assert_eq!(status(), ("200".to_owned(), String::new()));
    eventually("the permit is released", || server.connections() == 0);
    let served = fill(&server);
    for _ in 0..25 {
        assert_eq!(status(), ("503".to_owned(), String::new()));
    }
    drop(served);
    eventually("the permits are released", || server.connections() == 0);
    eventually("curl is answered", || status().0 == "200");
    assert_eq!(server.end().count("aborted"), 0);
}
