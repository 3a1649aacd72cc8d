//! What can go wrong: a generation that cannot start, is not ready, or dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::action::Action;
use super::crew::Stage;
use super::generation::{Exit, Generation, Instance, Why};
use super::news::News;
use super::policy::{FAILURES_AT_BOOT, Plan, QueueMode, pause};
use super::seats::{Blame, Draining, Left, Phase, Request, Serving, Starting};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Portion, Supervisor, format_duration, tickets};

/// The exit code of wrong use, for settings that were right when zdr began and are not any more.
const WRONG_USE: u8 = 2;

impl Supervisor {
    /// A main process has ended; what that means depends on its seat.
    pub(super) fn exited(&mut self, instance: Instance, exit: Exit, now: Instant) {
        let Instance { generation, number } = instance;
        if let Some(mut starting) = self.starting.take_if(|starting| starting.generation == generation) {
            let member = starting.crew.remove(number);
            let answer = member.and_then(|member| member.last_answer).map(|answer| format!(": {answer}"));
            let why = format!("{exit} before it was ready{}", answer.unwrap_or_default());
            let of_all = starting.crew.is_complete() && !starting.crew.is_empty();
            let why = if of_all { format!("{exit} before all were ready") } else { why };
            self.give_up(starting, Some(number), Cause::Exited, &why, now);
        } else if self.serving.as_ref().is_some_and(|serving| serving.generation == generation) {
            self.one_has_died(number, exit, now);
        } else {
            self.one_has_drained(instance, exit, now);
        }
    }

    /// An instance of the serving generation died. Where others can serve, it is started again alone; else the generation
    /// has died with it.
    fn one_has_died(&mut self, number: u32, exit: Exit, now: Instant) {
        let Some(mut serving) = self.serving.take() else { return };
        let Some(dead) = serving.crew.remove(number) else {
            self.serving = Some(serving);
            return;
        };
        serving.condition.forget(number);
        if serving.crew.ready().is_empty() {
            return self.crashed(serving, exit, now);
        }
        let served = now.saturating_duration_since(dead.since);
        self.crashes += u64::from(dead.is_ready());
        let failures = match dead.is_ready() && served >= serving.plan.policy.min_uptime {
            true => 0,
            false => dead.failures,
        };
        self.serving = Some(serving);
        self.lose(number, &exit.to_string(), Some(exit), failures, now);
    }

    /// An instance is gone, and the others of its generation serve.
    fn lose(&mut self, number: u32, how: &str, exit: Option<Exit>, failures: u32, now: Instant) {
        let too_many = self.is_not_to_grow(number, how);
        let Some(serving) = &mut self.serving else { return };
        let generation = serving.generation;
        let wanted = exit.is_none_or(|exit| serving.plan.policy.restart.wants(exit)) && !too_many;
        let again = self.stop.is_none() && wanted;
        let others = serving.crew.ready().len();
        let serve = if others == 1 { "1 other serves".to_owned() } else { format!("{others} others serve") };
        let then = if again { format!("{serve}, and it is started again") } else { serve };
        let (exit_words, output) = (how.to_owned(), serving.output.clone());
        self.actions.push(Action::Bury(Instance { generation, number }));
        self.tell(News::InstanceLost { generation, instance: number, exit: exit_words, then, output });
        self.spread();
        let wanted = again && !self.is_exhausted(exit, now);
        if let Some(serving) = self.serving.as_mut().filter(|_| wanted) {
            serving.crew.is_due(number, now + pause(failures), failures + 1);
        }
        self.settle_the_scale();
    }

    /// Where each instance has its own queue, what is new goes to those that can serve.
    pub(super) fn spread(&mut self) {
        let each = |serving: &&Serving| serving.plan.policy.queue == QueueMode::PerInstance;
        let Some(portion) = self.serving.as_ref().filter(each).map(Serving::portion) else { return };
        if self.starting.as_ref().is_some_and(|starting| starting.has_a_share) {
            self.share();
        } else {
            self.actions.push(Action::Steer(vec![portion]));
        }
    }

    /// True where there were as many restarts as there may be: zdr ends, or goes back to what it had before.
    fn is_exhausted(&mut self, exit: Option<Exit>, now: Instant) -> bool {
        let Some(budget) = self.plan.as_ref().and_then(|plan| plan.policy.max_restarts) else { return false };
        self.restarts.retain(|at| now.saturating_duration_since(*at) < budget.window);
        if self.restarts.len() < budget.restarts as usize {
            self.restarts.push_back(now);
            return false;
        }
        let window = format_duration(budget.window);
        let what = format!("has used up its {} restarts in {window}", budget.restarts);
        if !self.fails_its_trial(Cause::Exhausted, &what, now) {
            self.end_for_good(&what, exit, now);
        }
        true
    }

