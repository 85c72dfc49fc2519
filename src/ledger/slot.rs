//! What a slot block does beside its transactions (B5 steps 1 to 5 and 7 to 9).

use crate::ledger::apply::Invalid;
use crate::ledger::work::{OtherChecks, Work};
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::transaction::Tx;

impl Work<'_> {
    /// Steps 1 to 5: before the transactions.
    pub fn open_slot(&mut self, part: &SlotPart, _slot: Slot) -> Result<OtherChecks, Invalid> {
        self.slots.open(self.height, self.base.params());
        if !part.attestations.is_empty() {
            return Err(Invalid::Attestation {
                index: 0,
                why: "attestations are not in force",
            });
        }
        if !part.evidence.is_empty() {
            return Err(Invalid::Evidence {
                index: 0,
                why: "evidence is not in force",
            });
        }
        Ok(Vec::new())
    }

    /// The part of `offered` that may stand in this block.
    pub fn fitting(&self, _offered: SlotPart, _slot: Slot) -> SlotPart {
        SlotPart::default()
    }

    /// Steps 7 to 9: after the transactions. Returns the coinbase if one is due.
    pub fn close_slot(&mut self) -> Option<Tx> {
        None
    }
}
