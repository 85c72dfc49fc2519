//! A fork that nobody goes back from by itself: deeper than max_reorg (F5), or decided in two eras. This node halts until its operator has followed
//! the advice, over every restart.
//!
//! Input: a decision of the height of another one of this node, its certificate verified; what the record says at a start; what
//! the operator vouches for. Output: the record, the halt, words. Never: halts for less than two verified certificates,
//! says that it has halted before that is durable, outlives its cause.

use crate::crypto::verify::Check;
use crate::ledger::coins::{CoinView, ViewError};
use crate::p2p::messages::PeerId;
use crate::replica::fork::recover::{BranchInfo, ForkInfo};
use crate::replica::gate::Held;
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::{DeepRecord, Record};
use crate::types::fork::Decision;
use crate::types::ids::*;
use std::collections::BTreeSet;

/// A fork that is too deep, and what it does now.
pub(in crate::replica) struct Deep {
    record: DeepRecord,
    stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// On its way to the disk: nothing is signed any more, nothing is said yet.
    Writing,
    /// Durable: the node has halted.
    Halted,
    /// The ledger was taken away: the chain that is fetched now has not reached the height.
    Passed,
}

impl Deep {
    fn height(&self) -> Height {
        self.record.own.header.height
    }

    fn blocks(&self) -> [BlockId; 2] {
        [self.record.own.block(), self.record.other.block()]
    }
}

impl Replica {
    /// The lowest height at which two chains may differ, of which decisions of one height are known: their headers name the
    /// slot block below, and certificates stand behind both. If even that differs, unbonding is the bound.
    fn lowest_difference(&self, own: &Decision, other: &Decision) -> Height {
        let height = own.header.height;
        if own.header.parent == other.header.parent {
            return height;
        }
        let slots = &self.state.slots;
        let below = slots.records.iter().rev().find(|r| r.first < height);
        match below {
            Some(record) if own.header.prev_slot_block == other.header.prev_slot_block => {
                record.first.next()
            }
            _ => slots.oldest().next(),
        }
        .min(height)
    }

    /// What would show that members with more than two thirds of the power have decided `found` at the height of `own`: its
    /// signature checks. Of two eras those count who had a vote in both: a new era is what the members without guilt have
    /// agreed on, and culprits may go on to sign in the one that is over. `None`: not so, or not known here.
    fn contradiction(
        &self,
        own: &Decision,
        found: &Decision,
        view: &dyn CoinView,
    ) -> Result<Option<Vec<Check>>, ViewError> {
        let (height, commit) = (found.header.height, &found.certificate.commit);
        let (mine, theirs) = (own.certificate.commit.at.era, commit.at.era);
        let same_set = found.header.validators_hash == own.header.validators_hash;
        let formed = same_set && theirs >= found.header.era && height >= self.state.slots.oldest();
        let Some(set) = self.set_at(view, height, mine)?.filter(|_| formed) else {
            return Ok(None);
        };
        let mut barred: BTreeSet<MasternodeId> = BTreeSet::new();
        let members = set.members().iter().enumerate();
        barred.extend(
            members
                .filter(|(i, _)| set.is_barred(*i))
                .map(|(_, m)| m.id),
        );
        for era in (mine.0..theirs.0).map(Era) {
            match self.forks.certs.get(&era) {
                Some(cert) => barred.extend(cert.culprits.iter().map(|e| e.offender)),
                None => return Ok(None),
            }
        }
        let set = set.without(&barred);
        let voted = match theirs < mine {
            true => set.without([]),
            false => set.clone(),
        };
        let signed = match commit.signers.len() == set.len() {
            true => set.power_of(commit.signers.ones()),
            false => return Ok(None),
        };
        let (chain, branch) = (self.state.chain_id(), found.header.branch);
        let checks = found.certificate.checks(chain, branch, &voted).ok();
        Ok(checks.filter(|_| is_quorum(signed, set.total())))
    }

