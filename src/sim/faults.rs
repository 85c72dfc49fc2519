//! Faults as named odds, all zero by default, and what happens when the dice say so. Every draw comes from the run's seed.

use crate::base::rng::Rng;
use crate::sim::network::FrameOdds;
use crate::sim::world::World;
use crate::types::ids::{Power, is_over_third};

/// What may go wrong. Odds are per million: of frames in `frames`, of simulated seconds for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Single frames.
    pub frames: FrameOdds,
    /// The network splits, in one or both directions, for up to `outage_ms`.
    pub partition: u64,
    /// A connection falls.
    pub flap: u64,
    /// A node loses power and comes back within `outage_ms`, without what was not durable.
    pub crash: u64,
    /// All nodes do, at once.
    pub blackout: u64,
    /// A crash takes the signer store with it.
    pub lose_signer: u64,
    /// A crash is followed by an older copy of the signer store.
    pub restore_signer: u64,
    /// A signer disk is full for up to `outage_ms`.
    pub full_disk: u64,
    /// Disks of a node take a hundred times as long for a while.
    pub slow_disk: u64,
    /// A node's frames take ten times as long for a while.
    pub slow_node: u64,
    /// A wall clock is set by up to 30 s.
    pub clock_jump: u64,
    /// A node stops in the middle of performing effects, per million inputs.
    pub crash_inside: u64,
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
        }
    }
}

impl World {
    /// Rolls the dice of one simulated second.
    pub(super) fn chaos(&mut self) {
        let faults = self.faults;
        let nodes = self.nodes.len() as u64;
        let node = self.dice.below(nodes) as usize;
        let outage = self.dice.below(faults.outage_ms.max(1) * 1_000) + 1;
        let mut hit = |odds: u64| self.dice.chance(odds, 1_000_000);
        let split = hit(faults.partition);
        let flap = hit(faults.flap);
        let mut crash = hit(faults.crash);
        let blackout = hit(faults.blackout);
        let lose = hit(faults.lose_signer);
        let restore = hit(faults.restore_signer);
        let full = hit(faults.full_disk);
        let slow_disk = hit(faults.slow_disk);
        let slow_node = hit(faults.slow_node);
        let jump = hit(faults.clock_jump);
        if split {
            self.split(outage);
        }
        if flap {
            let links: Vec<u64> = self.network.links.keys().copied().collect();
            if let Some(number) = links.get(self.dice.below(links.len() as u64) as usize) {
                self.cut(*number);
            }
        }
        if blackout {
            (0..self.nodes.len()).for_each(|i| self.crash(i, Some(outage)));
        }
        let forgets = (lose || restore) && self.may_forget(node);
        crash |= forgets;
        if crash && self.nodes[node].running.is_some() {
            self.crash(node, Some(outage));
            if forgets && lose {
                self.note(&format!("node {node} lost its signer store"));
                self.nodes[node].signer.lose();
            } else if forgets && let Some(backup) = self.nodes[node].backup.clone() {
                self.note(&format!("node {node} has an old copy of its signer store"));
                self.nodes[node].signer.records = backup;
                self.nodes[node].signer.highest = None;
                self.nodes[node].amnesic = true;
            }
        }
        if full {
            self.note(&format!("node {node}: signer disk full"));
            self.nodes[node].full_until = self.now + outage;
        }
        self.nodes[node].disk_slow = if slow_disk { 100 } else { 1 };
        self.network.slow.remove(&node);
        if slow_node {
            self.network.slow.insert(node, 10);
        }
        if jump {
            let offset = self.dice.below(60_000) as i64 - 30_000;
            self.note(&format!("node {node}: wall clock off by {offset} ms"));
            self.nodes[node].clock.offset_ms = offset;
        }
        let backup = self.dice.below(nodes) as usize;
        self.nodes[backup].backup = Some(self.nodes[backup].signer.records.clone());
    }

    /// Whether this node may forget what it said: Byzantine and amnesic power stays below a third.
    fn may_forget(&self, node: usize) -> bool {
        let forgot = |i: usize| {
            let n = &self.nodes[i];
            i == node || n.amnesic || n.signer.unsure.is_some() || !n.is_honest()
        };
        let power = |i: usize| {
            let id = self.nodes[i].operator.as_ref().map(|(id, _)| *id);
            let set = &self.validators;
            id.and_then(|id| set.get(&id)).map_or(0, |v| v.power.0)
        };
        let bad: u64 = (0..self.nodes.len())
            .filter(|i| forgot(*i))
            .map(power)
            .sum();
        self.nodes[node].operator.is_some()
            && !is_over_third(Power(bad + 1), self.validators.total())
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
        self.later(1, crate::sim::world::Event::Start(node));
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
        self.later(outage, crate::sim::world::Event::Heal);
    }
}
