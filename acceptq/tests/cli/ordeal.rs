//! The verdict of `acceptq ordeal` on each server, and `acceptq demo`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use epoll_acceptor::Trigger;
use serde_json::Value;

use crate::server::{Server, path};
use crate::tool::{acceptq, closed_port, diagnosis, each, queued, stdout, wait_until};

/// For a server that answers none of the last clients, whatever the time.
const CERTAIN: &[&str] = &["--patience", "1"];

/// Runs the stress test with `--freeze`: one wakeup reports the whole flood.
fn run_ordeal(target: &str, more: &[&str]) -> Value {
    // Long enough for a loaded machine.
    let patience = if more.contains(&"--patience") { &[][..] } else { &["--patience", "3"] };
    let arguments = [&["ordeal", target, "--yes", "--freeze", "--json"], patience, more].concat();
    let (report, status) = diagnosis(&acceptq(&arguments));
    assert_eq!(report["exit_status"], status, "the exit status follows the verdict: {report:#}");
    report
}

#[test]
fn edge_server_strands_on_every_family() {
    each(["127.0.0.1", "::1", &path()], |address| {
        let Some(server) = Server::start("edge", address, 1) else { return };
        let report = run_ordeal(&server.target(), CERTAIN);
        assert_eq!(report["verdict"], "strands", "{report:#}");
        assert_eq!(report["exit_status"], 10);
        assert_eq!((&report["held"], &report["limit"]), (&1.into(), &"refuses".into()), "{report:#}");
        // The backlog of 64 admits 65, and room for five new connections is left.
        assert_eq!(report["flood"]["came"], 60, "{report:#}");
        assert_eq!(report["left_behind"], 59, "one of them was refused: {report:#}");
        assert_eq!(report["freed"], 1);
        assert_eq!(report["newcomers"]["came"], 5);
        assert_eq!(report["newcomers"]["unanswered"], 5, "{report:#}");
        assert_eq!(
            (&report["full"]["verdict"], &report["full"]["trigger"]),
            (&"stranded".into(), &"edge".into())
        );
    });
}

#[test]
fn level_server_refuses_well() {
    let Some(server) = Server::start("level", "127.0.0.1", 2) else { return };
    let report = run_ordeal(&server.target(), &[]);
    assert_eq!(report["verdict"], "refuses_well", "{report:#}");
    assert_eq!(report["flood"]["refused"], report["flood"]["came"], "{report:#}");
    assert_eq!(report["newcomers"]["unanswered"], 0, "{report:#}");
}

#[test]
fn level_server_armed_at_limit_spins() {
    each(["127.0.0.1", &path()], |address| {
        let Some(server) = Server::start("spin", address, 3) else { return };
        let began = std::time::Instant::now();
        // On a loaded machine it may get too little CPU time to tell.
        let report = loop {
            let report = run_ordeal(&server.target(), CERTAIN);
            if report["verdict"] != "undetermined" || began.elapsed() > crate::tool::LONG {
                break report;
            }
        };
        // Without the right to count system calls it is not said to spin.
        let expected = if crate::users::can_count_calls() { ("spins", 13) } else { ("busy", 16) };
        assert_eq!(
            (report["verdict"].as_str(), &report["exit_status"]),
            (Some(expected.0), &expected.1.into())
        );
        assert_eq!(report["held"], 3);
    });
}

#[test]
fn server_that_never_rearms_strands() {
    let Some(server) = Server::start("pause", "127.0.0.1", 2) else { return };
    let report = run_ordeal(&server.target(), &["--patience", "1"]);
    // The listener is disarmed, and no connection is left that could rearm it by closing.
    assert_eq!((&report["verdict"], &report["exit_status"]), (&"strands".into(), &10.into()), "{report:#}");
    assert_eq!(report["after"]["cause"], "not_resumed", "{report:#}");
    assert_eq!(report["freed"], 2, "both held connections were closed: {report:#}");
}

#[test]
fn server_with_other_work_waits_well() {
    let Some(server) = Server::start("resume+busy", "127.0.0.1", 2) else { return };
    let report = run_ordeal(&server.target(), &[]);
    assert_eq!((&report["verdict"], &report["full"]["verdict"]), (&"waits_well".into(), &"at_limit".into()));
}

#[test]
fn listener_closed_meanwhile_is_undetermined() {
    each(["127.0.0.1", &path()], |address| {
        let Some(server) = Server::start("spin", address, 1) else { return };
        let target = server.target();
        let ordeal = std::thread::spawn({
            let target = target.clone();
            move || diagnosis(&acceptq(&["ordeal", &target, "--yes", "--json"]))
        });
        // More than two are queued: the test is in its flood stage.
        wait_until("the flood is queued", || queued(&target) > 2);
        drop(server);
        let (report, status) = ordeal.join().expect("it ends");
        assert_eq!((status, &report["unseen"]), (20, &"gone".into()), "{report:#}");
    });
}

