//! The end of a generation: kept warm for a while, then quiesced, signalled, and killed if it must be.

use std::mem;
use std::time::Instant;

use super::action::Action;
use super::generation::{Exit, Generation, Instance, Ticket, Why};
use super::news::News;
use super::policy::Hook;
use super::seats::{Draining, Phase, Serving};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, format_duration};

impl Supervisor {
    /// The old generation keeps running for a while, so that it can have the connections back. One that does not do well,
    /// or was the same release, is no use for that.
    pub(super) fn keep_warm(&mut self, old: Serving, watchers: Vec<Ticket>, why: Why, now: Instant) {
        let policy = self.serving.as_ref().map(|serving| &serving.plan.policy);
        let keep = policy.filter(|_| old.condition.why().is_none() && why.is_for_something_new());
        let until = now + keep.map(|policy| policy.bake_keep).unwrap_or_default();
        self.draining.push(Draining { watchers, ..Draining::new(old, Phase::Warm { until }, now) });
        if until == now {
            self.quiesce_the_warm(now);
        }
    }

    /// It is quiesced: it gets nothing new, its queue runs empty, its requests finish.
    pub(super) fn quiesce_the_warm(&mut self, now: Instant) {
        for draining in &mut self.draining {
            if matches!(draining.phase, Phase::Warm { .. }) {
                let signal_by = now + draining.plan.policy.drain_timeout;
                draining.phase = Phase::Quiescing { signal_by };
                self.actions.push(Action::Quiesce(draining.generation));
            }
        }
    }

    /// One that lives and gets nothing new any more, and will not get it back.
    pub(super) fn drain(&mut self, mut draining: Draining, now: Instant) {
        draining.phase = Phase::Quiescing { signal_by: now + draining.plan.policy.drain_timeout };
        self.actions.push(Action::Quiesce(draining.generation));
        self.draining.push(draining);
    }

    pub(super) fn connections(&mut self, generation: Generation, open: usize, busy: usize) {
        if self.draining.iter().any(|draining| draining.generation == generation) {
            self.tell(News::Draining { generation, open, busy });
        }
    }

    /// Quiet: only now is it asked to finish.
    pub(super) fn quiet(&mut self, generation: Generation, now: Instant) {
        let Some(draining) = self.draining.iter_mut().find(|draining| draining.generation == generation) else {
            return;
        };
        if matches!(draining.phase, Phase::Quiescing { .. }) {
            draining.phase = Phase::Signalled { kill_by: now + draining.plan.policy.drain_timeout };
            self.actions.push(Action::Signal(generation));
            self.tell(News::Signalled { generation });
        }
    }

    /// What one that fails wrote last says why.
    pub(super) fn wrote(&mut self, instance: Instance, lines: Vec<String>) {
        if let Some(output) = self.seated(instance.generation).and_then(|seated| seated.output) {
            *output = lines;
        }
    }

    /// An instance of a draining generation has ended; with the last of them, so has the generation.
    pub(super) fn one_has_drained(&mut self, instance: Instance, exit: Exit, now: Instant) {
        let its = |draining: &Draining| draining.generation == instance.generation;
        let Some(at) = self.draining.iter().position(its) else { return };
        let draining = &mut self.draining[at];
        draining.crew.remove(instance.number);
        draining.is_bereft |= matches!(draining.phase, Phase::Warm { .. } | Phase::Quiescing { .. });
        if draining.crew.is_empty() {
            let draining = self.draining.swap_remove(at);
            self.ended(draining, &exit.to_string(), now);
        }
    }

    pub(super) fn ended(&mut self, draining: Draining, exit: &str, now: Instant) {
        let Draining { generation, watchers, .. } = draining;
        let after = now.saturating_duration_since(draining.since);
        self.tell(News::Ended { generation, exit: exit.to_owned(), after });
        let left_something = draining.is_bereft || draining.condition.why().is_some();
        let unfinished = left_something && self.awaited != Some(generation);
        let waits = self.stop.as_ref().is_none_or(|stop| !stop.at_once);
        let hook = waits && draining.has_served && draining.plan.policy.hooks.contains(&Hook::AfterDrain);
        if unfinished && draining.finishes_for.is_none() {
            self.leave(generation, draining.plan, generation);
        } else {
            self.kill_and_release(generation);
        }
        if self.awaited == Some(generation) {
            self.awaited = None;
            self.run_next(now);
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
        if hook {
            self.say_farewell(generation, watchers, verdict);
        } else if !watchers.is_empty() {
            self.settle(watchers, verdict);
        }
    }

    pub(super) fn drained_too_long(&mut self, now: Instant) {
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
    }

    /// Its queue did not run empty: it is signalled all the same. It did not end: it is killed with its whole tree.
    fn out_of_time(&mut self, mut draining: Draining, now: Instant) {
        let time = draining.plan.policy.drain_timeout;
        if matches!(draining.phase, Phase::Quiescing { .. }) {
            let generation = draining.generation;
            draining.phase = Phase::Signalled { kill_by: now + time };
            self.draining.push(draining);
            self.actions.push(Action::Signal(generation));
            self.tell(News::Signalled { generation });
        } else {
            self.kill(draining, &format!("it had not ended {} after the signal", format_duration(time)));
        }
    }

    /// It is reaped when it has ended; one that has no process is gone at once.
    pub(super) fn kill(&mut self, draining: Draining, reason: &str) {
        let generation = draining.generation;
        self.actions.push(Action::Kill(generation));
        if draining.crew.lives() {
            self.tell(News::Killed { generation, reason: reason.to_owned() });
            self.draining.push(Draining { phase: Phase::Killed, ..draining });
        } else {
            self.actions.push(Action::Release(generation));
            self.awaited.take_if(|awaited| *awaited == generation);
            self.finished_for(draining.finishes_for);
        }
    }
}
