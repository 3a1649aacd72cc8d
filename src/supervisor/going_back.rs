//! Going back to the release before: because somebody wants it, or because the new one fails its trial.

use std::collections::BTreeSet;
use std::mem;
use std::time::{Duration, Instant};

use super::action::Action;
use super::generation::{Generation, Instance, Ticket, Until, Why};
use super::hooks::Farewell;
use super::news::News;
use super::policy::Plan;
use super::seats::{Blame, Draining, Phase, Request, Serving, Starting};
use super::status::{Goal, Health};
use super::stopping::refused_because_stopping;
use super::verdict::{Cause, Outcome, Verdict};
use super::{Supervisor, tickets};

/// How many releases one can go back, one after the other.
const LONGEST_WAY_BACK: usize = 4;

impl Supervisor {
    /// What a rollback would go to: during a reload, what serves.
    pub(super) fn goal_of_rollback(&self) -> Option<Goal> {
        if let (Some(serving), Some(_)) = (&self.serving, &self.starting) {
            return Some(Goal { generation: serving.generation, warm: true });
        }
        let warm = self.draining.iter().find(|draining| matches!(draining.phase, Phase::Warm { .. }));
        let warm = warm.map(|draining| Goal { generation: draining.generation, warm: true });
        warm.or_else(|| self.history.last().map(|generation| Goal { generation: *generation, warm: false }))
    }

    /// The generation before serves again: at once where it still runs, else by a new one that is as it was. While a reload
    /// is under way, the one before is the one that serves.
    pub(super) fn rollback(&mut self, ticket: Ticket, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        if let (Some(serving), Some(starting)) = (&self.serving, &self.starting) {
            let (stays, gone) = (serving.generation, starting.generation);
            let reason = format!("generation {stays} serves on, and generation {gone} is given up");
            let asked = Verdict::of_generation(Cause::RolledBack, stays, reason);
            self.supersede("a rollback was asked for", |_| false);
            if let Some(starting) = self.starting.take() {
                self.give_up(starting, None, Cause::Superseded, "is given up for a rollback", now);
            }
            return self.settle(vec![ticket], asked);
        }
        if let Some((warm, watchers)) = self.take_the_warm() {
            return self.swap_for_the_warm(warm, watchers, ticket, now);
        }
        let Some(target) = self.history.last().copied() else {
            let why = "there is no generation before this one to go back to";
            return self.answer(vec![ticket], &Verdict::of_zdr(Outcome::Failed, Cause::Refused, why));
        };
        self.supersede("a rollback was asked for", |why| why == Why::Rollback);
        let request = Request { target: Some(target), ..Request::unasked(Why::Rollback) };
        self.next.get_or_insert(request).askers.push((ticket, Until::Serving));
        // While nothing serves, nobody waits until what starts has failed.
        match self.starting.take_if(|starting| starting.why != Why::Rollback) {
            Some(starting) => self.give_up(starting, None, Cause::Superseded, "is given up for a rollback", now),
            None => self.run_next(now),
        }
    }

    /// What was to run next will not, unless it may stay: something else was asked for meanwhile.
    pub(super) fn supersede(&mut self, why: &str, may_stay: impl Fn(Why) -> bool) {
        if self.next.as_ref().is_none_or(|next| may_stay(next.why)) {
            return;
        }
        self.prepare_anew();
        if let Some(next) = self.next.take() {
            self.answer(tickets(next.askers), &Verdict::of_zdr(Outcome::Kept, Cause::Superseded, why));
        }
    }

    fn swap_for_the_warm(&mut self, warm: Serving, mut watchers: Vec<Ticket>, ticket: Ticket, now: Instant) {
        let generation = warm.generation;
        self.actions.push(Action::Steer(vec![warm.portion()]));
        self.tell(News::Returned { generation });
        self.current = Some(generation);
        self.adopt_as_it_is(&warm);
        let reason = format!("generation {generation} serves again");
        let verdict = Verdict::of_generation(Cause::RolledBack, generation, reason);
        if let Some(mut left) = self.serving.replace(warm) {
            self.grow_no_more();
            self.settle_what_is_owed(&mut left, "was rolled back");
            let draining = Draining::new(left, Phase::Killed, now);
            self.drain(draining, now);
        }
        watchers.push(ticket);
        self.settle(watchers, verdict);
        self.run_next(now);
    }

