//! What net and the layer above say to each other: identifiers, reasons, counters, and the trait that L8 implements.
//!
//! Input and output only; no behaviour lives here.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::frame::{Class, Fault, FrameRule};
use super::http::HttpRequest;
use super::io::Io;
use super::slab::Key;

/// An ed25519 node key, raw.
pub type PeerKey = [u8; 32];

/// One peer connection. Carries a generation: after the connection is gone the id reaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) Key);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

/// One attempt to reach an address; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub(super) u64);

/// One request that waits for its answer. A token whose client went away, or that was answered, reaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpToken {
    pub(super) key: Key,
    pub(super) sequence: u64,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled; the id that [`Io::dial`] returned.
    Outbound(DialId),
}

/// What is known of a connection when its TLS handshake is over.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo {
    /// Node key whose secret half the peer has proved to hold.
    pub peer_key: PeerKey,
    /// Address of the peer; IPv4-mapped addresses are shown as IPv4.
    pub remote: SocketAddr,
    pub direction: Direction,
    /// TLS exporter value, label `EXPORTER-timecoin-operator-proof`, no context: equal on both ends, unique to this
    /// connection. An OperatorProof signs it (P1).
    pub exporter: [u8; 32],
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// The network failed it.
    #[error("connection failed: {0}")]
    Network(std::io::ErrorKind),
    /// TLS failed after the handshake: an alert of the peer (for a dialled connection also "your key is not welcome"),
    /// or damaged records. Proves nothing against the peer.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The peer broke the frame format: a provable fault (P3).
    #[error("peer at fault: {0}")]
    Fault(Fault),
    /// The peer did not read what it was sent, for the whole drain timeout. Slow is never a fault.
    #[error("peer reads too slowly")]
    SlowReader,
    /// The peer began a frame and did not finish it within the frame timeout. Slow is never a fault.
    #[error("peer writes too slowly")]
    SlowWriter,
    /// The bounded outbound queue of this class is full. Slow is never a fault.
    #[error("outbound queue {0} is full")]
    OutboundFull(Class),
    /// [`Io::close`], with the caller's word for it.
    #[error("closed here: {0}")]
    Local(&'static str),
}

impl CloseReason {
    /// The provable fault of the peer, if that was the reason.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            CloseReason::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

/// Why a dial led to no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// TCP could not connect, or broke during the handshake.
    #[error("cannot connect: {0}")]
    Connect(std::io::ErrorKind),
    /// Connecting and handshake took longer than the handshake timeout.
    #[error("no TLS connection within the handshake timeout")]
    Timeout,
    /// The peer speaks no TLS, another version, or refused us.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// Somebody else than expected answers there.
    #[error("another node answers at this address (its key differs from the expected one)")]
    WrongKey {
        /// The key that was presented, and proved.
        found: PeerKey,
    },
    /// A bound of the configuration is reached; try again when connections have closed.
    #[error("too many connections")]
    TooMany,
}

/// What became of a frame given to [`Io::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It will be sent, unless the connection ends.
    Queued,
    /// The queue of its class is full; the frame is dropped and counted.
    Dropped,
    /// The queue of its class is full; the connection is cut and `on_closed` follows.
    Overflow,
    /// No such connection (any more).
    Gone,
    /// Frame type above [`super::frame::FRAME_TYPE_MAX`] or payload above 4 GiB: a mistake of the caller.
    Invalid,
}

/// Counters of one connection; all grow only, except `queued`.
#[derive(Clone, Copy, Debug)]
pub struct ConnCounters {
    /// When the TLS handshake was over.
    pub since: Instant,
    /// Bytes read from and written to the socket, TLS included.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Frames handed up, and frames handed completely to TLS.
    pub frames_in: u64,
    pub frames_out: u64,
    /// Frames dropped because the queue of their class was full, by [`Class::index`].
    pub dropped: [u64; 6],
    /// Bytes queued for the peer now.
    pub queued: usize,
}

/// Counters of the whole net thread since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetCounters {
    /// Peer connections accepted, and dials started.
    pub accepted: u64,
    pub dialled: u64,
    /// Handshakes finished (both directions).
    pub handshakes: u64,
    /// Inbound connections closed because a bound on handshakes or connections was reached.
    pub refused: u64,
    /// Inbound handshakes that took too long, made room for a newcomer, or broke.
    pub handshakes_stalled: u64,
    pub handshakes_evicted: u64,
    pub handshakes_failed: u64,
    /// Peers cut for a provable fault, as slow readers, for a full queue.
    pub faults: u64,
    pub slow_readers: u64,
    pub overflows: u64,
    /// Frames dropped by full queues.
    pub frames_dropped: u64,
    /// `accept` failed (out of file descriptors).
    pub accept_errors: u64,
    /// HTTP connections accepted, turned away with 503, cut by a timeout.
    pub http_accepted: u64,
    pub http_turned_away: u64,
    pub http_timeouts: u64,
    /// Requests handed up, and malformed requests answered here.
    pub http_requests: u64,
    pub http_malformed: u64,
}

/// The layer above. Every call comes from the net thread and must return quickly.
///
/// Order of calls for a connection: `on_connected`, any number of `on_frame`, `on_closed` exactly once (also after
/// [`Io::close`]). A dial ends in exactly one of `on_connected` and `on_dial_failed`. After [`Io::close`] or
/// [`Io::pause_reading`] no further `on_frame` of that connection comes; after a pause until it is resumed.
pub trait Handler {
    /// TLS is finished. A dialled connection may still be refused by the peer: trust it after its first message.
    fn on_connected(&mut self, io: &mut Io, conn: ConnId, info: &ConnInfo);
    /// A complete frame, within its rule.
    fn on_frame(&mut self, io: &mut Io, conn: ConnId, frame_type: u8, payload: Vec<u8>);
    /// The connection is gone.
    fn on_closed(&mut self, io: &mut Io, conn: ConnId, why: &CloseReason);
    /// The dial led to no connection.
    fn on_dial_failed(&mut self, io: &mut Io, dial: DialId, why: &DialError);
    /// A complete HTTP request; answer with [`Io::respond`], now or later.
    fn on_http(&mut self, io: &mut Io, request: HttpRequest);
    /// The client of an unanswered request went away; its token reaches nothing any more.
    fn on_http_gone(&mut self, io: &mut Io, token: HttpToken);
    /// Another thread called [`super::WakeHandle::wake`], or the loop starts: drain the queues that feed net.
    fn on_wake(&mut self, io: &mut Io);
    /// The time given to [`Io::set_deadline`] has come; it is unset now.
    fn on_deadline(&mut self, io: &mut Io);
    /// What is allowed for this type on this connection now; `None` closes it with a fault. Asked before allocation.
    fn frame_rule(&self, conn: ConnId, frame_type: u8) -> Option<FrameRule>;
    /// Everything of this turn of the loop is delivered; output queued until now is sent next.
    fn on_turn_end(&mut self, _io: &mut Io) {}
}
