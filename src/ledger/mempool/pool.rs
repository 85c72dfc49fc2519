//! The transactions themselves, their links and their orders. Knows nothing of coins or validity: the caller admits only
//! what may be admitted, and this module keeps every index true.
//!
//! Entries are named by arrival number, so "older first" is the order of the keys. Two aggregates are kept per entry: fee
//! and size with all unconfirmed ancestors (order of selection, depth bound) and with all descendants (order of eviction).
//! An admission or removal touches the ancestors of the entry, at most 25, never the whole pool.

use super::rate::FeeRate;
use super::{Refusal, Source};
use crate::base::limits::{ANCESTOR_BYTES_MAX, ANCESTOR_COUNT_MAX};
use crate::base::time::{MonoUs, WallMs};
use crate::types::ids::{OutPoint, Txid, Wtxid};
use crate::types::transaction::Tx;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What the pool needs to know of a new transaction.
pub(super) struct NewEntry {
    pub(super) tx: Tx,
    pub(super) fee: u64,
    pub(super) sigchecks: usize,
    pub(super) source: Source,
    pub(super) added: WallMs,
    pub(super) expires: MonoUs,
}

/// A transaction of the pool.
pub(super) struct Entry {
    pub(super) tx: Tx,
    pub(super) sigchecks: usize,
    pub(super) source: Source,
    pub(super) added: WallMs,
    expires: MonoUs,
    pub(super) parents: BTreeSet<u64>,
    children: BTreeSet<u64>,
    own: FeeRate,
    with_ancestors: FeeRate,
    with_descendants: FeeRate,
    /// It or an unconfirmed ancestor is a registry transaction: only a slot block can hold it (L5).
    pub(super) slot_only: bool,
}

impl Entry {
    pub(super) fn own(&self) -> FeeRate {
        self.own
    }
    /// What a block earns per byte by taking it: a rich child pays for its ancestors, a rich ancestor not for its child.
    fn worth(&self) -> FeeRate {
        self.own.min(self.with_ancestors)
    }
    /// What keeps it: its own rate, or that of all that would go with it.
    fn hold(&self) -> FeeRate {
        self.own.max(self.with_descendants)
    }
}

