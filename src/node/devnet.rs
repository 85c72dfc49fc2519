//! `timed devnet`: a network of real processes on loopback, for whoever wants to see one run.
//!
//! Job: make the network, start its nodes, tell where they are and what they decide, obey `timed devnet kill` and its like, stop all.
//! Inputs: options, signals, requests. Outputs: a table and lines on standard output, messages on standard error. Never: starts a node
//! again that ended, unless asked to; leaves a node behind.

mod control;
mod follow;
mod network;
mod nodes;

use crate::base::hex;
use crate::node::cli::{DevnetAction, DevnetOptions};
use crate::node::client::ClientError;
use crate::node::commands::{CommandError, Output, table};
use crate::node::exit::Exit;
use crate::node::signals::SignalListener;
use control::Job;
use crossbeam::channel::{Receiver, after, select};
use follow::{Follower, say};
use network::{Devnet, Site};
pub use nodes::STOP_AT_EOF;
use nodes::{Crew, Life, Node};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two looks whether a node has ended.
const REAP_INTERVAL: Duration = Duration::from_millis(200);
/// Time for a node to answer `timed devnet status`.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the faucet waits until its payment is final, s.
const FAUCET_TIMEOUT_S: u64 = 60;

/// Makes and runs a devnet until a signal. `log_level` is for its nodes.
pub fn run(options: &DevnetOptions, log_level: Option<String>) -> Result<Exit, CommandError> {
    let internal = |error: std::io::Error| CommandError::new(Exit::Internal, error.to_string());
    let signals = SignalListener::start().map_err(internal)?;
    let network = network::open(options)?;
    let (announcement, jobs) = control::announce(&network.dir, facts(&network))?;
    let mut crew = Crew {
        nodes: network.sites.iter().cloned().map(Node::new).collect(),
        log_level,
    };
    let worked = work(&network, &mut crew, &signals, &jobs);
    let is_clean = crew.stop(&signals);
    drop(announcement);
    worked?;
    eprintln!(
        "timed: all nodes have stopped; go on with: timed devnet --dir {}",
        network.dir.display()
    );
    Ok(match is_clean {
        true => Exit::Success,
        false => Exit::Failure,
    })
}

fn work(
    network: &Devnet,
    crew: &mut Crew,
    signals: &SignalListener,
    jobs: &Receiver<Job>,
) -> Result<(), CommandError> {
    crew.start()?;
    if !crew.await_ready(signals)? {
        return Ok(());
    }
    say(&welcome(network, crew));
    let follower = Follower::new(&network.sites, names(network));
    let thread = std::thread::Builder::new().name("follow".into());
    thread
        .spawn(move || follower.run())
        .map_err(|error| CommandError::new(Exit::Internal, error.to_string()))?;
    loop {
        select! {
            // A hangup too: the terminal in which this was to be seen is gone.
            recv(signals.receiver()) -> _signal => return Ok(()),
            recv(jobs) -> job => if let Ok(job) = job {
                let answer = obey(crew, &job.action);
                let _gone = job.reply.send(answer);
            },
            recv(after(REAP_INTERVAL)) -> _time => {}
        }
        crew.reap();
    }
}

/// What the file of a running devnet tells.
fn facts(network: &Devnet) -> Value {
    let node = |site: &Site| {
        json!({
            "node": site.index, "datadir": site.datadir.path(), "p2p": site.p2p.to_string(),
            "rpc": site.url.to_string(), "log": site.log_file(),
        })
    };
    json!({
        "chain_id": network.genesis.chain_id().to_string(),
        "nodes": network.sites.iter().map(node).collect::<Vec<_>>(),
    })
}

/// What to call the masternode of an id.
fn names(network: &Devnet) -> BTreeMap<String, String> {
    let all = network.genesis.masternodes.iter().enumerate();
    all.map(|(i, masternode)| (masternode.id().to_string(), format!("node {i}")))
        .collect()
}

/// Where `time-cli` is, as a person would type it.
fn client_program() -> PathBuf {
    let beside = std::env::current_exe().map(|program| program.with_file_name("time-cli"));
    let Some(beside) = beside.ok().filter(|program| program.exists()) else {
        return PathBuf::from("time-cli");
    };
    let here = std::env::current_dir().unwrap_or_default();
    beside
        .strip_prefix(here)
        .map_or(beside.clone(), Path::to_owned)
}

fn faucet(network: &Devnet) -> String {
    let read = || -> Option<String> {
        let text = std::fs::read_to_string(network.dir.join("faucet.json")).ok()?;
        let faucet: Value = text.parse().ok()?;
        Some(faucet.get("address")?.as_str()?.to_owned())
    };
    read().unwrap_or_default()
}

fn welcome(network: &Devnet, crew: &Crew) -> String {
    let rows = crew.nodes.iter().map(|node| {
        let pid = node.pid().map(|pid| pid.to_string());
        vec![
            node.site.index.to_string(),
            pid.unwrap_or_default(),
            node.site.p2p.to_string(),
            node.site.url.to_string(),
            node.site.datadir.path().display().to_string(),
        ]
    });
    let head = [
        "node",
        "pid",
        "P2P",
        "HTTP: RPC, /metrics, /health",
        "data directory",
    ];
    let table = table(&head, rows.collect());
    let dir = network.dir.display();
    let kept = match network.is_temporary {
        true => " (temporary; --dir names another)",
        false => "",
    };
    let address = faucet(network);
    let client = client_program();
    let client = client.display();
    format!(
        "TimeCoin devnet {} in {dir}{kept}\n{table}\nfaucet {address}, in the wallet of node 0\n\
         pay:  {client} --datadir {dir}/node0 sendtoaddress {address} 1.5\n\
         look: {client} --datadir {dir}/node0 status\n\
         play: timed devnet status | kill I | start I | pause I | resume I | faucet ADDRESS AMOUNT\n\
         Ctrl-C stops all nodes.\n",
        hex::encode(&network.genesis.chain_id().0.0[..4]),
    )
}

