//! All of the ledger but its coins, after a block. Cheap to clone: everything large is shared. What a block commits to as
//! `state_root` is a function of this (L11).

use crate::base::time::WallMs;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::lthash::LtHash;
use crate::crypto::merkle::{HISTORY_TREE, Mmr, STATE_TREE};
use crate::ledger::coins::Coin;
use crate::ledger::era::{Eras, NextEra};
use crate::ledger::leader::Leaders;
use crate::ledger::registry::{Registry, SealedRegistry};
use crate::ledger::slots::{SlotTable, slot_of};
use crate::ledger::utxo::Utxo;
use crate::types::address::Network;
use crate::types::amount::Amount;
use crate::types::codec::{self, DecodeError};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::validators::ValidatorSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What never changes on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Chain id.
    pub id: ChainId,
    /// Network: address prefix.
    pub network: Network,
    /// Consensus parameters (B1).
    pub params: Params,
    /// Consensus limits (B2).
    pub limits: ConsensusLimits,
    /// Time of height 0.
    pub genesis_time: WallMs,
}

impl Chain {
    /// Of a genesis.
    pub fn of(genesis: &Genesis) -> Chain {
        Chain {
            id: genesis.chain_id(),
            network: genesis.network,
            params: genesis.params.clone(),
            limits: genesis.limits.clone(),
            genesis_time: genesis.time,
        }
    }
}

/// Supply figures (L10, L11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Supply {
    /// Everything ever issued: genesis and rewards.
    pub issued: Amount,
    /// Everything ever burned.
    pub burned: Amount,
    /// Fees waiting for the next attested slot block.
    pub pot: Amount,
}

/// The part of [`State`] that changes with every block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Height of the block.
    pub height: Height,
    /// The block.
    pub block: BlockId,
    /// Its time.
    pub time: WallMs,
    /// Its header.round; certificates of it have at least this round.
    pub round: Round,
    /// Its era.
    pub era: Era,
    /// Rule set in force at the next height.
    pub branch: Branch,
    /// Rule set under which the block was decided: what its certificate's signatures name.
    pub last_branch: Branch,
    /// Latest slot block at or below the block.
    pub prev_slot_block: BlockId,
    /// Supply figures.
    pub supply: Supply,
    /// Value of all coins; with the rest of L10 it must add up.
    pub coins: Amount,
    /// Number of coins.
    pub coin_count: u64,
    /// Ids of all blocks up to this one: its root is history_root of the next header.
    pub history: Mmr,
}

/// The ledger after a block, without the coins themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What never changes.
    pub chain: Arc<Chain>,
    /// What every block changes.
    pub tip: Tip,
    /// The set that decides the next height.
    pub validators: Arc<ValidatorSet>,
    /// Its hash.
    pub validators_hash: Hash,
    /// The set that decided the block (of height 0: that of height 1).
    pub last_validators: Arc<ValidatorSet>,
    /// Masternode registry.
    pub registry: SealedRegistry,
    /// Leader state (B4).
    pub leaders: Arc<Leaders>,
    /// slot_index table and upgrade counter.
    pub slots: Arc<SlotTable>,
    /// Digests of the coins.
    pub utxo: Utxo,
    /// Culprits of forks whose evidence is still due (B6).
    pub eras: Arc<Eras>,
    /// The era that a RecoveryCert at hand begins with the next header that carries it. Not of the chain but of the node:
    /// stored nowhere here, handed on from block to block until its era has begun.
    pub next_era: Option<Arc<NextEra>>,
}

/// A stored piece of a [`State`]. Pieces that a block leaves alone need not be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Part {
    /// [`Tip`].
    Tip = 0,
    /// [`State::validators`].
    Validators = 1,
    /// [`State::last_validators`].
    LastValidators = 2,
    /// [`State::registry`].
    Registry = 3,
    /// [`State::leaders`].
    Leaders = 4,
    /// [`State::slots`].
    Slots = 5,
    /// [`State::eras`]; absent where there was never a fork.
    Eras = 6,
}

impl Part {
    /// All pieces.
    pub const ALL: [Part; 7] = [
        Part::Tip,
        Part::Validators,
        Part::LastValidators,
        Part::Registry,
        Part::Leaders,
        Part::Slots,
        Part::Eras,
    ];
}

