//! What a fork took back (B6 step 5), settled at every start after it: transactions of ours in blocks that are on the chain no
//! more wait again, those that somebody else made too, so that no payment vanishes without a word. Input: the ledger after
//! the fork, the transactions of the blocks that are gone. It never asks which branch was right.

use super::api::Wallet;
use super::error::WalletError;
use super::follow::made;
use super::history::HistoryEntry;
use super::pending::PendingEntry;
use super::source::{CoinSource, SourceError};
use crate::base::time::WallMs;
use crate::types::amount::Amount;
use crate::types::ids::{Height, Txid};
use crate::types::transaction::Tx;
use std::collections::{BTreeMap, BTreeSet};

impl Wallet {
    /// `attach` where a fork has taken blocks back: what the ledger does not hold any more leaves the history, and what the
    /// blocks that are gone held of ours waits again. Another call, after a crash or at a later start, does no more harm.
    pub fn attach_after_fork(
        &mut self,
        source: &dyn CoinSource,
        returned: &[Tx],
    ) -> Result<(), WalletError> {
        let times = self.strip(source)?;
        self.attach(source)?;
        let tip = source.block(source.tip()?)?;
        let tip = tip.map_or(WallMs::default(), |block| block.header.time);
        for tx in returned {
            let created = times.get(&tx.txid).copied().unwrap_or(tip);
            self.wait_again(source, tx, created)?;
        }
        // The history on disk forgets them next.
        self.pending.sync(&self.files.pending())
    }

    /// Takes out of the history what is in no block of the ledger, as far down as a fork can have reached, and moves what is in
    /// another one now; when all that had been decided.
    fn strip(&mut self, source: &dyn CoinSource) -> Result<BTreeMap<Txid, WallMs>, SourceError> {
        let floor = Height(source.tip()?.0.saturating_sub(source.reorg_max()));
        let (mut gone, mut moved) = (BTreeSet::new(), Vec::new());
        for entry in self.history.since(floor) {
            let height = source.height_of(&entry.txid)?;
            if height != Some(entry.height) {
                gone.insert(entry.txid);
                moved.extend(height.map(|height| HistoryEntry { height, ..entry }));
            }
        }
        let taken = self.history.retain(|entry| !gone.contains(&entry.txid));
        moved.sort_by_key(|entry| entry.height);
        moved.into_iter().for_each(|entry| self.history.push(entry));
        if !taken.is_empty() {
            self.chain_dirty = true;
            log::warn!(
                "wallet {}: {} transactions are not in the blocks any more in which they were final",
                self.name(),
                taken.len()
            );
        }
        Ok(taken.into_iter().map(|e| (e.txid, e.time)).collect())
    }

    /// Lets a transaction of a lost block wait if it is ours, can still happen and does not wait yet.
    fn wait_again(
        &mut self,
        source: &dyn CoinSource,
        tx: &Tx,
        created: WallMs,
    ) -> Result<(), WalletError> {
        let txid = tx.txid;
        let known = self.pending.get(&txid).is_some() || self.pending.void(&txid).is_some();
        if known || source.height_of(&txid)?.is_some() {
            return Ok(());
        }
        let inputs = &tx.body().inputs;
        let own = inputs.iter().filter_map(|input| self.coins.get(input));
        let own: Vec<Amount> = own.map(|coin| coin.output.value).collect();
        let to_us = made(tx).filter(|(_, output)| self.is_own(&output.program));
        let to_us: Vec<Amount> = to_us.map(|(_, output)| output.value).collect();
        if (own.is_empty() && to_us.is_empty()) || !self.pending.has_room() {
            return Ok(());
        }
        for input in inputs {
            let waits = self.pending.get(&input.txid).is_some();
            if !waits && !source.is_unspent(input)? {
                log::warn!("wallet {}: {txid} can never happen again", self.name());
                return Ok(());
            }
        }
        let debit = Amount::sum(own.iter().copied()).unwrap_or_default();
        let total = Amount::sum(tx.body().outputs.iter().map(|output| output.value));
        let all_ours = own.len() == inputs.len();
        let entry = PendingEntry {
            chain: self.chain,
            created,
            debit,
            credit: Amount::sum(to_us).unwrap_or_default(),
            fee: total
                .filter(|_| all_ours)
                .and_then(|total| debit.minus(total)),
            tx: tx.clone(),
        };
        self.pending.insert(&self.files.pending(), entry)?;
        self.reserve(tx, debit);
        Ok(())
    }
}
