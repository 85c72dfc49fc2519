//! The consensus thread: owns the replica, feeds it, performs its effects, publishes what others may see.
//!
//! It waits only on its inbox, with the replica's next deadline as timeout. What a full queue does not take (signer,
//! storage, pool) is kept here in order, and no frame is read until there is room: back-pressure ends at the sockets.

use crate::crypto::verify::{Check, Verified};
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::decided::DecidedBlock;
use crate::node::clock::Clock;
use crate::node::disks::{Progress, SignerJob};
use crate::node::meter::Meter;
use crate::node::netcmd::NetCommand;
use crate::node::publish::Publisher;
use crate::node::queues::{Outlet, POOL_CREDITS};
use crate::node::syncer::SyncInput;
use crate::p2p::messages::{Message, PeerId, Status};
use crate::replica::catchup::Synced;
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::rpc::node::SubmitError as RpcSubmitError;
use crate::types::ids::*;
use crate::types::transaction::Tx;
use crossbeam::channel::{Receiver, Sender, after, never, select};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Inputs handled before the thread looks at its deadlines and publishes again.
const TURN_INPUT_MAX: usize = 256;
/// What a part of a Txs frame counts of these: its transactions take that much longer than a vote.
const TXS_INPUT_COST: usize = 64;
/// Signatures of peers' transactions in one batch: an urgent batch waits that long at most.
const BULK_CHECK_MAX: usize = 32;
/// Batches of peers' transactions that wait for the pool; beyond it none are read.
const BULK_WAITING_MAX: usize = 8;
/// Longest wait without a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// Peers are told this often how far this node is while it catches up, ms.
const STATUS_MS: u64 = 200;
/// Retry while something behind is full.
const HELD_UP: Duration = Duration::from_millis(5);

/// What the net thread sends in.
#[derive(Debug)]
pub enum Frame {
    /// See the replica's inputs of the same names.
    Up(PeerId, Status),
    /// A peer proved its operator key.
    Masternode(PeerId, MasternodeId),
    /// A peer's position.
    Status(PeerId, Status),
    /// A peer is gone.
    Down(PeerId),
    /// A masternode's endpoint was reached.
    Reached(MasternodeId, String),
    /// Another node probed this one.
    Probed,
    /// A frame.
    Message(PeerId, Message, ReadAt),
}

/// A question about the replica, answered on its own thread. It must be short: everything else waits.
pub type Question = Box<dyn FnOnce(&mut Replica, crate::base::time::Now, &dyn CoinView) + Send>;

/// What RPC workers and the notify thread send in.
pub enum Call {
    /// A transaction; the answer goes into the channel.
    Submit(Tx, Sender<Result<Txid, RpcSubmitError>>),
    /// A question.
    Ask(Question),
}

/// What the pool and the sync thread send in.
pub enum Report {
    /// Verdicts on signatures; whether they were urgent.
    Verdicts(Vec<Result<Verified<Item>, Item>>, bool),
    /// A block that was fetched.
    Synced(Synced),
    /// A peer's blocks do not follow this node's.
    Strayed(PeerId),
}

/// What the thread reads.
pub struct Inbox {
    /// From net.
    pub frames: Receiver<Frame>,
    /// Transactions of peers, from net.
    pub txs: Receiver<Frame>,
    /// From rpc.
    pub calls: Receiver<Call>,
    /// From pool and sync.
    pub reports: Receiver<Report>,
    /// Wake-up by the disk threads.
    pub wake: Receiver<()>,
    /// Of the signer thread.
    pub signer: Progress,
    /// Of the storage thread.
    pub ledger: Progress,
}

/// Where the thread writes.
pub struct Outbox {
    /// To net.
    pub net: Outlet<NetCommand>,
    /// Wakes net.
    pub wake_net: crate::net::WakeHandle,
    /// To signer.
    pub signer: Outlet<SignerJob>,
    /// To storage.
    pub ledger: Outlet<Arc<DecidedBlock>>,
    /// To sync.
    pub sync: Outlet<SyncInput>,
    /// Back from the pool.
    pub reports: Outlet<Report>,
    /// Pool of verification threads.
    pub pool: crate::node::pool::Pool,
}

