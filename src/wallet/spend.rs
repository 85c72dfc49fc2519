//! Making, signing and remembering the wallet's own transactions.

use super::api::Wallet;
use super::error::WalletError;
use super::follow::made;
use super::pending::PendingEntry;
use super::selection::{self, FeePolicy, Need, Selection, Terms};
use super::sign::{self, Signed};
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::limits::{ANCESTOR_BYTES_MAX, ANCESTOR_COUNT_MAX, MEMO_BYTES_MAX};
use crate::base::time::Now;
use crate::crypto::keys::{PublicKey, Signature};
use crate::types::address::{Policy, Program};
use crate::types::amount::Amount;
use crate::types::ids::{OutPoint, Txid};
use crate::types::transaction::*;
use std::collections::{BTreeMap, BTreeSet};

/// A transaction made by the wallet.
#[derive(Debug, Clone)]
pub struct Created {
    /// Signed, ready to be sent.
    pub tx: Tx,
    /// What it pays to the network.
    pub fee: Amount,
    /// Index of the output that is our change.
    pub change: Option<u32>,
}

/// A transaction that got inputs and change.
#[derive(Debug, Clone)]
pub struct Funded {
    /// With all inputs and outputs, unsigned.
    pub body: TxBody,
    /// What it pays to the network.
    pub fee: Amount,
    /// Index of the output that is our change.
    pub change: Option<u32>,
}

