//! What can go wrong: a generation that cannot start or is not ready, and what waits for one that is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::action::Action;
use super::generation::{Exit, Generation, Instance, Why};
use super::news::News;
use super::policy::{FAILURES_AT_BOOT, Plan, QueueMode, pause};
use super::seats::{Draining, Left, Request, Starting};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, format_duration, tickets};

/// The exit code of wrong use, for settings that were right when zdr began and are not any more.
const WRONG_USE: u8 = 2;

impl Supervisor {
    /// A main process has ended; what that means depends on its seat.
    pub(super) fn exited(&mut self, instance: Instance, exit: Exit, now: Instant) {
        let Instance { generation, number } = instance;
        if let Some(mut starting) = self.starting.take_if(|starting| starting.generation == generation) {
            let why = match starting.crew.remove(number) {
                Some(member) if member.is_ready() => format!("{exit} before all were ready"),
                member => {
                    let answer = member.and_then(|member| member.last_answer).map(|answer| format!(": {answer}"));
                    format!("{exit} before it was ready{}", answer.unwrap_or_default())
                }
            };
            self.give_up(starting, Some(number), Cause::Exited, &why, now);
        } else if self.serving.as_ref().is_some_and(|serving| serving.generation == generation) {
            self.one_has_died(number, exit, now);
        } else {
            self.one_has_drained(instance, exit, now);
        }
    }

    /// It is gone, and new connections go elsewhere. Those that were on their way arrive in its slots all the same, where
    /// nobody else will look: they are counted when the last one is there.
    pub(super) fn leave(&mut self, generation: Generation, plan: Arc<Plan>, like: Generation) {
        if self.stop.is_some() {
            return self.kill_and_release(generation);
        }
        self.actions.push(Action::Kill(generation));
        self.actions.push(Action::LookBehind(generation));
        self.left.push(Left { generation, plan, like });
    }

    /// Connections that wait in its slots are finished by one more of its like, which drains from its first moment.
    pub(super) fn left(&mut self, generation: Generation, waiting: usize, now: Instant) {
        let Some(at) = self.left.iter().position(|left| left.generation == generation) else {
            return;
        };
        let left = &self.left[at];
        if waiting > 0 && (self.stop.is_none() || left.is_of_a_pause()) {
            self.newest.0 += 1;
            let each = left.plan.policy.queue == QueueMode::PerInstance && !left.is_of_a_pause();
            let instances = if each { left.plan.policy.instances } else { 1 };
            let finisher = Draining::finisher(self.newest, left, instances, now);
            self.draining.push(finisher);
        } else {
            self.left.swap_remove(at);
            self.actions.push(Action::Release(generation));
        }
    }

    pub(super) fn kill_and_release(&mut self, generation: Generation) {
        self.actions.push(Action::Kill(generation));
        self.actions.push(Action::Release(generation));
    }

    pub(super) fn spawn_failed(&mut self, instance: Instance, why: &str, code: Option<i32>, now: Instant) {
        let Instance { generation, number } = instance;
        let what = format!("could not be started: {why}");
        if let Some(mut starting) = self.starting.take_if(|starting| starting.generation == generation) {
            starting.crew.remove(number);
            let at_boot = !self.started && starting.askers.is_empty() && !starting.plan.policy.watched;
            match code.and_then(|code| u8::try_from(code).ok()) {
                Some(code) if at_boot => {
                    let reason = format!("generation {generation} {what}");
                    self.tell(News::Failed { generation, cause: Cause::NotStarted, reason, output: Vec::new() });
                    if starting.crew.lives() {
                        self.kill(Draining::from_starting(&starting, now), "another instance of it cannot be started");
                    } else {
                        self.actions.push(Action::Release(generation));
                    }
                    self.end_with(code, now);
                }
                _ => self.give_up(starting, Some(number), Cause::NotStarted, &what, now),
            }
        } else if let Some(serving) = self.serving.as_mut().filter(|serving| serving.generation == generation) {
            let failures = serving.crew.remove(number).map_or(0, |member| member.failures);
            self.lose(number, &what, None, failures, now);
        } else if let Some(at) = self.draining.iter().position(|draining| draining.generation == generation) {
            self.draining[at].crew.remove(number);
            if self.draining[at].crew.is_empty() {
                let finisher = self.draining.swap_remove(at);
                self.actions.push(Action::Release(generation));
                self.finished_for(finisher.finishes_for);
            } else if self.draining[at].crew.is_complete() {
                self.finisher_is_there(generation);
            }
        }
    }

    /// What finishes for another has all of its slots.
    pub(super) fn finisher_is_there(&mut self, generation: Generation) {
        let finisher = self.draining.iter().find(|draining| draining.generation == generation);
        let dead = finisher.and_then(|finisher| finisher.finishes_for);
        self.actions.push(Action::Quiesce(generation));
        self.finished_for(dead);
    }

    /// The slots of one that was left are nobody's from now on.
    pub(super) fn finished_for(&mut self, dead: Option<Generation>) {
        let Some(at) = self.left.iter().position(|left| Some(left.generation) == dead) else { return };
        let Left { generation, .. } = self.left.swap_remove(at);
        self.actions.push(Action::Release(generation));
    }

