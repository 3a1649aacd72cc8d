//! A strict load of other clients than those of HTTP over TCP: each asks the same again and again and must get a whole good answer.
//!
//! It reports as the HTTP load does. It asks once more only where it finds its idle connection closed before it has sent anything.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::wait_for;
use crate::load::report::{Failure, Report, Tally, Trace};
use crate::rows::Speaks;

/// Where the server is.
#[derive(Debug, Clone)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is said, and when an answer is whole and good.
#[derive(Debug, Clone)]
struct Dialogue {
    question: Vec<u8>,
    begins: &'static [u8],
    /// Empty where the end of the stream is the end of the answer.
    ends: &'static [u8],
    /// What it must have somewhere.
    has: &'static [u8],
}

/// Load on its way.
#[derive(Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
    new: Vec<JoinHandle<Tally>>,
    kept: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
struct Shared {
    answered: AtomicU64,
    newest_generation: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct Client {
    target: Target,
    dialogue: Dialogue,
    every: Duration,
    limit: Duration,
    keeps: bool,
    shared: Arc<Shared>,
    idle: Option<File>,
    tally: Tally,
}

/// What PHP-FPM is asked to run.
const PHP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/php-fpm/index.php");

/// A request by the rules of FastCGI's specification (3.3 records, 3.4 names and values): begin as a responder, parameters, nothing more.
fn fastcgi() -> Vec<u8> {
    let record = |kind: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).expect("a short record").to_be_bytes();
        [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
    };
    let short = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 128).expect("a short text");
    let parameter =
        |(name, value): &(&str, &str)| [&[short(name), short(value)], name.as_bytes(), value.as_bytes()].concat();
    let parameters = [("SCRIPT_FILENAME", PHP), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/")];
    let parameters = parameters.iter().flat_map(parameter).collect::<Vec<_>>();
    [record(1, &[0, 1, 0, 0, 0, 0, 0, 0]), record(4, &parameters), record(4, &[]), record(5, &[])].concat()
}

/// A start-up message by PostgreSQL's protocol, version 3.0.
fn postgresql() -> Vec<u8> {
    let rest = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(rest.len() + 4).expect("a short message").to_be_bytes();
    [&length[..], rest].concat()
}

impl Dialogue {
    fn of(speaks: Speaks) -> Self {
        let dialogue = |question: &[u8], begins, ends, has| Self { question: question.to_vec(), begins, ends, has };
        match speaks {
            Speaks::Http => dialogue(
                b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
                b"HTTP/1.1 200",
                b"",
                // The last word of a body, so that nothing is cut.
                b"generation",
            ),
            Speaks::Redis => dialogue(b"PING\r\n", b"+PONG", b"\r\n", b""),
            Speaks::Memcached => dialogue(b"version\r\n", b"VERSION", b"\r\n", b""),
            // Ready for a query, outside of a transaction.
            Speaks::Postgresql => dialogue(&postgresql(), b"R", b"Z\x00\x00\x00\x05I", b""),
            Speaks::Fastcgi => dialogue(&fastcgi(), b"\x01\x06", b"", b"generation"),
        }
    }

    fn is_good(&self, answer: &[u8]) -> bool {
        let has = self.has.is_empty() || answer.windows(self.has.len()).any(|part| part == self.has);
        answer.starts_with(self.begins) && answer.ends_with(self.ends) && has
    }

    /// A start-up message cannot be said twice.
    fn may_be_repeated(speaks: Speaks) -> bool {
        matches!(speaks, Speaks::Redis | Speaks::Memcached)
    }
}

impl Exchange {
    /// So many clients of each of the two kinds, each at this rate a second.
    pub fn start(target: &Target, speaks: Speaks, (new, kept): (usize, usize), rate: f64, limit: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |keeps: bool| {
            let client = Client {
                target: target.clone(),
                dialogue: Dialogue::of(speaks),
                every: Duration::from_secs_f64(1.0 / rate),
                limit,
                keeps,
                shared: Arc::clone(&shared),
                idle: None,
                tally: Tally::default(),
            };
            spawn(move || client.run())
        };
        let kept = if Dialogue::may_be_repeated(speaks) { kept } else { 0 };
        let (new, kept) = ((0..new).map(|_| start(false)).collect(), (0..kept).map(|_| start(true)).collect());
        Self { shared, new, kept }
    }

    pub fn wait_for_answers(&self, more: u64, within: Duration) -> bool {
        let enough = self.shared.answered.load(Ordering::SeqCst) + more;
        wait(within, || self.shared.answered.load(Ordering::SeqCst) >= enough)
    }

