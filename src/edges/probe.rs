//! Asking a generation whether it is ready, until it is.
//!
//! The answer must be its own: a question to a steered listener is aimed at its slot; any other answer counts only if
//! the process that accepted the connection belongs to it. Judges nothing but answers; what follows from them is decided
//! elsewhere.

mod aside;
mod attribution;
mod connection;
mod course;
mod errand;
pub mod hints;
mod http;
mod inquiry;
mod message;
mod queue;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

pub use self::aside::Alive;
use self::aside::{exchange, look_up};
pub use self::connection::Connection;
use self::connection::{Ends, is_here};
use self::course::Course;
use self::errand::Errand;
use self::http::Stream;
pub use self::inquiry::Inquiry;
use super::errands::Purpose;
use super::listeners::{Aimed, Reach, Watched};
use super::notice::{Notice, Owner, tell};
use crate::address::{Address, Listener};
use crate::config::{Readiness, Ready};
use crate::supervisor::{Event, Exit, Instance};
use crate::url::{Scheme, Url};

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The instance that is to prove itself.
    pub instance: Instance,
    /// The question.
    pub readiness: Readiness,
    /// What it binds by itself is taken over, so that listeners may come while it is asked.
    pub captures: bool,
    /// Who is told, and who aims sockets.
    pub owner: Owner,
}

/// Connections that an instance has taken though others were asked, each with the number of its listener.
pub type Taken = mpsc::UnboundedReceiver<(usize, Connection)>;

/// The other end.
pub type Giver = mpsc::UnboundedSender<(usize, Connection)>;

/// A look at the queue costs microseconds, and the server does not notice.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// Said of a server that binds by itself and has not done so.
const NOWHERE: &str = "it has not listened on any address yet";

/// The first probes come this close together.
const FIRST_INTERVAL: Duration = Duration::from_millis(5);

impl Probe {
    /// Asks until it is ready, and tells every answer that is no.
    pub async fn run(self, taken: Taken) {
        let mut course = Course::begin(self.readiness.interval, taken);
        let mut good = 0;
        while good < self.readiness.successes {
            let answer = self.ask(&mut course).await;
            let mut pause = FIRST_INTERVAL;
            let _ = self.owner.send(Notice::Unaim { instance: self.instance });
            match answer {
                Ok(()) => good += 1,
                Err(answer) => {
                    good = 0;
                    // To look whether it listens costs the server nothing.
                    pause = if answer.ends_with(NOWHERE) { FIRST_LOOK } else { FIRST_INTERVAL };
                    let answer = self.with_its_port(answer, &mut course).await;
                    self.not_ready(answer);
                }
            }
            if good < self.readiness.successes {
                sleep(course.pause(pause)).await;
            }
        }
        self.wait_for_the_rest(&mut course).await;
        tell(&self.owner, Event::Ready { instance: self.instance });
    }

    fn not_ready(&self, answer: String) {
        tell(&self.owner, Event::NotReady { instance: self.instance, answer });
    }

    /// One that lets the kernel choose its port is never ready, and is told why.
    async fn with_its_port(&self, answer: String, course: &mut Course) -> String {
        if !answer.ends_with(NOWHERE) || !course.is_slow() {
            return answer;
        }
        if course.hint.kept().is_none() {
            let (instance, roots) = (self.instance, self.roots().await);
            let hint = spawn_blocking(move || hints::left_alone(instance, &roots)).await.ok().flatten();
            course.hint.keep(hint.unwrap_or_default());
        }
        match course.hint.kept() {
            Some(hint) if !hint.is_empty() => format!("{answer}; {hint}"),
            _ => answer,
        }
    }

    fn said(&self, answer: &str) -> String {
        format!("last probe of {}: {answer}", self.readiness.ready)
    }

    async fn ask(&self, course: &mut Course) -> Result<(), String> {
        let said = |answer: String| self.said(&answer);
        match &self.readiness.ready {
            Ready::Path(path) => self.get_path(path, course).await.map_err(said),
            Ready::Http(url) => self.get(url, course).await.map_err(said),
            Ready::Exec(command) => self.run_errand(command).await.map_err(said),
            Ready::Tcp => self.accepts(course).await,
            Ready::Default => self.accepts_or_stays_up(course).await,
            Ready::Uptime(time) => self.stays_up(*time).await,
            Ready::Notify => self.waits_for_its_word().await,
        }
    }

