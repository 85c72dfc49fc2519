//! Driving the consensus core of the height that is being decided: its outputs become records, messages and timers.

use crate::base::time::{MonoUs, Now};
use crate::consensus::machine::Machine;
use crate::consensus::messages::{
    HeightContext, Input, Message as Signable, Output, Restored, Sign,
};
use crate::consensus::round::{Pinned, Step as RoundStep};
use crate::consensus::rules::Rules;
use crate::consensus::timeouts::{Timer, TimerKind};
use crate::crypto::verify::Verified;
use crate::ledger::apply::Delta;
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::state::State;
use crate::p2p::messages::{Message, Proposal, RoundHeld, VoteBitmap};
use crate::replica::assembly::Assembly;
use crate::replica::gate::Held;
use crate::replica::guard::Refusal;
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::{Position, Record, Step};
use crate::types::block::{Block, Certificate, short_id};
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::vote::{ProposalBody, SignedProposal, Vote, VoteBody};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of a block that somebody named.
pub(super) enum Work {
    /// Transactions are missing.
    Filling(Box<Assembly>),
    /// Whole; its signatures are being checked.
    Checking(Arc<Block>, Arc<Delta>),
    /// Whole and valid.
    Valid(Arc<Block>, Arc<Delta>),
    /// Against the rules.
    Invalid(String),
}

/// A proposal of the height with the proof of its signature.
pub(super) type Offered = (Arc<Proposal>, Verified<SignedProposal>, bool);

/// Everything about the height that is being decided.
pub(super) struct HeightWork {
    pub(super) engine: Machine,
    /// When the height below was decided.
    pub(super) since: MonoUs,
    /// S3: other nodes have a reason to act.
    pub(super) reason: bool,
    /// The first round has begun.
    pub(super) begun: bool,
    /// This node leads this round and has not built its block yet.
    pub(super) build: Option<Round>,
    /// Since when it is to build: attestations are waited for a little (M4).
    pub(super) build_since: Option<MonoUs>,
    pub(super) blocks: BTreeMap<BlockId, Work>,
    /// By round: (proposal, proof, acceptable).
    pub(super) proposals: BTreeMap<Round, Offered>,
    pub(super) timers: BTreeSet<(MonoUs, u32, u8)>,
    pub(super) timer_of: BTreeMap<(u32, u8), Timer>,
    /// Votes whose signatures are being checked.
    pub(super) checking: BTreeSet<Vote>,
    /// What this node signed in the height.
    pub(super) own_votes: Vec<Verified<Vote>>,
    pub(super) own_proposals: Vec<Verified<SignedProposal>>,
    pub(super) lock: Option<Pinned>,
    /// Decided; the block is still missing or being judged.
    pub(super) certificate: Option<Box<Certificate>>,
    /// Blocks that are wanted: whom they were asked of last, and when to ask somebody else.
    pub(super) wanted: BTreeMap<BlockId, (usize, MonoUs, EraRound)>,
    /// The step the core is in, and since when.
    pub(super) step: (&'static str, MonoUs),
    /// When peers are asked again for missing votes, while the height takes long, and the time between two questions.
    pub(super) repair: Option<MonoUs>,
    pub(super) repair_ms: u64,
    /// The guard refused a message: the core must be set up again before it can go on.
    pub(super) refused: bool,
}

/// How long a peer may take to answer a question about a block before another is asked, ms.
pub(super) const FETCH_MS: u64 = 150;

pub(super) fn context(state: &State, me: Option<MasternodeId>, rules: Rules) -> HeightContext {
    let (leaders, set) = (state.leaders.clone(), state.deciders());
    HeightContext {
        branch: state.tip.branch,
        era: state.era(),
        height: state.height().next(),
        set: set.clone(),
        me,
        params: Arc::new(state.params().clone()),
        leaders: Arc::new(move |round| leaders.leader(&set, round).unwrap_or_default()),
        rules,
    }
}

impl HeightWork {
    pub(super) fn new(
        state: &State,
        me: Option<MasternodeId>,
        rules: Rules,
        since: MonoUs,
    ) -> HeightWork {
        HeightWork::with(Machine::new(context(state, me, rules)), since)
    }

