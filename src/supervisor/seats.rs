//! The seats of a generation and what is remembered of whoever sits there.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::crew::{Crew, Member, Stage};
use super::generation::{Generation, Ticket, Until, Why};
use super::liveness::Condition;
use super::policy::{Hook, Origin, Plan};
use super::status::{InstanceState, Seat, SeatName, SeatedInstance, State, Status, seconds};
use super::verdict::{Cause, Verdict};

/// What somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) askers: Vec<(Ticket, Until)>,
    pub(super) command: Option<Vec<OsString>>,
    pub(super) why: Why,
    /// The one that is to serve again.
    pub(super) target: Option<Generation>,
    /// What went wrong, where nobody asked to go back.
    pub(super) blame: Option<Blame>,
    /// What it will be started with, where that is known already.
    pub(super) prepared: Option<(Generation, Plan)>,
}

/// Why a generation is given up that was ready once.
#[derive(Clone, Debug)]
pub(super) struct Blame {
    pub(super) generation: Generation,
    pub(super) cause: Cause,
    /// In words that follow its name.
    pub(super) what: String,
    pub(super) output: Vec<String>,
}

impl Request {
    /// One that nobody asked for.
    pub(super) fn unasked(why: Why) -> Self {
        Self { why, ..Self::default() }
    }

    pub(super) fn join(&mut self, ticket: Ticket, until: Until, command: Option<Vec<OsString>>) {
        self.askers.push((ticket, until));
        self.command = command.or(self.command.take());
    }
}

/// Not ready yet.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) generation: Generation,
    pub(super) plan: Arc<Plan>,
    pub(super) crew: Crew,
    pub(super) askers: Vec<(Ticket, Until)>,
    pub(super) since: Instant,
    pub(super) why: Why,
    /// The one that is to serve again.
    pub(super) target: Option<Generation>,
    pub(super) blame: Option<Blame>,
    pub(super) step: Step,
    /// A part of what is new goes to it already.
    pub(super) has_a_share: bool,
    /// The last lines that it wrote.
    pub(super) output: Vec<String>,
}

/// What a generation that starts waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A command of the user's.
    Hook(Hook),
    /// Its instances.
    Proving,
    /// The same, and it may get what is new.
    Admitted,
}

/// Gets the new connections.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) generation: Generation,
    pub(super) plan: Arc<Plan>,
    pub(super) crew: Crew,
    /// What it serves for.
    pub(super) why: Why,
    pub(super) since: Instant,
    /// The last lines that it wrote.
    pub(super) output: Vec<String>,
    /// How well it does.
    pub(super) condition: Condition,
    /// It is on trial until then.
    pub(super) trial: Option<Instant>,
    /// It is replaced then.
    pub(super) expires: Option<Instant>,
    /// The verdict that is due once the command that is run after it serves has ended.
    pub(super) owed: Option<(Vec<Ticket>, Verdict)>,
}

/// Gets nothing new.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) generation: Generation,
    pub(super) plan: Arc<Plan>,
    pub(super) crew: Crew,
    pub(super) since: Instant,
    pub(super) phase: Phase,
    /// How well it did when it served.
    pub(super) condition: Condition,
    /// Who waits for its end.
    pub(super) watchers: Vec<Ticket>,
    /// It was started only to finish what waited in the slots of this one.
    pub(super) finishes_for: Option<Generation>,
    /// It has served.
    pub(super) has_served: bool,
    /// One of its instances died before it was asked to finish.
    pub(super) is_bereft: bool,
}

/// It is gone; what had begun to come to it may still arrive in its slots.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) generation: Generation,
    pub(super) plan: Arc<Plan>,
    /// The generation whose like finishes what waits there.
    pub(super) like: Generation,
}

impl Left {
    /// No process of its own was ever there.
    pub(super) fn is_of_a_pause(&self) -> bool {
        self.like != self.generation
    }
}

/// zdr is ending.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) askers: Vec<Ticket>,
    /// What zdr exits with.
    pub(super) code: u8,
    /// Until then the serving generation serves on, while readiness says no.
    pub(super) lame_duck: Option<Instant>,
    /// It was asked for twice.
    pub(super) at_once: bool,
}

impl Stop {
    pub(super) fn with_code(code: u8) -> Self {
        Self { askers: Vec::new(), code, lame_duck: None, at_once: false }
    }
}

/// How far a draining generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may have the connections back.
    Warm { until: Instant },
    /// Its queue runs empty and its requests finish.
    Quiescing { signal_by: Instant },
    /// It was asked to finish.
    Signalled { kill_by: Instant },
    /// It was killed; there is nothing more to do but reap it.
    Killed,
}

impl Phase {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Warm { until: at } | Self::Quiescing { signal_by: at } | Self::Signalled { kill_by: at } => Some(at),
            Self::Killed => None,
        }
    }
}

impl Draining {
    pub(super) fn new(old: Serving, phase: Phase, now: Instant) -> Self {
        let mut crew = old.crew;
        // What waits for one that died, in a queue of its own, nobody else of them takes.
        let is_bereft = crew.dismiss_the_due();
        Self {
            generation: old.generation,
            plan: old.plan,
            crew,
            since: now,
            phase,
            condition: old.condition,
            watchers: Vec::new(),
            finishes_for: None,
            has_served: true,
            is_bereft,
        }
    }

