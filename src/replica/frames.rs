//! Frames of peers, and what peers are told of this node.

use crate::base::bounded::BoundedVec;
use crate::base::limits::VOTES_PER_FRAME;
use crate::base::time::Now;
use crate::consensus::held::HeldRound;
use crate::consensus::messages::Input;
use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Verified;
use crate::ledger::coins::{CoinView, ViewError};
use crate::p2p::messages::{Message, PeerId, Status, VoteBitmap};
use crate::replica::guard::known_decided;
use crate::replica::io::*;
use crate::replica::machine::{AHEAD_BYTES_MAX, AHEAD_FRAME_COUNT_MAX, Replica};
use crate::replica::record::{Position, Step};
use crate::types::ids::*;
use crate::types::vote::{Vote, VoteStep};
use std::sync::Arc;

/// Votes whose signatures are being checked; beyond it new ones are dropped and repaired by pull (S8).
pub(super) const CHECKING_VOTE_COUNT_MAX: usize = 8_192;

fn position_of(vote: &Vote) -> Position {
    let body = &vote.body;
    Position {
        era: body.era,
        height: body.height,
        round: body.round,
        step: match body.step {
            VoteStep::Prevote => Step::Prevote,
            VoteStep::Precommit => Step::Precommit,
        },
    }
}

impl Replica {
    pub(super) fn peer_up(&mut self, peer: PeerId, status: Status) {
        self.peers.up(peer, status);
        self.greet_with_transactions(peer);
        self.greet_with_evidence(peer);
        self.greet_with_fork(peer);
    }

    /// B7 step 2: a validator is shown the highest vote held by its key; an empty frame says that there is none.
    pub(super) fn peer_masternode(
        &mut self,
        now: Now,
        peer: PeerId,
        id: MasternodeId,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if let Some(known) = self.peers.get_mut(peer) {
            known.masternode = Some(id);
            let status = known.status;
            self.peer_status(now, peer, status, view)?;
        }
        self.tell_held_of(peer, id);
        if self.peers.is_validator(peer) && self.peers.collects(now.mono) {
            let bitmap = self.bitmap();
            self.send(peer, Message::VoteBitmap(Box::new(bitmap)));
        }
        Ok(())
    }

    /// B7 step 2: the highest vote held of a masternode's key, or that there is none.
    fn tell_held_of(&mut self, peer: PeerId, id: MasternodeId) {
        let tally = self.height.engine.tally();
        let held = tally.highest_of(&id).or_else(|| self.seen.get(&id));
        // What an earlier key of the masternode signed says nothing of the one that it has now (M2).
        let now = self.state.registry().get(&id).map(|e| e.operator);
        let held = held.filter(|vote| self.key_of(vote) == now);
        let votes = BoundedVec::take_from(held.cloned());
        self.send(peer, Message::Votes(votes));
    }

    /// The operator key that signs for a voter at the height of a vote, by the registry of now.
    fn key_of(&self, vote: &Vote) -> Option<PublicKey> {
        let entry = self.state.registry().get(&vote.voter)?;
        Some(entry.operator_at(vote.body.height))
    }

    /// The registry has changed: greatest votes of keys that were replaced, or of masternodes that are gone, show nothing.
    pub(super) fn forget_replaced(&mut self) {
        let registry = self.state.registry();
        self.seen.retain(|id, vote| {
            let entry = registry.get(id);
            entry.is_some_and(|e| e.operator_at(vote.body.height) == e.operator)
        });
    }

    /// Whether a vote is of this node's masternode and of the key that it has now: at heights below it may have had another.
    fn is_own(&self, vote: &Vote) -> bool {
        let own = self.operator.as_ref();
        own.is_some_and(|(me, key)| *me == vote.voter && self.key_of(vote) == Some(key.public()))
    }

    pub(super) fn peer_status(
        &mut self,
        now: Now,
        peer: PeerId,
        status: Status,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(known) = self.peers.get_mut(peer) else {
            return Ok(());
        };
        known.status = status;
        if let Some(masternode) = known.masternode {
            self.clock.told(masternode, status.clock, now);
            if self.guard.me() != Some(masternode) {
                let decided = known_decided(status.height, status.voted);
                let here = status.era >= self.state.era();
                self.guard.decided_by(masternode, here.then_some(decided));
                self.guard.tip_of(masternode, status.height, status.voted);
                let (era, height) = (self.state.era(), self.state.height());
                self.guard.advance(era, height, &self.state.deciders());
            }
        }
        self.compare(now, peer, &status, view)
    }

