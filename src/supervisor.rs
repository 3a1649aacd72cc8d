//! The rules: told what happened, says what to do.
//!
//! Never does anything itself: no I/O, no clock, no randomness. `handle` takes an event and the time and answers with
//! actions; `next_deadline` says when it wants to be woken. The methods stand in the order of the story: a reload
//! launches a generation, it proves itself, it serves, the old one drains; then what can go wrong; then restart and stop.

mod action;
mod event;
mod failures;
mod generation;
mod liveness;
mod news;
mod policy;
mod seats;
mod status;
mod stopping;
mod verdict;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::mem;
use std::time::{Duration, Instant};

pub use action::{Action, Place, Portion};
pub use event::Event;
pub use generation::{Exit, Generation, Instance, Ticket, Until, Why};
use humantime::format_duration;
use liveness::Condition;
pub use liveness::Sign;
pub use news::News;
pub use policy::{Budget, Hook, Lifetime, Policy, QueueMode, Restart};
use seats::{Draining, Left, Phase, Request, Serving, Starting, Stop};
pub use status::{Health, Seat, SeatName, State, Status};
use stopping::refused_because_stopping;
pub use verdict::{Cause, Outcome, Verdict};

/// The state of everything zdr decides about.
#[derive(Debug)]
pub struct Supervisor {
    policy: Policy,
    /// What the next generation runs unless somebody asks otherwise: the command of the last one that served.
    command: Vec<OsString>,
    newest: Generation,
    starting: Option<Starting>,
    serving: Option<Serving>,
    draining: Vec<Draining>,
    /// The dead that connections may still be on their way to.
    left: Vec<Left>,
    /// What runs next: reloads asked for while one is starting become one.
    next: Option<Request>,
    /// A restart waits for this generation to end.
    awaited: Option<Generation>,
    /// When to try again while nothing serves.
    retry_at: Option<Instant>,
    /// Failures in a row, of starts while nothing served and of generations that served only shortly.
    failures: u32,
    started: bool,
    stop: Option<Stop>,
    last_verdict: Option<Verdict>,
    crashes: u64,
    actions: Vec<Action>,
}

impl Supervisor {
    /// A supervisor of this command at which nothing has happened yet.
    pub fn new(policy: Policy, command: Vec<OsString>) -> Self {
        Self {
            policy,
            command,
            newest: Generation(0),
            starting: None,
            serving: None,
            draining: Vec::new(),
            left: Vec::new(),
            next: None,
            awaited: None,
            retry_at: None,
            failures: 0,
            started: false,
            stop: None,
            last_verdict: None,
            crashes: 0,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened and says what to do, in order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Boot => self.launch(Request::unasked(Why::Boot), now),
            Event::Reload { ticket, command, until } => self.reload(ticket, command, until, now),
            Event::Restart { ticket } => self.restart(ticket, now),
            Event::Stop { ticket } => self.stop(ticket, now),
            Event::Spawned { generation, pid } => self.spawned(generation, pid, now),
            Event::SpawnFailed { generation, why, code } => self.spawn_failed(generation, &why, code, now),
            Event::NotReady { generation, answer } => self.not_ready(generation, answer),
            Event::Ready { generation } => self.ready(generation, now),
            Event::Connections { generation, open, busy } => self.connections(generation, open, busy),
            Event::Quiet { generation } => self.quiet(generation, now),
            Event::Wrote { generation, lines } => self.wrote(generation, lines),
            Event::Exited { generation, exit } => self.exited(generation, exit, now),
            Event::Stuck { generation, sign, why } => self.stuck(generation, sign, why, now),
            Event::Recovered { generation, sign } => self.recovered(generation, sign),
            Event::Unready { generation } => self.unready(generation),
            Event::ReadyAgain { generation } => self.ready_again(generation),
            Event::Leaving { generation } => self.leaving(generation, now),
            Event::Checked { name, state, message } => self.tell(News::Check { name, state, message }),
            Event::Left { generation, waiting } => self.left(generation, waiting, now),
            Event::Changed { path: _ } => {}
            Event::Elapsed => self.elapsed(now),
        }
        self.exit_if_nobody_is_left();
        mem::take(&mut self.actions)
    }

    /// A reload starts a new generation beside the old one. Asked for while one is starting, it is remembered and runs
    /// next; several become one, the last command wins, and everybody gets the verdict.
    fn reload(&mut self, ticket: Ticket, command: Option<Vec<OsString>>, until: Until, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        self.next.get_or_insert_default().join(ticket, until, command);
        self.run_next(now);
    }

    fn run_next(&mut self, now: Instant) {
        if self.stop.is_some() || self.starting.is_some() || self.awaited.is_some() {
            return;
        }
        if let Some(request) = self.next.take() {
            self.launch(request, now);
        }
    }

    /// First start, reload, restart and the start after a crash are this one path.
    fn launch(&mut self, request: Request, now: Instant) {
        let command = request.command.unwrap_or_else(|| self.command.clone());
        let place = if self.serving.is_some() { Place::Beside } else { Place::Steered };
        self.retry_at = None;
        let generation = self.spawn(command.clone(), place);
        self.starting = Some(Starting {
            generation,
            pid: None,
            command,
            askers: request.askers,
            since: now,
            ready_by: now + self.policy.ready_timeout,
            last_answer: None,
            why: request.why,
            output: Vec::new(),
        });
    }

