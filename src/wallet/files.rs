//! Files that are whole or not there: written beside, synced, renamed over. Every wallet file but the key file has one frame:
//!
//! ```text
//! 0   8  magic of the kind of file
//! 8   2  version, u16 little endian
//! 10  8  payload length n, u64 little endian
//! 18  n  payload, canonical encoding (L7)
//! ..  32 checksum: H(wallet-file, all bytes before)
//! ```
//!
//! A reader is told apart: absent, damaged (says so), or newer than this software (says so). Nothing here may ever leave a
//! half-written file under its final name.

use super::error::WalletError;
use crate::crypto::hash::{Domain, hash};
use crate::types::codec;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Frame around the payload.
const FRAME_BYTES: usize = 18 + 32;
/// Mode of every wallet file.
const MODE: u32 = 0o600;

/// A kind of framed file.
pub struct Kind {
    /// First bytes.
    pub magic: &'static [u8; 8],
    /// The version this software writes and reads.
    pub version: u16,
    /// Greatest payload in bytes.
    pub payload_bytes_max: usize,
}

/// How far a write has reached when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// On the disk: survives a power cut.
    Disk,
    /// With the system: survives the end of this process.
    System,
}

/// Replaces `path` by `bytes` at once.
pub fn replace(path: &Path, bytes: &[u8], sync: Sync) -> Result<(), WalletError> {
    let beside = beside(path);
    let io = || WalletError::io(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(MODE);
    let mut file = options.open(&beside).map_err(io())?;
    file.write_all(bytes).map_err(io())?;
    if sync == Sync::Disk {
        file.sync_all().map_err(io())?;
    }
    fs::rename(&beside, path).map_err(io())?;
    if sync == Sync::Disk {
        sync_parent(path)?;
    }
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes renames and removals in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> Result<(), WalletError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(WalletError::io(parent))?;
    directory.sync_all().map_err(WalletError::io(parent))
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), WalletError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(WalletError::io(path)(e)),
        _ => Ok(()),
    }
}

/// The bytes of a file of at most `limit` bytes, `None` if there is no such file. Files that hold secrets are refused when
/// others may read them.
pub fn read(path: &Path, limit: usize, secret: bool) -> Result<Option<Vec<u8>>, WalletError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(WalletError::io(path)(e)),
    };
    let meta = file.metadata().map_err(WalletError::io(path))?;
    if secret && meta.mode() & 0o077 != 0 {
        return Err(WalletError::Permission {
            path: path.to_path_buf(),
            mode: meta.mode() & 0o777,
        });
    }
    if meta.len() > limit as u64 {
        let reason = format!("{} bytes where at most {limit} are expected", meta.len());
        return Err(WalletError::corrupt(path, reason));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    let mut bounded = (&mut file).take(limit as u64 + 1);
    bounded
        .read_to_end(&mut bytes)
        .map_err(WalletError::io(path))?;
    if bytes.len() > limit {
        return Err(WalletError::corrupt(path, "grew while it was read"));
    }
    Ok(Some(bytes))
}

/// The frame around the encoding of `value`.
pub fn frame<T: Serialize>(kind: &Kind, value: &T) -> Vec<u8> {
    let payload = codec::encode(value);
    let mut bytes = Vec::with_capacity(payload.len() + FRAME_BYTES);
    bytes.extend_from_slice(kind.magic);
    bytes.extend_from_slice(&kind.version.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let checksum = hash(Domain::WalletFile, &[&bytes]);
    bytes.extend_from_slice(&checksum.0);
    bytes
}

/// What a frame holds, or why it is none of this kind.
pub fn unframe<T: DeserializeOwned>(kind: &Kind, bytes: &[u8]) -> Result<T, String> {
    let (Some(magic), Some(version)) = (bytes.get(..8), bytes.get(8..10)) else {
        return Err("too short to be a wallet file".into());
    };
    if magic != kind.magic {
        return Err("not a wallet file of this kind".into());
    }
    if version != kind.version.to_le_bytes() {
        let found = u16::from_le_bytes([version[0], version[1]]);
        let known = kind.version;
        return Err(format!(
            "format version {found}, this software knows {known}: use the software that wrote it"
        ));
    }
    let end = bytes.len().checked_sub(32).filter(|end| *end >= 18);
    let end = end.ok_or_else(|| "cut short".to_string())?;
    if hash(Domain::WalletFile, &[&bytes[..end]]).0 != bytes[end..] {
        return Err("damaged: the checksum does not fit".into());
    }
    let length = ((end - 18) as u64).to_le_bytes();
    if bytes[10..18] != length {
        return Err("damaged: the length does not fit".into());
    }
    codec::decode(&bytes[18..end], kind.payload_bytes_max).map_err(|e| e.to_string())
}

/// Writes a framed file.
pub fn write_framed<T: Serialize>(
    path: &Path,
    kind: &Kind,
    value: &T,
    sync: Sync,
) -> Result<(), WalletError> {
    replace(path, &frame(kind, value), sync)
}

/// Reads a framed file; `None` if there is none.
pub fn read_framed<T: DeserializeOwned>(
    path: &Path,
    kind: &Kind,
) -> Result<Option<T>, WalletError> {
    let Some(bytes) = read(path, kind.payload_bytes_max + FRAME_BYTES, false)? else {
        return Ok(None);
    };
    let value = unframe(kind, &bytes).map_err(|reason| WalletError::corrupt(path, reason))?;
    Ok(Some(value))
}

/// Creates a directory (and what is above it) that only its owner may enter.
pub fn create_dir(path: &Path) -> Result<(), WalletError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(WalletError::io(path))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own for a test, removed when dropped.
    pub struct Scratch(pub PathBuf);
    static COUNT: AtomicU32 = AtomicU32::new(0);
    impl Scratch {
        pub fn new() -> Scratch {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("timecoin-wallet-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
    }
    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    const KIND: Kind = Kind {
        magic: b"TIMETEST",
        version: 3,
        payload_bytes_max: 64,
    };

    #[test]
    fn a_file_comes_back_as_written_and_is_private() {
        let scratch = Scratch::new();
        let path = scratch.0.join("a");
        assert!(read_framed::<u64>(&path, &KIND).unwrap().is_none());
        write_framed(&path, &KIND, &7u64, Sync::Disk).unwrap();
        write_framed(&path, &KIND, &8u64, Sync::System).unwrap();
        assert_eq!(read_framed::<u64>(&path, &KIND).unwrap(), Some(8));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(&scratch.0).unwrap().count(),
            1,
            "no half-written file stays"
        );
    }

    #[test]
    fn newer_and_foreign_files_are_named() {
        let newer = Kind { version: 4, ..KIND };
        let bytes = frame(&newer, &7u64);
        assert!(
            unframe::<u64>(&KIND, &bytes)
                .unwrap_err()
                .contains("version 4")
        );
        assert!(unframe::<u64>(&KIND, b"garbage garbage").is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_or_cut_is_noticed(at in 0usize..58, bit in 0u8..8, cut in 0usize..58) {
            let bytes = frame(&KIND, &7u64);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(unframe::<u64>(&KIND, &flipped).is_err(), "a damaged file is never taken for a good one");
            prop_assert!(unframe::<u64>(&KIND, &bytes[..cut]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unframe::<u64>(&KIND, &bytes).is_err());
        }
    }
}
