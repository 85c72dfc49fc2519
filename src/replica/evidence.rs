//! Evidence on its way into a slot block (M7): what this node found itself or was told, judged, kept over restarts, told on
//! once, offered to every slot block it builds, and dropped when it is used up.
//!
//! Nothing is kept or told that the ledger would not punish now, with both signatures checked: nobody is accused by hearsay.

use crate::base::limits::{EVIDENCE_KEPT_COUNT_MAX, Size};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::evidence::judge_next;
use crate::p2p::messages::{Message, PeerId};
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::Record;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::vote::Vote;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Evidence of one node: one piece for each offender, as many as a block takes. Beyond that, pieces against the least power
/// give way: they are found again while their offenders go on.
#[derive(Debug, Default)]
pub struct Accused {
    held: BTreeMap<MasternodeId, Evidence>,
    checking: BTreeSet<MasternodeId>,
}

impl Accused {
    /// Evidence that was kept before the start; what is stale goes at the next slot block.
    pub fn new(kept: Vec<Evidence>) -> Accused {
        Accused {
            held: kept.into_iter().map(|e| (e.offender, e)).collect(),
            checking: BTreeSet::new(),
        }
    }
    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        vec![
            Size::new("evidence", self.held.len(), EVIDENCE_KEPT_COUNT_MAX),
            Size::new(
                "evidence being checked",
                self.checking.len(),
                EVIDENCE_KEPT_COUNT_MAX,
            ),
        ]
    }

    /// What is held, ascending offender.
    pub fn held(&self) -> impl Iterator<Item = &Evidence> {
        self.held.values()
    }
}

impl Replica {
    /// The core found two messages that no honest key signs both.
    pub(super) fn accuse(&mut self, evidence: Box<Evidence>) {
        let known = self.accused.held.contains_key(&evidence.offender);
        if !known && judge_next(&self.state, &evidence).is_ok() {
            self.keep_evidence(evidence, None);
        }
    }

    /// A height is decided: who precommitted something else here than the certificate or the next block's last_commit shows?
    pub(super) fn watch_decided(&mut self, decided: &DecidedBlock, synced: bool) {
        let (header, certificate) = (&decided.block.header, &decided.certificate);
        let parent = Height(header.height.0.saturating_sub(1));
        let mut found = self.late.last_commit(parent, &decided.block.last_commit);
        if !synced {
            let engine = &self.height.engine;
            let of = (header.branch, engine.at().era, engine.set().clone());
            found.extend(self.late.keep(engine.tally(), of, certificate.clone()));
        }
        for evidence in found {
            self.evidence_told(None, Box::new(evidence));
        }
    }

    /// A vote of a height that is over: it counts for nothing, and is compared with what was counted. Its signature is not
    /// checked; what a masternode itself sent by a connection that its key proved is shown to it again (B7 step 2).
    pub(super) fn late_vote(&mut self, peer: PeerId, vote: &Vote) {
        if self.peers.get(peer).and_then(|p| p.masternode) == Some(vote.voter) {
            self.note_seen(vote);
        }
        if let Some(evidence) = self.late.vote(vote) {
            self.evidence_told(Some(peer), Box::new(evidence));
        }
    }

    /// Evidence of a peer, or what this node makes of a vote that came late: new, and something the ledger would punish?
    pub(super) fn evidence_told(&mut self, peer: Option<PeerId>, evidence: Box<Evidence>) {
        let offender = evidence.offender;
        // What is held may be about another height than that of the fork that is open.
        let known = self.accused.held.contains_key(&offender) && !self.fork_wants(&evidence);
        if known || self.accused.checking.contains(&offender) {
            return;
        }
        let Ok(checks) = judge_next(&self.state, &evidence) else {
            return;
        };
        if self.accused.checking.len() >= EVIDENCE_KEPT_COUNT_MAX {
            return self.event(Event::Shed("evidence being checked"));
        }
        self.accused.checking.insert(offender);
        self.check(Item::Evidence(peer, evidence), checks.to_vec());
    }

    /// The signatures of a peer's evidence were checked.
    pub(super) fn evidence_checked(
        &mut self,
        peer: Option<PeerId>,
        evidence: Box<Evidence>,
        good: bool,
    ) {
        self.accused.checking.remove(&evidence.offender);
        if !good {
            // It names its key itself, so this is nobody's error but that of who did not look.
            return self.blame(peer, "evidence with a bad signature");
        }
        self.fork_evidence(&evidence);
        let known = self.accused.held.contains_key(&evidence.offender);
        // A slot block may have come in between.
        if !known && judge_next(&self.state, &evidence).is_ok() {
            self.keep_evidence(evidence, peer);
        }
    }

    fn keep_evidence(&mut self, evidence: Box<Evidence>, from: Option<PeerId>) {
        self.fork_evidence(&evidence);
        if self.accused.held.len() >= EVIDENCE_KEPT_COUNT_MAX {
            let registry = self.state.registry();
            let power = |id: &MasternodeId| registry.get(id).map_or(Power(0), |e| e.power());
            let least = self.accused.held.keys().min_by_key(|id| power(id)).copied();
            match least.filter(|least| power(least) < power(&evidence.offender)) {
                Some(least) => self.drop_evidence(least),
                None => return self.event(Event::Shed("evidence")),
            }
        }
        self.gate.write(&Record::Evidence(evidence.clone()));
        let offender = evidence.offender;
        self.accused
            .held
            .insert(offender, Evidence::clone(&evidence));
        let to = self.peers.ids();
        let to: Vec<PeerId> = to.into_iter().filter(|peer| Some(*peer) != from).collect();
        if !to.is_empty() {
            let frame = Arc::new(Message::Evidence(evidence.clone()));
            self.out.push(Effect::Send(to, frame));
        }
        self.event(Event::Evidence(evidence));
    }

    fn drop_evidence(&mut self, offender: MasternodeId) {
        if let Some(gone) = self.accused.held.remove(&offender) {
            self.gate.forget(&Record::Evidence(Box::new(gone)));
        }
    }

    /// After a slot block: what is used up or stale goes; what still waits is told again, as its leader may not have had it.
    pub(super) fn sweep_evidence(&mut self) {
        let held = self.accused.held.values();
        let stale = held.filter(|e| judge_next(&self.state, e).is_err());
        let stale: Vec<MasternodeId> = stale.map(|e| e.offender).collect();
        stale.into_iter().for_each(|id| self.drop_evidence(id));
        let to = self.peers.ids();
        for evidence in self.accused.held.values().filter(|_| !to.is_empty()) {
            let frame = Arc::new(Message::Evidence(Box::new(evidence.clone())));
            self.out.push(Effect::Send(to.clone(), frame));
        }
    }

    /// A peer that has just come is told what waits for a slot block.
    pub(super) fn greet_with_evidence(&mut self, peer: PeerId) {
        for evidence in self.accused.held.values() {
            let frame = Arc::new(Message::Evidence(Box::new(evidence.clone())));
            self.out.push(Effect::Send(vec![peer], frame));
        }
    }
}
