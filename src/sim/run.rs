//! One run: a setup, a script, and the promises checked along the way and at the end.
//!
//! First the owners wait and answer events while the script plays. Then every shortage ends, what was paused is
//! resumed, and no client connects any more. From there every connection that is still queued must be served without
//! help: the owners answer their events, connections in service are closed one by one when all owners sleep, and alarms
//! expire. What is queued at the end is stranded.

use std::sync::Arc;

use super::acceptor_under_test::Factory;
use super::backend::SimStage;
use super::checker::{GateModel, Violation};
use super::instrumented::{InstrumentedBackend, InstrumentedGate};
use super::instrumented_filter::InstrumentedFilter;
use super::policies::{BuiltIn, PolicyFilter};
use super::script::{Action, GateMode, Policy, Script, Setup};
use super::world::{SimClock, Stage, World};
use crate::admission::clock::Clock;
use crate::admission::gate::{Gate, WhenFull};
use crate::admission::refusal::Refusal;
use crate::admission::semaphore::Semaphore;
use crate::drain::backend::Backend;
use crate::drain::trigger::Trigger;

/// A gate, as a run makes and changes it.
pub trait Limited: Semaphore<Permit: Send> + Clone + 'static {
    /// Makes one.
    fn with_limit(limit: u32, when_full: WhenFull) -> Self;
    /// Makes one with a low-water mark, if the gate supports that: see [`GateMode::Batch`].
    #[must_use]
    fn with_low_water(limit: u32, _free: u32) -> Self {
        Self::with_limit(limit, WhenFull::Wait)
    }
    /// Changes its limit.
    fn change_limit(&self, limit: u32);
    /// How many permits are in use, if the gate reports it.
    fn in_use(&self) -> Option<u32> {
        None
    }
}

impl Limited for Gate {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        Self::builder(limit).when_full(when_full).build()
    }

    fn with_low_water(limit: u32, free: u32) -> Self {
        Self::builder(limit).low_water(free).build()
    }

    fn change_limit(&self, limit: u32) {
        self.set_limit(limit);
    }

    fn in_use(&self) -> Option<u32> {
        Some(Self::in_use(self))
    }
}

/// What a run that kept every promise did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Points passed before the script ended: where a script may act.
    pub points: u32,
    /// Connections delivered.
    pub delivered: u64,
    /// Waits that returned events.
    pub wakes: u64,
    /// The most permits that were released while one acceptor waited, its own included.
    pub passed_over: u32,
}

/// The minimum number of points at rest in a run, so that scripts can act there.
const REST: u32 = 2;

/// Rounds of passes before the script ends: far more than any setup needs to come to rest.
const ROUNDS_MAX: u32 = 300;

/// Runs `setup` with `script`, the acceptors made by `factory` behind gates of type `G`, on the simulated kernel.
///
/// # Errors
///
/// The first promise that was broken.
pub fn run<G: Limited>(setup: &Setup, script: &Script, factory: &impl Factory) -> Result<Report, Violation> {
    run_with::<G, BuiltIn>(setup, script, factory)
}

/// As [`run`], with filters of a test's own for the setup's policy.
///
/// # Errors
///
/// The first promise that was broken.
pub fn run_with<G: Limited, F: PolicyFilter>(
    setup: &Setup,
    script: &Script,
    factory: &impl Factory,
) -> Result<Report, Violation> {
    let stage = SimStage::new(setup);
    let backends = stage.clone();
    run_on::<G, F, _>(setup, script, factory, Box::new(stage), |listener, acceptor, trigger| {
        backends.backend(listener, acceptor, trigger)
    })
}

/// As [`run_with`], on any stage: `backend` makes the backend of an acceptor (listener, acceptor, trigger).
///
/// # Errors
///
/// The first promise that was broken.
pub fn run_on<G: Limited, F: PolicyFilter, B: Backend<Stream: Send> + 'static>(
    setup: &Setup,
    script: &Script,
    factory: &impl Factory,
    stage: Box<dyn Stage>,
    backend: impl Fn(usize, usize, Trigger) -> B,
) -> Result<Report, Violation> {
    // The acceptors are built before the first action.
    let world = World::new(stage, script, setup.one_listener);
    let (limit, low_water) = match setup.gate {
        GateMode::Open => (u32::MAX, 1),
        GateMode::Wait(limit) | GateMode::Shed(limit) => (limit, 1),
        GateMode::Batch(limit, free) => (limit, free),
    };
    let gate = || match setup.gate {
        GateMode::Open => None,
        GateMode::Wait(limit) => Some(G::with_limit(limit, WhenFull::Wait)),
        GateMode::Batch(limit, free) => Some(G::with_low_water(limit, free)),
        GateMode::Shed(limit) => Some(G::with_limit(limit, WhenFull::Shed(Refusal::Close))),
    };
    let gates: Vec<Option<G>> = (0..setup.gates()).map(|_| gate()).collect();
    world.lock().checker.gates = vec![GateModel { limit, low_water, ..GateModel::default() }; gates.len()];
    build::<G, F, B>(setup, factory, &world, &gates, backend);
    if setup.gate != GateMode::Open {
        let (changed, counted) = (gates.clone(), gates);
        world.on_limit(Arc::new(move |gate, limit| {
            changed[gate].iter().for_each(|gate| gate.change_limit(limit));
        }));
        world.on_count(Box::new(move |gate| counted[gate].as_ref().and_then(G::in_use)));
    }
    world.start();
    let outcome = play(setup, &world);
    world.dismiss();
    outcome
}

