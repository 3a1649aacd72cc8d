//! The rules: told what happened, says what to do.
//!
//! Never does anything itself: no I/O, no clock, no randomness. `handle` takes an event and the time and answers with
//! actions; `next_deadline` says when it wants to be woken. The methods stand in the order of the story: a reload
//! launches a generation, its instances prove themselves, it serves, the old one drains. What can go wrong, going back,
//! stopping and the rest have files of their own.

mod action;
mod crashes;
mod crew;
mod draining;
mod event;
mod failures;
mod generation;
mod going_back;
mod hooks;
mod liveness;
mod news;
mod pace;
mod pausing;
mod policy;
mod scaling;
mod seats;
mod status;
mod stopping;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub use action::{Action, Place, Portion};
use crew::{Crew, Member, Stage};
pub use event::{Event, Scale};
pub use generation::{Exit, Generation, Instance, Ticket, Until, Why};
use humantime::format_duration;
use liveness::Condition;
pub use liveness::Sign;
pub use news::News;
pub use policy::{Budget, Hook, Lifetime, Origin, Plan, Policy, QueueMode, Restart};
use seats::{Draining, Left, Request, Serving, Starting, Step, Stop};
pub use status::{Goal, Health, InstanceState, Seat, SeatName, SeatedInstance, State, Status};
use stopping::refused_because_stopping;
pub use verdict::{Cause, Outcome, Verdict};

/// The state of everything zdr decides about.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// Any number, so that many supervisors that begin at one moment differ in what they leave to chance.
    seed: u64,
    /// That of the last generation that served, or else of the last that was prepared.
    plan: Option<Arc<Plan>>,
    newest: Generation,
    /// What is to be launched once it is prepared.
    preparing: Option<Request>,
    starting: Option<Starting>,
    serving: Option<Serving>,
    draining: Vec<Draining>,
    /// The gone that connections may still be on their way to.
    left: Vec<Left>,
    /// What runs next: reloads asked for while one is starting become one.
    next: Option<Request>,
    /// Those who want another number of instances, and how many, once nothing starts.
    scale: Option<(Vec<Ticket>, u32)>,
    /// More instances are on their way.
    growing: Option<scaling::Growing>,
    /// How many instances somebody asked for, and what the settings said then.
    scaled: Option<(u32, u32)>,
    /// A restart waits for this generation to end.
    awaited: Option<Generation>,
    /// When to try again while nothing serves.
    retry_at: Option<Instant>,
    /// Failures in a row, of starts while nothing served and of generations that served only shortly.
    failures: u32,
    /// When instances that had served were started again, as far as that counts.
    restarts: VecDeque<Instant>,
    started: bool,
    /// The generation that serves, or served last.
    current: Option<Generation>,
    /// Those that served before with other releases, the last of them last: one can go back to them.
    history: Vec<Generation>,
    /// Those that Remember named last.
    remembered: BTreeSet<Generation>,
    /// The checks of the user's are asked, whether or not somebody looks.
    asks_checks: bool,
    pause: Option<pausing::Pause>,
    /// Those that are gone, while the command that is run after that has not ended, with who waits for it.
    farewells: Vec<hooks::Farewell>,
    stop: Option<Stop>,
    last_verdict: Option<Verdict>,
    crashes: u64,
    actions: Vec<Action>,
}

