//! Masternodes and the engine they run.

use crate::rpc::args::{Args, amount_json, clip};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::metrics::tier;
use crate::rpc::node::MasternodeView;
use crate::rpc::registry::{ArgKind, ArgSpec, Category, MethodSpec, Reply, optional};
use crate::rpc::standing::{self, Why};
use crate::types::address::Program;
use serde_json::{Map, Value, json};

const LIST_ARGS: &[ArgSpec] = &[
    optional(
        "mode",
        ArgKind::Text,
        "json",
        "json: everything; status, addr, power, payee, reason: one figure of each.",
    ),
    optional(
        "filter",
        ArgKind::Text,
        "all",
        "Only entries whose id or answer contains this.",
    ),
];

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
        args: LIST_ARGS,
        result: "{ id: { proTxHash, address, payee, status, tier, power, collateral, collateraladdress, accrued, owner, owneraddress, \
                 pubkeyoperator, connected, earning, reasons: [{ code, text }] } }",
        example: "status",
        while_starting: false,
        run: masternodelist,
    },
    MethodSpec {
        name: "masternode status",
        category: Category::Masternodes,
        summary: "The masternode run here, and in plain words why it does not earn.",
        details: "reasons is empty while it earns. Codes: slashed, left, leaving, jailed, new, queued, standby, absent, unattested, \
                  unseen, unreachable, unsure, unanchored, abstains, clock, syncing, operator-key, unregistered.",
        args: &[],
        result: "{ proTxHash, operator, service, payee, state, status, earning, reasons: [{ code, text }], able_to_sign, reason, \
                 power, collateral, accrued, present, present_needed, absent, absent_limit, slot_index }",
        example: "",
        while_starting: false,
        run: status,
    },
    MethodSpec {
        name: "masternode count",
        category: Category::Masternodes,
        summary: "How many masternodes there are.",
        details: "",
        args: &[],
        result: "{ total, enabled, power, bronze, silver, gold }",
        example: "",
        while_starting: false,
        run: |call, _| Ok(count(call).into()),
    },
    MethodSpec {
        name: "masternode list",
        category: Category::Masternodes,
        summary: "The same as masternodelist.",
        details: "",
        args: LIST_ARGS,
        result: "As of masternodelist.",
        example: "status",
        while_starting: false,
        run: masternodelist,
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
    let view = &call.view;
    let Some(operator) = call.node().facts().operator else {
        return Value::Null;
    };
    let params = &call.node().facts().genesis.params;
    let found = standing::own_entry(view, &operator);
    let state = found.map_or("UNREGISTERED", |m| m.status);
    let unsigned = view.own.as_ref().and_then(|own| {
        let unanchored = (!own.anchored).then(|| "unanchored: no young trust root".to_string());
        own.unsure.clone().or(unanchored).or(own.abstains.clone())
    });
    let text = match (&unsigned, found) {
        (Some(reason), _) => format!("does not sign: {reason}"),
        (None, Some(_)) => "able to sign".to_string(),
        (None, None) => "its operator key is in no registry entry".to_string(),
    };
    let reasons = standing::of_own(view, &operator, params);
    let mut out = json!({
        "proTxHash": found.map(|m| m.id().to_string()),
        "operator": operator.to_string(),
        "service": found.map(MasternodeView::endpoint),
        "state": state,
        "status": text,
        "earning": reasons.is_empty(),
        "reasons": reasons.iter().map(Why::to_json).collect::<Vec<_>>(),
        "able_to_sign": unsigned.is_none() && view.own.is_some() && state == "ENABLED",
        "reason": unsigned,
        "slot_index": view.slot_index.0,
    });
    if let Some(m) = found {
        let e = &m.entry;
        out["payee"] = json!(e.payout.address(call.network()));
        out["power"] = json!(m.power.0);
        out["collateral"] = amount_json(e.locked());
        out["accrued"] = amount_json(e.accrued);
        out["present"] = json!(e.present);
        out["present_needed"] = json!(params.unjail_after);
        out["absent"] = json!(e.absent);
        out["absent_limit"] = json!(params.jail_after);
    }
    out
}

fn reasons(call: &Call<'_>, m: &MasternodeView) -> Vec<Why> {
    let params = &call.node().facts().genesis.params;
    standing::of_entry(&m.entry, call.view.slot_index, params)
}

fn entry_json(call: &Call<'_>, m: &MasternodeView) -> Value {
    let (e, network) = (&m.entry, call.network());
    let reasons = reasons(call, m);
    json!({
        "proTxHash": e.id.to_string(),
        "address": m.endpoint(),
        "payee": e.payout.address(network),
        "status": m.status,
        "tier": tier(e.collateral.value.whole_time()),
        "power": m.power.0,
        "collateral": amount_json(e.locked()),
        "collateraladdress": e.collateral.program.address(network),
        "accrued": amount_json(e.accrued),
        "owner": e.owner.to_string(),
        "owneraddress": Program::Key(e.owner).address(network),
        "pubkeyoperator": e.operator.to_string(),
        "connected": m.connected,
        "earning": reasons.is_empty(),
        "reasons": reasons.iter().map(Why::to_json).collect::<Vec<_>>(),
    })
}

fn masternodelist(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let (mode, filter) = (args.text(0), args.text(1));
    let mode = if mode.is_empty() { "json" } else { mode };
    let mut out = Map::new();
    for m in call.view.masternodes.iter() {
        let answer = match mode {
            "json" => entry_json(call, m),
            "status" => json!(m.status),
            "addr" => json!(m.endpoint()),
            "power" => json!(m.power.0),
            "payee" => json!(m.entry.payout.address(call.network())),
            "reason" => {
                let texts = reasons(call, m).into_iter().map(|why| why.text);
                json!(texts.collect::<Vec<_>>().join("; "))
            }
            _ => {
                return Err(
                    RpcError::parameter(format!("unknown mode '{}'", clip(mode)))
                        .hint("modes: json, status, addr, power, payee, reason"),
                );
            }
        };
        let id = m.id().to_string();
        if filter.is_empty() || id.contains(filter) || answer.to_string().contains(filter) {
            out.insert(id, answer);
        }
    }
    Ok(Value::Object(out).into())
}

fn count(call: &Call<'_>) -> Value {
    let all = &call.view.masternodes;
    let enabled = all.iter().filter(|m| m.status == "ENABLED");
    let of_tier = |name: &str| {
        let same = |m: &&MasternodeView| tier(m.entry.collateral.value.whole_time()) == name;
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

fn status(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    match own(call) {
        Value::Null => Err(
            RpcError::new(code::MISC, "This node is not a masternode").hint(
                "it has no operator key: 'timed init' makes one, or set [masternode] operator_key",
            ),
        ),
        status => Ok(status.into()),
    }
}
