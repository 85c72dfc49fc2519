//! Simulated peers with delays, lies, silence and disconnects. Whatever they do, what is delivered is consecutive and
//! certified, memory is bounded, honest peers are never blamed; with one honest peer its height is reached.

use super::testkit::*;
use super::*;
use crate::types::ids::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[test]
fn a_node_that_was_away_fetches_from_three_peers_at_once() {
    let mut sim = Sim::new(Chain::new(500, 90, 0), vec![Habit::Honest; 4], 1);
    assert!(sim.run(60), "{:?}", sim.sync.progress(now(sim.at)));
    assert!(
        sim.asked.len() >= 3,
        "F1: different ranges from several peers"
    );
    let end = sim.sync.progress(now(sim.at));
    assert_eq!((end.waiting, end.active), (Waiting::UpToDate, false));
    assert_eq!(
        (end.at, end.to, end.held_bytes),
        (Height(500), Height(500), 0)
    );
}

#[test]
fn every_lie_is_survived_beside_one_honest_peer() {
    for lie in LIES {
        let habits = vec![lie, lie, Habit::Honest, lie];
        let mut sim = Sim::new(Chain::new(150, 40, 0), habits, 2);
        assert!(
            sim.run(600),
            "{lie:?}: {:?}",
            sim.sync.progress(now(sim.at))
        );
        assert!(!sim.faults.contains(&2), "P3: the honest one is not blamed");
        let provable = [
            Habit::WrongBody,
            Habit::BadSignature,
            Habit::NoQuorum,
            Habit::OwnSet,
        ];
        if provable.contains(&lie) {
            assert!(!sim.faults.is_empty(), "{lie:?} costs its sender");
        }
    }
}

#[test]
fn a_single_slow_peer_is_waited_for() {
    let mut sim = Sim::new(Chain::new(100, 1_000, 0), vec![Habit::Honest], 3);
    sim.delays[0] = 7_000_000;
    assert!(sim.run(900), "a timeout grows until the peer can make it");
    assert!(sim.faults.is_empty(), "slow is never a fault");
}

#[test]
fn close_behind_consensus_goes_first() {
    let chain = Chain::new(3, 1_000, 0);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    let position = |height| Input::Position {
        peer: 1,
        height: Height(height),
        score: 0,
    };
    let asked = |sync: &mut Machine| {
        let mut asked = false;
        while let Some(effect) = sync.effect() {
            asked |= matches!(effect, Effect::Request { .. });
        }
        asked
    };
    sync.handle(now(1), position(1));
    assert!(!asked(&mut sync), "the votes for it are on their way");
    let just_before = PATIENCE_MS * 1_000;
    sync.handle(now(just_before), Input::Applied(chain.applied(1)));
    sync.handle(now(just_before), position(2));
    sync.handle(now(just_before + 2), Input::Tick);
    assert!(!asked(&mut sync), "consensus moves: nothing to fetch");
    sync.handle(now(2 * just_before), Input::Tick);
    assert!(asked(&mut sync), "it does not move: fetch");
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    sync.handle(now(1), position(LAG_AT_ONCE));
    assert!(asked(&mut sync), "far behind: at once");
}

#[test]
fn who_gave_wrong_data_or_was_late_is_asked_last() {
    let chain = Chain::new(600, 1_000, 0);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    for (peer, score) in [(2, 0), (3, 0), (4, 0), (1, -25)] {
        let height = Height(600);
        let position = Input::Position {
            peer,
            height,
            score,
        };
        sync.handle(now(1), position);
    }
    let mut asked = Vec::new();
    while let Some(effect) = sync.effect() {
        match effect {
            Effect::RequestHeaders { peer, .. } => {
                assert_ne!(peer, 1, "F1: not while others are there");
                let headers = Vec::new();
                sync.handle(now(2), Input::Headers { peer, headers });
            }
            Effect::Request { peer, .. } => asked.push(peer),
            _ => {}
        }
    }
    let first = asked.iter().position(|peer| *peer == 1);
    let good = asked.iter().filter(|peer| **peer != 1).count();
    assert_eq!(good, 3 * REQUESTS_PER_PEER, "{asked:?}");
    assert!(
        first.is_none_or(|at| at == good),
        "F1, P3: last of all: {asked:?}"
    );
    sync.handle(now(3 + 1_000 * ANSWER_TIMEOUT_MAX_MS), Input::Tick);
    let mut effects = std::iter::from_fn(|| sync.effect());
    assert!(
        !effects.any(|effect| matches!(effect, Effect::Fault { .. })),
        "P3: nobody is blamed for being slow"
    );
}

