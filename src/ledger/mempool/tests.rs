//! Rules of section 5 and B2 as stories.

use super::testkit::*;
use super::*;
use crate::base::bounded::BoundedVec;
use crate::crypto::hash::Hash;
use crate::types::transaction::*;

#[test]
fn first_seen_reserves_the_outpoint_and_the_refusal_names_both() {
    let mut world = roomy();
    let (first, second) = (simple(1, 5_000), simple(1, 90_000));
    world.admit(0, &first, Source::Local).unwrap();
    let refusal = world.admit(0, &second, Source::Peer(1)).unwrap_err();
    let outpoint = base(1);
    let expected = Refusal::Conflict {
        outpoint,
        first: first.clone(),
        second: second.clone(),
    };
    assert_eq!(refusal, expected, "section 5: whatever it pays");
    assert_eq!(world.consider(0, &first, Source::Peer(1)), Admission::Known);
    assert_eq!(world.mempool.spender(&base(1)), Some(&first));
}

#[test]
fn a_conflict_that_arrives_while_signatures_are_checked_is_refused_at_admission() {
    let mut world = roomy();
    let (first, second) = (simple(1, 5_000), simple(1, 90_000));
    let check = |a: Admission| match a {
        Admission::Check { checks, .. } => checks,
        other => panic!("{other:?}"),
    };
    let slow = check(world.consider(0, &second, Source::Local));
    world.admit(0, &first, Source::Local).unwrap();
    let late = Verified::check(second, &slow).unwrap();
    let outcome = world
        .mempool
        .admit(now(1), late, Source::Local, &world.coins, &world.state);
    let conflict = matches!(
        outcome,
        Err(AdmitError::Refused {
            refusal: Refusal::Conflict { .. },
            ..
        })
    );
    assert!(conflict, "admission checks again what may have changed");
    world.mempool.pool.assert_true();
}

#[test]
fn bad_witnesses_do_not_shut_out_the_same_transaction_with_good_ones() {
    let mut world = roomy();
    let good = simple(1, 5_000);
    let mut forged = good.transaction.clone();
    forged.witnesses =
        BoundedVec::take_from([Witness::Key(crate::crypto::keys::Signature([1; 64]))]);
    let forged = Tx::new(forged);
    let Admission::Check { checks, .. } = world.consider(0, &forged, Source::Peer(1)) else {
        panic!("form and coins are in order");
    };
    assert!(Verified::check(forged.clone(), &checks).is_err());
    world.mempool.reject(forged.wtxid);
    assert_eq!(
        world.consider(0, &forged, Source::Peer(2)),
        Admission::Refused(Refusal::RejectedBefore)
    );
    world.admit(0, &good, Source::Peer(2)).unwrap();
    assert!(world.mempool.is_verified(&good.wtxid), "L4: by wtxid");
    assert!(world.mempool.is_rejected(&forged.wtxid));
}

#[test]
fn an_orphan_waits_for_its_parent_and_is_handed_back() {
    let mut world = roomy();
    let parent = simple(1, 5_000);
    let child = spend(&[coin_of(&parent, 0)], 1, 5_000);
    let missing = vec![parent.outpoint(0)];
    let orphan = Admission::Orphan { missing };
    assert_eq!(world.consider(0, &child, Source::Local), orphan);
    assert_eq!(
        world.mempool.orphan_len(),
        0,
        "what a user sends is answered at once"
    );
    assert_eq!(world.consider(0, &child, Source::Peer(3)), orphan);
    assert_eq!(world.consider(0, &child, Source::Peer(4)), Admission::Known);
    let admitted = world.admit(0, &parent, Source::Peer(4)).unwrap();
    assert_eq!(
        admitted.orphans_now_ready,
        vec![(child.clone(), Source::Peer(3))]
    );
    world.admit(0, &child, Source::Peer(3)).unwrap();
    assert_eq!(world.mempool.select(ALL), vec![parent, child]);
}

#[test]
fn orphans_are_bounded_by_count_and_time_and_the_oldest_goes() {
    let mut world = roomy();
    let orphan = |i: u64| {
        let txid = Txid(Hash([200; 32]));
        let vout = 1 + i as u32;
        spend(&[(OutPoint { txid, vout }, COIN)], 1, 5_000)
    };
    for i in 0..=ORPHAN_COUNT_MAX as u64 {
        world.consider(i, &orphan(i), Source::Peer(1));
    }
    assert_eq!(world.mempool.orphan_len(), ORPHAN_COUNT_MAX);
    assert!(!world.mempool.has_seen(&orphan(0).wtxid), "B2: drop oldest");
    let due = world.mempool.next_expiry().unwrap();
    assert_eq!(due, now(1).mono.plus_ms(ORPHAN_EXPIRY_MS));
    world.mempool.expire(now(ORPHAN_EXPIRY_MS + 1));
    assert_eq!(world.mempool.orphan_len(), ORPHAN_COUNT_MAX - 1);
    world.mempool.expire(now(2 * ORPHAN_EXPIRY_MS));
    assert_eq!(
        (world.mempool.orphan_len(), world.mempool.next_expiry()),
        (0, None)
    );
}

