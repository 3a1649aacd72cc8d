//! Ending on purpose: a restart ends the serving generation, a stop ends zdr.

use std::mem;
use std::time::Instant;

use super::action::Action;
use super::generation::{Ticket, Until, Why};
use super::news::News;
use super::seats::{Draining, Left, Phase, Request, Stop};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, tickets};

impl Supervisor {
    /// A restart stops the serving generation and starts the next in its place; connections wait meanwhile. What is wrong
    /// with the settings is told before anything is stopped.
    pub(super) fn restart(&mut self, ticket: Ticket) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        let starting = self.starting.as_ref().filter(|starting| starting.plan.command_was_given);
        let given = self.next.as_ref().and_then(|next| next.command.clone());
        let command = given.or_else(|| starting.map(|starting| starting.plan.command.clone()));
        let askers = vec![(ticket, Until::Serving)];
        self.prepare(Request { askers, command, ..Request::unasked(Why::Restart) });
    }

    /// It is known what to start, and what is there ends first. Whoever waits for another start waits for this one.
    pub(super) fn make_room(&mut self, mut restart: Request, now: Instant) {
        self.retry_at = None;
        self.prepare_anew();
        let mut askers = Vec::new();
        if let Some(starting) = self.starting.take() {
            askers.extend(starting.askers.iter().copied());
            self.awaited = Some(starting.generation);
            self.kill(Draining::from_starting(&starting, now), "a restart was asked for");
        }
        askers.extend(self.next.take().into_iter().flat_map(|next| next.askers));
        restart.askers.splice(0..0, askers);
        if let Some(mut old) = self.serving.take() {
            let generation = old.generation;
            self.grow_no_more();
            self.settle_what_is_owed(&mut old, "was restarted");
            self.awaited = Some(generation);
            self.actions.push(Action::Signal(generation));
            self.tell(News::Signalled { generation });
            let kill_by = now + old.plan.policy.drain_timeout;
            self.draining.push(Draining::new(old, Phase::Signalled { kill_by }, now));
        }
        self.quiesce_the_warm(now);
        self.next = Some(restart);
        self.run_next(now);
    }

    /// What runs next is to be as the settings are then.
    pub(super) fn prepare_anew(&mut self) {
        if let Some((generation, _)) = self.next.as_mut().and_then(|next| next.prepared.take()) {
            self.actions.push(Action::Release(generation));
        }
    }

    /// Stop: readiness says no, then the serving generation drains, then zdr ends. Asked twice: at once.
    pub(super) fn stop(&mut self, ticket: Ticket, now: Instant) {
        if let Some(stop) = &mut self.stop {
            stop.askers.push(ticket);
            stop.at_once = true;
            return self.stop_at_once(now);
        }
        let lame_duck = self.plan.as_ref().map(|plan| plan.policy.lame_duck).filter(|time| !time.is_zero());
        let lame_duck = lame_duck.map(|time| now + time);
        self.stop = Some(Stop { askers: vec![ticket], code: 0, lame_duck, at_once: false });
        self.retry_at = None;
        self.tell(News::Stopping);
        self.give_up_what_is_to_come(now);
        if lame_duck.is_none() {
            self.drain_the_last(now);
        }
    }

    /// zdr ends because nothing is started again.
    pub(super) fn end_with(&mut self, code: u8, now: Instant) {
        if self.stop.is_none() {
            self.stop = Some(Stop::with_code(code));
            self.retry_at = None;
            self.give_up_what_is_to_come(now);
            self.drain_the_last(now);
        }
    }

    fn give_up_what_is_to_come(&mut self, now: Instant) {
        self.let_go();
        for finisher in
            self.draining.extract_if(.., |it| it.finishes_for.is_some() && !it.crew.lives()).collect::<Vec<_>>()
        {
            self.finished_for(finisher.finishes_for);
        }
        let refused = refused_because_stopping();
        self.prepare_anew();
        if let Some(request) = self.next.take() {
            self.answer(tickets(request.askers), &refused);
        }
        if let Some((askers, _)) = self.scale.take() {
            self.answer(askers, &refused);
        }
        self.grow_no_more();
        if let Some(starting) = self.starting.take() {
            self.answer(tickets(starting.askers.clone()), &refused);
            let draining = Draining::from_starting(&starting, now);
            if !draining.crew.lives() {
                return self.kill(draining, "");
            }
            if starting.has_a_share {
                self.actions.extend(self.serving.as_ref().map(|serving| Action::Steer(vec![serving.portion()])));
            }
            self.actions.push(Action::Signal(starting.generation));
            let kill_by = now + draining.plan.policy.drain_timeout;
            self.draining.push(Draining { phase: Phase::Signalled { kill_by }, ..draining });
        }
    }

    pub(super) fn drain_the_last(&mut self, now: Instant) {
        if let Some(mut last) = self.serving.take() {
            self.settle_what_is_owed(&mut last, "was stopped");
            self.actions.push(Action::Hold);
            self.draining.push(Draining::new(last, Phase::Warm { until: now }, now));
        }
        self.quiesce_the_warm(now);
    }

    fn stop_at_once(&mut self, now: Instant) {
        if let Some(mut serving) = self.serving.take() {
            self.settle_what_is_owed(&mut serving, "was stopped");
            self.draining.push(Draining::new(serving, Phase::Warm { until: now }, now));
        }
        self.left.clear();
        self.cut_farewells_short();
        for draining in mem::take(&mut self.draining) {
            if draining.phase == Phase::Killed {
                self.draining.push(draining);
            } else {
                self.kill(draining, "stop was asked for twice");
            }
        }
    }

    pub(super) fn exit_if_nobody_is_left(&mut self) {
        let nobody = self.starting.is_none() && self.serving.is_none() && self.draining.is_empty();
        let nobody = nobody && self.farewells.is_empty() && !self.left.iter().any(Left::is_of_a_pause);
        if let Some(stop) = self.stop.take_if(|_| nobody) {
            let verdict = Verdict::of_zdr(Outcome::Done, Cause::Stopped, "stopped");
            self.answer(stop.askers, &verdict);
            self.actions.push(Action::Exit(stop.code));
        }
    }
}

/// The verdict of whatever is asked for too late.
pub(super) fn refused_because_stopping() -> Verdict {
    Verdict::of_zdr(Outcome::Failed, Cause::Stopping, "zdr is stopping")
}
