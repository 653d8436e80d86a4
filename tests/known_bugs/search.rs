//! The search for the shortest script that breaks a mutant, and the controls that it must not break.
#![allow(clippy::needless_pass_by_value, reason = "setups are made in place, by one call inside the other")]

use std::any::type_name;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::sim::{Action, Factory, GateMode, Limited, Real, Script, Setup, Violation, run, shrink};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Gate, Trigger};

use crate::hand_loop::HandLoops;
use crate::loop_hooks::{self, LoopHooks};
use crate::test_gate::{self, GateHooks, TestGate};

/// A published fault, made executable.
pub(crate) struct Mutant {
    /// Its name in the source.
    pub name: &'static str,
    /// The rows that it refutes.
    pub rows: &'static [&'static str],
    /// The promise that it must break.
    pub promise: &'static str,
    /// It differs from the published fault, or no code of this crate has the part that it is in.
    pub explained: bool,
    search: Search,
}

type Search = Box<dyn Fn(&mut Controls) -> Result<Kill, String>>;

/// The refutation of a mutant.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub promise: String,
    /// The setup and the script.
    pub script: String,
}

/// The explorations that the references have passed.
#[derive(Default)]
pub(crate) struct Controls {
    passed: BTreeSet<String>,
}

/// The actions that may come first, second, and so on.
pub(crate) type Steps = Vec<Vec<Action>>;

impl Mutant {
    /// A loop with one hook replaced, and one action of each step.
    pub(crate) fn of_loop<L: LoopHooks + Default + 'static>(
        rows: &'static [&'static str],
        promise: &'static str,
        setup: Setup,
        steps: Steps,
    ) -> Self {
        let search = move |controls: &mut Controls| {
            let reference = HandLoops(|| Box::new(loop_hooks::Reference));
            controls.check::<Gate>(&setup, &steps, &reference, "the reference loop")?;
            controls.check::<Gate>(&setup, &steps, &Real, "the acceptor")?;
            shortest::<Gate>(&setup, &steps, &HandLoops(|| Box::<L>::default()))
        };
        Self::new(type_name::<L>(), rows, promise, Box::new(search))
    }

    /// A gate with one hook replaced, behind the acceptors of this crate.
    pub(crate) fn of_gate<H: GateHooks>(
        rows: &'static [&'static str],
        promise: &'static str,
        setup: Setup,
        steps: Steps,
    ) -> Self {
        let search = move |controls: &mut Controls| {
            controls.check::<Gate>(&setup, &steps, &Real, "the gate")?;
            TestGate::with_hooks::<test_gate::Reference, _>(|| {
                controls.check::<TestGate>(&setup, &steps, &Real, "the reference gate")
            })?;
            TestGate::with_hooks::<H, _>(|| shortest::<TestGate>(&setup, &steps, &Real))
        };
        Self::new(type_name::<H>(), rows, promise, Box::new(search))
    }

    /// Anything else, with a property of its own, which `reference` keeps (this crate's code, unless it is
    /// [`explained`](Self::explained)) and `mutant` must break. `Err` says what was seen, and after which steps.
    pub(crate) fn of_part<M>(
        rows: &'static [&'static str],
        promise: &'static str,
        reference: impl Fn() -> Result<(), String> + 'static,
        mutant: impl Fn() -> Result<(), String> + 'static,
    ) -> Self {
        let search = move |_: &mut Controls| {
            reference().map_err(|seen| format!("the reference fails, too: {seen}"))?;
            match mutant() {
                Ok(()) => Err("it survives".into()),
                Err(script) => Ok(Kill { promise: promise.into(), script }),
            }
        };
        Self::new(type_name::<M>(), rows, promise, Box::new(search))
    }

    fn new(path: &'static str, rows: &'static [&'static str], promise: &'static str, search: Search) -> Self {
        Self { name: short(path), rows, promise, explained: false, search }
    }

    /// It explains its rows, and does not refute them.
    pub(crate) fn explained(self) -> Self {
        Self { explained: true, ..self }
    }

    /// Refutes it by the promise that it must break.
    ///
    /// # Errors
    ///
    /// The mutant survives or breaks another promise, or a reference fails.
    pub(crate) fn refute(&self, controls: &mut Controls) -> Result<Kill, String> {
        let kill = (self.search)(controls).map_err(|error| format!("{}: {error}", self.name))?;
        match kill.promise == self.promise {
            true => Ok(kill),
            false => Err(format!("{}: must break {}, breaks {kill:?}", self.name, self.promise)),
        }
    }
}

