//! The slot_index table (M3) and the upgrade counter (L15): which height began each slot block that evidence may still
//! reach back to, and how far the adoption of the next rule set is.

use crate::crypto::hash::{Domain, Hash};
use crate::types::codec;
use crate::types::ids::*;
use crate::types::params::Params;
use serde::{Deserialize, Serialize};

/// A slot block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Its number.
    pub index: SlotIndex,
    /// Its height: the first of this slot_index.
    pub first: Height,
}

/// Progress towards the next branch (L15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Upgrade {
    /// Consecutive attested slot blocks with support of more than 5/6.
    pub count: u64,
    /// Slot block after which the next branch is in force, once adopted.
    pub activation: Option<SlotIndex>,
}

/// Slot blocks inside `unbonding`, oldest first, at most unbonding + 1 records; and the upgrade counter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotTable {
    /// The records; the last is the latest slot block.
    pub records: Vec<SlotRecord>,
    /// The upgrade counter.
    pub upgrade: Upgrade,
}

impl SlotTable {
    /// Genesis counts as slot block 0 (L14).
    pub fn genesis() -> SlotTable {
        SlotTable {
            records: vec![SlotRecord {
                index: SlotIndex(0),
                first: Height(0),
            }],
            upgrade: Upgrade::default(),
        }
    }
    /// The number of the latest slot block.
    pub fn slot_index(&self) -> SlotIndex {
        self.records.last().map_or(SlotIndex(0), |r| r.index)
    }
    /// First height that evidence may be about.
    pub fn oldest(&self) -> Height {
        self.records.first().map_or(Height(0), |r| r.first)
    }
    /// B5 step 1: the slot block at `height` begins the next slot_index; records older than unbonding go.
    pub fn open(&mut self, height: Height, params: &Params) -> SlotIndex {
        let index = self.slot_index().next();
        self.records.push(SlotRecord {
            index,
            first: height,
        });
        self.records
            .retain(|r| r.index.0.saturating_add(params.unbonding) >= index.0);
        index
    }
    /// L15 at an attested slot block: `supported` says whether more than 5/6 attested support of the next branch.
    pub fn count_support(&mut self, supported: bool, params: &Params) {
        if self.upgrade.activation.is_some() {
            return;
        }
        self.upgrade.count = if supported { self.upgrade.count + 1 } else { 0 };
        if self.upgrade.count >= params.upgrade_window {
            let at = self.slot_index().0.saturating_add(params.upgrade_delay);
            self.upgrade = Upgrade {
                count: 0,
                activation: Some(SlotIndex(at)),
            };
        }
    }
    /// L15 at the end of every slot block: the branch in force at the next height.
    pub fn branch_after(&mut self, branch: Branch) -> Branch {
        match self.upgrade.activation {
            Some(at) if at <= self.slot_index() => {
                self.upgrade.activation = None;
                branch.next()
            }
            _ => branch,
        }
    }
    /// The leaf of `state_root` (L11).
    pub fn hash(&self) -> Hash {
        codec::hash_of(Domain::SlotTable, self)
    }
}

/// slot(t) = floor(t / slot_ms) (S4).
pub fn slot_of(time: crate::base::time::WallMs, params: &Params) -> Slot {
    Slot(time.0 / params.slot_ms.max(1))
}
