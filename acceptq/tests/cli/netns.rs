//! Listeners in other network namespaces, and those of one process.

use std::process::Command;

use serde_json::Value;

use crate::export::{exporter, get};
use crate::server::{Server, program};
use crate::tool::{acceptq, await_verdict_of, diagnosis, skip, stdout};

/// Starts a server in a network namespace of its own. Reports a skip and returns `None` if this is not
/// allowed.
fn server_elsewhere() -> Option<Server> {
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        skip!("a network namespace cannot be created: not root, or no unshare(1)");
        return None;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program()?).args(["level", "0.0.0.0", "1"]);
    Some(Server::spawn(&mut command, "0.0.0.0"))
}

fn rows(arguments: &[&str]) -> Vec<Value> {
    let report: Value = serde_json::from_str(&stdout(&acceptq(arguments))).expect("JSON");
    report["listeners"].as_array().expect("rows").clone()
}

#[test]
fn server_in_other_namespace_is_found() {
    let Some(server) = server_elsewhere() else { return };
    let (pid, port) = (server.pid().to_string(), server.target());
    let here = |row: &Value| row["holders"][0]["pid"] == server.pid();
    assert!(!rows(&["list", "--json"]).iter().any(here), "it is not in this namespace");
    assert_eq!(rows(&["list", "--netns", &pid, "--json"]).iter().filter(|row| here(row)).count(), 1);
    let all = rows(&["list", "--all-netns", "--json"]);
    let found: Vec<&Value> = all.iter().filter(|row| here(row)).collect();
    assert_eq!(found.len(), 1, "each namespace is listed once: {all:#?}");
    assert_eq!(found[0]["netns"], pid);
    let text = stdout(&acceptq(&["watch", &port, "--netns", &pid, "--count", "1"]));
    assert!(text.contains("queued 0 of 65"), "{text}");
    let (_exporter, endpoint) = exporter(&[&port, "--netns", &pid]);
    let (_, metrics) = get(&endpoint, "/metrics");
    assert!(metrics.contains(&format!("acceptq_listeners{{target=\"{port}\"}} 1\n")), "{metrics}");
    for selected in [&[&port, "--netns", &pid][..], &["--pid", &pid]] {
        let arguments = [&["doctor", "--json", "--for", "0.5"], selected].concat();
        let report = await_verdict_of("idle", || diagnosis(&acceptq(&arguments)));
        assert_eq!(report["pid"], server.pid(), "{selected:?}");
        let next = format!("connect as a client while acceptq --netns {pid} watch 0.0.0.0:{port} runs");
        assert_eq!(report["next"], next, "{selected:?}");
    }
}

/// A name in `/run/netns`. Dropping it removes it.
struct Name(String);

impl Name {
    fn new() -> Option<Self> {
        let name = format!("acceptq-test-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status();
        if !added.is_ok_and(|status| status.success()) {
            skip!("ip netns add: not root, or no ip(8)");
            return None;
        }
        Some(Self(name))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[test]
fn named_namespace_is_entered() {
    let (Some(name), Some(program)) = (Name::new(), program()) else { return };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &name.0]).arg(program).args(["level", "0.0.0.0", "1"]);
    let server = Server::spawn(&mut command, "0.0.0.0");
    let named = rows(&["list", "--netns", &name.0, "--json"]);
    assert_eq!((named.len(), &named[0]["holders"][0]["pid"]), (1, &server.pid().into()), "{named:#?}");
    let all = rows(&["list", "--all-netns", "--json"]);
    assert_eq!(all.iter().filter(|row| row["netns"] == name.0.as_str()).count(), 1, "{all:#?}");
    let text = stdout(&acceptq(&["list", "--all-netns"]));
    assert!(text.starts_with("NETNS") && text.contains(&name.0), "{text}");
}

#[test]
fn unknown_namespace_and_process_are_errors() {
    for arguments in [
        &["list", "--netns", "no-such-namespace"][..],
        &["list", "--netns", ".."],
        &["doctor", "--pid", "2147483647"],
    ] {
        let output = acceptq(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    }
    for arguments in [&["doctor", "80", "--pid", "1"][..], &["list", "--all-netns", "--netns", "x"]] {
        assert_eq!(acceptq(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn doctor_of_process_shows_its_listeners_worst_first() {
    let Some(server) = Server::start("member", "127.0.0.1", 100) else { return };
    let pid = server.pid().to_string();
    let _other = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener of another process");
    let _clients = server.endpoint.connect_many(40);
    let report = await_verdict_of("not_accepting", || {
        diagnosis(&acceptq(&["doctor", "--pid", &pid, "--json", "--for", "0.5"]))
    });
    let verdicts: Vec<&Value> =
        report["listeners"].as_array().expect("listeners").iter().map(|one| &one["verdict"]).collect();
    assert_eq!(verdicts.len(), 2, "{report:#}");
    assert_eq!(verdicts[0], "not_accepting");
}