impl Wallet {
    /// Makes and signs a transfer. Reserves nothing: `commit` does.
    pub fn create_transaction(
        &self,
        outputs: &[TxOutput],
        memo: &[u8],
        policy: &FeePolicy,
        terms: &Terms,
    ) -> Result<Created, WalletError> {
        if self.is_locked() {
            return Err(WalletError::Locked);
        }
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::new(),
            outputs: BoundedVec::try_from(outputs.to_vec())
                .map_err(|e| WalletError::Invalid(format!("outputs: {e}")))?,
            payload: BoundedBytes::try_from(memo.to_vec())
                .map_err(|e| WalletError::Invalid(format!("memo: {e}")))?,
        };
        let funded = self.fund(&body, policy, terms)?;
        let spent = self.spent_outputs(&funded.body)?;
        let signed = self.sign(&sign::unsigned(funded.body), &spent, &[], terms)?;
        if !signed.is_complete() {
            return Err(WalletError::Locked);
        }
        Ok(Created {
            tx: Tx::new(signed.transaction),
            fee: funded.fee,
            change: funded.change,
        })
    }

    fn spent_outputs(&self, body: &TxBody) -> Result<Vec<TxOutput>, WalletError> {
        let known = |input: &OutPoint| {
            let coin = self.coins.get(input).map(|coin| coin.output);
            coin.ok_or_else(|| WalletError::Invalid(format!("{input} is no coin of this wallet")))
        };
        body.inputs.iter().map(known).collect()
    }

    /// Adds inputs and change to a transfer. Inputs it has already must be coins of ours.
    pub fn fund(
        &self,
        body: &TxBody,
        policy: &FeePolicy,
        terms: &Terms,
    ) -> Result<Funded, WalletError> {
        check_outputs(body, terms)?;
        let mut preset = Vec::with_capacity(body.inputs.len());
        for (input, output) in body.inputs.iter().zip(self.spent_outputs(body)?) {
            preset.push((output.value, *input));
        }
        let overflow = || WalletError::Invalid("the amounts overflow".into());
        let target = Amount::sum(body.outputs.iter().map(|o| o.value)).ok_or_else(overflow)?;
        let need = Need {
            target,
            output_count: body.outputs.len(),
            payload_bytes: body.payload.len(),
            fee_from_outputs: !policy.subtract_from.is_empty(),
            rate_per_kb: policy.rate(terms),
        };
        let found = self.choose(&preset, &need, terms)?;
        let mut outputs = body.outputs.to_vec();
        if need.fee_from_outputs {
            // Without change the coins may leave more than the outputs: that part is paid already.
            let inputs = Amount::sum(found.inputs.iter().map(|(v, _)| *v)).ok_or_else(overflow)?;
            let over = match found.change {
                Some(_) => Amount::ZERO,
                None => inputs.minus(target).unwrap_or_default(),
            };
            let owed = found.fee.minus(over).unwrap_or_default();
            subtract(&mut outputs, &policy.subtract_from, owed, terms)?;
        }
        let change = found.change.map(|_| outputs.len() as u32);
        outputs.extend(found.change.map(|value| TxOutput {
            value,
            program: self.book.change(),
        }));
        let inputs = found.inputs.into_iter().map(|(_, outpoint)| outpoint);
        let body = TxBody {
            inputs: BoundedVec::take_from(inputs),
            outputs: BoundedVec::take_from(outputs),
            ..body.clone()
        };
        let fee = found.fee;
        Ok(Funded { body, fee, change })
    }

    /// Confirmed coins if they are enough; else our unconfirmed change too, as far as the network accepts chains of
    /// transactions that wait for each other.
    pub(super) fn choose(
        &self,
        preset: &[(Amount, OutPoint)],
        need: &Need,
        terms: &Terms,
    ) -> Result<Selection, WalletError> {
        let confirmed = self.coins.free_confirmed();
        let first = selection::select(preset, confirmed, need, terms);
        let lacking = matches!(first, Err(WalletError::Insufficient { .. }));
        if !lacking || self.coins.free_unconfirmed().is_empty() {
            return first;
        }
        // Not enough together, so the largest that fit into one transaction are all that can matter.
        let largest = confirmed.iter().rev().take(terms.tx_input_count);
        let mut pool: BTreeSet<_> = largest.copied().collect();
        let mut ancestors = Ancestors::default();
        for (_, outpoint) in preset {
            self.add_ancestors(outpoint, &mut ancestors);
        }
        for coin in self.coins.free_unconfirmed().iter().rev() {
            let mut with = ancestors.clone();
            if self.add_ancestors(&coin.1, &mut with) {
                pool.insert(*coin);
                ancestors = with;
            }
        }
        selection::select(preset, &pool, need, terms)
    }

    /// Adds the pending transactions that a coin builds on; false when they are too many for the network.
    fn add_ancestors(&self, outpoint: &OutPoint, ancestors: &mut Ancestors) -> bool {
        let mut waiting = vec![outpoint.txid];
        while let Some(txid) = waiting.pop() {
            let Some(entry) = self.pending.get(&txid) else {
                continue;
            };
            if ancestors.txids.insert(txid) {
                ancestors.bytes += entry.tx.size;
                waiting.extend(entry.tx.body().inputs.iter().map(|input| input.txid));
            }
            if ancestors.txids.len() > ANCESTOR_COUNT_MAX
                || ancestors.bytes > ANCESTOR_BYTES_MAX / 2
            {
                return false;
            }
        }
        true
    }

    /// Signs what our keys can sign. `spent` are the outputs its inputs spend, in order.
    pub fn sign(
        &self,
        transaction: &Transaction,
        spent: &[TxOutput],
        policies: &[Policy],
        terms: &Terms,
    ) -> Result<Signed, WalletError> {
        if self.is_locked() {
            return Err(WalletError::Locked);
        }
        // Many inputs often share a key: each is derived once.
        let mut keys = BTreeMap::new();
        let programs = spent.iter().map(|output| output.program);
        let listed = policies.iter().flat_map(|p| p.keys.iter().copied());
        let in_witnesses = transaction
            .witnesses
            .iter()
            .flat_map(|witness| match witness {
                Witness::Policy { policy, .. } => policy.keys.to_vec(),
                Witness::Key(_) => Vec::new(),
            });
        for program in programs.chain(listed.chain(in_witnesses).map(Program::Key)) {
            if let Program::Key(public) = program
                && !keys.contains_key(&public)
                && let Some(secret) = self.key_for(&program)?
            {
                keys.insert(public, secret);
            }
        }
        let find = |public: &PublicKey| keys.get(public).cloned();
        sign::sign_with(
            transaction,
            spent,
            policies,
            &find,
            terms.chain,
            terms.branch,
        )
    }

    /// Signs a message with the key of one of our addresses.
    pub fn sign_message(&self, program: &Program, text: &str) -> Result<Signature, WalletError> {
        let key = self.key_for(program)?;
        let key =
            key.ok_or_else(|| WalletError::Invalid("the address is not of this wallet".into()))?;
        Ok(key.sign(&sign::message_hash(text)))
    }

    /// Remembers a transaction as pending and reserves what it spends; survives the end of the process. Call before it is
    /// sent; `abandon` if it was refused. One that is pending already changes nothing. `Taken`: a coin was chosen while the
    /// wallet was not held, and another payment was quicker.
    pub fn commit(&mut self, tx: &Tx, now: Now) -> Result<(), WalletError> {
        if self.pending.get(&tx.txid).is_some() || self.history.get(&tx.txid).is_some() {
            return Ok(());
        }
        if !self.pending.has_room() {
            return Err(WalletError::TooLarge(
                "too many payments wait to become final: try again when some are".into(),
            ));
        }
        let inputs = tx.body().inputs.iter();
        for coin in inputs.clone() {
            if let Some(by) = self.coins.reserved_by(coin) {
                return Err(WalletError::Taken { coin: *coin, by });
            }
        }
        let ours: Vec<Amount> = inputs
            .filter_map(|input| Some(self.coins.get(input)?.output.value))
            .collect();
        let all_ours = ours.len() == tx.body().inputs.len();
        let overflow = || WalletError::Invalid("the amounts overflow".into());
        let debit = Amount::sum(ours).ok_or_else(overflow)?;
        let outputs = &tx.body().outputs;
        let total = Amount::sum(outputs.iter().map(|o| o.value)).ok_or_else(overflow)?;
        let own = made(tx).filter(|(_, o)| self.is_own(&o.program));
        let credit = Amount::sum(own.map(|(_, o)| o.value)).ok_or_else(overflow)?;
        let entry = PendingEntry {
            chain: self.chain,
            created: now.wall,
            debit,
            credit,
            fee: debit.minus(total).filter(|_| all_ours),
            tx: tx.clone(),
        };
        self.pending.insert(&self.files.pending(), entry)?;
        self.pending.note_sent(&tx.txid, now.mono);
        self.reserve(tx, debit);
        Ok(())
    }

    /// `create_transaction` and `commit` in one step.
    pub fn send(
        &mut self,
        outputs: &[TxOutput],
        memo: &[u8],
        policy: &FeePolicy,
        terms: &Terms,
        now: Now,
    ) -> Result<Created, WalletError> {
        let created = self.create_transaction(outputs, memo, policy, terms)?;
        self.commit(&created.tx, now)?;
        Ok(created)
    }

    /// Forgets a pending transaction and those that build on it; what they spend is free again. Their txids. The
    /// transaction may still become final if others hold it: then it shows up in the history.
    pub fn abandon(&mut self, txid: &Txid) -> Vec<Txid> {
        let gone = self.forget(*txid).into_iter();
        gone.map(|entry| entry.tx.txid).collect()
    }
}

