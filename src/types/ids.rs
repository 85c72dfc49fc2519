//! Names and counters as distinct types: a height is no round, a txid no wtxid. None converts silently.

use crate::crypto::hash::Hash;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counter {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl $name {
            /// The next one, saturating at the type's end.
            pub fn next(self) -> $name {
                $name(self.0.saturating_add(1))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

macro_rules! hash_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub Hash);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = crate::base::hex::HexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    )*};
}

counter! {
    /// Blocks since genesis; genesis is 0.
    Height(u64);
    /// Attempt at a height, from 0.
    Round(u32);
    /// Number of recoveries from forks before (B6), from 0.
    Era(u32);
    /// Rule set (L15), from 0.
    Branch(u16);
    /// Number of slot blocks so far (M3), genesis 0.
    SlotIndex(u64);
    /// Clock-aligned interval: floor(wall ms / slot_ms) (S4).
    Slot(u64);
    /// Voting power: whole TIME of collateral (M1).
    Power(u64);
}

hash_id! {
    /// Hash of a transaction without witnesses.
    Txid;
    /// Hash of a transaction with witnesses.
    Wtxid;
    /// Hash of a header; of the genesis for height 0.
    BlockId;
    /// A masternode: the txid of its registration (M1); for genesis members H(genesis-masternode, owner key) (L14).
    MasternodeId;
    /// Hash of the canonical genesis: names the network in everything signed.
    ChainId;
}

/// A round of an era: rounds compare as (era, round) (B6 step 5).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct EraRound {
    /// Era, compared first.
    pub era: Era,
    /// Round in it.
    pub round: Round,
}

impl fmt::Display for EraRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.era.0 == 0 {
            self.round.fmt(f)
        } else {
            write!(f, "{}/{}", self.era, self.round)
        }
    }
}

/// An output of a transaction, by transaction and index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct OutPoint {
    /// The transaction that made the output.
    pub txid: Txid,
    /// Index from 0.
    pub vout: u32,
}

impl fmt::Display for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.vout)
    }
}

impl fmt::Debug for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.txid, self.vout)
    }
}

/// Whether `part` is more than two thirds of `total`: 3p > 2S, in u128.
pub fn is_quorum(part: Power, total: Power) -> bool {
    3 * u128::from(part.0) > 2 * u128::from(total.0)
}

/// Whether `part` is more than one third of `total`: 3p > S, in u128.
pub fn is_over_third(part: Power, total: Power) -> bool {
    3 * u128::from(part.0) > u128::from(total.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_strict() {
        assert!(
            !is_quorum(Power(2), Power(3))
                && is_quorum(Power(3), Power(4))
                && !is_quorum(Power(2), Power(4))
        );
        assert!(!is_over_third(Power(1), Power(3)) && is_over_third(Power(2), Power(4)));
        assert!(is_quorum(Power(u64::MAX), Power(u64::MAX)), "no overflow");
    }

    #[test]
    fn rounds_compare_by_era_first() {
        let at = |era, round| EraRound {
            era: Era(era),
            round: Round(round),
        };
        assert!(at(0, 9) < at(1, 0) && at(1, 0) < at(1, 1));
    }
}
