//! What `timed` does beside running a node: files of networks and nodes, care of signer store and ledger, topology.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use timecoin::storage::{KvStore, Owner};
use timecoin::types::genesis::Genesis;

/// A directory of its own for one test, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("commands-{name}-{}", std::process::id()));
        // Left behind by a process of the same number that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn timed(before: &[&str], dir: &Path, after: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    command
        .stdin(Stdio::null())
        .args(before)
        .arg(dir)
        .args(after);
    command.output().expect("timed starts")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("a pipe gets JSON")
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn testnet(dir: &Path) -> Output {
    timed(
        &["testnet", "--nodes", "3", "--base-port", "31000", "--out"],
        dir,
        &[],
    )
}

/// Files and directories below `dir`.
fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_network_is_private_complete_and_configured() {
    let dir = Directory::new("testnet");
    let made = testnet(&dir.0);
    assert_eq!(code(&made), Some(0), "{}", error(&made));
    for path in everything(&dir.0) {
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode()
            & 0o777;
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{} is for its owner only", path.display());
    }
    let text = std::fs::read_to_string(dir.0.join("genesis.toml")).expect("a genesis");
    let genesis = Genesis::from_toml(&text).expect("it loads");
    assert_eq!(genesis.masternodes.len(), 3);
    for i in 0..3 {
        let node = dir.0.join(format!("node{i}"));
        let checked = timed(&["--config"], &node.join("timed.toml"), &["--check-config"]);
        assert_eq!(code(&checked), Some(0), "node {i}: {}", error(&checked));
        let own = std::fs::read_to_string(node.join("genesis.toml")).expect("a genesis");
        assert_eq!(own, text, "all nodes start from one genesis");
    }
    let again = testnet(&dir.0);
    assert_eq!(code(&again), Some(64), "a network is never overwritten");
}

#[test]
fn init_makes_keys_and_a_configuration_once() {
    for network in ["main", "dev"] {
        let dir = Directory::new(&format!("init-{network}"));
        let init = || timed(&["--network", network, "--datadir"], &dir.0, &["init"]);
        let made = init();
        assert_eq!(code(&made), Some(0), "{}", error(&made));
        let config = dir.0.join("timed.toml");
        let checked = timed(&["--config"], &config, &["--check-config"]);
        assert_eq!(code(&checked), Some(0), "{}", error(&checked));
        let key = dir.0.join("keys/operator.key");
        let first = std::fs::read(&key).expect("an operator key");
        let has_genesis = dir.0.join("genesis.toml").exists();
        assert_eq!(
            has_genesis,
            network == "dev",
            "only a network of one's own has a genesis"
        );
        let status = timed(
            &["--datadir"],
            &dir.0,
            &["--network", network, "signer", "status"],
        );
        assert_eq!(
            code(&status),
            Some(0),
            "B7 step 0: a key is made with its store"
        );
        assert_eq!(code(&init()), Some(1), "nothing is overwritten");
        assert_eq!(std::fs::read(&key).expect("still there"), first);
        std::fs::remove_file(&config).expect("removed");
        assert_eq!(code(&init()), Some(0));
        assert_eq!(
            std::fs::read(&key).expect("still there"),
            first,
            "keys are kept"
        );
    }
}

#[test]
fn a_signer_store_is_replaced_only_when_it_is_lost_and_someone_answers_for_it() {
    let dir = Directory::new("signer");
    assert_eq!(code(&testnet(&dir.0)), Some(0));
    let node = dir.0.join("node0");
    let config = node.join("timed.toml");
    let signer = |arguments: &[&str]| timed(&["--config"], &config, arguments);
    let init = ["signer", "init", "--above", "7", "--i-know"];
    assert_eq!(code(&signer(&["signer", "status"])), Some(0));
    let refused = signer(&init);
    assert_eq!(
        code(&refused),
        Some(1),
        "a store in order is never replaced"
    );
    assert!(error(&refused).contains("in order"), "{}", error(&refused));

    std::fs::remove_dir_all(node.join("signer")).expect("lost");
    let status = signer(&["signer", "status"]);
    assert_eq!(code(&status), Some(1), "without its store a key abstains");
    assert_eq!(json(&status)["may_sign"], false);
    let unsaid = signer(&init[..4]);
    assert_eq!(code(&unsaid), Some(64));
    assert!(error(&unsaid).contains("--i-know"), "{}", error(&unsaid));
    let made = signer(&init);
    assert_eq!(code(&made), Some(0), "{}", error(&made));
    let status = signer(&["signer", "status"]);
    assert_eq!(
        (code(&status), &json(&status)["records"]),
        (Some(0), &Value::from(1))
    );
}

#[test]
fn a_new_signer_store_still_knows_of_forks() {
    let dir = Directory::new("signer-forks");
    assert_eq!(code(&testnet(&dir.0)), Some(0));
    let node = dir.0.join("node0");
    let stored = node.join("signer");
    std::fs::remove_dir_all(&stored).expect("lost");
    // A store that another key left behind, with a fork, a halt, its own word about the fork, and a vote.
    let put = |key: &[u8]| (key.to_vec(), Some(vec![7]));
    let (store, _) = KvStore::open(&stored, Owner::default()).expect("made");
    store
        .write(&[put(b"f1"), put(b"d"), put(b"s1"), put(b"m1")])
        .expect("written");
    drop(store);
    let config = node.join("timed.toml");
    let init = ["signer", "init", "--above", "7", "--i-know"];
    let made = timed(&["--config"], &config, &init);
    assert_eq!(code(&made), Some(0), "{}", error(&made));
    let (store, _) = KvStore::open(&stored, Owner::default()).expect("opened");
    let kept = store.load().expect("read").into_iter();
    let kept: Vec<Vec<u8>> = kept.map(|(key, _)| key).collect();
    assert_eq!(
        kept,
        [&b"d"[..], b"f1", b"w"],
        "B6: the halts of a node outlive its store; votes and words of another key do not"
    );
}

#[test]
fn topology_without_a_node_shows_the_configuration_and_every_queue() {
    let dir = Directory::new("topology");
    let shown = timed(&["--network", "dev", "--datadir"], &dir.0, &["topology"]);
    assert_eq!(code(&shown), Some(0), "{}", error(&shown));
    let shown = json(&shown);
    assert_eq!(shown["pid"], Value::Null, "no node runs here");
    let queues = shown["queues"].as_array().expect("a list");
    assert!(
        queues
            .iter()
            .all(|queue| queue["capacity"].as_u64() > Some(0)),
        "every queue is bounded"
    );
    assert!(!queues.is_empty());
}

#[test]
fn there_is_no_ledger_to_verify_before_a_node_has_run() {
    let dir = Directory::new("verify");
    assert_eq!(code(&testnet(&dir.0)), Some(0));
    let verified = timed(
        &["--config"],
        &dir.0.join("node0/timed.toml"),
        &["db", "verify"],
    );
    assert_eq!(code(&verified), Some(78), "{}", error(&verified));
    let made = dir.0.join("node0/lmdb").exists();
    assert!(!made, "looking at a ledger makes none");
}
