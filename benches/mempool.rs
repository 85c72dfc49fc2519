//! What the mempool costs: taking transactions in, choosing those of a block, taking out those of a decided one.
//!
//! Signatures apart (`verify` has those); coins are in memory. Run by `cargo test`, it has a hundred transactions instead
//! of 8,000. `cargo bench --bench mempool`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::limits::*;
use timecoin::base::time::{MonoUs, Now, WallMs};
use timecoin::crypto::hash::Hash;
use timecoin::crypto::keys::{SecretKey, Signature};
use timecoin::crypto::verify::Verified;
use timecoin::ledger::apply::{BuildInput, build};
use timecoin::ledger::coins::MemoryCoins;
use timecoin::ledger::mempool::{Admission, Mempool, MempoolLimits, Selection, Source};
use timecoin::ledger::state::State;
use timecoin::types::address::{Network, Program};
use timecoin::types::amount::Amount;
use timecoin::types::block::{Block, Commit};
use timecoin::types::genesis::{Genesis, GenesisMasternode};
use timecoin::types::ids::Round;
use timecoin::types::masternode::SlotPart;
use timecoin::types::params::{ConsensusLimits, Params};
use timecoin::types::transaction::*;

const ALL: Selection = Selection {
    bytes: 10 * BLOCK_BODIES_BYTES_MAX,
    count: BLOCK_TX_COUNT_MAX,
    sigchecks: BLOCK_SIGCHECK_COUNT_MAX,
    registry: 0,
};

struct World {
    state: State,
    coins: MemoryCoins,
    payments: Vec<Tx>,
    /// Holds a quarter of the payments.
    decided: Block,
}

fn now() -> Now {
    Now {
        wall: WallMs(1_700_000_001_000),
        mono: MonoUs(1_000_000),
    }
}

fn genesis(payments: usize) -> Genesis {
    let key = |i| SecretKey::from_seed(&[i; 32]).public();
    let payer = Program::Key(key(3));
    let whole = |time| TxOutput {
        value: Amount::from_time(time).unwrap(),
        program: payer,
    };
    Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_000_000),
        params: Params::of(Network::Dev),
        limits: ConsensusLimits::of(Network::Dev),
        balances: vec![whole(10); payments],
        masternodes: vec![GenesisMasternode {
            owner: key(1),
            operator: key(2),
            payout: payer,
            collateral: whole(1_000),
            endpoint: Endpoint::default(),
        }],
    }
}

/// One input, two outputs, each with a fee of its own; the signature is not looked at here.
fn payments(genesis: &Genesis) -> Vec<Tx> {
    let pay = |((outpoint, coin), i): ((_, TxOutput), u64)| {
        let half = TxOutput {
            value: Amount(coin.value.0 / 2 - 100_000 - i * 7 % 1_000),
            program: coin.program,
        };
        Tx::new(Transaction {
            body: TxBody {
                version: TX_VERSION,
                kind: TxKind::Transfer,
                inputs: BoundedVec::take_from([outpoint]),
                outputs: BoundedVec::take_from([half, half]),
                payload: BoundedBytes::default(),
            },
            witnesses: BoundedVec::take_from([Witness::Key(Signature([0; 64]))]),
            auth: Auth::new(),
        })
    };
    let balances = genesis.coins().into_iter().take(genesis.balances.len());
    balances.zip(0..).map(pay).collect()
}

impl World {
    fn new(count: usize) -> World {
        let genesis = genesis(count);
        let (state, coins) = (State::genesis(&genesis), MemoryCoins::genesis(&genesis));
        let payments = payments(&genesis);
        let input = BuildInput {
            round: Round(0),
            proposer: state.leader(Round(0)),
            time: state.earliest(),
            last_commit: Commit::default(),
            slot_part: SlotPart::default(),
            candidates: payments[..count / 4].to_vec(),
        };
        let (decided, _) = build(&coins, &state, input).unwrap();
        assert_eq!(decided.transactions.len(), count / 4, "every payment fits");
        World {
            state,
            coins,
            payments,
            decided,
        }
    }

    /// Transactions with the proof that their signatures were checked, which they were not.
    fn verified(&self) -> Vec<Verified<Tx>> {
        let proof = Verified::sign(&SecretKey::from_seed(&[1; 32]), &Hash::ZERO, |_| ());
        let wrap = |tx: &Tx| proof.clone().map(|()| tx.clone());
        self.payments.iter().map(wrap).collect()
    }

    fn take_in(&self, mempool: &mut Mempool, payments: Vec<Verified<Tx>>) {
        for tx in payments {
            let found = mempool.consider(now(), &tx, Source::Local, &self.coins, &self.state);
            assert!(matches!(found, Ok(Admission::Check { .. })), "{found:?}");
            let taken = mempool.admit(now(), tx, Source::Local, &self.coins, &self.state);
            assert!(taken.is_ok());
        }
    }

    fn full(&self) -> Mempool {
        let mut mempool = Mempool::new(MempoolLimits::default());
        self.take_in(&mut mempool, self.verified());
        mempool
    }
}

fn mempool(c: &mut Criterion) {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let world = World::new(if is_bench { 8_000 } else { 100 });
    let count = world.payments.len();
    let mut group = c.benchmark_group("mempool");
    group.sample_size(20);
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("consider and admit, each of 8,000", |b| {
        b.iter_batched(
            || (Mempool::new(MempoolLimits::default()), world.verified()),
            |(mut mempool, payments)| {
                world.take_in(&mut mempool, payments);
                mempool
            },
            BatchSize::PerIteration,
        );
    });
    let full = world.full();
    group.bench_function("select 8,000", |b| {
        b.iter(|| assert_eq!(black_box(&full).select(ALL).len(), count));
    });
    group.throughput(Throughput::Elements(world.decided.transactions.len() as u64));
    group.bench_function("decided: 2,000 of 8,000", |b| {
        b.iter_batched(
            || world.full(),
            |mut mempool| {
                let settled = mempool.decided(&world.decided);
                (mempool, settled)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, mempool);
criterion_main!(benches);
