//! What a wallet asks of the node that runs it: coins and blocks of the decided chain. The node answers from its ledger and
//! from blocks that are decided and not yet on disk, so that no answer is older than what it has reported as final.

use crate::types::address::Program;
use crate::types::block::Block;
use crate::types::ids::{BlockId, Height, OutPoint, Txid};
use crate::types::transaction::TxOutput;
use std::sync::Arc;

/// The node's own storage failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// An unspent output as the ledger knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Value and program.
    pub output: TxOutput,
    /// Whether a coinbase made it.
    pub coinbase: bool,
    /// The height that made it, if the index knows; 0 for genesis balances.
    pub height: Option<Height>,
}

/// A reader of the decided chain.
pub trait CoinSource {
    /// Height of the latest decided block.
    fn tip(&self) -> Result<Height, SourceError>;
    /// Unspent outputs of a program, ascending by outpoint, those after `after`; fewer than `limit` means the end.
    fn coins_of(
        &self,
        program: &Program,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<SourceCoin>, SourceError>;
    /// The block decided at a height; `None` above the tip or where its id is not kept.
    fn block_id(&self, height: Height) -> Result<Option<BlockId>, SourceError>;
    /// Whether an output is a coin of the ledger, anybody's.
    fn is_unspent(&self, outpoint: &OutPoint) -> Result<bool, SourceError>;
    /// Blocks deeper than this are never taken back.
    fn reorg_max(&self) -> u64;
    /// A decided block; `None` above the tip or if its body is pruned.
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, SourceError>;
    /// The height that decided a transaction, if one did.
    fn height_of(&self, txid: &Txid) -> Result<Option<Height>, SourceError>;
    /// The coins of the genesis.
    fn genesis_coins(&self) -> Vec<(OutPoint, TxOutput)>;
}
