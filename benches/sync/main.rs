//! How fast a node that was away comes back: three masternodes with a long chain, and a fourth that starts with nothing,
//! all of them real processes on this machine, while the three go on deciding blocks.
//!
//! `cargo bench --bench sync -- blocks=20000 payments=1 coins=1000 verify=certified snapshot=true`. Figures are printed,
//! never judged.

#[path = "../../tests/chain/mod.rs"]
mod chain;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use timecoin::node::client::{Client, Credentials};

/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
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

/// A process that ends with the bench.
struct Node {
    child: Child,
    client: Client,
    pid: u32,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(dir: &Path, settings: &[(&str, &str)]) -> Node {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    command.arg("--config").arg(dir.join("timed.toml"));
    for (name, value) in settings {
        command.env(name, value);
    }
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let child = command.spawn().expect("timed starts");
    let text = std::fs::read_to_string(dir.join("timed.toml")).expect("a configuration");
    let line = text.lines().skip_while(|line| *line != "[rpc]");
    let line = line.skip(1).find(|line| line.starts_with("bind"));
    let address = line
        .and_then(|line| line.split('"').nth(1))
        .expect("an address");
    let url = format!("http://{address}/").parse().expect("a URL");
    let mut client = Client::new(url, Credentials::File(dir.join(".cookie")));
    client.set_timeout(Duration::from_secs(10));
    let pid = child.id();
    Node { child, client, pid }
}

fn await_some<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not so after {PATIENCE:?}");
        std::thread::park_timeout(LOOK);
    }
}

fn height(node: &mut Node) -> Option<u64> {
    node.client.call("getblockcount", json!([])).ok()?.as_u64()
}

/// Time that the threads of a process have been on a core, s, and its anonymous memory, MiB.
fn cost(pid: u32) -> (f64, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let spent = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let ns: u64 = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(spent)
        .sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.and_then(|kib| kib.parse::<u64>().ok());
    (ns as f64 / 1e9, kib.unwrap_or_default() / 1_024)
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
    let mut nodes: Vec<Node> = made.nodes[..sources.max(1)]
        .iter()
        .map(|dir| start(dir, &[]))
        .collect();
    for node in &mut nodes {
        await_some("the sources answer", || height(node));
    }
    let settings = [
        ("TIMED_SYNC__VERIFY", sizes.verify.as_str()),
        ("TIMED_SYNC__SNAPSHOT", sizes.snapshot.as_str()),
    ];
    let settings: Vec<_> = settings
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .collect();
    let before: Vec<f64> = nodes.iter().map(|node| cost(node.pid).0).collect();
    let begin = Instant::now();
    let mut fresh = start(&made.nodes[3], &settings);
    let mut told = Instant::now();
    await_some("it has caught up", || {
        let at = height(&mut fresh)?;
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
    let (spent, memory) = cost(fresh.pid);
    println!(
        "caught up in {took:.2} s: {:.0} blocks/s, {:.0} transactions/s; {spent:.1} s on cores, {memory} MiB at most",
        made.height as f64 / took,
        made.payments as f64 / took
    );
    for (node, before) in nodes.iter_mut().zip(before) {
        let at = height(node);
        println!(
            "a source: height {at:?}, {:.1} s on cores meanwhile",
            cost(node.pid).0 - before
        );
    }
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
