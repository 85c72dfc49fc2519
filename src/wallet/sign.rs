//! Signing transactions and messages with keys at hand. Pure: who holds which key is the caller's business.
//!
//! A transaction on its way to be signed carries a witness for every input from the start: [`UNSIGNED`] for a key, the
//! policy with the signatures collected so far for an m-of-n policy. So its size, and with it the fee, is known beforehand.

use super::error::WalletError;
use crate::base::bounded::BoundedVec;
use crate::crypto::hash::{Domain, Hash, hash};
use crate::crypto::keys::{PublicKey, SecretKey, Signature};
use crate::crypto::verify::Check;
use crate::types::address::{Policy, Program};
use crate::types::ids::{Branch, ChainId};
use crate::types::transaction::*;

/// The place of a signature that is still missing.
pub const UNSIGNED: Signature = Signature([0; 64]);

/// A transaction after a round of signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// With the signatures that could be made.
    pub transaction: Transaction,
    /// Indexes of the inputs whose witness is not complete yet.
    pub unsigned: Vec<usize>,
}

impl Signed {
    /// Whether every input is unlocked.
    pub fn is_complete(&self) -> bool {
        self.unsigned.is_empty()
    }
}

/// A transaction with a place for a key's signature at every input.
pub fn unsigned(body: TxBody) -> Transaction {
    let witnesses = body.inputs.iter().map(|_| Witness::Key(UNSIGNED));
    Transaction {
        witnesses: BoundedVec::take_from(witnesses),
        body,
        auth: Auth::new(),
    }
}

/// Who holds which key.
pub type KeyFinder<'a> = &'a dyn Fn(&PublicKey) -> Option<SecretKey>;

/// Adds the signatures that `keys` can make. `spent` are the outputs its inputs spend, in order; all of them are signed
/// (L5), so all must be known. `policies` are m-of-n policies behind programs of version 2 that the witnesses do not name.
pub fn sign_with(
    transaction: &Transaction,
    spent: &[TxOutput],
    policies: &[Policy],
    keys: KeyFinder<'_>,
    chain: ChainId,
    branch: Branch,
) -> Result<Signed, WalletError> {
    let mut transaction = transaction.clone();
    if spent.len() != transaction.body.inputs.len() {
        return Err(WalletError::Invalid(
            "every spent output must be known to sign: name those of unknown transactions".into(),
        ));
    }
    let message = transaction.body.signature_hash(chain, branch, spent);
    let mut witnesses = transaction.witnesses.into_vec();
    witnesses.resize(spent.len(), Witness::Key(UNSIGNED));
    let mut unsigned = Vec::new();
    for (index, (witness, output)) in witnesses.iter_mut().zip(spent).enumerate() {
        let complete = match output.program {
            Program::Key(key) => sign_key(witness, key, &message, keys),
            Program::Policy(_) => sign_policy(witness, output.program, policies, &message, keys),
        };
        if !complete {
            unsigned.push(index);
        }
    }
    transaction.witnesses = BoundedVec::take_from(witnesses);
    Ok(Signed {
        transaction,
        unsigned,
    })
}

fn is_good(key: PublicKey, message: &Hash, signature: Signature) -> bool {
    let message = *message;
    Check {
        key,
        message,
        signature,
    }
    .verify()
}

fn sign_key(witness: &mut Witness, key: PublicKey, message: &Hash, keys: KeyFinder<'_>) -> bool {
    if let Some(secret) = keys(&key) {
        *witness = Witness::Key(secret.sign(message));
        return true;
    }
    matches!(witness, Witness::Key(s) if *s != UNSIGNED && is_good(key, message, *s))
}

fn sign_policy(
    witness: &mut Witness,
    program: Program,
    policies: &[Policy],
    message: &Hash,
    keys: KeyFinder<'_>,
) -> bool {
    let named = match witness {
        Witness::Policy { policy, .. } if policy.program() == program => Some(policy.clone()),
        _ => policies.iter().find(|p| p.program() == program).cloned(),
    };
    let Some(policy) = named else {
        return false;
    };
    let before: Vec<KeySignature> = match &*witness {
        Witness::Policy { signatures, .. } => signatures.to_vec(),
        Witness::Key(_) => Vec::new(),
    };
    let mut collected = Vec::new();
    for (index, key) in (0u8..).zip(policy.keys.iter()) {
        if collected.len() >= usize::from(policy.threshold) {
            break;
        }
        let had = before.iter().find(|s| s.index == index);
        let had = had.map(|s| s.signature);
        let had = had.filter(|s| is_good(*key, message, *s));
        let signature = had.or_else(|| keys(key).map(|secret| secret.sign(message)));
        if let Some(signature) = signature {
            collected.push(KeySignature { index, signature });
        }
    }
    let complete = collected.len() == usize::from(policy.threshold);
    *witness = Witness::Policy {
        policy,
        signatures: BoundedVec::take_from(collected),
    };
    complete
}

