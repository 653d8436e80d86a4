//! Every script up to a bound, the shortest first.

use super::acceptor_under_test::Factory;
use super::checker::Violation;
use super::policies::{BuiltIn, PolicyFilter};
use super::run::{Limited, Report, run, run_with};
use super::script::{Action, Script, Setup};

/// What an exploration covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Runs made.
    pub scripts: u64,
    /// Points passed in them.
    pub points: u64,
    /// Connections delivered in them.
    pub delivered: u64,
}

/// Runs every script of at most `acts_max` actions, each action at every possible point, the fewest actions first.
///
/// # Errors
///
/// The first script that broke a promise, and the promise. It has no more actions than any other that breaks one.
pub fn explore<G: Limited>(
    setup: &Setup,
    factory: &impl Factory,
    acts: &[Action],
    acts_max: u32,
) -> Result<Explored, (Script, Violation)> {
    explore_with::<G, BuiltIn>(setup, factory, acts, acts_max)
}

/// As [`explore`], with filters of a test's own for the setup's policy.
///
/// # Errors
///
/// As [`explore`].
pub fn explore_with<G: Limited, F: PolicyFilter>(
    setup: &Setup,
    factory: &impl Factory,
    acts: &[Action],
    acts_max: u32,
) -> Result<Explored, (Script, Violation)> {
    let mut explored = Explored::default();
    let mut scripts = vec![Script::new()];
    for depth in 0..=acts_max {
        let mut longer = Vec::new();
        for script in scripts {
            let report =
                run_with::<G, F>(setup, &script, factory).map_err(|violation| (script.clone(), violation))?;
            explored.add(report);
            if depth < acts_max {
                longer.extend(extensions(&script, report.points, acts));
            }
        }
        scripts = longer;
    }
    Ok(explored)
}

/// The script with one more action, at each point from its last action on.
fn extensions<'a>(script: &'a Script, points: u32, acts: &'a [Action]) -> impl Iterator<Item = Script> + 'a {
    let from = script.last_point().unwrap_or(0);
    (from..points).flat_map(move |point| acts.iter().map(move |act| script.clone().at(point, *act)))
}

/// Leaves out actions as long as the script breaks a promise without them.
#[must_use]
pub fn shrink<G: Limited>(setup: &Setup, factory: &impl Factory, mut script: Script) -> Script {
    let mut act = 0;
    while act < script.acts().len() {
        let shorter = script.without(act);
        if run::<G>(setup, &shorter, factory).is_err() {
            script = shorter;
        } else {
            act += 1;
        }
    }
    script
}

impl Explored {
    /// Adds another exploration.
    pub fn join(&mut self, other: Self) {
        self.scripts += other.scripts;
        self.points += other.points;
        self.delivered += other.delivered;
    }

    /// Adds one run.
    pub fn add(&mut self, report: Report) {
        self.scripts += 1;
        self.points += u64::from(report.points);
        self.delivered += report.delivered;
    }
}
