//! A handful of machines, a log of everything they said, and a checker of I1-I4, S5, S6 and agreement at every step.

mod recovery;

use crate::consensus::machine::Machine;
use crate::consensus::messages::*;
use crate::consensus::rules::Rules;
use crate::consensus::timeouts::{Timer, TimerKind};
use crate::crypto::hash::Hash;
use crate::crypto::keys::{PublicKey, SecretKey, Signature};
use crate::crypto::verify::Verified;
use crate::types::address::Network;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::params::Params;
use crate::types::polka::Polka;
use crate::types::validators::{Validator, ValidatorSet};
use crate::types::vote::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub const HEIGHT: Height = Height(7);

pub fn at(round: u32) -> EraRound {
    EraRound {
        era: Era(0),
        round: Round(round),
    }
}

pub fn id(i: usize) -> MasternodeId {
    MasternodeId(Hash([i as u8 + 1; 32]))
}

/// A block by who made it first, in which round, and a variant (what a Byzantine leader has several of).
pub fn block(maker: usize, round: u32, variant: u8) -> BlockId {
    let mut bytes = [0; 32];
    bytes[..3].copy_from_slice(&[maker as u8 + 1, round as u8, variant]);
    BlockId(Hash(bytes))
}

/// Variants from here on are invalid blocks.
pub const INVALID: u8 = 200;

pub fn header_at(block: BlockId) -> EraRound {
    at(u32::from(block.0.0[1]))
}

fn is_valid(block: BlockId) -> bool {
    block.0.0[2] < INVALID
}

/// The proof of verification that tests hand out: signatures are not what is tested here.
pub fn verified<T>(value: T) -> Verified<T> {
    thread_local!(static PROOF: Verified<()> =
        Verified::sign(&SecretKey::from_seed(&[1; 32]), &Hash::ZERO, |_| ()));
    PROOF.with(|proof| proof.clone().map(|()| value))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Msg {
    Proposal(SignedProposal),
    Vote(Vote),
    Polka(Polka),
}

impl Msg {
    pub fn input(&self, acceptable: bool) -> Input {
        match self.clone() {
            Msg::Proposal(proposal) => Input::Proposal {
                header_at: header_at(proposal.body.block),
                proposal: verified(proposal),
                acceptable,
            },
            Msg::Vote(vote) => Input::Vote(verified(vote)),
            Msg::Polka(polka) => Input::Polka(verified(polka)),
        }
    }
}

pub fn vote(
    from: usize,
    step: VoteStep,
    round: u32,
    block: Option<BlockId>,
    vr: Option<u32>,
) -> Msg {
    Msg::Vote(Vote {
        body: VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: HEIGHT,
            round: Round(round),
            valid_round: vr.map(at),
            block,
        },
        voter: id(from),
        signature: Signature([from as u8; 64]),
    })
}

pub fn proposal(from: usize, round: u32, block: BlockId, vr: Option<u32>) -> Msg {
    Msg::Proposal(SignedProposal {
        body: ProposalBody {
            branch: Branch(0),
            era: Era(0),
            height: HEIGHT,
            round: Round(round),
            valid_round: vr.map(at),
            block,
        },
        proposer: id(from),
        signature: Signature([from as u8; 64]),
    })
}

pub fn set_of(powers: &[u64]) -> Arc<ValidatorSet> {
    let members = powers.iter().enumerate().map(|(i, power)| Validator {
        id: id(i),
        operator: PublicKey([i as u8; 32]),
        power: Power(*power),
    });
    Arc::new(ValidatorSet::new(members.collect()).unwrap())
}

pub fn context(
    powers: &[u64],
    me: Option<usize>,
    leaders: &[usize],
    rules: Rules,
) -> HeightContext {
    let leaders = leaders.to_vec();
    HeightContext {
        branch: Branch(0),
        era: Era(0),
        height: HEIGHT,
        set: set_of(powers),
        me: me.map(id),
        params: Arc::new(Params::of(Network::Dev)),
        leaders: Arc::new(move |round: Round| id(leaders[round.0 as usize % leaders.len()])),
        rules,
    }
}

