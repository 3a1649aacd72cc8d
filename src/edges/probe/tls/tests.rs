//! https questions to rustls servers on loopback with certificates made on the spot.
#![expect(clippy::disallowed_methods, reason = "a test keeps its own deadline")]

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::edges::probe::http::{Hook, HttpError, Question, Stream, get};
use crate::url::Url;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);
/// For tests that wait for the limit.
const SHORT: Duration = Duration::from_millis(300);
/// How late the limit may be on a busy machine; without the limit these servers go on for longer.
const LATE: Duration = Duration::from_secs(1);

/// Shows one certificate whether or not the key belongs to it.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn self_signed() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    (made.cert.der().clone(), PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap())
}

/// The certificate of the first pair with the key of the second.
fn showing(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> ServerConfig {
    showing_in(rustls::ALL_VERSIONS, certificate, key)
}

fn showing_in(
    versions: &[&'static SupportedProtocolVersion],
    certificate: CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> ServerConfig {
    let shown = CertifiedKey::new(vec![certificate], any_supported_type(key).unwrap());
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(shown))))
}

/// A server for one connection.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (TcpStream, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

/// Answers one request; what it returns is how the client's stream ended, and the server name it
/// was called by.
fn answer(config: ServerConfig, stream: TcpStream) -> io::Result<Option<String>> {
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsafe\n")?;
    // An error unless the client said farewell.
    tls.read_to_end(&mut Vec::new())?;
    Ok(tls.conn.server_name().map(str::to_owned))
}

fn ask(url: &str, stream: TcpStream, limit: Duration, hook: Option<Hook>) -> Result<String, HttpError> {
    let url = Url::parse(url).unwrap();
    get(Question { url: &url, stream: Stream::Tcp(stream), limit, before_the_last_bytes: hook })
        .map(|answer| format!("{} {}", answer.status, answer.body))
}

#[test]
fn a_self_signed_certificate_on_loopback_is_good_enough_and_the_server_is_bidden_farewell() {
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let (certificate, key) = self_signed();
        let config = showing_in(versions, certificate, &key);
        let (stream, server) = server(move |stream| answer(config, stream));
        assert_eq!(ask("https://app.example/", stream, LONG, None).unwrap(), "200 safe");
        assert_eq!(server.join().unwrap().unwrap().as_deref(), Some("app.example"));
    }
}

#[test]
fn an_address_is_not_sent_as_a_server_name() {
    for url in ["https://127.0.0.1/", "https://[::1]/", "https://-no.name-/"] {
        let (certificate, key) = self_signed();
        let config = showing(certificate, &key);
        let (stream, server) = server(move |stream| answer(config, stream));
        assert_eq!(ask(url, stream, LONG, None).unwrap(), "200 safe", "{url}");
        assert_eq!(server.join().unwrap().unwrap(), None, "{url}");
    }
}

#[test]
fn a_server_without_its_certificates_key_is_refused_even_on_loopback() {
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let config = showing_in(versions, self_signed().0, &self_signed().1);
        let (stream, server) = server(move |stream| answer(config, stream));
        let error = ask("https://localhost/", stream, LONG, None).unwrap_err().to_string();
        assert_eq!(error, "TLS handshake failed: invalid peer certificate: BadSignature");
        assert!(server.join().unwrap().is_err());
    }
}

#[test]
fn only_a_peer_on_this_machine_is_taken_at_its_word() {
    for ip in ["127.0.0.1", "127.8.8.8", "::1"] {
        assert_eq!(Trust::in_peer(Some(ip.parse().unwrap())), Trust::Anyone, "{ip}");
    }
    for ip in ["192.168.0.1", "0.0.0.0", "::", "2001:db8::1", "fe80::1"] {
        assert_eq!(Trust::in_peer(Some(ip.parse().unwrap())), Trust::Roots, "{ip}");
    }
    assert_eq!(Trust::in_peer(None), Trust::Anyone);
}

