//! The commitment to all coins: 256 LtHash digests, each with the leaf it gives to `state_root` kept beside it, so that a
//! block costs what it changes and not what exists (L11).

use crate::crypto::hash::Hash;
use crate::crypto::lthash::LtHash;
use crate::crypto::merkle::STATE_TREE;
use crate::ledger::coins::{Coin, bucket_of, coin_element};
use crate::types::ids::OutPoint;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Buckets of the UTXO digest.
pub const BUCKET_COUNT: usize = 256;

/// Leaves under each of the tops that are kept.
const PART: usize = 16;

/// Digests of the UTXO set. Clones share everything.
#[derive(Clone)]
pub struct Utxo {
    buckets: Arc<Vec<Arc<LtHash>>>,
    leaves: Arc<Vec<Hash>>,
    /// The node of `state_root` above each [`PART`] leaves: a block hashes again only what is above what it changes.
    tops: [Hash; BUCKET_COUNT / PART],
}

fn tops(leaves: &[Hash]) -> [Hash; BUCKET_COUNT / PART] {
    let mut tops = [Hash::ZERO; BUCKET_COUNT / PART];
    for (top, part) in tops.iter_mut().zip(leaves.chunks(PART)) {
        *top = STATE_TREE.top(part);
    }
    tops
}

fn leaf(bucket: &LtHash) -> Hash {
    STATE_TREE.leaf(&[&bucket.digest().0])
}

impl Default for Utxo {
    /// Of no coins.
    fn default() -> Self {
        let empty = Arc::new(LtHash::default());
        let leaves = vec![leaf(&empty); BUCKET_COUNT];
        Utxo {
            tops: tops(&leaves),
            leaves: Arc::new(leaves),
            buckets: Arc::new(vec![empty; BUCKET_COUNT]),
        }
    }
}

impl PartialEq for Utxo {
    fn eq(&self, other: &Utxo) -> bool {
        self.leaves == other.leaves
    }
}

impl Eq for Utxo {}

impl std::fmt::Debug for Utxo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Utxo({:?})", STATE_TREE.root(&self.leaves))
    }
}

impl Utxo {
    /// Digests as stored, one for each bucket in order; `None` if there are not exactly 256.
    pub fn from_buckets(buckets: Vec<LtHash>) -> Option<Utxo> {
        if buckets.len() != BUCKET_COUNT {
            return None;
        }
        let leaves: Vec<Hash> = buckets.iter().map(leaf).collect();
        Some(Utxo {
            tops: tops(&leaves),
            buckets: Arc::new(buckets.into_iter().map(Arc::new).collect()),
            leaves: Arc::new(leaves),
        })
    }
    /// One bucket's digest.
    pub fn bucket(&self, index: u8) -> &LtHash {
        &self.buckets[usize::from(index)]
    }
    /// The 256 leaves of `state_root`.
    pub fn leaves(&self) -> &[Hash] {
        &self.leaves
    }
    /// The node above the 256 leaves.
    pub fn top(&self) -> Hash {
        STATE_TREE.top(&self.tops)
    }
    /// The digests after `created` came and `spent` went, and which buckets changed, ascending.
    pub fn changed(
        &self,
        created: &[(OutPoint, Coin)],
        spent: &[(OutPoint, Coin)],
    ) -> (Utxo, Vec<u8>) {
        let mut after = self.clone();
        let buckets = Arc::make_mut(&mut after.buckets);
        let mut touched = BTreeSet::new();
        for (outpoint, coin) in created {
            let bucket = bucket_of(outpoint);
            touched.insert(bucket);
            Arc::make_mut(&mut buckets[usize::from(bucket)])
                .add_element(&coin_element(outpoint, coin));
        }
        for (outpoint, coin) in spent {
            let bucket = bucket_of(outpoint);
            touched.insert(bucket);
            Arc::make_mut(&mut buckets[usize::from(bucket)])
                .subtract_element(&coin_element(outpoint, coin));
        }
        let leaves = Arc::make_mut(&mut after.leaves);
        for bucket in &touched {
            leaves[usize::from(*bucket)] = leaf(&buckets[usize::from(*bucket)]);
        }
        let parts: BTreeSet<usize> = touched.iter().map(|b| usize::from(*b) / PART).collect();
        for part in parts {
            after.tops[part] = STATE_TREE.top(&leaves[part * PART..(part + 1) * PART]);
        }
        (after, touched.into_iter().collect())
    }
}
