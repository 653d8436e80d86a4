//! The directory of a run, free ports, and the programs compiled for it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::fcntl::{Flock, FlockArg};

/// A directory, removed at the end.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    /// A file that this process has locked.
    _lock: Flock<fs::File>,
}

pub(crate) const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zoo/apps");

impl Place {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("acceptq-zoo-{}", std::process::id()));
        fs::create_dir(&folder).expect("a directory for this run");
        // Servers that drop their privileges write here too.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&folder, mode).expect("our own directory");
        let lock = fs::File::create(folder.join("lock")).expect("our own directory");
        let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("a new file");
        Self { folder, _lock: lock }
    }

    /// Returns the path of the locked file.
    pub(crate) fn lock(&self) -> String {
        self.path("lock")
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("our own directory");
        path
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a plain path").into()
    }

    /// Runs a command that prepares a server. Returns whether it succeeded.
    pub(crate) fn prepare(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("GOCACHE", self.path("gocache")).env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off");
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns a port that was free a moment ago, below the range from which the kernel takes ports.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 10).expect("a digit") * 1000;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns the path of an installed program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(program.into()).filter(|path: &PathBuf| path.exists());
    }
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    folders.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}
