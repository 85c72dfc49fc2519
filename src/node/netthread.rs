//! The net thread: the event loop's handler. Joins sockets with the peer machine and hands frames and requests to the
//! threads that answer them. Decodes; never validates, never touches a disk.

mod people;

use crate::base::bounded::BoundedVec;
use crate::base::limits::TXS_PER_FRAME;
use crate::base::time::{Now, WallMs};
use crate::crypto::keys::PublicKey;
use crate::net::{
    self, CloseReason, ConnId, ConnInfo, DialError, DialId, Direction, FrameRule, Handler,
    HttpRequest, HttpResponse, HttpToken, Io,
};
use crate::node::clock::Clock;
use crate::node::consensus::Frame;
use crate::node::netcmd::NetCommand;
use crate::node::netlanes::{Arrived, Gates, Held};
use crate::node::publish::{count, count_frame};
use crate::node::queues::Outlet;
use crate::node::syncer::SyncInput;
use crate::p2p::buckets::Limits;
use crate::p2p::machine::{Effect, Input, Link, Machine, REFUSED_BY_PEER};
use crate::p2p::messages::{Class, Message, PeerId, Status};
use crate::p2p::reputation::Ban;
use crate::replica::io::ReadAt;
use crate::rpc::metrics::Metrics;
use crate::rpc::node::PeerView;
use crate::types::transaction::Tx;
use crossbeam::channel::Receiver;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Commands performed in one turn.
const TURN_COMMAND_MAX: usize = 4_096;
/// Parked frames handed on in one turn.
const TURN_PARKED_MAX: usize = 1_024;
/// Transactions of a peer in one piece for consensus: it looks for votes between two of them.
const TXS_PIECE: usize = 32;
/// The list of peers is shown anew this often, ms.
const PEERS_SHOWN_MS: u64 = 500;

/// Where the net thread writes and what it shares.
pub struct Outlets {
    /// To consensus.
    pub frames: Outlet<Frame>,
    /// Transactions of peers, to consensus.
    pub txs: Outlet<Frame>,
    /// To sync.
    pub sync: Outlet<SyncInput>,
    /// To the rpc workers.
    pub requests: Outlet<RpcJob>,
    /// Names to look up: (target, address).
    pub lookups: crossbeam::channel::Sender<(usize, String)>,
    /// Peers as RPC shows them.
    pub peers: Arc<RwLock<Arc<Vec<PeerView>>>>,
    /// The address book, for the disk.
    pub book: Arc<Mutex<Option<Vec<u8>>>>,
    /// Bans, for RPC and the disk.
    pub bans: Arc<RwLock<Arc<Vec<Ban>>>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What the net thread gives the rpc workers.
pub enum RpcJob {
    /// A request.
    Request(Box<HttpRequest>),
    /// A client went away.
    Gone(HttpToken),
}

struct Conn {
    id: ConnId,
    address: SocketAddr,
    since: WallMs,
    status: Status,
    heard: WallMs,
    offset_ms: i64,
    min_ping_us: Option<u64>,
    /// This node has asked it for blocks, headers, snapshots or transactions: it may answer.
    asked: bool,
    /// Bytes by frame type, out and in; as many entries as there are types.
    by_type: BTreeMap<&'static str, [u64; 2]>,
}

/// The handler.
pub struct NetThread {
    machine: Machine,
    clock: Clock,
    commands: Receiver<NetCommand>,
    out: Outlets,
    next_peer: u64,
    conns: BTreeMap<PeerId, Conn>,
    peers: BTreeMap<ConnId, PeerId>,
    dials: BTreeMap<DialId, usize>,
    gates: Gates,
    started: bool,
    /// Changes of the address book that were given to the disk, and when.
    booked: (u64, WallMs),
    shown: WallMs,
}

fn class_of(class: Class) -> net::Class {
    match class {
        Class::Consensus => net::Class::Consensus,
        Class::Control => net::Class::Control,
        Class::Liveness => net::Class::Liveness,
        Class::Sync => net::Class::Sync,
        Class::Tx => net::Class::Tx,
        Class::Fork => net::Class::Fork,
    }
}

/// How often handshakes may begin, as the sockets are told.
pub fn rates_of(limits: &Limits) -> net::HandshakeRates {
    net::HandshakeRates {
        per_address: limits.handshakes,
        per_group: limits.group_handshakes,
    }
}

impl NetThread {
    /// A handler that performs `commands`.
    pub fn new(
        machine: Machine,
        clock: Clock,
        commands: Receiver<NetCommand>,
        out: Outlets,
        limits: Limits,
    ) -> NetThread {
        let gates = Gates::new(limits, clock.mono());
        let (conns, peers, dials) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        NetThread {
            machine,
            clock,
            commands,
            out,
            next_peer: 0,
            conns,
            peers,
            dials,
            gates,
            started: false,
            booked: (0, WallMs(0)),
            shown: WallMs(0),
        }
    }