    pub(super) fn frame(
        &mut self,
        now: Now,
        peer: PeerId,
        message: Message,
        read: ReadAt,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match message {
            Message::Votes(votes) => self.votes_frame(peer, votes, read),
            Message::Proposal(proposal) => self.proposal_frame(peer, *proposal, read),
            Message::VoteBitmap(bitmap) => self.bitmap_frame(now, peer, &bitmap),
            Message::Polka(polka) => self.polka_frame(peer, polka),
            Message::Certificate(certificate) => self.certificate_frame(now, peer, certificate),
            Message::GetProposal((height, at)) => {
                let held = self
                    .height
                    .proposals
                    .get(&at.round)
                    .filter(|_| height == self.height.height());
                if let Some((proposal, ..)) = held {
                    let frame = Message::Proposal(Box::new(crate::p2p::messages::Proposal::clone(
                        proposal,
                    )));
                    self.send(peer, frame);
                }
            }
            Message::GetPolka((height, at, block)) => {
                if let Some(polka) = self.serve_polka(height, at, block) {
                    self.send(peer, Message::Polka(Box::new(polka)));
                }
            }
            Message::GetBodies(asked) => self.serve_bodies(peer, &asked),
            Message::Bodies(bodies) => self.bodies(now, peer, bodies, view)?,
            Message::TxInv(wtxids) => self.inventory(now, peer, &wtxids),
            Message::GetTx(wtxids) => self.serve_transactions(peer, &wtxids),
            Message::Txs(txs) => {
                for tx in txs {
                    self.peers.has_tx(peer, tx.wtxid);
                    self.offer(now, tx, Origin::Peer(peer), view)?;
                }
            }
            Message::Heartbeats(_)
            | Message::Attestation(_)
            | Message::Evidence(_)
            | Message::GetAttestations(_) => self.liveness_frame(now, peer, message, read),
            // Greetings, pings and blocks belong to other machines.
            other => self.fork_frame(now, peer, other, view)?,
        }
        Ok(())
    }

    /// A polka of the height under way, of this era or an older one; or of the height of the fork that is open.
    fn polka_frame(&mut self, peer: PeerId, polka: Box<crate::types::polka::Polka>) {
        let (chain, branch) = (self.state.chain_id(), self.state.tip.branch);
        if polka.height == self.height.height()
            && let Some(set) = self.state.set_of(polka.at().era)
            && let Ok(checks) = polka.checks(chain, branch, &set)
        {
            return self.check(Item::Polka(peer, polka), checks);
        }
        if let Some(case) = &self.forks.case
            && polka.height == case.proof.height()
            && let Ok(checks) = polka.checks(chain, case.proof.first.header.branch, &case.set)
        {
            self.check(Item::ForkPolka(peer, polka), checks);
        }
    }

    /// A certificate of the height under way decides it; one of an older height for another block is the sign of a fork.
    fn certificate_frame(
        &mut self,
        now: Now,
        peer: PeerId,
        certificate: Box<crate::types::block::Certificate>,
    ) {
        let (height, block) = (certificate.height, certificate.block);
        let (chain, branch) = (self.state.chain_id(), self.state.tip.branch);
        if height == self.height.height()
            && self.forks.allows(height, block)
            && let Some(set) = self.state.set_of(certificate.commit.at.era)
            && let Ok(checks) = certificate.checks(chain, branch, &set)
        {
            return self.check(Item::Certificate(peer, certificate), checks);
        }
        let own = self.forks.decided_id(height);
        if own.is_some_and(|own| own != block) {
            self.suspect(now, peer, height);
        }
    }

    pub(super) fn blame(&mut self, peer: Option<PeerId>, why: &'static str) {
        if let Some(peer) = peer {
            self.out.push(Effect::Fault(peer, why));
        }
    }

