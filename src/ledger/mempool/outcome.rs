//! What the mempool answers: verdicts on transactions, and what left with the reason.

use super::Source;
use crate::base::limits::{ANCESTOR_BYTES_MAX, ANCESTOR_COUNT_MAX};
use crate::crypto::verify::Check;
use crate::ledger::check::TxError;
use crate::ledger::coins::ViewError;
use crate::types::ids::{OutPoint, Txid, Wtxid};
use crate::types::transaction::Tx;

/// Why a transaction is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is in the mempool already, or decided.
    #[error("the transaction is known already")]
    Known,
    /// Its wtxid was found invalid before.
    #[error("the transaction was found invalid before")]
    RejectedBefore,
    /// The rule set changed while its signatures were checked.
    #[error("the rules changed while the transaction was checked: sign it again")]
    OtherBranch,
    /// Coinbases come with blocks only.
    #[error("a coinbase is part of a block and cannot be sent")]
    Coinbase,
    /// It breaks a rule of the ledger.
    #[error("{0}")]
    Invalid(#[from] TxError),
    /// Another transaction reserved an outpoint that it spends (first seen).
    #[error("outpoint {outpoint} is reserved by transaction {} of the mempool; {} conflicts with it", first.txid, second.txid)]
    Conflict {
        /// The outpoint.
        outpoint: OutPoint,
        /// The transaction that stays.
        first: Tx,
        /// The transaction that is refused.
        second: Tx,
    },
    /// The same transaction is there with other witnesses.
    #[error("the mempool holds this transaction with other witnesses (wtxid {0})")]
    OtherWitness(Wtxid),
    /// A decided transaction spent an input.
    #[error("an input was spent by the decided transaction {by}")]
    SpentByDecided {
        /// The decided spender.
        by: Txid,
    },
    /// An input is unknown or spent; or the transaction that made it left while signatures were checked.
    #[error("input {0} is unknown or spent")]
    Missing(OutPoint),
    /// The transaction that an input names is there and makes no such coin.
    #[error("input {0} does not exist: its transaction has no such coin")]
    NoSuchCoin(OutPoint),
    /// More than 25 unconfirmed ancestors, or more than 101 kB with them.
    #[error(
        "the transaction has more than {ANCESTOR_COUNT_MAX} unconfirmed ancestors or {ANCESTOR_BYTES_MAX} bytes with them: send it again when they are final"
    )]
    TooDeep,
    /// The sending peer's share is used up by transactions that pay as much.
    #[error("the sending peer's share of the mempool is full")]
    PeerShare,
    /// The mempool is full of transactions that pay as much.
    #[error("the mempool is full: raise the fee or send it again later")]
    Full,
}

/// Outcome of [`Mempool::admit`] other than admission.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The transaction may not enter (any more).
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// What had to leave before it turned out that there is no room even so.
        evicted: Vec<Departed>,
    },
    /// Our own coins cannot be read: the node stops.
    #[error("{0}")]
    View(ViewError),
}

impl From<Refusal> for AdmitError {
    fn from(refusal: Refusal) -> AdmitError {
        let evicted = Vec::new();
        AdmitError::Refused { refusal, evicted }
    }
}

/// What [`Mempool::consider`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is here already (also as an orphan), or decided.
    Known,
    /// Inputs are not known. From a peer it now waits for them; fetch the transactions they name.
    Orphan {
        /// The inputs.
        missing: Vec<OutPoint>,
    },
    /// It may not enter.
    Refused(Refusal),
    /// All but the signatures is in order: run these, then call [`Mempool::admit`] or [`Mempool::reject`]. Empty if this
    /// wtxid was verified before.
    Check {
        /// The checks.
        checks: Vec<Check>,
        /// Fee in units of 10^-8 TIME.
        fee: u64,
    },
}

/// What an admission did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// What had to leave for it.
    pub evicted: Vec<Departed>,
    /// Orphans that waited for it, taken out: consider them again.
    pub orphans_now_ready: Vec<(Tx, Source)>,
}

/// Why a transaction left the mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// A decided block holds it.
    Included,
    /// A decided transaction spent one of its inputs, or an input of an ancestor. User-visible state: conflicted.
    Conflicted {
        /// The decided spender.
        by: Txid,
    },
    /// No room, and others pay more. User-visible state: dropped.
    Evicted,
    /// It waited too long. User-visible state: dropped.
    Expired,
    /// It was valid when it entered and is not any more (registry rules, a change of branch), for this reason. User-visible
    /// state: dropped.
    Invalid(&'static str),
}

/// A transaction that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// The transaction.
    pub tx: Tx,
    /// Why it left.
    pub why: Departure,
}

/// What a decided block did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Included and conflicting transactions, children of the latter too.
    pub departed: Vec<Departed>,
    /// Orphans that waited for transactions of the block, taken out: consider them again.
    pub orphans_now_ready: Vec<(Tx, Source)>,
}
