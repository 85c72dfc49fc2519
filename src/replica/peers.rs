//! What each peer is known to have, so that votes, proposals and transactions go to every peer once (S8).
//!
//! A vote or block that arrived from elsewhere is offered on after a short wait, to those who have not shown by then that
//! they hold it: in a full mesh its author reaches everybody directly, and nothing is sent twice.

use crate::base::bounded::BoundedVec;
use crate::base::limits::{INV_COUNT_MAX, VOTES_PER_FRAME};
use crate::base::time::MonoUs;
use crate::p2p::messages::{Message, PeerId, Proposal, Status};
use crate::replica::io::Effect;
use crate::types::ids::*;
use crate::types::vote::{Vote, VoteStep};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How long votes and proposals of others wait before they are relayed, ms.
const RELAY_DELAY_MS: u64 = 5;
/// How long names of transactions are gathered before they are announced, ms.
const INV_DELAY_MS: u64 = 10;
/// Announcements of one stream of transactions are this far apart, ms: with the requests that answer them and the
/// transactions themselves they stay below what a peer may send (P2).
const INV_SPACING_MS: u64 = 30;
/// Transactions remembered for each peer; the oldest are forgotten first (a transaction is then offered twice at worst).
const KNOWN_TX_COUNT_MAX: usize = 4_096;
/// Votes of the height remembered for each peer; beyond it all are forgotten (votes are then offered twice at worst).
const KNOWN_VOTE_COUNT_MAX: usize = 16_384;
/// Votes and transactions that wait to be relayed; beyond it new ones wait for the pull repair of S8.
const RELAY_COUNT_MAX: usize = 8_192;

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
    votes: BTreeSet<VoteKey>,
    proposals: BTreeSet<EraRound>,
    txs: BTreeSet<Wtxid>,
    txs_order: VecDeque<Wtxid>,
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
#[derive(Debug, Default)]
pub struct Peers {
    map: BTreeMap<PeerId, Peer>,
    votes: Vec<Vote>,
    proposals: Vec<Arc<Proposal>>,
    relay_due: Option<MonoUs>,
    txs: Vec<Wtxid>,
    inv_due: Option<MonoUs>,
    inv_last: Option<MonoUs>,
}

