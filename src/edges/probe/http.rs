//! One HTTP question over a connection that is already there: a GET, by ureq, and its answer.
//!
//! It never connects, resolves, follows a redirect, asks a proxy, starts a thread or keeps a
//! connection, and it judges no status: a 503 is an answer like any other. The time is kept by the
//! [`wire`](super::wire), not by ureq, so that TLS, head and body share one limit.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::message::message;
use super::tls::{self, TlsStream, Trust};
use super::wire::Wire;
use crate::url::{Scheme, Url};

pub use super::wire::Stream;

/// Called once, shortly before the peer can begin to answer.
pub type Hook = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// What is asked, of whom, and for how long.
pub struct Question<'a> {
    /// Gives the Host header, the request line and whether to speak TLS.
    pub url: &'a Url,
    /// Connected; set to blocking here. Closed when the exchange is over.
    pub stream: Stream,
    /// For the whole exchange, from now.
    pub limit: Duration,
    /// Called once: over plain HTTP when everything but the last two bytes of the request (the
    /// final CRLF) was sent, over https after the handshake and before the first byte of the
    /// request. An error ends the exchange with that text. None: the request is sent whole.
    pub before_the_last_bytes: Option<Hook>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code, whatever it means.
    pub status: u16,
    /// What the body says, for messages: at most 200 characters, without control characters.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// Nothing came.
    Silent {
        /// The time that was given.
        limit: Duration,
    },
    /// Something came, but not the whole head.
    HeadUnfinished {
        /// The time that was given.
        limit: Duration,
    },
    /// TLS was not agreed on in time.
    HandshakeUnfinished {
        /// The time that was given.
        limit: Duration,
    },
    /// The peer closed the connection before the head of an answer was complete.
    Closed,
    /// The connection broke.
    Broken {
        /// What the kernel or TLS said.
        source: io::Error,
    },
    /// TLS could not be agreed on.
    Tls {
        /// What the kernel or TLS said.
        source: io::Error,
    },
    /// The head does not fit into [`HEAD_MAX`].
    HeadTooLarge,
    /// What came is not HTTP.
    NotHttp {
        /// What is wrong with it.
        reason: String,
    },
    /// The hook said no.
    Stopped {
        /// The hook's own words.
        reason: String,
    },
    /// The question cannot be put into a request.
    Unaskable {
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { limit } => write!(f, "no answer within {limit:?}"),
            Self::HeadUnfinished { limit } => {
                write!(f, "answer head not complete within {limit:?}")
            }
            Self::HandshakeUnfinished { limit } => {
                write!(f, "TLS handshake not complete within {limit:?}")
            }
            Self::Closed => f.write_str("connection closed before an answer"),
            Self::Broken { source } => match (source.raw_os_error(), source.kind()) {
                (_, ErrorKind::ConnectionReset) => f.write_str("connection reset"),
                (Some(code), kind) => write!(f, "connection broken: {kind} (os error {code})"),
                (None, _) => write!(f, "connection broken: {source}"),
            },
            Self::Tls { source } => write!(f, "TLS handshake failed: {}", tls::reason(source)),
            Self::HeadTooLarge => write!(f, "answer head larger than {} KiB", HEAD_MAX / 1024),
            Self::NotHttp { reason } => write!(f, "not an HTTP answer: {reason}"),
            Self::Stopped { reason } => f.write_str(reason),
            Self::Unaskable { reason } => write!(f, "cannot be asked over HTTP: {reason}"),
        }
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken { source } | Self::Tls { source } => Some(source),
            _ => None,
        }
    }
}

/// The largest head of an answer, and so the input buffer.
const HEAD_MAX: usize = 16 * 1024;
/// The largest line of a request, and so the output buffer.
const LINE_MAX: usize = 4 * 1024;
/// How much of a body is taken off a server that wants to finish its sentence before it is hung up
/// on.
const BODY_MAX: usize = 64 * 1024;
/// How much of a body is looked at for [`Answer::body`].
const EXCERPT: usize = 16 * 1024;

/// Asks, and hangs up.
///
/// The head decides: once it is there the answer counts, whatever becomes of the body.
///
/// # Errors
/// When no complete head came within the limit, or the hook said no.
pub fn get(question: Question<'_>) -> Result<Answer, HttpError> {
    let Question { url, stream, limit, before_the_last_bytes: mut hook } = question;
    let uri = uri(url)?;
    let wire = Wire::new(stream, limit).map_err(|source| HttpError::Broken { source })?;
    let channel = match url.scheme {
        Scheme::Http => Channel::Plain(wire),
        Scheme::Https => {
            let tls = handshake(wire, &url.host, limit)?;
            hook.take().map_or(Ok(()), call)?;
            Channel::Tls(Box::new(tls))
        }
    };
    let exchange = Exchange {
        channel,
        limit,
        hook: Mutex::new(hook),
        heard: false,
        buffers: LazyBuffers::new(HEAD_MAX, LINE_MAX),
    };
    let agent = Agent::with_parts(settings(), Given(Mutex::new(Some(exchange))), Nowhere);
    let answer = agent.get(uri).header("connection", "close").call().map_err(why)?;
    let status = answer.status().as_u16();
    Ok(Answer { status, body: message(&beginning(answer.into_body().into_reader())) })
}

