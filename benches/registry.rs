//! What slots cost with 4, 100 and 512 masternodes: the registry's hash, the choice of a leader, a slot block with everybody's
//! attestations. Sizes in bytes are printed first. Signatures apart.

#[path = "../tests/supply/driver.rs"]
mod driver;

use criterion::{Criterion, criterion_group, criterion_main};
use driver::{Chain, genesis};
use std::hint::black_box;
use timecoin::base::bounded::BoundedVec;
use timecoin::ledger::apply::{apply, build};
use timecoin::types::address::Network;
use timecoin::types::codec;
use timecoin::types::ids::Round;
use timecoin::types::masternode::SlotPart;
use timecoin::types::params::Params;

fn slots(c: &mut Criterion) {
    for count in [4, 100, 512] {
        let mut params = Params::of(Network::Main);
        params.payout_period = 2;
        let mut chain = Chain::new(&genesis(params, &vec![1_000; count], 1));
        let part = |chain: &Chain| {
            let time = chain.slot_time(0);
            let all = chain.attestations(time, |_| true, |_| true);
            let part = SlotPart {
                attestations: BoundedVec::take_from(all),
                ..SlotPart::default()
            };
            (time, part)
        };
        let (time, first) = part(&chain);
        chain.step(chain.input(time, 0, first, Vec::new()));
        let (time, second) = part(&chain);
        let input = chain.input(time, 0, second, Vec::new());
        let Ok((block, delta)) = build(&chain.coins, &chain.state, input.clone()) else {
            return;
        };
        let registry = delta.after.registry();
        println!(
            "{count} masternodes: registry {} B, slot block {} B ({} attestations, last_commit {} B, coinbase of {} outputs)",
            codec::encoded_len(&registry.entries().to_vec()),
            codec::encoded_len(&block),
            block.slot_part.attestations.len(),
            codec::encoded_len(&block.last_commit),
            block
                .transactions
                .first()
                .map_or(0, |tx| tx.body().outputs.len()),
        );
        let id = |what: &str| format!("{what}, {count} masternodes");
        c.bench_function(&id("registry hash"), |b| {
            b.iter(|| black_box(registry.hash()));
        });
        let state = &chain.state;
        for round in [0, 9] {
            let name = format!("leader of round {round}");
            c.bench_function(&id(&name), |b| {
                b.iter(|| black_box(state.leader(Round(round))));
            });
        }
        c.bench_function(&id("build a slot block"), |b| {
            b.iter(|| black_box(build(&chain.coins, state, input.clone())).is_ok());
        });
        c.bench_function(&id("apply a slot block"), |b| {
            b.iter(|| black_box(apply(&chain.coins, state, &block)).is_ok());
        });
    }
}

criterion_group!(benches, slots);
criterion_main!(benches);
