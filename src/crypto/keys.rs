//! ed25519 keys and signatures as plain bytes. Library key types never reach the wire or the disk; signing is
//! deterministic (RFC 8032), so it is a pure function.

use super::hash::Hash;
use crate::base::hex;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An ed25519 public key, 32 bytes as they were given. Whether they are a point is decided by verification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// L6: canonical encoding of a point of prime order other than the identity. Registered keys must pass this.
    pub fn is_canonical_prime_order(&self) -> bool {
        use ed25519_zebra::VerificationKey;
        // The library's key type is used to learn whether the bytes are a point at all; the group checks need the point.
        if VerificationKey::try_from(self.0).is_err() {
            return false;
        }
        let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        let point = key.to_edwards();
        point.compress().to_bytes() == self.0 && point.is_torsion_free() && !key.is_weak()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl std::str::FromStr for PublicKey {
    type Err = hex::HexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode_array(text).map(PublicKey)
    }
}

/// An ed25519 signature, 64 bytes as they were given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(64)?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Signature;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Signature, A::Error> {
                let mut out = [0; 64];
                for (i, slot) in out.iter_mut().enumerate() {
                    *slot = seq
                        .next_element()?
                        .ok_or_else(|| A::Error::invalid_length(i, &self))?;
                }
                Ok(Signature(out))
            }
        }
        deserializer.deserialize_tuple(64, V)
    }
}

/// An ed25519 secret key (RFC 8032 seed). Zeroed when dropped; never printed, never serialised.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }
    /// The seed, for a key file.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
    /// Signs a 32-byte hash made in a signing domain; raw peer bytes are never signed.
    pub fn sign(&self, message: &Hash) -> Signature {
        use ed25519_dalek::Signer;
        Signature(self.0.sign(&message.0).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_prime_order_keys_may_be_registered() {
        assert!(
            SecretKey::from_seed(&[7; 32])
                .public()
                .is_canonical_prime_order()
        );
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(
            !PublicKey(identity).is_canonical_prime_order(),
            "the identity"
        );
        let mut order_two = [0xff; 32];
        order_two[0] = 0xec;
        order_two[31] = 0x7f;
        assert!(
            !PublicKey(order_two).is_canonical_prime_order(),
            "a point of order two (y = -1)"
        );
        let mut not_canonical = [0xff; 32];
        not_canonical[0] = 0xee;
        not_canonical[31] = 0x7f;
        assert!(
            !PublicKey(not_canonical).is_canonical_prime_order(),
            "y = p + 1 is the identity, not canonical"
        );
        assert!(!PublicKey([2; 32]).is_canonical_prime_order() || PublicKey([2; 32]).0 == [2; 32]);
    }
}
