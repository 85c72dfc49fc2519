//! The signer store: what a masternode's key has signed and locked, on disk before it is said (S5), and the tag by which
//! a copy of it is told from the original (B7 steps 0 and 1).
//!
//! Inputs: opaque keys and values; their meaning (votes, locks, polkas, blocks, high-water) is the replica's. Outputs: the
//! records, and whether the store may be trusted. Never: acknowledges a write before it is synced, lets a copied, restored
//! or re-made store pass for the one that knows everything its key signed, deletes an unreadable store.

use super::env::{DATA_FILE, Env, Options, Scan, Table, Write};
use super::error::StorageError;
use super::schema::{
    Doubt, Home, MACHINE_ID_BYTES_MAX, MachineId, Owner, SIGNER_FORMAT, SIGNER_MAGIC, Tag, Trust,
};
use crate::types::codec;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const TAG: Table = Table(0);
const RECORDS: Table = Table(1);
const TAG_KEY: &[u8] = b"tag";
/// More than a tag can be.
const TAG_BYTES_MAX: usize = 256;
/// Address space, not disk: the polkas of `max_reorg` heights (S6) and the open heights stay far below.
const OPTIONS: Options<'static> = Options {
    map_size: 16 << 30,
    tables: &["tag", "records"],
};
/// Entries removed by one pass of [`KvStore::delete_below`], so that a pass holds few keys in memory.
const DELETE_CHUNK: usize = 1_000;

/// A record: key and value.
pub type Record = (Vec<u8>, Vec<u8>);
/// A change of a record: `Some` puts the value, `None` removes the record.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Whether a node may sign with what its store says (S7, B7 step 1). The replica adds the votes it finds elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The store is where it was made and knows all that its key signed.
    Sure,
    /// It may not: abstain until it is safe (B7 steps 3 to 6).
    Unsure(UnsureReason),
}

/// Why a signer store is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsureReason {
    /// There was no store for the key.
    #[error("there was no signer store for this key")]
    Missing,
    /// There was one that could not be read; it was moved aside.
    #[error("the signer store could not be read and was moved aside")]
    Unreadable,
    /// It was bound to another host or file: a copy.
    #[error(
        "the signer store belongs elsewhere ({0}): it is a copy, or the data directory was moved"
    )]
    Foreign(String),
    /// It remembers what another key signed.
    #[error(
        "the signer store belongs to another operator key: this one was brought here without its own"
    )]
    OtherKey,
    /// Never opened by a node, yet not empty.
    #[error("the signer store is unbound but not empty")]
    UnboundWithRecords,
}

/// What `timed signer status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerStatus {
    /// What a start would say.
    pub signer: Signer,
    /// Whether a node has opened the store here or elsewhere.
    pub bound: bool,
    /// The store's random name.
    pub id: [u8; 16],
    /// Number of records.
    pub records: u64,
}

/// Removes the records whose key starts with `prefix` and is below `below`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropBelow {
    /// First bytes of the keys.
    pub prefix: Vec<u8>,
    /// First key that stays.
    pub below: Vec<u8>,
}

/// The signer environment. One owner; every write is synced when the call returns.
pub struct KvStore {
    env: Env,
    machine: MachineId,
    owner: Owner,
}

impl KvStore {
    /// Makes the store of the new key `owner`, unbound and empty (B7 step 0). Refuses if there is one, unless it never was
    /// used: then its own key never got as far as the disk. Make it before the key is durable: a key without its store is
    /// UNSURE.
    pub fn create(dir: &Path, owner: Owner) -> Result<(), StorageError> {
        let exists = dir.join(DATA_FILE).exists();
        let store = KvStore {
            env: Env::open(dir, &OPTIONS)?,
            machine: MachineId::default(),
            owner,
        };
        let unused = !exists
            || store.tag()?.is_some_and(|tag| tag.trust == Trust::Unbound)
                && store.env.read()?.entries(RECORDS)? == 0;
        match unused {
            true => store.set_tag(Trust::Unbound),
            false => Err(StorageError::Exists {
                path: dir.to_path_buf(),
            }),
        }
    }

    /// Opens the store of the existing key `owner` and says whether it may be trusted (B7 step 1). An unbound, empty store is bound
    /// to this host and file, durably, before this returns. A missing store is made, an unreadable one moved aside and made
    /// anew; both stay UNSURE over restarts until [`KvStore::renew`].
    pub fn open(dir: &Path, owner: Owner) -> Result<(KvStore, Signer), StorageError> {
        KvStore::open_on(dir, machine_id(), owner)
    }

