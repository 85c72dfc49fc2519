//! Forks (F5, B6): two decisions of one height. Whoever notices stops signing, tells everybody, and helps to find out who is
//! guilty; members without guilt say which branch they held, and a majority of them ends the era.
//!
//! Input: peers' positions and decisions, proofs, polkas, statements, certificates. Output: frames, records, events, and
//! [`Effect::Restart`] once a RecoveryCert is durable: a node crosses into the next era by starting again from its disks,
//! so that there is one way to cross and a crash on the way changes nothing. Never: punishes for having held the branch
//! that is lost, signs two statements of one attempt, or lets an unproved claim stop anything.

mod case;
mod crossing;
mod deep;
mod pool;
mod probe;
mod recover;
#[cfg(test)]
mod tests_deep;

pub(super) use case::Case;
pub(super) use crossing::Others;
pub use recover::{ForkInfo, RecoverError};

use crate::base::limits::{PEER_COUNT_MAX, Size};
use crate::base::time::{MonoUs, Now};
use crate::crypto::hash::Hash;
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::fork::{check_proof, check_recovery, check_statement};
use crate::p2p::messages::{Message, PeerId, Status};
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::{ForkRecord, Record};
use crate::types::block::Certificate;
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use probe::Probe;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// While a fork is open, what is missing is asked for and what was said is said again this often, ms.
const AGAIN_MS: u64 = 2_000;
/// Bytes of polkas of decided heights kept at hand (S6); beyond it the oldest go, and their height's fork is attributed by
/// what other nodes hold.
const ARCHIVE_BYTES_MAX: usize = 32 << 20;
/// What a polka takes beside its signatures.
const POLKA_BYTES_MIN: usize = 128;
/// Proofs about heights that this node has not reached; beyond it the oldest go.
const EARLY_COUNT_MAX: usize = 4;

/// A proof about a height whose set is not known yet.
#[derive(Debug, Clone)]
enum Early {
    Proof(Box<ForkProof>),
    Cert(Box<RecoveryCert>),
}

/// Polkas of decided heights.
#[derive(Default)]
pub(super) struct Archive {
    polkas: BTreeMap<(Height, EraRound, BlockId), Arc<Polka>>,
    bytes: usize,
}

impl Archive {
    fn size(polka: &Polka) -> usize {
        POLKA_BYTES_MIN + 64 * polka.votes.signatures.len()
    }

    pub(super) fn add(&mut self, polka: Arc<Polka>) {
        let key = (polka.height, polka.at(), polka.block);
        let size = Archive::size(&polka);
        if self.polkas.insert(key, polka).is_none() {
            self.bytes += size;
        }
        while self.bytes > ARCHIVE_BYTES_MAX
            && let Some((_, old)) = self.polkas.pop_first()
        {
            self.bytes -= Archive::size(&old);
        }
    }

    /// Forgets heights below `first`.
    fn prune(&mut self, first: Height) {
        while let Some(entry) = self.polkas.first_entry()
            && entry.key().0 < first
        {
            self.bytes -= Archive::size(&entry.remove());
        }
    }

    pub(super) fn get(&self, height: Height, at: EraRound, block: BlockId) -> Option<&Arc<Polka>> {
        self.polkas.get(&(height, at, block))
    }

    fn of_height(&self, height: Height) -> impl Iterator<Item = &Arc<Polka>> {
        let all = self.polkas.iter();
        all.filter(move |((h, ..), _)| *h == height).map(|(_, p)| p)
    }
}

/// All that a node knows of forks.
#[derive(Default)]
pub(super) struct Forks {
    /// The fork that is open.
    pub(super) case: Option<Case>,
    /// A fork below what can be taken back.
    pub(super) deep: Option<deep::Deep>,
    /// Searches for the first height at which a peer differs.
    probes: BTreeMap<PeerId, Probe>,
    /// Peers that are not searched again before this time.
    rests: BTreeMap<PeerId, MonoUs>,
    /// Ids of heights decided since the start, the last `max_reorg`.
    ids: BTreeMap<Height, BlockId>,
    pub(super) archive: Archive,
    /// RecoveryCerts by the era they ended: served to whoever is behind.
    pub(super) certs: BTreeMap<Era, RecoveryCert>,
    pub(super) others: Others,
    told: BTreeSet<(PeerId, Hash)>,
    early: VecDeque<Early>,
    /// The block that stays at the height of the last fork.
    pub(super) pin: Option<(Height, BlockId)>,
    /// Payments of blocks that were taken back, in their order.
    pub(super) returned: Vec<Txid>,
}

impl Forks {
    fn knows(&self, proof: &ForkProof) -> bool {
        let hash = proof.hash();
        self.case.as_ref().is_some_and(|c| c.proof.hash() == hash)
            || self.certs.values().any(|cert| cert.fork.hash() == hash)
    }