/// What a mutated signer store does not keep (S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgets {
    Everything,
    NilPrecommits,
    Polkas,
    Entry,
    Locks,
}

/// An honest node and its disk.
#[derive(Clone)]
pub struct Node {
    pub machine: Machine,
    pub timers: BTreeSet<Timer>,
    pub signed: Vec<Sign>,
    pub wanted: BTreeSet<BlockId>,
    pub builds: Vec<Round>,
}

/// Machines of the honest, a log of all that was said, and what broke a rule.
#[derive(Clone)]
pub struct Net {
    pub powers: Vec<u64>,
    pub leaders: Vec<usize>,
    pub rules: Rules,
    pub set: Arc<ValidatorSet>,
    pub nodes: BTreeMap<usize, Node>,
    /// Everything said, in order; also by the Byzantine.
    pub log: Vec<Msg>,
    said: BTreeSet<(MasternodeId, VoteBody)>,
    /// Whether leaders have something to put into a block.
    pub builds: bool,
    /// Whether a block that is wanted arrives at once.
    pub fetches: bool,
    /// What the signer stores never keep.
    pub forgets: Vec<Forgets>,
    pub evidence: Vec<Evidence>,
    pub broken: Vec<String>,
    pub decided: BTreeMap<usize, BlockId>,
}

impl Net {
    pub fn new(powers: &[u64], honest: &[usize], leaders: &[usize], rules: Rules) -> Net {
        let node = |i: &usize| {
            let machine = Machine::new(context(powers, Some(*i), leaders, rules));
            let node = Node {
                machine,
                timers: BTreeSet::new(),
                signed: Vec::new(),
                wanted: BTreeSet::new(),
                builds: Vec::new(),
            };
            (*i, node)
        };
        Net {
            powers: powers.to_vec(),
            leaders: leaders.to_vec(),
            rules,
            set: set_of(powers),
            nodes: honest.iter().map(node).collect(),
            log: Vec::new(),
            said: BTreeSet::new(),
            builds: true,
            fetches: true,
            forgets: Vec::new(),
            evidence: Vec::new(),
            broken: Vec::new(),
            decided: BTreeMap::new(),
        }
    }

    pub fn four(leaders: &[usize], rules: Rules) -> Net {
        Net::new(&[1; 4], &[0, 1, 2], leaders, rules)
    }

    pub fn node(&self, i: usize) -> &Node {
        &self.nodes[&i]
    }

    pub fn round(&self, i: usize) -> u32 {
        self.node(i).machine.at().round.0
    }

    fn break_rule(&mut self, node: usize, what: impl Into<String>) {
        self.broken.push(format!("node {node}: {}", what.into()));
    }

    /// Panics with what broke, if anything did.
    pub fn expect_rules_held(&self) {
        assert!(self.broken.is_empty(), "{:#?}", self.broken);
    }

    /// Notes a message of a Byzantine node as said.
    pub fn forge(&mut self, msg: &Msg) {
        if let Msg::Vote(vote) = msg {
            self.said.insert((vote.voter, vote.body));
        }
        if !self.log.contains(msg) {
            self.log.push(msg.clone());
        }
    }

    /// A message reaches a node.
    pub fn give(&mut self, to: usize, msg: &Msg) {
        self.give_judged(to, msg, true);
    }

    pub fn give_judged(&mut self, to: usize, msg: &Msg, acceptable: bool) {
        self.forge(msg);
        self.input(to, msg.input(acceptable));
    }

    /// Passes messages of `from` of a kind and round to each of `to`.
    pub fn pass(&mut self, from: &[usize], kind: Kind, round: u32, to: &[usize]) {
        for from in from {
            let found = self.said_by(*from, kind, round);
            assert!(!found.is_empty(), "node {from} said no {kind:?} in {round}");
            for to in to.iter().filter(|to| *to != from) {
                for msg in &found {
                    self.give(*to, msg);
                }
            }
        }
    }

