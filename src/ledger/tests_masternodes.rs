//! What masternodes must not do, rule by rule: each of these failed with its rule taken away (M1, M2, M5 to M7, B5).

use crate::base::bounded::BoundedVec;
use crate::crypto::hash::Hash;
use crate::crypto::keys::Signature;
use crate::crypto::verify::verify_all;
use crate::ledger::apply::*;
use crate::ledger::evidence::judge_next;
use crate::ledger::registry::{Entry, Standing};
use crate::ledger::testkit::*;
use crate::types::amount::Amount;
use crate::types::block::slot_root;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::*;
use crate::types::transaction::*;
use crate::types::vote::*;

const TIME: u64 = 100_000_000;

fn net(collaterals: &[u64]) -> Net {
    Net::new(genesis(collaterals, 8))
}

fn entry<'a>(net: &'a Net, id: &MasternodeId) -> &'a Entry {
    net.state.registry().get(id).expect("registered")
}

fn voting(net: &Net) -> usize {
    let entries = net.state.registry().entries().iter();
    entries.filter(|e| e.is_voting()).count()
}

/// Whether a slot block takes a transaction, and whether all its signatures hold.
fn taken(net: &Net, tx: &Tx) -> (bool, bool) {
    let input = net.input(net.next_slot(), 0, vec![tx.clone()]);
    let (block, _) = build(&net.coins, &net.state, input).unwrap();
    let applied = apply(&net.coins, &net.state, &block).unwrap();
    let checks = applied.checks.iter().all(|tx| verify_all(&tx.checks));
    (block.transactions.contains(tx), checks)
}

fn registration(owner: u64, operator: u64, net: &Net, auth: &[u64]) -> Tx {
    let payload = codec::encode(&Register {
        owner: key(owner).public(),
        operator: key(operator).public(),
        payout: program(HOLDER),
        endpoint: Endpoint::try_from(b"127.0.0.1:24999".to_vec()).unwrap(),
    });
    let locked = output(HOLDER, 1_000 * TIME);
    net.spend(TxKind::Register, HOLDER, locked, payload, auth)
}

fn update(net: &Net, i: usize, operator: Option<u64>, auth: &[u64]) -> Tx {
    let payload = codec::encode(&Update {
        id: net.id(i),
        operator: operator.map(|o| key(o).public()),
        payout: None,
        endpoint: Some(Endpoint::try_from(b"127.0.0.2:1".to_vec()).unwrap()),
    });
    net.spend(
        TxKind::Update,
        HOLDER,
        output(HOLDER, 50_000),
        payload,
        auth,
    )
}

fn leave(net: &Net, i: usize, auth: &[u64]) -> Tx {
    let payload = codec::encode(&Unregister { id: net.id(i) });
    let back = output(HOLDER, 50_000);
    net.spend(TxKind::Unregister, HOLDER, back, payload, auth)
}

#[test]
fn registry_transactions_are_signed_by_their_own_keys() {
    let net = net(&[1_000; 4]);
    let (owner, operator) = (OWNER + 70, OPERATOR + 70);
    let new = |auth: &[u64]| taken(&net, &registration(owner, operator, &net, auth));
    assert_eq!(new(&[operator]), (true, true));
    assert_eq!(new(&[operator + 1]), (true, false), "M1: possession");
    assert_eq!(new(&[]).0, new(&[operator, operator]).0, "M1: exactly one");
    assert!(!new(&[]).0);
    let change = |key: Option<u64>, auth: &[u64]| taken(&net, &update(&net, 0, key, auth));
    assert_eq!(change(None, &[OWNER]), (true, true));
    assert_eq!(change(None, &[OWNER + 1]), (true, false), "M2: its owner");
    assert_eq!(change(Some(operator), &[OWNER, operator]), (true, true));
    let other = change(Some(operator), &[OWNER, operator + 1]);
    assert_eq!(other, (true, false), "M1: possession of the new key");
    assert!(!change(Some(operator), &[OWNER]).0, "M1: both sign");
    assert_eq!(taken(&net, &leave(&net, 0, &[OWNER])), (true, true));
    let other = taken(&net, &leave(&net, 0, &[OWNER + 1]));
    assert_eq!(other, (true, false), "M2: its owner");
    let pay = net.spend(
        TxKind::Transfer,
        HOLDER,
        output(HOLDER, 50_000),
        Vec::new(),
        &[OWNER],
    );
    assert!(!taken(&net, &pay).0, "L5: a payment has no such signature");
}

