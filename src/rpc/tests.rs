//! The service as a client sees it, over a fake node with a real ledger: wire rules, access, limits, waits. The methods
//! themselves are in `method_tests`.

use crate::net::{HttpResponse, Method, RequestParts};
use crate::rpc::auth::{Credential, Users, password_hash};
use crate::rpc::fake::FakeNode;
use crate::rpc::metrics::Metrics;
use crate::rpc::node::{Phase, Track};
use crate::rpc::registry;
use crate::rpc::service::{Service, ServiceConfig, WRONG_PASSWORD_DELAY_MS};
use crate::types::ids::Txid;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// `__cookie__:00ff`.
const COOKIE: &str = "Basic X19jb29raWVfXzowMGZm";
/// `alice:secret`.
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
/// `alice:guess`.
const WRONG: &str = "Basic YWxpY2U6Z3Vlc3M=";
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(rate_anonymous: u64, rate_user: u64) -> ServiceConfig {
    let alice = Credential {
        name: "alice".into(),
        salt: "5a17".into(),
        hash: password_hash("5a17", "secret"),
        methods: Some(BTreeSet::from(["uptime".to_string()])),
    };
    ServiceConfig {
        users: Users::new(Some("00ff".into()), vec![alice]),
        rate_anonymous,
        rate_user,
        max_batch: 5,
    }
}

pub fn service(node: &Arc<FakeNode>) -> Service<u64> {
    Service::new(node.clone(), Arc::new(Metrics::new()), config(0, 0))
}

pub fn request(
    method: Method,
    path: &str,
    authorization: Option<&str>,
    body: &str,
) -> RequestParts {
    RequestParts {
        method,
        path: path.into(),
        query: None,
        authorization: authorization.map(str::to_owned),
        content_type: None,
        host: None,
        origin: None,
        body: body.as_bytes().to_vec(),
        keep_alive: true,
    }
}

pub fn post(service: &Service<u64>, ticket: u64, body: &str) -> Option<HttpResponse> {
    service.handle(
        ticket,
        CLIENT,
        &request(Method::Post, "/", Some(COOKIE), body),
    )
}

fn text(response: &HttpResponse) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

pub fn body(response: &HttpResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("{e}: {}", text(response)))
}

#[test]
fn wire_rules_as_clients_of_bitcoin_core_expect_them() {
    let node = FakeNode::new();
    let service = service(&node);
    let cases: &[(&str, u16, &str)] = &[
        (
            r#"{"id":"a","method":"uptime"}"#,
            200,
            r#"{"result":42,"error":null,"id":"a"}"#,
        ),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"uptime","params":[]}"#,
            200,
            r#"{"result":42,"error":null,"id":1}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"uptime","params":{}}"#,
            200,
            r#"{"jsonrpc":"2.0","result":42,"id":1}"#,
        ),
        (r#"{"jsonrpc":"2.0","method":"uptime"}"#, 204, ""),
        (r#"{"jsonrpc":"2.0","method":"nope"}"#, 204, ""),
        ("[]", 200, "[]"),
        (
            r#"[{"jsonrpc":"2.0","method":"uptime"},{"jsonrpc":"2.0","method":"uptime"}]"#,
            204,
            "",
        ),
        (
            r#"[{"id":1,"method":"uptime"},{"jsonrpc":"2.0","method":"uptime"},{"jsonrpc":"2.0","id":2,"method":"uptime"}]"#,
            200,
            r#"[{"result":42,"error":null,"id":1},{"jsonrpc":"2.0","result":42,"id":2}]"#,
        ),
    ];
    for (sent, status, answer) in cases {
        let response = post(&service, 1, sent).unwrap();
        assert_eq!(response.status, *status, "{sent}");
        assert_eq!(text(&response).trim_end(), *answer, "{sent}");
        if *status == 200 {
            assert_eq!(response.content_type, "application/json", "exactly this");
        }
    }
}

