//! What must hold at every step (protocol.md, I1-I6, S6, L10), asked from outside: the checker sees what nodes say, what
//! stands on their disks at that moment, and what they decide. It never influences a run.

use crate::crypto::verify::Memo;
use crate::ledger::decided::DecidedBlock;
use crate::ledger::state::State;
use crate::p2p::messages::Message;
use crate::replica::record::Record;
use crate::sim::disk::{LedgerDisk, SignerDisk};
use crate::types::fork::{Decision, ForkProof};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::TxKind;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{SignedProposal, Vote, VoteBody, VoteStep};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A signed position of one masternode.
type At = (Era, Height, Round, u8);

struct Decided {
    block: BlockId,
    decision: Decision,
    state_root: crate::crypto::hash::Hash,
    time: crate::base::time::WallMs,
}

impl Decided {
    fn height(&self) -> Height {
        self.decision.header.height
    }
}

/// What one masternode has said.
#[derive(Default)]
struct Said {
    messages: BTreeMap<At, (Option<BlockId>, Option<EraRound>)>,
    /// Highest precommit for a block, by height.
    locks: BTreeMap<Height, (BlockId, EraRound)>,
}

/// The checker of one run.
pub struct Checker {
    chain: ChainId,
    decided: BTreeMap<Height, Decided>,
    sets: BTreeMap<Height, Arc<ValidatorSet>>,
    certificates: BTreeSet<(Height, Vec<u8>)>,
    memo: Memo,
    unspent: BTreeSet<OutPoint>,
    said: BTreeMap<MasternodeId, Said>,
    /// The first fork: two certificates of one height on one parent.
    pub fork: Option<ForkProof>,
    /// Whether a fork is looked at further instead of being the end of the run.
    pub forks_allowed: bool,
    /// Blocks decided beside the first ones, once there is a fork.
    others: BTreeSet<(Height, BlockId)>,
    /// Height at which each transaction became final.
    pub finals: BTreeMap<Txid, Height>,
    /// By node: height reported as decided.
    pub heights: Vec<Height>,
    /// What was said for the first time since somebody took this, for the log.
    pub words: Vec<String>,
    /// Whether a coalition of more than a third is meant to break agreement: then heights are followed and what honest
    /// nodes say is checked, and not what they decide.
    pub forks: bool,
    /// Whether what leaves is compared with the disk it must be on.
    pub check_disks: bool,
}

/// A broken rule.
pub type Broken = Result<(), String>;

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Broken {
    if holds { Ok(()) } else { Err(text()) }
}

fn step_of(step: VoteStep) -> u8 {
    match step {
        VoteStep::Prevote => 1,
        VoteStep::Precommit => 2,
    }
}

impl Checker {
    /// A checker of a new network.
    pub fn new(genesis: &Genesis, nodes: usize) -> Checker {
        let state = State::genesis(genesis);
        Checker {
            chain: genesis.chain_id(),
            decided: BTreeMap::new(),
            sets: BTreeMap::from([(Height(1), state.validators.clone())]),
            certificates: BTreeSet::new(),
            memo: Memo::default(),
            unspent: genesis.coins().into_iter().map(|(o, _)| o).collect(),
            said: BTreeMap::new(),
            fork: None,
            forks_allowed: false,
            others: BTreeSet::new(),
            finals: BTreeMap::new(),
            heights: vec![Height(0); nodes],
            words: Vec::new(),
            forks: false,
            check_disks: true,
        }
    }

    /// Whether an honest node has said anything as this masternode.
    pub fn has_spoken(&self, id: &MasternodeId) -> bool {
        self.said
            .get(id)
            .is_some_and(|said| !said.messages.is_empty())
    }

    /// The greatest height that anybody decided.
    pub fn tip(&self) -> Height {
        self.decided.last_key_value().map_or(Height(0), |(h, _)| *h)
    }

    /// The block decided at a height.
    pub fn block_at(&self, height: Height) -> Option<BlockId> {
        self.decided.get(&height).map(|d| d.block)
    }

    /// What a masternode has said at a position of era 0 (0 proposal, 1 prevote, 2 precommit): a block, or nil.
    pub fn said(
        &self,
        id: MasternodeId,
        height: Height,
        round: Round,
        step: u8,
    ) -> Option<Option<BlockId>> {
        let words = self
            .said
            .get(&id)?
            .messages
            .get(&(Era(0), height, round, step))?;
        Some(words.0)
    }

