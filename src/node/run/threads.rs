//! Threads and queues of a node, all made here (the table of queues is in `queues`), and the order in which they stop.

use super::RunError;
use super::open::Opened;
use super::site::{Site, Wires};
use super::takeback::{take_back, taken_back};
use crate::base::time::Now;
use crate::ledger::mempool::{MempoolLimits, decode_saved};
use crate::net::{HttpToken, LoopStats, NetConfig, NetError, NodeIdentity, Reactor, WakeHandle};
use crate::node::clock::Clock;
use crate::node::config::{Config, CoreSet};
use crate::node::datadir::{DirLock, OperatorLock};
use crate::node::exit::Exit;
use crate::node::forkfile::ForkFile;
use crate::node::handle::Handle;
use crate::node::keeper::Keeper;
use crate::node::meter::{Gauge, Meter};
use crate::node::netcmd::NetCommand;
use crate::node::pool::Pool;
use crate::node::publish::{Parts, Shared, view_of};
use crate::node::queues::Outlet;
use crate::node::syncer::SyncInput;
use crate::node::trust::{TrustError, TrustFile};
use crate::node::{pinning, wallets};
use crate::p2p::machine as p2p;
use crate::replica::io::Effect;
use crate::replica::machine::{Config as ReplicaConfig, Replica};
use crate::replica::start::Disks;
use crate::rpc::auth::{Credential, Users};
use crate::rpc::metrics::Metrics;
use crate::rpc::service::{Service, ServiceConfig};
use crate::storage::Signer;
use crate::sync::trust::Trust;
use crate::types::transaction::Endpoint;
use crossbeam::channel::bounded;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Room for framing beside the transactions in a mempool file, bytes.
pub(super) const SAVED_FRAMING: usize = 4 << 20;

/// A node that runs.
pub(super) struct Running {
    pub(super) handle: Arc<Handle>,
    service: Arc<Service<HttpToken>>,
    cookie: String,
    sync: Outlet<SyncInput>,
    net: Outlet<NetCommand>,
    net_thread: JoinHandle<Result<(), NetError>>,
    consensus_thread: JoinHandle<Replica>,
    sync_thread: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
    disks: Vec<JoinHandle<()>>,
    locks: (DirLock, Option<OperatorLock>),
}

/// Starts threads and keeps their gauges.
pub(super) struct Crew {
    clock: Clock,
    gauges: Vec<Gauge>,
}

impl Crew {
    fn new(clock: Clock) -> Crew {
        Crew {
            clock,
            gauges: Vec::new(),
        }
    }

    pub(super) fn meter(&mut self, name: &'static str) -> Meter {
        let (meter, gauge) = Meter::new(name, self.clock);
        self.gauges.push(gauge);
        meter
    }
}

pub(super) fn spawn<R: Send + 'static>(
    meter: Meter,
    cores: &CoreSet,
    work: impl FnOnce(Meter) -> R + Send + 'static,
) -> Result<JoinHandle<R>, RunError> {
    let (name, cores) = (meter.name(), cores.clone());
    let (report, pinned) = bounded(1);
    let thread = std::thread::Builder::new()
        .name(name.to_string())
        .spawn(move || {
            let effective = pinning::pin_current(name, &cores);
            if let Ok(cores) = &effective {
                meter.on_cores(cores.iter().map(usize::from).collect());
            }
            // The starter listens until it has heard; if it has gone, so will this thread.
            let _ = report.send(effective.map(|_| ()));
            work(meter)
        });
    let thread =
        thread.map_err(|e| RunError::new(format!("thread {name}: {e}"), Exit::Internal))?;
    match pinned.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(RunError::new(&error, error.exit())),
        Err(_) => Err(RunError::new(
            format!("thread {name} ended at once"),
            Exit::Internal,
        )),
    }
}

fn users(config: &Config, cookie: &str) -> Users {
    let credential = |user: &crate::node::config::RpcUser| Credential {
        name: user.name.clone(),
        salt: user.salt.clone(),
        hash: user.hash,
        methods: user
            .methods
            .clone()
            .map(|methods| methods.into_iter().collect()),
    };
    Users::new(
        Some(cookie.to_string()),
        config.rpc.users.iter().map(credential).collect(),
    )
}

