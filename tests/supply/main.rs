//! The supply equation to the unit over many slots (L10), with sets from 1 to 512 masternodes: joins, leaves, jail, evidence,
//! pauses, unattested slots, payouts, fees. Sums are kept here from what blocks change, and compared with what the ledger says.

mod driver;

use driver::{Chain, UNSIGNED, genesis, key, purse};
use std::collections::{BTreeMap, BTreeSet};
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::rng::Rng;
use timecoin::crypto::hash::Hash;
use timecoin::ledger::apply::Delta;
use timecoin::ledger::registry::{Entry, Standing};
use timecoin::ledger::rewards::subsidy;
use timecoin::types::address::Network;
use timecoin::types::amount::Amount;
use timecoin::types::block::Block;
use timecoin::types::codec;
use timecoin::types::ids::*;
use timecoin::types::masternode::{Evidence, Offence, SlotPart};
use timecoin::types::params::Params;
use timecoin::types::transaction::*;
use timecoin::types::vote::{Vote, VoteBody, VoteStep};

/// Inputs that one payment joins, so that payouts do not pile up.
const JOINED_COUNT: usize = 200;
const FEE: u64 = 3_000_000;

/// What happened, so that a run shows that it tried everything.
#[derive(Debug, Default)]
struct Seen {
    slots: u64,
    unattested: u64,
    pauses: u64,
    joins: u64,
    exits: u64,
    slashed: u64,
    payouts: u64,
    /// Entries jailed that had power before, and those that came back.
    sentenced: u64,
    returned: u64,
    /// Sizes that the set had.
    sizes: BTreeSet<usize>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.slots += other.slots;
        self.unattested += other.unattested;
        self.pauses += other.pauses;
        self.joins += other.joins;
        self.exits += other.exits;
        self.slashed += other.slashed;
        self.payouts += other.payouts;
        self.sentenced += other.sentenced;
        self.returned += other.returned;
        self.sizes.extend(other.sizes);
    }

    fn smallest(&self) -> usize {
        self.sizes.first().copied().unwrap_or(0)
    }

    fn largest(&self) -> usize {
        self.sizes.last().copied().unwrap_or(0)
    }
}

/// What world to make, and for how long.
#[derive(Clone, Copy)]
struct Plan {
    /// Masternodes of the genesis.
    members: usize,
    max_validators: u64,
    /// The registry is led towards this size: joins and exits balance there, whatever the length of the run.
    goal: usize,
    slots: u64,
}

struct World {
    plan: Plan,
    chain: Chain,
    rng: Rng,
    /// Value of all coins, from what blocks made and spent.
    coins: i128,
    /// Coins of the purse.
    purse: BTreeMap<OutPoint, TxOutput>,
    /// Issued and burned so far, from what blocks show.
    issued: u64,
    burned: u64,
    next_key: u64,
    seen: Seen,
}

/// Mainnet's rules with shorter periods, so that everything comes round.
fn params(max_validators: u64) -> Params {
    let mut params = Params::of(Network::Main);
    params.max_validators = max_validators;
    params.unbonding = 24;
    params.trusting_period = 16;
    params.expel_after = 40;
    params.payout_period = 12;
    params
}

