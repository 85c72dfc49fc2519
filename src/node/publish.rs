//! What the consensus thread shows to others: one consistent picture of the node, log lines and counters.
//!
//! A block is in the picture before anybody is told that it is final, and stays there until the ledger on disk holds it.

use crate::base::time::{MonoUs, Now};
use crate::crypto::hash::Hash;
use crate::ledger::decided::DecidedBlock;
use crate::ledger::mempool::MempoolLimits;
use crate::node::queues::Outlet;
use crate::p2p::reputation::Ban;
use crate::replica::info::ConsensusInfo;
use crate::replica::io::Event;
use crate::replica::machine::Replica;
use crate::rpc::metrics::{Counters1, Metrics};
use crate::rpc::node::*;
use crate::rpc::published;
use crate::types::amount::Amount;
use crate::types::ids::*;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The picture is made anew at least this often while things change, ms.
const PUBLISH_MS: u64 = 20;
/// Payments whose time to finality is remembered.
const FINALITY_COUNT_MAX: usize = 100_000;
/// Transactions made impossible that the notify thread has not read.
const CONFLICTED_COUNT_MAX: usize = 10_000;

/// What all threads may read.
pub struct Shared {
    view: RwLock<Arc<NodeView>>,
    sync: RwLock<SyncView>,
    /// Peers, written by the net thread.
    pub peers: Arc<RwLock<Arc<Vec<PeerView>>>>,
    /// The address book as it is to be saved, if it has changed; written by the net thread.
    pub book: Arc<Mutex<Option<Vec<u8>>>>,
    /// Bans in force, written by the net thread.
    pub bans: Arc<RwLock<Arc<Vec<Ban>>>>,
    finality_ms: Mutex<(BTreeMap<Txid, u64>, VecDeque<Txid>)>,
    conflicted: Mutex<Vec<Txid>>,
}

impl Shared {
    /// Starts with a first picture.
    pub fn new(first: NodeView) -> Shared {
        Shared {
            view: RwLock::new(Arc::new(first)),
            sync: RwLock::new(SyncView::default()),
            peers: Arc::default(),
            book: Arc::default(),
            bans: Arc::default(),
            finality_ms: Mutex::default(),
            conflicted: Mutex::default(),
        }
    }
    /// The newest picture.
    pub fn view(&self) -> Arc<NodeView> {
        self.view.read().clone()
    }
    /// The sync thread tells how far it is.
    pub fn show_sync(&self, sync: SyncView) {
        *self.sync.write() = sync;
    }
    /// Time from first sight to finality of a payment, ms.
    pub fn finality_ms(&self, txid: &Txid) -> Option<u64> {
        self.finality_ms.lock().0.get(txid).copied()
    }
    /// Takes the transactions made impossible since the last call.
    pub fn take_conflicted(&self) -> Vec<Txid> {
        std::mem::take(&mut *self.conflicted.lock())
    }

    fn remember_finality(&self, times: &[(Txid, u64)]) {
        let mut held = self.finality_ms.lock();
        for (txid, us) in times {
            if held.0.insert(*txid, us / 1_000).is_none() {
                held.1.push_back(*txid);
            }
            if held.1.len() > FINALITY_COUNT_MAX
                && let Some(old) = held.1.pop_front()
            {
                held.0.remove(&old);
            }
        }
    }
}

/// Counts one thing under a label.
pub fn count(family: &Counters1, key: &'static str, value: &'static str) {
    family.get_or_create(&[(key, value)]).inc();
}

/// Counts a frame and its bytes.
pub fn count_frame(metrics: &Metrics, name: &'static str, direction: &'static str, bytes: usize) {
    let labels = [("type", name), ("direction", direction)];
    metrics.frames.get_or_create(&labels).inc();
    metrics
        .frame_bytes
        .get_or_create(&labels)
        .inc_by(bytes as u64);
}

/// Makes the pictures.
pub struct Publisher {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    notify: Outlet<()>,
    recent: VecDeque<Arc<RecentBlock>>,
    durable: Height,
    masternodes: (Hash, Arc<Vec<PeerView>>, Arc<Vec<MasternodeView>>),
    published: MonoUs,
    dirty: bool,
    /// A block was decided that the last picture does not show.
    unshown: bool,
    due_since: Option<MonoUs>,
    no_quorum_since: Option<MonoUs>,
    last_time: Option<crate::base::time::WallMs>,
    mempool_limits: MempoolLimits,
}

