//! L6, what is on disk: two LMDB environments, each written by one thread.
//!
//! [`LedgerStore`] holds decided blocks and the ledger they make (all or nothing, L12, S5); [`KvStore`] holds what a
//! masternode signed, synced before it is said (S5, B7). Inputs: decided blocks with their deltas, opaque records.
//! Outputs: coins, blocks, certificates, proofs, typed errors that say what to do. Never: judges a block, reads a clock,
//! retries a failed sync, or lets a pointer into the map escape a transaction.

#[cfg(test)]
mod crash;
mod env;
pub mod error;
mod prune;
pub mod reader;
mod rewind;
pub mod schema;
mod setup;
pub mod signer;
pub mod snapshot;
mod space;
pub mod strike;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_snapshot;
pub mod verify;
pub mod writer;

pub use env::EnvStats;
pub use error::StorageError;
pub use prune::Retention;
pub use reader::Snapshot;
pub use schema::Owner;
pub use signer::{Change, DropBelow, KvStore, Record, Signer, UnsureReason};
pub use snapshot::{SnapshotDir, SnapshotFileError};
pub use verify::{Progress, VerifyReport};
pub use writer::{LedgerStats, LedgerStore};
