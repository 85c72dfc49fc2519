//! History of the wallet's own decided transactions, in the order they were decided, on disk in pages of 1,024 entries that
//! are rewritten only while they grow. A page that is lost or damaged is made again by a rescan; money is not in here.

use super::error::WalletError;
use super::files::{self, Kind, Sync};
use crate::base::time::WallMs;
use crate::types::amount::Amount;
use crate::types::ids::{ChainId, Height, Txid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Entries of a page.
const PAGE_ENTRY_COUNT: u64 = 1_024;
/// Entries kept; the oldest page goes when there are more. Anyone can pay us, so this grows by what others do.
pub const HISTORY_COUNT_MAX: usize = 64 * 1_024;

const KIND: Kind = Kind {
    magic: b"TIMEHIST",
    version: 1,
    payload_bytes_max: 64 + PAGE_ENTRY_COUNT as usize * 96,
};

/// A decided transaction that spent or made coins of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Which.
    pub txid: Txid,
    /// Height of its block.
    pub height: Height,
    /// Time of its block.
    pub time: WallMs,
    /// Sum of our coins that it spent.
    pub debit: Amount,
    /// Sum of the coins it made for us, change included.
    pub credit: Amount,
    /// Its fee, if all its inputs were ours.
    pub fee: Option<Amount>,
    /// Whether it is a coinbase.
    pub coinbase: bool,
}

#[derive(Serialize, Deserialize)]
struct Page {
    chain: ChainId,
    entries: Vec<HistoryEntry>,
}

/// The history in memory.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<HistoryEntry>,
    /// Number of the first entry kept.
    first: u64,
    index: BTreeMap<Txid, u64>,
    dirty_from: Option<u64>,
    stale_pages: Vec<u64>,
}

impl History {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// The entry of a transaction.
    pub fn get(&self, txid: &Txid) -> Option<&HistoryEntry> {
        let number = self.index.get(txid)?;
        self.entries.get((number - self.first) as usize)
    }
    /// Newest first: `count` entries after the `skip` newest.
    pub fn page(&self, skip: usize, count: usize) -> Vec<HistoryEntry> {
        let newest = self.entries.iter().rev();
        newest.skip(skip).take(count).copied().collect()
    }
    /// Oldest first: the entries above a height.
    pub fn since(&self, height: Height) -> Vec<HistoryEntry> {
        let start = self.entries.partition_point(|e| e.height <= height);
        self.entries.iter().skip(start).copied().collect()
    }
    /// Adds an entry; one that is known already is replaced where it stands.
    pub fn push(&mut self, entry: HistoryEntry) {
        if let Some(number) = self.index.get(&entry.txid).copied() {
            let slot = self.entries.get_mut((number - self.first) as usize);
            if let Some(slot) = slot.filter(|slot| **slot != entry) {
                *slot = entry;
                self.touch(number);
            }
            return;
        }
        let number = self.first + self.entries.len() as u64;
        self.index.insert(entry.txid, number);
        self.entries.push_back(entry);
        self.touch(number);
        if self.entries.len() > HISTORY_COUNT_MAX {
            self.drop_oldest_page();
        }
    }
    /// Takes out the entries that `keep` refuses; newest last.
    pub fn retain(&mut self, keep: impl Fn(&HistoryEntry) -> bool) -> Vec<HistoryEntry> {
        let all: Vec<HistoryEntry> = self.entries.iter().copied().collect();
        let (kept, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(keep);
        if !gone.is_empty() {
            self.clear();
            kept.into_iter().for_each(|entry| self.push(entry));
        }
        gone
    }
    /// Forgets everything, on disk too at the next save.
    pub fn clear(&mut self) {
        let pages = self.page_numbers();
        self.stale_pages.extend(pages);
        self.entries.clear();
        self.index.clear();
        self.first = 0;
        self.dirty_from = None;
    }
    fn touch(&mut self, number: u64) {
        self.dirty_from = Some(self.dirty_from.map_or(number, |d| d.min(number)));
    }
    fn page_numbers(&self) -> std::ops::Range<u64> {
        let end = self.first + self.entries.len() as u64;
        self.first / PAGE_ENTRY_COUNT..end.div_ceil(PAGE_ENTRY_COUNT)
    }
    fn drop_oldest_page(&mut self) {
        self.stale_pages.push(self.first / PAGE_ENTRY_COUNT);
        for _ in 0..PAGE_ENTRY_COUNT {
            if let Some(gone) = self.entries.pop_front() {
                self.index.remove(&gone.txid);
                self.first += 1;
            }
        }
    }
    /// Reads the pages of a directory. Pages of another network or damaged ones end the history there: `false` says that a
    /// rescan would find more.
    pub fn load(directory: &Path, chain: ChainId) -> Result<(History, bool), WalletError> {
        let mut history = History::default();
        let numbers = page_files(directory)?;
        let Some(first) = numbers.first() else {
            return Ok((history, true));
        };
        history.first = first * PAGE_ENTRY_COUNT;
        for (expected, number) in (*first..).zip(&numbers) {
            let path = page_path(directory, *number);
            let page = match files::read_framed::<Page>(&path, &KIND) {
                Ok(Some(page)) if page.chain == chain && expected == *number => page,
                Ok(_) | Err(WalletError::Corrupt { .. }) => {
                    history.stale_pages = numbers.iter().copied().filter(|n| n >= number).collect();
                    return Ok((history, false));
                }
                Err(other) => return Err(other),
            };
            for entry in page.entries {
                history.push(entry);
            }
        }
        history.dirty_from = None;
        Ok((history, true))
    }
    /// Writes the pages that changed, then removes those that are left over: a page that is written anew is never missing in
    /// between, so that a crash loses no entry.
    pub fn save(&mut self, directory: &Path, chain: ChainId) -> Result<(), WalletError> {
        let pages = self.page_numbers();
        let begin = self.dirty_from.map_or(pages.end, |n| n / PAGE_ENTRY_COUNT);
        for number in pages.clone().filter(|n| *n >= begin) {
            let start = (number * PAGE_ENTRY_COUNT).saturating_sub(self.first) as usize;
            let entries = self.entries.iter().skip(start);
            let page = Page {
                chain,
                entries: entries.take(PAGE_ENTRY_COUNT as usize).copied().collect(),
            };
            files::write_framed(&page_path(directory, number), &KIND, &page, Sync::System)?;
        }
        self.dirty_from = None;
        while let Some(number) = self.stale_pages.pop() {
            if !pages.contains(&number) {
                files::remove(&page_path(directory, number))?;
            }
        }
        Ok(())
    }
}

fn page_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}"))
}

