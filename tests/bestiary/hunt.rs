//! The hunt: the shortest script that breaks a mutant, and the controls that it must not break.
#![allow(clippy::needless_pass_by_value, reason = "a case is made on the spot, by one call inside the other")]

use std::any::type_name;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use epoll_acceptor::drain::Errno;
use epoll_acceptor::sim::explore::shrink;
use epoll_acceptor::sim::{Action, Factory, GateMode, Limited, Real, Script, Setup, Violation, run};
use epoll_acceptor::{EmptyCheck, Gate, Trigger};

use crate::desk::{Hands, Logic, Right};
use crate::hall::{Flaw, Hall, Sound};

/// A wrong logic, made executable.
pub(crate) struct Mutant {
    /// What it is called in the source.
    pub name: &'static str,
    /// The rows it stands for.
    pub rows: &'static [&'static str],
    /// The promise that it must be found to break.
    pub promise: &'static str,
    hunt: Hunt,
}

type Hunt = Box<dyn Fn(&mut Controls) -> Result<Kill, String>>;

/// How a mutant was refuted.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub promise: String,
    /// What was built, and what had to happen.
    pub script: String,
}

/// Explorations that the right ones have passed.
#[derive(Default)]
pub(crate) struct Controls {
    passed: BTreeSet<String>,
}

/// What may happen first, second, and so on.
pub(crate) type Steps = Vec<Vec<Action>>;

impl Mutant {
    /// A loop with one piece replaced, and up to so many of these acts.
    pub(crate) fn of_loop<L: Logic + Default + 'static>(
        rows: &'static [&'static str],
        promise: &'static str,
        case: Setup,
        steps: Steps,
    ) -> Self {
        let maker = || Hands(|| Box::<L>::default());
        let hunt = move |controls: &mut Controls| {
            controls.check::<Gate>(&case, &steps, &Hands(|| Box::new(Right)), "the right loop")?;
            controls.check::<Gate>(&case, &steps, &Real, "the acceptor")?;
            hunt::<Gate>(&case, &steps, &maker())
        };
        Self { name: short(type_name::<L>()), rows, promise, hunt: Box::new(hunt) }
    }

    /// A gate with one piece replaced, behind the acceptors of this crate.
    pub(crate) fn of_gate<F: Flaw>(
        rows: &'static [&'static str],
        promise: &'static str,
        case: Setup,
        steps: Steps,
    ) -> Self {
        let hunt = move |controls: &mut Controls| {
            controls.check::<Gate>(&case, &steps, &Real, "the gate")?;
            controls.check::<Hall<Sound>>(&case, &steps, &Real, "the right hall")?;
            hunt::<Hall<F>>(&case, &steps, &Real)
        };
        Self { name: short(type_name::<F>()), rows, promise, hunt: Box::new(hunt) }
    }

    /// Anything else, with a property of its own: what the right ones do, and then what the mutant does.
    /// `Err` tells what was seen, and after which steps.
    pub(crate) fn of_part<M>(
        rows: &'static [&'static str],
        promise: &'static str,
        right: impl Fn() -> Result<(), String> + 'static,
        mutant: impl Fn() -> Result<(), String> + 'static,
    ) -> Self {
        let hunt = move |_: &mut Controls| {
            right().map_err(|seen| format!("the right one fails as well: {seen}"))?;
            match mutant() {
                Ok(()) => Err("it survives".into()),
                Err(script) => Ok(Kill { promise: promise.into(), script }),
            }
        };
        Self { name: short(type_name::<M>()), rows, promise, hunt: Box::new(hunt) }
    }

    /// Refutes it, by the promise that it should break.
    ///
    /// # Errors
    ///
    /// What went wrong: it survives, breaks another promise, or a right one does not pass.
    pub(crate) fn refute(&self, controls: &mut Controls) -> Result<Kill, String> {
        let kill = (self.hunt)(controls).map_err(|why| format!("{}: {why}", self.name))?;
        match kill.promise == self.promise {
            true => Ok(kill),
            false => Err(format!("{}: should break {}, breaks {kill:?}", self.name, self.promise)),
        }
    }
}

impl Controls {
    fn check<G: Limited>(
        &mut self,
        case: &Setup,
        steps: &Steps,
        maker: &impl Factory,
        who: &str,
    ) -> Result<(), String> {
        if !self.passed.insert(format!("{who} {case:?} {steps:?}")) {
            return Ok(());
        }
        // Any act at all, once, on top of those that the mutant is offered.
        match search::<G>(case, steps, maker).or_else(|| search::<G>(case, &once(&Action::all(case)), maker))
        {
            None => Ok(()),
            Some((script, violation)) => Err(format!("{who} fails as well: {violation}\n{case:?}\n{script}")),
        }
    }
}