/// What is signed for a message to a person (signmessage): H(signed-message, text).
pub fn message_hash(text: &str) -> Hash {
    hash(Domain::SignedMessage, &[text.as_bytes()])
}

/// Whether a signature of a message is by the key behind a program of version 1.
pub fn verify_message(program: &Program, signature: Signature, text: &str) -> bool {
    matches!(program, Program::Key(key) if is_good(*key, &message_hash(text), signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bounded::BoundedBytes;
    use crate::types::amount::Amount;
    use crate::types::ids::{OutPoint, Txid};

    fn key(number: u8) -> SecretKey {
        SecretKey::from_seed(&[number; 32])
    }
    fn body(inputs: u32) -> TxBody {
        let outpoint = |vout| OutPoint {
            txid: Txid::default(),
            vout,
        };
        TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from((0..inputs).map(outpoint)),
            outputs: BoundedVec::new(),
            payload: BoundedBytes::default(),
        }
    }
    fn locked(program: Program) -> TxOutput {
        TxOutput {
            value: Amount(5),
            program,
        }
    }
    fn sign(tx: &Transaction, spent: &[TxOutput], policies: &[Policy], with: &[u8]) -> Signed {
        let find = |wanted: &PublicKey| {
            let mut held = with.iter().map(|n| key(*n));
            held.find(|k| k.public() == *wanted)
        };
        sign_with(tx, spent, policies, &find, ChainId::default(), Branch(0)).unwrap()
    }

    #[test]
    fn a_key_signs_its_inputs_and_no_other() {
        let spent = [1, 2].map(|n| locked(Program::Key(key(n).public())));
        let first = sign(&unsigned(body(2)), &spent, &[], &[1]);
        assert_eq!(first.unsigned, [1]);
        let second = sign(&first.transaction, &spent, &[], &[2]);
        assert!(second.is_complete(), "signatures made before stay");
        assert_eq!(
            second.transaction,
            sign(&unsigned(body(2)), &spent, &[], &[1, 2]).transaction
        );
        let mut spoiled = second.transaction;
        spoiled.body.payload = BoundedBytes::try_from(vec![1]).unwrap();
        assert_eq!(
            sign(&spoiled, &spent, &[], &[]).unsigned,
            [0, 1],
            "a changed body voids what was signed"
        );
    }

    #[test]
    fn holders_of_a_policy_sign_one_after_the_other() {
        let mut keys: Vec<PublicKey> = [1, 2, 3].map(|n| key(n).public()).to_vec();
        keys.sort();
        let policy = Policy {
            threshold: 2,
            keys: BoundedVec::take_from(keys),
        };
        let spent = [locked(policy.program())];
        let unnamed = sign(&unsigned(body(1)), &spent, &[], &[1]);
        assert!(!unnamed.is_complete(), "the policy must be named first");
        let one = sign(&unsigned(body(1)), &spent, &[policy], &[3]);
        assert_eq!(one.unsigned, [0], "L3: exactly m signatures");
        let two = sign(&one.transaction, &spent, &[], &[1, 2, 3]);
        assert!(two.is_complete());
        let Witness::Policy { signatures, .. } = &two.transaction.witnesses[0] else {
            panic!("a policy witness");
        };
        assert_eq!(signatures.len(), 2);
        assert!(signatures[0].index < signatures[1].index, "L3: ascending");
    }

    #[test]
    fn signed_messages_verify_under_the_address_only() {
        let program = Program::Key(key(4).public());
        let signature = key(4).sign(&message_hash("hello"));
        assert!(verify_message(&program, signature, "hello"));
        assert!(!verify_message(&program, signature, "hullo"));
        let policy = Program::Policy(Hash::ZERO);
        assert!(!verify_message(&policy, signature, "hello"));
    }
}
