//! A peer that masters TLS and nothing else: it shakes hands with a key of its own and then writes what a test wants.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

use crate::tls;

/// Shakes hands over `stream`; `None` if the other side hangs up before that is done.
fn shake(stream: &mut TcpStream, seed: [u8; 32]) -> Option<ClientConnection> {
    let mut session = tls::session(seed).expect("a session");
    while session.is_handshaking() {
        session.complete_io(stream).ok()?;
    }
    Some(session)
}

/// Whether a handshake is let through.
pub fn shakes_hands(mut stream: TcpStream, seed: [u8; 32]) -> bool {
    shake(&mut stream, seed).is_some()
}

/// Shakes hands over `stream`, writes `bytes` and reads until the node closes the connection: what it said.
pub fn say(mut stream: TcpStream, seed: [u8; 32], bytes: &[u8]) -> Vec<u8> {
    let session = shake(&mut stream, seed).expect("a handshake");
    let mut peer = StreamOwned::new(session, stream);
    peer.write_all(bytes).expect("written");
    peer.flush().expect("sent");
    let mut said = Vec::new();
    // The end may come as a reset: what counts is that it comes.
    let _ = peer.read_to_end(&mut said);
    said
}
