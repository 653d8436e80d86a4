//! The verdict of `acceptq doctor` on each server.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::clients::Endpoint;
use crate::server::{Server, path};
use crate::tool::{
    LONG, NO_FAULT, acceptq, await_verdict, closed_port, diagnosis, each, examine, stdout, wait_until,
};

/// The clients that connect at once, and how many of them disconnect.
const CLIENTS: usize = 8;
const DISCONNECTED: usize = 4;

/// Holds one connection, queues eight more, closes four of them, and returns the diagnosis.
fn diagnose_flooded(mode: &str, address: &str, limit: u32, verdict: &str) -> Option<Value> {
    let server = Server::start(mode, address, limit)?;
    let held = server.hold_one();
    let mut clients = server.connect_while_stopped(CLIENTS);
    clients.truncate(CLIENTS - DISCONNECTED);
    await_verdict(&server.target(), verdict);
    // The first diagnosis may include the flood itself.
    let report = await_verdict(&server.target(), verdict);
    assert_eq!(report["pid"], server.pid());
    assert_eq!(report["capacity"], 65);
    drop((held, clients));
    Some(report)
}

#[test]
fn edge_server_is_stranded_on_every_family() {
    each(["127.0.0.1", "::1", &path()], |address| {
        let Some(report) = diagnose_flooded("edge", address, 1, "stranded") else { return };
        // The server accepted the first of the eight, refused it, and went to sleep.
        assert_eq!(report["queued"], CLIENTS - 1, "{report:#}");
        assert_eq!(report["trigger"], "edge");
        assert_eq!(report["cause"], "edge");
        assert_eq!(report["owner_asleep"], true);
        assert_eq!(report["taken_meanwhile"], false);
        assert_eq!(report["dead"], DISCONNECTED, "{report:#}");
        if address.starts_with('/') {
            assert_eq!(report["close_wait_unowned"], Value::Null);
            assert_eq!(report["oldest_wait_ms"], Value::Null, "not available for Unix sockets");
        } else {
            assert_eq!(report["close_wait_unowned"], DISCONNECTED);
            // The observation took half a second, and the connections are older.
            assert!(report["oldest_wait_ms"].as_u64() >= Some(490), "{report:#}");
            assert_eq!(report["waiting"].as_array().map(Vec::len), Some(CLIENTS - 1));
        }
    });
}

#[test]
fn edge_server_is_stranded_under_new_connections() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(30);
    let _newcomers = server.endpoint.connect_repeatedly(Duration::from_millis(40), 100);
    await_verdict(&server.target(), "stranded");
}

#[test]
fn level_server_is_healthy() {
    each(["127.0.0.1", "::1", &path()], |address| {
        let Some(report) = diagnose_flooded("level", address, 1, "idle") else { return };
        assert_eq!(report["queued"], 0);
        assert_eq!(report["trigger"], "level");
    });
}

#[test]
fn level_server_armed_at_limit_is_spinning() {
    each(["127.0.0.1", &path()], |address| {
        // Without the right to count system calls it is not said to spin.
        let counts = crate::users::can_count_calls();
        let verdict = if counts { "spinning" } else { "busy" };
        let Some(report) = diagnose_flooded("spin", address, 1, verdict) else { return };
        assert_eq!(report["waits_per_second"].is_null(), !counts, "{report:#}");
        assert_eq!(report["trigger"], "level");
        assert_eq!(report["queued"], CLIENTS);
        assert_eq!(report["owner_asleep"], false);
    });
}

#[test]
fn paused_server_is_under_backpressure() {
    let modes = [
        ("pause", "disarmed", "disarmed"),
        ("remove", "none", "workers_occupied"),
        ("oneshot", "fired", "not_rearmed"),
    ];
    each(modes, |(mode, trigger, cause)| {
        each(["127.0.0.1", &path()], |address| {
            let Some(report) = diagnose_flooded(mode, address, 1, "at_limit") else { return };
            assert_eq!(
                (&report["trigger"], &report["cause"]),
                (&trigger.into(), &cause.into()),
                "{report:#}"
            );
            assert_eq!(report["accepted_alive"], 1, "{report:#}");
            assert_eq!(report["queued"], CLIENTS);
        });
    });
}

