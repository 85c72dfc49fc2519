//! The ledger store against real blocks: what is committed is read back, all or nothing, over crashes and bad directories.

use super::env::{DATA_FILE, Env, Options, Table};
use super::schema::*;
use super::testing::TempDir;
use super::*;
use crate::ledger::apply::Delta;
use crate::ledger::coins::{CoinView, MemoryCoins};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::testkit::{HOLDER, Net, genesis, program};
use crate::types::block::{Block, Certificate};
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const MAP: usize = 1 << 30;
const COLLATERALS: [u64; 4] = [1_000; 4];

pub(super) fn small_genesis() -> Genesis {
    genesis(&COLLATERALS, 6)
}

pub(super) fn decide(net: &Net, block: Block, delta: Delta) -> DecidedBlock {
    let set = &net.state.last_validators;
    let certificate = Certificate {
        height: block.header.height,
        block: block.id(),
        commit: net.commit_of(&block, set, net.state.tip.last_branch),
    };
    DecidedBlock {
        block: Arc::new(block),
        certificate,
        delta: Arc::new(delta),
    }
}

/// The next `count` blocks of `net`: payments among its holders, now and then a slot block.
pub(super) fn blocks(net: &mut Net, count: u64) -> Vec<DecidedBlock> {
    (0..count)
        .map(|_| {
            let h = net.state.height().0;
            let pay = |i: u64| {
                net.pay(
                    HOLDER + (h + i) % 6,
                    HOLDER + (h + i + 1) % 6,
                    1_000_000 + h,
                )
            };
            let payments = vec![pay(0), pay(2)];
            let (block, delta) = if h % 5 == 4 {
                net.slot_block(payments)
            } else {
                net.block(payments)
            };
            decide(net, block, delta)
        })
        .collect()
}

pub(super) fn open(dir: &Path) -> LedgerStore {
    LedgerStore::open(dir, MAP, &small_genesis()).unwrap()
}

/// All coins on disk, read in pages of seven.
fn all_coins(store: &LedgerStore) -> MemoryCoins {
    let view = store.snapshot().unwrap();
    let (mut out, mut after) = (MemoryCoins::default(), None);
    loop {
        let page = view.coins(after, 7).unwrap();
        let Some((last, _)) = page.last() else {
            return out;
        };
        after = Some(*last);
        out.0.extend(page);
    }
}

fn assert_holds(store: &LedgerStore, net: &Net, all: &[DecidedBlock]) {
    assert_eq!(store.state(), net.state, "the state is the one apply made");
    assert_eq!(
        all_coins(store),
        net.coins,
        "the coins are those apply left"
    );
    let view = store.snapshot().unwrap();
    assert_eq!(
        view.state(&net.genesis).unwrap(),
        net.state,
        "read again from its parts"
    );
    for decided in all {
        let height = decided.block.header.height;
        assert_eq!(view.block(height).unwrap().as_ref(), Some(&decided.block));
        assert_eq!(
            view.header(height).unwrap().as_ref(),
            Some(&decided.block.header)
        );
        assert_eq!(
            view.certificate(height).unwrap().as_ref(),
            Some(&decided.certificate)
        );
        assert_eq!(view.height_of(&decided.block.id()).unwrap(), Some(height));
        assert_eq!(view.block_id(height).unwrap(), Some(decided.block.id()));
        assert_eq!(
            view.undo(height).unwrap().as_ref(),
            Some(&decided.delta.undo)
        );
        for (i, tx) in (0u32..).zip(decided.block.transactions.iter()) {
            assert_eq!(view.tx(&tx.txid).unwrap(), Some((height, i)));
        }
    }
}

#[test]
fn a_new_ledger_is_the_genesis() {
    let dir = TempDir::new("store-new");
    let net = Net::new(small_genesis());
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!((store.tip(), store.state()), (Height(0), net.state.clone()));
        assert_holds(&store, &net, &[]);
        assert_eq!(
            store.block(Height(0)).unwrap(),
            None,
            "L14: genesis has no header"
        );
        assert_eq!(
            store.block_id(Height(0)).unwrap(),
            Some(net.genesis.block_id())
        );
        assert_eq!(
            store.height_of(&net.genesis.block_id()).unwrap(),
            Some(Height(0))
        );
    }
}

