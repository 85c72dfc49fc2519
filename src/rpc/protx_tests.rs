//! protx and masternode over a real ledger: what they make is valid in a slot block, with keys here and keys elsewhere.

use crate::base::hex;
use crate::crypto::hash::Hash;
use crate::ledger::registry::Entry;
use crate::ledger::testkit::{HOLDER, OPERATOR, key, program};
use crate::replica::liveness::SlotWitness;
use crate::rpc::fake::FakeNode;
use crate::rpc::method_tests::{call, code, ok};
use crate::rpc::node::{OwnMasternode, OwnStanding, RecentBlock};
use crate::rpc::registration::Draft;
use crate::rpc::wallet_tests::Directory;
use crate::types::address::Program;
use crate::types::amount::Amount;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxKind, TxOutput};
use crate::wallet::Wallet;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

const SERVICE: &str = "127.0.0.1:24990";
/// The fake node's operator key.
const OWN: u64 = OPERATOR + 9;

/// A node whose wallet holds 5,000 TIME.
fn rich() -> (Arc<FakeNode>, Arc<Mutex<Wallet>>, Directory) {
    let node = FakeNode::new();
    let dir = Directory::new();
    let wallet = node.add_wallet("default", &dir.0);
    let address = ok(&node, "getnewaddress", json!([]));
    let to = Program::from_address(address.as_str().unwrap(), node.facts.network()).unwrap();
    pay(&node, &wallet, to, 5_000);
    (node, wallet, dir)
}

fn pay(node: &Arc<FakeNode>, wallet: &Mutex<Wallet>, program: Program, time: u64) -> Tx {
    let value = Amount::from_time(time).unwrap();
    let output = TxOutput { value, program };
    let kind = TxKind::Transfer;
    let tx = node.net.lock().spend(kind, HOLDER, output, Vec::new(), &[]);
    observe(wallet, &node.decide(vec![tx.clone()]));
    tx
}

fn observe(wallet: &Mutex<Wallet>, recent: &RecentBlock) {
    let height = recent.block.header.height;
    wallet.lock().observe(&recent.block, height);
}

/// An attested slot block with what was sent last; the testkit signs for what it registers by key `operator`.
fn decide_sent(node: &Arc<FakeNode>, wallet: &Mutex<Wallet>, operator: u64) -> MasternodeId {
    let tx = node.submitted.lock().last().cloned().unwrap();
    let id = MasternodeId(tx.txid.0);
    if tx.body().kind == TxKind::Register {
        node.net.lock().operators.push((id, operator));
    }
    observe(wallet, &node.decide_slot(&[], vec![tx]));
    id
}

fn registered(node: &Arc<FakeNode>, wallet: &Mutex<Wallet>) -> MasternodeId {
    let arguments = json!(["", SERVICE, "", "", "", 0, ""]);
    let sent = ok(node, "protx register_fund", arguments);
    let id = decide_sent(node, wallet, OWN);
    assert_eq!(sent, json!(id.to_string()), "M1: the id is the txid");
    id
}

fn units(value: &Value) -> u64 {
    crate::rpc::args::amount(value).unwrap().0
}

/// Why the masternode of this node does not earn.
fn reason(node: &Arc<FakeNode>) -> String {
    let status = ok(node, "masternode", json!(["status"]));
    let codes = status["reasons"].as_array().unwrap().iter();
    let codes: Vec<&str> = codes.map(|why| why["code"].as_str().unwrap()).collect();
    assert_eq!(status["earning"], json!(codes.is_empty()));
    codes.join(" ")
}