/// Count and bytes of what one peer placed.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct Pool {
    next: u64,
    bytes: usize,
    slot_only: usize,
    entries: BTreeMap<u64, Entry>,
    txids: BTreeMap<Txid, u64>,
    wtxids: BTreeMap<Wtxid, u64>,
    reserved: BTreeMap<OutPoint, u64>,
    best: BTreeSet<(Reverse<FeeRate>, u64)>,
    worst: BTreeSet<(FeeRate, Reverse<u64>)>,
    worst_of_peer: BTreeSet<(u64, FeeRate, Reverse<u64>)>,
    expiries: BTreeSet<(MonoUs, u64)>,
    shares: BTreeMap<u64, Share>,
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    /// Transactions that any block may hold.
    pub(super) fn plain_len(&self) -> usize {
        self.entries.len() - self.slot_only
    }
    pub(super) fn entry(&self, key: u64) -> Option<&Entry> {
        self.entries.get(&key)
    }
    pub(super) fn key_of(&self, txid: &Txid) -> Option<u64> {
        self.txids.get(txid).copied()
    }
    pub(super) fn by_txid(&self, txid: &Txid) -> Option<&Entry> {
        self.txids.get(txid).and_then(|key| self.entries.get(key))
    }
    pub(super) fn by_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.wtxids.get(wtxid).and_then(|key| self.entries.get(key))
    }
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<u64> {
        self.reserved.get(outpoint).copied()
    }
    /// All, oldest first: parents before children.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }
    pub(super) fn keys(&self) -> BTreeSet<u64> {
        self.entries.keys().copied().collect()
    }
    /// All, the most worth to a block first, then the oldest.
    pub(super) fn best_first(&self) -> impl Iterator<Item = u64> + '_ {
        self.best.iter().map(|(_, key)| *key)
    }
    /// What goes first when there is no room: lowest rate, newest first.
    pub(super) fn worst(&self) -> Option<u64> {
        self.worst.first().map(|(_, Reverse(key))| *key)
    }
    /// The same among what `peer` placed.
    pub(super) fn worst_of(&self, peer: u64) -> Option<u64> {
        let least = (peer, FeeRate { fee: 0, size: 1 }, Reverse(u64::MAX));
        let first = self.worst_of_peer.range(least..).next();
        first
            .filter(|(p, _, _)| *p == peer)
            .map(|(_, _, Reverse(key))| *key)
    }
    pub(super) fn share(&self, peer: u64) -> Share {
        self.shares.get(&peer).copied().unwrap_or_default()
    }
    pub(super) fn next_expiry(&self) -> Option<MonoUs> {
        self.expiries.first().map(|(at, _)| *at)
    }
    /// One that has expired at `now`.
    pub(super) fn expired(&self, now: MonoUs) -> Option<u64> {
        let first = self.expiries.first();
        first.filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    /// The unconfirmed ancestors that a transaction would have, if they are within the bounds of B2.
    pub(super) fn ancestors_of(&self, tx: &Tx) -> Result<BTreeSet<u64>, Refusal> {
        let mut open: Vec<u64> = self.parents_of(tx).into_iter().collect();
        let mut found = BTreeSet::new();
        let mut bytes = tx.size;
        while let Some(key) = open.pop() {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            if !found.insert(key) {
                continue;
            }
            bytes += entry.tx.size;
            if found.len() > ANCESTOR_COUNT_MAX || bytes > ANCESTOR_BYTES_MAX {
                return Err(Refusal::TooDeep);
            }
            open.extend(&entry.parents);
        }
        Ok(found)
    }

    fn parents_of(&self, tx: &Tx) -> BTreeSet<u64> {
        let inputs = tx.body().inputs.iter();
        inputs
            .filter_map(|input| self.txids.get(&input.txid).copied())
            .collect()
    }

    fn ancestors(&self, key: u64) -> BTreeSet<u64> {
        self.closure(key, |entry| &entry.parents)
    }

    /// An entry and everything that spends from it, directly or not.
    pub(super) fn family(&self, key: u64) -> BTreeSet<u64> {
        let mut family = self.closure(key, |entry| &entry.children);
        family.insert(key);
        family
    }

    fn closure(&self, key: u64, next: impl Fn(&Entry) -> &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut open = vec![key];
        while let Some(at) = open.pop() {
            let Some(entry) = self.entries.get(&at) else {
                continue;
            };
            open.extend(next(entry).iter().filter(|k| found.insert(**k)));
        }
        found
    }

    fn index(&mut self, key: u64) {
        let Some(entry) = self.entries.get(&key) else {
            return;
        };
        self.best.insert((Reverse(entry.worth()), key));
        self.worst.insert((entry.hold(), Reverse(key)));
        if let Source::Peer(peer) = entry.source {
            self.worst_of_peer
                .insert((peer, entry.hold(), Reverse(key)));
        }
    }

    fn unindex(&mut self, key: u64) {
        let Some(entry) = self.entries.get(&key) else {
            return;
        };
        self.best.remove(&(Reverse(entry.worth()), key));
        self.worst.remove(&(entry.hold(), Reverse(key)));
        if let Source::Peer(peer) = entry.source {
            self.worst_of_peer
                .remove(&(peer, entry.hold(), Reverse(key)));
        }
    }

    /// Changes the aggregates of an entry with its indexes following.
    fn change(&mut self, key: u64, change: impl FnOnce(&mut Entry)) {
        self.unindex(key);
        if let Some(entry) = self.entries.get_mut(&key) {
            change(entry);
        }
        self.index(key);
    }

    /// Adds a transaction. The caller has checked that it conflicts with none and that `ancestors` is the result of
    /// [`Pool::ancestors_of`] on the pool as it is.
    pub(super) fn insert(&mut self, new: NewEntry, ancestors: &BTreeSet<u64>) -> u64 {
        let key = self.next;
        self.next += 1;
        let tx = new.tx;
        let own = FeeRate {
            fee: new.fee,
            size: tx.size as u64,
        };
        let known = ancestors.iter().filter_map(|a| self.entries.get(a));
        let mut with_ancestors = own;
        let mut slot_only = tx.body().kind.is_registry();
        for ancestor in known {
            with_ancestors = with_ancestors.with(ancestor.own);
            slot_only |= ancestor.slot_only;
        }
        let parents = self.parents_of(&tx);
        for parent in &parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.insert(key);
            }
        }
        for ancestor in ancestors {
            self.change(*ancestor, |e| {
                e.with_descendants = e.with_descendants.with(own)
            });
        }
        for input in tx.body().inputs.iter() {
            let before = self.reserved.insert(*input, key);
            debug_assert!(before.is_none(), "section 5: one spender per outpoint");
        }
        self.txids.insert(tx.txid, key);
        self.wtxids.insert(tx.wtxid, key);
        self.expiries.insert((new.expires, key));
        self.bytes += tx.size;
        self.slot_only += usize::from(slot_only);
        if let Source::Peer(peer) = new.source {
            let share = self.shares.entry(peer).or_default();
            share.count += 1;
            share.bytes += tx.size;
        }
        self.entries.insert(
            key,
            Entry {
                tx,
                sigchecks: new.sigchecks,
                source: new.source,
                added: new.added,
                expires: new.expires,
                parents,
                children: BTreeSet::new(),
                own,
                with_ancestors,
                with_descendants: own,
                slot_only,
            },
        );
        self.index(key);
        key
    }

    /// Takes entries out, oldest first. Children that stay lose them as ancestors.
    pub(super) fn remove(&mut self, keys: &BTreeSet<u64>) -> Vec<Tx> {
        for key in keys {
            let Some(own) = self.entries.get(key).map(|entry| entry.own) else {
                continue;
            };
            for ancestor in self.ancestors(*key).difference(keys) {
                self.change(*ancestor, |e| {
                    e.with_descendants = e.with_descendants.without(own)
                });
            }
        }
        let mut children = BTreeSet::new();
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(entry) = self.unlink(*key) {
                children.extend(entry.children.difference(keys));
                removed.push(entry.tx);
            }
        }
        let mut below = BTreeSet::new();
        for child in children {
            if !below.contains(&child) {
                below.extend(self.family(child));
            }
        }
        // Oldest first: what a child takes over from its parents is already right.
        for key in below {
            self.refresh(key);
        }
        removed
    }

    fn unlink(&mut self, key: u64) -> Option<Entry> {
        self.unindex(key);
        let entry = self.entries.remove(&key)?;
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(&key);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(&key);
            }
        }
        for input in entry.tx.body().inputs.iter() {
            self.reserved.remove(input);
        }
        self.txids.remove(&entry.tx.txid);
        self.wtxids.remove(&entry.tx.wtxid);
        self.expiries.remove(&(entry.expires, key));
        self.bytes -= entry.tx.size;
        self.slot_only -= usize::from(entry.slot_only);
        if let Source::Peer(peer) = entry.source
            && let Some(share) = self.shares.get_mut(&peer)
        {
            share.count -= 1;
            share.bytes -= entry.tx.size;
            if share.count == 0 {
                self.shares.remove(&peer);
            }
        }
        Some(entry)
    }

    /// Recomputes what an entry has from its ancestors after some of them have left.
    fn refresh(&mut self, key: u64) {
        let Some(entry) = self.entries.get(&key) else {
            return;
        };
        let (mut package, was) = (entry.own, entry.slot_only);
        let mut slot_only = entry.tx.body().kind.is_registry();
        for ancestor in self.ancestors(key) {
            if let Some(ancestor) = self.entries.get(&ancestor) {
                package = package.with(ancestor.own);
                slot_only |= ancestor.tx.body().kind.is_registry();
            }
        }
        self.slot_only = self.slot_only + usize::from(slot_only) - usize::from(was);
        self.change(key, |e| {
            e.with_ancestors = package;
            e.slot_only = slot_only;
        });
    }
}

