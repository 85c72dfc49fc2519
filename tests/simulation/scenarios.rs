//! Stories, each a script: what happens to which node, then what must be true. After each the network must recover.

use super::sets::signing;
use super::{fail, this_test};
use timecoin::sim::adversary;
use timecoin::sim::faults::Faults;
use timecoin::sim::network::FrameOdds;
use timecoin::sim::script::Story;
use timecoin::sim::stage::{Kind, Pick};
use timecoin::sim::swarm::liveness_bound;
use timecoin::sim::world::{Options, World};
use timecoin::types::ids::{Height, Round};

/// Tells a story and lets the network recover.
pub fn tell(options: Options, story: impl FnOnce(&mut Story)) -> World {
    let mut s = Story::begin(options.clone());
    story(&mut s);
    let bound = liveness_bound(&s.world);
    s.end(bound)
        .unwrap_or_else(|violation| fail(&options, &violation, &this_test()))
}

/// A devnet whose clients pay every now and then; four masternodes.
fn busy(seed: u64) -> Options {
    Options::devnet(seed, 4)
}

/// A devnet without payments but those a story makes.
pub fn quiet(seed: u64) -> Options {
    Options {
        pay_every_ms: 0,
        latency: (1_000, 5_000),
        ..Options::devnet(seed, 4)
    }
}

/// Everybody is connected and has decided height 1.
pub fn opening(s: &mut Story) {
    s.pass(1_500);
    s.pay(&[0, 1, 2, 3]);
    s.goes_on(1, 2_000);
    s.until_height(s.world.checker.tip(), 1_000);
    s.pass(200);
}

fn gap(w: &World, node: usize) -> u64 {
    w.checker.tip().0 - w.checker.heights[node].0
}

#[test]
fn a_dead_leader_for_a_whole_slot() {
    let world = tell(busy(11), |s| {
        s.pass(5_000);
        let dead = s.world.leader(Round(0));
        s.kill(&[dead]);
        s.goes_on(5, 5_000);
        s.pass(5_000);
    });
    assert!(world.clients.settled > 5, "three of four go on");
}

#[test]
fn a_hidden_lock() {
    // One node alone has seen a polka and is locked; the others decide another block without it, and it follows.
    tell(quiet(25), |s| {
        opening(s);
        s.by_hand();
        let [a, b, c, d] = [0, 1, 2, 3].map(|round| s.leader(round));
        s.pay(&[a]);
        let x = s.proposed(0);
        s.give(Kind::Proposal, 0, &[a], &[b, d]);
        s.until_said(&[a, b, d], Kind::Prevote, 0, Some(x));
        s.give(Kind::Prevote, 0, &[a, b], &[d]);
        s.until_said(&[d], Kind::Precommit, 0, Some(x));
        s.part(&[d]);
        s.give(Kind::Prevote, 0, &[a, b], &[a, b, c]);
        s.until_said(&[c], Kind::Prevote, 0, None);
        s.give(Kind::Prevote, 0, &[c], &[a, b]);
        s.until_said(&[a, b, c], Kind::Precommit, 0, None);
        s.let_go();
        s.goes_on(1, 20_000);
        let decided = s.world.checker.block_at(s.at);
        s.must("nobody knew of the polka", decided != Some(x));
        s.heal();
        s.until("the lock does not keep it from following", 20_000, |w| {
            gap(w, d) == 0
        });
    });
}

#[test]
fn a_late_polka() {
    // All precommit nil before the polka arrives: the next leader proposes the same block again (S1(b)).
    tell(quiet(26), |s| {
        opening(s);
        s.by_hand();
        let [a, b, c, d] = [0, 1, 2, 3].map(|round| s.leader(round));
        let all = [a, b, c, d];
        s.pay(&[a]);
        let x = s.proposed(0);
        s.give(Kind::Proposal, 0, &[a], &[b, c]);
        s.until_said(&[a, b, c], Kind::Prevote, 0, Some(x));
        s.give(Kind::Prevote, 0, &[a, b], &[d]);
        s.until_said(&[d], Kind::Prevote, 0, None);
        s.give(Kind::Prevote, 0, &[d], &all);
        s.give(Kind::Prevote, 0, &[a], &[b, c]);
        s.give(Kind::Prevote, 0, &[b], &[a]);
        s.until_said(&all, Kind::Precommit, 0, None);
        s.let_go();
        s.goes_on(1, 5_000);
        s.must(
            "the polka is not lost",
            s.world.checker.block_at(s.at) == Some(x),
        );
    });
}