#[test]
fn a_self_signed_certificate_from_elsewhere_is_refused() {
    let (certificate, key) = self_signed();
    let config = showing(certificate, &key);
    let (stream, server) = server(move |stream| answer(config, stream));
    let wire = Wire::new(Stream::Tcp(stream), LONG).unwrap();
    let error = handshake(wire, "other.example", Trust::Roots).unwrap_err();
    // rcgen's certificates are not marked as an authority's, so nobody vouches for this one, itself
    // included.
    assert_eq!(reason(&error), "invalid peer certificate: UnknownIssuer");
    assert!(server.join().unwrap().is_err());
}

#[test]
fn a_handshake_that_stalls_or_drips_is_given_up_at_the_limit() {
    // The header of a handshake record of 512 bytes, which never come.
    for drip in [&b""[..], b"\0"] {
        let (stream, server) = server(move |mut stream| {
            stream.write_all(b"\x16\x03\x03\x02\x00").unwrap();
            while stream.write_all(drip).is_ok() {
                thread::park_timeout(Duration::from_millis(5));
                if drip.is_empty() && stream.read(&mut [0; 1024]).is_ok_and(|n| n == 0) {
                    break;
                }
            }
        });
        let start = Instant::now();
        let error = ask("https://localhost/", stream, SHORT, None).unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.to_string(), "TLS handshake not complete within 300ms");
        assert!(took >= SHORT && took <= SHORT + LATE, "{took:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_peer_that_is_silent_after_the_handshake_is_given_up_at_the_limit() {
    let (certificate, key) = self_signed();
    let config = showing(certificate, &key);
    let (stream, server) = server(move |stream| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        tls.read_to_end(&mut Vec::new())
    });
    let start = Instant::now();
    let error = ask("https://localhost/", stream, SHORT, None).unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.to_string(), "no answer within 300ms");
    assert!(took >= SHORT && took <= SHORT + LATE, "{took:?}");
    let _ = server.join().unwrap();
}

#[test]
fn a_peer_that_speaks_no_tls_is_called_that() {
    let (stream, server) = server(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        while stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {}
    });
    let error = ask("https://localhost/", stream, LONG, None).unwrap_err().to_string();
    assert_eq!(error, "TLS handshake failed: the peer does not speak TLS; use http:// if it speaks plain HTTP");
    server.join().unwrap();
}

#[test]
fn a_peer_that_hangs_up_in_the_handshake_is_called_that() {
    let (stream, server) = server(|mut stream| {
        let mut record = [0; 5];
        stream.read_exact(&mut record).unwrap();
        let rest = usize::from(u16::from_be_bytes([record[3], record[4]]));
        stream.read_exact(&mut vec![0; rest]).unwrap();
    });
    let error = ask("https://localhost/", stream, LONG, None).unwrap_err().to_string();
    assert_eq!(error, "TLS handshake failed: connection closed");
    server.join().unwrap();
}

#[test]
fn the_hook_runs_between_the_handshake_and_the_request() {
    let (certificate, key) = self_signed();
    let config = showing(certificate, &key);
    let (told, tell) = mpsc::channel();
    let (stream, server) = server(move |mut stream| {
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        told.send("shaken hands").unwrap();
        let mut tls = StreamOwned::new(tls, stream);
        let mut first = [0; 3];
        tls.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"GET");
        told.send("request").unwrap();
        tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        let _ = tls.read_to_end(&mut Vec::new());
    });
    let hook: Hook = Box::new(move || {
        assert_eq!(tell.recv_timeout(LONG), Ok("shaken hands"));
        assert_eq!(tell.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout));
        // The server's second message needs someone to take it.
        thread::spawn(move || tell.recv());
        Ok(())
    });
    assert_eq!(ask("https://localhost/", stream, LONG, Some(hook)).unwrap(), "200 ");
    server.join().unwrap();
}

#[test]
fn a_hook_that_says_no_keeps_the_request_back() {
    let (certificate, key) = self_signed();
    let config = showing(certificate, &key);
    let (stream, server) = server(move |stream| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let mut request = Vec::new();
        tls.read_to_end(&mut request).map(|_| request)
    });
    let hook: Hook = Box::new(|| Err("not this one".to_owned()));
    assert_eq!(ask("https://localhost/", stream, LONG, Some(hook)).unwrap_err().to_string(), "not this one");
    assert_eq!(server.join().unwrap().unwrap(), b"");
}
