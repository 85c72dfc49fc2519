//! What a run is asked from outside: storms, healing and the bound within which it must show, and reports.

use super::{Event, Report, Violation, World};
use crate::ledger::fork::{self, Attribution};
use crate::replica::record::Record;
use crate::sim::faults::Faults;
use crate::sim::node::Node;
use crate::types::polka::Polka;

impl World {
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
        self.allow_all();
        for i in 0..self.nodes.len() {
            self.nodes[i].disk_slow = 1;
            self.nodes[i].frame_us = 0;
            self.nodes[i].ledger_full_until = 0;
            self.nodes[i].full_until = 0;
            self.nodes[i].clock.offset_ms = self.nodes[i].clock.offset_ms.clamp(-50, 50);
            if self.nodes[i].running.is_none() {
                self.later(1, Event::Start(i));
            }
        }
        let (tip, begun) = (self.checker.tip(), self.now);
        let mut pending = self.clients.waiting();
        // Where blocks are kept small, payments that pay more for their bytes may fill every slot block.
        if !self.options.tight {
            pending.extend(self.clients.registrations());
        }
        self.note(&format!(
            "healed at height {tip}; {} payments wait",
            pending.len()
        ));
        let done = self.run_until(bound_us, |w| {
            let moved = |n: &Node| !n.is_honest() || w.checker.heights[n.index] > tip;
            w.nodes.iter().all(moved) && pending.iter().all(|coin| w.checker.is_spent(coin))
        })?;
        if done {
            return Ok(self.now - begun);
        }
        let heights = format!("{:?}", self.checker.heights);
        let waiting = pending
            .iter()
            .filter(|coin| !self.checker.is_spent(coin))
            .count();
        Err(self.violation(format!(
            "LIVENESS: {} s after everything healed at height {tip}: heights {heights}, {waiting} payments not final",
            bound_us / 1_000_000,
        )))
    }

    /// Every container of node `i`, if it is honest, within its bound (B2).
    pub(in crate::sim) fn check_sizes(&mut self, i: usize) {
        let Some(running) = &self.nodes[i].running else {
            return;
        };
        let sizes = [
            running.replica.sizes(),
            running.sync.sizes(),
            running.p2p.sizes(),
        ];
        let mut sizes = sizes.into_iter().flatten();
        if let Some(size) = sizes.find(|size| size.held > size.bound)
            && self.nodes[i].is_honest()
        {
            self.fail(format!(
                "B2: node {i} holds {} of '{}', the bound is {}",
                size.held, size.name, size.bound
            ));
        }
    }

    /// Who is guilty of the first fork that the checker saw, by S6, from the polkas on the disks of honest nodes.
    pub fn attribution(&self) -> Option<Attribution> {
        let proof = self.checker.fork.as_ref()?;
        let set = self.checker.set_at(proof.height())?;
        let records = self.nodes.iter().filter(|n| n.is_honest());
        let records = records.flat_map(|n| &n.signer.records);
        let polkas: Vec<Polka> = records
            .filter_map(|(key, value)| match Record::read(key, value) {
                Ok(Record::Polka(polka)) if polka.height == proof.height() => Some(polka),
                _ => None,
            })
            .collect();
        Some(fork::attribute(proof, set, &polkas))
    }

    /// Where a node stands, for people.
    pub fn describe(&self, node: &Node) -> String {
        let (i, kind) = (node.index, node.adversary.as_ref().map(|a| a.name()));
        let kind = kind.map_or(String::new(), |name| format!(" ({name})"));
        let Some(running) = &node.running else {
            return format!("node {i}{kind} is down");
        };
        let now = node.now(self.now);
        let info = running.replica.consensus(now);
        let progress = running.sync.progress(now);
        let signing = info
            .signing
            .map_or_else(|why| format!("does not sign: {why}"), |()| "signs".into());
        let halted = info
            .halted
            .map_or(String::new(), |why| format!(", halted: {why}"));
        format!(
            "node {i}{kind}: {} peers, height {} round {} {}, power {} has prevoted and {} precommitted, waits for {}, {signing}, sync {} to {} ({}){halted}",
            running.p2p.peers().count(),
            info.height,
            info.at,
            info.step,
            info.prevotes,
            info.precommits,
            info.waiting_for,
            progress.at,
            progress.to,
            progress.waiting.text(),
        )
    }

    /// What the run did.
    pub fn report(&self) -> Report {
        let middle_and_late = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let of = |permille: usize| times.get(times.len() * permille / 1_000).copied();
            (of(500).unwrap_or(0), of(990).unwrap_or(0))
        };
        Report {
            simulated_us: self.now,
            height: self.checker.tip(),
            payments: (self.clients.made, self.clients.settled),
            finality_us: middle_and_late(&self.clients.finality),
            finality_own_us: middle_and_late(&self.clients.finality_own),
            sent: (
                self.network.bytes.iter().sum(),
                self.network.frames.iter().sum(),
            ),
            events: self.events,
            log: (self.log.len(), self.log.fingerprint()),
        }
    }
}
