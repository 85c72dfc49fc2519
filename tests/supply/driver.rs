//! A ledger that is driven slot by slot without signatures: what `build` makes, `apply` judges. Signatures are checks that
//! both leave to their caller, so one empty signature serves everywhere.

use timecoin::base::bounded::BoundedVec;
use timecoin::base::time::WallMs;
use timecoin::crypto::keys::{SecretKey, Signature};
use timecoin::ledger::apply::{BuildInput, Delta, apply, build};
use timecoin::ledger::coins::MemoryCoins;
use timecoin::ledger::state::State;
use timecoin::types::address::{Network, Program};
use timecoin::types::amount::Amount;
use timecoin::types::bitmap::Bitmap;
use timecoin::types::block::{Block, Commit};
use timecoin::types::genesis::{Genesis, GenesisMasternode};
use timecoin::types::ids::*;
use timecoin::types::masternode::{Attestation, AttestationBody, SlotPart};
use timecoin::types::params::{ConsensusLimits, Params};
use timecoin::types::transaction::{Endpoint, Tx, TxOutput};

/// No signature: nobody judges one here.
pub const UNSIGNED: Signature = Signature([0; 64]);

/// The secret key number `i`.
pub fn key(i: u64) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// Who holds all balances and gets all rewards.
pub fn purse() -> Program {
    Program::Key(key(1).public())
}

/// Masternode `i` has keys 100 + 2i (owner) and 101 + 2i (operator), and `collaterals[i]` TIME.
pub fn genesis(params: Params, collaterals: &[u64], balances: usize) -> Genesis {
    let output = |time| TxOutput {
        value: Amount::from_time(time).unwrap_or_default(),
        program: purse(),
    };
    let masternode = |(i, time): (u64, &u64)| GenesisMasternode {
        owner: key(100 + 2 * i).public(),
        operator: key(101 + 2 * i).public(),
        payout: purse(),
        collateral: output(*time),
        endpoint: Endpoint::default(),
    };
    Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_400_000),
        params,
        limits: ConsensusLimits::of(Network::Dev),
        balances: vec![output(20_000); balances],
        masternodes: (0..).zip(collaterals).map(masternode).collect(),
    }
}

/// A chain at its tip.
pub struct Chain {
    /// The ledger there.
    pub state: State,
    /// Its coins.
    pub coins: MemoryCoins,
    /// Round of the certificate of the tip.
    round: Round,
}

impl Chain {
    /// At its genesis.
    pub fn new(genesis: &Genesis) -> Chain {
        Chain {
            state: State::genesis(genesis),
            coins: MemoryCoins::genesis(genesis),
            round: Round(0),
        }
    }

    /// A certificate's precommits of the tip by everybody.
    fn last_commit(&self) -> Commit {
        if self.state.height() == Height(0) {
            return Commit::default();
        }
        let count = self.state.last_validators.len();
        Commit {
            at: EraRound {
                era: Era(0),
                round: self.round,
            },
            signers: Bitmap::from_ones(count, 0..count),
            signatures: BoundedVec::take_from(vec![UNSIGNED; count]),
        }
    }

    /// The beginning of the slot `pause` slots after the next one.
    pub fn slot_time(&self, pause: u64) -> WallMs {
        WallMs((self.state.slot().0 + 1 + pause) * self.state.params().slot_ms)
    }

    /// Attestations for a slot block at `time`: by the members that `attests` picks by position in the set, about the entries
    /// that `present` picks by position in the registry.
    pub fn attestations(
        &self,
        time: WallMs,
        attests: impl Fn(usize) -> bool,
        present: impl Fn(usize) -> bool,
    ) -> Vec<Attestation> {
        let count = self.state.registry().len();
        let seen = Bitmap::from_ones(count, (0..count).filter(|i| present(*i)));
        let members = self.state.validators.members().iter().enumerate();
        let members = members.filter(|(i, _)| attests(*i));
        members
            .map(|(_, member)| Attestation {
                body: AttestationBody {
                    era: Era(0),
                    slot: Slot(time.0 / self.state.params().slot_ms - 1),
                    base: self.state.tip.prev_slot_block,
                    supports: Branch(0),
                    attester: member.id,
                    present: seen.clone(),
                },
                signature: UNSIGNED,
            })
            .collect()
    }

    /// A proposal by the leader of `round`.
    pub fn input(
        &self,
        time: WallMs,
        round: u32,
        part: SlotPart,
        candidates: Vec<Tx>,
    ) -> BuildInput {
        BuildInput {
            round: Round(round),
            proposer: self.state.leader(Round(round)),
            time,
            last_commit: self.last_commit(),
            slot_part: part,
            candidates,
        }
    }

    /// Builds, judges, and moves on.
    pub fn step(&mut self, input: BuildInput) -> (Block, Delta) {
        self.round = input.round;
        let (block, built) = build(&self.coins, &self.state, input).expect("a block can be built");
        let applied = apply(&self.coins, &self.state, &block).expect("what is built is valid");
        assert_eq!(
            applied.delta.after.root(),
            built.after.root(),
            "one function for proposer and validator"
        );
        self.coins.commit(&built);
        self.state = built.after.clone();
        (block, built)
    }
}