    /// Votes: known, of this height, of a member? Only then their signatures are checked.
    fn votes_frame(
        &mut self,
        peer: PeerId,
        votes: BoundedVec<Vote, VOTES_PER_FRAME>,
        read: ReadAt,
    ) {
        // B7 step 2: the answer to an OperatorProof is what is held of this key, or an empty frame.
        // One that the store does not account for is no answer: once its signature is judged, it is an alarm.
        let mine = |v: &&Vote| Some(v.voter) == self.guard.me();
        let mut answers = votes.iter().filter(|v| self.is_own(v));
        let answered = match answers.next() {
            // One about a key that was replaced is an answer about this one: nothing.
            None => votes.iter().all(|v| mine(&v)),
            Some(first) => self.accounts_for(first) && answers.all(|v| self.accounts_for(v)),
        };
        if let Some(masternode) = self.peers.get(peer).and_then(|p| p.masternode)
            && answered
        {
            self.guard.exchanged_with(masternode);
        }
        let height = self.height.height();
        let later: Vec<Vote> = votes
            .iter()
            .filter(|v| v.body.height == height.next())
            .cloned()
            .collect();
        if !later.is_empty() {
            self.keep_ahead(peer, Message::Votes(BoundedVec::take_from(later)), read);
        }
        let set = self.state.deciders();
        for vote in votes {
            let own = self.guard.me() == Some(vote.voter);
            if own && self.height.own_votes.iter().any(|v| **v == vote) {
                self.peers.has_vote(peer, &vote);
                continue;
            }
            if own && !self.is_own(&vote) {
                continue;
            }
            if vote.body.height != height && !own {
                self.late_vote(peer, &vote);
                continue;
            }
            let Some(member) = set.get(&vote.voter) else {
                continue;
            };
            let same = |held: &Vote| held.voter == vote.voter && held.body == vote.body;
            let tally = self.height.engine.tally();
            if !own && tally.votes(vote.body.round, vote.body.step).any(same) {
                self.peers.has_vote(peer, &vote);
                continue;
            }
            if self.height.checking.len() >= CHECKING_VOTE_COUNT_MAX {
                self.event(Event::Shed("votes being checked"));
                continue;
            }
            if self.height.checking.insert(vote.clone()) {
                let check = vote.signature_check(self.state.chain_id(), member.operator);
                self.check(Item::Vote(peer, vote), vec![check]);
            }
        }
    }

    /// Something's signatures hold.
    pub(super) fn proven(
        &mut self,
        now: Now,
        item: Verified<Item>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match Item::clone(&item) {
            Item::Vote(peer, vote) => {
                let proof = item.map(|_| vote.clone());
                self.vote_proven(now, peer, vote, proof, view)
            }
            Item::Proposal(peer, proposal, read) => {
                let signed = proposal.signed.clone();
                self.proposal_proven(now, peer, proposal, item.map(|_| signed), read, view)
            }
            Item::Tx(origin, tx) => {
                let proof = item.map(|_| tx.clone());
                self.admit(now, origin, tx, proof, view)
            }
            Item::Block(id) => self.block_proven(now, id, view),
            Item::Polka(_, polka) if polka.height == self.height.height() => {
                self.feed(now, Input::Polka(item.map(|_| *polka)), view)
            }
            Item::Certificate(_, certificate) if certificate.height == self.height.height() => {
                self.feed(now, Input::Certificate(item.map(|_| *certificate)), view)
            }
            Item::Polka(..) | Item::Certificate(..) => Ok(()),
            Item::Heartbeat(peer, heartbeat, _) => {
                self.heartbeat_proven(now, peer, heartbeat);
                Ok(())
            }
            Item::Evidence(peer, evidence) => {
                self.evidence_checked(peer, evidence, true);
                Ok(())
            }
            Item::Attestation(peer, attestation) => {
                self.attestation_proven(now, peer, *attestation);
                Ok(())
            }
            Item::Fork(_, proof) => self.forked(now, *proof, view),
            Item::Deep(_, decision) => self.too_deep(&decision, view),
            Item::ForkPolka(_, polka) => {
                self.fork_polka(now, *polka);
                Ok(())
            }
            Item::Statement(_, statement) => {
                self.statement_proven(item.map(|_| statement));
                Ok(())
            }
            Item::Recovery(peer, cert) => self.recovery_proven(peer, *cert, view),
            Item::Tie(_, tie) => {
                self.tie_proven(*tie);
                Ok(())
            }
            Item::Entered(_, hash, decision) => {
                self.entered_proven(hash, &decision);
                Ok(())
            }
        }
    }

