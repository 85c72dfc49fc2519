//! Stories about what is signed beside votes: attestations, evidence, replaced keys, support of a new branch (B5, L15).

use crate::base::bounded::BoundedVec;
use crate::ledger::apply::*;
use crate::ledger::testkit::*;
use crate::types::block::{Block, slot_root};
use crate::types::ids::*;
use crate::types::masternode::*;
use crate::types::vote::*;

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
fn evidence_burns_expels_and_is_valid_once() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let id = net.id(0);
    let evidence = net.double_vote(id, OPERATOR, Height(1));
    net.punish(vec![evidence.clone()]);
    let share = 3_000 * 1_000 / 10_000;
    assert_eq!(
        entry(&net, &id).burned.0,
        1_000 * 100_000_000 / 1_000 * share,
        "M7: 3 P / S"
    );
    assert_eq!(net.state.tip.supply.burned, entry(&net, &id).burned);
    assert_eq!(net.state.validators.len(), 3, "M5: slashing has no floor");
    let input = |net: &Net, evidence: Vec<Evidence>| {
        let mut input = net.input(net.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from(evidence);
        build(&net.coins, &net.state, input).unwrap().0
    };
    let block = input(&net, vec![evidence.clone()]);
    assert!(
        block.slot_part.evidence.is_empty(),
        "M7: one piece in a life"
    );
    let mut forced = block;
    forced.slot_part.evidence = BoundedVec::take_from([evidence]);
    forced.header.slot_root = slot_root(&forced.slot_part);
    assert!(matches!(
        refused(&net, &forced),
        Invalid::Evidence { index: 0, .. }
    ));
    let second = net.double_vote(net.id(1), OPERATOR + 1, Height(1));
    net.punish(vec![second]);
    let share = 3_000 * 3_000 / (9_000 + 1_000);
    assert_eq!(
        entry(&net, &id).burned.0,
        1_000 * 100_000_000 / 1_000 * share,
        "M7: brought up"
    );
    assert_eq!(
        entry(&net, &net.id(1)).burned.0,
        2_000 * 100_000_000 / 1_000 * share
    );
    for _ in 0..20 {
        net.slot_block(vec![]);
    }
    assert_eq!(net.state.registry().len(), 2);
    assert_eq!(
        net.coins_of(OWNER)[0].1.value.0,
        1_000 * 100_000_000 / 1_000 * (1_000 - share),
        "the rest is released"
    );
}

#[test]
fn only_real_offences_are_evidence() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let id = net.id(0);
    let good = net.double_vote(id, OPERATOR, Height(1));
    let Offence::Votes(a, b) = good.offence.clone() else {
        panic!()
    };
    let kept = |offence: Offence| {
        let mut input = net.input(net.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from([Evidence {
            offender: id,
            key: key(OPERATOR).public(),
            offence,
        }]);
        !build(&net.coins, &net.state, input)
            .unwrap()
            .0
            .slot_part
            .evidence
            .is_empty()
    };
    let with = |vote: &Vote, change: &dyn Fn(&mut VoteBody)| {
        let mut vote = vote.clone();
        change(&mut vote.body);
        vote
    };
    assert!(kept(Offence::Votes(a.clone(), b.clone())));
    assert!(
        !kept(Offence::Votes(b.clone(), a.clone())),
        "one order for one pair"
    );
    assert!(
        !kept(Offence::Votes(a.clone(), a.clone())),
        "M7: two different messages"
    );
    assert!(!kept(Offence::Votes(
        a.clone(),
        with(&b, &|v| v.round = Round(1))
    )));
    assert!(!kept(Offence::Votes(
        a.clone(),
        with(&b, &|v| v.branch = Branch(1))
    )));
    let ahead = |v: &Vote| with(v, &|v| v.height = Height(9));
    assert!(
        !kept(Offence::Votes(ahead(&a), ahead(&b))),
        "a height not reached"
    );
    let prevote = |round: u32, valid: Option<u32>| {
        with(&b, &|v| {
            v.step = VoteStep::Prevote;
            v.round = Round(round);
            v.valid_round = valid.map(|r| EraRound {
                era: Era(0),
                round: Round(r),
            });
            v.block = Some(BlockId(crate::crypto::hash::Hash([1; 32])));
        })
    };
    let lock = with(&b, &|v| v.round = Round(2));
    let amnesia = |prevote: Vote| kept(Offence::Amnesia(lock.clone(), prevote));
    assert!(
        amnesia(prevote(3, None)) && amnesia(prevote(3, Some(1))),
        "S6"
    );
    assert!(
        !amnesia(prevote(4, Some(2))),
        "S6: strictly below the precommit's round"
    );
    assert!(!amnesia(prevote(2, Some(1))), "S6: a later round");
    assert!(
        !amnesia(with(&prevote(3, None), &|v| v.block = b.body.block)),
        "S6: another block"
    );
    assert!(
        !amnesia(with(&prevote(3, None), &|v| v.block = None)),
        "S6: nil is never Y"
    );
}

