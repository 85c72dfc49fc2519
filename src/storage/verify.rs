//! `timed db verify`: everything on disk against everything else.
//!
//! Inputs: an open ledger. Outputs: figures, or the first contradiction as [`StorageError::Corrupt`]. Never: changes
//! anything, or verifies signatures: certificates were verified before they came here.
//!
//! Coins are hashed into fresh digests and compared with the state's (L11), whose root the tip's header commits to; each
//! coin is in the owner index and nothing else is. Blocks form one chain from genesis to the tip, each with its
//! certificate, its place in the history (L13) and its transactions in the index. Undo data leads from the tip back through
//! the roots of the blocks before it (L12).

use super::env::Scan;
use super::error::StorageError;
use super::reader::Snapshot;
use super::schema::*;
use super::writer::LedgerStore;
use crate::crypto::lthash::LtHash;
use crate::crypto::merkle::{HISTORY_TREE, Mmr};
use crate::ledger::coins::{Coin, bucket_of, coin_element};
use crate::ledger::state::State;
use crate::ledger::utxo::BUCKET_COUNT;
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;

/// What was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// The tip.
    pub height: Height,
    /// The tip's id.
    pub block: BlockId,
    /// Unspent coins.
    pub coins: u64,
    /// Transactions of all blocks.
    pub transactions: u64,
    /// Blocks that can be taken back.
    pub undoable: u64,
}

/// Told now and then how far the work is: what is being looked at, how many are done, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Entries between two reports of progress.
const PROGRESS_STEP: u64 = 10_000;

impl LedgerStore {
    /// Verifies the whole store at its tip. Takes time in proportion to its size; meant for a node that is not running.
    pub fn verify(&self, progress: Progress<'_>) -> Result<VerifyReport, StorageError> {
        let view = self.snapshot()?;
        let state = view.state(self.genesis())?;
        verify_coins(&view, &state, progress)?;
        let transactions = verify_blocks(&view, &state, progress)?;
        let undoable = verify_undo(&view, &state, progress)?;
        Ok(VerifyReport {
            height: state.height(),
            block: state.block(),
            coins: state.tip.coin_count,
            transactions,
            undoable,
        })
    }
}

fn verify_coins(
    view: &Snapshot<'_>,
    state: &State,
    progress: Progress<'_>,
) -> Result<(), StorageError> {
    let mut buckets = vec![LtHash::default(); BUCKET_COUNT];
    let (mut count, mut value) = (0u64, Some(Amount::default()));
    view.read.scan(COINS, &[], |key, bytes| {
        let outpoint = view.outpoint_in(key)?;
        let coin: Coin = codec::decode(bytes, VALUE_BYTES_MAX)
            .map_err(|e| view.corrupt(format!("coin {outpoint}: {e}")))?;
        let owner = owner_key(&coin.output.program, &outpoint);
        if view.read.get(OWNERS, &owner)?.is_none() {
            return Err(view.corrupt(format!("coin {outpoint} is not in the owner index")));
        }
        buckets[usize::from(bucket_of(&outpoint))].add_element(&coin_element(&outpoint, &coin));
        value = value.and_then(|sum| sum.plus(coin.output.value));
        count += 1;
        if count.is_multiple_of(PROGRESS_STEP) {
            progress("coins", count, state.tip.coin_count);
        }
        Ok(Scan::More)
    })?;
    for (index, bucket) in (0..=u8::MAX).zip(&buckets) {
        if bucket != state.utxo.bucket(index) {
            return Err(view.corrupt(format!(
                "the coins of bucket {index} do not have its digest"
            )));
        }
    }
    // As many owner entries as coins, and each coin has its own: so there are no others.
    let counts = [view.read.entries(COINS)?, view.read.entries(OWNERS)?];
    if counts != [count; 2] || state.tip.coin_count != count || value != Some(state.tip.coins) {
        return Err(view.corrupt("the number or value of the coins is not the state's"));
    }
    Ok(())
}

