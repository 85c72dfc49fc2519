//! Proposals and blocks: building, collecting, judging, deciding.

use crate::base::time::Now;
use crate::consensus::messages::Input;
use crate::crypto::verify::{Check, Verified};
use crate::ledger::apply::{self, ApplyError, BuildError, BuildInput, Delta};
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::mempool::{Departed, Departure};
use crate::p2p::messages::{Bodies, GetBodies, Message, PeerId, Proposal};
use crate::replica::assembly::{Assembly, Next, serve};
use crate::replica::catchup::unknown_checks;
use crate::replica::height::{HeightWork, Work};
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::Record;
use crate::types::block::{Block, Certificate, Commit, slot_root};
use crate::types::fork::Decision;
use crate::types::ids::*;
use crate::types::vote::SignedProposal;
use std::sync::Arc;

/// Blocks of one height that are collected and judged at a time. A leader that signs more gives evidence, not work.
pub(super) const BLOCK_COUNT_MAX: usize = 16;

impl Replica {
    /// When a block that this node is to build can leave (S4): never before its stamp is near.
    pub(super) fn build_due(&self, now: Now) -> Deadline {
        let round = self.height.build?;
        let send = self
            .state
            .earliest()
            .minus(self.state.params().precision_ms / 2);
        let early = (send > now.wall).then(|| now.mono_at(send));
        early.or_else(|| self.attestation_patience(now, round))
    }

    /// As leader: builds a block as soon as the clock allows and there is something to put into it (S3, S4).
    pub(super) fn maybe_build(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        let Some(round) = self.height.build else {
            return Ok(());
        };
        let height = self.height.height();
        if self.build_due(now).is_some()
            || self.guard.ready(height, &self.state.deciders()).is_err()
        {
            return Ok(());
        }
        let Some(proposer) = self.guard.me() else {
            return Ok(());
        };
        let time = now.wall.max(self.state.earliest());
        let slot_block = self.state.is_slot_block(time);
        let candidates = self.mempool.select(self.room(slot_block));
        if candidates.is_empty() && !slot_block && round == Round(0) {
            return Ok(());
        }
        let last_commit = self.last_commit();
        let input = BuildInput {
            round,
            proposer,
            time,
            last_commit,
            slot_part: self.slot_part(time),
            candidates,
        };
        let built = self.with_view(view, |replica, layered| {
            apply::build(layered, &replica.state, input)
        });
        match built {
            Ok((block, delta)) => {
                self.height.build = None;
                let id = delta.after.block();
                self.height
                    .blocks
                    .insert(id, Work::Valid(Arc::new(block), Arc::new(delta)));
                self.feed(now, Input::Built { round, block: id }, view)
            }
            Err(BuildError::View(error)) => Err(error),
            // Nothing that was offered fits: as if there were no candidate.
            Err(BuildError::Invalid(_)) => Ok(()),
        }
    }

    /// The precommits that decided the newest block; empty at height 1.
    fn last_commit(&self) -> Commit {
        self.last_certificate
            .as_ref()
            .map(|c| c.commit.clone())
            .unwrap_or_default()
    }

    /// Cheap questions about a proposal before its signature is checked.
    pub(super) fn proposal_frame(&mut self, peer: PeerId, proposal: Proposal, read: ReadAt) {
        let (body, header) = (proposal.signed.body, &proposal.header);
        let height = self.height.height();
        if body.height == height.next() {
            return self.keep_ahead(peer, Message::Proposal(Box::new(proposal)), read);
        }
        if body.height != height
            || (body.era, body.branch) != (self.state.era(), self.state.tip.branch)
        {
            return;
        }
        let wanted = self.height.wanted.contains_key(&body.block);
        let held = self
            .height
            .proposals
            .get(&body.round)
            .is_some_and(|(p, ..)| p.signed == proposal.signed);
        if held {
            self.peers.has_proposal(peer, body.at());
        }
        if held && !wanted {
            return;
        }
        if self.height.blocks.len() >= BLOCK_COUNT_MAX && !wanted {
            return self.event(Event::Shed("blocks of a height"));
        }
        // A second, different proposal of a round goes on to the core: it is evidence.
        let leads = self.height.engine.leader(body.round) == Some(proposal.signed.proposer);
        let Some(operator) = self
            .state
            .validators
            .get(&proposal.signed.proposer)
            .map(|v| v.operator)
        else {
            return;
        };
        if !leads || header.height != height || header.parent != self.state.block() {
            return;
        }
        let bound = header.id() == body.block
            && proposal.last_commit.hash() == header.last_commit_hash
            && (header.slot_root.is_zero() != self.state.is_slot_block(header.time))
            && (header.slot_root.is_zero() || slot_root(&proposal.slot_part) == header.slot_root);
        if !bound || (header.slot_root.is_zero() && !proposal.slot_part.is_empty()) {
            return self.out.push(Effect::Fault(
                peer,
                "a proposal whose parts do not hash to its block id",
            ));
        }
        let check = proposal
            .signed
            .signature_check(self.state.chain_id(), operator);
        self.check(Item::Proposal(peer, Arc::new(proposal), read), vec![check]);
    }

