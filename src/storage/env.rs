//! One LMDB environment made safe: the only user of lmdb and of unsafe code.
//!
//! Job: open with every doubt turned into a typed error, read and write in transactions, scan without iterators. Inputs:
//! byte keys of 1 to 511 bytes, byte values. Outputs: borrowed values that cannot outlive their transaction. Never: hands
//! out a cursor, resizes a map that may have readers, writes again after a failed sync (S5).
//!
//! Flags: NO_TLS (readers belong to their transaction, not to a thread), NO_READAHEAD (access is random), and LMDB's
//! default durability: a commit returns after fdatasync of the pages and a synchronous write of the meta page. The cheaper
//! NO_META_SYNC is not used, not even for the ledger: the signer drops its records of a height once the ledger reports it
//! durable, so "durable" must mean durable.

use super::error::StorageError;
use super::space::is_out_of_space;
use lmdb::{Cursor, DatabaseFlags, EnvironmentFlags, Transaction, WriteFlags};
use lmdb_sys as sys;
use std::ffi::CStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that holds the data; beside it LMDB keeps `lock.mdb`.
pub(super) const DATA_FILE: &str = "data.mdb";
/// Transactions that may read at one time: threads of the process, with room for a tool or two.
const READER_COUNT_MAX: u32 = 126;

/// A table, by its position in [`Options::tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table(pub usize);

/// How an environment is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    /// Greatest size of the data file in bytes; address space only, the file grows with its content.
    pub map_size: usize,
    /// Names of its tables.
    pub tables: &'a [&'a str],
}

/// An open environment. Holds an exclusive lock on the data file: a second handle, of any process, is refused.
pub(super) struct Env {
    env: lmdb::Environment,
    tables: Vec<lmdb::Database>,
    dir: PathBuf,
    poisoned: AtomicBool,
    // Dropped after `env`: the file is free for another handle when LMDB has closed it.
    file: LockedFile,
}

/// The data file under its exclusive lock.
struct LockedFile(File);

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing would do, but for a child process between fork and exec, which holds the same lock for a moment.
        let _ = self.0.unlock();
    }
}

/// Size of one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvStats {
    /// Bytes of the map: what the store can grow to.
    pub map_size: u64,
    /// Bytes of the map in use or free for reuse.
    pub used_size: u64,
    /// Bytes of the data file on disk.
    pub file_size: u64,
    /// Transactions committed so far.
    pub transactions: u64,
}

