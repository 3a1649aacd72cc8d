//! One client: when it sends, over which connection, and what it makes of the outcome. It never sends a request
//! twice, except where RFC 9112 §9.3.1 says that a lost race with the closing of an idle connection is nobody's fault.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task;
use tokio::time::{sleep, timeout, timeout_at};

use super::answer::{self, Answer, Broken};
use super::report::{Failure, Kind, Tally, Trace};
use super::{FirstAnswer, Progress, Shape};

/// Within this time a request and the reset of its connection count as having crossed on the way. It
/// is long for the loopback, because on a busy machine the client itself may wait for its turn.
const SAME_INSTANT: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Client {
    target: SocketAddr,
    kind: Kind,
    request: String,
    limit: Duration,
    /// The start of the load; the times in traces count from here.
    started: Instant,
    first: Instant,
    /// None sends the next request as soon as the last is answered.
    every: Option<Duration>,
    progress: Arc<Progress>,
    tell: mpsc::Sender<FirstAnswer>,
    stopped: watch::Receiver<bool>,
    /// The connection kept alive, while no request is under way.
    idle: Option<TcpStream>,
    tally: Tally,
}

/// A request that got no good answer.
struct Lost {
    failure: Failure,
    text: String,
}

impl Client {
    /// The clients of a load, spread evenly over the time between two requests.
    pub(super) fn all(
        target: SocketAddr,
        shape: &Shape,
        progress: &Arc<Progress>,
        tell: &mpsc::Sender<FirstAnswer>,
        stopped: &watch::Receiver<bool>,
    ) -> Vec<Self> {
        let started = Instant::now();
        let every = shape.rate_per_client.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let count = shape.new_connection_clients + shape.keep_alive_clients;
        let kinds = [(Kind::NewConnection, shape.new_connection_clients), (Kind::KeepAlive, shape.keep_alive_clients)];
        let kinds = kinds.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
        let client = |(place, kind): (u32, Kind)| Self {
            target,
            kind,
            request: request(target, &shape.path, kind),
            limit: shape.limit,
            started,
            first: started + every.unwrap_or_default() * place / u32::try_from(count).unwrap_or(u32::MAX),
            every,
            progress: Arc::clone(progress),
            tell: tell.clone(),
            stopped: stopped.clone(),
            idle: None,
            tally: Tally::default(),
        };
        (0..).zip(kinds).map(client).collect()
    }

    pub(super) async fn run(mut self) -> (Kind, Tally) {
        let mut due = self.first;
        while let Some(intended) = self.next_turn(due).await {
            let phase = self.progress.phase_changes.load(Ordering::SeqCst);
            match self.request_in_time().await {
                Ok(answer) => self.count(&answer, intended, phase),
                Err(lost) => self.count_lost(lost, intended),
            }
            due += self.every.unwrap_or_default();
        }
        (self.kind, self.tally)
    }

    /// Waits for the time of the next request and says from when its latency counts; `None` when the load stops.
    ///
    /// A client that was still busy when its request was due counts from then, or a server that stalls would be
    /// asked less and look better (coordinated omission). One that slept counts from its waking: the timer is its own.
    async fn next_turn(&mut self, due: Instant) -> Option<Instant> {
        if *self.stopped.borrow() || self.stopped.has_changed().is_err() {
            return None;
        }
        if self.every.is_none() {
            task::yield_now().await;
            return Some(Instant::now());
        }
        if due <= Instant::now() {
            return Some(due);
        }
        match timeout_at(due.into(), self.stopped.wait_for(|stopped| *stopped)).await {
            Ok(_stop) => None,
            Err(_due) => Some(Instant::now()),
        }
    }

    async fn request_in_time(&mut self) -> Result<Answer, Lost> {
        let limit = self.limit;
        let answer = timeout(limit, self.exchange())
            .await
            .map_err(|_| Lost { failure: Failure::Late, text: format!("no whole answer within {limit:?}") })??;
        match answer.status {
            200..300 => Ok(answer),
            status => Err(Lost { failure: Failure::Status, text: format!("status {status}") }),
        }
    }

