//! Blocks, headers and transactions as JSON, with Bitcoin Core's field names where Core has the field.
//!
//! What exists only for proof of work is present with the constants below, so that client libraries find it.

use crate::base::hex;
use crate::rpc::args::amount_json;
use crate::rpc::node::NodeView;
use crate::rpc::registration::payload_of;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::block::{Block, Header};
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxKind, TxOutput};
use serde_json::{Map, Value, json};

/// `bits` of every block: there is no proof of work.
pub const BITS: &str = "207fffff";
/// `target` of every block.
pub const TARGET: &str = "7fffff0000000000000000000000000000000000000000000000000000000000";
/// `chainwork` of every block.
pub const CHAINWORK: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// `nonce` of every block.
pub const NONCE: u32 = 0;
/// `difficulty` of every block.
pub const DIFFICULTY: u32 = 1;
/// `sequence` of every input: no transaction depends on time or height (L8).
pub const SEQUENCE: u32 = 0xffff_ffff;

/// `chain` as client libraries know it.
pub fn chain_name(network: Network) -> &'static str {
    match network {
        Network::Main => "main",
        Network::Test => "test",
        Network::Dev => "regtest",
    }
}

/// The `scriptPubKey` of a program, written like a witness program of Bitcoin: version, then 32 bytes.
pub fn script(program: &Program, network: Network) -> Value {
    let bytes = hex::encode(program.bytes());
    json!({
        "asm": format!("{} {bytes}", program.version()),
        "hex": script_hex(program),
        "address": program.address(network),
        "type": "witness_unknown",
    })
}

/// Version opcode, length, 32 bytes.
pub fn script_hex(program: &Program) -> String {
    format!(
        "{:02x}20{}",
        0x50 + program.version(),
        hex::encode(program.bytes())
    )
}

/// Name of a kind of transaction.
pub fn kind_name(kind: TxKind) -> &'static str {
    match kind {
        TxKind::Transfer => "transfer",
        TxKind::Register => "register",
        TxKind::Update => "update",
        TxKind::Unregister => "unregister",
        TxKind::Coinbase => "coinbase",
    }
}

fn output(output: &TxOutput, n: usize, network: Network) -> Value {
    json!({
        "value": amount_json(output.value),
        "n": n,
        "scriptPubKey": script(&output.program, network),
    })
}

fn inputs(tx: &Tx, prevouts: Option<&[Option<TxOutput>]>, network: Network) -> Vec<Value> {
    let body = tx.body();
    if body.kind == TxKind::Coinbase {
        return vec![json!({"coinbase": hex::encode(&body.payload), "sequence": SEQUENCE})];
    }
    let input = |(i, outpoint): (usize, &OutPoint)| {
        let witness = tx.transaction.witnesses.get(i).map(codec::encode);
        let mut out = json!({
            "txid": outpoint.txid.to_string(),
            "vout": outpoint.vout,
            "scriptSig": {"asm": "", "hex": ""},
            "txinwitness": [hex::encode(&witness.unwrap_or_default())],
            "sequence": SEQUENCE,
        });
        if let Some(Some(spent)) = prevouts.and_then(|list| list.get(i)) {
            out["prevout"] = json!({
                "value": amount_json(spent.value),
                "scriptPubKey": script(&spent.program, network),
            });
        }
        out
    };
    body.inputs.iter().enumerate().map(input).collect()
}

/// A transaction. `prevouts`: what its inputs spent, if wanted and known.
pub fn transaction(tx: &Tx, prevouts: Option<&[Option<TxOutput>]>, network: Network) -> Value {
    let body = tx.body();
    let stripped = codec::encoded_len(body);
    let outputs = body.outputs.iter().enumerate();
    let mut out = json!({
        "txid": tx.txid.to_string(),
        "hash": tx.wtxid.to_string(),
        "version": body.version,
        "size": tx.size,
        "vsize": tx.size,
        "weight": 3 * stripped + tx.size,
        "locktime": 0,
        "kind": kind_name(body.kind),
        "vin": inputs(tx, prevouts, network),
        "vout": outputs.map(|(n, o)| output(o, n, network)).collect::<Vec<_>>(),
    });
    if body.kind == TxKind::Transfer && !body.payload.is_empty() {
        out["memo"] = json!(hex::encode(&body.payload));
        if let Ok(text) = std::str::from_utf8(&body.payload) {
            out["memo_text"] = json!(text);
        }
    } else if !body.payload.is_empty() {
        out["payload"] = json!(hex::encode(&body.payload));
    }
    if let Some(payload) = payload_of(body) {
        out[kind_name(body.kind)] = payload.to_json(network);
    }
    out
}

