//! How `timed devnet kill 2` reaches the devnet that runs: a unix socket in a directory of this user.
//!
//! Job: announce a devnet, find one, carry one request and its answer. Inputs: actions. Outputs: JSON. Never: signals a process
//! itself: only the devnet knows whether a process number is still its node.

use crate::node::cli::DevnetAction;
use crate::node::commands::CommandError;
use crate::node::exit::Exit;
use crate::node::files::{private_directory, write_private};
use crossbeam::channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest request or answer, bytes.
const LINE_SIZE_MAX: u64 = 64 << 10;
/// Longest path of a unix socket that Linux takes.
const SOCKET_PATH_MAX: usize = 107;
/// Time for the other side to read or write.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
/// Name of the file in the network's directory that says who runs it.
const STATE_FILE: &str = "devnet.json";

/// A request and where its answer goes.
pub(super) struct Job {
    pub(super) action: DevnetAction,
    pub(super) reply: Sender<Value>,
}

/// A devnet that can be found, until this is dropped.
pub(super) struct Announcement {
    files: Vec<PathBuf>,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        for file in &self.files {
            let _gone = std::fs::remove_file(file);
        }
    }
}

/// The directory of this user's running devnets.
fn runtime_directory() -> Result<PathBuf, CommandError> {
    let own = rustix::process::geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let given = given.filter(|path| path.is_absolute() && path.is_dir());
    let dir = match given {
        Some(path) => path.join("timecoin-devnet"),
        None => std::env::temp_dir().join(format!("timecoin-devnet-{own}")),
    };
    private_directory(&dir, 0o077)?;
    let metadata = std::fs::symlink_metadata(&dir)
        .map_err(|error| CommandError::io("look at", &dir, &error))?;
    if metadata.uid() != own || !metadata.is_dir() {
        let text = format!(
            "{} is not a directory of this user; set XDG_RUNTIME_DIR to one that is",
            dir.display()
        );
        return Err(CommandError::new(Exit::Permission, text));
    }
    Ok(dir)
}

/// Makes the devnet in `dir` known and listens for requests. `facts` is what the files tell beside the socket.
pub(super) fn announce(
    dir: &Path,
    facts: Value,
) -> Result<(Announcement, Receiver<Job>), CommandError> {
    if let Some(path) = socket_of(&dir.join(STATE_FILE)).filter(|path| is_alive(path)) {
        let text = format!(
            "the devnet in {} runs already ({} answers); stop that one first",
            dir.display(),
            path.display()
        );
        return Err(CommandError::new(Exit::Unavailable, text));
    }
    let name = std::process::id();
    let runtime = runtime_directory()?;
    let socket = runtime.join(format!("{name}.sock"));
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        let text = format!(
            "{} is too long a path for a socket; set XDG_RUNTIME_DIR to a shorter one",
            socket.display()
        );
        return Err(CommandError::new(Exit::Config, text));
    }
    let mut state = json!({ "dir": dir, "pid": name, "socket": socket });
    if let (Some(state), Value::Object(facts)) = (state.as_object_mut(), facts) {
        state.extend(facts);
    }
    let files = vec![
        socket.clone(),
        dir.join(STATE_FILE),
        runtime.join(format!("{name}.json")),
    ];
    // A process of the same number that crashed may have left one.
    let _gone = std::fs::remove_file(&socket);
    let failed = |error: std::io::Error| CommandError::io("listen at", &socket, &error);
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    let announcement = Announcement { files };
    let text = format!("{state:#}\n");
    for file in announcement.files.iter().skip(1) {
        write_private(file, text.as_bytes())?;
    }
    let (jobs, inbox) = bounded(1);
    let thread = std::thread::Builder::new().name("control".into());
    thread
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes wrong fails itself only.
                let _failed = serve(stream, &jobs);
            }
        })
        .map_err(failed)?;
    Ok((announcement, inbox))
}

fn serve(stream: UnixStream, jobs: &Sender<Job>) -> std::io::Result<()> {
    let answer = match read_line(&stream)?.as_str().parse::<Value>() {
        Ok(request) => match action(&request) {
            Some(action) => {
                let (reply, answer) = bounded(1);
                let gone = |_| std::io::Error::other("the devnet stops");
                jobs.send(Job { action, reply }).map_err(gone)?;
                answer
                    .recv_timeout(IO_TIMEOUT)
                    .unwrap_or_else(|_| json!({ "error": "the devnet did not answer", "exit": 75 }))
            }
            None => json!({ "error": "no such action", "exit": 64 }),
        },
        Err(error) => json!({ "error": error.to_string(), "exit": 64 }),
    };
    (&stream).write_all(format!("{answer}\n").as_bytes())
}

