//! What the ledger store costs: commits of full blocks alone and in groups, reads of single coins, opening.
//!
//! Beside the commits stands the time of one fdatasync of the same disk: a commit waits for two. Every transaction spends
//! two coins and makes two, of a ledger of 100,000. `cargo bench --bench storage`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::time::WallMs;
use timecoin::crypto::keys::{SecretKey, Signature};
use timecoin::ledger::apply::{BuildInput, build};
use timecoin::ledger::coins::MemoryCoins;
use timecoin::ledger::decided::DecidedBlock;
use timecoin::ledger::state::State;
use timecoin::storage::LedgerStore;
use timecoin::types::address::{Network, Program};
use timecoin::types::amount::Amount;
use timecoin::types::bitmap::Bitmap;
use timecoin::types::block::{Certificate, Commit};
use timecoin::types::genesis::{Genesis, GenesisMasternode};
use timecoin::types::ids::{EraRound, OutPoint, Round};
use timecoin::types::masternode::SlotPart;
use timecoin::types::params::{ConsensusLimits, Params};
use timecoin::types::transaction::{
    Endpoint, TX_VERSION, Transaction, Tx, TxBody, TxKind, TxOutput, Witness,
};

const COINS: u64 = 100_000;
const BLOCK_TXS: usize = 2_000;
const BLOCKS: usize = 8;
const MAP: usize = 8 << 30;

fn program(i: u64) -> Program {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    Program::Key(SecretKey::from_seed(&seed).public())
}

fn genesis() -> Genesis {
    let key = |i: u8| SecretKey::from_seed(&[i; 32]).public();
    let network = Network::Dev;
    let balance = TxOutput {
        value: Amount(1_000_000_000),
        program: program(1),
    };
    let genesis = Genesis {
        version: 1,
        network,
        time: WallMs(1_700_000_000_000),
        params: Params::of(network),
        limits: ConsensusLimits::of(network),
        balances: vec![balance; COINS as usize],
        masternodes: vec![GenesisMasternode {
            owner: key(1),
            operator: key(2),
            payout: Program::Key(key(1)),
            collateral: TxOutput {
                value: Amount::from_time(1_000).unwrap(),
                program: Program::Key(key(1)),
            },
            endpoint: Endpoint::try_from(b"127.0.0.1:24300".to_vec()).unwrap(),
        }],
    };
    genesis.check().unwrap();
    genesis
}

/// Two coins in, two out. The ledger asks for signatures' places, storage for nothing of them.
fn payment(inputs: &[(OutPoint, TxOutput)], to: u64) -> Tx {
    let output = |i| TxOutput {
        value: Amount(900_000_000),
        program: program(i),
    };
    Tx::new(Transaction {
        body: TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from(inputs.iter().map(|(o, _)| *o)),
            outputs: BoundedVec::take_from([output(to), output(to + 1)]),
            payload: BoundedBytes::default(),
        },
        witnesses: BoundedVec::take_from(inputs.iter().map(|_| Witness::Key(Signature([0; 64])))),
        auth: BoundedVec::new(),
    })
}

/// A commit by the only masternode, in form: its signature is not looked at here.
fn commit() -> Commit {
    Commit {
        at: EraRound::default(),
        signers: Bitmap::from_ones(1, 0..1),
        signatures: BoundedVec::take_from([Signature([0; 64])]),
    }
}

