//! Holding new connections back for a while: they wait in the kernel, where nobody accepts them, and are answered later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::action::Action;
use super::format_duration;
use super::generation::{Generation, Ticket};
use super::news::News;
use super::seats::Left;
use super::stopping::refused_because_stopping;
use super::verdict::{Cause, Outcome, Verdict};

/// New connections are held.
#[derive(Debug)]
pub(super) struct Pause {
    /// The number under which they wait; it has no process.
    generation: Generation,
    pub(super) until: Instant,
}

impl Supervisor {
    /// New connections wait, but not for ever. Neither this nor its end is remembered as the last verdict: what a failed
    /// reload has left behind is still so.
    pub(super) fn pause(&mut self, ticket: Ticket, time: Duration, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        if self.serving.is_none() {
            let why = "nothing serves, so connections wait already";
            return self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Failed, Cause::Refused, why));
        }
        let until = now + time;
        if let Some(pause) = &mut self.pause {
            pause.until = until;
        } else {
            self.newest.0 += 1;
            self.pause = Some(Pause { generation: self.newest, until });
            self.actions.push(Action::Pause(self.newest));
        }
        self.tell(News::Paused { time });
        let reason = format!("new connections are held for at most {}", format_duration(time));
        self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Done, Cause::Paused, &reason));
    }

    /// They wait no longer.
    pub(super) fn resume(&mut self, ticket: Ticket) {
        let reason = match self.pause {
            Some(_) => "new connections are held no longer",
            None => "new connections were not held",
        };
        self.let_go();
        self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Done, Cause::Resumed, reason));
    }

    /// What is new goes to whoever serves; what has waited is counted, and finished by one more instance.
    pub(super) fn let_go(&mut self) {
        let Some(Pause { generation, .. }) = self.pause.take() else { return };
        self.actions.push(Action::Resume);
        self.tell(News::Resumed);
        if let (Some(plan), Some(like)) = (&self.plan, self.current) {
            self.actions.push(Action::LookBehind(generation));
            self.left.push(Left { generation, plan: Arc::clone(plan), like });
        }
    }
}