fn hunt<G: Limited>(case: &Setup, steps: &Steps, maker: &impl Factory) -> Result<Kill, String> {
    let (script, _) = search::<G>(case, steps, maker).ok_or("it survives")?;
    let script = shrink::<G>(case, maker, script);
    match run::<G>(case, &script, maker) {
        Ok(_) => Err("its script does not break it twice".into()),
        Err(violation) => Ok(Kill {
            promise: violation.promise.into(),
            script: format!("{}: {}", describe(case), tell(&script)),
        }),
    }
}

/// The first script that breaks a promise; the fewest acts first, the n-th of them one of the n-th step.
fn search<G: Limited>(case: &Setup, steps: &Steps, maker: &impl Factory) -> Option<(Script, Violation)> {
    let mut scripts = vec![Script::new()];
    for depth in 0..=steps.len() {
        let mut longer = Vec::new();
        for script in scripts {
            let points = match run::<G>(case, &script, maker) {
                Ok(report) => report.points,
                Err(violation) => return Some((script, violation)),
            };
            let Some(acts) = steps.get(depth) else { continue };
            for point in script.last_point().unwrap_or(0)..points {
                longer.extend(acts.iter().map(|act| script.clone().at(point, *act)));
            }
        }
        scripts = longer;
    }
    None
}

/// `edge, 2 queued, limit 1`.
fn describe(case: &Setup) -> String {
    let mut text = format!("{:?}, {} queued", case.trigger, case.queued).to_lowercase();
    if case.one_listener {
        let _ = write!(text, ", {} on one listener", case.acceptors);
    } else if case.acceptors > 1 {
        let _ = write!(text, " at each of {}", case.acceptors);
    }
    if case.budget != Setup::plain().budget {
        let _ = write!(text, ", budget {}", case.budget);
    }
    match case.gate {
        GateMode::Open => {}
        GateMode::Pause(limit) => {
            let _ = write!(text, ", limit {limit}");
        }
        GateMode::Batch(limit, free) => {
            let _ = write!(text, ", limit {limit} until {free} are free");
        }
        GateMode::Shed(limit) => {
            let _ = write!(text, ", shed above {limit}");
        }
    }
    if case.own_gates {
        text.push_str(" each");
    }
    text
}

/// `Free at 12, Turn(1) at 14`.
fn tell(script: &Script) -> String {
    let act = |(point, act): &(u32, Action)| match act {
        Action::Fail(errno) => format!("Fail({errno:?}) at {point}"),
        other => format!("{other:?} at {point}"),
    };
    match script.acts() {
        [] => "nothing has to happen".into(),
        acts => acts.iter().map(act).collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn short(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path)
}

/// An edge-triggered loop that accepts until EAGAIN, with so many queued.
pub(crate) fn edge(queued: u32) -> Setup {
    Setup { trigger: Trigger::Edge, ..level(queued) }
}

/// A level-triggered one.
pub(crate) fn level(queued: u32) -> Setup {
    Setup { proof: Some(EmptyCheck::UntilEagain), queued, ..Setup::plain() }
}

/// With a connection limit.
pub(crate) fn limit(limit: u32, case: Setup) -> Setup {
    Setup { gate: GateMode::Pause(limit), ..case }
}

/// With a connection limit above which connections are refused.
pub(crate) fn shed(limit: u32, case: Setup) -> Setup {
    Setup { gate: GateMode::Shed(limit), ..case }
}

pub(crate) fn budget(budget: u32, case: Setup) -> Setup {
    Setup { budget, ..case }
}

/// Two acceptors, each with its own listener.
pub(crate) fn two(case: Setup) -> Setup {
    Setup { acceptors: 2, ..case }
}

/// Two exclusive acceptors on one listener, and nobody queued.
pub(crate) fn exclusive() -> Setup {
    Setup { trigger: Trigger::Exclusive, one_listener: true, ..two(level(0)) }
}

pub(crate) fn none() -> Steps {
    Vec::new()
}

pub(crate) fn once(acts: &[Action]) -> Steps {
    vec![acts.to_vec()]
}

pub(crate) fn twice(acts: &[Action]) -> Steps {
    vec![acts.to_vec(); 2]
}

/// The next accept fails with this errno.
pub(crate) fn fail(errno: i32) -> Action {
    Action::Fail(Errno::new(errno))
}
