//! Thirty days of honest nodes on bad networks (P3): delays, reordering between classes, cut connections, restarts, clocks
//! that jump. Whole peer machines with the real codec and the real buckets; nobody may be blamed, nobody banned.

use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::p2p::buckets::{Lanes, Limits};
use crate::p2p::machine::{Config, Effect, Input, Link, Machine};
use crate::p2p::messages::*;
use crate::types::ids::*;
use core::net::SocketAddr;
use std::collections::BTreeMap;

const NODES: usize = 5;
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;
/// Pings far apart, so that a month takes seconds.
const PING_MS: u64 = 300_000;

enum Event {
    Frame(u64, usize, u8, Vec<u8>),
    Closed(u64, usize),
    DialFailed(usize, usize, u64),
    Connected(u64, usize),
    Cut,
    Restart,
    Wake,
    Payment,
}

struct Wire {
    nodes: [usize; 2],
    target: usize,
    lives: [u64; 2],
    /// Frames of one class arrive in order: when the last one of each way and class does.
    last: BTreeMap<(usize, Class), u64>,
    lanes: [Lanes<(u8, Vec<u8>)>; 2],
}

struct Month {
    rng: Rng,
    now: u64,
    nodes: Vec<Machine>,
    lives: Vec<u64>,
    boots: Vec<u64>,
    jumps: Vec<u64>,
    wires: BTreeMap<u64, Wire>,
    next: u64,
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
    faults: Vec<String>,
    frames: u64,
    closed: u64,
}

fn secret(i: usize) -> SecretKey {
    SecretKey::from_seed(&[i as u8 + 1; 32])
}

fn address(i: usize) -> String {
    format!("10.{i}.0.1:1")
}

fn machine(i: usize, seed: u64, now: Now) -> Machine {
    let others = (0..NODES).filter(|j| *j != i).map(address).collect();
    let operator = (i > 0).then(|| secret(i + 50));
    Machine::new(Config {
        chain: ChainId(Hash([9; 32])),
        node_key: secret(i).public(),
        operator,
        agent: "month".into(),
        supports: Branch(0),
        endpoint: None,
        targets: others,
        ping_interval_ms: PING_MS,
        inbound_max: 8,
        status: Status::default(),
        seeds: Vec::new(),
        outbound_max: 8,
        require_stake: false,
        allow_private: true,
        book: crate::p2p::book::Book::new([1; 32]),
        anchors: Vec::new(),
        bans: Vec::new(),
        started: now.wall,
        seed,
    })
}

fn operators() -> Input {
    let operator = |i: usize| (MasternodeId(Hash([i as u8; 32])), secret(i + 50).public());
    Input::Operators((1..NODES).map(operator).collect())
}

impl Month {
    fn new(seed: u64) -> Month {
        let zero = Now::default();
        let mut month = Month {
            rng: Rng::new(seed),
            now: 0,
            nodes: (0..NODES)
                .map(|i| machine(i, seed + i as u64, zero))
                .collect(),
            lives: vec![0; NODES],
            boots: vec![0; NODES],
            jumps: vec![0; NODES],
            wires: BTreeMap::new(),
            next: 1,
            events: BTreeMap::new(),
            number: 0,
            faults: Vec::new(),
            frames: 0,
            closed: 0,
        };
        for event in [Event::Wake, Event::Cut, Event::Restart, Event::Payment] {
            month.after(1, event);
        }
        (0..NODES).for_each(|i| month.feed(i, operators()));
        month
    }

    fn after(&mut self, us: u64, event: Event) {
        self.number += 1;
        self.events.insert((self.now + us, self.number), event);
    }

    fn clock(&self, i: usize) -> Now {
        Now {
            wall: WallMs(self.now / 1_000 + self.jumps[i]),
            mono: MonoUs(self.now - self.boots[i]),
        }
    }

    fn feed(&mut self, i: usize, input: Input) {
        let now = self.clock(i);
        let effects = self.nodes[i].handle(now, input);
        for effect in effects {
            self.perform(i, effect);
        }
    }

    fn perform(&mut self, i: usize, effect: Effect) {
        match effect {
            Effect::Dial(target, to) => {
                let Some(far) = (0..NODES).find(|j| address(*j) == to) else {
                    return;
                };
                let delay = 1_000 + self.rng.below(400_000);
                if self.rng.chance(1, 10) {
                    let life = self.lives[i];
                    return self.after(20 * delay, Event::DialFailed(i, target, life));
                }
                let number = self.next;
                self.next += 1;
                let lanes = || Lanes::new(Limits::default());
                let wire = Wire {
                    nodes: [i, far],
                    target,
                    lives: [self.lives[i], self.lives[far]],
                    // Nothing arrives before the connection is there.
                    last: [(0, 2 * delay), (1, 3 * delay)]
                        .map(|(end, us)| ((end, Class::Consensus), self.now + us))
                        .into(),
                    lanes: [lanes(), lanes()],
                };
                self.wires.insert(number, wire);
                self.after(2 * delay, Event::Connected(number, 0));
                self.after(3 * delay, Event::Connected(number, 1));
            }
            Effect::Send(peer, message) => self.send(peer, i, message),
            Effect::Close { peer, why, fault } => {
                if fault {
                    self.faults.push(format!("node {i}: {why}"));
                }
                self.hang_up(peer.0);
            }
            Effect::BansChanged | Effect::Slow(..) => {
                self.faults
                    .push(format!("node {i} bans or slows an honest peer"));
            }
            _ => {}
        }
    }

