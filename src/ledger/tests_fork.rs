//! Attribution (S6) against executions of the voting rules with a coalition of more than a third, and RecoveryCerts (B6).

use crate::base::bounded::BoundedVec;
use crate::base::rng::Rng;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::crypto::keys::{SecretKey, Signature};
use crate::crypto::verify::verify_all;
use crate::ledger::fork::*;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Certificate, Commit, HEADER_VERSION, Header};
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence, Statement, StatementBody};
use crate::types::polka::Polka;
use crate::types::validators::{Validator, ValidatorSet};
use crate::types::vote::{Vote, VoteBody, VoteStep};
use std::collections::BTreeSet;

const HEIGHT: Height = Height(5);

fn secret(i: usize) -> SecretKey {
    SecretKey::from_seed(&[i as u8 + 1; 32])
}

fn id(i: usize) -> MasternodeId {
    MasternodeId(Hash([i as u8 + 1; 32]))
}

fn set(powers: &[u64]) -> ValidatorSet {
    let member = |(i, power): (usize, &u64)| Validator {
        id: id(i),
        operator: secret(i).public(),
        power: Power(*power),
    };
    ValidatorSet::new(powers.iter().enumerate().map(member).collect()).unwrap()
}

fn at(round: u32) -> EraRound {
    EraRound {
        era: Era(0),
        round: Round(round),
    }
}

fn header(set: &ValidatorSet, tag: u8) -> Header {
    Header {
        version: HEADER_VERSION,
        branch: Branch(0),
        era: Era(0),
        recovery_hash: Hash::ZERO,
        height: HEIGHT,
        round: Round(0),
        time: WallMs(1),
        parent: BlockId(Hash([1; 32])),
        proposer: id(0),
        last_commit_hash: Hash::ZERO,
        tx_root: Hash([tag; 32]),
        slot_root: Hash::ZERO,
        validators_hash: set.hash(),
        next_validators_hash: set.hash(),
        state_root: Hash::ZERO,
        prev_slot_block: BlockId::default(),
        history_root: Hash::ZERO,
    }
}

/// A commit of these members; signed if `body` is given, else with empty signatures.
fn commit(
    set: &ValidatorSet,
    round: u32,
    signers: &BTreeSet<usize>,
    body: Option<VoteBody>,
) -> Commit {
    let message = body.map(|body| body.signing_hash(ChainId::default()));
    let sign = |i: &usize| message.map_or(Signature([0; 64]), |m| secret(*i).sign(&m));
    Commit {
        at: at(round),
        signers: Bitmap::from_ones(set.len(), signers.iter().copied()),
        signatures: BoundedVec::take_from(signers.iter().map(sign)),
    }
}

fn vote_body(
    step: VoteStep,
    round: u32,
    block: BlockId,
    valid_round: Option<EraRound>,
) -> VoteBody {
    VoteBody {
        step,
        branch: Branch(0),
        era: Era(0),
        height: HEIGHT,
        round: Round(round),
        valid_round,
        block: Some(block),
    }
}

fn decision(
    set: &ValidatorSet,
    header: &Header,
    round: u32,
    signers: &BTreeSet<usize>,
    signed: bool,
) -> Decision {
    let block = header.id();
    let body = vote_body(VoteStep::Precommit, round, block, None);
    Decision {
        header: header.clone(),
        certificate: Certificate {
            height: HEIGHT,
            block,
            commit: commit(set, round, signers, signed.then_some(body)),
        },
    }
}

fn polka(
    set: &ValidatorSet,
    block: BlockId,
    round: u32,
    valid_round: Option<EraRound>,
    signers: &BTreeSet<usize>,
    signed: bool,
) -> Polka {
    let body = vote_body(VoteStep::Prevote, round, block, valid_round);
    Polka {
        height: HEIGHT,
        block,
        valid_round,
        votes: commit(set, round, signers, signed.then_some(body)),
    }
}

/// What an adversary lets happen in one round: offers and who hears what.
#[derive(Debug, Clone)]
struct Script {
    /// By block (X, Y): valid round wanted, and which honest members hear the offer and the polka.
    offers: [(Option<u32>, u64, u64); 2],
}