impl Supervisor {
    /// A supervisor at which nothing has happened yet; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Takes in what happened and says what to do, in order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Boot => self.launch(Request::unasked(Why::Boot)),
            Event::Reload { ticket, command, until } => self.reload(ticket, command, until, now),
            Event::Changed { path } => self.changed(&path, now),
            Event::Rollback { ticket } => self.rollback(ticket, now),
            Event::Scale { ticket, scale } => self.scale(ticket, scale, now),
            Event::Pause { ticket, time } => self.pause(ticket, time, now),
            Event::Held { told } => self.held(told),
            Event::Resume { ticket } => self.resume(ticket),
            Event::Restart { ticket } => self.restart(ticket),
            Event::Stop { ticket } => self.stop(ticket, now),
            Event::Prepared { generation, plan } => self.prepared(generation, *plan, now),
            Event::Refused { why } => self.refused(&why, now),
            Event::HookEnded { hook, generation, failure } => self.hook_ended(hook, generation, failure, now),
            Event::Spawned { instance, pid } => self.spawned(instance, pid, now),
            Event::SpawnFailed { instance, why, code } => self.spawn_failed(instance, &why, code, now),
            Event::NotReady { instance, answer } => self.not_ready(instance, answer),
            Event::Ready { instance } => self.ready(instance, now),
            Event::Connections { generation, open, busy } => self.connections(generation, open, busy),
            Event::Quiet { generation } => self.quiet(generation, now),
            Event::Wrote { instance, lines } => self.wrote(instance, lines),
            Event::Exited { instance, exit } => self.exited(instance, exit, now),
            Event::Stuck { generation, sign, why } => self.stuck(generation, sign, &why, now),
            Event::Recovered { generation, sign } => self.recovered(generation, sign),
            Event::Unready { instance } => self.unready(instance),
            Event::ReadyAgain { instance } => self.ready_again(instance),
            Event::Leaving { instance } => self.leaving(instance, now),
            Event::TooLarge { instance, why } => self.too_large(instance, &why, now),
            Event::Checked { name, state, message, critical, was_well } => {
                self.checked(name, state, message, critical && was_well, now);
            }
            Event::Left { generation, waiting } => self.left(generation, waiting, now),
            Event::Elapsed => self.time_has_passed(now),
        }
        self.spawn_the_due(now);
        self.ask_checks();
        self.forget_the_gone();
        self.exit_if_nobody_is_left();
        mem::take(&mut self.actions)
    }

    /// A reload starts a new generation beside the old one. Asked for while one is starting, it is remembered and runs
    /// next; several become one, the last command wins, and everybody gets the verdict.
    fn reload(&mut self, ticket: Ticket, command: Option<Vec<OsString>>, until: Until, now: Instant) {
        if self.stop.is_some() {
            return self.answer(vec![ticket], &refused_because_stopping());
        }
        self.supersede("a reload was asked for after it", |why| why != Why::Rollback);
        self.prepare_anew();
        self.next.get_or_insert_default().join(ticket, until, command);
        self.run_next(now);
    }

    /// A watched file has changed: the same, and nobody waits for the verdict.
    fn changed(&mut self, path: &Path, now: Instant) {
        if self.stop.is_none() {
            self.tell(News::Changed { path: path.display().to_string() });
            self.prepare_anew();
            self.next.get_or_insert_with(|| Request::unasked(Why::Change));
            self.run_next(now);
        }
    }

    fn run_next(&mut self, now: Instant) {
        let owes = self.serving.as_ref().is_some_and(|serving| serving.owed.is_some());
        let launched = self.starting.is_some() || self.preparing.is_some();
        if self.stop.is_some() || launched || self.awaited.is_some() || owes {
            return;
        }
        let Some(mut request) = self.next.take() else { return self.scale_next(now) };
        match request.prepared.take() {
            Some((generation, plan)) => self.begin(request, generation, plan, now),
            None => self.launch(request),
        }
    }

    /// First start, reload, restart, rollback and the start after a crash are this one path.
    fn launch(&mut self, request: Request) {
        self.retry_at = None;
        self.prepare(request);
    }

    fn prepare(&mut self, request: Request) {
        let (generation, origin) = (Generation(self.newest.0 + 1), self.origin_for(&request));
        self.preparing = Some(request);
        self.actions.push(Action::Prepare { generation, origin });
    }

    /// It is known what to start.
    fn prepared(&mut self, generation: Generation, mut plan: Plan, now: Instant) {
        let Some(request) = self.preparing.take() else { return };
        for reason in mem::take(&mut plan.unapplied) {
            self.tell(News::Unapplied { reason });
        }
        self.newest = generation;
        if request.why == Why::Restart {
            self.make_room(Request { prepared: Some((generation, plan)), ..request }, now);
        } else {
            self.begin(request, generation, plan, now);
        }
    }

    /// Its instances are started, after the command that may say no.
    fn begin(&mut self, request: Request, generation: Generation, plan: Plan, now: Instant) {
        let crew = Crew::of(self.wanted_instances(&plan), now);
        let hook = plan.policy.hooks.contains(&Hook::BeforeStart).then_some(Hook::BeforeStart);
        let plan = Arc::new(plan);
        self.plan.get_or_insert_with(|| Arc::clone(&plan));
        self.starting = Some(Starting {
            generation,
            plan,
            crew,
            askers: request.askers,
            since: now,
            why: request.why,
            target: request.target,
            blame: request.blame,
            step: hook.map_or(Step::Proving, Step::Hook),
            has_a_share: false,
            output: Vec::new(),
        });
        if let Some(hook) = hook {
            self.run_hook(hook, generation, self.current, Some(request.why));
        }
    }

    /// The new instance is probed until it is ready.
    fn spawned(&mut self, instance: Instance, pid: i32, now: Instant) {
        let Instance { generation, number } = instance;
        let is_new = self.growing.as_ref().is_some_and(|growing| number > growing.from);
        let why = match (&self.starting, &self.serving) {
            (Some(starting), _) if starting.generation == generation => starting.why,
            (_, Some(serving)) if serving.generation == generation && is_new => Why::Scale,
            (_, Some(serving)) if serving.generation == generation => Why::Crash,
            _ => Why::Finish,
        };
        let Some(seated) = self.seated(generation) else { return };
        let ready_by = now + seated.plan.policy.ready_timeout;
        let Some(member) = seated.crew.get_mut(number) else { return };
        (member.pid, member.since) = (Some(pid), now);
        member.stage = if why == Why::Finish { Stage::Ready } else { Stage::Proving(ready_by) };
        let (is_complete, of) = (seated.crew.is_complete(), seated.crew.len());
        self.tell(News::Spawned { generation, instance: number, of, pid, why });
        if why != Why::Finish {
            self.actions.push(Action::Probe(instance));
        } else if is_complete {
            self.finisher_is_there(generation);
        }
    }

    fn not_ready(&mut self, instance: Instance, answer: String) {
        let Instance { generation, number } = instance;
        let Some(crew) = self.seated(generation).map(|seated| seated.crew) else { return };
        let of = crew.len();
        let proving = |member: &&mut Member| matches!(member.stage, Stage::Proving(_));
        let Some(member) = crew.get_mut(number).filter(proving) else { return };
        if member.last_answer.as_ref() != Some(&answer) {
            member.last_answer = Some(answer.clone());
            self.tell(News::NotReady { generation, instance: number, of, answer });
        }
    }

    /// An instance is ready. With the last of a new generation, or with each where they come by and by, new connections
    /// go there.
    fn ready(&mut self, instance: Instance, now: Instant) {
        let Instance { generation, number } = instance;
        let Some(seated) = self.seated(generation) else { return };
        let Some(member) = seated.crew.get_mut(number).filter(|member| matches!(member.stage, Stage::Proving(_)))
        else {
            return;
        };
        (member.stage, member.since) = (Stage::Ready, now);
        let (ready, of) = (seated.crew.ready().len(), seated.crew.len());
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        if of > 1 {
            self.tell(News::InstanceReady { generation, instance: number, ready, of });
        }
        if self.starting.as_ref().is_some_and(|starting| starting.generation == generation) {
            self.admit(now);
        } else if self.serving.as_ref().is_some_and(|serving| serving.generation == generation) {
            self.spread();
            self.settle_the_scale();
        }
    }

    /// The new generation gets what it may get by now: its share, or everything.
    fn admit(&mut self, now: Instant) {
        let Some(starting) = &mut self.starting else { return };
        let (generation, why) = (starting.generation, starting.why);
        let by_and_by = starting.plan.policy.surge.is_some_and(|surge| surge < starting.crew.len());
        let is_complete = starting.crew.is_complete();
        let is_due = is_complete || by_and_by && !starting.crew.ready().is_empty();
        if !is_due || matches!(starting.step, Step::Hook(_)) {
            return;
        }
        if starting.step == Step::Proving && starting.plan.policy.hooks.contains(&Hook::BeforeCutOver) {
            starting.step = Step::Hook(Hook::BeforeCutOver);
            return self.run_hook(Hook::BeforeCutOver, generation, self.current, Some(why));
        }
        starting.step = Step::Admitted;
        if is_complete {
            if let Some(starting) = self.starting.take() {
                self.serve(starting, now);
            }
        } else {
            self.share();
        }
    }

    /// Old and new serve in proportion to the instances of the new generation that are ready.
    fn share(&mut self) {
        let (Some(starting), Some(serving)) = (&mut self.starting, &self.serving) else { return };
        let (instances, of) = (starting.crew.ready(), starting.crew.len());
        let ready = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        starting.has_a_share = true;
        let generation = starting.generation;
        let rest = Portion { weight: of - ready, ..serving.portion() };
        let portion = Portion { generation, instances, weight: ready };
        self.actions.push(Action::Steer(vec![rest, portion]));
        self.tell(News::Sharing { generation, ready, of });
    }

    /// New connections go to it, the old one drains, and whoever asked is told.
    fn serve(&mut self, starting: Starting, now: Instant) {
        let Starting { generation, plan, crew, askers, since, why, target, blame, .. } = starting;
        let after = now.saturating_duration_since(since);
        let expires = self.lifetime_of(generation, &plan).map(|time| now + time);
        let (condition, output) = (Condition::default(), Vec::new());
        let serving =
            Serving { generation, plan, crew, why, since: now, output, condition, trial: None, expires, owed: None };
        self.actions.push(Action::Steer(vec![serving.portion()]));
        self.started = true;
        self.tell(News::Serving { generation, after });
        self.adopt(&serving.plan);
        let mut old = self.serving.replace(serving);
        if let Some(old) = &mut old {
            self.grow_no_more();
            self.settle_what_is_owed(old, "was replaced");
        }
        self.quiesce_the_warm(now);
        let before = self.current;
        self.note_what_serves(generation, why, target);
        let (patient, prompt) = askers.into_iter().partition::<Vec<_>, _>(|(_, until)| *until == Until::Drained);
        let mut due = tickets(prompt);
        match old {
            Some(old) => self.keep_warm(old, tickets(patient), why, now),
            None => due.extend(tickets(patient)),
        }
        self.begin_trial(why, now);
        let verdict = match blame {
            Some(blame) => blame.verdict(&format!("generation {generation} serves, as the one before it was")),
            None => Verdict::of_generation(
                if why == Why::Rollback { Cause::RolledBack } else { Cause::Ready },
                generation,
                format!("generation {generation} serves after {after:.1?}"),
            ),
        };
        self.after_serving(due, verdict, before);
        self.run_next(now);
    }

    fn settle(&mut self, tickets: Vec<Ticket>, verdict: Verdict) {
        if !tickets.is_empty() {
            self.tell(News::Verdict(verdict.clone()));
        }
        self.answer(tickets, &verdict);
        self.last_verdict = Some(verdict);
    }

    fn answer(&mut self, tickets: Vec<Ticket>, verdict: &Verdict) {
        self.actions.extend(tickets.into_iter().map(|ticket| Action::Answer(ticket, verdict.clone())));
    }

    fn tell(&mut self, news: News) {
        self.actions.push(Action::Tell(news));
    }
}

impl Serving {
    /// All that is new, for those of its instances that can serve.
    fn portion(&self) -> Portion {
        Portion { generation: self.generation, instances: self.crew.ready(), weight: 1 }
    }
}

fn tickets(askers: Vec<(Ticket, Until)>) -> Vec<Ticket> {
    askers.into_iter().map(|(ticket, _)| ticket).collect()
}
