//! The current activity of each thread of a process: `/proc/PID/task/*/{stat,status,syscall,wchan}`.

use std::fs;

use procfs::process::Process;
use serde::Serialize;

/// What a thread is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity {
    /// Running or runnable.
    Running,
    /// Blocked in `epoll_wait`, with the epoll descriptor if visible.
    EpollWait(Option<i32>),
    /// Blocked in `accept`, with the socket descriptor if visible.
    Accept(Option<i32>),
    /// Blocked in `poll` or `select`; the descriptor set is not visible.
    Poll,
    /// Blocked in `io_uring_enter`; its requests are not visible.
    Uring,
    /// Blocked on a lock, a timer or a signal, which no socket event ends.
    NonSocketWait,
    /// Blocked in another system call or kernel function.
    Other(String),
    /// Blocked in a call that is not visible.
    Asleep,
    /// Stopped by a signal or a debugger.
    Stopped,
}

/// A snapshot of a thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    pub(crate) parent: i32,
    pub(crate) activity: Activity,
    /// Processor time in user mode, in clock ticks.
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// Voluntary context switches.
    pub(crate) sleeps: u64,
}

impl Activity {
    pub(crate) fn is_asleep(&self) -> bool {
        !matches!(self, Self::Running)
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Running => "running".into(),
            Self::EpollWait(_) => "epoll_wait".into(),
            Self::Accept(_) => "accept".into(),
            Self::Poll => "poll or select".into(),
            Self::Uring => "io_uring".into(),
            Self::NonSocketWait => "futex, sleep or wait".into(),
            Self::Other(name) => name.clone(),
            Self::Asleep => "asleep".into(),
            Self::Stopped => "stopped".into(),
        }
    }
}

impl Thread {
    /// Reads all threads of a process, except those that exit during the scan.
    pub(crate) fn of(pid: i32) -> Vec<Self> {
        let Ok(tasks) = Process::new(pid).and_then(|process| process.tasks()) else { return Vec::new() };
        tasks.flatten().filter_map(|task| Self::read(pid, task.tid)).collect()
    }

    pub(crate) fn read(pid: i32, tid: i32) -> Option<Self> {
        let folder = format!("/proc/{pid}/task/{tid}");
        let text = |file| fs::read_to_string(format!("{folder}/{file}")).ok();
        Self::parse(pid, tid, &text("stat")?, || blocking_call(&folder), || text("status"))
    }

    /// Parses the files of a thread. Reads `status` after the activity, so that its count of context switches belongs
    /// to that activity.
    pub(crate) fn parse(
        pid: i32,
        tid: i32,
        stat: &str,
        blocking_call: impl FnOnce() -> Activity,
        status: impl FnOnce() -> Option<String>,
    ) -> Option<Self> {
        // The name may contain blanks and parentheses; the fields follow the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let activity = match *fields.first()? {
            "R" => Activity::Running,
            "T" | "t" => Activity::Stopped,
            "Z" | "X" => return None,
            _ => blocking_call(),
        };
        let status = status()?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some(Self {
            pid,
            tid,
            parent: fields.get(1)?.parse().ok()?,
            activity,
            user: fields.get(11)?.parse().ok()?,
            system: fields.get(12)?.parse().ok()?,
            sleeps: sleeps?.trim().parse().ok()?,
        })
    }
}

fn blocking_call(folder: &str) -> Activity {
    let read = |file: &str| fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
    match by_syscall(&read("syscall")) {
        Some(activity) => activity,
        // If the system call is not visible (another user, or Yama), the kernel function may be.
        None => by_wchan(&read("wchan")),
    }
}