#[test]
fn keys_belong_to_one_entry_and_a_full_registry_takes_nobody() {
    let plain = net(&[1_000; 4]);
    let (owner, operator) = (OWNER + 70, OPERATOR + 70);
    let fits = |net: &Net, o: u64, k: u64| taken(net, &registration(o, k, net, &[k])).0;
    assert!(fits(&plain, owner, operator));
    assert!(!fits(&plain, OWNER, operator), "M1: an owner's key");
    assert!(!fits(&plain, owner, OPERATOR), "M1: an operator's key");
    assert!(!fits(&plain, OPERATOR, operator), "M1: in either place");
    let mut genesis = genesis(&[1_000; 4], 8);
    (genesis.params.max_registered, genesis.params.max_validators) = (4, 4);
    assert!(!fits(&Net::new(genesis), owner, operator), "M1: full");
}

#[test]
fn an_endpoint_is_named_anew() {
    let mut net = net(&[1_000; 4]);
    net.slot_block(vec![]);
    let tx = update(&net, 0, None, &[OWNER]);
    net.slot_block(vec![tx]);
    let entry = entry(&net, &net.id(0));
    assert_eq!(entry.endpoint_named, SlotIndex(2), "M4: probes begin anew");
}

fn proposal(proposer: MasternodeId, round: u32, block: u8) -> SignedProposal {
    SignedProposal {
        body: ProposalBody {
            branch: Branch(0),
            era: Era(0),
            height: Height(1),
            round: Round(round),
            valid_round: None,
            block: BlockId(Hash([block; 32])),
        },
        proposer,
        signature: Signature([0; 64]),
    }
}

fn vote(voter: MasternodeId, step: VoteStep, height: u64, round: u32, block: u8) -> Vote {
    Vote {
        body: VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: Height(height),
            round: Round(round),
            valid_round: None,
            block: Some(BlockId(Hash([block; 32]))),
        },
        voter,
        signature: Signature([0; 64]),
    }
}

fn statement(masternode: MasternodeId, attempt: u32, block: u8) -> Statement {
    Statement {
        body: StatementBody {
            era: Era(0),
            attempt,
            fork: Hash([1; 32]),
            block: BlockId(Hash([block; 32])),
            tip_height: Height(1),
            tip: BlockId(Hash([3; 32])),
        },
        masternode,
        signature: Signature([0; 64]),
    }
}

