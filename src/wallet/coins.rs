//! The wallet's coins in memory: which are there, which may be spent now, what they sum to. Rebuilt from the ledger or from
//! a snapshot; changed by decided blocks and by the wallet's own pending transactions.
//!
//! A coin is *confirmed* when a decided block made it, *unconfirmed* when a pending transaction of ours did (our change), or a
//! decided block that an open fork may take back.
//! It is free unless a pending transaction reserves it or the user holds it (lockunspent).

use crate::types::amount::Amount;
use crate::types::ids::{Height, OutPoint, Txid};
use crate::types::transaction::TxOutput;
use std::collections::{BTreeMap, BTreeSet};

/// Coins kept in memory (about 150 bytes each). Anyone can send us coins: further ones are counted and left on the ledger
/// until a restart or rescan finds room.
pub const COIN_COUNT_MAX: usize = 200_000;
/// Coins a user may hold (lockunspent).
pub const HELD_COUNT_MAX: usize = 10_000;

/// One coin of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnCoin {
    /// Value and program.
    pub output: TxOutput,
    /// The height that made it; `None` while its transaction is pending.
    pub height: Option<Height>,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

/// The coins.
#[derive(Debug, Default)]
pub struct CoinSet {
    coins: BTreeMap<OutPoint, OwnCoin>,
    free_confirmed: BTreeSet<(Amount, OutPoint)>,
    free_unconfirmed: BTreeSet<(Amount, OutPoint)>,
    reserved: BTreeMap<OutPoint, Txid>,
    held: BTreeSet<OutPoint>,
    untracked: u64,
    contested: Option<Height>,
}

impl CoinSet {
    /// The set of confirmed coins of a snapshot, built at once: a wallet of 100,000 coins must not delay a start.
    pub fn from_snapshot(coins: impl Iterator<Item = (OutPoint, OwnCoin)>) -> CoinSet {
        let coins: BTreeMap<OutPoint, OwnCoin> = coins.take(COIN_COUNT_MAX).collect();
        let by_value = coins.iter().map(|(o, coin)| (coin.output.value, *o));
        CoinSet {
            free_confirmed: by_value.collect(),
            coins,
            ..CoinSet::default()
        }
    }
    /// Adds a coin, or confirms one that was unconfirmed. Above [`COIN_COUNT_MAX`] it is only counted.
    pub fn add(&mut self, outpoint: OutPoint, coin: OwnCoin) {
        if self.coins.len() >= COIN_COUNT_MAX && !self.coins.contains_key(&outpoint) {
            self.untracked += 1;
            return;
        }
        self.unlist(&outpoint);
        self.coins.insert(outpoint, coin);
        self.list(&outpoint);
    }
    /// Takes out a spent coin.
    pub fn spend(&mut self, outpoint: &OutPoint) -> Option<OwnCoin> {
        self.unlist(outpoint);
        self.held.remove(outpoint);
        self.coins.remove(outpoint)
    }
    /// The coin at an outpoint.
    pub fn get(&self, outpoint: &OutPoint) -> Option<&OwnCoin> {
        self.coins.get(outpoint)
    }
    /// All coins that no pending transaction reserves, ascending by outpoint.
    pub fn unreserved(&self) -> impl Iterator<Item = (&OutPoint, &OwnCoin)> {
        let free = |(outpoint, _): &(&OutPoint, &OwnCoin)| !self.reserved.contains_key(outpoint);
        self.coins.iter().filter(free)
    }
    /// All coins of decided blocks, reserved ones too: what the ledger holds for us.
    pub fn on_ledger(&self) -> impl Iterator<Item = (&OutPoint, &OwnCoin)> {
        self.coins.iter().filter(|(_, coin)| coin.height.is_some())
    }
    /// Confirmed coins that may be spent, by value.
    pub fn free_confirmed(&self) -> &BTreeSet<(Amount, OutPoint)> {
        &self.free_confirmed
    }
    /// Our unconfirmed change that may be spent, by value.
    pub fn free_unconfirmed(&self) -> &BTreeSet<(Amount, OutPoint)> {
        &self.free_unconfirmed
    }
    /// Reserves an outpoint (ours or not) for a pending transaction.
    pub fn reserve(&mut self, outpoint: OutPoint, by: Txid) {
        self.unlist(&outpoint);
        self.reserved.insert(outpoint, by);
    }
    /// Ends a reservation; tells whose it was.
    pub fn release(&mut self, outpoint: &OutPoint) -> Option<Txid> {
        let by = self.reserved.remove(outpoint);
        self.list(outpoint);
        by
    }
    /// The pending transaction that reserves an outpoint.
    pub fn reserved_by(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.reserved.get(outpoint).copied()
    }
    /// Holds a coin back from selection, or lets it go. False above [`HELD_COUNT_MAX`].
    pub fn hold(&mut self, outpoint: OutPoint, hold: bool) -> bool {
        if hold && self.held.len() >= HELD_COUNT_MAX {
            return false;
        }
        self.unlist(&outpoint);
        if hold {
            self.held.insert(outpoint);
        } else {
            self.held.remove(&outpoint);
        }
        self.list(&outpoint);
        true
    }
    /// From this height on a fork that is open may take blocks back (B6): their coins count as unconfirmed.
    pub fn contest(&mut self, from: Option<Height>) {
        if self.contested == from {
            return;
        }
        self.contested = from;
        let all: Vec<OutPoint> = self.coins.keys().copied().collect();
        for outpoint in all {
            self.unlist(&outpoint);
            self.list(&outpoint);
        }
    }
    /// What the user holds.
    pub fn held(&self) -> &BTreeSet<OutPoint> {
        &self.held
    }
    /// Number of coins in memory.
    pub fn len(&self) -> usize {
        self.coins.len()
    }
    /// Coins left out because there was no room.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }
    /// Forgets every coin and reservation; keeps what the user holds.
    pub fn clear(&mut self) {
        let held = std::mem::take(&mut self.held);
        *self = CoinSet {
            held,
            contested: self.contested,
            ..CoinSet::default()
        };
    }
    /// Unreserved money: confirmed, unconfirmed.
    pub fn totals(&self) -> (Amount, Amount) {
        let held = self.held.iter().filter_map(|o| {
            let coin = self.coins.get(o)?;
            (!self.reserved.contains_key(o)).then_some(*coin)
        });
        let mut sums = [sum(&self.free_confirmed), sum(&self.free_unconfirmed)];
        for coin in held {
            sums[usize::from(!self.is_settled(&coin))] += u128::from(coin.output.value.0);
        }
        let [confirmed, unconfirmed] = sums.map(|s| Amount(u64::try_from(s).unwrap_or(u64::MAX)));
        (confirmed, unconfirmed)
    }

