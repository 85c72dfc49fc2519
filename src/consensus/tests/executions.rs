//! The executions that broke earlier wordings of the rules, each as a story with a moral: it must end well under the
//! protocol, and badly with the rule taken away that it forced.

use super::kit::*;
use crate::consensus::messages::*;
use crate::consensus::rules::Rules;
use crate::consensus::timeouts::TimerKind::*;
use crate::types::ids::*;
use crate::types::vote::VoteStep;
use Kind::{Precommit as C, Prevote as V, Proposal as P};

fn begin(net: &mut Net) {
    for i in 0..net.powers.len() {
        net.input(i, Input::Begin);
    }
}

/// Everybody learns all precommits of the round and goes on to the next.
fn next_round(net: &mut Net, round: u32, nodes: &[usize]) {
    net.pass(nodes, C, round, nodes);
    net.expire(Precommit, nodes);
    assert!(nodes.iter().all(|i| net.round(*i) == round + 1));
}

/// V1: an honest node locks twice, then meets a re-proposal of its locked block with an old polka.
fn v1(rules: Rules) -> Net {
    let all = [0, 1, 2, 3];
    let mut net = Net::new(&[1; 4], &all, &[0, 3, 0, 1], rules);
    begin(&mut net);
    // r0: P0, P1, P2 prevote X; its polka comes late, all precommit nil.
    net.pass(&[0], P, 0, &[1, 2]);
    net.expire(Propose, &[3]);
    net.pass(&[3], V, 0, &[0, 1, 2]);
    net.pass(&[0], V, 0, &[1, 2, 3]);
    net.pass(&[1], V, 0, &[0, 3]);
    net.expire(Prevote, &all);
    net.pass(&[2], V, 0, &[0, 1]);
    let x = block(0, 0, 0);
    assert!(
        [0, 1]
            .iter()
            .all(|i| net.node(*i).machine.state().valid.unwrap().block == x)
    );
    for i in all {
        assert_eq!(
            net.voted(i, C, 0),
            Some(None),
            "the polka came after the precommit"
        );
    }
    next_round(&mut net, 0, &all);
    // r1: P3 saw nothing, proposes fresh Y; P1, P2, P3 prevote it; only P3 sees the polka in time.
    net.pass(&[3], P, 1, &[1, 2]);
    net.expire(Propose, &[0]);
    net.pass(&[0], V, 1, &[1, 2, 3]);
    net.pass(&[1], V, 1, &[0, 2, 3]);
    net.pass(&[3], V, 1, &[0, 1]);
    net.pass(&[2], V, 1, &[3]);
    net.expire(Prevote, &[0, 1, 2]);
    let y = block(3, 1, 0);
    assert_eq!(net.voted(3, C, 1), Some(Some(y)), "P3 locks (Y, 1)");
    next_round(&mut net, 1, &all);
    // r2: P0 proposes X with valid round 0; P3 is locked, prevotes nil, sees the polka and locks (X, 2).
    net.pass(&[0], P, 2, &[1, 2, 3]);
    net.pass_polka(0, 0, &[2, 3]);
    assert_eq!(net.voted(3, V, 2), Some(None), "line 28: lockedRound 1 > 0");
    net.pass(&[0, 1, 2], V, 2, &[3]);
    net.pass(&[0], V, 2, &[1, 2]);
    net.pass(&[3], V, 2, &[0, 1, 2]);
    net.pass(&[1], V, 2, &[0]);
    net.expire(Prevote, &[0, 1, 2]);
    assert_eq!(net.voted(3, C, 2), Some(Some(x)), "P3 locks (X, 2)");
    next_round(&mut net, 2, &all);
    // r3: P1 has not seen the polka of r2 and proposes X with valid round 0 again.
    net.pass(&[1], P, 3, &[3]);
    net
}

#[test]
fn v1_no_honest_node_is_ever_named() {
    let mut net = v1(Rules::default());
    net.expect_rules_held();
    assert_eq!(
        net.voted(3, V, 3),
        Some(None),
        "S1(a): lockedRound 2 > valid_round 0"
    );
    assert!(net.heals_within(8), "S1(a) costs no liveness");
    net.expect_rules_held();
}

#[test]
fn v1_catches_the_papers_loose_lock() {
    let loose = Rules {
        strict_lock: false,
        ..Rules::default()
    };
    let net = v1(loose);
    assert_eq!(net.voted(3, V, 3), Some(Some(block(0, 0, 0))));
    assert!(
        net.broken[0].contains("S6"),
        "an honest node would be slashed: {:?}",
        net.broken
    );
}