    /// Whether a decided block has spent this coin.
    pub fn is_spent(&self, coin: &OutPoint) -> bool {
        !self.unspent.contains(coin)
    }

    /// Who decides a height.
    pub fn set_at(&self, height: Height) -> Option<&Arc<ValidatorSet>> {
        self.sets.get(&height)
    }

    fn is_forked(&self) -> bool {
        !self.others.is_empty()
    }

    /// A node has left the blocks above `height` for another branch (B6 step 5).
    pub fn on_undone(&mut self, node: usize, height: Height) {
        self.heights[node] = height;
    }

    /// A node reports a decision.
    pub fn on_decided(&mut self, node: usize, decided: &DecidedBlock) -> Broken {
        let (block, certificate) = (&decided.block, &decided.certificate);
        let (height, id) = (certificate.height, block.id());
        ensure(
            certificate.block == id && block.header.height == height,
            || format!("node {node} decided {height} with a certificate of another block"),
        )?;
        ensure(height == self.heights[node].next(), || {
            format!("node {node} decided {height} after {}", self.heights[node])
        })?;
        self.heights[node] = height;
        if self.forks {
            return Ok(());
        }
        self.certificate(height, decided)?;
        if let Some(first) = self.decided.get(&height) {
            let other = Decision {
                header: block.header.clone(),
                certificate: certificate.clone(),
            };
            if first.block != id && first.decision.header.parent == other.header.parent {
                self.fork
                    .get_or_insert_with(|| ForkProof::of(first.decision.clone(), other));
            }
            if first.block != id && self.forks_allowed {
                self.others.insert((height, id));
                return ensure(
                    block.header.state_root == decided.delta.after.root(),
                    || format!("L11: state root of {height} beside the first branch"),
                );
            }
            ensure(first.block == id, || {
                format!(
                    "AGREEMENT: node {node} decided {id} at {height}, another node {}",
                    first.block
                )
            })?;
            return ensure(first.state_root == decided.delta.after.root(), || {
                format!("node {node} has another state root at {height}")
            });
        }
        self.first(height, id, decided)
    }

    fn certificate(&mut self, height: Height, decided: &DecidedBlock) -> Broken {
        let bytes = crate::types::codec::encode(&decided.certificate);
        if !self.certificates.insert((height, bytes)) {
            return Ok(());
        }
        let set = self
            .sets
            .get(&height)
            .ok_or("a decision without a parent")?;
        let branch = decided.block.header.branch;
        let checks = decided.certificate.checks(self.chain, branch, set);
        let checks = checks.map_err(|e| format!("certificate of {height}: {e}"))?;
        ensure(self.memo.verify_all(&checks), || {
            format!("certificate of {height} does not verify")
        })
    }

    fn first(&mut self, height: Height, id: BlockId, decided: &DecidedBlock) -> Broken {
        let (header, after) = (&decided.block.header, &decided.delta.after);
        let parent = height
            .0
            .checked_sub(1)
            .map(Height)
            .and_then(|h| self.decided.get(&h));
        if let Some(parent) = parent {
            let beside = self.others.contains(&(parent.height(), header.parent));
            ensure(header.parent == parent.block || beside, || {
                format!("{height} does not follow its parent")
            })?;
            ensure(header.time > parent.time, || {
                format!("time stands still at {height}")
            })?;
        }
        let root = after.root();
        ensure(header.state_root == root, || {
            format!("L11: state root of {height}")
        })?;
        ensure(after.supply_adds_up(), || {
            format!("L10: supply at {height}")
        })?;
        for tx in decided.block.transactions.iter() {
            for spent in tx.body().inputs.iter() {
                ensure(self.unspent.remove(spent) || self.is_forked(), || {
                    format!(
                        "{} at {height} spends {spent}, which is spent or never was",
                        tx.txid
                    )
                })?;
            }
            let from = usize::from(tx.body().kind == TxKind::Register);
            for vout in from..tx.body().outputs.len() {
                self.unspent.insert(tx.outpoint(vout as u32));
            }
            let again = self.finals.insert(tx.txid, height).is_some();
            ensure(!again || self.is_forked(), || {
                format!("{} is in two blocks", tx.txid)
            })?;
        }
        self.sets.insert(height.next(), after.validators.clone());
        let (state_root, time) = (root, header.time);
        let fresh = Decided {
            block: id,
            decision: Decision {
                header: header.clone(),
                certificate: decided.certificate.clone(),
            },
            state_root,
            time,
        };
        self.decided.insert(height, fresh);
        Ok(())
    }

