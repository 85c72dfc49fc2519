//! The wallet's addresses: which programs are ours and which key of the tree signs for each, labels, and keys prepared in
//! advance. Public keys are kept in the clear, so that a locked wallet still sees its money and can hand out addresses;
//! keys are made from the seed, so losing this file loses labels only.
//!
//! Receiving keys are numbered from 0 without gaps; `next` is the first not handed out. Change always returns to one key:
//! whatever is lost, two indexes find all money again.

use super::error::WalletError;
use super::files::{self, Kind, Sync};
use super::seed::{Chain, Node};
use crate::crypto::keys::PublicKey;
use crate::types::address::Program;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Receiving keys prepared beyond the last one handed out. Also how far ahead a restored wallet looks for payments.
pub const PREPARED_KEY_COUNT: usize = 100;
/// Receiving keys of a wallet.
pub const ADDRESS_COUNT_MAX: usize = 100_000;
/// Bytes of a label.
pub const LABEL_BYTES_MAX: usize = 255;
/// Labels, of own and foreign addresses.
pub const LABEL_COUNT_MAX: usize = 100_000;

const KIND: Kind = Kind {
    magic: b"TIMEADDR",
    version: 1,
    payload_bytes_max: 32
        + (ADDRESS_COUNT_MAX + PREPARED_KEY_COUNT) * 32
        + LABEL_COUNT_MAX * (36 + 8 + LABEL_BYTES_MAX),
};

/// Which key of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPath {
    /// Receiving or change.
    pub chain: Chain,
    /// Index on the chain.
    pub index: u32,
}

#[derive(Serialize, Deserialize)]
struct Doc {
    next: u32,
    change: PublicKey,
    receive: Vec<PublicKey>,
    labels: Vec<(Program, String)>,
}

/// The addresses of a wallet.
#[derive(Debug)]
pub struct AddressBook {
    own: BTreeMap<Program, KeyPath>,
    receive: Vec<PublicKey>,
    change: PublicKey,
    next: u32,
    labels: BTreeMap<Program, String>,
    dirty: bool,
}

/// The chain nodes of an unlocked wallet.
#[derive(Clone)]
pub struct ChainNodes {
    /// Node above the receiving keys.
    pub receive: Node,
    /// Node above the change key.
    pub change: Node,
}

