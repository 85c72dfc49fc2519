//! What masternodes sign beside votes (M4, B6) and the proof that one broke the rules (M7).

use crate::base::bounded::BoundedVec;
use crate::base::limits::{EVIDENCE_COUNT_MAX, VALIDATOR_COUNT_MAX};
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::{PublicKey, Signature};
use crate::types::bitmap::Bitmap;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::vote::{SignedProposal, Vote};
use serde::{Deserialize, Serialize};

/// "I am here": what a heartbeat says (M4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeartbeatBody {
    /// Era.
    pub era: Era,
    /// Who.
    pub masternode: MasternodeId,
    /// Slot of the wall clock.
    pub slot: Slot,
    /// Which tenth of the slot, 0-9.
    pub sequence: u8,
    /// Height of the sender's tip.
    pub height: Height,
    /// Block at that height.
    pub block: BlockId,
}

/// A signed heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What it says.
    pub body: HeartbeatBody,
    /// By the operator key.
    pub signature: Signature,
}

impl HeartbeatBody {
    /// The hash that is signed.
    pub fn signing_hash(&self, chain: ChainId) -> Hash {
        codec::hash_of(Domain::Heartbeat, &(chain, self))
    }
}

/// Who was there in a slot, as one validator saw it (M4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationBody {
    /// Era.
    pub era: Era,
    /// The slot attested.
    pub slot: Slot,
    /// Latest slot block: fixes the registry that the bitmap indexes.
    pub base: BlockId,
    /// Highest branch the attester's software knows (L15).
    pub supports: Branch,
    /// Who attests.
    pub attester: MasternodeId,
    /// Over the registry order of `base`.
    pub present: Bitmap,
}

/// A signed attestation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// What it says.
    pub body: AttestationBody,
    /// By the operator key.
    pub signature: Signature,
}

impl AttestationBody {
    /// The hash that is signed.
    pub fn signing_hash(&self, chain: ChainId) -> Hash {
        codec::hash_of(Domain::Attestation, &(chain, self))
    }
}

/// Which branch of a fork a masternode held decided (B6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatementBody {
    /// Era that the fork ended.
    pub era: Era,
    /// Attempt, from 0.
    pub attempt: u32,
    /// Hash of the fork proof.
    pub fork: Hash,
    /// Block held decided at the fork's height.
    pub block: BlockId,
    /// Height of the tip.
    pub tip_height: Height,
    /// The tip.
    pub tip: BlockId,
}

/// A signed statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Statement {
    /// What it says.
    pub body: StatementBody,
    /// Whose statement.
    pub masternode: MasternodeId,
    /// By its operator key.
    pub signature: Signature,
}

impl StatementBody {
    /// The hash that is signed.
    pub fn signing_hash(&self, chain: ChainId) -> Hash {
        codec::hash_of(Domain::Statement, &(chain, self))
    }
}

/// Two messages that no honest key signs both (M7, S6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Offence {
    /// Two proposals of one era, height and round.
    Proposals(SignedProposal, SignedProposal),
    /// Two votes of one era, height, round and step.
    Votes(Vote, Vote),
    /// A precommit for X in r and a prevote for Y != X in s > r with valid_round < r: (precommit, prevote).
    Amnesia(Vote, Vote),
    /// Two statements of one era and attempt.
    Statements(Statement, Statement),
}

/// Evidence against one masternode. The pair is in ascending order where its order carries no meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Evidence {
    /// Who signed both.
    pub offender: MasternodeId,
    /// The operator key that signed both. Named, because a statement's own words cannot say under which key it was made:
    /// a masternode that changes its key would choose the one it is judged by.
    pub key: PublicKey,
    /// What.
    pub offence: Offence,
}

/// What a slot block carries beside transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotPart {
    /// Ascending attester id.
    pub attestations: BoundedVec<Attestation, VALIDATOR_COUNT_MAX>,
    /// Ascending offender id.
    pub evidence: BoundedVec<Evidence, EVIDENCE_COUNT_MAX>,
}

impl SlotPart {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.attestations.is_empty() && self.evidence.is_empty()
    }
}
