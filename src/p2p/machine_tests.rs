//! Stories of two or three peer machines wired by hand.

use super::dialing::BACKOFF_CAP_MS;
use super::*;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;

fn secret(i: u8) -> SecretKey {
    SecretKey::from_seed(&[i; 32])
}

fn machine(i: u8, targets: &[&str]) -> Machine {
    Machine::new(Config {
        chain: ChainId(Hash([9; 32])),
        node_key: secret(i).public(),
        operator: Some(secret(i + 100)),
        agent: "test".into(),
        supports: Branch(0),
        endpoint: None,
        targets: targets.iter().map(|t| t.to_string()).collect(),
        ping_interval_ms: 1_000,
        inbound_max: 8,
        status: Status {
            height: Height(u64::from(i)),
            ..Status::default()
        },
        seed: u64::from(i),
    })
}

fn at(ms: u64) -> Now {
    Now {
        wall: WallMs(ms),
        mono: MonoUs(ms * 1_000),
    }
}

fn link(peer: u64, key: u8, target: Option<usize>) -> Input {
    let (peer, key) = (PeerId(peer), secret(key).public());
    Input::Connected(Link {
        peer,
        key,
        target,
        exporter: [7; 32],
        address: "a".into(),
    })
}

fn sent(effects: &[Effect]) -> Vec<Message> {
    let message = |e: &Effect| {
        if let Effect::Send(_, m) = e {
            Some(m.clone())
        } else {
            None
        }
    };
    effects.iter().filter_map(message).collect()
}

fn operators(of: &[u8]) -> Input {
    Input::Operators(
        of.iter()
            .map(|i| (MasternodeId(Hash([*i; 32])), secret(i + 100).public()))
            .collect(),
    )
}

/// Connects a (dials) to b and carries frames until both are silent; returns the effects of each.
fn meet(
    a: &mut Machine,
    b: &mut Machine,
    (ka, kb): (u8, u8),
    now: Now,
) -> (Vec<Effect>, Vec<Effect>) {
    let mut fa = a.handle(now, link(1, kb, Some(0)));
    let mut fb = b.handle(now, link(2, ka, None));
    let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
    while !fa.is_empty() || !fb.is_empty() {
        let (to_b, to_a) = (sent(&fa), sent(&fb));
        all_a.append(&mut fa);
        all_b.append(&mut fb);
        to_b.into_iter()
            .for_each(|m| fb.extend(b.handle(now, Input::Frame(PeerId(2), m))));
        to_a.into_iter()
            .for_each(|m| fa.extend(a.handle(now, Input::Frame(PeerId(1), m))));
    }
    (all_a, all_b)
}

#[test]
fn two_masternodes_greet_and_prove_their_keys() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[1, 2]));
    let (fa, fb) = meet(&mut a, &mut b, (1, 2), at(0));
    assert!(
        fa.contains(&Effect::Masternode(PeerId(1), MasternodeId(Hash([2; 32])))),
        "{fa:?}"
    );
    assert!(fb.contains(&Effect::Masternode(PeerId(2), MasternodeId(Hash([1; 32])))));
}

#[test]
fn a_proof_of_another_session_or_direction_is_refused() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1]));
    b.handle(at(0), operators(&[1]));
    let (fa, _) = meet(&mut a, &mut b, (1, 2), at(0));
    let proof = sent(&fa)
        .into_iter()
        .find(|m| matches!(m, Message::OperatorProof(_)))
        .unwrap();
    let mut c = machine(3, &[]);
    c.handle(at(0), operators(&[1]));
    c.handle(at(0), link(5, 1, None));
    let hello = sent(&fa)
        .into_iter()
        .find(|m| matches!(m, Message::Hello(_)))
        .unwrap();
    c.handle(at(0), Input::Frame(PeerId(5), hello));
    let out = c.handle(at(0), Input::Frame(PeerId(5), proof));
    assert!(
        matches!(out[0], Effect::Close { fault: true, .. }),
        "P1: a proof is bound to both keys: {out:?}"
    );
}

#[test]
fn before_hello_only_hello_is_read_and_networks_do_not_mix() {
    let mut a = machine(1, &[]);
    a.handle(at(0), link(1, 2, None));
    let out = a.handle(
        at(0),
        Input::Frame(PeerId(1), Message::Ping(Status::default())),
    );
    assert!(matches!(out[0], Effect::Close { fault: true, .. }), "P1");
    let mut b = machine(2, &[]);
    b.config.chain = ChainId(Hash([8; 32]));
    let mut c = machine(3, &["b"]);
    let (_, fb) = meet(&mut c, &mut b, (3, 2), at(0));
    assert!(
        fb.iter()
            .any(|e| matches!(e, Effect::Close { fault: false, .. })),
        "another network is no fault"
    );
    assert!(!fb.iter().any(|e| matches!(e, Effect::Up(..))));
}

