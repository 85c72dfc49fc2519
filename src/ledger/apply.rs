//! One block on one state: `apply` judges everything but signatures, `build` makes a block that `apply` accepts. Both walk
//! the same path over a working copy; neither changes its inputs (L12).

use crate::base::bounded::BoundedVec;
use crate::base::limits::BLOCK_TX_COUNT_MAX;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::crypto::merkle::HISTORY_TREE;
use crate::crypto::verify::Check;
use crate::ledger::check::{SpendError, TxError};
use crate::ledger::coins::{CoinList, CoinView, ViewError};
use crate::ledger::report::{SlotFigures, SlotOutcome, order_of};
use crate::ledger::slots::slot_of;
use crate::ledger::state::{State, Tip};
use crate::ledger::undo::Undo;
use crate::ledger::work::{Finished, Work};
use crate::types::block::{Block, Commit, CommitError, HEADER_VERSION, Header, slot_root, tx_root};
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::transaction::{Tx, TxKind};
use std::sync::Arc;

/// The highest rule set this software knows (L15).
pub const SOFTWARE_BRANCH: Branch = Branch(0);

/// What a block changes.
#[derive(Debug, Clone)]
pub struct Delta {
    /// Coins it leaves behind, ascending outpoint. Coins made and spent within the block are in neither list.
    pub created: CoinList,
    /// Coins from before that it spends, ascending outpoint.
    pub spent: CoinList,
    /// The ledger after it.
    pub after: State,
    /// Buckets of the UTXO digest that it changes, ascending.
    pub changed_buckets: Vec<u8>,
    /// How to take it back (L12).
    pub undo: Undo,
    /// What it did to masternodes, if it is a slot block.
    pub slot: Option<Arc<SlotOutcome>>,
}

/// Signature checks that remain of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxChecks {
    /// Which transaction.
    pub wtxid: Wtxid,
    /// Its checks.
    pub checks: Vec<Check>,
}

/// A block that is valid if its signatures are.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What it changes.
    pub delta: Delta,
    /// Checks of transactions, in block order; one for each but the coinbase.
    pub checks: Vec<TxChecks>,
    /// Checks of last_commit, attestations and evidence.
    pub other_checks: Vec<Check>,
}

/// Why a block is invalid, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// B5 header rule 1.
    #[error("header version {0} is not in force")]
    Version(u16),
    /// B5 header rule 1.
    #[error("branch {found} where {in_force} is in force")]
    Branch {
        /// Of the header.
        found: Branch,
        /// By the state.
        in_force: Branch,
    },
    /// L15: this software is too old.
    #[error("branch {0} is in force and not known to this software: install a newer version")]
    UnknownBranch(Branch),
    /// B5 header rule 1.
    #[error("the era or recovery hash does not follow from the parent")]
    Era,
    /// B5 header rule 2.
    #[error("it does not stand on the parent's height and id")]
    Parent,
    /// B5 header rule 3.
    #[error("time {found} is before {earliest}, the earliest after its parent", found = found.0, earliest = earliest.0)]
    Time {
        /// Of the header.
        found: WallMs,
        /// Parent time plus min_block_interval.
        earliest: WallMs,
    },
    /// B5 header rule 4.
    #[error("{found} is not the leader of the header's round")]
    Proposer {
        /// Of the header.
        found: MasternodeId,
    },
    /// B5 header rule 5.
    #[error("last_commit: {0}")]
    LastCommit(#[from] CommitError),
    /// B5 header rule 5.
    #[error("last_commit is not of the parent's round or a later one, or not empty at height 1")]
    LastCommitRound,
    /// A root or hash of the header that does not follow from the block and its parent.
    #[error("the header's {0} is not that of the block")]
    Root(&'static str),
    /// A bound of table B2.
    #[error("{found} {what} where at most {max} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// S3: a block for nothing.
    #[error("a block without transactions in round 0 that is no slot block")]
    Empty,
    /// Attestations or evidence outside a slot block.
    #[error("a block that is no slot block has a slot part")]
    NotSlotBlock,
    /// A transaction that is invalid on what comes before it.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Position in the block.
        index: usize,
        /// Why.
        error: TxError,
    },
    /// An output that does not exist, not yet or no more (L9).
    #[error("transaction {index} spends {outpoint}, which does not exist or is spent")]
    Missing {
        /// Position in the block.
        index: usize,
        /// What it would spend.
        outpoint: OutPoint,
    },
    /// B5 step 2.
    #[error("attestation {index}: {why}")]
    Attestation {
        /// Position.
        index: usize,
        /// Why.
        why: &'static str,
    },
    /// B5 step 3.
    #[error("evidence {index}: {why}")]
    Evidence {
        /// Position.
        index: usize,
        /// Why.
        why: &'static str,
    },
    /// B5 step 9.
    #[error("the coinbase is not exactly what is due")]
    Coinbase,
    /// L10.
    #[error("the supply does not add up")]
    Supply,
}

