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
        let low = Height(tip.0.saturating_sub(self.state.params().max_reorg)).min(high);
        let probe = Probe {
            low,
            sure: low == Height(0),
            high,
            found: None,
            asked: low,
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

    /// Searches without an answer end.
    pub(super) fn expire_probes(&mut self, now: Now) {
        self.forks.probes.retain(|_, probe| probe.due > now.mono);
        self.forks.rests.retain(|_, at| *at > now.mono);
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
        let (height, at) = (found.header.height, found.certificate.commit.at);
        let set = self.set_at(view, height, at.era)?;
        let same_set = found.header.validators_hash == own.header.validators_hash;
        let checks = set
            .filter(|_| same_set && height >= self.state.slots.oldest())
            .and_then(|set| {
                let (chain, branch) = (self.state.chain_id(), found.header.branch);
                found.certificate.checks(chain, branch, &set).ok()
            });
        match checks {
            Some(checks) => self.check(Item::Deep(peer, Box::new(found)), checks),
            None => self.refuse_fork(
                height,
                "it is deeper than max_reorg, and not decided by the set of this height",
            ),
        }
        Ok(())
    }

    /// Two blocks of one height are decided, and going back is beyond this node: it signs nothing more and says what to do.
    pub(in crate::replica) fn too_deep(
        &mut self,
        found: &Decision,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = found.header.height;
        let Some(own) = self.decision_at(view, height)? else {
            return Ok(());
        };
        if own.block() == found.block() || self.forks.deep.is_some() {
            return Ok(());
        }
        let blocks = [own.block(), found.block()];
        self.forks.deep = Some((height, blocks));
        self.gate.drop_held();
        self.guard.fork(Some(self.deep_advice(height, blocks)));
        self.event(Event::ForkTooDeep(height, blocks));
        Ok(())
    }

    /// What operators should do about a fork that no node can go back from.
    pub(super) fn deep_advice(&self, height: Height, [own, other]: [BlockId; 2]) -> String {
        format!(
            "FORK deeper than max_reorg ({} heights): at height {height} this node has {own} and others {other}; no node goes back so far by itself. Operators must agree on ONE of the two; who runs the other one: stop the node, 'timed db rebuild', 'timed trust {height}:ID' with the block that stays, and start it again; once none of them is left, start the others again, which sign nothing before",
            self.state.params().max_reorg
        )
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
        if own.block() == decision.block() {
            (probe.low, probe.sure) = (height, true);
        } else if !probe.sure {
            self.forks.probes.remove(&peer);
            return self.judge_deep(peer, decision, own, view);
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
            Some(own) => self.judge_proof(Some(peer), ForkProof::of(own, found), view),
            None => Ok(()),
        }
    }
}
