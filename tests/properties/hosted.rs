//! The promises in a host that watches the acceptor's epoll edge-triggered, as tokio, mio and async-io do:
//! everything goes through an outer epoll of the simulated kernel. With the turns of `Hosted` they hold; a
//! host that sleeps after its pass strands, and a short script shows it.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use epoll_acceptor::drain::{Backend, Drain};
use epoll_acceptor::hosted::{Progress, Turns};
use epoll_acceptor::sim::kernel::{Fd, Mask};
use epoll_acceptor::sim::run::run_on;
use epoll_acceptor::sim::stage::SimStage;
use epoll_acceptor::sim::{
    Action, Factory, GateMode, Handle, InstrumentedBackend, Leave, Report, Script, Setup, Stage, Subject,
    Tracked, Violation,
};
use epoll_acceptor::{Acceptor, Admission, Counters, ErrnoClass, Gate, Trigger};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::random::case_and_script;
use crate::{cases, say, thorough};

/// When the host forgets that it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeps {
    /// After `Progress::Idle`: the rule.
    WhenQuiet,
    /// When a pass is over: the trap.
    AfterThePass,
}

/// A simulated kernel, and for each acceptor an outer epoll that watches its own edge-triggered.
#[derive(Clone)]
struct Host {
    inner: SimStage,
    outer: Arc<Vec<Fd>>,
    /// Which of them were told so, and have not forgotten it.
    told: Arc<Vec<AtomicBool>>,
}

impl Host {
    fn new(case: &Setup) -> Self {
        let inner = SimStage::new(case);
        let outer = (0..case.acceptors).map(|acceptor| {
            let watched = inner.epoll(acceptor);
            inner.kernel(|kernel| {
                let outer = kernel.epoll().expect("a descriptor");
                kernel.add(outer, watched, Mask::IN | Mask::ET, 0).expect("an epoll can be watched");
                outer
            })
        });
        let outer = Arc::new(outer.collect());
        let told = (0..case.acceptors).map(|_| AtomicBool::new(false)).collect();
        Self { inner, outer, told: Arc::new(told) }
    }
}

impl Stage for Host {
    /// One round of the host: it hears of edges, and runs the task while the task is not known to be asleep.
    fn wait(&mut self, acceptor: usize) -> usize {
        let edges = self.inner.kernel(|kernel| kernel.wait(self.outer[acceptor], 4)).expect("an epoll").len();
        let told = &self.told[acceptor];
        if edges > 0 {
            told.store(true, Ordering::Relaxed);
        }
        usize::from(told.load(Ordering::Relaxed))
    }

    fn connect(&mut self, listener: usize) -> bool {
        self.inner.connect(listener)
    }
    fn insert(&mut self, listener: usize) -> bool {
        self.inner.insert(listener)
    }
    fn tell(&mut self, listener: usize) -> bool {
        self.inner.tell(listener)
    }
    fn quit(&mut self, listener: usize) {
        self.inner.quit(listener);
    }
    fn reset(&mut self, listener: usize) {
        self.inner.reset(listener);
    }
    fn steal(&mut self, listener: usize) -> bool {
        self.inner.steal(listener)
    }
    fn shut(&mut self, listener: usize) {
        self.inner.shut(listener);
    }
    fn queued(&self, listener: usize) -> u32 {
        self.inner.queued(listener)
    }
    fn advance(&mut self, by: Duration) {
        self.inner.advance(by);
    }
}

/// The task: takes turns, and its future is dropped as the case says.
struct Task<P: Backend, A: Admission> {
    turns: Turns<Drain<InstrumentedBackend<P>, Trigger, A>>,
    host: Host,
    acceptor: usize,
    sleeps: Sleeps,
    leave: Leave,
}

impl<P, A> Task<P, A>
where
    P: Backend,
    A: Admission,
{
    fn look(&mut self) -> Progress<Tracked<P::Stream>, A::Permit> {
        let Self { turns, host, acceptor, .. } = self;
        let look = || {
            let inner = host.inner.epoll(*acceptor);
            let events = host.inner.kernel(|kernel| kernel.wait(inner, 3)).expect("an epoll");
            Ok::<_, Infallible>(!events.is_empty())
        };
        turns.turn(look).expect("infallible")
    }

    fn forget(&self) {
        self.host.told[self.acceptor].store(false, Ordering::Relaxed);
    }
}

