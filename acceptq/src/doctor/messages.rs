//! The text of verdicts and causes: meaning, explanation, advice.
#![forbid(unsafe_code)]

use super::diagnose::{Cause, Verdict};

impl Verdict {
    /// All verdicts, in the order of the help.
    pub(crate) const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Stranded,
        Self::Backpressure,
        Self::Exhausted,
        Self::Spinning,
        Self::Overflowing,
        Self::NotPolled,
        Self::Stuck,
        Self::Undetermined,
    ];

    /// Returns the exit status of `acceptq doctor`.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Stranded => 10,
            Self::Backpressure => 11,
            Self::Exhausted => 12,
            Self::Spinning => 13,
            Self::Overflowing => 14,
            Self::NotPolled => 15,
            Self::Stuck => 16,
            Self::Undetermined => 20,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stranded => "stranded",
            Self::Backpressure => "backpressure",
            Self::Exhausted => "exhausted",
            Self::Spinning => "spinning",
            Self::Overflowing => "overflowing",
            Self::NotPolled => "not polled",
            Self::Stuck => "stuck",
            Self::Undetermined => "undetermined",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Healthy => "connections are accepted as they arrive",
            Self::Stranded => "connections wait, and no wakeup will deliver them to the server",
            Self::Backpressure => "the server has paused accepting",
            Self::Exhausted => "accept fails because no file descriptor is free",
            Self::Spinning => "the server wakes continuously for connections that it does not accept",
            Self::Overflowing => "the accept queue was full, and the kernel dropped or refused connections",
            Self::NotPolled => "no thread waits for connections on this socket",
            Self::Stuck => "the threads that should accept are blocked, busy or stopped",
            Self::Undetermined => "connections wait, but the cause is not visible",
        }
    }
}

