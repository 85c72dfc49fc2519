//! The machine: one input in, effects out.

use super::peers::Peers;
use super::serve::counted_size;
use super::window::{Candidate, Stage, Window, bound_together};
use super::*;
use crate::base::time::Now;
use crate::types::ids::ChainId;
use std::collections::VecDeque;

/// Fetches what its node lacks.
pub struct Machine {
    chain: ChainId,
    tip: Applied,
    peers: Peers,
    window: Window,
    effects: VecDeque<Effect>,
    next_ticket: u64,
    deadline: Option<MonoUs>,
    /// Since when a peer is ahead and the tip has not moved.
    behind_since: Option<MonoUs>,
    /// The height next to the tip, and since when its block is being checked or applied.
    pending: Option<(u64, MonoUs)>,
    /// Height and time at which the catch-up under way began.
    begun: Option<(u64, MonoUs)>,
}

impl Machine {
    /// A machine for a node that stands at `tip`.
    pub fn new(chain: ChainId, tip: Applied) -> Machine {
        Machine {
            chain,
            tip,
            peers: Peers::default(),
            window: Window::default(),
            effects: VecDeque::new(),
            next_ticket: 0,
            deadline: None,
            behind_since: None,
            pending: None,
            begun: None,
        }
    }

    /// Takes an input; then call [`Machine::effect`] until it is empty.
    pub fn handle(&mut self, now: Now, input: Input) {
        let at = now.mono;
        match input {
            Input::Position { peer, height } => self.peers.position(at, peer, height),
            Input::Gone { peer } => self.peers.gone(peer),
            Input::Block {
                peer,
                block,
                certificate,
            } => self.arrived(at, peer, block, certificate),
            Input::Unavailable { peer, height } => {
                if height > self.tip.height {
                    self.peers.rest(at, peer, REST_MAX_MS);
                }
            }
            Input::Verdict { ticket, outcome } => self.verdict(at, ticket, outcome),
            Input::Applied(tip) => self.applied(tip),
            Input::Tick => {}
        }
        self.peers.expire(at);
        for peer in self.peers.stale(at) {
            self.effects.push_back(Effect::Refresh { peer });
        }
        self.link(at);
        self.deliver();
        self.recover(at);
        self.pace(at);
        self.schedule(at);
        self.wake(at);
    }

