//! What methods need from a running node: plain data it publishes, and the trait that L8 implements.
//!
//! Input and output only. Reads never block on another thread; the verbs (`submit`, `check`, `stop`, `set_log_filter`)
//! pass a message and wait at most as long as they are told. Must never show a reader less than what this node has already
//! reported as final: [`NodeView::recent`] holds every decided block that the ledger on disk may not hold yet.

use crate::base::time::{MonoUs, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::keys::{PublicKey, Signature};
use crate::ledger::registry::Entry;
use crate::ledger::report::SlotOutcome;
use crate::p2p::reputation::{Ban, Subject};
use crate::replica::fork::ForkInfo;
pub use crate::replica::standing::OwnStanding;
use crate::types::address::Network;
use crate::types::amount::Amount;
use crate::types::block::{Block, Certificate, Header};
use crate::types::fork::RecoveryCert;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput};
use crate::types::validators::ValidatorSet;
use crate::wallet::Wallet;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Our own disk failed or answered nonsense. The caller gets -32603 and the node stops by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be read: {0}")]
pub struct ReadError(pub String);

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCoin {
    /// Value and program.
    pub output: TxOutput,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

/// The durable ledger, read on any thread (short read transactions).
pub trait LedgerRead: Send + Sync {
    /// Header of a durable block; `None` for height 0 and above the durable tip.
    fn header(&self, height: Height) -> Result<Option<Header>, ReadError>;
    /// A durable block; `None` for height 0, pruned, or above the durable tip.
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ReadError>;
    /// The certificate of a durable block.
    fn certificate(&self, height: Height) -> Result<Option<Certificate>, ReadError>;
    /// Height of a durable block (not of the genesis).
    fn height_of(&self, id: &BlockId) -> Result<Option<Height>, ReadError>;
    /// Where a transaction stands: height and index in the block.
    fn position_of(&self, txid: &Txid) -> Result<Option<(Height, u32)>, ReadError>;
    /// An unspent output of the durable state.
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<StoredCoin>, ReadError>;
    /// Outputs that a durable block spent (its undo); empty if no longer kept.
    fn spent_by(&self, height: Height) -> Result<Vec<(OutPoint, TxOutput)>, ReadError>;
    /// What durable slot blocks from `from` on did, ascending without a gap, at most `limit`.
    fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, ReadError>;
    /// Blocks at and below this height are not kept, but for headers of slot blocks (F6).
    fn base(&self) -> Result<Height, ReadError> {
        Ok(Height(0))
    }
    /// The validator set with this hash, if it is known (genesis, in force, or behind a kept slot header).
    fn validator_set(&self, hash: &Hash) -> Result<Option<Arc<ValidatorSet>>, ReadError>;
}

/// A decided block that may not be durable yet.
#[derive(Debug, Clone)]
pub struct RecentBlock {
    /// Its id.
    pub id: BlockId,
    /// The block.
    pub block: Arc<Block>,
    /// Its certificate.
    pub certificate: Certificate,
    /// Coins it spent that earlier blocks had made.
    pub spent: Vec<(OutPoint, TxOutput)>,
    /// What it did to masternodes, if it is a slot block.
    pub slot: Option<Arc<SlotOutcome>>,
}

/// The newest decided block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Height; 0 is the genesis.
    pub height: Height,
    /// Block id; the chain id at height 0.
    pub id: BlockId,
    /// Time of the block.
    pub time: WallMs,
    /// state_root of its header; of the genesis state at height 0.
    pub state_root: Hash,
}

/// Where a node is within a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// No reason to act (S3).
    Idle,
    /// Waiting for the proposal.
    Propose,
    /// Prevoted.
    Prevote,
    /// Precommitted.
    Precommit,
}

impl Step {
    /// The word shown to people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Step::Idle => "idle",
            Step::Propose => "propose",
            Step::Prevote => "prevote",
            Step::Precommit => "precommit",
        }
    }
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusView {
    /// Height being decided.
    pub height: Height,
    /// Era and round.
    pub at: EraRound,
    /// Step.
    pub step: Step,
    /// Leader of this round.
    pub proposer: Option<MasternodeId>,
    /// Power that is needed to decide: the least p with 3p > 2S.
    pub quorum: Power,
    /// Power of the whole set.
    pub total: Power,
    /// Power connected now, own included.
    pub connected: Power,
    /// Prevote and precommit power seen in this round.
    pub prevotes: Power,
    /// See `prevotes`.
    pub precommits: Power,
    /// What must happen next, in words ("a payment", "votes from n2 and n3", "a quorum: 2 of 4 are connected").
    pub waiting_for: String,
    /// Since when a payment or slot block has been due without a decision; `None`: nothing is due.
    pub due_since: Option<MonoUs>,
    /// Since when the connected power has been no quorum; `None`: there is one.
    pub no_quorum_since: Option<MonoUs>,
}

