//! Stories about slot blocks: rewards, registrations, jail and return, leaving, evidence, key changes, upgrades (B5).

use crate::base::bounded::BoundedVec;
use crate::ledger::apply::*;
use crate::ledger::check::TxError;
use crate::ledger::registry::Standing;
use crate::ledger::rewards::subsidy;
use crate::ledger::testkit::*;
use crate::types::amount::Amount;
use crate::types::block::Block;
use crate::types::ids::*;
use crate::types::transaction::*;

fn net(collaterals: &[u64]) -> Net {
    Net::new(genesis(collaterals, 6))
}

fn refused(net: &Net, block: &Block) -> Invalid {
    match apply(&net.coins, &net.state, block) {
        Err(ApplyError::Invalid(invalid)) => invalid,
        other => panic!("the block must be invalid: {other:?}"),
    }
}

fn entry<'a>(net: &'a Net, id: &MasternodeId) -> &'a crate::ledger::registry::Entry {
    net.state.registry().get(id).expect("registered")
}

#[test]
fn an_attested_slot_pays_by_power_and_the_parents_pot() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    net.block(vec![net.pay(HOLDER, HOLDER + 1, 70_000)]);
    let late = net.pay(HOLDER + 2, HOLDER + 1, 70_000);
    net.attested(&[net.id(0)], vec![late]);
    let reward = subsidy(net.state.params().reward_base, 9) + FEE;
    for (i, time) in [(1, 2_000), (2, 3_000), (3, 4_000)] {
        let share = u128::from(reward) * time / 9_000;
        assert_eq!(
            u128::from(entry(&net, &net.id(i)).accrued.0),
            share,
            "M6: by power"
        );
    }
    assert_eq!(entry(&net, &net.id(0)).accrued, Amount::ZERO, "M5: absent");
    assert_eq!(entry(&net, &net.id(0)).absent, 1);
    let paid: u64 = net
        .state
        .registry()
        .entries()
        .iter()
        .map(|e| e.accrued.0)
        .sum();
    assert_eq!(
        net.state.tip.supply.pot.0,
        reward - paid + FEE,
        "L10: the parent's pot is shared, the fees of this block wait"
    );
    assert_eq!(
        net.state.tip.supply.issued.0,
        net.state.tip.supply.pot.0 + net.state.tip.coins.0 + net.state.registry.held.0
    );
}

#[test]
fn rewards_are_paid_out_every_payout_period() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    for i in 1..=4u64 {
        let (block, _) = net.attested(&[], vec![]);
        assert_eq!(net.state.slot_index(), SlotIndex(i));
        let paid = block
            .transactions
            .iter()
            .any(|tx| tx.body().kind == TxKind::Coinbase);
        assert_eq!(paid, i == 4, "B5.9: omitted iff nothing is due");
    }
    let all = net.state.registry().entries().iter();
    assert!(all.clone().all(|e| e.accrued == Amount::ZERO));
    let coin = net.coins_of(OWNER + 3)[0];
    assert_eq!(net.coins.0[&coin.0].flags, 1, "L11: a coinbase output");
    assert!(coin.1.value.0 > 4 * 10_000_000_000);
    let spend = net.pay(OWNER + 3, HOLDER, 5_000);
    net.block(vec![spend]);
    assert_eq!(
        net.state.tip.coin_count,
        net.coins.0.len() as u64,
        "L8: no maturity"
    );
}

