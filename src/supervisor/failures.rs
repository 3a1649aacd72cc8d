//! What can go wrong: a generation that cannot start, is not ready, or dies.

use std::ffi::OsString;
use std::time::Instant;

use super::action::{Action, Place};
use super::generation::{Exit, Generation, Why};
use super::news::News;
use super::policy::{FAILURES_AT_BOOT, STEADY, pause};
use super::seats::{Draining, Left, Phase, Request, Serving, Starting, Stop};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, tickets};

impl Supervisor {
    /// A generation is gone, and new connections go elsewhere. Those that were on their way arrive in its slots all the
    /// same, where nobody else will look: they are counted when the last one is there.
    pub(super) fn leave(&mut self, generation: Generation, command: Vec<OsString>) {
        if self.stop.is_some() {
            return self.kill_and_release(generation);
        }
        self.actions.push(Action::Kill(generation));
        self.actions.push(Action::LookBehind(generation));
        self.left.push(Left { generation, command });
    }

    /// Connections that wait in its slots are finished by one more instance of it, which drains from its first moment.
    pub(super) fn left(&mut self, generation: Generation, waiting: usize, now: Instant) {
        let Some(at) = self.left.iter().position(|left| left.generation == generation) else {
            return;
        };
        let Left { command, .. } = self.left.swap_remove(at);
        if waiting > 0 && self.stop.is_none() {
            let finisher = self.spawn(command.clone(), Place::Of(generation));
            let signal_by = now + self.policy.drain_timeout;
            self.draining.push(Draining::finisher(finisher, command, signal_by, now));
        }
        self.actions.push(Action::Release(generation));
    }

    pub(super) fn kill_and_release(&mut self, generation: Generation) {
        self.actions.push(Action::Kill(generation));
        self.actions.push(Action::Release(generation));
    }

    /// The serving generation died. The old one has the connections back if it is still warm; else the one that is
    /// starting gets them; else they wait in the queue for the next try.
    pub(super) fn crashed(&mut self, dead: Serving, exit: Exit, now: Instant) {
        let generation = dead.generation;
        let served = now.saturating_duration_since(dead.since);
        self.crashes += 1;
        self.retry_at = None;
        if self.stop.is_some() {
            return self.kill_and_release(generation);
        }
        if let Some(at) = self.draining.iter().position(|draining| matches!(draining.phase, Phase::Warm { .. })) {
            let warm = self.draining.swap_remove(at);
            let then = format!("generation {} serves again", warm.generation);
            let reason = format!("generation {generation} {exit} {served:.1?} after its promotion; {then}");
            self.actions.push(Action::Steer(warm.generation));
            let output = dead.output.clone();
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output: output.clone() });
            self.tell(News::Returned { generation: warm.generation });
            let (outcome, cause) = (Outcome::Kept, Cause::Crashed);
            let verdict = Verdict { outcome, cause, generation: Some(generation), reason, output };
            self.settle(warm.watchers.clone(), verdict);
            self.command.clone_from(&warm.command);
            self.serving = warm.into_serving();
            self.leave(generation, dead.command);
        } else if let Some(starting) = &self.starting {
            let then = format!("connections wait for generation {}", starting.generation);
            self.actions.push(Action::Steer(starting.generation));
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output: dead.output });
            self.leave(generation, dead.command);
        } else {
            self.kill_and_release(generation);
            if served >= STEADY {
                self.failures = 0;
            }
            let then = "it is started again".to_owned();
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output: dead.output });
            self.try_again(Why::Crash, now);
        }
    }

    pub(super) fn spawn_failed(&mut self, generation: Generation, why: &str, code: Option<i32>, now: Instant) {
        self.actions.push(Action::Release(generation));
        self.draining.retain(|draining| draining.generation != generation);
        let Some(starting) = self.starting.take_if(|starting| starting.generation == generation) else {
            return;
        };
        let at_boot = !self.started && starting.askers.is_empty();
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(code) if at_boot => {
                let reason = format!("generation {generation} could not be started: {why}");
                self.tell(News::Failed { generation, cause: Cause::NotStarted, reason, output: Vec::new() });
                self.stop = Some(Stop::with_code(code));
            }
            _ => self.give_up(starting, Cause::NotStarted, &format!("could not be started: {why}"), now),
        }
    }

    /// Not ready: the old generation serves on untouched, and whoever asked is told why.
    pub(super) fn give_up(&mut self, starting: Starting, cause: Cause, why: &str, now: Instant) {
        let generation = starting.generation;
        let (outcome, then) = match &self.serving {
            Some(serving) => (Outcome::Kept, format!("generation {} serves on", serving.generation)),
            None => (Outcome::Failed, "nothing serves, connections wait".to_owned()),
        };
        let reason = format!("generation {generation} {why}; {then}");
        let output = starting.output;
        self.tell(News::Failed { generation, cause, reason: reason.clone(), output: output.clone() });
        let verdict = Verdict { outcome, cause, generation: Some(generation), reason, output };
        self.settle(tickets(starting.askers), verdict);
        if self.serving.is_some() || self.next.is_some() || self.stop.is_some() {
            self.run_next(now);
            return self.replace(now);
        }
        self.try_again(Why::Retry, now);
    }

    /// If nothing serves, or what serves is to be replaced, zdr tries again, more slowly each time. Only where nothing has
    /// ever served does it give up.
    pub(super) fn try_again(&mut self, why: Why, now: Instant) {
        let after = pause(self.failures);
        self.failures += 1;
        if !self.started && self.failures >= FAILURES_AT_BOOT {
            self.stop = Some(Stop::with_code(1));
            return;
        }
        if after.is_zero() {
            return self.launch(Request::unasked(why), now);
        }
        let serving = self.serving.as_ref().map(|serving| serving.generation);
        self.tell(News::Retrying { serving, after });
        self.retry_at = Some(now + after);
    }
}