/// The masternode that this node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMasternode {
    /// Its operator key.
    pub operator: PublicKey,
    /// Its id, if it is registered.
    pub id: Option<MasternodeId>,
    /// B7: `None` when SURE, else why it is UNSURE.
    pub unsure: Option<String>,
    /// F2: whether a young trust root is known.
    pub anchored: bool,
    /// Why it signs nothing at the moment, if so (disk full, clock alarm, catching up).
    pub abstains: Option<String>,
}

/// A registry entry, and what this node knows beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasternodeView {
    /// The entry.
    pub entry: Entry,
    /// Power in force; 0 if it has none.
    pub power: Power,
    /// ENABLED, JAILED, STANDBY, LEAVING or SLASHED.
    pub status: &'static str,
    /// Whether this node has a connection to it that proved its operator key (own: true).
    pub connected: bool,
}

impl MasternodeView {
    /// Its id.
    pub fn id(&self) -> MasternodeId {
        self.entry.id
    }
    /// `host:port`.
    pub fn endpoint(&self) -> String {
        String::from_utf8_lossy(&self.entry.endpoint).into_owned()
    }
}

/// The mempool in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MempoolView {
    /// Transactions.
    pub count: usize,
    /// Their encoded size, bytes.
    pub size: usize,
    /// Bound on `size`, bytes.
    pub max_size: usize,
    /// Bound on `count`.
    pub max_count: usize,
    /// Transactions waiting for a parent.
    pub orphan_count: usize,
    /// Sum of their fees.
    pub total_fee: Amount,
}

/// A transaction waiting.
#[derive(Debug, Clone)]
pub struct MempoolEntry {
    /// The transaction.
    pub tx: Tx,
    /// Its fee.
    pub fee: Amount,
    /// When it came in.
    pub time: WallMs,
    /// Height of the tip then.
    pub height: Height,
    /// Waiting transactions whose outputs it spends.
    pub depends: Vec<Txid>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Number of the connection, never used twice.
    pub id: u64,
    /// Node key, hex shown.
    pub node_key: PublicKey,
    /// Address of the peer.
    pub address: SocketAddr,
    /// Who dialled.
    pub inbound: bool,
    /// Since when.
    pub since: WallMs,
    /// Masternode it proved to be.
    pub masternode: Option<MasternodeId>,
    /// Its software.
    pub agent: String,
    /// Its latest Status.
    pub height: Height,
    /// Its wall clock minus ours, ms.
    pub clock_offset_ms: i64,
    /// Last round trip, microseconds.
    pub ping_us: Option<u64>,
    /// Smallest round trip, microseconds.
    pub min_ping_us: Option<u64>,
    /// Bytes sent and received.
    pub bytes_out: u64,
    /// See `bytes_out`.
    pub bytes_in: u64,
    /// When something was last sent and received.
    pub last_send: WallMs,
    /// See `last_send`.
    pub last_receive: WallMs,
    /// Reputation (P3), 0 or below.
    pub score: i64,
    /// Bytes of frame bodies by type, sent and received.
    pub by_type: BTreeMap<&'static str, [u64; 2]>,
}

/// A connection as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichPeer {
    /// By number.
    Id(u64),
    /// By `IP:PORT`.
    Address(String),
}

/// What an operator asks about peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCommand {
    /// Ban for so many ms.
    Ban(Subject, u64),
    /// Take a ban back.
    Unban(Subject),
    /// Take all bans back and forget all scores.
    ClearBans,
    /// Close a connection.
    Disconnect(WhichPeer),
    /// Keep a connection to `HOST:PORT`.
    Add(String),
    /// No longer.
    Remove(String),
    /// Dial once.
    Try(String),
}

/// Why a [`PeerCommand`] is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRefusal {
    /// Banned already.
    AlreadyBanned,
    /// No such ban.
    NotBanned,
    /// No such connection.
    NotConnected,
    /// It is kept already.
    AlreadyAdded,
    /// Nobody added it.
    NotAdded,
    /// The node did not answer in time.
    Busy,
}

/// Catch-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncView {
    /// Whether blocks are being fetched.
    pub active: bool,
    /// Highest certified or claimed height known of peers.
    pub target: Height,
    /// Ranges and bytes in flight.
    pub ranges: usize,
    /// See `ranges`.
    pub bytes: usize,
    /// Peers that ranges were asked of.
    pub peers: usize,
    /// Height of the newest verified slot header.
    pub headers: Height,
    /// Height at which this catch-up began.
    pub from: Height,
    /// Blocks applied per 1,000 s since then.
    pub blocks_per_1000_s: u64,
    /// Seconds left at this rate; `None` while there is none.
    pub left_s: Option<u64>,
    /// Why it does not go faster.
    pub waiting: &'static str,
    /// A snapshot that is being fetched: its height (0: not known yet), and how many of its 257 pieces are there.
    pub snapshot: Option<(Height, usize)>,
}

