//! Coins for a benchmark, and its payments, signed beforehand.
//!
//! Job: get money from the node's wallet once, split it into one coin for each payment, sign the payments, give the money back. Inputs: a
//! client of the node with the wallet, the plan. Outputs: signed transactions. Never: lets one payment depend on another.

use std::collections::BTreeSet;
use std::time::Duration;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::super::output::CliError;
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::hex;
use crate::base::limits::TX_BYTES_MAX;
use crate::crypto::keys::SecretKey;
use crate::node::client::Client;
use crate::node::exit::Exit;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::{Branch, ChainId, OutPoint, Txid};
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::{TX_VERSION, Transaction, Tx, TxBody, TxKind, TxOutput};
use crate::wallet::selection::{fee_of, transfer_bytes};
use crate::wallet::{Terms, seed, sign};

/// How long the preparation waits for each of its own transactions.
const PREPARE_TIMEOUT_S: u64 = 60;
/// Coins given back by one transaction.
const SWEEP_COUNT: usize = 900;

/// A coin of the benchmark's key.
pub(super) type Coin = (OutPoint, TxOutput);

/// A payment ready to be sent.
pub(super) struct Payment {
    /// Its txid, as text.
    pub txid: String,
    /// The transaction in hex.
    pub hex: String,
    /// What it leaves to the benchmark's key.
    pub coins: Vec<Coin>,
}

/// The benchmark's key and the network it is on.
pub(super) struct Purse {
    key: SecretKey,
    program: Program,
    network: Network,
    terms: Terms,
    outputs: usize,
}

fn answer(what: &str, value: &Value) -> CliError {
    CliError::new(
        Exit::Unavailable,
        format!("the node gave an unexpected {what}: {value}"),
    )
}

impl Purse {
    /// A fresh key for the network of the node. Every payment will have `outputs` outputs.
    pub(super) fn new(client: &mut Client, outputs: usize) -> Result<Purse, CliError> {
        let info = client.call("getblockchaininfo", json!([]))?;
        let network = match info["chain"].as_str() {
            Some("main") => Network::Main,
            Some("test") => Network::Test,
            Some("regtest") => Network::Dev,
            _ => return Err(answer("chain", &info["chain"])),
        };
        let chain = client.call("getblockhash", json!([0]))?;
        let chain: Option<ChainId> = chain.as_str().and_then(|text| text.parse().ok());
        let chain = chain.ok_or_else(|| answer("genesis hash", &Value::Null))?;
        let branch = info["branch"].as_u64().and_then(|b| u16::try_from(b).ok());
        let mut params = Params::of(network);
        let relay = client.call("getnetworkinfo", json!([]))?;
        if let Ok(fee) = relay["relayfee"].to_string().parse::<Amount>() {
            params.min_fee_per_kb = fee.0;
        }
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        seed::random(&mut *bytes).map_err(|e| CliError::new(Exit::Internal, e.to_string()))?;
        let key = SecretKey::from_seed(&bytes);
        let limits = ConsensusLimits::of(network);
        Ok(Purse {
            program: Program::Key(key.public()),
            key,
            network,
            terms: Terms::new(chain, Branch(branch.unwrap_or(0)), &params, &limits),
            outputs,
        })
    }

    fn fee(&self, inputs: usize, outputs: usize) -> u64 {
        fee_of(
            transfer_bytes(inputs, outputs, 0),
            self.terms.min_fee_per_kb,
        )
        .0
    }
    /// Value of each output of a payment.
    fn payout(&self) -> u64 {
        (2 * self.terms.dust.0).max(1_000)
    }
    /// Value of the coin that a payment spends.
    fn leaf(&self) -> u64 {
        self.payout() * self.outputs as u64 + self.fee(1, self.outputs)
    }
    /// Encoded size of a payment.
    pub(super) fn payment_size(&self) -> usize {
        transfer_bytes(1, self.outputs, 0)
    }

