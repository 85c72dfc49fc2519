//! Coin selection: which coins pay for a transaction, what the fee is exactly, and whether there is change. Deterministic:
//! the same coins and the same request give the same answer.
//!
//! First the smallest single coin that is enough; failing that, the largest coins until they are. Change below dust is not
//! made (L8); it goes to the fee. The fee is ceil(bytes * rate / 1000) of the transaction as it will be encoded.

use super::error::WalletError;
use crate::types::amount::Amount;
use crate::types::ids::{Branch, ChainId, OutPoint};
use crate::types::params::{ConsensusLimits, Params};
use std::collections::BTreeSet;

/// Encoded bytes of a transfer without inputs, outputs and payload.
const BASE_BYTES: usize = 46;
/// Encoded bytes that an input of program version 1 adds, witness included.
const INPUT_BYTES: usize = 36 + 68;
/// Encoded bytes of an output.
const OUTPUT_BYTES: usize = 44;

/// What the network demands of a transaction: identity, fee floor, dust, sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Network signed for.
    pub chain: ChainId,
    /// Rule set signed for.
    pub branch: Branch,
    /// Fee floor, units per 1,000 bytes.
    pub min_fee_per_kb: u64,
    /// Least value of an output.
    pub dust: Amount,
    /// Greatest transaction, bytes.
    pub tx_bytes: usize,
    /// Greatest number of inputs; each is one signature check.
    pub tx_input_count: usize,
    /// Greatest number of outputs.
    pub tx_output_count: usize,
}

impl Terms {
    /// The terms of a network under the rule set in force.
    pub fn new(chain: ChainId, branch: Branch, params: &Params, limits: &ConsensusLimits) -> Terms {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Terms {
            chain,
            branch,
            min_fee_per_kb: params.min_fee_per_kb,
            dust: Amount(params.dust),
            tx_bytes: size(limits.tx_bytes),
            tx_input_count: size(limits.tx_input_count.min(limits.tx_sigcheck_count)),
            tx_output_count: size(limits.tx_output_count),
        }
    }
}

/// Who pays how much fee.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeePolicy {
    /// Units per 1,000 bytes; never below the network's minimum, which is the default.
    pub rate_per_kb: Option<u64>,
    /// Indexes of the outputs that bear the fee in equal parts; none: the sender pays it on top.
    pub subtract_from: Vec<usize>,
}

impl FeePolicy {
    /// The rate in force, units per 1,000 bytes.
    pub fn rate(&self, terms: &Terms) -> u64 {
        self.rate_per_kb.unwrap_or(0).max(terms.min_fee_per_kb)
    }
}

/// What the coins must pay for.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Sum of the outputs.
    pub target: Amount,
    /// Number of outputs without change.
    pub output_count: usize,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// Whether the fee is taken out of the outputs instead of being added.
    pub fee_from_outputs: bool,
    /// Units per 1,000 bytes.
    pub rate_per_kb: u64,
}

/// The chosen coins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Coins to spend, preset ones first.
    pub inputs: Vec<(Amount, OutPoint)>,
    /// The fee they leave.
    pub fee: Amount,
    /// Value of the change output, if there is one.
    pub change: Option<Amount>,
}

/// Encoded size of a transfer whose inputs are all of program version 1.
pub fn transfer_bytes(inputs: usize, outputs: usize, payload_bytes: usize) -> usize {
    BASE_BYTES + inputs * INPUT_BYTES + outputs * OUTPUT_BYTES + payload_bytes
}

/// ceil(bytes * rate / 1000) (L8), saturating.
pub fn fee_of(bytes: usize, rate_per_kb: u64) -> Amount {
    let fee = (bytes as u128 * u128::from(rate_per_kb)).div_ceil(1000);
    Amount(u64::try_from(fee).unwrap_or(u64::MAX))
}

impl Need {
    fn fee(&self, inputs: usize, outputs: usize) -> Amount {
        fee_of(
            transfer_bytes(inputs, outputs, self.payload_bytes),
            self.rate_per_kb,
        )
    }
    /// What the inputs must sum to if there is no change.
    fn needed(&self, inputs: usize) -> Option<Amount> {
        if self.fee_from_outputs {
            Some(self.target)
        } else {
            self.target.plus(self.fee(inputs, self.output_count))
        }
    }
    /// The most inputs that fit beside the outputs and a change output.
    fn input_count_max(&self, terms: &Terms) -> usize {
        let fixed = transfer_bytes(0, self.output_count + 1, self.payload_bytes);
        let room = terms.tx_bytes.saturating_sub(fixed) / INPUT_BYTES;
        room.min(terms.tx_input_count)
    }
    /// Fee and change if these inputs are enough.
    fn settle(
        &self,
        inputs: usize,
        sum: Amount,
        terms: &Terms,
    ) -> Option<(Amount, Option<Amount>)> {
        let rest = sum.minus(self.target)?;
        let fee = self.fee(inputs, self.output_count + 1);
        let change = if self.fee_from_outputs {
            Some(rest)
        } else {
            rest.minus(fee)
        };
        if let Some(change) = change
            && change >= terms.dust
            && change > Amount::ZERO
            && self.output_count < terms.tx_output_count
        {
            return Some((fee, Some(change)));
        }
        let least = self.fee(inputs, self.output_count);
        if self.fee_from_outputs {
            return Some((least.max(rest), None));
        }
        (rest >= least).then_some((rest, None))
    }
}