#[test]
fn a_wallet_registers_earns_changes_leaves_and_gets_its_collateral_back() {
    let (node, wallet, _dir) = rich();
    assert_eq!(reason(&node), "unregistered");
    let before = units(&ok(&node, "getbalance", json!([])));
    let id = registered(&node, &wallet);
    let after = units(&ok(&node, "getbalance", json!([])));
    let locked = 100_000_000_000;
    assert!(
        before - after > locked && before - after < locked + 10_000,
        "the collateral is no coin, and the fee is small: {before} {after}"
    );
    assert_eq!(reason(&node), "new", "M5: a new registration starts jailed");
    node.decide_slot(&[], vec![]);
    assert_eq!(reason(&node), "", "M5: present once on a devnet: it votes");
    let info = ok(&node, "protx", json!(["info", id.to_string()]));
    assert_eq!(
        (&info["state"]["status"], &info["state"]["service"]),
        (&json!("ENABLED"), &json!(SERVICE))
    );
    assert_eq!(info["wallet"]["hasOwnerKey"], json!(true));
    let mine = ok(&node, "protx", json!(["list", "wallet"]));
    assert_eq!(mine, json!([id.to_string()]));
    assert_eq!(
        ok(&node, "protx list", json!([])).as_array().unwrap().len(),
        5
    );
    node.decide_slot(&[], vec![]);
    let status = ok(&node, "masternode", json!([]));
    assert!(units(&status["accrued"]) > 0, "M6: it earns");
    node.decide_slot(&[id], vec![]);
    assert_eq!(reason(&node), "absent");

    let moved = "127.0.0.1:25000";
    ok(
        &node,
        "protx",
        json!(["update_service", id.to_string(), moved]),
    );
    decide_sent(&node, &wallet, OWN);
    let elsewhere = program(HOLDER + 7).address(node.facts.network());
    let change = json!(["update_registrar", id.to_string(), "", "", elsewhere]);
    ok(&node, "protx", change);
    decide_sent(&node, &wallet, OWN);
    let info = ok(&node, "protx info", json!([id.to_string()]));
    assert_eq!(
        (&info["state"]["service"], &info["state"]["payoutAddress"]),
        (&json!(moved), &json!(elsewhere))
    );

    ok(&node, "protx", json!(["revoke", id.to_string()]));
    decide_sent(&node, &wallet, OWN);
    assert_eq!(reason(&node), "left");
    assert_eq!(code(&node, "protx", json!(["revoke", id.to_string()])), -8);
    let left = units(&ok(&node, "getbalance", json!([])));
    for _ in 0..node.facts.genesis.params.unbonding {
        observe(&wallet, &node.decide_slot(&[], vec![]));
    }
    let back = units(&ok(&node, "getbalance", json!([])));
    assert!(
        back >= left + locked,
        "B5 step 8: the whole collateral returns"
    );
    assert_eq!(reason(&node), "unregistered");
}

/// A prepared registration of a coin whose key is nowhere near the node.
fn cold(node: &Arc<FakeNode>, wallet: &Mutex<Wallet>) -> Value {
    let coin = pay(node, wallet, program(COLD), 1_000);
    let network = node.facts.network();
    let owner = program(COLD_OWNER).address(network);
    let operator = key(COLD_OPERATOR).public().to_string();
    let payout = program(HOLDER + 8).address(network);
    let txid = coin.txid.to_string();
    let arguments = json!([txid, 0, SERVICE, owner, operator, "", 0, payout]);
    ok(node, "protx register_prepare", arguments)
}

const COLD: u64 = 7_001;
const COLD_OWNER: u64 = 7_002;
const COLD_OPERATOR: u64 = 7_003;

fn signature(document: &Value, signer: u64) -> String {
    let public = key(signer).public().to_string();
    let missing = document["missing"].as_array().unwrap();
    let place = missing.iter().find(|p| p["key"] == json!(public)).unwrap();
    let message: Hash = place["message"].as_str().unwrap().parse().unwrap();
    hex::encode(&key(signer).sign(&message).0)
}

#[test]
fn keys_of_collateral_and_operator_stay_elsewhere() {
    let (node, wallet, _dir) = rich();
    let document = cold(&node, &wallet);
    let fee = units(&document["fee"]);
    assert!(fee > 0 && fee < 10_000, "the wallet pays the fee: {fee}");
    assert_eq!(
        document["missing"].as_array().unwrap().len(),
        3,
        "collateral, fee coin, operator"
    );
    let tx = document["tx"].as_str().unwrap();
    let refused = call(&node, "protx register_submit", json!([tx]));
    let said = refused["error"]["message"].as_str().unwrap();
    for signer in [COLD, COLD_OPERATOR] {
        assert!(said.contains(&key(signer).public().to_string()), "{said}");
    }
    assert_eq!(
        refused["error"]["data"]["reason"],
        json!("signatures-missing")
    );
    let signatures = [
        signature(&document, COLD_OPERATOR),
        signature(&document, COLD),
    ];
    let swapped = [signature(&document, COLD), "00".repeat(64)];
    assert_eq!(
        code(&node, "protx register_submit", json!([tx, swapped])),
        -8
    );
    let sent = ok(&node, "protx register_submit", json!([tx, signatures]));
    assert_eq!(sent, document["txid"]);
    let id = decide_sent(&node, &wallet, COLD_OPERATOR);
    let info = ok(&node, "protx info", json!([id.to_string()]));
    assert_eq!(info["collateralAddress"], document["collateralAddress"]);
    assert_eq!(info["collateralAmount"].to_string(), "1000.00000000");
    assert_eq!(info["wallet"]["ownsCollateral"], json!(false));

    // The owner's key is cold too: what the wallet makes alone is not enough.
    let revoke = json!(["revoke", id.to_string(), "", 0, "", false]);
    let document = ok(&node, "protx", revoke);
    let mut draft = Draft::from_json(&document).unwrap();
    assert_eq!(
        draft.sign(&key(COLD_OWNER)),
        Ok(1),
        "a host without a node signs"
    );
    let document = draft.to_json().unwrap();
    ok(&node, "protx", json!(["register_submit", document["tx"]]));
    decide_sent(&node, &wallet, COLD_OPERATOR);
    let gone = ok(&node, "protx info", json!([id.to_string()]));
    assert_eq!(gone["state"]["status"], json!("LEAVING"));
}