/// What a node believes (F2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustView {
    /// Why it is unanchored, if it is.
    pub unanchored: Option<String>,
    /// Height of the newest slot header that it believes.
    pub anchor: Height,
    /// What its age counts from.
    pub anchor_time: WallMs,
    /// The block that the operator vouches for.
    pub root: Option<(Height, BlockId)>,
}

/// Clocks (S4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClockView {
    /// Median of the peers' clocks minus ours, ms; `None` with fewer than 3 validators.
    pub offset_ms: Option<i64>,
    /// Why this node distrusts its clock.
    pub alarm: Option<String>,
}

/// Supply figures (L10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SupplyView {
    /// All that was ever issued.
    pub issued: Amount,
    /// All that was ever burned.
    pub burned: Amount,
    /// Fee pot.
    pub pot: Amount,
    /// Rewards accrued and not paid out.
    pub accrued: Amount,
    /// Collateral in the registry.
    pub collateral: Amount,
    /// Value of all unspent outputs.
    pub coins: Amount,
    /// Their number.
    pub coin_count: u64,
}

/// One consistent picture of a node, published by the consensus thread at every change.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// What the node knows of its own masternode, if it has an operator key.
    pub own_standing: Option<OwnStanding>,
    /// Newest decided block.
    pub tip: Tip,
    /// Highest height that is durable in the ledger.
    pub durable: Height,
    /// Height of the newest decided slot block; 0 until there is one.
    pub slot_height: Height,
    /// Number of slot blocks.
    pub slot_index: SlotIndex,
    /// Era.
    pub era: Era,
    /// Rule set in force.
    pub branch: Branch,
    /// The set that decides the next height.
    pub validators: Arc<ValidatorSet>,
    /// The registry, ascending id.
    pub masternodes: Arc<Vec<MasternodeView>>,
    /// Supply after the tip.
    pub supply: SupplyView,
    /// Engine.
    pub consensus: ConsensusView,
    /// The masternode run here, if any.
    pub own: Option<OwnMasternode>,
    /// Mempool in numbers.
    pub mempool: MempoolView,
    /// Connections.
    pub peers: Arc<Vec<PeerView>>,
    /// Catch-up.
    pub sync: SyncView,
    /// What is believed.
    pub trust: TrustView,
    /// Clocks.
    pub clock: ClockView,
    /// Decided blocks that the ledger on disk may not hold, ascending height without a gap up to the tip; may overlap with
    /// what is durable.
    pub recent: Vec<Arc<RecentBlock>>,
    /// Alarms in words.
    pub warnings: Vec<String>,
    /// The lowest height whose block an open fork may take back (B6); what was decided below it is final.
    pub contested: Option<Height>,
}

/// What never changes while the process runs.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The genesis.
    pub genesis: Arc<Genesis>,
    /// Its hash.
    pub chain: ChainId,
    /// Own node key.
    pub node_key: PublicKey,
    /// Own operator key, registered or not.
    pub operator: Option<PublicKey>,
    /// Addresses that peers may dial.
    pub p2p_addresses: Vec<SocketAddr>,
    /// Log file or "" (standard error).
    pub log_path: String,
    /// Whether a transaction is found by its txid.
    pub has_tx_index: bool,
}

impl NodeFacts {
    /// The network.
    pub fn network(&self) -> Network {
        self.genesis.network
    }
}

/// What a node remembers of a transaction that is in no decided block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Track {
    /// In the mempool.
    Pending,
    /// In a proposal of the height being decided.
    Proposed,
    /// An input was spent by a decided transaction.
    Conflicted {
        /// That transaction.
        by: Txid,
    },
    /// Evicted or expired; why.
    Dropped(String),
}

/// Why a transaction was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It breaks a rule: -26.
    #[error("{0}")]
    Invalid(String),
    /// An input does not exist or is spent: -25.
    #[error("input {0} does not exist or is already spent")]
    Missing(OutPoint),
    /// First seen wins: -26.
    #[error("input {outpoint} is already spent by the waiting transaction {by}")]
    Conflict {
        /// The input.
        outpoint: OutPoint,
        /// Who reserved it.
        by: Txid,
    },
    /// Already in a decided block: -27.
    #[error("the transaction is already final at height {0}")]
    AlreadyFinal(Height),
    /// Already in the mempool (sendrawtransaction answers its txid all the same).
    #[error("the transaction is already in the mempool")]
    AlreadyWaiting,
    /// The mempool is full of better paying ones: -26.
    #[error("the mempool is full and the fee is too low")]
    Full,
    /// No answer in time: -1.
    #[error("the node is busy: no answer within {0:?}; try again")]
    Busy(Duration),
    /// The node is stopping: -1.
    #[error("the node is shutting down")]
    Stopping,
}

