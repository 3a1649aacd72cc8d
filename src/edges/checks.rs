//! The checks of the user's and what they said last: asked while somebody looks or a new release is on trial, and not when
//! nobody does.
//!
//! One task owns them all. A look never waits for an answer, but for a first one, and for that one second at most.

mod round;

use std::mem;
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
pub struct Checks(mpsc::UnboundedSender<Wish>);

/// What is wanted of them.
#[derive(Debug)]
enum Wish {
    /// What is known of each.
    Look(oneshot::Sender<Vec<Finding>>),
    /// These are the checks from now on.
    Replace(Vec<Check>),
    /// They are to be asked, whether or not somebody looks.
    Always(bool),
}

/// How long a look waits for a first answer, from when it was asked for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Checks {
    /// Asks nothing yet.
    pub fn start(checks: Vec<Check>, owner: &Owner) -> Self {
        let (wishes, asked) = mpsc::unbounded_channel();
        let (tell, said) = mpsc::unbounded_channel();
        let owner = owner.clone();
        let mut keeper = Keeper { owner, tell, said, rounds: Vec::new(), first: 0, always: false, waiting: Vec::new() };
        keeper.replace(checks);
        tokio::spawn(keeper.run(asked));
        Self(wishes)
    }

    /// These are the checks from now on; those that stay as they are keep what they said.
    pub fn replace(&self, checks: Vec<Check>) {
        let _ = self.0.send(Wish::Replace(checks));
    }

    /// They are asked from now on whether or not somebody looks, or are not.
    pub fn ask_on(&self, wanted: bool) {
        let _ = self.0.send(Wish::Always(wanted));
    }

    /// What is known of each, in the order in which they were given.
    pub async fn look(&self) -> Vec<Finding> {
        let (reply, findings) = oneshot::channel();
        let _ = self.0.send(Wish::Look(reply));
        findings.await.unwrap_or_default()
    }
}

/// The task that owns them.
#[derive(Debug)]
struct Keeper {
    owner: Owner,
    tell: mpsc::UnboundedSender<(usize, Said)>,
    rounds: Vec<Round>,
    /// The number of the first of them; those of earlier ones are never used again.
    first: usize,
    always: bool,
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
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Wish>) {
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                wish = asked.recv() => match wish {
                    Some(Wish::Look(reply)) => {
                        let since = Instant::now();
                        self.rounds.iter_mut().for_each(|round| round.looked_at(since));
                        self.waiting.push(Waiting { since, reply });
                    }
                    Some(Wish::Replace(checks)) => self.replace(checks),
                    Some(Wish::Always(wanted)) => {
                        if !mem::replace(&mut self.always, wanted) {
                            self.rounds.iter_mut().for_each(Round::forget_that_it_was_well);
                        }
                        self.rounds.iter_mut().filter(|_| wanted).for_each(Round::is_due_now);
                    }
                    None => return,
                },
                Some((number, said)) = self.said.recv() => {
                    let round = number.checked_sub(self.first).and_then(|position| self.rounds.get_mut(position));
                    if let Some(round) = round {
                        round.said(said, Instant::now());
                    }
                }
                () = at(deadline) => {}
            }
            let now = Instant::now();
            if self.always {
                self.rounds.iter_mut().for_each(|round| round.looked_at(now));
            }
            self.rounds.iter_mut().for_each(|round| round.begin_if_due(now));
            self.answer(now);
        }
    }

    fn replace(&mut self, checks: Vec<Check>) {
        if self.rounds.iter().map(Round::check).eq(&checks) {
            return;
        }
        self.first += self.rounds.len();
        let rounds = checks.into_iter().zip(self.first..);
        self.rounds = rounds.map(|(check, number)| Round::of(check, number, &self.owner, &self.tell)).collect();
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
