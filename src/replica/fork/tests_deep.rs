//! A fork too deep to go back from: durable before it is said, there at every start, over with its cause.

use crate::base::bounded::BoundedVec;
use crate::base::time::{MonoUs, Now};
use crate::crypto::verify::Verified;
use crate::ledger::coins::{Coin, CoinView, MemoryCoins, ViewError};
use crate::ledger::testkit::{Net, OPERATOR, genesis, key};
use crate::p2p::messages::{Message, PeerId, Status};
use crate::replica::gate::Held;
use crate::replica::io::*;
use crate::replica::machine::{Config, Replica};
use crate::replica::record::{DeepRecord, Record};
use crate::replica::start::Disks;
use crate::sync::trust::{Anchor, Root, Trust};
use crate::types::bitmap::Bitmap;
use crate::types::block::{Block, Certificate, Commit, Header};
use crate::types::fork::{Decision, ForkProof, RecoveryCert};
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Heights that can be taken back.
const REORG: u64 = 2;

/// A ledger with decisions.
struct Disk {
    coins: MemoryCoins,
    decisions: BTreeMap<Height, Decision>,
    /// Nobody comes or goes.
    set: Arc<ValidatorSet>,
}

impl Disk {
    fn of(net: &Net, decisions: BTreeMap<Height, Decision>) -> Disk {
        Disk {
            coins: net.coins.clone(),
            decisions,
            set: net.state.validators.clone(),
        }
    }
}

impl CoinView for Disk {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        self.coins.coin(outpoint)
    }
    fn decision(&self, height: Height) -> Result<Option<Decision>, ViewError> {
        Ok(self.decisions.get(&height).cloned())
    }
    fn deciders_of(&self, _: Height) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        Ok(Some(self.set.clone()))
    }
}

/// A chain of `length` blocks, slot blocks where `slots` says so; `mark` makes it another one than others.
fn chain(length: u64, slots: &[u64], mark: u64) -> (Net, Disk) {
    let mut genesis = genesis(&[1_000; 4], 4);
    genesis.params.max_reorg = REORG;
    let mut net = Net::new(genesis);
    let mut decisions = BTreeMap::new();
    for height in 1..=length {
        let pay = |net: &Net| net.pay(crate::ledger::testkit::HOLDER, 1 + mark, 1_000_000);
        let (block, _) = match (slots.contains(&height), height) {
            (true, _) => net.slot_block(vec![]),
            (false, 2) => {
                let paid = pay(&net);
                net.block(vec![paid])
            }
            (false, _) => net.block(vec![]),
        };
        decisions.insert(Height(height), decided(&net, &block));
    }
    let disk = Disk::of(&net, decisions);
    (net, disk)
}

fn decided(net: &Net, block: &Block) -> Decision {
    Decision {
        header: block.header.clone(),
        certificate: Certificate {
            height: block.header.height,
            block: block.id(),
            commit: net.last_commit(),
        },
    }
}

fn now(net: &Net) -> Now {
    Now {
        wall: net.state.tip.time.plus(1_000),
        mono: MonoUs(1_000_000),
    }
}

/// A start from these disks, what the operator vouches for, and whether the ledger holds that.
fn start(
    net: &Net,
    disk: &Disk,
    record: Option<&DeepRecord>,
    root: Option<(Height, BlockId)>,
) -> (Replica, Vec<Effect>) {
    let anchor = Anchor {
        height: Height(0),
        time: net.genesis.time,
    };
    let root = root.map(|(height, id)| Root {
        height,
        id,
        said: None,
    });
    let held = root.and_then(|root| disk.decisions.get(&root.height));
    let met = held.map(|decision| decision.header.time);
    let config = Config {
        operator: Some(key(OPERATOR)),
        mempool: Default::default(),
        rules: Default::default(),
        trust: Trust::new(&net.genesis.params, anchor, root, met),
    };
    let record = record.map(|record| Record::Deep(Box::new(record.clone())));
    let disks = Disks {
        state: net.state.clone(),
        certificate: None,
        records: record.iter().map(|r| (r.key(), r.value())).collect(),
        returned: Vec::new(),
        unsure: None,
    };
    Replica::start(config, disks, now(net), disk).unwrap()
}

