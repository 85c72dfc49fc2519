//! The space of [`enumerate`](super::enumerate) with a third round. It is too large to be seen whole: in each phase states are
//! gone through in a random order until there are as many outcomes as the bound allows, and from states that were left
//! random paths go on to the end of the third round. Agreement and I1 to I4 in every state on the way; a decision, once the
//! network heals, from a stated share of the states and from every path.

use super::enumerate::*;
use super::kit::*;
use crate::base::rng::Rng;
use crate::consensus::messages::*;
use crate::consensus::rules::Rules;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Phases in order: round, and proposals, prevotes, precommits, late prevotes. Those after the last round are healing's.
const PHASES: [(u32, u8); 11] = [
    (0, 0),
    (0, 1),
    (0, 2),
    (0, 3),
    (1, 0),
    (1, 1),
    (1, 2),
    (1, 3),
    (2, 0),
    (2, 1),
    (2, 2),
];

/// What is looked at, and what was.
struct Search {
    leaders: [usize; 3],
    rules: Rules,
    /// States of one phase.
    bound: usize,
    /// Random paths from the states that a phase left.
    paths: usize,
    /// Every so manyth state at the end of a round must come to a decision.
    sample: usize,
    rng: Rng,
    states: usize,
    walked: usize,
    healed: usize,
    faults: Vec<String>,
}

impl Search {
    fn new(leaders: [usize; 3], (bound, paths, sample): (usize, usize, usize)) -> Search {
        Search {
            leaders,
            rules: Rules::default(),
            bound,
            paths,
            sample,
            rng: Rng::new(
                leaders
                    .iter()
                    .fold(7, |seed, leader| 10 * seed + *leader as u64),
            ),
            states: 0,
            walked: 0,
            healed: 0,
            faults: Vec::new(),
        }
    }

    fn begin(&self) -> World {
        let [a, b, c] = self.leaders;
        HONEST.map(|i| {
            let mut net = Net::new(&[1; 4], &[i], &[a, b, c, 0, 1, 2], self.rules);
            net.input(i, Input::Begin);
            Rc::new(Alone::new(i, net))
        })
    }

    fn outcomes(&self, world: &World, at: (u32, u8), memo: &mut Memo) -> [Vec<Rc<Alone>>; 3] {
        let (round, leader) = (at.0, self.leaders[at.0 as usize]);
        match at.1 {
            0 => proposals(world, round, leader),
            1 => votes(world, round, Kind::Prevote, memo),
            2 => votes(world, round, Kind::Precommit, memo),
            _ => late(world, round),
        }
    }

    fn see(&mut self, world: &World) {
        self.states += 1;
        self.faults.extend(fault(world));
    }

    fn heal(&mut self, world: &World) {
        self.healed += 1;
        let mut net = together(world);
        if !net.heals_within(8) {
            self.faults.push("stuck after the network healed".into());
        }
        self.faults.extend(net.broken);
    }

    /// A random path from a state after `done` phases to the end of the third round, and healing there.
    fn walk(&mut self, world: &World, done: usize) {
        self.walked += 1;
        let mut world = world.clone();
        for at in &PHASES[done..] {
            let outcomes = self.outcomes(&world, *at, &mut Memo::new());
            for (node, outcomes) in world.iter_mut().zip(outcomes) {
                // Nobody moves on where too little was said: the path ends in what the network must heal.
                let Some(chosen) = outcomes.get(self.rng.below(outcomes.len() as u64) as usize)
                else {
                    continue;
                };
                *node = chosen.clone();
            }
            self.see(&world);
        }
        self.heal(&world);
    }

    fn shuffled(&mut self, worlds: Worlds) -> Vec<World> {
        let mut order: Vec<World> = worlds.into_values().collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        order
    }

    /// Goes through all phases; states of each, and how many of the phase before were gone on from.
    fn run(&mut self) -> Vec<(usize, usize)> {
        let mut worlds = Worlds::new();
        product(self.begin().map(|node| vec![node]), &mut worlds);
        let (mut counts, mut memo) = (Vec::new(), Memo::new());
        for (done, at) in PHASES.into_iter().enumerate() {
            if at.1 == 0 {
                memo = Memo::new();
            }
            let order = self.shuffled(worlds);
            let (mut next, mut used) = (BTreeMap::new(), 0);
            for world in &order {
                if next.len() >= self.bound {
                    break;
                }
                product(self.outcomes(world, at, &mut memo), &mut next);
                used += 1;
            }
            let left = &order[used..];
            let step = (left.len() / self.paths.max(1)).max(1);
            for world in left.iter().step_by(step).take(self.paths) {
                self.walk(world, done);
            }
            if (at, self.leaders[0]) == ((0, 0), D) {
                next.retain(|_, world| is_first_of_twins(world));
            }
            worlds = next;
            counts.push((worlds.len(), used));
            for world in worlds.values() {
                self.see(world);
            }
            if at.1 == 2 {
                let sampled: Vec<World> = worlds.values().step_by(self.sample).cloned().collect();
                sampled.iter().for_each(|world| self.heal(world));
            }
        }
        counts
    }

    fn assert_nothing_found(mut self) {
        let counts = self.run();
        println!(
            "leaders {:?}: {} states, {} of them by {} random paths, {} healed; states and origins by phase {counts:?}",
            self.leaders,
            self.states,
            self.states - counts.iter().map(|(states, _)| states).sum::<usize>(),
            self.walked,
            self.healed
        );
        assert_eq!(self.faults, Vec::<String>::new(), "{:?}", self.leaders);
    }
}

/// Every order of an honest and a Byzantine leader that is not like another one.
const LEADERS: [[usize; 3]; 8] = [
    [0, 1, 2],
    [0, 1, D],
    [0, D, 1],
    [D, 0, 1],
    [0, D, D],
    [D, 0, D],
    [D, D, 0],
    [D, D, D],
];

/// States of a phase, random paths a phase, and one of so many states that must heal: what "make test" affords.
const SMALL: (usize, usize, usize) = (400, 10, 100);
/// The same for a measurement.
const LARGE: (usize, usize, usize) = (60_000, 1_000, 100);

#[test]
fn three_rounds_agree_and_are_never_stuck() {
    for leaders in LEADERS {
        Search::new(leaders, SMALL).assert_nothing_found();
    }
}

#[test]
#[ignore = "a long search: make enumerate"]
fn three_rounds_agree_and_are_never_stuck_in_a_large_space() {
    for leaders in LEADERS {
        Search::new(leaders, LARGE).assert_nothing_found();
    }
}

#[test]
fn a_third_round_finds_the_fork_without_the_lock() {
    let mut search = Search::new([0, 1, 2], SMALL);
    search.rules.lock = false;
    search.run();
    let names = |rule: &str| search.faults.iter().any(|fault| fault.contains(rule));
    assert!(
        names("agreement") && names("I4"),
        "{:?}",
        search.faults.first()
    );
}