    fn feed(&mut self, io: &mut Io, input: Input) {
        let now = self.clock.now();
        let effects = self.machine.handle(now, input);
        for effect in effects {
            self.perform(io, now, effect);
        }
    }

    fn perform(&mut self, io: &mut Io, now: Now, effect: Effect) {
        match effect {
            Effect::Dial(target, address) => match address.parse::<SocketAddr>() {
                Ok(address) => {
                    self.dials.insert(io.dial(address, None), target);
                }
                // A name is looked up on another thread; a full queue counts as a failed dial.
                Err(_) => {
                    if self.out.lookups.try_send((target, address)).is_err() {
                        self.feed(io, Input::DialFailed(target));
                    }
                }
            },
            Effect::Send(peer, message) => self.send(io, &[peer], &message),
            Effect::Close { peer, why, fault } => self.close(io, peer, &why, fault),
            Effect::Up(peer, facts) => {
                log::info!("peer connected: {facts}");
                count(&self.out.metrics.peer_events, "event", "connected");
                if let Some(conn) = self.conns.get_mut(&peer) {
                    conn.status = facts.status;
                }
                self.out.frames.put(Frame::Up(peer, facts.status));
                self.show_peers(io, now);
            }
            Effect::Masternode(peer, id) => {
                log::debug!("peer {} is masternode {id}", peer.0);
                self.gates.rate(peer, true, 1, now.mono);
                self.out.frames.put(Frame::Masternode(peer, id));
                self.show_peers(io, now);
            }
            Effect::Down(peer) => {
                self.out.frames.put(Frame::Down(peer));
                self.out.sync.put(SyncInput::Gone(peer));
            }
            Effect::Slow(peer, factor) => self.gates.rate(peer, true, factor, now.mono),
            Effect::BansChanged => self.show_bans(io),
            Effect::Deliver(peer, message) => self.deliver(now, peer, message),
            Effect::Reached(id, address) => self.out.frames.put(Frame::Reached(id, address)),
            Effect::Probed => self.out.frames.put(Frame::Probed),
            Effect::StatusOf(peer, status) => {
                if let Some(conn) = self.conns.get_mut(&peer) {
                    conn.status = status;
                    conn.offset_ms = status
                        .clock
                        .0
                        .cast_signed()
                        .saturating_sub(now.wall.0.cast_signed());
                }
                self.out.frames.put(Frame::Status(peer, status));
                let score = self.machine.score(now, peer);
                let position = SyncInput::Position(peer, status.height, score);
                self.out.sync.put(position);
            }
        }
    }

