//! How much of each class one peer may send (P2): token buckets, and a small room where frames wait for their turn.
//!
//! All classes of a peer share one TCP stream. A frame beyond the bucket of its class is *parked*, so that frames of other
//! classes behind it still pass: a vote never waits for the transactions that were sent before it. Only when the room is
//! full must reading of the stream pause; it goes on when half of the room is free again.
//! Inputs: frames with their class and size, time. Outputs: which frame may pass now, when the next one may. Must never drop
//! or reorder frames of one class, or count anything as an offence.

use crate::base::time::MonoUs;
use crate::p2p::messages::Class;
use std::collections::VecDeque;

/// Bytes that wait in the room of one peer before its stream pauses; one frame more may be there.
pub const PARKED_BYTES_MAX: usize = 128 * 1024;
/// Frames that wait in the room of one peer before its stream pauses; one frame more may be there.
pub const PARKED_COUNT_MAX: usize = 256;
/// What a parked frame costs beside its body, so that empty frames are bounded too.
const FRAME_OVERHEAD: usize = 64;
/// A bucket holds what flows in during this time.
const BURST_S: u64 = 2;
/// How many times the share of transactions of others a masternode has that has proved its key (P1): it relays for all.
pub const MASTERNODE_TX_FACTOR: u64 = 10;

/// Tokens that flow in evenly, up to a burst. Taking may leave it in debt once: then nothing is to be had until that is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens per second; 0 = no limit.
    rate: u64,
    burst: u64,
    /// Millionths of a token.
    level: i128,
    at: MonoUs,
}

impl Bucket {
    /// A full bucket. `rate` in tokens per second, 0 = no limit; `burst` in tokens.
    pub fn new(rate: u64, burst: u64, now: MonoUs) -> Bucket {
        let level = i128::from(burst) * 1_000_000;
        Bucket {
            rate,
            burst,
            level,
            at: now,
        }
    }

    /// Another rate from now on; what is in it stays, up to the new burst.
    pub fn set(&mut self, rate: u64, burst: u64, now: MonoUs) {
        self.refill(now);
        self.rate = rate;
        self.burst = burst;
        self.level = self.level.min(i128::from(burst) * 1_000_000);
    }

    fn refill(&mut self, now: MonoUs) {
        let flown = i128::from(now.since(self.at)) * i128::from(self.rate);
        self.level = (self.level + flown).min(i128::from(self.burst) * 1_000_000);
        self.at = self.at.max(now);
    }

    /// Whether something may be taken now.
    pub fn is_open(&mut self, now: MonoUs) -> bool {
        self.refill(now);
        self.rate == 0 || self.level > 0
    }

    /// Whether nothing has been taken for so long that nothing needs to be remembered.
    pub fn is_full(&mut self, now: MonoUs) -> bool {
        self.refill(now);
        self.rate == 0 || self.level >= i128::from(self.burst) * 1_000_000
    }

    /// What is in it, millionths of a token; below 0 in debt.
    pub fn level(&self) -> i128 {
        self.level
    }

    /// Takes `count` tokens, into debt if need be.
    pub fn take(&mut self, now: MonoUs, count: u64) {
        self.refill(now);
        if self.rate > 0 {
            self.level -= i128::from(count) * 1_000_000;
        }
    }

    /// When something may be taken; never later than needed by more than a microsecond.
    pub fn opens(&self) -> MonoUs {
        if self.rate == 0 || self.level > 0 {
            return self.at;
        }
        let wait = (1 - self.level).div_euclid(i128::from(self.rate)) + 1;
        MonoUs(
            self.at
                .0
                .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)),
        )
    }
}

/// What one class of one peer may send in a second; 0 = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Frames per second.
    pub frames: u64,
    /// Bytes of their bodies per second.
    pub bytes: u64,
}

impl Limit {
    fn times(self, factor: u64) -> Limit {
        Limit {
            frames: self.frames.saturating_mul(factor),
            bytes: self.bytes.saturating_mul(factor),
        }
    }
}

