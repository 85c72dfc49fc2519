//! `timed db prune`: blocks below the horizon go (F6), while the node does not run. A running node does the same in pieces.

use crate::node::commands::{CommandError, Output};
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::run::load_genesis;
use crate::storage::{LedgerStore, Retention};
use serde_json::json;

/// Heights in one transaction.
const STEP: u64 = 1_000;

/// Prunes to the horizon given, or to the configured one.
pub(super) fn prune(config: &Config, blocks: Option<u64>) -> Result<Output, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    let _lock = datadir.lock()?;
    let genesis = load_genesis(config)?;
    let ledger = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
    let mut keep = Retention {
        blocks: config.storage.prune,
        bytes: config.storage.prune_bytes,
    };
    if let Some(blocks) = blocks {
        keep = Retention { blocks, bytes: 0 };
    }
    if keep == Retention::default() {
        let text = "nothing says how many blocks to keep: give --blocks, or set storage.prune";
        return Err(CommandError::new(Exit::Usage, text));
    }
    ledger.retain(keep);
    let before = ledger.base()?;
    while ledger.prune(STEP)? > 0 {}
    let after = ledger.base()?;
    let gone = after.0 - before.0;
    Ok(Output {
        text: format!(
            "{gone} blocks removed; blocks above height {after} are kept. The file keeps its size, and its free pages are used again\n"
        ),
        json: json!({ "removed": gone, "first_kept": after.0 + 1 }),
    })
}
