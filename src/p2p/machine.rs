//! Greets peers, keeps connections, dials again (P1). Pure: the net thread and the simulator feed it connections, frames
//! and time, and perform its effects.
//!
//! Before Hello only Hello is read. Then both sides may prove an operator key, bound to the TLS session by its exporter. A
//! peer is trusted with nothing before its Hello has arrived: in TLS 1.3 the dialling side finishes before the other side
//! has judged its key. What other machines care about is delivered to them undigested.

mod conduct;
mod dialing;
mod discovery;
mod greeting;
mod io;
mod probing;

pub use dialing::TARGET_COUNT_MAX;
pub use greeting::proof_hash;
pub use io::{Config, Effect, Input, Link, PeerFacts};
pub use probing::PROBE_COUNT_MAX;

use crate::base::limits::{PEER_COUNT_MAX, REGISTERED_COUNT_MAX, Size};
use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now};
use crate::crypto::keys::PublicKey;
use crate::p2p::book::Book;
use crate::p2p::messages::*;
use crate::p2p::reputation::Reputation;
use crate::types::ids::*;
use core::net::IpAddr;
use dialing::Target;
use discovery::{Exchange, Search, Seeker};
use probing::{Probe, Visit};
use std::collections::{BTreeMap, BTreeSet};

/// A Hello must arrive within this time.
const HELLO_TIMEOUT_MS: u64 = 5_000;
/// How a connection ends whose other side has sent a Reject.
pub const REFUSED_BY_PEER: &str = "refused by peer";
/// No timer runs.
const NEVER: MonoUs = MonoUs(u64::MAX);
/// Pings without any answer after which a peer is dead.
const PINGS_MISSED_MAX: u64 = 3;
/// A ping goes at most this part of the interval before it is due.
const PING_EARLY_PART: u64 = 8;

struct Peer {
    link: Link,
    /// Set if this connection is a probe, and no peer's.
    visit: Option<Visit>,
    since: MonoUs,
    greeted: Option<PeerFacts>,
    /// It has greeted, and is admitted once it has proved a masternode's key.
    waiting: Option<PeerFacts>,
    exchange: Exchange,
    proof: Option<(MasternodeId, PublicKey)>,
    /// Proofs it has sent.
    proofs: u8,
    masternode: Option<MasternodeId>,
    heard: MonoUs,
    pinged: MonoUs,
    ping_us: Option<u64>,
    /// The greatest height it told.
    told: Height,
}

/// The peer machine of one node.
pub struct Machine {
    config: Config,
    status: Status,
    operators: BTreeMap<MasternodeId, PublicKey>,
    /// The masternode whose operator key is this node's, by the registry.
    me: Option<MasternodeId>,
    probes: Vec<Option<Probe>>,
    peers: BTreeMap<PeerId, Peer>,
    targets: Vec<Target>,
    /// Addresses of configured peers and registered endpoints.
    exempt: BTreeSet<IpAddr>,
    seeker: Seeker,
    reputation: Reputation,
    bans_told: u64,
    rng: Rng,
    /// When a timer runs out at the earliest; 0: that is to be found out.
    due: MonoUs,
    out: Vec<Effect>,
}

impl Machine {
    /// A machine without connections; it dials on the first input.
    pub fn new(mut config: Config) -> Machine {
        let rng = Rng::new(config.seed);
        let mut machine = Machine {
            status: config.status,
            operators: BTreeMap::new(),
            me: None,
            probes: vec![None; PROBE_COUNT_MAX],
            peers: BTreeMap::new(),
            targets: Vec::new(),
            exempt: BTreeSet::new(),
            seeker: Seeker::new(std::mem::replace(&mut config.book, Book::new([0; 32]))),
            reputation: Reputation::new(config.started, std::mem::take(&mut config.bans)),
            bans_told: 0,
            rng,
            due: MonoUs(0),
            out: Vec::new(),
            config,
        };
        for address in machine.config.targets.clone() {
            machine.add_target(address);
        }
        machine.dial_anchors();
        machine
    }

