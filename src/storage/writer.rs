//! The ledger store: opening it, and committing decided blocks.
//!
//! Inputs: a genesis, decided blocks in order of height with the deltas that `apply` made. Outputs: the state at the
//! durable tip. Never: judges a block (L12), commits a part of a batch, takes a coin for granted: a new coin that is there
//! already and a spent one that is missing are corruption, so a double spend cannot be written.

use super::env::{Env, EnvStats, Options, Scan, Table, Write};
use super::error::StorageError;
use super::prune::{PRUNE_STEP, Retention, prune_blocks};
use super::reader::Snapshot;
use super::schema::*;
use super::setup::{check_meta, check_tip, create, put_set, upgrade};
use crate::crypto::hash::Hash;
use crate::ledger::coins::CoinList;
use crate::ledger::coins::{Coin, CoinView, ViewError};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::report::SlotOutcome;
use crate::ledger::state::State;
use crate::ledger::undo::Undo;
use crate::ledger::utxo::BUCKET_COUNT;
use crate::types::address::Program;
use crate::types::block::{Block, Certificate, Header};
use crate::types::codec;
use crate::types::fork::Decision;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The ledger environment. Clones share it; reads on any thread, [`LedgerStore::commit`] on one.
#[derive(Clone)]
pub struct LedgerStore(Arc<Inner>);

struct Inner {
    env: Env,
    genesis: Arc<Genesis>,
    /// The state at the durable tip, so that nobody reads 256 buckets to learn the height. Locked for a clone only.
    tip: RwLock<State>,
    /// What pruning leaves, and the height above which it leaves everything.
    keep: RwLock<(Retention, Height)>,
}

/// What `timed` shows of its ledger store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStats {
    /// Sizes of the environment.
    pub env: EnvStats,
    /// Entries of each table.
    pub entries: Vec<(&'static str, u64)>,
}

/// What a batch does to one coin on disk. Coins made and spent within it do nothing.
pub(super) enum Change {
    Create(Coin),
    Spend(Coin),
}

impl LedgerStore {
    /// Opens the ledger of `genesis` in `dir`, making it at height 0 if there is none. `map_size` bounds the data file, in
    /// bytes: address space only, and fixed while the process lives. The state's root must be that of the tip's header.
    pub fn open(
        dir: &Path,
        map_size: usize,
        genesis: &Genesis,
    ) -> Result<LedgerStore, StorageError> {
        let options = Options {
            map_size,
            tables: &LEDGER_TABLES,
        };
        let env = Env::open(dir, &options)?;
        if env.read()?.get(META, META_FORMAT)?.is_none() {
            create(&env, genesis)?;
        }
        check_meta(&env, genesis)?;
        upgrade(&env, genesis)?;
        let view = Snapshot {
            read: env.read()?,
            dir: env.dir(),
        };
        let state = view.state(genesis)?;
        check_tip(&view, &state)?;
        drop(view);
        Ok(LedgerStore(Arc::new(Inner {
            env,
            genesis: Arc::new(genesis.clone()),
            tip: RwLock::new(state),
            keep: RwLock::new((Retention::default(), Height(u64::MAX))),
        })))
    }

