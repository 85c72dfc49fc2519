//! A block being made or judged: the one code path of `build` and `apply`. Works on copies; the state and coins it
//! started from stay as they are.

use crate::crypto::verify::Check;
use crate::ledger::apply::{Invalid, TxChecks};
use crate::ledger::check::{Rules, SpendError, TxError, check_form, judge_spend, sigcheck_count};
use crate::ledger::coins::{Coin, CoinList, CoinView, FLAG_COINBASE, ViewError};
use crate::ledger::registration::{PendingOperators, perform};
use crate::ledger::registry::{Registry, SealedRegistry};
use crate::ledger::report::SlotFigures;
use crate::ledger::slots::SlotTable;
use crate::ledger::state::{State, Supply};
use crate::types::amount::Amount;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxKind, TxOutput};
use crate::types::validators::ValidatorSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Coins as the block has changed them so far (L9).
struct BlockCoins<'a> {
    view: &'a dyn CoinView,
    /// Made in this block and still there.
    created: BTreeMap<OutPoint, Coin>,
    /// There before this block, and spent in it.
    spent: BTreeMap<OutPoint, Coin>,
}

impl CoinView for BlockCoins<'_> {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        if let Some(coin) = self.created.get(outpoint) {
            return Ok(Some(*coin));
        }
        // What this block made and spent is in neither map, and the view never had it.
        if self.spent.contains_key(outpoint) {
            return Ok(None);
        }
        self.view.coin(outpoint)
    }
}

/// What the block holds so far against table B2.
#[derive(Default)]
pub(crate) struct Load {
    pub bytes: u64,
    pub count: u64,
    pub sigchecks: u64,
    pub registry_count: u64,
}

/// The working copy.
pub(crate) struct Work<'a> {
    pub base: &'a State,
    pub height: Height,
    pub is_slot_block: bool,
    coins: BlockCoins<'a>,
    pub supply: Supply,
    pub registry: Registry,
    pub slots: SlotTable,
    pub pending: PendingOperators,
    /// Whether the slot is attested (B5 step 2).
    pub attested: bool,
    pub load: Load,
    /// What a slot block does, for reports.
    pub report: SlotFigures,
}

/// What the working copy became.
pub(crate) struct Finished {
    pub created: CoinList,
    pub spent: CoinList,
    pub coins: Amount,
    pub coin_count: u64,
    pub supply: Supply,
    pub registry: SealedRegistry,
    pub validators: Arc<ValidatorSet>,
    pub slots: Arc<SlotTable>,
    pub branch: Branch,
    pub report: SlotFigures,
}

