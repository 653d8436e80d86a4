//! The verdict for each combination of facts.

use super::*;
use crate::doctor::diagnose::{Cause, Verdict};

const NEW_CONNECTIONS: ClientCounts = ClientCounts { connected: 5, answered: 5, refused: 0, unanswered: 0 };
const UNANSWERED: ClientCounts = ClientCounts { connected: 5, answered: 0, refused: 0, unanswered: 5 };

/// A server that let connections wait at its limit and accepted them later.
fn well() -> Facts {
    Facts {
        behavior: Some(Behavior::Answers),
        held: 3,
        limit: Limit::Waits,
        flood: ClientCounts { connected: 60, unanswered: 60, ..ClientCounts::default() },
        freed: 1,
        resumed_with: Some(1),
        left_behind: Some(0),
        new_connections: NEW_CONNECTIONS,
        ..Facts::default()
    }
}

fn stalled() -> Facts {
    let after = DoctorSummary { queued: Some(59), owner_asleep: Some(true), ..DoctorSummary::default() };
    Facts {
        resumed_with: None,
        stalled: true,
        left_behind: Some(59),
        new_connections: UNANSWERED,
        after,
        ..well()
    }
}

fn undetermined(facts: &Facts) -> UndeterminedReason {
    match evaluate(facts) {
        StressVerdict::Undetermined(reason) => reason,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn accepting_all_later_waits_well() {
    assert_eq!(evaluate(&well()), StressVerdict::WaitsWell);
}

#[test]
fn refusing_then_serving_refuses_well() {
    let flood = ClientCounts { connected: 60, refused: 60, ..ClientCounts::default() };
    let facts = Facts { limit: Limit::Refuses, flood, resumed_with: None, ..well() };
    assert_eq!(evaluate(&facts), StressVerdict::RefusesWell);
    let new_connections = ClientCounts { connected: 5, refused: 5, ..ClientCounts::default() };
    assert_eq!(undetermined(&Facts { new_connections, ..facts }), UndeterminedReason::StillRefuses);
}

#[test]
fn accepting_all_at_once_is_no_limit() {
    let flood = ClientCounts { connected: 60, answered: 60, ..ClientCounts::default() };
    assert_eq!(evaluate(&Facts { limit: Limit::NotMet, flood, ..well() }), StressVerdict::NoLimit);
}

#[test]
fn leaving_connections_queued_strands() {
    assert_eq!(evaluate(&stalled()), StressVerdict::Strands);
    // Answered new connections do not make up for stranded ones.
    assert_eq!(evaluate(&Facts { new_connections: NEW_CONNECTIONS, ..stalled() }), StressVerdict::Strands);
    // The same holds if the owner is not visible.
    let after = DoctorSummary { queued: Some(59), ..DoctorSummary::default() };
    assert_eq!(evaluate(&Facts { after, ..stalled() }), StressVerdict::Strands);
}

#[test]
fn running_at_the_limit_spins_only_if_counted() {
    let full =
        DoctorSummary { owner_asleep: Some(false), cpu_percent: Some(60.0), ..DoctorSummary::default() };
    assert_eq!(evaluate(&Facts { full: full.clone(), ..well() }), StressVerdict::Busy);
    let counted = |waits_return| DoctorSummary { waits_return: Some(waits_return), ..full.clone() };
    assert_eq!(evaluate(&Facts { full: counted(true), ..well() }), StressVerdict::Spins);
    assert_eq!(evaluate(&Facts { full: counted(false), ..well() }), StressVerdict::WaitsWell);
    // Work for served connections is not spinning.
    let flood = ClientCounts { connected: 60, answered: 60, ..ClientCounts::default() };
    assert_eq!(evaluate(&Facts { full, flood, limit: Limit::NotMet, ..well() }), StressVerdict::NoLimit);
}

#[test]
fn other_work_at_the_limit_is_not_spinning() {
    let busy =
        DoctorSummary { owner_asleep: Some(false), cpu_percent: Some(60.0), ..DoctorSummary::default() };
    for verdict in [Verdict::AtLimit, Verdict::Busy, Verdict::Healthy] {
        let full = DoctorSummary { verdict: Some(verdict), ..busy.clone() };
        assert_eq!(evaluate(&Facts { full, ..well() }), StressVerdict::WaitsWell, "{verdict:?}");
    }
    let uncounted =
        DoctorSummary { verdict: Some(Verdict::Busy), cause: Some(Cause::Computes), ..busy.clone() };
    let counted = DoctorSummary { waits_return: Some(false), ..uncounted.clone() };
    let starved = DoctorSummary { cpu_percent: Some(3.0), ..uncounted.clone() };
    assert_eq!(evaluate(&Facts { full: uncounted, ..well() }), StressVerdict::Busy);
    assert_eq!(evaluate(&Facts { full: starved, ..well() }), StressVerdict::Busy);
    assert_eq!(evaluate(&Facts { full: counted, ..well() }), StressVerdict::WaitsWell);
    let full = DoctorSummary { verdict: Some(Verdict::Exhausted), ..busy };
    assert_eq!(evaluate(&Facts { full: full.clone(), ..well() }), StressVerdict::Busy);
    let full = DoctorSummary { waits_return: Some(true), ..full };
    assert_eq!(evaluate(&Facts { full, ..well() }), StressVerdict::Spins);
}

#[test]
fn never_polled_differs_from_deregistered() {
    let not_polled = DoctorSummary {
        verdict: Some(Verdict::NotAccepting),
        cause: Some(Cause::Unwatched),
        queued: Some(59),
        ..DoctorSummary::default()
    };
    let facts = Facts { after: not_polled.clone(), ..stalled() };
    assert_eq!(evaluate(&facts), StressVerdict::Strands);
    assert_eq!(evaluate(&Facts { full: not_polled, ..facts }), StressVerdict::StrandsUnpolled);
    assert_eq!(StressVerdict::StrandsUnpolled.exit_status(), StressVerdict::Strands.exit_status());
}

#[test]
fn undetermined_states_its_reason() {
    assert_eq!(undetermined(&Facts::default()), UndeterminedReason::NotServing);
    assert_eq!(undetermined(&Facts { gone: true, ..well() }), UndeterminedReason::Gone);
    assert_eq!(undetermined(&Facts { freed: 0, ..stalled() }), UndeterminedReason::NoPlaceFreed);
    assert_eq!(undetermined(&Facts { left_behind: None, ..stalled() }), UndeterminedReason::QueueHidden);
    assert_eq!(undetermined(&Facts { stalled: false, ..stalled() }), UndeterminedReason::Slow);
    assert_eq!(
        undetermined(&Facts { new_connections: UNANSWERED, ..well() }),
        UndeterminedReason::TakenInSilence
    );
    for (verdict, reason) in
        [(Verdict::AtLimit, UndeterminedReason::StillPaused), (Verdict::Busy, UndeterminedReason::Awake)]
    {
        let after = DoctorSummary { verdict: Some(verdict), queued: Some(59), ..DoctorSummary::default() };
        assert_eq!(undetermined(&Facts { after, ..stalled() }), reason);
    }
    let after = DoctorSummary { queued: Some(59), owner_asleep: Some(false), ..DoctorSummary::default() };
    assert_eq!(undetermined(&Facts { after, ..stalled() }), UndeterminedReason::Awake);
}
