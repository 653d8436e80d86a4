//! Every system call of a child between two marks, as the kernel sees it (ptrace): none is overlooked, by
//! whichever function of whichever library it was made.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// A system call and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) answer: i64,
}

/// In the child: encloses what is to be traced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Marks {
    /// The system calls that `work` makes are traced.
    pub(crate) fn around(self, work: impl FnOnce()) {
        self.signal(BEGIN);
        work();
        self.signal(END);
    }

    /// Stops this thread, and is seen by the parent alone, which does not let the signal through.
    fn signal(self, signal: c_int) {
        // SAFETY: tgkill(2) takes no pointer.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal) };
    }
}

const BEGIN: c_int = libc::SIGUSR1;
const END: c_int = libc::SIGUSR2;

/// Plays this in a forked child, and tells what it called between its marks; or why this machine does not tell.
pub(crate) fn of_child(play: impl FnOnce(Marks)) -> Result<Vec<Call>, String> {
    // SAFETY: fork(2). The child has this thread alone. What it calls takes no lock but those of libc's
    // allocator, which libc keeps usable across a fork, and it leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("no child: {}", std::io::Error::last_os_error()),
        0 => child(play),
        pid => parent(pid),
    }
}

fn child(play: impl FnOnce(Marks)) -> ! {
    // SAFETY: ptrace(2): PTRACE_TRACEME ignores the other arguments; the rest of the calls take no pointer.
    let marks = unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == -1 {
            libc::_exit(NOT_PERMITTED);
        }
        Marks { process: libc::getpid(), thread: libc::gettid() }
    };
    marks.signal(libc::SIGSTOP);
    let played = catch_unwind(AssertUnwindSafe(|| play(marks)));
    let status = played.map_or_else(
        |panic| {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            let why = why.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            // Past the test harness, which would keep it.
            let _ = writeln!(std::io::stderr(), "the traced child: {why}");
            FAILED
        },
        |()| 0,
    );
    // SAFETY: _exit(2) takes no pointer.
    unsafe { libc::_exit(status) }
}

const NOT_PERMITTED: c_int = 77;
const FAILED: c_int = 101;

fn parent(pid: libc::pid_t) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    let mut tracing = false;
    loop {
        let status = wait(pid);
        if libc::WIFEXITED(status) {
            return match libc::WEXITSTATUS(status) {
                0 => Ok(calls),
                NOT_PERMITTED => Err("ptrace is not permitted here".to_owned()),
                other => panic!("the traced child ended with {other}"),
            };
        }
        assert!(libc::WIFSTOPPED(status), "the traced child ended by signal {}", libc::WTERMSIG(status));
        let mut delivered = 0;
        match libc::WSTOPSIG(status) {
            SYSCALL_STOP => match info(pid) {
                Info::Entry(number) => calls.push(Call { number, answer: 0 }),
                Info::Exit(answer) => calls.last_mut().expect("a call that was entered").answer = answer,
            },
            BEGIN => tracing = true,
            END => {
                tracing = false;
                // The mark itself.
                calls.pop();
            }
            libc::SIGSTOP => options(pid),
            other => delivered = other,
        }
        let go = if tracing { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        // SAFETY: ptrace(2): the data is the signal to be delivered, and the address is ignored.
        done(unsafe { libc::ptrace(go, pid, ptr::null_mut::<c_void>(), libc::c_long::from(delivered)) });
    }
}

const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

fn wait(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: waitpid(2) writes the status, which lives.
    let answer = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(answer, pid, "{}", std::io::Error::last_os_error());
    status
}

fn options(pid: libc::pid_t) {
    let options = libc::c_long::from(libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL);
    // SAFETY: ptrace(2): the data is a mask, and the address is ignored.
    done(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, ptr::null_mut::<c_void>(), options) });
}

enum Info {
    Entry(u64),
    Exit(i64),
}

fn info(pid: libc::pid_t) -> Info {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: ptrace(2), PTRACE_GET_SYSCALL_INFO: the address is the size of the buffer, and the data the buffer,
    // of which no more is written. All zeroes are a value of this struct of numbers; which member of its union
    // counts is told by `op`.
    unsafe {
        done(libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()));
        let info = info.assume_init();
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => Info::Entry(info.u.entry.nr),
            libc::PTRACE_SYSCALL_INFO_EXIT => Info::Exit(info.u.exit.sval),
            other => panic!("a stop at a system call that is none: {other}"),
        }
    }
}

fn done(answer: libc::c_long) {
    assert!(answer != -1, "ptrace: {}", std::io::Error::last_os_error());
}
