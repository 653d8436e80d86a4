//! The promises in an event loop that watches the acceptor's epoll edge-triggered, as tokio and mio do:
//! everything goes through an outer epoll of the simulated kernel. With `Hosted::poll_accept` they hold; a loop that
//! sleeps after its pass strands connections, and a short script shows it.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use epoll_acceptor::sim::kernel::{Fd, Mask};
use epoll_acceptor::sim::run_on;
use epoll_acceptor::sim::{
    AcceptCore, Action, Backend, BuiltIn, Factory, GateMode, Handle, InstrumentedBackend, Leave, Poller,
    Report, Script, Semaphore, Setup, SimStage, Stage, Subject, Tracked, Violation,
};
use epoll_acceptor::{Acceptor, Counters, Filter, Gate, Progress, Trigger};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::properties::random::case_and_script;
use crate::properties::setups;
use crate::{say, thorough};

/// When the event loop forgets the readiness that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeps {
    /// After `Progress::Idle`: the rule.
    WhenIdle,
    /// When a pass is over: the trap.
    AfterPass,
}

/// A simulated kernel, and for each acceptor an outer epoll that watches its own edge-triggered.
#[derive(Clone)]
struct Host {
    inner: SimStage,
    outer: Arc<Vec<Fd>>,
    /// For which of them readiness was seen and not forgotten.
    ready: Arc<Vec<AtomicBool>>,
}

impl Host {
    fn new(setup: &Setup) -> Self {
        let inner = SimStage::new(setup);
        let outer = (0..setup.acceptors).map(|acceptor| {
            let watched = inner.epoll(acceptor);
            inner.kernel(|kernel| {
                let outer = kernel.epoll().expect("a descriptor");
                kernel.add(outer, watched, Mask::IN | Mask::ET, 0).expect("an epoll can be watched");
                outer
            })
        });
        let outer = Arc::new(outer.collect());
        let ready = (0..setup.acceptors).map(|_| AtomicBool::new(false)).collect();
        Self { inner, outer, ready: Arc::new(ready) }
    }
}

