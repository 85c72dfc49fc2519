//! Every bound of the protocol, with its arithmetic (protocol tables B2 and B2b). A genesis may lower a consensus bound,
//! never raise it: this table is the compiled maximum that types and frame limits follow from.
//!
//! Names end in their unit: `_BYTES`, `_COUNT`, `_MS`; `_MAX` is inclusive.

// --- consensus bounds (C): part of what a valid block is -------------------------------------------------------------

/// Bodies of one block, encoded, witnesses and coinbase included.
pub const BLOCK_BODIES_BYTES_MAX: usize = 2_000_000;
/// Attestations and evidence of one slot block, encoded.
pub const SLOT_PART_BYTES_MAX: usize = 512 * 1024;
/// Transactions of one block, coinbase included.
pub const BLOCK_TX_COUNT_MAX: usize = 8_000;
/// Signature checks of one block's transactions (a policy input counts its m).
pub const BLOCK_SIGCHECK_COUNT_MAX: usize = 20_000;
/// One transaction, encoded with witnesses.
pub const TX_BYTES_MAX: usize = 100_000;
/// Inputs of one transaction.
pub const TX_INPUT_COUNT_MAX: usize = 1_000;
/// Outputs of one transaction other than a coinbase.
pub const TX_OUTPUT_COUNT_MAX: usize = 1_000;
/// Signature checks of one transaction.
pub const TX_SIGCHECK_COUNT_MAX: usize = 1_000;
/// Payload of any transaction.
pub const TX_PAYLOAD_BYTES_MAX: usize = 1_024;
/// Payload of a transfer: the memo.
pub const MEMO_BYTES_MAX: usize = 80;
/// Keys of one m-of-n policy (L3).
pub const POLICY_KEY_COUNT_MAX: usize = 16;
/// Members of a validator set.
pub const VALIDATOR_COUNT_MAX: usize = 512;
/// Entries of the masternode registry.
pub const REGISTERED_COUNT_MAX: usize = 4_096;
/// Outputs of a coinbase: each registered masternode may get its collateral and what it accrued (B5 step 9).
pub const COINBASE_OUTPUT_COUNT_MAX: usize = 2 * REGISTERED_COUNT_MAX;
/// Evidence of one slot block.
pub const EVIDENCE_COUNT_MAX: usize = 64;
/// Registry transactions of one slot block.
pub const REGISTRY_TX_COUNT_MAX: usize = 64;
/// A masternode's endpoint, `host:port`.
pub const ENDPOINT_BYTES_MAX: usize = 64;
/// Greatest power of one masternode, in TIME (B4: no i64 overflow).
pub const POWER_MAX: u64 = 1 << 40;
/// Balances of a genesis file.
pub const GENESIS_BALANCE_COUNT_MAX: usize = 100_000;
/// A genesis file.
pub const GENESIS_BYTES_MAX: usize = 32 << 20;

/// Bytes of a bitmap over a validator set.
pub const SIGNER_BITMAP_BYTES_MAX: usize = VALIDATOR_COUNT_MAX.div_ceil(8);
/// Bytes of a bitmap over the registry.
pub const REGISTRY_BITMAP_BYTES_MAX: usize = REGISTERED_COUNT_MAX.div_ceil(8);

// --- node bounds (N) --------------------------------------------------------------------------------------------------

