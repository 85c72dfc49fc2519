//! `time-cli bench`: how fast payments become final.
//!
//! Job: prepare coins, sign, send, measure, report. Inputs: options, nodes. Outputs: a table or JSON with every figure measured, and the sync
//! time of the disk beside it. Never: measures its own preparation.

mod coins;
mod disk;
mod load;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::args::{Bench, TimeCli};
use super::connect;
use super::output::{CliError, Output, pairs};
use crate::node::client::Client;
use crate::node::exit::Exit;
use coins::{Coin, Payment, Purse};
use load::{Measured, Plan};

/// Connections that send, for each node, unless told otherwise.
const SENDERS: u32 = 8;
/// Connections that wait, for each sending one.
const WAITERS_PER_SENDER: u32 = 4;

/// Runs the benchmark.
pub(super) fn run(
    given: &TimeCli,
    options: &Bench,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    check(options)?;
    let nodes = match &options.dir {
        Some(dir) => connect::clients_of_network(Path::new(dir))?,
        None => connect::clients(given)?,
    };
    let usage = |text: &str| CliError::new(Exit::Usage, text);
    let mut wallet = nodes
        .first()
        .ok_or_else(|| usage("no node was named"))?
        .another();
    if given.rpcwait {
        connect::await_node(&mut wallet, given.rpcwaittimeout.map(Duration::from_secs))?;
    }
    let disk = disk_of(given, options);
    let before = disk.as_deref().and_then(sync_time);
    let purse = Purse::new(&mut wallet, options.outputs as usize)?;
    let count = match options.latency {
        Some(count) => count as usize,
        None => options.rate as usize * options.duration as usize,
    };
    eprintln!("time-cli: making {count} coins and signing {count} payments");
    let prepared = Instant::now();
    let coins = purse.prepare(&mut wallet, count)?;
    for node in &nodes {
        purse.await_coins(&mut node.another(), &coins)?;
    }
    let payments = purse.sign_payments(&coins)?;
    eprintln!(
        "time-cli: ready after {:.1} s, sending",
        prepared.elapsed().as_secs_f64()
    );
    let timeout = Duration::from_secs(options.timeout.max(1));
    let measured = match options.latency {
        Some(_) => {
            let rest = Duration::from_millis(options.pause);
            load::one_by_one(&nodes, &payments, rest, timeout)
        }
        None => {
            let senders = options.connections.unwrap_or(SENDERS);
            let plan = Plan {
                rate: options.rate,
                senders: senders as usize,
                waiters: (senders * WAITERS_PER_SENDER) as usize,
                timeout,
            };
            load::open_loop(&nodes, &payments, &plan)
        }
    };
    let after = disk.as_deref().and_then(sync_time);
    let report = report(options, &nodes, &purse, &measured, [before, after]);
    output.either(&report, || people(&report));
    if !options.keep {
        give_back(&purse, &mut wallet, &coins, &payments, &measured);
    }
    match measured.failed() {
        0 => Ok(()),
        failed => Err(CliError::new(
            Exit::Failure,
            format!("{failed} payments failed"),
        )),
    }
}

fn check(options: &Bench) -> Result<(), CliError> {
    let range = |name: &str, value: u32, most: u32| {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(CliError::new(
            Exit::Usage,
            format!("--{name} {value} is out of range; give 1 to {most}"),
        ))
    };
    range("rate", options.rate, 100_000)?;
    range("duration", options.duration, 3_600)?;
    range("outputs", options.outputs, 100)?;
    range("latency", options.latency.unwrap_or(1), 1_000_000)?;
    range("connections", options.connections.unwrap_or(1), 256)
}

fn give_back(
    purse: &Purse,
    wallet: &mut Client,
    coins: &[Coin],
    payments: &[Payment],
    measured: &Measured,
) {
    let mut left: Vec<Coin> = Vec::new();
    let mut finished = measured.finished.clone();
    finished.sort_unstable();
    for number in &finished {
        left.extend(payments[*number].coins.iter().copied());
    }
    // What failed may become final all the same; its coin is given back only if it was surely never spent.
    let unsure = coins.len() - finished.len();
    match purse.give_back(wallet, &left) {
        Ok(count) => eprintln!(
            "time-cli: gave {} coins back in {count} transactions{}",
            left.len(),
            if unsure > 0 {
                format!("; {unsure} coins of failed payments stay behind")
            } else {
                String::new()
            }
        ),
        Err(error) => eprintln!("time-cli: the money could not be given back: {error}"),
    }
}

