//! The observations of one listener: the facts for the diagnosis, and details for the report.

use std::rc::Rc;

use super::facts::Facts;
use crate::probe::owners::{self, FdTable};
use crate::probe::{Activity, Connection, Holder, Listener, Registration, Trigger};

#[derive(Debug)]
pub(crate) struct Inspection {
    /// In the last snapshot.
    pub(crate) listener: Listener,
    pub(crate) facts: Facts,
    pub(crate) holders: Vec<Holder>,
    pub(crate) registrations: Vec<Registration>,
    /// The processes that accept here.
    pub(crate) processes: Vec<Process>,
    pub(crate) table: Option<(i32, FdTable)>,
    /// The queued connections, oldest first. `None` for Unix sockets.
    pub(crate) waiting: Option<Rc<[Connection]>>,
    /// Connections in CLOSE_WAIT with inode 0. `None` for Unix sockets.
    pub(crate) close_wait_unowned: Option<usize>,
    /// Queued connections that the client has closed or reset.
    pub(crate) dead: Option<usize>,
    /// The queued connections are those of all listeners on this address.
    pub(crate) shared: bool,
}

/// A process that accepts at the listener.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// What its threads were seen to do, and how many did each.
    pub(crate) activities: Vec<(String, usize)>,
    /// Of its busiest thread, as a fraction of one processor.
    pub(crate) cpu: f64,
    /// Open connections accepted at this address.
    pub(crate) accepted: usize,
    pub(crate) is_stopped: bool,
}

impl Inspection {
    /// Returns the process to look at: a stopped one, or the one with the most connections, or the busiest.
    pub(crate) fn pid(&self) -> Option<i32> {
        let rank = |process: &Process| (process.is_stopped, process.accepted);
        let order = |one: &&Process, other: &&Process| {
            rank(one).cmp(&rank(other)).then(one.cpu.total_cmp(&other.cpu))
        };
        let chosen = self.processes.iter().rev().max_by(order).map(|process| process.pid);
        chosen.or_else(|| self.holders.first().map(|holder| holder.pid))
    }

    pub(crate) fn command(&self) -> Option<String> {
        let pid = self.pid()?;
        let known = self.holders.iter().find(|holder| holder.pid == pid);
        Some(known.map_or_else(|| owners::command(pid), |holder| holder.command.clone()))
    }

    /// Returns the container or systemd unit of that process.
    pub(crate) fn unit(&self) -> Option<&str> {
        let pid = self.pid()?;
        self.holders.iter().find(|holder| holder.pid == pid)?.unit.as_deref()
    }

    /// Returns how the owner waits for arrivals; `None` if that is not visible.
    pub(crate) fn trigger(&self) -> Option<&'static str> {
        let owner = self.facts.owner.as_ref()?;
        let rank = |trigger: &Trigger| match trigger {
            Trigger::Edge => 5,
            Trigger::Exclusive => 4,
            Trigger::Oneshot => 3,
            Trigger::Level => 2,
            Trigger::Fired => 1,
            Trigger::Disarmed => 0,
        };
        let telling = self.registrations.iter().map(|registration| registration.trigger).max_by_key(rank);
        match telling {
            Some(trigger) => Some(trigger.name()),
            None if owner.accepts => Some("accept"),
            // poll and io_uring do not show what they wait for.
            None if owner
                .activities
                .iter()
                .any(|activity| matches!(activity, Activity::Poll | Activity::Uring)) =>
            {
                None
            }
            None if owner.activities.iter().all(|activity| *activity == Activity::Running) => None,
            None => Some("none"),
        }
    }

    /// Returns whether the owner's threads were blocked in at least 80 % of the samples.
    pub(crate) fn owner_asleep(&self) -> Option<bool> {
        let known: Vec<bool> = self.facts.samples.iter().filter_map(|sample| sample.asleep).collect();
        let asleep = known.iter().filter(|asleep| **asleep).count();
        (!known.is_empty()).then(|| asleep * 10 >= known.len() * 8)
    }
}
