//! What is known of each peer: where it stands, how it answers, what it was asked for.

use super::*;
use crate::base::limits::PEER_COUNT_MAX;
use std::collections::BTreeMap;

/// A request for blocks `next..end`.
pub(super) struct Request {
    pub(super) peer: Peer,
    pub(super) next: u64,
    pub(super) end: u64,
    bytes: usize,
    sent: MonoUs,
    pub(super) deadline: MonoUs,
    /// Overdue: its blocks are asked for elsewhere, and still welcome.
    pub(super) late: bool,
}

/// A peer.
pub(super) struct PeerState {
    pub(super) height: u64,
    heard: MonoUs,
    /// Smoothed time to the first block of an answer, microseconds; 0: not known.
    latency: u64,
    failures: u32,
    pub(super) rests_until: MonoUs,
    faulty: bool,
}

/// Peers and requests.
#[derive(Default)]
pub(super) struct Peers {
    peers: BTreeMap<Peer, PeerState>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
}

/// Overdue requests remembered beside those in flight: two for each peer that can be connected.
const REQUESTS_REMEMBERED_MAX: usize = REQUESTS_PER_PEER * PEER_COUNT_MAX;

impl PeerState {
    fn usable(&self, now: MonoUs) -> bool {
        !self.faulty && self.rests_until <= now
    }
    fn timeout_ms(&self) -> u64 {
        let usual = (4 * self.latency / 1_000).clamp(ANSWER_TIMEOUT_MS, 4 * ANSWER_TIMEOUT_MS);
        usual
            .saturating_mul(1 << self.failures.min(8))
            .min(ANSWER_TIMEOUT_MAX_MS)
    }
}

