//! The executions that broke earlier wordings of the consensus rules, as stories of whole networks: real replicas, real
//! frames, played by hand up to the moment in question. Under the protocol nobody honest is named and the network decides;
//! with the rule taken away that an execution forced, the story fails where it should.

use super::scenarios::{opening, quiet, tell};
use Kind::{Precommit as C, Prevote as V, Proposal as P, Repair};
use timecoin::sim::script::Story;
use timecoin::sim::stage::{Kind, Pick};
use timecoin::sim::world::Options;
use timecoin::types::vote::VoteStep;

/// The four nodes in the order in which they lead the staged height.
fn leaders(s: &mut Story) -> [usize; 4] {
    let order = [0, 1, 2, 3].map(|round| s.leader(round));
    let mut sorted = order;
    sorted.sort_unstable();
    s.must("equal nodes lead in turn (B4)", sorted == [0, 1, 2, 3]);
    order
}

/// V1 up to round 3, where `c` proposes X with the valid round 0 once more; returns (`d`, X).
fn v1(s: &mut Story) -> (usize, timecoin::types::ids::BlockId) {
    opening(s);
    s.by_hand();
    let [a, d, b, c] = leaders(s);
    let all = [a, b, c, d];
    // Round 0: a, b, c prevote X; its polka comes late to b and c, all precommit nil.
    s.pay(&[a]);
    let x = s.proposed(0);
    s.give(P, 0, &[a], &[b, c]);
    s.until_said(&[a, b, c], V, 0, Some(x));
    s.give(V, 0, &[a, b], &[d]);
    s.until_said(&[d], V, 0, None);
    s.give(V, 0, &[d], &[a, b, c]);
    s.give(V, 0, &[b], &[a]);
    s.give(V, 0, &[a], &[b, c]);
    s.until_said(&all, C, 0, None);
    s.give(V, 0, &[c], &[b]);
    s.give(V, 0, &[b], &[c]);
    s.next_round(0, &all);
    // Round 1: d has seen nothing of X and proposes Y; a, c, d prevote it, only d sees the polka in time.
    let y = s.proposed(1);
    s.must("d proposes another block", x != y);
    s.give(P, 1, &[d], &[a, c]);
    s.until_said(&[a, c, d], V, 1, Some(y));
    s.until_said(&[b], V, 1, None);
    s.give(V, 1, &[a, c], &[d]);
    s.until_said(&[d], C, 1, Some(y));
    s.give(V, 1, &[a, c], &[b]);
    s.give(V, 1, &[b, d], &[a, c]);
    s.until_said(&[a, b, c], C, 1, None);
    s.next_round(1, &all);
    // Round 2: b proposes X with valid round 0; d is locked on Y, prevotes nil, sees the polka and locks X.
    s.give(P, 2, &[b], &[a, c, d]);
    s.give(Repair, 0, &[a, d], &[b, c]);
    s.give(Kind::Polka, 0, &[b, c], &[a, d]);
    s.until_said(&[a, b, c], V, 2, Some(x));
    s.until_said(&[d], V, 2, None);
    s.give(V, 2, &[a, b, c], &[d]);
    s.until_said(&[d], C, 2, Some(x));
    s.give(V, 2, &[d], &[a, b, c]);
    s.give(V, 2, &[a], &[b, c]);
    s.give(V, 2, &[b], &[a]);
    s.until_said(&[a, b, c], C, 2, None);
    s.next_round(2, &all);
    // Round 3: c has not seen the polka of round 2.
    s.give(P, 3, &[c], &[d]);
    (d, x)
}

