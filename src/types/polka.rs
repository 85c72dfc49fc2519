//! A polka: prevotes of a quorum for one block, one round and one valid round, the same in all of them (S1). It stands
//! alone: whoever holds it needs no proposal of its round. Compact like a commit: bitmap and signatures.

use crate::crypto::verify::Check;
use crate::types::block::{Commit, CommitError};
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteBody, VoteStep};
use serde::{Deserialize, Serialize};

/// Prevotes of a quorum that agree in block, round and valid round. Never for nil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polka {
    /// Height.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// The same in all of its prevotes.
    pub valid_round: Option<EraRound>,
    /// Round, signers and signatures of the prevotes.
    pub votes: Commit,
}

impl Polka {
    /// Era and round of its prevotes.
    pub fn at(&self) -> EraRound {
        self.votes.at
    }

    /// What each of its signers signed.
    pub fn body(&self, branch: Branch) -> VoteBody {
        VoteBody {
            step: VoteStep::Prevote,
            branch,
            era: self.votes.at.era,
            height: self.height,
            round: self.votes.at.round,
            valid_round: self.valid_round,
            block: Some(self.block),
        }
    }

    /// Checks form and quorum against the set of the height (in an old era: the set of that era); the signature checks
    /// that remain are returned.
    pub fn checks(
        &self,
        chain: ChainId,
        branch: Branch,
        set: &ValidatorSet,
    ) -> Result<Vec<Check>, CommitError> {
        let body = self.body(branch);
        let fits = self.votes.signers.len() == set.len()
            && self.votes.signers.count() == self.votes.signatures.len();
        let barred = self.votes.signers.ones().any(|i| set.is_barred(i));
        if !fits || barred || !body.is_well_formed() {
            return Err(CommitError::Form);
        }
        let signed = set.power_of(self.votes.signers.ones());
        if !is_quorum(signed, set.total()) {
            return Err(CommitError::NoQuorum {
                signed: signed.0,
                total: set.total().0,
            });
        }
        let message = body.signing_hash(chain);
        let signers = self.votes.signers.ones().zip(self.votes.signatures.iter());
        Ok(signers
            .map(|(i, signature)| Check {
                key: set.members()[i].operator,
                message,
                signature: *signature,
            })
            .collect())
    }

    /// Its prevotes one by one. Signers beyond the end of `set` are left out.
    pub fn prevotes(&self, branch: Branch, set: &ValidatorSet) -> Vec<Vote> {
        let body = self.body(branch);
        Vote::of_signers(body, &self.votes.signers, &self.votes.signatures, set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bounded::BoundedVec;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::SecretKey;
    use crate::crypto::verify::verify_all;
    use crate::types::bitmap::Bitmap;
    use crate::types::codec;
    use crate::types::validators::Validator;

    #[test]
    fn a_polka_is_a_quorum_of_prevotes_with_one_valid_round() {
        let secrets: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
        let member = |i: usize| Validator {
            id: MasternodeId(Hash([i as u8; 32])),
            operator: secrets[i].public(),
            power: Power(1),
        };
        let set = ValidatorSet::new((0..4).map(member).collect()).unwrap();
        let at = |round| EraRound {
            era: Era(0),
            round: Round(round),
        };
        let mut polka = Polka {
            height: Height(3),
            block: BlockId(Hash([9; 32])),
            valid_round: Some(at(1)),
            votes: Commit {
                at: at(2),
                signers: Bitmap::from_ones(4, [0, 1, 3]),
                signatures: BoundedVec::new(),
            },
        };
        let message = polka.body(Branch(0)).signing_hash(ChainId::default());
        polka.votes.signatures =
            BoundedVec::take_from([0, 1, 3].map(|i| secrets[i].sign(&message)));
        let checks = polka.checks(ChainId::default(), Branch(0), &set).unwrap();
        assert!(verify_all(&checks), "S1: a polka stands alone");
        for vote in polka.prevotes(Branch(0), &set) {
            let operator = set.get(&vote.voter).unwrap().operator;
            assert!(vote.signature_check(ChainId::default(), operator).verify());
        }
        let bytes = codec::encode(&polka);
        assert_eq!(codec::decode::<Polka>(&bytes, 65_536).unwrap(), polka);

        let mut other = polka.clone();
        other.valid_round = None;
        let checks = other.checks(ChainId::default(), Branch(0), &set).unwrap();
        assert!(!verify_all(&checks), "S1: the valid round is signed");
        other.valid_round = Some(at(2));
        assert_eq!(
            other.checks(ChainId::default(), Branch(0), &set),
            Err(CommitError::Form),
            "S1: valid_round < round"
        );
        polka.votes.signers = Bitmap::from_ones(4, [0, 1]);
        polka.votes.signatures =
            BoundedVec::take_from(polka.votes.signatures.into_vec().drain(..2));
        let few = polka.checks(ChainId::default(), Branch(0), &set);
        assert!(matches!(few, Err(CommitError::NoQuorum { signed: 2, .. })));
    }
}
