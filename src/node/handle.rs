//! The running node as RPC methods see it: published pictures, the durable ledger, and short questions to the consensus
//! thread. Called on rpc workers; a worker may wait here, no other thread ever does.

use crate::base::time::Now;
use crate::crypto::hash::Hash;
use crate::crypto::keys::{SecretKey, Signature};
use crate::crypto::verify::verify_all;
use crate::ledger::mempool::{Admission, Departure, Refusal};
use crate::ledger::report::SlotOutcome;
use crate::net::WakeHandle;
use crate::node::clock::Clock;
use crate::node::consensus::{Call, Question};
use crate::node::datadir::DataDir;
use crate::node::logging;
use crate::node::meter::Gauge;
use crate::node::netcmd::NetCommand;
use crate::node::publish::Shared;
use crate::node::queues::Outlet;
use crate::p2p::reputation::Ban;
use crate::replica::machine::Replica;
use crate::rpc::node::*;
use crate::storage::{LedgerStore, StorageError};
use crate::types::block::{Block, Certificate, Header};
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput, possession_hash};
use crate::types::validators::ValidatorSet;
use crate::wallet::Wallet;
use crossbeam::channel::bounded;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait for an answer of the consensus thread to a question about the mempool.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The durable ledger as RPC reads it.
pub struct Ledger(pub LedgerStore);

fn unreadable(error: StorageError) -> ReadError {
    ReadError(error.to_string())
}

impl LedgerRead for Ledger {
    fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        self.0.header(height).map_err(unreadable)
    }
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ReadError> {
        self.0.block(height).map_err(unreadable)
    }
    fn certificate(&self, height: Height) -> Result<Option<Certificate>, ReadError> {
        self.0.certificate(height).map_err(unreadable)
    }
    fn height_of(&self, id: &BlockId) -> Result<Option<Height>, ReadError> {
        self.0.height_of(id).map_err(unreadable)
    }
    fn position_of(&self, txid: &Txid) -> Result<Option<(Height, u32)>, ReadError> {
        self.0.tx(txid).map_err(unreadable)
    }
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<StoredCoin>, ReadError> {
        let coin = self.0.coin(outpoint).map_err(unreadable)?;
        let coinbase = |flags: u8| flags & crate::ledger::coins::FLAG_COINBASE != 0;
        Ok(coin.map(|coin| StoredCoin {
            output: coin.output,
            coinbase: coinbase(coin.flags),
        }))
    }
    fn spent_by(&self, height: Height) -> Result<Vec<(OutPoint, TxOutput)>, ReadError> {
        let undo = self.0.undo(height).map_err(unreadable)?;
        let spent = undo.map(|undo| undo.spent).unwrap_or_default();
        Ok(spent
            .into_iter()
            .map(|(outpoint, coin)| (outpoint, coin.output))
            .collect())
    }
    fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, ReadError> {
        self.0.slots(from, limit).map_err(unreadable)
    }
    fn validator_set(&self, hash: &Hash) -> Result<Option<Arc<ValidatorSet>>, ReadError> {
        let set = self.0.validator_set(hash).map_err(unreadable)?;
        Ok(set.map(Arc::new))
    }
    fn base(&self) -> Result<Height, ReadError> {
        self.0.base().map_err(unreadable)
    }
}

/// Wallets that are loaded, by name.
pub type Wallets = Arc<RwLock<BTreeMap<String, Arc<Mutex<Wallet>>>>>;

/// The node.
pub struct Handle {
    /// What never changes.
    pub facts: NodeFacts,
    /// What threads share.
    pub shared: Arc<Shared>,
    /// The durable ledger.
    pub ledger: Ledger,
    /// Clock.
    pub clock: Clock,
    /// To consensus.
    pub calls: Outlet<Call>,
    /// To net.
    pub net: Outlet<NetCommand>,
    /// Wallets.
    pub wallets: Wallets,
    /// Raised to stop the node.
    pub stopping: Arc<AtomicBool>,
    /// Where the node lives.
    pub datadir: DataDir,
    /// Threads.
    pub gauges: Vec<Gauge>,
    /// Queues.
    pub queues: Vec<Box<dyn Fn() -> QueueView + Send + Sync>>,
    /// The log filter in force.
    pub log_filter: Mutex<String>,
    /// A snapshot has been fetched: the node is to start again with it.
    pub restart: Arc<AtomicBool>,
    /// Wakes the net thread.
    pub wake_net: WakeHandle,
    /// The operator key, to show its possession.
    pub operator: Option<SecretKey>,
}

