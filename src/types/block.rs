//! Headers, blocks and certificates (L13, S9).

use crate::base::bounded::BoundedVec;
use crate::base::limits::{BLOCK_TX_COUNT_MAX, VALIDATOR_COUNT_MAX};
use crate::base::time::WallMs;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::Signature;
use crate::crypto::merkle::{SLOT_TREE, TX_TREE};
use crate::crypto::verify::Check;
use crate::types::bitmap::Bitmap;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::transaction::Tx;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteBody, VoteStep};
use serde::{Deserialize, Serialize};

/// The header version of branch 0.
pub const HEADER_VERSION: u16 = 1;

/// A block's header. Its hash is the block id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`HEADER_VERSION`]; others are invalid until an upgrade activates them.
    pub version: u16,
    /// Rule set in force.
    pub branch: Branch,
    /// Era.
    pub era: Era,
    /// Hash of the RecoveryCert in the first header of an era > 0, else zero.
    pub recovery_hash: Hash,
    /// Height.
    pub height: Height,
    /// Round of the first proposal.
    pub round: Round,
    /// Proposer-based time (S4).
    pub time: WallMs,
    /// The block below; the chain id for height 1.
    pub parent: BlockId,
    /// Leader of `round`.
    pub proposer: MasternodeId,
    /// Hash of the block's last_commit.
    pub last_commit_hash: Hash,
    /// Merkle root over (txid, wtxid) in block order.
    pub tx_root: Hash,
    /// Merkle root of the slot part; zero in a block that is no slot block.
    pub slot_root: Hash,
    /// The set that decides this height.
    pub validators_hash: Hash,
    /// The set that decides the next height.
    pub next_validators_hash: Hash,
    /// The ledger after this block (L11).
    pub state_root: Hash,
    /// Latest slot block below this one; the chain id until there is one.
    pub prev_slot_block: BlockId,
    /// Mountain range over the ids of heights 0 to height - 1.
    pub history_root: Hash,
}

impl Header {
    /// The block id.
    pub fn id(&self) -> BlockId {
        BlockId(codec::hash_of(Domain::Header, self))
    }
}

/// Precommits of one round for one block: {round, bitmap, signatures} (S9). Empty at height 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commit {
    /// Era and round of the precommits.
    pub at: EraRound,
    /// Who signed, over the validator set of the height.
    pub signers: Bitmap,
    /// In the order of the set bits.
    pub signatures: BoundedVec<Signature, VALIDATOR_COUNT_MAX>,
}

/// Why a commit does not decide a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Bitmap or number of signatures does not belong to the set.
    #[error("the signer bitmap or the number of signatures does not fit the validator set")]
    Form,
    /// The signers are no quorum.
    #[error("signers hold power {signed} of {total}: no quorum")]
    NoQuorum {
        /// Power that signed.
        signed: u64,
        /// Power of the set.
        total: u64,
    },
}

impl Commit {
    /// last_commit_hash of the header.
    pub fn hash(&self) -> Hash {
        codec::hash_of(Domain::Commit, self)
    }

    /// What each of its signers signed.
    pub fn body(&self, branch: Branch, height: Height, block: BlockId) -> VoteBody {
        VoteBody {
            step: VoteStep::Precommit,
            branch,
            era: self.at.era,
            height,
            round: self.at.round,
            valid_round: None,
            block: Some(block),
        }
    }

    /// Checks form and quorum against the set of the height; the signature checks that remain are returned (S9).
    pub fn checks(
        &self,
        chain: ChainId,
        branch: Branch,
        height: Height,
        block: BlockId,
        set: &ValidatorSet,
    ) -> Result<Vec<Check>, CommitError> {
        let fits = self.signers.len() == set.len() && self.signers.count() == self.signatures.len();
        if !fits || self.signers.ones().any(|i| set.is_barred(i)) {
            return Err(CommitError::Form);
        }
        let signed = set.power_of(self.signers.ones());
        if !is_quorum(signed, set.total()) {
            return Err(CommitError::NoQuorum {
                signed: signed.0,
                total: set.total().0,
            });
        }
        let message = self.body(branch, height, block).signing_hash(chain);
        let signers = self.signers.ones().zip(self.signatures.iter());
        Ok(signers
            .map(|(i, s)| Check {
                key: set.members()[i].operator,
                message,
                signature: *s,
            })
            .collect())
    }
}