fn build<G: Limited, F: PolicyFilter, B: Backend<Stream: Send> + 'static>(
    setup: &Setup,
    factory: &impl Factory,
    world: &World,
    gates: &[Option<G>],
    backend: impl Fn(usize, usize, Trigger) -> B,
) {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::of(world));
    let filter = F::of(setup.policy, &clock);
    let choosy = matches!(setup.policy, Policy::PeersThenChoosy(_)).then_some(BuiltIn::Choosy);
    world.lock().checker.peers.watch(setup.policy);
    for acceptor in 0..setup.acceptors {
        let listener = if setup.one_listener { 0 } else { acceptor };
        let setup = &Setup { trigger: setup.trigger_of(acceptor), ..setup.clone() };
        let backend = backend(listener, acceptor, setup.trigger);
        let backend = InstrumentedBackend::new(backend, world.clone(), acceptor);
        let gate = InstrumentedGate::new(gates[acceptor % gates.len()].clone(), world.clone(), acceptor);
        let instrument = |filter| InstrumentedFilter::new(filter, setup.policy, world.clone(), acceptor);
        // No rule of its own is checked for a second filter.
        let second = choosy
            .clone()
            .map(|filter| InstrumentedFilter::new(filter, Policy::Nothing, world.clone(), acceptor));
        world.lock().checker.add_account(setup);
        let subject = factory.make(backend, gate, (filter.clone().map(instrument), second), setup);
        world.add_subject(subject);
    }
}

fn play(setup: &Setup, world: &World) -> Result<Report, Violation> {
    let listeners = if setup.one_listener { 1 } else { setup.acceptors };
    for listener in 0..listeners {
        (0..setup.queued).for_each(|_| world.act(Action::Connect(listener)));
    }
    let mut rests = 0;
    let mut rounds = ROUNDS_MAX;
    // A script may name points that its run never reaches.
    while rests < REST || (!world.script_is_done() && rounds > 0) {
        world.yield_point();
        if passes(setup, world)? == 0 {
            at_rest(setup, world)?;
            rests += 1;
        }
        rounds = rounds.saturating_sub(1);
        if rounds == 0 && rests < REST {
            world.lock().checker.violate("P2", format!("still awake after {ROUNDS_MAX} rounds"));
            violated(world)?;
        }
    }
    let points = world.points();
    work_off(setup, world, listeners)?;
    check_totals(setup, world, listeners)?;
    let inner = world.lock();
    let delivered = inner.checker.accounts.iter().map(|account| account.delivered).sum();
    let passed_over = inner.checker.passed_over_most;
    Ok(Report { points, delivered, wakes: inner.checker.wakes(), passed_over })
}

/// Every owner waits once and answers its events; returns how many had any.
fn passes(setup: &Setup, world: &World) -> Result<u32, Violation> {
    let mut awake = 0;
    for acceptor in 0..setup.acceptors {
        awake += u32::from(world.turn(acceptor));
        violated(world)?;
    }
    Ok(awake)
}

/// The owners answer events until all sleep. Nothing new happens meanwhile, so the number of wakeups is bounded.
fn until_rest(setup: &Setup, world: &World) -> Result<(), Violation> {
    let bound = {
        let inner = world.lock();
        // A listener that is shut down is reported until an accept shows that it is empty, as if one more were queued.
        let shut = u32::try_from(inner.checker.shut_down.len()).unwrap_or(u32::MAX);
        let queued = shut + (0..setup.acceptors).map(|listener| inner.queued_at(listener)).sum::<u32>();
        // Each connection can cost a wakeup for itself and, at a full gate, one for each acceptor that is woken.
        16 + 4 * queued * u32::try_from(setup.acceptors).unwrap_or(1)
    };
    for _ in 0..bound {
        if passes(setup, world)? == 0 {
            return at_rest(setup, world);
        }
    }
    world.lock().checker.violate("P2", format!("still awake after {bound} rounds with nothing new to do"));
    violated(world)
}

