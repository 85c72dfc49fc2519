//! The virtual network: connections with latency, order and, when asked for, every way in which a network fails.
//!
//! A connection is a TCP stream: frames arrive in order or not at all. What a partition holds back arrives after it, unless
//! the connection has ended by then. Loss, doubling and reordering of single frames are harsher than TCP and meant to be.

use crate::base::rng::Rng;
use crate::p2p::messages::PeerId;
use crate::sim::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One frame on its way.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Type byte.
    pub code: u8,
    /// Encoded body.
    pub body: Arc<Vec<u8>>,
}

/// One end of a connection.
#[derive(Debug, Clone)]
pub struct End {
    /// Which node.
    pub node: usize,
    /// What that node calls the connection.
    pub peer: PeerId,
    /// Whether this end still has it.
    pub open: bool,
    /// Whether this end was told that it has it: until then the dialler waits for the end of its dial.
    pub told: bool,
    /// Nothing sent to this end arrives before this time.
    pub after: u64,
    /// When the last frame of the greeting arrives: nothing overtakes it.
    pub floor: u64,
    /// What a partition holds back from this end: frames, then perhaps the end of the connection (`None`).
    pub stalled: Vec<Option<Frame>>,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Dialler first.
    pub ends: [End; 2],
    /// What the dialler's peer machine calls the dial.
    pub target: Option<usize>,
}

/// Odds per million frames; zero is a perfect network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameOdds {
    /// A frame vanishes.
    pub loss: u64,
    /// A frame arrives twice.
    pub duplicate: u64,
    /// A frame overtakes those before it.
    pub reorder: u64,
    /// A frame takes ten to a hundred times as long.
    pub tail: u64,
}

/// Latencies, partitions and connections.
pub struct Network {
    /// Least and greatest latency of a pair, µs.
    pub latency: (u64, u64),
    /// Odds of single frames.
    pub odds: FrameOdds,
    /// Directions (from, to) in which nothing passes.
    pub blocked: BTreeSet<(usize, usize)>,
    /// Frames that never arrive: from, to, type byte.
    pub deaf: BTreeSet<(usize, usize, u8)>,
    /// Nodes whose frames take this many times as long.
    pub slow: BTreeMap<usize, u64>,
    /// By number.
    pub links: BTreeMap<u64, Link>,
    /// Link and end of each connection name.
    pub names: BTreeMap<PeerId, (u64, usize)>,
    /// Which words pass.
    pub(super) stage: Stage,
    next: u64,
    rng: Rng,
    seed: u64,
    /// Bytes sent by each node.
    pub bytes: Vec<u64>,
    /// Frames sent by each node.
    pub frames: Vec<u64>,
    /// Bytes of frames that were sent to each node.
    pub received: Vec<u64>,
    /// Frames and bytes sent, by type.
    pub by_code: BTreeMap<u8, (u64, u64)>,
}

impl Network {
    /// A perfect network.
    pub fn new(seed: u64, nodes: usize, latency: (u64, u64)) -> Network {
        Network {
            latency,
            odds: FrameOdds::default(),
            blocked: BTreeSet::new(),
            deaf: BTreeSet::new(),
            slow: BTreeMap::new(),
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            stage: Stage::default(),
            next: 1,
            rng: Rng::new(seed ^ 0x6e65_7477_6f72_6b00),
            seed,
            bytes: vec![0; nodes],
            frames: vec![0; nodes],
            received: vec![0; nodes],
            by_code: BTreeMap::new(),
        }
    }

    /// Time from one node to another now, µs: a base that belongs to the pair, and jitter.
    pub fn delay(&mut self, from: usize, to: usize) -> u64 {
        let (low, high) = self.latency;
        let pair = (from.min(to) as u64) << 32 | from.max(to) as u64;
        let base = low + Rng::new(self.seed ^ pair.wrapping_mul(0x9E37_79B9)).below(high - low + 1);
        let mut delay = base + self.rng.below(base / 4 + 1);
        if self.rng.chance(self.odds.tail, 1_000_000) {
            delay = delay.saturating_mul(10 + self.rng.below(90));
        }
        let slow = [from, to].iter().filter_map(|n| self.slow.get(n)).max();
        delay.saturating_mul(slow.copied().unwrap_or(1)).max(1)
    }

