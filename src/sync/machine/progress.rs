//! How far a node has come and what it waits for, in numbers for people. Input: the machine; it must never change it.

use super::super::*;
use super::{Machine, Stage};
use crate::base::time::Now;

impl Machine {
    /// The block that the operator vouches for (F2).
    pub fn root(&self) -> Option<(Height, BlockId)> {
        self.root
    }

    /// Where the machine stands.
    pub fn progress(&self, now: Now) -> Progress {
        let at = self.tip.height;
        let best = self.peers.best(now.mono).map(Height);
        let to = best.unwrap_or(at).max(at);
        let (from, since) = self.begun.unwrap_or((at.0, now.mono));
        let elapsed = u128::from(now.mono.since(since)).max(1);
        let done = u128::from(at.0.saturating_sub(from));
        let rate = (done * 1_000_000_000 / elapsed).min(u128::from(u64::MAX));
        Progress {
            active: self.begun.is_some(),
            from: Height(from),
            at,
            to,
            blocks_per_1000_s: rate as u64,
            requests: self.peers.in_flight().count(),
            held_bytes: self.window.bytes(),
            waiting: self.waiting(now.mono, to),
            headers: self.skeleton.top().height,
            asked: self.peers.asked(),
        }
    }

    fn waiting(&self, now: MonoUs, to: Height) -> Waiting {
        if to <= self.tip.height {
            return Waiting::UpToDate;
        }
        if self.begun.is_none() {
            return Waiting::ForConsensus;
        }
        if !self.bodies || self.headers_come_first(now) {
            return Waiting::ForHeaders;
        }
        let next = self.tip.height.0 + 1;
        match self.window.get(next).map(|c| &c.stage) {
            Some(Stage::Delivered | Stage::Verified(_)) => Waiting::ForApply,
            Some(Stage::Verifying { .. } | Stage::Arrived(_)) => Waiting::ForVerdicts,
            None if self.peers.is_pruned(now, next) => Waiting::Pruned,
            None if self.peers.in_flight().next().is_none() => Waiting::ForPeers,
            None => Waiting::ForBlocks,
        }
    }
}