    /// Whether a block may be decided at a height.
    pub(super) fn allows(&self, height: Height, block: BlockId) -> bool {
        self.pin
            .is_none_or(|(pinned, id)| pinned != height || id == block)
    }

    /// The block decided at a height since the start.
    pub(super) fn decided_id(&self, height: Height) -> Option<BlockId> {
        self.ids.get(&height).copied()
    }

    /// Searches and sayings that are due.
    pub(super) fn deadline(&self) -> Deadline {
        let probes = self.probes.values().map(|probe| probe.due);
        probes.chain(self.case.as_ref().map(|c| c.due)).min()
    }

    /// How full its containers are; `reorg`: blocks that can be taken back.
    pub(super) fn sizes(&self, reorg: usize) -> Vec<Size> {
        let archive = &self.archive;
        let mut sizes = vec![
            Size::new("searches for forks", self.probes.len(), PEER_COUNT_MAX),
            Size::new("peers not searched again", self.rests.len(), PEER_COUNT_MAX),
            Size::new("ids of decided blocks", self.ids.len(), reorg + 1),
            Size::new("bytes of polkas at hand", archive.bytes, ARCHIVE_BYTES_MAX),
            Size::new(
                "polkas at hand",
                archive.polkas.len(),
                ARCHIVE_BYTES_MAX / POLKA_BYTES_MIN,
            ),
            Size::new(
                "peers told of eras",
                self.told.len(),
                PEER_COUNT_MAX * crossing::CERT_COUNT_MAX,
            ),
            self.others.sizes(),
            Size::new("early proofs", self.early.len(), EARLY_COUNT_MAX),
        ];
        sizes.extend(self.case.iter().flat_map(Case::sizes));
        sizes
    }

    pub(super) fn peer_down(&mut self, peer: PeerId) {
        self.probes.remove(&peer);
        self.rests.remove(&peer);
        self.told.retain(|(of, _)| *of != peer);
    }
}

impl Replica {
    /// What this node decided at a height.
    fn decision_at(
        &self,
        view: &dyn CoinView,
        height: Height,
    ) -> Result<Option<Decision>, ViewError> {
        let recent = self.undurable.iter();
        let recent = recent.chain(&self.last);
        match recent.into_iter().find(|d| d.certificate.height == height) {
            Some(decided) => Ok(Some(Decision {
                header: decided.block.header.clone(),
                certificate: decided.certificate.clone(),
            })),
            None => view.decision(height),
        }
    }

