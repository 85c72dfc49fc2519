//! Nodes that join a network with a past: by blocks, by a snapshot, and where old blocks are gone. Real processes; the past
//! is built by the ledger itself.

#[path = "chain/mod.rs"]
mod chain;

use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use timecoin::node::client::{Client, Credentials};

/// Generous: a state that has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);
/// Nodes that hold the chain.
const SOURCES: usize = 3;
/// Blocks of a chain of which some can be pruned: more than max_reorg.
const LONG: u64 = 1_150;

struct Node {
    child: Child,
    client: Client,
    dir: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- {}\n{}", self.dir.display(), last.join("\n"));
        }
    }
}

fn timed(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIMED_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command.arg("--config").arg(dir.join("timed.toml"));
    command
}

/// Runs a command of `timed` on a data directory: what it says.
fn run(dir: &Path, arguments: &[&str]) -> Value {
    let output = timed(dir).args(arguments).output().expect("timed starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.parse().unwrap_or(Value::Null)
}

fn start(dir: &Path, settings: &[(&str, &str)]) -> Node {
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    let mut command = timed(dir);
    command.envs(settings.iter().copied());
    let child = command.stdout(Stdio::null()).stderr(log).spawn();
    let text = std::fs::read_to_string(dir.join("timed.toml")).expect("a configuration");
    let mut lines = text.lines().skip_while(|line| *line != "[rpc]");
    let bind = lines.find(|line| line.starts_with("bind")).expect("a bind");
    let address = bind.split('"').nth(1).expect("an address");
    let url = format!("http://{address}/").parse().expect("a URL");
    let mut client = Client::new(url, Credentials::File(dir.join(".cookie")));
    client.set_timeout(Duration::from_secs(20));
    Node {
        child: child.expect("timed starts"),
        client,
        dir: dir.to_path_buf(),
    }
}

impl Node {
    fn ask(&mut self, method: &str) -> Option<Value> {
        self.client.call(method, json!([])).ok()
    }

    fn height(&mut self) -> Option<u64> {
        self.ask("getblockcount")?.as_u64()
    }
}

fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not so after {PATIENCE:?}");
        std::thread::park_timeout(LOOK);
    }
}

struct Past {
    dir: PathBuf,
    made: chain::Made,
}

impl Drop for Past {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port such that it and those above it that four nodes use are free.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // The last port of a place is held, so that no other process takes it.
    static HELD: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    let first = (std::process::id() % 200) as u16;
    for _ in 0..200 {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 200;
        let (base, last) = (12_000 + place * 100, 12_000 + place * 100 + 99);
        let Ok(held) = TcpListener::bind(("127.0.0.1", last)) else {
            continue;
        };
        if (base..last).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            HELD.lock().expect("no test panics here").push(held);
            return base;
        }
    }
    panic!("no free ports");
}

/// A network of four, three of which hold a chain.
fn past(name: &str, blocks: u64) -> Past {
    let name = format!("sync-{name}-{}", std::process::id());
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    let wanted = chain::Wanted {
        blocks,
        payments: 1,
        coins: 2_000,
        nodes: 4,
        base_port: free_ports(),
        spacing_ms: 20,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.expect("a clock").as_millis() as u64;
    let made = chain::make(&dir, &wanted, SOURCES, now_ms);
    assert!(made.payments >= blocks && made.coins >= wanted.coins);
    Past { dir, made }
}

impl Past {
    fn sources(&self, settings: &[(&str, &str)]) -> Vec<Node> {
        let dirs = &self.made.nodes[..SOURCES];
        let mut nodes: Vec<Node> = dirs.iter().map(|dir| start(dir, settings)).collect();
        let made = self.made.height;
        for node in &mut nodes {
            wait_for("the sources go on deciding", || {
                node.height().filter(|height| *height > made)
            });
        }
        nodes
    }

    fn fresh(&self) -> &Path {
        &self.made.nodes[3]
    }
}

fn reaches(node: &mut Node, height: u64) {
    wait_for("it has caught up", || {
        node.height().filter(|at| *at >= height)
    });
}

#[test]
fn a_new_node_catches_up_by_blocks_while_others_decide() {
    let past = past("blocks", 400);
    let mut sources = past.sources(&[]);
    let mut fresh = start(past.fresh(), &[("TIMED_SYNC__VERIFY", "certified")]);
    reaches(&mut fresh, past.made.height);
    let info = wait_for("it is up to date", || {
        let info = fresh.ask("getsyncinfo")?;
        (info["syncing"] == false).then_some(info)
    });
    assert_eq!(info["trust"]["anchored"], true, "{info}");
    assert!(!info["waiting_for"].as_str().unwrap_or_default().is_empty());
    let at = sources[0].height().unwrap_or_default();
    reaches(&mut fresh, at + 1);
    let chain = fresh.ask("getblockchaininfo").unwrap_or_default();
    assert_eq!(chain["pruned"], false);
}

#[test]
fn a_new_node_is_ready_from_a_snapshot_and_goes_on() {
    let past = past("snapshot", 300);
    for dir in &past.made.nodes[..SOURCES] {
        let said = run(dir, &["snapshot", "create"]);
        assert!(said["coins"].as_u64().unwrap_or_default() > 2_000, "{said}");
    }
    let mut sources = past.sources(&[]);
    let mut fresh = start(past.fresh(), &[("TIMED_SYNC__SNAPSHOT", "true")]);
    reaches(&mut fresh, past.made.height);
    let chain = fresh.ask("getblockchaininfo").unwrap_or_default();
    assert_eq!(
        chain["pruned"], true,
        "F4: it began at the snapshot: {chain}"
    );
    assert!(chain["pruneheight"].as_u64() > Some(200), "{chain}");
    let at = sources[0].height().unwrap_or_default();
    reaches(&mut fresh, at + 1);
    let both = [&mut fresh, &mut sources[0]].map(|node| {
        wait_for("a block both have", || {
            let id = node.client.call("getblockhash", json!([at])).ok()?;
            node.client.call("getblockheader", json!([id])).ok()
        })
    });
    assert_eq!(both[0]["hash"], both[1]["hash"], "the same chain");
    drop(fresh);
    let report = run(past.fresh(), &["db", "verify"]);
    assert_eq!(report["valid"], true, "{report}");
}

#[test]
fn a_pruned_network_says_so_and_takes_new_nodes_by_snapshot() {
    let past = past("pruned", LONG);
    for dir in &past.made.nodes[..SOURCES] {
        run(dir, &["snapshot", "create"]);
        let said = run(dir, &["db", "prune", "--blocks", "10"]);
        assert!(said["removed"].as_u64() > Some(100), "{said}");
        assert_eq!(run(dir, &["db", "verify"])["valid"], true);
    }
    let sources = past.sources(&[("TIMED_STORAGE__PRUNE", "1000")]);
    let mut fresh = start(past.fresh(), &[]);
    wait_for("it says what it waits for", || {
        let info = fresh.ask("getsyncinfo")?;
        let reason = info["waiting_for"].as_str()?.to_string();
        reason.contains("sync.snapshot").then_some(reason)
    });
    drop(fresh);
    let mut fresh = start(past.fresh(), &[("TIMED_SYNC__SNAPSHOT", "true")]);
    reaches(&mut fresh, past.made.height);
    drop(sources);
}