/// Two chains that differ from height 2 on, and the record that each side would keep at `height`.
fn split(height: u64) -> ((Net, Disk), (Net, Disk), DeepRecord) {
    let (own, other) = (chain(5, &[1], 1), chain(5, &[1], 2));
    let of = |disk: &Disk| disk.decisions[&Height(height)].clone();
    let record = DeepRecord {
        own: of(&own.1),
        other: of(&other.1),
        from: Height(2),
    };
    (own, other, record)
}

fn is_halted(replica: &Replica, net: &Net) -> bool {
    let info = replica.consensus(now(net));
    let open = replica.fork().is_some_and(|fork| fork.open);
    let said = info
        .signing
        .as_ref()
        .is_err_and(|why| why.contains("FORK deeper"));
    assert_eq!(open, said, "what operators see is what the node does");
    assert_eq!(open, info.forked.is_some(), "alarms, of observers too");
    assert_eq!(open, replica.contested().is_some());
    open
}

/// Whether these effects take the record off the disk.
fn forgets(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, Effect::WriteSigner(_, batch) if batch.contains(&(b"d".to_vec(), None)))
    })
}

#[test]
fn a_start_on_the_same_chain_is_halted_at_once() {
    let ((net, disk), _, record) = split(4);
    let (replica, effects) = start(&net, &disk, Some(&record), None);
    assert!(is_halted(&replica, &net), "no peer, and halted");
    assert!(!forgets(&effects));
    let told = |e: &Effect| matches!(e, Effect::Event(Event::ForkTooDeep(Height(4), _)));
    assert!(effects.iter().any(told), "the log says so at every start");
    let fork = replica.fork().unwrap();
    assert_eq!(fork.held, Some(record.own.block()));
    assert_eq!(fork.branches.len(), 2);
    for word in ["timed db rebuild", "timed trust 4:"] {
        assert!(fork.advice.contains(word), "{}", fork.advice);
    }
    assert_eq!(replica.contested(), Some(Height(2)));
}

#[test]
fn the_halt_ends_with_its_cause_and_not_before() {
    let ((net, disk), (far, theirs), record) = split(4);
    // The ledger was moved aside: nothing contradicts anything until the height is there again.
    let (fresh, empty) = chain(0, &[], 1);
    let (replica, effects) = start(&fresh, &empty, Some(&record), None);
    assert!(!is_halted(&replica, &fresh) && !forgets(&effects));
    // Fetched anew, it is the other chain: over, and the disk forgets it.
    let (replica, effects) = start(&far, &theirs, Some(&record), None);
    assert!(!is_halted(&replica, &far) && forgets(&effects));
    // A word about another height, or one that this chain does not hold, is no word about this fork.
    let elsewhere = (Height(3), disk.decisions[&Height(3)].block());
    let (replica, effects) = start(&net, &disk, Some(&record), Some(elsewhere));
    assert!(is_halted(&replica, &net) && !forgets(&effects));
    // Operators have agreed on the own one, or on what builds on it.
    for height in [4, 5].map(Height) {
        let root = (height, disk.decisions[&height].block());
        let (replica, effects) = start(&net, &disk, Some(&record), Some(root));
        assert!(!is_halted(&replica, &net) && forgets(&effects), "{height}");
    }
    // The block is kept no more: only the operator's word at this very height ends it.
    let mut pruned = Disk::of(&net, disk.decisions.clone());
    pruned.decisions.remove(&Height(4));
    let (replica, _) = start(&net, &pruned, Some(&record), None);
    assert!(is_halted(&replica, &net));
    let root = (Height(4), record.other.block());
    let (replica, effects) = start(&net, &pruned, Some(&record), Some(root));
    assert!(!is_halted(&replica, &net) && forgets(&effects));
}

