//! A bitmap over an ordered list: exact length, unused bits zero (M3). Bit i stands for the i-th entry of the list.

use serde::{Deserialize, Deserializer, Serialize};

use crate::base::bounded::BoundedBytes;
use crate::base::limits::REGISTRY_BITMAP_BYTES_MAX;

/// A bitmap of a stated number of bits. Its decoder refuses bytes that do not belong to that number or unused bits set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Bitmap {
    bits: u16,
    bytes: BoundedBytes<REGISTRY_BITMAP_BYTES_MAX>,
}

impl Bitmap {
    /// `bits` zero bits; more than the registry's bound are cut to it.
    pub fn new(bits: usize) -> Bitmap {
        let bits = bits.min(8 * REGISTRY_BITMAP_BYTES_MAX);
        let bytes = BoundedBytes::try_from(vec![0; bits.div_ceil(8)]).unwrap_or_default();
        Bitmap {
            bits: bits as u16,
            bytes,
        }
    }
    /// Number of bits.
    pub fn len(&self) -> usize {
        usize::from(self.bits)
    }
    /// Whether it has no bits at all.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }
    /// Bit `i`; false beyond the end.
    pub fn get(&self, i: usize) -> bool {
        i < self.len() && self.bytes[i / 8] >> (i % 8) & 1 == 1
    }
    /// Sets bit `i`; nothing happens beyond the end.
    pub fn set(&mut self, i: usize) {
        if i < self.len() {
            let mut bytes = self.bytes.to_vec();
            bytes[i / 8] |= 1 << (i % 8);
            self.bytes = BoundedBytes::try_from(bytes).unwrap_or_default();
        }
    }
    /// A bitmap of `bits` bits with those of `ones` set.
    pub fn from_ones(bits: usize, ones: impl IntoIterator<Item = usize>) -> Bitmap {
        let mut map = Bitmap::new(bits);
        let mut bytes = map.bytes.to_vec();
        for i in ones {
            if i < map.len() {
                bytes[i / 8] |= 1 << (i % 8);
            }
        }
        map.bytes = BoundedBytes::try_from(bytes).unwrap_or_default();
        map
    }
    /// Positions of the bits that are set, ascending.
    pub fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|i| self.get(*i))
    }
    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.bytes.iter().map(|b| b.count_ones() as usize).sum()
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        struct Raw {
            bits: u16,
            bytes: BoundedBytes<REGISTRY_BITMAP_BYTES_MAX>,
        }
        let Raw { bits, bytes } = Raw::deserialize(deserializer)?;
        let map = Bitmap { bits, bytes };
        let unused = map.len().div_ceil(8) * 8 - map.len();
        let stray = map
            .bytes
            .last()
            .is_some_and(|last| u32::from(*last).leading_zeros() - 24 < unused as u32);
        if map.bytes.len() != map.len().div_ceil(8) || stray {
            return Err(D::Error::custom(
                "a bitmap has exact length and zero unused bits",
            ));
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_encoding_per_bitmap(bits in 0usize..100, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let map = Bitmap::from_ones(bits, bytes.iter().map(|b| usize::from(*b)));
            prop_assert_eq!(codec::decode::<Bitmap>(&codec::encode(&map), 1024).unwrap(), map.clone());
            prop_assert_eq!(map.ones().count(), map.count());
            if let Ok(other) = codec::decode::<Bitmap>(&bytes, 1024) {
                prop_assert_eq!(codec::encode(&other), bytes, "L7");
            }
        }
    }

    #[test]
    fn unused_bits_must_be_zero() {
        let mut bytes = codec::encode(&Bitmap::from_ones(3, [0, 2]));
        *bytes.last_mut().unwrap() |= 8;
        assert!(codec::decode::<Bitmap>(&bytes, 64).is_err(), "M3");
    }
}
