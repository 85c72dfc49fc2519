//! Where does a peer's chain leave this one's? A binary search over decisions, one question at a time. A peer that lies
//! wastes a dozen small questions: what it shows in the end must verify.

use crate::base::time::{MonoUs, Now};
use crate::ledger::coins::{CoinView, ViewError};
use crate::p2p::messages::{Message, PeerId};
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::types::fork::{Decision, ForkProof};
use crate::types::ids::*;

/// A peer that does not answer is given up after this time, ms.
const ANSWER_MS: u64 = 5_000;
/// Time between two searches with one peer, ms.
const REST_MS: u64 = 15_000;
/// Searches at one time.
const PROBE_COUNT_MAX: usize = 16;

/// A search with one peer.
pub(super) struct Probe {
    /// Highest height known to be the same, once `sure`.
    low: Height,
    sure: bool,
    /// Lowest height known to differ, and what the peer decided there, once told.
    high: Height,
    found: Option<Decision>,
    asked: Height,
    /// A difference where undo ends, the peer's decision first, while a block below it is asked for that is settled.
    deep: Option<Box<(Decision, Decision)>>,
    pub(super) due: MonoUs,
}

impl Probe {
    /// The next height to ask about, `None` when the first difference is at hand.
    fn next(&self) -> Option<Height> {
        if !self.sure {
            return Some(self.low);
        }
        let gap = self.high.0 - self.low.0;
        match gap {
            0 => None,
            1 if self.found.is_some() => None,
            1 => Some(self.high),
            _ => Some(Height(self.low.0 + gap / 2)),
        }
    }
}

impl Replica {
    /// A peer differs at a height that this node has decided, or its blocks do not follow this node's.
    pub(in crate::replica) fn suspect(&mut self, now: Now, peer: PeerId, height: Height) {
        let tip = self.state.height();
        let high = height.min(tip);
        let busy = self.forks.probes.len() >= PROBE_COUNT_MAX
            || self.forks.probes.contains_key(&peer)
            || self.forks.rests.get(&peer).is_some_and(|at| *at > now.mono);
        if busy || high == Height(0) || self.peers.get(peer).is_none() {
            return;
        }
        self.forks.rests.insert(peer, now.mono.plus_ms(REST_MS));
        if self.forks.case.is_some() {
            // It may not know yet.
            return self.greet_with_fork(peer);
        }
        // Not below where undo ends: who decided there is known no more, and a difference there is too deep in any case.
        let low = self.reorg_floor().min(high);
        let probe = Probe {
            low,
            sure: low == Height(0),
            high,
            found: None,
            asked: low,
            deep: None,
            due: now.mono,
        };
        self.forks.probes.insert(peer, probe);
        self.ask_probe(now, peer);
    }

    fn ask_probe(&mut self, now: Now, peer: PeerId) {
        let Some(probe) = self.forks.probes.get_mut(&peer) else {
            return;
        };
        if let Some(height) = probe.next() {
            probe.asked = height;
            probe.due = now.mono.plus_ms(ANSWER_MS);
            self.send(peer, Message::GetDecision(height));
        }
    }

    /// Searches without an answer end; a peer that does not show the block that is settled is judged without.
    pub(super) fn expire_probes(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        self.forks.rests.retain(|_, at| *at > now.mono);
        let over = self.forks.probes.iter().filter(|(_, p)| p.due <= now.mono);
        let over: Vec<PeerId> = over.map(|(peer, _)| *peer).collect();
        for peer in over {
            let deep = self.forks.probes.remove(&peer).and_then(|p| p.deep);
            if let Some(deep) = deep {
                let (found, own) = *deep;
                self.judge_deep(peer, found, own, view)?;
            }
        }
        Ok(())
    }

    /// The highest block below `height` of which it is settled that it stays: the operator vouches for it, or a fork ended for it.
    fn settled_below(&self, height: Height) -> Option<Height> {
        let vouched = self.trust.vouched().map(|root| root.height);
        let ended = self.forks.pin.map(|(at, _)| at);
        let all = vouched.into_iter().chain(ended);
        all.filter(|at| Height(0) < *at && *at < height).max()
    }

