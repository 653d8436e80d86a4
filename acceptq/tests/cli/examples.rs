//! The examples for CI: `ordeal-step` on the servers in Python, Go and JavaScript.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::server::folder;
use crate::tool::{diagnosis, each, skip};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Edge-triggered; at its limit of one it leaves the accept loop.
const STRANDS: &str = "
import select, socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=64)
listener.setblocking(False)
epoll, clients = select.epoll(), {}
epoll.register(listener, select.EPOLLIN | select.EPOLLET)
while True:
    for fd, _ in epoll.poll():
        if fd in clients:
            if not clients[fd].recv(64):
                clients.pop(fd).close()
            continue
        while len(clients) < 1:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                break
            clients[client.fileno()] = client
            epoll.register(client, select.EPOLLIN)
";

/// Runs the step on a server, which gets a free port as its last argument.
fn step(command: &[&str]) -> Output {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port");
    step_at(&free.port().to_string(), command)
}

fn step_at(port: &str, command: &[&str]) -> Output {
    let tool = Path::new(env!("CARGO_BIN_EXE_acceptq")).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut step = Command::new(Path::new(EXAMPLES).join("ordeal-step"));
    step.arg(port).args(command).arg(port).current_dir(EXAMPLES);
    step.env("PATH", format!("{}:{path}", tool.display())).output().expect("bash runs it")
}

fn runs(program: &str, argument: &str) -> bool {
    let runs = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    if !runs {
        skip!("{program} is not installed: its example for CI");
    }
    runs
}

#[test]
fn ordeal_step_passes_the_examples() {
    let go = folder().join("server-go");
    let go = go.to_str().expect("a plain path");
    if runs("go", "version") {
        let mut command = Command::new("go");
        command.args(["build", "-o", go, "server.go"]).current_dir(EXAMPLES);
        command.env("GOCACHE", folder().join("gocache")).env("GO111MODULE", "off");
        assert!(command.status().expect("just run").success(), "the server compiles");
    }
    let mut commands = Vec::new();
    if runs("python3", "--version") {
        commands.push((vec!["python3", "server.py"], "waits_well"));
    }
    if Path::new(go).exists() {
        commands.push((vec![go], "waits_well"));
    }
    if runs("node", "--version") {
        commands.push((vec!["node", "server.js"], "refuses_well"));
    }
    each(commands, |(command, verdict)| {
        let output = step(&command);
        let (report, status) = diagnosis(&output);
        assert_eq!((status, &report["verdict"]), (0, &verdict.into()), "{command:?}: {report:#}");
        assert_eq!((&report["schema"], &report["held"]), (&1.into(), &8.into()), "{report:#}");
    });
}

#[test]
fn ordeal_step_spares_another_server() {
    let (_listener, port) = crate::watch::listener();
    let output = step_at(&port, &["false"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("port {port} is in use\n"));
}

#[test]
fn ordeal_step_fails_with_the_server() {
    if !runs("python3", "--version") {
        return;
    }
    let (report, status) = diagnosis(&step(&["python3", "-c", STRANDS]));
    assert_eq!((status, &report["verdict"]), (10, &"strands".into()), "{report:#}");
    let ended = step(&["python3", "-c", "pass"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("ended before it listened"), "{ended:?}");
}
