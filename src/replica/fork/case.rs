//! The fork that is open: who is guilty of it (S6), and who says which branch (B6 steps 1 to 4).

use crate::base::bounded::BoundedVec;
use crate::base::limits::Size;
use crate::base::time::{MonoUs, Now};
use crate::crypto::verify::Verified;
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::fork::{Attribution, attribute, is_majority, power_of};
use crate::p2p::messages::Message;
use crate::replica::fork::AGAIN_MS;
use crate::replica::fork::pool::Pool;
use crate::replica::gate::Held;
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::{ForkRecord, Record};
use crate::types::block::Certificate;
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence, Statement, StatementBody};
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Attempts beyond the own one of which statements are kept: somebody who claims 2^32 attempts must not be followed.
const ATTEMPTS_AHEAD: u32 = 8;
/// Polkas kept of the fork's height.
const POLKA_COUNT_MAX: usize = 256;
/// Polkas that peers are asked for though they are held: theirs may show other signers.
const ASKED_POLKA_COUNT_MAX: usize = 8;
/// How many peers are asked for those: what others hold comes as evidence.
const ASKED_PEER_COUNT_MAX: usize = 32;
/// A block is stated once no new culprit was found for this time, ms: what one node knows reaches all others first.
const SETTLE_MS: u64 = 2 * AGAIN_MS;
/// It is stated anyway this long after the culprits are over a third, ms: a coalition that betrays itself bit by bit delays
/// nobody for ever.
const SETTLE_MAX_MS: u64 = 10 * AGAIN_MS;

/// A fork that has not ended.
pub(in crate::replica) struct Case {
    pub(in crate::replica) proof: ForkProof,
    /// Era that it ends.
    pub(in crate::replica) era: Era,
    /// Who decided its height.
    pub(in crate::replica) set: Arc<ValidatorSet>,
    /// Which of the two blocks this node had decided.
    pub(in crate::replica) held: Option<BlockId>,
    /// Polkas of its height.
    pub(in crate::replica) polkas: Vec<Polka>,
    /// What was signed at its height, and who is guilty.
    pub(in crate::replica) pool: Pool,
    /// The proof as peers were told it last.
    told: Option<ForkProof>,
    /// How many culprits were known at the last look, and since when.
    settled: (usize, MonoUs),
    /// Since when the culprits are over a third.
    proved: Option<MonoUs>,
    /// Whether peers were asked for their polkas too.
    asked: bool,
    /// The polka that attribution lacks.
    pub(in crate::replica) missing: Option<(EraRound, BlockId)>,
    /// By attempt and masternode.
    statements: BTreeMap<(u32, MasternodeId), Statement>,
    /// Own statements that are durable or on their way.
    own: BTreeMap<u32, Statement>,
    /// Attempts of which the own statement is durable.
    said: BTreeSet<u32>,
    pub(in crate::replica) due: MonoUs,
}

impl Case {
    /// A case as it begins or is read back.
    pub(in crate::replica) fn new(
        record: ForkRecord,
        set: Arc<ValidatorSet>,
        own: Vec<Statement>,
        now: MonoUs,
    ) -> Case {
        let said = own.iter().map(|s| s.body.attempt).collect();
        let own = own.into_iter().map(|s| (s.body.attempt, s));
        let pool = Pool::new(&record.proof, set.clone());
        Case {
            pool,
            told: None,
            settled: (0, now),
            proved: None,
            asked: false,
            proof: record.proof,
            era: record.era,
            set,
            held: record.held,
            polkas: Vec::new(),
            missing: None,
            statements: BTreeMap::new(),
            own: own.collect(),
            said,
            due: now,
        }
    }

    /// How full its containers are.
    pub(super) fn sizes(&self) -> Vec<Size> {
        let attempts = (self.attempt().unwrap_or(0) + ATTEMPTS_AHEAD + 1) as usize;
        let members = self.set.len();
        let own = self.own.len().max(self.said.len());
        let mut sizes = vec![
            Size::new("polkas of a fork", self.polkas.len(), POLKA_COUNT_MAX),
            Size::new("statements", self.statements.len(), attempts * members),
            Size::new("own statements", own, attempts),
        ];
        sizes.extend(self.pool.sizes());
        sizes
    }