    /// An honest node takes back heights of a branch that is gone, and its locks on it.
    pub fn on_rewind(&mut self, me: MasternodeId, from: Height) {
        if let Some(said) = self.said.get_mut(&me) {
            said.locks.split_off(&from);
        }
    }

    /// An honest node starts again from its disks: its heights go back to what it decides anew.
    pub fn on_start(&mut self, node: usize, height: Height) -> Broken {
        self.heights[node] = height;
        Ok(())
    }

    /// An honest node with this key lets a frame out.
    pub fn on_send(
        &mut self,
        me: MasternodeId,
        message: &Message,
        disks: (&SignerDisk, &LedgerDisk),
        amnesic: bool,
    ) -> Broken {
        match message {
            Message::Votes(votes) => {
                let own = votes.iter().filter(|v| v.voter == me);
                own.into_iter()
                    .try_for_each(|vote| self.vote(me, vote, disks, amnesic))
            }
            Message::Proposal(p) if p.signed.proposer == me => {
                self.proposal(me, &p.signed, disks, amnesic)
            }
            _ => Ok(()),
        }
    }

    fn say(
        &mut self,
        me: MasternodeId,
        at: At,
        what: (Option<BlockId>, Option<EraRound>),
        amnesic: bool,
    ) -> Result<bool, String> {
        let said = self.said.entry(me).or_default();
        match said.messages.get(&at) {
            Some(before) if *before == what => return Ok(false),
            Some(_) if amnesic => return Ok(false),
            Some(before) => {
                return Err(format!("I1: {me} signed {before:?} and {what:?} at {at:?}"));
            }
            None => {}
        }
        said.messages.insert(at, what);
        let verb = ["proposes", "prevotes", "precommits"][usize::from(at.3.min(2))];
        let block = what.0.map_or("nil".into(), |block| format!("{block:?}"));
        let of = what
            .1
            .map_or(String::new(), |round| format!(", polka of round {round}"));
        self.words
            .push(format!("{verb} {block} at {} round {}{of}", at.1, at.2));
        Ok(true)
    }

    fn vote(
        &mut self,
        me: MasternodeId,
        vote: &Vote,
        disks: (&SignerDisk, &LedgerDisk),
        amnesic: bool,
    ) -> Broken {
        let body = &vote.body;
        let at = (body.era, body.height, body.round, step_of(body.step));
        if !self.say(me, at, (body.block, body.valid_round), amnesic)? || amnesic {
            return Ok(());
        }
        let said = self.said.entry(me).or_default();
        match (body.step, body.block) {
            (VoteStep::Prevote, Some(block)) => {
                if let Some((locked, round)) = said.locks.get(&body.height) {
                    ensure(body.valid_round >= Some(*round), || {
                        format!(
                            "I4: {me} prevotes {block} {:?} at {at:?} while locked on {locked} {round:?}",
                            body.valid_round
                        )
                    })?;
                }
            }
            (VoteStep::Precommit, Some(block)) => {
                said.locks.insert(body.height, (block, body.at()));
            }
            _ => {}
        }
        if !self.check_disks {
            return Ok(());
        }
        on_disk(&Record::Vote(vote.clone()), disks)
            .map_err(|e| format!("I1: {me} at {at:?}: {e}"))?;
        self.below(me, body.height, disks)?;
        entered(me, body, disks)?;
        if let (VoteStep::Prevote, Some(block), Some(at)) =
            (body.step, body.block, body.valid_round)
        {
            let key = polka_prefix(body.height, at, block);
            let polka = disks.0.records.contains_key(&key) || is_past(body.height, disks);
            ensure(polka, || {
                format!(
                    "S5: {me} prevotes {block} again at {body:?}, the polka of {at:?} is not on disk"
                )
            })?;
        }
        if let (VoteStep::Precommit, Some(block)) = (body.step, body.block) {
            let lock = Record::Lock(body.height, block, body.at());
            let held = disks.0.records.contains_key(&lock.key()) || is_past(body.height, disks);
            ensure(held, || {
                format!("I3: {me} precommits {block} at {at:?} without a lock on disk")
            })?;
            let prefix = polka_prefix(body.height, body.at(), block);
            let polka = disks.0.records.contains_key(&prefix) || is_past(body.height, disks);
            ensure(polka, || {
                format!("I3: {me} precommits {block} at {at:?} without its polka on disk")
            })?;
        }
        Ok(())
    }

