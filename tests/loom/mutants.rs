//! Each published fault of a gate or a notifier is found by the scenario that is meant for it.

use epoll_acceptor::{Trigger, WhenFull};

use crate::commands::{self, OneFlag, ReadThenWrite};
use crate::fast_path::{self, FastPath};
use crate::faulty_gates as known;
use crate::model::{explore_wide, refute};
use crate::test_gate::{GateHooks, Hooks, Reference, TestGate};
use crate::{races, scenarios as scene};

/// A scenario, and the limit of its gate.
type Scene = (&'static str, fn(&TestGate), u32);

fn release() -> Scene {
    ("release", |gate| scene::release_against_block(Trigger::Level, gate), 1)
}

fn first_stopped() -> Scene {
    ("the first waiter is stopped", scene::first_waiter_is_stopped, 1)
}

fn two_acceptors() -> Scene {
    ("two acceptors", scene::two_acceptors_on_one_gate, 1)
}

fn raised() -> Scene {
    ("limit raised", scene::raised_limit_against_block, 0)
}

fn lowered() -> Scene {
    ("limit lowered", scene::lowered_limit_against_releases, 2)
}

fn cancel() -> Scene {
    ("cancel", scene::cancel_against_block, 1)
}

fn three_threads() -> Scene {
    ("three threads acquire", scene::three_threads_acquire, 1)
}

fn acquire() -> Scene {
    ("acquire against block", scene::acquire_against_block, 2)
}

fn dropped() -> Scene {
    ("drop against release", scene::drop_against_release, 1)
}

fn elsewhere() -> Scene {
    ("connections end elsewhere", scene::connections_end_elsewhere, 1)
}

fn all() -> [Scene; 10] {
    [
        release(),
        first_stopped(),
        two_acceptors(),
        raised(),
        lowered(),
        cancel(),
        three_threads(),
        acquire(),
        dropped(),
        elsewhere(),
    ]
}

fn run<H: GateHooks>((_, scene, limit): &Scene) {
    scene(&TestGate::new(Hooks::of::<H>(), *limit, WhenFull::Wait));
}

/// Or a fault would be found for the wrong reason.
fn explore_all<H: GateHooks>(name: &str) {
    for scene in all() {
        explore_wide(&format!("{name}, {}", scene.0), move || run::<H>(&scene));
    }
}

#[test]
fn reference_gate_keeps_every_promise() {
    explore_all::<Reference>("reference");
}

#[test]
fn copied_fast_path_keeps_every_promise() {
    explore_all::<FastPath<{ fast_path::SOUND }>>("fast path");
}

macro_rules! each_is_found {
    ($($test:ident: $hooks:ty, by $scene:ident as $how:literal,)*) => {$(
        #[test]
        fn $test() {
            refute(concat!("mutants::", stringify!($test)), $how, || run::<$hooks>(&$scene()));
        }
    )*};
}

each_is_found! {
    no_recheck_strands: races::NoRecheck, by release as "deadlock",
    recheck_before_the_queue_strands: races::ChecksTooEarly, by release as "deadlock",
    two_unordered_atomics_strand: races::TwoAtomics, by release as "deadlock",
    late_latch_strands: races::LateLatch, by release as "deadlock",
    waking_one_strands_the_other: known::WakesOne, by first_stopped as "deadlock",
    wake_one_release_late_strands: known::StartsAtOne, by release as "deadlock",
    wake_before_the_release_strands: races::WakesFirst, by release as "deadlock",
    flag_cleared_late_strands: races::ClearsTooLate, by two_acceptors as "deadlock",
    silent_cancel_strands: known::CancelsSilently, by cancel as "deadlock",
    silent_limit_strands: known::RaisesSilently, by raised as "deadlock",
    wake_from_own_thread_only_strands: races::OwnThreadOnly, by elsewhere as "deadlock",
    leaked_cancel_closes_the_gate: races::LeaksOnCancel, by cancel as "deadlock",
    double_cancel_closes_the_gate: races::CancelsTwice, by cancel as "deadlock",
    check_then_take_exceeds_the_limit: races::ChecksThenTakes, by three_threads as "P3",
    dequeue_that_forgets_is_woken: races::DequeueForgets, by dropped as "stayed in the wait queue",
    freezing_in_two_steps_strands: FastPath<{ fast_path::FREEZES_IN_TWO_STEPS }>, by release as "deadlock",
    thawing_with_waiters_strands: FastPath<{ fast_path::THAWS_WITH_WAITERS }>, by release as "deadlock",
    thawing_unlocked_loses_a_permit: FastPath<{ fast_path::THAWS_UNLOCKED }>, by lowered as "P4",
    old_count_loses_a_permit: FastPath<{ fast_path::KEEPS_OLD_COUNT }>, by release as "P4",
    release_to_a_frozen_word_strands: FastPath<{ fast_path::GIVES_TO_FROZEN }>, by release as "deadlock",
}

#[test]
fn overwritten_stop_is_lost() {
    refute("mutants::overwritten_stop_is_lost", "P9", commands::stop_against_resume::<ReadThenWrite>);
}

#[test]
fn wake_before_its_request_is_lost() {
    let test = "mutants::wake_before_its_request_is_lost";
    refute(test, "deadlock", commands::stop_against_resume::<commands::WakesFirst>);
}

#[test]
fn one_pause_flag_ends_another_pause() {
    refute("mutants::one_pause_flag_ends_another_pause", "P9", commands::overlapping_pauses::<OneFlag>);
}
