//! One run: a case, a script, and the promises checked along the way and at the end.
//!
//! First the owners wait and answer events while the environment plays its script. Then everything calms down:
//! scarcity ends, what was paused is resumed, and no client comes any more. From there every connection that is
//! still queued has to be served without help: the owners answer their events, connections in service end one by
//! one when everyone sleeps, and alarms go off. What is queued at the end is stranded.

use std::sync::Arc;

use super::env::{Env, Stage};
use super::extra::{InstrumentedPolicy, SimClock};
use super::ledger::{Capacity, Violation};
use super::pointed::{InstrumentedBackend, InstrumentedGate};
use super::script::{Action, GateMode, Policy, Script, Setup};
use super::stage::SimStage;
use super::subject::Factory;
use crate::admission::clock::Clock;
use crate::admission::gate::{Gate, WhenFull};
use crate::admission::policy::{Admission, Unlimited};
use crate::admission::refusal::Refusal;
use crate::drain::backend::Backend;
use crate::drain::strategy::Trigger;

/// An admission with a connection limit, as a run makes and changes it.
pub trait Limited: Admission<Permit: Send> + Clone + 'static {
    /// Makes one.
    fn with_limit(limit: u32, when_full: WhenFull) -> Self;
    /// The same with a low-water mark, if it has one: see [`GateMode::Batch`].
    #[must_use]
    fn with_low_water(self, _free: u32) -> Self {
        self
    }
    /// Changes its limit.
    fn change_limit(&self, limit: u32);
    /// How many places it has given out, if it tells.
    fn in_use(&self) -> Option<u32> {
        None
    }
    /// The same with the policy that a case has besides its gate, if it brings that itself: then no other is made, and
    /// the books look at its answers. For policies of one's own, and the faults they may have.
    fn with_extra(&self, _extra: Policy, _clock: &Arc<dyn Clock>) -> Option<Self> {
        None
    }
}

impl Limited for Gate {
    fn with_limit(limit: u32, when_full: WhenFull) -> Self {
        Self::new(limit).when_full(when_full)
    }

    fn with_low_water(self, free: u32) -> Self {
        self.low_water(free)
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
    /// Points passed before everything calmed down: where a script may act.
    pub points: u32,
    /// Connections delivered.
    pub delivered: u64,
    /// Waits that returned events.
    pub wakes: u64,
    /// The most places that came back while one acceptor stood in line, the one it got included.
    pub passed_over: u32,
}

/// Points at rest that a run adds after the last act of its script, so that scripts can act there.
const REST: u32 = 2;

/// Rounds of turns before the calm: far more than any case needs to fall asleep.
const ROUNDS_MAX: u32 = 300;

/// Runs `case` with `script`, the acceptors made by `maker` behind gates of type `G`, on the simulated kernel.
///
/// # Errors
///
/// The first promise that was broken.
pub fn run<G: Limited>(case: &Setup, script: &Script, maker: &impl Factory) -> Result<Report, Violation> {
    let stage = SimStage::new(case);
    let ports = stage.clone();
    run_on::<G, _>(case, script, maker, Box::new(stage), |listener, acceptor, trigger| {
        ports.port(listener, acceptor, trigger)
    })
}

/// As [`run`], on any stage: `port` makes the port of an acceptor (listener, acceptor, trigger).
///
/// # Errors
///
/// The first promise that was broken.
pub fn run_on<G: Limited, P: Backend + 'static>(
    case: &Setup,
    script: &Script,
    maker: &impl Factory,
    stage: Box<dyn Stage>,
    port: impl Fn(usize, usize, Trigger) -> P,
) -> Result<Report, Violation>
where
    P::Stream: Send,
{
    // The acceptors are built before the first act.
    let env = Env::new(stage, script, case.one_listener);
    match case.gate {
        GateMode::Open => {
            env.lock().ledger.gates = vec![Capacity { limit: u32::MAX, ..Capacity::default() }; case.gates()];
            build(case, maker, &env, |_| Unlimited, port, false);
        }
        GateMode::Pause(limit) | GateMode::Batch(limit, _) | GateMode::Shed(limit) => {
            let low_water = if let GateMode::Batch(_, free) = case.gate { free } else { 1 };
            let when_full = match case.gate {
                GateMode::Shed(_) => WhenFull::Shed(Refusal::Close),
                _ => WhenFull::Pause,
            };
            let gate = || G::with_limit(limit, when_full.clone()).with_low_water(low_water);
            let clock: Arc<dyn Clock> = Arc::new(SimClock::of(&env));
            let brings_extra = gate().with_extra(case.extra, &clock).is_some();
            let gates: Vec<G> = (0..case.gates())
                .map(|_| gate().with_extra(case.extra, &clock).unwrap_or_else(&gate))
                .collect();
            env.lock().ledger.gates = vec![Capacity { limit, low_water, ..Capacity::default() }; gates.len()];
            let (handles, counted) = (gates.clone(), gates.clone());
            build(case, maker, &env, |gate| gates[gate].clone(), port, brings_extra);
            env.on_limit(Arc::new(move |gate, limit| handles[gate].change_limit(limit)));
            env.on_count(Box::new(move |gate| counted[gate].in_use()));
        }
    }
    env.start();
    let outcome = play(case, &env);
    env.dismiss();
    outcome
}