fn read_line(stream: &UnixStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_SIZE_MAX)).read_line(&mut line)?;
    Ok(line)
}

fn action(request: &Value) -> Option<DevnetAction> {
    let node = || u16::try_from(request.get("node")?.as_u64()?).ok();
    Some(match request.get("action")?.as_str()? {
        "status" => DevnetAction::Status,
        "kill" => DevnetAction::Kill(node()?),
        "start" => DevnetAction::Start(node()?),
        "pause" => DevnetAction::Pause(node()?),
        "resume" => DevnetAction::Resume(node()?),
        _ => return None,
    })
}

fn request(action: &DevnetAction) -> Value {
    let named = |name: &str, node: &u16| json!({ "action": name, "node": node });
    match action {
        DevnetAction::Status | DevnetAction::Faucet { .. } => json!({ "action": "status" }),
        DevnetAction::Kill(node) => named("kill", node),
        DevnetAction::Start(node) => named("start", node),
        DevnetAction::Pause(node) => named("pause", node),
        DevnetAction::Resume(node) => named("resume", node),
    }
}

fn socket_of(state_file: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(state_file).ok()?;
    let state: Value = text.parse().ok()?;
    state.get("socket")?.as_str().map(PathBuf::from)
}

fn is_alive(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// The socket of the devnet in `dir`, or of the newest one of this user.
fn find(dir: Option<&Path>) -> Result<PathBuf, CommandError> {
    if let Some(dir) = dir {
        let socket = socket_of(&dir.join(STATE_FILE)).filter(|socket| is_alive(socket));
        return socket.ok_or_else(|| {
            let text = format!(
                "no devnet runs in {}; start it with: timed devnet --dir {}",
                dir.display(),
                dir.display()
            );
            CommandError::new(Exit::Unavailable, text)
        });
    }
    let runtime = runtime_directory()?;
    let entries =
        std::fs::read_dir(&runtime).map_err(|error| CommandError::io("read", &runtime, &error))?;
    let states = entries.flatten().map(|entry| entry.path());
    let states = states.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut states: Vec<_> = states
        .filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    states.sort();
    let sockets = states.iter().rev().filter_map(|(_, path)| socket_of(path));
    sockets
        .into_iter()
        .find(|socket| is_alive(socket))
        .ok_or_else(|| {
            let text = "no devnet of this user runs; start one with: timed devnet";
            CommandError::new(Exit::Unavailable, text)
        })
}

/// Asks a running devnet to do something; its answer.
pub(super) fn ask(dir: Option<&Path>, action: &DevnetAction) -> Result<Value, CommandError> {
    let socket = find(dir)?;
    let failed = |error: std::io::Error| CommandError::io("talk to", &socket, &error);
    let stream = UnixStream::connect(&socket).map_err(failed)?;
    let line = format!("{}\n", request(action));
    (&stream).write_all(line.as_bytes()).map_err(failed)?;
    let line = read_line(&stream).map_err(failed)?;
    let answer: Value = line.parse().map_err(|_| {
        CommandError::new(
            Exit::NotReady,
            "the devnet gave no answer: it may be stopping",
        )
    })?;
    match answer.get("error").and_then(Value::as_str) {
        None => Ok(answer),
        Some(text) => {
            let code = answer.get("exit").and_then(Value::as_u64);
            let found = Exit::ALL
                .into_iter()
                .find(|exit| Some(u64::from(exit.code())) == code);
            Err(CommandError::new(found.unwrap_or(Exit::Failure), text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_for_a_node_survives_the_way_to_the_devnet() {
        for sent in [
            DevnetAction::Status,
            DevnetAction::Kill(1),
            DevnetAction::Start(2),
            DevnetAction::Pause(3),
            DevnetAction::Resume(65_535),
        ] {
            assert_eq!(action(&request(&sent)), Some(sent));
        }
        for text in [
            "{}",
            "[]",
            r#"{"action":"kill"}"#,
            r#"{"action":"kill","node":65536}"#,
        ] {
            let request: Value = text.parse().expect("JSON");
            assert_eq!(action(&request), None, "{text} asks for nothing");
        }
    }
}
