//! `timed db verify`: the ledger on disk, checked from genesis to tip.

use crate::node::commands::{CommandError, Output};
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::run::load_genesis;
use crate::storage::LedgerStore;
use serde_json::json;
use std::io::{IsTerminal, Write};

/// Checks the whole ledger; nothing else may use the data directory meanwhile.
pub(super) fn verify(config: &Config) -> Result<Output, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    if !datadir.ledger().exists() {
        let text = format!(
            "there is no ledger in {}: name the node's --datadir or --config",
            datadir.ledger().display()
        );
        return Err(CommandError::new(Exit::Config, text));
    }
    let _lock = datadir.lock()?;
    let genesis = load_genesis(config)?;
    let store = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
    let terminal = std::io::stderr().is_terminal();
    let mut told = String::new();
    let report = store.verify(&mut |stage, done, of| {
        if terminal {
            told = format!("{stage}: {done} of {of}");
            let _gone = write!(std::io::stderr(), "\r{told:<60}");
        }
    });
    if !told.is_empty() {
        eprintln!();
    }
    let report = report?;
    Ok(Output {
        text: format!(
            "the ledger is in order: height {}, block {}, {} coins, {} transactions, {} blocks can be taken back\n",
            report.height, report.block, report.coins, report.transactions, report.undoable
        ),
        json: json!({
            "valid": true, "height": report.height.0, "block": report.block.to_string(),
            "coins": report.coins, "transactions": report.transactions, "undoable": report.undoable,
        }),
    })
}