#[test]
fn server_that_never_resumes_is_stranded() {
    each(["127.0.0.1", &path()], |address| {
        let Some(server) = Server::start("pause", address, 1) else { return };
        let held = server.hold_one();
        let _clients = server.connect_while_stopped(CLIENTS);
        await_verdict(&server.target(), "at_limit");
        drop(held);
        let report = await_verdict(&server.target(), "not_accepting");
        assert_eq!((&report["cause"], &report["trigger"]), (&"not_resumed".into(), &"disarmed".into()));
        assert_eq!(
            (&report["accepted_alive"], &report["queued"]),
            (&0.into(), &CLIENTS.into()),
            "{report:#}"
        );
    });
}

#[test]
fn server_without_main_thread_is_visible() {
    let Some(server) = Server::start("pause+orphan", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _clients = server.endpoint.connect_many(2);
    let report = await_verdict(&server.target(), "at_limit");
    assert_eq!((&report["cause"], &report["pid"]), (&"disarmed".into(), &server.pid().into()), "{report:#}");
    assert!(report["descriptors"].as_u64() > Some(2) && report["descriptors_limit"].is_u64(), "{report:#}");
}

#[test]
fn busy_thread_does_not_hide_stranded_listener() {
    each(["127.0.0.1", &path()], |address| {
        let Some(report) = diagnose_flooded("edge+busy", address, 1, "stranded") else { return };
        assert_eq!(report["owner_asleep"], true, "the thread in epoll_wait sleeps: {report:#}");
    });
}

#[test]
fn polling_accept_is_healthy_without_connections() {
    let Some(server) = Server::start("nap", "127.0.0.1", 1) else { return };
    for _ in 0..3 {
        let (report, _) = examine(&server.target());
        // It wakes by itself; while other tests connect, that may have been an arrival.
        let verdict = report["verdict"].as_str().unwrap_or_default();
        assert!(NO_FAULT.split('|').any(|one| one == verdict), "{report:#}");
    }
}

#[test]
fn server_out_of_descriptors_is_exhausted() {
    each(["127.0.0.1", &path()], |address| {
        let Some(report) = diagnose_flooded("nofile", address, 8, "exhausted") else { return };
        assert_eq!(report["descriptors"], 8);
        assert_eq!(report["descriptors_limit"], 8);
    });
}

#[test]
fn server_blocked_elsewhere_is_occupied() {
    let Some(report) = diagnose_flooded("stuck", "127.0.0.1", 1, "at_limit") else { return };
    assert_eq!(report["cause"], "workers_occupied");
}

#[test]
fn stopped_server_is_stopped() {
    let Some(server) = Server::start("busy", "127.0.0.1", 1) else { return };
    server.stop();
    let _waiting = server.endpoint.connect_many(2);
    let report = await_verdict(&server.target(), "stopped");
    assert_eq!(report["next"], format!("kill -CONT {}   (or detach the debugger)", server.pid()));
    server.signal(Signal::SIGCONT);
    await_verdict(&server.target(), NO_FAULT);
}

#[test]
fn busy_server_is_healthy() {
    each(
        [("busy", "127.0.0.1"), ("busy", "::1"), ("busy", &path()), ("blocking", "127.0.0.1")],
        |(mode, address)| {
            let Some(server) = Server::start(mode, address, 1) else { return };
            // The server closes at once, and the kernel counts no arrivals at a Unix socket: something must be queued
            // when the doctor looks.
            let pause = Duration::from_micros(if address.starts_with('/') { 500 } else { 2_000 });
            let _clients = server.endpoint.connect_repeatedly(pause, 10);
            for _ in 0..3 {
                // On a loaded machine its queue may overflow for a moment.
                let report = await_verdict(&server.target(), "healthy|accepting");
                assert_eq!(report["arrived_meanwhile"], true, "{report:#}");
            }
        },
    );
}

#[test]
fn blocking_accept_is_detected() {
    let Some(server) = Server::start("blocking", "127.0.0.1", 1) else { return };
    let report = await_verdict(&server.target(), "idle");
    assert_eq!(report["trigger"], "accept");
}

#[test]
fn slow_server_is_overflowing() {
    let Some(server) = Server::start("slow", "127.0.0.1", 1) else { return };
    let _clients = server.endpoint.connect_repeatedly(Duration::from_millis(1), 1000);
    let report = await_verdict(&server.target(), "overflow");
    assert_eq!(report["taken_meanwhile"], true, "{report:#}");
}

#[test]
fn unpolled_reuseport_listener_is_identified() {
    let Some(server) = Server::start("member", "127.0.0.1", 100) else { return };
    // The kernel hashes the client's port: some of these arrive at each listener.
    let _clients = server.endpoint.connect_many(40);
    let report = await_verdict(&server.target(), "not_accepting");
    assert_eq!(report["cause"], "unwatched_member");
    assert_eq!(report["trigger"], "none");
    let members = report["listeners"].as_array().expect("each has its own verdict");
    assert_eq!(members.len(), 2);
    assert_eq!(members[0]["verdict"], "not_accepting", "the worst comes first");
    assert!(NO_FAULT.split('|').any(|verdict| members[1]["verdict"] == verdict), "{report:#}");
    assert_eq!(members[1]["queued"], 0);
    // All queued connections belong to the unpolled listener, so they can be listed.
    assert_eq!(members[0]["waiting"].as_array().map(Vec::len), members[0]["queued"].as_u64().map(to_usize));
}

#[test]
fn reuseport_connections_are_listed_once() {
    let listen = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("a flag");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bound");
        socket.listen(64).expect("it listens");
        socket
    };
    let first = listen(0);
    let address = first.local_addr().expect("it is bound").as_socket().expect("TCP");
    let _others: Vec<Socket> = (0..7).map(|_| listen(address.port())).collect();
    let _clients = Endpoint::Tcp(address).connect_many(60);
    let (report, _) = examine(&address.port().to_string());
    let members = report["listeners"].as_array().expect("each has its own verdict");
    assert_eq!(members.len(), 8);
    let lists = |member: &&Value| member["waiting_shared"] == true && member["waiting"].is_array();
    assert_eq!(members.iter().filter(lists).count(), 1, "{report:#}");
    assert_eq!(report["waiting"].as_array().map(Vec::len), Some(60));
    assert!(members.iter().all(|member| member["oldest_wait_ms"].is_u64()), "{report:#}");
}

