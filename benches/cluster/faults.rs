//! The parts in which processes are killed: how long one needs to come back, and how long the others notice that it is gone.

use crate::network::{Network, answer, await_some, micros, pause, timed};
use crate::{Report, Sizes, ms, spread};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use timecoin::node::client::Client;
use timecoin::types::genesis::Genesis;

/// Coins that each payment makes.
const OUTPUTS: u64 = 100;
/// Payments per second that make them.
const MAKING_RATE: u64 = 50;
/// Payments per second that flow while leaders are killed.
const FLOW_RATE: u64 = 50;
/// How long a killed leader stays away: the others pass it by several times meanwhile.
const AWAY: Duration = Duration::from_secs(3);
/// Time for a node to come back and for the next kill, s, of which the load is made.
const KILL_S: u64 = 8;

/// A process that ends when it is dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn height(client: &mut Client) -> Option<u64> {
    client.call("getblockcount", json!([])).ok()?.as_u64()
}

/// Kills a node of a ledger of many coins again and again.
pub fn recovery(sizes: &Sizes) -> Result<Report, String> {
    let mut network = Network::ready()?;
    let seconds = sizes.coins.div_ceil(OUTPUTS).div_ceil(MAKING_RATE);
    let mut making = network.bench();
    making.args(["--keep", "--outputs", &OUTPUTS.to_string()]);
    making.args([
        "--rate",
        &MAKING_RATE.to_string(),
        "--duration",
        &seconds.to_string(),
    ]);
    answer(making)?;
    network.await_connected()?;
    let state = network.nodes[3]
        .call("getutxostate", json!([]))
        .map_err(|error| error.to_string())?;
    let before = network.sync_us()?;
    let mut times = Vec::new();
    let mut running: Option<Owned> = None;
    for _ in 0..sizes.restarts {
        let client = &mut network.nodes[3];
        let killed_at = await_some("node 3 answers", || height(client))?;
        match running.take() {
            Some(own) => drop(own),
            None => drop(network.act(&["kill", "3"])?),
        }
        let mut command = timed();
        command
            .arg("--config")
            .arg(network.datadir(3).join("timed.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        running = Some(Owned(
            command.spawn().map_err(|error| format!("timed: {error}"))?,
        ));
        // A client that still has the cookie of before would be refused first, and refusals are slow.
        let client = &network.nodes[3];
        await_some("node 3 is back", || {
            height(&mut client.another()).filter(|now| *now >= killed_at)
        })?;
        times.push(micros(begin));
        network.await_connected()?;
    }
    drop(running);
    Ok(Report {
        rows: vec![
            ("coins in the ledger", state["txouts"].to_string()),
            ("start to answer", spread(times)),
        ],
        sync_us: [before, network.sync_us()?],
    })
}

/// When each height was first seen on any node.
#[derive(Default)]
struct Watch {
    over: AtomicBool,
    seen: Mutex<BTreeMap<u64, Instant>>,
}

impl Watch {
    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.seen
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }

    /// Follows one node as well as it can be followed.
    fn follow(&self, mut client: Client) {
        let mut next = 1;
        while !self.over.load(Ordering::Acquire) {
            match client.call("waitforblockheight", json!([next, 500])) {
                Ok(tip) => {
                    let (now, tip) = (Instant::now(), tip["height"].as_u64().unwrap_or_default());
                    if tip >= next {
                        self.seen().entry(tip).or_insert(now);
                        next = tip + 1;
                    }
                }
                Err(_) => pause(Duration::from_millis(20)),
            }
        }
    }

    /// The longest time without a decision that overlaps what lies between two moments.
    fn longest_gap(&self, from: Instant, to: Instant) -> Option<Duration> {
        let seen = self.seen();
        let mut times: Vec<Instant> = seen.values().copied().collect();
        times.sort_unstable();
        times.last().filter(|last| **last >= to)?;
        let pairs = times
            .windows(2)
            .filter(|pair| pair[1] >= from && pair[0] <= to);
        pairs.map(|pair| pair[1] - pair[0]).max()
    }
}

/// Ends the followers also when a part fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kills the leader of the height that is being decided, again and again, while payments flow.
pub fn kill(sizes: &Sizes) -> Result<Report, String> {
    let mut network = Network::ready()?;
    let text = std::fs::read_to_string(network.dir().join("genesis.toml"));
    let genesis = text
        .map_err(|e| e.to_string())
        .and_then(|text| Genesis::from_toml(&text).map_err(|error| error.to_string()))?;
    let ids: Vec<String> = genesis
        .masternodes
        .iter()
        .map(|m| m.id().to_string())
        .collect();
    let before = network.sync_us()?;
    let mut flow = network.bench();
    flow.args(["--keep", "--timeout", "5", "--rate", &FLOW_RATE.to_string()]);
    flow.args(["--duration", &(KILL_S * sizes.kills + 30).to_string()]);
    let flow = Owned(
        flow.stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?,
    );
    let watch = Watch::default();
    let clients: Vec<Client> = network.nodes.iter().map(Client::another).collect();
    let gaps = std::thread::scope(|scope| {
        let _over = Over(&watch.over);
        for client in clients {
            let watch = &watch;
            scope.spawn(move || watch.follow(client));
        }
        let gaps: Result<Vec<u64>, String> = (0..sizes.kills)
            .map(|_| kill_leader(&mut network, &watch, &ids))
            .collect();
        gaps
    })?;
    drop(flow);
    let over_second = gaps.iter().filter(|gap| **gap > 1_000_000).count();
    let each: Vec<String> = gaps.iter().map(|gap| ms(*gap)).collect();
    Ok(Report {
        rows: vec![
            ("longest gap", spread(gaps)),
            ("longer than 1 s", over_second.to_string()),
            ("each", each.join(", ")),
        ],
        sync_us: [before, network.sync_us()?],
    })
}

/// Waits until payments flow through a whole network, kills its leader, and starts it again: the longest gap meanwhile, us.
fn kill_leader(network: &mut Network, watch: &Watch, ids: &[String]) -> Result<u64, String> {
    network.await_connected()?;
    // Blocks in quick succession: slots alone are seconds apart.
    await_some("payments flow", || {
        let seen = watch.seen();
        let mut latest: Vec<Instant> = seen.values().copied().collect();
        latest.sort_unstable();
        let tenth = latest.len().checked_sub(10)?;
        (latest[tenth].elapsed() < Duration::from_secs(2)).then_some(())
    })?;
    let pids = network.pids()?;
    let info = network.nodes[0]
        .call("getconsensusinfo", json!([]))
        .map_err(|e| e.to_string())?;
    let leader = ids.iter().position(|id| info["proposer"] == **id);
    let leader = leader.ok_or_else(|| format!("nobody leads: {info}"))?;
    let pid = rustix::process::Pid::from_raw(pids[leader]).ok_or("no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|e| e.to_string())?;
    let killed = Instant::now();
    pause(AWAY);
    let back = Instant::now();
    let gap = await_some("blocks are decided without the leader", || {
        watch.longest_gap(killed, back)
    })?;
    network.act(&["start", &leader.to_string()])?;
    Ok(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX))
}
