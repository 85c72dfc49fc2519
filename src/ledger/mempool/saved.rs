//! The mempool's file: what a stopped node held, for its next start. Nothing in it is trusted: every transaction goes
//! through all checks again.

use super::SAVED_COUNT_MAX;
use crate::base::bounded::BoundedVec;
use crate::base::time::WallMs;
use crate::types::codec::{self, DecodeError};
use crate::types::ids::ChainId;
use crate::types::transaction::Tx;
use serde::{Deserialize, Serialize};

/// The file's format.
const VERSION: u16 = 1;

/// One transaction of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTx {
    /// When the node first admitted it, by its wall clock.
    pub added: WallMs,
    /// The transaction.
    pub tx: Tx,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u16,
    chain: ChainId,
    transactions: BoundedVec<SavedTx, SAVED_COUNT_MAX>,
}

/// Why a mempool file is not used. A node without it starts with an empty mempool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Damaged.
    #[error("the mempool file is damaged ({0}); it can be deleted")]
    Damaged(#[from] DecodeError),
    /// Of another version of the software.
    #[error("the mempool file has format {0}, this software reads {VERSION}; it can be deleted")]
    Version(u16),
    /// Of another network.
    #[error("the mempool file belongs to another chain ({0}); it can be deleted")]
    Chain(ChainId),
}

/// The file's content. Parents stand before children.
pub fn encode_saved(chain: ChainId, transactions: impl Iterator<Item = SavedTx>) -> Vec<u8> {
    codec::encode(&Saved {
        version: VERSION,
        chain,
        transactions: BoundedVec::take_from(transactions),
    })
}

/// Reads a file of at most `limit` bytes; the transactions in the order in which they are to be considered.
pub fn decode_saved(
    bytes: &[u8],
    limit: usize,
    chain: ChainId,
) -> Result<Vec<SavedTx>, SavedError> {
    let saved: Saved = codec::decode(bytes, limit)?;
    if saved.version != VERSION {
        return Err(SavedError::Version(saved.version));
    }
    if saved.chain != chain {
        return Err(SavedError::Chain(saved.chain));
    }
    Ok(saved.transactions.into_vec())
}