    /// All statements held, own ones that are durable included.
    pub(in crate::replica) fn statements(&self) -> impl Iterator<Item = Statement> {
        self.statements.values().cloned()
    }

    pub(in crate::replica) fn attempt(&self) -> Option<u32> {
        self.own.last_key_value().map(|(attempt, _)| *attempt)
    }

    /// The greatest attempt that somebody else has made, within what is kept.
    pub(in crate::replica) fn seen_attempt(&self) -> u32 {
        self.statements
            .last_key_value()
            .map_or(0, |((attempt, _), _)| *attempt)
    }

    /// Whether a statement is news.
    pub(in crate::replica) fn wants(&self, statement: &Statement) -> bool {
        let last = self.attempt().unwrap_or(0).saturating_add(ATTEMPTS_AHEAD);
        let key = (statement.body.attempt, statement.masternode);
        statement.body.era == self.era
            && statement.body.attempt <= last
            && self.statements.get(&key) != Some(statement)
    }

    /// What this node says: the block it had decided; had it decided none, the one it is locked on, else that of the lower
    /// round. Any choice is safe for it: it has told nobody that something is final.
    fn choice(&self, locked: Option<BlockId>) -> BlockId {
        let locked = locked.filter(|block| self.proof.side(*block).is_some());
        let lower = self.proof.by_round().0.block();
        self.held.or(locked).unwrap_or(lower)
    }

    pub(in crate::replica) fn is_guilty(&self, id: &MasternodeId) -> bool {
        self.pool.is_guilty(id)
    }

    /// Evidence against everybody who is known to be guilty, ascending offender id.
    pub(in crate::replica) fn culprits(&self) -> Vec<Evidence> {
        self.pool.culprits().cloned().collect()
    }

    /// Whether the culprits hold more than a third: nothing happens by itself before (B6 step 2).
    pub(in crate::replica) fn is_proved(&self) -> bool {
        is_over_third(power_of(&self.culprits(), &self.set), self.set.total())
    }

    /// B6 step 3: whether it is time to state a block. Others have told what they know by then, so that all count over the
    /// same R.
    fn is_settled(&self, now: MonoUs) -> bool {
        let over = |since: MonoUs, ms| since.plus_ms(ms) <= now;
        self.proved
            .is_some_and(|since| over(self.settled.1, SETTLE_MS) || over(since, SETTLE_MAX_MS))
    }

    /// A polka of its height that holds. False: it is known, or there are too many.
    fn add_polka(&mut self, polka: Polka) -> bool {
        if self.polkas.len() >= POLKA_COUNT_MAX || self.polkas.contains(&polka) {
            return false;
        }
        self.pool.polka(&polka);
        self.polkas.push(polka);
        true
    }

    /// The proof with all precommits that are known, if that was not told yet.
    fn news(&mut self) -> Option<ForkProof> {
        let widest = self.pool.widest(&self.proof);
        if self.told.as_ref() == Some(&widest) {
            return None;
        }
        self.told = Some(widest.clone());
        Some(widest)
    }

    /// Polkas that every peer is asked for once: the one that attribution lacks, else those that it used.
    fn wanted_polkas(&mut self) -> Vec<(EraRound, BlockId)> {
        if self.missing.is_some() || std::mem::replace(&mut self.asked, true) {
            return self.missing.into_iter().collect();
        }
        let blocks = self.proof.blocks();
        let known = self.polkas.iter().filter(|p| blocks.contains(&p.block));
        let known: BTreeSet<_> = known.map(|p| (p.at(), p.block)).collect();
        known.into_iter().take(ASKED_POLKA_COUNT_MAX).collect()
    }

    /// Power that has stated a block in an attempt, culprits left out.
    pub(in crate::replica) fn stated(&self, attempt: u32, block: BlockId) -> Power {
        let of = self.statements.values().filter(|s| {
            (s.body.attempt, s.body.block) == (attempt, block) && !self.is_guilty(&s.masternode)
        });
        self.set
            .power_of(of.filter_map(|s| self.set.index_of(&s.masternode)))
    }

