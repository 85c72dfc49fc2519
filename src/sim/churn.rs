//! Masternodes that come, go and change while everything else goes wrong. Owners act by the dice, and so that the protocol's
//! own assumption holds: whatever set the registry may make of it, Byzantine and forgetful power stays below a third of it.
//!
//! Input: the odds of [`crate::sim::faults::Faults`], the registry of the newest block. Output: registry transactions of
//! clients, long outages. Never: anything that an owner or a power station could not do.

use crate::ledger::registry::{Entry, Registry};
use crate::sim::kit::{Role, endpoint, program};
use crate::sim::node::Node;
use crate::sim::world::World;
use crate::types::ids::MasternodeId;
use crate::types::transaction::{Endpoint, Update};
use std::collections::BTreeSet;

/// Where nobody can be reached.
const NOWHERE: &str = "node-9999:1";
/// An absence that jails (M5), µs: from four to twelve slots of a devnet.
const AWAY_US: (u64, u64) = (20_000_000, 60_000_000);
/// Members below which the registry jails nobody and lets nobody go (M5, devnet).
const MEMBERS_MIN: usize = 4;

impl World {
    /// The registry after the newest block that an honest node has.
    pub(super) fn registry(&self) -> &Registry {
        let honest = self.nodes.iter().filter(|n| n.is_honest());
        let states = honest.map(|n| match &n.running {
            Some(running) => running.replica.state(),
            None => &n.ledger.state,
        });
        let newest = states.max_by_key(|state| state.height());
        newest.unwrap_or(&self.nodes[0].ledger.state).registry()
    }

    /// The least power that a set can have after these members, each with its power, lost those whom M5 may jail.
    pub(super) fn least_after_jail(mut powers: Vec<u64>) -> u64 {
        powers.sort_unstable();
        let total: u64 = powers.iter().sum();
        let few: u64 = powers.iter().take(MEMBERS_MIN).sum();
        few.max((2 * total).div_ceil(3)).min(total)
    }

    /// Whether Byzantine and forgetful power stays below a third of every set that may come, with node `bad` among them and
    /// without the masternode that leaves.
    pub(super) fn endures(&self, bad: Option<usize>, leaver: Option<MasternodeId>) -> bool {
        let registry = self.registry();
        let going: BTreeSet<MasternodeId> = self
            .clients
            .leaving()
            .into_iter()
            .filter_map(|n| self.nodes.get(n)?.operator.as_ref().map(|(id, _)| *id))
            .chain(leaver)
            .collect();
        let stays = |e: &&Entry| !e.is_leaving() && e.slashed.is_none() && !going.contains(&e.id);
        let members = registry.entries().iter().filter(|e| e.counts);
        let powers = members.filter(stays).map(|e| e.power().0).collect();
        let suspect = |n: &&Node| {
            let forgets = n.amnesic || n.abstains || n.signer.unsure.is_some();
            !n.is_honest() || forgets || Some(n.index) == bad
        };
        let suspects = self.nodes.iter().filter(suspect);
        let ids: Vec<MasternodeId> = suspects
            .filter_map(|n| n.operator.as_ref().map(|(id, _)| *id))
            .collect();
        let named: BTreeSet<MasternodeId> = ids.iter().copied().collect();
        let power = |id: &MasternodeId| match registry.get(id) {
            Some(entry) if entry.slashed.is_some() => 0,
            Some(entry) => entry.power().0,
            // Not registered yet, or not any more: it may be soon.
            None => self.genesis().params.min_collateral_time,
        };
        let nameless = ids.iter().filter(|id| **id == MasternodeId::default());
        let nameless = nameless.count().saturating_sub(1) as u64;
        let against: u64 = named.iter().map(power).sum();
        let against = against + nameless * self.genesis().params.min_collateral_time;
        3 * against < World::least_after_jail(powers)
    }

    /// Whether the seed lets masternodes come and go.
    pub(super) fn changes(&self) -> bool {
        self.options.newcomers > 0
    }

    /// Owners act, and long outages begin. Draws nothing where nobody comes and goes.
    pub(super) fn trouble_sets(&mut self) {
        if !self.changes() {
            return;
        }
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        if self.hit(|f| f.away) {
            let (low, high) = AWAY_US;
            let back = low + self.dice.below(high - low);
            self.note(&format!("node {node} is away for {} s", back / 1_000_000));
            self.crash(node, Some(back));
        }
        let (join, leave) = (self.hit(|f| f.join), self.hit(|f| f.leave));
        let (rekey, moves) = (self.hit(|f| f.rekey), self.hit(|f| f.moves));
        let what = self.dice.below(3);
        let Some((id, _)) = self.nodes[node].operator else {
            return;
        };
        let single = self.options.collaterals.len() + self.options.observers;
        let twin = self.options.twins.contains(&node) || node >= single;
        let busy = self.clients.asks_about(node) || self.clients.free() < 2;
        let elsewhere = self.nodes[node].next_operator.is_some();
        if busy || twin || elsewhere {
            return;
        }
        let entry = self.registry().get(&id).map(|e| e.is_leaving());
        match entry {
            None if join => {
                self.note(&format!("node {node} is registered"));
                self.register(node, &endpoint(node));
            }
            Some(false) if leave && self.endures(None, Some(id)) => {
                self.note(&format!("the masternode of node {node} wants to leave"));
                self.unregister(node, id);
            }
            Some(false) if rekey && self.nodes[node].is_honest() => {
                self.note(&format!("node {node} is to get a new operator key"));
                self.rekey(node, id);
            }
            Some(false) if moves => {
                let place = [NOWHERE.to_string(), endpoint(node)].into_iter();
                let place = place.map(|text| Endpoint::try_from(text.into_bytes()).ok());
                let update = Update {
                    id,
                    operator: None,
                    payout: (what == 2).then(|| program(Role::Holder, node)),
                    endpoint: place.take(2).nth(what as usize).flatten(),
                };
                self.note(&format!("node {node} is changed: {update:?}"));
                self.update(node, &update, None);
            }
            _ => {}
        }
    }
}