impl Peers {
    /// A peer has greeted.
    pub fn up(&mut self, peer: PeerId, status: Status) {
        let (votes, proposals) = (BTreeSet::new(), BTreeSet::new());
        let (txs, txs_order) = (BTreeSet::new(), VecDeque::new());
        self.map.insert(
            peer,
            Peer {
                status,
                masternode: None,
                votes,
                proposals,
                txs,
                txs_order,
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
    /// A new height: what peers hold of the old one no longer matters.
    pub fn new_height(&mut self) {
        for peer in self.map.values_mut() {
            peer.votes.clear();
            peer.proposals.clear();
        }
        self.votes.clear();
        self.proposals.clear();
        self.relay_due = None;
    }
    /// A peer holds a vote.
    pub fn has_vote(&mut self, peer: PeerId, vote: &Vote) {
        let Some(peer) = self.map.get_mut(&peer) else {
            return;
        };
        if peer.votes.len() >= KNOWN_VOTE_COUNT_MAX {
            peer.votes.clear();
        }
        peer.votes.insert(vote_key(vote));
        // Who prevotes a block holds the proposal it prevoted.
        if peer.masternode == Some(vote.voter) && vote.body.block.is_some() {
            peer.proposals.insert(vote.body.at());
        }
    }
    /// A peer holds a proposal.
    pub fn has_proposal(&mut self, peer: PeerId, at: EraRound) {
        if let Some(peer) = self.map.get_mut(&peer) {
            peer.proposals.insert(at);
        }
    }
    /// A peer holds a transaction.
    pub fn has_tx(&mut self, peer: PeerId, wtxid: Wtxid) {
        if let Some(peer) = self.map.get_mut(&peer) {
            peer.note_tx(wtxid);
        }
    }
    /// Offers a vote of another node on, a little later.
    pub fn relay_vote(&mut self, now: MonoUs, vote: Vote) {
        if self.votes.len() < RELAY_COUNT_MAX {
            self.votes.push(vote);
            self.relay_due.get_or_insert(now.plus_ms(RELAY_DELAY_MS));
        }
    }
    /// Offers a proposal of another node on, a little later.
    pub fn relay_proposal(&mut self, now: MonoUs, proposal: Arc<Proposal>) {
        if self.proposals.len() < VOTES_PER_FRAME {
            self.proposals.push(proposal);
            self.relay_due.get_or_insert(now.plus_ms(RELAY_DELAY_MS));
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

    /// Sends this node's own votes to everybody at once.
    pub fn send_votes(&mut self, votes: Vec<Vote>) -> Vec<Effect> {
        for vote in &votes {
            for peer in self.map.values_mut() {
                peer.votes.insert(vote_key(vote));
            }
        }
        let to = self.ids();
        let frame = |part: &[Vote]| {
            let votes = BoundedVec::take_from(part.iter().cloned());
            Effect::Send(to.clone(), Arc::new(Message::Votes(votes)))
        };
        if to.is_empty() {
            Vec::new()
        } else {
            votes.chunks(VOTES_PER_FRAME).map(frame).collect()
        }
    }

    /// Sends a proposal to everybody who is not known to hold it.
    pub fn send_proposal(&mut self, proposal: &Arc<Proposal>) -> Vec<Effect> {
        let at = proposal.signed.body.at();
        let lacks = |peer: &mut Peer| peer.proposals.insert(at);
        let to: Vec<PeerId> = self
            .map
            .iter_mut()
            .filter_map(|(id, peer)| lacks(peer).then_some(*id))
            .collect();
        match to.is_empty() {
            true => Vec::new(),
            false => vec![Effect::Send(
                to,
                Arc::new(Message::Proposal(Box::new(Proposal::clone(proposal)))),
            )],
        }
    }

    /// What is due to be relayed.
    pub fn flush(&mut self, now: MonoUs) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.relay_due.is_some_and(|due| now >= due) {
            self.relay_due = None;
            let (votes, proposals) = (
                std::mem::take(&mut self.votes),
                std::mem::take(&mut self.proposals),
            );
            for proposal in &proposals {
                out.extend(self.send_proposal(proposal));
            }
            for (id, peer) in &mut self.map {
                let lacking: Vec<&Vote> = votes
                    .iter()
                    .filter(|v| peer.votes.insert(vote_key(v)))
                    .collect();
                for part in lacking.chunks(VOTES_PER_FRAME) {
                    let frame = BoundedVec::take_from(part.iter().copied().cloned());
                    out.push(Effect::Send(vec![*id], Arc::new(Message::Votes(frame))));
                }
            }
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
    use crate::crypto::keys::Signature;
    use crate::types::vote::VoteBody;

    fn vote(voter: u8) -> Vote {
        let body = VoteBody {
            step: VoteStep::Prevote,
            branch: Branch(0),
            era: Era(0),
            height: Height(1),
            round: Round(0),
            valid_round: None,
            block: None,
        };
        let voter = MasternodeId(crate::crypto::hash::Hash([voter; 32]));
        Vote {
            body,
            voter,
            signature: Signature([0; 64]),
        }
    }

    fn recipients(effects: &[Effect]) -> Vec<PeerId> {
        let to = |e: &Effect| {
            if let Effect::Send(to, _) = e {
                to.clone()
            } else {
                vec![]
            }
        };
        effects.iter().flat_map(to).collect()
    }

    #[test]
    fn a_vote_is_relayed_once_to_those_who_lack_it() {
        let mut peers = Peers::default();
        (1..=3).for_each(|i| peers.up(PeerId(i), Status::default()));
        peers.has_vote(PeerId(1), &vote(9));
        peers.relay_vote(MonoUs(0), vote(9));
        peers.has_vote(PeerId(2), &vote(9));
        assert!(
            peers.flush(MonoUs(4_999)).is_empty(),
            "it waits for authors to reach everybody themselves"
        );
        let due = peers.deadline().unwrap();
        assert_eq!(
            recipients(&peers.flush(due)),
            vec![PeerId(3)],
            "S8: every peer not known to have it"
        );
        peers.relay_vote(due, vote(9));
        assert!(
            peers.flush(peers.deadline().unwrap()).is_empty(),
            "S8: once"
        );
    }

    #[test]
    fn what_is_remembered_of_a_peer_is_bounded() {
        let mut peers = Peers::default();
        peers.up(PeerId(1), Status::default());
        for i in 0..2 * KNOWN_TX_COUNT_MAX as u64 {
            let mut hash = crate::crypto::hash::Hash::ZERO;
            hash.0[..8].copy_from_slice(&i.to_le_bytes());
            peers.has_tx(PeerId(1), Wtxid(hash));
        }
        assert_eq!(peers.get(PeerId(1)).unwrap().txs.len(), KNOWN_TX_COUNT_MAX);
    }
}
