//! The rules of a height as a value. The default is the protocol; every other value is a mutant, used by tests to show
//! that each rule is needed and that the checks would see it missing. A node never runs anything but the default.

use crate::types::ids::{Power, is_over_third, is_quorum};

/// Which rules hold. [`Rules::default`] is the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Lines 22 and 28 ask the lock before a prevote.
    pub lock: bool,
    /// S1(a): lines 22 and 28 do without the paper's `or lockedValue = v`.
    pub strict_lock: bool,
    /// S1(b): a polka of any round sets the valid value, not only one of the current round.
    pub any_round_polka: bool,
    /// S1: prevotes with different valid rounds make no polka together.
    pub one_valid_round: bool,
    /// Line 55: a node follows those who are rounds ahead.
    pub round_skip: bool,
    /// S1(c): signers of different rounds >= r let a node into r together.
    pub skip_counts_later: bool,
    /// S3: once a height is under way its timers run whatever the mempool holds, and what others do is a reason to act;
    /// if not, timers run only where a payment or a slot block is waiting.
    pub timers_without_payment: bool,
    /// B7 step 4: a node that forgot what it signed asks again when the block after the greatest tip changes the set (V5).
    pub asks_new_set: bool,
    /// Power granted to every quorum for nothing; 0 in the protocol.
    pub quorum_gift: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            lock: true,
            strict_lock: true,
            any_round_polka: true,
            one_valid_round: true,
            round_skip: true,
            skip_counts_later: true,
            timers_without_payment: true,
            asks_new_set: true,
            quorum_gift: 0,
        }
    }
}

impl Rules {
    /// Whether these are the protocol's rules.
    pub fn are_real(&self) -> bool {
        *self == Rules::default()
    }
    /// Whether `part` of `total` is a quorum: 3p > 2S.
    pub fn is_quorum(&self, part: Power, total: Power) -> bool {
        is_quorum(Power(part.0.saturating_add(self.quorum_gift)), total)
    }
    /// Whether `part` of `total` holds an honest node: 3p > S.
    pub fn is_over_third(&self, part: Power, total: Power) -> bool {
        is_over_third(part, total)
    }
}
