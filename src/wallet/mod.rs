//! L6: a node's wallet. Which coins are ours, which key signs for them, which payments are under way.
//!
//! A wallet is a directory of plain files: the encrypted seed, the addresses made from it, a snapshot of its coins, pages of
//! history and one file for each payment that is not final yet. Money never depends on any of them but the seed: coins are
//! found again on the ledger. Times come in as arguments; nothing here reads a clock or talks to the network.

mod addresses;
mod api;
mod coins;
mod error;
mod files;
mod follow;
mod history;
pub mod keystore;
mod pending;
mod persist;
mod registry;
pub mod seed;
pub mod selection;
pub mod sign;
mod source;
mod spend;
mod undo;

pub use api::{AddressInfo, Balance, Unspent, Wallet};
pub use error::WalletError;
pub use history::{History, HistoryEntry};
pub use pending::{PendingEntry, VoidEntry};
pub use persist::{directory, list};
pub use registry::{RegistryDraft, RegistryFunded, fund_alone};
pub use seed::Seed;
pub use selection::{FeePolicy, Terms};
pub use sign::Signed;
pub use source::{CoinSource, SourceCoin, SourceError};
pub use spend::{Created, Funded};

#[cfg(test)]
mod tests;