/// Unconfirmed ancestors of a mempool transaction, and their bytes.
pub const ANCESTOR_COUNT_MAX: usize = 25;
/// Bytes of those ancestors together with the transaction.
pub const ANCESTOR_BYTES_MAX: usize = 101_000;
/// Transactions in the mempool (default).
pub const MEMPOOL_COUNT_DEFAULT: usize = 50_000;
/// Bytes in the mempool (default).
pub const MEMPOOL_BYTES_DEFAULT: usize = 64_000_000;
/// One peer may hold at most this share of the mempool: 1 / 8.
pub const MEMPOOL_PEER_SHARE: usize = 8;
/// A mempool transaction leaves after this time.
pub const MEMPOOL_EXPIRY_MS: u64 = 72 * 3_600_000;
/// Transactions whose parent is unknown.
pub const ORPHAN_COUNT_MAX: usize = 100;
/// Bytes of those.
pub const ORPHAN_BYTES_MAX: usize = 1_000_000;
/// They wait at most this long.
pub const ORPHAN_EXPIRY_MS: u64 = 60_000;
/// Remembered wtxids whose signatures were found good.
pub const VERIFIED_CACHE_COUNT: usize = 100_000;
/// Remembered wtxids that were refused.
pub const REJECT_CACHE_COUNT: usize = 50_000;
/// Observers that may connect in.
pub const PEER_INBOUND_COUNT: usize = 61;
/// Peers that a node dials.
pub const PEER_OUTBOUND_COUNT: usize = 16;
/// Validators with OperatorProof beside these.
pub const PEER_VALIDATOR_COUNT: usize = 600;
/// All connections of a node.
pub const PEER_COUNT_MAX: usize = PEER_INBOUND_COUNT + PEER_OUTBOUND_COUNT + PEER_VALIDATOR_COUNT;
/// Votes in one frame.
pub const VOTES_PER_FRAME: usize = 64;
/// Heartbeats in one frame.
pub const HEARTBEATS_PER_FRAME: usize = 64;
/// Pieces of evidence a node keeps for slot blocks: as many as one block takes.
pub const EVIDENCE_KEPT_COUNT_MAX: usize = EVIDENCE_COUNT_MAX;
/// Decided heights whose votes are kept for evidence of what comes late; the oldest go first.
pub const LATE_HEIGHT_COUNT_MAX: usize = 8;
/// Votes of those heights, about 200 B each; the oldest heights go first.
pub const LATE_VOTE_COUNT_MAX: usize = 16_384;
/// Transactions in one frame.
pub const TXS_PER_FRAME: usize = 1_024;
/// Addresses in one Peers frame.
pub const PEERS_PER_FRAME: usize = 250;
/// Wtxids in one inventory or request frame.
pub const INV_COUNT_MAX: usize = 1_000;
/// Blocks of one sync range.
pub const SYNC_RANGE_BLOCKS: u64 = 64;
/// Headers of one answer.
pub const HEADERS_COUNT_MAX: usize = 2_048;
/// Ranges in flight.
pub const SYNC_RANGE_COUNT: usize = 16;
/// Bytes in flight while syncing.
pub const SYNC_WINDOW_BYTES: usize = 64 << 20;
/// Rounds beyond its own for which a node computes a leader or keeps full votes (B4, B2).
pub const ROUNDS_AHEAD: u32 = 1;

/// How full a container is that others can fill, for checks and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Which one.
    pub name: &'static str,
    /// What it holds: elements, or bytes where the name says so.
    pub held: usize,
    /// The most it may hold.
    pub bound: usize,
}

impl Size {
    /// A container's size.
    pub fn new(name: &'static str, held: usize, bound: usize) -> Size {
        Size { name, held, bound }
    }
}

// --- frames (B2b): body limit by type ---------------------------------------------------------------------------------

