//! The executions that broke earlier wordings of the consensus rules, as stories of whole networks: real replicas, real
//! frames, played by hand up to the moment in question. Under the protocol nobody honest is named and the network decides;
//! with the rule taken away that an execution forced, the story fails where it should.

use super::scenarios::{opening, quiet, tell};
use Kind::{Precommit as C, Prevote as V, Proposal as P, Repair};
use timecoin::base::bounded::BoundedVec;
use timecoin::consensus::rules::Rules;
use timecoin::crypto::verify::verify_all;
use timecoin::ledger::fork::{Attribution, attribute, check_proof};
use timecoin::replica::record::Record;
use timecoin::sim::disk::Forget;
use timecoin::sim::script::Story;
use timecoin::sim::stage::{Kind, Pick};
use timecoin::sim::world::{Options, Violation, World};
use timecoin::types::bitmap::Bitmap;
use timecoin::types::block::{Block, Certificate, Commit};
use timecoin::types::fork::{Decision, ForkProof};
use timecoin::types::ids::{Branch, Round};
use timecoin::types::polka::Polka;
use timecoin::types::vote::{Vote, VoteStep};

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

/// What a story finds that is told to the end and not healed.
fn outcome(options: Options, story: impl FnOnce(&mut Story)) -> Result<World, Box<Violation>> {
    let mut s = Story::begin(options);
    story(&mut s);
    s.outcome()
}

