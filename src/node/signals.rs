//! Signals of the process: SIGTERM and SIGINT stop, SIGHUP reloads.
//!
//! Job: turn signals into values on a bounded channel. Inputs: the operating system. Outputs: [`Signal`]s.
//! Never: does anything in a signal handler but wake the thread that waits here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Signals that wait to be read. One of each kind is enough: a repeat says nothing new, so when full the new one is dropped.
/// The last place is kept for [`Signal::Stop`]: no flood of the others can make a stop unheard.
const PENDING_COUNT_MAX: usize = 4;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop in order (SIGTERM, SIGINT).
    Stop,
    /// Read the configuration again (SIGHUP).
    Reload,
}

impl Signal {
    fn of_number(number: i32) -> Option<Self> {
        match number {
            SIGTERM | SIGINT => Some(Signal::Stop),
            SIGHUP => Some(Signal::Reload),
            _ => None,
        }
    }
}

/// Queues a signal if there is room for its kind; false once nobody listens any more.
fn pass_on(sender: &Sender<Signal>, signal: Signal) -> bool {
    if signal != Signal::Stop && sender.len() + 1 >= PENDING_COUNT_MAX {
        return true;
    }
    !matches!(sender.try_send(signal), Err(TrySendError::Disconnected(_)))
}

/// Listens for signals until dropped.
pub struct SignalListener {
    receiver: Receiver<Signal>,
    stop: Arc<AtomicBool>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalListener {
    /// Starts to listen, on a thread of its own. From here on SIGTERM, SIGINT and SIGHUP no longer end the process.
    pub fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, stop.clone())?;
        }
        let handle = signals.handle();
        let (sender, receiver) = bounded(PENDING_COUNT_MAX);
        let thread = std::thread::Builder::new().name("signals".into());
        let thread = thread.spawn(move || {
            for signal in signals.forever().filter_map(Signal::of_number) {
                if !pass_on(&sender, signal) {
                    break;
                }
            }
        })?;
        Ok(SignalListener {
            receiver,
            stop,
            handle,
            thread: Some(thread),
        })
    }

    /// Raised by the first signal that asks for a stop, for good, also after this listener is gone: a stop that is asked for while
    /// the process starts itself again must not be lost.
    pub fn stop_asked(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// The channel of signals, to wait on with a timeout or in a select.
    pub fn receiver(&self) -> &Receiver<Signal> {
        &self.receiver
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    #[test]
    fn a_stop_is_heard_behind_any_number_of_reloads() {
        let (sender, receiver) = bounded(PENDING_COUNT_MAX);
        for _ in 0..20 {
            assert!(pass_on(&sender, Signal::Reload), "never blocks, never ends");
        }
        assert!(pass_on(&sender, Signal::Stop));
        let heard: Vec<Signal> = receiver.try_iter().collect();
        assert_eq!(heard.last(), Some(&Signal::Stop), "{heard:?}");
        drop(receiver);
        assert!(!pass_on(&sender, Signal::Stop), "nobody listens");
    }

    #[test]
    fn hangup_reloads_and_a_flood_of_signals_blocks_nothing() {
        let listener = SignalListener::start().expect("started");
        for _ in 0..20 {
            signal_hook::low_level::raise(SIGHUP).expect("raised");
        }
        let signal = listener.receiver().recv_timeout(Duration::from_secs(30));
        assert_eq!(signal, Ok(Signal::Reload), "SIGHUP reloads");
        signal_hook::low_level::raise(SIGTERM).expect("raised");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while let Ok(signal) = listener.receiver().recv_deadline(deadline) {
            if signal == Signal::Stop {
                assert!(listener.stop_asked().load(Ordering::Acquire), "for good");
                return;
            }
        }
        panic!("SIGTERM asks for a stop");
    }
}
