//! Who has power at the next height (M5, B5 step 7): leavers go, the absent are jailed, the present return, and the
//! greatest form the set; all within caps that keep the quorum from being moved quickly.

use crate::ledger::registration::PendingOperators;
use crate::ledger::registry::{Entry, FormerOperator, Registry, Standing};
use crate::types::ids::*;
use crate::types::params::Params;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What a change of the set depends on beside the registry.
pub(crate) struct Change<'a> {
    pub params: &'a Params,
    /// Number of this slot block.
    pub now: SlotIndex,
    /// Height of this slot block.
    pub height: Height,
    /// Power of the set in force: the base of the caps.
    pub total: Power,
    /// Whether the slot is attested; if not, nobody is jailed, returns or is expelled.
    pub attested: bool,
}

/// One of the two caps of S/3; the first through always passes, whatever its power.
struct Cap {
    used: u64,
    total: u64,
}

impl Cap {
    fn fits(&self, power: Power) -> bool {
        3 * (u128::from(self.used) + u128::from(power.0)) <= u128::from(self.total)
    }
    fn take(&mut self, power: Power, is_first: bool) -> bool {
        let passes = is_first || self.fits(power);
        if passes {
            self.used = self.used.saturating_add(power.0);
        }
        passes
    }
}

fn sum(entries: &[Entry], which: impl Fn(&Entry) -> bool) -> u128 {
    let chosen = entries.iter().filter(|e| which(e));
    chosen.map(|e| u128::from(e.power().0)).sum()
}

