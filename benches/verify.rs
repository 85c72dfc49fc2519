//! What a signature check costs: one by one, and in batches of the sizes that transactions and votes come in.
//!
//! Every batch holds keys and messages of its own, as those of a block do. `cargo bench --bench verify`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use timecoin::crypto::hash::{Domain, hash};
use timecoin::crypto::keys::SecretKey;
use timecoin::crypto::verify::{Check, verify_all, verify_each};

const BATCHES: [usize; 3] = [64, 256, 1_024];

fn check(i: u64) -> Check {
    let message = hash(Domain::Prevote, &[&i.to_le_bytes()]);
    let secret = SecretKey::from_seed(&message.0);
    Check {
        key: secret.public(),
        message,
        signature: secret.sign(&message),
    }
}

fn verify(c: &mut Criterion) {
    let checks: Vec<Check> = (0..1_024).map(check).collect();
    let mut group = c.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    group.bench_function("single", |b| {
        b.iter(|| assert!(black_box(&checks[0]).verify()))
    });
    for size in BATCHES {
        let batch = &checks[..size];
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::new("batch", size), batch, |b, batch| {
            b.iter(|| assert!(verify_all(black_box(batch)), "all are good"));
        });
        let mut spoilt = batch.to_vec();
        spoilt[size / 2].signature.0[0] ^= 1;
        group.bench_with_input(BenchmarkId::new("one bad of", size), &spoilt, |b, batch| {
            b.iter(|| {
                assert!(
                    verify_each(black_box(batch)).contains(&false),
                    "it is found"
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
