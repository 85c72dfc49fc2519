//! Coins, supply and finality.

use crate::rpc::args::{Args, amount_json};
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::finality;
use crate::rpc::json;
use crate::rpc::proof::{self, Proof};
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional, required};
use crate::rpc::waiters::{Until, WAIT_MS_MAX, Wait};
use crate::sync::trust::block_of;
use crate::types::ids::*;
use serde_json::{Value, json};

const TXID: &str = "The transaction's id, 64 hex digits.";
const TRUSTED: &str = "HEIGHT:ID of a block that you know to be final, in place of the genesis.";
const STATE: &str = "{ txid, state (pending, proposed, final, archived, contested, conflicted, dropped, unknown), final, height, \
                     blockhash, finality_ms, fork_height if contested, conflicts_with, reason }";

/// Rows of this file.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "gettxout",
        category: Category::Chain,
        summary: "An unspent output.",
        details: "",
        args: &[
            required("txid", ArgKind::Hex, TXID),
            required("n", ArgKind::Integer, "Index of the output."),
            optional(
                "include_mempool",
                ArgKind::Boolean,
                "true",
                "Whether outputs that waiting transactions make or spend count.",
            ),
        ],
        result: "null if spent or unknown, else { bestblock, confirmations, value, scriptPubKey, coinbase }",
        example: "\"txid\" 0",
        while_starting: false,
        run: gettxout,
    },
    MethodSpec {
        name: "getutxostate",
        category: Category::Chain,
        summary: "Supply figures and the state root after the newest block.",
        details: "issued - burned = total_amount + pot + accrued + collateral holds at every block.",
        args: &[],
        result: "{ height, bestblock, stateroot, txouts, total_amount, issued, burned, pot, accrued, collateral, adds_up }",
        example: "",
        while_starting: false,
        run: getutxostate,
    },
    MethodSpec {
        name: "gettransactionfinality",
        category: Category::Chain,
        summary: "How far a transaction is.",
        details: "contested: it was decided on a branch whose certificate another certificate contradicts (getforkinfo). It is not \
                  final, and must not be relied on, until the fork has ended: then it is final again, or waits or is void because \
                  the branch was taken back. What was decided below fork_height is final all the time.",
        args: &[required("txid", ArgKind::Hex, TXID)],
        result: STATE,
        example: "\"txid\"",
        while_starting: false,
        run: gettransactionfinality,
    },
    MethodSpec {
        name: "waittransactionfinality",
        category: Category::Chain,
        summary: "Waits until a transaction is final.",
        details: "Answers as soon as it is final; a contested one is not (see gettransactionfinality). Error -25 as soon as it can never be (an input was spent by another), \
                  -1 with reason \"timeout\" when the time is over.",
        args: &[
            required("txid", ArgKind::Hex, TXID),
            optional(
                "timeout",
                ArgKind::Integer,
                "60",
                "Longest wait in seconds.",
            ),
        ],
        result: STATE,
        example: "\"txid\" 10",
        while_starting: false,
        run: waittransactionfinality,
    },
    MethodSpec {
        name: "getfinalityproof",
        category: Category::Chain,
        summary: "A proof that a transaction is final, to be checked offline with the genesis file alone.",
        details: "It proves inclusion, not that an output is unspent. 'time-cli proof verify FILE' checks it. Of a contested \
                  transaction none is made (error -25, reason \"contested\"): who checks it offline cannot know of the fork, and \
                  the other branch proves as well. With contested true it is made all the same, as evidence of what was decided here.",
        args: &[
            required("txid", ArgKind::Hex, TXID),
            optional("trusted", ArgKind::Text, "", TRUSTED),
            optional(
                "contested",
                ArgKind::Boolean,
                "false",
                "Whether to make it although a fork may take the block back.",
            ),
        ],
        result: "{ format, chain, txid, wtxid, height, blockhash, merkle, header, certificate, validators, steps, start if \
                 trusted was given, recoveries if a fork lies on the way }",
        example: "\"txid\"",
        while_starting: false,
        run: getfinalityproof,
    },
    MethodSpec {
        name: "verifyfinalityproof",
        category: Category::Util,
        summary: "Checks a finality proof against this node's genesis.",
        details: "root names what was trusted, and root_age_ms its age. root_stale: it is older than the trusting period, so \
                  its keys may have been sold, and a younger root proves more. A proof cannot show a fork that came after it was made: \
                  one of a branch that a fork ended is refused here, and only here. fork_height: a fork is open that may take the block \
                  back; rely on it only when that has ended.",
        args: &[
            required("proof", ArgKind::Object, "What getfinalityproof answered."),
            optional("trusted", ArgKind::Text, "", TRUSTED),
        ],
        result: "{ valid: true, txid, wtxid, height, blockhash, time, signed_power, total_power, root, root_age_ms, \
                 root_stale, fork_height if contested }; an error says what is wrong with it",
        example: "'{\"format\": ...}'",
        while_starting: false,
        run: verifyfinalityproof,
    },
];