    /// A signature does not hold.
    pub(super) fn refuted(
        &mut self,
        now: Now,
        item: Item,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match item {
            Item::Vote(peer, vote) => {
                self.height.checking.remove(&vote);
                self.event(Event::VoteJudged(
                    vote_name(vote.body.step),
                    "bad-signature",
                ));
                // Own votes of other heights are looked at too, and a slot block between may have changed the key.
                if Some(vote.voter) != self.guard.me() {
                    self.blame(Some(peer), "a vote with a bad signature");
                }
            }
            Item::Proposal(peer, ..) => self
                .out
                .push(Effect::Fault(peer, "a proposal with a bad signature")),
            Item::Polka(peer, _) => self
                .out
                .push(Effect::Fault(peer, "a polka with a bad signature")),
            Item::Certificate(peer, _) => self
                .out
                .push(Effect::Fault(peer, "a certificate with a bad signature")),
            Item::Heartbeat(peer, heartbeat, certain) => {
                self.liveness.heartbeats.refuted(&heartbeat.body);
                if certain {
                    self.out
                        .push(Effect::Fault(peer, "a heartbeat with a bad signature"));
                }
            }
            Item::Evidence(peer, evidence) => self.evidence_checked(peer, evidence, false),
            Item::Attestation(peer, attestation) => {
                self.liveness.attestations.checked(&attestation);
                self.out
                    .push(Effect::Fault(peer, "an attestation with a bad signature"));
            }
            Item::Deep(peer, _) => self.blame(Some(peer), "a decision with a bad signature"),
            Item::Fork(peer, _) => self.blame(peer, "a fork proof with a bad signature"),
            Item::ForkPolka(peer, _) => self.blame(Some(peer), "a polka with a bad signature"),
            Item::Statement(peer, _) => self.blame(Some(peer), "a statement with a bad signature"),
            Item::Recovery(peer, _) => {
                self.blame(peer, "a recovery certificate with a bad signature");
            }
            Item::Tie(peer, _) => self.blame(Some(peer), "a polka with a bad signature"),
            Item::Entered(peer, ..) => self.blame(peer, "a decision with a bad signature"),
            Item::Tx(origin, tx) => self.refuse_signature(origin, &tx),
            Item::Block(id) => {
                return self.invalid(now, id, "a signature does not hold".into(), view);
            }
        }
        Ok(())
    }

    fn vote_proven(
        &mut self,
        now: Now,
        peer: PeerId,
        vote: Vote,
        proof: Verified<Vote>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.height.checking.remove(&vote);
        self.peers.has_vote(peer, &vote);
        if self.guard.me() == Some(vote.voter) {
            return self.own_vote_seen(now, &vote, proof, view);
        }
        if vote.body.height != self.height.height() {
            return Ok(());
        }
        self.note_seen(&vote);
        self.event(Event::VoteJudged(vote_name(vote.body.step), "counted"));
        self.peers.relay_vote(now.mono, vote);
        self.feed(now, Input::Vote(proof), view)
    }

    /// The greatest vote of each validator is shown to it when it connects (B7 step 2).
    pub(super) fn note_seen(&mut self, vote: &Vote) {
        let held = self.seen.get(&vote.voter);
        if held.is_none_or(|held| position_of(held) < position_of(vote)) {
            self.seen.insert(vote.voter, vote.clone());
        }
    }

    /// Whether a vote of this node's own key is one that its store knows of.
    fn accounts_for(&self, vote: &Vote) -> bool {
        let current = vote.body.height == self.height.height();
        let mut own = self.height.own_votes.iter();
        self.guard.covers(position_of(vote)) && (!current || own.any(|own| own.body == vote.body))
    }

