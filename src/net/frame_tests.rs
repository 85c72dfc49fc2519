//! Tests of the wire format: golden bytes, lies about lengths, any bytes in any portions, interleaving.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::{Class, Fault, Frame, FrameDecoder, FrameRule, encode_frame};
use super::limits::{
    FIRST_FRAGMENT_DATA, OUT_CONSENSUS_MAX, OUT_FRAME_OVERHEAD, OUT_OTHER_MAX, OUT_SYNC_MAX,
    OUT_TX_MAX, UNIT_MAX,
};
use super::outbound::{Full, Outbound};

const LIMIT: usize = 100_000;

/// Types 0..6 are one of each class; 16..22 the same with a limit of ten bytes.
fn rule(frame_type: u8) -> Option<FrameRule> {
    let class = *Class::ALL.get(usize::from(frame_type & 7))?;
    match frame_type >> 3 {
        0 => Some(FrameRule {
            limit: LIMIT,
            class,
        }),
        2 => Some(FrameRule { limit: 10, class }),
        _ => None,
    }
}

/// Feeds `bytes` in portions that end at `cuts`; returns the frames and the fault, and checks the memory on the way.
fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Frame>, Option<Fault>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        let mut portion = &bytes[from..cut];
        from = cut;
        loop {
            match decoder.next(&mut portion, rule) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault)),
            }
        }
        assert!(
            portion.is_empty(),
            "a starved decoder has used up its input"
        );
        assert!(decoder.buffered() <= cut, "only what has arrived is stored");
    }
    (frames, None)
}

fn fault_of(bytes: &[u8]) -> Fault {
    decode(bytes, &[]).1.expect("a fault")
}

fn unit(length: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes()[..], &[kind], body].concat()
}

fn first_fragment(class: u8, total: u32, frame_type: u8) -> Vec<u8> {
    let head = [&total.to_le_bytes()[..], &[frame_type]].concat();
    unit(
        UNIT_MAX as u32,
        0xC0 + class,
        &[head, vec![7; FIRST_FRAGMENT_DATA]].concat(),
    )
}

#[test]
fn golden_bytes_of_both_forms() {
    let mut out = Vec::new();
    encode_frame(&mut out, Class::Control, 1, b"abc");
    assert_eq!(out, [3, 0, 0, 0, 1, b'a', b'b', b'c']);
    out.clear();
    encode_frame(&mut out, Class::Sync, 5, &[9; 16_385]);
    assert_eq!(
        out[..10],
        [0, 0x40, 0, 0, 0xC5, 0x01, 0x40, 0, 0, 5],
        "first fragment: unit head, total, type"
    );
    assert_eq!(out[10..16_389], [9; 16_379][..], "a first fragment is full");
    assert_eq!(
        out[16_389..],
        [&[6, 0, 0, 0, 0xD5][..], &[9; 6]].concat(),
        "the last fragment holds the rest"
    );
}

