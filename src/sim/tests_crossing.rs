//! Whole networks whose honest nodes were shown different RecoveryCerts of one fork (B6): an adversary names more culprits to
//! some than to others. Whatever happens in between, they must end on one chain.

use crate::base::bounded::BoundedVec;
use crate::ledger::coins::CoinView;
use crate::p2p::messages::Message;
use crate::replica::record::Record;
use crate::sim::stage::{Kind, Pick};
use crate::sim::tests_fork::{SECOND, Split, Twin, split};
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence, Statement, StatementBody};
use crate::types::vote::Vote;

const FORK: Height = Height(1);
/// Honest nodes; the last of them was on the branch that is lost.
const HONEST: [usize; 6] = [0, 1, 2, 3, 4, 5];
/// The copies of the keys that sign both blocks.
const NEAR: [usize; 2] = [7, 8];
const FAR: [usize; 2] = [9, 10];
/// It stood beyond like node 5, and has signed the other block too, which it shows to nobody before it likes to.
const HIDDEN: usize = 6;

/// Six honest nodes with 6 of 17 of the power that all know of a fork and have said nothing yet.
fn forked(seed: u64) -> Split {
    let mut powers = vec![1_000; 9];
    powers[7] = 5_000;
    powers[8] = 5_000;
    let mut net = split(seed, &powers, &NEAR, &[5, HIDDEN]);
    net.world.corrupt(HIDDEN, Box::new(Twin));
    net.honest = HONEST.to_vec();
    net.coalition.insert(id(&net, HIDDEN));
    net.until(60, "both sides decide", |s| {
        HONEST.iter().all(|i| s.block(*i, FORK).is_some())
    });
    assert_ne!(net.block(0, FORK), net.block(5, FORK));
    net.world.reconnect();
    net.until(20, "all know of the fork", Split::all_know);
    net
}

fn id(net: &Split, i: usize) -> MasternodeId {
    net.world.nodes[i]
        .operator
        .as_ref()
        .expect("it has a key")
        .0
}

fn decision(net: &Split, i: usize) -> Decision {
    let found = net.world.nodes[i].ledger.decision(FORK);
    found.unwrap().expect("it has decided")
}

/// Evidence that a masternode has precommitted both blocks.
fn double(net: &Split, i: usize) -> Evidence {
    let (x, y) = (decision(net, 0), decision(net, 5));
    let (me, secret) = net.world.nodes[i].operator.as_ref().unwrap();
    let commit = &y.certificate.commit;
    let vote = |block| {
        let body = commit.body(Branch(0), FORK, block);
        let signature = secret.sign(&body.signing_hash(net.world.genesis().chain_id()));
        Vote {
            body,
            voter: *me,
            signature,
        }
    };
    let mut votes = [vote(x.block()), vote(y.block())];
    votes.sort();
    let [a, b] = votes;
    Evidence {
        offender: *me,
        key: secret.public(),
        offence: Offence::Votes(a, b),
    }
}

/// What the first five honest nodes agree on for the block of `side`, with the hidden culprit, which shows its second precommit
/// at last, or without it.
fn cert(net: &Split, side: usize, all: bool) -> RecoveryCert {
    let guilty = NEAR.map(|i| id(net, i));
    let evidence = net.replica(0).unwrap().evidence();
    let evidence = evidence.filter(|e| guilty.contains(&e.offender)).cloned();
    let culprits: Vec<Evidence> = evidence.chain(all.then(|| double(net, HIDDEN))).collect();
    assert_eq!(culprits.len(), if all { 3 } else { 2 });
    agreed(net, side, culprits, &HONEST[..5])
}

fn agreed(net: &Split, side: usize, mut culprits: Vec<Evidence>, by: &[usize]) -> RecoveryCert {
    let fork = ForkProof::of(decision(net, 0), decision(net, 5));
    let block = net.block(side, FORK).expect("decided");
    culprits.sort_by_key(|e| e.offender);
    let body = StatementBody {
        era: Era(0),
        attempt: 0,
        fork: fork.hash(),
        block,
        tip_height: FORK,
        tip: block,
    };
    let chain = net.world.genesis().chain_id();
    let sign = |i: &usize| {
        let (masternode, secret) = net.world.nodes[*i].operator.as_ref().unwrap();
        Statement {
            body: body.clone(),
            masternode: *masternode,
            signature: secret.sign(&body.signing_hash(chain)),
        }
    };
    let mut statements: Vec<Statement> = by.iter().map(sign).collect();
    statements.sort_by_key(|s| s.masternode);
    RecoveryCert {
        fork,
        era: Era(0),
        attempt: 0,
        block,
        culprits: BoundedVec::take_from(culprits),
        statements: BoundedVec::take_from(statements),
    }
}

