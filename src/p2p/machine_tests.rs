//! Stories of two or three peer machines wired by hand.

use super::dialing::BACKOFF_CAP_MS;
use super::*;
use crate::base::time::WallMs;
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::p2p::reputation::Subject;
use core::net::SocketAddr;

fn secret(i: u8) -> SecretKey {
    SecretKey::from_seed(&[i; 32])
}

pub(super) fn machine(i: u8, targets: &[&str]) -> Machine {
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
        seeds: Vec::new(),
        outbound_max: 0,
        require_stake: false,
        allow_private: true,
        book: crate::p2p::book::Book::new([1; 32]),
        anchors: Vec::new(),
        bans: Vec::new(),
        started: WallMs(0),
        seed: u64::from(i),
    })
}

pub(super) fn at(ms: u64) -> Now {
    Now {
        wall: WallMs(ms),
        mono: MonoUs(ms * 1_000),
    }
}

pub(super) fn link(peer: u64, key: u8, target: Option<usize>) -> Input {
    let key_number = key;
    let (peer, key) = (PeerId(peer), secret(key).public());
    Input::Connected(Link {
        peer,
        key,
        target,
        exporter: [7; 32],
        address: "a".into(),
        remote: Some(SocketAddr::from(([10, 0, 0, key_number], 1))),
    })
}

pub(super) fn sent(effects: &[Effect]) -> Vec<Message> {
    let message = |e: &Effect| {
        if let Effect::Send(_, m) = e {
            Some(m.clone())
        } else {
            None
        }
    };
    effects.iter().filter_map(message).collect()
}

pub(super) fn operators(of: &[u8]) -> Input {
    Input::Operators(
        of.iter()
            .map(|i| (MasternodeId(Hash([*i; 32])), secret(i + 100).public()))
            .collect(),
    )
}

