//! A server on one member of a group, which can leave the group.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::group::{LeaveOutcome, Member};
use epoll_acceptor::{
    Acceptor, Control, Epoll, EpollAcceptor, Events, Gate, Pending, Refusal, ShutdownReport, Trigger,
};

use super::{Ended, LISTENER, STOP, STOP_SERVING, ServerLoop, ServerStats, Service};
use crate::harness::BOUND;

/// On loopback the kernel ends a handshake at once.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(20);

/// A server on its own thread. It has no duplicate of the listener: the kernel would keep the member in the group.
pub(crate) struct MemberServer {
    control: Control,
    stats: Arc<ServerStats>,
    leave: Waker,
    thread: JoinHandle<io::Result<Left>>,
}

/// How a member has left its group.
pub(crate) enum Left {
    /// The kernel has migrated this number of connections.
    Migrated(u32),
    /// The member was shut down.
    ShutDown(Option<ShutdownReport>),
}

impl MemberServer {
    pub(crate) fn start(member: Member, trigger: Trigger, gate: &Gate) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let leave = Waker::new(&epoll, STOP)?;
        let acceptor =
            trigger.on(member).gate(gate).handshake_grace(HANDSHAKE_GRACE).register(&epoll, LISTENER)?;
        let (control, stats) = (acceptor.control(), Arc::new(ServerStats::default()));
        let server_loop = ServerLoop::new(epoll, Service::Answer, &stats);
        let thread = thread::Builder::new().name("member".into()).spawn(|| serve(server_loop, acceptor))?;
        Ok(Self { control, stats, leave, thread })
    }

    /// Makes the member's thread call `leave_group`.
    pub(crate) fn leave(&self) -> io::Result<()> {
        self.stats.command.store(STOP_SERVING, Ordering::Release);
        self.leave.wake()
    }

    /// Waits until the member has left, and its connections have ended.
    pub(crate) fn join(self) -> Result<(Left, Ended), Box<dyn Error>> {
        let left = self.thread.join().map_err(|_| "a member panicked")??;
        let queued = match &left {
            Left::ShutDown(report) => report.as_ref().and_then(|report| report.abandoned).unwrap_or(u32::MAX),
            Left::Migrated(_) => 0,
        };
        let (counters, peak) = (self.control.counters(), self.stats.peak.load(Ordering::Acquire));
        Ok((left, Ended { counters, peak, queued }))
    }
}

fn serve(mut server_loop: ServerLoop<PermitOf>, mut acceptor: EpollAcceptor<Member>) -> io::Result<Left> {
    let mut events = Events::with_capacity(256)?;
    while server_loop.handle_events(&mut events, Some(&mut acceptor))? {}
    let left = match acceptor.leave_group(Pending::Serve(Refusal::Reset), BOUND) {
        LeaveOutcome::Migrated(count) => Left::Migrated(count),
        LeaveOutcome::ShuttingDown(mut acceptor) => {
            while !acceptor.state().is_terminal() {
                server_loop.handle_events(&mut events, Some(&mut acceptor))?;
            }
            Left::ShutDown(acceptor.shutdown_report())
        }
    };
    while server_loop.stats.in_service.load(Ordering::Acquire) > 0 {
        server_loop.handle_events(&mut events, None::<&mut EpollAcceptor<Member>>)?;
    }
    Ok(left)
}

type PermitOf = <EpollAcceptor<Member> as Acceptor>::Permit;
