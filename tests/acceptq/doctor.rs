//! The right verdict for each server.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::clients::Door;
use crate::server::{Server, path};
use crate::tool::{LONG, acceptq, await_verdict, diagnosis, examine, stdout, wait_until};

/// How many come at once, and how many of them leave again.
const CROWD: usize = 8;
const QUIT: usize = 4;

/// One is taken, eight wait behind it, four of which give up. What does the doctor say?
fn after_the_rush(mode: &str, address: &str, limit: u32, verdict: &str) -> Option<Value> {
    let server = Server::start(mode, address, limit)?;
    let held = server.hold_one();
    let mut crowd = server.surprise(CROWD);
    crowd.truncate(CROWD - QUIT);
    await_verdict(&server.target(), verdict);
    // The first answer may have seen the rush itself.
    let said = await_verdict(&server.target(), verdict);
    assert_eq!(said["pid"], server.pid());
    assert_eq!(said["capacity"], 65);
    drop((held, crowd));
    Some(said)
}

#[test]
fn the_outage_is_told_on_every_family() {
    for address in ["127.0.0.1", "::1", &path()] {
        let Some(said) = after_the_rush("edge", address, 1, "stranded") else { return };
        // The server took the first of the eight, refused it, and went to sleep.
        assert_eq!(said["queued"], CROWD - 1, "{said:#}");
        assert_eq!(said["trigger"], "edge");
        assert_eq!(said["cause"], "edge");
        assert_eq!(said["owner_asleep"], true);
        assert_eq!(said["taken_meanwhile"], false);
        assert_eq!(said["dead"], QUIT, "{said:#}");
        if address.starts_with('/') {
            assert_eq!(said["close_wait_unowned"], Value::Null);
            assert_eq!(said["oldest_wait_ms"], Value::Null, "Unix sockets do not tell");
        } else {
            assert_eq!(said["close_wait_unowned"], QUIT);
            // It was watched for half a second, and the connections were there before.
            assert!(said["oldest_wait_ms"].as_u64() >= Some(490), "{said:#}");
            assert_eq!(said["waiting"].as_array().map(Vec::len), Some(CROWD - 1));
        }
    }
}

#[test]
fn the_outage_is_told_while_newcomers_free_one_at_a_time() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _crowd = server.surprise(30);
    let _newcomers = server.door.crowd(Duration::from_millis(40), 100);
    await_verdict(&server.target(), "stranded");
}

#[test]
fn the_same_loop_is_healthy_when_it_is_level_triggered() {
    for address in ["127.0.0.1", "::1", &path()] {
        let Some(said) = after_the_rush("level", address, 1, "healthy") else { return };
        assert_eq!(said["queued"], 0);
        assert_eq!(said["trigger"], "level");
    }
}

#[test]
fn a_server_at_its_limit_that_goes_on_waiting_spins() {
    for address in ["127.0.0.1", &path()] {
        let Some(said) = after_the_rush("spin", address, 1, "spinning") else { return };
        assert_eq!(said["trigger"], "level");
        assert_eq!(said["queued"], CROWD);
        assert_eq!(said["owner_asleep"], false);
    }
}

#[test]
fn a_server_that_does_not_listen_on_purpose_is_under_backpressure() {
    for (mode, trigger, cause) in [
        ("pause", "silenced", "silenced"),
        ("remove", "none", "deregistered"),
        ("oneshot", "fired", "not_rearmed"),
    ] {
        for address in ["127.0.0.1", &path()] {
            let Some(said) = after_the_rush(mode, address, 1, "backpressure") else { return };
            assert_eq!((&said["trigger"], &said["cause"]), (&trigger.into(), &cause.into()), "{said:#}");
            assert_eq!(said["accepted_alive"], 1, "{said:#}");
            assert_eq!(said["queued"], CROWD);
        }
    }
}

#[test]
fn a_server_that_forgets_to_resume_is_stranded() {
    for address in ["127.0.0.1", &path()] {
        let Some(server) = Server::start("pause", address, 1) else { return };
        let held = server.hold_one();
        let _crowd = server.surprise(CROWD);
        await_verdict(&server.target(), "backpressure");
        drop(held);
        let said = await_verdict(&server.target(), "stranded");
        assert_eq!((&said["cause"], &said["trigger"]), (&"not_resumed".into(), &"silenced".into()));
        assert_eq!((&said["accepted_alive"], &said["queued"]), (&0.into(), &CROWD.into()), "{said:#}");
    }
}

