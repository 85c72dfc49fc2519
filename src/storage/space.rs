//! Is there room on the disk? LMDB reports a write that a full disk cut short as a plain I/O error; this tells the two
//! apart, because one means "wait" and the other "stop" (S5).
//!
//! Inputs: the directory and size of a data file. Outputs: a yes or no. Never: leaves its probe behind.

use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Room without which the disk counts as full. A write cut short has eaten what was left, so less than this is there.
const PROBE_BYTES: usize = 1 << 20;
const PROBE_FILE: &str = "space-probe";

/// Whether a file of `size` bytes in `dir` cannot grow: file size limit, quota or disk.
pub(super) fn is_out_of_space(dir: &Path, size: u64) -> bool {
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < size.saturating_add(PROBE_BYTES as u64)) {
        return true;
    }
    let path = dir.join(PROBE_FILE);
    let probe = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    };
    let result = probe();
    // Nothing depends on it being gone: the next probe truncates it.
    let _ = std::fs::remove_file(&path);
    result.is_err_and(|e| {
        matches!(
            e.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::WriteZero
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    #[test]
    fn a_disk_with_room_has_room_and_keeps_no_probe() {
        let dir = TempDir::new("space");
        assert!(!is_out_of_space(dir.path(), 0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(
            !is_out_of_space(&dir.path().join("absent"), 0),
            "another failure is not taken for a full disk"
        );
    }
}
