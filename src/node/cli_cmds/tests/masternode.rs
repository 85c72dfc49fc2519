//! `time-cli masternode`, with key files and against a node of a few answers.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::fake::{FakeNode, refuse};
use super::{TempDir, run_line};
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::hex;
use crate::crypto::keys::SecretKey;
use crate::node::exit::Exit;
use crate::node::keys::{self, KeyKind};
use crate::rpc::registration::Draft;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::*;

/// A registration whose collateral is of `cold` and whose operator key is `operator`, unsigned.
fn draft(cold: &SecretKey, operator: &SecretKey) -> Draft {
    let coin = TxOutput {
        value: Amount(100_001_000_000),
        program: Program::Key(cold.public()),
    };
    let locked = TxOutput {
        value: Amount(100_000_000_000),
        ..coin
    };
    let payload = Register {
        owner: cold.public(),
        operator: operator.public(),
        payout: coin.program,
        endpoint: Endpoint::try_from(b"127.0.0.1:24990".to_vec()).unwrap(),
    };
    let body = TxBody {
        version: TX_VERSION,
        kind: TxKind::Register,
        inputs: BoundedVec::take_from([OutPoint::default()]),
        outputs: BoundedVec::take_from([locked]),
        payload: BoundedBytes::try_from(codec::encode(&payload)).unwrap(),
    };
    let draft = Draft {
        chain: ChainId::default(),
        branch: Branch(0),
        network: Network::Dev,
        transaction: crate::wallet::sign::unsigned(body),
        spent: vec![coin],
        owner: None,
    };
    draft.check().unwrap()
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn key_of(file: &str, kind: KeyKind) -> SecretKey {
    SecretKey::from_seed(&keys::load(Path::new(file), kind).unwrap())
}

#[test]
fn a_cold_collateral_is_signed_where_no_node_is() {
    let dir = TempDir::new("cold");
    let (cold, operator) = (path(&dir, "cold.key"), path(&dir, "operator.key"));
    let line = format!(
        "--network dev --datadir {} masternode keygen --out {cold}",
        path(&dir, "")
    );
    let (exit, made) = run_line(&line, false);
    assert_eq!(exit, Exit::Success, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(
        run_line(&line, false).0,
        Exit::Failure,
        "a key is never overwritten"
    );
    keys::generate(Path::new(&operator), KeyKind::Operator).unwrap();
    let (cold_key, operator_key) = (
        key_of(&cold, KeyKind::Cold),
        key_of(&operator, KeyKind::Operator),
    );
    let address = Program::Key(cold_key.public()).address(Network::Dev);
    assert_eq!(made["address"], json!(address));
    let prepared = draft(&cold_key, &operator_key).to_json().unwrap();

    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, document) = (asked.clone(), prepared.clone());
    let node = FakeNode::start(move |method, params| {
        seen.lock()
            .unwrap()
            .push((method.to_owned(), params.clone()));
        match method {
            "protx register_prepare" => Ok(document.clone()),
            "protx register_submit" => Ok(json!("ab".repeat(32))),
            _ => Err(refuse(-32601, method)),
        }
    });
    let (first, second) = (path(&dir, "first.json"), path(&dir, "second.json"));
    let txid = "11".repeat(32);
    let line = format!(
        "--rpc-url {} masternode register --collateral {txid}:3 --endpoint 127.0.0.1:24990 --owner {address} \
         --operator-key {operator} --payout {address} prepare --out {first}",
        node.url()
    );
    assert_eq!(run_line(&line, false).0, Exit::Success);
    let public = operator_key.public().to_string();
    let wanted = json!([
        txid,
        3,
        "127.0.0.1:24990",
        address,
        public,
        "",
        0,
        address,
        ""
    ]);
    assert_eq!(asked.lock().unwrap()[0].1, wanted);

    let sign = |key: &str| {
        let line = format!("masternode sign {first} --key {key} --out {second}");
        run_line(&line, false).0
    };
    assert_eq!(
        sign(&operator),
        Exit::Failure,
        "prepare has shown possession of it already"
    );
    assert_eq!(sign(&cold), Exit::Success);
    let text = std::fs::read_to_string(&second).unwrap();
    let signed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(signed["complete"], json!(true), "{signed}");
    assert!(
        !text.contains(&hex::encode(&cold_key.seed())),
        "no secret leaves its file"
    );
    let line = format!(
        "--rpc-url {} masternode register submit {second}",
        node.url()
    );
    let (exit, said) = run_line(&line, true);
    assert!(
        exit == Exit::Success && said.contains(&"ab".repeat(32)),
        "{said}"
    );
    let sent = asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        sent,
        ("protx register_submit".into(), json!([signed["tx"]]))
    );
    let stranger = path(&dir, "stranger.key");
    keys::generate(Path::new(&stranger), KeyKind::Cold).unwrap();
    assert_eq!(
        sign(&stranger),
        Exit::Failure,
        "a key that has nothing to sign"
    );
    std::fs::write(&first, "{}").unwrap();
    assert_eq!(sign(&cold), Exit::Data);
}

