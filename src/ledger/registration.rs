//! Payloads of transactions and what the registry says to them (M1, M2).

use crate::base::limits::MEMO_BYTES_MAX;
use crate::crypto::hash::Hash;
use crate::crypto::verify::Check;
use crate::ledger::check::{Rules, TxError};
use crate::types::params::Params;
use crate::types::transaction::{Tx, TxKind};

/// The payload of a transfer is a memo, and it carries no signature of a masternode key (L5).
pub(crate) fn check_payload(tx: &Tx, _params: &Params) -> Result<(), TxError> {
    let kind = tx.body().kind;
    if kind != TxKind::Transfer {
        return Err(TxError::Kind(kind));
    }
    if tx.body().payload.len() > MEMO_BYTES_MAX {
        return Err(TxError::Payload(kind));
    }
    if !tx.transaction.auth.is_empty() {
        return Err(TxError::Auth(kind));
    }
    Ok(())
}

/// Whether the registry lets the transaction in; the signature checks that remain for masternode keys.
pub(crate) fn judge(tx: &Tx, _message: &Hash, _rules: Rules<'_>) -> Result<Vec<Check>, TxError> {
    let kind = tx.body().kind;
    match kind {
        TxKind::Transfer => Ok(Vec::new()),
        _ => Err(TxError::Kind(kind)),
    }
}
