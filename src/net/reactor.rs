//! The loop of the net thread: one `Poll` for all sockets.
//!
//! A turn: wait in `poll`; accept; read from whoever is ready, a bounded portion each, and call the handler; wake-ups,
//! deadlines, callbacks; at last flush everybody who has something to send, so that many small frames share one TLS
//! record and one system call. Input: sockets, wake-ups, the clock (read here and nowhere else in net). Output: calls
//! of the handler. Must never block but in `poll`, and never spin: work that is left over makes the next `poll` return at
//! once, and nothing else does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Waker};

use super::config::{LocalAddrs, LoopStats, NetConfig, NetError};
use super::connection::{Got, Origin, Phase};
use super::handler::{CloseReason, ConnId, ConnInfo, Direction, Handler, HttpToken};
use super::http::HttpRequest;
use super::http_connection::Want;
use super::io::{Callback, End, Io};
use super::limits::{ACCEPT_PAUSE, ACCEPTS_PER_TURN, READ_CHUNK, TURN_BYTES};
use super::place::Place;
use super::slab::Key;
use super::socket;

const EVENTS_PER_TURN: usize = 1024;

/// Wakes the net thread from any thread. Many wakes before it gets up are one.
#[derive(Clone)]
pub struct WakeHandle {
    waker: Arc<Waker>,
    pending: Arc<AtomicBool>,
}

impl WakeHandle {
    /// Makes the loop call `on_wake` soon. Put the data into its queue first.
    pub fn wake(&self) {
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            self.pending.store(false, Ordering::Release);
            log::error!("cannot wake the net thread: {error}");
        }
    }
}

struct Listener {
    socket: TcpListener,
    is_http: bool,
    /// An edge was seen and `accept` has not said "would block" since.
    ready: bool,
    /// Out of file descriptors: try again then.
    retry_at: Option<Instant>,
    /// That was said in the log; it is said again only after it has worked in between.
    complained: bool,
}

/// The net thread's machine. Build it on any thread, [`Reactor::run`] it on its own.
pub struct Reactor {
    poll: Poll,
    events: Events,
    io: Io,
    listeners: Vec<Listener>,
    wake: WakeHandle,
    scratch: Vec<u8>,
    woken: bool,
}