#[test]
fn any_other_coinbase_is_invalid() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    for _ in 0..3 {
        net.attested(&[], vec![]);
    }
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part = net.all_attest(input.time, &[]);
    let (good, _) = build(&net.coins, &net.state, input).unwrap();
    let with = |transactions: Vec<Tx>| {
        let mut block = good.clone();
        block.transactions = BoundedVec::take_from(transactions);
        block.header.tx_root = block.tx_root();
        refused(&net, &block)
    };
    let coinbase = good.transactions[0].clone();
    assert_eq!(with(vec![]), Invalid::Coinbase, "it is due");
    let twice = with(vec![coinbase.clone(), coinbase.clone()]);
    assert!(matches!(twice, Invalid::Transaction { index: 1, .. }));
    let pay = net.pay(HOLDER, HOLDER, 50_000);
    let late = with(vec![pay, coinbase.clone()]);
    assert!(
        matches!(late, Invalid::Transaction { index: 1, .. }),
        "L9: it comes first"
    );
    let changed = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = coinbase.transaction.clone();
        change(&mut tx);
        with(vec![Tx::new(tx)])
    };
    let first = *good.transactions[0].outpoint(0).txid.0.0.first().unwrap();
    assert_eq!(
        changed(&|t| t.body.outputs.as_mut_slice()[0].value.0 += 1),
        Invalid::Coinbase
    );
    assert_eq!(
        changed(&|t| t.body.outputs.as_mut_slice()[0].program = program(u64::from(first))),
        Invalid::Coinbase
    );
    assert_eq!(
        changed(&|t| t.auth = BoundedVec::take_from([good.last_commit.signatures[0]])),
        Invalid::Coinbase
    );
    let spends = net.sign(
        TxKind::Transfer,
        OWNER,
        &[(coinbase.outpoint(0), coinbase.body().outputs[0])],
        vec![output(1, 5_000)],
        vec![],
        &[],
    );
    assert!(
        matches!(
            with(vec![coinbase.clone(), spends]),
            Invalid::Missing { index: 1, .. }
        ),
        "L9: not in its own block"
    );
}

#[test]
fn a_registration_starts_jailed_enters_when_present_and_leads_later() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    let tx = net.register(10, HOLDER, 2_500);
    let id = MasternodeId(tx.txid.0);
    let early = net.input(net.state.earliest(), 0, vec![tx.clone()]);
    assert_eq!(
        build(&net.coins, &net.state, early).unwrap_err(),
        BuildError::Invalid(Invalid::Empty),
        "L5: registry kinds stand in slot blocks only"
    );
    let coins_before = net.state.tip.coins;
    net.slot_block(vec![tx.clone()]);
    assert_eq!(
        net.state.tip.coins.0,
        coins_before.0 - 2_500 * 100_000_000 - FEE
    );
    assert!(
        !net.coins.0.contains_key(&tx.outpoint(0)),
        "M1: collateral is no coin"
    );
    assert_eq!(
        entry(&net, &id).standing,
        Standing::Jailed {
            since: SlotIndex(1)
        },
        "M5"
    );
    net.slot_block(vec![]);
    assert_eq!(
        net.state.validators.len(),
        4,
        "M4: an unattested slot returns nobody"
    );
    net.attested(&[], vec![]);
    assert!(
        entry(&net, &id).is_voting(),
        "M5: unjail_after = 1 on devnets"
    );
    assert_eq!(net.state.validators.total(), Power(12_500));
    assert_eq!(
        net.state
            .leaders
            .prio
            .iter()
            .find(|(i, _)| *i == id)
            .unwrap()
            .1,
        -(12_500 + 12_500 / 8),
        "B4: entrants wait"
    );
    let again = net.register(10, HOLDER + 1, 2_500);
    let input = net.input(net.next_slot(), 0, vec![again]);
    let (block, _) = build(&net.coins, &net.state, input).unwrap();
    let kinds = block.transactions.iter().map(|tx| tx.body().kind);
    assert!(
        !kinds.into_iter().any(TxKind::is_registry),
        "M1: its keys are taken"
    );
}

#[test]
fn two_registrations_of_one_block_cannot_share_a_key() {
    let mut net = net(&[1_000; 4]);
    let a = net.register(10, HOLDER, 1_000);
    let b = net.register(10, HOLDER + 1, 1_000);
    let (block, _) = net.slot_block(vec![a.clone(), b]);
    assert_eq!(block.transactions.len(), 1, "M1");
    let update = net.update(10, HOLDER + 2, MasternodeId(a.txid.0), Some(OPERATOR + 77));
    let thief = net.register(77, HOLDER + 3, 1_000);
    let (block, _) = net.slot_block(vec![update, thief]);
    assert_eq!(
        block.transactions.len(),
        1,
        "M1: a key named in this block is taken"
    );
}

