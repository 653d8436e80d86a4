//! Network namespaces: finds them, and enters one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use procfs::process::all_processes;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::diag::Diag;

/// The directory of the namespaces that `ip netns` names.
const NAMED: &str = "/run/netns";

#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    /// The argument of `--netns` that selects it; `None` for the one of this process.
    pub(crate) name: Option<String>,
}

impl Namespace {
    /// Opens the namespace with this name in `/run/netns`, or of the process with this id.
    pub(crate) fn of(name: &str) -> io::Result<Self> {
        let is_file_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        let named = Path::new(NAMED).join(name);
        match name.parse() {
            _ if is_file_name && named.exists() => {
                let file = File::open(named).map_err(|error| explain(name, &error))?;
                Ok(Self { file, name: Some(name.into()) })
            }
            Ok(pid) => Self::of_process(pid),
            Err(_) => Err(explain(name, &ErrorKind::NotFound.into())),
        }
    }

    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        let name = pid.to_string();
        let file = File::open(path_of(pid)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => io::Error::new(ErrorKind::NotFound, format!("no process {pid}")),
            _ => explain(&name, &error),
        })?;
        Ok(Self { file, name: Some(name) })
    }

    pub(crate) fn is_current(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.ino() == Self::current()?.file.metadata()?.ino())
    }

    fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")?, name: None })
    }

    /// Lists this namespace, those in `/run/netns`, and those of all processes, each once. Also returns the number of
    /// processes and files whose namespace is not visible.
    pub(crate) fn all() -> io::Result<(Vec<Self>, usize)> {
        let current = Self::current()?;
        let mut known = HashSet::from([current.file.metadata()?.ino()]);
        let (mut found, mut hidden) = (vec![current], 0);
        let names = fs::read_dir(NAMED).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let processes = all_processes().into_iter().flatten().flatten();
        let mut pids: Vec<i32> = processes.map(|process| process.pid()).collect();
        pids.sort_unstable();
        let named = names.into_iter().map(|name| (Path::new(NAMED).join(&name), name));
        let of_processes = pids.into_iter().map(|pid| (path_of(pid), pid.to_string()));
        for (path, name) in named.chain(of_processes) {
            match fs::metadata(&path) {
                Ok(metadata) if !known.insert(metadata.ino()) => {}
                Ok(_) => match File::open(&path) {
                    Ok(file) => found.push(Self { file, name: Some(name) }),
                    Err(_) => hidden += 1,
                },
                Err(error) => hidden += usize::from(error.kind() == ErrorKind::PermissionDenied),
            }
        }
        Ok((found, hidden))
    }

    /// Moves the calling thread into it. `/proc` still shows every process.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let name = self.name.as_deref().unwrap_or("of this process");
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| explain(name, &error.into()))
    }

    /// Opens a sock_diag socket in this namespace, from any other.
    pub(crate) fn diag(&self) -> io::Result<Diag> {
        if self.name.is_none() {
            return Diag::new();
        }
        let before = Self::current()?;
        self.enter()?;
        let diag = Diag::new();
        before.enter()?;
        diag
    }
}

fn path_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

fn explain(name: &str, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        ErrorKind::NotFound => format!("no network namespace {name} in {NAMED}, and not a process id"),
        ErrorKind::PermissionDenied => {
            format!("the network namespace {name} cannot be entered: run this as root (CAP_SYS_ADMIN)")
        }
        _ => format!("the network namespace {name} cannot be entered: {error}"),
    };
    io::Error::new(error.kind(), text)
}