/// Why a block was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The block's fault.
    #[error("invalid block: {0}")]
    Invalid(#[from] Invalid),
    /// Our own disk's.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Why no block was built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// What was asked for can be no valid block: not the leader, too early, nothing to put in.
    #[error("no valid block can be built: {0}")]
    Invalid(#[from] Invalid),
    /// Our own disk's fault.
    #[error(transparent)]
    View(#[from] ViewError),
}

fn at(index: usize, error: SpendError) -> ApplyError {
    match error {
        SpendError::Tx(error) => Invalid::Transaction { index, error }.into(),
        SpendError::Missing(outpoint) => Invalid::Missing { index, outpoint }.into(),
        SpendError::View(error) => error.into(),
    }
}

/// Judges everything of `block` but signatures, on the coins and state of its parent. The caller bounds header.round
/// (by its own round or a certificate): the leader of round r costs r + 1 steps (B4).
pub fn apply(view: &dyn CoinView, state: &State, block: &Block) -> Result<Applied, ApplyError> {
    let header = &block.header;
    // B5 header rule 1, B6: the era is the parent's, or the next one with a RecoveryCert that is at hand.
    let base = state.entered(header.era, header.recovery_hash);
    let base = &base.ok_or(Invalid::Era)?;
    let mut other_checks = check_header(state, base, block)?;
    let is_slot_block = state.is_slot_block(header.time);
    check_body(block, is_slot_block)?;
    let mut work = Work::new(view, base, is_slot_block);
    if is_slot_block {
        check_slot_part_size(state, &block.slot_part)?;
        let slot = slot_of(header.time, state.params());
        other_checks.extend(work.open_slot(&block.slot_part, slot)?);
    }
    // B5 step 9: the coinbase stands first and is made last.
    let first = block.transactions.first();
    let coinbase = first.filter(|tx| is_slot_block && tx.body().kind == TxKind::Coinbase);
    if let Some(tx) = coinbase {
        work.admit(tx, true)
            .map_err(|error| at(0, SpendError::Tx(error)))?;
    }
    let skipped = usize::from(coinbase.is_some());
    let mut checks = Vec::with_capacity(block.transactions.len());
    for (index, tx) in block.transactions.iter().enumerate().skip(skipped) {
        checks.push(work.transaction(tx).map_err(|error| at(index, error))?);
    }
    if is_slot_block {
        let due = work.close_slot()?;
        if due.as_ref() != coinbase {
            return Err(Invalid::Coinbase.into());
        }
        due.iter().for_each(|tx| work.create_coinbase(tx));
    }
    let after = After::of(base, work.finish()?, header.time, header.round)?;
    if header.next_validators_hash != after.state.validators_hash {
        return Err(Invalid::Root("next_validators_hash").into());
    }
    if header.state_root != after.state.root() {
        return Err(Invalid::Root("state_root").into());
    }
    Ok(Applied {
        delta: after.seal(state, header.id()),
        checks,
        other_checks,
    })
}

/// Header rules 1 to 5 and what of 6, 7 and 9 the block itself tells; the checks of last_commit's signatures. `parent` is
/// the state below, `state` the same in the era of the block.
fn check_header(parent: &State, state: &State, block: &Block) -> Result<Vec<Check>, Invalid> {
    let (header, tip) = (&block.header, &state.tip);
    if tip.branch > SOFTWARE_BRANCH {
        return Err(Invalid::UnknownBranch(tip.branch));
    }
    if header.version != HEADER_VERSION {
        return Err(Invalid::Version(header.version));
    }
    if header.branch != tip.branch {
        return Err(Invalid::Branch {
            found: header.branch,
            in_force: tip.branch,
        });
    }
    if header.height != tip.height.next() || header.parent != tip.block {
        return Err(Invalid::Parent);
    }
    if header.time < state.earliest() {
        return Err(Invalid::Time {
            found: header.time,
            earliest: state.earliest(),
        });
    }
    // Membership first: it costs nothing, and the leader costs a step for each round.
    let found = header.proposer;
    if state.validators.get(&found).is_none() || state.leader(header.round) != found {
        return Err(Invalid::Proposer { found });
    }
    let checks = check_last_commit(parent, block)?;
    let roots = [
        (
            "last_commit_hash",
            header.last_commit_hash,
            block.last_commit.hash(),
        ),
        (
            "validators_hash",
            header.validators_hash,
            state.validators_hash,
        ),
        (
            "prev_slot_block",
            header.prev_slot_block.0,
            tip.prev_slot_block.0,
        ),
        ("history_root", header.history_root, state.history_root()),
        ("tx_root", header.tx_root, block.tx_root()),
        (
            "slot_root",
            header.slot_root,
            slot_root_of(state, header.time, &block.slot_part),
        ),
    ];
    match roots.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, _, _)) => Err(Invalid::Root(what)),
        None => Ok(checks),
    }
}

