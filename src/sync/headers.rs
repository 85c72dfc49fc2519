//! Slot headers first (F1): the chain of slot blocks above the node's tip, each with its certificate, and the validator sets
//! they announce. Sets change at slot blocks only (M3), so with these every certificate in between can be checked before
//! its block is applied, and a snapshot before it is fetched.
//!
//! Input: answers to GetHeaders, verdicts on their signatures. Output: what to verify, sets by hash, the newest slot header
//! that a quorum of a known set stands behind. It never takes a header that does not name the slot header before it, or a
//! set that does not hash to what its header announces.

use super::*;
use crate::base::limits::Size;
use crate::types::validators::ValidatorSet;
use std::collections::BTreeMap;

/// Sets kept at most; when there are more, the oldest header is where verification begins again.
const SETS_COUNT_MAX: usize = 1_024;
/// Slot headers kept at most: ids by height, to compare blocks and snapshots with.
const HEADERS_COUNT_MAX: usize = 200_000;

/// A slot header that is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHead {
    /// Its height; 0 for the genesis.
    pub height: Height,
    /// Its id.
    pub id: BlockId,
    /// Its time.
    pub time: WallMs,
    /// Hash of the set that decides the heights above it.
    pub next_hash: Hash,
    /// Its state_root.
    pub state_root: Hash,
}

/// An answer whose signatures are being checked.
struct Pending {
    ticket: u64,
    since: MonoUs,
    peer: Peer,
    heads: Vec<SlotHead>,
    items: Vec<CertifiedHeader>,
    sets: Vec<(Hash, Arc<ValidatorSet>)>,
}

/// The verified slot headers above the tip.
pub(super) struct Skeleton {
    heads: BTreeMap<u64, SlotHead>,
    bars: Arc<Bars>,
    sets: BTreeMap<Hash, Arc<ValidatorSet>>,
    /// The latest slot block at or below the tip.
    base: SlotHead,
    /// Whom was asked, and until when an answer may come.
    pub(super) asked: Option<(Peer, MonoUs)>,
    pending: Option<Pending>,
}

impl Skeleton {
    /// Nothing above the tip.
    pub(super) fn new(tip: &super::Applied) -> Skeleton {
        let mut skeleton = Skeleton {
            heads: BTreeMap::new(),
            sets: BTreeMap::new(),
            bars: tip.bars.clone(),
            base: tip.slot,
            asked: None,
            pending: None,
        };
        skeleton.applied(tip);
        skeleton
    }

    /// How full its containers are.
    pub(super) fn sizes(&self) -> Vec<Size> {
        let heads = HEADERS_COUNT_MAX + crate::base::limits::HEADERS_COUNT_MAX;
        let sets = SETS_COUNT_MAX + crate::base::limits::HEADERS_COUNT_MAX;
        vec![
            Size::new("slot headers above the tip", self.heads.len(), heads),
            Size::new("sets of slot headers", self.sets.len(), sets),
        ]
    }

    /// The newest verified slot header.
    pub(super) fn top(&self) -> SlotHead {
        self.heads
            .values()
            .next_back()
            .copied()
            .unwrap_or(self.base)
    }

    /// The verified slot header at a height.
    pub(super) fn at(&self, height: u64) -> Option<&SlotHead> {
        self.heads.get(&height)
    }

    /// The set with this hash.
    pub(super) fn set(&self, hash: &Hash) -> Option<&Arc<ValidatorSet>> {
        self.sets.get(hash)
    }

    /// The set with this hash as it decides in an era; `None` if the set or the era is not known.
    pub(super) fn deciders(&self, hash: &Hash, era: Era) -> Option<Arc<ValidatorSet>> {
        self.bars.bar(self.set(hash)?, era)
    }

    /// Whether a block cannot be judged before the node knows by which RecoveryCert the chain goes on.
    pub(super) fn is_elsewhere(&self, header: &Header) -> bool {
        self.bars.is_elsewhere(header)
    }

    /// See [`Bars::may_differ`].
    pub(super) fn may_differ(&self, era: Era) -> bool {
        self.bars.may_differ(era)
    }

    /// Whether an answer is awaited or checked.
    pub(super) fn is_busy(&self) -> bool {
        self.asked.is_some() || self.pending.is_some()
    }

