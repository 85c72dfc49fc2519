//! Faults as named odds, all zero by default, and what happens when the dice say so. Every draw comes from the run's seed.

use crate::base::rng::Rng;
use crate::sim::disk::LedgerDisk;
use crate::sim::network::FrameOdds;
use crate::sim::node::Running;
use crate::sim::world::{Event, World};
use crate::types::ids::{Height, MasternodeId, Power, is_over_third};
use std::collections::BTreeSet;

/// What may go wrong. Odds are per million: of frames in `frames`, of simulated seconds for all others. Masternodes come and
/// go only where [`crate::sim::world::Options::newcomers`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Single frames.
    pub frames: FrameOdds,
    /// The network splits, in one or both directions, for up to `outage_ms`.
    pub partition: u64,
    /// Some pairs of nodes lose sight of each other, in one or both directions; others still see both of them.
    pub partial: u64,
    /// A connection falls.
    pub flap: u64,
    /// The connection of two nodes falls up to twenty times in a row.
    pub flapping: u64,
    /// A node loses power and comes back within `outage_ms`, without what was not durable.
    pub crash: u64,
    /// All nodes do, at once.
    pub blackout: u64,
    /// A crash takes the signer store with it.
    pub lose_signer: u64,
    /// A crash is followed by an older copy of the signer store.
    pub restore_signer: u64,
    /// A crash in the middle of a write leaves an environment that cannot be opened, as a disk does that reorders what it
    /// was told to sync. LMDB's transactions are all or nothing: a prefix of them survives every crash, and a torn one is
    /// found when the store is opened. A torn signer store counts as lost (B7), a torn ledger is built again from peers.
    pub torn_write: u64,
    /// A crash takes the ledger with it and leaves the signer store.
    pub lose_ledger: u64,
    /// A crash is followed by an older copy of the ledger beside the newest signer store.
    pub restore_ledger: u64,
    /// A ledger disk is full for up to `outage_ms`.
    pub full_ledger: u64,
    /// A signer disk is full for up to `outage_ms`.
    pub full_disk: u64,
    /// Disks of a node take a hundred times as long for a while.
    pub slow_disk: u64,
    /// A node's frames take ten times as long for a while.
    pub slow_node: u64,
    /// A node needs up to 40 ms to read a frame for a while.
    pub slow_cpu: u64,
    /// A wall clock is set by up to 30 s.
    pub clock_jump: u64,
    /// A node stops in the middle of performing effects, per million inputs.
    pub crash_inside: u64,
    /// A node is without power for 20 to 60 s: long enough for jail where slots are short (M5).
    pub away: u64,
    /// The owner of a node that has an operator key and no masternode registers it.
    pub join: u64,
    /// An owner lets a masternode go.
    pub leave: u64,
    /// An owner names a new operator key.
    pub rekey: u64,
    /// An owner names another endpoint, perhaps one where nobody is, or another payout.
    pub moves: u64,
    /// Longest outage, ms.
    pub outage_ms: u64,
    /// Largest drift of clocks, parts per million.
    pub drift_ppm: u64,
    /// Largest offset of wall clocks at start, ms.
    pub offset_ms: u64,
}

impl Faults {
    /// A random mixture: most kinds absent, the others mild or wild.
    pub fn random(seed: u64) -> Faults {
        let mut rng = Rng::new(seed ^ 0x6661_756c_7473_0000);
        let mut odds = |choices: [u64; 4]| choices[rng.below(4) as usize];
        Faults {
            frames: FrameOdds {
                loss: odds([0, 0, 1_000, 30_000]),
                duplicate: odds([0, 0, 10_000, 100_000]),
                reorder: odds([0, 0, 10_000, 200_000]),
                tail: odds([0, 0, 1_000, 20_000]),
            },
            partition: odds([0, 5_000, 20_000, 60_000]),
            partial: odds([0, 0, 5_000, 40_000]),
            flapping: odds([0, 0, 5_000, 30_000]),
            torn_write: odds([0, 0, 0, 5_000]),
            lose_ledger: odds([0, 0, 2_000, 10_000]),
            restore_ledger: odds([0, 0, 2_000, 10_000]),
            full_ledger: odds([0, 0, 5_000, 20_000]),
            slow_cpu: odds([0, 0, 5_000, 20_000]),
            flap: odds([0, 0, 20_000, 200_000]),
            crash: odds([0, 5_000, 30_000, 100_000]),
            blackout: odds([0, 0, 1_000, 10_000]),
            lose_signer: odds([0, 0, 2_000, 10_000]),
            restore_signer: odds([0, 0, 0, 5_000]),
            full_disk: odds([0, 0, 5_000, 20_000]),
            slow_disk: odds([0, 0, 5_000, 20_000]),
            slow_node: odds([0, 0, 5_000, 20_000]),
            clock_jump: odds([0, 0, 0, 5_000]),
            crash_inside: odds([0, 0, 100, 2_000]),
            outage_ms: odds([500, 3_000, 15_000, 60_000]),
            drift_ppm: odds([0, 50, 200, 1_000]),
            offset_ms: odds([0, 20, 100, 400]),
            away: odds([0, 5_000, 20_000, 40_000]),
            join: odds([10_000, 20_000, 50_000, 100_000]),
            leave: odds([0, 5_000, 20_000, 60_000]),
            rekey: odds([0, 5_000, 20_000, 60_000]),
            moves: odds([0, 0, 20_000, 60_000]),
        }
    }
}

