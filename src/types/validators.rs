//! The validator set of a height: who may vote, with which key and power. Ascending id; bitmaps index this list (L13).

use crate::base::limits::VALIDATOR_COUNT_MAX;
use crate::crypto::hash::Hash;
use crate::crypto::keys::PublicKey;
use crate::crypto::merkle::VALIDATOR_TREE;
use crate::types::codec;
use crate::types::ids::*;
use serde::{Deserialize, Deserializer, Serialize};

/// A member of a validator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Validator {
    /// Which masternode.
    pub id: MasternodeId,
    /// Key that signs its votes.
    pub operator: PublicKey,
    /// Voting power, above 0.
    pub power: Power,
}

/// Members with power > 0, strictly ascending id, at most 512.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ValidatorSet {
    members: Vec<Validator>,
    #[serde(skip)]
    total: Power,
    /// Positions of members that have no vote, ascending (B6 step 6): they keep their bit, their place in the hash and in
    /// the encoding, and nothing they sign counts.
    #[serde(skip)]
    barred: Vec<usize>,
}

/// Members that make no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// More than [`VALIDATOR_COUNT_MAX`].
    #[error("a validator set has at most {VALIDATOR_COUNT_MAX} members")]
    TooMany,
    /// Not strictly ascending by id, zero power, or the power sums overflow.
    #[error("members must be strictly ascending by id with power between 1 and 2^40")]
    Form,
}

impl ValidatorSet {
    /// A set of `members`.
    pub fn new(members: Vec<Validator>) -> Result<ValidatorSet, ValidatorSetError> {
        if members.len() > VALIDATOR_COUNT_MAX {
            return Err(ValidatorSetError::TooMany);
        }
        let ascending = members.windows(2).all(|pair| pair[0].id < pair[1].id);
        let powers = members
            .iter()
            .all(|m| m.power.0 >= 1 && m.power.0 <= crate::base::limits::POWER_MAX);
        if !ascending || !powers {
            return Err(ValidatorSetError::Form);
        }
        // At most 512 * 2^40: far below u64::MAX.
        let total = Power(members.iter().map(|m| m.power.0).sum());
        let barred = Vec::new();
        Ok(ValidatorSet {
            members,
            total,
            barred,
        })
    }
    /// The same members, of whom exactly those of `ids` have no vote (B6 step 6). Ids that are no members change nothing.
    pub fn without<'a>(&self, ids: impl IntoIterator<Item = &'a MasternodeId>) -> ValidatorSet {
        let position = |id: &MasternodeId| self.members.binary_search_by(|m| m.id.cmp(id)).ok();
        let mut barred: Vec<usize> = ids.into_iter().filter_map(position).collect();
        barred.sort_unstable();
        barred.dedup();
        let lost: u64 = barred.iter().map(|i| self.members[*i].power.0).sum();
        ValidatorSet {
            members: self.members.clone(),
            total: Power(self.full_total().0 - lost),
            barred,
        }
    }
    /// Whether the member at position `i` has no vote.
    pub fn is_barred(&self, i: usize) -> bool {
        self.barred.binary_search(&i).is_ok()
    }
    /// Power of all members, also of those without a vote.
    pub fn full_total(&self) -> Power {
        Power(self.members.iter().map(|m| m.power.0).sum())
    }
    /// The members, ascending id, also those without a vote.
    pub fn members(&self) -> &[Validator] {
        &self.members
    }
    /// Number of members: bits of a bitmap.
    pub fn len(&self) -> usize {
        self.members.len()
    }
    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
    /// Power of all members that have a vote: what a quorum is a part of.
    pub fn total(&self) -> Power {
        self.total
    }
    /// Position of a member that has a vote.
    pub fn index_of(&self, id: &MasternodeId) -> Option<usize> {
        let found = self.members.binary_search_by(|m| m.id.cmp(id)).ok();
        found.filter(|i| !self.is_barred(*i))
    }
    /// A member that has a vote, by id.
    pub fn get(&self, id: &MasternodeId) -> Option<&Validator> {
        self.index_of(id).map(|i| &self.members[i])
    }
    /// Power of the members at `indexes`; those beyond the end and those without a vote count nothing.
    pub fn power_of(&self, indexes: impl IntoIterator<Item = usize>) -> Power {
        Power(
            indexes
                .into_iter()
                .filter(|i| !self.is_barred(*i))
                .filter_map(|i| self.members.get(i))
                .map(|m| m.power.0)
                .sum(),
        )
    }
    /// validators_hash of headers (L13).
    pub fn hash(&self) -> Hash {
        let leaves: Vec<Hash> = self
            .members
            .iter()
            .map(|m| VALIDATOR_TREE.leaf(&[&codec::encode(m)]))
            .collect();
        VALIDATOR_TREE.root(&leaves)
    }
}

impl<'de> Deserialize<'de> for ValidatorSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use crate::base::bounded::BoundedVec;
        let members = BoundedVec::<Validator, VALIDATOR_COUNT_MAX>::deserialize(deserializer)?;
        ValidatorSet::new(members.into_vec()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_canonical() {
        let member = |i: u8, p| Validator {
            id: MasternodeId(Hash([i; 32])),
            operator: PublicKey([i; 32]),
            power: Power(p),
        };
        let set = ValidatorSet::new(vec![member(1, 10), member(2, 20)]).unwrap();
        assert_eq!(
            (set.total(), set.index_of(&member(2, 0).id)),
            (Power(30), Some(1))
        );
        assert!(ValidatorSet::new(vec![member(2, 1), member(1, 1)]).is_err());
        assert!(
            ValidatorSet::new(vec![member(1, 0)]).is_err(),
            "L13: members with power > 0"
        );
        let bytes = codec::encode(&set);
        assert_eq!(
            codec::decode::<ValidatorSet>(&bytes, 1024).unwrap(),
            set,
            "the total is derived again"
        );
        assert_ne!(
            set.hash(),
            ValidatorSet::new(vec![member(1, 10)]).unwrap().hash()
        );
    }
}
