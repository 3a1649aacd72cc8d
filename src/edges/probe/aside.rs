//! Work that blocks, on a thread of its own: what hangs there, as a resolver may for minutes, takes no thread from anybody else.
//!
//! Never more than one for each question at a time, so there are no more threads than questions.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::http::{self, Answer, Hook, Question, Stream};
use crate::url::Url;

/// As for the threads of the event loop.
const STACK: usize = 256 * 1024;

/// Held by all that a question has begun, until that has ended.
#[derive(Clone, Debug)]
pub struct Alive {
    _held: Option<mpsc::Sender<Infallible>>,
}

/// What a question has begun.
#[derive(Debug)]
pub struct Remains(mpsc::Receiver<Infallible>);

impl Alive {
    /// For a question, with what tells when nothing remains of it.
    pub fn begin() -> (Self, Remains) {
        let (alive, remains) = mpsc::channel(1);
        (Self { _held: Some(alive) }, Remains(remains))
    }

    /// For one whose end nobody waits for.
    pub fn unwatched() -> Self {
        Self { _held: None }
    }
}

impl Remains {
    /// Waits until all of it has ended.
    pub async fn gone(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// Does it on a thread of its own.
async fn aside<T: Send + 'static>(alive: Alive, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (reply, done) = oneshot::channel();
    let thread = Builder::new().name("zdr-asks".to_owned()).stack_size(STACK);
    let started = thread.spawn(move || {
        let _alive = alive;
        // Whoever asked may have run out of time.
        let _ = reply.send(work());
    });
    started.map_err(|error| format!("cannot start a thread: {error}"))?;
    done.await.map_err(|_| "it could not be asked".to_owned())
}

/// The addresses of a host, at least one.
pub(super) async fn look_up(host: &str, port: u16, alive: Alive) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = host.to_owned();
    let looking = aside(alive, move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    let found: io::Result<Vec<SocketAddr>> = looking.await?;
    let addresses = found.map_err(|error| format!("`{host}`: {error}"))?;
    if addresses.is_empty() { Err(format!("`{host}` has no address")) } else { Ok(addresses) }
}

/// The answer to a question over a connection that is there.
pub(super) async fn exchange(
    url: Url,
    stream: Stream,
    limit: Duration,
    hook: Option<Hook>,
    alive: Alive,
) -> Result<Answer, String> {
    let asking = move || http::get(Question { url: &url, stream, limit, before_the_last_bytes: hook });
    aside(alive, asking).await?.map_err(|error| error.to_string())
}