impl World {
    /// Rolls the dice of one simulated second.
    pub(super) fn chaos(&mut self) {
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let outage = self.dice.below(self.faults.outage_ms.max(1) * 1_000) + 1;
        self.trouble_links(outage);
        self.trouble_power(node, outage);
        self.trouble_host(node, outage);
        for i in 0..self.nodes.len() {
            let now = self.nodes[i].now(self.now);
            let node = &mut self.nodes[i];
            let sure = |r: &Running| r.replica.consensus(now).sure;
            node.abstains &= !node.running.as_ref().is_some_and(sure);
        }
        let backup = self.dice.below(self.nodes.len() as u64) as usize;
        self.nodes[backup].backup = Some(self.nodes[backup].signer.records.clone());
        self.trouble_sets();
        self.take_new_keys();
    }

    pub(super) fn hit(&mut self, odds: impl Fn(&Faults) -> u64) -> bool {
        self.dice.chance(odds(&self.faults), 1_000_000)
    }

    fn trouble_links(&mut self, outage: u64) {
        if self.hit(|f| f.partition) {
            self.split(outage);
        }
        if self.hit(|f| f.partial) {
            self.blind(outage);
        }
        let (a, b) = (self.any_node(), self.any_node());
        if self.hit(|f| f.flapping) {
            let times = self.dice.below(20) as u32;
            self.note(&format!("nodes {a} and {b} lose and find each other"));
            self.later(1, Event::Flap(a, b, times));
        }
        if self.hit(|f| f.flap) {
            let links: Vec<u64> = self.network.links.keys().copied().collect();
            if let Some(number) = links.get(self.dice.below(links.len() as u64) as usize) {
                self.cut(*number);
            }
        }
    }

    fn any_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    /// Power and disks.
    fn trouble_power(&mut self, node: usize, outage: u64) {
        if self.hit(|f| f.blackout) {
            (0..self.nodes.len()).for_each(|i| self.crash(i, Some(outage)));
        }
        let torn = self.hit(|f| f.torn_write);
        let writes = &self.nodes[node];
        let torn_signer = torn && !writes.signer.writing.is_empty();
        let torn_ledger = torn && !writes.ledger.writing.is_empty();
        let lose = self.hit(|f| f.lose_signer) || torn_signer;
        let restore = self.hit(|f| f.restore_signer);
        let lose_ledger = self.hit(|f| f.lose_ledger) || torn_ledger;
        let old_ledger = self.hit(|f| f.restore_ledger);
        let forgets = lose || restore || lose_ledger || old_ledger;
        let forgets = forgets && self.may_forget(node);
        let crash = self.hit(|f| f.crash) || forgets;
        if !crash || self.nodes[node].running.is_none() {
            return;
        }
        self.crash(node, Some(outage));
        if !forgets {
            return;
        }
        self.nodes[node].abstains = true;
        if lose {
            self.note(&format!("node {node} lost its signer store"));
            self.nodes[node].signer.lose();
        } else if restore && let Some(backup) = self.nodes[node].backup.clone() {
            self.note(&format!("node {node} has an old copy of its signer store"));
            self.nodes[node].signer.records = backup;
            self.nodes[node].signer.highest = None;
            self.nodes[node].amnesic = true;
        }
        if lose_ledger {
            self.note(&format!("node {node} lost its ledger"));
            self.nodes[node].ledger = LedgerDisk::new(&self.genesis);
        } else if old_ledger {
            let height = self.nodes[node].ledger.blocks.len() as u64;
            let back = Height(height - self.dice.below(height.min(50) + 1));
            self.note(&format!(
                "node {node} has an old copy of its ledger, of {back}"
            ));
            self.nodes[node].ledger.rewind(&self.genesis, back);
        }
    }

