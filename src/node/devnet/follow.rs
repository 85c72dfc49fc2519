//! One line for each decided block, read from whichever node answers.
//!
//! Job: follow the chain over RPC and print. Inputs: the nodes. Outputs: lines on standard output. Never: holds up the devnet: it
//! has a thread of its own, and when blocks come faster than a person reads it sums them up.

use crate::node::client::{Client, ClientError};
use crate::node::devnet::network::Site;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// How long a node may wait for a block, ms: short, so that the question moves on when a node is cut off.
const WAIT_MS: u64 = 2_000;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause after a node that does not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Most blocks told one by one when behind.
const LINE_COUNT_MAX: u64 = 20;

/// Follows the chain until the process ends.
pub(super) struct Follower {
    clients: Vec<Client>,
    names: BTreeMap<String, String>,
    next: u64,
    parent_ms: Option<u64>,
}

impl Follower {
    /// `names`: what to call the masternode of an id.
    pub(super) fn new(sites: &[Site], names: BTreeMap<String, String>) -> Follower {
        Follower {
            clients: sites.iter().map(Site::client).collect(),
            names,
            next: 1,
            parent_ms: None,
        }
    }

    /// Runs as long as the process.
    pub(super) fn run(mut self) {
        if let Some(height) = self.height() {
            self.next = height.max(1);
            let client = self.clients.first_mut();
            let parent = client.and_then(|client| header(client, self.next - 1).ok());
            self.parent_ms = parent.and_then(|parent| parent["time_ms"].as_u64());
        }
        loop {
            if self.step().is_err() {
                self.clients.rotate_left(1);
                std::thread::park_timeout(RETRY_INTERVAL);
            }
        }
    }

    fn height(&mut self) -> Option<u64> {
        let answer = self.clients.first_mut()?.call("getblockcount", json!([]));
        answer.ok()?.as_u64()
    }

    fn step(&mut self) -> Result<(), ClientError> {
        let next = self.next;
        let Some(client) = self.clients.first_mut() else {
            return Ok(());
        };
        let waited =
            client.call_within("waitforblockheight", json!([next, WAIT_MS]), ANSWER_TIMEOUT)?;
        let tip = waited["height"].as_u64().unwrap_or_default();
        if tip < next {
            // Perhaps only this node hears of nothing.
            self.clients.rotate_left(1);
            return Ok(());
        }
        if tip - next >= LINE_COUNT_MAX {
            let last = tip - 1;
            say(&format!("blocks {next} to {last}"));
            self.parent_ms = header(client, last)?["time_ms"].as_u64();
            self.next = tip;
        }
        for height in self.next..=tip {
            let header = header(client, height)?;
            say(&line(&header, self.parent_ms, &self.names));
            self.parent_ms = header["time_ms"].as_u64();
            self.next = height + 1;
        }
        Ok(())
    }
}

fn header(client: &mut Client, height: u64) -> Result<Value, ClientError> {
    let hash = client.call("getblockhash", json!([height]))?;
    client.call("getblockheader", json!([hash]))
}

/// `block 12  round 0    3 txs    +5000 ms  by node 2`
fn line(header: &Value, parent_ms: Option<u64>, names: &BTreeMap<String, String>) -> String {
    let count = header["nTx"].as_u64().unwrap_or_default();
    let time = header["time_ms"].as_u64();
    let passed = match time.zip(parent_ms) {
        Some((time, parent)) => format!("+{} ms", time.saturating_sub(parent)),
        None => String::new(),
    };
    let proposer = header["proposer"].as_str().unwrap_or_default();
    let proposer = names.get(proposer).map_or(proposer, String::as_str);
    let kind = match header["slotblock"].as_bool() {
        Some(true) => "  slot",
        _ => "",
    };
    format!(
        "block {:>6}  round {}  {count:>5} txs  {passed:>10}  by {proposer}{kind}",
        header["height"].as_u64().unwrap_or_default(),
        header["round"].as_u64().unwrap_or_default(),
    )
}

/// A reader that has gone away is no failure.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_height_round_payments_time_and_proposer() {
        let header = json!({
            "height": 12, "round": 1, "nTx": 3, "time_ms": 10_250, "proposer": "ab", "slotblock": true,
        });
        let names = BTreeMap::from([("ab".to_owned(), "node 2".to_owned())]);
        let text = line(&header, Some(10_000), &names);
        let words: Vec<&str> = text.split_whitespace().collect();
        let wanted = "block 12 round 1 3 txs +250 ms by node 2 slot";
        assert_eq!(words.join(" "), wanted);
    }
}
