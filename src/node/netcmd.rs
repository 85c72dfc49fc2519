//! What other threads ask of the net thread.

use crate::crypto::keys::PublicKey;
use crate::net::{HttpResponse, HttpToken};
use crate::p2p::buckets::Limits;
use crate::p2p::messages::{Message, PeerId, Status};
use crate::rpc::node::{PeerCommand, PeerRefusal};
use crate::types::ids::MasternodeId;
use crossbeam::channel::Sender;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One command.
pub enum NetCommand {
    /// Send a frame to these peers.
    Send(Vec<PeerId>, Arc<Message>),
    /// Send a frame of this type whose body is encoded already to a peer.
    SendEncoded(PeerId, u8, Arc<[u8]>),
    /// A peer broke a rule provably.
    Fault(PeerId, &'static str),
    /// This node's status has changed.
    Status(Status),
    /// The operator keys of the registry have changed.
    Operators(BTreeMap<MasternodeId, PublicKey>),
    /// The members of the set or their endpoints have changed.
    Validators(BTreeMap<MasternodeId, String>),
    /// Reach a masternode at its registered endpoint.
    Probe(MasternodeId, String),
    /// Ping a peer now: its status is wanted.
    Refresh(PeerId),
    /// Answer an HTTP client.
    Respond(HttpToken, Box<HttpResponse>),
    /// A name was looked up for a dial.
    Resolved(usize, Option<SocketAddr>),
    /// The limits of every peer have changed.
    Limits(Limits),
    /// What an operator asks; the answer goes into the channel.
    Peers(PeerCommand, Sender<Result<(), PeerRefusal>>),
    /// Keep a connection to this address.
    AddPeer(String),
}