#[test]
fn reset_connections_count_as_dead() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    for client in server.connect_while_stopped(CLIENTS) {
        client.set_linger(Some(Duration::ZERO)).expect("a flag");
    }
    let report = await_verdict(&server.target(), "stranded");
    assert_eq!(
        (&report["queued"], &report["dead"]),
        (&(CLIENTS - 1).into(), &(CLIENTS - 1).into()),
        "{report:#}"
    );
    assert_eq!((&report["close_wait_unowned"], &report["waiting"]), (&0.into(), &Value::Array(Vec::new())));
    let text = stdout(&acceptq(&["doctor", &server.target(), "--for", "0.5", "--verbose"]));
    assert!(text.contains("7 dead (0 in CLOSE_WAIT with inode 0, 7 reset"), "{text}");
    assert!(!text.contains("Unix"), "{text}");
    let text = stdout(&acceptq(&["watch", &server.target(), "--count", "1"]));
    assert!(text.contains("dead 7"), "{text}");
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

#[test]
fn deferred_connections_are_counted() {
    let Some(server) = Server::start("level+defer", "127.0.0.1", 100) else { return };
    let clients = server.endpoint.connect_many(3);
    // Visible after the first timeout of their SYN-ACKs, a second after they connect.
    let mut report = Value::Null;
    wait_until("the doctor counts them", || {
        report = examine(&server.target()).0;
        report["deferred"] == 3
    });
    assert_eq!((&report["queued"], &report["handshakes"]), (&0.into(), &3.into()), "{report:#}");
    (&clients[0]).write_all(b"x").expect("sent");
    wait_until("one of them is accepted", || examine(&server.target()).0["open"] == 1);
}

#[test]
fn next_command_quotes_a_name() {
    let path = path().replace(".sock", "-$(PID).sock");
    let Some(server) = Server::start("level", &path, 1) else { return };
    let report = await_verdict(&server.target(), "idle");
    assert_eq!(report["next"], format!("connect as a client while acceptq watch '{path}' runs"));
}

