//! Reaching the registered endpoint of a masternode once, to know that it is there (M4): a connection of its own, closed as
//! soon as the operator key is proved. It is no peer: no status, no frames, no place in the count of peers.
//!
//! Inputs: whom to reach where. Outputs: [`Effect::Dial`] beyond the numbers of targets, [`Effect::Reached`]. A failure says
//! nothing; who wants to know asks again. Must never take the proof of another masternode, or keep a probe open.

use super::{Effect, Machine, Peer, TARGET_COUNT_MAX};
use crate::base::time::{MonoUs, Now};
use crate::p2p::messages::*;
use crate::types::ids::*;

/// Probes under way at a time; beyond it one is not begun (it is asked for again).
pub const PROBE_COUNT_MAX: usize = 16;
/// Probes of others that are answered at a time, beside the places for peers.
pub const PROBED_COUNT_MAX: usize = 32;
/// A dial of a probe that has not become a connection by then is given up, ms.
const DIAL_TIMEOUT_MS: u64 = 10_000;

/// Why a connection is there, if not as a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// This node probes: which of its probes.
    Probing(usize),
    /// The other side probes this node.
    Probed,
}

/// A probe under way.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    masternode: MasternodeId,
    address: String,
    since: MonoUs,
    connected: bool,
}

impl Machine {
    /// Reaches a masternode at `address`; a connection that this node dialled there and that proved the key is enough.
    pub(super) fn probe(&mut self, now: Now, masternode: MasternodeId, address: String) {
        let there = |p: &Peer| {
            let target = p.link.target.and_then(|t| self.targets.get(t));
            p.masternode == Some(masternode) && target.is_some_and(|t| t.address == address)
        };
        if self.peers.values().any(there) {
            return self.out.push(Effect::Reached(masternode, address));
        }
        for probe in &mut self.probes {
            let lost = |p: &Probe| !p.connected && now.mono >= p.since.plus_ms(DIAL_TIMEOUT_MS);
            probe.take_if(|p| lost(p));
        }
        let under_way = |p: &Option<Probe>| p.as_ref().is_some_and(|p| p.masternode == masternode);
        if self.probes.iter().any(under_way) {
            return;
        }
        let Some(free) = self.probes.iter().position(Option::is_none) else {
            return;
        };
        self.probes[free] = Some(Probe {
            masternode,
            address: address.clone(),
            since: now.mono,
            connected: false,
        });
        self.out
            .push(Effect::Dial(TARGET_COUNT_MAX + free, address));
    }

    /// The number of a probe, if a dial's number is one.
    pub(super) fn probe_of(&self, target: Option<usize>) -> Option<usize> {
        let number = target?.checked_sub(TARGET_COUNT_MAX)?;
        (number < PROBE_COUNT_MAX).then_some(number)
    }

    /// A probe has its connection; false if it was given up.
    pub(super) fn probe_connected(&mut self, number: usize) -> bool {
        let probe = self.probes.get_mut(number).and_then(Option::as_mut);
        probe.is_some_and(|probe| !std::mem::replace(&mut probe.connected, true))
    }

    /// A probe is over.
    pub(super) fn probe_over(&mut self, number: usize) {
        if let Some(probe) = self.probes.get_mut(number) {
            *probe = None;
        }
    }

    /// A frame on a connection that is a probe of this node.
    pub(super) fn probing(&mut self, now: Now, id: PeerId, number: usize, message: Message) {
        let probe = self.probes.get(number).and_then(Option::as_ref).cloned();
        let done = match (message, probe) {
            (Message::Hello(hello), Some(_)) => {
                hello.chain != self.config.chain || hello.protocol != PROTOCOL_VERSION
            }
            (Message::OperatorProof(proof), Some(probe)) => {
                let registered = self.operators.get(&probe.masternode) == Some(&proof.operator);
                if proof.masternode == probe.masternode
                    && registered
                    && self.proof_holds(id, &proof)
                {
                    let (masternode, address) = (probe.masternode, probe.address);
                    self.out.push(Effect::Reached(masternode, address));
                }
                true
            }
            (_, Some(_)) => false,
            (_, None) => true,
        };
        if done {
            self.close(id, "the probe is over", false);
            self.closed(now, id);
        }
    }

    /// How many connections are probes of others.
    pub(super) fn probed_count(&self) -> usize {
        let probed = |p: &&Peer| p.visit == Some(Visit::Probed);
        self.peers.values().filter(probed).count()
    }
}
