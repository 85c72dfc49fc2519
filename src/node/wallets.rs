//! Wallets of a node at start: opened, and brought up to the durable ledger.

use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::files;
use crate::node::handle::Wallets;
use crate::node::run::RunError;
use crate::storage::{LedgerStore, StorageError};
use crate::types::address::Program;
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput};
use crate::wallet::{self, CoinSource, Seed, SourceCoin, SourceError, Wallet, WalletError};
use parking_lot::Mutex;
use std::sync::Arc;

/// The durable ledger as wallets read it.
pub struct Source(pub LedgerStore);

fn unreadable(error: StorageError) -> SourceError {
    SourceError(error.to_string())
}

impl CoinSource for Source {
    fn tip(&self) -> Result<Height, SourceError> {
        Ok(self.0.tip())
    }
    fn coins_of(
        &self,
        program: &Program,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<SourceCoin>, SourceError> {
        let coins = self.0.coins_of(program, after, limit).map_err(unreadable)?;
        let show = |(outpoint, coin): (OutPoint, crate::ledger::coins::Coin)| SourceCoin {
            outpoint,
            output: coin.output,
            coinbase: coin.flags & crate::ledger::coins::FLAG_COINBASE != 0,
            height: self
                .0
                .tx(&outpoint.txid)
                .ok()
                .flatten()
                .map(|(height, _)| height),
        };
        Ok(coins.into_iter().map(show).collect())
    }
    fn block_id(&self, height: Height) -> Result<Option<BlockId>, SourceError> {
        self.0.block_id(height).map_err(unreadable)
    }
    fn is_unspent(&self, outpoint: &OutPoint) -> Result<bool, SourceError> {
        Ok(self.0.coin(outpoint).map_err(unreadable)?.is_some())
    }
    fn reorg_max(&self) -> u64 {
        self.0.genesis().params.max_reorg
    }
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, SourceError> {
        self.0.block(height).map_err(unreadable)
    }
    fn height_of(&self, txid: &Txid) -> Result<Option<Height>, SourceError> {
        Ok(self
            .0
            .tx(txid)
            .map_err(unreadable)?
            .map(|(height, _)| height))
    }
    fn genesis_coins(&self) -> Vec<(OutPoint, TxOutput)> {
        self.0.genesis().coins()
    }
}

/// A passphrase file holds at most this.
const PASSPHRASE_BYTES_MAX: u64 = 1_024;

/// Opens every wallet of the data directory, and makes the default one if it is not there. `returned`: transactions of
/// blocks that were taken back, if a fork ever did that here (B6 step 5).
pub fn load(
    config: &Config,
    datadir: &DataDir,
    ledger: &LedgerStore,
    returned: Option<&[Tx]>,
) -> Result<Wallets, RunError> {
    let wallets = Wallets::default();
    if !config.wallet.enable {
        return Ok(wallets);
    }
    let failed = |name: &str, error: WalletError| RunError {
        message: format!("wallet '{name}': {error}"),
        exit: error.exit_code() as u8,
    };
    let (network, chain) = (ledger.genesis().network, ledger.genesis().chain_id());
    let root = datadir.wallets();
    let mut names = wallet::list(&root).map_err(|e| failed("", e))?;
    let default = config
        .wallet
        .default
        .clone()
        .unwrap_or_else(|| "default".into());
    if !names.contains(&default) {
        let dir = wallet::directory(&root, &default).map_err(|e| failed(&default, e))?;
        let seed = Seed::generate().map_err(|e| failed(&default, e))?;
        Wallet::create(&dir, &seed, "", network, chain).map_err(|e| failed(&default, e))?;
        names.push(default.clone());
    }
    let source = Source(ledger.clone());
    for name in names {
        let dir = wallet::directory(&root, &name).map_err(|e| failed(&name, e))?;
        let mut opened = Wallet::open(&dir, network, chain).map_err(|e| failed(&name, e))?;
        let attached = match returned {
            Some(returned) => opened.attach_after_fork(&source, returned),
            None => opened.attach(&source),
        };
        attached.map_err(|e| failed(&name, e))?;
        if let (Some(file), true) = (
            &config.wallet.passphrase_file,
            *name == *default && opened.is_locked(),
        ) {
            let bytes = files::read_private(file, PASSPHRASE_BYTES_MAX)?;
            let passphrase = String::from_utf8_lossy(&bytes);
            let passphrase = passphrase.trim_end_matches(['\n', '\r']);
            opened
                .unlock(passphrase, None)
                .map_err(|e| failed(&name, e))?;
        }
        wallets.write().insert(name, Arc::new(Mutex::new(opened)));
    }
    Ok(wallets)
}
