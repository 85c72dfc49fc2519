//! A certified chain, peers with their habits, and a node that catches up, in simulated time.

use super::*;
use crate::base::rng::Rng;
use crate::base::time::{Now, WallMs};
use crate::crypto::keys::{SecretKey, Signature};
use crate::types::bitmap::Bitmap;
use crate::types::block::{Commit, HEADER_VERSION, Header, slot_root};
use crate::types::ids::*;
use crate::types::masternode::{Attestation, AttestationBody, SlotPart};
use crate::types::validators::Validator;
use crate::types::vote::{VoteBody, VoteStep};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const CHAIN: ChainId = ChainId(Hash([9; 32]));

pub(super) fn secret(i: u8) -> SecretKey {
    SecretKey::from_seed(&[i; 32])
}

/// The set of four with keys `first..first + 4`.
pub(super) fn set(first: u8) -> Arc<ValidatorSet> {
    let member = |i: u8| Validator {
        id: MasternodeId(Hash([i; 32])),
        operator: secret(i).public(),
        power: Power(10),
    };
    Arc::new(ValidatorSet::new((first..first + 4).map(member).collect()).unwrap())
}

pub(super) fn certify(header: &Header, first: u8, signers: u8) -> Certificate {
    let body = VoteBody {
        step: VoteStep::Precommit,
        branch: header.branch,
        era: header.era,
        height: header.height,
        round: header.round,
        valid_round: None,
        block: Some(header.id()),
    };
    let hash = body.signing_hash(CHAIN);
    let signatures = (first..first + signers).map(|i| secret(i).sign(&hash));
    Certificate {
        height: header.height,
        block: header.id(),
        commit: Commit {
            at: EraRound {
                era: header.era,
                round: header.round,
            },
            signers: Bitmap::from_ones(4, 0..usize::from(signers)),
            signatures: crate::base::bounded::BoundedVec::take_from(signatures),
        },
    }
}

/// A chain above genesis whose set changes every `change` heights, certified by its sets.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) blocks: Vec<(Arc<Block>, Certificate)>,
    sets: Vec<u8>,
    part: SlotPart,
}

impl Chain {
    /// No block yet; the first set is that of keys `first..first + 4`.
    fn empty(first: u8) -> Chain {
        Chain {
            blocks: Vec::new(),
            sets: vec![first],
            part: SlotPart::default(),
        }
    }

    pub(super) fn new(length: u64, change: u64, mark: u64) -> Chain {
        Chain::empty(1).grown(length, change, mark)
    }

    /// Blocks of a third of a megabyte each.
    pub(super) fn heavy(length: u64) -> Chain {
        let mut chain = Chain::empty(1);
        let body = AttestationBody {
            era: Era(0),
            slot: Slot(0),
            base: BlockId::default(),
            supports: Branch(0),
            attester: MasternodeId::default(),
            present: Bitmap::new(4_096),
        };
        let signature = Signature([0; 64]);
        let many = vec![Attestation { body, signature }; 512];
        chain.part.attestations = many.try_into().unwrap();
        chain.grown(length, 1_000, 0)
    }

    pub(super) fn grown(mut self, length: u64, change: u64, mark: u64) -> Chain {
        let root = match self.part.is_empty() {
            true => Hash::ZERO,
            false => slot_root(&self.part),
        };
        for height in self.blocks.len() as u64 + 1..=length {
            let first = self.sets[height as usize - 1];
            let next = if height % change == 0 {
                first % 8 + 1
            } else {
                first
            };
            let header = Header {
                version: HEADER_VERSION,
                branch: Branch(0),
                era: Era(0),
                recovery_hash: Hash::ZERO,
                height: Height(height),
                round: Round(0),
                time: WallMs(height * 1_000 + mark),
                parent: self.applied(height - 1).block,
                proposer: MasternodeId::default(),
                last_commit_hash: Commit::default().hash(),
                tx_root: crate::types::block::tx_root([]),
                // M3: sets change at slot blocks only.
                slot_root: match height % change {
                    0 => slot_root(&self.part),
                    _ => root,
                },
                validators_hash: set(first).hash(),
                next_validators_hash: set(next).hash(),
                state_root: Hash::ZERO,
                prev_slot_block: self.slot(height - 1).id,
                history_root: Hash::ZERO,
            };
            let certificate = certify(&header, first, 3);
            let block = Block {
                header,
                last_commit: Commit::default(),
                slot_part: self.part.clone(),
                transactions: Default::default(),
            };
            self.blocks.push((Arc::new(block), certificate));
            self.sets.push(next);
        }
        self
    }

