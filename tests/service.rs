//! `timed` as a service: readiness, watchdog, reload, stop, and everything that must keep a second one out.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Generous: only a broken node takes as long.
const DEADLINE: Duration = Duration::from_secs(300);

/// A data directory of a one-masternode network, and the socket that plays systemd.
struct Host {
    path: PathBuf,
    notify: UnixDatagram,
}

impl Host {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("service-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("data")).expect("a directory for the test");
        let notify = UnixDatagram::bind(path.join("n")).expect("a socket");
        notify.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let text = "[node]\nnetwork = \"dev\"\ndatadir = \"data\"\n[p2p]\nbind = [\"127.0.0.1:0\"]\n[rpc]\nbind = [\"127.0.0.1:0\"]\n";
        std::fs::write(path.join("timed.toml"), text).expect("written");
        Host { path, notify }
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Starts `timed` on this directory, as systemd would.
    fn start(&self) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_timed"));
        command.arg("--config").arg(self.path.join("timed.toml"));
        command
            .env("NOTIFY_SOCKET", self.path.join("n"))
            .env("WATCHDOG_USEC", "2000000")
            .env_remove("WATCHDOG_PID");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Node(command.spawn().expect("timed starts"))
    }

    /// Reads what the node tells systemd until a line is `word`.
    fn await_word(&self, word: &str) {
        let until = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            let size = self
                .notify
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {word}: {error}"));
            if String::from_utf8_lossy(&buffer[..size])
                .lines()
                .any(|line| line == word)
            {
                return;
            }
        }
        panic!("systemd was never told {word}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A running process, ended with the test.
struct Node(Child);

impl Node {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("it runs");
    }

    fn end(&mut self) -> ExitStatus {
        self.0.wait().expect("it ends")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn systemd_hears_ready_watchdog_and_stopping_and_a_clean_stop_is_0() {
    let host = Host::new("ready");
    let mut node = host.start();
    host.await_word("READY=1");
    assert!(host.data().join(".cookie").exists() && host.data().join("timed.pid").exists());
    host.await_word("WATCHDOG=1");
    node.signal(Signal::HUP);
    host.await_word("WATCHDOG=1");
    node.signal(Signal::TERM);
    host.await_word("STOPPING=1");
    assert_eq!(node.end().code(), Some(0), "SIGTERM is a clean stop");
    assert!(
        !host.data().join(".cookie").exists(),
        "no cookie without a node"
    );
    let mut again = host.start();
    host.await_word("READY=1");
    again.signal(Signal::INT);
    assert_eq!(
        again.end().code(),
        Some(0),
        "SIGINT is a clean stop, and a stopped node starts again"
    );
}

#[test]
fn a_directory_and_an_operator_key_serve_one_process_at_a_time() {
    let host = Host::new("lock");
    let _first = host.start();
    host.await_word("READY=1");
    assert_eq!(
        host.start().end().code(),
        Some(69),
        "the data directory is locked"
    );
    let other = Host::new("key");
    copy(&host.data().join("keys"), &other.data().join("keys"));
    std::fs::copy(
        host.data().join("genesis.toml"),
        other.data().join("genesis.toml"),
    )
    .expect("copied");
    chmod(&other.data().join("keys"), 0o700);
    assert_eq!(
        other.start().end().code(),
        Some(69),
        "the operator key votes in one process only"
    );
}

#[test]
fn exposed_keys_are_refused_with_77() {
    let host = Host::new("mode");
    let mut node = host.start();
    host.await_word("READY=1");
    node.signal(Signal::TERM);
    assert_eq!(node.end().code(), Some(0));
    for path in [
        host.data().join("keys"),
        host.data().join("keys/operator.key"),
        host.data().join("keys/node.key"),
    ] {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        chmod(&path, mode | 0o044);
        assert_eq!(
            host.start().end().code(),
            Some(77),
            "{} is open to others",
            path.display()
        );
        chmod(&path, mode);
    }
}
