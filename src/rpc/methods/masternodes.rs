//! Masternodes and the engine they run.

use crate::rpc::args::{Args, amount_json, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::metrics::tier;
use crate::rpc::node::MasternodeView;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional};
use serde_json::{Map, Value, json};

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getconsensusinfo",
        category: Category::Masternodes,
        summary: "What the engine is doing, and what it waits for.",
        details: "",
        args: &[],
        result: "{ height, era, round, step (idle, propose, prevote, precommit), proposer, quorum_power, total_power, \
                 connected_power, has_quorum, prevote_power, precommit_power, waiting_for, due_ms, no_quorum_ms, masternode, \
                 validators: [{ id, power, operator }] }",
        example: "",
        while_starting: false,
        run: getconsensusinfo,
    },
    MethodSpec {
        name: "masternodelist",
        category: Category::Masternodes,
        summary: "The masternode registry.",
        details: "",
        args: &[
            optional(
                "mode",
                ArgKind::Text,
                "json",
                "json: everything; status, addr, power, payee: one figure of each.",
            ),
            optional(
                "filter",
                ArgKind::Text,
                "all",
                "Only entries whose id or answer contains this.",
            ),
        ],
        result: "{ id: { proTxHash, address, payee, status, tier, power, collateral, accrued, owner, pubkeyoperator, connected } }",
        example: "status",
        while_starting: false,
        run: masternodelist,
    },
    MethodSpec {
        name: "masternode",
        category: Category::Masternodes,
        summary: "The masternode run here, or how many there are.",
        details: "",
        args: &[optional(
            "command",
            ArgKind::Text,
            "status",
            "status: of this node; count: of the network; list: as masternodelist.",
        )],
        result: "status: { proTxHash, operator, service, state, status, able_to_sign, reason }; count: { total, enabled, \
                 power, bronze, silver, gold }",
        example: "count",
        while_starting: false,
        run: masternode,
    },
];

fn getconsensusinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let c = &call.view.consensus;
    let age = |since: Option<crate::base::time::MonoUs>| {
        since.map(|since| call.now.mono.since(since) / 1_000)
    };
    let validators = call.view.validators.members().iter();
    let validators: Vec<Value> = validators
        .map(|m| {
            json!({
                "id": m.id.to_string(),
                "power": m.power.0,
                "operator": m.operator.to_string(),
            })
        })
        .collect();
    Ok(json!({
        "height": c.height.0,
        "era": c.at.era.0,
        "round": c.at.round.0,
        "step": c.step.name(),
        "proposer": c.proposer.map(|id| id.to_string()),
        "quorum_power": c.quorum.0,
        "total_power": c.total.0,
        "connected_power": c.connected.0,
        "has_quorum": crate::types::ids::is_quorum(c.connected, c.total),
        "prevote_power": c.prevotes.0,
        "precommit_power": c.precommits.0,
        "waiting_for": c.waiting_for,
        "due_ms": age(c.due_since),
        "no_quorum_ms": age(c.no_quorum_since),
        "masternode": own(call),
        "validators": validators,
    })
    .into())
}

/// The masternode of this node; null if there is none.
fn own(call: &Call<'_>) -> Value {
    let Some(own) = &call.view.own else {
        return Value::Null;
    };
    let unanchored = (!own.anchored).then(|| "unanchored: no young trust root".to_string());
    let reason = own.unsure.clone().or(unanchored).or(own.abstains.clone());
    let entry = call.view.masternodes.iter().find(|m| Some(m.id) == own.id);
    let state = entry.map_or("UNREGISTERED", |entry| entry.status);
    let text = match &reason {
        Some(reason) => format!("does not sign: {reason}"),
        None if entry.is_some() => "able to sign".to_string(),
        None => "its operator key is in no registry entry".to_string(),
    };
    json!({
        "proTxHash": own.id.map(|id| id.to_string()),
        "operator": own.operator.to_string(),
        "service": entry.map(|entry| entry.endpoint.as_str()),
        "state": state,
        "status": text,
        "able_to_sign": reason.is_none() && state == "ENABLED",
        "reason": reason,
    })
}

fn entry_json(call: &Call<'_>, m: &MasternodeView) -> Value {
    json!({
        "proTxHash": m.id.to_string(),
        "address": m.endpoint,
        "payee": m.payout.address(call.network()),
        "status": m.status,
        "tier": tier(m.collateral.whole_time()),
        "power": m.power.0,
        "collateral": amount_json(m.collateral),
        "accrued": amount_json(m.accrued),
        "owner": m.owner.to_string(),
        "pubkeyoperator": m.operator.to_string(),
        "connected": m.connected,
    })
}

fn list(call: &Call<'_>, mode: &str, filter: &str) -> Result<Reply, RpcError> {
    let mut out = Map::new();
    for m in call.view.masternodes.iter() {
        let answer = match mode {
            "json" => entry_json(call, m),
            "status" => json!(m.status),
            "addr" => json!(m.endpoint),
            "power" => json!(m.power.0),
            "payee" => json!(m.payout.address(call.network())),
            _ => {
                return Err(
                    RpcError::parameter(format!("unknown mode '{}'", clip(mode)))
                        .hint("modes: json, status, addr, power, payee"),
                );
            }
        };
        let id = m.id.to_string();
        if filter.is_empty() || id.contains(filter) || answer.to_string().contains(filter) {
            out.insert(id, answer);
        }
    }
    Ok(Value::Object(out).into())
}

fn masternodelist(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let mode = args.text(0);
    list(
        call,
        if mode.is_empty() { "json" } else { mode },
        args.text(1),
    )
}

fn count(call: &Call<'_>) -> Value {
    let all = &call.view.masternodes;
    let enabled = all.iter().filter(|m| m.status == "ENABLED");
    let of_tier = |name: &str| {
        let same = |m: &&MasternodeView| tier(m.collateral.whole_time()) == name;
        all.iter().filter(same).count()
    };
    json!({
        "total": all.len(),
        "enabled": enabled.count(),
        "power": call.view.validators.total().0,
        "bronze": of_tier("bronze"),
        "silver": of_tier("silver"),
        "gold": of_tier("gold"),
    })
}

fn masternode(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    match args.text(0) {
        "" | "status" => match own(call) {
            Value::Null => Err(RpcError::new(code::MISC, "This node is not a masternode")
                .hint("set [masternode] operator_key, or put keys/operator.key into the data directory")),
            status => Ok(status.into()),
        },
        "count" => Ok(count(call).into()),
        "list" => list(call, "json", ""),
        other => Err(
            RpcError::parameter(format!("unknown command '{}'", clip(other)))
                .hint("commands: status, count, list"),
        ),
    }
}