#[test]
fn a_decided_block_removes_what_it_holds_and_conflicts_with_children_too() {
    let mut world = roomy();
    let kept = simple(1, 5_000);
    let included = simple(2, 5_000);
    let grandchild_stays = spend(&[coin_of(&included, 0)], 1, 5_000);
    let loser = simple(3, 5_000);
    let child = spend(&[coin_of(&loser, 0), (base(4), COIN)], 1, 5_000);
    for tx in [&kept, &included, &grandchild_stays, &loser, &child] {
        world.admit(0, tx, Source::Local).unwrap();
    }
    let winner = simple(3, 700_000);
    let settled = world.decide(vec![included.clone(), winner.clone()]);
    let by = winner.txid;
    let why: Vec<_> = settled
        .departed
        .iter()
        .map(|d| (d.tx.txid, d.why))
        .collect();
    let expected = vec![
        (included.txid, Departure::Included),
        (loser.txid, Departure::Conflicted { by }),
        (child.txid, Departure::Conflicted { by }),
    ];
    assert_eq!(why, expected, "section 5: exactly conflicts and children");
    assert_eq!(
        world.mempool.departure(&child.txid),
        Some(Departure::Conflicted { by })
    );
    assert!(
        world.mempool.spender(&base(4)).is_none(),
        "its coin is free again"
    );
    assert_eq!(world.mempool.select(ALL), vec![kept, grandchild_stays]);
    assert_eq!(
        world.consider(1, &loser, Source::Peer(1)),
        Admission::Refused(Refusal::SpentByDecided { by })
    );
    assert_eq!(
        world.consider(1, &included, Source::Peer(1)),
        Admission::Known
    );
    assert!(
        world.mempool.has_seen(&included.wtxid) && world.mempool.has_seen(&winner.wtxid),
        "a late inventory does not fetch what is decided"
    );
}

#[test]
fn a_block_that_brings_the_parent_frees_the_orphan() {
    let mut world = roomy();
    let parent = simple(1, 5_000);
    let child = spend(&[coin_of(&parent, 0)], 1, 5_000);
    world.consider(0, &child, Source::Peer(3));
    let settled = world.decide(vec![parent]);
    assert_eq!(
        settled.orphans_now_ready,
        vec![(child.clone(), Source::Peer(3))]
    );
    world.admit(1, &child, Source::Peer(3)).unwrap();
}

#[test]
fn chains_end_at_25_ancestors_and_101_kb() {
    let mut world = roomy();
    let mut last = simple(1, 5_000);
    world.admit(0, &last, Source::Local).unwrap();
    for _ in 0..ANCESTOR_COUNT_MAX {
        last = spend(&[coin_of(&last, 0)], 1, 5_000);
        world.admit(0, &last, Source::Local).unwrap();
    }
    let deep = spend(&[coin_of(&last, 0)], 1, 5_000);
    assert_eq!(world.admit(0, &deep, Source::Local), Err(Refusal::TooDeep));
    let wide = spend(&[(base(9), COIN)], 1_000, 100_000);
    assert!(wide.size > ANCESTOR_BYTES_MAX / 3);
    let mut tip = wide.clone();
    world.admit(0, &wide, Source::Local).unwrap();
    let outcome = loop {
        let (outpoint, value) = coin_of(&tip, 0);
        tip = spend(&[(outpoint, value), (base(10), COIN)], 900, 100_000);
        if let Err(refusal) = world.admit(0, &tip, Source::Local) {
            break refusal;
        }
        let taken = world.mempool.spender(&base(10)).cloned();
        world.coins.0.insert(base(10), coin(COIN));
        assert_eq!(taken.as_ref(), Some(&tip));
        tip = spend(&[coin_of(&tip, 0)], 900, 100_000);
        if let Err(refusal) = world.admit(0, &tip, Source::Local) {
            break refusal;
        }
    };
    assert_eq!(outcome, Refusal::TooDeep, "B2: 101 kB with ancestors");
}