/// Checks, when no owner has an event: an acceptor with connections pending and a permit available must have an alarm
/// set; one that was stopped must be removed from its epoll; every connection is in service with a permit, and every
/// permit has its connection.
fn at_rest(setup: &Setup, world: &World) -> Result<(), Violation> {
    let (in_use, in_service) = (world.in_use(), world.held() as u64);
    let mut inner = world.lock();
    for acceptor in 0..setup.acceptors {
        let queued = inner.queued_at(acceptor);
        let checker = &inner.checker;
        let account = &checker.accounts[acceptor];
        let excused = account.paused || account.is_terminal();
        let model = checker.gate_model_of(acceptor);
        let (limit, available) = (model.limit, model.is_available());
        if queued > 0 && checker.unreported == 0 && !excused && available && account.alarm.is_none() {
            let what =
                format!("acceptor {acceptor} sleeps with {queued} queued, a permit available, and no alarm");
            let promise = if setup.acceptors > 1 && limit != u32::MAX { "P11" } else { "P1" };
            inner.checker.violate(promise, what);
        }
        let account = &inner.checker.accounts[acceptor];
        if account.stopped && !account.removed && !account.gone {
            inner.checker.violate("P9", format!("acceptor {acceptor} was stopped, and is still registered"));
        }
    }
    let (open, permits) = (inner.checker.open(), inner.checker.permits());
    if open != in_service {
        let what = format!("{open} connections were accepted and are open, {in_service} are in service");
        inner.checker.violate("P5", what);
    }
    if u64::from(permits) != in_service {
        inner.checker.violate("P4", format!("{permits} permits are in use for {in_service} connections"));
    }
    if let Some(in_use) = in_use.filter(|in_use| *in_use != permits) {
        inner.checker.violate("P4", format!("the gate says {in_use} permits are in use, and {permits} are"));
    }
    drop(inner);
    violated(world)
}

/// No client connects any more. All that is queued is served, one permit and one alarm at a time.
fn work_off(setup: &Setup, world: &World, listeners: usize) -> Result<(), Violation> {
    world.calm();
    for acceptor in 0..setup.acceptors {
        if world.lock().checker.accounts[acceptor].paused {
            world.act(Action::Resume(acceptor));
        }
    }
    if world.lock().checker.gates.iter().any(|gate| gate.limit == 0) {
        world.act(Action::Limit(1));
    }
    // Every round serves a connection, closes one, or lets an alarm expire; back-off ends with the first success.
    let mut rounds = 32 + 8 * world.lock().checker.arrived;
    loop {
        until_rest(setup, world)?;
        let alarmed = world.lock().checker.next_alarm().is_some();
        if alarmed {
            world.act(Action::Tick);
        } else if world.held() > 0 {
            world.act(Action::Free);
        } else {
            break;
        }
        rounds -= 1;
        if rounds == 0 {
            world.lock().checker.violate("P2", "the run does not end: alarms or permits come back forever");
            return violated(world);
        }
    }
    for listener in 0..listeners {
        let mut inner = world.lock();
        let queued = inner.stage.queued(listener);
        let served = (0..setup.acceptors).any(|acceptor| {
            let account = &inner.checker.accounts[acceptor];
            inner.listener_of(acceptor) == listener && !account.is_terminal()
        });
        if queued > 0 && served {
            let what = format!("{queued} connections stay queued at listener {listener} forever");
            inner.checker.violate("P1", what);
        }
    }
    violated(world)
}

fn check_totals(setup: &Setup, world: &World, listeners: usize) -> Result<(), Violation> {
    for acceptor in 0..setup.acceptors {
        let mut inner = world.lock();
        let counters = inner.subjects[acceptor].as_ref().and_then(|subject| subject.counters());
        if let Some(counters) = counters {
            inner.checker.audit(acceptor, &counters);
        }
        let control = inner.subjects[acceptor].as_ref().and_then(|subject| subject.control());
        let state = control.and_then(|control| control.state());
        if inner.checker.accounts[acceptor].stopped && state.is_some_and(|state| !state.is_terminal()) {
            inner.checker.violate("P9", format!("acceptor {acceptor} was stopped, and is {state:?}"));
        }
        let listener = inner.listener_of(acceptor);
        if inner.checker.shut_down.contains(&listener) && !inner.checker.accounts[acceptor].is_terminal() {
            let what = format!("acceptor {acceptor} never reported that its listener is closed");
            inner.checker.violate("P7", what);
        }
    }
    let mut inner = world.lock();
    let queued = (0..listeners).map(|listener| u64::from(inner.stage.queued(listener))).sum();
    inner.checker.check_arrivals(queued);
    if inner.checker.open() != 0 {
        let what = format!("{} connections are neither in service nor closed", inner.checker.open());
        inner.checker.violate("P5", what);
    }
    let permits = inner.checker.permits();
    if permits != 0 {
        let what = format!("{permits} permits are in use with no connection alive");
        inner.checker.violate("P4", what);
    }
    drop(inner);
    violated(world)
}

fn violated(world: &World) -> Result<(), Violation> {
    world.violated().map_or(Ok(()), Err)
}