    /// S4: timely, judged by when the frame was read, and the clock must be believed. M4: attested, if it could be.
    fn is_acceptable(&self, proposal: &Proposal, read: ReadAt) -> bool {
        let (round, params) = (proposal.signed.body.round.0, self.state.params());
        let (precision, delay) = (params.precision(round), params.delay(round));
        let (time, recv) = (proposal.header.time, read.0.wall);
        let timely =
            recv.minus(delay.saturating_add(precision)) <= time && time <= recv.plus(precision);
        timely && !self.clock.alarm() && self.is_attested_enough(proposal)
    }

    /// A proposal's signature holds.
    pub(super) fn proposal_proven(
        &mut self,
        now: Now,
        peer: PeerId,
        proposal: Arc<Proposal>,
        signed: Verified<SignedProposal>,
        read: ReadAt,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if signed.body.height != self.height.height() {
            return Ok(());
        }
        self.peers.has_proposal(peer, signed.body.at());
        self.peers.relay_proposal(now.mono, proposal.clone());
        let acceptable = self.is_acceptable(&proposal, read);
        self.event(Event::Proposed(
            signed.body.height,
            signed.body.at(),
            signed.body.block,
        ));
        self.start_work(now, Some(peer), &proposal, view)?;
        self.offered(now, proposal, signed, acceptable, view)
    }

    /// A proposal, own or of a peer, goes to the core.
    pub(super) fn offered(
        &mut self,
        now: Now,
        proposal: Arc<Proposal>,
        signed: Verified<SignedProposal>,
        acceptable: bool,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let header_at = EraRound {
            era: proposal.header.era,
            round: proposal.header.round,
        };
        let round = signed.body.round;
        self.height
            .proposals
            .entry(round)
            .or_insert((proposal, signed.clone(), acceptable));
        self.feed(
            now,
            Input::Proposal {
                proposal: signed,
                header_at,
                acceptable,
            },
            view,
        )
    }

    /// Collects the transactions of a proposed block.
    fn start_work(
        &mut self,
        now: Now,
        peer: Option<PeerId>,
        proposal: &Arc<Proposal>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let body = proposal.signed.body;
        if self.height.blocks.contains_key(&body.block) {
            return Ok(());
        }
        let shorts = self
            .mempool
            .short_ids(&proposal.header.parent, body.height, body.round);
        let held = |short: &[u8; 8]| match shorts.get(short) {
            crate::ledger::mempool::Found::One(tx) => Some(tx.clone()),
            _ => None,
        };
        let assembly = Assembly::new(proposal.clone(), held);
        self.height
            .blocks
            .insert(body.block, Work::Filling(Box::new(assembly)));
        self.continue_work(now, peer, body.block, view)
    }

    /// Asks for what is missing of a block, or judges it when it is whole.
    fn continue_work(
        &mut self,
        now: Now,
        peer: Option<PeerId>,
        id: BlockId,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(Work::Filling(assembly)) = self.height.blocks.get_mut(&id) else {
            return Ok(());
        };
        let at = assembly.proposal().signed.body.at();
        match assembly.step() {
            Next::Whole(block) => self.judge(now, id, *block, view),
            Next::Ask(wanted) => {
                if let Some(peer) = peer {
                    self.send(peer, Message::GetBodies(GetBodies { block: id, wanted }));
                }
                self.height
                    .want(id, at, now.mono.plus_ms(crate::replica::height::FETCH_MS));
                Ok(())
            }
        }
    }

    /// Transactions of a proposed block have arrived.
    pub(super) fn bodies(
        &mut self,
        now: Now,
        peer: PeerId,
        bodies: Bodies,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(Work::Filling(assembly)) = self.height.blocks.get_mut(&bodies.block) else {
            return Ok(());
        };
        if assembly.answer(bodies.found).is_err() {
            self.out.push(Effect::Fault(
                peer,
                "transactions that do not hash to what was asked for",
            ));
            return Ok(());
        }
        self.continue_work(now, Some(peer), bodies.block, view)
    }

