//! Going back (B6 step 5): the ledger as it was some blocks ago, by their undo data, in one transaction: a crash leaves the
//! old tip or the new one. Input: a height that undo reaches. Output: the payments of the blocks taken back.

use super::error::StorageError;
use super::schema::*;
use super::writer::{Change, LedgerStore, put_coins, put_state};
use crate::ledger::coins::bucket_of;
use crate::ledger::undo::Undo;
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxKind};
use crate::types::validators::ValidatorSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl LedgerStore {
    /// What users sent and the blocks above `to` hold, in block order: what [`LedgerStore::rewind`] would take back.
    pub fn payments_above(&self, to: Height) -> Result<Vec<Tx>, StorageError> {
        let mut payments = Vec::new();
        for height in to.0 + 1..=self.tip().0 {
            let block = self.block_or_corrupt(Height(height))?;
            let sent = block.transactions.iter();
            payments.extend(
                sent.filter(|tx| tx.body().kind != TxKind::Coinbase)
                    .cloned(),
            );
        }
        Ok(payments)
    }

    fn block_or_corrupt(&self, height: Height) -> Result<Arc<Block>, StorageError> {
        let block = self.block(height)?;
        block.ok_or_else(|| StorageError::corrupt(self.dir(), format!("block {height} is missing")))
    }

    fn undo_or_refuse(&self, height: Height) -> Result<Undo, StorageError> {
        let undo = self.undo(height)?;
        undo.ok_or_else(|| {
            StorageError::Misuse(format!(
                "undo does not reach height {height}: run 'timed db rebuild' to fetch the ledger again"
            ))
        })
    }

    /// Takes back every block above `to`. Nothing changes on an error.
    pub fn rewind(&self, to: Height) -> Result<(), StorageError> {
        let before = self.state();
        let mut state = before.clone();
        let mut net: BTreeMap<OutPoint, Change> = BTreeMap::new();
        let (mut buckets, mut txids, mut ids) = (BTreeSet::new(), Vec::new(), Vec::new());
        while state.height() > to {
            let height = state.height();
            let undo = self.undo_or_refuse(height)?;
            ids.push((height, state.block()));
            let block = self.block_or_corrupt(height)?;
            txids.extend(block.transactions.iter().map(|tx| tx.txid));
            for (outpoint, coin) in &undo.created {
                buckets.insert(bucket_of(outpoint));
                if net.remove(outpoint).is_none() {
                    net.insert(*outpoint, Change::Spend(*coin));
                }
            }
            for (outpoint, coin) in &undo.spent {
                buckets.insert(bucket_of(outpoint));
                net.insert(*outpoint, Change::Create(*coin));
            }
            let restored = undo.restore(&state);
            state = restored
                .ok_or_else(|| StorageError::corrupt(self.dir(), "undo data of another block"))?;
        }
        let mut write = self.write()?;
        put_coins(&mut write, self.dir(), &net)?;
        for (height, id) in &ids {
            let key = height_key(*height);
            for table in [BLOCKS, CERTIFICATES, UNDO, HISTORY] {
                write.delete(table, &key)?;
            }
            write.delete(HEIGHTS, &id.0.0)?;
        }
        for txid in &txids {
            write.delete(TXIDS, &txid.0.0)?;
        }
        put_state(&mut write, Some(&before), &state, &buckets)?;
        write.commit()?;
        self.set_tip(state);
        Ok(())
    }

    /// The set that decided a height, as far back as undo reaches: the state after that block remembers it.
    pub fn deciders_of(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, StorageError> {
        let state = self.state();
        if height > state.height() || height == Height(0) {
            return Ok(None);
        }
        let (mut set, mut eras) = (state.last_validators.clone(), state.eras.clone());
        for above in (height.0 + 1..=state.height().0).rev() {
            let Some(undo) = self.undo(Height(above))? else {
                return Ok(None);
            };
            if let Some(last) = undo.last_set_before() {
                set = Arc::new(last.clone());
            }
            if let Some(before) = undo.eras_before() {
                eras = Arc::new(before.clone());
            }
        }
        Ok(Some(eras.bar_last(set)))
    }
}
