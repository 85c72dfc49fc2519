//! What is known of each peer: where it stands, how it answers, what it was asked for.

use super::*;
use crate::base::limits::Size;
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
    /// Lowest height that it keeps, as far as it said.
    pub(super) first: u64,
    heard: MonoUs,
    /// Smoothed time to the first block of an answer, microseconds; 0: not known.
    latency: u64,
    failures: u32,
    /// What is held against it (P3): 0, or below.
    score: i64,
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
    fn is_late(&mut self, now: MonoUs) {
        let rest = REST_MS
            .saturating_mul(1 << self.failures.min(8))
            .min(REST_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = self.rests_until.max(now.plus_ms(rest));
    }
    /// Whom to trouble first (F1): nobody who gave wrong data or let a question wait while others are there.
    fn rank(&self) -> (bool, i64) {
        (self.failures > 0, -self.score)
    }
    fn timeout_ms(&self) -> u64 {
        let usual = (4 * self.latency / 1_000).clamp(ANSWER_TIMEOUT_MS, 4 * ANSWER_TIMEOUT_MS);
        usual
            .saturating_mul(1 << self.failures.min(8))
            .min(ANSWER_TIMEOUT_MAX_MS)
    }
}

impl Peers {
    /// How full its containers are.
    pub(super) fn sizes(&self) -> Vec<Size> {
        let requests = REQUESTS_REMEMBERED_MAX + SYNC_RANGE_COUNT;
        vec![
            Size::new("peers to sync from", self.peers.len(), PEER_COUNT_MAX),
            Size::new("ranges asked for", self.requests.len(), requests),
        ]
    }

    pub(super) fn position(&mut self, now: MonoUs, peer: Peer, height: Height, score: i64) {
        if let Some(state) = self.peers.get_mut(&peer) {
            (state.height, state.score) = (height.0, score);
            state.heard = now;
        } else if self.peers.len() < PEER_COUNT_MAX {
            let state = PeerState {
                height: height.0,
                first: 0,
                heard: now,
                latency: 0,
                failures: 0,
                score,
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

    /// It does not keep blocks below `first` (F6); one that says nonsense rests.
    pub(super) fn pruned(&mut self, now: MonoUs, peer: Peer, height: u64, first: u64) {
        match self.peers.get_mut(&peer).filter(|_| first > height) {
            Some(state) => {
                state.first = first;
                self.requests
                    .retain(|_, r| r.peer != peer || r.next >= first);
            }
            None => self.rest(now, peer, REST_MAX_MS),
        }
    }

    /// Whether somebody ahead of `height` is usable, and none of those keeps it.
    pub(super) fn is_pruned(&self, now: MonoUs, height: u64) -> bool {
        let usable = self.peers.values().filter(|p| p.usable(now));
        let mut ahead = usable.filter(|p| p.height >= height).peekable();
        ahead.peek().is_some() && ahead.all(|p| p.first > height)
    }

    /// Whom to ask for slot headers: the most reliable, the quickest.
    pub(super) fn for_headers(&self, now: MonoUs, above: u64) -> Option<Peer> {
        let usable = self.peers.iter().filter(|(_, p)| p.usable(now));
        let ahead = usable.filter(|(_, p)| p.height > above);
        let ranked = ahead.map(|(peer, p)| (p.rank(), p.failures, p.latency, *peer));
        ranked.min().map(|(.., peer)| peer)
    }

    /// How long an answer to a small question may take, ms.
    pub(super) fn timeout_ms(&self, peer: Peer) -> u64 {
        self.peers
            .get(&peer)
            .map_or(ANSWER_TIMEOUT_MS, PeerState::timeout_ms)
    }

    /// It did not answer in time: it rests, longer each time.
    pub(super) fn late(&mut self, now: MonoUs, peer: Peer) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.is_late(now);
        }
    }

    /// Peers that have requests.
    pub(super) fn asked(&self) -> usize {
        let peers: std::collections::BTreeSet<Peer> = self.in_flight().map(|r| r.peer).collect();
        peers.len()
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

    /// Whom to ask for `height`: who has it and room; those last who were late or gave wrong data, and of the others the
    /// least busy first, then the quickest.
    pub(super) fn choose(&self, now: MonoUs, height: u64) -> Option<(Peer, u64)> {
        let able = self
            .peers
            .iter()
            .filter(|(_, p)| p.usable(now) && p.height >= height && p.first <= height);
        let free = able.map(|(peer, p)| (self.busy(*peer), peer, p));
        let free = free.filter(|(busy, ..)| *busy < REQUESTS_PER_PEER);
        let ranked = free.map(|(busy, peer, p)| (p.rank(), busy, p.failures, p.latency, *peer));
        let (.., peer) = ranked.min()?;
        Some((peer, self.peers.get(&peer)?.height))
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

    /// A block came. `Some` if this peer was asked for it as the next of an answer; whether it was the last of it.
    pub(super) fn answered(
        &mut self,
        now: MonoUs,
        peer: Peer,
        height: u64,
        bytes: usize,
    ) -> Option<bool> {
        let mut found = self.requests.iter_mut();
        let found = found.find(|(_, r)| r.peer == peer && r.next == height);
        let (Some((key, request)), Some(state)) = (found, self.peers.get_mut(&peer)) else {
            return None;
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
        let done = request.next >= request.end || request.bytes >= SYNC_ANSWER_BYTES;
        if done {
            let key = *key;
            self.requests.remove(&key);
        }
        Some(done)
    }

    /// Requests whose time is over: their blocks may be asked for elsewhere, their peers rest. Whether there were any.
    pub(super) fn expire(&mut self, now: MonoUs) -> bool {
        let mut expired = false;
        for request in self.requests.values_mut() {
            if request.late || request.deadline > now {
                continue;
            }
            request.late = true;
            expired = true;
            if let Some(state) = self.peers.get_mut(&request.peer) {
                state.is_late(now);
            }
        }
        if !expired {
            return false;
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
        true
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
