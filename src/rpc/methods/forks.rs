//! Forks: what is known of one, and the operator's word when masternodes are split (B6).

use crate::replica::fork::ForkInfo;
use crate::rpc::args::Args;
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, required};
use crate::types::ids::*;
use serde_json::{Value, json};

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getforkinfo",
        category: Category::Masternodes,
        summary: "The fork that is open, or the last one that ended.",
        details: "A fork is two blocks decided at one height: more than a third of the masternodes broke the rules. While it is open \
                  nothing is signed; advice says what this node waits for and what operators should do.",
        args: &[],
        result: "{ status (\"none\", \"open\" or \"ended\"), height, era, branches: [{ block, round, stated }], held, stays, culprits: \
                 [{ masternode, offence }], culprit_power, total_power, needed_power, attempt, depth, depth_ms, returned: [txid], \
                 advice }",
        example: "",
        while_starting: true,
        run: getforkinfo,
    },
    MethodSpec {
        name: "recoverfork",
        category: Category::Masternodes,
        summary: "States that the branch with this block stays: after operators have agreed on it.",
        details: "Signs one statement for the branch in the next attempt (B6 step 7) and tells it to all peers. Statements of more than \
                  two thirds of the power that is not proved guilty end the fork. timed recover calls this.",
        args: &[required(
            "block",
            ArgKind::Hex,
            "One of the two blocks that getforkinfo shows.",
        )],
        result: "{ attempt, block, fork }, fork as in getforkinfo.",
        example: "\"0f3c...\"",
        while_starting: true,
        run: recoverfork,
    },
];

fn getforkinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(shown(call)?.into())
}

/// The fork as clients see it.
fn shown(call: &Call<'_>) -> Result<Value, RpcError> {
    let Some(fork) = call.node().fork() else {
        return Ok(json!({ "status": "none", "advice": "no fork is known" }));
    };
    // Depth is heights and time: 1,000 heights are minutes under load and days when nobody pays.
    let header = call.node().ledger().header(fork.height);
    let header = header.map_err(|error| RpcError::new(code::MISC, error.to_string()))?;
    let depth_ms = header.filter(|_| fork.open);
    let depth_ms = depth_ms.map_or(0, |header| call.view.tip.time.since(header.time));
    Ok(fork_json(&fork, depth_ms))
}

fn fork_json(fork: &ForkInfo, depth_ms: u64) -> Value {
    let branches = fork.branches.iter().map(|branch| {
        json!({
            "block": branch.block.to_string(),
            "round": branch.at.to_string(),
            "stated": branch.stated.0,
        })
    });
    let culprits = fork.culprits.iter();
    let culprits =
        culprits.map(|(id, offence)| json!({ "masternode": id.to_string(), "offence": offence }));
    let id = |block: Option<BlockId>| block.map(|block| block.to_string());
    let returned = fork.returned.iter().map(Txid::to_string);
    json!({
        "status": if fork.open { "open" } else { "ended" },
        "height": fork.height.0,
        "era": fork.era.0,
        "branches": branches.collect::<Vec<_>>(),
        "held": id(fork.held),
        "stays": id(fork.stays),
        "culprits": culprits.collect::<Vec<_>>(),
        "culprit_power": fork.power.0.0,
        "total_power": fork.power.1.0,
        "needed_power": fork.needed.0,
        "attempt": fork.attempt,
        "depth": fork.depth,
        "depth_ms": depth_ms,
        "returned": returned.collect::<Vec<_>>(),
        "advice": fork.advice,
    })
}

fn recoverfork(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let block: BlockId = args.id(0, "block")?;
    let attempt = call.node().recover(block);
    let attempt = attempt.map_err(|why| RpcError::new(code::MISC, why))?;
    let fork = shown(call)?;
    Ok(json!({ "attempt": attempt, "block": block.to_string(), "fork": fork }).into())
}
