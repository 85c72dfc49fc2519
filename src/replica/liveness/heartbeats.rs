//! Who was heard when (M4): heartbeats on their way to being counted, and what was counted, by slot.
//!
//! Input: heartbeats as they were read, verdicts on their signatures, decided blocks. Output: what to verify, what to relay
//! and to whom it is known, and whether a masternode was heard often enough. Bounded: one heartbeat for each registered
//! masternode, sequence and slot; the current slot and its neighbours.

use crate::base::limits::{REGISTERED_COUNT_MAX, Size};
use crate::base::time::{MonoUs, WallMs};
use crate::p2p::messages::PeerId;
use crate::types::ids::*;
use crate::types::masternode::{Heartbeat, HeartbeatBody};
use crate::types::params::Params;
use std::collections::{BTreeMap, BTreeSet};

/// Heartbeats in a slot, by sequence 0 to 9.
pub const SEQUENCES: u8 = 10;
/// Heartbeats whose signature is not known to hold, of one peer; beyond it they are dropped, others bring them again.
const UNVERIFIED_PER_PEER_MAX: usize = 512;
/// Of all peers together.
const UNVERIFIED_MAX: usize = 2 * REGISTERED_COUNT_MAX;
/// Heartbeats that name a block this node has not decided yet; beyond it they are dropped.
const AHEAD_MAX: usize = 2 * REGISTERED_COUNT_MAX;
/// Heartbeats that wait to be relayed; beyond it new ones are not (their authors and others relay them as well).
const RELAY_MAX: usize = 2 * REGISTERED_COUNT_MAX;
/// Slots of which heartbeats are counted: the one before the clock's, that one, and the next at its very beginning.
const SLOTS_COUNTED_MAX: usize = 3;

/// What names a heartbeat: a second one of the same name never counts.
pub type Beat = (Slot, u8, MasternodeId);

/// The name of a heartbeat.
pub fn beat_of(body: &HeartbeatBody) -> Beat {
    (body.slot, body.sequence, body.masternode)
}

/// The interval of the wall clock: its slot and sequence, and when it begins.
pub fn interval_at(wall: WallMs, params: &Params) -> (Slot, u8, WallMs) {
    let slot = wall.0 / params.slot_ms;
    let sequence = (wall.0 % params.slot_ms / params.heartbeat_interval_ms).min(9);
    let start = slot * params.slot_ms + sequence * params.heartbeat_interval_ms;
    (Slot(slot), sequence as u8, WallMs(start))
}

/// Whether a heartbeat was read within its own interval, give or take the precision of clocks (M4).
pub fn in_time(body: &HeartbeatBody, read: WallMs, params: &Params) -> bool {
    let step = params.heartbeat_interval_ms;
    let start = body.slot.0.saturating_mul(params.slot_ms);
    let start = start.saturating_add(u64::from(body.sequence) * step);
    let early = start.saturating_sub(params.precision_ms);
    let late = start.saturating_add(step);
    body.sequence < SEQUENCES
        && read.0 >= early
        && read.0 < late.saturating_add(params.precision_ms)
}

/// What became of a heartbeat that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It waits to be verified.
    Taken,
    /// There is one of its name.
    Known,
    /// A bound was reached.
    Shed,
}

/// All heartbeats of a node.
#[derive(Debug, Default)]
pub struct Heartbeats {
    /// Bit i: sequence i was counted.
    counted: BTreeMap<Slot, BTreeMap<MasternodeId, u16>>,
    /// Read, and not verified: from whom.
    unverified: BTreeMap<Beat, PeerId>,
    /// How many of those each peer brought.
    load: BTreeMap<PeerId, usize>,
    gathered: Vec<(PeerId, Heartbeat)>,
    gather_due: Option<MonoUs>,
    /// Verified; their block is not decided here yet.
    ahead: BTreeMap<Beat, (Height, BlockId)>,
    /// To be relayed, and who is known to have it.
    relay: BTreeMap<Beat, (Heartbeat, BTreeSet<PeerId>)>,
    relay_due: Option<MonoUs>,
}

impl Heartbeats {
    /// When [`Heartbeats::gathered`] or [`Heartbeats::to_relay`] has something.
    pub fn deadline(&self) -> Option<MonoUs> {
        self.gather_due.into_iter().chain(self.relay_due).min()
    }

    /// A heartbeat that passed every cheap question.
    pub fn offer(&mut self, peer: PeerId, heartbeat: Heartbeat, due: MonoUs) -> Offer {
        let beat = beat_of(&heartbeat.body);
        if let Some((_, holders)) = self.relay.get_mut(&beat) {
            holders.insert(peer);
        }
        let known = self.is_counted(&beat)
            || self.ahead.contains_key(&beat)
            || self.unverified.contains_key(&beat);
        if known {
            return Offer::Known;
        }
        let load = self.load.get(&peer).copied().unwrap_or(0);
        if load >= UNVERIFIED_PER_PEER_MAX || self.unverified.len() >= UNVERIFIED_MAX {
            return Offer::Shed;
        }
        self.load.insert(peer, load + 1);
        self.unverified.insert(beat, peer);
        self.gathered.push((peer, heartbeat));
        self.gather_due.get_or_insert(due);
        Offer::Taken
    }

