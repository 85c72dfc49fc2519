//! Catching up: a pure machine that fetches the decided blocks its node lacks (F1).
//!
//! Job: learn where peers stand, ask several of them at once for different ranges, check that what arrives is bound
//! together (body to header, header to parent, certificate to the validator set) and hand it over in order of height.
//! Inputs: peers' positions, blocks, verdicts on signatures, what the node has applied, time. Outputs: [`Effect`]s.
//!
//! Slot headers come first: with the sets they announce, certificates of a whole window can be checked at once, also where
//! sets change, and everything at or below the newest of them is behind a trusted header (F3).
//!
//! What makes a block deliverable: its body hashes to its header; its header names the block below by id and carries the
//! set that the block below announced; its certificate holds a quorum of that set with good signatures. Where the set is not
//! known yet, the machine waits until a slot header or the node's own ledger brings it.
//!
//! It must never deliver out of order or without a verified certificate, hold more than its window, trust a height that a
//! peer only claims (a peer that cannot serve what it claims rests for a while, longer each time), blame a peer for being
//! slow or behind, or depend on consensus timeouts: it wakes by its own deadline.
//!
//! An answer to a request ends after the number of blocks asked for, or with the block that brings it to
//! [`SYNC_ANSWER_BYTES`]; both sides count alike, so an answer needs no end mark. Blocks come in order of height.

pub mod fetch;
mod headers;
mod machine;
mod peers;
mod serve;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fetch;
pub mod trust;
mod window;

pub use headers::SlotHead;
pub use machine::Machine;
pub use serve::{BlockReader, answer, answer_encoded, answer_headers};

use crate::base::limits::{
    FRAME_BLOCK_BYTES, PEER_COUNT_MAX, SYNC_RANGE_BLOCKS, SYNC_RANGE_COUNT, SYNC_WINDOW_BYTES,
};
use crate::base::time::{MonoUs, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::verify::{Check, Verified};
use crate::ledger::state::State;
use crate::types::block::{Block, Certificate, CertifiedHeader, Header};
use crate::types::ids::{BlockId, ChainId, Era, Height, MasternodeId};
use crate::types::validators::ValidatorSet;
use std::sync::Arc;

/// The answer to one request ends with the block that brings it to this size.
pub const SYNC_ANSWER_BYTES: usize = 2 << 20;
/// Memory that one request may bring: its answer and the block that ends it.
pub const SYNC_RESERVE_BYTES: usize = SYNC_ANSWER_BYTES + FRAME_BLOCK_BYTES;
/// Heights above the tip that are fetched at all.
pub const SYNC_WINDOW_BLOCKS: u64 = SYNC_RANGE_BLOCKS * SYNC_RANGE_COUNT as u64;
/// Requests in flight to one peer.
pub const REQUESTS_PER_PEER: usize = 2;
/// Blocks handed over that the node has not applied yet.
pub const DELIVERED_COUNT_MAX: usize = 64;
/// This many heights behind, or more: fetch at once.
pub const LAG_AT_ONCE: u64 = 8;
/// Fewer behind: consensus usually brings the block itself; fetch when it has not moved for this long, ms.
pub const PATIENCE_MS: u64 = 200;
/// Least time for a peer to send the next block of an answer, ms.
pub const ANSWER_TIMEOUT_MS: u64 = 2_000;
/// Most of it, ms; it doubles with each failure.
pub const ANSWER_TIMEOUT_MAX_MS: u64 = 30_000;
/// A peer that was late rests this long, ms; doubles with each failure in a row.
pub const REST_MS: u64 = 500;
/// Most of it, ms; also the rest of a peer that sent a block of another chain.
pub const REST_MAX_MS: u64 = 30_000;
/// A block next to the tip that is neither refused nor applied for this long is fetched again, ms: whoever was to check or
/// apply it has lost it.
pub const LOST_MS: u64 = 15_000;
/// This far behind, slot headers are fetched first, heights.
pub const LAG_FOR_HEADERS: u64 = SYNC_RANGE_BLOCKS;
/// The tip moves this far before more is asked for, while answers are under way.
const REPLAN_BLOCKS: u64 = 16;
/// A peer's position older than this is asked for again, ms (F1).
pub const POSITION_AGE_MAX_MS: u64 = 30_000;

const _: () = {
    assert!(
        SYNC_WINDOW_BYTES / SYNC_RESERVE_BYTES >= 3,
        "F1: three peers at once"
    );
    assert!(SYNC_RANGE_BLOCKS <= u16::MAX as u64);
};

/// A connection, named by whoever owns it.
pub type Peer = u64;

/// Where the node stands: the last block it applied, and who decides the next.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Height applied.
    pub height: Height,
    /// The block there.
    pub block: BlockId,
    /// The set that decides the next height.
    pub validators: Arc<ValidatorSet>,
    /// Its hash.
    pub validators_hash: Hash,
    /// The latest slot block at or below it.
    pub slot: SlotHead,
    /// What is known of forks (B6).
    pub bars: Arc<Bars>,
}

