//! Whose turn it is (S2, B4): weighted priorities with a skip of leaders whose rounds failed. Pure; the caller bounds the
//! rounds it asks for, as a claimed round of 2^32 must not cost time.

use crate::types::ids::{MasternodeId, Power, Round};
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};

/// Leader state after a block: a priority for each member of the set that decides the next height, and who failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leaders {
    /// Priorities, ascending id: one for each member.
    pub prio: Vec<(MasternodeId, i64)>,
    /// Members whose rounds failed, ascending id.
    pub failed: Vec<MasternodeId>,
}

/// Priorities in the order of the set, with what a step needs beside them.
struct Turn<'a> {
    set: &'a ValidatorSet,
    prio: Vec<i64>,
    /// Positions of E = V \ failed, without those that have no vote (B6).
    eligible: Vec<usize>,
    /// Power of E.
    total: i64,
}

impl Turn<'_> {
    /// One step of B4; `None` only for a set without members.
    fn step(&mut self) -> Option<usize> {
        let greatest = self.eligible.iter().map(|i| self.prio[*i]).max()?;
        let least = self.eligible.iter().map(|i| self.prio[*i]).min()?;
        let (spread, window) = (greatest - least, 2 * self.total);
        if spread > window {
            let q = (spread + window - 1) / window;
            for i in &self.eligible {
                self.prio[*i] /= q;
            }
        }
        let sum: i128 = self
            .eligible
            .iter()
            .map(|i| i128::from(self.prio[*i]))
            .sum();
        // The average of i64 values is an i64.
        let average = sum.div_euclid(self.eligible.len() as i128) as i64;
        for i in &self.eligible {
            self.prio[*i] += self.set.members()[*i].power.0 as i64 - average;
        }
        // The greatest priority; of equal ones the lowest id, which stands first.
        let mut leader = *self.eligible.first()?;
        for i in &self.eligible {
            if self.prio[*i] > self.prio[leader] {
                leader = *i;
            }
        }
        self.prio[leader] -= self.total;
        Some(leader)
    }
}

impl Leaders {
    /// Priority 0 for every member, nobody failed (L14).
    pub fn genesis(set: &ValidatorSet) -> Leaders {
        Leaders {
            prio: set.members().iter().map(|m| (m.id, 0)).collect(),
            failed: Vec::new(),
        }
    }

    fn prio_of(&self, id: &MasternodeId) -> Option<i64> {
        let found = self.prio.binary_search_by(|(i, _)| i.cmp(id)).ok()?;
        Some(self.prio[found].1)
    }

