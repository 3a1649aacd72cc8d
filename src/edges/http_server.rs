//! A small HTTP/1.1 server: one door (a Unix socket or a TCP address), a limited crowd of connections, one function that answers.
//!
//! It never decides what an answer says, never knows a route, never starts a thread, and never lets idle clients keep a working one out:
//! when the crowd is full, whoever has waited longest without a whole request makes room.

mod body;
mod crowd;
mod socket;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use body::Outgoing;
use crowd::{Crowd, InProgress, Seat};
use socket::{Socket, Stream};

/// How long to leave `accept` alone after it failed; without file descriptors it fails again at once, and for as long as it is asked.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long a connection that is over may go on talking. Closing a socket that holds unread bytes resets it, and a reset can
/// overtake the answer on its way to the client.
const LINGER: Duration = Duration::from_secs(1);

/// The least `max_buf_size` hyper accepts; it panics below.
const HYPER_LEAST_BUFFER: usize = 8 * 1024;

/// Where clients come in.
pub enum Door {
    /// A Unix socket, whose peers have a uid.
    Unix(UnixListener),
    /// A TCP address, whose peers may be anybody.
    Tcp(TcpListener),
}

/// What one door grants its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes in a request line and its headers.
    pub head_bytes: usize,
    /// The most bytes in a request body.
    pub body_bytes: usize,
    /// How long a whole head may take, and how long a connection may stay idle between requests.
    pub head_time: Duration,
    /// How long a whole body may take.
    pub body_time: Duration,
    /// How long an answer may wait for a client that reads nothing.
    pub answer_time: Duration,
    /// The most connections at a time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            body_bytes: 64 * 1024,
            head_time: Duration::from_secs(5),
            body_time: Duration::from_secs(5),
            answer_time: Duration::from_secs(10),
            connections: 128,
        }
    }
}

/// A request, wholly received.
#[derive(Debug)]
pub struct Asked {
    /// The method. HEAD is shown as GET: the server leaves the body out by itself.
    pub method: Method,
    /// The path, as sent.
    pub path: String,
    /// What follows the question mark, as sent.
    pub query: Option<String>,
    /// The body, empty if there was none.
    pub body: Bytes,
}

/// What an answer consists of below its headers.
#[derive(Debug)]
pub enum Body {
    /// All of it, now.
    Whole(Bytes),
    /// Piece by piece, until the sender is dropped. The receiver is dropped as soon as the client is gone.
    Stream(mpsc::Receiver<Bytes>),
}

/// What a client is told.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers; length and date are added.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// `{"error":"words"}`. A 503 comes with Retry-After. The words are literals, so that none needs escaping.
    pub fn error(status: StatusCode, words: &'static str) -> Self {
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
        }
        let body = Body::Whole(format!("{{\"error\":\"{words}\"}}\n").into());
        Self { status, headers, body }
    }
}

/// Serves until it is dropped, and drops every connection with it. Through a Unix door come only `allowed_uid` and root,
/// or everybody if it is `None`. `answer` runs in the connection's task and is dropped when the client goes away before the answer.
pub async fn serve<F, Fut>(door: Door, limits: Limits, allowed_uid: Option<u32>, answer: F)
where
    F: Fn(Asked) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    serve_to(door, limits, allowed_uid.map(|uid| vec![uid, 0]), answer).await;
}

/// `guests` are the uids that may come through a Unix door, `None` for everybody.
async fn serve_to<F, Fut>(door: Door, limits: Limits, guests: Option<Vec<u32>>, answer: F)
where
    F: Fn(Asked) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let mut crowd = Crowd::new(limits.connections);
    loop {
        // Both are cancel safe: what has not been returned is still in the kernel's queue or in the set of tasks.
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            Some(()) = crowd.one_left() => continue,
        };
        let Ok((stream, uid)) = accepted else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let has_room = crowd.make_room().await;
        let seat = crowd.seat();
        let socket = Socket::new(stream, Arc::clone(&seat), limits.answer_time);
        if !is_welcome(uid, guests.as_deref()) {
            let words = "this socket answers only the user zdr runs as, and root";
            crowd.admit(seat, part(socket, Some((StatusCode::FORBIDDEN, words))));
        } else if has_room {
            crowd.admit(Arc::clone(&seat), converse(socket, limits, seat, answer.clone()));
        } else {
            let words = "every connection is busy";
            crowd.admit(seat, part(socket, Some((StatusCode::SERVICE_UNAVAILABLE, words))));
        }
    }
}

