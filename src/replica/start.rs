//! Starting is recovering (S5): the ledger's state and the signer store's records become a replica, whether the last stop
//! was clean or a power cut. There is no other way to start.

use crate::base::time::Now;
use crate::consensus::machine::Machine;
use crate::consensus::messages::Restored;
use crate::consensus::round::Pinned;
use crate::crypto::keys::{SecretKey, Signature};
use crate::crypto::verify::{Check, Verified};
use crate::ledger::apply::{self, ApplyError};
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::era::NextEra;
use crate::ledger::state::State;
use crate::replica::evidence::Accused;
use crate::replica::fork::Others;
use crate::replica::gate::Gate;
use crate::replica::guard::Guard;
use crate::replica::height::{Work, context, proposal_of};
use crate::replica::io::*;
use crate::replica::machine::{Config, Replica, speaks_for};
use crate::replica::record::{
    DeepRecord, ForkRecord, Position, Record, RecordError, height_of_key,
};
use crate::types::block::{Block, Certificate};
use crate::types::fork::RecoveryCert;
use crate::types::ids::*;
use crate::types::masternode::Statement;
use crate::types::polka::Polka;
use crate::types::transaction::Tx;
use crate::types::vote::{SignedProposal, Vote};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a node has on its disks when it starts.
pub struct Disks {
    /// The ledger's newest durable state.
    pub state: State,
    /// The certificate of its newest block; `None` at height 0.
    pub certificate: Option<Certificate>,
    /// All records of the signer store.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why the signer store cannot be trusted, if it cannot (B7 step 1).
    pub unsure: Option<String>,
    /// Transactions of blocks that were taken back because a fork ended for the other branch ([`wanted_block`]).
    pub returned: Vec<Tx>,
}

/// What the store demands of the ledger before a replica starts: the block at this height must be this one. A ledger that
/// holds another one is taken back to the height below (B6 step 5).
pub fn wanted_block(
    records: &[(Vec<u8>, Vec<u8>)],
) -> Result<Option<(Height, BlockId)>, RecordError> {
    let certs = records.iter().filter(|(key, _)| key.first() == Some(&b'r'));
    let mut last = None;
    for (key, value) in certs {
        if let Record::Recovery(cert) = Record::read(key, value)? {
            last = Some((cert.fork.height(), cert.block));
        }
    }
    Ok(last)
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A record of the signer store cannot be read.
    #[error(
        "{0}; the signer store is damaged: move signer/ away and start again, the node abstains until it is safe to vote"
    )]
    Record(#[from] RecordError),
    /// The ledger cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A block that this node had decided does not apply to its own ledger.
    #[error(
        "block {height} in the signer store does not apply to the ledger ({why}): the ledger is damaged, run 'timed db rebuild'"
    )]
    Redo {
        /// Height of the block.
        height: Height,
        /// The rule it breaks.
        why: String,
    },
}

#[derive(Default)]
struct Found {
    high_water: Option<Position>,
    votes: BTreeMap<Height, Vec<Vote>>,
    proposals: BTreeMap<Height, Vec<SignedProposal>>,
    locks: BTreeMap<Height, Pinned>,
    valids: BTreeMap<Height, Pinned>,
    polkas: BTreeMap<Height, Vec<Polka>>,
    entries: BTreeMap<Height, Vec<Vote>>,
    blocks: BTreeMap<Height, Vec<Block>>,
    certificates: BTreeMap<Height, Certificate>,
    evidence: Vec<crate::types::masternode::Evidence>,
    forks: BTreeMap<Era, ForkRecord>,
    statements: Vec<Statement>,
    recoveries: BTreeMap<Era, RecoveryCert>,
    deep: Option<DeepRecord>,
    others: Vec<RecoveryCert>,
    keys: BTreeSet<Vec<u8>>,
}

