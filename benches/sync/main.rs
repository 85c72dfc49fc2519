//! How fast a node that was away comes back: three masternodes with a long chain, and a fourth that starts with nothing,
//! all of them real processes on this machine, while the three go on deciding blocks.
//!
//! `cargo bench --bench sync -- blocks=20000 payments=1 coins=1000 verify=certified snapshot=true`. Figures are printed,
//! never judged.

#[path = "../../tests/chain/mod.rs"]
mod chain;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chain::process::{Node, start, timed, wait_within};

/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Port of the first node.
const BASE_PORT: u16 = 23_000;

struct Sizes {
    blocks: u64,
    payments: u64,
    coins: u64,
    sources: u64,
    verify: String,
    snapshot: String,
}

fn await_some<T>(what: &str, state: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, state)
}

/// Time that a process has been on a core, s, and the most memory it has had since it began or began again, MiB.
fn cost(pid: u32) -> (f64, u64) {
    // Dead threads count too: of fields 14 and 15, after the name in brackets; hundredths of a second.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields = after.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.and_then(|kib| kib.parse::<u64>().ok());
    (ticks as f64 / 100.0, kib.unwrap_or_default() / 1_024)
}

/// Bytes of files below a directory as the disk counts them, MB.
fn disk_mb(dir: &Path) -> f64 {
    fn blocks(dir: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let of = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(found) if found.is_dir() => blocks(&entry.path()),
            Ok(found) => found.blocks(),
            Err(_) => 0,
        };
        entries.map(of).sum()
    }
    blocks(dir) as f64 * 512.0 / 1e6
}

/// Bytes that a node has sent in frames of snapshots, MB.
fn served_mb(node: &mut Node) -> f64 {
    let text = node.client.get("/metrics").map(|answer| answer.body);
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let lines = text.lines().filter(|line| {
        let frame = line.contains("\"Chunk\"") || line.contains("\"SnapshotInfo\"");
        line.contains("frame_bytes") && frame && line.contains("\"out\"")
    });
    let count = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    count.sum::<f64>() / 1e6
}

/// Lets each source make a snapshot.
fn make_snapshots(sources: &[PathBuf]) {
    for dir in sources {
        let begin = Instant::now();
        let output = timed(dir).args(["snapshot", "create"]).output();
        let output = output.expect("timed starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!(
            "a snapshot made in {:.1} s, {:.1} MB: {}",
            begin.elapsed().as_secs_f64(),
            disk_mb(&dir.join("snapshots")),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
}

fn scratch() -> PathBuf {
    let root = std::env::var_os("TIMECOIN_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = root.join(format!("sync-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn run(sizes: &Sizes) {
    let dir = scratch();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.expect("a clock").as_millis() as u64;
    let begin = Instant::now();
    let wanted = chain::Wanted {
        blocks: sizes.blocks,
        payments: sizes.payments as usize,
        coins: sizes.coins,
        nodes: 4,
        base_port: BASE_PORT,
        spacing_ms: 20,
        trusting_period: 0,
        slashed: false,
    };
    let sources = sizes.sources as usize;
    let made = chain::make(&dir.join("net"), &wanted, sources.max(1), now_ms);
    println!(
        "chain: {} blocks, {} payments, {} coins, made in {:.1} s",
        made.height,
        made.payments,
        made.coins,
        begin.elapsed().as_secs_f64()
    );
    let snapshot = sizes.snapshot == "true";
    if snapshot {
        make_snapshots(&made.nodes[..sources.max(1)]);
    }
    let mut nodes: Vec<Node> = made.nodes[..sources.max(1)]
        .iter()
        .map(|dir| start(dir, &[]))
        .collect();
    for node in &mut nodes {
        await_some("the sources answer", || node.height());
    }
    let settings = [
        ("TIMED_SYNC__VERIFY", sizes.verify.as_str()),
        ("TIMED_SYNC__SNAPSHOT", sizes.snapshot.as_str()),
    ];
    let settings: Vec<_> = settings
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .collect();
    let before: Vec<f64> = nodes.iter().map(|node| cost(node.pid()).0).collect();
    let begin = Instant::now();
    let mut fresh = start(&made.nodes[3], &settings);
    let (mut told, mut memory) = (Instant::now(), 0);
    await_some("it has caught up", || {
        memory = cost(fresh.pid()).1.max(memory);
        let at = fresh.height()?;
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            let info = fresh
                .client
                .call("getsyncinfo", json!([]))
                .unwrap_or(Value::Null);
            println!(
                "  {:6.1} s height {at} {info}",
                begin.elapsed().as_secs_f64()
            );
        }
        (at >= made.height).then_some(())
    });
    let took = begin.elapsed().as_secs_f64();
    let spent = cost(fresh.pid()).0;
    println!(
        "caught up in {took:.2} s: {:.0} blocks/s, {:.0} transactions/s; {spent:.1} s on cores, {memory} MiB at most",
        made.height as f64 / took,
        made.payments as f64 / took
    );
    for (node, before) in nodes.iter_mut().zip(before) {
        let at = node.height();
        println!(
            "a source: height {at:?}, {:.1} s on cores meanwhile",
            cost(node.pid()).0 - before
        );
    }
    if snapshot {
        let served: Vec<f64> = nodes.iter_mut().map(served_mb).collect();
        println!(
            "the snapshot came over the network: {:.1} MB in all, {served:.1?} MB of each source",
            served.iter().sum::<f64>()
        );
    }
    println!(
        "on the disk of the new node: {:.1} MB, its ledger {:.1} MB; of a source: {:.1} MB",
        disk_mb(&made.nodes[3]),
        disk_mb(&made.nodes[3].join("lmdb")),
        disk_mb(&made.nodes[0].join("lmdb"))
    );
    drop((fresh, nodes));
    let _ = std::fs::remove_dir_all(&dir);
}

fn main() -> ExitCode {
    let mut sizes = Sizes {
        blocks: 20_000,
        payments: 1,
        coins: 0,
        sources: 3,
        verify: String::new(),
        snapshot: String::new(),
    };
    for argument in std::env::args().skip(1).filter(|a| !a.starts_with("--")) {
        let Some((name, value)) = argument.split_once('=') else {
            eprintln!("sync: '{argument}' is no NAME=VALUE");
            return ExitCode::from(64);
        };
        let number = value.parse::<u64>();
        match (name, number) {
            ("blocks", Ok(n)) => sizes.blocks = n,
            ("payments", Ok(n)) => sizes.payments = n,
            ("coins", Ok(n)) => sizes.coins = n,
            ("sources", Ok(n)) => sizes.sources = n,
            ("verify", _) => sizes.verify = value.into(),
            ("snapshot", _) => sizes.snapshot = value.into(),
            _ => {
                eprintln!(
                    "sync: '{name}' is none of blocks, payments, coins, sources, verify, snapshot"
                );
                return ExitCode::from(64);
            }
        }
    }
    if std::env::args().any(|argument| argument == "--test") {
        sizes.blocks = 200;
    }
    run(&sizes);
    ExitCode::SUCCESS
}
