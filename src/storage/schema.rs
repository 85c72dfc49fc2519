//! The disk format, byte by byte, and its history.
//!
//! Keys are big-endian, so that a scan meets them in numeric order. Values are the canonical encoding (L7) unless drawn
//! otherwise. `h` is a height, u64 big-endian; an outpoint key is txid 32, index u32 big-endian.
//!
//! Ledger environment (`lmdb/`), format 2:
//! ```text
//! table         key                              value
//! meta          "format"                         magic "TCLG", format u32 little-endian
//!               "chain"                          chain id 32
//!               "genesis"                        Genesis
//!               "genesis-root"                   state root at height 0, 32
//!               "base"                           h: blocks at and below it are not kept (F4, F6); absent: 0
//! parts         part u8 (ledger::state::Part)    that part of the state at the tip
//! buckets       bucket u8                        LtHash lanes, 2,048 bytes
//! coins         outpoint key                     Coin
//! owners        program version u8, program 32,  empty
//!               outpoint key
//! txids         txid 32                          h, index in the block u32 big-endian
//! history       h                                block id 32; of height 0 the chain id
//! heights       block id 32                      h
//! blocks        h, from 1                        Block; its first 380 bytes are the header
//! certificates  h, from 1                        Certificate
//! undo          h of the last max_reorg blocks   Undo
//! slots         h of each slot block             Header, Certificate: kept for ever (F6)
//! sets          validators hash 32               ValidatorSet: every set that was ever in force (F2, S10)
//! figures       slot_index u64 big-endian        SlotFigures, slot_index u64 of the order that its positions mean
//! orders        slot_index u64 big-endian        SlotOrder, where it differs from that of the slot block before
//! ```
//! The last two are for reports: a ledger from a snapshot or of an older version has them from there on only.
//! One transaction takes all tables from one tip to another (S5), so no reader and no crash sees a mixture. Below the base,
//! history, heights, blocks, certificates, undo and txids have no entries but those of slot blocks in history and heights.
//! History: 1 = first format; 2 = slots, sets and base.
//!
//! Signer environment (`signer/`), format 1:
//! ```text
//! table    key                     value
//! tag      "tag"                   Tag: magic "TCSG", format u32, random id 16, name of the key 32, trust
//!                                  trust: u32 0 unbound | 1 bound: machine id (len u64, bytes), device u64, inode u64
//!                                         | 2 doubted: reason u32
//! records  opaque, 1..=511 bytes   opaque
//! ```
//! History: 1 = first format; 2 = the tag names the key.

use super::env::Table;
use crate::base::bounded::BoundedBytes;
use crate::crypto::hash::Hash;
use crate::ledger::state::Part;
use crate::types::address::Program;
use crate::types::ids::{Height, OutPoint, SlotIndex, Txid};
use serde::{Deserialize, Serialize};

/// Newest format of the ledger environment that this software reads and the only one it writes.
pub const LEDGER_FORMAT: u32 = 2;
/// First bytes of the format entry of a ledger.
pub const LEDGER_MAGIC: [u8; 4] = *b"TCLG";
/// Bytes of an encoded header.
pub const HEADER_BYTES: usize = 380;
/// More than any stored value: keeps a corrupt length from allocating without end.
pub(super) const VALUE_BYTES_MAX: usize = 256 << 20;

/// Names of the ledger's tables, in the order of the constants below.
pub(super) const LEDGER_TABLES: [&str; 15] = [
    "meta",
    "parts",
    "buckets",
    "coins",
    "owners",
    "txids",
    "history",
    "heights",
    "blocks",
    "certificates",
    "undo",
    "slots",
    "sets",
    "figures",
    "orders",
];
pub(super) const META: Table = Table(0);
pub(super) const PARTS: Table = Table(1);
pub(super) const BUCKETS: Table = Table(2);
pub(super) const COINS: Table = Table(3);
pub(super) const OWNERS: Table = Table(4);
pub(super) const TXIDS: Table = Table(5);
pub(super) const HISTORY: Table = Table(6);
pub(super) const HEIGHTS: Table = Table(7);
pub(super) const BLOCKS: Table = Table(8);
pub(super) const CERTIFICATES: Table = Table(9);
pub(super) const UNDO: Table = Table(10);
pub(super) const SLOTS: Table = Table(11);
pub(super) const SETS: Table = Table(12);
pub(super) const FIGURES: Table = Table(13);
pub(super) const ORDERS: Table = Table(14);

pub(super) const META_FORMAT: &[u8] = b"format";
pub(super) const META_CHAIN: &[u8] = b"chain";
pub(super) const META_GENESIS: &[u8] = b"genesis";
pub(super) const META_GENESIS_ROOT: &[u8] = b"genesis-root";
pub(super) const META_BASE: &[u8] = b"base";

/// Bytes of an outpoint key.
pub(super) const OUTPOINT_KEY_BYTES: usize = 36;
/// Bytes of an owner's key before the outpoint.
pub(super) const OWNER_PREFIX_BYTES: usize = 33;
/// Bytes of an owner's key.
pub(super) const OWNER_KEY_BYTES: usize = OWNER_PREFIX_BYTES + OUTPOINT_KEY_BYTES;

/// Key of a height.
pub(super) fn height_key(height: Height) -> [u8; 8] {
    height.0.to_be_bytes()
}

/// Key of a slot block.
pub(super) fn slot_key(index: SlotIndex) -> [u8; 8] {
    index.0.to_be_bytes()
}

/// The height that `key` is of.
pub(super) fn read_height(key: &[u8]) -> Option<Height> {
    Some(Height(u64::from_be_bytes(key.try_into().ok()?)))
}

