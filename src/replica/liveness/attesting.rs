//! Signing, taking, asking for and using attestations (M4): what a member of the set says about a slot, and what leaders and
//! validators demand of a slot block in its first rounds.
//!
//! The chain never waits for attestations longer than a quarter of a propose timeout in each of the first rounds: a leader
//! without a quorum of them proposes then, and who holds none either accepts.

use super::gather_ms;
use crate::base::bounded::BoundedVec;
use crate::base::time::{Now, WallMs};
use crate::crypto::verify::{Check, Verified};
use crate::ledger::apply::SOFTWARE_BRANCH;
use crate::ledger::slots::slot_of;
use crate::p2p::messages::{Message, PeerId, Proposal};
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::types::bitmap::Bitmap;
use crate::types::ids::*;
use crate::types::masternode::*;
use crate::types::params::Params;
use std::collections::BTreeSet;

impl Replica {
    /// Slots whose attestation this node owes now: that of the clock near its end, and the one before while the chain has
    /// no block in the present one. Only slots that it watched, and once for each base.
    pub(super) fn slots_to_attest(&self, now: Now, params: &Params) -> Vec<Slot> {
        if self
            .next_attestation(now, params)
            .is_none_or(|at| now.wall < at)
        {
            return Vec::new();
        }
        let current = slot_of(now.wall, params);
        let owed = [Slot(current.0.saturating_sub(1)), current];
        let may = |slot: &Slot| self.may_attest(*slot, now, params);
        owed.into_iter().filter(may).collect()
    }

    fn may_attest(&self, slot: Slot, now: Now, params: &Params) -> bool {
        let end = (slot.0 + 1).saturating_mul(params.slot_ms);
        let seen = (9 - params.heartbeats_required) * params.heartbeat_interval_ms;
        let from = WallMs(slot.0.saturating_mul(params.slot_ms).saturating_add(seen));
        let height = self.height.height();
        slot >= self.state.slot()
            && now.wall.plus(params.attest_lead_ms).0 >= end
            && self.liveness.signed.is_none_or(|signed| signed < slot)
            && self.liveness.watching.is_some_and(|since| since <= from)
            && self.guard.ready(height, &self.state.validators).is_ok()
    }

    /// When the next attestation is due, if this node may sign at all.
    pub(super) fn next_attestation(&self, now: Now, params: &Params) -> Option<WallMs> {
        self.state.validators.get(&self.guard.me()?)?;
        let current = slot_of(now.wall, params);
        let before = Slot(current.0.saturating_sub(1));
        if self.may_attest(before, now, params) || self.may_attest(current, now, params) {
            return Some(now.wall);
        }
        let end = |slot: u64| WallMs((slot + 1).saturating_mul(params.slot_ms));
        let this = end(current.0).minus(params.attest_lead_ms);
        Some(match this > now.wall {
            true => this,
            false => end(current.0 + 1).minus(params.attest_lead_ms),
        })
    }

    /// Signs what this node has seen of a slot.
    pub(super) fn attest(&mut self, slot: Slot, params: &Params) {
        let Some((me, secret)) = self.operator.clone() else {
            return;
        };
        let (registry, set) = (self.state.registry(), &self.state.validators);
        let index = self.state.slot_index();
        let required = u32::try_from(params.heartbeats_required).unwrap_or(u32::MAX);
        let there = registry.entries().iter().enumerate().filter(|(_, entry)| {
            let reached = set.get(&entry.id).is_some()
                || self.liveness.probes.is_reached(entry, index, params);
            reached && self.liveness.heartbeats.heard(slot, &entry.id) >= required
        });
        let present = Bitmap::from_ones(registry.len(), there.map(|(i, _)| i));
        let body = AttestationBody {
            era: self.state.era(),
            slot,
            base: self.state.tip.prev_slot_block,
            supports: SOFTWARE_BRANCH,
            attester: me,
            present,
        };
        let hash = body.signing_hash(self.state.chain_id());
        let attestation =
            Verified::sign(&secret, &hash, |signature| Attestation { body, signature });
        self.liveness.signed = Some(slot);
        let attestation = attestation.into_inner();
        if self.liveness.attestations.keep_own(attestation.clone()) {
            self.send_all(Message::Attestation(Box::new(attestation)));
        }
    }

    /// An attestation of a peer: of the present base, a member, a slot that matters, and not there yet?
    pub(in crate::replica) fn attestation_frame(
        &mut self,
        now: Now,
        peer: PeerId,
        attestation: Attestation,
    ) {
        let body = &attestation.body;
        let params = self.state.params();
        let current = slot_of(now.wall, params).0;
        let near =
            body.slot.0.saturating_add(1) >= current && body.slot.0 <= current.saturating_add(1);
        let fits = body.era == self.state.era()
            && body.base == self.state.tip.prev_slot_block
            && body.slot >= self.state.slot()
            && body.present.len() == self.state.registry().len();
        let Some(member) = self.state.validators.get(&body.attester) else {
            return;
        };
        let held = &mut self.liveness.attestations;
        if !near || !fits || held.is_known(body.slot, &body.attester, peer) {
            return;
        }
        if !held.check(body.slot, body.attester) {
            return self.event(Event::Shed("attestations being checked"));
        }
        let check = Check {
            key: member.operator,
            message: body.signing_hash(self.state.chain_id()),
            signature: attestation.signature,
        };
        self.check(Item::Attestation(peer, Box::new(attestation)), vec![check]);
    }

