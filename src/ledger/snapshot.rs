//! A snapshot (F4): the whole state after a slot block, in pieces of which each can be checked against that block's header.
//!
//! Inputs: a state and the history below it; pieces from anywhere. Outputs: pieces, or a state. It never believes a piece
//! that the header does not commit to: state_root covers buckets of coins, registry, leaders, slot table and supply;
//! validators_hash and next_validators_hash the two sets; history_root the history below the block. What a header does not
//! commit to is derived: the value and number of coins are counted, time, round and era stand in the header.

use crate::base::bounded::BoundedVec;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::lthash::LtHash;
use crate::crypto::merkle::{HISTORY_TREE, Mmr, STATE_TREE};
use crate::ledger::coins::{COIN_ELEMENT_BYTES, Coin, bucket_of, coin_element};
use crate::ledger::era::Eras;
use crate::ledger::leader::Leaders;
use crate::ledger::registry::{Registry, SealedRegistry};
use crate::ledger::slots::SlotTable;
use crate::ledger::state::{Chain, State, Supply, Tip};
use crate::ledger::utxo::{BUCKET_COUNT, Utxo};
use crate::types::amount::Amount;
use crate::types::block::Header;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Leaves of state_root (L11).
pub const LEAF_COUNT: usize = BUCKET_COUNT + 4;
/// Coins of one chunk: the last chunk of a bucket may hold fewer.
pub const CHUNK_COIN_COUNT: usize = 12_000;
/// Bytes of one full chunk.
pub const CHUNK_BYTES: usize = CHUNK_COIN_COUNT * COIN_ELEMENT_BYTES;
/// The rest of the state, encoded, at most.
pub const REST_BYTES_MAX: usize = 64 << 20;

/// Why a piece is not of the snapshot that the header commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not 260 leaves, or they do not hash to state_root.
    #[error("the leaves are not those of the header's state_root")]
    Leaves,
    /// Coins out of order, of another bucket, or malformed.
    #[error("bucket {0} holds what is no coin of it, or not in order")]
    Form(u8),
    /// Coins that do not have the digest of their bucket.
    #[error("the coins of bucket {0} do not have its digest")]
    Digest(u8),
    /// The rest does not decode.
    #[error("the rest of the state does not decode")]
    Encoding,
    /// A part of the rest that the header commits to otherwise.
    #[error("the {0} is not the one that the header commits to")]
    Part(&'static str),
    /// Amounts that do not add up (L10).
    #[error("the supply does not add up")]
    Supply,
}

/// A snapshot's table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Header of the slot block.
    pub header: Header,
    /// Leaves of its state_root.
    pub leaves: BoundedVec<Hash, LEAF_COUNT>,
    /// Coins of each bucket.
    pub counts: BoundedVec<u64, BUCKET_COUNT>,
    /// Bytes of the rest of the state.
    pub rest_bytes: u64,
}

impl Contents {
    /// Whether this is the contents of the state that its header commits to, within bounds.
    pub fn check(&self) -> Result<(), SnapshotError> {
        let form = self.leaves.len() == LEAF_COUNT
            && self.counts.len() == BUCKET_COUNT
            && self.rest_bytes <= REST_BYTES_MAX as u64
            && !self.header.slot_root.is_zero();
        if !form || STATE_TREE.root(&self.leaves) != self.header.state_root {
            return Err(SnapshotError::Leaves);
        }
        Ok(())
    }

    /// Chunks of a bucket; of the rest for `bucket` 256.
    pub fn chunks(&self, bucket: u16) -> u64 {
        self.bytes(bucket).div_ceil(CHUNK_BYTES as u64)
    }

    /// Bytes of a bucket; of the rest for `bucket` 256.
    pub fn bytes(&self, bucket: u16) -> u64 {
        let count = self.counts.get(usize::from(bucket));
        count.map_or(self.rest_bytes, |count| {
            count.saturating_mul(COIN_ELEMENT_BYTES as u64)
        })
    }

    /// Coins of all buckets.
    pub fn coins(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A leaf of state_root.
    pub fn leaf(&self, index: usize) -> Hash {
        self.leaves.get(index).copied().unwrap_or_default()
    }
}

/// The part of the state that is no coins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    supply: Supply,
    /// Ids of all blocks below the slot block.
    history: Mmr,
    validators: ValidatorSet,
    last_validators: ValidatorSet,
    registry: Registry,
    leaders: Leaders,
    slots: SlotTable,
}

impl Rest {
    /// Of the state after a slot block; `below` is the history before it. `None` at blocks of which no snapshot can be made:
    /// where the rule set changes, and while evidence of a fork is due (B6), which no header commits to.
    pub fn of(state: &State, below: &Mmr) -> Option<Rest> {
        let quiet = state.tip.branch == state.tip.last_branch && *state.eras == Eras::default();
        quiet.then(|| Rest {
            supply: state.tip.supply,
            history: below.clone(),
            validators: ValidatorSet::clone(&state.validators),
            last_validators: ValidatorSet::clone(&state.last_validators),
            registry: Registry::clone(&state.registry.registry),
            leaders: Leaders::clone(&state.leaders),
            slots: SlotTable::clone(&state.slots),
        })
    }

