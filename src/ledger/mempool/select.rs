//! What a proposal takes from the mempool, and how a proposal received is filled from it (S8).

use super::Mempool;
use super::pool::Pool;
use crate::types::block::short_id;
use crate::types::ids::{BlockId, Height, Round};
use crate::types::transaction::Tx;
use std::collections::{BTreeMap, BTreeSet};

/// Room of a block for transactions of the mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// Bytes with witnesses.
    pub bytes: usize,
    /// Transactions.
    pub count: usize,
    /// Signature checks.
    pub sigchecks: usize,
    /// Registry transactions: 0 in a block that is no slot block.
    pub registry: usize,
}

impl Selection {
    /// Takes `part` off; `None` if it does not fit.
    fn less(self, part: Selection) -> Option<Selection> {
        Some(Selection {
            bytes: self.bytes.checked_sub(part.bytes)?,
            count: self.count.checked_sub(part.count)?,
            sigchecks: self.sigchecks.checked_sub(part.sigchecks)?,
            registry: self.registry.checked_sub(part.registry)?,
        })
    }
}

/// After so many in a row that did not fit, the block counts as full: the search stays proportional to the block.
const MISFIT_COUNT_MAX: usize = 1_000;

/// Bytes below which no transaction fits: one input and one output take more.
const ROOM_BYTES_MIN: usize = 100;

impl Mempool {
    /// Transactions for a block: the best fee rate first, each after its unconfirmed ancestors, equal rates oldest first.
    /// A child that pays for its parents brings them with it.
    pub fn select(&self, mut room: Selection) -> Vec<Tx> {
        let mut taken = BTreeSet::new();
        let mut out = Vec::new();
        let mut misfits = 0;
        let slot_block = room.registry > 0;
        for key in self.pool.best_first() {
            if room.count == 0 || room.bytes < ROOM_BYTES_MIN || misfits >= MISFIT_COUNT_MAX {
                break;
            }
            if taken.contains(&key) {
                continue;
            }
            if !slot_block && self.pool.entry(key).is_some_and(|e| e.slot_only) {
                continue;
            }
            let package = package_of(&self.pool, key, &taken);
            match room.less(size_of(&self.pool, &package)) {
                None => misfits += 1,
                Some(less) => {
                    room = less;
                    misfits = 0;
                    let entries = package.iter().filter_map(|k| self.pool.entry(*k));
                    out.extend(entries.map(|entry| entry.tx.clone()));
                    taken.extend(package);
                }
            }
        }
        out
    }

    /// The mempool by the short ids of one proposal: `parent` and `height` of its block, `round` of the proposal.
    pub fn short_ids(&self, parent: &BlockId, height: Height, round: Round) -> ShortIds {
        let mut ids = ShortIds::default();
        for entry in self.pool.iter() {
            ids.insert(
                short_id(parent, height, round, &entry.tx.wtxid),
                entry.tx.clone(),
            );
        }
        ids
    }
}

/// An entry with its ancestors that are not taken yet. Arrival order puts parents first.
fn package_of(pool: &Pool, key: u64, taken: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut package = BTreeSet::new();
    let mut open = vec![key];
    while let Some(at) = open.pop() {
        if taken.contains(&at) || !package.insert(at) {
            continue;
        }
        if let Some(entry) = pool.entry(at) {
            open.extend(&entry.parents);
        }
    }
    package
}

fn size_of(pool: &Pool, package: &BTreeSet<u64>) -> Selection {
    let mut size = Selection {
        bytes: 0,
        count: package.len(),
        sigchecks: 0,
        registry: 0,
    };
    for entry in package.iter().filter_map(|key| pool.entry(*key)) {
        size.bytes += entry.tx.size;
        size.sigchecks += entry.sigchecks;
        size.registry += usize::from(entry.tx.body().kind.is_registry());
    }
    size
}

/// What a short id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing here has it: ask for the body.
    None,
    /// One transaction.
    One(&'a Tx),
    /// Two or more: ask for the list of names (S8).
    Several,
}

/// Transactions by short id. Made once for a proposal; other bodies that the node holds can be added.
#[derive(Debug, Default)]
pub struct ShortIds(BTreeMap<[u8; 8], Option<Tx>>);

impl ShortIds {
    /// Adds a transaction. The same one twice counts once.
    pub fn insert(&mut self, id: [u8; 8], tx: Tx) {
        match self.0.get_mut(&id) {
            None => {
                self.0.insert(id, Some(tx));
            }
            Some(found) if found.as_ref() != Some(&tx) => *found = None,
            Some(_) => {}
        }
    }
    /// Looks one up.
    pub fn get(&self, id: &[u8; 8]) -> Found<'_> {
        match self.0.get(id) {
            None => Found::None,
            Some(Some(tx)) => Found::One(tx),
            Some(None) => Found::Several,
        }
    }
}
