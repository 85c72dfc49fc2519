//! Transactions that wait for a parent (B2: 100 entries, 1 MB, 60 s; at the bound the oldest goes). Only their form has
//! been checked: nothing here is relayed or proposed.

use super::Source;
use crate::base::limits::{ORPHAN_BYTES_MAX, ORPHAN_COUNT_MAX, ORPHAN_EXPIRY_MS};
use crate::base::time::MonoUs;
use crate::types::ids::{Txid, Wtxid};
use crate::types::transaction::Tx;
use std::collections::{BTreeMap, BTreeSet};

struct Orphan {
    tx: Tx,
    source: Source,
    parents: BTreeSet<Txid>,
    expires: MonoUs,
}

/// The waiting transactions, oldest first.
#[derive(Default)]
pub(super) struct Orphans {
    next: u64,
    bytes: usize,
    waiting: BTreeMap<u64, Orphan>,
    by_wtxid: BTreeMap<Wtxid, u64>,
    by_parent: BTreeMap<Txid, BTreeSet<u64>>,
}

impl Orphans {
    pub(super) fn contains(&self, wtxid: &Wtxid) -> bool {
        self.by_wtxid.contains_key(wtxid)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps `tx` until one of `parents` is known; makes room by dropping the oldest.
    pub(super) fn insert(&mut self, now: MonoUs, tx: &Tx, source: Source, parents: BTreeSet<Txid>) {
        if self.contains(&tx.wtxid) || tx.size > ORPHAN_BYTES_MAX {
            return;
        }
        while self.waiting.len() >= ORPHAN_COUNT_MAX || self.bytes + tx.size > ORPHAN_BYTES_MAX {
            let Some(oldest) = self.waiting.keys().next().copied() else {
                break;
            };
            self.remove(oldest);
        }
        let key = self.next;
        self.next += 1;
        for parent in &parents {
            self.by_parent.entry(*parent).or_default().insert(key);
        }
        self.by_wtxid.insert(tx.wtxid, key);
        self.bytes += tx.size;
        let expires = now.plus_ms(ORPHAN_EXPIRY_MS);
        self.waiting.insert(
            key,
            Orphan {
                tx: tx.clone(),
                source,
                parents,
                expires,
            },
        );
    }

    fn remove(&mut self, key: u64) -> Option<(Tx, Source)> {
        let orphan = self.waiting.remove(&key)?;
        self.by_wtxid.remove(&orphan.tx.wtxid);
        self.bytes -= orphan.tx.size;
        for parent in &orphan.parents {
            if let Some(keys) = self.by_parent.get_mut(parent) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_parent.remove(parent);
                }
            }
        }
        Some((orphan.tx, orphan.source))
    }

    /// Takes out those that waited for `parent`, to be considered again.
    pub(super) fn children_of(&mut self, parent: &Txid) -> Vec<(Tx, Source)> {
        let keys = self.by_parent.get(parent).cloned().unwrap_or_default();
        keys.into_iter().filter_map(|k| self.remove(k)).collect()
    }

    /// Forgets one that is decided or admitted by now.
    pub(super) fn forget(&mut self, wtxid: &Wtxid) {
        if let Some(key) = self.by_wtxid.get(wtxid).copied() {
            self.remove(key);
        }
    }

    /// When the oldest has waited long enough. All wait equally long, so the oldest is the first to expire.
    pub(super) fn next_expiry(&self) -> Option<MonoUs> {
        self.waiting.values().next().map(|orphan| orphan.expires)
    }

    pub(super) fn expire(&mut self, now: MonoUs) {
        while let Some((key, orphan)) = self.waiting.iter().next() {
            if orphan.expires > now {
                return;
            }
            let key = *key;
            self.remove(key);
        }
    }
}
