//! Transactions: made, read, judged, sent.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::hex;
use crate::base::limits::{
    BLOCK_BODIES_BYTES_MAX, MEMO_BYTES_MAX, TX_INPUT_COUNT_MAX, TX_OUTPUT_COUNT_MAX,
};
use crate::rpc::args::{self, Args, amount_json, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::json;
use crate::rpc::methods::chain::Spent;
use crate::rpc::node::SubmitError;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional, required};
use crate::types::amount::Amount;
use crate::types::block::Block;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::{TX_VERSION, Tx, TxBody, TxKind, TxOutput};
use crate::wallet::sign::unsigned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the consensus thread's verdict on a transaction.
pub const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Transactions of one testmempoolaccept, as in Bitcoin Core.
const TEST_COUNT_MAX: usize = 25;

const HEX: &str = "The transaction, hex of its encoding.";
const FEERATE: &str = "Greatest fee in TIME per 1,000 bytes; 0: any.";

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "sendrawtransaction",
        category: Category::Transactions,
        summary: "Checks a signed transaction and sends it to the network.",
        details: "A transaction that waits already is answered like a new one. waittransactionfinality tells when it is final.",
        args: &[
            required("hexstring", ArgKind::Hex, HEX),
            optional("maxfeerate", ArgKind::Amount, "0", FEERATE),
            optional(
                "maxburnamount",
                ArgKind::Amount,
                "0",
                "Accepted for old callers: outputs cannot burn.",
            ),
        ],
        result: "\"txid\"",
        example: "\"0100...\"",
        while_starting: false,
        run: sendrawtransaction,
    },
    MethodSpec {
        name: "testmempoolaccept",
        category: Category::Transactions,
        summary: "Judges signed transactions without sending them.",
        details: "Each is judged by itself against the chain and the mempool as they are now.",
        args: &[
            required("rawtxs", ArgKind::List, "Hex of 1 to 25 transactions."),
            optional("maxfeerate", ArgKind::Amount, "0", FEERATE),
        ],
        result: "[{ txid, wtxid, allowed, vsize, fees: { base, effective-feerate }, reject-reason }]",
        example: "'[\"0100...\"]'",
        while_starting: false,
        run: testmempoolaccept,
    },
    MethodSpec {
        name: "getrawtransaction",
        category: Category::Transactions,
        summary: "A transaction of a decided block or of the mempool.",
        details: "The genesis balances are not a transaction. A contested one (gettransactionfinality) is not final, has 0 confirmations, and \
                  fork_height is shown.",
        args: &[
            required("txid", ArgKind::Hex, "The transaction's id."),
            optional(
                "verbosity",
                ArgKind::Verbosity,
                "0",
                "0: hex; 1: JSON; 2: also the fee and what inputs spent.",
            ),
            optional(
                "blockhash",
                ArgKind::Hex,
                "any block",
                "Only if it is in this block.",
            ),
        ],
        result: "\"hex\", or { txid, hash, version, size, vsize, weight, locktime, vin, vout, hex, blockhash, confirmations, time, \
                 blocktime, final, fork_height if contested }",
        example: "\"txid\" 1",
        while_starting: false,
        run: getrawtransaction,
    },
    MethodSpec {
        name: "decoderawtransaction",
        category: Category::Transactions,
        summary: "Shows what a transaction says.",
        details: "",
        args: &[
            required("hexstring", ArgKind::Hex, HEX),
            optional(
                "iswitness",
                ArgKind::Boolean,
                "true",
                "Accepted for old callers: there is one encoding.",
            ),
        ],
        result: "{ txid, hash, version, size, vsize, weight, locktime, kind, vin, vout, memo }",
        example: "\"0100...\"",
        while_starting: true,
        run: decoderawtransaction,
    },
    MethodSpec {
        name: "createrawtransaction",
        category: Category::Transactions,
        summary: "Makes an unsigned transaction.",
        details: "Outputs: {\"address\": amount, \"data\": \"hex\"}, or a list of such objects; data is the memo, at most 80 bytes. \
                  What inputs hold more than outputs is the fee.",
        args: &[
            required(
                "inputs",
                ArgKind::List,
                "[{\"txid\": \"hex\", \"vout\": n}, ...]",
            ),
            required("outputs", ArgKind::ListOrObject, "Where the money goes."),
            optional(
                "locktime",
                ArgKind::Integer,
                "0",
                "0 only: no transaction depends on time.",
            ),
            optional(
                "replaceable",
                ArgKind::Boolean,
                "false",
                "Accepted for old callers: nothing is replaced.",
            ),
        ],
        result: "\"hex\"",
        example: "'[{\"txid\": \"...\", \"vout\": 0}]' '{\"dtime1...\": 1.5}'",
        while_starting: false,
        run: createrawtransaction,
    },
];