/// What a check of a transaction found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptance {
    /// Its fee.
    pub fee: Amount,
}

/// Whether the node can answer at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Starting: what it is doing. Methods that need the ledger answer -28.
    WarmingUp(String),
    /// Everything is there.
    Running,
    /// A stop was asked for.
    Stopping,
}

/// A bounded queue between threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Name in the queue table.
    pub name: &'static str,
    /// Entries now.
    pub depth: usize,
    /// Bound.
    pub capacity: usize,
    /// Entries dropped because it was full.
    pub dropped: u64,
}

/// A thread's time by regime since it started, nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadView {
    /// Name.
    pub name: &'static str,
    /// Doing something.
    pub work_ns: u64,
    /// Nothing to do.
    pub idle_ns: u64,
    /// Waiting because something behind it is full.
    pub backpressure_ns: u64,
    /// Last sign of life.
    pub last_beat: MonoUs,
    /// Cores it may run on, as the operating system says.
    pub cores: Vec<usize>,
}

/// What is measured when somebody asks (metrics, health).
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// Free and total bytes of the ledger's disk.
    pub disk: Option<(u64, u64)>,
    /// Bytes used in the ledger file and the bound of its map.
    pub ledger_size: Option<(u64, u64)>,
    /// Queues.
    pub queues: Vec<QueueView>,
    /// Threads.
    pub threads: Vec<ThreadView>,
    /// Log lines so far by level, error first.
    pub log_lines: Vec<(&'static str, u64)>,
}

/// A running node, as methods see it.
pub trait Node: Send + Sync {
    /// Whether it can answer.
    fn phase(&self) -> Phase;
    /// What never changes.
    fn facts(&self) -> &NodeFacts;
    /// The newest published picture. Called first by every request, so an answer is at least as new as it.
    fn view(&self) -> Arc<NodeView>;
    /// The durable ledger.
    fn ledger(&self) -> &dyn LedgerRead;
    /// Both clocks.
    fn now(&self) -> crate::base::time::Now;
    /// Time since the process started.
    fn uptime(&self) -> Duration;
    /// Hands a transaction to the mempool; waits for the verdict (signatures included), at most `timeout`.
    fn submit(&self, tx: Tx, timeout: Duration) -> Result<Txid, SubmitError>;
    /// Judges a transaction as `submit` would and keeps nothing.
    fn check(&self, tx: Tx, timeout: Duration) -> Result<Acceptance, SubmitError>;
    /// A waiting transaction.
    fn mempool_entry(&self, txid: &Txid) -> Option<MempoolEntry>;
    /// Waiting transactions, at most `limit`.
    fn mempool_entries(&self, limit: usize) -> Vec<MempoolEntry>;
    /// The waiting transaction that reserved an outpoint.
    fn mempool_spender(&self, outpoint: &OutPoint) -> Option<Txid>;
    /// What is remembered of a transaction that is in no decided block.
    fn track(&self, txid: &Txid) -> Option<Track>;
    /// Milliseconds from first seen here to decided, while that is remembered.
    fn finality_ms(&self, txid: &Txid) -> Option<u64>;
    /// Does what an operator asks about peers, before it returns.
    fn peer_command(&self, command: PeerCommand) -> Result<(), PeerRefusal>;
    /// Bans in force.
    fn bans(&self) -> Arc<Vec<Ban>>;
    /// The fork that is open, else the last one that ended.
    fn fork(&self) -> Option<ForkInfo>;
    /// What ended the forks of this chain, by era.
    fn recoveries(&self) -> Vec<RecoveryCert>;
    /// B6 step 7: states which branch stays; the attempt, or why not.
    fn recover(&self, block: BlockId) -> Result<u32, String>;
    /// Asks the node to stop.
    fn stop(&self);
    /// Changes the log filter (`info`, `debug,net=trace`); the error says what is wrong with it.
    fn set_log_filter(&self, filter: &str) -> Result<(), String>;
    /// The log filter in force.
    fn log_filter(&self) -> String;
    /// What is measured when somebody asks.
    fn vitals(&self) -> Vitals;
    /// Names of the wallets that are loaded, ascending.
    fn wallet_names(&self) -> Vec<String>;
    /// A loaded wallet.
    fn wallet(&self, name: &str) -> Option<Arc<Mutex<Wallet>>>;
    /// The own operator key's signature that shows its possession (M1): of `possession_hash(message)`.
    fn possession(&self, message: &Hash) -> Option<Signature>;
}
