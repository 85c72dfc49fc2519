//! Who may start a TLS handshake (B2): 64 at once, 4 from one network group.
//!
//! Input: address and time of a newcomer. Output: yes, no, or yes in the place of somebody older. Must never let
//! half-open connections lock honest nodes out: at a full bound the oldest handshake gives way, once it has had time
//! enough for an honest one. Exempt addresses (configured peers, registered endpoints) know no group bound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::p2p::address::{Group, Range};

use super::limits::{HANDSHAKE_EVICTABLE_AFTER, HANDSHAKES_MAX, HANDSHAKES_PER_GROUP_MAX};

/// The verdict on a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admit<K> {
    Yes,
    /// Yes, but this handshake must be closed first.
    InPlaceOf(K),
    No,
}

struct Entry<K> {
    key: K,
    group: Group,
    since: Instant,
}

/// Inbound handshakes under way, oldest first.
pub(super) struct Admission<K> {
    pending: Vec<Entry<K>>,
    per_group: BTreeMap<Group, usize>,
    exempt: BTreeSet<IpAddr>,
    refused: Vec<Range>,
}

impl<K: Copy + PartialEq> Admission<K> {
    pub fn new(exempt: BTreeSet<IpAddr>) -> Self {
        Admission {
            pending: Vec::new(),
            per_group: BTreeMap::new(),
            exempt,
            refused: Vec::new(),
        }
    }

    /// Addresses that are banned.
    pub fn set_refused(&mut self, refused: Vec<Range>) {
        self.refused = refused;
    }

    pub fn set_exempt(&mut self, exempt: BTreeSet<IpAddr>) {
        self.exempt = exempt;
    }

    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(&address.to_canonical())
    }

    /// Judges a newcomer; nothing changes.
    pub fn judge(&self, address: IpAddr, now: Instant) -> Admit<K> {
        if self.refused.iter().any(|range| range.contains(address)) {
            return Admit::No;
        }
        let group = Group::of(address);
        let of_group = self.per_group.get(&group).copied().unwrap_or(0);
        let group_full = of_group >= HANDSHAKES_PER_GROUP_MAX && !self.is_exempt(address);
        let oldest = if group_full {
            self.pending.iter().find(|entry| entry.group == group)
        } else if self.pending.len() >= HANDSHAKES_MAX {
            self.pending.first()
        } else {
            return Admit::Yes;
        };
        match oldest {
            Some(entry)
                if now.saturating_duration_since(entry.since) >= HANDSHAKE_EVICTABLE_AFTER =>
            {
                Admit::InPlaceOf(entry.key)
            }
            _ => Admit::No,
        }
    }

    pub fn start(&mut self, key: K, address: IpAddr, now: Instant) {
        let group = Group::of(address);
        *self.per_group.entry(group).or_insert(0) += 1;
        self.pending.push(Entry {
            key,
            group,
            since: now,
        });
    }

    /// The handshake is over, well or badly. Unknown keys are ignored.
    pub fn finish(&mut self, key: K) {
        let Some(place) = self.pending.iter().position(|entry| entry.key == key) else {
            return;
        };
        let group = self.pending.remove(place).group;
        if let Some(count) = self.per_group.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.per_group.remove(&group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reactor::any_instant;
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn groups_are_24_and_48_bits_and_loopback_counts_singly() {
        assert_eq!(Group::of(ip("10.1.2.3")), Group::of(ip("10.1.2.200")));
        assert_ne!(Group::of(ip("10.1.2.3")), Group::of(ip("10.1.3.3")));
        assert_eq!(
            Group::of(ip("2001:db8:7:1::1")),
            Group::of(ip("2001:db8:7:ffff::1"))
        );
        assert_ne!(
            Group::of(ip("2001:db8:7::1")),
            Group::of(ip("2001:db8:8::1"))
        );
        assert_ne!(
            Group::of(ip("127.0.0.1")),
            Group::of(ip("127.0.0.2")),
            "loopback addresses count singly"
        );
        assert_eq!(
            Group::of(ip("::ffff:10.1.2.3")),
            Group::of(ip("10.1.2.9")),
            "mapped addresses are IPv4"
        );
    }

    #[test]
    fn one_group_cannot_take_all_handshakes() {
        let now = any_instant();
        let mut admission = Admission::new(BTreeSet::new());
        for key in 0..HANDSHAKES_PER_GROUP_MAX {
            assert_eq!(admission.judge(ip("10.0.0.1"), now), Admit::Yes);
            admission.start(key, ip("10.0.0.1"), now);
        }
        assert_eq!(
            admission.judge(ip("10.0.0.99"), now),
            Admit::No,
            "the group is full"
        );
        assert_eq!(
            admission.judge(ip("10.0.1.1"), now),
            Admit::Yes,
            "another group is not"
        );
        admission.finish(2);
        assert_eq!(
            admission.judge(ip("10.0.0.99"), now),
            Admit::Yes,
            "a finished handshake makes room"
        );
    }

    #[test]
    fn a_stalled_handshake_gives_way_and_a_fresh_one_does_not() {
        let now = any_instant();
        let mut admission = Admission::new(BTreeSet::new());
        for key in 0..HANDSHAKES_MAX {
            admission.start(key, IpAddr::from([10, 0, key as u8, 1]), now);
        }
        assert_eq!(admission.judge(ip("192.0.2.1"), now), Admit::No);
        let later = now + HANDSHAKE_EVICTABLE_AFTER + Duration::from_millis(1);
        assert_eq!(
            admission.judge(ip("192.0.2.1"), later),
            Admit::InPlaceOf(0),
            "the oldest gives way"
        );
    }

    #[test]
    fn exempt_addresses_know_no_group_bound_but_the_total() {
        let now = any_instant();
        let mut admission = Admission::new(BTreeSet::from([ip("10.0.0.1")]));
        for key in 0..HANDSHAKES_MAX {
            assert_eq!(admission.judge(ip("10.0.0.1"), now), Admit::Yes);
            admission.start(key, ip("10.0.0.1"), now);
        }
        assert_eq!(admission.judge(ip("10.0.0.1"), now), Admit::No);
    }
}