    /// The generation that can have the connections back at once.
    pub(super) fn take_the_warm(&mut self) -> Option<(Serving, Vec<Ticket>)> {
        let is_warm = |draining: &Draining| matches!(draining.phase, Phase::Warm { .. }) && draining.crew.lives();
        let at = self.draining.iter().position(is_warm)?;
        let mut warm = self.draining.swap_remove(at);
        self.history.retain(|generation| *generation != warm.generation);
        let (instances, since) = (self.wanted_instances(&warm.plan), warm.since);
        let watchers = mem::take(&mut warm.watchers);
        Some((warm.into_serving(instances, since), watchers))
    }

    /// With as many instances as it has, although its settings may say another number: it was kept as it was.
    fn adopt_as_it_is(&mut self, warm: &Serving) {
        self.adopt(&warm.plan);
        let (has, configured) = (warm.crew.len(), warm.plan.policy.instances);
        if has != configured {
            self.scaled = Some((has, configured));
        }
    }

    /// It has the connections back, and whoever waited for its end is told why it goes on.
    pub(super) fn return_to(&mut self, warm: Serving, watchers: Vec<Ticket>, blame: Blame) {
        let generation = warm.generation;
        self.tell(News::Returned { generation });
        let verdict = blame.verdict(&format!("generation {generation} serves again"));
        self.settle(watchers, verdict);
        self.current = Some(generation);
        self.adopt_as_it_is(&warm);
        self.serving = Some(warm);
    }

    /// The new release is on trial from now on.
    pub(super) fn begin_trial(&mut self, why: Why, now: Instant) {
        let can_go_back = !self.history.is_empty();
        let Some(serving) = &mut self.serving else { return };
        let bake = serving.plan.policy.bake;
        if why.is_for_something_new() && can_go_back && bake > Duration::ZERO {
            serving.trial = Some(now + bake);
            self.restarts.clear();
            self.actions.push(Action::AskChecks(true));
        }
    }

    pub(super) fn end_trial_if_due(&mut self, now: Instant) {
        if let Some(serving) = &mut self.serving {
            serving.trial.take_if(|until| *until <= now);
        }
    }

    /// While something new is on trial the checks are asked, whether or not somebody looks. While it starts they are as well:
    /// what failed before is not its fault.
    pub(super) fn ask_checks(&mut self) {
        let to_come = |starting: &Starting| starting.why.is_for_something_new() && !starting.plan.policy.bake.is_zero();
        let to_come = self.current.is_some() && self.starting.as_ref().is_some_and(to_come);
        let wanted = to_come || self.serving.as_ref().is_some_and(|serving| serving.trial.is_some());
        if mem::replace(&mut self.asks_checks, wanted) != wanted {
            self.actions.push(Action::AskChecks(wanted));
        }
    }

    /// True where the serving generation was on trial, and is left for the one before.
    pub(super) fn fails_its_trial(&mut self, cause: Cause, what: &str, now: Instant) -> bool {
        let Some(generation) = self.serving.as_ref().filter(|at| at.trial.is_some()).map(|at| at.generation) else {
            return false;
        };
        let output = self.serving.as_ref().map(|at| at.output.clone()).unwrap_or_default();
        let blame = Blame { generation, cause, what: what.to_owned(), output };
        let Some((warm, watchers)) = self.take_the_warm() else {
            return self.launch_the_one_before(blame);
        };
        self.actions.push(Action::Steer(vec![warm.portion()]));
        if let Some(mut bad) = self.serving.take() {
            self.grow_no_more();
            self.settle_what_is_owed(&mut bad, what);
            let draining = Draining::new(bad, Phase::Killed, now);
            self.drain(draining, now);
        }
        self.return_to(warm, watchers, blame);
        self.run_next(now);
        true
    }

    /// A new generation is started that is as the one before was; False where there is none, or something else starts.
    pub(super) fn launch_the_one_before(&mut self, blame: Blame) -> bool {
        let busy = self.starting.is_some() || self.preparing.is_some() || self.awaited.is_some();
        let Some(target) = self.history.last().copied().filter(|_| !busy) else { return false };
        self.launch(Request { target: Some(target), blame: Some(blame), ..Request::unasked(Why::Rollback) });
        true
    }