impl Stage for Host {
    /// One round of the event loop: it collects edges, and runs the task while readiness is set.
    fn wait(&mut self, acceptor: usize) -> usize {
        let edges = self.inner.kernel(|kernel| kernel.wait(self.outer[acceptor], 4)).expect("an epoll").len();
        let ready = &self.ready[acceptor];
        if edges > 0 {
            ready.store(true, Ordering::Relaxed);
        }
        usize::from(ready.load(Ordering::Relaxed))
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

/// The task: polls the acceptor, and its future is dropped as the setup says.
struct Task<B: Backend, G: Semaphore, F: Filter> {
    poller: Poller<AcceptCore<InstrumentedBackend<B>, G, F>>,
    host: Host,
    acceptor: usize,
    sleeps: Sleeps,
    leave: Leave,
}

type PermitsOf<G, F> = (<F as Filter>::Permit, <G as Semaphore>::Permit);

impl<B: Backend, G: Semaphore, F: Filter> Task<B, G, F> {
    fn poll(&mut self) -> Progress<Tracked<B::Stream>, PermitsOf<G, F>> {
        let Self { poller, host, acceptor, .. } = self;
        let poll = || {
            let inner = host.inner.epoll(*acceptor);
            let events = host.inner.kernel(|kernel| kernel.wait(inner, 3)).expect("an epoll");
            Ok::<_, Infallible>(!events.is_empty())
        };
        poller.poll_accept(poll).expect("infallible")
    }

    fn forget(&self) {
        self.host.ready[self.acceptor].store(false, Ordering::Relaxed);
    }
}

impl<B, G, F> Subject for Task<B, G, F>
where
    B: Backend<Stream: Send + 'static>,
    G: Semaphore<Permit: Send + 'static>,
    F: Filter<Permit: Send + 'static>,
{
    fn pass(&mut self, keep: &mut dyn FnMut(Box<dyn Any + Send>)) -> bool {
        let mut more = match self.leave {
            Leave::Break(max) | Leave::Forget(max) | Leave::Panic(max) => max,
            Leave::AtTheEnd | Leave::Skip => u32::MAX,
        };
        // At 0 the future is dropped in the middle of a pass. The readiness stays with the event loop.
        while more > 0 {
            match self.poll() {
                Progress::Connection(connection) => {
                    connection.deliver();
                    keep(Box::new(connection));
                    more -= 1;
                }
                Progress::Yield => {
                    if self.sleeps == Sleeps::AfterPass {
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

    fn is_in_pass(&self) -> bool {
        self.poller.is_in_pass()
    }

    fn control(&self) -> Option<Arc<dyn Handle>> {
        Some(Arc::new(self.poller.acceptor().control()))
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.poller.acceptor().counters())
    }
}

/// Makes the tasks of a host, in the order of their acceptors.
struct Tasks {
    host: Host,
    made: AtomicUsize,
    sleeps: Sleeps,
}

impl Factory for Tasks {
    fn make<B, G, F>(
        &self,
        backend: InstrumentedBackend<B>,
        gate: G,
        filter: F,
        setup: &Setup,
    ) -> Box<dyn Subject>
    where
        B: Backend<Stream: Send> + 'static,
        G: Semaphore<Permit: Send> + Clone + 'static,
        F: Filter<Permit: Send> + Clone + 'static,
    {
        Box::new(Task {
            poller: Poller::new(AcceptCore::new(backend, gate, filter, setup.config())),
            host: self.host.clone(),
            acceptor: self.made.fetch_add(1, Ordering::Relaxed),
            sleeps: self.sleeps,
            leave: setup.leave,
        })
    }
}

fn run_hosted(setup: &Setup, script: &Script, sleeps: Sleeps) -> Result<Report, Violation> {
    let host = Host::new(setup);
    let tasks = Tasks { host: host.clone(), made: AtomicUsize::new(0), sleeps };
    run_on::<Gate, BuiltIn, _>(
        setup,
        script,
        &tasks,
        Box::new(host.clone()),
        |listener, acceptor, trigger| host.inner.backend(listener, acceptor, trigger),
    )
}

#[test]
fn edge_triggered_host_keeps_promises_after_one_act() {
    let (mut runs, mut delivered) = (0, 0);
    for setup in setups::in_pairs() {
        let mut scripts = vec![Script::new()];
        while let Some(script) = scripts.pop() {
            match run_hosted(&setup, &script, Sleeps::WhenIdle) {
                Ok(report) => {
                    runs += 1;
                    delivered += report.delivered;
                    if script.acts().is_empty() {
                        let acts = Action::all(&setup);
                        scripts.extend((0..report.points).flat_map(|point| {
                            acts.iter().map(move |act| Script::new().at(point, *act)).collect::<Vec<_>>()
                        }));
                    }
                }
                Err(violation) => panic!("{violation}\nin {setup:?}\nafter\n{script}"),
            }
        }
    }
    say(&format!("hosted, one act: {runs} scripts, {delivered} connections delivered"));
}

#[test]
fn edge_triggered_host_keeps_promises_at_random() {
    let config = Config {
        cases: if thorough() { 1_000_000 } else { 30_000 },
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    let setups = config.cases;
    let outcome = TestRunner::new(config).run(&case_and_script(), |(setup, script)| {
        run_hosted(&setup, &script, Sleeps::WhenIdle)
            .map(drop)
            .map_err(|violation| TestCaseError::fail(violation.to_string()))
    });
    if let Err(TestError::Fail(reason, (setup, script))) = outcome {
        panic!("{reason}\nin {setup:?}\nafter\n{script}");
    }
    say(&format!("hosted, random: {setups} scripts of up to 24 acts"));
}

#[test]
fn host_that_sleeps_after_its_pass_strands() {
    // Three are queued, the budget is one, and nothing happens besides.
    for trigger in [Trigger::Level, Trigger::Exclusive] {
        let setup = Setup { trigger, budget: 1, queued: 3, gate: GateMode::Open, ..Setup::plain() };
        let violation = run_hosted(&setup, &Script::new(), Sleeps::AfterPass).expect_err("it strands");
        assert_eq!(violation.promise, "P1", "{violation}");
        run_hosted(&setup, &Script::new(), Sleeps::WhenIdle).expect("the rule cures it");
    }
}