#[test]
fn both_ends_keep_the_same_of_two_connections() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &["a"]));
    meet(&mut a, &mut b, (1, 2), at(0));
    let first_stays_at_a = secret(1).public() < secret(2).public();
    // Now b's dial arrives as well: peer 3 at a, peer 4 at b.
    let hello = |m: &mut Machine, l: Input| sent(&m.handle(at(1), l))[0].clone();
    let from_b = hello(&mut b, link(4, 1, Some(0)));
    let from_a = hello(&mut a, link(3, 2, None));
    let out_a = a.handle(at(1), Input::Frame(PeerId(3), from_b));
    let out_b = b.handle(at(1), Input::Frame(PeerId(4), from_a));
    let closed = |out: &[Effect]| {
        out.iter().find_map(|e| {
            if let Effect::Close { peer, .. } = e {
                Some(*peer)
            } else {
                None
            }
        })
    };
    let (a_closed, b_closed) = (closed(&out_a).unwrap(), closed(&out_b).unwrap());
    let expect = if first_stays_at_a {
        (PeerId(3), PeerId(4))
    } else {
        (PeerId(1), PeerId(2))
    };
    assert_eq!(
        (a_closed, b_closed),
        expect,
        "P1: the one dialled by the lower node key stays, on both ends"
    );
}

#[test]
fn silent_peers_are_closed_and_targets_dialled_again_with_backoff() {
    let mut a = machine(1, &["b"]);
    let first = a.handle(at(0), Input::Tick);
    assert_eq!(first, vec![Effect::Dial(0, "b".into())]);
    let mut waits = Vec::new();
    let mut now = 0;
    for _ in 0..12 {
        a.handle(at(now), Input::DialFailed(0));
        let next = a.deadline().unwrap().0 / 1_000;
        waits.push(next - now);
        now = next + 1;
        assert_eq!(
            a.handle(at(now), Input::Tick),
            vec![Effect::Dial(0, "b".into())]
        );
    }
    assert!(
        waits[0] < 250 && waits[11] >= BACKOFF_CAP_MS && waits[11] < BACKOFF_CAP_MS + 200,
        "{waits:?}"
    );
    a.handle(at(now), link(1, 2, Some(0)));
    let out = a.handle(at(now + HELLO_TIMEOUT_MS), Input::Tick);
    assert!(
        matches!(out[0], Effect::Close { fault: false, .. }),
        "no Hello in time: {out:?}"
    );
}

#[test]
fn dead_peers_are_noticed_by_unanswered_pings() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    meet(&mut a, &mut b, (1, 2), at(0));
    let down = loop {
        let now = a.deadline().unwrap().0 / 1_000;
        let out = a.handle(at(now), Input::Tick);
        if out.contains(&Effect::Down(PeerId(1))) {
            break now;
        }
        assert!(now < 60_000, "B2: dead after 3 missed pings");
    };
    assert!(down >= 3_000, "not before three pings were missed: {down}");
}

/// A node that lost its signer store asks its peers how far they are (B7 step 4). After a power cut all had just started, had
/// decided nothing since, and greeted with height 0: the store was trusted again far below votes of its own.
#[test]
fn the_first_word_of_a_node_is_where_it_stands() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    let (fa, _) = meet(&mut a, &mut b, (1, 2), at(0));
    let told = fa.iter().find_map(|e| {
        if let Effect::Up(_, facts) = e {
            Some(facts.status.height)
        } else {
            None
        }
    });
    assert_eq!(told, Some(Height(2)), "B7 step 4");
}

/// Carries frames between a's connection 1 and b's connection 2 until both are silent.
fn carry(
    a: &mut Machine,
    b: &mut Machine,
    mut fa: Vec<Effect>,
    mut fb: Vec<Effect>,
) -> [Vec<Effect>; 2] {
    let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
    while !fa.is_empty() || !fb.is_empty() {
        let (to_b, to_a) = (sent(&fa), sent(&fb));
        all_a.append(&mut fa);
        all_b.append(&mut fb);
        to_b.into_iter()
            .for_each(|m| fb.extend(b.handle(at(1), Input::Frame(PeerId(2), m))));
        to_a.into_iter()
            .for_each(|m| fa.extend(a.handle(at(1), Input::Frame(PeerId(1), m))));
    }
    [all_a, all_b]
}

fn probe(of: u8) -> Input {
    Input::Probe(MasternodeId(Hash([of; 32])), "there".into())
}

#[test]
fn a_probe_reaches_the_key_that_the_registry_names_and_is_no_peer() {
    let (mut a, mut b) = (machine(1, &[]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[1, 2]));
    let dial = a.handle(at(0), probe(2));
    assert_eq!(dial, vec![Effect::Dial(TARGET_COUNT_MAX, "there".into())]);
    assert!(a.handle(at(0), probe(2)).is_empty(), "one at a time");
    let fa = a.handle(at(0), link(1, 2, Some(TARGET_COUNT_MAX)));
    let fb = b.handle(at(0), link(2, 1, None));
    let [fa, fb] = carry(&mut a, &mut b, fa, fb);
    let reached = Effect::Reached(MasternodeId(Hash([2; 32])), "there".into());
    assert!(fa.contains(&reached), "M4: {fa:?}");
    assert!(fb.contains(&Effect::Probed));
    let up = |e: &Effect| matches!(e, Effect::Up(..) | Effect::Masternode(..));
    assert!(!fa.iter().chain(&fb).any(up), "a probe is no peer");
    assert!(
        fa.iter()
            .any(|e| matches!(e, Effect::Close { fault: false, .. })),
        "M4: closed at once"
    );
    assert!(a.peers.is_empty() && a.probes.iter().all(Option::is_none));
}