#[test]
fn connect_error_is_no_refusal() {
    let Some(tool) = crate::users::copy() else { return };
    let path = path();
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("our own file");
    let output =
        crate::users::as_nobody(&tool).args(["ordeal", "--yes", &path]).output().expect("the tool runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("connect: Permission denied"), "{output:?}");
}

#[test]
fn held_connections_are_closed_together() {
    let Some(server) = Server::start("hoard", "127.0.0.1", 30) else { return };
    let report = run_ordeal(&server.target(), &["--patience", "3"]);
    assert_eq!((&report["unseen"], &report["freed"]), (&"no_place_freed".into(), &0.into()), "{report:#}");
    // The server keeps the first connection of the test as well.
    assert_eq!(report["held"], 29);
    // The patience applies once, not per connection.
    assert!(report["took_ms"].as_u64() < Some(29 * 3_000), "{report:#}");
}

#[test]
fn blocked_server_is_undetermined() {
    let Some(server) = Server::start("stuck", "127.0.0.1", 1) else { return };
    let report = run_ordeal(&server.target(), &["--patience", "1"]);
    assert_eq!(
        (&report["verdict"], &report["unseen"]),
        (&"undetermined".into(), &"awake".into()),
        "{report:#}"
    );
}

#[test]
fn server_without_limit_has_no_limit() {
    let Some(server) = Server::start("level", "127.0.0.1", 10_000) else { return };
    let report = run_ordeal(&server.target(), &["--hold", "10", "--flood", "20"]);
    assert_eq!(report["verdict"], "no_limit", "{report:#}");
    assert_eq!((&report["held"], &report["limit"]), (&10.into(), &"not_met".into()));
}

#[test]
fn greeting_and_closing_server_holds_none() {
    let Some(server) = Server::start("busy", "127.0.0.1", 1) else { return };
    let report = run_ordeal(&server.target(), &[]);
    assert_eq!(
        (&report["verdict"], &report["manner"]),
        (&"no_limit".into(), &"greets_and_closes".into()),
        "{report:#}"
    );
    assert_eq!(report["newcomers"]["answered"], 5, "{report:#}");
}

#[test]
fn server_that_ignores_fin_frees_no_place() {
    let server = crate::acceptors::start(Trigger::Level, "tcp", 2);
    let report = run_ordeal(&server.target(), &["--patience", "1"]);
    assert_eq!(
        (&report["verdict"], &report["unseen"]),
        (&"undetermined".into(), &"no_place_freed".into()),
        "{report:#}"
    );
}

#[test]
fn server_that_never_accepts_is_undetermined() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    let arguments = ["ordeal", &port, "--yes", "--json", "--patience", "1"];
    let (report, status) = diagnosis(&acceptq(&arguments));
    assert_eq!((status, &report["unseen"]), (20, &"not_serving".into()), "{report:#}");
}