/// The first start, or the one after a crash: the replica from what is on disk.
fn start_replica(
    config: &Config,
    opened: &mut Opened,
    limits: MempoolLimits,
    clock: Clock,
) -> Result<(Replica, Vec<Effect>), RunError> {
    let (records, unsure) = match &opened.signer {
        None => (ForkFile::open(&opened.datadir).records(), None),
        Some((store, Signer::Sure)) => (store.load()?, None),
        Some((store, Signer::Unsure(why))) => (store.load()?, Some(why.to_string())),
    };
    let returned = take_back(opened, &records, limits)?;
    let trust = open_trust(config, opened, clock)?;
    let state = opened.ledger.state();
    let certificate = opened.ledger.certificate(state.height())?;
    let operator = opened.operator.as_ref().map(|(secret, _)| secret.clone());
    let config = ReplicaConfig {
        rules: Default::default(),
        operator,
        mempool: limits,
        trust,
    };
    let disks = Disks {
        state,
        certificate,
        records,
        unsure,
        returned,
    };
    let started = Replica::start(config, disks, clock.now(), &opened.ledger);
    let started = started.map_err(|error| RunError::new(error, Exit::Data))?;
    if opened.operator.is_some() && started.0.masternode().is_none() {
        log::warn!(
            "the operator key belongs to no registered masternode yet: this node follows, and votes once it does"
        );
    }
    Ok(started)
}

/// What this node believes. Where belief has ended is written down before anything is followed (F2).
fn open_trust(config: &Config, opened: &Opened, clock: Clock) -> Result<Trust, RunError> {
    let failed = |e: TrustError| RunError::new(e, Exit::Data);
    let path = opened.datadir.trust();
    let mut file = TrustFile::read(&path).map_err(failed)?;
    let trust = file.trust(&opened.ledger, config.sync.trusted);
    let trust = trust.map_err(failed)?;
    if let Some(why) = trust.doubt(clock.now().wall, opened.ledger.tip()) {
        log::warn!(
            "{why}; this node's tip is {}:{}",
            opened.ledger.tip(),
            opened.ledger.state().block()
        );
        file.anchor = Some(trust.anchor());
        file.write(&path).map_err(failed)?;
    }
    Ok(trust)
}

fn saved_mempool(
    opened: &Opened,
    limits: MempoolLimits,
    replica: &mut Replica,
    clock: Clock,
) -> Result<Vec<Effect>, RunError> {
    let file = opened.datadir.mempool();
    let Ok(bytes) = std::fs::read(&file) else {
        return Ok(Vec::new());
    };
    match decode_saved(
        &bytes,
        limits.bytes + SAVED_FRAMING,
        opened.genesis.chain_id(),
    ) {
        Ok(saved) => {
            let txs = saved.into_iter().map(|saved| saved.tx).collect();
            let effects = replica.restore_transactions(clock.now(), txs, &opened.ledger);
            effects.map_err(|e| RunError::new(e, Exit::Io))
        }
        Err(error) => {
            log::warn!(
                "{}: {error}; starting with an empty mempool",
                file.display()
            );
            Ok(Vec::new())
        }
    }
}

fn listen(config: &Config, opened: &Opened) -> Result<(Reactor, WakeHandle), RunError> {
    let internal = |e: &dyn std::fmt::Display| RunError::new(e, Exit::Internal);
    let identity = NodeIdentity::from_seed(&opened.node_seed).map_err(|e| internal(&e))?;
    let mut net = NetConfig::new(identity);
    net.max_connections = config.limits.connections;
    net.max_http = config.rpc.max_connections;
    net.timeouts.handshake = std::time::Duration::from_millis(config.p2p.handshake_timeout_ms);
    let hosts = config.p2p.peers.iter().map(|peer| peer.host.parse());
    net.exempt = hosts.filter_map(Result::ok).collect();
    net.handshakes = crate::node::netthread::rates_of(&config.peer_limits());
    net.http_listen = config.rpc.bind.clone();
    net.p2p_listen = config.p2p.bind.clone();
    let first = Reactor::new(net.clone());
    let made = match first {
        // A host without IPv6 is no error while nobody asked for IPv6.
        Err(_) if config.p2p.bind_is_default => {
            net.p2p_listen.retain(|address| address.is_ipv4());
            Reactor::new(net)
        }
        other => other,
    };
    made.map_err(|error| {
        RunError::new(
            format!("{error}; is another node running here?"),
            Exit::Unavailable,
        )
    })
}

