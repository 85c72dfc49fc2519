//! Transactions that no block holds yet (section 5, B2).
//!
//! Job: decide which are kept, keep them within their bounds, and offer them to proposals. Inputs: transactions with their
//! source, decided blocks, time. Outputs: verdicts, signature checks to run, what left and why. First seen reserves an
//! outpoint; a transaction that conflicts is refused and reported with both. Order of checks: known? refused before? form?
//! conflict? coins? ancestors? fee and programs? and last the signatures, which the caller runs between
//! [`Mempool::consider`] and [`Mempool::admit`].
//!
//! It must never influence what its node prevotes (L8), hold two transactions that spend one outpoint, outgrow its bounds,
//! or believe anything that it was told by a peer beyond what the ledger's rules say.
//!
//! All work per transaction is bounded by its inputs and 25 ancestors; nothing looks at the whole pool but
//! [`Mempool::short_ids`], [`Mempool::save`], a change of branch and the registry check after a slot block.

mod lru;
mod orphans;
mod outcome;
mod pool;
mod rate;
mod saved;
mod select;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_random;
#[cfg(test)]
mod tests_registry;

pub use outcome::{Admission, AdmitError, Admitted, Departed, Departure, Refusal, Settled};
pub use rate::FeeRate;
pub use saved::{SavedError, SavedTx, decode_saved, encode_saved};
pub use select::{Found, Selection, ShortIds};

use crate::base::limits::*;
use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::verify::{Check, Verified};
use crate::ledger::check::{SpendError, check_form, check_spend, sigcheck_count};
use crate::ledger::coins::{Coin, CoinView, ViewError};
use crate::ledger::registration::stale_registration;
use crate::ledger::state::State;
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxKind};
use lru::Lru;
use orphans::Orphans;
use pool::{NewEntry, Pool};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the transactions that left are remembered with the reason.
pub const DEPARTED_COUNT_MAX: usize = 100_000;

/// Decided transactions that are remembered by wtxid, so that late inventories do not fetch them again.
pub const DECIDED_COUNT_MAX: usize = 50_000;

/// Registry transactions judged again after a slot block: many blocks' worth, and some milliseconds of work.
pub const RECHECK_COUNT_MAX: usize = 1_000;

/// Transactions of one mempool file.
pub const SAVED_COUNT_MAX: usize = 1_000_000;

/// Node bounds of one mempool (B2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Transactions.
    pub count: usize,
    /// Their encoded bytes.
    pub bytes: usize,
}

impl Default for MempoolLimits {
    fn default() -> MempoolLimits {
        MempoolLimits {
            count: MEMPOOL_COUNT_DEFAULT,
            bytes: MEMPOOL_BYTES_DEFAULT,
        }
    }
}

/// Where a transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This node's wallet or RPC: no share bounds it, and it never waits as an orphan.
    Local,
    /// A peer: at most an eighth of the mempool is its.
    Peer(u64),
    /// The mempool's file: first admitted at this time.
    Saved(WallMs),
}

/// The mempool of a node.
pub struct Mempool {
    limits: MempoolLimits,
    branch: Branch,
    pool: Pool,
    orphans: Orphans,
    verified: Lru<Wtxid, ()>,
    rejected: Lru<Wtxid, ()>,
    departed: Lru<Txid, Departure>,
    decided: Lru<Wtxid, ()>,
}

/// Coins that were found for the inputs of one transaction.
struct Inputs(BTreeMap<OutPoint, Coin>);

impl CoinView for Inputs {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        Ok(self.0.get(outpoint).cloned())
    }
}

/// A judged transaction, before its signatures.
struct Judged {
    fee: u64,
    checks: Vec<Check>,
    sigchecks: usize,
    ancestors: BTreeSet<u64>,
}

