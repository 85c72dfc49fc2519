//! Finding the network (P4): peer exchange, outbound slots of the book, feelers, seeds, anchors.
//!
//! Inputs: what peers tell and what dials find. Outputs: targets to dial. Must never have two slots in one network group, as
//! who owns many addresses of few networks must not get all slots, and must never tell of an address that is its peer's secret:
//! only endpoints that nodes name themselves, and addresses that answered, are passed on.

use super::{Effect, Machine, Peer};
use crate::base::bounded::BoundedVec;
use crate::base::time::{MonoUs, Now};
use crate::p2p::address::{Group, is_dialable, is_public};
use crate::p2p::book::{ANCHOR_COUNT_MAX, Book, socket_of};
use crate::p2p::messages::*;
use core::net::SocketAddr;

/// Slots are looked at this often while one is free, ms; less and less often while nothing is found.
const SEARCH_MS: u64 = 500;
/// Longest wait between two looks, ms.
const SEARCH_CAP_MS: u64 = 600_000;
/// Time between two feelers, ms: short connections that show which new addresses are real.
const FEELER_MS: u64 = 120_000;
/// With fewer addresses than these, or no peer at all, seeds are asked.
const BOOK_ENOUGH: usize = 8;
/// With so many connected slots no seed is needed.
const SLOTS_ENOUGH: usize = 4;
/// A seed is asked again after this time, ms.
const SEED_MS: u64 = 30_000;
/// News of at most so many addresses is passed on.
const NEWS_COUNT_MAX: usize = 10;
/// Peers that news is passed on to.
const NEWS_PEERS: usize = 2;
/// Addresses that a peer may tell unasked at once; one more every 10 s.
const UNASKED_COUNT_MAX: u64 = 10;
/// Time for one more, ms.
const UNASKED_MS: u64 = 10_000;

/// Why an address of nobody in particular is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// For an outbound slot.
    Slot,
    /// To see whether somebody is there.
    Feeler,
    /// To ask for addresses.
    Seed,
}

/// How the search stands.
pub(super) struct Seeker {
    pub book: Book,
    next: MonoUs,
    wait_ms: u64,
    feeler: MonoUs,
    seeds: MonoUs,
}

/// What a peer may tell of addresses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Exchange {
    /// It has been answered.
    answered: bool,
    /// Addresses it may still tell.
    credit: u64,
    /// When that was counted.
    at: MonoUs,
}

fn source_of(peer: &Peer) -> Group {
    let remote = peer.link.remote.map(|remote| Group::of(remote.ip()));
    remote.unwrap_or(Group::V4([0; 3]))
}

impl Seeker {
    pub fn new(book: Book) -> Seeker {
        Seeker {
            book,
            next: MonoUs(0),
            wait_ms: SEARCH_MS,
            feeler: MonoUs(FEELER_MS * 1_000),
            seeds: MonoUs(0),
        }
    }
}

impl Machine {
    /// The address book.
    pub fn book(&self) -> &Book {
        &self.seeker.book
    }

    /// Whom to dial first after a restart: slots that are connected now.
    pub fn anchors(&self) -> Vec<SocketAddr> {
        let slots = self.targets.iter().filter(|t| t.linked);
        let slots = slots.filter(|t| t.search == Some(Search::Slot));
        let all = slots.filter_map(|t| t.address.parse().ok());
        all.take(ANCHOR_COUNT_MAX).collect()
    }

    /// Anchors of the run before take the first slots.
    pub(super) fn dial_anchors(&mut self) {
        let anchors = std::mem::take(&mut self.config.anchors);
        for address in anchors.into_iter().take(self.config.outbound_max) {
            self.search_at(address.to_string(), Search::Slot);
        }
    }

    fn search_at(&mut self, address: String, search: Search) {
        if let Some(target) = self.target_at(address) {
            target.search = Some(search);
        }
    }

    /// Slots that are taken: those of the book, and registered endpoints that a node outside the set is connected to.
    fn slots_taken(&self) -> usize {
        let observer = self.me.is_none();
        let slot = |t: &&super::Target| {
            t.search == Some(Search::Slot) || observer && t.member.is_some() && t.linked
        };
        self.targets.iter().filter(slot).count()
    }

