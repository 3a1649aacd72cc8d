//! The edges, simulated: any event may come at any time, and no promise of the rules to them may be broken.

mod chance;

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
    /// Those that the settings are known of.
    remembered: BTreeSet<Generation>,
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
            remembered: BTreeSet::new(),
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
            Action::Remember(wanted) => {
                let living = self.known.iter().filter(|(_, known)| !known.living.is_empty());
                let forgotten = living.map(|(number, _)| Generation(*number)).find(|living| !wanted.contains(living));
                assert_eq!(forgotten, None, "forgotten while it lives");
                self.remembered.retain(|generation| wanted.contains(generation));
            }
            Action::Tell(_) | Action::AskChecks(_) => {}
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
        if let Origin::Like(other) = &origin {
            assert!(self.remembered.contains(other), "like one that was forgotten");
        }
        self.story.broken = (self.below(8) == 0).then_some("zdr.toml: no");
        let answer = self.story.prepare(generation, origin);
        if matches!(answer, Event::Prepared { .. }) {
            self.known.insert(generation.0, Known::default());
            self.remembered.insert(generation);
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
        if let Some(like) = like {
            assert!(self.remembered.contains(&like), "like one that was forgotten");
            self.remembered.insert(generation);
        }
        assert!(self.remembered.contains(&generation), "forgotten before it was started");
        assert!(!self.lives(instance) && !self.of(generation).released, "started twice: {instance}");
        if self.below(8) != 0 {
            self.of(generation).living.insert(number, false);
            spawned_at(generation.0, number)
        } else {
            let code = (self.below(2) == 0).then_some(127);
            Event::SpawnFailed { instance, why: "no".to_owned(), code }
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
}