fn disk_of(given: &TimeCli, options: &Bench) -> Option<PathBuf> {
    if let Some(dir) = options.disk.as_ref().or(options.dir.as_ref()) {
        return Some(PathBuf::from(dir));
    }
    let local = given.rpc_url.is_empty() || given.datadir.is_some();
    connect::config(given)
        .ok()
        .filter(|_| local)
        .map(|config| config.node.datadir)
}

fn sync_time(dir: &Path) -> Option<Duration> {
    match disk::median_sync(dir) {
        Ok(time) => Some(time),
        Err(error) => {
            eprintln!(
                "time-cli: the disk of {} was not measured: {error}",
                dir.display()
            );
            None
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({
        "p50": histogram.value_at_quantile(0.5),
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
    })
}

fn report(
    options: &Bench,
    nodes: &[Client],
    purse: &Purse,
    measured: &Measured,
    sync: [Option<Duration>; 2],
) -> Value {
    let done = measured.finished.len();
    let elapsed = measured.elapsed.as_secs_f64();
    let rate = if elapsed > 0.0 {
        done as f64 / elapsed
    } else {
        0.0
    };
    let [before, after] = sync.map(|time| time.map(micros));
    json!({
        "mode": if options.latency.is_some() { "latency" } else { "load" },
        "nodes": nodes.iter().map(|node| node.url().to_string()).collect::<Vec<_>>(),
        "payment_bytes": purse.payment_size(),
        "rate_offered": options.latency.is_none().then_some(options.rate),
        "rate_final": (rate * 10.0).round() / 10.0,
        "elapsed_ms": micros(measured.elapsed) / 1_000,
        "final": done,
        "failed": measured.failed(),
        "failures": measured.failures,
        "finality_us": percentiles(&measured.finality),
        "accepted_us": percentiles(&measured.accepted),
        "late_us_max": options.latency.is_none().then_some(measured.late_us_max),
        "fdatasync_us": {"before": before, "after": after},
    })
}

fn ms(value: &Value) -> String {
    match value.as_u64() {
        Some(us) => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        None => "-".to_owned(),
    }
}

fn people(report: &Value) -> String {
    let spread = |name: &str| {
        let part = |p: &str| format!("{p} {}", ms(&report[name][p]));
        ["p50", "p90", "p99", "p999", "max"].map(part).join("  ")
    };
    let nodes = report["nodes"].as_array().map_or(0, Vec::len);
    let mut rows = vec![
        (
            "payments",
            format!(
                "{} final, {} failed, {} bytes each, to {nodes} nodes",
                report["final"], report["failed"], report["payment_bytes"]
            ),
        ),
        (
            "rate",
            match report["rate_offered"].as_u64() {
                Some(offered) => format!(
                    "{offered} per second offered, {} per second final",
                    report["rate_final"]
                ),
                None => "one payment at a time".to_owned(),
            },
        ),
        ("due to final", spread("finality_us")),
        ("due to accepted", spread("accepted_us")),
        (
            "fdatasync",
            format!(
                "median {} before, {} after",
                ms(&report["fdatasync_us"]["before"]),
                ms(&report["fdatasync_us"]["after"])
            ),
        ),
    ];
    if report["late_us_max"].is_u64() {
        rows.push((
            "sent late by",
            format!("at most {}", ms(&report["late_us_max"])),
        ));
    }
    if let Some(failures) = report["failures"].as_object().filter(|f| !f.is_empty()) {
        let lines: Vec<String> = failures
            .iter()
            .map(|(text, count)| format!("{count} x {text}"))
            .collect();
        rows.push(("failures", lines.join("\n")));
    }
    pairs(&rows)
}
