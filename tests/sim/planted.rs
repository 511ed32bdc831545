//! A checker that never failed proves nothing: each invariant is shown a mesh
//! whose nodes all have one mistake planted, and must notice it.

use crate::faults::{Mood, Plan};
use crate::run::run;
use taskmesh_core::config::Planted;

#[test]
fn outcome_unique_notices_promises_made_alone() {
    caught(Planted::PromiseAlone, "outcome_unique");
}

#[test]
fn accepted_kept_notices_promises_made_alone() {
    caught(Planted::PromiseAlone, "accepted_kept");
}

#[test]
fn accepted_kept_notices_too_few_holders() {
    caught(Planted::AcceptShort, "accepted_kept");
}

#[test]
fn result_earned_notices_a_result_with_any_fence() {
    caught(Planted::AnyFence, "result_earned");
}

#[test]
fn pledge_monotonic_notices_a_holder_that_goes_below_its_pledge() {
    caught(Planted::PledgeDown, "pledge_monotonic");
}

#[test]
fn holders_converge_notices_holders_that_are_never_replaced() {
    caught(Planted::NeverMend, "holders_converge");
}

#[test]
fn holders_converge_notices_offers_that_are_never_repeated() {
    caught(Planted::NeverResend, "holders_converge");
}

#[test]
fn outcome_unique_or_finishes_notice_holders_replaced_in_one_step() {
    caught_by_any(Planted::MendInOneStep, &["outcome_unique", "one_granting_owner", "finishes", "accepted_kept"]);
}

#[test]
fn one_granting_owner_notices_a_claim_without_a_majority() {
    caught(Planted::ClaimAlone, "one_granting_owner");
}

#[test]
fn finishes_notices_offers_that_are_never_repeated() {
    caught(Planted::NeverResend, "finishes");
}

#[test]
fn known_everywhere_notices_claims_of_what_is_no_longer_kept() {
    caught(Planted::ClaimUnkept, "known_everywhere");
}

#[test]
fn dag_order_notices_a_task_before_what_it_depends_on() {
    caught(Planted::IgnoreDependencies, "dag_order");
}

#[test]
fn dag_order_notices_a_step_before_its_join_is_met() {
    caught(Planted::IgnoreJoins, "dag_order");
}

#[test]
fn join_policy_kept_notices_conditions_that_are_not_asked() {
    caught(Planted::IgnoreConditions, "join_policy_kept");
}

#[test]
fn step_released_once_notices_an_owner_that_begins_steps_anew() {
    caught(Planted::BeginAnew, "step_released_once");
}

#[test]
fn item_settled_once_notices_an_owner_that_begins_items_anew() {
    caught(Planted::BeginAnew, "item_settled_once");
}

#[test]
fn item_settled_once_notices_an_owner_that_skips_items() {
    caught(Planted::SkipItems, "item_settled_once");
}

#[test]
fn queue_bounded_notices_tasks_over_the_bound() {
    caught(Planted::Unbounded, "queue_bounded");
}

#[test]
fn accepted_kept_notices_a_task_forgotten_at_a_restart() {
    caught_by_any(Planted::ForgetAtRestart, &["accepted_kept", "finishes"]);
}

#[test]
fn no_starvation_notices_tasks_that_do_not_age() {
    let busy = |plan: Plan| Plan { tasks: 2_000, span: 40_000, ..plan };
    caught_in(Planted::NeverAge, &["no_starvation"], busy);
}

#[test]
fn limit_overshoot_bounded_notices_a_lender_that_does_not_count() {
    let busy = |plan: Plan| Plan { tasks: 2_000, span: 40_000, ..plan };
    caught_in(Planted::LendFreely, &["limit_overshoot_bounded"], busy);
}

#[test]
fn tick_fires_once_notices_an_heir_that_leaves_ticks_out() {
    caught(Planted::ForgetTicks, "tick_fires_once");
}

#[test]
fn one_granting_owner_or_outcome_unique_notice_an_heir_that_asks_nobody() {
    let invariants = ["one_granting_owner", "outcome_unique", "holders_converge", "result_earned"];
    caught_in(Planted::InheritAlone, &invariants, |plan| Plan { ravages: 3, ..plan });
}

fn caught(planted: Planted, invariant: &str) {
    caught_by_any(planted, &[invariant]);
}

/// One of the `invariants` must notice what is `planted`, within `SEEDS` seeds.
fn caught_by_any(planted: Planted, invariants: &[&str]) {
    caught_in(planted, invariants, |plan| plan);
}

fn caught_in(planted: Planted, invariants: &[&str], change: impl Fn(Plan) -> Plan) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let plan = change(Plan { planted: Some(planted), mood: Mood::Drawn, ..Plan::drawn(seed, 9) });
        let outcome = run(&plan);
        if outcome.violations.iter().any(|v| invariants.contains(&v.invariant)) {
            return;
        }
        others.extend(outcome.violations.into_iter().map(|v| v.invariant));
    }
    panic!("{planted:?} was not noticed by {invariants:?} in {SEEDS} seeds; others noticed: {others:?}");
}

/// Runs in which a planted mistake must show.
const SEEDS: u64 = 60;
