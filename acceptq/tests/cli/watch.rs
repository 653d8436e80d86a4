//! The output of `acceptq watch`, and that it restores the terminal.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::nix_pid;
use crate::tool::{LONG, acceptq, closed_port, stdout, wait_until};

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

pub(crate) fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    (listener, port)
}

#[test]
fn watch_without_terminal_prints_lines() {
    let (listener, port) = listener();
    let address = listener.local_addr().expect("it is bound");
    let mut clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).expect("room")).collect();
    drop(clients.pop());
    let output = acceptq(&["watch", &port, "--interval", "0.1", "--count", "3"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.contains(&format!("tcp 127.0.0.1:{port}  queued 3 of "))), "{text}");
    assert!(text.contains("dead 1") && text.contains("oldest "), "{text}");
    assert!(!text.contains('\x1b'), "no control sequences in a pipe");
}

#[test]
fn watch_json_is_a_line_per_sample() {
    let (listener, port) = listener();
    let _client = std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("room");
    let output = acceptq(&["watch", &port, "--json", "--interval", "0.1", "--count", "2"]);
    let text = stdout(&output);
    let samples: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(samples.len(), 2, "{text}");
    for sample in samples {
        assert_eq!(
            (&sample["schema"], &sample["listeners"][0]["queued"]),
            (&1.into(), &1.into()),
            "{sample}"
        );
        assert!(sample["listeners"][0]["oldest_wait_ms"].is_number(), "{sample}");
    }
}

#[test]
fn watch_without_listener_exits_3() {
    let (_socket, closed) = closed_port();
    assert_eq!(acceptq(&["watch", &closed, "--count", "1"]).status.code(), Some(3));
}

#[test]
fn watch_without_target_prints_totals() {
    let (_listener, _) = listener();
    let text = stdout(&acceptq(&["watch", "--interval", "0.05", "--count", "2"]));
    assert_eq!(
        text.lines().filter(|line| line.contains("listener") && line.contains("queued")).count(),
        2,
        "{text}"
    );
}

#[test]
fn watch_in_a_pipe_exits_on_signal() {
    let (_listener, port) = listener();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_acceptq"))
            .args(["watch", &port, "--interval", "0.05"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let mut first = [0; 20];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("a line");
        kill(nix_pid(&child), signal).expect("a child of ours");
        assert!(child.wait().expect("it ends").success(), "{signal}");
    }
}

/// Runs the tool on a pseudo-terminal with script(1). Reports a skip and returns `None` if there is no
/// script(1).
fn on_a_terminal(port: &str) -> Option<Child> {
    let command = format!("exec {} watch {port} --interval 0.1", env!("CARGO_BIN_EXE_acceptq"));
    let script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn();
    if let Err(error) = &script {
        crate::tool::skip!("script(1) does not start: {error}");
    }
    script.ok()
}

/// Reads the output in a thread, so that the test can wait with a time limit.
fn reader(child: &mut Child) -> Receiver<Vec<u8>> {
    let mut pipe = child.stdout.take().expect("a pipe");
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let _ = sender.send(buffer[..count].to_vec());
        }
    });
    receiver
}

fn read_until(written: &Receiver<Vec<u8>>, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match written.recv_timeout(LONG) {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Err(error) => panic!("{error} before {wanted:?}: {text}"),
        }
    }
    text
}

#[test]
fn watch_restores_terminal_on_key_and_signal() {
    // `q`, Ctrl-C as a key in raw mode, and a signal.
    for way in ["q", "\x03", ""] {
        let (_listener, port) = listener();
        let Some(mut child) = on_a_terminal(&port) else { return };
        let written = reader(&mut child);
        let shown = read_until(&written, "q: quit");
        assert!(shown.contains(ENTER_SCREEN), "{shown}");
        assert!(shown.contains(&format!("127.0.0.1:{port}")), "{shown}");
        match way {
            "" => kill(child_of(&child), Signal::SIGTERM).expect("a child of ours"),
            keys => child.stdin.as_mut().expect("a pipe").write_all(keys.as_bytes()).expect("it reads"),
        }
        let last = read_until(&written, LEAVE_SCREEN);
        assert!(last.contains(SHOW_CURSOR), "{way:?}: {last}");
        assert!(child.wait().expect("it ends").success(), "{way:?}");
    }
}

#[test]
fn watch_exits_when_its_terminal_closes() {
    let (_listener, port) = listener();
    let Some(mut script) = on_a_terminal(&port) else { return };
    let written = reader(&mut script);
    read_until(&written, "q: quit");
    let stat = format!("/proc/{}/stat", child_of(&script));
    script.kill().expect("a child of ours");
    script.wait().expect("it ends");
    // Until its new parent has read its status, it is a zombie.
    wait_until("it has exited", || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

/// Returns the only child of script(1), which its shell has replaced by the tool.
fn child_of(script: &Child) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", script.id());
    let mut found = None;
    wait_until("script has a child", || {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        found = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        found.is_some()
    });
    Pid::from_raw(found.expect("just found"))
}
