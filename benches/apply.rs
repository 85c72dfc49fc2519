//! How long a node judges one full block of payments: `apply` and `build` on 2,000 transfers of one input and two outputs,
//! signatures apart. The digests of the coins dominate (L11).

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::time::WallMs;
use timecoin::crypto::keys::{SecretKey, Signature};
use timecoin::ledger::apply::{BuildInput, apply, build};
use timecoin::ledger::coins::MemoryCoins;
use timecoin::ledger::state::State;
use timecoin::types::address::{Network, Program};
use timecoin::types::amount::Amount;
use timecoin::types::block::Commit;
use timecoin::types::genesis::{Genesis, GenesisMasternode};
use timecoin::types::ids::Round;
use timecoin::types::masternode::SlotPart;
use timecoin::types::params::{ConsensusLimits, Params};
use timecoin::types::transaction::*;

const PAYMENTS: usize = 2_000;

fn genesis() -> Genesis {
    let key = |i| SecretKey::from_seed(&[i; 32]).public();
    let payer = Program::Key(key(3));
    let whole = |time| TxOutput {
        value: Amount::from_time(time).unwrap_or_default(),
        program: payer,
    };
    Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_000_000),
        params: Params::of(Network::Dev),
        limits: ConsensusLimits::of(Network::Dev),
        balances: vec![whole(10); PAYMENTS],
        masternodes: vec![GenesisMasternode {
            owner: key(1),
            operator: key(2),
            payout: payer,
            collateral: whole(1_000),
            endpoint: Endpoint::default(),
        }],
    }
}

/// Signatures are not judged here, so one serves all.
fn payments(genesis: &Genesis) -> Vec<Tx> {
    let pay = |(outpoint, coin): (_, TxOutput)| {
        let half = TxOutput {
            value: Amount(coin.value.0 / 2 - 1_000),
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
    genesis.coins().into_iter().map(pay).collect()
}

fn ledger(c: &mut Criterion) {
    let genesis = genesis();
    let (state, coins) = (State::genesis(&genesis), MemoryCoins::genesis(&genesis));
    let input = BuildInput {
        round: Round(0),
        proposer: state.leader(Round(0)),
        time: state.earliest(),
        last_commit: Commit::default(),
        slot_part: SlotPart::default(),
        candidates: payments(&genesis),
    };
    let Ok((block, _)) = build(&coins, &state, input.clone()) else {
        return;
    };
    assert_eq!(block.transactions.len(), PAYMENTS, "every payment fits");
    c.bench_function("apply 2,000 payments", |b| {
        b.iter(|| black_box(apply(&coins, &state, &block)).is_ok());
    });
    c.bench_function("build 2,000 payments", |b| {
        b.iter(|| black_box(build(&coins, &state, input.clone())).is_ok());
    });
}

criterion_group!(benches, ledger);
criterion_main!(benches);