impl Peers {
    pub(super) fn position(&mut self, now: MonoUs, peer: Peer, height: Height) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.height = height.0;
            state.heard = now;
        } else if self.peers.len() < PEER_COUNT_MAX {
            let state = PeerState {
                height: height.0,
                heard: now,
                latency: 0,
                failures: 0,
                rests_until: MonoUs(0),
                faulty: false,
            };
            self.peers.insert(peer, state);
        }
    }

    pub(super) fn gone(&mut self, peer: Peer) {
        self.peers.remove(&peer);
        self.requests.retain(|_, request| request.peer != peer);
    }

    /// It broke a rule: never asked again on this connection.
    pub(super) fn faulty(&mut self, peer: Peer) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.faulty = true;
        }
        self.requests.retain(|_, request| request.peer != peer);
    }

    /// It is on another chain, or cannot serve: leave it alone for a while.
    pub(super) fn rest(&mut self, now: MonoUs, peer: Peer, ms: u64) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.rests_until = state.rests_until.max(now.plus_ms(ms));
        }
        self.requests.retain(|_, request| request.peer != peer);
    }

    /// Greatest height that a usable peer claims.
    pub(super) fn best(&self, now: MonoUs) -> Option<u64> {
        let usable = self.peers.values().filter(|p| p.usable(now));
        usable.map(|p| p.height).max()
    }

    /// Usable peers above `height`.
    pub(super) fn count_above(&self, now: MonoUs, height: u64) -> usize {
        let usable = self.peers.values().filter(|p| p.usable(now));
        usable.filter(|p| p.height > height).count()
    }

    /// Whom to ask for `height`: who has it and room, the least busy first, then the most reliable, then the quickest.
    pub(super) fn choose(&self, now: MonoUs, height: u64) -> Option<(Peer, u64)> {
        let able = self
            .peers
            .iter()
            .filter(|(_, p)| p.usable(now) && p.height >= height);
        let ranked = able.map(|(peer, p)| (self.busy(*peer), p.failures, p.latency, *peer));
        let (busy, _, _, peer) = ranked.min()?;
        let claimed = self.peers.get(&peer)?.height;
        (busy < REQUESTS_PER_PEER).then_some((peer, claimed))
    }

    fn busy(&self, peer: Peer) -> usize {
        let own = self.in_flight().filter(|r| r.peer == peer);
        own.count()
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Request> {
        self.requests.values().filter(|request| !request.late)
    }

    pub(super) fn ask(&mut self, now: MonoUs, peer: Peer, from: u64, count: u64) {
        let Some(state) = self.peers.get(&peer) else {
            return;
        };
        let request = Request {
            peer,
            next: from,
            end: from + count,
            bytes: 0,
            sent: now,
            deadline: now.plus_ms(state.timeout_ms()),
            late: false,
        };
        if self.requests.len() >= REQUESTS_REMEMBERED_MAX {
            let late = self.requests.iter().find(|(_, r)| r.late);
            if let Some(key) = late.map(|(key, _)| *key) {
                self.requests.remove(&key);
            }
        }
        self.requests.insert(self.next_request, request);
        self.next_request += 1;
    }

    /// A block came. Whether this peer was asked for it as the next of an answer.
    pub(super) fn answered(&mut self, now: MonoUs, peer: Peer, height: u64, bytes: usize) -> bool {
        let mut found = self.requests.iter_mut();
        let found = found.find(|(_, r)| r.peer == peer && r.next == height);
        let (Some((key, request)), Some(state)) = (found, self.peers.get_mut(&peer)) else {
            return false;
        };
        if request.bytes == 0 {
            let took = now.since(request.sent).max(1);
            state.latency = if state.latency == 0 {
                took
            } else {
                (3 * state.latency + took) / 4
            };
        }
        state.failures = 0;
        request.next += 1;
        request.bytes += bytes;
        // Who drips its blocks one by one is late with the whole.
        let timeout = state.timeout_ms();
        request.deadline = now.plus_ms(timeout).min(request.sent.plus_ms(4 * timeout));
        if request.next >= request.end || request.bytes >= SYNC_ANSWER_BYTES {
            let key = *key;
            self.requests.remove(&key);
        }
        true
    }

    /// Requests whose time is over: their blocks may be asked for elsewhere, their peers rest.
    pub(super) fn expire(&mut self, now: MonoUs) {
        for request in self.requests.values_mut() {
            if request.late || request.deadline > now {
                continue;
            }
            request.late = true;
            if let Some(state) = self.peers.get_mut(&request.peer) {
                let rest = REST_MS
                    .saturating_mul(1 << state.failures.min(8))
                    .min(REST_MAX_MS);
                state.failures = state.failures.saturating_add(1);
                state.rests_until = state.rests_until.max(now.plus_ms(rest));
            }
        }
        // Of one peer only the last requests that were late are remembered.
        let mut late_of: BTreeMap<Peer, usize> = BTreeMap::new();
        for (_, request) in self.requests.iter().filter(|(_, r)| r.late) {
            *late_of.entry(request.peer).or_default() += 1;
        }
        self.requests.retain(|_, request| {
            let Some(count) = late_of.get_mut(&request.peer).filter(|_| request.late) else {
                return true;
            };
            *count -= 1;
            *count < REQUESTS_PER_PEER
        });
    }

    /// Requests for heights that are applied by now have lost their use.
    pub(super) fn applied(&mut self, height: u64) {
        self.requests.retain(|_, request| request.end > height + 1);
    }

    pub(super) fn forget_requests(&mut self) {
        self.requests.clear();
    }

    /// Peers whose position is too old, noted as asked.
    pub(super) fn stale(&mut self, now: MonoUs) -> Vec<Peer> {
        let mut out = Vec::new();
        for (peer, state) in &mut self.peers {
            if state.heard.plus_ms(POSITION_AGE_MAX_MS) <= now {
                state.heard = now;
                out.push(*peer);
            }
        }
        out
    }

    /// The next time at which something here changes by itself.
    pub(super) fn deadline(&self, now: MonoUs) -> Option<MonoUs> {
        let requests = self.in_flight().map(|request| request.deadline);
        let rests = self.peers.values().filter(|p| !p.faulty);
        let rests = rests.map(|p| p.rests_until).filter(|at| *at > now);
        let heard = self.peers.values();
        let heard = heard.map(|p| p.heard.plus_ms(POSITION_AGE_MAX_MS));
        requests.chain(rests).chain(heard).min()
    }
}
