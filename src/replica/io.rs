//! What enters the replica and what leaves it. The consensus thread, or the simulator, performs the effects.

use crate::base::time::{MonoUs, Now};
use crate::crypto::hash::Hash;
use crate::crypto::verify::{Check, Verified};
use crate::ledger::decided::DecidedBlock;
use crate::p2p::messages::{Message, PeerId, Proposal, Status};
use crate::replica::catchup::Synced;
use crate::types::block::Certificate;
use crate::types::fork::{Decision, ForkProof, RecoveryCert, Tie};
use crate::types::ids::*;
use crate::types::masternode::{Attestation, Evidence, Heartbeat, Statement};
use crate::types::polka::Polka;
use crate::types::transaction::{Endpoint, Tx};
use crate::types::validators::ValidatorSet;
use crate::types::vote::Vote;
use std::sync::Arc;

/// Names a request of an RPC client until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Where a transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This node's user or wallet; the token is answered if there is one.
    Local(Option<Token>),
    /// A peer.
    Peer(PeerId),
}

/// Something whose signatures are being checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A vote, and who sent it.
    Vote(PeerId, Vote),
    /// A proposal, who sent it, and when its frame was read (S4).
    Proposal(PeerId, Arc<Proposal>, ReadAt),
    /// A transaction for the mempool.
    Tx(Origin, Tx),
    /// All signatures of a proposed block that were not known to be good.
    Block(BlockId),
    /// A polka sent by a peer.
    Polka(PeerId, Box<Polka>),
    /// A certificate for the height being decided.
    Certificate(PeerId, Box<Certificate>),
    /// A heartbeat, who sent it, and whether the chain says for certain which key must have signed it.
    Heartbeat(PeerId, Heartbeat, bool),
    /// An attestation, and who sent it.
    Attestation(PeerId, Box<Attestation>),
    /// Evidence, and who sent it.
    Evidence(Option<PeerId>, Box<Evidence>),
    /// A fork proof, and who sent it; nobody if this node kept it.
    Fork(Option<PeerId>, Box<ForkProof>),
    /// What a peer decided deeper than undo reaches, where this node decided another block.
    Deep(PeerId, Box<Decision>),
    /// A polka of the height of the fork that is open.
    ForkPolka(PeerId, Box<Polka>),
    /// A statement about the fork that is open.
    Statement(PeerId, Statement),
    /// The end of an era.
    Recovery(Option<PeerId>, Box<RecoveryCert>),
    /// A polka that binds its sender to another RecoveryCert than this node's.
    Tie(PeerId, Box<Tie>),
    /// A decision of the new era by the set that the RecoveryCert of this hash gives.
    Entered(Option<PeerId>, Hash, Box<Decision>),
}

/// When a frame was read: kept so that a proposal is judged by its arrival, not by when its turn came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAt(pub Now);

/// What enters.
#[derive(Debug)]
pub enum Input {
    /// A peer has greeted.
    PeerUp(PeerId, Status),
    /// A peer proved to be a masternode.
    PeerMasternode(PeerId, MasternodeId),
    /// A peer told where it stands.
    PeerStatus(PeerId, Status),
    /// A peer is gone.
    PeerDown(PeerId),
    /// A frame of class consensus, liveness or tx, and when it was read.
    Frame(PeerId, Message, ReadAt),
    /// Verdicts on what was given out with [`Effect::Verify`].
    Verdicts(Vec<Result<Verified<Item>, Item>>),
    /// The signer store is durable up to this sequence number.
    SignerDurable(u64),
    /// The ledger is durable up to this height.
    LedgerDurable(Height),
    /// The disk of the signer store is full: this write waits and is tried again by the thread that owns it.
    SignerFull,
    /// The disk of the ledger is full, likewise.
    LedgerFull,
    /// A transaction of this node's user.
    Submit(Token, Tx),
    /// A block that the sync machine fetched and whose certificate it verified.
    Synced(Synced),
    /// A probe reached a masternode at this address, and it proved its operator key.
    Reached(MasternodeId, String),
    /// Another node reached this one by a probe.
    Probed,
    /// A peer's blocks do not follow this node's, says the sync machine (F5).
    Strayed(PeerId),
    /// A deadline passed.
    Tick,
}