/// V2: A alone was let into round 1, by a precommit that D sent to nobody else.
fn v2() -> Net {
    let (a, b, c, d) = (0, 1, 2, 3);
    let mut net = Net::four(&[d, b, c, a], Rules::default());
    begin(&mut net);
    net.expire(Propose, &[b, c]);
    let byz = vote(d, VoteStep::Prevote, 0, None, None);
    net.give(b, &byz);
    net.give(c, &byz);
    net.pass(&[b, c], V, 0, &[b, c]);
    let byz = vote(d, VoteStep::Precommit, 0, None, None);
    net.give(a, &byz);
    net.pass(&[b, c], C, 0, &[a, b, c]);
    net.expire(Precommit, &[a]);
    net.expire(Propose, &[a]);
    assert_eq!(
        net.voted(a, V, 1),
        Some(None),
        "A prevotes in round 1, alone"
    );
    net
}

#[test]
fn v2_round_entry_survives_a_restart() {
    let mut net = v2();
    net.restart(0);
    assert_eq!(net.round(0), 1);
    assert!(
        net.heals_within(8),
        "S5: what let the node in lets the others in as well"
    );
    net.expect_rules_held();
}

#[test]
fn v2_round_entry_survives_a_refusal_to_sign() {
    let mut net = v2();
    net.revive(0);
    assert_eq!(net.round(0), 1);
    assert!(
        net.heals_within(8),
        "a full disk that passes takes nothing heard away: D tells its precommit to nobody again"
    );
    net.expect_rules_held();
}

#[test]
fn v2_volatile_round_entry_halts_the_height() {
    let mut net = v2();
    net.forgets = vec![Forgets::Entry];
    net.restart(0);
    assert!(
        !net.heals_within(8),
        "this is why S5 stores the round entry"
    );
    assert_eq!([net.round(0), net.round(1), net.round(2)], [1, 0, 0]);
}

/// V3: A holds a lock that nobody knows of and leads no round; D has fallen silent.
fn v3(rules: Rules) -> Net {
    let (a, b, c, d) = (0, 1, 2, 3);
    let mut net = Net::four(&[b, c, d], rules);
    begin(&mut net);
    let x = block(b, 0, 0);
    net.pass(&[b], P, 0, &[a]);
    net.expire(Propose, &[c]);
    net.pass(&[a, b, c], V, 0, &[b, c]);
    net.pass(&[b], V, 0, &[a]);
    net.give(a, &vote(d, VoteStep::Prevote, 0, Some(x), None));
    assert_eq!(net.voted(a, C, 0), Some(Some(x)), "A locks (X, 0)");
    net.expire(Prevote, &[b, c]);
    next_round(&mut net, 0, &[a, b, c]);
    net
}

#[test]
fn v3_a_polka_of_any_round_sets_the_valid_value() {
    let mut net = v3(Rules::default());
    assert!(
        net.heals_within(9),
        "S1(b): a leader learns the polka and proposes X"
    );
    assert_eq!(net.decided[&1], block(1, 0, 0));
    net.expect_rules_held();
}

#[test]
fn v3_catches_the_papers_current_round_only() {
    let only_current = Rules {
        any_round_polka: false,
        ..Rules::default()
    };
    let mut net = v3(only_current);
    assert!(
        !net.heals_within(30),
        "without S1(b) a skipped leader's lock halts the height"
    );
}

/// V4: X has polkas in rounds 0 and 1; in round 2 Byzantine D proposes it with both valid rounds.
fn v4(rules: Rules) -> Net {
    let (a, b, c, d) = (0, 1, 2, 3);
    let honest = [a, b, c];
    let mut net = Net::four(&[b, b, d, a, b, c], rules);
    begin(&mut net);
    let x = block(b, 0, 0);
    for round in [0, 1] {
        net.pass(&[b], P, round, &[a]);
        if round == 0 {
            net.expire(Propose, &[c]);
        } else {
            net.pass(&[b], P, 1, &[c]);
        }
        // A and B prevote X, D helps: the polka is seen only after the precommits.
        let vr = (round == 1).then_some(0);
        net.give(c, &vote(d, VoteStep::Prevote, round, None, None));
        net.pass(&[a], V, round, &[b, c]);
        net.pass(&[b], V, round, &[a, c]);
        if round == 0 {
            net.pass(&[c], V, round, &[a, b]);
        } else {
            for to in [a, b] {
                net.give(to, &vote(d, VoteStep::Prevote, 1, None, None));
            }
        }
        let waiting: Vec<usize> = honest
            .into_iter()
            .filter(|i| net.voted(*i, C, round).is_none())
            .collect();
        net.expire(Prevote, &waiting);
        if round == 0 {
            for to in honest {
                net.give(to, &vote(d, VoteStep::Prevote, 0, Some(x), vr));
            }
        } else {
            net.pass(&[c], V, 1, &[a, b]);
        }
        next_round(&mut net, round, &honest);
    }
    // r2: (X, 0) to A and B, (X, 1) to C.
    for to in [a, b] {
        net.give(to, &proposal(d, 2, x, Some(0)));
    }
    net.give(c, &proposal(d, 2, x, Some(1)));
    net
}