impl Env {
    /// Opens the environment in `dir`, making directory and tables that are not there yet.
    pub(super) fn open(dir: &Path, options: &Options<'_>) -> Result<Env, StorageError> {
        let io_error = |action, e| StorageError::from_io(dir, action, e);
        // Private even where the data directory may be listed by others.
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private
            .create(dir)
            .map_err(|e| io_error("making the directory", e))?;
        let data = dir.join(DATA_FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&data)
            .map_err(|e| StorageError::from_io(&data, "opening the data file", e))?;
        let file = match file.try_lock() {
            Ok(()) => LockedFile(file),
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked {
                    path: dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(io_error("locking the data file", e)),
        };
        let count = u32::try_from(options.tables.len())
            .map_err(|_| StorageError::Misuse("too many tables".into()))?;
        let env = lmdb::Environment::new()
            .set_flags(EnvironmentFlags::NO_TLS | EnvironmentFlags::NO_READAHEAD)
            .set_max_readers(READER_COUNT_MAX)
            .set_max_dbs(count)
            .set_map_size(options.map_size)
            .open_with_permissions(dir, 0o600)
            .map_err(|e| explain(dir, "opening the store", e))?;
        let mut env = Env {
            env,
            tables: Vec::new(),
            dir: dir.to_path_buf(),
            poisoned: AtomicBool::new(false),
            file,
        };
        env.prepare()?;
        env.open_tables(options.tables)?;
        Ok(env)
    }

    /// Makes damage show as an error instead of a signal, and frees the slots of readers that died.
    fn prepare(&self) -> Result<(), StorageError> {
        // SAFETY: the environment is open and owned by self; the callback has the signature LMDB asks for and lives for
        // the whole program.
        unsafe { sys::mdb_env_set_assert(self.env.env(), Some(assertion_failed)) };
        let mut dead = 0;
        // SAFETY: the environment is open; `dead` outlives the call, which writes one integer to it.
        let code = unsafe { sys::mdb_reader_check(self.env.env(), &mut dead) };
        if code != 0 {
            let e = lmdb::Error::from_err_code(code);
            return Err(explain(&self.dir, "checking readers", e));
        }
        if dead > 0 {
            log::info!("{}: freed {dead} readers that had died", self.dir.display());
        }
        // A page beyond the end of the file would be a SIGBUS when read. Pages that a transaction took and gave back are
        // legally missing there, so the file is made long enough: a page that truly was cut off then reads as zeros,
        // which LMDB reports as corrupt.
        let used = self.stats()?.used_size;
        let io_error = |e| StorageError::from_io(&self.dir, "measuring the data file", e);
        if self.file.0.metadata().map_err(io_error)?.len() < used {
            self.file.0.set_len(used).map_err(io_error)?;
        }
        Ok(())
    }

    /// Opens the tables, making those that are missing in one transaction.
    fn open_tables(&mut self, names: &[&str]) -> Result<(), StorageError> {
        let failed = |e| explain(&self.dir, "opening a table", e);
        let found: Result<Vec<_>, _> = names.iter().map(|n| self.env.open_db(Some(n))).collect();
        self.tables = match found {
            Ok(tables) => tables,
            Err(lmdb::Error::NotFound) => {
                let txn = self.env.begin_rw_txn().map_err(failed)?;
                let make = |name: &&str| {
                    // SAFETY: nobody else has the environment yet, so no other transaction opens tables meanwhile, and
                    // the transaction commits before a handle is used.
                    unsafe { txn.create_db(Some(name), DatabaseFlags::empty()) }
                };
                let made: Result<Vec<_>, _> = names.iter().map(make).collect();
                let tables = made.map_err(failed)?;
                txn.commit()
                    .map_err(|e| self.write_failed("making tables", e))?;
                self.sync_directories()?;
                tables
            }
            Err(e) => return Err(failed(e)),
        };
        Ok(())
    }

    /// A new file survives a power cut only when the directories that name it are synced as well.
    fn sync_directories(&self) -> Result<(), StorageError> {
        for dir in [Some(self.dir.as_path()), self.dir.parent()] {
            let Some(dir) = dir.filter(|dir| !dir.as_os_str().is_empty()) else {
                continue;
            };
            let synced = File::open(dir).and_then(|d| d.sync_all());
            synced.map_err(|e| StorageError::from_io(dir, "syncing the directory", e))?;
        }
        Ok(())
    }

    /// Directory of the environment.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data file.
    pub(super) fn file(&self) -> &File {
        &self.file.0
    }

    /// A consistent view of the last commit. Keep it short: pages it can see are not reused while it lives.
    pub(super) fn read(&self) -> Result<Read<'_>, StorageError> {
        let txn = self.env.begin_ro_txn();
        Ok(Read {
            txn: txn.map_err(|e| explain(&self.dir, "starting to read", e))?,
            env: self,
        })
    }

    /// The one writing transaction; waits for another to end. Dropped without commit it changes nothing.
    pub(super) fn write(&self) -> Result<Write<'_>, StorageError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StorageError::Poisoned {
                path: self.dir.clone(),
            });
        }
        let txn = self.env.begin_rw_txn();
        Ok(Write {
            txn: txn.map_err(|e| explain(&self.dir, "starting to write", e))?,
            env: self,
        })
    }

    /// What a failed write means: LMDB names a write that a full disk cut short like a broken disk.
    fn write_failed(&self, action: &'static str, error: lmdb::Error) -> StorageError {
        let explained = explain(&self.dir, action, error);
        let StorageError::Io { path, .. } = &explained else {
            return explained;
        };
        let size = self.file.0.metadata().map_or(0, |meta| meta.len());
        if matches!(error, lmdb::Error::Other(_)) && is_out_of_space(&self.dir, size) {
            return StorageError::Full {
                path: path.clone(),
                detail: "a write was cut short".into(),
            };
        }
        explained
    }

    /// Sizes.
    pub(super) fn stats(&self) -> Result<EnvStats, StorageError> {
        let failed = |e| explain(&self.dir, "reading sizes", e);
        let info = self.env.info().map_err(failed)?;
        let page = u64::from(self.env.stat().map_err(failed)?.page_size());
        let file = self.file.0.metadata();
        let file = file.map_err(|e| StorageError::from_io(&self.dir, "measuring", e))?;
        Ok(EnvStats {
            map_size: info.map_size() as u64,
            used_size: (info.last_pgno() as u64 + 1) * page,
            file_size: file.len(),
            transactions: info.last_txnid() as u64,
        })
    }
}

