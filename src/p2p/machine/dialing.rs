//! Whom to dial and when: targets, their backoff, and what a lost connection means for the next dial (B2).
//!
//! Inputs: dials that failed, connections that ended, time. Outputs: [`Effect::Dial`]. Must never dial one target twice at once.

use super::{Effect, HELLO_TIMEOUT_MS, Machine, Peer, Search};
use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now};
use crate::crypto::keys::PublicKey;
use crate::types::ids::MasternodeId;
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

/// First wait before a target is dialled again; doubled up to the cap (B2).
pub(super) const BACKOFF_FIRST_MS: u64 = 100;
/// Longest wait before a target is dialled again.
pub(super) const BACKOFF_CAP_MS: u64 = 30_000;
/// Targets a node keeps at most; more are refused (counted by nobody: configuration and registry are bounded already).
pub const TARGET_COUNT_MAX: usize = 1_024;

/// Members of the set that a node outside it dials: enough to hear of decisions from one that works, few enough that a
/// hundred masternodes have room for thousands of nodes.
pub const MEMBERS_DIALLED: usize = 4;

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
    /// What the search for peers wants of it.
    pub search: Option<Search>,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Whether it is to be dialled once, by hand.
    pub once: bool,
    /// The member of the set whose registered endpoint it is.
    pub member: Option<MasternodeId>,
}

impl Machine {
    pub(super) fn add_target(&mut self, address: String) {
        let host = address.parse::<SocketAddr>().ok();
        self.exempt
            .extend(host.map(|host| host.ip().to_canonical()));
        if let Some(target) = self.target_at(address) {
            target.configured = true;
        }
    }

    /// Addresses of configured peers and registered endpoints.
    pub fn exempt(&self) -> &BTreeSet<IpAddr> {
        &self.exempt
    }

    /// Dials an address once.
    pub(super) fn try_target(&mut self, address: String) {
        if let Some(target) = self.target_at(address) {
            target.once = true;
        }
    }

    /// Gives an address up: a connection stays, and nobody dials it again.
    pub(super) fn remove_target(&mut self, address: &str) {
        for target in self.targets.iter_mut().filter(|t| t.address == address) {
            target.configured = false;
        }
    }

    /// Whether a connection to this address is kept up for the configuration or by hand.
    pub fn is_target(&self, address: &str) -> bool {
        let kept = |t: &Target| t.configured && t.address == address;
        self.targets.iter().any(kept)
    }

    /// The target of an address; a place that nobody wants any more is taken before a new one is made.
    pub(super) fn target_at(&mut self, address: String) -> Option<&mut Target> {
        let known = self.targets.iter().position(|t| t.address == address);
        if let Some(i) = known {
            return self.targets.get_mut(i);
        }
        let target = Target {
            address,
            key: None,
            dialling: false,
            next: MonoUs(0),
            backoff_ms: BACKOFF_FIRST_MS,
            never: false,
            linked: false,
            search: None,
            configured: false,
            once: false,
            member: None,
        };
        let linked = |i: usize| self.peers.values().any(|p| p.link.target == Some(i));
        let free = |(i, t): (usize, &Target)| {
            let wanted =
                t.configured || t.once || t.search.is_some() || t.member.is_some() || t.dialling;
            (!wanted && !linked(i)).then_some(i)
        };
        if let Some(i) = self.targets.iter().enumerate().find_map(free) {
            self.targets[i] = target;
            return self.targets.get_mut(i);
        }
        if self.targets.len() >= TARGET_COUNT_MAX {
            return None;
        }
        self.targets.push(target);
        self.targets.last_mut()
    }

    /// The set has changed: its members' endpoints are targets, those of others are none any more. Connections stay.
    pub(super) fn follow(&mut self, members: &BTreeMap<MasternodeId, String>) {
        let configured = self.targets.iter().filter(|t| t.configured);
        let named = configured.map(|t| &t.address).chain(members.values());
        let hosts = named.filter_map(|address| address.parse::<SocketAddr>().ok());
        self.exempt = hosts.map(|host| host.ip().to_canonical()).collect();
        for target in &mut self.targets {
            let still = |id: &MasternodeId| members.get(id) == Some(&target.address);
            target.member = target.member.filter(still);
        }
        let others = members.iter().filter(|(id, _)| Some(**id) != self.me);
        let mut others: Vec<(MasternodeId, String)> = others
            .filter(|(_, address)| !address.is_empty())
            .map(|(id, address)| (*id, address.clone()))
            .collect();
        // Members of the set know each other; everybody else a few of them, each others.
        if !self.me.is_some_and(|me| members.contains_key(&me)) {
            let start = |bytes: &[u8; 32]| {
                bytes
                    .iter()
                    .take(8)
                    .fold(0, |sum, b| sum << 8 | u64::from(*b))
            };
            let own = start(&self.config.node_key.0);
            let rank = |id: &MasternodeId| Rng::new(own ^ start(&id.0.0)).next_u64();
            others.sort_by_key(|(id, _)| rank(id));
            others.truncate(MEMBERS_DIALLED);
            let named = |id: &MasternodeId| others.iter().any(|(other, _)| other == id);
            for target in &mut self.targets {
                target.member = target.member.filter(named);
            }
        }
        for (id, address) in others {
            if let Some(target) = self.target_at(address) {
                target.member = Some(id);
            }
        }
    }

    pub(super) fn wants_dial(&self, target: &Target) -> bool {
        let wanted =
            target.configured || target.once || target.search.is_some() || target.member.is_some();
        wanted && !target.dialling && !target.never && !target.linked
    }

    /// Connections have come or gone: notes which targets have one, so that nothing else needs to compare keys.
    pub(super) fn links_changed(&mut self) {
        self.due = MonoUs(0);
        let peers = self.peers.values().filter(|p| p.visit.is_none());
        let keys: BTreeSet<PublicKey> = peers.map(|p| p.link.key).collect();
        for target in &mut self.targets {
            target.linked = target.key.is_some_and(|key| keys.contains(&key));
        }
    }

    pub(super) fn dial_failed(&mut self, now: Now, target: usize) {
        if let Some(number) = self.probe_of(Some(target)) {
            return self.probe_over(number);
        }
        self.search_failed(target);
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
            // Whom the search found, it may find again.
            target.search = None;
        }
    }

    /// Dials the targets whose time has come.
    pub(super) fn dial_due(&mut self, now: Now) {
        for i in 0..self.targets.len() {
            if self.wants_dial(&self.targets[i]) && now.mono >= self.targets[i].next {
                self.targets[i].dialling = true;
                self.targets[i].once = false;
                let address = self.targets[i].address.clone();
                self.out.push(Effect::Dial(i, address));
            }
        }
    }
}
