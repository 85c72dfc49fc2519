//! Kills at bad moments: no fork, no key that signs twice, no payment lost that was reported final, and nodes that
//! catch up. TIMECOIN_CRASH_ROUNDS is the number of kills of each test of single nodes (default 4).

use std::io::Write;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use timecoin::base::rng::Rng;
use timecoin::types::block::Certificate;
use timecoin::{base::hex, base::limits::FRAME_CERTIFICATE_BYTES, types::codec};

use crate::load::Load;
use crate::support::{Cluster, Node, wait_for, wait_until};

/// Coins of each node, so that payments do not wait for one another's change.
const COINS: usize = 4;
/// Payments that must become final between two kills.
const PAYMENTS: usize = 3;

fn rounds() -> u64 {
    let set = std::env::var("TIMECOIN_CRASH_ROUNDS").ok();
    set.map_or(4, |text| {
        text.parse().expect("TIMECOIN_CRASH_ROUNDS is a number")
    })
}

/// A funded network.
fn funded() -> Cluster {
    let cluster = Cluster::start();
    cluster.fund(COINS);
    cluster
}

/// The node that leads, as `witness` sees it.
fn leader<'a>(cluster: &'a Cluster, witness: &Node) -> Option<&'a Node> {
    let proposer = witness.try_call("getconsensusinfo", json!([])).ok()?["proposer"].clone();
    cluster.nodes.iter().find(|node| {
        let own = node.try_call("masternode", json!(["status"]));
        own.is_ok_and(|own| own["proTxHash"] == proposer)
    })
}

/// Starts a killed node and waits until it has what `height` says and signs again.
fn bring_back(node: &Node, height: u64) {
    node.start();
    node.await_ready();
    wait_until("the node catches up", || node.height() >= height);
    wait_until("the node signs again", || signs(node));
}

fn signs(node: &Node) -> bool {
    let own = node.try_call("masternode", json!(["status"]));
    own.is_ok_and(|own| own["able_to_sign"] == true)
}

/// What must hold after all of it.
fn settle(cluster: &Cluster, load: &Load) {
    assert!(load.count() > 0, "payments flowed");
    cluster.await_equal_tips(1);
    cluster.assert_no_fork();
    load.assert_nothing_lost(cluster);
}

#[test]
fn a_leader_killed_again_and_again_costs_nothing() {
    let cluster = funded();
    let load = Load::run(&cluster, |load| {
        for round in 0..rounds() {
            load.await_payments(PAYMENTS);
            let witness = &cluster.nodes[(round % 4) as usize];
            let victim = wait_for("a leader", || leader(&cluster, witness));
            victim.kill();
            load.await_payments(PAYMENTS);
            let others = cluster.nodes.iter().filter(|node| node.port != victim.port);
            let height = others.map(Node::height).max().expect("nodes");
            bring_back(victim, height);
        }
    });
    settle(&cluster, &load);
}

#[test]
fn any_node_killed_at_any_moment_costs_nothing() {
    let cluster = funded();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let load = Load::run(&cluster, |load| {
        for _ in 0..rounds() {
            load.await_calls(rng.below(30));
            let index = rng.below(4) as usize;
            let victim = &cluster.nodes[index];
            victim.kill();
            load.await_calls(rng.below(30));
            let height = cluster.nodes[(index + 1) % 4].height();
            bring_back(victim, height);
        }
    });
    settle(&cluster, &load);
}

/// Kills all four while payments flow, does `damage`, and starts them again.
fn kill_all(cluster: &Cluster, load: &Load, calls: u64, damage: impl FnOnce()) {
    load.await_payments(PAYMENTS);
    load.await_calls(calls);
    // All are told before the first is waited for.
    let tell = |node: &Node| node.signal(Signal::KILL);
    cluster.nodes.iter().for_each(tell);
    for node in &cluster.nodes {
        node.await_end();
    }
    damage();
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
}

