//! What can go wrong on disk, whose fault it is, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store did not do what was asked. Every message names the place and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No space: disk, quota, file size limit or map. Nothing that was there is lost; may be tried again.
    #[error(
        "{}: no space left ({detail}); free disk space or raise storage.map_size, then it goes on by itself",
        path.display()
    )]
    Full {
        /// Directory of the store.
        path: PathBuf,
        /// What was full.
        detail: String,
    },
    /// What is there is not what was written.
    #[error("{}: the store is corrupt ({detail}); {}", path.display(), repair_of(path))]
    Corrupt {
        /// Directory of the store.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Reading, writing or syncing failed. After a failed write the store takes no further one (S5): stop.
    #[error("{}: {action} failed: {source}; check the disk, then start again", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The user may not read or write here.
    #[error("{}: permission denied; give the directory and its files to the user that runs timed", path.display())]
    Permission {
        /// File or directory.
        path: PathBuf,
    },
    /// Something else is where the store should be.
    #[error("{}: {detail}; name another data directory or move it away", path.display())]
    NotAStore {
        /// File or directory.
        path: PathBuf,
        /// What is there.
        detail: String,
    },
    /// The ledger belongs to another network.
    #[error(
        "{}: this ledger belongs to chain {found}, the genesis names chain {wanted}; use the genesis it was made with, or another data directory",
        path.display()
    )]
    Foreign {
        /// Directory of the store.
        path: PathBuf,
        /// Chain id in the store.
        found: String,
        /// Chain id asked for.
        wanted: String,
    },
    /// Written by newer software.
    #[error(
        "{}: written with format {found}, this software knows up to {known}; install the newer timed again",
        path.display()
    )]
    NewerSchema {
        /// Directory of the store.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// Another process, or another handle of this one, has it open.
    #[error("{}: in use by another process; stop it first", path.display())]
    Locked {
        /// Directory of the store.
        path: PathBuf,
    },
    /// There is a store already.
    #[error("{}: there is a store already; it is never overwritten", path.display())]
    Exists {
        /// Directory of the store.
        path: PathBuf,
    },
    /// A write failed before: the store refuses to write until the process is started again.
    #[error("{}: an earlier write failed, so nothing more is written; start again", path.display())]
    Poisoned {
        /// Directory of the store.
        path: PathBuf,
    },
    /// The caller broke the order of commits: a defect of the program.
    #[error("internal error: {0}; please report this")]
    Misuse(String),
}

/// How a corrupt store is mended: the ledger can be fetched again, a signer store must not be touched lightly.
fn repair_of(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == "signer") {
        "do not copy an older one over it; see 'timed signer status'"
    } else {
        "run 'timed db rebuild'"
    }
}

impl StorageError {
    /// The exit code of a process that stops because of this (interface: exit codes).
    pub fn exit_code(&self) -> u8 {
        match self {
            StorageError::Full { .. } | StorageError::Io { .. } | StorageError::Poisoned { .. } => {
                74
            }
            StorageError::Corrupt { .. } => 65,
            StorageError::Permission { .. } => 77,
            StorageError::NotAStore { .. }
            | StorageError::Foreign { .. }
            | StorageError::NewerSchema { .. } => 78,
            StorageError::Locked { .. } => 69,
            StorageError::Exists { .. } => 1,
            StorageError::Misuse(_) => 70,
        }
    }

    /// Whether the same call may be tried again once there is space (S5).
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Full { .. })
    }

    /// A corruption found in the store at `path`.
    pub(super) fn corrupt(path: &Path, detail: impl Into<String>) -> StorageError {
        StorageError::Corrupt {
            path: path.to_path_buf(),
            detail: detail.into(),
        }
    }

    /// What an error of the system means at `path`.
    pub(super) fn from_io(path: &Path, action: &'static str, source: io::Error) -> StorageError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StorageError::Permission { path }
            }
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StorageError::Full {
                path,
                detail: source.to_string(),
            },
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists => StorageError::NotAStore {
                path,
                detail: source.to_string(),
            },
            _ => StorageError::Io {
                path,
                action,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_exit_code_of_the_interface() {
        let path = PathBuf::from("/data/lmdb");
        let io = |kind: io::ErrorKind| StorageError::from_io(&path, "write", kind.into());
        assert_eq!(io(io::ErrorKind::StorageFull).exit_code(), 74);
        assert!(io(io::ErrorKind::QuotaExceeded).is_full());
        assert!(io(io::ErrorKind::FileTooLarge).is_full());
        assert_eq!(io(io::ErrorKind::PermissionDenied).exit_code(), 77);
        assert_eq!(io(io::ErrorKind::Other).exit_code(), 74);
        assert!(!io(io::ErrorKind::Other).is_full());
        let corrupt = StorageError::corrupt(&path, "x");
        assert_eq!(corrupt.exit_code(), 65);
        assert!(corrupt.to_string().contains("timed db rebuild"));
        let signer = StorageError::corrupt(Path::new("/data/signer"), "x");
        assert!(
            !signer.to_string().contains("rebuild"),
            "signer/ is never touched by rebuild"
        );
    }
}