    fn spawn(&mut self, command: Vec<OsString>, place: Place) -> Generation {
        self.newest.0 += 1;
        self.actions.push(Action::Spawn { generation: self.newest, command, place });
        self.newest
    }

    /// The new generation is probed until it is ready.
    fn spawned(&mut self, generation: Generation, pid: i32, now: Instant) {
        if let Some(starting) = self.starting.as_mut().filter(|starting| starting.generation == generation) {
            starting.pid = Some(pid);
            starting.ready_by = now + self.policy.ready_timeout;
            let why = starting.why;
            self.tell(News::Spawned { generation, pid, why });
            self.actions.push(Action::Probe(generation));
        } else if let Some(finisher) = self.draining.iter_mut().find(|draining| draining.generation == generation) {
            finisher.pid = Some(pid);
            self.tell(News::Spawned { generation, pid, why: Why::Finish });
            self.actions.push(Action::Quiesce(generation));
        }
    }

    fn not_ready(&mut self, generation: Generation, answer: String) {
        let Some(starting) = self.starting.as_mut().filter(|starting| starting.generation == generation) else {
            return;
        };
        if starting.last_answer.as_ref() != Some(&answer) {
            starting.last_answer = Some(answer.clone());
            self.tell(News::NotReady { generation, answer });
        }
    }

    /// Ready: new connections go to it, the old one drains, and whoever asked is told.
    fn ready(&mut self, generation: Generation, now: Instant) {
        let Some(Starting { pid: Some(pid), command, askers, since, .. }) =
            self.starting.take_if(|starting| starting.generation == generation && starting.pid.is_some())
        else {
            return;
        };
        self.actions.push(Action::Steer(generation));
        self.started = true;
        self.command.clone_from(&command);
        let after = now.saturating_duration_since(since);
        self.tell(News::Serving { generation, after });
        let (output, condition) = (Vec::new(), Condition::default());
        let old = self.serving.replace(Serving { generation, pid, command, since: now, output, condition });
        self.quiesce_the_warm(now);
        let (patient, prompt) = askers.into_iter().partition::<Vec<_>, _>(|(_, until)| *until == Until::Drained);
        let mut due = tickets(prompt);
        match old {
            Some(old) => self.keep_warm(old, tickets(patient), now),
            None => due.extend(tickets(patient)),
        }
        let reason = format!("generation {generation} serves after {after:.1?}");
        self.settle(due, Verdict::of_generation(Cause::Ready, generation, reason));
        self.run_next(now);
    }

    /// The old generation keeps running for the bake time, so that it can have the connections back. One that does not do
    /// well is no use for that.
    fn keep_warm(&mut self, old: Serving, watchers: Vec<Ticket>, now: Instant) {
        let bake = if old.condition.why().is_some() { Duration::ZERO } else { self.policy.bake };
        let phase = Phase::Warm { until: now + bake };
        self.draining.push(Draining { watchers, ..Draining::new(old, phase, now) });
        if bake.is_zero() {
            self.quiesce_the_warm(now);
        }
    }

    /// It is quiesced: it gets nothing new, its queue runs empty, its requests finish.
    fn quiesce_the_warm(&mut self, now: Instant) {
        let signal_by = now + self.policy.drain_timeout;
        for draining in &mut self.draining {
            if matches!(draining.phase, Phase::Warm { .. }) {
                draining.phase = Phase::Quiescing { signal_by };
                self.actions.push(Action::Quiesce(draining.generation));
            }
        }
    }

    fn connections(&mut self, generation: Generation, open: usize, busy: usize) {
        if self.draining.iter().any(|draining| draining.generation == generation) {
            self.tell(News::Draining { generation, open, busy });
        }
    }

    /// Quiet: only now is it asked to finish.
    fn quiet(&mut self, generation: Generation, now: Instant) {
        let kill_by = now + self.policy.drain_timeout;
        let Some(draining) = self.draining.iter_mut().find(|draining| draining.generation == generation) else {
            return;
        };
        if matches!(draining.phase, Phase::Quiescing { .. }) {
            draining.phase = Phase::Signalled { kill_by };
            self.actions.push(Action::Signal(generation));
            self.tell(News::Signalled { generation });
        }
    }

    /// What one that fails wrote last says why.
    fn wrote(&mut self, generation: Generation, lines: Vec<String>) {
        let output = match (&mut self.starting, &mut self.serving) {
            (Some(starting), _) if starting.generation == generation => &mut starting.output,
            (_, Some(serving)) if serving.generation == generation => &mut serving.output,
            _ => return,
        };
        *output = lines;
    }