/// Runs the rules S1 for honest members against a coalition that signs everything. Returns every polka and the first
/// certificate of each block.
fn run(
    set: &ValidatorSet,
    bad: &BTreeSet<usize>,
    script: &[Script],
) -> (Vec<Polka>, [Option<Decision>; 2]) {
    let headers = [header(set, 1), header(set, 2)];
    let ids = headers.each_ref().map(Header::id);
    let honest: Vec<usize> = (0..set.len()).filter(|i| !bad.contains(i)).collect();
    let mut locked: Vec<Option<(usize, u32)>> = vec![None; set.len()];
    let (mut polkas, mut decided): (Vec<Polka>, [Option<Decision>; 2]) = (Vec::new(), [None, None]);
    for (round, step) in (0u32..).zip(script) {
        let (mut voted, mut committed) = (BTreeSet::<usize>::new(), BTreeSet::new());
        for (b, (valid, heard, told)) in step.offers.iter().enumerate() {
            let known = |p: &&Polka| p.block == ids[b] && valid.map(at) == Some(p.at());
            let valid_round = polkas.iter().find(known).map(Polka::at);
            // S1(a): fresh only without a lock, a re-proposal only if its polka is not older than the lock.
            let takes = |i: usize| match (locked[i], valid_round) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some((_, lock)), Some(at)) => lock <= at.round.0,
            };
            let yes = honest
                .iter()
                .copied()
                .filter(|i| heard >> i & 1 == 1 && takes(*i));
            let yes: BTreeSet<usize> = yes.filter(|i| !voted.contains(i)).collect();
            voted.extend(&yes);
            let prevotes: BTreeSet<usize> = yes.iter().chain(bad).copied().collect();
            if !is_quorum(set.power_of(prevotes.iter().copied()), set.total()) {
                continue;
            }
            polkas.push(polka(set, ids[b], round, valid_round, &prevotes, false));
            let mut precommits = bad.clone();
            for i in honest.iter().copied().filter(|i| told >> i & 1 == 1) {
                if committed.insert(i) {
                    locked[i] = Some((b, round));
                    precommits.insert(i);
                }
            }
            let quorum = is_quorum(set.power_of(precommits.iter().copied()), set.total());
            if quorum && decided[b].is_none() {
                decided[b] = Some(decision(set, &headers[b], round, &precommits, false));
            }
        }
    }
    (polkas, decided)
}

fn random_script(rng: &mut Rng) -> Vec<Script> {
    let mut offer = || {
        let valid = rng.chance(1, 2).then(|| rng.below(5) as u32);
        // Offers mostly reach everybody or one half; so do polkas.
        let mut mask = || match rng.below(4) {
            0 => u64::MAX,
            1 => 0x5555,
            2 => 0xAAAA,
            _ => rng.next_u64(),
        };
        (valid, mask(), mask())
    };
    (0..6)
        .map(|_| Script {
            offers: [offer(), offer()],
        })
        .collect()
}