    /// The genesis it was opened with.
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.0.genesis
    }

    /// Directory of the environment.
    pub fn dir(&self) -> &Path {
        self.0.env.dir()
    }

    /// The state at the durable tip.
    pub fn state(&self) -> State {
        self.0.tip.read().clone()
    }

    /// The durable tip.
    pub fn tip(&self) -> Height {
        self.0.tip.read().height()
    }

    /// From now on, commits prune what this does not keep (F6).
    pub fn retain(&self, keep: Retention) {
        self.0.keep.write().0 = keep;
    }

    /// From now on, no block above this height is pruned.
    pub fn keep_above(&self, height: Height) {
        self.0.keep.write().1 = height;
    }

    pub(super) fn retention(&self) -> (Retention, Height) {
        *self.0.keep.read()
    }

    pub(super) fn write(&self) -> Result<Write<'_>, StorageError> {
        self.0.env.write()
    }

    /// A view for several reads that belong together.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, StorageError> {
        Ok(Snapshot {
            read: self.0.env.read()?,
            dir: self.0.env.dir(),
        })
    }

    /// Commits blocks that follow the tip in ONE transaction, synced when it returns: all or nothing (S5).
    /// [`StorageError::Full`]: nothing changed, the same call may be repeated. Any other error: stop (exit code in it).
    pub fn commit(&self, batch: &[DecidedBlock]) -> Result<(), StorageError> {
        let before = self.state();
        check_order(&before, batch)?;
        let Some(last) = batch.last() else {
            return Ok(());
        };
        let after = &last.delta.after;
        let mut write = self.0.env.write()?;
        put_coins(&mut write, self.dir(), &net_changes(self.dir(), batch)?)?;
        put_blocks(&mut write, self.dir(), batch)?;
        put_slots(&mut write, batch)?;
        put_state(&mut write, Some(&before), after, &changed_buckets(batch))?;
        prune_undo(&mut write, after)?;
        let (keep, floor) = self.retention();
        let most = 2 * batch.len() as u64 + PRUNE_STEP;
        prune_blocks(&mut write, after, keep, floor, most)?;
        write.commit()?;
        *self.0.tip.write() = after.clone();
        Ok(())
    }

    /// What was committed is the tip now.
    pub(super) fn set_tip(&self, state: State) {
        *self.0.tip.write() = state;
    }

    /// Sizes and numbers of entries.
    pub fn stats(&self) -> Result<LedgerStats, StorageError> {
        let view = self.snapshot()?;
        let mut entries = Vec::new();
        for (i, name) in LEDGER_TABLES.iter().enumerate() {
            entries.push((*name, view.read.entries(super::env::Table(i))?));
        }
        Ok(LedgerStats {
            env: self.0.env.stats()?,
            entries,
        })
    }

    /// [`Snapshot::coin`].
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        self.snapshot()?.coin(outpoint)
    }
    /// [`Snapshot::coins_of`].
    pub fn coins_of(
        &self,
        program: &Program,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<CoinList, StorageError> {
        self.snapshot()?.coins_of(program, after, limit)
    }
    /// [`Snapshot::header`].
    pub fn header(&self, height: Height) -> Result<Option<Header>, StorageError> {
        self.snapshot()?.header(height)
    }
    /// [`Snapshot::block`].
    pub fn block(&self, height: Height) -> Result<Option<Arc<Block>>, StorageError> {
        self.snapshot()?.block(height)
    }
    /// [`Snapshot::certificate`].
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StorageError> {
        self.snapshot()?.certificate(height)
    }
    /// [`Snapshot::base`].
    pub fn base(&self) -> Result<Height, StorageError> {
        self.snapshot()?.base()
    }
    /// [`Snapshot::slot_header`].
    pub fn slot_header(
        &self,
        height: Height,
    ) -> Result<Option<(Header, Certificate)>, StorageError> {
        self.snapshot()?.slot_header(height)
    }
    /// [`Snapshot::validator_set`].
    pub fn validator_set(&self, hash: &Hash) -> Result<Option<ValidatorSet>, StorageError> {
        self.snapshot()?.validator_set(hash)
    }
    /// [`Snapshot::undo`].
    pub fn undo(&self, height: Height) -> Result<Option<Undo>, StorageError> {
        self.snapshot()?.undo(height)
    }
    /// [`Snapshot::slots`].
    pub fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, StorageError> {
        self.snapshot()?.slots(from, limit)
    }
    /// [`Snapshot::block_id`].
    pub fn block_id(&self, height: Height) -> Result<Option<BlockId>, StorageError> {
        self.snapshot()?.block_id(height)
    }
    /// [`Snapshot::height_of`].
    pub fn height_of(&self, block: &BlockId) -> Result<Option<Height>, StorageError> {
        self.snapshot()?.height_of(block)
    }
    /// [`Snapshot::history`].
    pub fn history(&self, from: Height, limit: usize) -> Result<Vec<BlockId>, StorageError> {
        self.snapshot()?.history(from, limit)
    }
    /// [`Snapshot::tx`].
    pub fn tx(&self, txid: &Txid) -> Result<Option<(Height, u32)>, StorageError> {
        self.snapshot()?.tx(txid)
    }
}