#[test]
fn pairs_that_are_no_offence() {
    let mut net = net(&[1_000; 4]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let (me, other) = (net.id(0), net.id(1));
    let ok = |offence: Offence| {
        let evidence = Evidence {
            offender: me,
            key: key(OPERATOR).public(),
            offence,
        };
        judge_next(&net.state, &evidence).is_ok()
    };
    let p = proposal;
    assert!(ok(Offence::Proposals(p(me, 0, 1), p(me, 0, 2))));
    assert!(!ok(Offence::Proposals(p(me, 0, 2), p(me, 0, 1))), "order");
    assert!(!ok(Offence::Proposals(p(me, 0, 1), p(me, 0, 1))), "equal");
    assert!(!ok(Offence::Proposals(p(me, 0, 1), p(me, 1, 2))), "rounds");
    assert!(!ok(Offence::Proposals(p(me, 0, 1), p(other, 0, 2))));
    let (pre, com) = (VoteStep::Prevote, VoteStep::Precommit);
    assert!(ok(Offence::Votes(
        vote(me, pre, 1, 0, 1),
        vote(me, pre, 1, 0, 2)
    )));
    let mixed = Offence::Votes(vote(me, pre, 1, 0, 1), vote(other, pre, 1, 0, 2));
    assert!(!ok(mixed), "M7: both are the offender's");
    let amnesia = |first: Vote, then: Vote| ok(Offence::Amnesia(first, then));
    assert!(amnesia(vote(me, com, 1, 0, 1), vote(me, pre, 1, 1, 2)));
    assert!(!amnesia(vote(me, pre, 1, 0, 1), vote(me, pre, 1, 1, 2)));
    assert!(!amnesia(vote(me, com, 1, 0, 1), vote(me, com, 1, 1, 2)));
    assert!(!amnesia(vote(me, com, 1, 0, 1), vote(me, pre, 2, 1, 2)));
    assert!(!amnesia(vote(other, com, 1, 0, 1), vote(me, pre, 1, 1, 2)));
    let s = statement;
    assert!(ok(Offence::Statements(s(me, 0, 1), s(me, 0, 2))));
    assert!(!ok(Offence::Statements(s(me, 0, 2), s(me, 0, 1))), "order");
    assert!(!ok(Offence::Statements(s(me, 0, 1), s(me, 0, 1))), "equal");
    assert!(!ok(Offence::Statements(s(me, 0, 1), s(me, 1, 2))), "B6.3");
    assert!(!ok(Offence::Statements(s(me, 0, 1), s(other, 0, 2))));
}

#[test]
fn a_slot_part_is_in_order_and_signed() {
    let mut net = net(&[1_000; 5]);
    net.block(vec![net.pay(HOLDER, HOLDER, 50_000)]);
    let mut input = net.input(net.next_slot(), 0, vec![]);
    input.slot_part = net.all_attest(input.time, &[]);
    let one = net.double_vote(net.id(0), OPERATOR, Height(1));
    input.slot_part.evidence = BoundedVec::take_from([one.clone()]);
    let (good, _) = build(&net.coins, &net.state, input).unwrap();
    let mut twice = good.clone();
    let again = Evidence {
        offence: Offence::Proposals(proposal(net.id(0), 0, 1), proposal(net.id(0), 0, 2)),
        ..one.clone()
    };
    twice.slot_part.evidence = BoundedVec::take_from([one, again]);
    twice.header.slot_root = slot_root(&twice.slot_part);
    let refused = apply(&net.coins, &net.state, &twice);
    let order = Err(ApplyError::Invalid(Invalid::Evidence {
        index: 1,
        why: "offenders are not in ascending order",
    }));
    assert_eq!(refused.map(|_| ()), order, "M7: one piece for each");
    let mut forged = good;
    let mut all = forged.slot_part.attestations.to_vec();
    all[0].signature = all[1].signature;
    forged.slot_part.attestations = BoundedVec::take_from(all);
    forged.header.slot_root = slot_root(&forged.slot_part);
    if let Ok(applied) = apply(&net.coins, &net.state, &forged) {
        assert!(!verify_all(&applied.other_checks), "M4: signed");
    }
}

#[test]
fn dust_is_not_paid_out() {
    let mut genesis = genesis(&[1_000, 2_000, 3_000, 4_000], 8);
    (genesis.params.dust, genesis.params.unbonding) = (200 * TIME, 3);
    let dust = Amount(genesis.params.dust);
    let mut net = Net::new(genesis);
    for _ in 0..4 {
        net.attested(&[], vec![]);
    }
    let small = entry(&net, &net.id(0)).accrued;
    assert!(Amount::ZERO < small && small < dust, "B5.9: it waits");
    assert_eq!(entry(&net, &net.id(3)).accrued, Amount::ZERO, "paid");
    net.block(vec![]);
    let evidence = net.double_vote(net.id(0), OPERATOR, net.state.height());
    net.punish(vec![evidence]);
    let left = entry(&net, &net.id(0)).accrued;
    for _ in 0..2 {
        net.slot_block(vec![]);
    }
    let pot = net.state.tip.supply.pot;
    net.slot_block(vec![]);
    assert!(net.state.registry().get(&net.id(0)).is_none(), "B5.8");
    let more = net.state.tip.supply.pot.minus(pot).unwrap();
    assert_eq!(more, left, "B5.9: parts below dust go to the pot");
}

#[test]
fn the_slashed_and_those_who_never_voted_are_not_in_t() {
    let slash = |net: &mut Net| {
        net.block(vec![]);
        let evidence = net.double_vote(net.id(0), OPERATOR, net.state.height());
        net.punish(vec![evidence]);
    };
    let mut net = net(&[3_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]);
    slash(&mut net);
    let away = [net.id(5), net.id(6)];
    for _ in 0..3 {
        net.attested(&away, vec![]);
    }
    assert_eq!(voting(&net), 4, "M5: T is 6,000 without the slashed");
    let mut net = self::net(&[1_000; 6]);
    let tx = net.register(50, HOLDER, 10_000);
    let dead = MasternodeId(tx.txid.0);
    let away = [net.id(4), net.id(5), dead];
    net.attested(&away, vec![tx]);
    for _ in 0..3 {
        net.attested(&away, vec![]);
    }
    assert_eq!(voting(&net), 4, "M5: T is 6,000 without the newcomer");
}

#[test]
fn jail_stops_at_min_validators_and_at_its_cap() {
    let mut net = net(&[1_000, 1_000, 5_000, 5_000, 5_000]);
    let away = [net.id(0), net.id(1)];
    for _ in 0..4 {
        net.attested(&away, vec![]);
    }
    assert_eq!(voting(&net), 4, "M5: min_validators");
    let mut net = self::net(&[1_000; 9]);
    let away = [net.id(7), net.id(8)];
    net.attested(&away, vec![]);
    net.attested(&away, vec![]);
    let wishes = [0, 1].map(|i| net.unregister(i, HOLDER + i, net.id(i as usize)));
    net.attested(&away, wishes.to_vec());
    let jailed = away.iter().map(|id| entry(&net, id).standing);
    let jailed = jailed.filter(|s| matches!(s, Standing::Jailed { .. }));
    assert_eq!(
        (voting(&net), jailed.count()),
        (6, 1),
        "M5: leavers and jail share S/3"
    );
}

#[test]
fn a_third_sees_presence_and_five_sixths_a_branch() {
    let mut net = net(&[1_000; 4]);
    let mut input = net.input(net.next_slot(), 0, vec![]);
    let (time, absent) = (input.time, [net.id(3)]);
    let members = net.state.validators.members().iter().enumerate();
    let half = members.map(|(i, m)| net.attestation(&m.id, time, &absent[..usize::from(i < 2)]));
    input.slot_part.attestations = BoundedVec::take_from(half);
    net.step(input);
    let seen = entry(&net, &net.id(3)).present;
    assert_eq!(seen, 1, "M5: half of the power saw it");
    let mut net = self::net(&[1_000; 5]);
    let mut input = net.input(net.next_slot(), 0, vec![]);
    let time = input.time;
    let members = net.state.validators.members().iter().enumerate();
    let of = members.map(|(i, m)| {
        let mut body = net.attestation(&m.id, time, &[]).body;
        body.supports = Branch(u16::from(i > 0));
        net.sign_attestation(body)
    });
    input.slot_part.attestations = BoundedVec::take_from(of);
    net.step(input);
    let count = net.state.slots.upgrade.count;
    assert_eq!(count, 0, "L15: four of five are below five sixths");
}

#[test]
fn a_small_offender_loses_the_least_share() {
    let mut net = net(&[1_000, 99_000, 50_000, 50_000]);
    net.block(vec![]);
    let evidence = net.double_vote(net.id(0), OPERATOR, net.state.height());
    net.punish(vec![evidence]);
    let burned = entry(&net, &net.id(0)).burned.0;
    assert_eq!(burned, 50 * TIME, "M7: slash_base, 50 permille");
}
