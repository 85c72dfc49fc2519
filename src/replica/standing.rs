//! What this node knows of its own masternode: enough to say in plain words why it does not vote or earn. Read only.

use crate::base::time::{Now, WallMs};
use crate::crypto::keys::PublicKey;
use crate::ledger::registry::{Entry, Standing};
use crate::replica::liveness::SlotWitness;
use crate::replica::machine::Replica;
use crate::types::ids::*;

/// Heartbeats, power and presence of the masternode that this node's operator key speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStanding {
    /// The operator key of this node.
    pub key: PublicKey,
    /// The entry whose operator key that is; `None`: not registered, replaced by an Update, or gone from the registry.
    pub id: Option<MasternodeId>,
    /// An entry that names another operator key now and named this one before (it was replaced by an Update).
    pub replaced_in: Option<MasternodeId>,
    /// The entry's copy in the registry: standing, counters, queue, leaving, slashed, endpoint, accrued.
    pub entry: Option<Entry>,
    /// Whether it has power at the next height.
    pub has_power: bool,
    /// Number of the newest slot block.
    pub slot_index: SlotIndex,
    /// Attested slot blocks in a row it must be present in to leave jail, or to get power the first time.
    pub unjail_after: u64,
    /// Attested slot blocks in a row after which an absent one may be jailed.
    pub jail_after: u64,
    /// Slot of the own clock.
    pub slot: Slot,
    /// Heartbeats sent in that slot (of 10).
    pub heartbeats_sent: u32,
    /// Heartbeats of a slot that attesters must have counted.
    pub heartbeats_required: u64,
    /// Whether the newest decided block is of this slot or the one before: heartbeats that name an older slot block do not
    /// count.
    pub synced: bool,
    /// What the newest slot block decided since the start says of it.
    pub witness: Option<SlotWitness>,
    /// When another masternode last reached the endpoint by a probe, since the start. Only those without power are probed.
    pub probed: Option<WallMs>,
    /// Whether the signer store is trusted (B7); heartbeats are sent either way.
    pub sure: bool,
    /// Whether this node signs, or why not.
    pub signing: Result<(), String>,
    /// Whether the wall clock is not believed (no attestations then).
    pub clock_alarm: bool,
    /// Power of members whose attestation of the running or last slot is held, and of the set.
    pub attested_now: (Power, Power),
}

impl Replica {
    /// What this node knows of its own masternode; `None` without an operator key.
    pub fn own_standing(&self, now: Now) -> Option<OwnStanding> {
        let key = self.key.as_ref()?.public();
        let (state, params) = (self.state(), self.state().params());
        let id = self.masternode();
        let entries = state.registry().entries().iter();
        let formerly = |e: &&Entry| e.former_operators.iter().any(|f| f.key == key);
        let replaced = entries.filter(|e| Some(e.id) != id).find(formerly);
        let entry = id.and_then(|id| state.registry().get(&id)).cloned();
        let slot = Slot(now.wall.0 / params.slot_ms);
        let (sent_slot, sent, witness, probed) = self.seen_of_me();
        let signing = self.guard.ready(state.height().next(), &state.validators);
        let set = &state.validators;
        let of = |slot: u64| self.liveness.attestations.power(Slot(slot), set);
        Some(OwnStanding {
            key,
            id,
            replaced_in: replaced.map(|e| e.id),
            has_power: entry
                .as_ref()
                .is_some_and(|e| e.standing == Standing::Voting),
            entry,
            slot_index: state.slot_index(),
            unjail_after: params.unjail_after,
            jail_after: params.jail_after,
            slot,
            heartbeats_sent: if sent_slot == slot { sent } else { 0 },
            heartbeats_required: params.heartbeats_required,
            synced: state.slot().0.saturating_add(1) >= slot.0,
            witness,
            probed,
            sure: self.guard.is_sure(),
            signing: signing.map_err(|refusal| refusal.to_string()),
            clock_alarm: self.clock.alarm(),
            attested_now: (of(slot.0).max(of(slot.0.saturating_sub(1))), set.total()),
        })
    }
}
