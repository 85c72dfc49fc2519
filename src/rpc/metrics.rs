//! Prometheus metrics, prefix `timecoin_`, base units, bounded label values, no peer addresses.
//!
//! Two kinds: families that threads update as things happen (plain atomics behind shared handles), and figures read from
//! the node when somebody asks. Labels are static words, so nobody outside can make a new one.

use crate::rpc::node::{Node, NodeView, Vitals};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Content type of the answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label with its value.
pub type Label = (&'static str, &'static str);
/// Counters with one label.
pub type Counters1 = Family<[Label; 1], Counter>;
/// Counters with two labels.
pub type Counters2 = Family<[Label; 2], Counter>;
/// Times in seconds with one label.
pub type Times1 = Family<[Label; 1], Histogram>;

/// Seconds from 0.1 ms to about 52 s, doubling.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 20))
}

/// Families that threads update. Handles are shared; every field may be cloned into the thread that uses it.
#[derive(Debug)]
pub struct Metrics {
    /// Time from first seen here to decided, seconds.
    pub finality: Histogram,
    /// Time between the stamps of a block and its parent, seconds.
    pub block_interval: Histogram,
    /// Blocks decided while this process ran.
    pub blocks_decided: Counter,
    /// Transactions in them.
    pub transactions_decided: Counter,
    /// Duration of a round, seconds.
    pub round_duration: Histogram,
    /// Duration of a step (`step`), seconds.
    pub step_duration: Times1,
    /// Timeouts that fired (`step`).
    pub timeouts: Counters1,
    /// Rounds beyond the first of a height.
    pub round_changes: Counter,
    /// Votes (`step`, `result`: counted, duplicate, late, stranger, bad-signature, equivocation).
    pub votes: Counters2,
    /// Pairs of messages that no honest key signs both.
    pub equivocations: Counter,
    /// Messages that the signer store refused or could not make durable (`reason`).
    pub signer_refusals: Counters1,
    /// Transactions taken into the mempool.
    pub mempool_accepted: Counter,
    /// Transactions refused (`reason`).
    pub mempool_rejected: Counters1,
    /// Frames (`type`, `direction`: in, out).
    pub frames: Counters2,
    /// Their bytes.
    pub frame_bytes: Counters2,
    /// Times a limit paused or dropped something (`class`).
    pub rate_limited: Counters1,
    /// Peers banned.
    pub bans: Counter,
    /// Peers connected and disconnected (`event`).
    pub peer_events: Counters1,
    /// RPC calls (`method`, `code`: 0 or the error's).
    pub rpc_calls: Counters2,
    /// Time of RPC calls without waits (`method`), seconds.
    pub rpc_duration: Times1,
    /// HTTP answers (`status`).
    pub http_answers: Counters1,
    /// Ledger transactions committed, seconds.
    pub ledger_commit: Histogram,
    /// Signer records made durable, seconds.
    pub signer_commit: Histogram,
    /// Signature checks (`result`: good, bad).
    pub signature_checks: Counters1,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All families, registered, at zero.
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            finality: times(),
            block_interval: times(),
            blocks_decided: Counter::default(),
            transactions_decided: Counter::default(),
            round_duration: times(),
            step_duration: Family::new_with_constructor(times),
            timeouts: Family::default(),
            round_changes: Counter::default(),
            votes: Family::default(),
            equivocations: Counter::default(),
            signer_refusals: Family::default(),
            mempool_accepted: Counter::default(),
            mempool_rejected: Family::default(),
            frames: Family::default(),
            frame_bytes: Family::default(),
            rate_limited: Family::default(),
            bans: Counter::default(),
            peer_events: Family::default(),
            rpc_calls: Family::default(),
            rpc_duration: Family::new_with_constructor(times),
            http_answers: Family::default(),
            ledger_commit: times(),
            signer_commit: times(),
            signature_checks: Family::default(),
            registry: Registry::with_prefix("timecoin"),
        };
        metrics.register_times();
        metrics.register_counters();
        metrics
    }

    fn register_times(&mut self) {
        let r = &mut self.registry;
        let mut time = |name: &str, help: &str, metric: &Histogram| {
            r.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        time(
            "finality",
            "From first seen here to decided",
            &self.finality,
        );
        time(
            "block_interval",
            "Between the times of a block and its parent",
            &self.block_interval,
        );
        time(
            "round_duration",
            "Duration of a consensus round",
            &self.round_duration,
        );
        time(
            "ledger_commit",
            "One ledger transaction, synced",
            &self.ledger_commit,
        );
        time(
            "signer_commit",
            "One batch of signer records, synced",
            &self.signer_commit,
        );
        let mut family = |name: &str, help: &str, metric: &Times1| {
            r.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        family(
            "step_duration",
            "Duration of a consensus step",
            &self.step_duration,
        );
        family(
            "rpc_duration",
            "Work of an RPC call, waits left out",
            &self.rpc_duration,
        );
    }

    fn register_counters(&mut self) {
        let r = &mut self.registry;
        let mut plain = |name: &str, help: &str, metric: &Counter| {
            r.register(name, help, metric.clone());
        };
        plain("blocks_decided", "Blocks decided", &self.blocks_decided);
        plain(
            "transactions_decided",
            "Transactions in decided blocks",
            &self.transactions_decided,
        );
        plain(
            "round_changes",
            "Rounds beyond the first of a height",
            &self.round_changes,
        );
        plain(
            "equivocations",
            "Pairs of conflicting signed messages",
            &self.equivocations,
        );
        plain(
            "mempool_accepted",
            "Transactions taken",
            &self.mempool_accepted,
        );
        plain("bans", "Peers banned", &self.bans);
        let mut one = |name: &str, help: &str, metric: &Counters1| {
            r.register(name, help, metric.clone());
        };
        one("timeouts", "Consensus timeouts that fired", &self.timeouts);
        one(
            "signer_refusals",
            "Messages not signed",
            &self.signer_refusals,
        );
        one(
            "mempool_rejected",
            "Transactions refused",
            &self.mempool_rejected,
        );
        one(
            "rate_limited",
            "Times a limit held something back",
            &self.rate_limited,
        );
        one("peer_events", "Peers that came and went", &self.peer_events);
        one("http_answers", "HTTP answers by status", &self.http_answers);
        one(
            "signature_checks",
            "Signatures verified",
            &self.signature_checks,
        );
        let mut two = |name: &str, help: &str, metric: &Counters2| {
            r.register(name, help, metric.clone());
        };
        two("votes", "Votes received or made", &self.votes);
        two("frames", "Frames by type and direction", &self.frames);
        two(
            "frame_bytes",
            "Bytes of frames by type and direction",
            &self.frame_bytes,
        );
        two(
            "rpc_calls",
            "RPC calls by method and error code",
            &self.rpc_calls,
        );
    }

    /// The whole text of `/metrics`.
    pub fn render(&self, node: &dyn Node, waiting_calls: usize) -> String {
        let mut now = Registry::with_prefix("timecoin");
        gauge(
            &mut now,
            "uptime_seconds",
            "Time since the process started",
            node.uptime().as_secs(),
        );
        gauge(
            &mut now,
            "rpc_waiting_calls",
            "RPC calls that wait for the chain",
            waiting_calls as u64,
        );
        chain_figures(&mut now, &node.view());
        vital_figures(&mut now, &node.vitals(), node.now().mono.0);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        let _ = encode_registry(&mut text, &now);
        let _ = encode_eof(&mut text);
        text
    }
}

fn gauge(r: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Gauge::<u64, AtomicU64>::default();
    metric.set(value);
    r.register(name, help, metric);
}

fn seconds(r: &mut Registry, name: &str, help: &str, value: f64) {
    let metric = Gauge::<f64, AtomicU64>::default();
    metric.set(value);
    r.register_with_unit(name, help, Unit::Seconds, metric);
}

/// A family of gauges; equal labels add up.
fn gauges<const N: usize>(
    r: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([Label; N], u64)>,
) {
    let family = Family::<[Label; N], Gauge<u64, AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    r.register(name, help, family);
}

/// A family of counters whose values are kept elsewhere.
fn counters<const N: usize>(
    r: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([Label; N], u64)>,
) {
    let family = Family::<[Label; N], Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    r.register(name, help, family);
}

/// Bronze, Silver or Gold by power (M1: labels).
pub fn tier(power_time: u64) -> &'static str {
    match power_time {
        100_000.. => "gold",
        10_000.. => "silver",
        _ => "bronze",
    }
}