    /// Who decided a height, or decides it; `None` if undo does not reach there.
    fn set_at(
        &self,
        view: &dyn CoinView,
        height: Height,
        era: Era,
    ) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        let tip = self.state.height();
        if height == tip.next() {
            return Ok(self.state.set_of(era));
        }
        if height == tip {
            return Ok(self.state.last_set_of(era));
        }
        let recent = self.undurable.iter();
        match recent.into_iter().find(|d| d.certificate.height == height) {
            Some(decided) => Ok(Some(decided.delta.after.last_validators.clone())),
            None => view.deciders_of(height),
        }
    }

    /// A height was decided: remembers what a fork at it would need.
    pub(super) fn note_decided(&mut self, certificate: &Certificate) {
        let first = Height(
            certificate
                .height
                .0
                .saturating_sub(self.state.params().max_reorg),
        );
        self.forks.ids.insert(certificate.height, certificate.block);
        self.forks.ids = self.forks.ids.split_off(&first);
        self.forks.others.passed();
        self.forks.archive.prune(first);
        let polkas: Vec<Arc<Polka>> = self.height.engine.tally().polkas().cloned().collect();
        for polka in polkas {
            self.forks.archive.add(polka);
        }
    }

    /// F5: a peer that stands on another block than this node did at its height, is asked until the first difference is
    /// found; one of an older era is told how that era ended.
    pub(super) fn compare(
        &mut self,
        now: Now,
        peer: PeerId,
        status: &Status,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let tip = self.state.height();
        let own = match (status.height == tip, self.forks.decided_id(status.height)) {
            (true, _) => Some(self.state.block()),
            (false, Some(id)) => Some(id),
            // Decided before the start: nobody else may notice, as a peer that is behind finds nothing of this node's tip.
            (false, None) if status.height < tip && status.height >= self.reorg_floor() => {
                let own = self.decision_at(view, status.height)?;
                own.map(|decision| decision.block())
            }
            (false, None) => None,
        };
        if status.height > Height(0) && own.is_some_and(|own| own != status.block) {
            self.suspect(now, peer, status.height);
        }
        self.tell_certs(peer, status);
        self.ask_entered(now, peer, status);
        Ok(())
    }

    /// A peer of an older era is told how that era ended; one of this era that may not have decided a block of it yet is told all
    /// that this node holds, once for each connection.
    fn tell_certs(&mut self, peer: PeerId, status: &Status) {
        let tip = self.state.tip.era;
        let (certs, others) = (&self.forks.certs, &self.forks.others);
        let last = certs.last_key_value().map(|(_, cert)| cert);
        let near = |cert: &&RecoveryCert| {
            let reach = self.state.params().max_reorg;
            let first = cert.fork.height().0.saturating_add(reach);
            status.era == cert.era.next() && status.height.0 <= first.saturating_add(1)
        };
        let one = certs
            .get(&status.era)
            .filter(|_| status.era < self.state.era());
        let mut tell: Vec<&RecoveryCert> = one.or(last.filter(near)).into_iter().collect();
        if tell.first().is_some_and(|cert| cert.era == tip) {
            tell.extend(others.iter().filter(|cert| cert.era == tip));
        }
        let new = tell.into_iter().map(|cert| (cert.hash(), cert));
        let new = new.filter(|(hash, _)| !self.forks.told.contains(&(peer, *hash)));
        let room =
            (PEER_COUNT_MAX * crossing::CERT_COUNT_MAX).saturating_sub(self.forks.told.len());
        let new: Vec<(Hash, RecoveryCert)> =
            new.map(|(hash, c)| (hash, c.clone())).take(room).collect();
        for (hash, cert) in new {
            self.forks.told.insert((peer, hash));
            self.send(peer, Message::RecoveryCert(Box::new(cert)));
        }
    }

    /// The lowest height whose set undo tells.
    fn reorg_floor(&self) -> Height {
        let tip = self.state.height();
        Height(tip.0.saturating_sub(self.state.params().max_reorg))
    }

    /// A new peer learns of the fork that is open.
    pub(super) fn greet_with_fork(&mut self, peer: PeerId) {
        let Some(case) = &self.forks.case else {
            return;
        };
        let proof = Message::ForkProof(Box::new(case.pool.widest(&case.proof)));
        let statements: Vec<Message> = case.statements().map(Message::Statement).collect();
        self.send(peer, proof);
        for statement in statements {
            self.send(peer, statement);
        }
    }

    /// Frames about forks.
    pub(super) fn fork_frame(
        &mut self,
        now: Now,
        peer: PeerId,
        message: Message,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        match message {
            Message::GetDecision(height) => {
                if let Some(decision) = self.decision_at(view, height)? {
                    // The certificate that its header names: who asks may have had no place for it before.
                    let named = decision.header.recovery_hash;
                    let mut certs = self.forks.certs.values().filter(|_| !named.is_zero());
                    if let Some(cert) = certs.find(|cert| cert.hash() == named).cloned() {
                        self.send(peer, Message::RecoveryCert(Box::new(cert)));
                    }
                    self.send(peer, Message::Decision(Box::new(decision)));
                }
                Ok(())
            }
            Message::Decision(decision) => {
                self.weigh_decision(Some(peer), &decision, view)?;
                self.probe_answered(now, peer, *decision, view)
            }
            Message::Tie(tie) => {
                self.judge_tie(peer, *tie);
                Ok(())
            }
            Message::ForkProof(proof) => self.judge_proof(Some(peer), *proof, view),
            Message::Statement(statement) => {
                let Some(case) = &self.forks.case else {
                    return Ok(());
                };
                if case.wants(&statement)
                    && let Ok(check) =
                        check_statement(&statement, &case.proof, self.state.chain_id(), &case.set)
                {
                    self.check(Item::Statement(peer, statement), vec![check]);
                }
                Ok(())
            }
            Message::RecoveryCert(cert) => self.judge_cert(Some(peer), *cert, view),
            _ => Ok(()),
        }
    }

    /// What is due by time.
    pub(super) fn tend_forks(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        self.expire_probes(now, view)?;
        if self.forks.case.as_ref().is_some_and(|c| c.due <= now.mono) {
            self.tend_case(now);
        }
        self.tend_crossing(now);
        Ok(())
    }

    /// A RecoveryCert whose signatures hold: the era ends for this node too, whether it had noticed the fork or not.
    pub(super) fn recovery_proven(
        &mut self,
        peer: Option<PeerId>,
        cert: RecoveryCert,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if self.forks.certs.contains_key(&cert.era) {
            return self.keep_other(peer, cert, view);
        }
        // What this node knows beside it may name more culprits: then its own certificate is the better one.
        let case = self.forks.case.as_mut();
        let cert = case.and_then(|case| case.absorb(&cert)).unwrap_or(cert);
        if self.forks.case.is_none() {
            let own = self.decision_at(view, cert.fork.height())?;
            let held = own.map(|d| d.block());
            let record = ForkRecord {
                era: cert.era,
                held: held.filter(|block| cert.fork.side(*block).is_some()),
                proof: cert.fork.clone(),
            };
            self.gate.write(&Record::Fork(Box::new(record)));
        }
        self.adopt(cert);
        Ok(())
    }

    fn refuse_fork(&mut self, height: Height, why: &'static str) {
        self.event(Event::ForkRefused(height, why));
    }

    /// F5: a proof counts inside unbonding and under the set that this node knows decided the height; anything else
    /// changes nothing.
    pub(super) fn judge_proof(
        &mut self,
        peer: Option<PeerId>,
        proof: ForkProof,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = proof.height();
        if let Some(case) = &self.forks.case {
            // Other certificates of the same blocks may show culprits that the own ones hide.
            let more = case.proof.hash() == proof.hash() && case.pool.lacks(&proof);
            if more && let Ok(checks) = check_proof(&proof, self.state.chain_id(), &case.set) {
                let checks = case.pool.unknown(&proof, checks);
                self.check(Item::Fork(peer, Box::new(proof)), checks);
            }
            return Ok(());
        }
        if self.forks.knows(&proof) {
            peer.into_iter().for_each(|peer| self.ask_split(peer));
            return Ok(());
        }
        if height < self.state.slots.oldest() {
            self.refuse_fork(height, "it is older than unbonding");
            return Ok(());
        }
        if height > self.state.height().next() {
            self.keep_early(Early::Proof(Box::new(proof)));
            return Ok(());
        }
        let era = proof.first.certificate.commit.at.era;
        let Some(set) = self.set_at(view, height, era)? else {
            self.refuse_fork(
                height,
                "undo does not reach it, so its validator set is not known",
            );
            return Ok(());
        };
        match check_proof(&proof, self.state.chain_id(), &set) {
            Ok(checks) => self.check(Item::Fork(peer, Box::new(proof)), checks),
            Err(_) => {
                self.refuse_fork(height, "it is no proof under the set of its height");
                peer.into_iter().for_each(|peer| self.ask_split(peer));
            }
        }
        Ok(())
    }

    /// Whether an era may end with this certificate is a question of signatures and of the set of the fork's height.
    pub(super) fn judge_cert(
        &mut self,
        peer: Option<PeerId>,
        cert: RecoveryCert,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let height = cert.fork.height();
        let known = self.forks.certs.contains_key(&cert.era) || cert.era < self.state.era();
        if known && !self.wants_other(&cert) {
            return Ok(());
        }
        if cert.era > self.state.era() || height > self.state.height().next() {
            self.keep_early(Early::Cert(Box::new(cert)));
            return Ok(());
        }
        let era = cert.fork.first.certificate.commit.at.era;
        let Some(set) = self.set_at(view, height, era)? else {
            self.refuse_fork(height, "undo does not reach it: fetch the ledger again");
            return Ok(());
        };
        match check_recovery(&cert, self.state.chain_id(), &set) {
            Ok(checks) => self.check(Item::Recovery(peer, Box::new(cert)), checks),
            Err(_) => self.refuse_fork(height, "its recovery certificate does not hold"),
        }
        Ok(())
    }

    fn keep_early(&mut self, early: Early) {
        let same = |held: &Early| match (held, &early) {
            (Early::Proof(a), Early::Proof(b)) => a.hash() == b.hash(),
            (Early::Cert(a), Early::Cert(b)) => a == b,
            _ => false,
        };
        if self.forks.early.iter().any(same) {
            return;
        }
        if self.forks.early.len() >= EARLY_COUNT_MAX {
            self.forks.early.pop_front();
        }
        self.forks.early.push_back(early);
    }

    /// The height has moved: what was too early may be judged now.
    pub(super) fn retry_early(&mut self, view: &dyn CoinView) -> Result<(), ViewError> {
        if self.forks.early.is_empty() {
            return Ok(());
        }
        let next = self.state.height().next();
        for early in std::mem::take(&mut self.forks.early) {
            match early {
                Early::Proof(proof) if proof.height() <= next => {
                    self.judge_proof(None, *proof, view)?;
                }
                Early::Cert(cert) if cert.fork.height() <= next => {
                    self.judge_cert(None, *cert, view)?;
                }
                later => self.forks.early.push_back(later),
            }
        }
        Ok(())
    }

    /// A polka of a decided height, for attribution.
    pub(super) fn serve_polka(
        &self,
        height: Height,
        at: EraRound,
        block: BlockId,
    ) -> Option<Polka> {
        let held = match height == self.height.height() {
            true => self.height.engine.polka(at, block),
            false => self.forks.archive.get(height, at, block),
        };
        let held = held.map(|polka| Polka::clone(polka));
        held.or_else(|| {
            let case = self.forks.case.as_ref()?;
            let mut polkas = case.polkas.iter();
            let found = polkas.find(|p| (p.height, p.at(), p.block) == (height, at, block));
            found.cloned()
        })
    }
}
