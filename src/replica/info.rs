//! What people and other threads may know of the replica. Read only; nothing here changes or decides anything.

use crate::base::time::Now;
use crate::consensus::round::Step;
use crate::ledger::decided::DecidedBlock;
use crate::ledger::mempool::Mempool;
use crate::ledger::state::State;
use crate::replica::height::step_name;
use crate::replica::machine::Replica;
use crate::replica::standing::OwnStanding;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where consensus stands, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusInfo {
    /// Height being decided.
    pub height: Height,
    /// Era and round.
    pub at: EraRound,
    /// Step of the round: idle, propose, prevote or precommit.
    pub step: &'static str,
    /// Leader of the round.
    pub proposer: Option<MasternodeId>,
    /// Power that has prevoted and precommitted in the round.
    pub prevotes: Power,
    /// See `prevotes`.
    pub precommits: Power,
    /// Power of the set.
    pub total: Power,
    /// Power of connected validators, this node's own included.
    pub connected: Power,
    /// Whether connected validators hold a quorum.
    pub quorum_connected: bool,
    /// Whether a payment or a slot block is waiting to be decided.
    pub due: bool,
    /// Whether this node signs, or why not.
    pub signing: Result<(), String>,
    /// Whether its signer store is trusted (B7).
    pub sure: bool,
    /// What is waited for, for people.
    pub waiting_for: String,
    /// Whether the wall clock is not believed.
    pub clock_alarm: bool,
    /// Median of validators' clocks against the own one, ms.
    pub clock_offset_ms: Option<i64>,
    /// Why the node has halted (S10), if it has.
    pub halted: Option<String>,
    /// What this node knows of its own masternode, if it has an operator key.
    pub own: Option<OwnStanding>,
    /// F2: why it is unanchored, if it is.
    pub unanchored: Option<String>,
    /// The height of the fork that is open, if one is (B6): nothing is signed then.
    pub forked: Option<Height>,
    /// The lowest height whose block an open fork may take back.
    pub contested: Option<Height>,
}

impl Replica {
    /// The ledger after the newest decided block.
    pub fn state(&self) -> &State {
        &self.state
    }
    /// What this node believes (F2).
    pub fn trust(&self) -> &crate::sync::trust::Trust {
        &self.trust
    }
    /// The block that stays at the height of the last fork.
    pub fn pin(&self) -> Option<(Height, BlockId)> {
        self.forks.pin
    }
    /// The mempool.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }
    /// Decided blocks that are not durable in the ledger, ascending.
    pub fn undurable(&self) -> impl Iterator<Item = &Arc<DecidedBlock>> {
        self.undurable.iter()
    }
    /// The newest decided block since the start.
    pub fn last_decided(&self) -> Option<&Arc<DecidedBlock>> {
        self.last.as_ref()
    }
    /// Evidence recorded so far.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.accused.held()
    }
    /// The masternode this node speaks for.
    pub fn masternode(&self) -> Option<MasternodeId> {
        self.guard.me()
    }
    /// Where members of the set can be dialled, by the registry.
    pub fn addresses_of_validators(&self) -> BTreeMap<MasternodeId, String> {
        let entries = self.state.registry().entries().iter();
        let members = entries.filter(|e| self.state.validators.get(&e.id).is_some());
        members
            .map(|e| (e.id, String::from_utf8_lossy(&e.endpoint).into_owned()))
            .collect()
    }
    /// Transactions of the blocks that are proposed at this height: pending ones that are seen as proposed.
    pub fn is_proposed(&self, txid: &Txid) -> bool {
        use crate::replica::height::Work;
        self.height.blocks.values().any(|work| match work {
            Work::Valid(block, _) => block.transactions.iter().any(|tx| tx.txid == *txid),
            _ => false,
        })
    }

    /// Where consensus stands.
    pub fn consensus(&self, now: Now) -> ConsensusInfo {
        let engine = &self.height.engine;
        let set = &*self.state.deciders();
        let at = engine.at();
        let (prevotes, precommits) = engine.tally().powers(at.round);
        let own = self.guard.me();
        let connected = self
            .peers
            .iter()
            .filter_map(|(_, p)| p.masternode)
            .chain(own);
        let connected: std::collections::BTreeSet<MasternodeId> = connected.collect();
        let connected = Power(
            connected
                .iter()
                .filter_map(|id| set.get(id))
                .map(|v| v.power.0)
                .sum(),
        );
        let height = self.height.height();
        let signing = self
            .guard
            .ready(height, set)
            .map_err(|refusal| refusal.to_string());
        let slot = self.slot_block_due(now);
        let due = slot || self.height.reason || self.mempool.has_candidate(slot);
        let quorum_connected = is_quorum(connected, set.total());
        ConsensusInfo {
            height,
            at,
            step: step_name(engine.state().step),
            proposer: engine.leader(at.round),
            prevotes,
            precommits,
            total: set.total(),
            connected,
            quorum_connected,
            due,
            waiting_for: self.waiting_for(due, quorum_connected, connected),
            signing,
            sure: self.guard.is_sure(),
            clock_alarm: self.clock.alarm(),
            clock_offset_ms: self.clock.median_offset_ms(set),
            halted: self.halted.clone(),
            own: self.own_standing(now),
            unanchored: self.trust.doubt(now.wall, self.state.height()),
            forked: self.open_height(),
            contested: self.contested(),
        }
    }

    fn waiting_for(&self, due: bool, quorum_connected: bool, connected: Power) -> String {
        let total = self.state.deciders().total();
        if let Some(why) = &self.halted {
            return why.clone();
        }
        if let Some(fork) = self.fork().filter(|fork| fork.open) {
            return format!(
                "the end of the fork at height {}: {}",
                fork.height, fork.advice
            );
        }
        if !quorum_connected {
            return format!(
                "masternodes: power {connected} of {total} is connected, more than 2/3 is needed"
            );
        }
        if self.height.certificate.is_some() {
            return "the decided block, which is still missing or being checked".into();
        }
        if self.undurable.len() >= crate::replica::machine::LEDGER_BEHIND_MAX {
            return "the disk: the ledger is behind".into();
        }
        if !due {
            return "nothing: no payment is waiting and the slot has its block".into();
        }
        match self.height.engine.state().step {
            Step::Idle => "the minimum block interval".into(),
            Step::Propose => "the proposal of the round's leader".into(),
            Step::Prevote => "prevotes of a quorum".into(),
            Step::Precommit => "precommits of a quorum".into(),
        }
    }
}
