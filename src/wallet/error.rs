//! What can go wrong in a wallet, whose fault it is and what to do about it. One enum, since every caller is an RPC method
//! or a command that shows the text.

use crate::types::amount::Amount;
use crate::types::ids::{OutPoint, Txid};
use std::path::{Path, PathBuf};

/// Why a wallet did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The keys are locked.
    #[error("the wallet is locked: unlock it with walletpassphrase first")]
    Locked,
    /// The passphrase does not open the key file.
    #[error("the passphrase is wrong (or the key file {0} was changed)")]
    Passphrase(PathBuf),
    /// Encryption state does not fit the request.
    #[error("{0}")]
    EncryptionState(&'static str),
    /// Not enough money.
    #[error(
        "insufficient funds: {available} TIME can be spent now, {needed} TIME are needed with the fee"
    )]
    Insufficient {
        /// Coins that may be used now.
        available: Amount,
        /// Outputs plus fee.
        needed: Amount,
    },
    /// The money is there but not within one transaction.
    #[error("{0}")]
    TooLarge(String),
    /// Locked and no prepared key is left.
    #[error(
        "no prepared address is left: unlock the wallet with walletpassphrase so that it can make new ones"
    )]
    NoPreparedKey,
    /// Another payment took the coin between its choice and the sending.
    #[error("the coin {coin} is already spent by the pending transaction {by}: choose again")]
    Taken {
        /// The coin.
        coin: OutPoint,
        /// What spends it.
        by: Txid,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A wallet is there already.
    #[error("a wallet exists already in {0}: open it, or choose another name")]
    Exists(PathBuf),
    /// No wallet there.
    #[error("no wallet in {0}: create it with createwallet")]
    NotFound(PathBuf),
    /// Other users may read the key file.
    #[error("{path} has mode {mode:03o}: other users could read the keys; run chmod 600 {path}")]
    Permission {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// A file is damaged, foreign or newer than this software.
    #[error("{path}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what helps.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The node could not read its ledger for us.
    #[error("the ledger could not be read: {0}")]
    Source(#[from] super::source::SourceError),
    /// No randomness from the system.
    #[error("the system gave no random bytes: {0}")]
    Random(String),
}

impl WalletError {
    /// The JSON-RPC error code, with the meaning Bitcoin Core gives it.
    pub fn code(&self) -> i32 {
        match self {
            WalletError::Locked => -13,
            WalletError::Passphrase(_) => -14,
            WalletError::EncryptionState(_) => -15,
            WalletError::Insufficient { .. } => -6,
            WalletError::NoPreparedKey => -12,
            WalletError::Invalid(_) | WalletError::TooLarge(_) => -8,
            WalletError::NotFound(_) => -18,
            WalletError::Taken { .. } => -26,
            _ => -4,
        }
    }
    /// The exit code of a program that ends because of this error.
    pub fn exit_code(&self) -> i32 {
        match self {
            WalletError::Permission { .. } | WalletError::Passphrase(_) => 77,
            WalletError::Corrupt { .. } => 65,
            WalletError::Io { .. } => 74,
            WalletError::NotFound(_) | WalletError::Exists(_) => 78,
            _ => 1,
        }
    }
    /// Wraps what the system said about a file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> WalletError + '_ {
        move |error| WalletError::Io {
            path: path.to_path_buf(),
            error,
        }
    }
    /// A damaged, foreign or newer file.
    pub fn corrupt(path: &Path, reason: impl Into<String>) -> WalletError {
        WalletError::Corrupt {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}
