//! The verbs: what the layer above may ask of net while one of its handler calls runs.
//!
//! Input: calls. Output: changed connections, and callbacks that the loop delivers later in the same or the next turn.
//! Must never call the handler itself: a verb returns before its consequences are told.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry};

use crate::p2p::address::Range;

use super::admission::{Admission, Admit};
use super::config::{HandshakeRates, NetConfig};
use super::connection::{Connection, Flushed, Origin, Phase};
use super::frame::{Class, FRAME_TYPE_MAX};
use super::handler::{
    CloseReason, ConnCounters, ConnId, DialError, DialId, HttpToken, NetCounters, PeerKey,
    SendOutcome,
};
use super::handshakes::Handshakes;
use super::http_connection::{Expired, HttpConnection};
use super::http_response::HttpResponse;
use super::limits::{DIALS_MAX, HTTP_TURNED_AWAY_MAX};
use super::outbound::Full;
use super::place::Place;
use super::session::Session;
use super::slab::{Key, Slab};
use super::socket;
use super::timers::Timers;
use super::tls::TlsSession;

/// Something to tell the handler.
#[derive(Debug)]
pub(super) enum Callback {
    Closed(ConnId, CloseReason),
    DialFailed(DialId, DialError),
    HttpGone(HttpToken),
}

/// Why a connection is taken down.
#[derive(Debug)]
pub(super) enum End {
    Reason(CloseReason),
    WrongKey(PeerKey),
    HandshakeTimeout,
    Evicted,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        End::Reason(reason)
    }
}

/// The net thread's state, and the verbs on it. The handler gets it lent for the length of a call.
pub struct Io {
    pub(super) config: NetConfig,
    registry: Registry,
    pub(super) now: Instant,
    pub(super) conns: Slab<Connection>,
    pub(super) http: Slab<HttpConnection>,
    pub(super) admission: Admission<Key>,
    handshakes: Handshakes,
    pub(super) callbacks: VecDeque<Callback>,
    pub(super) timers: Timers<Place>,
    pub(super) deadline: Option<Instant>,
    pub(super) to_read: Vec<Place>,
    pub(super) to_write: Vec<Place>,
    pub(super) counters: NetCounters,
    gather: Vec<u8>,
    open: usize,
    dialling: usize,
    turned_away: usize,
    next_dial: u64,
}

/// The verbs of the layer above.
impl Io {
    /// Time of this turn of the loop: read once when `poll` returned.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Our own node key.
    pub fn own_key(&self) -> PeerKey {
        self.config.identity.public()
    }

    /// Starts to connect. Exactly one of `on_connected` and `on_dial_failed` follows, never before this returns. With
    /// an expected key, any other key is [`DialError::WrongKey`].
    pub fn dial(&mut self, address: SocketAddr, expected: Option<PeerKey>) -> DialId {
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        if self.dialling >= DIALS_MAX || self.conns.len() >= self.config.max_connections {
            self.callbacks
                .push_back(Callback::DialFailed(dial, DialError::TooMany));
            return dial;
        }
        self.counters.dialled += 1;
        if let Err(error) = self.start_dial(dial, address, expected) {
            self.callbacks.push_back(Callback::DialFailed(dial, error));
        }
        dial
    }

    /// Queues a frame for a peer. It leaves at the end of this turn, together with others.
    pub fn send(
        &mut self,
        conn: ConnId,
        frame_type: u8,
        class: Class,
        payload: Arc<[u8]>,
    ) -> SendOutcome {
        if frame_type > FRAME_TYPE_MAX || u32::try_from(payload.len()).is_err() {
            return SendOutcome::Invalid;
        }
        let Some(connection) = self
            .conns
            .get_mut(conn.0)
            .filter(|connection| connection.is_open())
        else {
            return SendOutcome::Gone;
        };
        match connection.session.push(class, frame_type, payload) {
            Ok(()) => {
                self.queue_write(Place::Conn(conn.0));
                SendOutcome::Queued
            }
            Err(Full::Drop) => {
                connection.dropped[class.index()] += 1;
                self.counters.frames_dropped += 1;
                SendOutcome::Dropped
            }
            Err(Full::Disconnect) => {
                self.end_conn(conn.0, CloseReason::OutboundFull(class).into());
                SendOutcome::Overflow
            }
        }
    }

    /// Closes a connection after one attempt to send what is queued (a Reject gets out). `on_closed` follows with
    /// [`CloseReason::Local`]. False when the connection is gone already.
    pub fn close(&mut self, conn: ConnId, reason: &'static str) -> bool {
        if !self
            .conns
            .get_mut(conn.0)
            .is_some_and(|connection| connection.is_open())
        {
            return false;
        }
        self.last_words(conn.0);
        self.end_conn(conn.0, CloseReason::Local(reason).into());
        true
    }

