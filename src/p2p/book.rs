//! The address book (P4): addresses heard of (*new*) and addresses that answered (*tried*), in buckets chosen by a secret, so
//! that one peer or one network group can fill a few buckets and never the book.
//!
//! An address from a source goes into one of the 4 new buckets (of 256, 64 places each) that the source's network group has;
//! an address that answered into one of the 4 tried buckets (of 64) of its own group. A choice draws a bucket first, then an
//! address in it. Inputs: addresses with their sources, what dials found, time, randomness. Outputs: addresses to dial and to
//! tell. Must never forget an address that answered for one that is only claimed.

use crate::base::bounded::BoundedVec;
use crate::base::limits::{PEERS_PER_FRAME, Size};
use crate::base::rng::Rng;
use crate::base::time::WallMs;
use crate::crypto::hash::Domain;
use crate::p2p::address::{Group, bytes_of, ip_of};
use crate::p2p::messages::PeerAddress;
use crate::types::codec::{self, DecodeError};
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

/// Buckets of addresses heard of.
pub const NEW_BUCKET_COUNT: u64 = 256;
/// Buckets of addresses that answered.
pub const TRIED_BUCKET_COUNT: u64 = 64;
/// Places of one bucket.
pub const BUCKET_SIZE: u64 = 64;
/// Buckets that one network group can reach, in either table.
pub const BUCKETS_PER_GROUP: u64 = 4;
/// Addresses in the whole book.
pub const BOOK_COUNT_MAX: usize = ((NEW_BUCKET_COUNT + TRIED_BUCKET_COUNT) * BUCKET_SIZE) as usize;
/// Addresses that are dialled first after a restart.
pub const ANCHOR_COUNT_MAX: usize = 8;
/// An address that nobody has heard of for so long gives its place to another.
const STALE_MS: u64 = 30 * 24 * 3_600_000;
/// Dials in a row without an answer after which an address gives its place to another.
const FAILURES_MAX: u32 = 3;
/// An address that answered within this time keeps its place among the tried ones.
const FRESH_MS: u64 = 4 * 3_600_000;
/// Least number of addresses that are told if there are so many; else a quarter of the book.
const TOLD_MIN: usize = 50;
/// Draws before a choice is given up.
const DRAW_COUNT: usize = 100;
/// A saved book, bytes.
pub const SAVED_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tried: bool,
    bucket: u64,
    slot: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    place: Place,
    /// Network group of who told it, as bytes.
    source: Vec<u8>,
    seen: WallMs,
    answered: Option<WallMs>,
    failures: u32,
}

impl Entry {
    fn is_stale(&self, now: WallMs) -> bool {
        now.since(self.seen) > STALE_MS || self.failures >= FAILURES_MAX
    }
}

/// One address on disk.
#[derive(Serialize, Deserialize)]
struct Saved {
    address: PeerAddress,
    source: BoundedVec<u8, 32>,
    seen: WallMs,
    answered: Option<WallMs>,
}

/// A book on disk.
#[derive(Serialize, Deserialize)]
struct SavedBook {
    version: u16,
    secret: [u8; 32],
    entries: BoundedVec<Saved, BOOK_COUNT_MAX>,
    anchors: BoundedVec<PeerAddress, ANCHOR_COUNT_MAX>,
}

const SAVED_VERSION: u16 = 1;

/// The book.
#[derive(Debug)]
pub struct Book {
    secret: [u8; 32],
    entries: BTreeMap<SocketAddr, Entry>,
    places: BTreeMap<Place, SocketAddr>,
    changes: u64,
}

fn wire(address: SocketAddr) -> PeerAddress {
    PeerAddress {
        ip: bytes_of(address.ip()),
        port: address.port(),
    }
}

/// The address of a frame.
pub fn socket_of(address: PeerAddress) -> SocketAddr {
    SocketAddr::new(ip_of(address.ip), address.port)
}

