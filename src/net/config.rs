//! What the net thread is made from, and what it reports.
//!
//! Plain data; the defaults are those of the protocol (B2).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::http::HttpLimits;
use super::limits::HTTP_CONNECTIONS_MAX;
use super::tls::NodeIdentity;

/// How long things may take. The defaults are those of the protocol (B2); tests shorten them.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Connecting and TLS handshake together.
    pub handshake: Duration,
    /// A peer must have taken everything that was queued this long ago.
    pub drain: Duration,
    /// A frame that has begun must be complete after this time; while this end does not read, it is not counted.
    pub frame: Duration,
    /// HTTP: between requests; from the first byte to the end of the head; the body.
    pub http_idle: Duration,
    pub http_head: Duration,
    pub http_body: Duration,
    /// HTTP: each step of writing an answer.
    pub http_write: Duration,
    /// HTTP: how long a client that closed its sending half gets an answer.
    pub http_half_closed: Duration,
    /// HTTP: how long a client gets to read the last answer.
    pub http_linger: Duration,
    /// Longest stay in `poll`, so that an idle thread still reports (watchdog, metrics).
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            frame: Duration::from_secs(120),
            http_idle: Duration::from_secs(30),
            http_head: Duration::from_secs(10),
            http_body: Duration::from_secs(30),
            http_write: Duration::from_secs(30),
            http_half_closed: Duration::from_secs(5),
            http_linger: Duration::from_secs(2),
            idle: Duration::from_secs(1),
        }
    }
}

/// How often TLS handshakes may begin, per minute; 0 = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeRates {
    /// From one address (of IPv6 one /64).
    pub per_address: u64,
    /// From one network group.
    pub per_group: u64,
}

/// What the net thread is made from.
#[derive(Clone)]
pub struct NetConfig {
    pub identity: NodeIdentity,
    /// Addresses to listen on; port 0 lets the system choose (see [`super::Reactor::local_addrs`]). An IPv6 address takes
    /// IPv6 only.
    pub p2p_listen: Vec<SocketAddr>,
    pub http_listen: Vec<SocketAddr>,
    /// Bound on peer connections, in both directions, including those that still shake hands.
    pub max_connections: usize,
    /// Bound on HTTP connections (B2: 256).
    pub max_http: usize,
    pub http_limits: HttpLimits,
    pub timeouts: Timeouts,
    /// Addresses without a group bound on handshakes; see [`super::Io::set_exempt`].
    pub exempt: BTreeSet<IpAddr>,
    /// How often handshakes may begin; see [`super::Io::set_handshake_rates`].
    pub handshakes: HandshakeRates,
}

impl NetConfig {
    /// The defaults: no listeners, 1,024 peers.
    pub fn new(identity: NodeIdentity) -> Self {
        NetConfig {
            identity,
            p2p_listen: Vec::new(),
            http_listen: Vec::new(),
            max_connections: 1024,
            max_http: HTTP_CONNECTIONS_MAX,
            http_limits: HttpLimits::default(),
            timeouts: Timeouts::default(),
            exempt: BTreeSet::new(),
            handshakes: HandshakeRates::default(),
        }
    }
}

/// The net thread cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Exit code 69 when the address is in use.
    #[error(
        "cannot listen on {address}: {error}; choose another address or stop the program that uses it"
    )]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("the event loop of the net thread failed: {0}")]
    Poll(#[from] io::Error),
}

/// The addresses that are really listened on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddrs {
    pub p2p: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
}

/// One turn of the loop, for metrics and the watchdog.
#[derive(Clone, Copy, Debug)]
pub struct LoopStats {
    /// Time in `poll`.
    pub idle: Duration,
    /// Time in everything else.
    pub work: Duration,
    /// Readiness events handled.
    pub events: usize,
    /// Connections that wait for another turn: above 0 the thread is behind.
    pub backlog: usize,
}
