//! Blocks and headers.

use crate::base::hex;
use crate::rpc::args::Args;
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::json;
use crate::rpc::node::Phase;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional, required};
use crate::rpc::waiters::{Until, WAIT_MS_MAX, Wait};
use crate::types::block::Block;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BLOCKHASH: &str = "The block's id, 64 hex digits. The chain id names the genesis (height 0).";
const TIMEOUT: &str = "Longest wait in milliseconds; 0: a day.";
const TIP: &str = "{ hash, height } The tip, reached or not.";

const CONTESTED: &str = "While a fork is open (getforkinfo), blocks that it may take back have 0 confirmations, are not final, and fork_height \
                         is the lowest of them.";

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getblockchaininfo",
        category: Category::Chain,
        summary: "The state of the chain on this node.",
        details: "Fields that exist only for proof of work are constants: bits 207fffff, difficulty 1, chainwork 0. contested_from is \
                  null unless a fork is open: blocks from that height on are not final until it has ended.",
        args: &[],
        result: "{ chain (main, test; a devnet says regtest), blocks, headers, bestblockhash, bits, target, difficulty, time, \
                 mediantime, verificationprogress, initialblockdownload, chainwork, size_on_disk, pruned, warnings, chain_id, \
                 durable_height, era, branch, slot_index, contested_from }",
        example: "",
        while_starting: false,
        run: getblockchaininfo,
    },
    MethodSpec {
        name: "getblockcount",
        category: Category::Chain,
        summary: "Height of the newest decided block.",
        details: "",
        args: &[],
        result: "n (number)",
        example: "",
        while_starting: false,
        run: getblockcount,
    },
    MethodSpec {
        name: "getbestblockhash",
        category: Category::Chain,
        summary: "Id of the newest decided block.",
        details: "",
        args: &[],
        result: "\"hex\"",
        example: "",
        while_starting: false,
        run: getbestblockhash,
    },
    MethodSpec {
        name: "getblockhash",
        category: Category::Chain,
        summary: "Id of the block at a height.",
        details: "Height 0 is the genesis, whose id is the chain id.",
        args: &[required("height", ArgKind::Integer, "Height.")],
        result: "\"hex\"",
        example: "1",
        while_starting: false,
        run: getblockhash,
    },
    MethodSpec {
        name: "getblock",
        category: Category::Chain,
        summary: "A decided block.",
        details: CONTESTED,
        args: &[
            required("blockhash", ArgKind::Hex, BLOCKHASH),
            optional(
                "verbosity",
                ArgKind::Verbosity,
                "1",
                "0: hex of the encoding; 1: header and txids; 2: with transactions and fees; 3: with what inputs spent.",
            ),
        ],
        result: "\"hex\", or { hash, confirmations, height, version, merkleroot, time, nTx, previousblockhash, nextblockhash, \
                 size, strippedsize, weight, tx, final, fork_height if contested, ... }",
        example: "\"00...\" 2",
        while_starting: false,
        run: getblock,
    },
    MethodSpec {
        name: "getblockheader",
        category: Category::Chain,
        summary: "The header of a decided block.",
        details: CONTESTED,
        args: &[
            required("blockhash", ArgKind::Hex, BLOCKHASH),
            optional(
                "verbose",
                ArgKind::Boolean,
                "true",
                "false: hex of the encoding.",
            ),
        ],
        result: "\"hex\", or { hash, confirmations, height, version, merkleroot, time, nTx, previousblockhash, \
                 nextblockhash, round, proposer, stateroot, final, fork_height if contested, ... }",
        example: "\"00...\"",
        while_starting: false,
        run: getblockheader,
    },
    MethodSpec {
        name: "waitfornewblock",
        category: Category::Chain,
        summary: "Waits for a block after the current one.",
        details: "",
        args: &[
            optional("timeout", ArgKind::Integer, "0", TIMEOUT),
            optional(
                "current_tip",
                ArgKind::Hex,
                "the tip now",
                "Waits until the tip is another than this.",
            ),
        ],
        result: TIP,
        example: "1000",
        while_starting: false,
        run: waitfornewblock,
    },
    MethodSpec {
        name: "waitforblockheight",
        category: Category::Chain,
        summary: "Waits until the tip has at least this height.",
        details: "",
        args: &[
            required("height", ArgKind::Integer, "Height."),
            optional("timeout", ArgKind::Integer, "0", TIMEOUT),
        ],
        result: TIP,
        example: "100 1000",
        while_starting: false,
        run: waitforblockheight,
    },
    MethodSpec {
        name: "getsyncinfo",
        category: Category::Chain,
        summary: "Whether and how this node catches up, what it waits for, and what it trusts.",
        details: "The rate is that of this catch-up so far, time_left is in seconds at this rate. trust.anchor is the newest \
                  slot block that is believed; an unanchored node follows and serves and signs nothing (timed trust).",
        args: &[],
        result: "{ syncing, height, durable_height, target_height, blocks_behind, headers, started_at, progress, blocks_per_second, \
                 time_left, waiting_for, peers_asked, snapshot: { height, pieces, of } or null, ranges_in_flight, bytes_in_flight, trust: { anchored, anchor, reason, \
                 trusted }, phase }",
        example: "",
        while_starting: true,
        run: getsyncinfo,
    },
];

