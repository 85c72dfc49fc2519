//! Every decoder of bytes from outside, under mutation for a bounded time.
//!
//! What a target accepts joins its corpus, so that structure grows from nothing: from zeros, and from a few texts. A target fails by
//! a panic or by breaking its property; the message then holds the input. TIMECOIN_FUZZ_MS is the time for each target (default
//! 300), TIMECOIN_FUZZ_SEED the seed (default 1). The same seed and count of rounds try the same inputs.

#[path = "fuzz/targets.rs"]
mod targets;

use std::time::{Duration, Instant};

use timecoin::base::hex;
use timecoin::base::rng::Rng;

use targets::{Target, targets};

/// Inputs kept of one target.
const CORPUS_COUNT_MAX: usize = 512;
/// Longest input that mutation makes, bytes.
const INPUT_SIZE_MAX: usize = 16 * 1024;
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: usize = 64;
/// Least rounds, however slow the machine is: a run always proves something.
const ROUNDS_MIN: usize = 2_000;

/// Values that lengths, counts and tags go wrong at.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    u64::MAX,
];

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// One changed input.
fn mutate(rng: &mut Rng, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let pick =
        |rng: &mut Rng, len: usize| usize::try_from(rng.below(len as u64)).expect("below a usize");
    let mut input = corpus[pick(rng, corpus.len())].clone();
    for _ in 0..=rng.below(3) {
        let at = pick(rng, input.len() + 1);
        match rng.below(9) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => input[at] = rng.next_u64().to_le_bytes()[0],
            2 => input.truncate(at),
            3 => {
                let count = pick(rng, 96);
                input.splice(at..at, std::iter::repeat_n(0, count));
            }
            4 => {
                let count = pick(rng, 16);
                let noise: Vec<u8> = (0..count)
                    .map(|_| rng.next_u64().to_le_bytes()[0])
                    .collect();
                input.splice(at..at, noise);
            }
            5 => {
                let width = 1 << pick(rng, 4);
                let edge = EDGES[pick(rng, EDGES.len())].to_le_bytes();
                let end = (at + width).min(input.len());
                input.splice(at..end, edge[..width].iter().copied());
            }
            6 => {
                let end = (at + pick(rng, 64)).min(input.len());
                input.drain(at..end);
            }
            7 => {
                let other = &corpus[pick(rng, corpus.len())];
                let tail = other[pick(rng, other.len() + 1)..].to_vec();
                input.splice(at.., tail);
            }
            _ if !words.is_empty() => {
                let word = words[pick(rng, words.len())];
                input.splice(at..at, word.bytes());
            }
            _ => {}
        }
    }
    input.truncate(INPUT_SIZE_MAX);
    input
}

/// Runs one target; answers (rounds, accepted).
fn run(target: &Target, seed: u64, time: Duration) -> (usize, usize) {
    let mut rng = Rng::new(seed);
    let mut corpus = target.seeds.clone();
    let (mut rounds, mut accepted) = (0, 0);
    let begin = Instant::now();
    while rounds < ROUNDS_MIN || begin.elapsed() < time {
        for _ in 0..ROUNDS_PER_LOOK {
            let input = mutate(&mut rng, &corpus, target.words);
            let verdict =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (target.judge)(&input)));
            let ok = verdict.unwrap_or_else(|_| {
                panic!(
                    "{} breaks on {} (seed {seed})",
                    target.name,
                    hex::encode(&input)
                );
            });
            rounds += 1;
            accepted += usize::from(ok);
            if ok && corpus.len() < CORPUS_COUNT_MAX {
                corpus.push(input);
            } else if ok {
                let place = usize::try_from(rng.below(corpus.len() as u64)).expect("below a usize");
                corpus[place] = input;
            }
        }
    }
    (rounds, accepted)
}

#[test]
fn no_decoder_breaks() {
    let time = Duration::from_millis(setting("TIMECOIN_FUZZ_MS", 300));
    let seed = setting("TIMECOIN_FUZZ_SEED", 1);
    for target in targets() {
        let (rounds, accepted) = run(&target, seed, time);
        println!(
            "{:28} {rounds:9} inputs, {accepted:8} accepted",
            target.name
        );
        assert!(
            accepted > 0,
            "{}: nothing was ever accepted, so nothing was tried",
            target.name
        );
    }
}
