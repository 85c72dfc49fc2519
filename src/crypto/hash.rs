//! BLAKE3-256 with one key-derivation context for each kind of object (L1), so that no two kinds share a hash.

use crate::base::hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::LazyLock;

/// A 32-byte hash. Ordered and printed as the bytes stand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// All zero: "none" where a field says so.
    pub const ZERO: Hash = Hash([0; 32]);
    /// Whether this is [`Hash::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Hash::ZERO
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &hex::encode(&self.0[..6]))
    }
}

impl std::str::FromStr for Hash {
    type Err = hex::HexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode_array(text).map(Hash)
    }
}

macro_rules! domains {
    ($($(#[$doc:meta])* $name:ident = $context:literal;)*) => {
        /// What a hash is of. Each has its own BLAKE3 derive-key context.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Domain { $($(#[$doc])* $name,)* }
        const CONTEXTS: &[&str] = &[$($context,)*];
    };
}

domains! {
    /// Chain id: the canonical genesis (L14).
    Genesis = "TimeCoin v0 genesis";
    /// Masternode id of a genesis masternode (L14).
    GenesisMasternode = "TimeCoin v0 genesis-masternode";
    /// Outpoint transaction id of a genesis balance.
    GenesisBalance = "TimeCoin v0 genesis-balance";
    /// txid: a transaction without witnesses (L4).
    Txid = "TimeCoin v0 txid";
    /// wtxid: a transaction with witnesses (L4).
    Wtxid = "TimeCoin v0 wtxid";
    /// Signature hash of a transaction (L5).
    Transaction = "TimeCoin v0 transaction";
    /// Proof of possession of an operator key in a registration (M1).
    RegistrationPop = "TimeCoin v0 registration-pop";
    /// Proposal signature (S1).
    Proposal = "TimeCoin v0 proposal";
    /// Prevote signature (S1).
    Prevote = "TimeCoin v0 prevote";
    /// Precommit signature (S1).
    Precommit = "TimeCoin v0 precommit";
    /// Heartbeat signature (M4).
    Heartbeat = "TimeCoin v0 heartbeat";
    /// Attestation signature (M4).
    Attestation = "TimeCoin v0 attestation";
    /// Operator proof of a connection (P1).
    OperatorProof = "TimeCoin v0 operator-proof";
    /// Statement of fork resolution (B6).
    Statement = "TimeCoin v0 statement";
    /// Block id: a header (L13).
    Header = "TimeCoin v0 header";
    /// last_commit, as hashed into the header (S9).
    Commit = "TimeCoin v0 commit";
    /// m-of-n policy behind a version 2 program (L3).
    Policy = "TimeCoin v0 policy";
    /// Short transaction ids of a proposal (S8).
    ShortId = "TimeCoin v0 short-id";
    /// Leaf of the transaction tree: txid, wtxid.
    TxLeaf = "TimeCoin v0 tx-leaf";
    /// Inner node of the transaction tree.
    TxNode = "TimeCoin v0 tx-node";
    /// Root of the transaction tree with its count.
    TxRoot = "TimeCoin v0 tx-root";
    /// Leaf of the slot tree.
    SlotLeaf = "TimeCoin v0 slot-leaf";
    /// Inner node of the slot tree.
    SlotNode = "TimeCoin v0 slot-node";
    /// Root of the slot tree.
    SlotRoot = "TimeCoin v0 slot-root";
    /// Leaf of a validator set.
    ValidatorLeaf = "TimeCoin v0 validator-leaf";
    /// Inner node of a validator set.
    ValidatorNode = "TimeCoin v0 validator-node";
    /// Root of a validator set.
    ValidatorRoot = "TimeCoin v0 validator-root";
    /// Leaf of the state tree (L11).
    StateLeaf = "TimeCoin v0 state-leaf";
    /// Inner node of the state tree.
    StateNode = "TimeCoin v0 state-node";
    /// Root of the state tree.
    StateRoot = "TimeCoin v0 state-root";
    /// Leaf of the history range (block ids).
    HistoryLeaf = "TimeCoin v0 history-leaf";
    /// Inner node of the history range.
    HistoryNode = "TimeCoin v0 history-node";
    /// Root of the history range with its count.
    HistoryRoot = "TimeCoin v0 history-root";
    /// One coin's lanes in the UTXO digest (L11).
    CoinLanes = "TimeCoin v0 coin-lanes";
    /// Bucket of an outpoint (L11).
    CoinBucket = "TimeCoin v0 coin-bucket";
    /// Digest of one bucket's lanes.
    BucketDigest = "TimeCoin v0 bucket-digest";
    /// Registry entries, as a leaf of the state.
    Registry = "TimeCoin v0 registry";
    /// Leader state, as a leaf of the state.
    Leaders = "TimeCoin v0 leaders";
    /// slot_index table and upgrade counter, as a leaf of the state.
    SlotTable = "TimeCoin v0 slot-table";
    /// Supply figures, as a leaf of the state.
    Supply = "TimeCoin v0 supply";
    /// Seed of the coefficients of a signature batch.
    BatchSeed = "TimeCoin v0 batch-seed";
    /// Name of an operator key's lock on a host.
    KeyLock = "TimeCoin v0 key-lock";
    /// Name of a fork: the ids of its two blocks (B6).
    ForkProof = "TimeCoin v0 fork-proof";
    /// Recovery certificate (B6).
    Recovery = "TimeCoin v0 recovery";
    /// Message signed by a wallet key for a person (signmessage).
    SignedMessage = "TimeCoin v0 signed-message";
    /// Places in the address book.
    AddressBook = "TimeCoin v0 address-book";
    /// Checksum of a wallet's file.
    WalletFile = "TimeCoin v0 wallet-file";
}

// Deriving the context key costs a compression, so each is derived once.
static HASHERS: LazyLock<Vec<blake3::Hasher>> = LazyLock::new(|| {
    CONTEXTS
        .iter()
        .map(|context| blake3::Hasher::new_derive_key(context))
        .collect()
});

/// An incremental hash of one object. Also an `io::Write`, so that an encoder can write into it.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// A hash in `domain`.
    pub fn new(domain: Domain) -> Hasher {
        Hasher(HASHERS[domain as usize].clone())
    }
    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Hasher {
        self.0.update(bytes);
        self
    }
    /// The 32-byte hash of what was appended.
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
    /// Fills `out` with extended output (XOF).
    pub fn fill(&self, out: &mut [u8]) {
        self.0.finalize_xof().fill(out);
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The hash of the concatenation of `parts` in `domain`. Parts must be self-delimiting or of fixed length.
pub fn hash(domain: Domain, parts: &[&[u8]]) -> Hash {
    let mut hasher = Hasher::new(domain);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_domain_has_its_own_context() {
        let contexts: BTreeSet<_> = CONTEXTS.iter().collect();
        assert_eq!(
            contexts.len(),
            CONTEXTS.len(),
            "two kinds of objects must never share a hash"
        );
        assert_ne!(hash(Domain::Txid, &[b"a"]), hash(Domain::Wtxid, &[b"a"]));
        assert_eq!(
            hash(Domain::Txid, &[b"a", b"b"]),
            hash(Domain::Txid, &[b"ab"])
        );
    }
}
