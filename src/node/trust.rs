//! What this node believes (F2), over restarts: the block that the operator vouches for, and where belief ended.
//!
//! Job: read and write DATADIR/trust, and make the replica's [`Trust`] of it at the start. Inputs: that file, the ledger,
//! `sync.trusted`. Outputs: [`Trust`]. Never: lets a restart turn what was followed unanchored into a root.

use crate::base::time::WallMs;
use crate::node::files::{self, FileError};
use crate::storage::{LedgerStore, StorageError};
use crate::sync::trust::{Anchor, Root, Trust, block_of};
use crate::types::ids::{BlockId, Height};
use std::path::Path;

/// Bytes of a trust file at most.
const FILE_BYTES_MAX: u64 = 4_096;

/// Why belief cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not what this software writes.
    #[error(
        "{0} is no trust file: remove it, and name the root again with 'timed trust HEIGHT:ID'"
    )]
    Form(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] StorageError),
    /// The ledger is of another branch than the operator vouches for.
    #[error(
        "this ledger holds block {found} at height {height}, and {wanted} is trusted there: if the trusted block is right, run 'timed db rebuild'"
    )]
    OtherBranch {
        /// Height of the trusted block.
        height: Height,
        /// Block of the ledger.
        found: BlockId,
        /// The trusted one.
        wanted: BlockId,
    },
}

/// Reads `HEIGHT:ID`.
pub fn parse_root(text: &str) -> Result<(Height, BlockId), String> {
    let wrong = || format!("\"{text}\" is not HEIGHT:ID, as \"1200:\" and 64 hexadecimal digits");
    block_of(text).ok_or_else(wrong)
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrustFile {
    /// The block that the operator vouched for, and when.
    pub root: Option<Root>,
    /// Of an unanchored node: the newest slot header it believed.
    pub anchor: Option<Anchor>,
}

impl TrustFile {
    /// Reads the file; nothing if there is none.
    pub fn read(path: &Path) -> Result<TrustFile, TrustError> {
        let bytes = match files::read_private(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(TrustFile::default()),
            Err(error) => return Err(error.into()),
        };
        let wrong = || TrustError::Form(path.display().to_string());
        let text = String::from_utf8(bytes).map_err(|_| wrong())?;
        TrustFile::from_text(&text).ok_or_else(wrong)
    }

    fn from_text(text: &str) -> Option<TrustFile> {
        let mut file = TrustFile::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["root", block, said] => {
                    let (height, id) = parse_root(block).ok()?;
                    let said = Some(WallMs(said.parse().ok()?));
                    file.root = Some(Root { height, id, said });
                }
                ["anchor", height, time] => {
                    file.anchor = Some(Anchor {
                        height: Height(height.parse().ok()?),
                        time: WallMs(time.parse().ok()?),
                    });
                }
                [] => {}
                _ => return None,
            }
        }
        Some(file)
    }

    fn text(&self) -> String {
        let mut text = "# What this node trusts (F2). Written by timed.\n".to_owned();
        if let Some(Root { height, id, said }) = self.root {
            let said = said.unwrap_or_default().0;
            text.push_str(&format!("root {height}:{id} {said}\n"));
        }
        if let Some(Anchor { height, time }) = self.anchor {
            text.push_str(&format!("anchor {height} {}\n", time.0));
        }
        text
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), TrustError> {
        Ok(files::write_private(path, self.text().as_bytes())?)
    }

    /// What a node with this file and ledger believes. `configured` is `sync.trusted`; what was said by hand goes first.
    pub fn trust(
        &self,
        ledger: &LedgerStore,
        configured: Option<(Height, BlockId)>,
    ) -> Result<Trust, TrustError> {
        let configured = configured.map(|(height, id)| Root {
            height,
            id,
            said: None,
        });
        let root = self.root.or(configured);
        let view = ledger.snapshot()?;
        let mut met = None;
        if let Some(root) = root
            && let Some(found) = view.block_id(root.height)?
        {
            if found != root.id {
                return Err(TrustError::OtherBranch {
                    height: root.height,
                    found,
                    wanted: root.id,
                });
            }
            let header = view.header(root.height)?;
            met = Some(header.map_or(ledger.genesis().time, |header| header.time));
        }
        let state = ledger.state();
        let newest = state.slots.records.last();
        let height = newest.map_or(Height(0), |record| record.first);
        let header = view.header(height)?;
        let time = header.map_or(ledger.genesis().time, |header| header.time);
        let anchor = self.anchor.unwrap_or(Anchor { height, time });
        Ok(Trust::new(state.params(), anchor, root, met))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;

    #[test]
    fn a_trust_file_is_read_as_it_was_written() {
        let root = Root {
            height: Height(7),
            id: BlockId(Hash([3; 32])),
            said: Some(WallMs(99)),
        };
        let anchor = Anchor {
            height: Height(5),
            time: WallMs(12),
        };
        for file in [
            TrustFile::default(),
            TrustFile {
                root: Some(root),
                anchor: Some(anchor),
            },
        ] {
            assert_eq!(TrustFile::from_text(&file.text()), Some(file));
        }
        assert_eq!(TrustFile::from_text("root 7\n"), None);
        assert!(parse_root("7:00").is_err() && parse_root("x").is_err());
    }
}
