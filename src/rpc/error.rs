//! The errors that callers see: Bitcoin Core's numbers with Core's meaning, a sentence, and a hint what to do.

use crate::rpc::node::{ReadError, SubmitError};
use crate::wallet::WalletError;
use serde_json::{Value, json};

/// Codes of Bitcoin Core and JSON-RPC, by their meaning.
pub mod code {
    /// Something went wrong that has no number of its own.
    pub const MISC: i32 = -1;
    /// Wrong type, or an amount that is none.
    pub const TYPE: i32 = -3;
    /// Wallet error without a number of its own.
    pub const WALLET: i32 = -4;
    /// No such address, key, block or transaction.
    pub const NOT_FOUND: i32 = -5;
    /// Not enough money.
    pub const INSUFFICIENT: i32 = -6;
    /// A parameter is missing or out of range.
    pub const PARAMETER: i32 = -8;
    /// The wallet is locked.
    pub const UNLOCK_NEEDED: i32 = -13;
    /// Wrong passphrase.
    pub const PASSPHRASE: i32 = -14;
    /// No such wallet.
    pub const WALLET_NOT_FOUND: i32 = -18;
    /// Several wallets and none named.
    pub const WALLET_NOT_NAMED: i32 = -19;
    /// The bytes are no transaction.
    pub const DESERIALIZATION: i32 = -22;
    /// The peer was added, or is banned, already.
    pub const NODE_KNOWN: i32 = -23;
    /// Nobody added this peer.
    pub const NODE_NOT_ADDED: i32 = -24;
    /// No such peer is connected.
    pub const NODE_NOT_CONNECTED: i32 = -29;
    /// No address, subnet or node key; or no such ban.
    pub const NO_SUBNET: i32 = -30;
    /// The transaction cannot be judged: inputs missing.
    pub const VERIFY: i32 = -25;
    /// The transaction is refused.
    pub const REJECTED: i32 = -26;
    /// The transaction is final already.
    pub const ALREADY_FINAL: i32 = -27;
    /// The node is starting.
    pub const WARMUP: i32 = -28;
    /// No JSON.
    pub const PARSE: i32 = -32700;
    /// JSON, but no request.
    pub const REQUEST: i32 = -32600;
    /// No such method.
    pub const METHOD: i32 = -32601;
    /// Our own fault.
    pub const INTERNAL: i32 = -32603;
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// One of [`code`].
    pub code: i32,
    /// What is wrong, for people.
    pub message: String,
    /// What to do about it; goes out as `data.hint`.
    pub hint: Option<String>,
    /// Why, in one word for programs; goes out as `data.reason`.
    pub reason: Option<&'static str>,
}

impl RpcError {
    /// An error.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError {
            code,
            message: message.into(),
            hint: None,
            reason: None,
        }
    }
    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> RpcError {
        self.hint = Some(hint.into());
        self
    }
    /// With a word for programs.
    #[must_use]
    pub fn reason(mut self, reason: &'static str) -> RpcError {
        self.reason = Some(reason);
        self
    }
    /// -8.
    pub fn parameter(message: impl Into<String>) -> RpcError {
        RpcError::new(code::PARAMETER, message)
    }
    /// -3.
    pub fn wrong_type(message: impl Into<String>) -> RpcError {
        RpcError::new(code::TYPE, message)
    }
    /// -5.
    pub fn not_found(message: impl Into<String>) -> RpcError {
        RpcError::new(code::NOT_FOUND, message)
    }
    /// Whether a coin was spent between its choice and the sending, so that choosing again may help.
    pub fn coin_was_taken(&self) -> bool {
        self.reason.is_some_and(is_taken)
    }
    /// The `error` member of a reply.
    pub fn to_json(&self) -> Value {
        let mut out = json!({"code": self.code, "message": self.message});
        let mut data = serde_json::Map::new();
        if let Some(hint) = &self.hint {
            data.insert("hint".into(), json!(hint));
        }
        if let Some(reason) = self.reason {
            data.insert("reason".into(), json!(reason));
        }
        if !data.is_empty() {
            out["data"] = Value::Object(data);
        }
        out
    }
}

/// Reasons that go with a coin that is spent, by a waiting transaction or a decided one.
pub fn is_taken(reason: &str) -> bool {
    matches!(reason, "txn-mempool-conflict" | "missing-inputs")
}

impl From<ReadError> for RpcError {
    fn from(error: ReadError) -> RpcError {
        RpcError::new(code::INTERNAL, error.to_string())
            .hint("look into the log of the node; 'timed db verify' checks the ledger")
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> RpcError {
        let text = error.to_string();
        match error {
            SubmitError::Invalid(_) | SubmitError::Full => RpcError::new(code::REJECTED, text),
            SubmitError::Missing(_) => RpcError::new(code::VERIFY, text)
                .reason("missing-inputs")
                .hint("gettxout shows whether the output exists"),
            SubmitError::Conflict { .. } => {
                RpcError::new(code::REJECTED, text).reason("txn-mempool-conflict")
            }
            SubmitError::AlreadyFinal(_) => {
                RpcError::new(code::ALREADY_FINAL, text).reason("already-final")
            }
            SubmitError::AlreadyWaiting => {
                RpcError::new(code::REJECTED, text).reason("txn-already-in-mempool")
            }
            SubmitError::Busy(_) => RpcError::new(code::MISC, text).reason("busy"),
            SubmitError::Stopping => RpcError::new(code::MISC, text).reason("stopping"),
        }
    }
}

impl From<WalletError> for RpcError {
    fn from(error: WalletError) -> RpcError {
        let out = RpcError::new(error.code(), error.to_string());
        match error {
            WalletError::Taken { .. } => out.reason("txn-mempool-conflict"),
            _ => out,
        }
    }
}
