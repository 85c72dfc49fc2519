//! Key files: the node key (who this connection is), the operator key (who votes) and cold keys (collateral, owner).
//!
//! Job: make, read and write the 32-byte seeds, each in a small text file of mode 0600. Inputs: paths. Outputs: seeds that are
//! wiped when dropped. Never: overwrites a key; never takes one kind of key for the other.
//!
//! An operator key without its signer store abstains (B7): whoever generates one creates the store in the same step.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::Exit;
use super::files::{FileError, read_private, write_private};
use crate::base::hex;
use crate::crypto::hash::{Domain, hash};
use crate::crypto::keys::SecretKey;

/// Largest key file, in bytes: a comment and two short lines.
const KEY_FILE_SIZE_MAX: u64 = 1_024;

/// A secret of 32 bytes from which a key pair follows; wiped when dropped.
pub type Seed = Zeroizing<[u8; 32]>;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Identifies a node to its peers.
    Node,
    /// Signs votes of a masternode.
    Operator,
    /// Holds collateral or changes a masternode; kept where no node runs.
    Cold,
}

impl KeyKind {
    /// The word before the seed in the file.
    fn word(self) -> &'static str {
        match self {
            KeyKind::Node => "node-seed",
            KeyKind::Operator => "operator-seed",
            KeyKind::Cold => "cold-seed",
        }
    }

    /// The comment at the top of the file.
    fn warning(self) -> &'static str {
        match self {
            KeyKind::Node => "# Key of this timecoin node towards its peers. Keep it private.",
            KeyKind::Operator => {
                "# Operator key of a timecoin masternode. Whoever has it can vote with it.\n\
                 # It must run on one host only: two copies that sign are punished."
            }
            KeyKind::Cold => {
                "# Cold key of timecoin money or of a masternode's owner. Whoever has it has the money. Keep it offline."
            }
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written, or is exposed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a key file of this kind.
    #[error("{} is not a key file with a line \"{word} = HEX\"; restore it from a backup, or name another file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The word it should hold.
        word: &'static str,
    },
    /// A key is already there.
    #[error("{} is already there; move it away first: a key is never overwritten", .0.display())]
    Exists(PathBuf),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Entropy(getrandom::Error),
}

impl KeyError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        match self {
            KeyError::File(error) => error.exit(),
            KeyError::Malformed { .. } => Exit::Data,
            KeyError::Exists(_) => Exit::Failure,
            KeyError::Entropy(_) => Exit::Io,
        }
    }
}

/// The name of an operator key: what its lock on this host and its signer store are called.
pub fn operator_name(seed: &Seed) -> [u8; 32] {
    let public = SecretKey::from_seed(seed).public();
    hash(Domain::KeyLock, &[&public.0]).0
}

/// Fresh random bytes from the operating system.
pub fn random_seed() -> Result<Seed, KeyError> {
    let mut seed = Seed::default();
    getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Entropy)?;
    Ok(seed)
}

/// Reads a key file.
pub fn load(path: &Path, kind: KeyKind) -> Result<Seed, KeyError> {
    let bytes = Zeroizing::new(read_private(path, KEY_FILE_SIZE_MAX)?);
    let seed = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| parse(text, kind));
    seed.ok_or_else(|| KeyError::Malformed {
        path: path.to_owned(),
        word: kind.word(),
    })
}

/// Writes a new key file, durable when this returns. An existing file is an error.
pub fn save_new(path: &Path, kind: KeyKind, seed: &Seed) -> Result<(), KeyError> {
    if path.symlink_metadata().is_ok() {
        return Err(KeyError::Exists(path.to_owned()));
    }
    let digits = Zeroizing::new(hex::encode(seed.as_slice()));
    let text = [kind.warning(), "\n", kind.word(), " = ", &digits, "\n"].concat();
    let text = Zeroizing::new(text);
    Ok(write_private(path, text.as_bytes())?)
}

/// Makes a new random key and writes it.
pub fn generate(path: &Path, kind: KeyKind) -> Result<Seed, KeyError> {
    let seed = random_seed()?;
    save_new(path, kind, &seed)?;
    Ok(seed)
}

/// Reads a key, or makes it if there is none. For node keys: a lost one costs nothing but the peers' memory of it.
pub fn load_or_generate(path: &Path, kind: KeyKind) -> Result<Seed, KeyError> {
    match load(path, kind) {
        Err(KeyError::File(error)) if error.is_missing() => generate(path, kind),
        result => result,
    }
}

fn parse(text: &str, kind: KeyKind) -> Option<Seed> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (word, digits) = lines.next()?.split_once('=')?;
    if word.trim() != kind.word() || lines.next().is_some() {
        return None;
    }
    hex::decode_array(digits.trim()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TempDir;

    #[test]
    fn a_key_reads_back_and_is_never_overwritten() {
        let dir = TempDir::new("keys");
        let path = dir.path().join("operator.key");
        let seed = generate(&path, KeyKind::Operator).expect("made");
        assert_ne!(*seed, [0; 32], "random");
        assert_eq!(load(&path, KeyKind::Operator).expect("read"), seed);
        assert!(
            matches!(generate(&path, KeyKind::Operator), Err(KeyError::Exists(_))),
            "a key is never overwritten"
        );
        assert_eq!(
            load_or_generate(&path, KeyKind::Operator).expect("read"),
            seed,
            "the key that is there is used"
        );
    }

    #[test]
    fn one_kind_of_key_is_not_the_other() {
        let dir = TempDir::new("keys");
        let path = dir.path().join("node.key");
        load_or_generate(&path, KeyKind::Node).expect("made");
        let error = load(&path, KeyKind::Operator).expect_err("a node key does not vote");
        assert_eq!(error.exit(), Exit::Data);
    }

    #[test]
    fn damaged_files_are_refused_without_showing_what_they_hold() {
        let dir = TempDir::new("keys");
        let path = dir.path().join("operator.key");
        let hex = "ab".repeat(32);
        for text in [
            "",
            "operator-seed",
            "operator-seed = 00",
            &format!("operator-seed = {hex}0"),
            &format!("operator-seed = {hex}\noperator-seed = {hex}\n"),
            &format!("operator-seed = {}", "é".repeat(32)),
        ] {
            write_private(&path, text.as_bytes()).expect("written");
            let error = load(&path, KeyKind::Operator).expect_err(text);
            assert!(
                !error.to_string().contains(&hex),
                "a message never shows a secret"
            );
        }
        write_private(&path, format!("# c\n\n operator-seed={hex} \n").as_bytes())
            .expect("written");
        assert_eq!(
            *load(&path, KeyKind::Operator).expect("read"),
            [0xab; 32],
            "spaces and comments do not matter"
        );
    }
}
