//! Outbound queues of one peer: one per class, each with its bound (B2), consensus first (P2).
//!
//! Input: frames as shared bytes. Output: units in the order of sending. Must never hold more than its bounds, and must
//! never put anything between two fragments of a frame but units of other classes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::{Class, encode_unit};
use super::limits::{
    OUT_CONSENSUS_MAX, OUT_FRAME_OVERHEAD, OUT_OTHER_MAX, OUT_SYNC_MAX, OUT_TX_MAX,
};

/// What a full queue means for the frame that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The frame is dropped and counted: what it says is repeated, or can be asked for.
    Drop,
    /// The peer has fallen so far behind that only a new start helps; no fault of its own (P3).
    Disconnect,
}

struct OutFrame {
    frame_type: u8,
    payload: Arc<[u8]>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<OutFrame>,
    /// Payload bytes of the front frame that have been cut into units.
    sent: usize,
    /// Cost of all frames in the queue.
    cost: usize,
}

/// All outbound frames of one peer.
#[derive(Default)]
pub(super) struct Outbound {
    queues: [Queue; 6],
    /// Transactions and blocks take turns below the other classes, so that neither starves the other.
    sync_turn: bool,
    /// Counters that only grow: cost of all frames taken in, and of all frames cut to their end.
    taken_in: u64,
    cut: u64,
}

fn bound(class: Class) -> (usize, Full) {
    match class {
        Class::Consensus => (OUT_CONSENSUS_MAX, Full::Disconnect),
        Class::Sync => (OUT_SYNC_MAX, Full::Disconnect),
        Class::Tx => (OUT_TX_MAX, Full::Drop),
        Class::Control | Class::Liveness | Class::Fork => (OUT_OTHER_MAX, Full::Drop),
    }
}

impl Outbound {
    /// Queues a frame. An empty queue takes any frame, so that a type whose limit is above the bound can be sent.
    pub fn push(&mut self, class: Class, frame_type: u8, payload: Arc<[u8]>) -> Result<(), Full> {
        let queue = &mut self.queues[class.index()];
        let cost = payload.len() + OUT_FRAME_OVERHEAD;
        let (bound, full) = bound(class);
        if !queue.frames.is_empty() && queue.cost + cost > bound {
            return Err(full);
        }
        queue.cost += cost;
        queue.frames.push_back(OutFrame {
            frame_type,
            payload,
        });
        self.taken_in += cost as u64;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.frames.is_empty())
    }

    /// Cost of everything queued, bytes.
    pub fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.cost).sum()
    }

    /// Total cost of frames taken in so far.
    pub fn taken_in(&self) -> u64 {
        self.taken_in
    }

    /// Total cost of frames that left the queues completely.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Appends units to `out` until it holds `target` bytes or nothing is left. Returns the number of frames that were
    /// cut to their end.
    pub fn fill(&mut self, out: &mut Vec<u8>, target: usize) -> u64 {
        let mut finished = 0;
        while out.len() < target {
            let Some(class) = self.next_class() else {
                break;
            };
            let queue = &mut self.queues[class.index()];
            let Some(frame) = queue.frames.front() else {
                break;
            };
            queue.sent += encode_unit(out, class, frame.frame_type, &frame.payload, queue.sent);
            if queue.sent >= frame.payload.len() {
                let cost = frame.payload.len() + OUT_FRAME_OVERHEAD;
                queue.frames.pop_front();
                queue.sent = 0;
                queue.cost -= cost;
                self.cut += cost as u64;
                finished += 1;
            }
        }
        finished
    }

    fn next_class(&mut self) -> Option<Class> {
        let waiting = |class: &Class| !self.queues[class.index()].frames.is_empty();
        let first = [
            Class::Consensus,
            Class::Control,
            Class::Liveness,
            Class::Fork,
        ];
        if let Some(class) = first.into_iter().find(waiting) {
            return Some(class);
        }
        let turns = if self.sync_turn {
            [Class::Sync, Class::Tx]
        } else {
            [Class::Tx, Class::Sync]
        };
        let class = turns.into_iter().find(waiting)?;
        self.sync_turn = class == Class::Tx;
        Some(class)
    }
}