#[derive(Clone, Default)]
struct Ancestors {
    txids: BTreeSet<Txid>,
    bytes: usize,
}

fn check_outputs(body: &TxBody, terms: &Terms) -> Result<(), WalletError> {
    if body.outputs.is_empty() {
        return Err(WalletError::Invalid(
            "a payment needs at least one output".into(),
        ));
    }
    if let Some(small) = body.outputs.iter().find(|o| o.value < terms.dust) {
        return Err(WalletError::Invalid(format!(
            "an output of {} TIME is dust: the least is {} TIME",
            small.value, terms.dust
        )));
    }
    if body.kind == TxKind::Transfer && body.payload.len() > MEMO_BYTES_MAX {
        return Err(WalletError::Invalid(format!(
            "a memo has at most {MEMO_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Takes the fee out of the named outputs in equal parts, the first one bearing what does not divide.
fn subtract(
    outputs: &mut [TxOutput],
    from: &[usize],
    fee: Amount,
    terms: &Terms,
) -> Result<(), WalletError> {
    let distinct: BTreeSet<usize> = from.iter().copied().collect();
    if distinct.len() != from.len() {
        return Err(WalletError::Invalid(
            "an output is named twice to bear the fee".into(),
        ));
    }
    let share = fee.0 / from.len() as u64;
    let mut rest = fee.0 % from.len() as u64;
    for index in from {
        let output = outputs.get_mut(*index);
        let output = output.ok_or_else(|| {
            WalletError::Invalid(format!("there is no output {index} to bear the fee"))
        })?;
        let part = Amount(share + std::mem::take(&mut rest));
        let left = output.value.minus(part).filter(|left| *left >= terms.dust);
        output.value = left.ok_or_else(|| {
            WalletError::Invalid(format!(
                "output {index} is too small to bear the fee of {part} TIME"
            ))
        })?;
    }
    Ok(())
}