/// Parses `232 0x4 0x7ffd...`: the number of the system call and its arguments, or `running`, or `-1 ...`.
pub(crate) fn by_syscall(text: &str) -> Option<Activity> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let first = words.next().and_then(|word| word.strip_prefix("0x")).unwrap_or_default();
    // A descriptor is an `int`: ignores the upper half of the register.
    let fd = u64::from_str_radix(first, 16).ok().and_then(|word| i32::try_from(word & 0xffff_ffff).ok());
    Some(match number {
        n if EPOLL_WAITS.contains(&n) => Activity::EpollWait(fd),
        libc::SYS_accept | libc::SYS_accept4 => Activity::Accept(fd),
        n if POLLS.contains(&n) => Activity::Poll,
        libc::SYS_io_uring_enter => Activity::Uring,
        n if NON_SOCKET_WAITS.contains(&n) => Activity::NonSocketWait,
        libc::SYS_read | libc::SYS_readv | libc::SYS_recvfrom | libc::SYS_recvmsg => {
            Activity::Other("read".into())
        }
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg => {
            Activity::Other("write".into())
        }
        libc::SYS_connect => Activity::Other("connect".into()),
        libc::SYS_fsync | libc::SYS_fdatasync => Activity::Other("fsync".into()),
        libc::SYS_flock | libc::SYS_fcntl => Activity::Other("flock".into()),
        // Not in a system call.
        -1 => Activity::Other("page fault".into()),
        number => Activity::Other(format!("system call {number}")),
    })
}

#[cfg(target_arch = "x86_64")]
const EPOLL_WAITS: [i64; 3] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAITS: [i64; 2] = [libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

#[cfg(target_arch = "x86_64")]
const POLLS: [i64; 4] = [libc::SYS_poll, libc::SYS_ppoll, libc::SYS_select, libc::SYS_pselect6];
#[cfg(not(target_arch = "x86_64"))]
const POLLS: [i64; 2] = [libc::SYS_ppoll, libc::SYS_pselect6];

#[cfg(target_arch = "x86_64")]
const NON_SOCKET_WAITS: [i64; 9] = [
    libc::SYS_pause,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_restart_syscall,
];
#[cfg(not(target_arch = "x86_64"))]
const NON_SOCKET_WAITS: [i64; 8] = [
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_restart_syscall,
];

/// Parses the kernel function in which the thread is blocked; `0` if it is not visible.
pub(crate) fn by_wchan(name: &str) -> Activity {
    // Strips the suffix of a compiler-generated clone: `poll_schedule_timeout.constprop.0`.
    match name.trim().split('.').next().unwrap_or_default() {
        "ep_poll" | "do_epoll_wait" => Activity::EpollWait(None),
        "inet_csk_accept" | "inet_csk_wait_for_connect" => Activity::Accept(None),
        "do_poll" | "do_sys_poll" | "do_select" | "poll_schedule_timeout" => Activity::Poll,
        "io_cqring_wait" => Activity::Uring,
        "futex_wait_queue"
        | "futex_wait_queue_me"
        | "futex_do_wait"
        | "hrtimer_nanosleep"
        | "do_nanosleep"
        | "do_wait"
        | "sigsuspend"
        | "do_sigtimedwait" => Activity::NonSocketWait,
        "" | "0" => Activity::Asleep,
        name => Activity::Other(name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn syscall_number_gives_activity() {
        assert_eq!(
            by_syscall("232 0x4 0x7ffd 0x40 0xffffffff 0x0 0x0 0x1 0x2"),
            Some(Activity::EpollWait(Some(4)))
        );
        assert_eq!(by_syscall("288 0x3 0x0 0x0 0x800 0x0 0x0 0x1 0x2"), Some(Activity::Accept(Some(3))));
        assert_eq!(by_syscall("202 0x3 0x0 0x0 0x800 0x0 0x0 0x1 0x2"), Some(Activity::NonSocketWait));
        assert_eq!(by_syscall("running"), None);
        assert_eq!(by_syscall(""), None);
    }

    #[test]
    fn wchan_gives_activity() {
        assert_eq!(by_wchan("do_epoll_wait\n"), Activity::EpollWait(None));
        assert_eq!(by_wchan("poll_schedule_timeout.constprop.0"), Activity::Poll);
        assert_eq!(by_wchan("0"), Activity::Asleep);
        assert_eq!(by_wchan("pipe_read"), Activity::Other("pipe_read".into()));
    }

    #[test]
    fn syscall_argument_is_cut_to_int() {
        let line = format!("{} 0xffffffff00000005 0x0", libc::SYS_epoll_pwait);
        assert_eq!(by_syscall(&line), Some(Activity::EpollWait(Some(5))));
    }
}
