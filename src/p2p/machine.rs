//! Greets peers, keeps connections, dials again (P1). Pure: the net thread and the simulator feed it connections, frames
//! and time, and perform its effects.
//!
//! Before Hello only Hello is read. Then both sides may prove an operator key, bound to the TLS session by its exporter. A
//! peer is trusted with nothing before its Hello has arrived: in TLS 1.3 the dialling side finishes before the other side
//! has judged its key. What other machines care about is delivered to them undigested.

use crate::base::hex;
use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now};
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::{PublicKey, SecretKey};
use crate::crypto::verify::Check;
use crate::p2p::messages::*;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::Endpoint;
use std::collections::BTreeMap;

/// A Hello must arrive within this time.
const HELLO_TIMEOUT_MS: u64 = 5_000;
/// Pings without any answer after which a peer is dead.
const PINGS_MISSED_MAX: u64 = 3;
/// First wait before a target is dialled again; doubled up to the cap (B2).
const BACKOFF_FIRST_MS: u64 = 100;
/// Longest wait before a target is dialled again.
const BACKOFF_CAP_MS: u64 = 30_000;

/// What a node is to its peers.
pub struct Config {
    /// Network.
    pub chain: ChainId,
    /// This node's key.
    pub node_key: PublicKey,
    /// The masternode this node speaks for, if any.
    pub operator: Option<(MasternodeId, SecretKey)>,
    /// Software, for people.
    pub agent: String,
    /// Highest branch known.
    pub supports: Branch,
    /// Where others may dial this node.
    pub endpoint: Option<Endpoint>,
    /// Addresses to keep connections to.
    pub targets: Vec<String>,
    /// Time between pings, ms.
    pub ping_interval_ms: u64,
    /// Connections from others that are kept, validators not counted.
    pub inbound_max: usize,
    /// Where this node stands at its start: what peers hear first. Never less, as a peer that lost its signer store counts
    /// on it (B7 step 4).
    pub status: Status,
    /// Seed of the jitter of dials.
    pub seed: u64,
}

/// A connection whose transport is up.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its name.
    pub peer: PeerId,
    /// The other end's node key, as the transport proved it.
    pub key: PublicKey,
    /// Which target was dialled; `None` if the other side dialled.
    pub target: Option<usize>,
    /// Secret of this session, equal on both ends (TLS exporter).
    pub exporter: [u8; 32],
    /// Address of the other end, for people.
    pub address: String,
}

/// What the machine reacts to.
#[derive(Debug)]
pub enum Input {
    /// A connection's transport is up.
    Connected(Link),
    /// A connection is gone.
    Closed(PeerId),
    /// A dial failed.
    DialFailed(usize),
    /// A frame arrived.
    Frame(PeerId, Message),
    /// The operator keys of the registry changed.
    Operators(BTreeMap<MasternodeId, PublicKey>),
    /// This node's own status changed; told to all peers.
    Status(Status),
    /// A target to keep a connection to is added; nothing happens if it is there.
    AddTarget(String),
    /// A deadline passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Dial a target.
    Dial(usize, String),
    /// Send a frame.
    Send(PeerId, Message),
    /// Close a connection. `fault`: the peer broke a rule.
    Close {
        /// Which.
        peer: PeerId,
        /// Why, for people.
        why: String,
        /// Whether the peer provably broke a rule.
        fault: bool,
    },
    /// A peer has greeted correctly.
    Up(PeerId, PeerFacts),
    /// A peer proved to be a masternode of the registry.
    Masternode(PeerId, MasternodeId),
    /// A peer that was up is gone.
    Down(PeerId),
    /// A frame for another machine.
    Deliver(PeerId, Message),
    /// A peer told its status.
    StatusOf(PeerId, Status),
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// Node key.
    pub key: PublicKey,
    /// Address, for people.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Its software, for people.
    pub agent: String,
    /// Its protocol version.
    pub protocol: u16,
    /// Where it stood when it greeted.
    pub status: Status,
    /// Where it says it can be dialled.
    pub endpoint: Option<String>,
}

