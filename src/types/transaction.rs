//! Transactions (L3-L5). What moves money and what it means to sign it; whether a coin may move is the ledger's question.
//!
//! The body is what a txid names; witnesses (for inputs) and `auth` (for masternode keys) are left out of it, so nobody can
//! change a txid without the owner's keys. The wtxid names all of it.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::limits::*;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::{PublicKey, Signature};
use crate::types::address::{Policy, Program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The transaction version of branch 0.
pub const TX_VERSION: u16 = 1;

/// What a transaction does (L5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TxKind {
    /// Moves coins; the payload is a memo.
    Transfer,
    /// Moves its output 0 into the registry as collateral (M1). Slot blocks only.
    Register,
    /// Changes endpoint, payout or operator key (M2). Slot blocks only.
    Update,
    /// Asks to leave (M2). Slot blocks only.
    Unregister,
    /// Pays what a slot block owes (B5 step 9). First in a slot block only.
    Coinbase,
}

impl TxKind {
    /// Register, Update or Unregister.
    pub fn is_registry(self) -> bool {
        matches!(self, TxKind::Register | TxKind::Update | TxKind::Unregister)
    }
}

/// A new coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxOutput {
    /// How much.
    pub value: Amount,
    /// Who may spend it.
    pub program: Program,
}

/// A masternode's `host:port`, ASCII.
pub type Endpoint = BoundedBytes<ENDPOINT_BYTES_MAX>;

/// What a txid names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxBody {
    /// [`TX_VERSION`]; others are invalid until an upgrade activates them.
    pub version: u16,
    /// What it does.
    pub kind: TxKind,
    /// Outputs it spends, distinct.
    pub inputs: BoundedVec<OutPoint, TX_INPUT_COUNT_MAX>,
    /// Outputs it makes.
    pub outputs: BoundedVec<TxOutput, COINBASE_OUTPUT_COUNT_MAX>,
    /// Memo of a transfer, encoded payload of the other kinds.
    pub payload: BoundedBytes<TX_PAYLOAD_BYTES_MAX>,
}

impl TxBody {
    /// The txid.
    pub fn txid(&self) -> Txid {
        Txid(codec::hash_of(Domain::Txid, self))
    }

    /// What the keys of the inputs and a masternode's owner sign (L5): everything but witnesses, the spent outputs, the
    /// network and the rule set.
    pub fn signature_hash(&self, chain: ChainId, branch: Branch, spent: &[TxOutput]) -> Hash {
        codec::hash_of(Domain::Transaction, &(chain, branch, self, spent))
    }
}

/// What an operator key signs to show that its holder agrees to a registration or a change of key (M1).
pub fn possession_hash(signature_hash: &Hash) -> Hash {
    crate::crypto::hash::hash(Domain::RegistrationPop, &[&signature_hash.0])
}

/// One signature of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySignature {
    /// Position of the key in the policy.
    pub index: u8,
    /// Its signature.
    pub signature: Signature,
}

/// What unlocks one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witness {
    /// For version 1: the key's signature.
    Key(Signature),
    /// For version 2: the policy and exactly `threshold` signatures, key indexes strictly ascending.
    Policy {
        /// The policy whose hash is the program.
        policy: Policy,
        /// The signatures.
        signatures: BoundedVec<KeySignature, POLICY_KEY_COUNT_MAX>,
    },
}

/// Signatures of masternode keys beside the witnesses: Register: operator (possession); Update: owner, then the new
/// operator (possession) if it changes; Unregister: owner; other kinds: none.
pub type Auth = BoundedVec<Signature, 2>;

/// A transaction as sent and stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What the txid names.
    pub body: TxBody,
    /// One for each input, in order.
    pub witnesses: BoundedVec<Witness, TX_INPUT_COUNT_MAX>,
    /// Signatures of masternode keys.
    pub auth: Auth,
}

/// An immutable transaction with its names and size, shared cheaply. Encodes as the [`Transaction`] alone.
#[derive(Clone)]
pub struct Tx(Arc<TxData>);

/// A transaction with what is derived from it.
pub struct TxData {
    /// The transaction.
    pub transaction: Transaction,
    /// Its txid.
    pub txid: Txid,
    /// Its wtxid.
    pub wtxid: Wtxid,
    /// Its encoded size in bytes, with witnesses.
    pub size: usize,
}

