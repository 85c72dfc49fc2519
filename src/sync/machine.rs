//! The machine: one input in, effects out.

mod progress;

use super::headers::Skeleton;
use super::peers::Peers;
use super::serve::counted_size;
use super::window::{Candidate, Stage, Window, bound_together};
use super::*;
use crate::base::limits::Size;
use crate::base::time::Now;
use std::collections::{BTreeMap, VecDeque};

/// Fetches what its node lacks.
pub struct Machine {
    chain: ChainId,
    tip: Applied,
    peers: Peers,
    window: Window,
    skeleton: Skeleton,
    effects: VecDeque<Effect>,
    next_ticket: u64,
    /// Heights of candidates whose signatures are being checked.
    tickets: BTreeMap<u64, u64>,
    deadline: Option<MonoUs>,
    /// Since when a peer is ahead and the tip has not moved.
    behind_since: Option<MonoUs>,
    /// The height next to the tip, and since when its block is being checked or applied.
    pending: Option<(u64, MonoUs)>,
    /// Height and time at which the catch-up under way began.
    begun: Option<(u64, MonoUs)>,
    /// Up to here every candidate follows the one below and is being verified.
    linked: u64,
    /// Up to here candidates were handed over.
    delivered: u64,
    /// Something has changed that lets more be asked for; the tip at the last look.
    replan: bool,
    planned: u64,
    /// Height of the best peer when nobody had more slot headers.
    headers_to: Option<u64>,
    /// A block that the operator vouches for (F2).
    root: Option<(Height, BlockId)>,
    /// Whether bodies are wanted at all: not while a snapshot is being fetched.
    bodies: bool,
}

impl Machine {
    /// A machine for a node that stands at `tip`. `root`: no other block of its height is taken (F2).
    pub fn new(chain: ChainId, tip: Applied, root: Option<(Height, BlockId)>) -> Machine {
        Machine {
            chain,
            skeleton: Skeleton::new(&tip),
            linked: tip.height.0,
            delivered: tip.height.0,
            tip,
            peers: Peers::default(),
            window: Window::default(),
            effects: VecDeque::new(),
            next_ticket: 0,
            tickets: BTreeMap::new(),
            deadline: None,
            behind_since: None,
            pending: None,
            begun: None,
            replan: true,
            planned: 0,
            headers_to: None,
            root,
            bodies: true,
        }
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let bytes = SYNC_WINDOW_BYTES + SYNC_RESERVE_BYTES;
        let blocks = SYNC_WINDOW_BLOCKS as usize;
        let mut sizes = vec![
            Size::new("sync window", self.window.len(), blocks),
            Size::new("sync window bytes", self.window.bytes(), bytes),
            Size::new("certificates being checked", self.tickets.len(), blocks),
            Size::new(
                "sync effects",
                self.effects.len(),
                SYNC_WINDOW_BLOCKS as usize,
            ),
        ];
        sizes.extend(self.peers.sizes());
        sizes.extend(self.skeleton.sizes());
        sizes
    }

    /// Takes an input; then call [`Machine::effect`] until it is empty.
    pub fn handle(&mut self, now: Now, input: Input) {
        let at = now.mono;
        if self.is_no_news(at, &input) {
            return;
        }
        match input {
            Input::Position {
                peer,
                height,
                score,
            } => {
                self.peers.position(at, peer, height, score);
                self.replan = true;
            }
            Input::Gone { peer } => {
                self.peers.gone(peer);
                self.skeleton.drop_peer(peer);
                self.replan = true;
            }
            Input::Block {
                peer,
                block,
                certificate,
            } => self.arrived(at, peer, block, certificate),
            Input::Unavailable {
                peer,
                height,
                first,
            } => {
                if height > self.tip.height {
                    self.peers.pruned(at, peer, height.0, first.0);
                    self.replan = true;
                }
            }
            Input::Headers { peer, headers } => self.headers(at, peer, &headers),
            Input::HeadersVerdict { ticket, good } => {
                match self.skeleton.verdict(ticket, good) {
                    Some(Err(liar)) => self.fault(liar, Fault::BadCertificate),
                    Some(Ok(headers)) => self.effects.push_back(Effect::Headers(headers)),
                    None => {}
                }
                self.replan = true;
            }
            Input::Verdict { ticket, outcome } => self.verdict(at, ticket, outcome),
            Input::Applied(tip) => self.applied(tip),
            Input::Tick => self.replan = true,
        }
        self.replan |= self.peers.expire(at);
        for peer in self.peers.stale(at) {
            self.effects.push_back(Effect::Refresh { peer });
        }
        self.link(at);
        self.deliver();
        self.recover(at);
        self.pace(at);
        self.ask_headers(at);
        if std::mem::take(&mut self.replan) {
            self.planned = self.tip.height.0;
            self.schedule(at);
        }
        self.wake(at);
    }