/// Called by LMDB when a page contradicts itself; it aborts the process right after. So end it with the code that says
/// why, on the storage of any kind: nothing half-written can be seen, the transaction is not committed.
extern "C" fn assertion_failed(env: *mut sys::MDB_env, message: *const std::ffi::c_char) {
    let mut path = std::ptr::null();
    // SAFETY: LMDB passes its own open environment; on success `path` points to a string that lives as long as it.
    let known = unsafe { sys::mdb_env_get_path(env, &mut path) } == 0 && !path.is_null();
    let text = |pointer: *const std::ffi::c_char| {
        // SAFETY: only called with strings of LMDB that are terminated and alive during this callback.
        unsafe { CStr::from_ptr(pointer) }
            .to_string_lossy()
            .into_owned()
    };
    let place = if known { text(path) } else { String::new() };
    let detail = if message.is_null() {
        String::new()
    } else {
        text(message)
    };
    let error = StorageError::corrupt(Path::new(&place), detail);
    log::error!("{error}");
    std::process::exit(i32::from(error.exit_code()));
}

/// What an LMDB error means.
fn explain(dir: &Path, action: &'static str, error: lmdb::Error) -> StorageError {
    use lmdb::Error as E;
    match error {
        E::MapFull | E::TxnFull => StorageError::Full {
            path: dir.to_path_buf(),
            detail: error.to_string(),
        },
        E::PageNotFound
        | E::Corrupted
        | E::VersionMismatch
        | E::Invalid
        | E::Incompatible
        | E::PageFull
        | E::CursorFull
        | E::KeyExist
        | E::NotFound => StorageError::corrupt(dir, format!("{action}: {error}")),
        E::Other(code) => StorageError::from_io(dir, action, io::Error::from_raw_os_error(code)),
        E::Panic
        | E::DbsFull
        | E::ReadersFull
        | E::TlsFull
        | E::MapResized
        | E::BadRslot
        | E::BadTxn
        | E::BadValSize
        | E::BadDbi => StorageError::Io {
            path: dir.to_path_buf(),
            action,
            source: io::Error::other(error.to_string()),
        },
    }
}

/// What a scan does after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// Goes on.
    More,
    /// Ends.
    Stop,
}

fn scan<T: Transaction>(
    txn: &T,
    env: &Env,
    table: Table,
    from: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Scan, StorageError>,
) -> Result<(), StorageError> {
    let failed = |e| explain(&env.dir, "scanning", e);
    // The cursor lives in this function only, so no iterator can outlive it.
    let cursor = txn.open_ro_cursor(env.tables[table.0]).map_err(failed)?;
    let mut next = if from.is_empty() {
        cursor.get(None, None, sys::MDB_FIRST)
    } else {
        cursor.get(Some(from), None, sys::MDB_SET_RANGE)
    };
    loop {
        match next {
            Err(lmdb::Error::NotFound) => return Ok(()),
            Err(e) => return Err(failed(e)),
            // LMDB leaves the caller's key pointer in place when it wrote none; then the key is the one asked for.
            Ok((key, value)) => match visit(key.unwrap_or(from), value)? {
                Scan::Stop => return Ok(()),
                Scan::More => next = cursor.get(None, None, sys::MDB_NEXT),
            },
        }
    }
}

/// A consistent view.
pub(super) struct Read<'e> {
    txn: lmdb::RoTransaction<'e>,
    env: &'e Env,
}

