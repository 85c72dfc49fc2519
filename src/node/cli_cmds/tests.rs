//! `time-cli` as a whole, against a node made of a few answers.

mod fake;
mod masternode;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::super::config::RpcUser;
use super::super::testing::TempDir;
use super::*;
use crate::base::bounded::BoundedVec;
use crate::base::hex;
use crate::base::limits::TX_BYTES_MAX;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::crypto::merkle::TX_TREE;
use crate::rpc::proof::{Proof, genesis_set};
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Certificate, Commit, HEADER_VERSION, Header, tx_leaf, tx_root};
use crate::types::codec;
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::ids::*;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::{Endpoint, Transaction, Tx, TxOutput};
use crate::types::vote::{VoteBody, VoteStep};
use fake::{FakeNode, refuse};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs a command line as on a terminal or in a pipe: exit code and output.
fn run_line(line: &str, terminal: bool) -> (Exit, String) {
    let mut out = Vec::new();
    let exit = run(&words(line), &mut out, terminal);
    (exit, String::from_utf8(out).unwrap())
}

/// The call that a command line makes.
fn call_of(line: &str) -> Result<(String, Value), String> {
    match parse(&words(line))? {
        Parsed::Method(given, method, list) => {
            let params = params(&given, &method, &list).map_err(|e| e.to_string())?;
            Ok((method, params))
        }
        _ => Err("no method".to_owned()),
    }
}