    /// Answers a request for transactions of a block.
    pub(super) fn serve_bodies(&mut self, peer: PeerId, asked: &GetBodies) {
        let block = match self.height.blocks.get(&asked.block) {
            Some(Work::Valid(block, _) | Work::Checking(block, _)) => Some(block.clone()),
            _ => self
                .last
                .as_ref()
                .filter(|d| d.certificate.block == asked.block)
                .map(|d| d.block.clone()),
        };
        if let Some(block) = block {
            let found = serve(&block, &asked.wanted);
            self.send(
                peer,
                Message::Bodies(Bodies {
                    block: asked.block,
                    found,
                }),
            );
        }
    }

    /// Judges a whole block: everything but signatures here, signatures that are not known to be good in the pool.
    pub(super) fn judge(
        &mut self,
        now: Now,
        id: BlockId,
        block: Block,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let judged = self.with_view(view, |replica, layered| {
            apply::apply(layered, &replica.state, &block)
        });
        match judged {
            Err(ApplyError::View(error)) => Err(error),
            Err(ApplyError::Invalid(invalid)) => self.invalid(now, id, invalid.to_string(), view),
            Ok(applied) => {
                let unknown = applied
                    .checks
                    .into_iter()
                    .filter(|c| !self.mempool.is_verified(&c.wtxid));
                let mut checks: Vec<Check> = unknown.flat_map(|c| c.checks).collect();
                let parent = self.last_certificate.as_ref();
                checks.extend(unknown_checks(applied.other_checks, &block, parent));
                let (block, delta) = (Arc::new(block), Arc::new(applied.delta));
                self.height.blocks.insert(id, Work::Checking(block, delta));
                if checks.is_empty() {
                    return self.block_proven(now, id, view);
                }
                self.check(Item::Block(id), checks);
                Ok(())
            }
        }
    }

    /// All signatures of a block hold.
    pub(super) fn block_proven(
        &mut self,
        now: Now,
        id: BlockId,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if self.line_proven(now, id, view)? {
            return Ok(());
        }
        let Some(Work::Checking(block, delta)) = self.height.blocks.get(&id) else {
            return Ok(());
        };
        let (block, delta) = (block.clone(), delta.clone());
        block
            .transactions
            .iter()
            .for_each(|tx| self.mempool.note_verified(tx.wtxid));
        self.height.blocks.insert(id, Work::Valid(block, delta));
        self.height.wanted.remove(&id);
        self.feed(
            now,
            Input::Validity {
                block: id,
                valid: true,
            },
            view,
        )?;
        self.settle(now, view)
    }

    /// A block breaks a rule.
    pub(super) fn invalid(
        &mut self,
        now: Now,
        id: BlockId,
        why: String,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if self.line_refuted(id, &why) {
            return Ok(());
        }
        self.height.wanted.remove(&id);
        self.height.blocks.insert(id, Work::Invalid(why.clone()));
        self.event(Event::InvalidProposal(id, why));
        self.feed(
            now,
            Input::Validity {
                block: id,
                valid: false,
            },
            view,
        )?;
        self.settle(now, view)
    }

    /// The core says that the height is decided.
    pub(super) fn certified(
        &mut self,
        now: Now,
        certificate: Box<Certificate>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if !self.forks.allows(certificate.height, certificate.block) {
            return Ok(());
        }
        if self.height.certificate.is_none() {
            let (block, at) = (certificate.block, certificate.commit.at);
            self.height.certificate = Some(certificate);
            if !matches!(
                self.height.blocks.get(&block),
                Some(Work::Valid(..) | Work::Checking(..))
            ) {
                self.height.want(
                    block,
                    at,
                    now.mono.plus_ms(crate::replica::height::FETCH_MS),
                );
            }
        }
        self.settle(now, view)
    }

