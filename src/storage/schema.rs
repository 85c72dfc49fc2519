//! The disk format, byte by byte, and its history.
//!
//! Keys are big-endian, so that a scan meets them in numeric order. Values are the canonical encoding (L7) unless drawn
//! otherwise. `h` is a height, u64.
//!
//! Signer environment (`signer/`), format 1:
//! ```text
//! table    key                     value
//! tag      "tag"                   Tag: magic "TCSG", format u32, random id 16, trust
//!                                  trust: u32 0 unbound | 1 bound: machine id (len u64, bytes), device u64, inode u64
//!                                         | 2 doubted: reason u32
//! records  opaque, 1..=511 bytes   opaque
//! ```
//! History: 1 = first format.

use crate::base::bounded::BoundedBytes;
use serde::{Deserialize, Serialize};

/// Newest format of the signer environment that this software reads and the only one it writes.
pub const SIGNER_FORMAT: u32 = 1;
/// First bytes of a signer tag.
pub const SIGNER_MAGIC: [u8; 4] = *b"TCSG";
/// Longest machine id kept; `/etc/machine-id` has 32 digits.
pub const MACHINE_ID_BYTES_MAX: usize = 64;

/// A machine id; empty where there is none (B7 step 0).
pub type MachineId = BoundedBytes<MACHINE_ID_BYTES_MAX>;

/// Where a signer store lives. A copy lives elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The host's machine id.
    pub machine: MachineId,
    /// Device of the data file.
    pub device: u64,
    /// Inode of the data file.
    pub inode: u64,
}

/// What a signer store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Made with its key and not yet opened by a node.
    Unbound,
    /// Opened first at this place.
    Bound(Home),
    /// Made because the store of an existing key was missing or unreadable: it knows nothing of what was signed.
    Doubted(Doubt),
}

/// Why a store was made without knowing what its key had signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// There was none.
    Missing,
    /// There was one that could not be read.
    Unreadable,
}

/// The tag of a signer store (B7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// [`SIGNER_MAGIC`].
    pub magic: [u8; 4],
    /// [`SIGNER_FORMAT`].
    pub format: u32,
    /// Random: names this store.
    pub id: [u8; 16],
    /// Where it belongs.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::codec;

    #[test]
    fn the_signer_tag_has_its_golden_bytes() {
        let tag = Tag {
            magic: SIGNER_MAGIC,
            format: SIGNER_FORMAT,
            id: [9; 16],
            trust: Trust::Bound(Home {
                machine: MachineId::try_from(b"ab".to_vec()).unwrap(),
                device: 3,
                inode: 4,
            }),
        };
        let mut golden = b"TCSG\x01\0\0\0".to_vec();
        golden.extend([9; 16]);
        golden.extend([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            codec::encode(&tag),
            golden,
            "a format change is a version change (L7)"
        );
        assert_eq!(codec::decode::<Tag>(&golden, 256).unwrap(), tag);
    }
}
