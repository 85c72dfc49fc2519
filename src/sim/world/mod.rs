//! The world of one run: simulated time, its queue of events, nodes, network, clients, faults and the checker.

mod checks;
mod events;
mod registry;

use crate::base::rng::Rng;
use crate::consensus::rules::Rules;
use crate::crypto::verify::Memo;
use crate::sim::adversary::{self, Adversary};
use crate::sim::checker::Checker;
use crate::sim::clients::Clients;
use crate::sim::disk::Forget;
use crate::sim::faults::Faults;
use crate::sim::kit::genesis;
use crate::sim::log::Log;
use crate::sim::network::Network;
use crate::sim::node::Node;
use crate::sim::shared::Shared;
use crate::types::address::Network as Kind;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use events::new_node;
pub(super) use events::{Event, Work};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
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
    /// How many masternodes, and how many nodes of any kind, each of them dials.
    pub dials: (usize, usize),
    /// Clients with money.
    pub holders: usize,
    /// Time between payments, ms; 0: none.
    pub pay_every_ms: u64,
    /// Least and greatest latency of a pair of nodes, µs.
    pub latency: (u64, u64),
    /// Of the observers the last so many have operator keys; where there is one, owners act by the dice.
    pub newcomers: usize,
    /// Masternodes of which a second node with the same key runs, after the observers; both are Byzantine.
    pub twins: Vec<usize>,
    /// Payments that come with a second one of the same coin, per thousand.
    pub double_spend: u64,
    /// Payments of the flood in a second, half of them invalid; 0: none.
    pub flood_per_s: u64,
    /// Whether the genesis lowers the bounds of a block so far that blocks are full (B2).
    pub tight: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// What never reaches signer stores: a mutant that the checker must find.
    pub forget: Option<Forget>,
    /// The rules that nodes follow: the protocol, or a mutant that the checker must find.
    pub rules: Rules,
    /// Whether what a node says is compared with its disks; if not, only what follows from a bad disk is found.
    pub check_disks: bool,
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
            dials: (1, 6),
            holders: 8,
            pay_every_ms: 700,
            latency: (1_000, 20_000),
            newcomers: 0,
            twins: Vec::new(),
            double_spend: 0,
            flood_per_s: 0,
            tight: false,
            faults: Faults::default(),
            forget: None,
            rules: Rules::default(),
            check_disks: true,
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
    /// Where every node stands.
    pub states: Vec<String>,
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
    /// The same at the node that took the payment.
    pub finality_own_us: (u64, u64),
    /// Bytes and frames sent by all nodes.
    pub sent: (u64, u64),
    /// Events handled.
    pub events: u64,
    /// Lines of the log and their fingerprint.
    pub log: (u64, u64),
}

/// Events between looks at the sizes of a node, one after the other.
const SIZES_EVERY: u64 = 32;
/// An event and when it happens; of equal times the one that was planned first.
struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The greatest is the next one: the heap gives out its greatest element.
    fn cmp(&self, other: &Queued) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Time between submissions of what is not final, µs.
const RESEND_US: u64 = 10_000_000;

/// A network.
pub struct World {
    pub(super) now: u64,
    queue: BinaryHeap<Queued>,
    next: u64,
    /// Verdicts on signatures that hold, and blocks that are equal: what nodes of one process need not each do or keep.
    pub(super) memo: Memo,
    pub(super) shared: Shared,
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
    /// Hashed once: a genesis is long.
    pub(super) chain: ChainId,
    pub(super) options: Options,
    log: Log,
    pub(super) broken: Option<String>,
}

impl World {
    /// A network whose nodes start within the first second.
    pub fn new(options: Options) -> World {
        let mut genesis = genesis(options.network, &options.collaterals, options.holders);
        if options.tight {
            genesis.limits.block_tx_count = 8;
            genesis.limits.block_bodies_bytes = 16_000;
        }
        let first_twin = options.collaterals.len() + options.observers;
        let count = first_twin + options.twins.len();
        let mut dice = Rng::new(options.seed);
        let state = crate::ledger::state::State::genesis(&genesis);
        let nodes = (0..count)
            .map(|i| new_node(i, (&genesis, &state), &options, &mut dice))
            .collect();
        let mut world = World {
            now: 0,
            queue: BinaryHeap::new(),
            next: 0,
            memo: Memo::default(),
            shared: Shared::default(),
            events: 0,
            nodes,
            network: Network::new(options.seed, count, options.latency),
            clients: Clients::new(options.seed, &genesis),
            checker: Checker::new(&genesis, count),
            faults: options.faults,
            dice,
            validators: state.validators.clone(),
            chain: genesis.chain_id(),
            genesis,
            log: Log::new(options.keep_log),
            options,
            broken: None,
        };
        world.network.odds = world.faults.frames;
        world.checker.check_disks = world.options.check_disks;
        for (k, i) in world.options.twins.clone().into_iter().enumerate() {
            world.corrupt(i, adversary::twin());
            world.corrupt(first_twin + k, adversary::twin());
        }
        for k in 0..world.options.newcomers {
            world.equip(first_twin - 1 - k);
        }
        for i in 0..count {
            let after = world.dice.below(1_000_000);
            world.later(after, Event::Start(i));
        }
        if world.options.pay_every_ms > 0 {
            world.later(1_500_000, Event::Pay);
        }
        if world.options.flood_per_s > 0 {
            world.later(2_000_000, Event::Flood);
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
        let number = self.next;
        self.queue.push(Queued { at, number, event });
    }

    pub(super) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(super) fn violation(&self, what: String) -> Box<Violation> {
        let states = self.nodes.iter().map(|n| self.describe(n)).collect();
        Box::new(Violation {
            what,
            at_us: self.now,
            trace: self.log.trace(),
            states,
        })
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
            if self.queue.peek().is_none_or(|next| next.at > end) {
                self.now = end;
                return Ok(done(self));
            }
            let Some(Queued { at, event, .. }) = self.queue.pop() else {
                continue;
            };
            self.now = self.now.max(at);
            self.events += 1;
            self.happen(event);
            if self.events.is_multiple_of(SIZES_EVERY) {
                let turn = self.events / SIZES_EVERY % self.nodes.len() as u64;
                self.check_sizes(turn as usize);
            }
            if let Some(what) = self.broken.take() {
                return Err(self.violation(what));
            }
        }
        Ok(true)
    }
}
