//! From a fresh transport to a peer that has greeted and perhaps proved an operator key (P1): Hello, duplicates, OperatorProof.
//!
//! Inputs: links and greetings. Outputs: effects in the machine's list. Must never trust a peer with anything before its Hello,
//! or take a proof that was made for another session, direction or pair of keys.

use super::probing::{PROBED_COUNT_MAX, Visit};
use super::{Effect, Link, Machine, Peer, PeerFacts};
use crate::base::limits::PEER_COUNT_MAX;
use crate::base::time::{MonoUs, Now};
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Check;
use crate::p2p::address::{Group, is_this_host};
use crate::p2p::messages::*;
use crate::types::codec;
use crate::types::ids::*;
use std::collections::BTreeMap;

/// Operator proofs of one connection; beyond it a peer is closed.
const PROOFS_MAX: u8 = 16;

/// Connections that have greeted when no place was free, and may still prove a masternode's key.
const WAITING_COUNT_MAX: usize = 32;
/// Inbound connections of observers from one address (configured peers, registered endpoints and this host excepted).
const INBOUND_PER_ADDRESS: usize = 8;
/// The same from one network group.
const INBOUND_PER_GROUP: usize = 16;

/// What an OperatorProof signs (P1).
pub fn proof_hash(
    chain: ChainId,
    exporter: &[u8; 32],
    prover_dialled: bool,
    prover: &PublicKey,
    verifier: &PublicKey,
    masternode: &MasternodeId,
) -> Hash {
    codec::hash_of(
        Domain::OperatorProof,
        &(
            chain,
            exporter,
            prover_dialled,
            prover,
            verifier,
            masternode,
        ),
    )
}

impl Machine {
    pub(super) fn connected(&mut self, now: Now, link: Link) {
        if let Some(target) = link.target.and_then(|t| self.targets.get_mut(t)) {
            target.key = Some(link.key);
            target.dialling = false;
            target.never = link.key == self.config.node_key;
        }
        let peer = link.peer;
        let probe = self.probe_of(link.target);
        if probe.is_some_and(|number| !self.probe_connected(number)) {
            return self.close(peer, "the probe was given up", false);
        }
        let greeted = |p: &&Peer| p.visit.is_none() && p.masternode.is_none();
        let inbound = self
            .peers
            .values()
            .filter(|p| p.link.target.is_none() && greeted(p))
            .count();
        // A duplicate may replace an older connection, so it is judged before the count is.
        let doubled = self.peers.values().any(|p| p.link.key == link.key);
        // Whether it probes is known with its Hello only.
        let places = self.config.inbound_max + PROBED_COUNT_MAX + WAITING_COUNT_MAX;
        let full = inbound >= places - self.probed_count() || self.crowd_of(&link).is_some();
        // Where all masternodes of a great set start at once and dial one another, pairs have two connections for a moment.
        let crowded = self.peers.len() >= PEER_COUNT_MAX && (doubled || link.target.is_none());
        if link.key == self.config.node_key {
            self.close(peer, "connected to itself", false);
        } else if crowded || link.target.is_none() && full && !doubled {
            self.close(peer, "no place for another inbound peer", false);
        } else {
            let since = now.mono;
            self.peers.insert(
                peer,
                Peer {
                    link,
                    visit: probe.map(Visit::Probing),
                    since,
                    greeted: None,
                    waiting: None,
                    exchange: Default::default(),
                    proof: None,
                    proofs: 0,
                    masternode: None,
                    heard: since,
                    pinged: since,
                    ping_us: None,
                    told: Height(0),
                },
            );
            if !self.refuse_banned(now, peer) {
                self.greet(now, peer);
            }
        }
        self.links_changed();
    }