    /// Stops reading from a peer (a token bucket is empty, P2). Complete frames that were already read wait too.
    pub fn pause_reading(&mut self, conn: ConnId) {
        if let Some(connection) = self.conns.get_mut(conn.0) {
            connection.paused = true;
        }
    }

    /// Reads on.
    pub fn resume_reading(&mut self, conn: ConnId) {
        if let Some(connection) = self
            .conns
            .get_mut(conn.0)
            .filter(|connection| connection.paused)
        {
            connection.paused = false;
            self.queue_read(Place::Conn(conn.0));
        }
    }

    /// Answers a request. False when its client is gone, or it was answered before.
    pub fn respond(&mut self, token: HttpToken, response: &HttpResponse) -> bool {
        let now = self.now;
        let Some(connection) = self.http.get_mut(token.key) else {
            return false;
        };
        let taken = connection.answer(token.sequence, response, now);
        if taken {
            self.queue_write(Place::Http(token.key));
        }
        taken
    }

    /// Asks for `on_deadline` at this time; replaces what was asked before, `None` asks for nothing.
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.deadline = at;
    }

    /// Addresses that know no group bound on handshakes: configured peers and registered endpoints.
    pub fn set_exempt(&mut self, addresses: BTreeSet<IpAddr>) {
        self.admission.set_exempt(addresses);
    }

    /// How often handshakes may begin from now on; exempt addresses and this host know no such bound.
    pub fn set_handshake_rates(&mut self, rates: HandshakeRates) {
        self.handshakes.set(rates);
    }

    /// Addresses from which nobody is accepted, in place of those told before.
    pub fn set_refused(&mut self, refused: Vec<Range>) {
        self.admission.set_refused(refused);
    }

    /// Counters of one connection.
    pub fn conn_counters(&self, conn: ConnId) -> Option<ConnCounters> {
        self.conns.get(conn.0).map(Connection::counters)
    }

    /// Counters of the net thread.
    pub fn counters(&self) -> &NetCounters {
        &self.counters
    }

    /// Connections that the handler knows: after `on_connected`, before `on_closed`.
    pub fn connection_count(&self) -> usize {
        self.open
    }

    /// Connections that connect or shake hands, in both directions.
    pub fn pending_count(&self) -> usize {
        self.conns.len() - self.open
    }

    /// HTTP connections.
    pub fn http_count(&self) -> usize {
        self.http.len()
    }
}

/// What the loop uses.
impl Io {
    pub(super) fn new(config: NetConfig, registry: Registry, now: Instant) -> Self {
        let admission = Admission::new(config.exempt.clone());
        let handshakes = Handshakes::new(config.handshakes, now);
        Io {
            config,
            registry,
            now,
            conns: Slab::new(),
            http: Slab::new(),
            admission,
            handshakes,
            callbacks: VecDeque::new(),
            timers: Timers::new(),
            deadline: None,
            to_read: Vec::new(),
            to_write: Vec::new(),
            counters: NetCounters::default(),
            gather: Vec::new(),
            open: 0,
            dialling: 0,
            turned_away: 0,
            next_dial: 0,
        }
    }

    fn start_dial(
        &mut self,
        dial: DialId,
        address: SocketAddr,
        expected: Option<PeerKey>,
    ) -> Result<(), DialError> {
        let tls = TlsSession::dialled(&self.config.identity, address.ip())
            .map_err(|error| DialError::Tls(error.to_string()))?;
        let failed = |error: io::Error| DialError::Connect(error.kind());
        let stream = TcpStream::connect(address).map_err(failed)?;
        let origin = Origin::Dialled { dial, expected };
        let connection = Connection::new(
            stream,
            socket::canonical(address),
            origin,
            Session::new(tls),
            self.now,
        );
        self.insert_conn(connection).map_err(failed)?;
        self.dialling += 1;
        Ok(())
    }

