//! The words of which stories are made: a network is told what happens to it, step by step, and asked what must be true.
//!
//! Input: [`Options`] and the steps. Output: the world at the end, or the first [`Violation`]; after it no later step does
//! anything, so a story needs no handling of errors. What is staged word by word uses [`crate::sim::stage`].

use crate::p2p::messages::{Message, Proposal, Status};
use crate::replica::record::Record;
use crate::sim::adversary::{Adversary, Outgoing, Tools};
use crate::sim::disk::LedgerDisk;
use crate::sim::stage::{CONSENSUS, Kind, Pick};
use crate::sim::world::{Options, Violation, World};
use crate::types::block::{Block, short_id};
use crate::types::ids::*;
use crate::types::vote::{ProposalBody, SignedProposal, Vote, VoteBody, VoteStep};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A story that is being told. Times are in simulated milliseconds.
pub struct Story {
    /// The network.
    pub world: World,
    /// The height that is staged.
    pub at: Height,
    copies: BTreeMap<usize, BTreeMap<Vec<u8>, Vec<u8>>>,
    told: Result<(), Box<Violation>>,
}

impl Story {
    /// A network before its first moment.
    pub fn begin(options: Options) -> Story {
        Story {
            world: World::new(options),
            at: Height(0),
            copies: BTreeMap::new(),
            told: Ok(()),
        }
    }

    /// Whether nothing has gone wrong so far.
    pub fn holds(&self) -> bool {
        self.told.is_ok()
    }

    /// How it ended so far.
    pub fn outcome(self) -> Result<World, Box<Violation>> {
        self.told.map(|()| self.world)
    }

    /// Everything heals, and the network must recover within `bound_us` (I1 to I6 have been asked all the time).
    pub fn end(mut self, bound_us: u64) -> Result<World, Box<Violation>> {
        if self.holds() {
            self.told = self.world.heal_and_settle(bound_us).map(|_| ());
        }
        self.outcome()
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        if self.holds() {
            self.told = self.world.run(ms * 1_000);
        }
    }

    /// Time passes until something is true, which must be within `ms`.
    pub fn until(&mut self, what: &str, ms: u64, done: impl Fn(&World) -> bool) {
        if !self.holds() {
            return;
        }
        match self.world.run_until(ms * 1_000, done) {
            Ok(true) => {}
            Ok(false) => {
                self.told = Err(self.world.violation(format!("not within {ms} ms: {what}")))
            }
            Err(violation) => self.told = Err(violation),
        }
    }

    /// Something must be true now.
    pub fn must(&mut self, what: &str, holds: bool) {
        if self.holds() && !holds {
            self.told = Err(self.world.violation(format!("not true: {what}")));
        }
    }

    /// All nodes that run decide this height.
    pub fn until_height(&mut self, height: Height, ms: u64) {
        self.until(&format!("everybody decides {height}"), ms, |w| {
            let behind = |i: usize| w.nodes[i].running.is_some() && w.checker.heights[i] < height;
            w.checker.tip() >= height && !(0..w.nodes.len()).any(behind)
        });
    }

    /// The network decides `blocks` more.
    pub fn goes_on(&mut self, blocks: u64, ms: u64) {
        let goal = Height(self.world.checker.tip().0 + blocks);
        self.until(&format!("the network decides {goal}"), ms, |w| {
            w.checker.tip() >= goal
        });
    }

    /// Time passes and nothing is decided.
    pub fn stands_still(&mut self, what: &str, ms: u64) {
        let tip = self.world.checker.tip();
        self.pass(ms);
        self.must(what, self.world.checker.tip() == tip);
    }