    /// One that never served. Where it had no share yet, nothing waits for it that another could not take.
    pub(super) fn from_starting(starting: &Starting, now: Instant) -> Self {
        let mut crew = starting.crew.clone();
        crew.dismiss_the_due();
        Self {
            generation: starting.generation,
            plan: Arc::clone(&starting.plan),
            crew,
            since: now,
            phase: Phase::Killed,
            condition: Condition::default(),
            watchers: Vec::new(),
            finishes_for: None,
            has_served: false,
            is_bereft: false,
        }
    }

    /// One that is started to finish what waits in the slots of another.
    pub(super) fn finisher(generation: Generation, left: &Left, instances: u32, now: Instant) -> Self {
        Self {
            generation,
            plan: Arc::clone(&left.plan),
            crew: Crew::of(instances, now),
            since: now,
            phase: Phase::Quiescing { signal_by: now + left.plan.policy.drain_timeout },
            condition: Condition::default(),
            watchers: Vec::new(),
            finishes_for: Some(left.generation),
            has_served: false,
            is_bereft: false,
        }
    }

    /// It has the connections back.
    pub(super) fn into_serving(self, instances: u32, now: Instant) -> Serving {
        let mut crew = self.crew;
        crew.fill(instances, now);
        Serving {
            generation: self.generation,
            plan: self.plan,
            crew,
            why: Why::Rollback,
            since: self.since,
            output: Vec::new(),
            condition: self.condition,
            trial: None,
            expires: None,
            owed: None,
        }
    }
}

/// Where a generation sits, by what is the same in every seat.
pub(super) struct Seated<'a> {
    pub(super) crew: &'a mut Crew,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) output: Option<&'a mut Vec<String>>,
}

impl Supervisor {
    /// Whoever sits somewhere under this number.
    pub(super) fn seated(&mut self, generation: Generation) -> Option<Seated<'_>> {
        if let Some(at) = self.starting.as_mut().filter(|at| at.generation == generation) {
            return Some(Seated { crew: &mut at.crew, plan: &at.plan, output: Some(&mut at.output) });
        }
        if let Some(at) = self.serving.as_mut().filter(|at| at.generation == generation) {
            return Some(Seated { crew: &mut at.crew, plan: &at.plan, output: Some(&mut at.output) });
        }
        let at = self.draining.iter_mut().find(|at| at.generation == generation)?;
        Some(Seated { crew: &mut at.crew, plan: &at.plan, output: None })
    }

    /// From what a generation is made that is started for this.
    pub(super) fn origin_for(&self, request: &Request) -> Origin {
        match (request.why, request.target.or(self.current)) {
            (Why::Reload | Why::Change | Why::Restart, _) => Origin::Fresh(request.command.clone()),
            (Why::Rollback | Why::Scale, Some(target)) => Origin::Like(target),
            // What has just failed as it was may have been mended meanwhile.
            (Why::Crash | Why::Stuck | Why::Leaving | Why::Memory | Why::Lifetime, Some(current))
                if self.failures <= 1 =>
            {
                Origin::Like(current)
            }
            _ => Origin::Again,
        }
    }

    /// A picture of now.
    pub fn status(&self, now: Instant) -> Status {
        let since = |at: Instant| seconds(now.checked_duration_since(at).unwrap_or(Duration::ZERO));
        let seat = |generation, seat, plan: &Plan, crew: &Crew, at| Seat {
            generation,
            seat,
            pid: crew.pid(),
            since_secs: since(at),
            instances: crew.iter().map(|(number, member)| row(number, member, seat)).collect(),
            config_version: plan.config_version,
            command: plan.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        };
        let starting =
            self.starting.iter().map(|at| seat(at.generation, SeatName::Starting, &at.plan, &at.crew, at.since));
        let serving =
            self.serving.iter().map(|at| seat(at.generation, SeatName::Serving, &at.plan, &at.crew, at.since));
        let draining =
            self.draining.iter().map(|at| seat(at.generation, SeatName::Draining, &at.plan, &at.crew, at.since));
        let mut generations: Vec<Seat> = starting.chain(serving).chain(draining).collect();
        generations.sort_by_key(|seat| std::cmp::Reverse(seat.generation));
        Status {
            state: self.state(),
            ready: self.serving.as_ref().is_some_and(|serving| !serving.condition.is_unready(&serving.crew))
                && self.stop.is_none(),
            started: self.started,
            config_version: self.plan.as_ref().map_or(1, |plan| plan.config_version),
            paused_secs: self.pause.as_ref().map(|pause| seconds(pause.until.saturating_duration_since(now))),
            rollback: self.goal_of_rollback(),
            generations,
            last_verdict: self.last_verdict.clone(),
            crashes: self.crashes,
            trouble: self.serving.as_ref().and_then(|serving| serving.condition.trouble()),
        }
    }

    fn state(&self) -> State {
        match (&self.stop, &self.serving, &self.starting) {
            (Some(_), ..) => State::Stopping,
            (None, Some(_), Some(_)) => State::Reloading,
            (None, Some(_), None) => State::Serving,
            (None, None, _) if self.started => State::Waiting,
            (None, None, _) => State::Starting,
        }
    }
}

fn row(number: u32, member: &Member, seat: SeatName) -> SeatedInstance {
    let state = match (member.stage, seat) {
        (Stage::Due(_), _) => InstanceState::Waiting,
        (_, SeatName::Draining) => InstanceState::Draining,
        (Stage::Spawning | Stage::Proving(_), _) => InstanceState::Starting,
        (Stage::Ready, SeatName::Starting) => InstanceState::Ready,
        (Stage::Ready, SeatName::Serving) => InstanceState::Serving,
    };
    SeatedInstance { instance: number, state, pid: member.pid }
}
