//! The seeds of the fuzz target, and mutants of them, through the same function: what fuzzing does for hours, in seconds
//! and with any toolchain.

#[path = "../../fuzz/judge.rs"]
mod judge;

use std::path::Path;

use judge::{WAYS, judge};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MUTANTS: usize = 20_000;
/// Most mutations of one mutant.
const MUTATIONS: usize = 4;
/// Longest mutant, in bytes.
const LENGTH: usize = 4096;
/// Pieces that parsers stumble over.
const TOKENS: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "é",
    "null",
    "true",
    "-",
    "1e999",
    "1e-999",
    "00",
    "0.",
    "[[[[[[[[[[",
    "\"payload\":",
    "\"event_type\":\"\",",
    " ",
    "\n",
    "2026-02-30T00:00:00Z",
];

fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/ingest_body");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// A stretch of at most 16 bytes.
fn stretch(rng: &mut StdRng, text: &[u8]) -> std::ops::Range<usize> {
    let start = rng.random_range(0..=text.len());
    start..(start + rng.random_range(0..16)).min(text.len())
}

fn mutate(rng: &mut StdRng, text: &mut Vec<u8>, other: &[u8]) {
    let at = stretch(rng, text);
    match rng.random_range(0..6) {
        0 => drop(text.drain(at)),
        1 => drop(text.splice(at, TOKENS[rng.random_range(0..TOKENS.len())].bytes())),
        2 => drop(text.splice(at.start..at.start, TOKENS[rng.random_range(0..TOKENS.len())].bytes())),
        3 => {
            let again = text[at.clone()].repeat(rng.random_range(1..40));
            drop(text.splice(at, again));
        }
        4 => text[at].iter_mut().for_each(|byte| *byte ^= 1 << rng.random_range(0..8)),
        _ => {
            let from = stretch(rng, other);
            drop(text.splice(at, other[from].iter().copied()));
        }
    }
    text.truncate(LENGTH);
}

#[test]
fn mutants_of_good_bodies_never_panic_and_what_is_accepted_can_be_read() {
    let seeds = seeds();
    for seed in &seeds {
        assert!(sum(&judge(seed)) > 0, "a good body is refused: {}", String::from_utf8_lossy(seed));
    }
    let mut rng = StdRng::seed_from_u64(4711);
    let (mut accepted, mut by_way) = (0, [0; WAYS.len()]);
    for _ in 0..MUTANTS {
        let mut mutant = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..=MUTATIONS) {
            let other = &seeds[rng.random_range(0..seeds.len())];
            mutate(&mut rng, &mut mutant, other);
        }
        let judged = std::panic::catch_unwind(|| judge(&mutant));
        let judged = judged.unwrap_or_else(|_| panic!("of: {:?}", String::from_utf8_lossy(&mutant)));
        accepted += usize::from(sum(&judged) > 0);
        by_way.iter_mut().zip(judged).for_each(|(of_way, events)| *of_way += usize::from(events > 0));
    }
    let share = accepted * 100 / MUTANTS;
    assert!((5..95).contains(&share), "{share} % of the mutants were accepted: the mutations are lopsided");
    for (way, accepted) in WAYS.iter().zip(by_way) {
        assert!(
            (MUTANTS / 200..MUTANTS).contains(&accepted),
            "{accepted} mutants were accepted as {way}: it is hardly tried"
        );
    }
}

fn sum(events: &[usize]) -> usize {
    events.iter().sum()
}