#[test]
fn the_halt_is_durable_before_anybody_is_told() {
    let ((net, disk), _, record) = split(4);
    let (mut replica, _) = start(&net, &disk, None, None);
    replica.gate.flush();
    replica.gate.hold(Held::Recovered);
    replica.too_deep(&record.other, &disk).unwrap();
    assert!(
        replica.consensus(now(&net)).signing.is_err(),
        "nothing is signed from here on"
    );
    assert!(replica.fork().is_none(), "and nothing is said yet");
    let written = replica.handle(now(&net), Input::Tick, &disk).unwrap();
    let put = |e: &Effect| match e {
        Effect::WriteSigner(number, batch) => {
            let key = batch.iter().any(|(k, v)| k == b"d" && v.is_some());
            key.then_some(*number)
        }
        _ => None,
    };
    let number = written.iter().find_map(put).expect("it is written");
    let told = |e: &Effect| matches!(e, Effect::Event(Event::ForkTooDeep(..)));
    assert!(!written.iter().any(told), "S5");
    let after = replica
        .handle(now(&net), Input::SignerDurable(number), &disk)
        .unwrap();
    assert!(after.iter().any(told) && is_halted(&replica, &net));
    // Another height of the same fork changes nothing: the advice stays as it was printed.
    let mut again = record.other.clone();
    again.header.height = Height(5);
    replica.too_deep(&again, &disk).unwrap();
    assert_eq!(replica.fork().unwrap().height, Height(4));
}

#[test]
fn what_two_headers_have_in_common_is_not_contested() {
    let from = |own: (Net, Disk), other: (Net, Disk), height: u64| {
        let (mut replica, _) = start(&own.0, &own.1, None, None);
        let found = &other.1.decisions[&Height(height)];
        replica.too_deep(found, &own.1).unwrap();
        replica.contested()
    };
    let both = |slots: &[u64]| (chain(5, slots, 1), chain(5, slots, 2));
    let (own, other) = both(&[1]);
    assert_eq!(from(own, other, 4), Some(Height(2)), "above the slot block");
    let (own, other) = both(&[1]);
    assert_eq!(from(own, other, 2), Some(Height(2)), "one parent");
    let (own, other) = both(&[3]);
    assert_eq!(
        from(own, other, 4),
        Some(Height(1)),
        "not even the slot block is the same: all that unbonding reaches"
    );
}

/// `header` decided in `era` by these members.
fn decided_by(net: &Net, mut header: Header, era: u32, round: u32, members: &[usize]) -> Decision {
    header.era = header.era.max(Era(era));
    let at = EraRound {
        era: Era(era),
        round: Round(round),
    };
    let set = &net.state.last_validators;
    let mut signers: Vec<usize> = members
        .iter()
        .filter_map(|i| set.index_of(&net.id(*i)))
        .collect();
    signers.sort_unstable();
    let mut commit = Commit {
        at,
        signers: Bitmap::from_ones(set.len(), signers.iter().copied()),
        signatures: BoundedVec::new(),
    };
    let body = commit.body(header.branch, header.height, header.id());
    let message = body.signing_hash(net.state.chain_id());
    let sign = |i: &usize| net.operator(&set.members()[*i].id).sign(&message);
    commit.signatures = BoundedVec::take_from(signers.iter().map(sign));
    Decision {
        certificate: Certificate {
            height: header.height,
            block: header.id(),
            commit,
        },
        header,
    }
}

