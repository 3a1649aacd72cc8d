//! One check: when it is asked next, whether it is under way, and what it said last.
//!
//! Never asks while anything of the last question remains: a resolver that hangs, a command that cannot be killed.

use std::mem;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Finding, PATIENCE};
use crate::config::Check;
use crate::edges::errands::Purpose;
use crate::edges::notice::{Owner, tell};
use crate::edges::probe::Inquiry;
use crate::supervisor::{Event, Health};

/// So long at least a check is kept fresh after somebody has looked.
const KEPT: Duration = Duration::from_secs(30);

/// Said of a check that has no answer yet.
const NOT_YET: &str = "not checked yet";

/// A check and where it stands.
#[derive(Debug)]
pub(super) struct Round {
    check: Check,
    position: usize,
    inquiry: Inquiry,
    tell: mpsc::UnboundedSender<(usize, Said)>,
    /// When it was asked last.
    begun: Option<Instant>,
    under_way: UnderWay,
    /// It is asked again as soon as nothing is under way.
    is_due_now: bool,
    /// The last answer was good, and is not from long ago.
    was_well: bool,
    answer: Option<Answer>,
    /// When somebody looked last.
    looked_at: Option<Instant>,
}

/// What a question has come to.
#[derive(Debug)]
pub(super) enum Said {
    /// An answer, good or not, or that there was none in time.
    Answer(Result<String, String>),
    /// Nothing remains of it.
    Over,
}

/// Whether there is a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnderWay {
    No,
    /// It may be answered in time.
    Asked,
    /// It was, or was too late, and something of it remains.
    Remains,
}

#[derive(Debug)]
struct Answer {
    state: Health,
    message: String,
    at: Instant,
}

