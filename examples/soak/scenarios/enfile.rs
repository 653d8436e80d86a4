//! The whole system is out of descriptors. Named here because it is not played.

use crate::stage::{End, Played, Scenario, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "enfile",
    about: "ENFILE: the system is out of descriptors",
    share: 0.0,
    least: 0.0,
    play,
};

#[expect(clippy::unnecessary_wraps, reason = "as every scenario")]
fn play(_: &mut Stage) -> Played {
    Ok(End::Skipped(
        "fs.file-max is everybody's: tests/faults has every accept4 answer ENFILE in turn".to_owned(),
    ))
}