    fn proposal(
        &mut self,
        me: MasternodeId,
        signed: &SignedProposal,
        disks: (&SignerDisk, &LedgerDisk),
        amnesic: bool,
    ) -> Broken {
        let body = &signed.body;
        let at = (body.era, body.height, body.round, 0);
        if !self.say(me, at, (Some(body.block), body.valid_round), amnesic)?
            || amnesic
            || !self.check_disks
        {
            return Ok(());
        }
        on_disk(&Record::Proposal(signed.clone()), disks)
            .map_err(|e| format!("I1: {me} at {at:?}: {e}"))?;
        let block = block_key(body.height, body.block);
        let held = disks.0.records.contains_key(&block) || is_past(body.height, disks);
        ensure(held, || {
            format!("S5: {me} proposes at {at:?} without the block on disk")
        })?;
        self.below(me, body.height, disks)
    }

    /// I6: block and certificate of the height below are on disk.
    fn below(&self, me: MasternodeId, height: Height, disks: (&SignerDisk, &LedgerDisk)) -> Broken {
        let below = Height(height.0.saturating_sub(1));
        if below.0 == 0 || disks.1.state.height() >= below {
            return Ok(());
        }
        let key = height_key(b'c', below);
        let certificate = disks.0.records.get(&key);
        let certificate = certificate.and_then(|value| Record::read(&key, value).ok());
        let block = match certificate {
            Some(Record::Certificate(c)) => Some(c.block),
            _ => None,
        };
        let right = self.forks || block == self.block_at(below);
        let held = block.is_some_and(|id| disks.0.records.contains_key(&block_key(below, id)));
        ensure(held && right, || {
            format!("I6: {me} speaks at {height}, {below} is not on its disks")
        })
    }
}

fn is_past(height: Height, disks: (&SignerDisk, &LedgerDisk)) -> bool {
    disks.1.state.height() >= height
}

fn on_disk(record: &Record, disks: (&SignerDisk, &LedgerDisk)) -> Broken {
    let height = match record {
        Record::Vote(v) => v.body.height,
        Record::Proposal(p) => p.body.height,
        _ => Height(0),
    };
    let held = disks.0.records.get(&record.key()) == Some(&record.value());
    ensure(held || is_past(height, disks), || {
        "said before it was durable".into()
    })
}

/// S5: what let a node into a round > 0 is on disk before its first message there.
fn entered(me: MasternodeId, body: &VoteBody, disks: (&SignerDisk, &LedgerDisk)) -> Broken {
    if body.round == Round(0) || is_past(body.height, disks) {
        return Ok(());
    }
    let key = height_key(b'e', body.height);
    let value = disks.0.records.get(&key);
    let entry = value.map(|value| Record::read(&key, value));
    let stands = matches!(entry, Some(Ok(Record::Entry(_, at, votes))) if at >= body.at() && !votes.is_empty());
    ensure(stands, || {
        format!(
            "S5: {me} speaks in {:?} of {}, what let it in is not on disk",
            body.at(),
            body.height
        )
    })
}

fn height_key(kind: u8, height: Height) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&height.0.to_be_bytes());
    key
}

fn block_key(height: Height, block: BlockId) -> Vec<u8> {
    let mut key = height_key(b'b', height);
    key.extend_from_slice(&block.0.0);
    key
}

fn polka_prefix(height: Height, at: EraRound, block: BlockId) -> Vec<u8> {
    let mut key = height_key(b'p', height);
    key.extend_from_slice(&at.era.0.to_be_bytes());
    key.extend_from_slice(&at.round.0.to_be_bytes());
    key.extend_from_slice(&block.0.0);
    key
}
