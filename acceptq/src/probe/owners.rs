//! The processes that have a listener open, and their epoll instances: `/proc/PID/fd`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use procfs::process::{Process, all_processes};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::cgroup;
use super::registration::{self, Registration};
use super::threads::Thread;

/// The maximum number of threads that search.
const THREADS: usize = 4;

/// A process that has a listener open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) command: String,
    /// The short id of its container, or its systemd unit.
    pub(crate) unit: Option<String>,
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
    /// Searches all processes for these sockets by inode, in several threads.
    pub(crate) fn of(inodes: &HashSet<u64>) -> Self {
        let processes = all_processes().into_iter().flatten().flatten();
        let pids: Vec<i32> = processes.map(|process| process.pid()).collect();
        let next = AtomicUsize::new(0);
        let search = || {
            let mut part = Self::default();
            while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                match descriptors(*pid) {
                    Some(found) => part.add(*pid, &found, inodes),
                    None => part.hidden += usize::from(may_have_descriptors(*pid)),
                }
            }
            part
        };
        let count = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let mut owners = thread::scope(|scope| {
            let others: Vec<_> = (1..count).map(|_| scope.spawn(search)).collect();
            let parts = others.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
            parts.fold(search(), Self::merged)
        });
        owners.unlisted = !Path::new("/proc/1").exists();
        owners.holders.values_mut().for_each(|all| all.sort_by_key(|one| (one.pid, one.fd)));
        owners.registrations.values_mut().for_each(|all| all.sort_by_key(|one| (one.pid, one.epoll, one.fd)));
        owners
    }

    fn merged(mut self, other: Self) -> Self {
        self.hidden += other.hidden;
        for (inode, found) in other.holders {
            self.holders.entry(inode).or_default().extend(found);
        }
        for (inode, found) in other.registrations {
            self.registrations.entry(inode).or_default().extend(found);
        }
        for (inode, pid) in other.sockets {
            let known = self.sockets.entry(inode).or_insert(pid);
            *known = pid.max(*known);
        }
        self
    }

    /// Returns whether every process was visible. Then an owner that is missing runs in another namespace.
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

    fn add(&mut self, pid: i32, found: &Descriptors, inodes: &HashSet<u64>) {
        // Once per process, which may have thousands of listeners.
        let mut names = None;
        for (fd, inode) in &found.sockets {
            self.sockets.insert(*inode, pid);
            if inodes.contains(inode) {
                let names = names.get_or_insert_with(|| (command(pid), cgroup::unit_of(pid)));
                let (command, unit) = names.clone();
                self.holders.entry(*inode).or_default().push(Holder { pid, command, unit, fd: *fd });
            }
        }
        for (inode, registration) in
            registration::of(pid, &found.folder, &found.epolls, &found.sockets, inodes)
        {
            self.registrations.entry(inode).or_default().push(registration);
        }
    }
}

/// Returns the inodes of the sockets that a process has open; `None` if they are not visible.
pub(crate) fn sockets(pid: i32) -> Option<HashSet<u64>> {
    let found = descriptors(pid)?;
    Some(found.sockets.into_iter().map(|(_, inode)| inode).collect())
}

/// Returns the name of a process, as ps(1) shows it.
pub(crate) fn command(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process can choose its name: a control character must not reach the terminal.
    String::from_utf8_lossy(&name).trim_end().escape_debug().to_string()
}

/// Returns whether a process can have descriptors: kernel threads and zombies have none.
fn may_have_descriptors(pid: i32) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.flags & PF_KTHREAD == 0 && stat.state != 'Z')
}

/// Returns the `/proc` directory that lists descriptors. After the main thread has exited, only the directories of the
/// other threads do.
fn folder(pid: i32) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    let has_ended = Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.state == 'Z');
    match Thread::of(pid).first().filter(|_| has_ended) {
        Some(thread) => own.join(format!("task/{}", thread.tid)),
        None => own,
    }
}

/// Reads the descriptors of a process. Returns `None` if they are not visible.
fn descriptors(pid: i32) -> Option<Descriptors> {
    let own = PathBuf::from(format!("/proc/{pid}"));
    let found = descriptors_in(own.clone());
    if found.as_ref().is_some_and(|found| found.count > 0) {
        return found;
    }
    match folder(pid) {
        thread if thread != own => descriptors_in(thread),
        _ => found,
    }
}

/// Reads each link by one system call: a server may have ten thousand.
fn descriptors_in(folder: PathBuf) -> Option<Descriptors> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let links = rustix::fs::open(folder.join("fd"), flags, Mode::empty()).ok()?;
    let mut found = Descriptors { folder, count: 0, sockets: Vec::new(), epolls: Vec::new() };
    let mut buffer = Vec::new();
    for entry in Dir::read_from(&links).ok()?.flatten() {
        // Others are `.` and `..`.
        let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        found.count += 1;
        match rustix::fs::readlinkat(&links, entry.file_name(), buffer) {
            Ok(link) => {
                match link.to_str().unwrap_or_default() {
                    "anon_inode:[eventpoll]" => found.epolls.push(fd),
                    target => found.sockets.extend(socket(target).map(|inode| (fd, inode))),
                }
                buffer = link.into_bytes();
            }
            // This user may list descriptors, but not see what they are.
            Err(Errno::ACCESS | Errno::PERM) => return None,
            // It was closed during the scan.
            Err(_) => buffer = Vec::new(),
        }
    }
    Some(found)
}

/// Parses `socket:[4711]`.
fn socket(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
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
