//! `timed snapshot`: a snapshot made of the ledger, and a ledger made of a snapshot, while the node does not run (F4).

use crate::node::commands::{CommandError, Output};
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::run::load_genesis;
use crate::node::snapshots::{self, AdoptError};
use crate::storage::{LedgerStore, SnapshotDir, SnapshotFileError};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

impl From<SnapshotFileError> for CommandError {
    fn from(error: SnapshotFileError) -> CommandError {
        let exit = match &error {
            SnapshotFileError::Storage(error) => super::exit_of(error.exit_code()),
            SnapshotFileError::Io { .. } => Exit::Io,
            SnapshotFileError::NotNow(_) => Exit::Failure,
            SnapshotFileError::Wrong { .. } => Exit::Data,
        };
        CommandError::new(exit, error.to_string())
    }
}

impl From<AdoptError> for CommandError {
    fn from(error: AdoptError) -> CommandError {
        match error {
            AdoptError::Snapshot(error) => error.into(),
            AdoptError::Trust(error) => error.into(),
            AdoptError::Move { .. } => CommandError::new(Exit::Io, error.to_string()),
        }
    }
}

fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok());
    sizes.map(|meta| meta.len()).sum()
}

/// Makes a snapshot of the newest slot block.
pub(super) fn create(config: &Config, dir: Option<PathBuf>) -> Result<Output, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    let _lock = datadir.lock()?;
    let genesis = load_genesis(config)?;
    let ledger = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
    if let Some(dir) = dir.as_ref().filter(|dir| dir.exists()) {
        let text = format!("{} is there already: name a new directory", dir.display());
        return Err(CommandError::new(Exit::Usage, text));
    }
    let begun = Instant::now();
    let part = dir.unwrap_or_else(|| datadir.snapshots().join("made"));
    let contents = ledger.make_snapshot(&SnapshotDir(part.clone()), &AtomicBool::new(false))?;
    let height = contents.header.height;
    let mut to = part.clone();
    if part.ends_with("snapshots/made") {
        to = datadir.snapshots().join(height.to_string());
        let _gone = std::fs::remove_dir_all(&to);
        std::fs::rename(&part, &to).map_err(|e| CommandError::io("move", &part, &e))?;
    }
    let (took, bytes) = (begun.elapsed(), size(&to));
    Ok(Output {
        text: format!(
            "snapshot of height {height}, block {}: {} coins, {bytes} bytes in {}, {:.1} s\n",
            contents.header.id(),
            contents.coins(),
            to.display(),
            took.as_secs_f64()
        ),
        json: json!({
            "height": height.0, "block": contents.header.id().to_string(), "coins": contents.coins(),
            "bytes": bytes, "directory": to, "seconds": took.as_secs_f64(),
        }),
    })
}

/// Makes the ledger of a snapshot; the one that is there goes.
pub(super) fn load(config: &Config, dir: &Path) -> Result<Output, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    datadir.create()?;
    let _lock = datadir.lock()?;
    let genesis = load_genesis(config)?;
    let begun = Instant::now();
    let from = SnapshotDir(dir.to_path_buf());
    let loaded = snapshots::adopt(config, &datadir, &genesis, &from)?;
    let height = loaded.slots.last().map_or(0, |slot| slot.0.0);
    let took = begun.elapsed();
    Ok(Output {
        text: format!(
            "the ledger is at height {height} now, with {} coins, made in {:.1} s\n",
            loaded.coins,
            took.as_secs_f64()
        ),
        json: json!({ "height": height, "coins": loaded.coins, "seconds": took.as_secs_f64() }),
    })
}
