//! Which transactions peers have named, and whom each was asked of (section 5).
//!
//! Inputs: names, arrivals, peers that leave, time. Outputs: whom to ask for what now. Nobody holds up what others offer:
//! a transaction that does not come is asked of the next who named it, sooner and of more the longer it takes; who let a
//! question go unanswered is asked after everybody else; and when all places are taken, the peer that holds most of them
//! gives way. Must never count a missing answer as a fault (P3), or ask one peer twice for one name.

use crate::base::time::MonoUs;
use crate::p2p::messages::PeerId;
use crate::types::ids::Wtxid;
use std::collections::{BTreeMap, BTreeSet};

/// Names of transactions that peers offer and that have not arrived, each counted once for each peer that named it.
pub const NAMED_COUNT_MAX: usize = 32_768;
/// Peers remembered for one transaction.
pub const NAMERS_MAX: usize = 16;
/// A transaction that has not come after this time is asked of the next who named it, ms: more than a round trip across
/// the world takes, so that honest networks ask once.
const HEDGE_MS: u64 = 500;
/// A question without an answer for so long was in vain, ms.
const ANSWER_MS: u64 = 2_000;
/// Who let a question go unanswered is asked last for this time, ms.
const LATE_MS: u64 = 10 * 60_000;

/// A peer that named a transaction.
#[derive(Debug)]
struct Namer {
    peer: PeerId,
    masternode: bool,
    asked: Option<MonoUs>,
}

/// A transaction that is offered.
#[derive(Debug, Default)]
struct Named {
    by: Vec<Namer>,
    /// How many were asked at the last time: each time twice as many.
    wave: usize,
    asked: MonoUs,
    timer: MonoUs,
}

/// What a peer has named.
#[derive(Debug, Default)]
struct Offers {
    names: BTreeSet<Wtxid>,
    late_until: MonoUs,
}

/// Everything that is offered and not here.
#[derive(Debug, Default)]
pub struct Requests {
    named: BTreeMap<Wtxid, Named>,
    peers: BTreeMap<PeerId, Offers>,
    timers: BTreeSet<(MonoUs, Wtxid)>,
    count: usize,
}

/// The order in which peers are asked: those who answer, masternodes first.
type Rank = (bool, bool);

impl Requests {
    /// A peer names a transaction that is not here. True: ask it now.
    pub fn named(&mut self, now: MonoUs, peer: PeerId, masternode: bool, wtxid: Wtxid) -> bool {
        let offers = self.peers.entry(peer).or_default();
        if offers.names.contains(&wtxid) || !self.make_room(now, peer, &wtxid) {
            return false;
        }
        let rank = self.rank(now, peer, masternode);
        let asked = self.named.get(&wtxid).map(|named| {
            let asked = named.by.iter().filter(|n| n.asked.is_some());
            asked.map(|n| self.rank(now, n.peer, n.masternode)).min()
        });
        // A better peer does not wait until a worse one has had its time.
        let at_once = asked.flatten().is_none_or(|best| rank < best);
        let named = self.named.entry(wtxid).or_default();
        named.by.push(Namer {
            peer,
            masternode,
            asked: at_once.then_some(now),
        });
        if at_once {
            (named.wave, named.asked) = (1, now);
        }
        self.peers.entry(peer).or_default().names.insert(wtxid);
        self.count += 1;
        self.set_timer(&wtxid);
        at_once
    }

    fn rank(&self, now: MonoUs, peer: PeerId, masternode: bool) -> Rank {
        let late = self.peers.get(&peer).is_some_and(|o| now < o.late_until);
        (late, !masternode)
    }

    /// Makes room for one more name of `peer`: the place of whoever was asked in vain for this transaction, or one of the
    /// peer that has most. False if that is `peer` itself.
    fn make_room(&mut self, now: MonoUs, peer: PeerId, wtxid: &Wtxid) -> bool {
        if let Some(named) = self.named.get(wtxid)
            && named.by.len() >= NAMERS_MAX
        {
            let rank = |n: &Namer| (n.asked.is_some(), self.rank(now, n.peer, n.masternode));
            let worst = named.by.iter().max_by_key(|n| rank(n)).map(|n| n.peer);
            if let Some(worst) = worst {
                self.drop_name(worst, wtxid);
            }
        }
        if self.count < NAMED_COUNT_MAX {
            return true;
        }
        let most = self.peers.iter().max_by_key(|(_, o)| o.names.len());
        let Some((greediest, offers)) = most.filter(|(id, _)| **id != peer) else {
            return false;
        };
        let own = self.peers.get(&peer).map_or(0, |o| o.names.len());
        let (greediest, name) = (*greediest, offers.names.last().copied());
        let Some(name) = name.filter(|_| offers.names.len() > own + 1) else {
            return false;
        };
        self.drop_name(greediest, &name);
        true
    }

    /// It is here, or nobody needs it any more.
    pub fn arrived(&mut self, wtxid: &Wtxid) {
        let Some(gone) = self.named.remove(wtxid) else {
            return;
        };
        self.timers.remove(&(gone.timer, *wtxid));
        for namer in gone.by {
            self.count -= 1;
            if let Some(offers) = self.peers.get_mut(&namer.peer) {
                offers.names.remove(wtxid);
            }
        }
    }

