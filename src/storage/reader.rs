//! Reading the ledger: every answer from one moment, on any thread.
//!
//! Inputs: a store. Outputs: coins, blocks, certificates, places of transactions, block ids. Never: holds a view of the
//! disk longer than the caller holds the [`Snapshot`], or hands out pages of many entries at once without a limit.

use super::env::{Read, Scan, Table};
use super::error::StorageError;
use super::schema::*;
use crate::crypto::hash::Hash;
use crate::crypto::lthash::{LANE_BYTES, LtHash};
use crate::ledger::coins::{Coin, CoinList};
use crate::ledger::report::{SlotFigures, SlotOrder, SlotOutcome};
use crate::ledger::state::{Part, State, Tip};
use crate::ledger::undo::Undo;
use crate::ledger::utxo::BUCKET_COUNT;
use crate::types::address::Program;
use crate::types::block::{Block, Certificate, Header};
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;

/// A consistent view of the ledger at one tip. Keep it short: space freed after it is not reused while it lives.
pub struct Snapshot<'e> {
    pub(super) read: Read<'e>,
    pub(super) dir: &'e Path,
}

impl Snapshot<'_> {
    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        what: &str,
        bytes: &[u8],
    ) -> Result<T, StorageError> {
        let value = codec::decode(bytes, VALUE_BYTES_MAX);
        value.map_err(|e| self.corrupt(format!("{what}: {e}")))
    }

    pub(super) fn corrupt(&self, detail: impl Into<String>) -> StorageError {
        StorageError::corrupt(self.dir, detail)
    }

    fn value<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
        what: &str,
    ) -> Result<Option<T>, StorageError> {
        match self.read.get(table, key)? {
            Some(bytes) => self.decode(what, bytes).map(Some),
            None => Ok(None),
        }
    }

    fn block_id_in(&self, bytes: &[u8]) -> Result<BlockId, StorageError> {
        let id = bytes.try_into();
        id.map(|id| BlockId(Hash(id)))
            .map_err(|_| self.corrupt("a block id has another size"))
    }

    /// The part of the state that every block changes.
    pub fn tip(&self) -> Result<Tip, StorageError> {
        let tip = self.value(PARTS, &part_key(Part::Tip), "tip")?;
        tip.ok_or_else(|| self.corrupt("the tip is missing"))
    }

    /// The whole state at the tip, read from its parts.
    pub fn state(&self, genesis: &Genesis) -> Result<State, StorageError> {
        let mut buckets = Vec::with_capacity(BUCKET_COUNT);
        self.read.scan(BUCKETS, &[], |_, lanes| {
            let lanes: &[u8; LANE_BYTES] = lanes
                .try_into()
                .map_err(|_| self.corrupt("a bucket has another size"))?;
            buckets.push(LtHash::from_bytes(lanes));
            Ok(Scan::More)
        })?;
        let mut parts = Vec::new();
        for part in Part::ALL {
            let bytes = self.read.get(PARTS, &part_key(part))?;
            parts.push((part, bytes.map(<[u8]>::to_vec)));
        }
        let take = |part| {
            let entry = parts.iter_mut().find(|(p, _)| *p == part);
            entry.and_then(|(_, bytes)| bytes.take())
        };
        State::from_parts(genesis, take, buckets).map_err(|e| self.corrupt(e.to_string()))
    }

    /// The coin at `outpoint`, if it is unspent.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        self.value(COINS, &outpoint_key(outpoint), "coin")
    }

    /// Coins in order of outpoint, at most `limit`, those after `after`.
    pub fn coins(&self, after: Option<OutPoint>, limit: usize) -> Result<CoinList, StorageError> {
        let mut out = Vec::new();
        let from = after.map(|o| outpoint_key(&o));
        let from = from.as_ref().map_or(&[][..], |key| &key[..]);
        self.read.scan(COINS, from, |key, value| {
            if out.len() == limit {
                return Ok(Scan::Stop);
            }
            let outpoint = self.outpoint_in(key)?;
            if Some(outpoint) != after {
                out.push((outpoint, self.decode("coin", value)?));
            }
            Ok(Scan::More)
        })?;
        Ok(out)
    }

    pub(super) fn outpoint_in(&self, key: &[u8]) -> Result<OutPoint, StorageError> {
        read_outpoint(key).ok_or_else(|| self.corrupt("an outpoint key has another size"))
    }

    /// Coins of `program` in order of outpoint, at most `limit`, those after `after`: pass the last outpoint of a page to
    /// get the next one.
    pub fn coins_of(
        &self,
        program: &Program,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<CoinList, StorageError> {
        let mut out: CoinList = Vec::new();
        let prefix = owner_prefix(program);
        let from = after.map(|o| owner_key(program, &o));
        let from = from.as_ref().map_or(&prefix[..], |key| &key[..]);
        self.read.scan(OWNERS, from, |key, _| {
            let Some(rest) = key.strip_prefix(&prefix[..]) else {
                return Ok(Scan::Stop);
            };
            if out.len() == limit {
                return Ok(Scan::Stop);
            }
            let outpoint = self.outpoint_in(rest)?;
            if Some(outpoint) != after {
                let coin = self.coin(&outpoint)?;
                let missing = || self.corrupt(format!("the owner index names no coin {outpoint}"));
                out.push((outpoint, coin.ok_or_else(missing)?));
            }
            Ok(Scan::More)
        })?;
        Ok(out)
    }

    /// Blocks at this height and below are not kept, but for the headers and certificates of slot blocks (F4, F6).
    pub fn base(&self) -> Result<Height, StorageError> {
        let Some(bytes) = self.read.get(META, META_BASE)? else {
            return Ok(Height(0));
        };
        read_height(bytes).ok_or_else(|| self.corrupt("the base has another size"))
    }

    /// Header and certificate of the slot block at a height. Kept for ever.
    pub fn slot_header(
        &self,
        height: Height,
    ) -> Result<Option<(Header, Certificate)>, StorageError> {
        self.value(SLOTS, &height_key(height), "slot header")
    }

    /// Slot headers with their certificates from a height on, ascending, until `take` has had enough.
    pub fn slot_headers(
        &self,
        from: Height,
        mut take: impl FnMut(Header, Certificate) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        self.read.scan(SLOTS, &height_key(from), |_, value| {
            let (header, certificate) = self.decode("slot header", value)?;
            Ok(match take(header, certificate)? {
                true => Scan::More,
                false => Scan::Stop,
            })
        })
    }

    /// The validator set with this hash, if it was ever in force.
    pub fn validator_set(&self, hash: &Hash) -> Result<Option<ValidatorSet>, StorageError> {
        self.value(SETS, &hash.0, "validator set")
    }

    /// A block and its certificate as a Block frame holds them, without looking into either.
    pub fn certified_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StorageError> {
        let key = height_key(height);
        let block = self.read.get(BLOCKS, &key)?;
        let certificate = self.read.get(CERTIFICATES, &key)?;
        Ok(block.zip(certificate).map(|(b, c)| [b, c].concat()))
    }

    /// The header of a height; genesis has none, nor have blocks at or below the base but slot blocks.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StorageError> {
        let Some(bytes) = self.read.get(BLOCKS, &height_key(height))? else {
            return Ok(self.slot_header(height)?.map(|(header, _)| header));
        };
        let header = bytes.get(..HEADER_BYTES);
        let header = header.ok_or_else(|| self.corrupt("a block is cut short"))?;
        self.decode("header", header).map(Some)
    }

    /// The block of a height; genesis has none.
    pub fn block(&self, height: Height) -> Result<Option<Arc<Block>>, StorageError> {
        let block = self.value(BLOCKS, &height_key(height), "block")?;
        Ok(block.map(Arc::new))
    }

    /// The certificate of a height; genesis has none, nor have blocks at or below the base but slot blocks.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StorageError> {
        match self.value(CERTIFICATES, &height_key(height), "certificate")? {
            Some(certificate) => Ok(Some(certificate)),
            None => Ok(self
                .slot_header(height)?
                .map(|(_, certificate)| certificate)),
        }
    }

    /// How to take the block of a height back; of the last `max_reorg` blocks.
    pub fn undo(&self, height: Height) -> Result<Option<Undo>, StorageError> {
        self.value(UNDO, &height_key(height), "undo")
    }

    /// What the slot blocks from `from` on did, ascending without a gap, at most `limit`.
    pub fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, StorageError> {
        let mut out: Vec<SlotOutcome> = Vec::new();
        let mut order: Option<(SlotIndex, Arc<SlotOrder>)> = None;
        self.read.scan(FIGURES, &slot_key(from), |_, value| {
            if out.len() == limit {
                return Ok(Scan::Stop);
            }
            let (figures, at): (SlotFigures, SlotIndex) = self.decode("slot", value)?;
            let follows = out
                .last()
                .is_none_or(|o| o.figures.index.next() == figures.index);
            if !follows {
                return Ok(Scan::Stop);
            }
            let known = order.as_ref().filter(|(known, _)| *known == at);
            let shared = match known {
                Some((_, shared)) => shared.clone(),
                None => {
                    let found = self.value(ORDERS, &slot_key(at), "order")?;
                    let missing = || self.corrupt(format!("the order of slot {at} is missing"));
                    Arc::new(found.ok_or_else(missing)?)
                }
            };
            order = Some((at, shared.clone()));
            out.push(SlotOutcome {
                figures,
                order: shared,
            });
            Ok(Scan::More)
        })?;
        Ok(out)
    }

    /// The id of the block of a height; of height 0 the chain id.
    pub fn block_id(&self, height: Height) -> Result<Option<BlockId>, StorageError> {
        let bytes = self.read.get(HISTORY, &height_key(height))?;
        bytes.map(|b| self.block_id_in(b)).transpose()
    }

    /// Ids of the blocks of `from` and above, at most `limit`: the leaves of history_root, for its proofs (L13).
    pub fn history(&self, from: Height, limit: usize) -> Result<Vec<BlockId>, StorageError> {
        let mut out = Vec::new();
        self.read.scan(HISTORY, &height_key(from), |_, id| {
            if out.len() == limit {
                return Ok(Scan::Stop);
            }
            out.push(self.block_id_in(id)?);
            Ok(Scan::More)
        })?;
        Ok(out)
    }

    /// The height of a block.
    pub fn height_of(&self, block: &BlockId) -> Result<Option<Height>, StorageError> {
        let Some(bytes) = self.read.get(HEIGHTS, &block.0.0)? else {
            return Ok(None);
        };
        let height = read_height(bytes);
        height
            .ok_or_else(|| self.corrupt("a height has another size"))
            .map(Some)
    }

    /// Where a transaction stands: height of its block and index in it.
    pub fn tx(&self, txid: &Txid) -> Result<Option<(Height, u32)>, StorageError> {
        let Some(bytes) = self.read.get(TXIDS, &txid.0.0)? else {
            return Ok(None);
        };
        let position = read_position(bytes);
        position
            .ok_or_else(|| self.corrupt("a position has another size"))
            .map(Some)
    }
}