/// Who has no vote in the certificates of which era: culprits of forks whose evidence is due; and what stays (B6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bars {
    eras: Vec<(Era, Vec<MasternodeId>)>,
    /// The era that may begin with the next blocks, and the RecoveryCert that its first header must name: there may be others,
    /// with other culprits, and which of them is right the chain tells the node by another way.
    next: Option<(Era, Hash)>,
    /// The block that stays at the height of the last fork: any other there is of a branch that is gone.
    pin: Option<(Height, BlockId)>,
}

impl Bars {
    /// Of the era of `state`, and the next one if its RecoveryCert is at hand.
    fn of(state: &State, pin: Option<(Height, BlockId)>) -> Bars {
        let mut ids: Vec<MasternodeId> = state.eras.culprits.iter().map(|e| e.offender).collect();
        let mut eras = vec![(state.tip.era, ids.clone())];
        let next = state.next_era.as_ref();
        if let Some(next) = next {
            ids.extend(next.culprits.iter().map(|e| e.offender));
            eras.push((next.era, ids));
        }
        let next = next.map(|next| (next.era, next.hash));
        Bars { eras, next, pin }
    }

    /// Whether a header names another RecoveryCert than the one that is gone by.
    fn is_elsewhere(&self, header: &Header) -> bool {
        let hash = header.recovery_hash;
        let other = |(era, named)| header.era == era && !hash.is_zero() && hash != named;
        self.next.is_some_and(other)
    }

    /// Whether nobody is to be blamed for certificates of an era that are not of its set: the set may be another one.
    fn may_differ(&self, era: Era) -> bool {
        self.next.is_some_and(|(next, _)| next == era)
    }

    /// `set` as it decides in `era`; `None` if the era is not known.
    fn bar(&self, set: &Arc<ValidatorSet>, era: Era) -> Option<Arc<ValidatorSet>> {
        let (_, ids) = self.eras.iter().find(|(known, _)| *known == era)?;
        Some(match ids.is_empty() {
            true => set.clone(),
            false => Arc::new(set.without(ids)),
        })
    }
}

impl Applied {
    /// Of a node whose ledger is at `state`; `pin`: the block that stays after a fork.
    pub fn of(state: &State, pin: Option<(Height, BlockId)>) -> Applied {
        let record = state.slots.records.last();
        Applied {
            height: state.height(),
            block: state.block(),
            validators: state.validators.clone(),
            validators_hash: state.validators_hash,
            slot: SlotHead {
                height: record.map_or(Height(0), |record| record.first),
                id: state.tip.prev_slot_block,
                time: state.tip.time,
                // Sets change at slot blocks only (M3).
                next_hash: state.validators_hash,
                state_root: Hash::ZERO,
            },
            bars: Arc::new(Bars::of(state, pin)),
        }
    }
}