    /// An attestation's signature holds.
    pub(in crate::replica) fn attestation_proven(
        &mut self,
        now: Now,
        peer: PeerId,
        attestation: Attestation,
    ) {
        self.liveness.attestations.checked(&attestation);
        if attestation.body.base == self.state.tip.prev_slot_block {
            let due = now.mono.plus_ms(gather_ms(self.state.params()));
            self.liveness.attestations.keep(attestation, peer, due);
        }
    }

    /// GetAttestations: a member signs if it has not; then everything held is told.
    pub(in crate::replica) fn serve_attestations(
        &mut self,
        now: Now,
        peer: PeerId,
        slot: Slot,
        base: BlockId,
    ) {
        if base != self.state.tip.prev_slot_block {
            return;
        }
        let params = self.state.params().clone();
        if self.may_attest(slot, now, &params) && self.beats().is_some() {
            self.attest(slot, &params);
        }
        for attestation in self.liveness.attestations.answer(peer, slot) {
            self.send(peer, Message::Attestation(Box::new(attestation)));
        }
    }

    /// The slot whose attestations the next block needs, while they are missing and rounds insist on them.
    pub(super) fn asked_slot(&self, now: Now, params: &Params) -> Option<Slot> {
        let time = now.wall.max(self.state.earliest());
        let round = u64::from(self.height.engine.at().round.0);
        let slot = Slot(slot_of(time, params).0.checked_sub(1)?);
        let set = &self.state.validators;
        let asks = self.height.begun
            && round < params.attest_rounds
            && self.state.is_slot_block(time)
            && set.len() > 1
            && !self.liveness.attestations.has_quorum(slot, set);
        asks.then_some(slot)
    }

    pub(super) fn ask_for_attestations(&mut self, now: Now, params: &Params) {
        let again = params.timeout_propose_ms / 4;
        if let Some(slot) = self.asked_slot(now, params)
            && self.liveness.attestations.ask(slot, now.mono, again)
        {
            self.send_all(Message::GetAttestations((
                slot,
                self.state.tip.prev_slot_block,
            )));
        }
    }

    /// How long a leader waits for a quorum of attestations before it proposes a slot block without (M4): validators that
    /// hold one would answer nil. A quarter of the round's timeout, so that the round is not lost by waiting.
    pub(in crate::replica) fn attestation_patience(&self, now: Now, round: Round) -> Deadline {
        let params = self.state.params();
        let time = now.wall.max(self.state.earliest());
        let slot = Slot(slot_of(time, params).0.checked_sub(1)?);
        let until = self
            .height
            .build_since?
            .plus_ms(params.timeout_propose(round.0) / 4);
        let waits = self.state.is_slot_block(time)
            && u64::from(round.0) < params.attest_rounds
            && !self
                .liveness
                .attestations
                .has_quorum(slot, &self.state.validators);
        (waits && now.mono < until).then_some(until)
    }

    /// Attestations and evidence for a block of this time.
    pub(in crate::replica) fn slot_part(&self, time: WallMs) -> SlotPart {
        let slot = slot_of(time, self.state.params()).0.checked_sub(1);
        let attestations = slot
            .into_iter()
            .flat_map(|s| self.liveness.attestations.of(Slot(s)));
        SlotPart {
            attestations: BoundedVec::take_from(attestations.cloned()),
            evidence: BoundedVec::take_from(self.accused.held().cloned()),
        }
    }

    /// M4, acceptance: who holds a quorum of attestations answers nil to a fresh slot block without one, in the first
    /// rounds. Later ones are accepted: attestations never stop the chain.
    pub(in crate::replica) fn is_attested_enough(&self, proposal: &Proposal) -> bool {
        let (params, set) = (self.state.params(), &self.state.validators);
        let round = u64::from(proposal.signed.body.round.0);
        let header = &proposal.header;
        let Some(slot) = slot_of(header.time, params).0.checked_sub(1) else {
            return true;
        };
        if round >= params.attest_rounds || !self.state.is_slot_block(header.time) {
            return true;
        }
        let attesters = proposal.slot_part.attestations.iter();
        let attesters: BTreeSet<usize> = attesters
            .filter_map(|a| set.index_of(&a.body.attester))
            .collect();
        is_quorum(set.power_of(attesters), set.total())
            || !self.liveness.attestations.has_quorum(Slot(slot), set)
    }
}