    fn is_counted(&self, (slot, sequence, id): &Beat) -> bool {
        let bits = self.counted.get(slot).and_then(|of| of.get(id));
        bits.is_some_and(|bits| bits >> sequence & 1 == 1)
    }

    /// What is to be verified now, in one batch.
    pub fn gathered(&mut self, now: MonoUs) -> Vec<(PeerId, Heartbeat)> {
        if self.gather_due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.gather_due = None;
        std::mem::take(&mut self.gathered)
    }

    /// The signature of a heartbeat does not hold: another one of its name may be tried.
    pub fn refuted(&mut self, body: &HeartbeatBody) {
        self.settled(&beat_of(body));
    }

    fn settled(&mut self, beat: &Beat) {
        let Some(peer) = self.unverified.remove(beat) else {
            return;
        };
        if let Some(load) = self.load.get_mut(&peer) {
            *load -= 1;
            if *load == 0 {
                self.load.remove(&peer);
            }
        }
    }

    /// Its signature holds: it is relayed once. Counting it is the caller's next step.
    pub fn proven(&mut self, heartbeat: Heartbeat, from: Option<PeerId>, due: MonoUs) {
        let beat = beat_of(&heartbeat.body);
        self.settled(&beat);
        if self.relay.len() < RELAY_MAX {
            self.relay
                .insert(beat, (heartbeat, from.into_iter().collect()));
            self.relay_due.get_or_insert(due);
        }
    }

    /// Counts a heartbeat.
    pub fn count(&mut self, (slot, sequence, id): Beat) {
        let of_slot = self.counted.entry(slot).or_default();
        *of_slot.entry(id).or_default() |= 1 << sequence;
    }

    /// Keeps a heartbeat whose block is still to come.
    pub fn keep_ahead(&mut self, beat: Beat, height: Height, block: BlockId) {
        if self.ahead.len() < AHEAD_MAX {
            self.ahead.insert(beat, (height, block));
        }
    }

    /// A block was decided: those that waited for it count, those that named another one never will.
    pub fn decided(&mut self, height: Height, block: BlockId) {
        let due = self.ahead.iter().filter(|(_, (at, _))| *at <= height);
        let due: Vec<(Beat, BlockId)> = due.map(|(beat, (_, named))| (*beat, *named)).collect();
        for (beat, named) in due {
            self.ahead.remove(&beat);
            if named == block {
                self.count(beat);
            }
        }
    }

    /// What is to be relayed now, with those who have it.
    pub fn to_relay(&mut self, now: MonoUs) -> Vec<(Heartbeat, BTreeSet<PeerId>)> {
        if self.relay_due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.relay_due = None;
        std::mem::take(&mut self.relay).into_values().collect()
    }

    /// How many of sequences 0 to 8 of a slot were counted.
    pub fn heard(&self, slot: Slot, id: &MasternodeId) -> u32 {
        let bits = self.counted.get(&slot).and_then(|of| of.get(id));
        bits.map_or(0, |bits| (bits & 0x1ff).count_ones())
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let counted = self.counted.values().map(BTreeMap::len).sum();
        let loads = self.load.len().max(self.gathered.len());
        vec![
            Size::new(
                "heartbeats counted",
                counted,
                SLOTS_COUNTED_MAX * REGISTERED_COUNT_MAX,
            ),
            Size::new(
                "heartbeats unverified",
                self.unverified.len(),
                UNVERIFIED_MAX,
            ),
            Size::new("heartbeats gathered, and from whom", loads, UNVERIFIED_MAX),
            Size::new("heartbeats of blocks to come", self.ahead.len(), AHEAD_MAX),
            Size::new("heartbeats to relay", self.relay.len(), RELAY_MAX),
        ]
    }

