//! `timed db rebuild`: a damaged ledger is moved aside, and the next start fetches it again from peers, every certificate
//! and transaction verified. Keys, wallets and the signer store stay where they are.

use crate::node::commands::{CommandError, Output};
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use serde_json::json;

/// Ledgers moved aside that may lie beside one another.
const ASIDE_COUNT_MAX: u32 = 1_000;

/// Moves the ledger aside; nothing else may use the data directory meanwhile.
pub(super) fn rebuild(config: &Config) -> Result<Output, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    let ledger = datadir.ledger();
    if !ledger.exists() {
        let text = format!(
            "there is no ledger in {}: name the node's --datadir or --config",
            ledger.display()
        );
        return Err(CommandError::new(Exit::Config, text));
    }
    let _lock = datadir.lock()?;
    let free = (0..ASIDE_COUNT_MAX)
        .map(|i| ledger.with_extension(format!("aside-{i}")))
        .find(|aside| !aside.exists());
    let Some(aside) = free else {
        let text = format!(
            "too many old ledgers beside {}: remove some",
            ledger.display()
        );
        return Err(CommandError::new(Exit::Io, text));
    };
    std::fs::rename(&ledger, &aside).map_err(|error| {
        let text = format!(
            "{} cannot be moved to {}: {error}",
            ledger.display(),
            aside.display()
        );
        CommandError::new(Exit::Io, text)
    })?;
    Ok(Output {
        text: format!(
            "the ledger lies in {} now; start the node and it fetches the ledger from its peers. A masternode abstains until it has \
             caught up. Remove the old ledger when all is well\n",
            aside.display()
        ),
        json: json!({ "moved_to": aside }),
    })
}
