//! May this transaction be in a block? `check_form` asks what the bytes alone tell, `check_spend` what coins and registry
//! tell. Neither verifies a signature: the checks that remain are returned. Verdicts never depend on time or height (L8).

use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Check;
use crate::ledger::coins::{Coin, CoinView, ViewError};
use crate::ledger::registration::PendingOperators;
use crate::ledger::registry::Registry;
use crate::ledger::state::{Chain, State};
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::ids::*;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::{TX_VERSION, Tx, TxKind, TxOutput, Witness};

/// Why a transaction can be in no block, whatever else is known. The sender's fault or mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// A version no branch in force knows.
    #[error("transaction version {0} is not in force")]
    Version(u16),
    /// A kind that cannot stand here.
    #[error("a transaction of kind {0:?} cannot stand here")]
    Kind(TxKind),
    /// A bound of table B2.
    #[error("{found} {what} where at most {max} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// No inputs.
    #[error("a transaction must spend at least one output (L5)")]
    NoInputs,
    /// The same outpoint twice.
    #[error("the outpoint {0} is spent twice in one transaction (L5)")]
    InputTwice(OutPoint),
    /// Not one witness for each input.
    #[error("{witnesses} witnesses for {inputs} inputs")]
    WitnessCount {
        /// Witnesses found.
        witnesses: usize,
        /// Inputs found.
        inputs: usize,
    },
    /// A witness that breaks L3's form or does not belong to the program it unlocks.
    #[error("the witness of input {0} does not unlock the output it spends (L3)")]
    Witness(usize),
    /// Not the signatures of masternode keys that its kind needs.
    #[error("a transaction of kind {0:?} needs another number of masternode signatures")]
    Auth(TxKind),
    /// The payload is not that of its kind.
    #[error("the payload is not one of a transaction of kind {0:?}")]
    Payload(TxKind),
    /// An output below dust.
    #[error("output {vout} has {value}, less than dust, {dust}")]
    Dust {
        /// Which output.
        vout: usize,
        /// Its value.
        value: Amount,
        /// Least value.
        dust: Amount,
    },
    /// More goes out than comes in.
    #[error("outputs of {outputs} exceed inputs of {inputs}")]
    Overspent {
        /// Value of the inputs.
        inputs: Amount,
        /// Value of the outputs.
        outputs: Amount,
    },
    /// Sums beyond the range of amounts.
    #[error("its amounts overflow (L1)")]
    Overflow,
    /// The fee is below the floor.
    #[error("the fee {paid} is below {needed}, the least for {size} bytes (L8)")]
    Fee {
        /// Fee paid.
        paid: Amount,
        /// Least fee.
        needed: Amount,
        /// Size with witnesses.
        size: usize,
    },
    /// Output 0 of a registration is too small (M1).
    #[error("output 0 of a registration has {found}, the least collateral is {min_time} TIME (M1)")]
    Collateral {
        /// Value of output 0.
        found: Amount,
        /// Least collateral, TIME.
        min_time: u64,
    },
    /// A masternode key that is not canonical or not of prime order (L6).
    #[error("the key {0} is not a canonical key of prime order (L6)")]
    KeyForm(PublicKey),
    /// A masternode key that belongs to an entry, or twice to this one (M1).
    #[error("the key {0} is already in use: every masternode needs keys of its own (M1)")]
    KeyInUse(PublicKey),
    /// Not `host:port`.
    #[error("the endpoint is not host:port in printable ASCII")]
    Endpoint,
    /// No room in the registry (M1).
    #[error("all {0} places of the registry are taken (M1)")]
    RegistryFull(u64),
    /// Nobody of this id.
    #[error("no masternode {0} is registered")]
    UnknownMasternode(MasternodeId),
    /// It is already on its way out (M2).
    #[error("the masternode {0} is already leaving (M2)")]
    Leaving(MasternodeId),
}

/// Why a transaction cannot spend what it spends, on this view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpendError {
    /// It can be in no block on this state.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// An output that does not exist, not yet or no more.
    #[error("the output {0} does not exist or is spent")]
    Missing(OutPoint),
    /// Our own disk.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// A transaction that may be in the next block if its signatures hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// What it pays.
    pub fee: Amount,
    /// Coins it spends, in the order of its inputs.
    pub spent: Vec<Coin>,
    /// Signatures that remain to be verified.
    pub checks: Vec<Check>,
}

/// The least fee of `size` bytes with witnesses: ceil(size * min_fee_per_kb / 1000) (L8).
pub fn min_fee(size: usize, params: &Params) -> Amount {
    let units = (size as u128 * u128::from(params.min_fee_per_kb)).div_ceil(1_000);
    Amount(u64::try_from(units).unwrap_or(u64::MAX))
}

/// Signature checks of a transaction (B2): one for a key, m for a policy, one for each signature of a masternode key.
pub fn sigcheck_count(tx: &Tx) -> u64 {
    let witnesses = tx.transaction.witnesses.iter().map(|w| match w {
        Witness::Key(_) => 1,
        Witness::Policy { policy, .. } => u64::from(policy.threshold),
    });
    witnesses.sum::<u64>() + tx.transaction.auth.len() as u64
}

fn within(what: &'static str, found: u64, max: u64) -> Result<(), TxError> {
    if found > max {
        return Err(TxError::TooLarge { what, found, max });
    }
    Ok(())
}