#[cfg(test)]
impl Pool {
    /// Recomputes every index and aggregate from the entries and compares.
    pub(super) fn assert_true(&self) {
        let mut shares: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let mut inputs = 0;
        for (key, entry) in &self.entries {
            let sum = |keys: BTreeSet<u64>| {
                keys.iter()
                    .fold(entry.own, |sum, k| sum.with(self.entries[k].own))
            };
            let exact = |a: FeeRate, b: FeeRate| (a.fee, a.size) == (b.fee, b.size);
            assert!(exact(entry.with_ancestors, sum(self.ancestors(*key))));
            let below = self.closure(*key, |e| &e.children);
            assert!(exact(entry.with_descendants, sum(below)));
            assert_eq!(entry.parents, self.parents_of(&entry.tx), "links");
            assert!(entry.parents.iter().all(|p| p < key), "parents are older");
            let slot_only = |e: &Entry| e.tx.body().kind.is_registry();
            let above = self.ancestors(*key);
            let expected = slot_only(entry) || above.iter().any(|a| slot_only(&self.entries[a]));
            assert_eq!(entry.slot_only, expected);
            assert!(self.best.contains(&(Reverse(entry.worth()), *key)));
            assert!(self.worst.contains(&(entry.hold(), Reverse(*key))));
            assert!(self.expiries.contains(&(entry.expires, *key)));
            assert_eq!(self.txids.get(&entry.tx.txid), Some(key));
            assert_eq!(self.wtxids.get(&entry.tx.wtxid), Some(key));
            for input in entry.tx.body().inputs.iter() {
                assert_eq!(self.reserved.get(input), Some(key), "one spender");
                inputs += 1;
            }
            if let Source::Peer(peer) = entry.source {
                let share = shares.entry(peer).or_default();
                *share = (share.0 + 1, share.1 + entry.tx.size);
                let at = (peer, entry.hold(), Reverse(*key));
                assert!(self.worst_of_peer.contains(&at));
            }
            assert!(above.len() <= ANCESTOR_COUNT_MAX, "B2: ancestors");
            assert!(entry.with_ancestors.size <= ANCESTOR_BYTES_MAX as u64);
        }
        let n = self.entries.len();
        let lens = [
            self.best.len(),
            self.worst.len(),
            self.expiries.len(),
            self.txids.len(),
            self.wtxids.len(),
        ];
        assert_eq!(lens, [n; 5], "no index keeps what has left");
        assert_eq!(self.reserved.len(), inputs);
        let placed: usize = shares.values().map(|(count, _)| count).sum();
        assert_eq!(self.worst_of_peer.len(), placed);
        let kept: BTreeMap<u64, (usize, usize)> = self
            .shares
            .iter()
            .map(|(peer, share)| (*peer, (share.count, share.bytes)))
            .collect();
        assert_eq!(kept, shares);
        let bytes: usize = self.entries.values().map(|e| e.tx.size).sum();
        assert_eq!(self.bytes, bytes);
        let slot_only = self.entries.values().filter(|e| e.slot_only).count();
        assert_eq!(self.slot_only, slot_only);
    }
}
