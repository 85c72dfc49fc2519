//! Time as data. A machine never reads a clock: every input comes with a [`Now`], made by the thread or the simulator.

use serde::{Deserialize, Serialize};

/// Wall clock, milliseconds since 1970-01-01 UTC. The only time that reaches a signed or hashed object (S4).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct WallMs(pub u64);

impl WallMs {
    /// `self + ms`, saturating.
    pub fn plus(self, ms: u64) -> WallMs {
        WallMs(self.0.saturating_add(ms))
    }
    /// `self - ms`, saturating at 1970.
    pub fn minus(self, ms: u64) -> WallMs {
        WallMs(self.0.saturating_sub(ms))
    }
    /// Milliseconds from `earlier` to `self`, 0 if `earlier` is later.
    pub fn since(self, earlier: WallMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Monotonic clock, microseconds since an arbitrary start of the process. Timers and measurements only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoUs(pub u64);

impl MonoUs {
    /// `self + ms` milliseconds, saturating.
    pub fn plus_ms(self, ms: u64) -> MonoUs {
        MonoUs(self.0.saturating_add(ms.saturating_mul(1000)))
    }
    /// Microseconds from `earlier` to `self`, 0 if `earlier` is later.
    pub fn since(self, earlier: MonoUs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One reading of both clocks, taken when an input is handed to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall clock.
    pub wall: WallMs,
    /// Monotonic clock.
    pub mono: MonoUs,
}

impl Now {
    /// The monotonic instant at which the wall clock will show `wall`, if it runs on evenly (now, if that has passed).
    pub fn mono_at(&self, wall: WallMs) -> MonoUs {
        self.mono.plus_ms(wall.since(self.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_deadlines_become_monotonic_ones() {
        let now = Now {
            wall: WallMs(1_000),
            mono: MonoUs(5_000),
        };
        assert_eq!(now.mono_at(WallMs(1_250)), MonoUs(255_000));
        assert_eq!(
            now.mono_at(WallMs(10)),
            MonoUs(5_000),
            "a passed deadline is due now"
        );
    }
}
