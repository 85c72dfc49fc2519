//! Coins for registry transactions: a registration's collateral and the fees of all three kinds (M1, M2).
//!
//! The collateral may be a coin that is not ours (its key is kept offline): it is spent first and named by the caller with
//! the output behind it. Our coins pay what it does not. Nothing is signed here and nothing is reserved.

use super::api::Wallet;
use super::error::WalletError;
use super::selection::{self, FeePolicy, Need, Selection, Terms};
use super::sign::UNSIGNED;
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::ids::OutPoint;
use crate::types::transaction::*;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that a signature of a masternode key adds.
const AUTH_BYTES: usize = 64;

/// A registry transaction before anybody pays for it.
#[derive(Debug, Clone)]
pub struct RegistryDraft {
    /// Register, Update or Unregister.
    pub kind: TxKind,
    /// Coins it spends in any case, with what they hold: the collateral. All locked to keys.
    pub preset: Vec<(OutPoint, TxOutput)>,
    /// Output 0: the collateral of a registration.
    pub first: Option<TxOutput>,
    /// Encoded payload.
    pub payload: Vec<u8>,
    /// Signatures of masternode keys that it needs.
    pub auth: usize,
    /// Only coins of this program pay the rest; `None`: any of ours.
    pub fee_from: Option<Program>,
}

/// A registry transaction that somebody pays for.
#[derive(Debug, Clone)]
pub struct RegistryFunded {
    /// With a place for every signature, and none made.
    pub transaction: Transaction,
    /// What its inputs spend, in order.
    pub spent: Vec<TxOutput>,
    /// What it pays to the network.
    pub fee: Amount,
}

impl RegistryDraft {
    fn need(&self, policy: &FeePolicy, terms: &Terms) -> Need {
        Need {
            target: self.first.map_or(Amount::ZERO, |output| output.value),
            output_count: usize::from(self.first.is_some()),
            payload_bytes: self.payload.len() + self.auth * AUTH_BYTES,
            fee_from_outputs: false,
            rate_per_kb: policy.rate(terms),
        }
    }

    fn preset_values(&self) -> Vec<(Amount, OutPoint)> {
        let preset = self.preset.iter();
        preset.map(|(o, output)| (output.value, *o)).collect()
    }

    /// The transaction that spends `found`; `known` are the coins it chose from. Change returns to where the collateral
    /// was if nothing else pays, else to `change`.
    fn finish(
        &self,
        found: Selection,
        known: &BTreeMap<OutPoint, TxOutput>,
        change: Program,
    ) -> Result<RegistryFunded, WalletError> {
        let preset: BTreeMap<OutPoint, TxOutput> = self.preset.iter().copied().collect();
        let mut spent = Vec::with_capacity(found.inputs.len());
        for (_, outpoint) in &found.inputs {
            let output = preset.get(outpoint).or_else(|| known.get(outpoint));
            spent.push(*output.ok_or_else(|| {
                WalletError::Invalid(format!("the coin {outpoint} is not known"))
            })?);
        }
        let alone = found.inputs.len() == self.preset.len();
        let back = self.preset.first().filter(|_| alone);
        let program = back.map_or(change, |(_, output)| output.program);
        let change = found.change.map(|value| TxOutput { value, program });
        let payload = BoundedBytes::try_from(self.payload.clone());
        let body = TxBody {
            version: TX_VERSION,
            kind: self.kind,
            inputs: BoundedVec::take_from(found.inputs.iter().map(|(_, outpoint)| *outpoint)),
            outputs: BoundedVec::take_from(self.first.into_iter().chain(change)),
            payload: payload.map_err(|e| WalletError::Invalid(format!("payload: {e}")))?,
        };
        Ok(RegistryFunded {
            transaction: Transaction {
                witnesses: BoundedVec::take_from(spent.iter().map(|_| Witness::Key(UNSIGNED))),
                auth: BoundedVec::take_from((0..self.auth).map(|_| UNSIGNED)),
                body,
            },
            spent,
            fee: found.fee,
        })
    }
}

/// A registration whose collateral coin pays the fee itself: what is more than the collateral, the change going back to
/// where the coin was.
pub fn fund_alone(
    draft: &RegistryDraft,
    policy: &FeePolicy,
    terms: &Terms,
) -> Result<RegistryFunded, WalletError> {
    let change = draft.preset.first().map(|(_, output)| output.program);
    let change = change.ok_or_else(|| {
        WalletError::Invalid("without a wallet there is no coin that pays the fee".into())
    })?;
    let need = draft.need(policy, terms);
    let found = selection::select(&draft.preset_values(), &BTreeSet::new(), &need, terms)?;
    draft.finish(found, &BTreeMap::new(), change)
}

impl Wallet {
    /// Adds what our coins pay, and change. Signs and reserves nothing: `sign` and `commit` do.
    pub fn fund_registry(
        &self,
        draft: &RegistryDraft,
        policy: &FeePolicy,
        terms: &Terms,
    ) -> Result<RegistryFunded, WalletError> {
        let (need, preset) = (draft.need(policy, terms), draft.preset_values());
        let of = |outpoint: &OutPoint| self.coins.get(outpoint).map(|coin| coin.output);
        let found = match draft.fee_from {
            None => self.choose(&preset, &need, terms)?,
            Some(program) => {
                let free = self.coins.free_confirmed().iter();
                let from = |(_, o): &&(Amount, OutPoint)| {
                    of(o).is_some_and(|output| output.program == program)
                };
                selection::select(&preset, &free.filter(from).copied().collect(), &need, terms)?
            }
        };
        let chosen = found.inputs.iter();
        let known = chosen.filter_map(|(_, o)| Some((*o, of(o)?))).collect();
        draft.finish(found, &known, self.book.change())
    }
}
