//! `timed devnet` as a person runs it: real processes, killed and stopped from outside.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Generous: a busy machine with two cores.
const DEADLINE: Duration = Duration::from_secs(300);
/// Held while a devnet chooses its ports and until it listens on them: two could choose the same.
static CHOOSING: Mutex<()> = Mutex::new(());

/// A devnet that runs, in a directory of its own.
struct Devnet {
    child: Child,
    home: PathBuf,
    lines: Receiver<String>,
}

impl Devnet {
    /// Starts one and waits until it decides.
    fn start(name: &str) -> Devnet {
        let _choosing = CHOOSING.lock().unwrap_or_else(|broken| broken.into_inner());
        let devnet = Devnet::spawn(name);
        devnet.await_block(1);
        devnet
    }

    fn spawn(name: &str) -> Devnet {
        let home = std::env::temp_dir().join(format!("tc-{name}-{}", std::process::id()));
        // Left behind by a process of the same number that was killed.
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).expect("a directory for the test");
        let mut command = timed(&home);
        command.args([
            "devnet",
            "--base-port",
            "0",
            "--slot-interval",
            "2",
            "--dir",
        ]);
        let mut child = command
            .arg(home.join("net"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("timed starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Devnet { child, home, lines }
    }

    fn dir(&self) -> PathBuf {
        self.home.join("net")
    }

    /// Reads lines until one is a block at or above `height`; its height.
    fn await_block(&self, height: u64) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no block {height} in time{}", self.logs())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the devnet ended{}", self.logs()),
            };
            let mut words = line.split_whitespace();
            let is_block = words.next() == Some("block");
            let found: Option<u64> = words.next().and_then(|word| word.parse().ok());
            if let Some(found) = found.filter(|found| is_block && *found >= height) {
                return found;
            }
        }
    }

    fn act(&self, arguments: &[&str]) -> Output {
        let mut command = timed(&self.home);
        command
            .args(["devnet", "--dir"])
            .arg(self.dir())
            .args(arguments);
        command.output().expect("timed starts")
    }

    /// What the nodes are, by number: pid and state.
    fn nodes(&self) -> Vec<(Option<i32>, String)> {
        let output = self.act(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON for a pipe");
        let node = |node: &serde_json::Value| {
            let pid = node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
            (pid, node["state"].as_str().unwrap_or_default().to_owned())
        };
        answer["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(node)
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signalled");
    }

    /// Waits until the devnet itself has ended; its exit code.
    fn await_end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("asked") {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "the devnet does not stop{}",
                self.logs()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let tail = |i: usize| {
            let file = self.dir().join(format!("node{i}/timed.log"));
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            format!(
                "\n--- node {i}, last lines, newest first\n{}",
                lines.join("\n")
            )
        };
        (0..4).map(tail).collect()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // After a failed test: the nodes see the end of their input and stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn timed(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
    command.stdin(Stdio::null()).env("XDG_RUNTIME_DIR", home);
    command
}

fn await_gone(pids: &[i32]) {
    let deadline = Instant::now() + DEADLINE;
    let runs = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Without a parent that waits, a zombie is as gone as can be.
        let is_zombie = stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'));
        Pid::from_raw(*pid).is_some_and(|pid| test_kill_process(pid).is_ok()) && !is_zombie
    };
    while pids.iter().any(runs) {
        assert!(
            Instant::now() < deadline,
            "processes {pids:?} were left behind"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_devnet_decides_outlives_a_killed_node_and_stops_cleanly() {
    let mut devnet = Devnet::start("devnet");
    devnet.await_block(3);
    let pids: Vec<i32> = devnet.nodes().iter().filter_map(|node| node.0).collect();
    assert_eq!(pids.len(), 4, "four real processes");

    assert!(devnet.act(&["kill", "3"]).status.success());
    assert_eq!(
        devnet.nodes()[3],
        (None, "ended".to_owned()),
        "nobody starts it again"
    );
    let height = devnet.await_block(0);
    devnet.await_block(height + 3);
    assert_eq!(
        devnet.act(&["kill", "3"]).status.code(),
        Some(1),
        "it has ended already"
    );
    assert_eq!(
        devnet.act(&["kill", "4"]).status.code(),
        Some(64),
        "there is no node 4"
    );

    assert!(devnet.act(&["start", "3"]).status.success());
    assert!(devnet.act(&["pause", "2"]).status.success());
    let states: Vec<String> = devnet.nodes().into_iter().map(|node| node.1).collect();
    assert_eq!(states, ["running", "running", "paused", "running"]);
    let second = timed(&devnet.home)
        .args(["devnet", "--dir"])
        .arg(devnet.dir())
        .output();
    let second = second.expect("timed starts");
    assert_eq!(second.status.code(), Some(69), "one devnet per directory");

    let pids: Vec<i32> = devnet.nodes().iter().filter_map(|node| node.0).collect();
    devnet.signal(Signal::INT);
    assert_eq!(
        devnet.await_end(),
        Some(0),
        "Ctrl-C is a clean stop, also with a node paused"
    );
    await_gone(&pids);
    assert_eq!(
        devnet.act(&["status"]).status.code(),
        Some(69),
        "no devnet runs any more"
    );
}

#[test]
fn nodes_do_not_outlive_a_devnet_that_is_killed() {
    let mut devnet = Devnet::start("orphans");
    let pids: Vec<i32> = devnet.nodes().iter().filter_map(|node| node.0).collect();
    assert_eq!(pids.len(), 4);
    devnet.signal(Signal::KILL);
    assert_eq!(devnet.await_end(), None, "by a signal");
    await_gone(&pids);
    for i in 0..4 {
        let pid_file = devnet.dir().join(format!("node{i}/timed.pid"));
        assert!(
            !pid_file.exists(),
            "node {i} stopped in order: its standard input had ended"
        );
    }
}
