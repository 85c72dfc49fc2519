//! Amounts of money: `u64` in units of 10^-8 TIME, every operation checked (L1). Text has at most 8 decimals and is
//! written and read through integers only.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Units of one TIME.
pub const UNITS_PER_TIME: u64 = 100_000_000;

/// An amount in units of 10^-8 TIME.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Amount(pub u64);

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with at most one point.
    #[error("not an amount: write it as digits with at most one point, like 12.5")]
    Syntax,
    /// More than 8 decimals.
    #[error("an amount has at most 8 decimals")]
    TooFine,
    /// Above the greatest amount.
    #[error("the amount is out of range")]
    Range,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// Whole TIME, `None` on overflow.
    pub fn from_time(time: u64) -> Option<Amount> {
        time.checked_mul(UNITS_PER_TIME).map(Amount)
    }
    /// Sum, `None` on overflow.
    pub fn plus(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }
    /// Difference, `None` below zero.
    pub fn minus(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }
    /// Sum of many, `None` on overflow.
    pub fn sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
        amounts.into_iter().try_fold(Amount::ZERO, Amount::plus)
    }
    /// Whole TIME, rounded down.
    pub fn whole_time(self) -> u64 {
        self.0 / UNITS_PER_TIME
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:08}",
            self.0 / UNITS_PER_TIME,
            self.0 % UNITS_PER_TIME
        )
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Amount {
    type Err = AmountError;
    fn from_str(text: &str) -> Result<Amount, AmountError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !digits(whole)
            || !digits(decimals)
            || (text.contains('.') && decimals.is_empty())
        {
            return Err(AmountError::Syntax);
        }
        if decimals.len() > 8 {
            return Err(AmountError::TooFine);
        }
        let whole: u64 = whole.parse().map_err(|_| AmountError::Range)?;
        let units: u64 = format!("{decimals:0<8}")
            .parse()
            .map_err(|_| AmountError::Syntax)?;
        let total = Amount::from_time(whole).and_then(|a| a.plus(Amount(units)));
        total.ok_or(AmountError::Range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_exact() {
        assert_eq!("12.5".parse(), Ok(Amount(1_250_000_000)));
        assert_eq!(Amount(1).to_string(), "0.00000001");
        assert_eq!("0.000000001".parse::<Amount>(), Err(AmountError::TooFine));
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "1.2.3", " 1"] {
            assert_eq!(bad.parse::<Amount>(), Err(AmountError::Syntax), "{bad:?}");
        }
        assert_eq!(
            "999999999999999999999".parse::<Amount>(),
            Err(AmountError::Range)
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(units in any::<u64>()) {
            prop_assert_eq!(Amount(units).to_string().parse(), Ok(Amount(units)));
        }
    }
}