#[test]
fn errors_have_the_status_and_code_that_legacy_clients_look_at() {
    let node = FakeNode::new();
    let service = service(&node);
    let cases: &[(&str, u16, i64)] = &[
        (r#"{"id":1,"method":"nope"}"#, 404, -32601),
        (r#"{"id":1,"method":7}"#, 400, -32600),
        (r#"{"id":1,"method":"uptime","params":3}"#, 400, -32600),
        ("{", 500, -32700),
        (r#"{"id":1,"method":"getblock","params":[7]}"#, 500, -3),
        (r#"{"id":1,"method":"getblock","params":["zz"]}"#, 500, -8),
        (r#"{"id":1,"method":"getblock","params":[]}"#, 500, -1),
        (r#"{"id":1,"method":"getblockhash","params":[99]}"#, 500, -8),
        (
            r#"{"id":1,"method":"sendrawtransaction","params":["00"]}"#,
            500,
            -22,
        ),
        (r#"{"id":1,"method":"getbalance"}"#, 500, -18),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nope"}"#, 200, -32601),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"getblock","params":{"x":1}}"#,
            200,
            -8,
        ),
    ];
    for (sent, status, code) in cases {
        let response = post(&service, 1, sent).unwrap();
        assert_eq!(response.status, *status, "{sent}");
        let answer = body(&response);
        assert_eq!(answer["error"]["code"], json!(code), "{sent}");
        let is_two = sent.contains("2.0");
        assert_eq!(
            answer.get("result").is_none(),
            is_two,
            "2.0 has only one of the two"
        );
    }
    let six = format!("[{}]", [r#"{"method":"uptime"}"#; 6].join(","));
    assert_eq!(
        post(&service, 1, &six).unwrap().status,
        400,
        "batches are bounded"
    );
}

#[test]
fn without_credentials_nothing_is_told() {
    let node = FakeNode::new();
    let service = service(&node);
    let call = r#"{"id":1,"method":"uptime"}"#;
    let ask = |authorization| {
        let parts = request(Method::Post, "/", authorization, call);
        service.handle(1, CLIENT, &parts)
    };
    for missing in [None, Some("Bearer x"), Some("Basic !!!")] {
        let response = ask(missing).unwrap();
        assert_eq!(response.status, 401);
        assert!(
            response
                .headers
                .iter()
                .any(|(name, _)| *name == "WWW-Authenticate")
        );
        assert!(!text(&response).contains("42"));
    }
    assert_eq!(ask(Some(COOKIE)).unwrap().status, 200);
    assert_eq!(ask(Some(ALICE)).unwrap().status, 200);
    let stop = request(
        Method::Post,
        "/",
        Some(ALICE),
        r#"{"id":1,"method":"stop"}"#,
    );
    assert_eq!(service.handle(1, CLIENT, &stop).unwrap().status, 403);
    let batch = request(
        Method::Post,
        "/",
        Some(ALICE),
        r#"[{"id":1,"method":"uptime"},{"id":2,"method":"stop"}]"#,
    );
    assert_eq!(service.handle(1, CLIENT, &batch).unwrap().status, 403);
    assert!(!node.stopped.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_wrong_password_is_answered_late_and_holds_no_thread() {
    let node = FakeNode::new();
    let service = service(&node);
    let wrong = request(Method::Post, "/", Some(WRONG), r#"{"method":"uptime"}"#);
    assert!(service.handle(7, CLIENT, &wrong).is_none(), "put aside");
    assert!(
        post(&service, 8, r#"{"method":"uptime"}"#).is_some(),
        "others go on"
    );
    assert!(service.on_time().is_empty(), "not yet");
    node.pass_ms(WRONG_PASSWORD_DELAY_MS);
    let late = service.on_time();
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].0, late[0].1.status), (7, 401));
    assert_eq!(service.waiting(), 0);
}

#[test]
fn limits_by_address_and_by_user() {
    let node = FakeNode::new();
    let service: Service<u64> = Service::new(node.clone(), Arc::default(), config(2, 4));
    let get = |client| {
        let parts = request(Method::Get, "/livez", None, "");
        service.handle(1, client, &parts).unwrap().status
    };
    assert_eq!([get(CLIENT), get(CLIENT), get(CLIENT)], [200, 200, 429]);
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(get(other), 200, "another address has its own");
    let batch =
        r#"[{"id":1,"method":"uptime"},{"id":2,"method":"uptime"},{"id":3,"method":"uptime"}]"#;
    assert_eq!(post(&service, 1, batch).unwrap().status, 200);
    let response = post(&service, 1, batch).unwrap();
    assert_eq!(response.status, 429, "a batch counts its calls");
    assert!(
        response
            .headers
            .iter()
            .any(|(name, _)| *name == "Retry-After")
    );
    node.pass_ms(1_000);
    assert_eq!(post(&service, 1, batch).unwrap().status, 200);
}

#[test]
fn a_wait_for_finality_is_answered_by_the_decision() {
    let node = FakeNode::new();
    let service = service(&node);
    let tx = node.payment(0, 1);
    node.set(|k| {
        k.tracks.insert(tx.txid, Track::Pending);
    });
    let call =
        json!({"id": 5, "method": "waittransactionfinality", "params": [tx.txid.to_string(), 10]});
    assert!(post(&service, 1, &call.to_string()).is_none());
    assert_eq!(
        service.on_decided(&[Txid::default()], &[]).len(),
        0,
        "somebody else's"
    );
    let block = node.decide(vec![tx.clone()]);
    let late = service.on_decided(&[tx.txid], &[]);
    assert_eq!(late.len(), 1);
    let answer = body(&late[0].1);
    assert_eq!(answer["id"], json!(5));
    assert_eq!(answer["result"]["final"], json!(true));
    assert_eq!(answer["result"]["height"], json!(1));
    assert_eq!(answer["result"]["blockhash"], json!(block.id.to_string()));
    let again = post(&service, 2, &call.to_string()).expect("final already: at once");
    assert_eq!(again.status, 200);
}

#[test]
fn a_wait_ends_with_the_time_with_a_conflict_or_with_the_node() {
    let node = FakeNode::new();
    let service = service(&node);
    let txid = Txid::default();
    let call =
        json!({"id": 1, "method": "waittransactionfinality", "params": [txid.to_string(), 0.5]});
    assert!(post(&service, 1, &call.to_string()).is_none());
    let deadline = service.next_deadline().unwrap();
    node.pass_ms(500);
    assert_eq!(node.knobs.lock().now.mono, deadline);
    let late = service.on_time();
    let answer = body(&late[0].1);
    assert_eq!(
        (late[0].1.status, &answer["error"]["code"]),
        (500, &json!(-1))
    );
    assert_eq!(answer["error"]["data"]["reason"], json!("timeout"));

    assert!(post(&service, 2, &call.to_string()).is_none());
    node.set(|k| {
        let by = Txid(crate::crypto::hash::Hash([9; 32]));
        k.tracks.insert(txid, Track::Conflicted { by });
    });
    let late = service.on_decided(&[], &[txid]);
    assert_eq!(
        body(&late[0].1)["error"]["data"]["reason"],
        json!("conflicted")
    );

    node.set(|k| k.tracks.clear());
    assert!(post(&service, 3, &call.to_string()).is_none());
    node.set(|k| k.phase = Phase::Stopping);
    let late = service.on_stop();
    assert_eq!(
        body(&late[0].1)["error"]["data"]["reason"],
        json!("stopping")
    );
    assert!(
        post(&service, 4, &call.to_string()).is_some(),
        "no new waits while stopping"
    );
}

#[test]
fn a_batch_with_a_wait_in_its_middle_goes_on_after_it() {
    let node = FakeNode::new();
    let service = service(&node);
    let calls = json!([
        {"id": 1, "method": "getblockcount"},
        {"id": 2, "method": "waitforblockheight", "params": [1, 5000]},
        {"id": 3, "method": "waitforblockheight", "params": [2, 5000]},
        {"id": 4, "method": "getblockcount"},
    ]);
    assert!(post(&service, 1, &calls.to_string()).is_none());
    node.decide(vec![node.payment(0, 1)]);
    assert!(service.on_decided(&[], &[]).is_empty(), "it waits again");
    node.decide(vec![node.payment(1, 2)]);
    let late = service.on_decided(&[], &[]);
    let answer = body(&late[0].1);
    let results: Vec<&Value> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["result"])
        .collect();
    assert_eq!(results[0], &json!(0));
    assert_eq!(results[1]["height"], json!(1));
    assert_eq!(results[2]["height"], json!(2));
    assert_eq!(
        results[3],
        &json!(2),
        "calls after a wait see the chain after it"
    );
}

#[test]
fn a_client_that_went_away_is_forgotten() {
    let node = FakeNode::new();
    let service = service(&node);
    let call = r#"{"id":1,"method":"waitfornewblock","params":[0]}"#;
    assert!(post(&service, 1, call).is_none());
    service.on_gone(1);
    assert_eq!(service.waiting(), 0);
    assert!(post(&service, 1, call).is_none());
    node.decide(vec![node.payment(0, 1)]);
    assert_eq!(service.on_decided(&[], &[]).len(), 1);
}

#[test]
fn a_starting_node_answers_minus_28_where_the_ledger_is_needed() {
    let node = FakeNode::new();
    let service = service(&node);
    node.set(|k| k.phase = Phase::WarmingUp("recovering the ledger".into()));
    let answer = body(&post(&service, 1, r#"{"id":1,"method":"getblockcount"}"#).unwrap());
    assert_eq!(answer["error"]["code"], json!(-28));
    let answer = body(&post(&service, 1, r#"{"id":1,"method":"uptime"}"#).unwrap());
    assert_eq!(answer["result"], json!(42));
}

#[test]
fn paths_and_methods_that_are_not_served() {
    let node = FakeNode::new();
    let service = service(&node);
    let ask = |method, path: &str| {
        let parts = request(method, path, Some(COOKIE), "");
        service.handle(1, CLIENT, &parts).unwrap()
    };
    assert_eq!(ask(Method::Get, "/nothing").status, 404);
    assert_eq!(ask(Method::Post, "/metrics").status, 404);
    let index = ask(Method::Get, "/");
    assert!(index.status == 200 && text(&index).contains("/health"));
    let metrics = ask(Method::Get, "/metrics");
    let page = text(&metrics);
    assert!(
        page.contains("timecoin_chain_height 0") && page.ends_with("# EOF\n"),
        "{page}"
    );
    assert!(!page.contains("127.0.0.1"), "no addresses in metrics");
}

#[test]
fn every_method_answers_whatever_it_is_given() {
    let node = FakeNode::new();
    node.decide(vec![node.payment(0, 1)]);
    let service = service(&node);
    let odd = [
        json!(null),
        json!([]),
        json!({}),
        json!([1]),
        json!(["x"]),
        json!([["x"], {"x": 1}]),
        json!([-1, -1]),
        json!(["00".repeat(32), 1e300]),
        json!({"args": [1, 2, 3, 4, 5, 6, 7, 8, 9]}),
    ];
    for spec in registry::methods() {
        for params in &odd {
            let call = json!({"id": 1, "method": spec.name, "params": params});
            if let Some(response) = post(&service, 1, &call.to_string()) {
                let answer = body(&response);
                assert_ne!(
                    answer["error"]["code"],
                    json!(-32603),
                    "{}: a caller's mistake is not ours",
                    spec.name
                );
                assert_ne!(
                    answer["error"]["code"],
                    json!(-32601),
                    "{} dispatches",
                    spec.name
                );
            }
            service.on_gone(1);
        }
        let help = json!({"id": 1, "method": "help", "params": [spec.name]});
        let answer = body(&post(&service, 1, &help.to_string()).unwrap());
        assert!(answer["result"].as_str().unwrap().starts_with(spec.name));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "[0-9a-f]{0,70}".prop_map(|t| json!(t)),
        "\\PC{0,20}".prop_map(|t| json!(t)),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map("[a-z]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_arguments_get_an_answer(params in any_json(), pick in 0usize..1_000) {
        let node = FakeNode::new();
        let service = service(&node);
        let spec = &registry::methods()[pick % registry::methods().len()];
        let call = json!({"id": 1, "method": spec.name, "params": params});
        if let Some(response) = post(&service, 1, &call.to_string()) {
            prop_assert!(serde_json::from_slice::<Value>(&response.body).is_ok());
        }
    }

    #[test]
    fn any_body_gets_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let node = FakeNode::new();
        let service = service(&node);
        let mut parts = request(Method::Post, "/", Some(COOKIE), "");
        parts.body = bytes;
        prop_assert!(service.handle(1, CLIENT, &parts).is_some());
    }
}
