//! How often one address, and one network group, may begin a TLS handshake: each costs this node more than the newcomer.
//!
//! Input: address and time of a newcomer. Output: yes or no. Must never hold more than its bounds, or count what comes from
//! this host itself, where proxies and tunnels bring everybody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::base::time::MonoUs;
use crate::p2p::address::{Group, Range, is_this_host};
use crate::p2p::buckets::Bucket;

use super::config::HandshakeRates;
use super::limits::HANDSHAKE_SOURCES_MAX;

/// What one handshake takes: rates are given per minute, buckets count per second.
const COST: u64 = 60;
/// A bucket holds what flows in during this time: a node that restarts a few times in a row finds the door open.
const BURST_S: u64 = 20;

/// The buckets of those who came lately.
pub(super) struct Handshakes {
    rates: HandshakeRates,
    addresses: BTreeMap<Range, Bucket>,
    groups: BTreeMap<Group, Bucket>,
    begin: Instant,
}

impl Handshakes {
    pub fn new(rates: HandshakeRates, now: Instant) -> Self {
        let (addresses, groups) = Default::default();
        Handshakes {
            rates,
            addresses,
            groups,
            begin: now,
        }
    }

    /// Other rates from now on; what was counted is forgotten.
    pub fn set(&mut self, rates: HandshakeRates) {
        if rates != self.rates {
            self.rates = rates;
            self.addresses.clear();
            self.groups.clear();
        }
    }

    /// Whether a newcomer may begin a handshake; if so, it is counted.
    pub fn may_begin(&mut self, address: IpAddr, now: Instant) -> bool {
        if is_this_host(address) {
            return true;
        }
        let now = now.saturating_duration_since(self.begin).as_micros();
        let now = MonoUs(u64::try_from(now).unwrap_or(u64::MAX));
        let rates = self.rates;
        let of_address = Range::of_stranger(address);
        let one = bucket(&mut self.addresses, of_address, rates.per_address, now);
        if !one.is_open(now) {
            return false;
        }
        let group = bucket(&mut self.groups, Group::of(address), rates.per_group, now);
        if !group.is_open(now) {
            return false;
        }
        group.take(now, COST);
        bucket(&mut self.addresses, of_address, rates.per_address, now).take(now, COST);
        true
    }
}

/// The bucket of a source. When all places are taken, those that have been quiet are forgotten, or else the fullest.
fn bucket<K: Ord + Copy>(
    all: &mut BTreeMap<K, Bucket>,
    of: K,
    rate: u64,
    now: MonoUs,
) -> &mut Bucket {
    if all.len() >= HANDSHAKE_SOURCES_MAX && !all.contains_key(&of) {
        all.retain(|_, bucket| !bucket.is_full(now));
        let fullest = all.iter().max_by_key(|(_, bucket)| bucket.level());
        if let Some(fullest) = fullest.map(|(of, _)| *of)
            && all.len() >= HANDSHAKE_SOURCES_MAX
        {
            all.remove(&fullest);
        }
    }
    let burst = rate.saturating_mul(BURST_S);
    all.entry(of)
        .or_insert_with(|| Bucket::new(rate, burst, now))
}

#[cfg(test)]
mod tests {
    use super::super::reactor::any_instant;
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rates(per_address: u64, per_group: u64) -> HandshakeRates {
        HandshakeRates {
            per_address,
            per_group,
        }
    }

    #[test]
    fn one_address_begins_a_burst_and_then_its_rate() {
        let start = any_instant();
        let mut all = Handshakes::new(rates(60, 0), start);
        let mut begun = 0;
        for second in 0..60 {
            for _ in 0..100 {
                let now = start + Duration::from_secs(second);
                begun += u32::from(all.may_begin(ip("10.1.1.1"), now));
            }
        }
        assert!(
            (79..=81).contains(&begun),
            "20 at once, 1 in a second: {begun}"
        );
        assert!(
            all.may_begin(ip("10.1.1.2"), start),
            "others are not concerned"
        );
        assert!(
            (0..1_000).all(|_| all.may_begin(ip("127.0.0.1"), start)),
            "this host"
        );
    }

    #[test]
    fn a_network_group_has_a_rate_of_its_own_and_zero_is_no_limit() {
        let start = any_instant();
        let mut all = Handshakes::new(rates(0, 60), start);
        let mut begin = |host: u32| all.may_begin(ip(&format!("10.1.1.{}", host % 256)), start);
        let begun = (0..256).filter(|host| begin(*host)).count();
        assert_eq!(begun, 20, "addresses of one /24 share");
        assert!(all.may_begin(ip("10.1.2.1"), start));
        all.set(rates(0, 0));
        assert!((0..1_000).all(|_| all.may_begin(ip("10.1.1.1"), start)));
        let mut v6 = Handshakes::new(rates(60, 0), start);
        let begun = (0..100).filter(|i| v6.may_begin(ip(&format!("2001:db8::{i}")), start));
        assert_eq!(begun.count(), 20, "a host has a whole /64 of IPv6");
    }

    #[test]
    fn sources_are_bounded_and_who_floods_is_remembered() {
        let start = any_instant();
        let mut all = Handshakes::new(rates(60, 0), start);
        while all.may_begin(ip("10.1.1.1"), start) {}
        for i in 0..2 * HANDSHAKE_SOURCES_MAX as u32 {
            let [_, b, c, d] = i.to_be_bytes();
            all.may_begin(IpAddr::from([20, b, c, d]), start);
        }
        assert!(all.addresses.len() <= HANDSHAKE_SOURCES_MAX);
        assert!(all.groups.len() <= HANDSHAKE_SOURCES_MAX);
        assert!(
            !all.may_begin(ip("10.1.1.1"), start),
            "its bucket is the emptiest"
        );
    }
}
