//! Operations and outcomes.

use std::fmt;

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};

/// One call. Descriptors are numbered from 0, alike on both systems. A peer is given by the number of peers that
/// connected after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Connect { listener: usize },
    Send { peer: usize },
    Quit { peer: usize },
    Reset { peer: usize },
    Read { peer: usize },
    Drop { peer: usize },
    Accept { fd: u32 },
    AcceptWithFullTable { fd: u32 },
    Wait { epoll: u32, max: usize },
    Add { epoll: u32, fd: u32, mask: Mask },
    Modify { epoll: u32, fd: u32, mask: Mask },
    Delete { epoll: u32, fd: u32 },
    Listen { fd: u32, backlog: i32 },
    Shutdown { fd: u32, how: Shut },
    Dup { fd: u32 },
    Dup2 { fd: u32, onto: u32 },
    Close { fd: u32 },
    Poll { fd: u32 },
    Depth { fd: u32 },
    WriteEventfd { fd: u32 },
    ExpireTimer { fd: u32 },
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Errno(i32),
    /// No call was made: there is no object of that kind.
    Absent,
    Peer(usize),
    Refused,
    Again,
    Dropped,
    Accepted {
        fd: u32,
        peer: usize,
    },
    Events(Vec<(u64, Mask)>),
    Shown(Mask),
    Depth(Option<u32>),
    Bytes(u64),
    Descriptor(u32),
}

/// The setup before a sequence: two listeners (0, 1), two epolls (2, 3), an eventfd (4) and a timerfd (5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) families: [Family; 2],
    pub(crate) backlog: i32,
    /// Whether every second client of an MPTCP listener speaks MPTCP; otherwise none does.
    pub(crate) mptcp_clients: bool,
    /// Whether a handshake completes only when the client sends data or a FIN (`TCP_DEFER_ACCEPT`).
    pub(crate) deferred: bool,
}

impl Setup {
    pub(crate) fn new(families: [Family; 2], backlog: i32) -> Self {
        Self { families, backlog, mptcp_clients: false, deferred: false }
    }
}

pub(crate) const LISTENER: u32 = 0;
pub(crate) const EPOLL: u32 = 2;
pub(crate) const OTHER_EPOLL: u32 = 3;
pub(crate) const EVENTFD: u32 = 4;
pub(crate) const TIMERFD: u32 = 5;

/// The events that `Op::Poll` requests.
pub(crate) const POLL_MASK: Mask = Mask::IN.union(Mask::PRI).union(Mask::OUT).union(Mask::RDHUP);

/// A system under comparison: the model or the kernel.
pub(crate) trait System {
    fn apply(&mut self, step: u64, op: Op) -> Outcome;
}

/// A sequence with the results of both systems, for display up to the first difference.
pub(crate) struct Trace<'a> {
    pub(crate) setup: Setup,
    pub(crate) ops: &'a [Op],
    pub(crate) kernel: &'a [Outcome],
    pub(crate) model: &'a [Outcome],
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.setup.families;
        writeln!(
            f,
            "backlog {}; 0: {first:?}, 1: {second:?}, 2 and 3: epoll, 4: eventfd, 5: timerfd",
            self.setup.backlog
        )?;
        for (step, op) in self.ops.iter().enumerate() {
            match (self.kernel.get(step), self.model.get(step)) {
                (Some(kernel), Some(model)) if kernel == model => {
                    writeln!(f, "{step:3}  {op:?} -> {kernel:?}")?;
                }
                (kernel, model) => {
                    let shown =
                        |side: Option<&Outcome>| side.map_or("not reached".into(), |o| format!("{o:?}"));
                    let (kernel, model) = (shown(kernel), shown(model));
                    writeln!(f, "{step:3}  {op:?} -> kernel {kernel}, model {model}   <-- differs")?;
                    break;
                }
            }
        }
        Ok(())
    }
}
