//! The rpc workers, and the notify thread that tells wallets and waiting clients what was decided.

use crate::ledger::mempool::encode_saved;
use crate::ledger::registration::stale_registration;
use crate::net::{HttpResponse, HttpToken, WakeHandle};
use crate::node::clock::Clock;
use crate::node::consensus::Call;
use crate::node::files;
use crate::node::handle::Wallets;
use crate::node::keeper::Keeper;
use crate::node::meter::Meter;
use crate::node::netcmd::NetCommand;
use crate::node::netthread::RpcJob;
use crate::node::queues::Outlet;
use crate::node::syncer::Blocks;
use crate::rpc::service::Service;
use crate::sync::BlockReader;
use crate::types::ids::*;
use crate::types::transaction::Tx;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait without a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// Wait before an answer is offered to a full net queue again.
const ANSWER_RETRY: Duration = Duration::from_millis(2);
/// The mempool is saved this often, ms (section 5).
const MEMPOOL_SAVE_MS: u64 = 60_000;
/// Wallets are asked this often for what they want sent again, ms.
const WALLET_TICK_MS: u64 = 1_000;

/// How answers reach clients.
#[derive(Clone)]
pub struct Answers {
    /// To net.
    pub net: Outlet<NetCommand>,
    /// Wakes net.
    pub wake_net: WakeHandle,
    /// Raised when the node stops.
    pub stop: Arc<AtomicBool>,
}

impl Answers {
    /// Sends an answer; waits while the queue is full, as only this worker's client is held up.
    pub fn send(&self, token: HttpToken, response: HttpResponse) {
        let mut command = NetCommand::Respond(token, Box::new(response));
        while let Err(back) = self.net.offer(command) {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            command = back;
            std::thread::park_timeout(ANSWER_RETRY);
        }
        self.wake_net.wake();
    }
}

