//! Real `timed` processes on data directories that were made before, for tests and benches of nodes that join.
//!
//! A process ends with its `Node`. When a test fails, the last lines of its log are printed.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use timecoin::node::client::{Client, Credentials};

/// Between two looks at a state.
const LOOK: Duration = Duration::from_millis(50);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);

/// A process, and a connection to it.
pub struct Node {
    child: Child,
    pub client: Client,
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

/// `timed` on a data directory, with nothing from the environment.
pub fn timed(dir: &Path) -> Command {
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

/// Starts a node; `settings` are variables of its environment. Its log is begun anew.
pub fn start(dir: &Path, settings: &[(&str, &str)]) -> Node {
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
    client.set_timeout(CALL);
    Node {
        child: child.expect("timed starts"),
        client,
        dir: dir.to_path_buf(),
    }
}

impl Node {
    /// An answer, if it gives one.
    pub fn ask(&mut self, method: &str) -> Option<Value> {
        self.client.call(method, json!([])).ok()
    }

    /// Height of its tip, if it answers.
    pub fn height(&mut self) -> Option<u64> {
        self.ask("getblockcount")?.as_u64()
    }

    /// Process id. After a restart of the node by itself it is the same.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Looks until `state` gives something, for at most `patience`.
pub fn wait_within<T>(patience: Duration, what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not so after {patience:?}");
        std::thread::park_timeout(LOOK);
    }
}