#[test]
fn a_changed_document_is_not_what_was_signed() {
    let (node, wallet, _dir) = rich();
    let document = cold(&node, &wallet);
    let mut richer = document.clone();
    richer["inputs"][0]["amount"] = json!(2_000);
    let mut draft = Draft::from_json(&richer).unwrap();
    assert_eq!(draft.sign(&key(COLD)), Ok(1));
    let richer = draft.to_json().unwrap();
    assert_ne!(
        richer["fee"], document["fee"],
        "L5: a false value shows as a false fee"
    );
    let honest = Draft::from_json(&document).unwrap();
    let mut mixed = honest.clone();
    mixed.transaction = draft.transaction;
    assert_eq!(
        mixed.missing().unwrap().len(),
        honest.missing().unwrap().len(),
        "L5: a signature over false values holds nowhere else"
    );
    for name in ["tx", "chain", "branch", "network", "inputs"] {
        let mut broken = document.clone();
        broken[name] = json!("x");
        assert!(Draft::from_json(&broken).is_err(), "{name}");
        assert_eq!(code(&node, "protx sign", json!([broken])), -22, "{name}");
    }
    let signed = ok(&node, "protx sign", json!([document]));
    assert_eq!(
        signed["missing"].as_array().unwrap().len(),
        2,
        "the wallet's fee coin is signed"
    );
    assert_eq!(
        code(&node, "protx sign", json!([signed])),
        -4,
        "nothing more to sign"
    );
}

#[test]
fn a_coin_with_more_than_whole_time_pays_its_own_fee() {
    let node = FakeNode::new();
    let value = Amount(100_050_000_000);
    let output = TxOutput {
        value,
        program: program(COLD),
    };
    let kind = TxKind::Transfer;
    let coin = node.net.lock().spend(kind, HOLDER, output, Vec::new(), &[]);
    node.decide(vec![coin.clone()]);
    let address = program(COLD_OWNER).address(node.facts.network());
    let arguments = json!([
        coin.txid.to_string(),
        0,
        SERVICE,
        address,
        "",
        "",
        0,
        address
    ]);
    let document = ok(&node, "protx register_prepare", arguments);
    assert_eq!(
        document["collateralAmount"].to_string(),
        "1000.00000000",
        "no wallet is loaded"
    );
    let draft = Draft::from_json(&document).unwrap();
    let change = draft.transaction.body.outputs[1];
    assert_eq!(
        change.program,
        program(COLD),
        "change returns to the coin's owner"
    );
    assert_eq!(
        draft.fee().map(|fee| fee.0 + change.value.0),
        Some(50_000_000)
    );
}

