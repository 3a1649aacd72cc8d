//! Ending on purpose: a restart ends the serving generation, a stop ends zdr.

use std::mem;
use std::time::Instant;

use super::action::Action;
use super::generation::{Ticket, Until, Why};
use super::news::News;
use super::seats::{Draining, Phase, Stop};
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, tickets};

impl Supervisor {
    /// A restart stops the serving generation and starts the next in its place; connections wait meanwhile.
    pub(super) fn restart(&mut self, ticket: Ticket, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        let kill_by = now + self.policy.drain_timeout;
        self.retry_at = None;
        let mut request = self.next.take().unwrap_or_default();
        if let Some(starting) = self.starting.take() {
            let generation = starting.generation;
            request.askers.splice(0..0, starting.askers.iter().copied());
            request.command.get_or_insert_with(|| starting.command.clone());
            self.awaited = Some(generation);
            self.kill(Draining::from_starting(starting, now), "a restart was asked for");
        }
        if let Some(old) = self.serving.take() {
            self.awaited = Some(old.generation);
            self.actions.push(Action::Signal(old.generation));
            self.tell(News::Signalled { generation: old.generation });
            self.draining.push(Draining::new(old, Phase::Signalled { kill_by }, now));
        }
        self.quiesce_the_warm(now);
        request.join(ticket, Until::Serving, None);
        request.why = Why::Restart;
        self.next = Some(request);
        self.run_next(now);
    }

    /// Stop: readiness says no, then the serving generation drains, then zdr ends. Asked twice: at once.
    pub(super) fn stop(&mut self, ticket: Ticket, now: Instant) {
        if let Some(stop) = &mut self.stop {
            stop.askers.push(ticket);
            return self.stop_at_once(now);
        }
        let lame_duck = (!self.policy.lame_duck.is_zero()).then(|| now + self.policy.lame_duck);
        self.stop = Some(Stop { askers: vec![ticket], code: 0, lame_duck });
        self.retry_at = None;
        self.tell(News::Stopping);
        if let Some(request) = self.next.take() {
            self.answer(tickets(request.askers), &refused_because_stopping());
        }
        if let Some(starting) = self.starting.take() {
            self.answer(tickets(starting.askers.clone()), &refused_because_stopping());
            self.actions.push(Action::Signal(starting.generation));
            let phase = Phase::Signalled { kill_by: now + self.policy.drain_timeout };
            self.draining.push(Draining { phase, ..Draining::from_starting(starting, now) });
        }
        if lame_duck.is_none() {
            self.drain_the_last(now);
        }
    }

    pub(super) fn drain_the_last(&mut self, now: Instant) {
        if let Some(last) = self.serving.take() {
            self.actions.push(Action::Hold);
            self.draining.push(Draining::new(last, Phase::Warm { until: now }, now));
        }
        self.quiesce_the_warm(now);
    }

    fn stop_at_once(&mut self, now: Instant) {
        if let Some(serving) = self.serving.take() {
            self.draining.push(Draining::new(serving, Phase::Warm { until: now }, now));
        }
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
