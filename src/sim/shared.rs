//! Equal things of many nodes, kept once in memory. Input: what a node keeps; output: the same, perhaps somebody else's copy.
//! It must never make two nodes keep the same where they would keep different things.

use crate::ledger::decided::DecidedBlock;
use crate::types::ids::{BlockId, Height};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Heights whose blocks are told apart by [`Shared`]; a node further behind keeps a copy of its own.
const SHARED_HEIGHTS: u64 = 64;

/// Equal blocks that many nodes write are kept once. They share memory, not fate: what differs in anything is kept apart.
#[derive(Default)]
pub struct Shared {
    decided: BTreeMap<(Height, BlockId), Vec<Arc<DecidedBlock>>>,
}

impl Shared {
    /// The one that is equal to `decided`, if there is one; else `decided`, with the parts that are equal to another's.
    pub fn one_of(&mut self, decided: Arc<DecidedBlock>) -> Arc<DecidedBlock> {
        let height = decided.certificate.height;
        let oldest = Height(height.0.saturating_sub(SHARED_HEIGHTS));
        if let Some((lowest, _)) = self.decided.keys().next()
            && *lowest < oldest
        {
            self.decided = self.decided.split_off(&(oldest, BlockId::default()));
        }
        let known = self
            .decided
            .entry((height, decided.certificate.block))
            .or_default();
        // The id of a block binds it and its parent, and so what it changes (L12).
        let alike = |d: &&Arc<DecidedBlock>| d.block == decided.block;
        let Some(first) = known.iter().find(alike) else {
            known.push(decided.clone());
            return decided;
        };
        if let Some(same) = known.iter().find(|d| d.certificate == decided.certificate) {
            return same.clone();
        }
        let part = Arc::new(DecidedBlock {
            block: first.block.clone(),
            certificate: decided.certificate.clone(),
            delta: first.delta.clone(),
        });
        known.push(part.clone());
        part
    }
}
