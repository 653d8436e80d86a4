//! The text of verdicts and causes: meaning, explanation, what else it might be, the next command.
#![forbid(unsafe_code)]

use super::diagnose::{Cause, Confidence, Verdict};

impl Verdict {
    /// All verdicts, in the order of their exit statuses.
    pub(crate) const ALL: [Self; 15] = [
        Self::Healthy,
        Self::Idle,
        Self::Accepting,
        Self::Stranded,
        Self::AtLimit,
        Self::Exhausted,
        Self::Spinning,
        Self::Overflow,
        Self::NotAccepting,
        Self::Busy,
        Self::Slow,
        Self::NotReading,
        Self::Refusing,
        Self::Undetermined,
        Self::Stopped,
    ];

    /// Returns the exit status of `acceptq doctor`. With 0, 4 and 5 no fault was seen.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Idle => 4,
            Self::Accepting => 5,
            Self::Stranded => 10,
            Self::AtLimit => 11,
            Self::Exhausted => 12,
            Self::Spinning => 13,
            Self::Overflow => 14,
            Self::NotAccepting => 15,
            Self::Busy => 16,
            Self::Slow => 17,
            Self::NotReading => 18,
            Self::Refusing => 19,
            Self::Undetermined => 20,
            Self::Stopped => 21,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Idle => "idle",
            Self::Accepting => "accepting",
            Self::Stranded => "stranded",
            Self::AtLimit => "at its limit, or all workers busy",
            Self::Exhausted => "out of descriptors",
            Self::Spinning => "spinning",
            Self::Overflow => "overflow",
            Self::NotAccepting => "not accepting",
            Self::Busy => "busy",
            Self::Slow => "slow",
            Self::NotReading => "accepting, not reading",
            Self::Refusing => "refusing",
            Self::Undetermined => "undetermined",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Healthy => "new connections are accepted, and their data is read",
            Self::Idle => "nothing arrived during the observation",
            Self::Accepting => "connections are accepted; whether they are served is not visible here",
            Self::Stranded => "connections are queued, and no wakeup will deliver them to the server",
            Self::AtLimit => "connections are queued, and the server holds as many as it allows",
            Self::Exhausted => "accept fails because no file descriptor is free",
            Self::Spinning => "the server wakes again and again for connections that it does not accept",
            Self::Overflow => "the accept queue was full, and the kernel dropped or refused connections",
            Self::NotAccepting => "no thread calls accept for this socket",
            Self::Busy => "the thread that should accept computes or is blocked in another call",
            Self::Slow => "connections are accepted more slowly than they arrive",
            Self::NotReading => "connections are accepted, but the data that they sent is not read",
            Self::Refusing => "new connections are accepted and closed, because no descriptor is free",
            Self::Undetermined => "connections are queued, but the cause is not visible",
            Self::Stopped => "the process that should accept is stopped by a signal or a debugger",
        }
    }
}

