//! The one canonical encoding for hash, wire and storage (L7): bincode 1.3, fixint, little endian, with a limit, trailing
//! bytes rejected. The only user of bincode. `encode(decode(b)) == b` for every accepted `b`: types hold no maps, no
//! floats, and their own decoders refuse what they would write differently.

use crate::crypto::hash::{Domain, Hash, Hasher};
use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not an encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed encoding: {0}")]
pub struct DecodeError(String);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .reject_trailing_bytes()
}

/// The encoding of `value`.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // PROOF: writing to a Vec cannot fail, and our types have no serializer that returns an error or an unknown length.
    options()
        .serialize(value)
        .expect("PROOF: encoding to memory has no failing path")
}

/// The size of the encoding of `value` in bytes.
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    // PROOF: as in `encode`; sizes are far below usize::MAX.
    options()
        .serialized_size(value)
        .expect("PROOF: encoding to memory has no failing path") as usize
}

/// The value that `bytes` encode, if they are its one encoding and at most `limit` bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError(format!(
            "{} bytes where at most {limit} are allowed",
            bytes.len()
        )));
    }
    options()
        .with_limit(limit as u64)
        .deserialize(bytes)
        .map_err(|e| DecodeError(e.to_string()))
}

/// The hash in `domain` of the encoding of `value`, without keeping the encoding.
pub fn hash_of<T: Serialize>(domain: Domain, value: &T) -> Hash {
    let mut hasher = Hasher::new(domain);
    // PROOF: the hasher's `write` always succeeds.
    options()
        .serialize_into(&mut hasher, value)
        .expect("PROOF: a hasher accepts every byte");
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bounded::{BoundedBytes, BoundedVec};

    #[test]
    fn trailing_bytes_and_limits_are_refused() {
        assert_eq!(encode(&7u32), [7, 0, 0, 0]);
        assert!(
            decode::<u32>(&[7, 0, 0, 0, 0], 8).is_err(),
            "L7: trailing bytes"
        );
        assert!(decode::<u32>(&[7, 0, 0, 0], 3).is_err(), "L7: limit");
        assert!(decode::<bool>(&[2], 8).is_err(), "one encoding per value");
        assert!(decode::<Option<u8>>(&[2, 0], 8).is_err());
    }

    #[test]
    fn a_false_length_is_refused_before_allocation() {
        let huge = [0xff; 8];
        assert!(decode::<BoundedVec<u64, 4>>(&huge, 64).is_err());
        assert!(decode::<BoundedBytes<4>>(&huge, 64).is_err());
        let five = encode(&vec![0u8; 5]);
        assert!(decode::<BoundedVec<u8, 4>>(&five, 64).is_err());
        assert!(decode::<BoundedBytes<4>>(&five, 64).is_err());
        let four = encode(&vec![1u8; 4]);
        assert_eq!(&*decode::<BoundedBytes<4>>(&four, 64).unwrap(), &[1; 4]);
    }
}