/// Connects a (dials) to b and carries frames until both are silent; returns the effects of each.
pub(super) fn meet(
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

/// One of two connections of the machines a and b: who dialled, its names at both ends, its exporter value.
struct Wire {
    a_dials: bool,
    at: [PeerId; 2],
    exporter: u8,
}

/// Opens both wires, exchanges their Hellos in the given order of deliveries, and tells which wire each end kept. A
/// delivery is (wire, to which end).
fn keep_one(keys: [u8; 2], wires: [Wire; 2], order: [(usize, usize); 4]) -> [Vec<usize>; 2] {
    let mut ends = [machine(keys[0], &["b"]), machine(keys[1], &["a"])];
    let mut hellos = BTreeMap::new();
    for (w, wire) in wires.iter().enumerate() {
        for end in 0..2 {
            let target = ((end == 0) == wire.a_dials).then_some(0);
            let mut connected = link(wire.at[end].0, keys[1 - end], target);
            if let Input::Connected(link) = &mut connected {
                link.exporter = [wire.exporter; 32];
            }
            let hello = sent(&ends[end].handle(at(0), connected))[0].clone();
            hellos.insert((w, 1 - end), hello);
        }
    }
    let mut kept = [vec![0, 1], vec![0, 1]];
    for (w, end) in order {
        let hello = Input::Frame(wires[w].at[end], hellos[&(w, end)].clone());
        for effect in ends[end].handle(at(1), hello) {
            if let Effect::Close { peer, fault, .. } = effect {
                assert!(!fault, "P3: two connections are no fault");
                kept[end].retain(|w| wires[*w].at[end] != peer);
            }
        }
    }
    kept
}

#[test]
fn both_ends_keep_the_same_of_two_connections_whatever_arrives_first() {
    let hellos = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let mut orders = Vec::new();
    for i in 0..256 {
        let order = [i & 3, i >> 2 & 3, i >> 4 & 3, i >> 6].map(|d| hellos[d]);
        if hellos.iter().all(|h| order.contains(h)) {
            orders.push(order);
        }
    }
    assert_eq!(orders.len(), 24, "every order in which four Hellos arrive");
    for keys in [[1, 2], [2, 1]] {
        let a_is_lower = secret(keys[0]).public() < secret(keys[1]).public();
        for (dials, exporters) in [
            ([true, false], [7, 8]),
            ([false, true], [7, 8]),
            ([true, true], [9, 3]),
            ([false, false], [3, 9]),
        ] {
            for order in &orders {
                let wire = |w: usize| Wire {
                    a_dials: dials[w],
                    at: [PeerId(w as u64 + 1), PeerId(w as u64 + 11)],
                    exporter: exporters[w],
                };
                let kept = keep_one(keys, [wire(0), wire(1)], *order);
                let expect = match dials[0] == dials[1] {
                    true => usize::from(exporters[1] < exporters[0]),
                    false => usize::from(dials[1] == a_is_lower),
                };
                assert_eq!(
                    kept,
                    [vec![expect], vec![expect]],
                    "P1: the one dialled by the lower node key stays, on both ends: {dials:?} {order:?}"
                );
            }
        }
    }
}

#[test]
fn a_replayed_or_reflected_proof_makes_no_masternode() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[1, 2]));
    let (fa, fb) = meet(&mut a, &mut b, (1, 2), at(0));
    let proof = |effects: &[Effect]| {
        let is_proof = |m: &Message| matches!(m, Message::OperatorProof(_));
        sent(effects).into_iter().find(is_proof).unwrap()
    };
    let (of_a, of_b) = (proof(&fa), proof(&fb));
    // The attacker holds a's TLS node key, but not its operator key: the same keys, another session.
    let mut replay = link(7, 1, None);
    if let Input::Connected(link) = &mut replay {
        link.exporter = [8; 32];
    }
    for (connected, proof, what) in [
        (replay, of_a.clone(), "a proof of an earlier session"),
        (
            link(8, 3, None),
            of_a.clone(),
            "a proof of another node key",
        ),
        (link(9, 2, None), of_b.clone(), "our own proof, reflected"),
        (link(10, 1, Some(0)), of_a, "a proof of the other direction"),
    ] {
        let mut c = machine(2, &["x"]);
        if let Input::Connected(link) = &connected {
            c.config.node_key = match link.key == c.config.node_key {
                true => secret(4).public(),
                false => c.config.node_key,
            };
        }
        c.handle(at(0), operators(&[1, 2]));
        let peer = match &connected {
            Input::Connected(link) => link.peer,
            _ => PeerId(0),
        };
        c.handle(at(0), connected);
        let hello = sent(&fa)[0].clone();
        c.handle(at(0), Input::Frame(peer, hello));
        let out = c.handle(at(0), Input::Frame(peer, proof));
        let masternode = out.iter().any(|e| matches!(e, Effect::Masternode(..)));
        let closed = out
            .iter()
            .any(|e| matches!(e, Effect::Close { fault: true, .. }));
        assert!(closed && !masternode, "P1: {what}: {out:?}");
    }
}

#[test]
fn a_key_without_collateral_makes_no_masternode() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[2, 3]));
    let (_, fb) = meet(&mut a, &mut b, (1, 2), at(0));
    let is_masternode = |effects: &[Effect]| {
        let masternode = |e: &Effect| matches!(e, Effect::Masternode(..));
        effects.iter().any(masternode)
    };
    assert!(!is_masternode(&fb), "M1: no collateral, no vote");
    assert!(
        fb.iter().any(|e| matches!(e, Effect::Up(..))),
        "an observer all the same"
    );
    let later = b.handle(at(1), operators(&[1, 2]));
    assert!(is_masternode(&later), "its registration arrives later");
}

