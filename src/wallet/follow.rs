//! Following the chain: which coins decided blocks gave us and took, which of our payments they made final or void.
//! Input: blocks in order, or the ledger's coins where blocks are missing. It never asks whether a block is valid.

use super::api::Wallet;
use super::coins::OwnCoin;
use super::error::WalletError;
use super::history::HistoryEntry;
use super::pending::{PendingEntry, VoidEntry};
use super::source::{CoinSource, SourceError};
use crate::base::time::WallMs;
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::block::Block;
use crate::types::ids::{Height, OutPoint, Txid};
use crate::types::transaction::{Tx, TxKind, TxOutput};

/// A snapshot is written at least every so many heights, so that little is replayed at the next start.
const SNAPSHOT_HEIGHTS: u64 = 1_000;
/// Coins asked for at once.
const COIN_PAGE_COUNT: usize = 1_000;

impl Wallet {
    /// Catches up with the chain: replays the blocks since the last writing, or reads the coins from the ledger. Once,
    /// after `create` or `open` and before the first `observe`; `observe` then goes on with the height after its tip.
    pub fn attach(&mut self, source: &dyn CoinSource) -> Result<(), WalletError> {
        let tip = source.tip()?;
        self.drop_decided_pending();
        self.reserve_pending();
        let replayed = match self.synced {
            Some(height) if self.is_on(source, height)? => self.replay(source, tip)?,
            _ => false,
        };
        if !replayed {
            self.read_coins(source, tip)?;
            self.settle_pending(source)?;
        }
        self.drop_lost_pending();
        self.chain_dirty = true;
        Ok(())
    }

    /// Whether the block up to which the wallet knows the chain is on it.
    fn is_on(&self, source: &dyn CoinSource, height: Height) -> Result<bool, SourceError> {
        Ok(height == Height(0) || source.block_id(height)? == Some(self.block))
    }

    /// A power cut may bring back files of payments that are final long since.
    fn drop_decided_pending(&mut self) {
        let entries = self.pending.entries();
        let decided = entries.filter(|e| self.history.get(&e.tx.txid).is_some());
        let decided: Vec<Txid> = decided.map(|e| e.tx.txid).collect();
        for txid in decided {
            self.pending.remove(&self.files.pending(), &txid);
        }
    }

    /// Payments whose coins are gone from the ledger can never happen.
    fn drop_lost_pending(&mut self) {
        if self.coins.untracked() > 0 {
            return; // a coin may be on the ledger and not in memory
        }
        let is_lost = |entry: &&PendingEntry| {
            let inputs = entry.tx.body().inputs.iter();
            let values = inputs.filter_map(|input| Some(self.coins.get(input)?.output.value));
            Amount::sum(values).is_none_or(|sum| sum < entry.debit)
        };
        let lost: Vec<Txid> = self
            .pending
            .entries()
            .filter(is_lost)
            .map(|e| e.tx.txid)
            .collect();
        for txid in lost {
            log::warn!(
                "wallet {}: payment {txid} is void: its coins were spent otherwise",
                self.name()
            );
            self.forget(txid);
        }
    }

    fn replay(&mut self, source: &dyn CoinSource, tip: Height) -> Result<bool, SourceError> {
        while let Some(next) = self.synced.map(Height::next).filter(|next| *next <= tip) {
            let Some(block) = source.block(next)? else {
                return Ok(false); // pruned: the coins are still on the ledger
            };
            self.observe(&block, next);
        }
        Ok(true)
    }

    fn read_coins(&mut self, source: &dyn CoinSource, tip: Height) -> Result<(), WalletError> {
        self.coins.clear();
        self.read_coins_of(source, self.book.change(), tip)?;
        // A payment to a prepared key hands it out, which prepares more keys to ask for.
        let mut index = 0;
        while let Some(program) = self.book.receiving(index) {
            self.read_coins_of(source, program, tip)?;
            if let Some(nodes) = self.keys.nodes() {
                self.book.prepare(nodes);
            }
            index += 1;
        }
        self.synced = Some(tip);
        self.block = source.block_id(tip)?.unwrap_or_default();
        Ok(())
    }