    /// Pings tell positions all the time: one that is not above the tip is noted and changes nothing else.
    fn is_no_news(&mut self, now: MonoUs, input: &Input) -> bool {
        let Input::Position {
            peer,
            height,
            score,
        } = input
        else {
            return false;
        };
        let idle = self.begun.is_none() && self.behind_since.is_none() && self.pending.is_none();
        let none = idle && *height <= self.tip.height && self.deadline.is_some_and(|due| now < due);
        if none {
            self.peers.position(now, *peer, *height, *score);
        }
        none
    }

    /// The next effect to perform.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether blocks are to be fetched, or only slot headers.
    pub fn want_bodies(&mut self, wanted: bool) {
        self.bodies = wanted;
        self.replan = true;
    }

    /// The verified slot header at a height above the tip, to begin from by snapshot. Above a block that the operator vouches
    /// for there is none unless these headers show that block: a snapshot would pass it by uncompared (F2).
    pub fn slot_head(&self, height: Height) -> Option<SlotHead> {
        let ahead = self.root.filter(|(at, _)| *at > self.tip.height);
        let passed = ahead.is_none_or(|(at, id)| {
            height < at || self.skeleton.at(at.0).is_some_and(|head| head.id == id)
        });
        self.skeleton.at(height.0).filter(|_| passed).copied()
    }

