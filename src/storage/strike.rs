//! The blow that crash tests of whole processes strike: in builds with debug assertions, and in no other, the process is
//! killed at the n-th moment at which something becomes durable, just before it does or just after it has.
//!
//! Input: `TIMECOIN_STRIKE`, the number of the moment, counted from 1 since this program began, or its name. Never: does anything in a
//! release build, or without that variable.

/// Something is about to become durable, or has just become so.
#[cfg(debug_assertions)]
pub fn moment(what: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: OnceLock<Option<String>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let set = || std::env::var("TIMECOIN_STRIKE").ok();
    let Some(at) = AT.get_or_init(set) else {
        return;
    };
    let seen = SEEN.fetch_add(1, Ordering::AcqRel) + 1;
    eprintln!("moment {seen}: {what}");
    if seen.to_string() == *at || what == at {
        // Nothing is flushed, nothing is told: as if the power were gone, but for what the system has taken.
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        log::error!("the process could not be killed: {killed:?}");
    }
}

/// Something is about to become durable, or has just become so: nothing to do.
#[cfg(not(debug_assertions))]
pub fn moment(_: &'static str) {}