impl World {
    fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.members as u64);
        let tiers = [1_000, 1_000, 2_500, 10_000, 100_000];
        let collaterals = (0..plan.members).map(|_| tiers[rng.below(5) as usize]);
        let collaterals: Vec<u64> = collaterals.collect();
        let genesis = genesis(params(plan.max_validators), &collaterals, 40);
        let chain = Chain::new(&genesis);
        let coins = chain.coins.0.values().map(|c| i128::from(c.output.value.0));
        World {
            coins: coins.sum(),
            purse: genesis.coins().into_iter().collect(),
            issued: chain.state.tip.supply.issued.0,
            burned: 0,
            next_key: 1_000_000,
            seen: Seen {
                sizes: BTreeSet::from([plan.members]),
                ..Seen::default()
            },
            plan,
            chain,
            rng,
        }
    }

    /// A transaction that spends coins of the purse worth more than `first` and the fee; what is left returns.
    fn tx(
        &mut self,
        kind: TxKind,
        first: Option<TxOutput>,
        payload: Vec<u8>,
        auth: usize,
        count: usize,
    ) -> Option<Tx> {
        let wanted = first.map_or(0, |o| o.value.0) + FEE + 100_000;
        let (mut inputs, mut sum) = (Vec::new(), 0);
        while inputs.len() < count || sum < wanted {
            let (outpoint, output) = self.purse.pop_first()?;
            sum += output.value.0;
            inputs.push(outpoint);
        }
        let change = TxOutput {
            value: Amount(sum - first.map_or(0, |o| o.value.0) - FEE),
            program: purse(),
        };
        let witnesses = inputs.iter().map(|_| Witness::Key(UNSIGNED));
        Some(Tx::new(Transaction {
            witnesses: BoundedVec::take_from(witnesses),
            auth: BoundedVec::take_from(vec![UNSIGNED; auth]),
            body: TxBody {
                version: TX_VERSION,
                kind,
                inputs: BoundedVec::take_from(inputs),
                outputs: BoundedVec::take_from(first.into_iter().chain([change])),
                payload: BoundedBytes::try_from(payload).expect("a short payload"),
            },
        }))
    }

    fn register(&mut self) -> Option<Tx> {
        let owner = self.next_key;
        self.next_key += 2;
        let tiers = [1_000, 1_000, 5_000, 12_345];
        let time = tiers[self.rng.below(4) as usize];
        let locked = TxOutput {
            value: Amount(time * 100_000_000 + self.rng.below(100_000_000)),
            program: purse(),
        };
        let payload = codec::encode(&Register {
            owner: key(owner).public(),
            operator: key(owner + 1).public(),
            payout: purse(),
            endpoint: Endpoint::try_from(b"a:1".to_vec()).expect("short"),
        });
        self.tx(TxKind::Register, Some(locked), payload, 1, 1)
    }

    fn some_entry(&mut self) -> Option<Entry> {
        let count = self.chain.state.registry().len() as u64;
        let entry = &self.chain.state.registry().entries()[self.rng.below(count) as usize];
        (!entry.is_leaving()).then(|| entry.clone())
    }

    fn unregister(&mut self) -> Option<Tx> {
        let id = self.some_entry()?.id;
        let payload = codec::encode(&Unregister { id });
        self.tx(TxKind::Unregister, None, payload, 1, 1)
    }

    /// Two precommits of one round by somebody, about the tip.
    fn evidence(&mut self) -> Option<Evidence> {
        let entry = self.some_entry()?;
        let height = self.chain.state.height();
        if height == Height(0) {
            return None;
        }
        let vote = |block| Vote {
            body: VoteBody {
                step: VoteStep::Precommit,
                branch: Branch(0),
                era: Era(0),
                height,
                round: Round(7),
                valid_round: None,
                block,
            },
            voter: entry.id,
            signature: UNSIGNED,
        };
        let block = Some(BlockId(Hash([9; 32])));
        Some(Evidence {
            offender: entry.id,
            key: entry.operator_at(height),
            offence: Offence::Votes(vote(None), vote(block)),
        })
    }

    /// Registry transactions and evidence of the next slot block.
    fn events(&mut self) -> (Vec<Tx>, Vec<Evidence>) {
        let mut txs = Vec::new();
        let entries = self.chain.state.registry().entries().iter();
        let staying = entries.filter(|e| !e.is_leaving()).count();
        let (joins, leaves) = match staying < self.plan.goal {
            true => (2, 12),
            false => (12, 3),
        };
        if self.rng.chance(1, joins) {
            txs.extend(self.register());
        }
        if self.rng.chance(1, leaves) {
            txs.extend(self.unregister());
        }
        let many = self.chain.state.validators.len() > 3;
        let evidence = if many && self.rng.chance(1, 60) {
            self.evidence()
        } else {
            None
        };
        (txs, evidence.into_iter().collect())
    }

    fn slot(&mut self) {
        if self.rng.chance(1, 3) {
            self.payment();
        }
        let pause = if self.rng.chance(1, 10) {
            self.seen.pauses += 1;
            1 + self.rng.below(30)
        } else {
            0
        };
        let time = self.chain.slot_time(pause);
        // One in eight slots lacks attesters; of the registry everybody is there, or a few, or many, are not.
        let few = self.rng.chance(1, 8);
        let (seed, absent) = (self.rng.next_u64(), [0, 5, 30][self.rng.below(3) as usize]);
        let of = |i: usize, salt: u64| Rng::new(seed ^ salt ^ (i as u64) << 20).below(100);
        // One in 30 is away for twelve slots on end, long enough for jail.
        let now = self.chain.state.slot_index().0;
        let entries = self.chain.state.registry().entries();
        let away = |i: usize| {
            let id = entries[i].id.0.0;
            let turn = (now + u64::from(id[1] % 12)) / 12;
            Rng::new(turn << 8 | u64::from(id[0])).below(30) == 0
        };
        let attests = |i: usize| !few || of(i, 1) < 40;
        let present = |i: usize| of(i, 2) >= absent && !away(i);
        let attestations = self.chain.attestations(time, attests, present);
        let (txs, evidence) = self.events();
        let part = SlotPart {
            attestations: BoundedVec::take_from(attestations),
            evidence: BoundedVec::take_from(evidence),
        };
        let round = u32::from(self.rng.chance(1, 20));
        let before: Vec<Entry> = self.chain.state.registry().entries().to_vec();
        let pot = self.chain.state.tip.supply.pot;
        let candidates = txs.clone();
        let (block, delta) = self
            .chain
            .step(self.chain.input(time, round, part, candidates));
        self.check(&block, &delta);
        self.check_slot(&block, &delta, &before, pot);
        for tx in txs.iter().filter(|tx| !block.transactions.contains(tx)) {
            self.give_back(tx);
        }
    }

    /// What a block did not take stays where it was.
    fn give_back(&mut self, tx: &Tx) {
        for input in &tx.body().inputs {
            let coin = self.chain.coins.0.get(input).expect("nobody else spends");
            self.purse.insert(*input, coin.output);
        }
    }

    fn payment(&mut self) {
        let count = JOINED_COUNT.min(self.purse.len() / 2).max(1);
        let Some(tx) = self.tx(TxKind::Transfer, None, Vec::new(), 0, count) else {
            return;
        };
        let input = self.chain.state.earliest();
        let input = self.chain.input(input, 0, SlotPart::default(), vec![tx]);
        let (block, delta) = self.chain.step(input);
        self.check(&block, &delta);
    }

    /// The equation, with the value of coins kept here.
    fn check(&mut self, block: &Block, delta: &Delta) {
        for (outpoint, coin) in &delta.created {
            self.coins += i128::from(coin.output.value.0);
            assert_eq!(coin.output.program, purse());
            self.purse.insert(*outpoint, coin.output);
        }
        for (outpoint, coin) in &delta.spent {
            self.coins -= i128::from(coin.output.value.0);
            self.purse.remove(outpoint);
        }
        let state = &self.chain.state;
        let supply = state.tip.supply;
        let entries = state.registry().entries().iter();
        let held: i128 = entries
            .map(|e| i128::from(e.accrued.0) + i128::from(e.collateral.value.0 - e.burned.0))
            .sum();
        assert_eq!(
            i128::from(supply.issued.0) - i128::from(supply.burned.0),
            self.coins + i128::from(supply.pot.0) + held,
            "L10 at height {}",
            block.header.height
        );
    }

    /// What the slot paid, worked out from the attestations alone (M5, M6, B5).
    fn check_slot(&mut self, block: &Block, delta: &Delta, before: &[Entry], pot: Amount) {
        let (state, set) = (&self.chain.state, &self.chain.state.last_validators);
        let total = set.total().0;
        let power = |id: &MasternodeId| set.get(id).map_or(0, |m| m.power.0);
        let mut seen = vec![0; before.len()];
        let mut attesting = 0;
        for a in &block.slot_part.attestations {
            attesting += power(&a.body.attester);
            for i in a.body.present.ones() {
                seen[i] += power(&a.body.attester);
            }
        }
        let attested = 3 * attesting > 2 * total;
        let punished =
            |id: &MasternodeId| block.slot_part.evidence.iter().any(|e| e.offender == *id);
        let earns = |(i, e): &(usize, &Entry)| {
            attested && 3 * seen[*i] > total && power(&e.id) > 0 && !punished(&e.id)
        };
        let earners: Vec<(usize, &Entry)> = before.iter().enumerate().filter(earns).collect();
        let active: u64 = earners.iter().map(|(_, e)| e.power().0).sum();
        let fresh = subsidy(state.params().reward_base, active / 1_000);
        self.issued += fresh;
        assert_eq!(state.tip.supply.issued.0, self.issued, "M6: what is issued");
        let slot = delta.slot.as_ref().expect("a slot block");
        // An entry that ends in this block shows what was burned of it by what its program gets back (B5 step 8).
        let burned = before.iter().enumerate().map(|(i, e)| {
            let mut paid = slot.figures.paid.iter();
            let back = paid
                .find(|p| p.position as usize == i)
                .map_or(0, |p| p.collateral.0);
            let now = state.registry().get(&e.id);
            now.map_or(e.collateral.value.0 - back, |now| now.burned.0) - e.burned.0
        });
        self.burned += burned.sum::<u64>();
        assert_eq!(state.tip.supply.burned.0, self.burned, "M7: what is burned");
        let reward = if active >= 1_000 { fresh + pot.0 } else { 0 };
        let coinbase = block.transactions.first();
        let coinbase = coinbase.filter(|tx| tx.body().kind == TxKind::Coinbase);
        let paid: u64 = coinbase.map_or(0, |tx| tx.body().outputs.iter().map(|o| o.value.0).sum());
        let shares = earners.iter().map(|(_, e)| {
            (u128::from(reward) * u128::from(e.power().0) / u128::from(active)) as u64
        });
        let accrued: u64 = shares.sum();
        let told: u64 = (0..before.len()).map(|i| slot.earned(i).0).sum();
        assert_eq!(told, accrued, "the report tells what is accrued");
        let of_report = slot.figures.paid.iter();
        let of_report: u64 = of_report.map(|p| p.rewards.0 + p.collateral.0).sum();
        assert_eq!(
            of_report, paid,
            "B5 step 9: the coinbase is exactly what is due"
        );
        self.note(before, attested, paid);
    }

    fn note(&mut self, before: &[Entry], attested: bool, paid: u64) {
        let (state, registry) = (&self.chain.state, self.chain.state.registry());
        let seen = &mut self.seen;
        seen.slots += 1;
        seen.unattested += u64::from(!attested);
        seen.payouts += u64::from(paid > 0);
        for then in before {
            let now = registry.get(&then.id);
            let jailed = |e: &Entry| matches!(e.standing, Standing::Jailed { .. });
            seen.exits += u64::from(now.is_none());
            seen.sentenced += u64::from(then.is_voting() && now.is_some_and(jailed));
            let back = jailed(then) && then.counts && now.is_some_and(|e| e.is_voting());
            seen.returned += u64::from(back);
        }
        let slot = Some(state.slot_index());
        for entry in registry.entries() {
            seen.joins += u64::from(Some(entry.registered) == slot);
            seen.slashed += u64::from(entry.slashed == slot);
        }
        seen.sizes.insert(state.validators.len());
    }
}