    fn arrived(&mut self, now: MonoUs, peer: Peer, block: Arc<Block>, certificate: Certificate) {
        let height = block.header.height.0;
        let bytes = counted_size(&block, &certificate);
        let Some(done) = self.peers.answered(now, peer, height, bytes) else {
            return;
        };
        self.replan |= done;
        let id = block.id();
        if let Some(why) = bound_together(&block, id, &certificate) {
            self.fault(peer, why);
            return;
        }
        if self
            .tip
            .bars
            .pin
            .is_some_and(|(at, stays)| at.0 == height && stays != id)
        {
            return self.stray(now, peer);
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

    /// Slot headers have come: their signatures are checked together.
    fn headers(&mut self, now: MonoUs, peer: Peer, found: &[CertifiedHeader]) {
        let was_asked = self.skeleton.asked.is_some_and(|(asked, _)| asked == peer);
        let ticket = self.next_ticket;
        match self.skeleton.answered(self.chain, peer, found, ticket, now) {
            Err(why) => self.fault(peer, why),
            Ok(Some(checks)) => {
                self.next_ticket += 1;
                self.effects
                    .push_back(Effect::VerifyHeaders { ticket, checks });
            }
            Ok(None) if was_asked => self.headers_to = self.peers.best(now).or(Some(0)),
            Ok(None) => {}
        }
        self.replan = true;
    }

    /// How far the best peer is ahead.
    fn lag(&self, now: MonoUs) -> u64 {
        let best = self.peers.best(now).unwrap_or(0);
        best.saturating_sub(self.tip.height.0)
    }

    /// Asks for slot headers while far behind.
    fn ask_headers(&mut self, now: MonoUs) {
        self.skeleton.expire(now);
        if let Some((peer, until)) = self.skeleton.asked
            && until <= now
        {
            self.skeleton.asked = None;
            self.peers.late(now, peer);
        }
        let Some(best) = self.peers.best(now).filter(|_| self.begun.is_some()) else {
            return;
        };
        // For a snapshot every slot header counts.
        let least = if self.bodies { LAG_FOR_HEADERS } else { 1 };
        let grown = self
            .headers_to
            .is_none_or(|to| best >= to.saturating_add(least));
        if self.skeleton.is_busy() || !grown || self.lag(now) < least {
            return;
        }
        let from = self.skeleton.top().height;
        if let Some(peer) = self.peers.for_headers(now, from.0) {
            let until = now.plus_ms(self.peers.timeout_ms(peer));
            self.skeleton.asked = Some((peer, until));
            let from = from.next();
            self.effects
                .push_back(Effect::RequestHeaders { peer, from });
        }
    }

    /// F1: nothing is asked for or handed over before the first slot headers are there, if there are any.
    fn headers_come_first(&self, now: MonoUs) -> bool {
        self.headers_to.is_none()
            && self.skeleton.top().height <= self.tip.height
            && self.lag(now) >= LAG_FOR_HEADERS
            && self.skeleton.is_busy()
    }

    /// A provable fault: everything of this peer that is not verified goes.
    fn fault(&mut self, peer: Peer, why: Fault) {
        self.peers.faulty(peer);
        self.skeleton.drop_peer(peer);
        self.drop_untrusted(peer);
        self.effects.push_back(Effect::Fault { peer, why });
    }

    /// The peer is on another chain: its blocks are of no use.
    fn stray(&mut self, now: MonoUs, peer: Peer) {
        self.peers.rest(now, peer, REST_MAX_MS);
        self.drop_untrusted(peer);
        self.effects.push_back(Effect::Stray { peer });
    }

    fn drop_untrusted(&mut self, peer: Peer) {
        self.window.retain(|_, c| c.peer != peer || c.trusted());
        self.linked = self.tip.height.0;
        self.replan = true;
    }

    /// Starts over from the tip.
    fn clear(&mut self) {
        self.window.clear();
        self.tickets.clear();
        self.linked = self.tip.height.0;
        self.delivered = self.tip.height.0;
        self.replan = true;
    }

    fn verdict(
        &mut self,
        now: MonoUs,
        ticket: u64,
        outcome: Result<Verified<Certificate>, Certificate>,
    ) {
        let height = self.tickets.remove(&ticket);
        let Some(height) = height.filter(|height| self.window.awaits(*height, ticket)) else {
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
                self.linked = self.tip.height.0;
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
        if tip.height != self.tip.height {
            self.behind_since = None;
        }
        let back = tip.height < self.tip.height || !on_chain;
        self.tip = tip;
        self.skeleton.applied(&self.tip);
        let height = self.tip.height.0;
        if back {
            // The node went another way than what is held here.
            self.clear();
            self.skeleton.forget();
            self.headers_to = None;
            self.peers.forget_requests();
        } else {
            self.window.applied(height);
            self.peers.applied(height);
            self.linked = self.linked.max(height);
            self.delivered = self.delivered.max(height);
        }
        let idle = self.peers.in_flight().next().is_none();
        self.replan |= idle || height.abs_diff(self.planned) >= REPLAN_BLOCKS;
    }

    /// Walks up as long as every block follows the one below, and sends off certificates whose set is known.
    fn link(&mut self, now: MonoUs) {
        let known = self.tip.validators_hash;
        let mut height = self.linked.max(self.tip.height.0);
        let (mut parent, mut set, mut sure) = match self.window.get(height) {
            Some(last) => (
                last.id,
                last.block.header.next_validators_hash,
                last.trusted(),
            ),
            None => (self.tip.block, known, true),
        };
        loop {
            height += 1;
            let Some(candidate) = self.window.get(height) else {
                return;
            };
            let header = &candidate.block.header;
            let follows = header.parent == parent;
            let (id, next, peer) = (candidate.id, header.next_validators_hash, candidate.peer);
            if self
                .root
                .is_some_and(|(of, wanted)| of.0 == height && wanted != id)
            {
                // The operator vouches for another block: whoever serves this one is on another chain.
                self.stray(now, peer);
                return;
            }
            let other = self.skeleton.at(height).is_some_and(|head| head.id != id);
            if !follows || header.validators_hash != set || other {
                if !sure {
                    // The block below may be the wrong one.
                    return;
                }
                let claimed = header.validators_hash;
                let provable = claimed == set && self.skeleton.set(&set).is_some();
                if follows && claimed != set {
                    self.fault(peer, Fault::WrongSet);
                } else if provable {
                    self.verify(now, height, false);
                } else {
                    self.stray(now, peer);
                }
                return;
            }
            if self.skeleton.set(&set).is_none() || !self.verify(now, height, true) {
                return;
            }
            self.linked = height;
            sure = self.window.get(height).is_some_and(Candidate::trusted);
            (parent, set) = (id, next);
        }
    }

    /// Sends off the signatures of a block that has just arrived. False if that showed the certificate to be bad.
    fn verify(&mut self, now: MonoUs, height: u64, follows: bool) -> bool {
        let ticket = self.next_ticket;
        let Some(candidate) = self.window.get_mut(height) else {
            return false;
        };
        let Stage::Arrived(certificate) = &candidate.stage else {
            return true;
        };
        let era = certificate.commit.at.era;
        let peer = candidate.peer;
        let header = &candidate.block.header;
        // An era that this node has yet to learn of: its RecoveryCert comes from the peers that know it.
        let set = self.skeleton.deciders(&header.validators_hash, era);
        let Some(set) = set.filter(|_| !self.skeleton.is_elsewhere(header)) else {
            return false;
        };
        let branch = header.branch;
        let before = std::mem::replace(&mut candidate.stage, Stage::Verifying { ticket, follows });
        let Stage::Arrived(certificate) = before else {
            return true;
        };
        match certificate.checks(self.chain, branch, &set) {
            Err(_) if self.skeleton.may_differ(era) => {
                self.window.remove(height);
                self.stray(now, peer);
                false
            }
            Err(_) => {
                self.fault(peer, Fault::BadCertificate);
                false
            }
            Ok(checks) => {
                self.next_ticket += 1;
                self.tickets.insert(ticket, height);
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
        let last = self.tip.height.0 + DELIVERED_COUNT_MAX as u64;
        let top = self.skeleton.top().height.0;
        while self.delivered < last {
            let height = self.delivered + 1;
            let Some(candidate) = self.window.get_mut(height).filter(|c| c.trusted()) else {
                return;
            };
            self.delivered = height;
            let before = std::mem::replace(&mut candidate.stage, Stage::Delivered);
            if let Stage::Verified(certificate) = before {
                let block = candidate.block.clone();
                self.effects.push_back(Effect::Deliver {
                    block,
                    certificate,
                    trusted: height <= top,
                });
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
                self.clear();
            }
            Some(_) => {}
        }
    }

    /// Begins and ends catching up.
    fn pace(&mut self, now: MonoUs) {
        let tip = self.tip.height.0;
        let lag = self.lag(now);
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
            self.replan = true;
        }
    }

    /// Asks for what is missing, the lowest first.
    fn schedule(&mut self, now: MonoUs) {
        let (Some(_), Some(best)) = (self.begun, self.peers.best(now)) else {
            return;
        };
        if !self.bodies || self.headers_come_first(now) {
            return;
        }
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
        let held = self.window.next_above(height).into_iter();
        let asked = self.peers.in_flight().map(|r| r.next);
        let next = held.chain(asked.filter(|h| *h > height)).min();
        next.map_or(most, |next| most.min(next - height))
    }

    fn wake(&mut self, now: MonoUs) {
        let patience = match (self.begun, self.behind_since) {
            (None, Some(since)) => Some(since.plus_ms(PATIENCE_MS)),
            _ => None,
        };
        let lost = self.pending.map(|(_, since)| since.plus_ms(LOST_MS));
        let deadline = self.peers.deadline(now).into_iter();
        let headers = self.skeleton.asked.map(|(_, until)| until);
        let deadline = deadline.chain(patience).chain(lost).chain(headers).min();
        if deadline != self.deadline {
            self.deadline = deadline;
            self.effects.push_back(Effect::SetDeadline(deadline));
        }
    }
}