#[test]
fn a_replaced_operator_key_signs_its_last_height_and_stays_punishable() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000, 5_000]);
    let id = net.id(0);
    let update = net.update(0, HOLDER, id, Some(OPERATOR + 500));
    net.attested(&[], vec![update]);
    assert_eq!(
        net.state.last_validators.get(&id).unwrap().operator,
        key(OPERATOR).public()
    );
    assert_eq!(
        net.state.validators.get(&id).unwrap().operator,
        key(OPERATOR + 500).public(),
        "B5.7"
    );
    assert_eq!(entry(&net, &id).payout, program(HOLDER), "B5.6");
    net.attested(&[], vec![]);
    net.attested(&[], vec![]);
    let offered = |evidence: Evidence| {
        let mut input = net.input(net.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from([evidence]);
        build(&net.coins, &net.state, input).unwrap().0
    };
    let wrong = net.double_vote(id, OPERATOR, Height(2));
    assert!(
        offered(wrong.clone()).slot_part.evidence.is_empty(),
        "a key is judged where it was in force"
    );
    let forged = Evidence {
        key: key(OPERATOR + 500).public(),
        ..wrong
    };
    let applied = apply(&net.coins, &net.state, &offered(forged)).unwrap();
    let verdicts = crate::crypto::verify::verify_each(&applied.other_checks);
    assert_eq!(
        verdicts.iter().filter(|ok| !**ok).count(),
        2,
        "naming the other key does not make its signature"
    );
    net.punish(vec![net.double_vote(id, OPERATOR, Height(1))]);
    assert!(
        entry(&net, &id).slashed.is_some(),
        "M1: former keys are punishable"
    );
    for _ in 0..19 {
        net.slot_block(vec![]);
    }
    let formers = &entry(&net, &id).former_operators;
    assert!(formers.is_empty(), "dropped after unbonding");
}

#[test]
fn attestations_are_judged_one_by_one() {
    let net = net(&[1_000, 2_000, 3_000, 4_000]);
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part = net.all_attest(input.time, &[]);
    let (good, _) = build(&net.coins, &net.state, input).unwrap();
    assert_eq!(good.slot_part.attestations.len(), 4);
    let with = |change: &dyn Fn(&mut Vec<Attestation>)| {
        let mut block = good.clone();
        let mut all = block.slot_part.attestations.to_vec();
        change(&mut all);
        block.slot_part.attestations = BoundedVec::take_from(all);
        block.header.slot_root = slot_root(&block.slot_part);
        matches!(refused(&net, &block), Invalid::Attestation { .. })
    };
    assert!(with(&|a| a.swap(0, 1)), "ascending id");
    assert!(with(&|a| a[1] = a[0].clone()), "distinct");
    assert!(
        with(&|a| a[0].body.attester = MasternodeId::default()),
        "of V"
    );
    assert!(with(&|a| a[0].body.slot = Slot(1)), "of the slot before");
    assert!(with(&|a| a[0].body.base = BlockId::default()), "base");
    assert!(with(&|a| a[0].body.era = Era(1)), "era");
    assert!(
        with(&|a| a[0].body.present = crate::types::bitmap::Bitmap::new(5)),
        "exact length"
    );
}

#[test]
fn a_branch_is_adopted_after_the_window_and_the_delay() {
    let mut net = net(&[1_000; 4]);
    let supported = |net: &mut Net, supports: u16| {
        let mut input = net.input(net.next_slot(), 0, vec![]);
        let time = input.time;
        let bodies = net.state.validators.members().iter().map(|m| {
            let mut body = net.attestation(&m.id, time, &[]).body;
            body.supports = Branch(supports);
            net.sign_attestation(body)
        });
        input.slot_part.attestations = BoundedVec::take_from(bodies);
        net.step(input);
    };
    for _ in 0..3 {
        supported(&mut net, 1);
    }
    supported(&mut net, 0);
    assert_eq!(net.state.slots.upgrade.count, 0, "L15: consecutive");
    for _ in 0..4 {
        supported(&mut net, 1);
    }
    assert_eq!(
        net.state.slots.upgrade.activation,
        Some(SlotIndex(12)),
        "window 4, delay 4"
    );
    for _ in 0..4 {
        assert_eq!(net.state.tip.branch, Branch(0));
        net.slot_block(vec![]);
    }
    assert_eq!(
        (net.state.tip.branch, net.state.tip.last_branch),
        (Branch(1), Branch(0))
    );
    let next = build(
        &net.coins,
        &net.state,
        net.input(net.next_slot(), 0, vec![]),
    );
    assert_eq!(
        next.unwrap_err(),
        BuildError::Invalid(Invalid::UnknownBranch(Branch(1))),
        "L15: too old, says so"
    );
}

