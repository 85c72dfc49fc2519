//! A small space, completely: 4 nodes of equal power, D Byzantine, two rounds, honest and Byzantine leaders, every choice of
//! which votes each node sees in time, and every vote D may cast to each of them. At every state agreement, I1 to I4; after
//! every path, once the network heals, a decision.
//!
//! Time is cut into phases. In a phase each honest node sees any subset of the others' messages and any of D's, or none;
//! then its timer runs out. What one node sees changes nothing for another in the same phase, so a phase is the product of
//! the nodes' own outcomes. Outcomes are merged when they agree in all that decides the future: round state, polkas,
//! decision and what the node signed; the one that saw least stands for all, as votes below a threshold may as well come
//! late. Late prevotes come when the round is left, or never.

use super::kit::*;
use crate::consensus::messages::*;
use crate::consensus::round::{RoundState, Step};
use crate::consensus::rules::Rules;
use crate::consensus::timeouts::{Timer, TimerKind};
use crate::types::ids::*;
use crate::types::vote::{ProposalBody, VoteBody, VoteStep};
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const HONEST: [usize; 3] = [0, 1, 2];
pub(super) const D: usize = 3;

/// All that decides a node's future.
type Key = (
    RoundState,
    Vec<(EraRound, BlockId, Option<EraRound>)>,
    Option<BlockId>,
    Vec<VoteBody>,
    Option<ProposalBody>,
);

/// One honest node in a net of its own.
pub(super) struct Alone {
    i: usize,
    net: Net,
    key: Key,
}

pub(super) type World = [Rc<Alone>; 3];
pub(super) type Worlds = BTreeMap<[Key; 3], World>;

impl Alone {
    pub(super) fn new(i: usize, net: Net) -> Alone {
        let machine = &net.node(i).machine;
        let polkas = machine.tally().polkas();
        let signed = net
            .node(i)
            .signed
            .iter()
            .filter_map(|sign| match sign.message {
                Message::Vote(body) => Some(body),
                Message::Proposal(_) => None,
            });
        let key = (
            machine.state().clone(),
            polkas.map(|p| (p.at(), p.block, p.valid_round)).collect(),
            machine.decided().map(|certificate| certificate.block),
            signed.collect(),
            machine.proposal(machine.at().round).map(|p| p.body),
        );
        Alone { i, net, key }
    }

    fn said(&self, kind: Kind, round: u32) -> Vec<Msg> {
        self.net.said_by(self.i, kind, round)
    }

    fn is_decided(&self) -> bool {
        self.key.2.is_some()
    }

    /// The node after it saw `msgs` and, if it is still in this round, its timer ran out.
    fn after(&self, msgs: &[Msg], kind: TimerKind, round: u32) -> Alone {
        let mut net = self.net.clone();
        for msg in msgs {
            net.give(self.i, msg);
        }
        let round = Round(round);
        let timer = Timer { kind, round };
        let waits = net.node(self.i).machine.at().round == round;
        if waits && net.node(self.i).timers.contains(&timer) && !net.decided.contains_key(&self.i) {
            net.fire(self.i, timer);
        }
        Alone::new(self.i, net)
    }
}

/// Outcomes that were computed already, by node and what the others have said.
pub(super) type Memo = BTreeMap<(usize, Key, [Vec<VoteBody>; 3]), Vec<Rc<Alone>>>;

fn distinct(outcomes: impl IntoIterator<Item = Alone>) -> Vec<Rc<Alone>> {
    let mut merged = BTreeMap::new();
    for outcome in outcomes {
        merged
            .entry(outcome.key.clone())
            .or_insert_with(|| Rc::new(outcome));
    }
    merged.into_values().collect()
}

pub(super) fn product(per_node: [Vec<Rc<Alone>>; 3], into: &mut Worlds) {
    for a in &per_node[0] {
        for b in &per_node[1] {
            for c in &per_node[2] {
                let world = [a.clone(), b.clone(), c.clone()];
                let key = world.each_ref().map(|node| node.key.clone());
                into.entry(key).or_insert(world);
            }
        }
    }
}

/// What D may propose to one node: nothing, a fresh block, or in a later round any block that was voted for, again.
fn lies_of_a_leader(world: &World, round: u32) -> Vec<Vec<Msg>> {
    let mut choices = vec![vec![]];
    for variant in 0..if round == 0 { 2 } else { 1 } {
        choices.push(vec![proposal(D, round, block(D, round, variant), None)]);
    }
    if round > 0 {
        let voted = world.iter().flat_map(|node| &node.key.3);
        let mut blocks: Vec<BlockId> = voted.filter_map(|body| body.block).collect();
        blocks.sort();
        blocks.dedup();
        for valid_round in 0..round {
            let again = |b: &BlockId| vec![proposal(D, round, *b, Some(valid_round))];
            choices.extend(blocks.iter().map(again));
        }
    }
    choices
}