#[test]
fn the_registry_says_no() {
    let mut net = net(&[1_000; 4]);
    let id = net.id(0);
    let good = net.register(10, HOLDER, 1_000);
    let mut payload: Register = crate::types::codec::decode(&good.body().payload, 1_024).unwrap();
    let verdict = |net: &Net, tx: &Tx| {
        use crate::ledger::check::*;
        let form = check_form(tx, net.state.params(), net.state.limits());
        match form
            .map_err(SpendError::Tx)
            .and_then(|()| check_spend(tx, &net.coins, &net.state))
        {
            Err(SpendError::Tx(error)) => Some(error),
            other => other.map(|_| None).unwrap(),
        }
    };
    assert_eq!(verdict(&net, &good), None);
    let register = |net: &Net, payload: &Register, time: u64, auth: &[u64]| {
        let bytes = crate::types::codec::encode(payload);
        net.spend(
            TxKind::Register,
            HOLDER,
            output(1, time * 100_000_000),
            bytes,
            auth,
        )
    };
    let small = register(&net, &payload, 999, &[2_010]);
    assert!(matches!(
        verdict(&net, &small),
        Some(TxError::Collateral { .. })
    ));
    let unsigned = register(&net, &payload, 1_000, &[]);
    assert_eq!(
        verdict(&net, &unsigned),
        Some(TxError::Auth(TxKind::Register))
    );
    let operator = payload.operator;
    payload.operator = payload.owner;
    let same = register(&net, &payload, 1_000, &[2_010]);
    assert_eq!(verdict(&net, &same), Some(TxError::KeyInUse(payload.owner)));
    payload.operator = crate::crypto::keys::PublicKey([0; 32]);
    let small_order = register(&net, &payload, 1_000, &[2_010]);
    assert!(
        matches!(verdict(&net, &small_order), Some(TxError::KeyForm(_))),
        "L6"
    );
    payload.operator = operator;
    payload.endpoint = Endpoint::try_from(b"no port".to_vec()).unwrap();
    let nowhere = register(&net, &payload, 1_000, &[2_010]);
    assert_eq!(verdict(&net, &nowhere), Some(TxError::Endpoint));
    let nobody = net.unregister(0, HOLDER, MasternodeId::default());
    assert_eq!(
        verdict(&net, &nobody),
        Some(TxError::UnknownMasternode(MasternodeId::default()))
    );
    let taken = net.update(0, HOLDER, id, Some(OPERATOR + 1));
    assert!(matches!(verdict(&net, &taken), Some(TxError::KeyInUse(_))));
    let leave = net.unregister(0, HOLDER, id);
    net.slot_block(vec![leave]);
    let again = net.unregister(0, HOLDER + 1, id);
    assert_eq!(verdict(&net, &again), Some(TxError::Leaving(id)), "M2");
}

#[test]
fn who_leaves_gets_collateral_and_rewards_after_unbonding() {
    let mut net = net(&[1_000, 1_000, 1_000, 1_000, 1_000]);
    let id = net.id(2);
    net.attested(&[], vec![]);
    let leave = net.unregister(2, HOLDER, id);
    net.attested(&[], vec![leave]);
    assert_eq!(
        entry(&net, &id).standing,
        Standing::Gone { exit: SlotIndex(2) }
    );
    assert_eq!(net.state.validators.len(), 4);
    let second = net.unregister(3, HOLDER, net.id(3));
    net.slot_block(vec![second]);
    assert!(
        entry(&net, &net.id(3)).is_voting(),
        "M5: never below min_validators by own wish"
    );
    while net.state.slot_index() < SlotIndex(21) {
        net.slot_block(vec![]);
        assert!(
            net.state.registry().get(&id).is_some(),
            "B5.8: keys are kept while punishable"
        );
    }
    let before: u64 = net.coins_of(OWNER + 2).iter().map(|(_, o)| o.value.0).sum();
    net.slot_block(vec![]);
    assert!(net.state.registry().get(&id).is_none());
    let after: u64 = net.coins_of(OWNER + 2).iter().map(|(_, o)| o.value.0).sum();
    assert_eq!(
        after - before,
        1_000 * 100_000_000,
        "B5.8: the collateral comes back"
    );
    let back = net.register(2, HOLDER + 1, 1_500);
    net.slot_block(vec![back.clone()]);
    assert!(
        net.state
            .registry()
            .get(&MasternodeId(back.txid.0))
            .is_some(),
        "M1: its keys are free again"
    );
}

