//! The masternode registry (M1-M5): who has locked collateral, under which keys, and what became of them. A pure function
//! of the chain, hashed into `state_root` (M3). Entries change at slot blocks only.

use crate::base::limits::POWER_MAX;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::PublicKey;
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::{Endpoint, TxOutput};
use crate::types::validators::{Validator, ValidatorSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An operator key that was replaced and is still punishable. All entries together hold at most
/// REGISTRY_TX_COUNT_MAX * (unbonding + 1) of them: each needs an Update, and each is dropped after unbonding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerOperator {
    /// The key.
    pub key: PublicKey,
    /// Last height at which it signed for the entry.
    pub until: Height,
    /// Slot block that replaced it.
    pub replaced: SlotIndex,
}

/// What an entry may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Power 0 until it has been present long enough; new registrations start here (M5).
    Jailed {
        /// Slot block that jailed or registered it.
        since: SlotIndex,
    },
    /// Not jailed, but the set is full: power 0.
    StandBy,
    /// Member of the set that decides the next height.
    Voting,
    /// Left or slashed: power 0 for good; collateral is released `unbonding` slot blocks after `exit`.
    Gone {
        /// Slot block at which the power went.
        exit: SlotIndex,
    },
}

/// One registered masternode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name (M1).
    pub id: MasternodeId,
    /// Cold key.
    pub owner: PublicKey,
    /// Hot key, in force from the next height.
    pub operator: PublicKey,
    /// Replaced hot keys that can still be punished, oldest first.
    pub former_operators: Vec<FormerOperator>,
    /// Where rewards go.
    pub payout: Program,
    /// Where the node is reached.
    pub endpoint: Endpoint,
    /// Slot block that named the endpoint (M4: reached since it was last named).
    pub endpoint_named: SlotIndex,
    /// Collateral as registered, and the program it returns to.
    pub collateral: TxOutput,
    /// Part of the collateral that was burned (M7).
    pub burned: Amount,
    /// Rewards earned and not yet paid.
    pub accrued: Amount,
    /// Slot block of the registration.
    pub registered: SlotIndex,
    /// Attested slot blocks present without a break.
    pub present: u64,
    /// Attested slot blocks absent without a break.
    pub absent: u64,
    /// What it may do.
    pub standing: Standing,
    /// Whether its power counts in T (M5): it has had power and does not stand by.
    pub counts: bool,
    /// Slot block since which it waits to get power.
    pub queued: Option<SlotIndex>,
    /// Slot block at which it asked to leave or was expelled.
    pub leaving: Option<SlotIndex>,
    /// Slot block that held the evidence against it.
    pub slashed: Option<SlotIndex>,
}

impl Entry {
    /// Voting power of its original collateral, whether or not it may use it (M1).
    pub fn power(&self) -> Power {
        Power(self.collateral.value.whole_time().min(POWER_MAX))
    }
    /// What is left of the collateral.
    pub fn locked(&self) -> Amount {
        Amount(self.collateral.value.0.saturating_sub(self.burned.0))
    }
    /// Whether it has power at the next height.
    pub fn is_voting(&self) -> bool {
        self.standing == Standing::Voting
    }
    /// Whether it is on its way out or out, by wish, expulsion or evidence.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
            || self.slashed.is_some()
            || matches!(self.standing, Standing::Gone { .. })
    }
    /// Whether its operator key stands for a masternode among peers (P1): it has its collateral behind it, voting or not,
    /// until evidence takes that.
    pub fn is_backed(&self) -> bool {
        self.slashed.is_none()
    }
    /// Whether `key` is one of its keys, now or while punishable (M1).
    pub fn has_key(&self, key: &PublicKey) -> bool {
        self.owner == *key
            || self.operator == *key
            || self.former_operators.iter().any(|f| f.key == *key)
    }
    /// Whether `key` signs for it, or did while that can still be punished.
    pub fn is_operator(&self, key: &PublicKey) -> bool {
        self.operator == *key || self.former_operators.iter().any(|f| f.key == *key)
    }
    /// The operator key in force at `height`, as far as it is still punishable.
    pub fn operator_at(&self, height: Height) -> PublicKey {
        let former = self.former_operators.iter().find(|f| height <= f.until);
        former.map_or(self.operator, |f| f.key)
    }
}

