//! The checks bite: whole networks of nodes that follow a mutated rule, or whose signer stores forget one kind of record,
//! are found out within a stated number of seeds; the protocol itself passes the same seeds. Rules whose absence shows only in
//! a rare execution are taken away in that execution (`executions`, one seed each), and from the core alone over hundreds
//! of random schedules (`src/consensus/tests/random.rs`, numbers there).

use super::{SECOND, fail, this_test};
use timecoin::consensus::rules::Rules;
use timecoin::sim::disk::Forget;
use timecoin::sim::faults::Faults;
use timecoin::sim::network::FrameOdds;
use timecoin::sim::swarm::liveness_bound;
use timecoin::sim::world::{Options, Violation, World};

/// Restarts at every point, late frames, lost frames: three or four rounds a height.
fn stormy() -> Faults {
    Faults {
        frames: FrameOdds {
            loss: 20_000,
            tail: 50_000,
            ..FrameOdds::default()
        },
        crash: 300_000,
        crash_inside: 2_000,
        flap: 100_000,
        partition: 50_000,
        outage_ms: 1_500,
        ..Faults::default()
    }
}

/// A network whose nodes fall and rise all the time.
fn network(seed: u64, count: usize) -> Options {
    Options {
        pay_every_ms: 300,
        latency: (1_000, 60_000),
        faults: stormy(),
        ..Options::devnet(seed, count)
    }
}

/// What a run of `seconds` finds, if anything.
fn found(options: &Options, seconds: u64) -> Option<Box<Violation>> {
    let mut world = World::new(options.clone());
    if options.seed.is_multiple_of(2) {
        // Transactions travel in blocks only: each payment is known where it was made (V10).
        let nodes = 0..options.collaterals.len();
        for (a, b) in nodes
            .clone()
            .flat_map(|a| nodes.clone().map(move |b| (a, b)))
        {
            let tx_frames = [64, 65, 66].map(|code| (a, b, code));
            world.network.deaf.extend(tx_frames);
        }
    }
    let outcome = world.run(seconds * SECOND).and_then(|()| {
        let bound = liveness_bound(&world);
        world.heal_and_settle(bound)
    });
    outcome.err()
}

/// The mutant of `of(seed)` is found within `seeds` seeds, and told as `rule`.
fn caught(name: &str, seeds: u64, seconds: u64, rules: &[&str], of: impl Fn(u64) -> Options) {
    let first =
        (1..=seeds).find_map(|seed| found(&of(seed), seconds).map(|found| (seed, found.what)));
    let (seed, what) = first.unwrap_or_else(|| panic!("{name}: not found in {seeds} seeds"));
    println!("{name}: seed {seed}: {what}");
    assert!(
        rules.iter().any(|rule| what.contains(rule)),
        "{name}: seed {seed}: {what}"
    );
}

/// Seeds of [`network`] that the protocol passes below, and the most that any mutant of a rule may take.
const SEEDS: u64 = 12;
/// Simulated seconds of each before it heals.
const SECONDS: u64 = 45;

#[test]
fn the_protocol_passes_the_seeds_that_find_its_mutants() {
    for seed in 1..=SEEDS {
        for options in [network(seed, 4), of_three(seed)] {
            if let Some(violation) = found(&options, SECONDS) {
                fail(&options, &violation, &this_test());
            }
        }
    }
}

/// Three masternodes of equal power: the only quorum is all of them, one unit less is two thirds.
fn of_three(seed: u64) -> Options {
    network(seed, 3)
}

#[test]
fn without_the_lock_rule() {
    caught("the lock", SEEDS, SECONDS, &["I4"], |seed| Options {
        rules: Rules {
            lock: false,
            ..Rules::default()
        },
        ..network(seed, 4)
    });
}

#[test]
fn with_a_quorum_that_is_one_unit_too_small() {
    caught("quorum", 3, SECONDS, &["certificate of"], |seed| Options {
        rules: Rules {
            quorum_gift: 1,
            ..Rules::default()
        },
        ..of_three(seed)
    });
}

/// S5, by kind of record: a disk that is compared with what is said betrays each at once, whatever follows from it.
#[test]
fn with_a_signer_store_that_forgets_something() {
    for (name, forget, rule) in [
        ("persistence skipped", Forget::Everything, "I1"),
        ("messages", Forget::Kind(b'm'), "I1"),
        ("proposals", Forget::Proposals, "I1"),
        ("nil precommits", Forget::NilPrecommits, "I1"),
        ("locks", Forget::Kind(b'l'), "I3"),
        ("polkas", Forget::Kind(b'p'), "I3"),
        ("round entries", Forget::Kind(b'e'), "S5"),
        ("blocks", Forget::Kind(b'b'), "S5"),
        ("certificates", Forget::Kind(b'c'), "I6"),
    ] {
        caught(name, 1, SECONDS, &[rule], |seed| Options {
            forget: Some(forget),
            ..network(seed, 4)
        });
    }
}

/// The same without looking at disks: what follows is found as well. A key that forgot what it said either says something
/// else (I1) or is told so by its peers and abstains (B7), and then nobody is left to sign.
#[test]
fn forgetting_has_consequences() {
    for (name, forget) in [
        ("persistence skipped", Forget::Everything),
        ("nil precommits", Forget::NilPrecommits),
        ("proposals", Forget::Proposals),
    ] {
        let rules = ["I1", "LIVENESS"];
        caught(name, 40, SECONDS, &rules, |seed| Options {
            forget: Some(forget),
            check_disks: false,
            faults: Faults {
                slow_disk: 700_000,
                crash: 900_000,
                ..stormy()
            },
            ..network(seed, 4)
        });
    }
}