#[test]
fn mistakes_have_their_codes() {
    let (node, wallet, _dir) = rich();
    let coin = pay(&node, &wallet, program(COLD), 999);
    let (small, none) = (coin.txid.to_string(), "11".repeat(32));
    for (params, wanted) in [
        (
            json!(["register_prepare", none, 0, SERVICE, "", "", "", 0, ""]),
            -5,
        ),
        (
            json!(["register_prepare", small, 0, SERVICE, "", "", "", 0, ""]),
            -8,
        ),
        (
            json!(["register_prepare", small, -1, SERVICE, "", "", "", 0, ""]),
            -8,
        ),
        (
            json!(["register_fund", "", "nowhere", "", "", "", 0, ""]),
            -8,
        ),
        (json!(["register_fund", "", "h:0", "", "", "", 0, ""]), -8),
        (
            json!(["register_fund", "", SERVICE, "x", "", "", 0, ""]),
            -5,
        ),
        (
            json!(["register_fund", "", SERVICE, "", "ff", "", 0, ""]),
            -8,
        ),
        (json!(["register_fund", "", SERVICE, "", "", "", 5, ""]), -8),
        (
            json!([
                "register_fund",
                "",
                SERVICE,
                "",
                "",
                "",
                0,
                "",
                "",
                true,
                999
            ]),
            -8,
        ),
        (
            json!([
                "register_fund",
                "",
                SERVICE,
                "",
                "",
                "",
                0,
                "",
                "",
                true,
                9_999
            ]),
            -6,
        ),
        (json!(["register_submit", "00"]), -22),
        (
            json!([
                "register_submit",
                hex::encode(&crate::types::codec::encode(&coin))
            ]),
            -22,
        ),
        (json!(["update_service", none, SERVICE]), -5),
        (json!(["update_registrar", none, "", "", ""]), -5),
        (json!(["revoke", none]), -5),
        (json!(["info", none]), -5),
        (json!(["list", "odd"]), -8),
        (json!(["nothing"]), -8),
        (json!([]), -8),
    ] {
        assert_eq!(code(&node, "protx", params.clone()), wanted, "{params}");
    }
    let secret = json!(["revoke", none, "secret"]);
    let said = call(&node, "protx", secret)["error"]["message"].to_string();
    assert!(said.contains("never travel over RPC"), "{said}");
    let help = ok(&node, "help", json!(["protx"]));
    assert!(
        help.as_str().unwrap().contains("register_prepare"),
        "{help}"
    );
}

/// A masternode with power that nobody saw in the newest slot.
fn standing(entry: Entry) -> OwnStanding {
    OwnStanding {
        key: entry.operator,
        id: Some(entry.id),
        replaced_in: None,
        has_power: true,
        slot_index: SlotIndex(2),
        unjail_after: 1,
        jail_after: 3,
        slot: Slot(9),
        heartbeats_sent: 3,
        heartbeats_required: 6,
        synced: true,
        witness: Some(SlotWitness {
            height: Height(3),
            slot_index: SlotIndex(2),
            attested: true,
            attesting: Power(5_000),
            seen_by: Power(1_000),
            total: Power(5_000),
        }),
        probed: None,
        sure: true,
        signing: Ok(()),
        clock_alarm: false,
        attested_now: (Power(0), Power(5_000)),
        entry: Some(entry),
    }
}

#[test]
fn a_node_says_what_keeps_its_own_masternode_from_earning() {
    let (node, wallet, _dir) = rich();
    registered(&node, &wallet);
    node.decide_slot(&[], vec![]);
    node.set(|k| {
        let id = k.view.masternodes[0].id();
        k.view.sync.active = true;
        k.view.own = Some(OwnMasternode {
            operator: key(OWN).public(),
            id: Some(id),
            unsure: Some("the store is missing".into()),
            anchored: true,
            abstains: None,
        });
    });
    assert_eq!(reason(&node), "unsure syncing");
    node.set(|k| {
        let entry = k
            .view
            .masternodes
            .iter()
            .find(|m| m.entry.operator == key(OWN).public());
        k.view.own_standing = Some(standing(entry.unwrap().entry.clone()));
    });
    assert_eq!(reason(&node), "unseen unsure syncing");
    node.set(|k| k.view.own_standing.as_mut().unwrap().has_power = false);
    assert_eq!(reason(&node), "unreachable unsure syncing");
    node.set(|k| {
        let own = k.view.own_standing.as_mut().unwrap();
        own.witness.as_mut().unwrap().attested = false;
        own.clock_alarm = true;
    });
    assert_eq!(reason(&node), "clock unattested unsure syncing");
    node.set(|k| k.view.own_standing = None);
    let able = || ok(&node, "masternode status", json!([]))["able_to_sign"] == json!(true);
    assert!(!able());
    node.set(|k| k.view.own.as_mut().unwrap().unsure = None);
    assert!(able());
    node.set(|k| k.view.own.as_mut().unwrap().unsure = Some("the store is missing".into()));
    let all = ok(&node, "masternodelist", json!(["reason"]));
    assert_eq!(all.as_object().unwrap().len(), 5);
    let new_key = key(COLD_OPERATOR).public().to_string();
    let id = ok(&node, "masternode status", json!([]))["proTxHash"].clone();
    let arguments = json!([id, new_key, "", "", "", false]);
    let document = ok(&node, "protx update_registrar", arguments);
    let wanted = json!([document["tx"], signature(&document, COLD_OPERATOR)]);
    ok(&node, "protx register_submit", wanted);
    node.net
        .lock()
        .operators
        .push((id.as_str().unwrap().parse().unwrap(), COLD_OPERATOR));
    decide_sent(&node, &wallet, OWN);
    assert_eq!(reason(&node), "operator-key unsure syncing");
}

