//! Masternodes over slots (M4 to M7): attested, paid, jailed, returned, registered, released, slashed; whole networks with the
//! real machines, endpoints that are probed and evidence that travels.

use super::{SECOND, fail, this_test};
use std::sync::Arc;
use timecoin::base::bounded::BoundedVec;
use timecoin::ledger::registry::{Entry, Standing};
use timecoin::p2p::messages::{Message, PeerId};
use timecoin::sim::adversary::{self, Adversary, Outgoing, Tools};
use timecoin::sim::kit::{Role, endpoint, program};
use timecoin::sim::stage::{Kind, Pick};
use timecoin::sim::world::{Options, World};
use timecoin::types::ids::*;
use timecoin::types::vote::{Vote, VoteStep};

/// Length of a devnet slot, s.
const SLOT: u64 = 5;

fn quiet(seed: u64, masternodes: usize) -> Options {
    Options {
        pay_every_ms: 2_000,
        ..Options::devnet(seed, masternodes)
    }
}

fn pass(world: &mut World, options: &Options, seconds: u64) {
    if let Err(violation) = world.run(seconds * SECOND) {
        fail(options, &violation, &this_test());
    }
}

/// Runs until something is true of the network; whether it came true in time.
fn until(
    world: &mut World,
    options: &Options,
    seconds: u64,
    done: impl Fn(&World) -> bool,
) -> bool {
    match world.run_until(seconds * SECOND, done) {
        Ok(done) => done,
        Err(violation) => fail(options, &violation, &this_test()),
    }
}

fn id(world: &World, i: usize) -> MasternodeId {
    world.genesis().masternodes[i].id()
}

fn entry<'a>(world: &'a World, id: &MasternodeId) -> &'a Entry {
    world.entry(id).expect("registered")
}

fn is_jailed(world: &World, id: &MasternodeId) -> bool {
    let entry = world.entry(id);
    entry.is_some_and(|e| matches!(e.standing, Standing::Jailed { .. }))
}

fn is_voting(world: &World, id: &MasternodeId) -> bool {
    world.entry(id).is_some_and(|e| e.is_voting())
}

#[test]
fn slots_are_attested_and_rewards_accrue() {
    let options = quiet(41, 4);
    let mut world = World::new(options.clone());
    pass(&mut world, &options, 12 * SLOT);
    let state = world.state_of(0).expect("it runs");
    let attested = entry(&world, &id(&world, 0)).present;
    assert!(
        attested >= 10,
        "M4: nearly every slot is attested: {attested}"
    );
    for i in 0..4 {
        let entry = entry(&world, &id(&world, i));
        assert_eq!(entry.absent, 0, "M5: everybody is there");
    }
    assert!(
        state.tip.supply.issued
            > timecoin::ledger::state::State::genesis(world.genesis())
                .tip
                .supply
                .issued,
        "M6: attested slots pay"
    );
    let paid = world.coins_of(0, &program(Role::Owner, 0));
    assert!(paid > 0, "M6: paid out every payout_period slot blocks");
}

#[test]
fn one_masternode_alone_attests_itself() {
    let options = quiet(42, 1);
    let mut world = World::new(options.clone());
    pass(&mut world, &options, 6 * SLOT);
    assert!(entry(&world, &id(&world, 0)).present >= 4, "M4: n = 1");
}

#[test]
fn an_equivocator_is_slashed_everywhere() {
    let options = quiet(43, 5);
    let mut world = World::new(options.clone());
    world.corrupt(4, adversary::make(0, 43));
    let liar = id(&world, 4);
    let slashed = |w: &World| w.entry(&liar).is_some_and(|e| e.slashed.is_some());
    assert!(until(&mut world, &options, 20 * SLOT, slashed), "M7");
    let first = entry(&world, &liar).clone();
    assert!(
        first.burned.0 > 0 && !first.is_voting(),
        "M7: burned and gone"
    );
    pass(&mut world, &options, 3 * SLOT);
    for node in 0..4 {
        let state = world.state_of(node).expect("it runs");
        let entry = state
            .registry()
            .get(&liar)
            .expect("until unbonding is over");
        assert_eq!(
            entry.burned, first.burned,
            "M7: the same amount on all nodes"
        );
        assert!(world.evidence_of(node).next().is_none(), "used up");
    }
}

/// Behaves while a height is under way, and says something else of it when it is over.
#[derive(Default)]
struct Afterwards(Option<Vote>);

