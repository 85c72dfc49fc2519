//! Nodes that join a network with a past: by blocks, by a snapshot, and where old blocks are gone. Real processes; the past
//! is built by the ledger itself.

#[path = "chain/mod.rs"]
mod chain;

use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use chain::process::{Node, start, timed, wait_within};

/// Generous: a state that has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(300);
/// Nodes that hold the chain.
const SOURCES: usize = 3;
/// Blocks of a chain of which some can be pruned: more than max_reorg.
const LONG: u64 = 1_150;

/// Runs a command of `timed` on a data directory: what it says.
fn run(dir: &Path, arguments: &[&str]) -> Value {
    let output = timed(dir).args(arguments).output().expect("timed starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.parse().unwrap_or(Value::Null)
}

fn wait_for<T>(what: &str, state: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, state)
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
    // Ports end where the system takes those of outgoing connections.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let begin = range
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    let end = begin.filter(|port: &u16| *port >= 13_000).unwrap_or(32_000);
    let places = (end.min(32_000) - 12_000) / 100;
    let first = (std::process::id() % u32::from(places)) as u16;
    for _ in 0..places {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % places;
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
    past_of(name, blocks, (0, 0), false)
}

/// The same, so many ms older than it need be, with roots that are trusted for so many slots; perhaps the fourth was slashed.
fn past_of(name: &str, blocks: u64, (ago_ms, trusting_period): (u64, u64), slashed: bool) -> Past {
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
        trusting_period,
        slashed,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = now.expect("a clock").as_millis() as u64 - ago_ms;
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
    let log = std::fs::read_to_string(past.fresh().join("log")).unwrap_or_default();
    let said = log.matches("not signing").count();
    assert!(
        said < 20,
        "a reason is told once, not for every block: {said}"
    );
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
    let id = std::fs::read_to_string(past.fresh().join("timed.pid")).unwrap_or_default();
    assert_eq!(
        id.trim(),
        fresh.pid().to_string(),
        "F4: the same process has begun again with it"
    );
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

/// M7, F3, F4: what was burned is the same at the nodes that decided it, at one that came by blocks whose payments it did not
/// check, and at one that began with a snapshot.
#[test]
fn a_slashed_masternode_is_so_for_whoever_comes_later() {
    let past = past_of("slashed", 600, (0, 0), true);
    for dir in &past.made.nodes[..SOURCES] {
        run(dir, &["snapshot", "create"]);
    }
    let mut sources = past.sources(&[]);
    let slashed = |node: &mut Node| {
        wait_for("it lists who is punished", || {
            let listed = node.client.call("protx", json!(["list", "all", true]));
            let listed = listed.ok()?;
            let mut guilty = listed.as_array()?.iter().filter(|e| {
                let burned = e["state"]["burned"].to_string();
                burned.chars().any(|digit| ('1'..='9').contains(&digit))
            });
            let one = guilty.next()?;
            assert!(guilty.next().is_none(), "one was guilty: {listed}");
            Some([&one["proTxHash"], &one["state"]["burned"]].map(Value::to_string))
        })
    };
    let first = slashed(&mut sources[0]);
    for setting in [
        ("TIMED_SYNC__VERIFY", "certified"),
        ("TIMED_SYNC__SNAPSHOT", "true"),
    ] {
        let mut fresh = start(past.fresh(), &[setting]);
        reaches(&mut fresh, past.made.height);
        assert_eq!(slashed(&mut fresh), first, "M7: {setting:?}");
        drop(fresh);
        assert_eq!(run(past.fresh(), &["db", "verify"])["valid"], true);
        std::fs::remove_dir_all(past.fresh().join("lmdb")).expect("a ledger");
    }
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

/// Pieces of a snapshot that a node has fetched.
fn pieces(node: &mut Node) -> Option<u64> {
    node.ask("getsyncinfo")?["snapshot"]["pieces"].as_u64()
}

#[test]
fn a_snapshot_that_was_interrupted_goes_on_where_it_was() {
    let past = past("resume", 300);
    for dir in &past.made.nodes[..SOURCES] {
        run(dir, &["snapshot", "create"]);
    }
    // Few requests a second: so that the end does not come before the kill.
    let _sources = past.sources(&[("TIMED_LIMITS__SYNC_FRAMES", "10")]);
    let settings = [("TIMED_SYNC__SNAPSHOT", "true")];
    let mut fresh = start(past.fresh(), &settings);
    let seen = wait_for("a part of it is there", || {
        pieces(&mut fresh).filter(|pieces| *pieces >= 70)
    });
    assert!(seen < 257, "the kill comes in the middle: {seen}");
    // SIGKILL.
    drop(fresh);
    let mut fresh = start(past.fresh(), &settings);
    let there = wait_for("it looks at what it has", || {
        let log = std::fs::read_to_string(past.fresh().join("log")).ok()?;
        let (before, _) = log.split_once(" of 257 pieces are there")?;
        before.split_whitespace().last()?.parse::<u64>().ok()
    });
    assert!(
        there >= seen,
        "F4: it does not start over: {there} of {seen}"
    );
    reaches(&mut fresh, past.made.height);
    let chain = fresh.ask("getblockchaininfo").unwrap_or_default();
    assert_eq!(
        chain["pruned"], true,
        "F4: it began at the snapshot: {chain}"
    );
    drop(fresh);
    assert_eq!(run(past.fresh(), &["db", "verify"])["valid"], true);
}

/// A period of trust in slots of 5 s: long beside any pause of a test, short beside the age of the chain.
const PERIOD: u64 = 18;
/// Age of the chain.
const AGO_MS: u64 = 300_000;

#[test]
fn a_node_without_a_young_root_is_unanchored_everywhere_until_it_is_told() {
    let past = past_of("unanchored", 60, (AGO_MS, PERIOD), false);
    let root = run(&past.made.nodes[0], &["db", "verify"]);
    let root = format!(
        "{}:{}",
        root["height"],
        root["block"].as_str().expect("a tip")
    );
    // The network stood still for longer than the period: nobody signs before the operators have compared tips.
    let mut first = start(&past.made.nodes[0], &[]);
    let info = wait_for("it says why it does not sign", || {
        let info = first.ask("getsyncinfo")?;
        (info["trust"]["anchored"] == false).then_some(info)
    });
    assert!(
        info["trust"]["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("timed trust"),
        "{info}"
    );
    drop(first);
    for dir in &past.made.nodes[..SOURCES] {
        let output = timed(dir)
            .args(["trust", &root])
            .output()
            .expect("timed starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut sources = past.sources(&[]);
    // A fresh node has the genesis only, which is older than that.
    let mut fresh = start(past.fresh(), &[]);
    reaches(&mut fresh, past.made.height + 1);
    let chain = wait_for("F2: it follows, and says that it is unanchored", || {
        let chain = fresh.ask("getblockchaininfo")?;
        chain["warnings"]
            .to_string()
            .contains("unanchored")
            .then_some(chain)
    });
    assert!(
        chain["warnings"].to_string().contains("timed trust"),
        "{chain}"
    );
    let info = fresh.ask("getsyncinfo").unwrap_or_default();
    assert_eq!(info["trust"]["anchored"], false, "{info}");
    wait_for("F2: the log says so, with the tip", || {
        let log = std::fs::read_to_string(past.fresh().join("log")).ok()?;
        let told = log.contains("unanchored") && log.contains("this node's tip is");
        told.then_some(())
    });
    let status = cli(past.fresh(), &["status"]);
    assert!(status.contains("unanchored"), "{status}");
    let own = fresh
        .client
        .call("masternode", json!(["status"]))
        .expect("an answer");
    assert!(
        own.to_string().contains("unanchored"),
        "F2: it does not sign: {own}"
    );
    drop(fresh);
    // Told: the operator vouches for a block of the chain that it has compared.
    let at = sources[0].height().unwrap_or_default();
    let id = sources[0]
        .client
        .call("getblockhash", json!([at]))
        .expect("a block");
    let root = format!("{at}:{}", id.as_str().expect("an id"));
    let mut fresh = start(past.fresh(), &[("TIMED_SYNC__TRUSTED", &root)]);
    let info = wait_for(
        "F2: it is anchored once it has met what it was told",
        || {
            let info = fresh.ask("getsyncinfo")?;
            (info["trust"]["anchored"] == true).then_some(info)
        },
    );
    assert_eq!(info["trust"]["trusted"], json!(root), "{info}");
    let chain = fresh.ask("getblockchaininfo").unwrap_or_default();
    assert!(
        !chain["warnings"].to_string().contains("unanchored"),
        "{chain}"
    );
    assert!(!cli(past.fresh(), &["status"]).contains("unanchored"));
}

/// What `time-cli` says about a node.
fn cli(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_time-cli"));
    let output = command.arg("--datadir").arg(dir).args(arguments).output();
    let output = output.expect("time-cli starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