    /// READY=1 comes by another way; here is only said that it has not come yet.
    async fn waits_for_its_word(&self) -> Result<(), String> {
        self.not_ready("it has not sent READY=1".to_owned());
        std::future::pending().await
    }

    async fn stays_up(&self, time: Duration) -> Result<(), String> {
        sleep(time).await;
        Ok(())
    }

    /// Where there is no stream listener to ask. One that comes meanwhile is asked.
    async fn accepts_or_stays_up(&self, course: &mut Course) -> Result<(), String> {
        if self.streams().await?.is_empty() {
            self.stays_up(self.readiness.startup_grace).await?;
            if self.streams().await?.is_empty() {
                return Ok(());
            }
        }
        self.accepts(course).await
    }

    /// It has accepted a connection on every stream listener.
    async fn accepts(&self, course: &mut Course) -> Result<(), String> {
        let streams = self.streams().await?;
        if streams.is_empty() {
            return Err("it has no TCP or Unix listener to ask".to_owned());
        }
        let mut waits_at = Vec::new();
        for (position, listener) in streams {
            if course.has_likes() && waits_at.is_empty() {
                waits_at = self.waits_at().await;
            }
            if !waits_at.contains(&listener.address) && !course.proved.contains(&position) {
                self.taken(position, &listener, course).await.map_err(|why| accepts_none(&listener, &why))?;
                course.proved.insert(position);
            }
        }
        // Whoever wants another proof asks anew.
        course.proved.clear();
        Ok(())
    }

    /// A server that binds by itself may be ready on one address before it has bound the next. What the serving generation
    /// listens on is waited for, but not for ever: a new release may listen on less.
    async fn wait_for_the_rest(&self, course: &mut Course) {
        if self.reach().await.missing.is_empty() {
            return;
        }
        let rest = async {
            loop {
                let answer = match self.reach().await.missing.first() {
                    Some(listener) => Err(format!("it does not listen on {} yet", listener.address)),
                    None => self.accepts(course).await,
                };
                let _ = self.owner.send(Notice::Unaim { instance: self.instance });
                match answer {
                    Ok(()) => return,
                    Err(answer) => self.not_ready(answer),
                }
                sleep(course.pause(FIRST_INTERVAL)).await;
            }
        };
        let _ = timeout(self.readiness.startup_grace, rest).await;
        let _ = self.owner.send(Notice::Unaim { instance: self.instance });
    }

    async fn get_path(&self, path: &str, course: &mut Course) -> Result<(), String> {
        let streams = self.streams().await?;
        let (position, listener) = streams.first().ok_or("there is no TCP or Unix listener to ask")?;
        let url = |ends: Ends| Url { path_and_query: path.to_owned(), ..plain_url(ends, &listener.address) };
        self.get_from(*position, listener, url, course).await
    }

    /// A URL on one of our listeners is aimed; elsewhere the answer must be attributed.
    async fn get(&self, url: &Url, course: &mut Course) -> Result<(), String> {
        let limit = self.readiness.limit;
        let streams = self.streams().await.unwrap_or_default();
        let to = match &url.unix_path {
            Some(_) => None,
            None => Some(self.resolve(url, &streams, course).await?),
        };
        if let Some((position, listener)) = streams.iter().find(|(_, listener)| is_at(listener, url, to)) {
            return self.get_from(*position, listener, |_| url.clone(), course).await;
        }
        let connection = match (to, &url.unix_path) {
            (Some(to), _) => Connection::to_address(to, limit).await?,
            (None, Some(path)) => Connection::to_path(path, limit).await?,
            (None, None) => return Err("it has no address".to_owned()),
        };
        let roots = self.roots().await;
        let hook = connection.ends.are_here().then(|| attribution::hook(connection.ends, self.instance, roots));
        self.judge(url.clone(), connection.stream, hook).await
    }