/// What a replica that holds `own` at its tip makes of `found` when members 0 and 1 of six, with two thirds of the power, are
/// convicted in era 0: whether it halts.
fn judged(own: (u32, &[usize]), found: (u32, &[usize]), ended: bool) -> bool {
    let mut net = Net::new(genesis(&[4_000, 4_000, 1_000, 1_000, 1_000, 1_000], 4));
    let mut decisions = BTreeMap::new();
    for height in 1..=3 {
        let (block, _) = net.block(vec![]);
        decisions.insert(Height(height), decided(&net, &block));
    }
    let header = |time: u64| {
        let mut header = decisions[&Height(3)].header.clone();
        header.time = header.time.plus(time);
        header
    };
    let mine = decided_by(&net, decisions[&Height(3)].header.clone(), own.0, 1, own.1);
    let theirs = decided_by(&net, header(1), found.0, 1, found.1);
    let culprits = [0, 1].map(|i| net.double_vote(net.id(i), OPERATOR + i as u64, Height(2)));
    let cert = RecoveryCert {
        fork: ForkProof::of(mine.clone(), theirs.clone()),
        era: Era(0),
        attempt: 0,
        block: mine.block(),
        culprits: BoundedVec::take_from(culprits),
        statements: BoundedVec::new(),
    };
    decisions.insert(Height(3), mine.clone());
    let disk = Disk::of(&net, decisions);
    // Who crossed has barred the culprits; who did not knows of them by the certificate alone.
    if own.0 > 0 {
        let barred = [net.id(0), net.id(1)];
        net.state.last_validators = Arc::new(net.state.last_validators.without(&barred));
        net.state.tip.era = Era(1);
    }
    let (mut replica, _) = start(&net, &disk, None, None);
    if ended {
        replica.forks.certs.insert(Era(0), cert);
    }
    let peer = PeerId(7);
    let why = "it proves nothing";
    replica
        .judge_contradiction(peer, theirs, &mine, why, &disk)
        .unwrap();
    let mut inputs = vec![Input::Tick];
    while let Some(input) = inputs.pop() {
        for effect in replica.handle(now(&net), input, &disk).unwrap() {
            match effect {
                Effect::Verify(batch) => inputs.push(Input::Verdicts(Verified::check_many(batch))),
                Effect::WriteSigner(number, _) => inputs.push(Input::SignerDurable(number)),
                Effect::Fault(_, why) => panic!("blamed: {why}"),
                _ => {}
            }
        }
    }
    let halted = replica.fork().filter(|fork| fork.open);
    if let Some(fork) = &halted {
        assert!(fork.advice.contains("two eras"), "{}", fork.advice);
        assert_eq!(replica.contested(), Some(Height(3)), "one parent");
    }
    halted.is_some()
}

#[test]
fn a_decision_of_an_era_that_is_over_halts_who_holds_it() {
    let (old, new) = ([0, 1, 2], [3, 4, 5]);
    assert!(
        judged((0, &old), (1, &new), true),
        "more than two thirds of those without guilt have decided another block"
    );
    assert!(
        !judged((0, &old), (1, &new), false),
        "an era of which no certificate is known is a claim"
    );
    assert!(
        !judged((0, &old), (1, &[0, 1, 3]), false),
        "whoever signs in it"
    );
    assert!(
        !judged((0, &old), (1, &[4, 5]), true),
        "two of four are no quorum of it"
    );
    assert!(
        !judged((0, &old), (1, &[0, 1, 4, 5]), true),
        "culprits have no vote in it"
    );
    assert!(
        !judged((1, &new), (0, &old), true),
        "culprits may sign in the era that is over: who crossed goes on"
    );
    assert!(
        judged((1, &new), (0, &[0, 1, 3, 4, 5]), true),
        "unless those without guilt have decided both"
    );
}