/// Hello.
pub const FRAME_HELLO_BYTES: usize = 1_024;
/// OperatorProof.
pub const FRAME_OPERATOR_PROOF_BYTES: usize = 512;
/// Ping, Pong, Status, Reject.
pub const FRAME_SMALL_BYTES: usize = 256;
/// Proposal.
pub const FRAME_PROPOSAL_BYTES: usize = 768 * 1024;
/// Vote (1..64).
pub const FRAME_VOTE_BYTES: usize = 16 * 1024;
/// VoteBitmap.
pub const FRAME_VOTE_BITMAP_BYTES: usize = 4 * 1024;
/// Polka.
pub const FRAME_POLKA_BYTES: usize = 64 * 1024;
/// Heartbeat (1..64).
pub const FRAME_HEARTBEAT_BYTES: usize = 16 * 1024;
/// Attestation.
pub const FRAME_ATTESTATION_BYTES: usize = 1_024;
/// Evidence.
pub const FRAME_EVIDENCE_BYTES: usize = 4 * 1024;
/// Requests that name a position: GetHeaders, GetCertificate, GetProposal, GetPolka, GetAttestations, GetChunk.
pub const FRAME_REQUEST_BYTES: usize = 64;
/// Headers.
pub const FRAME_HEADERS_BYTES: usize = 1 << 20;
/// GetBlocks.
pub const FRAME_GET_BLOCKS_BYTES: usize = 1_024;
/// Block, with its certificate.
pub const FRAME_BLOCK_BYTES: usize = 4 << 20;
/// Certificate.
pub const FRAME_CERTIFICATE_BYTES: usize = 64 * 1024;
/// GetBodies.
pub const FRAME_GET_BODIES_BYTES: usize = 260 * 1024;
/// Bodies.
pub const FRAME_BODIES_BYTES: usize = 2 << 20;
/// TxInv and GetTx.
pub const FRAME_TX_INV_BYTES: usize = 32 * 1024;
/// Tx (1..1,024 transactions).
pub const FRAME_TX_BYTES: usize = 104 * 1024;
/// GetPeers.
pub const FRAME_GET_PEERS_BYTES: usize = 16;
/// Peers.
pub const FRAME_PEERS_BYTES: usize = 16 * 1024;
/// SnapshotInfo, ForkProof.
pub const FRAME_PROOF_BYTES: usize = 256 * 1024;
/// Chunk.
pub const FRAME_CHUNK_BYTES: usize = 1 << 20;
/// Statement.
pub const FRAME_STATEMENT_BYTES: usize = 512;
/// RecoveryCert.
pub const FRAME_RECOVERY_BYTES: usize = 512 * 1024;
/// A frame longer than this travels in fragments of at most this size (P1).
pub const FRAGMENT_BYTES_MAX: usize = 16 * 1024;

const _: () = {
    // A certificate: one 64-byte signature a validator, its bitmap, some 100 bytes beside.
    assert!(VALIDATOR_COUNT_MAX * 64 + SIGNER_BITMAP_BYTES_MAX + 256 <= FRAME_CERTIFICATE_BYTES);
    // A proposal: short ids, last_commit, slot part, header.
    assert!(
        BLOCK_TX_COUNT_MAX * 8 + VALIDATOR_COUNT_MAX * 64 + SLOT_PART_BYTES_MAX + 4_096
            <= FRAME_PROPOSAL_BYTES,
        "a full proposal fits its frame"
    );
    // A block: bodies, slot part, last_commit, certificate, header.
    assert!(
        BLOCK_BODIES_BYTES_MAX + SLOT_PART_BYTES_MAX + 2 * FRAME_CERTIFICATE_BYTES
            <= FRAME_BLOCK_BYTES
    );
    // The list of (txid, wtxid) of a full block fits one Bodies frame; so does the largest coinbase beside transactions.
    assert!(BLOCK_TX_COUNT_MAX * 64 + 64 <= FRAME_BODIES_BYTES);
    assert!(BLOCK_BODIES_BYTES_MAX + 4_096 <= FRAME_BODIES_BYTES);
    // A request for every body of a block by wtxid (32 bytes each) or position.
    assert!(BLOCK_TX_COUNT_MAX * 32 + 128 <= FRAME_GET_BODIES_BYTES);
    assert!(TX_BYTES_MAX + 16 <= FRAME_TX_BYTES);
    // An address: 16 bytes and a port.
    assert!(PEERS_PER_FRAME * 18 + 8 <= FRAME_PEERS_BYTES);
    // A heartbeat: 64-byte signature, 93 bytes of body.
    assert!(HEARTBEATS_PER_FRAME * 160 + 8 <= FRAME_HEARTBEAT_BYTES);
    // An attestation: bitmap over the registry, signature, 96 bytes of names.
    assert!(REGISTRY_BITMAP_BYTES_MAX + 64 + 128 <= FRAME_ATTESTATION_BYTES);
    assert!(INV_COUNT_MAX * 32 + 8 <= FRAME_TX_INV_BYTES);
    // B4: |prio| <= 3 S must fit i64.
    assert!((VALIDATOR_COUNT_MAX as u128) * (POWER_MAX as u128) * 3 < i64::MAX as u128);
};
