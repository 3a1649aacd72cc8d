//! The edges, simulated: any event may come at any time, and no promise of the rules to them may be broken.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What the simulated edges know of a generation.
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what has happened to it, in any order")]
pub(super) struct Known {
    /// Its living instances; true for those that are ready.
    pub(super) living: BTreeMap<u32, bool>,
    signalled: bool,
    killed: bool,
    pub(super) released: bool,
    quiesced: bool,
    behind: bool,
    /// It never has a process.
    is_pause: bool,
}

/// The edges, simulated: keeps the rules' promises to the kernel, and watches that they keep theirs.
pub(super) struct System {
    pub(super) story: Story,
    random: u64,
    pub(super) known: BTreeMap<u64, Known>,
    /// Where what is new goes; the first is the front.
    steered: Vec<u64>,
    held: bool,
    paused: Option<u64>,
    hooks: Vec<(Hook, Generation)>,
    pub(super) open_tickets: BTreeSet<u64>,
    tickets: u64,
    pub(super) exited: bool,
    pub(super) stops: u32,
}

impl System {
    pub(super) fn new(seed: u64) -> Self {
        let seconds = |wanted: bool, seconds| if wanted { Duration::from_secs(seconds) } else { Duration::ZERO };
        let all = [Hook::BeforeStart, Hook::BeforeCutOver, Hook::AfterServing, Hook::AfterDrain];
        let policy = Policy {
            bake: seconds(!seed.is_multiple_of(2), 2),
            bake_keep: seconds(seed % 4 == 1, 2),
            lame_duck: seconds(seed.is_multiple_of(3), 1),
            instances: if seed.is_multiple_of(5) { 1 } else { u32::try_from(seed % 5).unwrap() },
            surge: seed.is_multiple_of(7).then_some(1),
            queue: if seed % 11 < 5 { QueueMode::PerInstance } else { QueueMode::Shared },
            restart: if seed % 13 == 1 { Restart::OnFailure } else { Restart::Always },
            max_restarts: (seed % 13 == 2).then_some(Budget { restarts: 3, window: Duration::from_secs(60) }),
            max_lifetime: (seed % 13 == 3).then_some(Lifetime { time: seconds(true, 90), jitter: seconds(true, 20) }),
            hooks: all.into_iter().filter(|hook| seed.is_multiple_of(3 + *hook as u64)).collect(),
            watched: seed % 17 == 1,
            ..policy()
        };
        Self {
            story: Story::with(policy),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            known: BTreeMap::new(),
            steered: Vec::new(),
            held: false,
            paused: None,
            hooks: Vec::new(),
            open_tickets: BTreeSet::new(),
            tickets: 0,
            exited: false,
            stops: 0,
        }
    }

