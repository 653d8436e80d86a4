//! Listeners passed at the start of a program: `spawn` and `from_env`.
#![allow(unsafe_code)]

use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;

use epoll_acceptor::handover::{self, Listeners, Received};
use epoll_acceptor::socket::{AcceptFlags, accept};
use socket2::{SockRef, Socket};

use crate::handover::support::{
    ROLE, client_of, done_alone, is_close_on_exec, listeners, one_test, open_descriptors, received_text, role,
};

/// Takes the listeners of this process.
fn from_env() -> io::Result<Listeners> {
    // SAFETY: no test owns a descriptor that the variables name. (`from_env_rejects_a_descriptor_with_cloexec` does,
    // and `from_env` rejects it.)
    unsafe { handover::from_env() }
}

const CHILD: &str = "handover::from_env::child_serves_each_listener_by_name";

/// Accepts one client on each inherited listener and sends it the name of the listener.
fn serve_inherited_listeners() {
    let listeners = from_env().unwrap();
    let second = from_env().unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AlreadyExists, "{second}");
    for (name, received) in listeners {
        let fd = match received {
            Received::Tcp(listener) => OwnedFd::from(listener),
            Received::Unix(listener) => listener.into(),
            Received::Other(listener) => listener,
            other => panic!("{name} is {other}"),
        };
        assert!(is_close_on_exec(&fd), "{name}");
        let connection = accept(&fd, AcceptFlags::default().blocking()).unwrap();
        SockRef::from(&connection).send(name.as_bytes()).unwrap();
    }
    // The variables are still set, but LISTEN_PID does not match a child.
    let status = one_test(CHILD, "grandchild").status().unwrap();
    assert!(status.success());
}

#[test]
fn child_serves_each_listener_by_name() {
    match role().as_deref() {
        Some("child") => return serve_inherited_listeners(),
        Some("grandchild") => return assert!(from_env().unwrap().is_empty()),
        _ => {}
    }
    let listeners = listeners();
    let clients: Vec<_> = listeners.iter().map(|(name, listener)| (*name, client_of(listener))).collect();
    let mut child = handover::spawn(one_test(CHILD, "child"), &listeners).unwrap();
    assert!(listeners.iter().all(|(_, listener)| is_close_on_exec(listener)), "spawn changes no flag");
    drop(listeners);
    for (name, client) in clients {
        assert_eq!(received_text(&client), name);
    }
    assert!(child.wait().unwrap().success());
}

/// In a new process the listeners have the numbers that they get in the child, in another order.
#[test]
fn spawn_keeps_the_order_of_occupied_numbers() {
    if role().as_deref() == Some("child") {
        return serve_inherited_listeners();
    }
    if done_alone("handover::from_env::spawn_keeps_the_order_of_occupied_numbers") {
        return;
    }
    let names: Vec<String> = (0..30).map(|number| format!("number {number}")).collect();
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let mut listeners: Vec<_> = names.iter().map(|name| (name.as_str(), bind())).collect();
    listeners.reverse();
    // Leaves a free number, which `spawn` could use for its own descriptors.
    drop(listeners.remove(20));
    let socket = |listener: &TcpListener| Socket::from(listener.try_clone().unwrap());
    let clients: Vec<_> =
        listeners.iter().map(|(name, listener)| (*name, client_of(&socket(listener)))).collect();
    let before = open_descriptors();
    let mut child = handover::spawn(one_test(CHILD, "child"), &listeners).unwrap();
    assert_eq!(open_descriptors(), before, "spawn leaks no descriptor");
    for (name, client) in clients {
        assert_eq!(received_text(&client), name);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn spawn_reports_errors_in_the_parent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = handover::spawn(Command::new("/no/such/program"), &[("http", &listener)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = handover::spawn(Command::new("true"), &[("a:b", listener.as_fd())]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let mut with_nul = Command::new("true");
    with_nul.arg("\0");
    let error = handover::spawn(with_nul, &[("http", &listener)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn spawn_passes_the_environment_and_its_changes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = r#"
        [ "$LISTEN_PID" = $$ ] && [ "$LISTEN_FDS" = 2 ] && [ "$LISTEN_FDNAMES" = http:admin ] &&
        [ "$ADDED" = "a value" ] && [ -z "${HOME+x}" ] && [ -n "$PATH" ] && [ "$1" = argument ]"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", "argument"]).env("ADDED", "a value").env_remove("HOME");
    let mut child = handover::spawn(command, &[("http", &listener), ("admin", &listener)]).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn from_env_without_variables_is_empty() {
    if role().is_none() {
        assert!(from_env().unwrap().is_empty());
    }
}

/// Runs a test in a process with these variables and `LISTEN_PID`, and these redirections from descriptor 3 on.
fn done_with_variables(test: &str, variables: &str, redirections: &str) -> bool {
    if role().is_some() {
        return false;
    }
    let run = format!(
        "LISTEN_PID=$$ {variables} exec \"$0\" --exact {test} --nocapture --test-threads=1 {redirections}"
    );
    let output = Command::new("sh")
        .args(["-c", &run])
        .arg(env::current_exe().unwrap())
        .env(ROLE, "alone")
        .env_remove("LISTEN_FDNAMES")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    true
}

/// Opens files until descriptor 3 is open.
fn open_descriptor_3() -> Vec<File> {
    let mut files = Vec::new();
    while files.last().is_none_or(|file: &File| file.as_raw_fd() < 3) {
        files.push(File::open("/dev/zero").unwrap());
    }
    files
}

/// A file that the program opened must not be closed under its owner.
#[test]
fn from_env_rejects_a_descriptor_with_cloexec() {
    let test = "handover::from_env::from_env_rejects_a_descriptor_with_cloexec";
    if done_with_variables(test, "LISTEN_FDS=1", "3<&-") {
        return;
    }
    let mut files = open_descriptor_3();
    for _ in 0..2 {
        let error = from_env().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("FD_CLOEXEC"), "{error}");
    }
    for file in &mut files {
        file.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn from_env_rejects_a_closed_descriptor() {
    let test = "handover::from_env::from_env_rejects_a_closed_descriptor";
    if done_with_variables(test, "LISTEN_FDS=2", "3</dev/zero 4<&-") {
        return;
    }
    assert_eq!(from_env().unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert!(!is_close_on_exec(&inherited_descriptor_3()), "an error changes no flag");
}

#[test]
fn from_env_rejects_a_wrong_number_of_names() {
    let test = "handover::from_env::from_env_rejects_a_wrong_number_of_names";
    if done_with_variables(test, "LISTEN_FDS=1 LISTEN_FDNAMES=a:b", "3</dev/zero") {
        return;
    }
    let error = from_env().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("LISTEN_FDNAMES must have 1"), "{error}");
    assert!(!is_close_on_exec(&inherited_descriptor_3()), "an error changes no flag");
}

/// A service manager also passes descriptors that are not sockets.
#[test]
fn from_env_takes_a_file_as_not_listening() {
    let test = "handover::from_env::from_env_takes_a_file_as_not_listening";
    if done_with_variables(test, "LISTEN_FDS=1", "3</dev/zero") {
        return;
    }
    let mut listeners = from_env().unwrap();
    assert!(matches!(listeners.take("unknown"), Some(Received::NotListening(_))));
    assert!(listeners.is_empty());
}

fn inherited_descriptor_3() -> BorrowedFd<'static> {
    // SAFETY: the shell passes descriptor 3, and the callers never close it.
    unsafe { BorrowedFd::borrow_raw(3) }
}