    /// The latest slot block at or below a height.
    fn slot(&self, height: u64) -> SlotHead {
        let below = self.blocks.iter().take(height as usize).rev();
        let mut slots = below
            .map(|(b, _)| &b.header)
            .filter(|h| !h.slot_root.is_zero());
        let found = slots.next();
        SlotHead {
            height: found.map_or(Height(0), |h| h.height),
            id: found.map_or(BlockId(CHAIN.0), |h| h.id()),
            time: WallMs(0),
            next_hash: set(self.sets[height as usize]).hash(),
            state_root: Hash::ZERO,
        }
    }

    pub(super) fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(super) fn applied(&self, height: u64) -> Applied {
        let block = match height {
            0 => BlockId(CHAIN.0),
            h => self.blocks[h as usize - 1].0.id(),
        };
        let validators = set(self.sets[height as usize]);
        Applied {
            height: Height(height),
            block,
            validators_hash: validators.hash(),
            validators,
            slot: self.slot(height),
            bars: Arc::new(Bars {
                next: None,
                eras: vec![(Era(0), Vec::new())],
                pin: None,
            }),
        }
    }
}

impl BlockReader for Chain {
    type Error = ();
    fn slot_headers(
        &self,
        from: Height,
        take: &mut dyn FnMut(CertifiedHeader) -> bool,
    ) -> Result<(), ()> {
        for (block, certificate) in self.blocks.iter().skip(from.0.max(1) as usize - 1) {
            let header = &block.header;
            let changes = header.next_validators_hash != header.validators_hash;
            let item = CertifiedHeader {
                header: header.clone(),
                certificate: certificate.clone(),
                next: changes.then(|| (*set(self.sets[header.height.0 as usize])).clone()),
            };
            if !header.slot_root.is_zero() && !take(item) {
                break;
            }
        }
        Ok(())
    }
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, ()> {
        let at = (height.0 as usize).checked_sub(1);
        Ok(at.and_then(|at| self.blocks.get(at)).cloned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Honest,
    /// Claims much and never answers.
    Silent,
    /// Sends bodies that are not those of the header.
    WrongBody,
    /// Sends certificates with a bad signature.
    BadSignature,
    /// Sends certificates without a quorum.
    NoQuorum,
    /// Sends headers that name a set of its own.
    OwnSet,
    /// Sends blocks of a chain that strangers certified.
    OtherChain,
    /// Answers half of what it was asked.
    Half,
    /// Sends what nobody asked for, and twice.
    Noisy,
    /// Leaves and comes back.
    Flaky,
}

pub(super) const LIES: [Habit; 9] = [
    Habit::Silent,
    Habit::WrongBody,
    Habit::BadSignature,
    Habit::NoQuorum,
    Habit::OwnSet,
    Habit::OtherChain,
    Habit::Half,
    Habit::Noisy,
    Habit::Flaky,
];

pub(super) fn corrupt(
    habit: Habit,
    found: (Arc<Block>, Certificate),
    stranger: &Chain,
) -> (Arc<Block>, Certificate) {
    let (block, mut certificate) = found;
    match habit {
        Habit::WrongBody => {
            let mut other = (*block).clone();
            other.last_commit.at.round = Round(7);
            (Arc::new(other), certificate)
        }
        Habit::BadSignature => {
            certificate.commit.signatures.as_mut_slice()[1].0[0] ^= 1;
            (block, certificate)
        }
        Habit::NoQuorum => {
            let id = certificate.block;
            let weak = certify(&block.header, 1, 2);
            assert_eq!(weak.block, id);
            (block, weak)
        }
        Habit::OwnSet => {
            let mut other = (*block).clone();
            other.header.validators_hash = set(20).hash();
            let certificate = certify(&other.header, 20, 4);
            (Arc::new(other), certificate)
        }
        Habit::OtherChain => {
            let found = stranger.certified(block.header.height);
            found.unwrap().unwrap_or((block, certificate))
        }
        _ => (block, certificate),
    }
}

pub(super) enum Event {
    Input(Input),
    Apply,
    Return(Peer),
}

/// One node that catches up, its peers, its pool and its ledger.
pub(super) struct Sim {
    chain: Chain,
    stranger: Chain,
    pub(super) sync: Machine,
    habits: Vec<Habit>,
    pub(super) delays: Vec<u64>,
    rng: Rng,
    pub(super) at: u64,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    deadline: Option<MonoUs>,
    to_apply: VecDeque<u64>,
    height: u64,
    delivered: u64,
    pub(super) faults: BTreeSet<Peer>,
    pub(super) asked: BTreeSet<Peer>,
    pub(super) most_held: usize,
}

pub(super) fn now(us: u64) -> Now {
    Now {
        wall: WallMs(us / 1_000),
        mono: MonoUs(us),
    }
}

impl Sim {
    pub(super) fn new(chain: Chain, habits: Vec<Habit>, seed: u64) -> Sim {
        let mut rng = Rng::new(seed);
        let delays = habits.iter().map(|_| 200 + rng.below(300_000)).collect();
        let stranger = Chain::empty(9).grown(chain.height().min(40), 1_000, 5);
        let sync = Machine::new(CHAIN, chain.applied(0), None);
        let mut sim = Sim {
            chain,
            stranger,
            sync,
            habits,
            delays,
            rng,
            at: 1,
            events: BTreeMap::new(),
            serial: 0,
            deadline: None,
            to_apply: VecDeque::new(),
            height: 0,
            delivered: 0,
            faults: BTreeSet::new(),
            asked: BTreeSet::new(),
            most_held: 0,
        };
        for peer in 0..sim.habits.len() as u64 {
            sim.announce(peer);
        }
        sim
    }

    pub(super) fn post(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.at + delay, self.serial), event);
    }

