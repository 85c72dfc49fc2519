//! Consensus parameters (P, table B1) and consensus limits (C, table B2). They stand in the genesis, shared by every node
//! of a network; one table below names each with its unit, and feeds reading, writing and the checks at load.

use crate::base::limits;
use crate::types::address::Network;
use serde::{Deserialize, Serialize};

macro_rules! parameters {
    ($(#[$sdoc:meta])* $struct:ident { $($(#[doc = $doc:literal])* $name:ident: $main:expr, $test:expr, $dev:expr;)* }) => {
        $(#[$sdoc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $struct { $($(#[doc = $doc])* pub $name: u64,)* }
        impl $struct {
            /// The values of a network.
            pub fn of(network: Network) -> $struct {
                match network {
                    Network::Main => $struct { $($name: $main,)* },
                    Network::Test => $struct { $($name: $test,)* },
                    Network::Dev => $struct { $($name: $dev,)* },
                }
            }
            /// Name, help and value of each, in canonical order.
            pub fn entries(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc,)*).trim_ascii(), self.$name),)*]
            }
            /// Sets one by name; false if there is no such name.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name { $(stringify!($name) => self.$name = value,)* _ => return false }
                true
            }
        }
    };
}

parameters! {
    /// Parameters of protocol table B1.
    Params {
        /// Length of a slot, ms; slots are aligned to the clock.
        slot_ms: 600_000, 60_000, 5_000;
        /// Time between heartbeats, ms; slot_ms / 10.
        heartbeat_interval_ms: 60_000, 6_000, 500;
        /// Heartbeats of sequences 0 to 8 that make a masternode present.
        heartbeats_required: 6, 6, 6;
        /// Attestations are signed this long before the slot ends, ms.
        attest_lead_ms: 10_000, 1_000, 200;
        /// Rounds in which a validator insists on an attested slot block.
        attest_rounds: 3, 3, 3;
        /// Least time between blocks, ms.
        min_block_interval_ms: 250, 250, 10;
        /// Tolerated clock difference, ms; grows 3/2 per round.
        precision_ms: 500, 500, 100;
        /// Cap of precision_ms, ms.
        precision_cap_ms: 10_000, 10_000, 10_000;
        /// Tolerated message delay, ms; grows 3/2 per round.
        delay_ms: 4_000, 4_000, 2_000;
        /// Cap of delay_ms, ms.
        delay_cap_ms: 60_000, 60_000, 60_000;
        /// Wait for a proposal, ms; grows 3/2 per round.
        timeout_propose_ms: 2_000, 2_000, 400;
        /// Wait for more prevotes once a quorum has prevoted anything, ms; grows 3/2 per round.
        timeout_prevote_ms: 1_000, 1_000, 100;
        /// Wait for more precommits once a quorum has precommitted anything, ms; grows 3/2 per round.
        timeout_precommit_ms: 1_000, 1_000, 100;
        /// Cap of the three timeouts, ms.
        timeout_cap_ms: 30_000, 30_000, 30_000;
        /// Least collateral of a masternode, TIME.
        min_collateral_time: 1_000, 1_000, 1_000;
        /// Greatest validator set.
        max_validators: 512, 512, 64;
        /// Greatest registry.
        max_registered: 4_096, 4_096, 256;
        /// Floor of jail and exit.
        min_validators: 4, 4, 4;
        /// Consecutive absences that make a candidate for jail, attested slot blocks.
        jail_after: 6, 6, 3;
        /// Consecutive presences after which a jailed masternode may return, attested slot blocks.
        unjail_after: 2, 2, 1;
        /// Unbroken time in jail after which a masternode leaves, slot blocks.
        expel_after: 2_016, 2_016, 2_016;
        /// Time between loss of power and return of the collateral; also the age of valid evidence, slot blocks.
        unbonding: 2_016, 2_016, 20;
        /// Age up to which a trust root is trusted, clock slots; 0 is off.
        trusting_period: 1_344, 1_344, 0;
        /// Least share of collateral burned for an offence, permille.
        slash_base: 50, 50, 50;
        /// Reward of an attested slot before the factor 1 + ln n, units of 10^-8 TIME.
        reward_base: 10_000_000_000, 10_000_000_000, 10_000_000_000;
        /// Accrued rewards are paid every this many slot blocks.
        payout_period: 144, 144, 4;
        /// Fee floor, units of 10^-8 TIME per 1,000 bytes.
        min_fee_per_kb: 100_000, 1_000, 1_000;
        /// Least value of an output, units of 10^-8 TIME.
        dust: 10_000, 1_000, 1_000;
        /// Undo reaches this far, heights.
        max_reorg: 1_000, 1_000, 1_000;
        /// Support for a new branch must last this many attested slot blocks.
        upgrade_window: 2_016, 144, 4;
        /// An adopted branch is in force this many slot blocks later.
        upgrade_delay: 2_016, 144, 4;
    }
}

