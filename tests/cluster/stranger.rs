//! A peer that masters TLS and nothing else: it shakes hands with a key of its own and then writes what a test wants.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    version,
};

/// DER of a PKCS#8 ed25519 private key up to its seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Believes whatever key the other side has.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Shakes hands over `stream`, writes `bytes` and reads until the node closes the connection: what it said.
pub fn say(mut stream: TcpStream, seed: [u8; 32], bytes: &[u8]) -> Vec<u8> {
    let provider = Arc::new(ring::default_provider());
    let der = [&PKCS8_PREFIX[..], &seed[..]].concat();
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).expect("a key");
    let public = key.public_key().expect("its public half").to_vec();
    let certified = CertifiedKey::new(vec![CertificateDer::from(public)], key);
    let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::new(resolver));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    while session.is_handshaking() {
        session.complete_io(&mut stream).expect("a handshake");
    }
    let mut peer = StreamOwned::new(session, stream);
    peer.write_all(bytes).expect("written");
    peer.flush().expect("sent");
    let mut said = Vec::new();
    // The end may come as a reset: what counts is that it comes.
    let _ = peer.read_to_end(&mut said);
    said
}