    /// What a RecoveryCert of this fork shows joins what is known; the certificate that this makes, if it is of the same
    /// attempt and block: it names as many culprits or more.
    pub(super) fn absorb(&mut self, cert: &RecoveryCert) -> Option<RecoveryCert> {
        if (self.proof.hash(), self.era) != (cert.fork.hash(), cert.era) {
            return None;
        }
        self.pool.proof(&cert.fork);
        cert.culprits.iter().for_each(|e| self.pool.evidence(e));
        for statement in cert
            .statements
            .iter()
            .filter(|s| self.wants(s))
            .cloned()
            .collect::<Vec<_>>()
        {
            let key = (statement.body.attempt, statement.masternode);
            self.statements.entry(key).or_insert(statement);
        }
        let own = self.certificate()?;
        ((own.attempt, own.block) == (cert.attempt, cert.block)).then_some(own)
    }

    /// The certificate, once there is a majority in some attempt.
    fn certificate(&self) -> Option<RecoveryCert> {
        let attempts: BTreeSet<u32> = self
            .statements
            .keys()
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in attempts.into_iter().rev() {
            // Nothing happens by itself without proof against a third (B6 step 2).
            if attempt == 0 && !self.is_proved() {
                continue;
            }
            let culprits = self.culprits();
            for block in self.proof.blocks() {
                let all = self.statements.values();
                let of = |s: &&Statement| (s.body.attempt, s.body.block) == (attempt, block);
                let statements: Vec<&Statement> = all
                    .filter(of)
                    .filter(|s| !self.is_guilty(&s.masternode))
                    .collect();
                if is_majority(statements.iter().copied(), &culprits, &self.set) {
                    return Some(RecoveryCert {
                        fork: self.proof.clone(),
                        era: self.era,
                        attempt,
                        block,
                        culprits: BoundedVec::take_from(culprits),
                        statements: BoundedVec::take_from(statements.into_iter().cloned()),
                    });
                }
            }
        }
        None
    }
}

impl Replica {
    /// B6 step 1: the proof holds. Durable, then nothing more of this era is signed.
    pub(in crate::replica) fn forked(
        &mut self,
        now: Now,
        proof: ForkProof,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if let Some(case) = self.forks.case.as_mut() {
            if case.proof.hash() == proof.hash() {
                case.pool.proof(&proof);
                self.attribute_case(now);
            }
            return Ok(());
        }
        if self.forks.knows(&proof) {
            return Ok(());
        }
        let height = proof.height();
        let at = proof.first.certificate.commit.at.era;
        let Some(set) = self.set_at(view, height, at)? else {
            return Ok(());
        };
        let own = self.decision_at(view, height)?;
        let held = own.as_ref().map(Decision::block);
        let record = ForkRecord {
            era: self.state.era(),
            held: held.filter(|block| proof.side(*block).is_some()),
            proof,
        };
        self.gate.write(&Record::Fork(Box::new(record.clone())));
        // What waits for the disk was signed before; it is not said any more.
        self.gate.drop_held();
        self.event(Event::Forked {
            height,
            blocks: record.proof.blocks(),
            held: record.held,
        });
        let case = Case::new(record, set, Vec::new(), now.mono);
        self.open_case(case, own.map(|own| own.certificate));
        self.tend_case(now);
        Ok(())
    }

    /// The fork that was open when the node stopped.
    pub(in crate::replica) fn resume_case(
        &mut self,
        record: ForkRecord,
        own: Vec<Statement>,
        now: Now,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let (at, height) = (
            record.proof.first.certificate.commit.at.era,
            record.proof.height(),
        );
        match self.set_at(view, height, at)? {
            Some(set) => {
                let decided = self.decision_at(view, height)?;
                let case = Case::new(record, set, own, now.mono);
                self.open_case(case, decided.map(|own| own.certificate));
            }
            None => self.guard.fork(Some(format!(
                "FORK at height {height}, which undo no longer reaches: fetch the ledger again"
            ))),
        }
        Ok(())
    }

