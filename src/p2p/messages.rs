//! Every frame that peers exchange (table B2b): type, body limit, class. Input: a frame's type and bytes; output: a
//! [`Message`], or an error that is the sender's fault. Bounds are in the types; nothing is validated here.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::limits::*;
use crate::base::time::WallMs;
use crate::crypto::keys::{PublicKey, Signature};
use crate::ledger::snapshot::{CHUNK_BYTES, Contents};
use crate::types::bitmap::Bitmap;
use crate::types::block::{Block, Certificate, CertifiedHeader, Commit, Header};
use crate::types::codec::{self, DecodeError};
use crate::types::fork::{Decision, ForkProof, RecoveryCert, Tie};
use crate::types::ids::*;
use crate::types::masternode::{Attestation, Evidence, Heartbeat, SlotPart, Statement};
use crate::types::polka::Polka;
use crate::types::transaction::{Endpoint, Tx};
use crate::types::vote::{SignedProposal, Vote};
use serde::{Deserialize, Serialize};

/// Version of the peer protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// A connection, named by whoever owns the sockets; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// What a frame competes with in the queues of a connection (P2). Consensus goes first in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Proposals, votes, certificates and what repairs them.
    Consensus,
    /// Greetings and pings.
    Control,
    /// Heartbeats, attestations, evidence.
    Liveness,
    /// Blocks for nodes that catch up.
    Sync,
    /// Transactions.
    Tx,
    /// Forks and the way out of them.
    Fork,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Height of the snapshot.
    pub height: Height,
    /// Bucket; 256: the rest of the state.
    pub bucket: u16,
    /// Which chunk of it.
    pub index: u32,
    /// The bytes.
    pub bytes: BoundedBytes<CHUNK_BYTES>,
}

/// First frame of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u16,
    /// Which network.
    pub chain: ChainId,
    /// Software, for people.
    pub agent: BoundedBytes<64>,
    /// Highest branch the software knows (L15).
    pub supports: Branch,
    /// Where others may dial this node, if anywhere.
    pub endpoint: Option<Endpoint>,
    /// Where the sender stands.
    pub status: Status,
    /// The sender only wants to see this end's OperatorProof and closes then (M4): it is no peer.
    pub probe: bool,
}

/// A masternode's operator key signs the TLS session (P1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorProof {
    /// Whose key.
    pub masternode: MasternodeId,
    /// The operator key that signed.
    pub operator: PublicKey,
    /// Over {chain id, TLS exporter, dialled, prover's node key, verifier's node key} in its own domain.
    pub signature: Signature,
}

/// Where a node stands (S8). Sent after every decision and in every ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Era.
    pub era: Era,
    /// Height decided.
    pub height: Height,
    /// Block decided there.
    pub block: BlockId,
    /// Greatest height at which the sender's operator key has signed; 0 if it has not. A node that rebuilds its ledger is
    /// behind what it once knew: who asks for tips (B7 step 4) must not take its height for the network's.
    pub voted: Height,
    /// Slot of the sender's wall clock.
    pub slot: Slot,
    /// The sender's wall clock.
    pub clock: WallMs,
}

/// A block offered for a round, its transactions named by short ids (S8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's signature and what it covers.
    pub signed: SignedProposal,
    /// Header; its hash is the block id that is signed.
    pub header: Header,
    /// Bound by header.last_commit_hash.
    pub last_commit: Commit,
    /// Bound by header.slot_root.
    pub slot_part: SlotPart,
    /// One for each transaction in block order.
    pub short_ids: BoundedVec<[u8; 8], BLOCK_TX_COUNT_MAX>,
}

/// What a node holds of one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundHeld {
    /// Which round.
    pub at: EraRound,
    /// Whether its proposal is there.
    pub proposal: bool,
    /// Prevotes held, over the validator set.
    pub prevotes: Bitmap,
    /// Precommits held, over the validator set.
    pub precommits: Bitmap,
}

/// Rounds that one bitmap frame covers: current, previous, and rounds with a known polka.
pub const ROUNDS_HELD_MAX: usize = 16;

/// Which votes of a height a node holds, so that the peer sends what is missing (S8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteBitmap {
    /// Height.
    pub height: Height,
    /// The sender's round.
    pub round: EraRound,
    /// By round, ascending.
    pub rounds: BoundedVec<RoundHeld, ROUNDS_HELD_MAX>,
}

/// Which transactions of a proposed block are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodiesWanted {
    /// Those at these positions, ascending.
    Positions(BoundedVec<u16, BLOCK_TX_COUNT_MAX>),
    /// The names of all (txid, wtxid).
    List,
    /// Those with these wtxids.
    Wtxids(BoundedVec<Wtxid, BLOCK_TX_COUNT_MAX>),
}

/// Request for transactions of a proposed block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBodies {
    /// Which block.
    pub block: BlockId,
    /// Which of its transactions.
    pub wanted: BodiesWanted,
}

