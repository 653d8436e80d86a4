//! Traces every system call of a child process between two marks with ptrace(2), whichever library makes it.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// A system call and its return value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) result: i64,
}

/// Marks the traced part of the child's work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl Marks {
    /// Runs `work` with its system calls traced.
    pub(crate) fn around(self, work: impl FnOnce()) {
        self.signal(BEGIN);
        work();
        self.signal(END);
    }

    /// Stops this thread with a signal that the parent observes and does not deliver.
    fn signal(self, signal: c_int) {
        // SAFETY: tgkill(2) takes no pointer.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal) };
    }
}

const BEGIN: c_int = libc::SIGUSR1;
const END: c_int = libc::SIGUSR2;

/// Runs `work` in a forked child and returns its system calls between the marks.
///
/// # Errors
///
/// The reason, if this machine does not permit tracing.
pub(crate) fn child_calls(work: impl FnOnce(Marks)) -> Result<Vec<Call>, String> {
    // SAFETY: fork(2): the child has only this thread. It takes no locks except those of libc's allocator, which libc
    // keeps usable across fork, and it ends with _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("no child: {}", std::io::Error::last_os_error()),
        0 => child(work),
        pid => parent(pid),
    }
}

fn child(work: impl FnOnce(Marks)) -> ! {
    // SAFETY: ptrace(2): PTRACE_TRACEME ignores the other arguments; the rest of the calls take no pointer.
    let marks = unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == -1 {
            libc::_exit(NOT_PERMITTED);
        }
        Marks { process: libc::getpid(), thread: libc::gettid() }
    };
    marks.signal(libc::SIGSTOP);
    let worked = catch_unwind(AssertUnwindSafe(|| work(marks)));
    let status = worked.map_or_else(
        |panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            // Past the capture of the test harness.
            let _ = writeln!(std::io::stderr(), "the traced child: {message}");
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
                Info::Entry(number) => calls.push(Call { number, result: 0 }),
                Info::Exit(result) => calls.last_mut().expect("an exit follows an entry").result = result,
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
        let request = if tracing { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        // SAFETY: ptrace(2): the data is the signal to deliver, and the address is ignored.
        done(unsafe { libc::ptrace(request, pid, ptr::null_mut::<c_void>(), libc::c_long::from(delivered)) });
    }
}

const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

fn wait(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: waitpid(2) writes `status`, which is valid for the call.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(result, pid, "{}", std::io::Error::last_os_error());
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
    // beyond which the kernel does not write. Zeroes are valid for this struct of numbers; `op` selects the member of
    // its union.
    unsafe {
        done(libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()));
        let info = info.assume_init();
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => Info::Entry(info.u.entry.nr),
            libc::PTRACE_SYSCALL_INFO_EXIT => Info::Exit(info.u.exit.sval),
            other => panic!("unexpected ptrace_syscall_info.op: {other}"),
        }
    }
}

fn done(result: libc::c_long) {
    assert!(result != -1, "ptrace: {}", std::io::Error::last_os_error());
}
