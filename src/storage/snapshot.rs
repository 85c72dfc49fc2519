//! Snapshots as files (F4): made from a ledger while it goes on, and turned into a ledger again.
//!
//! A directory holds `contents` (what there is, with the leaves of state_root), `headers` (every slot header up to the
//! snapshot with certificate and set: u32 length, CertifiedHeader), `rest` (the state without coins) and `bucket-00` to
//! `bucket-ff` (coins as the UTXO digest sees them, ascending). `contents` is written last: with it the snapshot is whole.
//!
//! Inputs: a ledger store, or such a directory. Outputs: such a directory, or a ledger environment. Making holds one read
//! transaction and blocks nobody; the state at the slot block is found by taking back what was decided since. Loading believes
//! nothing: coins against leaves, leaves against the header, the header by certificates and sets from the genesis on.

use super::env::{Env, Options, Scan};
use super::error::StorageError;
use super::schema::*;
use super::setup::{format_entry, put_set};
use super::writer::{LedgerStore, put_state};
use crate::base::bounded::BoundedVec;
use crate::crypto::merkle::Mmr;
use crate::crypto::verify::verify_all;
use crate::ledger::coins::{COIN_ELEMENT_BYTES, Coin, bucket_of, coin_element};
use crate::ledger::snapshot::*;
use crate::ledger::state::State;
use crate::ledger::utxo::BUCKET_COUNT;
use crate::types::amount::Amount;
use crate::types::block::CertifiedHeader;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use rayon::prelude::*;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Owner entries sorted in memory at a time while loading.
const OWNERS_SORTED_MAX: usize = 500_000;
/// Coins written in one transaction while loading.
const LOAD_COINS_PER_COMMIT: usize = 200_000;
/// Encoded header with certificate and set, at most.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Buffer of each bucket's file while making: 256 of them are open.
const BUCKET_BUFFER_BYTES: usize = 64 << 10;

