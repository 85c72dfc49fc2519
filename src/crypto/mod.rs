//! L1: hashing, commitments, keys and the one verdict on a signature (ZIP 215, rule L6). Pure functions of their
//! arguments. Only this layer can build a [`verify::Verified`] value.

pub mod hash;
pub mod keys;
pub mod lthash;
pub mod merkle;
#[cfg(test)]
mod vectors;
pub mod verify;
