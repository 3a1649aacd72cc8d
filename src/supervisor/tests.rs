//! Each rule as a story: what happens, what is done, who serves. No process is started here.

mod failures;
mod going_back;
mod held;
mod hooks;
mod instances;
mod limits;
mod liveness;
mod pausing;
mod properties;
mod reloads;
mod scaling;
mod stops;
mod watching;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;

/// The times of the stories.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const STEADY: Duration = Duration::from_secs(10);

fn policy() -> Policy {
    Policy {
        ready_timeout: READY_TIMEOUT,
        drain_timeout: DRAIN_TIMEOUT,
        bake: Duration::ZERO,
        bake_keep: Duration::ZERO,
        lame_duck: Duration::ZERO,
        instances: 1,
        surge: None,
        queue: QueueMode::Shared,
        restart: Restart::Always,
        max_restarts: None,
        min_uptime: STEADY,
        max_lifetime: None,
        hooks: Vec::new(),
        watched: false,
    }
}

/// A supervisor with a clock of its own, and with settings.
struct Story {
    supervisor: Supervisor,
    now: Instant,
    done: Vec<Action>,
    settings: Plan,
    /// With what each generation was started.
    plans: BTreeMap<Generation, Plan>,
    /// Why the settings cannot be had.
    broken: Option<&'static str>,
}

impl Story {
    /// At which nothing has happened yet.
    fn new() -> Self {
        Self::with(policy())
    }

    #[expect(clippy::disallowed_methods, reason = "a story needs some beginning; its clock is its own from there on")]
    fn with(policy: Policy) -> Self {
        let settings = Plan {
            command: command("server"),
            command_was_given: false,
            config_version: 1,
            policy,
            unapplied: Vec::new(),
        };
        let (now, plans) = (Instant::now(), BTreeMap::new());
        Self { supervisor: Supervisor::new(7), now, done: Vec::new(), settings, plans, broken: None }
    }

    /// Generation 1 serves.
    fn serving() -> Self {
        Self::serving_with(Duration::ZERO)
    }

    fn serving_with(bake: Duration) -> Self {
        Self::serving_by(Policy { bake, bake_keep: bake, ..policy() })
    }

    fn serving_by(policy: Policy) -> Self {
        let mut story = Self::with(policy);
        story.when(Event::Boot);
        story.all_start(1);
        story
    }

    /// Every instance of this generation is started and is ready.
    fn all_start(&mut self, generation: u64) {
        let instances = self.settings.policy.instances;
        for number in 1..=instances {
            self.when(spawned_at(generation, number));
        }
        for number in 1..=instances {
            self.when(ready_at(generation, number));
        }
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
        let mut seen = 0;
        while let Some(at) = self.done[seen..].iter().position(|action| matches!(action, Action::Prepare { .. })) {
            let Action::Prepare { generation, origin } = self.done.remove(seen + at) else { unreachable!() };
            seen = self.done.len();
            let answer = self.prepare(generation, origin);
            self.done.extend(self.supervisor.handle(answer, self.now));
        }
        self
    }

    /// As the edges do, before anything else happens.
    fn prepare(&mut self, generation: Generation, origin: Origin) -> Event {
        let plan = match origin {
            Origin::Fresh(_) if self.broken.is_some() => {
                return Event::Refused { why: self.broken.unwrap_or_default().to_owned() };
            }
            Origin::Fresh(Some(command)) => Plan { command, command_was_given: true, ..self.settings.clone() },
            Origin::Fresh(None) => {
                let given = self.supervisor.plan.as_ref().filter(|plan| plan.command_was_given);
                given.map_or_else(
                    || self.settings.clone(),
                    |given| Plan { command: given.command.clone(), command_was_given: true, ..self.settings.clone() },
                )
            }
            Origin::Again => self.supervisor.plan.as_deref().unwrap_or(&self.settings).clone(),
            Origin::Like(other) => self.plans[&other].clone(),
        };
        self.plans.insert(generation, plan.clone());
        Event::Prepared { generation, plan: Box::new(plan) }
    }

    /// So much time passes, and nothing else happens.
    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.when(Event::Elapsed)
    }

    /// These things are done, besides telling of it.
    #[track_caller]
    fn then(&mut self, wanted: &[Action]) -> &mut Self {
        let aside = |action: &&Action| matches!(action, Action::Tell(_) | Action::Remember(_) | Action::AskChecks(_));
        let done: Vec<_> = self.done.iter().filter(|action| !aside(action)).cloned().collect();
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

    /// The reason that somebody was answered just now.
    fn answered(&self) -> &str {
        let mut reasons = self.done.iter().filter_map(|action| match action {
            Action::Answer(_, verdict) => Some(verdict.reason.as_str()),
            _ => None,
        });
        reasons.next_back().unwrap_or_default()
    }

    /// What was told last.
    fn told(&self) -> Vec<String> {
        let told = self.done.iter().filter_map(|action| match action {
            Action::Tell(news) => Some(news.to_string()),
            _ => None,
        });
        told.collect()
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

/// The first instance of this generation.
fn first(generation: u64) -> Instance {
    Instance { generation: Generation(generation), number: 1 }
}

fn at(generation: u64, number: u32) -> Instance {
    Instance { generation: Generation(generation), number }
}

fn spawned(generation: u64) -> Event {
    spawned_at(generation, 1)
}

fn spawned_at(generation: u64, number: u32) -> Event {
    Event::Spawned { instance: at(generation, number), pid: 1000 + i32::try_from(generation).unwrap() }
}

fn ready(generation: u64) -> Event {
    ready_at(generation, 1)
}

fn ready_at(generation: u64, number: u32) -> Event {
    Event::Ready { instance: at(generation, number) }
}

fn not_ready(generation: u64, answer: &str) -> Event {
    Event::NotReady { instance: first(generation), answer: answer.to_owned() }
}

fn quiet(generation: u64) -> Event {
    Event::Quiet { generation: Generation(generation) }
}

fn wrote(generation: u64, lines: &[&str]) -> Event {
    Event::Wrote { instance: first(generation), lines: lines.iter().map(|line| (*line).to_owned()).collect() }
}

fn exited(generation: u64) -> Event {
    exited_at(generation, 1)
}

fn exited_at(generation: u64, number: u32) -> Event {
    Event::Exited { instance: at(generation, number), exit: Exit::Code(1) }
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
    let like = if let Place::Of(dead) = place { Some(dead) } else { None };
    Action::Spawn { instance: first(generation), command: command(name), place, like }
}

fn spawn_at(generation: u64, number: u32, place: Place) -> Action {
    Action::Spawn { instance: at(generation, number), command: command("server"), place, like: None }
}

fn probe(generation: u64) -> Action {
    Action::Probe(first(generation))
}

fn steer(generation: u64) -> Action {
    Action::Steer(vec![portion(generation, &[1], 1)])
}

fn portion(generation: u64, instances: &[u32], weight: u32) -> Portion {
    Portion { generation: Generation(generation), instances: instances.to_vec(), weight }
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
