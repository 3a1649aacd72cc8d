//! Asking a generation whether it is ready, until it is.
//!
//! The answer must be its own: a question to a steered listener is aimed at its slot; any other answer counts only if
//! the process that accepted the connection belongs to it. Judges nothing but answers; what follows from them is decided
//! elsewhere.

pub mod attribution;
mod http;
mod tls;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use self::http::{Question, Stream};
use super::listeners::{Aimed, Reach, Target};
use super::notice::{Notice, Owner, tell};
use crate::address::{Address, Listener};
use crate::config::{Readiness, Ready};
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::supervisor::{Event, Exit, Generation};
use crate::url::{Scheme, Url};

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The generation that is to prove itself.
    pub generation: Generation,
    /// The question.
    pub readiness: Readiness,
    /// Who is told, and who aims sockets.
    pub owner: Owner,
}

/// The first probes come this close together.
const FIRST_INTERVAL: Duration = Duration::from_millis(5);

/// A look at the queue costs microseconds, and the server does not notice.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// A connection that waits this long to be accepted is worth a word: most servers need less to start.
const NOTEWORTHY: Duration = Duration::from_millis(250);

/// Probes come at intervals of this share of the time that has passed: a start is noticed at most 3 % late.
const SHARE: u32 = 32;

impl Probe {
    /// Asks until it is ready, and tells every answer that is no.
    pub async fn run(self) {
        let started = Instant::now();
        let mut good = 0;
        while good < self.readiness.successes {
            let answer = self.ask(started).await;
            let _ = self.owner.send(Notice::Unaim);
            match answer {
                Ok(()) => good += 1,
                Err(answer) => {
                    good = 0;
                    tell(&self.owner, Event::NotReady { generation: self.generation, answer });
                }
            }
            if good < self.readiness.successes {
                sleep(self.pause(started, FIRST_INTERVAL)).await;
            }
        }
        tell(&self.owner, Event::Ready { generation: self.generation });
    }

    fn pause(&self, started: Instant, first: Duration) -> Duration {
        (started.elapsed() / SHARE).clamp(first, self.readiness.interval.max(first))
    }

    async fn ask(&self, started: Instant) -> Result<(), String> {
        let ready = &self.readiness.ready;
        let said = |answer: String| format!("last probe of {ready}: {answer}");
        match ready {
            Ready::Path(path) => self.get_path(path).await.map_err(said),
            Ready::Http(url) => self.get(url).await.map_err(said),
            Ready::Exec(command) => self.run_errand(command).await.map_err(said),
            Ready::Tcp => self.accepts(started).await,
            Ready::Default if !self.streams().await.is_empty() => self.accepts(started).await,
            Ready::Default => self.stays_up(self.readiness.startup_grace).await,
            Ready::Uptime(time) => self.stays_up(*time).await,
            Ready::Notify => self.waits_for_its_word().await,
        }
    }

    /// READY=1 comes by another way; here is only said that it has not come yet.
    async fn waits_for_its_word(&self) -> Result<(), String> {
        let answer = "it has not sent READY=1".to_owned();
        tell(&self.owner, Event::NotReady { generation: self.generation, answer });
        std::future::pending().await
    }

    async fn stays_up(&self, time: Duration) -> Result<(), String> {
        sleep(time).await;
        Ok(())
    }

    /// The stream listeners that it has by now, with their numbers.
    async fn streams(&self) -> Vec<(usize, Listener)> {
        let (reply, reach) = oneshot::channel();
        let _ = self.owner.send(Notice::Reach { generation: self.generation, reply });
        let Reach { listeners, .. } = reach.await.unwrap_or_default();
        listeners.into_iter().filter(|(_, listener)| listener.address.is_stream()).collect()
    }

    /// It has accepted a connection on its own slot of every stream listener.
    async fn accepts(&self, started: Instant) -> Result<(), String> {
        for (position, listener) in self.streams().await {
            let said = |why| format!("it accepts no connection on `{}` ({}): {why}", listener.name, listener.address);
            self.accepts_on(position, started, said).await.map_err(said)?;
        }
        Ok(())
    }

    /// The connection waits in the slot's queue, and nobody but the generation can take it out.
    /// Said while it still waits as well, so that whoever gives up sooner than this probe can say why.
    async fn accepts_on(
        &self,
        position: usize,
        started: Instant,
        said: impl Fn(String) -> String,
    ) -> Result<(), String> {
        let (stream, _) = self.connect(position).await?;
        let (client, server) = ends(&stream).map_err(|error| error.to_string())?;
        let mut diag = SockDiag::open().map_err(|error| format!("sock_diag: {error}"))?;
        let (asked, mut told) = (Instant::now(), false);
        let untaken = || "nobody takes it out of the queue".to_owned();
        loop {
            if !told && asked.elapsed() >= NOTEWORTHY {
                told = true;
                tell(&self.owner, Event::NotReady { generation: self.generation, answer: said(untaken()) });
            }
            match diag.accepted(client, server).map_err(|error| format!("sock_diag: {error}"))? {
                Accepted::By { .. } => return Ok(()),
                Accepted::NotConnected => return Err("the connection was closed".to_owned()),
                Accepted::Waiting if asked.elapsed() >= self.readiness.limit => return Err(untaken()),
                Accepted::Waiting => sleep(self.pause(started, FIRST_LOOK)).await,
            }
        }
    }