#[test]
fn words_become_the_parameters_that_bitcoin_cli_would_send() {
    let txid = "00".repeat(32);
    for (line, wanted) in [
        ("getblockcount".to_owned(), json!([])),
        ("getblockhash 5".to_owned(), json!([5])),
        ("getblockhash -1".to_owned(), json!([-1])),
        (format!("getblock {txid} 2"), json!([txid, 2])),
        (format!("getblock {txid} true"), json!([txid, true])),
        (format!("getblock {txid} 2 --json"), json!([txid, 2])),
        (
            format!("-datadir=/x -rpcwait getblock {txid}"),
            json!([txid]),
        ),
        (
            format!("-named getblock blockhash={txid} verbosity=1"),
            json!({"blockhash": txid, "verbosity": 1}),
        ),
        (
            format!("-named getblock {txid} verbosity=1"),
            json!({"verbosity": 1, "args": [txid]}),
        ),
        (
            "sendtoaddress dtime1x 0.10000000".to_owned(),
            serde_json::from_str("[\"dtime1x\",0.10000000]").unwrap(),
        ),
        ("getnewaddress 5".to_owned(), json!(["5"])),
        ("getnewaddress -- --json".to_owned(), json!(["--json"])),
        (
            format!("createrawtransaction [{{\"txid\":\"{txid}\",\"vout\":0}}] {{}}"),
            json!([[{"txid": txid, "vout": 0}], {}]),
        ),
        (
            "protx list valid true".to_owned(),
            json!(["list", "valid", true]),
        ),
        (
            "-named protx list type=valid".to_owned(),
            json!({"type": "valid", "command": "list"}),
        ),
        ("protx odd 1".to_owned(), json!(["odd", 1])),
        ("nosuchmethod a 1 {}".to_owned(), json!(["a", 1, {}])),
    ] {
        let (_, params) = call_of(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(params.to_string(), wanted.to_string(), "{line}");
    }
    for line in [
        "getblockhash x",
        "getblockhash 1 2",
        "-named getblock nosuch=1",
        "--rpc-url",
        "--nosuch getblockcount",
        "",
    ] {
        assert!(call_of(line).is_err(), "{line}");
    }
}

#[test]
fn options_stand_before_or_behind_and_commands_are_told_from_methods() {
    let given = |line: &str| match parse(&words(line)).unwrap() {
        Parsed::Method(given, ..) | Parsed::Command(given, _) | Parsed::Info(given) => given,
        Parsed::Text(text) => panic!("{text}"),
    };
    for line in [
        "--datadir=/d --json status",
        "status --datadir /d --json",
        "-datadir=/d -json uptime",
        "uptime --datadir /d --json",
        "-getinfo -datadir=/d --json",
    ] {
        let given = given(line);
        assert_eq!(
            (given.datadir.as_deref(), given.json),
            (Some("/d"), true),
            "{line}"
        );
    }
    assert!(matches!(
        parse(&words("status")).unwrap(),
        Parsed::Command(..)
    ));
    assert!(matches!(
        parse(&words("help status")).unwrap(),
        Parsed::Method(..)
    ));
    assert!(matches!(parse(&words("--help")).unwrap(), Parsed::Text(_)));
    assert!(matches!(
        parse(&words("bench --help")).unwrap(),
        Parsed::Text(_)
    ));
    assert!(parse(&words("-getinfo status")).is_err());
    assert_eq!(
        run_line("--version", false),
        (
            Exit::Success,
            format!("time-cli {}\n", env!("CARGO_PKG_VERSION"))
        )
    );
    assert_eq!(run_line("", false).0, Exit::Usage);
    let names: Vec<String> = commands().into_iter().map(|row| row.name).collect();
    for name in names.iter().filter(|name| !name.contains(' ')) {
        assert!(registry::find(name).is_none(), "{name} would hide a method");
        for method in registry::commands_of(name) {
            let command = format!("{name} {method}");
            assert!(names.contains(&command), "{name} would hide {command}");
        }
    }
}

#[test]
fn results_print_as_bitcoin_cli_prints_them() {
    let node = FakeNode::start(|method, params| match method {
        "getbestblockhash" => Ok(json!("00ff")),
        "stop" => Ok(Value::Null),
        "getbalance" => Ok(serde_json::from_str("1.50000000").unwrap()),
        "getblock" => Ok(json!({"params": params})),
        "waittransactionfinality" => {
            Err(json!({"code": -1, "message": "timed out", "data": {"reason": "timeout"}}))
        }
        "uptime" => Err(json!({"code": -28, "message": "starting"})),
        _ => Err(refuse(-32601, "no such method")),
    });
    let at = |line: &str| run_line(&format!("--rpc-url {} {line}", node.url()), false);
    assert_eq!(at("getbestblockhash"), (Exit::Success, "00ff\n".to_owned()));
    assert_eq!(
        at("--json getbestblockhash"),
        (Exit::Success, "\"00ff\"\n".to_owned())
    );
    assert_eq!(at("stop"), (Exit::Success, String::new()));
    assert_eq!(
        at("getbalance"),
        (Exit::Success, "1.50000000\n".to_owned()),
        "amounts stay exact"
    );
    assert!(at("getblock 00").1.contains("\"params\""));
    assert_eq!(at("nosuchmethod").0, Exit::Failure);
    assert_eq!(at("uptime").0, Exit::NotReady);
    assert_eq!(at("wait 00 --timeout 1").0, Exit::TimedOut);
    assert_eq!(
        at("-rpcwait -rpcwaittimeout=0 getbalance").0,
        Exit::NotReady
    );
    assert_eq!(
        run_line("--rpc-url http://127.0.0.1:1/ uptime", false).0,
        Exit::Unavailable
    );
    assert_eq!(
        run_line("--rpc-url https://a:1/ uptime", false).0,
        Exit::Usage
    );
}

#[test]
fn status_says_what_the_network_waits_for_and_fails_when_unhealthy() {
    let node = FakeNode::start(|method, _| match method {
        "getblockchaininfo" => Ok(
            json!({"chain": "regtest", "blocks": 12, "bestblockhash": "ab", "time": 1_000, "contested_from": 9}),
        ),
        "getconsensusinfo" => Ok(json!({
            "height": 13, "round": 4, "step": "propose", "quorum_power": 3_000, "total_power": 4_000, "connected_power": 2_000,
            "waiting_for": "a quorum: 2 of 4 are connected",
            "masternode": {"state": "ENABLED", "status": "able to sign"},
        })),
        "getnetworkinfo" => Ok(json!({"connections": 1, "subversion": "/TimeCoin:0.1.0/"})),
        "getmempoolinfo" => Ok(json!({"size": 1, "bytes": 238})),
        "/health" => Ok(json!({"status": "unhealthy", "reasons": ["quorum: none for 12 s"]})),
        "getpeerinfo" => Ok(
            json!([{"id": 3, "addr": "127.0.0.1:24310", "inbound": true, "pingtime": 0.0005, "synced_blocks": 12}]),
        ),
        "listbanned" => Ok(
            json!([{"address": "203.0.113.7/32", "time_remaining": 90, "reason": "wrong blocks"}]),
        ),
        _ => Err(refuse(-32601, "no such method")),
    });
    let line = |what: &str| format!("--rpc-url {} {what}", node.url());
    let (exit, text) = run_line(&line("status"), true);
    assert_eq!(exit, Exit::Failure, "an unhealthy node");
    for part in [
        "waiting for a quorum: 2 of 4",
        "height 12",
        "2000 of 4000",
        "quorum: none for 12 s",
        "able to sign",
        "CONTESTED from height 9 on",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (_, json) = run_line(&line("status"), false);
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap()["consensus"]["round"],
        4
    );
    let (exit, text) = run_line(&line("peers"), true);
    assert!(
        exit == Exit::Success && text.contains("127.0.0.1:24310") && text.contains("0.5 ms"),
        "{text}"
    );
    assert!(
        text.contains("203.0.113.7/32") && text.contains("wrong blocks"),
        "P3: listed: {text}"
    );
    let (exit, text) = run_line(&line("-getinfo"), true);
    assert!(exit == Exit::Success && text.contains("regtest"), "{text}");
}

#[test]
fn rpcauth_prints_a_line_that_the_configuration_takes() {
    let (exit, text) = run_line("rpcauth alice", false);
    let made: Value = serde_json::from_str(&text).unwrap();
    let user = RpcUser::parse(made["user"].as_str().unwrap()).unwrap();
    let password = made["password"].as_str().unwrap();
    assert_eq!((exit, user.name.as_str()), (Exit::Success, "alice"));
    assert_eq!(
        user.hash,
        crate::rpc::auth::password_hash(&user.salt, password)
    );
    assert_ne!(
        run_line("rpcauth alice", false).1,
        text,
        "never the same password"
    );
    assert_eq!(run_line("rpcauth a:b", false).0, Exit::Usage);
}

/// A ledger in memory that takes what is valid and decides at once.
#[derive(Default)]
struct Ledger {
    coins: BTreeMap<OutPoint, TxOutput>,
    transactions: BTreeMap<String, String>,
    taken: usize,
}

impl Ledger {
    fn credit(&mut self, program: Program, value: u64) -> String {
        let input = OutPoint {
            txid: Txid(Hash([9; 32])),
            vout: self.taken as u32,
        };
        let body = crate::types::transaction::TxBody {
            version: 1,
            kind: crate::types::transaction::TxKind::Transfer,
            inputs: BoundedVec::take_from([input]),
            outputs: BoundedVec::take_from([TxOutput {
                value: Amount(value),
                program,
            }]),
            payload: Default::default(),
        };
        self.insert(Tx::new(crate::wallet::sign::unsigned(body)))
    }
    fn insert(&mut self, tx: Tx) -> String {
        for (vout, output) in (0..).zip(tx.body().outputs.iter()) {
            self.coins.insert(tx.outpoint(vout), *output);
        }
        let bytes = hex::encode(&codec::encode(&tx));
        self.transactions.insert(tx.txid.to_string(), bytes);
        self.taken += 1;
        tx.txid.to_string()
    }
    /// Takes a transaction if it spends what is there, signed, with enough fee.
    fn take(&mut self, text: &str) -> Result<String, String> {
        let bytes = hex::decode(text).map_err(|e| e.to_string())?;
        let tx: Transaction = codec::decode(&bytes, TX_BYTES_MAX).map_err(|e| e.to_string())?;
        let tx = Tx::new(tx);
        let spent: Option<Vec<TxOutput>> = tx
            .body()
            .inputs
            .iter()
            .map(|i| self.coins.remove(i))
            .collect();
        let spent = spent.ok_or("missing inputs")?;
        let signed = crate::wallet::sign::sign_with(
            &tx.transaction,
            &spent,
            &[],
            &|_| None,
            chain_id(),
            Branch(0),
        );
        if !signed.map_err(|e| e.to_string())?.is_complete() {
            return Err("bad signature".to_owned());
        }
        let sum = |outputs: &[TxOutput]| outputs.iter().map(|o| o.value.0).sum::<u64>();
        let fee = sum(&spent)
            .checked_sub(sum(&tx.body().outputs))
            .ok_or("no money")?;
        if fee != tx.size as u64 {
            return Err(format!("fee {fee} for {} bytes", tx.size));
        }
        Ok(self.insert(tx))
    }
}

fn chain_id() -> ChainId {
    ChainId(Hash([3; 32]))
}

fn bench_node() -> FakeNode {
    let ledger = std::sync::Mutex::new(Ledger::default());
    FakeNode::start(move |method, params| {
        let mut ledger = ledger.lock().unwrap();
        let text = |i: usize| params[i].as_str().unwrap_or_default().to_owned();
        match method {
            "getblockchaininfo" => Ok(json!({"chain": "regtest", "branch": 0})),
            "getblockhash" => Ok(json!(chain_id().to_string())),
            "getnetworkinfo" => Ok(serde_json::from_str("{\"relayfee\":0.00001000}").unwrap()),
            "sendtoaddress" => {
                let program = Program::from_address(&text(0), Network::Dev).unwrap();
                let amount: Amount = text(1).parse().unwrap();
                Ok(json!(ledger.credit(program, amount.0)))
            }
            "getnewaddress" => Ok(json!(Program::Policy(Hash([1; 32])).address(Network::Dev))),
            "getrawtransaction" => Ok(json!(ledger.transactions[&text(0)])),
            "sendrawtransaction" => ledger
                .take(&text(0))
                .map(Value::from)
                .map_err(|e| refuse(-26, &e)),
            "waittransactionfinality" if ledger.transactions.contains_key(&text(0)) => {
                Ok(json!({"final": true}))
            }
            _ => Err(refuse(-32601, method)),
        }
    })
}

#[test]
fn bench_makes_valid_payments_at_the_rate_and_reports_each() {
    let (first, second) = (bench_node(), bench_node());
    let line = format!(
        "--rpc-url {} bench --rate 400 --duration 3 --outputs 3 --connections 2",
        first.url()
    );
    let (exit, text) = run_line(&line, false);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        report["failures"],
        json!({}),
        "every payment is valid and pays the exact fee"
    );
    assert_eq!(
        (exit, &report["final"], &report["mode"]),
        (Exit::Success, &json!(1_200), &json!("load"))
    );
    let elapsed = report["elapsed_ms"].as_u64().unwrap();
    assert!(
        elapsed >= 2_990,
        "an open loop keeps to its times: {elapsed} ms"
    );
    assert!(report["finality_us"]["p50"].as_u64() <= report["finality_us"]["max"].as_u64());
    let line = format!(
        "--rpc-url {} bench --latency 5 --pause 0 --keep",
        second.url()
    );
    let (exit, text) = run_line(&line, true);
    assert!(
        exit == Exit::Success && text.contains("5 final, 0 failed"),
        "{text}"
    );
    assert!(text.contains("p50") && text.contains("fdatasync"), "{text}");
    assert_eq!(run_line("bench --rate 0", false).0, Exit::Usage);
}

