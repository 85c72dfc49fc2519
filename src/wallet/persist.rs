//! The wallet's directory, and the snapshot of its coins with the height they belong to.
//!
//! ```text
//! NAME/seed          the encrypted seed (keystore)          the only file that cannot be made again
//! NAME/addresses     keys handed out and prepared, labels   synced before an address is told
//! NAME/coins         network, block, coins after it         from time to time
//! NAME/history/N     pages of decided transactions          before `coins`, so that replaying from it repeats them
//! NAME/pending/TXID  own transactions under way             before they are sent
//! NAME/void/TXID     own transactions that cannot happen    when that is decided
//! ```

use super::addresses::{AddressBook, ChainNodes};
use super::api::{Keys, Wallet};
use super::coins::{COIN_COUNT_MAX, CoinSet, OwnCoin};
use super::error::WalletError;
use super::files::{self, Kind, Sync};
use super::history::History;
use super::keystore;
use super::pending::Pending;
use super::seed::{Chain, Seed, chain_node};
use crate::types::address::Network;
use crate::types::ids::{BlockId, ChainId, Height, OutPoint};
use crate::types::transaction::TxOutput;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The directory name of the wallet whose name is empty.
pub const DEFAULT_NAME: &str = "default";
/// Bytes of a wallet's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Wallets that are listed.
pub const WALLET_COUNT_MAX: usize = 1_000;

const KIND: Kind = Kind {
    magic: b"TIMECOIN",
    version: 2,
    payload_bytes_max: 96 + COIN_COUNT_MAX * 128,
};

#[derive(Serialize, Deserialize)]
struct Snapshot {
    chain: ChainId,
    height: Height,
    block: BlockId,
    coins: Vec<(OutPoint, TxOutput, Height, bool)>,
}

/// The files of one wallet.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

impl Files {
    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }
    /// The key file.
    pub fn seed(&self) -> PathBuf {
        self.0.join("seed")
    }
    /// The address book.
    pub fn addresses(&self) -> PathBuf {
        self.0.join("addresses")
    }
    fn coins(&self) -> PathBuf {
        self.0.join("coins")
    }
    /// Pages of history.
    pub fn history(&self) -> PathBuf {
        self.0.join("history")
    }
    /// Transactions under way.
    pub fn pending(&self) -> PathBuf {
        self.0.join("pending")
    }
    /// Transactions that can never happen.
    pub fn void(&self) -> PathBuf {
        self.0.join("void")
    }
    fn create_directories(&self) -> Result<(), WalletError> {
        files::create_dir(&self.history())?;
        files::create_dir(&self.void())?;
        files::create_dir(&self.pending())
    }
}

/// The directory of the wallet `name` under `root`; the empty name is the default wallet.
pub fn directory(root: &Path, name: &str) -> Result<PathBuf, WalletError> {
    let name = if name.is_empty() { DEFAULT_NAME } else { name };
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(fine) {
        return Err(WalletError::Invalid(format!(
            "wallet name '{name}': use at most {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', not starting with '.'"
        )));
    }
    Ok(root.join(name))
}

