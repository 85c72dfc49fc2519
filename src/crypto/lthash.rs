//! LtHash: a homomorphic hash of a set (Lewi, Kim, Maykov and Weis, "Securing Update Propagation with Homomorphic
//! Hashing", 2019), 1,024 lanes of u16 over the BLAKE3 XOF. Adding and removing elements commute, so the digest of the
//! UTXO set follows each coin in constant time (L11).

use super::hash::{Domain, Hash, Hasher};

/// Lanes of one digest.
pub const LANES: usize = 1_024;
/// Bytes of one digest's lanes as stored.
pub const LANE_BYTES: usize = 2 * LANES;

/// The sum of the lanes of a set's elements.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash(Box<[u16; LANES]>);

impl Default for LtHash {
    fn default() -> Self {
        LtHash(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for LtHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LtHash({:?})", self.digest())
    }
}

impl LtHash {
    /// The lanes of one element, given as the bytes that stand for it.
    pub fn of(element: &[u8]) -> LtHash {
        let mut bytes = [0; LANE_BYTES];
        Hasher::new(Domain::CoinLanes)
            .update(element)
            .fill(&mut bytes);
        LtHash::from_bytes(&bytes)
    }
    /// Adds the elements of another digest.
    pub fn add(&mut self, other: &LtHash) {
        for (lane, x) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_add(*x);
        }
    }
    /// Removes the elements of another digest.
    pub fn subtract(&mut self, other: &LtHash) {
        for (lane, x) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_sub(*x);
        }
    }
    /// Adds one element, given as in [`LtHash::of`], without allocating.
    pub fn add_element(&mut self, element: &[u8]) {
        self.change(element, u16::wrapping_add);
    }
    /// Removes one element, given as in [`LtHash::of`], without allocating.
    pub fn subtract_element(&mut self, element: &[u8]) {
        self.change(element, u16::wrapping_sub);
    }
    fn change(&mut self, element: &[u8], operation: impl Fn(u16, u16) -> u16) {
        let mut bytes = [0; LANE_BYTES];
        Hasher::new(Domain::CoinLanes)
            .update(element)
            .fill(&mut bytes);
        for (lane, pair) in self.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = operation(*lane, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }
    /// Little-endian lanes.
    pub fn to_bytes(&self) -> [u8; LANE_BYTES] {
        let mut out = [0; LANE_BYTES];
        for (slot, lane) in out.chunks_exact_mut(2).zip(self.0.iter()) {
            slot.copy_from_slice(&lane.to_le_bytes());
        }
        out
    }
    /// The digest stored as little-endian lanes.
    pub fn from_bytes(bytes: &[u8; LANE_BYTES]) -> LtHash {
        let mut lanes = LtHash::default();
        for (lane, pair) in lanes.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        lanes
    }
    /// 32 bytes that stand for the set.
    pub fn digest(&self) -> Hash {
        super::hash::hash(Domain::BucketDigest, &[&self.to_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes_addition() {
        let elements: Vec<LtHash> = (0u8..20).map(|i| LtHash::of(&[i])).collect();
        let (mut a, mut b) = (LtHash::default(), LtHash::default());
        elements.iter().for_each(|e| a.add(e));
        elements.iter().rev().for_each(|e| b.add(e));
        assert_eq!(a, b, "L11: a set has one digest");
        elements.iter().skip(1).for_each(|e| a.subtract(e));
        assert_eq!(a, elements[0]);
        a.add_element(&[7]);
        a.subtract_element(&[0]);
        assert_eq!(a, LtHash::of(&[7]), "in place as by addition");
        assert_eq!(LtHash::from_bytes(&a.to_bytes()), a);
        assert_ne!(a.digest(), LtHash::default().digest());
    }
}
