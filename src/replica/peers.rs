//! What each peer is known to have, so that votes, proposals and transactions go to every peer once (S8). Who is told what
//! of the height under way stands in [`relay`](super::relay).

use crate::base::bounded::BoundedVec;
use crate::base::limits::INV_COUNT_MAX;
use crate::base::time::MonoUs;
use crate::p2p::messages::{Message, PeerId, Proposal, Status};
use crate::replica::io::Effect;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteStep};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How long names of transactions are gathered before they are announced, ms.
const INV_DELAY_MS: u64 = 10;
/// Announcements of one stream of transactions are this far apart, ms: with the requests that answer them and the
/// transactions themselves they stay below what a peer may send (P2).
const INV_SPACING_MS: u64 = 30;
/// Transactions remembered for each peer; the oldest are forgotten first (a transaction is then offered twice at worst).
pub(super) const KNOWN_TX_COUNT_MAX: usize = 4_096;
/// Votes and transactions that wait to be relayed; beyond it new ones wait for the pull repair of S8.
pub(super) const RELAY_COUNT_MAX: usize = 8_192;

/// A vote's place in a height.
pub type VoteKey = (EraRound, VoteStep, MasternodeId);

/// The place of `vote` in its height.
pub fn vote_key(vote: &Vote) -> VoteKey {
    (vote.body.at(), vote.body.step, vote.voter)
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Where it said it stands.
    pub status: Status,
    /// Which masternode it proved to be.
    pub masternode: Option<MasternodeId>,
    pub(super) votes: BTreeSet<VoteKey>,
    pub(super) proposals: BTreeSet<EraRound>,
    /// Whose votes and proposals are passed on to it, and until when: it asked for them when they should have been there.
    pub(super) feeds: BTreeMap<MasternodeId, MonoUs>,
    pub(super) txs: BTreeSet<Wtxid>,
    pub(super) txs_order: VecDeque<Wtxid>,
}

impl Peer {
    fn note_tx(&mut self, wtxid: Wtxid) -> bool {
        let new = self.txs.insert(wtxid);
        if new {
            self.txs_order.push_back(wtxid);
            if self.txs_order.len() > KNOWN_TX_COUNT_MAX
                && let Some(old) = self.txs_order.pop_front()
            {
                self.txs.remove(&old);
            }
        }
        new
    }
}

/// All peers that have greeted.
#[derive(Debug)]
pub struct Peers {
    pub(super) map: BTreeMap<PeerId, Peer>,
    /// Who decides the height under way.
    pub(super) set: Arc<ValidatorSet>,
    /// The masternode this node speaks for.
    pub(super) me: Option<MasternodeId>,
    /// A message that a node in order has by now: age in ms.
    pub(super) patience_ms: u64,
    /// Votes and proposals of the height that are held, and since when.
    pub(super) heard: BTreeMap<VoteKey, MonoUs>,
    pub(super) offered: BTreeMap<EraRound, MonoUs>,
    /// Whose votes and proposals are passed on to anybody, and until when.
    pub(super) fed: BTreeMap<MasternodeId, MonoUs>,
    /// What waits to be relayed.
    pub(super) votes: Vec<Vote>,
    pub(super) proposals: Vec<Arc<Proposal>>,
    pub(super) relay_due: Option<MonoUs>,
    /// Whose turn it is to be asked.
    pub(super) turn: usize,
    /// Until when this node, which decides nothing, carries votes between validators.
    pub(super) carries_until: MonoUs,
    pub(super) txs: Vec<Wtxid>,
    inv_due: Option<MonoUs>,
    inv_last: Option<MonoUs>,
}

impl Peers {
    /// No peers yet.
    pub fn new(set: Arc<ValidatorSet>, me: Option<MasternodeId>, patience_ms: u64) -> Peers {
        Peers {
            map: BTreeMap::new(),
            set,
            me,
            patience_ms,
            heard: BTreeMap::new(),
            offered: BTreeMap::new(),
            fed: BTreeMap::new(),
            votes: Vec::new(),
            proposals: Vec::new(),
            relay_due: None,
            turn: 0,
            carries_until: MonoUs(0),
            txs: Vec::new(),
            inv_due: None,
            inv_last: None,
        }
    }
    /// A peer has greeted.
    pub fn up(&mut self, peer: PeerId, status: Status) {
        self.map.insert(
            peer,
            Peer {
                status,
                masternode: None,
                votes: BTreeSet::new(),
                proposals: BTreeSet::new(),
                feeds: BTreeMap::new(),
                txs: BTreeSet::new(),
                txs_order: VecDeque::new(),
            },
        );
    }
    /// A peer is gone; the masternode it was.
    pub fn down(&mut self, peer: PeerId) -> Option<MasternodeId> {
        self.map.remove(&peer)?.masternode
    }
    /// A peer.
    pub fn get_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        self.map.get_mut(&peer)
    }
    /// A peer.
    pub fn get(&self, peer: PeerId) -> Option<&Peer> {
        self.map.get(&peer)
    }
    /// All peers in order.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.map.iter().map(|(id, peer)| (*id, peer))
    }
    /// All names in order.
    pub fn ids(&self) -> Vec<PeerId> {
        self.map.keys().copied().collect()
    }
    /// A peer holds a transaction.
    pub fn has_tx(&mut self, peer: PeerId, wtxid: Wtxid) {
        if let Some(peer) = self.map.get_mut(&peer) {
            peer.note_tx(wtxid);
        }
    }
    /// Announces a transaction, a little later.
    pub fn relay_tx(&mut self, now: MonoUs, wtxid: Wtxid) {
        if self.txs.len() < RELAY_COUNT_MAX {
            self.txs.push(wtxid);
            let spaced = self.inv_last.map(|at| at.plus_ms(INV_SPACING_MS));
            let due = now.plus_ms(INV_DELAY_MS).max(spaced.unwrap_or_default());
            self.inv_due.get_or_insert(due);
        }
    }
    /// When [`Peers::flush`] has something to send.
    pub fn deadline(&self) -> Option<MonoUs> {
        self.relay_due.into_iter().chain(self.inv_due).min()
    }

    /// What is due to be passed on.
    pub fn flush(&mut self, now: MonoUs) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.relay_due.is_some_and(|due| now >= due) {
            self.relay_due = None;
            self.relay(now, &mut out);
        }
        if self.inv_due.is_some_and(|due| now >= due) {
            self.inv_due = None;
            self.inv_last = Some(now);
            let txs = std::mem::take(&mut self.txs);
            for (id, peer) in &mut self.map {
                let lacking: Vec<Wtxid> = txs
                    .iter()
                    .copied()
                    .filter(|wtxid| peer.note_tx(*wtxid))
                    .collect();
                for part in lacking.chunks(INV_COUNT_MAX) {
                    let frame = BoundedVec::take_from(part.iter().copied());
                    out.push(Effect::Send(vec![*id], Arc::new(Message::TxInv(frame))));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_peer_is_bounded() {
        let mut peers = Peers::new(Arc::default(), None, 100);
        peers.up(PeerId(1), Status::default());
        for i in 0..2 * KNOWN_TX_COUNT_MAX as u64 {
            let mut hash = crate::crypto::hash::Hash::ZERO;
            hash.0[..8].copy_from_slice(&i.to_le_bytes());
            peers.has_tx(PeerId(1), Wtxid(hash));
        }
        assert_eq!(peers.get(PeerId(1)).unwrap().txs.len(), KNOWN_TX_COUNT_MAX);
    }
}