/// Does what was asked; the answer.
fn obey(crew: &mut Crew, action: &DevnetAction) -> Value {
    crew.reap();
    let level = crew.log_level.clone();
    let mut on = |index: u16, act: &dyn Fn(&mut Node) -> Result<(), CommandError>| {
        let count = crew.nodes.len();
        match crew.nodes.get_mut(usize::from(index)) {
            Some(node) => act(node),
            None => {
                let text = format!(
                    "there is no node {index}; nodes are 0 to {}",
                    count.saturating_sub(1)
                );
                Err(CommandError::new(Exit::Usage, text))
            }
        }
    };
    let done = match action {
        DevnetAction::Kill(index) => on(*index, &Node::kill),
        DevnetAction::Start(index) => on(*index, &|node| node.start(level.as_deref())),
        DevnetAction::Pause(index) => on(*index, &|node| node.halt(true)),
        DevnetAction::Resume(index) => on(*index, &|node| node.halt(false)),
        DevnetAction::Status | DevnetAction::Faucet { .. } => Ok(()),
    };
    match done {
        Err(error) => json!({ "error": error.message, "exit": error.exit.code() }),
        Ok(()) => {
            let node = |node: &Node| {
                json!({
                    "node": node.site.index, "pid": node.pid(), "state": node.life().name(),
                    "p2p": node.site.p2p.to_string(), "rpc": node.site.url.to_string(),
                    "datadir": node.site.datadir.path(),
                })
            };
            json!({ "nodes": crew.nodes.iter().map(node).collect::<Vec<_>>() })
        }
    }
}

/// `timed devnet status` and the other commands for one that runs, of `dir` or the newest of this user.
pub fn act(dir: Option<&Path>, action: &DevnetAction) -> Result<Output, CommandError> {
    let mut answer = control::ask(dir, action)?;
    if let DevnetAction::Faucet { address, amount } = action {
        return pay(&answer, address, amount);
    }
    let mut rows = Vec::new();
    for node in answer["nodes"].as_array_mut().into_iter().flatten() {
        if node["state"] == Life::Running.name() {
            let told = heights(node);
            node["height"] = told.as_ref().map_or(Value::Null, |told| told.0.clone());
            node["peers"] = told.map_or(Value::Null, |told| told.1);
        }
        let show = |name: &str| match &node[name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let columns = [
            "node", "pid", "state", "height", "peers", "p2p", "rpc", "datadir",
        ];
        rows.push(columns.into_iter().map(show).collect());
    }
    let head = [
        "node",
        "pid",
        "state",
        "height",
        "peers",
        "P2P",
        "HTTP",
        "data directory",
    ];
    Ok(Output {
        text: table(&head, rows),
        json: answer,
    })
}

fn client_of(node: &Value) -> Option<crate::node::client::Client> {
    let datadir = crate::node::datadir::DataDir::new(node["datadir"].as_str()?);
    let url = node["rpc"].as_str()?.parse().ok()?;
    let credentials = crate::node::client::Credentials::File(datadir.cookie());
    Some(crate::node::client::Client::new(url, credentials))
}

fn heights(node: &Value) -> Option<(Value, Value)> {
    let mut client = client_of(node)?;
    let height = client
        .call_within("getblockcount", json!([]), STATUS_TIMEOUT)
        .ok()?;
    let peers = client
        .call_within("getconnectioncount", json!([]), STATUS_TIMEOUT)
        .ok()?;
    Some((height, peers))
}

/// Pays from the wallet of node 0 and waits until that is final.
fn pay(answer: &Value, address: &str, amount: &str) -> Result<Output, CommandError> {
    let amount: serde_json::Number = amount.parse().map_err(|_| {
        CommandError::new(
            Exit::Usage,
            format!("'{amount}' is no amount; write it as 1.5"),
        )
    })?;
    let mut client = answer["nodes"].get(0).and_then(client_of).ok_or_else(|| {
        CommandError::new(Exit::Unavailable, "the faucet is node 0, and there is none")
    })?;
    let failed = |error: ClientError| {
        CommandError::new(error.exit(), format!("the faucet (node 0): {error}"))
    };
    let txid = client
        .call("sendtoaddress", json!([address, amount]))
        .map_err(failed)?;
    let limit = Duration::from_secs(FAUCET_TIMEOUT_S + 5);
    let wait = json!([txid, FAUCET_TIMEOUT_S]);
    let json = client
        .call_within("waittransactionfinality", wait, limit)
        .map_err(failed)?;
    let text = format!(
        "{}\nfinal in block {} after {} ms\n",
        txid.as_str().unwrap_or_default(),
        json["height"],
        json["finality_ms"]
    );
    Ok(Output { text, json })
}