#[test]
fn coins_that_another_payment_took_are_chosen_again() {
    let key = SecretKey::from_seed(&[5; 32]);
    let document = draft(&key, &key).to_json().unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, refusals) = (calls.clone(), Mutex::new(Vec::new()));
    let refuse_once = |reason: &str| {
        let mut error = refuse(-26, "a coin is spent");
        error["data"] = json!({"reason": reason});
        error
    };
    let reasons = ["missing-inputs", "txn-mempool-conflict"];
    refusals.lock().unwrap().extend(reasons.map(refuse_once));
    let node = FakeNode::start(move |method, _| {
        seen.lock().unwrap().push(method.to_owned());
        let refused = refusals.lock().unwrap().pop();
        match (method, refused) {
            ("protx register_submit", Some(refused)) => Err(refused),
            ("protx register_submit", None) => Ok(json!("ab".repeat(32))),
            (_, refused) => {
                refusals.lock().unwrap().extend(refused);
                Ok(document.clone())
            }
        }
    });
    let line = format!("--rpc-url {} masternode unregister aa", node.url());
    assert_eq!(run_line(&line, false).0, Exit::Success);
    let round = ["protx revoke", "protx register_submit"];
    assert_eq!(*calls.lock().unwrap(), [round, round, round].concat());

    let never = FakeNode::start(move |method, _| match method {
        "protx register_submit" => Err(refuse_once("missing-inputs")),
        _ => Ok(draft(&key, &key).to_json().unwrap()),
    });
    let line = format!("--rpc-url {} masternode unregister aa", never.url());
    assert_eq!(run_line(&line, false).0, Exit::Failure, "not for ever");
}

#[test]
fn status_says_why_and_ends_for_cron() {
    let answer = |earning: bool| {
        let reasons = match earning {
            true => json!([]),
            false => {
                json!([{"code": "jailed", "text": "jailed since slot index 7, present in 1 of 2"}])
            }
        };
        let id = "ab".repeat(32);
        json!({"proTxHash": id, "earning": earning, "reasons": reasons, "state": "JAILED", "status": "able to sign"})
    };
    let node = move |earning| FakeNode::start(move |_, _| Ok(answer(earning)));
    let status = |node: &FakeNode, terminal| {
        run_line(
            &format!("--rpc-url {} masternode status", node.url()),
            terminal,
        )
    };
    let (good, bad) = (node(true), node(false));
    assert_eq!(status(&good, true).0, Exit::Success);
    let (exit, said) = status(&bad, true);
    assert_eq!(exit, Exit::Failure, "1: it does not earn");
    assert!(said.contains("jailed since slot index 7"), "{said}");
    let (exit, said) = status(&bad, false);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((exit, &said["earning"]), (Exit::Failure, &json!(false)));
    let none = FakeNode::start(|_, _| Err(refuse(-1, "This node is not a masternode")));
    assert_eq!(status(&none, true).0, Exit::Failure);
}

#[test]
fn options_become_the_calls_of_protx() {
    let dir = TempDir::new("mn");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let key = SecretKey::from_seed(&[5; 32]);
    let document = draft(&key, &key).to_json().unwrap();
    let node = FakeNode::start(move |method, params| {
        seen.lock().unwrap().push(format!("{method} {params}"));
        match method {
            "masternode status" => Ok(json!({"proTxHash": "cd".repeat(32)})),
            "protx register_submit" => Ok(json!("ab".repeat(32))),
            "masternodelist" => {
                Ok(json!({"ef": {"status": "JAILED", "reasons": [{"text": "new"}]}}))
            }
            "masternode count" => Ok(json!({"total": 5})),
            _ => Ok(document.clone()),
        }
    });
    let (datadir, cookie) = (path(&dir, "empty"), path(&dir, "cookie"));
    std::fs::write(&cookie, "user:word").unwrap();
    let options = format!(
        "--rpc-url {} --datadir {datadir} --rpc-cookie {cookie}",
        node.url()
    );
    let call = |line: &str| {
        let line = format!("{options} masternode {line}");
        let (exit, said) = run_line(&line, true);
        let calls: Vec<String> = asked.lock().unwrap().drain(..).collect();
        (exit, said, calls)
    };
    let id = "cd".repeat(32);
    let (exit, _, calls) = call("register --endpoint h:1 --amount 2000");
    assert_eq!(exit, Exit::Success);
    assert_eq!(
        calls[0],
        r#"protx register_fund ["","h:1","","","",0,"","",false,"2000"]"#
    );
    let (_, _, calls) = call("update --endpoint h:2");
    let wanted = format!(r#"protx update_service ["{id}","h:2","","","",false]"#);
    assert_eq!(calls[1], wanted, "the masternode run here");
    let (_, _, calls) = call("update aa --payout x");
    assert_eq!(
        calls[0],
        r#"protx update_registrar ["aa","","","x","",false]"#
    );
    let (exit, said, calls) = call("unregister aa --out -");
    assert_eq!((exit, calls.len()), (Exit::Success, 1), "written, not sent");
    assert_eq!(calls[0], r#"protx revoke ["aa","",0,"",false]"#);
    assert!(said.contains("signMessage"), "{said}");
    let (_, said, _) = call("list");
    assert!(
        said.contains("WHY NOT EARNING") && said.contains("new"),
        "{said}"
    );
    assert!(call("count").1.contains("total"));
    for line in [
        "register",
        "register --endpoint h:1 --collateral x",
        "register --endpoint h:1 --collateral x:1 --amount 5",
        "register --endpoint h:1 --out f",
        "update aa",
        "update aa --endpoint h:1 --payout x",
        "register --nosuch",
        "",
    ] {
        assert_eq!(call(line).0, Exit::Usage, "{line}");
    }
    assert_eq!(call("sign /nonexistent").0, Exit::Io);
}