    /// A frame overtakes those of later classes that were sent before it; within a class the order stays (P1).
    fn send(&mut self, peer: PeerId, i: usize, message: Message) {
        let most = [500, 50_000, 2_000_000][self.rng.below(3) as usize];
        let delay = self.rng.below(1 + most);
        let at = self.now + delay;
        let Some(wire) = self.wires.get_mut(&peer.0) else {
            return;
        };
        let far = usize::from(wire.nodes[0] == i);
        let class = Message::rule(message.code()).unwrap().1;
        let before = wire.last.range((far, Class::Consensus)..=(far, class));
        let slot = before.map(|(_, at)| at + 1).max().unwrap_or(0).max(at);
        wire.last.insert((far, class), slot);
        let wait = slot - self.now;
        let frame = Event::Frame(peer.0, far, message.code(), message.encode());
        self.after(wait, frame);
    }

    fn hang_up(&mut self, number: u64) {
        self.closed += 1;
        for end in 0..2 {
            let delay = 1 + self.rng.below(100_000);
            self.after(delay, Event::Closed(number, end));
        }
    }

    fn alive(&self, number: u64, end: usize) -> Option<usize> {
        let wire = self.wires.get(&number)?;
        let node = wire.nodes[end];
        (self.lives[node] == wire.lives[end]).then_some(node)
    }

    fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return false;
        };
        self.now = at;
        match event {
            Event::Frame(number, end, code, body) => {
                let Some(i) = self.alive(number, end) else {
                    return true;
                };
                self.frames += 1;
                let class = Message::rule(code).unwrap().1;
                let (size, mono) = (body.len(), MonoUs(self.now));
                let lanes = &mut self.wires.get_mut(&number).unwrap().lanes[end];
                let mut passed: Vec<(u8, Vec<u8>)> = Vec::new();
                passed.extend(lanes.next(mono, |_| true));
                passed.extend(lanes.offer(mono, class, size, (code, body), true));
                for (code, body) in passed {
                    match Message::decode(code, &body) {
                        Ok(message) => self.feed(i, Input::Frame(PeerId(number), message)),
                        Err(_) => self.feed(i, Input::Fault(PeerId(number), "malformed frame")),
                    }
                }
            }
            Event::Closed(number, end) => {
                if let Some(i) = self.alive(number, end) {
                    self.wires.get_mut(&number).unwrap().lives[end] = u64::MAX;
                    self.feed(i, Input::Closed(PeerId(number)));
                }
            }
            Event::DialFailed(i, target, life) if life == self.lives[i] => {
                self.feed(i, Input::DialFailed(target));
            }
            Event::DialFailed(..) => {}
            Event::Connected(number, end) => self.connected(number, end),
            Event::Cut => {
                let open: Vec<u64> = self.wires.keys().copied().collect();
                if !open.is_empty() {
                    let at = self.rng.below(open.len() as u64) as usize;
                    self.hang_up(open[at]);
                }
                let lives = self.lives.clone();
                self.wires
                    .retain(|_, w| (0..2).any(|e| w.lives[e] == lives[w.nodes[e]]));
                let wait = self.rng.below(1_200_000_000);
                self.after(1 + wait, Event::Cut);
            }
            Event::Restart => self.restart(),
            Event::Wake => {
                for i in 0..NODES {
                    self.feed(i, Input::Tick);
                }
                let due = (0..NODES).filter_map(|i| {
                    let due = self.nodes[i].deadline()?;
                    Some((due.0 + self.boots[i]).saturating_sub(self.now))
                });
                let wait = due.min().unwrap_or(1_000_000).max(100_000);
                self.after(wait, Event::Wake);
            }
            Event::Payment => {
                for i in 0..NODES {
                    self.feed(i, Input::Status(Status::default()));
                }
                let wait = self.rng.below(300_000_000);
                self.after(1 + wait, Event::Payment);
            }
        }
        true
    }

    fn connected(&mut self, number: u64, end: usize) {
        let Some(i) = self.alive(number, end) else {
            // Nobody is there any more: the other end learns that its connection is gone.
            return self.hang_up(number);
        };
        let wire = &self.wires[&number];
        let far = wire.nodes[1 - end];
        let target = (end == 0).then_some(wire.target);
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
        let remote: SocketAddr = address(far).parse().unwrap();
        let link = Link {
            peer: PeerId(number),
            key: secret(far).public(),
            target,
            exporter,
            address: remote.to_string(),
            remote: Some(remote),
        };
        self.feed(i, Input::Connected(link));
    }

    fn restart(&mut self) {
        let i = self.rng.below(NODES as u64) as usize;
        let gone: Vec<u64> = self.wires.keys().copied().collect();
        self.lives[i] += 1;
        (self.boots[i], self.jumps[i]) = (self.now, self.rng.below(100_000));
        let (seed, now) = (self.rng.next_u64(), self.clock(i));
        self.nodes[i] = machine(i, seed, now);
        self.feed(i, operators());
        for number in gone {
            if self.wires[&number].nodes.contains(&i) {
                self.hang_up(number);
            }
        }
        let wait = self.rng.below(2 * 3_600_000_000);
        self.after(1 + wait, Event::Restart);
    }
}

#[test]
fn thirty_days_of_honest_nodes_on_bad_networks_end_with_zero_bans() {
    let mut month = Month::new(1);
    while month.now < DAYS * DAY_MS * 1_000 && month.step() {
        assert_eq!(
            month.faults,
            Vec::<String>::new(),
            "P3, at {} us",
            month.now
        );
    }
    let bans: usize = month
        .nodes
        .iter()
        .map(|n| n.reputation().bans().count())
        .sum();
    assert_eq!(bans, 0, "P3: honest nodes are never banned");
    assert!(
        month.frames > 50_000 && month.closed > 1_000,
        "{} {}",
        month.frames,
        month.closed
    );
    let up = month.nodes.iter().map(|n| n.peers().count()).sum::<usize>();
    assert!(up >= NODES, "and they are connected at the end: {up}");
}
