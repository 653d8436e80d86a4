//! The verdict in plain words: what it means, and what to do.
#![forbid(unsafe_code)]

use super::judge::{Cause, Verdict};

impl Verdict {
    /// In the order in which the help lists them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Stranded,
        Self::Backpressure,
        Self::Exhausted,
        Self::Spinning,
        Self::Overflowing,
        Self::NobodyPolls,
        Self::Stuck,
        Self::Undetermined,
    ];

    /// The exit status of `acceptq doctor`.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Stranded => 10,
            Self::Backpressure => 11,
            Self::Exhausted => 12,
            Self::Spinning => 13,
            Self::Overflowing => 14,
            Self::NobodyPolls => 15,
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
            Self::NobodyPolls => "nobody polls this socket",
            Self::Stuck => "stuck",
            Self::Undetermined => "undetermined",
        }
    }

    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Healthy => "what arrives is taken",
            Self::Stranded => "connections wait, and the server sleeps: it will not be told of them again",
            Self::Backpressure => "the server does not take any on purpose: it has paused",
            Self::Exhausted => "no descriptor is free to accept with",
            Self::Spinning => "the server is woken without end for connections that it does not take",
            Self::Overflowing => "the queue was full; newcomers were dropped or turned away",
            Self::NobodyPolls => "the socket listens, and no thread waits for its connections",
            Self::Stuck => "the threads that should accept are held up in something else",
            Self::Undetermined => "connections wait; why cannot be seen from here",
        }
    }
}

