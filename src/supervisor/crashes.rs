//! The serving generation dies, or an instance of it: who has the connections then, and what is started again.

use std::time::Instant;

use super::action::Action;
use super::crew::Stage;
use super::generation::{Exit, Instance, Why};
use super::liveness::Condition;
use super::news::News;
use super::policy::{QueueMode, pause};
use super::seats::{Blame, Draining, Phase, Serving, Starting, Step};
use super::verdict::Cause;
use super::{Portion, Supervisor, format_duration};

impl Supervisor {
    /// An instance of the serving generation died. Where others can serve, it is started again alone; else the generation
    /// has died with it.
    pub(super) fn one_has_died(&mut self, number: u32, exit: Exit, now: Instant) {
        let Some(mut serving) = self.serving.take() else { return };
        let Some(dead) = serving.crew.remove(number) else {
            self.serving = Some(serving);
            return;
        };
        serving.condition.forget(number);
        let served = now.saturating_duration_since(dead.since);
        let failures = match dead.is_ready() && served >= serving.plan.policy.min_uptime {
            true => 0,
            false => dead.failures,
        };
        if serving.crew.ready().is_empty() {
            return self.crashed(serving, number, failures, exit, now);
        }
        self.crashes += u64::from(dead.is_ready());
        self.serving = Some(serving);
        self.lose(number, &exit.to_string(), Some(exit), failures, now);
    }

    /// An instance is gone, and the others of its generation serve.
    pub(super) fn lose(&mut self, number: u32, how: &str, exit: Option<Exit>, failures: u32, now: Instant) {
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
        if again
            && !self.is_exhausted(exit, now)
            && let Some(serving) = &mut self.serving
        {
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

    /// What died of a generation whose others have to go with it. Where they get nothing new, they finish what they have.
    fn put_away(&mut self, dead: Serving, gets_nothing_new: bool, now: Instant) {
        match (dead.crew.lives(), gets_nothing_new) {
            (true, true) => self.drain(Draining { is_bereft: true, ..Draining::new(dead, Phase::Killed, now) }, now),
            (true, false) => {
                // Where new connections still come to it, what waits is for the next, however it did.
                let condition = Condition::default();
                let draining = Draining { condition, is_bereft: false, ..Draining::new(dead, Phase::Killed, now) };
                self.kill(draining, "the others of its generation have died");
            }
            (false, true) => self.leave(dead.generation, dead.plan, dead.generation),
            (false, false) => self.kill_and_release(dead.generation),
        }
    }

    /// The serving generation died with this instance. The old one has the connections back if it is still warm; else the one
    /// that is starting gets them; else they wait in the queue for the next try.
    fn crashed(&mut self, mut dead: Serving, number: u32, failures: u32, exit: Exit, now: Instant) {
        let generation = dead.generation;
        let served = now.saturating_duration_since(dead.since);
        let wanted = dead.plan.policy.restart.wants(exit);
        let output = dead.output.clone();
        let tell = |rules: &mut Self, then: String| {
            rules.tell(News::Crashed { generation, exit: exit.to_string(), then, output: output.clone() });
        };
        self.crashes += 1;
        self.retry_at = None;
        self.grow_no_more();
        self.settle_what_is_owed(&mut dead, &exit.to_string());
        let what = format!("{exit} {served:.1?} after its promotion");
        let blame = Blame { generation, cause: Cause::Crashed, what, output: output.clone() };
        if self.stop.is_some() {
            self.put_away(dead, false, now);
        } else if let Some((warm, watchers)) = self.take_the_warm() {
            self.actions.push(Action::Steer(vec![warm.portion()]));
            tell(self, format!("generation {} serves again", warm.generation));
            self.return_to(warm, watchers, blame);
            self.put_away(dead, true, now);
            self.run_next(now);
        } else if let Some(portion) = self.starting.as_ref().and_then(Starting::portion) {
            let then = format!("connections wait for generation {}", portion.generation);
            self.actions.push(Action::Steer(vec![portion]));
            tell(self, then);
            self.put_away(dead, true, now);
        } else if self.starting.is_some() {
            tell(self, "connections wait for the generation that is about to start".to_owned());
            self.put_away(dead, false, now);
        } else if !dead.crew.is_empty() && dead.trial.is_none() {
            tell(self, "connections wait for others of it that are on their way".to_owned());
            self.starts_again(dead, wanted.then_some((number, failures)), exit, now);
        } else if !wanted {
            tell(self, "it is not started again".to_owned());
            self.put_away(dead, false, now);
            self.end_for_good("has ended for good", Some(exit), now);
        } else {
            let on_trial = dead.trial.is_some();
            if served >= dead.plan.policy.min_uptime {
                self.failures = 0;
            }
            self.put_away(dead, false, now);
            let then = if on_trial { "the one before it is started again" } else { "it is started again" };
            tell(self, then.to_owned());
            let goes_back = on_trial && self.launch_the_one_before(blame);
            if !goes_back && !self.is_exhausted(Some(exit), now) {
                self.try_again(Why::Crash, now);
            }
        }
    }

    /// Some of it are on their way, and may have taken connections already: it starts again with them, under its number,
    /// and what waits in its slots waits for them.
    fn starts_again(&mut self, dead: Serving, again: Option<(u32, u32)>, exit: Exit, now: Instant) {
        let Serving { generation, plan, mut crew, output, .. } = dead;
        if let Some((number, failures)) = again {
            self.actions.push(Action::Bury(Instance { generation, number }));
            crew.is_due(number, now + pause(failures), failures + 1);
        }
        self.starting = Some(Starting {
            generation,
            plan,
            crew,
            askers: Vec::new(),
            since: now,
            why: Why::Crash,
            target: None,
            blame: None,
            step: Step::Admitted,
            has_a_share: false,
            output,
        });
        if again.is_some() {
            self.is_exhausted(Some(exit), now);
        }
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