impl Handle {
    /// Asks the consensus thread; `None` if it does not answer in time.
    fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Replica, Now, &dyn crate::ledger::coins::CoinView) -> R
        + Send
        + 'static,
        timeout: Duration,
    ) -> Option<R> {
        let (sender, receiver) = bounded(1);
        let question: Question = Box::new(move |replica, now, view| {
            // Who asked may have given up by now.
            let _ = sender.try_send(question(replica, now, view));
        });
        self.calls.offer(Call::Ask(question)).ok()?;
        receiver.recv_timeout(timeout).ok()
    }
}

fn entry_of(replica: &Replica, tx: &Tx, time: crate::base::time::WallMs) -> MempoolEntry {
    let mempool = replica.mempool();
    let parents = tx
        .body()
        .inputs
        .iter()
        .filter_map(|o| mempool.get(&o.txid).map(|p| p.txid));
    let depends: std::collections::BTreeSet<Txid> = parents.collect();
    let fee = mempool.fee_rate(&tx.txid).map_or(0, |rate| rate.fee);
    MempoolEntry {
        tx: tx.clone(),
        fee: crate::types::amount::Amount(fee),
        time,
        height: replica.state().height(),
        depends: depends.into_iter().collect(),
    }
}

fn refusal(refusal: Refusal) -> SubmitError {
    match refusal {
        Refusal::Known => SubmitError::AlreadyWaiting,
        Refusal::Missing(outpoint) | Refusal::NoSuchCoin(outpoint) => {
            SubmitError::Missing(outpoint)
        }
        Refusal::Conflict {
            outpoint, first, ..
        } => SubmitError::Conflict {
            outpoint,
            by: first.txid,
        },
        Refusal::Full => SubmitError::Full,
        other => SubmitError::Invalid(other.to_string()),
    }
}

impl Node for Handle {
    fn phase(&self) -> Phase {
        if self.stopping.load(Ordering::Acquire) {
            Phase::Stopping
        } else {
            Phase::Running
        }
    }
    fn facts(&self) -> &NodeFacts {
        &self.facts
    }
    fn view(&self) -> Arc<NodeView> {
        self.shared.view()
    }
    fn ledger(&self) -> &dyn LedgerRead {
        &self.ledger
    }
    fn now(&self) -> Now {
        self.clock.now()
    }
    fn uptime(&self) -> Duration {
        self.clock.uptime()
    }

    fn submit(&self, tx: Tx, timeout: Duration) -> Result<Txid, SubmitError> {
        let (sender, receiver) = bounded(1);
        self.calls
            .offer(Call::Submit(tx, sender))
            .map_err(|_| SubmitError::Busy(timeout))?;
        receiver
            .recv_timeout(timeout)
            .map_err(|_| SubmitError::Busy(timeout))?
    }

    fn check(&self, tx: Tx, timeout: Duration) -> Result<Acceptance, SubmitError> {
        let judged = self.ask(
            move |replica, now, view| replica.consider(now, &tx, view),
            timeout,
        );
        match judged.ok_or(SubmitError::Busy(timeout))? {
            Err(error) => Err(SubmitError::Invalid(error.to_string())),
            Ok(Admission::Known) => Err(SubmitError::AlreadyWaiting),
            Ok(Admission::Orphan { missing }) => Err(SubmitError::Missing(
                missing.first().copied().unwrap_or_default(),
            )),
            Ok(Admission::Refused(why)) => Err(refusal(why)),
            Ok(Admission::Check { checks, fee }) => match verify_all(&checks) {
                true => Ok(Acceptance {
                    fee: crate::types::amount::Amount(fee),
                }),
                false => Err(SubmitError::Invalid("a signature does not hold".into())),
            },
        }
    }

    fn mempool_entry(&self, txid: &Txid) -> Option<MempoolEntry> {
        let txid = *txid;
        let find = move |replica: &mut Replica, _: Now, _: &dyn crate::ledger::coins::CoinView| {
            let tx = replica.mempool().get(&txid)?.clone();
            let time = replica.mempool().added(&txid)?;
            Some(entry_of(replica, &tx, time))
        };
        self.ask(find, ASK_TIMEOUT)?
    }