impl Publisher {
    /// A publisher for a node whose ledger is durable up to `durable`.
    pub fn new(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        notify: Outlet<()>,
        durable: Height,
        mempool_limits: MempoolLimits,
    ) -> Publisher {
        Publisher {
            shared,
            metrics,
            notify,
            recent: VecDeque::new(),
            durable,
            masternodes: (Hash::ZERO, Arc::default(), Arc::default()),
            published: MonoUs(0),
            dirty: true,
            unshown: false,
            due_since: None,
            no_quorum_since: None,
            last_time: None,
            mempool_limits,
        }
    }

    /// The ledger on disk holds everything up to `height`.
    pub fn durable(&mut self, height: Height) {
        self.durable = height;
        while self
            .recent
            .front()
            .is_some_and(|b| b.certificate.height <= height)
        {
            self.recent.pop_front();
        }
        self.dirty = true;
    }

    /// Counters of things whose signatures held, and did not.
    pub fn signature_counters(&self) -> (Counter, Counter) {
        let of = |result| {
            self.metrics
                .signature_checks
                .get_or_create(&[("result", result)])
                .clone()
        };
        (of("good"), of("bad"))
    }

    /// When the picture is to be made anew.
    pub fn due(&self, _now: Now) -> Option<MonoUs> {
        self.dirty.then(|| self.published.plus_ms(PUBLISH_MS))
    }

    /// Something may have changed: makes the picture anew if the last one is old enough.
    pub fn refresh(&mut self, now: Now, replica: &Replica) {
        self.dirty = true;
        if now.mono >= self.published.plus_ms(PUBLISH_MS) {
            self.publish(now, replica);
        }
    }

    /// An event of the replica: picture, log, counters.
    pub fn event(&mut self, now: Now, replica: &Replica, event: Event) {
        match event {
            Event::Decided {
                decided,
                round,
                since_parent_us,
                finality_us,
                conflicted,
                synced,
            } => {
                let times = (since_parent_us, finality_us);
                self.decided(now, replica, &decided, (round, synced), times, conflicted);
            }
            Event::StepDone(step, us) => {
                let times = &self.metrics.step_duration;
                times
                    .get_or_create(&[("step", step)])
                    .observe(us as f64 / 1e6);
            }
            Event::TimedOut(step) => count(&self.metrics.timeouts, "step", step),
            Event::VoteJudged(step, result) => {
                self.metrics
                    .votes
                    .get_or_create(&[("step", step), ("result", result)])
                    .inc();
            }
            Event::NewRound(height, at) => {
                self.metrics.round_changes.inc();
                log::info!("height {height}: round {at} begins");
            }
            Event::Proposed(height, at, block) => {
                log::debug!("height {height} round {at}: proposal {block}")
            }
            Event::Evidence(evidence) => {
                self.metrics.equivocations.inc();
                log::warn!(
                    "masternode {} broke the rules: two messages where one is allowed",
                    evidence.offender
                );
            }
            Event::Signing(Ok(())) => log::info!("this masternode signs"),
            Event::Signing(Err(why)) => {
                count(&self.metrics.signer_refusals, "reason", "state");
                log::info!("not signing: {why}");
            }
            Event::InvalidProposal(block, why) => {
                log::warn!("proposed block {block} is invalid: {why}")
            }
            Event::Halted(why) => log::error!("HALTED: {why}"),
            forks @ (Event::Forked { .. }
            | Event::ForkCulprits(_)
            | Event::ForkStated(..)
            | Event::ForkEnded { .. }
            | Event::ForkRefused(..)
            | Event::ForkTooDeep(..)
            | Event::Returned(_)) => tell_of_fork(&forks),
            Event::MempoolAccepted(txids) => {
                self.metrics.mempool_accepted.inc_by(txids.len() as u64);
            }
            Event::MempoolRefused(reason) => {
                count(&self.metrics.mempool_rejected, "reason", reason)
            }
            Event::Shed(what) => {
                count(&self.metrics.rate_limited, "class", what);
                log::debug!("shed: {what}");
            }
        }
    }

    fn decided(
        &mut self,
        now: Now,
        replica: &Replica,
        decided: &DecidedBlock,
        (round, synced): (EraRound, bool),
        (since_parent_us, finality_us): (u64, Vec<(Txid, u64)>),
        conflicted: Vec<Txid>,
    ) {
        let header = &decided.block.header;
        self.recent.push_back(Arc::new(RecentBlock::of(decided)));
        self.shared.remember_finality(&finality_us);
        self.unshown = true;
        // Nobody waits for a block that was fetched: some of them share a picture.
        match synced {
            true => self.refresh(now, replica),
            false => self.publish(now, replica),
        }
        let mut waiting = self.shared.conflicted.lock();
        let room = CONFLICTED_COUNT_MAX.saturating_sub(waiting.len());
        waiting.extend(conflicted.into_iter().take(room));
        drop(waiting);
        self.measure(
            header.time,
            since_parent_us,
            &finality_us,
            decided.block.transactions.len(),
        );
        let level = if synced {
            log::Level::Debug
        } else {
            log::Level::Info
        };
        log::log!(
            level,
            "block decided: height {} round {} txs {} id {} after {:.1} ms",
            header.height,
            round,
            decided.block.transactions.len(),
            decided.certificate.block,
            since_parent_us as f64 / 1_000.0
        );
    }