/// What happens to the machine.
#[derive(Debug)]
pub enum Input {
    /// A peer said where it stands (Hello, Ping, Status).
    Position {
        /// Who.
        peer: Peer,
        /// Its height.
        height: Height,
        /// What is held against it (P3): 0, or below.
        score: i64,
    },
    /// A peer's connection is gone.
    Gone {
        /// Who.
        peer: Peer,
    },
    /// A Block frame arrived.
    Block {
        /// From whom.
        peer: Peer,
        /// The block.
        block: Arc<Block>,
        /// Its certificate.
        certificate: Certificate,
    },
    /// A peer said that it cannot serve a height that it was asked for.
    Unavailable {
        /// Who.
        peer: Peer,
        /// Which.
        height: Height,
        /// The lowest height that it can serve.
        first: Height,
    },
    /// A Headers frame arrived.
    Headers {
        /// From whom.
        peer: Peer,
        /// Slot headers, ascending.
        headers: Vec<CertifiedHeader>,
    },
    /// The outcome of [`Effect::VerifyHeaders`].
    HeadersVerdict {
        /// Which.
        ticket: u64,
        /// Whether all of them hold.
        good: bool,
    },
    /// The outcome of [`Effect::Verify`].
    Verdict {
        /// Which.
        ticket: u64,
        /// From `Verified::check(certificate, &checks)`.
        outcome: Result<Verified<Certificate>, Certificate>,
    },
    /// The node applied a block, whether it came from here or from consensus.
    Applied(Applied),
    /// The deadline has come.
    Tick,
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send GetBlocks.
    Request {
        /// To whom.
        peer: Peer,
        /// First height.
        from: Height,
        /// How many, at most 64.
        count: u16,
    },
    /// Send GetHeaders for slot headers.
    RequestHeaders {
        /// To whom.
        peer: Peer,
        /// First height.
        from: Height,
    },
    /// Check signatures of slot headers and say whether all hold with [`Input::HeadersVerdict`].
    VerifyHeaders {
        /// Names the answer.
        ticket: u64,
        /// Their signatures.
        checks: Vec<Check>,
    },
    /// Slot headers whose signatures hold, each following the one before.
    Headers(Vec<CertifiedHeader>),
    /// Ask a peer where it stands (a ping does).
    Refresh {
        /// Whom.
        peer: Peer,
    },
    /// Check signatures and give the certificate back as [`Input::Verdict`].
    Verify {
        /// Names the answer.
        ticket: u64,
        /// What is verified.
        certificate: Certificate,
        /// Its signatures.
        checks: Vec<Check>,
    },
    /// A decided block, the next in height.
    Deliver {
        /// The block.
        block: Arc<Block>,
        /// Why it is decided.
        certificate: Verified<Certificate>,
        /// Whether it is at or below a verified slot header (F3).
        trusted: bool,
    },
    /// A peer broke a rule, provably.
    Fault {
        /// Who.
        peer: Peer,
        /// Which rule.
        why: Fault,
    },
    /// A certificate that verifies stands for a block that does not follow ours: two decided blocks of one height (F5).
    /// Nothing is done about it here but to tell.
    Conflict {
        /// Who sent it.
        peer: Peer,
        /// The other block.
        block: Arc<Block>,
        /// Its certificate, with good signatures.
        certificate: Verified<Certificate>,
    },
    /// A peer's blocks do not follow ours: its chain left ours at some height below (F5).
    Stray {
        /// Who.
        peer: Peer,
    },
    /// Call with [`Input::Tick`] at this time; replaces the deadline set before.
    SetDeadline(Option<MonoUs>),
}

/// A provable fault of a peer (P3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Transactions, last commit or slot part are not those of the header.
    #[error("the block's body does not hash to its header")]
    Body,
    /// The certificate names another block or height, or a round before the block's own.
    #[error("the certificate does not belong to the block")]
    OtherCertificate,
    /// The header follows our block and carries another set than that block announced.
    #[error("the header carries another validator set than its parent announced")]
    WrongSet,
    /// No quorum, or a signature is bad.
    #[error("the certificate does not verify against the validator set of its height")]
    BadCertificate,
}

/// Why syncing does not go faster at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No peer is ahead.
    UpToDate,
    /// A peer is ahead by little; consensus gets its chance first.
    ForConsensus,
    /// No peer that can be asked is ahead.
    ForPeers,
    /// Peers are ahead, and none of them keeps the next block any more (F6).
    Pruned,
    /// Slot headers were asked for or are being checked.
    ForHeaders,
    /// Blocks were asked for.
    ForBlocks,
    /// Signatures are being checked.
    ForVerdicts,
    /// The node applies what was delivered.
    ForApply,
}

impl Waiting {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Waiting::UpToDate => "up to date",
            Waiting::ForConsensus => "close behind, consensus is at work",
            Waiting::ForPeers => {
                "no usable peer is ahead: those that are rest after an error or are asked already"
            }
            Waiting::Pruned => {
                "no connected peer keeps the blocks that come next: set sync.snapshot = true, or connect to a node that keeps all"
            }
            Waiting::ForHeaders => "checking slot headers",
            Waiting::ForBlocks => "waiting for blocks from peers",
            Waiting::ForVerdicts => "checking certificates",
            Waiting::ForApply => "applying blocks",
        }
    }
}

/// What the machine is doing, for getsyncinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether it fetches blocks.
    pub active: bool,
    /// Height at which this catch-up began.
    pub from: Height,
    /// Height applied.
    pub at: Height,
    /// Greatest height that a usable peer claims.
    pub to: Height,
    /// Blocks per 1,000 s since this catch-up began.
    pub blocks_per_1000_s: u64,
    /// Requests in flight.
    pub requests: usize,
    /// Bytes of blocks held.
    pub held_bytes: usize,
    /// Why it waits.
    pub waiting: Waiting,
    /// Height of the newest verified slot header.
    pub headers: Height,
    /// Peers that blocks were asked of.
    pub asked: usize,
}