    fn deliver(&mut self, now: Now, peer: PeerId, message: Message) {
        match message {
            Message::GetBlocks((from, count)) => {
                self.out.sync.put(SyncInput::GetBlocks(peer, from, count))
            }
            Message::GetCertificate(height) => {
                self.out.sync.put(SyncInput::GetCertificate(peer, height))
            }
            Message::Block(block) => self.out.sync.put(SyncInput::Block(peer, block)),
            Message::Txs(txs) => {
                let mut rest = txs.into_iter();
                loop {
                    let piece: Vec<Tx> = rest.by_ref().take(TXS_PIECE).collect();
                    if piece.is_empty() {
                        return;
                    }
                    let piece = Message::Txs(BoundedVec::take_from(piece));
                    self.out.txs.put(Frame::Message(peer, piece, ReadAt(now)));
                }
            }
            Message::TxInv(_) | Message::GetTx(_) => {
                self.out.txs.put(Frame::Message(peer, message, ReadAt(now)))
            }
            Message::GetHeaders((from, slots)) => {
                self.out.sync.put(SyncInput::GetHeaders(peer, from, slots))
            }
            Message::GetSnapshot(()) => self.out.sync.put(SyncInput::GetSnapshot(peer)),
            Message::GetChunk(what) => self.out.sync.put(SyncInput::GetChunk(peer, what)),
            Message::SnapshotInfo(offer) => self.out.sync.put(SyncInput::Offer(peer, offer)),
            Message::Chunk(chunk) => self.out.sync.put(SyncInput::Chunk(peer, chunk)),
            Message::Headers(headers) => self
                .out
                .sync
                .put(SyncInput::Headers(peer, headers.into_iter().collect())),
            Message::Unavailable((height, first)) => self
                .out
                .sync
                .put(SyncInput::Unavailable(peer, height, first)),
            other => self
                .out
                .frames
                .put(Frame::Message(peer, other, ReadAt(now))),
        }
    }

    /// Consensus has room for a whole frame of transactions.
    fn txs_open(&self) -> bool {
        self.out.txs.room() >= TXS_PER_FRAME.div_ceil(TXS_PIECE)
    }

    /// A frame has passed the buckets of its peer.
    fn passed(&mut self, io: &mut Io, peer: PeerId, held: &Held) {
        match Message::decode(held.code, &held.payload) {
            Ok(message) => {
                self.gates.charge(self.clock.mono(), peer, &message);
                self.feed(io, Input::Frame(peer, message));
            }
            Err(error) => {
                log::debug!("peer {}: malformed frame: {error}", peer.0);
                self.feed(io, Input::Fault(peer, "malformed frame"));
            }
        }
    }

    /// Hands on what waited for its turn.
    fn release(&mut self, io: &mut Io) {
        for _ in 0..TURN_PARKED_MAX {
            let (now, open) = (self.clock.mono(), self.txs_open());
            let Some((peer, held, resumes)) = self.gates.next(now, open) else {
                break;
            };
            if resumes && let Some(conn) = self.conns.get(&peer) {
                io.resume_reading(conn.id);
            }
            self.passed(io, peer, &held);
        }
        let resting: Vec<PeerId> = self.gates.resting().collect();
        let now = self.clock.now();
        for peer in resting {
            self.machine.heard(now, peer);
        }
    }

    fn send(&mut self, io: &mut Io, peers: &[PeerId], message: &Message) {
        self.send_encoded(io, peers, message.code(), message.encode().into());
    }

    fn send_encoded(&mut self, io: &mut Io, peers: &[PeerId], code: u8, body: Arc<[u8]>) {
        let Some((limit, class)) = Message::rule(code) else {
            return;
        };
        if body.len() > limit {
            log::error!(
                "a frame of type {code} has {} bytes, more than its limit; it is not sent",
                body.len()
            );
            return;
        }
        let name = Message::name(code).unwrap_or("unknown");
        for peer in peers {
            if let Some(conn) = self.conns.get_mut(peer) {
                conn.by_type.entry(name).or_default()[0] += body.len() as u64;
                conn.asked |= Message::is_request(code);
                io.send(conn.id, code, class_of(class), body.clone());
                count_frame(&self.out.metrics, name, "out", body.len());
            }
        }
    }

    fn close(&mut self, io: &mut Io, peer: PeerId, why: &str, fault: bool) {
        let Some(conn) = self.conns.get(&peer) else {
            return;
        };
        if fault {
            log::warn!("peer {} closed: {why}", conn.address);
            count(&self.out.metrics.peer_events, "event", "fault");
        } else if why.starts_with(REFUSED_BY_PEER) {
            // The other side's rule, which an operator can do something about.
            log::info!("peer {} closed: {why}", conn.address);
        } else {
            log::debug!("peer {} closed: {why}", conn.address);
        }
        io.close(conn.id, "closed by the peer machine");
        self.gates.leave(peer);
    }