#[test]
fn ordeal_asks_first_and_refuses_if_there_are_clients() {
    for address in ["127.0.0.1", &path()] {
        let Some(server) = Server::start("level", address, 9) else { return };
        let output = acceptq(&["ordeal", &server.target()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("--yes"), "{output:?}");
        assert_eq!(queued(&server.target()), 0);
        let _client = server.hold_one();
        let output = acceptq(&["ordeal", &server.target(), "--yes"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("1 connection of other clients"), "{output:?}");
    }
}

#[test]
fn killed_ordeal_leaves_nothing_stopped() {
    let Some(server) = Server::start("level", "127.0.0.1", 10_000) else { return };
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (mut seen_stopped, began) = (false, std::time::Instant::now());
    // The server is stopped for a few milliseconds only: kills acceptq when it is. With `nice` acceptq gets less CPU
    // time than this thread, which would otherwise rarely run just then on a loaded machine.
    while !seen_stopped {
        assert!(began.elapsed() < crate::tool::LONG, "the server was never seen stopped");
        let mut ordeal = Command::new("nice")
            .args(["-n", "5", env!("CARGO_BIN_EXE_acceptq")])
            .args(["ordeal", &server.target(), "--yes", "--freeze", "--hold", "1", "--flood", "60"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the tool runs");
        while ordeal.try_wait().expect("a child of ours").is_none() {
            if state().contains(") T ") {
                seen_stopped = true;
                break;
            }
        }
        ordeal.kill().expect("a child of ours");
        ordeal.wait().expect("it ends");
        wait_until("the server continues", || !state().contains(") T "));
        wait_until("the clients are gone", || acceptq_connections(&server) == 0);
    }
}

/// Returns the number of connections that the server has accepted.
fn acceptq_connections(server: &Server) -> u64 {
    crate::tool::examine(&server.target()).0["open"].as_u64().expect("a number")
}

/// Runs the example `echo` of epoll-acceptor. Reports a skip and returns `None` if it was not built.
fn echo(family: &str, options: &[&str]) -> Option<Server> {
    // A new path each time: a killed server leaves its socket file.
    let path = path();
    let address = if family == "unix" { &path } else { family };
    let tool = PathBuf::from(env!("CARGO_BIN_EXE_acceptq"));
    let program = tool.parent().expect("a folder").join("examples/echo");
    if !program.exists() {
        eprintln!(
            "SKIPPED: no example `echo` at {}: `cargo test` in the workspace root builds it",
            program.display()
        );
        return None;
    }
    let listen = match address.strip_prefix('/') {
        Some(_) => format!("unix:{address}"),
        None if address.contains(':') => format!("[{address}]:0"),
        None => format!("{address}:0"),
    };
    let mut command = Command::new(program);
    command.args(["--listen", &listen, "--limit", "3"]).args(options);
    Some(Server::spawn_echo(&mut command, address))
}

#[test]
fn echo_example_waits_well() {
    each([("127.0.0.1", "level"), ("::1", "edge"), ("unix", "exclusive")], |(family, trigger)| {
        let Some(server) = echo(family, &["--trigger", trigger]) else { return };
        let report = run_ordeal(&server.target(), &[]);
        assert_eq!(report["verdict"], "waits_well", "{family} {trigger}: {report:#}");
        assert_eq!((&report["held"], &report["limit"]), (&3.into(), &"waits".into()), "{report:#}");
        assert_eq!((&report["resumed_with"], &report["left_behind"]), (&1.into(), &0.into()), "{report:#}");
        assert_eq!(report["newcomers"]["answered"], 5, "{report:#}");
    });
}

#[test]
fn echo_example_refuses_well() {
    for address in ["127.0.0.1", "unix"] {
        for refusal in [&["--when-full", "shed", "--refusal", "busy"][..], &["--when-full", "reset"]] {
            let Some(server) = echo(address, refusal) else { return };
            let report = run_ordeal(&server.target(), &[]);
            assert_eq!(report["verdict"], "refuses_well", "{address} {refusal:?}: {report:#}");
            assert_eq!((&report["held"], &report["limit"]), (&3.into(), &"refuses".into()), "{report:#}");
            assert_eq!(report["flood"]["refused"], report["flood"]["came"], "{report:#}");
        }
    }
}

#[test]
fn ordeal_prints_stages_and_verdict() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let output = acceptq(&[
        "ordeal",
        &server.target(),
        "--freeze",
        "--yes",
        "--patience",
        "1",
        "--pid",
        &server.pid().to_string(),
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(10), "{text}");
    for condition in ["hold       1 connection held", "59 wait", "doctor: stranded", "STRANDS: ", "advice"] {
        assert!(text.contains(condition), "{condition} is not in: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no control characters: {text}");
}

#[test]
fn ordeal_rejects_remote_and_closed_targets() {
    let output = acceptq(&["ordeal", "192.0.2.1:80"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--anywhere"), "{output:?}");
    let (_socket, closed) = closed_port();
    assert_eq!(acceptq(&["ordeal", &closed]).status.code(), Some(3));
    assert_eq!(acceptq(&["ordeal", &format!("127.0.0.1:{closed}"), "--freeze"]).status.code(), Some(3));
    assert_eq!(acceptq(&["ordeal", "/nowhere/at/all.sock"]).status.code(), Some(3));
    for wrong in [&["--hold", "0"], &["--flood", "1"], &["--send", "\\x"], &["--patience", "0"]] {
        let arguments = [&["ordeal", "80"], &wrong[..]].concat();
        assert_eq!(acceptq(&arguments).status.code(), Some(2), "{wrong:?}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn demo_runs_as_described() {
    let output = acceptq(&["demo", "--fast"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text} {}", stderr(&output));
    let positions: Vec<Option<usize>> =
        [": STRANDED: ", ": AT ITS LIMIT, OR ALL WORKERS BUSY: ", ": HEALTHY: "]
            .iter()
            .map(|verdict| text.find(verdict))
            .collect();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{text}");
    assert_eq!(text.matches("connected, no answer").count(), 3, "{text}");
    assert_eq!(text.matches("connected, answered").count(), 3, "{text}");
    assert!(text.contains("20 were answered, 0 refused"), "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no colours: {text}");
}
