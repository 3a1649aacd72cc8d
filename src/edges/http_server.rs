//! A small HTTP/1.1 server: one door (a Unix socket or a TCP address), a limited crowd of connections, one function that answers.
//!
//! It never decides what an answer says, never knows a route, never starts a thread, and never lets idle clients keep a working one out:
//! when the crowd is full, whoever has waited longest without a whole request makes room. Those who follow something live are no part
//! of the crowd; they are counted by themselves.

mod body;
mod crowd;
mod door;
mod live;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use body::Outgoing;
use crowd::{Crowd, InProgress, Seat};
pub use door::Door;
use door::is_welcome;
use live::{GoesOnWithout, Left};
pub use live::{Live, Reader};
use socket::Socket;

use super::kernel::code;

/// How long to leave `accept` alone after it failed; without file descriptors it fails again at once, and for as long as it is asked.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long a connection that is over may go on talking. Closing a socket that holds unread bytes resets it, and a reset can
/// overtake the answer on its way to the client.
const LINGER: Duration = Duration::from_secs(1);

/// The least `max_buf_size` hyper accepts; it panics below.
const HYPER_LEAST_BUFFER: usize = 8 * 1024;

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
    /// The most that follow something live, besides.
    pub live: usize,
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
            live: 128,
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
    /// The headers.
    pub headers: HeaderMap,
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
    /// For as long as the reader is there. The connection ends with it.
    Live(Live),
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
    let mut followers = JoinSet::new();
    let (leave, mut leaving) = mpsc::unbounded_channel();
    loop {
        // All are cancel safe: what has not been returned is still in the kernel's queue, in a channel or in a set of tasks.
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            Some(()) = crowd.one_left() => {
                // Whoever comes over the admin socket comes now and then, and what answering takes need not stay meanwhile.
                if guests.is_some() {
                    code::let_go();
                }
                continue;
            }
            Some(_) = followers.join_next() => continue,
            Some((socket, left)) = leaving.recv() => {
                follow(&mut followers, limits.live, socket, left);
                continue;
            }
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
            crowd.admit(Arc::clone(&seat), converse(socket, limits, seat, leave.clone(), answer.clone()));
        } else {
            let words = "every connection is busy";
            crowd.admit(seat, part(socket, Some((StatusCode::SERVICE_UNAVAILABLE, words))));
        }
    }
}

/// Lets somebody follow, in a task of its own. There may be a few more than `most`: those that are told there is no room.
fn follow(followers: &mut JoinSet<()>, most: usize, socket: Socket, left: Left) {
    const REFUSED: usize = 64;
    if followers.len() < most {
        followers.spawn(left.go_on(socket));
    } else if followers.len() < most + REFUSED {
        let words = "as many follow as may";
        followers.spawn(part(socket, Some((StatusCode::SERVICE_UNAVAILABLE, words))));
    }
}

/// One connection, from its first byte to its last, or until it is handed on to those who follow.
async fn converse<F, Fut>(
    mut socket: Socket,
    limits: Limits,
    seat: Arc<Seat>,
    leave: mpsc::UnboundedSender<(Socket, Left)>,
    answer: F,
) where
    F: Fn(Asked) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let (going, mut left) = mpsc::unbounded_channel();
    let service = service_fn(move |request| respond(request, limits, Arc::clone(&seat), going.clone(), answer.clone()));
    let outcome = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(HYPER_LEAST_BUFFER))
        .serve_connection(TokioIo::new(&mut socket), service)
        .await;
    if let Ok(left) = left.try_recv() {
        // A server that has ended has no use for it.
        let _ = leave.send((socket, left));
        return;
    }
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
    going: mpsc::UnboundedSender<Left>,
    answer: F,
) -> Result<Response<Outgoing>, GoesOnWithout>
where
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = Answer>,
{
    let (head, incoming) = request.into_parts();
    let body = match body::whole(incoming, limits).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refused(refusal)),
    };
    let all_is_written = seat.all_is_written();
    let in_progress = seat.request_received();
    let is_head = head.method == Method::HEAD;
    let method = if is_head { Method::GET } else { head.method };
    let path = head.uri.path().to_owned();
    let query = head.uri.query().map(str::to_owned);
    let Answer { status, headers, body } = answer(Asked { method, path, query, headers: head.headers, body }).await;
    match body {
        Body::Live(live) if !is_head && all_is_written => {
            let _ = going.send(Left { status, headers, live });
            Err(GoesOnWithout)
        }
        // hyper would take what it has not written yet with it.
        Body::Live(_) if !is_head => {
            let words = "what goes on for ever is not answered behind other requests; use a connection of its own";
            Ok(refused(Answer::error(StatusCode::SERVICE_UNAVAILABLE, words)))
        }
        body => Ok(response(Answer { status, headers, body }, Some(in_progress))),
    }
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
    let mut answer = Answer::error(status, words);
    let Body::Whole(body) = answer.body else { return Vec::new() };
    answer.headers.push((CONTENT_LENGTH, HeaderValue::from(body.len())));
    let mut wire = wire_head(status, &answer.headers);
    wire.extend(body);
    wire
}

/// Its head. There will be no other answer on this connection.
fn wire_head(status: StatusCode, headers: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut wire = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend(b"connection: close\r\n\r\n");
    wire
}
