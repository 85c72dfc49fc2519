//! Whole networks through a fork (B6): a coalition of more than a third runs every key twice, once on either side of a
//! partition, and both sides decide. What honest nodes do then is the question.

use crate::ledger::coins::CoinView;
use crate::ledger::registry::Standing;
use crate::p2p::messages::{Message, PeerId};
use crate::sim::adversary::{Adversary, Outgoing, Tools};
use crate::sim::stage::{Kind, Pick};
use crate::sim::world::{Options, World};
use crate::types::ids::*;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const SECOND: u64 = 1_000_000;

/// A node whose key runs twice: each copy follows the rules.
pub(super) struct Twin;

impl Adversary for Twin {
    fn name(&self) -> &'static str {
        "one of two copies of a key"
    }
    fn outgoing(&mut self, _: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        vec![(to, message)]
    }
}

/// A network that is split in two: on one side the honest nodes but `lost`, on the other `lost`; the coalition on both.
pub(super) struct Split {
    pub(super) world: World,
    pub(super) honest: Vec<usize>,
    lost: Vec<usize>,
    pub(super) coalition: BTreeSet<MasternodeId>,
}

pub(super) fn split(seed: u64, collaterals: &[u64], coalition: &[usize], lost: &[usize]) -> Split {
    let mut options = Options::devnet(seed, collaterals.len());
    options.collaterals = collaterals.to_vec();
    options.observers = coalition.len();
    let mut world = World::new(options);
    world.checker.forks = true;
    let count = collaterals.len();
    let mut far: Vec<usize> = lost.to_vec();
    for (k, i) in coalition.iter().enumerate() {
        let twin = count + k;
        world.nodes[twin].operator = world.nodes[*i].operator.clone();
        // Each copy must find a quorum on its side to show its votes to (B7 step 2).
        let everybody = 0..count + coalition.len();
        world.nodes[twin].targets = everybody.filter(|t| *t != twin).collect();
        world.corrupt(*i, Box::new(Twin));
        world.corrupt(twin, Box::new(Twin));
        far.push(twin);
    }
    world.isolate(&far);
    let id = |i: &usize| world.nodes[*i].operator.as_ref().map(|(id, _)| *id);
    let coalition: BTreeSet<MasternodeId> = coalition.iter().filter_map(id).collect();
    let honest = world.nodes.iter().filter(|n| n.is_honest());
    let honest = honest.map(|n| n.index).collect();
    Split {
        world,
        honest,
        lost: lost.to_vec(),
        coalition,
    }
}

impl Split {
    pub(super) fn run(&mut self, seconds: u64) {
        if let Err(broken) = self.world.run(seconds * SECOND) {
            panic!("{broken}\n{}", broken.trace.join("\n"));
        }
    }

    /// Runs until something holds, at most `seconds`.
    pub(super) fn until(&mut self, seconds: u64, what: &str, done: impl Fn(&Split) -> bool) {
        for _ in 0..seconds * 4 {
            if done(self) {
                return;
            }
            if let Err(broken) = self.world.run(SECOND / 4) {
                panic!("{what}: {broken}\n{}", broken.trace.join("\n"));
            }
        }
        let all: Vec<String> = self
            .world
            .nodes
            .iter()
            .map(|n| self.world.describe(n))
            .collect();
        panic!("not within {seconds} s: {what}\n{}", all.join("\n"));
    }

    pub(super) fn replica(&self, i: usize) -> Option<&crate::replica::machine::Replica> {
        self.world.nodes[i].running.as_ref().map(|r| &r.replica)
    }

    /// An honest node on the first side.
    fn near(&self) -> usize {
        let mut honest = self.honest.iter();
        let found =
            honest.find(|i| self.world.nodes[**i].operator.is_some() && !self.lost.contains(i));
        *found.expect("there is one")
    }

    pub(super) fn block(&self, i: usize, height: Height) -> Option<BlockId> {
        self.world.nodes[i].ledger.block_at(height)
    }

    /// Whether every honest node has found the fork and names culprits, all of them of the coalition. Who is missing in a
    /// certificate that did not need it is not named.
    pub(super) fn all_know(&self) -> bool {
        let knows = |i: &usize| {
            let fork = self.replica(*i).and_then(|r| r.fork());
            fork.is_some_and(|fork| {
                let named: BTreeSet<MasternodeId> =
                    fork.culprits.iter().map(|(id, _)| *id).collect();
                !named.is_empty() && named.is_subset(&self.coalition)
            })
        };
        self.honest.iter().all(knows)
    }

    pub(super) fn all_in_era(&self, era: Era) -> bool {
        let there = |i: &usize| {
            let running = self.replica(*i);
            running.is_some_and(|r| r.state().tip.era == era)
        };
        self.honest.iter().all(there)
    }