    /// Forgets slots before `oldest`.
    pub fn forget_before(&mut self, oldest: Slot) {
        let first = (oldest, 0, MasternodeId::default());
        if self
            .counted
            .first_key_value()
            .is_some_and(|(s, _)| *s < oldest)
        {
            self.counted = self.counted.split_off(&oldest);
        }
        if self
            .ahead
            .first_key_value()
            .is_some_and(|(beat, _)| *beat < first)
        {
            self.ahead = self.ahead.split_off(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::Signature;
    use crate::types::address::Network;

    fn heartbeat(id: u8, slot: u64, sequence: u8, height: u64) -> Heartbeat {
        let body = HeartbeatBody {
            era: Era(0),
            masternode: MasternodeId(Hash([id; 32])),
            slot: Slot(slot),
            sequence,
            height: Height(height),
            block: BlockId(Hash([height as u8; 32])),
        };
        Heartbeat {
            body,
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn a_heartbeat_counts_in_its_own_interval_only() {
        let params = Params::of(Network::Dev);
        let body = heartbeat(1, 7, 3, 1).body;
        let at = |ms: u64| in_time(&body, WallMs(7 * 5_000 + 3 * 500 + ms), &params);
        assert!(at(0) && at(250) && at(499));
        assert!(at(599) && !at(600), "M4: interval and precision");
        let early = |ms: u64| in_time(&body, WallMs(7 * 5_000 + 3 * 500 - ms), &params);
        assert!(early(100) && !early(101), "M4: precision");
        assert!(!in_time(
            &heartbeat(1, 7, 10, 1).body,
            WallMs(40_000),
            &params
        ));
        assert!(!in_time(
            &heartbeat(1, u64::MAX, 3, 1).body,
            WallMs(40_000),
            &params
        ));
    }

    #[test]
    fn a_name_counts_once_and_a_bad_signature_blocks_nobody() {
        let mut all = Heartbeats::default();
        let (one, due) = (heartbeat(1, 7, 3, 1), MonoUs(10));
        assert_eq!(all.offer(PeerId(1), one.clone(), due), Offer::Taken);
        assert_eq!(all.offer(PeerId(2), one.clone(), due), Offer::Known);
        assert!(
            all.gathered(MonoUs(9)).is_empty(),
            "gathered into one batch"
        );
        assert_eq!(all.gathered(due).len(), 1);
        all.refuted(&one.body);
        assert_eq!(all.offer(PeerId(2), one.clone(), due), Offer::Taken);
        all.proven(one.clone(), Some(PeerId(2)), MonoUs(20));
        all.count(beat_of(&one.body));
        assert_eq!(all.offer(PeerId(3), one.clone(), due), Offer::Known);
        let other = Heartbeat {
            body: HeartbeatBody {
                height: Height(9),
                ..one.body.clone()
            },
            ..one.clone()
        };
        assert_eq!(all.offer(PeerId(3), other, due), Offer::Known, "M4: once");
        let relayed = all.to_relay(MonoUs(20));
        let holders = BTreeSet::from([PeerId(2), PeerId(3)]);
        assert_eq!(relayed, vec![(one.clone(), holders)]);
        assert!(all.to_relay(MonoUs(99)).is_empty(), "M4: relayed once");
        assert_eq!(all.heard(Slot(7), &one.body.masternode), 1);
        all.forget_before(Slot(8));
        assert_eq!(all.heard(Slot(7), &one.body.masternode), 0);
    }

    #[test]
    fn sequence_nine_is_not_asked_for() {
        let mut all = Heartbeats::default();
        let id = MasternodeId(Hash([1; 32]));
        (0..10).for_each(|sequence| all.count((Slot(1), sequence, id)));
        assert_eq!(all.heard(Slot(1), &id), 9, "M4: of sequences 0 to 8");
    }

    #[test]
    fn what_names_a_block_to_come_waits_for_it() {
        let mut all = Heartbeats::default();
        let id = |i: u8| MasternodeId(Hash([i; 32]));
        let block = |i: u8| BlockId(Hash([i; 32]));
        all.keep_ahead((Slot(1), 0, id(1)), Height(5), block(5));
        all.keep_ahead((Slot(1), 0, id(2)), Height(5), block(6));
        all.decided(Height(4), block(4));
        assert_eq!(all.heard(Slot(1), &id(1)), 0);
        all.decided(Height(5), block(5));
        assert_eq!(all.heard(Slot(1), &id(1)), 1);
        assert_eq!(all.heard(Slot(1), &id(2)), 0, "M4: on the reader's chain");
    }

    #[test]
    fn one_peer_cannot_fill_the_table() {
        let mut all = Heartbeats::default();
        let junk = |i: usize| {
            let mut beat = heartbeat(1, 1, 0, 1);
            beat.body.masternode.0.0[..8].copy_from_slice(&(i as u64).to_le_bytes());
            beat
        };
        let taken = (0..2 * UNVERIFIED_PER_PEER_MAX)
            .filter(|i| all.offer(PeerId(1), junk(*i), MonoUs(0)) == Offer::Taken)
            .count();
        assert_eq!(taken, UNVERIFIED_PER_PEER_MAX);
        assert_eq!(
            all.offer(PeerId(2), junk(UNVERIFIED_PER_PEER_MAX), MonoUs(0)),
            Offer::Taken,
            "another peer has its own share"
        );
    }
}