impl Book {
    /// An empty book. Who does not know the secret cannot aim at buckets.
    pub fn new(secret: [u8; 32]) -> Book {
        Book {
            secret,
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            changes: 0,
        }
    }

    /// A book of [`Book::save`], with its anchors.
    pub fn load(bytes: &[u8], rng: &mut Rng) -> Result<(Book, Vec<SocketAddr>), DecodeError> {
        let saved: SavedBook = codec::decode(bytes, SAVED_BYTES_MAX)?;
        let mut book = Book::new(saved.secret);
        let known = saved.version == SAVED_VERSION;
        for saved in saved.entries.into_iter().filter(|_| known) {
            let address = socket_of(saved.address);
            let source: Vec<u8> = saved.source.iter().copied().collect();
            book.insert(address, source, saved.seen, rng);
            if let Some(at) = saved.answered {
                book.good(at, address);
            }
        }
        let anchors = saved.anchors.iter().copied().map(socket_of).collect();
        Ok((book, anchors))
    }

    /// The book as bytes, with the addresses to dial first after a restart.
    pub fn save(&self, anchors: &[SocketAddr]) -> Vec<u8> {
        let saved = |(address, entry): (&SocketAddr, &Entry)| Saved {
            address: wire(*address),
            source: BoundedVec::take_from(entry.source.iter().copied()),
            seen: entry.seen,
            answered: entry.answered,
        };
        codec::encode(&SavedBook {
            version: SAVED_VERSION,
            secret: self.secret,
            entries: BoundedVec::take_from(self.entries.iter().map(saved)),
            anchors: BoundedVec::take_from(anchors.iter().copied().map(wire)),
        })
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        vec![
            Size::new("address book", self.entries.len(), BOOK_COUNT_MAX),
            Size::new(
                "places of the address book",
                self.places.len(),
                BOOK_COUNT_MAX,
            ),
        ]
    }