    /// Passes the polka of a round on, whole (GetPolka).
    pub fn pass_polka(&mut self, from: usize, round: u32, to: &[usize]) {
        let tally = self.node(from).machine.tally();
        let polka = tally.polkas().find(|polka| polka.at() == at(round));
        let msg = Msg::Polka(Polka::clone(polka.unwrap()));
        for to in to {
            self.give(*to, &msg);
        }
    }

    pub fn said_by(&self, from: usize, kind: Kind, round: u32) -> Vec<Msg> {
        let position = Position {
            at: at(round),
            kind,
        };
        let is = |msg: &&Msg| match msg {
            Msg::Proposal(p) => {
                p.proposer == id(from) && Message::Proposal(p.body).position() == position
            }
            Msg::Vote(v) => v.voter == id(from) && Position::of_vote(&v.body) == position,
            Msg::Polka(_) => false,
        };
        self.log.iter().filter(is).cloned().collect()
    }

    /// The block a node voted for, if it voted.
    pub fn voted(&self, from: usize, kind: Kind, round: u32) -> Option<Option<BlockId>> {
        match self.said_by(from, kind, round).first()? {
            Msg::Vote(vote) => Some(vote.body.block),
            _ => None,
        }
    }

    /// The timer of the current round runs out at each of `nodes`; it must run.
    pub fn expire(&mut self, kind: TimerKind, nodes: &[usize]) {
        for i in nodes {
            let round = self.node(*i).machine.at().round;
            let timer = Timer { kind, round };
            assert!(
                self.node(*i).timers.contains(&timer),
                "node {i}: {timer:?} runs"
            );
            self.fire(*i, timer);
        }
    }

    pub fn fire(&mut self, i: usize, timer: Timer) {
        if let Some(node) = self.nodes.get_mut(&i) {
            node.timers.remove(&timer);
            self.input(i, Input::Timeout(timer));
        }
    }