/// Chooses coins from `pool` (free coins by value) beside those of `preset`, which are spent in any case.
pub fn select(
    preset: &[(Amount, OutPoint)],
    pool: &BTreeSet<(Amount, OutPoint)>,
    need: &Need,
    terms: &Terms,
) -> Result<Selection, WalletError> {
    let most = need.input_count_max(terms);
    if preset.len() > most || need.output_count > terms.tx_output_count {
        return Err(WalletError::TooLarge(format!(
            "the transaction is too large: at most {most} inputs and {} outputs fit; split it",
            terms.tx_output_count
        )));
    }
    let overflow = || WalletError::Invalid("the amounts overflow".into());
    let mut inputs = preset.to_vec();
    let mut sum = Amount::sum(inputs.iter().map(|(value, _)| *value)).ok_or_else(overflow)?;
    let taken: BTreeSet<OutPoint> = preset.iter().map(|(_, outpoint)| *outpoint).collect();
    let settled = |inputs: Vec<_>, sum| {
        let (fee, change) = need.settle(inputs.len(), sum, terms)?;
        Some(Selection {
            inputs,
            fee,
            change,
        })
    };
    if !inputs.is_empty()
        && let Some(done) = settled(inputs.clone(), sum)
    {
        return Ok(done);
    }
    let needed = need.needed(inputs.len() + 1).ok_or_else(overflow)?;
    if let Some(missing) = needed.minus(sum) {
        let from = (missing, OutPoint::default());
        let single = pool.range(from..).find(|(_, o)| !taken.contains(o));
        if let Some(coin) = single
            && inputs.len() < most
        {
            let sum = sum.plus(coin.0).ok_or_else(overflow)?;
            inputs.push(*coin);
            return settled(inputs, sum).ok_or_else(overflow);
        }
    }
    for coin in pool.iter().rev().filter(|(_, o)| !taken.contains(o)) {
        if inputs.len() >= most {
            return Err(WalletError::TooLarge(format!(
                "the amount needs more than {most} coins: send less at once, or first join small coins by a payment to yourself"
            )));
        }
        inputs.push(*coin);
        sum = sum.plus(coin.0).ok_or_else(overflow)?;
        if need.settle(inputs.len(), sum, terms).is_some() {
            return settled(inputs, sum).ok_or_else(overflow);
        }
    }
    Err(WalletError::Insufficient {
        available: sum,
        needed: need.needed(inputs.len().max(1)).ok_or_else(overflow)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bounded::{BoundedBytes, BoundedVec};
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::PublicKey;
    use crate::types::address::{Network, Program};
    use crate::types::ids::Txid;
    use crate::types::transaction::*;
    use proptest::prelude::*;

    fn terms() -> Terms {
        Terms::new(
            ChainId::default(),
            Branch(0),
            &Params::of(Network::Dev),
            &ConsensusLimits::of(Network::Dev),
        )
    }
    fn coin(value: u64, number: u64) -> (Amount, OutPoint) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let txid = Txid(Hash(bytes));
        (Amount(value), OutPoint { txid, vout: 0 })
    }
    fn pool(values: &[u64]) -> BTreeSet<(Amount, OutPoint)> {
        (1..).zip(values).map(|(i, v)| coin(*v, i)).collect()
    }
    fn need(target: u64) -> Need {
        Need {
            target: Amount(target),
            output_count: 1,
            payload_bytes: 0,
            fee_from_outputs: false,
            rate_per_kb: 1_000,
        }
    }

    #[test]
    fn the_size_formula_is_the_encoding() {
        for (inputs, outputs, payload) in [(1, 1, 0), (3, 2, 80), (960, 1, 7)] {
            let outpoint = coin(1, 1).1;
            let body = TxBody {
                version: TX_VERSION,
                kind: TxKind::Transfer,
                inputs: BoundedVec::take_from(vec![outpoint; inputs]),
                outputs: BoundedVec::take_from(vec![
                    TxOutput {
                        value: Amount(1),
                        program: Program::Key(PublicKey([1; 32])),
                    };
                    outputs
                ]),
                payload: BoundedBytes::try_from(vec![0; payload]).unwrap(),
            };
            let tx = Tx::new(super::super::sign::unsigned(body));
            assert_eq!(
                tx.size,
                transfer_bytes(inputs, outputs, payload),
                "the fee is exact only if the size is (L8)"
            );
        }
    }

    #[test]
    fn the_smallest_coin_that_is_enough_is_taken() {
        let found = select(
            &[],
            &pool(&[500, 90_000, 60_000, 1_000_000]),
            &need(50_000),
            &terms(),
        );
        let found = found.unwrap();
        assert_eq!(found.inputs, [coin(60_000, 3)]);
        assert_eq!(found.fee, Amount(238), "1 input, 2 outputs: 238 bytes");
        assert_eq!(found.change, Some(Amount(60_000 - 50_000 - 238)));
    }

    #[test]
    fn change_below_dust_becomes_fee() {
        let exact = 50_000 + 194;
        let found = select(&[], &pool(&[exact]), &need(50_000), &terms()).unwrap();
        assert_eq!(
            (found.fee, found.change),
            (Amount(194), None),
            "an exact match"
        );
        let found = select(&[], &pool(&[exact + 900]), &need(50_000), &terms()).unwrap();
        assert_eq!(
            (found.fee, found.change),
            (Amount(194 + 900), None),
            "L8: no dust"
        );
        let short = select(&[], &pool(&[exact - 1]), &need(50_000), &terms()).unwrap_err();
        assert!(matches!(short, WalletError::Insufficient { .. }), "{short}");
    }

    #[test]
    fn the_fee_may_come_out_of_the_outputs() {
        let mut all = need(60_000);
        all.fee_from_outputs = true;
        let found = select(&[], &pool(&[60_000]), &all, &terms()).unwrap();
        assert_eq!((found.fee, found.change), (Amount(194), None));
    }

    #[test]
    fn preset_coins_are_spent_first_and_once() {
        let coins = pool(&[40_000, 30_000]);
        let preset = [coin(30_000, 2)];
        let found = select(&preset, &coins, &need(50_000), &terms()).unwrap();
        assert_eq!(found.inputs, [coin(30_000, 2), coin(40_000, 1)]);
        let enough = select(&preset, &coins, &need(10_000), &terms()).unwrap();
        assert_eq!(enough.inputs, preset);
    }

    #[test]
    fn more_coins_than_a_transaction_holds_are_refused_with_advice() {
        let many = pool(&vec![1_000; 2_000]);
        let refused = select(&[], &many, &need(1_500_000), &terms()).unwrap_err();
        assert!(matches!(refused, WalletError::TooLarge(_)), "{refused}");
    }

    proptest! {
        #[test]
        fn money_is_conserved_and_bounds_hold(
            values in proptest::collection::vec(1u64..2_000_000, 0..40),
            target in 1_000u64..5_000_000,
            output_count in 1usize..5,
            rate_per_kb in 1_000u64..100_000,
            fee_from_outputs in any::<bool>(),
        ) {
            let (terms, coins) = (terms(), pool(&values));
            let need = Need { output_count, rate_per_kb, fee_from_outputs, ..need(target) };
            let total: u64 = values.iter().sum();
            match select(&[], &coins, &need, &terms) {
                Ok(found) => {
                    let sum: u64 = found.inputs.iter().map(|(v, _)| v.0).sum();
                    let change = found.change.unwrap_or_default();
                    let paid = if fee_from_outputs { target } else { target + found.fee.0 };
                    let rest = sum - change.0;
                    prop_assert!(rest == paid || (fee_from_outputs && found.change.is_none() && rest >= paid));
                    prop_assert!(found.change.is_none_or(|c| c >= terms.dust), "L8: outputs >= dust");
                    let outputs = output_count + usize::from(found.change.is_some());
                    let least = fee_of(transfer_bytes(found.inputs.len(), outputs, 0), rate_per_kb);
                    prop_assert!(found.fee >= least, "L8: the fee is enough");
                    if found.change.is_some() {
                        prop_assert_eq!(found.fee, least, "with change the fee is exact");
                    }
                    let distinct: BTreeSet<_> = found.inputs.iter().collect();
                    prop_assert_eq!(distinct.len(), found.inputs.len(), "L5: inputs are distinct");
                    prop_assert!(found.inputs.iter().all(|c| coins.contains(c)));
                    prop_assert_eq!(select(&[], &coins, &need, &terms).unwrap(), found, "deterministic");
                }
                Err(WalletError::Insufficient { .. }) => {
                    let fee = fee_of(transfer_bytes(values.len(), output_count, 0), rate_per_kb).0;
                    let needed = if fee_from_outputs { target } else { target + fee };
                    prop_assert!(total < needed);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
