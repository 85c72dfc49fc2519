//! What clients are told of blocks that an open fork may take back (B6): contested, wherever finality or confirmations show.

use crate::ledger::testkit::HOLDER;
use crate::rpc::fake::FakeNode;
use crate::rpc::method_tests::{call, code, ok};
use crate::rpc::tests::{body, post, service};
use crate::rpc::wallet_tests::{Directory, fund};
use crate::types::ids::*;
use crate::types::transaction::Tx;
use serde_json::{Value, json};
use std::sync::Arc;

/// Two blocks of one payment each; a fork is open from height 2 on.
fn forked() -> (Arc<FakeNode>, [Tx; 2]) {
    let node = FakeNode::new();
    let txs = [node.payment(0, 1), node.payment(1, 2)];
    txs.iter()
        .for_each(|tx| drop(node.decide(vec![tx.clone()])));
    node.set(|k| k.view.contested = Some(Height(2)));
    (node, txs)
}

fn said(node: &Arc<FakeNode>, tx: &Tx) -> Value {
    ok(node, "gettransactionfinality", json!([tx.txid.to_string()]))
}

#[test]
fn what_a_fork_may_take_back_is_contested_and_what_is_below_is_final() {
    let (node, [below, above]) = forked();
    node.set(|k| k.view.slot_height = Height(2));
    let state = said(&node, &above);
    assert_eq!(
        (&state["state"], &state["final"], &state["fork_height"]),
        (&json!("contested"), &json!(false), &json!(2)),
        "a slot block above archives nothing that may go"
    );
    assert_eq!(state["height"], json!(2), "where it was decided");
    let state = said(&node, &below);
    assert_eq!(
        (&state["state"], &state["final"]),
        (&json!("archived"), &json!(true))
    );
    assert_eq!(state["fork_height"], Value::Null);
    node.set(|k| k.view.contested = None);
    let state = said(&node, &above);
    assert_eq!(
        state["final"],
        json!(true),
        "the branch has stayed: {state}"
    );
}

#[test]
fn blocks_and_coins_of_a_contested_branch_have_no_confirmations() {
    let (node, [below, above]) = forked();
    let shown = |tx: &Tx| ok(&node, "getrawtransaction", json!([tx.txid.to_string(), 1]));
    let block = |height: u64, method: &str| {
        let id = ok(&node, "getblockhash", json!([height]));
        ok(&node, method, json!([id]))
    };
    let coin = |tx: &Tx| ok(&node, "gettxout", json!([tx.txid.to_string(), 0]));
    for out in [
        shown(&above),
        block(2, "getblock"),
        block(2, "getblockheader"),
    ] {
        assert_eq!(
            (&out["confirmations"], &out["final"], &out["fork_height"]),
            (&json!(0), &json!(false), &json!(2))
        );
    }
    assert_eq!(coin(&above)["confirmations"], json!(0));
    for out in [
        shown(&below),
        block(1, "getblock"),
        block(1, "getblockheader"),
    ] {
        assert_eq!(
            (&out["confirmations"], &out["final"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(out["fork_height"], Value::Null);
    }
    let info = ok(&node, "getblockchaininfo", json!([]));
    assert_eq!(info["contested_from"], json!(2));
}

#[test]
fn waiting_for_finality_goes_on_while_it_is_contested() {
    let (node, [below, above]) = forked();
    let service = service(&node);
    let ask = |txid: &Txid| {
        let params = json!([txid.to_string(), 1]);
        json!({"id": 1, "method": "waittransactionfinality", "params": params}).to_string()
    };
    let at_once = post(&service, 1, &ask(&below.txid)).expect("final");
    assert_eq!(body(&at_once)["result"]["final"], json!(true));
    assert!(post(&service, 2, &ask(&above.txid)).is_none(), "it waits");
    let wakes = service.on_decided(&[above.txid], &[]);
    assert_eq!(wakes.len(), 0, "still contested");
    node.pass_ms(1_000);
    let late = service.on_time();
    let error = body(&late[0].1)["error"].clone();
    assert_eq!(error["data"]["reason"], json!("timeout"));
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("contested"), "{text}");
}

#[test]
fn no_proof_of_a_contested_payment_is_made_unless_it_is_asked_for() {
    let (node, [below, above]) = forked();
    let proof = |tx: &Tx, rest: Value| {
        let mut params = vec![json!(tx.txid.to_string())];
        params.extend(rest.as_array().cloned().unwrap_or_default());
        call(&node, "getfinalityproof", json!(params))
    };
    assert_eq!(proof(&below, json!([]))["error"], Value::Null);
    let refused = proof(&above, json!([]))["error"].clone();
    assert_eq!(
        (&refused["code"], &refused["data"]["reason"]),
        (&json!(-25), &json!("contested"))
    );
    let made = proof(&above, json!(["", true]))["result"].clone();
    let verdict = ok(&node, "verifyfinalityproof", json!([made]));
    assert_eq!(
        (&verdict["valid"], &verdict["fork_height"]),
        (&json!(true), &json!(2)),
        "its certificate holds, and this node knows of the other"
    );
    assert_eq!(
        code(
            &node,
            "getfinalityproof",
            json!([Txid::default().to_string()])
        ),
        -5
    );
}

#[test]
fn money_of_contested_blocks_is_not_confirmed() {
    let node = FakeNode::new();
    let dir = Directory::new();
    let wallet = node.add_wallet("default", &dir.0);
    let received = fund(&node, &wallet);
    let balance = |minconf: u64| ok(&node, "getbalance", json!(["*", minconf])).to_string();
    let payment = || ok(&node, "gettransaction", json!([received.to_string()]));
    assert_eq!(
        (balance(1), balance(0)),
        ("2.00000000".into(), "2.00000000".into())
    );
    node.set(|k| k.view.contested = Some(Height(1)));
    assert_eq!(
        (balance(1), balance(0)),
        ("0.00000000".into(), "2.00000000".into())
    );
    let info = ok(&node, "getwalletinfo", json!([]));
    assert_eq!(info["unconfirmed_balance"].to_string(), "2.00000000");
    assert_eq!(ok(&node, "listunspent", json!([])), json!([]), "minconf 1");
    let coins = ok(&node, "listunspent", json!([0]));
    assert_eq!(
        (&coins[0]["confirmations"], &coins[0]["safe"]),
        (&json!(0), &json!(false))
    );
    let shown = payment();
    assert_eq!(
        (
            &shown["final"],
            &shown["confirmations"],
            &shown["fork_height"]
        ),
        (&json!(false), &json!(0), &json!(1))
    );
    // It may be spent all the same: what is lost with the branch is lost with both.
    let target = crate::ledger::testkit::program(HOLDER + 5).address(node.facts.network());
    ok(&node, "sendtoaddress", json!([target, 0.5]));
    node.set(|k| k.view.contested = None);
    assert_eq!(payment()["final"], json!(true), "the fork has ended");
}

#[test]
fn metrics_show_from_where_on_blocks_are_contested() {
    let (node, _) = forked();
    let text = crate::rpc::metrics::Metrics::new().render(&*node, 0);
    assert!(text.contains("timecoin_fork_contested_height 2"), "{text}");
}