impl Reactor {
    /// Opens the listeners. Nothing is accepted before [`Reactor::run`].
    pub fn new(config: NetConfig) -> Result<(Reactor, WakeHandle), NetError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Place::Waker.token())?);
        let wake = WakeHandle {
            waker,
            pending: Arc::new(AtomicBool::new(false)),
        };
        let mut listeners = Vec::new();
        let p2p = config.p2p_listen.iter().map(|address| (*address, false));
        for (address, is_http) in
            p2p.chain(config.http_listen.iter().map(|address| (*address, true)))
        {
            let failed = |error| NetError::Listen { address, error };
            let mut socket = socket::listen(address).map_err(failed)?;
            let token = Place::Listener(listeners.len()).token();
            poll.registry()
                .register(&mut socket, token, Interest::READABLE)
                .map_err(failed)?;
            listeners.push(Listener {
                socket,
                is_http,
                ready: true,
                retry_at: None,
                complained: false,
            });
        }
        let io = Io::new(config, poll.registry().try_clone()?, Instant::now());
        let events = Events::with_capacity(EVENTS_PER_TURN);
        let scratch = vec![0; READ_CHUNK];
        let reactor = Reactor {
            poll,
            events,
            io,
            listeners,
            wake: wake.clone(),
            scratch,
            woken: true,
        };
        Ok((reactor, wake))
    }

    /// The addresses that are listened on, with the ports that the system chose.
    pub fn local_addrs(&self) -> LocalAddrs {
        let of = |http| {
            let chosen = self
                .listeners
                .iter()
                .filter(move |listener| listener.is_http == http);
            chosen
                .filter_map(|listener| listener.socket.local_addr().ok())
                .collect()
        };
        LocalAddrs {
            p2p: of(false),
            http: of(true),
        }
    }

    /// Runs until `stop` is set (and the thread woken). `on_wake` is called once at the start, whoever woke us or not, so
    /// that the handler can begin with what it finds (dial its peers). `on_loop` is called after every turn. At the end what is queued
    /// gets one attempt to leave; the handler is told nothing more.
    pub fn run<H: Handler + ?Sized>(
        &mut self,
        handler: &mut H,
        stop: &AtomicBool,
        mut on_loop: impl FnMut(&LoopStats),
    ) -> Result<(), NetError> {
        let mut mark = Instant::now();
        while !stop.load(Ordering::Acquire) {
            let patience = self.patience(mark);
            match self.poll.poll(&mut self.events, Some(patience)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
                other => other?,
            }
            let up = Instant::now();
            self.io.now = up;
            let events = self.note_events();
            self.turn(handler);
            let idle = up.duration_since(mark);
            mark = Instant::now();
            let backlog = self.io.to_read.len() + self.io.to_write.len();
            on_loop(&LoopStats {
                idle,
                work: mark.duration_since(up),
                events,
                backlog,
            });
        }
        for key in self.io.conns.keys() {
            self.io.last_words(key);
        }
        for key in self.io.http.keys() {
            self.write_http(key);
        }
        Ok(())
    }

    /// How long `poll` may wait.
    fn patience(&self, now: Instant) -> Duration {
        let busy = self.woken
            || !self.io.callbacks.is_empty()
            || !self.io.to_read.is_empty()
            || !self.io.to_write.is_empty()
            || self
                .listeners
                .iter()
                .any(|listener| listener.ready && listener.retry_at.is_none());
        if busy {
            return Duration::ZERO;
        }
        let retries = self
            .listeners
            .iter()
            .filter_map(|listener| listener.retry_at);
        let next = retries
            .chain(self.io.timers.next())
            .chain(self.io.deadline)
            .min();
        let wait = next.map_or(self.io.config.timeouts.idle, |at| {
            at.saturating_duration_since(now)
        });
        wait.min(self.io.config.timeouts.idle)
    }

    fn note_events(&mut self) -> usize {
        let mut count = 0;
        for event in &self.events {
            count += 1;
            match Place::of(event.token()) {
                Place::Waker => self.woken = true,
                Place::Listener(index) => {
                    if let Some(listener) = self.listeners.get_mut(index) {
                        listener.ready = true;
                    }
                }
                place @ (Place::Conn(_) | Place::Http(_)) => self.io.note(place, event),
            }
        }
        count
    }

    fn turn<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        self.accept();
        for place in std::mem::take(&mut self.io.to_read) {
            match place {
                Place::Conn(key) => self.read_peer(handler, key),
                Place::Http(key) => self.read_http(handler, key),
                Place::Waker | Place::Listener(_) => {}
            }
        }
        if std::mem::take(&mut self.woken) {
            // First the flag, then the queues: a wake in between is one call too many, never one too few.
            self.wake.pending.store(false, Ordering::Release);
            handler.on_wake(&mut self.io);
        }
        if self.io.deadline.is_some_and(|at| at <= self.io.now) {
            self.io.deadline = None;
            handler.on_deadline(&mut self.io);
        }
        self.expire();
        self.call_back(handler);
        handler.on_turn_end(&mut self.io);
        for place in std::mem::take(&mut self.io.to_write) {
            match place {
                Place::Conn(key) => self.io.write_peer(key),
                Place::Http(key) => self.write_http(key),
                Place::Waker | Place::Listener(_) => {}
            }
        }
    }

    fn accept(&mut self) {
        let now = self.io.now;
        for listener in &mut self.listeners {
            if listener.retry_at.is_some_and(|at| at <= now) {
                listener.retry_at = None;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                if !listener.ready || listener.retry_at.is_some() {
                    break;
                }
                match listener.socket.accept() {
                    Ok((stream, remote)) => {
                        listener.complained = false;
                        match listener.is_http {
                            true => self.io.admit_http(stream, remote),
                            false => self.io.admit_peer(stream, remote),
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false
                    }
                    Err(error) if socket::is_connection_error(&error) => {}
                    Err(error) => {
                        // Out of file descriptors or memory. The edge is not repeated, so the listener stays ready.
                        self.io.counters.accept_errors += 1;
                        listener.retry_at = Some(now + ACCEPT_PAUSE);
                        if !std::mem::replace(&mut listener.complained, true) {
                            log::warn!(
                                "cannot accept connections: {error}; raise the limit of open files"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Reads from one peer until nothing is left or its portion of the turn is used up.
    fn read_peer<H: Handler + ?Sized>(&mut self, handler: &mut H, key: Key) {
        if let Some(connection) = self.io.conns.get_mut(key) {
            connection.in_read_list = false;
        }
        self.read_portion(handler, key);
        let now = self.io.now;
        if let Some(connection) = self.io.conns.get_mut(key) {
            connection.note_unfinished(now);
            self.io.arm(Place::Conn(key));
        }
    }

    fn read_portion<H: Handler + ?Sized>(&mut self, handler: &mut H, key: Key) {
        let id = ConnId(key);
        let place = Place::Conn(key);
        let mut budget = TURN_BYTES;
        loop {
            self.deliver(handler, id);
            let Some(connection) = self.io.conns.get_mut(key) else {
                return;
            };
            if connection.paused || connection.phase == Phase::Connecting {
                return;
            }
            if connection.session.is_finished() {
                return self.io.end_conn(key, CloseReason::Peer.into());
            }
            if !connection.readable {
                connection.session.release();
                return;
            }
            if budget == 0 {
                return self.io.queue_read(place);
            }
            match connection.read(&mut self.scratch) {
                Got::Nothing => {}
                Got::End(reason) => return self.io.end_conn(key, reason.into()),
                Got::Bytes(count) => {
                    budget = budget.saturating_sub(count);
                    if let Err(error) = connection.session.ingest(&self.scratch[..count]) {
                        self.io.last_words(key);
                        return self
                            .io
                            .end_conn(key, CloseReason::Tls(error.to_string()).into());
                    }
                    if connection.phase == Phase::Handshaking
                        && !connection.session.is_handshaking()
                    {
                        self.connected(handler, key);
                    }
                    // Handshakes, key updates and alerts are answered at the end of the turn.
                    self.io.queue_write(place);
                }
            }
        }
    }

    /// Hands up the complete frames of a connection, until it is paused or gone.
    fn deliver<H: Handler + ?Sized>(&mut self, handler: &mut H, id: ConnId) {
        loop {
            let Some(connection) = self.io.conns.get_mut(id.0) else {
                return;
            };
            if connection.paused || !connection.is_open() {
                return;
            }
            match connection
                .session
                .next_frame(|frame_type| handler.frame_rule(id, frame_type))
            {
                Ok(Some(frame)) => {
                    handler.on_frame(&mut self.io, id, frame.frame_type, frame.payload)
                }
                Ok(None) => return,
                Err(fault) => return self.io.end_conn(id.0, CloseReason::Fault(fault).into()),
            }
        }
    }

    /// TLS is finished: who is it?
    fn connected<H: Handler + ?Sized>(&mut self, handler: &mut H, key: Key) {
        let Some(connection) = self.io.conns.get_mut(key) else {
            return;
        };
        let proven = match connection.session.proven() {
            Ok(proven) => proven,
            Err(error) => {
                return self
                    .io
                    .end_conn(key, CloseReason::Tls(error.to_string()).into());
            }
        };
        let direction = match connection.origin {
            Origin::Accepted => Direction::Inbound,
            Origin::Dialled {
                expected: Some(expected),
                ..
            } if expected != proven.peer_key => {
                self.io.last_words(key);
                return self.io.end_conn(key, End::WrongKey(proven.peer_key));
            }
            Origin::Dialled { dial, .. } => Direction::Outbound(dial),
        };
        let info = ConnInfo {
            peer_key: proven.peer_key,
            remote: connection.remote,
            direction,
            exporter: proven.exporter,
        };
        self.io.mark_open(key);
        handler.on_connected(&mut self.io, ConnId(key), &info);
    }

    fn read_http<H: Handler + ?Sized>(&mut self, handler: &mut H, key: Key) {
        let now = self.io.now;
        let place = Place::Http(key);
        let Some(connection) = self.io.http.get_mut(key) else {
            return;
        };
        connection.in_read_list = false;
        let want = connection.read_turn(&mut self.scratch, now);
        let peer = connection.remote;
        if connection.has_output() {
            self.io.queue_write(place);
        }
        self.io.arm(place);
        match want {
            Want::Rest => {}
            Want::Turn => self.io.queue_read(place),
            Want::Close => self.io.end_http(key),
            Want::Request(sequence, parts) => {
                self.io.counters.http_requests += 1;
                let token = HttpToken { key, sequence };
                handler.on_http(&mut self.io, HttpRequest { token, peer, parts });
            }
        }
    }

    fn write_http(&mut self, key: Key) {
        let now = self.io.now;
        let place = Place::Http(key);
        let Some(connection) = self.io.http.get_mut(key) else {
            return;
        };
        connection.in_write_list = false;
        let want = connection.write_turn(now);
        let more_output = connection.has_output();
        self.io.arm(place);
        match want {
            Want::Rest | Want::Request(..) => {}
            Want::Turn if more_output => self.io.queue_write(place),
            Want::Turn => self.io.queue_read(place),
            Want::Close => self.io.end_http(key),
        }
    }

    /// Looks at everybody whose time has come.
    fn expire(&mut self) {
        let now = self.io.now;
        while let Some((armed, place)) = self.io.timers.pop_due(now) {
            let timeouts = &self.io.config.timeouts;
            let (deadline, timer_at) = match place {
                Place::Conn(key) => match self.io.conns.get_mut(key) {
                    Some(connection) => (connection.deadline(timeouts), &mut connection.timer_at),
                    None => continue,
                },
                Place::Http(key) => match self.io.http.get_mut(key) {
                    Some(connection) => (connection.deadline(timeouts), &mut connection.timer_at),
                    None => continue,
                },
                Place::Waker | Place::Listener(_) => continue,
            };
            if *timer_at == Some(armed) {
                *timer_at = None;
            }
            if deadline.is_some_and(|at| at <= now) {
                self.time_out(place);
            } else {
                self.io.arm(place);
            }
        }
    }

    fn time_out(&mut self, place: Place) {
        match place {
            Place::Conn(key) => {
                let open = self
                    .io
                    .conns
                    .get_mut(key)
                    .is_some_and(|connection| connection.is_open());
                let (now, timeouts) = (self.io.now, &self.io.config.timeouts);
                let slow = self
                    .io
                    .conns
                    .get(key)
                    .is_some_and(|connection| connection.writes_slowly(timeouts, now));
                let end = if open && slow {
                    End::Reason(CloseReason::SlowWriter)
                } else if open {
                    End::Reason(CloseReason::SlowReader)
                } else {
                    End::HandshakeTimeout
                };
                self.io.end_conn(key, end);
            }
            Place::Http(key) => {
                let stalled = self
                    .io
                    .http
                    .get_mut(key)
                    .is_some_and(|connection| connection.is_stalled());
                self.io.counters.http_timeouts += u64::from(stalled);
                self.io.end_http(key);
            }
            Place::Waker | Place::Listener(_) => {}
        }
    }

    /// Tells the handler what has happened. What its own verbs cause now is told in the next turn: no endless loop.
    fn call_back<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        for _ in 0..self.io.callbacks.len() {
            match self.io.callbacks.pop_front() {
                Some(Callback::Closed(conn, reason)) => {
                    handler.on_closed(&mut self.io, conn, &reason)
                }
                Some(Callback::DialFailed(dial, error)) => {
                    handler.on_dial_failed(&mut self.io, dial, &error)
                }
                Some(Callback::HttpGone(token)) => handler.on_http_gone(&mut self.io, token),
                None => return,
            }
        }
    }
}

/// Some instant, for tests of modules that may not read the clock.
#[cfg(test)]
pub(super) fn any_instant() -> Instant {
    Instant::now()
}
