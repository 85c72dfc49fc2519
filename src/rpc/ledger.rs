//! The ledger store as methods read it.

use crate::crypto::hash::Hash;
use crate::ledger::coins::FLAG_COINBASE;
use crate::ledger::report::SlotOutcome;
use crate::rpc::node::{LedgerRead, ReadError, StoredCoin};
use crate::storage::{LedgerStore, StorageError};
use crate::types::block::{Block, Certificate, Header};
use crate::types::ids::*;
use crate::types::transaction::TxOutput;
use crate::types::validators::ValidatorSet;
use std::sync::Arc;

fn fault(error: StorageError) -> ReadError {
    ReadError(error.to_string())
}

impl LedgerRead for LedgerStore {
    fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        LedgerStore::header(self, height).map_err(fault)
    }
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ReadError> {
        LedgerStore::block(self, height).map_err(fault)
    }
    fn certificate(&self, height: Height) -> Result<Option<Certificate>, ReadError> {
        LedgerStore::certificate(self, height).map_err(fault)
    }
    fn height_of(&self, id: &BlockId) -> Result<Option<Height>, ReadError> {
        LedgerStore::height_of(self, id).map_err(fault)
    }
    fn position_of(&self, txid: &Txid) -> Result<Option<(Height, u32)>, ReadError> {
        self.tx(txid).map_err(fault)
    }
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<StoredCoin>, ReadError> {
        let coin = LedgerStore::coin(self, outpoint).map_err(fault)?;
        Ok(coin.map(|coin| StoredCoin {
            output: coin.output,
            coinbase: coin.flags & FLAG_COINBASE != 0,
        }))
    }
    fn spent_by(&self, height: Height) -> Result<Vec<(OutPoint, TxOutput)>, ReadError> {
        let undo = self.undo(height).map_err(fault)?;
        let spent = undo.map(|undo| undo.spent).unwrap_or_default();
        Ok(spent
            .into_iter()
            .map(|(o, coin)| (o, coin.output))
            .collect())
    }
    fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, ReadError> {
        LedgerStore::slots(self, from, limit).map_err(fault)
    }
    fn base(&self) -> Result<Height, ReadError> {
        LedgerStore::base(self).map_err(fault)
    }
    fn validator_set(&self, hash: &Hash) -> Result<Option<Arc<ValidatorSet>>, ReadError> {
        let set = LedgerStore::validator_set(self, hash).map_err(fault)?;
        Ok(set.map(Arc::new))
    }
}
