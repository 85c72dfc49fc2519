//! Attestations of the slots that the next slot block may be about (M4): held, asked for, answered.
//!
//! Input: attestations whose signatures hold, the latest slot block. Output: what a slot block takes, and whether a quorum
//! is there. Bounded: one for each member of the set and slot, at most three slots, for one base.

use crate::base::limits::{PEER_COUNT_MAX, Size, VALIDATOR_COUNT_MAX};
use crate::base::time::MonoUs;
use crate::p2p::messages::PeerId;
use crate::types::ids::*;
use crate::types::masternode::Attestation;
use crate::types::validators::ValidatorSet;
use std::collections::{BTreeMap, BTreeSet};

/// Slots of which attestations are held: that of the clock and its neighbours.
pub const SLOTS_HELD_MAX: usize = 3;
/// Attestations in one answer: half of what may wait for a peer in this class. A rotating start brings the others next time.
const ANSWER_MAX: usize = 192;
/// Answers to one peer about one slot.
const ANSWERS_PER_SLOT_MAX: u8 = 8;
/// Times a node asks for the attestations of one slot; who has none by then will not get any.
const ASKS_PER_SLOT_MAX: u8 = 4;

/// What is held of one base.
#[derive(Debug, Default)]
pub struct Attestations {
    held: BTreeMap<Slot, BTreeMap<MasternodeId, Attestation>>,
    checking: BTreeSet<(Slot, MasternodeId)>,
    /// To be relayed, and who is known to have it.
    relay: Vec<(Attestation, BTreeSet<PeerId>)>,
    relay_due: Option<MonoUs>,
    asked: Option<(Slot, u8, MonoUs)>,
    answered: BTreeMap<PeerId, (Slot, u8)>,
}

impl Attestations {
    /// Another slot block is the base now: nothing held is of use any more.
    pub fn new_base(&mut self) {
        self.held.clear();
        self.checking.clear();
        self.relay.clear();
        self.relay_due = None;
        self.asked = None;
        self.answered.clear();
    }

    /// Forgets slots before `oldest`.
    pub fn forget_before(&mut self, oldest: Slot) {
        if self
            .held
            .first_key_value()
            .is_some_and(|(s, _)| *s < oldest)
        {
            self.held = self.held.split_off(&oldest);
        }
    }

    /// A peer is gone.
    pub fn forget_peer(&mut self, peer: PeerId) {
        self.answered.remove(&peer);
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let all = SLOTS_HELD_MAX * VALIDATOR_COUNT_MAX;
        let held = self.held.values().map(BTreeMap::len).sum();
        vec![
            Size::new("attestations", held, all),
            Size::new("attestations being checked", self.checking.len(), all),
            Size::new("attestations to relay", self.relay.len(), all),
            Size::new(
                "peers that asked for attestations",
                self.answered.len(),
                PEER_COUNT_MAX,
            ),
        ]
    }

    /// Whether an attestation of this slot and attester is held or being checked; `peer` has it.
    pub fn is_known(&mut self, slot: Slot, attester: &MasternodeId, peer: PeerId) -> bool {
        for (waiting, holders) in &mut self.relay {
            if waiting.body.slot == slot && waiting.body.attester == *attester {
                holders.insert(peer);
            }
        }
        self.holds(slot, attester) || self.checking.contains(&(slot, *attester))
    }

    /// Whether an attestation of this slot and attester is held.
    pub fn holds(&self, slot: Slot, attester: &MasternodeId) -> bool {
        self.held
            .get(&slot)
            .is_some_and(|of| of.contains_key(attester))
    }

    /// Its signature is being checked; false if there is no room.
    pub fn check(&mut self, slot: Slot, attester: MasternodeId) -> bool {
        let room = self.checking.len() < SLOTS_HELD_MAX * VALIDATOR_COUNT_MAX;
        room && self.checking.insert((slot, attester))
    }

    /// Its signature was checked.
    pub fn checked(&mut self, attestation: &Attestation) {
        let body = &attestation.body;
        self.checking.remove(&(body.slot, body.attester));
    }

    /// Keeps this node's own attestation; false if it has attested that slot.
    pub fn keep_own(&mut self, attestation: Attestation) -> bool {
        let (slot, attester) = (attestation.body.slot, attestation.body.attester);
        if self.holds(slot, &attester) {
            return false;
        }
        self.held
            .entry(slot)
            .or_default()
            .insert(attester, attestation);
        if self.held.len() > SLOTS_HELD_MAX {
            self.held.pop_first();
        }
        true
    }

    /// Keeps an attestation of a peer whose signature holds; it is relayed once. The first of a slot and attester stays.
    pub fn keep(&mut self, attestation: Attestation, from: PeerId, due: MonoUs) -> bool {
        let fresh = self.keep_own(attestation.clone());
        if fresh {
            self.relay.push((attestation, BTreeSet::from([from])));
            self.relay_due.get_or_insert(due);
        }
        fresh
    }

    /// What is to be relayed now, with those who have it.
    pub fn to_relay(&mut self, now: MonoUs) -> Vec<(Attestation, BTreeSet<PeerId>)> {
        if self.relay_due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.relay_due = None;
        std::mem::take(&mut self.relay)
    }

    /// When [`Attestations::to_relay`] has something.
    pub fn deadline(&self) -> Option<MonoUs> {
        self.relay_due
    }

