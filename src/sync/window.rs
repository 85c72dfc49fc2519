//! Blocks above the tip that have arrived, by height, and how far each is checked.

use super::*;
use crate::types::block::slot_root;
use std::collections::BTreeMap;

/// How far a block is.
pub(super) enum Stage {
    /// Its body fits its header; nothing is known of the certificate.
    Arrived(Certificate),
    /// Its signatures are being checked. `follows`: whether it follows the block below.
    Verifying { ticket: u64, follows: bool },
    /// Its certificate holds and the chain below it is whole.
    Verified(Verified<Certificate>),
    /// Handed over.
    Delivered,
}

pub(super) struct Candidate {
    pub(super) peer: Peer,
    pub(super) id: BlockId,
    pub(super) block: Arc<Block>,
    pub(super) bytes: usize,
    pub(super) stage: Stage,
}

impl Candidate {
    /// Whether a quorum of its set stands behind it.
    pub(super) fn trusted(&self) -> bool {
        matches!(self.stage, Stage::Verified(_) | Stage::Delivered)
    }
}

/// What binds a block's parts together, and the certificate to the block. Needs nothing but the block.
pub(super) fn bound_together(
    block: &Block,
    id: BlockId,
    certificate: &Certificate,
) -> Option<Fault> {
    let header = &block.header;
    let at = certificate.commit.at;
    let before = at.era == header.era && at.round < header.round;
    if certificate.block != id || certificate.height != header.height || before {
        return Some(Fault::OtherCertificate);
    }
    let slot_part = if header.slot_root.is_zero() {
        block.slot_part.is_empty()
    } else {
        header.slot_root == slot_root(&block.slot_part)
    };
    let body = header.tx_root == block.tx_root()
        && header.last_commit_hash == block.last_commit.hash()
        && slot_part;
    (!body).then_some(Fault::Body)
}

/// Candidates by height. Bounded by the machine: it inserts nothing that does not fit.
#[derive(Default)]
pub(super) struct Window {
    candidates: BTreeMap<u64, Candidate>,
    bytes: usize,
}

impl Window {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }
    pub(super) fn contains(&self, height: u64) -> bool {
        self.candidates.contains_key(&height)
    }
    pub(super) fn get(&self, height: u64) -> Option<&Candidate> {
        self.candidates.get(&height)
    }
    pub(super) fn get_mut(&mut self, height: u64) -> Option<&mut Candidate> {
        self.candidates.get_mut(&height)
    }
    pub(super) fn insert(&mut self, height: u64, candidate: Candidate) {
        self.bytes += candidate.bytes;
        if let Some(before) = self.candidates.insert(height, candidate) {
            self.bytes -= before.bytes;
        }
    }
    pub(super) fn remove(&mut self, height: u64) -> Option<Candidate> {
        let candidate = self.candidates.remove(&height)?;
        self.bytes -= candidate.bytes;
        Some(candidate)
    }
    /// Drops what `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(u64, &Candidate) -> bool) {
        self.candidates.retain(|height, c| keep(*height, c));
        self.bytes = self.candidates.values().map(|c| c.bytes).sum();
    }
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
        self.bytes = 0;
    }
    /// Drops everything at `height` and below: it is applied.
    pub(super) fn applied(&mut self, height: u64) {
        while let Some(first) = self.candidates.first_entry().filter(|e| *e.key() <= height) {
            self.bytes -= first.remove().bytes;
        }
    }
    /// The lowest height above `height` that is here.
    pub(super) fn next_above(&self, height: u64) -> Option<u64> {
        let mut above = self.candidates.range(height + 1..);
        above.next().map(|(height, _)| *height)
    }
    /// Whether this candidate still waits for the verdict on `ticket`.
    pub(super) fn awaits(&self, height: u64, ticket: u64) -> bool {
        let stage = self.get(height).map(|c| &c.stage);
        matches!(stage, Some(Stage::Verifying { ticket: t, .. }) if *t == ticket)
    }
}