    pub fn wait_for_answer_of(&self, generation: u64, within: Duration) -> bool {
        wait(within, || self.shared.newest_generation.load(Ordering::SeqCst) >= generation)
    }

    /// Asks nothing more, waits for what is under way, and reports.
    pub fn stop(self) -> Report {
        self.shared.stopped.store(true, Ordering::SeqCst);
        Report { new_connection: total(self.new), keep_alive: total(self.kept) }
    }
}

fn wait(within: Duration, condition: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    wait_for("an answer", || {
        let held = condition();
        (held || begun.elapsed() + Duration::from_secs(1) > within).then_some(held)
    })
}

fn total(clients: Vec<JoinHandle<Tally>>) -> Tally {
    let mut total = Tally::default();
    for client in clients {
        let found = client.join().expect("a client ends well");
        total.ok += found.ok;
        total.closed_idle += found.closed_idle;
        found.failures.iter().for_each(|(failure, count)| *total.failures.entry(*failure).or_default() += count);
        total.traces.extend(found.traces);
    }
    total.traces.sort_by_key(|trace| trace.at);
    total.traces.truncate(8);
    total
}

impl Client {
    fn run(mut self) -> Tally {
        let begun = Instant::now();
        let mut due = begun;
        while !self.shared.stopped.load(Ordering::SeqCst) {
            match self.ask() {
                Ok(()) => {
                    self.tally.ok += 1;
                    self.shared.answered.fetch_add(1, Ordering::SeqCst);
                }
                Err((failure, text)) => {
                    *self.tally.failures.entry(failure).or_default() += 1;
                    self.tally.traces.push(Trace { at: begun.elapsed(), failure, text });
                }
            }
            due += self.every;
            while Instant::now() < due {
                park_timeout(due - Instant::now());
            }
        }
        self.tally
    }

    fn ask(&mut self) -> Result<(), (Failure, String)> {
        let idle = self.idle.take();
        let was_idle = idle.is_some();
        let mut stream = if let Some(stream) = idle.filter(silent) {
            stream
        } else {
            self.tally.closed_idle += u64::from(was_idle);
            self.connect().map_err(|error| (kind(&error, Failure::Unsent), format!("connecting: {error}")))?
        };
        let begun = Instant::now();
        stream
            .write_all(&self.dialogue.question)
            .map_err(|error| (kind(&error, Failure::Reset), format!("asking: {error}")))?;
        let answer = self.answer(&mut stream)?;
        if begun.elapsed() > self.limit {
            return Err((Failure::Late, format!("answered after {:?}", begun.elapsed())));
        }
        if !self.dialogue.is_good(&answer) {
            return Err((Failure::Garbage, String::from_utf8_lossy(&answer).into_owned()));
        }
        if let Some(generation) = generation(&answer) {
            self.shared.newest_generation.fetch_max(generation, Ordering::SeqCst);
        }
        self.idle = self.keeps.then_some(stream);
        Ok(())
    }

    fn answer(&self, stream: &mut File) -> Result<Vec<u8>, (Failure, String)> {
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        let until_closed = self.dialogue.ends.is_empty();
        loop {
            let count = stream.read(&mut part).map_err(|error| {
                let otherwise = if answer.is_empty() { Failure::Reset } else { Failure::Short };
                (kind(&error, otherwise), format!("reading: {error}"))
            })?;
            answer.extend_from_slice(&part[..count]);
            match count {
                0 if answer.is_empty() => return Err((Failure::Closed, "no answer".to_owned())),
                0 if until_closed => return Ok(answer),
                0 => return Err((Failure::Short, String::from_utf8_lossy(&answer).into_owned())),
                _ if !until_closed && answer.ends_with(self.dialogue.ends) => return Ok(answer),
                _ => {}
            }
        }
    }

    fn connect(&self) -> io::Result<File> {
        let socket: OwnedFd = match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, self.limit)?;
                stream.set_read_timeout(Some(self.limit))?;
                stream.into()
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(self.limit))?;
                stream.into()
            }
        };
        Ok(socket.into())
    }
}

/// An idle connection on which something is to be read was closed, or serves no more.
fn silent(stream: &File) -> bool {
    matches!(poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0))
}

fn kind(error: &io::Error, otherwise: Failure) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::Refused,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Late,
        _ => otherwise,
    }
}

/// The number behind the word in a body such as `generation 3`.
fn generation(answer: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.rsplit_once("generation ")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}
