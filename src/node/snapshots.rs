//! Snapshots of a running node (F4): made in the background, served to peers, fetched from them.
//!
//! Job: keep DATADIR/snapshots. `HEIGHT/` is a whole snapshot, `incoming/` one that is being fetched; what is verified of it
//! is kept over a restart. Inputs: the ledger, pieces that were verified. Outputs: files, what is served. Never: holds up
//! another thread; making and loading happen on threads of their own or before there are any.

use crate::ledger::snapshot::{Contents, Rest, SnapshotError, check_bucket};
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::trust::{TrustError, TrustFile};
use crate::storage::snapshot::{Loaded, load_snapshot, write_header};
use crate::storage::{LedgerStore, SnapshotDir, SnapshotFileError};
use crate::sync::fetch::REST;
use crate::sync::trust::{Anchor, Root, Step, Trust};
use crate::types::block::CertifiedHeader;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::Height;
use parking_lot::RwLock;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whole snapshots that are kept: a peer may still be fetching the one before the newest.
const KEPT_COUNT: usize = 2;
/// Between two looks whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(500);

/// A snapshot that is served.
pub struct Served {
    /// Where it lies.
    pub dir: SnapshotDir,
    /// What it holds.
    pub contents: Contents,
}

/// What is served now, the newest first.
pub type Shelf = Arc<RwLock<Vec<Arc<Served>>>>;

/// Why a snapshot that was fetched or named could not become the ledger.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The snapshot, or a file.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFileError),
    /// What is trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A directory could not be moved.
    #[error("cannot move {}: {source}", path.display())]
    Move {
        /// Which.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
}

/// Snapshots in a directory, the newest first.
pub fn stored(root: &Path) -> Vec<Arc<Served>> {
    let names = std::fs::read_dir(root).into_iter().flatten().flatten();
    let dirs = names.filter(|e| e.file_name().to_string_lossy().parse::<u64>().is_ok());
    let mut found: Vec<Arc<Served>> = dirs
        .filter_map(|entry| {
            let dir = SnapshotDir(entry.path());
            let contents = dir.contents().ok()?;
            Some(Arc::new(Served { dir, contents }))
        })
        .collect();
    found.sort_by_key(|s| std::cmp::Reverse(s.contents.header.height));
    found
}