#[test]
fn blocks_come_back_as_they_were_committed_and_after_a_restart() {
    let dir = TempDir::new("store-blocks");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 12);
    let store = open(dir.path());
    store.commit(&all[..1]).unwrap();
    store.commit(&all[1..9]).unwrap();
    store.commit(&[]).unwrap();
    store.commit(&all[9..]).unwrap();
    assert_holds(&store, &net, &all);
    let ids = store.history(Height(0), 5).unwrap();
    assert_eq!((ids.len(), ids[0]), (5, net.genesis.block_id()));
    assert_eq!(store.history(Height(11), 5).unwrap().len(), 2);
    drop(store);
    assert_holds(&open(dir.path()), &net, &all);
}

#[test]
fn grouping_blocks_makes_no_difference() {
    let (one, many) = (TempDir::new("store-one"), TempDir::new("store-many"));
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 10);
    let (a, b) = (open(one.path()), open(many.path()));
    for decided in &all {
        a.commit(std::slice::from_ref(decided)).unwrap();
    }
    b.commit(&all).unwrap();
    assert_eq!(a.state(), b.state());
    assert_eq!(
        all_coins(&a),
        all_coins(&b),
        "S5: several blocks may share a transaction"
    );
    assert_eq!(a.stats().unwrap().entries, b.stats().unwrap().entries);
}

#[test]
fn coins_made_and_spent_within_a_batch_never_touch_the_disk() {
    let dir = TempDir::new("store-net");
    let mut net = Net::new(genesis(&COLLATERALS, 1));
    let all: Vec<_> = (0..4)
        .map(|_| {
            // The change of each payment pays the next one.
            let payment = net.pay(HOLDER, HOLDER, 1_000_000_000);
            let (block, delta) = net.block(vec![payment]);
            decide(&net, block, delta)
        })
        .collect();
    let made: usize = all.iter().map(|d| d.delta.created.len()).sum();
    let store = LedgerStore::open(dir.path(), MAP, &net.genesis).unwrap();
    store.commit(&all).unwrap();
    assert_eq!(made, 8);
    assert_holds(&store, &net, &all);
    let undone: usize = all.iter().map(|d| d.delta.undo.created.len()).sum();
    assert_eq!(undone, 8, "each block can still be taken back alone");
}

#[test]
fn a_failing_batch_changes_nothing() {
    let dir = TempDir::new("store-failing");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 4);
    let store = open(dir.path());
    let refused = |batch: &[DecidedBlock]| {
        let error = store.commit(batch).unwrap_err();
        assert_eq!(store.tip(), Height(0));
        assert_holds(&store, &Net::new(small_genesis()), &[]);
        error.exit_code()
    };
    assert_eq!(refused(&all[1..]), 70, "a gap");
    assert_eq!(
        refused(&[all[0].clone(), all[2].clone()]),
        70,
        "a gap inside"
    );
    let mut other = all.clone();
    other[3].certificate = all[2].certificate.clone();
    assert_eq!(refused(&other), 70, "a certificate of another block");
    // A delta that spends what is not there, after good blocks: the double spend assertion.
    let mut twice = all.clone();
    let mut delta = Delta::clone(&all[3].delta);
    delta.spent.extend(all[0].delta.spent.iter().copied());
    twice[3].delta = Arc::new(delta);
    assert_eq!(refused(&twice), 65, "a coin spent twice");
    let mut again = all.clone();
    let mut delta = Delta::clone(&all[3].delta);
    let held = Net::new(small_genesis()).coins.0;
    delta
        .created
        .extend(held.first_key_value().map(|(o, c)| (*o, *c)));
    again[3].delta = Arc::new(delta);
    assert_eq!(refused(&again), 65, "a coin made that is there, or was");
    store.commit(&all).unwrap();
    assert_holds(&store, &net, &all);
}

#[test]
fn undo_takes_each_block_back_to_the_state_before_it() {
    let dir = TempDir::new("store-undo");
    let mut net = Net::new(small_genesis());
    let start = net.state.clone();
    let all = blocks(&mut net, 7);
    let store = open(dir.path());
    store.commit(&all).unwrap();
    let mut state = store.state();
    for decided in all.iter().rev() {
        let undo = store.undo(decided.block.header.height).unwrap().unwrap();
        state = undo
            .restore(&state)
            .expect("L12: undo fits the state after");
        let parent = Height(decided.block.header.height.0 - 1);
        assert_eq!(state.height(), parent);
        if let Some(header) = store.header(parent).unwrap() {
            assert_eq!(
                state.root(),
                header.state_root,
                "L11: the root of the block before"
            );
        }
    }
    assert_eq!(state, start);
}

