//! What a start builds threads from: the queues, and the parts that several threads share.

use super::RunError;
use super::open::Opened;
use super::threads::{Crew, spawn};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::mempool::MempoolLimits;
use crate::net::{HttpToken, WakeHandle};
use crate::node::clock::Clock;
use crate::node::config::Config;
use crate::node::consensus::{Backlog, Call, ConsensusThread, Frame, Inbox, Outbox, Report};
use crate::node::disks::{self, Progress, SignerJob};
use crate::node::exit::Exit;
use crate::node::forkfile::ForkFile;
use crate::node::handle::{Handle, Ledger, Wallets};
use crate::node::keeper::Keeper;
use crate::node::meter::{Gauge, Meter};
use crate::node::netcmd::NetCommand;
use crate::node::netthread::{self, NetThread, RpcJob};
use crate::node::publish::{Publisher, Shared};
use crate::node::queues::{self, Outlet, queue};
use crate::node::rpcthreads::{self, Answers, Notifier};
use crate::node::snapshots::{self, Shelf};
use crate::node::syncer::{self, Blocks, SyncInput, Syncer};
use crate::p2p::machine as p2p;
use crate::replica::machine::Replica;
use crate::rpc::metrics::Metrics;
use crate::rpc::node::{NodeFacts, QueueView};
use crate::rpc::service::Service;
use crate::types::ids::{Height, SlotIndex};
use crossbeam::channel::{Receiver, bounded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

pub(super) fn viewer<T: Send + 'static>(
    outlet: &Outlet<T>,
) -> Box<dyn Fn() -> QueueView + Send + Sync> {
    let outlet = outlet.clone();
    Box::new(move || outlet.view())
}

/// Looks names of peers up, so that the net thread never waits for a resolver.
pub(super) fn lookup_thread(
    net: &Outlet<NetCommand>,
    wake: &WakeHandle,
    names: &Receiver<(usize, String)>,
) {
    use std::net::ToSocketAddrs;
    while let Ok((target, name)) = names.recv() {
        let found = name.to_socket_addrs().ok().and_then(|mut all| all.next());
        net.put(NetCommand::Resolved(target, found));
        wake.wake();
    }
}

/// The ends of all queues, before threads take theirs.
pub(super) struct Wires {
    pub(super) frames: (Outlet<Frame>, Receiver<Frame>),
    pub(super) txs: (Outlet<Frame>, Receiver<Frame>),
    pub(super) calls: (Outlet<Call>, Receiver<Call>),
    pub(super) reports: (Outlet<Report>, Receiver<Report>),
    pub(super) signer: (Outlet<SignerJob>, Receiver<SignerJob>),
    pub(super) ledger: (Outlet<Arc<DecidedBlock>>, Receiver<Arc<DecidedBlock>>),
    pub(super) net: (Outlet<NetCommand>, Receiver<NetCommand>),
    pub(super) sync: (Outlet<SyncInput>, Receiver<SyncInput>),
    pub(super) requests: (Outlet<RpcJob>, Receiver<RpcJob>),
    pub(super) notify: (Outlet<()>, Receiver<()>),
}

impl Wires {
    pub(super) fn new() -> Wires {
        Wires {
            frames: queue(queues::FRAMES),
            txs: queue(queues::TXS),
            calls: queue(queues::CALLS),
            reports: queue(queues::REPORTS),
            signer: queue(queues::SIGNER),
            ledger: queue(queues::LEDGER),
            net: queue(queues::NET),
            sync: queue(queues::SYNC),
            requests: queue(queues::REQUESTS),
            notify: queue(queues::NOTIFY),
        }
    }

    pub(super) fn viewers(&self) -> Vec<Box<dyn Fn() -> QueueView + Send + Sync>> {
        vec![
            viewer(&self.frames.0),
            viewer(&self.txs.0),
            viewer(&self.calls.0),
            viewer(&self.reports.0),
            viewer(&self.signer.0),
            viewer(&self.ledger.0),
            viewer(&self.net.0),
            viewer(&self.sync.0),
            viewer(&self.requests.0),
            viewer(&self.notify.0),
        ]
    }
}

/// What every part of the start needs.
pub(super) struct Site<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: Arc<Shared>,
    pub(super) wake_net: WakeHandle,
    pub(super) pool: crate::node::pool::Pool,
    pub(super) stopping: Arc<AtomicBool>,
    /// Raised to start again.
    pub(super) restart: Arc<AtomicBool>,
    pub(super) wallets: Wallets,
    pub(super) limits: MempoolLimits,
    pub(super) durable: Height,
    pub(super) wires: Wires,
    pub(super) shelf: Shelf,
}

