//! A node from start to stop: opens what is on disk, makes threads and queues in one place, waits for signals, stops in
//! order. Starting is recovering; there is no other way to start.

mod open;
mod site;
mod takeback;
mod threads;

use crate::node::config::Config;
use crate::node::exit::Exit;
use crate::node::signals::{Signal, SignalListener};
use crate::node::trust::TrustFile;
use crate::node::{devnet, logging, notify};
use crate::rpc::node::{Node, NodeView};
use crate::sync::trust::Anchor;
use crossbeam::channel::RecvTimeoutError;
pub(in crate::node) use open::load_genesis;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a node could not start or go on, with the exit code that says so.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// What happened and what to do.
    pub message: String,
    /// Exit code.
    pub exit: u8,
}

impl RunError {
    fn new(message: impl std::fmt::Display, exit: Exit) -> RunError {
        RunError {
            message: message.to_string(),
            exit: exit.code(),
        }
    }
}

/// A thread that shows no life for this long is stuck: the watchdog is not fed then.
const STUCK: Duration = Duration::from_secs(15);

/// Runs a node until it is told to stop. The result is the process's exit code.
pub fn run(config: &Config) -> u8 {
    if let Err(error) = logging::init(&config.log.level, config.log.format) {
        eprintln!("timed: {error}");
        return error.exit().code();
    }
    // A thread that panics leaves a node that half works; none does.
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        log::error!("a thread panicked: {info}");
        std::process::abort();
    }));
    match start_and_wait(config) {
        // Everything is on disk and every thread has ended: the same program takes this process over (B6 step 5, F4).
        Ok(Some(stop)) if !stop.load(Ordering::Acquire) => again(),
        Ok(_) => Exit::Success.code(),
        Err(error) => {
            log::error!("{error}");
            error.exit
        }
    }
}

/// Starts the same program again in this process. Returns only if that fails.
fn again() -> u8 {
    use std::os::unix::process::CommandExt;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            log::error!("cannot start again: {error}; start the node by hand");
            return Exit::NotReady.code();
        }
    };
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec();
    log::error!("cannot start again: {error}; start the node by hand");
    Exit::NotReady.code()
}

/// Whether the node is to start again, unless what is returned is raised: somebody wants it to stop.
fn start_and_wait(config: &Config) -> Result<Option<Arc<AtomicBool>>, RunError> {
    let signals = SignalListener::start().map_err(|e| RunError::new(e, Exit::Internal))?;
    if std::env::var_os(devnet::STOP_AT_EOF).is_some() {
        stop_at_end_of_input()?;
    }
    let opened = open::open(config)?;
    let node = threads::start(config, opened)?;
    let view = node.handle.view();
    log::info!("ready: height {} at {}", view.tip.height, view.tip.id);
    notify::ready(&format!("height {}", view.tip.height));
    wait(config, &signals, &node);
    let stop = signals.stop_asked();
    let asked = node.handle.stopping.load(Ordering::Acquire) || stop.load(Ordering::Acquire);
    let again = node.handle.restart.load(Ordering::Acquire) && !asked;
    if !again {
        notify::stopping();
    }
    log::info!("stopping");
    node.stop()?;
    Ok(again.then_some(stop))
}

/// Whoever started this node holds the other end of its standard input: when that ends, so does the node.
fn stop_at_end_of_input() -> Result<(), RunError> {
    let thread = std::thread::Builder::new().name("stdin".into());
    let spawned = thread.spawn(|| {
        let ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        if let Err(error) = ended {
            log::warn!("standard input: {error}");
        }
        log::info!("standard input has ended: whoever started this node is gone");
        if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGTERM) {
            log::error!("cannot stop: {error}");
        }
    });
    spawned
        .map(drop)
        .map_err(|error| RunError::new(error, Exit::Internal))
}

/// Feeds the watchdog and shows the status until a stop is asked for, by a signal or by RPC.
fn wait(config: &Config, signals: &SignalListener, node: &threads::Running) {
    let mut doubted = node.handle.view().trust.unanchored.is_some();
    let interval = notify::watchdog_interval()
        .unwrap_or(Duration::from_secs(2))
        .min(Duration::from_secs(1));
    let ends = || {
        node.handle.stopping.load(Ordering::Acquire) || node.handle.restart.load(Ordering::Acquire)
    };
    while !ends() {
        match signals.receiver().recv_timeout(interval) {
            Ok(Signal::Stop) => break,
            Ok(Signal::Reload) => reload(config, node),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = node.handle.clock.mono();
        let stuck = node.handle.gauges.iter().map(|gauge| gauge.view());
        let stuck = stuck.filter(|view| now.since(view.last_beat) > STUCK.as_micros() as u64);
        let stuck: Vec<&str> = stuck.map(|view| view.name).collect();
        if stuck.is_empty() {
            notify::watchdog();
        } else {
            log::error!("threads without a sign of life: {}", stuck.join(", "));
        }
        let view = node.handle.view();
        remember_trust(node, &view, &mut doubted);
        notify::status(&format!(
            "height {}, {}",
            view.tip.height, view.consensus.waiting_for
        ));
    }
}

/// Writes down where belief ended, or that it is back, so that a restart does not change it (F2).
fn remember_trust(node: &threads::Running, view: &NodeView, doubted: &mut bool) {
    let now = view.trust.unanchored.is_some();
    if now == *doubted {
        return;
    }
    let path = node.handle.datadir.trust();
    let written = TrustFile::read(&path).and_then(|mut file| {
        file.anchor = now.then_some(Anchor {
            height: view.trust.anchor,
            time: view.trust.anchor_time,
        });
        file.write(&path)
    });
    match (written, &view.trust.unanchored) {
        (Err(error), _) => return log::error!("{error}"),
        (Ok(()), Some(why)) => log::warn!(
            "{why}; this node's tip is {}:{}",
            view.tip.height,
            view.tip.id
        ),
        (Ok(()), None) => log::info!("anchored again at height {}", view.trust.anchor),
    }
    *doubted = now;
}

/// SIGHUP: log level, rpc users and limits, peers to add.
fn reload(config: &Config, node: &threads::Running) {
    let flags = crate::node::config::Flags {
        config: config.file.clone(),
        ..Default::default()
    };
    match Config::load(&crate::node::config::Inputs::of_process(flags)) {
        Ok(fresh) => {
            if node.handle.set_log_filter(&fresh.log.level).is_ok() {
                log::info!("configuration read again");
            }
            node.reload(&fresh);
        }
        Err(error) => log::error!("the configuration is not read again: {error}"),
    }
}
