//! The doctor on the accept loop of the outage in C and C++: right each time, also while clients come and go.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::server::{Server, folder};
use crate::tool::{each, examine, queued, skip, wait_until};

/// Returns how often each server is diagnosed in each situation. No verdict may be wrong.
fn runs() -> usize {
    if std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some() { 10 } else { 3 }
}

/// The clients that connect at once.
const FLOOD: usize = 30;

/// A variant of the server, the verdict while a connection is open, and after it has closed.
const VARIANTS: [(&str, &str, &str); 4] = [
    ("edge", "stranded", "stranded"),
    ("class", "stranded", "stranded"),
    ("counter", "stranded", "stranded"),
    // Disarmed, so at its limit until no connection is left that could rearm it.
    ("threads", "at_limit", "not_accepting"),
];

/// Starts a variant; reports a skip and returns `None` if there is no compiler.
fn start(mode: &str) -> Option<Server> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    if mode == "edge" {
        return Server::start(mode, "127.0.0.1", 1);
    }
    let program = PROGRAM.get_or_init(|| {
        let program = folder().join("outage");
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program);
        compiler.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/outage.cc"));
        assert!(compiler.status().ok()?.success(), "the server compiles");
        Some(program)
    });
    let Some(program) = program else {
        skip!("no C++ compiler (c++) for the servers of the outage");
        return None;
    };
    Some(Server::spawn(Command::new(program).args([mode, "1"]), "127.0.0.1"))
}

fn is_right_each_time(server: &Server, verdict: &str, situation: &str) {
    let verdicts: Vec<String> = (0..runs())
        .map(|_| {
            let report = examine(&server.target()).0;
            format!(
                "{} ({}, {} queued)",
                report["verdict"].as_str().unwrap_or_default(),
                report["cause"],
                report["queued"]
            )
        })
        .collect();
    let right = verdicts.iter().filter(|one| one.starts_with(verdict)).count();
    assert_eq!(right, verdicts.len(), "{situation}: {verdicts:#?}");
}

/// Starts a variant with one open connection and a queue.
fn flooded(mode: &str) -> Option<(Server, socket2::Socket, Vec<socket2::Socket>)> {
    let server = start(mode)?;
    let held = server.hold_one();
    let clients = server.connect_while_stopped(FLOOD);
    let left = if matches!(mode, "edge" | "class") { FLOOD - 1 } else { FLOOD };
    wait_until("the server sleeps at its limit", || queued(&server.target()) == left as u64);
    Some((server, held, clients))
}

#[test]
fn outage_is_recognized_when_the_queue_is_still() {
    each(VARIANTS, |(mode, at_limit, after)| {
        let Some((server, held, mut clients)) = flooded(mode) else { return };
        is_right_each_time(&server, at_limit, &format!("{mode}, a connection is open"));
        clients.truncate(FLOOD / 2);
        drop(held);
        wait_until("the open connection is closed", || examine(&server.target()).0["open"] == 0);
        is_right_each_time(&server, after, &format!("{mode}, no connection is open"));
    });
}

#[test]
fn outage_is_recognized_while_clients_arrive() {
    each(VARIANTS, |(mode, at_limit, _)| {
        let Some((server, _held, _clients)) = flooded(mode) else { return };
        let _arriving = server.endpoint.connect_repeatedly(Duration::from_millis(40), 100);
        is_right_each_time(&server, at_limit, &format!("{mode}, clients arrive"));
    });
}

#[test]
fn outage_is_recognized_while_the_queue_drains() {
    // Each new client wakes the server, which accepts one of the clients that have left.
    each(VARIANTS, |(mode, at_limit, _)| {
        let Some((server, _held, clients)) = flooded(mode) else { return };
        drop(clients);
        let _leaving = server.endpoint.connect_repeatedly(Duration::from_millis(150), 0);
        is_right_each_time(&server, at_limit, &format!("{mode}, clients leave"));
    });
}