    fn open_on(
        dir: &Path,
        machine: MachineId,
        owner: Owner,
    ) -> Result<(KvStore, Signer), StorageError> {
        let missing = !dir.join(DATA_FILE).exists();
        match KvStore::open_existing(dir, &machine, owner) {
            Ok((store, Some(tag))) => {
                let signer = store.judge(&tag)?;
                if signer == Signer::Sure && tag.trust == Trust::Unbound {
                    store.bind(tag.id)?;
                }
                Ok((store, signer))
            }
            // No tag: freshly made here, or a creation that a crash cut short.
            Ok((store, None)) => {
                store.set_tag(Trust::Doubted(Doubt::Missing))?;
                Ok((store, Signer::Unsure(UnsureReason::Missing)))
            }
            Err(StorageError::Corrupt { detail, .. }) if !missing => {
                log::error!(
                    "{}: unreadable signer store moved aside: {detail}",
                    dir.display()
                );
                set_aside(dir)?;
                let env = Env::open(dir, &OPTIONS)?;
                let store = KvStore {
                    env,
                    machine,
                    owner,
                };
                store.set_tag(Trust::Doubted(Doubt::Unreadable))?;
                Ok((store, Signer::Unsure(UnsureReason::Unreadable)))
            }
            Err(e) => Err(e),
        }
    }

    /// Opens what is there and reads all of it once, so that damage is found before anything is signed.
    fn open_existing(
        dir: &Path,
        machine: &MachineId,
        owner: Owner,
    ) -> Result<(KvStore, Option<Tag>), StorageError> {
        let store = KvStore {
            env: Env::open(dir, &OPTIONS)?,
            machine: machine.clone(),
            owner,
        };
        let tag = store.tag()?;
        let (mut seen, read) = (0u64, store.env.read()?);
        read.scan(RECORDS, &[], |_, _| {
            seen += 1;
            Ok(Scan::More)
        })?;
        if seen != read.entries(RECORDS)? {
            return Err(StorageError::corrupt(dir, "records are missing"));
        }
        drop(read);
        Ok((store, tag))
    }

    /// What the store says of itself to the key `owner`, without binding or changing it. `None`: there is none.
    pub fn status(dir: &Path, owner: Owner) -> Result<Option<SignerStatus>, StorageError> {
        if !dir.join(DATA_FILE).exists() {
            return Ok(None);
        }
        let (store, tag) = KvStore::open_existing(dir, &machine_id(), owner)?;
        let Some(tag) = tag else { return Ok(None) };
        Ok(Some(SignerStatus {
            signer: store.judge(&tag)?,
            bound: matches!(tag.trust, Trust::Bound(_)),
            id: tag.id,
            records: store.env.read()?.entries(RECORDS)?,
        }))
    }

    fn judge(&self, tag: &Tag) -> Result<Signer, StorageError> {
        let unsure = match &tag.trust {
            _ if tag.owner != self.owner => UnsureReason::OtherKey,
            Trust::Doubted(Doubt::Missing) => UnsureReason::Missing,
            Trust::Doubted(Doubt::Unreadable) => UnsureReason::Unreadable,
            Trust::Unbound if self.env.read()?.entries(RECORDS)? == 0 => return Ok(Signer::Sure),
            Trust::Unbound => UnsureReason::UnboundWithRecords,
            Trust::Bound(home) => {
                let here = self.home()?;
                if *home == here {
                    return Ok(Signer::Sure);
                }
                let what = if home.machine != here.machine {
                    "another machine-id"
                } else if home.device != here.device {
                    "another device"
                } else {
                    "another file"
                };
                UnsureReason::Foreign(what.into())
            }
        };
        Ok(Signer::Unsure(unsure))
    }