/// What the bytes alone tell. Cheap; needs no coins and no keys.
pub fn check_form(tx: &Tx, params: &Params, limits: &ConsensusLimits) -> Result<(), TxError> {
    let body = tx.body();
    if body.version != TX_VERSION {
        return Err(TxError::Version(body.version));
    }
    if body.kind == TxKind::Coinbase {
        return Err(TxError::Kind(body.kind));
    }
    within("bytes", tx.size as u64, limits.tx_bytes)?;
    within("inputs", body.inputs.len() as u64, limits.tx_input_count)?;
    within("outputs", body.outputs.len() as u64, limits.tx_output_count)?;
    within(
        "signature checks",
        sigcheck_count(tx),
        limits.tx_sigcheck_count,
    )?;
    check_inputs(tx)?;
    for (vout, output) in body.outputs.iter().enumerate() {
        if output.value.0 < params.dust {
            return Err(TxError::Dust {
                vout,
                value: output.value,
                dust: Amount(params.dust),
            });
        }
    }
    Amount::sum(body.outputs.iter().map(|o| o.value)).ok_or(TxError::Overflow)?;
    crate::ledger::registration::check_payload(tx, params)
}

fn check_inputs(tx: &Tx) -> Result<(), TxError> {
    let (inputs, witnesses) = (&tx.body().inputs, &tx.transaction.witnesses);
    if inputs.is_empty() {
        return Err(TxError::NoInputs);
    }
    if witnesses.len() != inputs.len() {
        return Err(TxError::WitnessCount {
            witnesses: witnesses.len(),
            inputs: inputs.len(),
        });
    }
    let mut sorted: Vec<&OutPoint> = inputs.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(TxError::InputTwice(*pair[0]));
    }
    for (i, witness) in witnesses.iter().enumerate() {
        if let Witness::Policy { policy, signatures } = witness {
            let ascending = signatures.windows(2).all(|s| s[0].index < s[1].index);
            let inside = signatures
                .iter()
                .all(|s| usize::from(s.index) < policy.keys.len());
            let exact = signatures.len() == usize::from(policy.threshold);
            if !(policy.is_well_formed() && ascending && inside && exact) {
                return Err(TxError::Witness(i));
            }
        }
    }
    Ok(())
}

/// What a transaction is judged against beside the coins.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Network, parameters and limits.
    pub chain: &'a Chain,
    /// Rule set in force.
    pub branch: Branch,
    /// The registry as it stands before the transaction.
    pub registry: &'a Registry,
    /// Operator keys that transactions of this block have named before it.
    pub pending: &'a PendingOperators,
}

/// Whether `tx` may be in the next block on this view and state, signatures apart. `tx` must have passed
/// [`check_form`]. That registry kinds stand in slot blocks only is the block's affair.
pub fn check_spend(tx: &Tx, view: &dyn CoinView, state: &State) -> Result<Spend, SpendError> {
    let pending = PendingOperators::new();
    let rules = Rules {
        chain: &state.chain,
        branch: state.tip.branch,
        registry: state.registry(),
        pending: &pending,
    };
    judge_spend(tx, view, rules)
}

pub(crate) fn judge_spend(
    tx: &Tx,
    view: &dyn CoinView,
    rules: Rules<'_>,
) -> Result<Spend, SpendError> {
    let body = tx.body();
    let mut spent = Vec::with_capacity(body.inputs.len());
    for outpoint in &body.inputs {
        let coin = view.coin(outpoint)?;
        spent.push(coin.ok_or(SpendError::Missing(*outpoint))?);
    }
    let sum = |outputs: &mut dyn Iterator<Item = Amount>| Amount::sum(outputs);
    let inputs = sum(&mut spent.iter().map(|c| c.output.value)).ok_or(TxError::Overflow)?;
    let outputs = sum(&mut body.outputs.iter().map(|o| o.value)).ok_or(TxError::Overflow)?;
    let fee = inputs
        .minus(outputs)
        .ok_or(TxError::Overspent { inputs, outputs })?;
    let needed = min_fee(tx.size, &rules.chain.params);
    if fee < needed {
        return Err(SpendError::Tx(TxError::Fee {
            paid: fee,
            needed,
            size: tx.size,
        }));
    }
    let spent_outputs: Vec<TxOutput> = spent.iter().map(|c| c.output).collect();
    let message = body.signature_hash(rules.chain.id, rules.branch, &spent_outputs);
    let mut checks = witness_checks(tx, &spent_outputs, message)?;
    checks.extend(crate::ledger::registration::judge(tx, &message, rules)?);
    Ok(Spend { fee, spent, checks })
}

fn witness_checks(
    tx: &Tx,
    spent: &[TxOutput],
    message: crate::crypto::hash::Hash,
) -> Result<Vec<Check>, TxError> {
    let mut checks = Vec::with_capacity(spent.len());
    for (i, (output, witness)) in spent
        .iter()
        .zip(tx.transaction.witnesses.iter())
        .enumerate()
    {
        match (output.program, witness) {
            (Program::Key(key), Witness::Key(signature)) => checks.push(Check {
                key,
                message,
                signature: *signature,
            }),
            (program, Witness::Policy { policy, signatures }) if policy.program() == program => {
                for s in signatures {
                    let key = policy.keys.get(usize::from(s.index));
                    checks.push(Check {
                        key: *key.ok_or(TxError::Witness(i))?,
                        message,
                        signature: s.signature,
                    });
                }
            }
            _ => return Err(TxError::Witness(i)),
        }
    }
    Ok(checks)
}
