//! Registry transactions: what their payloads must be, what the registry says to them, and what they do to it (M1, M2).
//! Signatures of masternode keys are returned as checks like those of witnesses.

use crate::base::limits::{MEMO_BYTES_MAX, TX_PAYLOAD_BYTES_MAX};
use crate::crypto::hash::Hash;
use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Check;
use crate::ledger::check::{Rules, TxError};
use crate::ledger::registry::{Entry, Registry, Standing};
use crate::ledger::state::State;
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::params::Params;
use crate::types::transaction::{
    Endpoint, Register, Tx, TxKind, TxOutput, Unregister, Update, possession_hash,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Operator keys named in this block, which take effect after its transactions (M2, B5 step 7). At most one for each
/// registry transaction of the block.
pub type PendingOperators = BTreeMap<MasternodeId, PublicKey>;

fn payload<T: DeserializeOwned>(tx: &Tx) -> Result<T, TxError> {
    let decoded = codec::decode(&tx.body().payload, TX_PAYLOAD_BYTES_MAX);
    decoded.map_err(|_| TxError::Payload(tx.body().kind))
}

fn key_form(key: &PublicKey) -> Result<(), TxError> {
    if key.is_canonical_prime_order() {
        return Ok(());
    }
    Err(TxError::KeyForm(*key))
}

/// `host:port` in printable ASCII without what would need quoting in a file, as a genesis has it.
fn endpoint_form(endpoint: &Endpoint) -> Result<(), TxError> {
    let printable = |b: &u8| b.is_ascii_graphic() && *b != b'"' && *b != b'\\';
    if endpoint.contains(&b':') && endpoint.iter().all(printable) {
        return Ok(());
    }
    Err(TxError::Endpoint)
}

/// The payload and the number of masternode signatures are those of the kind (L5).
pub(crate) fn check_payload(tx: &Tx, params: &Params) -> Result<(), TxError> {
    let body = tx.body();
    let signatures = match body.kind {
        TxKind::Transfer => {
            if body.payload.len() > MEMO_BYTES_MAX {
                return Err(TxError::Payload(body.kind));
            }
            0
        }
        TxKind::Register => {
            let register: Register = payload(tx)?;
            check_register(&register, body.outputs.first(), params)?;
            1
        }
        TxKind::Update => {
            let update: Update = payload(tx)?;
            update.operator.iter().try_for_each(key_form)?;
            update.endpoint.iter().try_for_each(endpoint_form)?;
            1 + usize::from(update.operator.is_some())
        }
        TxKind::Unregister => {
            payload::<Unregister>(tx)?;
            1
        }
        TxKind::Coinbase => return Err(TxError::Kind(body.kind)),
    };
    if tx.transaction.auth.len() != signatures {
        return Err(TxError::Auth(body.kind));
    }
    Ok(())
}

fn check_register(
    register: &Register,
    collateral: Option<&TxOutput>,
    params: &Params,
) -> Result<(), TxError> {
    let found = collateral.map_or(Amount::ZERO, |o| o.value);
    if found.whole_time() < params.min_collateral_time {
        return Err(TxError::Collateral {
            found,
            min_time: params.min_collateral_time,
        });
    }
    key_form(&register.owner)?;
    key_form(&register.operator)?;
    if register.owner == register.operator {
        return Err(TxError::KeyInUse(register.owner));
    }
    endpoint_form(&register.endpoint)
}

/// M1: a key is in at most one entry at a time.
fn key_free(key: &PublicKey, by: Option<&MasternodeId>, rules: Rules<'_>) -> Result<(), TxError> {
    let pending = |(id, k): (&MasternodeId, &PublicKey)| k == key && Some(id) != by;
    if rules.registry.by_key(key).is_some() || rules.pending.iter().any(pending) {
        return Err(TxError::KeyInUse(*key));
    }
    Ok(())
}

/// Whether the registry lets the transaction in; the signature checks that remain for masternode keys. `message` is
/// its signature hash.
pub(crate) fn judge(tx: &Tx, message: &Hash, rules: Rules<'_>) -> Result<Vec<Check>, TxError> {
    let kind = tx.body().kind;
    let sign = |i: usize, key: PublicKey, message: Hash| {
        let signature = tx.transaction.auth.get(i).copied();
        signature
            .map(|signature| Check {
                key,
                message,
                signature,
            })
            .ok_or(TxError::Auth(kind))
    };
    let entry = |id: &MasternodeId| {
        let found = rules.registry.get(id);
        found.ok_or(TxError::UnknownMasternode(*id))
    };
    match kind {
        TxKind::Transfer => Ok(Vec::new()),
        TxKind::Register => {
            let register: Register = payload(tx)?;
            let max = rules.chain.params.max_registered;
            if rules.registry.len() as u64 >= max {
                return Err(TxError::RegistryFull(max));
            }
            key_free(&register.owner, None, rules)?;
            key_free(&register.operator, None, rules)?;
            Ok(vec![sign(0, register.operator, possession_hash(message))?])
        }
        TxKind::Update => {
            let update: Update = payload(tx)?;
            let mut checks = vec![sign(0, entry(&update.id)?.owner, *message)?];
            if let Some(operator) = update.operator {
                key_free(&operator, Some(&update.id), rules)?;
                checks.push(sign(1, operator, possession_hash(message))?);
            }
            Ok(checks)
        }
        TxKind::Unregister => {
            let Unregister { id } = payload(tx)?;
            let entry = entry(&id)?;
            if entry.is_leaving() {
                return Err(TxError::Leaving(id));
            }
            Ok(vec![sign(0, entry.owner, *message)?])
        }
        TxKind::Coinbase => Err(TxError::Kind(kind)),
    }
}

/// Why the registry refuses a transaction that it had let in, if it does: for the mempool, which holds it.
pub(crate) fn stale_registration(tx: &Tx, state: &State) -> Option<&'static str> {
    let pending = PendingOperators::new();
    let rules = Rules {
        chain: &state.chain,
        branch: state.tip.branch,
        registry: state.registry(),
        pending: &pending,
    };
    // Signatures were checked when it came in; which message they are of does not matter here.
    Some(match judge(tx, &Hash::ZERO, rules).err()? {
        TxError::UnknownMasternode(_) => "its masternode is not registered any more",
        TxError::KeyInUse(_) => "one of its keys belongs to a registered masternode now",
        TxError::Leaving(_) => "its masternode is already leaving",
        TxError::RegistryFull(_) => "the registry is full",
        _ => "the registry does not let it in any more",
    })
}

