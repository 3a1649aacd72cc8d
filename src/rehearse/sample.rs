//! A small HTTP server to rehearse with: it takes its sockets from `LISTEN_FDS`, as a user's own server would, and can be
//! told to be slow, impolite or broken. It knows nothing of zdr but the number in `ZDR_GENERATION`.

use std::future::pending;
use std::time::Duration;
use std::{env, fmt, io, process, thread};

use httparse::Status;
use listenfd::ListenFd;
use nix::sys::signal::{SigSet, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long an idle client of a server that is about to end may still send a request and be told to go.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long the last byte of an answer is given to arrive before the connection is closed for good.
const LINGER: Duration = Duration::from_secs(1);

/// What the sample server does.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The time that every request but `/health` takes.
    pub work: Duration,
    /// How long it sits there before it accepts anything.
    pub start_after: Duration,
    /// Whether it finishes its requests on SIGTERM; otherwise it dies of it.
    pub graceful: bool,
    /// What is wrong with it.
    pub bad: Option<Bad>,
}

/// Ways in which a release can be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Ends at once with this code.
    Exit(i32),
    /// Never accepts a connection.
    Hang,
    /// Answers `/health` with this status.
    Status(u16),
    /// Ends with 1 this long after its start.
    CrashAfter(Duration),
}

/// Why the sample server cannot serve.
#[derive(Debug)]
pub enum SampleError {
    /// There is no stream socket in `LISTEN_FDS`.
    NoSockets,
    /// Something that it needs cannot be had.
    Start {
        /// Why.
        source: io::Error,
    },
}

impl Sample {
    /// Serves until it is told to end, and returns the exit code. Call it before there is any other thread: it takes
    /// its sockets out of the environment.
    pub fn serve(self) -> Result<i32, SampleError> {
        if let Some(Bad::Exit(code)) = self.bad {
            return Ok(code);
        }
        let mut sockets = ListenFd::from_env();
        let start = |source| SampleError::Start { source };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
        runtime.block_on(self.until_told(&mut sockets))
    }

    async fn until_told(self, sockets: &mut ListenFd) -> Result<i32, SampleError> {
        let (ending, end) = watch::channel(false);
        let mut serving = JoinSet::new();
        for door in doors(sockets)? {
            serving.spawn(self.clone().welcome(door, end.clone()));
        }
        let crash = async {
            match self.bad {
                Some(Bad::CrashAfter(life)) => sleep(life).await,
                _ => pending().await,
            }
        };
        let told = self.told_to_end().map_err(|source| SampleError::Start { source })?;
        tokio::select! {
            () = crash => return Ok(1),
            () = told => {}
        }
        ending.send_replace(true);
        serving.join_all().await;
        Ok(0)
    }

    /// Waits for SIGTERM, and for ever when it is to have its usual effect.
    fn told_to_end(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let terminate: SigSet = [Signal::SIGTERM].into_iter().collect();
        let (tell, told) = oneshot::channel();
        if self.graceful {
            terminate.thread_block()?;
            thread::Builder::new().name("signals".to_owned()).spawn(move || {
                if terminate.wait().is_ok() {
                    let _ = tell.send(());
                }
            })?;
        } else {
            // Whoever started it may have had it blocked, and that is inherited.
            terminate.thread_unblock()?;
        }
        Ok(async move {
            if told.await.is_err() {
                pending::<()>().await;
            }
        })
    }

    async fn welcome(self, door: Door, mut end: watch::Receiver<bool>) {
        let wait = if self.bad == Some(Bad::Hang) { Duration::MAX } else { self.start_after };
        if timeout(wait, told(&mut end)).await.is_ok() {
            return;
        }
        let mut visits = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = told(&mut end) => break,
                stream = door.accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    drop(visits.spawn(Visit::new(stream, self.clone(), end.clone()).receive()));
                }
                // Out of descriptors, or the client has gone: both pass.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
            while visits.try_join_next().is_some() {}
        }
        drop(door);
        visits.join_all().await;
    }

    fn status(&self, path: &str) -> u16 {
        match (path, self.bad) {
            ("/health", Some(Bad::Status(status))) => status,
            ("/" | "/health", _) => 200,
            _ => 404,
        }
    }
}