    /// These nodes lose power and stay down.
    pub fn kill(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|i| self.world.crash(*i, None));
    }

    /// These nodes start.
    pub fn start(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|i| self.world.power_on(*i));
    }

    /// These nodes lose power at once and start again `ms` later.
    pub fn restart(&mut self, nodes: &[usize], ms: u64) {
        nodes
            .iter()
            .for_each(|i| self.world.crash(*i, Some(ms * 1_000)));
    }

    /// Nothing passes between two nodes any more.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Nothing passes from one node to another any more.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.world.network.blocked.insert((from, to));
    }

    /// These nodes are cut off from all others.
    pub fn part(&mut self, side: &[usize]) {
        self.world.isolate(side);
    }

    /// Cut connections work again.
    pub fn heal(&mut self) {
        self.world.reconnect();
    }

    /// A node that is down loses its signer store.
    pub fn lose_signer(&mut self, node: usize) {
        self.must(
            "a disk is lost while its node is down",
            self.world.nodes[node].running.is_none(),
        );
        self.world
            .tell(&format!("node {node} has lost its signer store"));
        self.world.nodes[node].signer.lose();
    }

    /// A node that is down loses its ledger and keeps its signer store.
    pub fn lose_ledger(&mut self, node: usize) {
        self.must(
            "a disk is lost while its node is down",
            self.world.nodes[node].running.is_none(),
        );
        self.world.tell(&format!("node {node} has lost its ledger"));
        self.world.nodes[node].ledger = LedgerDisk::new(self.world.genesis());
    }

    /// A node that is down loses all its disks.
    pub fn lose_disks(&mut self, node: usize) {
        self.lose_signer(node);
        self.lose_ledger(node);
    }

    /// A node without a masternode gets an operator key and starts anew; holders register it. The next slot block holds
    /// that, and the first one after it that finds the node present gives it power (M5).
    pub fn register(&mut self, node: usize) {
        self.world.equip(node);
        self.restart(&[node], 10);
        self.world.register(node, &crate::sim::kit::endpoint(node));
    }

    /// The owner of a node's masternode wants to leave.
    pub fn unregister(&mut self, node: usize) {
        match self.world.nodes[node].operator.as_ref().map(|(id, _)| *id) {
            Some(id) => self.world.unregister(node, id),
            None => self.must("a masternode leaves", false),
        }
    }

    /// Somebody copies a node's signer store.
    pub fn copy_signer(&mut self, node: usize) {
        let records = self.world.nodes[node].signer.records.clone();
        self.copies.insert(node, records);
    }

    /// The copy is put back in place of the store of a node that is down.
    pub fn restore_signer(&mut self, node: usize) {
        self.must(
            "a store is restored while its node is down",
            self.world.nodes[node].running.is_none(),
        );
        if let Some(records) = self.copies.get(&node) {
            self.world.nodes[node].signer.records = records.clone();
            self.world.nodes[node].signer.highest = None;
            self.world.nodes[node].amnesic = true;
        }
    }

    /// A wall clock is off by this many ms.
    pub fn set_clock(&mut self, node: usize, off_ms: i64) {
        self.world.nodes[node].clock.offset_ms = off_ms;
    }

    /// The signer disk of a node is full for a while.
    pub fn fill_disk(&mut self, node: usize, ms: u64) {
        self.world.nodes[node].full_until = self.world.now() + ms * 1_000;
    }

    /// A client pays, at these nodes.
    pub fn pay(&mut self, at: &[usize]) {
        let now = self.world.now();
        match self.world.clients.pay(now) {
            Some(tx) => at.iter().for_each(|i| self.world.submit_at(*i, tx.clone())),
            None => self.must("a client has a coin to spend", false),
        }
    }

    /// From now on the next height is played by hand: nothing that consensus says of it, and no payment, reaches anybody
    /// unless it is given.
    pub fn by_hand(&mut self) {
        self.at = self.world.checker.tip().next();
        self.world.hold(Pick::of(CONSENSUS).height(self.at));
        self.world.hold(Pick::of(&[Kind::Payment]));
    }

    /// Words of a round reach these nodes.
    pub fn give(&mut self, kind: Kind, round: u32, by: &[usize], to: &[usize]) {
        let pick = Pick::of(&[kind]).height(self.at).round(round);
        self.world.allow(pick.by(by).to(to));
    }

    /// Nothing is played by hand any more, and what was held arrives.
    pub fn let_go(&mut self) {
        self.world.allow_all();
    }

    /// The node that leads a round of the staged height.
    pub fn leader(&self, round: u32) -> usize {
        self.world.leader(Round(round))
    }

    /// What a node has said in a round of the staged height.
    pub fn said(&self, node: usize, kind: Kind, round: u32) -> Option<Option<BlockId>> {
        said(&self.world, node, self.at, kind, round)
    }

    /// The block proposed in a round of the staged height, once it has been.
    pub fn proposed(&mut self, round: u32) -> BlockId {
        let leader = self.leader(round);
        self.until_any(&[leader], Kind::Proposal, round);
        self.said(leader, Kind::Proposal, round)
            .flatten()
            .unwrap_or_default()
    }

    /// Each of these nodes says this; the first thing it says there must be it.
    pub fn until_said(&mut self, nodes: &[usize], kind: Kind, round: u32, what: Option<BlockId>) {
        self.until_any(nodes, kind, round);
        for node in nodes {
            let words = self.said(*node, kind, round);
            let text = format!("node {node} says {what:?} as {kind:?} of round {round}: {words:?}");
            self.must(&text, words == Some(what));
        }
    }

    /// Each of these nodes says anything of that kind.
    pub fn until_any(&mut self, nodes: &[usize], kind: Kind, round: u32) {
        let at = self.at;
        let text = format!("nodes {nodes:?} say a {kind:?} of {at} round {round}");
        self.until(&text, 60_000, |w| {
            nodes.iter().all(|i| said(w, *i, at, kind, round).is_some())
        });
    }

    /// All these nodes learn each other's precommits of a round and go on to the next.
    pub fn next_round(&mut self, round: u32, nodes: &[usize]) {
        self.until_any(nodes, Kind::Precommit, round);
        self.give(Kind::Precommit, round, nodes, nodes);
        self.until(
            &format!("{nodes:?} enter round {}", round + 1),
            60_000,
            |w| nodes.iter().all(|i| w.round_of(*i) > Some(Round(round))),
        );
    }

    /// Makes a node a puppet: it greets and listens, and says only what [`Story::vote`] and [`Story::propose`] say for it.
    pub fn puppet(&mut self, node: usize) {
        self.world.corrupt(node, Box::new(Puppet));
    }

    /// A vote of the staged height with a puppet's signature.
    pub fn signed(
        &self,
        puppet: usize,
        step: VoteStep,
        round: u32,
        what: (Option<BlockId>, Option<u32>),
    ) -> Option<Vote> {
        let body = VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: self.at,
            round: Round(round),
            valid_round: what.1.map(at),
            block: what.0,
        };
        let chain = self.world.genesis().chain_id();
        let (voter, key) = self.world.nodes[puppet].operator.as_ref()?;
        let signature = key.sign(&body.signing_hash(chain));
        Some(Vote {
            body,
            voter: *voter,
            signature,
        })
    }

    /// A puppet tells these nodes its vote: block and valid round.
    pub fn vote(
        &mut self,
        puppet: usize,
        step: VoteStep,
        round: u32,
        what: (Option<BlockId>, Option<u32>),
        to: &[usize],
    ) {
        let vote = self.signed(puppet, step, round, what);
        let votes = crate::base::bounded::BoundedVec::take_from(vote);
        self.world.speak(puppet, to, &Message::Votes(votes));
    }

    /// A puppet proposes a block, again if `vr` says of which round its polka is.
    pub fn propose(
        &mut self,
        puppet: usize,
        round: u32,
        vr: Option<u32>,
        block: &Block,
        to: &[usize],
    ) {
        let body = ProposalBody {
            branch: block.header.branch,
            era: Era(0),
            height: self.at,
            round: Round(round),
            valid_round: vr.map(at),
            block: block.id(),
        };
        let chain = self.world.genesis().chain_id();
        let Some((proposer, key)) = self.world.nodes[puppet].operator.clone() else {
            return;
        };
        let signature = key.sign(&body.signing_hash(chain));
        let parent = block.header.parent;
        let shorts = block.transactions.iter();
        let shorts = shorts.map(|tx| short_id(&parent, body.height, body.round, &tx.wtxid));
        let proposal = Proposal {
            signed: SignedProposal {
                body,
                proposer,
                signature,
            },
            short_ids: crate::base::bounded::BoundedVec::take_from(shorts),
            header: block.header.clone(),
            last_commit: block.last_commit.clone(),
            slot_part: block.slot_part.clone(),
        };
        self.world
            .speak(puppet, to, &Message::Proposal(Box::new(proposal)));
    }
}

