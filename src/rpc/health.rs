//! `/health`, `/livez`, `/readyz`: named checks with reasons. Pure: a view, vitals and the time in, a verdict out.
//!
//! Must never look at a clock or wait; what is unknown is not a failure.

use crate::base::time::Now;
use crate::rpc::node::{NodeView, Phase, Vitals};
use crate::types::params::Params;
use serde_json::{Value, json};

/// No quorum for this long while something is due: unhealthy.
pub const NO_QUORUM_MS: u64 = 10_000;
/// Something due for this long without a decision, with a quorum connected: unhealthy.
pub const OVERDUE_MS: u64 = 15_000;
/// A tip older than this many slots: unhealthy.
pub const TIP_AGE_SLOTS: u64 = 3;
/// Less free disk than this: unhealthy.
pub const DISK_FREE_BYTES_MIN: u64 = 1 << 30;
/// Less than this share (percent) of the disk free: unhealthy.
pub const DISK_FREE_PERCENT_MIN: u64 = 5;
/// A thread silent for this long is stuck.
pub const THREAD_SILENT_MS: u64 = 10_000;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found, in words.
    pub reason: String,
}

/// All checks of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether all hold.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
    /// HTTP status: 200 or 503.
    pub fn status(&self) -> u16 {
        if self.is_ok() { 200 } else { 503 }
    }
    /// What failed, in words; empty if nothing did.
    pub fn reasons(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.ok);
        failed
            .map(|c| format!("{}: {}", c.name, c.reason))
            .collect()
    }
    /// The answer.
    pub fn to_json(&self) -> Value {
        let checks = self.checks.iter();
        let checks: Vec<Value> = checks
            .map(|c| json!({"name": c.name, "ok": c.ok, "reason": c.reason}))
            .collect();
        json!({
            "status": if self.is_ok() { "ok" } else { "unhealthy" },
            "reasons": self.reasons(),
            "checks": checks,
        })
    }
}

fn check(name: &'static str, ok: bool, reason: impl Into<String>) -> Check {
    Check {
        name,
        ok,
        reason: reason.into(),
    }
}

/// Everything that says whether this node does its work.
pub fn health(
    phase: &Phase,
    view: &NodeView,
    vitals: &Vitals,
    params: &Params,
    now: Now,
) -> Report {
    let mut checks = vec![
        phase_check(phase),
        quorum(view, now),
        progress(view, now),
        tip_age(view, params, now),
        disk(vitals),
        clock(view),
        queues(vitals),
        peers(view),
    ];
    checks.extend(masternode(view));
    let alarms = view.warnings.join("; ");
    let found = if alarms.is_empty() {
        "none".into()
    } else {
        alarms
    };
    checks.push(check("alarms", view.warnings.is_empty(), found));
    Report { checks }
}

fn phase_check(phase: &Phase) -> Check {
    match phase {
        Phase::Running => check("phase", true, "running"),
        Phase::WarmingUp(what) => check("phase", false, format!("starting: {what}")),
        Phase::Stopping => check("phase", false, "stopping"),
    }
}

fn quorum(view: &NodeView, now: Now) -> Check {
    let c = &view.consensus;
    let Some(since) = c.no_quorum_since else {
        let text = format!("power {} of {} is connected", c.connected, c.total);
        return check("quorum", true, text);
    };
    let ms = now.mono.since(since) / 1_000;
    let text = format!(
        "no quorum for {} s: power {} of {} is connected, {} is needed",
        ms / 1_000,
        c.connected,
        c.total,
        c.quorum
    );
    check("quorum", c.due_since.is_none() || ms < NO_QUORUM_MS, text)
}

fn progress(view: &NodeView, now: Now) -> Check {
    let c = &view.consensus;
    let Some(since) = c.due_since else {
        return check("finality_age", true, "nothing is due");
    };
    let ms = now.mono.since(since) / 1_000;
    let text = format!(
        "height {} is due for {ms} ms and waits for {}",
        c.height, c.waiting_for
    );
    check("finality_age", ms < OVERDUE_MS, text)
}

fn tip_age(view: &NodeView, params: &Params, now: Now) -> Check {
    let age = now.wall.since(view.tip.time);
    let most = params.slot_ms.saturating_mul(TIP_AGE_SLOTS);
    let text = format!(
        "the tip (height {}) is {} s old",
        view.tip.height,
        age / 1_000
    );
    check("tip_age", age <= most, text)
}

fn disk(vitals: &Vitals) -> Check {
    let Some((free, total)) = vitals.disk else {
        return check("disk", true, "not measured");
    };
    let share = total / 100 * DISK_FREE_PERCENT_MIN;
    let text = format!("{} MiB of {} MiB are free", free >> 20, total >> 20);
    check("disk", free >= DISK_FREE_BYTES_MIN && free >= share, text)
}

fn clock(view: &NodeView) -> Check {
    match (&view.clock.alarm, view.clock.offset_ms) {
        (Some(alarm), _) => check("clock", false, alarm.clone()),
        (None, Some(ms)) => check("clock", true, format!("peers differ by {ms} ms")),
        (None, None) => check("clock", true, "too few validators to compare with"),
    }
}

fn queues(vitals: &Vitals) -> Check {
    let full = vitals
        .queues
        .iter()
        .filter(|q| q.capacity > 0 && q.depth >= q.capacity);
    let names: Vec<&str> = full.map(|q| q.name).collect();
    if names.is_empty() {
        return check("queues", true, "none is full");
    }
    check("queues", false, format!("full: {}", names.join(", ")))
}

fn peers(view: &NodeView) -> Check {
    let alone = view.validators.len() <= 1 && view.own.is_some();
    let text = format!("{} connected", view.peers.len());
    check("peers", alone || !view.peers.is_empty(), text)
}

fn masternode(view: &NodeView) -> Option<Check> {
    let own = view.own.as_ref()?;
    let found = match (&own.unsure, own.anchored, &own.abstains) {
        (Some(why), _, _) => Err(format!("UNSURE, does not sign: {why}")),
        (None, false, _) => {
            let why = view.trust.unanchored.as_deref();
            Err(format!("does not sign: {}", why.unwrap_or("unanchored")))
        }
        (None, true, Some(why)) => Err(format!("does not sign: {why}")),
        (None, true, None) => Ok("able to sign"),
    };
    Some(match found {
        Ok(text) => check("masternode", true, text),
        Err(text) => check("masternode", false, text),
    })
}

/// Whether every thread shows signs of life.
pub fn livez(vitals: &Vitals, now: Now) -> Report {
    let threads = vitals.threads.iter();
    let checks = threads
        .map(|t| {
            let ms = now.mono.since(t.last_beat) / 1_000;
            check(
                t.name,
                ms < THREAD_SILENT_MS,
                format!("last beat {ms} ms ago"),
            )
        })
        .collect();
    Report { checks }
}

/// Whether the node may be used: running, synced and, as a masternode, able to sign.
pub fn readyz(phase: &Phase, view: &NodeView) -> Report {
    let mut checks = vec![phase_check(phase)];
    let text = format!(
        "height {}, highest known {}",
        view.tip.height, view.sync.target
    );
    checks.push(check("synced", !view.sync.active, text));
    checks.extend(masternode(view));
    Report { checks }
}