    pub(super) fn with(engine: Machine, since: MonoUs) -> HeightWork {
        HeightWork {
            engine,
            since,
            reason: false,
            begun: false,
            build: None,
            build_since: None,
            blocks: BTreeMap::new(),
            proposals: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            checking: BTreeSet::new(),
            own_votes: Vec::new(),
            own_proposals: Vec::new(),
            lock: None,
            certificate: None,
            wanted: BTreeMap::new(),
            step: ("idle", since),
            repair: None,
            repair_ms: 0,
            refused: false,
        }
    }

    pub(super) fn height(&self) -> Height {
        self.engine.height()
    }

    pub(super) fn next_timer(&self) -> Deadline {
        self.timers.first().map(|(at, ..)| *at)
    }

    pub(super) fn next_fetch(&self) -> Deadline {
        self.wanted.values().map(|(_, at, _)| *at).min()
    }

    fn schedule(&mut self, at: MonoUs, timer: Timer) {
        let key = (timer.round.0, timer.kind as u8);
        self.timers.insert((at, key.0, key.1));
        self.timer_of.insert(key, timer);
    }

    /// Wants a block whole and judged; asks again until it is.
    pub(super) fn want(&mut self, block: BlockId, at: EraRound, due: MonoUs) {
        self.wanted.entry(block).or_insert((0, due, at));
    }
}

impl Replica {
    pub(super) fn fire_timers(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        while let Some(due) = self
            .height
            .timers
            .first()
            .copied()
            .filter(|(at, ..)| *at <= now.mono)
        {
            self.height.timers.remove(&due);
            if let Some(timer) = self.height.timer_of.get(&(due.1, due.2)).copied() {
                let state = self.height.engine.state();
                if timer.round == state.round && step_name(state.step) == timer_name(timer.kind) {
                    self.event(Event::TimedOut(timer_name(timer.kind)));
                }
                self.feed(now, Input::Timeout(timer), view)?;
            }
        }
        Ok(())
    }

    /// Feeds the core and performs what it wants. What comes up while outputs are performed waits its turn: outputs of one
    /// input are never mixed with those of the next, so signed positions ascend (I2).
    pub(super) fn feed(
        &mut self,
        now: Now,
        input: Input,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.inputs.push_back(input);
        if self.feeding {
            return Ok(());
        }
        self.feeding = true;
        let mut result = Ok(());
        while let Some(input) = self.inputs.pop_front() {
            let outputs = self.height.engine.handle(input);
            result = self.perform(now, outputs, view);
            self.note_step(now);
            if result.is_err() {
                break;
            }
        }
        self.feeding = false;
        result
    }

    /// Tells how long the step took that has just ended.
    fn note_step(&mut self, now: Now) {
        let step = step_name(self.height.engine.state().step);
        let (before, since) = self.height.step;
        if step != before {
            self.height.step = (step, now.mono);
            if before != "idle" {
                self.event(Event::StepDone(before, now.mono.since(since)));
            }
        }
    }

    /// Performs outputs of the core in order.
    pub(super) fn perform(
        &mut self,
        now: Now,
        outputs: Vec<Output>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        for output in outputs {
            match output {
                Output::Reason(_) => self.height.reason = true,
                Output::Build { round } => {
                    (self.height.build, self.height.build_since) = (Some(round), Some(now.mono));
                }
                Output::Sign(sign) => self.sign(sign),
                Output::Schedule { timer, after_ms } => {
                    if !self.rules.timers_without_payment && !self.has_payment(now) {
                        continue;
                    }
                    self.height.schedule(now.mono.plus_ms(after_ms), timer)
                }
                Output::NewRound { round } => self.new_round(now, round),
                Output::Polka(polka) => self.gate.write(&Record::Polka(Polka::clone(&polka))),
                Output::Valid(pinned) => self.keep_valid(pinned),
                Output::WantBlock { block, at } => self.want_block(now, block, at, view)?,
                Output::WantPolka { at, block } => {
                    let wanted = Message::GetPolka((self.height.height(), at, block));
                    let to = self.peers.ask(now.mono);
                    self.out.push(Effect::Send(to, Arc::new(wanted)));
                }
                Output::Evidence(evidence) => self.accuse(evidence),
                Output::Decided(certificate) => {
                    self.certified(now, certificate, view)?;
                    // The core that spoke is gone or done: nothing after a decision matters.
                    break;
                }
            }
        }
        Ok(())
    }

