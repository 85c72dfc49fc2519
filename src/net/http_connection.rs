//! One HTTP connection: requests one after the other, answers in the same order.
//!
//! Input: readiness of its socket, answers of the layer above, time. Output: requests, deadlines. The next request of a
//! connection is parsed only when the answer before it is sent: pipelining keeps its order, and one client holds at most
//! one request and one answer. Must never wait, and must never read a clock.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::config::Timeouts;
use super::http::{HttpLimits, HttpParser, Parsed, Phase, RequestParts};
use super::http_response::HttpResponse;
use super::limits::{HTTP_LINGER_BYTES, HTTP_WRITE_STEP, TURN_BYTES};
use super::window::Window;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reading a request, or idle before the next.
    Reading,
    /// The layer above has the request.
    Waiting { keep_alive: bool, head_only: bool },
    /// An answer is on its way out.
    Writing { keep_alive: bool },
    /// The last answer is sent; what the client still says is thrown away, so that it gets to read the answer.
    Lingering { discarded: usize },
}

/// What a connection wants next.
#[derive(Debug)]
pub(super) enum Want {
    /// Nothing until the socket, the layer above or the clock has news.
    Rest,
    /// Another turn: the budget of this one is used up.
    Turn,
    /// A request is complete: hand it up under this sequence number.
    Request(u64, RequestParts),
    /// The connection is over.
    Close,
}

/// What the end of a connection, or a deadline, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nobody is told.
    Close,
    /// The request under this sequence number has lost its client.
    Gone(u64),
}

pub(super) struct HttpConnection {
    pub stream: TcpStream,
    pub remote: SocketAddr,
    parser: HttpParser,
    out: Window,
    state: State,
    phase: Phase,
    /// When the present state, phase or write step began.
    since: Instant,
    /// Bytes written in the present write step.
    step: usize,
    /// Number of the request that is read, waits, or is answered.
    sequence: u64,
    half_closed: bool,
    pub readable: bool,
    pub writable: bool,
    pub in_read_list: bool,
    pub in_write_list: bool,
    pub timer_at: Option<Instant>,
    pub turned_away: bool,
    pub malformed: u64,
}

impl HttpConnection {
    pub fn new(stream: TcpStream, remote: SocketAddr, limits: HttpLimits, now: Instant) -> Self {
        HttpConnection {
            stream,
            remote,
            parser: HttpParser::new(limits),
            out: Window::default(),
            state: State::Reading,
            phase: Phase::Idle,
            since: now,
            step: 0,
            sequence: 0,
            half_closed: false,
            readable: true,
            writable: true,
            in_read_list: false,
            in_write_list: false,
            timer_at: None,
            turned_away: false,
            malformed: 0,
        }
    }

    /// A connection above the bound: it is told 503 and closed.
    pub fn turn_away(
        stream: TcpStream,
        remote: SocketAddr,
        limits: HttpLimits,
        now: Instant,
    ) -> Self {
        let mut connection = Self::new(stream, remote, limits, now);
        connection.turned_away = true;
        connection.send(&HttpResponse::refusal(503), false, false, now);
        connection
    }

    /// The client will send nothing more.
    pub fn note_half_close(&mut self) {
        self.half_closed = true;
    }