/// All entries, ascending id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// The masternodes of a genesis: power, not jailed, counters 0 (L14).
    pub fn genesis(genesis: &Genesis) -> Registry {
        let mut entries: Vec<Entry> = genesis
            .masternodes
            .iter()
            .map(|m| Entry {
                id: m.id(),
                owner: m.owner,
                operator: m.operator,
                former_operators: Vec::new(),
                payout: m.payout,
                endpoint: m.endpoint.clone(),
                endpoint_named: SlotIndex(0),
                collateral: m.collateral,
                burned: Amount::ZERO,
                accrued: Amount::ZERO,
                registered: SlotIndex(0),
                present: 0,
                absent: 0,
                standing: Standing::Voting,
                counts: true,
                queued: None,
                leaving: None,
                slashed: None,
            })
            .collect();
        entries.sort_by_key(|e| e.id);
        Registry { entries }
    }
    /// The entries, ascending id; bitmaps of attestations index this list.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Position of an entry.
    pub fn index_of(&self, id: &MasternodeId) -> Option<usize> {
        self.entries.binary_search_by(|e| e.id.cmp(id)).ok()
    }
    /// An entry by id.
    pub fn get(&self, id: &MasternodeId) -> Option<&Entry> {
        self.index_of(id).map(|i| &self.entries[i])
    }
    /// The entry that one of its keys belongs to.
    pub fn by_key(&self, key: &PublicKey) -> Option<&Entry> {
        self.entries.iter().find(|e| e.has_key(key))
    }
    /// The entries, to change in place; ids must stay as they are.
    pub fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }
    /// An entry by id, to change in place; its id must stay as it is.
    pub fn get_mut(&mut self, id: &MasternodeId) -> Option<&mut Entry> {
        self.index_of(id).map(|i| &mut self.entries[i])
    }
    /// Adds an entry at its place; one of equal id is replaced, which a txid never is.
    pub fn insert(&mut self, entry: Entry) {
        match self.entries.binary_search_by(|e| e.id.cmp(&entry.id)) {
            Ok(i) => self.entries[i] = entry,
            Err(i) => self.entries.insert(i, entry),
        }
    }
    /// Drops every entry that `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
    }
    /// The leaf of `state_root` that stands for the entries (L11).
    pub fn hash(&self) -> Hash {
        codec::hash_of(Domain::Registry, &self.entries)
    }
    /// Collateral that is still locked and rewards that are still owed, `None` on overflow (L10).
    pub fn held(&self) -> Option<Amount> {
        let parts = self.entries.iter().flat_map(|e| [e.locked(), e.accrued]);
        Amount::sum(parts)
    }
    /// The set of the next height: all entries that vote.
    pub fn validators(&self) -> ValidatorSet {
        let members = self.entries.iter().filter(|e| e.is_voting());
        let members: Vec<Validator> = members
            .map(|e| Validator {
                id: e.id,
                operator: e.operator,
                power: e.power(),
            })
            .collect();
        ValidatorSet::new(members)
            .expect("PROOF: ascending by id; power 1..2^40 and at most max_validators by M1 and M5")
    }
}

/// A registry with its hash, kept together because both change at slot blocks only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRegistry {
    /// The entries.
    pub registry: Arc<Registry>,
    /// [`Registry::hash`] of them.
    pub hash: Hash,
    /// [`Registry::held`] of them.
    pub held: Amount,
}

impl SealedRegistry {
    /// Seals a registry; `None` if its amounts overflow.
    pub fn new(registry: Registry) -> Option<SealedRegistry> {
        Some(SealedRegistry {
            hash: registry.hash(),
            held: registry.held()?,
            registry: Arc::new(registry),
        })
    }
}