#[test]
fn faults_ban_key_and_address_of_a_stranger_and_the_ban_can_be_taken_back() {
    let mut a = machine(1, &[]);
    let stranger = |peer, key| link(peer, key, None);
    let mut banned = None;
    for i in 1..=3 {
        let out = a.handle(at(i), stranger(i, 9));
        if out.iter().any(|e| matches!(e, Effect::Close { .. })) {
            banned = Some(i);
            break;
        }
        let out = a.handle(at(i), Input::Fault(PeerId(i), "malformed frame"));
        assert!(
            matches!(out[0], Effect::Close { fault: true, .. }),
            "{out:?}"
        );
        a.handle(at(i), Input::Closed(PeerId(i)));
    }
    assert_eq!(banned, Some(3), "P3: two faults of 25 are a ban");
    a.handle(at(4), Input::Closed(PeerId(3)));
    // Another key from the same address, and the same key from elsewhere.
    let out = a.handle(at(5), stranger(5, 9));
    assert!(out.iter().any(|e| matches!(e, Effect::Close { .. })));
    let bans: Vec<String> = a
        .reputation()
        .bans()
        .map(|b| b.subject.to_string())
        .collect();
    assert!(bans.contains(&"10.0.0.9/32".to_string()), "{bans:?}");
    assert!(bans.contains(&secret(9).public().to_string()), "{bans:?}");
    a.handle(at(6), Input::Closed(PeerId(5)));
    let out = a.handle(at(6), Input::ClearBans);
    assert!(out.contains(&Effect::BansChanged));
    let out = a.handle(at(7), stranger(7, 9));
    assert!(
        !out.iter().any(|e| matches!(e, Effect::Close { .. })),
        "P3: reversible"
    );
}

#[test]
fn configured_peers_and_this_host_lose_no_address_and_masternodes_only_a_minute() {
    let mut a = machine(1, &["10.0.0.9:5"]);
    a.handle(at(0), operators(&[2]));
    for (i, key) in [(1, 9), (2, 9)] {
        a.handle(at(i), link(i, key, None));
        a.handle(at(i), Input::Fault(PeerId(i), "malformed frame"));
        a.handle(at(i), Input::Closed(PeerId(i)));
    }
    let ranges = |a: &Machine| {
        let text = a.reputation().bans().map(|b| b.subject.to_string());
        text.filter(|t| t.contains('/')).count()
    };
    assert_eq!(
        ranges(&a),
        0,
        "the address of a configured peer is not banned"
    );
    assert_eq!(a.reputation().bans().count(), 1, "the key is");
    let mut b = machine(2, &[]);
    b.handle(at(0), operators(&[2]));
    let mut closed = 0;
    for i in 1..=4 {
        let now = at(10_000 * i);
        let peer = a.handle(now, link(20, 2, None));
        let hello = sent(&b.handle(now, link(30, 1, Some(0))))[0].clone();
        a.handle(now, Input::Frame(PeerId(20), hello));
        let to_b = sent(&peer)[0].clone();
        let proof = sent(&b.handle(now, Input::Frame(PeerId(30), to_b)));
        let proof = proof
            .into_iter()
            .find(|m| matches!(m, Message::OperatorProof(_)));
        let out = a.handle(now, Input::Frame(PeerId(20), proof.unwrap()));
        closed += out
            .iter()
            .filter(|e| matches!(e, Effect::Close { .. }))
            .count();
        a.handle(now, Input::Fault(PeerId(20), "malformed frame"));
        a.handle(now, Input::Closed(PeerId(20)));
        b.handle(now, Input::Closed(PeerId(30)));
    }
    assert!(closed > 0, "a masternode is banned, too");
    let longest = a.reputation().bans().filter(|b| b.why != "by hand");
    let longest = longest.filter(|b| matches!(b.subject, Subject::Masternode(_)));
    assert!(longest.map(|b| b.until.since(b.created)).max() <= Some(60_000));
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
pub(super) fn carry(
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

#[test]
fn pings_that_are_due_together_or_soon_go_together() {
    let mut a = machine(1, &[]);
    for (peer, ms) in [(2, 0), (3, 60), (4, 120), (5, 500)] {
        a.handle(at(ms), link(u64::from(peer), peer, None));
        let hello = machine(peer, &["a"]).handle(at(ms), link(1, 1, Some(0)));
        for hello in sent(&hello) {
            a.handle(at(ms), Input::Frame(PeerId(u64::from(peer)), hello));
        }
    }
    assert!(a.handle(at(999), Input::Tick).is_empty(), "none is due");
    let pings = sent(&a.handle(at(1_000), Input::Tick));
    assert_eq!(pings.len(), 3, "one due, two due soon: {pings:?}");
    assert_eq!(a.deadline(), Some(MonoUs(1_500_000)), "one left");
}
