//! Two virtual disks of a node: its ledger and its signer store. A write becomes durable some time after it was given; a
//! crash loses what is not durable, save a prefix of it that got through. Batches are atomic, as LMDB transactions are.

use crate::base::rng::Rng;
use crate::ledger::coins::{Coin, CoinView, MemoryCoins, ViewError};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::state::State;
use crate::replica::io::SignerBatch;
use crate::replica::record::{Record, Step};
use crate::sync::BlockReader;
use crate::types::block::{Block, Certificate, CertifiedHeader};
use crate::types::fork::Decision;
use crate::types::genesis::Genesis;
use crate::types::ids::{BlockId, Height, OutPoint};
use crate::types::transaction::{Tx, TxKind};
use crate::types::validators::ValidatorSet;
use crate::types::vote::VoteStep;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

/// When synced writes end: one at a time, and all that came while one was under way go together in the next, as the disk
/// threads of a real node do it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Syncs {
    begins: u64,
    ends: u64,
}

impl Syncs {
    /// When a write given at `now` is durable, if a sync takes `took` and none can begin before `free`, all in µs.
    pub fn write(&mut self, now: u64, free: u64, took: u64) -> u64 {
        if self.begins <= now {
            self.begins = self.ends.max(free).max(now);
            self.ends = self.begins + took;
            // One that begins at once is on its way: what comes later waits for the next.
        }
        self.ends
    }
}

/// The ledger's disk. Blocks of heights 1.. in order.
#[derive(Clone)]
pub struct LedgerDisk {
    /// Coins after the newest durable block.
    pub coins: MemoryCoins,
    /// State after it.
    pub state: State,
    /// Durable blocks, the first is height 1.
    pub blocks: Vec<Arc<DecidedBlock>>,
    /// Given and not durable.
    pub writing: VecDeque<Arc<DecidedBlock>>,
    /// When the last of them will be.
    pub syncs: Syncs,
}

impl LedgerDisk {
    /// The disk of a new node.
    pub fn new(genesis: &Genesis) -> LedgerDisk {
        LedgerDisk::at(genesis, &State::genesis(genesis))
    }

    /// The disk of a new node, when the state of the genesis is at hand.
    pub fn at(genesis: &Genesis, state: &State) -> LedgerDisk {
        LedgerDisk {
            coins: MemoryCoins::genesis(genesis),
            state: state.clone(),
            blocks: Vec::new(),
            writing: VecDeque::new(),
            syncs: Syncs::default(),
        }
    }

    /// The oldest write is durable; its height.
    pub fn finish_one(&mut self) -> Option<Height> {
        let decided = self.writing.pop_front()?;
        self.coins.commit(&decided.delta);
        self.state = decided.delta.after.clone();
        self.blocks.push(decided);
        Some(self.state.height())
    }

    /// Power is lost: some of the writes under way got through.
    pub fn crash(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(self.writing.len() as u64 + 1) {
            self.finish_one();
        }
        self.writing.clear();
        self.syncs = Syncs::default();
    }

    /// An older copy: what it held after block `height`.
    pub fn rewind(&mut self, genesis: &Genesis, height: Height) {
        let mut older = LedgerDisk::new(genesis);
        for decided in self.blocks.drain(..).take(height.0 as usize) {
            older.writing.push_back(decided);
            older.finish_one();
        }
        *self = older;
    }

    /// Takes back every durable block above `to`; their payments, in order (B6 step 5).
    pub fn take_back(&mut self, to: Height) -> Vec<Tx> {
        let mut returned = Vec::new();
        while self.state.height() > to
            && let Some(decided) = self.blocks.pop()
        {
            let undo = &decided.delta.undo;
            if let Some(before) = undo.restore(&self.state) {
                self.state = before;
            }
            for (outpoint, _) in &undo.created {
                self.coins.0.remove(outpoint);
            }
            self.coins.0.extend(undo.spent.iter().copied());
            let payments = decided.block.transactions.iter();
            let payments = payments.filter(|tx| tx.body().kind == TxKind::Transfer);
            returned.splice(0..0, payments.cloned());
        }
        returned
    }

    /// The durable block at a height.
    pub fn block_at(&self, height: Height) -> Option<BlockId> {
        let found = height
            .0
            .checked_sub(1)
            .and_then(|i| self.blocks.get(i as usize));
        found.map(|d| d.certificate.block)
    }

    /// The certificate of the newest durable block.
    pub fn certificate(&self) -> Option<Certificate> {
        self.blocks.last().map(|d| d.certificate.clone())
    }
}

impl CoinView for LedgerDisk {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        self.coins.coin(outpoint)
    }
    fn decision(&self, height: Height) -> Result<Option<Decision>, ViewError> {
        let decided = height
            .0
            .checked_sub(1)
            .and_then(|i| self.blocks.get(i as usize));
        Ok(decided.map(|d| Decision {
            header: d.block.header.clone(),
            certificate: d.certificate.clone(),
        }))
    }
    fn deciders_of(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        let decided = height
            .0
            .checked_sub(1)
            .and_then(|i| self.blocks.get(i as usize));
        Ok(decided.map(|d| d.delta.after.last_validators.clone()))
    }
}