fn show(net: &mut Split, from: usize, to: &[usize], cert: &RecoveryCert) {
    let told = Message::RecoveryCert(Box::new(cert.clone()));
    net.world.speak(from, to, &told);
}

/// Parts the network: `first` with the coalition, the other honest nodes with its copies; each side is shown its own.
fn show_apart(net: &mut Split, first: &[usize], certs: [&RecoveryCert; 2]) {
    let second: Vec<usize> = HONEST.into_iter().filter(|i| !first.contains(i)).collect();
    let far: Vec<usize> = second
        .iter()
        .chain(&FAR)
        .chain([&HIDDEN])
        .copied()
        .collect();
    net.world.isolate(&far);
    show(net, 7, first, certs[0]);
    show(net, 9, &second, certs[1]);
    let (first, wanted) = (first.to_vec(), certs.map(RecoveryCert::hash));
    net.until(20, "each side has crossed by what it was shown", |s| {
        HONEST.iter().all(|i| {
            let certs = s.replica(*i).map(|r| r.recoveries()).unwrap_or_default();
            let by = certs.last().map(RecoveryCert::hash);
            by == Some(wanted[usize::from(!first.contains(i))])
        })
    });
}

/// The greatest height that anybody has decided.
fn top(net: &Split) -> Height {
    let heights = net.world.checker.heights.iter();
    heights.max().copied().unwrap_or_default()
}

/// All end on one chain, by this certificate.
fn assert_one(net: &mut Split, cert: &RecoveryCert) {
    net.assert_recovered(FORK, cert.block);
    let wanted = cert.hash();
    for i in HONEST {
        let by = net.replica(i).unwrap().recoveries().pop().unwrap().hash();
        assert_eq!(by, wanted, "B6.5: node {i} goes by what the chain names");
    }
}

#[test]
fn nodes_that_were_shown_different_culprits_agree_on_the_most() {
    let mut net = forked(11);
    let (some, all) = (cert(&net, 0, false), cert(&net, 0, true));
    assert_ne!(some.hash(), all.hash());
    show_apart(&mut net, &[0, 1, 2], [&some, &all]);
    let tip = top(&net);
    net.run(10);
    assert_eq!(tip, top(&net), "neither side can decide");
    net.world.reconnect();
    assert_one(&mut net, &all);
    let other = Record::Other(Box::new(some)).key();
    for i in [0, 1, 2] {
        let kept = net.world.nodes[i].signer.records.contains_key(&other);
        assert!(kept, "B6.5: node {i} keeps what it went by before");
    }
}

#[test]
fn nodes_that_start_again_while_they_agree_agree_all_the_same() {
    for seed in 12..16 {
        let mut net = forked(seed);
        let (some, all) = (cert(&net, 0, false), cert(&net, 0, true));
        show_apart(&mut net, &[0, 1, 2], [&some, &all]);
        net.world.reconnect();
        for i in HONEST {
            let within = 40_000 * (seed - 11) * (1 + i as u64 % 3);
            net.world.run(within).unwrap();
            net.world.crash(i, Some(SECOND / 4));
        }
        assert_one(&mut net, &all);
    }
}

#[test]
fn a_decided_block_of_the_new_era_settles_by_which_certificate_it_began() {
    for crash in [false, true] {
        let mut net = forked(16);
        let (some, all) = (cert(&net, 0, false), cert(&net, 0, true));
        show_apart(&mut net, &[0, 1, 2, 3, 4], [&some, &all]);
        net.until(30, "the first side decides", |s| {
            (0..5).all(|i| s.block(i, Height(3)).is_some())
        });
        net.world.reconnect();
        if crash {
            net.until(20, "node 5 goes by the certificate of the chain", |s| {
                let by = s.replica(5).map(|r| r.recoveries()).unwrap_or_default();
                by.last().is_some_and(|cert| cert.hash() == some.hash())
            });
            net.world.crash(5, Some(SECOND));
        }
        assert_one(&mut net, &some);
    }
}

