//! What happens at a point of simulated time: power, disks, wake-ups, clients. Performs one event at a time.

use super::{Options, RESEND_US, World};
use crate::base::rng::Rng;
use crate::ledger::state::State;
use crate::p2p::machine as p2p;
use crate::replica::io::{Effect, Input, Token};
use crate::sim::disk::{LedgerDisk, SignerDisk};
use crate::sim::kit::{Role, key};
use crate::sim::network::{Frame, Link};
use crate::sim::node::{Clock, Node};
use crate::sync;
use crate::types::genesis::Genesis;
use crate::types::transaction::Tx;
use std::collections::VecDeque;

/// What happens at a point of simulated time.
pub(in crate::sim) enum Event {
    Start(usize),
    Wake(usize, u64),
    Frame(u64, usize, Frame),
    /// A node that reads slowly is ready for the next frame.
    Read(usize, u64),
    Closed(u64, usize),
    Connected(u64, usize),
    DialFailed(usize, u64, usize),
    SignerDone(usize, u64),
    LedgerDone(usize, u64),
    Pay,
    Resend,
    Flood,
    /// Connections of two nodes fall, so many times again.
    Flap(usize, usize, u32),
    Chaos,
    Heal,
}

/// Something for a machine, or from one.
pub(in crate::sim) enum Work {
    ToReplica(Input),
    ToP2p(p2p::Input),
    ToSync(sync::Input),
    FromReplica(Effect),
    FromP2p(p2p::Effect),
}
/// Wake-ups without time passing that count as spinning.
const SPINS_MAX: u32 = 2_000;

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Start(i) => self.start(i),
            Event::Wake(i, life) => self.woken(i, life),
            Event::Frame(link, side, frame) => self.arrived(link, side, frame),
            Event::Read(i, life) => self.reads(i, life),
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
                    let thief = self.dice.chance(self.options.double_spend, 1_000);
                    let rival = thief.then(|| self.clients.rival(&tx.txid)).flatten();
                    self.submit(tx);
                    rival.into_iter().for_each(|tx| self.submit(tx));
                }
                let every = self.options.pay_every_ms * 1_000;
                let after = every / 2 + self.dice.below(every + 1);
                self.later(after, Event::Pay);
            }
            Event::Flood => {
                if let Some(tx) = self.clients.flood() {
                    self.submit(tx);
                }
                self.later(1_000_000 / self.options.flood_per_s.max(1), Event::Flood);
            }
            Event::Flap(a, b, left) => {
                self.cut_between(a, b);
                if left > 0 {
                    let after = 100_000 + self.dice.below(900_000);
                    self.later(after, Event::Flap(a, b, left - 1));
                }
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
        self.submit_at(i, tx);
    }

    /// A client hands a transaction to this node.
    pub fn submit_at(&mut self, i: usize, tx: Tx) {
        self.note(&format!("client pays {:?} at node {i}", tx.txid));
        self.clients.take(self.now, i, tx.txid);
        self.work(i, Work::ToReplica(Input::Submit(Token(0), tx)));
    }

    fn start(&mut self, i: usize) {
        if self.nodes[i].running.is_some() {
            return;
        }
        let height = self.nodes[i].ledger.state.height();
        self.note(&format!("node {i} starts at height {height}"));
        let broken = match self.nodes[i].start(self.now, &self.genesis, self.options.rules) {
            Ok(effects) => {
                let started = self.nodes[i].ledger.state.height();
                if started < height
                    && let Some((me, _)) = &self.nodes[i].operator
                {
                    self.checker.on_rewind(*me, started.next());
                }
                let broken = self.checker.on_start(i, started);
                let mut first: VecDeque<Work> =
                    effects.into_iter().map(Work::FromReplica).collect();
                if let Some(running) = &self.nodes[i].running {
                    let now = self.nodes[i].now(self.now);
                    first.push_back(Work::ToP2p(p2p::Input::Status(running.replica.status(now))));
                }
                self.tell_registry(i, &mut first);
                self.all(i, first);
                broken
            }
            Err(error) => Err(format!("node {i} cannot start: {error}")),
        };
        if let Err(what) = broken {
            self.fail(what);
        }
    }

    /// A node stops in order and starts again from its disks (B6 step 5).
    pub(in crate::sim) fn restart(&mut self, i: usize) {
        self.note(&format!("node {i} starts again"));
        let node = &mut self.nodes[i];
        while node.signer.finish_one().is_some() {}
        while node.ledger.finish_one().is_some() {}
        self.crash(i, Some(100_000));
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
        node.unread.clear();
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
    pub(in crate::sim) fn cut(&mut self, number: u64) {
        for side in 0..2 {
            self.at(self.now + 1 + side as u64, Event::Closed(number, side));
        }
    }

    fn cut_between(&mut self, a: usize, b: usize) {
        let nodes = |l: &Link| [l.ends[0].node, l.ends[1].node];
        let links = self.network.links.iter();
        let hit = links.filter(|(_, l)| nodes(l) == [a, b] || nodes(l) == [b, a]);
        let hit: Vec<u64> = hit.map(|(number, _)| *number).collect();
        hit.into_iter().for_each(|number| self.cut(number));
    }

    pub(in crate::sim) fn release(&mut self) {
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
        let before = self.now;
        let ticks = node.ticks(before);
        self.all(i, ticks);
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

    pub(in crate::sim) fn work(&mut self, i: usize, work: Work) {
        self.all(i, VecDeque::from([work]));
    }
}

/// Node `i` of a new network. Masternodes dial one another; others dial some masternodes and some of all nodes.
pub(super) fn new_node(
    i: usize,
    (genesis, state): (&Genesis, &State),
    options: &Options,
    dice: &mut Rng,
) -> Node {
    let masternodes = options.collaterals.len();
    let count = masternodes + options.observers;
    // The second of two nodes with one key speaks for the masternode of the first.
    let twin = i.checked_sub(count).and_then(|k| options.twins.get(k));
    let me = twin.copied().unwrap_or(i);
    let operator = genesis.masternodes.get(me);
    let operator = operator.map(|m| (m.id(), key(Role::Operator, me)));
    let targets = if me < masternodes {
        (0..masternodes).filter(|t| *t != me).collect()
    } else {
        let (near, far) = options.dials;
        let mut some: Vec<usize> = (0..far)
            .map(|_| dice.below(count as u64) as usize)
            .collect();
        some.extend((0..near).map(|_| dice.below(masternodes as u64) as usize));
        some.sort_unstable();
        some.dedup();
        some.retain(|t| *t != i);
        some
    };
    let spread = |dice: &mut Rng, most: u64| dice.below(2 * most + 1) as i64 - most as i64;
    Node {
        index: i,
        operator,
        next_operator: None,
        key_count: 0,
        key: key(Role::Node, i).public(),
        targets,
        ledger: LedgerDisk::at(genesis, state),
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
        ledger_full_until: 0,
        busy_until: 0,
        unread: VecDeque::new(),
        frame_us: 0,
        abstains: false,
        disk_slow: 1,
        adversary: None,
        amnesic: false,
        rng: Rng::new(dice.next_u64()),
    }
}