#[test]
fn a_full_mempool_evicts_the_lowest_rate_and_of_equals_the_newest() {
    let mut world = World::new(MempoolLimits {
        count: 3,
        bytes: 1 << 20,
    });
    let [a, b, c] = [simple(1, 5_000), simple(2, 4_000), simple(3, 4_000)];
    for tx in [&a, &b, &c] {
        world.admit(0, tx, Source::Local).unwrap();
    }
    assert_eq!(
        world.admit(0, &simple(4, 4_000), Source::Local),
        Err(Refusal::Full),
        "newest first: equal rates never push out older ones"
    );
    let admitted = world.admit(0, &simple(5, 4_001), Source::Local).unwrap();
    let why = Departure::Evicted;
    assert_eq!(admitted.evicted, vec![Departed { tx: c.clone(), why }]);
    assert_eq!(world.mempool.departure(&c.txid), Some(Departure::Evicted));
    world.admit(9, &simple(6, 6_000), Source::Local).unwrap();
    assert_eq!(world.mempool.departure(&b.txid), Some(Departure::Evicted));
    assert_eq!(world.mempool.len(), 3, "B2: the bound holds");
    assert!(world.mempool.get(&a.txid).is_some());
}

#[test]
fn a_rich_child_keeps_its_parent_and_a_poor_parent_goes_with_its_children() {
    let mut world = World::new(MempoolLimits {
        count: 3,
        bytes: 1 << 20,
    });
    let parent = simple(1, 300);
    let child = spend(&[coin_of(&parent, 0)], 1, 90_000);
    let other = simple(2, 2_000);
    for tx in [&parent, &child, &other] {
        world.admit(0, tx, Source::Local).unwrap();
    }
    world.admit(0, &simple(3, 3_000), Source::Local).unwrap();
    assert!(world.mempool.get(&parent.txid).is_some(), "its child pays");
    assert!(world.mempool.get(&other.txid).is_none());
    let rich = simple(4, 900_000);
    world.admit(0, &rich, Source::Local).unwrap();
    let richer = simple(5, 900_000);
    let admitted = world.admit(0, &richer, Source::Local).unwrap();
    let gone: Vec<_> = admitted.evicted.iter().map(|d| d.tx.txid).collect();
    assert_eq!(gone, vec![parent.txid, child.txid], "never a child alone");
}

#[test]
fn a_peer_has_an_eighth_and_evicts_its_own() {
    let mut world = World::new(MempoolLimits {
        count: 16,
        bytes: 1 << 20,
    });
    let (a, b) = (simple(1, 5_000), simple(2, 4_000));
    world.admit(0, &a, Source::Peer(1)).unwrap();
    world.admit(0, &b, Source::Peer(1)).unwrap();
    assert_eq!(
        world.admit(0, &simple(3, 3_000), Source::Peer(1)),
        Err(Refusal::PeerShare)
    );
    world.admit(0, &simple(4, 300), Source::Peer(2)).unwrap();
    let admitted = world.admit(0, &simple(5, 4_500), Source::Peer(1)).unwrap();
    let why = Departure::Evicted;
    assert_eq!(
        admitted.evicted,
        vec![Departed { tx: b, why }],
        "B2: its own lowest rate, not another peer's"
    );
}

#[test]
fn transactions_expire_with_their_children_and_the_file_keeps_their_age() {
    let mut world = roomy();
    let parent = simple(1, 5_000);
    let child = spend(&[coin_of(&parent, 0)], 1, 5_000);
    world.admit(0, &parent, Source::Local).unwrap();
    world.admit(1_000, &child, Source::Local).unwrap();
    let chain = genesis().chain_id();
    let file = world.mempool.save(chain);
    assert!(decode_saved(&file, 1 << 20, ChainId::default()).is_err());
    assert!(decode_saved(&file[1..], 1 << 20, chain).is_err());
    let saved = decode_saved(&file, 1 << 20, chain).unwrap();
    let mut again = roomy();
    for entry in &saved {
        again
            .admit(5_000, &entry.tx, Source::Saved(entry.added))
            .unwrap();
    }
    assert_eq!(again.mempool.save(chain), file, "order and age are kept");
    for world in [&mut world, &mut again] {
        let due = world.mempool.next_expiry().unwrap();
        assert_eq!(due, now(MEMPOOL_EXPIRY_MS).mono);
        assert!(world.mempool.expire(now(MEMPOOL_EXPIRY_MS - 1)).is_empty());
        let gone = world.mempool.expire(now(MEMPOOL_EXPIRY_MS));
        assert_eq!(gone.len(), 2, "children go with their parent");
        assert_eq!(
            world.mempool.departure(&child.txid),
            Some(Departure::Expired)
        );
    }
}