#[test]
fn bench_counts_failures_and_says_why() {
    let good = bench_node();
    let bad = FakeNode::start(|method, _| match method {
        "waittransactionfinality" => Ok(json!({"final": true})),
        _ => Err(refuse(-26, "mempool full")),
    });
    let line = format!(
        "--rpc-url {} --rpc-url {} bench --rate 100 --duration 1",
        good.url(),
        bad.url()
    );
    let (exit, text) = run_line(&line, false);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &report["final"], &report["failed"]),
        (Exit::Failure, &json!(50), &json!(50))
    );
    assert_eq!(report["failures"]["mempool full (-26)"], 50);
}

/// A genesis of one masternode, and the proof of a payment in block 1.
fn proved() -> (Genesis, Proof) {
    let key = |i| SecretKey::from_seed(&[i; 32]);
    let output = TxOutput {
        value: Amount::from_time(1_000).unwrap(),
        program: Program::Key(key(1).public()),
    };
    let genesis = Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_000_000),
        params: Params::of(Network::Dev),
        limits: ConsensusLimits::of(Network::Dev),
        balances: vec![output],
        masternodes: vec![GenesisMasternode {
            owner: key(1).public(),
            operator: key(2).public(),
            payout: output.program,
            collateral: output,
            endpoint: Endpoint::try_from(b"127.0.0.1:24300".to_vec()).unwrap(),
        }],
    };
    let chain = genesis.chain_id();
    let set = genesis_set(&genesis);
    let (txid, wtxid) = (Txid(Hash([5; 32])), Wtxid(Hash([6; 32])));
    let header = Header {
        version: HEADER_VERSION,
        branch: Branch(0),
        era: Era(0),
        recovery_hash: Hash::ZERO,
        height: Height(1),
        round: Round(0),
        time: WallMs(1_700_000_001_000),
        parent: genesis.block_id(),
        proposer: genesis.masternodes[0].id(),
        last_commit_hash: Hash::ZERO,
        tx_root: tx_root([(&txid, &wtxid)]),
        slot_root: Hash::ZERO,
        validators_hash: set.hash(),
        next_validators_hash: set.hash(),
        state_root: Hash::ZERO,
        prev_slot_block: genesis.block_id(),
        history_root: Hash::ZERO,
    };
    let body = VoteBody {
        step: VoteStep::Precommit,
        branch: Branch(0),
        era: Era(0),
        height: Height(1),
        round: Round(0),
        valid_round: None,
        block: Some(header.id()),
    };
    let commit = Commit {
        at: EraRound::default(),
        signers: Bitmap::from_ones(1, [0]),
        signatures: BoundedVec::take_from([key(2).sign(&body.signing_hash(chain))]),
    };
    let proof = Proof {
        recoveries: Vec::new(),
        chain,
        start: None,
        txid,
        wtxid,
        merkle: TX_TREE.proof(&[tx_leaf(&txid, &wtxid)], 0).unwrap(),
        certificate: Certificate {
            height: Height(1),
            block: header.id(),
            commit,
        },
        header,
        validators: set,
        steps: Vec::new(),
    };
    (genesis, proof)
}