#[test]
fn what_slot_blocks_did_is_read_back_with_the_order_it_means() {
    let dir = TempDir::new("store-slots");
    let mut net = Net::new(small_genesis());
    let mut all = Vec::new();
    for i in 0..6u64 {
        let register = (i == 2).then(|| net.register(9, HOLDER, 1_000));
        let (block, delta) = net.attested(&[], register.into_iter().collect());
        all.push(decide(&net, block, delta));
    }
    let store = open(dir.path());
    store.commit(&all[..4]).unwrap();
    store.commit(&all[4..]).unwrap();
    let outcomes = all.iter().filter_map(|d| d.delta.slot.as_deref());
    let outcomes: Vec<_> = outcomes.cloned().collect();
    assert_eq!(outcomes.len(), 6);
    assert_eq!(outcomes[2].order.len(), 4, "M4: the order of the base");
    assert_eq!(outcomes[3].order.len(), 5);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.slots(SlotIndex(0), 99).unwrap(), outcomes);
    assert_eq!(store.slots(SlotIndex(5), 1).unwrap(), outcomes[4..5]);
    let entries = store.stats().unwrap().entries;
    let of = |name| entries.iter().find(|(n, _)| *n == name).map(|(_, n)| *n);
    assert_eq!(
        (of("figures"), of("orders")),
        (Some(6), Some(2)),
        "an order is kept once"
    );
    assert!(store.slots(SlotIndex(7), 9).unwrap().is_empty());
}

#[test]
fn undo_is_kept_for_max_reorg_blocks() {
    let dir = TempDir::new("store-prune");
    let mut genesis = small_genesis();
    genesis.params.max_reorg = 3;
    let mut net = Net::new(genesis);
    let all = blocks(&mut net, 8);
    let store = LedgerStore::open(dir.path(), MAP, &net.genesis).unwrap();
    store.commit(&all[..6]).unwrap();
    store.commit(&all[6..]).unwrap();
    let kept: Vec<u64> = (0..10)
        .filter(|h| store.undo(Height(*h)).unwrap().is_some())
        .collect();
    assert_eq!(kept, [6, 7, 8], "L12: undo of the last max_reorg blocks");
}

#[test]
fn a_full_map_refuses_the_batch_and_loses_nothing() {
    let dir = TempDir::new("store-full");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 60);
    let small = 1_600_000;
    let store = LedgerStore::open(dir.path(), small, &net.genesis).unwrap();
    let mut done = 0;
    let error = loop {
        match store.commit(&all[done..done + 1]) {
            Ok(()) => done += 1,
            Err(e) => break e,
        }
    };
    assert!(error.is_full() && error.exit_code() == 74, "{error}");
    assert_eq!(store.tip(), Height(done as u64));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.tip(), Height(done as u64), "S5: nothing lost");
    store.commit(&all[done..]).unwrap();
    assert_holds(&store, &net, &all);
}

#[test]
fn foreign_newer_and_damaged_ledgers_are_told_apart() {
    let dir = TempDir::new("store-bad");
    drop(open(dir.path()));
    let other = LedgerStore::open(dir.path(), MAP, &genesis(&COLLATERALS, 7));
    let error = other.err().unwrap();
    assert!(
        matches!(error, StorageError::Foreign { .. }) && error.exit_code() == 78,
        "{error}"
    );
    let code = || {
        let error = LedgerStore::open(dir.path(), MAP, &small_genesis())
            .err()
            .unwrap();
        (error.exit_code(), error.to_string())
    };
    let newer = [LEDGER_MAGIC, (LEDGER_FORMAT + 1).to_le_bytes()].concat();
    let format = damage(dir.path(), META, META_FORMAT, &newer);
    assert_eq!(code().0, 78, "newer schema: refused");
    damage(dir.path(), META, META_FORMAT, &format);
    let bucket = damage(dir.path(), BUCKETS, &[9], &[1; 2_048]);
    assert!(
        code().0 == 65 && code().1.contains("timed db rebuild"),
        "L11: the root tells"
    );
    damage(dir.path(), BUCKETS, &[9], &bucket);
    let net = Net::new(small_genesis());
    let (outpoint, coin) = net.coins.0.iter().next().unwrap();
    damage(dir.path(), COINS, &outpoint_key(outpoint), &[]);
    assert_eq!(code().0, 65, "L10: a coin is missing");
    damage(
        dir.path(),
        COINS,
        &outpoint_key(outpoint),
        &codec::encode(coin),
    );
    drop(open(dir.path()));
    damage(dir.path(), META, META_FORMAT, &[]);
    assert_eq!(
        code().0,
        65,
        "a ledger without its format entry is never taken for an empty one"
    );
}