    fn measure(
        &mut self,
        time: crate::base::time::WallMs,
        since_us: u64,
        finality_us: &[(Txid, u64)],
        txs: usize,
    ) {
        self.metrics.blocks_decided.inc();
        self.metrics.transactions_decided.inc_by(txs as u64);
        self.metrics.round_duration.observe(since_us as f64 / 1e6);
        if let Some(last) = self.last_time.replace(time) {
            self.metrics
                .block_interval
                .observe(time.since(last) as f64 / 1e3);
        }
        for (_, us) in finality_us {
            self.metrics.finality.observe(*us as f64 / 1e6);
        }
    }

    /// Makes the picture and shows it.
    pub fn publish(&mut self, now: Now, replica: &Replica) {
        self.published = now.mono;
        self.dirty = false;
        let info = replica.consensus(now);
        let since =
            |held: Option<MonoUs>, on: bool| if on { held.or(Some(now.mono)) } else { None };
        self.due_since = since(self.due_since, info.due && info.halted.is_none());
        self.no_quorum_since = since(self.no_quorum_since, !info.quorum_connected);
        let peers = self.shared.peers.read().clone();
        let masternodes = self.masternodes(replica, &peers);
        let view = view_of(
            replica,
            &info,
            Parts {
                peers,
                masternodes,
                sync: *self.shared.sync.read(),
                recent: self.recent.iter().cloned().collect(),
                durable: self.durable,
                due_since: self.due_since,
                no_quorum_since: self.no_quorum_since,
                mempool_limits: self.mempool_limits,
            },
        );
        *self.shared.view.write() = Arc::new(view);
        // Only now: nobody is told of what the picture does not show.
        if std::mem::take(&mut self.unshown) {
            self.notify.put(());
        }
    }

    /// Whether blocks are being fetched.
    pub fn is_syncing(&self) -> bool {
        self.shared.sync.read().active
    }

    fn masternodes(
        &mut self,
        replica: &Replica,
        peers: &Arc<Vec<PeerView>>,
    ) -> Arc<Vec<MasternodeView>> {
        let hash = replica.state().registry.hash;
        if self.masternodes.0 != hash || !Arc::ptr_eq(&self.masternodes.1, peers) {
            let own = replica.masternode();
            let connected = |id: &MasternodeId| {
                own == Some(*id) || peers.iter().any(|p| p.masternode == Some(*id))
            };
            let views = published::masternodes(replica.state(), connected);
            self.masternodes = (hash, peers.clone(), Arc::new(views));
        }
        self.masternodes.2.clone()
    }
}

/// What of a picture does not come from the replica.
pub struct Parts {
    peers: Arc<Vec<PeerView>>,
    masternodes: Arc<Vec<MasternodeView>>,
    sync: SyncView,
    recent: Vec<Arc<RecentBlock>>,
    durable: Height,
    due_since: Option<MonoUs>,
    no_quorum_since: Option<MonoUs>,
    mempool_limits: MempoolLimits,
}

impl Parts {
    /// Of a node that has just started.
    pub fn first(durable: Height, mempool_limits: MempoolLimits) -> Parts {
        Parts {
            peers: Arc::default(),
            masternodes: Arc::default(),
            sync: SyncView::default(),
            recent: Vec::new(),
            durable,
            due_since: None,
            no_quorum_since: None,
            mempool_limits,
        }
    }
}

fn consensus_view(
    info: &ConsensusInfo,
    due_since: Option<MonoUs>,
    no_quorum_since: Option<MonoUs>,
) -> ConsensusView {
    ConsensusView {
        height: info.height,
        at: info.at,
        step: match info.step {
            "propose" => Step::Propose,
            "prevote" => Step::Prevote,
            "precommit" => Step::Precommit,
            _ => Step::Idle,
        },
        proposer: info.proposer,
        quorum: Power(2 * info.total.0 / 3 + 1),
        total: info.total,
        connected: info.connected,
        prevotes: info.prevotes,
        precommits: info.precommits,
        waiting_for: info.waiting_for.clone(),
        due_since,
        no_quorum_since,
    }
}

