//! Counts the system calls of a thread with perf events. The thread is neither stopped nor traced.
//!
//! Needs root (or `CAP_PERFMON`, and `CAP_SYS_ADMIN` where tracefs is not mounted).

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Instant;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::Thread;

const ALL: &str = "raw_syscalls/sys_enter";
/// The calls with which a server waits for connections or tries to accept one.
const WAITS: [&str; 9] =
    ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6", "accept", "accept4"];

/// The system calls of a thread, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CallRates {
    pub(crate) all: f64,
    /// Waits for events and attempts to accept.
    pub(crate) waits: f64,
    /// Voluntary context switches: a call that returned at once had none.
    pub(crate) sleeps: f64,
}

/// A counter, from its creation on, of one thread's system calls.
#[derive(Debug)]
pub(crate) struct CallCounter {
    pub(crate) thread: Thread,
    all: Counter,
    waits: Vec<Counter>,
    began: Instant,
}

impl CallCounter {
    /// Starts to count the system calls; `thread` is a snapshot just taken. Fails if this user may not count them, or
    /// if the kernel has no such tracepoints.
    pub(crate) fn of(thread: Thread) -> io::Result<Self> {
        let ids = ids().as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let count = |id: u64| -> io::Result<Counter> {
            let mut builder = Builder::new(Tracepoint::with_id(id));
            // Tracepoints are in the kernel.
            builder.observe_pid(thread.tid).any_cpu().include_kernel().enabled(true).build()
        };
        let waits = ids.waits.iter().map(|id| count(*id)).collect::<io::Result<_>>()?;
        let all = count(ids.all)?;
        Ok(Self { thread, all, waits, began: Instant::now() })
    }

    pub(crate) fn rates(&mut self) -> io::Result<CallRates> {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let mut waits = 0;
        for counter in &mut self.waits {
            waits += counter.read()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |count: u64| count as f64 / seconds;
        let sleeps = Thread::read(self.thread.pid, self.thread.tid)
            .map_or(0, |now| now.sleeps.saturating_sub(self.thread.sleeps));
        Ok(CallRates { all: rate(self.all.read()?), waits: rate(waits), sleeps: rate(sleeps) })
    }
}

/// The numbers of the tracepoints.
#[derive(Debug)]
struct Ids {
    all: u64,
    waits: Vec<u64>,
}

fn ids() -> &'static Option<Ids> {
    static IDS: OnceLock<Option<Ids>> = OnceLock::new();
    IDS.get_or_init(|| {
        let by_path = |root: &'static str| {
            move |name: &str| fs::read_to_string(format!("{root}/events/{name}/id")).ok()
        };
        let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        mounted.into_iter().find_map(|root| read_ids(by_path(root))).or_else(|| {
            let tracefs = detached_tracefs().ok()?;
            read_ids(|name| read_at(&tracefs, &format!("events/{name}/id")).ok())
        })
    })
}

fn read_ids(read: impl Fn(&str) -> Option<String>) -> Option<Ids> {
    let id = |name: &str| read(name)?.trim().parse().ok();
    // Some architectures lack some calls.
    let waits: Vec<u64> = WAITS.iter().filter_map(|call| id(&format!("syscalls/sys_enter_{call}"))).collect();
    Some(Ids { all: id(ALL)?, waits }).filter(|ids| !ids.waits.is_empty())
}

/// Opens tracefs where it is not mounted. No other process sees this mount.
fn detached_tracefs() -> io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn read_at(folder: &OwnedFd, path: &str) -> io::Result<String> {
    let file = rustix::fs::openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text)?;
    Ok(text)
}