impl<P, A> Subject for Task<P, A>
where
    P: Backend,
    P::Stream: Send + 'static,
    A: Admission,
    A::Permit: Send + 'static,
{
    fn turn(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        let mut more = match self.leave {
            Leave::Break(most) | Leave::Forget(most) | Leave::Panic(most) => most,
            Leave::AtTheEnd | Leave::Skip => u32::MAX,
        };
        // At 0 the future is dropped in the middle of a pass. What the host was told stays with the host.
        while more > 0 {
            match self.look() {
                Progress::Connection(connection) => {
                    connection.deliver();
                    keep(Box::new(connection));
                    more -= 1;
                }
                Progress::Yield => {
                    if self.sleeps == Sleeps::AfterThePass {
                        self.forget();
                    }
                    return false;
                }
                Progress::Idle | Progress::Stopped => {
                    self.forget();
                    return false;
                }
                Progress::ListenerClosed(_) => return true,
            }
        }
        false
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::new(self.turns.acceptor().control()))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.turns.acceptor().counters())
    }
}

/// Makes the tasks of a host, in the order of their acceptors.
struct Tasks {
    host: Host,
    made: AtomicUsize,
    sleeps: Sleeps,
}

impl Factory for Tasks {
    fn make<P, A>(&self, port: InstrumentedBackend<P>, admission: A, case: &Setup) -> Box<dyn Subject>
    where
        P: Backend + 'static,
        P::Stream: Send,
        A: Admission + Clone + 'static,
        A::Permit: Send,
    {
        Box::new(Task {
            turns: Turns::new(Drain::new(port, case.trigger, admission, case.plan())),
            host: self.host.clone(),
            acceptor: self.made.fetch_add(1, Ordering::Relaxed),
            sleeps: self.sleeps,
            leave: case.leave,
        })
    }
}

fn run_hosted(case: &Setup, script: &Script, sleeps: Sleeps) -> Result<Report, Violation> {
    // The books forgive one try for each ring since a pass began, and take a pass in two parts for two
    // passes: so where something runs out, no future is dropped in the middle of one.
    let scarce = |act: &Action| {
        matches!(act, Action::Exhaust)
            || matches!(act, Action::Fail(errno) if errno.class() == ErrnoClass::Resource)
    };
    let whole = script.acts().iter().any(|(_, act)| scarce(act));
    let case = &Setup { leave: if whole { Leave::AtTheEnd } else { case.leave }, ..case.clone() };
    let host = Host::new(case);
    let tasks = Tasks { host: host.clone(), made: AtomicUsize::new(0), sleeps };
    run_on::<Gate, _>(case, script, &tasks, Box::new(host.clone()), |listener, acceptor, trigger| {
        host.inner.port(listener, acceptor, trigger)
    })
}

#[test]
fn every_promise_holds_in_an_edge_triggered_host_after_one_act_anywhere() {
    let (mut runs, mut delivered) = (0, 0);
    for case in cases::in_pairs() {
        let mut scripts = vec![Script::new()];
        while let Some(script) = scripts.pop() {
            match run_hosted(&case, &script, Sleeps::WhenQuiet) {
                Ok(report) => {
                    runs += 1;
                    delivered += report.delivered;
                    if script.acts().is_empty() {
                        let acts = Action::all(&case);
                        scripts.extend((0..report.points).flat_map(|point| {
                            acts.iter().map(move |act| Script::new().at(point, *act)).collect::<Vec<_>>()
                        }));
                    }
                }
                Err(violation) => panic!("{violation}\nin {case:?}\nafter\n{script}"),
            }
        }
    }
    say(&format!("hosted, one act: {runs} scripts, {delivered} connections delivered"));
}

#[test]
fn every_promise_holds_in_an_edge_triggered_host_after_random_acts() {
    let config = Config {
        cases: if thorough() { 1_000_000 } else { 30_000 },
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    let cases = config.cases;
    let outcome = TestRunner::new(config).run(&case_and_script(), |(case, script)| {
        run_hosted(&case, &script, Sleeps::WhenQuiet)
            .map(drop)
            .map_err(|violation| TestCaseError::fail(violation.to_string()))
    });
    if let Err(TestError::Fail(reason, (case, script))) = outcome {
        panic!("{reason}\nin {case:?}\nafter\n{script}");
    }
    say(&format!("hosted, random: {cases} scripts of up to 24 acts"));
}

#[test]
fn a_host_that_sleeps_after_its_pass_strands() {
    // Three are queued, the budget is one, and nothing happens besides.
    for trigger in [Trigger::Level, Trigger::Exclusive] {
        let case = Setup { trigger, budget: 1, queued: 3, gate: GateMode::Open, ..Setup::plain() };
        let violation = run_hosted(&case, &Script::new(), Sleeps::AfterThePass).expect_err("it strands");
        assert_eq!(violation.promise, "P1", "{violation}");
        run_hosted(&case, &Script::new(), Sleeps::WhenQuiet).expect("the rule cures it");
    }
}