    /// When [`Machine::search`] wants to look.
    pub(super) fn search_due(&self) -> Option<MonoUs> {
        let known = !self.seeker.book.is_empty() || !self.config.seeds.is_empty();
        let free = known && self.slots_taken() < self.config.outbound_max;
        let slot = free.then_some(self.seeker.next);
        let feeler = (!self.seeker.book.is_empty()).then_some(self.seeker.feeler);
        slot.into_iter().chain(feeler).min()
    }

    /// Fills slots, sends feelers, asks seeds.
    pub(super) fn search(&mut self, now: Now) {
        if self.config.outbound_max == 0 {
            return;
        }
        if now.mono >= self.seeker.feeler {
            self.seeker.feeler = now.mono.plus_ms(FEELER_MS);
            if let Some(address) = self.candidate(now, true) {
                self.search_at(address.to_string(), Search::Feeler);
            }
        }
        self.leave_seeds(now);
        if now.mono < self.seeker.next || self.slots_taken() >= self.config.outbound_max {
            return;
        }
        self.ask_seeds(now);
        let found = self.candidate(now, false);
        self.seeker.wait_ms = match found {
            Some(_) => SEARCH_MS,
            None => (self.seeker.wait_ms * 2).min(SEARCH_CAP_MS),
        };
        let jitter = self.rng.below(SEARCH_MS);
        self.seeker.next = now.mono.plus_ms(self.seeker.wait_ms + jitter);
        if let Some(address) = found {
            self.search_at(address.to_string(), Search::Slot);
        }
    }

