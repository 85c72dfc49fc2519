//! A small network in memory for tests: keys, a genesis, payments, certificates, and blocks one after another.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::time::WallMs;
use crate::crypto::keys::SecretKey;
use crate::crypto::verify::verify_all;
use crate::ledger::apply::{Applied, BuildInput, Delta, apply, build};
use crate::ledger::coins::MemoryCoins;
use crate::ledger::state::State;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Block, Commit};
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::*;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{VoteBody, VoteStep};

/// The secret key with seed `i`.
pub fn key(i: u64) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// The program of key `i`.
pub fn program(i: u64) -> Program {
    Program::Key(key(i).public())
}

/// Key number of the owner of masternode `i`.
pub const OWNER: u64 = 1_000;
/// Key number of the operator of masternode `i`.
pub const OPERATOR: u64 = 2_000;
/// Key number of the holder of genesis balance `i`.
pub const HOLDER: u64 = 3_000;
/// Value of each genesis balance, in TIME.
pub const BALANCE_TIME: u64 = 50_000;

/// A devnet genesis: masternode i has `collaterals[i]` TIME, `balances` holders have [`BALANCE_TIME`] each.
pub fn genesis(collaterals: &[u64], balances: u64) -> Genesis {
    let masternode = |(i, time): (u64, &u64)| GenesisMasternode {
        owner: key(OWNER + i).public(),
        operator: key(OPERATOR + i).public(),
        payout: program(OWNER + i),
        collateral: TxOutput {
            value: Amount::from_time(*time).unwrap(),
            program: program(OWNER + i),
        },
        endpoint: Endpoint::try_from(format!("127.0.0.1:{}", 24_000 + i).into_bytes()).unwrap(),
    };
    let balance = |i| TxOutput {
        value: Amount::from_time(BALANCE_TIME).unwrap(),
        program: program(HOLDER + i),
    };
    let genesis = Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_000_000),
        params: Params::of(Network::Dev),
        limits: ConsensusLimits::of(Network::Dev),
        balances: (0..balances).map(balance).collect(),
        masternodes: (0..).zip(collaterals).map(masternode).collect(),
    };
    genesis.check().unwrap();
    genesis
}

/// A network at its tip.
pub struct Net {
    pub genesis: Genesis,
    pub state: State,
    pub coins: MemoryCoins,
    /// The block at the tip and the round of its certificate.
    pub last: Option<Block>,
    /// Key numbers by which masternodes sign, by id.
    pub operators: Vec<(MasternodeId, u64)>,
}

impl Net {
    pub fn new(genesis: Genesis) -> Net {
        let operators = (0..).zip(&genesis.masternodes);
        Net {
            state: State::genesis(&genesis),
            coins: MemoryCoins::genesis(&genesis),
            last: None,
            operators: operators.map(|(i, m)| (m.id(), OPERATOR + i)).collect(),
            genesis,
        }
    }

    /// A certificate's precommits of the tip, by all members.
    pub fn last_commit(&self) -> Commit {
        match &self.last {
            None => Commit::default(),
            Some(block) => {
                let set = &self.state.last_validators;
                self.commit_of(block, set, self.state.tip.last_branch)
            }
        }
    }

    pub fn commit_of(&self, block: &Block, set: &ValidatorSet, branch: Branch) -> Commit {
        let at = EraRound {
            era: block.header.era,
            round: block.header.round,
        };
        let body = VoteBody {
            step: VoteStep::Precommit,
            branch,
            era: at.era,
            height: block.header.height,
            round: at.round,
            valid_round: None,
            block: Some(block.id()),
        };
        let message = body.signing_hash(self.state.chain_id());
        // A key change takes effect at the next height: the set names the key that signed.
        let sign = |id: &MasternodeId, public| {
            let numbers = self.operators.iter().filter(|(i, _)| i == id);
            let mut keys = numbers.map(|(_, n)| key(*n));
            let secret = keys.find(|k| k.public() == public).expect("a known key");
            secret.sign(&message)
        };
        let signatures = set.members().iter().map(|m| sign(&m.id, m.operator));
        Commit {
            at,
            signers: Bitmap::from_ones(set.len(), 0..set.len()),
            signatures: BoundedVec::take_from(signatures),
        }
    }

    /// A proposal on the tip by the leader of `round`.
    pub fn input(&self, time: WallMs, round: u32, candidates: Vec<Tx>) -> BuildInput {
        BuildInput {
            round: Round(round),
            proposer: self.state.leader(Round(round)),
            time,
            last_commit: self.last_commit(),
            slot_part: SlotPart::default(),
            candidates,
        }
    }