    /// Decides the height if certificate and valid block are both there; halts if a certified block is invalid (S10).
    pub(super) fn settle(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        let Some(certificate) = self.height.certificate.clone() else {
            return Ok(());
        };
        match self.height.blocks.get(&certificate.block) {
            Some(Work::Valid(block, delta)) => {
                let (block, delta) = (block.clone(), delta.clone());
                self.decide(now, block, delta, *certificate, false, view)
            }
            Some(Work::Invalid(why)) => {
                let why = why.clone();
                let mut offered = self.height.proposals.values().map(|(p, ..)| &p.header);
                let header = offered.find(|header| header.id() == certificate.block);
                if let Some(header) = header.filter(|h| self.names_other(h)).cloned() {
                    let certificate = *certificate;
                    let decision = Decision {
                        header,
                        certificate,
                    };
                    return self.weigh_decision(None, &decision, view);
                }
                self.halt_certified(&certificate, &why);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The state becomes that after a decided block; what follows from a new registry follows.
    fn move_to(&mut self, now: Now, decided: &DecidedBlock) {
        let slot_block = self.state.is_slot_block(decided.block.header.time);
        self.note_slot_block(&decided.block);
        self.state = decided.delta.after.clone();
        if slot_block {
            self.find_operator();
            self.forget_replaced();
            self.sweep_evidence();
        }
        let step = crate::sync::trust::Step::of(&decided.block.header);
        self.trust.decided(now.wall, step);
        self.live_on(now, slot_block);
    }

    /// What must be on disk, and in the coins, before anything follows from a decision.
    fn keep_decided(
        &mut self,
        block: &Arc<Block>,
        delta: &Delta,
        certificate: &Certificate,
        synced: bool,
    ) {
        let height = certificate.height;
        self.catchup.passed(height, certificate.block);
        if synced {
            self.catchup.decided_unrecorded(height);
        } else {
            let record = Record::Block(Box::new(Block::clone(block)));
            if !self.gate.holds(&record.key()) {
                self.gate.write(&record);
            }
            self.gate.write(&Record::Certificate(certificate.clone()));
        }
        self.gate.drop_held();
        self.undurable_bytes += block.bodies_size();
        for (outpoint, coin) in &delta.created {
            self.pending.insert(*outpoint, (height, Some(*coin)));
        }
        for (outpoint, _) in &delta.spent {
            self.pending.insert(*outpoint, (height, None));
        }
    }

    /// The height is decided: the ledger moves, and with it everything else.
    pub(super) fn decide(
        &mut self,
        now: Now,
        block: Arc<Block>,
        delta: Arc<Delta>,
        certificate: Certificate,
        synced: bool,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = certificate.height;
        self.keep_decided(&block, &delta, &certificate, synced);
        let decided = Arc::new(DecidedBlock {
            block,
            certificate: certificate.clone(),
            delta: delta.clone(),
        });
        self.undurable.push_back(decided.clone());
        self.last = Some(decided.clone());
        self.last_certificate = Some(certificate.clone());
        self.out.push(Effect::WriteLedger(decided.clone()));
        self.note_decided(&certificate);
        self.move_to(now, &decided);
        self.watch_decided(&decided, synced);
        let since_parent_us = now.mono.since(self.height.since);
        let next = HeightWork::new(&self.state, self.guard.me(), self.rules, now.mono);
        self.height = next;
        self.inputs.clear();
        let told = self.peers.send_certificate(now.mono, &certificate);
        self.out.extend(told);
        let (set, me) = (self.state.deciders(), self.guard.me());
        self.peers.new_height(now.mono, set, me);
        let finality_us = self.finality_of(now, &decided.block);
        for tx in &decided.block.transactions {
            self.requests.arrived(&tx.wtxid);
        }
        let settled = self.mempool.decided(&decided.block);
        let is_conflict = |d: &&Departed| matches!(d.why, Departure::Conflicted { .. });
        let conflicted = settled
            .departed
            .iter()
            .filter(is_conflict)
            .map(|d| d.tx.txid)
            .collect();
        self.forget_departed(&settled.departed);
        if self.state.tip.prev_slot_block == self.state.block() {
            let registry = self.state.registry();
            self.guard.keep(|id| registry.get(id).is_some());
            let stale = self.mempool.recheck_registry(&self.state);
            self.forget_departed(&stale);
        }
        let round = certificate.commit.at;
        self.event(Event::Decided {
            decided,
            round,
            since_parent_us,
            finality_us,
            conflicted,
            synced,
        });
        let era = self.state.era();
        if let Some(mark) = self.guard.advance(era, height, &self.state.deciders()) {
            self.gate.write(&Record::HighWater(mark));
            self.gate.renew();
        }
        self.out
            .push(Effect::Advanced(self.status(now), self.state.deciders()));
        let departed = self.mempool.set_branch(self.state.tip.branch);
        self.forget_departed(&departed);
        for (tx, source) in settled.orphans_now_ready {
            self.offer_again(now, tx, source, view)?;
        }
        self.retry_early(view)?;
        self.settle_deep(view)?;
        self.replay_ahead(now, view)
    }
}