#[test]
fn two_certified_chains_are_told_not_followed() {
    let common = Chain::new(3, 1_000, 0);
    let ours = common.clone().grown(5, 1_000, 0);
    let theirs = common.grown(20, 1_000, 7);
    let mut sync = Machine::new(CHAIN, ours.applied(5), None);
    let height = Height(20);
    sync.handle(
        now(1),
        Input::Position {
            peer: 1,
            height,
            score: 0,
        },
    );
    for (block, certificate) in answer(&theirs, Height(6), 15).unwrap() {
        let input = Input::Block {
            peer: 1,
            block,
            certificate,
        };
        sync.handle(now(2), input);
    }
    let mut conflict = None;
    while let Some(effect) = sync.effect() {
        match effect {
            Effect::Verify {
                ticket,
                certificate,
                checks,
            } => {
                let outcome = Verified::check(certificate, &checks);
                sync.handle(now(3), Input::Verdict { ticket, outcome });
            }
            Effect::Conflict { block, .. } => conflict = Some(block.header.height),
            Effect::Deliver { .. } | Effect::Fault { .. } => panic!("F5: refused and told"),
            _ => {}
        }
    }
    assert_eq!(conflict, Some(Height(6)));
    assert_eq!(sync.progress(now(4)).held_bytes, 0);
}

#[test]
fn what_was_lost_on_the_way_is_fetched_again() {
    let chain = Chain::new(20, 1_000, 0);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    let position = |height| Input::Position {
        peer: 1,
        height: Height(height),
        score: 0,
    };
    sync.handle(now(1), position(20));
    let send = |sync: &mut Machine, at: u64| {
        for (block, certificate) in answer(&chain, Height(1), 20).unwrap() {
            let input = Input::Block {
                peer: 1,
                block,
                certificate,
            };
            sync.handle(now(at), input);
        }
    };
    // Neither verdicts nor applied blocks come back.
    send(&mut sync, 2);
    let count = |sync: &mut Machine| {
        let mut requests = 0;
        while let Some(effect) = sync.effect() {
            requests += usize::from(matches!(effect, Effect::Request { .. }));
        }
        requests
    };
    assert!(count(&mut sync) > 0);
    let end = LOST_MS * 1_000;
    sync.handle(now(end), Input::Tick);
    assert_eq!(count(&mut sync), 0, "it is still being checked");
    sync.handle(now(end + 2), Input::Tick);
    assert!(count(&mut sync) > 0);
    send(&mut sync, end + 3);
    assert_eq!(
        sync.progress(now(end + 3)).waiting,
        Waiting::ForVerdicts,
        "checked again"
    );
}

#[test]
fn what_was_not_asked_for_is_not_kept() {
    let chain = Chain::new(20, 1_000, 0);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    for (block, certificate) in answer(&chain, Height(1), 20).unwrap() {
        let input = Input::Block {
            peer: 1,
            block,
            certificate,
        };
        sync.handle(now(1), input);
    }
    assert_eq!(sync.progress(now(1)).held_bytes, 0);
    assert!(sync.effect().is_none());
}

#[test]
fn a_node_that_went_another_way_drops_what_it_holds() {
    let chain = Chain::new(30, 1_000, 0);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    let height = Height(30);
    sync.handle(
        now(1),
        Input::Position {
            peer: 1,
            height,
            score: 0,
        },
    );
    for (block, certificate) in answer(&chain, Height(1), 30).unwrap() {
        let input = Input::Block {
            peer: 1,
            block,
            certificate,
        };
        sync.handle(now(1), input);
    }
    assert!(sync.progress(now(1)).held_bytes > 0);
    let other = Chain::new(1, 1_000, 3);
    sync.handle(now(2), Input::Applied(other.applied(1)));
    assert_eq!(sync.progress(now(2)).held_bytes, 0);
}

#[test]
fn an_answer_is_bounded_by_count_and_ends_where_the_chain_ends() {
    let chain = Chain::new(100, 1_000, 0);
    let heights = |from, count| -> Vec<u64> {
        let found = answer(&chain, Height(from), count).unwrap();
        found.iter().map(|(b, _)| b.header.height.0).collect()
    };
    assert_eq!(
        heights(1, 1_000),
        (1..=SYNC_RANGE_BLOCKS).collect::<Vec<_>>()
    );
    assert_eq!(heights(99, 64), vec![99, 100]);
    assert!(heights(u64::MAX, 64).is_empty() && heights(101, 1).is_empty());
}

#[test]
fn an_answer_ends_with_the_block_that_reaches_its_bytes() {
    let chain = Chain::heavy(20);
    let (block, certificate) = &chain.blocks[0];
    let size = serve::counted_size(block, certificate);
    let found = answer(&chain, Height(1), 64).unwrap();
    assert_eq!(found.len(), SYNC_ANSWER_BYTES.div_ceil(size));
}