impl CoinView for LedgerStore {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        LedgerStore::coin(self, outpoint).map_err(|e| ViewError(e.to_string()))
    }
    fn decision(&self, height: Height) -> Result<Option<Decision>, ViewError> {
        let read = || {
            let view = self.snapshot()?;
            let (header, certificate) = (view.header(height)?, view.certificate(height)?);
            Ok(header.zip(certificate))
        };
        let found = read().map_err(|e: StorageError| ViewError(e.to_string()))?;
        Ok(found.map(|(header, certificate)| Decision {
            header,
            certificate,
        }))
    }
    fn deciders_of(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        LedgerStore::deciders_of(self, height).map_err(|e| ViewError(e.to_string()))
    }
}

impl CoinView for Snapshot<'_> {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        Snapshot::coin(self, outpoint).map_err(|e| ViewError(e.to_string()))
    }
}

/// A batch follows the tip without a gap, each block with its own delta and certificate.
fn check_order(before: &State, batch: &[DecidedBlock]) -> Result<(), StorageError> {
    let (mut height, mut parent) = (before.height(), before.block());
    for decided in batch {
        let header = &decided.block.header;
        let (after, certificate) = (&decided.delta.after, &decided.certificate);
        let id = after.block();
        let fits = header.height == height.next()
            && header.parent == parent
            && after.height() == header.height
            && header.id() == id
            && header.state_root == after.root()
            && certificate.height == header.height
            && certificate.block == id;
        if !fits {
            return Err(StorageError::Misuse(format!(
                "block {} at height {} cannot be committed on height {height}",
                header.id(),
                header.height
            )));
        }
        (height, parent) = (header.height, id);
    }
    Ok(())
}

/// What the batch does to the coins on disk, in key order: ordered writes touch each page once.
fn net_changes(
    dir: &Path,
    batch: &[DecidedBlock],
) -> Result<BTreeMap<OutPoint, Change>, StorageError> {
    let mut net = BTreeMap::new();
    for delta in batch.iter().map(|decided| &decided.delta) {
        // A delta spends coins from before its block only, so what it spends comes first.
        for (outpoint, coin) in &delta.spent {
            match net.remove(outpoint) {
                // Made earlier in the batch: it never reaches the disk.
                Some(Change::Create(_)) => {}
                Some(Change::Spend(_)) => {
                    return Err(StorageError::corrupt(
                        dir,
                        format!("coin {outpoint} is spent twice"),
                    ));
                }
                None => {
                    net.insert(*outpoint, Change::Spend(*coin));
                }
            }
        }
        for (outpoint, coin) in &delta.created {
            if net.insert(*outpoint, Change::Create(*coin)).is_some() {
                return Err(StorageError::corrupt(
                    dir,
                    format!("coin {outpoint} is made twice"),
                ));
            }
        }
    }
    Ok(net)
}

pub(super) fn put_coins(
    write: &mut Write<'_>,
    dir: &Path,
    net: &BTreeMap<OutPoint, Change>,
) -> Result<(), StorageError> {
    let mut owners = BTreeMap::new();
    for (outpoint, change) in net {
        let key = outpoint_key(outpoint);
        let (done, coin, made) = match change {
            Change::Create(coin) => (write.insert(COINS, &key, &codec::encode(coin))?, coin, true),
            Change::Spend(coin) => (write.delete(COINS, &key)?, coin, false),
        };
        if !done {
            let what = if made {
                "is there already"
            } else {
                "is missing"
            };
            return Err(StorageError::corrupt(
                dir,
                format!("coin {outpoint} {what}"),
            ));
        }
        owners.insert(owner_key(&coin.output.program, outpoint), made);
    }
    for (key, made) in &owners {
        let done = if *made {
            write.insert(OWNERS, key, &[])?
        } else {
            write.delete(OWNERS, key)?
        };
        if !done {
            return Err(StorageError::corrupt(
                dir,
                "the owner index does not fit the coins",
            ));
        }
    }
    Ok(())
}

