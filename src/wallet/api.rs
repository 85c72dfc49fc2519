//! One wallet: keys, addresses, coins, history and payments under way. The node calls `attach` once, then `observe` for
//! every decided block and `tick` about every second; RPC calls the rest. See `spend` for making transactions.
//!
//! What a wallet knows of the chain comes from decided blocks only (see `follow`). A running node never undoes one; what a
//! fork took back (B6) is settled at the next start (`undo`).

use super::addresses::{AddressBook, ChainNodes, KeyPath};
use super::coins::{CoinSet, OwnCoin};
use super::error::WalletError;
use super::files::Sync;
use super::history::History;
use super::keystore;
use super::pending::{Pending, PendingEntry, VoidEntry};
use super::persist::{self, Files};
use super::seed::{Chain, Seed};
use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::keys::SecretKey;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::ids::{BlockId, ChainId, Height, OutPoint, Txid};
use crate::types::transaction::{Tx, TxOutput};
use std::collections::BTreeMap;
use std::path::Path;

/// Time between two writings of coins and history, ms.
const FLUSH_INTERVAL_MS: u64 = 60_000;

/// The keys in memory, or not.
pub struct Keys {
    nodes: Option<ChainNodes>,
    encrypted: bool,
    until: Option<WallMs>,
}

impl Keys {
    /// Keys that need a passphrase first.
    pub fn locked() -> Keys {
        Keys {
            nodes: None,
            encrypted: true,
            until: None,
        }
    }
    /// Keys at hand.
    pub fn unlocked(nodes: ChainNodes, encrypted: bool) -> Keys {
        Keys {
            nodes: Some(nodes),
            encrypted,
            until: None,
        }
    }
    /// The chain nodes, if unlocked.
    pub fn nodes(&self) -> Option<&ChainNodes> {
        self.nodes.as_ref()
    }
    fn secret(&self, path: KeyPath) -> Option<SecretKey> {
        let nodes = self.nodes.as_ref()?;
        let node = match path.chain {
            Chain::Receive => &nodes.receive,
            Chain::Change => &nodes.change,
        };
        Some(node.child(path.index).secret_key())
    }
}

/// An address of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    /// As text.
    pub address: String,
    /// What outputs lock to.
    pub program: Program,
    /// Given by the user.
    pub label: String,
    /// Index on its chain of keys.
    pub index: u32,
    /// Whether it is for our change.
    pub change: bool,
}

/// Money that no pending transaction of ours spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// In final coins.
    pub confirmed: Amount,
    /// Change of our pending transactions, and coins of contested blocks.
    pub unconfirmed: Amount,
    /// Coins in memory.
    pub coin_count: usize,
    /// Coins on the ledger that found no room in memory and are not counted here.
    pub untracked_count: u64,
}

/// A coin of ours that no pending transaction spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unspent {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Value and program.
    pub output: TxOutput,
    /// The height that made it; `None` for change of a pending transaction.
    pub height: Option<Height>,
    /// Whether a coinbase made it.
    pub coinbase: bool,
    /// Whether the user holds it back (lockunspent).
    pub held: bool,
}

/// A wallet. `Send`; the node keeps it behind a lock.
pub struct Wallet {
    pub(super) files: Files,
    pub(super) network: Network,
    pub(super) chain: ChainId,
    pub(super) keys: Keys,
    pub(super) book: AddressBook,
    pub(super) coins: CoinSet,
    pub(super) history: History,
    pub(super) pending: Pending,
    pub(super) synced: Option<Height>,
    /// The block at `synced`; zero at height 0, whose block is nobody's doubt.
    pub(super) block: BlockId,
    pub(super) chain_dirty: bool,
    flushed: Option<MonoUs>,
}

impl Wallet {
    pub(super) fn assemble(
        files: Files,
        network: Network,
        chain: ChainId,
        keys: Keys,
        book: AddressBook,
    ) -> Wallet {
        Wallet {
            files,
            network,
            chain,
            keys,
            book,
            coins: CoinSet::default(),
            history: History::default(),
            pending: Pending::default(),
            synced: None,
            block: BlockId::default(),
            chain_dirty: false,
            flushed: None,
        }
    }

    // --- housekeeping ---------------------------------------------------------------------------------------------