#[test]
fn v4_a_polka_stands_alone_whatever_proposal_was_seen() {
    let (a, b, c, d) = (0, 1, 2, 3);
    let mut net = v4(Rules::default());
    let x = block(b, 0, 0);
    let polka_rounds: Vec<EraRound> = net
        .node(c)
        .machine
        .tally()
        .polkas()
        .map(|p| p.at())
        .collect();
    assert_eq!(polka_rounds, [at(0), at(1)], "{:?}", net.broken);
    net.pass(&[a], V, 2, &[b, c]);
    net.pass(&[b], V, 2, &[a, c]);
    assert_eq!(
        [a, b, c].map(|i| net.voted(i, V, 2)),
        [Some(Some(x)); 3],
        "two of them with valid round 0, C with 1"
    );
    assert_eq!(net.voted(c, C, 2), None, "S1: three prevotes, but no polka");
    net.give(c, &vote(d, VoteStep::Prevote, 2, Some(x), Some(0)));
    assert_eq!(
        net.voted(c, C, 2),
        Some(Some(x)),
        "S1: the polka's prevotes agree among themselves, not with the proposal that C saw"
    );
    assert!(
        net.heals_within(9),
        "V4: split prevotes cost rounds, never the height"
    );
    net.expect_rules_held();
}

#[test]
fn v4_catches_mixed_valid_rounds() {
    let mixed = Rules {
        one_valid_round: false,
        ..Rules::default()
    };
    let mut net = v4(mixed);
    net.pass(&[0, 1, 2], V, 2, &[0, 1, 2]);
    net.give(
        0,
        &vote(3, VoteStep::Prevote, 2, Some(block(1, 0, 0)), Some(0)),
    );
    assert!(
        net.broken
            .iter()
            .any(|fault| fault.contains("not all signers said")),
        "S1: such a polka would prove nothing to anyone: {:?}",
        net.broken
    );
}

#[test]
fn v8_a_restart_never_signs_a_position_again() {
    let (a, b, c, d) = (0, 1, 2, 3);
    let mut net = Net::four(&[d], Rules::default());
    begin(&mut net);
    net.expire(Propose, &[a]);
    let y = block(d, 0, 0);
    for from in [b, c] {
        net.give(a, &vote(from, VoteStep::Prevote, 0, None, None));
    }
    assert_eq!(
        net.voted(a, C, 0),
        Some(None),
        "prevote nil, precommit nil sent"
    );
    net.restart(a);
    let signed = net.node(a).signed.len();
    // The honest votes above were made up by the test: here the polka is of another three.
    for from in [b, c, d] {
        net.give(a, &vote(from, VoteStep::Prevote, 0, Some(y), None));
    }
    assert_eq!(
        net.node(a).signed.len(),
        signed,
        "I1: no second precommit in the round"
    );
    assert_eq!(net.node(a).machine.state().valid.map(|v| v.block), Some(y));
    assert_eq!(net.node(a).machine.state().locked, None);
}

#[test]
fn v10_a_leader_that_cannot_propose_runs_the_timer() {
    let (a, b, c) = (0, 1, 2);
    let mut net = Net::four(&[c, a, b], Rules::default());
    net.builds = false;
    // A transaction reached A and B only; C leads and does not know it; D is silent.
    net.input(a, Input::Begin);
    net.input(b, Input::Begin);
    net.expire(Propose, &[a, b]);
    assert!(
        net.node(c).timers.is_empty(),
        "S3: an idle node runs no timer"
    );
    net.pass(&[a, b], V, 0, &[a, b, c]);
    assert_eq!(
        net.node(c).builds,
        [Round(0)],
        "S3: votes of more than a third are a reason"
    );
    net.expire(Propose, &[c]);
    net.pass(&[c], V, 0, &[a, b]);
    net.builds = true;
    assert!(net.heals_within(4), "V10");
    net.expect_rules_held();
}
