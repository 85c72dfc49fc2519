//! Snapshots and pruning against real blocks: what is loaded is the ledger that was, and what is pruned was not needed.

use super::snapshot::load_snapshot;
use super::testing::TempDir;
use super::tests::{blocks, decide, small_genesis};
use super::*;
use crate::base::bounded::BoundedVec;
use crate::crypto::verify::verify_all;
use crate::ledger::apply::{apply, build};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::testkit::{HOLDER, Net, OPERATOR, genesis};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const MAP: usize = 1 << 30;

fn open(dir: &Path, genesis: &Genesis) -> LedgerStore {
    LedgerStore::open(dir, MAP, genesis).unwrap()
}

fn snapshot(store: &LedgerStore, dir: &Path) -> SnapshotDir {
    let dir = SnapshotDir(dir.to_path_buf());
    store.make_snapshot(&dir, &AtomicBool::new(false)).unwrap();
    dir
}

/// A chain of 33 blocks, its ledger, and a snapshot of slot block 30.
fn made(dir: &TempDir) -> (Net, Vec<DecidedBlock>, SnapshotDir) {
    let mut net = Net::new(small_genesis());
    let all = blocks(&mut net, 33);
    let store = open(&dir.path().join("a"), &net.genesis);
    store.commit(&all).unwrap();
    let snapshot = snapshot(&store, &dir.path().join("snapshot"));
    (net, all, snapshot)
}

#[test]
fn a_ledger_made_of_a_snapshot_is_the_one_of_its_slot_block_and_goes_on() {
    let dir = TempDir::new("snap-round");
    let (net, all, from) = made(&dir);
    let to = dir.path().join("b");
    let loaded = load_snapshot(&from, &to, MAP, &net.genesis).unwrap();
    assert_eq!(loaded.slots.len(), 6, "every slot header comes along");
    let store = open(&to, &net.genesis);
    assert_eq!(
        store.tip(),
        Height(30),
        "the latest slot block below the tip"
    );
    assert_eq!(store.state(), all[29].delta.after, "F4");
    assert_eq!(store.base().unwrap(), Height(30));
    assert!(store.block(Height(30)).unwrap().is_none());
    let header = store.header(Height(25)).unwrap();
    assert_eq!(
        header.as_ref(),
        Some(&all[24].block.header),
        "slot headers stay"
    );
    store.verify(&mut |_, _, _| {}).unwrap();
    store.commit(&all[30..]).unwrap();
    assert_eq!(store.state(), net.state);
    let report = store.verify(&mut |_, _, _| {}).unwrap();
    assert_eq!(
        report.undoable, 3,
        "F4: undo reaches back to the snapshot only"
    );
    assert!(
        matches!(
            store.make_snapshot(&SnapshotDir(dir.path().join("c")), &AtomicBool::new(false)),
            Err(SnapshotFileError::NotNow(_))
        ),
        "its own slot block cannot be taken back from"
    );
}

/// M7: what evidence needs - keys, former keys, who was slashed when, which heights are young enough - is in the snapshot.
#[test]
fn evidence_burns_the_same_where_the_ledger_began_with_a_snapshot() {
    let dir = TempDir::new("snap-evidence");
    let mut net = Net::new(genesis(&[1_000, 2_000, 3_000, 4_000, 5_000], 6));
    let mut all = blocks(&mut net, 4);
    let punish = |net: &mut Net, i: u64, signer: u64, height: u64| {
        let evidence = net.double_vote(net.id(i as usize), signer, Height(height));
        let (block, delta) = net.punish(vec![evidence]);
        assert_eq!(block.slot_part.evidence.len(), 1, "M7: it is valid");
        decide(net, block, delta)
    };
    all.push(punish(&mut net, 0, OPERATOR, 2));
    all.extend(blocks(&mut net, 4));
    let update = net.update(1, HOLDER, net.id(1), Some(OPERATOR + 500));
    let (block, delta) = net.slot_block(vec![update]);
    all.push(decide(&net, block, delta));
    all.extend(blocks(&mut net, 3));
    let first = open(&dir.path().join("a"), &net.genesis);
    first.commit(&all).unwrap();
    let from = snapshot(&first, &dir.path().join("snapshot"));
    let to = dir.path().join("b");
    load_snapshot(&from, &to, MAP, &net.genesis).unwrap();
    let second = open(&to, &net.genesis);
    assert_eq!(second.tip(), Height(10), "after the first slashing");
    second.commit(&all[10..]).unwrap();

    // By the key that was replaced before the snapshot, about a height below it; the first offender's burn is raised with it.
    let evidence = net.double_vote(net.id(1), OPERATOR + 1, Height(3));
    let before = net.state.registry().get(&net.id(0)).unwrap().burned;
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part.evidence = BoundedVec::take_from([evidence.clone()]);
    let state = second.state();
    let (block, built) = build(&net.coins, &state, input.clone()).unwrap();
    assert_eq!(block.slot_part.evidence.len(), 1, "M7: it proposes it");
    let judged = apply(&net.coins, &state, &block).unwrap();
    assert!(verify_all(&judged.other_checks));
    let (same, delta) = net.punish(vec![evidence.clone()]);
    assert_eq!(same, block);
    assert_eq!(delta.after, judged.delta.after);
    assert_eq!(delta.after, built.after);
    let entry = |i: usize| net.state.registry().get(&net.id(i)).unwrap();
    assert!(entry(0).burned > before, "M7: brought up to the share");
    let decided = decide(&net, block, delta);
    for store in [&first, &second] {
        store.commit(std::slice::from_ref(&decided)).unwrap();
        store.verify(&mut |_, _, _| {}).unwrap();
    }
    assert_eq!(first.state(), second.state());
    input.time = net.next_slot();
    input.last_commit = net.last_commit();
    input.proposer = net.state.leader(Round(0));
    let (again, _) = build(&net.coins, &second.state(), input).unwrap();
    assert!(again.slot_part.evidence.is_empty(), "M7: once in a life");
}