pub(super) fn proposals(world: &World, round: u32, leader: usize) -> [Vec<Rc<Alone>>; 3] {
    let choices = if leader == D {
        lies_of_a_leader(world, round)
    } else {
        vec![vec![], world[leader].said(Kind::Proposal, round)]
    };
    HONEST.map(|i| {
        let node = &world[i];
        if node.is_decided() {
            return vec![node.clone()];
        }
        distinct(
            choices
                .iter()
                .map(|seen| node.after(seen, TimerKind::Propose, round)),
        )
    })
}

/// Every view of a step's votes, least first: a subset of the others' votes, and silence of D or a vote for nil or for
/// anything that somebody honest voted for; other votes of D cross no threshold.
fn views(others: &[Msg], all: &[Msg], step: VoteStep, round: u32) -> Vec<Vec<Msg>> {
    let mut lies = vec![None, Some(vote(D, step, round, None, None))];
    for msg in all {
        if let Msg::Vote(v) = msg {
            let vr = v.body.valid_round.map(|vr| vr.round.0);
            let lie = Some(vote(D, step, round, v.body.block, vr));
            if !lies.contains(&lie) {
                lies.push(lie);
            }
        }
    }
    let mut views = Vec::new();
    for subset in 0..1usize << others.len() {
        for lie in &lies {
            let seen = others.iter().enumerate();
            let seen = seen.filter(|(bit, _)| subset >> bit & 1 == 1);
            views.push(
                seen.map(|(_, msg)| msg.clone())
                    .chain(lie.clone())
                    .collect(),
            );
        }
    }
    views.sort_by_key(|view: &Vec<Msg>| view.len());
    views
}

fn bodies(msgs: &[Msg]) -> Vec<VoteBody> {
    let bodies = msgs.iter().filter_map(|msg| match msg {
        Msg::Vote(vote) => Some(vote.body),
        _ => None,
    });
    bodies.collect()
}

pub(super) fn votes(world: &World, round: u32, kind: Kind, memo: &mut Memo) -> [Vec<Rc<Alone>>; 3] {
    let (timer, step) = match kind {
        Kind::Precommit => (TimerKind::Precommit, VoteStep::Precommit),
        _ => (TimerKind::Prevote, VoteStep::Prevote),
    };
    let all: Vec<Msg> = world
        .iter()
        .flat_map(|node| node.said(kind, round))
        .collect();
    HONEST.map(|i| {
        let node = &world[i];
        if node.is_decided() {
            return vec![node.clone()];
        }
        let others: Vec<Msg> = HONEST
            .into_iter()
            .filter(|j| *j != i)
            .flat_map(|j| world[j].said(kind, round))
            .collect();
        let said = world.each_ref().map(|node| node.key.3.clone());
        let known = (i, node.key.clone(), said);
        let outcomes = memo.entry(known).or_insert_with(|| {
            let views = views(&others, &all, step, round);
            let after = views.iter().map(|seen| node.after(seen, timer, round));
            // Who has seen too little for its timer to run waits; it goes on with more, which is another view.
            distinct(after.filter(|next| {
                let (state, now) = (&next.key.0, Round(round));
                let waits = match step {
                    VoteStep::Prevote => state.step == Step::Prevote,
                    VoteStep::Precommit => state.round == now,
                };
                next.is_decided() || !waits
            }))
        });
        outcomes.clone()
    })
}

/// The prevotes of the round that a node missed come late, with D's help or without, or never.
pub(super) fn late(world: &World, round: u32) -> [Vec<Rc<Alone>>; 3] {
    let prevotes: Vec<Msg> = world
        .iter()
        .flat_map(|node| node.said(Kind::Prevote, round))
        .collect();
    HONEST.map(|i| {
        let node = &world[i];
        if node.is_decided() {
            return vec![node.clone()];
        }
        let mut seen = vec![vec![], prevotes.clone()];
        for body in bodies(&prevotes) {
            if body.block.is_some() {
                let answered = body.valid_round.map(|at| at.round.0);
                let lie = vote(D, VoteStep::Prevote, round, body.block, answered);
                seen.push(prevotes.iter().cloned().chain([lie]).collect());
            }
        }
        distinct(
            seen.iter()
                .map(|seen| node.after(seen, TimerKind::Propose, round)),
        )
    })
}