/// The fee of a transaction whose spent outputs are all known; a coinbase has none.
pub fn fee(tx: &Tx, prevouts: &[Option<TxOutput>]) -> Option<Amount> {
    if tx.body().kind == TxKind::Coinbase {
        return None;
    }
    let spent: Option<Vec<Amount>> = prevouts.iter().map(|o| o.map(|o| o.value)).collect();
    let paid = Amount::sum(tx.body().outputs.iter().map(|o| o.value))?;
    Amount::sum(spent?)?.minus(paid)
}

/// Fields of a header that getblockheader and getblock share.
pub fn header(header: &Header, id: &BlockId, view: &NodeView, tx_count: Option<usize>) -> Value {
    let fork = view.contested_from(header.height);
    let mut out = json!({
        "hash": id.to_string(),
        "confirmations": view.confirmations(header.height),
        "height": header.height.0,
        "version": header.version,
        "versionHex": format!("{:08x}", header.version),
        "merkleroot": header.tx_root.to_string(),
        "time": header.time.0 / 1_000,
        "mediantime": header.time.0 / 1_000,
        "nonce": NONCE,
        "bits": BITS,
        "target": TARGET,
        "difficulty": DIFFICULTY,
        "chainwork": CHAINWORK,
        "nTx": tx_count,
        "previousblockhash": header.parent.to_string(),
        "time_ms": header.time.0,
        "branch": header.branch.0,
        "era": header.era.0,
        "round": header.round.0,
        "proposer": header.proposer.to_string(),
        "slotblock": !header.slot_root.is_zero(),
        "slotroot": header.slot_root.to_string(),
        "stateroot": header.state_root.to_string(),
        "validatorshash": header.validators_hash.to_string(),
        "nextvalidatorshash": header.next_validators_hash.to_string(),
        "prevslotblock": header.prev_slot_block.to_string(),
        "historyroot": header.history_root.to_string(),
        "final": fork.is_none(),
    });
    contest(&mut out, fork);
    out
}

/// Marks what an open fork may take back with the lowest height that it may.
pub fn contest(out: &mut Value, fork: Option<Height>) {
    if let Some(fork) = fork {
        out["fork_height"] = json!(fork.0);
    }
}

/// Sizes of a block: encoded, and without witnesses.
pub fn block_sizes(block: &Block) -> (usize, usize) {
    let size = codec::encoded_len(block);
    let witnesses = block.transactions.iter();
    let witnesses: usize = witnesses
        .map(|tx| tx.size.saturating_sub(codec::encoded_len(tx.body())))
        .sum();
    (size, size.saturating_sub(witnesses))
}

/// Height 0 in the form of a block: it has no header, so what a header would hold is zero or absent.
pub fn genesis_block(genesis: &Genesis, chain: &ChainId, tip: Height) -> Map<String, Value> {
    let zero = BlockId::default().to_string();
    let value = json!({
        "hash": chain.to_string(),
        "confirmations": tip.0 + 1,
        "height": 0,
        "version": genesis.version,
        "versionHex": format!("{:08x}", genesis.version),
        "merkleroot": zero,
        "time": genesis.time.0 / 1_000,
        "mediantime": genesis.time.0 / 1_000,
        "nonce": NONCE,
        "bits": BITS,
        "target": TARGET,
        "difficulty": DIFFICULTY,
        "chainwork": CHAINWORK,
        "nTx": 0,
        "time_ms": genesis.time.0,
        "slotblock": true,
        "final": true,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
