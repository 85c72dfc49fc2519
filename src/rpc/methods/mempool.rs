//! What waits to be decided.

use crate::rpc::args::{Args, amount_json};
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::node::MempoolEntry;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional, required};
use crate::types::amount::Amount;
use crate::types::codec;
use serde_json::{Map, Value, json};

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getmempoolinfo",
        category: Category::Mempool,
        summary: "The mempool in numbers.",
        details: "",
        args: &[],
        result: "{ loaded, size (transactions), bytes, usage, total_fee, maxmempool, maxcount, mempoolminfee, minrelaytxfee, \
                 incrementalrelayfee, unbroadcastcount, fullrbf, orphans }",
        example: "",
        while_starting: false,
        run: getmempoolinfo,
    },
    MethodSpec {
        name: "getrawmempool",
        category: Category::Mempool,
        summary: "Transactions that wait.",
        details: "",
        args: &[
            optional(
                "verbose",
                ArgKind::Boolean,
                "false",
                "Whether to tell about each.",
            ),
            optional(
                "mempool_sequence",
                ArgKind::Boolean,
                "false",
                "Accepted as false only.",
            ),
        ],
        result: "[\"txid\", ...], or { txid: { vsize, weight, time, height, fees, depends, ... } }",
        example: "true",
        while_starting: false,
        run: getrawmempool,
    },
    MethodSpec {
        name: "getmempoolentry",
        category: Category::Mempool,
        summary: "One transaction that waits.",
        details: "",
        args: &[required("txid", ArgKind::Hex, "The transaction's id.")],
        result: "{ vsize, weight, time, height, fees: { base, modified }, depends, bip125-replaceable, wtxid }",
        example: "\"txid\"",
        while_starting: false,
        run: getmempoolentry,
    },
];

fn getmempoolinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let m = &call.view.mempool;
    let floor = amount_json(Amount(call.node().facts().genesis.params.min_fee_per_kb));
    Ok(json!({
        "loaded": true,
        "size": m.count,
        "bytes": m.size,
        "usage": m.size,
        "total_fee": amount_json(m.total_fee),
        "maxmempool": m.max_size,
        "maxcount": m.max_count,
        "mempoolminfee": floor,
        "minrelaytxfee": floor,
        "incrementalrelayfee": floor,
        "unbroadcastcount": 0,
        "fullrbf": false,
        "orphans": m.orphan_count,
    })
    .into())
}

fn entry_json(entry: &MempoolEntry) -> Value {
    let stripped = codec::encoded_len(entry.tx.body());
    let depends = entry.depends.iter();
    let fee = amount_json(entry.fee);
    json!({
        "vsize": entry.tx.size,
        "weight": 3 * stripped + entry.tx.size,
        "time": entry.time.0 / 1_000,
        "height": entry.height.0,
        "wtxid": entry.tx.wtxid.to_string(),
        "fees": {"base": fee, "modified": fee},
        "depends": depends.map(|txid| txid.to_string()).collect::<Vec<_>>(),
        "bip125-replaceable": false,
    })
}

fn getrawmempool(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    if args.boolean(1, false) {
        return Err(RpcError::parameter("mempool_sequence is not kept")
            .hint("leave it out; gettransactionfinality follows one transaction"));
    }
    let entries = call
        .node()
        .mempool_entries(call.view.mempool.max_count.max(1));
    if !args.boolean(0, false) {
        let ids = entries.iter().map(|e| json!(e.tx.txid.to_string()));
        return Ok(Value::Array(ids.collect()).into());
    }
    let mut out = Map::new();
    for entry in &entries {
        out.insert(entry.tx.txid.to_string(), entry_json(entry));
    }
    Ok(Value::Object(out).into())
}

fn getmempoolentry(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid = args.id(0, "txid")?;
    match call.node().mempool_entry(&txid) {
        Some(entry) => Ok(entry_json(&entry).into()),
        None => Err(RpcError::not_found("Transaction not in mempool")),
    }
}