#[test]
fn a_server_whose_first_thread_has_ended_is_seen_whole() {
    let Some(server) = Server::start("pause+orphan", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _crowd = server.door.connect_many(2);
    let said = await_verdict(&server.target(), "backpressure");
    assert_eq!((&said["cause"], &said["pid"]), (&"silenced".into(), &server.pid().into()), "{said:#}");
    assert!(said["descriptors"].as_u64() > Some(2) && said["descriptors_limit"].is_u64(), "{said:#}");
}

#[test]
fn a_thread_that_computes_hides_no_strand() {
    for address in ["127.0.0.1", &path()] {
        let Some(said) = after_the_rush("edge+busy", address, 1, "stranded") else { return };
        assert_eq!(said["owner_asleep"], true, "who waits for the listener's events sleeps: {said:#}");
    }
}

#[test]
fn a_server_that_naps_between_accepts_is_healthy_while_nobody_comes() {
    let Some(server) = Server::start("nap", "127.0.0.1", 1) else { return };
    for _ in 0..3 {
        let (said, status) = examine(&server.target());
        assert_eq!((status, &said["cause"]), (0, &"drained".into()), "{said:#}");
    }
}

#[test]
fn a_server_out_of_descriptors_is_exhausted() {
    for address in ["127.0.0.1", &path()] {
        let Some(said) = after_the_rush("nofile", address, 8, "exhausted") else { return };
        assert_eq!(said["descriptors"], 8);
        assert_eq!(said["descriptors_limit"], 8);
    }
}

#[test]
fn a_server_that_sleeps_elsewhere_is_stuck() {
    let Some(said) = after_the_rush("stuck", "127.0.0.1", 1, "stuck") else { return };
    assert_eq!(said["cause"], "elsewhere");
}

#[test]
fn a_server_that_is_stopped_is_stuck() {
    let Some(server) = Server::start("busy", "127.0.0.1", 1) else { return };
    server.stop();
    let _waiting = server.door.connect_many(2);
    let said = await_verdict(&server.target(), "stuck");
    assert_eq!(said["cause"], "stopped");
    server.signal(Signal::SIGCONT);
    await_verdict(&server.target(), "healthy");
}

#[test]
fn a_busy_server_is_healthy() {
    for (mode, address) in
        [("busy", "127.0.0.1"), ("busy", "::1"), ("busy", &path()), ("blocking", "127.0.0.1")]
    {
        let Some(server) = Server::start(mode, address, 1) else { return };
        let _crowd = server.door.crowd(Duration::from_millis(2), 10);
        for _ in 0..3 {
            // On a machine that is busy with others its queue may overflow for a moment.
            let said = await_verdict(&server.target(), "healthy");
            assert_eq!(said["exit_status"], 0);
        }
    }
}

#[test]
fn a_blocked_accept_is_seen() {
    let Some(server) = Server::start("blocking", "127.0.0.1", 1) else { return };
    let said = await_verdict(&server.target(), "healthy");
    assert_eq!(said["trigger"], "accept");
}

#[test]
fn a_server_that_accepts_too_slowly_overflows() {
    let Some(server) = Server::start("slow", "127.0.0.1", 1) else { return };
    let _crowd = server.door.crowd(Duration::from_millis(1), 1000);
    let said = await_verdict(&server.target(), "overflowing");
    assert_eq!(said["taken_meanwhile"], true, "{said:#}");
}

#[test]
fn a_member_that_nobody_polls_is_told_from_its_sibling() {
    let Some(server) = Server::start("member", "127.0.0.1", 100) else { return };
    // The kernel chooses by the client's port: of so many, some come to each.
    let _clients = server.door.connect_many(40);
    let said = await_verdict(&server.target(), "nobody_polls");
    assert_eq!(said["cause"], "unwatched_member");
    assert_eq!(said["trigger"], "none");
    let members = said["listeners"].as_array().expect("each has its own verdict");
    assert_eq!(members.len(), 2);
    assert_eq!(members[0]["verdict"], "nobody_polls", "the worst comes first");
    assert_eq!(members[1]["verdict"], "healthy");
    assert_eq!(members[1]["queued"], 0);
    // All that wait are the deaf one's, which is why they can be told.
    assert_eq!(members[0]["waiting"].as_array().map(Vec::len), members[0]["queued"].as_u64().map(to_usize));
}

#[test]
fn a_group_s_waiters_are_listed_once() {
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
    let _clients = Door::Tcp(address).connect_many(60);
    let (said, _) = examine(&address.port().to_string());
    let members = said["listeners"].as_array().expect("each has its own verdict");
    assert_eq!(members.len(), 8);
    let lists = |member: &&Value| member["waiting_shared"] == true && member["waiting"].is_array();
    assert_eq!(members.iter().filter(lists).count(), 1, "{said:#}");
    assert_eq!(said["waiting"].as_array().map(Vec::len), Some(60));
    assert!(members.iter().all(|member| member["oldest_wait_ms"].is_u64()), "{said:#}");
}

#[test]
fn clients_that_reset_are_dead_though_the_kernel_does_not_list_them() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    for client in server.surprise(CROWD) {
        client.set_linger(Some(Duration::ZERO)).expect("a flag");
    }
    let said = await_verdict(&server.target(), "stranded");
    assert_eq!((&said["queued"], &said["dead"]), (&(CROWD - 1).into(), &(CROWD - 1).into()), "{said:#}");
    assert_eq!((&said["close_wait_unowned"], &said["waiting"]), (&0.into(), &Value::Array(Vec::new())));
    let text = stdout(&acceptq(&["doctor", &server.target(), "--for", "0.5"]));
    assert!(text.contains("7 of them dead (0 in CLOSE_WAIT with inode 0, 7 reset"), "{text}");
    assert!(!text.contains("Unix"), "{text}");
    let text = stdout(&acceptq(&["watch", &server.target(), "--count", "1"]));
    assert!(text.contains("dead 7"), "{text}");
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

#[test]
fn people_are_told_in_words() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _crowd = server.surprise(CROWD);
    await_verdict(&server.target(), "stranded");
    let output = acceptq(&["doctor", &server.target(), "--for", "0.5"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(10));
    let port = server.target();
    for fact in [
        &format!("tcp 127.0.0.1:{port}: STRANDED"),
        "7 of 65 waiting",
        "taken      nothing in ",
        "edge-triggered",
        "seen in: epoll_wait",
        "what to do",
    ] {
        assert!(text.contains(fact), "{fact} is not in: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
}

#[test]
fn where_nothing_listens_is_told_apart_from_what_is_wrong() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let output = acceptq(&["doctor", &free.port().to_string(), "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let said: Value = serde_json::from_str(&stdout(&output)).expect("JSON all the same");
    assert_eq!(said["verdict"], Value::Null);
    assert_eq!(acceptq(&["doctor", "/nowhere/at/all.sock"]).status.code(), Some(3));
}

#[test]
fn a_listener_that_closes_meanwhile_is_not_judged() {
    let begun = Instant::now();
    loop {
        let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_acceptq"));
        doctor
            .args(["doctor", &server.target(), "--json", "--for", "3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let doctor = doctor.spawn().expect("the tool runs");
        // It sleeps between two looks, and hardly before.
        wait_until("the doctor watches", || naps(&doctor) > 3);
        drop(server);
        let (said, status) = diagnosis(&doctor.wait_with_output().expect("it ends"));
        assert_eq!((status, &said["verdict"]), (3, &Value::Null), "{said:#}");
        if said["closed_meanwhile"] == 1 {
            return;
        }
        assert!(begun.elapsed() < LONG, "{said:#}");
    }
}

/// How often a process has gone to sleep so far.
fn naps(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_verdict_is_a_status_also_where_nobody_reads() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _crowd = server.surprise(CROWD);
    await_verdict(&server.target(), "stranded");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acceptq"));
        command.args(arguments).stdout(unread()).stderr(unread());
        command.status().expect("the tool runs").code()
    };
    assert_eq!(run(&["doctor", &server.target()]), Some(10));
    assert_eq!(run(&["doctor", &server.target(), "--json"]), Some(10));
    assert_eq!(run(&["ordeal", &server.target(), "--patience", "0.5"]), Some(20));
    // What goes to stderr alone.
    assert_eq!(run(&["doctor", "/nowhere/at/all.sock"]), Some(3));
    assert_eq!(run(&["ordeal", "192.0.2.1:80"]), Some(1));
    assert_eq!(run(&["list", "/nowhere/at/all.sock"]), Some(3));
}

/// Whoever should read has gone.
fn unread() -> OwnedFd {
    let (here, _) = UnixStream::pair().expect("two ends");
    here.into()
}

#[test]
fn wrong_arguments_are_refused_and_the_help_lists_the_exit_statuses() {
    for arguments in [
        &["doctor"][..],
        &["doctor", "80", "--for", "0"],
        &["doctor", "80", "--for", "x"],
        &["cure"],
        &["watch", "--count", "0"],
    ] {
        assert_eq!(acceptq(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = stdout(&acceptq(&["doctor", "--help"]));
    for line in ["10  stranded", "11  backpressure", "20  undetermined", "0  healthy"] {
        assert!(help.contains(line), "{line} is not in: {help}");
    }
}
