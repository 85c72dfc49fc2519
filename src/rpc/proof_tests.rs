//! Finality proofs: what is made is accepted, and nothing else is.

use crate::base::bounded::BoundedVec;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::ledger::testkit::{OPERATOR, genesis, key};
use crate::rpc::fake::FakeNode;
use crate::rpc::node::Node;
use crate::rpc::proof::{Proof, ProofError, Start, Step, genesis_set, make, verify};
use crate::rpc::reader::Chain;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Certificate, Commit, Header, tx_root};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::validators::{Validator, ValidatorSet};
use crate::types::vote::{VoteBody, VoteStep};

/// A proof of the second of three payments in block 2.
fn sample(node: &FakeNode) -> Proof {
    node.decide(vec![node.payment(0, 1)]);
    let txs = vec![node.payment(1, 2), node.payment(2, 3), node.payment(3, 4)];
    let txid = txs[1].txid;
    node.decide(txs);
    let view = node.view();
    make(&Chain::new(node, &view), node, &txid, None)
        .unwrap()
        .unwrap()
}

#[test]
fn a_proof_of_a_decided_transaction_holds_offline() {
    let node = FakeNode::new();
    let proof = sample(&node);
    let text = proof.to_json().to_string();
    let read = Proof::from_json(&text).unwrap();
    assert_eq!(read, proof);
    let verdict = verify(&node.facts.genesis, &read, None).unwrap();
    assert_eq!((verdict.height, verdict.txid), (Height(2), proof.txid));
    assert_eq!(
        (verdict.signed, verdict.total),
        (Power(4_000), Power(4_000))
    );
    assert_eq!(verdict.root, (Height(0), BlockId(node.facts.chain.0)));
    node.flush(true);
    let view = node.view();
    let again = make(&Chain::new(&*node, &view), &*node, &proof.txid, None).unwrap();
    assert_eq!(again, Some(proof), "the same from disk");
    let none = make(&Chain::new(&*node, &view), &*node, &Txid::default(), None).unwrap();
    assert_eq!(none, None);
}

#[test]
fn any_single_changed_byte_is_refused() {
    let node = FakeNode::new();
    let text = sample(&node).to_json().to_string().into_bytes();
    for at in 0..text.len() {
        for other in [b'0', b'7', b'F', b' ', b'"', text[at] ^ 1, text[at] ^ 0x20] {
            if other == text[at] {
                continue;
            }
            let mut changed = text.clone();
            changed[at] = other;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            let verdict = Proof::from_json(&changed)
                .and_then(|proof| verify(&node.facts.genesis, &proof, None));
            assert!(
                verdict.is_err(),
                "S10: byte {at} became {:?} in {changed}",
                char::from(other)
            );
        }
    }
}

#[test]
fn another_network_and_another_transaction_are_refused() {
    let node = FakeNode::new();
    let proof = sample(&node);
    let other = genesis(&[1_000; 4], 9);
    assert!(matches!(
        verify(&other, &proof, None),
        Err(ProofError::OtherChain { .. })
    ));
    let mut swapped = proof.clone();
    swapped.txid = Txid::default();
    assert_eq!(
        verify(&node.facts.genesis, &swapped, None),
        Err(ProofError::NotIncluded)
    );
}

/// Members with keys `first..first + n`, power 10 each.
fn set(first: u64, n: u64) -> ValidatorSet {
    let member = |i: u64| Validator {
        id: MasternodeId(Hash([i as u8; 32])),
        operator: key(i).public(),
        power: Power(10),
    };
    ValidatorSet::new((first..first + n).map(member).collect()).unwrap()
}

fn certify(genesis: &Genesis, header: &Header, set: &ValidatorSet, signers: usize) -> Certificate {
    certify_in(header.round, genesis, header, set, signers)
}

