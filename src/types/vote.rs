//! Signed consensus messages (S1). A signature covers its domain, the chain id and the body; bodies hold branch, era,
//! height, round, step, block id or nil, and proposals and prevotes also the valid round. No wall clock.

use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::{PublicKey, Signature};
use crate::crypto::verify::Check;
use crate::types::bitmap::Bitmap;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};

/// Which vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VoteStep {
    /// First vote of a round.
    Prevote,
    /// Second vote of a round; a quorum of them decides.
    Precommit,
}

/// What a vote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoteBody {
    /// Prevote or precommit.
    pub step: VoteStep,
    /// Rule set in force at the height.
    pub branch: Branch,
    /// Era.
    pub era: Era,
    /// Height.
    pub height: Height,
    /// Round.
    pub round: Round,
    /// Of a prevote for a block: the valid round of the proposal it answers. `None` (-1) in nil prevotes and precommits.
    pub valid_round: Option<EraRound>,
    /// The block, or nil.
    pub block: Option<BlockId>,
}

impl VoteBody {
    /// The hash that is signed.
    pub fn signing_hash(&self, chain: ChainId) -> Hash {
        let domain = match self.step {
            VoteStep::Prevote => Domain::Prevote,
            VoteStep::Precommit => Domain::Precommit,
        };
        codec::hash_of(domain, &(chain, self))
    }
    /// Era and round as they compare.
    pub fn at(&self) -> EraRound {
        EraRound {
            era: self.era,
            round: self.round,
        }
    }
    /// Form that S1 demands whatever else is known: nil and precommits carry no valid round, a valid round is below the
    /// vote's own.
    pub fn is_well_formed(&self) -> bool {
        match (self.step, self.block, self.valid_round) {
            (VoteStep::Prevote, Some(_), Some(valid_round)) => valid_round < self.at(),
            (_, _, valid_round) => valid_round.is_none(),
        }
    }
}

/// A signed vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// What it says.
    pub body: VoteBody,
    /// Whose vote.
    pub voter: MasternodeId,
    /// By the voter's operator key.
    pub signature: Signature,
}

impl Vote {
    /// The votes of these members of `set` for one message, their signatures in the same order. Signers beyond the end of
    /// `set` are left out.
    pub fn of_signers(
        body: VoteBody,
        signers: &Bitmap,
        signatures: &[Signature],
        set: &ValidatorSet,
    ) -> Vec<Vote> {
        let signed = signers.ones().zip(signatures);
        let vote = |(i, signature): (usize, &Signature)| {
            let voter = set.members().get(i)?.id;
            let signature = *signature;
            Some(Vote {
                body,
                voter,
                signature,
            })
        };
        signed.filter_map(vote).collect()
    }

    /// The check of its signature under `operator`.
    pub fn signature_check(&self, chain: ChainId, operator: PublicKey) -> Check {
        Check {
            key: operator,
            message: self.body.signing_hash(chain),
            signature: self.signature,
        }
    }
}

/// What a proposal's signature covers; the header is bound by the block id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalBody {
    /// Rule set in force at the height.
    pub branch: Branch,
    /// Era.
    pub era: Era,
    /// Height.
    pub height: Height,
    /// Round of this proposal.
    pub round: Round,
    /// `None` (-1): fresh. Else the round of the polka that lets locked validators accept it.
    pub valid_round: Option<EraRound>,
    /// The block.
    pub block: BlockId,
}

impl ProposalBody {
    /// The hash that is signed.
    pub fn signing_hash(&self, chain: ChainId) -> Hash {
        codec::hash_of(Domain::Proposal, &(chain, self))
    }
    /// Era and round as they compare.
    pub fn at(&self) -> EraRound {
        EraRound {
            era: self.era,
            round: self.round,
        }
    }
}

/// A signed proposal without the block it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignedProposal {
    /// What it says.
    pub body: ProposalBody,
    /// The leader of the round.
    pub proposer: MasternodeId,
    /// By its operator key.
    pub signature: Signature,
}

impl SignedProposal {
    /// The check of its signature under `operator`.
    pub fn signature_check(&self, chain: ChainId, operator: PublicKey) -> Check {
        Check {
            key: operator,
            message: self.body.signing_hash(chain),
            signature: self.signature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_of_votes() {
        let block = Some(BlockId(Hash([1; 32])));
        let earlier = Some(EraRound {
            era: Era(0),
            round: Round(1),
        });
        let body = |step, block, valid_round| VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: Height(1),
            round: Round(2),
            valid_round,
            block,
        };
        assert!(body(VoteStep::Prevote, block, earlier).is_well_formed());
        assert!(
            !body(VoteStep::Prevote, None, earlier).is_well_formed(),
            "S1: a nil prevote has -1"
        );
        assert!(
            !body(VoteStep::Precommit, block, earlier).is_well_formed(),
            "S1: precommits carry no valid round"
        );
        let own = Some(EraRound {
            era: Era(0),
            round: Round(2),
        });
        assert!(
            !body(VoteStep::Prevote, block, own).is_well_formed(),
            "S1: valid_round < round"
        );
        let prevote = body(VoteStep::Prevote, block, None);
        let precommit = body(VoteStep::Precommit, block, None);
        assert_ne!(
            prevote.signing_hash(ChainId::default()),
            precommit.signing_hash(ChainId::default())
        );
    }
}