fn gettxout(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid: Txid = args.id(0, "txid")?;
    let Ok(vout) = u32::try_from(args.integer(1, 0)?) else {
        return Ok(Value::Null.into());
    };
    let outpoint = OutPoint { txid, vout };
    let node = call.node();
    let with_mempool = args.boolean(2, true);
    if with_mempool && node.mempool_spender(&outpoint).is_some() {
        return Ok(Value::Null.into());
    }
    let answer = |output: &crate::types::transaction::TxOutput, confirmations: u64, coinbase| {
        json!({
            "bestblock": call.view.tip.id.to_string(),
            "confirmations": confirmations,
            "value": amount_json(output.value),
            "scriptPubKey": json::script(&output.program, call.network()),
            "coinbase": coinbase,
        })
    };
    if let Some(coin) = call.chain().coin(&outpoint)? {
        let place = call.chain().position_of(&txid)?;
        // Coins without a transaction are those of the genesis.
        let height = place.map_or(0, |(height, _)| height.0);
        let confirmations = call.view.confirmations(Height(height));
        return Ok(answer(&coin.output, confirmations, coin.coinbase).into());
    }
    if !with_mempool {
        return Ok(Value::Null.into());
    }
    let waiting = node.mempool_entry(&txid);
    let output = waiting.and_then(|entry| {
        let index = usize::try_from(vout).ok()?;
        entry.tx.body().outputs.get(index).copied()
    });
    Ok(output
        .map_or(Value::Null, |output| answer(&output, 0, false))
        .into())
}

fn getutxostate(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let s = &call.view.supply;
    let held = crate::types::amount::Amount::sum([s.coins, s.pot, s.accrued, s.collateral]);
    let adds_up = held.is_some() && s.issued.minus(s.burned) == held;
    Ok(json!({
        "height": call.view.tip.height.0,
        "bestblock": call.view.tip.id.to_string(),
        "stateroot": call.view.tip.state_root.to_string(),
        "txouts": s.coin_count,
        "total_amount": amount_json(s.coins),
        "issued": amount_json(s.issued),
        "burned": amount_json(s.burned),
        "pot": amount_json(s.pot),
        "accrued": amount_json(s.accrued),
        "collateral": amount_json(s.collateral),
        "adds_up": adds_up,
    })
    .into())
}

fn gettransactionfinality(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid = args.id(0, "txid")?;
    let found = finality::find(&call.chain(), call.node(), &txid)?;
    Ok(found.to_json().into())
}

fn waittransactionfinality(_: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid = args.id(0, "txid")?;
    let seconds = args.get(1).map_or(Some(60.0), Value::as_f64);
    let seconds = seconds.filter(|s| s.is_finite() && *s >= 0.0);
    let seconds = seconds.ok_or_else(|| RpcError::parameter("timeout must not be negative"))?;
    let timeout_ms = (seconds * 1_000.0).min(WAIT_MS_MAX as f64) as u64;
    Ok(Reply::Wait(Wait {
        until: Until::Final(txid),
        timeout_ms,
    }))
}

fn getfinalityproof(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let txid: Txid = args.id(0, "txid")?;
    let chain = call.chain();
    let start = match trusted(args)? {
        None => None,
        Some(block) => {
            let start = proof::start_at(&chain, call.node(), block)?;
            let text = format!("this chain has no block {}:{}", block.0, block.1);
            let start = start.ok_or_else(|| RpcError::not_found(text))?;
            let at = chain.position_of(&txid)?;
            if at.is_some_and(|(height, _)| height < block.0) {
                let text = "the transaction is in a block below the trusted one";
                return Err(RpcError::parameter(text).hint("name an older root, or none"));
            }
            Some(start)
        }
    };
    if !args.boolean(2, false)
        && let Some((height, _)) = chain.position_of(&txid)?
        && let Some(fork) = call.view.contested_from(height)
    {
        let text = format!(
            "transaction {txid} is contested: a fork from height {fork} on is open, and may take its block back; see getforkinfo"
        );
        let error = RpcError::new(code::VERIFY, text).reason("contested");
        return Err(error.hint(
            "once the fork has ended the proof is worth something; contested = true makes it now",
        ));
    }
    match proof::make(&chain, call.node(), &txid, start)? {
        Some(proof) => Ok(proof.to_json().into()),
        None => {
            let found = finality::find(&call.chain(), call.node(), &txid)?;
            let text = format!("transaction {txid} is not final: {}", found.state.name());
            Err(RpcError::not_found(text).hint("waittransactionfinality waits for it"))
        }
    }
}

/// The block that the caller vouches for.
fn trusted(args: &Args) -> Result<Option<proof::Trusted>, RpcError> {
    let text = args.text(1);
    let wrong = || RpcError::parameter("trusted is not HEIGHT:ID of a block");
    match text.is_empty() {
        true => Ok(None),
        false => block_of(text).map(Some).ok_or_else(wrong),
    }
}

fn verifyfinalityproof(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let value = args.get(0).unwrap_or(&Value::Null);
    let text = value.to_string();
    let proof = Proof::from_json(&text);
    let proof = proof.map_err(|e| RpcError::new(code::DESERIALIZATION, e.to_string()))?;
    let verdict = proof::verify(&call.node().facts().genesis, &proof, trusted(args)?);
    let verdict = verdict.map_err(|e| RpcError::new(code::VERIFY, e.to_string()))?;
    // A proof cannot show a fork that came after it: this node can.
    let own = call.chain().id_at(verdict.height);
    let own = own.map_err(|e| RpcError::new(code::MISC, e.to_string()))?;
    if let Some(stays) = own.filter(|id| *id != verdict.block) {
        let text = format!(
            "block {}:{} was decided and is not on this node's chain, which has {stays} there: it was on a branch that a fork ended, see getforkinfo",
            verdict.height, verdict.block
        );
        return Err(RpcError::new(code::VERIFY, text));
    }
    let mut out = verdict.to_json();
    out["root_age_ms"] = json!(call.now.wall.since(verdict.root_time));
    out["root_stale"] = json!(verdict.is_stale(call.now.wall));
    json::contest(&mut out, call.view.contested_from(verdict.height));
    Ok(out.into())
}