#[test]
fn the_absent_are_jailed_within_the_floor_and_return() {
    let mut net = net(&[1_000; 6]);
    let gone = [net.id(0), net.id(1), net.id(2)];
    for i in 1..=3 {
        assert_eq!(net.state.validators.len(), 6, "jail_after = 3, slot {i}");
        net.attested(&gone, vec![]);
    }
    let mut jailed: Vec<_> = gone
        .iter()
        .filter(|id| !entry(&net, id).is_voting())
        .collect();
    jailed.sort();
    assert_eq!(net.state.validators.len(), 4, "M5: 2T/3 stays unjailed");
    let mut lowest = gone;
    lowest.sort();
    assert_eq!(
        jailed,
        [&lowest[0], &lowest[1]],
        "M5: equal absence, lowest id first"
    );
    net.attested(&gone, vec![]);
    assert_eq!(
        net.state.validators.len(),
        4,
        "M5: jailing cannot go on below 2T/3"
    );
    net.attested(&[], vec![]);
    assert_eq!(
        net.state.validators.len(),
        5,
        "M5: S/3 of 4,000 lets one of 1,000 in"
    );
    net.slot_block(vec![]);
    assert_eq!(
        net.state.validators.len(),
        5,
        "M4: an unattested slot returns nobody, also not from the queue"
    );
    net.attested(&[], vec![]);
    assert_eq!(net.state.validators.len(), 6);
}

#[test]
fn entering_power_is_capped_but_the_first_always_goes() {
    let mut net = net(&[1_000; 4]);
    let txs: Vec<Tx> = (0..3)
        .map(|i| net.register(10 + i, HOLDER + i, [1_000, 10_000, 1_000][i as usize]))
        .collect();
    let ids: Vec<MasternodeId> = txs.iter().map(|tx| MasternodeId(tx.txid.0)).collect();
    // One slot block each, so that the queue order is that of the registrations.
    for (i, tx) in txs.into_iter().enumerate() {
        let absent: Vec<MasternodeId> = ids[..i].to_vec();
        net.attested(&absent, vec![tx]);
    }
    net.attested(&ids[1..], vec![]);
    assert!(
        entry(&net, &ids[0]).is_voting(),
        "1,000 of 4,000 is within S/3"
    );
    net.attested(&[], vec![]);
    assert_eq!(
        net.state.validators.len(),
        6,
        "the lower id of the two goes first, the other waits or fits"
    );
    net.attested(&[], vec![]);
    assert_eq!(net.state.validators.len(), 7);
}

#[test]
fn a_full_set_keeps_the_greatest_and_the_rest_stand_by() {
    let mut genesis = genesis(&[1_000, 1_000, 1_000, 1_000, 2_000], 6);
    genesis.params.max_validators = 5;
    let mut net = Net::new(genesis);
    let big = net.register(10, HOLDER, 1_500);
    let small = net.register(11, HOLDER + 1, 1_000);
    let (big_id, small_id) = (MasternodeId(big.txid.0), MasternodeId(small.txid.0));
    net.slot_block(vec![big, small]);
    net.attested(&[], vec![]);
    net.attested(&[], vec![]);
    assert!(entry(&net, &big_id).is_voting(), "M5: greatest by power");
    assert_eq!(net.state.validators.len(), 5);
    let all = net.state.registry().entries().iter();
    let stand_by: Vec<_> = all
        .filter(|e| e.standing == Standing::StandBy)
        .map(|e| e.id)
        .collect();
    let mut last: Vec<_> = (0..4).map(|i| net.id(i)).chain([small_id]).collect();
    last.sort();
    assert_eq!(
        stand_by,
        [last[3], last[4]],
        "M5: of equal power the lowest ids stay"
    );
    assert!(
        !entry(&net, &stand_by[0]).counts,
        "M5: stand-by is not in T"
    );
}

#[test]
fn long_jail_expels() {
    let mut genesis = genesis(&[1_000; 6], 6);
    genesis.params.expel_after = 4;
    genesis.params.unbonding = 3;
    let mut net = Net::new(genesis);
    let gone = net.id(5);
    while entry(&net, &gone).is_voting() {
        net.attested(&[gone], vec![]);
    }
    for _ in 0..4 {
        assert!(matches!(
            entry(&net, &gone).standing,
            Standing::Jailed { .. }
        ));
        net.attested(&[gone], vec![]);
    }
    assert_eq!(
        entry(&net, &gone).standing,
        Standing::Gone { exit: SlotIndex(7) },
        "M5: leaves as by Unregister"
    );
    for _ in 0..3 {
        net.attested(&[], vec![]);
    }
    assert!(net.state.registry().get(&gone).is_none());
    assert!(
        !net.coins_of(OWNER + 5).is_empty(),
        "its collateral comes back"
    );
}
