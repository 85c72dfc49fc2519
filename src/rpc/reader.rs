//! The chain as this node has reported it: decided blocks that may not be durable yet first, then the ledger on disk.
//!
//! The view is taken before the disk is read, so an answer is never older than what was reported as final when the
//! request came in; it may be newer.

use crate::ledger::report::SlotOutcome;
use crate::rpc::node::{Node, NodeView, ReadError, RecentBlock, StoredCoin};
use crate::types::block::{Block, Certificate, Header};
use crate::types::ids::*;
use crate::types::transaction::{TxKind, TxOutput};
use std::sync::Arc;

/// A reader over one view.
pub struct Chain<'a> {
    node: &'a dyn Node,
    view: &'a NodeView,
}

/// The coin that output `outpoint.vout` of a transaction in `block` makes; a collateral is no coin (M1).
fn created(block: &Block, outpoint: &OutPoint) -> Option<StoredCoin> {
    let tx = block
        .transactions
        .iter()
        .find(|tx| tx.txid == outpoint.txid)?;
    let kind = tx.body().kind;
    if kind == TxKind::Register && outpoint.vout == 0 {
        return None;
    }
    let output = tx
        .body()
        .outputs
        .get(usize::try_from(outpoint.vout).ok()?)?;
    Some(StoredCoin {
        output: *output,
        coinbase: kind == TxKind::Coinbase,
    })
}

fn spends(block: &Block, outpoint: &OutPoint) -> bool {
    let mut inputs = block
        .transactions
        .iter()
        .flat_map(|tx| tx.body().inputs.iter());
    inputs.any(|input| input == outpoint)
}

impl<'a> Chain<'a> {
    /// A reader of what `view` has reported, and of the ledger below it.
    pub fn new(node: &'a dyn Node, view: &'a NodeView) -> Chain<'a> {
        Chain { node, view }
    }

    /// What it reads.
    pub fn view(&self) -> &'a NodeView {
        self.view
    }

    fn recent(&self, height: Height) -> Option<&'a RecentBlock> {
        let first = self.view.recent.first()?.block.header.height;
        let index = usize::try_from(height.0.checked_sub(first.0)?).ok()?;
        let found = self.view.recent.get(index)?;
        (found.block.header.height == height).then_some(found)
    }

    /// Height of the tip.
    pub fn tip(&self) -> Height {
        self.view.tip.height
    }

    /// Header at a height; the genesis has none.
    pub fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        match self.recent(height) {
            Some(recent) => Ok(Some(recent.block.header.clone())),
            None => self.node.ledger().header(height),
        }
    }

    /// Block at a height; `None` for the genesis and for pruned ones.
    pub fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ReadError> {
        match self.recent(height) {
            Some(recent) => Ok(Some(recent.block.clone())),
            None => self.node.ledger().block(height),
        }
    }

    /// Certificate of the block at a height.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, ReadError> {
        match self.recent(height) {
            Some(recent) => Ok(Some(recent.certificate.clone())),
            None => self.node.ledger().certificate(height),
        }
    }

    /// Id of the block at a height up to the tip; the chain id for 0.
    pub fn id_at(&self, height: Height) -> Result<Option<BlockId>, ReadError> {
        if height == Height(0) {
            return Ok(Some(BlockId(self.node.facts().chain.0)));
        }
        match self.recent(height) {
            Some(recent) => Ok(Some(recent.id)),
            None => Ok(self.node.ledger().header(height)?.map(|header| header.id())),
        }
    }

    /// Height of a block of the chain; 0 for the chain id.
    pub fn height_of(&self, id: &BlockId) -> Result<Option<Height>, ReadError> {
        if *id == BlockId(self.node.facts().chain.0) {
            return Ok(Some(Height(0)));
        }
        match self.view.recent.iter().find(|recent| recent.id == *id) {
            Some(recent) => Ok(Some(recent.block.header.height)),
            None => self.node.ledger().height_of(id),
        }
    }

    /// Where a transaction stands.
    pub fn position_of(&self, txid: &Txid) -> Result<Option<(Height, u32)>, ReadError> {
        for recent in &self.view.recent {
            let place = recent.block.transactions.iter().zip(0..);
            let mut place = place.filter(|(tx, _)| tx.txid == *txid);
            if let Some((_, index)) = place.next() {
                return Ok(Some((recent.block.header.height, index)));
            }
        }
        self.node.ledger().position_of(txid)
    }

    /// An unspent output, and the height of the block that made it where that is known at once.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<StoredCoin>, ReadError> {
        for recent in self.view.recent.iter().rev() {
            if spends(&recent.block, outpoint) {
                return Ok(None);
            }
            if let Some(coin) = created(&recent.block, outpoint) {
                return Ok(Some(coin));
            }
        }
        self.node.ledger().coin(outpoint)
    }

    /// What slot blocks from `from` on did, ascending without a gap, at most `limit`.
    pub fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, ReadError> {
        let tip = self.view.slot_index;
        let mut out = self.node.ledger().slots(from, limit)?;
        out.retain(|slot| slot.figures.index <= tip);
        let newest = self.view.recent.iter().filter_map(|b| b.slot.as_deref());
        for slot in newest {
            let next = out.last().map_or(from, |last| last.figures.index.next());
            if out.len() < limit && slot.figures.index >= next {
                out.push(slot.clone());
            }
        }
        Ok(out)
    }

    /// Outputs of earlier blocks that the block at `height` spent; empty if no longer kept.
    pub fn spent_by(&self, height: Height) -> Result<Vec<(OutPoint, TxOutput)>, ReadError> {
        match self.recent(height) {
            Some(recent) => Ok(recent.spent.clone()),
            None => self.node.ledger().spent_by(height),
        }
    }
}
