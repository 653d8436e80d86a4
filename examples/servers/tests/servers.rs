//! The servers as processes, with real clients: sockets, curl, openssl and tonic.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").parse().unwrap();
        Self { child, stdout, address }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client
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

const HTTP_SERVERS: [&str; 2] = [env!("CARGO_BIN_EXE_threads"), env!("CARGO_BIN_EXE_per_core")];

/// The outage: clients at the limit, a crowd in the queue, half of which leaves, and a permit that is released.
#[test]
fn flood_leaves_no_client_stranded() {
    for program in HTTP_SERVERS {
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

#[test]
fn curl_and_openssl_are_served_by_rustls() {
    let server = Server::start(env!("CARGO_BIN_EXE_hyper_rustls"), &[]);
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
    let server = Server::start(env!("CARGO_BIN_EXE_hyper_rustls"), &arguments);
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