/// An rpc worker: until its queue closes or the node stops.
pub fn worker(
    mut meter: Meter,
    service: &Service<HttpToken>,
    jobs: &Receiver<RpcJob>,
    answers: &Answers,
    nudge: &Outlet<()>,
) {
    while !answers.stop.load(Ordering::Acquire) {
        meter.worked();
        let job = jobs.recv_timeout(BEAT);
        meter.waited(false);
        match job {
            Ok(RpcJob::Request(request)) => {
                let token = request.token;
                match service.handle(token, request.peer.ip(), &request.parts) {
                    Some(response) => answers.send(token, response),
                    // It waits: the notify thread must know the new deadline.
                    None => nudge.put(()),
                }
            }
            Ok(RpcJob::Gone(token)) => service.on_gone(token),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What the notify thread works on.
pub struct Notifier {
    /// Clock.
    pub clock: Clock,
    /// Waiting clients.
    pub service: Arc<Service<HttpToken>>,
    /// Wallets.
    pub wallets: Wallets,
    /// Decided blocks.
    pub blocks: Blocks,
    /// To consensus.
    pub calls: Outlet<Call>,
    /// To clients.
    pub answers: Answers,
    /// Everything up to this height has been told.
    pub told: Height,
    /// Own registry transactions were judged after this slot block.
    pub told_slot: SlotIndex,
    /// The file that keeps the mempool over a restart.
    pub mempool_file: PathBuf,
    /// Files about peers.
    pub keeper: Keeper,
    /// Names the network in it.
    pub chain: ChainId,
}

impl Notifier {
    /// Runs until the node stops, then flushes wallets.
    pub fn run(mut self, mut meter: Meter, wakes: &Receiver<()>) {
        let mut tick = self.clock.mono();
        let mut save = tick.plus_ms(MEMPOOL_SAVE_MS);
        while !self.answers.stop.load(Ordering::Acquire) {
            let due = self.service.next_deadline().map_or(tick, |at| at.min(tick));
            meter.worked();
            let wake = wakes.recv_timeout(self.clock.until(due).min(BEAT));
            meter.waited(false);
            while wakes.try_recv().is_ok() {}
            if wake == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            self.tell_decided();
            self.drop_stale();
            self.send_late(self.service.on_time());
            if self.clock.mono() >= save {
                save = self.clock.mono().plus_ms(MEMPOOL_SAVE_MS);
                self.save_mempool();
            }
            if self.clock.mono() >= tick {
                tick = self.clock.mono().plus_ms(WALLET_TICK_MS);
                self.tick_wallets();
                self.keeper.keep();
            }
        }
        self.keeper.keep();
        self.tell_decided();
        self.send_late(self.service.on_stop());
        for (name, wallet) in self.wallets.read().iter() {
            if let Err(error) = wallet.lock().flush() {
                log::error!("wallet '{name}': {error}");
            }
        }
    }

    fn send_late(&self, late: Vec<(HttpToken, HttpResponse)>) {
        for (token, response) in late {
            self.answers.send(token, response);
        }
    }

    /// Wallets first, then clients: who is told that a payment is final finds it in the wallet.
    fn tell_decided(&mut self) {
        let view = self.blocks.shared.view();
        let conflicted = self.blocks.shared.take_conflicted();
        let before = self.told;
        let mut decided = Vec::new();
        while self.told < view.tip.height {
            let height = self.told.next();
            match self.blocks.certified(height) {
                Ok(Some((block, _))) => {
                    for wallet in self.wallets.read().values() {
                        wallet.lock().observe(&block, height);
                    }
                    decided.extend(block.transactions.iter().map(|tx| tx.txid));
                }
                // Neither in the picture nor durable: it will be in the next picture.
                Ok(None) => break,
                Err(error) => {
                    log::error!("block {height} cannot be read for the wallet: {error}");
                    break;
                }
            }
            self.told = height;
        }
        // Blocks without transactions count too: somebody may wait for the tip to move.
        if self.told != before || !conflicted.is_empty() {
            self.send_late(self.service.on_decided(&decided, &conflicted));
        }
    }

    /// After a slot block: own registry transactions that the registry refuses now will never be decided; what they spend is
    /// free again.
    fn drop_stale(&mut self) {
        let slot_index = self.blocks.shared.view().slot_index;
        if slot_index == self.told_slot {
            return;
        }
        let wallets: Vec<_> = self.wallets.read().values().cloned().collect();
        let pending = wallets.iter().flat_map(|wallet| wallet.lock().pending());
        let waiting: Vec<Tx> = pending
            .map(|entry| entry.tx)
            .filter(|tx| tx.body().kind.is_registry())
            .collect();
        if !waiting.is_empty() {
            let (sender, receiver) = bounded(1);
            let ask = Call::Ask(Box::new(move |replica, _, _| {
                let state = replica.state();
                let stale = |tx: &Tx| Some((tx.txid, stale_registration(tx, state)?));
                let found: Vec<_> = waiting.iter().filter_map(stale).collect();
                // Who asked may have given up by now.
                let _ = sender.try_send((state.height(), found));
            }));
            let answer = self.calls.offer(ask).ok();
            let Some((height, stale)) = answer.and_then(|()| receiver.recv_timeout(BEAT).ok())
            else {
                return;
            };
            // A transaction makes itself stale: wallets must have seen the blocks that were judged.
            if self.told < height {
                return;
            }
            for (txid, why) in stale {
                for wallet in &wallets {
                    for gone in wallet.lock().abandon(&txid) {
                        log::warn!("the wallet's transaction {gone} can never be decided: {why}");
                    }
                }
            }
        }
        self.told_slot = slot_index;
    }

    /// A crash loses no more than a minute of what was waiting (section 5). The consensus thread only lends the list.
    fn save_mempool(&self) {
        let (sender, receiver) = bounded(1);
        let ask = Call::Ask(Box::new(move |replica, _, _| {
            // Who asked may have given up by now.
            let _ = sender.try_send(replica.mempool().saved());
        }));
        let Ok(saved) = self
            .calls
            .offer(ask)
            .map_err(|_| ())
            .and_then(|()| receiver.recv_timeout(BEAT).map_err(|_| ()))
        else {
            return;
        };
        let bytes = encode_saved(self.chain, saved.into_iter());
        if let Err(error) = files::write_private(&self.mempool_file, &bytes) {
            log::warn!("the mempool is not saved: {error}");
        }
    }

    /// Own payments that are not final yet are offered again.
    fn tick_wallets(&self) {
        let now = self.clock.now();
        for wallet in self.wallets.read().values() {
            for tx in wallet.lock().tick(now) {
                // Nobody waits for this answer: the state of the payment shows what became of it.
                let (sender, _) = bounded(1);
                let _ = self.calls.offer(Call::Submit(tx, sender));
            }
        }
    }
}
