//! The whole system is out of descriptors. Listed, although it is not run.

use crate::harness::{End, Harness, Scenario, ScenarioResult};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "enfile",
    about: "ENFILE: the system is out of descriptors",
    share: 0.0,
    least: 0.0,
    run,
};

#[expect(clippy::unnecessary_wraps, reason = "as every scenario")]
fn run(_: &mut Harness) -> ScenarioResult {
    Ok(End::Skipped(
        "fs.file-max belongs to the whole machine: tests/real/kernel/faults makes accept4 fail with ENFILE instead"
            .to_owned(),
    ))
}