/// A transaction from hex: -22 if it is none.
pub fn decode(text: &str) -> Result<Tx, RpcError> {
    let fault =
        |why: &str| RpcError::new(code::DESERIALIZATION, "TX decode failed").hint(why.to_string());
    let bytes = hex::decode(text).map_err(|e| fault(&e.to_string()))?;
    // The bound of a coinbase, which may be larger than any other transaction.
    codec::decode(&bytes, BLOCK_BODIES_BYTES_MAX).map_err(|e| fault(&e.to_string()))
}

/// -25 if a transaction pays more than `most` per 1,000 bytes; 0 is no bound.
fn check_rate(tx: &Tx, fee: Amount, most: Amount) -> Result<(), RpcError> {
    let rate = u128::from(fee.0) * 1_000 / (tx.size.max(1) as u128);
    if most.0 > 0 && rate > u128::from(most.0) {
        return Err(RpcError::new(
            code::VERIFY,
            "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
        )
        .reason("max-fee-exceeded"));
    }
    Ok(())
}

fn max_rate(args: &Args) -> Result<Amount, RpcError> {
    args.get(1).map_or(Ok(Amount::ZERO), args::amount)
}

/// Sends a transaction; one that waits already counts as sent.
pub fn send(call: &Call<'_>, tx: Tx) -> Result<Txid, RpcError> {
    let txid = tx.txid;
    match call.node().submit(tx, SUBMIT_TIMEOUT) {
        Ok(txid) => Ok(txid),
        Err(SubmitError::AlreadyWaiting) => Ok(txid),
        Err(error) => Err(error.into()),
    }
}

fn sendrawtransaction(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let tx = decode(args.text(0))?;
    let most = max_rate(args)?;
    if most.0 > 0 {
        let judged = call.node().check(tx.clone(), SUBMIT_TIMEOUT);
        if let Ok(acceptance) = judged {
            check_rate(&tx, acceptance.fee, most)?;
        }
    }
    Ok(json!(send(call, tx)?.to_string()).into())
}

/// The short reason of a refusal, as Bitcoin Core's reject-reason.
fn reject_reason(error: &SubmitError) -> String {
    match error {
        SubmitError::Missing(_) => "missing-inputs".into(),
        SubmitError::Conflict { .. } => "txn-mempool-conflict".into(),
        SubmitError::AlreadyFinal(_) => "txn-already-known".into(),
        SubmitError::AlreadyWaiting => "txn-already-in-mempool".into(),
        SubmitError::Full => "mempool full".into(),
        other => other.to_string(),
    }
}

