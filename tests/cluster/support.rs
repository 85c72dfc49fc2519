//! Networks of real `timed` processes on loopback, for tests that assert states and never times.
//!
//! A process ends with the test that started it. When a test fails, the last lines of every node's log are printed.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use timecoin::node::client::{Client, ClientError, Credentials, Response};

/// Generous: a state that has not come by then never will, however slow and busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at a state.
const LOOK: Duration = Duration::from_millis(10);
/// How long one call may take: less than `PATIENCE`, so that a halted process costs a look and not the test.
const CALL: Duration = Duration::from_secs(60);
/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 40;
/// Ports of these tests. They end where the system takes those of outgoing connections, so that none of them is in the way.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports that one network may use; the last of them is held by the test, so that no other process takes the place.
const PORTS_OF_NETWORK: u16 = 100;

/// Lets some time pass before a state is looked at again.
pub fn pause() {
    std::thread::park_timeout(LOOK);
}

/// Waits for a state: looks until `state` gives it.
pub fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not so after {PATIENCE:?}");
        pause();
    }
}

/// Waits until `state` holds.
pub fn wait_until(what: &str, mut state: impl FnMut() -> bool) {
    wait_for(what, || state().then_some(()));
}

/// A directory of its own that goes when it is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cluster-{name}-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Left behind by a process of the same number that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The end of [`PORTS`] on this machine, if its own range begins lower than usual.
fn last_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let begin = range
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    let room = PORTS.start + 10 * PORTS_OF_NETWORK;
    begin
        .filter(|port| *port >= room)
        .map_or(PORTS.end, |port: u16| port.min(PORTS.end))
}

/// A base port such that it and those above it that a network uses are free.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static HELD: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    let places = (last_port() - PORTS.start) / PORTS_OF_NETWORK;
    let first = (std::process::id() % u32::from(places)) as u16;
    for _ in 0..places {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % places;
        let base = PORTS.start + place * PORTS_OF_NETWORK;
        let last = base + PORTS_OF_NETWORK - 1;
        let Ok(held) = TcpListener::bind(("127.0.0.1", last)) else {
            continue;
        };
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..last).all(free) {
            HELD.lock().expect("no test panics here").push(held);
            return base;
        }
    }
    panic!("no free ports");
}

/// `timed` with nothing from the environment.
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

/// Runs `timed` to its end: its exit code, and what it said on stderr.
pub fn run_timed(arguments: &[&str]) -> (Option<i32>, String) {
    let output = timed().args(arguments).output().expect("timed starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// Runs `time-cli` to its end.
pub fn time_cli(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_time-cli"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("time-cli starts")
}

/// Height, block and state root of a tip.
pub type Tip = (u64, String, String);

/// A data directory and, at times, the process that runs on it.
pub struct Node {
    pub dir: PathBuf,
    /// P2P port; the HTTP port is the next one.
    pub port: u16,
    process: Mutex<Option<Child>>,
}

impl Node {
    pub fn new(dir: PathBuf, port: u16) -> Node {
        Node {
            dir,
            port,
            process: Mutex::new(None),
        }
    }

    pub fn config(&self) -> String {
        self.dir.join("timed.toml").to_string_lossy().into_owned()
    }

    /// Starts the process. It may not answer yet.
    pub fn start(&self) {
        let mut command = timed();
        command.args(["--config", &self.config(), "--log", "info"]);
        self.start_as(command);
    }

    /// Starts `command` as this node.
    pub fn start_as(&self, mut command: Command) {
        let log = File::options().append(true).create(true).open(self.log());
        let log = log.expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::from(log));
        let child = command.spawn().expect("timed starts");
        let before = self.process().replace(child);
        assert!(before.is_none(), "a node runs once");
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the node has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until the log says `what`: a line may be written after the state that it tells is seen.
    pub fn await_logged(&self, what: &str) {
        wait_until(what, || self.logged().contains(what));
    }

    /// Waits until the node answers calls.
    pub fn await_ready(&self) {
        let mut client = self.client();
        wait_until("the node answers", || {
            self.assert_runs();
            client.call("getblockcount", json!([])).is_ok()
        });
    }

    /// Fails the test if the process has ended by itself.
    pub fn assert_runs(&self) {
        if let Some(child) = self.process().as_mut() {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "the node ended by itself: {ended:?}");
        }
    }

    /// Whether the process has ended by itself; its place is free then.
    pub fn has_ended(&self) -> bool {
        let mut process = self.process();
        let child = process.as_mut();
        let ended = child.is_none_or(|child| child.try_wait().expect("a child").is_some());
        if ended {
            process.take();
        }
        ended
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(child) = self.process().as_ref() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a process id"), signal).expect("it runs");
        }
    }

    /// Process id of the running node.
    pub fn pid(&self) -> Pid {
        let process = self.process();
        let id = process.as_ref().map(Child::id).expect("it runs");
        Pid::from_raw(i32::try_from(id).expect("a process id")).expect("not 0")
    }

    /// Waits until the process has ended.
    pub fn await_end(&self) -> ExitStatus {
        wait_for("the process ends", || {
            let mut process = self.process();
            let ended = process.as_mut()?.try_wait().expect("a child")?;
            process.take();
            Some(ended)
        })
    }

    /// Ends the process at once (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// Asks the process to end (SIGTERM): its exit code.
    pub fn stop(&self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.await_end().code()
    }

    /// A connection of its own to the node.
    pub fn client(&self) -> Client {
        let url = format!("http://127.0.0.1:{}/", self.port + 1);
        let cookie = Credentials::File(self.dir.join(".cookie"));
        let mut client = Client::new(url.parse().expect("a URL"), cookie);
        client.set_timeout(CALL);
        client
    }

    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.client().call(method, params)
    }

    pub fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.try_call(method, params);
        answer.unwrap_or_else(|error| panic!("{method} of {}: {error}", self.dir.display()))
    }

    /// GETs a path without credentials.
    pub fn get(&self, path: &str) -> Response {
        let answer = self.client().get(path);
        answer.unwrap_or_else(|error| panic!("GET {path} of {}: {error}", self.dir.display()))
    }

    /// HTTP status and reasons of /health.
    pub fn health(&self) -> (u16, String) {
        let answer = self.get("/health");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, body["reasons"].to_string())
    }

    pub fn consensus(&self) -> Value {
        self.call("getconsensusinfo", json!([]))
    }

    pub fn height(&self) -> u64 {
        self.tip().map_or(0, |(height, _, _)| height)
    }

    /// The tip, if the node answers.
    pub fn tip(&self) -> Option<Tip> {
        let state = self.try_call("getutxostate", json!([])).ok()?;
        assert_eq!(state["adds_up"], true, "L12: {state}");
        let text = |name: &str| state[name].as_str().map(str::to_owned);
        Some((
            state["height"].as_u64()?,
            text("bestblock")?,
            text("stateroot")?,
        ))
    }

    pub fn new_address(&self) -> Value {
        self.call("getnewaddress", json!([]))
    }

    /// Pays from the node's wallet: the transaction's id.
    pub fn pay(&self, address: &Value, amount: &str) -> Value {
        self.call("sendtoaddress", json!([address, amount]))
    }

    /// Whether the node says that a transaction is final.
    pub fn is_final(&self, txid: &Value) -> bool {
        let state = self.try_call("gettransactionfinality", json!([txid]));
        state.is_ok_and(|state| state["final"] == true)
    }

    /// Waits until the node says that a transaction is final.
    pub fn await_final(&self, txid: &Value) {
        wait_until("the payment is final", || self.is_final(txid));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.logged();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            eprintln!("--- log of {}", self.dir.display());
            eprintln!("{}", lines[from..].join("\n"));
        }
    }
}