#[test]
fn all_killed_at_once_keep_what_was_reported_final() {
    let cluster = funded();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let load = Load::run(&cluster, |load| {
        for _ in 0..2 {
            kill_all(&cluster, load, rng.below(30), || {});
            load.await_payments(PAYMENTS);
        }
    });
    settle(&cluster, &load);
}

/// Masternodes that signed the block of a final payment: positions among the validators of the network.
fn signers(cluster: &Cluster, txid: &Value) -> Vec<usize> {
    let proof = cluster.nodes[0].call("getfinalityproof", json!([txid]));
    let bytes = hex::decode(proof["certificate"].as_str().expect("hex")).expect("hex");
    let certificate: Certificate =
        codec::decode(&bytes, FRAME_CERTIFICATE_BYTES).expect("a certificate");
    certificate.commit.signers.ones().collect()
}

#[test]
fn a_node_that_lost_its_ledger_and_signer_votes_again_by_b7() {
    let cluster = funded();
    let [a, b, c, lost] = &cluster.nodes[..] else {
        panic!("four nodes");
    };
    let load = Load::run(&cluster, |load| {
        kill_all(&cluster, load, 7, || {
            for name in ["lmdb", "signer"] {
                std::fs::remove_dir_all(lost.dir.join(name)).expect("removed");
            }
        });
        load.await_payments(PAYMENTS);
        wait_until("the masternode votes again (B7 step 5)", || signs(lost));
    });
    settle(&cluster, &load);
    // With one of the others gone, its vote is needed for every decision.
    assert_eq!(c.stop(), Some(0), "a clean stop");
    let txid = a.pay(&b.new_address(), "1");
    [a, b, lost].iter().for_each(|node| node.await_final(&txid));
    let own = lost.call("masternode", json!(["status"]))["proTxHash"].clone();
    let validators = a.consensus()["validators"].clone();
    let validators = validators.as_array().expect("a list");
    let position = validators
        .iter()
        .position(|validator| validator["id"] == own);
    let position = position.expect("it is a validator");
    assert!(
        signers(&cluster, &txid).contains(&position),
        "its signature stands in the certificate"
    );
}

/// Copies the files of a store. `in_place`: over the files that are there, which keep their inodes.
fn copy_store(from: &Path, to: &Path, in_place: bool) {
    if !in_place {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).expect("a directory");
    }
    for entry in std::fs::read_dir(from).expect("listed") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_name().expect("a name"));
        let bytes = std::fs::read(&from).expect("read");
        let mut file = std::fs::File::options();
        file.write(true).create(true).truncate(true);
        let mut file = file.open(to).expect("opened");
        file.write_all(&bytes).expect("written");
    }
}

/// B7: an older state of the disk comes back, as a copy (the tag tells) or bit by bit in its place (the others tell).
#[test]
fn an_older_disk_that_is_restored_abstains_until_it_is_safe() {
    let cluster = funded();
    let old = &cluster.nodes[3];
    let load = Load::run(&cluster, |load| {
        for in_place in [false, true] {
            let backup = cluster.dir.path().join(format!("backup-{in_place}"));
            load.await_payments(PAYMENTS);
            old.kill();
            for name in ["signer", "lmdb"] {
                copy_store(&old.dir.join(name), &backup.join(name), false);
            }
            bring_back(old, cluster.nodes[0].height());
            wait_until("the masternode signs (S7)", || signs(old));
            // Only what it signs from here on makes the copy stale: with another one gone, every payment that is made from
            // here on takes its vote. Each payer may have one under way that did not.
            let gone = &cluster.nodes[2];
            gone.kill();
            load.await_payments(cluster.nodes.len() + PAYMENTS);
            bring_back(gone, 0);
            old.kill();
            for name in ["signer", "lmdb"] {
                copy_store(&backup.join(name), &old.dir.join(name), in_place);
            }
            let before = old.logged().len();
            old.start();
            old.await_ready();
            wait_until("it says why it does not sign (B7)", || {
                old.logged()[before..].contains("signer state is unsure")
            });
            wait_until("it signs again once it is safe (B7 step 5)", || signs(old));
        }
    });
    settle(&cluster, &load);
}
