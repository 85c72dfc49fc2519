//! Stories of probes (M4): a connection that looks whether a registered key is there, and leaves.

use super::tests::{at, carry, link, machine, meet, operators, sent};
use super::*;
use crate::crypto::hash::Hash;

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
fn visitors_do_not_keep_a_node_from_dialling_them() {
    let (mut a, mut b) = (machine(1, &["b"]), machine(2, &[]));
    a.handle(at(0), operators(&[1, 2]));
    b.handle(at(0), operators(&[1, 2]));
    meet(&mut a, &mut b, (1, 2), at(0));
    a.handle(at(1), Input::Closed(PeerId(1)));
    b.handle(at(1), Input::Closed(PeerId(2)));
    let mut out = Vec::new();
    for visit in 0..10 {
        let (now, peer) = (at(2 + 90 * visit), 10 + visit);
        b.handle(now, probe(1));
        let fb = b.handle(now, link(peer, 1, Some(TARGET_COUNT_MAX)));
        out.extend(a.handle(now, link(peer, 2, None)));
        for frame in sent(&fb) {
            out.extend(a.handle(now, Input::Frame(PeerId(peer), frame)));
        }
        out.extend(a.handle(now, Input::Closed(PeerId(peer))));
        b.handle(now, Input::Closed(PeerId(peer)));
    }
    assert!(
        out.contains(&Effect::Dial(0, "b".into())),
        "B2: the connection is lost and wanted, whoever looked in meanwhile"
    );
}
