//! Commands for people: status, peers, wait, -getinfo, rpcauth.
//!
//! Job: put answers of the node into few lines. Inputs: a client. Outputs: tables or JSON. Never: shows a figure that the node did not give.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::exit::Exit;
use super::output::{CliError, Output, pairs, seconds, table};
use crate::base::hex;
use crate::rpc::auth::password_hash;
use crate::wallet::seed::random;

/// Width of a progress bar, in characters.
const BAR_WIDTH: usize = 30;

/// A value as a person reads it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(show).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

fn ask(client: &mut Client, method: &str) -> Result<Value, CliError> {
    Ok(client.call(method, json!([]))?)
}

/// What a node that has no such thing leaves out.
fn ask_or_null(client: &mut Client, method: &str) -> Value {
    client.call(method, json!([])).unwrap_or(Value::Null)
}

/// How the node and its network are.
pub(super) fn status(
    client: &mut Client,
    now_ms: u64,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let chain = ask(client, "getblockchaininfo")?;
    let consensus = ask(client, "getconsensusinfo")?;
    let network = ask(client, "getnetworkinfo")?;
    let mempool = ask(client, "getmempoolinfo")?;
    let sync = ask_or_null(client, "getsyncinfo");
    let health = client.get("/health")?;
    let health: Value = serde_json::from_slice(&health.body).unwrap_or(Value::Null);
    let whole = json!({
        "chain": chain, "consensus": consensus, "network": network, "mempool": mempool,
        "sync": sync, "health": health,
    });
    output.either(&whole, || status_text(&whole, client, now_ms));
    if health["status"] == "ok" {
        Ok(())
    } else {
        Err(CliError::new(
            Exit::Failure,
            if output.json {
                "the node is unhealthy"
            } else {
                ""
            },
        ))
    }
}

/// A share as a bar.
fn bar(share: f64) -> String {
    let full = (share * BAR_WIDTH as f64) as usize;
    let bar = "#".repeat(full.min(BAR_WIDTH));
    format!("[{bar:-<BAR_WIDTH$}] {:.1} %", share * 100.0)
}

/// Catching up as a bar with rate and time left, or that there is nothing to catch up with; and what is not believed.
fn sync_text(sync: &Value) -> String {
    let mut text = match sync["progress"]
        .as_f64()
        .filter(|_| sync["syncing"] == true)
    {
        None => "up to date".to_owned(),
        Some(progress) => {
            let left = sync["time_left"].as_u64();
            format!(
                "{}, {} blocks behind, {} blocks/s, {} left\n{}",
                bar(progress),
                show(&sync["blocks_behind"]),
                show(&sync["blocks_per_second"]),
                left.map_or("unknown time".into(), |s| seconds(s * 1_000)),
                show(&sync["waiting_for"]),
            )
        }
    };
    if let Some(pieces) = sync["snapshot"]["pieces"].as_u64() {
        let share = bar(pieces as f64 / 257.0);
        text = format!("fetching a snapshot: {share}, {pieces} of 257 pieces");
    }
    if let Some(reason) = sync["trust"]["reason"].as_str() {
        text.push_str(&format!("\n{reason}"));
    }
    text
}

fn status_text(whole: &Value, client: &Client, now_ms: u64) -> String {
    let (chain, consensus) = (&whole["chain"], &whole["consensus"]);
    let (network, masternode) = (&whole["network"], &consensus["masternode"]);
    let tip_ms = chain["time"].as_u64().map(|s| s * 1_000);
    let age = tip_ms.map_or("-".to_owned(), |t| seconds(now_ms.saturating_sub(t)));
    let at = format!(
        "height {}, round {}, {}\nwaiting for {}",
        show(&consensus["height"]),
        show(&consensus["round"]),
        show(&consensus["step"]),
        show(&consensus["waiting_for"]),
    );
    let power = format!(
        "{} of {} connected, {} needed to decide",
        show(&consensus["connected_power"]),
        show(&consensus["total_power"]),
        show(&consensus["quorum_power"]),
    );
    let reasons = whole["health"]["reasons"].as_array();
    let reasons: Vec<String> = reasons.into_iter().flatten().map(show).collect();
    let health = if reasons.is_empty() {
        show(&whole["health"]["status"])
    } else {
        reasons.join("\n")
    };
    let standing = match chain["contested_from"].as_u64() {
        Some(from) => {
            format!("CONTESTED from height {from} on: a fork is open, see time-cli getforkinfo")
        }
        None => "final".to_owned(),
    };
    pairs(&[
        (
            "node",
            format!("{}, {}", client.url(), show(&network["subversion"])),
        ),
        (
            "network",
            format!(
                "{}, {} peers",
                show(&chain["chain"]),
                show(&network["connections"])
            ),
        ),
        (
            "tip",
            format!(
                "height {}, {age} old, {standing}\n{}",
                show(&chain["blocks"]),
                show(&chain["bestblockhash"])
            ),
        ),
        ("sync", sync_text(&whole["sync"])),
        ("consensus", at),
        ("power", power),
        (
            "mempool",
            format!(
                "{} transactions, {} bytes",
                show(&whole["mempool"]["size"]),
                show(&whole["mempool"]["bytes"])
            ),
        ),
        (
            "masternode",
            if masternode.is_null() {
                "none here".to_owned()
            } else {
                masternode_text(masternode)
            },
        ),
        ("health", health),
    ])
}