/// Keys and values for the signer store, in one synced transaction; `None` deletes.
pub type SignerBatch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Why a transaction was not taken, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Breaks a rule of the ledger or the mempool.
    #[error("{0}")]
    Refused(String),
    /// Spends an output that nobody knows.
    #[error(
        "input {0} is not known: it does not exist, is spent, or its transaction has not arrived"
    )]
    MissingInput(OutPoint),
    /// Known already and waiting.
    #[error("transaction is already in the mempool")]
    InMempool,
    /// First seen wins.
    #[error("input {outpoint} is already spent by the waiting transaction {by}")]
    Conflict {
        /// The input.
        outpoint: OutPoint,
        /// Who reserved it.
        by: Txid,
    },
    /// The mempool is full of better paying ones.
    #[error("the mempool is full and the fee is too low")]
    Full,
}

/// What is reported to people, logs, metrics and wallets; carries no authority.
#[derive(Debug, Clone)]
pub enum Event {
    /// A block was decided.
    Decided {
        /// Block, certificate and changes.
        decided: Arc<DecidedBlock>,
        /// Round in which it was decided.
        round: EraRound,
        /// Time since the height began (its parent's decision), µs.
        since_parent_us: u64,
        /// By txid: time since this node first saw the transaction, µs.
        finality_us: Vec<(Txid, u64)>,
        /// Waiting transactions that the block makes impossible.
        conflicted: Vec<Txid>,
        /// Whether it was fetched because this node was behind.
        synced: bool,
    },
    /// A step of a round is over: its name and how long it took, µs.
    StepDone(&'static str, u64),
    /// A timer of the current step ran out.
    TimedOut(&'static str),
    /// A vote of a peer was judged: step and result.
    VoteJudged(&'static str, &'static str),
    /// A round > 0 was entered.
    NewRound(Height, EraRound),
    /// A proposal was made or received.
    Proposed(Height, EraRound, BlockId),
    /// A masternode signed two messages where one is allowed.
    Evidence(Box<Evidence>),
    /// Signing stopped or began; the text says why.
    Signing(Result<(), String>),
    /// A block that the rules forbid was proposed.
    InvalidProposal(BlockId, String),
    /// A decided block fails this node's own validation (S10).
    Halted(String),
    /// Transactions entered the mempool.
    MempoolAccepted(Vec<Txid>),
    /// A transaction was refused; the label is a bounded reason.
    MempoolRefused(&'static str),
    /// Two blocks are decided at one height (B6 step 1): this node has stopped signing.
    Forked {
        /// Where.
        height: Height,
        /// Which.
        blocks: [BlockId; 2],
        /// The one that this node had decided.
        held: Option<BlockId>,
    },
    /// More than a third is proved guilty of the fork.
    ForkCulprits(Vec<MasternodeId>),
    /// This node has stated, in an attempt, which block it held.
    ForkStated(u32, BlockId),
    /// A majority has agreed on the block that stays; the node starts again in the next era.
    ForkEnded {
        /// Height of the fork.
        height: Height,
        /// The block that stays.
        block: BlockId,
        /// Who has no vote any more.
        culprits: Vec<MasternodeId>,
    },
    /// A conflict at a height that changes nothing, and why (F5).
    ForkRefused(Height, &'static str),
    /// A fork below what can be taken back: the greatest height known to differ there, and the two blocks.
    ForkTooDeep(Height, [BlockId; 2]),
    /// Payments of blocks that were taken back are offered again.
    Returned(Vec<Txid>),
    /// Work was shed because a bound was reached; the label names the bound.
    Shed(&'static str),
}

/// What leaves.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame to these peers.
    Send(Vec<PeerId>, Arc<Message>),
    /// Check signatures and come back with [`Input::Verdicts`].
    Verify(Vec<(Item, Vec<Check>)>),
    /// Write to the signer store, in order, synced; then [`Input::SignerDurable`] with this number.
    WriteSigner(u64, SignerBatch),
    /// As [`Effect::WriteSigner`], and from then on the store is trusted as one that this node made here (B7 step 5).
    RenewSigner(u64, SignerBatch),
    /// Commit a decided block to the ledger, in order; then [`Input::LedgerDurable`].
    WriteLedger(Arc<DecidedBlock>),
    /// Answer an RPC client's submission.
    Reply(Token, Result<Txid, SubmitError>),
    /// A peer broke a rule provably (P3).
    Fault(PeerId, &'static str),
    /// Reach this masternode at its registered endpoint and hear its OperatorProof, then [`Input::Reached`]; a failure says
    /// nothing.
    Probe(MasternodeId, Endpoint),
    /// Stop, and start again from the disks: everything given before is to be durable first (B6 step 5).
    Restart,
    /// The height moved: sync and peers are told.
    Advanced(Status, Arc<ValidatorSet>),
    /// For people.
    Event(Event),
}

/// When the replica wants [`Input::Tick`].
pub type Deadline = Option<MonoUs>;