    pub(super) fn announce(&mut self, peer: Peer) {
        let height = match self.habits[peer as usize] {
            Habit::Silent => Height(u64::MAX),
            _ => Height(self.chain.height()),
        };
        self.post(
            10,
            Event::Input(Input::Position {
                peer,
                height,
                score: 0,
            }),
        );
    }

    pub(super) fn answer(&mut self, peer: Peer, from: Height, count: u16) {
        assert!(count >= 1 && u64::from(count) <= SYNC_RANGE_BLOCKS);
        let habit = self.habits[peer as usize];
        let mut found = answer(&self.chain, from, count).unwrap();
        match habit {
            Habit::Silent => return,
            Habit::Half => found.truncate(found.len() / 2),
            Habit::Noisy => {
                let again = found.clone();
                found.extend(again);
                found.extend(answer(&self.chain, Height(1), 9).unwrap());
            }
            Habit::Flaky if self.rng.chance(1, 2) => {
                self.post(1_000, Event::Input(Input::Gone { peer }));
                self.post(900_000, Event::Return(peer));
                return;
            }
            _ => {}
        }
        let mut delay = self.delays[peer as usize];
        for (block, certificate) in found {
            delay += 100;
            let (block, certificate) = corrupt(habit, (block, certificate), &self.stranger);
            let input = Input::Block {
                peer,
                block,
                certificate,
            };
            self.post(delay, Event::Input(input));
        }
    }

