//! Each method's answer over a real ledger in memory, with the field names that client libraries look for. Those of the
//! wallet are in `wallet_tests`.

use crate::base::hex;
use crate::ledger::testkit::{FEE, HOLDER, program};
use crate::rpc::fake::FakeNode;
use crate::rpc::node::*;
use crate::rpc::tests::{body, post, service};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::Tx;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub fn call(node: &Arc<FakeNode>, method: &str, params: Value) -> Value {
    let request = json!({"id": 1, "method": method, "params": params});
    let response = post(&service(node), 1, &request.to_string());
    body(&response.unwrap_or_else(|| panic!("{method} waits")))
}

pub fn ok(node: &Arc<FakeNode>, method: &str, params: Value) -> Value {
    let answer = call(node, method, params);
    assert_eq!(answer["error"], Value::Null, "{method}");
    answer["result"].clone()
}

pub fn code(node: &Arc<FakeNode>, method: &str, params: Value) -> i64 {
    let answer = call(node, method, params);
    answer["error"]["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("{method}: {answer}"))
}

fn hex_of(tx: &Tx) -> String {
    hex::encode(&codec::encode(tx))
}

/// Two blocks; the first of two payments, the second of one.
fn chain() -> (Arc<FakeNode>, Vec<Tx>) {
    let node = FakeNode::new();
    let first = vec![node.payment(0, 1), node.payment(1, 2)];
    node.decide(first.clone());
    let second = node.payment(0, 3);
    node.decide(vec![second.clone()]);
    (node, [first, vec![second]].concat())
}

/// The same questions, while blocks are only decided, when they are durable too, and from disk alone.
fn everywhere(check: impl Fn(&Arc<FakeNode>, &[Tx])) {
    let (node, txs) = chain();
    check(&node, &txs);
    node.flush(false);
    check(&node, &txs);
    node.flush(true);
    check(&node, &txs);
}

#[test]
fn blocks_are_the_same_from_memory_and_from_disk() {
    everywhere(|node, txs| {
        assert_eq!(ok(node, "getblockcount", json!([])), json!(2));
        let best = ok(node, "getbestblockhash", json!([]));
        let first = ok(node, "getblockhash", json!([1]));
        assert_eq!(best, ok(node, "getblockhash", json!([2])));
        let chain_id = ok(node, "getblockhash", json!([0]));
        assert_eq!(chain_id, json!(node.facts.chain.to_string()));
        assert_eq!(code(node, "getblockhash", json!([3])), -8);
        assert_eq!(code(node, "getblockhash", json!([-1])), -8);
        assert_eq!(code(node, "getblock", json!(["11".repeat(32)])), -5);

        let block = ok(node, "getblock", json!([first]));
        assert_eq!(block["height"], json!(1));
        assert_eq!(block["confirmations"], json!(2));
        assert_eq!(block["previousblockhash"], chain_id);
        assert_eq!(block["nextblockhash"], best);
        assert_eq!(block["nTx"], json!(2));
        assert_eq!(block["tx"][1], json!(txs[1].txid.to_string()));
        for name in [
            "bits",
            "difficulty",
            "chainwork",
            "nonce",
            "mediantime",
            "versionHex",
            "merkleroot",
            "size",
            "weight",
        ] {
            assert!(!block[name].is_null(), "{name} is there for old clients");
        }
        let header = ok(node, "getblockheader", json!([first]));
        assert_eq!(header["stateroot"], block["stateroot"]);
        let raw = ok(node, "getblock", json!([first, 0]));
        let bytes = hex::decode(raw.as_str().unwrap()).unwrap();
        let decoded: crate::types::block::Block = codec::decode(&bytes, 4 << 20).unwrap();
        assert_eq!(decoded.id().to_string(), first.as_str().unwrap());
        let genesis = ok(node, "getblock", json!([chain_id]));
        assert_eq!(
            (&genesis["height"], &genesis["nextblockhash"]),
            (&json!(0), &first)
        );
    });
}

#[test]
fn transactions_of_blocks_show_fees_and_what_they_spent() {
    everywhere(|node, txs| {
        let best = ok(node, "getbestblockhash", json!([]));
        let block = ok(node, "getblock", json!([best, 2]));
        let tx = &block["tx"][0];
        assert_eq!(tx["txid"], json!(txs[2].txid.to_string()));
        assert_eq!(
            tx["fee"].to_string(),
            Amount(FEE).to_string(),
            "exactly 8 decimals"
        );
        assert!(
            tx["vin"][0]["prevout"].is_null(),
            "verbosity 2 leaves them out"
        );
        let block = ok(node, "getblock", json!([best, 3]));
        let prevout = &block["tx"][0]["vin"][0]["prevout"];
        let address = program(HOLDER).address(node.facts.network());
        assert_eq!(prevout["scriptPubKey"]["address"], json!(address));
        assert_eq!(block["tx"][0]["vout"][0]["value"].to_string(), "0.05000000");

        let raw = ok(node, "getrawtransaction", json!([txs[2].txid.to_string()]));
        assert_eq!(raw, json!(hex_of(&txs[2])));
        let full = ok(
            node,
            "getrawtransaction",
            json!([txs[2].txid.to_string(), 2, best]),
        );
        assert_eq!(
            (&full["confirmations"], &full["blockhash"]),
            (&json!(1), &best)
        );
        assert_eq!(full["hash"], json!(txs[2].wtxid.to_string()));
        let other = json!([txs[0].txid.to_string(), 1, best]);
        assert_eq!(code(node, "getrawtransaction", other), -5);
        let unknown = json!(["22".repeat(32)]);
        assert_eq!(code(node, "getrawtransaction", unknown), -5);
        let decoded = ok(node, "decoderawtransaction", json!([hex_of(&txs[2])]));
        assert_eq!(decoded["vout"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn coins_and_supply() {
    everywhere(|node, txs| {
        let mine = json!([txs[2].txid.to_string(), 0]);
        let coin = ok(node, "gettxout", mine);
        assert_eq!(
            (&coin["confirmations"], coin["value"].to_string()),
            (&json!(1), "0.05000000".into())
        );
        let spent = txs[2].body().inputs[0];
        let gone = ok(
            node,
            "gettxout",
            json!([spent.txid.to_string(), spent.vout]),
        );
        assert_eq!(gone, Value::Null, "spent by a final transaction");
        let odd = ok(node, "gettxout", json!([txs[2].txid.to_string(), 7]));
        assert_eq!(odd, Value::Null);
        let state = ok(node, "getutxostate", json!([]));
        assert_eq!(state["adds_up"], json!(true), "L10");
        assert_eq!(state["pot"].to_string(), Amount(3 * FEE).to_string());
        let tip = ok(node, "getblockheader", json!([state["bestblock"]]));
        assert_eq!(tip["stateroot"], state["stateroot"]);
    });
    let (node, _) = chain();
    let waiting = node.payment(4, 5);
    let input = waiting.body().inputs[0];
    node.set(|k| k.mempool.push(entry(&waiting)));
    let params = json!([input.txid.to_string(), input.vout]);
    assert_eq!(
        ok(&node, "gettxout", params),
        Value::Null,
        "a waiting payment spends it"
    );
    let params = json!([input.txid.to_string(), input.vout, false]);
    assert_eq!(
        ok(&node, "gettxout", params)["confirmations"],
        json!(3),
        "a genesis coin"
    );
    let made = json!([waiting.txid.to_string(), 0]);
    assert_eq!(ok(&node, "gettxout", made)["confirmations"], json!(0));
}

fn entry(tx: &Tx) -> MempoolEntry {
    MempoolEntry {
        tx: tx.clone(),
        fee: Amount(FEE),
        time: crate::base::time::WallMs(1_000),
        height: Height(2),
        depends: Vec::new(),
    }
}

#[test]
fn finality_names_every_state() {
    everywhere(|node, txs| {
        let state = ok(
            node,
            "gettransactionfinality",
            json!([txs[0].txid.to_string()]),
        );
        assert_eq!(
            (&state["state"], &state["final"]),
            (&json!("final"), &json!(true))
        );
        assert_eq!(
            (&state["height"], &state["finality_ms"]),
            (&json!(1), &json!(12))
        );
        let proof = ok(node, "getfinalityproof", json!([txs[1].txid.to_string()]));
        let verdict = ok(node, "verifyfinalityproof", json!([proof]));
        assert_eq!(
            (&verdict["valid"], &verdict["height"]),
            (&json!(true), &json!(1))
        );
        let mut forged = proof;
        forged["txid"] = json!(txs[2].txid.to_string());
        assert_eq!(code(node, "verifyfinalityproof", json!([forged])), -25);
        assert_eq!(code(node, "verifyfinalityproof", json!([{}])), -22);
    });
    let (node, txs) = chain();
    node.set(|k| k.view.slot_height = Height(1));
    let state = |txid: &Txid| ok(&node, "gettransactionfinality", json!([txid.to_string()]));
    assert_eq!(state(&txs[0].txid)["state"], json!("archived"));
    assert_eq!(state(&txs[2].txid)["state"], json!("final"));
    let other = Txid::default();
    assert_eq!(state(&other)["state"], json!("unknown"));
    let tracks = [
        (Track::Pending, "pending"),
        (Track::Proposed, "proposed"),
        (Track::Conflicted { by: txs[0].txid }, "conflicted"),
        (Track::Dropped("expired".into()), "dropped"),
    ];
    for (track, name) in tracks {
        node.set(|k| {
            k.tracks.insert(other, track);
        });
        let found = state(&other);
        assert_eq!(
            (&found["state"], &found["final"]),
            (&json!(name), &json!(false))
        );
    }
    assert_eq!(
        code(&node, "getfinalityproof", json!([other.to_string()])),
        -5
    );
}

#[test]
fn sending_and_judging_map_refusals_to_codes() {
    let (node, _) = chain();
    let tx = node.payment(4, 5);
    let raw = json!([hex_of(&tx)]);
    assert_eq!(
        ok(&node, "sendrawtransaction", raw.clone()),
        json!(tx.txid.to_string())
    );
    assert_eq!(node.submitted.lock().len(), 1);
    let high = json!([hex_of(&tx), "0.00001"]);
    assert_eq!(
        code(&node, "sendrawtransaction", high),
        -25,
        "fee above the caller's bound"
    );
    let test = ok(&node, "testmempoolaccept", json!([[hex_of(&tx)]]));
    assert_eq!(test[0]["allowed"], json!(true));
    assert_eq!(test[0]["fees"]["base"].to_string(), Amount(FEE).to_string());
    assert_eq!(code(&node, "testmempoolaccept", json!([[]])), -8);
    let outpoint = OutPoint::default();
    let by = Txid::default();
    for (error, wanted) in [
        (SubmitError::Invalid("fee too low".into()), -26),
        (SubmitError::Missing(outpoint), -25),
        (SubmitError::Conflict { outpoint, by }, -26),
        (SubmitError::AlreadyFinal(Height(1)), -27),
        (SubmitError::Full, -26),
        (SubmitError::Busy(std::time::Duration::ZERO), -1),
    ] {
        node.set(|k| k.verdict = Err(error.clone()));
        assert_eq!(
            code(&node, "sendrawtransaction", raw.clone()),
            wanted,
            "{error}"
        );
        if !matches!(error, SubmitError::Busy(_)) {
            let test = ok(&node, "testmempoolaccept", json!([[hex_of(&tx)]]));
            assert_eq!(test[0]["allowed"], json!(false));
            assert!(test[0]["reject-reason"].is_string());
        }
    }
    node.set(|k| k.verdict = Err(SubmitError::AlreadyWaiting));
    assert_eq!(
        ok(&node, "sendrawtransaction", raw),
        json!(tx.txid.to_string())
    );
}

#[test]
fn raw_transactions_are_made_from_inputs_and_outputs() {
    let (node, _) = chain();
    let address = program(HOLDER).address(node.facts.network());
    let inputs = json!([{"txid": "11".repeat(32), "vout": 3}]);
    let made = ok(
        &node,
        "createrawtransaction",
        json!([inputs, {address.clone(): 0.1, "data": "6869"}]),
    );
    let seen = ok(&node, "decoderawtransaction", json!([made]));
    assert_eq!(seen["vin"][0]["vout"], json!(3));
    assert_eq!(seen["vout"][0]["value"].to_string(), "0.10000000");
    assert_eq!(seen["memo_text"], json!("hi"));
    let list = json!([inputs, [{address.clone(): "1"}, {"data": "00"}]]);
    assert!(ok(&node, "createrawtransaction", list).is_string());
    for (params, wanted) in [
        (json!([inputs, {"nonsense": 1}]), -5),
        (json!([inputs, {address.clone(): 0.000000001}]), -3),
        (json!([inputs, {address.clone(): -1}]), -3),
        (
            json!([inputs, [{address.clone(): 1}, {address.clone(): 2}]]),
            -8,
        ),
        (json!([inputs, {"data": "zz"}]), -8),
        (json!([inputs, {"data": "00".repeat(81)}]), -8),
        (json!([[{"txid": "11".repeat(32)}], {}]), -8),
        (json!([[{"vout": 1}], {}]), -8),
        (json!([[{"txid": "11".repeat(32), "vout": -1}], {}]), -8),
        (json!([[{"txid": "11", "vout": 1}], {}]), -8),
        (json!([inputs, {}, 5]), -8),
    ] {
        assert_eq!(
            code(&node, "createrawtransaction", params.clone()),
            wanted,
            "{params}"
        );
    }
}

#[test]
fn mempool_and_node_figures() {
    let (node, _) = chain();
    let tx = node.payment(4, 5);
    node.set(|k| {
        k.mempool.push(entry(&tx));
        k.view.mempool.count = 1;
        k.view.mempool.size = tx.size;
    });
    let info = ok(&node, "getmempoolinfo", json!([]));
    assert_eq!((&info["size"], &info["loaded"]), (&json!(1), &json!(true)));
    assert_eq!(
        ok(&node, "getrawmempool", json!([])),
        json!([tx.txid.to_string()])
    );
    let all = ok(&node, "getrawmempool", json!([true]));
    let one = ok(&node, "getmempoolentry", json!([tx.txid.to_string()]));
    assert_eq!(all[tx.txid.to_string()], one);
    assert_eq!(one["fees"]["base"].to_string(), Amount(FEE).to_string());
    assert_eq!(code(&node, "getmempoolentry", json!(["11".repeat(32)])), -5);
    assert_eq!(code(&node, "getrawmempool", json!([false, true])), -8);
    let raw = ok(&node, "getrawtransaction", json!([tx.txid.to_string(), 1]));
    assert!(raw.get("blockhash").is_none());

    let chain = ok(&node, "getblockchaininfo", json!([]));
    assert_eq!(
        (&chain["chain"], &chain["blocks"]),
        (&json!("regtest"), &json!(2))
    );
    let net = ok(&node, "getnetworkinfo", json!([]));
    assert!(net["version"].as_u64().unwrap() >= 290_000);
    assert_eq!(ok(&node, "getconnectioncount", json!([])), json!(0));
    assert_eq!(ok(&node, "getpeerinfo", json!([])), json!([]));
    let sync = ok(&node, "getsyncinfo", json!([]));
    assert_eq!(
        (&sync["height"], &sync["syncing"]),
        (&json!(2), &json!(false))
    );
    let consensus = ok(&node, "getconsensusinfo", json!([]));
    assert_eq!(consensus["validators"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&consensus["quorum_power"], &consensus["step"]),
        (&json!(2667), &json!("idle"))
    );
}

#[test]
fn masternodes_are_listed_and_counted() {
    let (node, _) = chain();
    let list = ok(&node, "masternodelist", json!([]));
    assert_eq!(list.as_object().unwrap().len(), 4);
    let (id, first) = list.as_object().unwrap().iter().next().unwrap();
    assert_eq!(
        (&first["status"], &first["tier"]),
        (&json!("ENABLED"), &json!("bronze"))
    );
    assert_eq!(first["collateral"].to_string(), "1000.00000000");
    let filtered = ok(&node, "masternodelist", json!(["status", id]));
    assert_eq!(filtered, json!({id.clone(): "ENABLED"}));
    assert_eq!(code(&node, "masternodelist", json!(["odd"])), -8);
    let count = ok(&node, "masternode", json!(["count"]));
    assert_eq!((&count["total"], &count["enabled"]), (&json!(4), &json!(4)));
    let status = ok(&node, "masternode", json!([]));
    assert_eq!(
        (&status["state"], &status["able_to_sign"]),
        (&json!("UNREGISTERED"), &json!(false)),
        "an operator key alone is no masternode"
    );
}

#[test]
fn control_and_util() {
    let node = FakeNode::new();
    assert_eq!(ok(&node, "logging", json!([])), json!({"filter": "info"}));
    assert_eq!(
        ok(&node, "logging", json!(["debug"])),
        json!({"filter": "debug"})
    );
    assert_eq!(code(&node, "logging", json!(["a b"])), -8);
    let info = ok(&node, "getrpcinfo", json!([]));
    assert_eq!(info["active_commands"][0]["method"], json!("getrpcinfo"));
    let help = ok(&node, "help", json!([]));
    for spec in crate::rpc::registry::methods() {
        assert!(
            help.as_str().unwrap().contains(&spec.usage()),
            "{}",
            spec.name
        );
    }
    let address = program(HOLDER).address(node.facts.network());
    let good = ok(&node, "validateaddress", json!([address]));
    assert_eq!(
        (&good["isvalid"], &good["witness_version"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        ok(&node, "validateaddress", json!(["x"]))["isvalid"],
        json!(false)
    );
    assert_eq!(
        ok(&node, "stop", json!([])),
        json!("TimeCoin server stopping")
    );
    assert!(node.stopped.load(Ordering::Relaxed));
}

#[test]
fn bans_are_set_listed_and_taken_back_as_in_bitcoin_core() {
    let node = FakeNode::new();
    let add = |subject: &str| json!([subject, "add", 60]);
    assert_eq!(ok(&node, "setban", add("192.0.2.0/24")), Value::Null);
    assert_eq!(
        code(&node, "setban", add("192.0.2.0/24")),
        -23,
        "already banned"
    );
    let key = "ab".repeat(32);
    ok(&node, "setban", json!([key, "add"]));
    let listed = ok(&node, "listbanned", json!([]));
    let of = |i: usize, name: &str| listed[i][name].clone();
    assert_eq!(of(0, "address"), "192.0.2.0/24");
    assert_eq!(
        (of(0, "ban_duration"), of(0, "time_remaining")),
        (json!(60), json!(60))
    );
    assert_eq!(
        of(1, "ban_duration"),
        86_400,
        "24 hours unless said otherwise"
    );
    assert_eq!(code(&node, "setban", add("nobody")), -30);
    assert_eq!(
        code(&node, "setban", json!(["192.0.2.9", "remove"])),
        -30,
        "no such ban"
    );
    assert_eq!(code(&node, "setban", json!(["192.0.2.9", "perhaps"])), -8);
    assert_eq!(
        code(&node, "setban", json!(["192.0.2.9", "add", 1, true])),
        -8,
        "in the past"
    );
    ok(&node, "setban", json!(["192.0.2.0/24", "remove"]));
    ok(&node, "clearbanned", json!([]));
    assert_eq!(ok(&node, "listbanned", json!([])), json!([]));
    assert_eq!(code(&node, "disconnectnode", json!(["192.0.2.9:1"])), -29);
    assert_eq!(
        code(&node, "disconnectnode", json!(["192.0.2.9:1", 5])),
        -8,
        "one of the two"
    );
    assert_eq!(
        code(&node, "addnode", json!(["192.0.2.9:1", "remove"])),
        -24
    );
    assert_eq!(code(&node, "addnode", json!(["192.0.2.9", "add"])), -8);
    ok(&node, "addnode", json!(["192.0.2.9:1", "onetry"]));
}