    /// Reads and parses. `scratch` is where bytes land first.
    pub fn read_turn(&mut self, scratch: &mut [u8], now: Instant) -> Want {
        let mut budget = TURN_BYTES;
        loop {
            if let Some(want) = self.parse(now) {
                return want;
            }
            if !self.readable || !matches!(self.state, State::Reading | State::Lingering { .. }) {
                return Want::Rest;
            }
            if budget == 0 {
                return Want::Turn;
            }
            match self.stream.read(scratch) {
                Ok(0) => return Want::Close,
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    // As for peers: a short read has emptied the socket, unless its end is already there.
                    self.readable = count == scratch.len() || self.half_closed;
                    match &mut self.state {
                        State::Lingering { discarded } => {
                            *discarded += count;
                            if *discarded > HTTP_LINGER_BYTES {
                                return Want::Close;
                            }
                        }
                        _ => self.parser.push(&scratch[..count]),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Want::Close,
            }
        }
    }

    fn parse(&mut self, now: Instant) -> Option<Want> {
        while self.state == State::Reading {
            match self.parser.step() {
                Parsed::More => break,
                Parsed::Continue => self
                    .out
                    .tail()
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"),
                Parsed::Request(parts) => {
                    self.sequence += 1;
                    let head_only = parts.method == super::http::Method::Head;
                    self.enter(
                        State::Waiting {
                            keep_alive: parts.keep_alive,
                            head_only,
                        },
                        now,
                    );
                    return Some(Want::Request(self.sequence, parts));
                }
                Parsed::Refused(status) => {
                    self.malformed += 1;
                    self.send(&HttpResponse::refusal(status), false, false, now);
                }
            }
        }
        if self.state == State::Reading && self.parser.phase() != self.phase {
            self.phase = self.parser.phase();
            self.since = now;
        }
        None
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.step = 0;
        self.phase = Phase::Idle;
    }

    fn send(&mut self, response: &HttpResponse, keep_alive: bool, head_only: bool, now: Instant) {
        response.encode(self.out.tail(), keep_alive, head_only);
        self.enter(State::Writing { keep_alive }, now);
    }

    /// Takes the answer to request `sequence`; false when that request no longer waits.
    pub fn answer(&mut self, sequence: u64, response: &HttpResponse, now: Instant) -> bool {
        let State::Waiting {
            keep_alive,
            head_only,
        } = self.state
        else {
            return false;
        };
        if sequence != self.sequence {
            return false;
        }
        let keep_alive = keep_alive && !response.close && !self.half_closed;
        self.send(response, keep_alive, head_only, now);
        true
    }

    /// Writes what there is. After a complete answer the connection lingers, or reads on: `Turn` when
    /// there is something to read.
    pub fn write_turn(&mut self, now: Instant) -> Want {
        let mut budget = TURN_BYTES;
        while !self.out.is_empty() {
            if !self.writable {
                return Want::Rest;
            }
            if budget == 0 {
                return Want::Turn;
            }
            let portion = &self.out.rest()[..self.out.rest().len().min(budget)];
            match self.stream.write(portion) {
                Ok(0) => return Want::Close,
                Ok(count) => {
                    self.out.consume(count);
                    budget -= count;
                    self.step += count;
                    if self.step >= HTTP_WRITE_STEP {
                        self.step = 0;
                        self.since = now;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Want::Close,
            }
        }
        self.out.release();
        match self.state {
            State::Writing { keep_alive: true } => {
                self.enter(State::Reading, now);
                if !self.readable && !self.parser.has_input() {
                    return Want::Rest;
                }
            }
            State::Writing { keep_alive: false } => {
                if self.half_closed || self.stream.shutdown(Shutdown::Write).is_err() {
                    return Want::Close;
                }
                self.enter(State::Lingering { discarded: 0 }, now);
            }
            State::Reading | State::Waiting { .. } | State::Lingering { .. } => return Want::Rest,
        }
        Want::Turn
    }

    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// When somebody has to look at this connection, if nothing happens before.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let wait: Duration = match (self.state, self.phase) {
            (State::Reading, Phase::Idle) => timeouts.http_idle,
            (State::Reading, Phase::Head) => timeouts.http_head,
            (State::Reading, Phase::Body) => timeouts.http_body,
            (State::Waiting { .. }, _) if self.half_closed => timeouts.http_half_closed,
            (State::Waiting { .. }, _) => return None,
            (State::Writing { .. }, _) => timeouts.http_write,
            (State::Lingering { .. }, _) => timeouts.http_linger,
        };
        Some(self.since + wait)
    }

    /// What is lost if the connection ends now.
    pub fn end(&self) -> Expired {
        match self.state {
            State::Waiting { .. } => Expired::Gone(self.sequence),
            State::Reading | State::Writing { .. } | State::Lingering { .. } => Expired::Close,
        }
    }

    /// The deadline has passed in the middle of something: worth a count.
    pub fn is_stalled(&self) -> bool {
        match self.state {
            State::Reading => self.phase != Phase::Idle || self.parser.has_input(),
            State::Waiting { .. } | State::Lingering { .. } => false,
            State::Writing { .. } => true,
        }
    }
}