/// Why stored pieces are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A piece is missing.
    #[error("the stored state lacks its part {0:?}")]
    Missing(Part),
    /// A piece does not decode.
    #[error("part {0:?} of the stored state: {1}")]
    Malformed(Part, DecodeError),
    /// Not 256 buckets, or amounts overflow.
    #[error("the stored state contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// Stored pieces are our own; this only keeps a corrupt length from allocating without end.
const PART_BYTES_MAX: usize = 256 << 20;

impl State {
    /// The ledger at height 0 (L14). Total for every genesis that passes its own check.
    pub fn genesis(genesis: &Genesis) -> State {
        let registry = Registry::genesis(genesis);
        let held = registry.held().unwrap_or_default();
        let registry = SealedRegistry {
            hash: registry.hash(),
            held,
            registry: Arc::new(registry),
        };
        let coins: Vec<_> = genesis
            .coins()
            .into_iter()
            .map(|(outpoint, output)| (outpoint, Coin { output, flags: 0 }))
            .collect();
        let value = Amount::sum(coins.iter().map(|(_, c)| c.output.value)).unwrap_or_default();
        let validators = Arc::new(registry.registry.validators());
        let id = genesis.block_id();
        let mut history = Mmr::default();
        history.push(&HISTORY_TREE, HISTORY_TREE.leaf(&[&id.0.0]));
        State {
            chain: Arc::new(Chain::of(genesis)),
            tip: Tip {
                height: Height(0),
                block: id,
                time: genesis.time,
                round: Round(0),
                era: Era(0),
                branch: Branch(0),
                last_branch: Branch(0),
                prev_slot_block: id,
                supply: Supply {
                    issued: value.plus(held).unwrap_or_default(),
                    ..Supply::default()
                },
                coins: value,
                coin_count: coins.len() as u64,
                history,
            },
            validators_hash: validators.hash(),
            last_validators: validators.clone(),
            leaders: Arc::new(Leaders::genesis(&validators)),
            validators,
            registry,
            slots: Arc::new(SlotTable::genesis()),
            utxo: Utxo::default().changed(&coins, &[]).0,
            eras: Arc::default(),
            next_era: None,
        }
    }

    /// Height of the block.
    pub fn height(&self) -> Height {
        self.tip.height
    }
    /// The block.
    pub fn block(&self) -> BlockId {
        self.tip.block
    }
    /// Chain id.
    pub fn chain_id(&self) -> ChainId {
        self.chain.id
    }
    /// Consensus parameters.
    pub fn params(&self) -> &Params {
        &self.chain.params
    }
    /// Consensus limits.
    pub fn limits(&self) -> &ConsensusLimits {
        &self.chain.limits
    }
    /// The registry's entries.
    pub fn registry(&self) -> &Registry {
        &self.registry.registry
    }
    /// Number of the latest slot block.
    pub fn slot_index(&self) -> SlotIndex {
        self.slots.slot_index()
    }
    /// slot(time of the block).
    pub fn slot(&self) -> Slot {
        slot_of(self.tip.time, self.params())
    }
    /// Whether a block of `time` on top of this would be a slot block (S4).
    pub fn is_slot_block(&self, time: WallMs) -> bool {
        slot_of(time, self.params()) > self.slot()
    }
    /// Least time of the next block.
    pub fn earliest(&self) -> WallMs {
        self.tip.time.plus(self.params().min_block_interval_ms)
    }
    /// Leader of `round` at the next height (B4). Costs `round + 1` steps: the caller bounds the round. The zero id, which
    /// nobody has, if the set is empty.
    pub fn leader(&self, round: Round) -> MasternodeId {
        let leader = self.leaders.leader(&self.validators, round);
        leader.unwrap_or_default()
    }
    /// history_root of the next header.
    pub fn history_root(&self) -> Hash {
        self.tip.history.root(&HISTORY_TREE)
    }
    /// The 260 leaves of `state_root` in order (L11).
    pub fn leaves(&self) -> Vec<Hash> {
        let mut leaves = self.utxo.leaves().to_vec();
        leaves.extend(self.leaves_beside_coins());
        leaves
    }
    fn leaves_beside_coins(&self) -> [Hash; 4] {
        [
            self.registry.hash,
            codec::hash_of(Domain::Leaders, &*self.leaders),
            self.slots.hash(),
            codec::hash_of(Domain::Supply, &self.tip.supply),
        ]
        .map(|part| STATE_TREE.leaf(&[&part.0]))
    }
    /// `state_root` (L11): the root over [`State::leaves`].
    pub fn root(&self) -> Hash {
        let count = self.utxo.leaves().len() as u64;
        STATE_TREE.root_beyond(&self.utxo.top(), count, &self.leaves_beside_coins())
    }
    /// The supply check: issued - burned = coins + pot + accrued + collateral (L10).
    pub fn supply_adds_up(&self) -> bool {
        let supply = &self.tip.supply;
        let held = [self.tip.coins, supply.pot, self.registry.held];
        let exists = Amount::sum(held);
        exists.is_some() && exists == supply.issued.minus(supply.burned)
    }

