//! From a fresh transport to a peer that has greeted and perhaps proved an operator key (P1): Hello, duplicates, OperatorProof.
//!
//! Inputs: links and greetings. Outputs: effects in the machine's list. Must never trust a peer with anything before its Hello,
//! or take a proof that was made for another session, direction or pair of keys.

use super::probing::{PROBED_COUNT_MAX, Visit};
use super::{Effect, Link, Machine, Peer, PeerFacts};
use crate::base::time::Now;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Check;
use crate::p2p::messages::*;
use crate::types::codec;
use crate::types::ids::*;

/// Operator proofs of one connection; beyond it a peer is closed.
const PROOFS_MAX: u8 = 16;

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
        let full = inbound >= self.config.inbound_max + PROBED_COUNT_MAX - self.probed_count();
        if link.key == self.config.node_key {
            self.close(peer, "connected to itself", false);
        } else if link.target.is_none() && full && !doubled {
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
        if inbound
            && others.count() >= self.config.inbound_max
            && self.duplicate_of(id, key).is_none()
        {
            self.close(id, "no place for another inbound peer", false);
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
        peer.greeted = Some(facts.clone());
        peer.told = hello.status.height;
        peer.pinged = now.mono;
        self.out.push(Effect::Up(id, facts));
        self.out.push(Effect::StatusOf(id, hello.status));
        self.prove(id);
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
        if holds && peer.masternode.is_none() {
            peer.masternode = Some(masternode);
            if self.refuse_banned(now, id) {
                return;
            }
            self.out.push(Effect::Masternode(id, masternode));
            let slowed = self.reputation.slowed(now.mono, &masternode);
            if slowed > 1 {
                self.out.push(Effect::Slow(id, slowed));
            }
        } else if !holds {
            peer.masternode = None;
        }
    }
}