/// Why [`Mempool::judge`] has no verdict.
enum Stop {
    Missing(Vec<OutPoint>),
    Refused(Refusal),
    View(ViewError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl Mempool {
    /// An empty mempool for rule set 0.
    pub fn new(limits: MempoolLimits) -> Mempool {
        Mempool {
            limits,
            branch: Branch(0),
            pool: Pool::default(),
            orphans: Orphans::default(),
            verified: Lru::new(VERIFIED_CACHE_COUNT),
            rejected: Lru::new(REJECT_CACHE_COUNT),
            departed: Lru::new(DEPARTED_COUNT_MAX),
            decided: Lru::new(DECIDED_COUNT_MAX),
        }
    }

    /// The cheap checks of a transaction that arrived. `view` holds the coins after the last decided block, `state` the
    /// rest of the ledger at the same height. An error is our own disk's.
    pub fn consider(
        &mut self,
        now: Now,
        tx: &Tx,
        source: Source,
        view: &dyn CoinView,
        state: &State,
    ) -> Result<Admission, ViewError> {
        let here = self.pool.by_wtxid(&tx.wtxid).is_some() || self.orphans.contains(&tx.wtxid);
        if here || self.decided.get(&tx.wtxid).is_some() {
            return Ok(Admission::Known);
        }
        // Whoever sends it here is told the reason each time.
        if source != Source::Local && self.rejected.touch(&tx.wtxid) {
            return Ok(Admission::Refused(Refusal::RejectedBefore));
        }
        if tx.body().kind == TxKind::Coinbase {
            return Ok(Admission::Refused(Refusal::Coinbase));
        }
        if let Err(error) = check_form(tx, state.params(), state.limits()) {
            self.reject(tx.wtxid);
            return Ok(Admission::Refused(error.into()));
        }
        match self.judge(tx, view, state) {
            Ok(judged) => {
                let known = self.verified.touch(&tx.wtxid);
                let checks = if known { Vec::new() } else { judged.checks };
                let fee = judged.fee;
                Ok(Admission::Check { checks, fee })
            }
            Err(Stop::Refused(refusal)) => {
                let transfer = tx.body().kind == TxKind::Transfer;
                if transfer && matches!(refusal, Refusal::Invalid(_)) {
                    // What a transfer spends never changes, so neither does the verdict.
                    self.reject(tx.wtxid);
                }
                Ok(Admission::Refused(refusal))
            }
            Err(Stop::View(error)) => Err(error),
            Err(Stop::Missing(missing)) => self.without_inputs(now, tx, source, view, missing),
        }
    }

    /// Tells apart: decided before, spent by a decided transaction, child of an unknown parent.
    fn without_inputs(
        &mut self,
        now: Now,
        tx: &Tx,
        source: Source,
        view: &dyn CoinView,
        missing: Vec<OutPoint>,
    ) -> Result<Admission, ViewError> {
        match self.departed.get(&tx.txid) {
            Some(Departure::Included) => return Ok(Admission::Known),
            Some(Departure::Conflicted { by }) => {
                let by = *by;
                return Ok(Admission::Refused(Refusal::SpentByDecided { by }));
            }
            _ => {}
        }
        if !tx.body().outputs.is_empty() && view.coin(&tx.outpoint(0))?.is_some() {
            return Ok(Admission::Known);
        }
        if let Source::Peer(_) = source {
            let parents = missing.iter().map(|outpoint| outpoint.txid).collect();
            self.orphans.insert(now.mono, tx, source, parents);
        }
        Ok(Admission::Orphan { missing })
    }

    /// Conflicts, coins, ancestors, and the ledger's verdict on the spend.
    fn judge(&self, tx: &Tx, view: &dyn CoinView, state: &State) -> Result<Judged, Stop> {
        if let Some(same) = self.pool.by_txid(&tx.txid) {
            let refusal = if same.tx.wtxid == tx.wtxid {
                Refusal::Known
            } else {
                Refusal::OtherWitness(same.tx.wtxid)
            };
            return Err(refusal.into());
        }
        for outpoint in tx.body().inputs.iter() {
            let first = self.pool.spender(outpoint).and_then(|k| self.pool.entry(k));
            if let Some(first) = first {
                let (outpoint, first, second) = (*outpoint, first.tx.clone(), tx.clone());
                return Err(Refusal::Conflict {
                    outpoint,
                    first,
                    second,
                }
                .into());
            }
        }
        let coins = self.inputs_of(tx, view)?;
        let ancestors = self.pool.ancestors_of(tx)?;
        match check_spend(tx, &coins, state) {
            Ok(spend) => Ok(Judged {
                fee: spend.fee.0,
                checks: spend.checks,
                sigchecks: sigcheck_count(tx) as usize,
                ancestors,
            }),
            Err(SpendError::Tx(error)) => Err(Refusal::Invalid(error).into()),
            Err(SpendError::Missing(outpoint)) => Err(Stop::Missing(vec![outpoint])),
            Err(SpendError::View(error)) => Err(Stop::View(error)),
        }
    }

    /// The coins a transaction spends: outputs of the mempool, or of the ledger.
    fn inputs_of(&self, tx: &Tx, view: &dyn CoinView) -> Result<Inputs, Stop> {
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for outpoint in tx.body().inputs.iter() {
            let coin = match self.pool.by_txid(&outpoint.txid) {
                Some(parent) => {
                    let coin = unconfirmed_coin(&parent.tx, outpoint.vout);
                    Some(coin.ok_or(Refusal::NoSuchCoin(*outpoint))?)
                }
                None => view.coin(outpoint).map_err(Stop::View)?,
            };
            match coin {
                Some(coin) => {
                    found.insert(*outpoint, coin);
                }
                None => missing.push(*outpoint),
            }
        }
        if missing.is_empty() {
            Ok(Inputs(found))
        } else {
            Err(Stop::Missing(missing))
        }
    }

    /// Admits a transaction whose signatures are good. What may have changed since [`Mempool::consider`] is checked again:
    /// conflicts, coins, ancestors, room.
    pub fn admit(
        &mut self,
        now: Now,
        tx: Verified<Tx>,
        source: Source,
        view: &dyn CoinView,
        state: &State,
    ) -> Result<Admitted, AdmitError> {
        if state.tip.branch != self.branch {
            // The signatures were checked under a branch that is over (L5).
            return Err(Refusal::OtherBranch.into());
        }
        let tx = tx.into_inner();
        self.verified.insert(tx.wtxid, ());
        let judged = match self.judge(&tx, view, state) {
            Ok(judged) => judged,
            Err(Stop::Refused(refusal)) => return Err(refusal.into()),
            Err(Stop::View(error)) => return Err(AdmitError::View(error)),
            Err(Stop::Missing(missing)) => return Err(self.vanished(&tx, missing).into()),
        };
        let (txid, wtxid) = (tx.txid, tx.wtxid);
        let key = self
            .pool
            .insert(entry(now, tx, source, &judged), &judged.ancestors);
        let mut evicted = Vec::new();
        if let Some(refusal) = self.make_room(source, key, &mut evicted) {
            evicted.retain(|departed| departed.tx.txid != txid);
            return Err(AdmitError::Refused { refusal, evicted });
        }
        self.departed.remove(&txid);
        self.orphans.forget(&wtxid);
        let orphans_now_ready = self.orphans.children_of(&txid);
        Ok(Admitted {
            evicted,
            orphans_now_ready,
        })
    }

    fn vanished(&self, tx: &Tx, missing: Vec<OutPoint>) -> Refusal {
        match (self.departed.get(&tx.txid), missing.first()) {
            (Some(Departure::Conflicted { by }), _) => Refusal::SpentByDecided { by: *by },
            (None, Some(outpoint)) => Refusal::Missing(*outpoint),
            _ => Refusal::Known,
        }
    }

    /// Evicts until every bound holds: first within the sender's share, then in the whole pool. `new` is judged like all
    /// others, so it goes itself if nothing pays less.
    fn make_room(&mut self, source: Source, new: u64, out: &mut Vec<Departed>) -> Option<Refusal> {
        if let Source::Peer(peer) = source {
            let count = self.limits.count / MEMPOOL_PEER_SHARE;
            let bytes = self.limits.bytes / MEMPOOL_PEER_SHARE;
            while self.pool.share(peer).count > count || self.pool.share(peer).bytes > bytes {
                let worst = self.pool.worst_of(peer)?;
                if self.evict(worst, new, out) {
                    return Some(Refusal::PeerShare);
                }
            }
        }
        while self.pool.len() > self.limits.count || self.pool.bytes() > self.limits.bytes {
            let worst = self.pool.worst()?;
            if self.evict(worst, new, out) {
                return Some(Refusal::Full);
            }
        }
        None
    }

    /// Evicts `key` with its children; whether `new` was among them.
    fn evict(&mut self, key: u64, new: u64, out: &mut Vec<Departed>) -> bool {
        let family = self.pool.family(key);
        let departed = self.depart(&family, Departure::Evicted);
        out.extend(departed);
        family.contains(&new)
    }

    fn depart(&mut self, keys: &BTreeSet<u64>, why: Departure) -> Vec<Departed> {
        let removed = self.pool.remove(keys);
        for tx in &removed {
            self.departed.insert(tx.txid, why);
        }
        let departed = removed.into_iter();
        departed.map(|tx| Departed { tx, why }).collect()
    }

    /// A signature of the transaction was bad, or its bytes break a rule whatever the state: remembered by wtxid, so that
    /// the same transaction with good witnesses is not shut out (L4).
    pub fn reject(&mut self, wtxid: Wtxid) {
        self.rejected.insert(wtxid, ());
    }

    /// Remembers that the signatures of a transaction, found in a proposal, are good.
    pub fn note_verified(&mut self, wtxid: Wtxid) {
        self.verified.insert(wtxid, ());
    }

    /// Whether the signatures of this wtxid were found good under the branch in force.
    pub fn is_verified(&self, wtxid: &Wtxid) -> bool {
        self.verified.get(wtxid).is_some()
    }

    /// Whether this wtxid was found invalid lately.
    pub fn is_rejected(&self, wtxid: &Wtxid) -> bool {
        self.rejected.get(wtxid).is_some()
    }

    /// A block was decided: removes what it holds, and what conflicts with it, with children.
    pub fn decided(&mut self, block: &Block) -> Settled {
        let mut settled = Settled::default();
        for tx in block.transactions.iter() {
            if let Some(key) = self.pool.key_of(&tx.txid) {
                let included = self.depart(&BTreeSet::from([key]), Departure::Included);
                settled.departed.extend(included);
            } else {
                self.departed.insert(tx.txid, Departure::Included);
            }
            for input in tx.body().inputs.iter() {
                if let Some(key) = self.pool.spender(input) {
                    let family = self.pool.family(key);
                    let why = Departure::Conflicted { by: tx.txid };
                    settled.departed.extend(self.depart(&family, why));
                }
            }
            self.orphans.forget(&tx.wtxid);
            self.decided.insert(tx.wtxid, ());
        }
        for tx in block.transactions.iter() {
            let ready = self.orphans.children_of(&tx.txid);
            settled.orphans_now_ready.extend(ready);
        }
        settled
    }

    /// After a slot block: registry transactions that the registry refuses as it is now leave with the reason, children
    /// too. Looks at the [`RECHECK_COUNT_MAX`] that pay best: more than the next blocks can hold.
    pub fn recheck_registry(&mut self, state: &State) -> Vec<Departed> {
        let registry = self.pool.best_first().filter(|key| {
            let entry = self.pool.entry(*key);
            entry.is_some_and(|e| e.tx.body().kind.is_registry())
        });
        let stale: Vec<(u64, &'static str)> = registry
            .take(RECHECK_COUNT_MAX)
            .filter_map(|key| Some((key, stale_registration(&self.pool.entry(key)?.tx, state)?)))
            .collect();
        let mut departed = Vec::new();
        for (key, why) in stale {
            let family = self.pool.family(key);
            departed.extend(self.depart(&family, Departure::Invalid(why)));
        }
        departed
    }

    /// Sets the branch in force at the next height. If it changes, every signature is void (L5) and all leave.
    pub fn set_branch(&mut self, branch: Branch) -> Vec<Departed> {
        if branch == self.branch {
            return Vec::new();
        }
        self.branch = branch;
        self.verified.clear();
        self.rejected.clear();
        self.orphans = Orphans::default();
        let all = self.pool.keys();
        self.depart(&all, Departure::Invalid("the rules changed: sign it again"))
    }

    /// Drops what has waited too long, children too.
    pub fn expire(&mut self, now: Now) -> Vec<Departed> {
        self.orphans.expire(now.mono);
        let mut out = Vec::new();
        while let Some(key) = self.pool.expired(now.mono) {
            let family = self.pool.family(key);
            out.extend(self.depart(&family, Departure::Expired));
        }
        out
    }

    /// When [`Mempool::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<MonoUs> {
        let times = [self.pool.next_expiry(), self.orphans.next_expiry()];
        times.into_iter().flatten().min()
    }

    /// Why a transaction left, if that is remembered.
    pub fn departure(&self, txid: &Txid) -> Option<Departure> {
        self.departed.get(txid).copied()
    }

    /// A transaction by txid.
    pub fn get(&self, txid: &Txid) -> Option<&Tx> {
        self.pool.by_txid(txid).map(|entry| &entry.tx)
    }

    /// A transaction by wtxid.
    pub fn get_by_wtxid(&self, wtxid: &Wtxid) -> Option<&Tx> {
        self.pool.by_wtxid(wtxid).map(|entry| &entry.tx)
    }

    /// Whether a body with this wtxid need not be asked for: it is here, waits as an orphan, is
    /// decided, or was found invalid.
    pub fn has_seen(&self, wtxid: &Wtxid) -> bool {
        self.pool.by_wtxid(wtxid).is_some()
            || self.orphans.contains(wtxid)
            || self.decided.get(wtxid).is_some()
            || self.is_rejected(wtxid)
    }

    /// The transaction that reserves an outpoint.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Tx> {
        let key = self.pool.spender(outpoint)?;
        self.pool.entry(key).map(|entry| &entry.tx)
    }

    /// A coin that a transaction of the mempool makes and none spends.
    pub fn unspent_coin(&self, outpoint: &OutPoint) -> Option<Coin> {
        let parent = self.pool.by_txid(&outpoint.txid)?;
        let free = self.pool.spender(outpoint).is_none();
        free.then(|| unconfirmed_coin(&parent.tx, outpoint.vout))?
    }

    /// Fee and size of a transaction.
    pub fn fee_rate(&self, txid: &Txid) -> Option<FeeRate> {
        self.pool.by_txid(txid).map(|entry| entry.own())
    }

    /// When a transaction was admitted.
    pub fn added(&self, txid: &Txid) -> Option<WallMs> {
        self.pool.by_txid(txid).map(|entry| entry.added)
    }

    /// All with the wall time of admission, in order of arrival: parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&Tx, WallMs)> {
        self.pool.iter().map(|entry| (&entry.tx, entry.added))
    }

    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Its bounds.
    pub fn limits(&self) -> MempoolLimits {
        self.limits
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        vec![
            Size::new("mempool", self.pool.len(), self.limits.count),
            Size::new("mempool bytes", self.pool.bytes(), self.limits.bytes),
            Size::new("orphans", self.orphans.len(), ORPHAN_COUNT_MAX),
            Size::new("verified cache", self.verified.len(), VERIFIED_CACHE_COUNT),
            Size::new("reject cache", self.rejected.len(), REJECT_CACHE_COUNT),
            Size::new("departed", self.departed.len(), DEPARTED_COUNT_MAX),
            Size::new("decided names", self.decided.len(), DECIDED_COUNT_MAX),
        ]
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.pool.len() == 0
    }