    /// Those that have not become ready in their time.
    pub(super) fn the_late(&mut self, now: Instant) {
        if let Some(mut starting) = self.starting.take_if(|starting| starting.crew.late(now).is_some()) {
            let Some(number) = starting.crew.late(now) else { return };
            let time = format_duration(starting.plan.policy.ready_timeout);
            let answer = starting.crew.get_mut(number).and_then(|member| member.last_answer.clone());
            let answer = answer.unwrap_or_else(|| "it never answered".to_owned());
            self.give_up(
                starting,
                Some(number),
                Cause::TimedOut,
                &format!("was not ready after {time}: {answer}"),
                now,
            );
        }
        while let Some(serving) = &mut self.serving {
            let Some(number) = serving.crew.late(now) else { return };
            let time = format_duration(serving.plan.policy.ready_timeout);
            let member = serving.crew.remove(number);
            let failures = member.map_or(0, |member| member.failures);
            self.lose(number, &format!("was not ready after {time}"), None, failures, now);
        }
    }

    /// Not ready: the old generation serves on untouched, and whoever asked is told why. What the new one has of new
    /// connections goes back, and what it has begun to answer it finishes.
    pub(super) fn give_up(&mut self, starting: Starting, culprit: Option<u32>, cause: Cause, why: &str, now: Instant) {
        let generation = starting.generation;
        let several = starting.plan.policy.instances > 1;
        let who = match culprit.filter(|_| several) {
            Some(number) => format!("instance {number} of generation {generation}"),
            None => format!("generation {generation}"),
        };
        let output = starting.output.clone();
        let (outcome, then) = match &self.serving {
            Some(serving) => (Outcome::Kept, format!("generation {} serves on", serving.generation)),
            None => (Outcome::Failed, "nothing serves, connections wait".to_owned()),
        };
        let reason = format!("{who} {why}; {then}");
        if starting.has_a_share {
            self.actions.extend(self.serving.as_ref().map(|serving| Action::Steer(vec![serving.portion()])));
        }
        let mut draining = Draining::from_starting(&starting, now);
        let has_begun = starting.has_a_share && self.serving.is_some();
        if has_begun {
            // What waits in a queue that they have as well would wait for them as long as a drain may take.
            let unready = draining.crew.dismiss_the_unready().into_iter();
            self.actions.extend(unready.map(|number| Action::Bury(Instance { generation, number })));
        }
        match (draining.crew.lives(), has_begun) {
            (true, true) => self.drain(Draining { is_bereft: cause == Cause::Exited, ..draining }, now),
            (false, true) => self.leave(generation, draining.plan, generation),
            (true, false) => {
                let late = cause == Cause::TimedOut;
                self.kill(draining, if late { "it was not ready in time" } else { "it is given up" });
            }
            (false, false) if cause == Cause::NotStarted => self.actions.push(Action::Release(generation)),
            (false, false) => self.kill_and_release(generation),
        }
        self.tell(News::Failed { generation, cause, reason: reason.clone(), output: output.clone() });
        let verdict = Verdict { outcome, cause, generation: Some(generation), reason, output };
        self.settle(tickets(starting.askers), verdict);
        self.go_on_after_a_failure(&starting.plan, now);
    }

    /// The settings cannot be had: nothing has changed.
    pub(super) fn refused(&mut self, why: &str, now: Instant) {
        let Some(request) = self.preparing.take() else { return };
        let (outcome, then) = match &self.serving {
            Some(serving) => (Outcome::Kept, format!("generation {} serves on", serving.generation)),
            None => (Outcome::Failed, "nothing serves, connections wait".to_owned()),
        };
        // Mistakes in a file are shown with its lines, and what follows stands by itself.
        let between = if why.contains('\n') { "\n" } else { "; " };
        let reason = format!("{why}{between}{then}");
        self.tell(News::Refused { reason: reason.clone() });
        let verdict = Verdict { reason, ..Verdict::of_zdr(outcome, Cause::Refused, "") };
        self.settle(tickets(request.askers), verdict);
        match self.plan.clone() {
            Some(plan) => self.go_on_after_a_failure(&plan, now),
            None => self.end_with(WRONG_USE, now),
        }
    }

    fn go_on_after_a_failure(&mut self, plan: &Plan, now: Instant) {
        self.run_next(now);
        let launched = self.preparing.is_some() || self.starting.is_some() || self.awaited.is_some();
        if launched || self.stop.is_some() || self.retry_at.is_some() {
            return;
        }
        match (&self.serving, plan.policy.watched) {
            (Some(_), _) => self.replace(now),
            (None, true) => self.tell(News::Waiting),
            (None, false) => self.try_again(Why::Retry, now),
        }
    }

    /// If nothing serves, or what serves is to be replaced, zdr tries again, more slowly each time. Only where nothing has
    /// ever served does it give up.
    pub(super) fn try_again(&mut self, why: Why, now: Instant) {
        let after = pause(self.failures);
        self.failures += 1;
        if !self.started && self.failures >= FAILURES_AT_BOOT {
            return self.end_with(1, now);
        }
        if after == Duration::ZERO {
            return self.launch(Request::unasked(why));
        }
        let serving = self.serving.as_ref().map(|serving| serving.generation);
        self.tell(News::Retrying { serving, after });
        self.retry_at = Some(now + after);
    }
}