/// Answer to [`GetBodies`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodiesFound {
    /// Transactions with their positions.
    Transactions(BoundedVec<(u16, Tx), BLOCK_TX_COUNT_MAX>),
    /// Names of all, in block order.
    List(BoundedVec<(Txid, Wtxid), BLOCK_TX_COUNT_MAX>),
}

/// Transactions of a proposed block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bodies {
    /// Which block.
    pub block: BlockId,
    /// What was wanted.
    pub found: BodiesFound,
}

/// A decided block with its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedBlock {
    /// The block.
    pub block: Block,
    /// Why it is decided.
    pub certificate: Certificate,
}

/// Where a node can be dialled, as peers tell one another (P4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerAddress {
    /// IPv6, or IPv4 in its mapped form.
    pub ip: [u8; 16],
    /// Port.
    pub port: u16,
}

/// Addresses of one frame.
pub type PeerList = BoundedVec<PeerAddress, PEERS_PER_FRAME>;

/// Why a peer refuses to go on, for people at the other end.
pub type RejectReason = BoundedBytes<200>;

/// Why a frame cannot be read. Always the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such type.
    #[error("unknown frame type {0}")]
    Unknown(u8),
    /// The body is not the type's encoding.
    #[error(transparent)]
    Body(#[from] DecodeError),
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $code:literal, $limit:expr, $class:ident;)*) => {
        /// One frame's content.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Message { $($(#[$doc])* $name($body),)* }

        impl Message {
            /// The frame's type byte.
            pub fn code(&self) -> u8 {
                match self { $(Message::$name(_) => $code,)* }
            }
            /// The type byte of [`Message::Block`], whose body may come encoded from the disk.
            pub const BLOCK: u8 = 51;
            /// The name of a type byte, for logs and metrics.
            pub fn name(code: u8) -> Option<&'static str> {
                match code { $($code => Some(stringify!($name)),)* _ => None }
            }
            /// Limit in bytes and class of a type byte; `None` for an unknown type, which is a fault.
            pub fn rule(code: u8) -> Option<(usize, Class)> {
                match code { $($code => Some(($limit, Class::$class)),)* _ => None }
            }
            /// All type bytes.
            pub const CODES: &'static [u8] = &[$($code,)*];
            /// The frame's body.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Message::$name(body) => codec::encode(body),)* }
            }
            /// Reads a frame's body within its type's limit.
            pub fn decode(code: u8, body: &[u8]) -> Result<Message, FrameError> {
                match code {
                    $($code => Ok(Message::$name(codec::decode::<$body>(body, $limit)?)),)*
                    _ => Err(FrameError::Unknown(code)),
                }
            }
        }
    };
}

