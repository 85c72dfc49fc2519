//! The world of one run: simulated time, its queue of events, nodes, network, clients, faults and the checker.

use crate::base::rng::Rng;
use crate::p2p::machine as p2p;
use crate::replica::io::{Effect, Input, Token};
use crate::sim::adversary::Adversary;
use crate::sim::checker::Checker;
use crate::sim::clients::Clients;
use crate::sim::disk::{LedgerDisk, SignerDisk};
use crate::sim::faults::Faults;
use crate::sim::kit::{Role, genesis, key};
use crate::sim::log::Log;
use crate::sim::network::{Frame, Network};
use crate::sim::node::{Clock, Node, operators};
use crate::sync;
use crate::types::address::Network as Kind;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::Tx;
use crate::types::validators::ValidatorSet;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a run is.
#[derive(Clone)]
pub struct Options {
    /// Fixes everything.
    pub seed: u64,
    /// Whose parameters.
    pub network: Kind,
    /// Collateral of each masternode, TIME.
    pub collaterals: Vec<u64>,
    /// Nodes without a masternode.
    pub observers: usize,
    /// Clients with money.
    pub holders: usize,
    /// Time between payments, ms; 0: none.
    pub pay_every_ms: u64,
    /// Least and greatest latency of a pair of nodes, µs.
    pub latency: (u64, u64),
    /// What goes wrong.
    pub faults: Faults,
    /// Kind of signer records (first byte of their keys) that never reach the disk: a mutant that the checker must find.
    pub forget: Option<u8>,
    /// Keep the whole log.
    pub keep_log: bool,
}

impl Options {
    /// Masternodes of equal power in a devnet that works.
    pub fn devnet(seed: u64, masternodes: usize) -> Options {
        Options {
            seed,
            network: Kind::Dev,
            collaterals: vec![1_000; masternodes],
            observers: 0,
            holders: 8,
            pay_every_ms: 700,
            latency: (1_000, 20_000),
            faults: Faults::default(),
            forget: None,
            keep_log: false,
        }
    }
}

/// A broken rule, and what led to it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} (simulated time {at_us} us)")]
pub struct Violation {
    /// Which rule.
    pub what: String,
    /// When, µs.
    pub at_us: u64,
    /// The newest lines of the log.
    pub trace: Vec<String>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Simulated time, µs.
    pub simulated_us: u64,
    /// Greatest height decided.
    pub height: Height,
    /// Payments made and final.
    pub payments: (u64, u64),
    /// Median and 99th percentile of the time to finality, µs.
    pub finality_us: (u64, u64),
    /// Bytes and frames sent by all nodes.
    pub sent: (u64, u64),
    /// Events handled.
    pub events: u64,
    /// Lines of the log and their fingerprint.
    pub log: (u64, u64),
}

/// What happens at a point of simulated time.
pub(super) enum Event {
    Start(usize),
    Wake(usize, u64),
    Frame(u64, usize, Frame),
    Closed(u64, usize),
    Connected(u64, usize),
    DialFailed(usize, u64, usize),
    SignerDone(usize, u64),
    LedgerDone(usize, u64),
    Pay,
    Resend,
    Chaos,
    Heal,
}

/// Something for a machine, or from one.
pub(super) enum Work {
    ToReplica(Input),
    ToP2p(p2p::Input),
    ToSync(sync::Input),
    FromReplica(Effect),
    FromP2p(p2p::Effect),
}

/// Time between submissions of what is not final, µs.
const RESEND_US: u64 = 10_000_000;
/// Wake-ups without time passing that count as spinning.
const SPINS_MAX: u32 = 2_000;

/// A network.
pub struct World {
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    events: u64,
    /// Its nodes; masternode i is node i.
    pub nodes: Vec<Node>,
    /// Its network.
    pub network: Network,
    /// Its clients.
    pub clients: Clients,
    /// Its checker.
    pub checker: Checker,
    /// Its faults; may be changed while it runs.
    pub faults: Faults,
    pub(super) dice: Rng,
    pub(super) validators: Arc<ValidatorSet>,
    pub(super) genesis: Genesis,
    pub(super) options: Options,
    log: Log,
    pub(super) broken: Option<String>,
}

