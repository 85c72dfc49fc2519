//! TLS 1.3 with raw ed25519 keys (RFC 7250) on both sides: no certificates, no tickets, no resumption, no early data.
//!
//! Job: turn a node seed into an identity, and bytes of a connection into authenticated plaintext and back. Input: the
//! seed, bytes of the peer, plaintext to send. Output: plaintext, bytes to send, the peer's key, the exporter value.
//! Must never accept another key type, and must never touch a socket.
//!
//! Whom to trust when: in TLS 1.3 the client finishes first, before the server has judged the client's key. A dialler
//! therefore knows whom it talks to, but not yet whether it is welcome; the layer above counts a dialled connection only
//! after the peer's first message. A listener that finishes knows both.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    DistinguishedName, Error, PeerIncompatible, ServerConfig, ServerConnection, SignatureScheme,
    version,
};
use zeroize::Zeroizing;

use super::handler::PeerKey;

/// DER of a PKCS#8 (version 1) ed25519 private key up to its 32-byte seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// DER of an ed25519 SubjectPublicKeyInfo up to its 32-byte key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// What both ends derive from the session and an OperatorProof signs (P1): binds the proof to this connection.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-timecoin-operator-proof";

/// The TLS library refused our own key or settings: a mistake of this program or a damaged seed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS from the node key: {0}")]
pub struct TlsError(#[from] Error);

/// Who this node is towards its peers: the node key, ready for both roles.
#[derive(Clone)]
pub struct NodeIdentity {
    public: PeerKey,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl NodeIdentity {
    /// Builds the identity from the 32-byte ed25519 seed of the node key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, TlsError> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + seed.len()));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(seed);
        let signing = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice()))?;
        let spki = signing
            .public_key()
            .ok_or_else(|| Error::General("the node key has no public half".into()))?;
        let public = key_of_spki(&spki)?;
        let certified = Arc::new(CertifiedKey::new(
            vec![CertificateDer::from(spki.as_ref().to_vec())],
            signing,
        ));
        let provider = Arc::new(ring::default_provider());
        Ok(NodeIdentity {
            public,
            client: Arc::new(client_config(&provider, &certified)?),
            server: Arc::new(server_config(&provider, &certified)?),
        })
    }

    /// The public node key.
    pub fn public(&self) -> PeerKey {
        self.public
    }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys(provider.clone())))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            key.clone(),
        )));
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok(config)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(RawKeys(provider.clone())))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            key.clone(),
        )));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The key inside an ed25519 SubjectPublicKeyInfo; any other content is refused.
fn key_of_spki(spki: &[u8]) -> Result<PeerKey, Error> {
    let key = spki
        .strip_prefix(&SPKI_PREFIX[..])
        .and_then(|key| PeerKey::try_from(key).ok());
    key.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Accepts every well-formed ed25519 key: *which* key it is matters to the layer above, not to TLS. What TLS proves is
/// that the peer holds its secret half.
#[derive(Debug)]
struct RawKeys(Arc<CryptoProvider>);

impl RawKeys {
    fn check_key(
        &self,
        spki: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !others.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        key_of_spki(spki).map(|_| ())
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &spki,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a finished handshake proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub peer_key: PeerKey,
    pub exporter: [u8; 32],
}

/// One TLS connection without its socket.
pub(super) struct TlsSession {
    tls: Connection,
    peer_closed: bool,
}

impl TlsSession {
    /// The dialling side.
    pub fn dialled(identity: &NodeIdentity, remote: IpAddr) -> Result<Self, Error> {
        let name = ServerName::IpAddress(remote.into());
        let tls = ClientConnection::new(identity.client.clone(), name)?;
        Ok(Self::new(Connection::from(tls)))
    }

    /// The listening side.
    pub fn accepted(identity: &NodeIdentity) -> Result<Self, Error> {
        Ok(Self::new(Connection::from(ServerConnection::new(
            identity.server.clone(),
        )?)))
    }

    fn new(mut tls: Connection) -> Self {
        // The session above seals bounded portions and drains them at once: a limit here would only cut them short.
        tls.set_buffer_limit(None);
        TlsSession {
            tls,
            peer_closed: false,
        }
    }

    /// Takes bytes of the peer in and appends what they decrypt to. After an error the output still holds the alert.
    pub fn ingest(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.tls.read_tls(&mut bytes).is_err() {
                return Err(Error::General(
                    "more TLS data than a record may hold".into(),
                ));
            }
            let state = self.tls.process_new_packets()?;
            self.take_plaintext(state.plaintext_bytes_to_read(), plain);
            if state.peer_has_closed() {
                self.peer_closed = true;
                break;
            }
        }
        Ok(())
    }

    fn take_plaintext(&mut self, expected: usize, plain: &mut Vec<u8>) {
        let mut left = expected;
        let mut reader = self.tls.reader();
        while left > 0 {
            let Ok(chunk) = reader.fill_buf() else { break };
            let length = chunk.len();
            if length == 0 {
                break;
            }
            plain.extend_from_slice(chunk);
            reader.consume(length);
            left = left.saturating_sub(length);
        }
    }

    /// Encrypts plaintext; the handshake must be over.
    pub fn seal(&mut self, plain: &[u8]) -> Result<(), Error> {
        self.tls
            .writer()
            .write_all(plain)
            .map_err(|error| Error::General(error.to_string()))
    }

    /// Says goodbye: the peer learns that nothing was cut off.
    pub fn say_close(&mut self) {
        self.tls.send_close_notify();
    }

    /// Moves bytes to send to the end of `wire`.
    pub fn take_output(&mut self, wire: &mut Vec<u8>) {
        while self.tls.wants_write() {
            if self.tls.write_tls(wire).is_err() {
                break;
            }
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer has said goodbye.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Key and exporter value; an error before the handshake is over.
    pub fn proven(&self) -> Result<Proven, Error> {
        let spki = self.tls.peer_certificates().and_then(|keys| keys.first());
        let peer_key = key_of_spki(spki.ok_or(Error::NoCertificatesPresented)?)?;
        let exporter = self
            .tls
            .export_keying_material([0; 32], EXPORTER_LABEL, None)?;
        Ok(Proven { peer_key, exporter })
    }
}