    fn read_coins_of(
        &mut self,
        source: &dyn CoinSource,
        program: Program,
        tip: Height,
    ) -> Result<(), WalletError> {
        let mut after = None;
        loop {
            let page = source.coins_of(&program, after, COIN_PAGE_COUNT)?;
            for coin in &page {
                let height = coin.height.unwrap_or(tip);
                self.receive(coin.outpoint, coin.output, height, coin.coinbase);
            }
            after = page.last().map(|coin| coin.outpoint);
            if page.len() < COIN_PAGE_COUNT || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Without replay nobody told us which pending transactions were decided meanwhile, or lost their inputs.
    fn settle_pending(&mut self, source: &dyn CoinSource) -> Result<(), WalletError> {
        let entries: Vec<PendingEntry> = self.pending.entries().cloned().collect();
        let directory = self.files.pending();
        for entry in entries {
            let txid = entry.tx.txid;
            let Some(height) = source.height_of(&txid)? else {
                continue;
            };
            let block = source.block(height)?;
            self.pending.remove(&directory, &txid);
            self.history.push(HistoryEntry {
                txid,
                height,
                time: block.map_or(entry.created, |block| block.header.time),
                debit: entry.debit,
                credit: entry.credit,
                fee: entry.fee,
                coinbase: false,
            });
        }
        self.reserve_pending();
        Ok(())
    }

    fn reserve_pending(&mut self) {
        let entries: Vec<PendingEntry> = self.pending.entries().cloned().collect();
        for entry in &entries {
            self.reserve(&entry.tx, entry.debit);
        }
    }

    /// Reserves what a pending transaction spends and adds the change it makes for us. What somebody else pays us is no
    /// money before it is final.
    pub(super) fn reserve(&mut self, tx: &Tx, debit: Amount) {
        for input in &tx.body().inputs {
            self.coins.reserve(*input, tx.txid);
        }
        if debit == Amount::ZERO {
            return;
        }
        for (vout, output) in made(tx) {
            if self.book.path(&output.program).is_some() {
                let coin = OwnCoin {
                    output,
                    height: None,
                    coinbase: false,
                };
                self.coins.add(tx.outpoint(vout), coin);
            }
        }
    }

    fn receive(
        &mut self,
        outpoint: OutPoint,
        output: TxOutput,
        height: Height,
        coinbase: bool,
    ) -> bool {
        let Some(path) = self.book.path(&output.program) else {
            return false;
        };
        self.book.note_use(path);
        let height = Some(height);
        let coin = OwnCoin {
            output,
            height,
            coinbase,
        };
        self.coins.add(outpoint, coin);
        true
    }

    /// A decided block. Each height once, ascending, after `attach`; heights that are known already are ignored. Returns
    /// our transactions among its own. Cost: a few look-ups for each input and output.
    pub fn observe(&mut self, block: &Block, height: Height) -> Vec<Txid> {
        if self.synced.is_some_and(|synced| height <= synced) {
            return Vec::new();
        }
        let prepared_before = self.book.count();
        let mut ours = Vec::new();
        for tx in &block.transactions {
            if let Some(entry) = self.observe_transaction(tx, height, block.header.time) {
                ours.push(entry.txid);
                self.history.push(entry);
            }
        }
        if self.book.count() != prepared_before
            && let Some(nodes) = self.keys.nodes()
        {
            self.book.prepare(nodes);
        }
        self.synced = Some(height);
        self.block = block.id();
        self.chain_dirty |= !ours.is_empty() || height.0.is_multiple_of(SNAPSHOT_HEIGHTS);
        ours
    }

    fn observe_transaction(
        &mut self,
        tx: &Tx,
        height: Height,
        time: WallMs,
    ) -> Option<HistoryEntry> {
        let coinbase = tx.body().kind == TxKind::Coinbase;
        let (mut debit, mut credit) = (Amount::ZERO, Amount::ZERO);
        let (mut spent_count, mut touched) = (0, false);
        for input in &tx.body().inputs {
            if let Some(by) = self.coins.reserved_by(input) {
                self.coins.release(input);
                if by != tx.txid {
                    self.drop_conflicted(by, tx.txid, height);
                }
            }
            if let Some(coin) = self.coins.spend(input) {
                debit = debit.plus(coin.output.value).unwrap_or(debit);
                spent_count += 1;
            }
        }
        for (vout, output) in made(tx) {
            if self.receive(tx.outpoint(vout), output, height, coinbase) {
                credit = credit.plus(output.value).unwrap_or(credit);
                touched = true;
            }
        }
        if !touched && spent_count == 0 {
            return None;
        }
        let known = self.pending.remove(&self.files.pending(), &tx.txid);
        self.pending.unvoid(&self.files.void(), &tx.txid);
        let total = Amount::sum(tx.body().outputs.iter().map(|output| output.value));
        let all_ours = spent_count > 0 && spent_count == tx.body().inputs.len();
        let fee = total.filter(|_| all_ours).and_then(|t| debit.minus(t));
        Some(HistoryEntry {
            txid: tx.txid,
            height,
            time,
            debit,
            credit,
            fee: fee.or(known.and_then(|entry| entry.fee)),
            coinbase,
        })
    }

    /// A decided transaction spent what a pending one of ours spends: that one and what builds on it can never happen.
    fn drop_conflicted(&mut self, txid: Txid, by: Txid, height: Height) {
        for entry in self.forget(txid) {
            let void = VoidEntry { entry, by, height };
            self.pending.note_void(&self.files.void(), void);
        }
    }

    /// Takes a pending transaction and those that build on it out; returns them.
    pub(super) fn forget(&mut self, txid: Txid) -> Vec<PendingEntry> {
        let directory = self.files.pending();
        let (mut waiting, mut gone) = (vec![txid], Vec::new());
        while let Some(txid) = waiting.pop() {
            let Some(entry) = self.pending.remove(&directory, &txid) else {
                continue;
            };
            for input in &entry.tx.body().inputs {
                if self.coins.reserved_by(input) == Some(txid) {
                    self.coins.release(input);
                }
            }
            for (vout, _) in made(&entry.tx) {
                let outpoint = entry.tx.outpoint(vout);
                waiting.extend(self.coins.reserved_by(&outpoint));
                if self
                    .coins
                    .get(&outpoint)
                    .is_some_and(|c| c.height.is_none())
                {
                    self.coins.spend(&outpoint);
                }
            }
            gone.push(entry);
        }
        gone
    }

    /// Reads the whole chain again from genesis; returns its tip. Restores history and finds payments to addresses that
    /// another copy of this wallet handed out.
    pub fn rescan(&mut self, source: &dyn CoinSource) -> Result<Height, WalletError> {
        let tip = source.tip()?;
        self.coins.clear();
        self.history.clear();
        for (outpoint, output) in source.genesis_coins() {
            self.receive(outpoint, output, Height(0), false);
        }
        if let Some(nodes) = self.keys.nodes() {
            self.book.prepare(nodes);
        }
        self.synced = Some(Height(0));
        if !self.replay(source, tip)? {
            self.read_coins(source, tip)?;
        }
        self.settle_pending(source)?;
        self.drop_lost_pending();
        self.chain_dirty = true;
        Ok(tip)
    }
}

/// The coins a transaction makes. The first output of a registration becomes collateral, not a coin (M1).
pub(super) fn made(tx: &Tx) -> impl Iterator<Item = (u32, TxOutput)> + '_ {
    let skip = usize::from(tx.body().kind == TxKind::Register);
    let outputs = (0u32..).zip(tx.body().outputs.iter().copied());
    outputs.skip(skip)
}
