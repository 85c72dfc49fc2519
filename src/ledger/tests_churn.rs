//! Stories about who has power: T and its floor, counters, queues and caps (M5, B5 step 7).

use crate::ledger::registry::{Entry, Standing};
use crate::ledger::testkit::*;
use crate::types::ids::*;
use crate::types::transaction::Tx;

fn net(collaterals: &[u64]) -> Net {
    Net::new(genesis(collaterals, 8))
}

fn entry<'a>(net: &'a Net, id: &MasternodeId) -> &'a Entry {
    net.state.registry().get(id).expect("registered")
}

fn ids(txs: &[Tx]) -> Vec<MasternodeId> {
    txs.iter().map(|tx| MasternodeId(tx.txid.0)).collect()
}

#[test]
fn the_jailed_still_count_in_t() {
    let mut net = net(&[1_000; 9]);
    let first: Vec<MasternodeId> = (0..3).map(|i| net.id(i)).collect();
    for _ in 0..3 {
        net.attested(&first, vec![]);
    }
    assert_eq!(net.state.validators.len(), 6, "M5: 2T/3 of 9,000 stays");
    let more: Vec<MasternodeId> = (0..5).map(|i| net.id(i)).collect();
    for _ in 0..4 {
        net.attested(&more, vec![]);
    }
    assert_eq!(
        net.state.validators.len(),
        6,
        "M5: an attacker cannot shrink the quorum step by step"
    );
}

#[test]
fn leavers_do_not_count_in_t() {
    let plain = net(&[1_000; 8]);
    let mut order: Vec<usize> = (0..8).collect();
    order.sort_by_key(|i| plain.id(*i));
    let (small, big) = (order[0], order[7]);
    let mut collaterals = [1_000; 8];
    collaterals[big] = 10_000;
    let mut net = net(&collaterals);
    let gone: Vec<MasternodeId> = order[1..4].iter().map(|i| net.id(*i)).collect();
    net.attested(&gone, vec![]);
    net.attested(&gone, vec![]);
    let leave = |i: usize, from: u64| net.unregister(i as u64, from, net.id(i));
    let wishes = vec![leave(small, HOLDER), leave(big, HOLDER + 1)];
    net.attested(&gone, wishes);
    assert!(!entry(&net, &net.id(small)).is_voting(), "the first goes");
    assert!(
        entry(&net, &net.id(big)).is_voting(),
        "11,000 is above S/3 of 17,000"
    );
    let jailed = gone.iter().filter(|id| !entry(&net, id).is_voting());
    assert_eq!(
        jailed.count(),
        2,
        "M5: T is 6,000, the power of those who are not leaving"
    );
}

#[test]
fn presence_is_consecutive() {
    let mut genesis = genesis(&[1_000; 4], 8);
    genesis.params.unjail_after = 2;
    let mut net = Net::new(genesis);
    let tx = net.register(10, HOLDER, 1_000);
    let id = ids(std::slice::from_ref(&tx))[0];
    net.slot_block(vec![tx]);
    net.attested(&[], vec![]);
    net.attested(&[id], vec![]);
    assert_eq!(
        (entry(&net, &id).present, entry(&net, &id).absent),
        (0, 1),
        "M5"
    );
    net.attested(&[], vec![]);
    assert!(!entry(&net, &id).is_voting(), "M5: a break begins anew");
    net.attested(&[], vec![]);
    assert!(entry(&net, &id).is_voting());
}

#[test]
fn who_is_back_in_time_is_not_expelled() {
    let mut genesis = genesis(&[1_000; 6], 8);
    genesis.params.expel_after = 4;
    let mut net = Net::new(genesis);
    let gone = net.id(5);
    while entry(&net, &gone).is_voting() {
        net.attested(&[gone], vec![]);
    }
    let Standing::Jailed { since } = entry(&net, &gone).standing else {
        panic!("jailed");
    };
    while net.state.slot_index().0 + 1 < since.0 + 4 {
        net.attested(&[gone], vec![]);
    }
    net.attested(&[], vec![]);
    assert!(
        entry(&net, &gone).is_voting(),
        "M5: present >= unjail_after returns"
    );
}

#[test]
fn the_queue_is_by_time_then_id() {
    let mut net = net(&[1_000; 4]);
    let mut txs: Vec<Tx> = (0..3)
        .map(|i| net.register(10 + i, HOLDER + i, 1_000))
        .collect();
    txs.sort_by_key(|tx| tx.txid);
    let r = ids(&txs);
    net.slot_block(txs);
    net.attested(&r[..1], vec![]);
    assert!(
        entry(&net, &r[1]).is_voting(),
        "M5: of equal time the lower id goes first"
    );
    assert!(
        !entry(&net, &r[2]).is_voting(),
        "M5: S/3 of 4,000 lets in one"
    );
    net.attested(&[], vec![]);
    assert!(entry(&net, &r[2]).is_voting(), "M5: it has waited longer");
    assert!(!entry(&net, &r[0]).is_voting());
}

#[test]
fn nobody_overtakes_in_the_queue() {
    let mut net = net(&[1_000; 10]);
    let big = net.register(10, HOLDER, 5_000);
    let mut txs: Vec<Tx> = (1..8)
        .map(|i| net.register(10 + i, HOLDER + i, 1_000))
        .collect();
    let great = MasternodeId(big.txid.0);
    let mut small = ids(&txs);
    small.sort();
    let (low, high) = (small[0], small[small.len() - 1]);
    assert!(low < great && great < high, "the story needs this order");
    txs.push(big);
    net.slot_block(txs);
    let others: Vec<MasternodeId> = small[1..small.len() - 1].to_vec();
    net.attested(&others, vec![]);
    assert!(entry(&net, &low).is_voting());
    assert!(
        !entry(&net, &great).is_voting(),
        "M5: 6,000 is above S/3 of 10,000"
    );
    assert!(
        !entry(&net, &high).is_voting(),
        "M5: 2,000 would fit, but the great one is first"
    );
    net.attested(&others, vec![]);
    assert!(
        entry(&net, &great).is_voting(),
        "M5: the first of a queue always goes, whatever its power"
    );
}
