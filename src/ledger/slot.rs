//! What a slot block does beside its transactions (B5): attestations, evidence, presence and rewards before them; the
//! next set, what is due and the coinbase after them.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::crypto::verify::Check;
use crate::ledger::apply::Invalid;
use crate::ledger::churn::Change;
use crate::ledger::evidence::{Bench, judge};
use crate::ledger::registry::{Entry, Registry, Standing};
use crate::ledger::report::{MARK_ACTIVE, MARK_EARNED, MARK_VOTING, Paid, SlotFigures, share};
use crate::ledger::rewards::subsidy;
use crate::ledger::work::{OtherChecks, Work};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::{Attestation, Evidence, SlotPart};
use crate::types::params::Params;
use crate::types::transaction::*;

/// A set without members could never decide again, nor punish: evidence against the last one waits for another member.
const NOBODY_LEFT: &str = "nobody with power would remain";

/// POWER of the entries of `n` in B3: one for each 1,000 TIME of active power.
const REWARD_POWER: u64 = 1_000;

/// What a slot block owes (B5 steps 8 and 9).
struct Due {
    outputs: Vec<TxOutput>,
    /// Entries that end.
    ended: Vec<MasternodeId>,
    /// Entries whose accrued rewards are paid out.
    paid: Vec<MasternodeId>,
    /// Parts below dust.
    to_pot: Vec<Amount>,
}

impl Due {
    fn of(registry: &Registry, now: SlotIndex, params: &Params) -> Due {
        let ends = |e: &&Entry| match e.standing {
            Standing::Gone { exit } => exit.0.saturating_add(params.unbonding) <= now.0,
            _ => false,
        };
        let dust = Amount(params.dust);
        let mut due = Due {
            outputs: Vec::new(),
            ended: Vec::new(),
            paid: Vec::new(),
            to_pot: Vec::new(),
        };
        if now.0.is_multiple_of(params.payout_period.max(1)) {
            let stays = registry.entries().iter().filter(|e| !ends(e));
            for entry in stays.filter(|e| e.accrued >= dust) {
                due.paid.push(entry.id);
                due.outputs.push(TxOutput {
                    value: entry.accrued,
                    program: entry.payout,
                });
            }
        }
        for entry in registry.entries().iter().filter(ends) {
            due.ended.push(entry.id);
            let parts = [
                (entry.locked(), entry.collateral.program),
                (entry.accrued, entry.payout),
            ];
            for (value, program) in parts {
                if value >= dust {
                    due.outputs.push(TxOutput { value, program });
                } else {
                    due.to_pot.push(value);
                }
            }
        }
        due
    }

    /// The coinbase that pays it, `None` if no output is due.
    fn coinbase(&self, height: Height, slot_index: SlotIndex) -> Option<Tx> {
        if self.outputs.is_empty() {
            return None;
        }
        let payload = codec::encode(&CoinbasePayload { height, slot_index });
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Coinbase,
            inputs: BoundedVec::new(),
            outputs: BoundedVec::take_from(self.outputs.iter().copied()),
            payload: BoundedBytes::try_from(payload).unwrap_or_default(),
        };
        Some(Tx::new(Transaction {
            body,
            witnesses: BoundedVec::new(),
            auth: Auth::new(),
        }))
    }
}

