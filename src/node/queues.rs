//! The one table of queues between threads: name, capacity, who fills it, who empties it, and what happens when it is full.
//! No thread ever blocks on a send, so no cycle of threads can deadlock.

use crate::rpc::node::QueueView;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Name in metrics and `timed topology`.
    pub name: &'static str,
    /// Most entries.
    pub capacity: usize,
    /// Threads that fill it.
    pub producers: &'static str,
    /// The thread that empties it.
    pub consumer: &'static str,
    /// What happens when it is full.
    pub when_full: &'static str,
}

/// Frames of peers for the replica.
pub const FRAMES: Row = Row {
    name: "consensus-frames",
    capacity: 8_192,
    producers: "net",
    consumer: "consensus",
    when_full: "the frame is dropped and counted; votes and proposals are repaired by pull (S8)",
};
/// Transactions of peers and their names, after everything else.
pub const TXS: Row = Row {
    name: "peer-transactions",
    capacity: 256,
    producers: "net",
    consumer: "consensus",
    when_full: "they wait in the room of their peer; when that is full its stream is not read (P2)",
};
/// Submissions and questions of RPC clients.
pub const CALLS: Row = Row {
    name: "consensus-calls",
    capacity: 1_024,
    producers: "rpc, notify",
    consumer: "consensus",
    when_full: "the caller is told that the node is busy",
};
/// Verdicts of the pool and blocks of the sync thread.
pub const REPORTS: Row = Row {
    name: "consensus-reports",
    capacity: 2_048,
    producers: "pool, sync",
    consumer: "consensus",
    when_full: "cannot be: credits (batches given to the pool and blocks ahead) are fewer",
};
/// Batches given to the pool and not answered; with 64 blocks of sync ahead this stays below [`REPORTS`].
pub const POOL_CREDITS: usize = 1_024;
/// Batches for the signer store.
pub const SIGNER: Row = Row {
    name: "signer-batches",
    capacity: 256,
    producers: "consensus",
    consumer: "signer",
    when_full: "kept by consensus, which reads no frames until there is room",
};
/// Decided blocks for the ledger.
pub const LEDGER: Row = Row {
    name: "storage-blocks",
    capacity: 512,
    producers: "consensus",
    consumer: "storage",
    when_full: "kept by consensus, which reads no frames until there is room",
};
/// What the net thread is to send, close or answer.
pub const NET: Row = Row {
    name: "net-commands",
    capacity: 16_384,
    producers: "consensus, sync, rpc, notify",
    consumer: "net",
    when_full: "the frame is dropped and counted; answers to RPC clients wait in their thread",
};
/// Inputs of the sync machine.
pub const SYNC: Row = Row {
    name: "sync-inbox",
    capacity: 4_096,
    producers: "net, consensus, pool",
    consumer: "sync",
    when_full: "dropped and counted; ranges are asked for again",
};
/// HTTP requests.
pub const REQUESTS: Row = Row {
    name: "rpc-requests",
    capacity: 512,
    producers: "net",
    consumer: "rpc",
    when_full: "answered with 503",
};
/// "Something was decided": the notify thread looks for itself what.
pub const NOTIFY: Row = Row {
    name: "notify-wakes",
    capacity: 256,
    producers: "consensus, net",
    consumer: "notify",
    when_full: "merged: it is awake anyway",
};

/// The whole table.
pub const TABLE: [Row; 10] = [
    FRAMES, TXS, CALLS, REPORTS, SIGNER, LEDGER, NET, SYNC, REQUESTS, NOTIFY,
];

const _: () = assert!(
    POOL_CREDITS + 64 < REPORTS.capacity,
    "verdicts and synced blocks always find room"
);

/// The sending end of a queue, with its counters.
pub struct Outlet<T> {
    row: Row,
    sender: Sender<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Outlet {
            row: self.row,
            sender: self.sender.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl<T> Outlet<T> {
    /// Puts `value` in, or gives it back.
    pub fn offer(&self, value: T) -> Result<(), T> {
        self.sender.try_send(value).map_err(|error| match error {
            TrySendError::Full(value) | TrySendError::Disconnected(value) => value,
        })
    }
    /// Puts `value` in, or drops and counts it.
    pub fn put(&self, value: T) {
        if self.offer(value).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// How many values it takes now, if nobody else fills it.
    pub fn room(&self) -> usize {
        self.row.capacity.saturating_sub(self.sender.len())
    }
    /// Depth and counters.
    pub fn view(&self) -> QueueView {
        QueueView {
            name: self.row.name,
            depth: self.sender.len(),
            capacity: self.row.capacity,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// A queue of the table.
pub fn queue<T>(row: Row) -> (Outlet<T>, Receiver<T>) {
    let (sender, receiver) = bounded(row.capacity);
    (
        Outlet {
            row,
            sender,
            dropped: Arc::new(AtomicU64::new(0)),
        },
        receiver,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_blocks() {
        let (outlet, receiver) = queue(Row {
            capacity: 2,
            ..FRAMES
        });
        (0..5).for_each(|i| outlet.put(i));
        assert_eq!((outlet.view().depth, outlet.view().dropped), (2, 3));
        assert_eq!(receiver.recv(), Ok(0));
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }
}