    /// Housekeeping, about every second: locks again when the time is over, writes what changed, and returns our
    /// transactions that are due to be sent (again).
    pub fn tick(&mut self, now: Now) -> Vec<Tx> {
        if self.keys.until.is_some_and(|until| until <= now.wall) {
            self.lock();
        }
        let due = |at: MonoUs| now.mono.since(at) >= FLUSH_INTERVAL_MS * 1_000;
        if self.flushed.is_none_or(due) {
            self.flushed = Some(now.mono);
            if let Err(error) = self.flush() {
                log::error!("wallet {} could not be written: {error}", self.name());
            }
        }
        self.pending.take_due(now.mono)
    }

    // --- addresses ------------------------------------------------------------------------------------------------

    /// A new receiving address, on disk before it is told.
    pub fn new_address(&mut self, label: &str) -> Result<String, WalletError> {
        if let Some(nodes) = &self.keys.nodes {
            self.book.prepare(nodes);
        }
        let program = self.book.take_next()?;
        if let Some(nodes) = &self.keys.nodes {
            self.book.prepare(nodes);
        }
        let labelled = self.book.set_label(program, label);
        let saved = labelled.and_then(|()| self.book.save(&self.files.addresses(), Sync::Disk));
        if let Err(error) = saved {
            self.book.give_back();
            return Err(error);
        }
        Ok(program.address(self.network))
    }
    /// Where our change goes.
    pub fn change_address(&self) -> String {
        self.book.change().address(self.network)
    }
    /// Addresses handed out and the change address.
    pub fn addresses(&self) -> Vec<AddressInfo> {
        let handed_out = self.book.count();
        let programs = self.book.programs();
        let shown = programs.filter(|(_, p)| p.chain == Chain::Change || p.index < handed_out);
        shown
            .map(|(program, path)| self.info(program, *path))
            .collect()
    }
    fn info(&self, program: &Program, path: KeyPath) -> AddressInfo {
        AddressInfo {
            address: program.address(self.network),
            program: *program,
            label: self.book.label(program).to_string(),
            index: path.index,
            change: path.chain == Chain::Change,
        }
    }
    /// What we know of an address, if it is ours.
    pub fn address_info(&self, program: &Program) -> Option<AddressInfo> {
        let path = self.book.path(program)?;
        Some(self.info(program, path))
    }
    /// Whether we hold the key.
    pub fn is_own(&self, program: &Program) -> bool {
        self.book.path(program).is_some()
    }
    /// Labels of addresses, ours and others.
    pub fn labels(&self) -> &BTreeMap<Program, String> {
        self.book.labels()
    }
    /// The label of an address, empty if it has none.
    pub fn label(&self, program: &Program) -> &str {
        self.book.label(program)
    }
    /// Labels an address, ours or not.
    pub fn set_label(&mut self, program: Program, label: &str) -> Result<(), WalletError> {
        self.book.set_label(program, label)?;
        self.book.save(&self.files.addresses(), Sync::Disk)
    }
    /// Prepared addresses left.
    pub fn prepared_count(&self) -> usize {
        self.book.prepared_count()
    }

    // --- money and history ------------------------------------------------------------------------------------------

    /// From this height on a fork that is open may take blocks back (B6): their coins are not confirmed, and are spent last.
    pub fn contest(&mut self, from: Option<Height>) {
        self.coins.contest(from);
    }
    /// What we have.
    pub fn balance(&self) -> Balance {
        let (confirmed, unconfirmed) = self.coins.totals();
        Balance {
            confirmed,
            unconfirmed,
            coin_count: self.coins.len(),
            untracked_count: self.coins.untracked(),
        }
    }
    /// Coins that no pending transaction spends, ascending by outpoint.
    pub fn unspent(&self) -> Vec<Unspent> {
        let free = self.coins.unreserved();
        free.map(|(outpoint, coin)| self.unspent_of(outpoint, coin))
            .collect()
    }
    fn unspent_of(&self, outpoint: &OutPoint, coin: &OwnCoin) -> Unspent {
        Unspent {
            outpoint: *outpoint,
            output: coin.output,
            height: coin.height,
            coinbase: coin.coinbase,
            held: self.coins.held().contains(outpoint),
        }
    }
    /// A coin of ours, also if a pending transaction spends it.
    pub fn coin(&self, outpoint: &OutPoint) -> Option<Unspent> {
        let coin = self.coins.get(outpoint)?;
        Some(self.unspent_of(outpoint, coin))
    }
    /// Holds a coin back from selection, or lets it go (lockunspent). Forgotten at the end of the process.
    pub fn hold(&mut self, outpoint: OutPoint, hold: bool) -> Result<(), WalletError> {
        if hold && self.coins.get(&outpoint).is_none() {
            return Err(WalletError::Invalid(format!(
                "{outpoint} is no coin of this wallet"
            )));
        }
        if !self.coins.hold(outpoint, hold) {
            return Err(WalletError::Invalid(
                "too many coins are held: release some first".into(),
            ));
        }
        Ok(())
    }
    /// What the user holds back, ascending.
    pub fn held(&self) -> Vec<OutPoint> {
        self.coins.held().iter().copied().collect()
    }
    /// Our decided transactions.
    pub fn history(&self) -> &History {
        &self.history
    }
    /// Our transactions that are not final yet, oldest first.
    pub fn pending(&self) -> Vec<PendingEntry> {
        let mut entries: Vec<_> = self.pending.entries().cloned().collect();
        entries.sort_by_key(|entry| (entry.created, entry.tx.txid));
        entries
    }
    /// Number of our transactions that are not final yet.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }
    /// One of our transactions that is not final yet.
    pub fn pending_entry(&self, txid: &Txid) -> Option<&PendingEntry> {
        self.pending.get(txid)
    }
    /// One of ours that can never happen, and the decided transaction that made it so (the latest 1,000).
    pub fn void(&self, txid: &Txid) -> Option<&VoidEntry> {
        self.pending.void(txid)
    }
    /// The height up to which the wallet knows the chain.
    pub fn synced(&self) -> Option<Height> {
        self.synced
    }

