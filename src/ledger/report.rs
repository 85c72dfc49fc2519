//! What a slot block did to masternodes: who attested and was seen, what was earned and paid. Made beside the verdict, for
//! reports; nothing of it is hashed or judged.

use crate::base::time::WallMs;
use crate::ledger::registry::Registry;
use crate::types::amount::Amount;
use crate::types::ids::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// It had power in the set that decided the slot block.
pub const MARK_VOTING: u8 = 1;
/// It was seen by attesters with more than a third of the power (M5).
pub const MARK_ACTIVE: u8 = 2;
/// It shared in the reward (M6).
pub const MARK_EARNED: u8 = 4;

/// Money that a slot block's coinbase paid to a masternode's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// Position in the order of the slot.
    pub position: u32,
    /// Rewards.
    pub rewards: Amount,
    /// Collateral that returned: the entry has ended.
    pub collateral: Amount,
}

/// A slot block, with positions in the registry order of its base (M3).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotFigures {
    /// Its number.
    pub index: SlotIndex,
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: WallMs,
    /// The slot that its attestations are about.
    pub slot: Slot,
    /// Whether the slot is attested (M4).
    pub attested: bool,
    /// What was newly issued.
    pub issued: Amount,
    /// What was shared: the issue and the pot of the parent.
    pub shared: Amount,
    /// Power of those who shared it.
    pub power: Power,
    /// Marks of every entry, by position.
    pub marks: Vec<u8>,
    /// What was paid out, ascending position.
    pub paid: Vec<Paid>,
}

/// The registry that a slot's positions index: ids ascending, with the power of their collateral.
pub type SlotOrder = Vec<(MasternodeId, Power)>;

/// A slot block as reports see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotOutcome {
    /// Figures.
    pub figures: SlotFigures,
    /// Whom the positions mean.
    pub order: Arc<SlotOrder>,
}

/// The order of a registry.
pub fn order_of(registry: &Registry) -> SlotOrder {
    let entries = registry.entries().iter();
    entries.map(|e| (e.id, e.power())).collect()
}

impl SlotOutcome {
    /// The position of a masternode.
    pub fn position(&self, id: &MasternodeId) -> Option<usize> {
        self.order.binary_search_by(|(i, _)| i.cmp(id)).ok()
    }
    /// Marks of a position; none for one that is not there.
    pub fn marks(&self, position: usize) -> u8 {
        self.figures.marks.get(position).copied().unwrap_or(0)
    }
    /// What a position earned: its share by power, rounded down (B5 step 5).
    pub fn earned(&self, position: usize) -> Amount {
        let earned = self.marks(position) & MARK_EARNED != 0;
        match self.order.get(position).filter(|_| earned) {
            Some((_, power)) => share(self.figures.shared, *power, self.figures.power),
            None => Amount::ZERO,
        }
    }
    /// What a position was paid.
    pub fn paid(&self, position: usize) -> Option<&Paid> {
        let paid = &self.figures.paid;
        let found = paid.binary_search_by(|p| (p.position as usize).cmp(&position));
        found.ok().map(|i| &paid[i])
    }
}

/// floor(reward * power / total): the one share that is accrued and reported.
pub fn share(reward: Amount, power: Power, total: Power) -> Amount {
    let part = u128::from(reward.0) * u128::from(power.0) / u128::from(total.0.max(1));
    Amount(u64::try_from(part).unwrap_or(u64::MAX))
}