    /// Reads and checks it against the contents, which were checked.
    pub fn read(bytes: &[u8], contents: &Contents) -> Result<Rest, SnapshotError> {
        let rest: Rest =
            codec::decode(bytes, REST_BYTES_MAX).map_err(|_| SnapshotError::Encoding)?;
        let header = &contents.header;
        let leaf = |hash: Hash| STATE_TREE.leaf(&[&hash.0]);
        let supply = codec::hash_of(Domain::Supply, &rest.supply);
        let leaders = codec::hash_of(Domain::Leaders, &rest.leaders);
        let found = [
            ("registry", leaf(rest.registry.hash()), contents.leaf(256)),
            ("leader state", leaf(leaders), contents.leaf(257)),
            ("slot table", leaf(rest.slots.hash()), contents.leaf(258)),
            ("supply", leaf(supply), contents.leaf(259)),
            (
                "history",
                rest.history.root(&HISTORY_TREE),
                header.history_root,
            ),
            (
                "validator set",
                rest.last_validators.hash(),
                header.validators_hash,
            ),
            (
                "next validator set",
                rest.validators.hash(),
                header.next_validators_hash,
            ),
        ];
        match found.iter().find(|(_, found, wanted)| found != wanted) {
            Some((what, ..)) => Err(SnapshotError::Part(what)),
            None if rest.history.count != header.height.0 => Err(SnapshotError::Part("history")),
            None => Ok(rest),
        }
    }

    /// The state, when all buckets are there.
    pub fn restore(
        self,
        genesis: &Genesis,
        header: &Header,
        buckets: Vec<LtHash>,
        coins: Amount,
        coin_count: u64,
    ) -> Result<State, SnapshotError> {
        let id = header.id();
        let mut history = self.history;
        history.push(&HISTORY_TREE, HISTORY_TREE.leaf(&[&id.0.0]));
        let state = State {
            chain: Arc::new(Chain::of(genesis)),
            tip: Tip {
                height: header.height,
                block: id,
                time: header.time,
                round: header.round,
                era: header.era,
                // As of every block that a snapshot is made of.
                branch: header.branch,
                last_branch: header.branch,
                prev_slot_block: id,
                supply: self.supply,
                coins,
                coin_count,
                history,
            },
            validators_hash: header.next_validators_hash,
            validators: Arc::new(self.validators),
            last_validators: Arc::new(self.last_validators),
            registry: SealedRegistry::new(self.registry).ok_or(SnapshotError::Supply)?,
            leaders: Arc::new(self.leaders),
            slots: Arc::new(self.slots),
            utxo: Utxo::from_buckets(buckets).ok_or(SnapshotError::Leaves)?,
            eras: Arc::default(),
            next_era: None,
        };
        if state.root() != header.state_root {
            return Err(SnapshotError::Leaves);
        }
        if !state.supply_adds_up() {
            return Err(SnapshotError::Supply);
        }
        Ok(state)
    }
}

/// What a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its digest.
    pub digest: LtHash,
    /// Value of its coins.
    pub value: Amount,
    /// Their number.
    pub count: u64,
}

/// The coin that an element of a chunk stands for.
pub fn read_coin(element: &[u8]) -> Option<(OutPoint, Coin)> {
    let (outpoint, rest) = element.split_at_checked(36)?;
    let outpoint = OutPoint {
        txid: Txid(Hash(outpoint.get(..32)?.try_into().ok()?)),
        vout: u32::from_le_bytes(outpoint.get(32..)?.try_into().ok()?),
    };
    let coin: Coin = codec::decode(rest, COIN_ELEMENT_BYTES).ok()?;
    (coin_element(&outpoint, &coin) == *element).then_some((outpoint, coin))
}

/// Checks the coins of a bucket, given as its chunks in order: strictly ascending, of this bucket, with its leaf.
pub fn check_bucket<'a>(
    index: u8,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    leaf: Hash,
) -> Result<Bucket, SnapshotError> {
    let mut bucket = Bucket {
        digest: LtHash::default(),
        value: Amount::ZERO,
        count: 0,
    };
    let mut last = None;
    for chunk in chunks {
        if chunk.len() % COIN_ELEMENT_BYTES != 0 {
            return Err(SnapshotError::Form(index));
        }
        for element in chunk.chunks_exact(COIN_ELEMENT_BYTES) {
            let (outpoint, coin) = read_coin(element).ok_or(SnapshotError::Form(index))?;
            if bucket_of(&outpoint) != index || last.is_some_and(|last| outpoint <= last) {
                return Err(SnapshotError::Form(index));
            }
            last = Some(outpoint);
            let value = bucket.value.plus(coin.output.value);
            bucket.value = value.ok_or(SnapshotError::Supply)?;
            bucket.count += 1;
            bucket.digest.add_element(element);
        }
    }
    match STATE_TREE.leaf(&[&bucket.digest.digest().0]) == leaf {
        true => Ok(bucket),
        false => Err(SnapshotError::Digest(index)),
    }
}