fn build<P, A>(
    case: &Setup,
    maker: &impl Factory,
    env: &Env,
    admission: impl Fn(usize) -> A,
    port: impl Fn(usize, usize, Trigger) -> P,
    brings_extra: bool,
) where
    P: Backend + 'static,
    P::Stream: Send,
    A: Admission<Permit: Send> + Clone + 'static,
{
    let (extra, second) = match brings_extra {
        true => (None, None),
        false => InstrumentedPolicy::all(case.extra, env),
    };
    env.lock().visitors.watch(case.extra);
    for acceptor in 0..case.acceptors {
        let listener = if case.one_listener { 0 } else { acceptor };
        let case = &Setup { trigger: case.trigger_of(acceptor), ..case.clone() };
        let port = InstrumentedBackend::new(port(listener, acceptor, case.trigger), env.clone(), acceptor);
        let gate =
            InstrumentedGate::new(admission(acceptor % case.gates()), env.clone(), acceptor, brings_extra);
        env.lock().ledger.add_account(case);
        let subject = match (&extra, &second) {
            (None, _) => maker.make(port, gate, case),
            (Some(extra), None) => maker.make(port, gate.and(extra.of(acceptor)), case),
            (Some(extra), Some(second)) => {
                maker.make(port, gate.and(extra.of(acceptor)).and(second.of(acceptor)), case)
            }
        };
        env.add_subject(subject);
    }
}

fn play(case: &Setup, env: &Env) -> Result<Report, Violation> {
    let listeners = if case.one_listener { 1 } else { case.acceptors };
    for listener in 0..listeners {
        (0..case.queued).for_each(|_| env.act(Action::Connect(listener)));
    }
    let mut rests = 0;
    let mut rounds = ROUNDS_MAX;
    // A script may speak of points that its run never reaches.
    while rests < REST || (!env.script_is_done() && rounds > 0) {
        env.point();
        if turns(case, env)? == 0 {
            at_rest(case, env)?;
            rests += 1;
        }
        rounds = rounds.saturating_sub(1);
        if rounds == 0 && rests < REST {
            env.lock().ledger.violate("P2", format!("still awake after {ROUNDS_MAX} rounds"));
            violated(env)?;
        }
    }
    let points = env.points();
    wind_up(case, env, listeners)?;
    settle(case, env, listeners)?;
    let inner = env.lock();
    let delivered = inner.ledger.accounts.iter().map(|account| account.delivered).sum();
    let passed_over = inner.ledger.passed_over_most;
    Ok(Report { points, delivered, wakes: inner.ledger.wakes(), passed_over })
}

/// Everyone has a turn; tells how many had an event.
fn turns(case: &Setup, env: &Env) -> Result<u32, Violation> {
    let mut awake = 0;
    for acceptor in 0..case.acceptors {
        awake += u32::from(env.turn(acceptor));
        violated(env)?;
    }
    Ok(awake)
}

/// Everyone answers events until everyone sleeps. Nothing can happen meanwhile that was not there before, so the
/// number of wake-ups is bounded by what was.
fn until_rest(case: &Setup, env: &Env) -> Result<(), Violation> {
    let bound = {
        let inner = env.lock();
        let queued: u32 = (0..case.acceptors).map(|listener| inner.queued_at(listener)).sum();
        // Each connection can cost a wake-up for itself and, at a full gate, one for each acceptor that is rung.
        16 + 4 * queued * u32::try_from(case.acceptors).unwrap_or(1)
    };
    for _ in 0..bound {
        if turns(case, env)? == 0 {
            return at_rest(case, env);
        }
    }
    env.lock().ledger.violate("P2", format!("still awake after {bound} rounds with nothing new to do"));
    violated(env)
}

