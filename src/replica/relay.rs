//! Who is told what of the height under way (S8): as little as decides it.
//!
//! Validators know one another, so a vote goes from its signer to every validator and is passed on by nobody. Whoever
//! decides nothing needs no votes: validators send it each proposal and, once the height is decided, the certificate. What a
//! frame lost on the way, a missing connection or a signer that favours some has kept from a validator, it asks for with a
//! bitmap of what it holds, a few peers at a time. Who had to ask for a signer's votes that were old by then is passed on
//! that signer's votes from then on, for a while: a broken path costs one slow height, not every height.
//!
//! A validator without connections to a quorum asks everybody. A node that decides nothing and is asked so carries votes:
//! it asks in turn, and by the same rule is soon passed on what it needs.

use crate::base::bounded::BoundedVec;
use crate::base::limits::VOTES_PER_FRAME;
use crate::base::time::MonoUs;
use crate::p2p::messages::{Message, PeerId, Proposal};
use crate::replica::io::Effect;
use crate::replica::peers::{Peer, Peers, RELAY_COUNT_MAX, vote_key};
use crate::types::block::Certificate;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use crate::types::vote::Vote;
use std::sync::Arc;

/// How long votes and proposals of others wait before they are passed on, ms: several leave in one frame, and who shows
/// meanwhile that it has them is spared.
const RELAY_DELAY_MS: u64 = 5;
/// Peers asked at a time: that all of them lie, while less than a third of all validators do, hardly ever happens twice.
pub const ASK_MAX: usize = 8;
/// Who had to ask for a signer's votes is passed them on for this long, ms.
const FEED_MS: u64 = 60_000;
/// A node that decides nothing carries votes for this long after a validator asked it, ms.
const CARRY_MS: u64 = 30_000;
/// Votes of the height remembered for each peer; beyond it all are forgotten (votes are then offered twice at worst).
pub(super) const KNOWN_VOTE_COUNT_MAX: usize = 16_384;

impl Peer {
    fn feeds_on(&self, signer: &MasternodeId, now: MonoUs) -> bool {
        self.feeds.get(signer).is_some_and(|until| now < *until)
    }

    fn note_vote(&mut self, vote: &Vote) -> bool {
        if self.votes.len() >= KNOWN_VOTE_COUNT_MAX {
            self.votes.clear();
        }
        self.votes.insert(vote_key(vote))
    }
}

impl Peers {
    /// A new height, and who decides it: what peers hold of the old one no longer matters.
    pub fn new_height(&mut self, now: MonoUs, set: Arc<ValidatorSet>, me: Option<MasternodeId>) {
        for peer in self.map.values_mut() {
            peer.votes.clear();
            peer.proposals.clear();
            peer.feeds
                .retain(|signer, until| now < *until && set.get(signer).is_some());
        }
        self.fed
            .retain(|signer, until| now < *until && set.get(signer).is_some());
        self.set = set;
        self.me = me;
        self.heard.clear();
        self.offered.clear();
        self.votes.clear();
        self.proposals.clear();
        self.relay_due = None;
    }

    /// Whether this node is one of those who decide the height.
    pub fn decides(&self) -> bool {
        self.me.is_some_and(|me| self.set.get(&me).is_some())
    }

    /// Whether a peer proved to be one of them.
    pub fn is_validator(&self, peer: PeerId) -> bool {
        self.map.get(&peer).is_some_and(|p| validates(p, &self.set))
    }

