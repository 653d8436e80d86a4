//! The two triggers, how the end of a queue is recognised, and how many to take at a wake-up.

/// How a pass knows that nothing more waits, short of a failing accept.
///
/// An accept on an empty queue costs more than one that succeeds, because the kernel builds the descriptor
/// first. Each proof is sound, because a connection enters the queue before its event is raised: one that comes
/// after the look raises an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// Accept until EAGAIN. Works everywhere, and is the dearest.
    Eagain,
    /// Ask poll(2) after each connection.
    Peek,
    /// Ask once how many wait (`tcpi_unacked` of tcp(7)'s `TCP_INFO`), and take exactly that many. TCP and MPTCP;
    /// where the kernel cannot say, [`Proof::Peek`] serves instead.
    Depth,
}

/// How the listener is registered: [`LevelTriggered`], [`EdgeTriggered`], or [`Trigger`] where that is chosen
/// at run time.
pub trait Strategy: Copy + Send + Sync {
    /// Whether the listener is registered edge-triggered (EPOLLET).
    fn is_edge(self) -> bool;
}

/// Registered level-triggered (`EPOLLIN`): the kernel reports the listener as long as its queue is not empty.
/// The one to choose unless something else asks for edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LevelTriggered;

/// Registered edge-triggered (`EPOLLIN | EPOLLET`): the kernel reports arrivals, and says nothing of what was
/// left behind.
///
/// Each pass begins by telling the kernel to report what is queued (one `EPOLL_CTL_MOD`), before anything is
/// taken. From then on nothing is owed, however the pass ends; what was told needlessly vanishes at the next
/// wait, because the kernel looks at the queue again before it reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeTriggered;

/// Either of the two, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// As [`LevelTriggered`].
    Level,
    /// As [`EdgeTriggered`].
    Edge,
}

impl Strategy for LevelTriggered {
    fn is_edge(self) -> bool {
        false
    }
}

impl Strategy for EdgeTriggered {
    fn is_edge(self) -> bool {
        true
    }
}

impl Strategy for Trigger {
    fn is_edge(self) -> bool {
        self == Self::Edge
    }
}