fn peer_machine(config: &Config, opened: &Opened, replica: &Replica, now: Now) -> p2p::Machine {
    // Members of the set are added as targets when the consensus thread has told them.
    let targets = config.p2p.peers.iter().map(|e| e.to_string()).collect();
    let endpoint = config.p2p.external.as_ref().map(|e| e.to_string());
    let endpoint = endpoint.and_then(|text| Endpoint::try_from(text.into_bytes()).ok());
    let operator = opened.operator.as_ref().map(|(secret, _)| secret.clone());
    let node_key = crate::crypto::keys::SecretKey::from_seed(&opened.node_seed).public();
    let (book, anchors) = crate::node::keeper::load_book(&opened.datadir.peers());
    p2p::Machine::new(p2p::Config {
        chain: opened.genesis.chain_id(),
        node_key,
        operator,
        agent: format!("timecoin/{}", env!("CARGO_PKG_VERSION")),
        supports: crate::ledger::apply::SOFTWARE_BRANCH,
        endpoint,
        targets,
        ping_interval_ms: config.p2p.ping_interval_ms,
        inbound_max: config.p2p.max_inbound,
        status: replica.status(now),
        seeds: config.p2p.seeds.iter().map(|e| e.to_string()).collect(),
        outbound_max: config.p2p.max_outbound,
        require_stake: config.p2p.require_stake,
        allow_private: config.node.network == crate::types::address::Network::Dev,
        book,
        anchors,
        bans: crate::node::keeper::load_bans(&opened.datadir.bans()),
        started: now.wall,
        seed: now.wall.0,
    })
}

fn verification_pool(config: &Config, crew: &mut Crew) -> Result<Pool, RunError> {
    let threads = &config.threads;
    let pool = Pool::new(threads.pool, &threads.pool_cores, crew.meter("pool"));
    pool.map_err(|e| RunError::new(e, Exit::Internal))
}

fn mempool_limits(config: &Config) -> MempoolLimits {
    MempoolLimits {
        count: config.mempool.max_count,
        bytes: config.mempool.max_size,
    }
}

fn announce(addresses: &crate::net::LocalAddrs) {
    for address in &addresses.http {
        log::info!("JSON-RPC, metrics and health at http://{address}/");
    }
    for address in &addresses.p2p {
        log::info!("peers at {address}");
    }
}

fn service_config(config: &Config, cookie: &str) -> ServiceConfig {
    ServiceConfig {
        users: users(config, cookie),
        rate_anonymous: config.rpc.rate_anonymous,
        rate_user: config.rpc.rate_user,
        max_batch: config.rpc.max_batch,
    }
}