/// The limits of every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Transactions and their inventories.
    pub tx: Limit,
    /// Proposals, votes and what repairs them.
    pub consensus: Limit,
    /// Requests of nodes that catch up. Answers are asked for, and bounded by that.
    pub sync: Limit,
    /// Everything else: greetings, pings, peer exchange, heartbeats, fork proofs.
    pub other: Limit,
    /// Transactions per second that all peers together may hand in which dialled this node and proved no masternode key.
    pub strangers: u64,
    /// Handshakes per minute that one address may begin.
    pub handshakes: u64,
    /// The same for one network group.
    pub group_handshakes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        let limit = |frames, bytes| Limit { frames, bytes };
        Limits {
            tx: limit(100, 10_000_000),
            consensus: limit(1_000, 32_000_000),
            sync: limit(64, 1_000_000),
            other: limit(400, 1_000_000),
            strangers: 100,
            handshakes: 60,
            group_handshakes: 240,
        }
    }
}

impl Limits {
    fn of(&self, class: Class, masternode: bool) -> Limit {
        match class {
            Class::Tx if masternode => self.tx.times(MASTERNODE_TX_FACTOR),
            Class::Tx => self.tx,
            Class::Consensus => self.consensus,
            Class::Sync => self.sync,
            _ => self.other,
        }
    }

    /// The bucket that strangers share; a few seconds of silence leave room for a burst.
    pub fn strangers_bucket(&self, now: MonoUs) -> Bucket {
        Bucket::new(self.strangers, self.strangers.saturating_mul(5), now)
    }
}

struct Lane<T> {
    class: Class,
    frames: Bucket,
    bytes: Bucket,
    parked: VecDeque<(usize, T)>,
}

impl<T> Lane<T> {
    fn is_open(&mut self, now: MonoUs) -> bool {
        self.frames.is_open(now) && self.bytes.is_open(now)
    }

    fn take(&mut self, now: MonoUs, size: usize) {
        self.frames.take(now, 1);
        self.bytes.take(now, size as u64);
    }
}

/// The buckets of one peer and its room.
pub struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    limits: Limits,
    masternode: bool,
    slowed: u64,
    count: usize,
    bytes: usize,
    paused: bool,
}

impl<T> Lanes<T> {
    /// Full buckets, an empty room.
    pub fn new(limits: Limits) -> Lanes<T> {
        Lanes {
            lanes: Vec::new(),
            limits,
            masternode: false,
            slowed: 1,
            count: 0,
            bytes: 0,
            paused: false,
        }
    }

    /// New limits, whether the peer proved a masternode's key, and by how much it is slowed down (1 = not at all; P3).
    pub fn set(&mut self, limits: Limits, masternode: bool, slowed: u64, now: MonoUs) {
        (self.limits, self.masternode, self.slowed) = (limits, masternode, slowed.max(1));
        for lane in &mut self.lanes {
            let limit = share(&self.limits, lane.class, masternode, self.slowed);
            lane.frames
                .set(limit.frames, limit.frames.saturating_mul(BURST_S), now);
            lane.bytes
                .set(limit.bytes, limit.bytes.saturating_mul(BURST_S), now);
        }
    }

    fn lane(&mut self, class: Class, now: MonoUs) -> &mut Lane<T> {
        let at = match self.lanes.binary_search_by_key(&class, |lane| lane.class) {
            Ok(at) => at,
            Err(at) => {
                let limit = share(&self.limits, class, self.masternode, self.slowed);
                let bucket = |rate: u64| Bucket::new(rate, rate.saturating_mul(BURST_S), now);
                let (frames, bytes) = (bucket(limit.frames), bucket(limit.bytes));
                let parked = VecDeque::new();
                let lane = Lane {
                    class,
                    frames,
                    bytes,
                    parked,
                };
                self.lanes.insert(at, lane);
                at
            }
        };
        &mut self.lanes[at]
    }

