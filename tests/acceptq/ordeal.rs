//! The right verdict on each server that is put through the outage; and the outage as a story.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use epoll_acceptor::Trigger;
use serde_json::Value;

use crate::server::{Server, path};
use crate::tool::{acceptq, diagnosis, queued, stdout, wait_until};

/// All servers here can be stopped: one wake-up finds the whole crowd.
fn put_through(target: &str, more: &[&str]) -> Value {
    // Long enough for a server on a machine that is busy with others.
    let patience = if more.contains(&"--patience") { &[][..] } else { &["--patience", "3"] };
    let arguments = [&["ordeal", target, "--freeze", "--json"], patience, more].concat();
    let (said, status) = diagnosis(&acceptq(&arguments));
    assert_eq!(said["exit_status"], status, "the exit status follows the verdict: {said:#}");
    said
}

#[test]
fn the_outage_strands_on_every_family() {
    for address in ["127.0.0.1", "::1", &path()] {
        let Some(server) = Server::start("edge", address, 1) else { return };
        let said = put_through(&server.target(), &[]);
        assert_eq!(said["verdict"], "strands", "{said:#}");
        assert_eq!(said["exit_status"], 10);
        assert_eq!((&said["held"], &said["limit"]), (&1.into(), &"refuses".into()), "{said:#}");
        // The backlog of 64 holds one more, and five newcomers are to find room.
        assert_eq!(said["flood"]["came"], 60, "{said:#}");
        assert_eq!(said["left_behind"], 59, "one of them was refused: {said:#}");
        assert_eq!(said["freed"], 1);
        assert_eq!(said["newcomers"]["came"], 5);
        assert_eq!(said["newcomers"]["unanswered"], 5, "{said:#}");
        assert_eq!(
            (&said["full"]["verdict"], &said["full"]["trigger"]),
            (&"stranded".into(), &"edge".into())
        );
    }
}

#[test]
fn the_same_loop_level_triggered_refuses_well() {
    let Some(server) = Server::start("level", "127.0.0.1", 2) else { return };
    let said = put_through(&server.target(), &[]);
    assert_eq!(said["verdict"], "refuses_well", "{said:#}");
    assert_eq!(said["flood"]["refused"], said["flood"]["came"], "{said:#}");
    assert_eq!(said["newcomers"]["unanswered"], 0, "{said:#}");
}

#[test]
fn a_server_that_goes_on_waiting_at_its_limit_spins() {
    for address in ["127.0.0.1", &path()] {
        let Some(server) = Server::start("spin", address, 3) else { return };
        let said = put_through(&server.target(), &[]);
        assert_eq!(said["verdict"], "spins", "{said:#}");
        assert_eq!(said["exit_status"], 13);
        assert_eq!(said["held"], 3);
    }
}

#[test]
fn a_server_that_never_arms_its_listener_again_strands() {
    let Some(server) = Server::start("pause", "127.0.0.1", 2) else { return };
    let said = put_through(&server.target(), &["--patience", "1"]);
    // Its mask says that it means to be silent, and nobody is left whose end could change that.
    assert_eq!((&said["verdict"], &said["exit_status"]), (&"strands".into(), &10.into()), "{said:#}");
    assert_eq!(said["after"]["cause"], "not_resumed", "{said:#}");
    assert_eq!(said["freed"], 2, "all of the held were let go, to no avail: {said:#}");
}

#[test]
fn a_server_that_waits_well_may_work_on_something_else() {
    let Some(server) = Server::start("resume+busy", "127.0.0.1", 2) else { return };
    let said = put_through(&server.target(), &[]);
    assert_eq!((&said["verdict"], &said["full"]["verdict"]), (&"waits_well".into(), &"backpressure".into()));
}

#[test]
fn a_server_that_closes_its_listener_meanwhile_is_not_judged() {
    for address in ["127.0.0.1", &path()] {
        let Some(server) = Server::start("spin", address, 1) else { return };
        let target = server.target();
        let ordeal = std::thread::spawn({
            let target = target.clone();
            move || diagnosis(&acceptq(&["ordeal", &target, "--json"]))
        });
        // The second and the third wait: the ordeal is in the middle of it.
        wait_until("the crowd waits", || queued(&target) > 2);
        drop(server);
        let (said, status) = ordeal.join().expect("it ends");
        assert_eq!((status, &said["unseen"]), (20, &"gone".into()), "{said:#}");
    }
}