/// Runs the slots of a plan.
fn run(plan: Plan) -> Seen {
    let mut world = World::new(plan);
    for _ in 0..plan.slots {
        world.slot();
    }
    world.seen
}

fn plan((members, max_validators, goal, slots): (usize, u64, usize, u64)) -> Plan {
    Plan {
        members,
        max_validators,
        goal,
        slots,
    }
}

#[test]
fn the_supply_adds_up_to_the_unit_at_every_slot() {
    let mut all = Seen::default();
    for row in [
        (1, 64, 12, 150),
        (2, 64, 12, 150),
        (4, 64, 20, 300),
        (7, 4, 9, 150),
        (40, 64, 40, 60),
        (512, 512, 512, 3),
    ] {
        let plan = plan(row);
        let seen = run(plan);
        assert_eq!(seen.slots, plan.slots, "{seen:?}");
        if plan.slots >= 150 {
            assert!(
                seen.payouts > 5 && seen.joins > 5 && seen.pauses > 5 && seen.unattested > 5,
                "{seen:?}"
            );
        }
        all.add(seen);
    }
    assert_eq!(all.slots, 813);
    let tried = all.sentenced > 5 && all.returned > 0 && all.slashed > 2 && all.exits > 5;
    assert!(tried, "jail, return, evidence and exits: {all:?}");
}