/// The consensus thread's state around the replica.
pub struct ConsensusThread {
    /// Clock.
    pub clock: Clock,
    /// The brain.
    pub replica: Replica,
    /// Coins as the ledger environment shows them.
    pub view: Box<dyn CoinView + Send>,
    /// What comes in.
    pub inbox: Inbox,
    /// What goes out.
    pub outbox: Outbox,
    /// Shows the node to others.
    pub publisher: Publisher,
    /// Signer and ledger numbers already told to the replica.
    pub told: (u64, u64),
    /// What full queues did not take.
    pub backlog: Backlog,
    /// RPC clients that wait for a verdict on their transaction.
    pub waiting: BTreeMap<Token, Sender<Result<Txid, RpcSubmitError>>>,
    /// Next token.
    pub next_token: u64,
    /// Raised when the node is to start again from its disks (B6 step 5).
    pub restart: Arc<AtomicBool>,
    /// Validators' hash that net was told the operator keys of.
    pub operators_of: Option<crate::crypto::hash::Hash>,
    /// Where this node stands, when peers have not been told; and when they were told last.
    pub status_due: Option<Status>,
    /// See `status_due`.
    pub status_told: crate::base::time::MonoUs,
}

/// Work that waits for room, in order.
#[derive(Default)]
pub struct Backlog {
    signer: VecDeque<SignerJob>,
    ledger: VecDeque<Arc<DecidedBlock>>,
    pool: VecDeque<Vec<(Item, Vec<Check>)>>,
    pool_out: usize,
    /// Transactions of peers: they leave a thread of the pool to everything else.
    bulk: VecDeque<Vec<(Item, Vec<Check>)>>,
    bulk_out: usize,
}

impl Backlog {
    fn is_held_up(&self) -> bool {
        !self.signer.is_empty() || !self.ledger.is_empty() || !self.pool.is_empty()
    }

    /// Votes, blocks and payments of this node's clients go to the pool at once, transactions of peers in small batches
    /// when a thread is free for them: a flood of transactions never delays votes (P2).
    fn queue_checks(&mut self, batch: Vec<(Item, Vec<Check>)>) {
        let of_peer = |item: &Item| matches!(item, Item::Tx(Origin::Peer(_), _));
        let (bulk, urgent): (Vec<_>, Vec<_>) = batch.into_iter().partition(|(i, _)| of_peer(i));
        if !urgent.is_empty() {
            self.pool.push_back(urgent);
        }
        let mut room = 0;
        for item in bulk {
            let cost = item.1.len().max(1);
            match self.bulk.back_mut().filter(|_| room >= cost) {
                Some(part) => part.push(item),
                None => {
                    room = BULK_CHECK_MAX;
                    self.bulk.push_back(vec![item]);
                }
            }
            room = room.saturating_sub(cost);
        }
    }
}

impl ConsensusThread {
    /// Runs until `stop`; `first` are the effects of the start.
    pub fn run(
        mut self,
        mut meter: Meter,
        first: Vec<Effect>,
        stop: &AtomicBool,
    ) -> Result<Replica, ViewError> {
        self.perform(first);
        self.tell_operators();
        self.publisher.publish(self.clock.now(), &self.replica);
        while !stop.load(Ordering::Acquire) {
            self.turn(&mut meter)?;
        }
        Ok(self.replica)
    }

    fn turn(&mut self, meter: &mut Meter) -> Result<(), ViewError> {
        let held_up = self.backlog.is_held_up();
        let now = self.clock.now();
        let due = self
            .replica
            .deadline(now)
            .map_or(BEAT, |at| self.clock.until(at));
        let due = self
            .publisher
            .due(now)
            .map_or(due, |at| due.min(self.clock.until(at)));
        let wait = if held_up {
            due.min(HELD_UP)
        } else {
            due.min(BEAT)
        };
        meter.worked();
        let first = self.wait(wait, held_up);
        meter.waited(held_up);
        self.disks()?;
        let mut inputs = 0;
        let mut next = first;
        while let Some(input) = next {
            inputs += match input {
                In::Txs(_) => TXS_INPUT_COST,
                _ => 1,
            };
            self.take(input)?;
            next = if inputs < TURN_INPUT_MAX {
                self.ready(held_up)
            } else {
                None
            };
        }
        let now = self.clock.now();
        if inputs == 0 || self.replica.deadline(now).is_some_and(|at| at <= now.mono) {
            self.feed(Input::Tick)?;
        }
        self.retry();
        self.tell_status();
        self.publisher.refresh(self.clock.now(), &self.replica);
        Ok(())
    }

    /// The first input, or none after `wait`.
    fn wait(&self, wait: Duration, held_up: bool) -> Option<In> {
        let inbox = &self.inbox;
        if held_up {
            return select! {
                recv(inbox.reports) -> report => report.ok().map(In::Report),
                recv(inbox.wake) -> _ => None,
                recv(after(wait)) -> _ => None,
            };
        }
        let closed = never();
        let txs = if self.takes_txs() {
            &inbox.txs
        } else {
            &closed
        };
        select! {
            recv(inbox.reports) -> report => report.ok().map(In::Report),
            recv(inbox.wake) -> _ => None,
            recv(inbox.frames) -> frame => frame.ok().map(In::Frame),
            recv(inbox.calls) -> call => call.ok().map(In::Call),
            recv(txs) -> frame => frame.ok().map(In::Txs),
            default(wait) => None,
        }
    }