    /// xorshift64: a random number below `limit`, the same for the same seed.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.open_tickets.insert(self.tickets);
        Ticket(self.tickets)
    }

    pub(super) fn happens(&mut self, event: Event) {
        let mut inbox = vec![event];
        while let Some(event) = inbox.pop() {
            let actions = self.story.supervisor.handle(event, self.story.now);
            for action in actions {
                inbox.extend(self.perform(action));
            }
            if inbox.is_empty() {
                self.check_seats();
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        assert!(!self.exited, "{action:?} after the end");
        match action {
            Action::Prepare { generation, origin } => return Some(self.prepare(generation, origin)),
            Action::Spawn { instance, place, like, .. } => return Some(self.spawn(instance, place, like)),
            Action::RunHook { hook, generation, .. } => self.hooks.push((hook, generation)),
            Action::Probe(instance) => assert!(self.lives(instance)),
            Action::Steer(portions) => self.steer(&portions),
            Action::Hold => self.held = true,
            Action::Pause(generation) => {
                assert!(self.paused.replace(generation.0).is_none(), "paused twice");
                if self.below(8) == 0 {
                    self.paused = None;
                    return Some(Event::Held { told: Err("no".to_owned()) });
                }
                self.known.insert(generation.0, Known { is_pause: true, ..Known::default() });
                return Some(Event::Held { told: Ok(Vec::new()) });
            }
            Action::Resume => assert!(self.paused.take().is_some(), "resumed twice"),
            Action::Quiesce(generation) => {
                assert!(!self.steered.contains(&generation.0) || self.held, "quiesced while it gets what is new");
                assert!(!self.of(generation).living.is_empty());
                self.of(generation).quiesced = true;
            }
            Action::Signal(generation) => {
                let restarting = self.story.supervisor.awaited == Some(generation);
                let stopping = self.story.supervisor.stop.is_some();
                let gets_new = self.steered.contains(&generation.0) && !self.held;
                assert!(!gets_new || restarting || stopping, "signalled while new connections go to it");
                let known = self.of(generation);
                assert!(!known.living.is_empty() && !known.signalled && !known.killed, "signalled twice: {known:?}");
                known.signalled = true;
            }
            Action::Kill(generation) => {
                self.hooks.retain(|(hook, of)| *of != generation || *hook == Hook::AfterDrain);
                let known = self.of(generation);
                assert!(known.living.is_empty() || !known.killed, "killed twice");
                known.killed = !known.living.is_empty();
            }
            Action::Bury(instance) => drop(self.of(instance.generation).living.remove(&instance.number)),
            Action::LookBehind(generation) => {
                assert!(!self.steered.contains(&generation.0), "looked behind while it gets what is new");
                let known = self.of(generation);
                assert!(known.living.is_empty() && !known.released && !known.behind, "not a gone one's: {known:?}");
                known.behind = true;
            }
            Action::Release(generation) => {
                let known = self.of(generation);
                assert!(known.living.is_empty() && !known.released && !known.behind, "released twice: {known:?}");
                known.released = true;
            }
            Action::Tell(_) | Action::Remember(_) | Action::AskChecks(_) => {}
            Action::Answer(ticket, _) => {
                assert!(self.open_tickets.remove(&ticket.0), "answered twice");
            }
            Action::Exit(_) => {
                assert!(self.known.values().all(|known| known.living.is_empty()), "left somebody behind");
                assert!(self.open_tickets.is_empty(), "left without a verdict: {:?}", self.open_tickets);
                self.exited = true;
            }
        }
        None
    }

    fn of(&mut self, generation: Generation) -> &mut Known {
        self.known.get_mut(&generation.0).expect("only known generations are spoken of")
    }

    fn lives(&mut self, instance: Instance) -> bool {
        self.of(instance.generation).living.contains_key(&instance.number)
    }

    fn steer(&mut self, portions: &[Portion]) {
        for portion in portions {
            let known = self.of(portion.generation);
            assert!(!known.living.is_empty(), "steered to the dead: {portion:?}");
            assert!(portion.instances.iter().all(|number| known.living.contains_key(number)), "{portion:?}: {known:?}");
            assert!(!known.signalled && portion.weight > 0, "steered to one that was asked to finish");
        }
        self.steered = portions.iter().map(|portion| portion.generation.0).collect();
    }

    fn prepare(&mut self, generation: Generation, origin: Origin) -> Event {
        assert!(self.known.keys().all(|known| *known < generation.0), "generations only grow");
        self.story.broken = (self.below(8) == 0).then_some("zdr.toml: no");
        let answer = self.story.prepare(generation, origin);
        if matches!(answer, Event::Prepared { .. }) {
            self.known.insert(generation.0, Known::default());
        }
        answer
    }

    fn spawn(&mut self, instance: Instance, place: Place, like: Option<Generation>) -> Event {
        let Instance { generation, number } = instance;
        if let Place::Of(dead) = place {
            assert!(self.of(dead).living.is_empty() && !self.of(dead).released, "took the slot of one that lives");
            assert!(like.is_some_and(|like| !self.of(like).is_pause), "like nobody");
            self.known.entry(generation.0).or_default();
        }
        assert!(!self.lives(instance) && !self.of(generation).released, "started twice: {instance}");
        if self.below(8) != 0 {
            self.of(generation).living.insert(number, false);
            spawned_at(generation.0, number)
        } else {
            let code = (self.below(2) == 0).then_some(127);
            Event::SpawnFailed { instance, why: "no".to_owned(), code }
        }
    }

    fn any_of(&mut self, those: &[Instance]) -> Option<Instance> {
        let count = u64::try_from(those.len()).unwrap();
        if count == 0 { None } else { Some(those[usize::try_from(self.below(count)).unwrap()]) }
    }

    fn living(&mut self, wanted: impl Fn(&Known, bool) -> bool) -> Option<Instance> {
        let mut living = Vec::new();
        for (generation, known) in &self.known {
            let its = known.living.iter().filter(|(_, ready)| wanted(known, **ready));
            living.extend(its.map(|(number, _)| at(*generation, *number)));
        }
        self.any_of(&living)
    }

    fn dies(&mut self, instance: Instance) {
        self.of(instance.generation).living.remove(&instance.number);
        let exit = if self.below(4) == 0 { Exit::Code(0) } else { Exit::Signal(9) };
        self.happens(Event::Exited { instance, exit });
    }

    fn becomes_ready(&mut self, instance: Instance) {
        self.of(instance.generation).living.insert(instance.number, true);
        self.happens(Event::Ready { instance });
    }

    /// What had begun to come to one that is gone is there.
    fn is_left(&mut self) -> bool {
        let Some(dead) = self.known.iter().find_map(|(number, known)| known.behind.then_some(*number)) else {
            return false;
        };
        let waiting = usize::try_from(self.below(3)).unwrap();
        self.of(Generation(dead)).behind = false;
        self.happens(left(dead, waiting));
        true
    }

    fn hook_ends(&mut self, well: bool) -> bool {
        let Some((hook, generation)) = self.hooks.pop() else { return false };
        let failure = (!well && self.below(3) == 0).then(|| "exited with code 1".to_owned());
        self.happens(Event::HookEnded { hook, generation, failure });
        true
    }

    pub(super) fn something_happens(&mut self) {
        match self.below(24) {
            0..=2 => {
                let ticket = self.ticket();
                let until = if self.below(3) == 0 { Until::Drained } else { Until::Serving };
                self.happens(Event::Reload { ticket, command: None, until });
            }
            3 => {
                let ticket = self.ticket();
                self.happens(Event::Restart { ticket });
            }
            4 if self.below(6) == 0 => {
                self.stops += 1;
                let ticket = self.ticket();
                self.happens(Event::Stop { ticket });
            }
            5..=8 => {
                if let Some(instance) = self.living(|known, ready| !ready && !known.killed) {
                    self.becomes_ready(instance);
                }
            }
            9 => {
                if let Some(instance) = self.living(|known, _| known.quiesced) {
                    self.happens(quiet(instance.generation.0));
                }
            }
            10..=11 => {
                if let Some(instance) = self.living(|known, _| known.signalled || known.killed) {
                    self.dies(instance);
                }
            }
            12 => {
                if let Some(instance) = self.living(|_, _| true) {
                    self.dies(instance);
                }
            }
            13 => drop(self.is_left()),
            14..=15 => {
                if let Some(instance) = self.living(|_, _| true) {
                    let event = self.does_not_do_well(instance);
                    self.happens(event);
                }
            }
            16..=17 => drop(self.hook_ends(false)),
            18..=20 => {
                let event = self.operated();
                self.happens(event);
            }
            _ => self.time_passes(),
        }
    }

    /// What somebody may ask for.
    fn operated(&mut self) -> Event {
        match self.below(6) {
            0..=1 => Event::Rollback { ticket: self.ticket() },
            2 => {
                let to = u32::try_from(self.below(5)).unwrap();
                let by = i32::try_from(self.below(5)).unwrap() - 2;
                let scale = if self.below(2) == 0 { Scale::To(to) } else { Scale::By(by) };
                Event::Scale { ticket: self.ticket(), scale }
            }
            3 => Event::Pause { ticket: self.ticket(), time: Duration::from_secs(3) },
            4 => Event::Resume { ticket: self.ticket() },
            _ => Event::Changed { path: "src/a".into() },
        }
    }

    /// What a generation in any seat may say or show.
    fn does_not_do_well(&mut self, instance: Instance) -> Event {
        let generation = instance.generation;
        let sign = if self.below(2) == 0 { Sign::Answers } else { Sign::Watchdog(instance.number) };
        match self.below(9) {
            0..=1 => Event::Stuck { generation, sign, why: "no answer".to_owned() },
            2..=3 => Event::Recovered { generation, sign },
            4 => Event::Leaving { instance },
            5 => Event::Unready { instance },
            6 => Event::TooLarge { instance, why: "uses 2 GiB".to_owned() },
            7 => {
                let state = if self.below(2) == 0 { Health::Unhealthy } else { Health::Healthy };
                Event::Checked {
                    name: "db".to_owned(),
                    state,
                    message: "no".to_owned(),
                    critical: self.below(2) == 0,
                    was_well: self.below(4) != 0,
                }
            }
            _ => Event::ReadyAgain { instance },
        }
    }

    fn time_passes(&mut self) {
        if let Some(deadline) = self.story.supervisor.next_deadline() {
            self.story.now = self.story.now.max(deadline);
            self.happens(Event::Elapsed);
            let next = self.story.supervisor.next_deadline();
            assert!(self.exited || next.is_none_or(|next| next > self.story.now), "a deadline was not dealt with");
        }
    }

    fn check_seats(&self) {
        let supervisor = &self.story.supervisor;
        if self.exited {
            return;
        }
        let mut seated = BTreeSet::new();
        seated.extend(supervisor.starting.iter().map(|at| at.generation.0));
        seated.extend(supervisor.serving.iter().map(|at| at.generation.0));
        seated.extend(supervisor.draining.iter().map(|at| at.generation.0));
        for (number, known) in &self.known {
            assert!(known.living.is_empty() || seated.contains(number), "generation {number} lives and has no seat");
        }
        if let Some(serving) = &supervisor.serving {
            assert_eq!(self.steered.first(), Some(&serving.generation.0), "who serves gets what is new");
            assert!(!serving.crew.ready().is_empty(), "nobody of those that serve can");
        }
        let waits_for_somebody = supervisor.next_deadline().is_some()
            || supervisor.plan.as_ref().is_some_and(|plan| plan.policy.watched)
            || !self.hooks.is_empty()
            || self.known.values().any(|known| !known.living.is_empty() || known.behind);
        assert!(supervisor.serving.is_some() || waits_for_somebody || seated.is_empty(), "stuck with nobody serving");
    }

    /// Everything that starts is ready, everything that is signalled ends, and time passes.
    pub(super) fn all_goes_well(&mut self) {
        for _ in 0..400 {
            if self.exited {
                return;
            }
            if self.is_left() || self.hook_ends(true) {
                continue;
            }
            if let Some(instance) = self.living(|known, _| known.signalled || known.killed) {
                self.dies(instance);
            } else if let Some(instance) = self.living(|_, ready| !ready) {
                self.becomes_ready(instance);
            } else if let Some(instance) = self.living(|known, _| known.quiesced) {
                self.of(instance.generation).quiesced = false;
                self.happens(quiet(instance.generation.0));
            } else if self.story.supervisor.serving.is_none() && self.story.settings.policy.watched {
                self.happens(Event::Changed { path: "src/a".into() });
            } else {
                self.time_passes();
            }
        }
    }
}