    /// One that hangs is not asked again before it has let go.
    async fn resolve(
        &self,
        url: &Url,
        streams: &[(usize, Listener)],
        course: &mut Course,
    ) -> Result<SocketAddr, String> {
        let limit = self.readiness.limit;
        let (alive, remains) = Alive::begin();
        let looking = async {
            if let Some(unanswered) = &mut course.unanswered {
                unanswered.gone().await;
            }
            course.unanswered = Some(remains);
            look_up(&url.host, url.port, alive).await
        };
        let addresses = timeout(limit, looking).await.map_err(|_| "no answer from the resolver".to_owned())??;
        let ours = |address: &&SocketAddr| streams.iter().any(|(_, listener)| is_at(listener, url, Some(**address)));
        let chosen = addresses.iter().find(ours).or(addresses.first());
        chosen.copied().ok_or_else(|| format!("`{}` has no address", url.host))
    }

    async fn judge(&self, url: Url, stream: Stream, hook: Option<http::Hook>) -> Result<(), String> {
        let answer = exchange(url, stream, self.readiness.limit, hook, Alive::unwatched()).await?;
        match self.readiness.statuses.contains(answer.status) {
            true => Ok(()),
            false if answer.body.is_empty() => Err(answer.status.to_string()),
            false => Err(format!("{} ({})", answer.status, answer.body)),
        }
    }

    /// How it can be reached by now.
    async fn reach(&self) -> Reach {
        let (reply, reach) = oneshot::channel();
        let _ = self.owner.send(Notice::Reach { instance: self.instance, reply });
        reach.await.unwrap_or_default()
    }

    /// The stream listeners that it has by now, with their numbers.
    async fn streams(&self) -> Result<Vec<(usize, Listener)>, String> {
        let Reach { listeners, trouble, .. } = self.reach().await;
        match listeners.is_empty() && self.captures {
            true => Err(trouble.unwrap_or_else(|| NOWHERE.to_owned())),
            false => Ok(listeners.into_iter().filter(|(_, listener)| listener.address.is_stream()).collect()),
        }
    }

    async fn aim(&self, position: usize) -> Result<Aimed, String> {
        let (reply, aimed) = oneshot::channel();
        let _ = self.owner.send(Notice::Aim { instance: self.instance, listener: position, reply });
        let gone = "zdr is ending".to_owned();
        aimed.await.map_err(|_| gone)?.map_err(|error| format!("cannot aim: {error}"))
    }

    async fn sockets(&self) -> Vec<Watched> {
        let (reply, sockets) = oneshot::channel();
        let _ = self.owner.send(Notice::Watch { instance: self.instance, reply });
        sockets.await.unwrap_or_default()
    }

    async fn roots(&self) -> Vec<(Instance, i32)> {
        let (reply, roots) = oneshot::channel();
        let _ = self.owner.send(Notice::Roots { reply });
        roots.await.unwrap_or_default()
    }

    async fn run_errand(&self, command: &str) -> Result<(), String> {
        let (purpose, alive) = (Purpose::Readiness(self.instance), Alive::unwatched());
        let errand = Errand { purpose, command, owner: &self.owner, alive };
        let done = timeout(self.readiness.limit, errand.run(None)).await;
        match done.map_err(|_| format!("not done within {}", humantime::format_duration(self.readiness.limit)))?? {
            Exit::Code(0) => Ok(()),
            exit => Err(format!("it {exit}")),
        }
    }
}

fn accepts_none(listener: &Listener, why: &str) -> String {
    format!("it accepts no connection on `{}` ({}): {why}", listener.name, listener.address)
}

/// A question to a listener of ours, as a client there would put it.
fn plain_url(ends: Ends, address: &Address) -> Url {
    let (host, port) = match ends {
        Ends::Tcp { server, .. } => (server.ip().to_string(), server.port()),
        Ends::Unix { .. } => ("localhost".to_owned(), Scheme::Http.default_port()),
    };
    let unix_path = match address {
        Address::Unix(path) => Some(path.clone()),
        _ => None,
    };
    Url { scheme: Scheme::Http, host, port, unix_path, path_and_query: "/".to_owned() }
}

/// True where this URL, whose host is at `to`, reaches this listener.
fn is_at(listener: &Listener, url: &Url, to: Option<SocketAddr>) -> bool {
    match (&listener.address, to) {
        (Address::Tcp(at), Some(to)) => {
            at.port() == to.port() && (at.ip() == to.ip() || at.ip().is_unspecified() && is_here(to))
        }
        (Address::Unix(path), None) => url.unix_path.as_ref() == Some(path),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