    /// A frame arrived. It comes back if it may pass at once; else it is parked. `open` says whether those who take frames
    /// of this class have room.
    pub fn offer(
        &mut self,
        now: MonoUs,
        class: Class,
        size: usize,
        frame: T,
        open: bool,
    ) -> Option<T> {
        let lane = self.lane(class, now);
        if open && lane.parked.is_empty() && lane.is_open(now) {
            lane.take(now, size);
            return Some(frame);
        }
        lane.parked.push_back((size, frame));
        self.count += 1;
        self.bytes += size + FRAME_OVERHEAD;
        self.paused |= self.is_full();
        None
    }

    /// The next parked frame that may pass, in the order of classes. `open` as in [`Lanes::offer`].
    pub fn next(&mut self, now: MonoUs, open: impl Fn(Class) -> bool) -> Option<T> {
        let ready =
            |lane: &mut Lane<T>| !lane.parked.is_empty() && open(lane.class) && lane.is_open(now);
        let lane = self.lanes.iter_mut().find_map(|l| ready(l).then_some(l))?;
        let (size, frame) = lane.parked.pop_front()?;
        lane.take(now, size);
        self.count -= 1;
        self.bytes -= size + FRAME_OVERHEAD;
        if 2 * self.count <= PARKED_COUNT_MAX && 2 * self.bytes <= PARKED_BYTES_MAX {
            self.paused = false;
        }
        Some(frame)
    }

    fn is_full(&self) -> bool {
        self.count >= PARKED_COUNT_MAX || self.bytes >= PARKED_BYTES_MAX
    }

    /// Whether the stream must not be read now.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether nothing is parked.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// When the first parked frame may pass; `opens` says when those who take frames of a class will have room.
    pub fn due(&self, opens: impl Fn(Class) -> MonoUs) -> Option<MonoUs> {
        let waiting = self.lanes.iter().filter(|lane| !lane.parked.is_empty());
        let due = |lane: &Lane<T>| {
            let buckets = lane.frames.opens().max(lane.bytes.opens());
            buckets.max(opens(lane.class))
        };
        waiting.map(due).min()
    }
}

