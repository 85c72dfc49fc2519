//! Operator keys that change hosts, stores and hands (B7, M2): an imported key, a copy from before the first start, a key that
//! is replaced on a running network.

use std::path::Path;

use serde_json::json;

use crate::load::Load;
use crate::masternode::{entry, masternode, newcomer, reasons, register, standing};
use crate::support::{Cluster, Node, run_timed, timed, wait_until};

const COINS: usize = 4;
const PAYMENTS: usize = 3;

fn signs(node: &Node) -> bool {
    let own = node.try_call("masternode", json!(["status"]));
    own.is_ok_and(|own| own["able_to_sign"] == true)
}

/// Runs a command of `timed signer`: its exit code and all that it says.
fn signer(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = timed();
    command.arg("--config").arg(dir.join("timed.toml"));
    let output = command.arg("signer").args(arguments).output();
    let output = output.expect("timed starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

fn copy_file(name: &str, from: &Path, to: &Path) {
    std::fs::copy(from.join(name), to.join(name)).expect("copied");
}

/// A new host in the place of a node that is gone: made by `timed init`, never started.
fn new_host(cluster: &Cluster, old: &Node) -> Node {
    let dir = cluster.dir.path().join("net/moved");
    let text = dir.to_string_lossy().into_owned();
    let (code, said) = run_timed(&["--network", "dev", "--datadir", &text, "init"]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::copy(cluster.genesis(), dir.join("genesis.toml")).expect("the genesis is copied");
    copy_file("timed.toml", &old.dir, &dir);
    Node::new(dir, old.port)
}

/// Nothing is decided without the fourth when one of the others is gone.
fn is_needed(cluster: &Cluster) {
    let [a, b, c, fourth] = &cluster.nodes[..] else {
        panic!("four nodes");
    };
    assert_eq!(c.stop(), Some(0), "a clean stop");
    let txid = a.pay(&b.new_address(), "1");
    [a, b, fourth]
        .iter()
        .for_each(|node| node.await_final(&txid));
    c.start();
    c.await_ready();
    cluster.await_equal_tips(1);
    cluster.assert_no_fork();
}

#[test]
fn an_imported_key_abstains_until_it_is_safe_and_then_votes() {
    let mut cluster = Cluster::start();
    cluster.fund(COINS);
    cluster.nodes[3].kill();
    let moved = new_host(&cluster, &cluster.nodes[3]);
    let (code, said) = signer(&moved.dir, &["status"]);
    assert_eq!(code, Some(0), "B7.0: a key that was just made: {said}");
    copy_file("keys/operator.key", &cluster.nodes[3].dir, &moved.dir);
    let (code, said) = signer(&moved.dir, &["status"]);
    assert_eq!(code, Some(1), "B7.0: a key without its store: {said}");
    assert!(said.contains("another operator key"), "{said}");
    let (code, said) = signer(&moved.dir, &["init", "--above", "1"]);
    assert_eq!(code, Some(64), "B7.6: not by mistake: {said}");
    moved.start();
    moved.await_ready();
    wait_until("it says why it does not sign (B7.3)", || {
        moved.logged().contains("signer state is unsure")
    });
    wait_until("it signs once it is safe (B7.5)", || signs(&moved));
    moved.await_logged("this masternode signs");
    let log = moved.logged();
    let (doubt, sure) = (log.find("is unsure"), log.find("this masternode signs"));
    assert!(
        doubt.is_some() && doubt < sure,
        "first it abstained: {doubt:?} {sure:?}"
    );
    drop(std::mem::replace(&mut cluster.nodes[3], moved));
    is_needed(&cluster);
    let moved = &cluster.nodes[3];
    assert_eq!(moved.stop(), Some(0));
    let (code, said) = signer(&moved.dir, &["status"]);
    assert_eq!(code, Some(0), "the new store is in order: {said}");
    let init = ["init", "--above", "1000000", "--i-know"];
    let (code, said) = signer(&moved.dir, &init);
    assert_eq!(code, Some(1), "in order, nothing is made: {said}");
}

#[test]
fn a_store_made_by_hand_signs_above_the_height_it_was_given() {
    let mut cluster = Cluster::start();
    cluster.fund(COINS);
    cluster.nodes[3].kill();
    let moved = new_host(&cluster, &cluster.nodes[3]);
    copy_file("keys/operator.key", &cluster.nodes[3].dir, &moved.dir);
    std::fs::remove_dir_all(moved.dir.join("signer")).expect("a store of another key");
    let (code, said) = signer(&moved.dir, &["status"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no signer store"), "{said}");
    let above = (cluster.nodes[0].height() + 2).to_string();
    let (code, said) = signer(&moved.dir, &["init", "--above", &above, "--i-know"]);
    assert_eq!(code, Some(0), "B7.6: {said}");
    assert_eq!(signer(&moved.dir, &["status"]).0, Some(0));
    let load = Load::run(&cluster, |load| {
        moved.start();
        moved.await_ready();
        load.await_payments(3 * PAYMENTS);
        wait_until("it signs above that height", || signs(&moved));
    });
    drop(std::mem::replace(&mut cluster.nodes[3], moved));
    is_needed(&cluster);
    load.assert_nothing_lost(&cluster);
}

/// Key and store are in order, and the copy has no reason of its own to doubt: the others tell it (B7.2).
#[test]
fn a_copy_from_before_the_first_start_notices_what_its_key_has_signed() {
    let mut cluster = Cluster::make(4);
    let copy = cluster.dir.path().join("copy");
    let from = &cluster.nodes[3].dir;
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, &copy])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "copied");
    let copy = Node::new(copy, cluster.nodes[3].port);
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    cluster.fund(COINS);
    wait_until("the first one signs", || signs(&cluster.nodes[3]));
    let paid = cluster.nodes[3].pay(&cluster.nodes[0].new_address(), "1");
    cluster.nodes[3].await_final(&paid);
    cluster.nodes[3].kill();
    let (code, said) = signer(&copy.dir, &["status"]);
    assert_eq!(code, Some(0), "nothing here tells: {said}");
    copy.start();
    copy.await_ready();
    wait_until("it notices (B7.2)", || {
        copy.logged().contains("key in use elsewhere")
    });
    wait_until("it signs once it is safe (B7.5)", || signs(&copy));
    copy.await_logged("this masternode signs");
    let log = copy.logged();
    let (told, signs) = (
        log.find("key in use elsewhere"),
        log.find("this masternode signs"),
    );
    assert!(
        told < signs,
        "before it signed anything: {told:?} {signs:?}"
    );
    drop(std::mem::replace(&mut cluster.nodes[3], copy));
    is_needed(&cluster);
}

/// The walk of timecoin-operations(7): a new key with its store, an update, the old process stopped, the new one started.
#[test]
fn an_operator_key_is_replaced_on_a_running_network() {
    let cluster = Cluster::make_with(4, &["--slot-interval", "2"]);
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    cluster.fund(COINS);
    let fifth = newcomer(&cluster, 4);
    let first = &cluster.nodes[0];
    let load = Load::run(&cluster, |load| {
        let id = register(first, &fifth, &format!("127.0.0.1:{}", fifth.port));
        wait_until("it earns", || masternode(&fifth, &["status"]).0 == Some(0));
        let old_key = entry(first, &id).expect("registered")["state"]["pubKeyOperator"].clone();
        let new = cluster.dir.path().join("new");
        let text = new.to_string_lossy().into_owned();
        let (code, said) = run_timed(&["--network", "dev", "--datadir", &text, "init"]);
        assert_eq!(code, Some(0), "{said}");
        let key = new.join("keys/operator.key").to_string_lossy().into_owned();
        let (code, sent) = masternode(first, &["update", &id, "--operator-key", &key]);
        assert_eq!(code, Some(0), "{sent}");
        wait_until("M2: the next slot block makes it the key", || {
            entry(first, &id).is_some_and(|e| e["state"]["pubKeyOperator"] != old_key)
        });
        let state = entry(first, &id).expect("registered")["state"].clone();
        assert_eq!(
            state["formerOperators"],
            json!([old_key]),
            "M1: the old one stays punishable: {state}"
        );
        wait_until("the old process says that its key is no longer it", || {
            let why = reasons(&fifth);
            why.iter().any(|code| code == "operator-key")
        });
        assert_eq!(masternode(&fifth, &["status"]).0, Some(1), "for cron");
        assert_eq!(fifth.stop(), Some(0), "a clean stop");
        std::fs::remove_dir_all(fifth.dir.join("signer")).expect("the old store");
        let moved = std::fs::rename(new.join("signer"), fifth.dir.join("signer"));
        moved.expect("the store of the new key");
        copy_file("keys/operator.key", &new, &fifth.dir);
        fifth.start();
        fifth.await_ready();
        wait_until("it earns with the new key", || {
            masternode(&fifth, &["status"]).0 == Some(0) && standing(first, &id) == "ENABLED"
        });
        wait_until("it leads", || {
            let tip = fifth.try_call("getbestblockhash", json!([]));
            let header = tip.and_then(|tip| fifth.try_call("getblockheader", json!([tip])));
            header.is_ok_and(|header| header["proposer"] == json!(id))
        });
        let balance = || fifth.try_call("getbalance", json!([])).ok();
        let before = balance().map(|b| b.to_string());
        let gone = &cluster.nodes[3];
        gone.kill();
        load.await_payments(PAYMENTS);
        gone.start();
        gone.await_ready();
        wait_until("M6: it is paid as before", || {
            balance().is_some_and(|now| Some(now.to_string()) != before)
        });
    });
    cluster.await_equal_tips(1);
    cluster.assert_no_fork();
    load.assert_nothing_lost(&cluster);
}
