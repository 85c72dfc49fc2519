//! Parts of a [`NodeView`] that follow from the ledger alone, and what the whole of it says of a block.

use crate::ledger::decided::DecidedBlock;
use crate::ledger::registry::{Entry, Standing};
use crate::ledger::state::State;
use crate::rpc::node::{MasternodeView, NodeView, RecentBlock, SupplyView, Tip};
use crate::types::amount::Amount;
use crate::types::ids::{Height, MasternodeId, Power};

impl Tip {
    /// Of the state after the newest block.
    pub fn of(state: &State) -> Tip {
        Tip {
            height: state.height(),
            id: state.block(),
            time: state.tip.time,
            state_root: state.root(),
        }
    }
}

impl NodeView {
    /// The lowest height that an open fork may take back, if the block of `height` is not below it; `None`: that block is final.
    pub fn contested_from(&self, height: Height) -> Option<Height> {
        self.contested.filter(|from| height >= *from)
    }
    /// Confirmations of a decided block: 0 while it is contested.
    pub fn confirmations(&self, height: Height) -> u64 {
        match self.contested_from(height) {
            Some(_) => 0,
            None => (self.tip.height.0 + 1).saturating_sub(height.0),
        }
    }
}

impl SupplyView {
    /// Of the state after the newest block.
    pub fn of(state: &State) -> SupplyView {
        let entries = state.registry().entries();
        let sum = |f: fn(&Entry) -> Amount| Amount::sum(entries.iter().map(f)).unwrap_or_default();
        SupplyView {
            issued: state.tip.supply.issued,
            burned: state.tip.supply.burned,
            pot: state.tip.supply.pot,
            accrued: sum(|e| e.accrued),
            collateral: sum(Entry::locked),
            coins: state.tip.coins,
            coin_count: state.tip.coin_count,
        }
    }
}

impl RecentBlock {
    /// Of a decided block.
    pub fn of(decided: &DecidedBlock) -> RecentBlock {
        let spent = decided.delta.spent.iter();
        RecentBlock {
            id: decided.certificate.block,
            block: decided.block.clone(),
            certificate: decided.certificate.clone(),
            spent: spent
                .map(|(outpoint, coin)| (*outpoint, coin.output))
                .collect(),
            slot: decided.delta.slot.clone(),
        }
    }
}

fn status(entry: &Entry) -> &'static str {
    if entry.slashed.is_some() {
        return "SLASHED";
    }
    if entry.is_leaving() {
        return "LEAVING";
    }
    match entry.standing {
        Standing::Voting => "ENABLED",
        Standing::StandBy => "STANDBY",
        Standing::Jailed { .. } => "JAILED",
        Standing::Gone { .. } => "LEAVING",
    }
}

/// The registry as people see it; `is_connected` says whom this node reaches. Changes at slot blocks only.
pub fn masternodes(
    state: &State,
    is_connected: impl Fn(&MasternodeId) -> bool,
) -> Vec<MasternodeView> {
    let entries = state.registry().entries().iter();
    let view = |e: &Entry| MasternodeView {
        entry: e.clone(),
        power: state.validators.get(&e.id).map_or(Power(0), |m| m.power),
        status: status(e),
        connected: is_connected(&e.id),
    };
    entries.map(view).collect()
}