impl Site<'_> {
    /// The thread that makes snapshots in the background.
    pub(super) fn snapshots(&self, opened: &Opened) -> Result<JoinHandle<()>, RunError> {
        let (ledger, root) = (opened.ledger.clone(), opened.datadir.snapshots());
        let (shelf, stop) = (self.shelf.clone(), self.stopping.clone());
        let interval = self.config.storage.snapshot_interval;
        snapshots::tidy(&ledger, &root, &shelf);
        let thread = std::thread::Builder::new().name("snapshots".into());
        let thread = thread.spawn(move || {
            if interval > 0 {
                snapshots::keeper(&ledger, &root, interval, &shelf, &stop);
            }
        });
        thread.map_err(|e| RunError::new(e, Exit::Internal))
    }

    pub(super) fn blocks(&self, opened: &Opened) -> Blocks {
        Blocks {
            ledger: opened.ledger.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Signer and storage threads; what they tell the consensus thread.
    pub(super) fn disks(
        &self,
        crew: &mut Crew,
        opened: &mut Opened,
    ) -> Result<(Disk, Disk, Receiver<()>), RunError> {
        let (wake, wake_in) = bounded(1);
        let signer = Progress::new(0, wake.clone());
        let ledger = Progress::new(self.durable.0, wake);
        let threads = &self.config.threads;
        let store = opened.signer.take().map(|(store, _)| store);
        let (jobs, progress, counters) = (
            self.wires.signer.1.clone(),
            signer.clone(),
            self.metrics.clone(),
        );
        let forks = ForkFile::open(&opened.datadir);
        let signer_thread = spawn(
            crew.meter("signer"),
            &threads.signer,
            move |meter| match store {
                Some(store) => disks::signer_thread(meter, &store, &jobs, &progress, &counters),
                None => disks::no_signer_thread(meter, forks, &jobs, &progress),
            },
        )?;
        let (jobs, progress, counters) = (
            self.wires.ledger.1.clone(),
            ledger.clone(),
            self.metrics.clone(),
        );
        let store = opened.ledger.clone();
        let ledger_thread = spawn(crew.meter("storage"), &threads.storage, move |meter| {
            disks::storage_thread(meter, &store, &jobs, &progress, &counters);
        })?;
        Ok(((signer, signer_thread), (ledger, ledger_thread), wake_in))
    }

    pub(super) fn syncer(&self, opened: &Opened, replica: &Replica) -> Syncer {
        let applied = crate::sync::Applied::of(replica.state(), replica.pin());
        let root = replica.trust().root().map(|root| (root.height, root.id));
        Syncer {
            clock: self.clock,
            machine: crate::sync::Machine::new(opened.genesis.chain_id(), applied, root),
            certified: self.config.sync.certified,
            told: crate::base::time::MonoUs(0),
            snapshots: syncer::Snapshots {
                shelf: self.shelf.clone(),
                root: opened.datadir.snapshots(),
                wanted: self.config.sync.snapshot,
                download: None,
                restart: self.restart.clone(),
            },
            blocks: self.blocks(opened),
            out: syncer::Outlets {
                net: self.wires.net.0.clone(),
                wake_net: self.wake_net.clone(),
                reports: self.wires.reports.0.clone(),
                inbox: self.wires.sync.0.clone(),
                pool: self.pool.clone(),
                shared: self.shared.clone(),
            },
        }
    }

    pub(super) fn consensus(
        &self,
        opened: &Opened,
        replica: Replica,
        progress: (Progress, Progress),
        wake: Receiver<()>,
    ) -> ConsensusThread {
        let wires = &self.wires;
        ConsensusThread {
            clock: self.clock,
            replica,
            view: Box::new(opened.ledger.clone()),
            inbox: Inbox {
                frames: wires.frames.1.clone(),
                txs: wires.txs.1.clone(),
                calls: wires.calls.1.clone(),
                reports: wires.reports.1.clone(),
                wake,
                signer: progress.0,
                ledger: progress.1,
            },
            outbox: Outbox {
                net: wires.net.0.clone(),
                wake_net: self.wake_net.clone(),
                signer: wires.signer.0.clone(),
                ledger: wires.ledger.0.clone(),
                sync: wires.sync.0.clone(),
                reports: wires.reports.0.clone(),
                pool: self.pool.clone(),
            },
            publisher: Publisher::new(
                self.shared.clone(),
                self.metrics.clone(),
                wires.notify.0.clone(),
                self.durable,
                self.limits,
            ),
            told: (0, self.durable.0),
            backlog: Backlog::default(),
            waiting: std::collections::BTreeMap::new(),
            next_token: 0,
            restart: self.restart.clone(),
            operators_of: None,
            status_due: None,
            status_told: crate::base::time::MonoUs(0),
        }
    }

    pub(super) fn handle(
        &self,
        opened: &Opened,
        p2p: Vec<std::net::SocketAddr>,
        gauges: Vec<Gauge>,
    ) -> Arc<Handle> {
        Arc::new(Handle {
            facts: NodeFacts {
                genesis: opened.genesis.clone(),
                chain: opened.genesis.chain_id(),
                node_key: crate::crypto::keys::SecretKey::from_seed(&opened.node_seed).public(),
                operator: opened.operator.as_ref().map(|(key, _)| key.public()),
                p2p_addresses: p2p,
                log_path: String::new(),
                has_tx_index: true,
            },
            shared: self.shared.clone(),
            ledger: Ledger(opened.ledger.clone()),
            clock: self.clock,
            calls: self.wires.calls.0.clone(),
            net: self.wires.net.0.clone(),
            wallets: self.wallets.clone(),
            stopping: self.stopping.clone(),
            datadir: opened.datadir.clone(),
            gauges,
            queues: self.wires.viewers(),
            log_filter: Mutex::new(self.config.log.level.clone()),
            restart: self.restart.clone(),
            wake_net: self.wake_net.clone(),
            operator: opened.operator.as_ref().map(|(key, _)| key.clone()),
        })
    }

    /// Workers and the notify thread.
    pub(super) fn rpc(
        &self,
        opened: &Opened,
        service: &Arc<Service<HttpToken>>,
        meters: Vec<Meter>,
        notify: Meter,
    ) -> Result<Vec<JoinHandle<()>>, RunError> {
        let wires = &self.wires;
        let answers = Answers {
            net: wires.net.0.clone(),
            wake_net: self.wake_net.clone(),
            stop: self.stopping.clone(),
        };
        let cores = &self.config.threads.rpc;
        let mut all = Vec::new();
        for meter in meters {
            let (service, jobs) = (service.clone(), wires.requests.1.clone());
            let (answers, nudge) = (answers.clone(), wires.notify.0.clone());
            all.push(spawn(meter, cores, move |meter| {
                rpcthreads::worker(meter, &service, &jobs, &answers, &nudge);
            })?);
        }
        let notifier = Notifier {
            clock: self.clock,
            service: service.clone(),
            wallets: self.wallets.clone(),
            blocks: self.blocks(opened),
            calls: wires.calls.0.clone(),
            answers,
            told: self.durable,
            told_slot: SlotIndex(0),
            mempool_file: opened.datadir.mempool(),
            keeper: Keeper::new(&opened.datadir, self.shared.clone()),
            chain: opened.genesis.chain_id(),
        };
        let wakes = wires.notify.1.clone();
        all.push(spawn(notify, cores, move |meter| {
            notifier.run(meter, &wakes)
        })?);
        Ok(all)
    }

    pub(super) fn net_handler(&self, machine: p2p::Machine) -> Result<NetThread, RunError> {
        let wires = &self.wires;
        let (lookups, names) = bounded(LOOKUP_COUNT_MAX);
        let (commands, wake) = (wires.net.0.clone(), self.wake_net.clone());
        let resolver = std::thread::Builder::new().name("lookup".into());
        let resolver = resolver.spawn(move || lookup_thread(&commands, &wake, &names));
        resolver.map_err(|e| RunError::new(e, Exit::Internal))?;
        let outlets = netthread::Outlets {
            frames: wires.frames.0.clone(),
            txs: wires.txs.0.clone(),
            sync: wires.sync.0.clone(),
            requests: wires.requests.0.clone(),
            lookups,
            peers: self.shared.peers.clone(),
            bans: self.shared.bans.clone(),
            book: self.shared.book.clone(),
            metrics: self.metrics.clone(),
        };
        Ok(NetThread::new(
            machine,
            self.clock,
            wires.net.1.clone(),
            outlets,
            self.config.peer_limits(),
        ))
    }
}

/// What a disk thread tells, and the thread.
pub(super) type Disk = (Progress, JoinHandle<()>);

/// Names of peers that wait to be looked up; beyond it a dial fails and is tried again.
pub(super) const LOOKUP_COUNT_MAX: usize = 64;