    /// The pieces that differ from `before` in canonical encoding; all of them without it. Buckets are stored apart.
    pub fn parts(&self, before: Option<&State>) -> Vec<(Part, Vec<u8>)> {
        fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
            Arc::ptr_eq(a, b) || a == b
        }
        let mut out = vec![(Part::Tip, codec::encode(&self.tip))];
        if !before.is_some_and(|b| same(&b.validators, &self.validators)) {
            out.push((Part::Validators, codec::encode(&*self.validators)));
        }
        if !before.is_some_and(|b| same(&b.last_validators, &self.last_validators)) {
            out.push((Part::LastValidators, codec::encode(&*self.last_validators)));
        }
        if before.is_none_or(|b| b.registry.hash != self.registry.hash) {
            out.push((Part::Registry, codec::encode(&*self.registry.registry)));
        }
        if !before.is_some_and(|b| same(&b.leaders, &self.leaders)) {
            out.push((Part::Leaders, codec::encode(&*self.leaders)));
        }
        if !before.is_some_and(|b| same(&b.slots, &self.slots)) {
            out.push((Part::Slots, codec::encode(&*self.slots)));
        }
        if !before.is_some_and(|b| same(&b.eras, &self.eras)) {
            out.push((Part::Eras, codec::encode(&*self.eras)));
        }
        out
    }

    /// The state that `part` gives the stored pieces of and `buckets` the 256 digests.
    pub fn from_parts(
        genesis: &Genesis,
        mut part: impl FnMut(Part) -> Option<Vec<u8>>,
        buckets: Vec<LtHash>,
    ) -> Result<State, StateError> {
        fn read<T: serde::de::DeserializeOwned>(
            which: Part,
            bytes: Option<Vec<u8>>,
        ) -> Result<T, StateError> {
            let bytes = bytes.ok_or(StateError::Missing(which))?;
            codec::decode(&bytes, PART_BYTES_MAX).map_err(|e| StateError::Malformed(which, e))
        }
        let mut bytes = |which| (which, part(which));
        let (which, found) = bytes(Part::Tip);
        let tip = read(which, found)?;
        let (which, found) = bytes(Part::Validators);
        let validators: ValidatorSet = read(which, found)?;
        let (which, found) = bytes(Part::LastValidators);
        let last_validators: ValidatorSet = read(which, found)?;
        let (which, found) = bytes(Part::Registry);
        let registry = SealedRegistry::new(read(which, found)?);
        let (which, found) = bytes(Part::Leaders);
        let leaders: Leaders = read(which, found)?;
        let (which, found) = bytes(Part::Slots);
        let slots: SlotTable = read(which, found)?;
        let eras: Eras = match bytes(Part::Eras) {
            (_, None) => Eras::default(),
            (which, found) => read(which, found)?,
        };
        Ok(State {
            chain: Arc::new(Chain::of(genesis)),
            tip,
            validators_hash: validators.hash(),
            validators: eras.bar(Arc::new(validators)),
            last_validators: eras.bar_last(Arc::new(last_validators)),
            eras: Arc::new(eras),
            next_era: None,
            registry: registry.ok_or(StateError::Contradiction("registry amounts overflow"))?,
            leaders: Arc::new(leaders),
            slots: Arc::new(slots),
            utxo: Utxo::from_buckets(buckets)
                .ok_or(StateError::Contradiction("there must be 256 buckets"))?,
        })
    }
}