    fn command(&mut self, io: &mut Io, command: NetCommand) {
        match command {
            NetCommand::Send(peers, message) => self.send(io, &peers, &message),
            NetCommand::SendEncoded(peer, code, body) => self.send_encoded(io, &[peer], code, body),
            NetCommand::Fault(peer, why) => self.feed(io, Input::Fault(peer, why)),
            NetCommand::Peers(command, answer) => {
                let result = self.peer_command(io, command);
                // Who asked may have given up by now.
                let _ = answer.try_send(result);
            }
            NetCommand::Status(status) => self.feed(io, Input::Status(status)),
            NetCommand::Operators(keys) => self.feed(io, Input::Operators(keys)),
            NetCommand::Validators(addresses) => {
                self.feed(io, Input::Validators(addresses));
                io.set_exempt(self.machine.exempt().clone());
            }
            NetCommand::Probe(id, address) => self.feed(io, Input::Probe(id, address)),
            NetCommand::Refresh(peer) => {
                let now = self.clock.now();
                let ping = Message::Ping(Status {
                    clock: now.wall,
                    ..self.machine.status()
                });
                self.send(io, &[peer], &ping);
            }
            NetCommand::Respond(token, response) => {
                io.respond(token, &response);
            }
            NetCommand::Resolved(target, Some(address)) => {
                self.dials.insert(io.dial(address, None), target);
            }
            NetCommand::Resolved(target, None) => self.feed(io, Input::DialFailed(target)),
            NetCommand::Limits(limits) => {
                io.set_handshake_rates(rates_of(&limits));
                self.gates.reload(limits, self.clock.mono());
            }
            NetCommand::AddPeer(address) => {
                self.feed(io, Input::AddTarget(address));
                io.set_exempt(self.machine.exempt().clone());
            }
        }
    }

    /// Shows the list of peers to RPC.
    fn show_peers(&mut self, io: &Io, now: Now) {
        self.shown = now.wall;
        let mut views = Vec::new();
        for (id, facts, masternode, ping_us) in self.machine.peers() {
            let Some(conn) = self.conns.get_mut(&id) else {
                continue;
            };
            conn.min_ping_us = conn.min_ping_us.into_iter().chain(ping_us).min();
            let counters = io.conn_counters(conn.id);
            views.push(PeerView {
                id: id.0,
                node_key: facts.key,
                address: conn.address,
                inbound: facts.inbound,
                since: conn.since,
                masternode,
                agent: facts.agent.clone(),
                height: conn.status.height,
                clock_offset_ms: conn.offset_ms,
                ping_us,
                min_ping_us: conn.min_ping_us,
                bytes_out: counters.map_or(0, |c| c.bytes_out),
                bytes_in: counters.map_or(0, |c| c.bytes_in),
                last_send: now.wall,
                last_receive: conn.heard,
                score: self.machine.score(now, id),
                by_type: conn.by_type.clone(),
            });
        }
        *self.out.peers.write() = Arc::new(views);
    }

    fn set_deadline(&mut self, io: &mut Io) {
        let gates = self.gates.due(self.clock.mono(), self.txs_open());
        let due = self.machine.deadline().into_iter().chain(gates).min();
        io.set_deadline(due.map(|at| self.clock.instant(at)));
    }
}

impl Handler for NetThread {
    fn on_connected(&mut self, io: &mut Io, conn: ConnId, info: &ConnInfo) {
        self.next_peer += 1;
        let peer = PeerId(self.next_peer);
        let target = match info.direction {
            Direction::Outbound(dial) => self.dials.remove(&dial),
            Direction::Inbound => None,
        };
        let now = self.clock.now();
        self.conns.insert(
            peer,
            Conn {
                id: conn,
                address: info.remote,
                since: now.wall,
                status: Status::default(),
                heard: now.wall,
                offset_ms: 0,
                min_ping_us: None,
                asked: false,
                by_type: BTreeMap::new(),
            },
        );
        self.peers.insert(conn, peer);
        self.gates.join(peer, target.is_none());
        let key = PublicKey(info.peer_key);
        let (exporter, address) = (info.exporter, info.remote.to_string());
        self.feed(
            io,
            Input::Connected(Link {
                peer,
                key,
                target,
                exporter,
                address,
                remote: Some(info.remote),
            }),
        );
    }

