//! Eras (B6): what the chain still owes to the forks it came through. Culprits have no vote from the first header of the
//! era until their evidence stands in a slot block; after that they are slashed like anybody (M7).
//!
//! Everything here follows from headers and the RecoveryCerts they name, so every node that applied the same blocks holds
//! the same.

use crate::crypto::hash::Hash;
use crate::ledger::registry::Registry;
use crate::ledger::state::{State, Tip};
use crate::types::fork::RecoveryCert;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Culprits whose evidence is due.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Eras {
    /// Evidence that slot blocks must still carry, ascending offender id.
    pub culprits: Vec<Evidence>,
    /// Who had no vote when the newest block was decided.
    pub last_barred: Vec<MasternodeId>,
}

/// An era that a verified RecoveryCert lets begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextEra {
    /// Its number.
    pub era: Era,
    /// recovery_hash of its first header.
    pub hash: Hash,
    /// Height of the fork: the era decides heights above.
    pub fork: Height,
    /// The block that stays at that height.
    pub block: BlockId,
    /// Evidence against the culprits, ascending offender id.
    pub culprits: Vec<Evidence>,
}

impl NextEra {
    /// What a verified certificate lets begin.
    pub fn of(cert: &RecoveryCert) -> NextEra {
        NextEra {
            era: cert.era.next(),
            hash: cert.hash(),
            fork: cert.fork.height(),
            block: cert.block,
            culprits: cert.culprits.to_vec(),
        }
    }
}

fn barred(
    set: &Arc<ValidatorSet>,
    ids: &mut dyn Iterator<Item = &MasternodeId>,
) -> Arc<ValidatorSet> {
    let mut ids = ids.peekable();
    if ids.peek().is_none() && set.full_total() == set.total() {
        return set.clone();
    }
    Arc::new(set.without(ids))
}

impl Eras {
    /// `set` in which the culprits have no vote.
    pub fn bar(&self, set: Arc<ValidatorSet>) -> Arc<ValidatorSet> {
        barred(&set, &mut self.culprits.iter().map(|e| &e.offender))
    }

    /// The set that decided the newest block, as it decided.
    pub fn bar_last(&self, set: Arc<ValidatorSet>) -> Arc<ValidatorSet> {
        barred(&set, &mut self.last_barred.iter())
    }

    /// These culprits too.
    fn with(&self, more: &[Evidence]) -> Eras {
        let mut culprits = self.culprits.clone();
        let new = more
            .iter()
            .filter(|e| self.culprits.iter().all(|held| held.offender != e.offender));
        culprits.extend(new.cloned());
        culprits.sort();
        Eras {
            culprits,
            last_barred: self.last_barred.clone(),
        }
    }

    /// What is left after a block, of which `self` barred whom: those punished or gone are no longer due.
    pub fn after_block(&self, registry: &Registry) -> Eras {
        let due = |e: &&Evidence| {
            let entry = registry.get(&e.offender);
            entry.is_some_and(|entry| entry.slashed.is_none())
        };
        Eras {
            culprits: self.culprits.iter().filter(due).cloned().collect(),
            last_barred: self.culprits.iter().map(|e| e.offender).collect(),
        }
    }
}

impl State {
    /// The era in which the next height is decided: that of the chain, or the next one if a RecoveryCert is at hand and the
    /// height is above its fork.
    pub fn era(&self) -> Era {
        self.next_era().map_or(self.tip.era, |next| next.era)
    }

    /// The next era, if it decides the next height.
    fn next_era(&self) -> Option<&Arc<NextEra>> {
        let fits =
            |next: &&Arc<NextEra>| next.era == self.tip.era.next() && self.tip.height >= next.fork;
        self.next_era.as_ref().filter(fits)
    }

    /// recovery_hash of the next header if its era is that of [`State::era`].
    pub fn recovery_hash(&self) -> Hash {
        self.next_era().map_or(Hash::ZERO, |next| next.hash)
    }

    /// Who decides the next height, in [`State::era`].
    pub fn deciders(&self) -> Arc<ValidatorSet> {
        self.set_of(self.era())
            .unwrap_or_else(|| self.validators.clone())
    }

    /// Whose votes count at the next height in `era`: a polka or certificate of the old era counts with the old set (B6 step
    /// 5). `None` if the era is neither that of the chain nor one that can begin now.
    pub fn set_of(&self, era: Era) -> Option<Arc<ValidatorSet>> {
        if era == self.tip.era {
            return Some(self.validators.clone());
        }
        let next = self.next_era().filter(|next| next.era == era)?;
        Some(self.set_by(next))
    }

    /// Who decides above this state in the era that `next` begins, whether that is at hand or not.
    pub fn set_by(&self, next: &NextEra) -> Arc<ValidatorSet> {
        self.eras.with(&next.culprits).bar(self.validators.clone())
    }

    /// Who decided the newest block, if its certificate is of `era`.
    pub fn last_set_of(&self, era: Era) -> Option<Arc<ValidatorSet>> {
        if era == self.tip.era {
            return Some(self.last_validators.clone());
        }
        // An old-era block that the new era decided: nobody knew of the culprits but the certificate.
        let next = self.next_era.as_ref().filter(|next| next.era == era)?;
        Some(
            self.eras
                .with(&next.culprits)
                .bar(self.last_validators.clone()),
        )
    }

    /// This state as a block of `era` that names `recovery_hash` stands on it: the same, or the first of the next era.
    pub(crate) fn entered(&self, era: Era, recovery_hash: Hash) -> Option<State> {
        if era == self.tip.era && recovery_hash.is_zero() {
            return Some(self.clone());
        }
        let next = self.next_era()?;
        if (next.era, next.hash) != (era, recovery_hash) {
            return None;
        }
        let eras = Arc::new(self.eras.with(&next.culprits));
        Some(State {
            tip: Tip {
                era,
                ..self.tip.clone()
            },
            validators: eras.bar(self.validators.clone()),
            eras,
            next_era: None,
            ..self.clone()
        })
    }
}