/// Names of the wallets under `root`, ascending, at most [`WALLET_COUNT_MAX`]; none if `root` does not exist.
pub fn list(root: &Path) -> Result<Vec<String>, WalletError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(WalletError::io(root)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(WalletError::io(root))?;
        let is_wallet = Files(entry.path()).seed().exists();
        if let Some(name) = entry.file_name().to_str().filter(|_| is_wallet) {
            names.push(name.to_string());
        }
        if names.len() >= WALLET_COUNT_MAX {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// The chain nodes of a seed on a network.
pub fn nodes(seed: &Seed, network: Network) -> Result<ChainNodes, WalletError> {
    let master = seed.master()?;
    Ok(ChainNodes {
        receive: chain_node(&master, network, Chain::Receive),
        change: chain_node(&master, network, Chain::Change),
    })
}

impl Wallet {
    /// Makes a wallet in `dir` from a seed, synced to disk. `passphrase` may be empty; the wallet is unlocked.
    pub fn create(
        dir: &Path,
        seed: &Seed,
        passphrase: &str,
        network: Network,
        chain: ChainId,
    ) -> Result<Wallet, WalletError> {
        let paths = Files(dir.to_path_buf());
        if paths.seed().exists() {
            return Err(WalletError::Exists(dir.to_path_buf()));
        }
        paths.create_directories()?;
        let nodes = nodes(seed, network)?;
        let mut book = AddressBook::new(&nodes);
        book.save(&paths.addresses(), Sync::Disk)?;
        // Last: a wallet is there when its seed is.
        keystore::save(&paths.seed(), seed, passphrase)?;
        files::sync_parent(dir)?;
        let keys = Keys::unlocked(nodes, !passphrase.is_empty());
        Ok(Wallet::assemble(paths, network, chain, keys, book))
    }

    /// Opens the wallet of a directory. One without a passphrase is unlocked at once. Coins, history and pending
    /// transactions of another network are dropped; keys and labels stay.
    pub fn open(dir: &Path, network: Network, chain: ChainId) -> Result<Wallet, WalletError> {
        let paths = Files(dir.to_path_buf());
        if !paths.seed().exists() {
            return Err(WalletError::NotFound(dir.to_path_buf()));
        }
        paths.create_directories()?;
        let encrypted = keystore::has_passphrase(&paths.seed())?;
        let keys = if encrypted {
            Keys::locked()
        } else {
            let seed = keystore::load(&paths.seed(), "")?;
            Keys::unlocked(nodes(&seed, network)?, false)
        };
        let book = match AddressBook::load(&paths.addresses()) {
            Ok(Some(book)) => book,
            Ok(None) | Err(WalletError::Corrupt { .. }) => match keys.nodes() {
                // Made again from the seed; how many addresses were handed out shows when they are paid or rescanned.
                Some(nodes) => AddressBook::new(nodes),
                None => {
                    return Err(WalletError::corrupt(
                        &paths.addresses(),
                        "missing or damaged, and the keys are encrypted: restore the wallet from its backup or its words",
                    ));
                }
            },
            Err(other) => return Err(other),
        };
        if keys.nodes().is_some_and(|nodes| !book.belongs_to(nodes)) {
            return Err(WalletError::corrupt(
                &paths.addresses(),
                "belongs to another seed or network: move it away and open the wallet again",
            ));
        }
        let mut wallet = Wallet::assemble(paths, network, chain, keys, book);
        wallet.load_chain_data()?;
        Ok(wallet)
    }

    fn load_chain_data(&mut self) -> Result<(), WalletError> {
        let (history, whole) = History::load(&self.files.history(), self.chain)?;
        if !whole {
            log::warn!(
                "wallet {}: part of the history is damaged or of another network; rescanblockchain restores it",
                self.name()
            );
        }
        self.history = history;
        self.pending = Pending::load(&self.files.pending(), &self.files.void(), self.chain)?;
        let snapshot = match files::read_framed::<Snapshot>(&self.files.coins(), &KIND) {
            Ok(snapshot) => snapshot.filter(|s| s.chain == self.chain),
            Err(WalletError::Corrupt { path, reason }) => {
                log::warn!(
                    "{}: {reason}; coins are read from the ledger",
                    path.display()
                );
                None
            }
            Err(other) => return Err(other),
        };
        if let Some(snapshot) = snapshot {
            let coins = snapshot.coins.into_iter();
            let own = |(outpoint, output, height, coinbase)| {
                let height = Some(height);
                let coin = OwnCoin {
                    output,
                    height,
                    coinbase,
                };
                (outpoint, coin)
            };
            self.coins = CoinSet::from_snapshot(coins.map(own));
            self.synced = Some(snapshot.height);
            self.block = snapshot.block;
        }
        Ok(())
    }

    /// Writes everything that changed. Call at a clean stop; `tick` does it from time to time.
    pub fn flush(&mut self) -> Result<(), WalletError> {
        self.book.save(&self.files.addresses(), Sync::Disk)?;
        self.pending.sync(&self.files.pending())?;
        if !std::mem::take(&mut self.chain_dirty) {
            return Ok(());
        }
        let written = self.write_chain_data();
        self.chain_dirty = written.is_err();
        written
    }

    fn write_chain_data(&mut self) -> Result<(), WalletError> {
        self.history.save(&self.files.history(), self.chain)?;
        let Some(height) = self.synced else {
            return Ok(());
        };
        // With coins left out of memory a snapshot would hide them for ever: read the ledger at the next start instead.
        if self.coins.untracked() > 0 {
            return files::remove(&self.files.coins());
        }
        let coins = self.coins.on_ledger().filter_map(|(outpoint, coin)| {
            Some((*outpoint, coin.output, coin.height?, coin.coinbase))
        });
        let snapshot = Snapshot {
            chain: self.chain,
            height,
            block: self.block,
            coins: coins.collect(),
        };
        files::write_framed(&self.files.coins(), &KIND, &snapshot, Sync::System)
    }

    /// Writes a copy of the key file and the addresses to the new directory `to`, from which a wallet can be opened.
    pub fn backup(&mut self, to: &Path) -> Result<(), WalletError> {
        let target = Files(to.to_path_buf());
        if target.seed().exists() {
            return Err(WalletError::Exists(to.to_path_buf()));
        }
        target.create_directories()?;
        self.book.save(&self.files.addresses(), Sync::Disk)?;
        for (from, to) in [
            (self.files.addresses(), target.addresses()),
            (self.files.seed(), target.seed()),
        ] {
            let bytes = files::read(&from, usize::MAX >> 1, true)?;
            let bytes = bytes.ok_or_else(|| WalletError::NotFound(from.clone()))?;
            files::replace(&to, &bytes, Sync::Disk)?;
        }
        Ok(())
    }
}
