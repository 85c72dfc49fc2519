//! Merkle trees (L2): binary, leaves and nodes hashed in different contexts, an odd node promoted (never duplicated,
//! CVE-2012-2459), the root binding the number of leaves. And a Merkle mountain range for `history_root` (L13).

use super::hash::{Domain, Hash, hash};
use serde::{Deserialize, Serialize};

/// The contexts of one kind of tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// Context of leaves.
    pub leaf: Domain,
    /// Context of inner nodes.
    pub node: Domain,
    /// Context of the root.
    pub root: Domain,
}

/// Transactions of a block.
pub const TX_TREE: Tree = Tree {
    leaf: Domain::TxLeaf,
    node: Domain::TxNode,
    root: Domain::TxRoot,
};
/// Attestations and evidence of a slot block.
pub const SLOT_TREE: Tree = Tree {
    leaf: Domain::SlotLeaf,
    node: Domain::SlotNode,
    root: Domain::SlotRoot,
};
/// Members of a validator set.
pub const VALIDATOR_TREE: Tree = Tree {
    leaf: Domain::ValidatorLeaf,
    node: Domain::ValidatorNode,
    root: Domain::ValidatorRoot,
};
/// Parts of the ledger's state.
pub const STATE_TREE: Tree = Tree {
    leaf: Domain::StateLeaf,
    node: Domain::StateNode,
    root: Domain::StateRoot,
};
/// Block ids of the past.
pub const HISTORY_TREE: Tree = Tree {
    leaf: Domain::HistoryLeaf,
    node: Domain::HistoryNode,
    root: Domain::HistoryRoot,
};

impl Tree {
    /// The hash of a leaf's content.
    pub fn leaf(&self, parts: &[&[u8]]) -> Hash {
        hash(self.leaf, parts)
    }
    fn node(&self, left: &Hash, right: &Hash) -> Hash {
        hash(self.node, &[&left.0, &right.0])
    }
    fn seal(&self, top: &Hash, count: u64) -> Hash {
        hash(self.root, &[&top.0, &count.to_le_bytes()])
    }

    /// The root over leaf hashes; of an empty list the root of 32 zero bytes and count 0.
    pub fn root(&self, leaves: &[Hash]) -> Hash {
        self.seal(&self.top(leaves), leaves.len() as u64)
    }

    /// The node above all of `nodes`, which are leaves or tops of full trees of one size: what the root seals.
    pub fn top(&self, nodes: &[Hash]) -> Hash {
        let mut level = nodes.to_vec();
        while level.len() > 1 {
            level = self.next_level(&level);
        }
        level.first().copied().unwrap_or(Hash::ZERO)
    }

    /// The root over a full tree of `count` leaves (a power of two) with the top `full`, followed by at most as many more
    /// leaves, at least one.
    pub fn root_beyond(&self, full: &Hash, count: u64, more: &[Hash]) -> Hash {
        let top = self.node(full, &self.top(more));
        self.seal(&top, count + more.len() as u64)
    }

    fn next_level(&self, level: &[Hash]) -> Vec<Hash> {
        level
            .chunks(2)
            .map(|pair| {
                if let [l, r] = pair {
                    self.node(l, r)
                } else {
                    pair[0]
                }
            })
            .collect()
    }

    /// The path from leaf `index` to the root, `None` if there is no such leaf.
    pub fn proof(&self, leaves: &[Hash], index: usize) -> Option<MerkleProof> {
        if index >= leaves.len() {
            return None;
        }
        let (mut level, mut at, mut path) = (leaves.to_vec(), index, Vec::new());
        while level.len() > 1 {
            if let Some(sibling) = level.get(at ^ 1) {
                path.push(*sibling);
            }
            level = self.next_level(&level);
            at /= 2;
        }
        Some(MerkleProof {
            index: index as u64,
            count: leaves.len() as u64,
            path,
        })
    }

