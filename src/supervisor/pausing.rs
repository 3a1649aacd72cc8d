//! Holding new connections back for a while: they wait in the kernel, where nobody accepts them, and are answered later.

use std::mem;
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
    /// Who is to be told once they are held, and for how long that is then.
    askers: Vec<Ticket>,
    time: Duration,
    /// What cannot be held.
    apart: Vec<String>,
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
            (pause.until, pause.time, pause.askers) = (until, time, vec![ticket]);
            let apart = pause.apart.clone();
            return self.held(Ok(apart));
        }
        self.newest.0 += 1;
        let generation = self.newest;
        self.pause = Some(Pause { generation, until, askers: vec![ticket], time, apart: Vec::new() });
        self.actions.push(Action::Pause(generation));
    }

    /// They wait, and whoever wanted that is told which of them do not.
    pub(super) fn held(&mut self, told: Result<Vec<String>, String>) {
        let Some(pause) = &mut self.pause else { return };
        let (askers, time) = (mem::take(&mut pause.askers), pause.time);
        match told {
            Ok(apart) => {
                let held = format!("new connections are held for at most {}", format_duration(time));
                let reason = [&[held], apart.as_slice()].concat().join("; ");
                pause.apart = apart;
                self.tell(News::Paused { time });
                self.answer(askers, &Verdict::of_zdr(Outcome::Done, Cause::Paused, &reason));
            }
            Err(why) => {
                self.pause = None;
                let reason = format!("new connections cannot be held: {why}");
                self.answer(askers, &Verdict::of_zdr(Outcome::Failed, Cause::Refused, &reason));
            }
        }
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