/// Tells one peer, always the same, that it precommits nil, and the others the block.
#[derive(Default)]
struct TwoFaced(Option<PeerId>);

fn against(tools: &Tools<'_>, vote: &Vote) -> Option<Vote> {
    let (me, secret) = tools.operator?;
    let mut vote = vote.clone();
    let mine = vote.voter == *me && vote.body.step == VoteStep::Precommit;
    vote.body.block.take().filter(|_| mine)?;
    vote.signature = secret.sign(&vote.body.signing_hash(tools.chain));
    Some(vote)
}

impl Adversary for Afterwards {
    fn name(&self) -> &'static str {
        "one that contradicts itself when a height is over"
    }
    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let mut out = vec![(to.clone(), message.clone())];
        let Message::Votes(votes) = &*message else {
            return out;
        };
        for vote in votes.iter() {
            let Some(other) = against(&tools, vote) else {
                continue;
            };
            let earlier = self.0.replace(other);
            let over = earlier.filter(|e| e.body.height < vote.body.height);
            let frame = Message::Votes(BoundedVec::take_from(over));
            out.push((to.clone(), Arc::new(frame)));
        }
        out
    }
}

impl Adversary for TwoFaced {
    fn name(&self) -> &'static str {
        "one that tells one peer something else"
    }
    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let Message::Votes(votes) = &*message else {
            return vec![(to, message)];
        };
        let other = |vote: &Vote| against(&tools, vote).unwrap_or_else(|| vote.clone());
        let lie = Message::Votes(BoundedVec::take_from(votes.iter().map(other)));
        let victim = *self.0.get_or_insert(to[0]);
        let (lied_to, others) = to.into_iter().partition(|peer| *peer == victim);
        vec![(lied_to, Arc::new(lie)), (others, message)]
    }
}

fn is_slashed(seed: u64, liar: Box<dyn Adversary>, why: &str) {
    let options = quiet(seed, 5);
    let mut world = World::new(options.clone());
    world.corrupt(4, liar);
    // Whoever lacks a vote gets it from nobody: the two votes never meet while their height is under way.
    world.lose(Pick::of(&[Kind::Repair]));
    let liar = id(&world, 4);
    let slashed = |w: &World| w.entry(&liar).is_some_and(|e| e.slashed.is_some());
    assert!(until(&mut world, &options, 20 * SLOT, slashed), "{why}");
}

#[test]
fn a_second_vote_after_the_decision_is_punished() {
    let why = "M7: votes of the newest heights are compared with what comes late";
    is_slashed(52, Box::new(Afterwards::default()), why);
}

#[test]
fn what_only_the_next_leader_saw_is_punished() {
    let why = "M7: a last_commit is compared with the votes that this node has seen";
    is_slashed(53, Box::new(TwoFaced::default()), why);
}

#[test]
fn who_is_down_is_jailed_and_returns() {
    let options = quiet(44, 6);
    let mut world = World::new(options.clone());
    let away = id(&world, 5);
    pass(&mut world, &options, 2 * SLOT);
    world.crash(5, None);
    assert!(
        until(&mut world, &options, 8 * SLOT, |w| is_jailed(w, &away)),
        "M5: absent for jail_after attested slot blocks"
    );
    pass(&mut world, &options, 2 * SLOT);
    world.power_on(5);
    assert!(
        until(&mut world, &options, 6 * SLOT, |w| is_voting(w, &away)),
        "M5: present, reached by probes, and back"
    );
}

#[test]
fn a_registration_joins_votes_and_is_paid_and_a_dead_endpoint_never() {
    let options = Options {
        observers: 2,
        ..quiet(45, 4)
    };
    let mut world = World::new(options.clone());
    world.equip(4);
    world.equip(5);
    pass(&mut world, &options, SLOT);
    let joins = world.register(4, &endpoint(4));
    let dead = world.register(5, "node-99:1");
    assert!(
        until(&mut world, &options, 6 * SLOT, |w| is_voting(w, &joins)),
        "M5: attested, reached, and in"
    );
    let votes = |w: &World| w.checker.has_spoken(&joins);
    assert!(until(&mut world, &options, 4 * SLOT, votes), "it votes");
    let earns = |w: &World| w.coins_of(0, &program(Role::Owner, 4)) > 0;
    assert!(
        until(&mut world, &options, 8 * SLOT, earns),
        "M6: it is paid"
    );
    let dead = entry(&world, &dead);
    assert!(matches!(dead.standing, Standing::Jailed { .. }), "M4: dead");
    assert_eq!((dead.present, dead.accrued.0), (0, 0), "M4: never present");
}

