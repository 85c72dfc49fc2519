//! What a fork took back (B6 step 5), settled at the start after it: transactions of ours in blocks that are on the chain no
//! more wait again, those that somebody else made too, so that no payment vanishes without a word. Input: the ledger after
//! the fork, the transactions of the blocks that are gone. It never asks which branch was right.

use super::api::Wallet;
use super::error::WalletError;
use super::history::HistoryEntry;
use super::pending::PendingEntry;
use super::source::CoinSource;
use crate::types::ids::{Height, Txid};
use crate::types::transaction::Tx;
use std::collections::{BTreeMap, BTreeSet};

impl Wallet {
    /// Takes out of the history what the ledger does not hold any more, and lets it wait again as far as it is known.
    /// Call it before `attach`. A second call, after a crash, does the same again.
    pub fn take_back(
        &mut self,
        source: &dyn CoinSource,
        returned: &[Tx],
    ) -> Result<(), WalletError> {
        let floor = Height(source.tip()?.0.saturating_sub(source.reorg_max()));
        let mut gone: BTreeSet<Txid> = BTreeSet::new();
        for entry in self.history.since(floor) {
            if source.height_of(&entry.txid)? != Some(entry.height) {
                gone.insert(entry.txid);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let known: BTreeMap<Txid, &Tx> = returned.iter().map(|tx| (tx.txid, tx)).collect();
        let directory = self.files.pending();
        let lost: Vec<HistoryEntry> = self.history.since(floor);
        for entry in lost.iter().filter(|entry| gone.contains(&entry.txid)) {
            match known.get(&entry.txid) {
                Some(tx) if self.pending.has_room() => {
                    let pending = PendingEntry {
                        chain: self.chain,
                        created: entry.time,
                        debit: entry.debit,
                        credit: entry.credit,
                        fee: entry.fee,
                        tx: Tx::clone(tx),
                    };
                    self.pending.insert(&directory, pending)?;
                }
                _ if entry.coinbase => {}
                _ => log::warn!(
                    "wallet {}: {} is in no block of the ledger, and is not sent again",
                    self.name(),
                    entry.txid
                ),
            }
        }
        // On disk before the history forgets them.
        self.pending.sync(&directory)?;
        let taken = self.history.retain(|entry| !gone.contains(&entry.txid));
        log::warn!(
            "wallet {}: {} transactions are in no block of the ledger any more: they are not final",
            self.name(),
            taken.len()
        );
        self.chain_dirty = true;
        Ok(())
    }
}