/// Why a snapshot could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The ledger.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// There is no slot block yet, or it is one of which no snapshot can be made.
    #[error("no snapshot can be made now: {0}")]
    NotNow(&'static str),
    /// What is there is no snapshot of this chain.
    #[error("{} holds no whole snapshot of this chain: {why}", path.display())]
    Wrong {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SnapshotFileError {
    let path = path.to_path_buf();
    move |source| SnapshotFileError::Io { verb, path, source }
}

/// A directory that holds a snapshot, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDir(pub PathBuf);

impl SnapshotDir {
    /// File of a bucket; 256: the rest of the state.
    pub fn bucket(&self, bucket: u16) -> PathBuf {
        match usize::from(bucket) < BUCKET_COUNT {
            true => self.0.join(format!("bucket-{bucket:02x}")),
            false => self.0.join("rest"),
        }
    }
    fn contents_file(&self) -> PathBuf {
        self.0.join("contents")
    }
    /// File of the slot headers.
    pub fn headers_file(&self) -> PathBuf {
        self.0.join("headers")
    }

    /// The table of contents, checked against its own header.
    pub fn contents(&self) -> Result<Contents, SnapshotFileError> {
        let path = self.contents_file();
        let bytes = std::fs::read(&path).map_err(io("read", &path))?;
        let contents: Contents =
            codec::decode(&bytes, HEADER_BYTES_MAX).map_err(|e| self.wrong(e))?;
        contents.check().map_err(|e| self.wrong(e))?;
        Ok(contents)
    }

    /// Writes the table of contents: the snapshot is whole.
    pub fn finish(&self, contents: &Contents) -> Result<(), SnapshotFileError> {
        let path = self.contents_file();
        std::fs::write(&path, codec::encode(contents)).map_err(io("write", &path))
    }

    /// One chunk, if it is there.
    pub fn chunk(
        &self,
        contents: &Contents,
        bucket: u16,
        index: u32,
    ) -> Result<Option<Vec<u8>>, SnapshotFileError> {
        use std::os::unix::fs::FileExt;
        let offset = u64::from(index) * CHUNK_BYTES as u64;
        if usize::from(bucket) > BUCKET_COUNT || offset >= contents.bytes(bucket) {
            return Ok(None);
        }
        let size = (contents.bytes(bucket) - offset).min(CHUNK_BYTES as u64);
        let mut bytes = vec![0; size as usize];
        let path = self.bucket(bucket);
        let file = File::open(&path).map_err(io("open", &path))?;
        file.read_exact_at(&mut bytes, offset)
            .map_err(io("read", &path))?;
        Ok(Some(bytes))
    }

    fn wrong(&self, why: impl std::fmt::Display) -> SnapshotFileError {
        SnapshotFileError::Wrong {
            path: self.0.clone(),
            why: why.to_string(),
        }
    }
}

/// Appends a slot header to a file of headers.
pub fn write_header(to: &mut impl Write, item: &CertifiedHeader) -> std::io::Result<()> {
    let bytes = codec::encode(item);
    to.write_all(&(bytes.len() as u32).to_le_bytes())?;
    to.write_all(&bytes)
}

/// What a snapshot of the newest slot block in the store needs from the moments before and after it.
struct Moment {
    state: State,
    below: Mmr,
    /// Coins that differ from those on disk: `None` was made after the slot block.
    changed: BTreeMap<OutPoint, Option<Coin>>,
}

fn moment(view: &super::Snapshot<'_>, genesis: &Genesis) -> Result<Moment, SnapshotFileError> {
    let mut state = view.state(genesis)?;
    let slot = state.slots.records.last().map_or(Height(0), |r| r.first);
    if slot == Height(0) {
        return Err(SnapshotFileError::NotNow("there is no slot block yet"));
    }
    let far = SnapshotFileError::NotNow("the latest slot block is too far below the tip");
    let mut changed = BTreeMap::new();
    loop {
        let height = state.height();
        let Some(undo) = view.undo(height)? else {
            return Err(far);
        };
        let before = undo.restore(&state);
        let before = before.ok_or_else(|| view.corrupt("undo data does not fit"))?;
        if height == slot {
            return Ok(Moment {
                state,
                below: before.tip.history,
                changed,
            });
        }
        changed.extend(undo.created.iter().map(|(outpoint, _)| (*outpoint, None)));
        changed.extend(undo.spent.iter().map(|(o, coin)| (*o, Some(*coin))));
        state = before;
    }
}

/// 256 files that coins are sorted into.
struct BucketFiles {
    files: Vec<BufWriter<File>>,
    counts: Vec<u64>,
}

impl BucketFiles {
    fn put(
        &mut self,
        dir: &SnapshotDir,
        outpoint: &OutPoint,
        coin: &Coin,
    ) -> Result<(), SnapshotFileError> {
        let bucket = bucket_of(outpoint);
        let at = usize::from(bucket);
        let path = || dir.bucket(u16::from(bucket));
        self.files[at]
            .write_all(&coin_element(outpoint, coin))
            .map_err(|e| io("write", &path())(e))?;
        self.counts[at] += 1;
        Ok(())
    }
}

impl LedgerStore {
    /// Makes a snapshot of the newest slot block in `dir`, which is emptied first. Holds one view of the ledger meanwhile.
    /// Gives up when `stop` is set.
    pub fn make_snapshot(
        &self,
        dir: &SnapshotDir,
        stop: &AtomicBool,
    ) -> Result<Contents, SnapshotFileError> {
        match std::fs::remove_dir_all(&dir.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", &dir.0)(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&dir.0).map_err(io("make", &dir.0))?;
        let view = self.snapshot()?;
        let Moment {
            state,
            below,
            changed,
        } = moment(&view, self.genesis())?;
        let rest = Rest::of(&state, &below).ok_or(SnapshotFileError::NotNow(
            "the rule set changes, or evidence of a fork is due",
        ))?;
        let header = view.header(state.height())?;
        let header = header.ok_or_else(|| view.corrupt("a slot block has no header"))?;
        let counts = write_coins(&view, dir, &changed, stop)?;
        let rest = codec::encode(&rest);
        let path = dir.bucket(BUCKET_COUNT as u16);
        std::fs::write(&path, &rest).map_err(io("write", &path))?;
        write_headers(&view, dir, state.height())?;
        let contents = Contents {
            header,
            leaves: BoundedVec::take_from(state.leaves()),
            counts: BoundedVec::take_from(counts),
            rest_bytes: rest.len() as u64,
        };
        contents.check().map_err(|e| view.corrupt(e.to_string()))?;
        dir.finish(&contents)?;
        Ok(contents)
    }
}

fn write_coins(
    view: &super::Snapshot<'_>,
    dir: &SnapshotDir,
    changed: &BTreeMap<OutPoint, Option<Coin>>,
    stop: &AtomicBool,
) -> Result<Vec<u64>, SnapshotFileError> {
    let open = |bucket: usize| {
        let path = dir.bucket(bucket as u16);
        let file = File::create(&path).map_err(io("make", &path))?;
        Ok(BufWriter::with_capacity(BUCKET_BUFFER_BYTES, file))
    };
    let files: Result<Vec<_>, SnapshotFileError> = (0..BUCKET_COUNT).map(open).collect();
    let mut out = BucketFiles {
        files: files?,
        counts: vec![0; BUCKET_COUNT],
    };
    let mut others = changed.iter().peekable();
    let mut failed = None;
    view.read.scan(COINS, &[], |key, value| {
        let outpoint = view.outpoint_in(key)?;
        let coin: Coin = view.decode("coin", value)?;
        let mut put = |outpoint: &OutPoint, coin: &Coin| {
            failed = out.put(dir, outpoint, coin).err().or(failed.take());
        };
        let mut own = true;
        while let Some((other, was)) = others.next_if(|(o, _)| **o <= outpoint) {
            own &= *other != outpoint;
            if let Some(coin) = was {
                put(other, coin);
            }
        }
        if own {
            put(&outpoint, &coin);
        }
        if stop.load(Ordering::Relaxed) {
            failed = Some(SnapshotFileError::NotNow("the node stops"));
        }
        Ok(match failed.is_some() {
            true => Scan::Stop,
            false => Scan::More,
        })
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    for (outpoint, was) in others {
        if let Some(coin) = was {
            out.put(dir, outpoint, coin)?;
        }
    }
    for (bucket, file) in out.files.iter_mut().enumerate() {
        let path = dir.bucket(bucket as u16);
        file.flush().map_err(io("write", &path))?;
    }
    Ok(out.counts)
}

fn write_headers(
    view: &super::Snapshot<'_>,
    dir: &SnapshotDir,
    last: Height,
) -> Result<(), SnapshotFileError> {
    let path = dir.headers_file();
    let mut file = BufWriter::new(File::create(&path).map_err(io("make", &path))?);
    let mut failed = None;
    view.slot_headers(Height(1), |header, certificate| {
        let mut next = None;
        if header.next_validators_hash != header.validators_hash {
            next = view.validator_set(&header.next_validators_hash)?;
        }
        let height = header.height;
        let item = CertifiedHeader {
            header,
            certificate,
            next,
        };
        failed = write_header(&mut file, &item).err();
        Ok(failed.is_none() && height < last)
    })?;
    let failed = failed.map_or_else(|| file.flush(), Err);
    failed.map_err(io("write", &path))
}

/// What a loaded snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its slot headers, genesis excluded, ascending: (height, id, time).
    pub slots: Vec<(Height, BlockId, crate::base::time::WallMs)>,
    /// Coins.
    pub coins: u64,
}

/// Turns the snapshot in `from` into a ledger in `to`, which must not exist; it does when this returns, whole. `map_size` as
/// for [`LedgerStore::open`].
pub fn load_snapshot(
    from: &SnapshotDir,
    to: &Path,
    map_size: usize,
    genesis: &Genesis,
) -> Result<Loaded, SnapshotFileError> {
    let contents = from.contents()?;
    let headers = read_headers(from, &contents, genesis)?;
    let path = from.bucket(BUCKET_COUNT as u16);
    let rest = std::fs::read(&path).map_err(io("read", &path))?;
    let rest = Rest::read(&rest, &contents).map_err(|e| from.wrong(e))?;
    let check = |bucket: u16| -> Result<Bucket, SnapshotFileError> {
        let path = from.bucket(bucket);
        let bytes = std::fs::read(&path).map_err(io("read", &path))?;
        let leaf = contents.leaf(usize::from(bucket));
        check_bucket(bucket as u8, [&bytes[..]], leaf).map_err(|e| from.wrong(e))
    };
    let buckets: Vec<Bucket> = (0..BUCKET_COUNT as u16)
        .into_par_iter()
        .map(check)
        .collect::<Result<_, _>>()?;
    let count = buckets.iter().map(|bucket| bucket.count).sum();
    let value = Amount::sum(buckets.iter().map(|bucket| bucket.value));
    let value = value.ok_or_else(|| from.wrong("amounts overflow"))?;
    let digests = buckets.into_iter().map(|bucket| bucket.digest).collect();
    let state = rest.restore(genesis, &contents.header, digests, value, count);
    let state = state.map_err(|e| from.wrong(e))?;
    write_ledger(from, to, map_size, genesis, (&state, &headers))?;
    Ok(Loaded {
        slots: headers
            .iter()
            .map(|item| (item.header.height, item.header.id(), item.header.time))
            .collect(),
        coins: count,
    })
}

/// All slot headers from the first to the snapshot's, each certified by the set that the one before announced.
fn read_headers(
    from: &SnapshotDir,
    contents: &Contents,
    genesis: &Genesis,
) -> Result<Vec<CertifiedHeader>, SnapshotFileError> {
    let path = from.headers_file();
    let file = File::open(&path).map_err(io("open", &path))?;
    let mut file = BufReader::new(file);
    let wrong = |height: Height, why: &str| from.wrong(format!("slot header {height} {why}"));
    let start = State::genesis(genesis);
    let (chain, mut set) = (start.chain_id(), start.validators.clone());
    let (mut last, mut hash) = (start.block(), start.validators_hash);
    let (mut all, mut checks) = (Vec::new(), Vec::new());
    let wanted = contents.header.id();
    while last != wanted {
        let mut size = [0; 4];
        file.read_exact(&mut size).map_err(io("read", &path))?;
        let size = u32::from_le_bytes(size) as usize;
        if size > HEADER_BYTES_MAX {
            return Err(from.wrong("a slot header is too long"));
        }
        let mut bytes = vec![0; size];
        file.read_exact(&mut bytes).map_err(io("read", &path))?;
        let item: CertifiedHeader =
            codec::decode(&bytes, HEADER_BYTES_MAX).map_err(|e| from.wrong(e))?;
        let (header, certificate) = (&item.header, &item.certificate);
        let (height, id) = (header.height, header.id());
        if header.prev_slot_block != last || header.validators_hash != hash {
            return Err(wrong(height, "does not follow the one before"));
        }
        if certificate.block != id || certificate.height != height {
            return Err(wrong(height, "has the certificate of another"));
        }
        let more = certificate.checks(chain, header.branch, &set);
        checks.extend(more.map_err(|_| wrong(height, "has no quorum behind it"))?);
        if header.next_validators_hash != hash {
            let next = item.next.clone();
            let next = next.filter(|set| set.hash() == header.next_validators_hash);
            set = std::sync::Arc::new(next.ok_or_else(|| wrong(height, "lacks the next set"))?);
            hash = header.next_validators_hash;
        }
        last = id;
        all.push(item);
    }
    match verify_all(&checks) {
        true => Ok(all),
        false => Err(from.wrong("a signature of a slot header does not hold")),
    }
}

fn write_ledger(
    from: &SnapshotDir,
    to: &Path,
    map_size: usize,
    genesis: &Genesis,
    (state, headers): (&State, &[CertifiedHeader]),
) -> Result<(), SnapshotFileError> {
    let part = to.with_extension("loading");
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove", &part)(error));
        }
        _ => {}
    }
    let options = Options {
        map_size,
        tables: &LEDGER_TABLES,
    };
    let env = Env::open(&part, &options)?;
    write_all_coins(from, &env)?;
    let start = State::genesis(genesis);
    let mut write = env.write()?;
    put_state(&mut write, None, state, &(0..=u8::MAX).collect())?;
    for set in [&start.validators, &state.validators, &state.last_validators] {
        put_set(&mut write, set)?;
    }
    let mut place = |height: Height, id: BlockId| -> Result<(), StorageError> {
        write.put(HISTORY, &height_key(height), &id.0.0)?;
        write.put(HEIGHTS, &id.0.0, &height_key(height))
    };
    place(Height(0), start.block())?;
    for item in headers {
        place(item.header.height, item.header.id())?;
    }
    for item in headers {
        let key = height_key(item.header.height);
        let value = codec::encode(&(&item.header, &item.certificate));
        write.put(SLOTS, &key, &value)?;
        if let Some(next) = &item.next {
            put_set(&mut write, next)?;
        }
    }
    write.put(META, META_CHAIN, &state.chain_id().0.0)?;
    write.put(META, META_GENESIS, &codec::encode(genesis))?;
    write.put(META, META_GENESIS_ROOT, &start.root().0)?;
    write.put(META, META_BASE, &height_key(state.height()))?;
    // Last: a ledger without its format entry is none.
    write.put(META, META_FORMAT, &format_entry())?;
    write.commit()?;
    drop(env);
    std::fs::rename(&part, to).map_err(io("rename", &part))
}

/// The next coin of one bucket, ordered so that a heap gives the lowest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head(std::cmp::Reverse<(OutPoint, usize)>);

/// Merges the buckets, each of which is in order, and writes coins in the order of the table: pages fill from the left.
fn write_all_coins(from: &SnapshotDir, env: &Env) -> Result<(), SnapshotFileError> {
    let open = |bucket: usize| {
        let path = from.bucket(bucket as u16);
        Ok(BufReader::new(
            File::open(&path).map_err(io("open", &path))?,
        ))
    };
    let files: Result<Vec<_>, SnapshotFileError> = (0..BUCKET_COUNT).map(open).collect();
    let mut files = files?;
    let mut heads = BinaryHeap::new();
    let mut coins: Vec<Option<Coin>> = vec![None; BUCKET_COUNT];
    let mut read_next = |bucket: usize| -> Result<Option<(OutPoint, Coin)>, SnapshotFileError> {
        let mut element = [0; COIN_ELEMENT_BYTES];
        match files[bucket].read_exact(&mut element) {
            Ok(()) => Ok(read_coin(&element)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(io("read", &from.bucket(bucket as u16))(e)),
        }
    };
    for (bucket, head) in coins.iter_mut().enumerate() {
        if let Some((outpoint, coin)) = read_next(bucket)? {
            *head = Some(coin);
            heads.push(Head(std::cmp::Reverse((outpoint, bucket))));
        }
    }
    let mut owners = Vec::new();
    let mut write = env.write()?;
    let mut written = 0;
    while let Some(Head(std::cmp::Reverse((outpoint, bucket)))) = heads.pop() {
        let Some(coin) = coins[bucket].take() else {
            continue;
        };
        write.append(COINS, &outpoint_key(&outpoint), &codec::encode(&coin))?;
        owners.push(owner_key(&coin.output.program, &outpoint));
        if let Some((next, coin)) = read_next(bucket)? {
            coins[bucket] = Some(coin);
            heads.push(Head(std::cmp::Reverse((next, bucket))));
        }
        written += 1;
        if owners.len() >= OWNERS_SORTED_MAX {
            put_owners(&mut write, &mut owners)?;
        }
        if written % LOAD_COINS_PER_COMMIT == 0 {
            write.commit()?;
            write = env.write()?;
        }
    }
    put_owners(&mut write, &mut owners)?;
    write.commit()?;
    Ok(())
}

fn put_owners(
    write: &mut super::env::Write<'_>,
    owners: &mut Vec<[u8; OWNER_KEY_BYTES]>,
) -> Result<(), StorageError> {
    owners.sort_unstable();
    for key in owners.drain(..) {
        write.put(OWNERS, &key, &[])?;
    }
    Ok(())
}