    /// Full disks, slow disks, slow processors, clocks.
    fn trouble_host(&mut self, node: usize, outage: u64) {
        if self.hit(|f| f.full_disk) {
            self.note(&format!("node {node}: signer disk full"));
            self.nodes[node].full_until = self.now + outage;
        }
        if self.hit(|f| f.full_ledger) {
            self.note(&format!("node {node}: ledger disk full"));
            self.nodes[node].ledger_full_until = self.now + outage;
        }
        let slow = self.hit(|f| f.slow_disk);
        self.nodes[node].disk_slow = if slow { 100 } else { 1 };
        let slow = self.hit(|f| f.slow_cpu);
        self.nodes[node].frame_us = if slow { 1 + self.dice.below(40_000) } else { 0 };
        self.network.slow.remove(&node);
        if self.hit(|f| f.slow_node) {
            self.network.slow.insert(node, 10);
        }
        if self.hit(|f| f.clock_jump) {
            let offset = self.dice.below(60_000) as i64 - 30_000;
            self.note(&format!("node {node}: wall clock off by {offset} ms"));
            self.nodes[node].clock.offset_ms = offset;
        }
    }

    /// Whether this node may forget what it said: Byzantine and amnesic power stays below a third.
    fn may_forget(&self, node: usize) -> bool {
        if self.changes() {
            return self.endures(Some(node), None);
        }
        let forgot = |i: &usize| {
            let n = &self.nodes[*i];
            *i == node || n.amnesic || n.abstains || n.signer.unsure.is_some() || !n.is_honest()
        };
        let bad = (0..self.nodes.len()).filter(forgot);
        let bad: BTreeSet<MasternodeId> = bad
            .filter_map(|i| self.nodes[i].operator.as_ref().map(|(id, _)| *id))
            .collect();
        let power = |id: &MasternodeId| self.validators.get(id).map_or(0, |v| v.power.0);
        let bad: u64 = bad.iter().map(power).sum();
        !is_over_third(Power(bad + 1), self.validators.total())
    }

    /// Cuts these nodes off from all others, both ways, until [`World::reconnect`].
    pub fn isolate(&mut self, some: &[usize]) {
        self.note(&format!("{some:?} are cut off"));
        for a in 0..self.nodes.len() {
            for b in (0..self.nodes.len()).filter(|b| some.contains(&a) != some.contains(b)) {
                self.network.blocked.insert((a, b));
            }
        }
    }

    /// Ends all partitions.
    pub fn reconnect(&mut self) {
        self.note("partitions end");
        self.network.blocked.clear();
        self.release();
    }

    /// Starts a node that is down.
    pub fn power_on(&mut self, node: usize) {
        self.later(1, Event::Start(node));
    }

    /// Takes some pairs of nodes out of each other's sight. Heals by itself.
    fn blind(&mut self, outage: u64) {
        let both = self.dice.chance(1, 2);
        let mut pairs = Vec::new();
        for a in 0..self.nodes.len() {
            for b in 0..a {
                if self.dice.chance(1, 3) {
                    self.network.blocked.insert((a, b));
                    if both {
                        self.network.blocked.insert((b, a));
                    }
                    pairs.push((a, b));
                }
            }
        }
        self.note(&format!("out of sight: {pairs:?}"));
        self.later(outage, Event::Heal);
    }

    /// Splits the nodes in two; sometimes only one direction is cut. Heals by itself.
    fn split(&mut self, outage: u64) {
        let both = self.dice.chance(2, 3);
        let side: Vec<bool> = self.nodes.iter().map(|_| self.dice.chance(1, 2)).collect();
        for (a, sa) in side.iter().enumerate() {
            for (b, sb) in side.iter().enumerate() {
                if *sa && !*sb {
                    self.network.blocked.insert((a, b));
                    if both {
                        self.network.blocked.insert((b, a));
                    }
                }
            }
        }
        self.note(&format!(
            "partition {side:?}{}",
            if both { "" } else { " one way" }
        ));
        self.later(outage, Event::Heal);
    }
}