#[test]
fn a_snapshot_with_anything_changed_is_refused() {
    let dir = TempDir::new("snap-lies");
    let (net, _, from) = made(&dir);
    let names: Vec<_> = std::fs::read_dir(&from.0).unwrap().flatten().collect();
    let mut tried = 0;
    for entry in names {
        let path = entry.path();
        let whole = std::fs::read(&path).unwrap();
        if whole.is_empty() {
            continue;
        }
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let to = dir.path().join("b");
            let loaded = load_snapshot(&from, &to, MAP, &net.genesis);
            assert!(loaded.is_err(), "F4: {} byte {at}", path.display());
            assert!(!to.exists(), "nothing is there until all of it is right");
            tried += 1;
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(tried > 10);
    let other = genesis(&[1_000; 4], 7);
    let to = dir.path().join("b");
    assert!(
        load_snapshot(&from, &to, MAP, &other).is_err(),
        "of another chain"
    );
    load_snapshot(&from, &to, MAP, &net.genesis).unwrap();
}

#[test]
fn pruning_keeps_what_undo_and_slot_headers_need_and_nothing_else() {
    let dir = TempDir::new("prune");
    let mut genesis = small_genesis();
    genesis.params.max_reorg = 6;
    let mut net = Net::new(genesis);
    let all = blocks(&mut net, 40);
    let store = open(dir.path(), &net.genesis);
    store.commit(&all[..30]).unwrap();
    assert_eq!(store.base().unwrap(), Height(0), "nothing goes unasked");
    store.retain(Retention {
        blocks: 2,
        bytes: 0,
    });
    assert_eq!(store.prune(7).unwrap(), 7, "in pieces");
    while store.prune(100).unwrap() > 0 {}
    assert_eq!(store.base().unwrap(), Height(24), "L12: undo needs 6");
    store.verify(&mut |_, _, _| {}).unwrap();
    for height in 1..=24 {
        let slot = height % 5 == 0;
        assert!(store.block(Height(height)).unwrap().is_none());
        assert_eq!(store.header(Height(height)).unwrap().is_some(), slot, "F6");
        assert_eq!(store.certificate(Height(height)).unwrap().is_some(), slot);
        assert_eq!(store.block_id(Height(height)).unwrap().is_some(), slot);
    }
    let gone = &all[20].block.transactions[0];
    assert_eq!(store.tx(&gone.txid).unwrap(), None);
    store.keep_above(Height(27));
    for decided in &all[30..] {
        store.commit(std::slice::from_ref(decided)).unwrap();
    }
    assert_eq!(
        store.base().unwrap(),
        Height(27),
        "blocks above a snapshot that is served stay"
    );
    assert_eq!(store.state(), net.state);
    store.verify(&mut |_, _, _| {}).unwrap();
    drop(store);
    assert_eq!(open(dir.path(), &net.genesis).state(), net.state);
}

#[test]
fn a_bound_in_bytes_keeps_the_file_from_growing() {
    let dir = TempDir::new("prune-bytes");
    let mut genesis = small_genesis();
    genesis.params.max_reorg = 4;
    let mut net = Net::new(genesis);
    let store = open(dir.path(), &net.genesis);
    store.retain(Retention {
        blocks: 0,
        bytes: 64 << 10,
    });
    let mut sizes = Vec::new();
    for _ in 0..20 {
        for decided in blocks(&mut net, 20) {
            store.commit(&[decided]).unwrap();
        }
        sizes.push(store.stats().unwrap().env.file_size);
    }
    assert!(store.base().unwrap() > Height(200));
    let (early, late) = (sizes[9], sizes[19]);
    assert!(
        late < early + early / 2,
        "F6: pages are used again: {early} then {late} bytes"
    );
}
