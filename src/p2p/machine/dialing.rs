//! Whom to dial and when: targets, their backoff, and what a lost connection means for the next dial (B2).
//!
//! Inputs: dials that failed, connections that ended, time. Outputs: [`Effect::Dial`]. Must never dial one target twice at once.

use super::{Effect, HELLO_TIMEOUT_MS, Machine, Peer};
use crate::base::time::{MonoUs, Now};
use crate::crypto::keys::PublicKey;
use std::collections::BTreeSet;

/// First wait before a target is dialled again; doubled up to the cap (B2).
pub(super) const BACKOFF_FIRST_MS: u64 = 100;
/// Longest wait before a target is dialled again.
pub(super) const BACKOFF_CAP_MS: u64 = 30_000;
/// Targets a node keeps at most; more are refused (counted by nobody: configuration and registry are bounded already).
pub const TARGET_COUNT_MAX: usize = 1_024;

/// An address to keep a connection to.
pub(super) struct Target {
    pub address: String,
    pub key: Option<PublicKey>,
    pub dialling: bool,
    pub next: MonoUs,
    pub backoff_ms: u64,
    pub never: bool,
    /// Whether there is a connection with its key.
    pub linked: bool,
}

impl Machine {
    pub(super) fn add_target(&mut self, address: String) {
        let known = self.targets.iter().any(|t| t.address == address);
        if !known && self.targets.len() < TARGET_COUNT_MAX {
            let (next, backoff_ms) = (MonoUs(0), BACKOFF_FIRST_MS);
            self.targets.push(Target {
                address,
                key: None,
                dialling: false,
                next,
                backoff_ms,
                never: false,
                linked: false,
            });
        }
    }

    pub(super) fn wants_dial(&self, target: &Target) -> bool {
        !target.dialling && !target.never && !target.linked
    }

    /// Connections have come or gone: notes which targets have one, so that nothing else needs to compare keys.
    pub(super) fn links_changed(&mut self) {
        let keys: BTreeSet<PublicKey> = self.peers.values().map(|p| p.link.key).collect();
        for target in &mut self.targets {
            target.linked = target.key.is_some_and(|key| keys.contains(&key));
        }
    }

    pub(super) fn dial_failed(&mut self, now: Now, target: usize) {
        let jitter = self.rng.below(BACKOFF_FIRST_MS);
        if let Some(target) = self.targets.get_mut(target) {
            target.dialling = false;
            target.next = now.mono.plus_ms(target.backoff_ms + jitter);
            target.backoff_ms = (target.backoff_ms * 2).min(BACKOFF_CAP_MS);
        }
    }

    /// The connection to a target is gone.
    pub(super) fn target_lost(&mut self, now: Now, gone: &Peer) {
        let lived_ms = now.mono.since(gone.since) / 1_000;
        let jitter = self.rng.below(BACKOFF_FIRST_MS);
        for target in self
            .targets
            .iter_mut()
            .filter(|t| t.key == Some(gone.link.key))
        {
            // A connection that held is dialled again soon; one that fell at once waits longer each time.
            let held = gone.greeted.is_some() && lived_ms >= HELLO_TIMEOUT_MS;
            target.backoff_ms = if held {
                BACKOFF_FIRST_MS
            } else {
                (target.backoff_ms * 2).min(BACKOFF_CAP_MS)
            };
            target.next = now.mono.plus_ms(target.backoff_ms + jitter);
        }
    }

    /// Dials the targets whose time has come.
    pub(super) fn dial_due(&mut self, now: Now) {
        for i in 0..self.targets.len() {
            if self.wants_dial(&self.targets[i]) && now.mono >= self.targets[i].next {
                self.targets[i].dialling = true;
                let address = self.targets[i].address.clone();
                self.out.push(Effect::Dial(i, address));
            }
        }
    }
}
