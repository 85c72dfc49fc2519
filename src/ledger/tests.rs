//! Stories about blocks of transfers: what is valid, what is not, and that judging changes nothing.

use crate::base::bounded::BoundedVec;
use crate::crypto::hash::Hash;
use crate::ledger::apply::*;
use crate::ledger::check::TxError;
use crate::ledger::coins::{CoinView, Overlay};
use crate::ledger::state::{Part, State};
use crate::ledger::testkit::*;
use crate::types::amount::Amount;
use crate::types::block::Block;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::transaction::*;
use std::sync::Arc;

fn net() -> Net {
    Net::new(genesis(&[1_000, 2_000, 3_000, 4_000], 4))
}

fn refused(net: &Net, block: &Block) -> Invalid {
    match apply(&net.coins, &net.state, block) {
        Err(ApplyError::Invalid(invalid)) => invalid,
        other => panic!("the block must be invalid: {other:?}"),
    }
}

#[test]
fn payments_move_coins_and_fees_go_to_the_pot() {
    let mut net = net();
    let tx = net.pay(HOLDER, HOLDER + 9, 5_000_000);
    let before = net.state.clone();
    net.block(vec![tx]);
    assert_eq!(net.coins_of(HOLDER + 9)[0].1.value, Amount(5_000_000));
    assert_eq!(
        net.state.tip.supply.pot,
        Amount(FEE),
        "L10: fees go to the pot"
    );
    assert_eq!(net.state.tip.coins.0, before.tip.coins.0 - FEE);
    assert_eq!(net.state.tip.coin_count, net.coins.0.len() as u64);
    net.slot_block(vec![]);
    assert_eq!(
        net.state.tip.supply.pot,
        Amount(FEE),
        "M6: an unattested slot pays nothing and keeps the pot"
    );
    assert_eq!(net.state.slot_index(), SlotIndex(1));
    assert_eq!(net.state.tip.prev_slot_block, net.state.block());
}

#[test]
fn a_block_may_spend_what_it_made_but_never_what_comes_later() {
    let mut net = net();
    let parent = net.pay(HOLDER, HOLDER + 7, 1_000_000);
    let coin = (parent.outpoint(0), parent.body().outputs[0]);
    let child = net.sign(
        TxKind::Transfer,
        HOLDER + 7,
        &[coin],
        vec![output(HOLDER + 8, 900_000)],
        vec![],
        &[],
    );
    let input = net.input(net.state.earliest(), 0, vec![parent.clone(), child.clone()]);
    let (block, delta) = build(&net.coins, &net.state, input).unwrap();
    assert_eq!(block.transactions.len(), 2, "L9: a child after its parent");
    assert!(
        !delta.created.iter().any(|(o, _)| *o == coin.0),
        "a coin made and spent in one block leaves no trace"
    );
    let mut swapped = block.clone();
    swapped.transactions = BoundedVec::take_from([child.clone(), parent.clone()]);
    swapped.header.tx_root = swapped.tx_root();
    assert!(matches!(
        refused(&net, &swapped),
        Invalid::Missing { index: 0, .. }
    ));
    let mut twice = block.clone();
    twice.transactions = BoundedVec::take_from([parent.clone(), child.clone(), child.clone()]);
    twice.header.tx_root = twice.tx_root();
    assert!(matches!(
        refused(&net, &twice),
        Invalid::Missing { index: 2, .. }
    ));
    net.step(net.input(net.state.earliest(), 0, vec![child, parent]));
    assert_eq!(
        net.state.tip.coin_count, 5,
        "the child before its parent is left out"
    );
}