/// Minutes, and with optimisation only: `cargo test --release --test supply -- --ignored --nocapture`.
#[test]
#[ignore = "minutes: run with --release -- --ignored"]
fn the_supply_adds_up_over_100_000_slots() {
    let begun = std::time::Instant::now();
    let mut all = Seen::default();
    let told = |what: &str, seen: &Seen, since: std::time::Instant| {
        let (from, to) = (seen.smallest(), seen.largest());
        let seen = format!(
            "{} slots, sets of {from} to {to}, {} joins, {} exits, {} jailed, {} returned, {} slashed, {} unattested, {} pauses, {} payouts",
            seen.slots,
            seen.joins,
            seen.exits,
            seen.sentenced,
            seen.returned,
            seen.slashed,
            seen.unattested,
            seen.pauses,
            seen.payouts
        );
        println!("{what}: {seen}; {:.1} s", since.elapsed().as_secs_f64());
    };
    for row in [
        (1, 512, 6, 25_000),
        (2, 512, 9, 20_000),
        (3, 512, 14, 15_000),
        (4, 64, 24, 14_000),
        (10, 16, 24, 10_000),
        (31, 512, 40, 6_000),
        (100, 512, 110, 2_000),
        (200, 128, 200, 580),
        (4, 512, 540, 2_000),
        (512, 512, 540, 300),
    ] {
        let since = std::time::Instant::now();
        let seen = run(plan(row));
        told(&format!("{} masternodes at first", row.0), &seen, since);
        all.add(seen);
    }
    // And every size on its own.
    let since = std::time::Instant::now();
    let mut sized = Seen::default();
    for members in 1..=512 {
        sized.add(run(plan((members, 512, members, 10))));
    }
    told("each size for ten slots", &sized, since);
    all.add(sized);
    told("all", &all, begun);
    assert!(all.slots >= 100_000, "{}", all.slots);
    assert!((1..=512).all(|size| all.sizes.contains(&size)), "{all:?}");
}