#[test]
fn a_ledger_of_format_1_gets_its_slot_headers_and_sets() {
    let dir = TempDir::new("store-upgrade");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 12);
    let store = open(dir.path());
    store.commit(&all).unwrap();
    let slots = |store: &LedgerStore| {
        let mut out = Vec::new();
        let view = store.snapshot().unwrap();
        let take = |header: crate::types::block::Header, certificate| {
            out.push((header, certificate));
            Ok(true)
        };
        view.slot_headers(Height(0), take).unwrap();
        out
    };
    let before = slots(&store);
    assert_eq!(before.len(), 2, "heights 5 and 10 are slot blocks");
    drop(store);
    for (header, _) in &before {
        damage(dir.path(), SLOTS, &height_key(header.height), &[]);
    }
    let set = net.state.validators_hash;
    damage(dir.path(), SETS, &set.0, &[]);
    let old = [LEDGER_MAGIC, 1u32.to_le_bytes()].concat();
    damage(dir.path(), META, META_FORMAT, &old);
    let store = open(dir.path());
    assert_eq!(slots(&store), before);
    let found = store.validator_set(&set).unwrap();
    assert_eq!(found.as_ref(), Some(&*net.state.validators));
}

/// Puts `value` under `key`, or removes the entry if `value` is empty and the entry is not. What was there.
fn damage(dir: &Path, table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let options = Options {
        map_size: MAP,
        tables: &LEDGER_TABLES,
    };
    let env = Env::open(dir, &options).unwrap();
    let old = env
        .read()
        .unwrap()
        .get(table, key)
        .unwrap()
        .map(<[u8]>::to_vec);
    let mut write = env.write().unwrap();
    match &old {
        Some(_) if value.is_empty() => assert!(write.delete(table, key).unwrap()),
        _ => write.put(table, key, value).unwrap(),
    }
    write.commit().unwrap();
    old.unwrap_or_default()
}

#[test]
fn a_copy_taken_between_commits_is_a_whole_ledger() {
    let dir = TempDir::new("store-copy");
    let mut net = Net::new(small_genesis());
    let live = dir.path().join("live");
    let store = open(&live);
    for n in 0..6u64 {
        let copy = dir.path().join(format!("copy{n}"));
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(live.join(DATA_FILE), copy.join(DATA_FILE)).unwrap();
        let found = open(&copy);
        assert_eq!(found.state(), net.state, "S5: what is committed is on disk");
        let mut again = Net::new(small_genesis());
        again.state = net.state.clone();
        again.coins = net.coins.clone();
        assert_holds(&found, &again, &[]);
        let next = blocks(&mut net, n + 1);
        store.commit(&next).unwrap();
    }
}

#[test]
fn an_unfinished_meta_page_falls_back_to_the_commit_before() {
    let dir = TempDir::new("store-torn");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 4);
    let store = open(dir.path());
    store.commit(&all[..2]).unwrap();
    drop(store);
    let data = dir.path().join(DATA_FILE);
    let before = std::fs::read(&data).unwrap();
    let store = open(dir.path());
    store.commit(&all[2..]).unwrap();
    drop(store);
    // As after a power cut before the meta pages were written: new data pages, old meta pages.
    let mut torn = std::fs::read(&data).unwrap();
    torn[..8_192].copy_from_slice(&before[..8_192]);
    std::fs::write(&data, &torn).unwrap();
    let store = open(dir.path());
    assert_eq!(store.tip(), Height(2));
    store.commit(&all[2..]).unwrap();
    assert_holds(&store, &net, &all);
}

