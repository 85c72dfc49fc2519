//! Masternodes come and go while payments flow: registered by time-cli, seen, voting, paid, and let go with their collateral.

use std::path::Path;

use serde_json::{Value, json};

use crate::load::Load;
use crate::support::{Cluster, Node, run_timed, time_cli, wait_for, wait_until};

/// Coins of each node, so that payments do not wait for one another's change.
const COINS: usize = 4;
/// Payments that must become final between two steps.
const PAYMENTS: usize = 3;

/// A node beside the genesis of `cluster`, with an operator key of its own, that listens at the next free place.
pub fn newcomer(cluster: &Cluster, number: u16) -> Node {
    let dir = cluster.dir.path().join(format!("net/node{number}"));
    let text = dir.to_string_lossy().into_owned();
    let (code, said) = run_timed(&["--network", "dev", "--datadir", &text, "init"]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::copy(cluster.genesis(), dir.join("genesis.toml")).expect("the genesis is copied");
    let first = cluster.nodes[0].port;
    let port = first + 10 * number;
    let config = format!(
        "[node]\nnetwork = \"dev\"\ndatadir = \".\"\n[p2p]\nbind = [\"127.0.0.1:{port}\"]\npeers = [\"127.0.0.1:{first}\"]\n\
         [rpc]\nbind = [\"127.0.0.1:{}\"]\nrate_anonymous = 0\nrate_user = 0\n",
        port + 1
    );
    std::fs::write(dir.join("timed.toml"), config).expect("written");
    let node = Node::new(dir, port);
    node.start();
    node.await_ready();
    node
}

/// Runs `time-cli masternode ...` against a node: its exit code, and its answer.
pub fn masternode(node: &Node, arguments: &[&str]) -> (Option<i32>, Value) {
    let datadir = node.dir.to_string_lossy();
    let head = ["--datadir", &datadir, "masternode"];
    let output = time_cli(&[&head[..], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    eprintln!(
        "masternode {arguments:?}: {:?} {said}",
        output.status.code()
    );
    (output.status.code(), answer)
}

/// Registers the operator key of `whose` at `endpoint` with the money of `payer`: its id.
pub fn register(payer: &Node, whose: &Node, endpoint: &str) -> String {
    let key = whose.dir.join("keys/operator.key");
    let (key, payout) = (key.to_string_lossy().into_owned(), whose.new_address());
    let (code, sent) = masternode(
        payer,
        &[
            "register",
            "--endpoint",
            endpoint,
            "--operator-key",
            &key,
            "--payout",
            payout.as_str().expect("an address"),
        ],
    );
    assert_eq!(code, Some(0), "{sent}");
    sent["proTxHash"].as_str().expect("an id").to_owned()
}

/// Codes of the reasons why the masternode of a node does not earn.
pub fn reasons(node: &Node) -> Vec<String> {
    let Ok(status) = node.try_call("masternode", json!(["status"])) else {
        return vec!["no answer".into()];
    };
    let list = status["reasons"].as_array().cloned().unwrap_or_default();
    let codes = list.iter().filter_map(|why| why["code"].as_str());
    codes.map(str::to_owned).collect()
}

/// What a node's registry says of a masternode; `None` once it is gone.
pub fn entry(node: &Node, id: &str) -> Option<Value> {
    node.try_call("protx", json!(["info", id])).ok()
}
/// What the registry says of it in one word.
pub fn standing(node: &Node, id: &str) -> String {
    let found = entry(node, id).map(|e| e["state"]["status"].as_str().unwrap_or("").to_owned());
    found.unwrap_or_default()
}

fn units(value: &Value) -> u64 {
    let text = value.to_string().replace('.', "");
    text.parse().unwrap_or(0)
}

/// A masternode that was registered is seen, gets power, leads, decides together with the others, and is paid.
fn joins(cluster: &Cluster, load: &Load, fifth: &Node, id: &str) {
    let first = &cluster.nodes[0];
    wait_until("M5: present once, it has power", || {
        standing(first, id) == "ENABLED"
    });
    wait_until("it earns, and its exit code says so", || {
        masternode(fifth, &["status"]).0 == Some(0)
    });
    wait_until("it leads", || {
        let tip = fifth.try_call("getbestblockhash", json!([]));
        let header = tip.and_then(|tip| fifth.try_call("getblockheader", json!([tip])));
        header.is_ok_and(|header| header["proposer"] == json!(id))
    });
    // With one of five gone nothing is decided without the fifth.
    let gone = &cluster.nodes[3];
    gone.kill();
    load.await_payments(PAYMENTS);
    gone.start();
    gone.await_ready();
    wait_until("M6: it is paid", || {
        let balance = fifth.try_call("getbalance", json!([]));
        balance.is_ok_and(|balance| units(&balance) > 0)
    });
    let report = first.call("getrewardreport", json!([id]));
    let mine = &report["masternodes"][0];
    assert!(units(&mine["paid"]) > 0, "{report}");
    assert!(units(&mine["earned"]) >= units(&mine["paid"]), "{report}");
}

/// It asks to leave, loses its power at once, and gets back what it had locked.
fn leaves(cluster: &Cluster, load: &Load, fifth: &Node, id: &str) {
    let first = &cluster.nodes[0];
    wait_until("the one that was killed votes again", || {
        reasons(&cluster.nodes[3]).is_empty()
    });
    let back = entry(first, id).expect("registered")["collateralAddress"].clone();
    let (code, sent) = masternode(first, &["unregister", id]);
    assert_eq!(code, Some(0), "{sent}");
    wait_until("it has left", || {
        entry(first, id).is_some_and(|e| {
            e["state"]["status"] == "LEAVING" && !e["state"]["releasedAt"].is_null()
        })
    });
    wait_until("its own node has heard of it, too", || {
        reasons(fifth).first().map(String::as_str) == Some("left")
    });
    load.await_payments(PAYMENTS);
    wait_until("B5 step 8: its entry ends after the unbonding", || {
        entry(first, id).is_none() && first.try_call("getblockcount", json!([])).is_ok()
    });
    wait_until("its collateral is a coin again", || {
        let coins = first.try_call("listunspent", json!([1, 9_999_999, [back]]));
        let coins = coins.unwrap_or_default();
        let mut coins = coins.as_array().into_iter().flatten();
        coins.any(|coin| format!("{}", coin["amount"]) == "1000.00000000")
    });
    let report = first.call("getrewardreport", json!([id]));
    let mine = &report["masternodes"][0];
    assert_eq!(
        mine["collateral_returned"].to_string(),
        "1000.00000000",
        "{report}"
    );
}

#[test]
fn a_fifth_masternode_joins_votes_is_paid_and_leaves_while_payments_flow() {
    let cluster = Cluster::make_with(4, &["--slot-interval", "2"]);
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    cluster.fund(COINS);
    let (fifth, dead) = (newcomer(&cluster, 4), newcomer(&cluster, 5));
    let load = Load::run(&cluster, |load| {
        let first = &cluster.nodes[0];
        wait_until("it knows that it is not registered", || {
            reasons(&fifth).contains(&"unregistered".to_owned())
        });
        assert_eq!(masternode(&fifth, &["status"]).0, Some(1), "for cron");
        let id = register(first, &fifth, &format!("127.0.0.1:{}", fifth.port));
        // Nothing listens there: its heartbeats alone are no presence.
        let nowhere = register(first, &dead, &format!("127.0.0.1:{}", dead.port + 5));
        wait_until("M1: both are registered, and jailed", || {
            entry(first, &id).is_some() && standing(first, &nowhere) == "JAILED"
        });
        joins(&cluster, load, &fifth, &id);
        leaves(&cluster, load, &fifth, &id);
        let entry = entry(first, &nowhere).expect("registered");
        assert_eq!(
            (&entry["state"]["power"], &entry["state"]["present"]),
            (&json!(0), &json!(0)),
            "M4: a dead endpoint never gets power: {entry}"
        );
        wait_until("M4: and its own node says why", || {
            reasons(&dead).contains(&"unreachable".to_owned())
        });
    });
    assert!(load.count() > 0, "payments flowed");
    cluster.await_equal_tips(1);
    cluster.assert_no_fork();
    load.assert_nothing_lost(&cluster);
    let height = cluster.nodes[0].height();
    wait_until("who has left still follows", || fifth.height() >= height);
}

/// The keys of collateral and owner are files that no node ever sees.
#[test]
fn a_cold_collateral_is_registered_and_released_by_files() {
    let cluster = Cluster::make_with(4, &["--slot-interval", "2"]);
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    let first = &cluster.nodes[0];
    let file = |name: &str| {
        let path = cluster.dir.path().join(name);
        path.to_string_lossy().into_owned()
    };
    let (key, prepared, signed) = (file("cold.key"), file("prepared.json"), file("signed.json"));
    let (code, cold) = masternode(first, &["keygen", "--out", &key]);
    assert_eq!(code, Some(0));
    let address = cold["address"].as_str().expect("an address").to_owned();
    let coin = first.pay(&json!(address), "1000");
    first.await_final(&coin);
    let coin = coin.as_str().expect("a txid");
    let shown = first.call("getrawtransaction", json!([coin, 1]));
    let outputs = shown["vout"].as_array().expect("outputs");
    let vout = outputs
        .iter()
        .position(|o| o["scriptPubKey"]["address"] == json!(address))
        .expect("the payment");
    // An operator key that `timed init` makes on the masternode's own host.
    let host = newcomer(&cluster, 4);
    let operator = host.dir.join("keys/operator.key");
    let public = host.call("masternode", json!(["status"]))["operator"].clone();
    let collateral = format!("{coin}:{vout}");
    let endpoint = format!("127.0.0.1:{}", host.port);
    let asked = [
        "register",
        "prepare",
        "--collateral",
        &collateral,
        "--endpoint",
        &endpoint,
        "--owner",
        &address,
        "--payout",
        &address,
        "--operator",
        public.as_str().expect("a key"),
        "--out",
        &prepared,
    ];
    assert_eq!(masternode(first, &asked).0, Some(0));
    let submit = |file: &str| masternode(first, &["register", "submit", file]);
    assert_eq!(submit(&prepared).0, Some(1), "nobody has signed");
    let sign = |from: &str, key: &Path, to: &str| {
        let key = key.to_string_lossy().into_owned();
        let (code, _) = masternode(&host, &["sign", from, "--key", &key, "--out", to]);
        assert_eq!(code, Some(0));
    };
    sign(&prepared, Path::new(&key), &signed);
    sign(&signed, &operator, &signed);
    let (code, sent) = submit(&signed);
    assert_eq!(code, Some(0), "{sent}");
    let id = sent["proTxHash"].as_str().expect("an id").to_owned();
    wait_until("it is registered", || entry(first, &id).is_some());
    wait_until("it is seen and votes", || standing(first, &id) == "ENABLED");

    let leave = ["unregister", &id, "--out", &prepared];
    assert_eq!(masternode(first, &leave).0, Some(0));
    sign(&prepared, Path::new(&key), &signed);
    let (code, sent) = masternode(first, &["submit", &signed]);
    assert_eq!(code, Some(0), "{sent}");
    let released = wait_for("it leaves", || {
        let found = entry(first, &id)?;
        found["state"]["releasedAt"].as_u64()
    });
    assert!(released > 0);
}