impl Door {
    /// The next client, and who it is if this door can tell.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<Peer>)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map_or(Peer::Unknown, |peer| Peer::Uid(peer.uid()));
                Ok((Box::new(stream), Some(peer)))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An event is worth its packet: without this, the second small write waits for the first one's acknowledgement.
                // It fails only if the client is already gone, which the first read will tell.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), None))
            }
        }
    }
}

/// Who is at the other end of a Unix socket.
enum Peer {
    Uid(u32),
    /// The kernel would not say, so it is nobody who was allowed.
    Unknown,
}

fn is_welcome(peer: Option<Peer>, guests: Option<&[u32]>) -> bool {
    match (peer, guests) {
        (None, _) | (_, None) => true,
        (Some(Peer::Uid(uid)), Some(guests)) => guests.contains(&uid),
        (Some(Peer::Unknown), Some(_)) => false,
    }
}

/// One connection, from its first byte to its last.
async fn converse<F, Fut>(mut socket: Socket, limits: Limits, seat: Arc<Seat>, answer: F)
where
    F: Fn(Asked) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| respond(request, limits, Arc::clone(&seat), answer.clone()));
    let outcome = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(HYPER_LEAST_BUFFER))
        .serve_connection(TokioIo::new(&mut socket), service)
        .await;
    let last_words = outcome.err().filter(|_| socket.owes_an_answer()).and_then(|error| last_words(&error));
    part(socket, last_words).await;
}

/// hyper answers a head it cannot read or finds too large, with 400 or 431 and no body. For these it only hangs up.
fn last_words(error: &hyper::Error) -> Option<(StatusCode, &'static str)> {
    if error.is_timeout() {
        Some((StatusCode::REQUEST_TIMEOUT, "the request head did not arrive in time"))
    } else if error.is_parse() || error.is_incomplete_message() {
        Some((StatusCode::BAD_REQUEST, "this is not a whole HTTP/1 request"))
    } else {
        None
    }
}

async fn respond<F, Fut>(
    request: Request<Incoming>,
    limits: Limits,
    seat: Arc<Seat>,
    answer: F,
) -> Result<Response<Outgoing>, Infallible>
where
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = Answer>,
{
    let (head, incoming) = request.into_parts();
    let body = match body::whole(incoming, limits).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refused(refusal)),
    };
    let in_progress = seat.request_received();
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    let path = head.uri.path().to_owned();
    let query = head.uri.query().map(str::to_owned);
    let answer = answer(Asked { method, path, query, body }).await;
    Ok(response(answer, Some(in_progress)))
}

/// What is left of the body would be read as the next request, so there is none. hyper closes as well, but does not say so.
fn refused(refusal: Answer) -> Response<Outgoing> {
    let mut response = response(refusal, None);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn response(answer: Answer, in_progress: Option<InProgress>) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::new(answer.body, in_progress));
    *response.status_mut() = answer.status;
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value);
    }
    response
}

/// Says what is left to say and hangs up, after the client has or after [`LINGER`].
async fn part(mut socket: Socket, last_words: Option<(StatusCode, &'static str)>) {
    let farewell = async {
        if let Some((status, words)) = last_words {
            socket.write_all(&on_the_wire(status, words)).await?;
        }
        socket.shutdown().await?;
        copy(&mut socket, &mut sink()).await
    };
    // Whether the client heard it or not, there is nobody left to tell.
    let _ = timeout(LINGER, farewell).await;
}

/// An answer for a connection that hyper does not, or no longer, speak for.
fn on_the_wire(status: StatusCode, words: &'static str) -> Vec<u8> {
    let answer = Answer::error(status, words);
    let mut wire = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &answer.headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if let Body::Whole(body) = &answer.body {
        wire.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).bytes());
        wire.extend(body);
    }
    wire
}