    async fn get_path(&self, path: &str) -> Result<(), String> {
        let streams = self.streams().await;
        let &(position, _) = streams.first().ok_or("there is no TCP listener to ask")?;
        let (stream, to) = self.connect(position).await?;
        let url = Url {
            scheme: Scheme::Http,
            host: to.ip().to_string(),
            port: to.port(),
            unix_path: None,
            path_and_query: path.to_owned(),
        };
        self.judge(url, tcp(stream)?, None).await
    }

    /// A URL on one of our listeners is aimed; elsewhere the answer must be attributed.
    async fn get(&self, url: &Url) -> Result<(), String> {
        if let Some(path) = url.unix_path.clone() {
            let stream = UnixStream::connect(&path).map_err(|error| format!("cannot connect: {error}"))?;
            let hook = attribution::of_unix(&stream, self.generation, self.roots().await);
            return self.judge(url.clone(), Stream::Unix(stream), Some(hook)).await;
        }
        let streams = self.streams().await;
        let to = self.resolve(url, &streams).await?;
        if let Some(position) = listener_at(&streams, to) {
            let (stream, _) = self.connect(position).await?;
            return self.judge(url.clone(), tcp(stream)?, None).await;
        }
        let connecting = timeout(self.readiness.limit, TcpStream::connect(to)).await;
        let stream = connecting.map_err(|_| "cannot connect: no answer".to_owned())?;
        let stream = stream.map_err(|error| format!("cannot connect to {to}: {error}"))?;
        let hook = match ends(&stream) {
            Ok((client, server)) if is_here(server) => {
                Some(attribution::of_tcp(client, server, self.generation, self.roots().await))
            }
            _ => None,
        };
        self.judge(url.clone(), tcp(stream)?, hook).await
    }

    async fn resolve(&self, url: &Url, streams: &[(usize, Listener)]) -> Result<SocketAddr, String> {
        if let Ok(ip) = url.host.parse() {
            return Ok(SocketAddr::new(ip, url.port));
        }
        let (host, port) = (url.host.clone(), url.port);
        let looking = spawn_blocking(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        let found =
            timeout(self.readiness.limit, looking).await.map_err(|_| "no answer from the resolver".to_owned())?;
        let addresses =
            found.map_err(|error| error.to_string())?.map_err(|error| format!("`{}`: {error}", url.host))?;
        let ours = addresses.iter().find(|address| listener_at(streams, **address).is_some());
        ours.or(addresses.first()).copied().ok_or_else(|| format!("`{}` has no address", url.host))
    }

    async fn judge(&self, url: Url, stream: Stream, hook: Option<http::Hook>) -> Result<(), String> {
        let limit = self.readiness.limit;
        let asking =
            spawn_blocking(move || http::get(Question { url: &url, stream, limit, before_the_last_bytes: hook }));
        let answer = asking.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        match self.readiness.statuses.contains(answer.status) {
            true => Ok(()),
            false if answer.body.is_empty() => Err(answer.status.to_string()),
            false => Err(format!("{} ({})", answer.status, answer.body)),
        }
    }

    async fn connect(&self, position: usize) -> Result<(TcpStream, SocketAddr), String> {
        let (reply, aimed) = oneshot::channel();
        let _ = self.owner.send(Notice::Aim { generation: self.generation, listener: position, reply });
        let gone = "zdr is ending".to_owned();
        let Aimed { target, .. } = aimed.await.map_err(|_| gone)?.map_err(|error| format!("cannot aim: {error}"))?;
        let Target::Tcp(socket, to) = target else { return Err("it is no TCP listener".to_owned()) };
        let connecting = timeout(self.readiness.limit, socket.connect(to)).await;
        let stream = connecting.map_err(|_| "cannot connect: no answer".to_owned())?;
        Ok((stream.map_err(|error| format!("cannot connect: {error}"))?, to))
    }

    async fn roots(&self) -> Vec<(Generation, i32)> {
        let (reply, roots) = oneshot::channel();
        let _ = self.owner.send(Notice::Roots { reply });
        roots.await.unwrap_or_default()
    }

    async fn run_errand(&self, command: &str) -> Result<(), String> {
        let (reply, done) = oneshot::channel();
        let _ = self.owner.send(Notice::Errand { generation: self.generation, command: command.to_owned(), reply });
        let Ok(done) = timeout(self.readiness.limit, done).await else {
            let _ = self.owner.send(Notice::EndErrands { generation: self.generation });
            return Err(format!("not done within {}", humantime::format_duration(self.readiness.limit)));
        };
        match done.map_err(|_| "zdr is ending".to_owned())?? {
            Exit::Code(0) => Ok(()),
            exit => Err(format!("it {exit}")),
        }
    }
}

/// The listener that this address reaches.
fn listener_at(streams: &[(usize, Listener)], to: SocketAddr) -> Option<usize> {
    let meant = |(_, listener): &&(usize, Listener)| match listener.address {
        Address::Tcp(at) => at.port() == to.port() && (at.ip() == to.ip() || at.ip().is_unspecified() && is_here(to)),
        _ => false,
    };
    streams.iter().find(meant).map(|(position, _)| *position)
}

fn ends(stream: &TcpStream) -> std::io::Result<(SocketAddr, SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

fn tcp(stream: TcpStream) -> Result<Stream, String> {
    stream.into_std().map(Stream::Tcp).map_err(|error| error.to_string())
}

/// An address that this machine answers itself: its sockets can be looked up. Others are taken at their word.
fn is_here(address: SocketAddr) -> bool {
    address.ip().is_loopback() || std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}