impl Confidence {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl Cause {
    /// Explains how the cause follows from the observations.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Serving => "A connection that arrived was accepted, its data was read, and it stayed open.",
            Self::Taking => {
                "Connections arrived and left the queue. None stayed open long enough to see that it is served."
            }
            Self::ClosesAtOnce => {
                "Each connection that arrived was accepted and closed by the server, while older ones stay \
                 open."
            }
            Self::TooShortToSee => {
                "Connections arrived in this network namespace, and the server woke for about as many. None was \
                 seen here: if they arrived here, they were closed or reset within 50 ms."
            }
            Self::NothingArrived => "The queue stayed empty, and no new connection was seen.",
            Self::Stopped => "All processes that accept here are in state T (ps: stopped).",
            Self::WorkerStopped => "A worker is in state T (ps: stopped), and data waits on connections.",
            Self::DescriptorTable => {
                "The process has reached RLIMIT_NOFILE: accept fails with EMFILE, and connections stay queued."
            }
            Self::ClosesWithoutDescriptor => {
                "The process is at RLIMIT_NOFILE, and connections leave the queue all the same: such a \
                 server keeps a descriptor to accept a connection and close it."
            }
            Self::FileTable => "The system has reached fs.file-max: accept fails with ENFILE.",
            Self::UnwatchedMember => {
                "Its owner has several listeners on this address (SO_REUSEPORT) and watches another one. The \
                 kernel still assigns this one a share of the connections."
            }
            Self::Unwatched => {
                "The listener is in no visible epoll, no thread is in accept, and no connection accepted \
                 here is open. The kernel still completes handshakes for it."
            }
            Self::NoTaskAccepts => {
                "A runtime watches the listener, and its threads sleep while connections are queued. No task \
                 (goroutine, future, handler) waits in accept: the server is at a limit of its own, or its \
                 accept loop has ended or never began."
            }
            Self::Forgotten => {
                "The EPOLLONESHOT registration has fired and was not rearmed, and no connection accepted \
                 here is open that could rearm it by closing."
            }
            Self::NotResumed => {
                "The mask has no EPOLLIN, the threads sleep, and no connection accepted here is open that \
                 could resume it by closing."
            }
            Self::WaitsReturn => {
                "The server's waits (epoll_wait, poll) or accepts return at once, again and again, and no \
                 connection is accepted: the listener stays armed at the limit, or accept fails and is \
                 retried without back-off."
            }
            Self::Edge => {
                "The listener is edge-triggered (EPOLLET), and a thread went to sleep in epoll_wait before \
                 the queue was empty. What is queued causes no event. Each new connection wakes the server \
                 once; it accepts the oldest one, so the queue does not drain."
            }
            Self::NestedEdge => {
                "An outer epoll watches the listener's epoll edge-triggered, and a thread went to sleep in \
                 it before the queue was empty. What is queued causes no event there."
            }
            Self::Exclusive => {
                "The mask has EPOLLEXCLUSIVE. The waiter that the kernel woke did not accept, and the kernel \
                 wakes no other until the next connection arrives."
            }
            Self::Disarmed => "The mask has no EPOLLIN: the server has paused accepting.",
            Self::NotRearmed => {
                "The EPOLLONESHOT registration has fired and was not rearmed, and connections accepted here \
                 are open: the server has paused accepting."
            }
            Self::WorkersOccupied => {
                "No thread waits for new connections, and connections accepted here are open."
            }
            Self::Computes => "A thread keeps a CPU busy and does not return to accept.",
            Self::Blocked => {
                "The listener is in an epoll, but no thread waits there: its threads are blocked in other \
                 calls (see: threads)."
            }
            Self::Unread => {
                "Data arrived on accepted connections (ss: Recv-Q), and none of it was read during the \
                 observation."
            }
            Self::Dropping => "The server accepts, but the kernel dropped connections at the full queue.",
            Self::QueueFull => {
                "The server accepts, but the queue was full in at least one sample. The kernel then drops or \
                 refuses new connections."
            }
            Self::FullWhileBusy => {
                "The queue was full while a thread used a CPU: the server either accepts too rarely \
                 between other work, or cannot accept faster."
            }
            Self::FallsBehind => {
                "The queue was never empty; the rate shows how long a new connection must wait."
            }
            Self::OwnerHidden => {
                "No connection was accepted, and the process that owns the listener is not visible to this user \
                 or runs in another namespace."
            }
            Self::OwnerElsewhere => {
                "No connection was accepted. Every process here is visible and none has the listener open, so the \
                 owner runs in another PID namespace."
            }
            Self::Contradiction => {
                "The listener is level-triggered and connections are queued, yet a thread sleeps in its \
                 epoll_wait, which should return."
            }
            Self::NothingSeen => "The listener was closed.",
        }
    }

    /// Returns what else can show the same facts; empty if nothing else known does.
    pub(crate) fn otherwise(self) -> &'static str {
        match self {
            Self::Serving => "A server can read a request and still answer it with an error.",
            Self::Taking => {
                "A server at a limit of its own that accepts and closes (redis, memcached, postgres, sshd) \
                 looks the same. Ask it: connect as a client."
            }
            Self::ClosesAtOnce => "Refusing at a limit of its own, or short requests that were answered.",
            Self::TooShortToSee => "Idle, with timers of its own; or refusing at a limit of its own.",
            Self::NothingArrived => {
                "Connections shorter than 50 ms whose client closes first are not seen. A connection that \
                 arrives while a thread computes must wait."
            }
            Self::Stopped | Self::WorkerStopped | Self::FileTable | Self::UnwatchedMember => "",
            Self::DescriptorTable => {
                "If the queue is empty, the process may close a descriptor before the next connection arrives."
            }
            Self::ClosesWithoutDescriptor => "Short requests that free their descriptor in time.",
            Self::Unwatched => {
                "A worker that has ended or not started; a server that polls by a timer; one that is paused."
            }
            Self::NoTaskAccepts => "A lost wakeup in a program that registers its listener with EPOLLOUT.",
            Self::Forgotten | Self::NotResumed => {
                "Paused by an operator, a rate limit or a timer; otherwise it forgot to resume."
            }
            Self::WaitsReturn => "",
            Self::Edge | Self::NestedEdge => "A program that rate-limits its accepts by a timer.",
            Self::Exclusive => "Workers that have just been woken; a rate limit.",
            Self::Disarmed | Self::NotRearmed => {
                "Paused by an operator, or by a limit that was lowered and never raised again."
            }
            Self::WorkersOccupied => {
                "Workers that hang (see: unread, threads); an accept thread that has ended while its \
                 connections stay open."
            }
            Self::Computes => {
                "If its system calls could not be counted (see --verbose: calls): a loop whose wait returns at \
                 once (spinning). strace -c tells them apart."
            }
            Self::Blocked => "All workers busy, each with a slow request.",
            Self::Unread => {
                "A lock that is never released, or an exhausted pool (see --verbose: threads); or a few slow \
                 requests whose clients have sent the next one already."
            }
            Self::Dropping | Self::QueueFull | Self::FullWhileBusy => {
                "A short burst: observe for longer (--for 10)."
            }
            Self::FallsBehind => "A burst that has passed: observe for longer (--for 10).",
            Self::OwnerHidden | Self::OwnerElsewhere => {
                "Every fault is possible: stranded, at its limit, out of descriptors, busy, stopped."
            }
            Self::Contradiction => "Something changed during the observation, or is not visible.",
            Self::NothingSeen => "",
        }
    }

    /// Returns the next command, and why. `PID`, `TID` (the busiest), `STOPPED`, `PORT` and `TARGET` are replaced.
    pub(crate) fn next(self) -> &'static str {
        match self {
            Self::Serving => "nothing to do",
            Self::Taking | Self::ClosesAtOnce | Self::TooShortToSee => {
                "connect as a client, e.g. curl -m 5 localhost:PORT"
            }
            Self::NothingArrived => "connect as a client while acceptq watch TARGET runs",
            Self::Stopped | Self::WorkerStopped => "kill -CONT STOPPED   (or detach the debugger)",
            Self::DescriptorTable | Self::ClosesWithoutDescriptor => {
                "prlimit --pid PID --nofile=65536   (or find the leak: lsof -p PID)"
            }
            Self::FileTable => "sysctl fs.file-max; lsof | awk '{print $2}' | sort | uniq -c | sort -n",
            Self::UnwatchedMember | Self::Unwatched => {
                "ps -fp PID; ss -tlnp: find the worker that should accept here; restart the server"
            }
            Self::NoTaskAccepts => {
                "take a goroutine dump (net/http/pprof: /debug/pprof/goroutine?debug=2; kill -QUIT ends a Go \
                 process) or a task dump, and look for accept; raise the limit of connections"
            }
            Self::Forgotten | Self::NotResumed => {
                "resume or restart the server; each closed connection must rearm the listener (EPOLLIN)"
            }
            Self::WaitsReturn => {
                "strace -f -p PID   (at the limit disarm the listener; after an error of accept4 back off)"
            }
            Self::Edge | Self::NestedEdge | Self::Exclusive => {
                "restart the server. Then fix its accept loop: call accept4 until EAGAIN before waiting \
                 again, also after a refusal, at the limit and after an error; or use level-triggered events"
            }
            Self::Disarmed | Self::NotRearmed => {
                "ss -tnp sport = :PORT   (what keeps its connections open?); raise its limit of connections"
            }
            Self::WorkersOccupied => {
                "strace -f -p PID   (what do its workers wait for?); raise the number of workers"
            }
            Self::Computes => "strace -c -f -p PID (Ctrl-C after 5 s); perf top -t TID; gdb -p PID",
            Self::Blocked => "strace -f -p PID; gdb -p PID -batch -ex 'thread apply all bt'",
            Self::Unread => "gdb -p PID -batch -ex 'thread apply all bt'   (ss -tnp: Recv-Q of each)",
            Self::Dropping | Self::QueueFull => {
                "raise the backlog (argument of listen, net.core.somaxconn), or accept faster"
            }
            Self::FullWhileBusy => {
                "perf top -t TID: what does this thread compute between its accepts? Move it to other \
                 threads; or raise the backlog"
            }
            Self::FallsBehind => "acceptq watch TARGET; strace -c -f -p PID; add workers",
            Self::OwnerHidden => "sudo acceptq doctor TARGET",
            Self::OwnerElsewhere => "run this on the host, or in a container with --pid=host",
            Self::Contradiction | Self::NothingSeen => "acceptq doctor TARGET --for 5",
        }
    }
}
