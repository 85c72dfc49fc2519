//! One peer connection with its socket.
//!
//! Input: readiness of the socket, time. Output: bytes moved between socket and session, deadlines. Its interest is
//! computed from its state, never tracked apart. Must never wait, and must never read a clock.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::config::Timeouts;
use super::handler::{CloseReason, ConnCounters, DialId, PeerKey};
use super::limits::TURN_BYTES;
use super::session::Session;

/// How the connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Accepted,
    Dialled {
        dial: DialId,
        expected: Option<PeerKey>,
    },
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// TCP is not connected yet.
    Connecting,
    /// TLS is not finished yet.
    Handshaking,
    /// The layer above knows it, since this time.
    Open { since: Instant },
}

pub(super) struct Connection {
    pub stream: TcpStream,
    pub remote: SocketAddr,
    pub origin: Origin,
    pub phase: Phase,
    pub session: Session,
    /// When it was accepted or dialled.
    started: Instant,
    pub paused: bool,
    /// The peer will send nothing more: read to the very end.
    pub half_closed: bool,
    pub readable: bool,
    pub writable: bool,
    pub in_read_list: bool,
    pub in_write_list: bool,
    pub timer_at: Option<Instant>,
    /// Since when the frames up to this mark wait for the peer.
    drain: Option<(Instant, u64)>,
    /// Which frame is being received in fragments, and since when.
    unfinished: Option<(u64, Instant)>,
    bytes_in: u64,
    bytes_out: u64,
    pub dropped: [u64; 6],
}

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End(CloseReason),
}

/// What became of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All of it, or as much as the socket takes now.
    Rest,
    /// The budget is used up; another turn is wanted.
    Turn,
    End(CloseReason),
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        remote: SocketAddr,
        origin: Origin,
        session: Session,
        now: Instant,
    ) -> Self {
        let phase = match origin {
            Origin::Accepted => Phase::Handshaking,
            Origin::Dialled { .. } => Phase::Connecting,
        };
        Connection {
            stream,
            remote,
            origin,
            phase,
            session,
            started: now,
            paused: false,
            half_closed: false,
            // A fresh socket has no edge to wait for: trying costs one call.
            readable: true,
            writable: true,
            in_read_list: false,
            in_write_list: false,
            timer_at: None,
            drain: None,
            unfinished: None,
            bytes_in: 0,
            bytes_out: 0,
            dropped: [0; 6],
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Asks a connecting socket how it went: `None` while it is still under way.
    pub fn connect_result(&self) -> Option<Result<(), ErrorKind>> {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Some(Err(error.kind()));
        }
        match self.stream.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error.kind())),
        }
    }

    /// Reads once into `scratch`.
    pub fn read(&mut self, scratch: &mut [u8]) -> Got {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Got::End(CloseReason::Peer),
                Ok(count) => {
                    self.bytes_in += count as u64;
                    // A short read has emptied the socket; more bytes, or the end, make a new edge (see epoll(7)).
                    self.readable = count == scratch.len() || self.half_closed;
                    return Got::Bytes(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Got::End(CloseReason::Network(error.kind())),
            }
        }
    }

    /// Writes as much as the socket and the budget of a turn allow, many frames to a TLS record.
    pub fn flush(&mut self, gather: &mut Vec<u8>, now: Instant) -> Flushed {
        let outcome = self.write_out(gather);
        let (taken_in, delivered) = self.session.drain_marks();
        self.drain = match self.drain {
            _ if !self.session.has_output() => None,
            Some((since, mark)) if delivered < mark => Some((since, mark)),
            _ => Some((now, taken_in)),
        };
        outcome
    }

    fn write_out(&mut self, gather: &mut Vec<u8>) -> Flushed {
        let mut budget = TURN_BYTES;
        loop {
            let wire = match self.session.wire(gather) {
                Ok(wire) => wire,
                Err(error) => return Flushed::End(CloseReason::Tls(error.to_string())),
            };
            if wire.is_empty() || !self.writable {
                return Flushed::Rest;
            }
            if budget == 0 {
                return Flushed::Turn;
            }
            match self.stream.write(wire) {
                Ok(0) => return Flushed::End(CloseReason::Network(ErrorKind::WriteZero)),
                Ok(count) => {
                    self.session.sent(count);
                    self.bytes_out += count as u64;
                    budget = budget.saturating_sub(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Flushed::End(CloseReason::Network(error.kind())),
            }
        }
    }

    /// Notes which frame is unfinished now; after a pause of our own the time begins anew.
    pub fn note_unfinished(&mut self, now: Instant) {
        let oldest = self.session.oldest_unfinished().filter(|_| !self.paused);
        self.unfinished = match (oldest, self.unfinished) {
            (Some(serial), Some((known, since))) if serial == known => Some((serial, since)),
            (Some(serial), _) => Some((serial, now)),
            (None, _) => None,
        };
    }

    /// Whether the peer takes too long for one frame.
    pub fn writes_slowly(&self, timeouts: &Timeouts, now: Instant) -> bool {
        let since = self.unfinished.map(|(_, since)| since);
        since.is_some_and(|since| now >= since + timeouts.frame)
    }

    /// When somebody has to look at this connection, if nothing happens before.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match self.phase {
            Phase::Connecting | Phase::Handshaking => Some(self.started + timeouts.handshake),
            Phase::Open { .. } => {
                let drained = self.drain.map(|(since, _)| since + timeouts.drain);
                let whole = self.unfinished.map(|(_, since)| since + timeouts.frame);
                drained.into_iter().chain(whole).min()
            }
        }
    }

    pub fn counters(&self) -> ConnCounters {
        let since = match self.phase {
            Phase::Open { since } => since,
            Phase::Connecting | Phase::Handshaking => self.started,
        };
        ConnCounters {
            since,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            frames_in: self.session.frames_in,
            frames_out: self.session.frames_out,
            dropped: self.dropped,
            queued: self.session.queued(),
        }
    }
}