    async fn exchange(&mut self) -> Result<Answer, Lost> {
        if let Some(stream) = self.idle.take().filter(still_open) {
            match self.reuse(stream).await {
                Some(outcome) => return outcome,
                None => self.tally.closed_idle += 1,
            }
        }
        let mut stream = TcpStream::connect(self.target).await.map_err(|cause| not_connected(&cause))?;
        stream.write_all(self.request.as_bytes()).await.map_err(|cause| Lost::from(Broken::Reset(cause)))?;
        let answer = answer::read(&mut stream).await?;
        self.keep(stream, &answer);
        Ok(answer)
    }

    /// Sends the request over a connection that was idle; `None` when it crossed the server's closing of it.
    async fn reuse(&mut self, mut stream: TcpStream) -> Option<Result<Answer, Lost>> {
        // Writing fails only where the connection was already gone: the request never left.
        stream.write_all(self.request.as_bytes()).await.ok()?;
        let sent = Instant::now();
        match answer::read(&mut stream).await {
            Ok(answer) => {
                self.keep(stream, &answer);
                Some(Ok(answer))
            }
            Err(Broken::Closed) if reset_follows(&stream).await => None,
            Err(Broken::Reset(_)) if sent.elapsed() <= SAME_INSTANT => None,
            Err(broken) => Some(Err(broken.into())),
        }
    }

    fn keep(&mut self, stream: TcpStream, answer: &Answer) {
        if self.kind == Kind::KeepAlive && answer.reusable {
            self.idle = Some(stream);
        }
    }

    fn count(&mut self, answer: &Answer, intended: Instant, phase: u64) {
        let at = Instant::now();
        if let Some(generation) = answer.generation
            && !self.tally.by_generation.contains_key(&generation)
        {
            // The owner may be gone, and then nobody wants to know.
            let _ = self.tell.send(FirstAnswer { generation, at });
        }
        let touched_by_reload = phase % 2 == 1 || phase != self.progress.phase_changes.load(Ordering::SeqCst);
        self.tally.answered(at - intended, touched_by_reload, answer.generation);
        self.progress.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn count_lost(&mut self, lost: Lost, intended: Instant) {
        let Lost { failure, text } = lost;
        self.tally.lost(Trace { at: intended.saturating_duration_since(self.started), failure, text });
    }
}

fn request(target: SocketAddr, path: &str, kind: Kind) -> String {
    let connection = match kind {
        Kind::NewConnection => "Connection: close\r\n",
        Kind::KeepAlive => "",
    };
    format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: zdr-load\r\n{connection}\r\n")
}

/// An idle connection that the server has closed, or on which it has said something unasked (408), serves no more.
fn still_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(cause) if cause.kind() == io::ErrorKind::WouldBlock)
}

/// Tells a request that came too late from one that the server took in and then dropped. After an end of stream, the
/// kernel answers a request to a closed socket by a reset, which shows as `EPIPE` (`tcp_reset` in `net/ipv4/tcp_input.c`);
/// a request that arrived before the closing causes none.
async fn reset_follows(stream: &TcpStream) -> bool {
    let asked = Instant::now();
    loop {
        if matches!(stream.take_error(), Ok(Some(_))) {
            return true;
        }
        if asked.elapsed() > SAME_INSTANT {
            return false;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn not_connected(cause: &io::Error) -> Lost {
    let failure = match cause.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::ConnectionReset => Failure::Reset,
        io::ErrorKind::TimedOut => Failure::Late,
        _ => Failure::Unsent,
    };
    Lost { failure, text: format!("connecting: {cause}") }
}

impl From<Broken> for Lost {
    fn from(broken: Broken) -> Self {
        let (failure, text) = match broken {
            Broken::Closed => (Failure::Closed, "end of stream before the first byte".to_owned()),
            Broken::Reset(cause) => (Failure::Reset, cause.to_string()),
            Broken::Short(text) => (Failure::Short, text),
            Broken::Garbage(text) => (Failure::Garbage, text),
        };
        Self { failure, text }
    }
}
