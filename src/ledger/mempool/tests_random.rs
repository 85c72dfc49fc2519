//! Random operations against the invariants of section 5 and B2.

use super::testkit::*;
use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// Spend coins picked among all that ever existed, with a fee, from a source.
    Send(Vec<usize>, u64, u64, u8),
    /// Decide what a selection of this many gives, and a conflicting spend of the picked coin if it is confirmed.
    Decide(usize, Option<usize>),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let send = (
        prop::collection::vec(any::<usize>(), 1..4),
        1u64..4,
        1_000u64..9_000,
        0u8..5,
    );
    prop_oneof![
        8 => send.prop_map(|(coins, outs, fee, source)| Op::Send(coins, outs, fee, source)),
        1 => (0usize..6, proptest::option::of(any::<usize>())).prop_map(|(n, c)| Op::Decide(n, c)),
        1 => (1u64..MEMPOOL_EXPIRY_MS / 4).prop_map(Op::Wait),
    ]
}

struct Story {
    world: World,
    at: u64,
    known: Vec<(OutPoint, u64)>,
}

impl Story {
    fn send(&mut self, picks: &[usize], outs: u64, fee: u64, source: u8) {
        let picked: BTreeMap<OutPoint, u64> = picks
            .iter()
            .map(|pick| self.known[pick % self.known.len()])
            .collect();
        let inputs: Vec<_> = picked.into_iter().collect();
        let tx = spend(&inputs, outs, fee);
        let source = match source {
            0 => Source::Local,
            peer => Source::Peer(u64::from(peer)),
        };
        let admission = self.world.consider(self.at, &tx, source);
        if matches!(admission, Admission::Check { .. })
            && self.world.admit(self.at, &tx, source).is_ok()
        {
            let outputs = 0..tx.body().outputs.len() as u32;
            self.known.extend(outputs.map(|vout| coin_of(&tx, vout)));
        }
    }

    fn decide(&mut self, count: usize, rival: Option<usize>) {
        let mut chosen = self.world.mempool.select(Selection { count, ..ALL });
        let (coin, value) = self.known[rival.unwrap_or(0) % self.known.len()];
        let taken = chosen.iter().any(|tx| tx.body().inputs.contains(&coin));
        if rival.is_some() && !taken && self.world.coins.0.contains_key(&coin) {
            chosen.push(spend(&[(coin, value)], 1, 9_999));
        }
        let before: Vec<Tx> = self
            .world
            .mempool
            .iter()
            .map(|(tx, _)| tx.clone())
            .collect();
        let settled = self.world.decide(chosen.clone());
        let mut lost: BTreeSet<Txid> = BTreeSet::new();
        for tx in &before {
            let rivals = chosen.iter().filter(|b| b.txid != tx.txid);
            let mut spent = rivals.flat_map(|b| b.body().inputs.iter());
            let hit = spent.any(|i| tx.body().inputs.contains(i));
            let included = chosen.iter().any(|b| b.txid == tx.txid);
            let child = tx.body().inputs.iter().any(|i| lost.contains(&i.txid));
            if !included && (hit || child) {
                lost.insert(tx.txid);
            }
        }
        let conflicted = settled
            .departed
            .iter()
            .filter(|d| d.why != Departure::Included);
        let conflicted: BTreeSet<Txid> = conflicted.map(|d| d.tx.txid).collect();
        assert_eq!(conflicted, lost, "exactly conflicts and their children");
    }

    fn check(&self, limits: MempoolLimits) {
        self.world.mempool.pool.assert_true();
        assert!(self.world.mempool.len() <= limits.count, "B2");
        assert!(self.world.mempool.bytes() <= limits.bytes, "B2");
        let mut ledger = self.world.coins.clone();
        let all = self.world.mempool.select(ALL);
        assert_eq!(all.len(), self.world.mempool.len());
        for tx in &all {
            let spend = check_spend(tx, &ledger, &self.world.state);
            assert!(spend.is_ok(), "parents before children: {:?}", spend.err());
            assert!(ledger.apply(tx), "L9: no outpoint twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_bounds_and_reservations_hold(ops in prop::collection::vec(op(), 1..90)) {
        let limits = MempoolLimits { count: 24, bytes: 6_000 };
        let known = (0..12).map(|i| (base(i), COIN)).collect();
        let mut story = Story { world: World::new(limits), at: 0, known };
        for op in ops {
            match op {
                Op::Send(coins, outs, fee, source) => story.send(&coins, outs, fee, source),
                Op::Decide(count, rival) => story.decide(count, rival),
                Op::Wait(ms) => {
                    story.at += ms;
                    story.world.mempool.expire(now(story.at));
                }
            }
            story.check(limits);
        }
    }
}
