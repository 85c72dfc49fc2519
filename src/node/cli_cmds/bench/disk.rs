//! How fast a disk syncs, measured beside every latency figure.
//!
//! Job: the median time of fdatasync of small writes. Inputs: a directory. Outputs: a duration. Never: leaves a file behind.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of each write: a page.
const WRITE_SIZE: usize = 4_096;
/// Most writes.
const SAMPLE_COUNT: usize = 200;
/// Longest measurement.
const TIME_MAX: Duration = Duration::from_secs(3);

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// Median of write-and-fdatasync of one page in a new file of `dir`.
pub(super) fn median_sync(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".bench-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let _removed = Removed(path);
    let page = [0x5a; WRITE_SIZE];
    let start = Instant::now();
    let mut samples = Vec::with_capacity(SAMPLE_COUNT);
    while samples.len() < SAMPLE_COUNT && (samples.is_empty() || start.elapsed() < TIME_MAX) {
        let before = Instant::now();
        file.write_all(&page)?;
        rustix::fs::fdatasync(&file)?;
        samples.push(before.elapsed());
    }
    samples.sort_unstable();
    Ok(samples[samples.len() / 2])
}
