//! Transactions of ours that are not final yet: remembered over restarts, sent again until a block decides them or what they
//! spend; then the latter are remembered as void, with what took their coins. One file each, named by its txid. Most were
//! made here; those of blocks that were taken back (B6) may be payments to us.

use super::error::WalletError;
use super::files::{self, Kind, Sync};
use crate::base::limits::TX_BYTES_MAX;
use crate::base::time::{MonoUs, WallMs};
use crate::types::amount::Amount;
use crate::types::ids::{ChainId, Height, Txid};
use crate::types::transaction::Tx;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Pending transactions of a wallet; further payments are refused until some are final.
pub const PENDING_COUNT_MAX: usize = 10_000;
/// Time between two sendings of a transaction, ms.
pub const RESEND_INTERVAL_MS: u64 = 30_000;
/// Transactions handed out for sending at once.
pub const RESEND_COUNT_MAX: usize = 1_000;
/// Void transactions remembered, the oldest forgotten first.
const VOID_COUNT_MAX: usize = 1_000;

const KIND: Kind = Kind {
    magic: b"TIMEPEND",
    version: 1,
    payload_bytes_max: TX_BYTES_MAX + 128,
};

const VOID_KIND: Kind = Kind {
    magic: b"TIMEVOID",
    version: 1,
    payload_bytes_max: TX_BYTES_MAX + 256,
};

/// A transaction of ours that can never happen: a decided one spent what it spends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoidEntry {
    /// The transaction.
    pub entry: PendingEntry,
    /// The decided one.
    pub by: Txid,
    /// Height at which that was decided.
    pub height: Height,
}

/// A transaction under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingEntry {
    /// The network it is for.
    pub chain: ChainId,
    /// When it was made.
    pub created: WallMs,
    /// Sum of our coins that it spends.
    pub debit: Amount,
    /// Sum of the coins it makes for us.
    pub credit: Amount,
    /// Its fee, if all its inputs are ours.
    pub fee: Option<Amount>,
    /// The transaction.
    pub tx: Tx,
}

struct Slot {
    entry: PendingEntry,
    sent: Option<MonoUs>,
    synced: bool,
}

/// The list.
#[derive(Default)]
pub struct Pending {
    slots: BTreeMap<Txid, Slot>,
    void: VecDeque<VoidEntry>,
}