/// The masternode that this node speaks for.
fn own_view(replica: &Replica, info: &ConsensusInfo) -> Option<OwnMasternode> {
    let id = replica.masternode()?;
    let entry = replica.state().registry().get(&id);
    let unknown = crate::crypto::keys::PublicKey([0; 32]);
    Some(OwnMasternode {
        operator: entry.map_or(unknown, |e| e.operator),
        id: entry.map(|e| e.id),
        unsure: (!info.sure).then(|| info.signing.clone().err().unwrap_or_default()),
        anchored: info.unanchored.is_none(),
        abstains: info.signing.clone().err(),
    })
}

fn trust_view(replica: &Replica, info: &ConsensusInfo) -> TrustView {
    let trust = replica.trust();
    TrustView {
        unanchored: info.unanchored.clone(),
        anchor: trust.anchor().height,
        anchor_time: trust.anchor().time,
        root: trust.root().map(|root| (root.height, root.id)),
    }
}

/// The picture of a replica.
pub fn view_of(replica: &Replica, info: &ConsensusInfo, parts: Parts) -> NodeView {
    let state = replica.state();
    let tip = &state.tip;
    let registry = state.registry();
    let entries = registry.entries();
    let accrued = Amount::sum(entries.iter().map(|e| e.accrued)).unwrap_or_default();
    let collateral = state.registry.held.minus(accrued).unwrap_or_default();
    let mempool = replica.mempool();
    let state_root = replica
        .last_decided()
        .map_or_else(|| state.root(), |d| d.block.header.state_root);
    NodeView {
        own_standing: info.own.clone(),
        tip: Tip {
            height: tip.height,
            id: tip.block,
            time: tip.time,
            state_root,
        },
        durable: parts.durable,
        slot_height: state
            .slots
            .records
            .last()
            .map_or(Height(0), |record| record.first),
        slot_index: state.slot_index(),
        era: tip.era,
        branch: tip.branch,
        validators: state.validators.clone(),
        masternodes: parts.masternodes,
        supply: SupplyView {
            issued: tip.supply.issued,
            burned: tip.supply.burned,
            pot: tip.supply.pot,
            accrued,
            collateral,
            coins: tip.coins,
            coin_count: tip.coin_count,
        },
        consensus: consensus_view(info, parts.due_since, parts.no_quorum_since),
        own: own_view(replica, info),
        mempool: MempoolView {
            count: mempool.len(),
            size: mempool.bytes(),
            max_size: parts.mempool_limits.bytes,
            max_count: parts.mempool_limits.count,
            orphan_count: mempool.orphan_len(),
            total_fee: Amount::ZERO,
        },
        peers: parts.peers,
        sync: parts.sync,
        clock: ClockView {
            offset_ms: info.clock_offset_ms,
            alarm: info
                .clock_alarm
                .then(|| "the wall clock jumped or differs from other masternodes' clocks".into()),
        },
        recent: parts.recent,
        trust: trust_view(replica, info),
        warnings: warnings(info),
        contested: info.contested,
    }
}
/// Alarms: what an operator must know at once.
fn warnings(info: &ConsensusInfo) -> Vec<String> {
    let fork = info.forked.map(|height| {
        format!("FORK at height {height}: signing has stopped, and payments that it may take back are contested, not final; see getforkinfo for what to do")
    });
    let others = info.halted.iter().chain(&info.unanchored);
    others.cloned().chain(fork).collect()
}

/// What happens to a fork, on the log: every line says what to do or that nothing is to be done.
fn tell_of_fork(event: &Event) {
    match event {
        Event::Forked {
            height,
            blocks: [a, b],
            held,
        } => {
            let held = held.map_or("neither".into(), |block| block.to_string());
            log::error!(
                "FORK at height {height}: both {a} and {b} are decided; this node held {held}. It signs nothing more of this era \
                 and goes on serving. 'time-cli getforkinfo' names the culprits and what to do"
            );
        }
        Event::ForkCulprits(ids) => {
            let names: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
            log::error!("fork: proved guilty: {}", names.join(", "));
        }
        Event::ForkStated(attempt, block) => {
            log::warn!("fork: stated in attempt {attempt} that block {block} stays");
        }
        Event::ForkEnded { height, block, .. } => {
            log::warn!("fork: a majority agrees that {block} stays at height {height}");
        }
        Event::ForkTooDeep(height, [own, other]) => {
            log::error!(
                "FORK at height {height} or below: {own} here and {other} elsewhere are decided, deeper than max_reorg or in two eras. This \
                 node signs nothing more and goes on serving. 'time-cli getforkinfo' says what to do"
            );
        }
        Event::ForkRefused(height, why) => {
            log::warn!("a conflict at height {height} changes nothing: {why}");
        }
        Event::Returned(txids) => log::warn!(
            "fork: {} payments of blocks that were taken back wait again; 'time-cli getforkinfo' lists them",
            txids.len()
        ),
        _ => {}
    }
}