impl Change<'_> {
    /// All of step 7.
    pub fn run(&self, registry: &mut Registry, pending: PendingOperators) {
        let mut leaving = Cap {
            used: 0,
            total: self.total.0,
        };
        self.release_leavers(registry, &mut leaving);
        if self.attested {
            self.expel(registry);
            self.jail(registry, &mut leaving);
        }
        self.enter(registry);
        self.displace(registry);
        self.change_keys(registry, pending);
    }

    fn voters(registry: &Registry) -> u64 {
        registry.entries().iter().filter(|e| e.is_voting()).count() as u64
    }

    /// Whether one member with power fewer leaves min_validators.
    fn may_shrink(&self, registry: &Registry) -> bool {
        Change::voters(registry) > self.params.min_validators
    }

    fn leave(&self, entry: &mut Entry) {
        entry.standing = Standing::Gone { exit: self.now };
        entry.counts = false;
        entry.queued = None;
    }

    /// Leavers without power go at once: they move no power. Those with power go in the order of their requests.
    fn release_leavers(&self, registry: &mut Registry, cap: &mut Cap) {
        let mut queue = Vec::new();
        for (i, entry) in registry.entries_mut().iter_mut().enumerate() {
            match (entry.leaving, entry.standing) {
                (None, _) | (_, Standing::Gone { .. }) => {}
                (Some(asked), Standing::Voting) => queue.push((asked, i)),
                (Some(_), _) => self.leave(entry),
            }
        }
        queue.sort_unstable();
        for (turn, (_, i)) in queue.into_iter().enumerate() {
            let power = registry.entries()[i].power();
            if !self.may_shrink(registry) || !cap.take(power, turn == 0) {
                break;
            }
            self.leave(&mut registry.entries_mut()[i]);
        }
    }

    /// Jailed without a break for expel_after, and not present enough to return: leaves as by Unregister.
    fn expel(&self, registry: &mut Registry) {
        for entry in registry.entries_mut() {
            if let Standing::Jailed { since } = entry.standing {
                let over = since.0.saturating_add(self.params.expel_after) <= self.now.0;
                if over && entry.present < self.params.unjail_after {
                    entry.leaving = Some(self.now);
                    self.leave(entry);
                }
            }
        }
    }

    /// The longest absent first, each only while what stays unjailed is at least 2T/3, within the cap and above the floor.
    fn jail(&self, registry: &mut Registry, cap: &mut Cap) {
        let all = registry.entries();
        let counted = |e: &Entry| e.counts && !e.is_leaving();
        let total = sum(all, counted);
        let mut unjailed = sum(all, |e| counted(e) && e.is_voting());
        let mut candidates: Vec<usize> = (0..all.len())
            .filter(|i| {
                let e = &all[*i];
                let free = matches!(e.standing, Standing::Voting | Standing::StandBy);
                free && !e.is_leaving() && e.absent >= self.params.jail_after
            })
            .collect();
        candidates.sort_by_key(|i| (Reverse(all[*i].absent), *i));
        for i in candidates {
            let (power, voting) = {
                let entry = &registry.entries()[i];
                (entry.power(), entry.is_voting())
            };
            if voting {
                let rest = unjailed.saturating_sub(u128::from(power.0));
                let stays = 3 * rest >= 2 * total && self.may_shrink(registry);
                if !stays || !cap.take(power, false) {
                    continue;
                }
                unjailed = rest;
            }
            let entry = &mut registry.entries_mut()[i];
            entry.standing = Standing::Jailed { since: self.now };
            entry.queued = None;
        }
    }

    /// Returns, activations and stand-by to the set, in queue order under the cap. Who would not be among the greatest
    /// max_validators stands by.
    fn enter(&self, registry: &mut Registry) {
        let waiting = self.queue(registry);
        let seats = {
            let all = registry.entries();
            let voting = (0..all.len()).filter(|i| all[*i].is_voting());
            self.greatest(registry, voting.chain(waiting.iter().copied()))
        };
        let mut cap = Cap {
            used: 0,
            total: self.total.0,
        };
        let (mut is_first, mut open) = (true, true);
        for i in waiting {
            let entry = &mut registry.entries_mut()[i];
            if !seats.contains(&i) {
                entry.standing = Standing::StandBy;
                entry.counts = false;
            } else if open && cap.take(entry.power(), is_first) {
                is_first = false;
                entry.standing = Standing::Voting;
                entry.counts = true;
                entry.queued = None;
            } else {
                // Nobody overtakes.
                open = false;
            }
        }
    }

    /// Positions of those who may enter, by queue order: slot_index since which they wait, then id.
    fn queue(&self, registry: &mut Registry) -> Vec<usize> {
        let mut queue = Vec::new();
        for (i, entry) in registry.entries_mut().iter_mut().enumerate() {
            let present = entry.present >= self.params.unjail_after;
            let waits = match entry.standing {
                Standing::StandBy => true,
                Standing::Jailed { .. } => self.attested && present,
                Standing::Voting | Standing::Gone { .. } => false,
            };
            if waits && !entry.is_leaving() {
                queue.push((*entry.queued.get_or_insert(self.now), i));
            } else if self.attested {
                entry.queued = None;
            }
        }
        queue.sort_unstable();
        queue.into_iter().map(|(_, i)| i).collect()
    }

    /// The greatest max_validators of some entries by power, then lowest id.
    fn greatest(&self, registry: &Registry, some: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut ranked: Vec<usize> = some.collect();
        ranked.sort_by_key(|i| (Reverse(registry.entries()[*i].power()), *i));
        let seats = usize::try_from(self.params.max_validators).unwrap_or(usize::MAX);
        ranked.into_iter().take(seats).collect()
    }

    /// Members that greater entrants pushed out of the set stand by.
    fn displace(&self, registry: &mut Registry) {
        let all = registry.entries();
        let voting = (0..all.len()).filter(|i| all[*i].is_voting());
        let seats = self.greatest(registry, voting);
        for (i, entry) in registry.entries_mut().iter_mut().enumerate() {
            if entry.is_voting() && !seats.contains(&i) {
                entry.standing = Standing::StandBy;
                entry.counts = false;
                entry.queued = Some(self.now);
            }
        }
    }

    /// Operator keys take effect; replaced ones stay while a vote of theirs can still be punished (M1).
    fn change_keys(&self, registry: &mut Registry, pending: PendingOperators) {
        let unbonding = self.params.unbonding;
        for entry in registry.entries_mut() {
            let formers = &mut entry.former_operators;
            formers.retain(|f| f.replaced.0.saturating_add(unbonding) >= self.now.0);
        }
        for (id, key) in pending {
            if let Some(entry) = registry.get_mut(&id) {
                entry.former_operators.push(FormerOperator {
                    key: entry.operator,
                    until: self.height,
                    replaced: self.now,
                });
                entry.operator = key;
            }
        }
    }
}
