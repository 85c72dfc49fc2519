//! The processes of a devnet: each a real `timed`, started, watched, halted and ended here and nowhere else.
//!
//! A node holds the reading end of a pipe as its standard input, and this process the other: when this process is gone, however it
//! went, the node reads the end of its input and stops in order ([`STOP_AT_EOF`]).

use crate::node::commands::CommandError;
use crate::node::devnet::network::Site;
use crate::node::exit::Exit;
use crate::node::signals::{Signal, SignalListener};
use rustix::process::{Pid, Signal as Number, kill_process};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set in a node's environment: its standard input ends when whoever started it is gone.
pub const STOP_AT_EOF: &str = "TIMECOIN_STOP_AT_EOF";
/// Time for all nodes to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between two looks at something that is expected within milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time for one answer of a node that starts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time to stop in order, before a node is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a log's end is looked at for the last line.
const LOG_TAIL: u64 = 4_096;
/// Variables of the environment that would give all nodes the same identity or address.
const NOT_FOR_NODES: [&str; 7] = [
    "TIMED_NODE__",
    "TIMED_P2P__BIND",
    "TIMED_P2P__EXTERNAL",
    "TIMED_P2P__PEERS",
    "TIMED_RPC__BIND",
    "TIMED_MASTERNODE__",
    "NOTIFY_SOCKET",
];

/// A node and its process.
pub(super) struct Node {
    /// Where it is.
    pub(super) site: Site,
    child: Option<Child>,
    is_halted: bool,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    Halted,
    Ended,
}

impl Life {
    pub(super) fn name(self) -> &'static str {
        match self {
            Life::Running => "running",
            Life::Halted => "paused",
            Life::Ended => "ended",
        }
    }
}

/// What an exit status says to a person.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("signal {number}"),
        (None, None) => "no reason known".to_owned(),
    }
}

impl Node {
    pub(super) fn new(site: Site) -> Node {
        Node {
            site,
            child: None,
            is_halted: false,
        }
    }

    pub(super) fn life(&self) -> Life {
        match (&self.child, self.is_halted) {
            (None, _) => Life::Ended,
            (Some(_), true) => Life::Halted,
            (Some(_), false) => Life::Running,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process, if there is none.
    pub(super) fn start(&mut self, log_level: Option<&str>) -> Result<(), CommandError> {
        if self.child.is_some() {
            let text = format!("node {} runs already", self.site.index);
            return Err(CommandError::new(Exit::Failure, text));
        }
        let file = self.site.log_file();
        let failed = |error| CommandError::io("write", &file, &error);
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        let log = options.open(&file).map_err(failed)?;
        let program = std::env::current_exe()
            .map_err(|error| CommandError::new(Exit::Internal, format!("own program: {error}")))?;
        let mut command = Command::new(&program);
        command.arg("--config").arg(self.site.datadir.config());
        if let Some(level) = log_level {
            command.args(["--log", level]);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if NOT_FOR_NODES.iter().any(|start| text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        command
            .env(STOP_AT_EOF, "1")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Ctrl-C in the terminal is for this process, which then stops its nodes.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| CommandError::io("start", &program, &error))?;
        self.child = Some(child);
        self.is_halted = false;
        Ok(())
    }

    fn signal(&self, number: Number) -> Result<(), CommandError> {
        let Some(child) = &self.child else {
            let text = format!("node {} does not run", self.site.index);
            return Err(CommandError::new(Exit::Failure, text));
        };
        kill_process(Pid::from_child(child), number)
            .map_err(|error| CommandError::new(Exit::Internal, format!("signal a node: {error}")))
    }

    /// Ends the process at once.
    pub(super) fn kill(&mut self) -> Result<(), CommandError> {
        self.signal(Number::KILL)?;
        if let Some(mut child) = self.child.take() {
            child
                .wait()
                .map_err(|error| CommandError::new(Exit::Internal, error.to_string()))?;
        }
        Ok(())
    }

    /// Halts the process, or lets it go on.
    pub(super) fn halt(&mut self, is_halted: bool) -> Result<(), CommandError> {
        self.signal(match is_halted {
            true => Number::STOP,
            false => Number::CONT,
        })?;
        self.is_halted = is_halted;
        Ok(())
    }

    /// How the process ended, told once.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// The last line that the node wrote.
    fn last_words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(self.site.log_file())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL).read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(text
                .trim_end()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned())
        };
        read().unwrap_or_default()
    }
}

/// All nodes.
pub(super) struct Crew {
    pub(super) nodes: Vec<Node>,
    pub(super) log_level: Option<String>,
}

impl Crew {
    pub(super) fn start(&mut self) -> Result<(), CommandError> {
        let level = self.log_level.as_deref();
        self.nodes.iter_mut().try_for_each(|node| node.start(level))
    }

    /// Waits until every node answers. False: asked to stop meanwhile.
    pub(super) fn await_ready(&mut self, signals: &SignalListener) -> Result<bool, CommandError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for node in &mut self.nodes {
            let mut client = node.site.client();
            loop {
                let answer = client.call_within("uptime", json!([]), ANSWER_TIMEOUT);
                if answer.is_ok() {
                    break;
                }
                if let Some(status) = node.reap() {
                    return Err(ended_early(node, status));
                }
                if let (Err(error), true) = (answer, Instant::now() > deadline) {
                    let text = format!("node {} does not answer: {error}", node.site.index);
                    return Err(CommandError::new(Exit::TimedOut, text));
                }
                if signals.receiver().recv_timeout(POLL_INTERVAL).is_ok() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Says which nodes have ended by themselves.
    pub(super) fn reap(&mut self) {
        for node in &mut self.nodes {
            if let Some(status) = node.reap() {
                let index = node.site.index;
                eprintln!(
                    "timed: node {index} ended ({}): {}; start it again with: timed devnet start {index}",
                    describe(status),
                    node.last_words()
                );
            }
        }
    }

    /// Stops every node: in order if it does so in time, or else by force. A second signal means now. True: all stopped in order.
    pub(super) fn stop(&mut self, signals: &SignalListener) -> bool {
        for node in &mut self.nodes {
            // A halted process takes no signal but these.
            let _gone = node.signal(Number::TERM);
            let _gone = node.signal(Number::CONT);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut is_clean = true;
        let mut now = false;
        while self.nodes.iter().any(|node| node.child.is_some()) {
            for node in &mut self.nodes {
                if let Some(status) = node.reap().filter(|status| !status.success()) {
                    let index = node.site.index;
                    eprintln!("timed: node {index} stopped with {}", describe(status));
                    is_clean = false;
                }
                if node.child.is_some() && (now || Instant::now() > deadline) {
                    eprintln!("timed: node {} is killed", node.site.index);
                    let _gone = node.kill();
                    is_clean = false;
                }
            }
            now |= signals.receiver().recv_timeout(POLL_INTERVAL) == Ok(Signal::Stop);
        }
        is_clean
    }
}

fn ended_early(node: &Node, status: ExitStatus) -> CommandError {
    let code = status.code().unwrap_or_default();
    let found = Exit::ALL
        .into_iter()
        .find(|exit| i32::from(exit.code()) == code);
    let exit = found
        .filter(|exit| *exit != Exit::Success)
        .unwrap_or(Exit::Failure);
    let text = format!(
        "node {} did not start ({}): {}\nits log is {}",
        node.site.index,
        describe(status),
        node.last_words(),
        node.site.log_file().display()
    );
    CommandError::new(exit, text)
}