fn masternode_text(masternode: &Value) -> String {
    format!(
        "{}, {}",
        show(&masternode["state"]),
        show(&masternode["status"])
    )
}

/// The most important figures, as bitcoin-cli -getinfo.
pub(super) fn info(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let chain = ask(client, "getblockchaininfo")?;
    let network = ask(client, "getnetworkinfo")?;
    let balance = ask_or_null(client, "getbalance");
    let rows = [
        ("version", &network["version"]),
        ("subversion", &network["subversion"]),
        ("chain", &chain["chain"]),
        ("blocks", &chain["blocks"]),
        ("bestblockhash", &chain["bestblockhash"]),
        ("connections", &network["connections"]),
        ("relayfee", &network["relayfee"]),
        ("balance", &balance),
        ("warnings", &network["warnings"]),
    ];
    let object = rows
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).clone()));
    let whole = Value::Object(object.collect());
    output.either(&whole, || {
        pairs(&rows.map(|(name, value)| (name, show(value))))
    });
    Ok(())
}

/// The connections of the node.
pub(super) fn peers(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let peers = ask(client, "getpeerinfo")?;
    let bans = ask_or_null(client, "listbanned");
    output.either(&peers, || {
        let row = |peer: &Value| {
            let ping = peer["pingtime"]
                .as_f64()
                .map_or("-".to_owned(), |s| format!("{:.1} ms", s * 1_000.0));
            let inbound = if peer["inbound"] == true { "in" } else { "out" };
            let masternode = peer.get("masternode").filter(|m| !m.is_null()).map(show);
            vec![
                show(&peer["id"]),
                show(&peer["addr"]),
                inbound.to_owned(),
                masternode.map_or("-".to_owned(), |id| id.chars().take(12).collect()),
                show(&peer["synced_blocks"]),
                ping,
                show(&peer["bytessent"]),
                show(&peer["bytesrecv"]),
                show(&peer["score"]),
                show(&peer["subver"]),
            ]
        };
        let rows = peers.as_array().into_iter().flatten().map(row).collect();
        let head = [
            "ID",
            "ADDRESS",
            "DIR",
            "MASTERNODE",
            "HEIGHT",
            "PING",
            "SENT",
            "RECEIVED",
            "SCORE",
            "SOFTWARE",
        ];
        table(&head, &[0, 4, 5, 6, 7, 8], rows) + &bans_text(&bans)
    });
    Ok(())
}

/// Who is kept out, below the list of who is in; nothing if nobody is.
fn bans_text(bans: &Value) -> String {
    let bans = bans.as_array().into_iter().flatten();
    let row = |ban: &Value| {
        let left = ban["time_remaining"].as_u64().unwrap_or_default();
        vec![
            show(&ban["address"]),
            seconds(left * 1_000),
            show(&ban["reason"]),
        ]
    };
    let rows: Vec<Vec<String>> = bans.map(row).collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", table(&["BANNED", "FOR", "REASON"], &[], rows)),
    }
}

/// Waits until a transaction is final.
pub(super) fn wait(
    client: &mut Client,
    txid: &str,
    timeout_s: u64,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let limit = Duration::from_secs(timeout_s.saturating_add(5));
    let found = client.call_within("waittransactionfinality", json!([txid, timeout_s]), limit)?;
    output.either(&found, || {
        pairs(&[
            ("transaction", show(&found["txid"])),
            ("state", show(&found["state"])),
            ("height", show(&found["height"])),
            ("block", show(&found["blockhash"])),
            (
                "final after",
                found["finality_ms"]
                    .as_u64()
                    .map_or("-".to_owned(), |ms| format!("{ms} ms")),
            ),
        ])
    });
    Ok(())
}

/// The configuration line and password of a new user.
pub(super) fn rpcauth(user: &str, output: &mut Output<'_>) -> Result<(), CliError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if user.is_empty() || user.len() > 64 || !user.chars().all(fine) {
        return Err(CliError::new(
            Exit::Usage,
            "a user name has 1 to 64 letters, digits, '-', '_' and '.'",
        ));
    }
    let (mut salt, mut password) = ([0; 16], [0; 32]);
    let drawn = random(&mut salt).and_then(|()| random(&mut password));
    drawn.map_err(|e| CliError::new(Exit::Internal, e.to_string()))?;
    let (salt, password) = (hex::encode(&salt), hex::encode(&password));
    let line = format!(
        "{user}:{salt}${}",
        hex::encode(&password_hash(&salt, &password))
    );
    let whole = json!({"user": line, "password": password});
    output.either(&whole, || {
        format!("Add this to the list users in [rpc] of timed.toml, then send SIGHUP to timed:\n\"{line}\"\nPassword of {user}, shown once:\n{password}\n")
    });
    Ok(())
}
