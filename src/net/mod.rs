//! net (L6): everything that owns sockets, on one thread.
//!
//! Job: run every peer connection (TLS 1.3 with raw ed25519 keys, P1) and every HTTP connection on one mio `Poll`,
//! turn bytes into frames and requests, frames and responses into bytes, and enforce the bounds of B2 and B2b that can
//! be enforced without knowing what a message means.
//! Inputs: sockets, the verbs of [`Io`], wake-ups through [`WakeHandle`], time from the operating system.
//! Outputs: calls of the [`Handler`] that layer L8 implements.
//! Must never: decode a message, judge a peer (it only reports a [`Fault`]), block anywhere but in `poll`, read a clock
//! outside `reactor.rs`, or allocate on the word of a peer.
//!
//! Read in this order: `frame` (the wire format), `outbound` (queues and their bounds), `tls`, `session` (one peer
//! without its socket), `connection` (with it), `http` and `http_connection`, `io` (the verbs), `reactor` (the loop).

mod admission;
mod config;
mod connection;
mod frame;
#[cfg(test)]
mod frame_tests;
mod handler;
mod handshakes;
mod http;
mod http_connection;
mod http_response;
#[cfg(test)]
mod http_tests;
mod io;
pub mod limits;
mod outbound;
mod place;
mod reactor;
mod session;
#[cfg(test)]
mod session_tests;
mod slab;
mod socket;
mod timers;
mod tls;
mod window;

pub use config::{HandshakeRates, LocalAddrs, LoopStats, NetConfig, NetError, Timeouts};
pub use frame::{Class, FRAME_TYPE_MAX, Fault, Frame, FrameDecoder, FrameRule, encode_frame};
pub use handler::{
    CloseReason, ConnCounters, ConnId, ConnInfo, DialError, DialId, Direction, Handler, HttpToken,
    NetCounters, PeerKey, SendOutcome,
};
pub use http::{HttpLimits, HttpParser, HttpRequest, Method, Parsed, RequestParts};
pub use http_response::HttpResponse;
pub use io::Io;
pub use reactor::{Reactor, WakeHandle};
pub use tls::{NodeIdentity, TlsError};