    /// How many addresses it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Grows with every change that is worth saving.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn draw(&self, tag: u8, of: &[u8], below: u64) -> u64 {
        let hash = codec::hash_of(Domain::AddressBook, &(self.secret, tag, of));
        let mut word = [0; 8];
        word.copy_from_slice(&hash.0[..8]);
        u64::from_le_bytes(word) % below
    }

    fn place(&self, tried: bool, address: SocketAddr, source: &[u8]) -> Place {
        let own = wire(address);
        let name = [&own.ip[..], &own.port.to_le_bytes()].concat();
        let group = Group::of(address.ip()).bytes();
        let (of, spread, count) = match tried {
            true => (group.as_slice(), name.as_slice(), TRIED_BUCKET_COUNT),
            false => (source, group.as_slice(), NEW_BUCKET_COUNT),
        };
        let which = self.draw(1, spread, BUCKETS_PER_GROUP);
        let tag = if tried { 2 } else { 3 };
        let bucket = self.draw(tag, &[of, &[which as u8]].concat(), count);
        let slot = self.draw(4, &[&bucket.to_le_bytes()[..], &name].concat(), BUCKET_SIZE);
        Place {
            tried,
            bucket,
            slot,
        }
    }

    /// An address was heard of from somebody in the network group of `source`; true if it is news.
    pub fn add(&mut self, now: WallMs, address: SocketAddr, source: Group, rng: &mut Rng) -> bool {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.seen = entry.seen.max(now);
            return false;
        }
        self.insert(address, source.bytes(), now, rng)
    }

    fn insert(
        &mut self,
        address: SocketAddr,
        source: Vec<u8>,
        seen: WallMs,
        rng: &mut Rng,
    ) -> bool {
        let place = self.place(false, address, &source);
        if let Some(there) = self.places.get(&place).copied() {
            let stale = self.entries.get(&there).is_none_or(|e| e.is_stale(seen));
            // Rarely anybody makes room, so that a bucket filled once does not stay as it is for ever.
            if !stale && !rng.chance(1, 16) {
                return false;
            }
            self.entries.remove(&there);
        }
        self.places.insert(place, address);
        let entry = Entry {
            place,
            source,
            seen,
            answered: None,
            failures: 0,
        };
        self.entries.insert(address, entry);
        self.changes += 1;
        true
    }

    /// A node of this network answered at the address: it is tried now, unless one that answered lately has its place.
    pub fn good(&mut self, now: WallMs, address: SocketAddr) {
        let Some(entry) = self.entries.get(&address) else {
            return;
        };
        let (old, source) = (entry.place, entry.source.clone());
        let place = self.place(true, address, &source);
        let mut moved = old;
        if old != place {
            let there = self.places.get(&place).copied();
            let kept = there.and_then(|there| self.entries.get(&there)?.answered);
            if kept.is_none_or(|at| now.since(at) > FRESH_MS) {
                self.places.remove(&old);
                if let Some(there) = there {
                    self.send_back(there);
                }
                self.places.insert(place, address);
                moved = place;
            }
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.place = moved;
            entry.answered = Some(now);
            entry.seen = entry.seen.max(now);
            entry.failures = 0;
        }
        self.changes += 1;
    }

    /// A tried address goes back among the new ones, or leaves if its place there is taken.
    fn send_back(&mut self, address: SocketAddr) {
        let Some(mut entry) = self.entries.remove(&address) else {
            return;
        };
        self.places.remove(&entry.place);
        entry.place = self.place(false, address, &entry.source);
        if let MapEntry::Vacant(place) = self.places.entry(entry.place) {
            place.insert(address);
            self.entries.insert(address, entry);
        }
    }

    /// A dial found nobody.
    pub fn failed(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// An address to dial that `fits`, tried ones and new ones alike, or new ones only; `None` if none was found.
    pub fn choose(
        &self,
        rng: &mut Rng,
        only_new: bool,
        fits: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let mut tables: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
        for place in self.places.keys() {
            let buckets = &mut tables[usize::from(place.tried)];
            if buckets.last() != Some(&place.bucket) {
                buckets.push(place.bucket);
            }
        }
        for _ in 0..DRAW_COUNT {
            let tried = !only_new && rng.chance(1, 2);
            let buckets = &tables[usize::from(tried)];
            let Some(bucket) = buckets.get(rng.below(buckets.len() as u64) as usize) else {
                continue;
            };
            let place = |slot| Place {
                tried,
                bucket: *bucket,
                slot,
            };
            let held: Vec<SocketAddr> = self
                .places
                .range(place(0)..=place(BUCKET_SIZE))
                .map(|(_, address)| *address)
                .collect();
            let chosen = held.get(rng.below(held.len() as u64) as usize).copied();
            let failures = |a: &SocketAddr| self.entries.get(a).map_or(0, |e| e.failures);
            // Who did not answer is asked more rarely, never never.
            let patient = |a: &SocketAddr| rng.chance(1, 1 << failures(a).min(6));
            if let Some(address) = chosen.filter(patient).filter(|a| fits(*a)) {
                return Some(address);
            }
        }
        None
    }

    /// What a peer is told that asks: a quarter of the book at random, at most a frame of it.
    pub fn tell(&self, now: WallMs, rng: &mut Rng) -> Vec<PeerAddress> {
        let good = self.entries.iter().filter(|(_, e)| !e.is_stale(now));
        let mut all: Vec<SocketAddr> = good.map(|(address, _)| *address).collect();
        let count = (all.len() / 4).clamp(TOLD_MIN, PEERS_PER_FRAME);
        for i in 0..count.min(all.len()) {
            let other = i + rng.below((all.len() - i) as u64) as usize;
            all.swap(i, other);
        }
        all.truncate(count);
        all.into_iter().map(wire).collect()
    }

    /// Addresses that have answered.
    pub fn tried(&self) -> usize {
        self.places.keys().filter(|place| place.tried).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(a: u8, b: u8, c: u8, d: u8) -> SocketAddr {
        SocketAddr::from(([a, b, c, d], 24_100))
    }

    fn group(a: u8, b: u8, c: u8) -> Group {
        Group::V4([a, b, c])
    }

    #[test]
    fn one_source_group_fills_its_buckets_and_no_more() {
        let (mut book, mut rng) = (Book::new([7; 32]), Rng::new(1));
        for i in 0..20_000u32 {
            let [_, b, c, d] = i.to_be_bytes();
            book.add(WallMs(1), address(11, b, c, d), group(9, 9, 9), &mut rng);
        }
        let buckets: std::collections::BTreeSet<u64> =
            book.places.keys().map(|place| place.bucket).collect();
        assert!(buckets.len() as u64 <= BUCKETS_PER_GROUP, "P4: {buckets:?}");
        assert!(book.len() as u64 <= BUCKETS_PER_GROUP * BUCKET_SIZE, "P4");
        let others = Book::new([8; 32]).place(false, address(1, 2, 3, 4), &[1]);
        assert_ne!(
            others,
            book.place(false, address(1, 2, 3, 4), &[1]),
            "a secret decides"
        );
    }

    #[test]
    fn what_answered_is_not_displaced_by_claims() {
        let (mut book, mut rng) = (Book::new([7; 32]), Rng::new(1));
        let honest: Vec<SocketAddr> = (0..40).map(|i| address(20, i, 0, 1)).collect();
        for a in &honest {
            book.add(WallMs(1), *a, group(20, 0, 0), &mut rng);
            book.good(WallMs(2), *a);
        }
        let tried = book.tried();
        assert!(tried >= 30, "{tried}");
        for i in 0..100_000u32 {
            let [a, b, c, d] = i.to_be_bytes();
            book.add(
                WallMs(3),
                address(30 + a, b, c, d),
                group(b, c, 1),
                &mut rng,
            );
        }
        assert_eq!(book.tried(), tried, "claims take no place of what answered");
        assert!(book.len() <= BOOK_COUNT_MAX, "bounded");
        let told = book.tell(WallMs(4), &mut rng);
        assert_eq!(told.len(), PEERS_PER_FRAME);
    }

    #[test]
    fn a_book_reads_as_it_was_saved() {
        let (mut book, mut rng) = (Book::new([7; 32]), Rng::new(1));
        for i in 0..100 {
            let v6 = SocketAddr::new(format!("2001:{i}::1").parse().unwrap(), 5);
            book.add(WallMs(5), address(20, i, 0, 1), group(i, 0, 0), &mut rng);
            book.add(WallMs(5), v6, group(i, 0, 0), &mut rng);
        }
        book.good(WallMs(6), address(20, 3, 0, 1));
        let bytes = book.save(&[address(20, 3, 0, 1)]);
        assert!(bytes.len() < SAVED_BYTES_MAX);
        let (again, anchors) = Book::load(&bytes, &mut rng).unwrap();
        assert_eq!(anchors, [address(20, 3, 0, 1)], "anchors survive a restart");
        assert_eq!(again.places, book.places);
        assert!(Book::load(&bytes[1..], &mut rng).is_err());
    }

    #[test]
    fn dead_addresses_are_chosen_rarely_and_give_way() {
        let (mut book, mut rng) = (Book::new([7; 32]), Rng::new(1));
        let (dead, live) = (address(1, 1, 1, 1), address(2, 2, 2, 2));
        book.add(WallMs(1), dead, group(1, 1, 1), &mut rng);
        book.add(WallMs(1), live, group(2, 2, 2), &mut rng);
        (0..6).for_each(|_| book.failed(dead));
        let chosen = (0..1_000).filter(|_| book.choose(&mut rng, true, |_| true) == Some(dead));
        assert!(chosen.count() < 100);
        let mut told = book.tell(WallMs(2), &mut rng);
        assert_eq!(told.pop(), Some(wire(live)));
        assert!(told.is_empty(), "the dead are not told of");
    }
}
