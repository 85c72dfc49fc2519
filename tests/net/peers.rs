//! Two net threads on loopback: identity, frames of every class and size.

use std::sync::Arc;

use crate::support::{Node, Seen, link};
use timecoin::net::{Class, Direction, SendOutcome};

fn pattern(length: usize, salt: usize) -> Arc<[u8]> {
    (0..length)
        .map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ salt) as u8)
        .collect::<Vec<u8>>()
        .into()
}

#[test]
fn both_ends_prove_their_keys_and_share_an_exporter_value() {
    let (a, b) = (Node::start(1), Node::start(2));
    let ((_, at_a), (_, at_b)) = link(&a, &b);
    assert_eq!(
        at_a.peer_key, b.key,
        "the dialler learns the listener's key"
    );
    assert_eq!(
        at_b.peer_key, a.key,
        "the listener learns the dialler's key"
    );
    assert_eq!(
        at_a.exporter, at_b.exporter,
        "OperatorProof signs one value at both ends"
    );
    assert!(matches!(at_a.direction, Direction::Outbound(_)));
    assert_eq!(at_b.direction, Direction::Inbound);
    let ((_, again), _) = link(&a, &b);
    assert_ne!(
        again.exporter, at_a.exporter,
        "a proof is bound to one connection"
    );
}

#[test]
fn frames_of_all_classes_and_sizes_arrive_whole_and_in_order_of_their_class() {
    let (a, b) = (Node::start(1), Node::start(2));
    let ((at_a, _), _) = link(&a, &b);
    let sizes = [0, 1, 100, 16_383, 16_384, 16_385, 100_000, 1 << 20, 4 << 20];
    let mut expected = Vec::new();
    for class in Class::ALL {
        // The bound of a queue holds: what is above it is sent alone.
        let fits = sizes.iter().filter(|size| match class {
            Class::Sync => **size <= 4 << 20,
            Class::Consensus => **size <= 1 << 20,
            _ => **size <= 100_000,
        });
        expected.extend(fits.map(|size| (class, pattern(*size, class.index()))));
    }
    let frames = expected.clone();
    let outcomes = a.ask(move |io| {
        let send =
            |(class, payload): (Class, Arc<[u8]>)| io.send(at_a, class as u8, class, payload);
        frames.into_iter().map(send).collect::<Vec<_>>()
    });
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == SendOutcome::Queued),
        "{outcomes:?}"
    );
    let mut got: Vec<(u8, Vec<u8>)> = Vec::new();
    while got.len() < expected.len() {
        got.push(b.wait("a frame", |seen| match seen {
            Seen::Frame(_, frame_type, payload) => Some((frame_type, payload)),
            _ => None,
        }));
    }
    for class in Class::ALL {
        let sent: Vec<&[u8]> = expected
            .iter()
            .filter(|(of, _)| *of == class)
            .map(|(_, payload)| &payload[..])
            .collect();
        let came: Vec<&[u8]> = got
            .iter()
            .filter(|(of, _)| *of == class as u8)
            .map(|(_, payload)| &payload[..])
            .collect();
        assert!(
            sent == came,
            "frames of class {class} arrive whole and in order"
        );
    }
    assert_eq!(got[0].0, Class::Consensus as u8, "consensus goes first");
}
