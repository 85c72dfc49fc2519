//! A small ledger around a mempool, and transactions for it.

use super::*;
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::block::{Commit, HEADER_VERSION, Header};
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::masternode::SlotPart;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::*;

/// Coins of the confirmed ledger.
#[derive(Default, Clone)]
pub(super) struct Coins(pub(super) BTreeMap<OutPoint, Coin>);

impl CoinView for Coins {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        Ok(self.0.get(outpoint).cloned())
    }
}

impl Coins {
    /// Spends and creates as a block with this transaction would; false if an input is not there.
    pub(super) fn apply(&mut self, tx: &Tx) -> bool {
        let spent = tx.body().inputs.iter().all(|i| self.0.remove(i).is_some());
        for (output, vout) in tx.body().outputs.iter().zip(0..) {
            let coin = Coin {
                output: *output,
                flags: 0,
            };
            self.0.insert(tx.outpoint(vout), coin);
        }
        spent
    }
}

pub(super) fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

pub(super) fn genesis() -> Genesis {
    let network = Network::Dev;
    let public = |i| SecretKey::from_seed(&[i; 32]).public();
    Genesis {
        version: 1,
        network,
        time: WallMs(1_700_000_000_000),
        params: Params::of(network),
        limits: ConsensusLimits::of(network),
        balances: Vec::new(),
        masternodes: vec![GenesisMasternode {
            owner: public(1),
            operator: public(2),
            payout: Program::Key(public(3)),
            collateral: TxOutput {
                value: Amount::from_time(1_000).unwrap(),
                program: Program::Key(public(1)),
            },
            endpoint: Endpoint::try_from(b"127.0.0.1:1".to_vec()).unwrap(),
        }],
    }
}

pub(super) fn now(ms: u64) -> Now {
    Now {
        wall: WallMs(1_700_000_000_000 + ms),
        mono: MonoUs(ms * 1_000),
    }
}

pub(super) const COIN: u64 = 1_000_000_000;

pub(super) struct World {
    pub(super) state: State,
    pub(super) coins: Coins,
    pub(super) mempool: Mempool,
}

impl World {
    pub(super) fn new(limits: MempoolLimits) -> World {
        let mut coins = Coins::default();
        for i in 0..=255 {
            let output = TxOutput {
                value: Amount(COIN),
                program: Program::Key(key().public()),
            };
            coins.0.insert(base(i), Coin { output, flags: 0 });
        }
        World {
            state: State::genesis(&genesis()),
            coins,
            mempool: Mempool::new(limits),
        }
    }

    pub(super) fn consider(&mut self, at: u64, tx: &Tx, source: Source) -> Admission {
        let found = self
            .mempool
            .consider(now(at), tx, source, &self.coins, &self.state);
        found.unwrap()
    }

    pub(super) fn admit(&mut self, at: u64, tx: &Tx, source: Source) -> Result<Admitted, Refusal> {
        let checks = match self.consider(at, tx, source) {
            Admission::Check { checks, .. } => checks,
            Admission::Refused(refusal) => return Err(refusal),
            other => panic!("{other:?}"),
        };
        let verified = Verified::check(tx.clone(), &checks).unwrap();
        let admitted = self
            .mempool
            .admit(now(at), verified, source, &self.coins, &self.state);
        self.mempool.pool.assert_true();
        admitted.map_err(|error| match error {
            AdmitError::Refused { refusal, .. } => refusal,
            AdmitError::View(error) => panic!("{error}"),
        })
    }

    pub(super) fn decide(&mut self, transactions: Vec<Tx>) -> Settled {
        for tx in &transactions {
            assert!(self.coins.apply(tx), "a decided block is valid");
        }
        let settled = self.mempool.decided(&block(transactions));
        self.mempool.pool.assert_true();
        settled
    }
}

pub(super) fn base(i: u8) -> OutPoint {
    OutPoint {
        txid: Txid(Hash([i; 32])),
        vout: 0,
    }
}

pub(super) fn roomy() -> World {
    World::new(MempoolLimits::default())
}

/// Spends `inputs` (each with its value) into `outputs` equal outputs and pays `fee`.
pub(super) fn spend(inputs: &[(OutPoint, u64)], outputs: u64, fee: u64) -> Tx {
    let total: u64 = inputs.iter().map(|(_, value)| value).sum();
    let program = Program::Key(key().public());
    let output = TxOutput {
        value: Amount((total - fee) / outputs),
        program,
    };
    let mut outs = vec![output; outputs as usize];
    outs[0].value.0 += (total - fee) % outputs;
    let body = TxBody {
        version: TX_VERSION,
        kind: TxKind::Transfer,
        inputs: BoundedVec::take_from(inputs.iter().map(|(outpoint, _)| *outpoint)),
        outputs: outs.try_into().unwrap(),
        payload: BoundedBytes::default(),
    };
    let spent: Vec<TxOutput> = inputs
        .iter()
        .map(|(_, value)| TxOutput {
            value: Amount(*value),
            program,
        })
        .collect();
    let message = body.signature_hash(genesis().chain_id(), Branch(0), &spent);
    let witness = Witness::Key(key().sign(&message));
    Tx::new(Transaction {
        body,
        witnesses: BoundedVec::take_from(vec![witness; inputs.len()]),
        auth: Auth::new(),
    })
}

pub(super) fn coin_of(tx: &Tx, vout: u32) -> (OutPoint, u64) {
    let value = tx.body().outputs[vout as usize].value.0;
    (tx.outpoint(vout), value)
}

pub(super) fn simple(i: u8, fee: u64) -> Tx {
    spend(&[(base(i), COIN)], 1, fee)
}

pub(super) fn block(transactions: Vec<Tx>) -> Block {
    Block {
        header: Header {
            version: HEADER_VERSION,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height: Height(1),
            round: Round(0),
            time: WallMs(0),
            parent: BlockId::default(),
            proposer: MasternodeId::default(),
            last_commit_hash: Hash::ZERO,
            tx_root: Hash::ZERO,
            slot_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        },
        last_commit: Commit::default(),
        slot_part: SlotPart::default(),
        transactions: transactions.try_into().unwrap(),
    }
}

pub(super) const ALL: Selection = Selection {
    bytes: BLOCK_BODIES_BYTES_MAX,
    count: BLOCK_TX_COUNT_MAX,
    sigchecks: BLOCK_SIGCHECK_COUNT_MAX,
    registry: 0,
};

pub(super) fn coin(value: u64) -> Coin {
    let program = Program::Key(key().public());
    let value = Amount(value);
    let output = TxOutput { value, program };
    Coin { output, flags: 0 }
}
