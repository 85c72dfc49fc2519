//! `timed trust HEIGHT:ID`: the operator vouches for a block (F2), after comparing it with other operators.

use crate::node::clock::Clock;
use crate::node::commands::CommandError;
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::run::load_genesis;
use crate::node::trust::{TrustError, TrustFile, parse_root};
use crate::storage::LedgerStore;
use crate::sync::trust::Root;

impl From<TrustError> for CommandError {
    fn from(error: TrustError) -> CommandError {
        let exit = match &error {
            TrustError::File(error) => error.exit(),
            TrustError::Form(_) | TrustError::OtherBranch { .. } => Exit::Data,
            TrustError::Ledger(error) => super::exit_of(error.exit_code()),
        };
        CommandError::new(exit, error.to_string())
    }
}

/// Writes the root down; nothing else may use the data directory meanwhile.
pub(super) fn trust(config: &Config, block: &str) -> Result<String, CommandError> {
    let (height, id) = parse_root(block).map_err(|e| CommandError::new(Exit::Usage, e))?;
    let datadir = DataDir::new(&config.node.datadir);
    datadir.create()?;
    let _lock = datadir.lock()?;
    let mut file = TrustFile::read(&datadir.trust())?;
    file.root = Some(Root {
        height,
        id,
        said: Some(Clock::default().now().wall),
    });
    let mut known = "the ledger does not reach it yet";
    if datadir.ledger().exists() {
        let genesis = load_genesis(config)?;
        let ledger = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
        file.trust(&ledger, None)?;
        if ledger.block_id(height)?.is_some() {
            known = "the ledger holds it";
        }
    }
    file.write(&datadir.trust())?;
    Ok(format!(
        "block {id} at height {height} is trusted from now on; {known}\n"
    ))
}