    /// The node has applied a block.
    pub(super) fn applied(&mut self, tip: &super::Applied) {
        let off = self.heads.get(&tip.slot.height.0);
        if off.is_some_and(|head| head.id != tip.slot.id) || tip.slot.height < self.base.height {
            self.forget();
        }
        self.base = tip.slot;
        self.bars = tip.bars.clone();
        self.heads = self.heads.split_off(&(tip.slot.height.0 + 1));
        if self.sets.len() > SETS_COUNT_MAX {
            self.sets.clear();
            self.heads.clear();
        }
        self.sets
            .insert(tip.validators_hash, tip.validators.clone());
    }

    /// All that is above the tip goes: it was of another chain, or whoever checks it has lost it.
    pub(super) fn forget(&mut self) {
        self.heads.clear();
        self.asked = None;
        self.pending = None;
    }

    /// Whoever checks signatures has lost them.
    pub(super) fn expire(&mut self, now: MonoUs) {
        self.pending.take_if(|p| p.since.plus_ms(LOST_MS) <= now);
    }

    /// A peer is gone or not to be listened to any more.
    pub(super) fn drop_peer(&mut self, peer: Peer) {
        if self.asked.is_some_and(|(asked, _)| asked == peer) {
            self.asked = None;
        }
        if self.pending.as_ref().is_some_and(|p| p.peer == peer) {
            self.pending = None;
        }
    }

    /// An answer: what of it is to be verified, or why it is a fault. An empty one, or one that nobody waits for, is neither.
    pub(super) fn answered(
        &mut self,
        chain: ChainId,
        peer: Peer,
        found: &[CertifiedHeader],
        ticket: u64,
        now: MonoUs,
    ) -> Result<Option<Vec<Check>>, Fault> {
        if self.asked.map(|(asked, _)| asked) != Some(peer) {
            return Ok(None);
        }
        self.asked = None;
        let room = HEADERS_COUNT_MAX.saturating_sub(self.heads.len());
        let mut last = self.top();
        let mut pending = Pending {
            ticket,
            since: now,
            peer,
            heads: Vec::new(),
            items: Vec::new(),
            sets: Vec::new(),
        };
        let mut checks = Vec::new();
        for item in found.iter().take(room) {
            let (header, certificate) = (&item.header, &item.certificate);
            let id = header.id();
            if header.height <= last.height {
                continue;
            }
            if header.slot_root.is_zero() || header.prev_slot_block != last.id {
                // Its chain is another one; what stood there before stays.
                break;
            }
            if certificate.block != id || certificate.height != header.height {
                return Err(Fault::OtherCertificate);
            }
            if header.validators_hash != last.next_hash {
                return Err(Fault::WrongSet);
            }
            let mut own = pending.sets.iter().rev();
            let own = own.find(|(hash, _)| *hash == header.validators_hash);
            let set = own.map(|(_, set)| set);
            let Some(set) = set.or_else(|| self.sets.get(&header.validators_hash)) else {
                break;
            };
            // Of an era that this node has yet to learn of: no fault, and no use.
            let Some(set) = self.bars.bar(set, certificate.commit.at.era) else {
                break;
            };
            let more = certificate.checks(chain, header.branch, &set);
            let doubt = self.bars.may_differ(certificate.commit.at.era);
            if self.bars.is_elsewhere(header) || (doubt && more.is_err()) {
                break;
            }
            checks.extend(more.map_err(|_| Fault::BadCertificate)?);
            if header.next_validators_hash != header.validators_hash {
                let next = item.next.as_ref();
                let next = next.filter(|set| set.hash() == header.next_validators_hash);
                let next = next.ok_or(Fault::WrongSet)?;
                let next = Arc::new(next.clone());
                pending.sets.push((header.next_validators_hash, next));
            }
            last = SlotHead {
                height: header.height,
                id,
                time: header.time,
                next_hash: header.next_validators_hash,
                state_root: header.state_root,
            };
            pending.heads.push(last);
            pending.items.push(item.clone());
        }
        if pending.heads.is_empty() {
            return Ok(None);
        }
        self.pending = Some(pending);
        Ok(Some(checks))
    }

    /// The verdict on what [`Skeleton::answered`] gave out: the headers, or who lied.
    pub(super) fn verdict(
        &mut self,
        ticket: u64,
        good: bool,
    ) -> Option<Result<Vec<CertifiedHeader>, Peer>> {
        let pending = self.pending.take_if(|p| p.ticket == ticket)?;
        if !good {
            return Some(Err(pending.peer));
        }
        self.sets.extend(pending.sets);
        for head in pending
            .heads
            .into_iter()
            .filter(|h| h.height > self.base.height)
        {
            self.heads.insert(head.height.0, head);
        }
        Some(Ok(pending.items))
    }
}