    /// A peer holds a vote.
    pub fn has_vote(&mut self, peer: PeerId, vote: &Vote) {
        let Some(peer) = self.map.get_mut(&peer) else {
            return;
        };
        peer.note_vote(vote);
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

    fn is_fed(&self, signer: &MasternodeId, now: MonoUs) -> bool {
        self.fed.get(signer).is_some_and(|until| now < *until)
    }

    /// A vote of another node is there: passed on a little later to those who would not get it otherwise.
    pub fn relay_vote(&mut self, now: MonoUs, vote: Vote) {
        if self.heard.len() < KNOWN_VOTE_COUNT_MAX {
            self.heard.entry(vote_key(&vote)).or_insert(now);
        }
        if self.is_fed(&vote.voter, now) && self.votes.len() < RELAY_COUNT_MAX {
            self.votes.push(vote);
            self.relay_due.get_or_insert(now.plus_ms(RELAY_DELAY_MS));
        }
    }

    /// A proposal of another node is there, likewise.
    pub fn relay_proposal(&mut self, now: MonoUs, proposal: Arc<Proposal>) {
        let (at, proposer) = (proposal.signed.body.at(), proposal.signed.proposer);
        self.offered.entry(at).or_insert(now);
        let wanted = self.decides() || self.is_fed(&proposer, now);
        if wanted && self.proposals.len() < VOTES_PER_FRAME {
            self.proposals.push(proposal);
            self.relay_due.get_or_insert(now.plus_ms(RELAY_DELAY_MS));
        }
    }

    /// Sends this node's own votes to those who count them, at once.
    pub fn send_votes(&mut self, now: MonoUs, votes: Vec<Vote>) -> Vec<Effect> {
        let Some(me) = self.me.filter(|_| !votes.is_empty()) else {
            return Vec::new();
        };
        for vote in &votes {
            self.heard.entry(vote_key(vote)).or_insert(now);
        }
        let mut to = Vec::new();
        for (id, peer) in &mut self.map {
            if validates(peer, &self.set) || peer.feeds_on(&me, now) {
                for vote in &votes {
                    peer.note_vote(vote);
                }
                to.push(*id);
            }
        }
        if to.is_empty() {
            return Vec::new();
        }
        let frame = |part: &[Vote]| {
            let votes = BoundedVec::take_from(part.iter().cloned());
            Effect::Send(to.clone(), Arc::new(Message::Votes(votes)))
        };
        votes.chunks(VOTES_PER_FRAME).map(frame).collect()
    }

    /// Sends this node's own proposal to everybody who is not known to hold it.
    pub fn send_proposal(&mut self, now: MonoUs, proposal: &Arc<Proposal>) -> Option<Effect> {
        self.offered.entry(proposal.signed.body.at()).or_insert(now);
        self.offer(proposal, |_| true)
    }

    fn offer(&mut self, proposal: &Arc<Proposal>, to: impl Fn(&Peer) -> bool) -> Option<Effect> {
        let at = proposal.signed.body.at();
        let lacks = |peer: &mut Peer| to(peer) && peer.proposals.insert(at);
        let peers = self.map.iter_mut();
        let to: Vec<PeerId> = peers
            .filter_map(|(id, peer)| lacks(peer).then_some(*id))
            .collect();
        let frame = || Message::Proposal(Box::new(Proposal::clone(proposal)));
        (!to.is_empty()).then(|| Effect::Send(to, Arc::new(frame())))
    }

    /// The height is decided: those who got no votes get the certificate.
    pub fn send_certificate(&self, now: MonoUs, certificate: &Certificate) -> Option<Effect> {
        let decides = self.decides();
        let lacks = |peer: &Peer| {
            let told = decides && !validates(peer, &self.set);
            let fed = peer.feeds.values().any(|until| now < *until);
            peer.status.height < certificate.height && (told || fed)
        };
        let peers = self.map.iter().filter(|(_, peer)| lacks(peer));
        let to: Vec<PeerId> = peers.map(|(id, _)| *id).collect();
        let frame = || Message::Certificate(Box::new(certificate.clone()));
        (!to.is_empty()).then(|| Effect::Send(to, Arc::new(frame())))
    }

    /// Passes on what waits.
    pub(super) fn relay(&mut self, now: MonoUs, out: &mut Vec<Effect>) {
        let (votes, proposals) = (
            std::mem::take(&mut self.votes),
            std::mem::take(&mut self.proposals),
        );
        let (decides, set) = (self.decides(), self.set.clone());
        for proposal in &proposals {
            let proposer = proposal.signed.proposer;
            out.extend(self.offer(proposal, |peer| {
                decides && !validates(peer, &set) || peer.feeds_on(&proposer, now)
            }));
        }
        for (id, peer) in &mut self.map {
            let mut lacking = Vec::new();
            for vote in &votes {
                if peer.feeds_on(&vote.voter, now) && peer.note_vote(vote) {
                    lacking.push(vote);
                }
            }
            for part in lacking.chunks(VOTES_PER_FRAME) {
                let frame = BoundedVec::take_from(part.iter().copied().cloned());
                out.push(Effect::Send(vec![*id], Arc::new(Message::Votes(frame))));
            }
        }
    }

    /// A peer lacks a vote that is held here, and is sent it. If the vote is old its signer does not reach that peer.
    pub fn lacked_vote(&mut self, now: MonoUs, peer: PeerId, vote: &Vote) {
        let since = self.heard.get(&vote_key(vote)).copied();
        self.lacked(now, peer, vote.voter, since);
        self.has_vote(peer, vote);
    }

    /// A peer lacks a proposal that is held here, likewise.
    pub fn lacked_proposal(&mut self, now: MonoUs, peer: PeerId, proposal: &Proposal) {
        let at = proposal.signed.body.at();
        let since = self.offered.get(&at).copied();
        self.lacked(now, peer, proposal.signed.proposer, since);
        self.has_proposal(peer, at);
    }

    fn lacked(&mut self, now: MonoUs, peer: PeerId, signer: MasternodeId, since: Option<MonoUs>) {
        let old = since.is_some_and(|at| now >= at.plus_ms(self.patience_ms));
        let member = self.set.get(&signer).is_some();
        if let Some(peer) = self.map.get_mut(&peer)
            && old
            && member
            && peer.masternode != Some(signer)
        {
            peer.feeds.insert(signer, now.plus_ms(FEED_MS));
            self.fed.insert(signer, now.plus_ms(FEED_MS));
        }
    }

    /// A validator asks this node: one that decides nothing begins to carry votes. True if it was not doing so.
    pub fn asked_by(&mut self, now: MonoUs, peer: PeerId) -> bool {
        let carry = !self.decides() && self.is_validator(peer);
        let began = carry && now >= self.carries_until;
        if carry {
            self.carries_until = now.plus_ms(CARRY_MS);
        }
        began
    }

    /// Whether this node collects the votes of the height.
    pub fn collects(&self, now: MonoUs) -> bool {
        self.decides() || now < self.carries_until
    }

    /// Who is asked next for what is missing: validators if those at hand make a quorum with this node, else everybody; at
    /// most [`ASK_MAX`], in turns.
    pub fn ask(&mut self, now: MonoUs) -> Vec<PeerId> {
        if !self.collects(now) {
            return Vec::new();
        }
        let known = self.map.values().filter_map(|p| p.masternode);
        let known = known.chain(self.me).filter_map(|id| self.set.index_of(&id));
        let near: std::collections::BTreeSet<usize> = known.collect();
        let enough = is_quorum(self.set.power_of(near), self.set.total());
        let asked = |peer: &Peer| !enough || validates(peer, &self.set);
        let peers = self.map.iter().filter(|(_, peer)| asked(peer));
        let mut ids: Vec<PeerId> = peers.map(|(id, _)| *id).collect();
        if ids.len() > ASK_MAX {
            let first = self.turn % ids.len();
            self.turn = (first + ASK_MAX) % ids.len();
            ids.rotate_left(first);
            ids.truncate(ASK_MAX);
        }
        ids
    }

    /// Peers that may hold a block, likeliest first.
    pub fn sources(&self) -> Vec<PeerId> {
        let (mut near, far): (Vec<PeerId>, Vec<PeerId>) =
            self.map.keys().partition(|id| self.is_validator(**id));
        near.extend(far);
        near
    }
}

fn validates(peer: &Peer, set: &ValidatorSet) -> bool {
    peer.masternode.is_some_and(|id| set.get(&id).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::p2p::messages::Status;
    use crate::types::validators::Validator;
    use crate::types::vote::{VoteBody, VoteStep};

    fn id(i: u8) -> MasternodeId {
        MasternodeId(Hash([i; 32]))
    }

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
        Vote {
            body,
            voter: id(voter),
            signature: Signature([0; 64]),
        }
    }

    /// Validator `me` (0: none) of validators 1 to `count`, with peers 1 to `peers`: validators as far as there are any.
    fn peers(me: u8, count: u8, peers: u8) -> Peers {
        let member = |i| Validator {
            id: id(i),
            operator: PublicKey([i; 32]),
            power: Power(1),
        };
        let set = ValidatorSet::new((1..=count).map(member).collect()).unwrap();
        let mut all = Peers::new(Arc::new(set), (me > 0).then(|| id(me)), 100);
        for i in (1..=peers).filter(|i| *i != me) {
            all.up(PeerId(i.into()), Status::default());
            all.get_mut(PeerId(i.into())).unwrap().masternode = (i <= count).then(|| id(i));
        }
        all
    }

    fn recipients<'a>(effects: impl IntoIterator<Item = &'a Effect>) -> Vec<u64> {
        let mut to = Vec::new();
        for effect in effects {
            if let Effect::Send(peers, _) = effect {
                to.extend(peers.iter().map(|p| p.0));
            }
        }
        to
    }