    /// Those of a slot, ascending attester.
    pub fn of(&self, slot: Slot) -> impl Iterator<Item = &Attestation> {
        self.held.get(&slot).into_iter().flat_map(BTreeMap::values)
    }

    /// Power of those who attested a slot.
    pub fn power(&self, slot: Slot, set: &ValidatorSet) -> Power {
        let attesters = self.of(slot);
        set.power_of(attesters.filter_map(|a| set.index_of(&a.body.attester)))
    }

    /// Whether a quorum attested a slot.
    pub fn has_quorum(&self, slot: Slot, set: &ValidatorSet) -> bool {
        is_quorum(self.power(slot, set), set.total())
    }

    /// Whether peers are to be asked for attestations of a slot now.
    pub fn ask(&mut self, slot: Slot, now: MonoUs, again_ms: u64) -> bool {
        let (times, due) = match self.asked {
            Some((asked, times, due)) if asked == slot => (times, due),
            _ => (0, now),
        };
        let asks = times < ASKS_PER_SLOT_MAX && now >= due;
        if asks {
            self.asked = Some((slot, times + 1, now.plus_ms(again_ms)));
        }
        asks
    }

    /// When [`Attestations::ask`] would say yes again.
    pub fn ask_due(&self, slot: Slot) -> Option<MonoUs> {
        match self.asked {
            Some((asked, times, due)) if asked == slot => {
                (times < ASKS_PER_SLOT_MAX).then_some(due)
            }
            _ => Some(MonoUs(0)),
        }
    }

    /// What a peer that asks is told; nothing if it has asked too often.
    pub fn answer(&mut self, peer: PeerId, slot: Slot) -> Vec<Attestation> {
        let times = match self.answered.get(&peer) {
            Some((asked, times)) if *asked == slot => *times,
            _ => 0,
        };
        if times >= ANSWERS_PER_SLOT_MAX {
            return Vec::new();
        }
        self.answered.insert(peer, (slot, times + 1));
        let count = self.of(slot).count().max(1);
        let start = usize::from(times) * ANSWER_MAX % count;
        let turned = self.of(slot).skip(start).chain(self.of(slot));
        turned.take(ANSWER_MAX.min(count)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::types::bitmap::Bitmap;
    use crate::types::masternode::AttestationBody;
    use crate::types::validators::Validator;

    fn id(i: u8) -> MasternodeId {
        MasternodeId(Hash([i; 32]))
    }

    fn attestation(attester: u8, slot: u64, bits: usize) -> Attestation {
        Attestation {
            body: AttestationBody {
                era: Era(0),
                slot: Slot(slot),
                base: BlockId::default(),
                supports: Branch(0),
                attester: id(attester),
                present: Bitmap::from_ones(4, 0..bits),
            },
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn the_first_of_an_attester_stays_and_a_quorum_is_by_power() {
        let member = |i: u8| Validator {
            id: id(i),
            operator: PublicKey([i; 32]),
            power: Power(if i == 4 { 4 } else { 1 }),
        };
        let set = ValidatorSet::new((1..=4).map(member).collect()).unwrap();
        let mut all = Attestations::default();
        assert!(all.keep(attestation(1, 5, 1), PeerId(9), MonoUs(0)));
        assert!(
            !all.keep(attestation(1, 5, 2), PeerId(9), MonoUs(0)),
            "M4: one"
        );
        assert_eq!(all.of(Slot(5)).count(), 1);
        all.keep(attestation(2, 5, 1), PeerId(9), MonoUs(0));
        all.keep(attestation(3, 5, 1), PeerId(9), MonoUs(0));
        assert!(!all.has_quorum(Slot(5), &set));
        all.keep(attestation(4, 5, 1), PeerId(9), MonoUs(0));
        assert!(all.has_quorum(Slot(5), &set) && !all.has_quorum(Slot(6), &set));
        all.new_base();
        assert_eq!(all.power(Slot(5), &set), Power(0));
    }

    #[test]
    fn slots_questions_and_answers_are_bounded() {
        let mut all = Attestations::default();
        for slot in 0..100 {
            all.keep(attestation(1, slot, 1), PeerId(9), MonoUs(0));
        }
        assert_eq!(all.held.len(), SLOTS_HELD_MAX);
        let asked = (0..50).filter(|i| all.ask(Slot(99), MonoUs(*i), 0)).count();
        assert_eq!(asked, usize::from(ASKS_PER_SLOT_MAX));
        let told = (0..50).map(|_| all.answer(PeerId(1), Slot(99)).len());
        assert_eq!(told.sum::<usize>(), usize::from(ANSWERS_PER_SLOT_MAX));
        assert_eq!(all.answer(PeerId(2), Slot(99)).len(), 1);
    }

    #[test]
    fn long_answers_reach_every_attestation_in_turn() {
        let mut all = Attestations::default();
        for i in 0..=255u8 {
            all.keep(attestation(i, 5, 1), PeerId(9), MonoUs(0));
        }
        let mut got = BTreeSet::new();
        for _ in 0..2 {
            got.extend(
                all.answer(PeerId(1), Slot(5))
                    .iter()
                    .map(|a| a.body.attester),
            );
        }
        assert_eq!(got.len(), 256);
    }
}
