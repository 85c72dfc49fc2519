//! Registry transactions in the mempool, with a real registry: they wait for a slot block, and leave when it voids them.

use super::testkit::ALL;
use super::*;
use crate::ledger::testkit::{HOLDER, Net, genesis};

fn admit(mempool: &mut Mempool, net: &Net, tx: &Tx) {
    let now = Now {
        wall: net.state.tip.time,
        mono: MonoUs(0),
    };
    let found = mempool.consider(now, tx, Source::Local, &net.coins, &net.state);
    let Ok(Admission::Check { checks, .. }) = found else {
        panic!("{found:?}");
    };
    let verified = Verified::check(tx.clone(), &checks).expect("good signatures");
    let admitted = mempool.admit(now, verified, Source::Local, &net.coins, &net.state);
    assert!(admitted.is_ok(), "{admitted:?}");
}

#[test]
fn what_a_slot_block_voids_leaves_with_a_reason() {
    let mut net = Net::new(genesis(&[1_000; 6], 8));
    let mut mempool = Mempool::new(MempoolLimits::default());
    let (first, twin) = (
        net.register(9, HOLDER, 1_000),
        net.register(9, HOLDER + 1, 1_000),
    );
    let (leave, again) = (
        net.unregister(0, HOLDER + 2, net.id(0)),
        net.unregister(0, HOLDER + 3, net.id(0)),
    );
    let update = net.update(1, HOLDER + 4, net.id(1), None);
    for tx in [&first, &twin, &leave, &again, &update] {
        admit(&mut mempool, &net, tx);
    }
    assert!(
        !mempool.has_candidate(false),
        "S3: no block but a slot block"
    );
    assert!(mempool.select(ALL).is_empty(), "L5: none in other blocks");
    let slot = Selection {
        registry: 64,
        ..ALL
    };
    assert_eq!(mempool.select(slot).len(), 5);
    assert!(
        mempool.recheck_registry(&net.state).is_empty(),
        "all are valid as yet"
    );

    let (block, _) = net.attested(&[], vec![first.clone(), leave.clone()]);
    mempool.decided(&block);
    let gone = mempool.recheck_registry(&net.state);
    let gone: BTreeMap<Txid, Departure> = gone.iter().map(|d| (d.tx.txid, d.why)).collect();
    let key = "one of its keys belongs to a registered masternode now";
    let leaving = "its masternode is already leaving";
    let wanted = [(twin.txid, key), (again.txid, leaving)];
    let wanted = wanted.map(|(txid, why)| (txid, Departure::Invalid(why)));
    assert_eq!(gone, BTreeMap::from(wanted), "M1, M2");
    assert_eq!(mempool.departure(&twin.txid), Some(Departure::Invalid(key)));
    assert_eq!(mempool.select(slot), vec![update], "what still holds stays");

    for _ in 0..net.state.params().unbonding {
        net.attested(&[], vec![]);
    }
    let late = net.update(2, HOLDER + 5, net.id(2), None);
    admit(&mut mempool, &net, &late);
    assert!(net.state.registry().get(&net.id(0)).is_none(), "B5 step 8");
    let void = stale_registration(&net.unregister(0, HOLDER + 6, net.id(0)), &net.state);
    assert_eq!(void, Some("its masternode is not registered any more"));
}