    /// The root that `proof` leads `leaf` to, `None` if the path has another length than its index and count need.
    pub fn root_from(&self, leaf: &Hash, proof: &MerkleProof) -> Option<Hash> {
        if proof.index >= proof.count {
            return None;
        }
        let (mut at, mut width, mut top) = (proof.index, proof.count, *leaf);
        let mut path = proof.path.iter();
        while width > 1 {
            if at ^ 1 < width {
                let sibling = path.next()?;
                top = if at & 1 == 0 {
                    self.node(&top, sibling)
                } else {
                    self.node(sibling, &top)
                };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none().then(|| self.seal(&top, proof.count))
    }
}

/// The siblings between a leaf and its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerkleProof {
    /// Position of the leaf.
    pub index: u64,
    /// Leaves of the tree.
    pub count: u64,
    /// Siblings from the leaf upwards; levels at which the node is promoted have none.
    pub path: Vec<Hash>,
}

/// A Merkle mountain range: append-only, log2(n) peaks. Peaks stand for perfect trees, the largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mmr {
    /// Leaves appended so far.
    pub count: u64,
    /// One peak for each bit of `count`, most significant first.
    pub peaks: Vec<Hash>,
}

impl Mmr {
    /// Appends a leaf hash.
    pub fn push(&mut self, tree: &Tree, leaf: Hash) {
        let mut top = leaf;
        let mut bits = self.count;
        while bits & 1 == 1 {
            // Each trailing one bit of the count is a peak of the size that `top` has now.
            if let Some(left) = self.peaks.pop() {
                top = tree.node(&left, &top);
            }
            bits >>= 1;
        }
        self.peaks.push(top);
        self.count += 1;
    }

    /// The root: peaks folded from the smallest to the largest, bound to the count. Equal to [`Tree::root`] of all leaves.
    pub fn root(&self, tree: &Tree) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let top = match peaks.next() {
            None => Hash::ZERO,
            Some(last) => peaks.fold(*last, |right, left| tree.node(left, &right)),
        };
        tree.seal(&top, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n)
            .map(|i| TX_TREE.leaf(&[&(i as u64).to_le_bytes()]))
            .collect()
    }

    #[test]
    fn the_root_binds_the_count_and_never_duplicates() {
        let three = leaves(3);
        let mut four = three.clone();
        four.push(three[2]);
        assert_ne!(
            TX_TREE.root(&three),
            TX_TREE.root(&four),
            "L2: CVE-2012-2459"
        );
        assert_ne!(TX_TREE.root(&[]), TX_TREE.root(&[Hash::ZERO]));
    }

    #[test]
    fn a_tree_made_of_parts_has_the_same_root() {
        for more in 1..=16 {
            let all = leaves(16 + more);
            let tops: Vec<Hash> = all[..16].chunks(4).map(|part| TX_TREE.top(part)).collect();
            let full = TX_TREE.top(&tops);
            assert_eq!(
                TX_TREE.root_beyond(&full, 16, &all[16..]),
                TX_TREE.root(&all)
            );
        }
    }

    proptest! {
        #[test]
        fn every_leaf_has_a_proof_and_no_other(n in 1usize..70, pick in 0usize..70, flip in 0usize..8) {
            let all = leaves(n);
            let index = pick % n;
            let root = TX_TREE.root(&all);
            let proof = TX_TREE.proof(&all, index).unwrap();
            prop_assert_eq!(TX_TREE.root_from(&all[index], &proof), Some(root));
            prop_assert_ne!(TX_TREE.root_from(&Hash([9; 32]), &proof), Some(root));
            let mut longer = proof.clone();
            longer.path.push(Hash::ZERO);
            prop_assert_eq!(TX_TREE.root_from(&all[index], &longer), None);
            if !proof.path.is_empty() {
                let mut wrong = proof;
                let at = flip % wrong.path.len();
                wrong.path[at].0[0] ^= 1;
                prop_assert_ne!(TX_TREE.root_from(&all[index], &wrong), Some(root));
            }
        }

        #[test]
        fn a_mountain_range_has_the_root_of_its_leaves(n in 0usize..200) {
            let all = leaves(n);
            let mut mmr = Mmr::default();
            all.iter().for_each(|leaf| mmr.push(&TX_TREE, *leaf));
            prop_assert_eq!(mmr.root(&TX_TREE), TX_TREE.root(&all));
            prop_assert_eq!(mmr.peaks.len() as u32, (n as u64).count_ones());
        }
    }
}