    fn is_free(&self, outpoint: &OutPoint) -> bool {
        !self.reserved.contains_key(outpoint) && !self.held.contains(outpoint)
    }
    fn unlist(&mut self, outpoint: &OutPoint) {
        if let Some(coin) = self.coins.get(outpoint) {
            let entry = (coin.output.value, *outpoint);
            self.free_confirmed.remove(&entry);
            self.free_unconfirmed.remove(&entry);
        }
    }
    fn list(&mut self, outpoint: &OutPoint) {
        let Some(coin) = self.coins.get(outpoint) else {
            return;
        };
        if !self.is_free(outpoint) {
            return;
        }
        let entry = (coin.output.value, *outpoint);
        match self.is_settled(coin) {
            true => self.free_confirmed.insert(entry),
            false => self.free_unconfirmed.insert(entry),
        };
    }
    fn is_settled(&self, coin: &OwnCoin) -> bool {
        let contested = |height| self.contested.is_some_and(|from| height >= from);
        coin.height.is_some_and(|height| !contested(height))
    }
}

fn sum(coins: &BTreeSet<(Amount, OutPoint)>) -> u128 {
    coins.iter().map(|(value, _)| u128::from(value.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::types::address::Program;

    fn at(vout: u32) -> OutPoint {
        OutPoint {
            txid: Txid::default(),
            vout,
        }
    }
    fn coin(value: u64, height: Option<u64>) -> OwnCoin {
        OwnCoin {
            output: TxOutput {
                value: Amount(value),
                program: Program::Policy(Hash::ZERO),
            },
            height: height.map(Height),
            coinbase: false,
        }
    }

    #[test]
    fn reserved_and_held_coins_are_not_free() {
        let mut set = CoinSet::default();
        set.add(at(0), coin(5, Some(1)));
        set.add(at(1), coin(7, None));
        assert_eq!(set.totals(), (Amount(5), Amount(7)));
        set.reserve(at(0), Txid::default());
        assert!(set.free_confirmed().is_empty());
        assert_eq!(
            set.totals(),
            (Amount(0), Amount(7)),
            "reserved money is as good as spent"
        );
        assert!(set.hold(at(1), true));
        assert!(set.free_unconfirmed().is_empty());
        assert_eq!(
            set.totals(),
            (Amount(0), Amount(7)),
            "held money is still ours"
        );
        assert_eq!(set.release(&at(0)), Some(Txid::default()));
        assert!(set.hold(at(1), false));
        assert_eq!(
            (set.free_confirmed().len(), set.free_unconfirmed().len()),
            (1, 1)
        );
        set.add(at(1), coin(7, Some(2)));
        assert!(
            set.free_unconfirmed().is_empty(),
            "a decided block confirms change"
        );
        assert_eq!(set.totals(), (Amount(12), Amount(0)));
        assert!(set.spend(&at(1)).is_some() && set.spend(&at(1)).is_none());
        assert_eq!(set.free_confirmed().len(), 1);
    }
}
