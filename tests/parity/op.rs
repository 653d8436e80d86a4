//! The words of a sequence: what is done, and what comes back.

use std::fmt;

use epoll_acceptor::sim::kernel::{Family, Mask, Shut};

/// One call. Descriptors are numbers from 0, the same on both sides; a peer is named by how many connected
/// after it.
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
    Ring { fd: u32 },
    Alarm { fd: u32 },
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Errno(i32),
    /// Nothing of that kind is there; no call was made.
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

/// What both sides open before a sequence: two listeners (0, 1), two epolls (2, 3), a ring (4), an alarm (5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) families: [Family; 2],
    pub(crate) backlog: i32,
    /// Whether every second client of an MPTCP listener speaks MPTCP; else none does.
    pub(crate) mptcp_clients: bool,
    /// Whether a handshake ends only when the client sends something (`TCP_DEFER_ACCEPT`).
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
pub(crate) const RING: u32 = 4;
pub(crate) const ALARM: u32 = 5;

/// What `Poll` asks for.
pub(crate) const ASKED: Mask = Mask::IN.union(Mask::PRI).union(Mask::OUT).union(Mask::RDHUP);

/// A side of the comparison.
pub(crate) trait World {
    fn apply(&mut self, step: u64, op: Op) -> Outcome;
}

/// A sequence with the results of both sides, as a person reads it.
pub(crate) struct Story<'a> {
    pub(crate) setup: Setup,
    pub(crate) ops: &'a [Op],
    pub(crate) kernel: &'a [Outcome],
    pub(crate) model: &'a [Outcome],
}

impl fmt::Display for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.setup.families;
        writeln!(
            f,
            "backlog {}; 0: {first:?}, 1: {second:?}, 2 and 3: epoll, 4: ring, 5: alarm",
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