/// A network of masternodes of equal power.
pub struct Cluster {
    // Dropped before the directory: processes end first.
    pub nodes: Vec<Node>,
    pub dir: TempDir,
}

impl Cluster {
    /// Makes a network of `count` and starts none of it.
    pub fn make(count: u16) -> Cluster {
        Cluster::make_with(count, &[])
    }

    /// The same, with more options of `timed testnet`.
    pub fn make_with(count: u16, options: &[&str]) -> Cluster {
        let dir = TempDir::new("net");
        let base = free_ports();
        let out = dir.path().join("net");
        let (count_text, base_text) = (count.to_string(), base.to_string());
        let out_text = out.to_string_lossy();
        let arguments = [
            "testnet",
            "--out",
            &out_text,
            "--nodes",
            &count_text,
            "--base-port",
            &base_text,
        ];
        let (code, said) = run_timed(&[&arguments, options].concat());
        assert_eq!(code, Some(0), "{said}");
        let node = |i: u16| Node::new(out.join(format!("node{i}")), base + 10 * i);
        Cluster {
            nodes: (0..count).map(node).collect(),
            dir,
        }
    }

    /// Makes a network of four, starts it and waits until its nodes answer and see a quorum.
    pub fn start() -> Cluster {
        let cluster = Cluster::make(4);
        cluster.nodes.iter().for_each(Node::start);
        cluster.nodes.iter().for_each(Node::await_ready);
        cluster
    }

    pub fn genesis(&self) -> String {
        let path = self.dir.path().join("net/genesis.toml");
        path.to_string_lossy().into_owned()
    }

    /// Gives every other node money: `count` coins each, so that so many payments can be made at once.
    pub fn fund(&self, count: usize) {
        let from = &self.nodes[0];
        let mut paid = Vec::new();
        for node in &self.nodes[1..] {
            let address = node.new_address();
            paid.extend((0..count).map(|_| from.pay(&address, "1000")));
        }
        for node in &self.nodes {
            paid.iter().for_each(|txid| node.await_final(txid));
        }
    }

    /// Waits until all nodes have the same tip and state root, of at least `height`.
    pub fn await_equal_tips(&self, height: u64) -> Tip {
        wait_for("all nodes have the same tip and state root", || {
            let tips: Vec<Tip> = self.nodes.iter().map(Node::tip).collect::<Option<_>>()?;
            let first = tips.first()?.clone();
            (first.0 >= height && tips.iter().all(|tip| *tip == first)).then_some(first)
        })
    }

    /// No two nodes decided different blocks, and none has seen a key sign twice.
    pub fn assert_no_fork(&self) {
        let mut clients: Vec<Client> = self.nodes.iter().map(Node::client).collect();
        let heights = clients.iter_mut().map(|client| {
            let height = client.call("getblockcount", json!([])).expect("an answer");
            height.as_u64().expect("a height")
        });
        let lowest = heights.min().expect("nodes");
        for height in 1..=lowest {
            let ids = clients.iter_mut().map(|client| {
                let id = client.call("getblockhash", json!([height]));
                id.expect("a decided block")
            });
            let ids: Vec<Value> = ids.collect();
            assert!(
                ids.iter().all(|id| *id == ids[0]),
                "fork at {height}: {ids:?}"
            );
        }
        for node in &self.nodes {
            let metrics = node.get("/metrics").body;
            let metrics = String::from_utf8_lossy(&metrics);
            let line = metrics
                .lines()
                .find(|l| l.contains("equivocations") && !l.starts_with('#'));
            let line = line.expect("a counter of equivocations");
            assert!(line.ends_with(" 0"), "nobody signed twice: {line}");
        }
    }
}
