//! One simulated node: the real replica, p2p and sync machines over virtual disks and a virtual clock. What the threads of
//! a real node do between the machines is done here in a loop.

use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now, WallMs};
use crate::consensus::rules::Rules;
use crate::crypto::keys::{PublicKey, SecretKey};
use crate::p2p::{self, messages::PeerId};
use crate::replica::io::{Effect, Input};
use crate::replica::machine::{Config, Replica};
use crate::replica::start::{Disks, StartError, wanted_block};
use crate::sim::adversary::Adversary;
use crate::sim::disk::{LedgerDisk, SignerDisk};
use crate::sim::kit::{GENESIS_TIME, endpoint};
use crate::sim::network::Frame;
use crate::sim::world::Work;
use crate::sync;
use crate::sync::trust::{Anchor, Trust};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use std::collections::{BTreeMap, VecDeque};

/// A node's clocks: µs of simulated time become readings.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Simulated time at which the monotonic clock showed 0, µs.
    pub boot: u64,
    /// What the wall clock shows too much, ms.
    pub offset_ms: i64,
    /// How much faster it runs, parts per million.
    pub ppm: i64,
}

fn drifted(us: u64, ppm: i64) -> u64 {
    let change = i128::from(us) * i128::from(ppm) / 1_000_000;
    (i128::from(us) + change).max(0) as u64
}

impl Clock {
    /// The readings at simulated time `t`.
    pub fn read(&self, t: u64) -> Now {
        let wall = GENESIS_TIME.0 as i64 + (drifted(t, self.ppm) / 1_000) as i64 + self.offset_ms;
        let mono = drifted(t, self.ppm).saturating_sub(drifted(self.boot, self.ppm));
        Now {
            wall: WallMs(wall.max(0) as u64),
            mono: MonoUs(mono),
        }
    }

    /// The simulated time at which the monotonic clock shows `due` or a little more.
    pub fn at(&self, due: MonoUs) -> u64 {
        let shown = i128::from(due.0) + i128::from(drifted(self.boot, self.ppm));
        let t = shown * 1_000_000 / i128::from(1_000_000 + self.ppm) + 2;
        t.clamp(0, i128::from(u64::MAX)) as u64
    }
}

/// The machines of a node that runs.
pub struct Running {
    /// The brain.
    pub replica: Replica,
    /// Greets peers.
    pub p2p: p2p::machine::Machine,
    /// Catches up.
    pub sync: sync::Machine,
    /// The registry that the peer machine was told.
    pub told: Option<crate::crypto::hash::Hash>,
    /// When sync wants to wake.
    pub sync_due: Option<MonoUs>,
}

/// A node, running or not.
pub struct Node {
    /// Its number.
    pub index: usize,
    /// The masternode it speaks for.
    pub operator: Option<(MasternodeId, SecretKey)>,
    /// The operator key that replaces its own once the registry has it, and how many it has been given.
    pub next_operator: Option<SecretKey>,
    /// See `next_operator`.
    pub key_count: usize,
    /// Its node key.
    pub key: PublicKey,
    /// Whom it dials.
    pub targets: Vec<usize>,
    /// Its disks.
    pub ledger: LedgerDisk,
    /// See `ledger`.
    pub signer: SignerDisk,
    /// An older copy of the signer store's records.
    pub backup: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Its clocks.
    pub clock: Clock,
    /// Its machines, while it runs.
    pub running: Option<Running>,
    /// Grows with every start: reports of disks and wake-ups of an earlier life are ignored.
    pub life: u64,
    /// When it is to be woken next.
    pub wake: Option<u64>,
    /// Wake-ups in a row without time passing.
    pub spins: u32,
    /// Its signer disk is full until this time.
    pub full_until: u64,
    /// Its ledger's disk is full until this time.
    pub ledger_full_until: u64,
    /// It reads no further frame before this time.
    pub busy_until: u64,
    /// Frames that wait until then, with connection and end.
    pub unread: VecDeque<(u64, usize, Frame)>,
    /// Time that reading a frame takes it, µs: a slow processor.
    pub frame_us: u64,
    /// Whether it lost or replaced a disk and has not signed since: it abstains for a while (B7).
    pub abstains: bool,
    /// Its disks take this many times as long.
    pub disk_slow: u64,
    /// What bends its words, if it is Byzantine.
    pub adversary: Option<Box<dyn Adversary>>,
    /// Whether its machine was ever started from a signer store that is older than what it had said.
    pub amnesic: bool,
    /// Own randomness: disk latencies.
    pub rng: Rng,
}

impl Node {
    /// Whether everything it says should be right.
    pub fn is_honest(&self) -> bool {
        self.adversary.is_none()
    }