    fn insert_conn(&mut self, mut connection: Connection) -> io::Result<Key> {
        let place = Place::Conn(self.conns.next_key());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut connection.stream, place.token(), interest)?;
        let key = self.conns.insert(connection);
        self.arm(Place::Conn(key));
        Ok(key)
    }

    /// Takes an accepted peer socket in, or closes it.
    pub(super) fn admit_peer(&mut self, stream: TcpStream, remote: SocketAddr) {
        self.counters.accepted += 1;
        let remote = socket::canonical(remote);
        let verdict = self.admission.judge(remote.ip(), self.now);
        let full = self.conns.len() >= self.config.max_connections;
        let mut often = || {
            let counted = !self.admission.is_exempt(remote.ip());
            counted && !self.handshakes.may_begin(remote.ip(), self.now)
        };
        match verdict {
            Admit::Yes if !full && !often() => {}
            Admit::InPlaceOf(oldest) if !often() => self.end_conn(oldest, End::Evicted),
            _ => {
                self.counters.refused += 1;
                return;
            }
        }
        let tls = match TlsSession::accepted(&self.config.identity) {
            Ok(tls) => tls,
            Err(error) => {
                log::warn!("cannot start a TLS session: {error}");
                return;
            }
        };
        let tuned = socket::tune_peer(&stream);
        let connection = Connection::new(
            stream,
            remote,
            Origin::Accepted,
            Session::new(tls),
            self.now,
        );
        match tuned.and_then(|()| self.insert_conn(connection)) {
            Ok(key) => {
                self.admission.start(key, remote.ip(), self.now);
                self.queue_read(Place::Conn(key));
            }
            Err(error) => log::debug!("peer {remote} was gone at once: {error}"),
        }
    }

    /// Takes an accepted HTTP socket in, turns it away with 503, or closes it.
    pub(super) fn admit_http(&mut self, stream: TcpStream, remote: SocketAddr) {
        let remote = socket::canonical(remote);
        let limits = self.config.http_limits;
        let mut connection = if self.http.len() - self.turned_away < self.config.max_http {
            self.counters.http_accepted += 1;
            HttpConnection::new(stream, remote, limits, self.now)
        } else {
            self.counters.http_turned_away += 1;
            if self.turned_away >= HTTP_TURNED_AWAY_MAX {
                return;
            }
            HttpConnection::turn_away(stream, remote, limits, self.now)
        };
        let place = Place::Http(self.http.next_key());
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = socket::tune_http(&connection.stream).and_then(|()| {
            self.registry
                .register(&mut connection.stream, place.token(), interest)
        });
        if let Err(error) = registered {
            log::debug!("HTTP client {remote} was gone at once: {error}");
            return;
        }
        self.turned_away += usize::from(connection.turned_away);
        self.http.insert(connection);
        self.arm(place);
        self.queue_read(place);
        self.queue_write(place);
    }

    /// Marks a connection as finished with TLS.
    pub(super) fn mark_open(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.conns.get_mut(key) else {
            return;
        };
        connection.phase = Phase::Open { since: now };
        self.dialling -= usize::from(connection.origin != Origin::Accepted);
        self.open += 1;
        self.counters.handshakes += 1;
        self.admission.finish(key);
    }

    /// Takes a connection down and remembers whom to tell.
    pub(super) fn end_conn(&mut self, key: Key, end: End) {
        let Some(mut connection) = self.conns.remove(key) else {
            return;
        };
        // A socket that cannot be deregistered is closed a moment later anyway, which does the same.
        let _ = self.registry.deregister(&mut connection.stream);
        self.admission.finish(key);
        if connection.is_open() {
            self.open -= 1;
            let reason = match end {
                End::Reason(reason) => reason,
                End::WrongKey(_) | End::HandshakeTimeout | End::Evicted => CloseReason::SlowReader,
            };
            self.counters.faults += u64::from(reason.fault().is_some());
            self.counters.slow_readers += u64::from(reason == CloseReason::SlowReader);
            self.counters.overflows += u64::from(matches!(reason, CloseReason::OutboundFull(_)));
            self.callbacks
                .push_back(Callback::Closed(ConnId(key), reason));
            return;
        }
        match connection.origin {
            Origin::Dialled { dial, .. } => {
                self.dialling -= 1;
                self.callbacks
                    .push_back(Callback::DialFailed(dial, dial_error(end)));
            }
            Origin::Accepted => {
                log::debug!("inbound handshake of {} ended: {end:?}", connection.remote);
                match end {
                    End::HandshakeTimeout => self.counters.handshakes_stalled += 1,
                    End::Evicted => self.counters.handshakes_evicted += 1,
                    End::Reason(_) | End::WrongKey(_) => self.counters.handshakes_failed += 1,
                }
            }
        }
    }

    /// Tells the peer goodbye and tries once to send what is queued.
    pub(super) fn last_words(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.conns.get_mut(key) else {
            return;
        };
        if connection.flush(&mut self.gather, now) == Flushed::Rest {
            connection.session.say_close();
            connection.flush(&mut self.gather, now);
        }
    }

    /// Takes an HTTP connection down.
    pub(super) fn end_http(&mut self, key: Key) {
        let Some(mut connection) = self.http.remove(key) else {
            return;
        };
        // As for peers: closing the socket deregisters it too.
        let _ = self.registry.deregister(&mut connection.stream);
        self.turned_away -= usize::from(connection.turned_away);
        self.counters.http_malformed += connection.malformed;
        if let Expired::Gone(sequence) = connection.end() {
            self.callbacks
                .push_back(Callback::HttpGone(HttpToken { key, sequence }));
        }
    }

    /// Notes what the poll says about a socket.
    pub(super) fn note(&mut self, place: Place, event: &Event) {
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let writable = event.is_writable() || event.is_write_closed() || event.is_error();
        match place {
            Place::Conn(key) => {
                let Some(connection) = self.conns.get_mut(key) else {
                    return;
                };
                connection.readable |= readable;
                connection.writable |= writable;
                connection.half_closed |= event.is_read_closed() || event.is_error();
            }
            Place::Http(key) => {
                let Some(connection) = self.http.get_mut(key) else {
                    return;
                };
                connection.readable |= readable;
                connection.writable |= writable;
                if event.is_read_closed() {
                    connection.note_half_close();
                }
                if event.is_write_closed() || event.is_error() {
                    self.end_http(key);
                    return;
                }
                self.arm(place);
            }
            Place::Waker | Place::Listener(_) => return,
        }
        if readable {
            self.queue_read(place);
        }
        if writable {
            self.queue_write(place);
        }
    }

    pub(super) fn queue_read(&mut self, place: Place) {
        let flag = match place {
            Place::Conn(key) => self
                .conns
                .get_mut(key)
                .map(|connection| &mut connection.in_read_list),
            Place::Http(key) => self
                .http
                .get_mut(key)
                .map(|connection| &mut connection.in_read_list),
            Place::Waker | Place::Listener(_) => None,
        };
        if let Some(flag) = flag.filter(|flag| !**flag) {
            *flag = true;
            self.to_read.push(place);
        }
    }

    pub(super) fn queue_write(&mut self, place: Place) {
        let flag = match place {
            Place::Conn(key) => self
                .conns
                .get_mut(key)
                .map(|connection| &mut connection.in_write_list),
            Place::Http(key) => self
                .http
                .get_mut(key)
                .map(|connection| &mut connection.in_write_list),
            Place::Waker | Place::Listener(_) => None,
        };
        if let Some(flag) = flag.filter(|flag| !**flag) {
            *flag = true;
            self.to_write.push(place);
        }
    }

    /// Sees to it that somebody looks when the deadline of a connection comes. A later entry of the heap is left alone.
    pub(super) fn arm(&mut self, place: Place) {
        let timeouts = &self.config.timeouts;
        let (deadline, timer_at) = match place {
            Place::Conn(key) => match self.conns.get_mut(key) {
                Some(connection) => (connection.deadline(timeouts), &mut connection.timer_at),
                None => return,
            },
            Place::Http(key) => match self.http.get_mut(key) {
                Some(connection) => (connection.deadline(timeouts), &mut connection.timer_at),
                None => return,
            },
            Place::Waker | Place::Listener(_) => return,
        };
        if let Some(at) = deadline.filter(|at| timer_at.is_none_or(|armed| *at < armed)) {
            *timer_at = Some(at);
            self.timers.arm(at, place);
        }
    }

    /// Flushes one connection at the end of a turn.
    pub(super) fn write_peer(&mut self, key: Key) {
        let now = self.now;
        let place = Place::Conn(key);
        let Some(connection) = self.conns.get_mut(key) else {
            return;
        };
        connection.in_write_list = false;
        if connection.phase == Phase::Connecting {
            match connection.connect_result() {
                None => return,
                Some(Err(kind)) => return self.end_conn(key, CloseReason::Network(kind).into()),
                Some(Ok(())) => {
                    if let Err(error) = socket::tune_peer(&connection.stream) {
                        return self.end_conn(key, CloseReason::Network(error.kind()).into());
                    }
                    connection.phase = Phase::Handshaking;
                }
            }
        }
        match connection.flush(&mut self.gather, now) {
            Flushed::Rest => {
                connection.session.release();
                self.arm(place);
            }
            Flushed::Turn => {
                self.arm(place);
                self.queue_write(place);
            }
            Flushed::End(reason) => self.end_conn(key, reason.into()),
        }
    }
}

fn dial_error(end: End) -> DialError {
    match end {
        End::WrongKey(found) => DialError::WrongKey { found },
        End::HandshakeTimeout | End::Evicted => DialError::Timeout,
        End::Reason(CloseReason::Network(kind)) => DialError::Connect(kind),
        End::Reason(CloseReason::Tls(error)) => DialError::Tls(error),
        End::Reason(CloseReason::Peer) => DialError::Connect(io::ErrorKind::UnexpectedEof),
        End::Reason(other) => DialError::Tls(other.to_string()),
    }
}
