//! Pruning (F6): blocks below a horizon go, with undo data, certificates and their places in the indexes. Headers and
//! certificates of slot blocks and validator sets never do, so that any certificate above can still be checked from the
//! genesis on.
//!
//! Inputs: what is to be kept. Outputs: a ledger with a higher base. Never: takes what undoing `max_reorg` blocks needs, or
//! blocks above a snapshot that this node serves, or more heights at once than it is told.

use super::env::{Scan, Write};
use super::error::StorageError;
use super::schema::*;
use super::writer::LedgerStore;
use crate::ledger::state::State;
use crate::types::block::Block;
use crate::types::codec;
use crate::types::ids::Height;

/// What is kept of old blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Blocks; 0: all.
    pub blocks: u64,
    /// Bytes of blocks on disk; 0: no bound.
    pub bytes: u64,
}

/// Heights pruned beside each commit, beyond those that it adds.
pub(super) const PRUNE_STEP: u64 = 16;

/// The base as the writing transaction sees it.
fn base(write: &Write<'_>) -> Result<Height, StorageError> {
    let mut found = Height(0);
    write.scan(META, META_BASE, |key, value| {
        if key == META_BASE {
            found = read_height(value).unwrap_or_default();
        }
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

/// Prunes at most `most` heights, as far as `keep` says and nothing above `floor`. How many.
pub(super) fn prune_blocks(
    write: &mut Write<'_>,
    after: &State,
    keep: Retention,
    floor: Height,
    most: u64,
) -> Result<u64, StorageError> {
    if keep == Retention::default() {
        return Ok(0);
    }
    let tip = after.height().0;
    let first = base(write)?.0 + 1;
    let mut last = 0;
    if keep.blocks > 0 {
        last = tip.saturating_sub(keep.blocks);
    }
    if keep.bytes > 0 && write.table_bytes(BLOCKS)? > keep.bytes {
        last = last.max(first + most);
    }
    let bound = tip.saturating_sub(after.params().max_reorg).min(floor.0);
    let last = last.min(bound).min(first.saturating_add(most) - 1);
    for height in (first..=last).map(Height) {
        prune_one(write, height)?;
    }
    if last >= first {
        write.put(META, META_BASE, &height_key(Height(last)))?;
    }
    Ok((last + 1).saturating_sub(first))
}

fn prune_one(write: &mut Write<'_>, height: Height) -> Result<(), StorageError> {
    let key = height_key(height);
    let corrupt = |write: &Write<'_>, what: &str| {
        StorageError::corrupt(write.dir(), format!("block {height}: {what}"))
    };
    if let Some(bytes) = write.get(BLOCKS, &key)? {
        let block: Result<Block, _> = codec::decode(bytes, VALUE_BYTES_MAX);
        let block = block.map_err(|e| corrupt(write, &e.to_string()))?;
        for tx in block.transactions.iter() {
            write.delete(TXIDS, &tx.txid.0.0)?;
        }
        write.delete(BLOCKS, &key)?;
    }
    write.delete(CERTIFICATES, &key)?;
    write.delete(UNDO, &key)?;
    if write.get(SLOTS, &key)?.is_none()
        && let Some(id) = write.get(HISTORY, &key)?.map(<[u8]>::to_vec)
    {
        write.delete(HEIGHTS, &id)?;
        write.delete(HISTORY, &key)?;
    }
    Ok(())
}

impl LedgerStore {
    /// Prunes at most `most` heights as far as [`LedgerStore::retain`] says. How many; 0: nothing is left to prune.
    pub fn prune(&self, most: u64) -> Result<u64, StorageError> {
        let (keep, floor) = self.retention();
        let state = self.state();
        let mut write = self.write()?;
        let done = prune_blocks(&mut write, &state, keep, floor, most)?;
        if done > 0 {
            write.commit()?;
        }
        Ok(done)
    }
}