/// The background thread that makes snapshots, every `interval` slot blocks, until `stop`.
pub fn keeper(ledger: &LedgerStore, root: &Path, interval: u64, shelf: &Shelf, stop: &AtomicBool) {
    let mut made = u64::MAX;
    while !stop.load(Ordering::Acquire) {
        let state = ledger.state();
        let turn = state.slot_index().0 / interval.max(1);
        if made == u64::MAX {
            let newest = shelf.read().first().map(|s| s.contents.header.height);
            let mut records = state.slots.records.iter();
            let record = records.find(|record| Some(record.first) == newest);
            made = record.map_or(0, |record| record.index.0 / interval.max(1));
        }
        if turn > made {
            made = turn;
            match make(ledger, root, stop) {
                Ok(()) => tidy(ledger, root, shelf),
                Err(SnapshotFileError::NotNow(why)) => log::info!("no snapshot: {why}"),
                Err(error) => log::error!("snapshot: {error}"),
            }
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Makes a snapshot below `root`, named by its height.
fn make(ledger: &LedgerStore, root: &Path, stop: &AtomicBool) -> Result<(), SnapshotFileError> {
    let begun = Instant::now();
    let part = SnapshotDir(root.join("making"));
    let contents = ledger.make_snapshot(&part, stop)?;
    let to = root.join(contents.header.height.to_string());
    let moved = std::fs::rename(&part.0, &to);
    moved.map_err(|source| SnapshotFileError::Io {
        verb: "move",
        path: part.0,
        source,
    })?;
    log::info!(
        "snapshot of height {}: {} coins in {:.1} s",
        contents.header.height,
        contents.coins(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Serves the newest snapshots, removes older ones, and keeps the blocks above the oldest of them (F6).
pub fn tidy(ledger: &LedgerStore, root: &Path, shelf: &Shelf) {
    let mut found = stored(root);
    for old in found.split_off(found.len().min(KEPT_COUNT)) {
        if let Err(error) = std::fs::remove_dir_all(&old.dir.0) {
            log::error!("{}: {error}", old.dir.0.display());
        }
    }
    if let Some(oldest) = found.last() {
        ledger.keep_above(oldest.contents.header.height);
    }
    *shelf.write() = found;
}

/// A snapshot that is being fetched.
pub struct Incoming {
    dir: SnapshotDir,
    headers: BufWriter<File>,
}

impl Incoming {
    /// Files of a fetch below `root`; the node's own slot headers are the first.
    pub fn new(root: &Path, ledger: &LedgerStore) -> Result<Incoming, SnapshotFileError> {
        let dir = SnapshotDir(root.join("incoming"));
        let io = |verb, path: &Path| {
            let path = path.to_path_buf();
            move |source| SnapshotFileError::Io { verb, path, source }
        };
        std::fs::create_dir_all(&dir.0).map_err(io("make", &dir.0))?;
        let path = dir.headers_file();
        let file = File::create(&path).map_err(io("make", &path))?;
        let mut headers = BufWriter::new(file);
        let view = ledger.snapshot()?;
        let mut failed = None;
        view.slot_headers(Height(1), |header, certificate| {
            let mut next = None;
            if header.next_validators_hash != header.validators_hash {
                next = view.validator_set(&header.next_validators_hash)?;
            }
            let item = CertifiedHeader {
                header,
                certificate,
                next,
            };
            failed = write_header(&mut headers, &item).err();
            Ok(failed.is_none())
        })?;
        match failed {
            Some(error) => Err(io("write", &path)(error)),
            None => Ok(Incoming { dir, headers }),
        }
    }

    /// Slot headers that are verified.
    pub fn add_headers(&mut self, items: &[CertifiedHeader]) -> std::io::Result<()> {
        items
            .iter()
            .try_for_each(|item| write_header(&mut self.headers, item))
    }

    /// This snapshot is fetched from now on: the pieces of it that are there from before.
    pub fn choose(&mut self, contents: &Contents) -> std::io::Result<Vec<u16>> {
        let offer = self.dir.0.join("offer");
        let bytes = codec::encode(&contents.header.id());
        let same = std::fs::read(&offer).is_ok_and(|found| found == bytes);
        let mut there = Vec::new();
        for piece in 0..=REST {
            let path = self.dir.bucket(piece);
            let size = std::fs::metadata(&path).map(|m| m.len());
            if same && size.is_ok_and(|size| size == contents.bytes(piece)) {
                there.push(piece);
            } else if path.exists() {
                std::fs::remove_file(&path)?;
            }
        }
        std::fs::write(&offer, bytes)?;
        Ok(there)
    }

    /// Checks a piece and keeps it; false if it is wrong or cannot be kept. Runs on the pool.
    pub fn check(dir: &SnapshotDir, contents: &Contents, piece: u16, chunks: &[Vec<u8>]) -> bool {
        let right: Result<(), SnapshotError> = match u8::try_from(piece) {
            Ok(bucket) => {
                let leaf = contents.leaf(usize::from(bucket));
                check_bucket(bucket, chunks.iter().map(Vec::as_slice), leaf).map(drop)
            }
            Err(_) => Rest::read(&chunks.concat(), contents).map(drop),
        };
        if right.is_err() {
            return false;
        }
        let (path, part) = (dir.bucket(piece), dir.0.join(format!("part-{piece}")));
        let kept =
            std::fs::write(&part, chunks.concat()).and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = &kept {
            log::error!("{}: {error}", path.display());
        }
        kept.is_ok()
    }

    /// Where the files are.
    pub fn dir(&self) -> &SnapshotDir {
        &self.dir
    }

    /// All pieces are there: the next start makes a ledger of them.
    pub fn finish(&mut self, contents: &Contents) -> Result<(), SnapshotFileError> {
        let path = self.dir.headers_file();
        let flushed = self.headers.flush();
        flushed.map_err(|source| SnapshotFileError::Io {
            verb: "write",
            path,
            source,
        })?;
        self.dir.finish(contents)
    }
}

/// Before the ledger is opened: a snapshot that has been fetched becomes it. One that turns out wrong is removed.
pub fn adopt_incoming(
    config: &Config,
    datadir: &DataDir,
    genesis: &Genesis,
) -> Result<(), AdoptError> {
    let (ledger, next) = (datadir.ledger(), next_ledger(datadir));
    if next.exists() && !ledger.exists() {
        // Power was lost between the two moves below.
        rename(&next, &ledger)?;
    }
    let root = datadir.snapshots();
    let dir = SnapshotDir(root.join("incoming"));
    let Ok(contents) = dir.contents() else {
        return Ok(());
    };
    match adopt(config, datadir, genesis, &dir) {
        Ok(_) => {
            let to = root.join(contents.header.height.to_string());
            // An older one of the same height says the same.
            let _gone = std::fs::remove_dir_all(&to);
            rename(&dir.0, &to)
        }
        Err(AdoptError::Snapshot(SnapshotFileError::Wrong { path, why })) => {
            log::error!("{}: {why}; it is removed", path.display());
            let removed = std::fs::remove_dir_all(&dir.0);
            removed.map_err(|source| AdoptError::Move {
                path: dir.0,
                source,
            })
        }
        Err(error) => Err(error),
    }
}

fn next_ledger(datadir: &DataDir) -> PathBuf {
    datadir.ledger().with_extension("next")
}

fn rename(from: &Path, to: &Path) -> Result<(), AdoptError> {
    std::fs::rename(from, to).map_err(|source| AdoptError::Move {
        path: from.to_path_buf(),
        source,
    })
}

/// Makes a ledger of a snapshot and puts it in the place of the one that is there; what it makes of belief is written down.
pub fn adopt(
    config: &Config,
    datadir: &DataDir,
    genesis: &Genesis,
    from: &SnapshotDir,
) -> Result<Loaded, AdoptError> {
    let begun = Instant::now();
    let (ledger, next) = (datadir.ledger(), next_ledger(datadir));
    let removed = |path: &Path| match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(AdoptError::Move {
            path: path.to_path_buf(),
            source: error,
        }),
        _ => Ok(()),
    };
    removed(&next)?;
    let loaded = load_snapshot(from, &next, config.storage.map_size, genesis)?;
    believe(config, datadir, genesis, &loaded)?;
    if ledger.exists() {
        let old = ledger.with_extension("old");
        removed(&old)?;
        rename(&ledger, &old)?;
        rename(&next, &ledger)?;
        removed(&old)?;
    } else {
        rename(&next, &ledger)?;
    }
    let height = loaded.slots.last().map_or(Height(0), |slot| slot.0);
    log::info!(
        "the ledger is that of the snapshot of height {height} now: {} coins in {:.1} s",
        loaded.coins,
        begun.elapsed().as_secs_f64()
    );
    Ok(loaded)
}

/// F2: what following all these slot headers would have left to believe.
fn believe(
    config: &Config,
    datadir: &DataDir,
    genesis: &Genesis,
    loaded: &Loaded,
) -> Result<(), AdoptError> {
    let path = datadir.trust();
    let mut file = TrustFile::read(&path)?;
    let configured = config.sync.trusted.map(|(height, id)| Root {
        height,
        id,
        said: None,
    });
    let root = file.root.or(configured);
    let start = Anchor {
        height: Height(0),
        time: genesis.time,
    };
    let anchor = file.anchor.unwrap_or(start);
    let mut trust = Trust::new(&genesis.params, anchor, root, None);
    let now = crate::node::clock::Clock::default().now().wall;
    for (height, id, time) in &loaded.slots {
        if trust.contradicts(*height, *id) {
            let wanted = root.map_or(*id, |root| root.id);
            return Err(TrustError::OtherBranch {
                height: *height,
                found: *id,
                wanted,
            }
            .into());
        }
        trust.decided(
            now,
            Step {
                height: *height,
                id: *id,
                time: *time,
                slot: true,
            },
        );
    }
    let tip = loaded.slots.last().map_or(Height(0), |slot| slot.0);
    file.anchor = trust.doubt(now, tip).map(|_| trust.anchor());
    Ok(file.write(&path)?)
}