impl Pending {
    /// Whether one more fits.
    pub fn has_room(&self) -> bool {
        self.slots.len() < PENDING_COUNT_MAX
    }
    /// Remembers a transaction, safe against the end of the process.
    pub fn insert(&mut self, directory: &Path, entry: PendingEntry) -> Result<(), WalletError> {
        let txid = entry.tx.txid;
        files::write_framed(&path(directory, &txid), &KIND, &entry, Sync::System)?;
        let slot = Slot {
            entry,
            sent: None,
            synced: false,
        };
        self.slots.insert(txid, slot);
        Ok(())
    }
    /// Forgets a transaction.
    pub fn remove(&mut self, directory: &Path, txid: &Txid) -> Option<PendingEntry> {
        let slot = self.slots.remove(txid)?;
        if let Err(error) = files::remove(&path(directory, txid)) {
            log::warn!("a payment that is no longer pending could not be removed: {error}");
        }
        Some(slot.entry)
    }
    /// A transaction of the list.
    pub fn get(&self, txid: &Txid) -> Option<&PendingEntry> {
        self.slots.get(txid).map(|slot| &slot.entry)
    }
    /// All of them, ascending by txid.
    pub fn entries(&self) -> impl Iterator<Item = &PendingEntry> {
        self.slots.values().map(|slot| &slot.entry)
    }
    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
    /// Remembers a transaction that has become void.
    pub fn note_void(&mut self, directory: &Path, void: VoidEntry) {
        let txid = void.entry.tx.txid;
        self.unvoid(directory, &txid);
        if self.void.len() >= VOID_COUNT_MAX
            && let Some(oldest) = self.void.front().map(|void| void.entry.tx.txid)
        {
            self.unvoid(directory, &oldest);
        }
        let written = files::write_framed(&path(directory, &txid), &VOID_KIND, &void, Sync::System);
        if let Err(error) = written {
            log::warn!("void payment {txid} is forgotten at the next start: {error}");
        }
        self.void.push_back(void);
    }
    /// Forgets that a transaction was void: it is decided after all.
    pub fn unvoid(&mut self, directory: &Path, txid: &Txid) {
        let Some(place) = self.void.iter().position(|v| v.entry.tx.txid == *txid) else {
            return;
        };
        self.void.remove(place);
        if let Err(error) = files::remove(&path(directory, txid)) {
            log::warn!("a payment that is no longer void could not be removed: {error}");
        }
    }
    /// A void transaction.
    pub fn void(&self, txid: &Txid) -> Option<&VoidEntry> {
        self.void.iter().find(|v| v.entry.tx.txid == *txid)
    }
    /// The caller has just sent it.
    pub fn note_sent(&mut self, txid: &Txid, now: MonoUs) {
        if let Some(slot) = self.slots.get_mut(txid) {
            slot.sent = Some(now);
        }
    }
    /// Transactions due to be sent, oldest first, at most [`RESEND_COUNT_MAX`]; they count as sent now.
    pub fn take_due(&mut self, now: MonoUs) -> Vec<Tx> {
        let is_due = |slot: &&mut Slot| {
            slot.sent
                .is_none_or(|sent| now.since(sent) >= RESEND_INTERVAL_MS * 1_000)
        };
        let mut due: Vec<&mut Slot> = self.slots.values_mut().filter(is_due).collect();
        due.sort_by_key(|slot| slot.entry.created);
        due.truncate(RESEND_COUNT_MAX);
        let send = |slot: &mut Slot| {
            slot.sent = Some(now);
            slot.entry.tx.clone()
        };
        due.into_iter().map(send).collect()
    }
    /// Puts on the disk what is only with the system so far.
    pub fn sync(&mut self, directory: &Path) -> Result<(), WalletError> {
        let mut any = false;
        for (txid, slot) in &mut self.slots {
            if slot.synced {
                continue;
            }
            let path = path(directory, txid);
            let file = std::fs::File::open(&path).map_err(WalletError::io(&path))?;
            file.sync_all().map_err(WalletError::io(&path))?;
            (slot.synced, any) = (true, true);
        }
        if any {
            files::sync_parent(&path(directory, &Txid::default()))?;
        }
        Ok(())
    }
    /// Reads the lists. Files that a power cut left empty, damaged ones and those of another network are dropped.
    pub fn load(directory: &Path, voids: &Path, chain: ChainId) -> Result<Pending, WalletError> {
        let mut pending = Pending::default();
        read_each(directory, &KIND, |entry: PendingEntry| {
            if entry.chain != chain || !pending.has_room() {
                return false;
            }
            let slot = Slot {
                entry,
                sent: None,
                synced: true,
            };
            pending.slots.insert(slot.entry.tx.txid, slot);
            true
        })?;
        let mut found = Vec::new();
        read_each(voids, &VOID_KIND, |void: VoidEntry| {
            let keep = void.entry.chain == chain && found.len() < VOID_COUNT_MAX;
            if keep {
                found.push(void);
            }
            keep
        })?;
        found.sort_by_key(|void| void.height);
        pending.void = found.into();
        Ok(pending)
    }
}

/// Reads the files of a directory, each named by a txid. What cannot be read, and what `keep` refuses, is removed.
fn read_each<T: DeserializeOwned>(
    directory: &Path,
    kind: &Kind,
    mut keep: impl FnMut(T) -> bool,
) -> Result<(), WalletError> {
    for file in std::fs::read_dir(directory).map_err(WalletError::io(directory))? {
        let path = file.map_err(WalletError::io(directory))?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        if name.is_none_or(|n| n.parse::<Txid>().is_err()) {
            files::remove(&path)?; // the rest of a write that a kill cut short
            continue;
        }
        let kept = match files::read_framed::<T>(&path, kind) {
            Ok(entry) => entry.is_some_and(&mut keep),
            Err(error @ WalletError::Corrupt { .. }) => {
                log::warn!("dropping a payment that cannot be read: {error}");
                false
            }
            Err(other) => return Err(other),
        };
        if !kept {
            files::remove(&path)?;
        }
    }
    Ok(())
}

fn path(directory: &Path, txid: &Txid) -> PathBuf {
    directory.join(txid.to_string())
}
