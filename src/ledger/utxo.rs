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

/// Digests of the UTXO set. Clones share everything.
#[derive(Clone)]
pub struct Utxo {
    buckets: Arc<Vec<Arc<LtHash>>>,
    leaves: Arc<Vec<Hash>>,
}

fn leaf(bucket: &LtHash) -> Hash {
    STATE_TREE.leaf(&[&bucket.digest().0])
}

impl Default for Utxo {
    /// Of no coins.
    fn default() -> Self {
        let empty = Arc::new(LtHash::default());
        Utxo {
            leaves: Arc::new(vec![leaf(&empty); BUCKET_COUNT]),
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
        let leaves = buckets.iter().map(leaf).collect();
        Some(Utxo {
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
        (after, touched.into_iter().collect())
    }
}