impl Tx {
    /// Names a transaction.
    pub fn new(transaction: Transaction) -> Tx {
        let txid = transaction.body.txid();
        let wtxid = Wtxid(codec::hash_of(Domain::Wtxid, &transaction));
        let size = codec::encoded_len(&transaction);
        Tx(Arc::new(TxData {
            transaction,
            txid,
            wtxid,
            size,
        }))
    }
    /// The body.
    pub fn body(&self) -> &TxBody {
        &self.0.transaction.body
    }
    /// The outpoint of output `vout`.
    pub fn outpoint(&self, vout: u32) -> OutPoint {
        OutPoint {
            txid: self.0.txid,
            vout,
        }
    }
}

impl Deref for Tx {
    type Target = TxData;
    fn deref(&self) -> &TxData {
        &self.0
    }
}

impl PartialEq for Tx {
    fn eq(&self, other: &Tx) -> bool {
        self.wtxid == other.wtxid
    }
}

impl Eq for Tx {}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tx({:?} {:?})",
            self.0.transaction.body.kind, self.0.txid
        )
    }
}

impl Serialize for Tx {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.transaction.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tx {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tx, D::Error> {
        Transaction::deserialize(deserializer).map(Tx::new)
    }
}

/// Payload of [`TxKind::Register`]. The collateral is output 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Cold key: signs updates and the wish to leave.
    pub owner: PublicKey,
    /// Hot key: signs consensus messages.
    pub operator: PublicKey,
    /// Where rewards go.
    pub payout: Program,
    /// Where the node is reached.
    pub endpoint: Endpoint,
}

/// Payload of [`TxKind::Update`]. What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which masternode.
    pub id: MasternodeId,
    /// New operator key.
    pub operator: Option<PublicKey>,
    /// New payout program.
    pub payout: Option<Program>,
    /// New endpoint.
    pub endpoint: Option<Endpoint>,
}

/// Payload of [`TxKind::Unregister`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unregister {
    /// Which masternode.
    pub id: MasternodeId,
}

/// Payload of [`TxKind::Coinbase`]: makes each coinbase's txid unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoinbasePayload {
    /// Height of its block.
    pub height: Height,
    /// slot_index of its block.
    pub slot_index: SlotIndex,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::SecretKey;

    fn sample() -> Transaction {
        let key = SecretKey::from_seed(&[1; 32]);
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from([OutPoint {
                txid: Txid(Hash([2; 32])),
                vout: 3,
            }]),
            outputs: BoundedVec::take_from([TxOutput {
                value: Amount(5),
                program: Program::Key(key.public()),
            }]),
            payload: BoundedBytes::try_from(b"hi".to_vec()).unwrap(),
        };
        let signature = key.sign(&body.signature_hash(ChainId::default(), Branch(0), &[]));
        Transaction {
            body,
            witnesses: BoundedVec::take_from([Witness::Key(signature)]),
            auth: Auth::new(),
        }
    }

    #[test]
    fn witnesses_change_the_wtxid_and_not_the_txid() {
        let a = Tx::new(sample());
        let mut other = sample();
        other.witnesses = BoundedVec::take_from([Witness::Key(Signature([0; 64]))]);
        let b = Tx::new(other);
        assert_eq!(a.txid, b.txid, "L4");
        assert_ne!(a.wtxid, b.wtxid, "L4");
        let bytes = codec::encode(&a);
        assert_eq!(bytes.len(), a.size);
        assert_eq!(codec::decode::<Tx>(&bytes, TX_BYTES_MAX).unwrap(), a);
    }

    #[test]
    fn the_signature_hash_covers_network_branch_and_spent_outputs() {
        let body = sample().body;
        let spent = [TxOutput {
            value: Amount(1),
            program: Program::Policy(Hash::ZERO),
        }];
        let base = body.signature_hash(ChainId::default(), Branch(0), &spent);
        assert_ne!(
            base,
            body.signature_hash(ChainId(Hash([1; 32])), Branch(0), &spent),
            "L5: chain"
        );
        assert_ne!(
            base,
            body.signature_hash(ChainId::default(), Branch(1), &spent),
            "L5: branch"
        );
        assert_ne!(
            base,
            body.signature_hash(ChainId::default(), Branch(0), &[]),
            "L5: spent outputs"
        );
        let mut more = body.clone();
        more.payload = BoundedBytes::default();
        assert_ne!(
            base,
            more.signature_hash(ChainId::default(), Branch(0), &spent),
            "L5: payload"
        );
    }
}
