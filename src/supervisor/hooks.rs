//! Commands of the user's at four moments of a generation: two of them can say no, the other two can only fail.

use std::mem;
use std::time::Instant;

use super::action::Action;
use super::generation::{Generation, Ticket, Why};
use super::news::News;
use super::policy::Hook;
use super::seats::{Serving, Step};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Starting, Supervisor};

/// A generation is gone, and the command that is run after that has not ended.
#[derive(Debug)]
pub(super) struct Farewell {
    generation: Generation,
    watchers: Vec<Ticket>,
    verdict: Verdict,
}

impl Farewell {
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }
}

impl Supervisor {
    pub(super) fn run_hook(&mut self, hook: Hook, generation: Generation, other: Option<Generation>, why: Option<Why>) {
        self.actions.push(Action::RunHook { hook, generation, other, why });
    }

    pub(super) fn hook_ended(&mut self, hook: Hook, generation: Generation, failure: Option<String>, now: Instant) {
        self.tell(News::Hook { generation, hook, failure: failure.clone() });
        match hook {
            Hook::BeforeStart | Hook::BeforeCutOver => {
                let waits = |at: &mut Starting| at.generation == generation && at.step == Step::Hook(hook);
                let Some(mut starting) = self.starting.take_if(waits) else { return };
                if let Some(failure) = failure {
                    let why = format!("does not serve: its {hook} hook {failure}");
                    return self.give_up(starting, None, Cause::Hook, &why, now);
                }
                let admitted = hook == Hook::BeforeCutOver;
                starting.step = if admitted { Step::Admitted } else { Step::Proving };
                self.starting = Some(starting);
                self.admit(now);
            }
            Hook::AfterServing => {
                let serving = self.serving.as_mut().filter(|serving| serving.generation == generation);
                if let Some((due, verdict)) = serving.and_then(|serving| serving.owed.take()) {
                    self.settle(due, verdict.unless(hook, failure));
                    self.run_next(now);
                }
            }
            Hook::AfterDrain => {
                let its = |farewell: &Farewell| farewell.generation == generation;
                let Some(at) = self.farewells.iter().position(its) else { return };
                let Farewell { watchers, verdict, .. } = self.farewells.swap_remove(at);
                if !watchers.is_empty() {
                    self.settle(watchers, verdict.unless(hook, failure));
                }
            }
        }
    }

    /// The verdict is due now, or once the command that is run after it serves has ended.
    pub(super) fn after_serving(&mut self, due: Vec<Ticket>, verdict: Verdict, before: Option<Generation>) {
        let Some(serving) = &mut self.serving else { return };
        if serving.plan.policy.hooks.contains(&Hook::AfterServing) {
            serving.owed = Some((due, verdict));
            let (generation, why) = (serving.generation, serving.why);
            self.run_hook(Hook::AfterServing, generation, before, Some(why));
        } else {
            self.settle(due, verdict);
        }
    }

    /// It is gone, and whoever waits for that is told once the command that is run then has ended.
    pub(super) fn say_farewell(&mut self, generation: Generation, watchers: Vec<Ticket>, verdict: Verdict) {
        self.farewells.push(Farewell { generation, watchers, verdict });
        let (next, why) = match (&self.serving, &self.stop) {
            (Some(serving), _) => (Some(serving.generation), Some(serving.why)),
            (None, Some(_)) => (None, None),
            (None, None) => {
                let starting = self.starting.as_ref().map(|starting| starting.why);
                let why = starting.or(self.preparing.as_ref().map(|request| request.why));
                (None, Some(why.unwrap_or(Why::Crash)))
            }
        };
        self.run_hook(Hook::AfterDrain, generation, next, why);
    }

    /// zdr ends at once, whatever the commands say that are run after a drain.
    pub(super) fn cut_farewells_short(&mut self) {
        for Farewell { watchers, verdict, .. } in mem::take(&mut self.farewells) {
            self.answer(
                watchers,
                &verdict.unless(Hook::AfterDrain, Some("was ended, as stop was asked for twice".to_owned())),
            );
        }
    }

    /// It serves no more, whatever the command says that is run after it serves.
    pub(super) fn settle_what_is_owed(&mut self, left: &mut Serving, what: &str) {
        let Some((due, _)) = left.owed.take().filter(|(due, _)| !due.is_empty()) else { return };
        let reason = format!("generation {} {what} before its after-serving hook had ended", left.generation);
        let verdict = Verdict::of_generation(Cause::Crashed, left.generation, reason);
        self.settle(due, Verdict { outcome: Outcome::Failed, ..verdict });
    }
}

impl Verdict {
    /// What was asked for was done, but the command that was to be run after it was not.
    fn unless(self, hook: Hook, failure: Option<String>) -> Self {
        match failure {
            None => self,
            Some(failure) => {
                let reason = format!("{}, but its {hook} hook {failure}", self.reason);
                Self { outcome: Outcome::Failed, cause: Cause::Hook, reason, ..self }
            }
        }
    }
}