/// Everything a report says must follow from the registry's own counters.
fn assert_report_fits(node: &Arc<FakeNode>) {
    let report = ok(node, "getrewardreport", json!(["all", 1]));
    let list = report["masternodes"].as_array().unwrap();
    let (mut earned, mut paid) = (0, 0);
    for one in list {
        earned += units(&one["earned"]);
        paid += units(&one["paid"]);
    }
    let supply = node.knobs.lock().view.supply;
    assert_eq!(
        earned - paid,
        supply.accrued.0,
        "earned and not paid is accrued"
    );
    let issued = units(&report["issued"]);
    let genesis = {
        let state = crate::ledger::state::State::genesis(&node.facts.genesis);
        state.tip.supply.issued.0
    };
    assert_eq!(
        issued,
        supply.issued.0 - genesis,
        "every unit issued is reported"
    );
}

#[test]
fn a_report_tells_what_was_earned_missed_and_paid() {
    let (node, wallet, _dir) = rich();
    assert_eq!(
        code(&node, "getrewardreport", json!([])),
        -5,
        "no slot block yet"
    );
    let id = registered(&node, &wallet);
    for absent in [&[][..], &[], &[id], &[id], &[]] {
        node.decide_slot(absent, vec![]);
    }
    let bare = {
        let mut net = node.net.lock();
        net.slot_block(vec![])
    };
    node.show_made(bare);
    node.decide_slot(&[], vec![]);
    let check = |node: &Arc<FakeNode>| {
        let report = ok(
            node,
            "getrewardreport",
            json!([id.to_string(), 1, 99, "slot", true]),
        );
        assert_eq!(
            (&report["slots"], &report["attested"]),
            (&json!(8), &json!(7))
        );
        let mine = &report["masternodes"][0];
        assert_eq!(
            (
                &mine["slots_voting"],
                &mine["slots_active"],
                &mine["slots_missed"]
            ),
            (&json!(6), &json!(4), &json!(2)),
            "M5: registered by slot block 1, seen in 2, voting from 3 on, absent in 4 and 5"
        );
        assert_eq!(mine["slots_earned"], json!(3));
        let rows = mine["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 7, "it stands in the order from slot block 2 on");
        let sum: u64 = rows.iter().map(|row| units(&row["earned"])).sum();
        assert_eq!(sum, units(&mine["earned"]));
        let paid: Vec<u64> = mine["payments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["slot_index"].as_u64().unwrap())
            .collect();
        assert_eq!(paid, [4, 8], "payout_period is 4 on a devnet");
        assert_report_fits(node);
        let height = report["to"]["height"].clone();
        let by_height = json!(["all", height, height, "height"]);
        assert_eq!(ok(node, "getrewardreport", by_height)["slots"], json!(1));
        let time = report["from"]["time"].as_u64().unwrap();
        let by_time = json!(["all", 0, time, "time"]);
        assert_eq!(
            ok(node, "getrewardreport", by_time)["to"]["slot_index"],
            json!(1)
        );
        let none = ok(node, "getrewardreport", json!(["all", 50]));
        assert_eq!((&none["slots"], &none["from"]), (&json!(0), &Value::Null));

        let info = ok(node, "getattestationinfo", json!([]));
        assert_eq!(
            (&info["slot_index"], &info["attested"]),
            (&json!(8), &json!(true))
        );
        assert_eq!(info["attesting_power"], info["total_power"]);
        let slot = info["slot"].as_u64().unwrap();
        let bare = ok(node, "getattestationinfo", json!([slot - 1]));
        assert_eq!(
            (&bare["attested"], &bare["attesting_power"]),
            (&json!(false), &json!(0))
        );
        let missed = ok(node, "getattestationinfo", json!([slot - 3]));
        let seen = missed["masternodes"].as_array().unwrap();
        let seen = seen
            .iter()
            .find(|m| m["proTxHash"] == json!(id.to_string()));
        let seen = seen.unwrap();
        assert_eq!(
            (&seen["seen_by_power"], &seen["active"]),
            (&json!(0), &json!(false))
        );
        assert_eq!(code(node, "getattestationinfo", json!([slot + 1])), -5);
        assert_eq!(code(node, "getattestationinfo", json!([1])), -5);
    };
    check(&node);
    node.flush(false);
    check(&node);
    node.flush(true);
    check(&node);
    assert_eq!(
        code(&node, "getrewardreport", json!(["all", 0, 1, "week"])),
        -8
    );
    assert_eq!(code(&node, "getrewardreport", json!(["all", -1])), -8);
}