    /// B6 step 6: evidence stands, the coalition is slashed, nobody else is; all honest nodes stand on one chain and decide.
    pub(super) fn assert_recovered(&mut self, fork: Height, stays: BlockId) {
        self.until(60, "the next era begins everywhere", |s| {
            s.all_in_era(Era(1))
        });
        let slashed = |s: &Split, i: usize| -> Option<BTreeSet<MasternodeId>> {
            let registry = s.replica(i)?.state().registry().entries();
            let gone = registry.iter().filter(|e| e.slashed.is_some());
            Some(gone.map(|e| e.id).collect())
        };
        let fork_of = |s: &Split, i: usize| s.replica(i).and_then(|r| r.fork());
        let info = fork_of(self, self.honest[0]).unwrap();
        let named: BTreeSet<MasternodeId> = info.culprits.iter().map(|(id, _)| *id).collect();
        assert!(!named.is_empty() && named.is_subset(&self.coalition), "S6");
        self.until(60, "evidence follows on the surviving chain", |s| {
            let punished = |i: &usize| slashed(s, *i).is_some_and(|all| all.is_superset(&named));
            s.honest.iter().all(punished)
        });
        let registry = self.replica(self.honest[0]).unwrap().state().registry();
        for entry in registry.entries() {
            let gone = matches!(entry.standing, Standing::Gone { .. });
            let guilty = self.coalition.contains(&entry.id);
            assert!(
                !gone || guilty,
                "nobody is punished for having been on the losing side"
            );
        }
        self.world.run(10 * SECOND).unwrap();
        let tip = self
            .honest
            .iter()
            .map(|i| self.world.nodes[*i].ledger.state.height())
            .min()
            .unwrap();
        assert!(tip > fork, "decides on");
        for i in &self.honest {
            assert_eq!(self.block(*i, fork), Some(stays), "node {i} at the fork");
            assert_eq!(
                self.block(*i, tip),
                self.block(self.honest[0], tip),
                "one chain"
            );
        }
    }
}

#[test]
fn a_split_majority_waits_for_operators_and_goes_on_where_they_agree() {
    let mut net = split(1, &[1_000; 7], &[4, 5, 6], &[2, 3]);
    net.run(8);
    let fork = Height(1);
    let (kept, gone) = (net.block(0, fork).unwrap(), net.block(2, fork).unwrap());
    assert_ne!(kept, gone, "both sides have decided");
    net.world.reconnect();
    net.until(
        60,
        "every honest node finds the fork and its culprits",
        Split::all_know,
    );
    let tips = net.world.checker.heights.clone();
    net.run(20);
    for i in net.honest.clone() {
        let info = net.replica(i).unwrap().fork().unwrap();
        assert!(info.open, "B6.7: two against two is no majority");
        assert_eq!(info.height, fork, "walked back to the first difference");
        assert_eq!(
            tips[i], net.world.checker.heights[i],
            "nothing is decided meanwhile"
        );
    }
    // Operators agree on the first branch: three of the four state it.
    for i in [0, 1, 3] {
        let now = net.world.nodes[i].now(net.world.now());
        let running = net.world.nodes[i].running.as_mut().unwrap();
        assert_eq!(running.replica.recover(now, kept), Ok(1), "B6.7: attempt 1");
    }
    net.assert_recovered(fork, kept);
    let returned = net.replica(2).unwrap().fork().unwrap().returned;
    assert!(
        !returned.is_empty(),
        "payments of the lost branch are listed"
    );
}

#[test]
fn a_majority_of_the_others_ends_a_fork_by_itself() {
    let mut net = split(
        2,
        &[1_000, 1_000, 1_000, 1_000, 2_000, 2_000, 2_000],
        &[4, 5, 6],
        &[3],
    );
    net.run(8);
    let fork = Height(1);
    let kept = net.block(0, fork).unwrap();
    assert_ne!(Some(kept), net.block(3, fork), "both sides have decided");
    net.world.reconnect();
    net.assert_recovered(fork, kept);
    assert_eq!(net.lost, [3]);
}

/// A network of seven in which the first leader (B4: the lowest id) stands on the first side: 2 honest and the coalition of 3
/// there, 2 honest and the coalition beyond. Each side needs every one of them.
fn led_by_the_first_side() -> Split {
    let world = World::new(Options::devnet(3, 7));
    let id = |i: &usize| world.nodes[*i].operator.as_ref().map(|(id, _)| *id);
    let mut by_id: Vec<usize> = (0..7).collect();
    by_id.sort_by_key(id);
    split(3, &[1_000; 7], &by_id[4..], &by_id[2..4])
}