#[test]
fn memory_is_bounded_while_the_ledger_stands_still() {
    let chain = Chain::heavy(SYNC_WINDOW_BYTES as u64 / 250_000);
    let mut sync = Machine::new(CHAIN, chain.applied(0), None);
    for peer in 0..5 {
        let height = Height(chain.height());
        sync.handle(
            now(1),
            Input::Position {
                peer,
                height,
                score: 0,
            },
        );
    }
    let mut arriving = VecDeque::new();
    loop {
        while let Some(effect) = sync.effect() {
            if let Effect::RequestHeaders { peer, .. } = effect {
                let headers = Vec::new();
                arriving.push_back(Input::Headers { peer, headers });
            } else if let Effect::Request { peer, from, count } = effect {
                let found = answer(&chain, from, count).unwrap();
                arriving.extend(found.into_iter().map(|(block, certificate)| Input::Block {
                    peer,
                    block,
                    certificate,
                }));
            }
        }
        let Some(input) = arriving.pop_front() else {
            break;
        };
        sync.handle(now(2), input);
        let held = sync.progress(now(2)).held_bytes;
        assert!(held <= SYNC_WINDOW_BYTES, "B2: 64 MB in flight");
    }
    let end = sync.progress(now(2));
    assert!(end.held_bytes + 2 * SYNC_RESERVE_BYTES > SYNC_WINDOW_BYTES);
    assert_eq!(end.requests, 0, "it waits, and asks for nothing more");
}

fn habit() -> impl Strategy<Value = Habit> {
    prop::sample::select(LIES.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_peers_do_one_honest_peer_is_enough(
        lies in prop::collection::vec(habit(), 0..7),
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
        length in 1u64..140,
        change in 1u64..60,
    ) {
        let mut habits = lies;
        let honest = at.index(habits.len() + 1);
        habits.insert(honest, Habit::Honest);
        let mut sim = Sim::new(Chain::new(length, change, 0), habits, seed);
        prop_assert!(sim.run(3_600), "{:?}", sim.sync.progress(now(sim.at)));
        prop_assert!(!sim.faults.contains(&(honest as u64)), "P3");
        prop_assert!(sim.most_held <= SYNC_WINDOW_BYTES + 2 * SYNC_RESERVE_BYTES, "B2");
    }
}

/// What the machine does with the next block when it goes by RecoveryCert `next` into the block's era.
fn offered(next: Option<Hash>, block: Arc<Block>, certificate: Certificate) -> Vec<Effect> {
    let mut tip = Chain::new(10, 1_000, 0).applied(0);
    tip.bars = Arc::new(Bars {
        eras: vec![(Era(0), Vec::new())],
        next: next.map(|hash| (Era(0), hash)),
        pin: None,
    });
    let mut sync = Machine::new(CHAIN, tip, None);
    let position = Input::Position {
        peer: 1,
        height: Height(10),
        score: 0,
    };
    sync.handle(now(1), position);
    let block = Input::Block {
        peer: 1,
        block,
        certificate,
    };
    sync.handle(now(2), block);
    std::iter::from_fn(|| sync.effect()).collect()
}

#[test]
fn nobody_is_blamed_for_going_by_another_recovery_certificate() {
    let chain = Chain::new(10, 1_000, 0);
    let (block, _) = &chain.blocks[0];
    let faults = |next| {
        let effects = offered(next, block.clone(), certify(&block.header, 1, 2));
        let fault = |e: &&Effect| matches!(e, Effect::Fault { .. });
        effects.iter().filter(fault).count()
    };
    assert_eq!(faults(None), 1, "no quorum");
    assert_eq!(
        faults(Some(Hash([5; 32]))),
        0,
        "B6.5: it may be one of the set that another certificate gives"
    );
    let mut named = Block::clone(block);
    named.header.recovery_hash = Hash([6; 32]);
    let named = Arc::new(named);
    let verifies = |next| {
        let effects = offered(next, named.clone(), certify(&named.header, 1, 4));
        let verify = |e: &Effect| matches!(e, Effect::Verify { .. });
        effects.iter().any(verify)
    };
    assert!(verifies(Some(Hash([6; 32]))), "the one that is gone by");
    assert!(
        !verifies(Some(Hash([5; 32]))),
        "B6.5: a block that names another one is judged by that"
    );
}

#[test]
fn no_snapshot_passes_by_a_block_that_the_operator_vouches_for() {
    let chain = Chain::new(60, 20, 0);
    let id = |height: u64| chain.applied(height).block;
    let head = |root: (u64, BlockId), height: u64| {
        let mut sim = Sim::new(chain.clone(), vec![Habit::Honest; 3], 3);
        let root = Some((Height(root.0), root.1));
        sim.sync = Machine::new(CHAIN, chain.applied(0), root);
        sim.sync.want_bodies(false);
        sim.run(30);
        sim.sync.slot_head(Height(height)).map(|head| head.id)
    };
    assert_eq!(head((20, id(20)), 40), Some(id(40)), "it is on the way");
    assert_eq!(head((20, id(40)), 40), None, "F2: another chain");
    assert_eq!(head((30, id(30)), 40), None, "F2: nobody can tell yet");
    assert_eq!(head((50, id(50)), 40), Some(id(40)), "it comes later");
}