impl Round {
    pub(super) fn of(
        check: Check,
        position: usize,
        owner: &Owner,
        tell: &mpsc::UnboundedSender<(usize, Said)>,
    ) -> Self {
        let purpose = Purpose::Check(position);
        let inquiry = Inquiry { spec: check.spec.clone(), limit: check.timeout, purpose, owner: owner.clone() };
        let (tell, under_way) = (tell.clone(), UnderWay::No);
        let (begun, answer, looked_at) = (None, None, None);
        let (is_due_now, was_well) = (false, false);
        Self { check, position, inquiry, tell, begun, under_way, is_due_now, was_well, answer, looked_at }
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    /// However lately it was asked.
    pub(super) fn is_due_now(&mut self) {
        self.is_due_now = true;
    }

    /// What it said once is no sign of how it is now.
    pub(super) fn forget_that_it_was_well(&mut self) {
        self.was_well = false;
    }

    pub(super) fn looked_at(&mut self, now: Instant) {
        self.looked_at = Some(now);
    }

    /// Asks if somebody has looked lately and the last answer has had its time.
    pub(super) fn begin_if_due(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        (self.begun, self.under_way, self.is_due_now) = (Some(now), UnderWay::Asked, false);
        let (inquiry, tell, position) = (self.inquiry.clone(), self.tell.clone(), self.position);
        tokio::spawn(async move {
            let (answer, mut remains) = inquiry.put().await;
            if let Some(answer) = answer {
                let _ = tell.send((position, Said::Answer(answer)));
            }
            remains.gone().await;
            let _ = tell.send((position, Said::Over));
        });
    }

    /// When it is to be asked next; None while it is under way, and when nobody will have looked lately by then.
    pub(super) fn due(&self) -> Option<Instant> {
        let until = self.looked_at? + self.kept();
        let begun = self.begun.filter(|_| !self.is_due_now);
        let due = begun.map_or(self.looked_at, |begun| Some(begun + self.check.interval))?;
        (self.under_way == UnderWay::No && due.max(self.looked_at?) < until).then_some(due)
    }

    pub(super) fn said(&mut self, said: Said, now: Instant) {
        match said {
            Said::Answer(answer) => {
                self.under_way = UnderWay::Remains;
                self.answered(answer, now);
            }
            Said::Over => {
                self.under_way = UnderWay::No;
                let kept = self.kept();
                self.looked_at = self.looked_at.filter(|looked_at| *looked_at + kept > now);
            }
        }
    }

    /// Another state than before is a line of the story; so is a first one that is not good.
    fn answered(&mut self, answer: Result<String, String>, now: Instant) {
        let (state, message) = match answer {
            Ok(message) => (Health::Healthy, message),
            Err(message) if self.check.critical => (Health::Unhealthy, message),
            Err(message) => (Health::Degraded, message),
        };
        let before = self.answer.as_ref().map_or(Health::Healthy, |answer| answer.state);
        let was_well = mem::replace(&mut self.was_well, state == Health::Healthy);
        if state != before {
            let (name, message, critical) = (self.check.name.clone(), message.clone(), self.check.critical);
            tell(&self.inquiry.owner, Event::Checked { name, state, message, critical, was_well });
        }
        self.answer = Some(Answer { state, message, at: now });
    }

    /// Until when somebody who looks then may have to wait for an answer; None where the last one is not too old, or the
    /// next one will not come soon.
    pub(super) fn is_awaited_until(&self, look: Instant) -> Option<Instant> {
        let is_fresh = |answer: &Answer| answer.at + self.kept() > look;
        match self.answer.as_ref().is_some_and(is_fresh) || self.under_way == UnderWay::Remains {
            true => None,
            false => self.begun.map(|begun| begun + PATIENCE),
        }
    }

    pub(super) fn finding(&self, now: Instant) -> Finding {
        let (name, critical) = (self.check.name.clone(), self.check.critical);
        match &self.answer {
            Some(Answer { state, message, at }) => {
                let age = now.saturating_duration_since(*at);
                Finding { name, state: *state, message: message.clone(), critical, age }
            }
            None => {
                Finding { name, state: Health::Degraded, message: NOT_YET.to_owned(), critical, age: Duration::ZERO }
            }
        }
    }

    /// How long it is asked again and again after somebody has looked.
    fn kept(&self) -> Duration {
        (self.check.interval * 3).max(KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::notice::Notice;

    #[tokio::test]
    async fn it_tells_whether_it_was_well_before_and_what_is_long_ago_does_not_count() {
        let (owner, mut notices) = mpsc::unbounded_channel();
        let (tell, _said) = mpsc::unbounded_channel();
        let mut round = Round::of(Check::parse("a=exec:x,critical").unwrap(), 0, &owner, &tell);
        let now = Instant::now();
        let mut was_well = |round: &mut Round, answer: Result<&str, &str>| {
            round.said(Said::Answer(answer.map(str::to_owned).map_err(str::to_owned)), now);
            match notices.try_recv().unwrap() {
                Notice::Happened(Event::Checked { was_well, .. }) => was_well,
                other => panic!("{other:?}"),
            }
        };
        assert!(!was_well(&mut round, Err("no")), "nobody knows");
        assert!(!was_well(&mut round, Ok("")));
        assert!(was_well(&mut round, Err("no")));
        assert!(!was_well(&mut round, Ok("")));
        round.forget_that_it_was_well();
        assert!(!was_well(&mut round, Err("no")), "it may have failed since");
    }

    #[tokio::test]
    async fn it_is_asked_again_until_nobody_has_looked_for_long_and_then_nothing_is_due() {
        let (owner, _notices) = mpsc::unbounded_channel();
        let (tell, _said) = mpsc::unbounded_channel();
        for (given, kept) in [("a=exec:x,interval=4s", 30), ("a=exec:x,interval=20s", 60)] {
            let mut round = Round::of(Check::parse(given).unwrap(), 0, &owner, &tell);
            let begun = Instant::now();
            assert_eq!(round.due(), None, "nobody has looked");
            round.looked_at(begun);
            let mut asked = Vec::new();
            while let Some(due) = round.due() {
                round.begin_if_due(due);
                assert_eq!(round.due(), None, "it is under way");
                round.said(Said::Answer(Ok(String::new())), due);
                round.said(Said::Over, due);
                asked.push((due - begun).as_secs());
            }
            let interval = round.check.interval.as_secs();
            assert_eq!(asked, (0..kept).step_by(usize::try_from(interval).unwrap()).collect::<Vec<_>>());
            let later = begun + Duration::from_secs(1000);
            round.looked_at(later);
            assert!(round.due().is_some_and(|due| due <= later), "a look begins it again at once");
        }
    }

    #[tokio::test]
    async fn one_that_was_under_way_for_long_is_not_asked_again_for_nobody() {
        let (owner, _notices) = mpsc::unbounded_channel();
        let (tell, _said) = mpsc::unbounded_channel();
        let mut round = Round::of(Check::parse("a=exec:x").unwrap(), 0, &owner, &tell);
        let begun = Instant::now();
        round.looked_at(begun);
        round.begin_if_due(begun);
        round.said(Said::Over, begun + Duration::from_secs(100));
        assert_eq!(round.due(), None);
    }
}
