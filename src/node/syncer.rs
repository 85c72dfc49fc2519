//! The sync thread: drives the machine that catches up, and serves blocks and certificates to peers that do.

use crate::crypto::verify::Verified;
use crate::node::clock::Clock;
use crate::node::consensus::Report;
use crate::node::meter::Meter;
use crate::node::netcmd::NetCommand;
use crate::node::publish::Shared;
use crate::node::queues::Outlet;
use crate::p2p::messages::{CertifiedBlock, Message, PeerId};
use crate::rpc::node::SyncView;
use crate::storage::{LedgerStore, StorageError};
use crate::sync::{self, Applied, Effect, Input, Machine};
use crate::types::block::{Block, Certificate};
use crate::types::ids::Height;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait without a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// What comes in.
pub enum SyncInput {
    /// A peer told its height.
    Position(PeerId, Height),
    /// A peer is gone.
    Gone(PeerId),
    /// A block that was asked for.
    Block(PeerId, Box<CertifiedBlock>),
    /// A peer asks for blocks.
    GetBlocks(PeerId, Height, u16),
    /// A peer asks for a certificate.
    GetCertificate(PeerId, Height),
    /// A verdict on a certificate.
    Verdict(u64, Result<Verified<Certificate>, Certificate>),
    /// The replica decided a block.
    Applied(Applied),
    /// The node stops.
    Stop,
}

/// Where the thread writes.
pub struct Outlets {
    /// To net.
    pub net: Outlet<NetCommand>,
    /// Wakes net.
    pub wake_net: crate::net::WakeHandle,
    /// To consensus.
    pub reports: Outlet<Report>,
    /// Back from the pool.
    pub inbox: Outlet<SyncInput>,
    /// Pool of verification threads.
    pub pool: crate::node::pool::Pool,
    /// What others see of the node.
    pub shared: Arc<Shared>,
}

/// Blocks that are durable, and those decided after them.
pub struct Blocks {
    /// The durable ones.
    pub ledger: LedgerStore,
    /// The others.
    pub shared: Arc<Shared>,
}

impl sync::BlockReader for Blocks {
    type Error = StorageError;
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, StorageError> {
        let view = self.shared.view();
        if let Some(recent) = view.recent.iter().find(|b| b.certificate.height == height) {
            return Ok(Some((recent.block.clone(), recent.certificate.clone())));
        }
        let snapshot = self.ledger.snapshot()?;
        Ok(snapshot.block(height)?.zip(snapshot.certificate(height)?))
    }
}

/// The thread's state.
pub struct Syncer {
    /// Clock.
    pub clock: Clock,
    /// The machine.
    pub machine: Machine,
    /// What it serves.
    pub blocks: Blocks,
    /// Where it writes.
    pub out: Outlets,
}

impl Syncer {
    /// Runs until [`SyncInput::Stop`] or the queue closes.
    pub fn run(mut self, mut meter: Meter, inbox: &Receiver<SyncInput>) {
        let mut deadline = None;
        loop {
            let wait = deadline.map_or(BEAT, |at| self.clock.until(at).min(BEAT));
            meter.worked();
            let input = inbox.recv_timeout(wait);
            meter.waited(false);
            match input {
                Ok(SyncInput::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.machine.handle(self.clock.now(), Input::Tick)
                }
            }
            while let Some(effect) = self.machine.effect() {
                if let Effect::SetDeadline(at) = effect {
                    deadline = at;
                } else {
                    self.perform(effect);
                }
            }
            let progress = self.machine.progress(self.clock.now());
            self.out.shared.show_sync(SyncView {
                active: progress.active,
                target: progress.to,
                ranges: progress.requests,
                bytes: progress.held_bytes,
            });
            self.out.wake_net.wake();
        }
    }

    fn take(&mut self, input: SyncInput) {
        let now = self.clock.now();
        match input {
            SyncInput::Position(peer, height) => self.machine.handle(
                now,
                Input::Position {
                    peer: peer.0,
                    height,
                },
            ),
            SyncInput::Gone(peer) => self.machine.handle(now, Input::Gone { peer: peer.0 }),
            SyncInput::Block(peer, certified) => {
                let CertifiedBlock { block, certificate } = *certified;
                self.machine.handle(
                    now,
                    Input::Block {
                        peer: peer.0,
                        block: Arc::new(block),
                        certificate,
                    },
                );
            }
            SyncInput::Verdict(ticket, outcome) => {
                self.machine.handle(now, Input::Verdict { ticket, outcome })
            }
            SyncInput::Applied(applied) => self.machine.handle(now, Input::Applied(applied)),
            SyncInput::GetBlocks(peer, from, count) => self.serve(peer, from, count),
            SyncInput::GetCertificate(peer, height) => {
                use crate::sync::BlockReader;
                if let Ok(Some((_, certificate))) = self.blocks.certified(height) {
                    self.send(peer, Message::Certificate(Box::new(certificate)));
                }
            }
            SyncInput::Stop => {}
        }
    }

    fn serve(&mut self, peer: PeerId, from: Height, count: u16) {
        match sync::answer(&self.blocks, from, count) {
            Ok(blocks) => {
                for (block, certificate) in blocks {
                    let block = Block::clone(&block);
                    self.send(
                        peer,
                        Message::Block(Box::new(CertifiedBlock { block, certificate })),
                    );
                }
            }
            Err(error) => log::error!(
                "blocks from {from} cannot be read for peer {}: {error}",
                peer.0
            ),
        }
    }

    fn send(&self, peer: PeerId, message: Message) {
        self.out
            .net
            .put(NetCommand::Send(vec![peer], Arc::new(message)));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, from, count } => {
                self.send(PeerId(peer), Message::GetBlocks((from, count)))
            }
            Effect::Refresh { peer } => self.out.net.put(NetCommand::Refresh(PeerId(peer))),
            Effect::Verify {
                ticket,
                certificate,
                checks,
            } => {
                let inbox = self.out.inbox.clone();
                self.out.pool.spawn(move || {
                    inbox.put(SyncInput::Verdict(
                        ticket,
                        Verified::check(certificate, &checks),
                    ));
                });
            }
            Effect::Deliver { block, certificate } => {
                self.out
                    .reports
                    .put(Report::Synced(Box::new(Block::clone(&block)), certificate));
            }
            Effect::Fault { peer, why } => {
                log::warn!("peer {peer}: {why}");
                self.out
                    .net
                    .put(NetCommand::Fault(PeerId(peer), "wrong blocks"));
            }
            Effect::Conflict {
                peer,
                block,
                certificate,
            } => {
                log::error!(
                    "FORK: peer {peer} showed a certificate for block {} at height {}, where this node holds another \
                     decided block; keep both nodes' data and compare with other operators (block {})",
                    certificate.block,
                    certificate.height,
                    block.id()
                );
            }
            Effect::SetDeadline(_) => {}
        }
    }
}