fn chain_figures(r: &mut Registry, view: &NodeView) {
    let (c, m) = (&view.consensus, &view.mempool);
    let contested = view.contested.map_or(0, |from| from.0);
    let whole: [(&str, &str, u64); 16] = [
        (
            "fork_contested_height",
            "Lowest height an open fork may take back; 0 if none",
            contested,
        ),
        ("chain_height", "Newest decided height", view.tip.height.0),
        ("chain_durable_height", "Durable height", view.durable.0),
        ("chain_slot_index", "Slot blocks so far", view.slot_index.0),
        ("coins", "Unspent outputs", view.supply.coin_count),
        ("consensus_height", "Height being decided", c.height.0),
        ("consensus_round", "Round in it", u64::from(c.at.round.0)),
        ("consensus_quorum_power", "Power that decides", c.quorum.0),
        ("consensus_total_power", "Power of the set", c.total.0),
        (
            "consensus_connected_power",
            "Connected, own too",
            c.connected.0,
        ),
        (
            "mempool_transactions",
            "Transactions waiting",
            m.count as u64,
        ),
        ("mempool_bytes", "Their encoded size", m.size as u64),
        ("mempool_orphans", "Without parent", m.orphan_count as u64),
        (
            "sync_active",
            "1 while fetching",
            u64::from(view.sync.active),
        ),
        ("sync_target_height", "Highest of peers", view.sync.target.0),
        ("alarms", "Alarms in force", view.warnings.len() as u64),
    ];
    for (name, help, value) in whole {
        gauge(r, name, help, value);
    }
    let time = view.tip.time.0 as f64 / 1e3;
    seconds(r, "chain_tip_time", "Time of the newest block", time);
    if let Some(ms) = view.clock.offset_ms {
        let help = "Median of the peers' clocks minus ours";
        seconds(r, "clock_offset", help, ms as f64 / 1e3);
    }
    let inbound = |yes| view.peers.iter().filter(|p| p.inbound == yes).count() as u64;
    let directions = [("in", inbound(true)), ("out", inbound(false))];
    let peers = directions.map(|(name, count)| ([("direction", name)], count));
    gauges(r, "peers", "Connected peers", peers);
    let entries = view.masternodes.iter().map(|m| {
        let tier = tier(m.entry.collateral.value.whole_time());
        ([("tier", tier), ("status", m.status)], 1)
    });
    gauges(r, "masternodes", "Registry entries", entries);
}

