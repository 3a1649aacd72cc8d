//! The checks of the user's and what they said last: asked while somebody looks, and not when nobody does.
//!
//! One task owns them all. A look never waits for an answer, but for a first one, and for that one second at most.

mod round;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::round::{Round, Said};
use super::notice::Owner;
use crate::config::Check;
use crate::supervisor::Health;

/// What is known of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// How well that is.
    pub state: Health,
    /// What came back.
    pub message: String,
    /// Where it fails, all is unhealthy.
    pub critical: bool,
    /// How long ago that was; zero where it was never answered.
    pub age: Duration,
}

/// The way to the checks.
#[derive(Clone, Debug)]
pub struct Checks(Option<mpsc::UnboundedSender<oneshot::Sender<Vec<Finding>>>>);

/// How long a look waits for a first answer, from when it was asked for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Checks {
    /// Asks nothing yet.
    pub fn start(checks: Vec<Check>, owner: &Owner) -> Self {
        if checks.is_empty() {
            return Self(None);
        }
        let (looks, asked) = mpsc::unbounded_channel();
        let (tell, said) = mpsc::unbounded_channel();
        let rounds = checks.into_iter().enumerate();
        let rounds = rounds.map(|(position, check)| Round::of(check, position, owner, &tell)).collect();
        tokio::spawn(Keeper { rounds, said, waiting: Vec::new() }.run(asked));
        Self(Some(looks))
    }

    /// What is known of each, in the order in which they were given.
    pub async fn look(&self) -> Vec<Finding> {
        let Some(looks) = &self.0 else { return Vec::new() };
        let (reply, findings) = oneshot::channel();
        let _ = looks.send(reply);
        findings.await.unwrap_or_default()
    }
}

/// The task that owns them.
#[derive(Debug)]
struct Keeper {
    rounds: Vec<Round>,
    said: mpsc::UnboundedReceiver<(usize, Said)>,
    waiting: Vec<Waiting>,
}

/// Somebody who looks and has no answer yet.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    reply: oneshot::Sender<Vec<Finding>>,
}

impl Waiting {
    /// Until when, if no answer comes; None once there are all that it waits for.
    fn until(&self, rounds: &[Round]) -> Option<Instant> {
        rounds.iter().filter_map(|round| round.is_awaited_until(self.since)).max()
    }
}

impl Keeper {
    /// Until nobody can look any more.
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<oneshot::Sender<Vec<Finding>>>) {
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                look = asked.recv() => match look {
                    Some(reply) => {
                        let since = Instant::now();
                        self.rounds.iter_mut().for_each(|round| round.looked_at(since));
                        self.waiting.push(Waiting { since, reply });
                    }
                    None => return,
                },
                Some((position, said)) = self.said.recv() => self.rounds[position].said(said, Instant::now()),
                () = at(deadline) => {}
            }
            let now = Instant::now();
            self.rounds.iter_mut().for_each(|round| round.begin_if_due(now));
            self.answer(now);
        }
    }

    fn answer(&mut self, now: Instant) {
        let rounds = &self.rounds;
        let is_over = |waiting: &Waiting| waiting.until(rounds).is_none_or(|until| until <= now);
        for waiting in self.waiting.extract_if(.., |waiting| is_over(waiting)) {
            let _ = waiting.reply.send(rounds.iter().map(|round| round.finding(now)).collect());
        }
    }

    /// None while nobody looks: then nothing wakes up.
    fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.until(&self.rounds));
        waiting.chain(self.rounds.iter().filter_map(Round::due)).min()
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
