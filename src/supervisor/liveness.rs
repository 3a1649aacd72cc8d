//! A serving generation that lives and does not do well: stuck, about to end by itself, or not ready by its own word.
//!
//! It is replaced as in a reload that nobody asked for, by one that starts beside it. Never is it ended before that one serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Supervisor;
use super::crew::Crew;
use super::generation::{Generation, Instance, Why};
use super::news::News;
use super::verdict::Cause;

/// How it is noticed that a generation is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// It does not answer as it should.
    Answers,
    /// This instance does not send WATCHDOG=1, or says itself that it is stuck.
    Watchdog(u32),
}

/// How well a generation does that serves, or has served.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// The signs that it is stuck, with what was seen.
    stuck: BTreeMap<Sign, String>,
    /// It is about to end by itself.
    leaving: bool,
    /// It has grown too large or too old, with what was seen.
    worn: Option<(Why, String)>,
    /// The instances that have said that they are not ready.
    unready: BTreeSet<u32>,
}

impl Condition {
    /// What another generation is started for in its place; None for one that may stay.
    pub(super) fn why(&self) -> Option<Why> {
        let leaving = self.leaving.then_some(Why::Leaving);
        let stuck = (!self.stuck.is_empty()).then_some(Why::Stuck);
        leaving.or(stuck).or_else(|| self.worn.as_ref().map(|(why, _)| *why))
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Option<String> {
        let stuck = self.stuck.values().next().map(|why| format!("is stuck: {why}"));
        stuck
            .or_else(|| self.leaving.then(|| "has said that it is about to end".to_owned()))
            .or_else(|| (!self.unready.is_empty()).then(|| "has said that it is not ready".to_owned()))
    }

    /// True where every instance that could serve has said that it is not ready.
    pub(super) fn is_unready(&self, crew: &Crew) -> bool {
        !self.unready.is_empty() && crew.ready().iter().all(|number| self.unready.contains(number))
    }

    /// An instance is gone, and what it said of itself with it.
    pub(super) fn forget(&mut self, number: u32) {
        self.unready.remove(&number);
        self.stuck.remove(&Sign::Watchdog(number));
    }
}

impl Supervisor {
    /// The serving generation is stuck: the one before has the connections back if it is on trial, else another one is
    /// started beside it.
    pub(super) fn stuck(&mut self, generation: Generation, sign: Sign, why: &str, now: Instant) {
        let Some(condition) = self.condition_of(generation) else { return };
        let was_well = condition.stuck.is_empty();
        condition.stuck.insert(sign, why.to_owned());
        if was_well {
            self.tell(News::Stuck { generation, reason: why.to_owned() });
            if !self.fails_its_trial(Cause::Stuck, &format!("is stuck: {why}"), now) {
                self.replace_the_first_time(now);
            }
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

    /// An instance is about to end by itself: where it is the only one, the next is started before it does.
    pub(super) fn leaving(&mut self, instance: Instance, now: Instant) {
        let generation = instance.generation;
        let alone = self.serving.as_ref().is_some_and(|serving| serving.crew.ready() == [instance.number]);
        let Some(condition) = self.condition_of(generation).filter(|it| alone && !it.leaving) else { return };
        let was_well = condition.why().is_none();
        condition.leaving = true;
        self.tell(News::Leaving { generation });
        if was_well {
            self.replace_the_first_time(now);
        }
    }

    /// It has grown too large, or too old: another generation is started beside it.
    pub(super) fn worn(&mut self, generation: Generation, why: Why, reason: String, now: Instant) {
        let Some(condition) = self.condition_of(generation).filter(|condition| condition.worn.is_none()) else {
            return;
        };
        let was_well = condition.why().is_none();
        condition.worn = Some((why, reason.clone()));
        self.tell(News::Worn { generation, reason });
        if was_well {
            self.replace_the_first_time(now);
        }
    }

    /// It goes on serving, because nobody else does, but readiness says no.
    pub(super) fn unready(&mut self, instance: Instance) {
        match self.condition_of(instance.generation) {
            Some(condition) => {
                if condition.unready.insert(instance.number) {
                    self.tell(News::Unready { generation: instance.generation });
                }
            }
            None => self.not_ready(instance, "it has sent READY=0".to_owned()),
        }
    }

    pub(super) fn ready_again(&mut self, instance: Instance) {
        let generation = instance.generation;
        if self.condition_of(generation).is_some_and(|condition| condition.unready.remove(&instance.number)) {
            self.tell(News::Recovered { generation });
        }
    }

    /// Of the serving generation, while zdr is not about to end it anyway.
    pub(super) fn condition_of(&mut self, generation: Generation) -> Option<&mut Condition> {
        let serving = self.serving.as_mut().filter(|serving| serving.generation == generation && self.stop.is_none());
        serving.map(|serving| &mut serving.condition)
    }

    /// One that served long begins the back-off afresh; where each soon is as stuck as the one before, they come more slowly.
    fn replace_the_first_time(&mut self, now: Instant) {
        let long = |serving: &super::seats::Serving| {
            now.saturating_duration_since(serving.since) >= serving.plan.policy.min_uptime
        };
        if self.serving.as_ref().is_some_and(long) {
            self.failures = 0;
        }
        self.replace(now);
    }

    /// Starts another one beside a generation that does not do well. One that is starting already will do.
    pub(super) fn replace(&mut self, now: Instant) {
        let launched = self.starting.is_some() || self.preparing.is_some();
        let under_way = launched || self.awaited.is_some() || self.retry_at.is_some();
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
