//! Compiles the servers in C, if there is a compiler, and runs them.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;

use crate::clients::Endpoint;
use crate::tool::{queued, wait_until};

/// Returns the directory of this run, readable by every user. Its path is short, as for Unix sockets it must
/// be.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        sweep();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).expect("a directory for this run");
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("our own directory");
        folder
    })
}

const PREFIX: &str = "acceptq-test-";

/// Removes the directories of earlier runs.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns a new path for a Unix socket.
pub(crate) fn path() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    folder().join(format!("{number}.sock")).to_str().expect("a plain path").into()
}

/// Returns the compiled server; reports a skip and returns `None` if there is no compiler.
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/server.c");
        let program = folder().join("server");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program).arg(source);
        match cc.status() {
            Ok(status) => assert!(status.success(), "the server compiles"),
            Err(_) => return None,
        }
        Some(program)
    });
    if program.is_none() {
        crate::tool::skip!("no C compiler (cc) for the test servers");
    }
    program.as_deref()
}

/// A running server. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: Endpoint,
}

impl Server {
    /// Runs a mode of `server.c`.
    pub(crate) fn start(mode: &str, address: &str, limit: u32) -> Option<Self> {
        let mut command = Command::new(program()?);
        command.args([mode, address, &limit.to_string()]);
        Some(Self::spawn(&mut command, address))
    }

    /// Runs a server that prints its port.
    pub(crate) fn spawn(command: &mut Command, address: &str) -> Self {
        Self::spawn_with(command, address, |line| line.trim().parse().ok())
    }

    /// Runs a server that prints `listening on ADDR`.
    pub(crate) fn spawn_echo(command: &mut Command, address: &str) -> Self {
        Self::spawn_with(command, address, |line| {
            let place = line.strip_prefix("listening on ")?;
            // A Unix socket has no port.
            Some(place.rsplit(':').next().and_then(|port| port.trim().parse().ok()).unwrap_or(0))
        })
    }

    fn spawn_with(command: &mut Command, address: &str, port: impl Fn(&str) -> Option<u16>) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| port(&line));
        let port = port.expect("the server prints its address");
        let endpoint = match address.parse::<IpAddr>() {
            Ok(ip) => Endpoint::Tcp(SocketAddr::new(ip, port)),
            Err(_) => Endpoint::Unix(address.into()),
        };
        Self { child, endpoint }
    }

    pub(crate) fn target(&self) -> String {
        self.endpoint.target()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects a client and waits until it is accepted.
    pub(crate) fn hold_one(&self) -> Socket {
        let held = self.endpoint.connect();
        wait_until("the first client is accepted", || queued(&self.target()) == 0);
        held
    }

    /// Connects clients while the server is stopped, so that one wakeup reports all of them.
    pub(crate) fn connect_while_stopped(&self, count: usize) -> Vec<Socket> {
        self.stop();
        let clients = self.endpoint.connect_many(count);
        self.signal(Signal::SIGCONT);
        clients
    }

    /// Stops the process and waits until it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        let is_stopped = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        wait_until("the server is stopped", is_stopped);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(nix_pid(&self.child), signal).expect("a child of ours");
    }
}

pub(crate) fn nix_pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