impl Found {
    /// Drops what was signed and decided at `height` and above: a branch that is gone.
    fn forget_from(&mut self, height: Height) {
        self.votes.split_off(&height);
        self.proposals.split_off(&height);
        self.locks.split_off(&height);
        self.valids.split_off(&height);
        self.polkas.split_off(&height);
        self.entries.split_off(&height);
        self.blocks.split_off(&height);
        self.certificates.split_off(&height);
    }

    /// The valid block of a height. One that is not held is known by its polka again as soon as it comes.
    fn valid(&self, height: Height, held: &[BlockId]) -> Option<Pinned> {
        let valid = self.valids.get(&height).copied();
        valid.filter(|pinned| held.contains(&pinned.block))
    }

    /// The round of a new era to which a certificate, or a polka for a block of that era, binds this node at a height
    /// (`fork::crossing`).
    fn tied(&self, height: Height, era: Era) -> Option<EraRound> {
        let decided = self.certificates.values().map(|c| c.commit.at);
        let decided = decided.filter(|at| at.era == era).map(|at| EraRound {
            round: Round(u32::MAX),
            ..at
        });
        let blocks = self.blocks.get(&height).into_iter().flatten();
        let old: BTreeSet<BlockId> = blocks
            .filter(|b| b.header.era < era)
            .map(Block::id)
            .collect();
        let pinned = [self.locks.get(&height), self.valids.get(&height)];
        let pinned = pinned.into_iter().flatten();
        let pinned = pinned.filter(|p| p.at.era == era && !old.contains(&p.block));
        pinned.map(|p| p.at).chain(decided).max()
    }
}

