//! One replica among peers that are played by hand: when it sends heartbeats, what it counts, attests, demands and gives way to.

use super::*;
use crate::base::time::MonoUs;
use crate::crypto::hash::Hash;
use crate::crypto::verify::Verified;
use crate::ledger::apply::{BuildInput, build};
use crate::ledger::testkit::{Net, OPERATOR, genesis, key};
use crate::p2p::messages::{Proposal, Status};
use crate::replica::height::proposal_of;
use crate::replica::machine::Config;
use crate::replica::start::Disks;
use crate::sync::trust::{Anchor, Trust};
use crate::types::address::Network;
use crate::types::bitmap::Bitmap;
use crate::types::block::Commit;
use crate::types::vote::{ProposalBody, SignedProposal};

/// A replica of masternode 0 among `n`, connected to the others, at the beginning of slot 0 after genesis.
struct Bench {
    net: Net,
    replica: Replica,
    begun: WallMs,
}

impl Bench {
    fn at(n: usize, started_ms: u64, unsure: Option<String>) -> Bench {
        let net = Net::new(genesis(&vec![1_000; n], 4));
        let begun = net.genesis.time;
        let anchor = Anchor {
            height: Height(0),
            time: begun,
        };
        let config = Config {
            operator: Some(key(OPERATOR)),
            mempool: Default::default(),
            rules: Default::default(),
            trust: Trust::new(&net.genesis.params, anchor, None, None),
        };
        let disks = Disks {
            state: net.state.clone(),
            certificate: None,
            records: Vec::new(),
            returned: Vec::new(),
            unsure,
        };
        let now = reading(begun, started_ms);
        let (replica, _) = Replica::start(config, disks, now, &net.coins).unwrap();
        let mut bench = Bench {
            net,
            replica,
            begun,
        };
        for i in 1..n {
            let peer = PeerId(i as u64);
            let status = Status {
                clock: begun.plus(started_ms),
                ..Status::default()
            };
            bench.give(started_ms, Input::PeerUp(peer, status));
            let id = bench.net.id(i);
            bench.give(started_ms, Input::PeerMasternode(peer, id));
            bench.frame(started_ms, i, Message::Votes(BoundedVec::new()));
        }
        bench
    }

    fn new(n: usize) -> Bench {
        Bench::at(n, 0, None)
    }

