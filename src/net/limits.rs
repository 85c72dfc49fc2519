//! Bounds of the net layer (B2, B2b): each with its reason, and the relations between them.

use std::time::Duration;

/// Body of one unit on the wire, bytes. 16 KiB is also the greatest TLS record.
pub const UNIT_MAX: usize = 16 * 1024;
/// Header of a unit: length (4) and kind (1).
pub const UNIT_HEADER: usize = 5;
/// Head inside a first fragment: total length (4) and frame type (1).
pub const FIRST_FRAGMENT_HEAD: usize = 5;
/// Payload bytes that a first fragment carries.
pub const FIRST_FRAGMENT_DATA: usize = UNIT_MAX - FIRST_FRAGMENT_HEAD;

/// Outbound bound for consensus frames of one peer, bytes (B2). Beyond it the peer is cut, without a score.
pub const OUT_CONSENSUS_MAX: usize = 4_000_000;
/// Outbound bound for sync frames (blocks) of one peer, bytes (B2). Beyond it the peer is cut, without a score.
pub const OUT_SYNC_MAX: usize = 8_000_000;
/// Outbound bound for transaction frames of one peer, bytes (B2). Beyond it frames are dropped and counted.
pub const OUT_TX_MAX: usize = 1_000_000;
/// Outbound bound for each other class of one peer, bytes (B2). Beyond it frames are dropped and counted.
pub const OUT_OTHER_MAX: usize = 256_000;
/// What a queued frame costs beside its payload, so that empty frames are bounded too.
pub const OUT_FRAME_OVERHEAD: usize = 64;

/// Inbound TLS handshakes under way at once (B2).
pub const HANDSHAKES_MAX: usize = 64;
/// Of these, from one network group (B2).
pub const HANDSHAKES_PER_GROUP_MAX: usize = 4;
/// At a full bound a newcomer takes the place of the oldest handshake, if that is at least this old: an honest
/// handshake is over by then, so a flood of half-open connections cannot lock honest nodes out.
pub const HANDSHAKE_EVICTABLE_AFTER: Duration = Duration::from_millis(250);
/// Addresses, and network groups, whose handshakes are counted at once; beyond it those that have been quiet are forgotten.
pub const HANDSHAKE_SOURCES_MAX: usize = 4_096;
/// Dials under way at once; each is our own decision, the bound only contains a mistake above.
pub const DIALS_MAX: usize = 128;

/// Bytes read from (and written to) one connection before others get their turn.
pub const TURN_BYTES: usize = 256 * 1024;
/// Bytes asked of the kernel by one read.
pub const READ_CHUNK: usize = 64 * 1024;
/// Plaintext sealed at once when a connection is flushed; bounds how far a consensus frame can wait behind others.
pub const SEAL_CHUNK: usize = 32 * 1024;
/// Unsent bytes that the kernel may hold for one peer, for the same reason.
pub const KERNEL_UNSENT: u32 = 64 * 1024;
/// Connections taken from one listener before others get their turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Pending connections that the kernel keeps for a listener.
pub const BACKLOG: i32 = 1024;
/// How long a listener rests when the process is out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// HTTP connections served at once (B2).
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Connections beyond that bound which are told 503 before they are closed; more are closed at once.
pub const HTTP_TURNED_AWAY_MAX: usize = 32;
/// Head of an HTTP request, bytes (B2).
pub const HTTP_HEAD_MAX: usize = 16 * 1024;
/// Header fields of an HTTP request.
pub const HTTP_FIELDS_MAX: usize = 64;
/// Body of an HTTP request, bytes (B2), unless the configuration says otherwise.
pub const HTTP_BODY_MAX: usize = 1_000_000;
/// A line that announces a chunk of a chunked body, bytes.
pub const HTTP_CHUNK_LINE_MAX: usize = 256;
/// Bytes that are read and thrown away after a final answer, so that the client gets to read it.
pub const HTTP_LINGER_BYTES: usize = 4_000_000;
/// Slowest accepted reader of a response: this many bytes in every write timeout.
pub const HTTP_WRITE_STEP: usize = 64 * 1024;

const _: () = assert!(
    UNIT_HEADER + UNIT_MAX <= READ_CHUNK,
    "one read can hold a whole unit"
);
const _: () = assert!(
    HANDSHAKES_PER_GROUP_MAX < HANDSHAKES_MAX,
    "one group cannot take all handshakes"
);
const _: () = assert!(
    OUT_CONSENSUS_MAX > 3 * 1024 * 1024,
    "room for a GetBodies answer of 2 MiB and a Proposal behind it"
);
const _: () = assert!(
    OUT_SYNC_MAX > 4 * 1024 * 1024,
    "room for one Block of 4 MiB"
);
const _: () = assert!(
    usize::BITS >= 64,
    "a mio token holds an index and a generation"
);
