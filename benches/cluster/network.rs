//! A devnet of real processes, for as long as a part of the benchmark needs it.

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use timecoin::node::client::{Client, Credentials};

/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// Syncs of which the median is taken.
const SYNC_COUNT: usize = 50;

/// `timed` of the same build, with nothing of this process' settings.
pub fn timed() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIMED_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// Looks until `state` gives something.
pub fn await_some<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(format!("{what}: not so after {} s", PATIENCE.as_secs()));
        }
        pause(LOOK);
    }
}

pub fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// A whole number of microseconds since `begin`.
pub fn micros(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn scratch() -> Result<PathBuf, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let root = std::env::var_os("TIMECOIN_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = root.join(format!("bench-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

/// Four nodes and the process that minds them. All end with it.
pub struct Network {
    child: Child,
    home: PathBuf,
    /// A connection to each node, in order.
    pub nodes: Vec<Client>,
    datadirs: Vec<PathBuf>,
}

impl Network {
    /// Starts a new devnet and waits until it says where its nodes are. They may not answer yet.
    pub fn start() -> Result<Network, String> {
        let home = scratch()?;
        let mut command = timed();
        command
            .args(["devnet", "--base-port", "0", "--dir"])
            .arg(home.join("net"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("timed: {error}"))?;
        let mut network = Network {
            child,
            home,
            nodes: Vec::new(),
            datadirs: Vec::new(),
        };
        let file = network.dir().join("devnet.json");
        let told: Value = await_some("the devnet says where it is", || {
            std::fs::read_to_string(&file).ok()?.parse().ok()
        })?;
        for node in told["nodes"].as_array().into_iter().flatten() {
            let datadir = PathBuf::from(node["datadir"].as_str().unwrap_or_default());
            let url = node["rpc"].as_str().and_then(|url| url.parse().ok());
            let url = url.ok_or_else(|| format!("no URL in {node}"))?;
            let mut client = Client::new(url, Credentials::File(datadir.join(".cookie")));
            client.set_timeout(CALL);
            network.nodes.push(client);
            network.datadirs.push(datadir);
        }
        Ok(network)
    }

    /// Starts a new devnet and waits until every node answers and has all the others.
    pub fn ready() -> Result<Network, String> {
        let mut network = Network::start()?;
        network.await_connected()?;
        Ok(network)
    }

    pub fn dir(&self) -> PathBuf {
        self.home.join("net")
    }

    pub fn datadir(&self, i: usize) -> &Path {
        &self.datadirs[i]
    }

    /// Waits until every node is connected to all the others and has a tip like theirs.
    pub fn await_connected(&mut self) -> Result<(), String> {
        let others = self.nodes.len() - 1;
        let nodes = &mut self.nodes;
        await_some("all nodes are connected", || {
            let mut heights = Vec::new();
            for node in nodes.iter_mut() {
                let count = node.call("getconnectioncount", json!([])).ok()?;
                (count.as_u64()? >= others as u64).then_some(())?;
                heights.push(node.call("getblockcount", json!([])).ok()?.as_u64()?);
            }
            let least = heights.iter().min()?;
            (heights.iter().max()? - least <= 2).then_some(())
        })
    }

    /// Median of write-and-fdatasync of a page on the disk of the nodes, microseconds.
    pub fn sync_us(&self) -> Result<u64, String> {
        let measure = || -> std::io::Result<u64> {
            let path = self.home.join("sync");
            let mut file = std::fs::File::create(path)?;
            let mut times = Vec::new();
            for _ in 0..SYNC_COUNT {
                let begin = Instant::now();
                file.write_all(&[1; 4_096])?;
                file.sync_data()?;
                times.push(micros(begin));
            }
            times.sort_unstable();
            Ok(times[SYNC_COUNT / 2])
        };
        measure().map_err(|error| format!("the disk: {error}"))
    }

    /// `timed devnet ACTION` for this network: its answer.
    pub fn act(&self, action: &[&str]) -> Result<Value, String> {
        let mut command = timed();
        command
            .args(["devnet", "--dir"])
            .arg(self.dir())
            .args(action);
        answer(command)
    }

    /// Process id of each node.
    pub fn pids(&self) -> Result<Vec<i32>, String> {
        let status = self.act(&["status"])?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let pid = |node: &Value| node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let found: Option<Vec<i32>> = nodes.iter().map(pid).collect();
        found.ok_or_else(|| format!("a node does not run: {status}"))
    }

    /// `time-cli bench` on this network, ready to be given options.
    pub fn bench(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_time-cli"));
        command.args(["--json", "bench", "--dir"]).arg(self.dir());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Runs a command that answers in JSON.
pub fn answer(mut command: Command) -> Result<Value, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.parse().map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{command:?} ended with {}: {text}{said}", output.status)
    })
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