/// The network of a story whose nodes follow a mutated rule.
fn mutated(seed: u64, rules: Rules) -> Options {
    Options {
        rules,
        ..quiet(seed)
    }
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

#[test]
fn v1_the_papers_loose_lock_names_an_honest_node() {
    let rules = Rules {
        strict_lock: false,
        ..Rules::default()
    };
    let found = outcome(mutated(101, rules), |s| {
        let (d, _) = v1(s);
        s.until_any(&[d], V, 3);
    });
    let what = found.err().map(|violation| violation.what);
    assert!(
        what.as_ref().is_some_and(|what| what.contains("I4")),
        "it precommitted Y in round 1 and prevotes X with valid round 0 in round 3 (S6): {what:?}"
    );
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
    let options = Options {
        forget: Some(Forget::Kind(b'e')),
        check_disks: false,
        ..quiet(102)
    };
    let found = outcome(options, |s| {
        v2(s);
        s.stands_still("S5: nothing is enabled, for ever", 60_000);
    });
    found.expect("nothing else goes wrong");
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

#[test]
fn v3_polkas_of_the_current_round_only_halt_the_height() {
    let rules = Rules {
        any_round_polka: false,
        ..Rules::default()
    };
    let found = outcome(mutated(103, rules), |s| {
        v3(s);
        s.stands_still("S1(b): the lock of a node that never leads", 120_000);
    });
    found.expect("nothing else goes wrong");
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
        s.must(
            "S6: what is on disk convinces everybody",
            polkas_hold(&s.world, c),
        );
        s.kill(&[d]);
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

#[test]
fn v4_mixed_valid_rounds_make_proofs_that_prove_nothing() {
    let rules = Rules {
        one_valid_round: false,
        ..Rules::default()
    };
    let mut s = Story::begin(mutated(104, rules));
    let ([a, b, c, _], x) = v4(&mut s);
    s.give(V, 2, &[a, b], &[c]);
    s.until_said(&[c], C, 2, Some(x));
    s.must(
        "S6: what c has on disk convinces nobody",
        !polkas_hold(&s.world, c),
    );
    s.outcome().expect("nothing else goes wrong");
}

/// Whether all polkas on the signer disk of a node verify.
fn polkas_hold(world: &World, node: usize) -> bool {
    let set = &world.nodes[node].ledger.state.validators;
    let chain = world.genesis().chain_id();
    let holds = |polka: &Polka| {
        let checks = polka.checks(chain, Branch(0), set);
        checks.is_ok_and(|checks| verify_all(&checks))
    };
    world.on_disk(node).all(|record| match record {
        Record::Polka(polka) => holds(&polka),
        _ => true,
    })
}

/// V7: two of four are puppets, enough to decide both X in round 1 and Y in round 2 with the one honest node `h1`.
struct TwoDecisions {
    h1: usize,
    puppets: [usize; 2],
    blocks: [Block; 2],
}

fn v7(s: &mut Story) -> TwoDecisions {
    opening(s);
    s.by_hand();
    let [h1, d1, d2, h2] = leaders(s);
    let puppets = [d1, d2];
    puppets.iter().for_each(|d| s.puppet(*d));
    // Round 0 brings nothing; the leader of round 1 is a puppet that has two blocks.
    s.pay(&[h2]);
    s.until_said(&[h2], V, 0, None);
    for d in puppets {
        s.vote(d, VoteStep::Prevote, 0, (None, None), &[h1, h2, d1]);
        s.vote(d, VoteStep::Precommit, 0, (None, None), &[h1, h2, d1]);
    }
    s.give(V, 0, &[h2], &[h1, d1]);
    s.until_said(&[h1, h2], C, 0, None);
    s.give(C, 0, &[h1, h2], &[h1, h2, d1]);
    let at = s.at;
    s.until("the puppet has built a block of round 1", 10_000, |w| {
        w.block_on_disk(d1, at).is_some()
    });
    let x = s.world.block_on_disk(d1, at).expect("just seen");
    let mut y = x.clone();
    y.header.time = y.header.time.plus(1);
    s.propose(d1, 1, None, &x, &[h2]);
    s.propose(d1, 1, None, &y, &[h1]);
    let (ids, round) = ([x.id(), y.id()], 1);
    s.until_said(&[h2], V, round, Some(ids[0]));
    s.until_said(&[h1], V, round, Some(ids[1]));
    // Polka X@1 of h2 and the puppets: h1 is locked on X and helps to decide it.
    s.propose(d1, 1, None, &x, &[h1]);
    s.give(V, round, &[h2], &[h1]);
    for d in puppets {
        s.vote(d, VoteStep::Prevote, round, (Some(ids[0]), None), &[h1]);
    }
    s.until_said(&[h1], C, round, Some(ids[0]));
    // Polka Y@1 of h1 and the puppets; round 2 proposes Y again, and h1 helps to decide that as well.
    for d in puppets {
        s.vote(d, VoteStep::Prevote, round, (Some(ids[1]), None), &[h1]);
        s.vote(d, VoteStep::Precommit, round, (None, None), &[h1]);
    }
    s.until("h1 enters round 2", 10_000, |w| {
        w.round_of(h1) == Some(Round(2))
    });
    s.propose(d2, 2, Some(1), &y, &[h1]);
    s.until_said(&[h1], V, 2, Some(ids[1]));
    for d in puppets {
        s.vote(d, VoteStep::Prevote, 2, (Some(ids[1]), Some(1)), &[h1]);
    }
    s.until_said(&[h1], C, 2, Some(ids[1]));
    TwoDecisions {
        h1,
        puppets,
        blocks: [x, y],
    }
}

/// The certificate that h1 and the puppets make for a block.
fn certificate(s: &Story, two: &TwoDecisions, block: &Block, round: u32) -> Certificate {
    let id = block.id();
    let own = s.world.on_disk(two.h1).find_map(|record| match record {
        Record::Vote(v) if v.body.block == Some(id) && v.body.step == VoteStep::Precommit => {
            Some(v)
        }
        _ => None,
    });
    let set = s.world.nodes[two.h1].ledger.state.validators.clone();
    let signed = |d: &usize| s.signed(*d, VoteStep::Precommit, round, (Some(id), None));
    let votes = own.into_iter().chain(two.puppets.iter().filter_map(signed));
    let mut votes: Vec<(usize, Vote)> = votes
        .filter_map(|vote| Some((set.index_of(&vote.voter)?, vote)))
        .collect();
    votes.sort_unstable_by_key(|(index, _)| *index);
    Certificate {
        height: s.at,
        block: id,
        commit: Commit {
            at: votes[0].1.body.at(),
            signers: Bitmap::from_ones(set.len(), votes.iter().map(|(index, _)| *index)),
            signatures: BoundedVec::take_from(votes.iter().map(|(_, vote)| vote.signature)),
        },
    }
}

#[test]
fn v7_a_fork_names_the_guilty_after_a_restart() {
    let mut s = Story::begin(quiet(107));
    let two = v7(&mut s);
    assert!(
        s.holds(),
        "{:?}",
        s.outcome().err().map(|v| (v.trace, v.what))
    );
    s.restart(&[two.h1], 100);
    s.pass(500);
    let decision = |block: &Block, round| Decision {
        header: block.header.clone(),
        certificate: certificate(&s, &two, block, round),
    };
    let fork = ForkProof::of(decision(&two.blocks[0], 1), decision(&two.blocks[1], 2));
    let set = s.world.nodes[two.h1].ledger.state.validators.clone();
    let chain = s.world.genesis().chain_id();
    let checks = check_proof(&fork, chain, &set).expect("both certificates have their form");
    assert!(verify_all(&checks), "both blocks are decided: a fork");
    let polkas: Vec<Polka> = s
        .world
        .on_disk(two.h1)
        .filter_map(|record| match record {
            Record::Polka(polka) => Some(polka),
            _ => None,
        })
        .collect();
    let Attribution::Culprits(named) = attribute(&fork, &set, &polkas) else {
        panic!("S6: a polka is missing: {polkas:?}");
    };
    let mut named: Vec<_> = named
        .into_iter()
        .map(|evidence| evidence.offender)
        .collect();
    let puppet = |d: &usize| s.world.nodes[*d].operator.as_ref().map(|(id, _)| *id);
    let mut guilty: Vec<_> = two.puppets.iter().filter_map(puppet).collect();
    named.sort_unstable();
    guilty.sort_unstable();
    assert_eq!(named, guilty, "S6: the puppets and nobody else");
    // Nobody precommitted Y in round 1: only the rule that a prevote takes its polka to the disk kept this one.
    let y = two.blocks[1].id();
    let locks = |p: &&Polka| p.block != y || p.at().round != Round(1);
    let without: Vec<Polka> = polkas.iter().filter(locks).cloned().collect();
    assert!(matches!(
        attribute(&fork, &set, &without),
        Attribution::Missing { .. }
    ));
}

/// V8: `a` has prevoted and precommitted nil, restarts, and then the polka of that round arrives.
fn v8(s: &mut Story) {
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
    s.pass(1_000);
    s.give(V, 0, &[b, c, d], &[a]);
    s.give(Repair, 0, &[a], &[b, c, d]);
    s.give(P, 0, &[d], &[a]);
    s.until(
        "the polka reaches the node that has restarted",
        10_000,
        |w| {
            w.on_disk(a)
                .any(|r| matches!(r, Record::Valid(_, block, _) if block == y))
        },
    );
    s.pass(200);
    s.must("I1: no second precommit", s.said(a, C, 0) == Some(None));
}

#[test]
fn v8_a_restart_never_signs_a_position_again() {
    tell(quiet(108), |s| {
        v8(s);
        s.let_go();
        s.goes_on(1, 20_000);
    });
}

#[test]
fn v8_a_forgotten_nil_precommit_is_signed_over() {
    let options = Options {
        forget: Some(Forget::NilPrecommits),
        check_disks: false,
        ..quiet(108)
    };
    let found = outcome(options, v8);
    let what = found.err().map(|violation| violation.what);
    assert!(
        what.as_ref().is_some_and(|what| what.contains("I1")),
        "{what:?}"
    );
}

/// V10: a payment at `a` and `b`; the leader `c` does not know it, `d` is silent. Decided before any slot ends.
fn v10(s: &mut Story) {
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
}

#[test]
fn v10_a_leader_that_cannot_propose_runs_the_timer() {
    tell(quiet(110), v10);
}

#[test]
fn v10_timers_only_where_a_payment_is_known_wait_for_the_slot() {
    let rules = Rules {
        timers_without_payment: false,
        ..Rules::default()
    };
    let found = outcome(mutated(110, rules), v10);
    let what = found.err().map(|violation| violation.what);
    assert!(what.is_some_and(|what| what.contains("not within 2000 ms")));
}
