//! Fetching a snapshot from peers of all kinds: with one honest peer it comes whole, and liars are named.

use super::fetch::*;
use super::testkit::now;
use super::*;
use crate::base::bounded::BoundedVec;
use crate::crypto::merkle::Mmr;
use crate::ledger::coins::{bucket_of, coin_element};
use crate::ledger::snapshot::{Contents, Rest, check_bucket};
use crate::ledger::testkit::{HOLDER, Net, genesis};
use crate::types::codec;
use std::collections::{BTreeMap, BTreeSet};

struct Source {
    contents: Contents,
    pieces: BTreeMap<u16, Vec<u8>>,
}

fn source() -> Source {
    let mut net = Net::new(genesis(&[1_000; 4], 40));
    for i in 0..30 {
        let pay = net.pay(HOLDER + i, HOLDER + i + 1, 1_000_000);
        net.block(vec![pay]);
    }
    let below: Mmr = net.state.tip.history.clone();
    let (block, _) = net.slot_block(vec![]);
    let mut pieces: BTreeMap<u16, Vec<u8>> = (0..REST).map(|i| (i, Vec::new())).collect();
    let mut counts = vec![0; usize::from(REST)];
    for (outpoint, coin) in &net.coins.0 {
        let bucket = u16::from(bucket_of(outpoint));
        let element = coin_element(outpoint, coin);
        pieces.get_mut(&bucket).unwrap().extend(element);
        counts[usize::from(bucket)] += 1;
    }
    let rest = codec::encode(&Rest::of(&net.state, &below).unwrap());
    let contents = Contents {
        header: block.header.clone(),
        leaves: BoundedVec::take_from(net.state.leaves()),
        counts: BoundedVec::take_from(counts),
        rest_bytes: rest.len() as u64,
    };
    pieces.insert(REST, rest);
    Source { contents, pieces }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    /// Sends coins with a bit changed.
    Liar,
    /// Claims other numbers of coins.
    Miscounts,
    /// Offers the snapshot and sends nothing.
    Silent,
    /// Has none.
    Empty,
}

struct Run {
    source: Source,
    fetch: Fetch,
    kinds: Vec<Kind>,
    at: u64,
    faults: BTreeSet<Peer>,
    asked: BTreeSet<Peer>,
    got: BTreeSet<u16>,
    ended: Option<bool>,
    /// How long an honest peer takes for a chunk, µs.
    delay_us: u64,
    /// Chunks under way, with the time at which they arrive.
    coming: Vec<(u64, FetchInput)>,
    /// Who was asked for a chunk, and when, µs.
    asks: Vec<(u64, Peer)>,
}

impl Run {
    fn new(kinds: &[Kind]) -> Run {
        Run {
            source: source(),
            fetch: Fetch::new(now(1)),
            kinds: kinds.to_vec(),
            at: 1,
            faults: BTreeSet::new(),
            asked: BTreeSet::new(),
            got: BTreeSet::new(),
            ended: None,
            delay_us: 0,
            coming: Vec::new(),
            asks: Vec::new(),
        }
    }

    fn input(&mut self, input: FetchInput, known: bool) {
        let header = &self.source.contents.header;
        let head = SlotHead {
            height: header.height,
            id: header.id(),
            time: header.time,
            next_hash: header.next_validators_hash,
            state_root: header.state_root,
        };
        let heads = |height| (known && height == head.height).then_some(head);
        self.fetch.handle(now(self.at), input, &heads);
    }

    /// Until it ends, or this many simulated seconds.
    fn run(&mut self, seconds: u64, known: bool) -> Option<bool> {
        for peer in 0..self.kinds.len() as u64 {
            self.input(FetchInput::Peer(peer), known);
        }
        let end = self.at + seconds * 1_000_000;
        while self.ended.is_none() && self.at < end {
            let Some(effect) = self.fetch.effect() else {
                self.at += 100_000;
                let due = |(at, _): &mut (u64, FetchInput)| *at <= self.at;
                let arrived: Vec<_> = self.coming.extract_if(.., due).collect();
                for (_, input) in arrived {
                    self.input(input, known);
                }
                self.input(FetchInput::Tick, known);
                continue;
            };
            self.perform(effect, known);
        }
        self.ended
    }