fn share(limits: &Limits, class: Class, masternode: bool, slowed: u64) -> Limit {
    let limit = limits.of(class, masternode);
    // A limit that is there must not become "no limit" by division.
    let part = |rate: u64| match rate {
        0 => 0,
        rate => (rate / slowed).max(1),
    };
    Limit {
        frames: part(limit.frames),
        bytes: part(limit.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> MonoUs {
        MonoUs(ms * 1_000)
    }

    fn few() -> Limits {
        Limits {
            tx: Limit {
                frames: 10,
                bytes: 0,
            },
            ..Limits::default()
        }
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more_over_time() {
        let mut bucket = Bucket::new(100, 200, at(0));
        let mut taken = 0;
        for ms in 0..10_000 {
            while bucket.is_open(at(ms)) {
                bucket.take(at(ms), 1);
                taken += 1;
            }
        }
        assert!(
            (1_190..=1_201).contains(&taken),
            "burst and rate, no more: {taken}"
        );
        let mut free = Bucket::new(0, 0, at(0));
        free.take(at(0), u64::MAX);
        assert!(free.is_open(at(0)), "0 = no limit");
    }

    #[test]
    fn debt_is_paid_before_anything_passes_again() {
        let mut bucket = Bucket::new(1_000, 1_000, at(0));
        bucket.take(at(0), 5_000);
        let opens = bucket.opens();
        assert!(!bucket.is_open(MonoUs(opens.0 - 2)), "{opens:?}");
        assert!(bucket.is_open(opens), "it opens when it says");
        assert!((4_000_000..4_001_100).contains(&opens.0), "{opens:?}");
    }

    #[test]
    fn votes_pass_while_transactions_before_them_wait() {
        let mut lanes = Lanes::new(few());
        for i in 0..20 {
            assert!(lanes.offer(at(0), Class::Tx, 100, i, true).is_some());
        }
        assert_eq!(lanes.offer(at(0), Class::Tx, 100, 20, true), None, "P2");
        assert_eq!(
            lanes.offer(at(0), Class::Consensus, 100, 99, true),
            Some(99),
            "P2: a flood of transactions never delays votes"
        );
        assert!(!lanes.is_paused(), "there is room in the room");
        assert_eq!(lanes.next(at(0), |_| true), None);
        let due = lanes.due(|_| MonoUs(0)).unwrap();
        assert_eq!(lanes.next(due, |_| true), Some(20), "it is not lost");
    }

    #[test]
    fn a_full_room_pauses_the_stream_until_half_of_it_is_free() {
        let mut lanes = Lanes::new(few());
        let mut sent = 0;
        while !lanes.is_paused() {
            let passed = lanes.offer(at(0), Class::Tx, 1_000, sent, true);
            sent += 1;
            assert_eq!(passed.is_some(), sent <= 20);
        }
        assert!(
            lanes.bytes <= PARKED_BYTES_MAX + 1_064 && lanes.count <= PARKED_COUNT_MAX,
            "the room is bounded"
        );
        let (mut now, mut next) = (0, 20);
        while lanes.is_paused() {
            now = lanes.due(|_| MonoUs(0)).unwrap().0;
            assert_eq!(lanes.next(MonoUs(now), |_| true), Some(next), "in order");
            next += 1;
        }
        assert!(now > 5_000_000, "at the rate of the bucket: {now}");
        assert!(!lanes.is_empty());
    }

    #[test]
    fn a_closed_consumer_parks_what_the_bucket_would_pass() {
        let mut lanes = Lanes::new(Limits::default());
        assert_eq!(lanes.offer(at(0), Class::Tx, 10, 1, false), None);
        assert_eq!(
            lanes.offer(at(0), Class::Tx, 10, 2, true),
            None,
            "order within a class stays"
        );
        assert_eq!(lanes.next(at(0), |class| class != Class::Tx), None);
        assert_eq!(lanes.next(at(0), |_| true), Some(1));
        assert_eq!(lanes.next(at(0), |_| true), Some(2));
    }

    #[test]
    fn a_masternode_may_relay_more_and_a_slowed_peer_less() {
        let burst = |masternode, slowed| {
            let mut lanes = Lanes::new(few());
            lanes.set(few(), masternode, slowed, at(0));
            (0..)
                .take_while(|i| lanes.offer(at(0), Class::Tx, 1, *i, true).is_some())
                .count()
        };
        assert_eq!(burst(false, 1), 20);
        assert_eq!(burst(true, 1), 200);
        assert_eq!(burst(false, 1_000), 2, "never without limit");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered_within_a_class(
            frames in proptest::collection::vec((0usize..4, 0usize..40_000, 0u64..50), 1..300),
        ) {
            let classes = [Class::Consensus, Class::Control, Class::Sync, Class::Tx];
            let mut lanes = Lanes::new(few());
            let (mut now, mut sent, mut got) = (0, vec![0u64; 4], vec![0u64; 4]);
            let mut take = |(class, number): (usize, u64)| {
                assert_eq!(number, got[class], "P2: order within a class");
                got[class] += 1;
            };
            for (class, size, ms) in frames {
                now += ms;
                while let Some(frame) = lanes.next(at(now), |_| true) {
                    take(frame);
                }
                let frame = (class, sent[class]);
                sent[class] += 1;
                if let Some(frame) = lanes.offer(at(now), classes[class], size, frame, true) {
                    take(frame);
                }
            }
            while let Some(due) = lanes.due(|_| MonoUs(0)) {
                now = now.max(due.0 / 1_000 + 1);
                while let Some(frame) = lanes.next(at(now), |_| true) {
                    take(frame);
                }
            }
            prop_assert!(lanes.is_empty() && !lanes.is_paused());
            prop_assert_eq!(sent, got, "nothing is dropped");
        }
    }
}
