//! Many seeds, and that a seed is all a run depends on.

use super::run::{Size, run};
use std::{env, iter::StepBy, ops::Range, panic};

/// How many seeds an ordinary test run tries.
const SEEDS: u64 = 300;

fn seeds() -> StepBy<Range<u64>> {
    let number = |text: &str| text.parse::<u64>().expect("a number is expected");
    if let Ok(seed) = env::var("MIDGE_SIM_SEED") {
        return (number(&seed)..number(&seed) + 1).step_by(1);
    }
    match env::var("MIDGE_SIM_SEEDS") {
        Ok(range) => {
            let (range, step) = range.split_once('/').unwrap_or((&range, "1"));
            let (from, to) = range.split_once("..").expect("MIDGE_SIM_SEEDS=from..to/step");
            (number(from)..number(to)).step_by(usize::try_from(number(step)).unwrap())
        }
        Err(_) => (0..SEEDS).step_by(1),
    }
}

#[test]
fn seeds_keep_every_rule_and_come_to_rest() {
    try_seeds(0);
}

#[test]
fn seeds_of_the_other_half_keep_every_rule_and_come_to_rest() {
    try_seeds(1);
}

/// Tries every other seed: two tests share two processors.
fn try_seeds(half: u64) {
    let verbose = env::var("MIDGE_SIM_TRACE").is_ok();
    let mut failed = Vec::new();
    for seed in seeds().filter(|seed| seed % 2 == half) {
        if panic::catch_unwind(|| run(seed, Size::of(seed), verbose)).is_err() {
            failed.push(seed);
        }
    }
    let replay = "MIDGE_SIM_SEED=<seed> MIDGE_SIM_TRACE=1 cargo test --lib sim::tests::seeds";
    assert!(failed.is_empty(), "seeds {failed:?} failed; replay one with: {replay}");
}

#[test]
fn one_seed_gives_one_trace_alone_and_in_a_batch() {
    let alone: Vec<u64> = (2..5).map(|seed| run(seed, Size::of(seed), false)).collect();
    let batch: Vec<u64> = (2..5).rev().map(|seed| run(seed, Size::of(seed), false)).collect();
    assert_eq!(alone, batch.into_iter().rev().collect::<Vec<_>>());
    assert_ne!(alone[0], alone[1], "the trace does not depend on the seed");
}