fn put_blocks(
    write: &mut Write<'_>,
    dir: &Path,
    batch: &[DecidedBlock],
) -> Result<(), StorageError> {
    let mut positions = BTreeMap::new();
    for decided in batch {
        let (height, id) = (decided.certificate.height, decided.certificate.block);
        let (key, header) = (height_key(height), &decided.block.header);
        // L13: slot_root is zero in a block that is no slot block.
        if !header.slot_root.is_zero() {
            write.put(SLOTS, &key, &codec::encode(&(header, &decided.certificate)))?;
        }
        if header.next_validators_hash != header.validators_hash {
            put_set(write, &decided.delta.after.validators)?;
        }
        let fresh = write.insert(BLOCKS, &key, &codec::encode(&*decided.block))?
            && write.insert(CERTIFICATES, &key, &codec::encode(&decided.certificate))?
            && write.insert(UNDO, &key, &codec::encode(&decided.delta.undo))?
            && write.insert(HISTORY, &key, &id.0.0)?
            && write.insert(HEIGHTS, &id.0.0, &key)?;
        if !fresh {
            return Err(StorageError::corrupt(
                dir,
                format!("height {height} is there already"),
            ));
        }
        for (index, tx) in (0u32..).zip(decided.block.transactions.iter()) {
            positions.insert(tx.txid, position_value(height, index));
        }
    }
    for (txid, position) in &positions {
        if !write.insert(TXIDS, &txid.0.0, position)? {
            return Err(StorageError::corrupt(
                dir,
                format!("transaction {txid} is there already"),
            ));
        }
    }
    Ok(())
}

/// A value as this transaction has left it.
fn pending(write: &Write<'_>, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    let mut found = None;
    write.scan(table, key, |at, value| {
        if at == key {
            found = Some(value.to_vec());
        }
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

/// What slot blocks did. Positions mean an order that is written once, as long as it stays.
fn put_slots(write: &mut Write<'_>, batch: &[DecidedBlock]) -> Result<(), StorageError> {
    let outcomes = batch.iter().filter_map(|d| d.delta.slot.as_ref());
    for outcome in outcomes {
        let index = outcome.figures.index;
        let order = codec::encode(&*outcome.order);
        let before = SlotIndex(index.0.saturating_sub(1));
        let stored = pending(write, FIGURES, &slot_key(before))?;
        // The last 8 bytes name the order.
        let named = stored.and_then(|value| value.last_chunk::<8>().copied());
        let named = named.map(|bytes| SlotIndex(u64::from_le_bytes(bytes)));
        let same = match named {
            Some(at) => pending(write, ORDERS, &slot_key(at))?.as_ref() == Some(&order),
            None => false,
        };
        let at = named.filter(|_| same).unwrap_or(index);
        if at == index {
            write.put(ORDERS, &slot_key(index), &order)?;
        }
        let value = codec::encode(&(&outcome.figures, at));
        write.put(FIGURES, &slot_key(index), &value)?;
    }
    Ok(())
}

fn changed_buckets(batch: &[DecidedBlock]) -> BTreeSet<u8> {
    let deltas = batch.iter().map(|decided| &decided.delta);
    deltas
        .flat_map(|delta| delta.changed_buckets.iter().copied())
        .collect()
}

pub(super) fn put_state(
    write: &mut Write<'_>,
    before: Option<&State>,
    after: &State,
    buckets: &BTreeSet<u8>,
) -> Result<(), StorageError> {
    for (part, bytes) in after.parts(before) {
        write.put(PARTS, &part_key(part), &bytes)?;
    }
    for bucket in buckets {
        write.put(BUCKETS, &[*bucket], &after.utxo.bucket(*bucket).to_bytes())?;
    }
    Ok(())
}

/// Undo data is kept for the last `max_reorg` blocks (L12).
fn prune_undo(write: &mut Write<'_>, after: &State) -> Result<(), StorageError> {
    let kept = after.params().max_reorg;
    let first = height_key(Height((after.height().0 + 1).saturating_sub(kept)));
    let mut old: Vec<Vec<u8>> = Vec::new();
    write.scan(UNDO, &[], |key, _| {
        if key >= &first[..] {
            return Ok(Scan::Stop);
        }
        old.push(key.to_vec());
        Ok(Scan::More)
    })?;
    for key in &old {
        write.delete(UNDO, key)?;
    }
    Ok(())
}

const _: () = assert!(
    BUCKET_COUNT == u8::MAX as usize + 1,
    "a bucket's key is one byte"
);