#[test]
fn what_keeps_a_client_from_connecting_is_no_refusal() {
    let Some(tool) = crate::users::copy() else { return };
    let path = path();
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("our own file");
    let output = crate::users::as_nobody(&tool).args(["ordeal", &path]).output().expect("the tool runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("connect: Permission denied"), "{output:?}");
}

#[test]
fn places_are_freed_together() {
    let Some(server) = Server::start("hoard", "127.0.0.1", 30) else { return };
    let said = put_through(&server.target(), &["--patience", "1"]);
    assert_eq!((&said["unseen"], &said["freed"]), (&"no_place_freed".into(), &0.into()), "{said:#}");
    // The very first one has left, and has been kept as well.
    assert_eq!(said["held"], 29);
    // Not one patience for each of them.
    assert!(said["took_ms"].as_u64() < Some(25_000), "{said:#}");
}

#[test]
fn a_server_that_is_held_up_is_not_called_stranded() {
    let Some(server) = Server::start("stuck", "127.0.0.1", 1) else { return };
    let said = put_through(&server.target(), &["--patience", "1"]);
    assert_eq!((&said["verdict"], &said["unseen"]), (&"undetermined".into(), &"awake".into()), "{said:#}");
}

#[test]
fn a_server_without_a_limit_meets_none() {
    let Some(server) = Server::start("level", "127.0.0.1", 10_000) else { return };
    let said = put_through(&server.target(), &["--hold", "10", "--flood", "20"]);
    assert_eq!(said["verdict"], "no_limit", "{said:#}");
    assert_eq!((&said["held"], &said["limit"]), (&10.into(), &"not_met".into()));
}

#[test]
fn a_server_that_greets_and_closes_holds_nobody() {
    let Some(server) = Server::start("busy", "127.0.0.1", 1) else { return };
    let said = put_through(&server.target(), &[]);
    assert_eq!(
        (&said["verdict"], &said["manner"]),
        (&"no_limit".into(), &"greets_and_closes".into()),
        "{said:#}"
    );
    assert_eq!(said["newcomers"]["answered"], 5, "{said:#}");
}

#[test]
fn a_server_that_keeps_those_who_left_frees_no_place() {
    let server = crate::ours::start(Trigger::Level, "tcp", 2);
    let said = put_through(&server.target(), &["--patience", "1"]);
    assert_eq!(
        (&said["verdict"], &said["unseen"]),
        (&"undetermined".into(), &"no_place_freed".into()),
        "{said:#}"
    );
}

#[test]
fn a_full_server_is_not_judged() {
    let Some(server) = Server::start("spin", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let said = put_through(&server.target(), &["--patience", "1"]);
    assert_eq!(
        (&said["verdict"], &said["unseen"]),
        (&"undetermined".into(), &"not_serving".into()),
        "{said:#}"
    );
}

/// The echo server of this crate; `None` where its example was not built along.
fn echo(family: &str, options: &[&str]) -> Option<Server> {
    // A fresh path for each: one that is killed leaves its socket's file behind.
    let path = path();
    let address = if family == "unix" { &path } else { family };
    let tool = PathBuf::from(env!("CARGO_BIN_EXE_acceptq"));
    let program = tool.parent().expect("a folder").join("examples/echo");
    if !program.exists() {
        eprintln!("SKIPPED: no example `echo` at {}: a whole `cargo test` builds it", program.display());
        return None;
    }
    let listen = match address.strip_prefix('/') {
        Some(_) => format!("unix:{address}"),
        None if address.contains(':') => format!("[{address}]:0"),
        None => format!("{address}:0"),
    };
    let mut command = Command::new(program);
    command.args(["--listen", &listen, "--limit", "3"]).args(options);
    Some(Server::spawn_told(&mut command, address))
}

#[test]
fn the_echo_example_waits_well() {
    for (family, trigger) in [("127.0.0.1", "level"), ("::1", "edge"), ("unix", "exclusive")] {
        let Some(server) = echo(family, &["--trigger", trigger]) else { return };
        let said = put_through(&server.target(), &[]);
        assert_eq!(said["verdict"], "waits_well", "{family} {trigger}: {said:#}");
        assert_eq!((&said["held"], &said["limit"]), (&3.into(), &"waits".into()), "{said:#}");
        assert_eq!((&said["resumed_with"], &said["left_behind"]), (&1.into(), &0.into()), "{said:#}");
        assert_eq!(said["newcomers"]["answered"], 5, "{said:#}");
    }
}

#[test]
fn the_echo_example_refuses_well() {
    for address in ["127.0.0.1", "unix"] {
        for refusal in [&["--when-full", "shed", "--refusal", "busy"][..], &["--when-full", "reset"]] {
            let Some(server) = echo(address, refusal) else { return };
            let said = put_through(&server.target(), &[]);
            assert_eq!(said["verdict"], "refuses_well", "{address} {refusal:?}: {said:#}");
            assert_eq!((&said["held"], &said["limit"]), (&3.into(), &"refuses".into()), "{said:#}");
            assert_eq!(said["flood"]["refused"], said["flood"]["came"], "{said:#}");
        }
    }
}

#[test]
fn people_are_told_the_stages_and_the_verdict() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let output = acceptq(&["ordeal", &server.target(), "--freeze", "--pid", &server.pid().to_string()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(10), "{text}");
    for fact in
        ["hold       1 connection held", "59 wait", "doctor says: stranded", "STRANDS: ", "what to do"]
    {
        assert!(text.contains(fact), "{fact} is not in: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no control characters: {text}");
}

#[test]
fn other_machines_and_nobody_are_left_alone() {
    let output = acceptq(&["ordeal", "192.0.2.1:80"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--anywhere"), "{output:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    assert_eq!(acceptq(&["ordeal", &free.port().to_string()]).status.code(), Some(3));
    assert_eq!(acceptq(&["ordeal", &free.to_string(), "--freeze"]).status.code(), Some(3));
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
fn the_story_goes_as_told() {
    let output = acceptq(&["demo", "--fast"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text} {}", stderr(&output));
    let places: Vec<Option<usize>> = [": STRANDED: ", ": BACKPRESSURE: ", ": HEALTHY: "]
        .iter()
        .map(|verdict| text.find(verdict))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    assert_eq!(text.matches("connected, and no answer").count(), 3, "{text}");
    assert_eq!(text.matches("connected, and answered").count(), 3, "{text}");
    assert!(text.contains("20 were answered, 0 refused"), "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no colours: {text}");
}