/// Proof that a block is decided: a quorum of precommits of one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Height decided.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// The precommits.
    pub commit: Commit,
}

impl Certificate {
    /// Its precommits one by one. Signers beyond the end of `set` are left out.
    pub fn precommits(&self, branch: Branch, set: &ValidatorSet) -> Vec<Vote> {
        let body = self.commit.body(branch, self.height, self.block);
        Vote::of_signers(body, &self.commit.signers, &self.commit.signatures, set)
    }

    /// Form, quorum and the signature checks that remain, as [`Commit::checks`].
    pub fn checks(
        &self,
        chain: ChainId,
        branch: Branch,
        set: &ValidatorSet,
    ) -> Result<Vec<Check>, CommitError> {
        self.commit
            .checks(chain, branch, self.height, self.block, set)
    }
}

/// A header with its certificate, and the set it announces where that is another one than its own (F1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// The next set, where next_validators_hash is not validators_hash.
    pub next: Option<ValidatorSet>,
}

/// A whole block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Header.
    pub header: Header,
    /// Certificate material of the parent; empty at height 1.
    pub last_commit: Commit,
    /// Attestations and evidence; empty in a block that is no slot block.
    pub slot_part: SlotPart,
    /// Transactions, coinbase first if there is one.
    pub transactions: BoundedVec<Tx, BLOCK_TX_COUNT_MAX>,
}

/// The leaf of a transaction in tx_root (L4).
pub fn tx_leaf(txid: &Txid, wtxid: &Wtxid) -> Hash {
    TX_TREE.leaf(&[&txid.0.0, &wtxid.0.0])
}

/// tx_root of transactions given by their names, in block order.
pub fn tx_root<'a>(names: impl IntoIterator<Item = (&'a Txid, &'a Wtxid)>) -> Hash {
    let leaves: Vec<Hash> = names
        .into_iter()
        .map(|(txid, wtxid)| tx_leaf(txid, wtxid))
        .collect();
    TX_TREE.root(&leaves)
}

/// slot_root of a slot block: attestations, then evidence, the count of each in the leaf context (L13).
pub fn slot_root(part: &SlotPart) -> Hash {
    let counts = [part.attestations.len() as u64, part.evidence.len() as u64];
    let [a, e] = counts.map(u64::to_le_bytes);
    let attestations = part.attestations.iter().map(codec::encode);
    let evidence = part.evidence.iter().map(codec::encode);
    let leaves: Vec<Hash> = attestations
        .chain(evidence)
        .map(|bytes| SLOT_TREE.leaf(&[&a, &e, &bytes]))
        .collect();
    SLOT_TREE.root(&leaves)
}

impl Block {
    /// The block id.
    pub fn id(&self) -> BlockId {
        self.header.id()
    }
    /// tx_root of the transactions it holds.
    pub fn tx_root(&self) -> Hash {
        tx_root(self.transactions.iter().map(|tx| (&tx.txid, &tx.wtxid)))
    }
    /// Encoded size of its transactions in bytes.
    pub fn bodies_size(&self) -> usize {
        self.transactions.iter().map(|tx| tx.size).sum()
    }
}

/// The short id by which a proposal names a transaction (S8): first 8 bytes of H(short-id, parent, height, round, wtxid).
pub fn short_id(parent: &BlockId, height: Height, round: Round, wtxid: &Wtxid) -> [u8; 8] {
    let hash = codec::hash_of(Domain::ShortId, &(parent, height, round, wtxid));
    let mut out = [0; 8];
    out.copy_from_slice(&hash.0[..8]);
    out
}