    /// Encoded bytes of the transactions.
    pub fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Transactions that wait for a parent.
    pub fn orphan_len(&self) -> usize {
        self.orphans.len()
    }

    /// Whether it holds a transaction that the next block may contain: a reason to act (S3).
    pub fn has_candidate(&self, slot_block: bool) -> bool {
        if slot_block {
            !self.is_empty()
        } else {
            self.pool.plain_len() > 0
        }
    }

    /// What the mempool's file is to hold; cheap, as transactions are shared. [`encode_saved`] makes the bytes.
    pub fn saved(&self) -> Vec<SavedTx> {
        let all = self.iter().map(|(tx, added)| SavedTx {
            added,
            tx: tx.clone(),
        });
        all.collect()
    }

    /// The content of the mempool's file.
    pub fn save(&self, chain: ChainId) -> Vec<u8> {
        encode_saved(chain, self.saved().into_iter())
    }
}

/// The coin that output `vout` of an unconfirmed transaction will be; none if it makes none. Output 0 of a registration
/// goes into the registry (M1).
fn unconfirmed_coin(tx: &Tx, vout: u32) -> Option<Coin> {
    let body = tx.body();
    if body.kind == TxKind::Register && vout == 0 {
        return None;
    }
    let output = *body.outputs.get(vout as usize)?;
    Some(Coin { output, flags: 0 })
}

fn entry(now: Now, tx: Tx, source: Source, judged: &Judged) -> NewEntry {
    let added = match source {
        Source::Saved(added) => added.min(now.wall),
        Source::Local | Source::Peer(_) => now.wall,
    };
    let left = MEMPOOL_EXPIRY_MS.saturating_sub(now.wall.since(added));
    NewEntry {
        tx,
        fee: judged.fee,
        sigchecks: judged.sigchecks,
        source,
        added,
        expires: now.mono.plus_ms(left),
    }
}
