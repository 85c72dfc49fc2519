//! Four nodes as a user sees them: payments, proofs, too few masternodes, nodes that come back, clean stops.

use rustix::process::Signal;
use serde_json::{Value, json};
use timecoin::node::client::ClientError;

use crate::support::{Cluster, Node, time_cli, wait_for, wait_until};

/// Money on node 1, from node 0, and a payment from there.
fn paid_from_node_1(cluster: &Cluster) -> Value {
    cluster.fund(1);
    let address = cluster.nodes[3].new_address();
    cluster.nodes[1].pay(&address, "12.5")
}

#[test]
fn a_payment_becomes_final_on_all_nodes_and_its_proof_needs_no_node() {
    let cluster = Cluster::start();
    let txid = paid_from_node_1(&cluster);
    for node in &cluster.nodes {
        let state = node.call("waittransactionfinality", json!([txid, 60]));
        assert_eq!(state["final"], true, "{state}");
    }
    cluster.await_equal_tips(1);
    cluster.assert_no_fork();
    let balance = cluster.nodes[3].call("getbalance", json!([]));
    assert_eq!(balance.to_string(), "1012.50000000", "exact amounts");

    let proof = cluster.nodes[2].call("getfinalityproof", json!([txid]));
    let file = cluster.dir.path().join("proof.json");
    let genesis = cluster.genesis();
    let verify = |proof: &Value| {
        std::fs::write(&file, proof.to_string()).expect("written");
        let output = time_cli(&[
            "proof",
            "verify",
            &file.to_string_lossy(),
            "--genesis",
            &genesis,
        ]);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // From a block that the verifier knows to be final from elsewhere, the one below.
    let below = proof["height"].as_u64().expect("a height") - 1;
    let id = cluster.nodes[1].call("getblockhash", json!([below]));
    let root = format!("{below}:{}", id.as_str().expect("an id"));
    let short = cluster.dir.path().join("short.json");
    let datadir = cluster.nodes[2].dir.to_string_lossy().into_owned();
    let short = short.to_string_lossy();
    let txid = txid.as_str().expect("an id");
    let head = [
        "--datadir",
        &datadir,
        "proof",
        "export",
        txid,
        "--out",
        &short,
    ];
    let output = time_cli(&[&head[..], &["--trusted", &root]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for node in &cluster.nodes {
        assert_eq!(node.stop(), Some(0), "SIGTERM is a clean stop");
    }
    let head = ["proof", "verify", &short, "--genesis", &genesis];
    assert_eq!(
        time_cli(&head).status.code(),
        Some(1),
        "F2: nobody vouches for its root"
    );
    let output = time_cli(&[&head[..], &["--trusted", &root]].concat());
    let verdict = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        verdict.contains(&format!("block {root}")),
        "S10: {output:?}"
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(verify(&proof), (Some(0), String::new()), "no node is asked");
    for part in [
        "txid",
        "wtxid",
        "header",
        "certificate",
        "merkle",
        "validators",
    ] {
        let mut forged = proof.clone();
        let mut text = forged[part].as_str().expect("hex").to_owned();
        let last = if text.ends_with('0') { "1" } else { "0" };
        text.replace_range(text.len() - 1.., last);
        forged[part] = json!(text);
        let (code, said) = verify(&forged);
        assert!(
            code.is_some_and(|code| code != 0) && !said.is_empty(),
            "a changed byte in {part} must be refused and said: {code:?} {said}"
        );
    }
}

#[test]
fn a_payment_made_to_a_node_that_is_alone_reaches_those_that_come_later() {
    let cluster = Cluster::make(4);
    let alone = &cluster.nodes[0];
    alone.start();
    alone.await_ready();
    let txid = alone.pay(&alone.new_address(), "1");
    let late = &cluster.nodes[1];
    late.start();
    late.await_ready();
    // Two of four decide nothing, so it stays where it is.
    wait_until("a new peer is told what waits", || {
        let waiting = late.call("getrawmempool", json!([]));
        waiting.as_array().is_some_and(|all| all.contains(&txid))
    });
}

/// The nodes see that a quorum is missing. The height at which they stand from then on: what was decided before has
/// reached both.
fn await_lack_of_quorum(a: &Node, b: &Node) -> u64 {
    wait_until("the nodes say that they wait for masternodes", || {
        [a, b].iter().all(|node| {
            let info = node.consensus();
            let waits = info["waiting_for"].as_str();
            info["has_quorum"] == false && waits.is_some_and(|text| text.contains("masternodes"))
        })
    });
    wait_for("two equal heights", || {
        let height = a.height();
        (b.height() == height).then_some(height)
    })
}

/// /health answers 503 with the reason, which takes its time; nothing was decided until then.
fn assert_decide_nothing(a: &Node, b: &Node, height: u64) {
    for node in [a, b] {
        wait_until("/health answers 503 with the reason", || {
            let (status, reasons) = node.health();
            status == 503 && reasons.contains("quorum")
        });
    }
    assert_eq!(
        (a.height(), b.height()),
        (height, height),
        "no quorum, no block"
    );
}

fn assert_not_found(result: Result<Value, ClientError>) {
    assert!(matches!(result, Err(ClientError::Rpc(_))), "{result:?}");
}

#[test]
fn two_of_four_decide_nothing_and_say_why_and_the_payment_outlives_a_restart() {
    let cluster = Cluster::start();
    cluster.fund(1);
    let [a, b, c, d] = &cluster.nodes[..] else {
        panic!("four nodes");
    };
    assert_eq!((c.stop(), d.stop()), (Some(0), Some(0)), "clean stops");
    let address = b.new_address();
    let txid = a.pay(&address, "3");
    let height = await_lack_of_quorum(a, b);
    assert_decide_nothing(a, b, height);
    assert!(
        !a.is_final(&txid) && !b.is_final(&txid),
        "no quorum, no finality"
    );
    assert_not_found(a.try_call("getfinalityproof", json!([txid])));
    let said = time_cli(&["--datadir", &a.dir.to_string_lossy(), "status"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.code() == Some(1) && text.contains("masternodes"),
        "status says why: {text}"
    );

    assert_eq!(a.stop(), Some(0), "a clean stop while a payment waits");
    a.start();
    a.await_ready();
    // What was saved is checked again, as if it had just come.
    wait_until("the mempool survives a clean restart", || {
        let waiting = a.call("getrawmempool", json!([]));
        waiting.as_array().is_some_and(|list| list.contains(&txid))
    });
    c.start();
    a.await_final(&txid);
    let height = a.height();
    d.start();
    d.await_final(&txid);
    cluster.await_equal_tips(height);
    cluster.assert_no_fork();
}

#[test]
fn three_of_four_go_on_and_a_halted_node_catches_up() {
    let cluster = Cluster::start();
    cluster.fund(4);
    let [a, b, c, d] = &cluster.nodes[..] else {
        panic!("four nodes");
    };
    d.signal(Signal::STOP);
    let before = a.height();
    for node in [a, b, c] {
        for _ in 0..3 {
            let txid = node.pay(&a.new_address(), "1");
            [a, b, c].iter().for_each(|node| node.await_final(&txid));
        }
    }
    assert!(a.height() > before, "three of four decide");
    c.signal(Signal::STOP);
    let txid = b.pay(&a.new_address(), "1");
    await_lack_of_quorum(a, b);
    assert!(
        !a.is_final(&txid) && !b.is_final(&txid),
        "two of four decide nothing"
    );
    c.signal(Signal::CONT);
    d.signal(Signal::CONT);
    cluster
        .nodes
        .iter()
        .for_each(|node| node.await_final(&txid));
    cluster.await_equal_tips(before + 1);
    cluster.assert_no_fork();
}