    /// A difference where undo ends. A peer that is on a branch which was given up is told apart first: it differs at a block
    /// that is settled, too. Else whoever comes back from it could halt the others.
    fn differs_deep(
        &mut self,
        now: Now,
        peer: PeerId,
        (found, own): (Decision, Decision),
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = found.header.height;
        match self.settled_below(height) {
            Some(settled) => {
                let Some(probe) = self.forks.probes.get_mut(&peer) else {
                    return Ok(());
                };
                probe.deep = Some(Box::new((found, own)));
                probe.asked = settled;
                probe.due = now.mono.plus_ms(ANSWER_MS);
                self.send(peer, Message::GetDecision(settled));
                Ok(())
            }
            None => {
                self.forks.probes.remove(&peer);
                self.judge_deep(peer, found, own, view)
            }
        }
    }

    fn given_up(&mut self, height: Height) {
        let why = "its peer is on a branch that the operator or a RecoveryCert has given up";
        self.refuse_fork(height, why);
    }

    /// Chains that differ where undo ends: the first difference is deeper. If the set of this height has decided both blocks
    /// it is a fork all the same.
    fn judge_deep(
        &mut self,
        peer: PeerId,
        found: Decision,
        own: Decision,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = found.header.height;
        let ended = self.forks.pin == Some((height, own.block()));
        if ended || self.trust.vouched().is_some_and(|r| height <= r.height) {
            let why = "that this node's own block stays there is settled";
            self.refuse_fork(height, why);
            return Ok(());
        }
        let why = "it is deeper than max_reorg, and not decided by the set of this height";
        self.judge_contradiction(peer, found, &own, why, view)
    }

    pub(super) fn probe_answered(
        &mut self,
        now: Now,
        peer: PeerId,
        decision: Decision,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let asked = self.forks.probes.get(&peer).map(|probe| probe.asked);
        if asked != Some(decision.header.height) {
            return Ok(());
        }
        let bound = decision.header.id() == decision.certificate.block
            && decision.certificate.height == decision.header.height;
        let own = self.decision_at(view, decision.header.height)?;
        let (Some(own), true) = (own, bound) else {
            self.forks.probes.remove(&peer);
            if !bound {
                let why = "a decision whose certificate is of another block";
                self.out.push(Effect::Fault(peer, why));
            }
            return Ok(());
        };
        let Some(probe) = self.forks.probes.get_mut(&peer) else {
            return Ok(());
        };
        let height = decision.header.height;
        let same = own.block() == decision.block();
        if let Some(deep) = probe.deep.take() {
            self.forks.probes.remove(&peer);
            let (found, own) = *deep;
            if same {
                return self.judge_deep(peer, found, own, view);
            }
            self.given_up(found.header.height);
            return Ok(());
        }
        if same {
            (probe.low, probe.sure) = (height, true);
        } else if !probe.sure {
            return self.differs_deep(now, peer, (decision, own), view);
        } else {
            (probe.high, probe.found) = (height, Some(decision));
        }
        if probe.next().is_some() {
            self.ask_probe(now, peer);
            return Ok(());
        }
        let Some(Probe {
            high,
            found: Some(found),
            ..
        }) = self.forks.probes.remove(&peer)
        else {
            return Ok(());
        };
        match self.decision_at(view, high)? {
            // No RecoveryCert ends what was decided in two eras: whose era is over halts.
            Some(own) if own.certificate.commit.at.era != found.certificate.commit.at.era => {
                let why =
                    "it was decided in another era, and not by the members that had a vote in both";
                self.judge_contradiction(peer, found, &own, why, view)
            }
            Some(own) => self.judge_proof(Some(peer), ForkProof::of(own, found), view),
            None => Ok(()),
        }
    }
}
