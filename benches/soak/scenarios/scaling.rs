//! A `SO_REUSEPORT` group scales from four members to one and back, under load.

use std::collections::VecDeque;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::group::{Group, Steering};
use epoll_acceptor::{Gate, Trigger};

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest, permille};
use crate::request::{Request, Stats};
use crate::server::member::{Left, MemberServer};
use crate::server::{Ended, Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "scaling",
    about: "a SO_REUSEPORT group scales from 4 members to 1 and back",
    share: 2.0,
    least: 2.0,
    run,
};

const MEMBERS: usize = 4;
/// How long the load lasts between two changes.
const BETWEEN: Duration = Duration::from_millis(15);
/// The time after which a client sends a dropped SYN again.
const SYN_TIMEOUT_MS: f64 = 1000.0;

fn run(harness: &mut Harness) -> ScenarioResult {
    let gate = Gate::new(64);
    let (mut left, mut stats, mut cycles) = (Totals::default(), Stats::default(), 0_usize);
    for steering in [Steering::ByHash, Steering::ByCpu] {
        let mut group = Scaling::open(steering, harness.trigger, &gate, left)?;
        let request = Request {
            per_second: Some(3000.0),
            waits: true,
            ..Request::new(group.group.local_addr(), 1500, harness.seconds() / 2.0)
        };
        let clients = harness.send(request)?;
        let begun = Instant::now();
        while begun.elapsed() < harness.time / 2 {
            group.cycle(cycles)?;
            cycles += 1;
        }
        let mut of_clients = clients.stats()?;
        stats.add(&of_clients);
        stats.waits.append(&mut of_clients.waits);
        left = group.close()?;
    }
    let mut waits: Vec<_> = std::mem::take(&mut stats.waits).into_iter().map(|(_, wait)| wait).collect();
    // Reported only: on a busy machine clients wait as long without it.
    let waited = waits.iter().filter(|wait| **wait >= SYN_TIMEOUT_MS).count();
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
    let under_test = UnderTest { ended: left.ended, ..UnderTest::new(server, &gate) };
    let mut outcome = harness.end(under_test, stats.clone())?;
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.check(stats.failed == 0, "every client connects");
    outcome.check(stats.cut == 0, "the server ends no connection");
    outcome.add("cycles", cycles);
    outcome.add("answered", stats.answered);
    outcome.add("failed_requests", stats.connected - stats.answered + stats.failed);
    outcome.add("left_by_shutdown", left.shut_down);
    outcome.add("left_by_migration", left.migrated);
    outcome.add("migrated_connections", left.migrated_connections);
    outcome.add("waited_for_a_second", waited);
    outcome.add("p99_ms", permille(&mut waits, 990));
    outcome.add("max_ms", permille(&mut waits, 1000));
    Ok(End::Done(Box::new(outcome)))
}

/// The members of a group.
struct Scaling {
    trigger: Trigger,
    gate: Gate,
    group: Group,
    members: VecDeque<MemberServer>,
    left: Totals,
}

/// The members that have left, of all groups.
#[derive(Default)]
struct Totals {
    ended: Vec<Ended>,
    shut_down: u64,
    /// Members that have left by a migration of their queue, and the connections that were migrated.
    migrated: u64,
    migrated_connections: u64,
}

impl Scaling {
    fn open(steering: Steering, trigger: Trigger, gate: &Gate, left: Totals) -> Result<Self, Box<dyn Error>> {
        let group = Group::builder(([127, 0, 0, 1], 0).into()).steering(steering).bind(MEMBERS)?;
        let mut scaling = Self { trigger, gate: gate.clone(), group, members: VecDeque::new(), left };
        scaling.start_members()?;
        Ok(scaling)
    }

    fn start_members(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(member) = self.group.take() {
            self.members.push_back(MemberServer::start(member, self.trigger, &self.gate)?);
        }
        Ok(())
    }

    /// Scales to one member, then to four.
    fn cycle(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        thread::sleep(BETWEEN);
        // Each order of leaving changes the kernel's array in another way.
        self.members.rotate_left(number / 2 % MEMBERS);
        let together = [self.leave_one()?, self.leave_one()?];
        // The third leaves after the two, or with them.
        let early = if number % 2 == 0 { None } else { Some(self.leave_one()?) };
        for member in together {
            self.join(member)?;
        }
        let third = early.map_or_else(|| self.leave_one(), Ok)?;
        self.join(third)?;
        thread::sleep(BETWEEN);
        self.group.add(MEMBERS - 1)?;
        self.start_members()
    }

    fn leave_one(&mut self) -> Result<MemberServer, Box<dyn Error>> {
        let member = self.members.pop_front().ok_or("no member is left")?;
        member.leave()?;
        Ok(member)
    }

    fn join(&mut self, member: MemberServer) -> Result<(), Box<dyn Error>> {
        let (left, ended) = member.join()?;
        match left {
            Left::Migrated(count) => {
                self.left.migrated += 1;
                self.left.migrated_connections += u64::from(count);
            }
            Left::ShutDown(_) => self.left.shut_down += 1,
        }
        self.left.ended.push(ended);
        Ok(())
    }

    fn close(mut self) -> Result<Totals, Box<dyn Error>> {
        while !self.members.is_empty() {
            let member = self.leave_one()?;
            self.join(member)?;
        }
        Ok(self.left)
    }
}