#[test]
fn doctor_prints_text() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(CLIENTS);
    await_verdict(&server.target(), "stranded");
    let output = acceptq(&["doctor", &server.target(), "--for", "0.5", "--verbose"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(10));
    let port = server.target();
    for condition in [
        &format!("tcp 127.0.0.1:{port}: STRANDED"),
        "7 of 65 queued; none accepted in ",
        "edge-triggered",
        "in epoll_wait",
        "  confidence high",
        "  next       restart the server",
    ] {
        assert!(text.contains(condition), "{condition} is not in: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    let rule = text.lines().find_map(|line| line.strip_prefix("  rule ")?.trim_start().split_once(" of "));
    let (number, _) = rule.unwrap_or_else(|| panic!("no rule in {text}"));
    let table = stdout(&acceptq(&["doctor", "--explain"]));
    let mut verdicts = table.split("\n\n");
    let stranded = verdicts.find(|verdict| verdict.starts_with("STRANDED")).expect("the verdict");
    assert!(stranded.contains(&format!("\n  rule {number} ")), "{number}: {stranded}");
}

#[test]
fn listeners_without_fault_are_counted() {
    let idle: Vec<_> =
        (0..9).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a listener")).collect();
    let port = |one: &std::net::TcpListener| one.local_addr().expect("it is bound").port().to_string();
    let ports: Vec<String> = idle.iter().map(port).collect();
    let mut arguments = vec!["doctor", "--for", "0.1"];
    arguments.extend(ports.iter().map(String::as_str));
    let text = stdout(&acceptq(&arguments));
    assert!(text.starts_with("no fault seen at 9 listeners (--verbose lists them)\n"), "{text}");
    arguments.push("--verbose");
    let text = stdout(&acceptq(&arguments));
    assert!(ports.iter().all(|port| text.contains(&format!("tcp 127.0.0.1:{port} "))), "{text}");
}

#[test]
fn doctor_without_listener_exits_3() {
    let (_socket, closed) = closed_port();
    let output = acceptq(&["doctor", &closed, "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["verdict"], Value::Null);
    assert_eq!(acceptq(&["doctor", "/nowhere/at/all.sock"]).status.code(), Some(3));
}

#[test]
fn listener_closed_meanwhile_has_no_verdict() {
    let began = Instant::now();
    loop {
        let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_acceptq"));
        doctor
            .args(["doctor", &server.target(), "--json", "--for", "3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut doctor = doctor.spawn().expect("the tool runs");
        // It sleeps between samples, and rarely before. On a loaded machine it may end before it has slept so often.
        let pid = doctor.id();
        let mut has_ended = || doctor.try_wait().expect("a child of ours").is_some();
        wait_until("the doctor is sampling", || has_ended() || voluntary_switches(pid) > 3);
        drop(server);
        let (report, status) = diagnosis(&doctor.wait_with_output().expect("it ends"));
        assert_eq!(status == 3, report["verdict"].is_null(), "{report:#}");
        if report["closed_meanwhile"] == 1 {
            assert_eq!((status, &report["verdict"]), (3, &Value::Null), "{report:#}");
            return;
        }
        assert!(began.elapsed() < LONG, "{report:#}");
    }
}

/// Returns the voluntary context switches of a process.
fn voluntary_switches(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn exit_status_survives_closed_pipes() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(CLIENTS);
    await_verdict(&server.target(), "stranded");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acceptq"));
        command.args(arguments).stdout(closed_pipe()).stderr(closed_pipe());
        command.status().expect("the tool runs").code()
    };
    assert_eq!(run(&["doctor", &server.target()]), Some(10));
    assert_eq!(run(&["doctor", &server.target(), "--json"]), Some(10));
    let never = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = never.local_addr().expect("it is bound").port().to_string();
    assert_eq!(run(&["ordeal", &port, "--yes", "--patience", "0.5"]), Some(20));
    // These print only to stderr.
    assert_eq!(run(&["doctor", "/nowhere/at/all.sock"]), Some(3));
    assert_eq!(run(&["ordeal", "192.0.2.1:80"]), Some(1));
    assert_eq!(run(&["list", "/nowhere/at/all.sock"]), Some(3));
}

/// Returns a stream that the reader has closed.
fn closed_pipe() -> OwnedFd {
    let (here, _) = UnixStream::pair().expect("two ends");
    here.into()
}

#[test]
fn invalid_arguments_exit_2_and_help_lists_statuses() {
    for arguments in [
        &["doctor", "80", "--for", "0"][..],
        &["doctor", "80", "--for", "x"],
        &["cure"],
        &["watch", "--count", "0"],
    ] {
        assert_eq!(acceptq(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = stdout(&acceptq(&["doctor", "--help"]));
    for line in ["10  stranded", "11  at its limit", "20  undetermined", "0  healthy"] {
        assert!(help.contains(line), "{line} is not in: {help}");
    }
}

#[test]
fn several_faults_are_counted() {
    let servers = [0; 2].map(|_| Server::start("pause", "127.0.0.1", 1));
    let [Some(one), Some(other)] = servers else { return };
    let held = [one.hold_one(), other.hold_one()];
    let _clients = [one.endpoint.connect_many(2), other.endpoint.connect_many(2)];
    let text = || stdout(&acceptq(&["doctor", &one.target(), &other.target(), "--for", "0.5"]));
    wait_until("both have a fault", || {
        text().ends_with("1 more listener has a fault, too: --verbose explains all.\n")
    });
    drop(held);
}