fn read(records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Found, RecordError> {
    let mut found = Found::default();
    for (key, value) in records {
        match Record::read(&key, &value)? {
            Record::HighWater(position) => found.high_water = Some(position),
            Record::Proposal(p) => found.proposals.entry(p.body.height).or_default().push(p),
            Record::Vote(v) => found.votes.entry(v.body.height).or_default().push(v),
            Record::Lock(height, block, at) => {
                found.locks.insert(height, Pinned { block, at });
            }
            Record::Valid(height, block, at) => {
                found.valids.insert(height, Pinned { block, at });
            }
            Record::Polka(p) => found.polkas.entry(p.height).or_default().push(p),
            Record::Entry(height, _, votes) => drop(found.entries.insert(height, votes)),
            Record::Block(b) => found.blocks.entry(b.header.height).or_default().push(*b),
            Record::Certificate(c) => drop(found.certificates.insert(c.height, c)),
            Record::Evidence(e) => found.evidence.push(*e),
            Record::Fork(fork) => drop(found.forks.insert(fork.era, *fork)),
            Record::Statement(s) => found.statements.push(s),
            Record::Recovery(r) => drop(found.recoveries.insert(r.era, *r)),
            Record::Deep(deep) => found.deep = Some(*deep),
            Record::Other(r) => found.others.push(*r),
        }
        found.keys.insert(key);
    }
    Ok(found)
}

/// Keeps what verifies: records are our own, but a proof is a proof.
fn proven<T: Clone>(
    items: Vec<T>,
    check: impl Fn(&T) -> Option<Vec<crate::crypto::verify::Check>>,
) -> Vec<Verified<T>> {
    let checked = items
        .into_iter()
        .filter_map(|item| check(&item).map(|checks| (item, checks)))
        .collect();
    Verified::check_many(checked)
        .into_iter()
        .filter_map(Result::ok)
        .collect()
}

impl Replica {
    /// A replica at start, and what it wants done first: ledger writes of blocks that were decided and not yet durable, then
    /// whatever the height calls for.
    pub fn start(
        config: Config,
        disks: Disks,
        now: Now,
        view: &dyn CoinView,
    ) -> Result<(Replica, Vec<Effect>), StartError> {
        let mut found = read(disks.records)?;
        let me = config
            .operator
            .as_ref()
            .and_then(|key| speaks_for(&disks.state, key));
        let mut gate = Gate::new(std::mem::take(&mut found.keys));
        let mut state = disks.state;
        let crossing = found.recoveries.get(&state.tip.era).map(NextEra::of);
        if let Some(next) = &crossing {
            forget_lost_branch(&mut found, &mut gate, next);
        }
        let unsure = disks
            .unsure
            .or_else(|| votes_above(&found, &state, config.operator.as_ref()));
        let mut guard = Guard::new(me, found.high_water, unsure);
        if let Some(next) = crossing {
            gate.write(&Record::HighWater(guard.enter(next.era, next.fork)));
            state.next_era = Some(Arc::new(next));
        }
        let mut replica = Replica::new(config, state, guard, gate, now);
        replica.mempool.set_branch(replica.state.tip.branch);
        if let Some(certificate) = disks.certificate {
            replica.remember_signers(&certificate);
            replica.last_certificate = Some(certificate);
        }
        replica.accused = Accused::new(std::mem::take(&mut found.evidence));
        replica.forks.certs = std::mem::take(&mut found.recoveries);
        let last = replica.forks.certs.keys().next_back().copied();
        let others = std::mem::take(&mut found.others).into_iter();
        let others = others.filter(|cert| Some(cert.era) == last).collect();
        let tied = found.tied(replica.state.height().next(), replica.state.era());
        replica.forks.others = Others::new(others, tied);
        replica.forks.pin = replica
            .forks
            .certs
            .values()
            .next_back()
            .map(|c| (c.fork.height(), c.block));
        for polka in found.polkas.values().flatten() {
            replica.forks.archive.add(Arc::new(polka.clone()));
        }
        replica.redo(&mut found, now, view)?;
        if replica.guard.is_sure() && reaches_beyond(&found, replica.state.height().next()) {
            // Locks of heights that the ledger has yet to reach again would be forgotten on the way (I4).
            let why = "the ledger is behind what this key has signed: it was lost or replaced by an older one";
            replica.guard.distrust(why);
        }
        replica.reopen_case(&mut found, now, view)?;
        replica.reopen_deep(found.deep.take(), view)?;
        replica.resume(found, now, view)?;
        replica.take_back(disks.returned, now, view)?;
        replica.live_from(now);
        let effects = replica.handle(now, Input::Tick, view)?;
        Ok((replica, effects))
    }

    /// A fork that had not ended when the node stopped is open again before anything can be signed.
    fn reopen_case(
        &mut self,
        found: &mut Found,
        now: Now,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let era = self.state.era();
        let Some(record) = found.forks.remove(&era) else {
            return Ok(());
        };
        if self.forks.certs.contains_key(&era) {
            // It has ended; a node that is still below it stands in the old era.
            return Ok(());
        }
        let own = std::mem::take(&mut found.statements);
        let own = own.into_iter().filter(|s| s.body.era == era).collect();
        self.resume_case(record, own, now, view)
    }

    /// Payments of a branch that is gone wait again like any other.
    fn take_back(
        &mut self,
        returned: Vec<Tx>,
        now: Now,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        if returned.is_empty() {
            return Ok(());
        }
        self.forks.returned = returned.iter().map(|tx| tx.txid).collect();
        self.event(Event::Returned(self.forks.returned.clone()));
        for tx in returned {
            self.offer(now, tx, Origin::Local(None), view)?;
        }
        Ok(())
    }

    /// Applies again what was decided and had not reached the ledger's disk.
    fn redo(&mut self, found: &mut Found, now: Now, view: &dyn CoinView) -> Result<(), StartError> {
        loop {
            let height = self.state.height().next();
            let Some(certificate) = found.certificates.remove(&height) else {
                return Ok(());
            };
            let blocks = found.blocks.remove(&height).unwrap_or_default();
            let Some(block) = blocks.into_iter().find(|b| b.id() == certificate.block) else {
                return Ok(());
            };
            let judged = self.with_view(view, |replica, layered| {
                apply::apply(layered, &replica.state, &block)
            });
            let applied = judged.map_err(|error| match error {
                ApplyError::View(error) => StartError::View(error),
                ApplyError::Invalid(invalid) => StartError::Redo {
                    height,
                    why: invalid.to_string(),
                },
            })?;
            self.remember_signers(&certificate);
            let (id, delta) = (certificate.block, Arc::new(applied.delta));
            self.height
                .blocks
                .insert(id, Work::Valid(Arc::new(block), delta));
            self.certified(now, Box::new(certificate), view)?;
        }
    }

    /// Goes on in the height that was under way.
    fn resume(
        &mut self,
        mut found: Found,
        now: Now,
        view: &dyn CoinView,
    ) -> Result<(), StartError> {
        let height = self.state.height().next();
        let (chain, branch, set) = (
            self.state.chain_id(),
            self.state.tip.branch,
            self.state.deciders(),
        );
        let operator = |id: &MasternodeId| set.get(id).map(|v| v.operator);
        let vote_check = |v: &Vote| Some(vec![v.signature_check(chain, operator(&v.voter)?)]);
        let votes = proven(found.votes.remove(&height).unwrap_or_default(), vote_check);
        let proposals = proven(found.proposals.remove(&height).unwrap_or_default(), |p| {
            Some(vec![p.signature_check(chain, operator(&p.proposer)?)])
        });
        let polkas = proven(found.polkas.remove(&height).unwrap_or_default(), |p| {
            let set = self.state.set_of(p.at().era)?;
            p.checks(chain, branch, &set).ok()
        });
        let era = self.state.era();
        let under_way =
            votes.iter().any(|v| v.body.era == era) || proposals.iter().any(|p| p.body.era == era);
        let entry = proven(
            found.entries.remove(&height).unwrap_or_default(),
            vote_check,
        );
        let mut held = Vec::new();
        for block in found.blocks.remove(&height).unwrap_or_default() {
            let judged = self.with_view(view, |replica, layered| {
                apply::apply(layered, &replica.state, &block)
            });
            match judged {
                Ok(applied) => {
                    held.push(block.id());
                    let work = Work::Valid(Arc::new(block), Arc::new(applied.delta));
                    self.height.blocks.insert(delta_id(&work), work);
                }
                Err(ApplyError::View(error)) => return Err(error.into()),
                // What this node once wrote as valid for another parent no longer matters.
                Err(ApplyError::Invalid(_)) => {}
            }
        }
        if votes.is_empty() && proposals.is_empty() {
            return Ok(());
        }
        // The lock binds whether its block could be read back or not (I4).
        let lock = found.locks.get(&height).copied();
        let valid = found.valid(height, &held);
        let restored = Restored {
            votes: votes.clone(),
            proposals: proposals.clone(),
            lock,
            valid,
            polkas,
            entry,
            blocks: held,
        };
        let ctx = context(&self.state, self.guard.me(), self.rules);
        let (engine, outputs) = Machine::restore(ctx, restored);
        self.height.engine = engine;
        // What was signed in an older era binds and begins nothing (B6 step 5).
        self.height.begun = under_way;
        self.height.repair = Some(now.mono);
        self.height.lock = lock;
        self.height.own_votes = votes;
        self.height.own_proposals = proposals.clone();
        self.perform(now, outputs, view)?;
        for signed in proposals.into_iter().filter(|p| p.body.era == era) {
            let block = match self.height.blocks.get(&signed.body.block) {
                Some(Work::Valid(block, _)) => block.clone(),
                _ => continue,
            };
            let proposal = Arc::new(proposal_of(&block, SignedProposal::clone(&signed)));
            self.offered(now, proposal, signed, true, view)?;
        }
        Ok(())
    }

    /// What a certificate shows of each signer's votes, for B7 step 2.
    fn remember_signers(&mut self, certificate: &Certificate) {
        let set = self.state.last_validators.clone();
        let set = if certificate.height == self.state.height() {
            set
        } else {
            self.state.validators.clone()
        };
        for vote in certificate.precommits(self.state.tip.last_branch, &set) {
            self.seen.insert(vote.voter, vote);
        }
    }
}

/// The first start in a new era forgets the heights of the branch that is gone: a lock on it would bind for ever, its blocks
/// would be redone. Later starts find the new era in the high-water mark and forget nothing.
fn forget_lost_branch(found: &mut Found, gate: &mut Gate, next: &NextEra) {
    let before = Era(next.era.0.saturating_sub(1));
    let held = found.forks.get(&before).and_then(|fork| fork.held);
    let entered = found.high_water.is_some_and(|mark| mark.era >= next.era);
    if entered || held == Some(next.block) {
        return;
    }
    found.forget_from(next.fork);
    gate.forget_all(|key| height_of_key(key).is_some_and(|height| height >= next.fork));
}

fn delta_id(work: &Work) -> BlockId {
    match work {
        Work::Valid(_, delta) | Work::Checking(_, delta) => delta.after.block(),
        _ => BlockId::default(),
    }
}

/// Whether the store holds a message or a lock of a height above `next`, which I6 rules out for a ledger of its own: block
/// and certificate below a message are on disk before the message, so that redoing reaches its height.
fn reaches_beyond(found: &Found, next: Height) -> bool {
    let last = [
        found.votes.last_key_value().map(|(height, _)| *height),
        found.proposals.last_key_value().map(|(height, _)| *height),
        found.locks.last_key_value().map(|(height, _)| *height),
    ];
    last.into_iter().flatten().any(|height| height > next)
}

/// B7 step 1: a stored certificate that holds a vote of this key above the high-water mark betrays a stale store. Whose a
/// vote is, its signature tells: the masternode may have had another key when it voted, and the set of that height may be gone.
fn votes_above(found: &Found, state: &State, operator: Option<&SecretKey>) -> Option<String> {
    let key = operator?.public();
    let above = found.certificates.values().any(|certificate| {
        let commit = &certificate.commit;
        let body = commit.body(state.tip.branch, certificate.height, certificate.block);
        let position = Position {
            era: body.era,
            height: body.height,
            round: body.round,
            step: crate::replica::record::Step::Precommit,
        };
        let message = body.signing_hash(state.chain_id());
        let ours = |signature: &Signature| {
            let signature = *signature;
            let check = Check {
                key,
                message,
                signature,
            };
            check.verify()
        };
        found.high_water.is_none_or(|mark| position > mark) && commit.signatures.iter().any(ours)
    });
    above.then(|| "the signer store holds a vote of this key above its own high-water mark".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polka_or_a_certificate_of_the_new_era_binds_over_a_start() {
        let at = |era, round| EraRound {
            era: Era(era),
            round: Round(round),
        };
        let pinned = |at| Pinned {
            block: BlockId::default(),
            at,
        };
        let tied = |found: &Found| found.tied(Height(7), Era(1));
        let mut found = Found::default();
        assert_eq!(tied(&found), None);
        found.locks.insert(Height(7), pinned(at(0, 9)));
        found.valids.insert(Height(6), pinned(at(1, 3)));
        assert_eq!(
            tied(&found),
            None,
            "of the old era, or of a height that is over"
        );
        found.valids.insert(Height(7), pinned(at(1, 2)));
        assert_eq!(
            tied(&found),
            Some(at(1, 2)),
            "B6.5: though its block is not held"
        );
        let certificate = Certificate {
            height: Height(8),
            block: BlockId::default(),
            commit: crate::types::block::Commit {
                at: at(1, 0),
                ..Default::default()
            },
        };
        found.certificates.insert(Height(8), certificate);
        assert_eq!(tied(&found), Some(at(1, u32::MAX)), "decided is decided");
    }

    #[test]
    fn a_store_that_outlived_its_ledger_is_noticed() {
        let mut found = Found::default();
        assert!(!reaches_beyond(&found, Height(1)), "a new network starts");
        let lock = Pinned {
            block: BlockId::default(),
            at: EraRound::default(),
        };
        found.locks.insert(Height(7), lock);
        assert!(
            !reaches_beyond(&found, Height(7)),
            "the height under way: redone blocks reach it"
        );
        assert!(
            reaches_beyond(&found, Height(1)),
            "I4: the ledger was lost, and on the way back to height 7 its lock would be forgotten"
        );
    }
}