messages! {
    /// First frame of each side. Of the class that goes first, as nothing may overtake it.
    Hello(Box<Hello>) = 1, FRAME_HELLO_BYTES, Consensus;
    /// A masternode shows its operator key. Of the class of the votes that must follow it (B7 step 2).
    OperatorProof(OperatorProof) = 2, FRAME_OPERATOR_PROOF_BYTES, Consensus;
    /// Are you there? With the sender's status.
    Ping(Status) = 3, FRAME_SMALL_BYTES, Control;
    /// Yes. Echoes the ping's clock.
    Pong(WallMs) = 4, FRAME_SMALL_BYTES, Control;
    /// Where the sender stands.
    Status(Status) = 5, FRAME_SMALL_BYTES, Control;
    /// Why the sender is about to close.
    Reject(RejectReason) = 6, FRAME_SMALL_BYTES, Control;
    /// Asks for addresses of other nodes.
    GetPeers(()) = 7, FRAME_GET_PEERS_BYTES, Control;
    /// Addresses of other nodes.
    Peers(PeerList) = 8, FRAME_PEERS_BYTES, Control;
    /// A block offered for a round.
    Proposal(Box<Proposal>) = 16, FRAME_PROPOSAL_BYTES, Consensus;
    /// Votes; empty means "I hold none of yours", after an OperatorProof and to who asks with a bitmap (B7 step 2).
    Votes(BoundedVec<Vote, VOTES_PER_FRAME>) = 17, FRAME_VOTE_BYTES, Consensus;
    /// Which votes the sender holds.
    VoteBitmap(Box<VoteBitmap>) = 18, FRAME_VOTE_BITMAP_BYTES, Consensus;
    /// A polka.
    Polka(Box<Polka>) = 19, FRAME_POLKA_BYTES, Consensus;
    /// Asks for the proposal of (height, round).
    GetProposal((Height, EraRound)) = 20, FRAME_REQUEST_BYTES, Consensus;
    /// Asks for a polka (height, round, block).
    GetPolka((Height, EraRound, BlockId)) = 21, FRAME_REQUEST_BYTES, Consensus;
    /// Asks for the certificate of a height.
    GetCertificate(Height) = 22, FRAME_REQUEST_BYTES, Consensus;
    /// A certificate.
    Certificate(Box<Certificate>) = 23, FRAME_CERTIFICATE_BYTES, Consensus;
    /// Asks for transactions of a proposed block.
    GetBodies(GetBodies) = 24, FRAME_GET_BODIES_BYTES, Consensus;
    /// Transactions of a proposed block.
    Bodies(Bodies) = 25, FRAME_BODIES_BYTES, Consensus;
    /// Heartbeats of masternodes (M4).
    Heartbeats(BoundedVec<Heartbeat, HEARTBEATS_PER_FRAME>) = 32, FRAME_HEARTBEAT_BYTES, Liveness;
    /// Who was there in a slot, as one member of the set saw it (M4).
    Attestation(Box<Attestation>) = 33, FRAME_ATTESTATION_BYTES, Liveness;
    /// Proof of an offence (M7).
    Evidence(Box<Evidence>) = 34, FRAME_EVIDENCE_BYTES, Liveness;
    /// Asks for attestations of a slot over the registry of a slot block (slot, base).
    GetAttestations((Slot, BlockId)) = 35, FRAME_REQUEST_BYTES, Liveness;
    /// Asks for `count` blocks from a height.
    GetBlocks((Height, u16)) = 50, FRAME_GET_BLOCKS_BYTES, Sync;
    /// A block that was asked for.
    Block(Box<CertifiedBlock>) = 51, FRAME_BLOCK_BYTES, Sync;
    /// Asks for headers from a height on; of slot blocks only, or of all.
    GetHeaders((Height, bool)) = 52, FRAME_REQUEST_BYTES, Sync;
    /// Headers with their certificates, and sets where they change.
    Headers(BoundedVec<CertifiedHeader, HEADERS_COUNT_MAX>) = 53, FRAME_HEADERS_BYTES, Sync;
    /// The height that was asked for is not kept; the lowest that is.
    Unavailable((Height, Height)) = 54, FRAME_REQUEST_BYTES, Sync;
    /// Asks which snapshot is served (F4).
    GetSnapshot(()) = 55, FRAME_REQUEST_BYTES, Sync;
    /// The contents of the newest snapshot, if there is one.
    SnapshotInfo(Option<Box<Contents>>) = 56, FRAME_PROOF_BYTES, Sync;
    /// Asks for a chunk: height of the snapshot, bucket (256: the rest of the state), index.
    GetChunk((Height, u16, u32)) = 57, FRAME_REQUEST_BYTES, Sync;
    /// A chunk.
    Chunk(Box<Chunk>) = 58, FRAME_CHUNK_BYTES, Sync;
    /// Names transactions the sender holds.
    TxInv(BoundedVec<Wtxid, INV_COUNT_MAX>) = 64, FRAME_TX_INV_BYTES, Tx;
    /// Asks for transactions.
    GetTx(BoundedVec<Wtxid, INV_COUNT_MAX>) = 65, FRAME_TX_INV_BYTES, Tx;
    /// Transactions.
    Txs(BoundedVec<Tx, TXS_PER_FRAME>) = 66, FRAME_TX_BYTES, Tx;
    /// Two decisions of one height (B6).
    ForkProof(Box<ForkProof>) = 80, FRAME_PROOF_BYTES, Fork;
    /// Which branch of a fork a masternode held.
    Statement(Statement) = 81, FRAME_STATEMENT_BYTES, Fork;
    /// How an era ended.
    RecoveryCert(Box<RecoveryCert>) = 82, FRAME_RECOVERY_BYTES, Fork;
    /// Asks what was decided at a height: the search for the first difference between two chains.
    GetDecision(Height) = 83, FRAME_REQUEST_BYTES, Fork;
    /// Header and certificate of a height.
    Decision(Box<Decision>) = 84, FRAME_CERTIFICATE_BYTES, Fork;
    /// A polka of a new era with its header, which names a RecoveryCert (B6).
    Tie(Box<Tie>) = 85, FRAME_POLKA_BYTES, Fork;
}

impl Message {
    /// Whether frames of this type come only to who asked for them (GetBodies, GetBlocks, GetHeaders, GetSnapshot, GetChunk):
    /// the large ones, for which a stranger gets no memory.
    pub fn is_answer(code: u8) -> bool {
        matches!(code, 25 | 51 | 53 | 54 | 56 | 58)
    }

    /// Whether frames of this type ask for such an answer.
    pub fn is_request(code: u8) -> bool {
        matches!(code, 24 | 50 | 52 | 55 | 57)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn types_are_distinct_and_bounded() {
        let mut codes = Message::CODES.to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Message::CODES.len(), "one code per type");
        assert_eq!(Message::decode(255, &[]), Err(FrameError::Unknown(255)));
        let ping = Message::Ping(Status::default());
        assert_eq!(Message::decode(ping.code(), &ping.encode()), Ok(ping));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_and_what_decodes_encodes_the_same(
            code in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(message) = Message::decode(code, &bytes) {
                prop_assert_eq!(message.encode(), bytes, "L7: one encoding");
                prop_assert_eq!(message.code(), code);
            }
        }
    }
}
