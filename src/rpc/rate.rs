//! Token buckets: how many calls a client may make. Pure: time comes in as data.
//!
//! Callers without credentials are counted by address, users by name. At the bound of remembered clients the fullest
//! bucket is forgotten: it belongs to whoever has been quiet longest, and loses nothing by it.

use crate::base::time::MonoUs;
use std::collections::BTreeMap;

/// Buckets kept at once.
pub const CLIENT_COUNT_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Millionths of a call.
    tokens: u64,
    at: MonoUs,
}

const MICRO: u64 = 1_000_000;

/// Buckets of one kind of client, all with the same rate: `rate` calls a second, at most a second's worth at once.
#[derive(Debug)]
pub struct Buckets<K: Ord> {
    rate: u64,
    clients: BTreeMap<K, Bucket>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// `rate` calls a second; 0 is no limit.
    pub fn new(rate: u64) -> Buckets<K> {
        Buckets {
            rate,
            clients: BTreeMap::new(),
        }
    }

    /// Changes the rate; buckets start full again.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
        self.clients.clear();
    }

    /// Takes `calls` from a client's bucket. The error is how many milliseconds later they would have been there; a
    /// batch larger than a whole bucket passes when the bucket is full, and leaves it empty.
    pub fn take(&mut self, now: MonoUs, client: &K, calls: u64) -> Result<(), u64> {
        if self.rate == 0 {
            return Ok(());
        }
        let full = self.rate.saturating_mul(MICRO);
        let bucket = self.clients.get(client).copied();
        let bucket = bucket.unwrap_or(Bucket {
            tokens: full,
            at: now,
        });
        // Microseconds times calls a second are millionths of a call.
        let grown = now.since(bucket.at).saturating_mul(self.rate);
        let tokens = bucket.tokens.saturating_add(grown).min(full);
        let wanted = calls.saturating_mul(MICRO).min(full);
        let (left, verdict) = match tokens.checked_sub(wanted) {
            Some(left) => (left, Ok(())),
            None => (
                tokens,
                Err((wanted - tokens).div_ceil(self.rate).div_ceil(1_000)),
            ),
        };
        self.remember(
            client,
            Bucket {
                tokens: left,
                at: now,
            },
        );
        verdict
    }

    fn remember(&mut self, client: &K, bucket: Bucket) {
        if self.clients.len() >= CLIENT_COUNT_MAX && !self.clients.contains_key(client) {
            let rate = self.rate;
            let fullness = |b: &Bucket| {
                let grown = bucket.at.since(b.at).saturating_mul(rate);
                b.tokens.saturating_add(grown)
            };
            let fullest = self.clients.iter().max_by_key(|(_, b)| fullness(b));
            if let Some(key) = fullest.map(|(key, _)| key.clone()) {
                self.clients.remove(&key);
            }
        }
        self.clients.insert(client.clone(), bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_second_is_worth_the_rate_and_no_more_is_saved() {
        let mut buckets = Buckets::new(10);
        let at = |us| MonoUs(SECOND * 100 + us);
        for _ in 0..10 {
            assert_eq!(buckets.take(at(0), &1, 1), Ok(()));
        }
        assert_eq!(
            buckets.take(at(0), &1, 1),
            Err(100),
            "a tenth of a second later"
        );
        assert_eq!(buckets.take(at(0), &2, 1), Ok(()), "another client");
        assert_eq!(buckets.take(at(100_000), &1, 1), Ok(()));
        assert_eq!(buckets.take(at(60 * SECOND), &1, 10), Ok(()));
        assert!(
            buckets.take(at(60 * SECOND), &1, 1).is_err(),
            "a minute saves one second's worth"
        );
    }

    #[test]
    fn a_batch_counts_its_calls_and_a_huge_one_needs_a_full_bucket() {
        let mut buckets = Buckets::new(10);
        assert_eq!(buckets.take(MonoUs(0), &1, 1_000), Ok(()));
        assert_eq!(buckets.take(MonoUs(SECOND / 2), &1, 1_000), Err(500));
        assert_eq!(buckets.take(MonoUs(SECOND), &1, 1_000), Ok(()));
        let mut off = Buckets::new(0);
        assert_eq!(off.take(MonoUs(0), &1, u64::MAX), Ok(()), "0 is off");
    }

    #[test]
    fn a_flood_of_addresses_costs_bounded_memory_and_frees_nobody() {
        let mut buckets = Buckets::new(1);
        assert_eq!(buckets.take(MonoUs(0), &u32::MAX, 1), Ok(()));
        for client in 0..3 * CLIENT_COUNT_MAX as u32 / 2 {
            let _ = buckets.take(MonoUs(u64::from(client)), &client, u64::from(client % 2));
        }
        assert_eq!(buckets.clients.len(), CLIENT_COUNT_MAX);
        assert!(
            buckets.take(MonoUs(9_000), &u32::MAX, 1).is_err(),
            "an empty bucket is not the one that is forgotten"
        );
    }
}
