//! TLS over a wire, by rustls. It never panics.
//!
//! A peer on this machine may show any certificate: the question never leaves the machine, and a
//! supervised program's certificate names it as the world calls it, not as we do. That the peer owns
//! the certificate's key is checked all the same. Any other peer needs a certificate that one of the
//! system's authorities vouches for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, SignatureScheme,
    StreamOwned,
};

use super::wire::Wire;

/// A finished handshake and the wire it went over.
#[derive(Debug)]
pub(super) struct TlsStream(StreamOwned<ClientConnection, Wire>);

/// Whose word is taken for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The peer is on this machine: any certificate will do.
    Anyone,
    /// The authorities that this system trusts.
    Roots,
}

impl Trust {
    /// What is asked of a peer at this address; none is a Unix socket.
    pub(super) fn in_peer(peer: Option<IpAddr>) -> Self {
        if peer.is_none_or(|ip| ip.is_loopback()) { Self::Anyone } else { Self::Roots }
    }
}

/// Shakes hands as far as both sides need before the first byte of a request.
pub(super) fn handshake(mut wire: Wire, host: &str, trust: Trust) -> io::Result<TlsStream> {
    let peer = wire.peer()?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let name = ServerName::try_from(host.to_owned()).unwrap_or(ServerName::IpAddress(peer.into()));
    let mut tls = ClientConnection::new(Arc::new(config(trust)?), name).map_err(io::Error::other)?;
    tls.complete_io(&mut wire)?;
    if tls.is_handshaking() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(TlsStream(StreamOwned::new(tls, wire)))
}

/// The words for a handshake that failed for another reason than time.
pub(super) fn reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the peer does not speak TLS; use http:// if it speaks plain HTTP".to_owned()
        }
        Some(tls) => tls.to_string(),
        None => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => "connection closed".to_owned(),
            ErrorKind::ConnectionReset => "connection reset".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// Made anew for every question: it costs microseconds, and a kept one would keep sessions, which
/// skip the certificate.
fn config(trust: Trust) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        Trust::Roots => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Read when they are needed: they change with the system, and few probes leave the machine.
fn system_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (known, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if known == 0 {
        return Err(io::Error::other("this system has no certificate authorities; install its ca-certificates"));
    }
    Ok(roots)
}

/// Takes every certificate, but only from an owner of its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Read for TlsStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for TlsStream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // Without the farewell many servers log an error for every single probe. It is a few bytes
        // into an empty send buffer, and past the limit the wire refuses it, so it cannot hold
        // anybody up.
        self.0.conn.send_close_notify();
        let _ = self.0.conn.write_tls(&mut self.0.sock);
    }
}

#[cfg(test)]
mod tests;