    /// Nothing is started again: zdr ends as its command did.
    fn end_for_good(&mut self, what: &str, exit: Option<Exit>, now: Instant) {
        let code = match exit {
            Some(Exit::Code(code)) => u8::try_from(code).unwrap_or(1),
            Some(Exit::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(1),
            None => 1,
        };
        if let Some(generation) = self.current {
            let reason = format!("generation {generation} {what}; zdr ends");
            self.tell(News::Failed { generation, cause: Cause::Exhausted, reason, output: Vec::new() });
        }
        self.end_with(code, now);
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

    /// What died of a generation whose others have to go with it.
    fn put_away(&mut self, dead: Serving, gets_nothing_new: bool, now: Instant) {
        if dead.crew.lives() {
            let draining = Draining { is_bereft: gets_nothing_new, ..Draining::new(dead, Phase::Killed, now) };
            self.kill(draining, "the others of its generation have died");
        } else if gets_nothing_new {
            self.leave(dead.generation, dead.plan, dead.generation);
        } else {
            self.kill_and_release(dead.generation);
        }
    }

    /// The serving generation died. The old one has the connections back if it is still warm; else the one that is
    /// starting gets them; else they wait in the queue for the next try.
    fn crashed(&mut self, mut dead: Serving, exit: Exit, now: Instant) {
        let generation = dead.generation;
        let served = now.saturating_duration_since(dead.since);
        let wanted = dead.plan.policy.restart.wants(exit);
        let steady = served >= dead.plan.policy.min_uptime;
        let output = dead.output.clone();
        self.crashes += 1;
        self.retry_at = None;
        self.grow_no_more();
        self.settle_what_is_owed(&mut dead, &exit.to_string());
        let what = format!("{exit} {served:.1?} after its promotion");
        if self.stop.is_some() {
            self.put_away(dead, false, now);
        } else if let Some((warm, watchers)) = self.take_the_warm() {
            let then = format!("generation {} serves again", warm.generation);
            self.actions.push(Action::Steer(vec![warm.portion()]));
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output: output.clone() });
            let blame = Blame { generation, cause: Cause::Crashed, what, output };
            self.return_to(warm, watchers, blame);
            self.put_away(dead, true, now);
        } else if let Some(portion) = self.starting.as_ref().and_then(Starting::portion) {
            let then = format!("connections wait for generation {}", portion.generation);
            self.actions.push(Action::Steer(vec![portion]));
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output });
            self.put_away(dead, true, now);
        } else if self.starting.is_some() {
            let then = "connections wait for the generation that is about to start".to_owned();
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output });
            self.put_away(dead, false, now);
        } else if !wanted {
            let then = "it is not started again".to_owned();
            self.tell(News::Crashed { generation, exit: exit.to_string(), then, output });
            self.put_away(dead, false, now);
            self.end_for_good("has ended for good", Some(exit), now);
        } else {
            let on_trial = dead.trial.is_some();
            self.put_away(dead, false, now);
            if steady {
                self.failures = 0;
            }
            let then = if on_trial { "the one before it is started again" } else { "it is started again" };
            self.tell(News::Crashed {
                generation,
                exit: exit.to_string(),
                then: then.to_owned(),
                output: output.clone(),
            });
            let blame = Blame { generation, cause: Cause::Crashed, what, output };
            let goes_back = on_trial && self.launch_the_one_before(blame);
            if !goes_back && !self.is_exhausted(Some(exit), now) {
                self.try_again(Why::Crash, now);
            }
        }
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
        let draining = Draining::from_starting(&starting, now);
        match (draining.crew.lives(), starting.has_a_share && self.serving.is_some()) {
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
        if self.preparing.is_some() || self.stop.is_some() {
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

impl Starting {
    /// All that is new, where there is somebody who will take it.
    fn portion(&self) -> Option<Portion> {
        let waits = |stage: Stage| !matches!(stage, Stage::Due(_) | Stage::Spawning);
        let there = self.crew.iter().filter(|(_, member)| waits(member.stage)).map(|(number, _)| number);
        let instances: Vec<u32> = there.collect();
        let generation = self.generation;
        (!instances.is_empty()).then_some(Portion { generation, instances, weight: 1 })
    }
}