impl Read<'_> {
    /// The value of `key`.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        match self.txn.get(self.env.tables[table.0], &key) {
            Ok(value) => Ok(Some(value)),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(e) => Err(explain(&self.env.dir, "reading", e)),
        }
    }

    /// Visits entries in key order, from the first key that is not below `from`.
    pub(super) fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<Scan, StorageError>,
    ) -> Result<(), StorageError> {
        scan(&self.txn, self.env, table, from, visit)
    }

    /// Number of entries.
    pub(super) fn entries(&self, table: Table) -> Result<u64, StorageError> {
        let stat = self.txn.stat(self.env.tables[table.0]);
        let stat = stat.map_err(|e| explain(&self.env.dir, "counting", e))?;
        Ok(stat.entries() as u64)
    }
}

/// The writing transaction.
pub(super) struct Write<'e> {
    txn: lmdb::RwTransaction<'e>,
    env: &'e Env,
}

impl Write<'_> {
    /// Visits entries as [`Read::scan`].
    pub(super) fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<Scan, StorageError>,
    ) -> Result<(), StorageError> {
        scan(&self.txn, self.env, table, from, visit)
    }

    /// The value of `key`.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, StorageError> {
        match self.txn.get(self.env.tables[table.0], &key) {
            Ok(value) => Ok(Some(value)),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(e) => Err(explain(&self.env.dir, "reading", e)),
        }
    }

    /// Bytes of the pages that a table fills.
    pub(super) fn table_bytes(&self, table: Table) -> Result<u64, StorageError> {
        let stat = self.txn.stat(self.env.tables[table.0]);
        let stat = stat.map_err(|e| explain(&self.env.dir, "measuring", e))?;
        let pages = stat.branch_pages() + stat.leaf_pages() + stat.overflow_pages();
        Ok(pages as u64 * u64::from(stat.page_size()))
    }

    /// Directory of the environment.
    pub(super) fn dir(&self) -> &Path {
        &self.env.dir
    }

    /// Sets `key`, whether it is there or not.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StorageError> {
        let flags = WriteFlags::empty();
        let result = self.txn.put(self.env.tables[table.0], &key, &value, flags);
        result.map_err(|e| self.env.write_failed("writing", e))
    }

    /// Sets `key` if it is not there. False: it is there, and stays as it is.
    pub(super) fn insert(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, StorageError> {
        let flags = WriteFlags::NO_OVERWRITE;
        match self.txn.put(self.env.tables[table.0], &key, &value, flags) {
            Ok(()) => Ok(true),
            Err(lmdb::Error::KeyExist) => Ok(false),
            Err(e) => Err(self.env.write_failed("writing", e)),
        }
    }

    /// Adds a key above all that are there, without looking for its place.
    pub(super) fn append(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StorageError> {
        let flags = WriteFlags::APPEND;
        let result = self.txn.put(self.env.tables[table.0], &key, &value, flags);
        result.map_err(|e| self.env.write_failed("appending", e))
    }

    /// Removes `key`. False: it was not there.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        match self.txn.del(self.env.tables[table.0], &key, None) {
            Ok(()) => Ok(true),
            Err(lmdb::Error::NotFound) => Ok(false),
            Err(e) => Err(self.env.write_failed("removing", e)),
        }
    }

    /// Removes every entry of a table.
    pub(super) fn clear(&mut self, table: Table) -> Result<(), StorageError> {
        let result = self.txn.clear_db(self.env.tables[table.0]);
        result.map_err(|e| self.env.write_failed("clearing", e))
    }

    /// Makes all of it durable, or none. An error other than [`StorageError::Full`] poisons the environment: a failed
    /// sync is never retried (S5). After a full disk the old state stands and the pages of this transaction are written
    /// anew by the next one.
    pub(super) fn commit(self) -> Result<(), StorageError> {
        let env = self.env;
        super::strike::moment("before a transaction");
        let done = self.txn.commit().map_err(|e| {
            let error = env.write_failed("committing", e);
            if !error.is_full() {
                env.poisoned.store(true, Ordering::Release);
            }
            error
        });
        super::strike::moment("after a transaction");
        done
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    const T: Table = Table(0);
    const SMALL: Options<'static> = Options {
        map_size: 1 << 20,
        tables: &["t", "u"],
    };

    fn fill(env: &Env, keys: std::ops::Range<u32>, size: usize) -> Result<(), StorageError> {
        let mut write = env.write()?;
        for key in keys {
            write.put(T, &key.to_be_bytes(), &vec![7; size])?;
        }
        write.commit()
    }

    fn keys(env: &Env, from: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        let read = env.read().unwrap();
        read.scan(T, from, |key, _| {
            out.push(u32::from_be_bytes(key.try_into().unwrap()));
            Ok(Scan::More)
        })
        .unwrap();
        out
    }

    #[test]
    fn scans_are_ordered_and_start_where_asked() {
        let dir = TempDir::new("env-scan");
        let env = Env::open(dir.path(), &SMALL).unwrap();
        assert!(keys(&env, &[]).is_empty());
        fill(&env, 0..300, 4).unwrap();
        assert_eq!(keys(&env, &[]), (0..300).collect::<Vec<_>>());
        assert_eq!(
            keys(&env, &77u32.to_be_bytes()),
            (77..300).collect::<Vec<_>>()
        );
        assert!(keys(&env, &300u32.to_be_bytes()).is_empty());
        assert_eq!(env.read().unwrap().entries(T).unwrap(), 300);
    }

    #[test]
    fn a_dropped_transaction_changes_nothing() {
        let dir = TempDir::new("env-drop");
        let env = Env::open(dir.path(), &SMALL).unwrap();
        let mut write = env.write().unwrap();
        assert!(write.insert(T, b"k", b"1").unwrap());
        assert!(!write.insert(T, b"k", b"2").unwrap());
        drop(write);
        assert_eq!(env.read().unwrap().get(T, b"k").unwrap(), None);
        let mut write = env.write().unwrap();
        assert!(!write.delete(T, b"k").unwrap());
    }

    #[test]
    fn a_full_map_loses_nothing_and_writing_goes_on() {
        let dir = TempDir::new("env-full");
        let env = Env::open(dir.path(), &SMALL).unwrap();
        fill(&env, 0..50, 1_000).unwrap();
        let error = fill(&env, 50..3_000, 1_000).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(keys(&env, &[]).len(), 50, "S5: what was there is there");
        fill(&env, 50..60, 1_000).unwrap();
        assert_eq!(keys(&env, &[]).len(), 60);
    }

    #[test]
    fn a_second_handle_is_refused() {
        let dir = TempDir::new("env-lock");
        let env = Env::open(dir.path(), &SMALL).unwrap();
        let second = Env::open(dir.path(), &SMALL).err().unwrap();
        assert_eq!(second.exit_code(), 69, "{second}");
        drop(env);
        Env::open(dir.path(), &SMALL).unwrap();
    }

    #[test]
    fn what_is_no_store_is_told_apart() {
        let dir = TempDir::new("env-strange");
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let error = Env::open(&file, &SMALL).err().unwrap();
        assert_eq!(error.exit_code(), 78, "a file is no directory: {error}");
        let noise = dir.path().join("noise");
        std::fs::create_dir(&noise).unwrap();
        std::fs::write(noise.join(DATA_FILE), [0x5a; 20_000]).unwrap();
        let error = Env::open(&noise, &SMALL).err().unwrap();
        assert_eq!(error.exit_code(), 65, "{error}");
        let short = dir.path().join("short");
        std::fs::create_dir(&short).unwrap();
        std::fs::write(short.join(DATA_FILE), [1; 10]).unwrap();
        let error = Env::open(&short, &SMALL).err().unwrap();
        assert_eq!(error.exit_code(), 65, "{error}");
    }

    #[test]
    fn a_cut_file_is_an_error_and_no_signal() {
        let dir = TempDir::new("env-cut");
        let env = Env::open(dir.path(), &SMALL).unwrap();
        fill(&env, 0..200, 1_000).unwrap();
        let half = env.stats().unwrap().file_size / 2;
        drop(env);
        let file = File::options()
            .write(true)
            .open(dir.path().join(DATA_FILE))
            .unwrap();
        file.set_len(half).unwrap();
        drop(file);
        let read_all = || -> Result<(), StorageError> {
            let env = Env::open(dir.path(), &SMALL)?;
            env.read()?.scan(T, &[], |_, _| Ok(Scan::More))
        };
        assert_eq!(read_all().unwrap_err().exit_code(), 65);
    }
}
