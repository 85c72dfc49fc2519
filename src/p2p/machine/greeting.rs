//! From a fresh transport to a peer that has greeted and perhaps proved an operator key (P1): Hello, duplicates, OperatorProof.
//!
//! Inputs: links and greetings. Outputs: effects in the machine's list. Must never trust a peer with anything before its Hello,
//! or take a proof that was made for another session, direction or pair of keys.

use super::{Effect, Link, Machine, Peer, PeerFacts};
use crate::base::time::Now;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::PublicKey;
use crate::crypto::verify::Check;
use crate::p2p::messages::*;
use crate::types::codec;
use crate::types::ids::*;

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
                    told: Height(0),
                },
            );
            self.greet(now, peer);
        }
        self.links_changed();
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

    fn reject(&mut self, peer: PeerId, why: &str) {
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
        let key = peer.link.key;
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

    pub(super) fn operator_proof(&mut self, id: PeerId, proof: &OperatorProof) {
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
    pub(super) fn judge_proof(&mut self, id: PeerId) {
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
}