#[test]
fn attribution_names_over_a_third_and_never_an_honest_member() {
    let mut rng = Rng::new(6);
    let (mut same_round, mut amnesia, mut prevotes) = (0, 0, 0);
    for _ in 0..8_000 {
        let powers: Vec<u64> = (0..4 + rng.below(6)).map(|_| 1 + rng.below(3)).collect();
        let set = set(&powers);
        let mut bad: BTreeSet<usize> = (0..set.len()).filter(|_| rng.chance(1, 2)).collect();
        while set.power_of(bad.iter().copied()).0 * 3 > 2 * set.total().0 {
            bad.pop_last();
        }
        let (polkas, [x, y]) = run(&set, &bad, &random_script(&mut rng));
        let (Some(x), Some(y)) = (x, y) else {
            continue;
        };
        let proof = ForkProof::of(x, y);
        let power = set.power_of(bad.iter().copied());
        assert!(is_over_third(power, set.total()), "agreement below a third");
        let Attribution::Culprits(culprits) = attribute(&proof, &set, &polkas) else {
            panic!("every polka is there");
        };
        assert!(is_over_third(power_of(&culprits, &set), set.total()), "S6");
        let is_honest = |e: &Evidence| !bad.contains(&set.index_of(&e.offender).unwrap());
        assert!(!culprits.iter().any(is_honest), "S6: {culprits:?}");
        for culprit in &culprits {
            assert!(crate::ledger::evidence::pair(culprit, ChainId::default()).is_ok());
        }
        match &culprits[0].offence {
            Offence::Amnesia(..) => amnesia += 1,
            Offence::Votes(a, _) if a.body.step == VoteStep::Prevote => prevotes += 1,
            _ => same_round += 1,
        }
        // With any polka missing nobody honest is named either.
        for gone in 0..polkas.len() {
            let mut fewer = polkas.clone();
            fewer.remove(gone);
            if let Attribution::Culprits(culprits) = attribute(&proof, &set, &fewer) {
                assert!(!culprits.iter().any(is_honest), "S6, a polka missing");
            }
        }
    }
    let seen = (same_round, amnesia, prevotes);
    assert!(
        same_round > 40 && amnesia > 40 && prevotes > 8,
        "all three ways of S6 must have come up: {seen:?}"
    );
}

/// Seven equal members of whom 0, 1, 2 are guilty; X in round 0, Y in round 1: amnesia.
fn amnesia() -> (ValidatorSet, ForkProof, Vec<Polka>) {
    let set = set(&[1; 7]);
    let [x, y] = [header(&set, 1), header(&set, 2)];
    let proof = ForkProof::of(
        decision(&set, &x, 0, &[0, 1, 2, 3, 4].into(), true),
        decision(&set, &y, 1, &[0, 1, 2, 5, 6].into(), true),
    );
    let polka = polka(&set, y.id(), 1, None, &[0, 1, 2, 5, 6].into(), true);
    (set, proof, vec![polka])
}

fn statement(i: usize, proof: &ForkProof, block: BlockId, attempt: u32) -> Statement {
    let body = StatementBody {
        era: Era(0),
        attempt,
        fork: proof.hash(),
        block,
        tip_height: HEIGHT,
        tip: block,
    };
    Statement {
        signature: secret(i).sign(&body.signing_hash(ChainId::default())),
        body,
        masternode: id(i),
    }
}

fn recovery(
    proof: &ForkProof,
    culprits: &[Evidence],
    by: &[usize],
    block: BlockId,
    attempt: u32,
) -> RecoveryCert {
    RecoveryCert {
        fork: proof.clone(),
        era: Era(0),
        attempt,
        block,
        culprits: BoundedVec::take_from(culprits.iter().cloned()),
        statements: BoundedVec::take_from(by.iter().map(|i| statement(*i, proof, block, attempt))),
    }
}

#[test]
fn a_recovery_needs_guilt_and_a_majority_of_the_others() {
    let (set, proof, polkas) = amnesia();
    let chain = ChainId::default();
    assert!(verify_all(&check_proof(&proof, chain, &set).unwrap()));
    let Attribution::Culprits(culprits) = attribute(&proof, &set, &polkas) else {
        panic!("the polka is there")
    };
    let named: Vec<MasternodeId> = culprits.iter().map(|c| c.offender).collect();
    assert_eq!(named, [id(0), id(1), id(2)]);
    assert!(matches!(culprits[0].offence, Offence::Amnesia(..)));
    let block = proof.blocks()[0];
    let check = |cert: &RecoveryCert| check_recovery(cert, chain, &set).map(|c| verify_all(&c));
    let good = recovery(&proof, &culprits, &[3, 4, 5], block, 0);
    assert_eq!(check(&good), Ok(true), "B6.4: 3 of 4 members without guilt");
    let few = recovery(&proof, &culprits, &[3, 4], block, 0);
    assert_eq!(check(&few), Err(ForkError::NoMajority));
    let guilty = recovery(&proof, &culprits, &[0, 1, 2, 3, 4], block, 0);
    assert_eq!(
        check(&guilty),
        Err(ForkError::NoMajority),
        "B6.3: culprits state nothing"
    );
    let unproved = recovery(&proof, &culprits[..1], &[1, 2, 3, 4, 5], block, 0);
    assert_eq!(
        check(&unproved),
        Err(ForkError::TooFewCulprits),
        "B6.2: nothing by itself"
    );
    let operators = recovery(&proof, &culprits[..1], &[1, 2, 3, 4, 5], block, 1);
    assert_eq!(check(&operators), Ok(true), "B6.7: operators agreed");
    let elsewhere = recovery(&proof, &culprits, &[3, 4, 5], BlockId(Hash([77; 32])), 0);
    assert!(check(&elsewhere).is_err());
    let mut framed = good.clone();
    let mut honest = culprits.clone();
    honest[0].offender = id(3);
    framed.culprits = BoundedVec::take_from(honest);
    assert!(check(&framed).is_err(), "evidence names its signer");
    let mut forged = good;
    let mut statements = forged.statements.to_vec();
    statements[0].signature = Signature([1; 64]);
    forged.statements = BoundedVec::take_from(statements);
    assert_eq!(check(&forged), Ok(false));
}

