//! The servers as processes, with real clients: sockets, curl, openssl and tonic.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use epoll_acceptor::handover;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A timeout that no passing test reaches, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A server; killed when dropped.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        Self::run(Command::new(program).args(arguments))
    }

    /// Starts a server with a limit of descriptors (`ulimit -n`).
    fn start_with_descriptors(program: &str, descriptors: u32) -> Self {
        let script = r#"ulimit -n "$0" && exec "$1""#;
        Self::run(Command::new("sh").args(["-c", script, &descriptors.to_string(), program]))
    }

    fn run(command: &mut Command) -> Self {
        Self::of(command.stdout(Stdio::piped()).spawn().expect("the server runs"))
    }

    /// Waits until it listens. Its output is piped.
    fn of(mut child: Child) -> Self {
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").parse().unwrap();
        Self { child, stdout, address }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Waits for the end, and returns what it printed.
    fn join(mut self) -> String {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < LONG, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(self.child.wait().unwrap().success());
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        printed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

/// Opens a listener with a long backlog.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn request(mut client: &TcpStream) {
    client.write_all(REQUEST).unwrap();
}

/// Reads one answer with the body `hello`.
fn assert_answered(mut client: &TcpStream) {
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while !text.ends_with(b"hello\n") {
        let read = client.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
    assert!(text.starts_with(b"HTTP/1.1 200 "));
}

/// Asks once. Returns whether the answer is 200, and not 503.
fn is_served(mut client: &TcpStream) -> bool {
    let mut text = [0; 12];
    // The server may refuse it before it asks.
    let _ = client.write_all(REQUEST);
    client.read_exact(&mut text).unwrap();
    text == *b"HTTP/1.1 200"
}

/// Each client asks, reads its answer, and leaves.
fn ask_at_once(clients: Vec<TcpStream>) {
    let ask = |client: TcpStream| {
        thread::spawn(move || {
            request(&client);
            assert_answered(&client);
        })
    };
    let clients: Vec<_> = clients.into_iter().map(ask).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// Runs a program; `None` if this machine does not have it.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: no {program}");
        return None;
    };
    let _ = child.stdin.take().unwrap().write_all(input);
    Some(child.wait_with_output().unwrap())
}

const AXUM: &str = env!("CARGO_BIN_EXE_axum");
const RUSTLS: &str = env!("CARGO_BIN_EXE_hyper_rustls");
const THREADS: &str = env!("CARGO_BIN_EXE_threads");
/// They let clients wait at the limit.
const WAITING: [&str; 2] = [THREADS, env!("CARGO_BIN_EXE_per_core")];
const HTTP_SERVERS: [&str; 3] = [AXUM, WAITING[0], WAITING[1]];

/// The outage: clients at the limit, a crowd in the queue, half of which leaves, and a permit that is released.
#[test]
fn flood_leaves_no_client_stranded() {
    for program in WAITING {
        let server = Server::start(program, &["--limit", "4"]);
        let held: Vec<_> = (0..4).map(|_| server.connect()).collect();
        held.iter().for_each(request);
        held.iter().for_each(assert_answered);
        let mut crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
        crowd.truncate(100);
        drop(held);
        crowd.extend((0..5).map(|_| server.connect()));
        ask_at_once(crowd);
        server.terminate();
        server.join();
    }
}

/// The same before a server that refuses at the limit.
#[test]
fn flood_is_refused_and_later_clients_are_served() {
    let server = Server::start(AXUM, &["--limit", "4"]);
    let held: Vec<_> = (0..4).map(|_| server.connect()).collect();
    held.iter().for_each(request);
    held.iter().for_each(assert_answered);
    let mut crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    crowd.truncate(100);
    for mut client in crowd {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    }
    drop(held);
    // A permit may still be on its way back: then a client is refused, and asks again.
    for _ in 0..5 {
        let begin = Instant::now();
        while !is_served(&server.connect()) {
            assert!(begin.elapsed() < LONG, "the permits are not released");
            thread::sleep(Duration::from_millis(5));
        }
    }
    server.terminate();
    server.join();
}

#[test]
fn exhausted_descriptors_are_outlasted() {
    for program in HTTP_SERVERS {
        let server = Server::start_with_descriptors(program, 64);
        ask_at_once((0..200).map(|_| server.connect()).collect());
        server.terminate();
        server.join();
    }
}

#[test]
fn end_resets_no_client() {
    for program in HTTP_SERVERS {
        let server = Server::start(program, &[]);
        let clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
        clients.iter().for_each(request);
        server.terminate();
        clients.iter().for_each(assert_answered);
        drop(clients);
        server.join();
    }
}

/// A service manager holds the socket, ends the server by SIGTERM and then starts the next, all under load.
#[test]
fn restart_loses_no_client() {
    for program in [AXUM, THREADS] {
        let (listener, address) = listen();
        let start = || {
            let mut command = Command::new(program);
            command.stdout(Stdio::piped());
            Server::of(handover::spawn(command, &[("http", &listener)]).unwrap())
        };
        let (served, ended) = (AtomicU32::new(0), AtomicBool::new(false));
        let ask = || {
            while !ended.load(Ordering::Relaxed) {
                let client = connect(address);
                request(&client);
                assert_answered(&client);
                served.fetch_add(1, Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            for generation in 1..=4 {
                let server = start();
                let begin = Instant::now();
                while served.load(Ordering::Relaxed) < 100 * generation {
                    let failed = clients.iter().any(ScopedJoinHandle::is_finished);
                    assert!(!failed && begin.elapsed() < LONG, "{program}, generation {generation}");
                    thread::sleep(Duration::from_millis(1));
                }
                // The last one serves until the clients have ended.
                if generation == 4 {
                    ended.store(true, Ordering::Relaxed);
                    while !clients.iter().all(ScopedJoinHandle::is_finished) {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                server.terminate();
                server.join();
            }
        });
    }
}

/// wrk and h2load, as their users run them: no request fails.
#[test]
fn load_generators_see_no_failure() {
    for program in HTTP_SERVERS {
        let server = Server::start(program, &[]);
        let url = format!("http://{}/", server.address);
        for header in ["connection: close", "connection: keep-alive"] {
            let arguments =
                ["--threads", "1", "--connections", "32", "--duration", "1", "--header", header, &url];
            if let Some(output) = run("wrk", &arguments, b"") {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success() && text.contains("requests in"), "{program}: {text}");
                assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{program}: {text}");
            }
        }
        server.terminate();
        server.join();
    }
    let server = Server::start(RUSTLS, &["--handshakes", "8"]);
    let url = format!("https://{}/", server.address);
    for version in ["--h1", "--npn-list=h2"] {
        let arguments = ["--requests", "2000", "--clients", "50", version, &url];
        if let Some(output) = run("h2load", &arguments, b"") {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{version}: {text}");
        }
    }
    server.terminate();
    server.join();
}

#[test]
fn curl_and_openssl_are_served_by_rustls() {
    let server = Server::start(RUSTLS, &[]);
    let url = format!("https://{}/", server.address);
    for version in ["--http1.1", "--http2"] {
        let Some(output) = run("curl", &["--silent", "--show-error", "--insecure", version, &url], b"")
        else {
            break;
        };
        let error = String::from_utf8_lossy(&output.stderr);
        // Not every curl has HTTP/2.
        assert!(output.stdout == b"hello\n" || error.contains("does not support"), "{version}: {error}");
    }
    let address = server.address.to_string();
    let arguments = ["s_client", "-connect", &address, "-quiet", "-ign_eof"];
    let input = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    if let Some(output) = run("openssl", &arguments, input) {
        assert!(output.stdout.ends_with(b"hello\n"), "{output:?}");
    }
    server.terminate();
    let printed = server.join();
    assert!(printed.contains("abandoned: Some(0)"), "{printed}");
}

/// Silent clients take the stage of handshakes, and no more: others are served when their time is over.
#[test]
fn silent_clients_do_not_keep_others_out() {
    let arguments = ["--limit", "1000", "--handshakes", "8", "--handshake-ms", "100"];
    let server = Server::start(RUSTLS, &arguments);
    let silent: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let url = format!("https://{}/", server.address);
    for _ in 0..5 {
        let arguments = ["--silent", "--show-error", "--insecure", "--max-time", "30", &url];
        let Some(output) = run("curl", &arguments, b"") else { return };
        assert_eq!(output.stdout, b"hello\n", "{output:?}");
    }
    drop(silent);
    server.terminate();
    server.join();
}

#[test]
fn calls_in_flight_are_answered_by_tonic() {
    let server = Server::start(env!("CARGO_BIN_EXE_tonic"), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let mut calls = Vec::new();
        for _ in 0..20 {
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            calls.push(tokio::spawn(async move {
                client.check(HealthCheckRequest { service: String::new() }).await
            }));
        }
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().into_inner().status(), ServingStatus::Serving);
        }
    });
    server.terminate();
    let printed = server.join();
    assert!(printed.contains("abandoned: Some(0)"), "{printed}");
}