    fn new_round(&mut self, now: Now, round: Round) {
        self.height.build = None;
        let at = self.height.engine.at();
        if round > Round(0) {
            self.event(Event::NewRound(self.height.height(), at));
            self.ask_for_votes(now);
        }
        // Blocks of old rounds matter only while locked, valid or decided.
        let state = self.height.engine.state();
        let pinned: Vec<BlockId> = [state.locked, state.valid]
            .into_iter()
            .flatten()
            .map(|p| p.block)
            .collect();
        let oldest = Round(round.0.saturating_sub(1));
        let decided = self.height.certificate.as_ref().map(|c| c.block);
        self.height
            .proposals
            .retain(|r, (p, ..)| *r >= oldest || pinned.contains(&p.signed.body.block));
        let named: BTreeSet<BlockId> = self
            .height
            .proposals
            .values()
            .map(|(p, ..)| p.signed.body.block)
            .collect();
        let wanted = &self.height.wanted;
        self.height.blocks.retain(|id, _| {
            named.contains(id)
                || pinned.contains(id)
                || decided == Some(*id)
                || wanted.contains_key(id)
        });
    }

    /// What this node holds of the height, for peers (S8).
    pub(super) fn bitmap(&self) -> VoteBitmap {
        let rounds = self.height.engine.held().into_iter().map(|held| RoundHeld {
            at: held.at,
            proposal: held.proposal,
            prevotes: held.prevotes,
            precommits: held.precommits,
        });
        VoteBitmap {
            height: self.height.height(),
            round: self.height.engine.at(),
            rounds: crate::base::bounded::BoundedVec::take_from(rounds),
        }
    }

    fn keep_valid(&mut self, pinned: Pinned) {
        self.gate.write(&Record::Valid(
            self.height.height(),
            pinned.block,
            pinned.at,
        ));
        self.keep_block(pinned.block);
    }

    /// Writes a whole block unless it is written.
    fn keep_block(&mut self, id: BlockId) {
        if let Some(Work::Valid(block, _)) = self.height.blocks.get(&id) {
            let record = Record::Block(Box::new(Block::clone(block)));
            if !self.gate.holds(&record.key()) {
                self.gate.write(&record);
            }
        }
    }

    /// Signs what the core wants signed, if the guard lets it, and holds it back until it is durable (S5).
    fn sign(&mut self, sign: Sign) {
        let height = self.height.height();
        let Some((me, secret)) = self.operator.clone() else {
            return;
        };
        let (at, step) = match &sign.message {
            Signable::Proposal(body) => (body.at(), Step::Propose),
            Signable::Vote(body) => (body.at(), Step::from(body.step)),
        };
        let position = Position {
            era: at.era,
            height,
            round: at.round,
            step,
        };
        if let Err(refusal) = self.guard.take(position, &self.state.deciders()) {
            // A position that is gone stays gone: setting the core up again would only ask for it once more.
            self.height.refused |= refusal != Refusal::HighWater;
            return;
        }
        self.record_undurable();
        self.gate.write(&Record::HighWater(position));
        if !sign.durable.entry.is_empty() {
            self.gate
                .write(&Record::Entry(height, at, sign.durable.entry));
        }
        if let Some(polka) = &sign.durable.polka {
            self.gate.write(&Record::Polka(Polka::clone(polka)));
        }
        if let Some(lock) = sign.durable.lock {
            self.gate.write(&Record::Lock(height, lock.block, lock.at));
            self.height.lock = Some(lock);
        }
        if let Some(block) = sign.durable.block {
            self.keep_block(block);
        }
        match sign.message {
            Signable::Vote(body) => self.sign_vote(body, me, &secret),
            Signable::Proposal(body) => self.sign_proposal(body, me, &secret),
        }
    }