/// Full blocks one after another.
fn chain(genesis: &Genesis) -> Vec<DecidedBlock> {
    let (mut state, mut coins) = (State::genesis(genesis), MemoryCoins::genesis(genesis));
    let inputs = genesis.coins();
    let payments: Vec<Tx> = inputs
        .chunks_exact(2)
        .take(BLOCK_TXS * BLOCKS)
        .zip(0..)
        .map(|(pair, i)| payment(pair, i % 500))
        .collect();
    let mut out = Vec::new();
    for candidates in payments.chunks(BLOCK_TXS) {
        let input = BuildInput {
            round: Round(0),
            proposer: state.leader(Round(0)),
            time: state.earliest(),
            last_commit: match out.is_empty() {
                true => Commit::default(),
                false => commit(),
            },
            slot_part: SlotPart::default(),
            candidates: candidates.to_vec(),
        };
        let (block, delta) = build(&coins, &state, input).unwrap();
        assert_eq!(block.transactions.len(), BLOCK_TXS, "every payment is in");
        coins.commit(&delta);
        state = delta.after.clone();
        out.push(DecidedBlock {
            certificate: Certificate {
                height: block.header.height,
                block: block.id(),
                commit: commit(),
            },
            block: Arc::new(block),
            delta: Arc::new(delta),
        });
    }
    out
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("timecoin-bench-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Anonymous memory of this process in KiB.
fn rss_anon() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    line.unwrap_or("RssAnon: unknown").to_string()
}

fn commits(c: &mut Criterion, root: &Path, genesis: &Genesis, all: &[DecidedBlock]) {
    let base = root.join("base");
    drop(LedgerStore::open(&base, MAP, genesis).unwrap());
    let mut serial = 0;
    let mut fresh = || {
        serial += 1;
        let dir = root.join(format!("ledger{serial}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(base.join("data.mdb"), dir.join("data.mdb")).unwrap();
        (LedgerStore::open(&dir, MAP, genesis).unwrap(), dir)
    };
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    for (name, size) in [("8 blocks one by one", 1), ("8 blocks in one", BLOCKS)] {
        group.throughput(Throughput::Elements((BLOCKS * BLOCK_TXS) as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                &mut fresh,
                |(store, dir)| {
                    for batch in all.chunks(size) {
                        store.commit(batch).unwrap();
                    }
                    (store, dir)
                },
                BatchSize::PerIteration,
            )
        });
    }
    group.finish();
    let (store, _) = fresh();
    println!("before commits: {}", rss_anon());
    all.chunks(1).for_each(|batch| store.commit(batch).unwrap());
    println!("after 8 commits of one block: {}", rss_anon());
    let (store, _) = fresh();
    store.commit(all).unwrap();
    println!("after one commit of 8 blocks: {}", rss_anon());
    println!("{:?}", store.stats().unwrap());
}

fn reads(c: &mut Criterion, root: &Path, genesis: &Genesis) {
    let dir = root.join("base");
    let store = LedgerStore::open(&dir, MAP, genesis).unwrap();
    let outpoints: Vec<OutPoint> = genesis.coins().iter().map(|(o, _)| *o).collect();
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    let mut i = 0;
    let mut next = || {
        i = (i + 7_919) % outpoints.len();
        outpoints[i]
    };
    group.bench_function("a coin, each in a view of its own", |b| {
        b.iter(|| black_box(store.coin(&next()).unwrap()))
    });
    let view = store.snapshot().unwrap();
    group.bench_function("a coin, all in one view", |b| {
        b.iter(|| black_box(view.coin(&next()).unwrap()))
    });
    group.bench_function("a page of 100 coins of an owner", |b| {
        b.iter(|| black_box(view.coins_of(&program(1), None, 100).unwrap()))
    });
    group.finish();
    drop(view);
    drop(store);
    c.bench_function("open a ledger of 100,000 coins", |b| {
        b.iter(|| LedgerStore::open(&dir, MAP, genesis).unwrap().tip())
    });
}

fn syncs(c: &mut Criterion, root: &Path) {
    let mut file = std::fs::File::create(root.join("sync")).unwrap();
    c.bench_function("fdatasync of 4 KiB", |b| {
        b.iter(|| {
            file.write_all(&[1; 4_096]).unwrap();
            file.sync_data().unwrap();
        })
    });
}

fn storage(c: &mut Criterion) {
    let root = scratch("storage");
    let genesis = genesis();
    let all = chain(&genesis);
    syncs(c, &root);
    commits(c, &root, &genesis, &all);
    reads(c, &root, &genesis);
    let _ = std::fs::remove_dir_all(&root);
}

criterion_group!(benches, storage);
criterion_main!(benches);