    /// A main process has ended; what that means depends on its seat.
    fn exited(&mut self, generation: Generation, exit: Exit, now: Instant) {
        if let Some(starting) = self.starting.take_if(|starting| starting.generation == generation) {
            self.kill_and_release(generation);
            let answer = starting.last_answer.as_ref().map(|answer| format!(": {answer}")).unwrap_or_default();
            self.give_up(starting, Cause::Exited, &format!("{exit} before it was ready{answer}"), now);
        } else if let Some(serving) = self.serving.take_if(|serving| serving.generation == generation) {
            self.crashed(serving, exit, now);
        } else if let Some(at) = self.draining.iter().position(|draining| draining.generation == generation) {
            let draining = self.draining.swap_remove(at);
            self.ended(draining, exit, now);
        }
    }

    fn ended(&mut self, draining: Draining, exit: Exit, now: Instant) {
        let generation = draining.generation;
        let after = now.saturating_duration_since(draining.since);
        self.tell(News::Ended { generation, exit: exit.to_string(), after });
        let unfinished = matches!(draining.phase, Phase::Warm { .. } | Phase::Quiescing { .. })
            || draining.condition.why().is_some() && self.awaited != Some(generation);
        if unfinished && !draining.finishes_for_another {
            self.leave(generation, draining.command);
        } else {
            self.kill_and_release(generation);
        }
        if self.awaited == Some(generation) {
            self.awaited = None;
            self.run_next(now);
        }
        if draining.watchers.is_empty() {
            return;
        }
        let gone = format!("and generation {generation} is gone");
        let verdict = match self.serving.as_ref().map(|serving| serving.generation) {
            Some(newest) => {
                Verdict::of_generation(Cause::Drained, newest, format!("generation {newest} serves {gone}"))
            }
            None => Verdict {
                outcome: Outcome::Failed,
                ..Verdict::of_generation(Cause::Crashed, generation, format!("nothing serves {gone}"))
            },
        };
        self.settle(draining.watchers, verdict);
    }

    /// When `handle` wants to be told that time has passed.
    pub fn next_deadline(&self) -> Option<Instant> {
        let seats = self.draining.iter().filter_map(|draining| draining.phase.deadline());
        let others = [
            self.starting.as_ref().map(|starting| starting.ready_by),
            self.retry_at,
            self.stop.as_ref().filter(|_| self.serving.is_some()).and_then(|stop| stop.lame_duck),
        ];
        seats.chain(others.into_iter().flatten()).min()
    }

    fn elapsed(&mut self, now: Instant) {
        if self.stop.as_ref().and_then(|stop| stop.lame_duck).is_some_and(|until| until <= now) {
            self.drain_the_last(now);
        }
        if let Some(starting) = self.starting.take_if(|starting| starting.ready_by <= now) {
            self.not_ready_in_time(starting, now);
        }
        if self.draining.iter().any(|draining| matches!(draining.phase, Phase::Warm { until } if until <= now)) {
            self.quiesce_the_warm(now);
        }
        let (due, later) = mem::take(&mut self.draining)
            .into_iter()
            .partition(|draining| draining.phase.deadline().is_some_and(|deadline| deadline <= now));
        self.draining = later;
        for draining in due {
            self.out_of_time(draining, now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.launch(Request::unasked(self.why_again()), now);
        }
    }

    fn not_ready_in_time(&mut self, starting: Starting, now: Instant) {
        let time = format_duration(self.policy.ready_timeout);
        let answer = starting.last_answer.clone().unwrap_or_else(|| "it never answered".to_owned());
        let why = format!("was not ready after {time}: {answer}");
        self.kill(Draining::from_starting(starting.clone(), now), "it was not ready in time");
        self.give_up(starting, Cause::TimedOut, &why, now);
    }

    /// Its queue did not run empty: it is signalled all the same. It did not end: it is killed with its whole tree.
    fn out_of_time(&mut self, mut draining: Draining, now: Instant) {
        if matches!(draining.phase, Phase::Quiescing { .. }) {
            let generation = draining.generation;
            draining.phase = Phase::Signalled { kill_by: now + self.policy.drain_timeout };
            self.draining.push(draining);
            self.actions.push(Action::Signal(generation));
            self.tell(News::Signalled { generation });
        } else {
            let reason = format!("it had not ended {} after the signal", format_duration(self.policy.drain_timeout));
            self.kill(draining, &reason);
        }
    }

    fn kill(&mut self, draining: Draining, reason: &str) {
        let generation = draining.generation;
        self.actions.push(Action::Kill(generation));
        self.tell(News::Killed { generation, reason: reason.to_owned() });
        self.draining.push(Draining { phase: Phase::Killed, ..draining });
    }

    fn settle(&mut self, tickets: Vec<Ticket>, verdict: Verdict) {
        if !tickets.is_empty() {
            self.tell(News::Verdict(verdict.clone()));
        }
        self.answer(tickets, &verdict);
        self.last_verdict = Some(verdict);
    }

    fn answer(&mut self, tickets: Vec<Ticket>, verdict: &Verdict) {
        self.actions.extend(tickets.into_iter().map(|ticket| Action::Answer(ticket, verdict.clone())));
    }

    fn tell(&mut self, news: News) {
        self.actions.push(Action::Tell(news));
    }
}

fn tickets(askers: Vec<(Ticket, Until)>) -> Vec<Ticket> {
    askers.into_iter().map(|(ticket, _)| ticket).collect()
}
