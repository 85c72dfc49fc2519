//! Taking a block back (L12): what it created and spent, and the small parts of the state before it. Buckets are not kept:
//! their digests are undone like they were done.

use crate::ledger::coins::CoinList;
use crate::ledger::era::Eras;
use crate::ledger::leader::Leaders;
use crate::ledger::registry::{Registry, SealedRegistry};
use crate::ledger::slots::SlotTable;
use crate::ledger::state::{State, Tip};
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything that undoes one block, without looking at any coin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Coins the block left behind: to remove. Ascending outpoint.
    pub created: CoinList,
    /// Coins from before that the block spent: to put back. Ascending outpoint.
    pub spent: CoinList,
    tip: Tip,
    leaders: Leaders,
    // Parts that the block did not change are absent: the state after it has them.
    validators: Option<ValidatorSet>,
    last_validators: Option<ValidatorSet>,
    registry: Option<Registry>,
    slots: Option<SlotTable>,
    eras: Option<Eras>,
}

impl Undo {
    /// The undo data of a block between two states.
    pub(crate) fn new(before: &State, after: &State, created: CoinList, spent: CoinList) -> Undo {
        fn old<T: Clone + PartialEq>(before: &Arc<T>, after: &Arc<T>) -> Option<T> {
            let same = Arc::ptr_eq(before, after) || before == after;
            (!same).then(|| T::clone(before))
        }
        let (b, a) = (&before.registry, &after.registry);
        Undo {
            created,
            spent,
            tip: before.tip.clone(),
            leaders: Leaders::clone(&before.leaders),
            validators: old(&before.validators, &after.validators),
            last_validators: old(&before.last_validators, &after.last_validators),
            registry: (b.hash != a.hash).then(|| Registry::clone(&b.registry)),
            slots: old(&before.slots, &after.slots),
            eras: old(&before.eras, &after.eras),
        }
    }

    /// The set that decided the block below, if it is not the one that decided this block.
    pub fn last_set_before(&self) -> Option<&ValidatorSet> {
        self.last_validators.as_ref()
    }

    /// What the state before the block held of forks, if the block changed it.
    pub fn eras_before(&self) -> Option<&Eras> {
        self.eras.as_ref()
    }

    /// The state before the block, from the state after it; `None` if `after` is not the state this data undoes.
    pub fn restore(&self, after: &State) -> Option<State> {
        if self.tip.height.next() != after.tip.height {
            return None;
        }
        fn pick<T: Clone>(old: &Option<T>, current: &Arc<T>) -> Arc<T> {
            old.as_ref()
                .map_or_else(|| current.clone(), |old| Arc::new(old.clone()))
        }
        let eras = pick(&self.eras, &after.eras);
        let validators = eras.bar(pick(&self.validators, &after.validators));
        let registry = match &self.registry {
            Some(old) => SealedRegistry::new(old.clone())?,
            None => after.registry.clone(),
        };
        Some(State {
            chain: after.chain.clone(),
            tip: self.tip.clone(),
            validators_hash: validators.hash(),
            validators,
            last_validators: eras.bar_last(pick(&self.last_validators, &after.last_validators)),
            registry,
            leaders: Arc::new(self.leaders.clone()),
            slots: pick(&self.slots, &after.slots),
            utxo: after.utxo.changed(&self.spent, &self.created).0,
            eras,
            next_era: None,
        })
    }
}
