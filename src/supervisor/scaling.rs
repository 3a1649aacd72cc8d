//! Another number of instances: more join the generation that serves; fewer are a new generation, because nobody can take one
//! of those away that accept from one queue without losing what it has just accepted.

use std::sync::Arc;
use std::time::Instant;

use super::Supervisor;
use super::event::Scale;
use super::generation::{Ticket, Until, Why};
use super::policy::Plan;
use super::seats::Request;
use super::stopping::refused_because_stopping;
use super::verdict::{Cause, Outcome, Verdict};

/// As many as one generation can have.
const MOST: u32 = 256;

/// More instances are on their way.
#[derive(Debug)]
pub(super) struct Growing {
    askers: Vec<Ticket>,
    /// The numbers above this one are new.
    pub(super) from: u32,
    /// What went wrong with one of them.
    failure: Option<String>,
}

impl Supervisor {
    /// So many instances from now on; while something starts, once that is over.
    pub(super) fn scale(&mut self, ticket: Ticket, scale: Scale, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        let Some(plan) = self.plan.clone() else {
            let why = "no generation was ever started";
            return self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Failed, Cause::Refused, why));
        };
        let wanted = self.wanted_instances(&plan);
        let base = self.scale.as_ref().map_or(wanted, |(_, number)| *number);
        let number = match scale {
            Scale::To(number) => Some(number),
            Scale::By(more) => base.checked_add_signed(more),
        };
        let Some(number) = number.filter(|number| (1..=MOST).contains(number)) else {
            let why = format!("there are {base} instances, and from 1 to {MOST} can be");
            return self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Failed, Cause::Refused, &why));
        };
        let askers = self.scale.get_or_insert_with(|| (Vec::new(), number));
        askers.0.push(ticket);
        askers.1 = number;
        self.run_next(now);
    }

    pub(super) fn scale_next(&mut self, now: Instant) {
        let Some((askers, number)) = self.scale.take() else { return };
        self.scaled = self.plan.as_ref().map(|plan| (number, plan.policy.instances));
        let Some(serving) = &mut self.serving else {
            let reason = format!("{number} instances from the next start on");
            return self.settle(askers, Verdict::of_zdr(Outcome::Done, Cause::Scaled, &reason));
        };
        let have = serving.crew.len();
        if number < have {
            let askers = askers.into_iter().map(|ticket| (ticket, Until::Serving)).collect();
            return self.launch(Request { askers, ..Request::unasked(Why::Scale) });
        }
        serving.crew.fill(number, now);
        let (growing, from) = (self.growing.take(), have);
        let mut all = growing.as_ref().map(|growing| growing.askers.clone()).unwrap_or_default();
        all.extend(askers);
        let from = growing.map_or(from, |growing| growing.from);
        self.growing = Some(Growing { askers: all, from, failure: None });
        self.settle_the_scale();
    }

    /// How many a generation with this plan has: what somebody asked for holds until the settings say something else.
    pub(super) fn wanted_instances(&self, plan: &Plan) -> u32 {
        let asked = self.scaled.filter(|(_, configured)| *configured == plan.policy.instances);
        asked.map_or(plan.policy.instances, |(asked, _)| asked)
    }

    /// What serves has this plan. Where its settings say another number than when somebody asked for one, that holds no more.
    pub(super) fn adopt(&mut self, plan: &Arc<Plan>) {
        self.plan = Some(Arc::clone(plan));
        self.scaled.take_if(|(_, configured)| *configured != plan.policy.instances);
    }

    /// One of the new ones has failed, and is not tried again. False for one that is not new.
    pub(super) fn is_not_to_grow(&mut self, number: u32, failure: &str) -> bool {
        let Some(growing) = self.growing.as_mut().filter(|growing| number > growing.from) else { return false };
        growing.failure.get_or_insert_with(|| format!("instance {number} {failure}"));
        true
    }

    /// Whoever asked for more is told once each of them serves or has failed.
    pub(super) fn settle_the_scale(&mut self) {
        let Some(serving) = self.serving.as_ref().filter(|serving| serving.crew.is_complete()) else { return };
        let (generation, number) = (serving.generation, serving.crew.len());
        let Some(Growing { askers, failure, .. }) = self.growing.take() else { return };
        let serve = if number == 1 { "1 instance serves".to_owned() } else { format!("{number} instances serve") };
        let verdict = match failure {
            None => Verdict::of_generation(Cause::Scaled, generation, serve),
            Some(failure) => {
                self.scaled = self.scaled.map(|(_, configured)| (number, configured));
                let verdict = Verdict::of_generation(Cause::Scaled, generation, format!("{failure}; {serve}"));
                Verdict { outcome: Outcome::Kept, ..verdict }
            }
        };
        self.settle(askers, verdict);
    }

    /// The serving generation goes, and with it what was to grow.
    pub(super) fn grow_no_more(&mut self) {
        if let Some(Growing { askers, .. }) = self.growing.take() {
            let why = "the generation that was to have more instances serves no more";
            self.settle(askers, Verdict::of_zdr(Outcome::Failed, Cause::Superseded, why));
        }
    }
}