impl AddressBook {
    /// The book of a new wallet.
    pub fn new(nodes: &ChainNodes) -> AddressBook {
        let change = nodes.change.child(0).secret_key().public();
        let mut book = AddressBook::build(change, Vec::new(), 0, BTreeMap::new());
        book.prepare(nodes);
        book
    }
    fn build(
        change: PublicKey,
        receive: Vec<PublicKey>,
        next: u32,
        labels: BTreeMap<Program, String>,
    ) -> AddressBook {
        let mut own = BTreeMap::new();
        for (index, key) in (0u32..).zip(&receive) {
            let chain = Chain::Receive;
            own.insert(Program::Key(*key), KeyPath { chain, index });
        }
        let chain = Chain::Change;
        own.insert(Program::Key(change), KeyPath { chain, index: 0 });
        AddressBook {
            own,
            receive,
            change,
            next,
            labels,
            dirty: true,
        }
    }
    /// Reads the book; `None` if there is no file.
    pub fn load(path: &Path) -> Result<Option<AddressBook>, WalletError> {
        let Some(doc) = files::read_framed::<Doc>(path, &KIND)? else {
            return Ok(None);
        };
        if doc.next as usize > doc.receive.len() {
            return Err(WalletError::corrupt(path, "more addresses than keys"));
        }
        let labels = doc.labels.into_iter().collect();
        let mut book = AddressBook::build(doc.change, doc.receive, doc.next, labels);
        book.dirty = false;
        Ok(Some(book))
    }
    /// Writes the book if it changed.
    pub fn save(&mut self, path: &Path, sync: Sync) -> Result<(), WalletError> {
        if !self.dirty {
            return Ok(());
        }
        let doc = Doc {
            next: self.next,
            change: self.change,
            receive: self.receive.clone(),
            labels: self.labels.iter().map(|(p, l)| (*p, l.clone())).collect(),
        };
        files::write_framed(path, &KIND, &doc, sync)?;
        self.dirty = false;
        Ok(())
    }
    /// Prepares keys up to [`PREPARED_KEY_COUNT`] beyond `next`.
    pub fn prepare(&mut self, nodes: &ChainNodes) {
        let wanted = self.next as usize + PREPARED_KEY_COUNT;
        while self.receive.len() < wanted {
            let index = self.receive.len() as u32;
            let key = nodes.receive.child(index).secret_key().public();
            let chain = Chain::Receive;
            self.own.insert(Program::Key(key), KeyPath { chain, index });
            self.receive.push(key);
            self.dirty = true;
        }
    }
    /// Whether the nodes are those this book was made from.
    pub fn belongs_to(&self, nodes: &ChainNodes) -> bool {
        nodes.change.child(0).secret_key().public() == self.change
    }
    /// Hands out the next receiving address.
    pub fn take_next(&mut self) -> Result<Program, WalletError> {
        if self.next as usize >= ADDRESS_COUNT_MAX {
            return Err(WalletError::Invalid(format!(
                "a wallet has at most {ADDRESS_COUNT_MAX} addresses: use some again, or create another wallet"
            )));
        }
        let key = self.receive.get(self.next as usize);
        let key = *key.ok_or(WalletError::NoPreparedKey)?;
        self.next += 1;
        self.dirty = true;
        Ok(Program::Key(key))
    }
    /// Takes back the address just handed out, when it could not be saved.
    pub fn give_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }
    /// Where our change goes.
    pub fn change(&self) -> Program {
        Program::Key(self.change)
    }
    /// The receiving program of an index, if its key is prepared.
    pub fn receiving(&self, index: usize) -> Option<Program> {
        self.receive.get(index).copied().map(Program::Key)
    }
    /// The key of a program of ours.
    pub fn path(&self, program: &Program) -> Option<KeyPath> {
        self.own.get(program).copied()
    }
    /// A prepared address was paid: it and all before it count as handed out (a restored wallet learns so what it gave).
    pub fn note_use(&mut self, path: KeyPath) {
        if path.chain == Chain::Receive && path.index >= self.next {
            self.next = path.index + 1;
            self.dirty = true;
        }
    }
    /// Programs that may hold money of ours, prepared ones too.
    pub fn programs(&self) -> impl Iterator<Item = (&Program, &KeyPath)> {
        self.own.iter()
    }
    /// Number of receiving addresses handed out.
    pub fn count(&self) -> u32 {
        self.next
    }
    /// Prepared keys left.
    pub fn prepared_count(&self) -> usize {
        self.receive.len() - self.next as usize
    }
    /// The label of an address.
    pub fn label(&self, program: &Program) -> &str {
        self.labels.get(program).map_or("", String::as_str)
    }
    /// All labels.
    pub fn labels(&self) -> &BTreeMap<Program, String> {
        &self.labels
    }
    /// Labels an address, ours or not; an empty label removes it.
    pub fn set_label(&mut self, program: Program, label: &str) -> Result<(), WalletError> {
        if label.len() > LABEL_BYTES_MAX {
            return Err(WalletError::Invalid(format!(
                "a label has at most {LABEL_BYTES_MAX} bytes"
            )));
        }
        if label.is_empty() {
            self.dirty |= self.labels.remove(&program).is_some();
            return Ok(());
        }
        if self.labels.len() >= LABEL_COUNT_MAX && !self.labels.contains_key(&program) {
            return Err(WalletError::Invalid(format!(
                "a wallet has at most {LABEL_COUNT_MAX} labels"
            )));
        }
        self.labels.insert(program, label.to_string());
        self.dirty = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Scratch;
    use super::super::seed::{Seed, chain_node};
    use super::*;
    use crate::types::address::Network;

    fn nodes() -> ChainNodes {
        let master = Seed::from_entropy(&[3; 32]).unwrap().master().unwrap();
        ChainNodes {
            receive: chain_node(&master, Network::Dev, Chain::Receive),
            change: chain_node(&master, Network::Dev, Chain::Change),
        }
    }

    #[test]
    fn the_book_comes_back_and_goes_on_counting() {
        let scratch = Scratch::new();
        let path = scratch.0.join("addresses");
        assert!(AddressBook::load(&path).unwrap().is_none());
        let mut book = AddressBook::new(&nodes());
        let first = book.take_next().unwrap();
        book.set_label(first, "rent").unwrap();
        book.save(&path, Sync::Disk).unwrap();
        let mut again = AddressBook::load(&path).unwrap().unwrap();
        assert_eq!(again.label(&first), "rent");
        assert!(again.belongs_to(&nodes()));
        let second = again.take_next().unwrap();
        assert_ne!(first, second);
        let index = 0;
        let chain = Chain::Receive;
        assert_eq!(again.path(&first), Some(KeyPath { chain, index }));
    }

    #[test]
    fn without_keys_prepared_addresses_run_out_and_payments_ahead_count() {
        let mut book = AddressBook::new(&nodes());
        for _ in 0..PREPARED_KEY_COUNT {
            book.take_next().unwrap();
        }
        assert!(matches!(book.take_next(), Err(WalletError::NoPreparedKey)));
        book.prepare(&nodes());
        let chain = Chain::Receive;
        book.note_use(KeyPath { chain, index: 150 });
        assert_eq!(book.count(), 151);
        assert!(book.set_label(book.change(), &"x".repeat(256)).is_err());
    }
}
