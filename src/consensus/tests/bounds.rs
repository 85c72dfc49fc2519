//! Memory under a flood, equivocation, round skip, and what a peer is told.

use super::kit::*;
use crate::consensus::held::ROUNDS_TOLD_MAX;
use crate::consensus::machine::Machine;
use crate::consensus::messages::*;
use crate::consensus::rules::Rules;
use crate::consensus::tally::{Added, Edge, Tally};
use crate::types::ids::*;
use crate::types::masternode::Offence;
use crate::types::vote::{Vote, VoteStep};
use VoteStep::{Precommit as C, Prevote as V};

fn tally(n: usize, rules: Rules) -> Tally {
    Tally::new(set_of(&vec![1; n]), Branch(0), Era(0), HEIGHT, rules)
}

fn plain(msg: Msg) -> Vote {
    match msg {
        Msg::Vote(vote) => vote,
        other => panic!("{other:?} is no vote"),
    }
}

fn add(
    tally: &mut Tally,
    from: usize,
    step: VoteStep,
    round: u32,
    b: Option<BlockId>,
) -> (Added, Vec<Edge>) {
    tally.add(&plain(vote(from, step, round, b, None)))
}

fn kept(tally: &Tally) -> usize {
    let rounds = tally.rounds();
    rounds
        .map(|round| tally.votes(round, V).count() + tally.votes(round, C).count())
        .sum()
}

#[test]
fn a_flood_of_absurd_rounds_costs_one_vote_each_signer() {
    let mut t = tally(4, Rules::default());
    for i in 0..20_000u32 {
        let round = i.wrapping_mul(2_654_435_761) | 2;
        add(
            &mut t,
            3,
            if i % 2 == 0 { V } else { C },
            round,
            Some(block(3, 1, i as u8)),
        );
    }
    assert_eq!(kept(&t), 0, "B2: beyond r+1 only each signer's highest");
    assert!(t.highest_of(&id(3)).is_some());
    for variant in 0..100 {
        for round in [0, 1] {
            add(&mut t, 3, V, round, Some(block(3, round, variant)));
            add(&mut t, 3, C, round, Some(block(3, round, variant)));
        }
    }
    assert_eq!(
        kept(&t),
        8,
        "two votes per step of a kept round, whatever it signs"
    );
    t.set_round(Round(40), [at(1)]);
    assert_eq!(t.votes(Round(0), V).count(), 0, "B2: old prevotes go");
    assert_eq!(
        t.votes(Round(0), C).count(),
        2,
        "B2: precommits for blocks stay"
    );
    assert_eq!(
        t.votes(Round(1), V).count(),
        2,
        "B2: the rounds of lock and valid value stay"
    );
    add(&mut t, 2, V, 30, Some(block(0, 0, 0)));
    add(&mut t, 2, C, 30, None);
    assert_eq!(
        t.rounds().collect::<Vec<_>>(),
        [Round(0), Round(1)],
        "B2: no entry is made for them"
    );
    assert_eq!(add(&mut t, 9, V, 40, None).0, Added::NotInSet);
}

