//! Proofs across forks (B6): after a fork the culprits have no vote, so what is a quorum depends on the era. A proof that
//! reaches into a later era carries the RecoveryCerts that began it, and each must hold under the set of its fork's height.
//!
//! Input: the sets met on the way, ascending, and the certificates. Output: the set of a block as it decided. What nobody can
//! see in a proof is a fork that came after it was made: that, a node knows.

use crate::crypto::verify::verify_all;
use crate::ledger::fork::check_recovery;
use crate::rpc::proof::ProofError;
use crate::types::fork::RecoveryCert;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;

/// The way from the root up, as far as it has been walked.
pub(super) struct Walk<'a> {
    chain: ChainId,
    era: Era,
    /// First height that each set decides.
    sets: Vec<(Height, ValidatorSet)>,
    recoveries: &'a [RecoveryCert],
    barred: Vec<MasternodeId>,
}

impl<'a> Walk<'a> {
    /// From a root in `era`, above which `set` decides.
    pub(super) fn new(
        chain: ChainId,
        (root, era): (Height, Era),
        set: ValidatorSet,
        recoveries: &'a [RecoveryCert],
    ) -> Walk<'a> {
        let begun = recoveries.iter().filter(|cert| cert.era < era).count();
        Walk {
            chain,
            era,
            sets: vec![(root.next(), set)],
            recoveries: recoveries.get(begun..).unwrap_or_default(),
            barred: Vec::new(),
        }
    }

    /// Above this height another set decides.
    pub(super) fn follow(&mut self, slot: Height, set: ValidatorSet) {
        self.sets.push((slot.next(), set));
    }

    /// The set above the last step, all of it.
    pub(super) fn set(&self) -> ValidatorSet {
        let last = self.sets.last();
        last.map_or_else(ValidatorSet::default, |(_, set)| set.clone())
    }

    /// `set` as it decides a height in an era: without the culprits of the forks before.
    pub(super) fn deciders(
        &mut self,
        (height, era): (Height, Era),
        set: &ValidatorSet,
    ) -> Result<ValidatorSet, ProofError> {
        if era < self.era {
            return Err(ProofError::Era(height, era));
        }
        while self.era < era {
            let (cert, rest) = self
                .recoveries
                .split_first()
                .filter(|(cert, _)| cert.era == self.era)
                .ok_or(ProofError::Era(height, era))?;
            self.recover(cert)?;
            self.recoveries = rest;
        }
        Ok(set.without(&self.barred))
    }

    fn recover(&mut self, cert: &RecoveryCert) -> Result<(), ProofError> {
        let fault = |why: String| ProofError::Recovery(cert.fork.height(), why);
        let mut below = self.sets.iter().rev();
        let found = below.find(|(first, _)| *first <= cert.fork.height());
        let (_, set) = found.ok_or_else(|| fault("it is below the root of the proof".into()))?;
        let set = set.without(&self.barred);
        let checks = check_recovery(cert, self.chain, &set).map_err(|e| fault(e.to_string()))?;
        if !verify_all(&checks) {
            return Err(fault("a signature is wrong".into()));
        }
        self.barred.extend(cert.culprits.iter().map(|e| e.offender));
        self.era = cert.era.next();
        Ok(())
    }
}