    fn perform(&mut self, effect: FetchEffect, known: bool) {
        match effect {
            FetchEffect::AskOffer(peer) => {
                let mut contents = self.source.contents.clone();
                let offer = match self.kinds[peer as usize] {
                    Kind::Empty => None,
                    Kind::Miscounts => {
                        contents.counts.as_mut_slice()[9] += 1;
                        Some(Box::new(contents))
                    }
                    _ => Some(Box::new(contents)),
                };
                self.input(FetchInput::Offer(peer, offer), known);
            }
            FetchEffect::AskChunk(peer, (height, piece, index)) => {
                assert!(!self.faults.contains(&peer), "a liar is not asked again");
                self.asked.insert(peer);
                self.asks.push((self.at, peer));
                let mut bytes = self.source.pieces[&piece].clone();
                match self.kinds[peer as usize] {
                    Kind::Silent | Kind::Empty => return,
                    Kind::Liar => bytes[0] ^= 1,
                    Kind::Miscounts if piece == 9 => bytes.resize(bytes.len() + 81, 7),
                    _ => {}
                }
                let chunk = FetchInput::Chunk(peer, (height, piece, index), bytes);
                match self.delay_us {
                    0 => self.input(chunk, known),
                    delay => self.coming.push((self.at + delay, chunk)),
                }
            }
            FetchEffect::Chosen(_) => {}
            FetchEffect::Check(piece, chunks) => {
                let contents = self.fetch.contents().unwrap();
                let good = match u8::try_from(piece) {
                    Ok(bucket) => {
                        let leaf = contents.leaf(usize::from(bucket));
                        check_bucket(bucket, chunks.iter().map(Vec::as_slice), leaf).is_ok()
                    }
                    Err(_) => Rest::read(&chunks.concat(), contents).is_ok(),
                };
                if good {
                    self.got.insert(piece);
                }
                self.input(FetchInput::Verdict(piece, good), known);
            }
            FetchEffect::Fault(peer, _) => drop(self.faults.insert(peer)),
            FetchEffect::Done => self.ended = Some(true),
            FetchEffect::GaveUp => self.ended = Some(false),
        }
    }
}

#[test]
fn one_honest_peer_is_enough_and_liars_are_named() {
    use Kind::*;
    for kinds in [
        vec![Honest],
        vec![Liar, Honest, Silent, Empty],
        vec![Miscounts, Honest],
        vec![Silent, Silent, Honest],
        vec![Honest, Honest, Honest],
    ] {
        let mut run = Run::new(&kinds);
        assert_eq!(run.run(600, true), Some(true), "{kinds:?}");
        assert_eq!(
            run.got.len(),
            usize::from(REST) + 1,
            "F4: every piece is checked"
        );
        for (peer, kind) in (0..).zip(&kinds) {
            assert!(
                matches!(kind, Liar | Miscounts) || !run.faults.contains(&peer),
                "P3: {kind:?} broke no rule"
            );
        }
        let liar = kinds.iter().position(|kind| *kind == Liar);
        if let Some(liar) = liar.filter(|liar| run.asked.contains(&(*liar as u64))) {
            assert!(
                run.faults.contains(&(liar as u64)),
                "wrong data costs its sender"
            );
        }
    }
}

#[test]
fn several_peers_are_asked_at_once() {
    let mut run = Run::new(&[Kind::Honest; 4]);
    run.run(600, true);
    assert!(run.asked.len() >= 3, "{:?}", run.asked);
}

#[test]
fn a_header_that_nobody_certified_is_not_followed() {
    let mut run = Run::new(&[Kind::Honest]);
    assert_eq!(
        run.run(600, false),
        Some(false),
        "blocks are fetched instead"
    );
    assert!(run.asked.is_empty());
}

#[test]
fn what_is_there_from_before_is_not_asked_for() {
    let mut run = Run::new(&[Kind::Honest]);
    run.input(FetchInput::Peer(0), true);
    while let Some(effect) = run.fetch.effect() {
        if let FetchEffect::Chosen(_) = effect {
            run.fetch.keep(0..=REST);
        }
        run.perform(effect, true);
    }
    assert_eq!(run.run(60, true), Some(true));
    assert!(run.asked.is_empty());
}

#[test]
fn who_let_pieces_wait_is_asked_last() {
    // Four others have room for all that is under way at a time, and each piece takes them 3 s.
    let mut run = Run::new(&[
        Kind::Silent,
        Kind::Honest,
        Kind::Honest,
        Kind::Honest,
        Kind::Honest,
    ]);
    run.delay_us = 3_000_000;
    assert_eq!(run.run(600, true), Some(true));
    let of_late = run.asks.iter().filter(|(_, peer)| *peer == 0);
    let of_late: Vec<u64> = of_late.map(|(at, _)| *at).collect();
    assert!(!of_late.is_empty(), "it was asked before it was late");
    let rested = 10_200_000;
    assert!(
        run.asks.iter().any(|(at, _)| *at > rested),
        "pieces were wanted after its rest"
    );
    assert!(
        of_late.iter().all(|at| *at < rested),
        "F1: a piece that it is given waits again: {of_late:?}"
    );
}
