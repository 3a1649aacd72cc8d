//! The seats of a generation and what is remembered of whoever sits there.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::generation::{Generation, Ticket, Until, Why};
use super::liveness::Condition;
use super::status::{Seat, SeatName, State, Status, seconds};

/// What somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) askers: Vec<(Ticket, Until)>,
    pub(super) command: Option<Vec<OsString>>,
    pub(super) why: Why,
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
#[derive(Clone, Debug)]
pub(super) struct Starting {
    pub(super) generation: Generation,
    /// None until the command was executed.
    pub(super) pid: Option<i32>,
    pub(super) command: Vec<OsString>,
    pub(super) askers: Vec<(Ticket, Until)>,
    pub(super) since: Instant,
    pub(super) ready_by: Instant,
    pub(super) last_answer: Option<String>,
    pub(super) why: Why,
    /// The last lines that it wrote.
    pub(super) output: Vec<String>,
}

/// Gets the new connections.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) generation: Generation,
    pub(super) pid: i32,
    pub(super) command: Vec<OsString>,
    pub(super) since: Instant,
    /// The last lines that it wrote.
    pub(super) output: Vec<String>,
    /// How well it does.
    pub(super) condition: Condition,
}

/// Gets nothing new.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) generation: Generation,
    /// None until the command of a finisher was executed.
    pub(super) pid: Option<i32>,
    pub(super) command: Vec<OsString>,
    pub(super) since: Instant,
    pub(super) phase: Phase,
    /// How well it did when it served.
    pub(super) condition: Condition,
    /// Who waits for its end.
    pub(super) watchers: Vec<Ticket>,
    /// It was started only to finish what waited in the slots of one that died.
    pub(super) finishes_for_another: bool,
}

/// It died; what had begun to come to it may still arrive in its slots.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) generation: Generation,
    pub(super) command: Vec<OsString>,
}

/// zdr is ending.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) askers: Vec<Ticket>,
    /// What zdr exits with.
    pub(super) code: u8,
    /// Until then the serving generation serves on, while readiness says no.
    pub(super) lame_duck: Option<Instant>,
}

impl Stop {
    pub(super) fn with_code(code: u8) -> Self {
        Self { askers: Vec::new(), code, lame_duck: None }
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
        Self {
            generation: old.generation,
            pid: Some(old.pid),
            command: old.command,
            since: now,
            phase,
            condition: old.condition,
            watchers: Vec::new(),
            finishes_for_another: false,
        }
    }

    /// One that never served. Nothing waits for it that another could not take.
    pub(super) fn from_starting(starting: Starting, now: Instant) -> Self {
        Self {
            generation: starting.generation,
            pid: starting.pid,
            command: starting.command,
            since: now,
            phase: Phase::Killed,
            condition: Condition::default(),
            watchers: Vec::new(),
            finishes_for_another: false,
        }
    }

    pub(super) fn finisher(generation: Generation, command: Vec<OsString>, signal_by: Instant, now: Instant) -> Self {
        Self {
            generation,
            pid: None,
            command,
            since: now,
            phase: Phase::Quiescing { signal_by },
            condition: Condition::default(),
            watchers: Vec::new(),
            finishes_for_another: true,
        }
    }

    pub(super) fn into_serving(self) -> Option<Serving> {
        let pid = self.pid?;
        Some(Serving {
            generation: self.generation,
            pid,
            command: self.command,
            since: self.since,
            output: Vec::new(),
            condition: self.condition,
        })
    }
}

impl Supervisor {
    /// A picture of now.
    pub fn status(&self, now: Instant) -> Status {
        let since = |at: Instant| seconds(now.checked_duration_since(at).unwrap_or(Duration::ZERO));
        let text = |command: &[OsString]| command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let starting =
            self.starting.iter().map(|at| (at.generation, SeatName::Starting, at.pid, at.since, &at.command));
        let serving =
            self.serving.iter().map(|at| (at.generation, SeatName::Serving, Some(at.pid), at.since, &at.command));
        let draining =
            self.draining.iter().map(|at| (at.generation, SeatName::Draining, at.pid, at.since, &at.command));
        let mut generations: Vec<Seat> = starting
            .chain(serving)
            .chain(draining)
            .map(|(generation, seat, pid, at, command)| Seat {
                generation,
                seat,
                pid,
                since_secs: since(at),
                command: text(command),
            })
            .collect();
        generations.sort_by_key(|seat| std::cmp::Reverse(seat.generation));
        Status {
            state: self.state(),
            ready: self.serving.as_ref().is_some_and(|serving| !serving.condition.unready) && self.stop.is_none(),
            started: self.started,
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