    /// B7 step 2: a correctly signed vote of this node's own key that this process did not just send.
    fn own_vote_seen(
        &mut self,
        now: Now,
        vote: &Vote,
        proof: Verified<Vote>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let (body, position) = (&vote.body, position_of(vote));
        let current = body.height == self.height.height();
        let same = self.height.own_votes.iter().any(|own| own.body == *body);
        let known = current.then_some(same);
        if self.guard.own_message_seen(position, known) {
            // The core goes on without signing; the guard refuses every message until B7 is through.
            self.height.refused = false;
            return Ok(());
        }
        // While the store is unsure, votes of the time before count like anybody's.
        match current && !same && !self.guard.is_sure() {
            true => self.feed(now, Input::Vote(proof), view),
            false => Ok(()),
        }
    }

    /// S8: the peer tells what it holds; it gets what it lacks.
    fn bitmap_frame(&mut self, now: Now, peer: PeerId, bitmap: &VoteBitmap) {
        // Who still waits for the exchange of B7 step 2 asks with these frames: a full queue may have shed the first answer,
        // and a masternode that waits for ever signs never.
        if let Some(id) = self.peers.get(peer).and_then(|p| p.masternode) {
            self.tell_held_of(peer, id);
        }
        if bitmap.height != self.height.height() {
            return;
        }
        if self.peers.asked_by(now.mono, peer) {
            self.height.repair = Some(now.mono);
        }
        let members = self.state.validators.len();
        let fits =
            |held: &HeldRound| held.prevotes.len() == members && held.precommits.len() == members;
        let held = bitmap.rounds.iter().map(|r| HeldRound {
            at: r.at,
            proposal: r.proposal,
            prevotes: r.prevotes.clone(),
            precommits: r.precommits.clone(),
        });
        let held: Vec<HeldRound> = held.filter(fits).collect();
        let lacking = self.height.engine.lacking(bitmap.round, &held);
        for round in lacking.proposals {
            if let Some((proposal, ..)) = self.height.proposals.get(&round) {
                self.peers.lacked_proposal(now.mono, peer, proposal);
                let frame =
                    Message::Proposal(Box::new(crate::p2p::messages::Proposal::clone(proposal)));
                self.send(peer, frame);
            }
        }
        for vote in &lacking.votes {
            self.peers.lacked_vote(now.mono, peer, vote);
        }
        for votes in lacking.votes.chunks(VOTES_PER_FRAME) {
            self.send(
                peer,
                Message::Votes(BoundedVec::take_from(votes.iter().cloned())),
            );
        }
        for polka in lacking.polkas {
            self.send(
                peer,
                Message::Polka(Box::new(crate::types::polka::Polka::clone(&polka))),
            );
        }
    }

    /// Keeps a frame of the next height until this one is decided.
    pub(super) fn keep_ahead(&mut self, peer: PeerId, message: Message, read: ReadAt) {
        let size = match &message {
            Message::Proposal(p) => {
                512 + 8 * p.short_ids.len() + 64 * p.last_commit.signatures.len()
            }
            Message::Certificate(c) => 512 + 64 * c.commit.signatures.len(),
            _ => 160 * VOTES_PER_FRAME,
        };
        if self.ahead.len() >= AHEAD_FRAME_COUNT_MAX || self.ahead_bytes + size > AHEAD_BYTES_MAX {
            return self.event(Event::Shed("frames of the next height"));
        }
        self.ahead_bytes += size;
        self.ahead.push_back((peer, message, read));
    }

    /// The height has moved: what was kept for it is read now.
    pub(super) fn replay_ahead(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        self.ahead_bytes = 0;
        for (peer, message, read) in std::mem::take(&mut self.ahead) {
            self.frame(now, peer, message, read, view)?;
        }
        Ok(())
    }

    /// Asks a few peers for what is missing: when a round > 0 is entered and while a height takes long (S8).
    pub(super) fn ask_for_votes(&mut self, now: Now) {
        let to = self.peers.ask(now.mono);
        if !to.is_empty() {
            let bitmap = Message::VoteBitmap(Box::new(self.bitmap()));
            self.out.push(Effect::Send(to, Arc::new(bitmap)));
        }
    }
}

/// The name of a vote's step in metrics.
fn vote_name(step: VoteStep) -> &'static str {
    match step {
        VoteStep::Prevote => "prevote",
        VoteStep::Precommit => "precommit",
    }
}