#[test]
fn a_proof_is_checked_without_any_node() {
    let dir = TempDir::new("proof");
    let (genesis, proof) = proved();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let genesis_file = write("genesis.toml", &genesis.to_toml());
    let text = proof.to_json().to_string();
    let good = write("good.json", &text);
    let verify = |file: &str, terminal| {
        run_line(
            &format!("proof verify {file} --genesis {genesis_file}"),
            terminal,
        )
    };
    let (exit, shown) = verify(&good, true);
    assert_eq!(exit, Exit::Success);
    assert!(
        shown.contains("valid") && shown.contains("power 1000 of 1000"),
        "{shown}"
    );
    let verdict: Value = serde_json::from_str(&verify(&good, false).1).unwrap();
    assert_eq!(
        (&verdict["valid"], &verdict["height"]),
        (&json!(true), &json!(1))
    );
    let trusting = |block: &str| verify(&format!("{good} --trusted {block}"), false);
    let id = proof.header.id();
    let (exit, shown) = trusting(&format!("1:{id}"));
    let verdict: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (exit, &verdict["root"]),
        (Exit::Success, &json!(format!("block 1:{id}"))),
        "S10: the root that was used is named"
    );
    assert_eq!(trusting(&format!("2:{id}")).0, Exit::Failure, "F2");
    assert_eq!(trusting("somewhere").0, Exit::Usage);
    let mut other = proof.clone();
    other.txid = Txid(Hash([7; 32]));
    let bad = write("bad.json", &other.to_json().to_string());
    assert_eq!(
        verify(&bad, false),
        (Exit::Failure, String::new()),
        "S10: not in the block"
    );
    assert_eq!(verify(&write("noise.json", "{}"), false).0, Exit::Data);
    assert_eq!(verify("/nonexistent", false).0, Exit::Io);
    assert!(!Path::new("/nonexistent").exists());
    let node = FakeNode::start(move |_, _| Ok(proof.to_json()));
    let to = dir.path().join("fetched.json").display().to_string();
    let line = format!("--rpc-url {} proof export 05 --out {to}", node.url());
    assert_eq!(run_line(&line, false).0, Exit::Success);
    assert_eq!(verify(&to, false).0, Exit::Success);
}