    fn make(&self, coins: &[Coin], outputs: Vec<TxOutput>) -> Result<Tx, CliError> {
        let inputs = coins.iter().map(|(outpoint, _)| *outpoint);
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from(inputs),
            outputs: BoundedVec::take_from(outputs),
            payload: BoundedBytes::default(),
        };
        let spent: Vec<TxOutput> = coins.iter().map(|(_, output)| *output).collect();
        let keys = |_: &_| Some(self.key.clone());
        let (chain, branch) = (self.terms.chain, self.terms.branch);
        let signed = sign::sign_with(&sign::unsigned(body), &spent, &[], &keys, chain, branch);
        let signed = signed.map_err(|e| CliError::new(Exit::Internal, e.to_string()))?;
        Ok(Tx::new(signed.transaction))
    }
    fn mine(&self, value: u64) -> TxOutput {
        TxOutput {
            value: Amount(value),
            program: self.program,
        }
    }
    fn coins_of(&self, tx: &Tx) -> Vec<Coin> {
        let outputs = (0u32..).zip(tx.body().outputs.iter());
        let own = outputs.filter(|(_, output)| output.program == self.program);
        own.map(|(vout, output)| (tx.outpoint(vout), *output))
            .collect()
    }

    /// Gets money from the node's wallet and splits it into `count` coins, all final when this returns.
    pub(super) fn prepare(&self, client: &mut Client, count: usize) -> Result<Vec<Coin>, CliError> {
        let most = self.terms.tx_output_count.min(1_000);
        let mut branches: Vec<usize> = vec![most; count / most];
        branches.extend(Some(count % most).filter(|rest| *rest > 0));
        if branches.len() > most {
            let text = format!("at most {} payments in one run", most * most);
            return Err(CliError::new(Exit::Usage, text));
        }
        let values: Vec<u64> = branches
            .iter()
            .map(|n| *n as u64 * self.leaf() + self.fee(1, *n))
            .collect();
        let mut total: u64 = values.iter().sum();
        if values.len() > 1 {
            total += self.fee(1, values.len());
        }
        let mut coins = vec![self.fund(client, total)?];
        if values.len() > 1 {
            let outputs = values.iter().map(|value| self.mine(*value)).collect();
            let tx = self.make(&coins, outputs)?;
            submit(client, &tx)?;
            await_final(client, &tx.txid.to_string())?;
            coins = self.coins_of(&tx);
        }
        let mut leaves = Vec::with_capacity(count);
        let mut waiting = Vec::new();
        for (coin, leaf_count) in coins.iter().zip(branches) {
            let outputs = vec![self.mine(self.leaf()); leaf_count];
            let tx = self.make(std::slice::from_ref(coin), outputs)?;
            submit(client, &tx)?;
            leaves.extend(self.coins_of(&tx));
            waiting.push(tx.txid.to_string());
        }
        for txid in waiting {
            await_final(client, &txid)?;
        }
        Ok(leaves)
    }

    /// Waits until a node knows the coins as final, so that it takes what spends them.
    pub(super) fn await_coins(&self, client: &mut Client, coins: &[Coin]) -> Result<(), CliError> {
        let txids: BTreeSet<Txid> = coins.iter().map(|(outpoint, _)| outpoint.txid).collect();
        for txid in txids {
            await_final(client, &txid.to_string())?;
        }
        Ok(())
    }

    /// One coin of `units` from the node's wallet.
    fn fund(&self, client: &mut Client, units: u64) -> Result<Coin, CliError> {
        let address = self.program.address(self.network);
        // The amount goes as text: exact whatever reads the JSON between.
        let amount = Amount(units).to_string();
        let txid = client.call("sendtoaddress", json!([address, amount]))?;
        let txid = txid.as_str().ok_or_else(|| answer("txid", &txid))?;
        await_final(client, txid)?;
        let raw = client.call("getrawtransaction", json!([txid]))?;
        let bytes = raw.as_str().and_then(|text| hex::decode(text).ok());
        let tx = bytes.and_then(|b| codec::decode::<Transaction>(&b, TX_BYTES_MAX).ok());
        let coins = tx.map(|tx| self.coins_of(&Tx::new(tx)));
        let coin = coins.and_then(|coins| coins.into_iter().find(|(_, o)| o.value.0 == units));
        coin.ok_or_else(|| answer("transaction", &raw))
    }

    /// Signs a payment for every coin.
    pub(super) fn sign_payments(&self, coins: &[Coin]) -> Result<Vec<Payment>, CliError> {
        let sign = |coin: &Coin| {
            let outputs = vec![self.mine(self.payout()); self.outputs];
            let tx = self.make(std::slice::from_ref(coin), outputs)?;
            Ok(Payment {
                txid: tx.txid.to_string(),
                hex: hex::encode(&codec::encode(&tx)),
                coins: self.coins_of(&tx),
            })
        };
        coins.par_iter().map(sign).collect()
    }

    /// Sends coins back to the node's wallet; how many transactions it took. Coins worth less than their fee stay.
    pub(super) fn give_back(&self, client: &mut Client, coins: &[Coin]) -> Result<usize, CliError> {
        let address = client.call("getnewaddress", json!(["bench"]))?;
        let text = address
            .as_str()
            .ok_or_else(|| answer("address", &address))?;
        let program = Program::from_address(text, self.network);
        let program = program.map_err(|_| answer("address", &address))?;
        let mut sent = Vec::new();
        for part in coins.chunks(SWEEP_COUNT) {
            let sum: u64 = part.iter().map(|(_, output)| output.value.0).sum();
            let fee = self.fee(part.len(), 1);
            let left = sum
                .checked_sub(fee)
                .filter(|left| *left >= self.terms.dust.0);
            let Some(left) = left else { continue };
            let output = TxOutput {
                value: Amount(left),
                program,
            };
            let tx = self.make(part, vec![output])?;
            submit(client, &tx)?;
            sent.push(tx.txid.to_string());
        }
        // A run leaves an idle network behind.
        for txid in &sent {
            await_final(client, txid)?;
        }
        Ok(sent.len())
    }
}

fn submit(client: &mut Client, tx: &Tx) -> Result<(), CliError> {
    client.call(
        "sendrawtransaction",
        json!([hex::encode(&codec::encode(tx))]),
    )?;
    Ok(())
}

fn await_final(client: &mut Client, txid: &str) -> Result<(), CliError> {
    let limit = Duration::from_secs(PREPARE_TIMEOUT_S + 5);
    let params = json!([txid, PREPARE_TIMEOUT_S]);
    client.call_within("waittransactionfinality", params, limit)?;
    Ok(())
}