    /// A new connection from node `from` to node `to`.
    pub fn open(&mut self, from: usize, to: usize) -> u64 {
        let number = self.next;
        self.next += 1;
        let end = |node, side: u64| End {
            node,
            peer: PeerId(number * 2 + side),
            open: true,
            told: false,
            after: 0,
            floor: 0,
            stalled: Vec::new(),
        };
        let ends = [end(from, 0), end(to, 1)];
        for (side, end) in ends.iter().enumerate() {
            self.names.insert(end.peer, (number, side));
        }
        let target = None;
        self.links.insert(number, Link { ends, target });
        number
    }

    /// The nodes at the ends of a connection that its owner has not left: whose name for it this is, and the other.
    pub fn ends(&self, peer: PeerId) -> Option<(usize, usize)> {
        let (number, side) = *self.names.get(&peer)?;
        let ends = &self.links.get(&number)?.ends;
        ends[side]
            .open
            .then_some((ends[side].node, ends[1 - side].node))
    }

    /// Forgets a connection that both ends have left.
    pub fn forget_if_dead(&mut self, number: u64) {
        if let Some(link) = self.links.get(&number)
            && !link.ends[0].open
            && !link.ends[1].open
        {
            for end in &link.ends {
                self.names.remove(&end.peer);
            }
            self.links.remove(&number);
        }
    }

    /// When copies of a frame that leaves now by `peer` arrive at the other end; empty if it is lost or held back.
    pub fn send(
        &mut self,
        now: u64,
        peer: PeerId,
        frame: &Frame,
        exempt: bool,
    ) -> (u64, usize, Vec<u64>) {
        let Some(&(number, side)) = self.names.get(&peer) else {
            return (0, 0, Vec::new());
        };
        let other = 1 - side;
        let Some(link) = self.links.get(&number) else {
            return (0, 0, Vec::new());
        };
        let (from, to) = (link.ends[side].node, link.ends[other].node);
        let bytes = frame.body.len() as u64 + 5;
        let of_code = self.by_code.entry(frame.code).or_default();
        *of_code = (of_code.0 + 1, of_code.1 + bytes);
        self.bytes[from] += bytes;
        self.received[to] += bytes;
        self.frames[from] += 1;
        if self.deaf.contains(&(from, to, frame.code)) {
            return (number, other, Vec::new());
        }
        if self.blocked.contains(&(from, to)) {
            if let Some(link) = self.links.get_mut(&number) {
                link.ends[other].stalled.push(Some(frame.clone()));
            }
            return (number, other, Vec::new());
        }
        let mut at = now + self.delay(from, to);
        let mut times = Vec::new();
        let odds = self.odds;
        if !exempt && self.rng.chance(odds.loss, 1_000_000) {
            return (number, other, times);
        }
        let free = !exempt && self.rng.chance(odds.reorder, 1_000_000);
        let twice = !exempt && self.rng.chance(odds.duplicate, 1_000_000);
        if let Some(link) = self.links.get_mut(&number) {
            let end = &mut link.ends[other];
            at = at.max(if free { end.floor } else { end.after } + 1);
            if !free {
                end.after = at;
            }
            if exempt {
                end.floor = at;
            }
        }
        times.push(at);
        if twice {
            times.push(at + self.delay(from, to));
        }
        (number, other, times)
    }

    /// When the end of a connection, left by one end now, is seen by the other; `None` if it is held back.
    pub fn close(&mut self, now: u64, number: u64, side: usize) -> Option<u64> {
        let link = self.links.get(&number)?;
        let other = 1 - side;
        let (from, to) = (link.ends[side].node, link.ends[other].node);
        let held = self.blocked.contains(&(from, to));
        let at = now + self.delay(from, to);
        let end = &mut self.links.get_mut(&number)?.ends[other];
        if held {
            end.stalled.push(None);
            return None;
        }
        end.after = end.after.max(at) + 1;
        Some(end.after)
    }

    /// What may go on after partitions have changed: (link, end, frame or end of the connection).
    pub fn release(&mut self) -> Vec<(u64, usize, Option<Frame>)> {
        let mut out = Vec::new();
        for (number, link) in &mut self.links {
            for side in 0..2 {
                let way = (link.ends[1 - side].node, link.ends[side].node);
                if !self.blocked.contains(&way) {
                    let freed = std::mem::take(&mut link.ends[side].stalled);
                    out.extend(freed.into_iter().map(|f| (*number, side, f)));
                }
            }
        }
        out
    }
}