    /// Gives an input; signature checks are done at once. Returns what was sent.
    fn give(&mut self, ms: u64, input: Input) -> Vec<Message> {
        let now = reading(self.begun, ms);
        let (mut inputs, mut sent) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            for effect in self.replica.handle(now, input, &self.net.coins).unwrap() {
                match effect {
                    Effect::Send(_, message) => sent.push(Message::clone(&message)),
                    Effect::Verify(batch) => {
                        inputs.push(Input::Verdicts(Verified::check_many(batch)));
                    }
                    Effect::Fault(peer, why) => panic!("{peer:?} is blamed: {why}"),
                    _ => {}
                }
            }
        }
        sent
    }

    fn frame(&mut self, ms: u64, from: usize, message: Message) -> Vec<Message> {
        let read = ReadAt(reading(self.begun, ms));
        self.give(ms, Input::Frame(PeerId(from as u64), message, read))
    }

    fn tick(&mut self, ms: u64) -> Vec<Message> {
        self.give(ms, Input::Tick)
    }

    fn slot(&self) -> Slot {
        Slot(self.begun.0 / 5_000)
    }

    fn heartbeat(&self, i: usize, sequence: u8) -> Heartbeat {
        let body = HeartbeatBody {
            era: Era(0),
            masternode: self.net.id(i),
            slot: self.slot(),
            sequence,
            height: Height(0),
            block: self.net.state.block(),
        };
        let signature =
            key(OPERATOR + i as u64).sign(&body.signing_hash(self.net.state.chain_id()));
        Heartbeat { body, signature }
    }

    /// Everybody but `silent` is heard in sequences 0 to `last`, the replica's own clock ticking along.
    fn hear(&mut self, last: u8, silent: usize) {
        for sequence in 0..=last {
            let ms = u64::from(sequence) * 500 + 200;
            for i in (1..self.net.genesis.masternodes.len()).filter(|i| *i != silent) {
                let frame = BoundedVec::take_from([self.heartbeat(i, sequence)]);
                self.frame(ms, i, Message::Heartbeats(frame));
            }
            self.tick(ms + 100);
        }
    }

    /// An attestation of masternode `i` for the first slot, naming everybody.
    fn attestation(&self, i: usize) -> Attestation {
        let time = WallMs(self.begun.0 + 5_000);
        self.net.attestation(&self.net.id(i), time, &[])
    }

    /// A slot block of the second slot by the round's leader, with attestations of `attesters`.
    fn proposal(&self, round: u32, attesters: &[usize]) -> Proposal {
        let time = WallMs(self.begun.0 + 5_000);
        let mut parts: Vec<Attestation> = attesters.iter().map(|i| self.attestation(*i)).collect();
        parts.sort_by_key(|a| a.body.attester);
        let proposer = self.net.state.leader(Round(round));
        let input = BuildInput {
            round: Round(round),
            proposer,
            time,
            last_commit: Commit::default(),
            slot_part: SlotPart {
                attestations: BoundedVec::take_from(parts),
                ..SlotPart::default()
            },
            candidates: Vec::new(),
        };
        let (block, _) = build(&self.net.coins, &self.net.state, input).unwrap();
        let body = ProposalBody {
            branch: Branch(0),
            era: Era(0),
            height: Height(1),
            round: Round(round),
            valid_round: None,
            block: block.id(),
        };
        let hash = body.signing_hash(self.net.state.chain_id());
        let signature = self.net.operator(&proposer).sign(&hash);
        let signed = SignedProposal {
            body,
            proposer,
            signature,
        };
        proposal_of(&block, signed)
    }
}

fn reading(begun: WallMs, ms: u64) -> Now {
    Now {
        wall: begun.plus(ms),
        mono: MonoUs(ms * 1_000),
    }
}

fn heartbeats(sent: &[Message]) -> Vec<Heartbeat> {
    let of = |m: &Message| match m {
        Message::Heartbeats(all) => all.iter().cloned().collect(),
        _ => Vec::new(),
    };
    sent.iter().flat_map(of).collect()
}