fn page_files(directory: &Path) -> Result<Vec<u64>, WalletError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(WalletError::io(directory))? {
        let entry = entry.map_err(WalletError::io(directory))?;
        let name = entry.file_name();
        numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Scratch;
    use super::*;
    use crate::crypto::hash::Hash;

    fn entry(number: u64) -> HistoryEntry {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        HistoryEntry {
            txid: Txid(Hash(bytes)),
            height: Height(number / 2),
            time: WallMs(number),
            debit: Amount(number),
            credit: Amount(1),
            fee: None,
            coinbase: false,
        }
    }

    #[test]
    fn pages_come_back_in_order_and_are_bounded() {
        let scratch = Scratch::new();
        let chain = ChainId(Hash([1; 32]));
        let mut history = History::default();
        for number in 0..2_500 {
            history.push(entry(number));
        }
        history.save(&scratch.0, chain).unwrap();
        history.push(entry(2_500));
        history.push(HistoryEntry {
            height: Height(9),
            ..entry(3)
        });
        history.save(&scratch.0, chain).unwrap();
        let (again, whole) = History::load(&scratch.0, chain).unwrap();
        assert!(whole && again.len() == 2_501);
        assert_eq!(again.page(0, 2), [entry(2_500), entry(2_499)]);
        assert_eq!(again.get(&entry(3).txid).unwrap().height, Height(9));
        assert_eq!(again.since(Height(1_249)), [entry(2_500)]);
        for number in 2_501..HISTORY_COUNT_MAX as u64 + 1 {
            history.push(entry(number));
        }
        assert!(history.len() <= HISTORY_COUNT_MAX, "bounded");
        assert!(
            history.get(&entry(0).txid).is_none(),
            "the oldest page went"
        );
        history.save(&scratch.0, chain).unwrap();
        let (again, whole) = History::load(&scratch.0, chain).unwrap();
        assert!(whole && again.page(0, 9) == history.page(0, 9) && again.len() == history.len());
    }

    #[test]
    fn a_crash_while_a_page_is_written_anew_loses_no_entry() {
        let scratch = Scratch::new();
        let chain = ChainId(Hash([1; 32]));
        let mut history = History::default();
        for number in 0..1_500 {
            history.push(entry(number));
        }
        history.save(&scratch.0, chain).unwrap();
        assert_eq!(history.retain(|e| e.height < Height(500)).len(), 500);
        // The end comes before the page is written.
        let beside = scratch.0.join("0000000000.new");
        std::fs::create_dir(&beside).unwrap();
        assert!(history.save(&scratch.0, chain).is_err());
        let (again, whole) = History::load(&scratch.0, chain).unwrap();
        assert!(whole && again.len() == 1_500, "what was there is there");
        std::fs::remove_dir(&beside).unwrap();
        history.save(&scratch.0, chain).unwrap();
        let (again, whole) = History::load(&scratch.0, chain).unwrap();
        assert!(whole && again.len() == 1_000, "what was taken out is out");
        assert_eq!(again.page(0, 1), [entry(999)]);
    }

    #[test]
    fn damaged_and_foreign_pages_are_left_behind() {
        let scratch = Scratch::new();
        let chain = ChainId(Hash([1; 32]));
        let mut history = History::default();
        for number in 0..2_000 {
            history.push(entry(number));
        }
        history.save(&scratch.0, chain).unwrap();
        std::fs::write(page_path(&scratch.0, 1), b"noise").unwrap();
        let (kept, whole) = History::load(&scratch.0, chain).unwrap();
        assert!(!whole && kept.len() == 1_024);
        let (foreign, whole) = History::load(&scratch.0, ChainId::default()).unwrap();
        assert!(!whole && foreign.is_empty());
    }
}