    /// Clock readings.
    pub fn now(&self, t: u64) -> Now {
        self.clock.read(t)
    }

    /// Starts the machines from the disks.
    pub fn start(
        &mut self,
        t: u64,
        genesis: &Genesis,
        rules: Rules,
    ) -> Result<Vec<Effect>, StartError> {
        self.life += 1;
        self.wake = None;
        self.busy_until = t;
        self.clock.boot = t;
        let now = self.now(t);
        let records = &self.ledger.state.slots.records;
        let newest = records.last().map_or(Height(0), |record| record.first);
        let header = newest.0.checked_sub(1);
        let header = header.and_then(|i| self.ledger.blocks.get(i as usize));
        let anchor = Anchor {
            height: newest,
            time: header.map_or(genesis.time, |d| d.block.header.time),
        };
        let config = Config {
            operator: self.operator.as_ref().map(|(_, key)| key.clone()),
            mempool: Default::default(),
            rules,
            trust: Trust::new(&genesis.params, anchor, None, None),
        };
        let records: Vec<(Vec<u8>, Vec<u8>)> = self.signer.records.clone().into_iter().collect();
        let returned = match wanted_block(&records)? {
            Some((height, block)) if self.ledger.block_at(height).is_some_and(|b| b != block) => {
                self.ledger.take_back(Height(height.0.saturating_sub(1)))
            }
            _ => Vec::new(),
        };
        let disks = Disks {
            state: self.ledger.state.clone(),
            certificate: self.ledger.certificate(),
            records,
            unsure: self.signer.unsure.clone(),
            returned,
        };
        let (replica, effects) = Replica::start(config, disks, now, &self.ledger)?;
        let state = replica.state();
        let p2p = p2p::machine::Machine::new(p2p::machine::Config {
            chain: genesis.chain_id(),
            node_key: self.key,
            operator: self.operator.as_ref().map(|(_, key)| key.clone()),
            agent: "sim".into(),
            supports: Branch(0),
            endpoint: None,
            targets: self.targets.iter().map(|i| endpoint(*i)).collect(),
            ping_interval_ms: if genesis.params.slot_ms < 60_000 {
                1_000
            } else {
                5_000
            },
            inbound_max: 61,
            status: replica.status(now),
            seeds: Vec::new(),
            outbound_max: 0,
            require_stake: false,
            allow_private: true,
            book: crate::p2p::book::Book::new([1; 32]),
            anchors: Vec::new(),
            bans: Vec::new(),
            started: now.wall,
            seed: self.rng.next_u64(),
        });
        let sync = sync::Machine::new(genesis.chain_id(), applied(&replica), None);
        let _ = state;
        self.running = Some(Running {
            replica,
            p2p,
            sync,
            told: None,
            sync_due: None,
        });
        Ok(effects)
    }

    /// Ticks for the machines that want to wake by now.
    pub(super) fn ticks(&self, t: u64) -> VecDeque<Work> {
        let (now, mut ticks) = (self.now(t), VecDeque::new());
        let Some(running) = &self.running else {
            return ticks;
        };
        let due = |deadline: Option<MonoUs>| deadline.is_some_and(|at| at <= now.mono);
        if due(running.replica.deadline(now)) {
            ticks.push_back(Work::ToReplica(Input::Tick));
        }
        if due(running.p2p.deadline()) {
            ticks.push_back(Work::ToP2p(p2p::machine::Input::Tick));
        }
        if due(running.sync_due) {
            ticks.push_back(Work::ToSync(sync::Input::Tick));
        }
        ticks
    }

    /// The earliest time at which a machine wants to wake.
    pub fn next_wake(&self, t: u64) -> Option<u64> {
        let running = self.running.as_ref()?;
        let now = self.now(t);
        let dues = [
            running.replica.deadline(now),
            running.p2p.deadline(),
            running.sync_due,
        ];
        dues.into_iter()
            .flatten()
            .min()
            .map(|due| self.clock.at(due).max(t + 1))
    }

    /// How long a synced write takes now, µs.
    pub fn write_time(&mut self) -> u64 {
        (500 + self.rng.below(3_500)) * self.disk_slow.max(1)
    }
}

/// Where a replica stands, for the sync machine.
pub fn applied(replica: &Replica) -> sync::Applied {
    sync::Applied::of(replica.state(), replica.pin())
}

/// The operator keys of the registry, for the p2p machine.
pub fn operators(replica: &Replica) -> BTreeMap<MasternodeId, PublicKey> {
    let entries = replica.state().registry().entries().iter();
    let backed = entries.filter(|e| e.is_backed());
    backed.map(|e| (e.id, e.operator)).collect()
}

/// A connection name as the sync machine writes it.
pub fn peer_id(peer: sync::Peer) -> PeerId {
    PeerId(peer)
}