#[test]
fn the_store_is_a_view_of_coins_for_other_threads() {
    let dir = TempDir::new("store-threads");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 6);
    let store = open(dir.path());
    let before = net.genesis.coins()[0].0;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                scope.spawn(move || {
                    while store.tip() < Height(6) {
                        let view = store.snapshot().unwrap();
                        let tip = view.tip().unwrap();
                        let id = view.block_id(tip.height).unwrap();
                        assert_eq!(id, Some(tip.block), "one moment, never a mixture");
                        let coins = view.coins(None, usize::MAX).unwrap();
                        assert_eq!(coins.len() as u64, tip.coin_count);
                        CoinView::coin(&store, &before).unwrap();
                    }
                })
            })
            .collect();
        for decided in &all {
            store.commit(std::slice::from_ref(decided)).unwrap();
        }
        readers.into_iter().for_each(|r| r.join().unwrap());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn pages_of_an_owner_join_to_all_its_coins(size in 1usize..9, height in 1u64..9) {
        let dir = TempDir::new("store-pages");
        let mut net = Net::new(small_genesis());
        let all = blocks(&mut net, height);
        let store = open(dir.path());
        store.commit(&all).unwrap();
        for holder in 0..7 {
            let program = program(HOLDER + holder);
            let (mut joined, mut after) = (Vec::new(), None);
            loop {
                let page = store.coins_of(&program, after, size).unwrap();
                prop_assert!(page.len() <= size);
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                joined.extend(page);
            }
            let all = net.coins.0.iter().filter(|(_, c)| c.output.program == program);
            let all: Vec<_> = all.map(|(o, c)| (*o, *c)).collect();
            prop_assert_eq!(joined, all, "every coin once, in order");
        }
    }
}

#[test]
fn verify_finds_what_opening_does_not_look_at() {
    let dir = TempDir::new("store-verify");
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 8);
    let store = open(dir.path());
    store.commit(&all).unwrap();
    let mut stages = Vec::new();
    let report = store.verify(&mut |stage, done, of| stages.push((stage, done, of)));
    let report = report.unwrap();
    assert_eq!(
        (report.height, report.transactions, report.undoable),
        (Height(8), 16, 8)
    );
    assert_eq!(report.coins, net.coins.0.len() as u64);
    assert!(stages.contains(&("blocks", 8, 8)) && stages.contains(&("undo", 8, 8)));
    drop(store);
    let txid = all[2].block.transactions[1].txid;
    let (outpoint, coin) = net.coins.0.iter().next().map(|(o, c)| (*o, *c)).unwrap();
    let mut richer = coin;
    richer.output.value = crate::types::amount::Amount(1);
    let block = codec::encode(&*all[3].block);
    let key = outpoint_key(&outpoint);
    let owner = owner_key(&coin.output.program, &outpoint);
    let damages: [(Table, Vec<u8>, Vec<u8>, &str); 7] = [
        (
            COINS,
            key.to_vec(),
            codec::encode(&richer),
            "a coin's value",
        ),
        (OWNERS, owner.to_vec(), vec![], "an owner entry"),
        (
            TXIDS,
            txid.0.0.to_vec(),
            position_value(Height(3), 0).to_vec(),
            "a position",
        ),
        (
            HISTORY,
            height_key(Height(2)).to_vec(),
            vec![3; 32],
            "an id",
        ),
        (BLOCKS, height_key(Height(2)).to_vec(), block, "a block"),
        (
            CERTIFICATES,
            height_key(Height(2)).to_vec(),
            codec::encode(&all[3].certificate),
            "a certificate",
        ),
        (
            UNDO,
            height_key(Height(2)).to_vec(),
            codec::encode(&all[3].delta.undo),
            "undo data",
        ),
    ];
    for (table, key, value, what) in damages {
        let old = damage(dir.path(), table, &key, &value);
        let store = LedgerStore::open(dir.path(), MAP, &small_genesis());
        let found = store.and_then(|store| store.verify(&mut |_, _, _| {}));
        assert_eq!(found.unwrap_err().exit_code(), 65, "{what} differs");
        damage(dir.path(), table, &key, &old);
    }
    open(dir.path()).verify(&mut |_, _, _| {}).unwrap();
}
