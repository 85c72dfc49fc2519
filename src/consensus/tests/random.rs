//! Random schedules: 4 to 7 machines, Byzantine power below a third, messages late, lost and repaired, timers early,
//! nodes restarted from their disk. Safety is checked at every step; then the network heals and must decide. Each rule
//! taken away must be caught within a stated number of seeds.

use super::kit::*;
use crate::base::rng::Rng;
use crate::consensus::messages::*;
use crate::consensus::rules::Rules;
use crate::types::vote::VoteStep;
use proptest::prelude::*;

struct Chaos {
    net: Net,
    rng: Rng,
    byzantine: Vec<usize>,
    honest: Vec<usize>,
    /// Messages under way: receiver and position in the log.
    pending: Vec<(usize, usize)>,
    seen: usize,
}

impl Chaos {
    fn new(seed: u64, rules: Rules) -> Chaos {
        let mut rng = Rng::new(seed);
        // Small networks most of the time: their quorums are the tightest.
        let n = [4, 4, 4, 5, 6, 7][rng.below(6) as usize];
        let powers: Vec<u64> = if rng.chance(3, 4) {
            vec![1; n]
        } else {
            (0..n).map(|_| 1 + rng.below(3)).collect()
        };
        let total: u64 = powers.iter().sum();
        let mut byzantine = Vec::new();
        let mut sum = 0;
        for _ in 0..2 * n {
            let i = rng.below(n as u64) as usize;
            if 3 * (sum + powers[i]) < total && !byzantine.contains(&i) {
                sum += powers[i];
                byzantine.push(i);
            }
        }
        let honest: Vec<usize> = (0..n).filter(|i| !byzantine.contains(i)).collect();
        let mut leaders: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            leaders.swap(i, rng.below(i as u64 + 1) as usize);
        }
        // B4: a leader that failed earlier leads no round of this height.
        if rng.chance(1, 2) {
            leaders.pop();
        }
        let mut net = Net::new(&powers, &honest, &leaders, rules);
        net.fetches = rng.chance(2, 3);
        Chaos {
            net,
            rng,
            byzantine,
            honest,
            pending: Vec::new(),
            seen: 0,
        }
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.rng.below(from.len() as u64) as usize]
    }

    /// What the honest said since the last look is on its way to everybody.
    fn collect(&mut self) {
        for i in self.seen..self.net.log.len() {
            let byzantine = match &self.net.log[i] {
                Msg::Vote(v) => self.byzantine.iter().any(|b| id(*b) == v.voter),
                Msg::Proposal(p) => self.byzantine.iter().any(|b| id(*b) == p.proposer),
                Msg::Polka(_) => true,
            };
            if !byzantine {
                self.pending.extend(self.honest.iter().map(|to| (*to, i)));
            }
        }
        self.seen = self.net.log.len();
    }

    fn deliver(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let i = self.rng.below(self.pending.len() as u64) as usize;
        let (to, msg) = self.pending.swap_remove(i);
        if self.rng.chance(9, 10) {
            let msg = self.net.log[msg].clone();
            let acceptable = self.rng.chance(9, 10);
            self.net.give_judged(to, &msg, acceptable);
        }
    }

    fn expire(&mut self) {
        let honest = self.honest.clone();
        let i = self.pick(&honest);
        let timers: Vec<_> = self.net.node(i).timers.iter().copied().collect();
        if !timers.is_empty() {
            let timer = timers[self.rng.below(timers.len() as u64) as usize];
            self.net.fire(i, timer);
        }
    }

    /// A Byzantine node says anything at all about any round to some of the honest.
    fn lie(&mut self) {
        if self.byzantine.is_empty() {
            return;
        }
        let byzantine = self.byzantine.clone();
        let liar = self.pick(&byzantine);
        let honest = self.honest.clone();
        let near = self.pick(&honest);
        let round = self.net.round(near) + u32::from(self.rng.chance(1, 8));
        let leads = self.net.leaders[round as usize % self.net.leaders.len()] == liar;
        let mut blocks = vec![block(liar, round, 0), block(liar, round, 1)];
        blocks.push(block(liar, round, INVALID));
        for msg in &self.net.log {
            if let Msg::Proposal(proposal) = msg {
                blocks.push(proposal.body.block);
            }
        }
        let chosen = blocks[self.rng.below(blocks.len() as u64) as usize];
        let header = header_at(chosen).round.0;
        let vr = (header < round && self.rng.chance(4, 5))
            .then(|| header + self.rng.below(u64::from(round - header)) as u32);
        let named = self.rng.chance(4, 5).then_some(chosen);
        let msg = match self.rng.below(if leads { 4 } else { 2 }) {
            0 => vote(liar, VoteStep::Prevote, round, named, named.and(vr)),
            1 => vote(liar, VoteStep::Precommit, round, named, None),
            _ => proposal(liar, round, chosen, vr),
        };
        for to in honest {
            if self.rng.chance(1, 2) {
                self.net.give(to, &msg);
            }
        }
    }

    fn step(&mut self) {
        let honest = self.honest.clone();
        let i = self.pick(&honest);
        match self.rng.below(100) {
            0..60 => self.deliver(),
            60..75 => self.expire(),
            75..90 => self.lie(),
            90..94 => self.net.input(i, Input::Begin),
            94..96 => {
                let from = self.pick(&honest);
                self.net.repair(from, i);
            }
            96 => self.net.restart(i),
            97 => self.net.revive(i),
            _ => {
                let wanted = self.net.node(i).wanted.iter().next().copied();
                if let Some(block) = wanted {
                    let valid = block.0.0[2] < INVALID;
                    self.net.input(i, Input::Validity { block, valid });
                }
            }
        }
        self.collect();
    }

    fn steps(&mut self, steps: u64) {
        for i in self.honest.clone() {
            if self.rng.chance(2, 3) {
                self.net.input(i, Input::Begin);
            }
        }
        for _ in 0..steps {
            self.step();
        }
    }

    /// What went wrong first, if anything.
    fn run(mut self) -> Result<(), String> {
        let steps = 100 + self.rng.below(300);
        self.steps(steps);
        self.run_out()
    }

    /// Heals, and says what went wrong first, if anything.
    fn run_out(mut self) -> Result<(), String> {
        let healed = self.net.heals_within(4 * self.net.powers.len() as u32);
        if let Some(broken) = self.net.broken.first() {
            return Err(broken.clone());
        }
        if !healed {
            return Err("stuck: healed, yet no decision".to_string());
        }
        Ok(())
    }
}

