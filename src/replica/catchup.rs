//! Blocks that other nodes decided (F1): applied one upon another as they come, while the pool still checks signatures of
//! earlier ones, and decided in order once those hold.
//!
//! Input: blocks with verified certificates from the sync machine, verdicts on their transactions. Output: decisions. It
//! never decides a block before the one below, nor one whose signatures were refuted: that halts the node (S10).
//!
//! Such a block costs no record in the signer store when it is decided: what is not durable in the ledger yet is written
//! there before this node signs its next message (S5, I6), and until then a crash only means to fetch it again.

use crate::base::limits::{BLOCK_BODIES_BYTES_MAX, Size};
use crate::base::time::Now;
use crate::crypto::verify::{Check, Verified};
use crate::ledger::apply::{self, ApplyError, Delta};
use crate::ledger::coins::{Coin, CoinView, ViewError};
use crate::replica::height::Work;
use crate::replica::io::Item;
use crate::replica::machine::{LEDGER_BEHIND_MAX, Layered, Replica};
use crate::replica::record::Record;
use crate::replica::sizes::CHANGE_BYTES_MIN;
use crate::sync::DELIVERED_COUNT_MAX;
use crate::types::block::{Block, Certificate};
use crate::types::fork::Decision;
use crate::types::ids::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Blocks from other nodes that are applied and not yet durable in the ledger; beyond it the next one waits.
pub(super) const BEHIND_COUNT_MAX: usize = 256;
/// Bytes of their transactions.
const BEHIND_BYTES_MAX: usize = 64 << 20;

/// A block that the sync machine delivered.
#[derive(Debug, Clone)]
pub struct Synced {
    /// The block.
    pub block: Arc<Block>,
    /// Why it is decided.
    pub certificate: Verified<Certificate>,
    /// F3: at or below the trusted slot header in mode certified: signatures of its transactions are not looked at.
    pub trusted: bool,
}

/// A block that is applied upon the one before it in line.
struct Applied {
    id: BlockId,
    block: Arc<Block>,
    delta: Arc<Delta>,
    certificate: Certificate,
    /// All its signatures hold.
    proven: bool,
}

/// What is known of the blocks above the tip that others decided.
#[derive(Default)]
pub(super) struct Catchup {
    /// Delivered and not applied. At most [`DELIVERED_COUNT_MAX`].
    waiting: BTreeMap<Height, Synced>,
    /// Applied upon the tip, in order.
    line: VecDeque<Applied>,
    line_bytes: usize,
    /// What the line does to coins: `None` is spent.
    coins: BTreeMap<OutPoint, (Height, Option<Coin>)>,
    /// Heights decided this way of which the signer store holds no record.
    unrecorded: BTreeSet<Height>,
}

impl Catchup {
    /// The height is decided, by whatever way.
    pub(super) fn passed(&mut self, height: Height, id: BlockId) {
        self.waiting = self.waiting.split_off(&height.next());
        match self.line.front() {
            Some(first) if first.delta.after.height() == height && first.id == id => {
                self.pop();
            }
            Some(first) if first.delta.after.height() <= height => {
                self.line.clear();
                self.line_bytes = 0;
                self.coins.clear();
            }
            _ => {}
        }
    }

    fn pop(&mut self) -> Option<Applied> {
        let first = self.line.pop_front()?;
        let height = first.delta.after.height();
        self.line_bytes -= first.block.bodies_size();
        let changed = first.delta.created.iter().chain(&first.delta.spent);
        for (outpoint, _) in changed {
            if self
                .coins
                .get(outpoint)
                .is_some_and(|(of, _)| *of == height)
            {
                self.coins.remove(outpoint);
            }
        }
        Some(first)
    }

    fn push(&mut self, applied: Applied) {
        let height = applied.delta.after.height();
        self.line_bytes += applied.block.bodies_size();
        for (outpoint, coin) in &applied.delta.created {
            self.coins.insert(*outpoint, (height, Some(*coin)));
        }
        for (outpoint, _) in &applied.delta.spent {
            self.coins.insert(*outpoint, (height, None));
        }
        self.line.push_back(applied);
    }

    /// The ledger holds everything up to `height`.
    pub(super) fn durable(&mut self, height: Height) {
        self.unrecorded = self.unrecorded.split_off(&height.next());
    }

    /// A block was decided this way: the signer store knows nothing of it.
    pub(super) fn decided_unrecorded(&mut self, height: Height) {
        self.unrecorded.insert(height);
    }
}

/// Of the checks of a block that are none of its transactions', those that remain when the certificate of its parent is known
/// to hold: a last_commit of the very same signatures needs no second look.
pub(super) fn unknown_checks(
    mut checks: Vec<Check>,
    block: &Block,
    parent: Option<&Certificate>,
) -> Vec<Check> {
    if parent.is_some_and(|parent| parent.commit == block.last_commit) {
        let known = block.last_commit.signatures.len().min(checks.len());
        checks.drain(..known);
    }
    checks
}

fn decision_of(block: &Block, certificate: &Certificate) -> Decision {
    Decision {
        header: block.header.clone(),
        certificate: certificate.clone(),
    }
}

impl Catchup {
    /// How full its containers are.
    pub(super) fn sizes(&self) -> Vec<Size> {
        vec![
            Size::new("delivered blocks", self.waiting.len(), DELIVERED_COUNT_MAX),
            Size::new("blocks applied ahead", self.line.len(), BEHIND_COUNT_MAX),
            Size::new(
                "coins of blocks applied ahead",
                self.coins.len(),
                BEHIND_COUNT_MAX * (BLOCK_BODIES_BYTES_MAX / CHANGE_BYTES_MIN),
            ),
            Size::new(
                "heights without a record",
                self.unrecorded.len(),
                LEDGER_BEHIND_MAX + BEHIND_COUNT_MAX,
            ),
            Size::new(
                "bytes applied ahead",
                self.line_bytes,
                BEHIND_BYTES_MAX + BLOCK_BODIES_BYTES_MAX,
            ),
        ]
    }
}