    /// Reacts to one input.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if !is_routine(&input) {
            self.due = MonoUs(0);
        }
        match input {
            Input::Connected(link) => self.connected(now, link),
            Input::Closed(peer) => self.closed(now, peer),
            Input::DialFailed(target) => self.dial_failed(now, target),
            Input::Frame(peer, message) => self.frame(now, peer, message),
            Input::Operators(operators) => {
                self.reputation
                    .keep_masternodes(|id| operators.contains_key(id));
                self.operators = operators;
                self.find_me();
                let peers: Vec<PeerId> = self.peers.keys().copied().collect();
                peers
                    .into_iter()
                    .for_each(|peer| self.judge_proof(now, peer));
            }
            Input::Validators(addresses) => self.follow(&addresses),
            Input::Probe(masternode, address) => self.probe(now, masternode, address),
            Input::Status(status) => {
                self.status = status;
                self.broadcast_status();
            }
            Input::AddTarget(address) => self.add_target(address),
            Input::RemoveTarget(address) => self.remove_target(&address),
            Input::Try(address) => self.try_target(address),
            Input::Fault(peer, fault) => self.blame(now, peer, fault),
            Input::Ban(subject, ms) => self.ban(now, subject, ms),
            Input::Unban(subject) => {
                self.reputation.unban(&subject);
            }
            Input::ClearBans => self.reputation.clear(),
            Input::Disconnect(peer) => self.close(peer, "disconnected by hand", false),
            Input::Tick => {}
        }
        if now.mono >= self.due {
            self.timers(now);
            self.due = self.next_timer();
        }
        self.tell_bans(now);
        std::mem::take(&mut self.out)
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let mut sizes = vec![
            Size::new("connections", self.peers.len(), PEER_COUNT_MAX),
            Size::new("targets", self.targets.len(), TARGET_COUNT_MAX),
            Size::new("exempt addresses", self.exempt.len(), TARGET_COUNT_MAX),
            Size::new("operator keys", self.operators.len(), REGISTERED_COUNT_MAX),
            Size::new("probes", self.probes.len(), PROBE_COUNT_MAX),
        ];
        sizes.extend(self.reputation.sizes());
        sizes.extend(self.seeker.book.sizes());
        sizes
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<MonoUs> {
        (self.due < NEVER).then_some(self.due)
    }

    fn next_timer(&self) -> MonoUs {
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
        let search = self.search_due();
        let all = peers.chain(targets).chain(search);
        all.min().unwrap_or(NEVER)
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

    /// A peer's stream is not read by this node's own choice (P2): its silence says nothing.
    pub fn heard(&mut self, now: Now, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.heard = now.mono;
        }
    }

    fn close(&mut self, peer: PeerId, why: impl Into<String>, fault: bool) {
        self.out.push(Effect::Close {
            peer,
            why: why.into(),
            fault,
        });
    }

    fn closed(&mut self, now: Now, peer: PeerId) {
        let Some(gone) = self.peers.remove(&peer) else {
            return;
        };
        if gone.greeted.is_some() {
            self.out.push(Effect::Down(peer));
        }
        self.links_changed();
        match gone.visit {
            Some(Visit::Probing(number)) => self.probe_over(number),
            // It came to look and has left: whether this node can dial the visitor is another question.
            Some(Visit::Probed) => {}
            None => self.target_lost(now, &gone),
        }
    }

    fn frame(&mut self, now: Now, id: PeerId, message: Message) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.heard = now.mono;
        match peer.visit {
            Some(Visit::Probing(number)) => return self.probing(now, id, number, message),
            // It will close; until then nothing it says matters.
            Some(Visit::Probed) => return,
            None => {}
        }
        match (message, peer.greeted.is_some()) {
            (Message::Hello(hello), false) if peer.waiting.is_none() => {
                self.hello(now, id, *hello);
            }
            (Message::Reject(reason), _) => {
                let text = String::from_utf8_lossy(&reason);
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                let why = format!("{REFUSED_BY_PEER}: {text}");
                self.close(id, why, false);
            }
            (Message::OperatorProof(proof), false) if peer.waiting.is_some() => {
                self.operator_proof(now, id, &proof);
            }
            (Message::Hello(_), false) => self.blame(now, id, "second Hello"),
            // It has greeted and is not admitted yet: it cannot know, and is to live until it is told why.
            (Message::Ping(status), false) if peer.waiting.is_some() => {
                self.out.push(Effect::Send(id, Message::Pong(status.clock)));
            }
            (_, false) if peer.waiting.is_some() => {}
            (_, false) => self.blame(now, id, "spoke before Hello"),
            (Message::Hello(_), true) => self.blame(now, id, "second Hello"),
            (Message::OperatorProof(proof), true) => self.operator_proof(now, id, &proof),
            (Message::Ping(status), true) => {
                peer.told = peer.told.max(status.height);
                self.out.push(Effect::Send(id, Message::Pong(status.clock)));
                self.out.push(Effect::StatusOf(id, status));
            }
            (Message::Pong(_), true) => peer.ping_us = Some(now.mono.since(peer.pinged)),
            (Message::Status(status), true) => {
                peer.told = peer.told.max(status.height);
                self.out.push(Effect::StatusOf(id, status));
            }
            (Message::GetPeers(()), true) => self.get_peers(now, id),
            (Message::Peers(told), true) => self.told_peers(now, id, &told),
            (other, true) => self.out.push(Effect::Deliver(id, other)),
        }
    }

    /// After a decision: to those who have not said that they are as far. The others hear it with the next ping.
    fn broadcast_status(&mut self) {
        let height = self.status.height;
        let behind = |p: &Peer| p.greeted.is_some() && p.told < height;
        for (peer, _) in self.peers.iter().filter(|(_, p)| behind(p)) {
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
        // When one ping is due, those due soon go with it: a node with many peers wakes up once, not once for each.
        let due = |p: &Peer| p.greeted.is_some() && now.mono >= p.pinged.plus_ms(ping_ms);
        let early_ms = match self.peers.values().any(due) {
            true => ping_ms / PING_EARLY_PART,
            false => 0,
        };
        for (id, peer) in &mut self.peers {
            if peer.greeted.is_none() {
                if now.mono >= peer.since.plus_ms(HELLO_TIMEOUT_MS) {
                    let why = match peer.waiting {
                        None => "no Hello in time",
                        Some(_) => "no proof of a masternode in time",
                    };
                    dead.push((*id, why));
                }
            } else if now.mono >= peer.heard.plus_ms(ping_ms * PINGS_MISSED_MAX) {
                dead.push((*id, "no answer to pings"));
            } else if now.mono >= peer.pinged.plus_ms(ping_ms - early_ms) {
                peer.pinged = now.mono;
                self.out.push(Effect::Send(*id, Message::Ping(status)));
            }
        }
        for (id, why) in dead {
            if self.peers.get(&id).is_some_and(|p| p.waiting.is_some()) {
                self.reject(id, why);
            } else {
                self.close(id, why, false);
            }
            self.closed(now, id);
        }
        self.search(now);
        self.dial_due(now);
    }
}

/// Frames that move no timer: they cost no look at all peers.
fn is_routine(input: &Input) -> bool {
    let Input::Frame(_, message) = input else {
        return false;
    };
    !matches!(
        message,
        Message::Hello(_)
            | Message::OperatorProof(_)
            | Message::Reject(_)
            | Message::GetPeers(..)
            | Message::Peers(_)
    )
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod probe_tests;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
