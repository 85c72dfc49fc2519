//! Every kind of adversary alone, below a third of the power, and a coalition above it: the chain forks, the checker sees
//! it, and what honest nodes have on their disks names the coalition and nobody else (S6).

use super::{SECOND, fail, this_test};
use std::collections::BTreeSet;
use timecoin::ledger::fork::{Attribution, power_of};
use timecoin::sim::adversary::{KINDS, coalition::Coalition, make};
use timecoin::sim::faults::Faults;
use timecoin::sim::network::FrameOdds;
use timecoin::sim::swarm::liveness_bound;
use timecoin::sim::world::{Options, World};
use timecoin::types::ids::{MasternodeId, is_over_third};

/// Some frames are lost and late, so that there are rounds to lie in.
fn mild() -> Faults {
    Faults {
        frames: FrameOdds {
            loss: 10_000,
            tail: 20_000,
            ..FrameOdds::default()
        },
        ..Faults::default()
    }
}

/// Runs and heals; the network must go on in spite of whoever is in it.
fn goes_on(options: &Options, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(options.clone());
    prepare(&mut world);
    let outcome = world.run(30 * SECOND).and_then(|()| {
        let bound = liveness_bound(&world);
        world.heal_and_settle(bound)
    });
    if let Err(violation) = outcome {
        fail(options, &violation, &this_test());
    }
    world
}

#[test]
fn below_a_third_no_kind_of_adversary_breaks_or_stops_the_network() {
    for kind in 0..KINDS {
        let options = Options {
            faults: mild(),
            ..Options::devnet(300 + kind as u64, 4)
        };
        let world = goes_on(&options, |world| world.corrupt(3, make(kind, 3)));
        let name = world.nodes[3].adversary.as_ref().map(|a| a.name());
        assert!(
            world.clients.settled > 10,
            "{name:?}: {}",
            world.clients.settled
        );
    }
}

#[test]
fn twins_below_a_third_break_nothing() {
    let options = Options {
        twins: vec![2],
        faults: mild(),
        ..Options::devnet(320, 4)
    };
    let world = goes_on(&options, |_| {});
    assert!(world.clients.settled > 10);
}

#[test]
fn double_spends_end_with_one_of_the_two() {
    let options = Options {
        double_spend: 1_000,
        faults: mild(),
        ..Options::devnet(321, 4)
    };
    let world = goes_on(&options, |_| {});
    assert!(world.clients.settled > 10);
}

#[test]
fn floods_of_valid_and_invalid_payments_and_full_blocks_delay_nobody_for_ever() {
    let options = Options {
        flood_per_s: 30,
        tight: true,
        ..Options::devnet(322, 4)
    };
    let world = goes_on(&options, |_| {});
    assert!(world.clients.settled > 10);
}

/// Whom honest nodes hold guilty of a fork.
fn named_by_honest_nodes(world: &World) -> BTreeSet<MasternodeId> {
    let honest = world.nodes.iter().filter(|n| n.is_honest());
    let forks = honest.filter_map(|n| n.running.as_ref()?.replica.fork());
    forks.flat_map(|f| f.culprits).map(|(id, _)| id).collect()
}

/// Whether the chain has slashed everybody of a coalition.
fn is_slashed(world: &World, members: &BTreeSet<MasternodeId>) -> bool {
    let mut running = world.nodes.iter().filter_map(|n| n.running.as_ref());
    running.any(|r| {
        let registry = r.replica.state().registry();
        let slashed = |id| registry.get(id).is_some_and(|e| e.slashed.is_some());
        members.iter().all(slashed)
    })
}

#[test]
fn a_coalition_over_a_third_forks_the_chain_and_is_named() {
    let mut named_count = 0;
    for seed in 1..=7 {
        let (coalition, options) = Coalition::of(seed);
        let options = Options {
            faults: mild(),
            ..options
        };
        let mut world = World::new(options.clone());
        if let Err(violation) = world.run(5 * SECOND) {
            fail(&options, &violation, &this_test());
        }
        coalition.split(&mut world);
        // If only liars have decided on one side, honest nodes that hold the proof stop, and name the culprits themselves.
        world.checker.forks_allowed = true;
        let forked = world.run_until(60 * SECOND, |w| w.checker.fork.is_some());
        let members = coalition.ids(&world);
        if is_slashed(&world, &members) {
            continue; // seen to sign twice before the split: who is slashed forks nothing
        }
        named_count += 1;
        if !forked.expect("nothing but the fork") {
            let named = named_by_honest_nodes(&world);
            let count = coalition.members.len() + coalition.honest.concat().len();
            assert!(3 * named.len() > count, "seed {seed}: S6: {named:?}");
            assert!(named.is_subset(&members), "seed {seed}: S6: {named:?}");
            continue;
        }
        let Some(Attribution::Culprits(evidence)) = world.attribution() else {
            panic!(
                "seed {seed}: V7: every polka needed is on an honest disk: {:?}",
                world.attribution()
            );
        };
        let set = world
            .checker
            .set_at(world.checker.fork.as_ref().expect("a fork").height());
        let set = set.expect("who decides");
        assert!(is_over_third(power_of(&evidence, set), set.total()), "S6");
        let innocent = evidence.iter().find(|e| !members.contains(&e.offender));
        assert!(
            innocent.is_none(),
            "seed {seed}: S6 names an honest node: {innocent:?}"
        );
    }
    assert!(named_count >= 4, "coalitions that forked: {named_count}");
}