fn testmempoolaccept(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let list = args.get(0).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() || list.len() > TEST_COUNT_MAX {
        return Err(RpcError::parameter(
            "Array must contain between 1 and 25 transactions.",
        ));
    }
    let most = max_rate(args)?;
    let mut out = Vec::with_capacity(list.len());
    for item in list {
        let Some(text) = item.as_str() else {
            return Err(RpcError::wrong_type("rawtxs must hold hex strings"));
        };
        let tx = decode(text)?;
        let mut answer = json!({
            "txid": tx.txid.to_string(),
            "wtxid": tx.wtxid.to_string(),
        });
        match call.node().check(tx.clone(), SUBMIT_TIMEOUT) {
            Ok(acceptance) if check_rate(&tx, acceptance.fee, most).is_err() => {
                answer["allowed"] = json!(false);
                answer["reject-reason"] = json!("max-fee-exceeded");
            }
            Ok(acceptance) => {
                let rate = u128::from(acceptance.fee.0) * 1_000 / (tx.size.max(1) as u128);
                let rate = Amount(u64::try_from(rate).unwrap_or(u64::MAX));
                answer["allowed"] = json!(true);
                answer["vsize"] = json!(tx.size);
                answer["fees"] = json!({
                    "base": amount_json(acceptance.fee),
                    "effective-feerate": amount_json(rate),
                });
            }
            Err(error @ (SubmitError::Busy(_) | SubmitError::Stopping)) => return Err(error.into()),
            Err(error) => {
                answer["allowed"] = json!(false);
                answer["reject-reason"] = json!(reject_reason(&error));
                answer["reject-details"] = json!(error.to_string());
            }
        }
        out.push(answer);
    }
    Ok(Value::Array(out).into())
}

/// A decided transaction with its block and place.
pub struct Decided {
    /// The transaction.
    pub tx: Tx,
    /// Its block.
    pub block: Arc<Block>,
    /// The block's id.
    pub id: BlockId,
}

/// Finds a decided transaction.
pub fn find_decided(call: &Call<'_>, txid: &Txid) -> Result<Option<Decided>, RpcError> {
    let chain = call.chain();
    let Some((height, index)) = chain.position_of(txid)? else {
        return Ok(None);
    };
    let block = chain.block(height)?;
    let block = block.ok_or_else(|| Call::not_kept("Block"))?;
    let tx = usize::try_from(index)
        .ok()
        .and_then(|i| block.transactions.get(i));
    Ok(tx.cloned().map(|tx| Decided {
        tx,
        id: block.id(),
        block,
    }))
}

fn getrawtransaction(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid: Txid = args.id(0, "txid")?;
    let verbosity = args.verbosity(1, 0)?;
    let found = find_decided(call, &txid)?;
    if args.get(2).is_some() {
        let wanted: BlockId = args.id(2, "blockhash")?;
        if call.chain().height_of(&wanted)?.is_none() {
            return Err(RpcError::not_found("Block hash not found"));
        }
        if found.as_ref().map(|d| d.id) != Some(wanted) {
            return Err(RpcError::not_found(
                "No such transaction found in the provided block.",
            ));
        }
    }
    let Some(decided) = found else {
        let entry = call.node().mempool_entry(&txid);
        let entry = entry.ok_or_else(|| {
            RpcError::not_found("No such mempool or blockchain transaction.")
                .hint("gettransactionfinality tells what became of it")
        })?;
        return Ok(shown(call, &entry.tx, verbosity, None)?.into());
    };
    Ok(shown(call, &decided.tx, verbosity, Some(&decided))?.into())
}

fn shown(
    call: &Call<'_>,
    tx: &Tx,
    verbosity: i64,
    decided: Option<&Decided>,
) -> Result<Value, RpcError> {
    let encoded = hex::encode(&codec::encode(tx));
    if verbosity <= 0 {
        return Ok(json!(encoded));
    }
    let prevouts = match decided {
        Some(d) if verbosity >= 2 => Some(Spent::of(call, d.block.header.height, &d.block)?.by(tx)),
        _ => None,
    };
    let mut out = json::transaction(tx, prevouts.as_deref(), call.network());
    out["hex"] = json!(encoded);
    if let Some(fee) = prevouts.and_then(|list| json::fee(tx, &list)) {
        out["fee"] = amount_json(fee);
    }
    if let Some(d) = decided {
        let header = &d.block.header;
        out["in_active_chain"] = json!(true);
        out["blockhash"] = json!(d.id.to_string());
        out["blockheight"] = json!(header.height.0);
        let fork = call.view.contested_from(header.height);
        out["confirmations"] = json!(call.view.confirmations(header.height));
        out["time"] = json!(header.time.0 / 1_000);
        out["blocktime"] = json!(header.time.0 / 1_000);
        out["final"] = json!(fork.is_none());
        json::contest(&mut out, fork);
    }
    Ok(out)
}