impl Replica {
    /// A block with a certificate that another node decided arrives from the sync machine.
    pub(super) fn synced(&mut self, synced: Synced) {
        let (height, own) = (synced.certificate.height, self.height.height());
        let near = height >= own && height.0 - own.0 < DELIVERED_COUNT_MAX as u64;
        let allowed = self.forks.allows(height, synced.certificate.block);
        let whole = synced.block.id() == synced.certificate.block;
        if self.halted.is_none() && near && allowed && whole {
            self.catchup.waiting.insert(height, synced);
        }
    }

    /// Applies what was delivered, as far as there is room behind it.
    pub(super) fn take_synced(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        loop {
            let line = self.catchup.line.len();
            let next = Height(self.height.height().0 + line as u64);
            let room = self.undurable.len() + line < BEHIND_COUNT_MAX
                && self.undurable_bytes + self.catchup.line_bytes < BEHIND_BYTES_MAX;
            if self.halted.is_some() || !room {
                return Ok(());
            }
            let Some(synced) = self.catchup.waiting.remove(&next) else {
                return Ok(());
            };
            self.judge_synced(now, synced, view)?;
        }
    }

    fn judge_synced(
        &mut self,
        now: Now,
        synced: Synced,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Synced {
            block,
            certificate,
            trusted,
        } = synced;
        let id = certificate.block;
        let own = match self.catchup.line.is_empty() {
            true => self.height.blocks.get(&id),
            false => None,
        };
        if matches!(
            own,
            Some(Work::Valid(..) | Work::Checking(..) | Work::Invalid(_))
        ) {
            self.height
                .certificate
                .get_or_insert(Box::new(certificate.into_inner()));
            return self.settle(now, view);
        }
        let (state, parent) = match self.catchup.line.back() {
            Some(last) => (last.delta.after.clone(), Some(&last.certificate)),
            None => (self.state.clone(), self.last_certificate.as_ref()),
        };
        let decided = Layered {
            pending: &self.pending,
            base: view,
        };
        let coins = Layered {
            pending: &self.catchup.coins,
            base: &decided,
        };
        let applied = match apply::apply(&coins, &state, &block) {
            Ok(applied) => applied,
            Err(ApplyError::View(error)) => return Err(error),
            Err(ApplyError::Invalid(_)) if self.names_other(&block.header) => {
                return self.weigh_decision(None, &decision_of(&block, &certificate), view);
            }
            Err(ApplyError::Invalid(invalid)) => {
                self.halt_certified(&certificate, &invalid.to_string());
                return Ok(());
            }
        };
        let mut checks = unknown_checks(applied.other_checks, &block, parent);
        if !trusted {
            let unknown = applied.checks.into_iter();
            let unknown = unknown.filter(|c| !self.mempool.is_verified(&c.wtxid));
            checks.extend(unknown.flat_map(|c| c.checks));
        }
        let proven = checks.is_empty();
        self.catchup.push(Applied {
            id,
            block,
            delta: Arc::new(applied.delta),
            certificate: certificate.into_inner(),
            proven,
        });
        if proven {
            return self.decide_line(now, view);
        }
        self.check(Item::Block(id), checks);
        Ok(())
    }

    /// All signatures of a block in line hold. False: it is in no line.
    pub(super) fn line_proven(
        &mut self,
        now: Now,
        id: BlockId,
        view: &dyn CoinView,
    ) -> Result<bool, ViewError> {
        let mut line = self.catchup.line.iter_mut();
        let Some(applied) = line.find(|applied| applied.id == id) else {
            return Ok(false);
        };
        applied.proven = true;
        self.decide_line(now, view)?;
        Ok(true)
    }

    /// Decides what is proven at the front of the line.
    fn decide_line(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        while self.halted.is_none() && self.catchup.line.front().is_some_and(|first| first.proven) {
            let Some(first) = self.catchup.pop() else {
                return Ok(());
            };
            self.decide(now, first.block, first.delta, first.certificate, true, view)?;
        }
        Ok(())
    }

    /// A certified block breaks a rule (S10).
    pub(super) fn halt_certified(&mut self, certificate: &Certificate, why: &str) {
        let (height, id) = (certificate.height, certificate.block);
        self.halt(format!(
            "block {id} at height {height} is certified and breaks a rule ({why}): this node or more than a third of the masternodes is wrong; compare versions and tips with other operators"
        ));
    }

    /// A signature of a block in line does not hold. False: it is in no line.
    pub(super) fn line_refuted(&mut self, id: BlockId, why: &str) -> bool {
        let mut line = self.catchup.line.iter();
        let Some(certificate) = line.find(|a| a.id == id).map(|a| a.certificate.clone()) else {
            return false;
        };
        self.halt_certified(&certificate, why);
        true
    }

    /// I6: before a message, every decided block that the ledger may not hold yet is recorded, lowest first.
    pub(super) fn record_undurable(&mut self) {
        let unrecorded = std::mem::take(&mut self.catchup.unrecorded);
        if unrecorded.is_empty() {
            return;
        }
        let missing = self.undurable.iter();
        let missing = missing.filter(|d| unrecorded.contains(&d.certificate.height));
        for decided in missing {
            let record = Record::Block(Box::new(Block::clone(&decided.block)));
            self.gate.write(&record);
            self.gate
                .write(&Record::Certificate(decided.certificate.clone()));
        }
    }
}
