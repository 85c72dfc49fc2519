//! Vectors and byte strings whose bound is part of the type. The decoder refuses a longer one before it allocates, so the
//! bound of a message is the sum of the bounds of its fields.

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// More elements than the type's bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} elements where at most {max} are allowed")]
pub struct TooMany {
    /// The bound.
    pub max: usize,
    /// What was offered.
    pub found: usize,
}

/// A vector of at most `N` elements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedVec<T, const N: usize>(Vec<T>);

impl<T: fmt::Debug, const N: usize> fmt::Debug for BoundedVec<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const N: usize> Default for BoundedVec<T, N> {
    fn default() -> Self {
        BoundedVec(Vec::new())
    }
}

impl<T, const N: usize> BoundedVec<T, N> {
    /// An empty vector.
    pub fn new() -> Self {
        Self::default()
    }
    /// Appends `value`, or gives it back as an error when the vector is full.
    pub fn push(&mut self, value: T) -> Result<(), TooMany> {
        if self.0.len() >= N {
            return Err(TooMany {
                max: N,
                found: self.0.len() + 1,
            });
        }
        self.0.push(value);
        Ok(())
    }
    /// The elements as a plain vector.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
    /// The first `N` elements of an iterator; the rest is left unread.
    pub fn take_from(iter: impl IntoIterator<Item = T>) -> Self {
        BoundedVec(iter.into_iter().take(N).collect())
    }
    /// Mutable access to the elements; the length cannot change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, const N: usize> TryFrom<Vec<T>> for BoundedVec<T, N> {
    type Error = TooMany;
    fn try_from(value: Vec<T>) -> Result<Self, TooMany> {
        if value.len() > N {
            return Err(TooMany {
                max: N,
                found: value.len(),
            });
        }
        Ok(BoundedVec(value))
    }
}

impl<T, const N: usize> Deref for BoundedVec<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> IntoIterator for BoundedVec<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a BoundedVec<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize, const N: usize> Serialize for BoundedVec<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for value in &self.0 {
            seq.serialize_element(value)?;
        }
        seq.end()
    }
}

/// Elements reserved before any has been decoded: a false length costs at most this much memory.
const PREALLOCATE_BYTES_MAX: usize = 4096;

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for BoundedVec<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for V<T, N> {
            type Value = BoundedVec<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let claimed = seq.size_hint().unwrap_or(0);
                if claimed > N {
                    return Err(A::Error::custom(TooMany {
                        max: N,
                        found: claimed,
                    }));
                }
                let room = PREALLOCATE_BYTES_MAX / size_of::<T>().max(1);
                let mut out = Vec::with_capacity(claimed.min(room));
                while let Some(value) = seq.next_element()? {
                    if out.len() >= N {
                        return Err(A::Error::custom(TooMany {
                            max: N,
                            found: out.len() + 1,
                        }));
                    }
                    out.push(value);
                }
                Ok(BoundedVec(out))
            }
        }
        deserializer.deserialize_seq(V(PhantomData))
    }
}

/// A byte string of at most `N` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BoundedBytes<const N: usize>(Vec<u8>);

impl<const N: usize> fmt::Debug for BoundedBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::hex::encode(&self.0))
    }
}

impl<const N: usize> TryFrom<Vec<u8>> for BoundedBytes<N> {
    type Error = TooMany;
    fn try_from(value: Vec<u8>) -> Result<Self, TooMany> {
        if value.len() > N {
            return Err(TooMany {
                max: N,
                found: value.len(),
            });
        }
        Ok(BoundedBytes(value))
    }
}

impl<const N: usize> Deref for BoundedBytes<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> Serialize for BoundedBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for BoundedBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const N: usize>;
        impl<const N: usize> Visitor<'_> for V<N> {
            type Value = BoundedBytes<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if bytes.len() > N {
                    return Err(E::custom(TooMany {
                        max: N,
                        found: bytes.len(),
                    }));
                }
                Ok(BoundedBytes(bytes.to_vec()))
            }
        }
        // Borrowed bytes: bincode checks the claimed length against the input before anything is copied.
        deserializer.deserialize_bytes(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_part_of_the_type() {
        let mut v: BoundedVec<u8, 2> = BoundedVec::new();
        assert!(v.push(1).is_ok() && v.push(2).is_ok());
        assert_eq!(v.push(3), Err(TooMany { max: 2, found: 3 }));
        assert!(BoundedVec::<u8, 2>::try_from(vec![0; 3]).is_err());
        assert!(BoundedBytes::<2>::try_from(vec![0; 3]).is_err());
        assert_eq!(&*BoundedVec::<u8, 2>::take_from(0..9), &[0, 1]);
    }
}