    /// Machine id, device and inode of the data file.
    fn home(&self) -> Result<Home, StorageError> {
        let meta = self.env.file().metadata();
        let meta = meta.map_err(|e| StorageError::from_io(self.env.dir(), "reading", e))?;
        Ok(Home {
            machine: self.machine.clone(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    fn tag(&self) -> Result<Option<Tag>, StorageError> {
        let corrupt = |what: &str| StorageError::corrupt(self.env.dir(), what);
        let read = self.env.read()?;
        let Some(bytes) = read.get(TAG, TAG_KEY)? else {
            return Ok(None);
        };
        // The first eight bytes are magic and format in every version.
        let (Some(magic), Some(format)) = (bytes.first_chunk::<4>(), bytes.get(4..8)) else {
            return Err(corrupt("the tag is cut short"));
        };
        if *magic != SIGNER_MAGIC {
            return Err(corrupt("the tag is not that of a signer store"));
        }
        let found = format
            .iter()
            .rev()
            .fold(0u32, |n, b| n << 8 | u32::from(*b));
        if found > SIGNER_FORMAT {
            return Err(StorageError::NewerSchema {
                path: self.env.dir().to_path_buf(),
                found,
                known: SIGNER_FORMAT,
            });
        }
        let tag = codec::decode(bytes, TAG_BYTES_MAX).map_err(|e| corrupt(&e.to_string()))?;
        Ok(Some(tag))
    }

    fn put_tag(
        &self,
        write: &mut Write<'_>,
        id: [u8; 16],
        trust: Trust,
    ) -> Result<(), StorageError> {
        let tag = Tag {
            magic: SIGNER_MAGIC,
            format: SIGNER_FORMAT,
            id,
            owner: self.owner,
            trust,
        };
        write.put(TAG, TAG_KEY, &codec::encode(&tag))
    }

    fn set_tag(&self, trust: Trust) -> Result<(), StorageError> {
        let mut write = self.env.write()?;
        self.put_tag(&mut write, self.random_id()?, trust)?;
        write.commit()
    }

    fn bind(&self, id: [u8; 16]) -> Result<(), StorageError> {
        let mut write = self.env.write()?;
        self.put_tag(&mut write, id, Trust::Bound(self.home()?))?;
        write.commit()
    }

    fn random_id(&self) -> Result<[u8; 16], StorageError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| StorageError::Io {
            path: self.env.dir().to_path_buf(),
            action: "asking for randomness",
            source: std::io::Error::other(e.to_string()),
        })?;
        Ok(id)
    }

    /// Replaces everything by `records` under a new random id bound to this host: the new store of B7 step 5, or of
    /// `timed signer init`. SURE from here on. One synced transaction.
    pub fn renew(&self, records: &[Record]) -> Result<(), StorageError> {
        let mut write = self.env.write()?;
        write.clear(RECORDS)?;
        for (key, value) in records {
            write.put(RECORDS, key, value)?;
        }
        self.put_tag(&mut write, self.random_id()?, Trust::Bound(self.home()?))?;
        write.commit()
    }

    /// All records in key order.
    pub fn load(&self) -> Result<Vec<Record>, StorageError> {
        self.load_prefix(&[])
    }

    /// The records whose keys start with `prefix`, in key order.
    pub fn load_prefix(&self, prefix: &[u8]) -> Result<Vec<Record>, StorageError> {
        let mut out = Vec::new();
        self.env.read()?.scan(RECORDS, prefix, |key, value| {
            if !key.starts_with(prefix) {
                return Ok(Scan::Stop);
            }
            out.push((key.to_vec(), value.to_vec()));
            Ok(Scan::More)
        })?;
        Ok(out)
    }

    /// One record.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.env.read()?.get(RECORDS, key)?.map(<[u8]>::to_vec))
    }

    /// Puts (`Some`) and deletes (`None`, which may name an absent key) records in one synced transaction, in order.
    /// [`StorageError::Full`]: nothing changed, try again later. Any other error: stop, exit 74 (S5).
    pub fn write(&self, changes: &[Change]) -> Result<(), StorageError> {
        self.write_and_drop(changes, &[])
    }

    /// [`KvStore::write`], and the removal of old records in the same transaction: one sync for both.
    pub fn write_and_drop(
        &self,
        changes: &[Change],
        drops: &[DropBelow],
    ) -> Result<(), StorageError> {
        let mut write = self.env.write()?;
        for (key, value) in changes {
            match value {
                Some(value) => write.put(RECORDS, key, value)?,
                None => {
                    write.delete(RECORDS, key)?;
                }
            }
        }
        for drop in drops {
            drop_below(&mut write, drop)?;
        }
        write.commit()
    }

    /// Removes the records that start with `prefix` and are below `below`, in one synced transaction. How many there were.
    pub fn delete_below(&self, prefix: &[u8], below: &[u8]) -> Result<u64, StorageError> {
        let mut write = self.env.write()?;
        let drop = DropBelow {
            prefix: prefix.to_vec(),
            below: below.to_vec(),
        };
        let count = drop_below(&mut write, &drop)?;
        write.commit()?;
        Ok(count)
    }

    /// Sizes of the environment.
    pub fn stats(&self) -> Result<super::EnvStats, StorageError> {
        self.env.stats()
    }
}

fn drop_below(write: &mut Write<'_>, drop: &DropBelow) -> Result<u64, StorageError> {
    let mut count = 0u64;
    loop {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        write.scan(RECORDS, &drop.prefix, |key, _| {
            if !key.starts_with(&drop.prefix) || key >= drop.below.as_slice() {
                return Ok(Scan::Stop);
            }
            keys.push(key.to_vec());
            Ok(if keys.len() < DELETE_CHUNK {
                Scan::More
            } else {
                Scan::Stop
            })
        })?;
        for key in &keys {
            write.delete(RECORDS, key)?;
        }
        count += keys.len() as u64;
        if keys.len() < DELETE_CHUNK {
            return Ok(count);
        }
    }
}

/// Moves an unreadable data file to a free name beside it. It is evidence, so it is kept.
fn set_aside(dir: &Path) -> Result<(), StorageError> {
    let data = dir.join(DATA_FILE);
    let failed = |e| StorageError::from_io(&data, "moving it aside", e);
    let free = (0..u32::MAX)
        .map(|n| dir.join(format!("{DATA_FILE}.unreadable-{n}")))
        .find(|name| !name.exists());
    let free = free.ok_or_else(|| StorageError::Misuse("no free file name".into()))?;
    std::fs::rename(&data, &free).map_err(failed)?;
    std::fs::File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(failed)
}

/// This host's machine id; empty where there is none.
fn machine_id() -> MachineId {
    let text = std::fs::read("/etc/machine-id").unwrap_or_default();
    let end = text.trim_ascii().len().min(MACHINE_ID_BYTES_MAX);
    MachineId::try_from(text.trim_ascii()[..end].to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    const KEY: Owner = [7; 32];

    fn machine(text: &str) -> MachineId {
        MachineId::try_from(text.as_bytes().to_vec()).unwrap()
    }

    fn record(i: u8) -> (Vec<u8>, Option<Vec<u8>>) {
        (vec![b'r', i], Some(vec![i; 10]))
    }

    fn copy_data(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        std::fs::copy(from.join(DATA_FILE), to.join(DATA_FILE)).unwrap();
    }

    #[test]
    fn a_new_key_signs_at_once_and_after_a_restart() {
        let dir = TempDir::new("signer-new");
        KvStore::create(dir.path(), KEY).unwrap();
        let status = KvStore::status(dir.path(), KEY).unwrap().unwrap();
        assert!(
            !status.bound && status.signer == Signer::Sure,
            "looking does not bind"
        );
        let (store, signer) = KvStore::open_on(dir.path(), machine("a"), KEY).unwrap();
        assert_eq!(signer, Signer::Sure, "B7 step 0: or block 1 never comes");
        store.write(&[record(1), record(2)]).unwrap();
        drop(store);
        assert_eq!(
            KvStore::create(dir.path(), KEY).unwrap_err().exit_code(),
            1,
            "never overwritten"
        );
        let (store, signer) = KvStore::open_on(dir.path(), machine("a"), KEY).unwrap();
        assert_eq!(signer, Signer::Sure);
        assert_eq!(store.load().unwrap().len(), 2);
        assert_eq!(store.get(&[b'r', 2]).unwrap(), Some(vec![2; 10]));
    }

    #[test]
    fn a_key_that_is_brought_beside_the_store_of_another_is_unsure() {
        let dir = TempDir::new("signer-key");
        let other = [8; 32];
        let open = |owner| KvStore::open_on(dir.path(), machine("a"), owner).unwrap();
        KvStore::create(dir.path(), KEY).unwrap();
        assert_eq!(
            open(other).1,
            Signer::Unsure(UnsureReason::OtherKey),
            "B7 step 0: a key imported without its store, where another was just made"
        );
        KvStore::create(dir.path(), other).unwrap();
        assert_eq!(open(other).1, Signer::Sure, "a store never used, a new key");
        assert_eq!(open(KEY).1, Signer::Unsure(UnsureReason::OtherKey));
        let (store, _) = open(KEY);
        store.renew(&[]).unwrap();
        drop(store);
        assert_eq!(open(KEY).1, Signer::Sure, "B7 step 5");
    }

    #[test]
    fn another_machine_or_a_copied_file_is_unsure() {
        let dir = TempDir::new("signer-copy");
        let (original, copy) = (dir.path().join("a"), dir.path().join("b"));
        KvStore::create(&original, KEY).unwrap();
        drop(KvStore::open_on(&original, machine("a"), KEY).unwrap());
        copy_data(&original, &copy);
        let foreign = |dir: &Path, id: &str| {
            let (_, signer) = KvStore::open_on(dir, machine(id), KEY).unwrap();
            matches!(signer, Signer::Unsure(UnsureReason::Foreign(_)))
        };
        assert!(foreign(&copy, "a"), "B7 step 1: another inode");
        assert!(foreign(&copy, "a"), "and it stays so");
        assert!(foreign(&original, "b"), "another machine-id");
        assert!(
            !foreign(&original, "a"),
            "looking from elsewhere changed nothing"
        );
        let moved = dir.path().join("c");
        std::fs::rename(&original, &moved).unwrap();
        assert!(
            !foreign(&moved, "a"),
            "a renamed directory holds the same file"
        );
    }

    #[test]
    fn a_copy_of_an_unbound_store_binds_only_when_empty() {
        let dir = TempDir::new("signer-unbound");
        KvStore::create(dir.path(), KEY).unwrap();
        let (store, _) = KvStore::open_existing(dir.path(), &machine("a"), KEY).unwrap();
        store.write(&[record(1)]).unwrap();
        drop(store);
        let (_, signer) = KvStore::open_on(dir.path(), machine("a"), KEY).unwrap();
        assert_eq!(signer, Signer::Unsure(UnsureReason::UnboundWithRecords));
    }

    #[test]
    fn a_missing_store_is_unsure_until_it_is_renewed() {
        let dir = TempDir::new("signer-missing");
        let at = dir.path().join("signer");
        assert_eq!(KvStore::status(&at, KEY).unwrap(), None);
        for _ in 0..2 {
            let (_, signer) = KvStore::open_on(&at, machine("a"), KEY).unwrap();
            assert_eq!(
                signer,
                Signer::Unsure(UnsureReason::Missing),
                "S7, also at the next start"
            );
        }
        let (store, _) = KvStore::open_on(&at, machine("a"), KEY).unwrap();
        store.write(&[record(1)]).unwrap();
        store.renew(&[(b"high-water".to_vec(), vec![9])]).unwrap();
        drop(store);
        let (store, signer) = KvStore::open_on(&at, machine("a"), KEY).unwrap();
        assert_eq!(signer, Signer::Sure, "B7 step 5");
        assert_eq!(store.load().unwrap(), [(b"high-water".to_vec(), vec![9])]);
    }

    #[test]
    fn an_unreadable_store_is_kept_and_unsure() {
        let dir = TempDir::new("signer-noise");
        std::fs::write(dir.path().join(DATA_FILE), [0x5a; 20_000]).unwrap();
        for _ in 0..2 {
            let (_, signer) = KvStore::open_on(dir.path(), machine("a"), KEY).unwrap();
            assert_eq!(signer, Signer::Unsure(UnsureReason::Unreadable));
        }
        let kept = dir.path().join("data.mdb.unreadable-0");
        assert_eq!(std::fs::read(kept).unwrap(), [0x5a; 20_000]);
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = TempDir::new("signer-newer");
        KvStore::create(dir.path(), KEY).unwrap();
        let (store, tag) = KvStore::open_existing(dir.path(), &machine("a"), KEY).unwrap();
        let mut bytes = codec::encode(&tag.unwrap());
        bytes[4] = SIGNER_FORMAT as u8 + 1;
        bytes.push(0);
        let mut write = store.env.write().unwrap();
        write.put(TAG, TAG_KEY, &bytes).unwrap();
        write.commit().unwrap();
        drop(store);
        let error = KvStore::open_on(dir.path(), machine("a"), KEY)
            .err()
            .unwrap();
        assert_eq!(error.exit_code(), 78, "{error}");
        assert!(!dir.path().join("data.mdb.unreadable-0").exists());
    }

    #[test]
    fn deletion_is_by_prefix_and_below_a_key() {
        let dir = TempDir::new("signer-delete");
        let (store, _) = KvStore::open_on(dir.path(), machine("a"), KEY).unwrap();
        let key = |kind: u8, h: u64| [&[kind][..], &h.to_be_bytes()].concat();
        let all = [b'a', b'b', b'c'].into_iter();
        let all = all.flat_map(|kind| (0..1_500u64).map(move |h| (kind, h)));
        let changes: Vec<_> = all.map(|(kind, h)| (key(kind, h), Some(vec![1]))).collect();
        store.write(&changes).unwrap();
        assert_eq!(store.delete_below(b"b", &key(b'b', 1_400)).unwrap(), 1_400);
        let left = store.load_prefix(b"b").unwrap();
        assert_eq!((left.len(), &left[0].0), (100, &key(b'b', 1_400)));
        assert_eq!(
            store.load_prefix(b"a").unwrap().len(),
            1_500,
            "other prefixes stay"
        );
        let drop = DropBelow {
            prefix: b"c".to_vec(),
            below: key(b'c', 10),
        };
        store
            .write_and_drop(&[(key(b'a', 0), None), (key(b'z', 0), None)], &[drop])
            .unwrap();
        assert_eq!(store.load().unwrap().len(), 1_499 + 100 + 1_490);
    }
}