    /// The next effect to perform.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn arrived(&mut self, now: MonoUs, peer: Peer, block: Arc<Block>, certificate: Certificate) {
        let height = block.header.height.0;
        let bytes = counted_size(&block, &certificate);
        if !self.peers.answered(now, peer, height, bytes) {
            return;
        }
        let id = block.id();
        if let Some(why) = bound_together(&block, id, &certificate) {
            self.fault(peer, why);
            return;
        }
        let wanted = height > self.tip.height.0
            && height <= self.tip.height.0 + SYNC_WINDOW_BLOCKS
            && !self.window.contains(height);
        // Late answers come on top of what is reserved: the bound holds all the same, and the next block always finds room.
        let room = self.window.bytes() + bytes <= SYNC_WINDOW_BYTES + SYNC_RESERVE_BYTES;
        if wanted && (room || height == self.tip.height.0 + 1) {
            let stage = Stage::Arrived(certificate);
            self.window.insert(
                height,
                Candidate {
                    peer,
                    id,
                    block,
                    bytes,
                    stage,
                },
            );
        }
    }

    /// A provable fault: everything of this peer that is not verified goes.
    fn fault(&mut self, peer: Peer, why: Fault) {
        self.peers.faulty(peer);
        self.window.retain(|_, c| c.peer != peer || c.trusted());
        self.effects.push_back(Effect::Fault { peer, why });
    }

    /// The peer is on another chain: its blocks are of no use.
    fn stray(&mut self, now: MonoUs, peer: Peer) {
        self.peers.rest(now, peer, REST_MAX_MS);
        self.window.retain(|_, c| c.peer != peer || c.trusted());
    }

    fn verdict(
        &mut self,
        now: MonoUs,
        ticket: u64,
        outcome: Result<Verified<Certificate>, Certificate>,
    ) {
        let Some(height) = self.window.height_of(ticket) else {
            return;
        };
        let Some(candidate) = self.window.get_mut(height) else {
            return;
        };
        let peer = candidate.peer;
        let followed = matches!(candidate.stage, Stage::Verifying { follows: true, .. });
        match outcome {
            Err(_) => self.fault(peer, Fault::BadCertificate),
            Ok(certificate) if followed => candidate.stage = Stage::Verified(certificate),
            Ok(certificate) => {
                let block = candidate.block.clone();
                self.window.remove(height);
                self.stray(now, peer);
                self.effects.push_back(Effect::Conflict {
                    peer,
                    block,
                    certificate,
                });
            }
        }
    }

    fn applied(&mut self, tip: Applied) {
        let on_chain = match self.window.get(tip.height.0) {
            Some(candidate) => candidate.id == tip.block,
            None => true,
        };
        if tip.height < self.tip.height || !on_chain {
            // The node went another way than what is held here.
            self.window.clear();
            self.peers.forget_requests();
        } else {
            let height = tip.height.0;
            self.window.retain(|h, _| h > height);
            self.peers.applied(height);
        }
        if tip.height != self.tip.height {
            self.behind_since = None;
        }
        self.tip = tip;
    }

    /// Walks up from the tip as long as every block follows the one below, and sends off certificates whose set is known.
    fn link(&mut self, now: MonoUs) {
        let known = self.tip.validators_hash;
        let (mut parent, mut set, mut sure) = (self.tip.block, known, true);
        let mut height = self.tip.height.0;
        loop {
            height += 1;
            let Some(candidate) = self.window.get(height) else {
                return;
            };
            let header = &candidate.block.header;
            let follows = header.parent == parent;
            let (id, next, peer) = (candidate.id, header.next_validators_hash, candidate.peer);
            if !follows || header.validators_hash != set {
                if !sure {
                    // The block below may be the wrong one.
                    return;
                }
                let claimed = header.validators_hash;
                if follows {
                    self.fault(peer, Fault::WrongSet);
                } else if claimed == known && set == known {
                    self.verify(height, false);
                } else {
                    self.stray(now, peer);
                }
                return;
            }
            if set != known {
                return;
            }
            if !self.verify(height, true) {
                return;
            }
            sure = self.window.get(height).is_some_and(Candidate::trusted);
            (parent, set) = (id, next);
        }
    }

    /// Sends off the signatures of a block that has just arrived. False if that showed the certificate to be bad.
    fn verify(&mut self, height: u64, follows: bool) -> bool {
        let ticket = self.next_ticket;
        let Some(candidate) = self.window.get_mut(height) else {
            return false;
        };
        let Stage::Arrived(_) = candidate.stage else {
            return true;
        };
        let peer = candidate.peer;
        let branch = candidate.block.header.branch;
        let before = std::mem::replace(&mut candidate.stage, Stage::Verifying { ticket, follows });
        let Stage::Arrived(certificate) = before else {
            return true;
        };
        match certificate.checks(self.chain, branch, &self.tip.validators) {
            Err(_) => {
                self.fault(peer, Fault::BadCertificate);
                false
            }
            Ok(checks) => {
                self.next_ticket += 1;
                self.effects.push_back(Effect::Verify {
                    ticket,
                    certificate,
                    checks,
                });
                true
            }
        }
    }

    /// Hands over what is verified, in order, a few blocks ahead of what the node has applied.
    fn deliver(&mut self) {
        let first = self.tip.height.0 + 1;
        for height in first..first + DELIVERED_COUNT_MAX as u64 {
            let Some(candidate) = self.window.get_mut(height) else {
                return;
            };
            if !candidate.trusted() {
                return;
            }
            let before = std::mem::replace(&mut candidate.stage, Stage::Delivered);
            if let Stage::Verified(certificate) = before {
                let block = candidate.block.clone();
                self.effects
                    .push_back(Effect::Deliver { block, certificate });
            }
        }
    }

    /// Starts over when the next block was handed out and never came back.
    fn recover(&mut self, now: MonoUs) {
        let height = self.tip.height.0 + 1;
        let out = self.window.get(height);
        if !out.is_some_and(|c| !matches!(c.stage, Stage::Arrived(_))) {
            self.pending = None;
            return;
        }
        match self.pending.filter(|(of, _)| *of == height) {
            None => self.pending = Some((height, now)),
            Some((_, since)) if since.plus_ms(LOST_MS) <= now => {
                self.pending = None;
                self.window.clear();
            }
            Some(_) => {}
        }
    }

    /// Begins and ends catching up.
    fn pace(&mut self, now: MonoUs) {
        let tip = self.tip.height.0;
        let lag = self.peers.best(now).unwrap_or(0).saturating_sub(tip);
        if lag == 0 {
            self.behind_since = None;
            self.begun = None;
            return;
        }
        // The last block is usually being decided while peers already announce it: consensus takes over.
        if lag == 1 && self.begun.is_some_and(|(from, _)| tip > from) {
            self.begun = None;
        }
        let since = *self.behind_since.get_or_insert(now);
        let waited = since.plus_ms(PATIENCE_MS) <= now;
        if self.begun.is_none() && (lag >= LAG_AT_ONCE || waited) {
            self.begun = Some((tip, now));
        }
    }

    /// Asks for what is missing, the lowest first.
    fn schedule(&mut self, now: MonoUs) {
        let (Some(_), Some(best)) = (self.begun, self.peers.best(now)) else {
            return;
        };
        let tip = self.tip.height.0;
        let top = best.min(tip.saturating_add(SYNC_WINDOW_BLOCKS));
        let peers = self.peers.count_above(now, tip).max(1) as u64;
        let share = (best - tip.min(best)).div_ceil(peers);
        let mut height = tip + 1;
        while height <= top {
            let asked = self.peers.in_flight();
            let asked = asked.filter(|r| r.next <= height && height < r.end);
            if let Some(end) = asked.map(|r| r.end).max() {
                height = end;
                continue;
            }
            if self.window.contains(height) {
                height += 1;
                continue;
            }
            let Some((peer, claimed)) = self.peers.choose(now, height) else {
                return;
            };
            let flying = self.peers.in_flight().count();
            let reserved = (flying + 1) * SYNC_RESERVE_BYTES;
            let full =
                flying >= SYNC_RANGE_COUNT || self.window.bytes() + reserved > SYNC_WINDOW_BYTES;
            // The block after the tip is always asked for: all that is held waits for it.
            if full && height > tip + 1 {
                return;
            }
            let most = share
                .clamp(1, SYNC_RANGE_BLOCKS)
                .min(top.min(claimed) - height + 1);
            let count = self.gap(height, most);
            self.peers.ask(now, peer, height, count);
            self.effects.push_back(Effect::Request {
                peer,
                from: Height(height),
                count: count as u16,
            });
            height += count;
        }
    }

    /// How many heights from `height` on, at most `most`, are neither here nor asked for.
    fn gap(&self, height: u64, most: u64) -> u64 {
        let held = self.window.iter().map(|(h, _)| h);
        let asked = self.peers.in_flight().map(|r| r.next);
        let next = held.chain(asked).filter(|h| *h > height).min();
        next.map_or(most, |next| most.min(next - height))
    }

    fn wake(&mut self, now: MonoUs) {
        let patience = match (self.begun, self.behind_since) {
            (None, Some(since)) => Some(since.plus_ms(PATIENCE_MS)),
            _ => None,
        };
        let lost = self.pending.map(|(_, since)| since.plus_ms(LOST_MS));
        let deadline = self.peers.deadline(now).into_iter();
        let deadline = deadline.chain(patience).chain(lost).min();
        if deadline != self.deadline {
            self.deadline = deadline;
            self.effects.push_back(Effect::SetDeadline(deadline));
        }
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
            waiting: self.waiting(to),
        }
    }

    fn waiting(&self, to: Height) -> Waiting {
        if to <= self.tip.height {
            return Waiting::UpToDate;
        }
        if self.begun.is_none() {
            return Waiting::ForConsensus;
        }
        match self.window.get(self.tip.height.0 + 1).map(|c| &c.stage) {
            Some(Stage::Delivered | Stage::Verified(_)) => Waiting::ForApply,
            Some(Stage::Verifying { .. } | Stage::Arrived(_)) => Waiting::ForVerdicts,
            None if self.peers.in_flight().next().is_none() => Waiting::ForPeers,
            None => Waiting::ForBlocks,
        }
    }
}