    #[test]
    fn votes_go_from_their_signer_to_validators_and_are_passed_on_by_nobody() {
        let mut all = peers(1, 4, 7);
        let sent = all.send_votes(MonoUs(0), vec![vote(1)]);
        assert_eq!(recipients(&sent), vec![2, 3, 4], "S8: to every validator");
        all.has_vote(PeerId(2), &vote(2));
        all.relay_vote(MonoUs(0), vote(2));
        assert_eq!(all.deadline(), None, "S8: its signer reaches the others");
    }

    #[test]
    fn who_had_to_ask_for_an_old_vote_is_passed_on_its_signers_votes() {
        let mut all = peers(1, 4, 7);
        all.relay_vote(MonoUs(0), vote(2));
        all.lacked_vote(MonoUs(99_999), PeerId(3), &vote(2));
        assert!(all.get(PeerId(3)).unwrap().feeds.is_empty(), "under way");
        all.lacked_vote(MonoUs(100_000), PeerId(3), &vote(2));
        all.lacked_vote(MonoUs(100_000), PeerId(2), &vote(2));
        let (set, me) = (all.set.clone(), all.me);
        all.new_height(MonoUs(100_000), set.clone(), me);
        all.relay_vote(MonoUs(200_000), vote(2));
        all.relay_vote(MonoUs(200_000), vote(4));
        let due = all.deadline().unwrap();
        assert_eq!(recipients(&all.flush(due)), vec![3], "S8: only it");
        all.relay_vote(due, vote(2));
        let due = all.deadline().unwrap();
        assert!(all.flush(due).is_empty(), "S8: once");
        all.new_height(MonoUs(100_000 + FEED_MS * 1_000), set, me);
        assert!(all.get(PeerId(3)).unwrap().feeds.is_empty(), "not for ever");
    }