/// B5 step 6: what a judged registry transaction does.
pub(crate) fn perform(
    tx: &Tx,
    registry: &mut Registry,
    pending: &mut PendingOperators,
    now: SlotIndex,
) -> Result<(), TxError> {
    match tx.body().kind {
        TxKind::Register => {
            let collateral = tx.body().outputs.first().copied();
            let collateral = collateral.ok_or(TxError::Payload(TxKind::Register))?;
            registry.insert(new_entry(tx, payload(tx)?, collateral, now));
        }
        TxKind::Update => {
            let update: Update = payload(tx)?;
            if let Some(entry) = registry.get_mut(&update.id) {
                entry.payout = update.payout.unwrap_or(entry.payout);
                if let Some(endpoint) = update.endpoint {
                    entry.endpoint = endpoint;
                    entry.endpoint_named = now;
                }
            }
            if let Some(operator) = update.operator {
                pending.insert(update.id, operator);
            }
        }
        TxKind::Unregister => {
            let Unregister { id } = payload(tx)?;
            if let Some(entry) = registry.get_mut(&id) {
                entry.leaving = Some(now);
            }
        }
        TxKind::Transfer | TxKind::Coinbase => {}
    }
    Ok(())
}

/// A new registration starts jailed (M5); its id is its txid (M1).
fn new_entry(tx: &Tx, register: Register, collateral: TxOutput, now: SlotIndex) -> Entry {
    Entry {
        id: MasternodeId(tx.txid.0),
        owner: register.owner,
        operator: register.operator,
        former_operators: Vec::new(),
        payout: register.payout,
        endpoint: register.endpoint,
        endpoint_named: now,
        collateral,
        burned: Amount::ZERO,
        accrued: Amount::ZERO,
        registered: now,
        present: 0,
        absent: 0,
        standing: Standing::Jailed { since: now },
        counts: false,
        queued: None,
        leaving: None,
        slashed: None,
    }
}