impl World {
    /// A network whose nodes start within the first second.
    pub fn new(options: Options) -> World {
        let genesis = genesis(options.network, &options.collaterals, options.holders);
        let count = options.collaterals.len() + options.observers;
        let mut dice = Rng::new(options.seed);
        let state = crate::ledger::state::State::genesis(&genesis);
        let nodes = (0..count)
            .map(|i| new_node(i, &genesis, &options, &mut dice))
            .collect();
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            next: 0,
            events: 0,
            nodes,
            network: Network::new(options.seed, count, options.latency),
            clients: Clients::new(options.seed, &genesis),
            checker: Checker::new(&genesis, count),
            faults: options.faults,
            dice,
            validators: state.validators.clone(),
            genesis,
            log: Log::new(options.keep_log),
            options,
            broken: None,
        };
        world.network.odds = world.faults.frames;
        for i in 0..count {
            let after = world.dice.below(1_000_000);
            world.later(after, Event::Start(i));
        }
        if world.options.pay_every_ms > 0 {
            world.later(1_500_000, Event::Pay);
        }
        world.later(RESEND_US, Event::Resend);
        world.later(1_000_000, Event::Chaos);
        world
    }

    /// Makes a node Byzantine. Before the run begins.
    pub fn corrupt(&mut self, node: usize, adversary: Box<dyn Adversary>) {
        self.note(&format!("node {node} is {}", adversary.name()));
        self.nodes[node].adversary = Some(adversary);
    }

    /// Simulated time, µs.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The genesis of the network.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn note(&mut self, text: &str) {
        self.log.line(self.now, text);
    }

    pub(super) fn later(&mut self, after: u64, event: Event) {
        self.at(self.now + after, event);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.queue.insert((at, self.next), event);
    }

    pub(super) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn violation(&self, what: String) -> Box<Violation> {
        let (at_us, trace) = (self.now, self.log.trace());
        Box::new(Violation { what, at_us, trace })
    }

    /// Runs for `us` of simulated time.
    pub fn run(&mut self, us: u64) -> Result<(), Box<Violation>> {
        self.run_until(us, |_| false).map(|_| ())
    }

    /// Runs until `done`, at most `us` of simulated time; whether it is done.
    pub fn run_until(
        &mut self,
        us: u64,
        done: impl Fn(&World) -> bool,
    ) -> Result<bool, Box<Violation>> {
        let end = self.now + us;
        while !done(self) {
            let Some((&(at, _), _)) = self.queue.first_key_value() else {
                self.now = end;
                return Ok(done(self));
            };
            if at > end {
                self.now = end;
                return Ok(done(self));
            }
            let Some((_, event)) = self.queue.pop_first() else {
                continue;
            };
            self.now = at;
            self.events += 1;
            self.happen(event);
            if let Some(what) = self.broken.take() {
                return Err(self.violation(what));
            }
        }
        Ok(true)
    }

    /// These faults from now on.
    pub fn storm(&mut self, faults: Faults) {
        self.faults = faults;
        self.network.odds = faults.frames;
    }

    /// Everything heals; then every honest node reaches a new height and every payment is final within the bound.
    pub fn heal_and_settle(&mut self, bound_us: u64) -> Result<u64, Box<Violation>> {
        let calm = Faults::default();
        self.faults = calm;
        self.network.odds = calm.frames;
        self.network.slow.clear();
        self.network.blocked.clear();
        self.release();
        for i in 0..self.nodes.len() {
            self.nodes[i].disk_slow = 1;
            self.nodes[i].full_until = 0;
            self.nodes[i].clock.offset_ms = self.nodes[i].clock.offset_ms.clamp(-50, 50);
            if self.nodes[i].running.is_none() {
                self.later(1, Event::Start(i));
            }
        }
        let (tip, begun) = (self.checker.tip(), self.now);
        let pending: Vec<Txid> = self.clients.pending().iter().map(|tx| tx.txid).collect();
        self.note(&format!(
            "healed at height {tip}; {} payments wait",
            pending.len()
        ));
        let done = self.run_until(bound_us, |w| {
            let moved = |n: &Node| !n.is_honest() || w.checker.heights[n.index] > tip;
            w.nodes.iter().all(moved)
                && pending
                    .iter()
                    .all(|txid| w.checker.finals.contains_key(txid))
        })?;
        if done {
            return Ok(self.now - begun);
        }
        let heights = format!("{:?}", self.checker.heights);
        let waiting = pending
            .iter()
            .filter(|t| !self.checker.finals.contains_key(t))
            .count();
        let states: Vec<String> = self.nodes.iter().map(|n| self.describe(n)).collect();
        states.iter().for_each(|s| self.log.line(self.now, s));
        Err(self.violation(format!(
            "LIVENESS: {} s after everything healed at height {tip}: heights {heights}, {waiting} payments not final\n{}",
            bound_us / 1_000_000,
            states.join("\n")
        )))
    }

    /// Where a node stands, for people.
    pub fn describe(&self, node: &Node) -> String {
        let Some(running) = &node.running else {
            return format!("node {}: down", node.index);
        };
        let now = node.now(self.now);
        let info = running.replica.consensus(now);
        let peers = running.p2p.peers().count();
        let progress = running.sync.progress(now);
        format!(
            "node {}: {peers} peers, {info:?}, sync {progress:?}",
            node.index
        )
    }

    /// What the run did.
    pub fn report(&self) -> Report {
        let mut times = self.clients.finality.clone();
        times.sort_unstable();
        let of = |permille: usize| {
            times
                .get(times.len() * permille / 1_000)
                .copied()
                .unwrap_or(0)
        };
        Report {
            simulated_us: self.now,
            height: self.checker.tip(),
            payments: (self.clients.made, self.clients.settled),
            finality_us: (of(500), of(990)),
            sent: (
                self.network.bytes.iter().sum(),
                self.network.frames.iter().sum(),
            ),
            events: self.events,
            log: (self.log.len(), self.log.fingerprint()),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(i) => self.start(i),
            Event::Wake(i, life) => self.woken(i, life),
            Event::Frame(link, side, frame) => self.arrived(link, side, frame),
            Event::Closed(link, side) => self.end_closed(link, side),
            Event::Connected(link, side) => self.connected(link, side),
            Event::DialFailed(i, life, target) => {
                if self.nodes[i].life == life {
                    self.work(i, Work::ToP2p(p2p::Input::DialFailed(target)));
                }
            }
            Event::SignerDone(i, life) => {
                if self.nodes[i].life == life
                    && let Some(number) = self.nodes[i].signer.finish_one()
                {
                    if let Some(what) = self.nodes[i].signer.broken.clone() {
                        self.fail(format!("node {i}: {what}"));
                    }
                    self.work(i, Work::ToReplica(Input::SignerDurable(number)));
                }
            }
            Event::LedgerDone(i, life) => {
                if self.nodes[i].life == life
                    && let Some(height) = self.nodes[i].ledger.finish_one()
                {
                    self.work(i, Work::ToReplica(Input::LedgerDurable(height)));
                }
            }
            Event::Pay => {
                if let Some(tx) = self.clients.pay(self.now) {
                    self.submit(tx);
                }
                let every = self.options.pay_every_ms * 1_000;
                let after = every / 2 + self.dice.below(every + 1);
                self.later(after, Event::Pay);
            }
            Event::Resend => {
                self.clients
                    .pending()
                    .into_iter()
                    .for_each(|tx| self.submit(tx));
                self.later(RESEND_US, Event::Resend);
            }
            Event::Chaos => {
                self.chaos();
                self.later(1_000_000, Event::Chaos);
            }
            Event::Heal => {
                self.note("partition heals");
                self.network.blocked.clear();
                self.release();
            }
        }
    }

    /// A client hands a transaction to a node that runs.
    pub fn submit(&mut self, tx: Tx) {
        let up = |n: &&Node| n.running.is_some();
        let running: Vec<usize> = self.nodes.iter().filter(up).map(|n| n.index).collect();
        if running.is_empty() {
            return;
        }
        let i = running[self.dice.below(running.len() as u64) as usize];
        self.note(&format!("client pays {} at node {i}", tx.txid));
        self.work(i, Work::ToReplica(Input::Submit(Token(0), tx)));
    }

    fn start(&mut self, i: usize) {
        if self.nodes[i].running.is_some() {
            return;
        }
        let height = self.nodes[i].ledger.state.height();
        self.note(&format!("node {i} starts at height {height}"));
        let mut broken = self.checker.on_start(i, height);
        match self.nodes[i].start(self.now, &self.genesis) {
            Ok(effects) => {
                let mut first: VecDeque<Work> =
                    effects.into_iter().map(Work::FromReplica).collect();
                if let Some(running) = &self.nodes[i].running {
                    let now = self.nodes[i].now(self.now);
                    first.push_back(Work::ToP2p(p2p::Input::Operators(operators(
                        &running.replica,
                    ))));
                    first.push_back(Work::ToP2p(p2p::Input::Status(running.replica.status(now))));
                }
                self.all(i, first);
            }
            Err(error) => broken = Err(format!("node {i} cannot start: {error}")),
        }
        if let Err(what) = broken {
            self.fail(what);
        }
    }

    /// Power is lost; it comes back after `back` µs, if at all.
    pub fn crash(&mut self, i: usize, back: Option<u64>) {
        if self.nodes[i].running.take().is_none() {
            return;
        }
        self.note(&format!(
            "node {i} loses power at height {}",
            self.checker.heights[i]
        ));
        let node = &mut self.nodes[i];
        node.life += 1;
        node.signer.crash(&mut node.rng);
        node.ledger.crash(&mut node.rng);
        // Half of all crashes end connections at once; the others leave the far ends to find out.
        let seen = self.dice.chance(1, 2);
        let mine: Vec<(u64, usize)> = self
            .network
            .links
            .iter()
            .flat_map(|(number, link)| {
                let sides = (0..2).filter(|s| link.ends[*s].open && link.ends[*s].node == i);
                sides.map(|s| (*number, s)).collect::<Vec<_>>()
            })
            .collect();
        for (number, side) in mine {
            if let Some(link) = self.network.links.get_mut(&number) {
                link.ends[side].open = false;
            }
            if seen && let Some(at) = self.network.close(self.now, number, side) {
                self.at(at, Event::Closed(number, 1 - side));
            }
            self.network.forget_if_dead(number);
        }
        if let Some(back) = back {
            self.later(back, Event::Start(i));
        }
    }

    /// A connection falls: both ends find out.
    pub(super) fn cut(&mut self, number: u64) {
        for side in 0..2 {
            self.at(self.now + 1 + side as u64, Event::Closed(number, side));
        }
    }

    pub(super) fn release(&mut self) {
        for (number, side, frame) in self.network.release() {
            let after = 1_000 + self.dice.below(1_000);
            let Some(link) = self.network.links.get_mut(&number) else {
                continue;
            };
            let at = (self.now + after).max(link.ends[side].after + 1);
            link.ends[side].after = at;
            match frame {
                Some(frame) => self.at(at, Event::Frame(number, side, frame)),
                None => self.at(at, Event::Closed(number, side)),
            }
        }
    }

    fn woken(&mut self, i: usize, life: u64) {
        let node = &mut self.nodes[i];
        if node.life != life || node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        let ticks = [
            Work::ToReplica(Input::Tick),
            Work::ToP2p(p2p::Input::Tick),
            Work::ToSync(sync::Input::Tick),
        ];
        let before = self.now;
        self.all(i, ticks.into());
        let node = &mut self.nodes[i];
        node.spins = if node.wake.is_some_and(|at| at <= before + 2) {
            node.spins + 1
        } else {
            0
        };
        if node.spins > SPINS_MAX {
            let text = format!("node {i} wakes without end and without time passing");
            let state = self.describe(&self.nodes[i]);
            self.fail(format!("{text}: {state}"));
        }
    }

    pub(super) fn work(&mut self, i: usize, work: Work) {
        self.all(i, VecDeque::from([work]));
    }
}