impl<'a> Work<'a> {
    pub fn new(view: &'a dyn CoinView, base: &'a State, is_slot_block: bool) -> Work<'a> {
        Work {
            base,
            height: base.tip.height.next(),
            is_slot_block,
            coins: BlockCoins {
                view,
                created: BTreeMap::new(),
                spent: BTreeMap::new(),
            },
            supply: base.tip.supply,
            // Only slot blocks touch these two.
            registry: if is_slot_block {
                base.registry().clone()
            } else {
                Registry::default()
            },
            slots: if is_slot_block {
                SlotTable::clone(&base.slots)
            } else {
                SlotTable::default()
            },
            pending: PendingOperators::new(),
            attested: false,
            load: Load::default(),
            report: SlotFigures::default(),
        }
    }

    fn registry(&self) -> &Registry {
        if self.is_slot_block {
            &self.registry
        } else {
            self.base.registry()
        }
    }

    /// Counts a transaction's size against the limits of B2; nothing is counted if it does not fit.
    pub fn admit(&mut self, tx: &Tx, is_coinbase: bool) -> Result<(), TxError> {
        let limits = self.base.limits();
        let within = |what, found: u64, max: u64| {
            if found > max {
                return Err(TxError::TooLarge { what, found, max });
            }
            Ok(found)
        };
        let bytes = self.load.bytes + tx.size as u64;
        let bytes = within("bytes in the block", bytes, limits.block_bodies_bytes)?;
        let count = self.load.count + 1;
        let count = within("transactions in the block", count, limits.block_tx_count)?;
        let mut sigchecks = self.load.sigchecks;
        let mut registry_count = self.load.registry_count;
        if !is_coinbase {
            sigchecks += sigcheck_count(tx);
            registry_count += u64::from(tx.body().kind.is_registry());
        }
        let sigchecks = within(
            "signature checks in the block",
            sigchecks,
            limits.block_sigcheck_count,
        )?;
        let registry_count = within(
            "registry transactions in the block",
            registry_count,
            limits.registry_tx_count,
        )?;
        self.load = Load {
            bytes,
            count,
            sigchecks,
            registry_count,
        };
        Ok(())
    }

    /// B5 step 6, one transaction: judged on what the block has done so far, then done. Nothing changes on an error.
    pub fn transaction(&mut self, tx: &Tx) -> Result<TxChecks, SpendError> {
        let kind = tx.body().kind;
        if kind.is_registry() && !self.is_slot_block {
            return Err(SpendError::Tx(TxError::Kind(kind)));
        }
        check_form(tx, self.base.params(), self.base.limits())?;
        let rules = Rules {
            chain: &self.base.chain,
            branch: self.base.tip.branch,
            registry: self.registry(),
            pending: &self.pending,
        };
        let spend = judge_spend(tx, &self.coins, rules)?;
        let pot = self.supply.pot.plus(spend.fee).ok_or(TxError::Overflow)?;
        self.admit(tx, false)?;
        self.supply.pot = pot;
        for (outpoint, coin) in tx.body().inputs.iter().zip(spend.spent) {
            if self.coins.created.remove(outpoint).is_none() {
                self.coins.spent.insert(*outpoint, coin);
            }
        }
        // M1: output 0 of a registration is collateral, in the registry and no coin.
        let locked = usize::from(kind == TxKind::Register);
        let numbered = tx.body().outputs.iter().zip(0u32..);
        for (output, vout) in numbered.skip(locked) {
            self.create(tx.outpoint(vout), *output, 0);
        }
        if kind.is_registry() {
            let now = self.slots.slot_index();
            perform(tx, &mut self.registry, &mut self.pending, now)?;
        }
        Ok(TxChecks {
            wtxid: tx.wtxid,
            checks: spend.checks,
        })
    }

    /// Puts in what is valid and fits, in the order given.
    pub fn fill(&mut self, candidates: Vec<Tx>) -> Result<Vec<Tx>, ViewError> {
        let mut taken = Vec::with_capacity(candidates.len() + 1);
        for tx in candidates {
            match self.transaction(&tx) {
                Ok(_) => taken.push(tx),
                Err(SpendError::View(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(taken)
    }

    fn create(&mut self, outpoint: OutPoint, output: TxOutput, flags: u8) {
        self.coins.created.insert(outpoint, Coin { output, flags });
    }

    /// The outputs of the coinbase, after all transactions (L9).
    pub fn create_coinbase(&mut self, tx: &Tx) {
        for (output, vout) in tx.body().outputs.iter().zip(0u32..) {
            self.create(tx.outpoint(vout), *output, FLAG_COINBASE);
        }
    }

    /// Sums up; the supply check of L10 is the caller's, once the state stands.
    pub fn finish(mut self) -> Result<Finished, Invalid> {
        let base = self.base;
        let created: CoinList = std::mem::take(&mut self.coins.created)
            .into_iter()
            .collect();
        let spent: CoinList = std::mem::take(&mut self.coins.spent).into_iter().collect();
        let value = |list: &CoinList| Amount::sum(list.iter().map(|(_, c)| c.output.value));
        // What goes is part of what was there; taken first, no sum exceeds what was ever issued.
        let rest = value(&spent).and_then(|gone| base.tip.coins.minus(gone));
        let coins = rest.and_then(|rest| value(&created).and_then(|made| rest.plus(made)));
        let coin_count = base.tip.coin_count + created.len() as u64;
        let (registry, validators, slots, branch) = if self.is_slot_block {
            let branch = self.slots.branch_after(base.tip.branch);
            let validators = self.registry.validators();
            let registry = SealedRegistry::new(self.registry).ok_or(Invalid::Supply)?;
            let same = validators == *base.validators;
            let validators = if same {
                base.validators.clone()
            } else {
                Arc::new(validators)
            };
            (registry, validators, Arc::new(self.slots), branch)
        } else {
            let (registry, slots) = (base.registry.clone(), base.slots.clone());
            (registry, base.validators.clone(), slots, base.tip.branch)
        };
        Ok(Finished {
            coin_count: coin_count.saturating_sub(spent.len() as u64),
            created,
            spent,
            coins: coins.ok_or(Invalid::Supply)?,
            supply: self.supply,
            registry,
            validators,
            slots,
            branch,
            report: self.report,
        })
    }
}

/// Checks of the slot part and the last commit.
pub(crate) type OtherChecks = Vec<Check>;