impl Controls {
    fn check<G: Limited>(
        &mut self,
        setup: &Setup,
        steps: &Steps,
        factory: &impl Factory,
        name: &str,
    ) -> Result<(), String> {
        if !self.passed.insert(format!("{name} {setup:?} {steps:?}")) {
            return Ok(());
        }
        // Each possible action, once, besides those that the mutant is offered.
        let all = once(&Action::all(setup));
        match search::<G>(setup, steps, factory).or_else(|| search::<G>(setup, &all, factory)) {
            None => Ok(()),
            Some((script, violation)) => Err(format!("{name} fails, too: {violation}\n{setup:?}\n{script}")),
        }
    }
}

fn shortest<G: Limited>(setup: &Setup, steps: &Steps, factory: &impl Factory) -> Result<Kill, String> {
    let (script, _) = search::<G>(setup, steps, factory).ok_or("it survives")?;
    let script = shrink::<G>(setup, factory, script);
    match run::<G>(setup, &script, factory) {
        Ok(_) => Err("its script does not break it twice".into()),
        Err(violation) => Ok(Kill {
            promise: violation.promise.into(),
            script: format!("{}{}", format_setup(setup), format_script(&script)),
        }),
    }
}

/// Returns the first script that breaks a promise, the fewest actions first; the n-th action is one of the n-th step.
fn search<G: Limited>(setup: &Setup, steps: &Steps, factory: &impl Factory) -> Option<(Script, Violation)> {
    let mut scripts = vec![Script::new()];
    for depth in 0..=steps.len() {
        let mut longer = Vec::new();
        for script in scripts {
            let points = match run::<G>(setup, &script, factory) {
                Ok(report) => report.points,
                Err(violation) => return Some((script, violation)),
            };
            let Some(actions) = steps.get(depth) else { continue };
            for point in script.last_point().unwrap_or(0)..points {
                longer.extend(actions.iter().map(|action| script.clone().at(point, *action)));
            }
        }
        scripts = longer;
    }
    None
}

/// `edge, 2 queued, limit 1`.
fn format_setup(setup: &Setup) -> String {
    let mut text = format!("{:?}, {} queued", setup.trigger, setup.queued).to_lowercase();
    if setup.acceptors > 1 && !setup.one_listener {
        text.push_str(" each");
    }
    if setup.acceptors > 1 {
        let _ = write!(text, ", {} acceptors", setup.acceptors);
    }
    if setup.budget != Setup::plain().budget {
        let _ = write!(text, ", budget {}", setup.budget);
    }
    match setup.gate {
        GateMode::Open => {}
        GateMode::Wait(limit) => {
            let _ = write!(text, ", limit {limit}");
        }
        GateMode::Batch(limit, free) => {
            let _ = write!(text, ", limit {limit}, low water {free}");
        }
        GateMode::Shed(limit) => {
            let _ = write!(text, ", shed above {limit}");
        }
    }
    if setup.own_gates {
        text.push_str(" each");
    }
    text
}

/// `: Free@12, Turn(1)@14`, or nothing.
fn format_script(script: &Script) -> String {
    let format = |(point, action): &(u32, Action)| match action {
        Action::Fail(errno) => format!("Fail({errno:?})@{point}"),
        other => format!("{other:?}@{point}"),
    };
    match script.acts() {
        [] => String::new(),
        actions => format!(": {}", actions.iter().map(format).collect::<Vec<_>>().join(", ")),
    }
}

pub(crate) fn short(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path)
}

/// An edge-triggered loop that accepts until EAGAIN, with `queued` connections in its queue.
pub(crate) fn edge(queued: u32) -> Setup {
    Setup { trigger: Trigger::Edge, ..level(queued) }
}

/// As [`edge`], level-triggered.
pub(crate) fn level(queued: u32) -> Setup {
    Setup { empty_check: Some(EmptyCheck::UntilEagain), queued, ..Setup::plain() }
}

/// Adds a connection limit.
pub(crate) fn limit(limit: u32, setup: Setup) -> Setup {
    Setup { gate: GateMode::Wait(limit), ..setup }
}

/// Adds a connection limit above which connections are refused.
pub(crate) fn shed(limit: u32, setup: Setup) -> Setup {
    Setup { gate: GateMode::Shed(limit), ..setup }
}

pub(crate) fn budget(budget: u32, setup: Setup) -> Setup {
    Setup { budget, ..setup }
}

/// Two acceptors, each with its own listener.
pub(crate) fn two(setup: Setup) -> Setup {
    Setup { acceptors: 2, ..setup }
}

/// Two exclusive acceptors on one listener, with an empty queue.
pub(crate) fn exclusive() -> Setup {
    Setup { trigger: Trigger::Exclusive, one_listener: true, ..two(level(0)) }
}

pub(crate) fn none() -> Steps {
    Vec::new()
}

pub(crate) fn once(actions: &[Action]) -> Steps {
    vec![actions.to_vec()]
}

pub(crate) fn twice(actions: &[Action]) -> Steps {
    vec![actions.to_vec(); 2]
}

/// The next accept fails with this errno.
pub(crate) fn fail(errno: i32) -> Action {
    Action::Fail(Errno::new(errno))
}