fn getblockchaininfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let view = &call.view;
    let target = view.sync.target.max(view.tip.height);
    let progress = if target.0 == 0 {
        1.0
    } else {
        view.tip.height.0 as f64 / target.0 as f64
    };
    let base = call.node().ledger().base()?;
    let size = call.node().vitals().ledger_size.map_or(0, |(used, _)| used);
    let mut info = json!({
        "chain": json::chain_name(call.network()),
        "blocks": view.tip.height.0,
        "headers": target.0,
        "bestblockhash": view.tip.id.to_string(),
        "bits": json::BITS,
        "target": json::TARGET,
        "difficulty": json::DIFFICULTY,
        "time": view.tip.time.0 / 1_000,
        "mediantime": view.tip.time.0 / 1_000,
        "verificationprogress": progress,
        "initialblockdownload": view.sync.active,
        "chainwork": json::CHAINWORK,
        "size_on_disk": size,
        "pruned": base.0 > 0,
        "warnings": view.warnings,
        "chain_id": call.node().facts().chain.to_string(),
        "durable_height": view.durable.0,
        "era": view.era.0,
        "branch": view.branch.0,
        "slot_index": view.slot_index.0,
        "contested_from": view.contested.map(|from| from.0),
    });
    // As Bitcoin Core: present only when pruned.
    if base.0 > 0 {
        info["pruneheight"] = json!(base.0 + 1);
        info["automatic_pruning"] = json!(true);
    }
    Ok(info.into())
}

fn getblockcount(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(json!(call.view.tip.height.0).into())
}

fn getbestblockhash(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(json!(call.view.tip.id.to_string()).into())
}

fn getblockhash(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let found = match u64::try_from(args.integer(0, 0)?) {
        Ok(height) if height <= call.view.tip.height.0 => call.chain().id_at(Height(height))?,
        _ => None,
    };
    let id = found.ok_or_else(|| {
        RpcError::parameter("Block height out of range")
            .hint(format!("the tip has height {}", call.view.tip.height))
    })?;
    Ok(json!(id.to_string()).into())
}

/// Height and id of the block an argument names.
fn block_named(call: &Call<'_>, args: &Args) -> Result<(Height, BlockId), RpcError> {
    let id: BlockId = args.id(0, "blockhash")?;
    match call.chain().height_of(&id)? {
        Some(height) => Ok((height, id)),
        None => Err(RpcError::not_found("Block not found")
            .hint("only decided blocks are served; getblockhash gives their ids")),
    }
}

fn with_next(call: &Call<'_>, out: &mut Value, height: Height) -> Result<(), RpcError> {
    if height < call.view.tip.height
        && let Some(next) = call.chain().id_at(height.next())?
    {
        out["nextblockhash"] = json!(next.to_string());
    }
    Ok(())
}

fn genesis(call: &Call<'_>) -> Value {
    let facts = call.node().facts();
    Value::Object(json::genesis_block(
        &facts.genesis,
        &facts.chain,
        call.view.tip.height,
    ))
}

fn genesis_hex(call: &Call<'_>) -> Value {
    json!(hex::encode(&codec::encode(&*call.node().facts().genesis)))
}

fn getblockheader(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let (height, id) = block_named(call, args)?;
    let verbose = args.boolean(1, true);
    if height == Height(0) {
        let mut out = if verbose {
            genesis(call)
        } else {
            genesis_hex(call)
        };
        if verbose {
            with_next(call, &mut out, height)?;
        }
        return Ok(out.into());
    }
    let header = call.chain().header(height)?;
    let header = header.ok_or_else(|| Call::not_kept("Block header"))?;
    if !verbose {
        return Ok(json!(hex::encode(&codec::encode(&header))).into());
    }
    let count = call.chain().block(height)?.map(|b| b.transactions.len());
    let mut out = json::header(&header, &id, &call.view, count);
    with_next(call, &mut out, height)?;
    Ok(out.into())
}

/// What the inputs of a block's transactions spent: outputs of the block itself, and those its undo data names.
pub struct Spent(BTreeMap<OutPoint, TxOutput>);