impl BlockReader for LedgerDisk {
    type Error = Infallible;
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, Infallible> {
        let mut all = self.blocks.iter().chain(&self.writing);
        let found = height.0.checked_sub(1).and_then(|i| all.nth(i as usize));
        Ok(found.map(|d| (d.block.clone(), d.certificate.clone())))
    }
    fn slot_headers(
        &self,
        from: Height,
        take: &mut dyn FnMut(CertifiedHeader) -> bool,
    ) -> Result<(), Infallible> {
        for decided in self.blocks.iter().skip(from.0.max(1) as usize - 1) {
            let header = &decided.block.header;
            let changes = header.next_validators_hash != header.validators_hash;
            let next = || (*decided.delta.after.validators).clone();
            let item = CertifiedHeader {
                header: header.clone(),
                certificate: decided.certificate.clone(),
                next: changes.then(next),
            };
            if !header.slot_root.is_zero() && !take(item) {
                break;
            }
        }
        Ok(())
    }
}

/// What a mutated signer store never keeps (S5). Forgetting a message forgets the high-water mark that came with it: else
/// the guard would save what the records do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// Persistence is skipped.
    Everything,
    /// Records of one kind: the first byte of their keys, see `replica::record`.
    Kind(u8),
    /// Own proposals.
    Proposals,
    /// Own precommits for nil.
    NilPrecommits,
}

impl Forget {
    /// Whether this record is lost.
    fn takes(self, key: &[u8], value: Option<&[u8]>) -> bool {
        let Some(value) = value else {
            return false;
        };
        let kind = key.first().copied();
        match self {
            Forget::Everything => true,
            Forget::Kind(lost) => kind == Some(lost),
            Forget::Proposals => match Record::read(key, value) {
                Ok(Record::Proposal(_)) => true,
                Ok(Record::HighWater(mark)) => mark.step == Step::Propose,
                _ => false,
            },
            Forget::NilPrecommits => matches!(
                Record::read(key, value),
                Ok(Record::Vote(vote)) if vote.body.block.is_none() && vote.body.step == VoteStep::Precommit
            ),
        }
    }

    /// What of a batch reaches the disk.
    pub fn strip(self, batch: &mut SignerBatch) {
        let nil =
            self == Forget::NilPrecommits && batch.iter().any(|(k, v)| self.takes(k, v.as_deref()));
        let marks = |key: &[u8]| nil && key.first() == Some(&b'w');
        batch.retain(|(key, value)| !self.takes(key, value.as_deref()) && !marks(key));
    }
}

/// A message's key as positions compare: the era comes first (B6 step 5), though the store sorts by height.
fn order(key: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let at = |range: std::ops::Range<usize>| key.get(range).unwrap_or_default();
    (at(9..13), at(1..9), at(13..key.len()))
}

/// The signer store's disk.
#[derive(Default)]
pub struct SignerDisk {
    /// Durable records.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Batches given and not durable, and whether they renew the store (B7 step 5).
    pub writing: VecDeque<(u64, SignerBatch, bool)>,
    /// When the last of them will be.
    pub syncs: Syncs,
    /// How many have been.
    pub done: u64,
    /// Why the store is not trusted, if it is not; ends with the renewal of B7 step 5.
    pub unsure: Option<String>,
    /// Key of the highest message that ever was durable.
    pub highest: Option<Vec<u8>>,
    /// What broke I2.
    pub broken: Option<String>,
}

impl SignerDisk {
    /// The oldest batch is durable; its number.
    pub fn finish_one(&mut self) -> Option<u64> {
        let (number, batch, renews) = self.writing.pop_front()?;
        self.done += 1;
        if renews {
            self.unsure = None;
        }
        for (key, value) in batch {
            if key.first() == Some(&b'm') && value.is_some() {
                let again = self.records.get(&key) == value.as_ref();
                let last = self.highest.as_ref().map(|h| order(h));
                if !again && last.is_some_and(|last| last >= order(&key)) {
                    let text = format!("I2: message {key:?} signed after {:?}", self.highest);
                    self.broken.get_or_insert(text);
                }
                let highest = self.highest.take().filter(|h| order(h) > order(&key));
                self.highest = Some(highest.unwrap_or_else(|| key.clone()));
            }
            match value {
                Some(value) => drop(self.records.insert(key, value)),
                None => drop(self.records.remove(&key)),
            }
        }
        Some(number)
    }

    /// Power is lost: some of the writes under way got through.
    pub fn crash(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(self.writing.len() as u64 + 1) {
            self.finish_one();
        }
        self.writing.clear();
        self.syncs = Syncs::default();
    }

    /// The store is gone.
    pub fn lose(&mut self) {
        self.records.clear();
        self.writing.clear();
        self.unsure = Some("the signer store is missing".into());
    }
}
