//! Each rule as a story: what happens, what is done, who serves. No process is started here.

mod failures;
mod liveness;
mod properties;
mod reloads;
mod stops;

use std::time::{Duration, Instant};

use super::*;

/// The times of the stories.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A supervisor with a clock of its own.
struct Story {
    supervisor: Supervisor,
    now: Instant,
    done: Vec<Action>,
}

impl Story {
    /// At which nothing has happened yet.
    fn new() -> Self {
        Self::with(Duration::ZERO, Duration::ZERO)
    }

    #[expect(clippy::disallowed_methods, reason = "a story needs some beginning; its clock is its own from there on")]
    fn with(bake: Duration, lame_duck: Duration) -> Self {
        let policy = Policy {
            ready_timeout: READY_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            bake,
            bake_keep: bake,
            lame_duck,
            instances: 1,
            surge: None,
            queue: QueueMode::Shared,
            restart: Restart::Always,
            max_restarts: None,
            min_uptime: Duration::ZERO,
            max_lifetime: None,
            hooks: Vec::new(),
            watched: false,
        };
        Self { supervisor: Supervisor::new(policy, command("server")), now: Instant::now(), done: Vec::new() }
    }

    /// Generation 1 serves.
    fn serving() -> Self {
        Self::serving_with(Duration::ZERO)
    }

    fn serving_with(bake: Duration) -> Self {
        let mut story = Self::with(bake, Duration::ZERO);
        for event in [Event::Boot, spawned(1), ready(1)] {
            story.when(event);
        }
        story
    }

    /// Generation 2 serves, and generation 1 has just been replaced.
    fn reloaded_with(bake: Duration) -> Self {
        let mut story = Self::serving_with(bake);
        for event in [reload(), spawned(2), ready(2)] {
            story.when(event);
        }
        story
    }

    fn when(&mut self, event: Event) -> &mut Self {
        self.done = self.supervisor.handle(event, self.now);
        self
    }

    /// So much time passes, and nothing else happens.
    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.when(Event::Elapsed)
    }

    /// These things are done, besides telling of it.
    #[track_caller]
    fn then(&mut self, wanted: &[Action]) -> &mut Self {
        let done: Vec<_> = self.done.iter().filter(|action| !matches!(action, Action::Tell(_))).cloned().collect();
        let done: Vec<_> = done.into_iter().map(without_words).collect();
        assert_eq!(done, wanted);
        self
    }

    #[track_caller]
    fn serves(&mut self, wanted: Option<u64>) -> &mut Self {
        assert_eq!(self.supervisor.serving.as_ref().map(|serving| serving.generation.0), wanted);
        self
    }

    /// The reason of the last verdict.
    fn reason(&self) -> &str {
        self.supervisor.last_verdict.as_ref().map_or("", |verdict| &verdict.reason)
    }

    /// How long until the next deadline.
    fn wakes_in(&self) -> Option<Duration> {
        self.supervisor.next_deadline().map(|at| at.saturating_duration_since(self.now))
    }
}

/// Stories compare outcomes; the words have tests of their own.
fn without_words(action: Action) -> Action {
    match action {
        Action::Answer(ticket, verdict) => {
            let (cause, reason, output) = (Cause::Ready, String::new(), Vec::new());
            Action::Answer(ticket, Verdict { cause, reason, output, ..verdict })
        }
        other => other,
    }
}

fn command(name: &str) -> Vec<OsString> {
    vec![name.into()]
}

fn reload() -> Event {
    reload_by(1)
}

fn reload_by(ticket: u64) -> Event {
    Event::Reload { ticket: Ticket(ticket), command: None, until: Until::Serving }
}

fn reload_to(ticket: u64, name: &str) -> Event {
    Event::Reload { ticket: Ticket(ticket), command: Some(command(name)), until: Until::Serving }
}

fn spawned(generation: u64) -> Event {
    Event::Spawned { generation: Generation(generation), pid: 1000 + i32::try_from(generation).unwrap() }
}

fn ready(generation: u64) -> Event {
    Event::Ready { generation: Generation(generation) }
}

fn not_ready(generation: u64, answer: &str) -> Event {
    Event::NotReady { generation: Generation(generation), answer: answer.to_owned() }
}

fn quiet(generation: u64) -> Event {
    Event::Quiet { generation: Generation(generation) }
}

fn wrote(generation: u64, lines: &[&str]) -> Event {
    Event::Wrote { generation: Generation(generation), lines: lines.iter().map(|line| (*line).to_owned()).collect() }
}

fn exited(generation: u64) -> Event {
    Event::Exited { generation: Generation(generation), exit: Exit::Code(1) }
}

/// So many connections wait in the slots of one that died.
fn left(generation: u64, waiting: usize) -> Event {
    Event::Left { generation: Generation(generation), waiting }
}

fn spawn(generation: u64) -> Action {
    spawn_of("server", generation, Place::Beside)
}

fn spawn_steered(generation: u64) -> Action {
    spawn_of("server", generation, Place::Steered)
}

fn spawn_of(name: &str, generation: u64, place: Place) -> Action {
    Action::Spawn { generation: Generation(generation), command: command(name), place }
}

fn probe(generation: u64) -> Action {
    Action::Probe(Generation(generation))
}

fn steer(generation: u64) -> Action {
    Action::Steer(Generation(generation))
}

fn quiesce(generation: u64) -> Action {
    Action::Quiesce(Generation(generation))
}

fn signal(generation: u64) -> Action {
    Action::Signal(Generation(generation))
}

fn kill(generation: u64) -> Action {
    Action::Kill(Generation(generation))
}

fn look_behind(generation: u64) -> Action {
    Action::LookBehind(Generation(generation))
}

fn release(generation: u64) -> Action {
    Action::Release(Generation(generation))
}

/// The answer to a ticket: outcome and generation.
fn verdict(ticket: u64, outcome: Outcome, generation: impl Into<Option<u64>>) -> Action {
    let generation = generation.into().map(Generation);
    let (cause, reason, output) = (Cause::Ready, String::new(), Vec::new());
    Action::Answer(Ticket(ticket), Verdict { outcome, cause, generation, reason, output })
}