    #[test]
    fn those_who_decide_nothing_get_certificates_from_validators_only() {
        let certificate = Certificate {
            height: Height(1),
            block: BlockId::default(),
            commit: crate::types::block::Commit::default(),
        };
        let mut all = peers(1, 4, 7);
        all.get_mut(PeerId(6)).unwrap().status.height = Height(1);
        let sent = all.send_certificate(MonoUs(0), &certificate);
        assert_eq!(recipients(&sent), vec![5, 7], "S8: who is not that far");
        let observer = peers(0, 4, 7);
        assert!(observer.send_certificate(MonoUs(0), &certificate).is_none());
    }

    #[test]
    fn a_few_validators_are_asked_in_turns_and_everybody_without_a_quorum() {
        let mut all = peers(1, 12, 20);
        let (a, b) = (all.ask(MonoUs(0)), all.ask(MonoUs(0)));
        assert_eq!((a.len(), b.len()), (ASK_MAX, ASK_MAX));
        assert!(a.iter().chain(&b).all(|peer| peer.0 <= 12));
        let asked: std::collections::BTreeSet<_> = a.iter().chain(&b).collect();
        assert_eq!(asked.len(), 11, "S8: all within two turns");
        let mut few = peers(1, 4, 2);
        few.up(PeerId(9), Status::default());
        assert_eq!(few.ask(MonoUs(0)), vec![PeerId(2), PeerId(9)]);
    }

    #[test]
    fn an_observer_carries_votes_only_after_a_validator_asked() {
        let mut all = peers(0, 4, 7);
        assert!(!all.asked_by(MonoUs(0), PeerId(6)), "an observer asks");
        assert!(all.ask(MonoUs(0)).is_empty());
        assert!(all.asked_by(MonoUs(0), PeerId(2)));
        assert!(!all.asked_by(MonoUs(0), PeerId(3)), "it carries already");
        assert_eq!(all.ask(MonoUs(0)).len(), 4);
        assert!(all.ask(MonoUs(CARRY_MS * 1_000)).is_empty());
    }
}
