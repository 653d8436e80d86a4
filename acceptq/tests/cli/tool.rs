//! Runs `acceptq` and parses its output.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// The time limit of a condition, long enough for a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Reports a skipped test on stderr. The harness would capture `eprintln!`.
macro_rules! skip {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {}", format_args!($($words)*));
    }};
}
pub(crate) use skip;

pub(crate) fn acceptq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_acceptq")).args(arguments).output().expect("the tool runs")
}

/// Returns a port of 127.0.0.1 at which nothing listens, and the socket that keeps it. A listener that was dropped may
/// live for a moment longer, in the forked child of another test.
pub(crate) fn closed_port() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("an IP address");
    (socket, address.port().to_string())
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

/// Runs the doctor. Returns its JSON and its exit status.
pub(crate) fn examine(target: &str) -> (Value, i32) {
    let output = acceptq(&["doctor", target, "--json", "--for", "0.5"]);
    diagnosis(&output)
}

pub(crate) fn diagnosis(output: &Output) -> (Value, i32) {
    let text = stdout(output);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
    (report, output.status.code().expect("the tool exits"))
}

/// The verdicts on a server that accepts what arrives. Which one it is depends on what arrived meanwhile.
pub(crate) const NO_FAULT: &str = "healthy|idle|accepting";

/// Runs the doctor until it returns this verdict, or one of those separated by bars.
pub(crate) fn await_verdict(target: &str, verdict: &str) -> Value {
    await_verdict_of(verdict, || examine(target))
}

pub(crate) fn await_verdict_of(verdict: &str, mut examine: impl FnMut() -> (Value, i32)) -> Value {
    let began = Instant::now();
    loop {
        let (report, status) = examine();
        assert_eq!(report["exit_status"], status, "the exit status follows the verdict: {report:#}");
        if verdict.split('|').any(|one| report["verdict"] == one) {
            return report;
        }
        assert!(began.elapsed() < LONG, "not {verdict}, but {report:#}");
    }
}

/// Returns the queue length of a target, by `acceptq watch`: unlike `list` it does not search all processes.
pub(crate) fn queued(target: &str) -> u64 {
    let text = stdout(&acceptq(&["watch", target, "--count", "1"]));
    let length = |line: &str| line.split_once("queued ")?.1.split(' ').next()?.parse::<u64>().ok();
    text.lines().map(|line| length(line).unwrap_or_else(|| panic!("no queue length in {line:?}"))).sum()
}

pub(crate) fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "timed out waiting until {description}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the check on each of these at the same time: most of it is waiting.
pub(crate) fn each<T: Send>(all: impl IntoIterator<Item = T>, check: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for one in all {
            scope.spawn(|| check(one));
        }
    });
}
