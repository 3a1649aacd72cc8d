//! One question to whoever answers, as any client would put it: a check, or whether the serving generation is alive.
//!
//! Aims at nobody and asks whose the answer is of nobody, so it disturbs no readiness probe that is under way.

use std::os::fd::AsFd;
use std::time::Duration;

use humantime::format_duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::aside::{Alive, Remains, exchange, look_up};
use super::connection::Connection;
use super::errand::Errand;
use super::{FIRST_LOOK, plain_url};
use crate::config::Ready;
use crate::edges::errands::Purpose;
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::edges::kernel::sockopt::number;
use crate::edges::listeners::Front;
use crate::edges::notice::{Notice, Owner};
use crate::supervisor::Exit;
use crate::url::Url;

/// What is asked, and for how long.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// The question.
    pub spec: Ready,
    /// How long the answer may take.
    pub limit: Duration,
    /// What it is for.
    pub purpose: Purpose,
    /// Who runs commands, and knows the listeners.
    pub owner: Owner,
}

/// Connecting ends when the time of the whole question is over.
const UNTIL_DROPPED: Duration = Duration::MAX;

/// Whether it is accepted is looked at this often in the end.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A connection that still waits then may be waiting for its first word.
const NUDGE: Duration = Duration::from_millis(25);

impl Inquiry {
    /// Asks. Good or not, there is a message, in time; what the question has begun may remain for longer. None where a
    /// question that waits as clients do would have waited with them, because new connections are held.
    pub async fn put(&self) -> (Option<Result<String, String>>, Remains) {
        let (alive, remains) = Alive::begin();
        if self.is_held().await {
            return (None, remains);
        }
        let answer = timeout(self.limit, self.ask(alive)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {}", format_duration(self.limit))));
        // They may be held since it was asked.
        let counts = answer.is_ok() || !self.is_held().await;
        (counts.then_some(answer), remains)
    }

    /// A command that is to find out whether the server lives may ask it as a client as well.
    async fn is_held(&self) -> bool {
        let waits = matches!(self.spec, Ready::Path(_) | Ready::Tcp) || matches!(self.purpose, Purpose::Liveness(_));
        waits && self.front().await.is_ok_and(|front| front.held)
    }

    async fn ask(&self, alive: Alive) -> Result<String, String> {
        match &self.spec {
            Ready::Path(path) => {
                let Front { listener, target, .. } = self.front().await?;
                let connection = Connection::to(target, UNTIL_DROPPED).await?;
                let url = Url { path_and_query: path.clone(), ..plain_url(connection.ends, &listener.address) };
                self.get(url, connection, alive).await
            }
            Ready::Http(url) => self.get(url.clone(), self.connect(url, alive.clone()).await?, alive).await,
            Ready::Tcp => self.is_accepted().await,
            Ready::Exec(command) => self.run(command, alive).await,
            Ready::Default | Ready::Notify | Ready::Uptime(_) => Err(format!("`{}` cannot be asked", self.spec)),
        }
    }

    /// A name may mean several addresses, of which any will do.
    async fn connect(&self, url: &Url, alive: Alive) -> Result<Connection, String> {
        if let Some(path) = &url.unix_path {
            return Connection::to_path(path, UNTIL_DROPPED).await;
        }
        let mut why = format!("`{}` has no address", url.host);
        for address in look_up(&url.host, url.port, alive).await? {
            match Connection::to_address(address, UNTIL_DROPPED).await {
                Ok(connection) => return Ok(connection),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn get(&self, url: Url, connection: Connection, alive: Alive) -> Result<String, String> {
        let answer = exchange(url, connection.stream, self.limit, None, alive).await?;
        let message = if answer.body.is_empty() { format!("answered {}", answer.status) } else { answer.body };
        if (200..400).contains(&answer.status) { Ok(message) } else { Err(message) }
    }

    /// To be connected is not enough: the kernel does that for a server that hangs.
    async fn is_accepted(&self) -> Result<String, String> {
        let unknown = |error: std::io::Error| format!("sock_diag: {error}");
        let Front { target, socket, .. } = self.front().await?;
        let connection = Connection::to(target, UNTIL_DROPPED).await?;
        let (begun, mut nudged) = (Instant::now(), false);
        let mut diag = SockDiag::open().map_err(unknown)?;
        loop {
            match connection.ends.accepted(&mut diag).map_err(unknown)? {
                Accepted::By { .. } => return Ok("accepts connections".to_owned()),
                Accepted::NotConnected => return Err("the connection was closed".to_owned()),
                Accepted::Waiting => {}
            }
            if !nudged && begun.elapsed() >= NUDGE {
                nudged = true;
                // One with TCP_DEFER_ACCEPT hands out no connection before a word was said on it (tcp(7)).
                if number(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).is_ok_and(|seconds| seconds > 0) {
                    connection.nudge();
                }
            }
            sleep((begun.elapsed() / 8).clamp(FIRST_LOOK, LAST_LOOK)).await;
        }
    }

    async fn run(&self, command: &str, alive: Alive) -> Result<String, String> {
        let errand = Errand { purpose: self.purpose, command, owner: &self.owner, alive };
        let (exit, line) = errand.last_line().await?;
        match exit {
            Exit::Code(0) if line.is_empty() => Ok("exited with code 0".to_owned()),
            Exit::Code(0) => Ok(line),
            Exit::Code(_) if !line.is_empty() => Err(line),
            exit if line.is_empty() => Err(exit.to_string()),
            exit => Err(format!("{exit}: {line}")),
        }
    }

    async fn front(&self) -> Result<Front, String> {
        let (reply, front) = oneshot::channel();
        let _ = self.owner.send(Notice::Front { reply });
        let front = front.await.map_err(|_| "zdr is ending".to_owned())?;
        front.map_err(|error| error.to_string())?.ok_or_else(|| "there is no TCP or Unix listener to ask".to_owned())
    }
}
