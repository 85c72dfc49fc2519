//! The key file: a seed, encrypted under a passphrase. Byte by byte, version 1, integers little endian:
//!
//! ```text
//! 0   8   magic "TIMEKEY1"
//! 8   2   version = 1
//! 10  1   key derivation: 1 = Argon2id, version 0x13
//! 11  1   cipher: 1 = ChaCha20-Poly1305
//! 12  4   Argon2 memory, KiB
//! 16  4   Argon2 passes
//! 20  4   Argon2 lanes
//! 24  16  salt
//! 40  12  nonce
//! 52  4   length n of what follows: secret plus 16 bytes tag
//! 56  n   ciphertext and tag; bytes 0..56 are authenticated with it
//! ```
//!
//! The secret is one byte, 1 (BIP 39 entropy), and the entropy. An empty passphrase is allowed (devnets, unattended starts):
//! then the file's mode 0600, checked at every opening, is the only guard, and the cheapest Argon2 parameters are used.
//! Salt and nonce are fresh at every writing. The file is replaced at once and synced, never edited.

use super::error::WalletError;
use super::files::{self, Sync};
use super::seed::{ENTROPY_BYTES_MAX, Seed, random};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use std::path::Path;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"TIMEKEY1";
const VERSION: u16 = 1;
const KDF_ARGON2ID: u8 = 1;
const CIPHER_CHACHA20POLY1305: u8 = 1;
const SECRET_ENTROPY: u8 = 1;
const HEADER_BYTES: usize = 56;
const TAG_BYTES: usize = 16;
const FILE_BYTES_MAX: usize = HEADER_BYTES + 1 + ENTROPY_BYTES_MAX + TAG_BYTES;
/// Greatest passphrase, bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// Argon2id cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// For a passphrase: the second recommended option of RFC 9106 (64 MiB, 3 passes).
const COST_PASSPHRASE: Cost = Cost {
    memory_kib: 64 * 1024,
    passes: 3,
    lanes: 4,
};
/// For the empty passphrase, which nothing can make strong.
const COST_EMPTY: Cost = Cost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};
/// A file that asks for more is refused before memory is taken.
const COST_MAX: Cost = Cost {
    memory_kib: 1024 * 1024,
    passes: 64,
    lanes: 64,
};

/// Writes a new key file or replaces one. `passphrase` may be empty.
pub fn save(path: &Path, seed: &Seed, passphrase: &str) -> Result<(), WalletError> {
    let bytes = seal(seed, passphrase)?;
    files::replace(path, &bytes, Sync::Disk)
}

/// Opens a key file. Refuses files that others may read.
pub fn load(path: &Path, passphrase: &str) -> Result<Seed, WalletError> {
    let bytes = read(path)?;
    open(path, &bytes, passphrase)
}

/// Whether a key file opens without a passphrase, which its cost parameters tell.
pub fn has_passphrase(path: &Path) -> Result<bool, WalletError> {
    let bytes = read(path)?;
    Ok(header(path, &bytes)?.cost != COST_EMPTY)
}

fn read(path: &Path) -> Result<Vec<u8>, WalletError> {
    let bytes = files::read(path, FILE_BYTES_MAX, true)?;
    bytes.ok_or_else(|| WalletError::NotFound(path.to_path_buf()))
}

fn derive(passphrase: &str, salt: &[u8], cost: Cost) -> Result<Zeroizing<[u8; 32]>, WalletError> {
    if passphrase.len() > PASSPHRASE_BYTES_MAX {
        return Err(WalletError::Invalid(format!(
            "a passphrase has at most {PASSPHRASE_BYTES_MAX} bytes"
        )));
    }
    let failed = |e: argon2::Error| WalletError::Invalid(format!("key derivation: {e}"));
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    argon
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(failed)?;
    Ok(key)
}

fn seal(seed: &Seed, passphrase: &str) -> Result<Vec<u8>, WalletError> {
    let cost = if passphrase.is_empty() {
        COST_EMPTY
    } else {
        COST_PASSPHRASE
    };
    let mut salt_and_nonce = [0; 28];
    random(&mut salt_and_nonce)?;
    let length = 1 + seed.entropy().len() + TAG_BYTES;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[KDF_ARGON2ID, CIPHER_CHACHA20POLY1305]);
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&salt_and_nonce);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    let mut secret = Zeroizing::new(vec![SECRET_ENTROPY]);
    secret.extend_from_slice(seed.entropy());
    let key = derive(passphrase, &bytes[24..40], cost)?;
    let payload = Payload {
        msg: secret.as_slice(),
        aad: &bytes,
    };
    let sealed = cipher(&key)
        .encrypt(&nonce(&bytes), payload)
        .map_err(|e| WalletError::Invalid(format!("encryption: {e}")))?;
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*key))
}

