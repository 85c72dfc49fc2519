//! Small files whose loss or leak matters: keys, cookie, pid.
//!
//! Job: replace a file as a whole, synced, with mode 0600; read a secret only if nobody else can. Inputs: paths and bytes.
//! Outputs: bytes, or a [`FileError`] that says what to do. Never: leaves half a file under the final name.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::exit::Exit;
use crate::storage::strike;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Others can read or write what only the owner may.
    #[error("{} has mode {mode:04o}: others may use it; run: chmod {wanted:o} {}", path.display(), path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// Not a plain file.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Larger than such a file can be.
    #[error("{} is larger than {limit} bytes: that is not the file it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
}

impl FileError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        match self {
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            FileError::Io { .. } => Exit::Io,
            FileError::Exposed { .. } => Exit::Permission,
            FileError::NotRegular(_) | FileError::TooLarge { .. } => Exit::Data,
        }
    }

    /// True if the file is just not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Replaces `path` by `bytes` with mode 0600: written beside it, synced, renamed, directory synced. After a crash there is the
/// old file or the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let error = |verb| {
        move |source| FileError::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        strike::moment("before a file");
        std::fs::rename(&beside, path)
    };
    if let Err(source) = write() {
        let _ = std::fs::remove_file(&beside);
        return Err(error("write")(source));
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let synced = sync_directory(directory.unwrap_or(Path::new(".")));
    strike::moment("after a file");
    synced.map_err(error("sync the directory of"))
}

/// Makes a rename or a new file in `directory` durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Reads a secret of at most `limit` bytes; refused if the group or others may read or write it (exit 77).
pub fn read_private(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let error = |source| FileError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(error)?;
    // Asked of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(error)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    check_mode(path, metadata.mode(), 0o077, 0o600)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Makes a directory (and its parents) with mode 0700; one that is there must not have any of the `forbidden` mode bits.
pub fn private_directory(path: &Path, forbidden: u32) -> Result<(), FileError> {
    let error = |source| FileError::Io {
        verb: "make the directory",
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(error)?;
    let metadata = std::fs::metadata(path).map_err(error)?;
    check_mode(path, metadata.mode(), forbidden, 0o700)
}

fn check_mode(path: &Path, mode: u32, forbidden: u32, wanted: u32) -> Result<(), FileError> {
    let mode = mode & 0o7777;
    if mode & forbidden == 0 {
        Ok(())
    } else {
        Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
            wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing::TempDir;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_secret_is_written_private_and_read_back() {
        let dir = TempDir::new("files");
        let path = dir.path().join("secret");
        write_private(&path, b"one").expect("written");
        write_private(&path, b"two").expect("replaced");
        assert_eq!(read_private(&path, 3).expect("read"), b"two");
        let mode = std::fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600, "only the owner");
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("list").count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_secret_that_others_can_use_is_refused_with_77() {
        let dir = TempDir::new("files");
        let path = dir.path().join("secret");
        write_private(&path, b"x").expect("written");
        for mode in [0o604, 0o640, 0o620, 0o602] {
            chmod(&path, mode);
            let error = read_private(&path, 9).expect_err("exposed");
            assert_eq!(error.exit(), Exit::Permission, "{mode:o}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_foreign_file_is_not_read_without_bound() {
        let dir = TempDir::new("files");
        let path = dir.path().join("big");
        write_private(&path, &[0; 100]).expect("written");
        assert_eq!(
            read_private(&path, 99).expect_err("too large").exit(),
            Exit::Data
        );
        assert!(
            read_private(&dir.path().join("none"), 9)
                .expect_err("missing")
                .is_missing()
        );
        assert_eq!(
            read_private(dir.path(), 9).expect_err("a directory").exit(),
            Exit::Data
        );
    }

    #[test]
    fn an_open_directory_of_keys_is_refused_with_77() {
        let dir = TempDir::new("files");
        let path = dir.path().join("a/b");
        private_directory(&path, 0o077).expect("made");
        private_directory(&path, 0o077).expect("there already");
        chmod(&path, 0o750);
        assert_eq!(
            private_directory(&path, 0o077).expect_err("open").exit(),
            Exit::Permission
        );
        private_directory(&path, 0o022).expect("readable is allowed where only writing matters");
    }
}
