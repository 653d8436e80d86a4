//! The HTTP server, asked by a client of this file's own and by curl.

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
const CROWD: usize = 100;

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
        // One who was refused finds out when it reads.
        let _ = (&self.0).write_all(text.as_bytes());
    }

    fn get(&self) -> (u16, String) {
        self.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        self.answer()
    }

    /// Status and body of one answer; the rest of the connection is left as it is.
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
        (&self.0).read_exact(&mut body).expect("a body as long as it says");
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

/// As many as may be, each answered once and keeping its connection.
fn fill(server: &Server) -> Vec<Browser> {
    let browsers: Vec<_> = (0..LIMIT).map(|_| Browser::connect(server)).collect();
    for browser in &browsers {
        assert_eq!(browser.get(), (200, "hello\n".to_owned()));
    }
    browsers
}

/// A place is free a moment after its client has gone: until then a newcomer hears 503, and tries again.
fn await_place(server: &Server) -> (Browser, u64) {
    let (mut tries, mut answered) = (0, None);
    eventually("a newcomer is answered", || {
        tries += 1;
        let browser = Browser::connect(server);
        answered = (browser.get().0 == 200).then_some(browser);
        answered.is_some()
    });
    (answered.expect("answered"), tries)
}

#[test]
fn at_the_limit_everyone_reads_a_503() {
    let mut server = start();
    let mut served = fill(&server);
    let crowd: Vec<_> = (0..CROWD).map(|_| Browser::connect(&server)).collect();
    // Half of them have said nothing when they are refused, and ask afterwards; half of them never ask.
    for (number, browser) in crowd.iter().enumerate() {
        let (status, _) = if number % 2 == 0 { browser.get() } else { browser.answer() };
        assert_eq!(status, 503);
    }
    server.assert_sleeps();
    // Those who are in are served as before.
    for browser in &served {
        assert_eq!(browser.get().0, 200);
    }

    drop(crowd);
    drop(served.pop());
    let mut all = (LIMIT + CROWD) as u64;
    let mut newcomers = Vec::new();
    for _ in 0..5 {
        let (newcomer, tries) = await_place(&server);
        all += tries;
        newcomers.push(newcomer);
        drop(newcomers.drain(..).next());
    }
    drop((served, newcomers));
    server.await_rest();
    let words = server.end();
    assert_eq!(words.count("delivered") + words.count("refused"), all);
    assert_eq!(words.count("delivered"), LIMIT as u64 + 5);
    assert_few_passes(words.count("passes"), all, 1);
    assert_eq!(words.count("empty"), 0);
}

#[test]
fn it_ends_when_the_last_request_is_answered() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = start();
        let (idle, busy) = (Browser::connect(&server), Browser::connect(&server));
        assert_eq!(idle.get().0, 200);
        // Told to go on, it knows that its request is under way, and not just on its way.
        busy.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
        assert_eq!(busy.answer().0, 100);
        busy.send("half ");
        let address = address(&server);
        server.signal(signal);
        eventually("it accepts no more", || TcpStream::connect(address).is_err());
        // The request that was under way is finished, and its answer heard.
        busy.send("and ..");
        assert_eq!(busy.answer(), (200, "half and ..".to_owned()));
        assert_eq!((&idle.0).read(&mut [0]).expect("an orderly end"), 0);
        // The looks whether it still accepts may have been let in as well.
        assert!(server.await_end().count("delivered") >= 2);
    }
}

/// Held up by SIGSTOP, the server finds them all in its queue together with its signal.
#[test]
fn who_is_queued_when_it_ends_is_served() {
    for _ in 0..3 {
        let server = Server::start_example("http", "127.0.0.1:0", &["--limit", "1000"]);
        server.signal(Signal::SIGSTOP);
        let crowd: Vec<_> = (0..CROWD).map(|_| Browser::connect(&server)).collect();
        for browser in &crowd {
            browser.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        }
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        for browser in &crowd {
            assert_eq!(browser.answer(), (200, "hello\n".to_owned()));
        }
        let words = server.await_end();
        assert_eq!((words.count("delivered"), words.count("refused")), (CROWD as u64, 0));
    }
}

/// Clients come without a pause, one after the other in each of some threads, while one process follows upon another.
#[test]
fn a_new_process_takes_its_place_and_no_client_notices() {
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
        let ends = Ends(&over);
        for generation in 0..3 {
            served_since(answered.load(Ordering::Relaxed));
            match pids.last() {
                None => server.signal(Signal::SIGHUP),
                Some(pid) => kill(*pid, Signal::SIGHUP).expect("the successor runs"),
            }
            // Those of two processes: in whatever order.
            let lines = [(); 3].map(|()| server.next_line());
            let pid =
                lines.iter().find_map(|line| line.strip_prefix("replaced by ")).expect("it says by whom");
            pids.push(Pid::from_raw(pid.parse().expect("a process id")));
            assert!(lines.iter().any(|line| line.starts_with("listening on ")), "{generation}: {lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("http: ")), "{generation}: {lines:?}");
        }
        served_since(answered.load(Ordering::Relaxed));
        drop(ends);
    });
    kill(pids[2], Signal::SIGTERM).expect("the last successor runs");
    assert!(server.await_end().count("delivered") > 0, "of the last one, whose lines are left");
}

/// Also when an assertion fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn curl_reads_the_503() {
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
        let (told, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        (String::from_utf8(told).expect("a number"), complaint)
    };
    assert_eq!(status(), ("200".to_owned(), String::new()));
    eventually("the place is free", || server.connections() == 0);
    let served = fill(&server);
    for _ in 0..25 {
        assert_eq!(status(), ("503".to_owned(), String::new()));
    }
    drop(served);
    eventually("the places are free", || server.connections() == 0);
    eventually("curl is answered", || status().0 == "200");
    assert_eq!(server.end().count("aborted"), 0);
}