    fn answer_headers(&mut self, peer: Peer, from: Height) {
        let habit = self.habits[peer as usize];
        let mut headers = answer_headers(&self.chain, from, true).unwrap();
        match habit {
            Habit::Silent => return,
            Habit::OtherChain => headers = answer_headers(&self.stranger, from, true).unwrap(),
            Habit::Half => headers.truncate(headers.len() / 2),
            Habit::OwnSet => headers
                .iter_mut()
                .filter(|item| item.next.is_some())
                .for_each(|item| item.next = Some((*set(20)).clone())),
            _ => headers.iter_mut().for_each(|item| {
                let found = (
                    Arc::new(Block {
                        header: item.header.clone(),
                        last_commit: Commit::default(),
                        slot_part: SlotPart::default(),
                        transactions: Default::default(),
                    }),
                    item.certificate.clone(),
                );
                if habit == Habit::BadSignature {
                    item.certificate = corrupt(habit, found, &self.stranger).1;
                }
            }),
        }
        let delay = self.delays[peer as usize];
        self.post(delay, Event::Input(Input::Headers { peer, headers }));
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, from, count } => {
                self.asked.insert(peer);
                assert!(
                    !self.faults.contains(&peer),
                    "a faulty peer is not asked again"
                );
                self.answer(peer, from, count);
            }
            Effect::Refresh { peer } => self.announce(peer),
            Effect::Headers(_) => {}
            Effect::RequestHeaders { peer, from } => self.answer_headers(peer, from),
            Effect::VerifyHeaders { ticket, checks } => {
                let good = crate::crypto::verify::verify_all(&checks);
                let delay = 100 + self.rng.below(5_000);
                self.post(delay, Event::Input(Input::HeadersVerdict { ticket, good }));
            }
            Effect::Verify {
                ticket,
                certificate,
                checks,
            } => {
                let outcome = Verified::check(certificate, &checks);
                let delay = 100 + self.rng.below(5_000);
                self.post(delay, Event::Input(Input::Verdict { ticket, outcome }));
            }
            Effect::Deliver {
                block, certificate, ..
            } => {
                let height = block.header.height.0;
                assert_eq!(height, self.delivered + 1, "F1: in order, each once");
                let expected = &self.chain.blocks[height as usize - 1].0;
                assert_eq!(block.id(), expected.id());
                assert_eq!(certificate.block, block.id(), "its own certificate");
                self.delivered = height;
                assert!(height <= self.height + DELIVERED_COUNT_MAX as u64);
                self.to_apply.push_back(height);
                self.post(300, Event::Apply);
            }
            Effect::Fault { peer, why } => {
                let habit = self.habits[peer as usize];
                let expected = match habit {
                    Habit::WrongBody => Fault::Body,
                    Habit::BadSignature | Habit::NoQuorum => Fault::BadCertificate,
                    Habit::OwnSet => Fault::WrongSet,
                    Habit::OtherChain => why,
                    _ => panic!("P3: {habit:?} broke no rule, blamed for {why}"),
                };
                assert_eq!(why, expected, "{habit:?}");
                self.faults.insert(peer);
            }
            Effect::Conflict { .. } => panic!("there is one certified chain"),
            Effect::Stray { .. } => {}
            Effect::SetDeadline(at) => self.deadline = at,
        }
    }

    /// The next thing that happens; false when nothing is left.
    pub(super) fn step(&mut self) -> bool {
        let event = self.events.keys().next().copied();
        let tick = self.deadline.map(|at| at.0);
        let Some(time) = event.map(|(at, _)| at).into_iter().chain(tick).min() else {
            return false;
        };
        assert!(time >= self.at || tick == Some(time));
        self.at = self.at.max(time);
        let input = match event.filter(|(at, _)| *at <= time) {
            None => Input::Tick,
            Some(key) => match self.events.remove(&key) {
                Some(Event::Input(input)) => input,
                Some(Event::Apply) => {
                    let height = self.to_apply.pop_front().unwrap();
                    self.height = height;
                    Input::Applied(self.chain.applied(height))
                }
                Some(Event::Return(peer)) => {
                    self.announce(peer);
                    return true;
                }
                None => return false,
            },
        };
        self.sync.handle(now(self.at), input);
        while let Some(effect) = self.sync.effect() {
            self.perform(effect);
        }
        let held = self.sync.progress(now(self.at)).held_bytes;
        self.most_held = self.most_held.max(held);
        true
    }

    /// Runs until the node has everything, at most this many simulated seconds.
    pub(super) fn run(&mut self, seconds: u64) -> bool {
        let end = self.at + seconds * 1_000_000;
        while self.height < self.chain.height() && self.at < end {
            if !self.step() {
                break;
            }
        }
        self.height == self.chain.height()
    }
}