    fn mempool_entries(&self, limit: usize) -> Vec<MempoolEntry> {
        let list = move |replica: &mut Replica, _: Now, _: &dyn crate::ledger::coins::CoinView| {
            let all = replica.mempool().iter().take(limit);
            all.map(|(tx, time)| entry_of(replica, tx, time)).collect()
        };
        self.ask(list, ASK_TIMEOUT).unwrap_or_default()
    }

    fn mempool_spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        let outpoint = *outpoint;
        let find = move |replica: &mut Replica, _: Now, _: &dyn crate::ledger::coins::CoinView| {
            replica.mempool().spender(&outpoint).map(|tx| tx.txid)
        };
        self.ask(find, ASK_TIMEOUT)?
    }

    fn track(&self, txid: &Txid) -> Option<Track> {
        let txid = *txid;
        let find = move |replica: &mut Replica, _: Now, _: &dyn crate::ledger::coins::CoinView| {
            if replica.mempool().get(&txid).is_some() {
                return Some(if replica.is_proposed(&txid) {
                    Track::Proposed
                } else {
                    Track::Pending
                });
            }
            match replica.mempool().departure(&txid)? {
                Departure::Included => None,
                Departure::Conflicted { by } => Some(Track::Conflicted { by }),
                Departure::Evicted => Some(Track::Dropped("evicted: others pay more".into())),
                Departure::Expired => Some(Track::Dropped("expired".into())),
                Departure::Invalid(why) => Some(Track::Dropped(format!("no longer valid: {why}"))),
            }
        };
        self.ask(find, ASK_TIMEOUT)?
    }

    fn finality_ms(&self, txid: &Txid) -> Option<u64> {
        self.shared.finality_ms(txid)
    }

    fn peer_command(&self, command: PeerCommand) -> Result<(), PeerRefusal> {
        let (sender, receiver) = bounded(1);
        let command = NetCommand::Peers(command, sender);
        self.net.offer(command).map_err(|_| PeerRefusal::Busy)?;
        self.wake_net.wake();
        let answer = receiver.recv_timeout(ASK_TIMEOUT);
        answer.map_err(|_| PeerRefusal::Busy)?
    }

    fn bans(&self) -> Arc<Vec<Ban>> {
        self.shared.bans.read().clone()
    }

    fn fork(&self) -> Option<crate::replica::fork::ForkInfo> {
        self.ask(|replica, _, _| replica.fork(), ASK_TIMEOUT)?
    }
    fn recoveries(&self) -> Vec<crate::types::fork::RecoveryCert> {
        self.ask(|replica, _, _| replica.recoveries(), ASK_TIMEOUT)
            .unwrap_or_default()
    }
    fn recover(&self, block: BlockId) -> Result<u32, String> {
        let stated = self.ask(
            move |replica, now, _| replica.recover(now, block),
            ASK_TIMEOUT,
        );
        match stated {
            Some(result) => result.map_err(|error| error.to_string()),
            None => Err("the node is busy: ask getforkinfo whether it has stated".into()),
        }
    }
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_net.wake();
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        logging::set_filter(filter);
        *self.log_filter.lock() = filter.to_string();
        Ok(())
    }

    fn log_filter(&self) -> String {
        self.log_filter.lock().clone()
    }

    fn vitals(&self) -> Vitals {
        let lines = logging::line_counts();
        let stats = self.ledger.0.stats().ok();
        Vitals {
            disk: self
                .datadir
                .disk_space()
                .ok()
                .map(|space| (space.free, space.total)),
            ledger_size: stats.map(|s| (s.env.used_size, s.env.map_size)),
            queues: self.queues.iter().map(|view| view()).collect(),
            threads: self.gauges.iter().map(Gauge::view).collect(),
            log_lines: lines
                .iter()
                .map(|(level, n)| (level_name(*level), *n))
                .collect(),
        }
    }

    fn wallet_names(&self) -> Vec<String> {
        self.wallets.read().keys().cloned().collect()
    }

    fn wallet(&self, name: &str) -> Option<Arc<Mutex<Wallet>>> {
        self.wallets.read().get(name).cloned()
    }

    fn possession(&self, message: &Hash) -> Option<Signature> {
        let key = self.operator.as_ref()?;
        Some(key.sign(&possession_hash(message)))
    }
}

fn level_name(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    }
}