/// A peer on the other chain, of the same height, is met: whether this replica halts, and what it asked for.
fn meets(
    replica: &mut Replica,
    (net, disk): &(Net, Disk),
    theirs: &Disk,
    answers: impl Fn(Height) -> bool,
) -> (bool, Vec<Height>) {
    let peer = PeerId(7);
    let status = Status {
        height: net.state.height(),
        block: theirs.decisions[&net.state.height()].block(),
        ..Status::default()
    };
    let mut asked = Vec::new();
    let mut inputs = vec![Input::PeerStatus(peer, status), Input::PeerUp(peer, status)];
    let mut at = now(net);
    loop {
        let input = inputs.pop().unwrap_or(Input::Tick);
        if matches!(input, Input::Tick) {
            at.mono = at.mono.plus_ms(1_000);
        }
        for effect in replica.handle(at, input, disk).unwrap() {
            match effect {
                Effect::Verify(batch) => inputs.push(Input::Verdicts(Verified::check_many(batch))),
                Effect::WriteSigner(number, _) => inputs.push(Input::SignerDurable(number)),
                Effect::Send(_, message) => {
                    if let Message::GetDecision(height) = &*message {
                        asked.push(*height);
                        let shown = theirs.decisions[height].clone();
                        let shown = Message::Decision(Box::new(shown));
                        let read = ReadAt(at);
                        inputs.extend(answers(*height).then_some(Input::Frame(peer, shown, read)));
                    }
                }
                Effect::Fault(_, why) => panic!("blamed: {why}"),
                _ => {}
            }
        }
        if inputs.is_empty() && at.mono > now(net).mono.plus_ms(8_000) {
            return (is_halted(replica, net), asked);
        }
    }
}

#[test]
fn who_comes_back_from_a_branch_that_was_given_up_halts_nobody() {
    let sides = || (chain(5, &[], 1), chain(5, &[], 2));
    let floor = Height(5 - REORG);
    let (own, other) = sides();
    let (mut replica, _) = start(&own.0, &own.1, None, None);
    let (halted, asked) = meets(&mut replica, &own, &other.1, |_| true);
    assert!(halted, "F5: both have been decided");
    assert_eq!(asked, [floor], "where undo ends");

    // The operator vouches for the own chain, from the fork on or above it.
    for height in [2, 3, 5].map(Height) {
        let (own, other) = sides();
        let root = (height, own.1.decisions[&height].block());
        let (mut replica, _) = start(&own.0, &own.1, None, Some(root));
        let (halted, asked) = meets(&mut replica, &own, &other.1, |_| true);
        assert!(!halted, "{height} is settled");
        assert!(asked.starts_with(&[floor]) && asked.len() < 3, "{asked:?}");
    }
    // A fork ended for the own block.
    for height in [2, 3].map(Height) {
        let (own, other) = sides();
        let (mut replica, _) = start(&own.0, &own.1, None, None);
        replica.forks.pin = Some((height, own.1.decisions[&height].block()));
        assert!(!meets(&mut replica, &own, &other.1, |_| true).0, "{height}");
    }
    // What is settled below the fork settles nothing above; nor does silence.
    for (height, silent) in [(1, false), (2, true)] {
        let (own, other) = sides();
        let root = (Height(height), own.1.decisions[&Height(height)].block());
        let (mut replica, _) = start(&own.0, &own.1, None, Some(root));
        let answers = |at: Height| !silent || at == floor;
        let (halted, asked) = meets(&mut replica, &own, &other.1, answers);
        assert!(halted, "the fork is above, or nobody says where: {asked:?}");
        assert_eq!(asked, [floor, Height(height)]);
    }
}

#[test]
fn the_end_of_a_fork_is_contested_until_the_era_is_crossed_and_only_where_blocks_are() {
    let (_, _, record) = split(4);
    let cert = RecoveryCert {
        fork: ForkProof::of(record.own.clone(), record.other),
        era: Era(0),
        attempt: 1,
        block: record.own.block(),
        culprits: BoundedVec::new(),
        statements: BoundedVec::new(),
    };
    for (length, contested) in [(3, None), (5, Some(Height(4)))] {
        let (net, disk) = chain(length, &[1], 1);
        let (mut replica, _) = start(&net, &disk, None, None);
        replica.forks.certs.insert(Era(0), cert.clone());
        assert_eq!(replica.contested(), contested, "at height {length}");
        replica.state.tip.era = Era(1);
        assert_eq!(replica.contested(), None, "crossed: what is there stays");
    }
}