    /// A block that no node goes over to by itself: if it is decided, this node halts.
    pub(in crate::replica) fn judge_contradiction(
        &mut self,
        peer: PeerId,
        found: Decision,
        own: &Decision,
        why: &'static str,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match self.contradiction(own, &found, view)? {
            Some(checks) => self.check(Item::Deep(peer, Box::new(found)), checks),
            None => self.refuse_fork(found.header.height, why),
        }
        Ok(())
    }

    /// Two blocks of one height are decided, and going back is beyond this node: it signs nothing more. That is durable
    /// before anybody is told.
    pub(in crate::replica) fn too_deep(
        &mut self,
        found: &Decision,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(own) = self.decision_at(view, found.header.height)? else {
            return Ok(());
        };
        let halted = |deep: &Deep| deep.stage != Stage::Passed;
        if own.block() == found.block() || self.forks.deep.as_ref().is_some_and(halted) {
            return Ok(());
        }
        let record = DeepRecord {
            from: self.lowest_difference(&own, found),
            own,
            other: found.clone(),
        };
        self.gate.write(&Record::Deep(Box::new(record.clone())));
        self.gate.drop_held();
        self.gate.hold(Held::Deep);
        self.forks.deep = Some(Deep {
            record,
            stage: Stage::Writing,
        });
        self.guard.fork(self.deep_advice());
        Ok(())
    }

    /// The record is on disk: from now on every start halts.
    pub(in crate::replica) fn deep_durable(&mut self) {
        let Some(deep) = &mut self.forks.deep else {
            return;
        };
        deep.stage = Stage::Halted;
        let (height, blocks) = (deep.height(), deep.blocks());
        self.event(Event::ForkTooDeep(height, blocks));
    }

    /// What was known of a deep fork when the node stopped holds again before anything can be signed.
    pub(in crate::replica) fn reopen_deep(
        &mut self,
        record: Option<DeepRecord>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.forks.deep = record.map(|record| Deep {
            record,
            stage: Stage::Passed,
        });
        self.settle_deep(view)
    }

    /// Whether the cause of the halt is there: asked at every start and, while the ledger is fetched anew, at every height.
    pub(in crate::replica) fn settle_deep(&mut self, view: &dyn CoinView) -> Result<(), ViewError> {
        let Some(deep) = self.forks.deep.as_ref() else {
            return Ok(());
        };
        let height = deep.height();
        if deep.stage != Stage::Passed || height > self.state.height() {
            // Halted until a start finds something else, or nothing is there that could contradict.
            return Ok(());
        }
        let held = self.decision_at(view, height)?.map(|own| own.block());
        let own = held.is_none_or(|block| block == deep.record.own.block());
        // The operator has agreed with others on this chain. Where the block itself is kept no more, the word alone counts.
        let trust = &self.trust;
        let met = trust.vouched().is_some_and(|root| root.height >= height);
        let named = trust.root().is_some_and(|root| root.height == height);
        if own && !met && !(held.is_none() && named) {
            return self.halt_again();
        }
        let record = Record::Deep(Box::new(deep.record.clone()));
        self.gate.forget(&record);
        self.forks.deep = None;
        Ok(())
    }

    fn halt_again(&mut self) -> Result<(), ViewError> {
        if let Some(deep) = &mut self.forks.deep {
            deep.stage = Stage::Halted;
            let (height, blocks) = (deep.height(), deep.blocks());
            self.gate.drop_held();
            self.guard.fork(self.deep_advice());
            self.event(Event::ForkTooDeep(height, blocks));
        }
        Ok(())
    }

    /// What operators should do about a fork that no node can go back from.
    fn deep_advice(&self) -> Option<String> {
        let deep = self.forks.deep.as_ref()?;
        let (height, [own, other]) = (deep.height(), deep.blocks());
        let eras = [&deep.record.own, &deep.record.other].map(|d| d.certificate.commit.at.era);
        let named = deep.record.other.header.recovery_hash;
        let mut own_certs = self.forks.certs.values();
        let other_cert = !named.is_zero() && own_certs.all(|cert| cert.hash() != named);
        let what = match eras[0] == eras[1] {
            // Both are decided, by what is left of the set without the one's culprits and without the other's.
            _ if other_cert => format!(
                "FORK of an era that two recovery certificates began: at height {height} this node has {own} and others {other}; no node goes from one to the other by itself"
            ),
            true => format!(
                "FORK deeper than max_reorg ({} heights): at height {height} this node has {own} and others {other}; no node goes back so far by itself",
                self.state.params().max_reorg
            ),
            false => format!(
                "FORK over two eras: at height {height} this node has {own}, decided in era {}, and others {other}, decided in era {}; no certificate ends it, and the newer era is what the masternodes without guilt agreed on",
                eras[0], eras[1]
            ),
        };
        Some(format!(
            "{what}. Operators must agree on ONE of the two chains. Who runs the other one: stop the node, 'timed db rebuild', 'timed trust {height}:ID', and start it again; ID is what 'time-cli getblockhash {height}' says on a node of the chain that stays. Once none of them is left, who runs the chain that stays: stop the node, 'timed trust {height}:{own}', and start it again. Nothing is signed before, whatever starts in between"
        ))
    }

    /// The deep fork at which this node has halted.
    pub(in crate::replica) fn deep_fork(&self) -> Option<ForkInfo> {
        let deep = self.forks.deep.as_ref();
        let deep = deep.filter(|deep| deep.stage == Stage::Halted)?;
        let height = deep.height();
        let branch = |decision: &Decision| BranchInfo {
            block: decision.block(),
            at: decision.certificate.commit.at,
            stated: Power(0),
        };
        Some(ForkInfo {
            height,
            era: self.state.era(),
            open: true,
            branches: [&deep.record.own, &deep.record.other].map(branch).into(),
            held: Some(deep.record.own.block()),
            stays: None,
            culprits: Vec::new(),
            power: (Power(0), Power(0)),
            needed: Power(0),
            attempt: None,
            depth: (self.state.height().0 + 1).saturating_sub(height.0),
            returned: Vec::new(),
            advice: self.deep_advice().unwrap_or_default(),
        })
    }

    /// The height of the fork that is open.
    pub(in crate::replica) fn open_height(&self) -> Option<Height> {
        let case = self.forks.case.as_ref().map(|case| case.proof.height());
        let deep = self.forks.deep.as_ref();
        let deep = deep.filter(|deep| deep.stage == Stage::Halted);
        case.or_else(|| deep.map(Deep::height))
    }

    /// The lowest height whose block a fork that has not ended may take back: what was decided there or above is not to be
    /// relied on. Its end lasts until this process has crossed into the next era.
    pub fn contested(&self) -> Option<Height> {
        let forks = &self.forks;
        let open = forks.case.as_ref().map(|case| case.proof.height());
        let ending = forks.certs.get(&self.state.era());
        let ending = ending.map(|cert| cert.fork.height());
        let deep = forks.deep.as_ref();
        let deep = deep.filter(|deep| deep.stage != Stage::Passed);
        let deep = deep.map(|deep| deep.record.from);
        let lowest = open.into_iter().chain(ending).chain(deep).min();
        // A node that is still below has nothing to take back.
        lowest.filter(|from| *from <= self.state.height())
    }
}
