//! Which registered endpoints this node must reach itself, and which it has (M4): those of masternodes without power.
//!
//! Input: the registry, results. Output: whom to probe next. A probe is spread over the time it has, so that thousands of
//! dead endpoints cost a few dials a second; an endpoint that fails is tried more and more rarely.

use crate::base::limits::{REGISTERED_COUNT_MAX, Size};
use crate::base::time::MonoUs;
use crate::ledger::registry::Entry;
use crate::types::ids::*;
use crate::types::params::Params;
use std::collections::BTreeMap;

/// Probes that begin at once; others wait [`PAUSE_MS`].
pub const AT_ONCE_MAX: usize = 8;
/// Time between such groups, ms.
pub const PAUSE_MS: u64 = 100;

/// Whether this node holds an entry's endpoint to be reached.
#[derive(Debug, Default)]
pub struct Probes {
    /// Slot block at or after which each was reached last.
    reached: BTreeMap<MasternodeId, SlotIndex>,
    /// When each is to be tried next, and how often that failed.
    next: BTreeMap<MasternodeId, (MonoUs, u32)>,
    due: Option<MonoUs>,
}

/// Spreads masternodes over a time: the same for everybody would be a stampede.
fn spread(id: &MasternodeId, over_ms: u64) -> u64 {
    let bytes = &id.0.0;
    u64::from(u16::from_le_bytes([bytes[0], bytes[1]])) * over_ms / u64::from(u16::MAX)
}

impl Probes {
    /// M4: reached since the endpoint was last named, and at most jail_after slot blocks ago.
    pub fn is_reached(&self, entry: &Entry, now: SlotIndex, params: &Params) -> bool {
        self.reached.get(&entry.id).is_some_and(|at| {
            *at >= entry.endpoint_named && at.0.saturating_add(params.jail_after) >= now.0
        })
    }

    /// Whether it should be reached again before that is over.
    fn is_wanted(&self, entry: &Entry, now: SlotIndex, params: &Params) -> bool {
        self.reached.get(&entry.id).is_none_or(|at| {
            *at < entry.endpoint_named || at.0.saturating_add(params.jail_after / 2) < now.0
        })
    }

    /// The registry or the slot block changed: who is to be probed, of those that need it.
    pub fn plan<'a>(
        &mut self,
        outside: impl Iterator<Item = &'a Entry>,
        slot_index: SlotIndex,
        params: &Params,
        now: MonoUs,
    ) {
        let (mut next, mut reached) = (BTreeMap::new(), BTreeMap::new());
        for entry in outside {
            if let Some(at) = self.reached.get(&entry.id) {
                reached.insert(entry.id, *at);
            }
            if self.is_wanted(entry, slot_index, params) {
                let fresh = !self.is_reached(entry, slot_index, params);
                let over = if fresh {
                    params.heartbeat_interval_ms
                } else {
                    params.slot_ms / 2
                };
                let first = (now.plus_ms(spread(&entry.id, over)), 0);
                let planned = self.next.get(&entry.id).copied();
                let renamed = entry.endpoint_named == slot_index;
                next.insert(entry.id, planned.filter(|_| !renamed).unwrap_or(first));
            }
        }
        (self.next, self.reached) = (next, reached);
        self.due = self.next.values().map(|(at, _)| *at).min();
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        vec![
            Size::new(
                "endpoints reached",
                self.reached.len(),
                REGISTERED_COUNT_MAX,
            ),
            Size::new("endpoints to probe", self.next.len(), REGISTERED_COUNT_MAX),
        ]
    }

    /// Nobody is to be probed.
    pub fn stop(&mut self) {
        self.next.clear();
        self.due = None;
    }

    /// When [`Probes::take`] has somebody.
    pub fn deadline(&self) -> Option<MonoUs> {
        self.due
    }

    /// Whom to probe now.
    pub fn take(&mut self, now: MonoUs, params: &Params) -> Vec<MasternodeId> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let longest = params.slot_ms.saturating_mul(params.jail_after.div_ceil(2));
        let due = self.next.iter_mut().filter(|(_, (at, _))| *at <= now);
        let mut taken = Vec::new();
        for (id, (at, times)) in due.take(AT_ONCE_MAX) {
            taken.push(*id);
            let wait = (params.slot_ms / 4).saturating_mul(1 << (*times).min(16));
            *at = now.plus_ms(wait.min(longest));
            *times += 1;
        }
        let next = self.next.values().map(|(at, _)| *at).min();
        self.due = next.map(|at| at.max(now.plus_ms(PAUSE_MS)));
        taken
    }

    /// An endpoint was reached, with the proof of its operator key.
    pub fn reached(&mut self, id: MasternodeId, slot_index: SlotIndex) {
        self.next.remove(&id);
        self.reached.insert(id, slot_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::registry::{Registry, Standing};
    use crate::ledger::testkit::genesis;
    use crate::types::address::Network;

    fn entry() -> Entry {
        let mut entry = Registry::genesis(&genesis(&[1_000], 1)).entries()[0].clone();
        entry.standing = Standing::Jailed {
            since: SlotIndex(0),
        };
        entry
    }

    #[test]
    fn a_reached_endpoint_is_trusted_for_jail_after_slot_blocks_unless_renamed() {
        let (mut probes, params, mut entry) =
            (Probes::default(), Params::of(Network::Dev), entry());
        assert!(!probes.is_reached(&entry, SlotIndex(9), &params));
        probes.reached(entry.id, SlotIndex(9));
        assert!(probes.is_reached(&entry, SlotIndex(12), &params), "M4");
        assert!(!probes.is_reached(&entry, SlotIndex(13), &params), "M4");
        entry.endpoint_named = SlotIndex(10);
        assert!(
            !probes.is_reached(&entry, SlotIndex(10), &params),
            "M4: since it was last named"
        );
    }

    #[test]
    fn a_dead_endpoint_is_tried_more_and_more_rarely_and_a_good_one_in_time() {
        let (mut probes, params, entry) = (Probes::default(), Params::of(Network::Dev), entry());
        probes.plan([&entry].into_iter(), SlotIndex(1), &params, MonoUs(0));
        let (mut tries, mut now) = (Vec::new(), MonoUs(0));
        while now.0 < 600_000_000 {
            now = probes.deadline().unwrap();
            if probes.take(now, &params) == vec![entry.id] {
                tries.push(now.0 / 1_000);
            }
        }
        assert!(tries[0] <= params.heartbeat_interval_ms);
        assert!(tries.windows(2).all(|w| w[1] - w[0] <= 2 * params.slot_ms));
        assert!(tries.len() < 70, "{}", tries.len());
        probes.reached(entry.id, SlotIndex(1));
        probes.plan([&entry].into_iter(), SlotIndex(2), &params, now);
        assert_eq!(probes.deadline(), None);
        probes.plan([&entry].into_iter(), SlotIndex(3), &params, now);
        assert!(probes.deadline().is_some(), "again before it is too old");
        probes.plan(std::iter::empty(), SlotIndex(4), &params, now);
        assert!(probes.reached.is_empty(), "gone with its entry");
    }
}
