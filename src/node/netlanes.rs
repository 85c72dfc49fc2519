//! The gates between sockets and the peer machine: every frame passes the buckets of its peer (P2), and transactions of
//! peers pass only while consensus has room for them.
//!
//! Strangers, peers that dialled this node and proved no masternode key, share one more bucket for the transactions they
//! hand in, served in turn: a node's processor is not theirs to fill, however many they are.
//! Inputs: frames as they are read, time. Outputs: frames in the order in which they may pass, whose stream rests. Must never
//! hold more of a peer than its room, or count anything as an offence.

use crate::base::time::MonoUs;
use crate::p2p::buckets::{Bucket, Lanes, Limits};
use crate::p2p::messages::{Class, Message, PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// How soon a queue that was full is looked at again, ms.
const FULL_RETRY_MS: u64 = 2;
/// Names of transactions that cost a stranger as much as one transaction.
const NAMES_PER_TX: usize = 16;

/// A frame that waits.
pub struct Held {
    /// Type.
    pub code: u8,
    /// Body.
    pub payload: Vec<u8>,
}

struct Gate {
    lanes: Lanes<Held>,
    inbound: bool,
    masternode: bool,
    slowed: u64,
}

impl Gate {
    fn is_stranger(&self) -> bool {
        self.inbound && !self.masternode
    }
}

/// The gates of all peers.
pub struct Gates {
    limits: Limits,
    strangers: Bucket,
    gates: BTreeMap<PeerId, Gate>,
    waiting: BTreeSet<PeerId>,
    last: PeerId,
}

/// What became of a frame.
pub enum Arrived {
    /// It passes.
    Passes(Held),
    /// It waits in the room of its peer.
    Parked {
        /// The room is full: the stream must rest.
        full: bool,
    },
}

/// What `message` costs a stranger, in transactions.
fn cost(message: &Message) -> u64 {
    let names = |count: usize| count.div_ceil(NAMES_PER_TX);
    let cost = match message {
        Message::Txs(txs) => txs.len(),
        Message::TxInv(names_of) => names(names_of.len()),
        _ => 0,
    };
    cost as u64
}

impl Gates {
    /// No peers yet.
    pub fn new(limits: Limits, now: MonoUs) -> Gates {
        Gates {
            limits,
            strangers: limits.strangers_bucket(now),
            gates: BTreeMap::new(),
            waiting: BTreeSet::new(),
            last: PeerId(0),
        }
    }

    /// A connection; `inbound` if the other side dialled and is not configured here.
    pub fn join(&mut self, peer: PeerId, inbound: bool) {
        let lanes = Lanes::new(self.limits);
        let gate = Gate {
            lanes,
            inbound,
            masternode: false,
            slowed: 1,
        };
        self.gates.insert(peer, gate);
    }

    /// A connection is gone; what it left is forgotten.
    pub fn leave(&mut self, peer: PeerId) {
        self.gates.remove(&peer);
        self.waiting.remove(&peer);
    }

    /// What a peer has shown to be, and by how much it is slowed down (1 = not at all).
    pub fn rate(&mut self, peer: PeerId, masternode: bool, slowed: u64, now: MonoUs) {
        let limits = self.limits;
        if let Some(gate) = self.gates.get_mut(&peer)
            && (gate.masternode, gate.slowed) != (masternode, slowed)
        {
            (gate.masternode, gate.slowed) = (masternode, slowed);
            gate.lanes.set(limits, masternode, slowed, now);
        }
    }

    /// New limits for everybody.
    pub fn reload(&mut self, limits: Limits, now: MonoUs) {
        self.limits = limits;
        self.strangers = limits.strangers_bucket(now);
        for gate in self.gates.values_mut() {
            gate.lanes.set(limits, gate.masternode, gate.slowed, now);
        }
    }

    /// A frame was read. `txs_open`: consensus has room for transactions of peers.
    pub fn arrive(
        &mut self,
        now: MonoUs,
        peer: PeerId,
        class: Class,
        held: Held,
        txs_open: bool,
    ) -> Arrived {
        // Answers to what this node asked for are bounded by what it asked.
        if Message::is_answer(held.code) {
            return Arrived::Passes(held);
        }
        let Some(gate) = self.gates.get_mut(&peer) else {
            return Arrived::Parked { full: false };
        };
        let stranger = gate.is_stranger();
        let open = class != Class::Tx || txs_open && (!stranger || self.strangers.is_open(now));
        let size = held.payload.len();
        match gate.lanes.offer(now, class, size, held, open) {
            Some(held) => Arrived::Passes(held),
            None => {
                self.waiting.insert(peer);
                let full = gate.lanes.is_paused();
                Arrived::Parked { full }
            }
        }
    }

    /// A frame of `peer` passes: strangers pay for the transactions in it.
    pub fn charge(&mut self, now: MonoUs, peer: PeerId, message: &Message) {
        if self.gates.get(&peer).is_some_and(Gate::is_stranger) {
            self.strangers.take(now, cost(message));
        }
    }

    /// The next parked frame that may pass, peers taking turns, and whether the stream of its peer may be read again.
    pub fn next(&mut self, now: MonoUs, txs_open: bool) -> Option<(PeerId, Held, bool)> {
        let strangers = self.strangers.is_open(now);
        let after = self.waiting.range(PeerId(self.last.0 + 1)..);
        let order: Vec<PeerId> = after
            .chain(self.waiting.range(..=self.last))
            .copied()
            .collect();
        for peer in order {
            let Some(gate) = self.gates.get_mut(&peer) else {
                self.waiting.remove(&peer);
                continue;
            };
            let txs = txs_open && (strangers || !gate.is_stranger());
            let rested = gate.lanes.is_paused();
            if let Some(held) = gate.lanes.next(now, |class| class != Class::Tx || txs) {
                let resumes = rested && !gate.lanes.is_paused();
                if gate.lanes.is_empty() {
                    self.waiting.remove(&peer);
                }
                self.last = peer;
                return Some((peer, held, resumes));
            }
        }
        None
    }

    /// When a parked frame may pass.
    pub fn due(&self, now: MonoUs, txs_open: bool) -> Option<MonoUs> {
        let retry = now.plus_ms(FULL_RETRY_MS);
        let of = |peer: &PeerId| {
            let gate = self.gates.get(peer)?;
            gate.lanes.due(|class| match class {
                Class::Tx if !txs_open => retry,
                Class::Tx if gate.is_stranger() => self.strangers.opens(),
                _ => MonoUs(0),
            })
        };
        self.waiting.iter().filter_map(of).min()
    }

    /// Peers whose streams rest: their silence is this node's doing.
    pub fn resting(&self) -> impl Iterator<Item = PeerId> {
        let rests = |peer: &&PeerId| self.gates.get(*peer).is_some_and(|g| g.lanes.is_paused());
        self.waiting.iter().filter(rests).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        Held {
            code: 66,
            payload: vec![0; 1_000],
        }
    }

    fn gates() -> Gates {
        let mut gates = Gates::new(Limits::default(), MonoUs(0));
        (1..=3).for_each(|i| gates.join(PeerId(i), i < 3));
        gates
    }

    #[test]
    fn strangers_share_one_bucket_in_turn_and_others_do_not_wait_for_it() {
        let mut gates = gates();
        gates.strangers.take(MonoUs(0), 1_000);
        for peer in [1, 1, 1, 2, 2] {
            let arrived = gates.arrive(MonoUs(0), PeerId(peer), Class::Tx, held(), true);
            assert!(matches!(arrived, Arrived::Parked { full: false }), "P2");
        }
        let third = gates.arrive(MonoUs(0), PeerId(3), Class::Tx, held(), true);
        assert!(
            matches!(third, Arrived::Passes(_)),
            "dialled by this node: no stranger"
        );
        let vote = Held {
            code: 17,
            payload: vec![],
        };
        let vote = gates.arrive(MonoUs(0), PeerId(1), Class::Consensus, vote, true);
        assert!(matches!(vote, Arrived::Passes(_)), "votes never wait");
        assert!(gates.next(MonoUs(0), true).is_none());
        let due = gates.due(MonoUs(0), true).unwrap();
        let mut order = Vec::new();
        while let Some((peer, ..)) = gates.next(due, true) {
            order.push(peer.0);
        }
        assert_eq!(order, [1, 2, 1, 2, 1], "in turn");
    }

    #[test]
    fn a_masternode_is_no_stranger_and_a_full_queue_holds_its_transactions() {
        let mut gates = gates();
        gates.strangers.take(MonoUs(0), 1_000);
        gates.rate(PeerId(1), true, 1, MonoUs(0));
        let full = gates.arrive(MonoUs(0), PeerId(1), Class::Tx, held(), false);
        assert!(matches!(full, Arrived::Parked { .. }));
        assert_eq!(
            gates.due(MonoUs(0), false),
            Some(MonoUs(0).plus_ms(FULL_RETRY_MS))
        );
        assert!(gates.next(MonoUs(0), false).is_none());
        assert!(gates.next(MonoUs(0), true).is_some(), "nothing is dropped");
    }

    #[test]
    fn a_peer_that_is_gone_leaves_nothing() {
        let mut gates = gates();
        gates.arrive(MonoUs(0), PeerId(3), Class::Tx, held(), false);
        gates.leave(PeerId(3));
        assert!(gates.next(MonoUs(0), true).is_none());
        assert_eq!(gates.due(MonoUs(0), true), None);
    }
}