fn uri(url: &Url) -> Result<Uri, HttpError> {
    Uri::builder()
        .scheme(url.scheme.to_string().as_str())
        .authority(url.authority())
        .path_and_query(url.path_and_query.as_str())
        .build()
        .map_err(|error| HttpError::Unaskable { reason: error.to_string() })
}

fn handshake(wire: Wire, host: &str, limit: Duration) -> Result<TlsStream, HttpError> {
    let trust = Trust::in_peer(wire.peer().map_err(|source| HttpError::Broken { source })?);
    tls::handshake(wire, host, trust).map_err(|source| match source.kind() {
        ErrorKind::TimedOut => HttpError::HandshakeUnfinished { limit },
        _ => HttpError::Tls { source },
    })
}

fn call(hook: Hook) -> Result<(), HttpError> {
    hook().map_err(|reason| HttpError::Stopped { reason })
}

fn settings() -> Config {
    Config::builder()
        // Otherwise taken from HTTP_PROXY and its like.
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .max_response_header_size(HEAD_MAX)
        .user_agent(concat!("zdr/", env!("CARGO_PKG_VERSION")))
        // ureq was built without decoders, and an excerpt is to be read by people.
        .accept_encoding("identity")
        .build()
}

/// Reads as much of a body as is taken, and keeps its beginning. Time up, a reset and broken chunks
/// all just end it.
fn beginning(mut body: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    let mut taken = 0;
    while taken < BODY_MAX {
        let Ok(amount @ 1..) = body.read(&mut piece) else { break };
        taken += amount;
        kept.extend_from_slice(&piece[..amount.min(EXCERPT.saturating_sub(kept.len()))]);
    }
    kept
}

/// ureq's error in our words.
fn why(error: ureq::Error) -> HttpError {
    match error {
        ureq::Error::Other(inner) => match inner.downcast::<HttpError>() {
            Ok(ours) => *ours,
            Err(other) => HttpError::NotHttp { reason: other.to_string() },
        },
        ureq::Error::Io(source) => match source.kind() {
            // Which of the two it is depends on who was faster.
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => HttpError::Closed,
            _ => HttpError::Broken { source },
        },
        ureq::Error::LargeResponseHeader(..) => HttpError::HeadTooLarge,
        ureq::Error::Protocol(error) => {
            let text = error.to_string();
            match text.strip_prefix("http parse fail: ") {
                Some(reason) => HttpError::NotHttp { reason: reason.to_owned() },
                None if text.starts_with("output too small") => {
                    HttpError::Unaskable { reason: format!("the path is longer than {} KiB", LINE_MAX / 1024) }
                }
                None => HttpError::NotHttp { reason: text },
            }
        }
        other => HttpError::NotHttp { reason: other.to_string() },
    }
}

/// Hands ureq the one connection there is.
#[derive(Debug)]
struct Given(Mutex<Option<Exchange>>);

impl Connector for Given {
    type Out = Exchange;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Exchange>, ureq::Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// ureq's own resolver would start a thread to look up the name of a peer we are connected to
/// already.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from(([0, 0, 0, 0], 0)));
        Ok(addresses)
    }
}

#[derive(Debug)]
enum Channel {
    Plain(Wire),
    Tls(Box<TlsStream>),
}

impl Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }

    fn write_all(&mut self, from: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(wire) => wire.write_all(from),
            Self::Tls(tls) => tls.write_all(from).and_then(|()| tls.flush()),
        }
    }
}

/// The connection as ureq wants it.
struct Exchange {
    channel: Channel,
    limit: Duration,
    /// Still to be called. The lock is never taken: it is there because ureq asks for `Sync`.
    hook: Mutex<Option<Hook>>,
    /// Whether any byte came back.
    heard: bool,
    buffers: LazyBuffers,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("channel", &self.channel).field("heard", &self.heard).finish_non_exhaustive()
    }
}

fn failed(error: io::Error, heard: bool, limit: Duration) -> ureq::Error {
    match (error.kind(), heard) {
        (ErrorKind::TimedOut, true) => ours(HttpError::HeadUnfinished { limit }),
        (ErrorKind::TimedOut, false) => ours(HttpError::Silent { limit }),
        _ => ureq::Error::Io(error),
    }
}

fn ours(error: HttpError) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

impl Transport for Exchange {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        // No header can hold an empty line, so the first one ends the request; a full buffer may
        // leave it for itself.
        let is_the_end = output.ends_with(b"\r\n\r\n") || output == b"\r\n";
        let hook = if is_the_end { self.hook.get_mut().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        let (now, last) = output.split_at(amount - if hook.is_some() { 2 } else { 0 });
        self.channel.write_all(now).map_err(|e| failed(e, self.heard, self.limit))?;
        if let Some(hook) = hook {
            call(hook).map_err(ours)?;
            self.channel.write_all(last).map_err(|e| failed(e, self.heard, self.limit))?;
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            // Reading into nothing gives nothing, which ureq takes for the peer's hanging up.
            return Err(ours(HttpError::HeadTooLarge));
        }
        let amount = self.channel.read(room).map_err(|e| failed(e, self.heard, self.limit))?;
        self.buffers.input_appended(amount);
        self.heard |= amount > 0;
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Only asked before a connection is used again, which none is.
        false
    }

    fn is_tls(&self) -> bool {
        matches!(self.channel, Channel::Tls(_))
    }
}

#[cfg(test)]
mod tests;
