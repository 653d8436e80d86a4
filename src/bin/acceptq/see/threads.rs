//! What every thread of a process is doing: `/proc/PID/task/*/{stat,status,syscall,wchan}`.

use std::fs;

use procfs::process::Process;
use serde::Serialize;

/// What a thread was seen at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    /// On a processor, or waiting for one.
    Running,
    /// Asleep in `epoll_wait`; in which one is not always to be seen.
    EpollWait(Option<i32>),
    /// Asleep in `accept`; on which socket is not always to be seen.
    Accept(Option<i32>),
    /// Asleep in `poll` or `select`: on what is not to be seen.
    Poll,
    /// Asleep in `io_uring_enter`: on what is not to be seen.
    Uring,
    /// Asleep on a lock, in a timer, for a signal: nothing that arrives at a socket ends that.
    Aside,
    /// Asleep in some other call: its name where the kernel tells it.
    Other(String),
    /// Asleep, in what is not to be seen.
    Asleep,
    /// Stopped by a signal or a debugger.
    Stopped,
}

/// A thread at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    pub(crate) doing: Doing,
    /// In clock ticks.
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// How often it has gone to sleep so far.
    pub(crate) sleeps: u64,
}

impl Doing {
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
            Self::Aside => "a lock, a timer or a signal".into(),
            Self::Other(name) => name.clone(),
            Self::Asleep => "asleep".into(),
            Self::Stopped => "stopped".into(),
        }
    }
}

impl Thread {
    /// All threads of a process, those that ended meanwhile left out.
    pub(crate) fn of(pid: i32) -> Vec<Self> {
        let Ok(tasks) = Process::new(pid).and_then(|process| process.tasks()) else { return Vec::new() };
        tasks.flatten().filter_map(|task| Self::look(pid, task.tid)).collect()
    }

    fn look(pid: i32, tid: i32) -> Option<Self> {
        let folder = format!("/proc/{pid}/task/{tid}");
        let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
        // The name may hold blanks and parentheses; the fields begin after its last one.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let doing = match *fields.first()? {
            "R" => Doing::Running,
            "T" | "t" => Doing::Stopped,
            "Z" | "X" => return None,
            _ => where_asleep(&folder),
        };
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some(Self {
            pid,
            tid,
            doing,
            user: fields.get(11)?.parse().ok()?,
            system: fields.get(12)?.parse().ok()?,
            sleeps: sleeps?.trim().parse().ok()?,
        })
    }
}

fn where_asleep(folder: &str) -> Doing {
    let read = |file: &str| fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
    match by_syscall(&read("syscall")) {
        Some(doing) => doing,
        // Where the system call may not be seen (another user, or Yama), the kernel function often may.
        None => by_wchan(&read("wchan")),
    }
}

/// `232 0x4 0x7ffd... `: the number of the call and its arguments, or `running`, or `-1 ...`.
fn by_syscall(text: &str) -> Option<Doing> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let first = words.next().and_then(|word| word.strip_prefix("0x")).unwrap_or_default();
    // A descriptor is an `int`: what a register holds above that is no part of it.
    let fd = u64::from_str_radix(first, 16).ok().and_then(|word| i32::try_from(word & 0xffff_ffff).ok());
    Some(match number {
        n if EPOLL_WAITS.contains(&n) => Doing::EpollWait(fd),
        libc::SYS_accept | libc::SYS_accept4 => Doing::Accept(fd),
        n if POLLS.contains(&n) => Doing::Poll,
        libc::SYS_io_uring_enter => Doing::Uring,
        n if ASIDE.contains(&n) => Doing::Aside,
        libc::SYS_read | libc::SYS_readv | libc::SYS_recvfrom | libc::SYS_recvmsg => {
            Doing::Other("read".into())
        }
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg => {
            Doing::Other("write".into())
        }
        libc::SYS_connect => Doing::Other("connect".into()),
        libc::SYS_fsync | libc::SYS_fdatasync => Doing::Other("fsync".into()),
        libc::SYS_flock | libc::SYS_fcntl => Doing::Other("a file lock".into()),
        // Not in a call: a page fault, for example.
        -1 => Doing::Other("a page fault".into()),
        number => Doing::Other(format!("system call {number}")),
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
const ASIDE: [i64; 9] = [
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
const ASIDE: [i64; 8] = [
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_restart_syscall,
];

/// The kernel function that the thread sleeps in; `0` where that may not be seen.
fn by_wchan(name: &str) -> Doing {
    // A compiler may have made a variant of it: `poll_schedule_timeout.constprop.0`.
    match name.trim().split('.').next().unwrap_or_default() {
        "ep_poll" | "do_epoll_wait" => Doing::EpollWait(None),
        "inet_csk_accept" | "inet_csk_wait_for_connect" => Doing::Accept(None),
        "do_poll" | "do_sys_poll" | "do_select" | "poll_schedule_timeout" => Doing::Poll,
        "io_cqring_wait" => Doing::Uring,
        "futex_wait_queue"
        | "futex_wait_queue_me"
        | "futex_do_wait"
        | "hrtimer_nanosleep"
        | "do_nanosleep"
        | "do_wait"
        | "sigsuspend"
        | "do_sigtimedwait" => Doing::Aside,
        "" | "0" => Doing::Asleep,
        name => Doing::Other(name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn calls_are_told_by_their_numbers() {
        assert_eq!(
            by_syscall("232 0x4 0x7ffd 0x40 0xffffffff 0x0 0x0 0x1 0x2"),
            Some(Doing::EpollWait(Some(4)))
        );
        assert_eq!(by_syscall("288 0x3 0x0 0x0 0x800 0x0 0x0 0x1 0x2"), Some(Doing::Accept(Some(3))));
        assert_eq!(by_syscall("202 0x3 0x0 0x0 0x800 0x0 0x0 0x1 0x2"), Some(Doing::Aside));
        assert_eq!(by_syscall("running"), None);
        assert_eq!(by_syscall(""), None);
    }

    #[test]
    fn without_the_call_the_kernel_function_tells() {
        assert_eq!(by_wchan("do_epoll_wait\n"), Doing::EpollWait(None));
        assert_eq!(by_wchan("poll_schedule_timeout.constprop.0"), Doing::Poll);
        assert_eq!(by_wchan("0"), Doing::Asleep);
        assert_eq!(by_wchan("pipe_read"), Doing::Other("pipe_read".into()));
    }

    #[test]
    fn what_a_register_holds_above_an_int_is_cut_off() {
        let line = format!("{} 0xffffffff00000005 0x0", libc::SYS_epoll_pwait);
        assert_eq!(by_syscall(&line), Some(Doing::EpollWait(Some(5))));
    }
}
