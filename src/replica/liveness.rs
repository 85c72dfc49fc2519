//! Who is there (M4): own heartbeats, heartbeats of others, probes of endpoints, attestations near the end of a slot, and
//! what of it goes into slot blocks. Beside consensus: nothing here delays a vote, and no block waits for it beyond a
//! quarter of a propose timeout in the first rounds of a slot block.
//!
//! Two things the protocol leaves open are decided here. A node attests only a slot it watched long enough to have heard
//! heartbeats_required of everybody, with a clock it believes: who came late would call everybody absent. And relaying goes
//! to a few peers, chosen anew for each message: authors reach most of the others themselves, and with hundreds of
//! masternodes relaying to everybody would cost the cube of their number.

pub mod attestations;
mod attesting;
pub mod heartbeats;
pub mod probes;

use crate::base::bounded::BoundedVec;
use crate::base::limits::{HEARTBEATS_PER_FRAME, Size};
use crate::base::time::{Now, WallMs};
use crate::crypto::verify::Check;
use crate::p2p::messages::{Message, PeerId};
use crate::replica::io::*;
use crate::replica::machine::{CHECKS_OUT_MAX, Replica};
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::masternode::*;
use crate::types::params::Params;
use attestations::Attestations;
use heartbeats::{Heartbeats, Offer, beat_of, in_time, interval_at};
use probes::Probes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Peers to which a heartbeat or attestation of another node is relayed, beside those known to have it.
const RELAY_FANOUT: usize = 8;
/// Longest time heartbeats are gathered before they are verified or relayed together, ms.
const GATHER_MAX_MS: u64 = 50;
/// Block ids kept since the last slot block but one; more than a slot can hold at min_block_interval on any network.
const CHAIN_COUNT_MAX: usize = 8_192;

/// What the last slot block says of this node's masternode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotWitness {
    /// The slot block.
    pub height: Height,
    /// Its number.
    pub slot_index: SlotIndex,
    /// Whether attestations of a quorum stand in it.
    pub attested: bool,
    /// Power of those who attested.
    pub attesting: Power,
    /// Power of those who counted enough heartbeats of this masternode (and reached it, if it has no power).
    pub seen_by: Power,
    /// Power of the set.
    pub total: Power,
}

/// Heartbeats, attestations and probes of one node.
#[derive(Debug, Default)]
pub struct Liveness {
    pub(super) heartbeats: Heartbeats,
    pub(super) attestations: Attestations,
    pub(super) probes: Probes,
    /// Since when the clock has been believed and heartbeats were listened to.
    watching: Option<WallMs>,
    /// Ids of decided blocks since the last slot block but one.
    chain: BTreeMap<Height, BlockId>,
    /// Slot and sequences of own heartbeats sent.
    sent: (Slot, u16),
    /// Last slot attested on the present base.
    signed: Option<Slot>,
    /// What the newest slot block says of this node.
    witness: Option<SlotWitness>,
    /// When another node last reached this one by a probe.
    probed: Option<WallMs>,
}

impl Liveness {
    /// How full its containers are.
    pub(super) fn sizes(&self) -> Vec<Size> {
        let mut sizes = self.heartbeats.sizes();
        sizes.extend(self.attestations.sizes());
        sizes.extend(self.probes.sizes());
        let chain = Size::new(
            "blocks that heartbeats may name",
            self.chain.len(),
            CHAIN_COUNT_MAX,
        );
        sizes.push(chain);
        sizes
    }
}

fn gather_ms(params: &Params) -> u64 {
    (params.heartbeat_interval_ms / 50).clamp(1, GATHER_MAX_MS)
}

/// When in its interval a node sends its heartbeat, ms: after the rush of a slot's beginning, spread by the size of the
/// registry, so that few come in one batch and many in no burst.
fn send_offset(id: &MasternodeId, registered: usize, params: &Params) -> u64 {
    let quarter = params.heartbeat_interval_ms / 4;
    let window = quarter.min(registered as u64);
    let bytes = &id.0.0;
    quarter + u64::from(u16::from_le_bytes([bytes[2], bytes[3]])) * window / 65_536
}

impl Replica {
    /// What is due by the clock.
    pub(super) fn live(&mut self, now: Now) {
        let params = self.state.params().clone();
        self.watch(now);
        self.send_heartbeat(now, &params);
        for (peer, heartbeat) in self.liveness.heartbeats.gathered(now.mono) {
            self.verify_heartbeat(peer, heartbeat);
        }
        for slot in self.slots_to_attest(now, &params) {
            self.attest(slot, &params);
        }
        self.ask_for_attestations(now, &params);
        self.probe(now, &params);
        self.relay_liveness(now);
    }