impl Cause {
    /// Explains how the cause follows from the observations.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Drained => "The queue was empty at least once during the observation.",
            Self::Taking => {
                "The queue was never empty, but its connections changed: the server accepts about as fast \
                 as connections arrive."
            }
            Self::Disarmed => {
                "The listener is registered with a mask without EPOLLIN. A server sets such a mask when it \
                 has reached its limit or is paused."
            }
            Self::Deregistered => {
                "The listener is in no epoll, no thread waits in accept, and its owner has connections \
                 open that it accepted there. A server may deregister its listener at its limit."
            }
            Self::NotRearmed => {
                "The EPOLLONESHOT registration has fired and was not rearmed, and the owner has \
                 connections open that it accepted there. A server may leave it disabled at its limit."
            }
            Self::OwnerHidden => {
                "Connections wait and none was accepted, but the process that owns the listener is not \
                 visible to this user or runs in another namespace. It may be stranded, paused, out of \
                 descriptors or busy."
            }
            Self::OwnerElsewhere => {
                "Connections wait and none was accepted. Every process here is visible and none has the \
                 listener open, so the owner runs in another PID namespace. It may be stranded, paused, \
                 out of descriptors or busy."
            }
            Self::Contradiction => {
                "The listener is level-triggered and connections wait, yet a thread sleeps in its \
                 epoll_wait, which should return. Something changed during the observation or is not \
                 visible."
            }
            Self::NothingSeen => "The listener was closed during the observation.",
            Self::Dropping => {
                "The server accepts, but more slowly than connections arrive: the kernel dropped some at \
                 the full queue."
            }
            Self::Full => {
                "The server accepts, but the queue was full in at least one sample, when the kernel drops \
                 or refuses new connections."
            }
            Self::Unwatched => {
                "The listener is in no visible epoll, no thread waits in accept, and its owner has no \
                 connection open that it accepted there. The kernel still completes handshakes for it."
            }
            Self::UnwatchedMember => {
                "Its owner has several listeners on this address (SO_REUSEPORT) and watches another one; \
                 this one is in no visible epoll. The kernel still assigns it a share of the connections."
            }
            Self::Elsewhere => {
                "The listener is registered, but no thread waits for its events: all of them are blocked \
                 in other calls, such as a lock, a file or a slow peer."
            }
            Self::HeldUp => {
                "The listener is in no epoll, so its owner uses blocking accepts. Its thread is blocked in \
                 another call, such as a read from a slow peer, and does not return to accept."
            }
            Self::Busy => "A thread computes without a break and does not return to the event loop.",
            Self::Stopped => "All threads are stopped by a signal or a debugger.",
            Self::NeverSleeps => {
                "Each epoll_wait returns immediately because connections wait, and none is accepted. \
                 Either a level-triggered listener stays armed at the connection limit, or accept fails \
                 and is retried without back-off."
            }
            Self::Restless => {
                "The server wakes for connections that it does not accept, sleeps briefly, and wakes again."
            }
            Self::DescriptorTable => {
                "The process has reached its descriptor limit (RLIMIT_NOFILE): accept fails with EMFILE."
            }
            Self::FileTable => "The system has reached fs.file-max: accept fails with ENFILE.",
            Self::Edge => {
                "The listener is edge-triggered, and its owner went to sleep before the queue was empty. \
                 The remaining connections cause no event. Each new connection wakes the server once; it \
                 accepts the oldest one queued, so the queue does not drain. (A runtime that holds back \
                 accept with a semaphore looks the same while it is at its limit.)"
            }
            Self::NestedEdge => {
                "An outer epoll instance watches the listener's epoll instance edge-triggered, and the \
                 owner went to sleep in the outer one before the inner one was drained. The remaining \
                 connections cause no event in the outer one."
            }
            Self::Exclusive => {
                "The listener is registered with EPOLLEXCLUSIVE. The waiter that the kernel woke for these \
                 connections did not accept them, and the kernel wakes no other until the next connection \
                 arrives."
            }
            Self::Forgotten => {
                "The EPOLLONESHOT registration has fired and was not rearmed, and no connection is open \
                 that was accepted there. Nothing remains that would make the server rearm it."
            }
            Self::NotResumed => {
                "The listener is registered with a mask without EPOLLIN, its owner sleeps, and no \
                 connection is open that was accepted there. A server that paused at its limit has no \
                 connection left that could resume it by closing. (A server that waits for a timer, such \
                 as a rate limit, or for an operator looks the same.)"
            }
        }
    }

    /// Recommends what to do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Drained => "Nothing to do.",
            Self::Taking => "Observe whether the oldest wait grows: acceptq watch.",
            Self::Disarmed | Self::Deregistered | Self::NotRearmed => {
                "If it persists, raise the limit or find out what keeps its connections open. Meanwhile \
                 new connections wait in the queue. To make clients fail fast instead, configure the \
                 server to refuse at its limit."
            }
            Self::OwnerHidden => {
                "Run this as root or as the server's user; if the server runs in a container, in its \
                 namespaces (nsenter -t PID -n -p)."
            }
            Self::OwnerElsewhere => {
                "Run this on the host, or in the namespaces of the server and with its /proc (nsenter -t \
                 PID -n -p, with its PID on the host)."
            }
            Self::Contradiction | Self::NothingSeen => "Run this again.",
            Self::Dropping | Self::Full => {
                "Accept faster (call accept in a loop instead of once per event; use more threads), or \
                 raise the backlog: the argument of listen, which net.core.somaxconn caps."
            }
            Self::Unwatched | Self::UnwatchedMember => {
                "Find out which worker should accept here: it may have exited, or opened the listener \
                 twice, or never added a SO_REUSEPORT listener to an event loop. If none should, close the \
                 listener. If the server has paused on purpose, this is backpressure."
            }
            Self::Elsewhere | Self::HeldUp | Self::Busy => {
                "Find out what its threads are doing (see above; gdb -p PID or perf top -p PID), and move \
                 that out of the event loop."
            }
            Self::Stopped => "Continue it: kill -CONT PID, or detach the debugger.",
            Self::NeverSleeps | Self::Restless => {
                "Find out why it does not accept: strace -f -c -p PID shows the system calls. At its limit \
                 it should disarm the listener (epoll_ctl with a mask without EPOLLIN) until a connection \
                 closes; after an error it should back off."
            }
            Self::DescriptorTable => {
                "Raise the limit (prlimit --nofile, LimitNOFILE= in the unit), or find the leak: ls -l \
                 /proc/PID/fd. The server should set its own connection limit below it."
            }
            Self::FileTable => "Raise fs.file-max, or find the process with so many open files: lsof.",
            Self::Edge | Self::NestedEdge | Self::Exclusive | Self::Forgotten => {
                "Restart the server, unless it is only at its limit; new connections will not unstick it. \
                 Then fix the accept loop: call accept4 until EAGAIN before waiting again, also after \
                 refusing a connection, at the limit and after an error; or register the listener \
                 level-triggered."
            }
            Self::NotResumed => {
                "Restart the server or resume it. Then fix it: each closed connection must release its \
                 permit and rearm the listener (epoll_ctl with EPOLLIN), however it ends."
            }
        }
    }
}
