//! A connection in the queue of a listener, until the generation that is asked has taken it out.
//!
//! On a slot nobody else can take it; on a shared socket only what the generation has taken counts, and what others have is
//! closed before a word is said on it.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::stat::fstat;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::attribution::{UNSEEN, Whose, of, whose};
use super::connection::{Connection, Ends};
use super::course::Course;
use super::hints::Queue;
use super::{FIRST_LOOK, Probe, accepts_none};
use crate::address::{Address, Listener};
use crate::config::Ready;
use crate::edges::interest::Interest;
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::edges::kernel::sockopt::number;
use crate::edges::listeners::Watched;
use crate::edges::notice::Notice;
use crate::url::Url;

/// A connection that waits this long to be accepted is worth a word: most servers need less to start.
const NOTEWORTHY: Duration = Duration::from_millis(250);

const UNTAKEN: &str = "nobody takes it out of the queue";

impl Probe {
    /// A connection that the generation has taken. Said while it still waits as well, so that whoever gives up sooner than
    /// this probe can say why.
    pub(super) async fn taken(
        &self,
        position: usize,
        listener: &Listener,
        course: &mut Course,
    ) -> Result<Connection, String> {
        if let Some(connection) = course.taken(position) {
            self.was_accepted();
            return Ok(connection);
        }
        let (mut waiting, shared) = self.offer(position, course).await?;
        let mut diag = SockDiag::open().map_err(|error| unknown(&error))?;
        let (asked, mut others, mut unseen) = (Instant::now(), None, false);
        let mut deferred = Deferred::Unknown(asked);
        loop {
            if let Some(connection) = course.taken(position) {
                self.was_accepted();
                return Ok(connection);
            }
            let mut accepted = Vec::new();
            let mut still = Vec::new();
            for connection in waiting {
                match connection.ends.accepted(&mut diag).map_err(|error| unknown(&error))? {
                    Accepted::By { .. } if !shared && !self.reach().await.others => {
                        self.was_accepted();
                        return Ok(connection);
                    }
                    Accepted::By { inode } => accepted.push((inode, connection)),
                    Accepted::Waiting => still.push(connection),
                    Accepted::NotConnected => {}
                }
            }
            waiting = still;
            match self.whose(accepted.iter().map(|(inode, _)| *inode).collect()).await {
                Whose::Its(inode) => {
                    self.was_accepted();
                    let its = accepted.into_iter().find(|(its, _)| *its == inode);
                    return its.map(|(_, connection)| connection).ok_or_else(|| UNSEEN.to_owned());
                }
                Whose::Like(inode, like, who) => {
                    others = Some(course.others.keep(who));
                    course.was_outrun();
                    let (its, rest): (Vec<_>, Vec<_>) = accepted.into_iter().partition(|(its, _)| *its == inode);
                    waiting.extend(rest.into_iter().map(|(_, connection)| connection));
                    for (_, connection) in its {
                        if self.needs_no_answer_of_its_own(course) && self.waits_at().await.contains(&listener.address)
                        {
                            self.was_accepted();
                            return Ok(connection);
                        }
                        let _ = self.owner.send(Notice::Taken { instance: like, listener: position, connection });
                    }
                }
                Whose::Others(who) => others = Some(course.others.keep(who)),
                Whose::NotSeenYet => {
                    unseen |= !accepted.is_empty();
                    waiting.extend(accepted.into_iter().map(|(_, connection)| connection));
                }
            }
            if waiting.is_empty() {
                course.missed();
                return Err(others.unwrap_or_else(|| "the connection was closed".to_owned()));
            }
            deferred.nudge(self, listener, &waiting).await;
            let too_late = asked.elapsed() >= self.readiness.limit;
            match (others.take(), unseen) {
                (Some(who), _) if too_late => return Err(who),
                (None, true) if too_late => return Err(UNSEEN.to_owned()),
                (None, false) if too_late => return Err(self.untaken(listener, course).await),
                (None, false) if asked.elapsed() >= NOTEWORTHY => {
                    let why = self.untaken(listener, course).await;
                    self.not_ready(accepts_none(listener, &why));
                }
                (who, _) => others = who,
            }
            sleep(course.pause(FIRST_LOOK)).await;
        }
    }

    /// Instances that wait for connections in one queue may never all get one: the kernel wakes all of them, and the quicker
    /// ones take everything. So one of its likes may answer for one that is seen to wait there as well; where an answer says
    /// more than that somebody accepts, only after it had the chance to give its own.
    fn needs_no_answer_of_its_own(&self, course: &Course) -> bool {
        course.was_patient() || !matches!(self.readiness.ready, Ready::Path(_) | Ready::Http(_))
    }

    /// The listeners at which the kernel shows the instance to wait for connections.
    pub(super) async fn waits_at(&self) -> Vec<Address> {
        let (instance, sockets, roots) = (self.instance, self.sockets().await, self.roots().await);
        let look = move || {
            let root = roots.iter().find(|(other, _)| *other == instance).map(|(_, root)| *root)?;
            let among = |processes: &[i32]| {
                let interest = Interest::of(processes);
                let its = sockets.iter().filter(|at| interest.has(&at.socket));
                its.map(|at| at.listener.address.clone()).collect::<Vec<_>>()
            };
            // Of many instances the whole trees take long to look through.
            let of_main = among(&[root]);
            Some(if of_main.is_empty() { among(&of(instance, root, &roots)) } else { of_main })
        };
        spawn_blocking(look).await.ok().flatten().unwrap_or_default()
    }