parameters! {
    /// Consensus limits (C) of protocol table B2. A genesis may lower them.
    ConsensusLimits {
        /// Transactions of a block with witnesses and coinbase, bytes.
        block_bodies_bytes: limits::BLOCK_BODIES_BYTES_MAX as u64, limits::BLOCK_BODIES_BYTES_MAX as u64, limits::BLOCK_BODIES_BYTES_MAX as u64;
        /// Attestations and evidence of a slot block, bytes.
        slot_part_bytes: limits::SLOT_PART_BYTES_MAX as u64, limits::SLOT_PART_BYTES_MAX as u64, limits::SLOT_PART_BYTES_MAX as u64;
        /// Transactions of a block.
        block_tx_count: limits::BLOCK_TX_COUNT_MAX as u64, limits::BLOCK_TX_COUNT_MAX as u64, limits::BLOCK_TX_COUNT_MAX as u64;
        /// Signature checks of a block's transactions.
        block_sigcheck_count: limits::BLOCK_SIGCHECK_COUNT_MAX as u64, limits::BLOCK_SIGCHECK_COUNT_MAX as u64, limits::BLOCK_SIGCHECK_COUNT_MAX as u64;
        /// One transaction, bytes.
        tx_bytes: limits::TX_BYTES_MAX as u64, limits::TX_BYTES_MAX as u64, limits::TX_BYTES_MAX as u64;
        /// Inputs of a transaction.
        tx_input_count: limits::TX_INPUT_COUNT_MAX as u64, limits::TX_INPUT_COUNT_MAX as u64, limits::TX_INPUT_COUNT_MAX as u64;
        /// Outputs of a transaction.
        tx_output_count: limits::TX_OUTPUT_COUNT_MAX as u64, limits::TX_OUTPUT_COUNT_MAX as u64, limits::TX_OUTPUT_COUNT_MAX as u64;
        /// Signature checks of a transaction.
        tx_sigcheck_count: limits::TX_SIGCHECK_COUNT_MAX as u64, limits::TX_SIGCHECK_COUNT_MAX as u64, limits::TX_SIGCHECK_COUNT_MAX as u64;
        /// Evidence of a slot block.
        evidence_count: limits::EVIDENCE_COUNT_MAX as u64, limits::EVIDENCE_COUNT_MAX as u64, limits::EVIDENCE_COUNT_MAX as u64;
        /// Registry transactions of a slot block.
        registry_tx_count: limits::REGISTRY_TX_COUNT_MAX as u64, limits::REGISTRY_TX_COUNT_MAX as u64, limits::REGISTRY_TX_COUNT_MAX as u64;
    }
}

/// A parameter that breaks a check of table B1 or raises a limit of B2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("genesis parameter {name}: {rule}")]
pub struct ParamsError {
    /// Which.
    pub name: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// `base * (3/2)^round`, capped. Integer arithmetic, rounded down at each step; stops as soon as the cap is reached.
pub fn grow(base: u64, round: u32, cap: u64) -> u64 {
    let mut value = base.min(cap);
    for _ in 0..round {
        if value >= cap || value == 0 {
            break;
        }
        value = value.saturating_add((value / 2).max(1)).min(cap);
    }
    value
}

impl Params {
    /// timeout_propose of a round, ms.
    pub fn timeout_propose(&self, round: u32) -> u64 {
        grow(self.timeout_propose_ms, round, self.timeout_cap_ms)
    }
    /// timeout_prevote of a round, ms.
    pub fn timeout_prevote(&self, round: u32) -> u64 {
        grow(self.timeout_prevote_ms, round, self.timeout_cap_ms)
    }
    /// timeout_precommit of a round, ms.
    pub fn timeout_precommit(&self, round: u32) -> u64 {
        grow(self.timeout_precommit_ms, round, self.timeout_cap_ms)
    }
    /// precision of a round, ms (S4).
    pub fn precision(&self, round: u32) -> u64 {
        grow(self.precision_ms, round, self.precision_cap_ms)
    }
    /// delay of a round, ms (S4).
    pub fn delay(&self, round: u32) -> u64 {
        grow(self.delay_ms, round, self.delay_cap_ms)
    }