/// X and Y of a Byzantine leader are alike: of two worlds that differ in these names only the first is looked at.
pub(super) fn is_first_of_twins(world: &World) -> bool {
    let offers = world.iter().filter_map(|node| node.key.4);
    let mut variants = offers.map(|body| body.block.0.0[2]);
    variants.next().unwrap_or(0) == 0
}

/// Every state after one and after two rounds led by `leaders`; the second round is entered from each `thin`-th world.
fn explore(leaders: [usize; 2], rules: Rules, thin: usize) -> [Worlds; 2] {
    let world = HONEST.map(|i| {
        let mut net = Net::new(&[1; 4], &[i], &[leaders[0], leaders[1], 0, 1, 2], rules);
        net.input(i, Input::Begin);
        Rc::new(Alone::new(i, net))
    });
    let mut worlds = Worlds::new();
    product(world.map(|node| vec![node]), &mut worlds);
    let mut after = Vec::new();
    for round in [0, 1] {
        let mut memo = Memo::new();
        // Late votes after the last round are the healing network's.
        for phase in 0..if round == 0 { 4 } else { 3 } {
            let mut next = Worlds::new();
            for world in worlds.values() {
                let per_node = match phase {
                    0 => proposals(world, round, leaders[round as usize]),
                    1 => votes(world, round, Kind::Prevote, &mut memo),
                    2 => votes(world, round, Kind::Precommit, &mut memo),
                    _ => late(world, round),
                };
                product(per_node, &mut next);
            }
            worlds = next;
            if (round, phase, leaders[0]) == (0, 0, D) {
                worlds.retain(|_, world| is_first_of_twins(world));
            }
        }
        after.push(worlds.clone());
        worlds = worlds.into_iter().step_by(thin).collect();
    }
    [after.remove(0), after.remove(0)]
}

/// What is wrong with a world now, if anything.
pub(super) fn fault(world: &World) -> Option<String> {
    let decided: Vec<BlockId> = world.iter().filter_map(|node| node.key.2).collect();
    if decided.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some("agreement: two blocks are decided".to_string());
    }
    let mut broken = world.iter().flat_map(|node| &node.net.broken);
    broken.next().cloned()
}

/// The three nodes in one net again.
pub(super) fn together(world: &World) -> Net {
    let mut net = world[0].net.clone();
    for node in world {
        for msg in &node.net.log {
            net.forge(msg);
        }
        net.nodes.insert(node.i, node.net.node(node.i).clone());
        net.decided.extend(node.key.2.map(|block| (node.i, block)));
    }
    net
}

/// Safety in every state; a decision from every state after one round and from each `sample`-th after two.
fn assert_all(leaders: [usize; 2], thin: usize, sample: usize, expected: [usize; 2]) {
    let after = explore(leaders, Rules::default(), thin);
    assert_eq!(
        after.each_ref().map(|worlds| worlds.len()),
        expected,
        "the space itself changed"
    );
    for (worlds, sample) in after.iter().zip([1, sample]) {
        for world in worlds.values() {
            assert_eq!(fault(world), None, "{leaders:?}");
        }
        for world in worlds.values().step_by(sample) {
            let mut net = together(world);
            assert!(net.heals_within(8), "{leaders:?}: stuck");
            net.expect_rules_held();
        }
    }
}

#[test]
fn honest_leaders_agree_in_every_state_of_two_rounds() {
    assert_all([0, 1], 1, 20, [516, 20_150]);
}

#[test]
fn an_honest_then_a_byzantine_leader_agree_in_every_state() {
    assert_all([0, D], 1, 60, [516, 63_790]);
}

#[test]
fn a_byzantine_then_an_honest_leader_agree_in_every_state() {
    assert_all([D, 0], 1, 60, [1_334, 48_637]);
}

#[test]
fn byzantine_leaders_agree_in_the_states_after_each_tenth_first_round() {
    assert_all([D, D], 10, 40, [1_334, 18_451]);
}

#[test]
fn the_same_space_holds_a_fork_without_the_lock() {
    let unlocked = Rules {
        lock: false,
        ..Rules::default()
    };
    let [_, worlds] = explore([0, 1], unlocked, 1);
    let faults = worlds.values().filter_map(fault);
    let forks = faults.filter(|fault| fault.contains("agreement"));
    assert!(
        forks.count() > 0,
        "I4: the lock is what keeps two rounds together"
    );
}