/// slot_root: zero in a block that is no slot block (L13).
fn slot_root_of(state: &State, time: WallMs, part: &SlotPart) -> Hash {
    if state.is_slot_block(time) {
        slot_root(part)
    } else {
        Hash::ZERO
    }
}

/// Header rule 5: a quorum of the set that decided the parent, in its round or a later one; nothing at height 1 (S9).
fn check_last_commit(state: &State, block: &Block) -> Result<Vec<Check>, Invalid> {
    let (commit, tip) = (&block.last_commit, &state.tip);
    if tip.height == Height(0) {
        if *commit != Commit::default() {
            return Err(Invalid::LastCommitRound);
        }
        return Ok(Vec::new());
    }
    let first = EraRound {
        era: tip.era,
        round: tip.round,
    };
    if commit.at < first || commit.at.era > block.header.era {
        return Err(Invalid::LastCommitRound);
    }
    let set = state.last_set_of(commit.at.era);
    let set = set.ok_or(Invalid::LastCommitRound)?;
    Ok(commit.checks(
        state.chain_id(),
        tip.last_branch,
        tip.height,
        tip.block,
        &set,
    )?)
}

/// S3, and what stands in slot blocks only (B5). Registry kinds and a stray coinbase fall with their transaction.
fn check_body(block: &Block, is_slot_block: bool) -> Result<(), Invalid> {
    if is_slot_block {
        return Ok(());
    }
    if !block.slot_part.is_empty() {
        return Err(Invalid::NotSlotBlock);
    }
    if block.transactions.is_empty() && block.header.round == Round(0) {
        return Err(Invalid::Empty);
    }
    Ok(())
}

fn check_slot_part_size(state: &State, part: &SlotPart) -> Result<(), Invalid> {
    let limits = state.limits();
    let within = |what, found: usize, max: u64| {
        let found = found as u64;
        if found > max {
            return Err(Invalid::TooLarge { what, found, max });
        }
        Ok(())
    };
    within(
        "pieces of evidence",
        part.evidence.len(),
        limits.evidence_count,
    )?;
    within(
        "bytes in the slot part",
        codec::encoded_len(part),
        limits.slot_part_bytes,
    )
}

/// The state after a block whose id is not known yet, as the id depends on it.
struct After {
    state: State,
    created: CoinList,
    spent: CoinList,
    changed_buckets: Vec<u8>,
    /// Of a slot block.
    slot: Option<SlotFigures>,
}

impl After {
    /// B5 step 10.
    fn of(base: &State, done: Finished, time: WallMs, round: Round) -> Result<After, Invalid> {
        let is_slot_block = base.is_slot_block(time);
        let mut leaders = base.leaders.after_block(&base.validators, round);
        if is_slot_block {
            leaders = leaders.after_set_change(&done.validators);
        }
        let validators_hash = if Arc::ptr_eq(&done.validators, &base.validators) {
            base.validators_hash
        } else {
            done.validators.hash()
        };
        let (utxo, changed_buckets) = base.utxo.changed(&done.created, &done.spent);
        let eras = base.eras.after_block(&done.registry.registry);
        let eras = if eras == *base.eras {
            base.eras.clone()
        } else {
            Arc::new(eras)
        };
        let state = State {
            chain: base.chain.clone(),
            tip: Tip {
                height: base.tip.height.next(),
                time,
                round,
                branch: done.branch,
                last_branch: base.tip.branch,
                supply: done.supply,
                coins: done.coins,
                coin_count: done.coin_count,
                ..base.tip.clone()
            },
            validators_hash,
            last_validators: base.validators.clone(),
            validators: eras.bar(done.validators),
            registry: done.registry,
            leaders: Arc::new(leaders),
            slots: done.slots,
            utxo,
            eras,
            next_era: base.next_era.clone(),
        };
        if !state.supply_adds_up() {
            return Err(Invalid::Supply);
        }
        Ok(After {
            state,
            created: done.created,
            spent: done.spent,
            changed_buckets,
            slot: is_slot_block.then_some(SlotFigures {
                time,
                ..done.report
            }),
        })
    }