    fn sign_vote(
        &mut self,
        body: VoteBody,
        voter: MasternodeId,
        secret: &crate::crypto::keys::SecretKey,
    ) {
        let hash = body.signing_hash(self.state.chain_id());
        let vote = Verified::sign(secret, &hash, |signature| Vote {
            body,
            voter,
            signature,
        });
        self.gate.write(&Record::Vote(Vote::clone(&vote)));
        self.height.own_votes.push(vote.clone());
        self.gate.hold(Held::Vote(vote));
    }

    fn sign_proposal(
        &mut self,
        body: ProposalBody,
        me: MasternodeId,
        secret: &crate::crypto::keys::SecretKey,
    ) {
        let Some(Work::Valid(block, _)) = self.height.blocks.get(&body.block) else {
            return;
        };
        let block = block.clone();
        let hash = body.signing_hash(self.state.chain_id());
        let signed = Verified::sign(secret, &hash, |signature| SignedProposal {
            body,
            proposer: me,
            signature,
        });
        let proposal = Arc::new(proposal_of(&block, SignedProposal::clone(&signed)));
        self.gate
            .write(&Record::Proposal(SignedProposal::clone(&signed)));
        self.height.own_proposals.push(signed.clone());
        self.gate.hold(Held::Proposal(proposal, signed));
    }