    fn takes_txs(&self) -> bool {
        self.backlog.bulk.len() < BULK_WAITING_MAX
    }

    /// Another input that is there already. Reports first: they finish what was begun. Transactions of peers last.
    fn ready(&self, held_up: bool) -> Option<In> {
        if let Ok(report) = self.inbox.reports.try_recv() {
            return Some(In::Report(report));
        }
        if held_up {
            return None;
        }
        let frame = self.inbox.frames.try_recv().map(In::Frame);
        let other = frame.or_else(|_| self.inbox.calls.try_recv().map(In::Call));
        let txs = || self.inbox.txs.try_recv().ok().map(In::Txs);
        other.ok().or_else(|| self.takes_txs().then(txs).flatten())
    }

    fn take(&mut self, input: In) -> Result<(), ViewError> {
        match input {
            In::Report(Report::Verdicts(verdicts, urgent)) => {
                let out = match urgent {
                    true => &mut self.backlog.pool_out,
                    false => &mut self.backlog.bulk_out,
                };
                *out = out.saturating_sub(1);
                self.feed(Input::Verdicts(verdicts))
            }
            In::Report(Report::Strayed(peer)) => self.feed(Input::Strayed(peer)),
            In::Report(Report::Synced(synced)) => self.feed(Input::Synced(synced)),
            In::Frame(Frame::Up(peer, status)) => self.feed(Input::PeerUp(peer, status)),
            In::Frame(Frame::Masternode(peer, id)) => self.feed(Input::PeerMasternode(peer, id)),
            In::Frame(Frame::Status(peer, status)) => self.feed(Input::PeerStatus(peer, status)),
            In::Frame(Frame::Down(peer)) => self.feed(Input::PeerDown(peer)),
            In::Frame(Frame::Reached(id, address)) => self.feed(Input::Reached(id, address)),
            In::Frame(Frame::Probed) => self.feed(Input::Probed),
            In::Frame(Frame::Message(peer, message, read))
            | In::Txs(Frame::Message(peer, message, read)) => {
                self.feed(Input::Frame(peer, message, read))
            }
            In::Txs(_) => Ok(()),
            In::Call(Call::Submit(tx, answer)) => {
                self.next_token += 1;
                let token = Token(self.next_token);
                self.waiting.insert(token, answer);
                self.feed(Input::Submit(token, tx))
            }
            In::Call(Call::Ask(question)) => {
                let now = self.clock.now();
                question(&mut self.replica, now, self.view.as_ref());
                Ok(())
            }
        }
    }

    /// What the disk threads have reached since the last turn.
    fn disks(&mut self) -> Result<(), ViewError> {
        let signer = self.inbox.signer.durable.load(Ordering::Acquire);
        if signer > self.told.0 {
            self.told.0 = signer;
            self.feed(Input::SignerDurable(signer))?;
        } else if self.inbox.signer.full.swap(false, Ordering::AcqRel) {
            self.feed(Input::SignerFull)?;
        }
        let ledger = self.inbox.ledger.durable.load(Ordering::Acquire);
        if ledger > self.told.1 {
            self.told.1 = ledger;
            self.feed(Input::LedgerDurable(Height(ledger)))?;
            self.publisher.durable(Height(ledger));
        } else if self.inbox.ledger.full.swap(false, Ordering::AcqRel) {
            self.feed(Input::LedgerFull)?;
        }
        Ok(())
    }