impl Cause {
    /// What was concluded from what.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Drained => "The queue was empty, or became so, while it was watched.",
            Self::Taking => {
                "At every look some were waiting, and others than before: the server keeps up only just, or \
                 takes them in turns."
            }
            Self::Silenced => {
                "The listener is registered with a mask that hears no arrivals. A server does that to \
                 itself when it has reached its limit, or was told to pause."
            }
            Self::Deregistered => {
                "The listener is in no epoll and no thread waits in accept, but its owner has connections \
                 open that came by it. It has stopped listening to arrivals, as a server does at its \
                 limit."
            }
            Self::NotRearmed => {
                "The registration is one-shot, has had its event, and was not armed again, but its owner \
                 has connections open that came by this listener. A server at its limit may do so on \
                 purpose."
            }
            Self::OwnerHidden => {
                "Connections wait and nothing was taken, but the process that has the listener may not be \
                 looked into, or lives in another namespace. It may be stranded, paused, out of descriptors \
                 or busy."
            }
            Self::OwnerElsewhere => {
                "Connections wait and nothing was taken, and none of the processes here has the listener: \
                 all of them could be looked into, so it lives in another PID namespace. It may be \
                 stranded, paused, out of descriptors or busy."
            }
            Self::Contradiction => {
                "Level-triggered, with connections waiting, and yet a thread sleeps in that epoll. The \
                 kernel does not do that: something changed while it was watched, or is watched in a way \
                 that cannot be seen."
            }
            Self::NothingSeen => "The listener was closed while it was watched.",
            Self::Dropping => "The server takes connections, but not fast enough: some found the queue full.",
            Self::Full => {
                "The server takes connections, but the queue was seen full: newcomers are turned away."
            }
            Self::Unwatched => {
                "The listener is in no epoll that can be seen, no thread waits in accept, and no connection \
                 that came by it is open. The kernel goes on completing handshakes for it all the same."
            }
            Self::UnwatchedMember => {
                "Its owner has several listeners on this address (SO_REUSEPORT) and watches another; this \
                 one is in no epoll that can be seen. The kernel sends it a share of the clients all the \
                 same."
            }
            Self::Elsewhere => {
                "The listener is watched, but no thread waits for its events: they sleep in something else, \
                 such as a lock, a file or a slow peer."
            }
            Self::HeldUp => {
                "The listener is in no epoll, so it is accepted from by a blocking call: its thread is held \
                 up in another call, such as a read from a slow peer, and does not come back to accept."
            }
            Self::Busy => "A thread computes without pause and does not come back to wait for events.",
            Self::Stopped => "All threads are stopped, by a signal or by a debugger.",
            Self::NeverSleeps => {
                "Every wait returns at once, because connections wait; they are not taken, and the next \
                 wait returns at once again. That is a level-triggered listener at a limit, or a failing \
                 accept that is retried."
            }
            Self::Restless => {
                "The server is woken for connections that it does not take, rests a little, and so on."
            }
            Self::DescriptorTable => {
                "The process has as many descriptors open as it may have. accept fails with EMFILE before \
                 it looks at the queue."
            }
            Self::FileTable => {
                "The machine has as many files open as it may have. accept fails with ENFILE before it \
                 looks at the queue."
            }
            Self::Edge => {
                "The listener is edge-triggered, and its owner went to sleep before it had emptied the \
                 queue. What is left in there makes no event. A newcomer wakes the server, which then takes \
                 the oldest: too late for that one, and too few. (A runtime that holds its accept back by a \
                 semaphore looks the same: then it is at its limit.)"
            }
            Self::NestedEdge => {
                "The listener's epoll is watched edge-triggered by another, and its owner went to sleep in \
                 that one before it had drained the inner one. What is left makes no event outside."
            }
            Self::Exclusive => {
                "The listener is registered with EPOLLEXCLUSIVE. Whoever was told of these connections has \
                 not taken them, and the kernel tells nobody else until the next one arrives."
            }
            Self::Forgotten => {
                "The registration is one-shot, has had its event and was not armed again, and no connection \
                 that came by this listener is open. Nothing is left that would make the server arm it."
            }
            Self::NotResumed => {
                "The listener is registered with a mask that hears no arrivals, its owner sleeps, and no \
                 connection that came by it is open. A server that paused at its limit has nothing left \
                 whose end would make it resume. (One that waits for a timer, as with a rate limit, or for \
                 an order looks the same.)"
            }
        }
    }

    /// What to do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Drained => "Nothing.",
            Self::Taking => "Watch how the oldest wait develops: acceptq watch.",
            Self::Silenced | Self::Deregistered | Self::NotRearmed => {
                "If it lasts: raise the limit or find out what holds its connections. The queue is the \
                 buffer meanwhile; if clients should fail fast instead, have the server refuse at its \
                 limit."
            }
            Self::OwnerHidden => {
                "Run this as root, or as the user that the server runs as; if the server is in a container, \
                 in its namespaces (nsenter -t PID -n -p)."
            }
            Self::OwnerElsewhere => {
                "Run this on the host, or where the process is: with its PID there, nsenter -t PID -n -p, \
                 and its /proc."
            }
            Self::Contradiction | Self::NothingSeen => "Run this again.",
            Self::Dropping | Self::Full => {
                "Accept faster (accept in a loop, not one for each event; use more threads), or enlarge the \
                 backlog: the argument of listen, cut to net.core.somaxconn."
            }
            Self::Unwatched | Self::UnwatchedMember => {
                "Find out who should accept here: a worker that died, a listener opened twice, a reuse-port \
                 member that was never given to an event loop. If nobody should, close it. If the server \
                 has paused on purpose, this is backpressure."
            }
            Self::Elsewhere | Self::HeldUp | Self::Busy => {
                "Look at what its threads are doing (above; gdb -p PID, or perf top -p PID), and take that \
                 out of the event loop."
            }
            Self::Stopped => "Continue it: kill -CONT PID, or leave the debugger.",
            Self::NeverSleeps | Self::Restless => {
                "Find out why it does not accept: strace -f -c -p PID shows the call. At a limit it should \
                 disarm the listener (epoll_ctl with mask 0) until a place is free; after an error it \
                 should back off."
            }
            Self::DescriptorTable => {
                "Raise the limit (prlimit --nofile, LimitNOFILE= of the unit), or find the leak: ls -l \
                 /proc/PID/fd. The server should set its own connection limit below it."
            }
            Self::FileTable => "Raise fs.file-max, or find out who has so many files open: lsof.",
            Self::Edge | Self::NestedEdge | Self::Exclusive | Self::Forgotten => {
                "Now: restart the server, unless it is only held at its limit; no newcomer will free it for good. \
                 Then mend the accept loop: it must not return to its wait before accept4 says EAGAIN, also when \
                 it refuses a connection, is at its limit or has failed; or register the listener \
                 level-triggered."
            }
            Self::NotResumed => {
                "Now: restart the server, or tell it to resume. Then mend it: whichever way a connection \
                 ends, its place has to be given back and the listener armed again (epoll_ctl with EPOLLIN)."
            }
        }
    }
}