    fn greet(&mut self, now: Now, peer: PeerId) {
        let visit = self.peers.get(&peer).and_then(|p| p.visit);
        let cut = |text: &str| text.bytes().take(64).collect::<Vec<u8>>();
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            chain: self.config.chain,
            agent: cut(&self.config.agent).try_into().unwrap_or_default(),
            supports: self.config.supports,
            endpoint: self.config.endpoint.clone(),
            status: Status {
                clock: now.wall,
                ..self.status
            },
            probe: visit.is_some(),
        };
        self.out
            .push(Effect::Send(peer, Message::Hello(Box::new(hello))));
    }

    pub(super) fn reject(&mut self, peer: PeerId, why: &str) {
        let reason = RejectReason::try_from(why.as_bytes().to_vec()).unwrap_or_default();
        self.out.push(Effect::Send(peer, Message::Reject(reason)));
        self.close(peer, why, false);
    }

    pub(super) fn hello(&mut self, now: Now, id: PeerId, hello: Hello) {
        if hello.chain != self.config.chain {
            return self.reject(id, "another network (genesis differs)");
        }
        if hello.protocol != PROTOCOL_VERSION {
            return self.reject(id, "another protocol version");
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if hello.probe {
            return self.probed_by(id);
        }
        let (key, inbound) = (peer.link.key, peer.link.target.is_none());
        let others = self.peers.values().filter(|p| {
            let counts = p.visit.is_none() && p.masternode.is_none() && p.greeted.is_some();
            p.link.target.is_none() && counts
        });
        let full = inbound
            && others.count() >= self.config.inbound_max
            && self.duplicate_of(id, key).is_none()
            && !self.make_place(now, id);
        if self.found(now, id) {
            self.close(id, "somebody is there", false);
            return self.closed(now, id);
        }
        if let Some(loser) = self.duplicate_of(id, key) {
            self.close(loser, "a second connection of the same pair", false);
            if loser == id {
                self.peers.remove(&id);
                return self.links_changed();
            }
            if self
                .peers
                .remove(&loser)
                .is_some_and(|p| p.greeted.is_some())
            {
                self.out.push(Effect::Down(loser));
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let text = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|b| char::from(*b))
                .filter(char::is_ascii_graphic)
                .collect()
        };
        let facts = PeerFacts {
            key,
            address: peer.link.address.clone(),
            inbound: peer.link.target.is_none(),
            agent: text(&hello.agent),
            protocol: hello.protocol,
            status: hello.status,
            endpoint: hello.endpoint.as_deref().map(text),
        };
        peer.told = hello.status.height;
        peer.waiting = Some(facts);
        // All places of observers are taken: those of masternodes are not (B2).
        if !self.config.require_stake && !full {
            self.admit(now, id);
        }
        self.prove(id);
    }

    /// A peer that has greeted is one of ours now.
    fn admit(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(facts) = peer.waiting.take() else {
            return;
        };
        peer.greeted = Some(facts.clone());
        peer.pinged = now.mono;
        let (endpoint, status) = (facts.endpoint.clone(), facts.status);
        self.out.push(Effect::Up(id, facts));
        self.out.push(Effect::StatusOf(id, status));
        self.exchange(now, id, endpoint.as_deref());
    }

    fn observers(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        let observes = |p: &Peer| p.visit.is_none() && p.masternode.is_none();
        let all = self.peers.iter().map(|(id, p)| (*id, p));
        all.filter(move |(_, p)| p.link.target.is_none() && observes(p))
    }

    /// Why there are too many from where a newcomer is: strangers of one address or network group have few places.
    fn crowd_of(&self, link: &Link) -> Option<&'static str> {
        let ip = link.remote?.ip().to_canonical();
        if link.target.is_some() || self.exempt.contains(&ip) || is_this_host(ip) {
            return None;
        }
        let there = |p: &Peer| p.link.remote.map(|remote| remote.ip().to_canonical());
        let near = |p: &Peer| there(p).is_some_and(|other| Group::of(other) == Group::of(ip));
        let (mut of_address, mut of_group) = (0, 0);
        for (_, peer) in self.observers() {
            of_address += usize::from(there(peer) == Some(ip));
            of_group += usize::from(near(peer));
        }
        let full = of_address >= INBOUND_PER_ADDRESS || of_group >= INBOUND_PER_GROUP;
        full.then_some("too many from one network")
    }

    /// All places of observers are taken: the youngest of the network group that has most of them gives way, if the
    /// newcomer's own group has fewer. So nobody fills the places from few networks.
    fn make_place(&mut self, now: Now, newcomer: PeerId) -> bool {
        let group = |p: &Peer| p.link.remote.map(|remote| Group::of(remote.ip()));
        let own = self.peers.get(&newcomer).and_then(group);
        let mut groups: BTreeMap<Option<Group>, Vec<(MonoUs, PeerId)>> = BTreeMap::new();
        for (id, peer) in self.observers().filter(|(_, p)| p.greeted.is_some()) {
            groups
                .entry(group(peer))
                .or_default()
                .push((peer.since, id));
        }
        let of_own = groups.get(&own).map_or(0, Vec::len);
        let Some(most) = groups.values().max_by_key(|all| all.len()) else {
            return false;
        };
        let youngest = most.iter().max().filter(|_| most.len() > of_own + 1);
        let Some((_, loser)) = youngest.copied() else {
            return false;
        };
        self.reject(loser, "its place went to another network");
        self.closed(now, loser);
        true
    }

    /// A probe of another node: it is shown the operator key, and closes.
    fn probed_by(&mut self, id: PeerId) {
        if self.probed_count() >= PROBED_COUNT_MAX {
            return self.close(id, "too many probes", false);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.visit = Some(Visit::Probed);
        }
        self.links_changed();
        self.prove(id);
        if self.me.is_some() {
            self.out.push(Effect::Probed);
        }
    }

    /// The registry has changed: for whom does this node's key speak? Peers are shown it anew if that is another.
    pub(super) fn find_me(&mut self) {
        let own = self.config.operator.as_ref().map(|secret| secret.public());
        let named = self.operators.iter().find(|(_, key)| Some(**key) == own);
        let me = named.map(|(id, _)| *id);
        if me != self.me {
            self.me = me;
            let greeted = self.peers.iter().filter(|(_, p)| p.greeted.is_some());
            let greeted: Vec<PeerId> = greeted.map(|(id, _)| *id).collect();
            greeted.into_iter().for_each(|peer| self.prove(peer));
        }
    }

    /// Of two connections of one pair the one dialled by the lower node key stays (P1). Of two dialled by the same side the
    /// one with the lower exporter value stays: both ends know it, and it is the same whichever Hello arrives first.
    fn duplicate_of(&self, id: PeerId, key: PublicKey) -> Option<PeerId> {
        let greeted = |p: &&Peer| p.link.key == key && p.link.peer != id && p.greeted.is_some();
        let other = self.peers.values().find(greeted)?;
        let this = self.peers.get(&id)?;
        let rank = |p: &Peer| {
            let low_dials = p.link.target.is_some() == (self.config.node_key < key);
            (!low_dials, p.link.exporter)
        };
        match rank(this) < rank(other) {
            true => Some(other.link.peer),
            false => Some(id),
        }
    }

    fn prove(&mut self, id: PeerId) {
        let own = self.me.as_ref().zip(self.config.operator.as_ref());
        let (Some((masternode, secret)), Some(peer)) = (own, self.peers.get(&id)) else {
            return;
        };
        let dialled = peer.link.target.is_some();
        let (own, other) = (&self.config.node_key, &peer.link.key);
        let message = proof_hash(
            self.config.chain,
            &peer.link.exporter,
            dialled,
            own,
            other,
            masternode,
        );
        let proof = OperatorProof {
            masternode: *masternode,
            operator: secret.public(),
            signature: secret.sign(&message),
        };
        self.out
            .push(Effect::Send(id, Message::OperatorProof(proof)));
    }

    /// Whether a proof was made by its key for this session.
    pub(super) fn proof_holds(&self, id: PeerId, proof: &OperatorProof) -> bool {
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        let prover_dialled = peer.link.target.is_none();
        let (prover, own) = (&peer.link.key, &self.config.node_key);
        let message = proof_hash(
            self.config.chain,
            &peer.link.exporter,
            prover_dialled,
            prover,
            own,
            &proof.masternode,
        );
        let check = Check {
            key: proof.operator,
            message,
            signature: proof.signature,
        };
        check.verify()
    }

    pub(super) fn operator_proof(&mut self, now: Now, id: PeerId, proof: &OperatorProof) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let shown = (proof.masternode, proof.operator);
        if peer.proof == Some(shown) {
            return self.blame(now, id, "the same OperatorProof again");
        }
        // The registry may come to name another masternode or key; not often while one connection lives.
        peer.proofs += 1;
        if peer.proofs > PROOFS_MAX {
            return self.close(id, "too many OperatorProofs", false);
        }
        if !self.proof_holds(id, proof) {
            return self.blame(now, id, "OperatorProof with a bad signature");
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            (peer.proof, peer.masternode) = (Some(shown), None);
        }
        self.judge_proof(now, id);
    }

    /// A proof counts while the registry names this operator key; a node that lags behind learns that later.
    pub(super) fn judge_proof(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some((masternode, operator)) = peer.proof else {
            return;
        };
        let holds = self.operators.get(&masternode) == Some(&operator);
        let greeted = peer.greeted.is_some();
        if holds && peer.masternode.is_none() {
            peer.masternode = Some(masternode);
            if self.refuse_banned(now, id) {
                return;
            }
            self.admit(now, id);
            self.out.push(Effect::Masternode(id, masternode));
            let slowed = self.reputation.slowed(now.mono, &masternode);
            if slowed > 1 {
                self.out.push(Effect::Slow(id, slowed));
            }
        } else if !holds {
            peer.masternode = None;
            if self.config.require_stake && greeted {
                self.reject(id, "its stake is gone");
            }
        }
    }
}
