//! The two threads that wait for disks: signer and storage. Each takes everything that is queued, commits it as one
//! transaction and reports the highest durable number; neither ever waits for another thread.
//!
//! A full disk is reported and tried again every second. Any other failed write or sync stops the process at once with 74:
//! what such a disk holds is unknown, and the next start recovers (S5).

use crate::ledger::decided::DecidedBlock;
use crate::node::exit::Exit;
use crate::node::forkfile::ForkFile;
use crate::node::meter::Meter;
use crate::replica::io::SignerBatch;
use crate::rpc::metrics::Metrics;
use crate::storage::{KvStore, LedgerStore, StorageError};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Batches committed together at most.
const GROUP_MAX: usize = 256;
/// Time between tries while the disk is full.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait without a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// What a disk thread tells the consensus thread: numbers that only grow, and a wake-up.
#[derive(Clone)]
pub struct Progress {
    /// Highest durable number.
    pub durable: Arc<AtomicU64>,
    /// Whether the disk is full.
    pub full: Arc<AtomicBool>,
    wake: Sender<()>,
}

impl Progress {
    /// Progress from `durable`, waking through `wake` (which holds one token).
    pub fn new(durable: u64, wake: Sender<()>) -> Progress {
        Progress {
            durable: Arc::new(AtomicU64::new(durable)),
            full: Arc::new(AtomicBool::new(false)),
            wake,
        }
    }

    fn reached(&self, number: u64) {
        self.durable.store(number, Ordering::Release);
        self.full.store(false, Ordering::Release);
        // A token that waits already wakes as well as a second one.
        let _ = self.wake.try_send(());
    }

    fn is_full(&self) {
        self.full.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }
}

/// One batch for the signer store.
pub struct SignerJob {
    /// Its number.
    pub number: u64,
    /// Keys and values.
    pub batch: SignerBatch,
    /// The store becomes a trusted one with it (B7 step 5).
    pub renew: bool,
}

/// Says why on the log and ends the process. Used where going on could lose or contradict what was said.
pub fn die(what: &str, error: &StorageError) -> ! {
    log::error!("{what}: {error}");
    let code = error.exit_code();
    let code = if code == 0 { Exit::Io.code() } else { code };
    std::process::exit(i32::from(code));
}

/// Everything that is queued, up to a bound; `None` when the queue is closed and empty.
fn gather<T>(meter: &mut Meter, jobs: &Receiver<T>) -> Option<Vec<T>> {
    loop {
        meter.worked();
        let first = jobs.recv_timeout(BEAT);
        meter.waited(false);
        match first {
            Ok(first) => {
                let mut group = vec![first];
                group.extend(jobs.try_iter().take(GROUP_MAX - 1));
                return Some(group);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Repeats `commit` while the disk is full.
fn commit_or_wait(
    meter: &mut Meter,
    what: &str,
    progress: &Progress,
    mut commit: impl FnMut() -> Result<(), StorageError>,
) {
    while let Err(error) = commit() {
        if !error.is_full() {
            die(what, &error);
        }
        log::error!("{what}: {error}; signing stops, trying again every second");
        progress.is_full();
        meter.worked();
        std::thread::park_timeout(RETRY);
        meter.waited(true);
    }
}

/// The signer thread: until its queue closes.
pub fn signer_thread(
    mut meter: Meter,
    store: &KvStore,
    jobs: &Receiver<SignerJob>,
    progress: &Progress,
    metrics: &Metrics,
) {
    while let Some(group) = gather(&mut meter, jobs) {
        let last = group.last().map_or(0, |job| job.number);
        let renew = group.iter().any(|job| job.renew);
        let changes: SignerBatch = group.into_iter().flat_map(|job| job.batch).collect();
        let began = Instant::now();
        if !changes.is_empty() {
            commit_or_wait(&mut meter, "signer store", progress, || {
                store.write(&changes)
            });
            metrics.signer_commit.observe(began.elapsed().as_secs_f64());
        }
        if renew {
            commit_or_wait(&mut meter, "signer store", progress, || {
                store.renew(&store.load()?)
            });
            log::info!("the signer store is trusted again; this masternode votes from here on");
        }
        progress.reached(last);
    }
}

/// The storage thread: until its queue closes.
pub fn storage_thread(
    mut meter: Meter,
    store: &LedgerStore,
    jobs: &Receiver<Arc<DecidedBlock>>,
    progress: &Progress,
    metrics: &Metrics,
) {
    while let Some(group) = gather(&mut meter, jobs) {
        let blocks: Vec<DecidedBlock> = group
            .iter()
            .map(|block| DecidedBlock::clone(block))
            .collect();
        let Some(last) = blocks.last() else { continue };
        let height = last.certificate.height.0;
        let began = Instant::now();
        commit_or_wait(&mut meter, "ledger", progress, || store.commit(&blocks));
        metrics.ledger_commit.observe(began.elapsed().as_secs_f64());
        progress.reached(height);
    }
}

/// A node without operator key signs nothing and has no signer store: what would be written is as good as durable, but for
/// what it knows of forks.
pub fn no_signer_thread(
    mut meter: Meter,
    mut forks: ForkFile,
    jobs: &Receiver<SignerJob>,
    progress: &Progress,
) {
    while let Some(group) = gather(&mut meter, jobs) {
        for job in &group {
            if let Err(error) = forks.keep(&job.batch) {
                log::error!("{error}; a fork will have to be found again after the next start");
            }
        }
        progress.reached(group.last().map_or(0, |job| job.number));
    }
}