    fn on_frame(&mut self, io: &mut Io, conn: ConnId, frame_type: u8, payload: Vec<u8>) {
        let Some(peer) = self.peers.get(&conn).copied() else {
            return;
        };
        let name = Message::name(frame_type).unwrap_or("unknown");
        if let Some(conn) = self.conns.get_mut(&peer) {
            conn.heard = self.clock.now().wall;
            conn.by_type.entry(name).or_default()[1] += payload.len() as u64;
        }
        count_frame(&self.out.metrics, name, "in", payload.len());
        let Some((_, class)) = Message::rule(frame_type) else {
            return;
        };
        let held = Held {
            code: frame_type,
            payload,
        };
        let (now, open) = (self.clock.mono(), self.txs_open());
        match self.gates.arrive(now, peer, class, held, open) {
            Arrived::Passes(held) => self.passed(io, peer, &held),
            Arrived::Parked { full } => {
                let label = class_of(class).name();
                count(&self.out.metrics.rate_limited, "class", label);
                if full {
                    io.pause_reading(conn);
                }
            }
        }
    }

    fn on_closed(&mut self, io: &mut Io, conn: ConnId, why: &CloseReason) {
        let Some(peer) = self.peers.remove(&conn) else {
            return;
        };
        if let Some(gone) = self.conns.remove(&peer) {
            match why.fault() {
                Some(fault) => log::warn!("peer {} closed: {fault}", gone.address),
                None => log::info!("peer disconnected: {} ({why})", gone.address),
            }
            count(
                &self.out.metrics.peer_events,
                "event",
                if why.fault().is_some() {
                    "fault"
                } else {
                    "disconnected"
                },
            );
        }
        self.gates.leave(peer);
        if why.fault().is_some() {
            self.feed(io, Input::Fault(peer, "malformed frame"));
        }
        self.feed(io, Input::Closed(peer));
        let now = self.clock.now();
        self.show_peers(io, now);
    }

    fn on_dial_failed(&mut self, io: &mut Io, dial: DialId, why: &DialError) {
        if let Some(target) = self.dials.remove(&dial) {
            log::debug!("dial {target} failed: {why}");
            count(&self.out.metrics.peer_events, "event", "dial-failed");
            self.feed(io, Input::DialFailed(target));
        }
    }

    fn on_http(&mut self, io: &mut Io, request: HttpRequest) {
        let token = request.token;
        if self
            .out
            .requests
            .offer(RpcJob::Request(Box::new(request)))
            .is_err()
        {
            io.respond(
                token,
                &HttpResponse::text(503, "too many requests are waiting; try again\n"),
            );
        }
    }

    fn on_http_gone(&mut self, _io: &mut Io, token: HttpToken) {
        self.out.requests.put(RpcJob::Gone(token));
    }

    fn on_wake(&mut self, io: &mut Io) {
        if !std::mem::replace(&mut self.started, true) {
            self.show_bans(io);
        }
        for _ in 0..TURN_COMMAND_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.command(io, command),
                Err(_) => break,
            }
        }
    }

    fn on_deadline(&mut self, io: &mut Io) {
        self.feed(io, Input::Tick);
    }

    fn frame_rule(&self, conn: ConnId, frame_type: u8) -> Option<FrameRule> {
        let asked = || self.peers.get(&conn).and_then(|peer| self.conns.get(peer));
        if Message::is_answer(frame_type) && !asked().is_some_and(|conn| conn.asked) {
            return None;
        }
        let (limit, class) = Message::rule(frame_type)?;
        Some(FrameRule {
            limit,
            class: class_of(class),
        })
    }

    fn on_turn_end(&mut self, io: &mut Io) {
        // What was queued while this turn ran goes out with it; a wake-up for the rest is on its way or done here.
        self.on_wake(io);
        self.release(io);
        let now = self.clock.now();
        if now.wall.since(self.shown) >= PEERS_SHOWN_MS {
            self.show_peers(io, now);
            self.save_book(now);
        }
        self.set_deadline(io);
    }
}