    /// Names the block, which nothing in `state_root` depends on.
    fn seal(mut self, base: &State, id: BlockId) -> Delta {
        let tip = &mut self.state.tip;
        tip.block = id;
        if self.slot.is_some() {
            tip.prev_slot_block = id;
        }
        tip.history
            .push(&HISTORY_TREE, HISTORY_TREE.leaf(&[&id.0.0]));
        let undo = Undo::new(base, &self.state, self.created.clone(), self.spent.clone());
        Delta {
            created: self.created,
            spent: self.spent,
            after: self.state,
            changed_buckets: self.changed_buckets,
            undo,
            slot: self.slot.map(|figures| {
                let order = Arc::new(order_of(base.registry()));
                Arc::new(SlotOutcome { figures, order })
            }),
        }
    }
}

/// What a leader wants in its block.
#[derive(Debug, Clone)]
pub struct BuildInput {
    /// Round of the proposal.
    pub round: Round,
    /// The leader itself.
    pub proposer: MasternodeId,
    /// Time of the block; a slot block iff its slot is later than the parent's.
    pub time: WallMs,
    /// Certificate material of the parent, verified; empty at height 1.
    pub last_commit: Commit,
    /// Attestations and evidence, verified; ignored unless it is a slot block. What does not belong in is left out.
    pub slot_part: SlotPart,
    /// Transactions with verified signatures, in the order wanted (parents before children).
    pub candidates: Vec<Tx>,
}

/// Builds a block on `state`. Candidates that are invalid or do not fit are left out. What it returns `apply` accepts.
pub fn build(
    view: &dyn CoinView,
    state: &State,
    input: BuildInput,
) -> Result<(Block, Delta), BuildError> {
    let is_slot_block = state.is_slot_block(input.time);
    let recovery_hash = state.recovery_hash();
    let base = state.entered(state.era(), recovery_hash);
    let base = &base.ok_or(Invalid::Era)?;
    let mut work = Work::new(view, base, is_slot_block);
    let mut slot_part = SlotPart::default();
    if is_slot_block {
        let slot = slot_of(input.time, state.params());
        slot_part = work.fitting(input.slot_part, slot);
        work.open_slot(&slot_part, slot)?;
        // B5 step 9: the coinbase gets its room before any transaction.
        if let Some(coinbase) = work.expected_coinbase() {
            work.admit(&coinbase, true)
                .map_err(|error| Invalid::Transaction { index: 0, error })?;
        }
    }
    let mut transactions = work.fill(input.candidates)?;
    if is_slot_block && let Some(coinbase) = work.close_slot()? {
        work.create_coinbase(&coinbase);
        transactions.insert(0, coinbase);
    }
    let names = transactions.iter().map(|tx| (&tx.txid, &tx.wtxid));
    let header = Header {
        version: HEADER_VERSION,
        branch: state.tip.branch,
        era: base.tip.era,
        recovery_hash,
        height: state.tip.height.next(),
        round: input.round,
        time: input.time,
        parent: state.tip.block,
        proposer: input.proposer,
        last_commit_hash: input.last_commit.hash(),
        tx_root: tx_root(names),
        slot_root: slot_root_of(state, input.time, &slot_part),
        validators_hash: state.validators_hash,
        next_validators_hash: Hash::ZERO,
        state_root: Hash::ZERO,
        prev_slot_block: state.tip.prev_slot_block,
        history_root: state.history_root(),
    };
    let mut block = Block {
        header,
        last_commit: input.last_commit,
        slot_part,
        transactions: BoundedVec::<Tx, BLOCK_TX_COUNT_MAX>::take_from(transactions),
    };
    check_header(state, base, &block)?;
    check_body(&block, is_slot_block)?;
    let header = &mut block.header;
    let after = After::of(base, work.finish()?, header.time, header.round)?;
    header.next_validators_hash = after.state.validators_hash;
    header.state_root = after.state.root();
    let id = header.id();
    Ok((block, after.seal(state, id)))
}
