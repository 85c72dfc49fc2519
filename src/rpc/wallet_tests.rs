//! The wallet's methods over a real wallet in a directory of its own.

use crate::ledger::testkit::{HOLDER, program};
use crate::net::Method;
use crate::rpc::fake::FakeNode;
use crate::rpc::method_tests::{code, ok};
use crate::rpc::node::{Node, SubmitError};
use crate::rpc::tests::{CLIENT, body, request, service};
use crate::types::amount::Amount;
use crate::types::ids::*;
use crate::wallet::{FeePolicy, Terms, Wallet, WalletError};
use parking_lot::Mutex;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fresh directory, removed at the end of the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("timecoin-rpc-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Pays 2 TIME to a new address of the wallet, decided and observed.
pub fn fund(node: &Arc<FakeNode>, wallet: &Mutex<Wallet>) -> Txid {
    let address = ok(node, "getnewaddress", json!(["rent"]));
    let to = crate::types::address::Program::from_address(
        address.as_str().unwrap(),
        node.facts.network(),
    );
    let output = crate::types::transaction::TxOutput {
        value: Amount(200_000_000),
        program: to.unwrap(),
    };
    let kind = crate::types::transaction::TxKind::Transfer;
    let tx = node.net.lock().spend(kind, HOLDER, output, Vec::new(), &[]);
    let recent = node.decide(vec![tx.clone()]);
    wallet
        .lock()
        .observe(&recent.block, recent.block.header.height);
    tx.txid
}

#[test]
fn a_wallet_receives_shows_and_pays() {
    let node = FakeNode::new();
    let dir = Directory::new();
    assert_eq!(code(&node, "getbalance", json!([])), -18, "no wallet");
    let wallet = node.add_wallet("default", &dir.0);
    assert_eq!(ok(&node, "listwallets", json!([])), json!(["default"]));
    let received = fund(&node, &wallet);
    assert_eq!(ok(&node, "getbalance", json!([])).to_string(), "2.00000000");
    let coins = ok(&node, "listunspent", json!([]));
    assert_eq!(
        (&coins[0]["txid"], &coins[0]["label"]),
        (&json!(received.to_string()), &json!("rent"))
    );
    assert_eq!(coins[0]["confirmations"], json!(1));
    assert_eq!(ok(&node, "listunspent", json!([2])), json!([]));
    let got = ok(&node, "gettransaction", json!([received.to_string()]));
    assert_eq!(
        (got["amount"].to_string(), &got["confirmations"]),
        ("2.00000000".into(), &json!(1))
    );
    assert_eq!(got["details"][0]["category"], json!("receive"));

    let target = program(HOLDER + 5).address(node.facts.network());
    let sent = ok(&node, "sendtoaddress", json!([target, 0.5]));
    let tx = node.submitted.lock().last().cloned().unwrap();
    assert_eq!(sent, json!(tx.txid.to_string()));
    let pending = ok(&node, "gettransaction", json!([sent]));
    assert_eq!(
        (pending["amount"].to_string(), &pending["confirmations"]),
        ("-0.50000000".into(), &json!(0))
    );
    assert!(pending["fee"].to_string().starts_with("-0.0000"));
    assert_eq!(pending["details"][0]["category"], json!("send"));
    let recent = node.decide(vec![tx]);
    wallet.lock().observe(&recent.block, Height(2));
    let done = ok(&node, "gettransaction", json!([sent, false, true]));
    assert_eq!(
        (&done["confirmations"], &done["final"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        (done["amount"].to_string(), &done["decoded"]["txid"]),
        ("-0.50000000".into(), &sent)
    );
    let info = ok(&node, "getwalletinfo", json!([]));
    assert_eq!(
        (&info["txcount"], &info["walletname"]),
        (&json!(2), &json!("default"))
    );
}

#[test]
fn a_refused_payment_frees_its_coins_and_mistakes_have_their_codes() {
    let node = FakeNode::new();
    let dir = Directory::new();
    let wallet = node.add_wallet("default", &dir.0);
    fund(&node, &wallet);
    let target = program(HOLDER + 5).address(node.facts.network());
    for (params, wanted) in [
        (json!([target, 3]), -6),
        (json!([target, 0]), -3),
        (json!([target, -1]), -3),
        (json!([target, "0.000000001"]), -3),
        (json!(["nobody", 1]), -5),
        (json!([target]), -1),
    ] {
        assert_eq!(
            code(&node, "sendtoaddress", params.clone()),
            wanted,
            "{params}"
        );
    }
    node.set(|k| k.verdict = Err(SubmitError::Full));
    assert_eq!(code(&node, "sendtoaddress", json!([target, 1])), -26);
    assert_eq!(
        ok(&node, "getbalance", json!([])).to_string(),
        "2.00000000",
        "its coins are free"
    );
    node.set(|k| k.verdict = Err(SubmitError::Busy(std::time::Duration::ZERO)));
    assert_eq!(code(&node, "sendtoaddress", json!([target, 1])), -1);
    assert_eq!(
        wallet.lock().pending_count(),
        1,
        "what is only late is sent again"
    );
    assert_eq!(code(&node, "gettransaction", json!(["11".repeat(32)])), -5);
    assert_eq!(code(&node, "getnewaddress", json!(["", "legacy"])), -5);

    node.add_wallet("second", &dir.0);
    assert_eq!(code(&node, "getbalance", json!([])), -19, "which one?");
    let service = service(&node);
    let ask = |path: &str| {
        let call = r#"{"id":1,"method":"getwalletinfo"}"#;
        let cookie = Some("Basic X19jb29raWVfXzowMGZm");
        let parts = request(Method::Post, path, cookie, call);
        body(&service.handle(1, CLIENT, &parts).unwrap())
    };
    assert_eq!(
        ask("/wallet/second")["result"]["walletname"],
        json!("second")
    );
    assert_eq!(
        ask("/wallet/sec%6fnd")["result"]["walletname"],
        json!("second")
    );
    assert_eq!(ask("/wallet/third")["error"]["code"], json!(-18));
}

#[test]
fn what_was_reported_final_is_in_the_wallet() {
    let node = FakeNode::new();
    let dir = Directory::new();
    let wallet = node.add_wallet("default", &dir.0);
    let address = ok(&node, "getnewaddress", json!([]));
    let address = address.as_str().unwrap();
    let to = crate::types::address::Program::from_address(address, node.facts.network());
    let output = crate::types::transaction::TxOutput {
        value: Amount(200_000_000),
        program: to.unwrap(),
    };
    let kind = crate::types::transaction::TxKind::Transfer;
    let tx = node.net.lock().spend(kind, HOLDER, output, Vec::new(), &[]);
    let recent = node.decide(vec![tx.clone()]);
    let state = ok(
        &node,
        "gettransactionfinality",
        json!([tx.txid.to_string()]),
    );
    assert_eq!(state["final"], json!(true));
    assert_eq!(
        wallet.lock().synced(),
        Some(Height(0)),
        "nobody has told the wallet"
    );
    let shown = ok(&node, "getbalance", json!([]));
    assert_eq!(
        shown.to_string(),
        "2.00000000",
        "no answer is older than what was reported"
    );
    let again = wallet.lock().observe(&recent.block, Height(1));
    assert!(again.is_empty(), "told twice, counted once");
    assert_eq!(ok(&node, "getbalance", json!([])), shown);
}

#[test]
fn of_two_payments_that_chose_one_coin_the_first_keeps_it() {
    let node = FakeNode::new();
    let dir = Directory::new();
    let wallet = node.add_wallet("default", &dir.0);
    fund(&node, &wallet);
    let target = program(HOLDER + 5);
    let output = crate::types::transaction::TxOutput {
        value: Amount(50_000_000),
        program: target,
    };
    let facts = &node.facts;
    let terms = Terms::new(
        facts.chain,
        Branch(0),
        &facts.genesis.params,
        &facts.genesis.limits,
    );
    let policy = FeePolicy::default();
    let slow = wallet
        .lock()
        .create_transaction(&[output], b"slow", &policy, &terms)
        .unwrap();
    let address = target.address(facts.network());
    let sent = ok(&node, "sendtoaddress", json!([address, 0.25]));
    let quick = node.submitted.lock().last().cloned().unwrap();
    assert_eq!(sent, json!(quick.txid.to_string()));
    let lost = wallet.lock().commit(&slow.tx, node.now()).unwrap_err();
    let (by, coin) = (quick.txid, quick.body().inputs[0]);
    assert!(
        matches!(lost, WalletError::Taken { coin: c, by: b } if (c, b) == (coin, by)),
        "{lost}"
    );
    assert!(
        crate::rpc::error::RpcError::from(lost).coin_was_taken(),
        "who chose alone may choose again"
    );
    assert_eq!(
        code(&node, "sendtoaddress", json!([address, 1.9])),
        -6,
        "the coin is still spent"
    );
}