#[test]
fn a_claim_of_four_gigabytes_is_a_fault_before_anything_is_stored() {
    let claims = [
        unit(u32::MAX, 5, &[]),
        unit(UNIT_MAX as u32 + 1, 5, &[]),
        unit(11, 16, &[]),
        first_fragment(5, u32::MAX, 5)[..10].to_vec(),
        first_fragment(0, 16_385, 16)[..10].to_vec(),
    ];
    for claim in claims {
        let mut decoder = FrameDecoder::new();
        let fault = decoder
            .next(&mut &claim[..], rule)
            .expect_err("the claim is above the limit of the type");
        assert!(matches!(fault, Fault::Oversized { .. }), "{fault}");
        assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn units_that_break_the_format_are_faults() {
    assert_eq!(fault_of(&unit(0, 200, &[])), Fault::UnknownUnit(200));
    assert_eq!(
        fault_of(&unit(0, 0xC6, &[])),
        Fault::UnknownUnit(0xC6),
        "there is no class 6"
    );
    assert_eq!(fault_of(&unit(0, 0xFF, &[])), Fault::UnknownUnit(0xFF));
    assert_eq!(fault_of(&unit(0, 100, &[])), Fault::RefusedType(100));
    assert_eq!(
        fault_of(&first_fragment(0, 20_000, 100)),
        Fault::RefusedType(100)
    );
    assert_eq!(
        fault_of(&first_fragment(0, 20_000, 0xC0)),
        Fault::RefusedType(0xC0)
    );
    let bad = |bytes: &[u8]| match fault_of(bytes) {
        Fault::BadFragment(what) => what,
        other => panic!("{other}"),
    };
    assert!(bad(&unit(100, 0xC5, &[])).contains("first fragment must be full"));
    assert!(bad(&unit(100, 0xD5, &[])).contains("without a first"));
    assert!(bad(&first_fragment(4, 20_000, 5)).contains("class is not that"));
    assert!(bad(&first_fragment(5, UNIT_MAX as u32, 5)).contains("must travel whole"));
    let start = first_fragment(5, 40_000, 5);
    assert!(bad(&[start.clone(), unit(100, 0xD5, &[])].concat()).contains("exactly the rest"));
    assert!(bad(&[start.clone(), start.clone()].concat()).contains("second unfinished"));
    assert!(bad(&[start, unit(1, 5, &[1])].concat()).contains("inside an unfinished"));
}

#[test]
fn a_vote_overtakes_a_block_between_two_units() {
    let mut out = Outbound::default();
    out.push(Class::Sync, 5, vec![1; LIMIT].into()).unwrap();
    let mut bytes = Vec::new();
    out.fill(&mut bytes, 1);
    out.push(Class::Tx, 4, vec![2; 50].into()).unwrap();
    out.push(Class::Consensus, 0, vec![3; 50].into()).unwrap();
    while out.fill(&mut bytes, usize::MAX) > 0 {}
    let (frames, fault) = decode(&bytes, &[]);
    assert_eq!(fault, None);
    let order: Vec<u8> = frames.iter().map(|frame| frame.frame_type).collect();
    assert_eq!(
        order,
        [0, 4, 5],
        "consensus first, and transactions take turns with blocks"
    );
    assert_eq!(
        bytes[5 + UNIT_MAX + 4],
        0,
        "the vote follows the one unit that was already cut"
    );
}

#[test]
fn each_queue_has_its_bound_and_its_way_to_be_full() {
    let bounds = [
        (Class::Consensus, OUT_CONSENSUS_MAX, Full::Disconnect),
        (Class::Control, OUT_OTHER_MAX, Full::Drop),
        (Class::Liveness, OUT_OTHER_MAX, Full::Drop),
        (Class::Fork, OUT_OTHER_MAX, Full::Drop),
        (Class::Tx, OUT_TX_MAX, Full::Drop),
        (Class::Sync, OUT_SYNC_MAX, Full::Disconnect),
    ];
    let empty: Arc<[u8]> = Arc::new([]);
    for (class, bound, full) in bounds {
        let mut out = Outbound::default();
        let room = bound / OUT_FRAME_OVERHEAD;
        for _ in 0..room {
            out.push(class, class as u8, empty.clone())
                .expect("within the bound");
        }
        assert_eq!(
            out.push(class, class as u8, empty.clone()),
            Err(full),
            "empty frames are bounded too: {class}"
        );
        assert_eq!(out.queued(), room * OUT_FRAME_OVERHEAD);
        assert_eq!(out.fill(&mut Vec::new(), usize::MAX), room as u64);
        assert_eq!(
            (out.queued(), out.is_empty()),
            (0, true),
            "what left costs nothing any more"
        );
        assert_eq!(out.cut(), out.taken_in());
    }
}

fn frames() -> impl Strategy<Value = Vec<(u8, usize)>> {
    vec(
        (
            0u8..6,
            prop_oneof![0usize..40, 16_300usize..16_500, 0..LIMIT],
        ),
        0..12,
    )
}

proptest! {
    #[test]
    fn frames_survive_any_interleaving_and_any_portions(
        frames in frames(),
        targets in vec(1usize..60_000, 1..8),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let mut out = Outbound::default();
        let mut bytes = Vec::new();
        let mut sent: Vec<Frame> = Vec::new();
        let mut targets = targets.into_iter().cycle();
        for (number, (frame_type, length)) in frames.into_iter().enumerate() {
            let payload = vec![number as u8; length];
            if out.push(Class::ALL[usize::from(frame_type)], frame_type, payload.clone().into()).is_ok() {
                sent.push(Frame { frame_type, payload });
            }
            let target = bytes.len() + targets.next().unwrap_or(1);
            out.fill(&mut bytes, target);
        }
        out.fill(&mut bytes, usize::MAX);
        prop_assert!(out.is_empty());
        let (got, fault) = decode(&bytes, &cuts);
        prop_assert_eq!(fault, None);
        for frame_type in 0..6 {
            let of = |list: &[Frame]| -> Vec<Frame> {
                list.iter().filter(|frame| frame.frame_type == frame_type).cloned().collect()
            };
            prop_assert!(of(&got) == of(&sent), "frames of a class arrive whole and in order");
        }
        prop_assert_eq!(got.len(), sent.len());
    }

    #[test]
    fn any_bytes_in_any_portions_give_the_same_frames_and_fault(
        start in prop_oneof![
            Just(Vec::new()),
            (0u8..6).prop_map(|class| first_fragment(class, 50_000, class)),
            (0u32..40, 0u8..8).prop_map(|(length, kind)| unit(length, kind, &vec![1; length as usize])),
        ],
        noise in vec(any::<u8>(), 0..200),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let bytes = [start, noise].concat();
        prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
    }
}

#[test]
fn a_frame_that_drags_on_is_told_from_the_next_one() {
    let rule = |_: u8| {
        let (limit, class) = (1 << 20, Class::Sync);
        Some(FrameRule { limit, class })
    };
    let mut bytes = Vec::new();
    for _ in 0..2 {
        encode_frame(&mut bytes, Class::Sync, 51, &[7; 40_000]);
    }
    let mut decoder = FrameDecoder::new();
    let mut serials = Vec::new();
    for portion in bytes.chunks(1_000) {
        let mut input = portion;
        while let Ok(Some(_)) = decoder.next(&mut input, rule) {}
        serials.push(decoder.oldest_unfinished());
    }
    serials.dedup();
    assert_eq!(
        serials,
        [Some(0), Some(1), None],
        "each frame is timed by itself: a steady stream of them is not slow"
    );
}