fn certify_in(
    round: Round,
    genesis: &Genesis,
    header: &Header,
    set: &ValidatorSet,
    signers: usize,
) -> Certificate {
    let at = EraRound {
        era: header.era,
        round,
    };
    let body = VoteBody {
        step: VoteStep::Precommit,
        branch: header.branch,
        era: at.era,
        height: header.height,
        round: at.round,
        valid_round: None,
        block: Some(header.id()),
    };
    let message = body.signing_hash(genesis.chain_id());
    let secret = |member: &Validator| {
        let numbers = (0..50).chain(OPERATOR..OPERATOR + 10);
        let mut keys = numbers.map(key);
        keys.find(|k| k.public() == member.operator).unwrap()
    };
    let members = set.members().iter().take(signers);
    let signatures = members.map(|m| secret(m).sign(&message));
    Certificate {
        height: header.height,
        block: header.id(),
        commit: Commit {
            at,
            signers: Bitmap::from_ones(set.len(), 0..signers),
            signatures: BoundedVec::take_from(signatures),
        },
    }
}

/// A proof whose set came in by two changes.
fn stepped(genesis: &Genesis) -> Proof {
    let sets = [genesis_set(genesis), set(10, 3), set(20, 5)];
    let (txid, wtxid) = (Txid(Hash([1; 32])), Wtxid(Hash([2; 32])));
    let header = |height, now: &ValidatorSet, next: &ValidatorSet| Header {
        version: 1,
        branch: Branch(0),
        era: Era(0),
        recovery_hash: Hash::ZERO,
        height: Height(height),
        round: Round(0),
        time: WallMs(5),
        parent: BlockId::default(),
        proposer: now.members()[0].id,
        last_commit_hash: Hash::ZERO,
        tx_root: tx_root([(&txid, &wtxid)]),
        slot_root: Hash::ZERO,
        validators_hash: now.hash(),
        next_validators_hash: next.hash(),
        state_root: Hash::ZERO,
        prev_slot_block: BlockId::default(),
        history_root: Hash::ZERO,
    };
    let step = |height, i: usize| {
        let header = header(height, &sets[i], &sets[i + 1]);
        Step {
            certificate: certify(genesis, &header, &sets[i], sets[i].len()),
            next: sets[i + 1].clone(),
            header,
        }
    };
    let steps = vec![step(10, 0), step(20, 1)];
    let header = header(30, &sets[2], &sets[2]);
    let leaf = crate::types::block::tx_leaf(&txid, &wtxid);
    Proof {
        chain: genesis.chain_id(),
        start: None,
        txid,
        wtxid,
        merkle: crate::crypto::merkle::TX_TREE.proof(&[leaf], 0).unwrap(),
        certificate: certify(genesis, &header, &sets[2], 4),
        validators: sets[2].clone(),
        header,
        steps,
        recoveries: Vec::new(),
    }
}

#[test]
fn changes_of_the_set_lead_from_the_genesis_to_the_block() {
    let genesis = genesis(&[1_000; 4], 10);
    let good = stepped(&genesis);
    let read = Proof::from_json(&good.to_json().to_string()).unwrap();
    let verdict = verify(&genesis, &read, None).unwrap();
    assert_eq!((verdict.step_count, verdict.signed), (2, Power(40)));

    let refuse = |change: &dyn Fn(&mut Proof), why: &str| {
        let mut proof = good.clone();
        change(&mut proof);
        assert!(verify(&genesis, &proof, None).is_err(), "S10, F2: {why}");
    };
    refuse(&|p| drop(p.steps.remove(0)), "a step is missing");
    refuse(&|p| drop(p.steps.remove(1)), "the last step is missing");
    refuse(&|p| p.steps.swap(0, 1), "steps ascend");
    refuse(&|p| p.steps.clear(), "an unknown set vouches for nothing");
    refuse(
        &|p| p.validators = p.steps[0].next.clone(),
        "the set given is not the one reached",
    );
    refuse(
        &|p| p.steps[1].certificate = p.steps[0].certificate.clone(),
        "each step has its own certificate",
    );
    refuse(
        &|p| p.certificate = certify(&genesis, &p.header, &p.validators, 3),
        "3 of 5 are no quorum",
    );
    refuse(
        &|p| {
            p.steps[0].certificate =
                certify(&genesis, &p.steps[0].header, &genesis_set(&genesis), 2)
        },
        "2 of 4 are no quorum",
    );
    refuse(
        &|p| p.certificate.commit.at.round = Round(1),
        "signatures name their round",
    );
    refuse(
        &|p| {
            p.header.version = 2;
            p.certificate = certify(&genesis, &p.header, &p.validators, 5);
        },
        "an unknown header version may mean anything",
    );
    refuse(
        &|p| {
            p.header.height = Height(20);
            p.certificate = certify(&genesis, &p.header, &p.validators, 5);
        },
        "a set is in force from the height after its step",
    );
    refuse(
        &|p| {
            p.header.round = Round(2);
            p.certificate = certify_in(Round(1), &genesis, &p.header, &p.validators, 5);
        },
        "a certificate's round is not before the proposal's",
    );
}