fn at(round: u32) -> EraRound {
    EraRound {
        era: Era(0),
        round: Round(round),
    }
}

fn said(world: &World, node: usize, at: Height, kind: Kind, round: u32) -> Option<Option<BlockId>> {
    let step = match kind {
        Kind::Proposal => 0,
        Kind::Prevote => 1,
        _ => 2,
    };
    let (id, _) = world.nodes[node].operator.as_ref()?;
    world.checker.said(*id, at, Round(round), step)
}

/// Greets and listens; its own words stay unsaid.
struct Puppet;

impl Adversary for Puppet {
    fn name(&self) -> &'static str {
        "a puppet"
    }
    fn outgoing(
        &mut self,
        _: Tools<'_>,
        to: Vec<crate::p2p::messages::PeerId>,
        message: Arc<Message>,
    ) -> Outgoing {
        let own = match &*message {
            Message::Votes(votes) => !votes.is_empty(),
            Message::Proposal(_) | Message::VoteBitmap(_) | Message::Polka(_) => true,
            _ => false,
        };
        if own { Vec::new() } else { vec![(to, message)] }
    }
}

impl World {
    /// Writes a line into the log.
    pub fn tell(&mut self, text: &str) {
        self.note(text);
    }

    /// The node that leads a round of the height after the tip.
    pub fn leader(&self, round: Round) -> usize {
        let tip = self.checker.tip();
        let running = self.nodes.iter().filter_map(|n| n.running.as_ref());
        let state = running
            .map(|r| r.replica.state())
            .find(|s| s.height() == tip);
        let id = state.and_then(|s| s.leaders.leader(&s.validators, round));
        let is = |n: &crate::sim::node::Node| n.operator.as_ref().map(|(own, _)| *own) == id;
        self.nodes.iter().position(is).unwrap_or(0)
    }

    /// The round a node is in.
    pub fn round_of(&self, node: usize) -> Option<Round> {
        let running = self.nodes[node].running.as_ref()?;
        let info = running.replica.consensus(self.nodes[node].now(self.now()));
        Some(info.at.round)
    }

    /// Where a node says it stands.
    pub fn status_of(&self, node: usize) -> Option<Status> {
        let running = self.nodes[node].running.as_ref()?;
        Some(running.replica.status(self.nodes[node].now(self.now())))
    }

    /// What the signer disk of a node holds.
    pub fn on_disk(&self, node: usize) -> impl Iterator<Item = Record> {
        let records = self.nodes[node].signer.records.iter();
        records.filter_map(|(key, value)| Record::read(key, value).ok())
    }

    /// A block of a height that is on the signer disk of a node.
    pub fn block_on_disk(&self, node: usize, height: Height) -> Option<Block> {
        self.on_disk(node).find_map(|record| match record {
            Record::Block(block) if block.header.height == height => Some(*block),
            _ => None,
        })
    }
}
