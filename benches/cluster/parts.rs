//! The parts in which nothing fails: starting, one payment at a time, nothing at all, a constant rate.

use crate::network::{Network, answer, await_some, micros, pause};
use crate::{Report, Sizes, ms, spread};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long one payment may take to become final, s.
const FINALITY_S: u64 = 30;

/// New networks one after another, each until its first payment is final.
pub fn start(sizes: &Sizes) -> Result<Report, String> {
    let mut times = Vec::new();
    let mut sync_us = [0; 2];
    for i in 0..sizes.starts {
        let begin = Instant::now();
        let mut network = Network::start()?;
        let node = &mut network.nodes[0];
        let address = await_some("the wallet answers", || {
            node.call("getnewaddress", json!([])).ok()
        })?;
        let txid = await_some("the faucet pays", || {
            node.call("sendtoaddress", json!([address, "1.5"])).ok()
        })?;
        let wait = json!([txid, FINALITY_S]);
        let limit = Duration::from_secs(FINALITY_S + 5);
        let state = node.call_within("waittransactionfinality", wait, limit);
        let state = state.map_err(|error| error.to_string())?;
        times.push(micros(begin));
        if state["final"] != true {
            return Err(format!("not final: {state}"));
        }
        sync_us[usize::from(i > 0)] = network.sync_us()?;
    }
    Ok(Report {
        rows: vec![("first payment final", spread(times))],
        sync_us,
    })
}

pub fn percentiles(report: &Value, name: &str) -> String {
    let part = |p: &str| format!("{p} {}", ms(report[name][p].as_u64().unwrap_or_default()));
    ["p50", "p99", "max"].map(part).join("  ")
}

fn counts(report: &Value) -> String {
    let mut text = format!("{} final, {} failed", report["final"], report["failed"]);
    if report["failures"]
        .as_object()
        .is_some_and(|failures| !failures.is_empty())
    {
        text += &format!(": {}", report["failures"]);
    }
    text
}

/// One payment at a time, as `time-cli bench --latency` measures it.
pub fn latency(sizes: &Sizes) -> Result<Report, String> {
    let network = Network::ready()?;
    let before = network.sync_us()?;
    let mut bench = network.bench();
    bench.args(["--latency", &sizes.payments.to_string()]);
    let report = answer(bench)?;
    let after = network.sync_us()?;
    let d = before.midpoint(after);
    let bound = format!("p50 {}  p99 {}", ms(10_000 + 10 * d), ms(50_000 + 20 * d));
    Ok(Report {
        rows: vec![
            ("payments", counts(&report)),
            ("sent to final", percentiles(&report, "finality_us")),
            ("10 ms+10 d, 50 ms+20 d", bound),
        ],
        sync_us: [before, after],
    })
}

/// Time that all threads of a process have been on a core, ns.
fn on_core_ns(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let spent = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(spent)
        .sum()
}

pub fn anonymous_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// Nothing but slot blocks.
pub fn idle(sizes: &Sizes) -> Result<Report, String> {
    let network = Network::ready()?;
    let before = network.sync_us()?;
    let pids = network.pids()?;
    // What starting left to do is over.
    pause(Duration::from_secs(sizes.idle.min(5)));
    let spent: Vec<u64> = pids.iter().map(|pid| on_core_ns(*pid)).collect();
    let begin = Instant::now();
    pause(Duration::from_secs(sizes.idle));
    let elapsed = begin.elapsed().as_nanos() as f64;
    let share = |(pid, before): (&i32, &u64)| {
        let spent = on_core_ns(*pid).saturating_sub(*before);
        format!("{:.2} %", spent as f64 * 100.0 / elapsed)
    };
    let shares: Vec<String> = pids.iter().zip(&spent).map(share).collect();
    let memory = |pid: &i32| format!("{:.1} MiB", anonymous_kib(*pid) as f64 / 1_024.0);
    let memory: Vec<String> = pids.iter().map(memory).collect();
    Ok(Report {
        rows: vec![
            ("of a core, each node", shares.join("  ")),
            ("RssAnon, each node", memory.join("  ")),
        ],
        sync_us: [before, network.sync_us()?],
    })
}

/// A constant rate; afterwards all nodes have one tip and one state root.
pub fn load(sizes: &Sizes) -> Result<Report, String> {
    let mut network = Network::ready()?;
    let before = network.sync_us()?;
    let mut bench = network.bench();
    bench.args(["--rate", &sizes.rate.to_string()]);
    bench.args(["--duration", &sizes.seconds.to_string()]);
    let report = answer(bench)?;
    let after = network.sync_us()?;
    let tip = await_some("all nodes have one tip and one state root", || {
        let tip = |state: Value| {
            [&state["height"], &state["bestblock"], &state["stateroot"]].map(Value::clone)
        };
        let mut tips = Vec::new();
        for node in &mut network.nodes {
            tips.push(tip(node.call("getutxostate", json!([])).ok()?));
        }
        tips.dedup();
        (tips.len() == 1).then(|| tips.pop())?
    })?;
    Ok(Report {
        rows: vec![
            ("payments", counts(&report)),
            (
                "per second",
                format!(
                    "{} offered, {} final",
                    report["rate_offered"], report["rate_final"]
                ),
            ),
            ("due to final", percentiles(&report, "finality_us")),
            ("due to accepted", percentiles(&report, "accepted_us")),
            (
                "sent late by at most",
                ms(report["late_us_max"].as_u64().unwrap_or_default()),
            ),
            (
                "equal on all nodes",
                format!("height {}, state root {}", tip[0], tip[2]),
            ),
        ],
        sync_us: [before, after],
    })
}