#[test]
fn a_probe_that_finds_somebody_else_reaches_nobody() {
    let (mut a, mut b) = (machine(1, &[]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2, 3]));
    b.handle(at(0), operators(&[1, 2, 3]));
    a.handle(at(0), probe(3));
    let fa = a.handle(at(0), link(1, 2, Some(TARGET_COUNT_MAX)));
    let fb = b.handle(at(0), link(2, 1, None));
    let [fa, _] = carry(&mut a, &mut b, fa, fb);
    assert!(
        !fa.iter().any(|e| matches!(e, Effect::Reached(..))),
        "{fa:?}"
    );
    let dead = a.handle(at(1), probe(3));
    assert_eq!(dead, vec![Effect::Dial(TARGET_COUNT_MAX, "there".into())]);
    assert!(
        a.handle(at(1), Input::DialFailed(TARGET_COUNT_MAX))
            .is_empty()
    );
    assert!(
        a.probes.iter().all(Option::is_none),
        "a failure says nothing"
    );
}

#[test]
fn probes_do_not_disturb_the_connection_that_is_there() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[1, 2]));
    meet(&mut a, &mut b, (1, 2), at(0));
    assert_eq!(
        b.handle(at(1), probe(1)).len(),
        1,
        "b was dialled: it must dial itself"
    );
    let fb = b.handle(at(1), link(4, 1, Some(TARGET_COUNT_MAX)));
    let out = a.handle(at(1), link(3, 2, None));
    let hello = sent(&fb).remove(0);
    let answers = a.handle(at(1), Input::Frame(PeerId(3), hello));
    let mut back = Vec::new();
    for frame in sent(&out).into_iter().chain(sent(&answers)) {
        back.extend(b.handle(at(1), Input::Frame(PeerId(4), frame)));
    }
    assert!(back.iter().any(|e| matches!(e, Effect::Reached(..))));
    assert!(a.peers.contains_key(&PeerId(1)) && b.peers.contains_key(&PeerId(2)));
    let reached = a.handle(at(1), Input::Probe(MasternodeId(Hash([2; 32])), "b".into()));
    assert!(
        matches!(reached[..], [Effect::Reached(..)]),
        "its own dial to that address stands and is proved: {reached:?}"
    );
}

#[test]
fn a_key_that_comes_to_be_registered_is_shown_to_peers_that_are_there() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    let (_, fb) = meet(&mut a, &mut b, (1, 2), at(0));
    assert!(!fb.iter().any(|e| matches!(e, Effect::Masternode(..))));
    b.handle(at(1), operators(&[1]));
    let shown = a.handle(at(1), operators(&[1]));
    let [_, fb] = carry(&mut a, &mut b, shown, Vec::new());
    assert!(fb.contains(&Effect::Masternode(PeerId(2), MasternodeId(Hash([1; 32])))));
    assert!(a.handle(at(2), operators(&[1])).is_empty(), "once");
    let moved = BTreeMap::from([(MasternodeId(Hash([9; 32])), secret(101).public())]);
    b.handle(at(2), Input::Operators(moved.clone()));
    let shown = a.handle(at(2), Input::Operators(moved));
    let [_, fb] = carry(&mut a, &mut b, shown, Vec::new());
    assert!(fb.contains(&Effect::Masternode(PeerId(2), MasternodeId(Hash([9; 32])))));
}

#[test]
fn targets_follow_the_set() {
    let mut a = machine(1, &["configured"]);
    a.handle(at(0), operators(&[1, 2, 3]));
    let set = |of: &[(u8, &str)]| {
        let members = of.iter();
        Input::Validators(
            members
                .map(|(i, address)| (MasternodeId(Hash([*i; 32])), address.to_string()))
                .collect(),
        )
    };
    let dialled = |out: Vec<Effect>| -> Vec<String> {
        let address = |e| match e {
            Effect::Dial(_, address) => Some(address),
            _ => None,
        };
        out.into_iter().filter_map(address).collect()
    };
    let first = dialled(a.handle(at(0), set(&[(1, "own"), (2, "two"), (3, "three")])));
    assert_eq!(
        first,
        ["two", "three"],
        "not itself; the configured one is on its way"
    );
    (0..3).for_each(|i| drop(a.handle(at(1), Input::DialFailed(i))));
    a.handle(at(1), set(&[(2, "moved")]));
    let later = dialled(a.handle(at(60_000), Input::Tick));
    assert_eq!(later, ["configured"], "who left is dialled no more");
    assert!(a.targets.len() <= 3, "places are used again");
}
