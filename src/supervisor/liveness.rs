//! A serving generation that lives and does not do well: stuck, about to end by itself, or not ready by its own word.
//!
//! It is replaced as in a reload that nobody asked for, by one that starts beside it. Never is it ended before that one serves.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Supervisor;
use super::generation::{Generation, Why};
use super::news::News;
use super::policy::STEADY;

/// How it is noticed that a generation is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// It does not answer as it should.
    Answers,
    /// It does not send WATCHDOG=1, or says itself that it is stuck.
    Watchdog,
}

/// How well a generation does that serves, or has served.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// The signs that it is stuck, with what was seen.
    stuck: BTreeMap<Sign, String>,
    /// It is about to end by itself.
    leaving: bool,
    /// It has said that it is not ready.
    pub(super) unready: bool,
}

impl Condition {
    /// What another generation is started for in its place; None for one that may stay.
    pub(super) fn why(&self) -> Option<Why> {
        let leaving = self.leaving.then_some(Why::Leaving);
        leaving.or_else(|| (!self.stuck.is_empty()).then_some(Why::Stuck))
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Option<String> {
        let stuck = self.stuck.values().next().map(|why| format!("is stuck: {why}"));
        stuck
            .or_else(|| self.leaving.then(|| "has said that it is about to end".to_owned()))
            .or_else(|| self.unready.then(|| "has said that it is not ready".to_owned()))
    }
}

impl Supervisor {
    /// The serving generation is stuck: another one is started beside it.
    pub(super) fn stuck(&mut self, generation: Generation, sign: Sign, why: String, now: Instant) {
        let Some(condition) = self.condition_of(generation) else { return };
        let was_well = condition.stuck.is_empty();
        condition.stuck.insert(sign, why.clone());
        if was_well {
            self.tell(News::Stuck { generation, reason: why });
            self.replace_the_first_time(now);
        }
    }

    /// A sign that it is stuck is gone; what has been started in its place goes on.
    pub(super) fn recovered(&mut self, generation: Generation, sign: Sign) {
        let Some(condition) = self.condition_of(generation) else { return };
        if condition.stuck.remove(&sign).is_some() && condition.stuck.is_empty() {
            if condition.why().is_none() {
                self.retry_at = None;
            }
            self.tell(News::Recovered { generation });
        }
    }

    /// It is about to end by itself: the next one is started before it does.
    pub(super) fn leaving(&mut self, generation: Generation, now: Instant) {
        let Some(condition) = self.condition_of(generation).filter(|condition| !condition.leaving) else { return };
        let was_well = condition.why().is_none();
        condition.leaving = true;
        self.tell(News::Leaving { generation });
        if was_well {
            self.replace_the_first_time(now);
        }
    }

    /// It goes on serving, because nobody else does, but readiness says no.
    pub(super) fn unready(&mut self, generation: Generation) {
        match self.condition_of(generation) {
            Some(condition) if condition.unready => {}
            Some(condition) => {
                condition.unready = true;
                self.tell(News::Unready { generation });
            }
            None => self.not_ready(generation, "it has sent READY=0".to_owned()),
        }
    }

    pub(super) fn ready_again(&mut self, generation: Generation) {
        if let Some(condition) = self.condition_of(generation).filter(|condition| condition.unready) {
            condition.unready = false;
            self.tell(News::Recovered { generation });
        }
    }

    /// Of the serving generation, while zdr is not about to end it anyway.
    fn condition_of(&mut self, generation: Generation) -> Option<&mut Condition> {
        let serving = self.serving.as_mut().filter(|serving| serving.generation == generation && self.stop.is_none());
        serving.map(|serving| &mut serving.condition)
    }

    /// One that served long begins the back-off afresh; where each soon is as stuck as the one before, they come more slowly.
    fn replace_the_first_time(&mut self, now: Instant) {
        let served = self.serving.as_ref().map(|serving| now.saturating_duration_since(serving.since));
        if served >= Some(STEADY) {
            self.failures = 0;
        }
        self.replace(now);
    }

    /// Starts another one beside a generation that does not do well. One that is starting already will do.
    pub(super) fn replace(&mut self, now: Instant) {
        let under_way = self.starting.is_some() || self.awaited.is_some() || self.retry_at.is_some();
        let why = self.serving.as_ref().and_then(|serving| serving.condition.why());
        if let Some(why) = why.filter(|_| !under_way && self.stop.is_none()) {
            self.try_again(why, now);
        }
    }

    /// Why there is another try after a pause.
    pub(super) fn why_again(&self) -> Why {
        self.serving.as_ref().and_then(|serving| serving.condition.why()).unwrap_or(Why::Retry)
    }
}
