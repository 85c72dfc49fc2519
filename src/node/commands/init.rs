//! `timed init`: keys and a commented configuration file.

use crate::base::hex;
use crate::crypto::keys::SecretKey;
use crate::node::commands::CommandError;
use crate::node::config::{self, Config};
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::files::write_private;
use crate::node::keys::{self, KeyKind};
use crate::node::provision::ensure_dev_genesis;
use crate::storage::{KvStore, StorageError};
use crate::types::address::Network;

/// Makes what a new node needs in its data directory; the text says what was made. Overwrites nothing.
pub(super) fn init(config: &Config) -> Result<String, CommandError> {
    let datadir = DataDir::new(&config.node.datadir);
    if datadir.config().exists() {
        let text = format!(
            "{} is there already; nothing was changed. Name another --datadir, or delete that file to have a new one made",
            datadir.config().display()
        );
        return Err(CommandError::new(Exit::Failure, text));
    }
    datadir.create()?;
    let _lock = datadir.lock()?;
    ensure_dev_genesis(config)?;
    let node = keys::load_or_generate(&datadir.node_key(), KeyKind::Node)?;
    if !datadir.operator_key().exists() {
        // The store first (B7 step 0): a key without its store would have to abstain. That of another key stays.
        let seed = keys::random_seed()?;
        match KvStore::create(&datadir.signer(), keys::operator_name(&seed)) {
            Ok(()) | Err(StorageError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        keys::save_new(&datadir.operator_key(), KeyKind::Operator, &seed)?;
    }
    let operator = keys::load(&datadir.operator_key(), KeyKind::Operator)?;
    let network = config.node.network;
    let text = |value: &dyn std::fmt::Display| format!("\"{value}\"");
    let set = [
        ("node", "network", text(&network)),
        ("node", "datadir", text(&".")),
    ];
    let head = format!("A node of the {network} network. See timed.toml(5).");
    write_private(&datadir.config(), config::example(&head, &set).as_bytes())?;
    let public = |seed: &keys::Seed| hex::encode(&SecretKey::from_seed(seed).public().0);
    let next = match network {
        Network::Dev => String::new(),
        _ => format!(
            "then put the network's genesis file at {}\n",
            config.node.genesis.display()
        ),
    };
    Ok(format!(
        "configuration {}\nnode key      {}\noperator key  {}\n{next}start with: timed --config {}\n",
        datadir.config().display(),
        public(&node),
        public(&operator),
        datadir.config().display(),
    ))
}