    fn feed(&mut self, input: Input) -> Result<(), ViewError> {
        let effects = self
            .replica
            .handle(self.clock.now(), input, self.view.as_ref())?;
        self.perform(effects);
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut wake = false;
        for effect in effects {
            match effect {
                Effect::Send(peers, message) => {
                    self.outbox.net.put(NetCommand::Send(peers, message));
                    wake = true;
                }
                Effect::Verify(batch) => self.backlog.queue_checks(batch),
                Effect::WriteSigner(number, batch) => {
                    self.backlog.signer.push_back(SignerJob {
                        number,
                        batch,
                        renew: false,
                    });
                }
                Effect::RenewSigner(number, batch) => {
                    self.backlog.signer.push_back(SignerJob {
                        number,
                        batch,
                        renew: true,
                    });
                }
                Effect::WriteLedger(decided) => self.backlog.ledger.push_back(decided),
                Effect::Reply(token, result) => {
                    if let Some(answer) = self.waiting.remove(&token) {
                        // The client may have given up: nobody listens then.
                        let _ = answer.try_send(result.map_err(rpc_error));
                    }
                }
                Effect::Fault(peer, why) => {
                    self.outbox.net.put(NetCommand::Fault(peer, why));
                    wake = true;
                }
                Effect::Probe(id, endpoint) => {
                    let address = String::from_utf8_lossy(&endpoint).into_owned();
                    self.outbox.net.put(NetCommand::Probe(id, address));
                    wake = true;
                }
                Effect::Advanced(status, set) => {
                    self.advanced(status, set);
                }
                Effect::Restart => {
                    log::warn!("the fork has ended: this node starts again in the next era");
                    crate::storage::strike::moment("the next era is durable");
                    self.restart.store(true, Ordering::Release);
                }
                Effect::Event(event) => {
                    self.publisher.event(self.clock.now(), &self.replica, event)
                }
            }
        }
        self.retry();
        if wake {
            self.outbox.wake_net.wake();
        }
    }

    fn advanced(&mut self, status: Status, _set: Arc<crate::types::validators::ValidatorSet>) {
        self.status_due = Some(status);
        let applied = crate::sync::Applied::of(self.replica.state(), self.replica.pin());
        self.outbox.sync.put(SyncInput::Applied(applied));
        self.tell_operators();
    }

    /// Tells peers where this node stands: after every decision, but while catching up not more often than they can use.
    fn tell_status(&mut self) {
        let now = self.clock.now().mono;
        let busy = self.publisher.is_syncing() && now < self.status_told.plus_ms(STATUS_MS);
        if let Some(status) = self.status_due.take_if(|_| !busy) {
            self.status_told = now;
            self.outbox.net.put(NetCommand::Status(status));
            self.outbox.wake_net.wake();
        }
    }

    /// Tells net which operator keys the registry names, when that has changed.
    fn tell_operators(&mut self) {
        let state = self.replica.state();
        let hash = state.registry.hash;
        if self.operators_of != Some(hash) {
            self.operators_of = Some(hash);
            let keys = state
                .registry()
                .entries()
                .iter()
                .filter(|entry| entry.is_backed())
                .map(|entry| (entry.id, entry.operator))
                .collect();
            self.outbox.net.put(NetCommand::Operators(keys));
            let addresses = self.replica.addresses_of_validators();
            self.outbox.net.put(NetCommand::Validators(addresses));
            self.outbox.wake_net.wake();
        }
    }

    /// Hands on what waits for room.
    fn retry(&mut self) {
        while let Some(job) = self.backlog.signer.pop_front() {
            if let Err(job) = self.outbox.signer.offer(job) {
                self.backlog.signer.push_front(job);
                break;
            }
        }
        while let Some(block) = self.backlog.ledger.pop_front() {
            if let Err(block) = self.outbox.ledger.offer(block) {
                self.backlog.ledger.push_front(block);
                break;
            }
        }
        while self.backlog.pool_out < POOL_CREDITS
            && let Some(batch) = self.backlog.pool.pop_front()
        {
            self.backlog.pool_out += 1;
            self.spawn_checks(batch, true);
        }
        let bulk_max = self.outbox.pool.threads().saturating_sub(1).max(1);
        while self.backlog.bulk_out < bulk_max
            && let Some(batch) = self.backlog.bulk.pop_front()
        {
            self.backlog.bulk_out += 1;
            self.spawn_checks(batch, false);
        }
    }

    fn spawn_checks(&self, batch: Vec<(Item, Vec<Check>)>, urgent: bool) {
        let reports = self.outbox.reports.clone();
        let results = self.publisher.signature_counters();
        self.outbox.pool.spawn(move || {
            let verdicts = Verified::check_many(batch);
            let good = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
            results.0.inc_by(good as u64);
            results.1.inc_by((verdicts.len() - good) as u64);
            reports.put(Report::Verdicts(verdicts, urgent));
        });
    }
}

/// One input of a turn.
enum In {
    Frame(Frame),
    /// Transactions of a peer, or their names.
    Txs(Frame),
    Call(Call),
    Report(Report),
}

fn rpc_error(error: SubmitError) -> RpcSubmitError {
    match error {
        SubmitError::Refused(why) => RpcSubmitError::Invalid(why),
        SubmitError::MissingInput(outpoint) => RpcSubmitError::Missing(outpoint),
        SubmitError::InMempool => RpcSubmitError::AlreadyWaiting,
        SubmitError::Conflict { outpoint, by } => RpcSubmitError::Conflict { outpoint, by },
        SubmitError::Full => RpcSubmitError::Full,
    }
}
