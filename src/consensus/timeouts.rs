//! Which timer runs when. The machine asks for a timer and is told when it has run out; clocks are the driver's. A timer
//! that comes late, for a round or step that is over, changes nothing, so none is ever cancelled.

use crate::types::ids::Round;
use crate::types::params::Params;

/// What a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// Line 21: a proposal. Started on entering the propose step; in round 0 only by a reason to act (S3).
    Propose,
    /// Line 35: more prevotes, once a quorum has prevoted anything.
    Prevote,
    /// Line 48: more precommits, once a quorum has precommitted anything.
    Precommit,
}

/// A timer of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// What it waits for.
    pub kind: TimerKind,
    /// In which round.
    pub round: Round,
}

impl Timer {
    /// How long it runs, ms (B1: grows by 3/2 per round up to the cap).
    pub fn duration_ms(&self, params: &Params) -> u64 {
        match self.kind {
            TimerKind::Propose => params.timeout_propose(self.round.0),
            TimerKind::Prevote => params.timeout_prevote(self.round.0),
            TimerKind::Precommit => params.timeout_precommit(self.round.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::Network;

    #[test]
    fn durations_are_those_of_the_parameters() {
        let params = Params::of(Network::Dev);
        let of = |kind, round| {
            Timer {
                kind,
                round: Round(round),
            }
            .duration_ms(&params)
        };
        assert_eq!(of(TimerKind::Propose, 0), 400);
        assert_eq!(of(TimerKind::Prevote, 1), 150, "B1: x 3/2 per round");
        assert_eq!(of(TimerKind::Precommit, u32::MAX), 30_000, "B1: cap");
    }
}