fn vital_figures(r: &mut Registry, vitals: &Vitals, mono_us: u64) {
    if let Some((free, total)) = vitals.disk {
        gauge(
            r,
            "disk_free_bytes",
            "Free space of the ledger's disk",
            free,
        );
        gauge(r, "disk_total_bytes", "Size of that disk", total);
    }
    if let Some((used, most)) = vitals.ledger_size {
        gauge(r, "ledger_bytes", "Used part of the ledger file", used);
        gauge(r, "ledger_map_bytes", "Bound of the ledger file", most);
    }
    let queue = |f: fn(&crate::rpc::node::QueueView) -> u64| {
        let rows = vitals.queues.iter();
        rows.map(move |q| ([("queue", q.name)], f(q)))
    };
    gauges(
        r,
        "queue_depth",
        "Entries of a queue",
        queue(|q| q.depth as u64),
    );
    gauges(
        r,
        "queue_capacity",
        "Bound of a queue",
        queue(|q| q.capacity as u64),
    );
    counters(
        r,
        "queue_drops",
        "Entries dropped by a full queue",
        queue(|q| q.dropped),
    );
    let times = Family::<[Label; 2], Counter<f64, AtomicU64>>::default();
    let silent = Family::<[Label; 1], Gauge<f64, AtomicU64>>::default();
    for t in &vitals.threads {
        let regimes = [
            ("work", t.work_ns),
            ("idle", t.idle_ns),
            ("backpressure", t.backpressure_ns),
        ];
        for (regime, ns) in regimes {
            let labels = [("thread", t.name), ("regime", regime)];
            times.get_or_create(&labels).inc_by(ns as f64 / 1e9);
        }
        let us = mono_us.saturating_sub(t.last_beat.0);
        silent
            .get_or_create(&[("thread", t.name)])
            .set(us as f64 / 1e6);
    }
    let help = "Time of a thread by regime";
    r.register_with_unit("thread_time", help, Unit::Seconds, times);
    let help = "Since a thread's last sign of life";
    r.register_with_unit("thread_silent", help, Unit::Seconds, silent);
    // Threads of one name share their cores.
    let mut widest = std::collections::BTreeMap::new();
    for t in &vitals.threads {
        let most = widest.entry(t.name).or_insert(0);
        *most = t.cores.len().max(*most);
    }
    let cores = widest.into_iter();
    let cores = cores.map(|(name, count)| ([("thread", name)], count as u64));
    gauges(r, "thread_cores", "Cores a thread may run on", cores);
    let lines = vitals.log_lines.iter();
    let lines = lines.map(|(level, count)| ([("level", *level)], *count));
    counters(r, "log_lines", "Log lines by level", lines);
}
