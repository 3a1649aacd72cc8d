//! Answers that go on for as long as their reader is there: events.
//!
//! hyper keeps some 13 KiB for a connection as long as it speaks for it, and thousands may follow. So it only reads their
//! request; what they are told is written by a small task, framed by nothing but the end of the connection (RFC 9112 §6.3),
//! which every HTTP/1 client understands. Never buffers for a reader, and never waits for one longer than its door's
//! patience.

use std::fmt;
use std::io;
use std::pin::Pin;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::Socket;
use super::{part, wire_head};

type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a reader is told, one thing after another.
pub struct Live(Box<dyn FnOnce(Reader) -> Telling + Send>);

impl Live {
    /// `tell` runs in a task of its own, and is dropped with its server.
    pub fn new<F, Fut>(tell: F) -> Self
    where
        F: FnOnce(Reader) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self(Box::new(|reader| Box::pin(tell(reader))))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

/// Who is told.
pub struct Reader(Socket);

impl Reader {
    /// Writes it, to its last byte. Fails when the reader has gone or has read nothing for too long.
    pub async fn tell(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Waits until the reader hangs up; whatever it still says is of no interest. Cancel safe.
    pub async fn gone(&mut self) {
        let mut ignored = [0; 64];
        while self.0.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
    }

    /// Waits for `next`; None when the reader hangs up first.
    pub async fn until<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            next = next => Some(next),
            () = self.gone() => None,
        }
    }

    /// Ends the answer, so that what was told before arrives.
    pub async fn farewell(self) {
        part(self.0, None).await;
    }
}

/// An answer whose request hyper has read, and that goes on without it.
pub(super) struct Left {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) live: Live,
}

impl Left {
    /// The rest of the connection.
    pub(super) async fn go_on(self, mut socket: Socket) {
        let Self { status, headers, live } = self;
        if socket.write_all(&wire_head(status, &headers)).await.is_ok() {
            drop(headers);
            (live.0)(Reader(socket)).await;
        }
    }
}

/// Ends hyper's part; it writes nothing when the function that answers fails (`poll_write` in `proto/h1/dispatch.rs`).
#[derive(Debug)]
pub(super) struct GoesOnWithout;

impl fmt::Display for GoesOnWithout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer goes on without hyper")
    }
}

impl std::error::Error for GoesOnWithout {}