fn nonce(header: &[u8]) -> Nonce {
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&header[40..52]);
    Nonce::from(bytes)
}

struct Header {
    cost: Cost,
}

fn header(path: &Path, bytes: &[u8]) -> Result<Header, WalletError> {
    let bad = |reason: &str| WalletError::corrupt(path, reason);
    if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
        return Err(bad("not a key file: restore it from a backup"));
    }
    let number = |at: usize| {
        let mut four = [0; 4];
        four.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(four)
    };
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION || bytes[10] != KDF_ARGON2ID || bytes[11] != CIPHER_CHACHA20POLY1305 {
        return Err(bad(&format!(
            "key file format {version}.{}.{} is not known to this software: use the one that wrote it",
            bytes[10], bytes[11]
        )));
    }
    let cost = Cost {
        memory_kib: number(12),
        passes: number(16),
        lanes: number(20),
    };
    let fits = cost.memory_kib <= COST_MAX.memory_kib
        && cost.passes <= COST_MAX.passes
        && cost.lanes <= COST_MAX.lanes;
    if !fits {
        return Err(bad(
            "damaged: it asks for more work than any key file: restore it from a backup",
        ));
    }
    if bytes.len() - HEADER_BYTES != number(52) as usize {
        return Err(bad(
            "damaged: cut short or too long: restore it from a backup",
        ));
    }
    Ok(Header { cost })
}

fn open(path: &Path, bytes: &[u8], passphrase: &str) -> Result<Seed, WalletError> {
    let header = header(path, bytes)?;
    let key = derive(passphrase, &bytes[24..40], header.cost)?;
    let payload = Payload {
        msg: &bytes[HEADER_BYTES..],
        aad: &bytes[..HEADER_BYTES],
    };
    let opened = cipher(&key).decrypt(&nonce(bytes), payload);
    let secret = opened
        .map(Zeroizing::new)
        .map_err(|_| WalletError::Passphrase(path.to_path_buf()))?;
    match secret.split_first() {
        Some((&SECRET_ENTROPY, entropy)) => Seed::from_entropy(entropy),
        _ => Err(WalletError::corrupt(path, "holds a secret of unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Scratch;
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn seed() -> Seed {
        Seed::from_entropy(&[9; 32]).unwrap()
    }

    #[test]
    fn a_passphrase_opens_and_another_does_not() {
        let scratch = Scratch::new();
        let path = scratch.0.join("key");
        save(&path, &seed(), "correct horse").unwrap();
        assert!(has_passphrase(&path).unwrap());
        assert_eq!(load(&path, "correct horse").unwrap(), seed());
        assert!(matches!(
            load(&path, "wrong horse"),
            Err(WalletError::Passphrase(_))
        ));
        let text = fs::read(&path).unwrap();
        assert!(
            !text.windows(32).any(|w| w == [9; 32]),
            "the seed is nowhere in the file"
        );
        let before = text;
        save(&path, &seed(), "correct horse").unwrap();
        assert_ne!(
            before,
            fs::read(&path).unwrap(),
            "salt and nonce are fresh at every writing"
        );
    }

    #[test]
    fn an_empty_passphrase_is_guarded_by_the_mode() {
        let scratch = Scratch::new();
        let path = scratch.0.join("key");
        save(&path, &seed(), "").unwrap();
        assert!(!has_passphrase(&path).unwrap());
        assert_eq!(load(&path, "").unwrap(), seed());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = load(&path, "").unwrap_err();
        assert!(
            matches!(refused, WalletError::Permission { mode: 0o640, .. }),
            "{refused}"
        );
        assert_eq!(refused.exit_code(), 77);
        assert!(matches!(
            load(&scratch.0.join("none"), ""),
            Err(WalletError::NotFound(_))
        ));
    }

    #[test]
    fn a_file_that_asks_for_huge_memory_is_refused_first() {
        let mut bytes = seal(&seed(), "").unwrap();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            open(Path::new("k"), &bytes, ""),
            Err(WalletError::Corrupt { .. })
        ));
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(at in 0usize..(HEADER_BYTES + 49), xor in 1u8..) {
            let mut bytes = seal(&seed(), "").unwrap();
            // Costs that are merely large but allowed would make the test slow; their bytes are authenticated like the rest.
            prop_assume!(!(12..24).contains(&at) || xor < 4);
            bytes[at] ^= xor;
            prop_assert!(open(Path::new("k"), &bytes, "").is_err());
        }

        #[test]
        fn random_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(open(Path::new("k"), &bytes, "").is_err());
        }
    }
}