    /// When [`Replica::live`] has something to do.
    pub(super) fn live_due(&self, now: Now) -> Deadline {
        let params = self.state.params();
        let liveness = &self.liveness;
        let beat = self.next_heartbeat(now, params).map(|at| now.mono_at(at));
        let attest = self.next_attestation(now, params).map(|at| now.mono_at(at));
        let ask = self.asked_slot(now, params);
        let ask = ask.and_then(|slot| liveness.attestations.ask_due(slot));
        let relays = liveness.attestations.deadline();
        [beat, attest, ask, relays, liveness.heartbeats.deadline()]
            .into_iter()
            .flatten()
            .chain(liveness.probes.deadline())
            .min()
    }

    fn watch(&mut self, now: Now) {
        if self.clock.alarm() {
            self.liveness.watching = None;
        } else {
            self.liveness.watching.get_or_insert(now.wall);
        }
        let slot = now.wall.0 / self.state.params().slot_ms;
        let oldest = Slot(slot.saturating_sub(1));
        self.liveness.heartbeats.forget_before(oldest);
        self.liveness.attestations.forget_before(oldest);
    }

    /// Whether the registry wants heartbeats of this node: whatever its power, and UNSURE or not (B7 step 3).
    fn beats(&self) -> Option<MasternodeId> {
        let me = self.guard.me()?;
        let entry = self.state.registry().get(&me)?;
        (!entry.is_leaving()).then_some(me)
    }

    /// When the next own heartbeat is due: in this interval if it was not sent, else in the next.
    fn next_heartbeat(&self, now: Now, params: &Params) -> Option<WallMs> {
        let me = self.beats()?;
        let (slot, sequence, start) = interval_at(now.wall, params);
        let (sent_slot, sent) = self.liveness.sent;
        let done = sent_slot == slot && sent >> sequence & 1 == 1;
        let skipped = if done {
            params.heartbeat_interval_ms
        } else {
            0
        };
        let offset = send_offset(&me, self.state.registry().len(), params);
        Some(start.plus(skipped + offset))
    }

    fn send_heartbeat(&mut self, now: Now, params: &Params) {
        if self
            .next_heartbeat(now, params)
            .is_none_or(|at| now.wall < at)
        {
            return;
        }
        let Some((me, secret)) = self.operator.clone() else {
            return;
        };
        let (slot, sequence, _) = interval_at(now.wall, params);
        let (sent_slot, sent) = self.liveness.sent;
        let before = if sent_slot == slot { sent } else { 0 };
        self.liveness.sent = (slot, before | 1 << sequence);
        let body = HeartbeatBody {
            era: self.state.era(),
            masternode: me,
            slot,
            sequence,
            height: self.state.height(),
            block: self.state.block(),
        };
        let signature = secret.sign(&body.signing_hash(self.state.chain_id()));
        self.liveness.heartbeats.count(beat_of(&body));
        let frame = BoundedVec::take_from([Heartbeat { body, signature }]);
        self.send_all(Message::Heartbeats(frame));
    }

    fn send_all(&mut self, message: Message) {
        let to = self.peers.ids();
        if !to.is_empty() {
            self.out.push(Effect::Send(to, Arc::new(message)));
        }
    }

    /// Frames of class liveness.
    pub(super) fn liveness_frame(
        &mut self,
        now: Now,
        peer: PeerId,
        message: Message,
        read: ReadAt,
    ) {
        match message {
            Message::Heartbeats(heartbeats) => self.heartbeats_frame(now, peer, heartbeats, read),
            Message::Attestation(attestation) => self.attestation_frame(now, peer, *attestation),
            Message::Evidence(evidence) => self.evidence_told(Some(peer), evidence),
            Message::GetAttestations((slot, base)) => {
                self.serve_attestations(now, peer, slot, base)
            }
            _ => {}
        }
    }

