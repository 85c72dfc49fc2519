//! Is this node's clock to be believed? (S4, clock guard.) Input: readings of both clocks, clocks of validators as their
//! Status frames tell them. Output: whether fresh proposals may be answered. It alarms and recovers; it never stops a node.

use crate::base::limits::{PEER_COUNT_MAX, Size};
use crate::base::time::{MonoUs, Now, WallMs};
use crate::types::ids::{MasternodeId, Power};
use crate::types::validators::ValidatorSet;
use std::collections::BTreeMap;

/// A wall clock that moved this much against the monotonic one, or against the median of validators, is not believed, ms.
const TOLERANCE_MS: i64 = 10_000;
/// It is believed again after agreeing for this long, ms.
const AGREEMENT_MS: u64 = 60_000;
/// Validators whose clocks must be known for a median.
const MEDIAN_COUNT_MIN: usize = 3;

/// The clock guard of one node.
#[derive(Debug, Default)]
pub struct ClockGuard {
    base: Option<Now>,
    /// Validator's clock minus own clock when its Status was read, ms.
    offsets: BTreeMap<MasternodeId, i64>,
    /// How many of them are so far off that a median of such clocks would raise the alarm.
    far: usize,
    wrong_since: Option<MonoUs>,
    agrees_since: Option<MonoUs>,
}

fn is_far(offset_ms: i64) -> bool {
    offset_ms.saturating_abs() >= TOLERANCE_MS
}

impl ClockGuard {
    /// A validator told its clock.
    pub fn told(&mut self, masternode: MasternodeId, clock: WallMs, now: Now) {
        let offset = i128::from(clock.0) - i128::from(now.wall.0);
        let bounded = offset.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let before = self.offsets.insert(masternode, bounded);
        self.far =
            self.far + usize::from(is_far(bounded)) - usize::from(before.is_some_and(is_far));
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        vec![Size::new(
            "clocks of masternodes",
            self.offsets.len(),
            PEER_COUNT_MAX,
        )]
    }

    /// A masternode is no longer connected.
    pub fn forget(&mut self, masternode: &MasternodeId) {
        let gone = self.offsets.remove(masternode);
        self.far -= usize::from(gone.is_some_and(is_far));
    }

    /// The median offset by power, ms, if enough validators are known.
    pub fn median_offset_ms(&self, set: &ValidatorSet) -> Option<i64> {
        let known = self
            .offsets
            .iter()
            .filter_map(|(id, offset)| Some((*offset, set.get(id)?.power)));
        let mut known: Vec<(i64, Power)> = known.collect();
        if known.len() < MEDIAN_COUNT_MIN {
            return None;
        }
        known.sort_unstable();
        let total: u64 = known.iter().map(|(_, power)| power.0).sum();
        let mut sum = 0;
        known.into_iter().find_map(|(offset, power)| {
            sum += power.0;
            (2 * sum >= total).then_some(offset)
        })
    }

    /// Judges the clock at this reading; true if it is believed.
    pub fn check(&mut self, now: Now, set: &ValidatorSet) -> bool {
        let base = *self.base.get_or_insert(now);
        let mono_ms = (now.mono.since(base.mono) / 1_000) as i64;
        let drift = now.wall.0 as i64 - base.wall.0 as i64 - mono_ms;
        let jumped = drift.abs() >= TOLERANCE_MS;
        // The median is one of the clocks: nobody far off, no look at all of them.
        let median = (self.far > 0).then(|| self.median_offset_ms(set)).flatten();
        let apart = median.is_some_and(is_far);
        if jumped {
            // What it shows now is the new base: it is believed once it has run evenly for long enough.
            self.base = Some(now);
            self.offsets.clear();
            self.far = 0;
        }
        if jumped || apart {
            self.wrong_since.get_or_insert(now.mono);
            self.agrees_since = None;
        } else if self.wrong_since.is_some() {
            let since = *self.agrees_since.get_or_insert(now.mono);
            if now.mono.since(since) >= AGREEMENT_MS * 1_000 {
                self.wrong_since = None;
                self.agrees_since = None;
            }
        }
        self.wrong_since.is_none()
    }

    /// Whether the last check raised or kept an alarm.
    pub fn alarm(&self) -> bool {
        self.wrong_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::PublicKey;
    use crate::types::validators::Validator;

    fn at(ms: u64, wall: u64) -> Now {
        Now {
            wall: WallMs(1_000_000 + wall),
            mono: MonoUs(ms * 1_000),
        }
    }

    fn id(i: u8) -> MasternodeId {
        MasternodeId(Hash([i; 32]))
    }

    fn set() -> ValidatorSet {
        let member = |i| Validator {
            id: id(i),
            operator: PublicKey([i; 32]),
            power: Power(1),
        };
        ValidatorSet::new((1..=4).map(member).collect()).unwrap()
    }

    #[test]
    fn a_jump_is_noticed_and_forgiven_after_a_minute() {
        let mut guard = ClockGuard::default();
        assert!(guard.check(at(0, 0), &set()) && guard.check(at(1_000, 1_500), &set()));
        assert!(
            !guard.check(at(2_000, 30_000), &set()),
            "S4: moved by 10 s against the monotonic clock"
        );
        assert!(!guard.check(at(3_000, 31_000), &set()));
        assert!(!guard.check(at(62_000, 90_000), &set()));
        assert!(
            guard.check(at(63_000, 91_000), &set()),
            "S4: 60 s in agreement"
        );
    }

    #[test]
    fn the_median_of_validators_is_asked() {
        let mut guard = ClockGuard::default();
        for (i, offset) in [(1, 20_000), (2, 20_000), (3, 0)] {
            guard.told(id(i), WallMs(1_000_000 + offset), at(0, 0));
        }
        assert_eq!(guard.median_offset_ms(&set()), Some(20_000));
        assert!(
            !guard.check(at(0, 0), &set()),
            "S4: differs by 10 s from the median"
        );
        let mut guard = ClockGuard::default();
        guard.told(id(1), WallMs(u64::MAX), at(0, 0));
        assert!(guard.check(at(0, 0), &set()), "S4: one liar is no median");
    }
}