#[test]
fn a_leaver_gets_its_collateral_back() {
    let options = quiet(46, 6);
    let mut world = World::new(options.clone());
    pass(&mut world, &options, SLOT);
    let leaver = id(&world, 5);
    world.unregister(5, leaver);
    let gone = |w: &World| w.entry(&leaver).is_some_and(|e| !e.is_voting());
    assert!(
        until(&mut world, &options, 3 * SLOT, gone),
        "M5: it lost its power"
    );
    let ended = |w: &World| w.entry(&leaver).is_none();
    assert!(
        until(&mut world, &options, 25 * SLOT, ended),
        "B5.8: after unbonding"
    );
    pass(&mut world, &options, SLOT);
    let back = world.coins_of(0, &program(Role::Owner, 5));
    assert!(
        back >= 1_000 * 100_000_000,
        "B5.8: the collateral is back: {back}"
    );
}

/// M5: what is jailed never lets the unjailed power fall below two thirds of T, so a flood cannot hand the quorum to others.
#[test]
fn the_floor_of_jail_holds_however_many_are_flooded_off() {
    let options = quiet(47, 9);
    let mut world = World::new(options.clone());
    let voting = |w: &World| (0..9).filter(|i| is_voting(w, &id(w, *i))).count();
    pass(&mut world, &options, 2 * SLOT);
    world.crash(7, None);
    world.crash(8, None);
    let two_jailed = |w: &World| voting(w) == 7;
    assert!(
        until(&mut world, &options, 12 * SLOT, two_jailed),
        "22 % are off"
    );
    world.crash(5, None);
    world.crash(6, None);
    for _ in 0..12 {
        pass(&mut world, &options, SLOT);
        assert!(voting(&world) >= 6, "M5: 2T/3 of 9 stay unjailed");
    }
    assert_eq!(
        voting(&world),
        6,
        "one more may be jailed, the last may not"
    );
    let tip = world.checker.tip();
    pass(&mut world, &options, 2 * SLOT);
    assert!(world.checker.tip().0 > tip.0 + 1, "the network goes on");
}

#[test]
fn flooding_off_a_fifth_gives_a_quarter_of_liars_no_third() {
    let options = quiet(48, 9);
    let mut world = World::new(options.clone());
    for liar in [0, 1] {
        world.corrupt(liar, adversary::make(2, 48 + liar as u64));
    }
    pass(&mut world, &options, 2 * SLOT);
    world.crash(7, None);
    world.crash(8, None);
    for _ in 0..12 {
        pass(&mut world, &options, SLOT);
        let state = world.state_of(2).expect("it runs");
        let liars: u64 = [0, 1]
            .iter()
            .filter_map(|i| state.validators.get(&id(&world, *i)))
            .map(|v| v.power.0)
            .sum();
        let total = state.validators.total();
        assert!(
            !is_over_third(Power(liars), total),
            "M5: {liars} of {total} would be able to stop or split the network"
        );
    }
    let bound = timecoin::sim::swarm::liveness_bound(&world);
    if let Err(violation) = world.heal_and_settle(bound) {
        fail(&options, &violation, &this_test());
    }
}

