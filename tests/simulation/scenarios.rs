//! Stories, each a script: what happens to which node, then what must be true. After each the network must recover.

use super::{SECOND, fail, this_test};
use timecoin::sim::faults::Faults;
use timecoin::sim::script::Story;
use timecoin::sim::swarm::liveness_bound;
use timecoin::sim::world::{Options, World};

/// Tells a story in a network of masternodes and ends it well.
fn story(options: Options, tell: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(options.clone());
    tell(&mut world);
    let bound = liveness_bound(&world);
    if let Err(violation) = world.heal_and_settle(bound) {
        fail(&options, &violation, &this_test());
    }
    world
}

/// Tells a story and lets the network recover.
pub fn tell(options: Options, story: impl FnOnce(&mut Story)) -> World {
    let mut s = Story::begin(options.clone());
    story(&mut s);
    let bound = liveness_bound(&s.world);
    s.end(bound)
        .unwrap_or_else(|violation| fail(&options, &violation, &this_test()))
}

/// Time passes.
fn pass(world: &mut World, seconds: u64) {
    if let Err(violation) = world.run(seconds * SECOND) {
        violation.trace.iter().for_each(|line| println!("{line}"));
        panic!("{violation}");
    }
}

#[test]
fn a_dead_leader_for_a_whole_slot() {
    let mut first = 0;
    let world = story(Options::devnet(11, 4), |w| {
        pass(w, 5);
        w.crash(1, None);
        let before = w.checker.tip();
        pass(w, 10);
        first = w.checker.tip().0 - before.0;
    });
    assert!(first >= 2, "three of four go on: {first} blocks");
    assert!(world.clients.settled > 5);
}

#[test]
fn a_partition_without_quorum_stops_and_heals() {
    story(Options::devnet(12, 4), |w| {
        pass(w, 5);
        w.isolate(&[0, 1]);
        pass(w, 2);
        let before = w.checker.tip();
        pass(w, 30);
        assert_eq!(w.checker.tip(), before, "two of four decide nothing");
    });
}

#[test]
fn the_minority_side_catches_up() {
    story(Options::devnet(13, 4), |w| {
        pass(w, 5);
        w.isolate(&[3]);
        pass(w, 60);
        assert!(w.checker.heights[3] < w.checker.heights[0]);
        w.reconnect();
        pass(w, 20);
        assert!(
            w.checker.heights[3].0 + 2 >= w.checker.heights[0].0,
            "F1: caught up"
        );
    });
}

#[test]
fn all_down_at_once() {
    story(Options::devnet(14, 4), |w| {
        for _ in 0..5 {
            pass(w, 4);
            (0..4).for_each(|i| w.crash(i, Some(SECOND)));
        }
    });
}

#[test]
fn a_restart_storm() {
    story(Options::devnet(15, 4), |w| {
        for i in 0..40 {
            pass(w, 1);
            w.crash(i % 4, Some(SECOND / 2));
        }
    });
}

#[test]
fn restarts_across_a_slot_boundary() {
    story(
        Options {
            pay_every_ms: 0,
            ..Options::devnet(16, 4)
        },
        |w| {
            for i in 0..8 {
                pass(w, 4);
                (0..3).for_each(|k| w.crash((i + k) % 4, Some(2 * SECOND)));
                pass(w, 1);
            }
        },
    );
}

#[test]
fn a_halt_of_twenty_slots() {
    let world = story(Options::devnet(17, 4), |w| {
        pass(w, 5);
        (0..4).for_each(|i| w.crash(i, None));
        pass(w, 100);
    });
    assert!(
        world.checker.tip().0 > 2,
        "S3: the clock has run on, one slot block is enough"
    );
}

#[test]
fn a_power_cut_with_one_lost_signer_store() {
    story(Options::devnet(18, 4), |w| {
        pass(w, 6);
        (0..4).for_each(|i| w.crash(i, Some(SECOND)));
        w.nodes[2].signer.lose();
        pass(w, 60);
        let down = |n: &timecoin::sim::node::Node| n.signer.unsure.is_some();
        assert!(!w.nodes.iter().any(down), "B7.5: it signs again");
    });
}

#[test]
fn an_old_signer_store_is_restored() {
    story(Options::devnet(19, 4), |w| {
        pass(w, 6);
        let old = w.nodes[1].signer.records.clone();
        pass(w, 6);
        w.crash(1, None);
        w.nodes[1].signer.records = old;
        w.nodes[1].signer.highest = None;
        w.nodes[1].amnesic = true;
        w.power_on(1);
        pass(w, 30);
    });
}

#[test]
fn clocks_five_seconds_off_on_two_fifths_of_the_power() {
    story(Options::devnet(20, 5), |w| {
        pass(w, 5);
        w.nodes[0].clock.offset_ms = 5_000;
        w.nodes[1].clock.offset_ms = -5_000;
        let before = w.checker.tip();
        pass(w, 60);
        assert!(w.checker.tip() > before, "S4: precision grows with rounds");
    });
}

#[test]
fn a_node_a_thousand_blocks_behind() {
    let options = Options {
        pay_every_ms: 40,
        ..Options::devnet(21, 4)
    };
    story(options, |w| {
        pass(w, 5);
        w.crash(3, None);
        pass(w, 60);
        assert!(w.checker.tip().0 > 500);
        w.power_on(3);
        pass(w, 15);
        assert!(
            w.checker.heights[3].0 + 20 >= w.checker.heights[0].0,
            "F1: never at the pace of timeouts"
        );
    });
}

#[test]
fn a_full_signer_disk_stops_signing_and_passes() {
    story(Options::devnet(22, 4), |w| {
        pass(w, 5);
        let until = w.now() + 20 * SECOND;
        w.nodes[0].full_until = until;
        w.nodes[1].full_until = until;
        pass(w, 30);
    });
}

#[test]
fn mempools_that_differ_on_an_idle_chain() {
    let options = Options {
        pay_every_ms: 3_000,
        ..Options::devnet(23, 4)
    };
    story(options, |w| {
        let faults = Faults {
            frames: timecoin::sim::network::FrameOdds {
                loss: 100_000,
                ..Default::default()
            },
            ..Default::default()
        };
        w.storm(faults);
        pass(w, 60);
    });
}

/// The block of a lagging node's next height waits for its signatures while sync delivers the ones after it.
#[test]
fn synced_blocks_before_their_turn_are_kept() {
    story(
        Options {
            observers: 1,
            ..Options::devnet(24, 4)
        },
        |w| {
            pass(w, 5);
            w.isolate(&[4]);
            pass(w, 40);
            w.reconnect();
            pass(w, 10);
            assert!(
                w.checker.heights[4].0 + 2 >= w.checker.tip().0,
                "found by seed 4"
            );
        },
    );
}