#[test]
fn more_culprits_with_evidence_of_any_kind_end_an_era() {
    let (set, proof, polkas) = amnesia();
    let chain = ChainId::default();
    let Attribution::Culprits(mut culprits) = attribute(&proof, &set, &polkas) else {
        panic!("the polka is there")
    };
    let [x, y] = proof.blocks();
    let votes = |i: usize, step| {
        let mut pair = [x, y].map(|block| {
            let body = vote_body(step, 0, block, None);
            Vote {
                body,
                voter: id(i),
                signature: secret(i).sign(&body.signing_hash(chain)),
            }
        });
        pair.sort();
        let [a, b] = pair;
        Evidence {
            offender: id(i),
            key: secret(i).public(),
            offence: Offence::Votes(a, b),
        }
    };
    culprits.push(votes(3, VoteStep::Precommit));
    culprits.push(votes(4, VoteStep::Prevote));
    let check = |cert: &RecoveryCert| check_recovery(cert, chain, &set).map(|c| verify_all(&c));
    let wide = recovery(&proof, &culprits, &[5, 6], x, 0);
    assert_eq!(check(&wide), Ok(true), "B6.4: a majority of who is left");
    let named = recovery(&proof, &culprits, &[3, 5], x, 0);
    assert_eq!(check(&named), Err(ForkError::NoMajority), "B6.3");
    assert_ne!(
        wide.hash(),
        recovery(&proof, &culprits[..3], &[3, 4, 5], x, 0).hash(),
        "L13: another agreement"
    );
}

#[test]
fn certificates_of_other_keys_or_sets_are_no_fork() {
    let (set, proof, _) = amnesia();
    let chain = ChainId::default();
    let mut same = proof.clone();
    same.second = same.first.clone();
    assert_eq!(check_proof(&same, chain, &set), Err(ForkError::Form));
    let mut other = proof.clone();
    other.first.header.parent = BlockId(Hash([9; 32]));
    assert_eq!(
        check_proof(&other, chain, &set),
        Err(ForkError::Form),
        "another parent: the conflict is further down"
    );
    let bought = ValidatorSet::new(set.members()[1..].to_vec()).unwrap();
    assert_eq!(
        check_proof(&proof, chain, &bought),
        Err(ForkError::Set),
        "F5: keys that are no set of this height"
    );
    let mut forged = proof;
    forged.second.certificate.commit.signatures =
        BoundedVec::take_from(vec![Signature([5; 64]); 5]);
    let checks = check_proof(&forged, chain, &set).unwrap();
    assert!(!verify_all(&checks), "forged certificates change nothing");
}

#[test]
fn a_missing_polka_is_asked_for_by_name() {
    let (set, proof, polkas) = amnesia();
    let (_, y) = proof.by_round();
    let wanted = Attribution::Missing {
        at: at(1),
        block: y.block(),
    };
    assert_eq!(attribute(&proof, &set, &[]), wanted);
    assert_ne!(attribute(&proof, &set, &polkas), wanted);
}
