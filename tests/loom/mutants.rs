//! Each published fault of the capacity family is found by the scenario that is meant for it.

use crate::commands::{self, ReadThenWrite, WakesFirst};
use crate::faulty::{Fault, Faulty};
use crate::model::{explore_wide, refute};
use crate::scenarios as scene;
use epoll_acceptor::Trigger;

/// A scenario, and the limit of its gate.
type Scene = (&'static str, fn(&Faulty), u32);

const RELEASE: Scene = ("release", |gate| scene::release_against_falling_asleep(Trigger::Level, gate), 1);
const FIRST_STOPPED: Scene = ("the first in line is stopped", scene::the_first_in_line_is_stopped, 1);
const TWO_ACCEPTORS: Scene = ("two acceptors", scene::two_acceptors_on_one_gate, 1);
const RAISED: Scene = ("limit raised", scene::raising_the_limit_against_falling_asleep, 0);
const LOWERED: Scene = ("limit lowered", scene::lowering_the_limit_against_releases, 2);
const ROLLBACK: Scene = ("rollback", scene::rollback_against_falling_asleep, 1);
const OVER: Scene = ("never over the limit", scene::never_over_the_limit, 1);
const DROPPED: Scene = ("drop against release", scene::dropping_an_acceptor_against_release, 1);
const ELSEWHERE: Scene = ("connections end elsewhere", scene::connections_that_end_elsewhere, 1);

const ALL: [Scene; 9] =
    [RELEASE, FIRST_STOPPED, TWO_ACCEPTORS, RAISED, LOWERED, ROLLBACK, OVER, DROPPED, ELSEWHERE];

/// Or a fault would be found for the wrong reason.
#[test]
fn the_gate_without_a_fault_is_sound() {
    for (name, scene, limit) in ALL {
        explore_wide(&format!("no fault, {name}"), move || scene(&Faulty::new(Fault::None, limit)));
    }
}

macro_rules! each_is_found {
    ($($test:ident: $fault:ident by $scene:ident as $how:literal,)*) => {$(
        #[test]
        fn $test() {
            let (_, scene, limit) = $scene;
            refute(concat!("mutants::", stringify!($test)), $how, move || {
                scene(&Faulty::new(Fault::$fault, limit));
            });
        }
    )*};
}

each_is_found! {
    no_recheck_strands: NoRecheck by RELEASE as "deadlock",
    a_recheck_before_the_bit_strands: RecheckTooEarly by RELEASE as "deadlock",
    two_words_without_order_strand: TwoWords by RELEASE as "deadlock",
    a_latch_that_is_overwritten_strands: Latch by RELEASE as "deadlock",
    waking_one_strands_the_other: WakeOne by FIRST_STOPPED as "deadlock",
    a_wake_one_too_late_strands: OffByOne by RELEASE as "deadlock",
    a_wakeup_before_the_place_strands: WakesFirst by RELEASE as "deadlock",
    a_bit_cleared_too_late_strands: ClearsTooLate by TWO_ACCEPTORS as "deadlock",
    a_silent_rollback_strands: SilentRollback by ROLLBACK as "deadlock",
    a_silent_limit_strands: SilentLimit by RAISED as "deadlock",
    a_wakeup_from_its_own_thread_alone_strands: OwnThreadOnly by ELSEWHERE as "deadlock",
    a_leaky_rollback_closes_the_gate: LeakyRollback by ROLLBACK as "deadlock",
    a_rollback_that_counts_twice_closes_the_gate: DoubleRollback by ROLLBACK as "deadlock",
    check_then_take_exceeds_the_limit: CheckThenTake by OVER as "P3",
    leaving_without_leaving_is_woken: LeaveForgets by DROPPED as "a notifier stayed in the line",
}

#[test]
fn a_stop_that_is_written_over_is_lost() {
    let test = "mutants::a_stop_that_is_written_over_is_lost";
    refute(test, "P9", commands::stop_against_resume::<ReadThenWrite>);
}

#[test]
fn a_wakeup_before_its_reason_is_lost() {
    let test = "mutants::a_wakeup_before_its_reason_is_lost";
    refute(test, "deadlock", commands::stop_against_resume::<WakesFirst>);
}