#[test]
fn v1_an_honest_node_is_not_named() {
    tell(quiet(101), |s| {
        let (d, _) = v1(s);
        s.until_said(&[d], V, 3, None);
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

/// V2 up to the restart of `a`, which is alone in round 1; `d` has said its last word to `a` only.
fn v2(s: &mut Story) {
    opening(s);
    s.by_hand();
    let [d, b, c, a] = leaders(s);
    s.puppet(d);
    s.pay(&[b, c]);
    s.until_said(&[b, c], V, 0, None);
    s.vote(d, VoteStep::Prevote, 0, (None, None), &[b, c]);
    s.give(V, 0, &[b, c], &[b, c]);
    s.until_said(&[b, c], C, 0, None);
    s.vote(d, VoteStep::Precommit, 0, (None, None), &[a]);
    s.give(C, 0, &[b, c], &[a, b, c]);
    s.until_said(&[a], V, 1, None);
    s.must("a has said nothing in round 0", s.said(a, V, 0).is_none());
    s.kill(&[d]);
    s.restart(&[a], 100);
    s.pass(50);
    s.let_go();
}

#[test]
fn v2_what_let_a_node_into_its_round_survives_a_restart() {
    tell(quiet(102), |s| {
        v2(s);
        s.goes_on(1, 20_000);
    });
}

#[test]
fn v2_a_volatile_round_entry_halts_the_height() {
    let mut s = Story::begin(Options {
        forget: Some(timecoin::sim::disk::Forget::Kind(b'e')),
        check_disks: false,
        ..quiet(102)
    });
    v2(&mut s);
    s.stands_still("S5: nothing is enabled, for ever", 60_000);
    s.outcome().expect("nothing else goes wrong");
}

/// V3: `a` holds a lock that nobody knows of and leads no round of the height; `d` has fallen silent for good.
fn v3(s: &mut Story) {
    opening(s);
    s.at = s.world.checker.tip().next();
    let a = s.leader(0);
    let others: Vec<usize> = (0..4).filter(|i| *i != a).collect();
    s.world.hold(Pick::of(&[P]).by(&[a]));
    s.pay(&others);
    s.goes_on(1, 5_000);
    s.let_go();
    s.until_height(s.at, 1_000);
    s.pass(100);
    s.by_hand();
    let led = [0, 1, 2, 3].map(|round| s.leader(round));
    s.must("B4: the leader that failed is left out", !led.contains(&a));
    let b = led[0];
    let rest: Vec<usize> = others.into_iter().filter(|i| *i != b).collect();
    let (c, d) = (rest[0], rest[1]);
    s.pay(&[b]);
    let x = s.proposed(0);
    s.give(P, 0, &[b], &[a, d]);
    s.until_said(&[a, b, d], V, 0, Some(x));
    s.give(V, 0, &[b, d], &[a]);
    s.until_said(&[a], C, 0, Some(x));
    s.kill(&[d]);
    s.give(V, 0, &[a, b], &[c]);
    s.until_said(&[c], V, 0, None);
    s.give(V, 0, &[a, c], &[b]);
    s.until_said(&[b, c], C, 0, None);
    s.next_round(0, &[a, b, c]);
    s.let_go();
}

#[test]
fn v3_a_lock_of_a_node_that_never_leads_is_found() {
    tell(quiet(103), |s| {
        v3(s);
        s.goes_on(1, 30_000);
    });
}

/// V4 up to round 2, where the puppet `d` proposes X with both valid rounds; returns ([a, b, c, d], X).
fn v4(s: &mut Story) -> ([usize; 4], timecoin::types::ids::BlockId) {
    opening(s);
    s.by_hand();
    let [b, a, d, c] = leaders(s);
    let honest = [a, b, c];
    s.puppet(d);
    // Round 0: a and b prevote X, c sees it late; the puppet helps after the precommits.
    s.pay(&[b]);
    let x = s.proposed(0);
    s.give(P, 0, &[b], &[a]);
    s.until_said(&[a, b], V, 0, Some(x));
    s.give(V, 0, &[a, b], &[c]);
    s.until_said(&[c], V, 0, None);
    s.give(V, 0, &honest, &[a, b]);
    s.until_said(&honest, C, 0, None);
    s.give(P, 0, &[b], &[c]);
    s.vote(d, VoteStep::Prevote, 0, (Some(x), None), &honest);
    s.pass(50);
    s.next_round(0, &honest);
    // Round 1: all prevote X with valid round 0, and again see the polka after they have precommitted nil.
    s.give(P, 1, &[a], &[b, c]);
    s.until_said(&honest, V, 1, Some(x));
    s.vote(d, VoteStep::Prevote, 1, (None, None), &honest);
    s.give(V, 1, &[a], &[b, c]);
    s.give(V, 1, &[b], &[a]);
    s.until_said(&honest, C, 1, None);
    s.give(V, 1, &honest, &honest);
    s.pass(50);
    s.next_round(1, &honest);
    let block = s.world.block_on_disk(b, s.at).expect("b proposed it");
    s.propose(d, 2, Some(0), &block, &[a, b]);
    s.propose(d, 2, Some(1), &block, &[c]);
    s.until_said(&honest, V, 2, Some(x));
    ([a, b, c, d], x)
}

#[test]
fn v4_a_polka_stands_alone_whatever_proposal_was_seen() {
    tell(quiet(104), |s| {
        let ([a, b, c, d], x) = v4(s);
        s.give(V, 2, &[a, b], &[a, b, c]);
        s.pass(50);
        s.must(
            "S1: two valid rounds make no polka",
            s.said(c, C, 2).is_none(),
        );
        s.vote(d, VoteStep::Prevote, 2, (Some(x), Some(0)), &[c]);
        s.until_said(&[c], C, 2, Some(x));
        s.kill(&[d]);
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

#[test]
fn v8_a_restart_never_signs_a_position_again() {
    tell(quiet(108), |s| {
        opening(s);
        s.by_hand();
        let [d, a, b, c] = leaders(s);
        s.pay(&[d]);
        let y = s.proposed(0);
        s.give(P, 0, &[d], &[b, c]);
        s.until_said(&[b, c, d], V, 0, Some(y));
        s.give(V, 0, &[b, d], &[a]);
        s.until_said(&[a], V, 0, None);
        s.until_said(&[a], C, 0, None);
        s.restart(&[a], 100);
        s.give(V, 0, &[b, c, d], &[a]);
        s.give(Repair, 0, &[a], &[b, c, d]);
        s.give(P, 0, &[d], &[a]);
        s.until(
            "the polka reaches the node that has restarted",
            10_000,
            |w| {
                use timecoin::replica::record::Record;
                w.on_disk(a)
                    .any(|r| matches!(r, Record::Valid(_, block, _) if block == y))
            },
        );
        s.must("I1: no second precommit", s.said(a, C, 0) == Some(None));
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

#[test]
fn v10_a_leader_that_cannot_propose_runs_the_timer() {
    tell(quiet(110), |s| {
        opening(s);
        s.at = s.world.checker.tip().next();
        let [c, a, b, d] = leaders(s);
        s.world.lose(Pick::of(&[Kind::Payment]));
        s.kill(&[d]);
        s.pay(&[a, b]);
        s.goes_on(1, 2_000);
        s.must(
            "the leader of round 0 had nothing to propose",
            s.said(c, P, 0).is_none(),
        );
    });
}
