//! What is due when: deadlines, and one start after the other.
//!
//! Reads no clock; it is told the time with every event.

use std::time::Instant;

use super::Supervisor;
use super::action::{Action, Place};
use super::crew::{Crew, Stage};
use super::generation::Instance;
use super::seats::{Request, Starting, Step};

impl Supervisor {
    /// When `handle` wants to be told that time has passed.
    pub fn next_deadline(&self) -> Option<Instant> {
        let drains = self.draining.iter().filter_map(|draining| draining.phase.deadline());
        let serves = self.serving.iter().flat_map(|serving| {
            let replaced = serving.expires.filter(|_| self.stop.is_none());
            [serving.crew.deadline(), serving.trial, replaced].into_iter().flatten()
        });
        let others = [
            self.starting.as_ref().and_then(Starting::deadline),
            self.retry_at,
            self.pause.as_ref().map(|pause| pause.until),
            self.stop.as_ref().filter(|_| self.serving.is_some()).and_then(|stop| stop.lame_duck),
        ];
        drains.chain(serves).chain(others.into_iter().flatten()).min()
    }

    pub(super) fn time_has_passed(&mut self, now: Instant) {
        if self.stop.as_ref().and_then(|stop| stop.lame_duck).is_some_and(|until| until <= now) {
            self.drain_the_last(now);
        }
        if self.pause.as_ref().is_some_and(|pause| pause.until <= now) {
            self.let_go();
        }
        self.the_late(now);
        self.end_trial_if_due(now);
        self.expire_if_due(now);
        self.drained_too_long(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.launch(Request::unasked(self.why_again()));
        }
    }

    /// What is due is started, one process at a time, so that others have their turn in between; of a generation that
    /// starts, as many at a time as were asked for.
    pub(super) fn spawn_the_due(&mut self, now: Instant) {
        let crews = self.draining.iter().map(|at| &at.crew).chain(self.serving.iter().map(|at| &at.crew));
        if crews.chain(self.starting.iter().map(|at| &at.crew)).any(Crew::is_spawning) {
            return;
        }
        let beside = if self.serving.is_some() { Place::Beside } else { Place::Steered };
        let finishers = self.draining.iter_mut().filter_map(|at| {
            let dead = at.finishes_for?;
            Some((at.generation, &at.plan, &mut at.crew, Place::Of(dead)))
        });
        let serving = self.serving.iter_mut().map(|at| (at.generation, &at.plan, &mut at.crew, Place::Beside));
        let starting = self.starting.as_mut().filter(|at| at.may_start_another());
        let starting = starting.map(|at| (at.generation, &at.plan, &mut at.crew, beside));
        for (generation, plan, crew, place) in finishers.chain(serving).chain(starting) {
            let Some(number) = crew.next_due(now) else { continue };
            if let Some(member) = crew.get_mut(number) {
                member.stage = Stage::Spawning;
            }
            let like = match place {
                Place::Of(dead) => self.left.iter().find(|left| left.generation == dead).map(|left| left.like),
                Place::Beside | Place::Steered => None,
            };
            let instance = Instance { generation, number };
            self.actions.push(Action::Spawn { instance, command: plan.command.clone(), place, like });
            return;
        }
    }
}

impl Starting {
    fn may_start_another(&self) -> bool {
        self.crew.proving() < self.plan.policy.surge.unwrap_or(u32::MAX) && !matches!(self.step, Step::Hook(_))
    }

    /// When one of it is to be started, or has to be ready. Those whose turn comes after another's wait for that.
    fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Hook(_) => None,
            _ if self.may_start_another() => self.crew.deadline(),
            _ => self.crew.late_by(),
        }
    }
}