impl Work<'_> {
    /// Steps 1 to 5: before the transactions. `slot` is that of the block's time.
    pub fn open_slot(&mut self, part: &SlotPart, slot: Slot) -> Result<OtherChecks, Invalid> {
        let mut checks = Vec::new();
        self.slots.open(self.height, self.base.params());
        for (index, attestation) in part.attestations.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|i| part.attestations.get(i));
            if before.is_some_and(|b| b.body.attester >= attestation.body.attester) {
                let why = "attesters are not in ascending order";
                return Err(Invalid::Attestation { index, why });
            }
            let judged = self.judge_attestation(attestation, slot);
            checks.push(judged.map_err(|why| Invalid::Attestation { index, why })?);
        }
        for (index, evidence) in part.evidence.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|i| part.evidence.get(i));
            if before.is_some_and(|b| b.offender >= evidence.offender) {
                let why = "offenders are not in ascending order";
                return Err(Invalid::Evidence { index, why });
            }
            let judged = judge(evidence, &self.bench());
            checks.extend(judged.map_err(|why| Invalid::Evidence { index, why })?);
        }
        self.check_due(part)?;
        self.slash(part)?;
        if let Some(index) = part.evidence.len().checked_sub(1)
            && !self.registry.entries().iter().any(Entry::is_voting)
        {
            return Err(Invalid::Evidence {
                index,
                why: NOBODY_LEFT,
            });
        }
        self.attested = is_quorum(self.attesting(part, |_| true), self.base.validators.total());
        self.begin_report(slot);
        if self.attested {
            let active = self.count_presence(part);
            self.reward(&active)?;
            self.count_upgrade(part);
        }
        Ok(checks)
    }

    fn begin_report(&mut self, slot: Slot) {
        let set = &self.base.validators;
        let voting = |e: &Entry| u8::from(set.get(&e.id).is_some()) * MARK_VOTING;
        self.report = SlotFigures {
            index: self.slots.slot_index(),
            height: self.height,
            slot: Slot(slot.0.saturating_sub(1)),
            attested: self.attested,
            marks: self.registry.entries().iter().map(voting).collect(),
            ..SlotFigures::default()
        };
    }

    fn bench(&self) -> Bench<'_> {
        Bench {
            chain: self.base.chain_id(),
            registry: &self.registry,
            slots: &self.slots,
            height: self.height,
        }
    }

    /// Evidence of forks that this slot block must carry, ascending offender id (B6 step 6): as much as fits, and before any
    /// other. What can no longer be judged (older than unbonding) is not due; its culprits stay without a vote.
    fn due_evidence(&self, bench: &Bench<'_>) -> Vec<Evidence> {
        let culprits = self.base.eras.culprits.iter();
        let due = culprits.filter(|evidence| judge(evidence, bench).is_ok());
        let most = usize::try_from(self.base.limits().evidence_count).unwrap_or(usize::MAX);
        due.take(most).cloned().collect()
    }

    /// B6 step 6: everything due stands in the block, and other evidence only if there is room beside it.
    fn check_due(&self, part: &SlotPart) -> Result<(), Invalid> {
        let due = self.due_evidence(&self.bench());
        let held = |id: &MasternodeId| part.evidence.iter().any(|e| e.offender == *id);
        let lacks = due.iter().position(|e| !held(&e.offender));
        match lacks {
            Some(index) => Err(Invalid::Evidence {
                index,
                why: "evidence of a fork is due and not in the block",
            }),
            None => Ok(()),
        }
    }

    /// Step 2, one attestation alone.
    fn judge_attestation(&self, a: &Attestation, slot: Slot) -> Result<Check, &'static str> {
        let (body, base) = (&a.body, self.base);
        let member = base.validators.get(&body.attester);
        let member = member.ok_or("its attester is not in the set")?;
        if body.era != base.tip.era {
            return Err("it is of another era");
        }
        if body.slot.next() != slot {
            return Err("it is not of the slot before");
        }
        if body.base != base.tip.prev_slot_block {
            return Err("its base is not the latest slot block");
        }
        if body.present.len() != base.registry().len() {
            return Err("its bitmap does not fit the registry of its base");
        }
        Ok(Check {
            key: member.operator,
            message: body.signing_hash(base.chain_id()),
            signature: a.signature,
        })
    }

    /// Power of the attesters that `which` picks.
    fn attesting(&self, part: &SlotPart, which: impl Fn(&Attestation) -> bool) -> Power {
        let chosen = part.attestations.iter().filter(|a| which(a));
        let set = &self.base.validators;
        set.power_of(chosen.filter_map(|a| set.index_of(&a.body.attester)))
    }

    /// Step 3 (M7): all are marked first, then P once, then everybody in P is brought up to the share, never down.
    fn slash(&mut self, part: &SlotPart) -> Result<(), Invalid> {
        if part.evidence.is_empty() {
            return Ok(());
        }
        let now = self.slots.slot_index();
        for evidence in &part.evidence {
            if let Some(entry) = self.registry.get_mut(&evidence.offender) {
                entry.slashed = Some(now);
                entry.standing = Standing::Gone { exit: now };
                entry.counts = false;
                entry.queued = None;
            }
        }
        let params = self.base.params();
        let recent = |e: &Entry| {
            let at = e.slashed;
            at.is_some_and(|at| at.0.saturating_add(params.unbonding) >= now.0)
        };
        let power = |which: &dyn Fn(&Entry) -> bool| -> u128 {
            let chosen = self.registry.entries().iter().filter(|e| which(e));
            chosen.map(|e| u128::from(e.power().0)).sum()
        };
        let punished = power(&recent);
        let earlier = power(&|e| recent(e) && e.slashed != Some(now));
        let total = u128::from(self.base.validators.full_total().0) + earlier;
        let share = (3_000 * punished / total.max(1))
            .max(u128::from(params.slash_base))
            .min(1_000);
        for entry in self.registry.entries_mut().iter_mut().filter(|e| recent(e)) {
            let burn = u128::from(entry.collateral.value.0) * share / 1_000;
            let burn = Amount(u64::try_from(burn).unwrap_or(u64::MAX));
            if let Some(more) = burn.minus(entry.burned) {
                entry.burned = burn;
                let burned = self.supply.burned.plus(more);
                self.supply.burned = burned.ok_or(Invalid::Supply)?;
            }
        }
        Ok(())
    }

    /// Step 4: moves the counters of every entry; who was active, by position (M5).
    fn count_presence(&mut self, part: &SlotPart) -> Vec<bool> {
        let set = &self.base.validators;
        let mut seen = vec![0u64; self.registry.len()];
        for attestation in &part.attestations {
            let power = set.get(&attestation.body.attester).map_or(0, |m| m.power.0);
            for i in attestation.body.present.ones() {
                seen[i] += power;
            }
        }
        let active: Vec<bool> = seen
            .into_iter()
            .map(|power| is_over_third(Power(power), set.total()))
            .collect();
        let marks = self.report.marks.iter_mut();
        let entries = self.registry.entries_mut().iter_mut().zip(marks);
        for ((entry, marks), active) in entries.zip(&active) {
            *marks |= u8::from(*active) * MARK_ACTIVE;
            (entry.present, entry.absent) = if *active {
                (entry.present.saturating_add(1), 0)
            } else {
                (0, entry.absent.saturating_add(1))
            };
        }
        active
    }

    /// Step 5: subsidy and the parent's pot, shared by power over the active members of V; slashed ones earn nothing.
    fn reward(&mut self, active: &[bool]) -> Result<(), Invalid> {
        let set = &self.base.validators;
        let earners: Vec<(usize, u64)> = (0..active.len())
            .filter(|i| active[*i] && self.registry.entries()[*i].slashed.is_none())
            .filter_map(|i| Some((i, set.get(&self.registry.entries()[i].id)?.power.0)))
            .collect();
        let power: u64 = earners.iter().map(|(_, p)| *p).sum();
        let n = power / REWARD_POWER;
        if n == 0 {
            return Ok(());
        }
        let supply = &mut self.supply;
        // An issue that the range of amounts cannot hold is cut: no slot block may ever be impossible.
        let fresh = subsidy(self.base.params().reward_base, n).min(u64::MAX - supply.issued.0);
        supply.issued = Amount(supply.issued.0 + fresh);
        let reward = supply.pot.plus(Amount(fresh)).ok_or(Invalid::Supply)?;
        let mut rest = reward;
        self.report.issued = Amount(fresh);
        (self.report.shared, self.report.power) = (reward, Power(power));
        for (i, p) in earners {
            let part = share(reward, Power(p), Power(power));
            self.report.marks[i] |= MARK_EARNED;
            let entry = &mut self.registry.entries_mut()[i];
            entry.accrued = entry.accrued.plus(part).ok_or(Invalid::Supply)?;
            rest = rest.minus(part).ok_or(Invalid::Supply)?;
        }
        supply.pot = rest;
        Ok(())
    }

    /// L15: whether attesters with 6p > 5S know a branch above the one in force.
    fn count_upgrade(&mut self, part: &SlotPart) {
        let branch = self.base.tip.branch;
        let p = self.attesting(part, |a| a.body.supports > branch);
        let total = self.base.validators.total();
        let supported = 6 * u128::from(p.0) > 5 * u128::from(total.0);
        self.slots.count_support(supported, self.base.params());
    }

    /// The part of `offered` that may stand in this block, sorted; evidence beyond the limits waits (B2).
    pub fn fitting(&self, offered: SlotPart, slot: Slot) -> SlotPart {
        let limits = self.base.limits();
        let mut room = limits.slot_part_bytes;
        room = room.saturating_sub(codec::encoded_len(&SlotPart::default()) as u64);
        let mut fits = |size: usize| {
            let left = room.checked_sub(size as u64);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let mut opened = self.slots.clone();
        opened.open(self.height, self.base.params());
        let bench = Bench {
            slots: &opened,
            ..self.bench()
        };
        // What is due gets its room first: without it the block would be invalid.
        let mut evidence = self.due_evidence(&bench);
        evidence.retain(|e| fits(codec::encoded_len(e)));
        let mut attestations: Vec<Attestation> = offered.attestations.into_vec();
        attestations.sort_by_key(|a| a.body.attester);
        attestations.dedup_by_key(|a| a.body.attester);
        attestations
            .retain(|a| self.judge_attestation(a, slot).is_ok() && fits(codec::encoded_len(a)));
        let mut others: Vec<Evidence> = offered.evidence.into_vec();
        others.sort();
        others.retain(|e| judge(e, &bench).is_ok());
        others.retain(|e| evidence.iter().all(|due| due.offender != e.offender));
        others.dedup_by_key(|e| e.offender);
        let most = usize::try_from(limits.evidence_count).unwrap_or(usize::MAX);
        others.truncate(most.saturating_sub(evidence.len()));
        others.retain(|e| fits(codec::encoded_len(e)));
        evidence.extend(others);
        evidence.sort();
        let voting = self.registry.entries().iter().filter(|e| e.is_voting());
        let accused = |id| evidence.binary_search_by_key(id, |e| e.offender).is_ok();
        if voting.clone().all(|e| accused(&e.id)) {
            // The last accused who votes stays, so that somebody can decide the next block.
            let last = voting.map(|e| e.id).next_back();
            evidence.retain(|e| Some(e.offender) != last);
        }
        SlotPart {
            attestations: BoundedVec::take_from(attestations),
            evidence: BoundedVec::take_from(evidence),
        }
    }

    /// The coinbase as far as it can be known before the transactions: its size is exact, as transactions change only
    /// where it pays to.
    pub fn expected_coinbase(&self) -> Option<Tx> {
        let now = self.slots.slot_index();
        Due::of(&self.registry, now, self.base.params()).coinbase(self.height, now)
    }

    /// What is paid to entries of the base, for the report. Who registered in this block is owed nothing yet.
    fn paid_by(&self, due: &Due) -> Vec<Paid> {
        let dust = Amount(self.base.params().dust);
        let above = |amount: Amount| Some(amount).filter(|a| *a >= dust).unwrap_or_default();
        let all = due.paid.iter().chain(&due.ended);
        let paid = all.filter_map(|id| {
            let entry = self.registry.get(id)?;
            let ended = due.ended.binary_search(id).is_ok();
            Some(Paid {
                position: u32::try_from(self.base.registry().index_of(id)?).ok()?,
                rewards: above(entry.accrued),
                collateral: if ended {
                    above(entry.locked())
                } else {
                    Amount::ZERO
                },
            })
        });
        let mut paid: Vec<Paid> = paid.collect();
        paid.sort_by_key(|p| p.position);
        paid
    }

    /// Steps 7 to 9: after the transactions. Returns the coinbase if an output is due.
    pub fn close_slot(&mut self) -> Result<Option<Tx>, Invalid> {
        let (now, params) = (self.slots.slot_index(), self.base.params());
        let change = Change {
            params,
            now,
            height: self.height,
            total: self.base.validators.full_total(),
            attested: self.attested,
        };
        change.run(&mut self.registry, std::mem::take(&mut self.pending));
        let due = Due::of(&self.registry, now, params);
        self.report.paid = self.paid_by(&due);
        for id in &due.paid {
            if let Some(entry) = self.registry.get_mut(id) {
                entry.accrued = Amount::ZERO;
            }
        }
        self.registry
            .retain(|e| due.ended.binary_search(&e.id).is_err());
        for part in &due.to_pot {
            self.supply.pot = self.supply.pot.plus(*part).ok_or(Invalid::Supply)?;
        }
        Ok(due.coinbase(self.height, now))
    }
}
