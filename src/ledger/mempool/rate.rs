//! Fee rates compared exactly: by cross multiplication in u128, never by division or floats (L1).

use std::cmp::Ordering;

/// Fee in units of 10^-8 TIME over size in bytes. Equal when the quotients are equal.
#[derive(Debug, Clone, Copy)]
pub struct FeeRate {
    /// Fee in units of 10^-8 TIME.
    pub fee: u64,
    /// Size in bytes with witnesses; 0 counts as 1.
    pub size: u64,
}

impl Ord for FeeRate {
    fn cmp(&self, other: &FeeRate) -> Ordering {
        let left = u128::from(self.fee) * u128::from(other.size.max(1));
        let right = u128::from(other.fee) * u128::from(self.size.max(1));
        left.cmp(&right)
    }
}

impl PartialOrd for FeeRate {
    fn partial_cmp(&self, other: &FeeRate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FeeRate {
    fn eq(&self, other: &FeeRate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FeeRate {}

impl FeeRate {
    /// This package with another one. Fees of the mempool come out of distinct coins, so their sum is below the supply
    /// and saturation is never reached.
    pub fn with(self, other: FeeRate) -> FeeRate {
        FeeRate {
            fee: self.fee.saturating_add(other.fee),
            size: self.size.saturating_add(other.size),
        }
    }
    /// This package without a part of it.
    pub fn without(self, part: FeeRate) -> FeeRate {
        FeeRate {
            fee: self.fee.saturating_sub(part.fee),
            size: self.size.saturating_sub(part.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_compare_exactly_and_never_overflow() {
        let rate = |fee, size| FeeRate { fee, size };
        assert_eq!(rate(1, 3), rate(2, 6));
        assert!(
            rate(333_333_333, 1_000_000_000) < rate(1, 3),
            "a float would call these equal"
        );
        assert!(rate(u64::MAX, 1) > rate(u64::MAX, 2));
        assert_eq!(
            rate(5, 10).with(rate(1, 2)).without(rate(5, 10)),
            rate(1, 2)
        );
    }
}