#[test]
fn questions_are_asked_in_order_and_thresholds_fire_once() {
    let mut t = tally(4, Rules::default());
    let x = Some(block(0, 0, 0));
    assert_eq!(add(&mut t, 0, V, 0, x), (Added::New, vec![]));
    assert_eq!(add(&mut t, 0, V, 0, x), (Added::Duplicate, vec![]));
    assert_eq!(
        add(&mut t, 1, V, 0, x),
        (Added::New, vec![Edge::Voters]),
        "S3: more than a third"
    );
    assert!(!t.prevotes_any(Round(0)));
    let (added, edges) = add(&mut t, 2, V, 0, x);
    assert_eq!(added, Added::New);
    let [Edge::Polka(polka)] = &edges[..] else {
        panic!("3p > 2S: a polka, got {edges:?}");
    };
    assert_eq!(polka.votes.signers.ones().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(t.prevotes_any(Round(0)) && !t.prevotes_nil(Round(0)));
    assert_eq!(
        add(&mut t, 3, V, 0, x),
        (Added::New, vec![]),
        "an edge fires once"
    );
    for i in 0..2 {
        assert_eq!(add(&mut t, i, C, 0, x).1, []);
    }
    let decided = Edge::Decided(Round(0), block(0, 0, 0));
    assert_eq!(add(&mut t, 2, C, 0, x).1, [decided], "line 49");
    assert_eq!(add(&mut t, 3, C, 0, x).1, []);
    let mut foreign = plain(vote(0, V, 0, x, None));
    foreign.body.height = Height(8);
    assert_eq!(t.add(&foreign).0, Added::Foreign);
    let malformed = plain(vote(0, V, 1, x, Some(1)));
    assert_eq!(
        t.add(&malformed).0,
        Added::Malformed,
        "S1: valid_round < round"
    );
}

#[test]
fn prevotes_for_one_block_with_two_valid_rounds_are_no_polka() {
    let mut t = tally(4, Rules::default());
    let x = Some(block(0, 0, 0));
    t.set_round(Round(3), []);
    let votes = [(0, 1), (1, 1), (2, 2)].map(|(i, vr)| plain(vote(i, V, 3, x, Some(vr))));
    let edges: Vec<Edge> = votes.iter().flat_map(|vote| t.add(vote).1).collect();
    assert_eq!(
        edges,
        [Edge::Voters],
        "S1: one valid round, the same in all"
    );
    assert!(t.prevotes_any(Round(3)), "line 34 asks for any prevotes");
    let edges = t.add(&plain(vote(3, V, 3, x, Some(1)))).1;
    assert!(matches!(&edges[..], [Edge::Polka(polka)] if polka.valid_round == Some(at(1))));
    assert_eq!(
        t.polka(at(3), block(0, 0, 0))
            .unwrap()
            .votes
            .signers
            .count(),
        3
    );
}

#[test]
fn an_equivocator_is_reported_and_counts_for_both() {
    let mut machine = Machine::new(context(&[1; 4], None, &[0], Rules::default()));
    let mut evidence = Vec::new();
    let (x, y) = (Some(block(3, 0, 0)), Some(block(3, 0, 1)));
    for (from, value) in [(3, x), (3, y), (3, None), (0, y), (1, y)] {
        for output in machine.handle(vote(from, V, 0, value, None).input(true)) {
            match output {
                Output::Evidence(found) => evidence.push(*found),
                Output::Polka(polka) => assert_eq!(Some(polka.block), y),
                _ => {}
            }
        }
    }
    assert_eq!(
        evidence.len(),
        1,
        "the third of an equivocator says nothing new"
    );
    assert_eq!(evidence[0].offender, id(3));
    let Offence::Votes(first, second) = &evidence[0].offence else {
        panic!("{evidence:?}");
    };
    assert!(first < second, "the pair is in ascending order");
    assert!(
        machine.polka(at(0), block(3, 0, 1)).is_some(),
        "others saw only its second vote"
    );
    assert_eq!(
        machine.tally().powers(Round(0)).0,
        Power(3),
        "any: each signer once"
    );

    let mut twice = Vec::new();
    for variant in [0, 1, 2] {
        let msg = proposal(0, 0, block(0, 0, variant), None);
        twice.extend(machine.handle(msg.input(true)));
    }
    let found = twice
        .iter()
        .filter(|output| matches!(output, Output::Evidence(_)));
    assert_eq!(found.count(), 1, "two proposals of one round");
}

#[test]
fn round_skip_counts_later_rounds_as_well() {
    let ahead = |rules| {
        let mut t = tally(7, rules);
        for (i, round) in [(0, 3), (1, 5), (2, 9)] {
            add(&mut t, i, V, round, None);
        }
        t.ahead()
    };
    assert_eq!(
        ahead(Rules::default()),
        Some(Round(3)),
        "S1(c): highest known round >= 3"
    );
    let exact = Rules {
        skip_counts_later: false,
        ..Rules::default()
    };
    assert_eq!(
        ahead(exact),
        None,
        "with exactly one round counted a node would wait for ever"
    );
}

#[test]
fn a_node_skips_with_what_let_it_in() {
    let mut net = Net::new(&[1; 7], &[6], &[0], Rules::default());
    for (from, round) in [(0, 3), (1, 5), (2, 4)] {
        net.give(6, &vote(from, VoteStep::Prevote, round, None, None));
    }
    assert_eq!(net.round(6), 3);
    net.expire(crate::consensus::timeouts::TimerKind::Propose, &[6]);
    let sign = net.node(6).signed[0].clone();
    assert_eq!(
        sign.durable.entry.len(),
        3,
        "S5: votes of this round or later from more than S/3"
    );
    net.expect_rules_held();
    let tally = net.node(6).machine.tally();
    assert_eq!(
        tally.votes(Round(4), V).count(),
        1,
        "kept as highest, counted once in reach"
    );
}

#[test]
fn only_leaders_of_reachable_rounds_are_heard() {
    let leaders = std::sync::Arc::new(|round: Round| {
        assert!(round.0 <= 1, "B4: a claimed round costs no time");
        id(round.0 as usize)
    });
    let mut ctx = context(&[1; 4], Some(3), &[0], Rules::default());
    ctx.leaders = leaders;
    let mut machine = Machine::new(ctx);
    let far = proposal(0, u32::MAX, block(0, 0, 0), Some(0));
    assert_eq!(machine.handle(far.input(true)), []);
    let usurper = proposal(1, 0, block(1, 0, 0), None);
    assert_eq!(
        machine.handle(usurper.input(true)),
        [],
        "line 22: from proposer(h, round)"
    );
    let next = proposal(1, 1, block(1, 1, 0), None);
    assert_eq!(
        machine.handle(next.input(true)).len(),
        1,
        "kept for round r+1"
    );
    assert!(machine.proposal(Round(1)).is_some() && machine.leader(Round(2)).is_none());
}

#[test]
fn s1_form_of_fresh_and_repeated_proposals() {
    let answer = |round: u32, header: u32, vr: Option<u32>, acceptable: bool| {
        let mut net = Net::new(&[1; 4], &[3], &[0], Rules::default());
        let b = block(0, header, 0);
        for (from, vr) in (0..3).flat_map(|from| vr.map(|vr| (from, vr))) {
            net.give(3, &vote(from, VoteStep::Prevote, vr, Some(b), None));
        }
        for from in [1, 2] {
            net.give(3, &vote(from, VoteStep::Prevote, round, None, None));
        }
        net.give_judged(3, &proposal(0, round, b, vr), acceptable);
        net.voted(3, Kind::Prevote, round).unwrap().is_some()
    };
    assert!(answer(2, 2, None, true), "fresh: header.round = round");
    assert!(!answer(2, 1, None, true), "an old header is not fresh");
    assert!(!answer(2, 2, None, false), "S4: not timely, nil");
    assert!(
        answer(2, 1, Some(1), false),
        "S4: timeliness is never asked of a re-proposal"
    );
    assert!(!answer(2, 2, Some(1), true), "header.round <= valid_round");
}

#[test]
fn a_peer_is_sent_what_it_lacks_and_no_more() {
    let mut net = Net::four(&[0, 1, 2], Rules::default());
    net.input(0, Input::Begin);
    let x = block(0, 0, 0);
    net.pass(&[0], Kind::Proposal, 0, &[1]);
    net.pass(&[1], Kind::Prevote, 0, &[0]);
    net.give(0, &vote(3, VoteStep::Prevote, 0, Some(x), None));
    let (full, empty) = (&net.node(0).machine, &net.node(2).machine);
    let lacking = full.lacking(empty.at(), &empty.held());
    assert_eq!(lacking.votes.len(), 4, "three prevotes and a precommit");
    assert_eq!(
        (lacking.proposals, lacking.polkas.len()),
        (vec![Round(0)], 0)
    );
    let lacking = full.lacking(full.at(), &full.held());
    assert_eq!((lacking.votes.len(), lacking.polkas.len()), (0, 0));
    assert!(net.repair(0, 2), "S8");
    assert_eq!(net.voted(2, Kind::Precommit, 0), Some(Some(x)));
    assert!(!net.repair(0, 2), "nothing is left to say");

    // Twenty rounds later the polka of round 0 is all that is told of it.
    for round in (1..40).step_by(2) {
        for from in 1..4 {
            net.give(0, &vote(from, VoteStep::Prevote, round, None, None));
        }
    }
    let ahead = &net.node(0).machine;
    assert!(ahead.held().len() <= ROUNDS_TOLD_MAX);
    let peer = Machine::new(context(&[1; 4], None, &[0], Rules::default()));
    let lacking = ahead.lacking(
        EraRound {
            round: Round(39),
            ..peer.at()
        },
        &peer.held(),
    );
    assert_eq!(
        lacking.polkas.len(),
        1,
        "the lock's polka reaches whoever lacks it (V3)"
    );
}

#[test]
fn a_certificate_decides_at_any_time_and_late_precommits_widen_it() {
    let mut net = Net::four(&[0], Rules::default());
    let x = block(0, 0, 0);
    for from in [1, 2, 3] {
        net.give(0, &vote(from, VoteStep::Precommit, 0, Some(x), None));
    }
    let certificate = net.node(0).machine.decided().cloned().unwrap();
    assert_eq!(
        certificate.block, x,
        "line 49: no proposal, no block, no step is asked"
    );
    net.give(0, &vote(0, VoteStep::Precommit, 0, Some(x), None));
    let machine = &net.node(0).machine;
    assert_eq!(machine.widest_commit().unwrap().signers.count(), 4);
    assert_eq!(machine.decided(), Some(&certificate), "decided once");
    net.input(1, Input::Certificate(verified(certificate)));
    assert_eq!(net.decided[&1], x, "S8: certificates are inputs");
    assert!(net.node(1).signed.is_empty());
}

#[test]
fn a_lock_binds_after_a_restart_even_if_its_block_is_gone() {
    let lock = crate::consensus::round::Pinned {
        at: at(1),
        block: block(1, 1, 0),
    };
    let Msg::Vote(own) = vote(0, VoteStep::Precommit, 1, Some(lock.block), None) else {
        panic!("a vote");
    };
    let restored = Restored {
        votes: vec![verified(own)],
        lock: Some(lock),
        ..Restored::default()
    };
    let (mut machine, _) =
        Machine::restore(context(&[1; 4], Some(0), &[2], Rules::default()), restored);
    assert_eq!((machine.at(), machine.state().locked), (at(1), Some(lock)));
    for from in [1, 2] {
        machine.handle(vote(from, VoteStep::Prevote, 2, None, None).input(true));
    }
    let fresh = proposal(2, 2, block(2, 2, 0), None);
    let outputs = machine.handle(fresh.input(true));
    let signed = outputs.iter().find_map(|output| match output {
        Output::Sign(sign) => Some(sign.message),
        _ => None,
    });
    let Some(Message::Vote(body)) = signed else {
        panic!("line 22 answers at once: {outputs:?}");
    };
    assert_eq!(body.block, None, "I4");
}

#[test]
fn amnesia_is_named_whichever_message_came_first_and_honest_locks_never_are() {
    let named = |first: Msg, then: Msg| {
        let set = set_of(&[1; 4]);
        let mut tally = Tally::new(set.clone(), Branch(0), Era(0), HEIGHT, Rules::default());
        tally.add(&plain(first));
        let vote = plain(then);
        tally.add(&vote);
        crate::consensus::evidence::amnesia(&set, tally.of_voter(&vote.voter), &vote)
    };
    let (x, y) = (block(0, 0, 0), block(1, 1, 0));
    let lock = || vote(3, C, 0, Some(x), None);
    let other = |round, b, vr| vote(3, V, round, b, vr);
    let found = named(lock(), other(1, Some(y), None)).expect("S6");
    assert!(matches!(found.offence, Offence::Amnesia(..)));
    assert_eq!(found.key, set_of(&[1; 4]).members()[3].operator);
    assert!(
        named(other(1, Some(y), None), lock()).is_some(),
        "S6: no matter which came first"
    );
    assert!(named(lock(), other(1, Some(y), Some(0))).is_none(), "S1(a)");
    assert!(
        named(lock(), other(1, Some(x), None)).is_none(),
        "S6: Y != X"
    );
    assert!(named(lock(), other(1, None, None)).is_none(), "S6: nil");
    let later = vote(3, C, 1, Some(y), None);
    assert!(
        named(later, other(1, Some(x), None)).is_none(),
        "S6: the prevote is of a later round"
    );
    let stranger = vote(2, C, 0, Some(x), None);
    assert!(
        named(stranger, other(1, Some(y), None)).is_none(),
        "only the own messages of a key speak against it"
    );
}
