//! Each verdict from the facts that lead to it.

use super::*;
use crate::doctor::judge::Verdict;

const NEWCOMERS: Tally = Tally { came: 5, answered: 5, refused: 0, unanswered: 0 };
const UNANSWERED: Tally = Tally { came: 5, answered: 0, refused: 0, unanswered: 5 };

/// A server that met its limit, let them wait, and took them.
fn well() -> Facts {
    Facts {
        manner: Some(Manner::Answers),
        held: 3,
        limit: Limit::Waits,
        flood: Tally { came: 60, unanswered: 60, ..Tally::default() },
        freed: 1,
        resumed_with: Some(1),
        left_behind: Some(0),
        newcomers: NEWCOMERS,
        ..Facts::default()
    }
}

fn stalled() -> Facts {
    let after = Seen { queued: Some(59), owner_asleep: Some(true), ..Seen::default() };
    Facts { resumed_with: None, stalled: true, left_behind: Some(59), newcomers: UNANSWERED, after, ..well() }
}

fn undetermined(facts: &Facts) -> Unseen {
    match judge(facts) {
        Outcome::Undetermined(unseen) => unseen,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn who_takes_them_all_in_the_end_waits_well() {
    assert_eq!(judge(&well()), Outcome::WaitsWell);
}

#[test]
fn who_refuses_and_serves_again_refuses_well() {
    let flood = Tally { came: 60, refused: 60, ..Tally::default() };
    let facts = Facts { limit: Limit::Refuses, flood, resumed_with: None, ..well() };
    assert_eq!(judge(&facts), Outcome::RefusesWell);
    let newcomers = Tally { came: 5, refused: 5, ..Tally::default() };
    assert_eq!(undetermined(&Facts { newcomers, ..facts }), Unseen::StillRefuses);
}

#[test]
fn who_takes_them_all_at_once_met_no_limit() {
    let flood = Tally { came: 60, answered: 60, ..Tally::default() };
    assert_eq!(judge(&Facts { limit: Limit::NotMet, flood, ..well() }), Outcome::NoLimit);
}

#[test]
fn who_leaves_some_behind_strands() {
    assert_eq!(judge(&stalled()), Outcome::Strands);
    // Newcomers who come through do not make up for those who never will.
    assert_eq!(judge(&Facts { newcomers: NEWCOMERS, ..stalled() }), Outcome::Strands);
    // Whose owner cannot be seen has stranded them all the same.
    let after = Seen { queued: Some(59), ..Seen::default() };
    assert_eq!(judge(&Facts { after, ..stalled() }), Outcome::Strands);
}

#[test]
fn who_is_awake_over_a_queue_at_the_limit_spins() {
    let full = Seen { owner_asleep: Some(false), cpu_percent: Some(60.0), ..Seen::default() };
    assert_eq!(judge(&Facts { full: full.clone(), ..well() }), Outcome::Spins);
    // Work for those whom it serves is no spin.
    let flood = Tally { came: 60, answered: 60, ..Tally::default() };
    assert_eq!(judge(&Facts { full, flood, limit: Limit::NotMet, ..well() }), Outcome::NoLimit);
}

#[test]
fn who_works_on_something_else_at_the_limit_does_not_spin() {
    let busy = Seen { owner_asleep: Some(false), cpu_percent: Some(60.0), ..Seen::default() };
    for verdict in [Verdict::Backpressure, Verdict::Stuck, Verdict::Healthy] {
        let full = Seen { verdict: Some(verdict), ..busy.clone() };
        assert_eq!(judge(&Facts { full, ..well() }), Outcome::WaitsWell, "{verdict:?}");
    }
    let full = Seen { verdict: Some(Verdict::Exhausted), ..busy };
    assert_eq!(judge(&Facts { full, ..well() }), Outcome::Spins);
}

#[test]
fn a_listener_that_nobody_ever_watched_is_told_from_one_that_was_disarmed() {
    let nobody = Seen { verdict: Some(Verdict::NobodyPolls), queued: Some(59), ..Seen::default() };
    let facts = Facts { after: nobody.clone(), ..stalled() };
    assert_eq!(judge(&facts), Outcome::Strands);
    assert_eq!(judge(&Facts { full: nobody, ..facts }), Outcome::StrandsUnpolled);
    assert_eq!(Outcome::StrandsUnpolled.exit_status(), Outcome::Strands.exit_status());
}

#[test]
fn what_cannot_be_told_has_its_reason() {
    assert_eq!(undetermined(&Facts::default()), Unseen::NotServing);
    assert_eq!(undetermined(&Facts { gone: true, ..well() }), Unseen::Gone);
    assert_eq!(undetermined(&Facts { freed: 0, ..stalled() }), Unseen::NoPlaceFreed);
    assert_eq!(undetermined(&Facts { left_behind: None, ..stalled() }), Unseen::QueueHidden);
    assert_eq!(undetermined(&Facts { stalled: false, ..stalled() }), Unseen::Slow);
    assert_eq!(undetermined(&Facts { newcomers: UNANSWERED, ..well() }), Unseen::TakenInSilence);
    for (verdict, unseen) in [(Verdict::Backpressure, Unseen::StillPaused), (Verdict::Stuck, Unseen::Awake)] {
        let after = Seen { verdict: Some(verdict), queued: Some(59), ..Seen::default() };
        assert_eq!(undetermined(&Facts { after, ..stalled() }), unseen);
    }
    let after = Seen { queued: Some(59), owner_asleep: Some(false), ..Seen::default() };
    assert_eq!(undetermined(&Facts { after, ..stalled() }), Unseen::Awake);
}