fn verify_blocks(
    view: &Snapshot<'_>,
    state: &State,
    progress: Progress<'_>,
) -> Result<u64, StorageError> {
    let (tip, base) = (state.height().0, view.base()?.0);
    let (kept, slots) = (tip - base.min(tip), verify_slots(view, state, base)?);
    let tables = [
        (BLOCKS, kept),
        (CERTIFICATES, kept),
        // Genesis, the slot blocks that are not kept, the blocks that are.
        (HISTORY, kept + slots.count + 1),
        (HEIGHTS, kept + slots.count + 1),
    ];
    for (table, count) in tables {
        if view.read.entries(table)? != count {
            let name = LEDGER_TABLES[table.0];
            return Err(view.corrupt(format!("table '{name}' does not have {count} entries")));
        }
    }
    let mut parent = BlockId(state.chain_id().0);
    verify_place(view, Height(0), parent)?;
    if base > 0 {
        // The block below the first one that is kept is known if it is a slot block.
        let first = view.header(Height(base + 1))?;
        parent = first.map_or(slots.last, |header| header.parent);
        if slots.at == Height(base) && parent != slots.last {
            return Err(view.corrupt("the first block that is kept follows another one"));
        }
    }
    let mut history = Mmr::default();
    let mut transactions = 0u64;
    for height in (base + 1..=tip).map(Height) {
        history.push(&HISTORY_TREE, HISTORY_TREE.leaf(&[&parent.0.0]));
        let fail = |what| view.corrupt(format!("block {height}: {what}"));
        let block = view.block(height)?.ok_or_else(|| fail("is missing"))?;
        let (header, id) = (&block.header, block.id());
        if header.parent != parent || header.height != height {
            return Err(fail("does not follow the one below"));
        }
        // From the genesis on; a pruned ledger holds too little to tell.
        if base == 0 && header.history_root != history.root(&HISTORY_TREE) {
            return Err(fail("names another history"));
        }
        if header.tx_root != block.tx_root() || header.last_commit_hash != block.last_commit.hash()
        {
            return Err(fail("is not what its header commits to"));
        }
        let certificate = view.certificate(height)?;
        if certificate.is_none_or(|c| c.height != height || c.block != id) {
            return Err(fail("has the certificate of another"));
        }
        verify_place(view, height, id)?;
        for (index, tx) in (0u32..).zip(block.transactions.iter()) {
            if view.tx(&tx.txid)? != Some((height, index)) {
                return Err(fail("has a transaction that the index does not know"));
            }
        }
        transactions += block.transactions.len() as u64;
        parent = id;
        if height.0.is_multiple_of(100) || height.0 == tip {
            progress("blocks", height.0, tip);
        }
    }
    if parent != state.block() || view.read.entries(TXIDS)? != transactions {
        return Err(view.corrupt("the tip or the number of transactions is not the state's"));
    }
    Ok(transactions)
}

/// The slot headers at and below a base.
struct Slots {
    count: u64,
    at: Height,
    last: BlockId,
}

/// Slot headers form one chain from the genesis, each with its certificate and the set that it announces. Those at and below
/// the base are what is left of their blocks.
fn verify_slots(view: &Snapshot<'_>, state: &State, base: u64) -> Result<Slots, StorageError> {
    let mut last = BlockId(state.chain_id().0);
    let mut below = Slots {
        count: 0,
        at: Height(0),
        last,
    };
    view.slot_headers(Height(0), |header, certificate| {
        let (height, id) = (header.height, header.id());
        let fail = |what| Err(view.corrupt(format!("slot header {height}: {what}")));
        if header.prev_slot_block != last {
            return fail("does not follow the one before");
        }
        if certificate.block != id || certificate.height != height {
            return fail("has the certificate of another");
        }
        if view.validator_set(&header.next_validators_hash)?.is_none() {
            return fail("announces a set that is missing");
        }
        verify_place(view, height, id)?;
        last = id;
        if height.0 <= base {
            below = Slots {
                count: below.count + 1,
                at: height,
                last: id,
            };
        }
        Ok(true)
    })?;
    match last == state.tip.prev_slot_block {
        true => Ok(below),
        false => Err(view.corrupt("the latest slot header is missing")),
    }
}

/// Height to id and id to height agree.
fn verify_place(view: &Snapshot<'_>, height: Height, id: BlockId) -> Result<(), StorageError> {
    if view.block_id(height)? != Some(id) || view.height_of(&id)? != Some(height) {
        return Err(view.corrupt(format!("block {height}: its id leads elsewhere")));
    }
    Ok(())
}

fn verify_undo(
    view: &Snapshot<'_>,
    tip: &State,
    progress: Progress<'_>,
) -> Result<u64, StorageError> {
    let kept = tip.height().0 - view.base()?.0.min(tip.height().0);
    let count = tip.params().max_reorg.min(kept);
    if view.read.entries(UNDO)? != count {
        return Err(view.corrupt(format!("undo data is not kept for {count} blocks")));
    }
    let mut state = tip.clone();
    for done in 1..=count {
        let height = state.height();
        let fail = || {
            view.corrupt(format!(
                "undo data of block {height} does not lead to the one below"
            ))
        };
        let undo = view.undo(height)?.ok_or_else(fail)?;
        state = undo.restore(&state).ok_or_else(fail)?;
        let header = view.header(state.height())?;
        let right = match header {
            Some(header) => state.root() == header.state_root && state.block() == header.id(),
            None if state.height() == Height(0) => state.block().0 == state.chain_id().0,
            // The first block that is kept names the one below it.
            None => view
                .header(height)?
                .is_some_and(|h| h.parent == state.block()),
        };
        if !right {
            return Err(fail());
        }
        progress("undo", done, count);
    }
    Ok(count)
}