impl Spent {
    /// Of a decided block.
    pub fn of(call: &Call<'_>, height: Height, block: &Block) -> Result<Spent, RpcError> {
        let mut all: BTreeMap<_, _> = call.chain().spent_by(height)?.into_iter().collect();
        for tx in block.transactions.iter() {
            for (output, vout) in tx.body().outputs.iter().zip(0..) {
                all.insert(tx.outpoint(vout), *output);
            }
        }
        Ok(Spent(all))
    }
    /// Of one transaction of it.
    pub fn by(&self, tx: &Tx) -> Vec<Option<TxOutput>> {
        let inputs = tx.body().inputs.iter();
        inputs.map(|input| self.0.get(input).copied()).collect()
    }
}

fn getblock(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let (height, id) = block_named(call, args)?;
    let verbosity = args.verbosity(1, 1)?;
    if height == Height(0) {
        if verbosity <= 0 {
            return Ok(genesis_hex(call).into());
        }
        let mut out = genesis(call);
        let size = codec::encoded_len(&*call.node().facts().genesis);
        out["size"] = json!(size);
        out["strippedsize"] = json!(size);
        out["weight"] = json!(4 * size);
        out["tx"] = json!([]);
        with_next(call, &mut out, height)?;
        return Ok(out.into());
    }
    let block = call.chain().block(height)?;
    let block = block.ok_or_else(|| Call::not_kept("Block"))?;
    if verbosity <= 0 {
        return Ok(json!(hex::encode(&codec::encode(&*block))).into());
    }
    let count = Some(block.transactions.len());
    let mut out = json::header(&block.header, &id, &call.view, count);
    let (size, stripped) = json::block_sizes(&block);
    out["strippedsize"] = json!(stripped);
    out["size"] = json!(size);
    out["weight"] = json!(3 * stripped + size);
    let txs = block.transactions.iter();
    let list: Vec<Value> = if verbosity == 1 {
        txs.map(|tx| json!(tx.txid.to_string())).collect()
    } else {
        let spent = Spent::of(call, height, &block)?;
        txs.map(|tx| {
            let prevouts = spent.by(tx);
            let shown = (verbosity >= 3).then_some(prevouts.as_slice());
            let mut one = json::transaction(tx, shown, call.network());
            if let Some(fee) = json::fee(tx, &prevouts) {
                one["fee"] = crate::rpc::args::amount_json(fee);
            }
            one["hex"] = json!(hex::encode(&codec::encode(tx)));
            one
        })
        .collect()
    };
    out["tx"] = Value::Array(list);
    with_next(call, &mut out, height)?;
    Ok(out.into())
}

/// A timeout in milliseconds as an argument gives it.
fn timeout(args: &Args, i: usize) -> Result<u64, RpcError> {
    let ms = args.count(i, 0, "timeout")?;
    Ok(if ms == 0 { WAIT_MS_MAX } else { ms })
}

fn waitfornewblock(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let current = match args.get(1) {
        None => call.view.tip.id,
        Some(_) => args.id(1, "current_tip")?,
    };
    Ok(Reply::Wait(Wait {
        until: Until::TipIsNot(current),
        timeout_ms: timeout(args, 0)?,
    }))
}

fn waitforblockheight(_: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    Ok(Reply::Wait(Wait {
        until: Until::Height(Height(args.count(0, 0, "height")?)),
        timeout_ms: timeout(args, 1)?,
    }))
}

fn getsyncinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let view = &call.view;
    let behind = view.sync.target.0.saturating_sub(view.tip.height.0);
    let done = view.tip.height.0.saturating_sub(view.sync.from.0);
    let total = if view.sync.active { done + behind } else { 0 };
    let phase = match call.node().phase() {
        Phase::WarmingUp(what) => what,
        Phase::Running if view.sync.active => "syncing".to_string(),
        Phase::Running => "running".to_string(),
        Phase::Stopping => "stopping".to_string(),
    };
    Ok(json!({
        "syncing": view.sync.active,
        "height": view.tip.height.0,
        "durable_height": view.durable.0,
        "target_height": view.sync.target.0,
        "blocks_behind": behind,
        "headers": view.sync.headers.max(view.slot_height).0,
        "started_at": view.sync.from.0,
        "progress": (total > 0).then(|| done as f64 / total as f64),
        "blocks_per_second": view.sync.blocks_per_1000_s as f64 / 1_000.0,
        "time_left": view.sync.left_s.filter(|_| view.sync.active),
        "waiting_for": view.sync.waiting,
        "peers_asked": view.sync.peers,
        "snapshot": view.sync.snapshot.map(|(height, pieces)| json!({
            "height": (height.0 > 0).then_some(height.0), "pieces": pieces, "of": 257,
        })),
        "ranges_in_flight": view.sync.ranges,
        "bytes_in_flight": view.sync.bytes,
        "trust": {
            "anchored": view.trust.unanchored.is_none(),
            "anchor": view.trust.anchor.0,
            "reason": view.trust.unanchored,
            "trusted": view.trust.root.map(|(height, id)| format!("{height}:{id}")),
        },
        "phase": phase,
    })
    .into())
}