#[test]
fn evidence_ends_with_unbonding() {
    let mut genesis = genesis(&[1_000, 2_000, 3_000, 4_000], 6);
    genesis.params.unbonding = 3;
    let mut net = Net::new(genesis);
    net.slot_block(vec![]);
    let offence = net.double_vote(net.id(0), OPERATOR, Height(1));
    let kept = |net: &Net| {
        let mut input = net.input(net.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from([offence.clone()]);
        let (block, _) = build(&net.coins, &net.state, input).unwrap();
        !block.slot_part.evidence.is_empty()
    };
    net.slot_block(vec![]);
    net.slot_block(vec![]);
    assert!(
        kept(&net),
        "M7: three slot blocks later is within unbonding"
    );
    net.slot_block(vec![]);
    assert!(!kept(&net), "M7: four are not");
}

#[test]
fn who_is_slashed_earns_nothing_in_that_slot() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part = net.all_attest(input.time, &[]);
    let offence = net.double_vote(net.id(3), OPERATOR + 3, Height(1));
    input.slot_part.evidence = BoundedVec::take_from([offence]);
    net.step(input);
    assert_eq!(entry(&net, &net.id(3)).accrued.0, 0, "B5.5");
    assert!(entry(&net, &net.id(2)).accrued.0 > 0);
}

#[test]
fn statements_are_judged_by_the_key_that_is_named_whatever_tips_they_claim() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000, 5_000]);
    let id = net.id(0);
    let update = net.update(0, HOLDER, id, Some(OPERATOR + 500));
    net.attested(&[], vec![update]);
    let statement = |signer: u64, tip: u64| {
        let body = StatementBody {
            era: Era(0),
            attempt: 0,
            fork: crate::crypto::hash::Hash([1; 32]),
            block: BlockId(crate::crypto::hash::Hash([2; 32])),
            tip_height: Height(tip),
            tip: BlockId(crate::crypto::hash::Hash([3; 32])),
        };
        Statement {
            signature: key(signer).sign(&body.signing_hash(net.state.chain_id())),
            body,
            masternode: id,
        }
    };
    let judged = |signer: u64, tips: [u64; 2], named: u64| {
        let offence = Offence::Statements(statement(signer, tips[0]), statement(signer, tips[1]));
        let mut input = net.input(net.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from([Evidence {
            offender: id,
            key: key(named).public(),
            offence,
        }]);
        let (block, _) = build(&net.coins, &net.state, input).unwrap();
        let applied = apply(&net.coins, &net.state, &block).unwrap();
        block.slot_part.evidence.len() == 1
            && crate::crypto::verify::verify_all(&applied.other_checks)
    };
    let new = OPERATOR + 500;
    assert!(judged(new, [1, 2], new), "heights of the old key's time");
    assert!(
        judged(new, [0, u64::MAX], new),
        "heights nobody ever reached"
    );
    assert!(judged(OPERATOR, [7, 8], OPERATOR), "M1: the former key too");
    assert!(!judged(new, [1, 2], OPERATOR), "another key than signed");
    assert!(!judged(OWNER, [1, 2], OWNER), "a key that is no operator's");
}

#[test]
fn the_last_member_with_power_is_not_slashed_until_there_is_another() {
    let mut net = net(&[1_000, 2_000, 3_000, 4_000]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let mut all: Vec<Evidence> = (0..4)
        .map(|i| net.double_vote(net.id(i as usize), OPERATOR + i, Height(1)))
        .collect();
    all.sort();
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part.evidence = BoundedVec::take_from(all.clone());
    let (mut forced, _) = build(&net.coins, &net.state, input).unwrap();
    assert_eq!(forced.slot_part.evidence.len(), 3, "one stays to decide");
    forced.slot_part.evidence = BoundedVec::take_from(all.clone());
    forced.header.slot_root = slot_root(&forced.slot_part);
    assert!(
        matches!(refused(&net, &forced), Invalid::Evidence { .. }),
        "nobody with power would remain"
    );
    net.punish(all[..3].to_vec());
    assert_eq!(net.state.validators.len(), 1, "M5: slashing has no floor");
    net.slot_block(vec![]);
}