/// A socket to accept connections from.
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Door {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

fn doors(sockets: &mut ListenFd) -> Result<Vec<Door>, SampleError> {
    let doors: io::Result<Vec<_>> = (0..sockets.len()).map(|place| door(sockets, place)).collect();
    let doors: Vec<_> = doors.map_err(|source| SampleError::Start { source })?.into_iter().flatten().collect();
    if doors.is_empty() { Err(SampleError::NoSockets) } else { Ok(doors) }
}

/// The socket in that place; one of a wrong kind stays there, untouched, for the next try.
fn door(sockets: &mut ListenFd, place: usize) -> io::Result<Option<Door>> {
    if let Ok(Some(listener)) = sockets.take_tcp_listener(place) {
        listener.set_nonblocking(true)?;
        return Ok(Some(Door::Tcp(TcpListener::from_std(listener)?)));
    }
    if let Ok(Some(listener)) = sockets.take_unix_listener(place) {
        listener.set_nonblocking(true)?;
        return Ok(Some(Door::Unix(UnixListener::from_std(listener)?)));
    }
    Ok(None)
}

async fn told(end: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the end as well.
    let _ = end.wait_for(|ending| *ending).await;
}

/// One connection and its requests, one after another.
struct Visit {
    stream: Box<dyn Stream>,
    sample: Sample,
    end: watch::Receiver<bool>,
    /// What has come and is not dealt with yet.
    bytes: Vec<u8>,
}

/// As much of a request as this server wants to know.
struct Request {
    path: String,
    is_head: bool,
    /// Whether the client wants to send another one.
    keeps: bool,
    /// The length of the head and of the body after it.
    length: usize,
}

impl Visit {
    fn new(stream: Box<dyn Stream>, sample: Sample, end: watch::Receiver<bool>) -> Self {
        Self { stream, sample, end, bytes: Vec::new() }
    }

    async fn receive(mut self) {
        // A client that goes away in the middle is no concern of a server's.
        let _ = self.answer_all().await;
        // Closing with bytes unread would reset the connection and could destroy the answer (RFC 9112 §9.6).
        let _ = self.stream.shutdown().await;
        let _ = timeout(LINGER, tokio::io::copy(&mut self.stream, &mut tokio::io::sink())).await;
    }

    async fn answer_all(&mut self) -> io::Result<()> {
        while let Some(request) = self.next_request().await? {
            if request.path != "/health" {
                sleep(self.sample.work).await;
            }
            let keeps = request.keeps && !*self.end.borrow();
            self.answer(&request, keeps).await?;
            if !keeps {
                break;
            }
        }
        Ok(())
    }

    /// The next request; `None` when there will be none.
    async fn next_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            match parse(&self.bytes) {
                Ok(Some(request)) if request.length <= self.bytes.len() => {
                    self.bytes.drain(..request.length);
                    return Ok(Some(request));
                }
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes: for ever, or for the time of a farewell once the server is told to end.
    async fn more(&mut self) -> io::Result<bool> {
        let read = async {
            tokio::select! {
                biased;
                count = self.stream.read_buf(&mut self.bytes) => return Some(count),
                () = told(&mut self.end) => {}
            }
            timeout(FAREWELL, self.stream.read_buf(&mut self.bytes)).await.ok()
        };
        Ok(read.await.transpose()?.is_some_and(|count| count > 0))
    }

    async fn answer(&mut self, request: &Request, keeps: bool) -> io::Result<()> {
        let status = self.sample.status(&request.path);
        let generation = env::var("ZDR_GENERATION").unwrap_or_default();
        let body = format!("{status} from generation {generation}, pid {}\n", process::id());
        let reason = if status == 200 { "OK" } else { "Not OK" };
        let connection = if keeps { "" } else { "Connection: close\r\n" };
        let shown = if request.is_head { "" } else { body.as_str() };
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nX-Generation: {generation}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n{connection}\r\n{shown}",
            body.len()
        );
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.flush().await
    }
}

/// The request at the front of these bytes, once its head is whole.
fn parse(bytes: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
    let mut request = Request {
        path: head.path.unwrap_or_default().to_owned(),
        is_head: head.method == Some("HEAD"),
        keeps: head.version == Some(1),
        length,
    };
    for header in head.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().to_ascii_lowercase();
        match header.name.to_ascii_lowercase().as_str() {
            "connection" if value.contains("close") => request.keeps = false,
            "connection" if value.contains("keep-alive") => request.keeps = true,
            "content-length" => request.length += value.parse().unwrap_or(0),
            // It does not read chunks, so it cannot know where a next request would begin.
            "transfer-encoding" => request.keeps = false,
            _ => {}
        }
    }
    Ok(Some(request))
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSockets => f.write_str(
                "the sample server got no sockets: it takes them from LISTEN_FDS, so run it under `zdr run`",
            ),
            Self::Start { source } => write!(f, "the sample server could not start: {source}"),
        }
    }
}

impl std::error::Error for SampleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSockets => None,
            Self::Start { source } => Some(source),
        }
    }
}