/// Of 100,000 units of power 25,000 are Byzantine, of these kinds, and 22,000 are flooded off: jailed, they leave the liars
/// 25 of 78, less than a third, and the unjailed at least two thirds of all.
fn a_quarter_lies_while_22_percent_are_off(seed: u64, kinds: [usize; 3]) {
    let units = [8, 8, 9, 11, 11, 11, 11, 11, 10, 10];
    let (liars, flooded) = ([0, 1, 2], [3, 4]);
    let options = Options {
        collaterals: units.iter().map(|u| u * 1_000).collect(),
        ..quiet(seed, units.len())
    };
    let mut world = World::new(options.clone());
    for (liar, kind) in liars.into_iter().zip(kinds) {
        world.corrupt(liar, adversary::make(kind, seed + liar as u64));
    }
    let ids: Vec<MasternodeId> = (0..units.len()).map(|i| id(&world, i)).collect();
    let of = |w: &World, nodes: &[usize]| -> (Power, Power) {
        let state = w.state_of(9).expect("it runs");
        let power = nodes.iter().filter_map(|i| state.validators.get(&ids[*i]));
        let power = power.map(|v| v.power.0).sum();
        (Power(power), state.validators.total())
    };
    pass(&mut world, &options, 2);
    let quarter = (Power(25_000), Power(100_000));
    assert_eq!(of(&world, &liars), quarter, "none is slashed yet");
    flooded.iter().for_each(|i| world.crash(*i, None));
    let mut least = Power(u64::MAX);
    for _ in 0..14 {
        pass(&mut world, &options, SLOT);
        let (lying, total) = of(&world, &liars);
        assert!(
            !is_over_third(lying, total),
            "M5: {lying} of {total} would be able to stop or split the network"
        );
        let slashed = ids.iter().filter_map(|id| world.entry(id));
        let slashed = slashed.filter(|e| e.slashed.is_some()).count();
        assert!(slashed <= liars.len(), "M7: only liars");
        if slashed == 0 {
            assert!(3 * total.0 >= 2 * 100_000, "M5: two thirds of T: {total}");
        }
        least = least.min(of(&world, &flooded).0);
    }
    assert_eq!(least, Power(0), "M5: who is flooded off is jailed");
    let tip = world.checker.tip();
    pass(&mut world, &options, 3 * SLOT);
    assert!(world.checker.tip().0 > tip.0 + 2, "the network goes on");
    let bound = timecoin::sim::swarm::liveness_bound(&world);
    if let Err(violation) = world.heal_and_settle(bound) {
        fail(&options, &violation, &this_test());
    }
}

#[test]
fn a_quarter_withholds_and_lies_about_heights_while_22_percent_are_off() {
    a_quarter_lies_while_22_percent_are_off(54, [2, 8, 3]);
}

#[test]
fn a_quarter_equivocates_and_splits_while_22_percent_are_off() {
    a_quarter_lies_while_22_percent_are_off(55, [0, 1, 3]);
}

#[test]
fn a_quarter_forges_repeats_and_floods_while_22_percent_are_off() {
    a_quarter_lies_while_22_percent_are_off(56, [5, 4, 12]);
}

#[test]
fn dead_power_that_registers_gets_none() {
    let options = Options {
        holders: 16,
        ..quiet(49, 4)
    };
    let mut world = World::new(options.clone());
    pass(&mut world, &options, SLOT);
    let dead: Vec<MasternodeId> = (10..16).map(|n| world.register(n, "node-99:1")).collect();
    pass(&mut world, &options, 10 * SLOT);
    for id in &dead {
        let entry = entry(&world, id);
        assert!(!entry.is_voting() && entry.accrued.0 == 0, "M4: {entry:?}");
    }
    let state = world.state_of(0).expect("it runs");
    assert_eq!(
        state.validators.len(),
        4,
        "60 % of the power is dead and has no vote"
    );
    assert!(
        state.slot_index().0 >= 10,
        "a block in every slot all the same"
    );
}

#[test]
fn one_with_nearly_a_third_may_go_and_come_back() {
    let mut options = quiet(50, 8);
    options.collaterals[7] = 3_000;
    let mut world = World::new(options.clone());
    let great = id(&world, 7);
    pass(&mut world, &options, 2 * SLOT);
    world.crash(7, None);
    assert!(
        until(&mut world, &options, 12 * SLOT, |w| is_jailed(w, &great)),
        "M5: 30 % are within the cap and above the floor"
    );
    world.power_on(7);
    assert!(
        until(&mut world, &options, 10 * SLOT, |w| is_voting(w, &great)),
        "M5: the first of the queue always goes"
    );
}

/// Evidence that no slot block has taken yet is not forgotten by a power cut.
#[test]
fn evidence_survives_a_restart_of_everybody() {
    let options = quiet(51, 5);
    let mut world = World::new(options.clone());
    world.corrupt(4, adversary::make(0, 51));
    let liar = id(&world, 4);
    let held = |w: &World| (0..4).any(|i| w.evidence_of(i).next().is_some());
    let slashed = |w: &World| w.entry(&liar).is_some_and(|e| e.slashed.is_some());
    assert!(until(&mut world, &options, 10 * SLOT, held), "M7: found");
    // Long enough for the disks, not for a slot block.
    if let Err(violation) = world.run(100_000) {
        fail(&options, &violation, &this_test());
    }
    assert!(!slashed(&world), "no slot block has taken it");
    (0..5).for_each(|i| world.crash(i, None));
    pass(&mut world, &options, 1);
    (0..4).for_each(|i| world.power_on(i));
    assert!(
        until(&mut world, &options, 6 * SLOT, slashed),
        "M7: the liar is gone for good although it says nothing any more"
    );
}