fn new_node(i: usize, genesis: &Genesis, options: &Options, dice: &mut Rng) -> Node {
    let masternodes = options.collaterals.len();
    let count = masternodes + options.observers;
    let operator = genesis
        .masternodes
        .get(i)
        .map(|m| (m.id(), key(Role::Operator, i)));
    let targets = if i < masternodes {
        (0..masternodes).filter(|t| *t != i).collect()
    } else {
        let mut some: Vec<usize> = (0..6).map(|_| dice.below(count as u64) as usize).collect();
        some.push(dice.below(masternodes as u64) as usize);
        some.sort_unstable();
        some.dedup();
        some.retain(|t| *t != i);
        some
    };
    let spread = |dice: &mut Rng, most: u64| dice.below(2 * most + 1) as i64 - most as i64;
    Node {
        index: i,
        operator,
        key: key(Role::Node, i).public(),
        targets,
        ledger: LedgerDisk::new(genesis),
        signer: SignerDisk::default(),
        backup: None,
        clock: Clock {
            boot: 0,
            offset_ms: spread(dice, options.faults.offset_ms),
            ppm: spread(dice, options.faults.drift_ppm),
        },
        running: None,
        life: 0,
        wake: None,
        spins: 0,
        full_until: 0,
        disk_slow: 1,
        adversary: None,
        amnesic: false,
        rng: Rng::new(dice.next_u64()),
    }
}