    // --- keys -------------------------------------------------------------------------------------------------------

    /// The wallet's name: that of its directory.
    pub fn name(&self) -> String {
        let name = self.files.directory().file_name();
        name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }
    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }
    /// The network.
    pub fn network(&self) -> Network {
        self.network
    }
    /// Whether the key file has a passphrase.
    pub fn is_encrypted(&self) -> bool {
        self.keys.encrypted
    }
    /// Whether signing needs `unlock` first.
    pub fn is_locked(&self) -> bool {
        self.keys.nodes.is_none()
    }
    /// When the wallet locks again by itself.
    pub fn unlocked_until(&self) -> Option<WallMs> {
        self.keys.until
    }
    /// Loads the keys; `until` is when `tick` locks again. Takes about 0.2 s by design (Argon2id).
    pub fn unlock(&mut self, passphrase: &str, until: Option<WallMs>) -> Result<(), WalletError> {
        if !self.keys.encrypted {
            return Err(WalletError::EncryptionState(
                "the wallet has no passphrase: it is always unlocked",
            ));
        }
        let seed = keystore::load(&self.files.seed(), passphrase)?;
        self.take_keys(&seed)?;
        self.keys.until = until;
        Ok(())
    }
    fn take_keys(&mut self, seed: &Seed) -> Result<(), WalletError> {
        let nodes = persist::nodes(seed, self.network)?;
        if !self.book.belongs_to(&nodes) {
            return Err(WalletError::corrupt(
                &self.files.addresses(),
                "belongs to another seed or network: move it away and open the wallet again",
            ));
        }
        self.book.prepare(&nodes);
        self.keys.nodes = Some(nodes);
        Ok(())
    }
    /// Forgets the keys; without a passphrase there is nothing to lock.
    pub fn lock(&mut self) {
        if self.keys.encrypted {
            self.keys = Keys::locked();
        }
    }
    /// Changes the passphrase; both may be empty. A wallet that gets one is locked afterwards.
    pub fn set_passphrase(&mut self, old: &str, new: &str) -> Result<(), WalletError> {
        let seed = keystore::load(&self.files.seed(), old)?;
        keystore::save(&self.files.seed(), &seed, new)?;
        self.keys.encrypted = !new.is_empty();
        if new.is_empty() {
            self.take_keys(&seed)?;
            self.keys.until = None;
        }
        self.lock();
        Ok(())
    }
    /// The BIP 39 words of the seed, for a backup on paper.
    pub fn mnemonic(&self, passphrase: &str) -> Result<zeroize::Zeroizing<String>, WalletError> {
        keystore::load(&self.files.seed(), passphrase)?.mnemonic()
    }
    /// The key of a program of ours.
    pub fn key_for(&self, program: &Program) -> Result<Option<SecretKey>, WalletError> {
        let Some(path) = self.book.path(program) else {
            return Ok(None);
        };
        let key = self.keys.secret(path).ok_or(WalletError::Locked)?;
        Ok(Some(key))
    }
}