    /// Feeds an input and everything that follows from it at once: durable writes, own messages, builds, fetches.
    pub fn input(&mut self, i: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(node) = self.nodes.get_mut(&i) else {
                return;
            };
            let outputs = node.machine.handle(input);
            self.perform(i, outputs, &mut inputs);
        }
    }

    fn perform(&mut self, i: usize, outputs: Vec<Output>, inputs: &mut VecDeque<Input>) {
        for output in outputs {
            match output {
                Output::Reason(_) => inputs.push_back(Input::Begin),
                Output::Build { round } if self.builds => inputs.push_back(Input::Built {
                    round,
                    block: block(i, round.0, 0),
                }),
                Output::Build { round } => {
                    self.nodes
                        .entry(i)
                        .and_modify(|node| node.builds.push(round));
                }
                Output::Sign(sign) => {
                    let msg = self.record(i, sign);
                    inputs.push_back(msg.input(true));
                }
                Output::Schedule { timer, .. } => {
                    self.nodes.entry(i).and_modify(|node| {
                        node.timers.insert(timer);
                    });
                }
                Output::Polka(polka) => self.check_polka(i, &polka),
                Output::WantBlock { block, .. } if self.fetches => {
                    inputs.push_back(Input::Validity {
                        block,
                        valid: is_valid(block),
                    });
                }
                Output::WantBlock { block, .. } => {
                    self.nodes.entry(i).and_modify(|node| {
                        node.wanted.insert(block);
                    });
                }
                Output::Evidence(evidence) => {
                    let honest = self.nodes.keys().any(|i| id(*i) == evidence.offender);
                    if honest {
                        self.break_rule(i, "M7: accuses an honest node");
                    }
                    self.evidence.push(*evidence);
                }
                Output::Decided(certificate) => {
                    let commit = &certificate.commit;
                    let body = VoteBody {
                        step: VoteStep::Precommit,
                        branch: Branch(0),
                        era: commit.at.era,
                        height: HEIGHT,
                        round: commit.at.round,
                        valid_round: None,
                        block: Some(certificate.block),
                    };
                    self.check_signers(i, body, commit.signers.ones().collect());
                    self.decided.insert(i, certificate.block);
                    if self
                        .decided
                        .values()
                        .any(|other| *other != certificate.block)
                    {
                        self.break_rule(i, "agreement: two blocks are decided");
                    }
                }
                Output::NewRound { .. } | Output::Valid(_) | Output::WantPolka { .. } => {}
            }
        }
    }

    /// Writes and sends a message of an honest node, and checks S5 and I1 to I4 on the way.
    fn record(&mut self, i: usize, sign: Sign) -> Msg {
        let position = sign.message.position();
        let node = &self.nodes[&i];
        let last = node.signed.last().map(|sign| sign.message.position());
        let mut faults = Vec::new();
        if last.is_some_and(|last| last >= position) {
            faults.push("I1, I2: positions ascend".to_string());
        }
        if position.at.round > Round(0) && last.is_none_or(|last| last.at < position.at) {
            faults.extend(self.entry_fault(position.at.round, &sign.durable.entry));
        }
        if let Message::Vote(body) = sign.message {
            let polka = sign.durable.polka.as_ref();
            if let (Some(block), VoteStep::Precommit) = (body.block, body.step) {
                let stands = polka.is_some_and(|p| p.block == block && p.at() == body.at());
                let lock = sign.durable.lock.map(|lock| (lock.block, lock.at));
                if !stands || lock != Some((block, body.at())) || sign.durable.block != Some(block)
                {
                    faults.push("I3: a precommit needs polka, lock and block on disk".to_string());
                }
            }
            if let (Some(block), VoteStep::Prevote) = (body.block, body.step) {
                let answers = body.valid_round.is_none()
                    || polka.is_some_and(|p| p.block == block && Some(p.at()) == body.valid_round);
                if !answers {
                    faults.push("S5: a prevote with valid_round >= 0 needs its polka".to_string());
                }
                let locks = node.signed.iter().filter_map(|sign| sign.durable.lock);
                if locks
                    .map(|lock| lock.at)
                    .any(|lock| body.valid_round < Some(lock))
                {
                    faults.push(format!("I4, S6: {body:?} disregards a lock"));
                }
            }
        }
        for fault in faults {
            self.break_rule(i, fault);
        }
        let msg = match sign.message {
            Message::Proposal(body) => Msg::Proposal(SignedProposal {
                body,
                proposer: id(i),
                signature: Signature([i as u8; 64]),
            }),
            Message::Vote(body) => Msg::Vote(Vote {
                body,
                voter: id(i),
                signature: Signature([i as u8; 64]),
            }),
        };
        self.forge(&msg);
        self.nodes
            .entry(i)
            .and_modify(|node| node.signed.push(sign));
        msg
    }

    /// S5: what must be on disk before the first message of a round > 0.
    fn entry_fault(&self, round: Round, entry: &[Vote]) -> Option<String> {
        let power = |votes: Vec<&Vote>| {
            let voters: BTreeSet<_> = votes.iter().map(|vote| vote.voter).collect();
            let found = voters.iter().filter_map(|voter| self.set.index_of(voter));
            self.set.power_of(found)
        };
        let before = entry.iter().filter(|vote| {
            vote.body.round.next() == round && vote.body.step == VoteStep::Precommit
        });
        let later = entry.iter().filter(|vote| vote.body.round >= round);
        let total = self.set.total();
        let lets_in = self.rules.is_quorum(power(before.collect()), total)
            || is_over_third(power(later.collect()), total);
        (!lets_in).then(|| format!("S5: nothing on disk lets the node into round {round}"))
    }

    fn check_polka(&mut self, i: usize, polka: &Polka) {
        self.check_signers(
            i,
            polka.body(Branch(0)),
            polka.votes.signers.ones().collect(),
        );
    }

    /// Signers must have said exactly this, and be a quorum by the protocol's count.
    fn check_signers(&mut self, i: usize, body: VoteBody, signers: Vec<usize>) {
        let forged = signers.iter().any(|s| !self.said.contains(&(id(*s), body)));
        if forged {
            self.break_rule(i, format!("S1: not all signers said {body:?}"));
        }
        if !is_quorum(self.set.power_of(signers), self.set.total()) {
            self.break_rule(i, format!("3p > 2S: no quorum for {body:?}"));
        }
    }
}