    /// A peer is gone, and what it offered with it; others are asked at the next timer.
    pub fn peer_down(&mut self, peer: PeerId) {
        let names = self.peers.get(&peer).map(|o| o.names.clone());
        for wtxid in names.into_iter().flatten() {
            self.drop_name(peer, &wtxid);
        }
        self.peers.remove(&peer);
    }

    fn drop_name(&mut self, peer: PeerId, wtxid: &Wtxid) {
        if let Some(offers) = self.peers.get_mut(&peer)
            && offers.names.remove(wtxid)
        {
            self.count -= 1;
        }
        let Some(named) = self.named.get_mut(wtxid) else {
            return;
        };
        named.by.retain(|n| n.peer != peer);
        match named.by.is_empty() {
            true => self.arrived(wtxid),
            false => self.set_timer(wtxid),
        }
    }

    /// When something is due for a transaction: the next question, or the end of the oldest.
    fn set_timer(&mut self, wtxid: &Wtxid) {
        let Some(named) = self.named.get_mut(wtxid) else {
            return;
        };
        let over = named.by.iter().filter_map(|n| n.asked).min();
        let over = over.map(|at| at.plus_ms(ANSWER_MS));
        let waits = named.by.iter().any(|n| n.asked.is_none());
        // Nobody is asked: whoever was is gone.
        let next = match over {
            None => waits.then_some(MonoUs(0)),
            Some(_) => waits.then(|| named.asked.plus_ms(HEDGE_MS)),
        };
        let due = over.into_iter().chain(next).min().unwrap_or(MonoUs(0));
        self.timers.remove(&(named.timer, *wtxid));
        named.timer = due;
        self.timers.insert((due, *wtxid));
    }

    /// When [`Requests::due`] has something to say.
    pub fn deadline(&self) -> Option<MonoUs> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be asked of whom now.
    pub fn due(&mut self, now: MonoUs) -> BTreeMap<PeerId, Vec<Wtxid>> {
        let mut out: BTreeMap<PeerId, Vec<Wtxid>> = BTreeMap::new();
        while let Some((at, wtxid)) = self.timers.first().copied()
            && at <= now
        {
            self.give_up(now, &wtxid);
            for peer in self.ask_next(now, &wtxid) {
                out.entry(peer).or_default().push(wtxid);
            }
            self.set_timer(&wtxid);
            if self.named.get(&wtxid).is_none_or(|n| n.timer <= now) {
                // Nobody is left who could be asked.
                self.arrived(&wtxid);
            }
        }
        out
    }

    /// Questions whose time is over: who was asked is asked last from now on.
    fn give_up(&mut self, now: MonoUs, wtxid: &Wtxid) {
        let by = self.named.get(wtxid).map(|n| &n.by).into_iter().flatten();
        let in_vain = |n: &&Namer| n.asked.is_some_and(|at| now >= at.plus_ms(ANSWER_MS));
        let late: Vec<PeerId> = by.filter(in_vain).map(|n| n.peer).collect();
        for peer in late {
            self.drop_name(peer, wtxid);
            if let Some(offers) = self.peers.get_mut(&peer) {
                offers.late_until = now.plus_ms(LATE_MS);
            }
        }
    }

    fn ask_next(&mut self, now: MonoUs, wtxid: &Wtxid) -> Vec<PeerId> {
        let Some(named) = self.named.get(wtxid) else {
            return Vec::new();
        };
        let open = named.by.iter().any(|n| n.asked.is_some());
        if open && now < named.asked.plus_ms(HEDGE_MS) {
            return Vec::new();
        }
        let waiting = named.by.iter().filter(|n| n.asked.is_none());
        let mut order: Vec<(Rank, PeerId)> = waiting
            .map(|n| (self.rank(now, n.peer, n.masternode), n.peer))
            .collect();
        // A stable order: among equals, who named it first.
        order.sort_by_key(|(rank, _)| *rank);
        order.truncate(if open { 2 * named.wave.max(1) } else { 1 });
        let next: Vec<PeerId> = order.into_iter().map(|(_, peer)| peer).collect();
        if let Some(named) = self.named.get_mut(wtxid)
            && !next.is_empty()
        {
            (named.wave, named.asked) = (next.len(), now);
            for namer in named.by.iter_mut().filter(|n| next.contains(&n.peer)) {
                namer.asked = Some(now);
            }
        }
        next
    }

    /// Places taken.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Peers that something is remembered of.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use proptest::prelude::*;

    fn name(i: u64) -> Wtxid {
        let mut hash = Hash::ZERO;
        hash.0[..8].copy_from_slice(&i.to_be_bytes());
        Wtxid(hash)
    }

    fn at(ms: u64) -> MonoUs {
        MonoUs(ms * 1_000)
    }

    const MALLORY: PeerId = PeerId(1);
    const ALICE: PeerId = PeerId(900);

