//! The command line of the echo server, and its signals.

use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::binaries::example;
use crate::client::Client;
use crate::flood::unix_address;
use crate::server::Server;

fn echo(arguments: &[&str]) -> Output {
    Command::new(example("echo")).args(arguments).output().expect("the example runs")
}

#[test]
fn both_signals_end_it_with_its_counters() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start("127.0.0.1:0", &["--workers", "2"]);
        let client = Client::ask(&server.address);
        client.await_echo();
        assert_eq!(server.end_with(signal).count("delivered"), 1);
    }
}

#[test]
fn full_server_ends() {
    let server = Server::start("127.0.0.1:0", &["--limit", "0"]);
    let _queued = Client::ask(&server.address);
    assert_eq!(server.end().count("delivered"), 0);
}

#[test]
fn unix_path_exists_while_it_serves() {
    let address = unix_address();
    let path = Path::new(address.strip_prefix("unix:").expect("a Unix address"));
    let server = Server::start(&address, &[]);
    assert!(path.exists());
    let second = echo(&["--listen", &address]);
    assert!(!second.status.success(), "a path belongs to one server");
    assert!(path.exists(), "the second server does not remove the path of the first");
    server.end();
    assert!(!path.exists());
}

#[test]
fn stats_are_printed_while_it_serves() {
    let server = Server::start("127.0.0.1:0", &["--stats", "0.01"]);
    let line = server.next_line();
    assert!(line.starts_with("worker 0: ") && line.contains("delivered 0"), "{line}");
}

#[test]
fn message_is_read_with_and_without_a_request() {
    let refusal = ["--limit", "0", "--when-full", "shed", "--refusal", "try again later\n"];
    for trigger in ["level", "edge"] {
        let server = Server::start("127.0.0.1:0", &[&refusal[..], &["--trigger", trigger]].concat());
        assert_eq!(Client::connect(&server.address).read_all(), b"try again later\n");
        assert_eq!(Client::ask(&server.address).read_all(), b"try again later\n");
        assert_eq!(server.end().count("refused"), 2);
    }
}

#[test]
fn help_is_printed() {
    let help = echo(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: echo"));
}

#[test]
fn bad_options_fail() {
    let listen = ["--listen", "127.0.0.1:0"];
    let nonsense: [&[&str]; 12] = [
        &[],
        &["--listen", "nowhere"],
        &[&listen[..], &["--trigger", "happy"]].concat(),
        &[&listen[..], &["--limit", "many"]].concat(),
        &[&listen[..], &["--when-full", "shed"]].concat(),
        &[&listen[..], &["--limit", "1", "--when-full", "panic"]].concat(),
        &[&listen[..], &["--limit", "1", "--refusal", "no"]].concat(),
        &[&listen[..], &["--limit", "1", "--when-full", "reset", "--refusal", "no"]].concat(),
        &[&listen[..], &["--budget", "0"]].concat(),
        &[&listen[..], &["--workers", "0"]].concat(),
        &[&listen[..], &["--stats", "0"]].concat(),
        &[&listen[..], &["--nonsense"]].concat(),
    ];
    for arguments in nonsense {
        let output = echo(arguments);
        assert!(!output.status.success(), "{arguments:?} should fail");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("echo: "), "{output:?}");
    }
}