fn attestations(sent: &[Message]) -> Vec<Attestation> {
    let of = |m: &Message| match m {
        Message::Attestation(one) => Some(Attestation::clone(one)),
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

#[test]
fn one_heartbeat_leaves_in_each_tenth_of_a_slot() {
    let mut bench = Bench::new(4);
    let mut sent = Vec::new();
    for ms in (0..5_000).step_by(20) {
        sent.extend(heartbeats(&bench.tick(ms)));
    }
    let own: Vec<u8> = sent.iter().map(|h| h.body.sequence).collect();
    assert_eq!(own, (0..10).collect::<Vec<u8>>(), "M4: sequences 0 to 9");
    assert!(sent.iter().all(|h| h.body.masternode == bench.net.id(0)));
    let due = bench.replica.live_due(reading(bench.begun, 5_000)).unwrap();
    assert!(
        due.0 <= 5_300_000,
        "it wakes for the next one by itself: {due:?}"
    );
}

#[test]
fn who_is_unsure_sends_heartbeats_and_attests_nothing() {
    let mut bench = Bench::at(4, 0, Some("lost".into()));
    assert_eq!(
        heartbeats(&bench.tick(300)).len(),
        1,
        "B7.3: heartbeats yes"
    );
    bench.hear(8, 9);
    assert!(
        attestations(&bench.tick(4_900)).is_empty(),
        "B7.3: no attestation"
    );
}

#[test]
fn near_the_end_of_a_slot_a_member_attests_whom_it_heard() {
    let mut bench = Bench::new(4);
    bench.hear(8, 3);
    assert!(
        attestations(&bench.tick(4_700)).is_empty(),
        "M4: attest_lead"
    );
    let said = attestations(&bench.tick(4_800));
    let registry = bench.net.state.registry().clone();
    let present = |id| said[0].body.present.get(registry.index_of(&id).unwrap());
    assert_eq!(said.len(), 1);
    assert!(present(bench.net.id(0)) && present(bench.net.id(1)) && present(bench.net.id(2)));
    assert!(!present(bench.net.id(3)), "M4: it was not heard");
    assert!(
        attestations(&bench.tick(4_900)).is_empty(),
        "M4: one for each slot and base"
    );
    let base = bench.net.state.block();
    let asked = bench.frame(
        5_100,
        1,
        Message::GetAttestations((said[0].body.slot, base)),
    );
    assert_eq!(attestations(&asked), said, "asked later it tells the same");
}

#[test]
fn six_of_nine_are_enough_and_five_are_not() {
    for (last, expected) in [(5, true), (4, false)] {
        let mut bench = Bench::new(2);
        bench.hear(last, 9);
        let said = attestations(&bench.tick(4_800));
        let index = bench
            .net
            .state
            .registry()
            .index_of(&bench.net.id(1))
            .unwrap();
        assert_eq!(said[0].body.present.get(index), expected, "M4: {last}");
    }
}

#[test]
fn a_member_that_came_late_attests_when_it_could_hear_enough_and_else_not() {
    for (started, expected) in [(1_400, 1), (1_600, 0)] {
        let mut bench = Bench::at(4, started, None);
        let said = attestations(&bench.tick(4_800));
        assert_eq!(said.len(), expected, "started at {started}");
    }
}

#[test]
fn a_heartbeat_of_another_interval_chain_or_key_counts_nothing() {
    let mut bench = Bench::new(2);
    let id = bench.net.id(1);
    let slot = bench.slot();
    let give = |bench: &mut Bench, heartbeat: Heartbeat| {
        bench.frame(
            2_700,
            1,
            Message::Heartbeats(BoundedVec::take_from([heartbeat])),
        );
        bench.tick(2_750);
        bench.replica.liveness.heartbeats.heard(slot, &id)
    };
    let late = bench.heartbeat(1, 3);
    assert_eq!(give(&mut bench, late), 0, "M4: its own interval");
    let mut other = bench.heartbeat(1, 5);
    other.body.block = BlockId::default();
    let hash = other.body.signing_hash(bench.net.state.chain_id());
    other.signature = key(OPERATOR + 1).sign(&hash);
    assert_eq!(give(&mut bench, other), 0, "M4: on the reader's chain");
    let good = bench.heartbeat(1, 5);
    assert_eq!(give(&mut bench, good.clone()), 1);
    assert_eq!(give(&mut bench, good), 1, "once");
}

#[test]
#[should_panic(expected = "is blamed")]
fn a_heartbeat_with_a_bad_signature_is_the_senders_fault() {
    let mut bench = Bench::new(2);
    let mut forged = bench.heartbeat(1, 0);
    forged.signature = key(OPERATOR).sign(&crate::crypto::hash::Hash::ZERO);
    bench.frame(200, 1, Message::Heartbeats(BoundedVec::take_from([forged])));
    bench.tick(300);
}

#[test]
fn who_holds_a_quorum_of_attestations_demands_them_in_the_first_rounds() {
    let mut bench = Bench::new(4);
    let bare = |bench: &Bench, round| {
        bench
            .replica
            .is_attested_enough(&bench.proposal(round, &[]))
    };
    assert!(bare(&bench, 0), "M4: who holds none accepts");
    for i in 1..4 {
        let frame = Message::Attestation(Box::new(bench.attestation(i)));
        bench.frame(4_900, i, frame);
    }
    assert!(
        !bare(&bench, 0) && !bare(&bench, 2),
        "M4: nil in rounds 0 to 2"
    );
    assert!(bare(&bench, 3), "M4: attestations never stop the chain");
    let full = bench.proposal(0, &[1, 2, 3]);
    assert!(bench.replica.is_attested_enough(&full));
    let thin = bench.proposal(0, &[1, 2]);
    assert!(!bench.replica.is_attested_enough(&thin), "no quorum in it");
}

#[test]
fn a_leader_waits_a_quarter_of_its_timeout_for_attestations_and_no_longer() {
    let bench = |attesters: usize| {
        let mut bench = Bench::new(4);
        bench.replica.height.build_since = Some(MonoUs(5_000_000));
        for i in 1..=attesters {
            let frame = Message::Attestation(Box::new(bench.attestation(i)));
            bench.frame(4_900, i, frame);
        }
        bench.replica.height.build_since = Some(MonoUs(5_000_000));
        move |ms: u64, round: u32| {
            let now = reading(bench.begun, ms);
            bench
                .replica
                .attestation_patience(now, Round(round))
                .is_some()
        }
    };
    let lacking = bench(1);
    assert!(lacking(5_000, 0) && lacking(5_099, 0) && !lacking(5_100, 0));
    assert!(!lacking(5_000, 3), "M4: later rounds ask for none");
    assert!(!lacking(4_990, 0), "no slot block");
    assert!(!bench(2)(5_000, 0), "its own makes a quorum");
}

#[test]
fn attestations_that_do_not_belong_are_not_kept() {
    let mut bench = Bench::new(4);
    let good = bench.attestation(1);
    let set = bench.net.state.validators.clone();
    let mut offer = |body: AttestationBody| {
        let attestation = bench.net.sign_attestation(body);
        bench.frame(4_900, 1, Message::Attestation(Box::new(attestation)));
        bench
            .replica
            .liveness
            .attestations
            .power(good.body.slot, &set)
            .0
    };
    let own = 1_000;
    let with = |change: &dyn Fn(&mut AttestationBody)| {
        let mut body = good.body.clone();
        change(&mut body);
        body
    };
    assert_eq!(
        offer(with(&|b| b.base = BlockId::default())),
        own,
        "another base"
    );
    assert_eq!(offer(with(&|b| b.era = Era(1))), own, "another era");
    assert_eq!(
        offer(with(&|b| b.slot = Slot(b.slot.0 + 5))),
        own,
        "far away"
    );
    assert_eq!(
        offer(with(&|b| b.present = Bitmap::new(3))),
        own,
        "another registry"
    );
    assert_eq!(offer(good.body.clone()), 2_000);
    assert_eq!(
        offer(with(&|b| b.present = Bitmap::new(4))),
        2_000,
        "the first stays"
    );
}

#[test]
fn few_send_together_and_many_apart() {
    for network in Network::ALL {
        let params = Params::of(network);
        let id = |i: u8| MasternodeId(Hash([i; 32]));
        let quarter = params.heartbeat_interval_ms / 4;
        let offsets = |n: usize| (0..=255).map(move |i| (i, n));
        for (i, n) in offsets(4).chain(offsets(4_096)) {
            let at = send_offset(&id(i), n, &params);
            assert!(at >= quarter && at <= 2 * quarter, "in its own interval");
        }
        assert!(send_offset(&id(255), 4, &params) - quarter < gather_ms(&params).max(4));
        assert!(send_offset(&id(255), 4_096, &params) - quarter >= quarter.min(4_000) * 9 / 10);
    }
}

#[test]
fn a_clock_that_is_not_believed_attests_nothing() {
    let mut bench = Bench::new(4);
    bench.hear(8, 9);
    for i in 1..4 {
        let status = Status {
            clock: bench.begun.plus(60_000),
            ..Status::default()
        };
        bench.give(4_400, Input::PeerStatus(PeerId(i), status));
    }
    assert!(attestations(&bench.tick(4_900)).is_empty(), "S4");
}