/// Makes everything and starts it.
pub(super) fn start(config: &Config, mut opened: Opened) -> Result<Running, RunError> {
    let clock = Clock::default();
    let mut crew = Crew::new(clock);
    let limits = mempool_limits(config);
    // Before anybody can connect: who then reads the cookie of the last run is refused, and refusals are slow.
    let cookie = opened.datadir.write_cookie()?;
    let (mut reactor, wake_net) = listen(config, &opened)?;
    let addresses = reactor.local_addrs();
    let (mut replica, mut first) = start_replica(config, &mut opened, limits, clock)?;
    first.extend(saved_mempool(&opened, limits, &mut replica, clock)?);
    let returned = taken_back(&opened, limits);
    let (durable, info) = (opened.ledger.tip(), replica.consensus(clock.now()));
    let view = view_of(&replica, &info, Parts::first(durable, limits));
    let site = Site {
        config,
        clock,
        metrics: Arc::new(Metrics::new()),
        shared: Arc::new(Shared::new(view)),
        wake_net,
        pool: verification_pool(config, &mut crew)?,
        stopping: Arc::default(),
        restart: Arc::default(),
        wallets: wallets::load(config, &opened.datadir, &opened.ledger, returned.as_deref())?,
        limits,
        durable,
        wires: Wires::new(),
        shelf: Default::default(),
    };
    let machine = peer_machine(config, &opened, &replica, clock.now());
    *site.shared.bans.write() = Arc::new(machine.reputation().bans().cloned().collect());
    let threads = &config.threads;
    let (signer, ledger, wake) = site.disks(&mut crew, &mut opened)?;
    let (syncer, inbox) = (site.syncer(&opened, &replica), site.wires.sync.1.clone());
    let sync_thread = spawn(crew.meter("sync"), &threads.sync, move |meter| {
        syncer.run(meter, &inbox)
    })?;
    let consensus = site.consensus(&opened, replica, (signer.0, ledger.0), wake);
    let (consensus_meter, net_meter, notify_meter) = (
        crew.meter("consensus"),
        crew.meter("net"),
        crew.meter("notify"),
    );
    let workers = (0..config.rpc.workers.max(1))
        .map(|_| crew.meter("rpc"))
        .collect();
    let handle = site.handle(&opened, addresses.p2p.clone(), crew.gauges);
    let settings = service_config(config, &cookie);
    let service = Arc::new(Service::new(handle.clone(), site.metrics.clone(), settings));
    let stop = site.stopping.clone();
    let consensus_thread = spawn(consensus_meter, &threads.consensus, move |meter| {
        consensus.run(meter, first, &stop).unwrap_or_else(|error| {
            log::error!("the ledger cannot be read: {error}");
            std::process::exit(i32::from(Exit::Io.code()))
        })
    })?;
    let mut others = site.rpc(&opened, &service, workers, notify_meter)?;
    others.push(site.snapshots(&opened)?);
    let mut handler = site.net_handler(machine)?;
    let stop = site.stopping.clone();
    let net_thread = spawn(net_meter, &threads.net, move |mut meter| {
        let turn = |stats: &LoopStats| meter.turn(stats.work, stats.idle);
        let ended = reactor.run(&mut handler, &stop, turn);
        ended.inspect(|()| handler.last_book())
    })?;
    announce(&addresses);
    Ok(Running {
        handle,
        service,
        cookie,
        sync: site.wires.sync.0.clone(),
        net: site.wires.net.0.clone(),
        net_thread,
        consensus_thread,
        sync_thread,
        others,
        disks: vec![signer.1, ledger.1],
        locks: (opened.lock, opened.operator.map(|(_, lock)| lock)),
    })
}

impl Running {
    /// Users and limits of a configuration that was read again, and peers that it adds.
    pub(super) fn reload(&self, config: &Config) {
        self.service.reload(
            users(config, &self.cookie),
            config.rpc.rate_anonymous,
            config.rpc.rate_user,
        );
        self.net.put(NetCommand::Limits(config.peer_limits()));
        for peer in &config.p2p.peers {
            self.net.put(NetCommand::AddPeer(peer.to_string()));
        }
        self.handle.wake_net.wake();
    }

    /// Stops threads in the order in which work flows, so that what was taken in is finished, and saves the mempool.
    pub(super) fn stop(self) -> Result<(), RunError> {
        self.handle.stopping.store(true, Ordering::Release);
        self.handle.wake_net.wake();
        let died = |what: &str| {
            RunError::new(
                format!("thread {what} did not end in order"),
                Exit::Internal,
            )
        };
        self.others
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| died("rpc")))?;
        self.net_thread
            .join()
            .map_err(|_| died("net"))?
            .map_err(|e| RunError::new(e, Exit::Io))?;
        // After the net thread, which knew best whom to dial first next time.
        Keeper::new(&self.handle.datadir, self.handle.shared.clone()).keep_all();
        self.sync.put(SyncInput::Stop);
        self.sync_thread.join().map_err(|_| died("sync"))?;
        // The consensus thread owns the ends of the disk queues: they close when it has ended.
        let replica = self
            .consensus_thread
            .join()
            .map_err(|_| died("consensus"))?;
        let (datadir, chain) = (self.handle.datadir.clone(), self.handle.facts.chain);
        drop(self.service);
        drop(self.handle);
        self.disks
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| died("disk")))?;
        let bytes = replica.mempool().save(chain);
        crate::node::files::write_private(&datadir.mempool(), &bytes)
            .map_err(|e| RunError::new(e, Exit::Io))?;
        drop(self.locks);
        Ok(())
    }
}