    /// Seeds are for finding others: once slots are connected, they are left to whoever needs them.
    fn leave_seeds(&mut self, now: Now) {
        let connected = |search| {
            let of = move |t: &&super::Target| t.linked && t.search == Some(search);
            self.targets.iter().filter(of)
        };
        if connected(Search::Seed).next().is_none()
            || connected(Search::Slot).count() < SLOTS_ENOUGH
        {
            return;
        }
        let seed = |p: &Peer| {
            let target = p.link.target.and_then(|t| self.targets.get(t));
            target.is_some_and(|t| t.search == Some(Search::Seed))
        };
        let gone = self.peers.iter().filter(|(_, p)| seed(p));
        let gone: Vec<PeerId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.close(id, "the seed has helped", false);
            self.closed(now, id);
        }
    }

    fn ask_seeds(&mut self, now: Now) {
        let alone = !self.peers.values().any(|p| p.greeted.is_some());
        let poor = self.seeker.book.len() < BOOK_ENOUGH;
        if !(alone || poor) || now.mono < self.seeker.seeds {
            return;
        }
        self.seeker.seeds = now.mono.plus_ms(SEED_MS);
        for seed in self.config.seeds.clone() {
            self.search_at(seed, Search::Seed);
        }
    }

    /// An address that may be dialled now. For a slot: of a network group in which no other slot is.
    fn candidate(&mut self, now: Now, feeler: bool) -> Option<SocketAddr> {
        let taken = self
            .targets
            .iter()
            .filter(|t| t.search == Some(Search::Slot));
        let groups: Vec<Group> = taken
            .filter_map(|t| t.address.parse::<SocketAddr>().ok())
            .map(|address| Group::of(address.ip()))
            .collect();
        let known: Vec<&str> = self.targets.iter().map(|t| t.address.as_str()).collect();
        let linked = |a: &SocketAddr| self.peers.values().any(|p| p.link.remote == Some(*a));
        let fits = |address: SocketAddr| {
            let ip = address.ip().to_canonical();
            let apart = feeler || self.exempt.contains(&ip) || !groups.contains(&Group::of(ip));
            let banned = self.reputation.ban_of(now.wall, ip).is_some();
            let name = address.to_string();
            apart && !banned && !linked(&address) && !known.contains(&name.as_str())
        };
        self.seeker.book.choose(&mut self.rng, feeler, fits)
    }

    /// A dial for the book found nobody.
    pub(super) fn search_failed(&mut self, target: usize) {
        let Some(target) = self.targets.get_mut(target) else {
            return;
        };
        if target.search.take().is_some()
            && let Ok(address) = target.address.parse()
        {
            self.seeker.book.failed(address);
        }
    }

    fn may_be_told(&self, address: SocketAddr) -> bool {
        let own = self.config.endpoint.as_ref();
        let own = own.is_some_and(|e| e[..] == *address.to_string().as_bytes());
        let near = self.config.allow_private || is_public(address.ip());
        is_dialable(address) && near && !own
    }

    /// A peer has greeted: the address at which it was dialled is good; true if that was all that was wanted.
    pub(super) fn found(&mut self, now: Now, id: PeerId) -> bool {
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        let source = source_of(peer);
        let target = peer.link.target.and_then(|t| self.targets.get(t));
        let Some(target) = target else {
            return false;
        };
        let search = target.search;
        if let Ok(address) = target.address.parse::<SocketAddr>() {
            if self.may_be_told(address) {
                let (book, rng) = (&mut self.seeker.book, &mut self.rng);
                book.add(now.wall, address, source, rng);
            }
            self.seeker.book.good(now.wall, address);
        }
        search == Some(Search::Feeler)
    }

    /// A peer is there: who was dialled is asked for addresses, who dialled may have named its own.
    pub(super) fn exchange(&mut self, now: Now, id: PeerId, endpoint: Option<&str>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.exchange.at = now.mono;
        peer.exchange.credit = UNASKED_COUNT_MAX;
        if peer.link.target.is_some() {
            if self.config.outbound_max > 0 {
                peer.exchange.credit += crate::base::limits::PEERS_PER_FRAME as u64;
                self.out.push(Effect::Send(id, Message::GetPeers(())));
            }
            return;
        }
        let source = source_of(peer);
        let named = endpoint.and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(address) = named.filter(|a| self.may_be_told(*a)) {
            let (book, rng) = (&mut self.seeker.book, &mut self.rng);
            if book.add(now.wall, address, source, rng) {
                self.wake_search(now);
                self.pass_on(id, &[address]);
            }
        }
    }

    fn wake_search(&mut self, now: Now) {
        self.seeker.wait_ms = SEARCH_MS;
        self.seeker.next = self.seeker.next.min(now.mono.plus_ms(SEARCH_MS));
    }

    /// A peer asks: answered once, and only if it dialled, so that nobody reads the book page by page.
    pub(super) fn get_peers(&mut self, now: Now, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.link.target.is_some() || std::mem::replace(&mut peer.exchange.answered, true) {
            return;
        }
        let told = self.seeker.book.tell(now.wall, &mut self.rng);
        let told = Message::Peers(BoundedVec::take_from(told));
        self.out.push(Effect::Send(id, told));
    }

    /// A peer tells addresses; those beyond what it may tell are not read.
    pub(super) fn told_peers(&mut self, now: Now, id: PeerId, told: &PeerList) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let exchange = &mut peer.exchange;
        let earned = now.mono.since(exchange.at) / (UNASKED_MS * 1_000);
        if earned > 0 {
            exchange.at = now.mono;
            exchange.credit = exchange
                .credit
                .max((exchange.credit + earned).min(UNASKED_COUNT_MAX));
        }
        let count = told.len().min(exchange.credit as usize);
        exchange.credit -= count as u64;
        let source = source_of(peer);
        let mut news = Vec::new();
        for address in told.iter().take(count).copied().map(socket_of) {
            let fine = self.may_be_told(address);
            let (book, rng) = (&mut self.seeker.book, &mut self.rng);
            if fine && book.add(now.wall, address, source, rng) {
                news.push(address);
            }
        }
        if !news.is_empty() {
            self.wake_search(now);
        }
        if told.len() <= NEWS_COUNT_MAX {
            self.pass_on(id, &news);
        }
    }

    /// News of an address goes to two other peers, so that it spreads without a flood.
    fn pass_on(&mut self, from: PeerId, news: &[SocketAddr]) {
        let others = self
            .peers
            .iter()
            .filter(|(id, p)| **id != from && p.greeted.is_some());
        let mut others: Vec<PeerId> = others.map(|(id, _)| *id).collect();
        for _ in 0..NEWS_PEERS {
            if others.is_empty() || news.is_empty() {
                return;
            }
            let chosen = others.swap_remove(self.rng.below(others.len() as u64) as usize);
            let list = news.iter().map(|address| PeerAddress {
                ip: crate::p2p::address::bytes_of(address.ip()),
                port: address.port(),
            });
            let list = BoundedVec::take_from(list);
            self.out.push(Effect::Send(chosen, Message::Peers(list)));
        }
    }
}