    /// The signer store reports: what was held back leaves and counts.
    pub(super) fn signer_durable(
        &mut self,
        now: Now,
        number: u64,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.disk_free("signer store");
        let free = self.gate.durable(number);
        let mut votes = Vec::new();
        for held in &free {
            match held {
                Held::Vote(vote) => votes.push(Vote::clone(vote)),
                Held::Proposal(proposal, _) => {
                    // Said in the order in which it was signed.
                    let before = self.peers.send_votes(now.mono, std::mem::take(&mut votes));
                    let sent = self.peers.send_proposal(now.mono, proposal);
                    self.out.extend(before.into_iter().chain(sent));
                }
                Held::Statement(statement) => {
                    let statement = statement.clone();
                    self.statement_durable(statement);
                }
                Held::Recovered => self.out.push(Effect::Restart),
                Held::Deep => self.deep_durable(),
            }
        }
        let sent = self.peers.send_votes(now.mono, votes);
        self.out.extend(sent);
        for held in free {
            match held {
                Held::Vote(vote) if vote.body.height == self.height.height() => {
                    self.feed(now, Input::Vote(vote), view)?;
                }
                Held::Proposal(proposal, signed) if signed.body.height == self.height.height() => {
                    self.offered(now, proposal, signed, true, view)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// After a refusal has passed (a disk was full, an exchange was pending) the core goes back to what this node signed and
    /// keeps what it heard; peers are asked for what they hold.
    pub(super) fn revive(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        let height = self.height.height();
        // What waits for the disk would count, and be told to peers, before it is durable (S5).
        let waits = !self.height.refused || self.gate.holds_back();
        if waits || self.guard.ready(height, &self.state.deciders()).is_err() {
            return Ok(());
        }
        self.height.refused = false;
        let blocks = self
            .height
            .blocks
            .iter()
            .filter(|(_, w)| matches!(w, Work::Valid(..)))
            .map(|(id, _)| *id);
        let restored = Restored {
            votes: self.height.own_votes.clone(),
            proposals: self.height.own_proposals.clone(),
            lock: self.height.lock,
            valid: self.height.engine.state().valid,
            polkas: Vec::new(),
            entry: Vec::new(),
            blocks: blocks.collect(),
        };
        let outputs = self.height.engine.revive(&restored);
        self.height.timers.clear();
        self.height.build = None;
        self.height.begun = false;
        self.height.checking.clear();
        self.inputs.clear();
        self.perform(now, outputs, view)?;
        let offered: Vec<Offered> = self.height.proposals.values().cloned().collect();
        for (proposal, signed, acceptable) in offered {
            self.offered(now, proposal, signed, acceptable, view)?;
        }
        self.ask_for_votes(now);
        Ok(())
    }

    fn want_block(
        &mut self,
        now: Now,
        block: BlockId,
        at: EraRound,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match self.height.blocks.get(&block) {
            Some(Work::Valid(..)) => self.feed(now, Input::Validity { block, valid: true }, view),
            Some(Work::Invalid(_)) => self.feed(
                now,
                Input::Validity {
                    block,
                    valid: false,
                },
                view,
            ),
            Some(Work::Checking(..)) => Ok(()),
            // A proposal that is at hand is being filled already; somebody is asked if that takes too long.
            _ => {
                let held = self
                    .height
                    .proposals
                    .values()
                    .any(|(p, ..)| p.signed.body.block == block);
                let due = if held {
                    now.mono.plus_ms(FETCH_MS)
                } else {
                    now.mono
                };
                self.height.want(block, at, due);
                Ok(())
            }
        }
    }

    /// Asks peers, one after the other, for blocks that are wanted.
    pub(super) fn fetch_again(&mut self, now: Now) {
        let height = self.height.height();
        let due: Vec<BlockId> = self
            .height
            .wanted
            .iter()
            .filter(|(_, (_, at, _))| *at <= now.mono)
            .map(|(id, _)| *id)
            .collect();
        if due.is_empty() {
            return;
        }
        let peers = self.peers.sources();
        for block in due {
            let Some((turn, at, round)) = self.height.wanted.get_mut(&block) else {
                continue;
            };
            *at = now.mono.plus_ms(FETCH_MS);
            *turn += 1;
            let (turn, round) = (*turn, *round);
            let Some(peer) = peers.get(turn % peers.len().max(1)).copied() else {
                continue;
            };
            let question = match self.height.blocks.get_mut(&block) {
                Some(Work::Filling(assembly)) => match assembly.step() {
                    crate::replica::assembly::Next::Ask(wanted) => {
                        Some(Message::GetBodies(crate::p2p::messages::GetBodies {
                            block,
                            wanted,
                        }))
                    }
                    crate::replica::assembly::Next::Whole(_) => None,
                },
                Some(_) => None,
                None => Some(Message::GetProposal((height, round))),
            };
            if let Some(question) = question {
                self.send(peer, question);
            }
        }
    }
}

/// The name of a step in metrics and RPC.
pub(super) fn step_name(step: RoundStep) -> &'static str {
    match step {
        RoundStep::Idle => "idle",
        RoundStep::Propose => "propose",
        RoundStep::Prevote => "prevote",
        RoundStep::Precommit => "precommit",
    }
}

fn timer_name(kind: TimerKind) -> &'static str {
    match kind {
        TimerKind::Propose => "propose",
        TimerKind::Prevote => "prevote",
        TimerKind::Precommit => "precommit",
    }
}

/// The frame that offers `block`.
pub(super) fn proposal_of(block: &Block, signed: SignedProposal) -> Proposal {
    let header = block.header.clone();
    let (parent, height, round) = (header.parent, header.height, signed.body.round);
    let shorts = block
        .transactions
        .iter()
        .map(|tx| short_id(&parent, height, round, &tx.wtxid));
    Proposal {
        short_ids: crate::base::bounded::BoundedVec::take_from(shorts),
        header,
        last_commit: block.last_commit.clone(),
        slot_part: block.slot_part.clone(),
        signed,
    }
}
