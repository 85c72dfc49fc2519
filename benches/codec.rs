//! What encoding and decoding cost: a payment of two inputs and two outputs, and a block of 2,000 of them.
//!
//! A decoded transaction knows its txid and wtxid, so decoding hashes each of them; `names` is that part alone.
//! `cargo bench --bench codec`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::limits::{FRAME_BLOCK_BYTES, TX_BYTES_MAX};
use timecoin::base::time::WallMs;
use timecoin::crypto::hash::{Domain, Hash, hash};
use timecoin::crypto::keys::{SecretKey, Signature};
use timecoin::types::address::Program;
use timecoin::types::amount::Amount;
use timecoin::types::block::{Block, Commit, HEADER_VERSION, Header};
use timecoin::types::codec::{decode, encode};
use timecoin::types::ids::*;
use timecoin::types::masternode::SlotPart;
use timecoin::types::transaction::*;

const BLOCK_TXS: u64 = 2_000;

fn payment(i: u64) -> Tx {
    let outpoint = |n: u8| OutPoint {
        txid: Txid(hash(Domain::Prevote, &[&i.to_le_bytes(), &[n]])),
        vout: u32::from(n),
    };
    let output = |n: u8| TxOutput {
        value: Amount(1_000_000 + i),
        program: Program::Key(SecretKey::from_seed(&[n; 32]).public()),
    };
    Tx::new(Transaction {
        body: TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from([outpoint(0), outpoint(1)]),
            outputs: BoundedVec::take_from([output(1), output(2)]),
            payload: BoundedBytes::default(),
        },
        witnesses: BoundedVec::take_from([0, 1].map(|n| Witness::Key(Signature([n; 64])))),
        auth: Auth::new(),
    })
}

fn block() -> Block {
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
        transactions: BoundedVec::take_from((0..BLOCK_TXS).map(payment)),
    }
}

fn codec(c: &mut Criterion) {
    let tx = payment(0);
    let bytes = encode(&tx);
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a payment", |b| b.iter(|| encode(black_box(&tx))));
    group.bench_function("decode a payment", |b| {
        b.iter(|| decode::<Tx>(black_box(&bytes), TX_BYTES_MAX).unwrap());
    });
    group.bench_function("names (txid, wtxid) of a payment", |b| {
        b.iter(|| Tx::new(black_box(&tx.transaction).clone()).wtxid);
    });
    let block = block();
    let bytes = encode(&block);
    assert_eq!(
        decode::<Block>(&bytes, FRAME_BLOCK_BYTES).unwrap(),
        block,
        "one codec both ways"
    );
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a block of 2,000", |b| {
        b.iter(|| encode(black_box(&block)))
    });
    group.bench_function("decode a block of 2,000", |b| {
        b.iter(|| decode::<Block>(black_box(&bytes), FRAME_BLOCK_BYTES).unwrap());
    });
    group.bench_function("Merkle root of a block of 2,000", |b| {
        b.iter(|| black_box(&block).tx_root());
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
