//! The output of `acceptq list`.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use epoll_acceptor::epoll::ExclusiveInterest;
use epoll_acceptor::{Epoll, Interest, Token};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::server::path;
use crate::tool::{acceptq, closed_port, stdout, wait_until};

fn rows(target: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(&stdout(&acceptq(&["list", target, "--json"]))).expect("JSON");
    report["listeners"].as_array().expect("rows").clone()
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    (listener, port)
}

#[test]
fn list_shows_each_trigger() {
    let ways = [
        (Interest::IN, "level"),
        (Interest::IN | Interest::ET, "edge"),
        (Interest::IN | Interest::ONESHOT, "oneshot"),
        (Interest::empty(), "disarmed"),
        (Interest::ET, "disarmed"),
    ];
    let epoll = Epoll::new().expect("an epoll");
    for (interest, word) in ways {
        let (listener, port) = listener();
        let _registration = epoll.register(&listener, Token(1), interest).expect("registered");
        let rows = rows(&port);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["registrations"][0]["how"], word, "{:#}", rows[0]);
        assert_eq!(rows[0]["registrations"][0]["pid"], std::process::id());
        assert_eq!(rows[0]["holders"][0]["pid"], std::process::id());
    }
    let (listener, port) = listener();
    let registration = epoll.register_exclusive(&listener, Token(1), ExclusiveInterest::IN);
    registration.as_ref().expect("registered");
    assert_eq!(rows(&port)[0]["registrations"][0]["how"], "exclusive");
}

#[test]
fn reused_descriptor_is_not_this_listener() {
    let (listener, port) = listener();
    let (other, _) = self::listener();
    let epoll = Epoll::new().expect("an epoll");
    let _registration = epoll.register(&other, Token(1), Interest::IN).expect("registered");
    drop(listener.try_clone());
    assert_eq!(rows(&port)[0]["registrations"], serde_json::json!([]));
}

#[test]
fn list_shows_length_capacity_and_family() {
    let path = path();
    let unix = UnixListener::bind(&path).expect("a listener");
    let _clients: Vec<_> =
        (0..3).map(|_| std::os::unix::net::UnixStream::connect(&path).expect("connected")).collect();
    let row = &rows(&path)[0];
    assert_eq!((&row["kind"], &row["queued"]), (&"unix".into(), &3.into()));
    assert_eq!(row["capacity"], row["backlog"].as_u64().expect("a number") + 1);
    drop(unix);
    // The forked child of another test may hold a copy until its execve.
    wait_until("the listener is closed", || rows(&path).is_empty());
    match TcpListener::bind("[::1]:0") {
        Ok(listener) => {
            let address = listener.local_addr().expect("it is bound");
            let rows = rows(&address.to_string());
            assert_eq!(rows[0]["kind"], "tcp6");
            assert_eq!(rows[0]["address"], address.to_string());
        }
        Err(error) => crate::tool::skip!("IPv6, which this machine does not have: {error}"),
    }
}

#[test]
fn address_selects_wildcard_without_own_listener() {
    let wildcard = TcpListener::bind("0.0.0.0:0").expect("a listener");
    let port = wildcard.local_addr().expect("it is bound").port();
    let found = rows(&format!("127.0.0.1:{port}"));
    assert_eq!(found.iter().map(|row| &row["address"]).collect::<Vec<_>>(), [&format!("0.0.0.0:{port}")]);
    let (report, status) = crate::tool::examine(&format!("127.0.0.1:{port}"));
    assert_ne!(status, 3, "{report:#}");
    // An IPv4 wildcard does not serve IPv6.
    assert!(rows(&format!("[::1]:{port}")).is_empty());
}

#[test]
fn list_without_listener_exits_3() {
    let (_listener, port) = listener();
    assert_eq!(
        acceptq(&["list", &port, "/nowhere/at/all.sock"]).status.code(),
        Some(0),
        "one of the targets has a listener"
    );
    let (_socket, closed) = closed_port();
    assert_eq!(acceptq(&["list", &closed]).status.code(), Some(3));
}

#[test]
fn invalid_port_is_rejected() {
    for command in ["list", "watch", "doctor", "ordeal"] {
        for target in ["0", ":0", "65536", "127.0.0.1:0", "no-such-host.invalid:80"] {
            let output = acceptq(&[command, target]);
            assert_eq!(output.status.code(), Some(2), "{command} {target}: {output:?}");
        }
    }
}

#[test]
fn long_unix_queue_hides_no_listener() {
    let (long, short) = (path(), path());
    // Closed clients stay in the queue and need no descriptors.
    let count = 1500;
    let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the limit of backlogs");
    if backlog.trim().parse::<i32>().is_ok_and(|backlog| backlog < count) {
        crate::tool::skip!("a queue of {count}: net.core.somaxconn is {}", backlog.trim());
        return;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(&long).expect("a short path")).expect("bound");
    socket.listen(count).expect("it listens");
    let _short = UnixListener::bind(&short).expect("a listener");
    for _ in 0..count {
        drop(std::os::unix::net::UnixStream::connect(&long).expect("room in the queue"));
    }
    let all = stdout(&acceptq(&["list", "--json"]));
    for path in [&long, &short] {
        assert!(all.contains(path.as_str()), "{path} is not in: {all}");
    }
    let (report, _) = crate::tool::examine(&long);
    assert_eq!((&report["queued"], &report["dead"]), (&count.into(), &count.into()), "{report:#}");
}

#[test]
fn relative_path_and_symlink_select_socket() {
    let path = path();
    let _unix = UnixListener::bind(&path).expect("a listener");
    let link = format!("{path}.link");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    assert_eq!(rows(&link).len(), 1);
    let (folder, name) = path.rsplit_once('/').expect("an absolute path");
    let output = Command::new(env!("CARGO_BIN_EXE_acceptq"))
        .args(["list", "--json", &format!("./{name}")])
        .current_dir(folder)
        .output()
        .expect("the tool runs");
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["listeners"].as_array().map(Vec::len), Some(1));
}

#[test]
fn list_prints_one_line_each_and_ignores_epipe() {
    let (_listener, port) = listener();
    let output = acceptq(&["list"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.starts_with("KIND"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(&format!("127.0.0.1:{port} "))).count(), 1, "{text}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_acceptq"))
        .arg("list")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