    /// From now on this is the fork that is open. `own`: why this node had decided what it held.
    fn open_case(&mut self, mut case: Case, own: Option<Certificate>) {
        let height = case.proof.height();
        self.guard.fork(Some(format!(
            "FORK at height {height}: two blocks are decided ({} and {}); see getforkinfo",
            case.proof.blocks()[0],
            case.proof.blocks()[1]
        )));
        own.iter().for_each(|own| case.pool.certificate(own));
        let above = self.undurable.iter().chain(&self.last);
        let mut above = above.filter(|decided| decided.certificate.height == height.next());
        if let (Some(above), Some(block)) = (above.next(), case.held) {
            let commit = above.block.last_commit.clone();
            case.pool.certificate(&Certificate {
                height,
                block,
                commit,
            });
        }
        let known: Vec<Polka> = self.polkas_of(height).cloned().collect();
        for polka in known {
            case.add_polka(polka);
        }
        let late = self.late.votes(height).cloned();
        late.for_each(|vote| case.pool.vote(vote));
        self.accused.held().for_each(|e| case.pool.evidence(e));
        let own: Vec<Statement> = case.own.values().cloned().collect();
        for statement in own {
            let key = (statement.body.attempt, statement.masternode);
            case.statements.insert(key, statement);
        }
        self.forks.case = Some(case);
    }

    /// Polkas of a height that this node holds.
    fn polkas_of(&self, height: Height) -> impl Iterator<Item = &Polka> {
        let now = (height == self.height.height()).then(|| self.height.engine.tally().polkas());
        let archive = self.forks.archive.of_height(height);
        archive.chain(now.into_iter().flatten()).map(|p| &**p)
    }

    /// Attribution, asking, saying, counting: whenever something is new, and every while.
    pub(in crate::replica) fn tend_case(&mut self, now: Now) {
        self.attribute_case(now);
        let Some(case) = &mut self.forks.case else {
            return;
        };
        case.due = now.mono.plus_ms(AGAIN_MS);
        let height = case.proof.height();
        let (lacks, wanted) = (case.missing.is_some(), case.wanted_polkas());
        let again: Vec<Statement> = case
            .own
            .values()
            .filter(|s| case.said.contains(&s.body.attempt))
            .cloned()
            .collect();
        let first = case.is_settled(now.mono) && case.own.is_empty();
        let to = self.peers.ids();
        if let Some(news) = case.news() {
            let record = ForkRecord {
                era: case.era,
                held: case.held,
                proof: news.clone(),
            };
            self.gate.write(&Record::Fork(Box::new(record)));
            let told = Arc::new(Message::ForkProof(Box::new(news)));
            self.out.push(Effect::Send(to.clone(), told));
        }
        let most = match lacks {
            true => to.len(),
            false => ASKED_PEER_COUNT_MAX,
        };
        for (at, block) in wanted {
            let wanted = Arc::new(Message::GetPolka((height, at, block)));
            let some = to.iter().take(most).copied().collect();
            self.out.push(Effect::Send(some, wanted));
        }
        for statement in again {
            let said = Arc::new(Message::Statement(statement));
            self.out.push(Effect::Send(to.clone(), said));
        }
        if first {
            // Who may not state anything waits for those who may.
            let _not_ours = self.state_branch(0, None);
        }
        self.count_statements();
    }

    /// S6 and more: everybody against whom anything that is held proves something. What is new is told as evidence.
    fn attribute_case(&mut self, now: Now) {
        let Some(case) = &mut self.forks.case else {
            return;
        };
        case.missing = match attribute(&case.proof, &case.set, &case.polkas) {
            Attribution::Missing { at, block } => Some((at, block)),
            Attribution::Culprits(_) => None,
        };
        if case.pool.guilty() == case.settled.0 {
            return;
        }
        case.settled = (case.pool.guilty(), now.mono);
        let proved = case.is_proved();
        if proved {
            case.proved.get_or_insert(now.mono);
        }
        let culprits = case.culprits();
        if proved {
            let ids = culprits.iter().map(|e| e.offender).collect();
            self.event(Event::ForkCulprits(ids));
        }
        for evidence in culprits {
            self.accuse(Box::new(evidence));
        }
    }

    /// Evidence that holds and was found or told elsewhere (M7): it counts for the fork if it is about its height.
    pub(in crate::replica) fn fork_evidence(&mut self, evidence: &Evidence) {
        if let Some(case) = &mut self.forks.case {
            case.pool.evidence(evidence);
        }
    }