    /// The checks at load of table B1.
    pub fn check(&self) -> Result<(), ParamsError> {
        let fail = |name, rule| Err(ParamsError { name, rule });
        // Bounds first, so that the arithmetic below cannot overflow.
        const HOUR_MS: u64 = 3_600_000;
        for (name, _, value) in self.entries() {
            if name.ends_with("_ms") && (value == 0 || value > 24 * HOUR_MS) {
                return fail(name, "must be between 1 ms and 24 h");
            }
            if value > 1 << 40 {
                return fail(name, "is out of range");
            }
        }
        if self.timeout_propose_ms < 2 * self.precision_ms + 100 {
            return fail(
                "timeout_propose_ms",
                "must be at least 2 * precision_ms + 100",
            );
        }
        if self.heartbeat_interval_ms * 10 != self.slot_ms {
            return fail("heartbeat_interval_ms", "must be slot_ms / 10");
        }
        if self.attest_lead_ms > self.heartbeat_interval_ms {
            return fail("attest_lead_ms", "must be at most heartbeat_interval_ms");
        }
        if self.delay_ms <= self.timeout_propose_ms + self.precision_ms {
            return fail(
                "delay_ms",
                "must be above timeout_propose_ms + precision_ms",
            );
        }
        if self.unbonding <= self.trusting_period {
            return fail("unbonding", "must be above trusting_period");
        }
        if self.slot_ms <= 4 * self.timeout_propose_ms {
            return fail("slot_ms", "must be above 4 * timeout_propose_ms");
        }
        // Beyond 64 rounds every value has reached its cap.
        if (0..64).any(|r| self.delay(r) + self.precision(r) <= self.timeout_propose(r)) {
            return fail(
                "delay_cap_ms",
                "delay + precision must stay above timeout_propose in every round",
            );
        }
        self.check_counts()
    }

    /// The part of [`Params::check`] that is not about time.
    fn check_counts(&self) -> Result<(), ParamsError> {
        let fail = |name, rule| Err(ParamsError { name, rule });
        if self.max_validators == 0 || self.max_validators > limits::VALIDATOR_COUNT_MAX as u64 {
            return fail("max_validators", "must be between 1 and 512");
        }
        if self.max_registered < self.max_validators
            || self.max_registered > limits::REGISTERED_COUNT_MAX as u64
        {
            return fail("max_registered", "must be between max_validators and 4096");
        }
        if self.heartbeats_required == 0 || self.heartbeats_required > 9 {
            return fail("heartbeats_required", "must be between 1 and 9");
        }
        if self.slash_base > 1_000 {
            return fail("slash_base", "is a permille: at most 1000");
        }
        let positive = [
            ("min_collateral_time", self.min_collateral_time),
            ("jail_after", self.jail_after),
            ("unjail_after", self.unjail_after),
            ("expel_after", self.expel_after),
            ("payout_period", self.payout_period),
            ("max_reorg", self.max_reorg),
            ("upgrade_window", self.upgrade_window),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => fail(name, "must not be 0"),
            None => Ok(()),
        }
    }
}

impl ConsensusLimits {
    /// A limit may be lowered, never raised, and must leave room for one transaction.
    pub fn check(&self) -> Result<(), ParamsError> {
        let most = ConsensusLimits::of(Network::Main);
        for ((name, _, value), (_, _, max)) in self.entries().into_iter().zip(most.entries()) {
            if value == 0 || value > max {
                return Err(ParamsError {
                    name,
                    rule: "must be at least 1 and not above the compiled maximum",
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_every_network_passes_its_own_checks() {
        for network in Network::ALL {
            assert_eq!(Params::of(network).check(), Ok(()), "{network}");
            assert_eq!(ConsensusLimits::of(network).check(), Ok(()), "{network}");
        }
    }

    #[test]
    fn a_broken_parameter_is_named() {
        let mut params = Params::of(Network::Dev);
        assert!(params.set("heartbeat_interval_ms", 499));
        assert_eq!(
            params.check().map_err(|e| e.name),
            Err("heartbeat_interval_ms")
        );
        assert!(!params.set("no_such", 1));
        let mut limits = ConsensusLimits::of(Network::Dev);
        limits.tx_bytes += 1;
        assert_eq!(
            limits.check().map_err(|e| e.name),
            Err("tx_bytes"),
            "B2: never raised"
        );
    }

    #[test]
    fn growth_is_capped_and_costs_nothing_for_huge_rounds() {
        assert_eq!(
            [0, 1, 2, 3].map(|r| grow(400, r, 30_000)),
            [400, 600, 900, 1_350]
        );
        assert_eq!(grow(400, u32::MAX, 30_000), 30_000);
        assert_eq!(grow(1, 3, 10), 4);
    }
}