/// Key of a part of the state.
pub(super) fn part_key(part: Part) -> [u8; 1] {
    [part as u8]
}

/// Key of an outpoint.
pub(super) fn outpoint_key(outpoint: &OutPoint) -> [u8; OUTPOINT_KEY_BYTES] {
    let mut key = [0; OUTPOINT_KEY_BYTES];
    key[..32].copy_from_slice(&outpoint.txid.0.0);
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// The outpoint that `key` is of.
pub(super) fn read_outpoint(key: &[u8]) -> Option<OutPoint> {
    let (txid, vout) = key.split_first_chunk::<32>()?;
    Some(OutPoint {
        txid: Txid(Hash(*txid)),
        vout: u32::from_be_bytes(vout.try_into().ok()?),
    })
}

/// What the owner keys of a program start with.
pub(super) fn owner_prefix(program: &Program) -> [u8; OWNER_PREFIX_BYTES] {
    let mut key = [program.version(); OWNER_PREFIX_BYTES];
    key[1..].copy_from_slice(program.bytes());
    key
}

/// Key by which a coin is found from its program.
pub(super) fn owner_key(program: &Program, outpoint: &OutPoint) -> [u8; OWNER_KEY_BYTES] {
    let mut key = [0; OWNER_KEY_BYTES];
    key[..OWNER_PREFIX_BYTES].copy_from_slice(&owner_prefix(program));
    key[OWNER_PREFIX_BYTES..].copy_from_slice(&outpoint_key(outpoint));
    key
}

/// Where a transaction stands.
pub(super) fn position_value(height: Height, index: u32) -> [u8; 12] {
    let mut value = [0; 12];
    value[..8].copy_from_slice(&height_key(height));
    value[8..].copy_from_slice(&index.to_be_bytes());
    value
}

/// The position that `value` gives.
pub(super) fn read_position(value: &[u8]) -> Option<(Height, u32)> {
    let (height, index) = value.split_first_chunk::<8>()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    Some((read_height(height)?, index))
}

/// Newest format of the signer environment that this software reads and the only one it writes.
pub const SIGNER_FORMAT: u32 = 2;
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

/// Name of the operator key whose messages a store remembers.
pub type Owner = [u8; 32];

/// The tag of a signer store (B7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// [`SIGNER_MAGIC`].
    pub magic: [u8; 4],
    /// [`SIGNER_FORMAT`].
    pub format: u32,
    /// Random: names this store.
    pub id: [u8; 16],
    /// Whose messages it remembers.
    pub owner: Owner,
    /// Where it belongs.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::PublicKey;
    use crate::types::block::{HEADER_VERSION, Header};
    use crate::types::codec;
    use crate::types::ids::*;
    use proptest::prelude::*;

    #[test]
    fn keys_have_their_golden_bytes() {
        let outpoint = OutPoint {
            txid: Txid(Hash([7; 32])),
            vout: 0x0102_0304,
        };
        let key = owner_key(&Program::Key(PublicKey([5; 32])), &outpoint);
        let golden = [&[1][..], &[5; 32], &[7; 32], &[1, 2, 3, 4]].concat();
        assert_eq!(key.to_vec(), golden);
        assert_eq!(owner_key(&Program::Policy(Hash([5; 32])), &outpoint)[0], 2);
        assert_eq!(
            position_value(Height(0x0a0b), 0x0c),
            [0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 0, 0, 0, 0x0c]
        );
        assert!(read_outpoint(&key[33..]) == Some(outpoint) && read_outpoint(&key).is_none());
        assert!(read_height(&[0; 7]).is_none() && read_position(&[0; 11]).is_none());
    }

    #[test]
    fn a_header_has_a_fixed_size() {
        let header = Header {
            version: HEADER_VERSION,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height: Height(1),
            round: Round(0),
            time: crate::base::time::WallMs(1),
            parent: BlockId::default(),
            proposer: MasternodeId::default(),
            last_commit_hash: Hash::ZERO,
            tx_root: Hash::ZERO,
            slot_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        };
        assert_eq!(codec::encoded_len(&header), HEADER_BYTES);
    }

    proptest! {
        #[test]
        fn scans_meet_keys_in_order(a in any::<(u64, u32)>(), b in any::<(u64, u32)>(), t in any::<[u8; 32]>()) {
            let (ha, hb) = (height_key(Height(a.0)), height_key(Height(b.0)));
            prop_assert_eq!(ha.cmp(&hb), a.0.cmp(&b.0));
            prop_assert_eq!(read_height(&ha), Some(Height(a.0)));
            let point = |vout| OutPoint { txid: Txid(Hash(t)), vout };
            let (pa, pb) = (outpoint_key(&point(a.1)), outpoint_key(&point(b.1)));
            prop_assert_eq!(pa.cmp(&pb), point(a.1).cmp(&point(b.1)), "the order of the ledger is the order of the disk");
            prop_assert_eq!(read_outpoint(&pa), Some(point(a.1)));
            prop_assert_eq!(read_position(&position_value(Height(a.0), a.1)), Some((Height(a.0), a.1)));
        }
    }

    #[test]
    fn the_signer_tag_has_its_golden_bytes() {
        let tag = Tag {
            magic: SIGNER_MAGIC,
            format: SIGNER_FORMAT,
            id: [9; 16],
            owner: [8; 32],
            trust: Trust::Bound(Home {
                machine: MachineId::try_from(b"ab".to_vec()).unwrap(),
                device: 3,
                inode: 4,
            }),
        };
        let mut golden = b"TCSG\x02\0\0\0".to_vec();
        golden.extend([9; 16]);
        golden.extend([8; 32]);
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
