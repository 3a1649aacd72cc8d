//! The edges, simulated: keep the promises that the real ones make to the rules, and watch that the rules keep theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;

/// What the simulated edges know of a generation.
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what has happened to it, in any order")]
pub(super) struct Known {
    /// Its living instances; true for those that are ready.
    pub(super) living: BTreeMap<u32, bool>,
    pub(super) signalled: bool,
    pub(super) killed: bool,
    pub(super) released: bool,
    pub(super) quiesced: bool,
    pub(super) behind: bool,
    /// It never has a process.
    pub(super) is_pause: bool,
}

/// The edges, simulated: keeps the rules' promises to the kernel, and watches that they keep theirs.
pub(super) struct System {
    pub(super) story: Story,
    pub(super) random: u64,
    pub(super) known: BTreeMap<u64, Known>,
    /// Where what is new goes; the first is the front.
    pub(super) steered: Vec<u64>,
    pub(super) held: bool,
    pub(super) paused: Option<u64>,
    pub(super) hooks: Vec<(Hook, Generation)>,
    pub(super) open_tickets: BTreeSet<u64>,
    pub(super) tickets: u64,
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

    pub(super) fn ticket(&mut self) -> Ticket {
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

    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
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

    pub(super) fn of(&mut self, generation: Generation) -> &mut Known {
        self.known.get_mut(&generation.0).expect("only known generations are spoken of")
    }

    pub(super) fn lives(&mut self, instance: Instance) -> bool {
        self.of(instance.generation).living.contains_key(&instance.number)
    }

    pub(super) fn steer(&mut self, portions: &[Portion]) {
        for portion in portions {
            let known = self.of(portion.generation);
            assert!(!known.living.is_empty(), "steered to the dead: {portion:?}");
            assert!(portion.instances.iter().all(|number| known.living.contains_key(number)), "{portion:?}: {known:?}");
            assert!(!known.signalled && portion.weight > 0, "steered to one that was asked to finish");
        }
        self.steered = portions.iter().map(|portion| portion.generation.0).collect();
    }

    pub(super) fn prepare(&mut self, generation: Generation, origin: Origin) -> Event {
        assert!(self.known.keys().all(|known| *known < generation.0), "generations only grow");
        self.story.broken = (self.below(8) == 0).then_some("zdr.toml: no");
        let answer = self.story.prepare(generation, origin);
        if matches!(answer, Event::Prepared { .. }) {
            self.known.insert(generation.0, Known::default());
        }
        answer
    }

    pub(super) fn spawn(&mut self, instance: Instance, place: Place, like: Option<Generation>) -> Event {
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

    pub(super) fn any_of(&mut self, those: &[Instance]) -> Option<Instance> {
        let count = u64::try_from(those.len()).unwrap();
        if count == 0 { None } else { Some(those[usize::try_from(self.below(count)).unwrap()]) }
    }

    pub(super) fn living(&mut self, wanted: impl Fn(&Known, bool) -> bool) -> Option<Instance> {
        let mut living = Vec::new();
        for (generation, known) in &self.known {
            let its = known.living.iter().filter(|(_, ready)| wanted(known, **ready));
            living.extend(its.map(|(number, _)| at(*generation, *number)));
        }
        self.any_of(&living)
    }
}