    /// A check of the user's has another state. A critical one that was well before and fails ends a trial.
    pub(super) fn checked(&mut self, name: String, state: Health, message: String, blames: bool, now: Instant) {
        let what = format!("made the check {name} fail: {message}");
        self.tell(News::Check { name, state, message });
        // What asks as clients do waits with them while they are held.
        let counts = blames && self.pause.is_none() && self.stop.is_none();
        if counts && state == Health::Unhealthy {
            self.fails_its_trial(Cause::Unhealthy, &what, now);
        }
    }

    /// Which releases one can go back to from here.
    pub(super) fn note_what_serves(&mut self, generation: Generation, why: Why, target: Option<Generation>) {
        if why == Why::Rollback {
            self.history.retain(|other| Some(*other) != target);
        } else if let Some(current) = self.current.filter(|_| why.is_for_something_new()) {
            self.history.push(current);
            let too_many = self.history.len().saturating_sub(LONGEST_WAY_BACK);
            self.history.drain(..too_many);
        }
        self.current = Some(generation);
    }

    /// What is known of a generation is forgotten once it is gone for good: nobody can go back to it, and nothing that
    /// is as it was is still to finish for it.
    pub(super) fn forget_the_gone(&mut self) {
        let seated = self.starting.iter().map(|at| at.generation).chain(self.serving.iter().map(|at| at.generation));
        let draining = self.draining.iter().map(|at| at.generation);
        let left = self.left.iter().flat_map(|left| [left.generation, left.like]);
        let farewells = self.farewells.iter().map(Farewell::generation);
        let prepared = self.preparing.iter().map(|_| Generation(self.newest.0 + 1));
        let waiting = self.next.iter().filter_map(|next| next.prepared.as_ref().map(|(generation, _)| *generation));
        let goals = self.preparing.iter().chain(&self.next).filter_map(|request| request.target);
        let wanted = self.history.iter().copied().chain(self.current).chain(goals).chain(prepared).chain(waiting);
        let wanted: BTreeSet<Generation> = wanted.chain(seated).chain(draining).chain(left).chain(farewells).collect();
        if self.remembered != wanted {
            self.remembered.clone_from(&wanted);
            self.actions.push(Action::Remember(wanted));
        }
    }

    /// An instance has grown too large.
    pub(super) fn too_large(&mut self, instance: Instance, why: &str, now: Instant) {
        let several = self.serving.as_ref().is_some_and(|serving| serving.crew.len() > 1);
        let why = if several { format!("has an instance {} that {why}", instance.number) } else { why.to_owned() };
        self.worn(instance.generation, Why::Memory, why, now);
    }

    /// It has lived as long as it may.
    pub(super) fn expire_if_due(&mut self, now: Instant) {
        let due = |serving: &&mut Serving| serving.expires.is_some_and(|at| at <= now);
        let Some(serving) = self.serving.as_mut().filter(due) else { return };
        serving.expires = None;
        let (generation, lived) = (serving.generation, now.saturating_duration_since(serving.since));
        let lived = Duration::from_secs(lived.as_secs());
        let why = format!("has served for {}, as long as it may", humantime::format_duration(lived));
        self.worn(generation, Why::Lifetime, why, now);
    }

    /// With its share of chance, which is another for each generation of each zdr (splitmix64).
    pub(super) fn lifetime_of(&self, generation: Generation, plan: &Plan) -> Option<Duration> {
        let lifetime = plan.policy.max_lifetime?;
        let mut random = self.seed.wrapping_add(generation.0.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let thousandths = u32::try_from((random ^ (random >> 31)) % 1001).unwrap_or(0);
        Some(lifetime.time + lifetime.jitter * thousandths / 1000)
    }
}

impl Blame {
    /// What is told to whoever asked for the one that is given up.
    pub(super) fn verdict(self, then: &str) -> Verdict {
        let Self { generation, cause, what, output } = self;
        let reason = format!("generation {generation} {what}; {then}");
        Verdict { outcome: Outcome::Kept, cause, generation: Some(generation), reason, output }
    }
}
