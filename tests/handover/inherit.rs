//! At the start of a program.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use epoll_acceptor::handover::{self, Received};
use epoll_acceptor::{AcceptFlags, accept};
use socket2::{SockRef, Socket};

use crate::support::{
    client_of, done_alone, heard, is_close_on_exec, listeners, one_test, open_descriptors, role,
};

const CHILD: &str = "inherit::a_child_serves_each_listener_by_its_name";

/// Serves one client on each listener that it has inherited, and tells it the listener's name.
fn serve_what_was_inherited() {
    let listeners = handover::from_env().unwrap();
    let again = handover::from_env().unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
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
    // The variables are still there, and for somebody else.
    let status = one_test(CHILD, "grandchild").status().unwrap();
    assert!(status.success());
}

#[test]
fn a_child_serves_each_listener_by_its_name() {
    match role().as_deref() {
        Some("child") => return serve_what_was_inherited(),
        Some("grandchild") => return assert!(handover::from_env().unwrap().is_empty()),
        _ => {}
    }
    let listeners = listeners();
    let clients: Vec<_> = listeners.iter().map(|(name, listener)| (*name, client_of(listener))).collect();
    let mut child = handover::spawn(one_test(CHILD, "child"), &listeners).unwrap();
    assert!(listeners.iter().all(|(_, listener)| is_close_on_exec(listener)), "nothing changes here");
    drop(listeners);
    for (name, client) in clients {
        assert_eq!(heard(&client), name);
    }
    assert!(child.wait().unwrap().success());
}

/// In a young process the listeners stand at the very numbers that they are to have in the child, in another order.
#[test]
fn listeners_that_are_in_each_others_place_arrive_in_order() {
    if role().as_deref() == Some("child") {
        return serve_what_was_inherited();
    }
    if done_alone("inherit::listeners_that_are_in_each_others_place_arrive_in_order") {
        return;
    }
    let names: Vec<String> = (0..30).map(|number| format!("number {number}")).collect();
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let mut listeners: Vec<_> = names.iter().map(|name| (name.as_str(), bind())).collect();
    listeners.reverse();
    // Holes, where something else may come to lie.
    drop(listeners.remove(20));
    let socket = |listener: &TcpListener| Socket::from(listener.try_clone().unwrap());
    let clients: Vec<_> =
        listeners.iter().map(|(name, listener)| (*name, client_of(&socket(listener)))).collect();
    let before = open_descriptors();
    let mut child = handover::spawn(one_test(CHILD, "child"), &listeners).unwrap();
    assert_eq!(open_descriptors(), before, "nothing is left open here");
    for (name, client) in clients {
        assert_eq!(heard(&client), name);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_program_that_is_not_there_is_an_error_here() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = handover::spawn(Command::new("/no/such/program"), &[("http", &listener)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = handover::spawn(Command::new("true"), &[("a:b", listener.as_fd())]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let mut nonsense = Command::new("true");
    nonsense.arg("\0");
    let error = handover::spawn(nonsense, &[("http", &listener)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn the_childs_environment_is_ours_with_the_commands_changes() {
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
fn without_the_variables_nothing_is_inherited() {
    if role().is_none() {
        assert!(handover::from_env().unwrap().is_empty());
    }
}