    /// Whether evidence is about the height of the fork that is open and names somebody new.
    pub(in crate::replica) fn fork_wants(&self, evidence: &Evidence) -> bool {
        let case = self.forks.case.as_ref();
        case.is_some_and(|case| case.pool.wants(evidence))
    }

    /// A polka of the fork's height, verified.
    pub(in crate::replica) fn fork_polka(&mut self, now: Now, polka: Polka) {
        let case = self.forks.case.as_mut();
        if case.is_some_and(|case| case.add_polka(polka)) {
            self.attribute_case(now);
        }
    }

    /// B6 step 3: says which block stays, once per attempt, durable before it is said.
    pub(in crate::replica) fn state_branch(
        &mut self,
        attempt: u32,
        block: Option<BlockId>,
    ) -> Result<Statement, &'static str> {
        let case = self.forks.case.as_mut().ok_or("there is no fork")?;
        let (me, secret) = self
            .operator
            .as_ref()
            .ok_or("this node has no operator key")?;
        let member = case.set.get(me).filter(|m| m.operator == secret.public());
        if member.is_none() {
            return Err("this key had no vote at the height of the fork");
        }
        if case.is_guilty(me) {
            return Err("this masternode is among the culprits");
        }
        if !self.guard.is_sure() {
            return Err("the signer state is unsure: it may have stated something before (B7)");
        }
        if case.own.contains_key(&attempt) {
            return Err("this masternode has stated a block in this attempt");
        }
        let block = block.unwrap_or_else(|| case.choice(self.height.lock.map(|lock| lock.block)));
        let body = StatementBody {
            era: case.era,
            attempt,
            fork: case.proof.hash(),
            block,
            tip_height: self.state.height(),
            tip: self.state.block(),
        };
        let signature = secret.sign(&body.signing_hash(self.state.chain_id()));
        let statement = Statement {
            body,
            masternode: *me,
            signature,
        };
        case.own.insert(attempt, statement.clone());
        self.gate.write(&Record::Statement(statement.clone()));
        self.gate.hold(Held::Statement(statement.clone()));
        self.event(Event::ForkStated(attempt, block));
        Ok(statement)
    }

    /// An own statement is durable: now it is said and counts.
    pub(in crate::replica) fn statement_durable(&mut self, statement: Statement) {
        let Some(case) = &mut self.forks.case else {
            return;
        };
        case.said.insert(statement.body.attempt);
        let key = (statement.body.attempt, statement.masternode);
        case.statements.insert(key, statement.clone());
        let said = Arc::new(Message::Statement(statement));
        self.out.push(Effect::Send(self.peers.ids(), said));
        self.count_statements();
    }

    /// A statement of another member, verified. A second, different one is evidence.
    pub(in crate::replica) fn statement_proven(&mut self, proof: Verified<Statement>) {
        let statement = proof.into_inner();
        let Some(case) = &mut self.forks.case else {
            return;
        };
        if !case.wants(&statement) {
            return;
        }
        let key = (statement.body.attempt, statement.masternode);
        if let Some(before) = case.statements.get(&key) {
            let (a, b) = (before.clone(), statement);
            let offence = match a.body <= b.body {
                true => Offence::Statements(a, b),
                false => Offence::Statements(b, a),
            };
            if let Some(member) = case.set.get(&key.1) {
                let evidence = Evidence {
                    offender: key.1,
                    key: member.operator,
                    offence,
                };
                self.accuse(Box::new(evidence));
            }
            return;
        }
        case.statements.insert(key, statement.clone());
        let told = Arc::new(Message::Statement(statement));
        self.out.push(Effect::Send(self.peers.ids(), told));
        self.count_statements();
    }

    /// B6 step 4.
    fn count_statements(&mut self) {
        let cert = self.forks.case.as_ref().and_then(Case::certificate);
        if let Some(cert) = cert {
            self.adopt(cert);
        }
    }

    /// B6 step 5: the era is over. Once that is durable the node starts again in the next one.
    pub(in crate::replica) fn adopt(&mut self, cert: RecoveryCert) {
        if self.forks.certs.contains_key(&cert.era) || cert.era != self.state.era() {
            return;
        }
        let told = Arc::new(Message::RecoveryCert(Box::new(cert.clone())));
        self.out.push(Effect::Send(self.peers.ids(), told));
        self.begin_era(cert);
    }
}
