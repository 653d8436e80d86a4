//! The processes that have a listener open, and their epoll instances: `/proc/PID/fd`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::{FDTarget, Process, all_processes};
use serde::Serialize;

use super::registration::{self, Registration};
use super::threads::Thread;

/// A process that has a listener open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) command: String,
    /// Its descriptor. A socket that is open under several descriptors has several holders.
    pub(crate) fd: i32,
}

/// The owners of sockets, as `/proc` shows them.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    holders: HashMap<u64, Vec<Holder>>,
    registrations: HashMap<u64, Vec<Registration>>,
    /// The owner of each open socket, by inode.
    sockets: HashMap<u64, i32>,
    /// The number of processes whose descriptors are not visible.
    pub(crate) hidden: usize,
    /// Other users' processes are not listed (`hidepid`).
    pub(crate) unlisted: bool,
}

/// The sockets and epoll instances of one process.
struct Descriptors {
    /// The `/proc` directory they were read from.
    folder: PathBuf,
    count: usize,
    sockets: Vec<(i32, u64)>,
    epolls: Vec<i32>,
}

impl Owners {
    /// Searches all processes for these sockets by inode.
    pub(crate) fn of(inodes: &HashSet<u64>) -> Self {
        let mut owners = Self { unlisted: !Path::new("/proc/1").exists(), ..Self::default() };
        let Ok(processes) = all_processes() else { return owners };
        for process in processes.flatten() {
            match descriptors(&process) {
                Some(found) => owners.add(&process, &found, inodes),
                None => owners.hidden += usize::from(may_have_descriptors(&process)),
            }
        }
        owners
    }

    /// Returns whether every process was visible. An owner that is missing then runs in another namespace.
    pub(crate) fn is_complete(&self) -> bool {
        self.hidden == 0 && !self.unlisted
    }

    pub(crate) fn holders(&self, inode: u64) -> &[Holder] {
        self.holders.get(&inode).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn registrations(&self, inode: u64) -> &[Registration] {
        self.registrations.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Returns a process that has this socket open.
    pub(crate) fn owner_of(&self, inode: u64) -> Option<i32> {
        self.sockets.get(&inode).copied()
    }

    fn add(&mut self, process: &Process, found: &Descriptors, inodes: &HashSet<u64>) {
        let pid = process.pid();
        for (fd, inode) in &found.sockets {
            self.sockets.insert(*inode, pid);
            if inodes.contains(inode) {
                let command = command(pid);
                self.holders.entry(*inode).or_default().push(Holder { pid, command, fd: *fd });
            }
        }
        for (inode, registration) in
            registration::of(pid, &found.folder, &found.epolls, &found.sockets, inodes)
        {
            self.registrations.entry(inode).or_default().push(registration);
        }
    }
}

/// Returns the name of a process, as ps(1) shows it.
pub(crate) fn command(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process can choose its name: a control character must not reach the terminal.
    String::from_utf8_lossy(&name).trim_end().escape_debug().to_string()
}

/// Returns whether a process can have descriptors: kernel threads and zombies have none.
fn may_have_descriptors(process: &Process) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    process.stat().is_ok_and(|stat| stat.flags & PF_KTHREAD == 0 && stat.state != 'Z')
}

/// Returns the `/proc` directory that lists descriptors. After the main thread has exited, only those of the
/// others do.
fn folder(pid: i32) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    let has_ended = Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.state == 'Z');
    match Thread::of(pid).first().filter(|_| has_ended) {
        Some(thread) => own.join(format!("task/{}", thread.tid)),
        None => own,
    }
}

/// Reads the descriptors of a process. Returns `None` if they are not visible.
fn descriptors(process: &Process) -> Option<Descriptors> {
    let pid = process.pid();
    let found = descriptors_in(PathBuf::from(format!("/proc/{pid}")), process);
    if found.as_ref().is_some_and(|found| found.count > 0) {
        return found;
    }
    let folder = folder(pid);
    match Process::new_with_root(folder.clone()) {
        Ok(thread) if thread.pid() != pid => descriptors_in(folder, &thread),
        _ => found,
    }
}

fn descriptors_in(folder: PathBuf, process: &Process) -> Option<Descriptors> {
    let mut found = Descriptors { folder, count: 0, sockets: Vec::new(), epolls: Vec::new() };
    for descriptor in process.fd().ok()? {
        found.count += 1;
        // It was closed during the scan.
        let Ok(descriptor) = descriptor else { continue };
        match descriptor.target {
            FDTarget::Socket(inode) => found.sockets.push((descriptor.fd, inode)),
            FDTarget::AnonInode(kind) if kind == "[eventpoll]" => found.epolls.push(descriptor.fd),
            _ => {}
        }
    }
    Some(found)
}

/// The descriptors in use, and their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FdTable {
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

impl FdTable {
    /// Counts the descriptors of a process below its limit. Those above were opened before the limit was
    /// lowered.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let seen = folder(pid);
        let process = Process::new_with_root(seen.clone()).ok()?;
        let limit = match process.limits().ok()?.max_open_files.soft_limit {
            procfs::process::LimitValue::Value(limit) => limit,
            procfs::process::LimitValue::Unlimited => u64::MAX,
        };
        let folder = fs::read_dir(seen.join("fd")).ok()?;
        let numbers = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        Some(Self { used: numbers.filter(|number| *number < limit).count() as u64, limit })
    }

    /// Returns the open files of the whole system and `fs.file-max`.
    pub(crate) fn system_wide() -> Option<Self> {
        let text = fs::read_to_string("/proc/sys/fs/file-nr").ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let (used, _free, limit) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
        Some(Self { used, limit })
    }

    pub(crate) fn is_full(self) -> bool {
        self.used >= self.limit
    }
}