#[test]
fn a_decided_block_takes_a_node_off_a_branch_that_was_agreed_on_too() {
    let mut net = forked(17);
    // More than a third of the others have stated both blocks: two certificates of one attempt.
    let (kept, gone) = (cert(&net, 0, false), cert(&net, 5, true));
    show_apart(&mut net, &[0, 1, 2, 3, 4], [&kept, &gone]);
    net.until(30, "the first side decides", |s| {
        (0..5).all(|i| s.block(i, Height(3)).is_some())
    });
    net.world.reconnect();
    assert_one(&mut net, &kept);
}

/// A network in which three nodes are locked on a block that names fewer culprits, two beside them have seen no polka, and the
/// last one goes by the better certificate. In some networks the first leader is beyond, and nothing is locked.
fn locked(seed: u64) -> Option<(Split, RecoveryCert)> {
    let mut net = forked(seed);
    let (some, all) = (cert(&net, 0, false), cert(&net, 0, true));
    let height = top(&net).next();
    let words = Pick::of(&[Kind::Prevote, Kind::Polka]).height(height);
    net.world.lose(words.to(&[3, 4]));
    net.world.lose(Pick::of(&[Kind::Precommit]).height(height));
    show_apart(&mut net, &[0, 1, 2, 3, 4], [&some, &all]);
    net.run(8);
    assert!(top(&net) < height, "nobody has decided");
    let lock = [&b"l"[..], &height.0.to_be_bytes()].concat();
    let locks = |i: usize| net.world.nodes[i].signer.records.contains_key(&lock);
    assert!(!locks(3) && !locks(4), "S5: they saw no polka");
    (0..3).all(locks).then_some((net, some))
}

#[test]
fn a_polka_of_the_new_era_binds_those_who_have_not_seen_it() {
    for crash in [false, true] {
        let found = (18..40).find_map(locked);
        let (mut net, some) = found.expect("a leader on the first side");
        net.world.reconnect();
        if crash {
            net.run(1);
            for i in HONEST {
                net.world.crash(i, Some(SECOND / 4));
            }
        }
        net.run(2);
        net.world.allow(Pick::default());
        assert_one(&mut net, &some);
    }
}

#[test]
fn two_chains_of_one_era_halt_with_words_that_say_what_to_do() {
    // Beyond every bound: over half of the power signs all it is asked to, and each side bars another part of it.
    let guilty = [6, 7, 8];
    let mut powers = vec![1_000; 9];
    guilty.iter().for_each(|i| powers[*i] = 6_000);
    let mut net = split(40, &powers, &guilty, &[3, 4, 5]);
    net.until(60, "both sides decide", |s| {
        HONEST.iter().all(|i| s.block(*i, FORK).is_some())
    });
    let certs = [(0, [7, 8], 6), (3, [6, 7], 8)].map(|(side, named, free)| {
        let evidence = named.map(|i| double(&net, i));
        let by: Vec<usize> = HONEST.into_iter().chain([free]).collect();
        agreed(&net, side, evidence.to_vec(), &by)
    });
    show(&mut net, 6, &[0, 1, 2], &certs[0]);
    show(&mut net, 9, &[3, 4, 5], &certs[1]);
    let free = [6, 11];
    show(&mut net, 7, &free[..1], &certs[0]);
    show(&mut net, 9, &free[1..], &certs[1]);
    net.until(60, "both sides decide in the new era", |s| {
        s.all_in_era(Era(1))
    });
    net.world.reconnect();
    net.until(60, "everybody halts", |s| {
        HONEST.iter().all(|i| {
            let fork = s.replica(*i).and_then(|r| r.fork());
            fork.is_some_and(|fork| fork.open && fork.advice.contains("two recovery certificates"))
        })
    });
    let tip = top(&net);
    net.run(10);
    assert_eq!(tip, top(&net), "B6.5: nobody signs");
}