    /// Heartbeats of a peer: every question that costs nothing is asked before a signature is checked.
    fn heartbeats_frame(
        &mut self,
        now: Now,
        peer: PeerId,
        heartbeats: BoundedVec<Heartbeat, HEARTBEATS_PER_FRAME>,
        read: ReadAt,
    ) {
        let params = self.state.params().clone();
        let due = now.mono.plus_ms(gather_ms(&params));
        for heartbeat in heartbeats {
            let body = &heartbeat.body;
            let entry = self.state.registry().get(&body.masternode);
            let wanted = entry.is_some_and(|e| !e.is_leaving())
                && body.era == self.state.era()
                && self.guard.me() != Some(body.masternode)
                && in_time(body, read.0.wall, &params)
                && self.may_be_on_chain(body);
            let offer = if wanted {
                self.liveness.heartbeats.offer(peer, heartbeat, due)
            } else {
                Offer::Known
            };
            if offer == Offer::Shed {
                self.event(Event::Shed("heartbeats"));
            }
        }
    }

    /// M4: its block is on this chain and not below the latest slot block; or still to come.
    fn may_be_on_chain(&self, body: &HeartbeatBody) -> bool {
        let slot_block = self.slot_block_height();
        match self.liveness.chain.get(&body.height) {
            Some(block) => body.height >= slot_block && *block == body.block,
            None => body.height > self.state.height(),
        }
    }

    fn slot_block_height(&self) -> Height {
        let latest = self.state.slots.records.last();
        latest.map_or(Height(0), |record| record.first)
    }

    fn verify_heartbeat(&mut self, peer: PeerId, heartbeat: Heartbeat) {
        let key = self.state.registry().get(&heartbeat.body.masternode);
        let (Some(key), true) = (key.map(|e| e.operator), self.checks_out < CHECKS_OUT_MAX) else {
            return self.liveness.heartbeats.refuted(&heartbeat.body);
        };
        let check = Check {
            key,
            message: heartbeat.body.signing_hash(self.state.chain_id()),
            signature: heartbeat.signature,
        };
        // The registry of a block still to come may name another key: a bad signature is nobody's fault then.
        let certain = self.liveness.chain.get(&heartbeat.body.height)
            == Some(&heartbeat.body.block)
            && heartbeat.body.height >= self.slot_block_height();
        self.check(Item::Heartbeat(peer, heartbeat, certain), vec![check]);
    }

    /// A heartbeat's signature holds.
    pub(super) fn heartbeat_proven(&mut self, now: Now, peer: PeerId, heartbeat: Heartbeat) {
        let body = heartbeat.body.clone();
        let due = now.mono.plus_ms(gather_ms(self.state.params()));
        self.liveness.heartbeats.proven(heartbeat, Some(peer), due);
        match self.liveness.chain.get(&body.height) {
            Some(block) if *block == body.block => self.liveness.heartbeats.count(beat_of(&body)),
            None if body.height > self.state.height() => {
                let beat = beat_of(&body);
                self.liveness
                    .heartbeats
                    .keep_ahead(beat, body.height, body.block);
            }
            _ => {}
        }
    }

    /// The registry may have changed: members of the set probe everybody outside it who is not on the way out.
    pub(super) fn plan_probes(&mut self, now: Now) {
        let set = &self.state.validators;
        let member = self.guard.me().is_some_and(|me| set.get(&me).is_some());
        if !member {
            return self.liveness.probes.stop();
        }
        let entries = self.state.registry().entries().iter();
        let outside = entries.filter(|e| set.get(&e.id).is_none() && !e.is_leaving());
        let (index, params) = (self.state.slot_index(), self.state.params());
        self.liveness.probes.plan(outside, index, params, now.mono);
    }

    fn probe(&mut self, now: Now, params: &Params) {
        for id in self.liveness.probes.take(now.mono, params) {
            if let Some(entry) = self.state.registry().get(&id) {
                self.out.push(Effect::Probe(id, entry.endpoint.clone()));
            }
        }
    }

    /// A probe reached the endpoint of a masternode, which proved its operator key.
    pub(super) fn reached(&mut self, id: MasternodeId, address: &str) {
        let entry = self.state.registry().get(&id);
        if entry.is_some_and(|e| e.endpoint[..] == *address.as_bytes()) {
            self.liveness.probes.reached(id, self.state.slot_index());
        }
    }

    /// Another node reached this one by a probe.
    pub(super) fn probed(&mut self, now: Now) {
        self.liveness.probed = Some(now.wall);
    }

    /// At start: what is known of the chain so far.
    pub(super) fn live_from(&mut self, now: Now) {
        let tip = (self.state.height(), self.state.block());
        let latest = (self.slot_block_height(), self.state.tip.prev_slot_block);
        self.liveness.chain.extend([latest, tip]);
        self.plan_probes(now);
    }

