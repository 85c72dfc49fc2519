//! What slot blocks did to masternodes: who attested and was seen, what was earned and paid.

use crate::ledger::report::{MARK_ACTIVE, MARK_EARNED, MARK_VOTING, SlotOutcome};
use crate::rpc::args::{Args, amount_json, clip};
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional};
use crate::types::amount::Amount;
use crate::types::ids::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Slot blocks of one report; `next` goes on.
const REPORT_SLOT_COUNT_MAX: u64 = 10_000;
/// Slot blocks read from the ledger at once.
const PAGE_SLOT_COUNT: u64 = 500;
/// Rows of single slots in one report.
const ROW_COUNT_MAX: usize = 1_000;
/// Slot blocks of a report that names no beginning.
const DEFAULT_SLOT_COUNT: u64 = 144;

/// Rows of this file.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getrewardreport",
        category: Category::Masternodes,
        summary: "What masternodes earned, missed and were paid in a period.",
        details: "Sums over the slot blocks of the period, at most 10000; next is where the following report begins. A slot counts as \
                  missed if the masternode had power, the slot was attested, and it was not seen by more than a third of the power. \
                  Only attested slots pay. rows are of one masternode, the first 1000 slots.",
        args: &[
            optional(
                "proTxHash",
                ArgKind::Text,
                "all",
                "The masternode's id; all: everybody.",
            ),
            optional(
                "from",
                ArgKind::Integer,
                "144 slot blocks before the end",
                "Beginning of the period, included.",
            ),
            optional(
                "to",
                ArgKind::Integer,
                "the newest slot block",
                "End of the period, included.",
            ),
            optional(
                "unit",
                ArgKind::Text,
                "slot",
                "What from and to are: slot (slot_index), height, or time (seconds since 1970).",
            ),
            optional(
                "verbose",
                ArgKind::Boolean,
                "false",
                "Whether to add a row for each slot of the one masternode.",
            ),
        ],
        result: "{ from: { slot_index, height, time }, to, slots, attested, issued, shared, next, masternodes: [{ proTxHash, \
                 slots_voting, slots_active, slots_missed, slots_earned, earned, paid, collateral_returned, payments: [{ slot_index, \
                 height, time, amount, collateral }], rows: [{ slot_index, height, time, attested, voting, active, earned }] }] }",
        example: "all 1 100",
        while_starting: false,
        run: getrewardreport,
    },
    MethodSpec {
        name: "getattestationinfo",
        category: Category::Masternodes,
        summary: "Who attested a slot, and who was seen by how much power.",
        details: "The attestations of a slot stand in the first block of a later slot. A slot is attested if those of more than two \
                  thirds of the power stand there.",
        args: &[optional(
            "slot",
            ArgKind::Integer,
            "that of the newest slot block",
            "Number of the clock slot: time / slot length.",
        )],
        result: "{ slot, slot_index, height, blockhash, time, attested, attesting_power, total_power, issued, shared, attestations: \
                 [{ proTxHash, power, supports, present }], masternodes: [{ proTxHash, power, voting, seen_by_power, active, earned }] }",
        example: "",
        while_starting: false,
        run: getattestationinfo,
    },
];

/// The slot blocks that are known, by number.
struct Slots<'a> {
    call: &'a Call<'a>,
    first: SlotIndex,
    last: SlotIndex,
}