#[test]
fn selection_is_by_fee_rate_with_ancestors_and_within_bounds() {
    let mut world = roomy();
    let middle = simple(1, 4_000);
    let parent = simple(2, 300);
    let child = spend(&[coin_of(&parent, 0)], 1, 20_000);
    let low = simple(3, 1_000);
    for tx in [&middle, &parent, &child, &low] {
        world.admit(0, tx, Source::Local).unwrap();
    }
    let order = [&parent, &child, &middle, &low].map(Clone::clone);
    assert_eq!(
        world.mempool.select(ALL),
        order,
        "a child pays for its parent"
    );
    let three = Selection { count: 3, ..ALL };
    assert_eq!(world.mempool.select(three), order[..3]);
    let one = Selection { count: 1, ..ALL };
    assert_eq!(
        world.mempool.select(one),
        vec![middle.clone()],
        "a child never without its parent"
    );
    let bytes = Selection {
        bytes: low.size,
        ..ALL
    };
    assert_eq!(world.mempool.select(bytes), vec![middle]);
    let checks = Selection {
        sigchecks: 2,
        ..ALL
    };
    assert_eq!(world.mempool.select(checks), order[..2]);
}

#[test]
fn registry_transactions_and_their_children_are_for_slot_blocks() {
    let mut world = roomy();
    let plain = simple(1, 5_000);
    world.admit(0, &plain, Source::Local).unwrap();
    // The pool is asked directly: whether a registration is valid is the registry's question.
    let mut body = simple(2, 5_000).transaction.clone();
    body.body.kind = TxKind::Unregister;
    let registry = Tx::new(body);
    let child = spend(&[(registry.outpoint(0), COIN)], 1, 5_000);
    for tx in [&registry, &child] {
        let judged = Judged {
            fee: 90_000,
            checks: Vec::new(),
            sigchecks: 1,
            ancestors: world.mempool.pool.ancestors_of(tx).unwrap(),
        };
        let new = entry(now(0), tx.clone(), Source::Local, &judged);
        world.mempool.pool.insert(new, &judged.ancestors);
    }
    world.mempool.pool.assert_true();
    assert_eq!(world.mempool.select(ALL), vec![plain.clone()]);
    let slot = Selection { registry: 1, ..ALL };
    let all = vec![registry.clone(), child.clone(), plain.clone()];
    assert_eq!(world.mempool.select(slot), all, "L5");
    world.mempool.decided(&block(vec![plain]));
    assert!(!world.mempool.has_candidate(false), "S3: no reason to act");
    assert!(world.mempool.has_candidate(true));
    world.mempool.decided(&block(vec![registry]));
    world.mempool.pool.assert_true();
    assert!(world.mempool.has_candidate(false));
    assert_eq!(world.mempool.select(ALL), vec![child]);
}

#[test]
fn short_ids_find_bodies_and_tell_when_two_fit() {
    let mut world = roomy();
    let (a, b) = (simple(1, 5_000), simple(2, 5_000));
    world.admit(0, &a, Source::Local).unwrap();
    let parent = BlockId::default();
    let mut ids = world.mempool.short_ids(&parent, Height(3), Round(1));
    let id = |tx: &Tx| crate::types::block::short_id(&parent, Height(3), Round(1), &tx.wtxid);
    assert_eq!(ids.get(&id(&a)), Found::One(&a));
    assert_eq!(ids.get(&id(&b)), Found::None);
    ids.insert(id(&a), a.clone());
    assert_eq!(
        ids.get(&id(&a)),
        Found::One(&a),
        "the same one twice is one"
    );
    ids.insert(id(&a), b);
    assert_eq!(ids.get(&id(&a)), Found::Several, "S8: ask for the list");
}

#[test]
fn a_change_of_branch_voids_signatures_and_transactions() {
    let mut world = roomy();
    let tx = simple(1, 5_000);
    world.admit(0, &tx, Source::Local).unwrap();
    assert!(world.mempool.set_branch(Branch(0)).is_empty());
    assert_eq!(world.mempool.set_branch(Branch(1)).len(), 1);
    assert!(!world.mempool.is_verified(&tx.wtxid), "L5");
    let late = Verified::check(tx, &[]).unwrap();
    let outcome = world
        .mempool
        .admit(now(0), late, Source::Local, &world.coins, &world.state);
    assert!(outcome.is_err(), "checked under the old branch");
    assert!(world.mempool.is_empty());
}

#[test]
fn what_no_input_can_spend_is_refused() {
    let mut world = roomy();
    let parent = simple(1, 5_000);
    world.admit(0, &parent, Source::Local).unwrap();
    let beyond = spend(&[(parent.outpoint(1), COIN)], 1, 5_000);
    assert_eq!(
        world.admit(0, &beyond, Source::Peer(1)),
        Err(Refusal::NoSuchCoin(parent.outpoint(1))),
        "no orphan: its parent is here"
    );
    let mut coinbase = parent.transaction.clone();
    coinbase.body.kind = TxKind::Coinbase;
    let coinbase = Tx::new(coinbase);
    assert_eq!(
        world.admit(0, &coinbase, Source::Peer(1)),
        Err(Refusal::Coinbase)
    );
    let cheap = spend(&[(base(2), COIN)], 1, 0);
    assert!(matches!(
        world.admit(0, &cheap, Source::Local),
        Err(Refusal::Invalid(_))
    ));
}
