//! A filter that its author tests on the simulated kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use epoll_acceptor::filter::{Clock, ConnectionInfo, Rejection, Reservation, TestConnection};
use epoll_acceptor::sim::{
    Action, Explored, GateMode, Policy, PolicyFilter, Real, Script, Setup, Violation, run_with,
};
use epoll_acceptor::{Filter, Gate};

/// Rejects every second connection.
#[derive(Clone, Default)]
struct EverySecond(Arc<AtomicU32>);

impl Filter for EverySecond {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, _: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        match self.0.fetch_add(1, Relaxed) % 2 {
            0 => Ok(()),
            _ => Err(Rejection::close()),
        }
    }
}

/// A fresh filter for each run.
impl PolicyFilter for EverySecond {
    fn of(_: Policy, _: &Arc<dyn Clock>) -> Option<Self> {
        Some(Self::default())
    }
}

/// The decision alone needs no kernel.
#[test]
fn decision_of_a_filter() {
    let (filter, connection) = (EverySecond::default(), TestConnection::default());
    assert!(filter.admit(&connection.info(), &mut ()).is_ok());
    assert!(filter.admit(&connection.info(), &mut ()).is_err());
}

/// With three queued connections and a limit of one, no script of up to two actions strands a client.
#[test]
fn no_client_is_stranded() {
    let setup = Setup { queued: 3, gate: GateMode::Wait(1), policy: Policy::Choosy, ..Setup::plain() };
    let explored = explore(&setup, &Script::new(), 2).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(explored.scripts > 500, "{explored:?}");
}

/// As `sim::explore`, with a filter of one's own.
fn explore(setup: &Setup, script: &Script, more: u32) -> Result<Explored, Violation> {
    const ACTIONS: [Action; 3] = [Action::Connect(0), Action::Free, Action::Quit(0)];
    let report = run_with::<Gate, EverySecond>(setup, script, &Real)?;
    let mut explored = Explored::default();
    explored.add(report);
    if more > 0 {
        for point in script.last_point().unwrap_or(0)..report.points {
            for action in ACTIONS {
                explored.join(explore(setup, &script.clone().at(point, action), more - 1)?);
            }
        }
    }
    Ok(explored)
}