#[test]
fn a_round_skip() {
    // One node hears nothing while the others go through rounds; what it hears then takes it to theirs at once.
    tell(quiet(27), |s| {
        opening(s);
        s.by_hand();
        let late = s.leader(1);
        let others: Vec<usize> = (0..4).filter(|i| *i != late).collect();
        let silent = [Kind::Prevote, Kind::Precommit, Kind::Proposal];
        s.pay(&others);
        s.until_any(&others, Kind::Prevote, 0);
        s.world
            .allow(Pick::of(&silent[..2]).by(&others).to(&others));
        s.until("the others have come to round 3", 30_000, |w| {
            others.iter().all(|i| w.round_of(*i) >= Some(Round(3)))
        });
        s.must(
            "the late node is where it was",
            s.world.round_of(late) == Some(Round(0)),
        );
        s.world
            .allow(Pick::of(&silent[..2]).by(&others).to(&[late]).round(3));
        s.until("line 55: it skips to theirs", 5_000, |w| {
            w.round_of(late) >= Some(Round(3))
        });
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

#[test]
fn a_partition_without_quorum_stops_and_heals() {
    tell(busy(12), |s| {
        s.pass(5_000);
        s.part(&[0, 1]);
        s.pass(2_000);
        s.stands_still("two of four decide nothing", 30_000);
        s.heal();
        s.goes_on(3, 20_000);
    });
}

#[test]
fn the_minority_side_catches_up() {
    tell(busy(13), |s| {
        s.pass(5_000);
        s.part(&[3]);
        s.goes_on(20, 60_000);
        s.must("a minority decides nothing", gap(&s.world, 3) >= 19);
        s.heal();
        s.until("F1: caught up", 20_000, |w| gap(w, 3) <= 1);
    });
}

#[test]
fn one_way_streets() {
    // Two pairs hear each other in one direction only, so that their connections die: words find their way by relay (S8).
    tell(busy(28), |s| {
        s.pass(5_000);
        s.cut_one_way(0, 1);
        s.cut_one_way(3, 2);
        s.goes_on(5, 30_000);
        s.pass(10_000);
        s.goes_on(5, 30_000);
    });
}

#[test]
fn all_down_at_once() {
    tell(busy(14), |s| {
        for _ in 0..5 {
            s.pass(4_000);
            s.restart(&[0, 1, 2, 3], 1_000);
        }
    });
}

#[test]
fn a_restart_storm() {
    tell(busy(15), |s| {
        for i in 0..40 {
            s.pass(1_000);
            s.restart(&[i % 4], 500);
        }
    });
}

#[test]
fn restarts_across_a_slot_boundary() {
    tell(quiet(16), |s| {
        for i in 0..8 {
            s.pass(4_000);
            let three: Vec<usize> = (0..3).map(|k| (i + k) % 4).collect();
            s.restart(&three, 2_000);
            s.pass(1_000);
        }
    });
}

#[test]
fn a_halt_of_twenty_slots() {
    let world = tell(busy(17), |s| {
        s.pass(5_000);
        s.kill(&[0, 1, 2, 3]);
        s.pass(100_000);
        s.start(&[0, 1, 2, 3]);
        s.goes_on(1, 5_000);
    });
    assert!(
        world.checker.tip().0 > 2,
        "S3: the clock has run on, one slot block is enough"
    );
}

#[test]
fn all_down_and_one_signer_store_lost() {
    // B7: the node that lost its store must not take the heights of its peers' first greetings for the network's tip.
    tell(busy(18), |s| {
        s.until_height(Height(5), 20_000);
        s.kill(&[0, 1, 2, 3]);
        let signed = s.world.checker.tip();
        s.lose_signer(2);
        s.start(&[0, 1, 2, 3]);
        s.goes_on(2, 20_000);
        s.must(
            "B7.5: nothing signed up to L + 2",
            s.world.nodes[2].signer.unsure.is_some() || s.world.checker.tip().0 >= signed.0 + 2,
        );
        s.until("B7.5: it signs again", 60_000, |w| {
            w.nodes[2].signer.unsure.is_none()
        });
    });
}

#[test]
fn a_ledger_lost_and_its_signer_store_kept() {
    // The lock of the height that comes again by sync would be forgotten: such a start is unsure.
    tell(busy(29), |s| {
        s.until_height(Height(5), 20_000);
        s.kill(&[1]);
        s.lose_ledger(1);
        s.start(&[1]);
        s.until("it has its ledger again", 10_000, |w| gap(w, 1) <= 1);
        s.until("it signs again", 60_000, |w| {
            w.nodes[1].signer.unsure.is_none()
        });
        s.goes_on(3, 10_000);
    });
}

#[test]
fn an_old_signer_store_is_restored() {
    tell(busy(19), |s| {
        s.pass(6_000);
        s.copy_signer(1);
        s.pass(6_000);
        s.kill(&[1]);
        s.restore_signer(1);
        s.start(&[1]);
        s.pass(30_000);
    });
}

/// Three of four decide a height. The fourth has prevoted too, and nobody has got that in time; a copy of its signer store
/// was made before. Returns the fourth, the others, and the height before.
fn decided_without(s: &mut Story) -> (usize, Vec<usize>, Height) {
    opening(s);
    s.by_hand();
    let back = (0..4).find(|i| *i != s.leader(0) && *i != s.leader(1));
    let back = back.unwrap_or_default();
    let others: Vec<usize> = (0..4).filter(|i| *i != back).collect();
    let before = s.world.checker.tip();
    s.copy_signer(back);
    s.pay(&[0, 1, 2, 3]);
    let leader = s.leader(0);
    let block = s.proposed(0);
    s.give(Kind::Proposal, 0, &[leader], &[0, 1, 2, 3]);
    s.until_said(&[0, 1, 2, 3], Kind::Prevote, 0, Some(block));
    s.give(Kind::Prevote, 0, &others, &others);
    s.until_said(&others, Kind::Precommit, 0, Some(block));
    s.give(Kind::Precommit, 0, &others, &others);
    let at = s.at;
    s.until("the others decide without it", 5_000, |w| {
        others.iter().all(|i| w.checker.heights[*i] == at)
    });
    s.pass(200);
    (back, others, before)
}

/// A host is down and is put back as a whole to the state of the copy.
fn put_back(s: &mut Story, node: usize, before: Height) {
    s.restore_signer(node);
    let genesis = s.world.genesis().clone();
    let node = &mut s.world.nodes[node];
    node.ledger.rewind(&genesis, before);
    node.amnesic = false;
}

/// B7 step 2: a vote that came when its height was over is held, though it never counted.
#[test]
fn a_host_that_was_put_back_is_shown_the_votes_that_came_late() {
    tell(quiet(31), |s| {
        let (back, others, before) = decided_without(s);
        s.give(Kind::Prevote, 0, &[back], &others);
        s.pass(200);
        s.kill(&[back]);
        put_back(s, back, before);
        s.let_go();
        s.start(&[back]);
        s.until("it is told, and doubts its store", 5_000, |w| {
            signing(w, back).is_err_and(|why| why.contains("key in use elsewhere"))
        });
        s.until("it signs again once it is safe", 60_000, |w| {
            signing(w, back).is_ok()
        });
    });
}

/// B7 step 2: a whole host is put back to a state before its last vote. Nobody holds that vote any more: it was in no
/// certificate, and the others have started again since. The height is over, and the host does not know it yet.
#[test]
fn a_host_that_was_put_back_signs_nothing_at_a_height_that_is_over() {
    tell(quiet(29), |s| {
        let (back, _, before) = decided_without(s);
        let at = s.at;
        s.kill(&[0, 1, 2, 3]);
        put_back(s, back, before);
        s.let_go();
        s.world
            .lose(Pick::of(&[Kind::Certificate, Kind::Block]).to(&[back]));
        s.start(&[0, 1, 2, 3]);
        // Payments and slots give it reasons to act.
        s.pass(1_000);
        s.pay(&[0, 1, 2, 3]);
        s.pass(10_000);
        let refuses = signing(&s.world, back);
        let over = format!("have decided height {at}");
        s.must(
            "it waits for the block",
            refuses.is_err_and(|why| why.contains(&over)),
        );
        s.let_go();
        s.until("it follows and signs", 20_000, |w| {
            gap(w, back) <= 1 && signing(w, back).is_ok()
        });
    });
}

#[test]
fn clocks_five_seconds_off_on_two_fifths_of_the_power() {
    tell(Options::devnet(20, 5), |s| {
        s.pass(5_000);
        s.set_clock(0, 5_000);
        s.set_clock(1, -5_000);
        s.goes_on(10, 60_000);
    });
}

#[test]
fn a_full_signer_disk_stops_signing_and_passes() {
    tell(busy(22), |s| {
        s.pass(5_000);
        s.fill_disk(0, 20_000);
        s.fill_disk(1, 20_000);
        s.pass(30_000);
    });
}

#[test]
fn mempools_that_differ_on_an_idle_chain() {
    // A payment is known to one node only and no node passes payments on: it is final all the same, before its slot ends.
    tell(quiet(23), |s| {
        opening(s);
        s.world.lose(Pick::of(&[Kind::Payment]));
        for knows in 0..4 {
            s.pass(300);
            s.pay(&[knows]);
            s.until("the payment is final", 20_000, |w| {
                w.clients.pending().is_empty()
            });
        }
    });
    let options = Options {
        pay_every_ms: 3_000,
        ..busy(23)
    };
    tell(options, |s| {
        s.world.storm(Faults {
            frames: FrameOdds {
                loss: 100_000,
                ..FrameOdds::default()
            },
            ..Faults::default()
        });
        s.pass(60_000);
    });
}

#[test]
fn bodies_with_mutated_witnesses() {
    // L4: what does not hash to the wanted wtxid costs its sender, never the block or the transaction.
    let world = tell(busy(30), |s| {
        let mutator = adversary::make(6, 30);
        s.must("it is that one", mutator.name().contains("witness"));
        s.world.corrupt(1, mutator);
        s.pass(30_000);
    });
    assert!(world.clients.settled > 20, "{:?}", world.report());
}

/// The block of a lagging node's next height waits for its signatures while sync delivers the ones after it.
#[test]
fn synced_blocks_before_their_turn_are_kept() {
    let options = Options {
        observers: 1,
        ..busy(24)
    };
    tell(options, |s| {
        s.pass(5_000);
        s.part(&[4]);
        s.pass(40_000);
        s.heal();
        s.until("found by seed 4", 10_000, |w| gap(w, 4) <= 2);
    });
}