    #[test]
    fn a_peer_that_fills_every_place_gives_way_to_others() {
        let mut all = Requests::default();
        let taken = (0..100_000).filter(|i| all.named(at(0), MALLORY, false, name(*i)));
        assert_eq!(taken.count(), NAMED_COUNT_MAX, "alone it may have them all");
        for i in 0..10_000 {
            assert!(
                all.named(at(1), ALICE, false, name(1_000_000 + i)),
                "what another peer names is asked for at once: {i}"
            );
        }
        assert!(all.len() <= NAMED_COUNT_MAX, "bounded");
        let more = (0..100_000).filter(|i| all.named(at(2), ALICE, false, name(2_000_000 + *i)));
        let half = NAMED_COUNT_MAX / 2;
        assert_eq!(more.count() + 10_000, half, "equal shares for two");
        assert!(
            !all.named(at(3), MALLORY, false, name(5_000_000)),
            "so for it"
        );
        assert!(
            all.named(at(3), PeerId(2), false, name(5_000_000)),
            "a third has its share too"
        );
    }

    #[test]
    fn who_names_first_and_never_answers_delays_nobody_twice() {
        let mut all = Requests::default();
        assert!(all.named(at(0), MALLORY, false, name(1)));
        assert!(
            !all.named(at(5), ALICE, false, name(1)),
            "asked once in a good network"
        );
        assert_eq!(all.deadline(), Some(at(HEDGE_MS)));
        let asked = all.due(at(HEDGE_MS));
        assert_eq!(
            asked,
            [(ALICE, vec![name(1)])].into(),
            "half a second later of the next"
        );
        all.arrived(&name(1));
        assert!(all.is_empty() && all.deadline().is_none());
        // Nothing comes of what it alone has named.
        assert!(all.named(at(1_000), MALLORY, false, name(2)));
        assert!(all.due(at(1_000 + ANSWER_MS)).is_empty());
        assert!(all.is_empty(), "given up, and may be named again");
        assert!(all.named(at(4_000), MALLORY, false, name(3)));
        assert!(
            all.named(at(4_000), ALICE, false, name(3)),
            "who did not answer once delays nothing any more"
        );
    }

    #[test]
    fn a_masternode_is_asked_before_strangers_have_had_their_time() {
        let mut all = Requests::default();
        assert!(all.named(at(0), MALLORY, false, name(1)));
        assert!(all.named(at(0), ALICE, true, name(1)));
        assert!(
            !all.named(at(0), PeerId(901), true, name(1)),
            "one of a kind is enough"
        );
    }

    #[test]
    fn many_liars_together_delay_one_transaction_for_two_seconds_at_most() {
        let mut all = Requests::default();
        for i in 0..3 * NAMERS_MAX as u64 {
            all.named(at(0), PeerId(i), false, name(1));
        }
        let at_once = all.named(at(1), ALICE, false, name(1));
        assert_eq!(all.len(), NAMERS_MAX, "bounded");
        let mut asked_at = at_once.then_some(at(1));
        while let Some(due) = all.deadline() {
            if all.due(due).contains_key(&ALICE) {
                asked_at.get_or_insert(due);
            }
        }
        assert!(
            asked_at.is_some_and(|at| at <= MonoUs(2_000_000)),
            "{asked_at:?}"
        );
    }

    #[test]
    fn when_a_peer_goes_the_next_is_asked_and_nothing_of_it_stays() {
        let mut all = Requests::default();
        all.named(at(0), MALLORY, false, name(1));
        all.named(at(0), MALLORY, false, name(2));
        all.named(at(0), ALICE, false, name(1));
        all.peer_down(MALLORY);
        assert_eq!((all.len(), all.peer_count()), (1, 1));
        assert_eq!(all.due(at(1)), [(ALICE, vec![name(1)])].into());
    }

    proptest! {
        #[test]
        fn counts_are_true_and_every_name_ends(
            steps in proptest::collection::vec((0u64..40, 0u64..30, 0u8..12, 0u64..700), 1..400),
        ) {
            let (mut all, mut now) = (Requests::default(), 0);
            for (peer, wtxid, what, ms) in steps {
                now += ms;
                match what {
                    0 => all.arrived(&name(wtxid)),
                    1 => all.peer_down(PeerId(peer)),
                    2 => { all.due(at(now)); }
                    _ => { all.named(at(now), PeerId(peer), peer % 3 == 0, name(wtxid)); }
                }
                let by_name: usize = all.named.values().map(|n| n.by.len()).sum();
                let by_peer: usize = all.peers.values().map(|o| o.names.len()).sum();
                prop_assert_eq!((by_name, by_peer), (all.len(), all.len()));
                prop_assert_eq!(all.timers.len(), all.named.len());
            }
            for _ in 0..2 * NAMERS_MAX {
                if let Some(due) = all.deadline() {
                    now = now.max(due.0 / 1_000 + 1);
                    all.due(at(now));
                }
                now += ANSWER_MS;
            }
            all.due(at(now + 100_000));
            prop_assert!(all.is_empty(), "nothing is waited for for ever: {:?}", all.named);
        }
    }
}