    fn turn<'a>(&self, set: &'a ValidatorSet) -> Turn<'a> {
        let members = set.members();
        let eligible: Vec<usize> = (0..members.len())
            .filter(|i| self.failed.binary_search(&members[*i].id).is_err() && !set.is_barred(*i))
            .collect();
        // At most 512 * 2^40 (B4): far inside i64.
        let total = set.power_of(eligible.iter().copied()).0 as i64;
        let prio = members
            .iter()
            .map(|m| self.prio_of(&m.id).unwrap_or(0))
            .collect();
        Turn {
            set,
            prio,
            eligible,
            total,
        }
    }

    /// The leader of `round` at the next height; costs `round + 1` steps. `None` only for an empty set.
    pub fn leader(&self, set: &ValidatorSet, round: Round) -> Option<MasternodeId> {
        let mut turn = self.turn(set);
        let mut last = None;
        for _ in 0..=round.0 {
            last = Some(turn.step()?);
        }
        last.map(|i| set.members()[i].id)
    }

    /// Leader state after a block whose header names `round`.
    pub fn after_block(&self, set: &ValidatorSet, round: Round) -> Leaders {
        let mut turn = self.turn(set);
        let mut led = vec![false; set.len()];
        let mut last = None;
        for _ in 0..=round.0 {
            last = turn.step();
            match last {
                Some(i) => led[i] = true,
                None => break,
            }
        }
        let members = set.members();
        let failed_before = |i: &usize| self.failed.binary_search(&members[*i].id).is_ok();
        let failed: Vec<usize> = (0..members.len())
            .filter(|i| (led[*i] || failed_before(i)) && Some(*i) != last)
            .collect();
        let power = set.power_of(failed.iter().copied());
        let too_many = 3 * u128::from(power.0) > u128::from(set.total().0);
        Leaders {
            prio: members.iter().map(|m| m.id).zip(turn.prio).collect(),
            failed: if too_many {
                Vec::new()
            } else {
                failed.into_iter().map(|i| members[i].id).collect()
            },
        }
    }

    /// Leader state when `next` takes over at a slot block, after [`Leaders::after_block`].
    pub fn after_set_change(&self, next: &ValidatorSet) -> Leaders {
        let Power(total) = next.total();
        let entrant = -((total + total / 8) as i64);
        let prio = next
            .members()
            .iter()
            .map(|m| (m.id, self.prio_of(&m.id).unwrap_or(entrant)))
            .collect();
        Leaders {
            prio,
            failed: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::PublicKey;
    use crate::types::validators::Validator;

    fn set(powers: &[u64]) -> ValidatorSet {
        let member = |(i, p): (usize, &u64)| Validator {
            id: MasternodeId(Hash([b'A' + i as u8; 32])),
            operator: PublicKey([i as u8; 32]),
            power: Power(*p),
        };
        ValidatorSet::new(powers.iter().enumerate().map(member).collect()).unwrap()
    }

    fn run(powers: &[u64], heights: u64, rounds: &[(u64, u32)]) -> (String, Leaders) {
        let set = set(powers);
        let mut leaders = Leaders::genesis(&set);
        let mut text = String::new();
        for height in 1..=heights {
            let found = rounds.iter().find(|(h, _)| *h == height);
            let round = Round(found.map_or(0, |(_, r)| *r));
            let id = leaders.leader(&set, round).unwrap();
            text.push(char::from(id.0.0[0]));
            leaders = leaders.after_block(&set, round);
        }
        (text, leaders)
    }

    fn prios(leaders: &Leaders) -> Vec<i64> {
        leaders.prio.iter().map(|(_, p)| *p).collect()
    }

    #[test]
    fn the_vectors_of_b4() {
        assert_eq!(run(&[1, 3], 12, &[]).0, "BABBBABBBABB");
        assert_eq!(run(&[1, 2, 3], 18, &[]).0, "CBACBCCBACBCCBACBC");
        assert_eq!(run(&[5, 5, 5, 5], 12, &[]).0, "ABCDABCDABCD");
        let (text, leaders) = run(&[5, 5, 5, 5], 12, &[(3, 1)]);
        assert_eq!(text, "ABDABDABDABD");
        assert_eq!(leaders.failed, [MasternodeId(Hash([b'C'; 32]))]);
        let (text, leaders) = run(&[1_000, 1_000, 10_000, 100_000], 20, &[]);
        assert_eq!(text, "DDDDDCDDDDDDDDDCDDDD");
        assert_eq!(prios(&leaders), [20_000, 20_000, -24_000, -16_000]);
        let four = set(&[1_000, 2_000, 3_000, 4_000]);
        let genesis = Leaders::genesis(&four);
        let rounds: String = (0..10)
            .map(|r| char::from(genesis.leader(&four, Round(r)).unwrap().0.0[0]))
            .collect();
        assert_eq!(rounds, "DCBDACDBCD");
        let (text, leaders) = run(&[1_000, 2_000, 3_000, 4_000], 16, &[(2, 1), (5, 2)]);
        assert_eq!(text, "DBDADDCBDACDBDCD");
        assert_eq!(prios(&leaders), [1_917, 917, 2_250, -5_083]);
        assert!(leaders.failed.is_empty());
    }

    #[test]
    fn entrants_wait_and_members_keep_their_priority() {
        let before = run(&[1_000, 2_000, 3_000], 5, &[]).1;
        let next = set(&[1_000, 2_000, 3_000, 8_000]);
        let after = before.after_set_change(&next);
        assert_eq!(prios(&after)[..3], prios(&before)[..]);
        assert_eq!(
            prios(&after)[3],
            -(14_000 + 1_750),
            "B4: entrants get -(S + S/8)"
        );
        assert!(after.failed.is_empty());
        assert_eq!(Leaders::default().leader(&set(&[]), Round(3)), None);
    }
}