fn outcome(seed: u64, rules: Rules) -> Result<(), String> {
    Chaos::new(seed, rules).run()
}

/// A short run that ends in a power cut of everybody, with signer stores that forget something, if that is given.
fn power_cut(seed: u64, forgets: Option<Forgets>) -> Result<(), String> {
    let mut chaos = Chaos::new(seed, Rules::default());
    chaos.net.forgets = forgets.into_iter().collect();
    let steps = 30 + chaos.rng.below(170);
    chaos.steps(steps);
    for i in chaos.honest.clone() {
        chaos.net.restart(i);
    }
    chaos.run_out()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_schedule_agrees_and_decides(seed in any::<u64>()) {
        prop_assert_eq!(outcome(seed, Rules::default()), Ok(()), "seed {}", seed);
    }
}

/// The first of `seeds` seeds that catches a mutant, and how.
fn caught(rules: Rules, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| outcome(seed, rules).err().map(|broken| (seed, broken)))
}

/// Takes one rule away; the fault that a seed below `seeds` must show.
fn assert_caught(name: &str, rules: Rules, seeds: u64, fault: &str) {
    let found = caught(rules, seeds);
    let found = found.unwrap_or_else(|| panic!("without {name}: not seen in {seeds} seeds"));
    assert!(found.1.contains(fault), "without {name}: {found:?}");
}

#[test]
fn each_rule_is_needed_and_its_absence_is_seen() {
    let real = Rules::default;
    let mutant = Rules {
        lock: false,
        ..real()
    };
    assert_caught("the lock", mutant, 200, "I4");
    let mutant = Rules {
        quorum_gift: 1,
        ..real()
    };
    assert_caught("a whole quorum", mutant, 20, "no quorum");
    let mutant = Rules {
        strict_lock: false,
        ..real()
    };
    assert_caught("S1(a)", mutant, 500, "S6");
    let mutant = Rules {
        any_round_polka: false,
        ..real()
    };
    assert_caught("S1(b)", mutant, 500, "stuck");
    let mutant = Rules {
        one_valid_round: false,
        ..real()
    };
    assert_caught("one valid round", mutant, 200, "not all signers said");
    let mutant = Rules {
        round_skip: false,
        ..real()
    };
    assert_caught("round skip", mutant, 200, "stuck");
}

#[test]
fn each_record_is_needed_and_its_absence_is_seen() {
    for (forgets, seeds, fault) in [
        (Forgets::Everything, 20, "I1, I2"),
        (Forgets::NilPrecommits, 50, "I1, I2"),
        (Forgets::Locks, 200, "I4"),
        (Forgets::Polkas, 200, "stuck"),
        (Forgets::Entry, 500, "stuck"),
    ] {
        let mut runs = (0..seeds).map(|seed| (seed, power_cut(seed, Some(forgets))));
        let found = runs.find_map(|(seed, end)| end.err().map(|broken| (seed, broken)));
        let found = found.unwrap_or_else(|| panic!("{forgets:?}: not seen in {seeds} seeds"));
        assert!(found.1.contains(fault), "{forgets:?}: {found:?}");
    }
}

#[test]
fn the_protocol_passes_the_seeds_that_find_its_mutants() {
    for seed in 0..500 {
        assert_eq!(outcome(seed, Rules::default()), Ok(()), "seed {seed}");
        assert_eq!(power_cut(seed, None), Ok(()), "seed {seed}, power cut");
    }
}

#[test]
fn without_the_lock_or_a_whole_quorum_two_blocks_are_decided() {
    // The checker's intermediate findings are set aside: these mutants must end in a fork, not only in a suspicion.
    let real = Rules::default;
    for rules in [
        Rules {
            lock: false,
            ..real()
        },
        Rules {
            quorum_gift: 1,
            ..real()
        },
    ] {
        let fork = (0..3_000).find(|seed| {
            let mut chaos = Chaos::new(*seed, rules);
            chaos.steps(400);
            chaos
                .net
                .broken
                .iter()
                .any(|fault| fault.contains("agreement"))
        });
        assert!(fork.is_some(), "{rules:?}");
    }
}
