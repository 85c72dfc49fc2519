//! What the peer machine is made from, what it reacts to and what it asks to be done. Plain data; whoever owns the sockets
//! performs the effects in their order.

use crate::base::hex;
use crate::base::time::WallMs;
use crate::crypto::keys::{PublicKey, SecretKey};
use crate::p2p::book::Book;
use crate::p2p::messages::*;
use crate::p2p::reputation::{Ban, Subject};
use crate::types::ids::*;
use crate::types::transaction::Endpoint;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// What a node is to its peers.
pub struct Config {
    /// Network.
    pub chain: ChainId,
    /// This node's key.
    pub node_key: PublicKey,
    /// This node's operator key, if it has one; [`Input::Operators`] tells for which masternode it speaks.
    pub operator: Option<SecretKey>,
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
    /// Nodes that are asked for addresses when few are known.
    pub seeds: Vec<String>,
    /// Connections that this node dials beside configured peers and, in the set, the other members.
    pub outbound_max: usize,
    /// Whether only masternodes are admitted.
    pub require_stake: bool,
    /// Whether addresses of private networks are told and dialled.
    pub allow_private: bool,
    /// What is known of the network's addresses.
    pub book: Book,
    /// Addresses to dial first.
    pub anchors: Vec<SocketAddr>,
    /// Bans that were kept on disk.
    pub bans: Vec<Ban>,
    /// Wall clock at the start.
    pub started: WallMs,
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
    /// The same as the network sees it; `None` where there are no such addresses (simulations).
    pub remote: Option<SocketAddr>,
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
    /// The members of the set and their registered endpoints changed: connections to them are kept (but to itself).
    Validators(BTreeMap<MasternodeId, String>),
    /// Reach this masternode at this address once, then [`Effect::Reached`]; a failure says nothing.
    Probe(MasternodeId, String),
    /// This node's own status changed; told to all peers.
    Status(Status),
    /// A target to keep a connection to is added; nothing happens if it is there.
    AddTarget(String),
    /// A target is given up: what is connected stays, nobody dials it again.
    RemoveTarget(String),
    /// An address is dialled once.
    Try(String),
    /// A peer broke a rule provably; the words are those of [`crate::p2p::reputation::FAULTS`].
    Fault(PeerId, &'static str),
    /// Somebody is banned by hand, for so many ms.
    Ban(Subject, u64),
    /// A ban is taken back.
    Unban(Subject),
    /// All bans are taken back and all scores forgotten.
    ClearBans,
    /// A peer is sent away by hand.
    Disconnect(PeerId),
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
    /// A masternode was reached at this address and proved its operator key.
    Reached(MasternodeId, String),
    /// Another node reached this one by a probe.
    Probed,
    /// A masternode is slowed down by this factor, as it may not be banned again yet (P3).
    Slow(PeerId, u64),
    /// The bans have changed ([`super::Machine::reputation`]).
    BansChanged,
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