#[test]
fn a_block_that_the_verifier_vouches_for_is_a_root() {
    let genesis = genesis(&[1_000; 4], 10);
    let good = stepped(&genesis);
    let at = |header: &Header| Some((header.height, header.id()));
    let first = good.steps[0].clone();
    // It stands in the proof as the header of a change.
    let verdict = verify(&genesis, &good, at(&first.header)).unwrap();
    assert_eq!((verdict.root.0, verdict.step_count), (Height(10), 1), "S10");
    // What lies below the root is not believed, nor needed.
    let mut below = good.clone();
    below.steps[0].certificate = certify(&genesis, &first.header, &genesis_set(&genesis), 1);
    assert!(verify(&genesis, &below, None).is_err());
    assert!(verify(&genesis, &below, at(&first.header)).is_ok(), "F2");
    // A proof that begins there.
    let mut short = good.clone();
    short.steps.remove(0);
    short.start = Some(Start {
        header: first.header.clone(),
        next: first.next.clone(),
    });
    let short = Proof::from_json(&short.to_json().to_string()).unwrap();
    assert!(verify(&genesis, &short, at(&first.header)).is_ok());
    let unvouched = verify(&genesis, &short, None);
    assert!(
        matches!(unvouched, Err(ProofError::Unvouched(Height(10), _))),
        "F2: {unvouched:?}"
    );
    // The block of the transaction itself.
    let verdict = verify(&genesis, &good, at(&good.header)).unwrap();
    assert_eq!((verdict.root.0, verdict.step_count), (Height(30), 0));
    let mut other_set = short.clone();
    other_set.start.as_mut().unwrap().next = set(20, 5);
    assert!(
        verify(&genesis, &other_set, at(&first.header)).is_err(),
        "a header names its set"
    );
    let elsewhere = Some((Height(10), BlockId(Hash([9; 32]))));
    for proof in [&good, &short] {
        let refused = verify(&genesis, proof, elsewhere);
        assert!(
            matches!(refused, Err(ProofError::NoRoot(..))),
            "{refused:?}"
        );
    }
    let whole = Some((Height(0), BlockId(genesis.chain_id().0)));
    assert!(verify(&genesis, &good, whole).is_ok() && verify(&genesis, &short, whole).is_err());
}

#[test]
fn an_old_root_is_told_apart() {
    let genesis = genesis(&[1_000; 4], 10);
    let mut verdict = verify(&genesis, &stepped(&genesis), None).unwrap();
    let old = WallMs(u64::MAX);
    verdict.trusting_ms = 1_000;
    assert!(
        verdict.is_stale(old) && !verdict.is_stale(genesis.time),
        "F2"
    );
    verdict.trusting_ms = 0;
    assert!(!verdict.is_stale(old), "0 is off");
}

#[test]
fn texts_that_are_no_proof_say_what_is_wrong() {
    let node = FakeNode::new();
    let good = sample(&node).to_json();
    for (field, value) in [
        ("format", serde_json::json!("other")),
        ("height", serde_json::json!(3)),
        ("blockhash", serde_json::json!("00")),
        ("header", serde_json::json!("zz")),
        ("merkle", serde_json::json!("00".repeat(5_000))),
        ("extra", serde_json::json!(1)),
        ("steps", serde_json::json!([{}])),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let error = Proof::from_json(&bad.to_string()).unwrap_err();
        assert!(!error.to_string().is_empty(), "{field}");
    }
    for text in ["", "{}", "[]", "null", "{\"format\":1}"] {
        assert!(Proof::from_json(text).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Proof::from_json(&text);
    }
}