    /// Connections to one listener: one where only the generation can take it, else several.
    async fn offer(&self, position: usize, course: &Course) -> Result<(Vec<Connection>, bool), String> {
        let first = self.aim(position).await?;
        let shared = first.shared;
        let mut offered = vec![Connection::to(first.target, self.readiness.limit).await?];
        while shared && offered.len() < course.crowd() {
            let next = self.aim(position).await?;
            offered.push(Connection::to(next.target, self.readiness.limit).await?);
        }
        Ok((offered, shared))
    }

    async fn whose(&self, inodes: Vec<u32>) -> Whose {
        if inodes.is_empty() {
            return Whose::NotSeenYet;
        }
        let (wanted, roots) = (self.instance, self.roots().await);
        spawn_blocking(move || whose(&inodes, wanted, &roots)).await.unwrap_or(Whose::NotSeenYet)
    }

    /// A question to one of our listeners. On a slot it is asked at once, and waits in the queue with its connection.
    pub(super) async fn get_from(
        &self,
        position: usize,
        listener: &Listener,
        url: impl Fn(Ends) -> Url,
        course: &mut Course,
    ) -> Result<(), String> {
        let aimed = self.aim(position).await?;
        if aimed.shared {
            let Connection { stream, ends } = self.taken(position, listener, course).await?;
            return self.judge(url(ends), stream, None).await;
        }
        let Connection { stream, ends } = Connection::to(aimed.target, self.readiness.limit).await?;
        let (asked, mut untaken, mut looks) = (Instant::now(), None, true);
        let asking = self.judge(url(ends), stream, None);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                answer = &mut asking => {
                    if asked.elapsed() < self.readiness.limit {
                        // One that has come meanwhile may have answered instead.
                        if self.reach().await.others {
                            return Err("it shares its queue since it was asked, and is asked again".to_owned());
                        }
                        self.was_accepted();
                        return answer;
                    }
                    return answer.map_err(|why| untaken.unwrap_or(why));
                }
                () = sleep(NOTEWORTHY), if looks => {
                    looks = SockDiag::open().and_then(|mut diag| ends.accepted(&mut diag)).ok() == Some(Accepted::Waiting);
                    if looks {
                        let why = self.untaken(listener, course).await;
                        self.not_ready(self.said(&why));
                        untaken = Some(why);
                    } else {
                        self.was_accepted();
                        untaken = None;
                    }
                }
            }
        }
    }

    fn was_accepted(&self) {
        let _ = self.owner.send(Notice::Accepted { instance: self.instance });
    }

    /// That nobody takes it, and why not, where that can be seen.
    async fn untaken(&self, listener: &Listener, course: &mut Course) -> String {
        if course.hint.kept().is_none() {
            let hint = self.hint(listener).await.unwrap_or_default();
            course.hint.keep(hint);
        }
        match course.hint.kept() {
            Some(hint) if !hint.is_empty() => format!("{UNTAKEN}; {hint}"),
            _ => UNTAKEN.to_owned(),
        }
    }

    async fn hint(&self, listener: &Listener) -> Option<String> {
        let inode = |at: &Watched| u32::try_from(fstat(at.socket.as_fd()).ok()?.st_ino).ok();
        let sockets = self.sockets().await;
        let queue = Queue {
            instance: self.instance,
            roots: self.roots().await,
            socket: sockets.iter().find(|at| at.listener == *listener).and_then(inode)?,
            lent: sockets.iter().filter_map(inode).collect(),
            captures: self.captures,
        };
        spawn_blocking(move || queue.hint()).await.ok()?
    }
}

/// A listener with TCP_DEFER_ACCEPT, as httpd sets it, hands out no connection before a word was said on it (tcp(7)).
enum Deferred {
    /// It is looked at again then: a server may set it late.
    Unknown(Instant),
    /// The word was said.
    Nudged,
}

impl Deferred {
    /// Nothing but the end of a line is said, which every server that waits for a word has to bear (RFC 9112, 2.2).
    async fn nudge(&mut self, probe: &Probe, listener: &Listener, waiting: &[Connection]) {
        let Self::Unknown(next) = self else { return };
        if Instant::now() < *next {
            return;
        }
        *next = Instant::now() + NOTEWORTHY / 10;
        let seconds = |at: &Watched| number(at.socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).ok();
        let sockets = probe.sockets().await;
        let its = sockets.iter().filter(|at| at.listener.address == listener.address);
        if its.filter_map(seconds).any(|seconds| seconds > 0) {
            waiting.iter().for_each(Connection::nudge);
            *self = Self::Nudged;
        }
    }
}

fn unknown(error: &std::io::Error) -> String {
    format!("sock_diag: {error}")
}