    /// A block was decided; `self.state` is that before it.
    pub(super) fn note_slot_block(&mut self, block: &Block) {
        if !self.state.is_slot_block(block.header.time) {
            return;
        }
        self.liveness.witness = self.guard.me().and_then(|me| self.witness_of(block, me));
    }

    fn witness_of(&self, block: &Block, me: MasternodeId) -> Option<SlotWitness> {
        let (set, index) = (&self.state.validators, self.state.registry().index_of(&me)?);
        let power = |which: &dyn Fn(&Attestation) -> bool| {
            let chosen = block.slot_part.attestations.iter().filter(|a| which(a));
            set.power_of(chosen.filter_map(|a| set.index_of(&a.body.attester)))
        };
        let attesting = power(&|_| true);
        Some(SlotWitness {
            height: block.header.height,
            slot_index: self.state.slot_index().next(),
            attested: is_quorum(attesting, set.total()),
            attesting,
            seen_by: power(&|a| a.body.present.get(index)),
            total: set.total(),
        })
    }

    /// The state has moved to a decided block.
    pub(super) fn live_on(&mut self, now: Now, slot_block: bool) {
        let (height, block) = (self.state.height(), self.state.block());
        self.liveness.heartbeats.decided(height, block);
        if slot_block {
            // Heartbeats that were read before may still name blocks down to the slot block before this one.
            let before = self.state.slots.records.iter().rev().nth(1);
            let oldest = before.map_or(Height(0), |record| record.first);
            self.liveness.chain = self.liveness.chain.split_off(&oldest);
            self.liveness.attestations.new_base();
            self.liveness.signed = None;
        }
        self.liveness.chain.insert(height, block);
        if self.liveness.chain.len() > CHAIN_COUNT_MAX {
            self.liveness.chain.pop_first();
        }
        if slot_block {
            self.plan_probes(now);
        }
    }

    /// Relays what is due to a few peers that are not known to have it.
    fn relay_liveness(&mut self, now: Now) {
        let beats = self.liveness.heartbeats.to_relay(now.mono);
        let attestations = self.liveness.attestations.to_relay(now.mono);
        let mut frames: BTreeMap<PeerId, Vec<Heartbeat>> = BTreeMap::new();
        for (heartbeat, holders) in beats {
            let turn = u64::from(heartbeat.body.sequence) + heartbeat.body.slot.0;
            for peer in self.relay_to(heartbeat.body.masternode, turn, &holders) {
                frames.entry(peer).or_default().push(heartbeat.clone());
            }
        }
        for (peer, heartbeats) in frames {
            for part in heartbeats.chunks(HEARTBEATS_PER_FRAME) {
                let part = BoundedVec::take_from(part.iter().cloned());
                self.send(peer, Message::Heartbeats(part));
            }
        }
        for (attestation, holders) in attestations {
            let body = &attestation.body;
            let to = self.relay_to(body.attester, body.slot.0, &holders);
            if !to.is_empty() {
                let frame = Arc::new(Message::Attestation(Box::new(attestation)));
                self.out.push(Effect::Send(to, frame));
            }
        }
    }

    /// Peers to whom something of `author` goes on: not the author, not those who have it, another few each turn.
    fn relay_to(&self, author: MasternodeId, turn: u64, holders: &BTreeSet<PeerId>) -> Vec<PeerId> {
        let lacks = |(id, peer): &(PeerId, &crate::replica::peers::Peer)| {
            peer.masternode != Some(author) && !holders.contains(id)
        };
        let lacking: Vec<PeerId> = self.peers.iter().filter(lacks).map(|(id, _)| id).collect();
        if lacking.len() <= RELAY_FANOUT {
            return lacking;
        }
        let own = self.guard.me().map_or(0, |me| u64::from(me.0.0[0]));
        let start = (turn + u64::from(author.0.0[0]) + own) as usize * RELAY_FANOUT % lacking.len();
        let turned = lacking.iter().cycle().skip(start).take(RELAY_FANOUT);
        turned.copied().collect()
    }

    /// For views: what this node has done and what was seen of it.
    pub(super) fn seen_of_me(&self) -> (Slot, u32, Option<SlotWitness>, Option<WallMs>) {
        let (slot, sent) = self.liveness.sent;
        (
            slot,
            sent.count_ones(),
            self.liveness.witness,
            self.liveness.probed,
        )
    }
}

#[cfg(test)]
mod tests;