#[test]
fn every_header_field_is_judged() {
    let mut net = net();
    net.block(vec![net.pay(HOLDER, HOLDER + 1, 50_000)]);
    let pay = net.pay(HOLDER + 2, HOLDER + 1, 50_000);
    let input = net.input(net.state.earliest(), 0, vec![pay]);
    let (block, _) = build(&net.coins, &net.state, input).unwrap();
    net.judge(&block);
    const BAD: Hash = Hash([7; 32]);
    type Change = (&'static str, fn(&mut crate::types::block::Header));
    let changes: Vec<Change> = vec![
        ("version", |h| h.version = 2),
        ("branch", |h| h.branch = Branch(1)),
        ("era", |h| h.era = Era(1)),
        ("recovery_hash", |h| h.recovery_hash = BAD),
        ("height", |h| h.height = Height(9)),
        ("round", |h| h.round = Round(1)),
        ("time", |h| h.time = h.time.minus(1)),
        ("slot", |h| h.time = h.time.plus(5_000)),
        ("parent", |h| h.parent = BlockId(BAD)),
        ("proposer", |h| h.proposer = MasternodeId(BAD)),
        ("last_commit_hash", |h| h.last_commit_hash = BAD),
        ("tx_root", |h| h.tx_root = BAD),
        ("slot_root", |h| h.slot_root = BAD),
        ("validators_hash", |h| h.validators_hash = BAD),
        ("next_validators_hash", |h| h.next_validators_hash = BAD),
        ("state_root", |h| h.state_root = BAD),
        ("prev_slot_block", |h| h.prev_slot_block = BlockId(BAD)),
        ("history_root", |h| h.history_root = BAD),
    ];
    for (name, change) in changes {
        let mut other = block.clone();
        change(&mut other.header);
        assert!(
            apply(&net.coins, &net.state, &other).is_err(),
            "B5: a wrong {name} is refused"
        );
    }
}

#[test]
fn last_commit_is_a_quorum_of_the_parents_set() {
    let mut net = net();
    net.block(vec![net.pay(HOLDER, HOLDER + 1, 50_000)]);
    let pay = net.pay(HOLDER + 2, HOLDER + 1, 50_000);
    let (block, _) = build(
        &net.coins,
        &net.state,
        net.input(net.state.earliest(), 0, vec![pay]),
    )
    .unwrap();
    let with = |change: &dyn Fn(&mut crate::types::block::Commit)| {
        let mut other = block.clone();
        change(&mut other.last_commit);
        other.header.last_commit_hash = other.last_commit.hash();
        refused(&net, &other)
    };
    assert_eq!(
        with(&|c| *c = Default::default()),
        Invalid::LastCommit(crate::types::block::CommitError::Form)
    );
    assert!(matches!(
        with(&|c| {
            c.signers = crate::types::bitmap::Bitmap::from_ones(4, [0]);
            c.signatures = BoundedVec::take_from([c.signatures[0]]);
        }),
        Invalid::LastCommit(_)
    ));
    assert_eq!(
        with(&|c| c.at.era = Era(1)),
        Invalid::LastCommitRound,
        "S9: never of an era that has not begun"
    );
}

#[test]
fn an_empty_block_needs_a_reason() {
    let mut net = net();
    let input = net.input(net.state.earliest(), 0, vec![]);
    let empty = build(&net.coins, &net.state, input);
    assert_eq!(
        empty.unwrap_err(),
        BuildError::Invalid(Invalid::Empty),
        "S3"
    );
    let early = net.input(net.state.tip.time, 1, vec![]);
    let early = build(&net.coins, &net.state, early).unwrap_err();
    assert!(
        matches!(early, BuildError::Invalid(Invalid::Time { .. })),
        "S4"
    );
    net.block(vec![]);
    assert_eq!(
        net.state.height(),
        Height(1),
        "S3: valid if header.round > 0"
    );
    let mut other = net.input(net.state.earliest(), 1, vec![]);
    other.proposer = net.state.leader(Round(0));
    assert!(
        build(&net.coins, &net.state, other).is_err(),
        "B4: the leader of its round"
    );
}

#[test]
fn what_a_transaction_must_not_do() {
    let net = net();
    let coin = net.coins_of(HOLDER)[0];
    let time = coin.1.value.0;
    let tx = |outputs: Vec<TxOutput>, inputs: &[(OutPoint, TxOutput)], memo: usize| {
        net.sign(
            TxKind::Transfer,
            HOLDER,
            inputs,
            outputs,
            vec![0; memo],
            &[],
        )
    };
    let verdict = |tx: &Tx| {
        let checked = crate::ledger::check::check_form(tx, net.state.params(), net.state.limits());
        checked
            .map_err(crate::ledger::check::SpendError::Tx)
            .and_then(|()| {
                crate::ledger::check::check_spend(tx, &net.coins, &net.state).map(|spend| spend.fee)
            })
    };
    let error = |tx: &Tx| match verdict(tx) {
        Err(crate::ledger::check::SpendError::Tx(error)) => error,
        other => panic!("{other:?}"),
    };
    let to = |value| vec![output(HOLDER + 1, value)];
    assert_eq!(verdict(&tx(to(time - 500), &[coin], 80)), Ok(Amount(500)));
    assert!(
        matches!(error(&tx(to(time), &[coin], 0)), TxError::Fee { .. }),
        "L8"
    );
    assert!(matches!(
        error(&tx(to(time + 1), &[coin], 0)),
        TxError::Overspent { .. }
    ));
    assert!(
        matches!(error(&tx(to(999), &[coin], 0)), TxError::Dust { .. }),
        "L8"
    );
    assert_eq!(error(&tx(to(5_000), &[], 0)), TxError::NoInputs, "L5");
    assert_eq!(
        error(&tx(to(5_000), &[coin, coin], 0)),
        TxError::InputTwice(coin.0),
        "L5"
    );
    assert_eq!(
        error(&tx(to(5_000), &[coin], 81)),
        TxError::Payload(TxKind::Transfer),
        "L5"
    );
    let mut other = tx(to(5_000), &[coin], 0).transaction.clone();
    other.body.version = 2;
    assert_eq!(error(&Tx::new(other.clone())), TxError::Version(2), "L3");
    other.body.version = TX_VERSION;
    other.body.kind = TxKind::Coinbase;
    assert_eq!(error(&Tx::new(other)), TxError::Kind(TxKind::Coinbase));
    let exact = |size| crate::ledger::check::min_fee(size, net.state.params()).0;
    assert_eq!(
        [exact(1), exact(1_000), exact(1_001)],
        [1, 1_000, 1_001],
        "L8: rounded up"
    );
}

#[test]
fn policies_unlock_with_exactly_their_signatures() {
    use crate::types::address::Policy;
    let mut net = net();
    let mut numbers = [71, 72, 73];
    numbers.sort_by_key(|n| key(*n).public());
    let policy = Policy {
        threshold: 2,
        keys: BoundedVec::take_from(numbers.map(|n| key(n).public())),
    };
    let locked = TxOutput {
        value: Amount(1_000_000),
        program: policy.program(),
    };
    let fund = net.spend(TxKind::Transfer, HOLDER, locked, vec![], &[]);
    let coin = (fund.outpoint(0), locked);
    net.block(vec![fund]);
    let plain = net.sign(
        TxKind::Transfer,
        71,
        &[coin],
        vec![output(5, 900_000)],
        vec![],
        &[],
    );
    let message = plain
        .body()
        .signature_hash(net.state.chain_id(), Branch(0), &[locked]);
    let with = |indexes: &[u8]| {
        let signatures = indexes.iter().map(|i| KeySignature {
            index: *i,
            signature: key(numbers[usize::from(*i).min(2)]).sign(&message),
        });
        let mut tx = plain.transaction.clone();
        tx.witnesses = BoundedVec::take_from([Witness::Policy {
            policy: policy.clone(),
            signatures: BoundedVec::take_from(signatures),
        }]);
        Tx::new(tx)
    };
    let form =
        |tx: &Tx| crate::ledger::check::check_form(tx, net.state.params(), net.state.limits());
    for bad in [&[0][..], &[0, 1, 2], &[1, 0], &[0, 0], &[0, 3]] {
        assert_eq!(form(&with(bad)), Err(TxError::Witness(0)), "L3: {bad:?}");
    }
    let wrong = crate::ledger::check::check_spend(&plain, &net.coins, &net.state);
    assert!(wrong.is_err(), "a key does not unlock a policy");
    net.block(vec![with(&[0, 2])]);
    assert_eq!(net.coins_of(5).len(), 1);
}

#[test]
fn judging_changes_nothing_and_undo_restores_everything() {
    let mut net = net();
    let mut history = vec![];
    for i in 0..12 {
        let before = (net.state.clone(), net.coins.clone());
        let pay = net.pay(HOLDER + i % 4, HOLDER + 20 + i, 77_000 + i);
        let (block, delta) = if i % 3 == 2 {
            net.slot_block(vec![pay])
        } else {
            net.block(vec![pay])
        };
        assert_eq!(
            before.0.root(),
            history
                .last()
                .map_or(before.0.root(), |(_, _, d): &(State, _, Delta)| d
                    .after
                    .root())
        );
        history.push((before.0, before.1, delta));
        assert_eq!(
            block.header.state_root,
            net.state.root(),
            "L11: after the block"
        );
    }
    for (state, coins, delta) in history.into_iter().rev() {
        let bytes = codec::encode(&delta.undo);
        let undo: crate::ledger::undo::Undo = codec::decode(&bytes, bytes.len()).unwrap();
        let restored = undo.restore(&net.state).unwrap();
        assert_eq!(restored, state, "L12: the state before");
        assert_eq!(restored.root(), state.root());
        for (outpoint, _) in &undo.created {
            net.coins.0.remove(outpoint);
        }
        net.coins.0.extend(undo.spent.iter().copied());
        assert_eq!(net.coins, coins, "L12: the coins before");
        assert!(undo.restore(&restored).is_none(), "undo of another height");
        net.state = restored;
    }
}

#[test]
fn a_stored_state_reads_back() {
    let mut net = net();
    let mut stored: std::collections::BTreeMap<Part, Vec<u8>> =
        net.state.parts(None).into_iter().collect();
    assert_eq!(stored.len(), Part::ALL.len());
    for i in 0..5 {
        let before = net.state.clone();
        let pay = net.pay(HOLDER, HOLDER + 5, 50_000);
        if i == 3 {
            net.slot_block(vec![pay]);
        } else {
            net.block(vec![pay]);
        }
        stored.extend(net.state.parts(Some(&before)));
        let buckets = (0..=255)
            .map(|i| net.state.utxo.bucket(i).clone())
            .collect();
        let read = State::from_parts(&net.genesis, |p| stored.get(&p).cloned(), buckets).unwrap();
        assert_eq!(read, net.state);
        assert_eq!(read.root(), net.state.root());
    }
    assert!(State::from_parts(&net.genesis, |_| None, vec![]).is_err());
}

#[test]
fn an_overlay_shows_decided_blocks_over_the_disk() {
    let mut net = net();
    let disk = net.coins.clone();
    let mut deltas = vec![];
    for i in 0..4 {
        let pay = net.pay(HOLDER + i, HOLDER + 50, 60_000);
        deltas.push(Arc::new(net.block(vec![pay]).1));
    }
    let overlay = Overlay::new(&disk, &deltas);
    for outpoint in disk.0.keys().chain(net.coins.0.keys()) {
        assert_eq!(overlay.coin(outpoint), net.coins.coin(outpoint));
    }
}

#[test]
fn history_root_is_the_range_over_all_block_ids() {
    use crate::crypto::merkle::HISTORY_TREE;
    let mut net = net();
    let mut ids = vec![net.genesis.block_id()];
    for _ in 0..6 {
        let (block, _) = net.block(vec![]);
        let leaves: Vec<Hash> = ids.iter().map(|id| HISTORY_TREE.leaf(&[&id.0.0])).collect();
        assert_eq!(
            block.header.history_root,
            HISTORY_TREE.root(&leaves),
            "L13, L14"
        );
        assert_eq!(
            block.header.prev_slot_block, ids[0],
            "L14: genesis counts as a slot block"
        );
        ids.push(block.id());
    }
}

#[test]
fn a_commit_is_never_of_a_round_before_the_parents_first_proposal() {
    let mut net = net();
    net.block(vec![]);
    let mut input = net.input(net.state.earliest(), 1, vec![]);
    input.last_commit.at.round = Round(0);
    let early = build(&net.coins, &net.state, input).unwrap_err();
    assert_eq!(
        early,
        BuildError::Invalid(Invalid::LastCommitRound),
        "B5: a certificate's round is >= header.round"
    );
}
