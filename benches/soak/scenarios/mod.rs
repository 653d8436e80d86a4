//! All scenarios. To add one, add a module and a line in [`ALL`].

mod attack;
mod children;
mod clock;
mod destroyed;
mod emfile;
mod enfile;
mod load;
mod overload;
mod panics;
mod paused;
mod quitters;
mod reserve;
mod resets;
mod scaling;
mod shutdown;
mod signals;

use crate::harness::Scenario;

pub(crate) use children::{ARGUMENT as CHILD, report_inherited as child};

/// In the order in which they run.
pub(crate) const ALL: [Scenario; 16] = [
    load::SCENARIO,
    emfile::SCENARIO,
    reserve::SCENARIO,
    enfile::SCENARIO,
    signals::SCENARIO,
    resets::SCENARIO,
    quitters::SCENARIO,
    paused::SCENARIO,
    shutdown::SCENARIO,
    scaling::SCENARIO,
    destroyed::SCENARIO,
    clock::SCENARIO,
    children::SCENARIO,
    panics::SCENARIO,
    attack::SCENARIO,
    overload::SCENARIO,
];