fn decoderawtransaction(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let tx = decode(args.text(0))?;
    Ok(json::transaction(&tx, None, call.network()).into())
}

fn input(value: &Value) -> Result<OutPoint, RpcError> {
    let txid = value.get("txid").and_then(Value::as_str);
    let txid = txid.ok_or_else(|| RpcError::parameter("Invalid parameter, missing txid key"))?;
    let vout = value.get("vout");
    let vout = vout.ok_or_else(|| RpcError::parameter("Invalid parameter, missing vout key"))?;
    let vout = u32::try_from(args::integer(vout, "vout")?)
        .map_err(|_| RpcError::parameter("Invalid parameter, vout cannot be negative"))?;
    Ok(OutPoint {
        txid: args::id(txid, "txid")?,
        vout,
    })
}

/// What an `outputs` argument says: outputs in order, and the memo.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Where the money goes.
    pub outputs: Vec<TxOutput>,
    /// The memo, empty if there is none.
    pub memo: Vec<u8>,
}

/// Reads outputs: an object, or a list of objects; an address at most once, `data` at most once.
pub fn outputs(call: &Call<'_>, value: &Value) -> Result<Outputs, RpcError> {
    let mut pairs: Vec<(&String, &Value)> = Vec::new();
    match value {
        Value::Object(map) => pairs.extend(map.iter()),
        Value::Array(list) => {
            for item in list {
                match item {
                    Value::Object(map) if map.len() == 1 => pairs.extend(map.iter()),
                    _ => {
                        return Err(RpcError::parameter(
                            "Invalid parameter, each output must be an object with one key",
                        ));
                    }
                }
            }
        }
        _ => return Err(RpcError::wrong_type("outputs must be a list or an object")),
    }
    let mut out = Outputs::default();
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in pairs {
        if !seen.insert(name) {
            return Err(RpcError::parameter(format!(
                "Invalid parameter, duplicated address: {}",
                clip(name)
            )));
        }
        if name == "data" {
            let text = value.as_str();
            let text = text.ok_or_else(|| RpcError::wrong_type("data must be a hex string"))?;
            out.memo = args::bytes(text, "data")?;
            if out.memo.len() > MEMO_BYTES_MAX {
                return Err(RpcError::parameter(format!(
                    "a memo has at most {MEMO_BYTES_MAX} bytes"
                )));
            }
            continue;
        }
        out.outputs.push(TxOutput {
            value: args::amount(value)?,
            program: args::program(name, call.network())?,
        });
    }
    if out.outputs.len() > TX_OUTPUT_COUNT_MAX {
        return Err(RpcError::parameter(format!(
            "a transaction has at most {TX_OUTPUT_COUNT_MAX} outputs"
        )));
    }
    Ok(out)
}

fn createrawtransaction(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let list = args.get(0).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() > TX_INPUT_COUNT_MAX {
        return Err(RpcError::parameter(format!(
            "a transaction has at most {TX_INPUT_COUNT_MAX} inputs"
        )));
    }
    if args.integer(2, 0)? != 0 {
        return Err(RpcError::parameter("Invalid parameter, locktime must be 0")
            .hint("no transaction depends on time or height"));
    }
    let inputs = list.iter().map(input).collect::<Result<Vec<_>, _>>()?;
    let outputs = outputs(call, args.get(1).unwrap_or(&Value::Null))?;
    let body = TxBody {
        version: TX_VERSION,
        kind: TxKind::Transfer,
        inputs: BoundedVec::take_from(inputs),
        outputs: BoundedVec::take_from(outputs.outputs),
        payload: BoundedBytes::try_from(outputs.memo).unwrap_or_default(),
    };
    Ok(json!(hex::encode(&codec::encode(&unsigned(body)))).into())
}