struct Peer {
    link: Link,
    since: MonoUs,
    greeted: Option<PeerFacts>,
    proof: Option<(MasternodeId, PublicKey)>,
    masternode: Option<MasternodeId>,
    heard: MonoUs,
    pinged: MonoUs,
    ping_us: Option<u64>,
}

struct Target {
    address: String,
    key: Option<PublicKey>,
    dialling: bool,
    next: MonoUs,
    backoff_ms: u64,
    never: bool,
}

/// The peer machine of one node.
pub struct Machine {
    config: Config,
    status: Status,
    operators: BTreeMap<MasternodeId, PublicKey>,
    peers: BTreeMap<PeerId, Peer>,
    targets: Vec<Target>,
    rng: Rng,
    out: Vec<Effect>,
}

/// Targets a node keeps at most; more are refused (counted by nobody: configuration and registry are bounded already).
pub const TARGET_COUNT_MAX: usize = 1_024;

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
    /// A machine without connections; it dials on the first input.
    pub fn new(config: Config) -> Machine {
        let rng = Rng::new(config.seed);
        let mut machine = Machine {
            status: config.status,
            operators: BTreeMap::new(),
            peers: BTreeMap::new(),
            targets: Vec::new(),
            rng,
            out: Vec::new(),
            config,
        };
        for address in machine.config.targets.clone() {
            machine.add_target(address);
        }
        machine
    }

    /// Reacts to one input.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        match input {
            Input::Connected(link) => self.connected(now, link),
            Input::Closed(peer) => self.closed(now, peer),
            Input::DialFailed(target) => self.dial_failed(now, target),
            Input::Frame(peer, message) => self.frame(now, peer, message),
            Input::Operators(operators) => {
                self.operators = operators;
                let peers: Vec<PeerId> = self.peers.keys().copied().collect();
                peers.into_iter().for_each(|peer| self.judge_proof(peer));
            }
            Input::Status(status) => {
                self.status = status;
                self.broadcast_status();
            }
            Input::AddTarget(address) => self.add_target(address),
            Input::Tick => {}
        }
        self.timers(now);
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<MonoUs> {
        let ping_ms = self.config.ping_interval_ms;
        let peers = self.peers.values().map(|p| match p.greeted {
            None => p.since.plus_ms(HELLO_TIMEOUT_MS),
            Some(_) => p.pinged.plus_ms(ping_ms),
        });
        let targets = self
            .targets
            .iter()
            .filter(|t| self.wants_dial(t))
            .map(|t| t.next);
        peers.chain(targets).min()
    }

    /// Peers that have greeted, with the masternode they proved to be and the last round trip of a ping in µs.
    pub fn peers(
        &self,
    ) -> impl Iterator<Item = (PeerId, &PeerFacts, Option<MasternodeId>, Option<u64>)> {
        let greeted = |(id, p): (&PeerId, &'_ Peer)| (*id, p.masternode, p.ping_us);
        self.peers.iter().filter_map(move |(id, p)| {
            let facts = p.greeted.as_ref()?;
            let (id, masternode, ping_us) = greeted((id, p));
            Some((id, facts, masternode, ping_us))
        })
    }

    /// This node's status as peers were told it last.
    pub fn status(&self) -> Status {
        self.status
    }

    fn add_target(&mut self, address: String) {
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
            });
        }
    }

    fn wants_dial(&self, target: &Target) -> bool {
        let linked = target
            .key
            .is_some_and(|key| self.peers.values().any(|p| p.link.key == key));
        !target.dialling && !target.never && !linked
    }

    fn close(&mut self, peer: PeerId, why: impl Into<String>, fault: bool) {
        self.out.push(Effect::Close {
            peer,
            why: why.into(),
            fault,
        });
    }

    fn connected(&mut self, now: Now, link: Link) {
        if let Some(target) = link.target.and_then(|t| self.targets.get_mut(t)) {
            target.key = Some(link.key);
            target.dialling = false;
            target.never = link.key == self.config.node_key;
        }
        let peer = link.peer;
        let inbound = self
            .peers
            .values()
            .filter(|p| p.link.target.is_none() && p.masternode.is_none())
            .count();
        // A duplicate may replace an older connection, so it is judged before the count is.
        let doubled = self.peers.values().any(|p| p.link.key == link.key);
        if link.key == self.config.node_key {
            self.close(peer, "connected to itself", false);
        } else if link.target.is_none() && inbound >= self.config.inbound_max && !doubled {
            self.close(peer, "no place for another inbound peer", false);
        } else {
            let since = now.mono;
            self.peers.insert(
                peer,
                Peer {
                    link,
                    since,
                    greeted: None,
                    proof: None,
                    masternode: None,
                    heard: since,
                    pinged: since,
                    ping_us: None,
                },
            );
            self.greet(now, peer);
        }
    }

    fn greet(&mut self, now: Now, peer: PeerId) {
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
        };
        self.out
            .push(Effect::Send(peer, Message::Hello(Box::new(hello))));
    }

    fn closed(&mut self, now: Now, peer: PeerId) {
        let Some(gone) = self.peers.remove(&peer) else {
            return;
        };
        if gone.greeted.is_some() {
            self.out.push(Effect::Down(peer));
        }
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

    fn dial_failed(&mut self, now: Now, target: usize) {
        let jitter = self.rng.below(BACKOFF_FIRST_MS);
        if let Some(target) = self.targets.get_mut(target) {
            target.dialling = false;
            target.next = now.mono.plus_ms(target.backoff_ms + jitter);
            target.backoff_ms = (target.backoff_ms * 2).min(BACKOFF_CAP_MS);
        }
    }

    fn frame(&mut self, now: Now, id: PeerId, message: Message) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.heard = now.mono;
        match (message, peer.greeted.is_some()) {
            (Message::Hello(hello), false) => self.hello(now, id, *hello),
            (Message::Reject(reason), _) => {
                let why = format!("refused by peer: {}", String::from_utf8_lossy(&reason));
                self.close(id, why, false);
            }
            (_, false) => self.close(id, "spoke before Hello", true),
            (Message::Hello(_), true) => self.close(id, "second Hello", true),
            (Message::OperatorProof(proof), true) => self.operator_proof(id, &proof),
            (Message::Ping(status), true) => {
                self.out.push(Effect::Send(id, Message::Pong(status.clock)));
                self.out.push(Effect::StatusOf(id, status));
            }
            (Message::Pong(_), true) => peer.ping_us = Some(now.mono.since(peer.pinged)),
            (Message::Status(status), true) => self.out.push(Effect::StatusOf(id, status)),
            (other, true) => self.out.push(Effect::Deliver(id, other)),
        }
    }

    fn reject(&mut self, peer: PeerId, why: &str) {
        let reason = RejectReason::try_from(why.as_bytes().to_vec()).unwrap_or_default();
        self.out.push(Effect::Send(peer, Message::Reject(reason)));
        self.close(peer, why, false);
    }

    fn hello(&mut self, now: Now, id: PeerId, hello: Hello) {
        if hello.chain != self.config.chain {
            return self.reject(id, "another network (genesis differs)");
        }
        if hello.protocol != PROTOCOL_VERSION {
            return self.reject(id, "another protocol version");
        }
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let key = peer.link.key;
        if let Some(loser) = self.duplicate_of(id, key) {
            self.close(loser, "a second connection of the same pair", false);
            if loser == id {
                self.peers.remove(&id);
                return;
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
        peer.greeted = Some(facts.clone());
        peer.pinged = now.mono;
        self.out.push(Effect::Up(id, facts));
        self.out.push(Effect::StatusOf(id, hello.status));
        self.prove(id);
    }

    /// Of two connections of one pair the one dialled by the lower node key stays (P1): both ends decide alike. Two dialled
    /// by the same side: the newer one goes.
    fn duplicate_of(&self, id: PeerId, key: PublicKey) -> Option<PeerId> {
        let greeted = |p: &&Peer| p.link.key == key && p.link.peer != id && p.greeted.is_some();
        let other = self.peers.values().find(greeted)?;
        let this = self.peers.get(&id)?;
        let low_dials = |p: &Peer| p.link.target.is_some() == (self.config.node_key < key);
        match (low_dials(this), low_dials(other)) {
            (true, false) => Some(other.link.peer),
            _ => Some(id),
        }
    }

    fn prove(&mut self, id: PeerId) {
        let (Some((masternode, secret)), Some(peer)) = (&self.config.operator, self.peers.get(&id))
        else {
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

    fn operator_proof(&mut self, id: PeerId, proof: &OperatorProof) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let prover_dialled = peer.link.target.is_none();
        let (prover, own) = (&peer.link.key, &self.config.node_key);
        let exporter = &peer.link.exporter;
        let message = proof_hash(
            self.config.chain,
            exporter,
            prover_dialled,
            prover,
            own,
            &proof.masternode,
        );
        if peer.proof.is_some() {
            return self.close(id, "second OperatorProof", true);
        }
        if !(Check {
            key: proof.operator,
            message,
            signature: proof.signature,
        })
        .verify()
        {
            return self.close(id, "OperatorProof with a bad signature", true);
        }
        peer.proof = Some((proof.masternode, proof.operator));
        self.judge_proof(id);
    }

    /// A proof counts while the registry names this operator key; a node that lags behind learns that later.
    fn judge_proof(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some((masternode, operator)) = peer.proof else {
            return;
        };
        let holds = self.operators.get(&masternode) == Some(&operator);
        if holds && peer.masternode.is_none() {
            peer.masternode = Some(masternode);
            self.out.push(Effect::Masternode(id, masternode));
        } else if !holds {
            peer.masternode = None;
        }
    }

    fn broadcast_status(&mut self) {
        let greeted = self.peers.iter().filter(|(_, p)| p.greeted.is_some());
        for (peer, _) in greeted {
            self.out
                .push(Effect::Send(*peer, Message::Status(self.status)));
        }
    }

    fn timers(&mut self, now: Now) {
        let ping_ms = self.config.ping_interval_ms;
        let mut dead = Vec::new();
        let status = Status {
            clock: now.wall,
            ..self.status
        };
        for (id, peer) in &mut self.peers {
            if peer.greeted.is_none() {
                if now.mono >= peer.since.plus_ms(HELLO_TIMEOUT_MS) {
                    dead.push((*id, "no Hello in time"));
                }
            } else if now.mono >= peer.heard.plus_ms(ping_ms * PINGS_MISSED_MAX) {
                dead.push((*id, "no answer to pings"));
            } else if now.mono >= peer.pinged.plus_ms(ping_ms) {
                peer.pinged = now.mono;
                self.out.push(Effect::Send(*id, Message::Ping(status)));
            }
        }
        for (id, why) in dead {
            self.close(id, why, false);
            self.closed(now, id);
        }
        for i in 0..self.targets.len() {
            if self.wants_dial(&self.targets[i]) && now.mono >= self.targets[i].next {
                self.targets[i].dialling = true;
                self.out
                    .push(Effect::Dial(i, self.targets[i].address.clone()));
            }
        }
    }
}

impl std::fmt::Display for PeerFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = if self.inbound { "in" } else { "out" };
        write!(
            f,
            "{} ({way}, key {})",
            self.address,
            &hex::encode(&self.key.0[..4])
        )
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