#[test]
fn a_fork_over_two_rounds_is_amnesia_and_its_culprits_are_named_for_it() {
    let mut net = led_by_the_first_side();
    let twins: Vec<usize> = (7..10).collect();
    let fork = Height(1);
    // Beyond the partition round 0 has no leader, and nobody honest hears a precommit of the coalition there: what shows
    // its guilt is what it forgot, not two messages of one round.
    let words = Pick::of(&[Kind::Precommit]).by(&twins).to(&net.lost);
    net.world.lose(words.height(fork).round(0));
    let (near, far) = (net.near(), net.lost[0]);
    net.until(60, "both sides decide", |s| {
        [near, far].iter().all(|i| s.block(*i, fork).is_some())
    });
    let (kept, gone) = (
        net.block(near, fork).unwrap(),
        net.block(far, fork).unwrap(),
    );
    assert_ne!(kept, gone, "both sides have decided");
    net.world.reconnect();
    net.until(
        60,
        "every honest node finds the fork and its culprits",
        Split::all_know,
    );
    let info = net.replica(near).unwrap().fork().unwrap();
    let rounds: Vec<u32> = info.branches.iter().map(|b| b.at.round.0).collect();
    assert!(
        rounds.contains(&0) && rounds.iter().any(|r| *r > 0),
        "one branch in round 0, the other later: {rounds:?}"
    );
    for (_, offence) in &info.culprits {
        assert!(offence.contains("amnesia"), "S6: {offence}");
    }
    assert_eq!(info.culprits.len(), 3, "S6: more than a third");
    // Two against two: operators agree on the first branch.
    let lost = net.lost.clone();
    let voters = net
        .honest
        .iter()
        .filter(|i| net.world.nodes[**i].operator.is_some());
    let agreed: Vec<usize> = voters.copied().filter(|i| *i != lost[0]).collect();
    for i in agreed {
        let now = net.world.nodes[i].now(net.world.now());
        let running = net.world.nodes[i].running.as_mut().unwrap();
        assert_eq!(running.replica.recover(now, kept), Ok(1), "B6.7: attempt 1");
    }
    net.assert_recovered(fork, kept);
}

/// Ten equal nodes of whom six sign both blocks; the certificate of node 0 hides two of them, those of nodes 1 and 2 two others.
fn with_hidden_culprits(seed: u64) -> Split {
    let mut net = split(seed, &[1_000; 10], &[4, 5, 6, 7, 8, 9], &[3]);
    let fork = Height(1);
    // Nodes are known to the stage by the copy beyond.
    let mut hide = |twins: &[usize], from: &[usize]| {
        let words = Pick::of(&[Kind::Prevote, Kind::Precommit]);
        let words = words.by(twins).to(from);
        net.world.lose(words.height(fork));
    };
    hide(&[12, 13], &[0]);
    hide(&[14, 15], &[1, 2]);
    net.world.lose(Pick::of(&[Kind::Certificate]).height(fork));
    net.until(60, "both sides decide", |s| {
        (0..4).all(|i| s.block(i, fork).is_some())
    });
    assert_ne!(net.block(0, fork), net.block(3, fork));
    for i in 0..3 {
        let decision = net.world.nodes[i].ledger.decision(fork).unwrap().unwrap();
        let signers = decision.certificate.commit.signers.count();
        assert_eq!(signers, 7, "a bare quorum at node {i}");
    }
    net
}

impl Split {
    /// Whom the RecoveryCert names by which a node has crossed.
    pub(super) fn barred(&self, i: usize) -> BTreeSet<MasternodeId> {
        let certs = self.replica(i).map(|r| r.recoveries()).unwrap_or_default();
        let culprits = certs.last().map(|cert| cert.culprits.to_vec());
        let culprits = culprits.unwrap_or_default().into_iter();
        culprits.map(|e| e.offender).collect()
    }
}

#[test]
fn culprits_that_one_certificate_hides_are_found_in_another() {
    let mut net = with_hidden_culprits(5);
    let (fork, kept) = (Height(1), net.block(0, Height(1)).unwrap());
    net.world.reconnect();
    net.assert_recovered(fork, kept);
    for i in net.honest.clone() {
        let named = net.barred(i);
        assert_eq!(named, net.coalition, "B6.2: node {i} names all of them");
    }
}

#[test]
fn what_a_node_learned_of_hidden_culprits_survives_its_restart() {
    let mut net = with_hidden_culprits(6);
    let (fork, kept) = (Height(1), net.block(0, Height(1)).unwrap());
    net.world.reconnect();
    net.until(20, "node 1 has found the fork", |s| {
        let fork = s.replica(1).and_then(|r| r.fork());
        fork.is_some_and(|fork| fork.open)
    });
    net.run(1);
    // Whoever held the certificate that shows the others' culprits is gone, and the others start again.
    net.world.crash(0, Some(12 * SECOND));
    for i in [1, 2, 3] {
        net.world.crash(i, Some(SECOND / 2));
    }
    net.assert_recovered(fork, kept);
    for i in [1, 2, 3] {
        assert_eq!(net.barred(i), net.coalition, "B6.2: node {i}");
    }
}