impl<'a> Slots<'a> {
    fn new(call: &'a Call<'a>) -> Result<Slots<'a>, RpcError> {
        let first = call.chain().slots(SlotIndex(0), 1)?;
        let first = first.first().map(|slot| slot.figures.index);
        let first = first.ok_or_else(|| {
            RpcError::not_found("no slot block is known yet")
                .hint("figures are kept from the first slot block on that this version has seen")
        })?;
        let last = call.view.slot_index;
        Ok(Slots { call, first, last })
    }

    fn at(&self, index: SlotIndex) -> Result<SlotOutcome, RpcError> {
        let found = self.call.chain().slots(index, 1)?.into_iter().next();
        let found = found.filter(|slot| slot.figures.index == index);
        found.ok_or_else(|| RpcError::not_found(format!("slot block {index} is not known")))
    }

    /// The first slot block for which `later` holds; one past the last if there is none. `later` must never turn false
    /// again.
    fn first_that(&self, later: impl Fn(&SlotOutcome) -> bool) -> Result<SlotIndex, RpcError> {
        let (mut low, mut high) = (self.first.0, self.last.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if later(&self.at(SlotIndex(middle))?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(SlotIndex(low))
    }
}

/// What `from` and `to` count.
#[derive(Clone, Copy)]
enum Unit {
    Slot,
    Height,
    Time,
}

impl Unit {
    fn parse(text: &str) -> Result<Unit, RpcError> {
        match text {
            "" | "slot" => Ok(Unit::Slot),
            "height" => Ok(Unit::Height),
            "time" => Ok(Unit::Time),
            other => Err(
                RpcError::parameter(format!("unknown unit '{}'", clip(other)))
                    .hint("units: slot, height, time"),
            ),
        }
    }
    /// Where a slot block stands, in this unit.
    fn of(self, slot: &SlotOutcome) -> u64 {
        match self {
            Unit::Slot => slot.figures.index.0,
            Unit::Height => slot.figures.height.0,
            Unit::Time => slot.figures.time.0.div_ceil(1_000),
        }
    }
}

/// Sums of one masternode.
#[derive(Default)]
struct Sums {
    voting: u64,
    active: u64,
    missed: u64,
    earned_slots: u64,
    earned: Amount,
    paid: Amount,
    collateral: Amount,
    payments: Vec<Value>,
    rows: Vec<Value>,
}

impl Sums {
    /// Counts a slot block. `details`: of one masternode, with its payments; `rows`: each slot too.
    fn add(&mut self, slot: &SlotOutcome, position: usize, details: bool, rows: bool) {
        let (figures, marks) = (&slot.figures, slot.marks(position));
        let has = |mark: u8| marks & mark != 0;
        let earned = slot.earned(position);
        self.voting += u64::from(has(MARK_VOTING));
        self.active += u64::from(has(MARK_ACTIVE));
        let missed = has(MARK_VOTING) && figures.attested && !has(MARK_ACTIVE);
        self.missed += u64::from(missed);
        self.earned_slots += u64::from(has(MARK_EARNED));
        self.earned = self.earned.plus(earned).unwrap_or(self.earned);
        if let Some(paid) = slot.paid(position) {
            self.paid = self.paid.plus(paid.rewards).unwrap_or(self.paid);
            let collateral = self.collateral.plus(paid.collateral);
            self.collateral = collateral.unwrap_or(self.collateral);
            if details {
                let mut row = place(slot);
                row["amount"] = amount_json(paid.rewards);
                row["collateral"] = amount_json(paid.collateral);
                self.payments.push(row);
            }
        }
        if rows && self.rows.len() < ROW_COUNT_MAX {
            let mut row = place(slot);
            row["attested"] = json!(figures.attested);
            row["voting"] = json!(has(MARK_VOTING));
            row["active"] = json!(has(MARK_ACTIVE));
            row["earned"] = amount_json(earned);
            self.rows.push(row);
        }
    }

    fn to_json(&self, id: &MasternodeId, details: bool, rows: bool) -> Value {
        let mut out = json!({
            "proTxHash": id.to_string(),
            "slots_voting": self.voting,
            "slots_active": self.active,
            "slots_missed": self.missed,
            "slots_earned": self.earned_slots,
            "earned": amount_json(self.earned),
            "paid": amount_json(self.paid),
            "collateral_returned": amount_json(self.collateral),
        });
        if details {
            out["payments"] = Value::Array(self.payments.clone());
        }
        if rows {
            out["rows"] = Value::Array(self.rows.clone());
        }
        out
    }
}

fn place(slot: &SlotOutcome) -> Value {
    json!({
        "slot_index": slot.figures.index.0,
        "height": slot.figures.height.0,
        "time": slot.figures.time.0 / 1_000,
    })
}

/// First and last slot block of the period that was asked for; the second may be below the first.
fn period(slots: &Slots<'_>, args: &Args) -> Result<(u64, u64), RpcError> {
    let unit = Unit::parse(args.text(3))?;
    let bound = |i: usize, name: &str| match args.get(i) {
        None => Ok(None),
        Some(_) => args.count(i, 0, name).map(Some),
    };
    let last = match bound(2, "to")? {
        None => slots.last.0,
        Some(to) => slots
            .first_that(|slot| unit.of(slot) > to)?
            .0
            .saturating_sub(1),
    };
    let first = match bound(1, "from")? {
        None => (last + 1).saturating_sub(DEFAULT_SLOT_COUNT),
        Some(from) => slots.first_that(|slot| unit.of(slot) >= from)?.0,
    };
    Ok((first.max(slots.first.0), last))
}

fn getrewardreport(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let wanted: Option<MasternodeId> = match args.text(0) {
        "" | "all" => None,
        _ => Some(args.id(0, "proTxHash")?),
    };
    let slots = Slots::new(call)?;
    let (first, last) = period(&slots, args)?;
    let until = last.min(first.saturating_add(REPORT_SLOT_COUNT_MAX - 1));
    let (details, rows) = (wanted.is_some(), wanted.is_some() && args.boolean(4, false));
    let mut sums: BTreeMap<MasternodeId, Sums> = BTreeMap::new();
    sums.extend(wanted.map(|id| (id, Sums::default())));
    let (mut ends, mut count, mut attested) = (None, 0u64, 0u64);
    let (mut issued, mut shared) = (Amount::ZERO, Amount::ZERO);
    let mut at = first;
    while at <= until {
        let room = PAGE_SLOT_COUNT.min(until - at + 1);
        let page = call.chain().slots(SlotIndex(at), room as usize)?;
        for slot in &page {
            let figures = &slot.figures;
            ends = Some((
                ends.map_or_else(|| place(slot), |(begin, _)| begin),
                place(slot),
            ));
            count += 1;
            attested += u64::from(figures.attested);
            issued = issued.plus(figures.issued).unwrap_or(issued);
            if figures.attested {
                shared = shared.plus(figures.shared).unwrap_or(shared);
            }
            let ids = slot.order.iter().enumerate();
            for (position, (id, _)) in ids {
                if wanted.is_none_or(|wanted| wanted == *id) {
                    let sum = sums.entry(*id).or_default();
                    sum.add(slot, position, details, rows);
                }
            }
        }
        let Some(end) = page.last() else { break };
        at = end.figures.index.0 + 1;
    }
    let (begin, end) = ends.unwrap_or((Value::Null, Value::Null));
    let list = sums.iter().map(|(id, sum)| sum.to_json(id, details, rows));
    Ok(json!({
        "from": begin,
        "to": end,
        "slots": count,
        "attested": attested,
        "issued": amount_json(issued),
        "shared": amount_json(shared),
        "next": (until < last).then_some(until + 1),
        "masternodes": list.collect::<Vec<_>>(),
    })
    .into())
}

fn getattestationinfo(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let slots = Slots::new(call)?;
    let slot = match args.get(0) {
        None => slots.at(slots.last)?,
        Some(_) => {
            let asked = Slot(args.count(0, 0, "slot")?);
            let index = slots.first_that(|slot| slot.figures.slot >= asked)?;
            let found = (index <= slots.last).then(|| slots.at(index)).transpose()?;
            let found = found.filter(|slot| slot.figures.slot == asked);
            found.ok_or_else(|| {
                RpcError::not_found(format!("no slot block follows slot {asked} at once"))
                    .hint("slots without blocks, and those before the first known slot block, have no attestations")
            })?
        }
    };
    let figures = &slot.figures;
    let block = call.chain().block(figures.height)?;
    let block = block.ok_or_else(|| Call::not_kept("Block"))?;
    let power_of = |id: &MasternodeId| {
        let position = slot.position(id)?;
        let voting = slot.marks(position) & MARK_VOTING != 0;
        slot.order
            .get(position)
            .filter(|_| voting)
            .map(|(_, p)| p.0)
    };
    let mut seen = vec![0u64; slot.order.len()];
    let mut attesting = 0;
    let mut attestations = Vec::with_capacity(block.slot_part.attestations.len());
    for attestation in &block.slot_part.attestations {
        let body = &attestation.body;
        let power = power_of(&body.attester).unwrap_or(0);
        attesting += power;
        let mut present = 0;
        for i in body.present.ones() {
            present += 1;
            if let Some(seen) = seen.get_mut(i) {
                *seen += power;
            }
        }
        attestations.push(json!({
            "proTxHash": body.attester.to_string(),
            "power": power,
            "supports": body.supports.0,
            "present": present,
        }));
    }
    let total: u64 = slot.order.iter().filter_map(|(id, _)| power_of(id)).sum();
    let entry = |(i, (id, power)): (usize, &(MasternodeId, Power))| {
        let marks = slot.marks(i);
        json!({
            "proTxHash": id.to_string(),
            "power": power.0,
            "voting": marks & MARK_VOTING != 0,
            "seen_by_power": seen[i],
            "active": marks & MARK_ACTIVE != 0,
            "earned": amount_json(slot.earned(i)),
        })
    };
    let masternodes = slot.order.iter().enumerate().map(entry);
    Ok(json!({
        "slot": figures.slot.0,
        "slot_index": figures.index.0,
        "height": figures.height.0,
        "blockhash": block.id().to_string(),
        "time": figures.time.0 / 1_000,
        "attested": figures.attested,
        "attesting_power": attesting,
        "total_power": total,
        "issued": amount_json(figures.issued),
        "shared": amount_json(figures.shared),
        "attestations": attestations,
        "masternodes": masternodes.collect::<Vec<_>>(),
    })
    .into())
}