    /// The earliest time of the next slot block.
    pub fn next_slot(&self) -> WallMs {
        let slot_ms = self.state.params().slot_ms;
        WallMs((self.state.slot().0 + 1) * slot_ms)
    }

    /// Builds, applies, compares both, verifies every signature, and moves on.
    pub fn step(&mut self, input: BuildInput) -> (Block, Delta) {
        let (block, built) = build(&self.coins, &self.state, input).expect("a block can be built");
        let applied = self.judge(&block);
        assert_eq!(applied.delta.after, built.after, "build and apply agree");
        assert_eq!(applied.delta.created, built.created);
        self.commit(&block, &built);
        (block, built)
    }

    /// Applies and verifies.
    pub fn judge(&self, block: &Block) -> Applied {
        let applied = apply(&self.coins, &self.state, block).expect("a valid block");
        assert!(verify_all(&applied.other_checks), "its own signatures hold");
        for tx in &applied.checks {
            assert!(verify_all(&tx.checks), "its transactions' signatures hold");
        }
        applied
    }

    pub fn commit(&mut self, block: &Block, delta: &Delta) {
        self.coins.commit(delta);
        self.state = delta.after.clone();
        self.last = Some(block.clone());
    }

    /// An ordinary block right after the tip.
    pub fn block(&mut self, candidates: Vec<Tx>) -> (Block, Delta) {
        let round = u32::from(candidates.is_empty());
        self.step(self.input(self.state.earliest(), round, candidates))
    }

    /// A slot block without attestations at the next slot.
    pub fn slot_block(&mut self, candidates: Vec<Tx>) -> (Block, Delta) {
        self.step(self.input(self.next_slot(), 0, candidates))
    }

    /// Coins of a key number.
    pub fn coins_of(&self, number: u64) -> Vec<(OutPoint, TxOutput)> {
        let mine = program(number);
        let all = self.coins.0.iter();
        all.filter(|(_, c)| c.output.program == mine)
            .map(|(o, c)| (*o, c.output))
            .collect()
    }

    /// A signed transaction of `kind` that spends `inputs` of key `from`.
    pub fn sign(
        &self,
        kind: TxKind,
        from: u64,
        inputs: &[(OutPoint, TxOutput)],
        outputs: Vec<TxOutput>,
        payload: Vec<u8>,
        auth: &[u64],
    ) -> Tx {
        let body = TxBody {
            version: TX_VERSION,
            kind,
            inputs: BoundedVec::take_from(inputs.iter().map(|(o, _)| *o)),
            outputs: BoundedVec::take_from(outputs),
            payload: BoundedBytes::try_from(payload).unwrap(),
        };
        let spent: Vec<TxOutput> = inputs.iter().map(|(_, o)| *o).collect();
        let message = body.signature_hash(self.state.chain_id(), self.state.tip.branch, &spent);
        let witness = Witness::Key(key(from).sign(&message));
        let pop = possession_hash(&message);
        // The owner signs the hash itself; an operator, as possession, the hash of it.
        let signed = auth.iter().map(|n| {
            let is_owner = *n < OPERATOR;
            key(*n).sign(if is_owner { &message } else { &pop })
        });
        Tx::new(Transaction {
            witnesses: BoundedVec::take_from(inputs.iter().map(|_| witness.clone())),
            auth: BoundedVec::take_from(signed),
            body,
        })
    }

    /// Pays `value` from the first large enough coin of `from` to `to`, change back, with a generous fee.
    pub fn pay(&self, from: u64, to: u64, value: u64) -> Tx {
        self.spend(TxKind::Transfer, from, output(to, value), Vec::new(), &[])
    }

    /// As [`Net::pay`], of any kind.
    pub fn spend(
        &self,
        kind: TxKind,
        from: u64,
        first: TxOutput,
        payload: Vec<u8>,
        auth: &[u64],
    ) -> Tx {
        let coins = self.coins_of(from);
        let coin = coins
            .iter()
            .find(|(_, o)| o.value.0 > first.value.0 + 2 * FEE)
            .expect("enough money");
        let change = output(from, coin.1.value.0 - first.value.0 - FEE);
        self.sign(kind, from, &[*coin], vec![first, change], payload, auth)
    }
}

/// Fee of the kit's payments.
pub const FEE: u64 = 10_000;

/// An output to key `to`.
pub fn output(to: u64, value: u64) -> TxOutput {
    TxOutput {
        value: Amount(value),
        program: program(to),
    }
}
