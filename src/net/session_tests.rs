//! Two sessions talk to each other in memory, byte by byte where it matters; and clients that are none of ours.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::frame::{Class, Fault, Frame, FrameRule};
use super::session::Session;
use super::tls::{NodeIdentity, TlsSession};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn identity(seed: u8) -> NodeIdentity {
    NodeIdentity::from_seed(&[seed; 32]).unwrap()
}

fn pair() -> (Session, Session) {
    let client = TlsSession::dialled(&identity(1), HERE).unwrap();
    let server = TlsSession::accepted(&identity(2)).unwrap();
    (Session::new(client), Session::new(server))
}

/// Carries what one side has to say to the other, in portions. Returns whether there was anything.
fn carry(from: &mut Session, to: &mut Session, portion: usize) -> bool {
    let wire = from.wire(&mut Vec::new()).unwrap().to_vec();
    from.sent(wire.len());
    for part in wire.chunks(portion) {
        to.ingest(part).unwrap();
    }
    !wire.is_empty()
}

fn settle(a: &mut Session, b: &mut Session, portion: usize) {
    while carry(a, b, portion) | carry(b, a, portion) {}
}

fn allow_all(_: u8) -> Option<FrameRule> {
    Some(FrameRule {
        limit: 4 << 20,
        class: Class::Sync,
    })
}

#[test]
fn the_seed_gives_the_key_of_rfc_8032() {
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    let public = NodeIdentity::from_seed(&seed).unwrap().public();
    assert_eq!(public[..4], [0xd7, 0x5a, 0x98, 0x01], "section 7.1, test 1");
}

#[test]
fn sessions_agree_whatever_the_portions() {
    for portion in [1, 7, 1000, 1 << 20] {
        let (mut a, mut b) = pair();
        a.push(Class::Sync, 5, vec![3; 100_000].into()).unwrap();
        settle(&mut a, &mut b, portion);
        assert!(!a.is_handshaking() && !b.is_handshaking());
        let (at_a, at_b) = (a.proven().unwrap(), b.proven().unwrap());
        assert_eq!(
            (at_a.peer_key, at_b.peer_key),
            (identity(2).public(), identity(1).public())
        );
        assert_eq!(at_a.exporter, at_b.exporter);
        let frame = b.next_frame(allow_all).unwrap();
        assert_eq!(
            frame,
            Some(Frame {
                frame_type: 5,
                payload: vec![3; 100_000]
            }),
            "queued before TLS was ready"
        );
        assert!(!a.has_output());
        let (taken_in, delivered) = a.drain_marks();
        assert_eq!(taken_in, delivered, "everything reached the socket");
        a.say_close();
        settle(&mut a, &mut b, portion);
        assert!(b.is_finished() && !a.is_finished());
    }
}

#[test]
fn a_peer_that_lies_inside_tls_commits_a_provable_fault() {
    let mut liar = TlsSession::dialled(&identity(1), HERE).unwrap();
    let mut honest = Session::new(TlsSession::accepted(&identity(2)).unwrap());
    let mut wire = Vec::new();
    loop {
        wire.clear();
        liar.take_output(&mut wire);
        honest.ingest(&wire).unwrap();
        let back = honest.wire(&mut Vec::new()).unwrap().to_vec();
        honest.sent(back.len());
        liar.ingest(&back, &mut Vec::new()).unwrap();
        if wire.is_empty() && back.is_empty() {
            break;
        }
    }
    liar.seal(&[0xFF, 0xFF, 0xFF, 0xFF, 5]).unwrap();
    wire.clear();
    liar.take_output(&mut wire);
    honest.ingest(&wire).unwrap();
    let fault = honest.next_frame(allow_all).unwrap_err();
    assert!(
        matches!(
            fault,
            Fault::Oversized {
                claimed: 0xFFFF_FFFF,
                ..
            }
        ),
        "{fault}"
    );
}

#[test]
fn garbage_is_no_handshake_and_leaves_an_alert() {
    let (_, mut server) = pair();
    server.ingest(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap_err();
    assert!(
        !server.wire(&mut Vec::new()).unwrap().is_empty(),
        "the other side is told"
    );
}

#[test]
fn a_client_without_a_raw_key_is_refused() {
    let roots = rustls::RootCertStore::empty();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::IpAddress(HERE.into());
    let mut stranger = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let (_, mut server) = pair();
    let mut hello = Vec::new();
    stranger.write_tls(&mut hello).unwrap();
    server.ingest(&hello).unwrap_err();
    assert!(
        server.is_handshaking(),
        "a certificate client never becomes a connection"
    );
}

#[test]
fn damaged_records_end_the_session() {
    let (mut a, mut b) = pair();
    settle(&mut a, &mut b, 1 << 20);
    a.push(Class::Control, 1, vec![1; 100].into()).unwrap();
    let mut wire = a.wire(&mut Vec::new()).unwrap().to_vec();
    let last = wire.len() - 1;
    wire[last] ^= 1;
    b.ingest(&wire).unwrap_err();
    assert_eq!(
        b.next_frame(allow_all).unwrap(),
        None,
        "nothing of a damaged record is believed"
    );
}
