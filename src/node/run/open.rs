//! What is on disk and in keys, opened and checked before any thread starts.

use crate::crypto::keys::SecretKey;
use crate::node::config::Config;
use crate::node::datadir::{DataDir, DirLock, OperatorLock, lock_operator_key};
use crate::node::exit::Exit;
use crate::node::keys::{self, KeyKind};
use crate::node::run::RunError;
use crate::node::snapshots;
use crate::storage::{KvStore, LedgerStore, Retention, Signer, StorageError};
use crate::types::genesis::Genesis;
use std::sync::Arc;

/// A node's belongings. Locks are held as long as this lives.
pub(super) struct Opened {
    pub(super) datadir: DataDir,
    pub(super) lock: DirLock,
    pub(super) genesis: Arc<Genesis>,
    pub(super) node_seed: keys::Seed,
    pub(super) operator: Option<(SecretKey, OperatorLock)>,
    pub(super) ledger: LedgerStore,
    pub(super) signer: Option<(KvStore, Signer)>,
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> RunError {
        RunError {
            message: error.to_string(),
            exit: error.exit_code(),
        }
    }
}

macro_rules! run_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for RunError {
            fn from(error: $error) -> RunError {
                RunError::new(&error, error.exit())
            }
        }
    )*};
}
run_errors!(
    crate::node::files::FileError,
    crate::node::datadir::DataDirError,
    keys::KeyError,
    crate::node::provision::ProvisionError
);

pub(super) fn open(config: &Config) -> Result<Opened, RunError> {
    let datadir = DataDir::new(&config.node.datadir);
    datadir.create()?;
    let lock = datadir.lock()?;
    crate::node::provision::ensure_dev_genesis(config)?;
    let genesis = Arc::new(load_genesis(config)?);
    let node_seed = keys::load_or_generate(&datadir.node_key(), KeyKind::Node)?;
    // An operator key that was just made lies where an unset key is looked for.
    let operator_file = config.masternode.operator_key.clone().or_else(|| {
        let file = datadir.operator_key();
        file.exists().then_some(file)
    });
    let operator = match operator_file {
        None => None,
        Some(file) => {
            let seed = keys::load(&file, KeyKind::Operator)?;
            let name = keys::operator_name(&seed);
            Some((SecretKey::from_seed(&seed), name, lock_operator_key(&name)?))
        }
    };
    let adopted = snapshots::adopt_incoming(config, &datadir, &genesis);
    adopted.map_err(|error| RunError::new(error, Exit::Data))?;
    let ledger = LedgerStore::open(&datadir.ledger(), config.storage.map_size, &genesis)?;
    ledger.retain(Retention {
        blocks: config.storage.prune,
        bytes: config.storage.prune_bytes,
    });
    let signer = match &operator {
        Some((_, name, _)) => Some(KvStore::open(&datadir.signer(), *name)?),
        None => None,
    };
    Ok(Opened {
        datadir,
        lock,
        genesis,
        node_seed,
        operator: operator.map(|(secret, _, lock)| (secret, lock)),
        ledger,
        signer,
    })
}

/// The genesis that the configuration names.
pub(in crate::node) fn load_genesis(config: &Config) -> Result<Genesis, RunError> {
    let path = &config.node.genesis;
    let text = std::fs::read_to_string(path).map_err(|error| {
        let network = config.node.network;
        let message = format!(
            "cannot read the genesis file {} ({error}): no public {network} network exists yet; get genesis.toml from the \
             people who run the network, or make a network of your own with 'timed testnet --out DIR'",
            path.display()
        );
        RunError::new(message, Exit::Config)
    })?;
    let genesis = Genesis::from_toml(&text)
        .map_err(|error| RunError::new(format!("{}: {error}", path.display()), Exit::Config))?;
    if genesis.network != config.node.network {
        let message = format!(
            "{} is the genesis of a {} network, the configuration says {}: set node.network",
            path.display(),
            genesis.network,
            config.node.network
        );
        return Err(RunError::new(message, Exit::Config));
    }
    Ok(genesis)
}