/// Nobody has an event. Whoever has clients waiting, and room for them, must have an alarm set; whoever was
/// stopped must be out of its epoll; every connection is in service with a place, and every place has its
/// connection.
fn at_rest(case: &Setup, env: &Env) -> Result<(), Violation> {
    let (in_use, in_service) = (env.in_use(), env.held() as u64);
    let mut inner = env.lock();
    for acceptor in 0..case.acceptors {
        let queued = inner.queued_at(acceptor);
        let ledger = &inner.ledger;
        let account = &ledger.accounts[acceptor];
        let excused = account.paused || account.is_over();
        let places = ledger.places_of(acceptor);
        let (limit, has_room) = (places.limit, places.has_room());
        if queued > 0 && ledger.untold == 0 && !excused && has_room && account.alarm.is_none() {
            let what = format!("acceptor {acceptor} sleeps with {queued} queued, room, and no alarm set");
            let promise = if case.acceptors > 1 && limit != u32::MAX { "P11" } else { "P1" };
            inner.ledger.violate(promise, what);
        }
        let account = &inner.ledger.accounts[acceptor];
        if account.stopped && !account.detached && !account.gone {
            inner.ledger.violate("P9", format!("acceptor {acceptor} was stopped, and is still registered"));
        }
    }
    let (open, places) = (inner.ledger.open(), inner.ledger.places());
    if open != in_service {
        let what = format!("{open} connections were taken and are open, {in_service} are in service");
        inner.ledger.violate("P5", what);
    }
    if u64::from(places) != in_service {
        inner.ledger.violate("P4", format!("{places} places are out for {in_service} connections"));
    }
    if let Some(in_use) = in_use.filter(|in_use| *in_use != places) {
        inner.ledger.violate("P4", format!("the gate says {in_use} places are out, and {places} are"));
    }
    drop(inner);
    violated(env)
}

/// No client comes any more. Everyone who is queued is served, one free place and one alarm at a time.
fn wind_up(case: &Setup, env: &Env, listeners: usize) -> Result<(), Violation> {
    env.calm();
    for acceptor in 0..case.acceptors {
        // Only who is paused: to resume is to ring, which would wake a sleeper that nobody else wakes.
        if env.lock().ledger.accounts[acceptor].paused {
            env.act(Action::Resume(acceptor));
        }
    }
    if env.lock().ledger.gates.iter().any(|places| places.limit == 0) {
        env.act(Action::Limit(1));
    }
    // Every round serves a connection, ends one, or lets an alarm go off; back-off ends with the first success.
    let mut rounds = 32 + 8 * env.lock().ledger.arrived;
    loop {
        until_rest(case, env)?;
        let alarmed = env.lock().ledger.next_alarm().is_some();
        if alarmed {
            env.act(Action::Tick);
        } else if env.held() > 0 {
            env.act(Action::Free);
        } else {
            break;
        }
        rounds -= 1;
        if rounds == 0 {
            env.lock().ledger.violate("P2", "the run does not end: alarms or places come back for ever");
            return violated(env);
        }
    }
    for listener in 0..listeners {
        let mut inner = env.lock();
        let queued = inner.stage.queued(listener);
        let served = (0..case.acceptors).any(|acceptor| {
            let account = &inner.ledger.accounts[acceptor];
            inner.listener_of(acceptor) == listener && !account.is_over()
        });
        if queued > 0 && served {
            let what = format!("{queued} connections stay queued at listener {listener} for ever");
            inner.ledger.violate("P1", what);
        }
    }
    violated(env)
}

/// The books at the end.
fn settle(case: &Setup, env: &Env, listeners: usize) -> Result<(), Violation> {
    for acceptor in 0..case.acceptors {
        let mut inner = env.lock();
        let counters = inner.subjects[acceptor].as_ref().and_then(|subject| subject.counters());
        if let Some(counters) = counters {
            inner.ledger.audit(acceptor, &counters);
        }
        let control = inner.subjects[acceptor].as_ref().and_then(|subject| subject.control());
        let state = control.and_then(|control| control.state());
        if inner.ledger.accounts[acceptor].stopped && state.is_some_and(|state| !state.is_terminal()) {
            inner.ledger.violate("P9", format!("acceptor {acceptor} was stopped, and is {state:?}"));
        }
        let listener = inner.listener_of(acceptor);
        if inner.ledger.shut.contains(&listener) && !inner.ledger.accounts[acceptor].is_over() {
            inner
                .ledger
                .violate("P7", format!("acceptor {acceptor} was never told that its listener is dead"));
        }
    }
    let mut inner = env.lock();
    let queued = (0..listeners).map(|listener| u64::from(inner.stage.queued(listener))).sum();
    inner.ledger.count_up(queued);
    if inner.ledger.open() != 0 {
        let what = format!("{} connections are neither in service nor closed", inner.ledger.open());
        inner.ledger.violate("P5", what);
    }
    let places = inner.ledger.places();
    if places != 0 {
        let what = format!("{places} places are out with no connection alive");
        inner.ledger.violate("P4", what);
    }
    drop(inner);
    violated(env)
}

fn violated(env: &Env) -> Result<(), Violation> {
    env.violated().map_or(Ok(()), Err)
}
